"""Concordance by loops, resampling by its definition, permutations by brute force, and calibration of the verdict."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from ssmtheory.dynamics import concordance as cc
from ssmtheory.errors import InputError


def _data(seed: int, shape: tuple[int, int, int], strength: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    outcome = rng.normal(size=shape) + 0.2
    return strength * outcome + rng.normal(size=shape) - 0.1, outcome


def _by_loops(p: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    layers = p.shape[1]
    c, chance, base = np.zeros((3, layers))
    for k in range(layers):
        pairs = [(a > 0, b > 0) for a, b in zip(p[:, k].ravel(), g[:, k].ravel(), strict=True)]
        c[k] = np.mean([a == b for a, b in pairs])
        up, out = np.mean([a for a, _ in pairs]), np.mean([b for _, b in pairs])
        chance[k] = up * out + (1 - up) * (1 - out)
        base[k] = max(out, 1 - out)
    return c, chance, base, float((c - chance).sum() / (1 - chance).sum())


def test_point_values_by_loops() -> None:
    p, g = _data(1, (5, 3, 40), 0.5)
    found = cc.concordance(p, g)
    c, chance, base, kappa = _by_loops(p, g)
    np.testing.assert_allclose(found.concordance, c, atol=1e-12)
    np.testing.assert_allclose(found.chance, chance, atol=1e-12)
    np.testing.assert_allclose(found.baseline, base, atol=1e-12)
    assert found.kappa == pytest.approx(kappa, abs=1e-12)
    assert found.pooled_concordance == pytest.approx(c.mean(), abs=1e-12)
    for k in range(3):
        assert found.spearman[k] == pytest.approx(stats.spearmanr(p[:, k].ravel(), g[:, k].ravel())[0], abs=1e-12)


def test_ranks_with_ties() -> None:
    x = np.random.default_rng(2).integers(0, 6, 200).astype(float)
    np.testing.assert_array_equal(cc.ranks(x), stats.rankdata(x))


def test_bootstrap_by_its_definition() -> None:
    p, g = _data(3, (6, 2, 30), 0.5)
    found = cc.concordance(p, g, seed=7, resamples=200)
    counts = cc.bootstrap_counts(6, 200, 7).astype(int)
    assert (counts.sum(axis=1) == 6).all()
    replicas = []
    for row in counts:
        chosen = np.repeat(np.arange(6), row)
        replicas.append(_by_loops(p[chosen], g[chosen]))
    np.testing.assert_allclose(found.low, np.quantile([r[0] for r in replicas], 0.025, axis=0), atol=1e-12)
    np.testing.assert_allclose(found.high, np.quantile([r[0] for r in replicas], 0.975, axis=0), atol=1e-12)
    assert found.kappa_low == pytest.approx(np.quantile([r[3] for r in replicas], 0.025), abs=1e-12)


def test_permutation_null_by_brute_force() -> None:
    p, g = _data(4, (4, 2, 25), 1.0)
    found = cc.concordance(p, g)
    by_hand = [_by_loops(p[list(order)], g) for order in itertools.permutations(range(4))]
    lowest = np.quantile([b[0] for b in by_hand], 0.025, axis=0, method="lower")
    highest = np.quantile([b[0] for b in by_hand], 0.975, axis=0, method="higher")
    np.testing.assert_allclose(found.null_low, lowest, atol=1e-12)
    np.testing.assert_allclose(found.null_high, highest, atol=1e-12)
    kappas = [b[3] for b in by_hand]
    assert found.kappa_null_high == pytest.approx(np.quantile(kappas, 0.975, method="higher"), abs=1e-12)


def test_few_sequences_list_all_permutations_and_many_sample() -> None:
    assert {tuple(x) for x in cc.permutations(3, 1000, 0)} == set(itertools.permutations(range(3)))
    many = cc.permutations(9, 1000, 0)
    assert many.shape == (1000, 9)
    assert (np.sort(many, axis=1) == np.arange(9)).all()


def test_mean_interval_by_its_definition() -> None:
    values = np.random.default_rng(5).normal(size=(7, 3))
    counts = cc.bootstrap_counts(7, 300, 0)
    means = [np.repeat(values, row.astype(int), axis=0).mean(axis=0) for row in counts]
    low, high = cc.mean_interval(values, counts)
    np.testing.assert_allclose(low, np.quantile(means, 0.025, axis=0), atol=1e-12)
    np.testing.assert_allclose(high, np.quantile(means, 0.975, axis=0), atol=1e-12)
    assert np.isnan(cc.mean_interval(values[:1], cc.bootstrap_counts(1, 10, 0))[0]).all()


def test_a_real_predictor_is_evidence() -> None:
    found = cc.concordance(*_data(6, (8, 3, 120), 2.0))
    assert found.pooled_evidence
    assert found.evidence.all()


def test_agreement_by_margins_alone_is_none() -> None:
    # as in a trained model: both signs are positive in 95 % of tokens, so raw agreement is 90 % and means nothing
    rng = np.random.default_rng(7)
    p, g = rng.normal(size=(2, 8, 6, 200)) + 1.65
    found = cc.concordance(p, g)
    assert found.pooled_concordance > 0.88
    assert abs(found.kappa) < 0.05
    assert not found.pooled_evidence
    assert not found.evidence.any()


def test_an_effect_of_position_is_none() -> None:
    # both signs follow the position in the same way in every text: permuting texts changes nothing
    wave = np.sin(np.arange(200))[None, None] + 0.0 * np.zeros((8, 4, 1))
    rng = np.random.default_rng(8)
    found = cc.concordance(wave + 0.3 * rng.normal(size=wave.shape), wave + 0.3 * rng.normal(size=wave.shape))
    assert found.kappa > 0.5
    assert not found.pooled_evidence


def test_false_evidence_is_rare() -> None:
    # independent signs: two 2.5 % conditions at once; over 60 data sets more than 3 would have probability 7 % at 2.5 %
    flags = [cc.concordance(*_data(100 + i, (8, 2, 60), 0.0), resamples=200, most_permutations=200).pooled_evidence
             for i in range(60)]  # fmt: skip
    assert sum(flags) <= 3


def test_one_sequence_has_no_interval_and_no_evidence() -> None:
    found = cc.concordance(*_data(9, (1, 2, 50), 5.0))
    assert np.isnan(found.low).all()
    assert np.isnan(found.kappa_null_high)
    assert not found.pooled_evidence
    assert not found.evidence.any()


def test_four_sequences_cannot_be_evidence() -> None:
    assert not cc.concordance(*_data(9, (4, 2, 400), 5.0)).pooled_evidence


def test_constant_equal_signs_have_no_kappa() -> None:
    found = cc.concordance(np.ones((6, 2, 10)), np.ones((6, 2, 10)))
    assert np.isnan(found.kappa)
    np.testing.assert_allclose(found.concordance, 1.0, atol=1e-12)
    assert not found.pooled_evidence


def test_positions_without_a_predictor_are_left_out() -> None:
    p, g = _data(10, (5, 2, 30), 0.5)
    p[:, :, 0] = np.nan
    whole = cc.concordance(p, g)
    cut = cc.concordance(p[..., 1:], g[..., 1:])
    np.testing.assert_array_equal(whole.concordance, cut.concordance)
    assert whole.kappa_null_high == cut.kappa_null_high


def test_bad_input() -> None:
    p, g = _data(11, (3, 2, 5), 0.5)
    with pytest.raises(InputError, match="one shape"):
        cc.concordance(p, g[:2])
    with pytest.raises(InputError, match="not finite"):
        cc.concordance(p, np.where(g > 0, np.nan, g))
    with pytest.raises(InputError, match="finite at no position"):
        cc.concordance(np.full_like(p, np.nan), g)


def test_the_interval_of_spearman_covers_it_and_shrinks_with_the_texts() -> None:
    few, many = (cc.concordance(*_data(9, (n, 2, 30), 0.5)) for n in (6, 96))
    for found in (few, many):
        assert (found.spearman_low < found.spearman).all()
        assert (found.spearman < found.spearman_high).all()
        assert found.pooled_spearman_low < found.pooled_spearman < found.pooled_spearman_high
        assert found.pooled_low < found.pooled_concordance < found.pooled_high
        assert (found.baseline_low <= found.baseline).all()
    assert (many.spearman_high - many.spearman_low).max() < 0.6 * (few.spearman_high - few.spearman_low).min()


def test_flips_by_enumeration() -> None:
    x = np.array([0.3, -0.1, 0.25, 0.05, -0.02])
    sums = [abs(np.dot(s, x)) for s in itertools.product((-1, 1), repeat=5)]
    found = cc.flip_test(x)
    assert found.p_sum == pytest.approx(np.mean(np.array(sums) >= abs(x.sum()) - 1e-15))
    assert found.p_count == pytest.approx(stats.binomtest(3, 5).pvalue)
    assert cc.flip_test(np.ones(12)).p_sum == 2.0**-11
    assert cc.flip_test(np.array([np.nan, 0.0])).p_count == 1.0
    assert cc.flip_test(np.array([1.0] * 30)).p_sum < 1e-5


def test_the_sum_of_flips_is_not_exact_where_sizes_depend_on_earlier_signs_and_the_count_is() -> None:
    # three fair coins; the sizes follow the coins before them. Flips at 1/2 should reject half of the time.
    rejected = {"sum": 0, "count": 0}
    for s in itertools.product((-1, 1), repeat=3):
        third = 0.1 if s[0] == s[1] else 0.8
        found = cc.flip_test(np.array(s) * [1.0, 0.5, third])
        rejected["sum"] += found.p_sum <= 0.5
        rejected["count"] += found.p_count <= 0.25
    assert rejected == {"sum": 6, "count": 2}
