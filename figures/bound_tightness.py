"""How tight the bounds on PTD's deviation are.

Claim: sup |X_PTD - X| <= eps/(1/2 - lambda_max(sym E)) whenever the denominator is positive, and no perturbation beats
it; the paper's leading term (2 ln N + 4) eps (arXiv 2310.01698, Thm 3) is looser, although it stands for |B| = 1 and is
drawn here for |B| = N, which favours it. Status: proved (ours), measured (random perturbations of several structures
and sizes). Beyond 1/2 (line) the paper's theorem says nothing.
(a) Actual against bound. (b) Their ratio against eps.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import transfer_convergence

NEEDS = {"tree": "transfer_convergence.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw actual deviations against the bound beside their ratio."""
    return transfer_convergence.figure_tightness(tree, venue)
