"""Sums, gains, series and feedback of systems; the operators of `LTI` end here.

Results are lazy: a sum keeps its terms, and evaluates, bounds and selects through them. Matrices are put together
only by `to_dense()`. Diagonal systems add up to a diagonal system.
"""

from __future__ import annotations

import abc
import functools
import numbers
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.lti.base import LTI, as_complex, common_dt
from ssmtheory.lti.systems import DiagonalStateSpace, StateSpace, _Realised
from ssmtheory.lti.transfer import TransferFunction, spectral_bound
from ssmtheory.typing import Array

__all__ = ["FeedbackSystem", "SeriesSystem", "SumSystem", "add", "feedback", "mix", "multiply", "scale", "static_gain"]


def total(parts: Iterable[Array]) -> Array:
    """Sum of arrays, of which there is at least one."""
    return functools.reduce(operator.add, parts)


def _gains(s: Array) -> Array:
    """Spectral norms (k,) of matrices (k, p, m)."""
    if min(s.shape[1:]) == 1:
        return np.linalg.norm(s, axis=(1, 2))
    return np.linalg.norm(s, 2, axis=(1, 2))


# -- closed forms


def static_gain(D: Any, dt: float | None = None) -> TransferFunction:
    """A constant matrix as a system.

    Args:
        D: (p, m), or a number.
        dt: time base.

    Returns:
        A `TransferFunction` without poles.
    """
    D = as_complex("gain", np.atleast_2d(np.asarray(D)), 2)
    norm = float(np.linalg.norm(D, 2))
    return TransferFunction(
        lambda s, outputs: np.broadcast_to(D[outputs], (s.size, outputs.size, D.shape[1])),
        D.shape,
        dt,
        poles=[],
        slope=lambda a, b: np.zeros(np.shape(a)),
        tail=lambda omega: norm,
        direct=D,
        stable=True,
    )


def _joined_poles(parts: list[TransferFunction]) -> dict[str, Any]:
    poles = [part._poles for part in parts]
    stable = [part._stable for part in parts]
    known = [p is not None for p in poles]
    return {
        "poles": np.concatenate([p for p in poles if p is not None]) if all(known) else None,
        "stable": True if all(s is True or (k and p.is_stable()) for s, k, p in zip(stable, known, parts, strict=True))
        else None if not any(s is False for s in stable) else False,
        "resonances": np.concatenate([part.resonances for part in parts]),
    }  # fmt: skip


def _sum_of_closed_forms(terms: list[tuple[complex, TransferFunction]]) -> TransferFunction:
    first = terms[0][1]
    tails = [(abs(c), t.tail) for c, t in terms]
    bounded = all(t.has_bounds for _, t in terms)
    combined = TransferFunction(
        lambda s, outputs: total(c * t._evaluate(s, outputs) for c, t in terms),
        first.shape,
        first.dt,
        slope=_weighted([(abs(c), t.slope) for c, t in terms]),
        curvature=_weighted([(abs(c), t.curvature) for c, t in terms]),
        tail=None if any(t is None for _, t in tails) else lambda w: sum(c * t(w) for c, t in tails if t is not None),
        direct=total(c * t.direct for c, t in terms),
        select=lambda o, i: _sum_of_closed_forms([(c, t._select(o, i)) for c, t in terms]),
        **_joined_poles([t for _, t in terms]),
    )
    inner = [t._unwarped for _, t in terms]
    if all(t is not None for t in inner):
        pairs = [(c, t) for (c, _), t in zip(terms, inner, strict=True) if t is not None]
        object.__setattr__(combined, "_unwarped", _sum_of_closed_forms(pairs))
    if not bounded:
        return combined
    return combined._with_remainder(lambda a, b: total(abs(c) * t.remainder(a, b) for c, t in terms))


def _weighted(parts: list[tuple[float, Any]]) -> Any:
    if any(bound is None for _, bound in parts):
        return None
    return lambda a, b: total(c * bound(a, b) for c, bound in parts)


def _sup(part: TransferFunction, a: Array, b: Array) -> Array:
    """Bound of ||G|| over intervals, from the value in the middle and the slope."""
    assert part.slope is not None
    middle = part.frequency_response((a + b) / 2)
    return _gains(middle) + part.slope(a, b) * (b - a) / 2


