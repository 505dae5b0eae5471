"""The frontier: conditioning against closeness to LegS, for PTD, HiPPO-rho, and what no PTD can beat.

Claim: HiPPO-rho has kappa times deviation of about 1/2 at every N, with no optimisation, where random perturbations pay
a hundred to thousands of times more; every PTD with |E| <= eps has a condition number above a bound that grows like
N^(3/2)/eps. Our search for E (not the published objective) does better than HiPPO-rho by 1.4 to 2.3 at N = 16 and 32,
with as large an E. Status: certified (the lower bound), bracketed (deviations of HiPPO-rho), measured (PTD, kappa);
kappa <= rho is not proved.
(a) kappa against deviation; hollow points are unstable, the line is kappa = 1/(2 deviation). (b) kappa against the size
of the perturbation above the certified staircase: HiPPO-rho is a large perturbation. (c) Product against N. (d) The
bound against N; crosses: the best that was found.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import transfer_convergence

NEEDS = {"tree": "transfer_convergence.frontier"}


def draw(venue: str, tree: Any) -> Any:
    """Draw the frontier and its cost above the bound's growth."""
    return transfer_convergence.figure_frontier(tree, venue)
