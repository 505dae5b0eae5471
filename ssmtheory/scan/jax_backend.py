"""JAX scan: ``lax.scan`` over chunks of ``lax.scan`` over steps, each chunk rematerialised in the backward pass.

Differentiable to any order and in both modes, and usable under ``jit`` and ``vmap``. The states are float64 inside,
under a local ``jax.enable_x64(True)``; the global flag is never touched and results come back in the caller's dtype.

Layout of the state: (batch, group, state, channel of the group).
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ssmtheory.errors import BackendError
from ssmtheory.scan.problem import Reduce, ScanProblem, chunk_length

__all__ = ["from_numpy", "from_numpy_recurrence", "linear_recurrence", "selective_scan"]

#: Size of the states handed at once to ``reduce``.
_REDUCE_BYTES = 1 << 20
#: Sequences up to this length are one chunk.
_UNCHUNKED = 64
#: Largest x with finite exp(x) in float64.
_MAX_EXPONENT = 709.0


def _chunk(length: int) -> int:
    """About sqrt(length), so that chunk boundaries and the states of one chunk take the same memory backwards.

    A divisor of the length where there is one nearby: a rest would be compiled a second time.
    """
    if length <= _UNCHUNKED:
        return max(1, length)
    root = math.isqrt(length)
    divisors = [n for n in range(root // 2, 2 * root + 1) if length % n == 0]
    return min(divisors, key=lambda n: abs(n - root), default=root)


def _half_exponential(x: Any) -> Any:
    """f with f*f = exp(x), finite where exp(x) is not: a zero state stays zero, a tiny one finite, under A > 0."""
    if jnp.iscomplexobj(x):
        return jnp.exp(lax.complex(jnp.minimum(x.real / 2, _MAX_EXPONENT), x.imag / 2))
    return jnp.exp(jnp.minimum(x / 2, _MAX_EXPONENT))


def _static(problem: ScanProblem) -> tuple[Any, ...]:
    return problem.reverse, problem.scale, problem.compute_dtype, problem.state_dtype


def selective_scan(problem: ScanProblem, *, reduce: Reduce | None = None) -> tuple[Any, Any]:
    """Run the core recurrence on JAX arrays.

    Args:
        problem: the scan in normal form.
        reduce: receives the states in the dtype of the last state; not inside jit, grad or vmap, where no state
            is a number.

    Returns:
        y (batch, length, channel) and the last state (batch, channel, state).

    Raises:
        BackendError: ``reduce`` inside a JAX transformation.
    """
    arrays = (problem.u, problem.delta, problem.A, problem.B, problem.C, problem.initial_state, problem.reset)
    if reduce is None:
        with jax.enable_x64(True):
            return _scan(*arrays, options=_static(problem))
    if any(isinstance(x, jax.core.Tracer) for x in arrays):
        raise BackendError(
            "backend='jax': reduce needs states that exist, and inside jit, grad or vmap they do not. "
            "Call the scan outside of the transformation"
        )
    return _reduced(arrays, problem, reduce)


def _reduced(arrays: tuple[Any, ...], problem: ScanProblem, reduce: Reduce) -> tuple[Any, Any]:
    """The scan in pieces of the sequence, each handing over its states; ``reduce`` runs in the caller's precision."""
    u, delta, A, B, C, h, reset = arrays
    batch, length, channels, _, states = problem.sizes
    options = _static(problem)
    if not length:
        with jax.enable_x64(True):
            return _scan(*arrays, options=options)
    steps = chunk_length(length, 8 * batch * channels * states, _REDUCE_BYTES)
    starts = list(range(0, length, steps))
    pieces = []
    for start in reversed(starts) if problem.reverse else starts:
        part = slice(start, min(start + steps, length))
        with jax.enable_x64(True):
            inputs = (
                u[:, part],
                delta[:, part],
                A,
                B[:, part],
                C[:, part],
                h,
                None if reset is None else reset[:, part],
            )
            y, h, kept = _scan(*inputs, options=options, keep=True)
            kept = kept.astype(problem.state_dtype)
        reduce(kept, start)
        pieces.append(y)
    if problem.reverse:
        pieces.reverse()
    with jax.enable_x64(True):
        return jnp.concatenate(pieces, axis=1), h.astype(problem.state_dtype)


