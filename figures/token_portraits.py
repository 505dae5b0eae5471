"""Phase portraits of a first token in the plane by the inertia of the symmetric part of M (arXiv 2410.03292, Fig. 6).

Claim: with one positive eigenvalue the sign of q(x) = x^T M x decides, not eigenvalues: the null cone q = 0 consists
of equilibria, attracting where q_Delta < 0. M has an antisymmetric part as well, which a first token does not feel. Two
positive eigenvalues: all diverge, but slowly where S_Delta x < 0. Status: proved (signs), measured (the orbits).
(a) Two positive eigenvalues. (b) One. (c) None. Dots are starts.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import token_ode

NEEDS = {"tree": "token_ode.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw three phase portraits."""
    return token_ode.figure_portraits(tree, venue)
