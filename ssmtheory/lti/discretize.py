"""From continuous to discrete time: zero-order hold, bilinear in both conventions, Euler.

| method | A-bar | B-bar | C-bar, D-bar | exact for |
|---|---|---|---|---|
| zoh | exp(dt A) | A^{-1}(exp(dt A) - I) B | C, D | inputs constant over a step |
| bilinear | (I - dt A/2)^{-1}(I + dt A/2) | (I - dt A/2)^{-1} dt B | C (I - dt A/2)^{-1}, D + C B-bar / 2 | - |
| bilinear_s4 | as bilinear | as bilinear | C, D | - |
| euler | I + dt A | dt B | C, D | - |
| backward_euler | (I - dt A)^{-1} | (I - dt A)^{-1} dt B | C, D | - |

"bilinear" is Tustin's rule, G_d(z) = G((2/dt)(z - 1)/(z + 1)): it keeps the H-infinity norm. "bilinear_s4" is the
convention of arXiv 2111.00396 and 2206.11893 (eq. 6), K_k = C A-bar^k B-bar, whose transfer function is
(2/dt)/(z + 1) (sI - A)^{-1} B on the same warped frequency, up to a factor z: it multiplies a resonance at w0 by
sqrt(1 + (w0 dt/2)^2).
In every convention the discrete system is x_{k+1} = A-bar x_k + B-bar u_k, y_k = C-bar x_k + D-bar u_k, its kernel
C-bar A-bar^k B-bar (k >= 0) one step later in y than in S4's code, which updates the state before it reads it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmtheory.errors import InputError, nearest
from ssmtheory.lti.algebra import SumSystem
from ssmtheory.lti.base import LTI, check_dt
from ssmtheory.lti.systems import DiagonalStateSpace, StateSpace, TriangularStateSpace
from ssmtheory.lti.transfer import TransferFunction
from ssmtheory.scan.lti import exponential_ratio
from ssmtheory.typing import Array

__all__ = ["METHODS", "discretize", "zoh_factors"]

#: Names of the methods.
METHODS = ("zoh", "bilinear", "bilinear_s4", "euler", "backward_euler")


def zoh_factors(poles: Array, dt: float | Array) -> tuple[Array, Array]:
    """exp(dt p) and (exp(dt p) - 1) / p.

    The second by expm1, which keeps all digits for small dt p; its value at p = 0 is dt.

    Args:
        poles: (...,) complex.
        dt: step in seconds, broadcast against the poles.

    Returns:
        Two complex128 arrays of the broadcast shape.

    >>> zoh_factors(np.array([0j, -1e-12]), 1.0)[1].real.tolist()
    [1.0, 0.9999999999995]
    """
    x = np.asarray(poles, dtype=np.complex128) * dt
    return np.exp(x), exponential_ratio(x) * dt


def discretize(system: LTI, dt: float, method: str = "zoh") -> LTI:
    """The discrete-time system with step dt.

    Structure is kept where it survives: a diagonal system stays diagonal, a sum a sum, and a closed form follows
    through "bilinear" and "bilinear_s4". States of a triangular system that no output sees are left out.

    Args:
        system: a continuous-time system; a bare closed form for the two bilinear methods only.
        dt: step in seconds.
        method: one of the table above.

    Returns:
        A system with `dt`.

    Raises:
        InputError: a discrete system, a step that is not positive, an unknown method, or a step that makes
            I - dt A/2 (or I - dt A) singular.

    References:
        arXiv 2206.11893 (S4D), eq. 6, for "bilinear_s4" and "zoh".
    """
    if system.dt is not None:
        raise InputError(f"the system is discrete already (dt={system.dt:g} s): discretize takes a continuous system")
    step = check_dt(dt)
    if step is None:
        raise InputError("dt=None: must be a step in seconds, > 0")
    if method not in METHODS:
        raise InputError(f"method={method!r}: must be one of {', '.join(METHODS)}.{nearest(method, METHODS)}")
    if isinstance(system, TransferFunction):
        return _warped(system, step, method)
    if isinstance(system, SumSystem):
        return SumSystem(tuple((c, discretize(term, step, method)) for c, term in system.terms))
    if isinstance(system, TriangularStateSpace):
        system = system.observed()
    closed = None
    carried = getattr(system, "closed_form", None)
    if carried is not None and method in ("bilinear", "bilinear_s4"):
        closed = _warped(carried, step, method)
    if isinstance(system, DiagonalStateSpace):
        return _diagonal(system, step, method, closed)
    if not hasattr(system, "closed_form") and method in ("bilinear", "bilinear_s4") and system.transfer.has_bounds:
        closed = _warped(system.transfer, step, method)
    return _dense(system.to_dense(), step, method, closed)


def _diagonal(system: DiagonalStateSpace, dt: float, method: str, closed: TransferFunction | None) -> LTI:
    p, B, C, D = system.diagonal, system.B, system.C, system.D
    if method == "zoh":
        poles, factor = zoh_factors(p, dt)
    elif method == "euler":
        poles, factor = 1 + dt * p, np.full(p.shape, dt)
    else:
        half = dt if method == "backward_euler" else dt / 2
        below = 1 - half * p
        if (below == 0).any():
            raise InputError(f"dt={dt:g} s puts 1 - {half:g} * pole to zero: choose another step")
        poles, factor = (1 / below if method == "backward_euler" else (1 + half * p) / below), dt / below
        if method == "bilinear":
            bar = factor[:, None] * B
            # D counts once; the added part is that of both members of a pair
            added = C @ bar / 2
            D = D + (2 * added.real if system.conjugate_pairs else added)
            C = C / below
    return DiagonalStateSpace(poles, factor[:, None] * B, C, D, dt, system.conjugate_pairs, closed)


def _dense(system: StateSpace, dt: float, method: str, closed: TransferFunction | None) -> StateSpace:
    A, B, C, D = system.A, system.B, system.C, system.D
    n, m = B.shape
    eye = np.eye(n)
    if method == "zoh":
        from scipy.linalg import expm

        if n == 1:
            poles, factor = zoh_factors(A[0], dt)
            return StateSpace(poles[:, None], factor[:, None] * B, C, D, dt)
        # exp of [[A, B], [0, 0]] has the integral of exp(tA) B in its corner, A singular or not
        block = expm(dt * np.block([[A, B], [np.zeros((m, n + m))]]))
        return StateSpace(block[:n, :n], block[:n, n:], C, D, dt)
    if method == "euler":
        return StateSpace(eye + dt * A, dt * B, C, D, dt)
    half = dt if method == "backward_euler" else dt / 2
    try:
        solved = np.linalg.solve(
            eye - half * A, np.concatenate([eye + (0 if half == dt else half) * A, dt * B], axis=1)
        )
    except np.linalg.LinAlgError as error:
        raise InputError(f"dt={dt:g} s makes I - {half:g} A singular: choose another step") from error
    bar_A, bar_B = solved[:, :n], solved[:, n:]
    if method == "bilinear":
        return StateSpace(bar_A, bar_B, np.linalg.solve((eye - half * A).T, C.T).T, D + C @ bar_B / 2, dt, closed)
    return StateSpace(bar_A, bar_B, C, D, dt, closed)


def _warped(system: TransferFunction, dt: float, method: str) -> TransferFunction:
    """G at s = (2/dt)(z - 1)/(z + 1); for S4's convention its strictly proper part times (2 / dt) dt / (z + 1)."""
    if method not in ("bilinear", "bilinear_s4"):
        raise InputError(
            f"method={method!r} needs state-space matrices, of which a TransferFunction has none: must be 'bilinear' "
            "or 'bilinear_s4', or start from a realisation"
        )
    inner = system
    s4 = method == "bilinear_s4"

    def evaluate(z: Array, outputs: Array) -> Array:
        nyquist = z == -1
        # the limit at infinity, from a point so far out that the rest is below round-off
        far = 1e18 * (1 / dt + np.abs(inner.resonances).max(initial=0.0))
        s = np.where(nyquist, 1j * far, (2 / dt) * (z - 1) / np.where(nyquist, 1.0, z + 1))
        # on the circle s is imaginary; next to z = -1 rounding would move it by as much as a resonance is wide
        s = np.where(np.abs(np.abs(z) - 1) < 1e-15, 1j * s.imag, s)
        values = inner._evaluate(s, outputs)
        if not s4:
            return values
        return (values - inner.direct[outputs]) * (1 - s * dt / 2)[:, None, None] + inner.direct[outputs]

    def to_s(omega: Array) -> Array:
        with np.errstate(over="ignore"):
            return (2 / dt) * np.tan(np.clip(omega * dt / 2, -np.pi / 2, np.pi / 2))

    def remainder(a: Array, b: Array) -> Array:
        # the same arc, seen from the continuous axis; the chord there is not that in omega, so the slope is used
        left, right = to_s(a), to_s(b)
        stretch = 1 + (dt / 2) ** 2 * np.maximum(left**2, right**2)
        slope = inner.slope(left, right) * stretch  # type: ignore[misc]
        return slope * (b - a) / 2

    known: dict[str, Any] = {}
    if inner._poles is not None:
        known["poles"] = (1 + inner._poles * dt / 2) / (1 - inner._poles * dt / 2)
    warped = TransferFunction(
        evaluate,
        inner.shape,
        dt,
        resonances=2 / dt * np.arctan(inner.resonances * dt / 2),
        direct=None if not s4 else inner.direct,
        stable=inner._stable,
        select=lambda o, i: _warped(inner._select(o, i), dt, method),
        **known,
    )
    if not s4:
        object.__setattr__(warped, "_unwarped", inner)
    if s4 or inner.slope is None:
        return warped
    return warped._with_remainder(remainder)
