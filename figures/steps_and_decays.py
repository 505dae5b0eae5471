"""F7. Distributions of the step Delta and of the decay exp(Delta A), layer by layer.

(a) Delta over tokens and channels, as share per octave. (b) exp(Delta A) over tokens, channels and states; 1 keeps the
state, 0 forgets it.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import panels, token_dynamics

NEEDS = {"tree": "token_dynamics.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw the two distributions side by side."""
    chosen = (token_dynamics.draw_delta_histogram, token_dynamics.draw_decay_histogram)
    return panels.page(venue, 1.98, chosen, tree)