def _series_of_closed_forms(first: TransferFunction, second: TransferFunction) -> TransferFunction:
    """first(s) @ second(s)."""
    every = np.arange(second.shape[0])

    def slope(a: Array, b: Array) -> Array:
        return first.slope(a, b) * _sup(second, a, b) + _sup(first, a, b) * second.slope(a, b)  # type: ignore[misc]

    return TransferFunction(
        lambda s, outputs: first._evaluate(s, outputs) @ second._evaluate(s, every),
        (first.shape[0], second.shape[1]),
        first.dt,
        slope=None if first.slope is None or second.slope is None else slope,
        tail=None if first.tail is None or second.tail is None else lambda w: first.tail(w) * second.tail(w),  # type: ignore[misc]
        direct=first.direct @ second.direct,
        select=lambda o, i: _series_of_closed_forms(
            first._select(o, np.arange(first.shape[1])), second._select(every, i)
        ),
        **_joined_poles([first, second]),
    )


def _feedback_of_closed_forms(
    forward: TransferFunction, back: TransferFunction, sign: int, **known: Any
) -> TransferFunction:
    """(I - sign G K)^{-1} G."""
    all_p, all_m = np.arange(forward.shape[0]), np.arange(forward.shape[1])
    eye = np.eye(forward.shape[0])

    def evaluate(s: Array, outputs: Array) -> Array:
        g = forward._evaluate(s, all_p)
        return np.linalg.solve(eye - sign * g @ back._evaluate(s, all_m), g)[:, outputs]

    def slope(a: Array, b: Array) -> Array:
        # (S G)' = S G' + S (GK)' S G with S = (I - sign GK)^{-1}; S is bounded where the loop stays off singularity
        middle, half = (a + b) / 2, (b - a) / 2
        g, k = forward.frequency_response(middle), back.frequency_response(middle)
        dg, dk = forward.slope(a, b), back.slope(a, b)  # type: ignore[misc]
        sup_g, sup_k = _gains(g) + dg * half, _gains(k) + dk * half
        d_loop = dg * sup_k + sup_g * dk
        least = np.linalg.svd(eye - sign * g @ k, compute_uv=False)[:, -1] - d_loop * half
        with np.errstate(divide="ignore"):
            s = np.where(least > 0, 1 / np.maximum(least, 0), np.inf)
        with np.errstate(invalid="ignore"):
            return np.where(least > 0, s * dg + s * s * d_loop * sup_g, np.inf)

    def tail(omega: float) -> float:
        g, loop = forward.tail(omega), forward.tail(omega) * back.tail(omega)  # type: ignore[misc]
        return g / (1 - loop) if loop < 1 else np.inf

    return TransferFunction(
        evaluate,
        forward.shape,
        forward.dt,
        slope=None if forward.slope is None or back.slope is None else slope,
        tail=None if forward.tail is None or back.tail is None else tail,
        direct=np.linalg.solve(eye - sign * forward.direct @ back.direct, forward.direct),
        **known,
    )


def _mixed_closed_form(part: TransferFunction, left: Array, right: Array) -> TransferFunction:
    factor = spectral_bound(left) * spectral_bound(right)
    every = np.arange(part.shape[0])
    mixed = TransferFunction(
        lambda s, outputs: left[outputs] @ part._evaluate(s, every) @ right,
        (left.shape[0], right.shape[1]),
        part.dt,
        slope=_weighted([(factor, part.slope)]),
        curvature=_weighted([(factor, part.curvature)]),
        tail=None if part.tail is None else lambda w: factor * part.tail(w),  # type: ignore[misc]
        direct=left @ part.direct @ right,
        select=lambda o, i: _mixed_closed_form(part, left[o], right[:, i]),
        **_joined_poles([part]),
    )
    if part._unwarped is not None:
        object.__setattr__(mixed, "_unwarped", _mixed_closed_form(part._unwarped, left, right))
    return mixed._with_remainder(lambda a, b: factor * part.remainder(a, b)) if part.has_bounds else mixed


# -- lazy systems


