"""HiPPO matrices against quadrature of their definitions; LegS in closed form against exact and dense arithmetic."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.polynomial import legendre
from scipy.linalg import expm, solve_continuous_lyapunov, solve_triangular
from scipy.special import eval_laguerre

from ssmtheory.errors import InputError
from ssmtheory.inits import hippo

SIZES = (1, 2, 3, 5, 8, 16, 33)


def _basis(n: int, x: np.ndarray, derivative: int = 0) -> np.ndarray:
    """sqrt(2n+1) P_n(x), or a derivative with respect to x."""
    c = np.zeros(n + 1)
    c[n] = math.sqrt(2 * n + 1)
    return legendre.legval(x, legendre.legder(c, derivative) if derivative else c)


def test_legs_is_the_flow_of_warped_legendre_kernels() -> None:
    """K_n = z p_n(2z-1), z = e^{-t}, is orthonormal under e^t dt = dz/z^2; A is the matrix of d/dt = -z d/dz in it."""
    N = 12
    x, w = legendre.leggauss(2 * N)
    z, w = (x + 1) / 2, w / 2
    K = np.array([z * _basis(n, x) for n in range(N)])
    dK = np.array([_basis(n, x) + 2 * z * _basis(n, x, 1) for n in range(N)])
    A, B = hippo.legs(N)
    # the quadrature is exact for these polynomials: only rounding is left
    assert np.abs((-z * dK * w / z**2) @ K.T - A).max() < 1e-12 * N**2
    assert np.abs((K * w / z**2) @ K.T - np.eye(N)).max() < 1e-12
    assert np.allclose(B, [_basis(n, np.ones(1))[0] for n in range(N)], atol=1e-13)


def test_legs_integer_is_the_same_matrix_without_roots() -> None:
    for N in SIZES:
        rows, b = hippo.legs_integer(N)
        assert all(type(entry) is int for row in rows for entry in row)
        root = np.sqrt(2 * np.arange(N) + 1)
        A, B = hippo.legs(N)
        assert np.allclose(root[:, None] * np.array(rows) / root, A, rtol=4e-16, atol=0)
        assert np.allclose(root * np.array(b), B, rtol=1e-16)
        normal = np.array([[float(entry) for entry in row] for row in hippo.legs_normal_fraction(N)])
        assert np.allclose(root[:, None] * normal / root, hippo.normal_part(N), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(("variant", "window"), [("published", 1.0), ("published", 0.3), ("shipped", 1.0)])
def test_legt_is_a_projection_of_the_window(variant: str, window: float) -> None:
    """x_n = int q_n(r) u(t - L r) dr: integrate by parts, and read u at the window's end off the projection itself."""
    N, length = 9, window * (2 if variant == "shipped" else 1)
    x, w = legendre.leggauss(2 * N)
    w = w / 2
    q = np.array([_basis(n, -x) for n in range(N)])  # q_n(r) = p_n(1 - 2r), x = 2r - 1
    dq = np.array([-2 * _basis(n, -x, 1) for n in range(N)])
    end = np.array([_basis(n, -np.ones(1))[0] for n in range(N)])
    start = np.array([_basis(n, np.ones(1))[0] for n in range(N)])
    A, B = hippo.legt(N, window, variant)  # type: ignore[arg-type]
    assert np.abs(A - ((dq * w) @ q.T - np.outer(end, end)) / length).max() < 1e-11 * N**2
    assert np.allclose(B, start / length, atol=1e-12)


def test_lmu_is_legt_in_another_basis() -> None:
    A, B = hippo.legt(8)
    T = np.where(np.arange(8) % 2 == 0, 1.0, -1.0) * np.sqrt(2.0 * np.arange(8) + 1)
    other, other_b = hippo.legt(8, variant="lmu")
    assert np.allclose(T[:, None] * A / T, other, atol=1e-13)
    assert np.allclose(T * B, other_b, atol=1e-13)


def test_legt_delays_as_the_pade_approximant_does() -> None:
    """Moments C A^{-k-1} B against the exact series of exp(-s): they agree to s^{2N-1}, and not beyond."""
    N = 4
    R = [2 * n + 1 for n in range(N)]
    # in the basis of LegT scaled by sqrt(2n+1) everything is rational: A' = -(2n+1)-weighted signs
    A = [[Fraction(-(2 * k + 1) * (1 if n >= k else (-1) ** (n - k))) for k in range(N)] for n in range(N)]
    dense = np.array([[float(e) for e in row] for row in A])
    root = np.sqrt(np.array(R, dtype=float))
    assert np.allclose(root[:, None] * dense / root, hippo.legt(N)[0])
    state = [Fraction(1)] * N
    for power in range(2 * N + 1):
        state = [-x for x in _solve(A, state)]  # -A^{-1} state
        moment = sum(Fraction((-1) ** n * (2 * n + 1)) * x for n, x in enumerate(state))
        exact = Fraction((-1) ** power, math.factorial(power))
        assert (moment * (-1) ** power == exact) == (power < 2 * N)


