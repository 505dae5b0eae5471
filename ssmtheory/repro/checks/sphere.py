"""Checks on the directions of a trained model's tokens: what of the theory of the sphere they follow."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.experiments import sphere as experiment
from ssmtheory.repro.finding import Finding

__all__ = ["clustering_excess", "repeated_layer_exponent"]


def _measured(model: str, sha256: str, sequences: int, tokens: int, repetitions: int = 8) -> Any:
    """The experiment's dataset of one embedded model.

    Raises:
        InputError: the weights are not those of the claim.
    """
    tree = experiment.run(
        experiment.Config(models=(model,), sequences=sequences, tokens=tokens, repetitions=repetitions)
    )
    found = str(np.asarray(tree["models/sha256"].values)[0])
    if found != sha256:
        raise InputError(f"{model} has sha256 {found}; the claim is about {sha256}")
    return tree


def _finding(tree: Any, group: str, name: str, at: dict[str, int], words: str) -> Finding:
    value, low, high = (float(tree[f"{group}/{name}{end}"].isel(at).values) for end in ("", "_low", "_high"))
    sha256 = str(np.asarray(tree["models/sha256"].values)[0])
    return Finding(value, low, high, detail=f"{words} {value:.4f} [{low:.4f}, {high:.4f}], model {sha256[:12]}")


def clustering_excess(model: str, sha256: str, sequences: int, tokens: int) -> Finding:
    """Mean cosine of tokens of one text less that of different texts, after the last layer."""
    tree = _measured(model, sha256, sequences, tokens)
    depth = int(np.asarray(tree["models/layers"].values)[0])
    return _finding(tree, "depth", "cosine_excess", {"model": 0, "depth": depth}, "cosine within less between texts:")


def repeated_layer_exponent(model: str, sha256: str, sequences: int, tokens: int, repetitions: int) -> Finding:
    """x in |P_u F|/|F| ~ |r|^-x where the last layer is applied again and again."""
    tree = _measured(model, sha256, sequences, tokens, repetitions)
    return _finding(tree, "models", "tied_exponent", {"model": 0}, "exponent of the repeated last layer:")
