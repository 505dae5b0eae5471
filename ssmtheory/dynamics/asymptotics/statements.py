"""What the token-dynamics paper states, and what corrects it, as objects that can be checked.

Each `Statement` has its hypotheses, a status, and a check that integrates the depth equation by itself (the explicit
sum over earlier tokens, in a clock that stalls neither at a blow-up nor at an equilibrium, with a bounded number of
calls) and holds the result against the closed forms of this package. Statuses:

- proved: the proof is in the docstring named by `source`, or in `argument`; the check is a confirmation;
- confirmed: numerically, on the cases of the check;
- refuted-by-counterexample: `counterexample` runs it;
- out of reach at finite depth: true of t -> infinity, and not what 24 to 64 layers can show.

The paper is Vo et al., arXiv 2410.03292. What is quoted of it was read in its abstract or in the caption of its Fig. 6.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ssmtheory.dynamics.asymptotics import reduction, regimes, sphere
from ssmtheory.dynamics.asymptotics._common import Path, finite, integrate, log_softplus, softplus
from ssmtheory.dynamics.asymptotics.finite_time import blow_up_bounds, blow_up_time
from ssmtheory.dynamics.input_output import critical_depth, symmetric_eigenvalues
from ssmtheory.errors import InputError, nearest

__all__ = ["STATEMENTS", "Report", "Statement", "depth_flow", "statement", "token_log_flow"]

Status = Literal["proved", "confirmed", "refuted-by-counterexample", "out of reach at finite depth"]


@dataclass(frozen=True)
class Report:
    """What a check saw.

    holds: whether it agrees with the statement's status: the statement where proved or confirmed, the counterexample
        where refuted.
    numbers: measured and predicted, by name.
    detail: one sentence.
    calls: of right-hand sides.
    """

    holds: bool
    numbers: Mapping[str, float]
    detail: str
    calls: int = 0


@dataclass(frozen=True)
class Statement:
    """One statement about the depth equation.

    key: short name. text: the statement. source: where it stands. hypotheses: what it supposes.
    status: see the module. argument: the proof in short, where it is not in a docstring.
    counterexample: runs the case that refutes it; None elsewhere.
    confirmation: runs the case that confirms it; None where refuted.
    """

    key: str
    text: str
    source: str
    hypotheses: str
    status: Status
    argument: str = ""
    counterexample: Callable[[], Report] | None = None
    confirmation: Callable[[], Report] | None = None

    def __post_init__(self) -> None:
        if (self.counterexample is None) == (self.confirmation is None):
            raise InputError(f"statement {self.key!r} needs a counterexample or a confirmation, and not both")
        if (self.status == "refuted-by-counterexample") != (self.counterexample is not None):
            raise InputError(f"statement {self.key!r} is {self.status}: a counterexample belongs to a refutation")

    def check(self) -> Report:
        """Run the counterexample or the confirmation, from scratch."""
        run = self.counterexample or self.confirmation
        assert run is not None
        return run()


# ------------------------------------------------------------------------------------------------ integration


def depth_flow(
    x0: Any,
    S_B: Any,
    S_C: Any,
    S_delta: Any,
    *,
    A: Any = -1.0,
    bias: Any = 0.0,
    depth: float = 1e8,
    cut: float = 1e40,
    method: str = "Radau",
    budget: int = 20_000,
) -> Path:
    """The depth equation in D dimensions by its definition, in a clock that never stalls.

    dx_dl/dt = sum_{j<=l} x_l^T S_C^T exp(A_d sum_{k=j+1..l} Delta_d(x_k)) S_B x_j Delta_d(x_j) x_dj. The clock is
    d sigma = (largest relative rate + 1/(1 + t)) dt: near a blow-up ln|x|, near an equilibrium ln(1 + t).

    Args:
        x0: (token, channel); S_B, S_C: (state, channel); S_delta: (channel, channel).
        A: a number or (channel, state), negative; bias: a number or (channel,).
        depth: where to stop [depth]; cut: on |x|, where a blow-up is called one.
        method, budget: see `ssmtheory.dynamics.asymptotics._common.integrate`.

    Returns:
        The path: y has the tokens (row by row), and t in its last row; status "event" where depth or cut was reached.

    Raises:
        InputError: shapes differ, an entry is not finite, or A is not negative.
    """
    x, b, c, slopes, decay, shift = finite(x0=x0, S_B=S_B, S_C=S_C, S_delta=S_delta, A=A, bias=bias)
    if x.ndim != 2:
        raise InputError(f"x0 must be (token, channel), not of shape {x.shape}")
    tokens, width = x.shape
    if b.ndim != 2 or b.shape != c.shape or b.shape[1] != width or slopes.shape != (width, width):
        raise InputError(
            f"S_B and S_C must be (state, {width}) and S_delta ({width}, {width}), "
            f"not {b.shape}, {c.shape} and {slopes.shape}"
        )
    if (decay >= 0).any():
        raise InputError(f"A must be negative, not {decay.max():g}")
    decay = np.broadcast_to(decay, (width, len(b)))

    def velocity(now: np.ndarray) -> np.ndarray:
        step = softplus(now @ slopes.T + shift)  # (token, channel)
        bx, cx = now @ b.T, now @ c.T
        found = np.zeros_like(now)
        for i in range(tokens):
            lag = np.zeros(width)
            for j in range(i, -1, -1):
                kernel = np.exp(decay * lag[:, None]) @ (cx[i] * bx[j])
                found[i] += kernel * step[j] * now[j]
                lag = lag + step[j]
        return found

    def rhs(clock: float, state: np.ndarray) -> np.ndarray:
        now = state[:-1].reshape(tokens, width)
        v = velocity(now)
        size = np.linalg.norm(now, axis=1)
        rate = float((np.linalg.norm(v, axis=1) / np.where(size > 0, size, 1.0)).max())
        speed = 1.0 / (rate + 1.0 / (1.0 + max(state[-1], 0.0)))
        return np.append(v.ravel() * speed, speed)

    def late(clock: float, state: np.ndarray) -> float:
        return depth - state[-1]

    def far(clock: float, state: np.ndarray) -> float:
        return math.log(cut) - math.log(float(np.abs(state[:-1]).max()) + 1e-300)

    late.terminal, far.terminal = True, True  # type: ignore[attr-defined]
    return integrate(
        rhs, np.append(x.ravel(), 0.0), (0.0, 4000.0), method=method, budget=budget, rtol=1e-9, atol=1e-13,
        events=[late, far],
    )  # fmt: skip


def token_log_flow(
    x0: Any, kernel: regimes.Kernel, s: float, bias: float = 0.0, *, clock: str, end: float, save: Any = None,
    budget: int = 20_000, method: str = "Radau",
) -> Path:  # fmt: skip
    """Several tokens in one dimension, in logarithms, with the clock of the regime.

    Args:
        x0: (token,) non-zero; kernel, s, bias: of the channel.
        clock: "log time" (ln(1 + t); convergence) or "growth" (d sigma = largest |rate| dt; blow-up).
        end: of the clock; save: clock values; budget, method: of the integration.

    Returns:
        The path: rows of y are ln|x_l|; with "growth" a last row has t.
    """
    (x,) = finite(x0=x0)
    if x.ndim != 1 or not x.all():
        raise InputError("x0 must be a vector of tokens that differ from 0: their logarithms are integrated")
    sign = np.sign(x)
    if clock == "log time":

        def rhs(tau: float, state: np.ndarray) -> np.ndarray:
            return math.exp(tau) * regimes.token_rates(sign * np.exp(state), kernel, s, bias)

        start = np.log(np.abs(x))
    elif clock == "growth":

        def rhs(tau: float, state: np.ndarray) -> np.ndarray:
            # past |x| = e^100 the squares are e^200 and the steps e^100: still far from overflow
            rate = regimes.token_rates(sign * np.exp(np.minimum(state[:-1], 230.0)), kernel, s, bias)
            largest = float(np.abs(rate).max())
            return np.append(rate, 1.0) / largest

        start = np.append(np.log(np.abs(x)), 0.0)
    else:
        raise InputError(f"clock {clock!r} is not one of log time, growth")
    return integrate(rhs, start, (0.0, end), method=method, budget=budget, rtol=1e-10, atol=1e-12, save=save)


# ------------------------------------------------------------------------------------------------ the cases


def _convergence() -> Report:
    kernel, s, x0 = regimes.Kernel.scalar(-2.0, 3.0), 1.0, (0.7, -1.2, 0.5)
    path = token_log_flow(x0, kernel, s, clock="log time", end=math.log(1e8))
    alpha = np.exp(2 * path.y[:, -1]) * 4.0 * float(softplus(0.0)) * math.expm1(path.clock[-1])
    theory = regimes.plateaus(kernel, 3).alpha
    worst = float(np.abs(alpha / theory - 1).max())
    numbers = {f"alpha_{i + 1}": float(a) for i, a in enumerate(alpha)} | {"largest deviation": worst}
    return Report(worst < 1e-3, numbers, "2 |mu| Delta_0 t x_l^2 at t = 1e8 against 1, 7/8, 7/8", path.calls)


def _slow() -> Report:
    mu, a, x0 = 1.0, 0.5, np.array([1.0, 0.6, 1.4])
    sign = np.tri(3)

    def rhs(log_w: float, state: np.ndarray) -> np.ndarray:
        log_x, log_t = state[:3], state[3]
        x = np.exp(log_x)
        log_delta = log_softplus(-x)
        delta = np.exp(log_delta)
        lag = np.tril(np.cumsum(delta)[:, None] - np.cumsum(delta))
        weight = np.exp(np.minimum(2 * log_x + log_delta - 2 * log_x[0] - log_delta[0], 600.0))
        rate = (sign * np.exp(-a * lag)) @ weight
        # depth itself, e^100000 at the end: dt/t over d ln x_1
        turn = np.exp(min(-math.log(mu) - 2 * log_x[0] - log_delta[0] - log_t, 600.0))
        return np.append(rate / rate[0], turn)

    start = np.append(np.log(x0), -2.0)  # some depth to begin with: it is forgotten as e^{-w}
    path = integrate(
        rhs, start, (0.0, math.log(1e5)), method="Radau", rtol=1e-9, atol=1e-9, save=[math.log(1e3), math.log(1e5)]
    )
    log_log_t = np.log(np.maximum(path.y[3], 1.001))
    # a token that blows up stops the depth: ln ln t does not move then
    slope = np.diff(path.y[:3], axis=1)[:, 0] / np.maximum(np.diff(log_log_t), 1e-12)
    # x_l/x_1 is constant by then, and the law of the first token gives the slope between any two depths
    law = np.diff(path.y[0]) / np.diff(np.log(regimes.slow_log_time(np.exp(path.y[0]), mu, 1.0)))
    numbers = {f"exponent_{i + 1}": float(v) for i, v in enumerate(slope)}
    numbers |= {"exponent by the law": float(law[0]), "exponent_3 over that of the law": float(slope[2] / law[0])}
    return Report(
        bool(np.abs(slope / law - 1).max() < 1e-6), numbers,
        "d ln x_l / d ln ln t between w = 1e3 and 1e5 is that of (ln t)^1 for every token, not (ln t)^l", path.calls,
    )  # fmt: skip


def _blow_up() -> Report:
    path = token_log_flow([1.0], regimes.Kernel.scalar(1.0, 1.0), 1.0, clock="growth", end=14.0, method="DOP853")
    x = math.exp(path.y[0, -1])
    reached = float(path.y[1, -1]) + blow_up_time(1.0, 1.0, x)
    exact = blow_up_time(1.0, 1.0, 1.0)
    high = float(blow_up_bounds(1.0, 1.0, 1.0, sharp=False)[1])
    numbers = {"T* by integration": reached, "T* by quadrature": exact, "bound": high}
    return Report(abs(reached / exact - 1) < 1e-9 and exact < high, numbers, "T* at mu = s = x0 = 1", path.calls)


def _before_the_first() -> Report:
    path = token_log_flow(
        [-1.0, 1.0, -0.5], regimes.Kernel.scalar(1.0, 1.0), 1.0, clock="growth", end=60.0, save=[20.0, 60.0]
    )
    moved = path.y[:3, 1] - path.y[:3, 0]
    numbers = {"x_1 at T*": -math.exp(path.y[0, 1]), "d ln x_3 / d ln x_2": float(moved[2] / moved[1])}
    holds = abs(moved[0]) < 1e-6 and abs(moved[2] / moved[1] - 1) < 1e-3
    return Report(
        holds, numbers, "token 2 blows up, token 1 is finite at T*, token 3 follows in proportion", path.calls
    )


def _kappa() -> Report:
    kernel = regimes.Kernel((-1.0, 2.0), (0.1, 3.0))
    path = token_log_flow([1.0, -0.5], kernel, 1.0, clock="growth", end=100.0, save=[40.0, 100.0])
    rate = float((path.y[1, 1] - path.y[1, 0]) / (path.y[0, 1] - path.y[0, 0]))
    theory = -float(kernel(math.log(2.0))) / (3.0 * kernel.at_zero)
    numbers = {"exponent of x_2": -rate / 3.0, "|kappa(ln 2)|/(3 kappa(0))": theory}
    return Report(
        abs(-rate / 3.0 / theory - 1) < 1e-3, numbers,
        "kappa(0) = 1: token 1 blows up while token 2 falls to 0 as (T* - t)^0.2277", path.calls,
    )  # fmt: skip


def _two_channels(M: Any, slopes: Any, x0: Any, **options: Any) -> Path:
    # S_C = I and S_B = M give S_C^T S_B = M with two states
    return depth_flow([x0], np.asarray(M, np.float64), np.eye(2), np.asarray(slopes, np.float64), **options)


def _to_zero(M: Any, x0: Any) -> Report:
    depth = 1e6
    path = _two_channels(M, np.zeros((2, 2)), x0, depth=depth)
    size = float(np.linalg.norm(path.y[:2, -1]))
    exact = float(reduction.common_step_norm(x0, M, math.log(2.0), path.y[2, -1]))
    values = np.linalg.eigvals(np.asarray(M, np.float64)).real
    numbers = {"|x| at t = 1e6": size, "closed form": exact, "largest eigenvalue of M": float(values.max())}
    holds = path.status == "event" and abs(size / exact - 1) < 1e-4 and values.max() > 0 and size < 2e-3
    return Report(holds, numbers, "an eigenvalue of M is positive, and the token converges to the origin", path.calls)


def _case_one() -> Report:
    return _to_zero(((1.0, 0.0), (0.0, -1.0)), (0.5, 1.0))


def _case_two() -> Report:
    M, slopes, x0 = ((1.0, 0.0), (0.0, -1.0)), ((-1.0, 0.0), (0.0, 1.0)), (0.5, 1.0)
    path = _two_channels(M, slopes, x0, depth=1e5)
    end = path.y[:2, -1]
    word, _, point, scan = reduction.softplus_fate(x0, M, slopes)
    gap = float(np.abs(end / point - 1).max())
    numbers = {"x_1": float(end[0]), "x_2": float(end[1]), "distance to the point of the flow": gap}
    return Report(
        word == "cone" and gap < 1e-5 and path.status == "event", numbers,
        "one eigenvalue of M is positive, and the token converges to a point of the null cone", path.calls + scan.calls,
    )  # fmt: skip


def _fig_six_b() -> Report:
    first, second = _case_one(), _case_two()
    numbers = {f"(i) {k}": v for k, v in first.numbers.items()} | {f"(ii) {k}": v for k, v in second.numbers.items()}
    return Report(
        first.holds and second.holds, numbers, f"(i) {first.detail}; (ii) {second.detail}", first.calls + second.calls
    )


def _case_three() -> Report:
    M, x0 = ((-1.0, 10.0), (0.0, -1.0)), (1.0, 1.0)
    path = _two_channels(M, np.zeros((2, 2)), x0, method="DOP853", cut=1e9)
    exact = float(reduction.fates(x0, M, math.log(2.0)).time)
    reached = float(path.y[2, -1])
    values = np.linalg.eigvals(np.asarray(M)).real
    numbers = {"T* by integration": reached, "1/(2 q Delta_0)": exact, "largest eigenvalue of M": float(values.max())}
    holds = path.status == "event" and abs(reached / exact - 1) < 1e-6 and values.max() < 0
    return Report(holds, numbers, "both eigenvalues of M are -1, and the token blows up", path.calls)


def _case_four() -> Report:
    return _to_zero(((1.0, -10.0), (0.0, 1.0)), (1.0, 1.0))


def _definite() -> Report:
    # M_sym < 0 with a strong antisymmetric part, four tokens, channel-wise steps, a diagonal A
    rng = np.random.default_rng(5)
    basis = rng.standard_normal((3, 3))
    M = -(basis @ basis.T / 3 + 0.3 * np.eye(3)) + 2.0 * (basis - basis.T)
    x0 = rng.standard_normal((4, 3))
    slopes = rng.standard_normal((3, 3)) * 0.5
    path = depth_flow(x0, M, np.eye(3), slopes, A=-rng.uniform(0.2, 2.0, (3, 3)), depth=1e6)
    t = path.y[-1]
    scaled = (path.y[:-1].reshape(4, 3, -1) ** 2).sum(axis=1) * t  # |x_l|^2 t
    least = float(-np.linalg.eigvalsh(0.5 * (M + M.T)).max())
    # from t = 1e3 on tokens are small, and steps close to those of x = 0; where they never are, no bound is met
    late = int(np.searchsorted(t, 1e3))
    begun = scaled[:, late] if late < len(t) else np.zeros(4)
    reach = float(np.linalg.norm(slopes, axis=1).max() * np.sqrt(begun.max() / 1e3))
    low, high = float(softplus(-reach)), float(softplus(reach))
    bounds: list[float] = []
    for token in range(4):
        # b/t is a supersolution of v' = -2 least low v^2 + 2 |S_B| |S_C| high v sum_j b_j/t
        grown = (1.0 + 2.0 * np.linalg.norm(M, 2) * high * sum(bounds)) / (2.0 * least * low)
        bounds.append(max(float(grown), float(begun[token])))
    numbers = {
        "largest |x_l|^2 t over its bound at t = 1e6": float((scaled[:, -1] / bounds).max()),
        "|x_1|^2 t over its bound at t = 1e6": float(scaled[0, -1] / bounds[0]),
        "bound of |x_1|^2 t": bounds[0],
        "largest eigenvalue of M_sym": -least,
    }
    holds = path.status == "event" and bool((scaled[:, -1] <= bounds).all())
    return Report(holds, numbers, "four tokens fall as t^{-1/2}", path.calls)


def _one_scalar_equation() -> Report:
    rng = np.random.default_rng(11)
    S_B, S_C = rng.standard_normal((2, 3, 4)) / 2.0
    x0, bias = rng.standard_normal(4), rng.uniform(-1.5, 0.5, 4)
    M = S_C.T @ S_B
    found = reduction.fates(x0, M, softplus(bias))
    path = depth_flow([x0], S_B, S_C, np.zeros((4, 4)), bias=bias, depth=1e6, cut=1e9)
    drift = reduction.first_integrals(path.y[:4, -1], softplus(bias)) - reduction.first_integrals(x0, softplus(bias))
    q, size = reduction.q_form(path.y[:4].T, M), (path.y[:4] ** 2).sum(axis=0)
    # on the null cone the sign of q is rounding
    clear = np.abs(q) > 1e-6 * size
    flips = int(np.count_nonzero(np.sign(q[clear]) != np.sign(q[0])))
    moves = np.diff(np.abs(path.y[:4]), axis=1)[:, clear[1:]] * np.sign(q[0])
    end = path.y[:4, -1]
    right = {
        "cone": np.allclose(end, found.limit, rtol=1e-3),
        "diverges": bool(np.abs(end).max() > 1e8),
        "zero": bool(np.linalg.norm(end) < np.linalg.norm(x0)),
    }[str(found.names)]
    numbers = {"drift of the first integrals": float(np.abs(drift).max()), "sign flips of q": flips}
    holds = bool(np.abs(drift).max() < 1e-4) and right and flips == 0 and bool((moves > 0).all())
    return Report(holds, numbers, f"fate by the zeros of Q: {found.names}; the same by integration", path.calls)


def _inertia() -> Report:
    rng = np.random.default_rng(3)
    N, D = 4, 40
    S_B, S_C = rng.standard_normal((2, N, D))
    M = S_C.T @ S_B
    values = np.linalg.eigvalsh(0.5 * (M + M.T))
    small = np.asarray(symmetric_eigenvalues(S_B, S_C))
    counts = [(int((v > 1e-9).sum()), int((v < -1e-9).sum())) for v in (values, small)]
    numbers = {
        "positive": counts[1][0],
        "negative": counts[1][1],
        "zero": D - sum(counts[0]),
        "smallest |non-zero|": float(np.abs(small).min()),
    }
    detail = f"inertia of M_sym at N = {N}, D = {D}: ({N}, {N}, {D - 2 * N})"
    return Report(counts == [(N, N), (N, N)], numbers, detail)


def _finite_depth() -> Report:
    mu, bias, layers = -0.05, -4.0, 64
    delta = float(softplus(bias))
    kernel = regimes.Kernel.scalar(mu, 1.0)
    path = token_log_flow([1.0], kernel, 1.0, bias, clock="log time", end=math.log1p(layers))
    change = -math.expm1(path.y[0, -1])
    horizon = float(critical_depth(np.array(mu), np.array(delta)))
    law = 1.0 / math.sqrt(2 * abs(mu) * delta * layers)
    numbers = {"fall of |x| after 64 layers": change, "t_c [layers]": horizon, "t^{-1/2} law over x0": law}
    return Report(change < 0.2 and horizon > layers and law > 1.5, numbers, "64 layers are before t_c", path.calls)


def _plateau_clip() -> Report:
    kernel = regimes.Kernel((1.0, -2.0), (3.0, 0.1))
    path = token_log_flow(
        [0.7, -1.2], kernel, 1.0, clock="log time", end=math.log(1e8), save=[math.log(1e7), math.log(1e8)]
    )
    slope = float(-(path.y[1, 1] - path.y[1, 0]) / (path.clock[1] - path.clock[0]))
    formula = 1 + float(kernel(math.log(2.0))) / abs(kernel.at_zero)
    theory = float(regimes.plateaus(kernel, 2).exponent[1])
    numbers = {"1 + kappa(Delta_0)/|kappa(0)|": formula, "exponent of x_2": slope, "sigma_2/2": theory}
    return Report(formula < 0 and abs(slope - theory) < 1e-3, numbers, "a plateau cannot be negative", path.calls)


def _rest_point() -> Report:
    kernel = regimes.Kernel((2.0, -1.0), (1.0, 0.1))
    point = regimes.follower_rest_points(kernel, 1.0, 1.0, -2.0)[-1]
    path = token_log_flow([1.0, 0.5], kernel, 1.0, -2.0, clock="growth", end=40.0)
    x = math.exp(path.y[1, -1])
    numbers = {"x_2 at T*": x, "root of kappa(Delta(x)) = 0": point.x}
    return Report(
        abs(x / point.x - 1) < 1e-6, numbers, "token 1 blows up and token 2 settles at a finite value", path.calls
    )


def _attraction() -> Report:
    a, step = 0.7, 0.9
    k = math.exp(-a * step)
    M = np.array([[1.0, 0.4], [-0.3, 0.8]])
    u = np.array([1.0, 0.0])
    beta = sphere.first_token_exponent(1.0, k)

    # token 1 grows along u and stays there; token 2 in polar form, clock ln(1 + t)
    def rhs(clock: float, state: np.ndarray) -> np.ndarray:
        t, (log_rho, theta) = math.expm1(clock), state
        n = np.array([math.cos(theta), math.sin(theta)])
        normal = np.array([-n[1], n[0]])
        force = step * ((n @ M @ n) * n + k * (n @ M @ u) * u)
        rho = math.exp(log_rho)
        return (1.0 + t) * np.array([n @ force, normal @ force]) / rho

    path = integrate(
        rhs, [0.0, 0.8], (0.0, 40.0), method="Radau", budget=20_000, rtol=1e-10, atol=1e-16, save=[30.0, 40.0]
    )
    slope = float(-(np.log(abs(path.y[1, 1])) - np.log(abs(path.y[1, 0]))) / 10.0)
    numbers = {"exponent of the angle": slope, "kappa(Delta)/(kappa(0) + kappa(Delta))": beta}
    return Report(abs(slope - beta) < 1e-3, numbers, "pre-norm, two tokens, identity value path", path.calls)


def _one_entry() -> Report:
    M = np.array([[1.0, 0.5, 0.0], [0.5, -1.0, 0.3], [0.0, 0.3, 1.0]])
    law = reduction.zero_decay(M, [0.9, 0.3, 0.5])
    positive = reduction.zero_decay(-M, [0.9, 0.3, 0.5])
    x0 = np.array([0.2, 1.0, 0.1])
    bias = np.log(np.expm1([0.9, 0.3, 0.5]))
    path = depth_flow([x0], M, np.eye(3), np.zeros((3, 3)), bias=bias, depth=1e9)
    late = np.searchsorted(path.y[-1], 1e6)
    slope = -(np.log(np.abs(path.y[:3, -1])) - np.log(np.abs(path.y[:3, late]))) / math.log(
        path.y[-1, -1] / path.y[-1, late]
    )
    words = reduction.fates(np.random.default_rng(0).standard_normal((40, 3)), -M, [0.9, 0.3, 0.5], times=False).names
    numbers = {f"exponent_{d + 1}": float(v) for d, v in enumerate(slope)} | {
        "zeros of 40 with the entry positive": float((words == "zero").sum())
    }
    holds = law.possible and not positive.possible and bool(np.abs(slope - law.exponent).max() < 5e-3)
    return Report(
        holds and not (words == "zero").any(), numbers, "exponents 1.5, 0.5, 0.8333 by integration", path.calls
    )


_PAPER = "Vo et al., arXiv 2410.03292"

#: The statements, by key.
STATEMENTS: dict[str, Statement] = {
    each.key: each
    for each in (
        Statement(
            "convergence-rate", "Every token goes to zero as O(t^{-1/2}).", f"{_PAPER}, abstract",
            "D = 1, A = -a, mu < 0", "proved", "regimes: x_l^2 ~ alpha_l/(2 |mu| Delta_0 t) with alpha_l > 0",
            confirmation=_convergence,
        ),
        Statement(
            "slow-growth", "In the slow regime x_l(t) = O((ln t)^l).", f"{_PAPER}, abstract",
            "D = 1, A = -a, mu > 0, s x_l < 0 for all l", "proved",
            "regimes: x_l ~ r_l ln t / |s| for every l: the bound holds and its power l > 1 is never attained",
            confirmation=_slow,
        ),
        Statement(
            "finite-time-blow-up", "In the fast regime a token reaches infinity in finite time.", f"{_PAPER}, abstract",
            "D = 1, A = -a, mu > 0, some s x_l >= 0", "proved",
            "finite_time: the first token's T* is an integral; a later one is only pushed on by those before it",
            confirmation=_blow_up,
        ),
        Statement(
            "all-tokens-at-blow-up", "In the fast regime every token of the sequence diverges at T*.",
            "a reading of the fast regime; the paper's own wording is not known here",
            "D = 1, A = -a, mu > 0, some s x_l >= 0", "refuted-by-counterexample",
            "tokens before the first to blow up do not hear it: their own system has a solution beyond T*",
            counterexample=_before_the_first,
        ),
        Statement(
            "fig-6-a", "Two positive eigenvalues of S_C^T S_B: all tokens diverge to infinity.",
            f"{_PAPER}, Fig. 6 (A)",
            "D = 2, eigenvalues of M itself", "refuted-by-counterexample", "case (iv)", counterexample=_case_four,
        ),
        Statement(
            "fig-6-b", "One positive eigenvalue of S_C^T S_B: all tokens diverge to infinity.", f"{_PAPER}, Fig. 6 (B)",
            "D = 2", "refuted-by-counterexample", "cases (i) and (ii)", counterexample=_fig_six_b,
        ),
        Statement(
            "fig-6-c", "Two negative eigenvalues of S_C^T S_B: all tokens converge to the origin.",
            f"{_PAPER}, Fig. 6 (C)", "D = 2, eigenvalues of M itself", "refuted-by-counterexample", "case (iii)",
            counterexample=_case_three,
        ),
        Statement(
            "negative-definite", "M_sym negative definite: all tokens go to zero as O(t^{-1/2}).",
            "the corrected Fig. 6 (C)", "any D, any negative A, any positive step", "proved",
            "d|x_l|^2/dt <= -2c|x_l|^4 + C |x_l|^2 sum_{j<l} |x_j|^2 with c > 0 while steps stay bounded",
            confirmation=_definite,
        ),
        Statement(
            "one-scalar-equation",
            "The first token obeys one scalar equation s' = Q(s): the sign of q is invariant, zeros of Q are the fate.",
            "reduction", "any D, any M, positive locally Lipschitz steps", "proved",
            confirmation=_one_scalar_equation,
        ),
        Statement(
            "one-diagonal-entry",
            "With distinct steps a first token reaches zero only if M_dd < 0 at the channel d of the smallest step.",
            "reduction", "L = 1, constant distinct steps, x_d != 0", "proved", confirmation=_one_entry,
        ),
        Statement(
            "dichotomy", "With a diagonal A the sign of mu = kappa(0) decides for all tokens, as it does for A = -a.",
            "the paper's dichotomy, carried over to Mamba's A", "D = 1, A diagonal", "refuted-by-counterexample",
            "kappa(tau) changes sign", counterexample=_kappa,
        ),
        Statement(
            "plateau-formula", "alpha_2 = 1 + kappa(Delta_0)/|kappa(0)| for every kernel with kappa(0) < 0.",
            "the formula for A = -a, carried over", "D = 1, A diagonal", "refuted-by-counterexample",
            "it is negative where kappa(Delta_0) < -|kappa(0)|: then token 2 falls as t^{-sigma_2/2}",
            counterexample=_plateau_clip,
        ),
        Statement(
            "finite-follower", "A token behind one that blows up can settle at a finite value other than zero.",
            "regimes.follower_rest_points", "D = 1, A diagonal, kappa of changing sign", "confirmed",
            confirmation=_rest_point,
        ),
        Statement(
            "inertia", "The signs of the eigenvalues of M_sym say which way a layer with N << D moves its tokens.",
            "a reading of Fig. 6 for real layers", "S_B, S_C generic, 2N < D", "refuted-by-counterexample",
            "Sylvester: the inertia is (N, N, D - 2N) for every generic layer", counterexample=_inertia,
        ),
        Statement(
            "finite-depth", "Tokens follow the laws of t -> infinity.", "any of the laws, read at depth 24 to 64",
            "a step of 0.018 as at Mamba's initialisation, |mu| = 0.05, |x| = 1", "out of reach at finite depth",
            "t_c = 1/(2 |mu| Delta_0 x^2) is larger than the depth", confirmation=_finite_depth,
        ),
        Statement(
            "first-token-attraction",
            "Pre-norm: token 2 turns to +-token 1 as t^{-beta}, beta = kappa(Delta)/(kappa(0) + kappa(Delta)).",
            "sphere.first_token_exponent", "identity value path, one constant step, kappa(Delta) > 0", "proved",
            confirmation=_attraction,
        ),
    )
}  # fmt: skip


def statement(key: str) -> Statement:
    """The statement of that key.

    Raises:
        InputError: no such statement.

    >>> statement("fig-6-c").status
    'refuted-by-counterexample'
    """
    if key not in STATEMENTS:
        raise InputError(f"no statement {key!r}; there are {', '.join(STATEMENTS)}.{nearest(key, STATEMENTS)}")
    return STATEMENTS[key]