class _Lazy(LTI):
    """A system that is kept as its parts."""

    def conjugate(self) -> LTI:
        """The system with complex-conjugate matrices."""
        return self._map("conjugate")

    def adjoint(self) -> LTI:
        """The dual system: s -> G(conj(s))*."""
        return self._map("adjoint")

    @abc.abstractmethod
    def _map(self, kind: str) -> LTI:
        """The same combination of the members' conjugates or adjoints."""


@dataclass(frozen=True, eq=False, repr=False)
class SumSystem(_Lazy):
    """A weighted sum of systems that share shape and time base.

    Attributes:
        terms: (coefficient, system) pairs.
    """

    terms: tuple[tuple[complex, LTI], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", self.terms[0][1].shape)
        object.__setattr__(self, "dt", self.terms[0][1].dt)

    @property
    def state_dim(self) -> int | None:
        """Sum of the terms' states; None where a term has no realisation."""
        sizes = [t.state_dim for _, t in self.terms]
        return None if any(n is None for n in sizes) else sum(n for n in sizes if n is not None)

    @property
    def _point_cost(self) -> int:
        return sum(t._point_cost for _, t in self.terms)

    def _evaluate(self, s: Array, outputs: Array) -> Array:
        return total(c * t._evaluate(s, outputs) for c, t in self.terms)

    def _select(self, outputs: Array, inputs: Array) -> LTI:
        return SumSystem(tuple((c, t._select(outputs, inputs)) for c, t in self.terms))

    def _transfer(self) -> TransferFunction:
        return _sum_of_closed_forms([(c, t.transfer) for c, t in self.terms])

    def _map(self, kind: str) -> LTI:
        return SumSystem(tuple((np.conj(c), getattr(t, kind)()) for c, t in self.terms))

    def is_stable(self) -> bool:
        """Whether every term is stable; poles that cancel between terms still count."""
        return all(t.is_stable() for _, t in self.terms)

    def poles(self) -> Array:
        """Poles of all terms."""
        return np.concatenate([t.poles() for _, t in self.terms])

    def to_dense(self) -> StateSpace:
        """Block-diagonal realisation of the sum."""
        from scipy.linalg import block_diag

        parts = [(c, t.to_dense()) for c, t in self.terms]
        return StateSpace(
            block_diag(*[t.A for _, t in parts]),
            np.concatenate([t.B for _, t in parts]),
            np.concatenate([c * t.C for c, t in parts], axis=1),
            total(c * t.D for c, t in parts),
            self.dt,
            self.transfer if self.transfer.has_bounds else None,
        )


@dataclass(frozen=True, eq=False, repr=False)
class SeriesSystem(_Lazy):
    """`first` fed by `second`: first(s) @ second(s).

    Attributes:
        first: the system at the output.
        second: the system at the input.
    """

    first: LTI
    second: LTI

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", (self.first.shape[0], self.second.shape[1]))
        object.__setattr__(self, "dt", self.first.dt)

    @property
    def state_dim(self) -> int | None:
        """Sum of the parts' states; None where one has no realisation."""
        a, b = self.first.state_dim, self.second.state_dim
        return None if a is None or b is None else a + b

    @property
    def _point_cost(self) -> int:
        return self.first._point_cost + self.second._point_cost

    def _evaluate(self, s: Array, outputs: Array) -> Array:
        return self.first._evaluate(s, outputs) @ self.second._evaluate(s, np.arange(self.second.shape[0]))

    def _select(self, outputs: Array, inputs: Array) -> LTI:
        middle = np.arange(self.second.shape[0])
        return SeriesSystem(self.first._select(outputs, middle), self.second._select(middle, inputs))

    def _transfer(self) -> TransferFunction:
        return _series_of_closed_forms(self.first.transfer, self.second.transfer)

    def _map(self, kind: str) -> LTI:
        first, second = getattr(self.first, kind)(), getattr(self.second, kind)()
        return SeriesSystem(first, second) if kind == "conjugate" else SeriesSystem(second, first)

    def is_stable(self) -> bool:
        """Whether both parts are stable; poles that cancel between them still count."""
        return self.first.is_stable() and self.second.is_stable()

    def poles(self) -> Array:
        """Poles of both parts."""
        return np.concatenate([self.first.poles(), self.second.poles()])

    def to_dense(self) -> StateSpace:
        """Realisation with the states of `first` before those of `second`."""
        a, b = self.first.to_dense(), self.second.to_dense()
        zero = np.zeros((b.state_dim, a.state_dim))
        return StateSpace(
            np.block([[a.A, a.B @ b.C], [zero, b.A]]),
            np.concatenate([a.B @ b.D, b.B]),
            np.concatenate([a.C, a.D @ b.C], axis=1),
            a.D @ b.D,
            self.dt,
            self.transfer if self.transfer.has_bounds else None,
        )


@dataclass(frozen=True, eq=False, repr=False)
class FeedbackSystem(_Lazy):
    """The closed loop (I - sign G K)^{-1} G, or some of its outputs and inputs.

    Attributes:
        forward: G.
        back: K.
        sign: -1 for negative feedback.
        left: (p', p) what is read of the outputs.
        right: (m, m') how the inputs enter.
    """

    forward: LTI
    back: LTI
    sign: int
    left: Array
    right: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", (self.left.shape[0], self.right.shape[1]))
        object.__setattr__(self, "dt", self.forward.dt)

    @property
    def state_dim(self) -> int | None:
        """States of both parts; a constant K has none. None where a part has no realisation."""
        back = 0 if _is_static(self.back) else self.back.state_dim
        return None if self.forward.state_dim is None or back is None else self.forward.state_dim + back

    @property
    def _point_cost(self) -> int:
        return self.forward._point_cost + self.back._point_cost

    def _evaluate(self, s: Array, outputs: Array) -> Array:
        g = self.forward._evaluate(s, np.arange(self.forward.shape[0]))
        k = self.back._evaluate(s, np.arange(self.back.shape[0]))
        closed = np.linalg.solve(np.eye(g.shape[1]) - self.sign * g @ k, g)
        return self.left[outputs] @ closed @ self.right

    def _select(self, outputs: Array, inputs: Array) -> LTI:
        return FeedbackSystem(self.forward, self.back, self.sign, self.left[outputs], self.right[:, inputs])

    def _transfer(self) -> TransferFunction:
        known: dict[str, Any] = {"resonances": np.concatenate([self.forward.transfer.resonances,
                                                               self.back.transfer.resonances])}  # fmt: skip
        if self.state_dim is not None:
            poles = self.poles()
            angles = poles.imag if self.dt is None else np.angle(poles) / self.dt
            known = {"poles": poles, "resonances": np.concatenate([known["resonances"], angles])}
        closed = _feedback_of_closed_forms(self.forward.transfer, self.back.transfer, self.sign, **known)
        return _mixed_closed_form(closed, self.left, self.right)

    def _map(self, kind: str) -> LTI:
        forward, back = getattr(self.forward, kind)(), getattr(self.back, kind)()
        if kind == "conjugate":
            return FeedbackSystem(forward, back, self.sign, self.left.conj(), self.right.conj())
        return FeedbackSystem(forward, back, self.sign, self.right.conj().T, self.left.conj().T)

    def poles(self) -> Array:
        """Eigenvalues of the closed loop's state matrix."""
        return np.linalg.eigvals(self._matrices()[0])

    def _matrices(self) -> tuple[Array, Array, Array, Array]:
        g = self.forward.to_dense()
        p, m = g.shape
        if _is_static(self.back):
            ak, bk, ck = np.zeros((0, 0)), np.zeros((0, p)), np.zeros((m, 0))
            dk = self.back.transfer.direct
        else:
            k = self.back.to_dense()
            ak, bk, ck, dk = k.A, k.B, k.C, k.D
        sign = self.sign
        w = np.linalg.inv(np.eye(p) - sign * g.D @ dk)  # y = W (C x + sign D C_K x_K + D u)
        cy = np.concatenate([w @ g.C, sign * w @ g.D @ ck], axis=1)
        dy = w @ g.D
        # plant input: u + sign (C_K x_K + D_K y)
        cu = sign * dk @ cy + np.concatenate([np.zeros((m, g.A.shape[0])), sign * ck], axis=1)
        du = np.eye(m) + sign * dk @ dy
        a = np.concatenate([g.B @ cu, bk @ cy])
        a[: g.A.shape[0], : g.A.shape[0]] += g.A
        a[g.A.shape[0] :, g.A.shape[0] :] += ak
        return a, np.concatenate([g.B @ du, bk @ dy]) @ self.right, self.left @ cy, self.left @ dy @ self.right

    def to_dense(self) -> StateSpace:
        """Realisation with the states of G before those of K."""
        return StateSpace(*self._matrices(), self.dt)


def _is_static(system: LTI) -> bool:
    return isinstance(system, TransferFunction) and system._poles is not None and system._poles.size == 0


# -- operators


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Number) or (isinstance(value, np.ndarray) and value.ndim == 0)


