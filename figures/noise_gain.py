"""What initialisations make of noise, and what robustness costs at low frequency (arXiv 2310.01698, Fig. 3c, and ours).

Claim: at N = 64 S4D amplifies the worst readout 40.8 times at 1303.3 rad/s, where LegS, PTD and HiPPO-rho amplify it at
most 0.05 times; up to 10 rad/s, where signals are, HiPPO-rho at 10 is within 1.6 percent of LegS and PTD at 0.1 within
2.3, and HiPPO-rho is exact in the limit of low frequency where PTD is not. A layer with steps of 0.01 s and more hears
the attack as a lower frequency. Status: measured (proved: S4D's law, HiPPO-rho's bound; one random perturbation per N).
(a) Gain over unit readouts; dashed: the attack. (b) Relative deviation from LegS. (c) Gain at the attack after
zero-order hold; grey: aliased. (d) Largest gain against the largest deviation up to 10 rad/s.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import robustness

NEEDS = {"tree": "robustness.laptop"}


def draw(venue: str, tree: Any) -> Any:
    """Draw gains, costs and the trade between them."""
    return robustness.figure_theory(tree, venue)
