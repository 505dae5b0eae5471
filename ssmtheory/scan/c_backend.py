"""The compiled selective scan (``kernel.c``): every form of the scan, on NumPy arrays and on tensors in main memory.

The library is built at install where there is a C compiler, and loaded with ctypes, so that it depends on neither the
Python nor the torch ABI. It reads float32 and float64 of any strides in place; bias, softplus, skip and gate happen
inside, forward and backward. Half precisions are widened to float32 first.

Arithmetic follows the inputs: float32, with states that carry their rounding errors; float64 where an input is float64
or where `reduce` watches the states; complex128 where the state is complex.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssmtheory.scan import compiled
from ssmtheory.scan.arrays import COMPLEX, dtype_name
from ssmtheory.scan.problem import ARRAYS, Reduce, chunk_length

__all__ = [
    "ScanCall", "instruction_set", "library", "library_path", "run_backward", "run_forward", "selective_scan", "status",
]  # fmt: skip

SEGMENT = 16
"""Steps between two checkpoints: SEG of kernel.c."""

#: 0 is the best instruction set of the machine; 1, 2, ... are generic, avx2, avx512.
_ISA = 0
#: Size of the states that `reduce` sees at once.
_CHUNK_BYTES = 1 << 20
#: At least so many pieces of work, none wider than so many channels: enough for the cores, and for the caches.
_PIECES, _WIDEST = 8, 256
_FLOAT, _DOUBLE, _COMPLEX = range(3)
_ELEMENT = {"float32": 0, "float64": 1, "complex64": 2, "complex128": 3, "bool": 0, "uint8": 0}
_NUMBERS = (
    "batch", "length", "channels", "states", "groups", "rates", "rate_states", "steps", "skips", "parts", "cuts",
    "start", "stop", "reverse", "softplus", "scale", "kind", "isa",
)  # fmt: skip
_POINTERS = ("A", "D", "bias", "kept", "dA", "dD", "dbias")
_VIEWS = (
    "u", "delta", "z", "y", "B", "C", "h0", "last", "reset", "all", "dy", "du", "ddelta", "dz", "dB", "dC", "dlast",
    "dh0",
)  # fmt: skip


class _View(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("type", ctypes.c_int64), ("stride", ctypes.c_int64 * 5)]


class _Problem(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in _NUMBERS),
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, _View) for name in _VIEWS),
    ]


def library_path() -> Path | None:
    """Return the path of the compiled kernel, or None where the package was installed without one."""
    return compiled.library_path("kernel")


@functools.cache
def library() -> ctypes.CDLL:
    """Load the compiled kernel.

    Raises:
        BackendError: the package was installed on a machine without a C compiler, or its kernel is of another version.
    """
    path = library_path()
    lib = compiled.load("kernel", path)
    size = getattr(lib, "ssm_problem_bytes", None)
    if size is None or size() != ctypes.sizeof(_Problem):
        raise compiled.stale("kernel", path)
    lib.ssm_instruction_set.restype = ctypes.c_char_p
    return lib


def instruction_set(number: int = 0) -> str | None:
    """Return the name of an instruction set that the kernel can use on this machine, counted from 1.

    Args:
        number: 0 is the one in use, the best.

    Returns:
        "generic", "avx2" or "avx512"; None where the machine has no such set.
    """
    name = library().ssm_instruction_set(number)
    return None if name is None else name.decode()


@functools.cache
def status() -> tuple[bool, str]:
    """Whether the kernel can be used, and in words why: "compiled (avx2)", "not compiled", ..."""
    return compiled.status(instruction_set, library_path)


@dataclass(frozen=True)
class ScanCall:
    """Arguments of one scan: all arrays of one library, of float32, float64, complex64 or complex128.

    Shapes are those of :func:`ssmtheory.scan.selective_scan`, but that B and C always have a group axis, of one size.
    """

    u: Any
    delta: Any
    A: Any
    B: Any
    C: Any
    D: Any
    z: Any
    delta_bias: Any
    initial_state: Any
    reset: Any
    softplus: bool
    reverse: bool
    scale: int
    wide: bool
    complex_state: bool
    reduce: Reduce | None

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """(batch, length, channel, group, state)."""
        return *self.u.shape, *self.B.shape[2:]

    @property
    def kind(self) -> int:
        """The arithmetic of the kernel."""
        if self.complex_state:
            return _COMPLEX
        return _DOUBLE if self.wide or self.reduce is not None else _FLOAT

    @property
    def state_dtype(self) -> str:
        """Name of the dtype of the last state."""
        if self.complex_state:
            return "complex128" if self.wide else "complex64"
        return "float64" if self.wide else "float32"

    @property
    def checkpoints(self) -> tuple[tuple[int, ...], str]:
        """Shape (batch, segment, state, 1 or 2, channel) and dtype of the states that the backward pass starts from."""
        batch, length, channels, _, states = self.sizes
        shape = (batch, -(-length // SEGMENT), states, 2 if self.complex_state else 1, channels)
        return shape, "float32" if self.kind == _FLOAT else "float64"

    def problem(self, **views: Any) -> tuple[_Problem, list[Any]]:
        """The problem as the kernel takes it, without outputs, and what must live as long."""
        batch, length, channels, groups, states = self.sizes
        parts, cuts = _pieces(batch, channels, groups)
        A = _wide(self.A, self.complex_state)
        D, bias = _wide(self.D), _wide(self.delta_bias)
        problem = _Problem(
            batch=batch, length=length, channels=channels, states=states, groups=groups,
            rates=max(1, A.shape[0]), rate_states=A.shape[1] if A.ndim == 2 else 1,
            steps=max(1, self.delta.shape[2]), skips=1 if D is None else max(1, D.shape[0]),
            parts=parts, cuts=cuts, start=0, stop=length,
            reverse=self.reverse, softplus=self.softplus, scale=self.scale, kind=self.kind, isa=_ISA,
            A=compiled.address(A), D=compiled.address(D), bias=compiled.address(bias),
        )  # fmt: skip
        views = {
            "u": self.u, "delta": self.delta, "z": self.z, "B": self.B, "C": self.C, "h0": self.initial_state,
            "reset": self.reset, **views,
        }  # fmt: skip
        for name, array in views.items():
            if array is not None:
                setattr(problem, name, _view(array))
        return problem, [A, D, bias]


def _pieces(batch: int, channels: int, groups: int) -> tuple[int, int]:
    """Into how many parts the groups are cut, and each group: by the shape alone, so that sums are repeatable."""
    pieces = max(-(-_PIECES // max(1, batch)), -(-channels // _WIDEST))
    if groups >= pieces:
        return pieces, 1
    return groups, max(1, min(-(-pieces // groups), -(-(channels // groups) // 64)))


def _view(array: Any) -> _View:
    strides = (ctypes.c_int64 * 5)(*compiled.byte_strides(array))
    return _View(compiled.address(array), _ELEMENT[dtype_name(array)], strides)


def _wide(array: Any, complex_: bool = False) -> Any:
    """A small array as C-contiguous float64, or complex128."""
    if array is None:
        return None
    if isinstance(array, np.ndarray):
        return np.ascontiguousarray(array, np.complex128 if complex_ else np.float64)
    import torch

    return array.detach().to(torch.complex128 if complex_ else torch.float64).resolve_conj().contiguous()


def _run(function: str, problem: _Problem) -> None:
    if getattr(library(), function)(ctypes.byref(problem)):
        raise MemoryError("backend 'c': no memory for the scratch space of the scan")


def run_forward(call: ScanCall, out: Any = None, keep: bool = False) -> tuple[Any, Any, Any]:
    """Run the scan forward.

    Args:
        call: the scan.
        out: (batch, length, channel), float32 or float64, receives y; not the memory of an input. None makes an array.
        keep: also keep what the backward pass starts from.

    Returns:
        y in float32 or float64, the last state (batch, channel, state), and the checkpoints (see
        `ScanCall.checkpoints`) or None.
    """
    batch, _, channels, _, states = call.sizes
    y = compiled.empty(call.u, call.u.shape) if out is None else out
    last = compiled.empty(call.u, (batch, channels, states), call.state_dtype)
    kept = compiled.empty(call.u, *call.checkpoints) if keep else None
    problem, alive = call.problem(y=y, last=last)
    problem.kept = compiled.address(kept)
    if call.reduce is None:
        _run("ssm_forward", problem)
    else:
        _stream(call, problem, last)
    del alive
    return y, last, kept


def _stream(call: ScanCall, problem: _Problem, last: Any) -> None:
    """The forward scan a chunk at a time, each followed by a call of `reduce` with its states."""
    batch, length, channels, _, states = call.sizes
    assert call.reduce is not None
    dtype = "complex128" if call.complex_state else "float64"
    state = compiled.empty(call.u, (batch, channels, states), dtype, zero=True)
    if call.initial_state is not None:
        state[...] = call.initial_state
    problem.h0 = problem.last = _view(state)
    step = batch * channels * states * (16 if call.complex_state else 8)
    chunk = chunk_length(length, step, _CHUNK_BYTES, SEGMENT) // SEGMENT * SEGMENT or SEGMENT
    memory = compiled.empty(call.u, (batch, min(chunk, length), channels, states), dtype)
    for start in range(0, length, chunk):
        stop = min(start + chunk, length)
        token = length - stop if call.reverse else start
        view = _view(memory)
        # the kernel counts tokens from the first of all
        if view.data is not None:
            view.data -= token * view.stride[1]
        problem.all, problem.start, problem.stop = view, start, stop
        _run("ssm_forward", problem)
        seen = memory[:, : stop - start]
        if isinstance(seen, np.ndarray):
            seen.flags.writeable = False
        call.reduce(seen, token)
    with np.errstate(over="ignore"):
        last[...] = state


def run_backward(call: ScanCall, kept: Any, dy: Any, dlast: Any) -> tuple[Any, ...]:
    """Run the adjoint scan on tensors.

    Args:
        call: the scan.
        kept: the checkpoints of its forward run.
        dy: cotangent of y, (batch, length, channel).
        dlast: cotangent of the last state, (batch, channel, state), or None for zero.

    Returns:
        Cotangents of the arrays of the call, in their order; None where there is no array, and for `reset`.
    """
    batch, _, channels, groups, _ = call.sizes
    _, cuts = _pieces(batch, channels, groups)
    du, ddelta = compiled.empty(call.u, call.u.shape), None
    if call.delta.shape[2] == channels:
        ddelta = compiled.empty(call.delta, call.delta.shape)
    spread = compiled.empty(call.u, call.u.shape, "float64" if call.wide else "float32") if ddelta is None else ddelta
    # groups narrower than a vector are summed in memory
    narrow = groups > 1 and channels // groups < 16
    dB, dC = (compiled.empty(x, (*x.shape, cuts), zero=narrow) for x in (call.B, call.C))
    rate_states = call.A.shape[1] if call.A.ndim == 2 else 1
    dA = compiled.empty(call.u, (batch, channels, rate_states), "complex128" if call.complex_state else "float64")
    dz, dh0 = (None if x is None else compiled.empty(x, x.shape) for x in (call.z, call.initial_state))
    dD, dbias = (compiled.empty(call.u, (batch, channels), "float64") for _ in range(2))
    problem, alive = call.problem(
        dy=dy, dlast=dlast, du=du, ddelta=spread, dz=dz, dB=dB, dC=dC, dh0=dh0,
    )  # fmt: skip
    problem.kept, problem.dA, problem.dD, problem.dbias = (compiled.address(x) for x in (kept, dA, dD, dbias))
    _run("ssm_backward", problem)
    del alive
    dB, dC = (x[..., 0] if cuts == 1 else x.sum(-1) for x in (dB, dC))
    if ddelta is None:
        ddelta = _like(_by_row(spread, call.delta.shape[2]), call.delta)
    rates = dA.sum(0).reshape(call.A.shape[0], -1, rate_states).sum(1)
    dD = None if call.D is None else _like(_by_row(dD.sum(0), call.D.shape[0]), call.D)
    bias = call.delta_bias
    dbias = None if bias is None else _like(_by_row(dbias.sum(0), bias.shape[0]), bias)
    return du, ddelta, _like(rates.reshape(call.A.shape), call.A), dB, dC, dD, dz, dbias, dh0, None


def _by_row(x: Any, rows: int) -> Any:
    """Sum the channels of a head; the last axis becomes `rows`."""
    return x.reshape(*x.shape[:-1], rows, -1 if rows else 0).sum(-1)


def _like(gradient: Any, x: Any) -> Any:
    """A gradient in the dtype of its input: the real part where the input is real."""
    if gradient.is_complex() and not x.is_complex():
        gradient = gradient.real
    return gradient.to(x.dtype)


def selective_scan(
    arrays: Mapping[str, Any], *, softplus: bool, reverse: bool, reduce: Reduce | None, scale: int, out: Any
) -> tuple[Any, Any]:
    """Run the kernel on NumPy arrays (tensors: :mod:`ssmtheory.scan.torch_ops`).

    Args:
        arrays: the validated arrays of :func:`ssmtheory.scan.selective_scan`, by name.
        softplus, reverse, reduce: as there.
        scale: multiplies Re(C h): 2 for conjugate pairs.
        out: receives y, if given.

    Returns:
        y (batch, length, channel) of the dtype of u, and the last state (batch, channel, state).
    """
    values = {name: arrays[name] for name in ARRAYS}
    values["B"], values["C"] = same_groups(values["B"], values["C"])
    call = scan_call(values.values(), softplus, reverse, scale, reduce)
    if out is None:
        y, last, _ = run_forward(call)
        return y.astype(arrays["u"].dtype, copy=False), last
    # the kernel reads its inputs again after it has written y
    direct = dtype_name(out) in ("float32", "float64") and out.flags.aligned and out.flags.writeable
    direct = direct and not any(x is not None and np.may_share_memory(out, x) for x in values.values())
    y, last, _ = run_forward(call, out if direct else None)
    if not direct:
        out[...] = y
    return out, last


def scan_call(
    arrays: Iterable[Any], softplus: bool, reverse: bool, scale: int, reduce: Reduce | None = None, read: bool = True
) -> ScanCall:
    """The call of the kernel on arrays in the order of `ARRAYS`, B and C with equal groups.

    Args:
        arrays: None where there is none.
        softplus, reverse, scale, reduce: as of :func:`selective_scan`.
        read: False for arrays without memory, of which only shapes and dtypes will be asked.
    """
    given = list(arrays)
    names = {dtype_name(x) for x in given if x is not None}
    values = [readable(x) for x in given] if read else given
    return ScanCall(
        **dict(zip(ARRAYS, values, strict=True)), softplus=softplus, reverse=reverse, scale=scale,
        wide=not names.isdisjoint(("float64", "complex128")), complex_state=not names.isdisjoint(COMPLEX),
        reduce=reduce,
    )  # fmt: skip


def readable(x: Any) -> Any:
    """An array as the kernel can read it: half precisions become float32, all else is left where it is."""
    if x is None:
        return None
    half = dtype_name(x) in ("float16", "bfloat16")
    if isinstance(x, np.ndarray):
        return x.astype(np.float32) if half else x if x.flags.aligned else x.copy()
    return x.float() if half else x.resolve_conj().resolve_neg()


def same_groups(B: Any, C: Any) -> tuple[Any, Any]:
    """B and C with a group axis, of one size."""
    B, C = (x if x.ndim == 4 else x[:, :, None, :] for x in (B, C))
    if B.shape[2] == C.shape[2]:
        return B, C
    # math.lcm does not take the symbolic sizes of torch.compile
    common, rest = B.shape[2], C.shape[2]
    while rest:
        common, rest = rest, common % rest
    groups = B.shape[2] // common * C.shape[2]

    def spread(x: Any) -> Any:
        times = groups // x.shape[2]
        if times == 1:
            return x
        return np.repeat(x, times, 2) if isinstance(x, np.ndarray) else x.repeat_interleave(times, 2)

    return spread(B), spread(C)
