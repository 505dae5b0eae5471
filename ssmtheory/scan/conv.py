"""Causal convolution, normalisation and activations, written once over the array API.

The same lines serve NumPy, PyTorch and JAX, on any device and under either's differentiation. Half precisions are
computed in float32 and rounded once, at the end. The convolution has a compiled form, too (``conv.c``).
"""

from __future__ import annotations

from typing import Any, Literal, overload

from array_api_compat import array_namespace, device, is_torch_array

from ssmtheory.errors import BackendError, InputError, nearest
from ssmtheory.scan.arrays import REAL, common_namespace, compute_dtype, dtype_name, kind_of
from ssmtheory.typing import Array

__all__ = ["causal_conv1d", "rms_norm", "sigmoid", "silu", "softplus"]

_ACTIVATIONS = (None, "silu")


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), to full relative precision at both ends.

    log1p(exp(-\\|x\\|)) + max(x, 0): the textbook form log(1 + exp(x)) loses all digits for very negative x, where
    Mamba's step sizes live.

    Args:
        x: real array of any shape.

    Returns:
        Array of the shape and dtype of x.

    >>> import numpy as np
    >>> float(softplus(np.asarray(-700.0))) == float(np.exp(-700.0))
    True
    """
    xp = array_namespace(x)
    if is_torch_array(x):
        # one fused pass each way; above the threshold torch returns x, exact once exp(-x) is below an ulp of x
        return xp.nn.functional.softplus(x, threshold=40)
    zero = xp.asarray(0, dtype=x.dtype, device=device(x))
    # minimum and maximum share their derivative at a tie, so that the slope at 0 is 1/2; that of abs is 1 in JAX
    return xp.log1p(xp.exp(xp.minimum(x, -x))) + xp.maximum(x, zero)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow, and with finite derivatives everywhere.

    Args:
        x: real array of any shape.

    Returns:
        Array of the shape and dtype of x.
    """
    xp = array_namespace(x)
    e = xp.exp(xp.minimum(x, -x))
    one = xp.asarray(1, dtype=x.dtype, device=device(x))
    return xp.where(x < 0, e, one) / (1 + e)


def silu(x: Array) -> Array:
    """x * sigmoid(x), also known as swish.

    Args:
        x: real array of any shape.

    Returns:
        Array of the shape and dtype of x.
    """
    if is_torch_array(x):
        return array_namespace(x).nn.functional.silu(x)  # one fused pass each way
    return x * sigmoid(x)


@overload
def causal_conv1d(
    x: Array,
    weight: Array,
    bias: Array | None = ...,
    *,
    initial_state: Array | None = ...,
    activation: Literal["silu"] | None = ...,
    return_last_state: Literal[False] = ...,
    backend: str = ...,
) -> Array: ...
@overload
def causal_conv1d(
    x: Array,
    weight: Array,
    bias: Array | None = ...,
    *,
    initial_state: Array | None = ...,
    activation: Literal["silu"] | None = ...,
    return_last_state: Literal[True],
    backend: str = ...,
) -> tuple[Array, Array]: ...
def causal_conv1d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    initial_state: Array | None = None,
    activation: Literal["silu"] | None = None,
    return_last_state: bool = False,
    backend: str = "auto",
) -> Array | tuple[Array, Array]:
    """Depthwise convolution along the length that sees no later token.

    y_t = bias + sum_k weight[:, k] x_{t - width + 1 + k}, then the activation. As in every deep-learning library this
    is a correlation: ``weight[:, -1]`` multiplies the present token.

    Args:
        x: (batch, length, channel).
        weight: (channel, width).
        bias: (channel,).
        initial_state: (batch, width - 1, channel), the inputs just before x; zero when None.
        activation: "silu" or None.
        return_last_state: also return the last width - 1 inputs, which continue the sequence.
        backend: any name that the scan takes. "auto" is the compiled form for NumPy arrays and for tensors in main
            memory, where it was compiled and outside of torch.func; "c" insists on it; the others are the array-API
            lines, in the library of the arrays.

    Returns:
        y (batch, length, channel) in the dtype of x; with ``return_last_state`` also the state
        (batch, width - 1, channel).

    Raises:
        InputError: shapes or dtypes that do not fit, an unknown activation or backend.
        BackendError: backend="c" for arrays that it does not take, or where it was not compiled.

    >>> import numpy as np
    >>> x = np.arange(1.0, 5.0).reshape(1, 4, 1)
    >>> causal_conv1d(x, np.asarray([[10.0, 1.0]]))[0, :, 0].tolist()
    [1.0, 12.0, 23.0, 34.0]
    """
    arrays = {"x": x, "weight": weight, "bias": bias, "initial_state": initial_state}
    kind = kind_of(**arrays)
    for name, array in arrays.items():
        if array is not None and dtype_name(array) not in REAL:
            raise InputError(f"{name} is {dtype_name(array)}: must be {', '.join(REAL[:-1])} or {REAL[-1]}")
    if activation not in _ACTIVATIONS:
        raise InputError(f"activation={activation!r}: must be 'silu' or None.{nearest(activation, ['silu'])}")
    if x.ndim != 3:
        raise InputError(f"x has shape {tuple(x.shape)}: must be (batch, length, channel)")
    batch, _, channels = x.shape
    if weight.ndim != 2 or weight.shape[0] != channels or weight.shape[1] < 1:
        raise InputError(f"weight has shape {tuple(weight.shape)}: must be (channel, width) with channel = {channels}")
    width = weight.shape[1]
    if bias is not None and tuple(bias.shape) != (channels,):
        raise InputError(f"bias has shape {tuple(bias.shape)}: must be ({channels},)")
    if initial_state is not None and tuple(initial_state.shape) != (batch, width - 1, channels):
        raise InputError(
            f"initial_state has shape {tuple(initial_state.shape)}: must be "
            f"(batch, width - 1, channel) = {(batch, width - 1, channels)}"
        )
    run = _compiled(kind, arrays, backend) or convolve
    y, last = run(x, weight, bias, initial_state, activation == "silu")
    return (y, last) if return_last_state else y


