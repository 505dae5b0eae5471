"""Trained classifiers of full sequences (L = 1024) under a cosine in every layer: which frequency, and how large.

Claim: on grey CIFAR-10 at 32 x 32 noise of amplitude 0.3 at the frequency where S4D's transfer function has its last
spike, 325.4 rad/s, takes S4D from 39 percent to 17, of amplitude 1 to 12 (chance: 10); S4 and S4-PTD keep 38 and 32 to
33. At the PTD authors' amplitude, 0.1, S4D loses 3 points. Status: measured, three seeds.
(a, b) Accuracy against the frequency of the noise; dotted: undisturbed, dashed: the derived attack frequency. (c) At
the attack frequency against the amplitude. (d) While training, undisturbed and attacked. Bands: range over seeds.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import robustness

NEEDS = {"tree": "robustness.long"}


def draw(venue: str, tree: Any) -> Any:
    """Draw accuracy by frequency, amplitude and time."""
    return robustness.figure_sweep(tree, venue)
