"""Names for the types that cross module borders."""

from __future__ import annotations

from os import PathLike
from typing import Any, TypeAlias

__all__ = ["Array", "DType", "Namespace", "PathType", "Shape"]

#: A NumPy array, torch tensor or JAX array; functions return the kind they were given.
Array: TypeAlias = Any
#: An array-API namespace as ``array_api_compat.array_namespace`` returns it.
Namespace: TypeAlias = Any
#: A dtype of whichever array library is in use.
DType: TypeAlias = Any
#: Sizes of the axes, in order.
Shape: TypeAlias = tuple[int, ...]
#: What a function that opens a file accepts.
PathType: TypeAlias = "str | PathLike[str]"
