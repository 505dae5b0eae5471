"""Checks on trained models: what predicts their tokens, what decides, and what changes of their layers cost.

Every finding is about one model, whose sha256 the claim gives: another one makes the check fail. Its interval is a 95 %
bootstrap over sequences of held-out text.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ssmtheory.experiments import concordance, interventions
from ssmtheory.repro.finding import Finding

__all__ = ["layer_number", "model_number", "predictor_kappa", "replaced_everywhere", "replaced_less_noise"]


@functools.cache
def _signs(model: str, tokens: int, sequences: int) -> Any:
    return concordance.run(
        concordance.Config(models=(model,), block="none", tokens=tokens, sequences=sequences, lags=(1,))
    )


@functools.cache
def _changed(model: str, kinds: tuple[str, ...], tokens: int, sequences: int) -> Any:
    return interventions.run(interventions.Config(model=model, interventions=kinds, tokens=tokens, sequences=sequences))


def _finding(numbers: Any, name: str, model: str, sha256: str, wanted: str, holds: bool = True) -> Finding:
    value, low, high = (float(numbers[n]) for n in (name, f"{name}_low", f"{name}_high"))
    return Finding(
        value=value,
        lower=low,
        upper=high,
        holds=holds and sha256 == wanted,
        detail=f"{model}, sha256 {sha256}: {value:.4f}, 95 % interval [{low:.4f}, {high:.4f}]",
    )


def predictor_kappa(model: str, sha256: str, predictor: str, evidence: bool, tokens: int, sequences: int) -> Finding:
    """Agreement of a predictor's sign with that of g beyond chance, and whether that is evidence, as claimed."""
    tree = _signs(model, tokens, sequences)
    at = tree["tests"].to_dataset().isel(model=0).sel(predictor=predictor)
    return _finding(at, "kappa", model, str(tree["models/sha256"].values[0]), sha256, bool(at["evidence"]) is evidence)


def model_number(model: str, sha256: str, group: str, variable: str, tokens: int, sequences: int) -> Finding:
    """A number of the whole model, such as the slope of its norms against depth."""
    tree = _signs(model, tokens, sequences)
    numbers = tree[group].to_dataset().isel(model=0)
    return _finding(numbers, variable, model, str(tree["models/sha256"].values[0]), sha256)


def layer_number(model: str, sha256: str, variable: str, largest: bool, tokens: int, sequences: int) -> Finding:
    """A number of the layer in which it is largest, or smallest."""
    tree = _signs(model, tokens, sequences)
    numbers = tree["layers"].to_dataset().isel(model=0)
    values = numbers[variable].values
    layer = int(np.argmax(values) if largest else np.argmin(values))
    return _finding(numbers.isel(layer=layer), variable, model, str(tree["models/sha256"].values[0]), sha256)


def replaced_everywhere(model: str, sha256: str, kind: str, tokens: int, sequences: int) -> Finding:
    """Change of the loss [bit/byte] with one intervention in all layers."""
    tree = _changed(model, (kind,), tokens, sequences)
    return _finding(tree["all"].to_dataset().isel(intervention=0), "change", model, tree.attrs["model_sha256"], sha256)


def replaced_less_noise(model: str, sha256: str, kind: str, noise: str, tokens: int, sequences: int) -> Finding:
    """The same, less that of noise which takes M equally far; holds where the interval is above zero."""
    tree = _changed(model, (kind, noise), tokens, sequences)
    at = tree["controls"].to_dataset().isel(pair=0)
    above = float(at["all_difference_low"]) > 0
    return _finding(at, "all_difference", model, tree.attrs["model_sha256"], sha256, above)
