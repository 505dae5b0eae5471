"""Norms against SLICOT, published benchmark values, exact results, quadrature, and each other."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmtheory import lti
from ssmtheory.errors import InputError
from ssmtheory.lti import DiagonalStateSpace, StateSpace, TransferFunction
from ssmtheory.lti.norms import h2_inner_product, h2_quadrature

sys.path.insert(0, str(Path(__file__).parent))
from random_systems import kinds, legs, matrices, seeds, steps, system, value


def benchmark(folder: Path, name: str) -> tuple[StateSpace, dict]:
    """A system of the SLICOT collection; sparse and integer matrices come as they are stored."""
    data = scipy.io.loadmat(folder / "slicot" / f"{name}.mat")
    B, C = (np.asarray(x.todense() if hasattr(x, "todense") else x, dtype=float) for x in (data["B"], data["C"]))
    return StateSpace(data["A"], B, C), data


def s4d_lin(n: int = 8) -> DiagonalStateSpace:
    return DiagonalStateSpace(-0.5 + 1j * np.pi * np.arange(n), np.ones(n), np.ones(n))


def legs_transfer(N: int) -> TransferFunction:
    """HiPPO-LegS by its recurrence, Y_n = Y_{n-1} (s - n + 1)/(s + n + 1); bounded by |X| = N/sqrt(w^2 + N^2)."""

    def evaluate(s: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        y, values = 1 / (s + 1), {}
        for n in range(int(outputs.max()) + 1):
            y = y * (s - n + 1) / (s + n + 1) if n else y
            values[n] = math.sqrt(2 * n + 1) * y
        return np.stack([values[int(n)] for n in outputs], axis=1)[:, :, None]

    def slope(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        near = np.maximum(0, np.maximum(a, -b))
        return 2 * N / np.hypot(near, N)

    return TransferFunction(
        evaluate, (N, 1), slope=slope, tail=lambda w: N / math.hypot(w, N), poles=-np.arange(1.0, N + 1)
    )


def s4d(N: int) -> DiagonalStateSpace:
    """S4D-LegS: the normal part of LegS, half of B."""
    A, B = legs(N)
    normal = A + np.outer(B, B) / 2
    y, V = np.linalg.eigh(-1j * (normal - normal.T) / 2)
    return DiagonalStateSpace(-0.5 + 1j * y, V.conj().T @ B / 2, V)


# -- H-infinity


@pytest.mark.parametrize(
    ("name", "norm", "digits"), [("build", 0.0052763338, 1e-8), ("CDplayer", 2319821, 1e-6), ("pde", 10.835824, 1e-7)]
)
def test_slicot_benchmarks(shared_oracles: Path, name: str, norm: float, digits: float) -> None:
    one, data = benchmark(shared_oracles, name)
    found = one.hinf_norm(tol=1e-9)
    assert found.value == pytest.approx(norm, rel=digits)
    assert found.lower <= found.value <= found.upper <= found.lower * (1 + 2e-9)
    assert not found.rigorous
    assert one.hinf_norm(method="slicot").value == pytest.approx(found.value, rel=1e-8)
    assert float(np.linalg.norm(one.frequency_response(found.omega), 2)) == pytest.approx(found.value, rel=1e-12)
    # the sampled gains that ship with the benchmark do not exceed it
    assert data["mag"].max() <= found.upper * (1 + 1e-5)


@pytest.mark.parametrize("method", ["auto", "branch", "levelset", "slicot"])
def test_eight_modes(method: str) -> None:
    found = s4d_lin().hinf_norm(tol=1e-9, method=method)
    assert found.value == pytest.approx(2.33207802, abs=5e-9)
    assert found.method == ("branch" if method == "auto" else method)


@given(seed=seeds, n=st.integers(1, 12), p=st.integers(1, 3), m=st.integers(1, 3), dt=steps, kind=kinds)
@settings(max_examples=25, deadline=None)
def test_complex_systems_agree_with_slicot(seed: int, n: int, p: int, m: int, dt: float | None, kind: str) -> None:
    one = system(kind, seed, n, p, m, dt)
    found, peer = one.hinf_norm(tol=1e-9), one.hinf_norm(method="slicot", tol=1e-10)
    assert found.value == pytest.approx(peer.value, rel=1e-8)
    assert found.lower * (1 - 1e-9) <= peer.value <= found.upper * (1 + 1e-9)


@given(seed=seeds, n=st.integers(1, 6), p=st.integers(1, 3), m=st.integers(1, 3), dt=steps, kind=kinds)
@settings(max_examples=25, deadline=None)
def test_with_a_direct_term_slicot_may_say_less(seed: int, n: int, p: int, m: int, dt: float | None, kind: str) -> None:
    """With D != 0, AB13DD falls short for 3 of 600 small systems, by up to 10 %: what we say is a gain reached."""
    one = system(kind, seed, n, p, m, dt, proper=True)
    found, peer = one.hinf_norm(tol=1e-9), one.hinf_norm(method="slicot", tol=1e-10)
    assert peer.value <= found.upper * (1 + 1e-9)
    if math.isfinite(found.omega):
        s = 1j * found.omega if dt is None else np.exp(1j * found.omega * dt)
        assert np.linalg.norm(value(one, s), 2) == pytest.approx(found.value, rel=1e-9)


def test_a_system_for_which_slicot_says_less() -> None:
    one = system("dense", 17355615, n=1, p=1, m=2, proper=True)
    w = np.linspace(-10, 10, 200_001)
    sampled = np.linalg.norm(one.frequency_response(w), axis=(1, 2)).max()
    found = one.hinf_norm(tol=1e-10)
    assert sampled <= found.upper
    assert found.value == pytest.approx(sampled, rel=1e-7)
    assert found.value == pytest.approx(3.01962, abs=1e-5)  # AB13DD: 2.73230


@given(seed=seeds, dt=steps)
@settings(max_examples=20, deadline=None)
def test_branch_and_level_set_agree(seed: int, dt: float | None) -> None:
    one = system("diagonal", seed, 5, 2, 2, dt, proper=True) - system("pairs", seed + 1, 4, 2, 2, dt)
    a, b = one.hinf_norm(tol=1e-8, method="branch"), one.hinf_norm(tol=1e-8, method="levelset")
    assert a.value == pytest.approx(b.value, rel=1e-8)
    w = np.random.default_rng(seed).uniform(-30, 30, 500)
    assert np.linalg.norm(one.frequency_response(w), 2, axis=(1, 2)).max() <= a.upper * (1 + 1e-12)


@given(seed=seeds, dt=steps, kind=kinds)
@settings(max_examples=30, deadline=None)
def test_bounds_hold_between_the_points(seed: int, dt: float | None, kind: str) -> None:
    """The chord bound, on which the bracket rests, along random intervals of sums, series and feedback."""
    a, b = system(kind, seed, 4, 2, 2, dt, proper=True), system("diagonal", seed + 1, 3, 2, 2, dt)
    rng = np.random.default_rng(seed)
    for one in (a, a - 2j * b, b * a, np.ones((1, 2)) @ (a + b), a.feedback(0.1 * b)):
        closed = one.transfer
        if not closed.has_bounds:
            continue  # a matrix that is no contraction has no bound from its numerical range
        left = rng.uniform(-8, 8, 20)
        right = left + 10 ** rng.uniform(-3, 0.5, 20)
        bound = closed.remainder(left, right)
        x, y = closed.frequency_response(left), closed.frequency_response(right)
        for t in (0.25, 0.5, 0.9):
            away = closed.frequency_response(left + t * (right - left)) - (1 - t) * x - t * y
            assert (np.linalg.norm(away, 2, axis=(1, 2)) <= bound * (1 + 1e-9) + 1e-12).all()
        if dt is None:
            far = np.linalg.norm(closed.frequency_response(np.array([40.0, -40.0, 1e3])), 2, axis=(1, 2))
            assert far.max() <= closed.tail(40.0) * (1 + 1e-12)


def test_a_spike_between_grid_points_is_found() -> None:
    """Half-width 1e-9 at 1234.5678: no grid would meet it."""
    one = DiagonalStateSpace([-1.0, -1e-9 + 1234.5678j], [1, 1], [1, 1e-6])
    found = one.hinf_norm(tol=1e-8)
    assert found.value == pytest.approx(1e-6 / 1e-9, rel=1e-5)
    assert found.omega == pytest.approx(1234.5678, abs=1e-8)
    assert found.points < 5000


@pytest.mark.parametrize("N", [4, 16, 64])
def test_s4d_gap_is_the_reference(shared_oracles: Path, N: int) -> None:
    golden = json.loads((shared_oracles / "linear_golden.json").read_text())
    gap = legs_transfer(N) - s4d(N)
    for one, key in ((gap[0], "sup_e0"), (gap, "sup_worst")):
        found = one.hinf_norm(tol=1e-7)
        sup, omega = (float(x) for x in golden[key][str(N)])
        # eigenvectors in double precision carry about 1e-12 into the spike
        assert found.value == pytest.approx(sup, rel=1e-11)
        assert found.omega == pytest.approx(omega, rel=1e-7)
        assert found.lower <= sup * (1 + 1e-11)
        assert sup <= found.upper


@pytest.mark.slow
def test_s4d_gap_at_1024() -> None:
    found = (legs_transfer(1024) - s4d(1024)).hinf_norm()
    assert found.value == pytest.approx(651.896, abs=5e-4)
    assert found.omega == pytest.approx(333771.584, abs=5e-4)


def test_norms_of_special_systems() -> None:
    delay = TransferFunction(
        lambda s, o: np.exp(-s)[:, None, None],
        (1, 1),
        slope=lambda a, b: np.ones_like(a),
        tail=lambda w: 1.0,
        stable=True,
    )
    assert delay.hinf_norm().value == pytest.approx(1, rel=1e-12)
    # 1 - exp(-s) peaks at 2; its tail never falls, but is reached
    assert (1 - delay).hinf_norm().value == pytest.approx(2, rel=1e-9)
    assert StateSpace([[-1]], [0], [1]).hinf_norm().value == 0
    high_pass = StateSpace([[-1]], [1], [-1], [1])
    assert high_pass.hinf_norm().value == 1
    assert (
        math.isinf(high_pass.hinf_norm(method="levelset").omega) or high_pass.hinf_norm(method="levelset").omega > 1e3
    )
    # all-pass: flat at 1
    assert StateSpace([[-2]], [4], [-1], [1]).hinf_norm().value == pytest.approx(1, rel=1e-12)
    # a pole on the axis
    assert math.isinf(DiagonalStateSpace([2j], [1], [1]).linf_norm().value)


def test_unstable_systems_have_an_linf_norm_only() -> None:
    one = DiagonalStateSpace([0.5 + 1j, -1], [1, 1], [1, 1])
    for question in (one.hinf_norm, one.h2_norm, one.gramian, one.hankel_singular_values):
        with pytest.raises(lti.UnstableSystem, match=r"spectral abscissa 0\.5"):
            question()
    mirror = DiagonalStateSpace([-0.5 + 1j, -1], [-1, 1], [1, 1])
    found = one.linf_norm(tol=1e-9)
    w = np.linspace(-20, 20, 200_001)
    assert found.value == pytest.approx(np.abs(one.frequency_response(w)).max(), rel=1e-6)
    assert one.to_dense().linf_norm(method="levelset", tol=1e-9).value == pytest.approx(found.value, rel=1e-8)
    assert found.value != pytest.approx(mirror.hinf_norm().value, rel=1e-3)


def test_contractions_are_stable_whatever_their_eigenvalues_say() -> None:
    A, B = legs(64)
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((64, 64)))[0]
    one = StateSpace(Q @ A @ Q.T, Q @ B, np.eye(64)[:1])
    assert np.linalg.eigvals(one.A).imag.max() > 1  # meaningless: the eigenvalues are -1 .. -64
    assert one.is_stable()


def test_wrong_options() -> None:
    one = s4d_lin()
    bare = TransferFunction(lambda s, o: (1 / (s + 1))[:, None, None], (1, 1), poles=[-1])
    for make, words in (
        (lambda: one.hinf_norm(method="brnch"), "Did you mean 'branch'?"),
        (lambda: one.hinf_norm(tol=0), "tol=0"),
        (lambda: one.gramian("reachability"), "must be 'controllability'"),
        (lambda: bare.hinf_norm(), "pass slope= and tail="),
        (lambda: bare.with_(poles=None).hinf_norm(), "are not known"),
    ):
        with pytest.raises(InputError) as caught:
            make()
        assert words in str(caught.value)


# -- H2 and Gramians


@given(seed=seeds, kind=kinds, dt=steps)
@settings(max_examples=30, deadline=None)
def test_gramians_solve_their_equations(seed: int, kind: str, dt: float | None) -> None:
    one = system(kind, seed, dt=dt)
    A, B, C, _ = matrices(one)
    for A_, X, W in ((A, B, one.gramian()), (A.conj().T, C.conj().T, one.gramian("observability"))):
        left = A_ @ W + W @ A_.conj().T if dt is None else A_ @ W @ A_.conj().T - W
        np.testing.assert_allclose(left, -X @ X.conj().T, atol=1e-9 * max(1, np.abs(W).max()))


@given(seed=seeds, kind=kinds, other=kinds, dt=steps)
@settings(max_examples=20, deadline=None)
def test_h2_is_parseval(seed: int, kind: str, other: str, dt: float | None) -> None:
    a, b = system(kind, seed, dt=dt, proper=dt is not None), system(other, seed + 1, dt=dt)
    for one in (a, a - 2j * b):
        assert one.h2_norm() == pytest.approx(h2_quadrature(one), rel=1e-8)
        assert one.h2_norm() == pytest.approx(one.to_dense().h2_norm(), rel=1e-8)
    assert h2_inner_product(a, b) == pytest.approx(np.conj(h2_inner_product(b, a)), rel=1e-9)
    assert a.l2_gap(a) == pytest.approx(0, abs=1e-6 * a.h2_norm())


def test_h2_of_the_impulse_response() -> None:
    one = system("dense", 5)
    t, weights = np.polynomial.legendre.leggauss(400)
    t, weights = 60 * (t + 1) / 2, 30 * weights  # exp(-0.2 * 60) squared is below 1e-10
    energy = weights @ (np.abs(one.impulse_response(t)) ** 2).sum(axis=(1, 2))
    assert one.h2_norm() == pytest.approx(math.sqrt(energy), rel=1e-7)
    assert math.isinf((one + np.ones((2, 3))).h2_norm())
    assert s4d_lin().h2_norm() == pytest.approx(3.12821, abs=5e-6)


@pytest.mark.parametrize("N", [2, 8, 40])
def test_legs_gramian_is_a_jacobi_matrix(N: int) -> None:
    A, B = legs(N)
    n = np.arange(N - 1)
    off = (n + 1) / (2 * np.sqrt((2 * n + 1) * (2 * n + 3)))
    exact = np.diag(np.full(N, 0.5)) + np.diag(off, 1) + np.diag(off, -1)
    np.testing.assert_allclose(lti.TriangularStateSpace(A, B, np.eye(N)).gramian(), exact, atol=1e-13 * N)


@pytest.mark.parametrize("N", [8, 64])
def test_l2_gap_of_s4d_is_exact(shared_oracles: Path, N: int) -> None:
    golden = float(json.loads((shared_oracles / "linear_golden.json").read_text())["h2gap_e0"][str(N)])
    A, B = legs(N)
    diagonal, closed = s4d(N), legs_transfer(N)
    for reference in (lti.TriangularStateSpace(A, B, np.eye(N)), closed):
        assert (reference[0] - diagonal[0]).h2_norm() == pytest.approx(golden, rel=1e-9)
    n = 3  # (2n+1)/4 - (3n^2+3n+1)/(2N^2)
    assert closed[n].l2_gap(diagonal[n]) ** 2 == pytest.approx(7 / 4 - 37 / (2 * N**2), rel=1e-9)


# -- structured paths at large N


def test_structured_paths_agree_at_the_spike() -> None:
    """At N = 256 the spike of S4D sits at N^2/pi - pi/6, where a dense solve is ill conditioned."""
    N = 256
    A, B = legs(N)
    closed, diagonal = legs_transfer(N), s4d(N)
    w = N**2 / np.pi - np.pi / 6 + np.array([-0.5, 0.0, 0.3])
    exact = closed.frequency_response(w)
    scale = np.linalg.norm(exact[:, :, 0], axis=1)[:, None, None]
    triangular = lti.TriangularStateSpace(A, B, np.eye(N)).frequency_response(w)
    assert (np.abs(triangular - exact) / scale).max() < 1e-13
    # diagonal plus low rank in the eigenbasis of the normal part: A_H = A_N - P P*
    V, P = diagonal.C, np.sqrt(np.arange(N) + 0.5)
    low = V.conj().T @ P
    dplr = lti.LowRankStateSpace(diagonal.diagonal, low, low, V.conj().T @ B, V).frequency_response(w)
    # the eigenvalues carry an error of 1e-16 times ||A_N||, 4e4, into a half-width of 1/2
    assert (np.abs(dplr - exact) / scale).max() < 1e-10
    # G_Diag (1 + phi) = G_DPLR with phi = 1 - B^T X
    phi = 1 - np.einsum("n,knm->km", B, exact)[:, :, None]
    gap = diagonal.frequency_response(w) * (1 + phi) - exact
    assert (np.abs(gap) / scale).max() < 1e-9


@pytest.mark.parametrize("dt", [0.1, 0.001])
def test_discretised_gap_of_s4d(dt: float) -> None:
    """Zero-order hold damps the spike, Tustin keeps it, S4's convention multiplies it by sqrt(1 + (w0 dt/2)^2)."""
    N = 64
    A, B = legs(N)
    gap = lti.TriangularStateSpace(A, B, np.eye(N))[0] - s4d(N)[0]
    factor = math.hypot(1, 1303.273842985 * dt / 2)
    assert gap.discretize(dt, "bilinear").hinf_norm().value == pytest.approx(0.6367473652, rel=1e-8)
    # the isolated-mode law 2/pi, at finite N
    assert gap.discretize(dt, "bilinear_s4").hinf_norm().value == pytest.approx(2 / np.pi * factor, rel=3e-4)
    held = gap.discretize(dt).hinf_norm().value
    assert held < 0.64 * (1.02 if dt == 0.001 else 0.1)


def test_a_peak_just_above_the_direct_term() -> None:
    """A gain of 1.00002 next to ||D|| = 1: found, and by direct solution there."""
    one = StateSpace([[-1 + 3j]], [4e-5], [0.5], [1])
    found = one.hinf_norm(tol=1e-10)
    exact = float(np.abs(1 + 2e-5 / (1j * found.omega - (-1 + 3j))))
    assert found.value == pytest.approx(exact, rel=1e-14)
    assert found.value == pytest.approx(1 + 2e-5, rel=1e-11)
    assert found.omega == pytest.approx(3, abs=1e-2)
