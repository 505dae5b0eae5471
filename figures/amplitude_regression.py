"""The amplitude of sinusoids, regressed on [0, 80] and asked up to 100 (arXiv 2310.01698, section 3.4, Fig. 2).

Claim: trained with A, B and the step frozen, a linear reading of S4D's in-phase response (N = 16) turns negative
beyond the last spike at 80.97 rad/s, in every seed; S4, S4-PTD and HiPPO-rho stay within 20 percent of the truth. A
gated network that sees size and not sign stays positive with all of them. Status: measured.
(a) Gated network, (b) in-phase reading: predicted amplitude, where it is 1, median and range over three seeds; grey:
trained band, dotted: last spike.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import robustness

NEEDS = {"tree": "robustness.regression"}


def draw(venue: str, tree: Any) -> Any:
    """Draw both readings."""
    return robustness.figure_regression(tree, venue)
