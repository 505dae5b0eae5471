"""Exponents: memory along the sequence (Lyapunov spectrum, horizon, receptive field), and stretching through depth.

The recurrent Jacobian of a stack of selective layers, of all states with respect to all states one token before, is
block lower triangular over layers, its state blocks are exactly diagonal, diag(exp(Delta_t A)), and the convolutions'
shift registers are nilpotent. The Lyapunov spectrum along a given sequence is therefore the union, over layers,
channels and states, of A_dn mean_t Delta_dt (and -infinity for the registers): no QR iteration is needed. It does not
hold for hybrids with attention, nor for a model that generates its own input.

Through depth the residual stream has a Jacobian of its own, J = J_K ... J_1, that no structure makes diagonal:
`depth_exponents` follows a frame of tangents through the layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ssmtheory.errors import InputError

__all__ = ["DepthExponents", "ReceptiveField", "Tangent", "depth_exponents", "horizon", "lyapunov_exponents"]

#: x and tangents (count, *x.shape) to the layer's output and the tangents there
Tangent = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def lyapunov_exponents(A: np.ndarray, delta_mean: np.ndarray) -> np.ndarray:
    """Exponents A_dn mean_t Delta_dt [1/token].

    Args:
        A: (channel, state), or (channel, 1) for a scalar per channel.
        delta_mean: (channel,).

    Returns:
        Shape of A, float64.

    >>> lyapunov_exponents(np.array([[-1.0, -2.0]]), np.array([0.5]))
    array([[-0.5, -1. ]])
    """
    return np.asarray(A, np.float64) * np.asarray(delta_mean, np.float64)[..., None]


def horizon(A: np.ndarray, delta_mean: np.ndarray) -> np.ndarray:
    """Tokens after which a state has decayed by a factor e at the mean step: 1/(-A mean Delta).

    >>> horizon(np.array([[-1.0, -2.0]]), np.array([0.5]))
    array([[2., 1.]])
    """
    with np.errstate(divide="ignore"):
        return -1.0 / lyapunov_exponents(A, delta_mean)


class ReceptiveField:
    """Streaming effective receptive field of the last token: mean distance to what state (d, n) holds.

    Token j is held with weight w_j = exp(A_dn (Delta_j+1 + ... + Delta_L)) Delta_j |B_jn|; S0 = sum_j w_j and
    S1 = sum_j (L - j) w_j, carried over chunks without any (token, channel, state) array of the whole sequence:
    after T further tokens S1 <- decay (S1 + T S0) + new terms. `value` is S1/S0 [tokens].

    Args:
        A: (channel, state), or (channel, 1) for a scalar per channel (head); negative.
        groups: B is (token, groups, state).
        states: state size of B.
        block: tokens that are expanded over states at once.
    """

    def __init__(self, A: np.ndarray, groups: int, states: int, block: int = 32) -> None:
        self.A, self.groups, self.block = np.asarray(A), groups, block
        self.S0 = np.zeros((self.A.shape[0], states))
        self.S1 = np.zeros((self.A.shape[0], states))

    def update(self, delta: np.ndarray, B: np.ndarray) -> None:
        """Take the next tokens: delta (token, channel), B (token, group, state)."""
        channels, states = self.S0.shape
        size = np.abs(B)
        for start in range(0, len(delta), self.block):
            step, b = delta[start : start + self.block], size[start : start + self.block]
            tokens = len(step)
            # sum of the steps after each token; all exponents are <= 0, so nothing overflows
            total = step.sum(axis=0, dtype=np.float64)
            after = total - np.cumsum(step, axis=0, dtype=np.float64)
            weight = np.exp(after.astype(step.dtype)[..., None] * self.A)
            shape = (tokens, self.groups, channels // self.groups)
            weight = weight.reshape(*shape, -1)
            write = step.reshape(shape)
            distance = np.arange(tokens - 1, -1, -1, dtype=step.dtype)[:, None, None]
            sum0, sum1 = (_sum_over_tokens(weight, w, b).reshape(channels, states) for w in (write, write * distance))
            carry = np.exp(total[:, None] * self.A)
            self.S1 = carry * (self.S1 + tokens * self.S0) + sum1
            self.S0 = carry * self.S0 + sum0

    @property
    def value(self) -> np.ndarray:
        """S1/S0 [tokens], (channel, state); NaN where nothing was written."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.S1 / self.S0


