"""Is HiPPO-rho, better than PTD in conditioning and deviation at once, better when trained? Paired differences.

Claim: undisturbed, yes, by 0.6 points [0.4, 0.9] over S4-PTD (Holm 0.012), 0.9 over S4D and 0.8 over S4; under attack
no difference to S4-PTD is shown: +0.5 points [-0.5, +1.4] for S4-PTD. S4D is 15 to 18 points below the three under
attack, and 6 to 11 where each layer is attacked at its own worst frequency. S4 keeps 2.5 to 3.0 points more than PTD
and HiPPO-rho (Holm 0.04). Status: measured, ten paired seeds, 2,000 images of grey CIFAR-10 at 14 x 14.
(a) Undisturbed, (b) at the derived attack frequency with amplitude 1, (c) each layer at its own worst frequency: mean
and bootstrap 95 percent interval over seeds.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import robustness

NEEDS = {"tree": "robustness.decision"}


def draw(venue: str, tree: Any) -> Any:
    """Draw one panel per outcome."""
    return robustness.figure_comparison(tree, venue)
