"""A lower bound on the condition number of every PTD: kappa_2(V) of A_H + E for all ||E||_2 <= eps, real or complex.

If A_H + E = V Lambda V^{-1} then every z with sigma_min(z - A_H) <= eta lies within kappa (eta + eps) of an eigenvalue:
N discs cover that region, so that kappa^2 >= area / (N pi (eta + eps)^2) for every eta > 0. At z = -1/2 - u + iv with
u > 0,

    sigma_min(z - A_H) <= ||B|| / ||X(z)|| = N sqrt(2u / (|phi|^2 - 1)),
    |phi|^2 = prod_{k<N} ((u+m)^2 + v^2) / ((u-m)^2 + v^2),   m = k + 1/2,

and log|phi| >= u N^2/(u^2 + v^2 + N^2). So with L = log(1 + 2 N^4/eta^2)/2 >= 1 the region holds the disc
u^2 + v^2 + N^2 <= u N^2/L, where u <= N^2: this is the closed form. The area form uses the product itself: on a strip
u_1 <= u <= u_2 each factor is least at an end of the strip, and |phi| falls in |v|, so one evaluation per strip proves
a rectangle.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np

from ssmtheory.certify.balls import ball, below, bisect, exact, flint, working
from ssmtheory.certify.certificate import Certificate, issue
from ssmtheory.certify.definition import check_definition, checked_order
from ssmtheory.errors import InputError

__all__ = ["CHECKS", "ptd_condition_lower_bound", "ptd_condition_lower_bound_area"]


def _checked_epsilon(epsilon: Any) -> Fraction:
    value = exact(epsilon)
    if value < 0:
        raise InputError(f"epsilon is {epsilon!r}: give a norm, at least 0; text such as '0.1' is taken as a decimal")
    return value


def _closed(N: int, epsilon: Fraction, eta: Fraction) -> Any:
    """sqrt(N^3/(4 L^2) - N)/(eta + eps) as a ball; 1 where the root is of a negative number."""
    module = flint()
    e = ball(eta)
    L = (1 + 2 * module.arb(N) ** 4 / (e * e)).log() / 2
    inside = module.arb(N) ** 3 / (4 * L * L) - N
    if not (inside > 0 and L >= 1):
        return module.arb(1)  # kappa >= 1 always
    return inside.sqrt() / (e + ball(epsilon))


def _best(height: Any, low: float, high: float) -> float:
    """Golden section on a logarithmic scale; a proposal only."""
    a, b = math.log(low), math.log(high)
    g = (math.sqrt(5) - 1) / 2
    for _ in range(60):
        c, d = b - g * (b - a), a + g * (b - a)
        a, b = (a, d) if height(math.exp(c)) > height(math.exp(d)) else (c, b)
    return math.exp((a + b) / 2)


def ptd_condition_lower_bound(N: int, epsilon: Any, *, precision: int = 96) -> Certificate:
    """Bound kappa_2(V) of every A_H + E with ||E||_2 <= epsilon from below, in closed form.

    kappa >= sqrt(N^3/(4 L^2) - N)/(eta + eps), L = log(1 + 2 N^4/eta^2)/2, for every 0 < eta <= 1; the best eta is
    proposed by floats and the value is a ball. It holds for any scaling of the eigenvectors; where A_H + E is defective
    kappa is infinite.

    Args:
        N: state dimension.
        epsilon: the norm; text such as "0.1" is taken as the decimal, a float as the dyadic number it is.
        precision: working precision [bit].

    Returns:
        Certificate with `lower` alone; "1" where the closed form says nothing.

    Raises:
        InputError: a value out of range.

    >>> int(float(ptd_condition_lower_bound(128, "0.1").lower))
    437
    """
    N, eps = checked_order(N, 2), _checked_epsilon(epsilon)
    with working(precision):

        def height(eta: float) -> float:
            return float(_closed(N, eps, Fraction(eta)).mid())

        grid = np.geomspace(1e-6, 1.0, 61)
        at = int(np.argmax([height(float(x)) for x in grid]))
        eta = min(_best(height, float(grid[max(at - 1, 0)]), float(grid[min(at + 1, 60)])), 1.0)
        lower = below(_closed(N, eps, Fraction(eta)), 18)
    return issue(
        Certificate(
            kind="ptd_condition_lower_bound",
            statement=f"kappa_2(V) of LegS + E for every E with ||E||_2 <= {eps}, N = {N}",
            parameters={"N": N, "epsilon": str(eps)},
            lower=lower,
            upper=None,
            precision_bits=precision,
            method="area of a disc in the pseudospectrum against N discs around the eigenvalues; eta is free",
            witness={"eta": eta},
        )
    )


def _check_lower_bound(parameters: dict, witness: dict, low: Fraction | None, high: Fraction | None) -> bool:
    N, eps = checked_order(parameters["N"], 2), _checked_epsilon(parameters["epsilon"])
    eta = exact(witness["eta"])
    if high is not None or low is None or not 0 < eta <= 1:
        return False
    check_definition(N)
    return low <= 1 or bool(_closed(N, eps, eta) >= ball(low))


# -------------------------------------------------------------------------------------------- area form


def _float_log_phi(N: int, u: float, v: float) -> float:
    m = np.arange(N) + 0.5
    return float(np.arctanh(2 * u * m / (u * u + v * v + m * m)).sum())


def _strip_holds(N: int, eta: Fraction, low: Fraction, high: Fraction, v: Fraction) -> bool:
    """Whether sigma_min <= eta is certain for low <= u <= high, |v'| <= v."""
    module = flint()
    square = ball(v) ** 2
    ends = [(ball(u), module.arb(1)) for u in (low, high)]
    # a factor is 1 + 4 u m/((u-m)^2 + v^2): in u it rises to sqrt(m^2 + v^2) and falls beyond, so it is least at an end
    product = module.arb(1)
    for k in range(N):
        m = module.arb(2 * k + 1) / 2
        parts = [1 + 4 * u * m / ((u - m) ** 2 + square) for u, _ in ends]
        product *= parts[0].min(parts[1])
    return bool(2 * ball(high) * N * N <= ball(eta) ** 2 * (product - 1))


