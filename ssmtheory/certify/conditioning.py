"""Condition numbers kappa_2(V) of eigenvector matrices with unit 2-norm columns, certified.

kappa_2(V)^2 = lambda_max(G) lambda_max(G^{-1}) with G = V^* V, both enclosed by a Rayleigh quotient and by the
definiteness of upper * I - G. Three sources of G:

* LegS: eigenvectors and their inverse are exact in the scaling x_n = sqrt(2n+1) y_n, checked by A v = lambda v.
* HiPPO-rho: the eigenvectors are X(lambda_j), and X(z)^* X(w) = (1 - conj(phi(z)) phi(w))/(1 + conj(z) + w) with
  phi(lambda_j) = -1/a makes G a Cauchy matrix in mu_j = -1/2 - lambda_j; the poles are certified roots.
* any matrix of floats: certified eigenvectors (acb_mat.eig), which exist where all eigenvalues are simple.
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
    complex_ball,
    exact,
    flint,
    gram_extremes,
    working,
)
from ssmtheory.certify.certificate import Certificate, issue
from ssmtheory.certify.definition import check_definition, checked_order, integer_matrix, legs_matrix
from ssmtheory.certify.supnorm import checked_a, shown_a, stored_a
from ssmtheory.errors import InputError

__all__ = [
    "CHECKS",
    "ball_matrix",
    "condition",
    "eigenvectors",
    "hippo_rho_abscissa",
    "hippo_rho_condition",
    "hippo_rho_poles",
    "kappa_against_rho",
    "legs_condition",
    "stored_matrix",
    "stored_subject",
    "subject",
]


def stored_matrix(matrix: Any, square: bool = True) -> list[list[list[float]]]:
    """A matrix of floats as a certificate stores it: rows of [real, imaginary], each float exactly itself.

    Args:
        matrix: array-like (m, n), real or complex, finite.
        square: whether m = n is required.

    Returns:
        Nested lists.

    Raises:
        InputError: not such a matrix.
    """
    array = np.asarray(matrix)
    if array.ndim != 2 or not array.size or (square and array.shape[0] != array.shape[1]):
        raise InputError(f"the matrix has shape {array.shape}: give a {'square' if square else 'two-dimensional'} one")
    if array.dtype.kind not in "biufc":
        raise InputError(f"the matrix has dtype {array.dtype}: give real or complex numbers")
    array = array.astype(np.complex128)
    if not np.isfinite(array).all():
        raise InputError(f"the matrix has {int((~np.isfinite(array)).sum())} entries that are not finite")
    return [[[float(x.real), float(x.imag)] for x in row] for row in array]


def ball_matrix(stored: Any) -> Any:
    """The exact acb_mat of a stored matrix.

    Args:
        stored: what `stored_matrix` returned, as lists or tuples.

    Returns:
        acb_mat of exact entries.

    Raises:
        InputError: not of that form.
    """
    try:
        rows = [[complex(float(real), float(imag)) for real, imag in row] for row in stored]
    except (TypeError, ValueError) as error:
        raise InputError("a stored matrix consists of rows of [real, imaginary]") from error
    if not rows or len({len(row) for row in rows}) != 1 or not np.isfinite(rows).all():
        raise InputError("a stored matrix has rows of one length and finite entries")
    return flint().acb_mat([[flint().acb(x) for x in row] for row in rows])


def stored_subject(A: Any, E: Any) -> dict[str, Any]:
    """The parameters of a claim about a given matrix A, or about LegS + E for a given E.

    Args:
        A: square array-like, or None.
        E: square array-like, or None.

    Returns:
        {"A": ...} or {"E": ...}, as `stored_matrix`.

    Raises:
        InputError: both or neither were given, or the matrix is not square and finite.
    """
    if (A is None) == (E is None):
        raise InputError("give A, or E (for LegS + E), and not both")
    return {"A": stored_matrix(A)} if E is None else {"E": stored_matrix(E)}


def subject(parameters: dict) -> Any:
    """The ball matrix that `stored_subject` describes; LegS comes from the integer definition, its roots are balls.

    Args:
        parameters: with "A" or "E".

    Returns:
        acb_mat (N, N).

    Raises:
        InputError: not square.
    """
    matrix = ball_matrix(parameters["E"] if "E" in parameters else parameters["A"])
    if matrix.nrows() != matrix.ncols():
        raise InputError(f"the matrix has shape ({matrix.nrows()}, {matrix.ncols()}): give a square one")
    if "E" not in parameters:
        return matrix
    check_definition(matrix.nrows())
    return legs_matrix(matrix.nrows())[0] + matrix


def _condition(gram: Any, inverse: Any | None = None, slack: int = 60) -> Any:
    """kappa as a ball."""
    largest, smallest = gram_extremes(gram, inverse, slack)
    return (largest / smallest).sqrt()


def _unit_gram(columns: Any) -> Any:
    """Gram matrix of the columns after division by their norms."""
    gram = columns.conjugate().transpose() * columns
    n = gram.nrows()
    norms = [gram[j, j].real.sqrt() for j in range(n)]
    return flint().acb_mat([[gram[i, j] / (norms[i] * norms[j]) for j in range(n)] for i in range(n)])


def _two_sided(value: Any) -> tuple[str, str]:
    return below(value), above(value)


def _inside(value: Any, low: Fraction | None, high: Fraction | None) -> bool:
    """Whether low <= every member of the ball <= high."""
    return (low is None or bool(value >= ball(low))) and (high is None or bool(value <= ball(high)))


# ------------------------------------------------------------------------------------------------- LegS


def _legs_vectors(N: int) -> tuple[Any, Any, list[int]]:
    """Integer eigenvectors (columns) of the integer matrix, their exact inverse, and the squared weights 2n+1."""
    module = flint()
    rows, _ = integer_matrix(N)
    A = module.fmpz_mat(rows)
    vectors = module.fmpq_mat(N, N)
    for j in range(N):
        column = [module.fmpq(0)] * j + [module.fmpq(1)]
        for n in range(j + 1, N):  # row n of (A + (j+1)) v = 0
            known = sum((rows[n][k] * column[k] for k in range(j, n) if column[k]), module.fmpq(0))
            column.append(known / (rows[j][j] - rows[n][n]))
        for n, entry in enumerate(column):
            vectors[n, j] = entry
    eigenvalues = module.fmpq_mat(N, N, [rows[i][i] if i == k else 0 for i in range(N) for k in range(N)])
    if module.fmpq_mat(A) * vectors != vectors * eigenvalues:
        raise CertificationError("the eigenvectors do not fit the integer matrix")
    return vectors, vectors.inv(), [2 * n + 1 for n in range(N)]


def _legs_condition(N: int) -> Any:
    module = flint()
    vectors, inverse, weights = _legs_vectors(N)
    V = vectors.table()
    squares = [sum((weights[n] * V[n][j] * V[n][j] for n in range(N)), module.fmpq(0)) for j in range(N)]
    norms = [module.arb(x).sqrt() for x in squares]
    # G = (D V S)^T (D V S), G^{-1} = (S^{-1} V^{-1} D^{-1})(...)^T with D^2 = 2n+1, S = 1/norms: exact up to the roots
    D2 = module.fmpq_mat(N, N, [weights[i] if i == k else 0 for i in range(N) for k in range(N)])
    gram = (vectors.transpose() * D2 * vectors).table()
    inverse_gram = (inverse * D2.inv() * inverse.transpose()).table()
    return _condition(
        module.arb_mat([[module.arb(gram[i][j]) / (norms[i] * norms[j]) for j in range(N)] for i in range(N)]),
        module.arb_mat([[module.arb(inverse_gram[i][j]) * norms[i] * norms[j] for j in range(N)] for i in range(N)]),
    )


def legs_condition(N: int, *, precision: int | None = None) -> Certificate:
    """Enclose kappa_2(V) of HiPPO-LegS; it grows like (3 + 2 sqrt 2)^N.

    Args:
        N: state dimension.
        precision: working precision [bit]; by default 256 + 12 N, which the growth of kappa^2 calls for.

    Returns:
        Two-sided certificate.

    Raises:
        InputError: N or precision out of range.
        CertificationError: not proved at this precision.

    >>> legs_condition(8).value
    77032.418408...
    """
    N = checked_order(N)
    bits = 256 + 12 * N if precision is None else precision
    with working(bits):
        lower, upper = _two_sided(_legs_condition(N))
    return issue(
        Certificate(
            kind="legs_condition",
            statement=f"kappa_2(V) of HiPPO-LegS, unit columns, N = {N}",
            parameters={"N": N},
            lower=lower,
            upper=upper,
            precision_bits=bits,
            method="exact integer eigenvectors; Rayleigh quotients and definiteness of upper I - G and of G^{-1}",
        )
    )


def _check_legs_condition(parameters: dict, witness: dict, low: Fraction | None, high: Fraction | None) -> bool:
    N = checked_order(parameters["N"])
    check_definition(N)
    return _inside(_legs_condition(N), low, high)


# -------------------------------------------------------------------------------------------- HiPPO-rho


def _poles(N: int, a: tuple[Fraction, Fraction]) -> list[Any]:
    """All N zeros of prod(s+k+1) + a prod(s-k) as disjoint balls."""
    module = flint()
    p, q = module.fmpz_poly([1]), module.fmpz_poly([1])
    for k in range(N):
        p, q = p * module.fmpz_poly([k + 1, 1]), q * module.fmpz_poly([-k, 1])
    # coefficients as large as N! cancel near the roots: the exact polynomial is rounded late
    bits = module.ctx.prec
    with working(bits + 6 * N + 64):
        z = complex_ball(a)
        poly = module.acb_poly(module.fmpz_poly(p)) + module.acb_poly([z]) * module.acb_poly(module.fmpz_poly(q))
        try:
            roots = poly.roots(tol=module.arb(2) ** (-bits))
        except ValueError as error:
            raise CertificationError(
                f"the poles of HiPPO-rho, N = {N}, a = {shown_a(a)}, were not isolated: they nearly collide, "
                "or the precision is too small"
            ) from error
    if len(roots) != N:
        raise CertificationError(f"{len(roots)} poles were found instead of {N}")
    return list(roots)


def hippo_rho_poles(N: int, a: Any, *, precision: int = 192) -> list[Any]:
    """Certified poles of HiPPO-rho: disjoint balls, one for each zero of 1 + a phi.

    Args:
        N: state dimension.
        a: as for `hippo_rho_deviation`.
        precision: working precision [bit].

    Returns:
        N acb, in no particular order.

    Raises:
        InputError: a value out of range.
        CertificationError: the poles were not isolated; for a real a they can collide.
    """
    with working(precision):
        return _poles(checked_order(N), checked_a(a))


def _hippo_rho_gram(N: int, a: tuple[Fraction, Fraction]) -> Any:
    module = flint()
    mu = [-module.arb(1) / 2 - pole for pole in _poles(N, a)]
    root = []
    for m in mu:
        if not m.real > 0:
            raise CertificationError("a pole was not separated from Re s = -1/2: give more precision (bits)")
        root.append((2 * m.real).sqrt())
    return module.acb_mat(
        [[root[j] * root[k] / (mu[j].conjugate() + mu[k]) if j != k else 1 for k in range(N)] for j in range(N)]
    )


def hippo_rho_condition(N: int, a: Any, *, precision: int = 192) -> Certificate:
    """Enclose kappa_2(V) of HiPPO-rho.

    `certificate.upper` below rho proves kappa <= rho at this point, `certificate.lower` above it refutes it.

    Args:
        N: state dimension.
        a: as for `hippo_rho_deviation`.
        precision: working precision [bit].

    Returns:
        Two-sided certificate.

    Raises:
        InputError: a value out of range.
        CertificationError: not proved at this precision; where two poles collide no precision is enough.

    >>> round(hippo_rho_condition(64, ("0", "1/11")).value, 4)
    10.6023
    """
    N, pair = checked_order(N), checked_a(a)
    with working(precision):
        lower, upper = _two_sided(_condition(_hippo_rho_gram(N, pair)))
    return issue(
        Certificate(
            kind="hippo_rho_condition",
            statement=f"kappa_2(V) of HiPPO-rho, unit columns, N = {N}, a = {shown_a(pair)}",
            parameters={"N": N, "a": stored_a(pair)},
            lower=lower,
            upper=upper,
            precision_bits=precision,
            method="certified poles, Cauchy Gram matrix, Rayleigh quotients and definiteness",
        )
    )


def kappa_against_rho(certificate: Certificate) -> str:
    """What a certificate of HiPPO-rho's condition number says about kappa <= rho.

    Args:
        certificate: from `hippo_rho_condition`.

    Returns:
        "proved", "refuted" (a certified counterexample) or "undecided" (rho lies inside the bracket).

    Raises:
        InputError: another kind of certificate.
    """
    if certificate.kind != "hippo_rho_condition" or certificate.lower is None or certificate.upper is None:
        raise InputError(f"the certificate is one of {certificate.kind}: give one of hippo_rho_condition")
    real, imag = checked_a(certificate.parameters["a"])
    square = 1 / (real * real + imag * imag)
    if exact(certificate.upper) ** 2 <= square:
        return "proved"
    return "refuted" if exact(certificate.lower) ** 2 > square else "undecided"


def _check_hippo_rho_condition(parameters: dict, witness: dict, low: Fraction | None, high: Fraction | None) -> bool:
    N, pair = checked_order(parameters["N"]), checked_a(parameters["a"])
    check_definition(N)
    return _inside(_condition(_hippo_rho_gram(N, pair)), low, high)


def hippo_rho_abscissa(N: int, a: Any, *, precision: int = 192) -> Certificate:
    """Enclose the spectral abscissa of HiPPO-rho; it lies left of -1/2 for every 0 < |a| < 1.

    Args:
        N: state dimension.
        a: as for `hippo_rho_deviation`.
        precision: working precision [bit].

    Returns:
        Two-sided certificate [rad/s].

    Raises:
        InputError: a value out of range.
        CertificationError: not proved at this precision.

    >>> round(hippo_rho_abscissa(64, ("0", "1/11")).value, 3)
    -0.697
    """
    N, pair = checked_order(N), checked_a(a)
    with working(precision):
        lower, upper = _two_sided(_abscissa(_poles(N, pair)))
    return issue(
        Certificate(
            kind="hippo_rho_abscissa",
            statement=f"spectral abscissa of HiPPO-rho, N = {N}, a = {shown_a(pair)} [rad/s]",
            parameters={"N": N, "a": stored_a(pair)},
            lower=lower,
            upper=upper,
            precision_bits=precision,
            method="certified roots of prod(s+k+1) + a prod(s-k)",
        )
    )


def _abscissa(poles: list[Any]) -> Any:
    top = poles[0].real
    for pole in poles[1:]:
        top = top.max(pole.real)
    return top


def _check_hippo_rho_abscissa(parameters: dict, witness: dict, low: Fraction | None, high: Fraction | None) -> bool:
    N, pair = checked_order(parameters["N"]), checked_a(parameters["a"])
    check_definition(N)
    return _inside(_abscissa(_poles(N, pair)), low, high)


# ------------------------------------------------------------------------------------------- any matrix


def eigenvectors(matrix: Any) -> tuple[list[Any], Any]:
    """Certified eigenvalues and right eigenvectors of a ball matrix.

    Args:
        matrix: acb_mat (N, N).

    Returns:
        (list of acb, acb_mat of columns).

    Raises:
        CertificationError: the eigenvalues were not isolated from each other.
    """
    try:
        values, vectors = matrix.eig(right=True)
    except ValueError as error:
        raise CertificationError(
            "the eigenvalues were not isolated: a multiple one has no certified eigenvectors (perturb the matrix), "
            "close ones need more precision (bits)"
        ) from error
    return list(values), vectors


def condition(A: Any = None, *, E: Any = None, tolerance: float = 1e-12, precision: int | None = None) -> Certificate:
    """Enclose kappa_2(V) of a matrix of floats, each taken as the exact number it is, or of a PTD.

    Args:
        A: array-like (N, N), real or complex, with simple eigenvalues.
        E: instead of A, a perturbation of LegS in its orthonormal basis: the claim is about A_H + E, whose square roots
            are balls. Give one of the two.
        tolerance: relative width of the bracket, at least 2^-48.
        precision: working precision [bit]; by default doubled from 128 to 4096 until the tolerance is met.

    Returns:
        Two-sided certificate.

    Raises:
        InputError: A is no finite square matrix.
        CertificationError: eigenvalues not isolated, or kappa not enclosed, at this precision.

    >>> condition([[-1.0, 0.0], [1.0, -2.0]]).value
    2.4142135...
    """
    given = stored_subject(A, E)
    n = len(next(iter(given.values())))
    slack = exact(tolerance)
    if not Fraction(1, 2**48) <= slack < 1:
        raise InputError(f"tolerance is {tolerance!r}: give a relative width from 2^-48 to 1")
    choices = [128 * 2**k for k in range(6)] if precision is None else [precision]
    for bits in choices:
        with working(bits):
            try:
                lower, upper = _two_sided(_condition(_unit_gram(eigenvectors(subject(given))[1])))
            except CertificationError:
                if bits == choices[-1]:
                    raise
                continue
        if exact(upper) - exact(lower) <= slack * exact(lower):
            break
    else:
        raise CertificationError(f"kappa was only enclosed in [{lower}, {upper}]: give more precision (bits)")
    return issue(
        Certificate(
            kind="condition",
            statement="kappa_2(V), unit columns, of "
            + (f"a given {n} by {n} matrix" if E is None else f"LegS + E for a given E, N = {n}"),
            parameters=given,
            lower=lower,
            upper=upper,
            precision_bits=bits,
            method="certified eigenvectors (acb_mat.eig), Rayleigh quotients and definiteness",
        )
    )


def _check_condition(parameters: dict, witness: dict, low: Fraction | None, high: Fraction | None) -> bool:
    return _inside(_condition(_unit_gram(eigenvectors(subject(parameters))[1])), low, high)


CHECKS = {
    "condition": _check_condition,
    "hippo_rho_abscissa": _check_hippo_rho_abscissa,
    "hippo_rho_condition": _check_hippo_rho_condition,
    "legs_condition": _check_legs_condition,
}
