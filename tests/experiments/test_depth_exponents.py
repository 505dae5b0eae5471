"""Finite-depth exponents of a small model against the singular values of a Jacobian by central differences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssmtheory.errors import ConfigError, InputError
from ssmtheory.experiments import depth_exponents as experiment
from ssmtheory.mamba import MambaLM
from ssmtheory.mamba.config import MambaConfig, parameter_shapes
from ssmtheory.mamba.forward import forward

CONFIG = MambaConfig.mamba1(d_model=5, n_layer=3, vocab_size=256, d_state=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(2)
    weights = {k: (0.4 * rng.standard_normal(s)).astype(np.float32) for k, s in parameter_shapes(CONFIG).items()}
    path = tmp_path_factory.mktemp("models") / "small"
    MambaLM(CONFIG, weights, name="small", sha256="0" * 64).save(path)
    return path


@pytest.fixture(scope="module")
def tree(folder: Path) -> Any:
    return experiment.run(experiment.Config(models=(str(folder),), tokens=16, sequences=2, frame=80))


def final(weights: dict[str, np.ndarray], residual: np.ndarray) -> np.ndarray:
    """The residual stream after the last layer (token, width), given the one before the first."""
    seen: list[np.ndarray] = []
    tokens = np.arange(len(residual))[None]
    moved = {**weights, "backbone.embedding.weight": residual}
    forward(moved, CONFIG, tokens, tap=lambda _, s: seen.append(s.residual + s.update), logits="none")
    return seen[-1][0]


def test_exponents_are_those_of_the_jacobian(folder: Path, tree: Any) -> None:
    from ssmtheory import mamba
    from ssmtheory.data import text

    model = mamba.load(str(folder), dtype="float64", backend="numpy")
    weights = {k: np.asarray(v) for k, v in model.weights.items()}
    start = 0  # of the first sequence
    ids = np.frombuffer(text.split("tinyshakespeare").heldout, dtype=np.uint8)[start : start + 16]
    x = weights["backbone.embedding.weight"][ids]
    step, width = 1e-6, 5
    columns = []
    for i in range(x.size):
        unit = np.zeros(x.size)
        unit[i] = step
        up, down = (final(weights, x + sign * unit.reshape(x.shape)) for sign in (1, -1))
        columns.append(((up - down) / (2 * step)).ravel())
    J = np.stack(columns, axis=1)
    frames = {"last": J[:, -width:], "first": J[:, :width], "whole": J}
    for where, part in frames.items():
        sigma = np.linalg.svd(part, compute_uv=False)
        found = tree[f"{where}/exponent"].values[0, 0]
        # central differences leave 1e-9 of the largest singular value
        np.testing.assert_allclose(np.exp(3 * found), sigma, atol=1e-7 * sigma[0])
    energy = frames["first"] ** 2
    assert tree["first/spread"].values[0, 0, -1] == pytest.approx(energy[width:].sum() / energy.sum(), rel=1e-6)
    norm = np.log(np.linalg.norm(final(weights, x)[-1]) / np.linalg.norm(x[-1])) / 3
    assert tree["last/norm_rate"].values[0, 0] == pytest.approx(norm, rel=1e-9)


def test_the_volume_is_the_product_of_the_singular_values(tree: Any) -> None:
    for where in ("last", "first", "whole"):
        volume = tree[f"{where}/volume_rate"].values.sum(axis=2)
        np.testing.assert_allclose(volume, 3 * tree[f"{where}/exponent"].values.mean(axis=2), atol=1e-9)


def test_the_schema_holds_and_the_verdict_names_the_model(tree: Any) -> None:
    experiment.SCHEMA.validate(tree)
    words = " ".join(experiment.verdict(tree))
    assert str(tree["models/sha256"].values[0])[:12] in words
    assert "not limits" in words


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"models": ()}, ConfigError, "name at least one"),
        ({"frame": 0}, ConfigError, "between 1 and"),
        ({"models": ("shakespeare-1m-step-0", "shakespeare-1m-step-0")}, ConfigError, "each model once"),
        ({"tokens": 1}, ConfigError, "tokens"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        experiment.plan(experiment.Config(**options))


def test_models_of_two_sizes_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="different"):
        experiment.plan(experiment.Config(models=(str(folder), "shakespeare-1m-step-0")))
