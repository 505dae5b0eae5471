"""Directions on the sphere: against explicit definitions, and on a flow whose power of the norm is known."""

from __future__ import annotations

import numpy as np
import pytest

from ssmtheory.dynamics import sphere
from ssmtheory.errors import InputError

RNG = np.random.default_rng(3)


def test_pairs_by_definition() -> None:
    u, v = sphere.unit(RNG.normal(size=(2, 7, 5)))
    cosines = [u[i] @ u[j] for i in range(7) for j in range(7) if i != j]
    assert sphere.mean_pair_cosine(u) == pytest.approx(np.mean(cosines), abs=1e-14)
    assert sphere.pair_sine(u) == pytest.approx(1 - np.mean(np.square(cosines)), rel=1e-13)
    crossed = [np.linalg.norm(v[j] - (u[i] @ v[j]) * u[i]) ** 2 for i in range(7) for j in range(7)]
    assert sphere.pair_sine(u, v) == pytest.approx(np.mean(crossed), rel=1e-13)
    for call in (sphere.mean_pair_cosine, sphere.pair_sine):
        with pytest.raises(InputError, match="at least two tokens"):
            call(u[:1])


def test_tangential_share() -> None:
    r, f = RNG.normal(size=(2, 6, 4))
    along, across = sphere.tangential_share(r, f)
    for i in range(6):
        projector = np.eye(4) - np.outer(r[i], r[i]) / (r[i] @ r[i])
        assert along[i] == pytest.approx(r[i] @ f[i] / np.linalg.norm(r[i]) / np.linalg.norm(f[i]), abs=1e-14)
        assert across[i] == pytest.approx(np.linalg.norm(projector @ f[i]) / np.linalg.norm(f[i]), rel=1e-13)
    # nearly parallel: 1 - along^2 would be 0
    assert sphere.tangential_share(np.array([1.0, 0.0]), np.array([1.0, 1e-10]))[1] == pytest.approx(1e-10, rel=1e-12)


def test_effective_rank() -> None:
    x = RNG.normal(size=(9, 4))
    share = np.linalg.eigvalsh(x.T @ x)
    share = share / share.sum()
    assert sphere.effective_rank(x) == pytest.approx(np.exp(-np.sum(share * np.log(share))), rel=1e-12)
    # k directions, equally often: rank k
    assert sphere.effective_rank(np.repeat(np.eye(6)[:3], 4, axis=0)) == pytest.approx(3.0, rel=1e-12)


def test_own_and_other_counts_no_text_as_its_own_control() -> None:
    values = RNG.normal(size=(2, 5, 5))
    group = np.array([0, 1, 0, 1, 0])
    comparable = group[:, None] == group
    drawn = np.array([0, 0, 2, 3, 4])
    weights = np.bincount(drawn, minlength=5)[None].astype(float)
    own, other = sphere.own_and_other(weights, values, comparable)
    np.testing.assert_allclose(own[0], np.mean([values[:, i, i] for i in drawn], axis=0), rtol=1e-13)
    pairs = [(i, j) for i in drawn for j in drawn if i != j and group[i] == group[j]]
    np.testing.assert_allclose(other[0], np.mean([values[:, i, j] for i, j in pairs], axis=0), rtol=1e-12)
    assert np.isnan(sphere.own_and_other(weights, values, np.zeros((5, 5), bool))[1]).all()


def test_permutations_stay_in_their_group_and_find_a_planted_excess() -> None:
    group = np.repeat([0, 1], 6)
    # every pair of one group shares a direction: no excess of the own text within groups
    shared = np.where(group[:, None] == group, 1.0, 0.0)
    value, null = sphere.excess(shared, shared > 0, group, 50, seed=0)
    assert value == 1.0
    assert (null == 1.0).all()
    value, null = sphere.excess(shared + np.eye(12), shared > 0, group, 200, seed=0)
    assert value == 2.0
    assert (null < value).mean() > 0.99
    # pairs that are no control are left out of the permuted means, too: texts 0 and 1 share a vector
    shared[0, 1] = shared[1, 0] = 9.0
    comparable = group[:, None] == group
    comparable[0, 1] = comparable[1, 0] = False
    assert sphere.excess(shared, comparable, group, 50, seed=0)[1].max() == 1.0


def test_orthogonal_updates_come_to_their_last_direction_as_the_control_says() -> None:
    width = 40
    steps = RNG.uniform(0.5, 2.0, width)
    path = np.cumsum(np.diag(steps), axis=0)
    cosine = sphere.unit(path) @ sphere.unit(path)[-1]
    np.testing.assert_allclose(
        sphere.independent_sine(np.linalg.norm(path, axis=1)), 1 - cosine**2, rtol=1e-12, atol=1e-14
    )


def test_power_of_the_norm_of_a_linear_layer() -> None:
    # r' = W r/|r| with W symmetric: lambda = 3, mu = 1, so the exponent is 1 - 1/3
    values = np.array([3.0, 1.0])
    r, norms, sines = np.array([1.0, 1.0]), [], []
    for step in range(20000):
        if step > 2000:
            norms.append(np.linalg.norm(r))
            sines.append(r[1] / norms[-1])
        r = r + 0.1 * values * r / np.linalg.norm(r)
    slope, r2 = sphere.power_fit(np.log(norms), np.log(sines))
    assert slope == pytest.approx(-2 / 3, abs=1e-4)
    assert r2 == pytest.approx(1.0, abs=1e-6)
    assert np.isnan(sphere.power_fit(np.ones(3), np.arange(3.0))[0])


def test_a_flow_is_followed_to_its_limit_with_the_exponent_of_the_derivative() -> None:
    # token 1: r' = diag(3, 1, -1) u; token 2: the same plus what token 1 says, so that it turns to token 1
    W = np.diag([3.0, 1.0, -1.0])

    def update(u: np.ndarray) -> np.ndarray:
        out = u @ W
        out[:, 1:] += 2.0 * u[:, :1]
        return out

    flow = sphere.limit_flow(update, RNG.uniform(0.2, 1.0, (4, 2, 3)), depth=1.0, span=40.0)
    np.testing.assert_allclose(flow.direction, np.broadcast_to([1.0, 0.0, 0.0], (4, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(flow.growth, np.broadcast_to([3.0, 5.0], (4, 2)), rtol=1e-9)
    # 1 - 1/3 for token 1; token 2 would have 1 - 1/5 by itself and hears token 1
    # and its own mode, of exponent 4/5, has not quite died out
    np.testing.assert_allclose(flow.exponent, 2 / 3, rtol=5e-3)
    for token, own in ((0, [1.0, -1.0]), (1, [1.0, -1.0])):
        values = np.linalg.eigvals(sphere.own_derivative(update, flow.direction[0], token))
        np.testing.assert_allclose(np.sort(values)[::-1], own, atol=1e-8)


def test_a_flow_without_a_limit_has_no_exponent() -> None:
    turn = np.array([[0.1, 1.0], [-1.0, 0.1]])
    flow = sphere.limit_flow(lambda u: u @ turn, np.ones((1, 1, 2)), depth=1.0, span=20.0)
    assert np.isnan(flow.exponent).all()
    assert flow.residual[0, 0] == pytest.approx(1 / np.hypot(1.0, 0.1))
    with pytest.raises(InputError, match="must be positive"):
        sphere.limit_flow(lambda u: u, np.ones((1, 1, 2)), depth=0.0, span=1.0)
