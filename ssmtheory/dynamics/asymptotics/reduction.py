"""The first token in D dimensions: x_d' = q(x) Delta_d(x) x_d with q(x) = x^T M x and M = S_C^T S_B.

**Reduction.** Let phi_s be the flow of dy/ds = Delta(y) * y, in which every |y_d| rises, and Q(s) = q(phi_s(x0)). Then
x(t) = phi_{s(t)}(x0) with the scalar equation s' = Q(s), s(0) = 0 (chain rule and uniqueness). So for every M and every
positive step Delta the sign of q is invariant, every |x_d| moves with that sign, coordinates keep their signs, and
there are three fates:

- q(x0) = 0: rest.
- q(x0) < 0: s falls to the first zero of Q below 0, a point of the null cone {q = 0}, else x -> 0.
- q(x0) > 0: s rises to the first zero above 0, a point of the null cone, else x diverges, at T* = int ds/Q(s).

**Constant steps Delta_d**: phi_s(x)_d = x_d e^{Delta_d s}, and Q(s) = sum M_ij x_i x_j e^{(Delta_i + Delta_j) s} is an
exponential sum, whose zeros are isolated (`exponential_sums`); ln|x_i|/Delta_i - ln|x_j|/Delta_j are first integrals.
At a point x* of the null cone the only non-zero eigenvalue of the Jacobian is 2 q_Delta(x*), q_Delta(x) = x^T M_sym
diag(Delta) x. Nearby orbits approach as e^{2 q_Delta t} where it is negative. With one step Delta_0 for all channels
it is 2 Delta_0 q = 0: the cone never attracts, and |x|^2 = |x0|^2/(1 - 2 q(x0) Delta_0 t).

**To zero**: let d* have the smallest step, x_d* != 0. As s -> -inf, Q ~ M_d*d* c^2 e^{2 Delta_d* s}: no orbit reaches
0 if M_d*d* > 0; if M_d*d* < 0, x_d ~ t^{-Delta_d/(2 Delta_d*)}. Likewise divergence needs M_dd >= 0 at the largest
step.

Eigenvalue signs of M decide the fate only where M_sym is definite. What holds for tokens behind the first is in
`statements`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmtheory.dynamics.asymptotics._common import Path, finite, gauss, integrate, softplus
from ssmtheory.dynamics.asymptotics.exponential_sums import ExponentialSum
from ssmtheory.dynamics.asymptotics.finite_time import blow_up_time
from ssmtheory.errors import InputError

__all__ = [
    "FATES",
    "Decay",
    "Fates",
    "common_step_blow_up_time",
    "common_step_norm",
    "depth_to",
    "fate_angles",
    "fates",
    "first_integrals",
    "flow_sum",
    "null_cone_rate",
    "q_form",
    "rate_bracket",
    "softplus_fate",
    "zero_decay",
]

#: What the first token can do. "undecided": float64 cannot tell whether Q touches zero.
FATES = ("rest", "zero", "cone", "diverges", "undecided")


def _symmetric(M: Any) -> np.ndarray:
    (m,) = finite(M=M)
    if m.ndim != 2 or m.shape[0] != m.shape[1] or not len(m):
        raise InputError(f"M must be a square matrix (channel, channel), not of shape {m.shape}")
    return 0.5 * (m + m.T)


def _steps(delta: Any, width: int) -> np.ndarray:
    (d,) = finite(delta=delta)
    if d.ndim == 0:
        d = np.full(width, float(d))
    if d.shape != (width,):
        raise InputError(f"delta must be a number or a vector of {width} channels, not of shape {d.shape}")
    if (d <= 0).any():
        raise InputError(f"every step Delta must be positive, not {d[d <= 0][0]:g}")
    return d


def _tokens(x: Any, width: int) -> np.ndarray:
    (v,) = finite(x=x)
    if v.shape[-1:] != (width,):
        raise InputError(f"tokens must have {width} channels in their last axis, not the shape {v.shape}")
    return v


def q_form(x: Any, M: Any) -> np.ndarray:
    """q(x) = x^T M x for x (..., channel); the antisymmetric part of M has no part in it."""
    m = _symmetric(M)
    v = _tokens(x, len(m))
    return np.einsum("...i,ij,...j->...", v, m, v)


def null_cone_rate(x: Any, M: Any, delta: Any) -> np.ndarray:
    """2 q_Delta(x) = 2 x^T M_sym diag(Delta) x: d ln|q|/dt, and at a point of the null cone its rate of attraction.

    Args:
        x: (..., channel); M: (channel, channel); delta: a number or (channel,) steps.

    Returns:
        (...,) [1/depth]; negative attracts.
    """
    m = _symmetric(M)
    v, d = _tokens(x, len(m)), _steps(delta, len(m))
    return 2.0 * np.einsum("...i,ij,...j->...", v, m, d * v)


def rate_bracket(x: Any, M: Any, delta: Any) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest d ln|x_d|/dt over the channels: q times the extreme steps, in order.

    Args:
        x: (..., channel); M: (channel, channel); delta: a number or (channel,).
    """
    q, d = q_form(x, M), _steps(delta, len(np.asarray(M)))
    return np.minimum(q * d.min(), q * d.max()), np.maximum(q * d.min(), q * d.max())


