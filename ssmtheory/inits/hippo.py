"""HiPPO matrices from one exact definition, their parts, and LegS in closed form.

LegS is defined once, by integers: with x_n = sqrt(2n+1) y_n the square roots drop out of A and B. The float matrix, the
symbolic derivation and the certificate all start from `legs_integer`. LegS needs no matrix at all where its transfer
vector is wanted: X_n(s) = sqrt(2n+1) Y_n(s) with a two-term recurrence, and on the imaginary axis modulus and phase are
elementary, so that a value costs O(1) in the number of states.

| here | symbol | meaning |
|---|---|---|
| `legs` | A_H, B | HiPPO-LegS |
| `nplr` | A_N, P, B | normal part A_N = A_H + P P^T, P = B / sqrt(2) |
| `phi` | phi_N(s) | prod_{k<N} (s - k)/(s + k + 1) = 1 - B^T (s - A_H)^{-1} B |
| `transfer` | X(s) | (s - A_H)^{-1} B |
| `spectrum` | y_m | positive imaginary parts of the eigenvalues -1/2 +- i y_m of A_N |

Papers: HiPPO arXiv 2008.07669, S4 arXiv 2111.00396, S4D arXiv 2206.11893, HTTYH arXiv 2206.12037.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Literal, TypeAlias

import numpy as np

from ssmtheory.errors import InputError, nearest
from ssmtheory.typing import Array

__all__ = [
    "check_choice",
    "check_positive",
    "check_size",
    "fout",
    "gramian",
    "lagt",
    "legs",
    "legs_integer",
    "legs_kernel",
    "legs_normal_fraction",
    "legt",
    "log_derivative",
    "normal_part",
    "nplr",
    "one_plus_phi",
    "phase_heights",
    "phase_slope",
    "phi",
    "residues",
    "s4d_gap",
    "s4d_gramian",
    "spectrum",
    "spectrum_asymptotic",
    "spectrum_bulk",
    "transfer",
]

#: A state matrix (N, N) and an input vector (N,).
Pair: TypeAlias = tuple[Array, Array]

#: In long double, where the platform has one: targets of the arctan law are multiples of it.
PI = np.longdouble("3.14159265358979323846264338327950288")


def check_size(N: int, least: int = 1, name: str = "N") -> int:
    """A number of states that can be used.

    Args:
        N: the number given.
        least: the smallest allowed one.
        name: how the message calls it.

    Returns:
        N as an int.

    Raises:
        InputError: not an integer, or below `least`.
    """
    if isinstance(N, bool) or not isinstance(N, int | np.integer) or least > N:
        raise InputError(f"{name}={N!r}: must be an integer of at least {least}")
    return int(N)


def check_positive(name: str, value: Any) -> float:
    """A positive finite number as a float.

    Args:
        name: how the message calls it.
        value: the number given.

    Returns:
        The number.

    Raises:
        InputError: not a number, or not positive and finite.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | np.integer | np.floating)
        or not 0 < value < math.inf
    ):
        raise InputError(f"{name}={value!r}: must be a positive number")
    return float(value)


def check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """One of a few allowed names.

    Args:
        name: how the message calls the parameter.
        value: the name given.
        allowed: the names it may be.

    Returns:
        The name.

    Raises:
        InputError: another name.
    """
    if value not in allowed:
        listed = ", ".join(repr(choice) for choice in allowed)
        raise InputError(f"{name}={value!r}: must be one of {listed}.{nearest(value, allowed)}")
    return str(value)


def legs_integer(N: int) -> tuple[list[list[int]], list[int]]:
    """HiPPO-LegS in the scaling x_n = sqrt(2n+1) y_n, where every entry is an integer.

    A'_nk = -(2k+1) below the diagonal, -(n+1) on it, 0 above; B' = 1. The matrix in the orthonormal basis is
    D A' D^{-1}, B = D B' with D = diag sqrt(2n+1).

    Args:
        N: number of states, at least 1.

    Returns:
        (A', B'): A' an N-list of N-lists of int, B' an N-list of int.

    Raises:
        InputError: N is not a positive integer.

    >>> legs_integer(3)
    ([[-1, 0, 0], [-1, -2, 0], [-1, -3, -3]], [1, 1, 1])
    """
    size = check_size(N)
    rows = [[-(2 * k + 1) if k < n else -(n + 1) if k == n else 0 for k in range(size)] for n in range(size)]
    return rows, [1] * size


