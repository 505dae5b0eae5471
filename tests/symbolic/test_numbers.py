"""Formulas of the derivations against the reference numbers and against independent floating-point constructions."""

from __future__ import annotations

import json
from pathlib import Path

import mpmath
import numpy as np
import pytest
import scipy.linalg
import sympy as sp

from ssmtheory.errors import InputError
from ssmtheory.inits.hippo import legs, spectrum
from ssmtheory.symbolic import catalogue
from ssmtheory.symbolic.lower import lower
from ssmtheory.symbolic.rho import scaled_condition


@pytest.fixture(scope="module")
def golden(shared_oracles: Path) -> dict:
    return json.loads((shared_oracles / "linear_golden.json").read_text())


def test_l2_gap_reference(golden: dict) -> None:
    gap = catalogue.derive("s4d-l2-gap")
    for size, text in golden["h2gap_e0"].items():
        with mpmath.workdps(30):
            found = mpmath.sqrt(gap.lower("gap2", digits=30, n=0, N=int(size)))
            assert abs(found - mpmath.mpf(text)) < mpmath.mpf(10) ** (2 - len(text))


def test_spectrum_expansion_reference(golden: dict) -> None:
    """The remainder after four terms is O(N^{-6}); its coefficient is measured as about 3 for m = 0."""
    expansion = catalogue.derive("spectrum-asymptotics")
    for size in ("16", "32", "64"):
        with mpmath.workdps(30):
            exact = mpmath.mpf(golden["y"][size][0])
            found = expansion.lower("expansion", digits=30, N=int(size), m=0)
            assert abs(found - exact) * int(size) ** 6 < 10
    assert expansion.lower("third", m=0) == pytest.approx(0.606313573135814, rel=1e-14)


def test_spectrum_law_reference(golden: dict) -> None:
    law = catalogue.derive("spectrum-law").result["law"]
    y, size = sp.Symbol("y", positive=True), sp.Symbol("N", integer=True, positive=True)
    for text in golden["y"]["8"]:
        value = law.subs(size, 8).doit().subs(y, sp.Float(text, 25)) / (sp.pi / 2)
        turns = sp.N(value, 20)
        assert abs(turns - round(float(turns))) < 1e-17
        assert round(float(turns)) % 2 == 1


def test_uniform_gap_reference(golden: dict) -> None:
    """The height where phi is -|phi| is a lower bound of the sup, within its distance of O(N^{-2}) from the peak."""
    gap = catalogue.derive("s4d-uniform-gap")
    for kind, formula in (("sup_e0", "height"), ("sup_worst", "worst")):
        for size, (sup, _) in golden[kind].items():
            number = int(size)
            with mpmath.workdps(25):
                phase = lambda w, number=number: (  # noqa: E731
                    2 * sum(mpmath.atan(k / w) for k in range(1, number)) + mpmath.atan(number / w) - mpmath.pi
                )
                omega = mpmath.findroot(phase, number**2 / mpmath.pi)
            height = float(gap.lower(formula, N=number)(float(omega)))
            assert height <= float(sup) * (1 + 1e-14)
            assert height >= float(sup) * (1 - 1 / number**2)


@pytest.mark.parametrize("a", [0.3, -0.6, 0.5j, 0.4 - 0.5j])
def test_hippo_rho_l2_gap_for_complex_a(a: complex) -> None:
    """Complex a is beyond the formula of the notes; three Gramians in double precision decide."""
    size = 6
    A, B = legs(size)
    theta = (1 - a) / (1 + a)
    moved, b = A + (1 - theta) / 2 * np.outer(B, B), B / (1 + a)
    both = scipy.linalg.block_diag(moved, A.astype(complex))
    load = np.concatenate([b, B])
    gramian = scipy.linalg.solve_continuous_lyapunov(both, -np.outer(load, load.conj()))
    derivation = catalogue.derive("hippo-rho-l2-gap")

    def h(at: float) -> float:
        phi = np.prod([(at - k) / (at + k + 1) for k in range(size)])
        return float(np.real((1 - a * phi) / (1 + a * phi)))

    a2 = abs(a) ** 2
    for n in range(size):
        c = np.zeros(2 * size)
        c[n], c[size + n] = 1, -1
        measured = float(np.real(c @ gramian @ c))
        found = derivation.lower("gap2", n=n, N=size, a2=a2, H_low=h(n), H_high=h(n + 1), H_r=h(size / np.sqrt(1 - a2)))
        # entries of the Gramians are about N, so rounding leaves a few 1e-14
        assert found == pytest.approx(measured, abs=1e-12)


