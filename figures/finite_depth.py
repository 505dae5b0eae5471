"""How fast do norms change through depth, and is there depth enough for the asymptotic laws?

(a) Growth of ln |r| in every layer, and the rate of the depth equation (dotted). (b) The depth on which that equation
acts, against the layers there are. (c) Norms through depth with the convergent law t^(-1/2).
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import concordance

NEEDS = {"tree": "concordance.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw growth, critical depth and norms of the models with depth."""
    return concordance.figure_depth(tree, venue)
