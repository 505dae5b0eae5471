"""Place and height of S4D's spikes.

Claim: the m-th spike from above sits at N^2/((2m+1) pi) - (2m+1) pi/6, with a minus sign; its height is 2/((2m+1) pi)
for output 0 and N times that for the worst unit C. Status: proved (the laws' limits), certified (the top eigenvalue and
the supremum), measured (the distances drawn here).
(a) Place. (b) Relative distance from the law of the top (full) and of the bulk (dashed). (c) Height. (d) Worst C.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import transfer_convergence

NEEDS = {"tree": "transfer_convergence.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw places above heights."""
    return transfer_convergence.figure_spikes(tree, venue)
