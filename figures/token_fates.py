"""Fates of a token over its start (arXiv 2410.03292 states a dichotomy).

Claim: in one dimension the signs of mu and of S_Delta x0 decide; in the plane with an indefinite M the sign of q(x0)
and the steps do: tokens go to the origin, to a point of the null cone (dashed), or diverge. Status: measured, by growth
per decade of t and Delta at t = 1e8, never by a value at a finite time; one dimension is proved.
(a) Over mu and x0, S_Delta = 1. (b) Over angle and size, one positive eigenvalue, S_Delta = diag(-1, 1).
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import token_ode

NEEDS = {"tree": "token_ode.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw both maps."""
    return token_ode.figure_fates(tree, venue)
