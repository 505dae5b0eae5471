"""X/(1 + a phi): bounds against derivatives from Cauchy integrals, and the golden suprema."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from ssmtheory.errors import InputError
from ssmtheory.inits import LegS, S4DLegS, hippo
from ssmtheory.inits.closed_form import LegsFamily, gap_norm, hippo_bound, legs_family

FACTORS = (0, 1, 0.9, -0.3, 0.5j, -0.99j, 0.3 + 0.2j)


def _derivatives(family: LegsFamily, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Norms of G, G', G'' at i w from values on a circle around it, where another formula of phi is used."""
    outputs = np.arange(family.rows.size)
    circle = 0.2 * np.exp(2j * np.pi * (np.arange(32) + 0.5) / 32)
    s = (1j * w[:, None] + circle).ravel()
    values = family.evaluate(s, outputs)[:, :, 0].reshape(w.size, 32, -1)
    # the next Taylor coefficients that alias in are those of order 32, smaller by (0.2/0.5)^32
    return tuple(
        np.linalg.norm((values * circle[:, None] ** -k).mean(axis=1), axis=-1) * math.factorial(k) for k in (0, 1, 2)
    )  # type: ignore[return-value]


@pytest.mark.parametrize("N", [1, 2, 3, 8, 20])
@pytest.mark.parametrize("a", FACTORS)
def test_bounds_hold(N: int, a: complex) -> None:
    rng = np.random.default_rng(N)
    for rows in (None, [0], [min(1, N - 1)], [min(3, N - 1)], [0, N - 1]):
        family = LegsFamily(N, a, None if rows is None else np.array(rows))
        near = hippo.phase_heights(N)[rng.integers(0, N, 120)] + rng.normal(size=120)
        lo = np.concatenate([near, rng.normal(size=60), np.exp(rng.uniform(-3, 2 * math.log(N + 1) + 1, 60))])
        hi = lo + np.exp(rng.uniform(-6, 1, lo.size))
        slope, curvature = family.slope(lo, hi), family.curvature(lo, hi)
        for t in (0.0, 0.3, 0.7, 1.0):
            value, first, second = _derivatives(family, lo + t * (hi - lo))
            # rounding of the mean of values, over a circle of radius 0.2
            assert (first <= slope * (1 + 1e-9) + 1e-11 * value).all()
            assert (second <= curvature * (1 + 1e-9) + 1e-10 * value).all()
        for omega in (0.1, 1.0, float(N), 2.0 * N * N + 2):
            w = omega * np.exp(np.linspace(0, 5, 500))
            gain = np.linalg.norm(family.evaluate(1j * np.concatenate([w, -w]), np.arange(family.rows.size)), axis=1)
            assert gain.max() <= family.tail(omega) * (1 + 1e-12)


def test_golden_suprema(shared_oracles: Path) -> None:
    golden = json.loads((shared_oracles / "linear_golden.json").read_text())
    for key, output in (("sup_e0", 0), ("sup_worst", None)):
        for N, (value, omega) in golden[key].items():
            found = gap_norm(int(N), output=output)
            assert math.isclose(found.value, float(value), rel_tol=3e-14), (key, N)
            # a maximum is located to the square root of the precision of its value, times the half-width 1/2
            assert abs(found.omega - float(omega)) < 1e-6
            assert found.lower <= float(value) * (1 + 1e-14)
            assert float(value) <= found.upper <= float(value) * (1 + 2e-6)
            system = LegS().build(int(N)).system - S4DLegS().build(int(N)).system
            other = (system if output is None else system[output]).hinf_norm()
            assert math.isclose(other.value, float(value), rel_tol=3e-14)
            assert other.upper >= float(value)


def test_l2_gap_of_the_systems(shared_oracles: Path) -> None:
    golden = json.loads((shared_oracles / "linear_golden.json").read_text())
    for N, value in golden["h2gap_e0"].items():
        gap = LegS().build(int(N)).system[0] - S4DLegS().build(int(N)).system[0]
        # a difference of inner products of order one, of vectors known to about N eps
        assert math.isclose(gap.h2_norm(), float(value), rel_tol=1e-12)


