"""HiPPO matrices from one exact definition, their parts, and LegS in closed form.

LegS is defined once, by integers: with x_n = sqrt(2n+1) y_n the square roots drop out of A and B. The float matrix, the
symbolic derivation and the certificate all start from `legs_integer`. LegS needs no matrix at all where its transfer
vector is wanted: X_n(s) = sqrt(2n+1) Y_n(s) with a two-term recurrence, and on the imaginary axis modulus and phase are
elementary, so that a value costs O(1) in the number of states.

| here | symbol | meaning |
|---|---|---|
| `legs` | A_H, B | HiPPO-LegS |
| `nplr` | A_N, P, B | normal part A_N = A_H + P P^T, P = B / sqrt(2) |
| `phi` | phi_N(s) | prod_{k<N} (s - k)/(s + k + 1) = 1 - B^T (s - A_H)^{-1} B |
| `transfer` | X(s) | (s - A_H)^{-1} B |
| `spectrum` | y_m | positive imaginary parts of the eigenvalues -1/2 +- i y_m of A_N |

Papers: HiPPO arXiv 2008.07669, S4 arXiv 2111.00396, S4D arXiv 2206.11893, HTTYH arXiv 2206.12037.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ssmtheory.errors import InputError

__all__ = [
    "legs",
    "legs_integer",
    "legs_normal_fraction",
]


def check_size(N: int, least: int = 1, name: str = "N") -> int:
    """A number of states that can be used.

    Args:
        N: the number given.
        least: the smallest allowed one.
        name: how the message calls it.

    Returns:
        N as an int.

    Raises:
        InputError: not an integer, or below `least`.
    """
    if isinstance(N, bool) or not isinstance(N, int | np.integer) or least > N:
        raise InputError(f"{name}={N!r}: must be an integer of at least {least}")
    return int(N)


def legs_integer(N: int) -> tuple[list[list[int]], list[int]]:
    """HiPPO-LegS in the scaling x_n = sqrt(2n+1) y_n, where every entry is an integer.

    A'_nk = -(2k+1) below the diagonal, -(n+1) on it, 0 above; B' = 1. The matrix in the orthonormal basis is
    D A' D^{-1}, B = D B' with D = diag sqrt(2n+1).

    Args:
        N: number of states, at least 1.

    Returns:
        (A', B'): A' an N-list of N-lists of int, B' an N-list of int.

    Raises:
        InputError: N is not a positive integer.

    >>> legs_integer(3)
    ([[-1, 0, 0], [-1, -2, 0], [-1, -3, -3]], [1, 1, 1])
    """
    size = check_size(N)
    rows = [[-(2 * k + 1) if k < n else -(n + 1) if k == n else 0 for k in range(size)] for n in range(size)]
    return rows, [1] * size


def legs_normal_fraction(N: int) -> list[list[Fraction]]:
    """The normal part A_N = A_H + P P^T of LegS in the scaling of `legs_integer`.

    Args:
        N: number of states, at least 1.

    Returns:
        N-list of N-lists of Fraction: -(2k+1)/2 below the diagonal, -1/2 on it, (2k+1)/2 above.

    Raises:
        InputError: N is not a positive integer.

    >>> [[str(x) for x in row] for row in legs_normal_fraction(2)]
    [['-1/2', '3/2'], ['-1/2', '-1/2']]
    """
    rows, _ = legs_integer(N)
    return [[Fraction(entry) + Fraction(2 * k + 1, 2) for k, entry in enumerate(row)] for row in rows]


def legs(N: int) -> tuple[np.ndarray, np.ndarray]:
    """HiPPO-LegS in the orthonormal basis.

    A_nk = -sqrt((2n+1)(2k+1)) for n > k, -(n+1) for n = k, 0 above; B_n = sqrt(2n+1) (HiPPO, arXiv 2008.07669).

    Args:
        N: number of states, at least 1.

    Returns:
        A (N, N) and B (N,), float64. Each entry is correctly rounded.

    Raises:
        InputError: N is not a positive integer.

    >>> A, B = legs(2)
    >>> bool(abs(A + A.T + np.eye(2) + np.outer(B, B)).max() < 1e-15)   # A + A^T = -I - B B^T
    True
    """
    odd = 2 * np.arange(check_size(N)) + 1
    A = np.tril(-np.sqrt(np.multiply.outer(odd, odd).astype(np.float64)), -1)
    np.fill_diagonal(A, -(odd + 1) / 2)
    return A, np.sqrt(odd.astype(np.float64))
