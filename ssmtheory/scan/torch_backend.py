"""PyTorch scan: differentiable, with a backward pass of its own that recomputes the states chunk by chunk.

Autograd through a Python loop over time costs O(length^2) (every slice's gradient is a full-size tensor of zeros) and
keeps every state. Here the forward pass keeps the state at chunk boundaries only, and the backward pass rebuilds one
chunk of states at a time from the boundary before it.

The state is float64 whatever the inputs (see :mod:`ssmtheory.scan.numpy_backend` for the reason); on Apple's MPS
devices, which have no float64, it is float32. Layout: (chunk, batch, group, state, channel of the group).

Gradients of complex inputs follow PyTorch's convention: dL/dRe + i dL/dIm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssmtheory.errors import BackendError
from ssmtheory.scan.problem import Reduce, ScanProblem, chunk_length

__all__ = ["from_numpy", "from_numpy_recurrence", "linear_recurrence", "selective_scan"]

#: Size of one temporary; the backward pass keeps about five of them.
_CHUNK_BYTES = 1 << 20
#: With gradients the state is kept once per chunk: shorter chunks would keep more than the size of u.
_SHORTEST_CHUNK = 16
#: Largest x with finite exp(x), by precision of the state.
_MAX_EXPONENT = {torch.float64: 709.0, torch.float32: 88.0}
_DOUBLE_BACKWARD = (
    "backend='torch': the gradient of the scan cannot be differentiated again (create_graph=True). "
    "Use JAX arrays (backend='jax') for second derivatives"
)


@dataclass(frozen=True)
class _Options:
    """What is not a tensor. ``reset_steps[t]``: some sequence is reset before step t."""

    scale: int
    compute_dtype: torch.dtype
    state_dtype: torch.dtype
    reset_steps: list[bool] | None
    chunk: int
    keep: bool
    reduce: Reduce | None
    reverse: bool
    may_overflow: bool
    real: torch.dtype

    @property
    def work(self) -> torch.dtype:
        """Precision in which states are carried."""
        return _complex_of(self.real) if self.state_dtype.is_complex else self.real


def _complex_of(real: torch.dtype) -> torch.dtype:
    return torch.complex128 if real == torch.float64 else torch.complex64


def _real_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def selective_scan(problem: ScanProblem, *, reduce: Reduce | None = None) -> tuple[Tensor, Tensor]:
    """Run the core recurrence on PyTorch tensors, differentiably.

    Args:
        problem: the scan in normal form.
        reduce: receives detached states, valid during the call only.

    Returns:
        y (batch, length, channel) and the last state (batch, channel, state).
    """
    u, delta, A, B, C = problem.u, problem.delta, problem.A, problem.B, problem.C
    reset = problem.reset
    batch, length, channels, _, states = problem.sizes
    state_dtype = getattr(torch, problem.state_dtype)
    h0 = problem.initial_state
    if problem.reverse:
        u, delta, B, C = u.flip(1), delta.flip(1), B.flip(1), C.flip(1)
        reset = None if reset is None else reset.flip(1)
    real = _real_dtype(u.device)
    keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (u, delta, A, B, C, h0))
    item = (2 if state_dtype.is_complex else 1) * (8 if real == torch.float64 else 4)
    shortest = _SHORTEST_CHUNK if keep else 4
    options = _Options(
        scale=problem.scale,
        compute_dtype=getattr(torch, problem.compute_dtype),
        state_dtype=state_dtype,
        reset_steps=None if reset is None else reset.any(0).tolist(),
        chunk=chunk_length(length, batch * channels * states * item, _CHUNK_BYTES, shortest),
        keep=keep,
        reduce=reduce,
        reverse=problem.reverse,
        may_overflow=_may_overflow(delta, A, real),
        real=real,
    )
    y, last, _ = _Scan.apply(u, delta, A, B, C, h0, reset, options)
    return (y.flip(1) if problem.reverse else y), last


def _may_overflow(delta: Tensor, A: Tensor, real: torch.dtype) -> bool:
    """Whether exp(delta A) could exceed the largest number; one synchronisation with the device."""
    if not delta.numel() or not A.numel():
        return False
    with torch.no_grad():
        steps, rates = torch.aminmax(delta.detach().to(real)), torch.aminmax(_re(A.detach()).to(real))
        return bool(torch.maximum(steps.max * rates.max, steps.min * rates.min) > _MAX_EXPONENT[real])


def _re(x: Tensor) -> Tensor:
    return x.real if x.is_complex() else x


def _like(gradient: Tensor, x: Tensor) -> Tensor:
    """A gradient in the dtype of its input; the imaginary part goes where the input is real."""
    return (gradient if x.is_complex() else _re(gradient)).to(x.dtype)


class _Chunk:
    """Inputs of one chunk in working precision and layout, and its states."""

    def __init__(self, inputs: tuple[Tensor, ...], A: Tensor, start: int, stop: int, options: _Options) -> None:
        u, delta, B = inputs
        self.start, self.stop = start, stop
        self.options = options
        batch, _, channels = u.shape
        groups = B.shape[2]
        shape = (stop - start, batch, groups, 1, channels // groups)
        real = options.real
        self.u = u[:, start:stop].transpose(0, 1).to(real).reshape(shape)
        self.delta = delta[:, start:stop].transpose(0, 1).to(real).reshape(shape)
        # (chunk, batch, group, state, 1)
        self.B = B[:, start:stop].transpose(0, 1).to(_complex_of(real) if B.is_complex() else real)[..., None]
        self.decay = self.delta * A
        self.second = None
        if options.may_overflow:
            # exp(x) as a product of two finite factors: a zero state stays zero, a tiny one finite
            limit = _MAX_EXPONENT[real]
            x = _re(self.decay)
            half = torch.where(x > limit, (x / 2).clamp(max=limit), 0)
            x = torch.where(x > limit, half, x)
            self.second = half.exp()
            self.decay = torch.complex(x, self.decay.imag) if self.decay.is_complex() else x
        self.decay = self.decay.exp_()
        if options.work.is_complex:
            # the fused multiply-add needs one dtype
            self.decay = self.decay.to(options.work)

    def states(self, h: Tensor, reset: Tensor | None) -> Tensor:
        """All states of the chunk (chunk, batch, group, state, channel of the group), from the one before it."""
        x = (self.delta * self.u) * self.B
        x = x.to(self.options.work)
        steps = self.options.reset_steps
        if self.second is None and steps is None:
            for decay, state in zip(self.decay.unbind(0), x.unbind(0), strict=True):
                h = state.addcmul_(decay, h)
            return x
        for t in range(self.stop - self.start):
            if steps is not None and steps[self.start + t]:
                h = _forget(reset, self.start + t, h)
            if self.second is None:
                h = x[t].addcmul_(self.decay[t], h)
            else:
                h = x[t].add_(self.decay[t] * h * self.second[t])
        return x


def _forget(reset: Tensor | None, t: int, h: Tensor) -> Tensor:
    """Zero the sequences that are reset before step t; assigned, not multiplied, so that inf and NaN go too."""
    assert reset is not None
    return torch.where(reset[:, t, None, None, None], torch.zeros((), dtype=h.dtype, device=h.device), h)


def _contract(left: Tensor, right: Tensor) -> Tensor:
    """Sum over the states: left (..., state, 1), right (..., state, channel) to (..., 1, channel)."""
    if right.shape[-1] >= 8:
        return left.transpose(-1, -2).to(right.dtype) @ right
    return (left * right).sum(-2, keepdim=True)


def _sum_channels(left: Tensor, right: Tensor) -> Tensor:
    """Sum over the channels of a group: left (..., state, channel), right (..., 1, channel) to (..., state)."""
    if left.shape[-1] >= 8:
        return (left @ right.transpose(-1, -2).to(left.dtype))[..., 0]
    return (left * right).sum(-1)


def _grouped(A: Tensor, groups: int, options: _Options) -> Tensor:
    """(channel, state) to (group, state, channel of the group), in working precision."""
    work = _complex_of(options.real) if A.is_complex() else options.real
    return A.to(work).reshape(groups, A.shape[0] // groups, A.shape[1]).transpose(1, 2)


def _to_state(h: Tensor) -> Tensor:
    """(batch, group, state, channel of the group) to (batch, channel, state)."""
    batch, groups, states, per_group = h.shape
    return h.transpose(2, 3).reshape(batch, groups * per_group, states)


def _from_state(h: Tensor, groups: int) -> Tensor:
    batch, channels, states = h.shape
    return h.reshape(batch, groups, channels // groups, states).transpose(2, 3)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        h0: Tensor | None,
        reset: Tensor | None,
        options: _Options,
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch, length, channels = u.shape
        groups, states = B.shape[2:]
        per_group = channels // groups
        rates = _grouped(A, groups, options)
        h = torch.zeros(batch, groups, states, per_group, dtype=options.work, device=u.device)
        if h0 is not None:
            h = h + _from_state(h0, groups)
        y = torch.empty(batch, length, channels, dtype=options.compute_dtype, device=u.device)
        boundaries = []
        for start in range(0, length, options.chunk):
            stop = min(start + options.chunk, length)
            if options.keep:
                boundaries.append(h)
            x = _Chunk((u, delta, B), rates, start, stop, options).states(h, reset)
            values = _re(_contract(C[:, start:stop].transpose(0, 1)[..., None], x))
            if options.scale != 1:
                values = values * options.scale
            y[:, start:stop] = values.reshape(stop - start, batch, channels).transpose(0, 1)
            if options.reduce is not None:
                view = x.permute(1, 0, 2, 4, 3).reshape(batch, stop - start, channels, states)
                if options.reverse:
                    options.reduce(view.flip(1), length - stop)
                else:
                    options.reduce(view, start)
            # a copy, so that the chunk can be freed
            h = x[-1].clone()
        kept = torch.stack(boundaries) if boundaries else h.new_empty(0)
        return y, _to_state(h).to(options.state_dtype), kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, options = inputs
        kept = output[2]
        ctx.mark_non_differentiable(kept)
        ctx.save_for_backward(*tensors, kept)
        ctx.options = options

    @staticmethod
    def backward(ctx: Any, dy: Tensor, dlast: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        return (*_ScanBackward.apply(dy, dlast, *ctx.saved_tensors, ctx.options), None, None)


class _ScanBackward(torch.autograd.Function):
    """The adjoint scan, a function of its own so that differentiating it again is refused in words."""

    @staticmethod
    def forward(
        dy: Tensor,
        dlast: Tensor,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        h0: Tensor | None,
        reset: Tensor | None,
        kept: Tensor,
        options: _Options,
    ) -> tuple[Tensor | None, ...]:
        batch, length, channels = u.shape
        groups = B.shape[2]
        rates = _grouped(A, groups, options)
        conj_rates = rates.conj()
        du, ddelta, dB, dC = (torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (u, delta, B, C))
        dA = torch.zeros_like(rates)
        # adjoint of the state at the end of the chunk
        dh = _from_state(dlast.to(options.work), groups)
        steps = options.reset_steps
        for i in reversed(range(kept.shape[0]) if length else ()):
            start = i * options.chunk
            stop = min(start + options.chunk, length)
            part = _Chunk((u, delta, B), rates, start, stop, options)
            h = part.states(kept[i], reset)
            before = torch.cat([kept[i : i + 1], h[:-1]])
            if steps is not None:
                mask = reset[:, start:stop].transpose(0, 1)[..., None, None, None]  # type: ignore[index]
                before = torch.where(mask, torch.zeros((), dtype=h.dtype, device=h.device), before)
            cotangent = dy[:, start:stop].transpose(0, 1).reshape(part.u.shape).to(options.real) * options.scale
            conj_C = C[:, start:stop].transpose(0, 1)[..., None].conj()
            # adjoint states: first what y asks for, then what flows back through time
            g = (conj_C.to(options.work) * cotangent).contiguous()
            g[-1] += dh
            back = part.decay.conj().resolve_conj()
            if part.second is None and steps is None:
                rows, factors = g.unbind(0), back.unbind(0)
                for t in range(stop - start - 1, 0, -1):
                    rows[t - 1].addcmul_(factors[t], rows[t])
                dh = factors[0] * rows[0]
            else:
                for t in range(stop - start - 1, -1, -1):
                    through = back[t] * g[t] if part.second is None else back[t] * g[t] * part.second[t]
                    if steps is not None and steps[start + t]:
                        through = _forget(reset, start + t, through)
                    if t:
                        g[t - 1] += through
                    else:
                        dh = through
            dC[:, start:stop] = _like(_sum_channels(h.conj(), cotangent), C).transpose(0, 1)
            source = part.delta * part.u
            dB[:, start:stop] = _like(_sum_channels(g, source), B).transpose(0, 1)
            dsource = _re(_contract(part.B.conj(), g))
            # adjoint of delta A
            before *= part.decay
            if part.second is not None:
                before *= part.second
            z = before.conj_physical_().mul_(g)
            if rates.shape[1] == 1:
                z = z.sum(-2, keepdim=True)
            if not A.is_complex():
                z = _re(z)
            dstep = dsource * part.u + _re((conj_rates * z).sum(-2, keepdim=True))
            dA += z.mul_(part.delta).sum((0, 1))
            shape = (stop - start, batch, channels)
            du[:, start:stop] = (dsource * part.delta).reshape(shape).transpose(0, 1).to(u.dtype)
            ddelta[:, start:stop] = dstep.reshape(shape).transpose(0, 1).to(delta.dtype)
        dA = dA.transpose(1, 2).reshape(A.shape)
        dh0 = None if h0 is None else _like(_to_state(dh), h0)
        return du, ddelta, _like(dA, A), dB, dC, dh0

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise BackendError(_DOUBLE_BACKWARD)


def linear_recurrence(
    a: Tensor, b: Tensor, *, initial_state: Tensor | None, reset: Tensor | None, reverse: bool, dtype: str
) -> tuple[Tensor, Tensor]:
    """h_t = a_t h_{t-1} + b_t along axis 0, differentiably; arguments as in the NumPy backend."""
    if reverse:
        a, b = (a.flip(0) if a.shape[0] > 1 else a), b.flip(0)
        reset = None if reset is None else reset.flip(0)
    steps = None if reset is None else reset.reshape(b.shape[0], -1).any(1).tolist()
    states, last = _Recurrence.apply(a, b, initial_state, reset, steps, getattr(torch, dtype))
    return (states.flip(0) if reverse else states), last


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        a: Tensor, b: Tensor, h0: Tensor | None, reset: Tensor | None, steps: list[bool] | None, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        real = _real_dtype(b.device)
        work = _complex_of(real) if dtype.is_complex else real
        length = b.shape[0]
        states = torch.empty(b.shape, dtype=dtype, device=b.device)
        h = torch.zeros(b.shape[1:], dtype=work, device=b.device)
        if h0 is not None:
            h = h + h0
        zero = torch.zeros((), dtype=work, device=b.device)
        chunk = chunk_length(length, h.numel() * h.element_size(), _CHUNK_BYTES)
        for start in range(0, length, chunk):
            stop = min(start + chunk, length)
            x = b[start:stop].to(work, copy=True).contiguous()
            decay = (a if a.shape[0] == 1 else a[start:stop]).to(work)
            for t in range(stop - start):
                if steps is not None and steps[start + t]:
                    h = torch.where(reset[start + t], zero, h)  # type: ignore[index]
                h = x[t].addcmul_(decay[t if decay.shape[0] > 1 else 0], h)
            states[start:stop] = x
            h = h.clone()
        return states, h.to(dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        a, b, h0, reset, steps, dtype = inputs
        ctx.save_for_backward(a, b, h0, reset, output[0])
        ctx.steps = steps
        ctx.dtype = dtype

    @staticmethod
    def backward(ctx: Any, dstates: Tensor, dlast: Tensor) -> tuple[Tensor | None, ...]:
        gradients = _RecurrenceBackward.apply(dstates, dlast, *ctx.saved_tensors, ctx.steps, ctx.dtype)
        return (*gradients, None, None, None)


class _RecurrenceBackward(torch.autograd.Function):
    @staticmethod
    def forward(
        dstates: Tensor,
        dlast: Tensor,
        a: Tensor,
        b: Tensor,
        h0: Tensor | None,
        reset: Tensor | None,
        states: Tensor,
        steps: list[bool] | None,
        dtype: torch.dtype,
    ) -> tuple[Tensor | None, ...]:
        real = _real_dtype(b.device)
        work = _complex_of(real) if dtype.is_complex else real
        length = b.shape[0]
        zero = torch.zeros((), dtype=work, device=b.device)
        da = torch.zeros(a.shape, dtype=work, device=a.device)
        db = torch.zeros_like(b, memory_format=torch.contiguous_format)
        first = torch.zeros(b.shape[1:], dtype=work, device=b.device)
        if h0 is not None:
            first = first + h0
        dh = dlast.to(work)
        chunk = chunk_length(length, first.numel() * first.element_size(), _CHUNK_BYTES)
        for start in reversed(range(0, length, chunk)):
            stop = min(start + chunk, length)
            g = dstates[start:stop].to(work, copy=True).contiguous()
            decay = (a if a.shape[0] == 1 else a[start:stop]).to(work).conj().resolve_conj()
            for t in range(stop - start - 1, -1, -1):
                g[t] += dh
                dh = decay[t if decay.shape[0] > 1 else 0] * g[t]
                if steps is not None and steps[start + t]:
                    dh = torch.where(reset[start + t], zero, dh)  # type: ignore[index]
            before = states[start - 1 : stop - 1] if start else torch.cat([first[None].to(dtype), states[: stop - 1]])
            before = before.to(work)
            if reset is not None:
                before = torch.where(reset[start:stop], zero, before)
            product = before.conj() * g
            if a.shape[0] == 1:
                da += product.sum_to_size(a.shape)
            else:
                da[start:stop] = product.sum_to_size(da[start:stop].shape)
            db[start:stop] = _like(g, b)
        return _like(da, a), db, (None if h0 is None else _like(dh.expand(h0.shape), h0))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise BackendError(_DOUBLE_BACKWARD)


def _tensor(x: Any) -> Any:
    """A NumPy array as a tensor; bfloat16, which torch cannot take over from NumPy, widens to float32."""
    if x is None:
        return None
    if x.dtype.name == "bfloat16":
        x = x.astype(np.float32)
    # negative strides and read-only memory are not for torch
    return torch.from_numpy(np.array(x, order="C"))


def from_numpy(problem: ScanProblem, reduce: Reduce | None) -> tuple[Any, Any]:
    """The scan of NumPy arrays by this backend: converted on the way in and out."""
    import dataclasses

    names = ("u", "delta", "A", "B", "C", "initial_state", "reset")
    problem = dataclasses.replace(problem, **{name: _tensor(getattr(problem, name)) for name in names})
    inner = None if reduce is None else (lambda states, start: reduce(states.numpy(), start))
    y, last = selective_scan(problem, reduce=inner)
    return y.numpy(), last.numpy()


def from_numpy_recurrence(
    a: Any, b: Any, *, initial_state: Any, reset: Any, reverse: bool, dtype: str
) -> tuple[Any, Any]:
    """The linear recurrence of NumPy arrays by this backend."""
    narrow = dtype == "bfloat16"
    states, last = linear_recurrence(
        _tensor(a), _tensor(b), initial_state=_tensor(initial_state), reset=_tensor(reset), reverse=reverse,
        dtype="float32" if narrow else dtype,
    )  # fmt: skip
    if narrow:
        return states.numpy().astype(b.dtype), last.numpy().astype(b.dtype)
    return states.numpy(), last.numpy()
