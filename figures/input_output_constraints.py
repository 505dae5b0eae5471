"""Does a constraint on the sign of the input-output matrix help a language model?

(a) Held-out loss of seven parametrisations of M = S_C^T S_B against the free one, trained alike: a point per seed, the
mean with its 95 % bootstrap interval over seeds, filled where the exact sign-flip test holds after Holm's correction.
(b) Share of held-out tokens with q > 0 in every layer. (c) Whether sign q predicts outward motion, beyond chance.
(d) Growth of the residual stream's norm against the free one, tested alike.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import refinements

NEEDS = {"tree": "refinements.parametrisation"}


def draw(venue: str, tree: Any) -> Any:
    """Draw the tested difference beside the dynamics of the trained models."""
    return refinements.figure_parametrisation(tree, venue)
