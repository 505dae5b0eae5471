"""Rigorous enclosures in ball arithmetic (python-flint, Arb): every result is a certificate that proves itself again.

| module | what |
|---|---|
| certificate | the claim, its bounds, how it was proved; `verify`, JSON, the bracket that `ssmtheory.lti` uses |
| spectrum | eigenvalues of S4D-LegS at any N, and the law of the top one for all N |
| supnorm | sup over all real frequencies of the S4D gap and of HiPPO-rho's deviation, spikes |
| conditioning | eigenvector condition numbers: LegS, HiPPO-rho, any diagonalisable matrix |
| response | sup over all real frequencies for given matrices; the deviation of a PTD with given E |
| abscissa | spectral abscissa, and the guarantee that needs only norms of E |
| frontier | the lower bound on the condition number of every PTD |
| definition | what the certificates of LegS start from, with the proof |
| balls | exact numbers, outward decimals, definiteness and extreme eigenvalues of ball matrices |

>>> from ssmtheory import certify
>>> certify.top_eigenvalue(32).verify()
True
"""

from __future__ import annotations

from typing import Any

from ssmtheory.lazy import find

_HOME = {
    "Certificate": "certificate",
    "CertificationError": "balls",
    "as_hinf_norm": "certificate",
    "condition": "conditioning",
    "hippo_rho_abscissa": "conditioning",
    "hippo_rho_condition": "conditioning",
    "hippo_rho_deviation": "supnorm",
    "hippo_rho_poles": "conditioning",
    "kappa_against_rho": "conditioning",
    "legs_condition": "conditioning",
    "ptd_condition_lower_bound": "frontier",
    "ptd_condition_lower_bound_area": "frontier",
    "ptd_deviation": "response",
    "ptd_guarantee": "abscissa",
    "s4d_gap": "supnorm",
    "s4d_spike": "supnorm",
    "stability": "abscissa",
    "sup_norm": "response",
    "top_eigenvalue": "spectrum",
    "top_eigenvalue_law": "spectrum",
}

__all__ = [
    "Certificate",
    "CertificationError",
    "abscissa",
    "as_hinf_norm",
    "balls",
    "certificate",
    "condition",
    "conditioning",
    "definition",
    "frontier",
    "hippo_rho_abscissa",
    "hippo_rho_condition",
    "hippo_rho_deviation",
    "hippo_rho_poles",
    "kappa_against_rho",
    "legs_condition",
    "ptd_condition_lower_bound",
    "ptd_condition_lower_bound_area",
    "ptd_deviation",
    "ptd_guarantee",
    "response",
    "s4d_gap",
    "s4d_spike",
    "spectrum",
    "stability",
    "sup_norm",
    "supnorm",
    "top_eigenvalue",
    "top_eigenvalue_law",
]


def __getattr__(name: str) -> Any:
    return find(__name__, name, _HOME)


def __dir__() -> list[str]:
    return __all__