def first_integrals(x: Any, delta: Any) -> np.ndarray:
    """ln|x_d|/Delta_d - ln|x_1|/Delta_1 for d = 2 .. D, constant along an orbit with constant steps.

    Args:
        x: (..., channel), no entry 0; delta: a number or (channel,).

    Returns:
        (..., channel - 1).

    Raises:
        InputError: an entry of x is 0, or shapes differ.
    """
    (v,) = finite(x=x)
    d = _steps(delta, v.shape[-1])
    if (v == 0).any():
        raise InputError("first integrals are logarithms of the entries of x, and one of them is 0")
    scaled = np.log(np.abs(v)) / d
    return scaled[..., 1:] - scaled[..., :1]


def flow_sum(x0: Any, M: Any, delta: Any) -> ExponentialSum:
    """Q(s) = sum_ij M_ij x_i x_j e^{(Delta_i + Delta_j) s} for one token and constant steps.

    Args:
        x0: (channel,); M: (channel, channel); delta: a number or (channel,).
    """
    m = _symmetric(M)
    v, d = _tokens(x0, len(m)), _steps(delta, len(m))
    if v.ndim != 1:
        raise InputError(f"one token (channel,) is needed, not the shape {v.shape}")
    upper = np.triu_indices(len(m))
    twice = np.where(upper[0] == upper[1], 1.0, 2.0)
    return ExponentialSum(twice * m[upper] * v[upper[0]] * v[upper[1]], d[upper[0]] + d[upper[1]])


@dataclass(frozen=True)
class Fates:
    """Fates of many first tokens with constant steps.

    kind: (...,) index into `FATES`; `names` has the words.
    s: (...,) where the flow ends: the zero of Q at a point of the cone, -inf at zero, inf where it diverges, 0 at rest.
    limit: (..., channel) the limit; infinite entries where a channel diverges.
    rate: (...,) 2 q_Delta at a point of the cone: minus the exponential rate at which it is approached; NaN elsewhere.
    time: (...,) T* where it diverges, infinite elsewhere [depth]; its relative error is below 1e-9.
    """

    kind: np.ndarray
    s: np.ndarray
    limit: np.ndarray
    rate: np.ndarray
    time: np.ndarray

    @property
    def names(self) -> np.ndarray:
        """(...,) words of `FATES`."""
        return np.array(FATES)[self.kind]


