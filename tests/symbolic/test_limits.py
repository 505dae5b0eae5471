"""Kernel limits against systems built in floating point, and against what each mode of convergence implies."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp

import ssmtheory as st
from ssmtheory.errors import InputError
from ssmtheory.inits.hippo import fout, legs, legt
from ssmtheory.inits.hippo_rho import HiPPORho
from ssmtheory.inits.legs import FouT, LegS, LegT
from ssmtheory.inits.s4d import S4DInv, S4DLegS, S4DLin
from ssmtheory.symbolic import limits
from ssmtheory.symbolic.limits import MODES, kernel_limit


def response(A: np.ndarray, B: np.ndarray, omega: np.ndarray, output: int) -> np.ndarray:
    """One row of (i omega - A)^{-1} B by dense solves."""
    eye = np.eye(A.shape[0])
    return np.array([np.linalg.solve(1j * w * eye - A, B)[output] for w in omega])


@pytest.mark.parametrize("output", [0, 2])
@pytest.mark.parametrize("name", limits.available())
def test_it_holds_and_modes_are_consistent(name: str, output: int) -> None:
    limit = kernel_limit(name, output)
    report = limit.check()
    assert report, str(report)
    assert set(limit.holds) == {*MODES, "initial_value"}
    assert set(limit.witness) == set(limit.holds)
    assert all(limit.witness.values())
    for strong, weak in (("uniform", "inputwise"), ("uniform", "compact"), ("L2", "weak"), ("weak", "sampled")):
        assert limit.holds[weak] or not limit.holds[strong]
    assert "FAILS" in str(limit) or all(limit.holds.values())


@pytest.mark.parametrize("output", [0, 1, 3])
@pytest.mark.parametrize("name", ["s4d-legs", "legs", "hippo-rho", "legt"])
def test_transfer_is_the_laplace_transform_of_the_kernel(name: str, output: int) -> None:
    limit = kernel_limit(name, output)
    kernel, transfer = limit.lower(), sp.lambdify(sp.Symbol("s"), limit.transfer)
    # Gauss-Legendre on [0, 1] and beyond; the LegS kernels are negligible after t = 40
    x, w = np.polynomial.legendre.leggauss(60)
    for s in (0.7, 2.5):
        total = 0.0
        for a, b in ((0, 1), (1, 4), (4, 40)):
            nodes = (a + b) / 2 + (b - a) / 2 * x
            total += (b - a) / 2 * np.sum(w * np.exp(-s * nodes) * kernel(nodes))
        assert total == pytest.approx(transfer(s), abs=1e-12)


def test_s4d_legs_of_the_readme() -> None:
    limit = st.symbolic.kernel_limit(S4DLegS(), output=0)
    assert limit.expr == sp.exp(-limit.expr.free_symbols.pop())
    assert limit.holds == {
        "weak": True,
        "sampled": True,
        "compact": True,
        "inputwise": True,
        "L2": False,
        "uniform": False,
        "initial_value": False,
    }
    assert limit.lower(t=0) == 1.0
    assert "amsmath" in limit.latex(full_document=True)
    assert limit.derivation.status.startswith("proved modulo named theorems: Weierstrass")


@pytest.mark.parametrize("output", [0, 2])
def test_s4d_legs_modes_are_what_is_measured(output: int) -> None:
    """Compact and weak errors fall like 1/N, the spike stays."""
    band, spikes = [], []
    for size in (32, 64):
        A, B = legs(size)
        normal = A + np.outer(B, B) / 2
        omega = np.linspace(0.0, 10.0, 81)
        gap = response(normal, B / 2, omega, output) - response(A, B, omega, output)
        band.append(np.abs(gap).max())
        top = size**2 / np.pi - np.pi / 6
        omega = top + np.linspace(-1, 1, 41)
        spikes.append(np.abs(response(normal, B / 2, omega, output) - response(A, B, omega, output)).max())
    assert 1.8 < band[0] / band[1] < 2.3
    floor = 2 * np.sqrt(2 * output + 1) / np.pi
    assert all(0.98 * floor < spike < 1.05 * floor for spike in spikes)


@pytest.mark.parametrize(("name", "build", "outputs"), [("legt", legt, (0, 3)), ("fout", fout, (0, 2, 3))])
def test_windows_converge_uniformly(name: str, build: object, outputs: tuple[int, ...]) -> None:
    for output in outputs:
        limit = kernel_limit(name, output)
        transfer = sp.lambdify(sp.Symbol("s"), limit.transfer)
        worst = []
        for size in (16, 64):
            A, B = build(size)  # type: ignore[operator]
            omega = np.concatenate([np.linspace(0.37, 20, 60), np.geomspace(20.1, 4e3, 120)])
            worst.append(np.abs(response(A, B, omega, output) - transfer(1j * omega)).max())
        # the tail is O(1/omega) beyond a band of width N, so the sup falls at least like 1/N up to a constant
        assert worst[1] < 0.5 * worst[0]


def test_hippo_rho_takes_the_object_s_own_rho() -> None:
    limit = kernel_limit(HiPPORho(rho=11.0, sign="imaginary"), output=0)
    assert "10" in limit.witness["uniform"] or "11" in limit.witness["uniform"]
    gap = HiPPORho(rho=11.0, sign="imaginary").build(64).system[0] - LegS().build(64).system[0]
    bound = limit.derivation.lower("distance", N=64, rho=11)
    assert gap.hinf_norm().upper <= bound
    assert limit.holds["uniform"]


def test_objects_and_names_agree() -> None:
    for init in (LegS(), S4DLegS(), LegT(), FouT(), S4DLin()):
        by_object, by_name = kernel_limit(init), kernel_limit(init.name)
        assert (by_object.expr, by_object.holds, by_object.init) == (by_name.expr, by_name.holds, by_name.init)


def test_s4d_inv_mode_vanishes_only_weakly() -> None:
    limit = kernel_limit(S4DInv(basis="modes"), output=1)
    assert limit.expr == 0
    pole = sp.lambdify(sp.Symbol("N", integer=True, positive=True), limit.derivation.result["pole"])
    for size in (64, 256):
        assert pole(size) == pytest.approx(-0.5 + 1j * S4DInv().heights(size)[1], rel=1e-13)


@pytest.mark.parametrize(
    ("init", "output", "words"),
    [
        ("s4d-lges", 0, "Did you mean 's4d-legs'"),
        ("lru", 0, "choose one of"),
        ("legs", -1, "output=-1"),
        ("legs", True, "output=True"),
        ("fout", 1, "identically zero"),
        (S4DLegS(variant="shipped"), 0, "variant='published'"),
        (S4DInv(), 0, "basis='modes'"),
        (LegT(window=2.0), 0, "window=1"),
    ],
    ids=str,
)
def test_what_is_not_derived_is_refused(init: object, output: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        kernel_limit(init, output)
