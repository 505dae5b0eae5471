"""The sphere experiment: every kind of number against its definition, written out on a small random model."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import xarray as xr

from ssmtheory import mamba
from ssmtheory.errors import ConfigError
from ssmtheory.experiments import base
from ssmtheory.experiments import sphere as experiment
from ssmtheory.mamba.config import MambaConfig
from ssmtheory.mamba.forward import layer_map
from ssmtheory.mamba.tokenizer import ByteTokenizer

TEXTS, TOKENS, REPETITIONS, TIED = 6, 24, 9, 10


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from tests.experiments.test_token_dynamics import _model

    found = _model(MambaConfig.mamba1(d_model=8, n_layer=3, vocab_size=256, d_state=4), backend="numpy")
    assert isinstance(found.tokenizer, ByteTokenizer)
    return found


@pytest.fixture(scope="module")
def made(model: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[base.Plan, xr.DataTree]:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_bytes(bytes(np.random.default_rng(1).integers(97, 123, 400).tolist()))
    config = experiment.Config(
        models=("random",), text=str(path), tokens=TOKENS, sequences=TEXTS, repetitions=REPETITIONS, tied_tokens=TIED,
        limit_tokens=2, limit_span=30.0,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mamba, "load", lambda *_, **__: model)
        patch.setattr("ssmtheory.experiments.concordance._training_step", lambda _: 7.0)
        plan = experiment.plan(config)
    return plan, base.finish(experiment, plan, {key: experiment.run_task(plan, key) for key in plan.tasks})


@pytest.fixture(scope="module")
def streams(model: Any, made: tuple[base.Plan, xr.DataTree]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token ids, residual (depth, text, token, channel) and update, taken text by text."""
    windows = made[0].context.windows[0]
    ids = np.stack([w.source.tokens[w.start : w.start + TOKENS] for w in windows])
    residual, update = [], []
    for row in ids:
        seen: list[Any] = []
        model(row[None], tap=lambda _, s, seen=seen: seen.append(s))
        residual.append([s.residual[0] for s in seen] + [seen[-1].residual[0] + seen[-1].update[0]])
        update.append([s.update[0] for s in seen])
    return ids, np.array(residual).swapaxes(0, 1), np.array(update).swapaxes(0, 1)


def _u(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))


def test_cosines_and_sines(made: Any, streams: Any) -> None:
    _, residual, _ = streams
    deep = made[1]["depth"]
    for k, r in enumerate(residual):
        u = _u(r)
        within, between = [], []
        for i, j in itertools.product(range(TEXTS), repeat=2):
            products = u[i] @ u[j].T
            if i == j:
                within.append(products[~np.eye(TOKENS, dtype=bool)])
            else:
                between.append(products.ravel())
        assert deep["cosine"].values[0, k] == pytest.approx(np.mean(within), abs=1e-12)
        assert deep["cosine_other"].values[0, k] == pytest.approx(np.mean(between), abs=1e-12)
        assert deep["sine"].values[0, k] == pytest.approx(np.sqrt(1 - np.mean(np.square(within))), rel=1e-10)
        assert deep["sine_other"].values[0, k] == pytest.approx(np.sqrt(1 - np.mean(np.square(between))), rel=1e-10)
        centred = [_u(u[i] - np.delete(u, i, axis=0).mean(axis=(0, 1))) for i in range(TEXTS)]
        rest = [(c @ c.T)[~np.eye(TOKENS, dtype=bool)] for c in centred]
        assert deep["cosine_centred"].values[0, k] == pytest.approx(np.mean(rest), abs=1e-12)
        ranks = []
        for rows in u:
            share = np.linalg.eigvalsh(rows.T @ rows) / TOKENS
            ranks.append(np.exp(-np.sum(share * np.log(share))))
        assert deep["rank"].values[0, k] == pytest.approx(np.mean(ranks), rel=1e-8)
        assert deep["log_norm"].values[0, k] == pytest.approx(np.log(np.linalg.norm(r, axis=-1)).mean(), rel=1e-12)
        last = 1 - np.einsum("tld,tld->tl", u, _u(residual[-1])) ** 2
        assert deep["sine_last"].values[0, k] == pytest.approx(np.sqrt(max(last.mean(), 0.0)), abs=1e-7)


def test_anchors_and_exponents(made: Any, streams: Any) -> None:
    ids, residual, _ = streams
    tree = made[1]
    end = _u(residual[-1])
    for place, a in enumerate(experiment.ANCHORS):
        own = np.mean([end[i, 16:] @ end[i, a] for i in range(TEXTS)])
        pairs = [
            np.mean(end[i, 16:] @ end[j, a])
            for i, j in itertools.permutations(range(TEXTS), 2)
            if (ids[i, : a + 1] != ids[j, : a + 1]).any()
        ]
        assert tree["anchors/own"].values[0, -1, place] == pytest.approx(own, abs=1e-12)
        assert tree["anchors/excess"].values[0, -1, place] == pytest.approx(own - np.mean(pairs), abs=1e-12)
    at = list(experiment.QUANTITIES).index("first")
    x = [np.log(np.linalg.norm(r[:, 16:], axis=-1)).mean() for r in residual]
    y = []
    for r in residual:
        u = _u(r)
        y.append(0.5 * np.log(np.mean([1 - (u[i, 16:] @ u[i, 0]) ** 2 for i in range(TEXTS)])))
    assert tree["rates/exponent"].values[0, at, 0] == pytest.approx(-np.polyfit(x, y, 1)[0], rel=1e-8)
    assert tree["rates/per_layer"].values[0, at, 0] == pytest.approx(-np.polyfit(range(4), y, 1)[0], rel=1e-8)
    assert tree["rates/fit_norm"].values[0, at, 0] == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2, rel=1e-8)


