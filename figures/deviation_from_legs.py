"""How far from LegS each initialisation is, at what conditioning, and how stable.

Claim: for a fixed output S4D stays at 2/pi while HiPPO-rho tends to LegS like 1/N; for the worst unit C S4D grows like
2N/pi, PTD lies below 2 eps/(1 - 2 eps) and HiPPO-rho below 1/(2(rho - 1)). Status: proved (bounds and laws), certified
(S4D and HiPPO-rho), measured (PTD, one random perturbation per N).
(a) Output 0. (b) Worst unit C; thin lines are the bounds. (c) Eigenvector condition number. (d) Largest real part.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import transfer_convergence

NEEDS = {"tree": "transfer_convergence.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw gaps above conditioning and stability."""
    return transfer_convergence.figure_deviation(tree, venue)
