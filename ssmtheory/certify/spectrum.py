"""Eigenvalues of S4D-LegS, -1/2 +- i y_m: certified at any N, and the law of the top one for all N at once.

On s = -1/2 + iy, phi(s) has modulus 1 and argument 2 sum_k arctan((k+1/2)/y), so that the zeros of 1 + phi are the
y with sum_{k<N} arctan((k+1/2)/y) = (2m+1) pi/2. The left side falls strictly: one sign on either side
proves an enclosure.
S4D's spectrum conjecture (arXiv 2206.11893) is the case m = 0 as N grows, with the constant pi/6 and a minus sign.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

from ssmtheory.certify.balls import above, ball, below, flint, working
from ssmtheory.certify.certificate import Certificate, issue
from ssmtheory.certify.definition import check_definition, checked_index, checked_order

__all__ = ["CHECKS", "eigenvalue_phase", "top_eigenvalue", "top_eigenvalue_law"]


def eigenvalue_phase(N: int, y: Any) -> Any:
    """sum_{k<N} arctan((k+1/2)/y), half the argument of phi at -1/2 + iy.

    Args:
        N: state dimension.
        y: positive arb [rad/s].

    Returns:
        arb [rad].
    """
    twice = 2 * y
    return sum((((2 * k + 1) / twice).atan() for k in range(N)), flint().arb(0))


def _proposal(N: int, m: int) -> float:
    """y_m in floats, by bisection."""
    h = np.arange(N) + 0.5
    target = (2 * m + 1) * math.pi / 2
    low, high = 1e-9, float(N * N)
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if float(np.arctan(h / middle).sum()) > target else (low, middle)
    return (low + high) / 2


def top_eigenvalue(N: int, m: int = 0, *, precision: int = 128) -> Certificate:
    """Enclose the m-th largest imaginary part y_m of the eigenvalues -1/2 +- i y_m of S4D-LegS.

    Args:
        N: state dimension, from 2.
        m: 0 for the largest, up to N//2 - 1.
        precision: working precision [bit]; the width of the enclosure is about 2^-precision of y_m.

    Returns:
        Certificate of y_m [rad/s], two-sided.

    Raises:
        InputError: N, m or precision out of range.
        CertificationError: not proved at this precision.

    >>> top_eigenvalue(8).lower[:18]
    '1.9857410370970576'
    """
    N, m = checked_order(N, 2), checked_index(m, N // 2, "m")
    with working(precision) as module:
        y = module.arb(_proposal(N, m))
        target = (2 * m + 1) * module.arb.pi() / 2
        for _ in range(2 + precision.bit_length()):  # Newton on midpoints doubles the digits each time
            slope = sum((-2 * (2 * k + 1) / (4 * y * y + (2 * k + 1) ** 2) for k in range(N)), module.arb(0))
            y = (y - (eigenvalue_phase(N, y) - target) / slope).mid()
        # the sum's own rounding, divided by its slope, is what an enclosure cannot beat
        slack = abs((eigenvalue_phase(N, y) - target) / slope).upper() * 4 + y * module.arb(2) ** (8 - precision)
        digits = max(6, int(precision * math.log10(2)))
        lower, upper = below(y - slack, digits), above(y + slack, digits)
    return issue(
        Certificate(
            kind="top_eigenvalue",
            statement=f"y_{m}, imaginary part number {m} from the top of S4D-LegS's eigenvalues at N = {N} [rad/s]",
            parameters={"N": N, "m": m},
            lower=lower,
            upper=upper,
            precision_bits=precision,
            method="signs of the strictly falling phase sum_k arctan((k+1/2)/y) - (2m+1) pi/2 at both ends",
        )
    )


def _check_top_eigenvalue(parameters: dict, witness: dict, low: Fraction | None, high: Fraction | None) -> bool:
    N = checked_order(parameters["N"], 2)
    m = checked_index(parameters["m"], N // 2, "m")
    check_definition(N)
    target = (2 * m + 1) * flint().arb.pi() / 2
    if low is not None and low > 0 and not eigenvalue_phase(N, ball(low)) >= target:
        return False
    return high is None or (high > 0 and bool(eigenvalue_phase(N, ball(high)) <= target))


#: sum_{k<N} (k+1/2)^q = N^(q+1) * (these coefficients in 1/N^2, lowest power first)
_POWER_SUMS = {
    1: (Fraction(1, 2),),
    3: (Fraction(1, 4), Fraction(-1, 8)),
    5: (Fraction(1, 6), Fraction(-5, 24), Fraction(7, 96)),
    7: (Fraction(1, 8), Fraction(-7, 24), Fraction(49, 192), Fraction(-31, 384)),
    9: (Fraction(1, 10), Fraction(-3, 8), Fraction(49, 80), Fraction(-31, 64), Fraction(381, 2560)),
}


def _power_sums_hold() -> bool:
    """Both sides are polynomials of degree q+1 in N: equality at q+2 points is equality."""
    for q, coefficients in _POWER_SUMS.items():
        total = Fraction(0)
        for N in range(1, q + 3):
            total += Fraction(2 * N - 1, 2) ** q
            if total != sum((c * Fraction(N) ** (q + 1 - 2 * j) for j, c in enumerate(coefficients)), Fraction(0)):
                return False
    return True


def _law_polynomial(order: int) -> list[Any]:
    """Coefficients in u = 1/N^2, each a polynomial in (p, c), of (2 w^order / pi) (truncated phase - pi/2).

    y = N^2 w / pi with w = 1 - p u / 6 + c u^2, p = pi^2, c = pi times the law's constant; arctan is cut after x^order.
    """
    context = flint().fmpq_mpoly_ctx.get(("u", "p", "c"), "lex")
    u, p, c = context.gens()
    rational = flint().fmpq
    w = 1 - p * u * rational(1, 6) + c * u**2
    total = -(w**order)
    for q in range(1, order + 1, 2):
        sums = sum(
            (u**j * rational(x.numerator, x.denominator) for j, x in enumerate(_POWER_SUMS[q])), context.constant(0)
        )
        sign = 1 if q % 4 == 1 else -1
        total = total + sign * rational(2, q) * p ** ((q - 1) // 2) * u ** ((q - 1) // 2) * sums * w ** (order - q)
    by_power: dict[int, Any] = {}
    for (i, j, k), value in total.to_dict().items():
        by_power.setdefault(int(i), []).append((int(j), int(k), value))
    return [by_power.get(i, []) for i in range(max(by_power) + 1)]


def _law_sign(order: int, constant: Fraction, N_from: int) -> int:
    """Sign of the truncated phase minus pi/2 at N^2/pi - pi/6 + constant/N^2 for all N >= N_from; 0 if undecided."""
    module = flint()
    pi = module.arb.pi()
    p, c = pi * pi, pi * ball(constant)
    rows = _law_polynomial(order)
    if rows[0] or rows[1]:  # they cancel identically in p and c: this is what makes N^2/pi - pi/6 the right start
        return 0
    terms = [sum((module.arb(v) * p**j * c**k for j, k, v in row), module.arb(0)) for row in rows[2:]]
    poly, end, signs = module.arb_poly(terms), Fraction(1, N_from**2), set()
    pieces = 64
    for i in range(pieces):
        u = ball(end * i / pieces).union(ball(end * (i + 1) / pieces))
        value = poly(u)
        signs.add(1 if value > 0 else -1 if value < 0 else 0)
    return signs.pop() if len(signs) == 1 else 0


def top_eigenvalue_law(lower: str = "0", upper: str = "0.62", N_from: int = 8, *, precision: int = 128) -> Certificate:
    """Prove, for all N from some N on, that N^2 (y_0 - N^2/pi + pi/6) lies between two constants.

    arctan lies between its Taylor polynomials of degree 7 and 9, sums of powers are polynomials in N, and what remains
    is the sign of two polynomials in 1/N^2 on a bounded interval. So this is no check of single N. Their constant terms
    name the limit: y_0 = N^2/pi - pi/6 + (pi^3/90 + pi/12)/N^2 + O(N^-4).

    Args:
        lower: lower constant, as text.
        upper: upper constant, as text; the quantity tends to pi^3/90 + pi/12 = 0.60631...
        N_from: first N of the claim, from 2.
        precision: working precision [bit].

    Returns:
        Certificate of N^2 (y_0 - N^2/pi + pi/6) for all N >= N_from.

    Raises:
        InputError: a bound is no number, or N_from or precision out of range.
        CertificationError: not proved; the claim is wrong or too sharp for these Taylor polynomials.

    >>> top_eigenvalue_law().value
    0.31
    """
    N_from = checked_order(N_from, 2)
    return issue(
        Certificate(
            kind="top_eigenvalue_law",
            statement=f"N^2 (y_0 - N^2/pi + pi/6) for every N >= {N_from}, y_0 the top eigenvalue of S4D-LegS",
            parameters={"N_from": N_from},
            lower=lower,
            upper=upper,
            precision_bits=precision,
            method="Taylor bounds of arctan, exact power sums, signs of two polynomials in 1/N^2 on [0, 1/N_from^2]",
        )
    )


def _check_top_eigenvalue_law(parameters: dict, witness: dict, low: Fraction | None, high: Fraction | None) -> bool:
    N_from = checked_order(parameters["N_from"], 2)
    check_definition(N_from)
    # w must stay positive, for y to be
    for constant in (low, high):
        if constant is not None and Fraction(1) / N_from**2 * 2 + abs(constant) * 4 / N_from**4 >= 1:
            return False
    if not _power_sums_hold():
        return False
    # degree 7 is below arctan: a positive sign at y puts y below y_0; degree 9 is above
    if low is not None and _law_sign(7, low, N_from) != 1:
        return False
    return high is None or _law_sign(9, high, N_from) == -1


CHECKS = {"top_eigenvalue": _check_top_eigenvalue, "top_eigenvalue_law": _check_top_eigenvalue_law}