def fates(x0: Any, M: Any, delta: Any, *, times: bool = True) -> Fates:
    """The fate of each first token with constant steps, by isolating the zeros of Q.

    Args:
        x0: (..., channel) tokens; M: (channel, channel); delta: a number or (channel,) constant steps, softplus(b_d).
        times: whether T* is computed.

    Raises:
        InputError: shapes differ, a step is not positive, or an entry is not finite.

    >>> fates([[0.5, 1.0], [1.0, 0.5]], np.diag([1.0, -1.0]), np.log(2.0)).names.tolist()
    ['zero', 'diverges']
    """
    m = _symmetric(M)
    v, d = _tokens(x0, len(m)), _steps(delta, len(m))
    shape = v.shape[:-1]
    flat = v.reshape(-1, len(m))
    kind = np.zeros(len(flat), np.int64)
    s = np.zeros(len(flat))
    limit, rate, time = flat.copy(), np.full(len(flat), np.nan), np.full(len(flat), np.inf)
    for i, x in enumerate(flat):
        total = flow_sum(x, m, d)
        side = float(total.sign(0.0)[0]) if len(total.coefficients) else 0.0
        if side == 0.0:
            rate[i] = null_cone_rate(x, m, d) if (x != 0).any() else np.nan
            continue
        found = total.roots(0.0, np.inf) if side > 0 else total.roots(-np.inf, 0.0)
        near = found.roots[found.roots != 0.0]
        at = (near.min() if side > 0 else near.max()) if len(near) else side * np.inf
        doubtful = found.undecided[np.abs(found.undecided).max(axis=1) < abs(at)] if len(found.undecided) else []
        if len(doubtful):
            kind[i], s[i] = FATES.index("undecided"), float(np.asarray(doubtful)[0].mean())
            limit[i] = np.nan
        elif np.isfinite(at):
            kind[i], s[i] = FATES.index("cone"), at
            # a zero far out: the point may be beyond float64, its direction is not
            with np.errstate(divide="ignore", over="ignore"):
                logs = np.log(np.abs(x)) + d * at
                top = logs.max()
                limit[i] = np.sign(x) * np.exp(logs)
                rate[i] = np.exp(2.0 * top) * null_cone_rate(np.sign(x) * np.exp(logs - top), m, d)
        elif side < 0:
            kind[i], s[i], limit[i] = FATES.index("zero"), at, 0.0
        else:
            kind[i], s[i] = FATES.index("diverges"), at
            limit[i] = np.where(x == 0, 0.0, np.copysign(np.inf, x))
            if times:
                time[i] = depth_to(total, np.inf)
    return Fates(
        kind.reshape(shape), s.reshape(shape), limit.reshape(v.shape), rate.reshape(shape), time.reshape(shape)
    )


def depth_to(total: ExponentialSum, s: float, *, tolerance: float = 1e-11) -> float:
    """t(s) = int_0^s dv/Q(v), the depth at which the flow has come to s; T* at s = inf.

    Args:
        total: Q, of one sign between 0 and s.
        s: where to; infinite only where the largest exponent is positive and the integral converges.
        tolerance: relative, at which the panels are no longer halved.

    Raises:
        InputError: Q changes sign on the way, or the error stays above 1000 times the tolerance.
    """
    lead = float(total.sign(0.0)[0])
    if lead == 0.0 or s == 0.0 or (s > 0) != (lead > 0):
        raise InputError(f"the flow starts with Q of sign {lead:g} and cannot come to s = {s:g}")
    if np.isinf(s):
        top = float(total.exponents.max())
        if lead < 0 or top <= 0:
            raise InputError("the flow reaches s = -inf only as depth goes to infinity")
        right = max(total.reach()[1], 0.0) + 45.0 / top
    else:
        right = float(s)
    nodes, weights = gauss(16)
    log_c = np.log(np.abs(total.coefficients))
    last = math.nan
    for panels in (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192):
        v = ((np.arange(panels)[:, None] + nodes) / panels).ravel() * right
        logs = log_c + v[:, None] * total.exponents
        top_log = logs.max(axis=1)
        scaled = (np.sign(total.coefficients) * np.exp(logs - top_log[:, None])).sum(axis=1)
        if (scaled * lead <= 0).any():
            raise InputError("Q changes sign on the way to s")
        value = abs(float(((np.exp(-top_log) / scaled) * np.tile(weights, panels)).sum() * right / panels))
        change = abs(value - last)
        if change <= tolerance * value:
            return value
        last = value
    if change > 1000 * tolerance * value:
        raise InputError(f"the depth integral reached a relative error of {change / value:.1e} only")
    return value


