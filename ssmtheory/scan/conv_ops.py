"""The compiled causal convolution as operators of PyTorch: ``ssmtheory::causal_conv1d`` and its adjoint.

As with the compiled scan, an operator is opaque to everything that traces: ``torch.compile`` and checkpointing go
through the rules registered here. The backward pass keeps only the inputs, and can be differentiated once more.
Transformations of ``torch.func`` and forward mode have the array-API lines: :func:`transformed` says when.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ssmtheory.errors import BackendError
from ssmtheory.scan import conv_backend
from ssmtheory.scan.conv_backend import readable

__all__ = ["causal_conv1d", "status", "transformed"]

_STATUS = conv_backend.status()
_INPUTS = "Tensor x, Tensor weight, Tensor? bias, Tensor? initial_state"
_FORWARD, _BACKWARD = "ssmtheory::causal_conv1d", "ssmtheory::causal_conv1d_backward"
torch.library.define(_FORWARD, f"({_INPUTS}, bool silu) -> (Tensor, Tensor)")
torch.library.define(
    _BACKWARD, f"(Tensor? dy, Tensor? dlast, {_INPUTS}, bool silu) -> (Tensor, Tensor, Tensor, Tensor)"
)


def status() -> tuple[bool, str]:
    """As of `conv_backend`; asked once and for all, since torch.compile cannot look into a folder."""
    return _STATUS


def transformed() -> bool:
    """Whether a transformation of torch.func, or forward mode, is under way."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._functorch.peek_interpreter_stack() is not None or torch.autograd.forward_ad._current_level >= 0


def causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, silu: bool
) -> tuple[Tensor, Tensor]:
    """Run the compiled convolution on validated tensors in main memory, differentiably.

    Returns:
        y and the last inputs, of the dtype of x.
    """
    return torch.ops.ssmtheory.causal_conv1d(x, weight, bias, initial_state, silu)


@torch.library.impl(_FORWARD, "CPU")
def _forward(x: Any, weight: Any, bias: Any, initial: Any, silu: bool) -> tuple[Tensor, Tensor]:
    y, last = conv_backend.run_forward(readable(x), readable(weight), readable(bias), readable(initial), silu)
    return y.to(x.dtype), last.to(x.dtype)


@torch.library.register_fake(_FORWARD)
def _forward_fake(x: Any, weight: Any, bias: Any, initial: Any, silu: bool) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty((x.shape[0], weight.shape[1] - 1, x.shape[2]))


@torch.library.impl(_BACKWARD, "CPU")
def _backward(dy: Any, dlast: Any, x: Any, weight: Any, bias: Any, initial: Any, silu: bool) -> tuple[Tensor, ...]:
    dy = x.new_zeros(1).expand(x.shape) if dy is None else dy
    found = conv_backend.run_backward(
        readable(x), readable(weight), readable(bias), readable(initial), silu, readable(dy), readable(dlast)
    )
    pairs = zip((x, weight, bias, initial), found, strict=True)
    return tuple(x.new_empty(0) if v is None else g.to(v.dtype).contiguous() for v, g in pairs)


@torch.library.register_fake(_BACKWARD)
def _backward_fake(dy: Any, dlast: Any, *arguments: Any) -> tuple[Tensor, ...]:
    x, *_ = arguments
    return tuple(x.new_empty(0) if v is None else v.new_empty(v.shape) for v in arguments[:4])


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.silu = inputs
    # a cotangent that is not there costs no array of zeros
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)


def _gradient(ctx: Any, dy: Any, dlast: Any) -> tuple[Any, ...]:
    tensors = ctx.saved_tensors
    if dy is None and dlast is None:
        return (None,) * 5
    found = torch.ops.ssmtheory.causal_conv1d_backward(dy, dlast, *tensors, ctx.silu)
    return *(None if v is None else g for v, g in zip(tensors, found, strict=True)), None


torch.library.register_autograd(_FORWARD, _gradient, setup_context=_setup)


def _setup_again(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.silu = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)


def _second_gradient(ctx: Any, *cotangents: Any) -> tuple[Any, ...]:
    """Second derivatives are those of the array-API lines, whose every operation torch can differentiate."""
    from ssmtheory.scan.conv import convolve

    if torch.is_grad_enabled():
        raise BackendError(
            "backend='c': the convolution can be differentiated twice, not three times (create_graph=True). "
            "Use backend='torch'"
        )
    with torch.enable_grad():
        inputs = [None if v is None else v.detach().requires_grad_() for v in ctx.saved_tensors]
        dy, dlast, x, weight, bias, initial = inputs
        primal = x, weight, bias, initial
        outputs = convolve(x, weight, bias, initial, ctx.silu)
        pairs = [(o, d) for o, d in zip(outputs, (dy, dlast), strict=True) if d is not None]
        given = [v for v in primal if v is not None]
        first = torch.autograd.grad(
            [o for o, _ in pairs], given, [d for _, d in pairs], create_graph=True, materialize_grads=True
        )
        # the cotangents that came are those of the adjoint's outputs, an empty one where there was no input
        wanted = [c for v, c in zip(primal, cotangents, strict=True) if v is not None]
        seen = [(g, c) for g, c in zip(first, wanted, strict=True) if c is not None]
        leaves = [v for v in inputs if v is not None]
        found = iter(torch.autograd.grad([g for g, _ in seen], leaves, [c for _, c in seen], allow_unused=True))
    return *(None if v is None else next(found) for v in inputs), None


torch.library.register_autograd(_BACKWARD, _second_gradient, setup_context=_setup_again)
