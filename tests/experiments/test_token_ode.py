"""The experiment on the depth equation: its numbers against the laws they stand beside."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ssmtheory.errors import ConfigError
from ssmtheory.experiments import token_ode as experiment

SMALL = experiment.Config(clock_end=1e3, points=60, orbits=8, cells=9, draws=4, dims=4)
FATES = experiment.FATES


@pytest.fixture(scope="module")
def tree():
    return experiment.run(SMALL)


def values(tree, path):
    return np.asarray(tree[path].values)


def test_regimes_meet_their_laws(tree) -> None:
    plateau = values(tree, "convergent/plateau")[:, -1]
    # the relaxation t^{-1/2} leaves a few 1e-4 at 1e8
    assert plateau == pytest.approx([1, 0.5, 0.5, 0.5, 0.5], abs=2e-3)
    log_t, x = values(tree, "slow/log_t"), values(tree, "slow/x")
    far = log_t > 100
    assert np.polyfit(np.log(log_t[far]), np.log(x[0, far]), 1)[0] == pytest.approx(1.0, abs=0.06)  # 1 - 3 / ln t
    assert x[0, -1] == pytest.approx(values(tree, "slow/law")[-1], abs=0.005)
    assert float(tree["fast/alone"]) == pytest.approx(0.282963287508, rel=1e-11)
    assert float(tree["fast/quadrature"]) == pytest.approx(0.282963287508, rel=1e-11)
    # an earlier token of the other sign only adds to the growth
    assert float(tree["fast/blow_up_time"]) < float(tree["fast/alone"])
    rest, log_x, law = (values(tree, f"fast/{name}") for name in ("log_rest", "log_x", "law"))
    late = rest > 20
    assert np.abs(log_x[1, late] - law[late]).max() < 0.01
    # token 3 goes along, tokens 1, 4, 5 do not
    slope = [np.polyfit(rest[late], row[late], 1)[0] for row in log_x]
    assert slope[2] == pytest.approx(1 / 3, abs=1e-3)
    assert max(slope[0], slope[3], slope[4]) < 0.02


def test_the_cone_and_the_fates_agree_with_the_sign_of_q(tree) -> None:
    radius, angle = values(tree, "plane_map/radius"), values(tree, "plane_map/angle")
    for i, name in enumerate(experiment.INERTIAS):
        M = values(tree, "plane/M")[i]
        eigenvalues = np.linalg.eigvalsh((M + M.T) / 2)
        assert name == f"{(eigenvalues > 0).sum()}-{(eigenvalues < 0).sum()}"
        for ray in values(tree, "plane/cone")[i]:
            if name == "1-1":
                u = np.array([math.cos(ray), math.sin(ray)])
                assert abs(u @ M @ u) < 1e-14
            else:
                assert np.isnan(ray)
        u = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        q = np.einsum("ai,ij,aj->a", u, M, u)
        fate = np.array(FATES)[values(tree, "plane_map/fate")[i]]
        assert fate.shape == (radius.size, angle.size)
        assert set(fate[:, q > 0].ravel()) <= {"blow_up", "slow", "point"}
        assert set(fate[:, q < 0].ravel()) <= {"zero", "point"}
    assert "point" in fate_names(tree, 1)
    line = np.array(FATES)[values(tree, "line_map/fate")]
    mu, start = values(tree, "line_map/mu"), values(tree, "line_map/start")
    assert (line[mu < 0] == "zero").all()
    assert (line[mu > 0][:, start > 0] == "blow_up").all()
    assert (line[mu > 0][:, start < 0] == "slow").all()
    # T* is proportional to 1 / mu
    times = values(tree, "line_map/blow_up_time")
    assert times[mu > 0][-1] * 2 == pytest.approx(times[mu > 0][0] * mu[mu > 0][0], rel=1e-12, nan_ok=True)


def fate_names(tree, i):
    return set(np.array(FATES)[values(tree, "plane_map/fate")[i]].ravel())


def test_sphere(tree) -> None:
    beta, slope, grows = (values(tree, f"sphere/{name}") for name in ("beta", "slope", "grows"))
    k = math.exp(-math.log(2.0))
    assert beta[grows == 1] == pytest.approx(np.full(int((grows == 1).sum()), k / (1 + k)))
    late = slope[(grows == 1)]
    # reached from below, the later the slower; 2 % above where a fit still sees the approach
    assert (late[:, 1:] < k / (1 + k) + 0.02).all()
    assert np.median(late[:, 1]) == pytest.approx(k / (1 + k), abs=0.04)
    assert (values(tree, "directions/gap") < 1e-2).all()


def test_words_and_repetition(tree) -> None:
    lines = experiment.verdict(tree)
    assert any("0.282963287508" in line for line in lines)
    plan = experiment.plan(SMALL)
    for key in ("fast", "plane/1-1"):
        first, second = (experiment.run_task(plan, key) for _ in range(2))
        for name, value in first.items():
            assert np.array_equal(value, second[name], equal_nan=True), name


@pytest.mark.parametrize("options", [{"cells": 2}, {"t_end": 10.0}, {"clock_end": 1e9}, {"budget": 1}, {"orbits": 0}])
def test_options_that_cannot_be(options) -> None:
    with pytest.raises(ConfigError, match="must be"):
        experiment.plan(experiment.Config(**options))