def fate_angles(M: Any, delta: Any, radius: float = 1.0, count: int = 720) -> tuple[np.ndarray, Fates]:
    """The fate map of two channels over the angle of x0: in closed form, since Q is a quadratic in one ratio.

    With rho = (x_2/x_1) e^{(Delta_2 - Delta_1) s}: Q = x_1^2 e^{2 Delta_1 s} (M_11 + 2 M_12 rho + M_22 rho^2), M
    symmetric. T* is left out (infinite); `fates` has it.

    Args:
        M: (2, 2); delta: a number or (2,); radius: |x0|; count: angles on the circle, from 0.

    Returns:
        (count,) angles [rad] and their fates.
    """
    m = _symmetric(M)
    if len(m) != 2:
        raise InputError(f"a map over angles needs two channels, not {len(m)}")
    d = _steps(delta, 2)
    angles = 2.0 * np.pi * np.arange(count) / count
    x = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # cos(pi/2) is 6e-17 in floating point; an axis is an axis
    x[np.abs(x) < 1e-15 * radius] = 0.0
    q = q_form(x, m)
    kind = np.where(q == 0, 0, np.where(q < 0, FATES.index("zero"), FATES.index("diverges")))
    s = np.where(q == 0, 0.0, np.sign(q) * np.inf)
    inner = (x != 0).all(axis=1) & (q != 0)
    gap = d[1] - d[0]
    if gap != 0:
        roots = np.roots([m[1, 1], 2.0 * m[0, 1], m[0, 0]])
        roots = roots.real[np.abs(roots.imag) < 1e-12 * (1 + np.abs(roots.real))]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = x[:, 1] / x[:, 0]
            for root in roots:
                at = np.log(root / ratio) / gap
                nearer = inner & np.isfinite(at) & (at * q > 0) & (np.abs(at) < np.abs(s))
                kind, s = np.where(nearer, FATES.index("cone"), kind), np.where(nearer, at, s)
    on_cone = kind == FATES.index("cone")
    with np.errstate(invalid="ignore", over="ignore"):
        limit = np.where(on_cone[:, None], x * np.exp(d * np.where(on_cone, s, 0.0)[:, None]), x)
    limit = np.where((kind == FATES.index("zero"))[:, None], 0.0, limit)
    escapes = (kind == FATES.index("diverges"))[:, None]
    limit = np.where(escapes, np.where(x == 0, 0.0, np.copysign(np.inf, x)), limit)
    rate = np.where(on_cone, null_cone_rate(np.where(np.isfinite(limit), limit, 0.0), m, d), np.nan)
    return angles, Fates(kind, s, limit, rate, np.full(count, np.inf))


# ------------------------------------------------------------------------------------------------ closed forms


def common_step_norm(x0: Any, M: Any, delta: float, t: Any) -> np.ndarray:
    """|x(t)| where all channels have the one constant step: |x0| / sqrt(1 - 2 q(x0) Delta_0 t); the direction is fixed.

    Args:
        x0: (channel,); M: (channel, channel); delta: Delta_0; t: (...,) depths.

    Returns:
        (...,); infinite from T* = 1/(2 q(x0) Delta_0) on.
    """
    v, step, depth = finite(x0=x0, delta=delta, t=t)
    room = 1.0 - 2.0 * q_form(v, M) * _steps(step, 1)[0] * depth
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(room > 0, np.linalg.norm(v) / np.sqrt(np.where(room > 0, room, 1.0)), np.inf)


def common_step_blow_up_time(x0: Any, M: Any, s: Any, bias: float = 0.0) -> float:
    """T* where all channels share Delta(x) = softplus(s.x + bias): the one-dimensional T* along the fixed ray.

    Args:
        x0: (channel,); M: (channel, channel); s: (channel,) S_Delta; bias: of softplus.

    Returns:
        `blow_up_time(q(u), s.u, |x0|, bias)` with u = x0/|x0|: infinite where q(u) <= 0 or s.u < 0.
    """
    m = _symmetric(M)
    v, w = _tokens(x0, len(m)), _tokens(s, len(m))
    radius = float(np.linalg.norm(v))
    if radius == 0:
        return math.inf
    u = v / radius
    return blow_up_time(float(q_form(u, m)), float(w @ u), radius, float(bias))


@dataclass(frozen=True)
class Decay:
    """How a first token falls to zero with distinct constant steps.

    possible: whether any orbit with x_d* != 0 does (M_d*d* < 0).
    channel: d*, the channel of the smallest step.
    exponent: (channel,) x_d ~ t^{-exponent_d}.
    amplitude: x_d*^2 t -> 1/(2 |M_d*d*| Delta_d*); NaN where no orbit falls to zero.
    """

    possible: bool
    channel: int
    exponent: np.ndarray
    amplitude: float


