"""The theory of state-space models, made to run.

Submodules load on first use, so that `import ssmtheory` costs nothing:

>>> import ssmtheory as st
>>> st.errors.nearest("scna", ["scan"])
" Did you mean 'scan'?"
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from types import ModuleType

__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    found = {module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")}
    return sorted(found | set(globals()))
