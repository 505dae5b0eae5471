"""Notation shared by the derivations, and exact matrices to confirm them with.

Everything is free of square roots: with x_n = sqrt(2n+1) y_n the matrix of LegS has integer entries, its transfer
vector is X_n = sqrt(2n+1) Y_n, and B^T X = sum (2n+1) Y_n.

| here | symbol | meaning |
|---|---|---|
| `Y(n, s)` | Y_n(s) | prod_{k<n} (s-k) / prod_{k<=n} (s+k+1), Laplace transform of e^{-t} P_n(2 e^{-t} - 1) |
| `phi(N, s)` | phi_N(s) | prod_{k<N} (s-k)/(s+k+1) = 1 - B^T (s - A_H)^{-1} B |
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import sympy as sp

from ssmtheory.errors import InputError
from ssmtheory.inits.hippo import legs_integer
from ssmtheory.symbolic.exact import falling, rising

__all__ = [
    "S4D",
    "N",
    "Y",
    "determinant",
    "j",
    "k",
    "legendre",
    "m",
    "n",
    "normal_integer",
    "omega",
    "outer",
    "phi",
    "quadratic",
    "s",
    "shifted",
    "solve",
    "sylvester",
    "t",
]

s = sp.Symbol("s")
t = sp.Symbol("t", nonnegative=True)
omega = sp.Symbol("omega", real=True)
n, k, j, m = sp.symbols("n k j m", integer=True, nonnegative=True)
N = sp.Symbol("N", integer=True, positive=True)

#: The parameter a of HiPPO-rho for which it is S4D.
S4D = sp.Integer(1)

Rows = list[list[Fraction]]


def phi(size: sp.Expr | int = N, at: sp.Expr | int = s) -> sp.Expr:
    """phi_N(s) = prod_{k<N} (s - k)/(s + k + 1).

    Args:
        size: N, an integer or symbolic.
        at: s, any expression.

    Returns:
        A rational function for an integer size, a quotient of Gamma functions otherwise.

    >>> phi(1)
    s/(s + 1)
    """
    at = sp.sympify(at)
    return falling(at, sp.sympify(size)) / rising(at + 1, sp.sympify(size))


def Y(index: sp.Expr | int = n, at: sp.Expr | int = s) -> sp.Expr:
    """Y_n(s) = prod_{k<n} (s - k) / prod_{k<=n} (s + k + 1).

    Args:
        index: n, an integer or symbolic.
        at: s, any expression.

    Returns:
        A rational function for an integer index, a quotient of Gamma functions otherwise.

    >>> Y(1)
    s/((s + 1)*(s + 2))
    """
    at, index = sp.sympify(at), sp.sympify(index)
    return falling(at, index) / rising(at + 1, index + 1)


def legendre(index: int, x: sp.Expr) -> sp.Expr:
    """Shifted Legendre polynomial P_n(2x - 1), expanded.

    Args:
        index: n.
        x: the variable.

    Returns:
        The polynomial.

    Raises:
        InputError: n is not an integer of at least 0.
    """
    if isinstance(index, bool) or not isinstance(index, int) or index < 0:
        raise InputError(f"n={index!r}: must be an integer of at least 0")
    return sp.expand(sp.legendre(index, 2 * x - 1))


def normal_integer(size: int, theta: Fraction | int = 0) -> tuple[Rows, list[Fraction]]:
    """A_N - theta P P^T of LegS in the root-free scaling, with the input vector of ones.

    theta = 0 is the normal part, theta = 1 is LegS itself.

    Args:
        size: N.
        theta: weight of the low-rank term that is put back.

    Returns:
        (rows, input vector) of rationals.
    """
    rows, ones = legs_integer(size)
    part = (1 - Fraction(theta)) / 2
    return [[Fraction(rows[i][c]) + part * (2 * c + 1) for c in range(size)] for i in range(size)], [
        Fraction(b) for b in ones
    ]


def solve(rows: Sequence[Sequence[Fraction]], right: Sequence[Fraction]) -> list[Fraction]:
    """Exact solution of a square linear system by Gauss elimination.

    Args:
        rows: (N, N) rationals.
        right: (N,) rationals.

    Returns:
        The solution, (N,) rationals.

    Raises:
        InputError: the matrix is singular.
    """
    size = len(rows)
    work = [[*map(Fraction, row), Fraction(b)] for row, b in zip(rows, right, strict=True)]
    for c in range(size):
        pivot = next((r for r in range(c, size) if work[r][c]), None)
        if pivot is None:
            raise InputError(f"column {c} has no pivot: the matrix is singular, choose another point s")
        work[c], work[pivot] = work[pivot], work[c]
        work[c] = [value / work[c][c] for value in work[c]]
        for r in range(size):
            if r != c and work[r][c]:
                factor = work[r][c]
                work[r] = [value - factor * top for value, top in zip(work[r], work[c], strict=True)]
    return [row[-1] for row in work]


def shifted(rows: Sequence[Sequence[Fraction]], at: Fraction) -> Rows:
    """s I - A for a rational s.

    Args:
        rows: A, (N, N).
        at: s.

    Returns:
        (N, N) rationals.
    """
    return [[(at if r == c else 0) - Fraction(value) for c, value in enumerate(row)] for r, row in enumerate(rows)]


def determinant(rows: Sequence[Sequence[Fraction]]) -> Fraction:
    """Exact determinant by elimination.

    Args:
        rows: (N, N) rationals.

    Returns:
        The determinant.
    """
    work = [list(map(Fraction, row)) for row in rows]
    value = Fraction(1)
    for c in range(len(work)):
        pivot = next((r for r in range(c, len(work)) if work[r][c]), None)
        if pivot is None:
            return Fraction(0)
        if pivot != c:
            work[c], work[pivot] = work[pivot], work[c]
            value = -value
        value *= work[c][c]
        for r in range(c + 1, len(work)):
            factor = work[r][c] / work[c][c]
            work[r] = [x - factor * y for x, y in zip(work[r], work[c], strict=True)]
    return value


def quadratic(rows: Sequence[Sequence[Fraction]], inner: Rows) -> Rows:
    """A W + W A^T for exact matrices.

    Args:
        rows: A, (N, N).
        inner: W, (N, N).

    Returns:
        (N, N) rationals.
    """
    size = range(len(rows))
    product = [[sum((rows[r][i] * inner[i][c] for i in size), Fraction(0)) for c in size] for r in size]
    mirror = [[sum((inner[r][i] * rows[c][i] for i in size), Fraction(0)) for c in size] for r in size]
    return [[product[r][c] + mirror[r][c] for c in size] for r in size]


def sylvester(left: Sequence[Sequence[Fraction]], right: Sequence[Sequence[Fraction]], load: Rows) -> Rows:
    """Exact Z with L Z + Z R^T + M = 0, that is the integral of e^{tL} M e^{tR^T} for stable L and R.

    Args:
        left: L, (p, p).
        right: R, (q, q).
        load: M, (p, q).

    Returns:
        Z, (p, q) rationals.
    """
    p, q = len(left), len(right)
    system = [[Fraction(0)] * (p * q) for _ in range(p * q)]
    for r in range(p):
        for c in range(q):
            row = system[r * q + c]
            for i in range(p):
                row[i * q + c] += left[r][i]
            for i in range(q):
                row[r * q + i] += right[c][i]
    flat = solve(system, [-value for line in load for value in line])
    return [flat[r * q : (r + 1) * q] for r in range(p)]


def outer(a: Sequence[Fraction], b: Sequence[Fraction]) -> Rows:
    """a b^T.

    Args:
        a: (p,) rationals.
        b: (q,) rationals.

    Returns:
        (p, q) rationals.
    """
    return [[x * y for y in b] for x in a]
