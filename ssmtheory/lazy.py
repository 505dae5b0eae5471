"""Names of a package that are imported when they are first asked for (PEP 562), so that importing it costs nothing."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any

__all__ = ["find"]


def find(package: str, name: str, owners: Mapping[str, str]) -> Any:
    """What a package's `__getattr__` returns: a name from the module that defines it, or one of the package's modules.

    Args:
        package: the package's dotted path.
        name: what was asked for.
        owners: public name -> module of the package that defines it.

    Raises:
        AttributeError: the package has no such name.

    >>> find("ssmtheory", "errors", {}).__name__
    'ssmtheory.errors'
    """
    if name in owners:
        return getattr(importlib.import_module(f"{package}.{owners[name]}"), name)
    if not name.startswith("_") and importlib.util.find_spec(f"{package}.{name}") is not None:
        return importlib.import_module(f"{package}.{name}")
    raise AttributeError(f"module {package!r} has no attribute {name!r}")
