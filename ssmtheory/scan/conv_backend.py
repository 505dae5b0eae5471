"""The compiled causal convolution (``conv.c``) on arrays in main memory: bias, activation and both states in one pass.

Loaded with ctypes like the compiled scan. It reads float32 and float64 of any strides in place; half precisions are
widened to float32 first. Arithmetic is float64 where x, weight or bias is, else float32.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import numpy as np

from ssmtheory.scan import compiled
from ssmtheory.scan.arrays import dtype_name

__all__ = ["causal_conv1d", "instruction_set", "library", "run_backward", "run_forward", "status"]

#: 0 is the best instruction set of the machine; 1, 2, ... are generic, avx2, avx512.
_ISA = 0
_TYPE = {"float32": 0, "float64": 1}
_NUMBERS = ("batch", "length", "channels", "width", "silu", "kind", "isa")
_POINTERS = ("dweight", "dbias")
_VIEWS = ("x", "y", "weight", "bias", "initial", "last", "dy", "dx", "dlast", "dinitial")


class _View(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("type", ctypes.c_int64), ("stride", ctypes.c_int64 * 3)]


class _Problem(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in _NUMBERS),
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, _View) for name in _VIEWS),
    ]


def library_path() -> Path | None:
    """Return the path of the compiled convolution, or None where the package was installed without one."""
    return compiled.library_path("conv")


@functools.cache
def library() -> ctypes.CDLL:
    """Load the compiled convolution.

    Raises:
        BackendError: the package was installed on a machine without a C compiler, or the library is of another version.
    """
    path = library_path()
    lib = compiled.load("conv", path)
    size = getattr(lib, "conv_problem_bytes", None)
    if size is None or size() != ctypes.sizeof(_Problem):
        raise compiled.stale("conv", path)
    lib.conv_instruction_set.restype = ctypes.c_char_p
    return lib


def instruction_set(number: int = 0) -> str | None:
    """Return the name of an instruction set that the convolution can use on this machine, counted from 1.

    Args:
        number: 0 is the one in use, the best.

    Returns:
        "generic", "avx2" or "avx512"; None where the machine has no such set.
    """
    name = library().conv_instruction_set(number)
    return None if name is None else name.decode()


@functools.cache
def status() -> tuple[bool, str]:
    """Whether the compiled convolution can be used, and in words why."""
    return compiled.status(instruction_set, library_path)


def _view(array: Any) -> _View:
    strides = (ctypes.c_int64 * 3)(*compiled.byte_strides(array))
    return _View(compiled.address(array), _TYPE[dtype_name(array)], strides)


def _run(function: str, views: dict[str, Any], silu: bool, **pointers: Any) -> None:
    batch, length, channels = views["x"].shape
    wide = any(views[name] is not None and dtype_name(views[name]) == "float64" for name in ("x", "weight", "bias"))
    problem = _Problem(
        batch=batch, length=length, channels=channels, width=views["weight"].shape[1], silu=silu, kind=wide, isa=_ISA,
        **{name: compiled.address(array) for name, array in pointers.items()},
    )  # fmt: skip
    for name, array in views.items():
        if array is not None:
            setattr(problem, name, _view(array))
    if getattr(library(), function)(ctypes.byref(problem)):
        raise MemoryError("backend 'c': no memory for the scratch space of the convolution")


def run_forward(x: Any, weight: Any, bias: Any, initial: Any, silu: bool) -> tuple[Any, Any]:
    """y (batch, length, channel) and the last inputs (batch, width - 1, channel), both of the dtype of x.

    Args:
        x, weight, bias, initial: float32 or float64 in any mixture, all NumPy arrays or all tensors in main memory;
            bias and initial may be None.
        silu: whether SiLU follows.
    """
    y = compiled.empty(x, x.shape)
    last = compiled.empty(x, (x.shape[0], weight.shape[1] - 1, x.shape[2]))
    views = {"x": x, "weight": weight, "bias": bias, "initial": initial, "y": y, "last": last}
    _run("conv_forward", views, silu)
    return y, last


def run_backward(x: Any, weight: Any, bias: Any, initial: Any, silu: bool, dy: Any, dlast: Any) -> tuple[Any, ...]:
    """Cotangents of x, weight, bias and initial, from those of y and of the last inputs (None: zero)."""
    (batch, _, channels), width = x.shape, weight.shape[1]
    dx, dinitial = compiled.empty(x, x.shape), None if initial is None else compiled.empty(initial, initial.shape)
    dweight, dbias = (compiled.empty(x, shape, "float64") for shape in ((batch, width, channels), (batch, channels)))
    views = {
        "x": x, "weight": weight, "bias": bias, "initial": initial, "dy": dy, "dlast": dlast, "dx": dx,
        "dinitial": dinitial,
    }  # fmt: skip
    _run("conv_backward", views, silu, dweight=dweight, dbias=dbias)
    return dx, dweight.sum(0).T, None if bias is None else dbias.sum(0), dinitial


def readable(x: Any) -> Any:
    """An array as the library can read it: half precisions become float32, all else is left where it is."""
    if x is None:
        return None
    half = dtype_name(x) in ("float16", "bfloat16")
    if isinstance(x, np.ndarray):
        return x.astype(np.float32) if half else x if x.flags.aligned else x.copy()
    return x.float() if half else x.resolve_neg()


def causal_conv1d(x: Any, weight: Any, bias: Any, initial_state: Any, silu: bool) -> tuple[Any, Any]:
    """Run the compiled convolution on validated NumPy arrays, those of :func:`ssmtheory.scan.causal_conv1d`.

    Returns:
        y and the last inputs, of the dtype of x.
    """
    y, last = run_forward(readable(x), readable(weight), readable(bias), readable(initial_state), silu)
    return y.astype(x.dtype, copy=False), last.astype(x.dtype, copy=False)
