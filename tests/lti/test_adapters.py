"""python-control and pyMOR as peers: real systems go over as they are, complex ones embedded or not at all."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import control
import numpy as np
import pytest

from ssmtheory.errors import InputError
from ssmtheory.lti import StateSpace
from ssmtheory.lti.adapters import embed, from_control, real_embedding, to_control, to_pymor

sys.path.insert(0, str(Path(__file__).parent))
from random_systems import normal, system
from test_norms import s4d_lin

REAL = StateSpace([[-1, 2], [0, -3]], [[1], [1]], [[1, -1], [0, 2]], [[0], [0.5]])


def test_the_embedding_is_a_representation() -> None:
    rng = np.random.default_rng(0)
    a, b = normal(rng, 3, 4), normal(rng, 4, 2)
    np.testing.assert_allclose(real_embedding(a) @ real_embedding(b), real_embedding(a @ b), atol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(real_embedding(a), 2), np.linalg.norm(a, 2), rtol=1e-14)


@pytest.mark.parametrize("convert", [to_control, to_pymor])
def test_imaginary_parts_are_refused(convert) -> None:
    with pytest.raises(InputError, match=r"A\[1, 1\] is .* drops imaginary parts; pass embedding=True"):
        convert(s4d_lin())


def test_peers_agree_on_the_embedding() -> None:
    one = s4d_lin()
    twin = to_control(one, embedding=True)
    assert twin.nstates == 16
    assert control.linfnorm(twin, tol=1e-10)[0] == pytest.approx(2.33207802, abs=1e-8)
    model = to_pymor(one, embedding=True)
    assert model.h2_norm() == pytest.approx(math.sqrt(2) * one.h2_norm(), rel=1e-10)
    assert model.hinf_norm() == pytest.approx(2.33207802, abs=1e-7)
    each = np.repeat(one.hankel_singular_values(), 2)
    np.testing.assert_allclose(np.sort(model.hsv())[::-1][:8], each[:8], rtol=1e-7)
    np.testing.assert_allclose(embed(one).hinf_norm(tol=1e-9).value, one.hinf_norm(tol=1e-9).value, rtol=1e-8)


@pytest.mark.parametrize("dt", [None, 0.2])
def test_there_and_back(dt: float | None) -> None:
    one = REAL if dt is None else REAL.discretize(dt)
    there = to_control(one)
    s = 0.3 + 1j
    np.testing.assert_allclose(there(s), one(s), rtol=1e-12)
    back = from_control(there)
    assert back.dt == dt
    np.testing.assert_allclose(back(s), one(s), rtol=1e-12)
    model = to_pymor(one)
    np.testing.assert_allclose(model.transfer_function.eval_tf(s), one(s), rtol=1e-12)
    assert model.sampling_time == (dt or 0)


def test_matrices_are_copied() -> None:
    one = system("pairs", 0)
    there = to_control(one, embedding=True)
    there.A[0, 0] = 99
    assert one.to_dense().A[0, 0] != 99


def test_from_control() -> None:
    polynomial = control.tf([1], [1, 3, 2])
    np.testing.assert_allclose(from_control(polynomial)(1j)[0, 0], 1 / (1j**2 + 3j + 2), rtol=1e-12)
    with pytest.raises(InputError, match="pass dt="):
        from_control(control.ss([[0.5]], [[1]], [[1]], [[0]], True))
    assert from_control(control.ss([[0.5]], [[1]], [[1]], [[0]], True), dt=0.1).dt == 0.1
    with pytest.raises(InputError, match="unspecified time base"):
        from_control(control.ss([[0.5]], [[1]], [[1]], [[0]], None))
