"""Does a change of the input-output matrix cost more than noise that takes it equally far?

(a) Positive part, positive part with the antisymmetric one, and symmetric part, each less Gaussian noise of equal
Frobenius norm: isotropic, and within the range of the symmetric part. (b) Three interventions by layer. 95 % bootstrap
over sequences.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import interventions

NEEDS = {"tree": "interventions.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw the paired differences and a few interventions by layer."""
    return interventions.figure_controls(tree, venue)
