"""Checks on the two refinements of arXiv 2410.03292: what a parameter reaches, and what a reordered token sees."""

from __future__ import annotations

import numpy as np

from ssmtheory.mamba import parametrisation, reordering
from ssmtheory.mamba.config import MambaConfig
from ssmtheory.mamba.initialize import initial_weights
from ssmtheory.repro.finding import Finding

__all__ = ["live_parameters", "reordering_leak"]


def live_parameters(name: str, width: int, states: int) -> Finding:
    """How many raw numbers of a parametrisation change S_B or S_C when they change: one by one."""
    rng = np.random.default_rng(0)
    raw = parametrisation.raw_parameters(name, rng.standard_normal((2 * states, width)), states)
    raw = {key: rng.standard_normal(value.shape) for key, value in raw.items()}
    before = [np.array(made) for made in parametrisation.input_output(name, raw)]
    live = stored = 0
    for value in raw.values():
        for at in np.ndindex(value.shape):
            kept, value[at] = value[at], value[at] + 1.0
            after = parametrisation.input_output(name, raw)
            # far above rounding, far below what a unit change does
            live += any(np.abs(a - b).max() > 1e-9 for a, b in zip(after, before, strict=True))
            value[at] = kept
            stored += 1
    return Finding(value=float(live), detail=f"{live} of {stored} raw numbers reach S_B or S_C")


def reordering_leak(method: str, position: int, length: int = 12) -> Finding:
    """|d y_0/d x_position| of a freshly drawn mixer that reorders its tokens, by central differences in float64."""
    sizes = MambaConfig.mamba1(d_model=8, n_layer=1, vocab_size=2, d_state=4)
    prefix = "backbone.layers.0.mixer."
    drawn = initial_weights(sizes).items()
    weights = {name.removeprefix(prefix): value.astype(np.float64) for name, value in drawn if name.startswith(prefix)}
    rng = np.random.default_rng(0)
    weights["order.weight"] = rng.standard_normal(sizes.d_inner)
    x = rng.standard_normal((1, length, sizes.d_model))
    step, columns = 1e-5, []
    for feature in range(sizes.d_model):
        moved = np.zeros_like(x)
        moved[0, position, feature] = step
        ends = [
            reordering.reordered_mixer(x + sign * moved, weights.get, sizes, method, backend="numpy")[0, 0]
            for sign in (1, -1)
        ]
        columns.append((ends[0] - ends[1]) / (2 * step))
    return Finding(value=float(np.linalg.norm(columns)), detail=f"first of {length} tokens, input {position}, {method}")
