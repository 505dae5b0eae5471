"""Convolution kernels, impulse and step responses.

The kernel of a discrete system is K_k = C A^k B, k >= 0. Three structured routes:

- diagonal: a Vandermonde product, K_k = sum_j c_j b_j pole_j^k, built from short powers times long strides, so that
  neither a (length, N) array nor `length` dependent multiplications are needed;
- diagonal plus low rank, or triangular: the truncated generating function sum_{k<L} K_k z^{-k} at the L-th roots of
  unity (arXiv 2111.00396, the Woodbury and Cauchy route of S4), then one FFT;
- dense: powers by doubling.
"""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from ssmtheory.errors import InputError, nearest
from ssmtheory.lti.algebra import total
from ssmtheory.lti.base import BLOCK_BYTES, LTI
from ssmtheory.lti.discretize import zoh_factors
from ssmtheory.lti.errors import NoRealization
from ssmtheory.lti.systems import DiagonalStateSpace, StateSpace, _Realised
from ssmtheory.lti.transfer import TransferFunction
from ssmtheory.scan.lti import power_sums
from ssmtheory.typing import Array

__all__ = ["generating_function", "impulse_response", "kernel", "step_response", "vandermonde"]


def _length(length: Any) -> int:
    if isinstance(length, bool) or not isinstance(length, numbers.Integral) or length < 1:
        raise InputError(f"length={length!r}: must be a number of steps, at least 1")
    return int(length)


