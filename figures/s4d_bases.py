"""Basis functions of the S4D variants (arXiv 2206.11893, Fig. 2).

Claim: S4D-LegS follows LegS's warped Legendre polynomials (black) on average only, and no less far from them at any N;
S4D-Inv (its slowest modes) and S4D-Lin have bases of their own. Status: measured (closed forms at one N; points where
the stored times cannot follow the oscillation).
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import kernel_limit

NEEDS = {"tree": "kernel_limit.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw one panel per variant."""
    return kernel_limit.figure_s4d_bases(tree, venue)
