"""Two-sided suprema over all real frequencies for given matrices, and the deviation of a PTD with given E.

The response on the axis is a sum of simple fractions over certified eigenvalues. Around a centre c its Taylor
polynomial has coefficients computed at a point, hence sharp however ill-conditioned the eigenvectors are; what is cut
off is bounded by sum_j |r_j| (d/|z_j|)^K / (|z_j| - d), z_j = ic - lambda_j, on |omega - c| <= d. Cells are half as
wide as the nearest pole is far: few cover a band of any width. Beyond it ||(i omega - A)^{-1}|| <= 1/(omega - ||A||_F).

The lower bound is one linear solve in balls, which shares nothing with that expansion.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

from ssmtheory.certify.balls import (
    CertificationError,
    above,
    ball,
    below,
    exact,
    flint,
    poly_at_most,
    working,
)
from ssmtheory.certify.certificate import Certificate, issue
from ssmtheory.certify.conditioning import ball_matrix, eigenvectors, stored_matrix
from ssmtheory.certify.definition import check_definition, checked_index, legs_matrix
from ssmtheory.certify.supnorm import maximise
from ssmtheory.errors import InputError

__all__ = ["CHECKS", "frobenius", "ptd_deviation", "sup_norm"]

#: terms of a Taylor polynomial
TERMS = 20
#: cells that one search may visit before it gives up
MAX_CELLS = 100_000


def frobenius(matrix: Any) -> Any:
    """Frobenius norm of a ball matrix, an upper bound of its 2-norm.

    Args:
        matrix: acb_mat.

    Returns:
        arb.
    """
    return sum((abs(x) ** 2 for x in matrix.entries()), flint().arb(0)).sqrt()


class _Modal:
    """C (sI - A)^{-1} B + D for one input, by certified eigenvectors."""

    def __init__(self, A: Any, B: Any, C: Any | None, D: Any | None) -> None:
        module = flint()
        self.poles, vectors = eigenvectors(A)
        try:
            weights = vectors.solve(B)
        except ZeroDivisionError as error:
            raise CertificationError("the eigenvectors are singular at this precision: give more bits") from error
        outputs = vectors if C is None else C * vectors
        n, self.size = len(self.poles), outputs.nrows()
        self.residues = module.acb_mat([[outputs[i, j] * weights[j, 0] for j in range(n)] for i in range(self.size)])
        square = [sum((abs(self.residues[i, j]) ** 2 for i in range(self.size)), module.arb(0)) for j in range(n)]
        self.strength = [x.sqrt().upper() for x in square]
        self.direct = D

    def reach(self, centre: Fraction) -> float:
        """A float below the distance of i centre from the poles."""
        at = complex(0.0, float(centre))
        return min(abs(at - complex(p)) for p in self.poles) * 0.999

    def expand(self, centre: Any, radius: Any) -> tuple[Any, Any]:
        """Taylor coefficients in t = omega - centre, (size, TERMS), and the bound of the rest on |t| <= radius."""
        module = flint()
        rows, rest = [], module.arb(0)
        for pole, strength in zip(self.poles, self.strength, strict=True):
            z = module.acb(0, centre) - pole
            ratio, power, row = module.acb(0, -1) / z, 1 / z, []
            for _ in range(TERMS):
                row.append(power)
                power = power * ratio
            distance = abs(z)
            if not distance > radius:
                raise CertificationError("a pole lies on the imaginary axis, or too near: there is no finite supremum")
            rest += strength * (radius / distance) ** TERMS / (distance - radius)
            rows.append(row)
        coefficients = self.residues * module.acb_mat(rows)
        if self.direct is not None:
            for i in range(self.size):
                coefficients[i, 0] = coefficients[i, 0] + self.direct[i, 0]
        return coefficients, rest


class _Legs:
    """X(s) of LegS, or one of its outputs: products of N factors, tame on small discs."""

    def __init__(self, N: int, output: int | None) -> None:
        self.N, self.output = N, output
        self.size = N if output is None else 1

    def reach(self, centre: Fraction) -> float:
        return math.hypot(1.0, float(centre)) / 2

    def _series(self, omega: Any, terms: int) -> list[Any]:
        module = flint()
        s = module.acb_series([module.acb(0, omega), module.acb(0, 1)], terms)
        top = self.N if self.output is None else self.output + 1
        value, found = 1 / (s + 1), []
        for n in range(top):
            if n:
                value = value * (s - n + 1) / (s + n + 1)
            if self.output is None or n == self.output:
                scaled = value * module.arb(2 * n + 1).sqrt()
                found.append([scaled[k] for k in range(terms)])
        return found

    def expand(self, centre: Any, radius: Any) -> tuple[Any, Any]:
        module = flint()
        around = (centre - radius).union(centre + radius)
        last = [row[TERMS] for row in self._series(around, TERMS + 1)]
        rest = sum((abs(x) ** 2 for x in last), module.arb(0)).sqrt() * radius**TERMS
        return module.acb_mat(self._series(centre, TERMS)), rest


def _stays_below(parts: list[tuple[int, Any]], low: Fraction, high: Fraction, bound: Fraction) -> bool:
    """Whether the norm of a signed sum of responses is at most `bound` on [low, high]."""
    module = flint()
    limit = ball(bound)
    pending: list[tuple[Fraction, Fraction]] = []
    edge = low
    while edge < high:  # cells half as wide as the nearest pole is far
        step = _short(Fraction(0.5 * min(part.reach(edge) for _, part in parts)))
        if step <= 0:
            return False
        following = min(high, edge + step)
        pending.append((edge, following))
        edge = following
        if len(pending) > MAX_CELLS:
            return False
    visited = 0
    while pending:
        a, b = pending.pop()
        visited += 1
        if visited > MAX_CELLS:
            return False
        centre, radius = ball((a + b) / 2), ball((b - a) / 2)
        total: Any = None
        rest = module.arb(0)
        for sign, part in parts:
            coefficients, cut = part.expand(centre, radius)
            coefficients = coefficients * sign
            total = coefficients if total is None else total + coefficients
            rest += cut
        room = limit - rest
        if room > 0:
            gram = total.conjugate().transpose() * total
            square = [
                sum((gram[i, d - i].real for i in range(max(0, d - TERMS + 1), min(d, TERMS - 1) + 1)), module.arb(0))
                for d in range(2 * TERMS - 1)
            ]
            if square[0] > limit * limit:
                return False
            if poly_at_most(square, radius, room * room):
                continue
        if b - a < Fraction(1, 2**60):
            return False
        middle = (a + b) / 2
        pending += [(middle, b), (a, middle)]
    return True


def _short(x: Fraction) -> Fraction:
    scale = max(0, 24 - (x.numerator.bit_length() - x.denominator.bit_length()))
    return Fraction(int(x * 2**scale), 2**scale)


# ------------------------------------------------------------------------------------ given matrices


def _column_form(A: Any, B: Any, C: Any, D: Any) -> tuple[Any, Any, Any, Any]:
    """One input: a system with one output is transposed."""
    if B.ncols() > 1:
        return A.transpose(), C.transpose(), B.transpose(), D.transpose()
    return A, B, C, D


def _value(A: Any, B: Any, C: Any | None, D: Any | None, omega: Fraction) -> Any:
    """Response vector at i omega by a linear solve in balls."""
    module = flint()
    n = A.nrows()
    shifted = module.acb_mat([[(module.acb(0, ball(omega)) if i == j else 0) for j in range(n)] for i in range(n)]) - A
    try:
        states = shifted.solve(B)
    except ZeroDivisionError as error:
        raise CertificationError(f"i {float(omega)} is an eigenvalue at this precision: give more bits") from error
    response = states if C is None else C * states
    return response if D is None else response + D


def _checked_system(parameters: dict) -> tuple[Any, Any, Any, Any]:
    A, B, C, D = (ball_matrix(parameters[name]) for name in "ABCD")
    shapes = [(m.nrows(), m.ncols()) for m in (A, B, C, D)]
    (n, square), (rows, m), (p, columns), direct = shapes
    if n != square or rows != n or columns != n or direct != (p, m):
        raise InputError(f"A, B, C, D have shapes {shapes}: give (N, N), (N, m), (p, N), (p, m)")
    if min(m, p) != 1:
        raise InputError(f"the system has {m} inputs and {p} outputs: give one input or one output")
    return _column_form(A, B, C, D)


def sup_norm(
    A: Any, B: Any, C: Any, D: Any | None = None, *, tolerance: float = 1e-9, precision: int = 192
) -> Certificate:
    """Enclose sup over all real omega of ||C (i omega - A)^{-1} B + D||_2, matrices of floats taken exactly.

    It is the H-infinity norm where A is stable (see `stability`); the supremum exists without that.

    Args:
        A: array-like (N, N) with simple eigenvalues off the imaginary axis.
        B: array-like (N, m), or (N,).
        C: array-like (p, N), or (N,); one input or one output: min(m, p) = 1.
        D: array-like (p, m), or a number; zero by default.
        tolerance: relative width of the bracket.
        precision: working precision [bit].

    Returns:
        Two-sided certificate; the signed frequency of the lower bound is `witness["omega"]` [rad/s], "inf" for the
        limit.

    Raises:
        InputError: shapes do not fit, or an entry is not finite.
        CertificationError: not proved with this precision and effort.

    >>> sup_norm([[-1.0, 4.0], [-4.0, -1.0]], [1.0, 0.0], [1.0, 0.0]).value
    0.5145427570...
    """
    a = np.atleast_2d(np.asarray(A))
    b = np.asarray(B)
    b = b.reshape(-1, 1) if b.ndim < 2 else b
    c = np.atleast_2d(np.asarray(C))
    d = np.zeros((c.shape[0], b.shape[1])) if D is None else np.atleast_2d(np.asarray(D))
    slack = exact(tolerance)
    parameters = {
        "A": stored_matrix(a),
        "B": stored_matrix(b, square=False),
        "C": stored_matrix(c, square=False),
        "D": stored_matrix(d, square=False),
    }
    with working(precision):
        system = _checked_system(parameters)
        poles = np.linalg.eigvals(a.astype(complex))

        def height(omega: np.ndarray) -> np.ndarray:
            shifted = 1j * omega[:, None, None] * np.eye(len(a)) - a
            return np.linalg.norm(c @ np.linalg.solve(shifted, b.astype(complex)) + d, axis=(1, 2))

        omega = maximise(_blockwise(height), _grid(poles, real=False), 6)
        value = frobenius(_value(*system, Fraction(omega)))
        witness: dict[str, Any] = {"omega": omega}
        if frobenius(system[3]) > value:  # the supremum is the limit at infinity, or near it
            value, witness = frobenius(system[3]), {"omega": "inf"}
        lower, upper = below(value), above(value * (1 + ball(slack)))
    return issue(
        Certificate(
            kind="sup_norm",
            statement=f"sup over real omega of ||C (i omega - A)^-1 B + D||, a given system with {len(a)} states",
            parameters=parameters,
            lower=lower,
            upper=upper,
            precision_bits=precision,
            method="certified eigenvectors, Taylor polynomials on cells, norms beyond; one linear solve from below",
            witness=witness,
        )
    )


def _check_sup_norm(parameters: dict, witness: dict, low: Fraction | None, high: Fraction | None) -> bool:
    A, B, C, D = _checked_system(parameters)
    if low is not None and low > 0:
        at_infinity = witness["omega"] == "inf"
        reached = frobenius(D) if at_infinity else frobenius(_value(A, B, C, D, exact(witness["omega"])))
        if not reached >= ball(low):
            return False
    if high is None:
        return True
    # beyond the band: ||D|| + ||C|| ||B|| / (omega - ||A||)
    room = ball(high) - frobenius(D)
    if not room > 0:
        return False
    edge = _up(frobenius(A) + frobenius(C) * frobenius(B) / room)
    return _stays_below([(1, _Modal(A, B, C, D))], -edge, edge, high)


def _up(x: Any) -> Fraction:
    """A rational above a ball."""
    if not x.is_finite():
        raise CertificationError("a ball grew without bound: give more precision (bits)")
    return exact(above(x, 9))


def _blockwise(height: Any, block: int = 128) -> Any:
    """The same function, so many frequencies at a time."""

    def heights(omega: np.ndarray) -> np.ndarray:
        try:
            return np.concatenate([height(omega[i : i + block]) for i in range(0, len(omega), block)])
        except np.linalg.LinAlgError as error:
            raise CertificationError(
                "an eigenvalue lies on the imaginary axis, or too near: there is no finite supremum"
            ) from error

    return heights


def _grid(poles: np.ndarray, real: bool) -> np.ndarray:
    """Frequencies where a peak can be: near the poles' imaginary parts, and on a logarithmic scale; a proposal only."""
    near = np.concatenate([poles.imag + np.abs(poles.real) * k for k in (-0.6, -0.2, 0.0, 0.2, 0.6)])
    top = 4 * (1 + np.abs(poles).max())
    scale = np.geomspace(1e-3 * max(np.abs(poles).min(), 1e-6), top, 600)
    grid = np.unique(np.concatenate([near, scale, -scale, [0.0]]))
    return grid[grid >= 0] if real else grid


