"""Spectra of the input-output matrix, q, kappa at observed lags: against dense matrices and explicit sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from ssmtheory.dynamics import input_output as io
from ssmtheory.errors import InputError


def _projections(states: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(states, width)), rng.normal(size=(states, width))


@pytest.mark.parametrize(("states", "width"), [(1, 3), (4, 30), (16, 40)])
def test_eigenvalues_are_the_nonzero_ones_of_the_dense_matrix(states: int, width: int) -> None:
    b, c = _projections(states, width, seed=1)
    dense = np.linalg.eigvals(c.T @ b)
    largest = dense[np.argsort(-np.abs(dense))]
    # the other width - states are zeros of a non-normal matrix: they come out as roots of rounding
    assert np.abs(largest[states:]).max() < 1e-6 * np.abs(largest[0])
    ours = io.input_output_eigenvalues(b, c)
    for value in ours:
        assert np.abs(largest[:states] - value).min() < 1e-9 * np.abs(largest[0])
    assert np.all(np.diff(ours.real) <= 1e-12)
    assert ours.sum().real == pytest.approx(np.trace(c.T @ b), rel=1e-10)


@pytest.mark.parametrize(("states", "width"), [(1, 2), (3, 20), (16, 60)])
def test_symmetric_spectrum_and_its_inertia(states: int, width: int) -> None:
    b, c = _projections(states, width, seed=2)
    m = c.T @ b
    dense = np.linalg.eigvalsh(0.5 * (m + m.T))
    nonzero = np.sort(dense[np.argsort(-np.abs(dense))[: 2 * states]])
    # both are backward stable: 1e-12 of the norm is a few hundred roundings
    np.testing.assert_allclose(io.symmetric_eigenvalues(b, c), nonzero, atol=1e-12 * np.abs(dense).max())
    ours = io.symmetric_eigenvalues(b, c)
    assert (ours > 0).sum() == states
    assert (ours < 0).sum() == states  # Sylvester: (N, N, D - 2N) whatever the weights


def test_tied_projections_are_semidefinite_of_rank_n() -> None:
    # the paper's own "positive" parameterisation S_B = diag(g) S_C with g > 0: G G^T is singular, Cholesky would fail
    _, c = _projections(4, 25, seed=3)
    b = np.array([0.7, 1.0, 2.0, 3.0])[:, None] * c
    ours = io.symmetric_eigenvalues(b, c)
    assert (ours > 1e-9 * ours[-1]).sum() == 4
    assert np.abs(ours[:4]).max() < 1e-7 * ours[-1]  # zeros come out as the square root of rounding
    dense = np.linalg.eigvalsh(c.T @ b)
    np.testing.assert_allclose(ours[4:], dense[-4:], rtol=1e-9)


def test_q_is_the_quadratic_form() -> None:
    b, c = _projections(5, 12, seed=4)
    u = np.random.default_rng(5).normal(size=(7, 12))
    explicit = [x @ c.T @ b @ x for x in u]
    np.testing.assert_allclose(io.token_q(u @ b.T, u @ c.T), explicit, rtol=1e-12)


def test_mismatched_projections_are_refused() -> None:
    with pytest.raises(InputError, match=r"one shape, not \(2, 3\) and \(2, 4\)"):
        io.symmetric_eigenvalues(np.ones((2, 3)), np.ones((2, 4)))


def test_spread_of_the_isotropic_fraction() -> None:
    # N = 1: the fraction is 1/2 + arcsin(rho)/pi with rho of standard deviation 1/sqrt(D), to first order 1/(pi sqrt D)
    assert io.isotropic_spread(1, 400) == pytest.approx(1 / (math.pi * 20), rel=1e-12)
    # large N: 1/sqrt(2 pi D), corrections of order 1/N
    assert io.isotropic_spread(200, 400) == pytest.approx(1 / math.sqrt(2 * math.pi * 400), rel=5e-3)
    # N = 4, D = 64 by simulation: 150 draws know their standard deviation to 6 %, hence 3 sigma = 18 %; the finite
    # number of directions adds sqrt(.25/800) in quadrature
    rng = np.random.default_rng(6)
    fractions = []
    for _ in range(150):
        b, c = rng.normal(size=(2, 4, 64))
        u = rng.normal(size=(800, 64))
        fractions.append((np.einsum("tn,tn->t", u @ b.T, u @ c.T) > 0).mean())
    expected = math.hypot(io.isotropic_spread(4, 64), math.sqrt(0.25 / 800))
    assert np.std(fractions) == pytest.approx(expected, rel=0.18)


@pytest.mark.parametrize("mu", [0.7, -0.4])
def test_critical_depth_is_the_time_of_the_one_dimensional_equation(mu: float) -> None:
    x0, step = 1.3, 0.2
    t_c = float(io.critical_depth(np.array(mu * x0**2), np.array(step)))
    found = solve_ivp(lambda _, x: mu * step * x**3, (0, 0.9 * t_c), [x0], rtol=1e-10, atol=1e-12).y[0, -1]
    # x^2 = x0^2/(1 - 2 mu step x0^2 t): growth by 1/sqrt(.1) towards the blow-up at t_c, or decay by 1/sqrt(1.9)
    assert found == pytest.approx(x0 / math.sqrt(1 - math.copysign(0.9, mu)), rel=1e-7)
    assert io.critical_depth(np.array(0.0), np.array(step)) == np.inf


def test_observed_lags() -> None:
    assert io.observed_lags(2) == (1,)
    assert io.observed_lags(512) == (1, 2, 4, 8, 16, 32, 64, 128, 256)
    assert io.observed_lags(10**6)[-1] == 256


def _explicit_kappa(
    delta: np.ndarray, A: np.ndarray, B: np.ndarray, C: np.ndarray, lag: int, stride: int
) -> tuple[np.ndarray, np.ndarray]:
    """(token, channel) kernels by the formula, and the tokens they belong to."""
    tokens, channels = delta.shape
    groups, states = B.shape[1:]
    kept = [t for t in range(lag, tokens) if lag == 1 or t % stride == 0]
    out = np.zeros((len(kept), channels))
    for row, t in enumerate(kept):
        for c in range(channels):
            g = c // (channels // groups)
            tau = sum(delta[k, c] for k in range(t - lag + 1, t + 1))
            out[row, c] = sum(
                C[t, g, n] * math.exp(A[c, n if A.shape[1] > 1 else 0] * tau) * B[t - lag, g, n] for n in range(states)
            )
    return out, np.array(kept)


@pytest.mark.parametrize(("groups", "scalar"), [(1, False), (2, False), (1, True), (3, True)])
@pytest.mark.parametrize("chunks", [(40,), (1, 2, 17, 20)])
def test_kappa_against_the_explicit_sum(groups: int, scalar: bool, chunks: tuple[int, ...]) -> None:
    rng = np.random.default_rng(7)
    tokens, channels, states, lags, stride = 40, 6, 3, (1, 2, 8), 3
    delta = rng.uniform(0.01, 0.3, (tokens, channels))
    A = -rng.uniform(0.5, 4.0, (channels, 1 if scalar else states))
    B, C = rng.normal(size=(2, tokens, groups, states))
    kernel = io.LagKernel(A, lags, stride)
    pieces, start = [], 0
    for size in chunks:
        part = slice(start, start + size)
        pieces.append(kernel.update(delta[part], B[part], C[part]))
        start += size
    per_token = np.concatenate(pieces)
    assert np.isnan(per_token[0])
    for i, lag in enumerate(lags):
        explicit, kept = _explicit_kappa(delta, A, B, C, lag, stride)
        np.testing.assert_allclose(kernel.kappa_sum[i] / kernel.count[i], explicit.mean(axis=0), rtol=1e-10, atol=1e-12)
        clock = np.array([[delta[t - lag + 1 : t + 1, c].sum() for c in range(channels)] for t in kept])
        np.testing.assert_allclose(kernel.time_sum[i] / kernel.count[i], clock.mean(axis=0), rtol=1e-10)
        if lag == 1:
            np.testing.assert_allclose(per_token[1:], explicit.mean(axis=1), rtol=1e-10, atol=1e-12)


def test_kappa_of_a_diagonal_A_changes_sign() -> None:
    # notes 3.4: c.b = (-1, 2), a = (.1, 3): kappa(0) = 1 and kappa(ln 2) = -2^-.1 + 2 * 2^-3 = -.683
    A = np.array([[-0.1, -3.0]])
    kernel = io.LagKernel(A, (1,))
    delta = np.full((2, 1), math.log(2.0))
    B, C = np.array([[[-1.0, 2.0]]] * 2), np.ones((2, 1, 2))
    assert io.token_q(B, C)[0, 0] == 1.0
    assert kernel.update(delta, B, C)[1] == pytest.approx(-0.683, abs=5e-4)
