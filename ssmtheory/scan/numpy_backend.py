"""NumPy scan: chunked along the length, state in float64 whatever the precision of the inputs.

A float32 state loses three digits on slow systems (delta*A = -1e-6 over a million steps): the rounding of
exp(delta*A) is the same at every step and accumulates over the memory of the system, and so does the rounding of the
state. In float64 both disappear and no compensation is needed; the price is one float64 exponential per element,
which is most of the running time.

Layout: (chunk, batch, group, state, channel of the group), so that a step touches contiguous memory, B and C broadcast
along the innermost axis, and the contraction with C is a small matrix product.
"""

from __future__ import annotations

import numpy as np

from ssmtheory.scan.problem import Reduce, ScanProblem, chunk_length
from ssmtheory.typing import Array

__all__ = ["linear_recurrence", "selective_scan"]

#: Two temporaries of this size are alive: small enough for a second-level cache.
_CHUNK_BYTES = 1 << 20
#: Largest x with finite exp(x) in float64.
_MAX_EXPONENT = 709.0
#: States below this would soon be denormal, at a hundred times the cost of a normal number; no result resolves them.
_NEGLIGIBLE = 1e-290


def selective_scan(
    problem: ScanProblem, *, reduce: Reduce | None = None, out: Array | None = None
) -> tuple[Array, Array]:
    """Run the core recurrence on NumPy arrays.

    Args:
        problem: the scan in normal form.
        reduce: receives read-only views of the states in float64 or complex128, valid during the call only.
        out: array of shape (batch, length, channel) that receives y; its memory may not overlap an input.

    Returns:
        y (batch, length, channel) and the last state (batch, channel, state) in ``problem.state_dtype``.
    """
    batch, length, channels, groups, states = problem.sizes
    per_group = channels // groups
    state_type = np.dtype(np.complex128 if problem.complex_state else np.float64)
    decay_type = np.dtype(np.complex128 if np.iscomplexobj(problem.A) else np.float64)
    y = np.empty((batch, length, channels), problem.compute_dtype) if out is None else out
    h = np.zeros((batch, groups, states, per_group), state_type)
    if problem.initial_state is not None:
        h[...] = problem.initial_state.reshape(batch, groups, per_group, states).swapaxes(2, 3)

    order = slice(None, None, -1 if problem.reverse else 1)
    # time first; all of these are views
    u = problem.u[:, order].swapaxes(0, 1)
    delta = problem.delta[:, order].swapaxes(0, 1)
    B = problem.B[:, order].swapaxes(0, 1)
    C = problem.C[:, order].swapaxes(0, 1)
    y_ordered = y[:, order].swapaxes(0, 1)
    reset = None if problem.reset is None else problem.reset[:, order].swapaxes(0, 1)
    # (group, state or 1, channel of the group)
    A = problem.A.reshape(groups, per_group, problem.A.shape[1]).swapaxes(1, 2).astype(decay_type)

    chunk = chunk_length(length, batch * channels * states * state_type.itemsize, _CHUNK_BYTES)
    decay_memory = np.empty((chunk, batch, *A.shape), decay_type)
    state_memory = np.empty((chunk, batch, groups, states, per_group), state_type)
    carried = np.empty_like(h)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for start in range(0, length, chunk):
            part = slice(start, min(start + chunk, length))
            steps = part.stop - start
            shape = (steps, batch, groups, 1, per_group)
            dt = delta[part].astype(np.float64).reshape(shape)
            # (dt u) B, then overwritten step by step with the states
            x = state_memory[:steps]
            np.multiply(
                (dt.reshape(shape) * u[part].astype(np.float64).reshape(shape)),
                B[part][..., None].astype(B.dtype if B.dtype.kind == "c" else np.float64),
                out=x,
            )
            decay = np.multiply(dt, A, out=decay_memory[:steps])
            second = _exponential(decay)
            for t in range(steps):
                if reset is not None and reset[start + t].any():
                    # assigned, not multiplied: a reset also forgets inf and NaN
                    h = np.where(reset[start + t][:, None, None, None], 0, h)
                np.multiply(h, decay[t], out=carried)
                if second is not None:
                    np.multiply(carried, second[t], out=carried)
                h = x[t]
                h += carried
            _contract(C[part], x, y_ordered[part], problem.scale)
            if reduce is not None:
                _emit(reduce, x, part, length, problem)
            h = h.copy()
            h[np.abs(h) < _NEGLIGIBLE] = 0
    last = h.swapaxes(2, 3).reshape(batch, channels, states)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return y, last.astype(problem.state_dtype)


