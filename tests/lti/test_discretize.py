"""Discretisation against the exponential of a block matrix, exact first-order results, and the maps of the plane."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmtheory import lti
from ssmtheory.errors import InputError
from ssmtheory.lti import DiagonalStateSpace, StateSpace, TransferFunction, TriangularStateSpace
from ssmtheory.lti.discretize import METHODS, discretize, zoh_factors

sys.path.insert(0, str(Path(__file__).parent))
from random_systems import kinds, legs, matrices, seeds, system

sizes = st.floats(-4, 0).map(lambda x: 10.0**x)
Z = np.exp(1j * np.array([0.1, 1.0, 3.0, -2.0]))


def by_definition(one, dt: float, method: str) -> StateSpace:
    """The table of the module, written with inverses; zero-order hold by the exponential of [[A, B], [0, 0]]."""
    A, B, C, D = matrices(one)
    n, m = B.shape
    eye = np.eye(n)
    if method == "zoh":
        block = scipy.linalg.expm(dt * np.vstack([np.hstack([A, B]), np.zeros((m, n + m))]))
        return StateSpace(block[:n, :n], block[:n, n:], C, D, dt)
    if method == "euler":
        return StateSpace(eye + dt * A, dt * B, C, D, dt)
    inverse = np.linalg.inv(eye - (dt if method == "backward_euler" else dt / 2) * A)
    if method == "backward_euler":
        return StateSpace(inverse, dt * inverse @ B, C, D, dt)
    bar_A, bar_B = inverse @ (eye + dt / 2 * A), dt * inverse @ B
    if method == "bilinear_s4":
        return StateSpace(bar_A, bar_B, C, D, dt)
    return StateSpace(bar_A, bar_B, C @ inverse, D + C @ bar_B / 2, dt)


@given(kind=kinds, seed=seeds, dt=sizes, method=st.sampled_from(METHODS))
@settings(max_examples=60, deadline=None)
def test_structured_is_dense(kind: str, seed: int, dt: float, method: str) -> None:
    one = system(kind, seed, proper=True)
    found, wanted = one.discretize(dt, method), by_definition(one, dt, method)
    assert found.dt == dt
    assert type(found) is (DiagonalStateSpace if isinstance(one, DiagonalStateSpace) else StateSpace)
    x, y = found(2 * Z), wanted(2 * Z)
    np.testing.assert_allclose(x, y, atol=1e-11 * np.abs(y).max())
    both = (one - 2j * one[:, [1, 0, 2]]).discretize(dt, method)(2 * Z)
    np.testing.assert_allclose(both, y - 2j * y[:, :, [1, 0, 2]], atol=1e-11 * np.abs(y).max())


@pytest.mark.parametrize("method", ["zoh", "bilinear", "euler"])
def test_real_systems_agree_with_scipy(method: str) -> None:
    rng = np.random.default_rng(0)
    A, B, C, D = (rng.standard_normal(s) for s in ((4, 4), (4, 2), (3, 4), (3, 2)))
    found = StateSpace(A, B, C, D).discretize(0.07, method)
    peer = scipy.signal.cont2discrete((A, B, C, D), 0.07, method)
    for x, y in zip((found.A, found.B, found.C, found.D), peer[:4], strict=True):
        np.testing.assert_allclose(x, y, atol=1e-13)


@given(seed=seeds, dt=sizes)
@settings(max_examples=20, deadline=None)
def test_bilinear_warps_frequencies(seed: int, dt: float) -> None:
    """Tustin keeps values, and with them the H-infinity norm; S4's convention multiplies them by 1 - s dt/2."""
    one = system("dense", seed)
    s = 2 / dt * (Z - 1) / (Z + 1)
    np.testing.assert_allclose(one.discretize(dt, "bilinear")(Z), one(s), atol=1e-9 * np.abs(one(s)).max())
    wanted = one(s) * (1 - s * dt / 2)[:, None, None]
    np.testing.assert_allclose(one.discretize(dt, "bilinear_s4")(Z), wanted, atol=1e-9 * np.abs(wanted).max())
    assert one.discretize(dt, "bilinear").hinf_norm(tol=1e-8).value == pytest.approx(
        one.hinf_norm(tol=1e-8).value, rel=1e-7
    )