def _solve(A: list[list[Fraction]], b: list[Fraction]) -> list[Fraction]:
    rows = [[*row, value] for row, value in zip(A, b, strict=True)]
    n = len(rows)
    for i in range(n):
        pivot = next(r for r in range(i, n) if rows[r][i] != 0)
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [x / rows[i][i] for x in rows[i]]
        for r in range(n):
            if r != i:
                factor = rows[r][i]
                rows[r] = [x - factor * y for x, y in zip(rows[r], rows[i], strict=True)]
    return [row[-1] for row in rows]


@pytest.mark.parametrize("weight", [1.0, 0.5, 0.8])
def test_lagt_has_laguerre_kernels(weight: float) -> None:
    A, B = hippo.lagt(7, weight)
    for t in (0.0, 0.4, 2.0):
        kernel = [math.exp(-weight * t) * eval_laguerre(n, t) for n in range(7)]
        assert np.allclose(expm(t * A) @ B, kernel, atol=1e-13)


@pytest.mark.parametrize("window", [1.0, 2.0, 0.7])
def test_fout_is_a_projection_of_the_window(window: float) -> None:
    """As LegT, with the mean of both ends in place of u at the seam, which is what a Fourier series converges to."""
    N = 10
    r = (np.arange(4 * N) + 0.5) / (4 * N)  # the midpoint rule is exact for these trigonometric polynomials
    j = np.arange(N // 2)[:, None]
    q, dq, end = np.zeros((N, r.size)), np.zeros((N, r.size)), np.zeros(N)
    norm = np.where(j == 0, 1.0, math.sqrt(2))
    q[0::2], dq[0::2] = norm * np.cos(2 * np.pi * j * r), -norm * 2 * np.pi * j * np.sin(2 * np.pi * j * r)
    q[1::2], dq[1::2] = norm * np.sin(2 * np.pi * j * r), norm * 2 * np.pi * j * np.cos(2 * np.pi * j * r)
    end[0::2] = norm[:, 0]
    A, B = hippo.fout(N, window)
    assert np.abs(A - (dq @ q.T / r.size - 2 * np.outer(end, end)) / window).max() < 1e-12 * N**2
    assert np.allclose(B, 2 * end / window)
    decay = hippo.fout(N, window, correction=0.5)
    assert np.allclose(decay[0] - A, np.outer(end, end) / window)
    assert np.allclose(decay[1], B / 2)


@pytest.mark.parametrize("measure", ["legs", "legt", "lagt", "fout"])
@pytest.mark.parametrize("N", [2, 6, 20])
def test_normal_plus_low_rank(measure: str, N: int) -> None:
    A = {"legs": hippo.legs, "legt": hippo.legt, "lagt": hippo.lagt, "fout": hippo.fout}[measure](N)[0]
    normal, P, _ = hippo.nplr(N, measure)
    size = np.abs(A).max()
    assert np.abs(normal - P @ P.T - A).max() < 1e-15 * size
    assert np.abs(normal @ normal.T - normal.T @ normal).max() < 1e-14 * size**2
    assert P.shape[1] == (2 if measure == "legt" else 1)


def test_legs_identities() -> None:
    for N in SIZES:
        A, B = hippo.legs(N)
        normal, P, _ = hippo.nplr(N)
        assert np.allclose(A + A.T, -np.eye(N) - np.outer(B, B), atol=1e-12)
        assert np.allclose(normal + normal.T, -np.eye(N), atol=1e-12)
        assert np.allclose(P[:, 0], B / math.sqrt(2))
        assert math.isclose(np.linalg.norm(B), N)


def test_phi_and_transfer_against_substitution() -> None:
    """Forward substitution is backward stable for the triangular A_H; both routes agree to rounding."""
    rng = np.random.default_rng(0)
    for N in (1, 2, 7, 17, 64):
        A, B = hippo.legs(N)
        for s in [0.0, 1e-7j, 0.3j, -0.3j, 20j, 5e3j, 0.25 + 1j, -0.4 + 3j, *(1j * N * rng.normal(size=3))]:
            x = solve_triangular(s * np.eye(N) - A, B, lower=True)
            assert np.allclose(hippo.transfer(N, s), x, rtol=1e-11, atol=1e-14)
            assert abs(hippo.phi(N, s) - (1 - B @ x)) < 1e-11 * N
            few = [0, N // 2, N - 1]
            assert np.allclose(hippo.transfer(N, s, few), x[few], rtol=1e-11, atol=1e-14)


def test_phi_is_exact_in_rationals() -> None:
    N, s = 6, Fraction(7, 3)
    A, B = hippo.legs_integer(N)
    x = _solve([[(s if i == k else 0) - A[i][k] for k in range(N)] for i in range(N)], [Fraction(b) for b in B])
    value = 1 - sum((2 * n + 1) * x[n] for n in range(N))
    assert math.isclose(float(value), hippo.phi(N, float(s)).real, rel_tol=1e-14)
    product = Fraction(1)
    for k in range(N):
        product *= (s - k) / (s + k + 1)
    assert product == value


def test_one_plus_phi_keeps_its_digits_where_phi_is_minus_one() -> None:
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(40):
        for N in (3, 16, 17, 100, 300):
            top = hippo.spectrum(N)[0]
            for s in (1e-9j, 0.37j, -17j, 1j * top, 1j * (top + 1e-3), -0.5 + 1j * (top + 0.01), 0.2 + 3j):
                exact = mpmath.mpf(1)
                for k in range(N):
                    exact *= (mpmath.mpc(s) - k) / (mpmath.mpc(s) + k + 1)
                for a in (1, -0.2 + 0.1j):
                    expected = complex(1 + a * exact)
                    # phases come from sums of N terms: absolute error N eps in a phase, divided by |1 + a phi|
                    allowed = 1e-15 * N**0.5 * 8 * (abs(expected) + abs(a))
                    assert abs(hippo.one_plus_phi(N, s, a) - expected) < min(allowed, 1e-9 * abs(expected))


def test_modulus_on_the_axis() -> None:
    w = np.concatenate([-np.geomspace(1e-3, 1e6, 50), [0.0], np.geomspace(1e-3, 1e6, 50)])
    for N in (1, 4, 40):
        assert np.allclose(np.abs(hippo.phi(N, 1j * w)), np.abs(w) / np.hypot(w, N), rtol=1e-14)
        assert np.allclose(np.linalg.norm(hippo.transfer(N, 1j * w), axis=1), N / np.hypot(w, N), rtol=1e-13)


def test_identity_four() -> None:
    """X(z)* X(w) = (1 - conj(phi(z)) phi(w)) / (1 + conj(z) + w), off the axis too."""
    z, w = -0.9 + 2.3j, 0.4 - 1.1j
    for N in (2, 9, 30):
        left = hippo.transfer(N, z).conj() @ hippo.transfer(N, w)
        right = (1 - np.conj(hippo.phi(N, z)) * hippo.phi(N, w)) / (1 + np.conj(z) + w)
        assert abs(left - right) < 1e-12 * abs(right)


def test_kernels_are_the_impulse_responses() -> None:
    A, B = hippo.legs(10)
    for t in (0.0, 0.2, 1.7):
        assert np.allclose(expm(t * A) @ B, [hippo.legs_kernel(n, t) for n in range(10)], atol=1e-12)


def test_spectrum_to_all_digits(shared_oracles: Path) -> None:
    golden = json.loads((shared_oracles / "linear_golden.json").read_text())
    for N, values in golden["y"].items():
        expected = np.array([float(v) for v in values])
        assert np.abs(hippo.spectrum(int(N)) / expected - 1).max() < 5e-16


def test_spectrum_against_eigenvalues_and_residues() -> None:
    for N in (2, 3, 16, 65, 200):
        normal, _, B = hippo.nplr(N)
        heights, V = np.linalg.eigh(-1j * (normal + 0.5 * np.eye(N)))
        mine = hippo.phase_heights(N)
        # eigh is backward stable: absolute error eps ||S||
        assert np.abs(np.sort(heights) - np.sort(mine)).max() < 1e-14 * N**2
        assert np.allclose(mine[: N // 2], hippo.spectrum(N), rtol=1e-15)
        upper = heights > 1e-6
        drive = np.abs(V[:, upper].conj().T @ B) ** 2
        assert np.allclose(drive, hippo.residues(N)[::-1], rtol=1e-9)
        assert np.abs(hippo.phi(N, -0.5 + 1j * mine) + 1).max() < 1e-15 * N * 10
    assert hippo.spectrum(1).size == 0
    assert hippo.phase_heights(1).tolist() == [0.0]


def test_spectrum_asymptotics() -> None:
    """N^2 (y_0 - N^2/pi + pi/6) tends to 0.6063, and the bulk law follows every eigenvalue."""
    for N in (128, 1024):
        top = hippo.spectrum(N)[0]
        correction = (top - N**2 / np.pi + np.pi / 6) * N**2
        assert abs(correction - 0.6063) < 2e-3 + 4e-16 * top * N**2
        assert abs(float(hippo.spectrum_asymptotic(N)) - top) < 0.62 / N**2 + 4e-16 * top
    exact, bulk = hippo.spectrum(256), hippo.spectrum_bulk(256)
    assert np.abs(bulk / exact - 1).max() < 0.11
    assert np.abs(bulk / exact - 1)[:100].max() < 2e-3


def test_phase_heights_of_other_phases() -> None:
    """Eigenvalues of the normal matrix A_N - theta P P^T, theta = (1-a)/(1+a) imaginary for |a| = 1."""
    N = 24
    normal, P, _ = hippo.nplr(N)
    for angle in (0.7, -2.0, 2.9):
        a = np.exp(1j * angle)
        eigenvalues = np.linalg.eigvals(normal - (1 - a) / (1 + a) * P @ P.T)
        mine = np.sort(hippo.phase_heights(N, angle))
        assert np.allclose(np.sort(eigenvalues.imag), mine, rtol=1e-9, atol=1e-9)
        assert np.allclose(np.sort(hippo.phase_heights(N, angle, exact=False)), mine, rtol=1e-5, atol=1e-5)


def test_s4d_gramian_and_gap_solve_the_lyapunov_equation() -> None:
    for N in (1, 2, 3, 8, 40):
        normal, _, B = hippo.nplr(N)
        W = hippo.s4d_gramian(N)
        residual = normal @ W + W @ normal.T + np.outer(B, B) / 4
        assert np.abs(residual).max() < 1e-12 * max(1, N**3)
        A = hippo.legs(N)[0]
        assert np.allclose(solve_continuous_lyapunov(A, -np.outer(B, B)), hippo.gramian(N), atol=1e-12)
    nodes = np.linalg.eigvalsh(hippo.gramian(20))
    assert np.allclose(nodes, (np.sort(legendre.leggauss(20)[0]) + 1) / 2, atol=1e-14)


def test_gap_is_exact(shared_oracles: Path) -> None:
    golden = json.loads((shared_oracles / "linear_golden.json").read_text())
    for N, value in golden["h2gap_e0"].items():
        assert math.isclose(math.sqrt(hippo.s4d_gap(int(N))), float(value), rel_tol=2e-16)
    for N in (2, 5, 12):
        normal, _, B = hippo.nplr(N)
        A = hippo.legs(N)[0]
        cross = _sylvester(normal, A, B / 2, B)
        for n in range(N):
            expected = hippo.s4d_gramian(N)[n, n] - 2 * cross[n, n] + 0.5
            assert math.isclose(hippo.s4d_gap(N, n), expected, rel_tol=1e-10, abs_tol=1e-12)
    assert hippo.s4d_gap(3, 2, exact=True) == Fraction(5, 4) - Fraction(19, 18) + Fraction(3, 21)


def _sylvester(A: np.ndarray, B: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    from scipy.linalg import solve_sylvester

    return solve_sylvester(A, B.T, -np.outer(b, c))


@pytest.mark.parametrize("call", [
    lambda: hippo.legs(0), lambda: hippo.legs(2.5), lambda: hippo.legs(True), lambda: hippo.fout(3),
    lambda: hippo.legt(4, window=0), lambda: hippo.legt(4, variant="shiped"), lambda: hippo.lagt(3, weight=-1.0),
    lambda: hippo.nplr(4, "legz"), lambda: hippo.nplr(4, "legt", variant="lmu"), lambda: hippo.transfer(4, 0.0, [4]),
    lambda: hippo.s4d_gap(4, 4), lambda: hippo.phase_heights(4, math.pi), lambda: hippo.spectrum(-1),
    lambda: hippo.legs_kernel(-1, 0.0),
])  # fmt: skip
def test_bad_input_is_named(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError):
        call()


def test_messages_help() -> None:
    with pytest.raises(InputError, match="Did you mean 'shipped'"):
        hippo.legt(4, variant="shiped")  # type: ignore[arg-type]
