"""Memory along the sequence: Lyapunov exponents, horizon, effective receptive field.

The recurrent Jacobian of a stack of selective layers, of all states with respect to all states one token before, is
block lower triangular over layers, its state blocks are exactly diagonal, diag(exp(Delta_t A)), and the convolutions'
shift registers are nilpotent. The Lyapunov spectrum along a given sequence is therefore the union, over layers,
channels and states, of A_dn mean_t Delta_dt (and -infinity for the registers): no QR iteration is needed. It does not
hold for hybrids with attention, nor for a model that generates its own input.
"""

from __future__ import annotations

import numpy as np

__all__ = ["ReceptiveField", "horizon", "lyapunov_exponents"]


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
