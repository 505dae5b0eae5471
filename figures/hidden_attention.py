"""F4. Hidden attention of a selective state-space model: size, and agreement of signs over channels.

Unrolled, a layer's scan is y_di = sum_j P_dij u_dj (arXiv 2403.01590). The upper row shows the mean of |P_dij| over
channels d for the first tokens of the first sequence, on one logarithmic scale for all layers; the lower row shows
mean(P)/mean(|P|): +1 where all channels add, 0 where they cancel, so that a map of the mean alone would mislead.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import token_dynamics

NEEDS = {"tree": "token_dynamics.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw four layers, evenly spaced from the first to the last."""
    return token_dynamics.figure_attention(tree, venue)
