"""What the transfer functions of trained layers predict, beside what happens (arXiv 2310.01698, Fig. 3, and ours).

Claim: the predicted gain of the trained layers ranks the loss of accuracy under noise of amplitude 1, 0.68 [0.51, 0.79]
over 16 cells; at 0.1 and 0.3 it ranks nothing (at 0.3 S4D loses 6 points at the attack, the others 3 at most). What
decides is S4D's deviation from LegS, not the condition number: attacked, S4D falls to 12 percent, and every other cell
but the ill-conditioned PTD keeps 27 or more. Training A, B and the steps does not take the spike away. Ginibre and
dissipative PTD learn worse undisturbed. Status: measured, three seeds, grey CIFAR-10 at 14 x 14.
(a) Loss of accuracy against predicted gain: a mark per cell, seed and frequency; black edge: A, B and the steps trained
too, hollow: no evidence (not above logistic regression). (b) Gain of each feature at the attack, from rest over 196
samples, against the steady state's: S4D's spikes have no time to build up. (c, d) Accuracy undisturbed and attacked
(hollow) against the condition number and the deviation from LegS.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import robustness

NEEDS = {"tree": "robustness.laptop"}


def draw(venue: str, tree: Any) -> Any:
    """Draw predictions beside what was measured."""
    return robustness.figure_prediction(tree, venue)