def test_updates(made: Any, streams: Any) -> None:
    _, residual, update = streams
    layers = made[1]["layers"]
    for k, (r, f) in enumerate(zip(residual[:-1], update, strict=True)):
        u = _u(r)
        along = np.einsum("tld,tld->tl", u, f)
        across = np.linalg.norm(f - along[..., None] * u, axis=-1) / np.linalg.norm(f, axis=-1)
        assert layers["residual"].values[0, k] == pytest.approx(across.mean(), rel=1e-10)
        assert layers["along"].values[0, k] == pytest.approx((along / np.linalg.norm(f, axis=-1)).mean(), abs=1e-12)
        assert layers["g"].values[0, k] == pytest.approx((along / np.linalg.norm(r, axis=-1)).mean(), rel=1e-10)
        square = np.mean(np.sum(f**2, axis=-1))
        pairs = list(itertools.permutations(range(TEXTS), 2))
        common = np.mean([f[i].mean(axis=0) @ f[j].mean(axis=0) for i, j in pairs])
        assert layers["common_share"].values[0, k] == pytest.approx(common / square, abs=1e-12)
        text = np.mean([(f[i] @ f[i].T)[~np.eye(TOKENS, dtype=bool)] for i in range(TEXTS)])
        assert layers["text_share"].values[0, k] == pytest.approx((text - common) / square, abs=1e-12)
        g_common = [
            (u[i] @ np.delete(f, i, axis=0).mean(axis=(0, 1)) / np.linalg.norm(r[i], axis=-1)).mean()
            for i in range(TEXTS)
        ]
        assert layers["g_common"].values[0, k] == pytest.approx(np.mean(g_common), abs=1e-12)


def test_repeated_last_layer(model: Any, made: Any, streams: Any) -> None:
    _, residual, _ = streams
    tied = made[1]["tied"]
    r = start = residual[-1][:, :TIED]
    for step in range(REPETITIONS + 1):
        after = np.stack([layer_map(model.weights, model.config, 2, each[None])[0] for each in r])
        row = np.flatnonzero(tied["iteration"].values == step)
        if len(row):
            f, u = after - r, _u(r)
            across = np.sum(f**2, axis=-1) - np.einsum("tld,tld->tl", u, f) ** 2
            wanted = np.sqrt(np.mean(across / np.sum(f**2, axis=-1)))
            assert tied["residual"].values[0, row[0]] == pytest.approx(wanted, rel=1e-8)
            turn = np.einsum("tld,tld->tl", u, _u(start)).mean()
            assert tied["turn"].values[0, row[0]] == pytest.approx(turn, rel=1e-10)
        r = after
    assert tied["iteration"].values[-1] == REPETITIONS


def test_limit_directions_are_nonlinear_eigenvectors(model: Any, made: Any) -> None:
    from ssmtheory.dynamics.asymptotics.sphere import tangent_derivative

    def layer(u: np.ndarray) -> np.ndarray:
        far = 1e3 * u[None, None]
        return (layer_map(model.weights, model.config, 2, far) - far)[0, 0]

    plan, tree = made
    part = experiment.run_task(plan, "0")
    settled = part["limit_settled"][:, 0]
    assert tree["limits/settled"].values[0, 0] == settled.mean() > 0
    for text in np.flatnonzero(settled):
        u, growth = part["limit_direction"][text, 0], part["limit_growth"][text, 0]
        np.testing.assert_allclose(layer(u), growth * u, atol=1e-6 * growth)
        abscissa = np.linalg.eigvals(tangent_derivative(layer, u)).real.max()
        assert part["limit_own"][text, 0] == pytest.approx(1 - abscissa / growth, rel=1e-6)


def test_intervals_hold_their_number_and_words_name_the_model(made: Any, model: Any) -> None:
    plan, tree = made
    for group in tree.children.values():
        for name in group.data_vars:
            if f"{name}_low" in group:
                low, value, high = (group[n].values for n in (f"{name}_low", name, f"{name}_high"))
                known = np.isfinite(low)
                assert (low[known] <= high[known]).all(), name
                # a percentile interval of a ratio need not hold its number, but nearly always does
                assert ((low <= value + 1e-9) & (value <= high + 1e-9))[known].mean() > 0.9, name
    words = " ".join(experiment.verdict(tree))
    assert model.sha256[:12] in words
    assert "first token" in words
    assert plan.resolved["models"] == {model.name: model.sha256}


def test_options(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mamba, "load", lambda *_, **__: model)
    monkeypatch.setattr("ssmtheory.experiments.concordance._training_step", lambda _: float("nan"))
    # two corpora are embedded: three texts leave one of them alone
    for options, said in (
        ({"sequences": 3}, "at least 4"), ({"tokens": 17}, "at least 18"), ({"models": ()}, "name at least one"),
        ({"models": ("a", "b"), "sequences": 4, "tokens": 32}, "each model once"), ({"repetitions": 7}, "at least 8"),
        ({"limit_tokens": 33}, "must not exceed --tied_tokens 32"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            experiment.plan(experiment.Config(**options))
