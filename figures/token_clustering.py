"""Do tokens cluster through depth, and around the first token?

(a) Mean cosine of a sequence's tokens to each other, to their own first token, and to the first token of other
sequences, which is the control. (b) Own less other anchor for the first and later tokens: an excess of the first token
alone would be attraction to it. (c-e) Cosines of one sequence's tokens at three depths.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import token_dynamics

NEEDS = {"tree": "token_dynamics.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw the means with their control above three cosine matrices."""
    return token_dynamics.figure_clustering(tree, venue)
