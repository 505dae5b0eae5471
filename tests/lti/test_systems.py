"""Systems against the dense definition of a transfer matrix, the algebra's identities, and what must be refused."""

from __future__ import annotations

import dataclasses
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from ssmtheory import lti
from ssmtheory.errors import InputError
from ssmtheory.lti import DiagonalStateSpace, LowRankStateSpace, StateSpace, TransferFunction, TriangularStateSpace

sys.path.insert(0, str(Path(__file__).parent))
from random_systems import KINDS, kinds, legs, matrices, normal, seeds, steps, system, value

POINTS = np.array([0.3 + 1.1j, 2.0, -0.1 + 4j, 1e3j])


def close(a: np.ndarray, b: np.ndarray, tol: float = 1e-10) -> None:
    # 1e-10: six states, resolvents of at most 1e3
    np.testing.assert_allclose(a, b, rtol=0, atol=tol * max(1.0, float(np.abs(b).max())))


@given(kind=kinds, seed=seeds, dt=steps)
@settings(max_examples=20, deadline=None)
def test_values_are_the_definition(kind: str, seed: int, dt: float | None) -> None:
    one = system(kind, seed, dt=dt, proper=True)
    for s in POINTS:
        close(one(s), value(one, s))
    close(one(POINTS.reshape(2, 2))[1, 0], value(one, POINTS[2]))
    w = 0.7
    close(one.frequency_response(w), value(one, 1j * w if dt is None else np.exp(1j * w * dt)))


@given(kind=kinds, seed=seeds)
@settings(max_examples=15, deadline=None)
def test_selection_keeps_axes(kind: str, seed: int) -> None:
    one = system(kind, seed, proper=True)
    whole = one(POINTS)
    assert one[0].shape == (1, 3)
    assert one[:, -1].shape == (2, 1)
    close(one[1](POINTS), whole[:, 1:2])
    close(one[[1, 0], 1:](POINTS), whole[:, [1, 0], 1:])
    assert [row.shape for row in one] == [(1, 3), (1, 3)]


@given(kind=kinds, other=kinds, seed=seeds, dt=steps)
@settings(max_examples=20, deadline=None)
def test_sums_and_gains(kind: str, other: str, seed: int, dt: float | None) -> None:
    a, b = system(kind, seed, dt=dt, proper=True), system(other, seed + 1, dt=dt)
    x, y = a(POINTS), b(POINTS)
    gain = normal(np.random.default_rng(seed), 2, 3)
    close((a + b)(POINTS), x + y)
    close((a - b)(POINTS), x - y)
    close((-a)(POINTS), -x)
    close(((2 - 1j) * a)(POINTS), (2 - 1j) * x)
    close((a / 4j)(POINTS), x / 4j)
    close((a + gain)(POINTS), x + gain)
    close((1 - a)(POINTS), 1 - x)
    close((a - b + gain)(POINTS), x - y + gain)
    close((gain.T @ a)(POINTS), gain.T @ x)
    close((a @ gain.T)(POINTS), x @ gain.T)
    for combined in (a + b, (1 + 1j) * (a - b)):
        close(combined.to_dense()(POINTS), combined(POINTS))
        close(combined[1, 0](POINTS), combined(POINTS)[:, 1:2, :1])
    assert np.allclose(np.sort_complex((a + b).poles()), np.sort_complex(np.concatenate([a.poles(), b.poles()])))


@given(kind=kinds, other=kinds, seed=seeds, dt=steps)
@settings(max_examples=20, deadline=None)
def test_series_and_feedback(kind: str, other: str, seed: int, dt: float | None) -> None:
    a, b = system(kind, seed, dt=dt, proper=True), system(other, seed + 1, p=3, m=2, dt=dt, proper=True)
    x, y = a(POINTS), b(POINTS)
    for found, wanted in (
        (a * b, x @ y),
        (a.feedback(b), np.linalg.solve(np.eye(2) + x @ y, x)),
        (a.feedback(b, sign=1), np.linalg.solve(np.eye(2) - x @ y, x)),
        (a.feedback(0.3j), np.linalg.solve(np.eye(2) + 0.3j * x @ np.eye(3, 2), x)),
    ):
        scale = float(np.abs(wanted).max())
        np.testing.assert_allclose(found(POINTS), wanted, atol=1e-9 * scale)
        np.testing.assert_allclose(found.to_dense()(POINTS), wanted, atol=1e-8 * scale)
        np.testing.assert_allclose(found[1, 1](POINTS), wanted[:, 1:, 1:2], atol=1e-9 * scale)
        np.testing.assert_allclose(found.transfer(POINTS), wanted, atol=1e-9 * scale)
        assert found.state_dim == found.to_dense().state_dim


