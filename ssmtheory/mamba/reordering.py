"""Reordering of tokens by importance inside a Mamba-1 mixer.

Vo et al., arXiv 2410.03292, with their code (Fsoft-AIC/Mamba-token-dynamic at 05608f4). A score per token
from Delta before its softplus, and a relaxed sort (Prillo and Eisenschlos, SoftSort, arXiv 2006.16038):

    s_l = k^T (S_Delta u_l + b),    Pi_ij = softmax_j(-|(-s)_j - sort_desc(-s)_i|^p / tau),    u <- Pi u,

after which B, C and Delta are computed again from the reordered u. Row 0 of Pi holds the least important token. Pi
depends on all tokens, so that y_0 depends on the last one: no causal model may use it.

| method | Pi | gate z | update |
|---|---|---|---|
| off | identity | in place | in place |
| published | soft | in place | stays in the sorted order |
| gate | soft | reordered with u | stays in the sorted order |
| restored | soft | reordered with u | brought back by Pi^T |
| hard | exact sort (no gradient reaches k) | in place | stays in the sorted order |
| random | one fixed permutation | in place | stays in the permuted order |

"published" follows the authors in leaving z in place and applying no inverse; their mixer joins y and z by
concatenation, Mamba's by a product. The bias of Delta enters once here, twice in their code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from array_api_compat import array_namespace

from ssmtheory.errors import InputError, nearest
from ssmtheory.mamba.config import MambaConfig
from ssmtheory.mamba.forward import Weight, linear, scan_mamba1
from ssmtheory.scan import causal_conv1d

__all__ = ["METHODS", "hard_sort", "reordered_mixer", "soft_sort"]

METHODS = ("off", "published", "gate", "restored", "hard", "random")


def soft_sort(scores: Any, tau: float = 1.0, power: float = 1.0) -> Any:
    """Relaxed permutation that sorts tokens by rising score.

    Args:
        scores: (batch, length).
        tau: temperature; towards 0 the rows tend to those of the exact sort.
        power: p.

    Returns:
        (batch, length, length), non-negative, rows of sum 1 (columns not).

    >>> import numpy as np
    >>> soft_sort(np.array([[3.0, -1.0]]), tau=0.01).round(3)
    array([[[0., 1.],
            [1., 0.]]])
    """
    if not (tau > 0 and power > 0):
        raise InputError(f"tau and power of a relaxed sort must be positive, not {tau} and {power}")
    xp = array_namespace(scores)
    ordered = xp.sort(scores, axis=-1)  # rising s is falling -s
    distance = xp.abs(scores[:, None, :] - ordered[:, :, None])
    logits = -(distance if power == 1 else distance**power) / tau
    weight = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
    return weight / xp.sum(weight, axis=-1, keepdims=True)


def hard_sort(scores: Any) -> Any:
    """The permutation matrix that sorts tokens by rising score, equal scores in their order.

    (batch, length) to (batch, length, length).
    """
    xp = array_namespace(scores)
    order = xp.argsort(scores, axis=-1, stable=True)
    places = xp.arange(scores.shape[-1], dtype=order.dtype, device=scores.device)
    return xp.astype(order[:, :, None] == places, scores.dtype)


def reordered_mixer(
    hidden: Any,
    weight: Weight,
    config: MambaConfig,
    method: str,
    *,
    tau: float = 1.0,
    power: float = 1.0,
    permutation: Any = None,
    backend: str = "auto",
    watch: Callable[[Any], None] | None = None,
) -> Any:
    """Apply one Mamba-1 mixer to normed tokens, its SSM reading them in another order.

    Args:
        hidden: (batch, length, d_model).
        weight: name below the mixer to array; "order.weight" (d_inner,) is k, needed unless the method is "off" or
            "random".
        config: sizes.
        method: one of METHODS.
        tau, power: of `soft_sort`.
        permutation: (length, length) matrix of the method "random".
        backend: of the convolution and the scan.
        watch: called with Pi, (batch, length, length).

    Returns:
        The update of the residual stream, (batch, length, d_model).

    Raises:
        InputError: unknown method, or "random" without its permutation.
    """
    if method not in METHODS:
        raise InputError(f"no reordering {method!r}: there are {', '.join(METHODS)}.{nearest(method, METHODS)}")
    if method == "random" and permutation is None:
        raise InputError("the reordering 'random' needs its permutation, a (length, length) matrix")
    xp, inner, states = array_namespace(hidden), config.d_inner, config.d_state
    projected = linear(hidden, weight("in_proj.weight"), weight("in_proj.bias"))
    x, z = projected[..., :inner], projected[..., inner:]
    u = causal_conv1d(x, weight("conv1d.weight")[:, 0, :], weight("conv1d.bias"), activation="silu", backend=backend)
    matrix: Any = None
    if method == "random":
        matrix = permutation
    elif method != "off":
        low = linear(u, weight("x_proj.weight")[: config.dt_rank])
        scores = linear(low, weight("dt_proj.weight"), weight("dt_proj.bias")) @ weight("order.weight")
        matrix = hard_sort(scores) if method == "hard" else soft_sort(scores, tau, power)
        if watch is not None:
            watch(matrix)
    if matrix is not None:
        u = matrix @ u
        if method in ("gate", "restored"):
            z = matrix @ z
    signals = linear(u, weight("x_proj.weight"))
    rank = config.dt_rank
    low, B, C = signals[..., :rank], signals[..., rank : rank + states], signals[..., rank + states :]
    gated = scan_mamba1(u, low, B, C, z, weight, None, backend, watched=False)[4]
    if method == "restored":
        gated = xp.matrix_transpose(matrix) @ gated
    return linear(gated, weight("out_proj.weight"), weight("out_proj.bias"))
