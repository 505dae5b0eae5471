"""The compiled recurrences (``recurrence.c``), on NumPy arrays and on tensors in main memory.

Three primitives, each forward and backward: the linear recurrence with given coefficients, the time-domain scan of a
diagonal time-invariant system, and its convolution kernel. Arrays of any strides are read and written in place. The
library is loaded with ctypes; :mod:`ssmtheory.scan.recurrence_torch` puts the derivatives into autograd.

Arithmetic: the recurrence runs in float64 whatever the arrays hold. The scan and the kernel take their parameters in
complex128 and carry the state so; products inside a chunk of 32 steps are of the precision of u, of long kernels in
float64.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np

from ssmtheory.scan import compiled
from ssmtheory.scan.arrays import LONG_KERNEL, dtype_name

__all__ = [
    "kernel_backward", "kernel_forward", "library", "library_path", "linear_backward", "linear_forward", "lti_backward",
    "lti_forward", "status",
]  # fmt: skip

#: 0 is the best instruction set of the machine; 1, 2, ... are generic, avx2, avx512.
_ISA = 0
_COMPLEX_OF = {"float32": "complex64", "float64": "complex128"}
_REAL_OF = {"float32": "float32", "float64": "float64", "complex64": "float32", "complex128": "float64"}
#: Fewer lanes than this are not worth a row of their own where another axis is longer.
_FEW_LANES = 16
#: Values of a float32 kernel that are computed in float64 at once.
_WIDE_VALUES = 1 << 23


class _View(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("stride", ctypes.c_int64 * 5)]


def _structure(name: str, *parts: tuple[str, Any]) -> type[ctypes.Structure]:
    fields = [(field, kind) for names, kind in parts for field in names.split()]
    return type(name, (ctypes.Structure,), {"_fields_": fields})


_Linear = _structure(
    "_Linear",
    ("length", ctypes.c_int64),
    ("outer", ctypes.c_int64 * 3),
    ("lanes wide complex_a complex_b reverse isa fixed", ctypes.c_int64),
    ("a b h h0 last reset dh dlast da db dh0", _View),
)
_Lti = _structure(
    "_Lti",
    ("batch length channels states wide reverse isa", ctypes.c_int64),
    ("scale", ctypes.c_double),
    ("w B C D kept", ctypes.c_void_p),
    ("u y h0 last dy du dlast dh0", _View),
    ("dw dB dC dD", ctypes.c_void_p),
)


def library_path() -> Path | None:
    """Return the path of the compiled recurrences, or None where the package was installed without them."""
    return compiled.library_path("recurrence")


@functools.cache
def library() -> ctypes.CDLL:
    """Load the compiled recurrences.

    Raises:
        BackendError: the package was installed without a C compiler, or the library is of another version.
    """
    path = library_path()
    lib = compiled.load("recurrence", path)
    sizes = getattr(lib, "rec_sizes", None)
    if sizes is None or (sizes(0), sizes(1)) != (ctypes.sizeof(_Linear), ctypes.sizeof(_Lti)):
        raise compiled.stale("recurrence", path)
    lib.rec_instruction_set.restype = ctypes.c_char_p
    return lib


@functools.cache
def status() -> tuple[bool, str]:
    """Whether the recurrences can be used, and in words why: "compiled (avx2)", "not compiled", ..."""
    return compiled.status(lambda: library().rec_instruction_set(0).decode(), library_path)


def _run(function: str, problem: ctypes.Structure, backward: bool) -> None:
    if getattr(library(), function)(ctypes.byref(problem), int(backward)):
        raise MemoryError("backend 'c': no memory for the scratch space of the recurrence")


def _of_type(x: Any, dtype: str) -> Any:
    """x in a dtype, its memory holding just the numbers that it shows."""
    if x is None:
        return None
    if isinstance(x, np.ndarray):
        return np.require(x, dtype, "A")
    import torch

    return x.detach().to(getattr(torch, dtype)).resolve_conj().resolve_neg()


def _packed(x: Any, dtype: str) -> Any:
    """A small array, C-contiguous."""
    x = _of_type(x, dtype)
    return None if x is None else np.ascontiguousarray(x) if isinstance(x, np.ndarray) else x.contiguous()


def _strides(x: Any) -> list[int]:
    """Strides in bytes, 0 along axes of size 1."""
    return [0 if n == 1 else s for n, s in zip(x.shape, compiled.byte_strides(x), strict=True)]


def _view(x: Any) -> _View:
    """An array as it is."""
    return _View() if x is None else _View(compiled.address(x), (ctypes.c_int64 * 5)(*_strides(x)))


# ---------------------------------------------------------------------- h_t = a_t h_{t-1} + b_t


def _sweep(views: dict[str, Any], b: Any, options: dict[str, int], backward: bool) -> None:
    """Run the linear recurrence on arrays with time first.

    Args:
        views: arrays by their names in `_Linear`, (length or 1, ...); those of one state (1, ...).
        b: the array that has the full shape.
        options: numbers of `_Linear`.
        backward: which pass.
    """
    shape = [int(n) for n in b.shape[1:]]
    places = {
        name: (compiled.address(x), _strides(x)[0], _strides(x)[1:]) for name, x in views.items() if x is not None
    }
    # axes that every array walks through in equal steps are one axis
    axes = [(n, {name: place[2][i] for name, place in places.items()}) for i, n in enumerate(shape) if n != 1]
    axes.sort(key=lambda axis: -abs(axis[1]["b"]))
    merged: list[tuple[int, dict[str, int]]] = []
    for n, steps in axes:
        if merged and all(merged[-1][1][name] == n * step for name, step in steps.items()):
            merged[-1] = merged[-1][0] * n, steps
        else:
            merged.append((n, steps))
    zero = dict.fromkeys(places, 0)
    if merged:
        longest = max(range(len(merged)), key=lambda i: merged[i][0])
        chosen = len(merged) - 1 if merged[-1][0] >= _FEW_LANES else longest
        lanes = merged.pop(chosen)
    else:
        lanes = (1, zero)
    outer = [(1, zero)] * (3 - len(merged)) + merged[-3:]
    problem = _Linear(length=b.shape[0], lanes=lanes[0], isa=_ISA, **options)
    problem.outer[:] = [n for n, _ in outer]
    # more than four axes that do not merge: a call for each index of the first
    for index in itertools.product(*(range(n) for n, _ in merged[:-3])):
        for name, (address, step, _) in places.items():
            moved = sum(i * axis[1][name] for i, axis in zip(index, merged, strict=False))
            strides = (step, *(axis[name] for _, axis in outer), lanes[1][name])
            # an array without elements has no address, and none is read
            setattr(problem, name, _View((address or 0) + moved or None, (ctypes.c_int64 * 5)(*strides)))
        _run("rec_linear", problem, backward)


def _types(a: Any, b: Any, dtype: str) -> tuple[str, str]:
    """The dtypes in which a and b are read for a result of `dtype`."""
    real = _REAL_OF[dtype]
    return (_COMPLEX_OF[real] if dtype_name(a).startswith("complex") else real), dtype


def linear_forward(a: Any, b: Any, h0: Any, reset: Any, reverse: bool, dtype: str, out: Any = None) -> tuple[Any, Any]:
    """h_t = a_t h_{t-1} + b_t along axis 0.

    Args:
        a: (length or 1, ...), broadcasts to b.
        b: (length, ...).
        h0: broadcasts to a step of b, or None.
        reset: bool, (length, 1s and sizes of a step of b), or None.
        reverse: run from the last index to the first.
        dtype: of the result: float32, float64, complex64 or complex128; complex where a, b or h0 is.
        out: of shape and dtype of the result, which it receives; may be b.

    Returns:
        All states, of the shape of b, and the last one.
    """
    a_type, b_type = _types(a, b, dtype)
    a, b, h0 = _of_type(a, a_type), _of_type(b, b_type), _of_type(h0, dtype)
    states = compiled.empty(b, tuple(b.shape), dtype) if out is None else out
    last = compiled.empty(b, tuple(b.shape[1:]), dtype)
    if math.prod(last.shape):
        views = {
            "a": a, "b": b, "h": states, "h0": None if h0 is None else _one(h0, last), "last": last[None],
            "reset": reset,
        }  # fmt: skip
        _sweep(views, b, _options(a_type, dtype, reverse, a), False)
    return states, last


def _one(state: Any, like: Any) -> Any:
    """A state as (1, ...) of the shape of `like`, not copied."""
    if isinstance(state, np.ndarray):
        return np.broadcast_to(state, like.shape)[None]
    return state.expand(like.shape)[None]


def _options(a_type: str, dtype: str, reverse: bool, a: Any) -> dict[str, int]:
    return {
        "wide": int(_REAL_OF[dtype] == "float64"), "complex_a": int(a_type.startswith("complex")),
        "complex_b": int(dtype.startswith("complex")), "reverse": int(reverse), "fixed": int(a.shape[0] == 1),
    }  # fmt: skip


def linear_backward(
    a: Any, b: Any, h0: Any, reset: Any, reverse: bool, states: Any, dstates: Any, dlast: Any
) -> tuple[Any, Any, Any]:
    """Cotangents of a, b and h0 (None without h0), of the shapes of a, b and a state.

    Args:
        a, b, h0, reset, reverse: as of :func:`linear_forward`.
        states: what it returned.
        dstates, dlast: cotangents of its results; None for zero.
    """
    dtype = dtype_name(states)
    a_type, b_type = _types(a, b, dtype)
    a, b, h0, dstates, dlast = (
        _of_type(x, t) for x, t in ((a, a_type), (b, b_type), (h0, dtype), (dstates, dtype), (dlast, dtype))
    )
    fixed = a.shape[0] == 1
    sums = a_type if not fixed else "complex128" if a_type.startswith("complex") else "float64"
    step = tuple(b.shape[1:])
    da = compiled.empty(b, (1 if fixed else b.shape[0], *step), sums)
    db, dh0 = compiled.empty(b, tuple(b.shape), dtype), compiled.empty(b, step, dtype)
    if math.prod(step):
        views = {
            "a": a, "b": b, "h": states, "h0": None if h0 is None else _one(h0, dh0), "reset": reset,
            "dh": dstates, "dlast": None if dlast is None else dlast[None], "da": da, "db": db, "dh0": dh0[None],
        }  # fmt: skip
        _sweep(views, b, _options(a_type, dtype, reverse, a), True)
    return da, db, None if h0 is None else dh0


# ---------------------------------------------------------------------- one input, N modes


def _problem(w: Any, sizes: tuple[int, ...], wide: bool, **options: Any) -> Any:
    batch, length, channels = sizes
    return _Lti(
        batch=batch, length=length, channels=channels, states=w.shape[1], wide=int(wide), isa=_ISA,
        w=compiled.address(w), **options,
    )  # fmt: skip


def _checkpoints(u: Any, sizes: tuple[int, ...], states: int) -> Any:
    batch, length, channels = sizes
    segments = -(-length // library().rec_sizes(2))
    return compiled.empty(u, (batch, segments, channels, 2 * (-(-states // 16) * 16)), "float64")


def lti_forward(
    u: Any, w: Any, B: Any, C: Any, D: Any, h0: Any, scale: float, reverse: bool, keep: bool = False
) -> tuple[Any, Any, Any]:
    """h_t = w h_{t-1} + B u_t, y_t = scale Re(C . h_t) + D u_t.

    Args:
        u: (batch, length, channel), float32 or float64.
        w, C: (channel, state) complex.
        B: as w, or None for ones.
        D: (channel,) real, or None.
        h0: (batch, channel, state) complex, or None.
        scale: factor of the real part.
        reverse: run from the last step to the first.
        keep: also return what :func:`lti_backward` starts from.

    Returns:
        y of the shape and dtype of u, the last state (batch, channel, state), and the checkpoints or None.
    """
    dtype = dtype_name(u)
    u, h0 = _of_type(u, dtype), _of_type(h0, _COMPLEX_OF[dtype])
    w, B, C = (_packed(x, "complex128") for x in (w, B, C))
    D = _packed(D, "float64")
    sizes = tuple(int(n) for n in u.shape)
    y = _like(u)
    last = compiled.empty(u, (sizes[0], sizes[2], int(w.shape[1])), _COMPLEX_OF[dtype])
    kept = _checkpoints(u, sizes, w.shape[1]) if keep else None
    problem = _problem(w, sizes, dtype == "float64", scale=scale, reverse=int(reverse))
    problem.B, problem.C, problem.D, problem.kept = (compiled.address(x) for x in (B, C, D, kept))
    problem.u, problem.y, problem.h0, problem.last = _view(u), _view(y), _view(h0), _view(last)
    if math.prod(sizes):
        _run("rec_lti", problem, False)
    elif math.prod(last.shape):
        last[...] = 0 if h0 is None else h0
    return y, last, kept


def _like(u: Any) -> Any:
    """An empty array whose axes lie in memory in the order of those of u."""
    if isinstance(u, np.ndarray):
        return np.empty_like(u, subok=False)
    import torch

    return torch.empty_like(u)


def lti_backward(
    u: Any, w: Any, B: Any, C: Any, D: Any, h0: Any, scale: float, reverse: bool, kept: Any, dy: Any, dlast: Any,
    of_input: bool = True, of_parameters: bool = True,
) -> tuple[Any, ...]:  # fmt: skip
    """Cotangents of u, w, B, C, D and h0: that of w, B, C in complex128, of D in float64.

    Args:
        u, w, B, C, D, h0, scale, reverse: as of :func:`lti_forward`.
        kept: the checkpoints that it returned; None will do without the parameters.
        dy, dlast: cotangents of its results; dlast may be None for zero.
        of_input: whether that of u is asked for; else it is None.
        of_parameters: whether those of w, B, C and D are asked for; else they are None.
    """
    dtype = dtype_name(u)
    complex_ = _COMPLEX_OF[dtype]
    u, dy, dlast = _of_type(u, dtype), _of_type(dy, dtype), _of_type(dlast, complex_)
    w, B, C = (_packed(x, "complex128") for x in (w, B, C))
    D = _packed(D, "float64")
    sizes = tuple(int(n) for n in u.shape)
    du = _like(u) if of_input else None
    dw, dB, dC = (compiled.empty(u, tuple(w.shape), "complex128") if of_parameters else None for _ in range(3))
    dD = compiled.empty(u, (sizes[2],), "float64") if of_parameters else None
    dh0 = compiled.empty(u, (sizes[0], sizes[2], int(w.shape[1])), complex_)
    problem = _problem(w, sizes, dtype == "float64", scale=scale, reverse=int(reverse))
    problem.B, problem.C, problem.D, problem.kept = (compiled.address(x) for x in (B, C, D, kept))
    problem.u, problem.dy, problem.du = _view(u), _view(dy), _view(du)
    problem.dlast, problem.dh0 = _view(dlast), _view(dh0)
    problem.dw, problem.dB, problem.dC, problem.dD = (compiled.address(x) for x in (dw, dB, dC, dD))
    if math.prod(sizes):
        _run("rec_lti", problem, True)
    else:
        for x in (dw, dB, dC, dD):
            if x is not None:
                x[...] = 0
        dh0[...] = 0 if dlast is None else dlast
    return du, dw, dB, dC, dD, dh0


def kernel_forward(w: Any, c: Any, length: int, scale: float, dtype: str, keep: bool = False) -> tuple[Any, Any]:
    """K_l = scale Re(sum_n c_n w_n^l) for l < length.

    Args:
        w: (channel, state) complex.
        c: (batch, channel, state) complex; many kernels of the same poles.
        length: number of values. A float32 kernel of more than `LONG_KERNEL` is computed in float64 and rounded.
        scale: factor of the real part.
        dtype: of the result, "float32" or "float64".
        keep: also return what :func:`kernel_backward` starts from.

    Returns:
        (batch, channel, length), and the checkpoints or None.
    """
    w, c = _packed(w, "complex128"), _of_type(c, "complex128")
    batch, channels, states = (int(n) for n in c.shape)
    sizes = batch, length, channels
    K = compiled.empty(c, (batch, channels, length), dtype)
    kept = _checkpoints(c, sizes, states) if keep else None
    if dtype == "float32" and length > LONG_KERNEL:
        some = max(1, _WIDE_VALUES // max(1, batch * length))
        for start in range(0, channels, some):
            at = slice(start, start + some)
            part, states_kept = kernel_forward(w[at], c[:, at], length, scale, "float64", keep)
            K[:, at] = part
            if kept is not None:
                kept[:, :, at] = states_kept
        return K, kept
    problem = _problem(w, sizes, dtype == "float64", scale=scale, reverse=0)
    problem.kept = compiled.address(kept)
    problem.y, problem.h0 = _view(K.swapaxes(1, 2)), _view(c)
    if math.prod(sizes):
        _run("rec_lti", problem, False)
    return K, kept


def kernel_backward(w: Any, c: Any, scale: float, kept: Any, dK: Any, of_poles: bool = True) -> tuple[Any, Any]:
    """Cotangents of w, in complex128, and of c, for that of the kernel, dK; arguments as of the forward pass.

    Without `of_poles` that of w is None, and `kept` has no use.
    """
    dtype = dtype_name(dK)
    w, dK = _packed(w, "complex128"), _of_type(dK, dtype)
    batch, channels, states = (int(n) for n in c.shape)
    sizes = batch, int(dK.shape[2]), channels
    dw = compiled.empty(c, tuple(w.shape), "complex128") if of_poles else None
    dc = compiled.empty(c, (batch, channels, states), _COMPLEX_OF[dtype])
    problem = _problem(w, sizes, dtype == "float64", scale=scale, reverse=0)
    problem.kept, problem.dw = compiled.address(kept), compiled.address(dw)
    problem.dy, problem.dh0 = _view(dK.swapaxes(1, 2)), _view(dc)
    if math.prod(sizes):
        _run("rec_lti", problem, True)
    else:
        if dw is not None:
            dw[...] = 0
        dc[...] = 0
    return dw, dc
