"""S4D beyond the trained band (arXiv 2310.01698, section 3.4), in a deterministic least-squares version.

Claim: a readout of S4D's features trained on a band that ends just below the last spike predicts a negative amplitude
at the spike, where the features are amplified and change sign; LegS, PTD and HiPPO-rho have no such place. Status:
measured (ours: the paper trains a model).
(a) Predicted amplitude; grey: trained band, dotted: the spike. (b) Largest gain of a feature.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import transfer_convergence

NEEDS = {"tree": "transfer_convergence.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw predictions beside gains."""
    return transfer_convergence.figure_robustness(tree, venue)
