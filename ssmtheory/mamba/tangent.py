"""Tangents of a model's layers: where a change of the residual stream goes, exactly, in forward mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ssmtheory.errors import require
from ssmtheory.mamba.forward import layer_map
from ssmtheory.mamba.model import MambaLM

__all__ = ["layer_tangents"]


def layer_tangents(model: MambaLM) -> list[Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]]:
    """One function per layer: residual stream and tangents to what the layer makes of both.

    Each runs in float64 on JAX, whatever the model's backend: the scan is differentiated as it is, the gate, the
    convolution, the norm and the residual connection included.

    Args:
        model: a Mamba-1, Mamba-2 or Falcon-Mamba model.

    Returns:
        Functions of x (length, d_model) and V (count, length, d_model) that return r^{k+1} = x + update (length,
        d_model) and J_k V (count, length, d_model), float64.

    Raises:
        MissingDependencyError: JAX is not installed.
    """
    jax = require("jax", "jax")
    weights = {name: np.asarray(value, np.float64) for name, value in model.to(backend="numpy").weights.items()}

    def program(arrays: Any, x: Any, V: Any) -> Any:
        y, push = jax.linearize(lambda r: layer_map(arrays, model.config, 0, r[None])[0], x)
        return y, jax.vmap(push)(V)

    compiled = jax.jit(program)

    def tangent(layer: int) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        prefix = f"backbone.layers.{layer}."
        # all under the name of layer 0, so that one compiled program serves them all
        mine = {
            name.replace(prefix, "backbone.layers.0."): value
            for name, value in weights.items()
            if name.startswith(prefix)
        }

        def run(x: np.ndarray, V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            with jax.enable_x64(True):
                y, moved = compiled(mine, np.asarray(x, np.float64), np.asarray(V, np.float64))
                return np.asarray(y), np.asarray(moved)

        return run

    return [tangent(layer) for layer in range(model.n_layer)]
