"""The compiled scan as operators of PyTorch: ``ssmtheory::selective_scan``, its adjoint, and one that writes to `out`.

An operator is opaque to everything that traces: ``torch.compile`` puts one node into its graph (dynamic sizes too),
``torch.utils.checkpoint``, ``torch.func.grad`` and ``torch.func.vmap`` go through the rules registered here, and
autocast leaves it alone: y has the dtype of u. Shapes are those of :func:`ssmtheory.scan.selective_scan`, but that B
and C have a group axis, of one size. A callable cannot pass through an operator, so `reduce` runs beside it.

The forward pass keeps the state at every 16th step where a gradient will be wanted; the backward pass recomputes the
states between.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ssmtheory.errors import BackendError
from ssmtheory.scan import c_backend
from ssmtheory.scan.problem import ARRAYS, OPERATOR_BACKWARD, OPERATOR_FORWARD, OPERATOR_INPUTS, Reduce

__all__ = ["KERNEL", "selective_scan", "streamed"]

#: The state of the kernel, once and for all: torch.compile cannot look into a folder.
KERNEL = c_backend.status()
_FORWARD, _BACKWARD, _INTO = (f"ssmtheory::selective_scan{end}" for end in ("", "_backward", "_into"))
torch.library.define(_FORWARD, OPERATOR_FORWARD)
torch.library.define(_BACKWARD, OPERATOR_BACKWARD)
torch.library.define(_INTO, f"({OPERATOR_INPUTS}, Tensor(a!) out) -> Tensor")


def selective_scan(
    arrays: dict[str, Any], *, softplus: bool, reverse: bool, reduce: Reduce | None, scale: int, out: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Run the compiled scan on tensors in main memory, differentiably.

    Args:
        arrays: the validated arrays of :func:`ssmtheory.scan.selective_scan`, by name.
        softplus, reverse, reduce, out: as there. With `reduce` where a gradient is needed, the scan runs twice: once
            in double precision for `reduce`, once for y and its gradient.
        scale: multiplies Re(C h): 2 for conjugate pairs.

    Returns:
        y (batch, length, channel) of the dtype of u, and the last state (batch, channel, state).

    Raises:
        BackendError: `reduce` inside a transformation, where no state is a number.
    """
    B, C = c_backend.same_groups(arrays["B"], arrays["C"])
    tensors = [B if name == "B" else C if name == "C" else arrays[name] for name in ARRAYS]
    wants = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
    if reduce is not None:
        run = streamed
        if torch.compiler.is_compiling():
            from ssmtheory.scan.torch_eager import streamed as run
        y, last = run(tensors, softplus, reverse, scale, reduce)
        if out is not None:
            return out.copy_(y), last
        if not wants:
            return y, last
    if out is not None:
        return out, torch.ops.ssmtheory.selective_scan_into(*tensors, softplus, reverse, scale, out)
    y, last, _ = _scan(*tensors, softplus, reverse, scale, wants)
    return y, last


def streamed(tensors: list[Any], softplus: bool, reverse: bool, scale: int, reduce: Reduce) -> tuple[Tensor, Tensor]:
    """y and the last state, without gradients, by the kernel in double precision that shows its states to `reduce`."""
    try:
        for x in tensors:
            if x is not None:
                x.data_ptr()
    except RuntimeError as error:
        raise BackendError(
            "backend='c': reduce needs states that exist, and inside torch.func transformations they do not. "
            "Call the scan outside of the transformation"
        ) from error
    call = c_backend.scan_call([None if x is None else x.detach() for x in tensors], softplus, reverse, scale, reduce)
    y, last, _ = c_backend.run_forward(call)
    return y.to(tensors[0].dtype), last


# ---------------------------------------------------------------------- forward


@torch.library.impl(_FORWARD, "CPU")
def _forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *tensors, softplus, reverse, scale, keep = arguments
    u = tensors[0]
    y, last, kept = c_backend.run_forward(c_backend.scan_call(tensors, softplus, reverse, scale), keep=keep)
    return y.to(u.dtype), last, u.new_empty(0) if kept is None else kept


@torch.library.register_fake(_FORWARD)
def _forward_fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *tensors, softplus, reverse, scale, keep = arguments
    u = tensors[0]
    call = c_backend.scan_call(tensors, softplus, reverse, scale, read=False)
    kept = u.new_empty(0)
    if keep:
        shape, dtype = call.checkpoints
        kept = u.new_empty(shape, dtype=getattr(torch, dtype))
    batch, _, channels, _, states = call.sizes
    last = u.new_empty((batch, channels, states), dtype=getattr(torch, call.state_dtype))
    return u.new_empty(u.shape), last, kept


@torch.library.impl(_INTO, "CPU")
def _into(*arguments: Any) -> Tensor:
    *tensors, softplus, reverse, scale, out = arguments
    call = c_backend.scan_call(tensors, softplus, reverse, scale)
    memory = out.untyped_storage().data_ptr()
    # the kernel reads its inputs again after it has written y
    direct = out.dtype in (torch.float32, torch.float64) and all(
        x is None or x.untyped_storage().data_ptr() != memory for x in tensors
    )
    y, last, _ = c_backend.run_forward(call, out if direct else None)
    if not direct:
        out.copy_(y)
    elif not out.is_inference():
        # autograd must notice that a tensor it may have saved has changed
        torch.autograd.graph.increment_version(out)
    return last


@torch.library.register_fake(_INTO)
def _into_fake(*arguments: Any) -> Tensor:
    *tensors, softplus, reverse, scale, _ = arguments
    return _forward_fake(*tensors, softplus, reverse, scale, False)[1]


