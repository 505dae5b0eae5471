"""The specification: the recurrence as it is written in the paper, one step after another, in float64.

Slow and obvious on purpose; every other backend is tested against it. Backend name "reference".
"""

from __future__ import annotations

import numpy as np

from ssmtheory.scan.problem import Reduce, ScanProblem
from ssmtheory.typing import Array

__all__ = ["linear_recurrence", "selective_scan"]


def selective_scan(
    problem: ScanProblem, *, reduce: Reduce | None = None, out: Array | None = None
) -> tuple[Array, Array]:
    """Run the scan step by step; arguments and returns as in :func:`ssmtheory.scan.numpy_backend.selective_scan`."""
    batch, length, channels, groups, states = problem.sizes
    wide = np.complex128 if problem.complex_state else np.float64
    group_of = np.arange(channels) // (channels // groups) if channels else np.zeros(0, int)
    y = np.empty((batch, length, channels), problem.compute_dtype) if out is None else out
    h = np.zeros((batch, channels, states), wide)
    if problem.initial_state is not None:
        h[...] = problem.initial_state
    A = problem.A.astype(wide)
    with np.errstate(all="ignore"):
        for t in range(length)[:: -1 if problem.reverse else 1]:
            if problem.reset is not None:
                h = np.where(problem.reset[:, t, None, None], 0, h)
            delta = problem.delta[:, t].astype(np.float64)[:, :, None]
            u = problem.u[:, t].astype(np.float64)[:, :, None]
            B = problem.B[:, t].astype(wide)[:, group_of]
            C = problem.C[:, t].astype(wide)[:, group_of]
            h = np.exp(delta * A) * h + delta * u * B
            y[:, t] = problem.scale * np.sum(C * h, axis=-1).real
            if reduce is not None:
                reduce(h[:, None], t)
        return y, h.astype(problem.state_dtype)


def linear_recurrence(
    a: Array, b: Array, *, initial_state: Array | None, reset: Array | None, reverse: bool, dtype: str
) -> tuple[Array, Array]:
    """h_t = a_t h_{t-1} + b_t along axis 0, step by step; arguments as in the NumPy backend."""
    wide = np.complex128 if np.dtype(dtype).kind == "c" else np.float64
    states = np.empty(b.shape, dtype)
    h = np.zeros(b.shape[1:], wide)
    if initial_state is not None:
        h = h + initial_state
    with np.errstate(all="ignore"):
        for t in range(b.shape[0])[:: -1 if reverse else 1]:
            if reset is not None:
                h = np.where(reset[t], 0, h)
            h = a[t if a.shape[0] > 1 else 0].astype(wide) * h + b[t].astype(wide)
            states[t] = h
        return states, h.astype(dtype)
