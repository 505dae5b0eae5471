"""The compiled selective scan (``kernel.c``): real float32, one time-varying input-output pair per token.

The library is built at install where there is a C compiler, and loaded with ctypes, so that it depends on neither the
Python nor the torch ABI. What it does not cover (complex A, float64, grouped B and C, scalar A per head) it refuses.
"""

from __future__ import annotations

import ctypes
import functools
import math
from pathlib import Path
from typing import Any

import numpy as np

from ssmtheory.errors import BackendError

SEGMENT = 16
"""Steps between two checkpoints: SEG of kernel.c."""

_LOG2E = math.log2(math.e)
_FIELDS = ("u", "delta", "A2", "A", "B", "C", "h0", "reset", "y", "last", "checkpoints", "dy", "dlast")
_GRADIENTS = ("du", "ddelta", "dA", "dB", "dC", "dh0")


class _Problem(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("batch", "length", "channels", "states", "groups")] + [
        (name, ctypes.c_void_p) for name in _FIELDS + _GRADIENTS
    ]


def library_path() -> Path | None:
    """Return the path of the compiled kernel, or None where the package was installed without one."""
    found = sorted(Path(__file__).parent.glob("_kernel*.so"))
    return found[0] if found else None


@functools.cache
def library() -> ctypes.CDLL:
    """Load the compiled kernel.

    Raises:
        BackendError: the package was installed on a machine without a C compiler.
    """
    path = library_path()
    if path is None:
        raise BackendError(
            "backend 'c': the kernel was not compiled when ssmtheory was installed. "
            "Install a C compiler and run: pip install --force-reinstall --no-deps ssmtheory; "
            "or choose backend='numpy', 'torch' or 'jax'"
        )
    lib = ctypes.CDLL(str(path))
    lib.ssm_instruction_set.restype = ctypes.c_char_p
    return lib


def instruction_set() -> str:
    """Return the instruction set that the compiled kernel uses on this machine: "avx2" or "generic"."""
    return library().ssm_instruction_set().decode()


def channel_groups(batch: int, channels: int) -> int:
    """Return into how many groups of channels a problem is cut: by its shape alone, so that sums are repeatable."""
    blocks = -(-channels // 8)
    return max(1, min(8 // max(batch, 1), blocks // 8))


def _pointer(array: Any) -> int | None:
    if array is None:
        return None
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data_ptr()


def _problem(shape: tuple[int, int, int, int], **arrays: Any) -> _Problem:
    batch, length, channels, states = shape
    problem = _Problem(batch, length, channels, states, channel_groups(batch, channels))
    for name, array in arrays.items():
        setattr(problem, name, _pointer(array))
    return problem


def numpy_forward(u: Any, delta: Any, A: Any, B: Any, C: Any, initial_state: Any, reset: Any) -> tuple[Any, Any]:
    """Run the kernel on NumPy arrays.

    Args:
        u, delta: (batch, length, channel) float32.
        A: (channel, state) float32.
        B, C: (batch, length, state) float32.
        initial_state: (batch, channel, state) float32, or None for zero.
        reset: (batch, length) bool, or None.

    Returns:
        y (batch, length, channel) without the skip term, and the last state (batch, channel, state).
    """
    batch, length, channels = u.shape
    states = A.shape[1]
    u, delta, B, C = (np.ascontiguousarray(x, dtype=np.float32) for x in (u, delta, B, C))
    A2 = np.ascontiguousarray((A.T.astype(np.float64) * _LOG2E).astype(np.float32))
    last = np.zeros((batch, states, channels), dtype=np.float32)
    if initial_state is not None:
        last[...] = np.swapaxes(initial_state, 1, 2)
    flags = None if reset is None else np.ascontiguousarray(reset, dtype=np.uint8)
    y = np.empty_like(u)
    shape = (batch, length, channels, states)
    problem = _problem(shape, u=u, delta=delta, A2=A2, B=B, C=C, reset=flags, y=y, last=last)
    library().ssm_forward(ctypes.byref(problem))
    return y, np.swapaxes(last, 1, 2)


@functools.cache
def _function() -> Any:
    import torch

    class CompiledScan(torch.autograd.Function):
        """Keeps the state at every 16th step and recomputes the states between in the backward pass."""

        @staticmethod
        def forward(ctx: Any, u: Any, delta: Any, A: Any, B: Any, C: Any, initial_state: Any, reset: Any) -> Any:
            batch, length, channels = u.shape
            states = A.shape[1]
            u, delta, B, C = (x.contiguous() for x in (u, delta, B, C))
            At = A.T.contiguous()
            A2 = (At.double() * _LOG2E).float()
            last = initial_state.transpose(1, 2).contiguous().clone()
            flags = None if reset is None else reset.to(torch.uint8).contiguous()
            y = torch.empty_like(u)
            kept = None
            if any(ctx.needs_input_grad):
                kept = torch.empty(batch, -(-length // SEGMENT), states, channels)
            shape = (batch, length, channels, states)
            problem = _problem(shape, u=u, delta=delta, A2=A2, B=B, C=C, reset=flags, y=y, last=last, checkpoints=kept)
            library().ssm_forward(ctypes.byref(problem))
            ctx.shape = shape
            ctx.save_for_backward(u, delta, At, A2, B, C, flags, kept)
            return y, last.transpose(1, 2)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, dy: Any, dlast: Any) -> Any:
            u, delta, At, A2, B, C, flags, kept = ctx.saved_tensors
            batch, length, channels, states = ctx.shape
            dy = dy.contiguous()
            groups = channel_groups(batch, channels)
            du, ddelta = torch.empty_like(u), torch.empty_like(delta)
            dA = torch.zeros(batch, states, channels)
            dB, dC = torch.empty(groups, batch, length, states), torch.empty(groups, batch, length, states)
            dh0 = dlast.transpose(1, 2).contiguous().clone()
            problem = _problem(
                ctx.shape, u=u, delta=delta, A2=A2, A=At, B=B, C=C, reset=flags, checkpoints=kept,
                dy=dy, du=du, ddelta=ddelta, dA=dA, dB=dB, dC=dC, dh0=dh0,
            )  # fmt: skip
            if library().ssm_backward(ctypes.byref(problem)):
                raise MemoryError("backend 'c': no memory for the scratch space of the backward scan")
            return du, ddelta, dA.sum(0).T, dB.sum(0), dC.sum(0), dh0.transpose(1, 2), None

    return CompiledScan


def torch_scan(u: Any, delta: Any, A: Any, B: Any, C: Any, initial_state: Any, reset: Any) -> tuple[Any, Any]:
    """Run the kernel on CPU tensors, differentiably; arguments and returns as in `numpy_forward`."""
    if initial_state is None:
        initial_state = u.new_zeros(u.shape[0], u.shape[2], A.shape[1])
    return _function().apply(u, delta, A, B, C, initial_state, reset)
