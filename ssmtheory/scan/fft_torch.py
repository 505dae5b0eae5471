"""Convolution of tensors by FFT with a backward pass of its own, in blocks that stay in the cache.

Autograd's own backward of a real transform is a complex one of full size, and whole batches of spectra leave the cache;
this takes about half the time. Gradients of gradients go through plain operations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["convolve"]

#: Bytes of the padded sequences of a block.
_BLOCK = 1 << 20
#: Channels of a block are at least so many, because a cache line holds as many.
_CHANNELS = 16


def convolve(u: Tensor, K: Tensor, size: int, reverse: bool) -> Tensor:
    """Causal convolution along the length; with `reverse` the anticausal one, which is its adjoint.

    Args:
        u: (batch, length, channel), real.
        K: (channel, at most length), of the dtype of u.
        size: of the transforms, at least the sum of both lengths less 1.
        reverse: from the last step to the first.

    Returns:
        (batch, length, channel).
    """
    return _Convolution.apply(u, K, size, reverse)


def _blocks(u: Tensor, size: int) -> list[tuple[slice, slice, slice]]:
    batch, length, channels = u.shape
    if u.device.type != "cpu":
        return [(slice(None), slice(None), slice(None))]
    width = min(channels, max(_CHANNELS, _BLOCK // (size * u.element_size())))
    count = max(1, _BLOCK // (size * u.element_size() * width))
    return [
        (slice(i, i + count), slice(0, length), slice(j, j + width))
        for i in range(0, batch, count)
        for j in range(0, channels, width)
    ]


def _transform(x: Tensor, size: int) -> Tensor:
    """(batch, length, channel) -> (batch, channel, frequency)."""
    return torch.fft.rfft(x.transpose(1, 2), n=size)


def _back(x: Tensor, size: int, length: int) -> Tensor:
    """(batch, channel, frequency) -> (batch, length, channel)."""
    return torch.fft.irfft(x, n=size)[..., :length].transpose(1, 2)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(u: Tensor, K: Tensor, size: int, reverse: bool) -> Tensor:
        response = torch.fft.rfft(K, n=size)
        if reverse:
            # correlation: the negative lags lie at the end and do not reach the first steps
            response = response.conj().resolve_conj()
        y = torch.empty(u.shape, dtype=u.dtype, device=u.device)
        for at in _blocks(u, size):
            y[at] = _back(_transform(u[at], size).mul_(response[at[2]]), size, u.shape[1])
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        u, K, ctx.size, ctx.reverse = inputs
        ctx.save_for_backward(u, K)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        u, K = ctx.saved_tensors
        of_input, of_kernel = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():
            return (*_differentiable(dy, u, K, ctx.size, ctx.reverse), None, None)
        size, length, lags = ctx.size, u.shape[1], K.shape[1]
        du = torch.empty(u.shape, dtype=u.dtype, device=u.device) if of_input else None
        response = torch.fft.rfft(K, n=size)
        if not ctx.reverse:
            response = response.conj().resolve_conj()
        total = torch.zeros_like(response)
        for at in _blocks(u, size):
            d = _transform(dy[at], size)
            if of_kernel:
                x = _transform(u[at], size)
                total[at[2]] += (x * d.conj() if ctx.reverse else d * x.conj()).sum(0)
            if du is not None:
                du[at] = _back(d.mul_(response[at[2]]), size, length)
        dK = torch.fft.irfft(total, n=size)[:, :lags] if of_kernel else None
        return du, dK, None, None


def _differentiable(dy: Tensor, u: Tensor, K: Tensor, size: int, reverse: bool) -> tuple[Tensor, Tensor]:
    """The gradients of u and K by operations that carry gradients."""
    response, d, x = torch.fft.rfft(K, n=size), _transform(dy, size), _transform(u, size)
    du = _back(d * (response if reverse else response.conj()), size, u.shape[1])
    product = x * d.conj() if reverse else d * x.conj()
    return du, torch.fft.irfft(product.sum(0), n=size)[:, : K.shape[1]]
