"""F6. Norms of tokens through depth, and the radial rate of every layer.

(a) |r| of the residual stream: median, 50 % and 90 % of all tokens, logarithmic. (b) The radial rate
g = <r, dr>/|r|^2 of each layer's update. (c) The exact parts of g: skip, own write, carried state. (d) The angle by
which a layer turns a token.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import style, token_dynamics

NEEDS = {"tree": "token_dynamics.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw norms and rates above their parts and the turning."""
    panels = (
        token_dynamics.draw_norms,
        token_dynamics.draw_radial_rate,
        token_dynamics.draw_radial_split,
        token_dynamics.draw_angular_speed,
    )
    with style.style(venue) as page:
        figure = style.new_figure(venue, height=0.7 * page.full)
        token_dynamics.arrange(figure, tree, panels)
    return figure
