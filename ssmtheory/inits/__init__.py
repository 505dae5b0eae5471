"""Initialisations of linear state-space layers: HiPPO, S4, S4D, S5, LRU, DSS, PTD and HiPPO-rho.

Each is a frozen dataclass of hyper-parameters with `build(N, seed)` for one system and `layer(features, N, seed)` for
the parameters of a layer; `get("hippo-rho", rho=10)` finds one by name.

| name | class | what |
|---|---|---|
| legs, legt, lagt, fout | `LegS`, `LegT`, `LagT`, `FouT` | the HiPPO systems |
| s4 | `S4` | LegS as diagonal plus low rank |
| s4d-legs, s4d-inv, s4d-lin, s4d-real, s4d-arctan | `S4DLegS`, ... | diagonal |
| dss, s5, lru | `DSS`, `S5`, `LRU` | |
| ptd, s4-ptd, s5-ptd | `PTD`, `S4PTD`, `S5PTD` | perturb, then diagonalise |
| hippo-rho, s5-rho | `HiPPORho`, `S5Rho` | uniformly close to LegS, well conditioned, in closed form |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ssmtheory.errors import InputError, nearest
from ssmtheory.lazy import find

if TYPE_CHECKING:
    from ssmtheory.inits.base import Initialization

#: name -> (module, class)
registry: dict[str, tuple[str, str]] = {
    "legs": ("legs", "LegS"),
    "legt": ("legs", "LegT"),
    "lagt": ("legs", "LagT"),
    "fout": ("legs", "FouT"),
    "s4": ("legs", "S4"),
    "s4d-legs": ("s4d", "S4DLegS"),
    "s4d-inv": ("s4d", "S4DInv"),
    "s4d-lin": ("s4d", "S4DLin"),
    "s4d-real": ("s4d", "S4DReal"),
    "s4d-arctan": ("s4d", "S4DArctan"),
    "dss": ("s4d", "DSS"),
    "s5": ("s5", "S5"),
    "lru": ("s5", "LRU"),
    "ptd": ("ptd", "PTD"),
    "s4-ptd": ("ptd", "S4PTD"),
    "s5-ptd": ("ptd", "S5PTD"),
    "hippo-rho": ("hippo_rho", "HiPPORho"),
    "s5-rho": ("hippo_rho", "S5Rho"),
}
_FROM = {
    **{name: module for module, name in registry.values()},
    "Initialization": "base",
    "LayerParameters": "base",
    "Realization": "base",
    "gap_norm": "closed_form",
    "legs_family": "closed_form",
    "deviation": "ptd",
}

__all__ = [
    "DSS",
    "LRU",
    "PTD",
    "S4",
    "S4PTD",
    "S5",
    "S5PTD",
    "FouT",
    "HiPPORho",
    "Initialization",
    "LagT",
    "LayerParameters",
    "LegS",
    "LegT",
    "Realization",
    "S4DArctan",
    "S4DInv",
    "S4DLegS",
    "S4DLin",
    "S4DReal",
    "S5Rho",
    "base",
    "closed_form",
    "deviation",
    "gap_norm",
    "get",
    "hippo",
    "hippo_rho",
    "legs",
    "legs_family",
    "ptd",
    "registry",
    "s4d",
    "s5",
]


def get(name: str, **options: Any) -> Initialization:
    """The initialisation of a name.

    Args:
        name: key of `registry`.
        options: its hyper-parameters.

    Returns:
        The initialisation.

    Raises:
        InputError: an unknown name, or an option that it does not have.

    >>> get("hippo-rho", rho=20.0).rho
    20.0
    """
    import dataclasses

    if name not in registry:
        raise InputError(f"init {name!r}: must be one of {', '.join(registry)}.{nearest(name, registry)}")
    module, kind = registry[name]
    found = find(__name__, kind, {kind: module})
    allowed = [field.name for field in dataclasses.fields(found)]
    for option in options:
        if option not in allowed:
            raise InputError(
                f"{name} has no option {option!r}: must be one of {', '.join(allowed) or 'none'}."
                f"{nearest(option, allowed)}"
            )
    return found(**options)


def __getattr__(name: str) -> Any:
    return find(__name__, name, _FROM)


def __dir__() -> list[str]:
    return __all__
