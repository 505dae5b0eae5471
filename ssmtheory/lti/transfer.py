"""Closed-form transfer functions that know how fast they can vary.

A norm over all frequencies needs more than values: a narrow resonance hides between the points of any grid. A
`TransferFunction` therefore carries where its peaks may sit (`resonances`), how fast it can change (`slope`,
`curvature`) and how large it can still be far out (`tail`). Algebra and selection carry all four, and
`norms.hinf_norm` turns them into a bracket.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.lti.base import LTI, as_complex, check_dt, frozen
from ssmtheory.lti.errors import NoRealization
from ssmtheory.typing import Array

if TYPE_CHECKING:
    from ssmtheory.lti.systems import StateSpace

__all__ = ["TransferFunction", "pole_residue"]

#: (points (k,), outputs (q,)) -> (k, q, m)
Evaluate: TypeAlias = Callable[[Array, Array], Array]
#: (left ends (k,), right ends (k,)) in rad/s -> upper bounds (k,)
IntervalBound: TypeAlias = Callable[[Array, Array], Array]
#: omega >= 0 -> upper bound of the gain for all |w| >= omega
Tail: TypeAlias = Callable[[float], float]


class TransferFunction(LTI):
    """A system known by its transfer function: the member without a realisation (N may be infinite).

    Bounds refer to the spectral norm of the whole matrix G(i w), or G(exp(i w dt)), and are carried unchanged to a
    selection of outputs, for which they stay true; `select` may offer tighter ones.

    Args:
        evaluate: (s (k,) complex128, outputs (q,) int) -> (k, q, m) complex128; only the asked outputs are computed, so
            that one output of a thousand is cheap.
        shape: (p, m).
        dt: None for continuous time (s is a point of the s-plane), else the step in seconds (s is a point of the
            z-plane).
        poles: poles of G; None where they are not known.
        resonances: angular frequencies in rad/s near which the gain may peak, of both signs.
        slope: (a, b) arrays (k,) with a <= b -> bound of sup ||dG/dw|| over [a, b]; vectorised.
        curvature: the same for the second derivative; makes norms converge quadratically.
        tail: omega -> bound of ||G|| for all |w| >= omega (continuous time only).
        direct: D = G(infinity), (p, m); zero when None.
        select: (outputs, inputs) -> TransferFunction with tighter bounds for that selection.
        stable: whether G is analytic in the closed right half plane (outside the open unit disc); needed where `poles`
            is None.

    Raises:
        InputError: shapes, a step or values that cannot be.

    >>> import numpy as np
    >>> delay = TransferFunction(lambda s, outputs: np.exp(-s)[:, None, None], (1, 1),
    ...     slope=lambda a, b: np.ones_like(a), tail=lambda omega: 1.0, stable=True)
    >>> delay(0.0).shape, abs(delay.frequency_response(3.0)[0, 0]).round(12).item()
    ((1, 1), 1.0)
    """

    def __init__(
        self,
        evaluate: Evaluate,
        shape: tuple[int, int],
        dt: float | None = None,
        *,
        poles: Any = None,
        resonances: Any = None,
        slope: IntervalBound | None = None,
        curvature: IntervalBound | None = None,
        tail: Tail | None = None,
        direct: Any = None,
        select: Callable[[Array, Array], TransferFunction] | None = None,
        stable: bool | None = None,
    ):
        p, m = (int(size) for size in shape)
        if p < 1 or m < 1:
            raise InputError(f"shape={shape!r}: must be (outputs, inputs), both at least 1")
        store = object.__setattr__
        store(self, "evaluate", evaluate)
        store(self, "shape", (p, m))
        store(self, "dt", check_dt(dt))
        store(self, "_poles", None if poles is None else as_complex("poles", poles, 1))
        where = np.asarray([] if resonances is None else resonances, dtype=np.float64).reshape(-1)
        if not np.isfinite(where).all():
            raise InputError("resonances holds NaN or inf: must be finite angular frequencies in rad/s")
        store(self, "resonances", frozen(np.unique(where)))
        store(self, "slope", slope)
        store(self, "curvature", curvature)
        store(self, "tail", tail)
        d = np.zeros((p, m)) if direct is None else np.asarray(direct)
        d = as_complex("direct", np.broadcast_to(d, (p, m)) if d.ndim == 0 else d, 2)
        if d.shape != (p, m):
            raise InputError(f"direct has shape {d.shape}: must be {(p, m)}")
        store(self, "direct", d)
        store(self, "select", select)
        store(self, "_stable", stable)
        store(self, "_remainder", None)
        store(self, "_unwarped", None)

    #: the continuous system of which this is Tustin's discretisation: same gains on another axis
    _unwarped: TransferFunction | None
    evaluate: Evaluate
    resonances: Array
    slope: IntervalBound | None
    curvature: IntervalBound | None
    tail: Tail | None
    direct: Array
    select: Callable[[Array, Array], TransferFunction] | None
    _poles: Array | None
    _stable: bool | None
    _remainder: IntervalBound | None

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: with_({name}=...) gives a changed copy")

    @property
    def state_dim(self) -> int | None:
        """None: there is no realisation."""
        return None

    def with_(self, **changes: Any) -> TransferFunction:
        """A copy with some constructor arguments changed."""
        kept = {
            "evaluate": self.evaluate,
            "shape": self.shape,
            "dt": self.dt,
            "poles": self._poles,
            "resonances": self.resonances,
            "slope": self.slope,
            "curvature": self.curvature,
            "tail": self.tail,
            "direct": self.direct,
            "select": self.select,
            "stable": self._stable,
        }
        unknown = sorted(set(changes) - set(kept))
        if unknown:
            raise InputError(f"with_({unknown[0]}=...): must be one of {', '.join(kept)}")
        copy = TransferFunction(**{**kept, **changes})
        if not set(changes) & {"slope", "curvature", "evaluate"}:
            object.__setattr__(copy, "_remainder", self._remainder)
        return copy

    def _evaluate(self, s: Array, outputs: Array) -> Array:
        values = np.asarray(self.evaluate(s, outputs))
        if values.shape != (s.size, outputs.size, self.shape[1]):
            raise InputError(
                f"evaluate returned shape {values.shape} for {s.size} points and {outputs.size} outputs: "
                f"must be {(s.size, outputs.size, self.shape[1])}"
            )
        return values

    def poles(self) -> Array:
        """Poles as they were given.

        Raises:
            NoRealization: none were given.
        """
        if self._poles is None:
            raise NoRealization(
                "the poles of this closed form are not known: pass poles= (or stable=) when it is built"
            )
        return self._poles

    def is_stable(self) -> bool:
        """Whether the system is stable: as declared, else read from the poles."""
        return self._stable if self._stable is not None else super().is_stable()

    def to_dense(self) -> StateSpace:
        """Not possible: a closed form has no matrices.

        Raises:
            NoRealization: always.
        """
        raise NoRealization(
            "a TransferFunction has no state-space matrices: start from a realisation with closed_form=..., "
            "or work on its values, norms and responses to given frequencies"
        )

    def _transfer(self) -> TransferFunction:
        return self

    def conjugate(self) -> TransferFunction:
        """s -> conj(G(conj(s)))."""
        inner, select = self.evaluate, self.select
        return self._mirrored(
            lambda s, outputs: np.conj(inner(np.conj(s), outputs)),
            direct=np.conj(self.direct),
            select=None if select is None else lambda o, i: select(o, i).conjugate(),
        )

    def adjoint(self) -> TransferFunction:
        """s -> G(conj(s))*."""
        inner, every = self.evaluate, np.arange(self.shape[0])
        return self._mirrored(
            lambda s, outputs: np.conj(np.swapaxes(inner(np.conj(s), every), -1, -2))[:, outputs],
            shape=self.shape[::-1],
            direct=self.direct.conj().T,
            select=None,
        )

    def _mirrored(self, evaluate: Evaluate, **changes: Any) -> TransferFunction:
        """Both maps above send omega to -omega."""

        def flip(bound: IntervalBound | None) -> IntervalBound | None:
            return None if bound is None else lambda a, b: bound(-b, -a)

        mirrored = self.with_(
            evaluate=evaluate,
            poles=None if self._poles is None else np.conj(self._poles),
            resonances=-self.resonances,
            slope=flip(self.slope),
            curvature=flip(self.curvature),
            **changes,
        )
        object.__setattr__(mirrored, "_remainder", flip(self._remainder))
        return mirrored

    def _select(self, outputs: Array, inputs: Array) -> TransferFunction:
        if self.select is not None:
            return self.select(outputs, inputs)
        inner = self.evaluate
        every = inputs.size == self.shape[1] and bool((inputs == np.arange(self.shape[1])).all())

        def evaluate(s: Array, rows: Array) -> Array:
            values = inner(s, outputs[rows])
            return values if every else values[:, :, inputs]

        return self.with_(
            evaluate=evaluate,
            shape=(outputs.size, inputs.size),
            direct=self.direct[np.ix_(outputs, inputs)],
        )._with_remainder(self._remainder)

    def _with_remainder(self, remainder: IntervalBound | None) -> TransferFunction:
        object.__setattr__(self, "_remainder", remainder)
        return self

    # -- bounds

    @property
    def has_bounds(self) -> bool:
        """Whether a bracket of the gain over an interval can be had from values and bounds."""
        return self._remainder is not None or self.slope is not None or self.curvature is not None

    def remainder(self, a: Array, b: Array) -> Array:
        """Bound on the distance of G from the chord between its values at the ends of an interval.

        On [a, b] of width w the chord errs by at most w L / 2 for a slope bound L, and by w^2 K / 8 for a curvature
        bound K. The bound of a sum is the sum of these minima, which is better than the minimum of the sums.

        Args:
            a: (k,) left ends in rad/s.
            b: (k,) right ends.

        Returns:
            (k,) float64; sup ||G|| over [a, b] is at most max(||G(a)||, ||G(b)||) + remainder.

        Raises:
            InputError: neither slope nor curvature is known.
        """
        if self._remainder is not None:
            return self._remainder(a, b)
        width = b - a
        found = None
        if self.slope is not None:
            found = self.slope(a, b) * width / 2
        if self.curvature is not None:
            second = self.curvature(a, b) * width**2 / 8
            found = second if found is None else np.minimum(found, second)
        if found is None:
            raise InputError(
                "no bound on the slope of this closed form is known: pass slope=, or ask a realisation for its norm"
            )
        return found


def _distance(a: Array, b: Array, poles: Array, dt: float | None) -> Array:
    """Distance (k, N) of poles from the arcs of the frequency axis between a and b."""
    if dt is None:
        y = poles.imag
        gap = np.maximum(np.maximum(a[:, None] - y, y - b[:, None]), 0)
        return np.hypot(gap, poles.real)
    angle, radius = np.angle(poles), np.abs(poles)
    middle, half = (a + b)[:, None] * (dt / 2), (b - a)[:, None] * (dt / 2)
    away = np.abs((middle - angle + math.pi) % (2 * math.pi) - math.pi)
    gap = np.maximum(away - half, 0)
    # |e^{i gap} - r|, without cancellation near the circle
    return np.hypot(1 - radius, 2 * np.sqrt(radius) * np.sin(np.minimum(gap, math.pi) / 2))


def spectral_bound(matrix: Array) -> float:
    """Upper bound of the 2-norm, exact for a matrix with orthogonal rows or columns: no SVD of a large matrix."""
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.conj().T
    gram = np.abs(tall.conj().T @ tall)
    return float(min(np.sqrt(gram.sum(axis=1).max()), np.linalg.norm(matrix)) * (1 + 1e-12))


def pole_residue(
    poles: Array, B: Array, C: Array, D: Array, dt: float | None = None, evaluate: Evaluate | None = None
) -> TransferFunction:
    """Closed form of C (s I - diag(poles))^{-1} B + D, with bounds from the distance of the poles to the axis.

    The k-th derivative along the axis is bounded by k! times the least of sum |c_j| |b_j| / d_j^{k+1},
    ||C|| (sum |b_j|^2 / d_j^{2k+2})^{1/2} and its dual, where d_j is the distance of pole j from the interval. The
    second is sharp for orthonormal modes (normal A), where the first is too large by sqrt(N).

    Args:
        poles: (N,).
        B: (N, m).
        C: (p, N).
        D: (p, m).
        dt: None, or the step in seconds.
        evaluate: another way to the same values; the sum over poles when None.

    Returns:
        A `TransferFunction` with slope, curvature and tail.
    """
    row, column = np.linalg.norm(B, axis=1), np.linalg.norm(C, axis=0)
    both = row * column
    # the norm of a single output or input is already in the sum over poles
    c_norm = spectral_bound(C) if C.shape[0] > 1 else math.inf
    b_norm = spectral_bound(B) if B.shape[1] > 1 else math.inf

    def combine(weight: Array) -> Array:
        """Bound of ||C diag(w) B|| from |w| (k, N)."""
        found = weight @ both
        if math.isfinite(c_norm):
            found = np.minimum(found, c_norm * np.sqrt(weight**2 @ row**2))
        if math.isfinite(b_norm):
            found = np.minimum(found, b_norm * np.sqrt(weight**2 @ column**2))
        return found

    def derivative(order: int) -> IntervalBound:
        def bound(a: Array, b: Array) -> Array:
            out = np.empty(np.shape(a))
            block = max(1, 2**21 // poles.size)
            for start in range(0, out.size, block):
                part = slice(start, start + block)
                d = _distance(a[part], b[part], poles, dt)
                # a pole on the interval leaves it unbounded, which the search reads as "divide further"
                with np.errstate(divide="ignore", over="ignore"):
                    if dt is None:
                        out[part] = math.factorial(order) * combine(1 / d ** (order + 1))
                    elif order == 1:
                        out[part] = dt * combine(1 / d**2)
                    else:  # z = e^{i w dt}: d2/dw2 = -dt^2 (z d/dz + z^2 d2/dz2)
                        out[part] = dt**2 * combine(1 / d**2 + 2 / d**3)
            return out

        return bound

    def tail(omega: float) -> float:
        away = np.hypot(np.maximum(omega - np.abs(poles.imag), 0), poles.real)
        with np.errstate(divide="ignore", over="ignore"):
            return float(np.linalg.norm(D, 2) + combine(1 / away[None, :])[0])

    def direct_sum(s: Array, outputs: Array) -> Array:
        return diagonal_values(s, poles, B, C[outputs], D[outputs])

    angles = poles.imag if dt is None else np.angle(poles) / dt
    return TransferFunction(
        evaluate or direct_sum,
        (C.shape[0], B.shape[1]),
        dt,
        poles=poles,
        resonances=angles,
        slope=derivative(1),
        curvature=derivative(2),
        tail=tail if dt is None else None,
        direct=D,
    )


def diagonal_values(s: Array, poles: Array, B: Array, C: Array, D: Array) -> Array:
    """C (s - diag(poles))^{-1} B + D at s (k,): (k, p, m); holds a (k, N) array, so call it in blocks."""
    resolvent = 1 / (s[:, None] - poles)
    out = np.empty((s.size, C.shape[0], B.shape[1]), dtype=np.complex128)
    for j in range(B.shape[1]):
        out[:, :, j] = resolvent @ (C * B[:, j]).T if C.shape[0] <= s.size else (resolvent * B[:, j]) @ C.T
    return out + D
