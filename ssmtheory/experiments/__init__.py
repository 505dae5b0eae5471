"""Experiments: one module each, `Config -> run(config) -> DataTree`; no plotting and no printing.

A module is an experiment when its name does not start with an underscore and it is not `base`.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

__all__ = ["available"]


def available() -> list[str]:
    """Names of the experiments, found by file name: nothing is imported.

    >>> "token_dynamics" in available()
    True
    """
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in found if name != "base" and not name.startswith("_"))


def __getattr__(name: str) -> ModuleType:
    if name == "base" or name in available():
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
