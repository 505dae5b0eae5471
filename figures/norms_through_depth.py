"""F6. Norms of tokens through depth, and the radial rate of every layer.

(a) |r| of the residual stream: median, 50 % and 90 % of all tokens, logarithmic. (b) The radial rate
g = <r, dr>/|r|^2 of each layer's update. (c) The exact parts of g: skip, own write, carried state. (d) The angle by
which a layer turns a token.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import panels, token_dynamics

NEEDS = {"tree": "token_dynamics.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw norms and rates above their parts and the turning."""
    chosen = (
        token_dynamics.draw_norms,
        token_dynamics.draw_radial_rate,
        token_dynamics.draw_radial_split,
        token_dynamics.draw_angular_speed,
    )
    return panels.page(venue, 3.85, chosen, tree)
