"""Trained classifiers under a cosine in every layer: which frequency, and how large.

Claim: on grey CIFAR-10 at 14 x 14, noise of amplitude 1 at the frequency where S4D's transfer function has its last
spike, 325.4 rad/s, takes S4D from 38 percent to 12 (chance: 10); at eight other frequencies it costs S4D what it costs
the others. S4, S4-PTD and HiPPO-rho lose about as much at 325.4 rad/s as elsewhere. Status: measured, three seeds.
(a, b) Accuracy against the frequency of the noise; dotted: undisturbed, dashed: the derived attack frequency. (c) At
the attack frequency against the amplitude. (d) While training, undisturbed and attacked. Bands: range over seeds.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import robustness

NEEDS = {"tree": "robustness.headline"}


def draw(venue: str, tree: Any) -> Any:
    """Draw accuracy by frequency, amplitude and time."""
    return robustness.figure_sweep(tree, venue)