# --------------------------------------------------------------------------------------------- PTD


def _perturbation(parameters: dict) -> tuple[int, Any, bool, int | None]:
    E = ball_matrix(parameters["E"])
    N = E.nrows()
    if E.ncols() != N:
        raise InputError(f"E has shape ({N}, {E.ncols()}): give a square one")
    real = all(x.imag.is_zero() for x in E.entries())
    output = parameters["output"]
    return N, E, real, None if output == "worst" else checked_index(output, N, "output")


def ptd_deviation(E: Any, output: int | str = "worst", *, tolerance: float = 1e-9, precision: int = 192) -> Certificate:
    """Enclose sup over all real omega of ||X_PTD - X|| with X_PTD = (i omega - A_H - E)^{-1} B, for a given E.

    Compare with eps/(1/2 - eps), eps = ||E||_2 < 1/2 (`ptd_guarantee`), and with the bound of arXiv 2310.01698.

    Args:
        E: array-like (N, N) of floats, real or complex, taken exactly, in LegS's orthonormal basis; A_H + E must have
            simple eigenvalues off the imaginary axis.
        output: "worst" for the supremum over all unit C, or n for C = e_n.
        tolerance: relative width of the bracket.
        precision: working precision [bit].

    Returns:
        Two-sided certificate; the signed frequency of the lower bound is `witness["omega"]` [rad/s]. Where A_H + E is
        unstable (see `stability`) it is a supremum on the axis, not an H-infinity norm.

    Raises:
        InputError: E is no finite square matrix, or output out of range.
        CertificationError: not proved with this precision and effort.
    """
    parameters = {"E": stored_matrix(E), "output": output}
    slack = exact(tolerance)
    e = np.asarray(E, dtype=complex)
    with working(precision):
        N, _, real, which = _perturbation(parameters)
        n = np.arange(N)
        a = -np.sqrt(np.outer(2 * n + 1, 2 * n + 1)) * np.tri(N, k=-1) - np.diag(n + 1.0)
        b = np.sqrt(2 * n + 1.0)[:, None].astype(complex)

        def height(omega: np.ndarray) -> np.ndarray:
            shifted = 1j * omega[:, None, None] * np.eye(N) - a
            gap = np.linalg.solve(shifted - e, b) - np.linalg.solve(shifted, b)
            return np.linalg.norm(gap if which is None else gap[:, which : which + 1], axis=(1, 2))

        omega = maximise(_blockwise(height), _grid(np.linalg.eigvals(a + e), real), 6)
        value = _ptd_value(parameters, Fraction(omega)) if e.any() else Fraction(0)
        lower, upper = below(value), above(value * (1 + ball(slack)) if e.any() else value)
    return issue(
        Certificate(
            kind="ptd_deviation",
            statement=f"sup over real omega of ||X_PTD - X|| for a given E, N = {N}, "
            + ("the worst unit C" if which is None else f"C = e_{which}"),
            parameters=parameters,
            lower=lower,
            upper=upper,
            precision_bits=precision,
            method="certified eigenvectors and the product form of X, Taylor polynomials on cells, norms beyond",
            witness={"omega": omega},
        )
    )


