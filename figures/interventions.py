"""What does it cost a trained model to be made as the theory would have it?

Change of the loss on held-out text when a layer's input-output matrix, its steps, its memory or its parts are changed
(ssmtheory.experiments.interventions): (a) in all layers at once, and the mean over single layers, with 95 % bootstrap
intervals over sequences; (b) layer by layer.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import interventions

NEEDS = {"tree": "interventions.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw the cost of every intervention and its map over layers."""
    return interventions.figure_overview(tree, venue)
