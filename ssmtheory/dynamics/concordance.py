"""Do two signs agree beyond what their margins force?

A predictor p and an outcome g are given per sequence, layer and token. Per layer k the concordance is
c_k = P(sign p = sign g), its chance value chance_k = P(p>0) P(g>0) + P(p<=0) P(g<=0), and the majority baseline
max(P(g>0), P(g<=0)). Over layers the stratified kappa is sum_k (c_k - chance_k) / sum_k (1 - chance_k): high raw
agreement that is only common margins gives kappa 0.

Intervals: bootstrap of whole sequences (tokens of one text are not independent). Null: the sequences of the predictor
are permuted against those of the outcome at equal layer and position, which keeps every margin and every effect of
position. Evidence needs both: above the majority baseline, and above the null, each with the lower end of its interval.
With fewer than five sequences no permutation test can reach 2.5 %, so nothing is evidence.

Across layers (`flip_test`): at initialisation W_out of a layer is symmetric in law and independent of the rest, so
g -> -g there. For a predictor without W_out (q, kappa), given everything before a layer, the sign of its c_k - chance_k
is a fair coin, whatever the text. The signs of the K layers are then independent, and the number of positive ones is
binomial: an exact test. Flipping the signs of the measured c_k - chance_k in their sum (2^K flips) is exact only if no
layer's |c_k - chance_k| depends on the signs of the layers before it, which it may, as they move the residual stream.
The unit is the layer: with K of them no two-sided p is below 2^(1-K).

Signs: positive or not (zero counts as not positive).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from ssmtheory.errors import InputError

__all__ = ["Concordance", "FlipTest", "bootstrap_counts", "concordance", "flip_test", "mean_interval", "permutations",
           "ranks"]  # fmt: skip


def ranks(x: np.ndarray) -> np.ndarray:
    """Ranks of a 1-D array from 1, ties by their mean.

    >>> ranks(np.array([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, inverse, count = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - 0.5 * (count - 1))[inverse]


def bootstrap_counts(sequences: int, resamples: int, seed: int) -> np.ndarray:
    """How often each sequence occurs in each bootstrap resample, (resample, sequence) float64."""
    rng = np.random.default_rng([seed, 1])
    return rng.multinomial(sequences, np.full(sequences, 1.0 / sequences), size=resamples).astype(np.float64)


def permutations(sequences: int, most: int, seed: int) -> np.ndarray:
    """All permutations of the sequences where there are at most `most`, else `most` random ones.

    Returns:
        (permutation, sequence) integers.
    """
    if math.factorial(min(sequences, 20)) <= most:
        return np.array(list(itertools.permutations(range(sequences))))
    rng = np.random.default_rng([seed, 2])
    return np.array([rng.permutation(sequences) for _ in range(most)])


def mean_interval(values: np.ndarray, counts: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap interval of a mean over sequences.

    Args:
        values: (sequence, ...) one mean per sequence; counts: from `bootstrap_counts`.

    Returns:
        Lower and upper end, each (...); NaN with fewer than two sequences.
    """
    n = len(values)
    if n < 2:
        nan = np.full(values.shape[1:], np.nan)
        return nan, nan.copy()
    means = np.tensordot(counts / n, values, axes=1)
    tail = (1.0 - level) / 2
    low, high = np.quantile(means, [tail, 1.0 - tail], axis=0)
    return low, high


@dataclass(frozen=True)
class Concordance:
    """One predictor against one outcome; per layer unless said. Intervals are NaN with fewer than two sequences."""

    concordance: np.ndarray
    low: np.ndarray
    high: np.ndarray
    chance: np.ndarray
    baseline: np.ndarray
    null_low: np.ndarray
    null_high: np.ndarray
    evidence: np.ndarray
    spearman: np.ndarray
    spearman_low: np.ndarray
    spearman_high: np.ndarray
    baseline_low: np.ndarray
    baseline_high: np.ndarray
    kappa: float
    kappa_low: float
    kappa_high: float
    kappa_null_low: float
    kappa_null_high: float
    pooled_concordance: float
    pooled_low: float
    pooled_high: float
    pooled_baseline: float
    pooled_baseline_low: float
    pooled_baseline_high: float
    pooled_spearman: float
    pooled_spearman_low: float
    pooled_spearman_high: float
    pooled_evidence: bool


@dataclass(frozen=True)
class FlipTest:
    """Are the layers' c_k - chance_k more often, or more, of one sign than fair coins are?

    layers, positive: layers with a sign (zeros and NaN are left out), and those above chance.
    p_count: two-sided, of the number of positive layers: exact at initialisation.
    p_sum: two-sided, of |sum| among all flips of the signs: see the module's text.
    """

    layers: int
    positive: int
    p_count: float
    p_sum: float


def flip_test(excess: np.ndarray) -> FlipTest:
    """Sign tests with the layer as the unit.

    Args:
        excess: (layer,) c_k - chance_k.

    Returns:
        p values of 1 where no layer has a sign. Above 20 layers p_sum is by 2^20 random flips of a fixed seed.

    >>> flip_test(np.array([0.1, 0.2, 0.05]))                   # the smallest p of three layers is 2/8
    FlipTest(layers=3, positive=3, p_count=0.25, p_sum=0.25)
    """
    x = np.asarray(excess, np.float64)
    x = x[np.isfinite(x) & (x != 0)]
    n, positive = len(x), int((x > 0).sum())
    if not n:
        return FlipTest(0, 0, 1.0, 1.0)
    tail = sum(math.comb(n, i) for i in range(min(positive, n - positive) + 1)) / 2**n
    if n <= 20:
        sums = np.zeros(1)
        for value in x:
            sums = np.concatenate([sums + value, sums - value])
    else:
        rng = np.random.default_rng(0)
        sums = np.array([x.sum(), *(rng.choice([-1.0, 1.0], (2**20, n)) @ x)])
    # equal sums in another order differ by rounding
    p_sum = float((np.abs(sums) >= abs(float(x.sum())) - 1e-12 * np.abs(x).sum()).mean())
    return FlipTest(n, positive, min(1.0, 2.0 * tail), p_sum)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    # with equal constant signs in every layer there is nothing beyond chance to measure
    return np.where(denominator > 1e-12, numerator / np.where(denominator > 1e-12, denominator, 1.0), np.nan)


def _ends(values: np.ndarray, ends: list[float]) -> tuple[float, float]:
    low, high = np.nanquantile(values, ends)
    return float(low), float(high)


def _quantile(values: np.ndarray, q: float, side: str) -> np.ndarray:
    # outward: a null interval of few permutations must not be narrower than its tail allows
    return np.quantile(values, q, axis=0, method="higher" if side == "high" else "lower")


def concordance(
    predictor: np.ndarray,
    outcome: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = 1000,
    most_permutations: int = 1000,
    level: float = 0.95,
) -> Concordance:
    """Compare the sign of a predictor with the sign of an outcome (the module's definitions).

    Args:
        predictor, outcome: (sequence, layer, token). Positions at which the predictor is NaN for some sequence and
            layer (a lag that does not exist yet) are left out everywhere.
        seed, resamples, most_permutations, level: of the bootstrap and of the permutation null.

    Raises:
        InputError: shapes differ, the outcome is not finite, or no position is left.
    """
    predictor, outcome = np.asarray(predictor, np.float64), np.asarray(outcome, np.float64)
    if predictor.shape != outcome.shape or predictor.ndim != 3:
        raise InputError(
            "predictor and outcome must be (sequence, layer, token) of one shape, "
            f"not {predictor.shape} and {outcome.shape}"
        )
    if not np.isfinite(outcome).all():
        raise InputError("the outcome of a concordance has values that are not finite")
    keep = np.isfinite(predictor).all(axis=(0, 1))
    if not keep.any():
        raise InputError("a predictor of a concordance is finite at no position")
    predictor, outcome = predictor[..., keep], outcome[..., keep]
    sequences, layers, tokens = predictor.shape
    tail = (1.0 - level) / 2

    p, g = predictor > 0, outcome > 0
    sp, sg = np.where(p, 1.0, -1.0), np.where(g, 1.0, -1.0)
    # agree[k, s, r] = fraction of positions at which sequence s's outcome has the sign of sequence r's predictor:
    # every bootstrap and permutation is a sum of these
    agree = 0.5 + 0.5 * np.einsum("skl,rkl->ksr", sg, sp, optimize=True) / tokens
    own = np.einsum("kss->sk", agree)
    p_rate, g_rate = p.mean(axis=2), g.mean(axis=2)  # (sequence, layer)

    def margins(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Concordance, chance and baseline of weighted sequences: (..., sequence) -> (..., layer) each."""
        c, a, b = weights @ own, weights @ p_rate, weights @ g_rate
        return c, a * b + (1 - a) * (1 - b), np.maximum(b, 1 - b)

    c, chance, baseline = margins(np.full(sequences, 1.0 / sequences))
    kappa = float(_ratio((c - chance).sum(), (1 - chance).sum()))

    rp = np.stack([ranks(predictor[:, k].ravel()).reshape(sequences, tokens) for k in range(layers)], axis=1)
    rg = np.stack([ranks(outcome[:, k].ravel()).reshape(sequences, tokens) for k in range(layers)], axis=1)
    rp, rg = (r - r.mean(axis=(0, 2), keepdims=True) for r in (rp, rg))
    scale = np.sqrt((rp**2).sum(axis=(0, 2)) * (rg**2).sum(axis=(0, 2)))
    spearman = _ratio((rp * rg).sum(axis=(0, 2)), scale)
    # the interval resamples sequences with the ranks held: a correlation of weighted sums
    moments = [m.sum(axis=2) for m in (rp * rg, rp * rp, rg * rg, rp, rg)]  # (sequence, layer) each

    def correlation(weights: np.ndarray) -> np.ndarray:
        """Spearman of weighted sequences (weights sum to one): (..., sequence) -> (..., layer)."""
        xy, xx, yy, x, y = (weights @ m / tokens for m in moments)
        return _ratio(xy - x * y, np.sqrt(np.maximum(xx - x * x, 0.0) * np.maximum(yy - y * y, 0.0)))

    nan = np.full(layers, np.nan)
    low, high, null_low, null_high = nan, nan, nan, nan
    s_low, s_high, b_low, b_high = nan, nan, nan, nan
    k_low = k_high = k_null_low = k_null_high = math.nan
    c_ends = b_ends = s_ends = (math.nan, math.nan)
    evidence, pooled_evidence = np.zeros(layers, bool), False
    if sequences > 1:
        weights = bootstrap_counts(sequences, resamples, seed) / sequences
        bc, bchance, bbase = margins(weights)
        bspearman = correlation(weights)
        bkappa = _ratio((bc - bchance).sum(axis=1), (1 - bchance).sum(axis=1))
        ends = [tail, 1 - tail]
        low, high = np.quantile(bc, ends, axis=0)
        b_low, b_high = np.quantile(bbase, ends, axis=0)
        c_ends, b_ends = (_ends(x.mean(axis=1), ends) for x in (bc, bbase))
        varied = np.isfinite(spearman)
        if varied.any():
            s_low, s_high = np.full((2, layers), math.nan)
            s_low[varied], s_high[varied] = np.nanquantile(bspearman[:, varied], ends, axis=0)
            s_ends = _ends(np.nanmean(bspearman[:, varied], axis=1), ends)
        if np.isfinite(bkappa).any():
            k_low, k_high = _ends(bkappa, ends)
        order = permutations(sequences, most_permutations, seed)
        nc = agree[:, np.arange(sequences)[None, :], order].mean(axis=2).T  # (permutation, layer)
        nkappa = _ratio((nc - chance).sum(axis=1), np.full(len(nc), (1 - chance).sum()))
        null_low, null_high = _quantile(nc, tail, "low"), _quantile(nc, 1 - tail, "high")
        k_null_low, k_null_high = float(_quantile(nkappa, tail, "low")), float(_quantile(nkappa, 1 - tail, "high"))
        above_base = np.quantile(bc - bbase, tail, axis=0) > 0
        evidence = above_base & (low > null_high)
        pooled_above = float(np.quantile((bc - bbase).mean(axis=1), tail)) > 0
        pooled_evidence = bool(pooled_above and k_low > k_null_high)
    return Concordance(
        concordance=c,
        low=low,
        high=high,
        chance=chance,
        baseline=baseline,
        null_low=null_low,
        null_high=null_high,
        evidence=evidence,
        spearman=spearman,
        spearman_low=s_low,
        spearman_high=s_high,
        baseline_low=b_low,
        baseline_high=b_high,
        kappa=kappa,
        kappa_low=k_low,
        kappa_high=k_high,
        kappa_null_low=k_null_low,
        kappa_null_high=k_null_high,
        pooled_concordance=float(c.mean()),
        pooled_low=c_ends[0],
        pooled_high=c_ends[1],
        pooled_baseline=float(baseline.mean()),
        pooled_baseline_low=b_ends[0],
        pooled_baseline_high=b_ends[1],
        pooled_spearman=float(np.nanmean(spearman)) if np.isfinite(spearman).any() else math.nan,
        pooled_spearman_low=s_ends[0],
        pooled_spearman_high=s_ends[1],
        pooled_evidence=pooled_evidence,
    )
