"""Pseudospectra of LegS: ill-conditioned eigenvectors without transient growth.

Claim: the Kreiss constant of LegS is 1 and |exp(tA)| <= exp(-t/2), although kappa(V) grows like 5.8^N. Status: proved
(numerical range), certified (kappa of LegS), bracketed (Kreiss constants), measured (portraits).
(a-c) Contours of 1/|(z - A)^-1| with the eigenvalues; dotted: numerical abscissa. (d) |exp(tA)|. (e) Constants.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import transfer_convergence

NEEDS = {"tree": "transfer_convergence.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw portraits above transients and constants."""
    return transfer_convergence.figure_pseudospectra(tree, venue)