def _sum_over_tokens(weight: np.ndarray, write: np.ndarray, b: np.ndarray) -> np.ndarray:
    """sum_t weight_tghn write_tgh b_tgn -> (g, h, n); weight's last axis may be 1."""
    if weight.shape[-1] == 1:
        return np.einsum("tgh,tgn->ghn", weight[..., 0] * write, b)
    return np.einsum("tghn,tgh,tgn->ghn", weight, write, b)


@dataclass(frozen=True)
class DepthExponents:
    """How a frame of tangents is stretched from the first layer's input to the last layer's output.

    exponents: (count,) ln(sigma_i)/K [1/layer], falling; sigma_i are the singular values of J on the span of the frame,
        K the number of layers. NaN where sigma_i is below what float64 resolves beside sigma_1.
    local: (layer, count) ln |R_ii| [1/layer] of each layer's QR factor: the running, Gram-Schmidt rates. Their sum over
        a layer is the growth of the frame's volume there; their sum over all is K times the sum of the exponents.
    output: the residual stream after the last layer.
    """

    exponents: np.ndarray
    local: np.ndarray
    output: np.ndarray


def depth_exponents(
    layers: Sequence[Tangent], x: np.ndarray, frame: int | np.ndarray, *, seed: int = 0
) -> DepthExponents:
    """Finite-depth Lyapunov exponents of a stack of layers, by Jacobian-vector products and a QR factor per layer.

    Depth is finite: what is returned are singular values of the product of the layers' Jacobians, not limits.

    Args:
        layers: one tangent map per layer, such as `ssmtheory.mamba.tangent.layer_tangents(model)`.
        x: input of the first layer, any shape.
        frame: tangents (count, *x.shape), linearly independent; or their number, for a random orthonormal frame. With
            a basis of the whole space the exponents are those of J itself.
        seed: of the random frame.

    Raises:
        InputError: no layers, a frame that does not fit x or is not independent, or values that are not finite.

    References:
        Benettin et al. (1980), Meccanica 15: QR along a trajectory; here the factors' product is kept, because depth
        is short.

    >>> shear = np.array([[2.0, 1.0], [0.0, 0.5]])
    >>> linear = lambda x, V: (shear @ x, V @ shear.T)
    >>> found = depth_exponents([linear, linear], np.ones(2), np.eye(2))
    >>> bool(np.allclose(found.exponents, np.log(np.linalg.svd(shear @ shear)[1]) / 2))
    True
    """
    if not layers:
        raise InputError("no layers: a stack needs at least one")
    x = np.asarray(x, np.float64)
    size = x.size
    if isinstance(frame, np.ndarray):
        if frame.shape[1:] != x.shape or not 1 <= len(frame) <= size:
            raise InputError(
                f"frame has shape {frame.shape}: must be (count, *{x.shape}) with a count between 1 and {size}"
            )
        V = frame.reshape(len(frame), size).astype(np.float64)
    else:
        if not 1 <= frame <= size:
            raise InputError(f"frame={frame} tangents: must lie between 1 and {size}, the numbers in x")
        V = np.random.default_rng([seed, 3]).standard_normal((frame, size))
    count = len(V)
    Q, R = np.linalg.qr(V.T)
    if not np.isfinite(R).all() or np.abs(np.diag(R)).min() <= count * np.finfo(float).eps * np.abs(np.diag(R)).max():
        raise InputError("the tangents of the frame are not finite and linearly independent: choose others")
    product, scale = np.eye(count), 0.0
    local = np.empty((len(layers), count))
    for k, layer in enumerate(layers):
        x, moved = layer(x, np.ascontiguousarray(Q.T).reshape(count, *x.shape))
        moved = np.asarray(moved, np.float64).reshape(count, -1)
        if not (np.isfinite(x).all() and np.isfinite(moved).all()):
            raise InputError(f"layer {k} of {len(layers)} returned values that are not finite")
        Q, R = np.linalg.qr(moved.T)
        with np.errstate(divide="ignore"):
            local[k] = np.log(np.abs(np.diag(R)))
        product = R @ product
        size = np.abs(product).max()
        if size > 0:
            product, scale = product / size, scale + np.log(size)
    sigma = np.linalg.svd(product, compute_uv=False)
    resolved = sigma > count * len(layers) * np.finfo(float).eps * sigma[0]
    exponents = np.full(count, np.nan)
    exponents[resolved] = (np.log(sigma[resolved]) + scale) / len(layers)
    return DepthExponents(exponents, local, np.asarray(x))
