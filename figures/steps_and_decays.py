"""F7. Distributions of the step Delta and of the decay exp(Delta A), layer by layer.

(a) Delta over tokens and channels, as share per octave. (b) exp(Delta A) over tokens, channels and states; 1 keeps the
state, 0 forgets it.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import style, token_dynamics

NEEDS = {"tree": "token_dynamics.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw the two distributions side by side."""
    panels = (token_dynamics.draw_delta_histogram, token_dynamics.draw_decay_histogram)
    with style.style(venue) as page:
        figure = style.new_figure(venue, height=0.36 * page.full)
        token_dynamics.arrange(figure, tree, panels)
    return figure
