"""The linear time-invariant system, and what any such system can be asked.

| here | in the literature |
|---|---|
| `state_dim`, `n_outputs`, `n_inputs` | N, p, m |
| `system(s)` | transfer matrix G(s) = C (s I - A)^{-1} B + D; for a discrete system the argument is z |
| `dt` | None for continuous time, else the step in seconds |
| `transfer` | the closed form of G with bounds on its variation along the frequency axis |

Everything is complex128. A difference of systems is a system, so that the norm of a gap is an ordinary norm.
"""

from __future__ import annotations

import abc
import math
import numbers
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.lti.errors import MixedTimeBases
from ssmtheory.typing import Array

if TYPE_CHECKING:
    from typing import Self

    from ssmtheory.lti.norms import HinfNorm
    from ssmtheory.lti.reduction import Reduction
    from ssmtheory.lti.systems import DiagonalStateSpace, StateSpace
    from ssmtheory.lti.transfer import TransferFunction

__all__ = ["LTI", "Index"]

#: What selects outputs or inputs: an integer, a slice, a list of integers or of booleans.
Index: TypeAlias = Any

#: Most bytes that one block of an evaluation over frequencies may hold.
BLOCK_BYTES = 32 * 2**20


def frozen(array: Array) -> Array:
    """A read-only view-safe copy of an array, contiguous."""
    copy = np.array(array, order="C")
    copy.setflags(write=False)
    return copy


def as_complex(name: str, value: Any, ndim: int | None = None) -> Array:
    """`value` as a read-only complex128 array whose entries are finite.

    Args:
        name: what the message calls it.
        value: anything NumPy or scipy.sparse makes an array of.
        ndim: number of axes it must have; None for any.

    Raises:
        InputError: not numeric, NaN or infinite entries, or another number of axes.
    """
    if hasattr(value, "toarray"):  # scipy.sparse
        value = value.toarray()
    array = np.asarray(value)
    if array.dtype.kind not in "biufc":
        raise InputError(f"{name} has dtype {array.dtype}: must be numeric (for exact entries see lti.conditioning)")
    array = array.astype(np.complex128)
    if ndim is not None and array.ndim != ndim:
        raise InputError(f"{name} has shape {array.shape}: must have {ndim} axes")
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"{name}{list(where)} is {array[where]}: every entry must be finite")
    return frozen(array)


def check_dt(dt: Any) -> float | None:
    """A step size as a positive float, or None for continuous time.

    Raises:
        InputError: zero, negative, infinite or not a number. A boolean is refused too: there is no unspecified step.
    """
    if dt is None:
        return None
    if isinstance(dt, bool) or not isinstance(dt, numbers.Real) or not 0 < float(dt) < math.inf:
        raise InputError(f"dt={dt!r}: must be None (continuous time) or a step in seconds, > 0")
    return float(dt)


def common_dt(a: LTI, b: LTI) -> float | None:
    """The step that two systems share.

    Raises:
        MixedTimeBases: they do not share one.
    """
    if a.dt != b.dt:
        names = ["continuous" if x.dt is None else f"discrete with dt={x.dt!r} s" for x in (a, b)]
        raise MixedTimeBases(
            f"one system is {names[0]}, the other {names[1]}: discretize(dt, method) one of them first, "
            "so that both have the same dt"
        )
    return a.dt


def indices(index: Index, size: int, what: str) -> Array:
    """An index as an array of non-negative integers (q,); a single integer keeps its axis.

    Raises:
        InputError: out of range, or selects nothing.
    """
    if isinstance(index, numbers.Integral) and not isinstance(index, bool):
        number = int(index)
        if not -size <= number < size:
            raise InputError(f"{what} {number}: the system has {size}, numbered 0 to {size - 1}")
        return np.array([number % size])
    try:
        found = np.atleast_1d(np.arange(size)[index])
    except IndexError as error:
        raise InputError(f"{what}s {index!r}: the system has {size}, numbered 0 to {size - 1}") from error
    if found.ndim != 1 or found.size == 0:
        raise InputError(f"{what}s {index!r}: must select at least one, along one axis")
    return found


