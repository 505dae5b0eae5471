"""Interventions against dense M in float64: changed layers evaluated by their definition, without the scan."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssmtheory import mamba
from ssmtheory.errors import ConfigError, InputError
from ssmtheory.experiments import interventions as experiment
from ssmtheory.mamba import MambaConfig, MambaLM
from ssmtheory.mamba.config import parameter_shapes

CONFIG = MambaConfig.mamba1(d_model=6, n_layer=3, vocab_size=256, d_state=2)
SECOND = MambaConfig.mamba2(d_model=8, n_layer=2, vocab_size=256, d_state=4, head_dim=4, n_groups=2)
TOKENS, SEQUENCES = 20, 3


def saved(path: Path, config: MambaConfig) -> Path:
    rng = np.random.default_rng(3)
    weights = {k: (0.5 * rng.standard_normal(s)).astype(np.float32) for k, s in parameter_shapes(config).items()}
    MambaLM(config, weights, name=path.name).save(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("models") / "small", CONFIG)


@pytest.fixture(scope="module")
def options(folder: Path) -> experiment.Config:
    return experiment.Config(model=str(folder), tokens=TOKENS, sequences=SEQUENCES, backend="numpy")


@pytest.fixture(scope="module")
def tree(options: experiment.Config) -> Any:
    return experiment.run(options)


def pair(weights: dict[str, np.ndarray], layer: int) -> tuple[np.ndarray, np.ndarray]:
    x = weights[f"backbone.layers.{layer}.mixer.x_proj.weight"]
    return x[CONFIG.dt_rank : CONFIG.dt_rank + 2], x[CONFIG.dt_rank + 2 :]


def parts(M: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positive and negative part of the symmetric part, and the antisymmetric part, from D x D matrices."""
    values, vectors = np.linalg.eigh((M + M.T) / 2)
    plus = (vectors * np.maximum(values, 0)) @ vectors.T
    return plus, (vectors * np.maximum(-values, 0)) @ vectors.T, (M - M.T) / 2


# what M must become, by dense matrices
DENSE = {
    "positive": lambda M: parts(M)[0],
    "negative": lambda M: -parts(M)[1],
    "positive, antisymmetric kept": lambda M: parts(M)[0] + parts(M)[2],
    "symmetric": lambda M: (M + M.T) / 2,
    "antisymmetric": lambda M: (M - M.T) / 2,
    "flipped": lambda M: -M,
}


def loss_of_dense(model: MambaLM, ids: np.ndarray, how: Any) -> float:
    """Bits per byte of one sequence; `how(layer, u_t, u_j, tau, A) -> (D,)` is C_t exp(A tau) B_j of every channel.

    No scan, no state: y_t = D u_t + sum_j how(...) Delta_j u_j, from attention-like sums.
    """
    w, c = {k: np.asarray(v, np.float64) for k, v in model.weights.items()}, model.config
    r = w["backbone.embedding.weight"][ids]
    for layer in range(c.n_layer):
        p = f"backbone.layers.{layer}."
        hidden = r / np.sqrt((r**2).mean(axis=1, keepdims=True) + c.norm_eps) * w[p + "norm.weight"]
        p += "mixer."
        x, z = np.split(hidden @ w[p + "in_proj.weight"].T, 2, axis=1)
        padded = np.concatenate([np.zeros((c.d_conv - 1, c.d_inner)), x])
        taps = w[p + "conv1d.weight"][:, 0]
        u = np.stack([(padded[t : t + c.d_conv] * taps.T).sum(axis=0) for t in range(len(x))]) + w[p + "conv1d.bias"]
        u = u / (1 + np.exp(-u))
        low = u @ w[p + "x_proj.weight"][: c.dt_rank].T
        delta = np.logaddexp(0.0, low @ w[p + "dt_proj.weight"].T + w[p + "dt_proj.bias"])
        A = -np.exp(w[p + "A_log"])
        y = w[p + "D"] * u
        for t in range(len(u)):
            for j in range(t + 1):
                y[t] += how(layer, u[t], u[j], delta[j + 1 : t + 1].sum(axis=0), A, t, j) * delta[j] * u[j]
        r = r + (y * z / (1 + np.exp(-z))) @ w[p + "out_proj.weight"].T
    r = r / np.sqrt((r**2).mean(axis=1, keepdims=True) + c.norm_eps) * w["backbone.norm_f.weight"]
    logits = (r @ w["backbone.embedding.weight"].T)[:-1]
    largest = logits.max(axis=1)
    log_sum = largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))
    return float((log_sum - logits[np.arange(len(logits)), ids[1:]]).mean() / np.log(2))


