"""Finite-depth Lyapunov exponents: how depth stretches small changes of the residual stream.

(a) ln(singular value)/layers of the Jacobian of the last token's residual stream through all layers, trained and
before training; the dotted lines are the growth of the token's norm. (b) Growth of volume by layer. (c) How much of a
change at the first token ends up at later tokens. Bands: range over sequences.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import depth_exponents

NEEDS = {"tree": "depth_exponents.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw spectrum, volume and spread side by side."""
    return depth_exponents.figure_overview(tree, venue)
