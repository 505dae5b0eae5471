"""Histograms and one layer's statistics: against NumPy's own, against the reference scan, and in bounded memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from ssmtheory.dynamics import attention, depth, input_output, streaming
from ssmtheory.errors import InputError
from ssmtheory.mamba.model import block
from ssmtheory.scan import selective_scan, silu

PROBABILITIES = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_quantiles_within_the_documented_error(dtype: type) -> None:
    rng = np.random.default_rng(1)
    values = np.exp(rng.normal(-4, 2, (3001, 5))).astype(dtype)
    histogram = streaming.LogHistogram(5)
    for part in np.array_split(values, [1, 700, 2000]):
        histogram.update(part)
    exact = np.quantile(values, PROBABILITIES, axis=0, method="inverted_cdf")
    found = histogram.quantile(PROBABILITIES)
    # float32 rounding of a value may move it across an edge: 1e-6 more
    assert np.abs(found / exact - 1).max() <= streaming.LogHistogram.RELATIVE_ERROR + 1e-6
    assert histogram.counts.sum() == values.size


def test_every_value_lies_in_its_bin() -> None:
    edges = streaming.LogHistogram.edges()
    assert (np.diff(edges) / edges[:-1] <= 2 * streaming.LogHistogram.RELATIVE_ERROR + 1e-15).all()
    inside = np.concatenate([edges[:-1], np.nextafter(edges[1:].astype(np.float32), np.float32(0)).astype(float)])
    histogram = streaming.LogHistogram(len(inside))
    histogram.update(inside[None])
    index = histogram.counts.argmax(axis=1)
    assert (edges[index] <= inside).all()
    assert (inside < edges[index + 1]).all()


def test_out_of_range_values_stay_within_their_extremes() -> None:
    histogram = streaming.LogHistogram(1)
    histogram.update(np.array([[0.0], [1e-12], [1e6]]))
    np.testing.assert_array_equal(histogram.quantile([0.01, 1.0])[:, 0] <= [2e-8 * 4, 1e6], True)
    assert histogram.counts[0, 0] == 2
    assert histogram.counts[0, -1] == 1
    histogram = streaming.LogHistogram(1)
    histogram.update(np.full((4, 1), 1e-12))
    assert histogram.quantile([0.5])[0, 0] == 1e-12
    with pytest.raises(InputError, match="empty histogram"):
        streaming.LogHistogram(2).quantile([0.5])


def test_decay_histogram_is_numpys() -> None:
    decay = np.random.default_rng(2).uniform(size=(10, 4, 3)).astype(np.float32)
    decay.flat[:2] = [0.0, 1.0]
    histogram = streaming.DecayHistogram()
    histogram.update(decay[:3])
    histogram.update(decay[3:])
    np.testing.assert_array_equal(histogram.counts, np.histogram(decay, streaming.DecayHistogram.edges())[0])
    weighted = streaming.DecayHistogram()
    weighted.update(decay, 5)
    assert weighted.counts.sum() == 5 * decay.size


def test_position_bins_cover_every_token_once() -> None:
    for tokens in (1, 2, 3, 64, 100):
        lower, upper = streaming.position_bins(tokens)
        covered = [t for a, b in zip(lower, upper, strict=True) for t in range(a, b)]
        assert covered == list(range(tokens))


def _inputs(tokens: int, groups: int, per_head: int, scalar: bool, seed: int = 3) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    heads, states = 4, 3
    u = rng.normal(size=(tokens, heads * per_head))
    delta = rng.uniform(0.01, 0.6, (tokens, heads))
    A = -rng.uniform(0.2, 3.0, heads if scalar else (heads, states))
    B, C = rng.normal(size=(2, tokens, groups, states))
    return u, delta, A, B, C


@pytest.mark.parametrize(("groups", "per_head", "scalar"), [(1, 1, False), (1, 3, True), (2, 2, True)])
@pytest.mark.parametrize("chunks", [(70,), (1, 40, 29)])
def test_one_layer_against_the_reference(groups: int, per_head: int, scalar: bool, chunks: tuple[int, ...]) -> None:
    u, delta, A, B, C = _inputs(70, groups, per_head, scalar)
    channels, states = u.shape[1], B.shape[2]
    layer = streaming.LayerStatistics(A, groups, states, lags=(1, 2, 4), block=16)
    found, start = [], 0
    for size in chunks:
        part = slice(start, start + size)
        found.append(layer.update(u[part], delta[part], B[part], C[part]))
        start += size
    kept = []
    y = selective_scan(
        u[None], delta[None], A, B[None], C[None], backend="reference",
        reduce=lambda states, start: kept.append(states[0].copy()),
    )[0]  # fmt: skip
    h = np.concatenate(kept)
    # float64 on both sides
    np.testing.assert_allclose(np.concatenate([f.y for f in found]), y, rtol=1e-11, atol=1e-12)
    rms = np.sqrt((h.reshape(70, -1) ** 2).mean(axis=1))
    np.testing.assert_allclose(np.concatenate([f.state_rms for f in found]), rms, rtol=1e-11)
    # y minus the own write is what the decayed state contributes
    own = np.concatenate([f.own for f in found])
    wide = np.repeat(delta, per_head, axis=1)
    a = np.repeat(A, per_head, axis=0)
    a = a[:, None] if scalar else a
    for t in (0, 1, 35, 69):
        before = h[t - 1] if t else np.zeros_like(h[0])
        per_channel = np.repeat(C[t], channels // groups, axis=0)
        past = (per_channel * np.exp(wide[t][:, None] * a) * before).sum(axis=1)
        np.testing.assert_allclose(y[t] - own[t], past, rtol=1e-9, atol=1e-11)
    decay = np.exp(wide[..., None] * np.broadcast_to(a, (channels, states)))
    np.testing.assert_array_equal(
        layer.decay_histogram.counts, np.histogram(decay, streaming.DecayHistogram.edges())[0]
    )
    np.testing.assert_allclose(layer.delta_sum / 70, delta.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(np.concatenate([f.delta for f in found]), delta.mean(axis=1), rtol=1e-12)
    assert layer.tokens == layer.delta_histogram.counts[0].sum() == 70


def test_memory_does_not_grow_with_the_sequence() -> None:
    # 4,096 tokens x 64 channels x 16 states would be 16 MiB in float32
    rng = np.random.default_rng(5)
    channels, states, chunk = 64, 16, 128
    layer = streaming.LayerStatistics(-np.ones((channels, states), np.float32), 1, states, (1, 2, 256), stride=64)

    def feed() -> None:
        u = rng.normal(size=(chunk, channels)).astype(np.float32)
        B, C = rng.normal(size=(2, chunk, 1, states)).astype(np.float32)
        layer.update(u, np.abs(u) + np.float32(0.01), B, C)

    for _ in range(4):  # fill the history of the longest lag
        feed()
    tracemalloc.start()
    for _ in range(32):
        feed()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 << 20  # a few chunks of 32 KiB and blocks of 32 x 64 x 16 in float64


@pytest.mark.shared
def test_a_third_party_block_through_the_api(shared_data: Path) -> None:
    """A trained keyword-spotting mamba_ssm block (no residual stream: r is the block's input, g is hypothetical)."""
    folder = shared_data / "models" / "mambalite_kws10"
    arrays, x = dict(np.load(folder / "kws10.npz")), np.load(folder / "kws_sample.npz")["x"]
    r = (x @ arrays["linear_in_weight"].T + arrays["linear_in_bias"]).astype(np.float64)
    s = block(arrays, r[None], prefix="mamba_")
    u, delta, y, z = (np.asarray(v)[0] for v in (s.u, s.delta, s.y, s.z))
    B, C = s.B[0][:, None], s.C[0][:, None]
    layer = streaming.LayerStatistics(s.A, groups=1, states=16, lags=input_output.observed_lags(len(u)))
    found = layer.update(u, delta, B, C)
    skip = arrays["mamba_D"] * u
    np.testing.assert_allclose(found.y, y - skip, atol=1e-12 * np.abs(y).max() * 100)  # sums of 16 states, 100 tokens
    split = depth.radial_split(
        r, silu(z), arrays["mamba_out_proj_weight"].astype(np.float64), u, delta, found.q, y - skip - found.own,
        arrays["mamba_D"],
    )  # fmt: skip
    parts = np.stack([split.skip, split.self_, split.hist])
    np.testing.assert_allclose(parts.sum(axis=0), depth.motion(r, s.update[0])[1], atol=1e-14)  # measured 6e-16
    # measured independently before this code existed: skip/self/hist .73/.06/.21, P(q > 0) = .24
    np.testing.assert_allclose(depth.shares(parts), [0.73, 0.06, 0.21], atol=0.005)
    assert (found.q > 0).mean() == pytest.approx(0.24, abs=0.005)
    rows = attention.attention_rows(delta, layer.A, B, C, [50, 99])
    np.testing.assert_allclose(np.einsum("rjd,jd->rd", rows, u), (y - skip)[[50, 99]], rtol=1e-8, atol=1e-10)
    S = arrays["mamba_x_proj_weight"][4:].astype(np.float64)
    symmetric = input_output.symmetric_eigenvalues(S[:16], S[16:])
    assert ((symmetric > 0).sum(), (symmetric < 0).sum()) == (16, 16)