@pytest.mark.parametrize("kind", DENSE)
def test_the_changed_M_is_the_dense_one(folder: Path, kind: str) -> None:
    model = mamba.load(folder, dtype="float64", backend="numpy", check=False)
    for layer in range(CONFIG.n_layer):
        weights = {k: np.asarray(v) for k, v in model.weights.items()}
        S_B, S_C = pair(weights, layer)
        prefix = f"backbone.layers.{layer}.mixer."
        found = experiment.change(kind, CONFIG, lambda n, p=prefix, w=weights: w.get(p + n), np.random.default_rng(0))
        rows = found.weights["x_proj.weight"][CONFIG.dt_rank :]
        M = S_C.T @ S_B
        wanted = DENSE[kind](M)
        # exact up to rounding
        np.testing.assert_allclose(rows[found.states :].T @ rows[: found.states], wanted, atol=1e-13)
        np.testing.assert_array_equal(
            found.weights["x_proj.weight"][: CONFIG.dt_rank], weights[prefix + "x_proj.weight"][: CONFIG.dt_rank]
        )
        assert found.distance == pytest.approx(np.linalg.norm(wanted - M) / np.linalg.norm(M))
        np.testing.assert_array_equal(found.weights["A_log"][:, :2], weights[prefix + "A_log"])


