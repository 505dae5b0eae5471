"""Hankel singular values against published ones, balanced truncation against its error bound."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmtheory.errors import InputError
from ssmtheory.lti import DiagonalStateSpace, StateSpace, TriangularStateSpace
from ssmtheory.lti.reduction import cauchy_factor, gramian_factor

sys.path.insert(0, str(Path(__file__).parent))
from random_systems import kinds, legs, matrices, seeds, steps, system
from test_norms import benchmark, s4d


@pytest.mark.parametrize("name", ["build", "CDplayer", "pde"])
def test_hankel_singular_values_of_the_benchmarks(shared_oracles: Path, name: str) -> None:
    one, data = benchmark(shared_oracles, name)
    found = one.hankel_singular_values()
    np.testing.assert_allclose(found, data["hsv"].ravel(), rtol=0, atol=1e-8 * found[0])


@given(seed=seeds, kind=kinds, dt=steps)
@settings(max_examples=30, deadline=None)
def test_factors_solve_lyapunov_equations(seed: int, kind: str, dt: float | None) -> None:
    A, B, _, _ = matrices(system(kind, seed, dt=dt))
    Z = gramian_factor(A, B, dt)
    W = Z @ Z.conj().T
    left = A @ W + W @ A.conj().T if dt is None else A @ W @ A.conj().T - W
    np.testing.assert_allclose(left, -B @ B.conj().T, atol=1e-10 * max(1, np.abs(W).max()))


@given(seed=seeds, kind=kinds, dt=steps)
@settings(max_examples=20, deadline=None)
def test_hankel_singular_values_are_those_of_the_gramians(seed: int, kind: str, dt: float | None) -> None:
    one = system(kind, seed, dt=dt)
    product = one.gramian() @ one.gramian("observability")
    wanted = np.sqrt(np.abs(np.sort(scipy.linalg.eigvals(product).real)[::-1]))
    found = one.hankel_singular_values()
    # the eigenvalues of the product lose half the digits
    np.testing.assert_allclose(found, wanted, atol=1e-6 * found[0])
    # similarity changes nothing
    T = np.random.default_rng(seed).standard_normal((len(product), len(product))) + 3 * np.eye(len(product))
    A, B, C, D = matrices(one)
    turned = StateSpace(np.linalg.solve(T, A @ T), np.linalg.solve(T, B), C @ T, D, one.dt)
    np.testing.assert_allclose(turned.hankel_singular_values(), found, atol=1e-9 * found[0])


@given(seed=seeds, dt=steps, n=st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_cauchy_factors(seed: int, dt: float | None, n: int) -> None:
    one = system("diagonal", seed, n, m=1, dt=dt)
    Z = cauchy_factor(one.diagonal, one.B[:, 0], dt)
    W = one.gramian()
    np.testing.assert_allclose(Z @ Z.conj().T, W, atol=1e-13 * np.abs(W).max())


def test_small_hankel_singular_values_keep_their_digits() -> None:
    """1/(s+1), ..., 1/(s+10) in parallel: the values fall to 1e-14, and agree with 60-digit arithmetic."""
    import mpmath

    n = 10
    one = DiagonalStateSpace(-np.arange(1.0, n + 1), np.ones(n), np.ones(n))
    with mpmath.workdps(60):
        W = mpmath.matrix(n, n)
        for i in range(n):
            for j in range(n):
                W[i, j] = mpmath.mpf(1) / (i + j + 2)
        wanted = sorted((float(x) for x in mpmath.eigsy(W, eigvals_only=True)), reverse=True)
    found = one.hankel_singular_values()
    # symmetric: the values are the eigenvalues of the Gramian. SVD of the product is accurate to the largest
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-15 * wanted[0])


def test_pairs_of_s4d(shared_oracles: Path) -> None:
    """Output 0 of S4D-LegS at N = 64: pairs near 1/((2m+1) pi) that never decay with N, after 1/2."""
    found = s4d(64)[0].hankel_singular_values()
    assert found[0] == pytest.approx(0.5, abs=2e-3)
    for m in range(2):
        np.testing.assert_allclose(found[1 + 2 * m : 3 + 2 * m], 1 / ((2 * m + 1) * np.pi), rtol=0.02)


def test_first_output_of_legs_has_one() -> None:
    """Output 0 of LegS is 1/(s+1): Hankel singular values 1/2, 0, 0, ..."""
    A, B = legs(12)
    found = TriangularStateSpace(A, B, np.eye(12))[0].hankel_singular_values()
    np.testing.assert_allclose(found, [0.5] + 11 * [0], atol=1e-12)


@given(seed=seeds, kind=kinds, dt=steps, order=st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_truncation_keeps_its_bound(seed: int, kind: str, dt: float | None, order: int) -> None:
    one = system(kind, seed, dt=dt, proper=True)
    found = one.balanced_truncation(order)
    assert found.system.state_dim == order
    assert found.system.dt == dt
    error = (one - found.system).hinf_norm(tol=1e-6, method="levelset").value
    assert error <= found.error_bound * (1 + 1e-6) + 1e-9 * found.hankel_singular_values[0]
    assert error >= found.hankel_singular_values[order] * (1 - 1e-6)  # no system of that order does better
    W = found.system.gramian()
    if dt is None:
        np.testing.assert_allclose(
            np.linalg.eigvals(W @ found.system.gramian("observability")).real.max(),
            found.hankel_singular_values[0] ** 2,
            rtol=1e-6,
        )
    whole = one.balanced_truncation(one.state_dim) if kind != "pairs" else None
    if whole is not None:
        s = np.array([1 + 1j, 3.0])
        np.testing.assert_allclose(whole.system(s), one(s), atol=1e-7 * np.abs(one(s)).max())


def test_refusals() -> None:
    A, B = legs(6)
    one = TriangularStateSpace(A, B, np.eye(6))[0]
    with pytest.raises(InputError, match=r"order=0: must be 1 to 6"):
        one.balanced_truncation(0)
    with pytest.raises(InputError, match="numerical rank 1"):
        one.balanced_truncation(3)
