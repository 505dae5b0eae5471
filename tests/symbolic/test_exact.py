"""The zero test: true identities are proved, false ones are not, and nothing is rounded."""

from __future__ import annotations

import pytest
import sympy as sp

from ssmtheory.errors import InputError
from ssmtheory.symbolic.exact import falling, is_zero, rising

n, N, k, j = sp.symbols("n N k j")
s, x = sp.symbols("s x")


@pytest.mark.parametrize(
    "expr",
    [
        sp.Integer(0),
        (s - 1) * (s + 1) - s**2 + 1,
        1 / (s + 1) - 1 / (s + 2) - 1 / ((s + 1) * (s + 2)),
        sp.gamma(N + 3) / sp.gamma(N) - N * (N + 1) * (N + 2),
        sp.gamma(N - 2) / sp.gamma(N) - 1 / ((N - 1) * (N - 2)),
        sp.gamma(s + sp.Rational(5, 2)) - (s + sp.Rational(3, 2)) * sp.gamma(s + sp.Rational(3, 2)),
        sp.binomial(n + 1, k) - sp.binomial(n, k) - sp.binomial(n, k - 1),
        sp.factorial(n + 1) - (n + 1) * sp.factorial(n),
        (-1) ** (n + 1) + (-1) ** n,
        (-1) ** (n - j) - (-1) ** (n + j),
        x ** (n + 2) - x**2 * x**n,
        sp.exp(2 * x) - sp.exp(x) ** 2,
        (sp.exp(x) - 1) - (sp.exp(x / 2) - 1) * (sp.exp(x / 2) + 1),
        sp.sqrt(2 * n + 1) ** 2 - 2 * n - 1,
        1 / (sp.sqrt(n) - 1) - (sp.sqrt(n) + 1) / (n - 1),
        1 / (s + sp.I) - (s - sp.I) / (s**2 + 1),
        falling(s, n + 1) / rising(s + 1, n + 1) * (s + n + 1) - (s - n) * falling(s, n) / rising(s + 1, n),
    ],
    ids=str,
)  # fmt: skip
def test_identities_are_found(expr: sp.Expr) -> None:
    assert is_zero(expr)
    assert not is_zero(expr + sp.Rational(1, 10**30))
    assert not is_zero(expr + n)


def test_relations_are_used_and_needed() -> None:
    h = sp.Symbol("h")
    expr = (x / h) / (1 - x / h) - x * (x + h) / N**2
    assert is_zero(expr, (h**2 - x**2 - N**2,))
    assert not is_zero(expr)
    assert not is_zero(expr, (h**2 - x**2 - 2 * N**2,))


def test_a_vanishing_denominator_is_no_proof() -> None:
    assert not is_zero((x**2 - n) / (x**2 - n) - 2, (x**2 - n,))


def test_independent_gammas_stay_independent() -> None:
    assert not is_zero(sp.gamma(s + sp.Rational(1, 2)) / sp.gamma(s) - s)


def test_floats_are_refused() -> None:
    with pytest.raises(InputError, match="floating-point"):
        is_zero(x - 0.5)


@pytest.mark.parametrize("count", range(5))
def test_factorials_agree_with_products(count: int) -> None:
    assert is_zero(falling(s, count) - sp.prod([s - i for i in range(count)]))
    assert is_zero(rising(s, count) - sp.prod([s + i for i in range(count)]))
    symbolic = falling(s, n).subs(n, count)
    assert is_zero(symbolic - falling(s, count))
