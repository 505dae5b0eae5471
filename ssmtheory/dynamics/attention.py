"""Hidden attention of a selective layer, in bounded memory.

y_dl = sum_{j <= l} P_dlj u_dj with P_dlj = sum_n C_ln exp(A_dn (Delta_d,j+1 + ... + Delta_dl)) Delta_dj B_jn
(Ali et al., arXiv 2403.01590, equation 11). Weights can be negative and their sum over j is not one.

Sums of Delta are accumulated in float64, and the future (j > l), where exp would overflow, is never formed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssmtheory.dynamics.input_output import contract
from ssmtheory.errors import InputError

__all__ = ["attention_mean", "attention_rows"]


def _row(
    clock: np.ndarray, delta: np.ndarray, A: np.ndarray, B: np.ndarray, C: np.ndarray, query: int, block: int
) -> np.ndarray:
    """P_d,query,j for all j <= query: (query + 1, channel) float64; at most (block, channel, state) numbers at once."""
    row = np.empty((query + 1, delta.shape[1]))
    for start in range(0, query + 1, block):
        stop = min(start + block, query + 1)
        # the difference of two long sums needs float64; once taken, the inputs' own precision does
        tau = (clock[query] - clock[start:stop]).astype(np.result_type(delta, A))
        row[start:stop] = contract(np.exp(tau[..., None] * A), C[query] * B[start:stop])
    return row * delta[: query + 1]


def attention_rows(
    delta: np.ndarray, A: np.ndarray, B: np.ndarray, C: np.ndarray, queries: Sequence[int], *, block: int = 128
) -> np.ndarray:
    """Rows P_d,l,: of the hidden attention matrices for chosen query tokens l.

    Args:
        delta: (token, channel).
        A: (channel, state), or (channel, 1) for a scalar per channel (head).
        B, C: (token, group, state).
        queries: positions l.
        block: key tokens that are expanded over states at once.

    Returns:
        (query, token, channel) float64; 0 for the future.

    >>> one = np.ones((3, 1))
    >>> attention_rows(one, -np.log(2.0) * np.ones((1, 1)), one[..., None], one[..., None], [2])[0, :, 0]
    array([0.25, 0.5 , 1.  ])
    """
    tokens = len(delta)
    wrong = [q for q in queries if not 0 <= q < tokens]
    if wrong:
        raise InputError(f"attention row {wrong[0]}: the sequence has tokens 0 to {tokens - 1}")
    clock = np.cumsum(delta, axis=0, dtype=np.float64)
    rows = np.zeros((len(queries), tokens, delta.shape[1]))
    for i, query in enumerate(queries):
        rows[i, : query + 1] = _row(clock, delta, A, B, C, query, block)
    return rows


def attention_mean(
    delta: np.ndarray, A: np.ndarray, B: np.ndarray, C: np.ndarray, *, block: int = 128
) -> tuple[np.ndarray, np.ndarray]:
    """Hidden attention averaged over channels: mean of P_dij and mean of |P_dij|.

    Arguments as in `attention_rows`, for all queries; one row of (token, channel) exists at a time.

    Returns:
        Two (token, token) float64 arrays, lower triangular.
    """
    tokens = len(delta)
    clock = np.cumsum(delta, axis=0, dtype=np.float64)
    mean, mean_abs = np.zeros((tokens, tokens)), np.zeros((tokens, tokens))
    for query in range(tokens):
        row = _row(clock, delta, A, B, C, query, block)
        mean[query, : query + 1] = row.mean(axis=1)
        mean_abs[query, : query + 1] = np.abs(row).mean(axis=1)
    return mean, mean_abs
