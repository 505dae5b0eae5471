"""In which sense the kernels of S4D-LegS tend to those of LegS.

Claim: weakly, and after sampling or averaging, but neither in L2 nor uniformly: the kernel keeps oscillating about its
limit, ever faster (arXiv 2206.11893, Thm 3, wording unconfirmed, states a limit). Status: proved where the table says
so; the means are measured.
(a) Kernel and limit. (b) Mean of the difference over a short window. (c) Sizes against N. (d) Modes of convergence.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import kernel_limit

NEEDS = {"tree": "kernel_limit.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw kernels and means above sizes and the table."""
    return kernel_limit.figure_convergence(tree, venue)
