"""Pre-norm flow of several tokens: later tokens turn to the first one by a power of depth.

Claim: with an identity value path, a constant step and one decay, sin of the angle of token 2 to token 1 falls as
t^-beta, beta = k/(1 + k) with k = e^{-a Delta}, where the first token grows; the later ones come to the same rate
slowly, most from below. Status: proved (beta), measured (the curves: finite t).
(a) Random systems, and the slope. (b) Exponents over the last three decades, as distributions over systems.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import token_ode

NEEDS = {"tree": "token_ode.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw attraction and rates."""
    return token_ode.figure_sphere(tree, venue)
