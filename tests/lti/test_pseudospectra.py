"""Pseudospectra against singular values, closed forms for 2 x 2 matrices, published values; Kreiss and transients."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmtheory import lti
from ssmtheory.errors import InputError
from ssmtheory.lti import pseudospectra as ps
from ssmtheory.lti.solve import shifted_solve

sys.path.insert(0, str(Path(__file__).parent))
from random_systems import legs, normal, seeds, system


def grcar(n: int) -> np.ndarray:
    return np.diag(-np.ones(n - 1), -1) + sum(np.diag(np.ones(n - k), k) for k in range(4))


def smallest(A: np.ndarray, z: complex) -> float:
    return float(np.linalg.svd(z * np.eye(len(A)) - A, compute_uv=False)[-1])


@given(seed=seeds, n=st.integers(1, 70), lower=st.booleans(), q=st.integers(1, 2))
@settings(max_examples=20, deadline=None)
def test_shifted_solves(seed: int, n: int, lower: bool, q: int) -> None:
    rng = np.random.default_rng(seed)
    T = normal(rng, n, n) / n
    T = np.tril(T) if lower else np.triu(T)
    shifts, rhs = 2 + rng.random(5) + 1j * rng.random(5), normal(rng, n, 5, q)
    x = shifted_solve(T, rhs, shifts, lower=lower)
    for k, s in enumerate(shifts):
        np.testing.assert_allclose((s * np.eye(n) - T) @ x[:, k], rhs[:, k], atol=1e-12 * np.abs(rhs).max() * n)


@pytest.mark.parametrize("n", [5, 60])
def test_resolvent_norms(n: int) -> None:
    rng = np.random.default_rng(n)
    for A in (normal(rng, n, n), grcar(n), legs(n)[0], np.diag(normal(rng, n))):
        z = 3 * normal(rng, 20)
        found = ps.smallest_singular_value(A, z.reshape(4, 5)).reshape(-1)
        wanted = np.array([smallest(A, x) for x in z])
        # the residual test of Lanczos stands at 1e-9
        np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=1e-13 * np.linalg.norm(A, 2))
        assert ps.smallest_singular_value(A, np.linalg.eigvals(A)[0]) <= 1e-8 * np.linalg.norm(A, 2)


def test_grcar_abscissa_and_radius() -> None:
    """Published values for eps = 1e-4, N = 100."""
    A = grcar(100)
    assert float(ps.pseudospectral_abscissa(A, 1e-4)) == pytest.approx(2.41276, abs=5e-6)
    radius = ps.pseudospectral_radius(A, 1e-4)
    assert radius.value == pytest.approx(2.85216, abs=5e-6)
    assert abs(radius.point) == pytest.approx(radius.value, rel=1e-12)
    assert smallest(A, radius.point) == pytest.approx(1e-4, rel=1e-8)


@given(seed=seeds, n=st.integers(1, 7), exponent=st.floats(-4, 1))
@settings(max_examples=20, deadline=None)
def test_no_point_of_a_grid_lies_beyond(seed: int, n: int, exponent: float) -> None:
    A, eps = normal(np.random.default_rng(seed), n, n), 10.0**exponent
    for found, size in ((ps.pseudospectral_abscissa(A, eps), np.real), (ps.pseudospectral_radius(A, eps), np.abs)):
        assert smallest(A, found.point) == pytest.approx(eps, rel=1e-6)
        assert size(found.point) == pytest.approx(found.value, rel=1e-9)
        e = np.linalg.eigvals(A)
        reach = np.abs(e).max() + 3 * eps + 1
        axis = np.linspace(-reach, reach, 60)
        grid = (axis[:, None] + 1j * axis).reshape(-1)
        inside = grid[ps.smallest_singular_value(A, grid) < eps * (1 - 1e-6)]
        assert size(inside).max(initial=-np.inf) <= found.value * (1 + np.sign(found.value) * 1e-8) + 1e-9


@given(seed=seeds, eps=st.floats(1e-3, 10))
@settings(max_examples=20, deadline=None)
def test_normal_matrices_have_discs(seed: int, eps: float) -> None:
    e = normal(np.random.default_rng(seed), 6)
    assert ps.pseudospectral_abscissa(np.diag(e), eps).value == pytest.approx(e.real.max() + eps, rel=1e-8, abs=1e-9)
    assert ps.pseudospectral_radius(np.diag(e), eps).value == pytest.approx(np.abs(e).max() + eps, rel=1e-8)


@pytest.mark.parametrize("eps", [1e-6, 0.5, 3.0])
def test_a_jordan_block(eps: float) -> None:
    """sigma_min(z - [[0, c], [0, 0]]) = eps on the circle |z|^2 = eps^2 + c eps."""
    A = np.array([[0, 2.0], [0, 0]])
    for extreme in (ps.pseudospectral_abscissa, ps.pseudospectral_radius):
        assert extreme(A, eps).value == pytest.approx(math.sqrt(eps**2 + 2 * eps), rel=1e-8)


def test_orr_sommerfeld(shared_oracles: Path) -> None:
    A = scipy.io.loadmat(shared_oracles / "slicot" / "Orr-Som.mat")["A"].toarray()
    assert np.linalg.eigvals(A).real.max() == pytest.approx(-0.130, abs=5e-4)
    assert ps.numerical_abscissa(A) == pytest.approx(0.239, abs=5e-4)


def test_portraits() -> None:
    A = grcar(30)
    found = ps.portrait(A, (-1, 3), (-3, 3), points=7)
    assert found.smallest.shape == (7, 7)
    assert found.smallest[2, 5] == pytest.approx(smallest(A, found.x[5] + 1j * found.y[2]), rel=1e-7)
    free = ps.portrait(system("dense", 0), points=4)
    assert free.x[0] < free.eigenvalues.real.min() < free.eigenvalues.real.max() < free.x[-1]


def test_numerical_ranges() -> None:
    rng = np.random.default_rng(2)
    A = normal(rng, 6, 6)
    boundary = ps.numerical_range(A, 64)
    x = normal(rng, 6, 500)
    x /= np.linalg.norm(x, axis=0)
    inside = np.einsum("ik,ij,jk->k", x.conj(), A, x)
    for angle in np.linspace(0, 6, 13):
        turn = np.exp(-1j * angle)
        assert (turn * inside).real.max() <= (turn * boundary).real.max() + 0.02 * np.abs(boundary).max()
    assert boundary.real.max() == pytest.approx(ps.numerical_abscissa(A), rel=1e-12)
    support = [
        np.linalg.eigvalsh((t * A + (t * A).conj().T) / 2)[-1] for t in np.exp(1j * np.linspace(0, 2 * np.pi, 4000))
    ]
    assert ps.numerical_radius(A) == pytest.approx(max(support), rel=1e-5)
    assert ps.numerical_radius(A) >= max(support) * (1 - 1e-12)
    # a Jordan block: the disc of radius 1/2
    assert ps.numerical_radius([[0, 1], [0, 0]]) == pytest.approx(0.5, rel=1e-10)
    assert ps.numerical_radius(np.diag([3, 4j])) == pytest.approx(4, rel=1e-10)


@pytest.mark.parametrize("N", [8, 32])
def test_legs_has_no_transient(N: int) -> None:
    """Kreiss constant 1 and ||exp(tA)|| = exp(-t/2) at most, although its eigenvectors are as good as dependent."""
    A, B = legs(N)
    assert float(ps.kreiss_constant(A)) == 1
    t = np.linspace(0, 3, 7)
    assert (ps.transient_growth(A, t) <= np.exp(-t / 2) * (1 + 1e-12)).all()
    assert ps.numerical_abscissa(A) == pytest.approx(-0.5, abs=1e-10)
    bound = ps.transient_bound(lti.TriangularStateSpace(A, B, np.eye(N)))
    assert (bound.lower, bound.upper) == (1, 1)


@pytest.mark.parametrize(("discrete", "A"), [(False, [[-1, 10], [0, -2]]), (True, [[0.5, 4], [0, 0.3]])])
def test_kreiss_constant_of_a_transient(discrete: bool, A: list) -> None:
    A = np.array(A)
    found = ps.kreiss_constant(A, discrete, tol=1e-2)
    assert found.lower <= found.upper <= found.lower * 1.01
    # the definition, over a fine grid of the region (the maximum lies on the real axis for these matrices)
    x = np.geomspace(1e-3, 1e3, 4000)
    quotient = max(d / smallest(A, (1 + d) if discrete else d) for d in x)
    assert found.lower * (1 - 1e-4) <= quotient <= found.upper * (1 + 1e-9)
    t = np.arange(40) if discrete else np.linspace(0, 6, 61)
    growth = ps.transient_growth(A, t, discrete)
    direct = [np.linalg.norm(np.linalg.matrix_power(A, int(k)) if discrete else scipy.linalg.expm(k * A), 2) for k in t]
    np.testing.assert_allclose(growth, direct, rtol=1e-10)
    bound = ps.transient_bound(A, discrete)
    assert bound.lower <= growth.max() <= bound.upper
    assert bound.decay == pytest.approx(0.5 if discrete else -1)


def test_stability_radius() -> None:
    assert ps.stability_radius(np.diag([-0.3, -2 + 5j])) == pytest.approx(0.3, rel=1e-8)
    A = np.array([[-1.0, 10], [0, -2]])
    # the boundary of the pseudospectrum of that level touches the axis
    assert ps.pseudospectral_abscissa(A, ps.stability_radius(A)).value == pytest.approx(0, abs=1e-8)
    with pytest.raises(lti.UnstableSystem):
        ps.stability_radius([[1.0]])


def test_refusals() -> None:
    A = np.eye(2)
    for make, words in (
        (lambda: ps.pseudospectral_abscissa(A, 0), "epsilon=0"),
        (lambda: ps.portrait(A, (1, 0)), "low < high"),
        (lambda: ps.portrait(A, points=1), "points=1"),
        (lambda: ps.numerical_abscissa(np.ones((2, 3))), "must be square"),
        (lambda: ps.numerical_abscissa(np.zeros((0, 0))), "N >= 1"),
        (lambda: ps.transient_growth(A, [-1.0]), "not negative"),
        (lambda: ps.transient_growth(A, [0.5], discrete=True), "whole numbers"),
        (lambda: ps.transient_bound(A), "unstable"),
    ):
        with pytest.raises(InputError) as caught:
            make()
        assert words in str(caught.value)
