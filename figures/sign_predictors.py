"""Does any sign of the theory predict whether tokens move outwards, through training and in another trained block?

(a) Agreement with the sign of the radial rate g beyond chance, layers pooled: the input-output form q, the kernel at
three lags, the linear value path q R; below them terms of g itself. Bars: 95 % bootstrap over sequences; grey:
permuted sequences; filled: above both the base rate and the permuted. (b) Sign q beside the layers' base rate.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import concordance

NEEDS = {"tree": "concordance.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw all predictors of all models beside the base rates."""
    return concordance.figure_predictors(tree, venue)