@given(kind=kinds, seed=seeds)
@settings(max_examples=12, deadline=None)
def test_conjugate_and_adjoint(kind: str, seed: int) -> None:
    one = system(kind, seed, proper=True)
    for combined in (one, one - 2j * one, one * one.adjoint(), one.feedback(one.adjoint())):
        for s in POINTS:
            close(combined.conjugate()(s), combined(np.conj(s)).conj())
            close(combined.adjoint()(s), combined(np.conj(s)).conj().T)
    close(one.transfer.conjugate()(POINTS), one.conjugate()(POINTS))
    close(one.transfer.adjoint()(POINTS), one.adjoint()(POINTS))


def test_conjugate_pairs_are_a_real_system() -> None:
    one = system("pairs", 3)
    assert one.state_dim == 12
    assert np.abs(one.impulse_response(np.linspace(0, 2, 5)).imag).max() == 0
    close(one(POINTS.conj()), one(POINTS).conj())
    both = one.expand()
    assert both.diagonal.size == 12
    close(both(POINTS), one(POINTS))
    # a complex gain has no real impulse response: the pairs are written out
    assert not (1j * one).conjugate_pairs
    close((1j * one)(POINTS), 1j * one(POINTS))


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_and_complex(kind: str) -> None:
    one = system(kind, 0)
    assert one.B.dtype == np.complex128
    with pytest.raises(ValueError, match="read-only"):
        one.B[0, 0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.dt = 0.1
    other = one.with_(C=2 * one.C)
    close(other(POINTS), 2 * one(POINTS))
    close(one.to_dense()(POINTS), one(POINTS))
    assert one.is_stable()
    assert one.spectral_abscissa() == pytest.approx(np.linalg.eigvals(matrices(one)[0]).real.max(), abs=1e-9)


# -- closed forms


def test_closed_form_follows_algebra_and_selection() -> None:
    calls: list[int] = []

    def evaluate(s: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        calls.append(outputs.size)
        return np.stack([(k + 1) / (s + k + 1) for k in outputs], axis=1)[:, :, None]

    N = 400
    closed = TransferFunction(
        evaluate,
        (N, 1),
        poles=-np.arange(1.0, N + 1),
        slope=lambda a, b: np.full(a.shape, 1.0 * N),
        tail=lambda w: N * N / w,
    )
    one = DiagonalStateSpace(-np.arange(1.0, N + 1), np.arange(1.0, N + 1), np.eye(N), closed_form=closed)
    gap = (one[0] - 2 * one[1]) * one[2]
    wanted = (1 / (POINTS + 1) - 2 * 2 / (POINTS + 2)) * 3 / (POINTS + 3)
    np.testing.assert_allclose(gap(POINTS)[:, 0, 0], wanted, rtol=1e-13)
    assert set(calls) == {1}  # only the asked outputs are computed
    assert gap.transfer.has_bounds
    # a changed matrix is another system: its closed form is dropped
    assert one.with_(B=2 * one.B).closed_form is None
    np.testing.assert_allclose(one.with_(B=2 * one.B)[0](POINTS), 2 * one[0](POINTS), rtol=1e-13)


def test_large_sums_stay_lazy() -> None:
    N = 1024
    A, B = legs(N)
    low = np.sqrt(np.arange(N) + 0.5)
    dplr = LowRankStateSpace(-0.5 + 1j * np.arange(N), low, low, B, np.eye(N))
    triangular = TriangularStateSpace(A, B, np.eye(N))
    gap = dplr[0] - triangular[0]
    assert gap.state_dim == 2 * N
    tracemalloc.start()
    # ln(1+x) of a product of rationals: Y_0 = 1/(s+1), whatever N
    np.testing.assert_allclose(triangular[0](POINTS)[:, 0, 0], 1 / (POINTS + 1), rtol=1e-12)
    gap(POINTS)
    assert tracemalloc.get_traced_memory()[1] < N * N * 16  # no (N, N) complex array on the way
    tracemalloc.stop()


# -- frequency response in blocks


def test_blocks_do_not_change_values() -> None:
    one = system("diagonal", 1, n=40)
    w = np.linspace(-5, 5, 301)
    whole = one.frequency_response(w)
    for block in (1, 7, 301, 10_000):
        np.testing.assert_allclose(one.frequency_response(w, block=block), whole, rtol=1e-13)


def _memory_of_response(count: int) -> float:
    n = np.arange(1024)
    one = DiagonalStateSpace(-0.5 + 1j * np.pi * n, np.ones(1024), np.ones(1024))
    w = np.linspace(0, 4000, count)
    tracemalloc.start()
    response = one.frequency_response(w)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    k = count // 3
    wanted = (1 / (1j * w[k] - one.diagonal)).sum()
    assert abs(response[k, 0, 0] - wanted) < 1e-11 * abs(wanted)
    return peak


def test_no_array_beyond_a_block() -> None:
    # 40,000 frequencies times 1024 states would be 655 MB
    assert _memory_of_response(40_000) < 150e6


@pytest.mark.slow
def test_a_million_frequencies() -> None:
    # output and frequencies are 16 + 16 + 8 MB each; (frequency, state) would be 16 GB
    assert _memory_of_response(1_000_000) < 250e6


# -- what is refused

EYE = np.eye(2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: StateSpace(np.ones((2, 3)), [1, 1], [1, 1]), "A has shape (2, 3): must be square"),
        (lambda: StateSpace(np.zeros((0, 0)), np.zeros((0, 1)), np.zeros((1, 0))), "at least one state"),
        (lambda: DiagonalStateSpace([], [], []), "at least one state"),
        (lambda: StateSpace([[np.nan, 0], [0, 1]], [1, 1], [1, 1]), "A[0, 0] is (nan+0j)"),
        (lambda: DiagonalStateSpace([-1, -np.inf], [1, 1], [1, 1]), "poles[1] is (-inf+0j)"),
        (lambda: StateSpace(-EYE, [1, 1, 1], [1, 1]), "B has shape (3, 1): must be (2, inputs)"),
        (lambda: StateSpace(-EYE, [1, 1], [1]), "C has shape (1, 1): must be (outputs, 2)"),
        (lambda: StateSpace(-EYE, [1, 1], [1, 1], [1, 2]), "D has shape (2,): must be (outputs, inputs) = (1, 1)"),
        (lambda: StateSpace(-EYE, [1, 1], [1, 1], dt=0), "dt=0: must be None"),
        (lambda: StateSpace(-EYE, [1, 1], [1, 1], dt=True), "dt=True: must be None"),
        (lambda: StateSpace([["a"]], [1], [1]), "must be numeric"),
        (lambda: DiagonalStateSpace(-EYE, [1, 1], [1, 1]), "poles has shape (2, 2): must be (N,)"),
        (lambda: DiagonalStateSpace([-1], [1], [1], conjugate_pairs=2), "conjugate_pairs=2"),
        (lambda: TriangularStateSpace([[1, 2], [0, 1]], [1, 1], [1, 1]), "A[0, 1] is (2+0j): must be lower"),
        (lambda: TriangularStateSpace(-EYE, [1, 1], [1, 1], P=[1, 1]), "one of P and Q is None"),
        (lambda: LowRankStateSpace([-1, -2], [1, 1], [[1, 1], [1, 1]], [1, 1], [1, 1]), "must be equal"),
        (lambda: StateSpace(-EYE, [1, 1], [1, 1])[2], "output 2: the system has 1, numbered 0 to 0"),
        (lambda: StateSpace(-EYE, [1, 1], [1, 1])[0, 3:], "must select at least one"),
        (lambda: StateSpace(-EYE, EYE, EYE) + StateSpace(-EYE, [1, 1], EYE), "shapes (2, 2) and (2, 1)"),
        (lambda: StateSpace(-EYE, [1, 1], EYE) * StateSpace(-EYE, [1, 1], EYE), "series of shapes"),
        (lambda: StateSpace(-EYE, EYE, EYE, EYE).feedback(1.0, sign=1), "not well posed"),
        (lambda: StateSpace(-EYE, EYE, EYE).feedback(1.0, sign=0), "sign=0"),
        (lambda: StateSpace(-EYE, EYE, EYE) * "x", "factor has type str"),
        (lambda: StateSpace(-EYE, EYE, EYE).with_(a=1), "with_(a=...): must be one of A, B, C, D"),
        (lambda: StateSpace(-EYE, EYE, EYE).frequency_response(1j), "must be real"),
        (lambda: StateSpace(-EYE, EYE, EYE).frequency_response([np.inf]), "must be finite"),
        (lambda: StateSpace(-EYE, EYE, EYE).frequency_response([1.0], block=0), "block=0"),
        (lambda: TransferFunction(lambda s, o: s, (0, 1)), "both at least 1"),
        (lambda: TransferFunction(lambda s, o: s, (1, 1))(1j), "evaluate returned shape"),
    ],
)  # fmt: skip
def test_named_errors(make, words: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert words in str(caught.value)


def test_mixed_time_bases() -> None:
    a, b = system("dense", 0), system("dense", 0, dt=0.1)
    for join in (lambda: a + b, lambda: b - a, lambda: a[:, :2] * b, lambda: b[:, :2].feedback(a[:, :2])):
        with pytest.raises(lti.MixedTimeBases, match=r"discrete with dt=0\.1 s"):
            join()
    with pytest.raises(lti.MixedTimeBases):
        a + system("dense", 0, dt=0.2).with_(dt=0.3)


def test_closed_form_must_fit() -> None:
    closed = lti.pole_residue(np.array([-1.0]), np.ones((1, 1)), np.ones((1, 1)), np.zeros((1, 1)))
    with pytest.raises(InputError, match="must be that of the system"):
        StateSpace(-EYE, EYE, EYE, closed_form=closed)
    with pytest.raises(lti.MixedTimeBases):
        StateSpace([[0.5]], [1], [1], dt=1.0, closed_form=closed)
    for question in (closed.to_dense, closed.balanced_truncation):
        with pytest.raises(lti.NoRealization):
            question() if question == closed.to_dense else question(1)