def _strips(N: int, eta: float, count: int) -> list[tuple[float, float, float]]:
    """Strips (low, high, v) of a region in floats; a proposal only."""
    target = N * N / eta**2

    def inside(u: float, v: float) -> bool:
        return 2 * u * target <= math.expm1(min(2 * _float_log_phi(N, u, v), 700.0))

    far = float(N * N)
    samples = np.geomspace(1e-3, far, 200)
    good = [u for u in samples if inside(u, 1e-9)]
    if not good:
        return []
    before = float(samples[max(0, int(np.searchsorted(samples, good[0])) - 1)])
    low = bisect(lambda u: not inside(u, 1e-9), before, float(good[0]), 40)
    high = bisect(lambda u: inside(u, 1e-9), float(good[-1]), far * 2, 40)
    edges = low + (high - low) * (1 - np.cos(np.linspace(0, np.pi, count + 1))) / 2
    strips, m = [], np.arange(N) + 0.5
    for a, b in itertools.pairwise(edges.tolist()):

        def held(v: float, a: float = a, b: float = b) -> bool:
            parts = np.minimum(*(np.arctanh(2 * u * m / (u * u + v * v + m * m)) for u in (a, b)))
            return 2 * b * target <= math.expm1(min(2 * float(parts.sum()), 700.0))

        if held(1e-9):
            strips.append((a, b, bisect(held, 1e-9, far, 60) * (1 - 1e-9)))
    return strips


def _float_area(strips: list[tuple[float, float, float]]) -> float:
    return sum(2 * v * (b - a) for a, b, v in strips)


def ptd_condition_lower_bound_area(N: int, epsilon: Any, *, strips: int = 200, precision: int = 64) -> Certificate:
    """The lower bound of `ptd_condition_lower_bound` with the area of the region itself instead of a disc.

    Rectangles that lie in the region are proposed by floats and proved in balls, one evaluation each; kappa^2 >= total
    area/(N pi (eta + eps)^2). This makes the Riemann sum of the notes rigorous. O(strips N) ball operations.

    Args:
        N: state dimension.
        epsilon: as for `ptd_condition_lower_bound`.
        strips: number of rectangles.
        precision: working precision [bit].

    Returns:
        Certificate with `lower` alone; "1" where the region is empty.

    Raises:
        InputError: a value out of range.
        CertificationError: a proposed rectangle was not proved.

    >>> float(ptd_condition_lower_bound_area(32, "0.1", strips=50).lower) > 80
    True
    """
    N, eps = checked_order(N, 2), _checked_epsilon(epsilon)
    if isinstance(strips, bool) or not isinstance(strips, int) or strips < 4:
        raise InputError(f"strips is {strips!r}: give a whole number, at least 4")

    def height(eta: float) -> float:
        return _float_area(_strips(N, eta, 24)) / (eta + float(eps)) ** 2

    grid = np.geomspace(1e-4, 3.0, 16)
    at = int(np.argmax([height(float(x)) for x in grid]))
    eta = _best(height, float(grid[max(at - 1, 0)]), float(grid[min(at + 1, 15)])) if strips > 8 else float(grid[at])
    rectangles = _strips(N, eta, strips)
    with working(precision):
        lower = below(_area_bound(N, eps, Fraction(eta), rectangles), 18) if rectangles else "1"
        lower = lower if exact(lower) >= 1 else "1"
    return issue(
        Certificate(
            kind="ptd_condition_lower_bound_area",
            statement=f"kappa_2(V) of LegS + E for every E with ||E||_2 <= {eps}, N = {N}",
            parameters={"N": N, "epsilon": str(eps)},
            lower=lower,
            upper=None,
            precision_bits=precision,
            method="area of rectangles proved to lie in the pseudospectrum against N discs around the eigenvalues",
            witness={"eta": eta, "rectangles": rectangles},
        )
    )


def _area_bound(N: int, eps: Fraction, eta: Fraction, rectangles: Any) -> Any:
    area = sum(((exact(b) - exact(a)) * 2 * exact(v) for a, b, v in rectangles), Fraction(0))
    return (ball(area) / (N * flint().arb.pi())).sqrt() / ball(eta + eps)


def _check_area(parameters: dict, witness: dict, low: Fraction | None, high: Fraction | None) -> bool:
    N, eps = checked_order(parameters["N"], 2), _checked_epsilon(parameters["epsilon"])
    if high is not None or low is None:
        return False
    check_definition(N)
    if low <= 1:
        return True
    eta = exact(witness["eta"])
    rectangles = [tuple(exact(x) for x in part) for part in witness["rectangles"]]
    if eta <= 0 or not rectangles or any(len(part) != 3 for part in rectangles):
        return False
    last = Fraction(0)
    for a, b, v in rectangles:  # disjoint, in the half-plane u > 0
        if not (last <= a < b and a > 0 and v > 0 and _strip_holds(N, eta, a, b, v)):
            return False
        last = b
    return bool(_area_bound(N, eps, eta, rectangles) >= ball(low))


CHECKS = {
    "ptd_condition_lower_bound": _check_lower_bound,
    "ptd_condition_lower_bound_area": _check_area,
}
