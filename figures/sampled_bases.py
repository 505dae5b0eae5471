"""Discrete kernels of S4D-LegS by zero-order hold and by S4's bilinear rule (arXiv 2206.11893, Fig. 2).

Claim: sampled kernels tend to LegS's basis functions (dashed) as N grows, by both rules; the bilinear rule's resonance
near the Nyquist frequency does not show here, only in the transfer function. Status: measured.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import kernel_limit

NEEDS = {"tree": "kernel_limit.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw one panel per method and N."""
    return kernel_limit.figure_sampled(tree, venue)
