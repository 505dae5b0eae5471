"""Does reordering by importance help where images are harder: CIFAR-10 in grey, read pixel by pixel?

(a, b) Test accuracy and loss of classifiers of 8 x 8 means against no reordering: a grey point per seed, the mean with
its 95 % bootstrap interval, filled where the exact sign-flip test holds after Holm's correction. (c) Training loss.
(d) Share of the first token's gradient that falls on later tokens: 0 in a causal model.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import refinements

NEEDS = {"tree": "refinements.cifar10"}


def draw(venue: str, tree: Any) -> Any:
    """Draw the tested differences, the training curves and the leak."""
    return refinements.figure_reordering(tree, venue)