def test_the_loss_of_all_layers_by_dense_kernels(tree: Any, options: experiment.Config, folder: Path) -> None:
    """Interventions whose kernel at every lag follows from the old one: no factorisation is used here."""
    model = mamba.load(folder, dtype="float64", backend="numpy", check=False)
    weights = {k: np.asarray(v) for k, v in model.weights.items()}
    ids = experiment.plan(options).context.ids[1]

    def kernel(layer: int, u: np.ndarray, v: np.ndarray, tau: np.ndarray, A: np.ndarray) -> np.ndarray:
        S_B, S_C = pair(weights, layer)
        return np.exp(tau[:, None] * A) @ ((S_C @ u) * (S_B @ v))

    hows = {
        "symmetric": lambda k, u, v, tau, A, t, j: (kernel(k, u, v, tau, A) + kernel(k, v, u, tau, A)) / 2,
        "antisymmetric": lambda k, u, v, tau, A, t, j: (kernel(k, u, v, tau, A) - kernel(k, v, u, tau, A)) / 2,
        "flipped": lambda k, u, v, tau, A, t, j: -kernel(k, u, v, tau, A),
        "Delta x 2": lambda k, u, v, tau, A, t, j: 2 * kernel(k, u, v, 2 * tau, A),
        "decay x 4": lambda k, u, v, tau, A, t, j: kernel(k, u, v, 4 * tau, A),
        "reset 4": lambda k, u, v, tau, A, t, j: kernel(k, u, v, tau, A) * (j >= 4 * (t // 4)),
        "reset 1": lambda k, u, v, tau, A, t, j: kernel(k, u, v, tau, A) * (j == t),
        "skip only": lambda k, u, v, tau, A, t, j: np.zeros(len(A)),
    }
    base = loss_of_dense(model, ids, lambda k, u, v, tau, A, t, j: kernel(k, u, v, tau, A))
    assert float(tree["text/bits_per_byte"][1]) == pytest.approx(base, abs=1e-11)
    found = tree["all/change_by_sequence"].sel(sequence=1)
    for kind, how in hows.items():
        assert float(found.sel(intervention=kind)) == pytest.approx(loss_of_dense(model, ids, how) - base, abs=1e-10), (
            kind
        )


def test_one_layer_is_changed_and_no_other(tree: Any, options: experiment.Config, folder: Path) -> None:
    model = mamba.load(folder, dtype="float64", backend="numpy", check=False)
    ids = experiment.plan(options).context.ids
    for layer in range(CONFIG.n_layer):
        name = f"backbone.layers.{layer}.mixer.out_proj.weight"
        off = MambaLM(CONFIG, {**model.weights, name: 0 * model.weights[name]}, backend="numpy")
        for sequence, row in enumerate(ids):
            losses = []
            for each in (model, off):
                logits = each(row[None])[0, :-1]
                p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
                losses.append(-np.log2(p[np.arange(TOKENS - 1), row[1:]]).mean())
            found = tree["layers/change_by_sequence"].sel(intervention="mixer off", layer=layer, sequence=sequence)
            assert float(found) == pytest.approx(losses[1] - losses[0], abs=1e-10)


def test_noise_goes_exactly_as_far_and_stays_in_range(tree: Any, folder: Path) -> None:
    distance = tree["layers/distance"]
    for kind, control in experiment.CONTROLS:
        np.testing.assert_allclose(distance.sel(intervention=control), distance.sel(intervention=kind), rtol=1e-9)
    weights = {
        k: np.asarray(v) for k, v in mamba.load(folder, dtype="float64", backend="numpy", check=False).weights.items()
    }
    S_B, S_C = pair(weights, 0)
    basis = np.linalg.qr(np.concatenate([S_B, S_C]).T)[0]
    for control, inside in (("noise as positive", False), ("noise in range as positive", True)):
        rng = np.random.default_rng(0)
        found = experiment.change(control, CONFIG, lambda n: weights.get("backbone.layers.0.mixer." + n), rng)
        rows = found.weights["x_proj.weight"][CONFIG.dt_rank :]
        assert np.allclose(rows @ basis @ basis.T, rows, atol=1e-12) is inside


def test_the_factors_are_the_nearest_by_rotations() -> None:
    rng = np.random.default_rng(5)
    S_B, S_C = rng.standard_normal((2, 3, 9))
    for factor, target in zip(experiment.symmetric_factors(S_B, S_C), (S_B + S_C, S_B - S_C), strict=True):
        best = np.linalg.norm(factor - target / 2)
        for _ in range(200):
            rotation = np.linalg.qr(np.eye(3) + 0.3 * rng.standard_normal((3, 3)))[0]
            assert np.linalg.norm(rotation @ factor - target / 2) >= best - 1e-12


def test_mamba2_has_what_does_not_need_M(tmp_path: Path) -> None:
    path = saved(tmp_path / "second", SECOND)
    config = experiment.Config(model=str(path), tokens=16, sequences=2, backend="numpy")
    plan = experiment.plan(config)
    assert not set(plan.context.kinds) & set(experiment.OF_M)
    assert "not for mamba2" in plan.describe["left out"]
    tree = experiment.run(config)
    # without C, the norm's factor aside, nothing of the past is left: resets no longer matter
    model = plan.context.model
    changed = experiment.change(
        "skip only", SECOND, lambda n: model.weights.get("backbone.layers.0.mixer." + n), np.random.default_rng(0)
    )
    assert set(changed.weights) == {"conv1d.weight", "conv1d.bias"}
    assert np.isfinite(tree["all/change"].values).all()
    with pytest.raises(InputError, match="needs B and C linear in u"):
        experiment.plan(experiment.Config(model=str(path), interventions=("positive",)))


def test_the_schema_the_verdict_and_the_intervals(tree: Any) -> None:
    experiment.SCHEMA.validate(tree)
    words = " ".join(experiment.verdict(tree))
    assert tree.attrs["model_sha256"][:12] in words
    assert "noise of this size" in words
    for group, name in (
        ("layers", "change"),
        ("all", "change"),
        ("all", "mean_change"),
        ("controls", "all_difference"),
    ):
        low, value, high = (tree[f"{group}/{name}{end}"].values for end in ("_low", "", "_high"))
        assert (low <= value + 1e-12).all()
        assert (value <= high + 1e-12).all()
    states = dict(zip(tree["all"]["intervention"].values, tree["all/states"].values, strict=True))
    assert (states["symmetric"], states["positive"]) == (4, 2)
    assert math.isnan(float(tree["layers/distance"].sel(intervention="reset 4", layer=0)))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"interventions": ("positve",)}, InputError, "Did you mean 'positive'"),
        ({"sequences": 1}, ConfigError, "--sequences 1"),
        ({"backend": "torch"}, ConfigError, "auto, numpy or c"),
    ],
)
def test_wrong_options(folder: Path, options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        experiment.plan(experiment.Config(**{"model": str(folder), "tokens": TOKENS, **options}))
