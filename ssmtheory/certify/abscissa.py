"""Spectral abscissa of a given matrix, and what holds for every perturbation E of LegS of a given size.

`stability`: all eigenvalues enclosed (two-sided abscissa), or an upper bound that needs no eigenvectors and scales
further: the numerical range, or Lyapunov's P > 0, A^* P + P A < 2 sigma P. Floats propose P, balls prove it.

`ptd_guarantee`: A_H + A_H^T = -I - B B^T, so that with mu = lambda_max((E + E^*)/2) < 1/2 the sum A_H + E is stable and
||X_PTD - X|| = ||R_E E X|| <= ||E||_2 / (1/2 - mu), at every frequency and for every N.
"""

from __future__ import annotations

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
    is_definite,
    largest_eigenvalue,
    working,
)
from ssmtheory.certify.certificate import Certificate, issue
from ssmtheory.certify.conditioning import ball_matrix, stored_matrix, stored_subject, subject
from ssmtheory.certify.definition import check_definition
from ssmtheory.errors import InputError, nearest

__all__ = ["CHECKS", "ptd_guarantee", "stability"]

_METHODS = ("eigenvalues", "lyapunov", "numerical-range")


def _eigenvalues(matrix: Any) -> list[Any]:
    try:
        return list(matrix.eig(multiple=True))
    except ValueError as error:
        raise CertificationError("the eigenvalues were not enclosed: give more precision (bits)") from error


def _identity(n: int, scale: Any = 1) -> Any:
    return flint().acb_mat([[scale if i == j else 0 for j in range(n)] for i in range(n)])


def stability(A: Any = None, *, E: Any = None, method: str = "eigenvalues", precision: int = 128) -> Certificate:
    """Enclose or bound the spectral abscissa max Re lambda; an upper bound below 0 proves stability.

    Args:
        A: array-like (N, N) of floats, real or complex, taken exactly.
        E: instead of A, a perturbation of LegS in its orthonormal basis: the claim is about A_H + E, whose square roots
            are balls. Give one of the two.
        method: "eigenvalues" (two-sided), "lyapunov" or "numerical-range" (upper bound only, for larger N).
        precision: working precision [bit].

    Returns:
        Certificate of the spectral abscissa [rad/s]; `upper` below "0" is stability, `lower` above "0" instability.

    Raises:
        InputError: no finite square matrix, or an unknown method.
        CertificationError: not proved at this precision.

    >>> float(stability([[-1.0, 100.0], [0.0, -2.0]]).upper) < -0.99
    True
    """
    if method not in _METHODS:
        raise InputError(f"method is {method!r}: one of {', '.join(_METHODS)}.{nearest(method, _METHODS)}")
    given = stored_subject(A, E)
    parameters: dict[str, Any] = {**given, "method": method}
    n = len(next(iter(given.values())))
    witness: dict[str, Any] = {}
    with working(precision) as module:
        matrix_balls = subject(parameters)
        if method == "eigenvalues":
            values = _eigenvalues(matrix_balls)
            top = max((x.real.upper() for x in values), key=lambda x: exact(above(x)))
            floor = max((x.real.lower() for x in values), key=lambda x: exact(below(x)))
            lower, upper = below(floor), above(top)
        elif method == "numerical-range":
            shift = frobenius_bound(matrix_balls)
            _, high = largest_eigenvalue(_symmetric(matrix_balls) + _identity(n, shift))
            lower, upper = None, above(high - shift)
        else:
            floats = np.array([[complex(x) for x in row] for row in matrix_balls.tolist()])
            lower, upper, P = _propose_lyapunov(floats)
            witness["P"] = stored_matrix(P)
            del module
    what = f"a given {n} by {n} matrix" if E is None else f"LegS + E for a given E, N = {n}"
    return issue(
        Certificate(
            kind="stability",
            statement=f"spectral abscissa of {what} [rad/s]",
            parameters=parameters,
            lower=lower,
            upper=upper,
            precision_bits=precision,
            method={
                "eigenvalues": "enclosures of all eigenvalues (acb_mat.eig)",
                "lyapunov": "P > 0 and A^* P + P A < 2 sigma P, P proposed by floats",
                "numerical-range": "definiteness of mu I - (A + A^*)/2",
            }[method],
            witness=witness,
        )
    )


