"""The compiled recurrences as differentiable functions of tensors in main memory.

Each is an autograd function with a backward pass of its own: the adjoint of a recurrence is the recurrence in reversed
order. Gradients of complex inputs follow PyTorch's convention, dL/dRe + i dL/dIm. The gradients cannot be
differentiated again; `torch.compile` breaks its graph at these calls.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ssmtheory.errors import BackendError
from ssmtheory.scan import recurrence_backend as compiled

__all__ = ["kernel", "linear_recurrence", "lti_scan"]

_DOUBLE_BACKWARD = (
    "backend='c': the gradient of the recurrence cannot be differentiated again (create_graph=True). "
    "Use JAX arrays (backend='jax') for second derivatives"
)


class _Once(torch.autograd.Function):
    """A backward pass, whose own derivative is refused in words."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise BackendError(_DOUBLE_BACKWARD)


def _like(gradient: Tensor, x: Tensor) -> Tensor:
    """A gradient in shape and dtype of its input: summed over what was broadcast, real where the input is real."""
    gradient = gradient.sum_to_size(x.shape)
    if gradient.is_complex() and not x.is_complex():
        gradient = gradient.real
    return gradient.to(x.dtype)


@torch.compiler.disable
def linear_recurrence(
    a: Tensor, b: Tensor, *, initial_state: Tensor | None, reset: Tensor | None, reverse: bool, dtype: str
) -> tuple[Tensor, Tensor]:
    """h_t = a_t h_{t-1} + b_t along axis 0; arguments as of :func:`recurrence_backend.linear_forward`."""
    return _Linear.apply(a, b, initial_state, reset, reverse, dtype)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        a: Tensor, b: Tensor, h0: Tensor | None, reset: Tensor | None, reverse: bool, dtype: str
    ) -> tuple[Tensor, Tensor]:
        return compiled.linear_forward(a, b, h0, reset, reverse, dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.reverse, _ = inputs
        ctx.save_for_backward(*tensors, output[0])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, dstates: Tensor | None, dlast: Tensor | None) -> tuple[Tensor | None, ...]:
        return (*_LinearBackward.apply(*ctx.saved_tensors, dstates, dlast, ctx.reverse), None, None, None)


class _LinearBackward(_Once):
    @staticmethod
    def forward(
        a: Tensor, b: Tensor, h0: Tensor | None, reset: Tensor | None, states: Tensor, dstates: Tensor | None,
        dlast: Tensor | None, reverse: bool,
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
        da, db, dh0 = compiled.linear_backward(a, b, h0, reset, reverse, states, dstates, dlast)
        if a.shape != da.shape and a.dtype in (torch.float32, torch.complex64):
            # what was broadcast is summed in double precision
            da = da.to(torch.complex128 if da.is_complex() else torch.float64)
        return _like(da, a), _like(db, b), None if h0 is None or dh0 is None else _like(dh0, h0)


@torch.compiler.disable
def lti_scan(
    u: Tensor, w: Tensor, B: Tensor | None, C: Tensor, D: Tensor | None, h0: Tensor | None, scale: float, reverse: bool
) -> tuple[Tensor, Tensor]:
    """y and the last state; arguments as of :func:`recurrence_backend.lti_forward`."""
    y, last, _ = _Scan.apply(u, w, B, C, D, h0, scale, reverse, _wanted(w, B, C, D))
    return y, last


def _wanted(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(u: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        y, last, kept = compiled.lti_forward(u, *arguments)
        return y, last, u.new_empty(0) if kept is None else kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, scale, reverse, _ = inputs
        ctx.options = scale, reverse
        ctx.mark_non_differentiable(output[2])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, output[2])

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, dlast: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
        need = ctx.needs_input_grad[0], any(ctx.needs_input_grad[1:5])
        return (*_ScanBackward.apply(*ctx.saved_tensors, dy, dlast, *ctx.options, *need), None, None, None)


class _ScanBackward(_Once):
    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor | None, ...]:
        u, w, B, C, D, h0, kept, dy, dlast, scale, reverse, of_input, of_parameters = arguments
        call = u, w, B, C, D, h0, scale, reverse
        if of_parameters and not kept.numel():
            # the forward pass did not know that a gradient would be asked for
            kept = compiled.lti_forward(*call, keep=True)[2]
        dy = u.new_zeros(1).expand(u.shape) if dy is None else dy
        found = compiled.lti_backward(*call, kept, dy, dlast, of_input, of_parameters)
        return tuple(None if x is None or g is None else _like(g, x) for g, x in zip(found, call[:6], strict=True))


@torch.compiler.disable
def kernel(w: Tensor, c: Tensor, length: int, scale: float, dtype: str) -> Tensor:
    """(batch, channel, length); arguments as of :func:`recurrence_backend.kernel_forward`."""
    return _Kernel.apply(w, c, length, scale, dtype, _wanted(w))[0]


class _Kernel(torch.autograd.Function):
    @staticmethod
    def forward(w: Tensor, c: Tensor, length: int, scale: float, dtype: str, keep: bool) -> tuple[Tensor, Tensor]:
        K, kept = compiled.kernel_forward(w, c, length, scale, dtype, keep)
        return K, K.new_empty(0) if kept is None else kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        w, c, ctx.length, ctx.scale, ctx.dtype, _ = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(w, c, output[1])

    @staticmethod
    def backward(ctx: Any, dK: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        return (
            *_KernelBackward.apply(*ctx.saved_tensors, dK, ctx.length, ctx.scale, ctx.dtype, ctx.needs_input_grad[0]),
            None,
            None,
            None,
            None,
        )


class _KernelBackward(_Once):
    @staticmethod
    def forward(
        w: Tensor, c: Tensor, kept: Tensor, dK: Tensor, length: int, scale: float, dtype: str, of_poles: bool
    ) -> tuple[Tensor | None, Tensor]:
        if of_poles and not kept.numel():
            kept = compiled.kernel_forward(w, c, length, scale, dtype, keep=True)[1]
        dw, dc = compiled.kernel_backward(w, c, scale, kept, dK, of_poles)
        return None if dw is None else _like(dw, w), _like(dc, c)
