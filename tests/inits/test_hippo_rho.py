"""HiPPO-rho against dense matrices, the arctan law, its own theorems, and the numbers of the notes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.linalg import solve_continuous_lyapunov

from ssmtheory.errors import InputError
from ssmtheory.inits import LegS, hippo, hippo_rho
from ssmtheory.inits.hippo_rho import HiPPORho

FACTORS = (0.1, -0.1, 0.5, -0.95, 0.99, 1j / 11, -0.3j, 0.2 + 0.3j, -0.2 - 0.01j, 0.002, -0.001, 1e-5j, -0.6 - 0.5j)


@pytest.mark.parametrize("N", [1, 2, 3, 8, 17, 40])
def test_poles_and_condition_against_dense_matrices(N: int) -> None:
    for a in FACTORS:
        found = hippo_rho.poles(N, a)
        A, _ = hippo_rho.matrices(N, a)
        dense = np.linalg.eigvals(A)
        V = hippo_rho.eigenvectors(N, found)
        kappa, lower = hippo_rho.condition(N, a, found)
        # an eigenvalue of A is known to eps ||A|| times its condition, at most kappa
        distance = np.abs(dense[:, None] - found)
        allowed = 1e-14 * max(1, np.linalg.norm(A, 2)) * max(kappa, 10)
        assert max(distance.min(axis=0).max(), distance.min(axis=1).max()) < allowed, a
        assert np.abs(a * hippo.phi(N, found) + 1).max() < 1e-11
        assert np.abs(A @ V - V * found).max() < 1e-11 * max(1, np.linalg.norm(A, 2))
        assert math.isclose(kappa, np.linalg.cond(V), rel_tol=1e-6 + 1e-15 * kappa**2)
        assert lower <= kappa * (1 + 1e-9)
        assert (found.real < -0.5).all()
        phases = V.conj().T @ V
        assert np.allclose(np.abs(phases), np.abs(hippo_rho.gram(found)), atol=1e-11)


def test_argument_law() -> None:
    """Modulus and argument of phi at a pole, each summed by itself: ln rho, and an odd multiple of pi less arg a."""
    N, a = 50, 0.1 * np.exp(0.8j)
    z = hippo_rho.poles(N, a)[:, None]
    k = np.arange(N)
    growth = np.log(np.abs(z - k)).sum(axis=1) - np.log(np.abs(z + k + 1)).sum(axis=1)
    turn = (np.angle(z - k) - np.angle(z + k + 1)).sum(axis=1) + 0.8
    assert np.allclose(growth, math.log(10), atol=1e-10)
    assert np.allclose(np.cos(turn), -1, atol=1e-12)


@pytest.mark.parametrize("sign", ["auto", "positive", "negative", "imaginary"])
def test_the_system_is_x_over_one_plus_a_phi(sign: str) -> None:
    N = 20
    init = HiPPORho(7.0, sign)  # type: ignore[arg-type]
    built = init.build(N)
    a = init.factor(N)
    A, B = hippo_rho.matrices(N, a)
    assert (sign == "imaginary") == bool(a.imag)
    plain = built.system.with_(closed_form=None)
    for s in (0.0, 0.3j, -4j, 2.5 + 1j, 1j * hippo.spectrum(N)[0]):
        dense = np.linalg.solve(s * np.eye(N) - A, B)
        assert np.allclose(built.system(s)[:, 0], dense, atol=1e-12)
        assert np.allclose(plain(s)[:, 0], dense, atol=1e-12)
        X = hippo.transfer(N, s)
        assert np.allclose(dense, X / (1 + a * hippo.phi(N, s)), atol=1e-12)
    # the whole matrix is recovered from modes and basis
    V = built.basis
    assert np.allclose((V * built.system.diagonal) @ np.linalg.inv(V), A, atol=1e-10 * N)


def test_it_is_a_contraction() -> None:
    for N in (1, 2, 9):
        for sign in ("positive", "negative", "imaginary"):
            init = HiPPORho(3.0, sign)  # type: ignore[arg-type]
            A, _ = hippo_rho.matrices(N, init.factor(N))
            top = np.linalg.eigvalsh((A + A.conj().T) / 2)[-1]
            told = init.build(N).diagnostics["numerical_abscissa"]
            assert math.isclose(top, told, abs_tol=1e-12)
            assert top <= -0.5 + 1e-12


def test_numbers_of_the_notes() -> None:
    """N = 64, a = i/11. The notes' 0.0485 is the supremum over w > 0; a complex system has another one for w < 0."""
    init = HiPPORho(11.0, "imaginary")
    told = init.build(64).diagnostics
    assert f"{told['kappa']:.2f}" == "10.60"
    assert f"{told['spectral_abscissa']:.3f}" == "-0.697"
    w = np.linspace(1, 3000, 100001)
    s = 1j * w
    right = np.abs(hippo.phi(64, s) / 11 / hippo.one_plus_phi(64, s, 1j / 11) * 64 / np.hypot(w, 64)).max()
    assert f"{right:.4f}" == "0.0485"
    found = init.deviation(64)
    assert f"{found.value:.5f}" == "0.04860"
    assert found.omega < 0
    assert found.lower <= found.value <= found.upper < 1 / 20
    assert found.upper <= told["deviation_bound"] <= 1 / 20
    system = (LegS().build(64).system - init.build(64).system).hinf_norm(tol=1e-4)
    assert system.lower <= found.upper
    assert found.lower <= system.upper