@pytest.mark.parametrize("a", [1 / 11, -1 / 3, 1j / 11, 0.5 * np.exp(2j)])
@pytest.mark.parametrize("size", [4, 32])
def test_hippo_rho_bounds_hold(size: int, a: complex) -> None:
    bound = catalogue.derive("hippo-rho-bound")
    A, B = legs(size)
    theta, rho = (1 - a) / (1 + a), 1 / abs(a)
    moved, b, eye = A + (1 - theta) / 2 * np.outer(B, B), B / (1 + a), np.eye(size)
    omega = np.unique(np.concatenate([np.geomspace(0.05, 20 * size**2, 150), spectrum(size)]))
    gap = np.array([np.linalg.solve(1j * w * eye - moved, b) - np.linalg.solve(1j * w * eye - A, B) for w in omega])
    assert np.linalg.norm(gap, axis=1).max() <= bound.lower("worst", rho=rho) * (1 + 1e-12)
    for n in (0, size - 1):
        assert np.abs(gap[:, n]).max() <= bound.lower("output", rho=rho, n=n, N=size) * (1 + 1e-12)


def test_conditioning_is_below_rho_and_convex() -> None:
    """Measured, not proved: kappa <= rho on circles; proved: the exponent grows with rho."""
    for size in (4, 8, 32):
        exponents = []
        for rho in (2.0, 8.0, 32.0):
            worst = max(scaled_condition(size, np.exp(1j * angle) / rho) for angle in np.linspace(0.01, 3.13, 7))
            assert worst <= rho
            exponents.append(np.log(worst) / np.log(rho))
        assert exponents[0] < exponents[1] < exponents[2]
    # at N = 64, a = i/11 the unit-column value is 10.60; the scaling by 1/delta_j hardly moves it
    assert scaled_condition(64, 1j / 11) == pytest.approx(10.60, abs=0.01)


def test_ptd_bounds_hold_for_random_perturbations() -> None:
    rng = np.random.default_rng(7)
    deviation, condition = catalogue.derive("ptd-deviation"), catalogue.derive("ptd-condition-bound")
    size = 32
    A, B = legs(size)
    for draw in range(4):
        E = rng.normal(size=(size, size)) + (1j * rng.normal(size=(size, size)) if draw % 2 else 0)
        eps = (0.01, 0.1, 0.3, 0.45)[draw]
        E *= eps / np.linalg.norm(E, 2)
        lam = np.linalg.eigvalsh((E + E.conj().T) / 2)[-1]
        eye = np.eye(size)
        worst = deviation.lower("pointwise", epsilon=eps, **{"lambda": lam}, N=size)
        for w in np.concatenate([[0.0], np.geomspace(0.1, 1e4, 40)]):
            gap = np.linalg.solve(1j * w * eye - A - E, B) - np.linalg.solve(1j * w * eye - A, B)
            assert np.linalg.norm(gap) <= worst(w)
        V = np.linalg.eig(A + E)[1]
        floor = max(condition.lower("bound", N=size, epsilon=eps, eta=eta) for eta in (0.003, 0.03, 0.1))
        assert 0 < floor <= np.linalg.cond(V)


def test_lower_digits_and_arrays() -> None:
    t, n = sp.symbols("t n")
    with mpmath.workdps(40):
        assert abs(lower(sp.exp(-t), digits=40, t=1) - mpmath.exp(-1)) < mpmath.mpf(10) ** -39
    values = lower(n * sp.exp(-t), n=2)(np.array([0.0, 1.0]))
    assert values == pytest.approx([2.0, 2 / np.e], rel=1e-15)
    assert lower(sp.I * n, n=2) == 2j
    with mpmath.workdps(30):
        assert abs(lower(sp.sin(t), digits=30)("0.5") - mpmath.sin("0.5")) < mpmath.mpf(10) ** -29
    with pytest.raises(InputError, match=r"no symbol 'x': its symbols are n, t"):
        lower(n * t, x=1)
    with pytest.raises(InputError, match=r"no formula 'gap'"):
        catalogue.derive("s4d-l2-gap").lower("gap")
    with pytest.raises(InputError, match=r"no formula None"):
        catalogue.derive("s4d-l2-gap").lower()