@functools.partial(jax.jit, static_argnames=("options", "keep"))
def _scan(
    u: Any, delta: Any, A: Any, B: Any, C: Any, h0: Any, reset: Any, *, options: tuple[Any, ...], keep: bool = False
) -> Any:
    """The scan; with ``keep`` also all states (batch, length, channel, state), the last one in working precision."""
    reverse, scale, compute_dtype, state_dtype = options
    batch, length, channels = u.shape
    groups, states = B.shape[2:]
    per_group = channels // groups
    work = jnp.complex128 if state_dtype.startswith("complex") else jnp.float64
    rates = A.reshape(groups, per_group, A.shape[1]).swapaxes(1, 2)
    rates = rates.astype(jnp.complex128 if jnp.iscomplexobj(A) else jnp.float64)
    h = jnp.zeros((batch, groups, states, per_group), work)
    if h0 is not None:
        h = h + h0.reshape(batch, groups, per_group, states).swapaxes(2, 3)

    def step(h: Any, inputs: Any) -> tuple[Any, Any]:
        u, delta, B, C, reset = inputs
        if reset is not None:
            h = jnp.where(reset[:, None, None, None], 0, h)
        dt = delta.astype(jnp.float64).reshape(batch, groups, 1, per_group)
        half = _half_exponential(dt * rates)
        h = h * half * half + (dt * u.astype(jnp.float64).reshape(dt.shape)) * B[..., None]
        y = jnp.sum(C[..., None] * h, axis=2)
        y = (scale * (y.real if jnp.iscomplexobj(y) else y)).astype(compute_dtype).reshape(batch, channels)
        if keep:
            return h, (y, h.swapaxes(2, 3).reshape(batch, channels, states))
        return h, (y,)

    inputs = [None if x is None else jnp.moveaxis(x, 1, 0) for x in (u, delta, B, C, reset)]
    h, outputs = _chunked(step, h, inputs, length, reverse)
    y = jnp.moveaxis(outputs[0], 0, 1) if length else jnp.zeros((batch, 0, channels), compute_dtype)
    if keep:
        return y, h.swapaxes(2, 3).reshape(batch, channels, states), jnp.moveaxis(outputs[1], 0, 1)
    return y, h.swapaxes(2, 3).reshape(batch, channels, states).astype(state_dtype)


def _chunked(step: Any, h: Any, inputs: list[Any], length: int, reverse: bool) -> tuple[Any, Any]:
    """lax.scan of ``step`` along axis 0 whose reverse-mode memory is that of two chunks, not of all steps."""

    def inner(h: Any, part: Any) -> tuple[Any, Any]:
        return lax.scan(step, h, part, reverse=reverse)

    if not length:
        return h, ()
    chunk = _chunk(length)
    count, rest = divmod(length, chunk)
    cut = count * chunk
    # in reverse the incomplete chunk comes first in time, so it is scanned last
    whole = [None if x is None else x[:cut].reshape(count, chunk, *x.shape[1:]) for x in inputs]
    remainder = [None if x is None else x[cut:] for x in inputs]
    rematerialised = jax.checkpoint(inner)
    if reverse and rest:
        h, tail = rematerialised(h, remainder)
    h, head = lax.scan(rematerialised, h, whole, reverse=reverse)
    if not reverse and rest:
        h, tail = rematerialised(h, remainder)
    outputs = tuple(x.reshape(cut, *x.shape[2:]) for x in head)
    if rest:
        outputs = tuple(jnp.concatenate(pair) for pair in zip(outputs, tail, strict=True))
    return h, outputs


def linear_recurrence(a: Any, b: Any, *, initial_state: Any, reset: Any, reverse: bool, dtype: str) -> tuple[Any, Any]:
    """h_t = a_t h_{t-1} + b_t along axis 0; arguments as in the NumPy backend."""
    with jax.enable_x64(True):
        return _recurrence(a, b, initial_state, reset, reverse=reverse, dtype=dtype)


@functools.partial(jax.jit, static_argnames=("reverse", "dtype"))
def _recurrence(a: Any, b: Any, h0: Any, reset: Any, *, reverse: bool, dtype: str) -> tuple[Any, Any]:
    work = jnp.complex128 if dtype.startswith("complex") else jnp.float64
    h = jnp.zeros(b.shape[1:], work)
    if h0 is not None:
        h = h + h0
    invariant = a.shape[0] == 1
    wide = jnp.complex128 if jnp.iscomplexobj(a) else jnp.float64

    def step(h: Any, inputs: Any) -> tuple[Any, Any]:
        at, bt, reset = inputs
        if reset is not None:
            h = jnp.where(reset, 0, h)
        h = h * (a[0] if at is None else at).astype(wide) + bt
        return h, (h.astype(dtype),)

    h, outputs = _chunked(step, h, [None if invariant else a, b, reset], b.shape[0], reverse)
    return (outputs[0] if b.shape[0] else b.astype(dtype)), h.astype(dtype)


def from_numpy(problem: ScanProblem, reduce: Reduce | None) -> tuple[Any, Any]:
    """The scan of NumPy arrays by this backend: converted on the way in and out."""
    import dataclasses

    names = ("u", "delta", "A", "B", "C", "initial_state", "reset")
    with jax.enable_x64(True):
        values: dict[str, Any] = {name: getattr(problem, name) for name in names}
        values = {name: None if x is None else jnp.asarray(x) for name, x in values.items()}
        problem = dataclasses.replace(problem, **values)
        inner = None if reduce is None else (lambda states, start: reduce(np.asarray(states), start))
        y, last = selective_scan(problem, reduce=inner)
        # the API scales and gates in place
        return np.array(y), np.array(last)


def from_numpy_recurrence(
    a: Any, b: Any, *, initial_state: Any, reset: Any, reverse: bool, dtype: str
) -> tuple[Any, Any]:
    """The linear recurrence of NumPy arrays by this backend."""
    with jax.enable_x64(True):
        arrays = [None if x is None else jnp.asarray(x) for x in (a, b, initial_state, reset)]
        states, last = linear_recurrence(
            arrays[0], arrays[1], initial_state=arrays[2], reset=arrays[3], reverse=reverse, dtype=dtype
        )
        return np.array(states), np.array(last)
