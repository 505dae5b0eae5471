"""Weak against strong: in which norms S4D tends to LegS, and in which it does not.

Claim: N |y - y_LegS| tends to |dy/dt| for smooth inputs and grows with N for an impulse (arXiv 2310.01698, Thm 1 and 2,
with our constant); the gap stays in H-infinity (2/pi) and in L2 (1/2 in the limit), and vanishes on bounded bands.
Status: proved (limit, L2 formula), certified (H-infinity), measured (band-limited suprema).
(a) Inputs, output 0; thin lines are the limits. (b) Norms. (c) Bands. (d) L2 distance of the kernels.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import transfer_convergence

NEEDS = {"tree": "transfer_convergence.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw inputs and norms above bands and kernels."""
    return transfer_convergence.figure_weak_strong(tree, venue)
