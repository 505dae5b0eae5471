"""Bode and Nyquist data: values, phases, and that no resonance falls between the points."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from ssmtheory.errors import InputError
from ssmtheory.lti import DiagonalStateSpace, StateSpace, bode, nyquist
from ssmtheory.lti.frequency import frequency_grid

sys.path.insert(0, str(Path(__file__).parent))
from random_systems import system


def test_bode_of_a_first_order_lag() -> None:
    w = np.array([0.1, 1.0, 10.0])
    found = bode(StateSpace([[-1]], [1], [1]), w)
    np.testing.assert_allclose(found.gain[:, 0, 0], 1 / np.hypot(1, w), rtol=1e-14)
    np.testing.assert_allclose(found.phase[:, 0, 0], -np.arctan(w), rtol=1e-14)


def test_phase_is_continuous() -> None:
    third = StateSpace([[-1, 1, 0], [0, -1, 1], [0, 0, -1]], [0, 0, 1], [1, 0, 0])
    found = bode(third)
    assert found.phase[-1, 0, 0] == pytest.approx(-3 * np.pi / 2, abs=0.5)
    assert np.abs(np.diff(found.phase[:, 0, 0])).max() < 1


@pytest.mark.parametrize("dt", [None, 0.5])
def test_no_resonance_is_missed(dt: float | None) -> None:
    one = DiagonalStateSpace([-1.0, -1e-4 + 333.333j], [1, 1], [1, 1e-3])
    one = one if dt is None else DiagonalStateSpace([0.5, 0.9999 * np.exp(2.2j)], [1, 1], [1, 1e-3], dt=dt)
    peak = one.hinf_norm().value
    assert bode(one).largest.max() == pytest.approx(peak, rel=0.05)
    curve = nyquist(one)
    assert np.abs(curve.response).max() == pytest.approx(peak, rel=0.05)
    assert (np.diff(curve.omega) > 0).all()
    assert curve.omega[0] < 0 < curve.omega[-1]
    if dt is not None:
        assert np.abs(curve.omega).max() <= np.pi / dt


def test_data_are_the_response() -> None:
    one = system("low rank", 1, proper=True)
    for found in (bode(one), nyquist(one)):
        k = found.omega.size // 3
        np.testing.assert_allclose(found.response[k], one(1j * found.omega[k]), rtol=1e-10)


def test_refusals() -> None:
    one = system("diagonal", 0)
    with pytest.raises(InputError, match="strictly increasing"):
        bode(one, [2.0, 1.0])
    with pytest.raises(InputError, match="0 < low < high"):
        frequency_grid(one, 1.0, 0.5)
