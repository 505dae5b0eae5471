"""Signs against what tokens do: by brute force from the definitions, on small models and on the trained block."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssmtheory import mamba
from ssmtheory.errors import ConfigError, InputError
from ssmtheory.experiments import concordance as experiment
from ssmtheory.mamba import MambaConfig, MambaLM
from ssmtheory.mamba.config import parameter_shapes

TOKENS, SEQUENCES, LAGS = 24, 6, (1, 3)
CONFIGS = {
    "small": MambaConfig.mamba1(d_model=6, n_layer=3, vocab_size=256, d_state=2),
    "shallow": MambaConfig.mamba2(d_model=8, n_layer=2, vocab_size=256, d_state=4, head_dim=4, n_groups=2),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = {}
    for i, (name, config) in enumerate(CONFIGS.items()):
        rng = np.random.default_rng(i)
        weights = {k: (0.4 * rng.standard_normal(s)).astype(np.float32) for k, s in parameter_shapes(config).items()}
        out[name] = tmp_path_factory.mktemp("models") / name
        MambaLM(config, weights, name=name).save(out[name])
    return out


@pytest.fixture(scope="module")
def options(folders: dict[str, Path]) -> experiment.Config:
    return experiment.Config(
        models=tuple(str(p) for p in folders.values()), block="none", tokens=TOKENS, sequences=SEQUENCES, lags=LAGS
    )


@pytest.fixture(scope="module")
def tree(options: experiment.Config) -> Any:
    return experiment.run(options)


def at(tree: Any, path: str, model: int, **chosen: Any) -> float:
    return float(tree[path].isel(model=model).sel(chosen))


def by_loops(folder: Path, options: experiment.Config) -> dict[str, list[np.ndarray]]:
    """Per sequence (layer, token): g, q, kappa_3, parts of g and q R of a Mamba-1 model, token by token in float64."""
    model = mamba.load(folder, dtype="float64", backend="numpy", check=False)
    c, w = model.config, {k: np.asarray(v) for k, v in model.weights.items()}
    windows = experiment.plan(options).context.windows[0]
    found: dict[str, list[np.ndarray]] = {n: [] for n in ("g", "q", "kappa_3", "q R", "skip", "self", "hist", "delta")}
    for window in windows:
        ids = window.source.tokens[window.start : window.start + TOKENS]
        signals: list[Any] = []
        model(ids[None], tap=lambda _, s, signals=signals: signals.append(s))
        rows: dict[str, list[list[float]]] = {n: [] for n in found}
        for layer, s in enumerate(signals):
            prefix = f"backbone.layers.{layer}."
            out_proj, in_proj = w[prefix + "mixer.out_proj.weight"], w[prefix + "mixer.in_proj.weight"]
            tap = w[prefix + "mixer.conv1d.weight"][:, 0, -1]
            W = out_proj @ np.diag(tap) @ in_proj[: c.d_inner] @ np.diag(w[prefix + "norm.weight"])
            h = np.zeros((c.d_inner, c.d_state))
            row: dict[str, list[float]] = {n: [] for n in found}
            for t in range(TOKENS):
                r, u, z = s.residual[0, t], s.u[0, t], s.z[0, t]
                delta, B, C = s.delta[0, t], s.B[0, t], s.C[0, t]
                gate = z / (1 + np.exp(-z))
                carried = np.exp(delta[:, None] * s.A) * h
                own = np.outer(delta * u, B)
                h = carried + own
                for name, y in (("skip", s.D * u), ("self", own @ C), ("hist", carried @ C)):
                    row[name].append(r @ out_proj @ (y * gate) / (r @ r))
                row["g"].append(r @ s.update[0, t] / (r @ r))
                row["q"].append(float(C @ B))
                row["q R"].append(float(C @ B) * (r @ W @ r) / (r @ r))
                row["delta"].append(delta.mean())
                kernel = math.nan
                if t >= 3:
                    tau = s.delta[0, t - 2 : t + 1].sum(axis=0)
                    kernel = np.mean([C @ (np.exp(tau[d] * s.A[d]) * s.B[0, t - 3]) for d in range(c.d_inner)])
                row["kappa_3"].append(kernel)
            for name, values in row.items():
                rows[name].append(values)
        for name, value in rows.items():
            found[name].append(np.array(value))
    return found


def kappa(p: np.ndarray, g: np.ndarray) -> float:
    """Stratified kappa of (sequence, layer, token), counted."""
    excess = room = 0.0
    for k in range(p.shape[1]):
        pairs = list(zip((p[:, k] > 0).ravel(), (g[:, k] > 0).ravel(), strict=True))
        both = sum(a == b for a, b in pairs) / len(pairs)
        up, out = (sum(x) / len(pairs) for x in zip(*pairs, strict=True))
        chance = up * out + (1 - up) * (1 - out)
        excess, room = excess + both - chance, room + 1 - chance
    return excess / room


def test_everything_by_loops_over_tokens(tree: Any, folders: dict[str, Path], options: experiment.Config) -> None:
    found = {name: np.stack(x) for name, x in by_loops(folders["small"], options).items()}
    # the identity itself, of the loop: what is compared below is exact
    np.testing.assert_allclose(found["skip"] + found["self"] + found["hist"], found["g"], atol=1e-9)
    for name, p in {
        "q": found["q"], "q R": found["q R"], "g_skip": found["skip"], "g_self": found["self"],
        "g_hist": found["hist"], "g_self+g_hist": found["self"] + found["hist"],
    }.items():  # fmt: skip
        assert at(tree, "tests/kappa", 0, predictor=name) == pytest.approx(kappa(p, found["g"]), abs=1e-9), name
    late = kappa(found["kappa_3"][..., 3:], found["g"][..., 3:])
    assert at(tree, "tests/kappa", 0, predictor="kappa_3") == pytest.approx(late, abs=1e-9)
    other = np.abs(found["self"] + found["hist"]) > np.abs(found["skip"])
    total = found["g"] - found["g"].mean(axis=(0, 2), keepdims=True)
    for k in range(3):
        assert at(tree, "layers/chi", 0, layer=k) == pytest.approx(other[:, k].mean())
        assert at(tree, "layers/q_positive", 0, layer=k) == pytest.approx((found["q"][:, k] > 0).mean())
        up = (found["g"][:, k] > 0).mean()
        assert at(tree, "layers/majority", 0, layer=k) == pytest.approx(max(up, 1 - up))
        share = (found["skip"][:, k] * total[:, k]).sum() / (total[:, k] ** 2).sum()
        assert at(tree, "layers/share", 0, layer=k, part="skip") == pytest.approx(share, rel=1e-5)
        rate = (found["q"] * found["delta"])[:, k]
        assert at(tree, "layers/predicted_growth", 0, layer=k) == pytest.approx(rate.mean(), rel=1e-5)
        # the lower median of an even number of tokens: between the two middle ones' neighbours
        t_c = np.sort(1 / (2 * np.abs(rate)).ravel())
        assert at(tree, "layers/t_c", 0, layer=k) == pytest.approx(t_c[len(t_c) // 2 - 1], rel=1e-5)


def test_every_number_lies_in_its_interval(tree: Any) -> None:
    for path in ("models", "layers", "depth", "tests", "layer_tests"):
        group = tree[path].to_dataset()
        for name in [str(n) for n in group.data_vars if f"{n}_low" in group.data_vars]:
            low, value, high = (group[n].values for n in (f"{name}_low", name, f"{name}_high"))
            there = np.isfinite(value) & np.isfinite(low)
            # percentile intervals of R^2 and of base rates, which are maxima, need not hold the estimate
            if not name.startswith(("fit_", "majority", "baseline")):
                assert (low[there] <= value[there] + 1e-12).all(), (path, name)
                assert (value[there] <= high[there] + 1e-12).all(), (path, name)
            assert (low[there] <= high[there]).all()


def test_models_of_two_sizes_and_families_stand_side_by_side(tree: Any) -> None:
    experiment.SCHEMA.validate(tree)
    assert tree["models/layers"].values.tolist() == [3, 2]
    assert np.isnan(tree["layers/chi"].values[1, 2])
    assert np.isfinite(tree["layers/chi"].values[1, :2]).all()
    # the split is exact in Mamba-2 with its norm, too; float32 signals leave 1e-6
    assert np.nanmax(tree["layers/split_residual"].values) < 1e-5
    names = tree["tests/kappa"].predictor.values.tolist()
    assert names == list(experiment.predictors(LAGS))
    p = tree["tests/p_count"].values
    assert np.isfinite(p[:, [names.index(n) for n in ("q", "kappa_1", "kappa_3")]]).all()
    assert np.isnan(p[:, names.index("q R")]).all()


def test_the_verdict_names_every_model_and_says_what_is_missing(tree: Any) -> None:
    words = " ".join(experiment.verdict(tree))
    for sha in tree["models/sha256"].values:
        assert str(sha)[:12] in words
    assert "kws10 was not measured" in words
    assert "evidence" in words


def test_a_block_that_is_not_there_is_named_in_the_plan(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSMTHEORY_DATA", raising=False)
    plan = experiment.plan(experiment.Config(models=(str(folders["small"]),), tokens=TOKENS, sequences=2, lags=(1,)))
    assert plan.describe["block"] == "kws10 is NOT measured: SSMTHEORY_DATA is not set"
    assert plan.resolved["block"] == "none"


@pytest.mark.shared
def test_the_trained_block(shared_data: Path) -> None:
    folder = shared_data / "models" / "mambalite_kws10"
    tree = experiment.run(experiment.Config(models=(), block=str(folder), lags=(1, 4, 16)))
    # beyond_tokens.md: skip, self, hist carry .73, .06, .21 of the variance of g over all 100 frames; here 80 of them
    share = tree["models/share"].values[0, :3]
    np.testing.assert_allclose(share, [0.73, 0.06, 0.21], atol=0.05)
    assert tree["models/sequences"].values.tolist() == [8]
    assert np.isnan(tree["layers/growth"].values).all()
    assert "hypothetical" in " ".join(experiment.verdict(tree))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"models": ()}, ConfigError, "no block"),
        ({"lags": (4, 1)}, ConfigError, "must rise"),
        ({"lags": (40,)}, ConfigError, "half of --tokens"),
        ({"sequences": 0}, ConfigError, "--sequences 0"),
        ({"block": "nowhere"}, InputError, "cannot be read"),
        ({"models": ("shakespeare-1m-step-0",) * 2}, ConfigError, "each model once"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        experiment.plan(experiment.Config(**{"block": "none", "tokens": 32, **options}))