def legs_normal_fraction(N: int) -> list[list[Fraction]]:
    """The normal part A_N = A_H + P P^T of LegS in the scaling of `legs_integer`.

    Args:
        N: number of states, at least 1.

    Returns:
        N-list of N-lists of Fraction: -(2k+1)/2 below the diagonal, -1/2 on it, (2k+1)/2 above.

    Raises:
        InputError: N is not a positive integer.

    >>> [[str(x) for x in row] for row in legs_normal_fraction(2)]
    [['-1/2', '3/2'], ['-1/2', '-1/2']]
    """
    rows, _ = legs_integer(N)
    return [[Fraction(entry) + Fraction(2 * k + 1, 2) for k, entry in enumerate(row)] for row in rows]


def legs(N: int) -> Pair:
    """HiPPO-LegS in the orthonormal basis.

    A_nk = -sqrt((2n+1)(2k+1)) for n > k, -(n+1) for n = k, 0 above; B_n = sqrt(2n+1) (HiPPO, arXiv 2008.07669).

    Args:
        N: number of states, at least 1.

    Returns:
        A (N, N) and B (N,), float64. Each entry is correctly rounded.

    Raises:
        InputError: N is not a positive integer.

    >>> A, B = legs(2)
    >>> bool(abs(A + A.T + np.eye(2) + np.outer(B, B)).max() < 1e-15)   # A + A^T = -I - B B^T
    True
    """
    odd = 2 * np.arange(check_size(N)) + 1
    A = np.tril(-np.sqrt(np.multiply.outer(odd, odd).astype(np.float64)), -1)
    np.fill_diagonal(A, -(odd + 1) / 2)
    return A, np.sqrt(odd.astype(np.float64))


# -- the other HiPPO measures


def legt(N: int, window: float = 1.0, variant: Literal["published", "shipped", "lmu"] = "published") -> Pair:
    """HiPPO-LegT, the state of a sliding window in the Legendre basis.

    A = -R M R / window and B = R 1 / window, R = diag sqrt(2n+1), M_nk = 1 for n >= k, (-1)^{n-k} above. With the
    output C_n = (-1)^n sqrt(2n+1) the transfer function is the [N-1/N] Pade approximant of exp(-window s).

    Args:
        N: number of states.
        window: length of the window in seconds.
        variant: "published" as above (HiPPO, arXiv 2008.07669); "shipped" doubles the window, as the authors' code
            does through a factor 1/2; "lmu" the same system in the basis (-1)^n sqrt(2n+1) of the Legendre memory unit,
            where A_nk = (2n+1)(-1 above the diagonal, (-1)^{n-k+1} on and below it) / window and
            B_n = (-1)^n (2n+1) / window.

    Returns:
        A (N, N) and B (N,), float64.

    Raises:
        InputError: a size, window or variant that cannot be.
    """
    size, length = check_size(N), check_positive("window", window)
    check_choice("variant", variant, ("published", "shipped", "lmu"))
    n = np.arange(size)
    sign = np.where((n[:, None] - n) % 2 == 0, 1.0, -1.0)
    if variant == "lmu":
        A = np.where(n[:, None] < n, -1.0, -sign) * (2 * n + 1)[:, None]
        return A / length, np.where(n % 2 == 0, 1.0, -1.0) * (2 * n + 1) / length
    if variant == "shipped":
        length *= 2
    M = np.where(n[:, None] >= n, 1.0, sign)
    product = np.multiply.outer(2 * n + 1, 2 * n + 1).astype(np.float64)
    return -np.sqrt(product) * M / length, np.sqrt(2.0 * n + 1) / length