class LTI(abc.ABC):
    """A linear time-invariant system x' = A x + B u, y = C x + D u, or its discrete counterpart.

    Subclasses: `StateSpace`, `DiagonalStateSpace`, `LowRankStateSpace`, `TriangularStateSpace`, `TransferFunction`, and
    the lazy results of the algebra. All are immutable.

    Attributes:
        shape: (p, m), outputs and inputs.
        dt: None for continuous time, else the step in seconds.
    """

    __array_ufunc__ = None  # so that ndarray @ system reaches __rmatmul__

    shape: tuple[int, int]
    dt: float | None

    # -- what a kind of system says of itself

    @property
    @abc.abstractmethod
    def state_dim(self) -> int | None:
        """Number of states N of the realisation; None where there is none (a closed form, N may be infinite)."""

    @abc.abstractmethod
    def _evaluate(self, s: Array, outputs: Array) -> Array:
        """G at the points s (k,), rows `outputs` (q,) only: (k, q, m)."""

    @abc.abstractmethod
    def _select(self, outputs: Array, inputs: Array) -> LTI: ...

    @abc.abstractmethod
    def poles(self) -> Array:
        """Poles of the realisation (eigenvalues of A), complex128, in no particular order.

        Raises:
            NoRealization: a closed form that was given without its poles.
        """

    @abc.abstractmethod
    def to_dense(self) -> StateSpace:
        """The same system as one `StateSpace` of dense matrices.

        Raises:
            NoRealization: only the transfer function is known.
        """

    @abc.abstractmethod
    def conjugate(self) -> LTI:
        """The system with complex-conjugate matrices: s -> conj(G(conj(s))). Its impulse response is the conjugate."""

    @abc.abstractmethod
    def adjoint(self) -> LTI:
        """The dual system (A*, C*, B*, D*): s -> G(conj(s))*. Controllability and observability change places."""

    @abc.abstractmethod
    def _transfer(self) -> TransferFunction: ...

    @cached_property
    def transfer(self) -> TransferFunction:
        """The transfer function with all that is known of it: resonances and, where there are, bounds on its slope."""
        return self._transfer()

    # -- sizes

    @property
    def n_outputs(self) -> int:
        """p, the number of outputs."""
        return self.shape[0]

    @property
    def n_inputs(self) -> int:
        """m, the number of inputs."""
        return self.shape[1]

    @property
    def is_discrete(self) -> bool:
        """Whether `dt` is a step."""
        return self.dt is not None

    @property
    def _point_cost(self) -> int:
        """Complex numbers that one frequency needs while it is evaluated."""
        return (self.state_dim or 1) * self.n_inputs + self.shape[0] * self.shape[1]

    # -- evaluation

    def __call__(self, s: complex | Array) -> Array:
        """Transfer matrix at complex points.

        Args:
            s: a point, or an array (...,) of points, of the s-plane; of the z-plane for a discrete system.

        Returns:
            (p, m) for a scalar, (..., p, m) for an array; complex128.
        """
        return self._at(np.asarray(s, dtype=np.complex128), None)

    def frequency_response(self, omega: float | Array, block: int | None = None) -> Array:
        """Transfer matrix on the imaginary axis (continuous) or the unit circle (discrete).

        Never holds more than one block of (frequency, state) numbers.

        Args:
            omega: (...,) angular frequencies in rad/s, of either sign.
            block: frequencies evaluated at once; None for as many as fit in 32 MiB.

        Returns:
            (..., p, m) complex128, G(i omega) or G(exp(i omega dt)).

        Raises:
            InputError: complex or non-finite frequencies, or a block below 1.
        """
        omega = np.asarray(omega)
        if omega.dtype.kind not in "biuf":
            raise InputError(
                f"omega has dtype {omega.dtype}: must be real, in rad/s; for complex points call system(s)"
            )
        omega = omega.astype(np.float64)
        if not np.isfinite(omega).all():
            raise InputError("omega holds NaN or inf: frequencies must be finite; the limit at infinity is D")
        if block is not None and (isinstance(block, bool) or not isinstance(block, numbers.Integral) or block < 1):
            raise InputError(f"block={block!r}: must be a number of frequencies, at least 1, or None")
        return self._at(self._axis(omega), block)

    def _axis(self, omega: Array) -> Array:
        """The points of the complex plane that belong to angular frequencies."""
        return 1j * omega if self.dt is None else np.exp(1j * omega * self.dt)

    def _at(self, points: Array, block: int | None) -> Array:
        flat = points.reshape(-1)
        every = np.arange(self.n_outputs)
        size = int(block) if block is not None else max(1, BLOCK_BYTES // (16 * max(1, self._point_cost)))
        out = np.empty((flat.size, *self.shape), dtype=np.complex128)
        for start in range(0, flat.size, size):
            out[start : start + size] = self._evaluate(flat[start : start + size], every)
        return out.reshape(*points.shape, *self.shape)

    # -- selection

    def __getitem__(self, key: Index) -> LTI:
        """Outputs, or outputs and inputs: `system[0]` has shape (1, m), `system[:, 1:]` all outputs from input 1 on."""
        outputs, inputs = key if isinstance(key, tuple) else (key, slice(None))
        return self._select(indices(outputs, self.shape[0], "output"), indices(inputs, self.shape[1], "input"))

    def __iter__(self) -> Iterator[LTI]:
        return (self[k] for k in range(self.n_outputs))

    def __len__(self) -> int:
        return self.n_outputs

    # -- algebra

    def __add__(self, other: Any) -> LTI:
        from ssmtheory.lti import algebra

        return algebra.add(self, other)

    __radd__ = __add__

    def __neg__(self) -> LTI:
        return self * -1.0

    def __sub__(self, other: Any) -> LTI:
        return self + (-other if isinstance(other, LTI) else -np.asarray(other))

    def __rsub__(self, other: Any) -> LTI:
        return -self + other

    def __mul__(self, other: Any) -> LTI:
        """Series: `a * b` feeds b's outputs to a. With a number, the gain."""
        from ssmtheory.lti import algebra

        return algebra.multiply(self, other)

    def __rmul__(self, other: Any) -> LTI:
        from ssmtheory.lti import algebra

        return algebra.scale(self, other)

    def __truediv__(self, other: complex) -> LTI:
        return self * (1 / complex(other))

    def __matmul__(self, other: Any) -> LTI:
        """`system @ matrix` mixes the inputs; `a @ b` is the series `a * b`."""
        from ssmtheory.lti import algebra

        return algebra.multiply(self, other) if isinstance(other, LTI) else algebra.mix(self, None, other)

    def __rmatmul__(self, other: Any) -> LTI:
        """`matrix @ system` mixes the outputs."""
        from ssmtheory.lti import algebra

        return algebra.mix(self, other, None)

    def feedback(self, other: Any = 1.0, sign: Literal[-1, 1] = -1) -> LTI:
        """The closed loop y = G (u + sign * K y).

        Args:
            other: K, a system with m outputs and p inputs, or a number or (m, p) matrix.
            sign: -1 for negative feedback, +1 for positive.

        Returns:
            The system (I - sign G K)^{-1} G.

        Raises:
            InputError: sizes or signs that do not fit, or a loop that is not well posed (I - sign D D_K singular).
            MixedTimeBases: different time bases.
        """
        from ssmtheory.lti import algebra

        return algebra.feedback(self, other, sign)

    # -- poles

    def spectral_abscissa(self) -> float:
        """Largest real part of a pole (continuous time), in 1/s."""
        return float(self.poles().real.max())

    def spectral_radius(self) -> float:
        """Largest modulus of a pole."""
        return float(np.abs(self.poles()).max())

    def is_stable(self) -> bool:
        """Whether every pole lies in the open left half plane, or in the open unit disc."""
        return self.spectral_abscissa() < 0 if self.dt is None else self.spectral_radius() < 1

    # -- analysis: each delegates to the module that documents the method

    def hinf_norm(self, tol: float = 1e-6, method: str = "auto", **options: Any) -> HinfNorm:
        """H-infinity norm with a bracket; see `norms.hinf_norm`."""
        from ssmtheory.lti import norms

        return norms.hinf_norm(self, tol=tol, method=method, **options)

    def linf_norm(self, tol: float = 1e-6, method: str = "auto", **options: Any) -> HinfNorm:
        """Largest gain on the frequency axis, of stable and unstable systems alike; see `norms.linf_norm`."""
        from ssmtheory.lti import norms

        return norms.linf_norm(self, tol=tol, method=method, **options)

    def h2_norm(self) -> float:
        """H2 norm, the L2 norm of the impulse response; see `norms.h2_norm`."""
        from ssmtheory.lti import norms

        return norms.h2_norm(self)

    def l2_gap(self, other: LTI) -> float:
        """L2 distance of the impulse responses of two systems; see `norms.h2_norm`."""
        from ssmtheory.lti import norms

        return norms.h2_norm(self - other)

    def gramian(self, kind: Literal["controllability", "observability"] = "controllability") -> Array:
        """Gramian (N, N); see `norms.gramian`."""
        from ssmtheory.lti import norms

        return norms.gramian(self, kind)

    def hankel_singular_values(self) -> Array:
        """Hankel singular values (N,), largest first; see `reduction.hankel_singular_values`."""
        from ssmtheory.lti import reduction

        return reduction.hankel_singular_values(self)

    def balanced_truncation(self, order: int) -> Reduction:
        """Reduced system and its error bound; see `reduction.balanced_truncation`."""
        from ssmtheory.lti import reduction

        return reduction.balanced_truncation(self, order)

    def impulse_response(self, t: Array) -> Array:
        """C exp(tA) B at times t, or C A^k B; see `kernels.impulse_response`."""
        from ssmtheory.lti import kernels

        return kernels.impulse_response(self, t)

    def step_response(self, t: Array) -> Array:
        """Response to a unit step in each input; see `kernels.step_response`."""
        from ssmtheory.lti import kernels

        return kernels.step_response(self, t)

    def kernel(self, length: int) -> Array:
        """Convolution kernel C A^k B, k < length, of a discrete system; see `kernels.kernel`."""
        from ssmtheory.lti import kernels

        return kernels.kernel(self, length)

    def discretize(self, dt: float, method: str = "zoh") -> LTI:
        """The discrete system with step dt; see `discretize.discretize`."""
        from ssmtheory.lti import discretize

        return discretize.discretize(self, dt, method)

    def diagonalize(self, **options: Any) -> DiagonalStateSpace:
        """The same system with a diagonal state matrix; see `conditioning.diagonalize`."""
        from ssmtheory.lti import conditioning

        return conditioning.diagonalize(self, **options)

    def with_(self, **changes: Any) -> Self:
        """A copy with some constructor arguments changed; a closed form is kept only if no matrix changes."""
        raise InputError(f"{type(self).__name__} has no constructor arguments to change: rebuild it from its parts")

    def __repr__(self) -> str:
        time = "" if self.dt is None else f", dt={self.dt:g}"
        states = "no realisation" if self.state_dim is None else f"{self.state_dim} states"
        return f"{type(self).__name__}({states}, {self.n_outputs} outputs, {self.n_inputs} inputs{time})"
