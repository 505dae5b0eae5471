"""Hidden attention: against the explicit formula and against the scan that it unrolls."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from ssmtheory.dynamics.attention import attention_mean, attention_rows
from ssmtheory.errors import InputError
from ssmtheory.scan import selective_scan


def _layer(seed: int, tokens: int, heads: int, groups: int, states: int, scalar: bool) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    delta = rng.uniform(0.01, 0.5, (tokens, heads))
    A = -rng.uniform(0.2, 5.0, (heads, 1 if scalar else states))
    B, C = rng.normal(size=(2, tokens, groups, states))
    return delta, A, B, C


@pytest.mark.parametrize(("groups", "scalar"), [(1, False), (1, True), (2, True)])
def test_rows_are_the_formula(groups: int, scalar: bool) -> None:
    tokens, heads, states = 9, 4, 3
    delta, A, B, C = _layer(1, tokens, heads, groups, states, scalar)
    explicit = np.zeros((tokens, tokens, heads))
    for l_ in range(tokens):
        for j in range(l_ + 1):
            for d in range(heads):
                g = d // (heads // groups)
                tau = delta[j + 1 : l_ + 1, d].sum()
                explicit[l_, j, d] = delta[j, d] * sum(
                    C[l_, g, n] * math.exp(A[d, 0 if scalar else n] * tau) * B[j, g, n] for n in range(states)
                )
    np.testing.assert_allclose(attention_rows(delta, A, B, C, range(tokens), block=4), explicit, rtol=1e-11, atol=1e-14)
    mean, mean_abs = attention_mean(delta, A, B, C, block=4)
    np.testing.assert_allclose(mean, explicit.mean(axis=2), rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(mean_abs, np.abs(explicit).mean(axis=2), rtol=1e-11, atol=1e-14)


def test_rows_unroll_the_scan() -> None:
    delta, A, B, C = _layer(2, 50, 6, 1, 4, scalar=False)
    u = np.random.default_rng(3).normal(size=(50, 6))
    y = selective_scan(u[None], delta[None], A, B[None, :, 0], C[None, :, 0], backend="reference")[0]
    rows = attention_rows(delta, A, B, C, [0, 17, 49])
    # float64 on both sides, sums of 50 terms
    np.testing.assert_allclose(np.einsum("rjd,jd->rd", rows, u), y[[0, 17, 49]], rtol=1e-10, atol=1e-12)


def test_the_future_is_never_formed() -> None:
    # exp of the upper triangle would be exp(+1e5): any use of it would overflow and warn
    delta = np.full((200, 2), 50.0, np.float32)
    A = np.full((2, 3), -10.0, np.float32)
    one = np.ones((200, 1, 3), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = attention_rows(delta, A, one, one, [199])
    assert np.isfinite(rows).all()
    assert rows[0, 199].tolist() == [150.0, 150.0]


def test_long_slow_sequences_keep_their_digits() -> None:
    # Delta A = -1e-6 a step over 20,000 steps in float32: a float32 clock would lose four digits of the exponent
    tokens = 20_000
    delta = np.full((tokens, 1), 1e-4, np.float32)
    A, one = np.full((1, 1), -1e-2, np.float32), np.ones((tokens, 1, 1), np.float32)
    row = attention_rows(delta, A, one, one, [tokens - 1])[0, :, 0]
    exact = float(delta[0, 0]) * math.exp(float(A[0, 0]) * float(delta[0, 0]) * (tokens - 1))
    assert row[0] == pytest.approx(exact, rel=1e-6)  # one float32 rounding of the exponent


def test_row_outside_the_sequence() -> None:
    delta, A, B, C = _layer(1, 5, 2, 1, 2, scalar=False)
    with pytest.raises(InputError, match="row 5: the sequence has tokens 0 to 4"):
        attention_rows(delta, A, B, C, [5])