def lagt(N: int, weight: float = 1.0) -> Pair:
    """HiPPO-LagT, the translated Laguerre measure: state n has the kernel exp(-weight t) L_n(t).

    Its transfer function is X_n(s) = (s + weight - 1)^n / (s + weight)^{n+1}, so A has -weight on the diagonal and -1
    below it, and B = 1 (derived here from the Laplace transform of the Laguerre functions).

    Args:
        N: number of states.
        weight: decay of the kernel in 1/s; 1 projects onto the measure exp(-t), 1/2 makes the kernels orthonormal.

    Returns:
        A (N, N) and B (N,), float64.

    Raises:
        InputError: a size or weight that cannot be.
    """
    size, decay = check_size(N), check_positive("weight", weight)
    return -np.tril(np.ones((size, size)), -1) - decay * np.eye(size), np.ones(size)


def fout(N: int, window: float = 1.0, correction: float = 1.0) -> Pair:
    """HiPPO-FouT, a sliding window in the Fourier basis.

    With b = (1, 0, sqrt 2, 0, sqrt 2, ...) and S the rotation of each pair (2j, 2j+1) at 2 pi j:
    A = (S - 2 b b^T) / window and B = 2 b / window (HTTYH, arXiv 2206.12037, as the authors' code writes it). State 1
    is the sine of frequency 0: neither driven nor coupled, it is kept here because the authors' layers count it.

    Args:
        N: number of states, even.
        window: length of the window in seconds; 1 is the code's "fourier2", 2 its "fourier" (frequencies pi j,
            A = S - b b^T, B = b).
        correction: factor of the rank-one part and of B; 1/2 is the code's "fourier_decay", whose memory fades without
            ending.

    Returns:
        A (N, N) and B (N,), float64.

    Raises:
        InputError: an odd or non-positive size, or a window that is not positive.
    """
    size, length = check_size(N, 2), check_positive("window", window)
    if size % 2:
        raise InputError(f"N={N}: FouT has a cosine and a sine of each frequency: N must be even")
    scale = 2 * check_positive("correction", correction)
    b = np.zeros(size)
    b[0::2] = math.sqrt(2)
    b[0] = 1
    A = -scale * np.multiply.outer(b, b)
    j = np.arange(size // 2)
    A[2 * j, 2 * j + 1] -= 2 * np.pi * j
    A[2 * j + 1, 2 * j] += 2 * np.pi * j
    return A / length, scale * b / length


def nplr(N: int, measure: str = "legs", **options: Any) -> tuple[Array, Array, Array]:
    """Normal plus low rank: A = A_N - P P^T with A_N normal (S4, arXiv 2111.00396, theorem on the NPLR form).

    A_N is a multiple of the identity plus a real skew matrix for every measure: -1/2 + S for LegS, S for LegT and FouT,
    (1/2 - weight) + S for LagT.

    Args:
        N: number of states.
        measure: "legs", "legt", "lagt" or "fout".
        options: those of the function of that name (`variant="lmu"` has no such form).

    Returns:
        A_N (N, N), P (N, r), B (N,), float64; r = 2 for LegT, 1 otherwise.

    Raises:
        InputError: another measure or option.
    """
    check_choice("measure", measure, tuple(_MEASURES))
    if options.get("variant") == "lmu":
        raise InputError("variant='lmu': the LMU basis is not orthogonal; must be 'published' or 'shipped' for nplr")
    A, B = _MEASURES[measure](N, **options)
    size = B.size
    if measure == "legs":
        P = np.sqrt(np.arange(size) + 0.5)[:, None]
    elif measure == "legt":
        P = np.zeros((size, 2))
        scale = -A[0, 0]  # 1 / window
        for parity in (0, 1):
            P[parity::2, parity] = np.sqrt((2.0 * np.arange(size) + 1)[parity::2] * scale)
        P = P[:, : min(2, size)]
    elif measure == "lagt":
        P = np.full((size, 1), math.sqrt(0.5))
    else:
        P = np.sqrt(np.maximum(-np.diag(A), 0))[:, None]
    # the symmetric part of A_N is a known multiple of I: only the skew part is taken from the sum
    total = A + P @ P.T
    shift = {"legs": -0.5, "lagt": 0.5 + A[0, 0]}.get(measure, 0.0)
    return (total - total.T) / 2 + shift * np.eye(size), P, B


def normal_part(N: int, measure: str = "legs", **options: Any) -> Array:
    """The normal matrix of `nplr`.

    Args:
        N: number of states.
        measure: "legs", "legt", "lagt" or "fout".
        options: those of the function of that name.

    Returns:
        A_N (N, N) float64.

    Raises:
        InputError: another measure or option.
    """
    return nplr(N, measure, **options)[0]


# -- LegS in closed form


def _half_phase(N: int, omega: Array) -> Array:
    """T = sum_{k=1}^{N-1} arctan(k/w) + arctan(N/w)/2, half the phase of phi_N(i w); (...,) for w > 0.

    T is the trapezoidal rule of an elementary integral: above k = 16 the Euler-Maclaurin series is exact to rounding at
    six terms, so that a value costs O(1) in N.
    """
    w = np.maximum(omega, 1e-100)  # below, T has its limit (N - 1/2) pi/2 to all digits
    first = min(N, 16)
    k = np.arange(1, first)
    total = np.arctan(k / w[..., None]).sum(axis=-1) + np.arctan(first / w) / 2
    if first < N:
        for x, sign in ((N, 1.0), (first, -1.0)):
            angle = np.arctan2(x, w)
            total = total + sign * (x * angle - w / 2 * np.log1p((x / w) ** 2))
            inverse = 1 / (w + 1j * x)
            power = inverse
            for factor in (1 / 12, 1 / 360, 1 / 1260, 1 / 1680, 1 / 1188, 691 / 360360):
                total = total + sign * factor * power.real
                power = power * inverse**2
    return total


def _log_phi(N: int, s: Array) -> tuple[Array, Array]:
    """Real part and phase (not reduced) of log phi_N at s (...,), each factor without cancellation."""
    shape, points = s.shape, s.reshape(-1)
    real, phase = np.empty(points.size), np.empty(points.size)
    odd = 2.0 * np.arange(N) + 1
    block = max(1, 2**20 // N)
    for start in range(0, points.size, block):
        z = points[start : start + block, None]
        twice = 2 * z.real + 1
        below = (z.real + (odd + 1) / 2) ** 2 + z.imag**2
        with np.errstate(divide="ignore", invalid="ignore"):
            # |s-k|^2 - |s+k+1|^2 = -(2k+1)(2 Re s + 1): no difference of squares
            real[start : start + block] = 0.5 * np.log1p(np.maximum(-odd * twice / below, -1)).sum(axis=1)
        phase[start : start + block] = np.arctan2(z.imag * odd, ((twice - odd) * (twice + odd)) / 4 + z.imag**2).sum(
            axis=1
        )
    return real.reshape(shape), phase.reshape(shape)


def one_plus_phi(N: int, s: complex | Array, a: complex = 1.0) -> Array:
    """1 + a phi_N(s) without cancellation where a phi_N is close to -1.

    On the imaginary axis from r = |a||phi| and the phase chi: (1 - r) + 2 r cos(chi/2) e^{i chi/2}, with
    1 - |phi| = N^2 / (h (h + |w|)), h = hypot(w, N); O(1) in N. Elsewhere -expm1(log(a phi) - i pi); O(N).

    Args:
        N: number of states.
        s: points (...,) of the complex plane in rad/s.
        a: the factor; 1 gives the denominator of S4D, others that of HiPPO-rho.

    Returns:
        (...,) complex128; not finite at the poles s = -1, ..., -N of phi.

    Raises:
        InputError: a size that cannot be.

    >>> abs(one_plus_phi(1024, 333771.584j)).round(9).item()   # 1 + phi there, formed from phi, keeps 10 digits
    4.706e-06
    """
    size = check_size(N)
    points = np.asarray(s, dtype=np.complex128)
    out = np.empty(points.shape, dtype=np.complex128)
    on_axis = points.real == 0
    if on_axis.any():
        w = points.imag[on_axis]
        positive = np.abs(w)
        h = np.hypot(positive, size)
        lost = size / h * (size / (h + positive))  # 1 - |phi|
        chi = np.sign(w) * _half_phase(size, positive) + np.angle(a) / 2
        r = abs(a) * (positive / h)
        out[on_axis] = ((1 - abs(a)) + abs(a) * lost) + 2 * r * np.cos(chi) * np.exp(1j * chi)
    if not on_axis.all():
        real, phase = _log_phi(size, points[~on_axis])
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            growth = real + np.log(abs(a))
            angle = np.remainder(phase + np.angle(a), 2 * np.pi) - np.pi
            half = np.sin(angle / 2)
            out[~on_axis] = 2 * half**2 - np.expm1(growth) * np.cos(angle) - 1j * np.exp(growth) * np.sin(angle)
    return out


def phi(N: int, s: complex | Array) -> Array:
    """The Blaschke-like product phi_N(s) = prod_{k<N} (s - k)/(s + k + 1) = 1 - B^T (s - A_H)^{-1} B of LegS.

    |phi_N(i w)| = |w| / hypot(w, N). S4D's transfer vector is X(s) / (1 + phi_N(s)) (PTD, arXiv 2310.01698, Lemma 1, in
    this normalisation).

    Args:
        N: number of states.
        s: points (...,) of the complex plane in rad/s.

    Returns:
        (...,) complex128; on the imaginary axis O(1) in N, elsewhere a product of N factors.

    Raises:
        InputError: a size that cannot be.

    >>> abs(phi(3, [0.0, 1.0, 2.0, -0.5])).tolist()
    [0.0, 0.0, 0.0, 1.0]
    """
    size = check_size(N)
    points = np.asarray(s, dtype=np.complex128)
    out = np.empty(points.shape, dtype=np.complex128)
    on_axis = points.real == 0
    if on_axis.any():
        w = points.imag[on_axis]
        half = np.sign(w) * _half_phase(size, np.abs(w))
        out[on_axis] = np.abs(w) / np.hypot(w, size) * np.exp(2j * half)
    if not on_axis.all():
        z = points[~on_axis]
        value = np.ones_like(z)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for k in range(size):
                value *= (z - k) / (z + k + 1)
        out[~on_axis] = value
    return out


def log_derivative(N: int, s: complex | Array) -> Array:
    """phi_N'(s) / phi_N(s) = sum_{k<N} (2k+1) / ((s - k)(s + k + 1)).

    Args:
        N: number of states.
        s: points (...,) of the complex plane.

    Returns:
        (...,) complex128; -2 S(y) with S(y) = sum (k+1/2)/(y^2+(k+1/2)^2) at s = -1/2 + i y.

    Raises:
        InputError: a size that cannot be.
    """
    size = check_size(N)
    points = np.asarray(s, dtype=np.complex128)
    flat = points.reshape(-1)
    out = np.empty(flat.shape, dtype=np.complex128)
    half = np.arange(size) + 0.5
    block = max(1, 2**20 // size)
    for start in range(0, flat.size, block):
        z = flat[start : start + block, None] + 0.5
        out[start : start + block] = (2 * half / ((z - half) * (z + half))).sum(axis=1)
    return out.reshape(points.shape)


def transfer(N: int, s: complex | Array, outputs: Any = None) -> Array:
    """The transfer vector X(s) = (s - A_H)^{-1} B of LegS, without any matrix.

    X_n = sqrt(2n+1) Y_n and Y_n = Y_{n-1} (s - n + 1)/(s + n + 1), Y_0 = 1/(s + 1): the Laplace transform of
    sqrt(2n+1) e^{-t} P_n(2 e^{-t} - 1). A few outputs on the imaginary axis cost O(1) each, whatever N.

    Args:
        N: number of states.
        s: points (...,) of the complex plane in rad/s.
        outputs: indices n (q,) of the components; all N of them when None.

    Returns:
        (..., q) complex128.

    Raises:
        InputError: a size or output that cannot be.

    >>> A, B = legs(4)
    >>> bool(abs(transfer(4, 2j) - np.linalg.solve(2j * np.eye(4) - A, B)).max() < 1e-15)
    True
    """
    size = check_size(N)
    rows = np.arange(size) if outputs is None else np.atleast_1d(np.asarray(outputs))
    if rows.dtype.kind not in "iu" or rows.ndim != 1 or ((rows < 0) | (rows >= size)).any():
        raise InputError(f"outputs={outputs!r}: must be indices from 0 to {size - 1}")
    points = np.asarray(s, dtype=np.complex128)
    flat = points.reshape(-1)
    out = np.empty((flat.size, rows.size), dtype=np.complex128)
    scale = np.sqrt(2.0 * rows + 1)
    few = rows.size <= 4 and bool((flat.real == 0).all())
    for column, n in enumerate(rows if few else []):
        shifted = flat + (n + 1)
        out[:, column] = scale[column] * (phi(int(n), flat) if n else 1) / shifted
    if not few and rows.size:
        last = int(rows.max())
        step = np.arange(1, last + 1)
        block = max(1, 2**20 // (last + 1))
        for start in range(0, flat.size, block):
            z = flat[start : start + block, None]
            Y = np.empty((z.shape[0], last + 1), dtype=np.complex128)
            with np.errstate(divide="ignore", invalid="ignore"):
                Y[:, :1] = 1 / (z + 1)
                Y[:, 1:] = (z - (step - 1)) / (z + (step + 1))
            np.cumprod(Y, axis=1, out=Y)
            out[start : start + block] = Y[:, rows] * scale
    return out.reshape(*points.shape, rows.size)


def legs_kernel(n: int, t: Array) -> Array:
    """Impulse response of state n of LegS: sqrt(2n+1) e^{-t} P_n(2 e^{-t} - 1) (HTTYH, arXiv 2206.12037).

    Args:
        n: which state.
        t: times (...,) in seconds, >= 0.

    Returns:
        (...,) float64.

    Raises:
        InputError: a negative index.
    """
    index = check_size(n, 0, "n")
    times = np.asarray(t, dtype=np.float64)
    e = np.exp(-times)
    x = 2 * e - 1
    before, value = np.ones_like(x), x
    for k in range(1, index):
        before, value = value, ((2 * k + 1) * x * value - k * before) / (k + 1)
    return math.sqrt(2 * index + 1) * e * (value if index else before)


# -- spectra


def phase_heights(N: int, angle: float = 0.0, exact: bool = True) -> Array:
    """All y with phi_N(-1/2 + i y) = -e^{-i angle}: the spectrum of the normal matrix A_N - theta P P^T, |a| = 1.

    On the line Re s = -1/2 the phase of phi_N is 2 sum_k arccot(y/(k+1/2)), which falls from 2 pi N to 0: the m-th
    height solves sum_k arccot(y/(k+1/2)) = ((2m+1) pi - angle)/2. Newton's method, on whichever of the sum and its
    complement has the smaller value, converges to full relative precision.

    Args:
        N: number of states.
        angle: in radians, inside (-pi, pi); 0 is S4D.
        exact: False for six digits, in a tenth of the time.

    Returns:
        (N,) float64, decreasing.

    Raises:
        InputError: a size or angle that cannot be.
    """
    size = check_size(N)
    if not -math.pi < angle < math.pi:
        raise InputError(f"angle={angle!r}: must lie inside (-pi, pi)")
    m = np.arange(size)
    above = ((2 * m + 1) * PI - angle) / 2
    below = ((2 * (size - m) - 1) * PI + angle) / 2
    positive = above <= below
    # by symmetry y < 0 is the solution for the complement
    middle = np.abs(above - below) < 1e-12  # y = 0
    target = np.where(middle, size * PI / 4, np.where(positive, above, below))
    heights = _arctan_law(size, target, exact)
    return np.where(middle, 0.0, np.where(positive, heights, -heights))


def spectrum(N: int) -> Array:
    """Positive imaginary parts y_m of the eigenvalues -1/2 +- i y_m of A_N: the poles of S4D-LegS.

    They solve sum_{k<N} arctan((k+1/2)/y) = (2m+1) pi/2, m = 0 .. floor(N/2) - 1; for odd N there is also y = 0. To
    full relative precision, with no eigensolver. S4D (arXiv 2206.11893) states the large-N law of this spectrum as a
    conjecture; the equation proves it, see `spectrum_asymptotic`.

    Args:
        N: number of states.

    Returns:
        (floor(N/2),) float64, decreasing, rad/s.

    Raises:
        InputError: a size that cannot be.

    >>> spectrum(4).round(12).tolist()
    [4.603293007067, 0.556501115084]
    """
    size = check_size(N)
    m = np.arange(size // 2)
    return _arctan_law(size, (2 * m + 1) * PI / 2)


def _bulk(size: int, y: Array) -> Array:
    """The integral that replaces the arctan sum for large N."""
    return size * np.arctan(size / y) - y / 2 * np.log1p((size / y) ** 2)


def _arctan_sum(size: int, y: Array) -> tuple[Array, Array]:
    """sum_k arctan((k+1/2)/y) to about six digits, and minus its derivative in log y: (...,), O(1) in N."""
    first = min(size, 16)
    half = np.arange(first) + 0.5
    ratio = half / y[:, None]
    value, slope = np.arctan(ratio).sum(axis=1), (1 / (ratio + 1 / ratio)).sum(axis=1)
    if size > first:  # the midpoint rule of an elementary integral, with its first correction
        for x, sign in ((size, 1.0), (first, -1.0)):
            value = value + sign * (x * np.arctan(x / y) - y / 2 * np.log1p((x / y) ** 2) - y / (y**2 + x**2) / 24)
            slope = slope + sign * y / 2 * np.log1p((x / y) ** 2)
    return value, slope


def _arctan_law(size: int, target: Array, exact: bool = True) -> Array:
    """Solve sum_k arctan((k+1/2)/y) = target for y > 0, target in (0, N pi/2]; to about 1e-6 where not `exact`."""
    grid = np.geomspace(1e-3, 2.0 * size * size + 2, 4096)
    goal = target.astype(np.float64)
    y = np.exp(np.interp(-goal, -_bulk(size, grid), np.log(grid)))
    for _ in range(60):
        value, slope = _arctan_sum(size, y)
        change = np.clip((value - goal) / slope, -2, 2)
        y = y * np.exp(change)
        if np.abs(change).max(initial=0) < 1e-9:
            break
    if not exact:
        return y
    half = np.arange(size) + 0.5
    rest = size * PI / 2 - target
    out = np.empty_like(y)
    block = max(1, 2**18 // size)
    for start in range(0, y.size, block):
        part = slice(start, start + block)
        z, above, below = y[part], target[part], rest[part]
        direct = above <= below
        # the last step in long double, so that no sum of N arctangents is rounded on the way
        for wide in (np.float64, np.float64, np.longdouble):
            ratio = half.astype(wide) / z[:, None]
            angle = np.arctan(np.where(direct[:, None], ratio, 1 / ratio)).sum(axis=1)
            slope = (1 / (ratio + 1 / ratio)).sum(axis=1)  # minus the derivative in log y
            z = z * (1 + np.where(direct, angle - above, below - angle) / slope)
        out[part] = z
    return out


def spectrum_asymptotic(N: int, m: Array | int = 0) -> Array:
    """Large-N law of the top of the spectrum: y_m = N^2/((2m+1) pi) - (2m+1) pi/6 + O(N^{-2}).

    Args:
        N: number of states.
        m: index or indices, 0 for the largest.

    Returns:
        float64 of the shape of m, rad/s.

    Raises:
        InputError: a size that cannot be.
    """
    odd = 2 * np.asarray(m) + 1
    return check_size(N) ** 2 / (odd * np.pi) - odd * np.pi / 6


def spectrum_bulk(N: int) -> Array:
    """Approximate spectrum from N arctan(N/y) - (y/2) ln(1 + N^2/y^2) = (2m+1) pi/2, the law of the whole spectrum.

    Cheap and explicit up to one scalar equation; where S4D-Inv (arXiv 2206.11893, eq. 8) is off by up to 50 %, this law
    stays within a few per cent.

    Args:
        N: number of states.

    Returns:
        (floor(N/2),) float64, decreasing, rad/s.

    Raises:
        InputError: a size that cannot be.
    """
    size = check_size(N)
    target = (2 * np.arange(size // 2) + 1) * np.pi / 2
    grid = np.geomspace(1e-6, 2.0 * size * size + 2, 4096)
    y = np.exp(np.interp(-target, -_bulk(size, grid), np.log(grid)))
    for _ in range(40):
        # d/d log y of the law is -(y/2) ln(1 + N^2/y^2)
        change = (_bulk(size, y) - target) / (y / 2 * np.log1p((size / y) ** 2))
        y = y * np.exp(np.clip(change, -1, 1))
        if np.abs(change).max(initial=0) < 1e-15:
            break
    return y


def phase_slope(N: int, y: Array) -> Array:
    """S(y) = sum_{k<N} (k+1/2) / (y^2 + (k+1/2)^2).

    Args:
        N: number of states.
        y: heights (...,) in rad/s.

    Returns:
        (...,) float64.

    Raises:
        InputError: a size that cannot be.
    """
    half = np.arange(check_size(N)) + 0.5
    heights = np.asarray(y, dtype=np.float64)
    return (half / (heights[..., None] ** 2 + half**2)).sum(axis=-1)


def residues(N: int, y: Array | None = None) -> Array:
    """|v_j^* B|^2 = 2 / S(y_j): how strongly the input drives each mode of the normal part A_N.

    Args:
        N: number of states.
        y: heights (k,) of the modes; those of `spectrum` when None.

    Returns:
        (k,) float64.

    Raises:
        InputError: a size that cannot be.
    """
    return 2 / phase_slope(N, spectrum(N) if y is None else y)


def gramian(N: int) -> Array:
    """Controllability Gramian of LegS, (I + J_N)/2 with J_N the Jacobi matrix of the Legendre polynomials.

    Its eigenvalues are the Gauss-Legendre nodes on [0, 1].

    Args:
        N: number of states.

    Returns:
        (N, N) float64, tridiagonal.

    Raises:
        InputError: a size that cannot be.
    """
    n = np.arange(check_size(N) - 1, dtype=np.float64)
    side = (n + 1) / (2 * np.sqrt((2 * n + 1) * (2 * n + 3)))
    return np.diag(np.full(N, 0.5)) + np.diag(side, 1) + np.diag(side, -1)


def s4d_gap(N: int, output: int = 0, exact: bool = False) -> float | Fraction:
    """Squared L2 distance of the kernels of S4D-LegS and LegS, exact for every state.

    (2n+1)/4 - (3n^2+3n+1)/(2N^2), plus N/(1 + binom(2N, N)) for the last state n = N-1. It does not vanish as N grows.

    Args:
        N: number of states.
        output: which state n.
        exact: return a Fraction.

    Returns:
        The squared distance.

    Raises:
        InputError: a size or output that cannot be.

    >>> s4d_gap(4, exact=True), math.sqrt(s4d_gap(4))
    (Fraction(7, 32), 0.46770717334674267)
    """
    size, n = check_size(N), check_size(output, 0, "output")
    if n >= size:
        raise InputError(f"output={output}: must be from 0 to {size - 1}")
    value = Fraction(2 * n + 1, 4) - Fraction(3 * n * n + 3 * n + 1, 2 * size * size)
    if n == size - 1:
        value += Fraction(size, 1 + math.comb(2 * size, size))
    return value if exact else float(value)


def s4d_gramian(N: int) -> Array:
    """Controllability Gramian of S4D-LegS in the HiPPO basis, in closed form.

    For n <= m: B_n B_m [1/4 - (m(m+1) - n(n+1))/(2N^2)] + d_mn [1/2 - (3n^2+3n+1)/(2N^2)]
    + d_{m,n+1} (1 - (n+1)^2/N^2)(n+1) / (2 sqrt((2n+1)(2n+3))).

    Args:
        N: number of states.

    Returns:
        (N, N) float64, symmetric.

    Raises:
        InputError: a size that cannot be.
    """
    size = check_size(N)
    n = np.arange(size, dtype=np.float64)
    rise = n * (n + 1)
    root = np.sqrt(2 * n + 1)
    W = np.multiply.outer(root, root) * (0.25 - np.abs(rise[:, None] - rise) / (2 * size**2))
    W[np.diag_indices(size)] += 0.5 - (3 * rise + 1) / (2 * size**2)
    k = n[:-1]
    side = (1 - ((k + 1) / size) ** 2) * (k + 1) / (2 * root[:-1] * root[1:])
    W[np.arange(size - 1), np.arange(1, size)] += side
    W[np.arange(1, size), np.arange(size - 1)] += side
    return W


_MEASURES: dict[str, Callable[..., Pair]] = {"legs": legs, "legt": legt, "lagt": lagt, "fout": fout}
