"""The input-output matrix M = S_C^T S_B of a selective layer, and what it says about a token.

Vo et al., arXiv 2410.03292: B_t = S_B u_t, C_t = S_C u_t, and in one dimension a token grows where mu = S_C^T S_B > 0.
In a real layer M has rank N << D, and M_sym = (M + M^T)/2 has N positive and N negative eigenvalues whatever the
weights (Sylvester: M_sym = G^T J G with G = [S_C; S_B] of full rank and J = [[0, I], [I, 0]]/2), so counting eigenvalue
signs decides nothing; the sign of q(u) = u^T M u of the token itself does (in a layer without gate, skip and norm).

| code | paper |
|---|---|
| S_B, S_C | (N, D) rows of x_proj that make B and C |
| q | q(u) = u^T S_C^T S_B u = C_t . B_t |
| kappa | sum_n C_tn exp(A_dn tau) B_jn, which is mu exp(-a tau) when A = -a for all n |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmtheory.errors import InputError

__all__ = [
    "LagKernel",
    "contract",
    "critical_depth",
    "input_output_eigenvalues",
    "isotropic_spread",
    "observed_lags",
    "symmetric_eigenvalues",
    "token_q",
]


def token_q(B: np.ndarray, C: np.ndarray) -> np.ndarray:
    """q = sum_n C_n B_n of each token, in float64.

    Where B = S_B u and C = S_C u it equals u^T S_C^T S_B u. Where the family normalises B and C (Falcon-Mamba) the sign
    is still that of the quadratic form, since an RMS norm without weights only rescales; where B and C come from a
    convolution of the residual stream (Mamba-2) q is the kernel of the token with itself and no quadratic form in u.

    Args:
        B, C: (..., state).

    Returns:
        (...,) float64.

    >>> token_q(np.array([[1.0, 2.0]]), np.array([[3.0, -1.0]]))
    array([1.])
    """
    return np.einsum("...n,...n->...", np.asarray(B, np.float64), np.asarray(C, np.float64))


def _pair(S_B: Any, S_C: Any) -> tuple[np.ndarray, np.ndarray]:
    b, c = np.asarray(S_B, np.float64), np.asarray(S_C, np.float64)
    if b.ndim != 2 or b.shape != c.shape:
        raise InputError(f"S_B and S_C must be matrices (state, width) of one shape, not {b.shape} and {c.shape}")
    return b, c


def input_output_eigenvalues(S_B: Any, S_C: Any) -> np.ndarray:
    """Eigenvalues of S_B S_C^T: the non-zero eigenvalues of M = S_C^T S_B.

    Args:
        S_B, S_C: (state, width).

    Returns:
        (state,) complex128, by falling real part, then falling imaginary part.

    >>> input_output_eigenvalues([[1.0, 0.0]], [[2.0, 5.0]])
    array([2.+0.j])
    """
    b, c = _pair(S_B, S_C)
    values = np.linalg.eigvals(b @ c.T).astype(np.complex128)
    return values[np.lexsort((-values.imag, -values.real))]


def symmetric_eigenvalues(S_B: Any, S_C: Any) -> np.ndarray:
    """The 2N eigenvalues of M_sym = (S_C^T S_B + S_B^T S_C)/2 that can differ from zero, from a 2N x 2N matrix.

    M_sym = G^T J G with G = [S_C; S_B], so its non-zero eigenvalues are those of L^T J L with L L^T = G G^T. L is the
    symmetric square root (a Cholesky factor would fail on tied S_B and S_C, whose G G^T is singular).

    Args:
        S_B, S_C: (state, width).

    Returns:
        (2 state,) float64, rising.

    >>> symmetric_eigenvalues([[1.0, 0.0]], [[0.0, 1.0]])       # M_sym = [[0, 1/2], [1/2, 0]]
    array([-0.5,  0.5])
    """
    b, c = _pair(S_B, S_C)
    n = b.shape[0]
    g = np.concatenate([c, b])
    weight, basis = np.linalg.eigh(g @ g.T)
    root = (basis * np.sqrt(np.maximum(weight, 0.0))) @ basis.T
    half = root[:n].T @ root[n:]  # L^T J L = (L_1^T L_2 + L_2^T L_1)/2 by row blocks L_1, L_2 of L
    return np.linalg.eigvalsh(0.5 * (half + half.T))


def isotropic_spread(states: int, width: int) -> float:
    """Standard deviation, over Gaussian S_B and S_C, of the fraction of isotropic directions u with q(u) > 0.

    The mean is 1/2. First order in 1/width: 2^(1-N) / (B(N/2, N/2) sqrt(N D)), which tends to 1/sqrt(2 pi D).

    >>> round(isotropic_spread(16, 1536), 4)
    0.01
    """
    n = float(states)
    log_beta = 2.0 * math.lgamma(n / 2) - math.lgamma(n)
    return math.exp((1.0 - n) * math.log(2.0) - log_beta) / math.sqrt(n * width)


def critical_depth(q: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """t_c = 1/(2 |q| Delta), in layers: the depth on which dx/dt = q Delta x changes a token by order one.

    In one dimension q = mu x^2, and t_c is the blow-up time 1/(2 mu Delta x^2) (mu > 0) or the time after which
    x^2 = 1/(2 |mu| Delta t) (mu < 0) of arXiv 2410.03292 with constant Delta.

    Args:
        q: (...,); delta: broadcastable, the token's mean step.

    Returns:
        (...,) float64; infinite where q Delta = 0.
    """
    rate = 2.0 * np.abs(np.asarray(q, np.float64)) * np.asarray(delta, np.float64)
    with np.errstate(divide="ignore"):
        return 1.0 / rate


def observed_lags(tokens: int, longest: int = 256) -> tuple[int, ...]:
    """The lags at which kappa is measured: powers of two below half the sequence, up to `longest` [tokens].

    >>> observed_lags(40)
    (1, 2, 4, 8, 16)
    """
    limit = max(1, min(tokens // 2, longest))
    return tuple(2**i for i in range(limit.bit_length()))


class LagKernel:
    """Streaming mean over tokens t of kappa_d(m) = sum_n C_tn exp(A_dn (Delta_d,t-m+1 + ... + Delta_dt)) B_t-m,n.

    This is the hidden attention P of arXiv 2403.01590 at lag m, without the factor Delta_{t-m}. When A is one scalar
    per channel, kappa has the sign of C_t . B_t-m for every lag; with a diagonal A it may change sign.

    Lag 1 is taken at every token and returned by `update`; a longer lag at every `stride`-th token (it costs
    channel * state exponentials a token). Memory: the last max(lags) tokens of Delta and B.

    Args:
        A: (channel, state), or (channel, 1) for a scalar per channel (head); negative.
        lags: rising; the first is 1.
        stride: of the tokens for lags beyond 1.
    """

    def __init__(self, A: np.ndarray, lags: Sequence[int], stride: int = 1) -> None:
        self.A, self.lags, self.stride = np.asarray(A), tuple(lags), stride
        if not self.lags or self.lags[0] != 1 or stride < 1:
            raise InputError(f"lags must begin with 1 and stride be positive, not {tuple(lags)} and {stride}")
        channels = self.A.shape[0]
        self.kappa_sum = np.zeros((len(self.lags), channels))
        self.time_sum = np.zeros((len(self.lags), channels))
        self.count = np.zeros(len(self.lags), np.int64)
        self._delta = np.zeros((0, channels), self.A.dtype)
        self._B: np.ndarray | None = None
        self._seen = 0

    def update(self, delta: np.ndarray, B: np.ndarray, C: np.ndarray, lag_one: np.ndarray | None = None) -> np.ndarray:
        """Take the next tokens.

        Args:
            delta: (token, channel); B, C: (token, group, state).
            lag_one: the kernel at lag 1, (token, channel), where the caller has it; at the first token it is ignored.

        Returns:
            Channel mean of the lag-one kernel at each token, float64; NaN at a sequence's first token.
        """
        tokens, past = len(delta), len(self._delta)
        all_delta = np.concatenate([self._delta, delta])
        all_B = B if self._B is None else np.concatenate([self._B, B])
        # clock[i] = Delta_0 + ... + Delta_{i-1} of the kept tokens; float64: differences of long sums
        clock = np.zeros((len(all_delta) + 1, delta.shape[1]))
        np.cumsum(all_delta, axis=0, dtype=np.float64, out=clock[1:])
        first = np.full(tokens, np.nan)
        position = np.arange(self._seen, self._seen + tokens)
        for i, lag in enumerate(self.lags):
            valid = (position >= lag) & ((position % self.stride == 0) | (lag == 1))
            here = np.flatnonzero(valid)
            if not len(here):
                continue
            at = here + past
            tau = clock[at + 1] - clock[at + 1 - lag]
            if lag == 1 and lag_one is not None:
                kernel = lag_one[here]
            else:
                factor = np.exp(tau.astype(np.result_type(delta, self.A))[..., None] * self.A)
                kernel = contract(factor, C[here] * all_B[at - lag])
            self.kappa_sum[i] += kernel.sum(axis=0, dtype=np.float64)
            self.time_sum[i] += tau.sum(axis=0)
            self.count[i] += len(here)
            if lag == 1:
                first[here] = kernel.mean(axis=1, dtype=np.float64)
        keep = min(max(self.lags), len(all_delta))
        self._delta, self._B = all_delta[len(all_delta) - keep :], all_B[len(all_B) - keep :]
        self._seen += tokens
        return first

    def previous(self, B: np.ndarray) -> np.ndarray:
        """B of the token before each of the next tokens, (token, group, state); 0 before the first of all."""
        before = np.zeros_like(B[:1]) if self._B is None else self._B[-1:]
        return np.concatenate([before, B[:-1]])


def contract(factor: np.ndarray, product: np.ndarray) -> np.ndarray:
    """sum_n factor_tcn product_tgn with g the group of channel c.

    Args:
        factor: (token, channel, state), or (token, channel, 1) for a factor that is equal in all states.
        product: (token, group, state).

    Returns:
        (token, channel).
    """
    tokens, channels, states = factor.shape
    groups = product.shape[1]
    if states == 1:
        product = product.sum(axis=-1, keepdims=True)
    grouped = factor.reshape(tokens, groups, channels // groups, states)
    return np.matmul(grouped, product[..., None])[..., 0].reshape(tokens, channels)
