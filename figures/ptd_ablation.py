"""PTD's ablation: conditioning and deviation against the size of the perturbation (arXiv 2310.01698, Fig. 3c).

Claim: kappa(V) falls like 1/eps; the deviation grows with eps and is bounded only below eps = 1/2, far to the left of
the paper's shipped perturbations. Status: proved (our bound), measured (the rest). The paper's accuracies need trained
models and are not here.
(a) kappa; the line has slope -1. (b) Deviation and our bound; grey: no theorem speaks.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import transfer_convergence

NEEDS = {"tree": "transfer_convergence.frontier"}


def draw(venue: str, tree: Any) -> Any:
    """Draw conditioning beside deviation."""
    return transfer_convergence.figure_ablation(tree, venue)
