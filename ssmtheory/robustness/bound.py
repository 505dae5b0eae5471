"""How much the output of a linear layer can change when its input changes: upper bounds for all perturbations.

| norm | gain | from |
|---|---|---|
| "l2" | energy of the output per energy of the input | the H-infinity norm |
| "linf" | largest output value per largest input value | the l1 norm of the kernel, its tail included |

Both are attained, or approached, by some perturbation, which `lower` says. How an upper end is known is said by
`evidence`:

- "certified": a number from ball arithmetic (`ssmtheory.certify`) that was handed in;
- "rounding": sums in floating point plus a bound of every rounding error in them, for the system as its floats stand;
- "bracket": a bracket computed in floating point, its rounding errors not followed.

The l1 norm bounds the H-infinity norm, so that "rounding" is to be had for both, at the price of a wider bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.inits import LayerParameters
from ssmtheory.lti import LTI, DiagonalStateSpace, UnstableSystem
from ssmtheory.robustness.gain import sampled_layer
from ssmtheory.typing import Array

__all__ = ["KernelSum", "OutputBound", "kernel_sum", "output_bound"]

_EPS = float(np.finfo(np.float64).eps)
#: samples after which the kernel's tail is no longer waited for
_LONGEST = 4_000_000


@dataclass(frozen=True)
class OutputBound:
    """A bound of the change of a layer's output.

    Attributes:
        norm: "l2" or "linf", over time; for several features the Euclidean norm at each time, or the largest value.
        lower: a gain that some perturbation reaches, or approaches as it becomes longer.
        upper: a gain that none exceeds.
        evidence: how `upper` is known; see the module's table.
        length: the bound is for sequences of at most this length, from rest; None for all.
        omega: where the gain of "l2" is reached, in rad/s; NaN where it is not known.
    """

    norm: Literal["l2", "linf"]
    lower: float
    upper: float
    evidence: Literal["certified", "rounding", "bracket"]
    length: int | None = None
    omega: float = math.nan

    def change(self, size: float) -> float:
        """Largest change of the output in this norm for a perturbation of that size in this norm.

        Args:
            size: norm of the perturbation of the input.

        Returns:
            The bound.
        """
        return self.upper * float(size)


@dataclass(frozen=True)
class KernelSum:
    """l1 norms of the kernels of a discrete system, the direct term as first entry.

    Attributes:
        lower: (p, m) sums of the |K_k| that were computed, less the bound of their rounding errors.
        upper: (p, m) sums plus that bound and the tail.
        tail: (p, m) bound of what lies beyond `samples`; zero where a length was given.
        samples: how many entries were summed.
        rounding: whether rounding errors are bounded; else they are not followed (systems that are not diagonal).
    """

    lower: Array
    upper: Array
    tail: Array
    samples: int
    rounding: bool


def _diagonal_sum(system: DiagonalStateSpace, length: int | None, tol: float) -> KernelSum:
    full = system.expand() if not system.conjugate_pairs else system
    weight = 2.0 if system.conjugate_pairs else 1.0
    a, B, C = full.diagonal, full.B, full.C
    p, m = system.shape
    coefficients = (C.T[:, :, None] * B[:, None, :]).reshape(a.size, p * m)
    modulus = np.abs(a) * (1 + 2 * _EPS)
    if length is None and (modulus >= 1).any():
        raise UnstableSystem(
            f"the kernel of an unstable layer (spectral radius {modulus.max():.6g}) has no finite sum: pass length="
        )
    direct = np.abs(full.D).reshape(-1)
    sums, error = direct.copy(), np.zeros(p * m)
    size = weight * np.abs(coefficients) * (1 + 4 * _EPS)
    log_a = np.log(np.where(a == 0, 1e-300, a))
    done, block = 0, int(np.clip(2**21 // (a.size + p * m), 16, 4096))
    tail = np.zeros(p * m)
    while True:
        count = block if length is None else min(block, length - 1 - done)
        if count <= 0:
            break
        k = done + np.arange(count, dtype=np.float64)
        # a^k = exp(k log a): the logarithm's error grows k-fold, as the exponent does
        powers = np.exp(k[:, None] * log_a)
        values = powers @ coefficients
        values = weight * values.real if system.conjugate_pairs else values
        sums += np.abs(values).sum(axis=0)
        decay = np.exp(np.minimum(k[:, None] * np.log(np.maximum(modulus, 1e-300)), 700))
        slack = 8 * _EPS * (k[:, None] * (1 + np.abs(log_a)) + a.size + 8)
        # second orders, and the rounding of this bound, are below a millionth of it
        error += (decay * slack * (1 + 1e-6)).sum(axis=0) @ size
        done += count
        if length is None:
            tail = (modulus**done / (1 - modulus)) @ size * (1 + 1e-9)
            if (tail <= tol * np.maximum(sums, 1e-300)).all() or done >= _LONGEST:
                break
    # the sum of `done` terms, and |.| of each
    error = (error + (done + 8) * _EPS * sums) * (1 + 1e-12)
    shape = (p, m)
    return KernelSum(
        np.maximum(sums - error, 0).reshape(shape), (sums + error + tail).reshape(shape) * (1 + 4 * _EPS),
        tail.reshape(shape), done + 1, True,
    )  # fmt: skip


def _dense_sum(system: LTI, length: int | None, tol: float) -> KernelSum:
    dense = system.to_dense()
    A, B, C, D = dense.A, dense.B, dense.C, dense.D
    n, m = B.shape
    p = C.shape[0]
    if length is None and not dense.is_stable():
        raise UnstableSystem("the kernel of an unstable layer has no finite sum: pass length=")
    side = 64
    # one row of powers C A^r, and strides of `side` steps
    row = np.empty((side * p, n), dtype=np.complex128)
    current = C
    for r in range(side):
        row[r * p : (r + 1) * p] = current
        current = current @ A
    stride = np.linalg.matrix_power(A, side)
    sums, tail, x, done = np.abs(D).astype(np.float64), np.zeros((p, m)), B, 0
    # sup over r < side of ||C A^r||, for the tail
    reach = np.linalg.norm(row.reshape(side, p, n), axis=2).sum(axis=0)
    contraction = float(np.linalg.norm(stride, 2))
    power, hops = stride, 1
    while contraction >= 0.5 and hops < 2**24:
        power, hops = power @ power, 2 * hops
        contraction = float(np.linalg.norm(power, 2))
    history: list[float] = []
    while True:
        count = side if length is None else min(side, length - 1 - done)
        if count <= 0:
            break
        values = (row @ x).reshape(side, p, m)[:count]
        sums += np.abs(values).sum(axis=0)
        x = stride @ x
        done += count
        if length is not None:
            continue
        # sum_{q >= 0} ||S^q x|| <= (sum of `hops` of them) / (1 - ||S^hops||); watched at multiples of hops
        history.append(float(np.linalg.norm(x, 2)))
        if len(history) >= hops:
            recent = sum(history[-hops:]) * contraction / (1 - contraction) + history[-1]
            tail = np.outer(reach, np.full(m, recent))
            if (tail <= tol * np.maximum(sums, 1e-300)).all() or done >= _LONGEST:
                break
    return KernelSum(sums - 0.0, sums + tail, tail, done + 1, False)


def kernel_sum(system: LTI, length: int | None = None, tol: float = 1e-9) -> KernelSum:
    """l1 norms of the kernels of a discrete system: sum over k of |K_k|, the direct term included.

    For a diagonal system the sum is a computed one plus two bounds: of the tail, sum_j |c_j b_j| |a_j|^L / (1 - |a_j|),
    and of all rounding errors, a few units in the last place of each factor, k-fold for the k-th power. For other
    systems the tail is bounded by ||A^h|| < 1 for some h, and rounding errors are not followed.

    Args:
        system: a discrete realisation.
        length: entries K_0 ... K_{length-1} alone, for sequences of that length; None for all.
        tol: the tail that is left, relative to the sum.

    Returns:
        `KernelSum`.

    Raises:
        InputError: a continuous system, or a length below 1.
        UnstableSystem: an infinite sum.
    """
    if system.dt is None:
        raise InputError("the system is continuous: discretize(dt, method) it first")
    if length is not None and (isinstance(length, bool) or length < 1):
        raise InputError(f"length={length!r}: must be a number of samples, at least 1")
    if isinstance(system, DiagonalStateSpace):
        return _diagonal_sum(system, length, tol)
    return _dense_sum(system, length, tol)


def output_bound(
    target: LTI | LayerParameters,
    norm: Literal["l2", "linf"] = "l2",
    *,
    feature: int = 0,
    length: int | None = None,
    certified: Any = None,
    rounding: bool = False,
    tol: float = 1e-6,
) -> OutputBound:
    """Bound of the output change of a linear layer, for every perturbation of its input.

    Args:
        target: a system, or a layer's parameters (trained ones too), of which the discrete system is taken; a
            continuous system for "l2" only.
        norm: "l2" or "linf".
        feature: which feature of a layer; ignored with scope "layer".
        length: sequences of at most this length, from rest; lets unstable layers have a bound, and tightens "linf".
            "l2" is then the smaller of the H-infinity norm and the l1 norm of so many entries.
        certified: for "l2", the upper end of the H-infinity norm of this very system from `ssmtheory.certify`: a
            certificate, an `HinfNorm`, or a number. Where it falls below what is reached here it is refused.
        rounding: only a bound with its rounding errors followed will do: for "l2" the l1 norm of the kernel. Diagonal
            discrete systems have one.
        tol: relative width of the bracket.

    Returns:
        `OutputBound`.

    Raises:
        InputError: another norm, a continuous system where a discrete one is needed, a certified number that is below
            a gain found here, or a system whose rounding errors are not followed.
        UnstableSystem: an unstable system without a length.

    >>> from ssmtheory.lti import DiagonalStateSpace
    >>> layer = DiagonalStateSpace([0.5], [1], [1], 0, dt=1.0)
    >>> found = output_bound(layer, "linf")
    >>> round(found.lower, 6), round(found.upper, 6), found.evidence
    (2.0, 2.0, 'rounding')
    """
    if norm not in ("l2", "linf"):
        raise InputError(f"norm={norm!r}: must be 'l2' or 'linf'")
    system = sampled_layer(target, feature, length) if isinstance(target, LayerParameters) else target
    if rounding and certified is None and not (system.dt is not None and isinstance(system, DiagonalStateSpace)):
        raise InputError(
            f"rounding=True: the rounding errors of this {type(system).__name__} are not followed; diagonal discrete "
            "systems have such a bound, others one from certified="
        )
    if norm == "linf":
        if certified is not None:
            raise InputError("certified=...: an H-infinity norm says nothing about norm='linf'")
        found = kernel_sum(system, length, tol * 1e-3)
        lower, upper = (float(x.sum(axis=1).max()) for x in (found.lower, found.upper))
        return OutputBound("linf", lower, upper, "rounding" if found.rounding else "bracket", length)
    if certified is None and (rounding or (length is not None and not system.is_stable())):
        return _by_kernel(system, length, tol)
    bracket = system.hinf_norm(tol=tol)
    omega = abs(bracket.omega)
    if certified is not None:
        limit = _upper(certified)
        if limit < bracket.lower * (1 - 1e-9):
            raise InputError(
                f"certified={limit:.12g} is below the gain {bracket.lower:.12g} found at omega={omega:.6g}: it belongs "
                "to another system"
            )
        return OutputBound("l2", min(bracket.lower, limit), limit, "certified", length, omega)
    if length is not None:
        short = _by_kernel(system, length, tol)
        if short.upper < bracket.upper:
            return short
    # a sequence that ends does not reach the supremum
    return OutputBound("l2", 0.0 if length is not None else bracket.lower, bracket.upper, "bracket", length, omega)


def _by_kernel(system: LTI, length: int | None, tol: float) -> OutputBound:
    """ "l2" by Young's inequality, entry by entry: the spectral norm of the matrix of l1 norms."""
    found = kernel_sum(system, length, tol)
    upper = float(np.linalg.norm(found.upper, 2)) * (1 + 1e-12)
    return OutputBound("l2", 0.0, upper, "rounding" if found.rounding else "bracket", length)


def _upper(certified: Any) -> float:
    """The upper end of a certificate, of a bracket, or the number itself; rounded up."""
    value = getattr(certified, "upper", certified)
    if value is None:
        raise InputError("certified has no upper end: a one-sided certificate bounds nothing from above")
    number = float(value)
    if not number >= 0 or math.isinf(number):
        raise InputError(f"certified={certified!r}: must be a number >= 0, or have one as its upper end")
    return math.nextafter(number, math.inf)