@pytest.mark.parametrize("method", ["bilinear", "bilinear_s4"])
def test_closed_forms_follow(method: str) -> None:
    closed = TransferFunction(
        lambda s, o: (1 / (s + 1))[:, None, None],
        (1, 1),
        slope=lambda a, b: 1 / (1 + np.maximum(0, np.maximum(a, -b)) ** 2),
        tail=lambda w: 1 / w,
        poles=[-1],
    )
    one = StateSpace([[-1]], [1], [1], closed_form=closed)
    plain = StateSpace([[-1]], [1], [1]).discretize(0.3, method)
    z = np.append(Z, [-1.0])  # the Nyquist frequency is s = infinity
    np.testing.assert_allclose(closed.discretize(0.3, method)(z), plain(z), atol=1e-14)
    carried = one.discretize(0.3, method)
    assert carried.closed_form is not None
    np.testing.assert_allclose(carried(z), plain(z), atol=1e-14)
    assert carried.hinf_norm().value == pytest.approx(plain.hinf_norm(method="levelset").value, rel=1e-9)
    np.testing.assert_allclose(carried.poles(), plain.poles(), rtol=1e-14)


@pytest.mark.parametrize("dt", [1e-3, 0.1])
def test_bilinear_of_s4_amplifies_a_spike(dt: float) -> None:
    """A mode -1/2 + i w0 of residue 1/pi: peak 2/pi in Tustin's rule, sqrt(1 + (w0 dt/2)^2) as much in S4's."""
    w0 = 1303.27384298
    one = DiagonalStateSpace([-0.5 + 1j * w0], [1], [1 / np.pi])
    # the pole lies within 1e-5 of the circle, where its rounding weighs 1e-11
    assert one.discretize(dt, "bilinear").hinf_norm().value == pytest.approx(2 / np.pi, rel=1e-10)
    found = one.discretize(dt, "bilinear_s4").hinf_norm()
    # the factor is stationary to second order in the half-width over w0
    assert found.value == pytest.approx(2 / np.pi * math.hypot(1, w0 * dt / 2), rel=1e-6)
    assert found.omega == pytest.approx(2 / dt * math.atan(w0 * dt / 2), rel=1e-5)


def test_zoh_is_exact_for_held_inputs() -> None:
    """Order 1: the response to a staircase equals the integral of the continuous system."""
    one, dt = DiagonalStateSpace([-0.7 + 2j], [1.5], [1 - 1j]), 0.31
    discrete = one.discretize(dt)
    u = np.random.default_rng(1).standard_normal(6)
    K = discrete.kernel(6)[:, 0, 0]
    y = sum(K[5 - k] * u[k] for k in range(6))
    p = -0.7 + 2j
    exact = 1.5 * (1 - 1j) * sum(
        u[k] * (np.exp(p * (6 - k) * dt) - np.exp(p * (5 - k) * dt)) / p for k in range(6)
    )  # fmt: skip
    assert y == pytest.approx(exact, rel=1e-13)


def test_zoh_keeps_digits_for_small_steps() -> None:
    from fractions import Fraction

    for x in (-1e-9, -1e-5, -1e-2):
        # expm1(x)/x by its series in exact arithmetic
        exact = float(sum(Fraction(x) ** k / math.factorial(k + 1) for k in range(8)))
        assert zoh_factors(np.array([x]), 1.0)[1][0].real == pytest.approx(exact, rel=4e-16)
    # a singular A has no A^{-1}(exp(dt A) - I)
    integrator = StateSpace([[0, 1], [0, 0]], [0, 1], [1, 0]).discretize(0.5)
    np.testing.assert_allclose(integrator.B.real, [[0.125], [0.5]])


def test_unseen_states_are_left_out() -> None:
    N = 512
    A, B = legs(N)
    one = TriangularStateSpace(A, B, np.eye(N))[1]
    found = one.discretize(0.1)
    assert found.state_dim == 2
    small = TriangularStateSpace(*legs(2), np.eye(2))[1].discretize(0.1)
    np.testing.assert_allclose(found(Z), small(Z), rtol=1e-14)
    np.testing.assert_allclose(one.observed()(Z), one(Z), atol=1e-13)


def test_refusals() -> None:
    one = StateSpace([[-1]], [1], [1])
    for make, words in (
        (lambda: one.discretize(0.0), "dt=0.0: must be None"),
        (lambda: discretize(one, None), "dt=None"),
        (lambda: one.discretize(0.1, "bilinaer"), "Did you mean 'bilinear'?"),
        (lambda: one.discretize(0.1).discretize(0.1), "discrete already (dt=0.1 s)"),
        (lambda: one.transfer.discretize(0.1, "zoh"), "needs state-space matrices"),
        (lambda: StateSpace([[2]], [1], [1]).discretize(1.0, "bilinear"), "choose another step"),
        (lambda: DiagonalStateSpace([2], [1], [1]).discretize(1.0, "bilinear_s4"), "choose another step"),
    ):
        with pytest.raises(InputError) as caught:
            make()
        assert words in str(caught.value)
    assert issubclass(lti.UnstableSystem, InputError)
