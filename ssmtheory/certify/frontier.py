"""A lower bound on the condition number of every PTD: kappa_2(V) of A_H + E for all ||E||_2 <= eps, real or complex.

If A_H + E = V Lambda V^{-1} then every z with sigma_min(z - A_H) <= eta lies within kappa (eta + eps) of an eigenvalue:
N discs cover that region, so that kappa^2 >= area / (N pi (eta + eps)^2) for every eta > 0. At z = -1/2 - u + iv with
u > 0,

    |phi|^2 = prod_{k<N} ((u+m)^2 + v^2) / ((u-m)^2 + v^2),   m = k + 1/2,   log|phi| >= u N^2/(u^2 + v^2 + N^2),

and two bounds of sigma_min follow, R = (z - A_H)^{-1}, X = R B, ||X||^2 = (|phi|^2 - 1)/(2u):

* vector: 1/||R|| <= ||B||/||X|| = N sqrt(2u/(|phi|^2 - 1)).
* resolvent: (z - A_H) + (z - A_H)^* = -2u I + B B^T, times R from the left and R^* from the right, is
  X X^* = R + R^* + 2u R R^*. So ||X||^2 <= 2||R|| + 2u||R||^2, that is (2u||R|| + 1)^2 >= |phi|^2; at a top singular
  vector of R^* also ||X||^2 >= 2u||R||^2 - 2||R||:

      (|phi| - 1)/(2u) <= ||(z - A_H)^{-1}|| <= (|phi| + 1)/(2u).

  Left of Re z = -1/2 the pseudospectra of LegS are level sets of |phi|, up to 1/(2u).

Closed form: the region holds the disc u^2 + v^2 + N^2 <= u N^2/L of area pi (N^4/(4L^2) - N^2), where |phi| >= e^L and
u <= N^2/L; so eta = 2 N^2/(L (e^L - 1)) by the resolvent, for every 0 < L < N/2, and L = log(1 + 2 N^4/eta^2)/2 >= 1 by
the vector. The area form takes the product itself: on a strip u_1 <= u <= u_2 each factor is least at an end of the
strip, and |phi| falls in |v|, so one evaluation per strip proves a rectangle.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

from ssmtheory.certify.balls import ball, below, exact, flint, working
from ssmtheory.certify.certificate import Certificate, issue
from ssmtheory.certify.definition import check_definition, checked_order
from ssmtheory.errors import InputError, nearest

__all__ = ["CHECKS", "ptd_condition_lower_bound", "ptd_condition_lower_bound_area"]


def _checked_epsilon(epsilon: Any) -> Fraction:
    value = exact(epsilon)
    if value < 0:
        raise InputError(f"epsilon is {epsilon!r}: give a norm, at least 0; text such as '0.1' is taken as a decimal")
    return value


_FORMS = ("resolvent", "vector")


def _closed(N: int, epsilon: Fraction, eta: Fraction, form: str) -> Any:
    """The closed form as a ball; 1 where it says nothing. `eta` is the free number: L for the resolvent form."""
    module = flint()
    free = ball(eta)
    if form == "resolvent":
        L, e = free, 2 * module.arb(N) ** 2 / (free * free.expm1())
    else:
        L, e = (1 + 2 * module.arb(N) ** 4 / (free * free)).log() / 2, free
        if not L >= 1:
            return module.arb(1)
    inside = module.arb(N) ** 3 / (4 * L * L) - N
    if not inside > 0:
        return module.arb(1)  # kappa >= 1 always
    return inside.sqrt() / (e + ball(epsilon))


def _best(height: Any, low: float, high: float, steps: int = 60) -> float:
    """Golden section on a logarithmic scale; a proposal only."""
    a, b = math.log(low), math.log(high)
    g = (math.sqrt(5) - 1) / 2
    for _ in range(steps):
        c, d = b - g * (b - a), a + g * (b - a)
        a, b = (a, d) if height(math.exp(c)) > height(math.exp(d)) else (c, b)
    return math.exp((a + b) / 2)


def ptd_condition_lower_bound(N: int, epsilon: Any, *, form: str = "resolvent", precision: int = 96) -> Certificate:
    """Bound kappa_2(V) of every A_H + E with ||E||_2 <= epsilon from below, in closed form.

    resolvent: kappa >= sqrt(N^3/(4 L^2) - N)/(2 N^2/(L (e^L - 1)) + eps) for every 0 < L < N/2.
    vector: kappa >= sqrt(N^3/(4 L^2) - N)/(eta + eps), L = log(1 + 2 N^4/eta^2)/2, for every 0 < eta <= 1.
    The best L or eta is proposed by floats, the value is a ball; it holds for any scaling of the eigenvectors.

    Args:
        N: state dimension.
        epsilon: the norm; text such as "0.1" is taken as the decimal, a float as the dyadic number it is.
        form: "resolvent", which is sharper, or "vector".
        precision: working precision [bit].

    Returns:
        Certificate with `lower` alone; "1" where the closed form says nothing.

    Raises:
        InputError: a value out of range.

    >>> [int(ptd_condition_lower_bound(128, "0.1", form=form).value) for form in ("vector", "resolvent")]
    [438, 518]
    """
    N, eps = checked_order(N, 2), _checked_epsilon(epsilon)
    if form not in _FORMS:
        raise InputError(f"form is {form!r}: one of {', '.join(_FORMS)}.{nearest(form, _FORMS)}")
    grid = np.geomspace(0.5, 60.0, 61) if form == "resolvent" else np.geomspace(1e-6, 1.0, 61)
    with working(precision):

        def height(free: float) -> float:
            return float(_closed(N, eps, Fraction(free), form).mid())

        at = int(np.argmax([height(float(x)) for x in grid]))
        free = min(_best(height, float(grid[max(at - 1, 0)]), float(grid[min(at + 1, 60)])), float(grid[-1]))
        lower = below(_closed(N, eps, Fraction(free), form), 18)
    return issue(
        Certificate(
            kind="ptd_condition_lower_bound",
            statement=f"kappa_2(V) of LegS + E for every E with ||E||_2 <= {eps}, N = {N}",
            parameters={"N": N, "epsilon": str(eps), "form": form},
            lower=lower,
            upper=None,
            precision_bits=precision,
            method="area of a disc in the pseudospectrum against N discs around the eigenvalues",
            witness={"free": free},
        )
    )


def _check_lower_bound(parameters: dict, witness: dict, low: Fraction | None, high: Fraction | None) -> bool:
    N, eps = checked_order(parameters["N"], 2), _checked_epsilon(parameters["epsilon"])
    free, form = exact(witness["free"]), parameters["form"]
    if high is not None or low is None or form not in _FORMS or free <= 0 or (form == "vector" and free > 1):
        return False
    check_definition(N)
    return low <= 1 or bool(_closed(N, eps, free, form) >= ball(low))


# -------------------------------------------------------------------------------------------- area form


def _strip_holds(N: int, eta: Fraction, low: Fraction, high: Fraction, v: Fraction) -> bool:
    """Whether sigma_min <= eta is certain for low <= u <= high, |v'| <= v."""
    square = ball(v) ** 2
    ends = (ball(low), ball(high))
    # a factor is 1 + 4 u m/((u-m)^2 + v^2): in u it rises to sqrt(m^2 + v^2) and falls beyond, so it is least at an end
    product = flint().arb(1)
    for k in range(N):
        m = flint().arb(2 * k + 1) / 2
        parts = [1 + 4 * u * m / ((u - m) ** 2 + square) for u in ends]
        product *= parts[0].min(parts[1])
    return bool(2 * ends[1] <= ball(eta) * (product.sqrt() - 1))


