"""Many initial value problems at once on a clock of their own, by an explicit Runge-Kutta method of order 8.

A member of the batch is y = (z, tau) with tau = ln(1 + t / t0) as its last entry. Its independent variable sigma is
neither t nor tau: the field scales itself so that

    d tau / d sigma = 1 / (1 + (t + t0) G),    d z / d sigma = (dz / dt) (t + t0) / (1 + (t + t0) G),

where G is the size of d z / dt (or of d ln x / dt). Where G t is large (a finite-time blow-up) this is Sundman's time
dt = d sigma / G, in which the singularity lies at infinity; where it is small (an equilibrium) it is the logarithm of
time. Every field is thus of size one, and neither end stalls or overflows.

Coefficients and error estimate: Hairer, Norsett, Wanner, "Solving Ordinary Differential Equations I", DOP853 (taken
from `scipy.integrate.DOP853`); the stiffness test is that of its code. Every member has its own step size, its own
account of field evaluations, and leaves the batch when it is done: no member can hold up the others, and none can run
without end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = [
    "LONGEST",
    "SINGULAR",
    "Run",
    "Steps",
    "advance",
    "arrived",
    "back_to",
    "quadrature_defect",
    "sample",
    "substep",
]

#: (y (member, n), which member (member,)) -> (dy / dsigma (member, n), ln((t + t0) G) (member,))
Field = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

#: e^arg beyond which what is left of the time axis is below the rounding of t
SINGULAR = 40.0
_STIFF_STEPS = 40
#: a field of size one times this step: long enough for a power law, short enough for the events between steps
LONGEST = 4.0


@dataclass
class Steps:
    """Accepted steps of all members, in the order they were made.

    which: (step,) member; start: (step, n) y before it; size: (step,) in sigma; end: (step, n) y after it;
    arg: (step,) ln((t + t0) G) after it.
    """

    which: np.ndarray
    start: np.ndarray
    size: np.ndarray
    end: np.ndarray
    arg: np.ndarray


@dataclass
class Run:
    """How each member of a batch ended.

    outcome: (member,) "finished", "singular", "converged", "budget", "stiff" or "failed".
    y, arg: state and ln((t + t0) G) there; exponent: d ln G / d sigma over the last step;
    error: sum of the estimated local errors, relative; calls, steps: (member,).
    """

    outcome: np.ndarray
    y: np.ndarray
    arg: np.ndarray
    exponent: np.ndarray
    error: np.ndarray
    calls: np.ndarray
    steps: Steps


def arrived(rtol: float) -> float:
    """ln of the relative speed per logarithm of time below which a decaying flow counts as having arrived.

    A method whose step stability limits keeps its solution about rtol off an equilibrium, so no less can be asked; the
    slowest growth there is, ln t, moves faster than that until t = e^{1e5}.
    """
    return float(np.log(min(max(1e-10, 100.0 * rtol), 1e-6)))


def _tableau() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    from scipy.integrate import DOP853

    return DOP853.A, DOP853.B, DOP853.E3, DOP853.E5


def substep(field: Field, y: np.ndarray, which: np.ndarray, h: np.ndarray, k0: np.ndarray | None = None) -> np.ndarray:
    """One step of size h (member,) from y (member, n): the order-8 value, without an error estimate (12 calls)."""
    A, B, _, _ = _tableau()
    K = np.empty((12, *y.shape))
    K[0] = field(y, which)[0] if k0 is None else k0
    for i in range(1, 12):
        K[i] = field(y + h[:, None] * np.tensordot(A[i, :i], K[:i], axes=1), which)[0]
    return y + h[:, None] * np.tensordot(B, K, axes=1)


def advance(
    field: Field,
    y: np.ndarray,
    tau_end: np.ndarray,
    scale: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *,
    rtol: float,
    budget: np.ndarray,
    watch_stiffness: bool = True,
    longest: float = LONGEST,
) -> Run:
    """Advance every member until tau reaches tau_end or an event ends it.

    Args:
        field: the scaled field.
        y: (member, n) initial states.
        tau_end: (member,).
        scale: (y, which) -> (member, n) sizes against which relative errors are measured.
        rtol: local error per step, relative to `scale`.
        budget: (member,) field evaluations that each may use.
        watch_stiffness: end a member as "stiff" where the step is limited by stability.
        longest: step in sigma.
    """
    A, B, E3, E5 = _tableau()
    members, n = y.shape
    y = y.copy()
    outcome = np.full(members, "", dtype="<U9")
    h = np.full(members, min(0.05, longest))
    calls = np.zeros(members, np.int64)
    error = np.zeros(members)
    exponent = np.full(members, np.nan)
    stiff, smooth = np.zeros(members, int), np.zeros(members, int)
    kept: list[tuple[np.ndarray, ...]] = []
    every = np.arange(members)
    k, arg = field(y, every)
    calls += 1
    outcome[np.isneginf(arg)] = "converged"
    outcome[~(np.isfinite(k).all(axis=1) & (np.isfinite(arg) | np.isneginf(arg)))] = "failed"
    outcome[(outcome == "") & (tau_end <= y[:, -1])] = "finished"
    live = every[outcome == ""]
    while live.size:
        short = calls[live] + 12 > budget[live]
        outcome[live[short]] = "budget"
        live = live[~short]
        if not live.size:
            break
        ya, ha, ka = y[live], h[live][:, None], k[live]
        K = np.empty((13, live.size, n))
        K[0] = ka
        with np.errstate(all="ignore"):  # a step that leaves the domain is rejected below
            for i in range(1, 12):
                stage = ya + ha * np.tensordot(A[i, :i], K[:i], axes=1)
                K[i] = field(stage, live)[0]
            new = ya + ha * np.tensordot(B, K[:12], axes=1)
            K[12], arg_new = field(new, live)
            size = np.maximum(scale(ya, live), scale(new, live))
            e5 = (np.tensordot(E5, K, axes=1) / size) ** 2
            e3 = (np.tensordot(E3, K, axes=1) / size) ** 2
            e5, e3 = e5.sum(axis=1), e3.sum(axis=1)
            bottom = np.sqrt((e5 + 0.01 * e3) * n)
            err = np.where(bottom > 0, ha[:, 0] * e5 / np.where(bottom > 0, bottom, 1.0), 0.0) / rtol
        calls[live] += 12
        good = np.isfinite(new).all(axis=1) & np.isfinite(K[12]).all(axis=1) & ~np.isnan(arg_new) & np.isfinite(err)
        good &= new[:, -1] >= ya[:, -1]
        ok = good & (err <= 1.0)
        factor = np.where(good, 0.9 * np.maximum(err, 1e-12) ** -0.125, 0.2)
        factor = np.clip(factor, 0.2, np.where(ok, 6.0, 1.0))
        if ok.any():
            who = live[ok]
            kept.append((who, ya[ok], ha[ok, 0], new[ok], arg_new[ok]))
            # d ln G / d sigma: arg = tau + ln G
            before, slope = arg[who], exponent[who]
            exponent[who] = (arg_new[ok] - before - new[ok, -1] + ya[ok, -1]) / ha[ok, 0]
            steady = np.abs(exponent[who] - slope) <= 0.02 * np.abs(exponent[who])
            error[who] += err[ok] * rtol + 1e-16
            if watch_stiffness:
                top = np.linalg.norm((K[12] - K[11])[ok] / size[ok], axis=1)
                base = np.linalg.norm((new - stage)[ok] / size[ok], axis=1)
                limited = (ha[ok, 0] * top > 6.1 * base) & (base > 0)
                smooth[who] = np.where(limited, 0, smooth[who] + 1)
                stiff[who] = np.where(limited, stiff[who] + 1, np.where(smooth[who] >= 6, 0, stiff[who]))
            y[who], k[who], arg[who] = new[ok], K[12][ok], arg_new[ok]
            fate = outcome[who]
            fate[stiff[who] >= _STIFF_STEPS] = "stiff"
            fading = exponent[who] / np.maximum(k[who, -1], 1e-300) < -1.5  # G falls faster than t^-1
            fate[(arg[who] < arrived(rtol)) & (fading | np.isneginf(arg[who]))] = "converged"
            fate[(arg[who] > SINGULAR) & steady & (exponent[who] > 0.05)] = "singular"
            fate[y[who, -1] >= tau_end[who]] = "finished"
            outcome[who] = fate
        h[live] = np.minimum(ha[:, 0] * factor, longest)
        tiny = (h[live] < 1e-14) & ~ok
        outcome[live[tiny]] = "failed"
        live = live[outcome[live] == ""]
    if kept:
        steps = Steps(*(np.concatenate(part) for part in zip(*kept, strict=True)))
    else:
        steps = Steps(np.zeros(0, int), np.zeros((0, n)), np.zeros(0), np.zeros((0, n)), np.zeros(0))
    over = every[(outcome == "finished") & (y[:, -1] > tau_end)]
    if over.size:
        # land on tau_end: the last step again, shorter
        last = {int(w): i for i, w in enumerate(steps.which)}
        rows = np.array([last[int(w)] for w in over])
        landed, used, h_land = sample(field, steps, rows, tau_end[over])
        y[over], steps.end[rows], steps.size[rows] = landed, landed, h_land
        calls[over] += used
        arg[over] = field(landed, over)[1]
        calls[over] += 1
    return Run(outcome, y, arg, exponent, error, calls, steps)


def sample(field: Field, steps: Steps, rows: np.ndarray, tau: np.ndarray) -> tuple[np.ndarray, int, np.ndarray]:
    """States at given tau within accepted steps, by shorter steps from their starts.

    The size of the shorter step is found by Newton's method, kept within the step by bisection.

    Args:
        field: as in `advance`.
        steps: from `advance`.
        rows: (pair,) which step.
        tau: (pair,) between the step's two ends.

    Returns:
        y (pair, n), field evaluations per pair, and sizes (pair,).
    """
    start, which, full = steps.start[rows], steps.which[rows], steps.size[rows]
    k0 = field(start, which)[0]
    low, high = np.zeros(len(rows)), full.copy()
    # first guess: cubic Hermite in tau as a function of sigma is monotone enough; a secant is simpler and as good
    span = np.maximum(steps.end[rows, -1] - start[:, -1], 1e-300)
    h = full * np.clip((tau - start[:, -1]) / span, 0.0, 1.0)
    y, used = start, 1
    for _ in range(40):
        y = substep(field, start, which, h, k0)
        slope = field(y, which)[0][:, -1]
        used += 12
        off = y[:, -1] - tau
        if np.all(np.abs(off) <= 4e-16 * np.maximum(1.0, np.abs(tau))):
            break
        high = np.where(off > 0, np.minimum(h, high), high)
        low = np.where(off <= 0, np.maximum(h, low), low)
        moved = h - off / np.where(slope > 0, slope, 1.0)
        step = np.where((moved > low) & (moved < high), moved, 0.5 * (low + high))
        if np.all(np.abs(step - h) <= 2e-16 * full):
            break
        h = step
    y = y.copy()
    y[:, -1] = tau
    return y, used, h


def back_to(field: Field, y: np.ndarray, which: np.ndarray, tau: np.ndarray) -> tuple[np.ndarray, int]:
    """States at tau, a little before those of y (member, n): one step backwards; and field evaluations per member."""
    k0 = field(y, which)[0]
    h = (tau - y[:, -1]) / k0[:, -1]
    new, used = y, 1
    for _ in range(12):
        new = substep(field, y, which, h, k0)
        used += 13
        off = tau - new[:, -1]
        if np.all(np.abs(off) <= 4e-16 * np.maximum(1.0, np.abs(tau))):
            break
        h = np.minimum(h + off / field(new, which)[0][:, -1], 0.0)
    new = new.copy()
    new[:, -1] = tau
    return new, used


def quadrature_defect(
    field: Field, steps: Steps, scale: Callable[[np.ndarray, np.ndarray], np.ndarray], members: int
) -> np.ndarray:
    """Largest defect of y(end) - y(start) - int f dsigma over a member's steps, by 8-point Gauss quadrature.

    The nodes are states from separate shorter steps: an error of the method, of the step control or of the field's
    smoothness shows here, whatever the embedded estimate said.

    Returns:
        (member,) relative to `scale`; NaN for a member without steps.
    """
    out = np.full(members, np.nan)
    if not steps.which.size:
        return out
    nodes, weights = np.polynomial.legendre.leggauss(8)
    nodes, weights = (nodes + 1) / 2, weights / 2
    rows = np.repeat(np.arange(steps.which.size), nodes.size)
    h = steps.size[rows] * np.tile(nodes, steps.which.size)
    at = substep(field, steps.start[rows], steps.which[rows], h)
    f = field(at, steps.which[rows])[0].reshape(steps.which.size, nodes.size, -1)
    gap = steps.end - steps.start - steps.size[:, None] * np.einsum("k,skn->sn", weights, f)
    size = np.abs(gap / scale(steps.end, steps.which)).max(axis=1)
    out[np.unique(steps.which)] = 0.0
    np.maximum.at(out, steps.which, size)
    return out
