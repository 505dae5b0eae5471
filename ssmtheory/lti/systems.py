"""State-space systems: dense, diagonal, diagonal or triangular plus low rank.

Frozen; arrays are complex128 and read-only, and are checked at construction. A realisation may carry the closed form of
its transfer function (`closed_form`), which then answers every question about values and norms and follows through
algebra and selection: at N = 1024 a gap costs milliseconds and no matrix of that size is built.

>>> import numpy as np
>>> modes = DiagonalStateSpace(-0.5 + 1j * np.pi * np.arange(8), np.ones(8), np.ones(8))
>>> modes
DiagonalStateSpace(8 states, 1 outputs, 1 inputs)
>>> round(modes.hinf_norm(tol=1e-9).value, 8)
2.33207802
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.lti.base import BLOCK_BYTES, LTI, as_complex, check_dt
from ssmtheory.lti.errors import MixedTimeBases
from ssmtheory.lti.solve import blockwise, shifted_solve
from ssmtheory.lti.transfer import TransferFunction, diagonal_values, pole_residue
from ssmtheory.typing import Array

if TYPE_CHECKING:
    from typing import Self

__all__ = ["DiagonalStateSpace", "LowRankStateSpace", "StateSpace", "TriangularStateSpace"]


def _ports(B: Any, C: Any, D: Any, n: int) -> tuple[Array, Array, Array]:
    """B (N, m), C (p, N), D (p, m) from what was given; vectors are one input, one output."""
    B, C = as_complex("B", B), as_complex("C", C)
    B = as_complex("B", B[:, None]) if B.ndim == 1 else B
    C = as_complex("C", C[None, :]) if C.ndim == 1 else C
    if B.ndim != 2 or B.shape[0] != n or B.shape[1] < 1:
        raise InputError(f"B has shape {B.shape}: must be ({n}, inputs) for {n} states")
    if C.ndim != 2 or C.shape[1] != n or C.shape[0] < 1:
        raise InputError(f"C has shape {C.shape}: must be (outputs, {n}) for {n} states")
    shape = (C.shape[0], B.shape[1])
    D = np.zeros(shape) if D is None else np.asarray(D)
    if D.ndim == 0 or (D.shape == (1,) and shape == (1, 1)):
        D = np.full(shape, D)
    D = as_complex("D", D)
    if D.shape != shape:
        raise InputError(f"D has shape {D.shape}: must be (outputs, inputs) = {shape}")
    return B, C, D


def _square(name: str, value: Any) -> Array:
    A = as_complex(name, value)
    if A.ndim != 2 or A.shape[0] != A.shape[1]:
        raise InputError(f"{name} has shape {A.shape}: must be square, (N, N)")
    if A.shape[0] == 0:
        raise InputError(f"{name} has no entries: a system needs at least one state; a constant gain is a plain matrix")
    return A


def _diagonal(value: Any) -> Array:
    poles = as_complex("poles", value)
    if poles.ndim != 1:
        raise InputError(f"poles has shape {poles.shape}: must be (N,)")
    if poles.size == 0:
        raise InputError("poles has no entries: a system needs at least one state; a constant gain is a plain matrix")
    return poles


def _bounded(closed: TransferFunction) -> bool:
    """Whether a closed form alone suffices for a norm over all frequencies."""
    return closed.has_bounds and (closed.tail is not None or closed.dt is not None)


@dataclass(frozen=True, eq=False, repr=False, init=False)
class _Realised(LTI):
    """What the four kinds share: ports, closed form, copies with changes."""

    B: Array
    C: Array
    D: Array
    dt: float | None
    closed_form: TransferFunction | None

    #: constructor argument -> attribute
    _arguments: ClassVar[dict[str, str]] = {}

    def _store(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _store_ports(self, n: int, B: Any, C: Any, D: Any, dt: Any, closed_form: TransferFunction | None) -> None:
        B, C, D = _ports(B, C, D, n)
        dt = check_dt(dt)
        shape = (C.shape[0], B.shape[1])
        if closed_form is not None:
            if not isinstance(closed_form, TransferFunction):
                raise InputError(f"closed_form is a {type(closed_form).__name__}: must be a TransferFunction or None")
            if closed_form.shape != shape:
                raise InputError(f"closed_form has shape {closed_form.shape}: must be that of the system, {shape}")
            if closed_form.dt != dt:
                raise MixedTimeBases(f"closed_form has dt={closed_form.dt!r}, the system dt={dt!r}: must be equal")
        self._store(B=B, C=C, D=D, dt=dt, closed_form=closed_form, shape=shape)

    def with_(self, **changes: Any) -> Self:
        """A copy with some constructor arguments changed.

        Args:
            changes: constructor arguments. The closed form is dropped where a matrix changes, unless it is given too.

        Raises:
            InputError: an unknown argument, or values that do not fit.
        """
        unknown = sorted(set(changes) - set(self._arguments))
        if unknown:
            raise InputError(f"with_({unknown[0]}=...): must be one of {', '.join(self._arguments)}")
        kept = {argument: getattr(self, attribute) for argument, attribute in self._arguments.items()}
        if changes and "closed_form" not in changes:
            kept["closed_form"] = None
        return type(self)(**{**kept, **changes})

    def _ported(self, B: Array, C: Array, D: Array, closed_form: TransferFunction | None) -> Self:
        """The same state equation with other ports; state matrices, and what is known of them, are shared."""
        other = object.__new__(type(self))
        kept = {*self._arguments.values(), "schur"} - {"B", "C", "D", "dt", "closed_form"}
        other._store(**{name: value for name, value in self.__dict__.items() if name in kept})
        other._store_ports(self.B.shape[0], B, C, D, self.dt, closed_form)
        return other

    def _select(self, outputs: Array, inputs: Array) -> Self:
        closed = None if self.closed_form is None else self.closed_form._select(outputs, inputs)
        return self._ported(self.B[:, inputs], self.C[outputs], self.D[np.ix_(outputs, inputs)], closed)

    def _evaluate(self, s: Array, outputs: Array) -> Array:
        if self.closed_form is not None:
            return self.closed_form._evaluate(s, outputs)
        return self._values(s, self.C[outputs], self.D[outputs])

    def _values(self, s: Array, C: Array, D: Array) -> Array:
        """C (s I - A)^{-1} B + D from the matrices."""
        return np.einsum("pn,nkm->kpm", C, self.resolvent_times(s, self.B), optimize=True) + D

    @abc.abstractmethod
    def resolvent_times(self, s: Array, X: Array) -> Array:
        """(s_k I - A)^{-1} X, whatever the closed form says.

        Args:
            s: (k,) complex points.
            X: (N, q).

        Returns:
            (N, k, q) complex128, where N counts stored states.
        """

    def _block(self) -> int:
        return max(1, BLOCK_BYTES // (16 * self._point_cost))

    def _transfer(self) -> TransferFunction:
        closed = self.closed_form
        if closed is not None and _bounded(closed):
            known = closed._poles is not None or closed._stable is not None
            return closed if known else closed.with_(poles=self.poles(), stable=self.is_stable())
        poles = self.poles()

        def evaluate(s: Array, outputs: Array) -> Array:
            return blockwise(lambda part: self._values(part, self.C[outputs], self.D[outputs]), s, self._block())

        angles = poles.imag if self.dt is None else np.angle(poles) / self.dt
        distance = self._range_distance()
        bounds: dict[str, Any] = {}
        if distance is not None:
            size = float(np.linalg.norm(self.B, 2) * np.linalg.norm(self.C, 2)) * (self.dt or 1.0)
            far = float(np.linalg.norm(self.D, 2))
            bounds["slope"] = lambda a, b: size / distance(a, b) ** 2
            bounds["curvature"] = lambda a, b: self._second(size, distance(a, b))
            if self.dt is None:
                bounds["tail"] = lambda w: (
                    far
                    + size
                    / float(
                        np.minimum(
                            distance(np.array([w]), np.array([np.inf])), distance(np.array([-np.inf]), -np.array([w]))
                        )[0]
                    )
                )
        return TransferFunction(
            evaluate if closed is None else closed.evaluate,
            self.shape,
            self.dt,
            poles=poles,
            resonances=angles if closed is None else np.concatenate([angles, closed.resonances]),
            direct=self.D,
            stable=self.is_stable(),
            **bounds,
        )

    def _second(self, size: float, distance: Array) -> Array:
        """Bound of the second derivative along the axis, from that of the resolvent, 1 / distance."""
        if self.dt is None:
            return 2 * size / distance**3
        return size * self.dt * (1 / distance**2 + 2 / distance**3)

    def _range_distance(self) -> Callable[[Array, Array], Array] | None:
        """(a, b) -> distance of the frequencies [a, b] from a set that holds the numerical range of A; None if zero.

        The resolvent is bounded by its inverse. The set is a rectangle in continuous time, a disc about 0 in discrete.
        """
        A = self.state_matrix
        if self.dt is not None:
            gap = 1 - float(np.linalg.norm(A, 2))
            return (lambda a, b: np.full(np.shape(a), gap)) if gap > 0 else None
        right = float(np.linalg.eigvalsh(A + A.conj().T)[-1]) / 2
        if right >= 0:
            return None
        heights = np.linalg.eigvalsh((A - A.conj().T) / 2j)
        low, high = float(heights[0]), float(heights[-1])
        return lambda a, b: np.hypot(right, np.maximum(np.maximum(a - high, low - b), 0))

    @cached_property
    def _poles(self) -> Array:
        if self.closed_form is not None and self.closed_form._poles is not None:
            return self.closed_form._poles
        return self._eigenvalues()

    def _eigenvalues(self) -> Array:
        return np.linalg.eigvals(self.state_matrix)

    def is_stable(self) -> bool:
        """Whether every pole lies in the open left half plane, or in the open unit disc; a closed form may know."""
        if self.closed_form is not None and self.closed_form._stable is not None:
            return self.closed_form._stable
        return super().is_stable()

    def poles(self) -> Array:
        """Poles (eigenvalues of A) (N,), those of the closed form where it names them."""
        return self._poles

    @property
    @abc.abstractmethod
    def state_matrix(self) -> Array:
        """A as a dense (N, N) array."""

    def to_dense(self) -> StateSpace:
        """The same system as a `StateSpace`, with the closed form if there is one."""
        return StateSpace(self.state_matrix, self.B, self.C, self.D, self.dt, self.closed_form)

    def _closed(self, kind: str) -> TransferFunction | None:
        return None if self.closed_form is None else getattr(self.closed_form, kind)()

    @property
    def state_dim(self) -> int:
        """N, the number of states."""
        return int(self.B.shape[0])


@dataclass(frozen=True, eq=False, repr=False, init=False)
class StateSpace(_Realised):
    """x' = A x + B u, y = C x + D u with dense matrices.

    Values on a set of points cost one complex Schur decomposition, then O(N^2) each.

    Args:
        A: (N, N); scipy.sparse matrices are made dense.
        B: (N, m), or (N,) for one input.
        C: (p, N), or (N,) for one output.
        D: (p, m), a number, or None for zero.
        dt: None for continuous time, else the step in seconds.
        closed_form: the transfer function of this very system, of the same shape and dt.

    Raises:
        InputError: shapes that do not fit, N = 0, NaN or infinite entries.

    >>> StateSpace([[0, 1], [-2, -3]], [0, 1], [1, 0])(0)
    array([[0.5+0.j]])
    """

    A: Array

    _arguments: ClassVar[dict[str, str]] = {k: k for k in ("A", "B", "C", "D", "dt", "closed_form")}

    def __init__(
        self,
        A: Any,
        B: Any,
        C: Any,
        D: Any = None,
        dt: float | None = None,
        closed_form: TransferFunction | None = None,
    ):
        A = _square("A", A)
        self._store(A=A)
        self._store_ports(A.shape[0], B, C, D, dt, closed_form)

    @property
    def state_matrix(self) -> Array:
        """A (N, N)."""
        return self.A

    @cached_property
    def schur(self) -> tuple[Array, Array]:
        """Complex Schur form (T, Q), A = Q T Q*, computed once."""
        from scipy.linalg import schur

        return schur(self.A, output="complex")

    def is_stable(self) -> bool:
        """Whether every pole lies in the open left half plane, or in the open unit disc.

        A contraction is stable whatever its computed eigenvalues say: those of HiPPO-LegS are meaningless from N of
        about 20, while its symmetric part is -1/2 and less.
        """
        if self.dt is None:
            contracts = np.linalg.eigvalsh(self.A + self.A.conj().T)[-1] < 0
        else:
            contracts = np.linalg.norm(self.A, 2) < 1
        return bool(contracts) or super().is_stable()

    def resolvent_times(self, s: Array, X: Array) -> Array:
        """(s_k I - A)^{-1} X: (N, k, q)."""
        T, Q = self.schur
        return np.tensordot(Q, shifted_solve(T, Q.conj().T @ X, s), axes=1)

    def _values(self, s: Array, C: Array, D: Array) -> Array:
        T, Q = self.schur
        x = shifted_solve(T, Q.conj().T @ self.B, s)
        return np.moveaxis(np.tensordot(C @ Q, x, axes=1), 0, 1) + D

    def to_dense(self) -> StateSpace:
        """The system itself."""
        return self

    def conjugate(self) -> StateSpace:
        """The system with complex-conjugate matrices."""
        A, B, C, D = (np.conj(x) for x in (self.A, self.B, self.C, self.D))
        return StateSpace(A, B, C, D, self.dt, self._closed("conjugate"))

    def adjoint(self) -> StateSpace:
        """The dual system (A*, C*, B*, D*)."""
        A, B, C, D = (x.conj().T for x in (self.A, self.C, self.B, self.D))
        return StateSpace(A, B, C, D, self.dt, self._closed("adjoint"))


@dataclass(frozen=True, eq=False, repr=False, init=False)
class DiagonalStateSpace(_Realised):
    """A system whose state matrix is diagonal: G(s) = sum_j c_j b_j / (s - pole_j) + D.

    Args:
        poles: (N,) diagonal of A; kept as `diagonal`.
        B: (N, m), or (N,) for one input.
        C: (p, N), or (N,) for one output.
        D: (p, m), a number, or None for zero.
        dt: None for continuous time, else the step in seconds.
        conjugate_pairs: only one pole of each conjugate pair is stored; the system has 2N states, and its impulse
            response is 2 Re(C exp(tA) B). D counts once.
        closed_form: the transfer function of this very system.

    Raises:
        InputError: shapes that do not fit, N = 0, NaN or infinite entries.

    >>> pair = DiagonalStateSpace([-1 + 2j], [1], [1], conjugate_pairs=True)
    >>> pair.state_dim, pair(0)[0, 0].real.round(12).item()
    (2, 0.4)
    """

    diagonal: Array
    conjugate_pairs: bool

    _arguments: ClassVar[dict[str, str]] = {
        "poles": "diagonal",
        **{k: k for k in ("B", "C", "D", "dt", "conjugate_pairs", "closed_form")},
    }

    def __init__(
        self,
        poles: Any,
        B: Any,
        C: Any,
        D: Any = None,
        dt: float | None = None,
        conjugate_pairs: bool = False,
        closed_form: TransferFunction | None = None,
    ):
        diagonal = _diagonal(poles)
        if not isinstance(conjugate_pairs, bool | np.bool_):
            raise InputError(f"conjugate_pairs={conjugate_pairs!r}: must be True or False")
        self._store(diagonal=diagonal, conjugate_pairs=bool(conjugate_pairs))
        self._store_ports(diagonal.size, B, C, D, dt, closed_form)

    @property
    def state_dim(self) -> int:
        """N, the number of states; both members of a conjugate pair count."""
        return self.diagonal.size * (2 if self.conjugate_pairs else 1)

    def expand(self) -> DiagonalStateSpace:
        """The same system with both members of each conjugate pair stored."""
        if not self.conjugate_pairs:
            return self
        return DiagonalStateSpace(
            np.concatenate([self.diagonal, self.diagonal.conj()]),
            np.concatenate([self.B, self.B.conj()]),
            np.concatenate([self.C, self.C.conj()], axis=1),
            self.D,
            self.dt,
            closed_form=self.closed_form,
        )

    @property
    def state_matrix(self) -> Array:
        """A as a dense (N, N) array; both members of a conjugate pair have their row."""
        return np.diag(self.expand().diagonal)

    def _eigenvalues(self) -> Array:
        return self.expand().diagonal

    def to_dense(self) -> StateSpace:
        """The same system as a `StateSpace`, conjugate pairs expanded, with the closed form if there is one."""
        full = self.expand()
        return StateSpace(np.diag(full.diagonal), full.B, full.C, full.D, full.dt, full.closed_form)

    def resolvent_times(self, s: Array, X: Array) -> Array:
        """(s_k I - A)^{-1} X for the stored poles: (N, k, q)."""
        return X[:, None, :] / (s[None, :, None] - self.diagonal[:, None, None])

    def _values(self, s: Array, C: Array, D: Array) -> Array:
        values = diagonal_values(s, self.diagonal, self.B, C, D)
        if self.conjugate_pairs:
            values = values + diagonal_values(s, self.diagonal.conj(), self.B.conj(), C.conj(), np.zeros_like(D))
        return values

    def _transfer(self) -> TransferFunction:
        closed = self.closed_form
        if closed is not None and _bounded(closed):
            return super()._transfer()
        full = self.expand()
        known = pole_residue(full.diagonal, full.B, full.C, full.D, self.dt)
        if closed is None:
            return known
        own, given = known.remainder, closed
        merged = known.with_(evaluate=closed.evaluate, resonances=np.concatenate([known.resonances, closed.resonances]))
        if not closed.has_bounds:
            return merged._with_remainder(own)
        return merged._with_remainder(lambda a, b: np.minimum(own(a, b), given.remainder(a, b)))

    def conjugate(self) -> DiagonalStateSpace:
        """The system with complex-conjugate matrices."""
        return self.with_(
            poles=self.diagonal.conj(), B=self.B.conj(), C=self.C.conj(), D=self.D.conj(),
            closed_form=self._closed("conjugate"),
        )  # fmt: skip

    def adjoint(self) -> DiagonalStateSpace:
        """The dual system (A*, C*, B*, D*)."""
        return self.with_(
            poles=self.diagonal.conj(), B=self.C.conj().T, C=self.B.conj().T, D=self.D.conj().T,
            closed_form=self._closed("adjoint"),
        )  # fmt: skip


def _low_rank(P: Any, Q: Any, n: int) -> tuple[Array, Array]:
    P, Q = as_complex("P", P), as_complex("Q", Q)
    P, Q = (as_complex(name, x[:, None]) if x.ndim == 1 else x for name, x in (("P", P), ("Q", Q)))
    for name, x in (("P", P), ("Q", Q)):
        if x.ndim != 2 or x.shape[0] != n or x.shape[1] < 1:
            raise InputError(f"{name} has shape {x.shape}: must be ({n}, rank) for {n} states")
    if P.shape != Q.shape:
        raise InputError(f"P has shape {P.shape}, Q {Q.shape}: must be equal")
    return P, Q


@dataclass(frozen=True, eq=False, repr=False, init=False)
class _LowRankUpdate(_Realised):
    """A = easy - P Q*: the resolvent by the Woodbury identity."""

    P: Array | None
    Q: Array | None

    @abc.abstractmethod
    def _easy(self, s: Array, X: Array) -> Array:
        """(s_k I - easy part)^{-1} X: (N, k, q)."""

    def resolvent_times(self, s: Array, X: Array) -> Array:
        """(s_k I - A)^{-1} X: (N, k, q), by the Woodbury identity."""
        if self.P is None or self.Q is None:
            return self._easy(s, X)
        solved = self._easy(s, np.concatenate([X, self.P], axis=1))
        x, y = solved[:, :, : X.shape[1]], solved[:, :, X.shape[1] :]
        # (M + P Q*)^{-1} X = x - y (I + Q* y)^{-1} Q* x with M = s - easy, x = M^{-1} X, y = M^{-1} P
        inner = np.einsum("nr,nkq->krq", self.Q.conj(), solved, optimize=True)
        small = inner[:, :, X.shape[1] :] + np.eye(self.P.shape[1])
        return x - np.einsum("nkr,krq->nkq", y, np.linalg.solve(small, inner[:, :, : X.shape[1]]), optimize=True)

    @property
    def _point_cost(self) -> int:
        rank = 0 if self.P is None else self.P.shape[1]
        return self.B.shape[0] * (self.n_inputs + rank) * 2 + self.shape[0] * self.shape[1]


@dataclass(frozen=True, eq=False, repr=False, init=False)
class LowRankStateSpace(_LowRankUpdate):
    """Diagonal plus low rank (DPLR): A = diag(poles) - P Q*.

    Args:
        poles: (N,) the diagonal part; kept as `diagonal`. Not the poles of the system.
        P: (N, r), or (N,) for rank one.
        Q: (N, r), or (N,).
        B: (N, m), or (N,).
        C: (p, N), or (N,).
        D: (p, m), a number, or None.
        dt: None for continuous time, else the step in seconds.
        closed_form: the transfer function of this very system.

    Raises:
        InputError: shapes that do not fit, N = 0, NaN or infinite entries.

    References:
        arXiv 2111.00396 (S4), whose A is diag(poles) - P Q*.
    """

    diagonal: Array

    _arguments: ClassVar[dict[str, str]] = {
        "poles": "diagonal",
        **{k: k for k in ("P", "Q", "B", "C", "D", "dt", "closed_form")},
    }

    def __init__(
        self,
        poles: Any,
        P: Any,
        Q: Any,
        B: Any,
        C: Any,
        D: Any = None,
        dt: float | None = None,
        closed_form: TransferFunction | None = None,
    ):
        diagonal = _diagonal(poles)
        P, Q = _low_rank(P, Q, diagonal.size)
        self._store(diagonal=diagonal, P=P, Q=Q)
        self._store_ports(diagonal.size, B, C, D, dt, closed_form)

    @property
    def state_matrix(self) -> Array:
        """A as a dense (N, N) array."""
        assert self.P is not None
        assert self.Q is not None
        return np.diag(self.diagonal) - self.P @ self.Q.conj().T

    def _easy(self, s: Array, X: Array) -> Array:
        return X[:, None, :] / (s[None, :, None] - self.diagonal[:, None, None])

    def conjugate(self) -> LowRankStateSpace:
        """The system with complex-conjugate matrices."""
        parts = {k: np.conj(getattr(self, a)) for k, a in self._arguments.items() if k not in ("dt", "closed_form")}
        return LowRankStateSpace(**parts, dt=self.dt, closed_form=self._closed("conjugate"))

    def adjoint(self) -> LowRankStateSpace:
        """The dual system (A*, C*, B*, D*)."""
        return LowRankStateSpace(
            self.diagonal.conj(), self.Q, self.P, self.C.conj().T, self.B.conj().T, self.D.conj().T, self.dt,
            self._closed("adjoint"),
        )  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False, init=False)
class TriangularStateSpace(_LowRankUpdate):
    """Lower triangular, plus low rank where given: A = L - P Q*. Values by forward substitution.

    HiPPO matrices are of this kind. Substitution is backward stable, where their eigenvalues are out of reach of double
    precision from N of about 20.

    Args:
        A: (N, N), the lower triangular part L; kept as `triangle`.
        B: (N, m), or (N,).
        C: (p, N), or (N,).
        D: (p, m), a number, or None.
        dt: None for continuous time, else the step in seconds.
        P: (N, r), or (N,) for rank one; None without low rank.
        Q: (N, r), or (N,).
        closed_form: the transfer function of this very system.

    Raises:
        InputError: entries above the diagonal, shapes that do not fit, N = 0, NaN or infinite entries.
    """

    triangle: Array

    _arguments: ClassVar[dict[str, str]] = {
        "A": "triangle",
        **{k: k for k in ("B", "C", "D", "dt", "P", "Q", "closed_form")},
    }

    def __init__(
        self,
        A: Any,
        B: Any,
        C: Any,
        D: Any = None,
        dt: float | None = None,
        P: Any = None,
        Q: Any = None,
        closed_form: TransferFunction | None = None,
    ):
        triangle = _square("A", A)
        above = np.argwhere(np.triu(triangle, 1))
        if above.size:
            i, j = (int(k) for k in above[0])
            raise InputError(f"A[{i}, {j}] is {triangle[i, j]}: must be lower triangular; StateSpace takes any matrix")
        if (P is None) != (Q is None):
            raise InputError("one of P and Q is None: give both for A = L - P Q*, or neither")
        if P is not None:
            P, Q = _low_rank(P, Q, triangle.shape[0])
        self._store(triangle=triangle, P=P, Q=Q)
        self._store_ports(triangle.shape[0], B, C, D, dt, closed_form)

    def observed(self) -> TriangularStateSpace:
        """The same transfer function without the states that no output sees.

        State k of a lower triangular system drives only states k and later: behind the last state that C reads nothing
        matters. Output n of HiPPO-LegS is a system of n + 1 states.
        """
        if self.P is not None:
            return self
        last = int(np.flatnonzero(self.C.any(axis=0)).max(initial=0)) + 1
        if last == self.B.shape[0]:
            return self
        return TriangularStateSpace(
            self.triangle[:last, :last], self.B[:last], self.C[:, :last], self.D, self.dt, closed_form=self.closed_form
        )

    @property
    def state_matrix(self) -> Array:
        """A as a dense (N, N) array."""
        if self.P is None or self.Q is None:
            return self.triangle
        return self.triangle - self.P @ self.Q.conj().T

    def _eigenvalues(self) -> Array:
        return np.diag(self.triangle).copy() if self.P is None else np.linalg.eigvals(self.state_matrix)

    def _easy(self, s: Array, X: Array) -> Array:
        return shifted_solve(self.triangle, X, s, lower=True)

    def conjugate(self) -> TriangularStateSpace:
        """The system with complex-conjugate matrices."""
        parts = {k: getattr(self, a) for k, a in self._arguments.items() if k not in ("dt", "closed_form")}
        parts = {k: None if x is None else np.conj(x) for k, x in parts.items()}
        return TriangularStateSpace(**parts, dt=self.dt, closed_form=self._closed("conjugate"))

    def adjoint(self) -> TriangularStateSpace | StateSpace:
        """The dual system (A*, C*, B*, D*), states in reverse order so that it is lower triangular too."""
        flip = slice(None, None, -1)
        return TriangularStateSpace(
            self.triangle.conj().T[flip, flip],
            self.C.conj().T[flip],
            self.B.conj().T[:, flip],
            self.D.conj().T,
            self.dt,
            None if self.Q is None else self.Q[flip],
            None if self.P is None else self.P[flip],
            self._closed("adjoint"),
        )
