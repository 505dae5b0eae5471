"""Motion, the exact split of the radial rate, shares and clustering: against direct definitions."""

from __future__ import annotations

import numpy as np
import pytest

from ssmtheory.dynamics import depth


def test_motion_by_definition() -> None:
    rng = np.random.default_rng(1)
    r, d = rng.normal(size=(2, 9, 6))
    norm, g, step, angle = depth.motion(r, d)
    for t in range(9):
        after = r[t] + d[t]
        cosine = r[t] @ after / np.linalg.norm(r[t]) / np.linalg.norm(after)
        assert norm[t] == pytest.approx(np.linalg.norm(r[t]), rel=1e-14)
        assert g[t] == pytest.approx(r[t] @ d[t] / (r[t] @ r[t]), rel=1e-12)
        assert step[t] == pytest.approx(np.linalg.norm(d[t]) / np.linalg.norm(r[t]), rel=1e-14)
        assert angle[t] == pytest.approx(np.arccos(cosine), rel=1e-10)
    # |r'|^2 = |r|^2 (1 + 2 g + e^2)
    np.testing.assert_allclose(np.linalg.norm(r + d, axis=1) ** 2, norm**2 * (1 + 2 * g + step**2), rtol=1e-12)


def test_small_and_turned_angles() -> None:
    r = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    d = np.array([[0.0, 1e-9], [-3.0, 0.0], [5.0, 0.0]])
    # arccos of the cosine would give 0 for the first: 1 - 5e-19 rounds to 1
    np.testing.assert_allclose(depth.motion(r, d)[3], [1e-9, np.pi, 0.0], rtol=1e-12)
    assert np.isnan(depth.motion(np.zeros((1, 2)), np.ones((1, 2)))[1]).all()


@pytest.mark.parametrize(("groups", "per_head"), [(1, 1), (1, 3), (2, 3)])
def test_split_is_what_each_term_adds_alone(groups: int, per_head: int) -> None:
    rng = np.random.default_rng(2)
    tokens, width, heads = 8, 5, 4
    channels, states = heads * per_head, 3
    r, u = rng.normal(size=(tokens, width)), rng.normal(size=(tokens, channels))
    gate, past = rng.normal(size=(2, tokens, channels))
    W, bias = rng.normal(size=(width, channels)), rng.normal(size=width)
    delta, D = rng.uniform(0.1, 1.0, (tokens, heads)), rng.normal(size=channels)
    B, C = rng.normal(size=(2, tokens, groups, states))
    q = np.einsum("tgn,tgn->tg", B, C)

    def g_of(y: np.ndarray) -> np.ndarray:
        """Radial rate of the update that y alone would make, token by token."""
        return np.array([r[t] @ (W @ (gate[t] * y[t])) / (r[t] @ r[t]) for t in range(tokens)])

    own, A_Delta = np.zeros((2, tokens, channels))
    for t in range(tokens):
        for d in range(channels):
            head = d // per_head
            g = head // (heads // groups)
            A_Delta[t, d] = delta[t, head] * u[t, d]
            own[t, d] = A_Delta[t, d] * sum(C[t, g, n] * B[t, g, n] for n in range(states))
    split = depth.radial_split(r, gate, W, u, delta, q, past, D, bias)
    # all in float64: sums of at most 60 terms of order one
    np.testing.assert_allclose(split.skip, g_of(D * u), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(split.self_, g_of(own), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(split.hist, g_of(past), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(split.A_Delta, g_of(A_Delta), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(split.bias, r @ bias / (r**2).sum(axis=1), rtol=1e-12)
    update = (gate * (D * u + own + past)) @ W.T + bias
    total = split.skip + split.self_ + split.hist + split.bias
    np.testing.assert_allclose(total, depth.motion(r, update)[1], rtol=1e-10, atol=1e-12)
    if groups == 1:
        np.testing.assert_allclose(split.self_, q[:, 0] * split.A_Delta, rtol=1e-12)


def test_shares_add_to_one() -> None:
    rng = np.random.default_rng(3)
    parts = rng.normal(size=(3, 4, 50)) * np.array([3.0, 1.0, 0.1])[:, None, None]
    total = parts.sum(axis=0).ravel()
    explicit = [np.cov(p.ravel(), total)[0, 1] / np.var(total, ddof=1) for p in parts]
    np.testing.assert_allclose(depth.shares(parts), explicit, rtol=1e-12)
    assert depth.shares(parts).sum() == pytest.approx(1.0, abs=1e-14)
    assert np.isnan(depth.shares(np.ones((2, 5)))).all()


def test_scenario_needs_the_whole_interval_on_one_side() -> None:
    nan = np.array([np.nan])
    assert depth.scenario(np.array([0.51, 0.4, 0.1]), np.array([0.6, 0.6, 0.49]), 0.5).tolist() == [1, 0, -1]
    assert depth.scenario(nan, nan).tolist() == [0]


@pytest.mark.parametrize("chunks", [(30,), (3, 1, 26)])
def test_clustering_against_the_cosine_matrix(chunks: tuple[int, ...]) -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(30, 7)) + 0.5
    one = depth.Clustering(7, (0, 4), burn_in=10)
    start = 0
    for size in chunks:
        one.update(x[start : start + size])
        start += size
    cosine = depth.cosine_matrix(x)
    explicit = [[x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]) for j in range(30)] for i in range(30)]
    np.testing.assert_allclose(cosine, explicit, atol=1e-14)
    assert one.mean_cosine == pytest.approx(cosine[~np.eye(30, dtype=bool)].mean(), rel=1e-12)
    for i, anchor in enumerate((0, 4)):
        assert one.late_mean @ one.anchor[i] == pytest.approx(cosine[10:, anchor].mean(), rel=1e-12)


def test_one_token_has_no_pairs() -> None:
    one = depth.Clustering(3, (0,), burn_in=4)
    one.update(np.ones((1, 3)))
    assert np.isnan(one.mean_cosine)
    assert np.isnan(one.late_mean).all()