def frobenius_bound(matrix: Any) -> Any:
    """An exact ball not below the Frobenius norm, hence not below any norm of the symmetric part.

    Args:
        matrix: acb_mat.

    Returns:
        arb of radius zero.
    """
    return sum((abs(x) ** 2 for x in matrix.entries()), flint().arb(1)).sqrt().upper()


def _symmetric(matrix: Any) -> Any:
    return (matrix + matrix.conjugate().transpose()) * (flint().arb(1) / 2)


def _propose_lyapunov(A: np.ndarray) -> tuple[None, str, np.ndarray]:
    """A rate sigma between the float abscissa and 0 (or just above the abscissa), and a P for it."""
    from scipy.linalg import solve_continuous_lyapunov

    abscissa = float(np.linalg.eigvals(A).real.max())
    rate = abscissa + 0.05 * max(abs(abscissa), 1e-3)
    shifted = A - rate * np.eye(len(A))
    P = solve_continuous_lyapunov(shifted.conj().T, -np.eye(len(A)))
    P = (P + P.conj().T) / 2
    return None, above(exact(rate)), P


def _check_stability(parameters: dict, witness: dict, low: Fraction | None, high: Fraction | None) -> bool:
    A = subject(parameters)
    n = A.nrows()
    method = parameters["method"]
    if method == "eigenvalues":
        values = _eigenvalues(A)
        above_low = low is None or any(x.real >= ball(low) for x in values)
        return above_low and (high is None or all(x.real <= ball(high) for x in values))
    if low is not None or high is None:
        return False
    rate = ball(high)
    if method == "numerical-range":
        # >= is enough for the claim, > is what is proved: the bound was rounded up
        return is_definite(_identity(n, rate) - _symmetric(A))
    if method != "lyapunov":
        return False
    P = ball_matrix(witness["P"])
    if P.nrows() != n or P.ncols() != n:
        return False
    P = _symmetric(P)
    shifted = A - _identity(n, rate)
    residual = shifted.conjugate().transpose() * P + P * shifted
    return is_definite(P) and is_definite(residual * -1)


def ptd_guarantee(E: Any, *, precision: int = 128) -> Certificate:
    """Bound sup ||X_PTD - X|| from norms of E alone: ||E||_2 / (1/2 - mu), mu = lambda_max((E + E^*)/2) < 1/2.

    No eigenvectors, no frequencies: it scales to any N. `ptd_deviation` is the sharp value.

    Args:
        E: array-like (N, N) of floats, real or complex, taken exactly, in LegS's orthonormal basis.
        precision: working precision [bit].

    Returns:
        Certificate with `upper` alone, the bound of the deviation; its proof includes that A_H + E is stable.

    Raises:
        InputError: E is no finite square matrix.
        CertificationError: mu >= 1/2 (outside the theorem), or not proved at this precision.

    >>> ptd_guarantee([[0.1, 0.0], [0.0, 0.1]]).upper[:6]
    '2.5000'
    """
    parameters = {"E": stored_matrix(E)}
    with working(precision):
        bound = above(_guarantee(ball_matrix(parameters["E"])))
    return issue(
        Certificate(
            kind="ptd_guarantee",
            statement=f"sup over real omega of ||X_PTD - X|| for a given E, N = {len(parameters['E'])}, any unit C",
            parameters=parameters,
            lower=None,
            upper=bound,
            precision_bits=precision,
            method="||E||_2 / (1/2 - lambda_max((E + E^*)/2)), both enclosed by definiteness",
        )
    )


def _guarantee(E: Any) -> Any:
    n = E.nrows()
    if all(x.is_zero() for x in E.entries()):
        return flint().arb(0)
    norm = largest_eigenvalue(E.conjugate().transpose() * E)[1].sqrt()
    shift = frobenius_bound(E)
    mu = largest_eigenvalue(_symmetric(E) + _identity(n, shift))[1] - shift
    room = flint().arb(1) / 2 - mu
    if not room > 0:
        raise CertificationError("lambda_max((E + E^*)/2) is not below 1/2: no theorem bounds this deviation")
    return norm / room


def _check_ptd_guarantee(parameters: dict, witness: dict, low: Fraction | None, high: Fraction | None) -> bool:
    E = ball_matrix(parameters["E"])
    if low is not None or high is None or E.nrows() != E.ncols():
        return False
    check_definition(E.nrows())
    return bool(_guarantee(E) <= ball(high))


CHECKS = {"ptd_guarantee": _check_ptd_guarantee, "stability": _check_stability}
