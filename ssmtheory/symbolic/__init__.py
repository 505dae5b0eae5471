"""Exact derivations as objects: steps, LaTeX, and a `check()` that can fail.

>>> import ssmtheory as st
>>> d = st.symbolic.derive_legs_kernel(n=5)
>>> bool(d.check()), d.status
(True, 'proved')

| module | what |
|---|---|
| exact | the zero test: rational functions, Gamma functions with symbolic shift, roots, signs |
| derivation | claims, steps, derivations, reports |
| ingredients | notation, and exact matrices to confirm with |
| hippo | LegS and S4D: transfer vector, kernels, moduli, spectrum, Gramian |
| windows | LegT as a Pade approximant of the delay, FouT as an all-pass delay |
| discretisation | ZOH and bilinear kernels, the generating function of S4 |
| selection | the gate of Mamba's Theorem 1 |
| gap | S4D against LegS: Gramian, moments, L2 gap, weak constant, failure of uniform convergence |
| rho | HiPPO-rho: closed form, bounds, L2 gap, Cauchy conditioning, maximum principle |
| ptd | perturb-then-diagonalise: deviation bound, lower bound on the condition number |
| limits | `kernel_limit`: kernel limits with their modes of convergence |
| catalogue | all derivations by name |
| lower | formulas to numbers |
"""

from __future__ import annotations

from typing import Any

from ssmtheory.lazy import find

_WHERE = {
    "discretisation": ("derive_bilinear_kernel", "derive_s4_generating_function", "derive_zoh_kernel"),
    "selection": ("derive_gate_identity",),
    "gap": ("derive_l2_gap", "derive_moments", "derive_s4d_gramian", "derive_uniform_gap", "derive_weak_constant"),
    "rho": (
        "derive_conditioning", "derive_conditioning_maximum", "derive_hippo_rho", "derive_hippo_rho_bound",
        "derive_hippo_rho_l2_gap", "derive_truncated_modes",
    ),
    "ptd": ("derive_ptd_condition_bound", "derive_ptd_deviation"),
    "limits": ("Limit", "kernel_limit"),
    "catalogue": ("derive",),
    "derivation": (
        "Cited", "Claim", "Derivation", "FiniteN", "Identity", "NonNegative", "Numeric", "ProductLaw",
        "Report", "Step", "SumLaw", "Tends",
    ),
    "exact": ("is_zero",),
    "hippo": (
        "derive_characteristic_polynomials", "derive_contractivity", "derive_gramian", "derive_kernel_identity",
        "derive_legs_kernel", "derive_legs_transfer", "derive_phi_modulus", "derive_s4d_quotient",
        "derive_s4d_residues", "derive_spectrum_asymptotics", "derive_spectrum_law",
    ),
    "lower": (),
    "windows": ("derive_fout_delay", "derive_legt_pade"),
}  # fmt: skip
_OWNER = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "Cited",
    "Claim",
    "Derivation",
    "FiniteN",
    "Identity",
    "Limit",
    "NonNegative",
    "Numeric",
    "ProductLaw",
    "Report",
    "Step",
    "SumLaw",
    "Tends",
    "catalogue",
    "derivation",
    "derive",
    "derive_bilinear_kernel",
    "derive_characteristic_polynomials",
    "derive_conditioning",
    "derive_conditioning_maximum",
    "derive_contractivity",
    "derive_fout_delay",
    "derive_gate_identity",
    "derive_gramian",
    "derive_hippo_rho",
    "derive_hippo_rho_bound",
    "derive_hippo_rho_l2_gap",
    "derive_kernel_identity",
    "derive_l2_gap",
    "derive_legs_kernel",
    "derive_legs_transfer",
    "derive_legt_pade",
    "derive_moments",
    "derive_phi_modulus",
    "derive_ptd_condition_bound",
    "derive_ptd_deviation",
    "derive_s4_generating_function",
    "derive_s4d_gramian",
    "derive_s4d_quotient",
    "derive_s4d_residues",
    "derive_spectrum_asymptotics",
    "derive_spectrum_law",
    "derive_truncated_modes",
    "derive_uniform_gap",
    "derive_weak_constant",
    "derive_zoh_kernel",
    "discretisation",
    "exact",
    "gap",
    "hippo",
    "ingredients",
    "is_zero",
    "kernel_limit",
    "limits",
    "lower",
    "ptd",
    "rho",
    "selection",
    "windows",
]


def __getattr__(name: str) -> Any:
    return find(__name__, name, _OWNER)


def __dir__() -> list[str]:
    return __all__
