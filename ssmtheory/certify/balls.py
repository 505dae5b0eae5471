"""Ball arithmetic in the small: precision, exact numbers, decimals rounded outwards, definiteness of Hermitian balls.

A ball (`flint.arb`) encloses a real number; a comparison of balls is True only where it holds for every member. Floats
enter as exact dyadic numbers, and only where they *are* the data or a proposal that balls then verify.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np

from ssmtheory.errors import InputError, SsmTheoryError, require

__all__ = [
    "DIGITS",
    "CertificationError",
    "above",
    "ball",
    "below",
    "bisect",
    "complex_ball",
    "dyadic",
    "exact",
    "exact_complex",
    "flint",
    "gram_extremes",
    "is_definite",
    "largest_eigenvalue",
    "midpoint",
    "poly_at_most",
    "working",
]

#: significant digits of the decimals that a certificate stores, rounded outwards
DIGITS = 24


class CertificationError(SsmTheoryError):
    """The balls did not prove the statement: it is wrong, or needs more precision or effort than was given."""


def flint() -> ModuleType:
    """The module `flint`, or a MissingDependencyError that says how to install it."""
    return require("flint", "rigor", "a certificate")


@contextmanager
def working(bits: int) -> Iterator[ModuleType]:
    """Work at a precision, and restore the caller's.

    Args:
        bits: significant bits of midpoints, at least 32.

    Yields:
        The module `flint`.

    Raises:
        InputError: the precision is no integer of at least 32.
    """
    if not isinstance(bits, int) or isinstance(bits, bool) or bits < 32:
        raise InputError(f"precision is {bits!r}: give a whole number of bits, at least 32")
    module = flint()
    with module.ctx.workprec(bits):
        yield module


def exact(value: Any) -> Fraction:
    """The rational number that a value stands for.

    Args:
        value: int, float (taken as the dyadic number it is), Fraction, or text such as "1/11", "0.1", "2.5e-3".

    Returns:
        The exact value.

    Raises:
        InputError: not a finite real number.

    >>> exact("1/11"), exact(0.5)
    (Fraction(1, 11), Fraction(1, 2))
    """
    try:
        if isinstance(value, str):
            return Fraction(value)
        if isinstance(value, int | Fraction):
            return Fraction(value)
        return Fraction(float(value))
    except (ValueError, OverflowError, TypeError, ZeroDivisionError) as error:
        raise InputError(f"{value!r} is no finite real number: give an int, a float or text such as '1/11'") from error


def exact_complex(value: Any) -> tuple[Fraction, Fraction]:
    """Real and imaginary part as exact rationals.

    Args:
        value: a complex, anything that `exact` takes, or a pair (real, imaginary) of such.

    Returns:
        The two parts.

    Raises:
        InputError: not a finite complex number.

    >>> exact_complex(("0", "1/11"))
    (Fraction(0, 1), Fraction(1, 11))
    """
    if isinstance(value, tuple | list):
        if len(value) != 2:
            raise InputError(f"{value!r} is no pair (real, imaginary)")
        return exact(value[0]), exact(value[1])
    if isinstance(value, complex | np.complexfloating):
        return exact(value.real), exact(value.imag)
    return exact(value), Fraction(0)


def midpoint(x: Any) -> Any:
    """The midpoint of a real or complex ball, as an exact ball."""
    if hasattr(x, "imag") and not isinstance(x, flint().arb):
        return flint().acb(x.real.mid(), x.imag.mid())
    return x.mid()


def dyadic(x: Any) -> Fraction:
    """The exact value of an exact (radius zero) ball.

    Args:
        x: arb of radius 0.

    Returns:
        Its value.
    """
    man, exp = (int(part) for part in x.man_exp())
    return Fraction(man) * (Fraction(2) ** exp)


def _decimal(value: Fraction, digits: int, up: bool) -> str:
    if value == 0:
        return "0"
    magnitude = abs(value)
    exponent = math.floor(math.log10(magnitude.numerator) - math.log10(magnitude.denominator))
    scaled = value / Fraction(10) ** (exponent - digits + 1)
    whole = math.ceil(scaled) if up else math.floor(scaled)
    text = str(abs(whole))
    # the estimate of the exponent can be off by one: the position of the point is counted from the digits themselves
    exponent += len(text) - digits
    fraction = text[1:].rstrip("0")
    return (
        f"{'-' if whole < 0 else ''}{text[0]}{'.' + fraction if fraction else ''}{f'e{exponent}' if exponent else ''}"
    )


def _carried() -> int:
    # three digits short of the precision: a bound's own ball must not touch the value that it was rounded from
    return max(4, min(DIGITS, int(flint().ctx.prec * math.log10(2)) - 3))


def _finite(x: Any) -> Any:
    if not x.is_finite():
        raise CertificationError("a ball grew without bound: give more precision (bits)")
    return x


def below(x: Any, digits: int | None = None) -> str:
    """A decimal that is certainly not above any member of a ball.

    Args:
        x: arb, or an exact rational.
        digits: significant digits kept; by default 24, or fewer where the working precision does not carry them.

    Returns:
        Text such as "6.36e-1".

    Raises:
        CertificationError: the ball is not finite.

    >>> below(Fraction(2, 3), 3)
    '6.66e-1'
    """
    value = Fraction(x) if isinstance(x, Fraction | int) else dyadic(_finite(x).lower())
    return _decimal(value, digits or _carried(), up=False)


def above(x: Any, digits: int | None = None) -> str:
    """A decimal that is certainly not below any member of a ball.

    Args:
        x: arb, or an exact rational.
        digits: significant digits kept; by default 24, or fewer where the working precision does not carry them.

    Returns:
        Text such as "6.37e-1".

    Raises:
        CertificationError: the ball is not finite.

    >>> above(Fraction(2, 3), 3), above(Fraction(-2, 3), 3), above(9999, 3)
    ('6.67e-1', '-6.66e-1', '1e4')
    """
    value = Fraction(x) if isinstance(x, Fraction | int) else dyadic(_finite(x).upper())
    return _decimal(value, digits or _carried(), up=True)


def ball(value: Fraction | int | str) -> Any:
    """The ball around a rational number or a decimal, at the working precision."""
    fraction = exact(value)
    return flint().arb(flint().fmpq(fraction.numerator, fraction.denominator))


def complex_ball(value: tuple[Fraction, Fraction]) -> Any:
    """The complex ball around a pair of rationals (real, imaginary)."""
    return flint().acb(ball(value[0]), ball(value[1]))


def is_definite(matrix: Any) -> bool:
    """Whether every Hermitian member of a ball matrix is certainly positive definite.

    L D L^* without pivoting: all pivots certainly positive. O(N^3) ball operations.

    Args:
        matrix: acb_mat or arb_mat (N, N); only the lower triangle is read, as the matrix is taken to be Hermitian.

    Returns:
        True if proved; False if wrong or undecided.
    """
    rows = matrix.tolist()
    complex_entries = isinstance(matrix, flint().acb_mat)
    n = len(rows)
    for k in range(n):
        pivot = rows[k][k].real if complex_entries else rows[k][k]
        if not pivot > 0:
            return False
        column = [rows[i][k] for i in range(k + 1, n)]
        mirror = [x.conjugate() / pivot for x in column] if complex_entries else [x / pivot for x in column]
        for offset, factor in enumerate(column):
            row = rows[k + 1 + offset]
            for j in range(offset + 1):
                row[k + 1 + j] = row[k + 1 + j] - factor * mirror[j]
    return True


def _largest_size(values: Sequence[Any]) -> Any:
    """An exact ball not below the size of any member, and of the order of the largest."""
    found = abs(values[0]).upper()
    for x in values[1:]:
        size = abs(x).upper()
        if size > found:
            found = size
    return found


def _floats(matrix: Any) -> np.ndarray:
    """Midpoints as complex floats after division by the largest entry; only ever a proposal."""
    rows = matrix.tolist()
    largest = _largest_size([x for row in rows for x in row])
    return np.array([[complex(x / largest) for x in row] for row in rows])


def largest_eigenvalue(matrix: Any, slack: int = 60) -> tuple[Any, Any]:
    """Two-sided bound of the largest eigenvalue of every Hermitian member of a ball matrix.

    A float eigenvector is the proposal. Its Rayleigh quotient in balls is the lower bound; the upper bound is that
    quotient plus 2^-slack of it, proved by the definiteness of upper * I - matrix.

    Args:
        matrix: acb_mat or arb_mat (N, N), Hermitian, with a positive largest eigenvalue.
        slack: relative width of the bracket as a negative power of 2; grown eightfold where the proof needs it.

    Returns:
        (lower, upper) as arb.

    Raises:
        CertificationError: no bracket was proved at this precision.
    """
    module = flint()
    matrix = module.acb_mat(matrix)
    n = matrix.nrows()
    floats = _floats(matrix)
    if not np.isfinite(floats).all():
        raise CertificationError("a matrix of balls grew without bound: give more precision (bits)")
    vector = np.linalg.eigh((floats + floats.conj().T) / 2)[1][:, -1]
    x = module.acb_mat([[module.acb(complex(v))] for v in vector])
    for _ in range(2):  # power steps on midpoints: two more float precisions' worth of the gap, at no cost
        x = matrix * x
        scale = _largest_size([x[i, 0] for i in range(n)])
        x = module.acb_mat([[midpoint(x[i, 0] / scale)] for i in range(n)])
    star = x.conjugate().transpose()
    lower = (star * matrix * x)[0, 0].real / (star * x)[0, 0].real
    identity = module.acb_mat([[int(i == j) for j in range(n)] for i in range(n)])
    for grow in range(0, slack - 8, 3):
        upper = lower.upper() * (1 + module.arb(2) ** (grow - slack))
        if is_definite(identity * upper - matrix):
            return lower, upper
    raise CertificationError("the largest eigenvalue was not enclosed: give more precision (bits)")


def gram_extremes(gram: Any, inverse: Any | None = None, slack: int = 60) -> tuple[Any, Any]:
    """Enclosures of the largest and the smallest eigenvalue of a positive definite Gram matrix.

    Args:
        gram: acb_mat or arb_mat (N, N), Hermitian positive definite.
        inverse: its inverse, where that is known more sharply than by ball elimination.
        slack: see `largest_eigenvalue`.

    Returns:
        (largest, smallest), each an arb that contains the eigenvalue.

    Raises:
        CertificationError: not proved at this precision.
    """
    if inverse is None:
        try:
            inverse = gram.inv()
        except ZeroDivisionError as error:
            raise CertificationError("a Gram matrix is singular at this precision: give more bits") from error
    low, high = largest_eigenvalue(gram, slack)
    inverse_low, inverse_high = largest_eigenvalue(inverse, slack)
    return low.union(high), 1 / inverse_low.union(inverse_high)


def poly_at_most(coefficients: Sequence[Any], radius: Any, bound: Any, depth: int = 24) -> bool:
    """Whether a real polynomial is certainly at most `bound` on [-radius, radius].

    Args:
        coefficients: arb, lowest degree first.
        radius: half-width of the interval.
        bound: arb.
        depth: how often the interval may be halved.

    Returns:
        True if proved.
    """
    module = flint()
    pending: list[tuple[Any, Any, int]] = [(module.arb_poly(list(coefficients)), module.arb(radius), 0)]
    while pending:
        poly, half, level = pending.pop()
        terms = poly.coeffs() or [module.arb(0)]
        rest, power, linear = module.arb(0), module.arb(1), module.arb(0)
        for k, term in enumerate(terms[1:], 1):
            power = power * half
            if k > 1:
                rest = rest + abs(term) * power
            else:
                linear = abs(term) * power
        if terms[0] + linear + rest <= bound:
            continue
        # concave at the centre: the parabola's vertex is a bound that first-order terms would miss
        if len(terms) > 2 and terms[2] < 0:
            cubic = rest - abs(terms[2]) * half * half
            if terms[0] - terms[1] * terms[1] / (4 * terms[2]) + cubic <= bound:
                continue
        if level == depth or terms[0] > bound:
            return False
        quarter = (half / 2).upper()
        pending += [(poly(module.arb_poly([sign * quarter, 1])), quarter, level + 1) for sign in (-1, 1)]
    return True


def bisect(predicate: Callable[[float], bool], low: float, high: float, steps: int = 200) -> float:
    """The float at which a monotone predicate turns from True (at low) to False (at high); a proposal only."""
    for _ in range(steps):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if predicate(middle) else (low, middle)
    return low