def add(a: LTI, b: Any) -> LTI:
    """Parallel connection a + b.

    Args:
        a: a system.
        b: a system of the same shape and time base, or a number or (p, m) matrix that is added to D.

    Raises:
        InputError: shapes that differ.
        MixedTimeBases: time bases that differ.
    """
    if not isinstance(b, LTI):
        gain = np.asarray(b)
        gain = np.broadcast_to(gain, a.shape) if gain.ndim == 0 else gain
        gain = as_complex("gain", gain, 2)
        if gain.shape != a.shape:
            raise InputError(f"a gain of shape {gain.shape} is added to a system of shape {a.shape}: must be equal")
        if isinstance(a, _Realised):
            closed = None if a.closed_form is None else _sum_of_closed_forms(
                [(1.0, a.closed_form), (1.0, static_gain(gain, a.dt))]
            )  # fmt: skip
            return a.with_(D=a.D + gain, closed_form=closed)
        return _plus_gain(a, gain)
    dt = common_dt(a, b)
    if a.shape != b.shape:
        raise InputError(f"systems of shapes {a.shape} and {b.shape} are added: outputs and inputs must agree")
    if isinstance(a, DiagonalStateSpace) and isinstance(b, DiagonalStateSpace):
        pairs = a.conjugate_pairs and b.conjugate_pairs
        x, y = (a, b) if pairs else (a.expand(), b.expand())
        closed = None
        if a.closed_form is not None or b.closed_form is not None:
            closed = _sum_of_closed_forms([(1.0, a.transfer), (1.0, b.transfer)])
        return DiagonalStateSpace(
            np.concatenate([x.diagonal, y.diagonal]), np.concatenate([x.B, y.B]), np.concatenate([x.C, y.C], axis=1),
            x.D + y.D, dt, pairs, closed,
        )  # fmt: skip
    if isinstance(a, TransferFunction) and isinstance(b, TransferFunction):
        return _sum_of_closed_forms([(1.0, a), (1.0, b)])
    return SumSystem((*_terms(a), *_terms(b)))


