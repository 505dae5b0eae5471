"""Basis functions of LegS, LegT and FouT (arXiv 2206.12037, Fig. 1).

Claim: LegS's kernels are exponentially warped Legendre polynomials, LegT's tend to Legendre polynomials and FouT's to
sinusoids on a window, both cut off by a delay. Status: proved (LegS; the delay's all-pass forms), measured (the curves
at finite N).
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import kernel_limit

NEEDS = {"tree": "kernel_limit.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw one panel per measure."""
    return kernel_limit.figure_bases(tree, venue)