# ---------------------------------------------------------------------- backward


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, softplus, reverse, scale, _ = inputs
    ctx.options = softplus, reverse, scale
    ctx.mark_non_differentiable(output[2])
    # a cotangent that is not there costs no array of zeros
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[2], *tensors)


def _gradient(ctx: Any, dy: Any, dlast: Any, _: Any) -> tuple[Any, ...]:
    kept, *tensors = ctx.saved_tensors
    found = _adjoint(dy, dlast, kept, *tensors, *ctx.options)
    return *(None if x is None else g for x, g in zip(tensors, found, strict=False)), None, None, None, None, None


torch.library.register_autograd(_FORWARD, _gradient, setup_context=_setup)


@torch.library.impl(_BACKWARD, "CPU")
def _backward(*arguments: Any) -> tuple[Tensor, ...]:
    dy, dlast, kept, *tensors, softplus, reverse, scale = arguments
    u = tensors[0]
    call = c_backend.scan_call(tensors, softplus, reverse, scale)
    if not kept.numel():
        # the forward pass did not know that a gradient would be asked for, or there was nothing to keep
        *_, kept = c_backend.run_forward(call, keep=True)
    dy = u.new_zeros(1).expand(u.shape) if dy is None else dy
    found = c_backend.run_backward(call, kept, *(None if x is None else c_backend.readable(x) for x in (dy, dlast)))
    return tuple(
        u.new_empty(0) if x is None else g.to(x.dtype).contiguous() for x, g in zip(tensors[:-1], found, strict=False)
    )


@torch.library.register_fake(_BACKWARD)
def _backward_fake(*arguments: Any) -> tuple[Tensor, ...]:
    tensors = arguments[3:12]
    return tuple(tensors[0].new_empty(0) if x is None else x.new_empty(x.shape) for x in tensors)


def _nothing(ctx: Any, inputs: Any, output: Any) -> None:
    pass


def _refuse(ctx: Any, *gradients: Any) -> Any:
    raise BackendError(
        "backend='c': the gradient of the scan cannot be differentiated again (create_graph=True). "
        "Use JAX arrays (backend='jax') for second derivatives"
    )


torch.library.register_autograd(_BACKWARD, _refuse)


# ---------------------------------------------------------------------- torch.func


class _Scan(torch.autograd.Function):
    """The operator where torch.func transforms: the rules of `register_autograd` do not serve there."""

    generate_vmap_rule = True
    setup_context = staticmethod(_setup)
    backward = staticmethod(_gradient)

    @staticmethod
    def forward(*arguments: Any) -> Any:
        return torch.ops.ssmtheory.selective_scan(*arguments)


class _Adjoint(torch.autograd.Function):
    """The adjoint operator where torch.func transforms."""

    generate_vmap_rule = True
    setup_context = staticmethod(_nothing)
    backward = staticmethod(_refuse)

    @staticmethod
    def forward(*arguments: Any) -> Any:
        return torch.ops.ssmtheory.selective_scan_backward(*arguments)


def _scan(*arguments: Any) -> Any:
    return _Scan.apply(*arguments) if _transformed() else torch.ops.ssmtheory.selective_scan(*arguments)


def _adjoint(*arguments: Any) -> Any:
    return _Adjoint.apply(*arguments) if _transformed() else torch.ops.ssmtheory.selective_scan_backward(*arguments)


def _transformed() -> bool:
    """Whether a function transformation or forward-mode differentiation, which operators would ignore, is at work."""
    # torch.compile traces vmap through the operator, and refuses the rest itself
    return not torch.compiler.is_compiling() and (
        torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0
    )


# ---------------------------------------------------------------------- vmap


def _mapped(operator: Any, info: Any, axes: Any, arguments: Any) -> tuple[Any, Any]:
    """The operator on each slice of the mapped axis, stacked: slices are views, so that only results are copied."""

    def one(i: int) -> Any:
        return operator(*(x if a is None else x.select(a, i) for x, a in zip(arguments, axes, strict=True)))

    results = [one(i) for i in range(info.batch_size)]
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    return tuple(map(torch.stack, zip(*results, strict=True))), (0,) * len(results[0])


@torch.library.register_vmap(_FORWARD)
def _forward_map(info: Any, axes: Any, *arguments: Any) -> tuple[Any, Any]:
    operator = torch.ops.ssmtheory.selective_scan
    named = dict(zip(ARRAYS, axes, strict=False))
    if any(named[name] is not None for name in ("A", "D", "delta_bias")):
        return _mapped(operator, info, axes, arguments)
    # parameters in common: the mapped axis is more sequences of the batch
    *tensors, softplus, reverse, scale, keep = arguments
    count, batch = info.batch_size, tensors[0].shape[int(axes[0] == 0)]
    folded = []
    for name, x, axis in zip(ARRAYS, tensors, axes, strict=False):
        if x is not None and name not in ("A", "D", "delta_bias"):
            x = x.expand(count, *x.shape) if axis is None else x.movedim(axis, 0)
            x = x.reshape(count * batch, *x.shape[2:])
        folded.append(x)
    results = operator(*folded, softplus, reverse, scale, keep)
    *whole, kept = (x.reshape(count, batch, *x.shape[1:]) if x.ndim > 1 else x.expand(count, 0) for x in results)
    return (*whole, kept), (0, 0, 0)


@torch.library.register_vmap(_BACKWARD)
def _backward_map(info: Any, axes: Any, *arguments: Any) -> tuple[Any, Any]:
    return _mapped(torch.ops.ssmtheory.selective_scan_backward, info, axes, arguments)
