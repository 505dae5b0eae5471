"""F5. The input-output matrix M = S_C^T S_B of every layer, and the sign of q(u) = u^T M u on real tokens.

(a) Eigenvalues of S_B S_C^T, the non-zero ones of M. (b) Non-zero eigenvalues of M's symmetric part: N positive and N
negative ones in every layer whatever the training, by inertia, so that counting their signs decides nothing. (c) What
can differ: the fraction of tokens with q > 0, beside the fraction that really moves outwards. (d) Growth of the norms,
with the scenario that the sign of q predicts.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import panels, token_dynamics

NEEDS = {"tree": "token_dynamics.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw two panels of the weights above two panels of the data."""
    chosen = (
        token_dynamics.draw_eigenvalues,
        token_dynamics.draw_symmetric_spectrum,
        token_dynamics.draw_q_positive,
        token_dynamics.draw_growth,
    )
    return panels.page(venue, 3.96, chosen, tree)