def _terms(system: LTI) -> tuple[tuple[complex, LTI], ...]:
    return system.terms if isinstance(system, SumSystem) else ((1.0, system),)


def _plus_gain(a: LTI, gain: Array) -> LTI:
    if isinstance(a, TransferFunction):
        return _sum_of_closed_forms([(1.0, a), (1.0, static_gain(gain, a.dt))])
    if isinstance(a, SumSystem):
        for k, (c, term) in enumerate(a.terms):
            if isinstance(term, _Realised) and c != 0:
                return SumSystem((*a.terms[:k], (c, add(term, gain / c)), *a.terms[k + 1 :]))
    return SumSystem((*_terms(a), (1.0, static_gain(gain, a.dt)))) if a.state_dim is None else add(a.to_dense(), gain)


def scale(system: LTI, factor: Any) -> LTI:
    """factor * system, where factor is a number.

    Raises:
        InputError: the factor is not a number (matrices mix with @).
    """
    if not _is_number(factor):
        raise InputError(f"factor has type {type(factor).__name__}: must be a number; matrices and systems mix with @")
    c = complex(factor)
    as_complex("factor", np.array([c]))
    if isinstance(system, SumSystem):
        return SumSystem(tuple((c * k, t) for k, t in system.terms))
    if isinstance(system, TransferFunction):
        return _sum_of_closed_forms([(c, system)])
    if isinstance(system, _Realised):
        if isinstance(system, DiagonalStateSpace) and c.imag:
            system = system.expand()
        closed = None if system.closed_form is None else _sum_of_closed_forms([(c, system.closed_form)])
        return system._ported(system.B, c * system.C, c * system.D, closed)
    return SumSystem(((c, system),))


