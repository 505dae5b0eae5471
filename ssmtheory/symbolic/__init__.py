"""Exact derivations as objects: steps, LaTeX, and a `check()` that can fail.

>>> import ssmtheory as st
>>> d = st.symbolic.derive_legs_kernel(n=5)
>>> bool(d.check()), d.status
(True, 'proved')

| module | what |
|---|---|
| exact | the zero test: rational functions, Gamma functions with symbolic shift, roots, signs |
| derivation | claims, steps, derivations, reports |
| hippo | LegS and S4D: transfer vector, kernels, moduli, spectrum, Gramian |
"""

from __future__ import annotations

import importlib
from typing import Any

from ssmtheory.errors import require

_WHERE = {
    "derivation": (
        "Cited", "Claim", "Derivation", "FiniteN", "Identity", "Limit", "NonNegative", "Numeric", "ProductLaw", "Report",
        "Step", "SumLaw",
    ),
    "exact": ("is_zero",),
    "hippo": (
        "derive_characteristic_polynomials", "derive_contractivity", "derive_gramian", "derive_kernel_identity",
        "derive_legs_kernel", "derive_legs_transfer", "derive_phi_modulus", "derive_s4d_quotient",
        "derive_spectrum_asymptotics", "derive_spectrum_law",
    ),
    "lower": (),
}  # fmt: skip
_OWNER = {name: module for module, names in _WHERE.items() for name in names}

__all__ = sorted([*_WHERE, *_OWNER, "ingredients"])


def __getattr__(name: str) -> Any:
    if name in _OWNER or name in _WHERE or name == "ingredients":
        require("sympy", "symbolic", f"ssmtheory.symbolic.{name}")
        module = importlib.import_module(f"{__name__}.{_OWNER.get(name, name)}")
        return getattr(module, name) if name in _OWNER else module
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