def test_bound_and_condition_over_a_grid() -> None:
    """deviation < 1/(2(rho-1)) is proved; kappa <= rho is what is measured away from collisions of poles."""
    for N in (8, 17, 32):
        for rho in (1.05, 2.0, 10.0, 100.0, 3e3):
            for sign in ("auto", "imaginary"):
                init = HiPPORho(rho, sign)  # type: ignore[arg-type]
                found = init.deviation(N)
                assert found.upper <= init.deviation_bound(N) <= 1 / (2 * (rho - 1)) * (1 + 1e-12)
                assert init.deviation(N, 0).value <= 1 / ((rho - 1) * (N + 1))
                assert hippo_rho.condition(N, init.factor(N))[0] <= rho


def test_poles_collide_for_real_factors() -> None:
    """kappa <= rho is false there: at rho = 116.1 and a > 0 two poles of N = 8 meet."""
    first = hippo_rho.collisions(8)
    assert f"{first[0]:.0f}" == "116"
    assert first[0] > 0 > first[1]
    for N, expected in ((8, 116), (16, 292), (32, 704), (64, 1649), (128, 3780)):
        values = hippo_rho.collisions(N)
        assert abs(min(values[values > 0] if N % 2 == 0 else -values[values < 0]) - expected) < 1
        assert values.size == N - 1
    for N, expected in ((8, 4.9e3), (16, 5.4e4), (32, 5.6e5), (64, 5.4e6)):
        values = hippo_rho.collisions(N)
        assert math.isclose(min(-values[values < 0]), expected, rel_tol=0.02)
    rho = float(first[0])
    near = hippo_rho.condition(8, 1 / (rho * (1 + 1e-6)))[0]
    assert near > 100 * rho
    with pytest.raises(InputError, match=r"collision|separate"):
        hippo_rho.poles(8, 1 / rho)


def test_converges_uniformly_for_a_fixed_output() -> None:
    values = [HiPPORho(10.0).deviation(N, 0).value for N in (16, 64, 256, 1024)]
    ratios = np.array(values[:-1]) / np.array(values[1:])
    assert (np.abs(ratios - 4) < 0.3).all()  # rate 1/N, where S4D stays at 2/pi


def test_l2_gap_against_gramians() -> None:
    from scipy.linalg import solve_sylvester

    for N in (3, 6, 15):
        H, b = hippo.legs(N)
        for a in (0.3, -0.2, 0.9):
            A, B = hippo_rho.matrices(N, a)
            own = solve_continuous_lyapunov(A, -np.outer(B, B))
            cross = solve_sylvester(A, H.T, -np.outer(B, b))
            for n in (0, N - 2):
                gap = own[n, n] - 2 * cross[n, n] + 0.5
                assert math.isclose(hippo_rho.l2_gap(N, a, n), gap, rel_tol=1e-8, abs_tol=1e-12)
    # the large-N law, with a relative correction of order 1/N
    assert math.isclose(hippo_rho.l2_gap(4096, 0.1), 0.01 / (8192 * math.sqrt(0.99)), rel_tol=1e-3)