def zero_decay(M: Any, delta: Any) -> Decay:
    """The law of decay to zero with distinct constant steps: one diagonal entry of M decides.

    Args:
        M: (channel, channel); delta: (channel,), its least entry unique.

    Raises:
        InputError: the smallest step is not unique, or M_d*d* = 0 (then the next terms of Q decide; use `fates`).
    """
    m = _symmetric(M)
    d = _steps(delta, len(m))
    least = int(np.argmin(d))
    if np.count_nonzero(d == d[least]) > 1 and len(d) > 1:
        raise InputError(f"the smallest step {d[least]:g} belongs to several channels; the law needs one")
    entry = float(m[least, least])
    if entry == 0:
        raise InputError(f"M has a zero at ({least}, {least}), the channel of the smallest step; use fates")
    amplitude = 1.0 / (2.0 * abs(entry) * d[least]) if entry < 0 else math.nan
    return Decay(entry < 0, least, d / (2.0 * d[least]), float(amplitude))


# ------------------------------------------------------------------------------------------------ softplus steps


def softplus_fate(
    x0: Any, M: Any, S_delta: Any, bias: Any = 0.0, *, budget: int = 100_000, cut: float = 250.0
) -> tuple[str, float, np.ndarray, Path]:
    """The fate of one first token with Delta(x) = softplus(S_Delta x + b), by following its flow in s.

    The flow dy/ds = Delta(y) * y is integrated in ln|y|, in the clock max_d |d ln|y_d||, to the first zero of
    q(y)/|y|^2 (a scan: a pair of zeros within one step of the solver can be missed, and steps are at most 0.05) or
    until some |ln|y_d|| passes `cut`.

    Args:
        x0: (channel,); M, S_delta: (channel, channel); bias: a number or (channel,).
        budget: most calls of the right-hand side; cut: on |ln|y_d/x0_d||.

    Returns:
        The word of `FATES` ("undecided" where the budget was spent), s at the end, the point there (channel,), and the
        path.

    Raises:
        InputError: shapes differ or an entry is not finite.
    """
    m = _symmetric(M)
    width = len(m)
    v, slopes, b = _tokens(x0, width), *finite(S_delta=S_delta, bias=bias)
    if slopes.shape != (width, width) or v.ndim != 1:
        raise InputError(f"S_delta must be ({width}, {width}) and x0 ({width},), not {slopes.shape} and {v.shape}")
    start = float(q_form(v, m))
    none = Path(np.zeros(1), v[:, None], "end", 0)
    size = float(v @ v)
    if start == 0 or abs(start) <= 1e-15 * float(np.abs(m).sum()) * size:
        return "rest", 0.0, v, none
    side, live = math.copysign(1.0, start), v != 0
    sign, log0 = np.sign(v[live]), np.log(np.abs(v[live]))
    inner, rows = m[np.ix_(live, live)], slopes[np.ix_(live, live)]
    bias_live = np.broadcast_to(b, (width,))[live]

    def point(log_y: np.ndarray) -> np.ndarray:
        return sign * np.exp(np.minimum(log_y, 300.0))

    def rhs(clock: float, state: np.ndarray) -> np.ndarray:
        step = softplus(rows @ point(state[:-1]) + bias_live)
        largest = step.max()
        return side * np.append(step / largest, 1.0 / largest)

    def normal(clock: float, state: np.ndarray) -> float:
        y = sign * np.exp(state[:-1] - state[:-1].max())
        return float(y @ inner @ y)

    def far(clock: float, state: np.ndarray) -> float:
        return cut - float(np.abs(state[:-1] - log0).max())

    normal.terminal, far.terminal = True, True  # type: ignore[attr-defined]
    path = integrate(
        rhs, np.append(log0, 0.0), (0.0, 2.0 * cut * width), budget=budget, events=[normal, far], max_step=0.05
    )
    end = np.zeros(width)
    end[live] = point(path.y[:-1, -1])
    s = float(path.y[-1, -1])
    if path.status != "event":
        return "undecided", s, end, path
    if far(0.0, path.y[:, -1]) > 1e-6 * cut:
        return "cone", s, end, path
    if side < 0:
        return "zero", s, np.zeros(width), path
    return "diverges", s, np.where(v == 0, 0.0, np.copysign(np.inf, v)), path
