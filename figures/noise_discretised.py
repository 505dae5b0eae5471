"""What discretisation makes of S4D's spikes: damped, moved, amplified, aliased.

Claim: zero-order hold damps the spikes above pi over the step (largest gain 37.9, 6.1, 1.6 at steps 0.001, 0.01, 0.1),
Tustin's rule keeps their height and moves them, and the bilinear rule of S4's code, which does not scale the input as
Tustin's does, raises them (to 2,600 at 0.1): the frequency to attack depends on the rule. Status: measured.
(a-c) Gain over unit readouts, N = 64; dashed: where the layer hears the attack, thin: pi over the step. (d) Largest
gain (filled) and gain at the attack (hollow) against the step.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import robustness

NEEDS = {"tree": "robustness.laptop"}


def draw(venue: str, tree: Any) -> Any:
    """Draw a panel per step, and the largest gains."""
    return robustness.figure_discretised(tree, venue)