def _strips(N: int, eta: float, count: int) -> list[tuple[float, float, float]]:
    """Strips (low, high, v) of a region in floats; a proposal only."""
    m = np.arange(N) + 0.5

    def logs(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        square = v[:, None] ** 2 + m**2 + u[:, None] ** 2
        return np.arctanh(np.minimum(2 * u[:, None] * m / square, 1 - 1e-15))

    def held(low: np.ndarray, high: np.ndarray, v: np.ndarray) -> np.ndarray:
        total = np.minimum(logs(low, v), logs(high, v)).sum(axis=1)
        return np.log1p(2 * high * (1 + 1e-9) / eta) <= total

    edges = np.geomspace(0.25, float(N * N), 4 * count + 1)
    low, high = edges[:-1], edges[1:]
    below_v, above_v = np.full(low.size, 1e-9), np.full(low.size, float(N * N))
    kept = np.flatnonzero(held(low, high, below_v))
    if not kept.size:
        return []
    # the region spans part of that range: spend the strips there
    edges = np.geomspace(edges[kept[0]], edges[kept[-1] + 1], count + 1)
    low, high = edges[:-1], edges[1:]
    below_v, above_v = np.full(count, 1e-9), np.full(count, float(N * N))
    good = held(low, high, below_v)
    for _ in range(48):
        middle = (below_v + above_v) / 2
        inside = held(low, high, middle)
        below_v, above_v = np.where(inside, middle, below_v), np.where(inside, above_v, middle)
    return [(float(a), float(b), float(v)) for a, b, v, ok in zip(low, high, below_v, good, strict=True) if ok]


def _float_area(strips: list[tuple[float, float, float]]) -> float:
    return sum(2 * v * (b - a) for a, b, v in strips)


def ptd_condition_lower_bound_area(N: int, epsilon: Any, *, strips: int = 200, precision: int = 64) -> Certificate:
    """The lower bound of `ptd_condition_lower_bound` with the area of the region itself instead of a disc.

    Rectangles that lie in the region are proposed by floats and proved in balls, one evaluation each; kappa^2 >= total
    area/(N pi (eta + eps)^2). O(strips N) ball operations.

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
        return _float_area(_strips(N, eta, 48)) / (eta + float(eps)) ** 2

    grid = np.geomspace(1e-5, 1.0, 11)
    at = int(np.argmax([height(float(x)) for x in grid]))
    eta = _best(height, float(grid[max(at - 1, 0)]), float(grid[min(at + 1, 10)]), 9)
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
