"""Several tokens in one dimension: which regime, and the sharp constants of each.

    dx_l/dt = x_l sum_{j <= l} kappa(tau_lj) Delta_j x_j^2,   tau_lj = Delta_{j+1} + ... + Delta_l,
    Delta_j = softplus(s x_j + b),   kappa(tau) = sum_n w_n e^{-a_n tau},   w_n = c_n b_n,   A = -diag(a)

In the paper (Vo et al., arXiv 2410.03292) kappa = mu e^{-a tau}: one decay for all states. Since x_l is a factor, signs
of tokens are invariant for every kernel; |x_l| is monotone where kappa keeps its sign. Delta_0 = softplus(b).

**kappa(0) < 0, plateaus.** x_l^2 ~ alpha_l / (2 |kappa(0)| Delta_0 t) with k_m = kappa(m Delta_0)/kappa(0) and

    alpha_l = max(0, 1 - sigma_l),   sigma_l = sum_{j < l} k_{l-j} alpha_j,   alpha_1 = 1.

Where sigma_l > 1 token l falls faster, as t^{-sigma_l/2}. Proof: u_l = 2 |kappa(0)| Delta_0 t x_l^2 obeys, in ln t and
up to O(t^{-1/2}), du_l = u_l (1 - u_l - sum_{j<l} k_{l-j} u_j), a triangular Lotka-Volterra system. kappa = mu e^{-a
tau} gives alpha_l = 1 - e^{-a Delta_0} for every l >= 2. The plateau is reached as t^{-r} (ln t)^m, with r the
least of the rates of tokens 1 .. l (alpha_j, or sigma_j - 1 where alpha_j = 0) and, unless s = 0, of 1/2, since
Delta(x) - Delta_0 is of the order of x; m + 1 of these rates are equal to r (Jordan blocks, resonance).

**kappa(0) > 0, all s x_l < 0: slow.** w = |s x_1| has (mu/s^2) t = int w^{-3} dw/softplus(b - w), hence

    w = L + 3 ln w - ln(1 + 3/w + 12/w^2 + 60/w^3 + ...),   L = ln t + ln(mu/s^2) + b,
      = L + 3 ln L + (9 ln L - 3)/L + O((ln L / L)^2).

For l >= 2 and kappa = mu e^{-a tau}, x_l/x_1 rises to a limit r_l > 1 that depends on the initial data.

**kappa(0) > 0, some s x_l >= 0: fast.** The first token p to reach infinity goes as (3 kappa(0) |s| (T* - t))^{-1/3}.
The tokens before it do not feel it and are finite at T*. With sigma = ln x_p a later token obeys, up to a bounded
shift of sigma, d ln x_l/d sigma = kappa(Delta_{p+1} + ... + Delta_l)/kappa(0); see `followers`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ssmtheory.dynamics.asymptotics._common import finite, gauss, integrate, log_softplus, softplus
from ssmtheory.dynamics.asymptotics.exponential_sums import ExponentialSum
from ssmtheory.dynamics.asymptotics.finite_time import blow_up_time
from ssmtheory.errors import InputError

__all__ = [
    "Follower",
    "Kernel",
    "Plateaus",
    "Regime",
    "classify",
    "follower_growth",
    "follower_rest_points",
    "followers",
    "plateaus",
    "slow_growth",
    "slow_log_time",
    "slow_ratios",
    "token_rates",
]


@dataclass(frozen=True)
class Kernel:
    """kappa(tau) = sum_n weights_n e^{-rates_n tau}, the kernel of one channel.

    weights: (state,) w_n = c_n b_n [1/depth]; `Kernel.scalar` has the paper's mu as its only one.
    rates: (state,) a_n = -A_n > 0.

    Raises:
        InputError: entries that are not finite, shapes that differ, or a rate that is not positive.

    >>> float(round(Kernel((-1.0, 2.0), (0.1, 3.0))(np.log(2.0)), 3))
    -0.683
    """

    weights: Any
    rates: Any

    def __post_init__(self) -> None:
        w, a = finite(weights=self.weights, rates=self.rates)
        if w.ndim != 1 or w.shape != a.shape or not len(w):
            raise InputError(f"weights and rates must be vectors of one length, not {w.shape} and {a.shape}")
        if (a <= 0).any():
            raise InputError(f"rates are -A and must be positive, not {a[a <= 0][0]:g}; A must be negative")
        for name, value in (("weights", w), ("rates", a)):
            value = value.copy()
            value.flags.writeable = False
            object.__setattr__(self, name, value)

    @classmethod
    def scalar(cls, mu: float, a: float) -> Kernel:
        """mu e^{-a tau}: one decay for all states, as in the paper."""
        return cls((mu,), (a,))

    def __call__(self, tau: Any) -> np.ndarray:
        """kappa at lag times tau >= 0."""
        return np.exp(-np.asarray(tau, np.float64)[..., None] * self.rates) @ self.weights

    @property
    def at_zero(self) -> float:
        """kappa(0) = sum_n c_n b_n, which is mu."""
        return float(self.weights.sum())

    def zeros(self) -> np.ndarray:
        """The lag times at which kappa changes sign, rising; `ExponentialSum` isolates them."""
        found = ExponentialSum(self.weights, -self.rates).roots(0.0)
        return found.roots[found.roots > 0]

    @property
    def definite(self) -> bool:
        """Whether kappa(tau) kappa(0) > 0 for every tau >= 0: then the dichotomy of the paper holds.

        False also where float64 cannot tell, as at a zero of second order.
        """
        found = ExponentialSum(self.weights, -self.rates).roots(0.0)
        return self.at_zero != 0 and not (found.roots > 0).any() and not len(found.undecided)


def token_rates(x: Any, kernel: Kernel, s: float, bias: float = 0.0) -> np.ndarray:
    """d ln|x_l|/dt = sum_{j <= l} kappa(tau_lj) Delta_j x_j^2, term by term.

    Args:
        x: (token,).
        kernel, s, bias: of the channel.

    Returns:
        (token,) [1/depth].
    """
    (x,) = finite(x=x)
    delta = softplus(s * x + bias)
    return np.tril(kernel(_lags(delta))) @ (delta * x**2)


def _lags(delta: np.ndarray) -> np.ndarray:
    """tau_lj = Delta_{j+1} + ... + Delta_l below the diagonal, 0 elsewhere, (token, token).

    Summed, never subtracted: where one Delta is 1e13, the difference of two clocks has lost the others.
    """
    lag = np.zeros((len(delta), len(delta)))
    for i in range(1, len(delta)):
        lag[i, :i] = lag[i - 1, :i] + delta[i]
    return lag


# ------------------------------------------------------------------------------------------------ classification


Name = Literal["rest", "convergent", "slow", "fast"]


@dataclass(frozen=True)
class Regime:
    """What the tokens of one sequence do.

    name: "rest" (kappa(0) = 0, or every token is 0), "convergent", "slow" or "fast".
    fast: (token,) whether s x_l >= 0 and x_l != 0: a token that blows up by itself where kappa(0) > 0.
    bound: T* is at most this [depth]; infinite outside of "fast". None where kappa changes sign, and nothing is
        bounded.
    dichotomy: whether kappa keeps its sign, so that the regime of the first token is that of all.
    """

    name: Name
    fast: np.ndarray
    bound: float | None
    dichotomy: bool


def classify(kernel: Kernel, s: float, x0: Any, bias: float = 0.0) -> Regime:
    """The regime of a sequence of tokens in one dimension.

    Args:
        kernel: of the channel; `Kernel.scalar(mu, a)` in the paper's case.
        s: S_Delta.
        x0: (token,) initial tokens.
        bias: of softplus.

    Raises:
        InputError: x0 is no vector or has entries that are not finite.

    Vo et al., arXiv 2410.03292 (three regimes by the signs of mu and S_Delta x); with kappa in place of mu.

    >>> classify(Kernel.scalar(1.0, 1.0), 1.0, [-1.0, -0.5]).name
    'slow'
    """
    slope, b, x = finite(s=s, bias=bias, x0=x0)
    if x.ndim != 1 or not len(x):
        raise InputError(f"x0 must be a vector of tokens, not of shape {x.shape}")
    mu = kernel.at_zero
    fast = (slope * x >= 0) & (x != 0)
    if mu == 0 or not (x != 0).any():
        return Regime("rest", fast, math.inf, kernel.definite)
    if mu < 0:
        return Regime("convergent", fast, math.inf, kernel.definite)
    if not fast.any():
        return Regime("slow", fast, math.inf, kernel.definite)
    alone = blow_up_time(mu, float(slope), x[fast], float(b))
    # with kappa > 0 the tokens before only push a token on, so each blows up no later than by itself
    definite = kernel.definite
    return Regime("fast", fast, float(np.min(alone)) if definite else None, definite)


# ------------------------------------------------------------------------------------------------ convergence


@dataclass(frozen=True)
class Plateaus:
    """The convergent regime, per token.

    alpha: x_l^2 ~ alpha_l / (2 |kappa(0)| Delta_0 t).
    exponent: |x_l| ~ t^{-exponent}: 1/2 where alpha_l > 0, sigma_l/2 elsewhere.
    relaxation: r in |2 |kappa(0)| Delta_0 t x_l^2 - alpha_l| ~ t^{-r} (ln t)^logs; logs: the power of ln t.
    """

    alpha: np.ndarray
    exponent: np.ndarray
    relaxation: np.ndarray
    logs: np.ndarray


def plateaus(kernel: Kernel, tokens: int, *, bias: float = 0.0, s: float = 1.0) -> Plateaus:
    """alpha_l, exponents and relaxation of the convergent regime (the module's recursion).

    Args:
        kernel: with kappa(0) < 0.
        tokens: how many.
        bias: of softplus; s: S_Delta, which only decides whether t^{-1/2} is among the relaxation rates.

    Raises:
        InputError: kappa(0) >= 0, or fewer than one token.

    >>> plateaus(Kernel.scalar(-2.0, 3.0), 3).alpha
    array([1.   , 0.875, 0.875])
    """
    if kernel.at_zero >= 0:
        raise InputError(f"plateaus need kappa(0) < 0, not {kernel.at_zero:g}; see classify")
    if tokens < 1:
        raise InputError(f"tokens must be at least 1, not {tokens}")
    b, slope = finite(bias=bias, s=s)
    k = kernel(np.arange(tokens) * softplus(b)) / kernel.at_zero
    alpha, sigma, rate = np.zeros(tokens), np.zeros(tokens), np.zeros(tokens)
    for i in range(tokens):
        sigma[i] = k[i:0:-1] @ alpha[:i]
        alpha[i] = max(0.0, 1.0 - sigma[i])
        rate[i] = alpha[i] if alpha[i] > 0 else sigma[i] - 1.0
    relaxation, logs = np.zeros(tokens), np.zeros(tokens, np.int64)
    for i in range(tokens):
        if alpha[i] == 0:
            # u_i is a factor of its own equation: what the others still do changes its constant only
            relaxation[i] = rate[i]
            continue
        # a plateau is reached at its own rate, at that of every token it hears, and at that of Delta(x) - Delta_0
        rates = np.append(rate[: i + 1], 0.5) if slope != 0 else rate[: i + 1]
        relaxation[i] = rates.min()
        logs[i] = int(np.count_nonzero(rates <= relaxation[i] * (1 + 1e-12))) - 1
    return Plateaus(alpha, np.where(alpha > 0, 0.5, 0.5 * sigma), relaxation, logs)


# ------------------------------------------------------------------------------------------------ slow growth


def _tail_series(w: np.ndarray, terms: int) -> np.ndarray:
    """ln(1 + 3/w + 12/w^2 + ...): e^{-w} w^3 int^w e^v v^{-3} dv, asymptotically; the k-th term is (k+2)!/(2 w^k)."""
    total, term = np.zeros_like(w), np.ones_like(w)
    for k in range(1, terms + 1):
        new = term * (k + 2) / w
        # an asymptotic series: past its least term it only gets worse
        term = np.where(new < term, new, 0.0)
        total = total + term
    return np.log1p(total)


def slow_log_time(w: Any, mu: float, s: float, bias: float = 0.0, *, terms: int = 12) -> np.ndarray:
    """ln t at which w = |s x_1| is reached in the slow regime, up to what the initial value adds to t.

    Args:
        w: (...,) at least 5 + bias (the law is asymptotic).
        mu, s, bias: mu > 0, s != 0.
        terms: of the series in 1/w.

    Returns:
        (...,) ln t = w - b - ln(mu/s^2) - 3 ln w + ln(1 + 3/w + 12/w^2 + ...).

    Raises:
        InputError: mu <= 0, s = 0, w <= 0, or an entry is not finite.
    """
    values, m, slope, b = finite(w=w, mu=mu, s=s, bias=bias)
    if m <= 0 or slope == 0:
        raise InputError(f"slow growth needs mu > 0 and s != 0, not {m} and {slope}")
    if (values <= 0).any():
        raise InputError(
            f"w is |s x_1| and must be positive, not {values.min():g}; the law needs w of 5 + bias or more"
        )
    return values - b - np.log(m / slope**2) - 3.0 * np.log(values) + _tail_series(values, terms)


def slow_growth(log_time: Any, mu: float, s: float, bias: float = 0.0, *, form: str = "implicit") -> np.ndarray:
    """w = |s x_1| at ln t in the slow regime.

    Args:
        log_time: (...,) ln t, with L = ln t + ln(mu/s^2) + bias at least 6.
        mu, s, bias: mu > 0, s != 0.
        form: "implicit" solves w = L + 3 ln w - ln(1 + 3/w + ...), to rounding for L beyond 40; "leading" is
            L + 3 ln L; "corrected" is L + 3 ln L + (9 ln L - 3)/L; "three-term" is
            ln t + 3 ln ln t + ln(mu/s^2) + bias.

    Raises:
        InputError: unknown form, mu <= 0, s = 0, or L below 6.

    >>> float(round(slow_growth(99965.46, 1.0, 1.0), 1))
    100000.0
    """
    t, m, slope, b = finite(log_time=log_time, mu=mu, s=s, bias=bias)
    forms = ("implicit", "leading", "corrected", "three-term")
    if form not in forms:
        raise InputError(f"form {form!r} is not one of {', '.join(forms)}")
    if m <= 0 or slope == 0:
        raise InputError(f"slow growth needs mu > 0 and s != 0, not {m} and {slope}")
    L = t + np.log(m / slope**2) + b
    if (L < 6).any():
        raise InputError(
            f"the law of slow growth is asymptotic: ln t + ln(mu/s^2) + bias must be at least 6, not {L.min():g}"
        )
    if form == "three-term":
        return L + 3.0 * np.log(t)
    if form == "leading":
        return L + 3.0 * np.log(L)
    corrected = L + 3.0 * np.log(L) + (9.0 * np.log(L) - 3.0) / L
    if form == "corrected":
        return corrected
    w = corrected
    for _ in range(50):  # the map has slope 3/w: it converges from any L of 6 on
        w = L + 3.0 * np.log(w) - _tail_series(w, 12)
    return w


def slow_ratios(
    mu: float, a: float, s: float, x0: Any, bias: float = 0.0, *, budget: int = 200_000, rtol: float = 1e-11
) -> np.ndarray:
    """r_l = lim x_l/x_1 in the slow regime, from the initial tokens.

    The clock is ln w with w = |s x_1|; tokens and steps are kept as logarithms, so that Delta = e^{-100000} is no
    difficulty. Since d(x_l/x_1) falls as e^{-(r - 1) w} the ratios freeze; the integration ends where they have.

    Args:
        mu, a: the kernel mu e^{-a tau}, both positive.
        s, x0, bias: S_Delta, (token,) tokens with s x_l < 0, and the bias of softplus.
        budget, rtol: of the integration.

    Returns:
        (token,) ratios; the first is 1.

    Raises:
        InputError: not the slow regime, or the ratios did not freeze within the budget.
    """
    if classify(Kernel.scalar(mu, a), s, x0, bias).name != "slow" or not np.all(np.asarray(x0)):
        raise InputError("ratios belong to the slow regime: mu > 0 and s x_l < 0 for every token")
    x = np.abs(np.asarray(x0, np.float64))
    slope = abs(float(s))
    sign = np.tri(len(x))

    def rhs(log_w: float, log_ratio: np.ndarray) -> np.ndarray:
        # log of x_l^2 Delta_l relative to that of token 1
        log_r = np.concatenate([[0.0], log_ratio])
        w = math.exp(log_w) * np.exp(log_r)
        log_delta = log_softplus(bias - w)
        weight = np.exp(np.minimum(2.0 * log_r + log_delta - log_delta[0], 600.0))
        delta = np.exp(log_delta)
        rate = (sign * np.exp(-a * _lags(delta))) @ weight
        return (rate / rate[0] - 1.0)[1:]

    if len(x) == 1:
        return np.ones(1)
    log_w, state = math.log(slope * x[0]), np.log(x[1:] / x[0])
    spent = 0
    for _ in range(60):
        path = integrate(rhs, state, (log_w, log_w + 1.0), method="Radau", budget=budget - spent, rtol=rtol, atol=1e-12)
        spent += path.calls
        if path.status != "end":
            break
        change = float(np.abs(path.y[:, -1] - state).max())
        log_w, state = log_w + 1.0, path.y[:, -1]
        if log_w > 3.0 and change < 1e-9:
            return np.concatenate([[1.0], np.exp(state)])
    raise InputError(f"the ratios did not freeze within {budget} calls; the last status was {path.status!r}")


# ------------------------------------------------------------------------------------------------ followers


@dataclass(frozen=True)
class Follower:
    """What one token does as T* is reached, with kappa = mu e^{-a tau} and mu > 0.

    kind: "finite" (before the token that blows up), "power" (|x_l| ~ (T* - t)^{-exponent}), "log" (as the logarithm
        iterated) or "zero" (a token that is 0 stays 0).
    exponent: of the power law; 0 elsewhere.
    logs: x_l ~ (1/(a |s|)) times the logarithm of ln x_p, iterated: once for the first fast-sign token behind p (ln ln
        1/(T* - t)), three times for the second, five times for the third; 0 elsewhere.
    """

    kind: str
    exponent: float = 0.0
    logs: int = 0


def followers(s: float, x0: Any, first: int, a: float, bias: float = 0.0) -> list[Follower]:
    """The laws of all tokens at T* where token `first` is the first to reach infinity (the module's fast regime).

    A token of slow sign forgets nothing: x_l/x_p tends to a constant. A token of fast sign wipes the memory with its
    own Delta, dx/dsigma = x (1 + e^{s x + b})^{-a}, hence x ~ ln(sigma)/(a |s|); what comes behind it hears x_p only
    through that: a slow-sign token is proportional to it, the next fast-sign token goes as the logarithm of its
    logarithm. A token that is 0 has the constant step Delta_0 and weakens the power to (1/3) e^{-a Delta_0}.

    Args:
        s: S_Delta; x0: (token,) initial tokens; first: index of the token that blows up first (`s x_first >= 0`).
        a: the decay; bias: of softplus.

    Raises:
        InputError: no such token, it cannot blow up, or a <= 0.

    >>> [f.kind for f in followers(1.0, [-1.0, 1.0, -0.5, 0.5], first=1, a=1.0)]
    ['finite', 'power', 'power', 'log']
    """
    x, slope, decay, b = finite(x0=x0, s=s, a=a, bias=bias)
    if x.ndim != 1 or not 0 <= first < len(x):
        raise InputError(f"first must be the index of one of the {len(x)} tokens, not {first}")
    if decay <= 0:
        raise InputError(f"a must be positive, not {decay:g}")
    if x[first] == 0 or slope * x[first] < 0:
        raise InputError(f"token {first} has s x = {slope * x[first]:g} and cannot be the first to blow up")
    found = []
    exponent, logs = (1.0 / 3.0 if slope != 0 else 0.5), 0
    for i, value in enumerate(x):
        if i < first:
            found.append(Follower("finite") if value else Follower("zero"))
        elif value == 0:
            # its step is Delta_0 for ever
            exponent *= math.exp(-float(decay * softplus(b)))
            found.append(Follower("zero"))
        elif slope == 0:
            exponent *= 1.0 if i == first else math.exp(-float(decay * softplus(b)))
            found.append(Follower("power", exponent))
        elif i == first or slope * value < 0:
            found.append(Follower("log", 0.0, logs) if logs else Follower("power", exponent))
        else:
            logs += 1 if logs == 0 else 2
            found.append(Follower("log", 0.0, logs))
    return found


def follower_growth(sigma: Any, x_start: float, a: float, s: float, bias: float = 0.0) -> np.ndarray:
    """|x_l| of a fast-sign token right behind the one that blows up, at sigma = ln(x_p / its initial value).

    Solves int_{x_start}^x (1 + e^{|s| u + b})^a du/u = sigma: the law of which (1/(a |s|)) ln sigma is the first term.

    Args:
        sigma: (...,) not negative.
        x_start: its size at sigma = 0; a, s, bias: as in `followers`.

    Raises:
        InputError: an argument is not finite, or a, s or x_start is zero or less.
    """
    target, start, decay, slope, b = finite(sigma=sigma, x_start=abs(x_start), a=a, s=abs(s), bias=bias)
    if min(float(start), float(decay), float(slope)) <= 0 or (target < 0).any():
        raise InputError(f"x_start, a and |s| must be positive and sigma not negative, not {start}, {decay}, {slope}")
    nodes, weights = gauss(64)

    def integral(y: np.ndarray) -> np.ndarray:
        """In u = e^v, over the last unit of v at most 64 nodes: pieces of length <= 1/4."""
        pieces = 64
        v = np.log(start) + (np.arange(pieces)[:, None] + nodes).ravel() / pieces * y[..., None]
        with np.errstate(over="ignore"):  # beyond the root the integrand may be infinite
            values = np.exp(decay * softplus(slope * np.exp(v) + b))
        return y * (values * np.tile(weights, pieces)).sum(axis=-1) / pieces

    flat = np.atleast_1d(target).ravel()
    low, high = np.zeros_like(flat), np.full_like(flat, 1.0)
    for _ in range(60):
        short = integral(high) < flat
        if not short.any():
            break
        high = np.where(short, high * 1.5, high)
    for _ in range(60):
        middle = 0.5 * (low + high)
        less = integral(middle) < flat
        low, high = np.where(less, middle, low), np.where(less, high, middle)
    return (start * np.exp(0.5 * (low + high))).reshape(target.shape)


@dataclass(frozen=True)
class RestPoint:
    """Where a token right behind the one that blows up can stay.

    x: its value (0, or a root of kappa(Delta(x)) = 0).
    rate: d ln|x_l - x| / d ln x_p; negative: it is approached, as (T* - t)^{|rate|/3}.
    """

    x: float
    rate: float


def follower_rest_points(kernel: Kernel, s: float, sign: float, bias: float = 0.0) -> list[RestPoint]:
    """The limits that a kernel of changing sign offers to the token behind the one that blows up.

    d ln|x|/d ln x_p = kappa(softplus(s x + b))/kappa(0): x = 0 with the rate kappa(Delta_0)/kappa(0), and each x of the
    given sign at which kappa(Delta(x)) = 0. Infinity is reached beyond the last of them if kappa is positive there.

    Args:
        kernel: with kappa(0) > 0.
        s: S_Delta, not 0; sign: of the token, 1 or -1; bias: of softplus.

    Raises:
        InputError: kappa(0) <= 0, s = 0 or sign = 0.
    """
    slope, side, b = finite(s=s, sign=sign, bias=bias)
    if kernel.at_zero <= 0 or slope == 0 or side == 0:
        raise InputError(f"needs kappa(0) > 0, s != 0 and a sign, not {kernel.at_zero:g}, {slope:g} and {side:g}")
    found = [RestPoint(0.0, float(kernel(softplus(b)) / kernel.at_zero))]
    for tau in kernel.zeros():
        x = float((np.log(np.expm1(tau)) - b) / slope)
        if x * side > 0:
            step = slope / (1.0 + math.exp(-(slope * x + b)))  # dDelta/dx
            derivative = float(np.exp(-tau * kernel.rates) @ (-kernel.rates * kernel.weights))
            found.append(RestPoint(x, x * derivative * float(step) / kernel.at_zero))
    return sorted(found, key=lambda each: abs(each.x))
