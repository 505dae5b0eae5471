"""Through training, what decides whether a token moves outwards?

(a) Share of tokens whose sign of g another S_B and S_C could change, by layer. (b) Shares of the variance of g: skip,
the token's own write, the carried state. 95 % bootstrap over sequences.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import concordance

NEEDS = {"tree": "concordance.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw the decidable share by layer and the parts of g by model."""
    return concordance.figure_training(tree, venue)
