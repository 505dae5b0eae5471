"""The spectrum of S4D-LegS and the laws proposed for it (arXiv 2206.11893, the conjecture on the spectrum).

Claim: the imaginary parts solve sum arctan((k + 1/2)/y) = (2m+1) pi/2 exactly, which settles the conjecture; S4D-Inv is
right at the top only, and the bulk law everywhere. Status: proved (exact law), measured (distances).
(a) Imaginary parts. (b) Relative distance of each law.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import transfer_convergence

NEEDS = {"tree": "transfer_convergence.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw the spectrum beside the laws' distances."""
    return transfer_convergence.figure_spectrum(tree, venue)
