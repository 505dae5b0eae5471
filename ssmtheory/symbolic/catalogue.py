"""All derivations by name, for the ledger and the command line."""

from __future__ import annotations

from collections.abc import Callable

from ssmtheory.errors import InputError, nearest
from ssmtheory.symbolic import discretisation, gap, hippo, ptd, rho, selection, windows
from ssmtheory.symbolic.derivation import Derivation

__all__ = ["available", "derive"]

_DERIVATIONS: dict[str, Callable[[], Derivation]] = {
    "legs-transfer": hippo.derive_legs_transfer,
    "legs-kernel": hippo.derive_legs_kernel,
    "legs-gramian": hippo.derive_gramian,
    "legs-contractivity": hippo.derive_contractivity,
    "phi-modulus": hippo.derive_phi_modulus,
    "kernel-identity": hippo.derive_kernel_identity,
    "s4d-quotient": hippo.derive_s4d_quotient,
    "s4d-residues": hippo.derive_s4d_residues,
    "characteristic-polynomials": hippo.derive_characteristic_polynomials,
    "spectrum-law": hippo.derive_spectrum_law,
    "spectrum-asymptotics": hippo.derive_spectrum_asymptotics,
    "legt-pade": windows.derive_legt_pade,
    "fout-delay": windows.derive_fout_delay,
    "zoh": discretisation.derive_zoh_kernel,
    "bilinear": discretisation.derive_bilinear_kernel,
    "s4-generating-function": discretisation.derive_s4_generating_function,
    "s4d-gramian": gap.derive_s4d_gramian,
    "s4d-moments": gap.derive_moments,
    "s4d-l2-gap": gap.derive_l2_gap,
    "s4d-weak-constant": gap.derive_weak_constant,
    "s4d-uniform-gap": gap.derive_uniform_gap,
    "hippo-rho": rho.derive_hippo_rho,
    "hippo-rho-bound": rho.derive_hippo_rho_bound,
    "hippo-rho-l2-gap": rho.derive_hippo_rho_l2_gap,
    "hippo-rho-modes": rho.derive_truncated_modes,
    "hippo-rho-conditioning": rho.derive_conditioning,
    "hippo-rho-maximum": rho.derive_conditioning_maximum,
    "ptd-deviation": ptd.derive_ptd_deviation,
    "ptd-condition-bound": ptd.derive_ptd_condition_bound,
    "mamba-gate": selection.derive_gate_identity,
}


def available() -> list[str]:
    """Names of the derivations.

    Returns:
        The names, in the order in which they build on one another.
    """
    return list(_DERIVATIONS)


def derive(name: str) -> Derivation:
    """A derivation by name.

    Args:
        name: one of `available()`.

    Returns:
        The derivation, not yet checked.

    Raises:
        InputError: no such derivation.

    >>> derive("s4d-l2-gap").status
    'proved'
    """
    if name not in _DERIVATIONS:
        raise InputError(
            f"no derivation {name!r}: choose one of {', '.join(_DERIVATIONS)}.{nearest(name, _DERIVATIONS)}"
        )
    return _DERIVATIONS[name]()