def test_at_1024_states() -> None:
    worst, first = gap_norm(1024), gap_norm(1024, output=0)
    assert f"{worst.value:.3f}" == "651.896"
    assert f"{worst.omega:.3f}" == "333771.584"
    assert worst.lower < worst.upper < worst.lower * (1 + 2e-6)
    assert f"{first.value:.5f}" == "0.63662"
    # 2N/pi and 2/pi, with the next term of the notes
    assert math.isclose(worst.value, 2048 / math.pi, rel_tol=1e-4)
    for n in (1, 5):
        assert math.isclose(gap_norm(1024, output=n).value, 2 * math.sqrt(2 * n + 1) / math.pi, rel_tol=1e-4)


def test_a_log_grid_would_miss_the_spike() -> None:
    """A 1000-point log grid at N = 128 sees less than a fifth of the gap."""
    w = np.geomspace(1e-2, 1e5, 1000)
    value = np.abs(hippo.phi(128, 1j * w) * hippo.transfer(128, 1j * w, [0])[:, 0] / hippo.one_plus_phi(128, 1j * w))
    assert value.max() < 0.2 * gap_norm(128, output=0).value


def test_gap_norm_agrees_with_a_fine_grid() -> None:
    for N, a in ((3, 0.5), (6, -0.7), (9, 0.4j), (5, 1.0), (4, -0.2 + 0.3j), (1, 0.9), (2, -0.97)):
        w = np.concatenate([np.linspace(-60, 60, 60001), np.geomspace(60, 1e5, 4000), -np.geomspace(60, 1e5, 4000)])
        s = 1j * w
        factor = np.abs(a * hippo.phi(N, s) / hippo.one_plus_phi(N, s, a))
        grid = (factor * N / np.hypot(w, N)).max()
        found = gap_norm(N, a)
        assert grid <= found.upper * (1 + 1e-12)
        assert math.isclose(found.value, grid, rel_tol=1e-5)
        for n in (0, N - 1):
            grid = (factor * np.abs(hippo.transfer(N, s, [n])[:, 0])).max()
            assert math.isclose(gap_norm(N, a, n).value, grid, rel_tol=1e-5)


def test_bound_of_the_family() -> None:
    for rho in (1.01, 2.0, 11.0, 1e4):
        for modes in (1.0, 2.0, 3.5):
            s = np.linspace(0, 1, 200001)[:-1]
            value = s * np.sqrt((1 - s**2) / (1 + (modes**2 - 1) * s**2)) / (rho - s)
            assert math.isclose(hippo_bound(rho, modes), value.max(), rel_tol=1e-6)
            assert hippo_bound(rho, modes) <= 1 / ((1 + modes) * (rho - 1))


def test_selection_and_conjugation() -> None:
    family = legs_family(12, 1.0)
    s = np.array([0.3j, 2 + 1j, -5j])
    whole = family(s)
    assert np.allclose(family[[3, 0]](s), whole[:, [3, 0]], rtol=1e-13)
    assert np.allclose(family[3][0](s), whole[:, [3]], rtol=1e-13)
    assert np.allclose(family.conjugate()(s), whole.conj()[[0, 1, 2]] * 0 + np.conj(family(s.conj())))
    assert np.allclose(legs_family(12, 1.0, rows=4)(s), whole[:, :4], rtol=1e-13)


@pytest.mark.parametrize("call", [
    lambda: LegsFamily(4, 1.5), lambda: legs_family(4, 0.5), lambda: legs_family(4, rows=5), lambda: gap_norm(4, -1),
    lambda: gap_norm(4, 0), lambda: gap_norm(4, output=4), lambda: hippo_bound(1.0), lambda: hippo_bound(2.0, 0.5),
    lambda: legs_family(4)[:, 1],
])  # fmt: skip
def test_bad_input_is_named(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError):
        call()
