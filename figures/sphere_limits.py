"""Are the directions that tokens end in limit directions, F(u) parallel to u?

Claim: not at the model's depth: most of every layer's update is tangential. The last layer applied again and again does
what the theory of weight-tied depth says: |P_u F|/|F| falls as a power of the norm, and tokens gather, far from where
the model left them. Status: measured (held-out text, one architecture; bands: 95 % over texts).
(a) |P_u F|/|F| by layer; dashed: a random direction's. (b) Share of the update that texts have in common. (c) The last
layer repeated 256 times. (d) The same, last model: cosines.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import sphere

NEEDS = {"tree": "sphere.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw residuals, common shares and the repeated layer."""
    return sphere.figure_limits(tree, venue)
