"""Is HiPPO-rho, better than PTD in conditioning and deviation at once, better when trained? Paired differences.

Claim: not at this size: S4-PTD minus HiPPO-rho is -0.3 points [-2.5, +2.3] attacked and -0.2 [-0.4, -0.1] undisturbed.
S4D is 16 to 21 points below both and S4 under attack, and 8 to 14 where each network is attacked at its own worst
frequency. Status: measured, three paired seeds (no exact p can lie below 0.25), grey CIFAR-10 at 14 x 14.
(a) Undisturbed, (b) at the derived attack frequency with amplitude 1, (c) each layer at its own worst frequency: mean
and bootstrap 95 percent interval over seeds.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import robustness

NEEDS = {"tree": "robustness.laptop"}


def draw(venue: str, tree: Any) -> Any:
    """Draw one panel per outcome."""
    return robustness.figure_comparison(tree, venue)
