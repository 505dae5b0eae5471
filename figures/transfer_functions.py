"""Transfer functions of S4D-LegS and LegS, and the last spike magnified (arXiv 2310.01698, Fig. 1).

Claim: S4D has spikes of a height that does not fall with N, the last at N^2/pi - pi/6 with half-width 1/2; for output 0
the height is 2/pi. Status: proved (position and height), certified (the supremum); the curves are closed forms.
(a) |G| of output 0 for several N. (b) The last spike against the distance from its place: the curves coincide.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import transfer_convergence

NEEDS = {"tree": "transfer_convergence.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw the transfer functions beside the last spike."""
    return transfer_convergence.figure_response(tree, venue)