def test_more_modes_than_states() -> None:
    """Measured in the notes: rho = 1000, N = 32, cond(V) falls with c; the deviation tends to 1/((1+c) rho)."""
    kappas = []
    for c in (1.0, 1.5, 2.0):
        init = HiPPORho(1000.0, "imaginary", modes=c)
        built = init.build(32)
        found = (LegS().build(32).system - built.system).hinf_norm(tol=1e-3)
        assert built.basis.shape == (32, round(32 * c))
        assert built.system.shape == (32, 1)
        assert found.upper <= init.deviation_bound(32) * (1 + 2e-3)
        assert math.isclose(found.value, 1 / ((1 + c) * 1000), rel_tol=5e-3)
        kappas.append(built.diagnostics["kappa"])
    assert kappas[0] > 2 * kappas[1] > 3 * kappas[2] / 1.5


def test_normal_replacement() -> None:
    """kappa = 1 exactly, and the deviation below that of the notes' fits (0.261, 0.266, 0.270 for N = 8, 16, 32)."""
    for N, notes in ((8, 0.261), (16, 0.266), (32, 0.270)):
        built = HiPPORho(3.0, normal=True).build(N)
        V = built.basis
        assert np.allclose(V.conj().T @ V, np.eye(N), atol=1e-12)
        found = (LegS().build(N).system - built.system).hinf_norm(tol=1e-3)
        assert found.upper < notes
        assert found.value >= built.diagnostics["fit_deviation"] * (1 - 1e-9)


def test_at_1024_states() -> None:
    found = hippo_rho.poles(1024, 1j / 11)
    assert np.abs(hippo.phi(1024, found) / 11 * 1j + 1).max() < 1e-11
    theta = (1 - 1j / 11) / (1 + 1j / 11)
    assert abs(found.sum() + (1024 + theta * 1024**2) / 2) < 1e-9 * 1024**2
    kappa, lower = hippo_rho.condition(1024, 1j / 11, found)
    assert lower < kappa < 11
    assert HiPPORho(11.0, "imaginary").deviation(1024).upper < 1 / 20


@pytest.mark.slow
def test_condition_is_at_most_rho_on_the_grid_of_the_notes() -> None:
    """a = i/rho: kappa/rho is below 1 up to rho = 1e5 and falls with rho; the notes give its value at their least rho.

    kappa is close to rho^(1 - c/N) with c about 0.98; N points evenly spaced on a circle would have c = 1 exactly.
    """
    for N, most in ((8, 0.977), (16, 0.989), (32, 0.994), (64, 0.997), (128, 0.999)):
        grid = np.array([1.02, 1.2, 2.0, 5.0, 20.0, 100.0, 1e3, 1e4, 1e5])
        ratios = np.array([hippo_rho.condition(N, 1j / rho)[0] / rho for rho in grid])
        assert (ratios < 1).all()
        assert (np.diff(ratios) < 0).all()
        assert abs(ratios[1] - most) < 1.5e-3
        exponent = N * (1 - np.log(ratios * grid)[1:5] / np.log(grid[1:5]))
        assert (np.abs(exponent - 0.98) < 0.03).all()


@pytest.mark.parametrize("call", [
    lambda: HiPPORho(1.0), lambda: HiPPORho(sign="plus"), lambda: HiPPORho(modes=0.5),
    lambda: HiPPORho(normal=True, modes=2.0), lambda: hippo_rho.poles(4, 1.0), lambda: hippo_rho.poles(4, 0),
    lambda: hippo_rho.matrices(4, -1), lambda: HiPPORho(normal=True).deviation(8),
    lambda: HiPPORho(normal=True).deviation_bound(8), lambda: HiPPORho().build(0), lambda: hippo_rho.l2_gap(4, 0.1j),
    lambda: hippo_rho.l2_gap(4, 0.1, 3),
])  # fmt: skip
def test_bad_input_is_named(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError):
        call()
