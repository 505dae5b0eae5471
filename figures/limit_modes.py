"""In which sense the kernels of each initialisation tend to a limit.

Claim: S4D-LegS tends to LegS weakly, after sampling, on bounded bands and for each input, but not in L2 nor in
H-infinity, where HiPPO-rho does. S4D-Inv tends to zero, in the weak senses only; the others tend to kernels of their
own in all senses but, for some, the value at t = 0. Status: the word below each name; a star means modulo theorems that
the run's derivation names.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import kernel_limit

NEEDS = {"tree": "kernel_limit.all"}


def draw(venue: str, tree: Any) -> Any:
    """Draw the table."""
    return kernel_limit.figure_modes(tree, venue)