def vandermonde(poles: Array, coefficients: Array, length: int) -> Array:
    """sum_j coefficients[j] poles[j]^k for k < length.

    See :func:`ssmtheory.scan.lti.power_sums`, of which this is the form with poles in common, in blocks.

    Args:
        poles: (N,) complex.
        coefficients: (N, r) complex.
        length: number of powers.

    Returns:
        (length, r) complex128.
    """
    length = _length(length)
    n, rank = coefficients.shape
    out = np.empty((length, rank), dtype=np.complex128)
    # each output needs (side, N) powers of its own
    step = max(1, BLOCK_BYTES // (16 * n * (math.isqrt(length) + 1)))
    for start in range(0, rank, step):
        part = slice(start, start + step)
        out[:, part] = power_sums(poles, coefficients[:, part].T, length).T
    return out


def generating_function(system: LTI, z: Array, length: int) -> Array:
    """Truncated generating function sum_{k < length} K_k z^{-k} of the kernel of a discrete system.

    C (I - A^L z^{-L}) (I - A / z)^{-1} B, whose resolvent is that of the transfer function; at the L-th roots of unity
    the factor z^{-L} is 1.

    Args:
        system: a discrete realisation.
        z: (k,) points with z^length = 1.
        length: L.

    Returns:
        (k, p, m) complex128.

    Raises:
        InputError: a continuous system.
        NoRealization: no matrices.

    References:
        arXiv 2111.00396 (S4): the kernel through its truncated generating function.
    """
    length = _length(length)
    if system.dt is None:
        raise InputError("the system is continuous: discretize(dt, method) it first")
    if not isinstance(system, _Realised):
        system = system.to_dense()
    if isinstance(system, DiagonalStateSpace):
        system = system.expand()
    A = system.state_matrix
    C = system.C - system.C @ np.linalg.matrix_power(A, length)
    cost = max(1, BLOCK_BYTES // (16 * system._point_cost))
    out = np.empty((z.size, *system.shape), dtype=np.complex128)
    for start in range(0, z.size, cost):
        part = z[start : start + cost]
        x = system.resolvent_times(part, system.B)
        out[start : start + cost] = part[:, None, None] * np.einsum("pn,nkm->kpm", C, x, optimize=True)
    return out


def kernel(system: LTI, length: int, method: str = "auto") -> Array:
    """Convolution kernel K_k = C A^k B of a discrete system; D is not part of it.

    Args:
        system: a discrete realisation.
        length: number of steps L.
        method: "auto", "vandermonde" (diagonal only), "cauchy" (generating function at roots of unity), "powers".

    Returns:
        (L, p, m) complex128; y_k = sum_{l < k} K_{k-1-l} u_l + D u_k.

    Raises:
        InputError: a continuous system, a length below 1, an unknown method.
        NoRealization: only the transfer function is known.

    >>> from ssmtheory.lti.systems import DiagonalStateSpace
    >>> kernel(DiagonalStateSpace([0.5], [1], [1], dt=1.0), 4)[:, 0, 0].real.tolist()
    [1.0, 0.5, 0.25, 0.125]
    """
    methods = ("auto", "vandermonde", "cauchy", "powers")
    if method not in methods:
        raise InputError(f"method={method!r}: must be one of {', '.join(methods)}.{nearest(method, methods)}")
    length = _length(length)
    if system.dt is None:
        raise InputError(
            "the system is continuous: its kernel needs a step, discretize(dt, method); or impulse_response(t)"
        )
    terms = getattr(system, "terms", None)
    if terms is not None:
        return total(c * kernel(t, length, method) for c, t in terms)
    if isinstance(system, DiagonalStateSpace) and method in ("auto", "vandermonde"):
        p, m = system.shape
        coefficients = (system.C.T[:, :, None] * system.B[:, None, :]).reshape(-1, p * m)
        values = vandermonde(system.diagonal, coefficients, length)
        if system.conjugate_pairs:
            values = 2 * values.real + 0j
        return values.reshape(length, p, m)
    if method == "vandermonde":
        raise InputError(f"method='vandermonde' needs a diagonal system, not {type(system).__name__}: must be 'auto'")
    if isinstance(system, TransferFunction):
        raise NoRealization("a TransferFunction has no matrices: its kernel needs a realisation")
    if method == "cauchy":
        roots = np.exp(2j * np.pi * np.arange(length) / length)
        return np.fft.ifft(generating_function(system, roots, length), axis=0)
    dense = system.to_dense()
    return _dense_kernel(dense, length)


def _dense_kernel(system: StateSpace, length: int) -> Array:
    """C A^{q S} times A^r B: two chains of about sqrt(length) products."""
    side = max(1, math.isqrt(length))
    count = -(-length // side)
    right = [system.B]
    for _ in range(side - 1):
        right.append(system.A @ right[-1])
    stride = np.linalg.matrix_power(system.A, side)
    left = [system.C]
    for _ in range(count - 1):
        left.append(left[-1] @ stride)
    p, m = system.shape
    table = np.concatenate(left) @ np.concatenate(right, axis=1)  # (count p, side m)
    return table.reshape(count, p, side, m).transpose(0, 2, 1, 3).reshape(count * side, p, m)[:length]


def _times(system: LTI, t: Any) -> Array:
    t = np.asarray(t)
    if t.dtype.kind not in "biuf" or t.ndim != 1 or t.size == 0:
        raise InputError(f"t has dtype {t.dtype} and shape {t.shape}: must be real, (k,)")
    if not np.isfinite(t).all() or (t < 0).any():
        raise InputError("t must be finite and not negative: the responses are causal")
    if system.dt is not None:
        steps = np.rint(t / system.dt)
        if (np.abs(t - steps * system.dt) > 1e-9 * np.maximum(t, system.dt)).any():
            raise InputError(f"t must be multiples of dt={system.dt:g} s for a discrete system")
        return steps.astype(np.int64)
    return t.astype(np.float64)


def impulse_response(system: LTI, t: Array) -> Array:
    """Impulse response without its delta at 0: C exp(tA) B, or the samples D, C B, C A B, ... of a discrete system.

    Args:
        system: a realisation.
        t: (k,) times in s, not negative; multiples of dt for a discrete system.

    Returns:
        (k, p, m) complex128.

    Raises:
        InputError: times that cannot be.
        NoRealization: only the transfer function is known.
    """
    times = _times(system, t)
    if system.dt is not None:
        values = np.concatenate([system.transfer.direct[None], kernel(system, max(1, int(times.max())))])
        return values[times]
    return _continuous(system, times, step=False)


def step_response(system: LTI, t: Array) -> Array:
    """Response, from rest, to a unit step in each input.

    Args:
        system: a realisation.
        t: (k,) times in s, not negative; multiples of dt for a discrete system.

    Returns:
        (k, p, m) complex128, D included.

    Raises:
        InputError: times that cannot be.
        NoRealization: only the transfer function is known.
    """
    times = _times(system, t)
    if system.dt is not None:
        values = np.concatenate([system.transfer.direct[None], kernel(system, max(1, int(times.max())))])
        return np.cumsum(values, axis=0)[times]
    return _continuous(system, times, step=True) + system.transfer.direct


def _continuous(system: LTI, t: Array, step: bool) -> Array:
    terms = getattr(system, "terms", None)
    if terms is not None:
        return total(c * _continuous(part, t, step) for c, part in terms)
    if isinstance(system, DiagonalStateSpace):
        out = np.empty((t.size, *system.shape), dtype=np.complex128)
        size = max(1, BLOCK_BYTES // (16 * system.diagonal.size))
        for start in range(0, t.size, size):
            exponential, integral = zoh_factors(system.diagonal, t[start : start + size, None])
            weight = integral if step else exponential
            for j in range(system.n_inputs):
                out[start : start + size, :, j] = (weight * system.B[:, j]) @ system.C.T
        return 2 * out.real + 0j if system.conjugate_pairs else out
    dense = system.to_dense()
    n, m = dense.B.shape
    # a step is an integrator in front: exp of [[A, B], [0, 0]]
    A = np.block([[dense.A, dense.B], [np.zeros((m, n + m))]]) if step else dense.A
    start_ = np.concatenate([np.zeros((n, m)), np.eye(m)]) if step else dense.B
    C = np.concatenate([dense.C, np.zeros((dense.C.shape[0], m))], axis=1) if step else dense.C
    order = np.argsort(t, kind="stable")
    out = np.empty((t.size, *system.shape), dtype=np.complex128)
    from scipy.linalg import expm

    x, now, last = start_.astype(np.complex128), 0.0, -1.0
    power: Array = np.eye(A.shape[0])
    for k in order:
        gap = float(t[k]) - now
        if gap > 0:
            # steps of one size share their exponential; they differ by the rounding of the times
            if abs(gap - last) > 2 * np.spacing(abs(float(t[k]))):
                power, last = expm(gap * A), gap
            x, now = power @ x, float(t[k])
        out[k] = C @ x
    return out
