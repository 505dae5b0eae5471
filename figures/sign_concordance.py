"""Does the sign of q, or of any part of the radial rate, predict whether a token moves outwards?

(a) Agreement beyond chance, layers pooled (kappa), for seven predictors, with the 95 % bootstrap interval over
sequences and the interval of permuted sequences. Three of the predictors are parts of g itself. (b) Agreement of
sign q by layer beside the base rate of the layer's majority sign. Filled points lie above both: evidence.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import token_dynamics

NEEDS = {"tree": "token_dynamics.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw the pooled test beside the test of q in every layer."""
    return token_dynamics.figure_concordance(tree, venue)
