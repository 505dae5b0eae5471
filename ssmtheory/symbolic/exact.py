"""Exact zero test for the expressions that occur in derivations.

An expression built from rational functions, Gamma functions, factorials, binomials, powers with symbolic exponent,
exponentials and square roots is brought to a rational function in independent symbols, whose numerator either expands
to zero or does not. Integer shifts of one Gamma function are turned into rational factors first, so that an identity
between hypergeometric terms with symbolic n and N is decided, not sampled.

The test is sound: True means that the identity holds wherever both sides are defined. False means that no proof was
found: two Gamma functions that are tied by anything but an integer shift (reflection, duplication) count as
independent.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import sympy as sp

from ssmtheory.errors import InputError

__all__ = ["falling", "is_zero", "rising", "to_rational"]


def falling(x: sp.Expr, n: sp.Expr) -> sp.Expr:
    r"""Falling factorial x (x - 1) ... (x - n + 1) as a quotient of Gamma functions.

    Args:
        x: any expression.
        n: number of factors, integer or symbolic.

    Returns:
        The product itself for an integer n, Gamma(x + 1) / Gamma(x - n + 1) otherwise.

    >>> x = sp.Symbol("x")
    >>> falling(x, sp.Integer(2))
    x*(x - 1)
    """
    n = sp.sympify(n)
    if n.is_Integer and n >= 0:
        return sp.prod([x - k for k in range(int(n))])
    return sp.gamma(x + 1) / sp.gamma(x - n + 1)


def rising(x: sp.Expr, n: sp.Expr) -> sp.Expr:
    r"""Rising factorial x (x + 1) ... (x + n - 1) as a quotient of Gamma functions.

    Args:
        x: any expression.
        n: number of factors, integer or symbolic.

    Returns:
        The product itself for an integer n, Gamma(x + n) / Gamma(x) otherwise.

    >>> x = sp.Symbol("x")
    >>> rising(x, sp.Integer(2))
    x*(x + 1)
    """
    n = sp.sympify(n)
    if n.is_Integer and n >= 0:
        return sp.prod([x + k for k in range(int(n))])
    return sp.gamma(x + n) / sp.gamma(x)


def _split_shift(argument: sp.Expr) -> tuple[sp.Expr, int]:
    """(representative, integer): argument = representative + integer, one representative for all integer shifts."""
    argument = sp.expand(argument)
    constant, rest = argument.as_coeff_Add()
    if not constant.is_Rational:
        return argument, 0
    shift = int(sp.floor(constant))
    return rest + (constant - shift), shift


class _Reducer:
    """Replaces transcendental parts by symbols, and remembers the relations that the symbols obey."""

    def __init__(self) -> None:
        self.symbols: dict[tuple, sp.Symbol] = {}
        self.squares: dict[sp.Symbol, sp.Expr] = {}

    def symbol(self, *key: object) -> sp.Symbol:
        if key not in self.symbols:
            self.symbols[key] = sp.Symbol(f"_{key[0]}{len(self.symbols)}")
        return self.symbols[key]

    def gamma(self, argument: sp.Expr) -> sp.Expr:
        argument = self.reduce(argument)
        base, shift = _split_shift(argument)
        if base.is_Rational:
            return sp.gamma(argument) if base else sp.gamma(sp.Integer(shift))
        value: sp.Expr = self.symbol("g", base)
        for i in range(shift):
            value = value * (base + i)
        for i in range(shift, 0):
            value = value / (base + i)
        return value

    def power(self, base: sp.Expr, exponent: sp.Expr) -> sp.Expr:
        if exponent.is_Integer:
            return self.reduce(base) ** exponent
        if base == sp.E:
            return self.exponential(exponent)
        if exponent.is_Rational and exponent.q == 2:
            inner = sp.factor_terms(sp.expand(self.reduce(base)))
            if inner.is_Rational and sp.sqrt(inner).is_Rational:
                return sp.sqrt(inner) ** exponent.p
            root = self.symbol("r", inner)
            self.squares[root] = inner
            return root**exponent.p
        value: sp.Expr = sp.Integer(1)
        for term in sp.Add.make_args(sp.expand(exponent)):
            coefficient, rest = term.as_coeff_Mul()
            if rest == 1:
                value *= self.power(base, coefficient) if coefficient.is_Rational else self.symbol("p", base, term)
            elif base == -1 and coefficient.is_Integer:
                sign = self.symbol("e", rest)
                self.squares[sign] = sp.Integer(1)
                value *= sign ** (int(coefficient) % 2)
            elif coefficient.is_Integer:
                value *= self.symbol("p", base, rest) ** coefficient
            else:
                value *= self.symbol("p", base, term)
        return value

    def exponential(self, exponent: sp.Expr) -> sp.Expr:
        value: sp.Expr = sp.Integer(1)
        for term in sp.Add.make_args(sp.expand(self.reduce(exponent))):
            coefficient, rest = term.as_coeff_Mul()
            if coefficient.is_Rational:
                # exp(x/2) and exp(x) share one symbol: the finest denominator in use is 2
                value *= (
                    self.symbol("x", rest) ** (2 * coefficient)
                    if (2 * coefficient).is_Integer
                    else self.symbol("x", term)
                )
            else:
                value *= self.symbol("x", term)
        return value

    def reduce(self, expr: sp.Expr) -> sp.Expr:
        """The expression with every transcendental part replaced."""
        if expr.is_Atom:
            return expr
        if isinstance(expr, sp.gamma):
            return self.gamma(expr.args[0])
        if isinstance(expr, sp.factorial):
            return self.gamma(expr.args[0] + 1)
        if isinstance(expr, sp.binomial):
            n, k = expr.args
            return self.gamma(n + 1) / (self.gamma(k + 1) * self.gamma(n - k + 1))
        if isinstance(expr, sp.exp):
            return self.exponential(expr.args[0])
        if isinstance(expr, sp.Pow):
            return self.power(expr.args[0], expr.args[1])
        if isinstance(expr, sp.Add | sp.Mul):
            return expr.func(*[self.reduce(argument) for argument in expr.args])
        return self.symbol("f", expr)

    def normal(self, numerator: sp.Expr) -> sp.Expr:
        """The expanded numerator modulo the squares of roots and signs."""
        numerator = sp.expand(numerator)
        for symbol, square in self.squares.items():
            if numerator.has(symbol):
                numerator = sp.expand(sp.rem(numerator, symbol**2 - square, symbol))
        return numerator


def to_rational(expr: sp.Expr) -> sp.Expr:
    """The expression as a rational function: Gamma functions and their kin become symbols, integer shifts factors.

    Args:
        expr: any expression.

    Returns:
        A rational function in the free symbols and in symbols with a leading underscore.
    """
    return _Reducer().reduce(sp.sympify(expr))


def is_zero(expr: sp.Expr, relations: Sequence[sp.Expr] = ()) -> bool:
    r"""Whether an expression is identically zero, decided exactly.

    Args:
        expr: rational in its free symbols, up to Gamma functions, factorials, binomials, exponentials, square roots and
            powers with symbolic exponent.
        relations: polynomials in the free symbols that vanish; the test is made modulo the ideal they generate.

    Returns:
        True when the expression is zero wherever it is defined.

    Raises:
        InputError: the expression holds a floating-point number, which would make the answer a rounding error.

    >>> n, N = sp.symbols("n N")
    >>> is_zero(sp.gamma(N + 2) / sp.gamma(N) - N * (N + 1))
    True
    >>> is_zero(sp.binomial(n + 1, 2) - n**2)
    False
    """
    expr = sp.sympify(expr)
    if expr.has(sp.Float):
        raise InputError(f"{expr} holds floating-point numbers: an exact test takes integers, rationals and symbols")
    if expr == 0:
        return True
    reducer = _Reducer()
    numerator, denominator = sp.fraction(sp.together(reducer.reduce(expr)))
    numerator = reducer.normal(numerator)
    if numerator != 0 and relations:
        symbols = sorted(set(itertools.chain(*(r.free_symbols for r in relations))), key=str)
        basis = sp.groebner([sp.expand(r) for r in relations], *symbols, order="grevlex")
        numerator = sp.expand(basis.reduce(numerator)[1])
        denominator = sp.expand(basis.reduce(sp.expand(denominator))[1])
    return numerator == 0 and reducer.normal(denominator) != 0
