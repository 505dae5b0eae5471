"""Gaps after discretisation: zero-order hold damps S4D's spikes, S4's bilinear rule multiplies them.

Claim: ZOH damps an isolated spike by |sinc(w dt/2)|, the bilinear rule of S4 multiplies it by sqrt(1 + (w dt/2)^2); the
gaps of HiPPO-rho, measured here first, stay below max(1, N dt/2)/(rho - 1) under that rule. Status: proved (bounds,
thin lines), measured (the gaps); the dashed law is an estimate for an isolated spike.
(a, b) Output 0. (c, d) Worst unit C.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import transfer_convergence

NEEDS = {"tree": "transfer_convergence.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw both methods for one output above the worst C."""
    return transfer_convergence.figure_discrete(tree, venue)
