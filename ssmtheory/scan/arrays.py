"""Which array library a call uses, and in which precision it computes."""

from __future__ import annotations

import functools
import sys
from typing import Any

from array_api_compat import array_namespace, is_jax_array, is_numpy_array

from ssmtheory.errors import InputError
from ssmtheory.typing import Array, DType, Namespace

__all__ = ["array_kind", "common_namespace", "compute_dtype", "dtype_name", "kind_of"]

_KINDS = {"numpy": "a NumPy array", "torch": "a PyTorch tensor", "jax": "a JAX array"}
REAL = ("float16", "bfloat16", "float32", "float64")
COMPLEX = ("complex64", "complex128")
#: A float32 convolution kernel of more values than this is computed in float64 and rounded: its length is then about
#: phases, and an FFT of that length costs more than the kernel does.
LONG_KERNEL = 1 << 15


def array_kind(value: object) -> str | None:
    """ "numpy", "torch" or "jax"; None for anything else. Imports none of them."""
    # first, and without the cached functions below, on which torch.compile warns
    if "torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor):
        return "torch"
    if is_numpy_array(value):
        return "numpy"
    if is_jax_array(value):
        return "jax"
    return None


def kind_of(**arrays: Array | None) -> str:
    """The one array library that all given arrays belong to.

    Args:
        **arrays: by argument name; None is skipped.

    Returns:
        "numpy", "torch" or "jax".

    Raises:
        InputError: not an array, or arrays of two libraries.
    """
    first: tuple[str, str] | None = None
    for name, value in arrays.items():
        if value is None:
            continue
        kind = array_kind(value)
        if kind is None:
            raise InputError(
                f"{name} is of type {type(value).__name__}: must be a NumPy array, a PyTorch tensor or a JAX array"
            )
        if first is None:
            first = name, kind
        elif kind != first[1]:
            raise InputError(
                f"{first[0]} is {_KINDS[first[1]]} but {name} is {_KINDS[kind]}: "
                "all arrays of one call must be of one library"
            )
    if first is None:
        raise InputError("no array was given")
    return first[1]


def common_namespace(**arrays: Array | None) -> Namespace:
    """The array-API namespace of the given arrays; errors as in :func:`kind_of`."""
    kind_of(**arrays)
    return array_namespace(*(value for value in arrays.values() if value is not None))


def dtype_name(array: Any) -> str:
    """ "float32", "bfloat16", ...: the same names for every library."""
    dtype = array.dtype
    return str(dtype)[6:] if type(dtype).__module__ == "torch" else _name_of(dtype)


@functools.cache
def _name_of(dtype: DType) -> str:
    # cached: NumPy takes several microseconds to name a dtype, and a call asks for twenty names
    return str(dtype)


def compute_dtype(xp: Namespace, *arrays: Array | None) -> DType:
    """float64 (complex128) where any array is that wide, else float32 (complex64): never a half precision."""
    names = [dtype_name(array) for array in arrays if array is not None]
    wide = any(name in ("float64", "complex128") for name in names)
    if any(name in COMPLEX for name in names):
        return xp.complex128 if wide else xp.complex64
    return xp.float64 if wide else xp.float32