def _exponential(x: Array) -> Array | None:
    """Replace x by exp(x), in place; where that would overflow, by a factor f and return s with f*s = exp(x).

    A state of zero stays zero, and a tiny state stays finite, under a decay that overflows on its own (A > 0).
    """
    # the comparison is false for NaN, which must pass through; x.real is x where x is real
    if not x.size or not (x.real.max() > _MAX_EXPONENT):
        if x.dtype.kind != "c":
            np.exp(x, out=x)
            return None
        _complex_exponential(x)
        return None
    second = np.where(x.real > _MAX_EXPONENT, np.minimum(x.real / 2, _MAX_EXPONENT), 0)
    if x.dtype.kind != "c":
        np.copyto(x, second, where=second > 0)
        np.exp(x, out=x)
    else:
        np.copyto(x.real, second, where=second > 0)
        _complex_exponential(x)
    return np.exp(second, out=second)


def _complex_exponential(x: Array) -> None:
    """exp(x) in place from vectorised real functions: the complex one of NumPy is scalar code."""
    radius = np.exp(x.real)
    angle = x.imag.copy()
    np.multiply(radius, np.cos(angle), out=x.real)
    np.multiply(radius, np.sin(angle), out=x.imag)


def _contract(C: Array, h: Array, y: Array, scale: int) -> None:
    """y = scale * Re(sum over states of C h); C (chunk, batch, group, state), y (chunk, batch, channel)."""
    steps, batch, groups, _, per_group = h.shape
    if C.dtype != h.dtype:
        C = C.astype(h.dtype if C.dtype.kind == "c" or h.dtype.kind != "c" else np.float64)
    if per_group >= 8:
        values = np.matmul(C[..., None, :], h)
    else:
        # thousands of tiny matrix products would each pay for a call
        values = np.einsum("tbgn,tbgnp->tbgp", C, h)
    if values.dtype.kind == "c":
        values = values.real
    values = values.reshape(steps, batch, groups * per_group)
    if scale == 1:
        y[...] = values
    else:
        np.multiply(values, scale, out=y, casting="same_kind")


def _emit(reduce: Reduce, h: Array, part: slice, length: int, problem: ScanProblem) -> None:
    """Hand one chunk of states to the caller, in token order and in the documented layout."""
    steps, batch, groups, states, per_group = h.shape
    view = h.transpose(1, 0, 2, 4, 3).reshape(batch, steps, groups * per_group, states)
    start = part.start
    if problem.reverse:
        view, start = view[:, ::-1], length - part.stop
    view.flags.writeable = False
    reduce(view, start)


def linear_recurrence(
    a: Array,
    b: Array,
    *,
    initial_state: Array | None,
    reset: Array | None,
    reverse: bool,
    dtype: str,
    out: Array | None = None,
) -> tuple[Array, Array]:
    """h_t = a_t h_{t-1} + b_t along axis 0.

    Args:
        a: (length or 1, ...), broadcasts to b.
        b: (length, ...).
        initial_state: shape of b without its first axis, or None.
        reset: (length, 1s and sizes that broadcast against a step of b) bool, or None.
        reverse: run from the last index to the first.
        dtype: name of the dtype of the result.
        out: receives the states.

    Returns:
        All states, of the shape of b, and the last one.
    """
    result_type = np.dtype(dtype)
    work = np.dtype(np.complex128 if result_type.kind == "c" else np.float64)
    length, step_shape = b.shape[0], b.shape[1:]
    result = np.empty(b.shape, result_type) if out is None else out
    h = np.zeros(step_shape, work)
    if initial_state is not None:
        h[...] = initial_state
    if reverse:
        b, a = b[::-1], a[::-1]
        reset = None if reset is None else reset[::-1]
    ordered = result[::-1] if reverse else result
    invariant = a.shape[0] == 1
    wide = np.complex128 if a.dtype.kind == "c" else np.float64
    factor = a[0].astype(wide) if invariant else np.empty(0, wide)
    chunk = chunk_length(length, int(np.prod(step_shape)) * work.itemsize, _CHUNK_BYTES)
    carried = np.empty_like(h)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for start in range(0, length, chunk):
            part = slice(start, min(start + chunk, length))
            # a C-ordered copy in working precision, overwritten with the states
            x = np.array(b[part], dtype=work, order="C")
            if not invariant:
                decay = np.array(a[part], dtype=wide, order="C")
            for t in range(part.stop - start):
                if reset is not None and reset[start + t].any():
                    h = np.where(reset[start + t], 0, h)
                np.multiply(h, factor if invariant else decay[t], out=carried)
                h = x[t : t + 1].reshape(step_shape)
                h += carried
            ordered[part] = x
            h = h.copy()
            h[np.abs(h) < _NEGLIGIBLE] = 0
        return result, h.astype(result_type)