def _compiled(kind: str, arrays: dict[str, Any], backend: str) -> Any:
    """The function that runs the compiled convolution on these arrays; None where the array-API lines do."""
    from ssmtheory.scan.api import BACKENDS

    if backend not in BACKENDS:
        allowed = ", ".join(repr(name) for name in BACKENDS)
        raise InputError(f"backend={backend!r}: must be one of {allowed}.{nearest(backend, BACKENDS)}")
    if backend not in ("auto", "c"):
        return None
    odd = []
    if kind == "jax":
        odd.append("JAX arrays")
    elif kind == "torch":
        from ssmtheory.scan import conv_ops as module

        given = [array for array in arrays.values() if array is not None]
        odd.extend(f"tensors on {array.device}" for array in given if array.device.type != "cpu")
        if module.transformed():
            odd.append("tensors inside a transformation of torch.func or forward mode")
    else:
        from ssmtheory.scan import conv_backend as module  # type: ignore[no-redef]
    if backend == "c":
        if odd:
            raise BackendError(f"backend='c' does not take {odd[0]}: use backend='auto'")
        if not module.status()[0]:
            from ssmtheory.scan import conv_backend

            conv_backend.library()  # raises in words
    return None if odd or not module.status()[0] else module.causal_conv1d


def convolve(x: Array, weight: Array, bias: Array | None, initial_state: Array | None, silu_: bool) -> Any:
    """The lines of :func:`causal_conv1d`: y, and the last inputs."""
    xp = array_namespace(x)
    batch, length, channels = x.shape
    width = weight.shape[1]
    if initial_state is None:
        initial_state = xp.zeros((batch, width - 1, channels), dtype=x.dtype, device=device(x))
    work = compute_dtype(xp, x, weight, bias)
    padded = xp.concat([xp.astype(initial_state, x.dtype, copy=False), x], axis=1)
    taps = xp.astype(weight, work, copy=False)
    y = padded[:, width - 1 :, :] * taps[:, width - 1]
    for k in range(width - 1):
        y = y + padded[:, k : k + length, :] * taps[:, k]
    if bias is not None:
        y = y + bias
    if silu_:
        y = silu(y)
    return xp.astype(y, x.dtype, copy=False), padded[:, length:, :]


def rms_norm(
    x: Array, weight: Array | None = None, *, eps: float = 1e-5, gate: Array | None = None, groups: int = 1
) -> Array:
    """Root-mean-square normalisation over the last axis: weight * x / sqrt(mean(x^2) + eps).

    Args:
        x: (..., channel).
        weight: (channel,), or None for none.
        eps: added to the mean square.
        gate: (..., channel); x is first multiplied by silu(gate), as in the gated norm of Mamba-2.
        groups: normalise this many equal groups of channels each on its own.

    Returns:
        Array of the shape and dtype of x.

    Raises:
        InputError: shapes that do not fit, or a number of groups that does not divide the channels.
    """
    xp = common_namespace(x=x, weight=weight, gate=gate)
    if x.ndim < 1:
        raise InputError("x is a scalar: rms_norm needs a last axis to normalise over")
    channels = x.shape[-1]
    if weight is not None and tuple(weight.shape) != (channels,):
        raise InputError(f"weight has shape {tuple(weight.shape)}: must be ({channels},)")
    if gate is not None and tuple(gate.shape) != tuple(x.shape):
        raise InputError(f"gate has shape {tuple(gate.shape)}: must be that of x, {tuple(x.shape)}")
    if groups < 1 or channels % groups:
        raise InputError(f"groups={groups}: must be a positive divisor of the {channels} channels")
    wide = compute_dtype(xp, x, weight, gate)
    values = xp.astype(x, wide, copy=False)
    if gate is not None:
        values = values * silu(xp.astype(gate, wide, copy=False))
    shape = tuple(x.shape)
    split = xp.reshape(values, (*shape[:-1], groups, channels // groups)) if groups > 1 else values
    split = split / xp.sqrt(xp.mean(split * split, axis=-1, keepdims=True) + eps)
    values = xp.reshape(split, shape) if groups > 1 else split
    if weight is not None:
        values = values * weight
    if dtype_name(values) == dtype_name(x):
        return values
    return xp.astype(values, x.dtype)
