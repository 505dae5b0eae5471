"""Hankel singular values and balanced truncation, from factors of the Gramians.

Factors, not Gramians: the singular values of L_o* L_c are accurate relative to the largest one to about machine
precision, where the square roots of the eigenvalues of W_c W_o lose half of the digits.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.lti.base import LTI
from ssmtheory.lti.norms import _cayley, _need_stable
from ssmtheory.lti.systems import DiagonalStateSpace, StateSpace
from ssmtheory.typing import Array

__all__ = ["Reduction", "balanced_truncation", "cauchy_factor", "gramian_factor", "hankel_singular_values"]


@dataclass(frozen=True)
class Reduction:
    """A reduced system and what it costs.

    Attributes:
        system: the reduced `StateSpace`.
        error_bound: bound of the H-infinity norm of the difference, twice the sum of the neglected singular values.
        hankel_singular_values: (N,) of the full system, largest first.
    """

    system: StateSpace
    error_bound: float
    hankel_singular_values: Array


def _compress(Z: Array) -> Array:
    """A factor with at most N columns (rows N) and the same Z Z*."""
    if Z.shape[1] <= Z.shape[0]:
        return Z
    r: Array = np.linalg.qr(Z.conj().T, mode="r")
    return r.conj().T


def gramian_factor(A: Array, B: Array, dt: float | None = None) -> Array:
    """Z with W = Z Z*, where A W + W A* + B B* = 0 (or W = A W A* + B B*); W itself is never formed.

    Continuous time: Newton's iteration for the matrix sign function, A <- (A/c + c A^{-1})/2 with its right-hand side
    kept as a factor and compressed by QR. Discrete time: doubling, W = sum A^k B B* A^k*.

    Args:
        A: (N, N) stable.
        B: (N, m).
        dt: None for the continuous equation.

    Returns:
        (N, r) complex128, r <= N.

    Raises:
        InputError: the iteration does not converge (A is not stable, or so nearly).

    References:
        J. D. Roberts, Linear model reduction and solution of the algebraic Riccati equation by use of the sign
        function, International Journal of Control 32 (1980).
    """
    n = A.shape[0]
    E: Array = np.array(A, dtype=np.complex128)
    Z: Array = np.array(B, dtype=np.complex128)
    if dt is not None:
        for _ in range(80):
            Z = _compress(np.concatenate([Z, E @ Z], axis=1))
            E = E @ E
            if np.linalg.norm(E) < 1e-17:
                return Z
            if not np.isfinite(E).all():
                break
        raise InputError("the Gramian's doubling does not converge: the system is unstable, or nearly so")
    change = math.inf
    for _ in range(100):
        try:
            inverse = np.linalg.inv(E)
        except np.linalg.LinAlgError as error:
            raise InputError("A is singular: a stable continuous system has no pole at 0") from error
        # near the end the scaling must be 1 for the convergence to be quadratic
        c = math.sqrt(np.linalg.norm(E) / np.linalg.norm(inverse)) if change > 0.1 else 1.0
        Z = _compress(np.concatenate([Z / math.sqrt(c), math.sqrt(c) * (inverse @ Z)], axis=1) / math.sqrt(2))
        following = (E / c + c * inverse) / 2
        change = float(np.linalg.norm(following - E) / np.linalg.norm(following))
        E = following
        if float(np.linalg.norm(E + np.eye(n))) < 1e-10 * n:
            return Z / math.sqrt(2)
        if not np.isfinite(E).all():
            break
    raise InputError("the sign iteration does not converge: A has a pole on, or very near, the imaginary axis")


def cauchy_factor(poles: Array, b: Array, dt: float | None = None) -> Array:
    """Z with W = Z Z* for a diagonal system with one input: W_jk = -b_j conj(b_k) / (p_j + conj(p_k)).

    Cholesky's method with pivoting. Each step leaves a matrix of the same kind, whose b has been multiplied by a
    Blaschke factor, so that no entry suffers cancellation and the rank is known to full precision.

    Args:
        poles: (N,) stable.
        b: (N,).
        dt: None for continuous time; else W_jk = b_j conj(b_k) / (1 - p_j conj(p_k)).

    Returns:
        (N, r) complex128, with r the numerical rank of the factor.

    References:
        J. Demmel, Accurate singular value decompositions of structured matrices, SIAM Journal on Matrix Analysis and
        Applications 21 (1999): products and quotients of differences lose no digits.
    """
    b = np.array(b, dtype=np.complex128)
    margin = -2 * poles.real if dt is None else 1 - np.abs(poles) ** 2
    columns: list[Array] = []
    largest = 0.0
    for _ in range(poles.size):
        pivots = np.abs(b) ** 2 / margin
        i = int(np.argmax(pivots))
        largest = max(largest, float(pivots[i]))
        if pivots[i] <= 1e-36 * largest or pivots[i] == 0:
            break
        distance = -(poles + np.conj(poles[i])) if dt is None else 1 - poles * np.conj(poles[i])
        columns.append(b * np.conj(b[i]) / distance / math.sqrt(pivots[i]))
        b = b * (poles - poles[i]) / distance
    return np.stack(columns, axis=1) if columns else np.zeros((poles.size, 1), dtype=np.complex128)


def _diagonal_factor(poles: Array, B: Array, dt: float | None) -> Array:
    """The same for several inputs, whose Gramians add up."""
    return _compress(np.concatenate([cauchy_factor(poles, B[:, j], dt) for j in range(B.shape[1])], axis=1))


def _factors(system: LTI) -> tuple[StateSpace, Array, Array]:
    _need_stable(system, "a Hankel singular value")
    dense = system.to_dense()
    balance = math.sqrt((np.linalg.norm(dense.C) or 1.0) / (np.linalg.norm(dense.B) or 1.0))
    B, C = dense.B * balance, dense.C / balance
    if isinstance(system, DiagonalStateSpace) and max(system.shape) <= 8:
        # cheap while inputs and outputs are few; their factors are compressed together
        poles = np.diag(dense.A)
        return dense, _diagonal_factor(poles, B, dense.dt), _diagonal_factor(poles.conj(), C.conj().T, dense.dt)
    if dense.dt is not None:
        # same Gramians, and a sign iteration in place of slow doubling
        turned = _cayley(StateSpace(dense.A, B, C, dense.D))
        return dense, gramian_factor(turned.A, turned.B), gramian_factor(turned.A.conj().T, turned.C.conj().T)
    return dense, gramian_factor(dense.A, B), gramian_factor(dense.A.conj().T, C.conj().T)


def hankel_singular_values(system: LTI) -> Array:
    """Hankel singular values: square roots of the eigenvalues of W_c W_o.

    Args:
        system: a stable realisation.

    Returns:
        (N,) float64, largest first.

    Raises:
        UnstableSystem: an unstable system.
        NoRealization: only the transfer function is known.
    """
    dense, reach, watch = _factors(system)
    values = np.linalg.svd(watch.conj().T @ reach, compute_uv=False)
    return np.concatenate([values, np.zeros(dense.state_dim)])[: dense.state_dim]


def balanced_truncation(system: LTI, order: Any) -> Reduction:
    """Balanced truncation by the square-root method.

    Args:
        system: a stable realisation.
        order: states to keep, 1 to N; no more than there are nonzero Hankel singular values.

    Returns:
        `Reduction`; its system is stable, and its H-infinity error is at most `error_bound`.

    Raises:
        UnstableSystem: an unstable system.
        InputError: an order out of range, or beyond the numerical rank of the Hankel operator.

    >>> from ssmtheory.lti.systems import DiagonalStateSpace
    >>> full = DiagonalStateSpace([-1, -10], [1, 1], [1, 0.01])
    >>> reduced = balanced_truncation(full, 1)
    >>> reduced.system.state_dim, (full - reduced.system).hinf_norm().value <= reduced.error_bound * (1 + 1e-9)
    (1, True)
    """
    dense, reach, watch = _factors(system)
    n = dense.state_dim
    if isinstance(order, bool) or not isinstance(order, numbers.Integral) or not 1 <= int(order) <= n:
        raise InputError(f"order={order!r}: must be 1 to {n}")
    order = int(order)
    u, values, vh = np.linalg.svd(watch.conj().T @ reach)
    rank = int((values > values[0] * np.finfo(float).eps * n).sum()) if values[0] > 0 else 0
    if order > rank:
        raise InputError(f"order={order}: the Hankel operator has numerical rank {rank}; keep at most that many states")
    root = 1 / np.sqrt(values[:order])
    left = (watch @ u[:, :order]) * root
    right = (reach @ vh[:order].conj().T) * root
    balance = math.sqrt((np.linalg.norm(dense.C) or 1.0) / (np.linalg.norm(dense.B) or 1.0))
    reduced = StateSpace(
        left.conj().T @ dense.A @ right, left.conj().T @ dense.B * balance, dense.C @ right / balance, dense.D, dense.dt
    )
    full = np.concatenate([values, np.zeros(n)])[:n]
    return Reduction(reduced, float(2 * full[order:].sum()), full)