def _ptd_value(parameters: dict, omega: Fraction) -> Any:
    N, E, _, output = _perturbation(parameters)
    A, B = legs_matrix(N)
    gap = _value(A + E, B, None, None, omega) - _value(A, B, None, None, omega)
    return frobenius(gap) if output is None else abs(gap[output, 0])


def _check_ptd_deviation(parameters: dict, witness: dict, low: Fraction | None, high: Fraction | None) -> bool:
    N, E, real, output = _perturbation(parameters)
    check_definition(N)
    if low is not None and low > 0 and not _ptd_value(parameters, exact(witness["omega"])) >= ball(low):
        return False
    if high is None:
        return True
    if all(x.is_zero() for x in E.entries()):
        return high >= 0
    if high <= 0:
        return False
    module = flint()
    A, B = legs_matrix(N)
    # beyond the band: ||R_E|| ||E|| ||X|| <= ||E|| N / (omega (omega - ||A + E||))
    reach = frobenius(A + E)
    edge = _up(reach + (frobenius(E) * N / ball(high)).sqrt())
    C = None if output is None else module.acb_mat([[int(k == output) for k in range(N)]])
    parts = [(1, _Modal(A + E, B, C, None)), (-1, _Legs(N, output))]
    return _stays_below(parts, Fraction(0) if real else -edge, edge, high)


CHECKS = {"ptd_deviation": _check_ptd_deviation, "sup_norm": _check_sup_norm}