def multiply(a: LTI, b: Any) -> LTI:
    """Series connection: the outputs of b drive a. With a number, a gain.

    Raises:
        InputError: a does not have as many inputs as b has outputs.
        MixedTimeBases: time bases that differ.
    """
    if not isinstance(b, LTI):
        return scale(a, b)
    common_dt(a, b)
    if a.shape[1] != b.shape[0]:
        raise InputError(f"series of shapes {a.shape} * {b.shape}: inputs of the first must be outputs of the second")
    if isinstance(a, TransferFunction) and isinstance(b, TransferFunction):
        return _series_of_closed_forms(a, b)
    return SeriesSystem(a, b)


def mix(system: LTI, left: Any, right: Any) -> LTI:
    """left @ system @ right with constant matrices.

    Args:
        system: of shape (p, m).
        left: (p', p), or None for the identity.
        right: (m, m'), or None.

    Raises:
        InputError: shapes that do not fit.
    """
    p, m = system.shape
    left = np.eye(p) if left is None else as_complex("left factor", np.atleast_2d(np.asarray(left)), 2)
    right = np.eye(m) if right is None else as_complex("right factor", np.asarray(right))
    right = right[:, None] if right.ndim == 1 else right
    if left.shape[1] != p or right.ndim != 2 or right.shape[0] != m:
        raise InputError(f"factors of shapes {left.shape} and {right.shape} around a system of shape {system.shape}")
    if isinstance(system, DiagonalStateSpace) and system.conjugate_pairs and (np.iscomplexobj(left) or
                                                                              np.iscomplexobj(right)):  # fmt: skip
        real = not (np.imag(left).any() or np.imag(right).any())
        system = system if real else system.expand()
    if isinstance(system, TransferFunction):
        return _mixed_closed_form(system, left, right)
    if isinstance(system, _Realised):
        closed = None if system.closed_form is None else _mixed_closed_form(system.closed_form, left, right)
        return system._ported(system.B @ right, left @ system.C, left @ system.D @ right, closed)
    if isinstance(system, SumSystem):
        return SumSystem(tuple((c, mix(t, left, right)) for c, t in system.terms))
    if isinstance(system, FeedbackSystem):
        return FeedbackSystem(system.forward, system.back, system.sign, left @ system.left, system.right @ right)
    assert isinstance(system, SeriesSystem)
    return SeriesSystem(mix(system.first, left, None), mix(system.second, None, right))


def feedback(system: LTI, other: Any, sign: int) -> LTI:
    """The closed loop (I - sign G K)^{-1} G; see `LTI.feedback`."""
    if sign not in (-1, 1):
        raise InputError(f"sign={sign!r}: must be -1 (negative feedback) or 1")
    p, m = system.shape
    if not isinstance(other, LTI):
        gain = np.asarray(other)
        other = static_gain(gain * np.eye(m, p) if gain.ndim == 0 else gain, system.dt)
    common_dt(system, other)
    if other.shape != (m, p):
        raise InputError(f"feedback of shape {other.shape} around a system of shape {system.shape}: must be {(m, p)}")
    loop = np.eye(p) - sign * _direct(system) @ _direct(other)
    if np.linalg.cond(loop) > 1 / np.finfo(float).eps:
        raise InputError(f"the loop is not well posed: I - ({sign}) D D_K is singular, {loop.tolist()}")
    if isinstance(system, TransferFunction):
        return _feedback_of_closed_forms(system, other.transfer, sign, resonances=np.concatenate(
            [system.resonances, other.transfer.resonances]))  # fmt: skip
    return FeedbackSystem(system, other, sign, np.eye(p, dtype=complex), np.eye(m, dtype=complex))


def _direct(system: LTI) -> Array:
    """D, from the matrices where there are some."""
    if isinstance(system, _Realised):
        return system.D
    if isinstance(system, SumSystem):
        return total(c * _direct(t) for c, t in system.terms)
    if isinstance(system, SeriesSystem):
        return _direct(system.first) @ _direct(system.second)
    if isinstance(system, FeedbackSystem):
        g = _direct(system.forward)
        closed = np.linalg.solve(np.eye(g.shape[0]) - system.sign * g @ _direct(system.back), g)
        return system.left @ closed @ system.right
    return system.transfer.direct
