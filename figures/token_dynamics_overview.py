"""Token dynamics of one model on one page.

Loss, norms, radial rate and its parts, the theory's prediction against what tokens did, steps, decays, memory and
clustering: what `python -m ssmtheory.experiments.token_dynamics` measures, in twelve panels.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import token_dynamics

NEEDS = {"tree": "token_dynamics.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw the page."""
    return token_dynamics.figure_overview(tree, venue)
