"""How well a state matrix can be diagonalised: condition numbers of eigenvectors, in as many digits as it takes.

kappa_2(V) is that of the eigenvectors with unit 2-norm columns, which is within sqrt(N) of the best column scaling.
Double precision cannot tell kappa beyond about 1e12: for HiPPO-LegS it says 1e19 at N = 32, where the truth is 1.2e23.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from ssmtheory.errors import InputError, require
from ssmtheory.lti.base import LTI, as_complex
from ssmtheory.lti.errors import IllPosedDiagonalization
from ssmtheory.lti.systems import DiagonalStateSpace, _Realised
from ssmtheory.typing import Array

__all__ = ["EigenvectorCondition", "diagonalize", "eigenvector_condition"]

#: Largest condition number that double precision is trusted with, where no digits are asked for.
_DOUBLE = 1e6
#: Largest condition number that `diagonalize` accepts. A defective pair of eigenvalues shows as 1e8 or more in double
#: precision, as they split by the square root of the unit roundoff.
_DIAGONALIZE = 1e7


@dataclass(frozen=True)
class EigenvectorCondition:
    """Condition number of the eigenvectors of a matrix.

    Attributes:
        value: kappa_2(V), inf beyond the range of doubles.
        log10: its decimal logarithm.
        text: its leading digits, as many as are known to hold.
        bits: working precision in bits; 53 for double precision.
    """

    value: float
    log10: float
    text: str
    bits: int

    def __float__(self) -> float:
        return self.value


def _unit_columns(V: Array) -> Array:
    norms = np.linalg.norm(V, axis=0)
    return V / np.where(norms == 0, 1.0, norms)


def _double(A: Array) -> tuple[Array, Array, float]:
    """Eigenvalues, unit eigenvectors and their condition number in double precision."""
    w, V = np.linalg.eig(A)
    V = _unit_columns(V)
    s = np.linalg.svd(V, compute_uv=False)
    return w, V, math.inf if s[-1] == 0 else float(s[0] / s[-1])


def eigenvector_condition(
    A: Any,
    digits: int | None = None,
    *,
    scaling_squared: Sequence[int | Fraction] | None = None,
    max_bits: int = 1 << 15,
) -> EigenvectorCondition:
    """kappa_2(V) of the eigenvectors with unit 2-norm columns.

    In extended precision the eigenvectors come from substitution where A is triangular (its eigenvalues are then known
    exactly), else from Arb's QR iteration. The precision is raised until two results agree.

    Args:
        A: (N, N) array; or exact entries: nested sequences of int or Fraction; or a function bits -> nested sequence of
            python-flint numbers of at least that precision.
        digits: decimal digits wanted; None for double precision where it can be trusted, else 15 digits.
        scaling_squared: (N,) positive rationals d: the matrix meant is D^{1/2} A D^{-1/2}. HiPPO-LegS is rational only
            up to such a scaling, by 2n + 1.
        max_bits: precision at which to give up.

    Returns:
        `EigenvectorCondition`.

    Raises:
        IllPosedDiagonalization: A is defective, or cannot be told from a defective matrix with `max_bits`.
        MissingDependencyError: extended precision is needed and python-flint is not installed.
        InputError: not square, or a scaling that does not fit.

    >>> eigenvector_condition([[2, 0], [1, 3]], digits=15).text      # 1 + sqrt(2)
    '2.41421356237310'
    """
    numeric: Array | None = None
    if isinstance(A, LTI):
        A = A.to_dense().A
    if isinstance(A, np.ndarray):
        numeric = as_complex("A", A)
        if numeric.ndim != 2 or numeric.shape[0] != numeric.shape[1] or numeric.shape[0] == 0:
            raise InputError(f"A has shape {numeric.shape}: must be square, (N, N) with N >= 1")
    if digits is None and numeric is not None and scaling_squared is None:
        _, _, kappa = _double(numeric)
        if kappa <= _DOUBLE:
            return EigenvectorCondition(kappa, math.log10(kappa), f"{kappa:.6g}", 53)
    wanted = 15 if digits is None else int(digits)
    if wanted < 1:
        raise InputError(f"digits={digits!r}: must be at least 1")
    flint = require("flint", "rigor", "a condition number in extended precision")
    entries = _exact(A, numeric)
    bits, before = max(192, int(4 * wanted)), None
    while bits <= max_bits:
        try:
            found = _extended(flint, entries(bits), scaling_squared, bits, wanted)
        except ZeroDivisionError:
            found = None
        if found is not None:
            with flint.ctx.workprec(bits):
                if before is not None and abs(found / before - 1) < flint.arb(10) ** (-wanted):
                    return _answer(flint, found, wanted, bits)
            before = found
        bits *= 2
    raise IllPosedDiagonalization(
        f"the eigenvectors cannot be told from dependent ones with {max_bits} bits: the matrix is defective, or so "
        "nearly; keep it as it is (values by substitution need no eigenvectors), or raise max_bits",
        math.inf,
    )


def _answer(flint: Any, kappa: Any, digits: int, bits: int) -> EigenvectorCondition:
    middle = kappa.mid()
    log10 = float((middle.log() / flint.arb(10).log()).mid())
    text = middle.str(digits, radius=False)
    return EigenvectorCondition(float(middle) if log10 < 308 else math.inf, log10, text, bits)


def _exact(A: Any, numeric: Array | None) -> Callable[[int], list[list[Any]]]:
    """bits -> rows of python-flint numbers."""
    import flint

    def number(x: Any) -> Any:
        if isinstance(x, Fraction):
            return flint.acb(flint.arb(flint.fmpq(x.numerator, x.denominator)))
        if isinstance(x, complex | np.complexfloating):
            return flint.acb(float(x.real), float(x.imag))
        if isinstance(x, int | np.integer):
            return flint.acb(int(x))
        return flint.acb(float(x)) if isinstance(x, float | np.floating) else flint.acb(x)

    if numeric is not None:
        rows = [[number(complex(x)) for x in row] for row in numeric]
        return lambda bits: rows

    def read(bits: int) -> list[list[Any]]:
        given = A(bits) if callable(A) else A
        table = [[number(x) for x in row] for row in given]
        if not table or any(len(row) != len(table) for row in table):
            raise InputError(f"A has {len(table)} rows of {sorted({len(r) for r in table})} entries: must be square")
        return table

    return read


def _extended(flint: Any, rows: list[list[Any]], scaling: Any, bits: int, digits: int) -> Any:
    """kappa as an arb, not certified; raises ZeroDivisionError where this precision does not do."""
    with flint.ctx.workprec(bits):
        n = len(rows)
        lower = all(rows[i][j] == 0 for i in range(n) for j in range(i + 1, n))
        upper = not lower and all(rows[i][j] == 0 for i in range(n) for j in range(i))
        if lower or upper:
            columns = _triangular_vectors(flint, rows, lower)
        else:
            _, right = flint.acb_mat(rows).eig(right=True, algorithm="approx")
            columns = [[right[i, j] for i in range(n)] for j in range(n)]
        if scaling is not None:
            scale = [flint.arb(flint.fmpq(Fraction(d).numerator, Fraction(d).denominator)).sqrt() for d in scaling]
            if len(scale) != n:
                raise InputError(f"scaling_squared has {len(scale)} entries: must have {n}")
            columns = [[x * d for x, d in zip(column, scale, strict=True)] for column in columns]
        for j, column in enumerate(columns):
            norm = sum((abs(x) ** 2 for x in column), flint.arb(0)).sqrt()
            columns[j] = [_middle(flint, x / norm) for x in column]
        V = flint.acb_mat([[columns[j][i] for j in range(n)] for i in range(n)])
        inverse = V.inv()
        return _norm(flint, V, n, digits) * _norm(flint, inverse, n, digits)


def _middle(flint: Any, x: Any) -> Any:
    return flint.acb(x.real.mid(), x.imag.mid())


def _triangular_vectors(flint: Any, rows: list[list[Any]], lower: bool) -> list[list[Any]]:
    """Eigenvectors of a triangular matrix by substitution, its eigenvalues being on the diagonal."""
    n = len(rows)
    columns = []
    for j in range(n):
        x = [flint.acb(0)] * n
        x[j] = flint.acb(1)
        for i in range(j + 1, n) if lower else range(j - 1, -1, -1):
            known = sum((rows[i][k] * x[k] for k in (range(j, i) if lower else range(i + 1, j + 1))), flint.acb(0))
            gap = rows[j][j] - rows[i][i]
            if gap == 0:
                if not known.contains(0):
                    raise IllPosedDiagonalization(
                        f"the matrix is defective: its diagonal holds {rows[j][j]} twice (rows {j} and {i}) with one "
                        "eigenvector; keep it as it is, values by substitution need no eigenvectors",
                        math.inf,
                    )
                continue
            x[i] = _middle(flint, known / gap)
        columns.append(x)
    return columns


def _norm(flint: Any, M: Any, n: int, digits: int) -> Any:
    """2-norm of an acb_mat: a singular vector from doubles, then power steps in full precision.

    The value at a vector with error d has error d^2, so that the first step already doubles the digits.
    """
    sizes = [abs(M[i, j]).mid() for i in range(n) for j in range(n)]
    largest = max(sizes, key=lambda x: float(x.log().mid()) if x > 0 else -math.inf)
    rounded = np.empty((n, n), dtype=np.complex128)
    for i in range(n):
        for j in range(n):
            ratio = M[i, j] / largest
            rounded[i, j] = complex(float(ratio.real.mid()), float(ratio.imag.mid()))
    v = np.linalg.svd(rounded)[2][0].conj()
    vector = flint.acb_mat([[flint.acb(float(x.real), float(x.imag))] for x in v])
    adjoint = flint.acb_mat([[M[j, i].conjugate() for j in range(n)] for i in range(n)])
    before = None
    for _ in range(400):
        image = M * vector
        value = (_square(flint, image, n) / _square(flint, vector, n)).sqrt().mid()
        if before is not None and abs(value / before - 1) < flint.arb(10) ** (-digits - 2):
            return value
        before = value
        following = adjoint * image
        size = _square(flint, following, n).sqrt().mid()
        vector = flint.acb_mat([[_middle(flint, following[i, 0] / size)] for i in range(n)])
    return value


def _square(flint: Any, vector: Any, n: int) -> Any:
    return sum((abs(vector[i, 0]) ** 2 for i in range(n)), flint.arb(0))


def diagonalize(system: LTI, max_condition: float = _DIAGONALIZE) -> DiagonalStateSpace:
    """The same system in the basis of its eigenvectors.

    Args:
        system: a realisation.
        max_condition: largest kappa_2(V) to accept. Poles and values of the result are those of a system at relative
            distance of about kappa times 1e-16 from the given one.

    Returns:
        A `DiagonalStateSpace`, with the closed form if there is one.

    Raises:
        IllPosedDiagonalization: eigenvectors worse conditioned than that; the error's `kappa` says how badly.
        NoRealization: only the transfer function is known.
    """
    if isinstance(system, DiagonalStateSpace):
        return system
    dense = system.to_dense()
    A = dense.A
    if not (A - np.diag(np.diag(A))).any():
        w, V, kappa = np.diag(A), np.eye(A.shape[0], dtype=np.complex128), 1.0
    elif np.linalg.norm(A - A.conj().T) == 0 or np.linalg.norm(A + A.conj().T) == 0:
        turn = 1.0 if np.linalg.norm(A - A.conj().T) == 0 else -1j
        w, V = np.linalg.eigh(turn * A)
        w, kappa = w / turn, 1.0
    else:
        w, V, kappa = _double(A)
    if not kappa <= max_condition:
        raise IllPosedDiagonalization(
            f"the eigenvectors of this matrix have condition number {kappa:.3g}, above {max_condition:.3g}: a diagonal "
            "form in double precision would be another system. Keep the system as it is (dense, triangular and "
            "low-rank systems evaluate without eigenvectors), start from a nearby matrix that is well conditioned "
            "(HiPPO-rho, PTD), or accept the loss with max_condition=...",
            kappa,
        )
    closed = system.closed_form if isinstance(system, _Realised) else dense.closed_form
    return DiagonalStateSpace(w, np.linalg.solve(V, dense.B), dense.C @ V, dense.D, dense.dt, closed_form=closed)
