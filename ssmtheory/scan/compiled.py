"""The C sources of this folder, each compiled at install into a library of its own that ctypes loads.

An install without a C compiler succeeds without them; :func:`load` then says what to do. What every library is given,
addresses and strides of NumPy arrays and of tensors in main memory, is read here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ssmtheory.errors import BackendError
from ssmtheory.scan.arrays import dtype_name

__all__ = ["address", "byte_strides", "empty", "library_path", "load", "stale", "status"]

_HERE = Path(__file__).parent


def library_path(name: str, folder: Path = _HERE) -> Path | None:
    """Return where `name`.c was compiled to, or None where the package was installed without a compiler.

    Args:
        name: stem of a C source, such as "kernel".
        folder: of the source.
    """
    found = sorted(folder.glob(f"_{name}*.so"))
    return found[0] if found else None


def load(name: str, path: Path | None) -> ctypes.CDLL:
    """Load a compiled source.

    Args:
        name: stem of the C source.
        path: what :func:`library_path` found.

    Raises:
        BackendError: the package was installed on a machine without a C compiler.
    """
    if path is None:
        raise BackendError(
            f"backend 'c': {name}.c was not compiled when ssmtheory was installed. "
            "Install a C compiler and run: pip install --force-reinstall --no-deps ssmtheory; "
            "or choose backend='numpy', 'torch' or 'jax'"
        )
    return ctypes.CDLL(str(path))


def stale(name: str, path: Path | None) -> BackendError:
    """The error for a library that does not fit this Python code."""
    return BackendError(
        f"backend 'c': {path} was compiled from another version of {name}.c. Reinstall the package to compile it "
        "again, or choose backend='numpy', 'torch' or 'jax'"
    )


def status(instruction_set: Callable[[], str | None], path: Callable[[], Path | None]) -> tuple[bool, str]:
    """Whether a library can be used, and in words why: "compiled (avx2)", "not compiled", ..."""
    try:
        return True, f"compiled ({instruction_set()})"
    except BackendError:
        return False, "not compiled" if path() is None else "compiled from another version"


def address(array: Any) -> int | None:
    """Where the numbers of an array begin; None for None."""
    if array is None:
        return None
    # far cheaper than ndarray.ctypes
    return array.__array_interface__["data"][0] if isinstance(array, np.ndarray) else array.data_ptr()


def byte_strides(array: Any) -> tuple[int, ...]:
    """Strides of an array in bytes."""
    if isinstance(array, np.ndarray):
        return array.strides
    size = array.element_size()
    return tuple(n * size for n in array.stride())


def empty(like: Any, shape: tuple[int, ...], dtype: str | None = None, zero: bool = False) -> Any:
    """A new array of the library of `like`, by default of its dtype; zeros if asked."""
    dtype = dtype or dtype_name(like)
    if isinstance(like, np.ndarray):
        return (np.zeros if zero else np.empty)(shape, dtype)
    import torch

    return (torch.zeros if zero else torch.empty)(shape, dtype=getattr(torch, dtype))
