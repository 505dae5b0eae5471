"""From formulas to numbers: a SymPy expression as a float, an mpmath number or a vectorised function."""

from __future__ import annotations

from typing import Any

import sympy as sp

from ssmtheory.errors import InputError, nearest

__all__ = ["lower"]


def lower(expr: sp.Expr, *, digits: int | None = None, **values: Any) -> Any:
    """Turn a formula into a number, or into a function of the symbols that have no value yet.

    Values go in exactly before anything is rounded, so that a product over k < N with N given becomes a finite product.

    Args:
        expr: the formula.
        digits: decimal digits; None for double precision. With digits, values should be integers, rationals (or their
            strings): a binary float is taken for the number it stores.
        values: values for symbols, by the symbol's name.

    Returns:
        float or complex (mpmath number with digits) when no symbol is left, otherwise a function of the remaining
        symbols in alphabetical order; it takes NumPy arrays that broadcast, mpmath numbers with digits.

    Raises:
        InputError: a value for a symbol that the formula does not have.

    >>> t, n = sp.symbols("t n")
    >>> lower(sp.exp(-t) * n, n=3, t=0)
    3.0
    >>> lower(n**2 + t, n=3)(0.5)
    9.5
    """
    expr = sp.sympify(expr)
    symbols = {symbol.name: symbol for symbol in expr.free_symbols}
    for name in values:
        if name not in symbols:
            known = ", ".join(sorted(symbols)) or "none"
            raise InputError(f"the formula has no symbol {name!r}: its symbols are {known}.{nearest(name, symbols)}")
    expr = expr.subs({symbols[name]: sp.sympify(value) for name, value in values.items()}, simultaneous=True).doit()
    remaining = sorted(expr.free_symbols, key=lambda symbol: symbol.name)
    if not remaining:
        value = sp.N(expr, digits or 17)
        if digits is not None:
            import mpmath

            with mpmath.workdps(digits):
                return mpmath.mpmathify(value)
        number = complex(value)
        return number.real if value.is_real is not False and number.imag == 0 else number
    if digits is None:
        return sp.lambdify(remaining, expr, modules=["scipy", "numpy"])
    import mpmath

    raw = sp.lambdify(remaining, expr, modules="mpmath")

    def evaluate(*arguments: Any) -> Any:
        with mpmath.workdps(digits + 10):
            found = raw(*[mpmath.mpmathify(argument) for argument in arguments])
        with mpmath.workdps(digits):
            return +found

    return evaluate
