"""Condition numbers of eigenvectors against reference values and exact cases; what cannot be diagonalised."""

from __future__ import annotations

import json
import math
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings

from ssmtheory import lti
from ssmtheory.errors import InputError
from ssmtheory.lti import StateSpace
from ssmtheory.lti.conditioning import eigenvector_condition

sys.path.insert(0, str(Path(__file__).parent))
from random_systems import legs, normal, seeds, system


def legs_rational(N: int) -> tuple[list[list[int]], list[int]]:
    """LegS without its square roots, x_n = sqrt(2n+1) y_n: entries -(2k+1) below the diagonal, -(k+1) on it."""
    rows = [[-(2 * k + 1) if n > k else -(k + 1) if n == k else 0 for k in range(N)] for n in range(N)]
    return rows, [2 * n + 1 for n in range(N)]


@pytest.mark.parametrize("N", [2, 4, 8, 16, 24, 32, 48, 64])
def test_legs_reference(shared_oracles: Path, N: int) -> None:
    rows, scaling = legs_rational(N)
    found = eigenvector_condition(rows, digits=15, scaling_squared=scaling)
    golden = json.loads((shared_oracles / "linear_golden.json").read_text())["kappa2"][str(N)]
    # the last digit of the reference is rounded
    assert abs(Fraction(found.text) / Fraction(golden) - 1) < Fraction(1, 10**13)
    assert found.log10 == pytest.approx(math.log10(float(golden)), abs=1e-12)


def test_more_digits_and_more_states() -> None:
    # the eigenvectors (1, -1)/sqrt 2 and (0, 1) have condition number 1 + sqrt 2
    found = eigenvector_condition([[2, 0], [1, 3]], digits=40)
    assert found.text.startswith("2.41421356237309504880168872420969807")
    rows, scaling = legs_rational(100)
    large = eigenvector_condition(rows, scaling_squared=scaling)
    # d ln kappa / dN tends to ln(3 + 2 sqrt 2); 1.758 at N = 64
    assert large.log10 / 100 == pytest.approx(0.7656 - 0.015, abs=2e-3)


def test_general_matrices() -> None:
    A = normal(np.random.default_rng(1), 7, 7)
    double = eigenvector_condition(A)
    assert double.bits == 53
    extended = eigenvector_condition(A, digits=20)
    assert extended.bits > 53
    assert extended.value == pytest.approx(double.value, rel=1e-11)
    V = np.linalg.eig(A)[1]
    assert double.value == pytest.approx(np.linalg.cond(V), rel=1e-12)
    # unitary similarity changes nothing
    Q = np.linalg.qr(normal(np.random.default_rng(2), 7, 7))[0]
    assert eigenvector_condition(Q @ A @ Q.conj().T).value == pytest.approx(double.value, rel=1e-9)
    assert eigenvector_condition(system("dense", 0)).value > 1
    assert eigenvector_condition(np.diag([1j, 2])).value == 1


def test_double_precision_hands_over() -> None:
    """At N = 16 numpy's answer for LegS in a rotated basis is no longer right to 1e-6; the extended one is."""
    A, _ = legs(16)
    found = eigenvector_condition(A)
    assert found.bits > 53
    assert found.value == pytest.approx(8.31985912999560e10, rel=1e-4)  # the entries are rounded square roots


def test_a_function_of_the_precision() -> None:
    import flint

    def entries(bits: int) -> list[list[object]]:
        with flint.ctx.workprec(bits):
            root = flint.arb(3).sqrt()
            return [[-1, 0], [-root, -2]]

    found = eigenvector_condition(entries, digits=30)
    # LegS with N = 2: 2 + sqrt 3
    assert found.text.startswith("3.7320508075688772935274463415")


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_diagonalize_keeps_the_transfer_function(seed: int) -> None:
    one = system("dense", seed, proper=True)
    s = np.array([1j, 2.0, 1 - 3j])
    found = one.diagonalize()
    np.testing.assert_allclose(found(s), one(s), atol=1e-9 * np.abs(one(s)).max())
    assert system("diagonal", seed).diagonalize().state_dim == 6
    H = normal(np.random.default_rng(seed), 5, 5)
    skew = StateSpace(H - H.conj().T, np.ones(5), np.ones(5))
    np.testing.assert_allclose(skew.diagonalize().diagonal.real, 0, atol=1e-12)
    np.testing.assert_allclose(skew.diagonalize()(s), skew(s), atol=1e-9 * np.abs(skew(s)).max())


@pytest.mark.parametrize(
    "A",
    [
        [[0, 1], [0, 0]],
        [[1, 1], [0, 1]],
        scipy.linalg.block_diag([[2, 1, 0], [0, 2, 1], [0, 0, 2]], [[5]]),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_defective_matrices_are_named(A: object, turned: bool) -> None:
    A = np.array(A, dtype=float)
    if turned:
        Q = np.linalg.qr(np.random.default_rng(0).standard_normal(A.shape))[0]
        A = Q @ A @ Q.T
    one = StateSpace(A, np.ones(len(A)), np.ones(len(A)))
    with pytest.raises(lti.IllPosedDiagonalization, match="Keep the system as it is") as caught:
        one.diagonalize()
    assert caught.value.kappa > 1e7
    assert isinstance(caught.value, InputError)


def test_defective_in_exact_arithmetic() -> None:
    with pytest.raises(lti.IllPosedDiagonalization, match=r"holds .* twice") as caught:
        eigenvector_condition([[1, 0], [1, 1]], digits=10)
    assert math.isinf(caught.value.kappa)
    # a double eigenvalue with two eigenvectors is none of that
    assert eigenvector_condition([[1, 0], [0, 1]], digits=10).value == pytest.approx(1)


def test_legs_is_refused_and_can_be_forced() -> None:
    A, B = legs(16)
    one = lti.TriangularStateSpace(A, B, np.eye(16))
    with pytest.raises(lti.IllPosedDiagonalization, match=r"condition number 8\.\d+e\+10"):
        one.diagonalize()
    assert one.diagonalize(max_condition=1e12).state_dim == 16


def test_refusals() -> None:
    for make, words in (
        (lambda: eigenvector_condition(np.ones((2, 3))), "must be square"),
        (lambda: eigenvector_condition([[1, 2], [3]], digits=5), "must be square"),
        (lambda: eigenvector_condition([[1, 0], [1, 2]], digits=5, scaling_squared=[1]), "must have 2"),
        (lambda: eigenvector_condition([[1, 0], [1, 2]], digits=0), "digits=0"),
    ):
        with pytest.raises(InputError) as caught:
            make()
        assert words in str(caught.value)
