"""Accuracy while training, undisturbed and under Fourier noise at the attack frequency (arXiv 2310.01698, Fig. 3a, b).

Claim: S4D and S4-PTD learn alike undisturbed. Under noise at the derived attack frequency S4D falls behind within the
first hundreds of steps, and training does not take the spike away (A, B and the steps are frozen, as in the authors'
code); at the authors' amplitude 0.1 the gap is within the seeds' range on sequences of 196 samples, which are too short
for the spike to build up. Status: measured on grey CIFAR-10 at 14 x 14, three seeds: not the paper's model, data or
budget.
(a) Dashed: amplitude 0.1, the authors'. (b) Dashed: amplitude 1.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ssmtheory.plotting import panels, robustness

NEEDS = {"tree": "robustness.headline"}


def draw(venue: str, tree: Any) -> Any:
    """Draw the curves at the smallest and the largest amplitude."""
    draws = [partial(robustness.draw_training, amplitude=a) for a in (0.1, 1.0)]
    return panels.page(venue, 2.6, draws, tree, legend=4)
