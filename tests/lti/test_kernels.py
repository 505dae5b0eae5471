"""Kernels against matrix powers, responses against exponentials and simulation."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmtheory import lti
from ssmtheory.errors import InputError
from ssmtheory.lti import DiagonalStateSpace, StateSpace
from ssmtheory.lti.kernels import generating_function, kernel, vandermonde

sys.path.insert(0, str(Path(__file__).parent))
from random_systems import kinds, matrices, seeds, system


def powers(one, length: int) -> np.ndarray:
    A, B, C, _ = matrices(one)
    out, x = [], B
    for _ in range(length):
        out.append(C @ x)
        x = A @ x
    return np.array(out)


@given(kind=kinds, seed=seeds, length=st.integers(1, 70))
@settings(max_examples=60, deadline=None)
def test_kernels_are_matrix_powers(kind: str, seed: int, length: int) -> None:
    one = system(kind, seed, dt=0.5, proper=True)
    wanted = powers(one, length)
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(one.kernel(length), wanted, atol=1e-12 * scale)
    for method in ("cauchy", "powers") + (("vandermonde",) if isinstance(one, DiagonalStateSpace) else ()):
        np.testing.assert_allclose(kernel(one, length, method), wanted, atol=1e-10 * scale)
    np.testing.assert_allclose((2j * one - one).kernel(length), (2j - 1) * wanted, atol=1e-11 * scale)


@given(kind=kinds, seed=seeds, length=st.integers(1, 20))
@settings(max_examples=20, deadline=None)
def test_generating_function_is_its_series(kind: str, seed: int, length: int) -> None:
    one = system(kind, seed, dt=0.5)
    z = np.exp(2j * np.pi * np.arange(length) / length)
    series = sum(K * z[:, None, None] ** -k for k, K in enumerate(powers(one, length)))
    np.testing.assert_allclose(generating_function(one, z, length), series, atol=1e-10 * np.abs(series).max())


def test_long_kernels_keep_their_digits() -> None:
    """Near the unit circle, 2^17 steps: powers by squaring against exponentials of the exact logarithm."""
    log = -1e-5 + 1j * np.array([0.1, 1.0, 3.0])
    K = vandermonde(np.exp(log), np.ones((3, 1)), 2**17)[:, 0]
    k = np.array([0, 1, 1000, 2**16, 2**17 - 1])
    # the base itself is rounded to 1e-16, which k steps multiply
    assert np.abs(K[k] - np.exp(k[:, None] * log).sum(axis=1)).max() < 2**17 * 3e-16


@given(kind=kinds, seed=seeds)
@settings(max_examples=30, deadline=None)
def test_continuous_responses(kind: str, seed: int) -> None:
    one = system(kind, seed, proper=True)
    A, B, C, D = matrices(one)
    t = np.array([0.0, 0.3, 0.1, 2.0, 0.3])
    impulse = np.array([C @ scipy.linalg.expm(x * A) @ B for x in t])
    step = np.array([C @ np.linalg.solve(A, (scipy.linalg.expm(x * A) - np.eye(len(A))) @ B) + D for x in t])
    np.testing.assert_allclose(one.impulse_response(t), impulse, atol=1e-11 * np.abs(impulse).max())
    np.testing.assert_allclose(one.step_response(t), step, atol=1e-10 * np.abs(step).max())
    both = (one - 3 * one).step_response(t)
    np.testing.assert_allclose(both, -2 * step, atol=1e-9 * np.abs(step).max())


@given(kind=kinds, seed=seeds)
@settings(max_examples=20, deadline=None)
def test_discrete_responses_are_simulations(kind: str, seed: int) -> None:
    one = system(kind, seed, dt=0.5, proper=True)
    A, B, C, D = matrices(one)
    for u, found in (
        (np.eye(1, 8)[0], one.impulse_response(0.5 * np.arange(8))),
        (np.ones(8), one.step_response(0.5 * np.arange(8))),
    ):
        x, y = np.zeros_like(B), []
        for k in range(8):
            y.append(C @ x + D * u[k])
            x = A @ x + B * u[k]
        np.testing.assert_allclose(found, y, atol=1e-12 * np.abs(y).max())


def test_zoh_samples_the_step_response() -> None:
    one, dt = system("dense", 4), 0.2
    t = dt * np.arange(10)
    np.testing.assert_allclose(one.discretize(dt).step_response(t), one.step_response(t), atol=1e-11)


def test_refusals() -> None:
    one = StateSpace([[-1]], [1], [1])
    discrete = one.discretize(0.1)
    for make, words in (
        (lambda: one.kernel(5), "discretize(dt, method)"),
        (lambda: discrete.kernel(0), "length=0"),
        (lambda: kernel(discrete, 3, "vandermonde"), "needs a diagonal system"),
        (lambda: kernel(discrete, 3, "fft"), "must be one of"),
        (lambda: one.impulse_response([-1.0]), "not negative"),
        (lambda: one.impulse_response(1.0), "must be real, (k,)"),
        (lambda: discrete.step_response([0.05]), "multiples of dt=0.1 s"),
    ):
        with pytest.raises(InputError) as caught:
            make()
        assert words in str(caught.value)
    with pytest.raises(lti.NoRealization):
        discrete.transfer.kernel(3)
