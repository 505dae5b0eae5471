"""Triangular systems with many shifts, (s_k I - T) X_k = R, solved together at the speed of a matrix product."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ssmtheory.typing import Array

__all__ = ["blockwise", "shifted_solve"]

#: Rows that are substituted one by one between two matrix products.
_ROWS = 32


def shifted_solve(T: Array, rhs: Array, shifts: Array, *, lower: bool = False) -> Array:
    """Solve (s_k I - T) X_k = R_k by substitution, for all shifts at once.

    Backward stable for each shift, as substitution is; the work is N^2 k q multiplications, most of them in matrix
    products that the shifts share.

    Args:
        T: (N, N) triangular; the other triangle is not read.
        rhs: (N, q), one right-hand side for all shifts, or (N, k, q).
        shifts: (k,).
        lower: whether T is lower triangular.

    Returns:
        (N, k, q) complex128.
    """
    if lower:
        return shifted_solve(T[::-1, ::-1], rhs[::-1], shifts)[::-1]
    n, k, q = T.shape[0], shifts.size, rhs.shape[-1]
    x = np.empty((n, k, q), dtype=np.complex128)
    full = rhs.ndim == 3
    for stop in range(n, 0, -_ROWS):
        start = max(0, stop - _ROWS)
        part = rhs[start:stop] if full else np.broadcast_to(rhs[start:stop, None, :], (stop - start, k, q))
        known = (T[start:stop, stop:] @ x[stop:].reshape(n - stop, k * q)).reshape(stop - start, k, q) + part
        for i in range(stop - 1, start - 1, -1):
            row = known[i - start]
            if i + 1 < stop:
                row = row + np.tensordot(T[i, i + 1 : stop], x[i + 1 : stop], axes=1)
            x[i] = row / (shifts - T[i, i])[:, None]
    return x


def blockwise(function: Callable[[Array], Array], points: Array, size: int) -> Array:
    """`function` of at most `size` points at a time, concatenated along the first axis."""
    if points.size <= size:
        return function(points)
    return np.concatenate([function(points[start : start + size]) for start in range(0, points.size, size)])
