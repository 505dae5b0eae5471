"""Parametrisations of the input-output matrix M = S_C^T S_B of a Mamba-1 layer.

Vo et al., arXiv 2410.03292, constrain M because in one dimension its sign decides whether tokens grow. Their
code (Fsoft-AIC/Mamba-token-dynamic at 05608f4) computes `x_proj.weight`, rows [dt R | B N | C N], from a raw matrix of
the same shape. With P its B rows and delta the column 0 of its C rows,

    S_C = triu(P, 1) + unit diagonal,    S_B = diag(g(delta)) S_C,    so    M = S_C^T diag(g) S_C:

symmetric, of rank N in D dimensions, hence semidefinite and never definite; the other columns of the C rows, and P on
and below its diagonal, reach nothing.

| name | S_B from S_C | q(u) = u^T M u |
|---|---|---|
| free | independent | any sign |
| positive | diag(softplus(delta) + 0.7) S_C | >= 0 |
| negative | -diag(softplus(delta) + 0.7) S_C | <= 0 |
| mixed | diag(+-softplus(delta)) S_C, + for the first half of the rows | any sign, inertia (N/2, N/2) |
| tied | diag(delta) S_C: the tie without a sign | any sign |
| positive-antisymmetric | (L L^T + K - K^T) R with S_C = R | >= 0 |
| negative-antisymmetric | (-L L^T + K - K^T) R with S_C = R | <= 0 |

The last two are ours: on the N-dimensional range of S_C any matrix whose symmetric part is semidefinite, the
antisymmetric part, which q does not see, being free. "tied" is a control: what it shares with positive, negative and
mixed is the tie S_B ~ S_C, what it lacks is the sign. The functions are written over the array API: NumPy arrays or
torch tensors in, the same kind out, differentiable in torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from ssmtheory.errors import InputError, nearest
from ssmtheory.scan import softplus

__all__ = ["PARAMETRISATIONS", "input_output", "live_parameters", "raw_parameters", "sign_of_q", "x_proj_weight"]

PARAMETRISATIONS = (
    "free", "positive", "negative", "mixed", "tied", "positive-antisymmetric", "negative-antisymmetric",
)  # fmt: skip

_SIGNS = {
    "positive": 1, "positive-antisymmetric": 1, "negative": -1, "negative-antisymmetric": -1,
    "free": 0, "mixed": 0, "tied": 0,
}  # fmt: skip
_TIED = ("positive", "negative", "mixed", "tied")
_OFFSET = 0.7  # of the authors' code


def sign_of_q(name: str) -> int:
    """The sign that a parametrisation forces on q(u): 1, -1, or 0 for none.

    >>> sign_of_q("negative")
    -1
    """
    _known(name)
    return _SIGNS[name]


def _known(name: str) -> None:
    if name not in PARAMETRISATIONS:
        allowed = ", ".join(PARAMETRISATIONS)
        raise InputError(f"no parametrisation {name!r}: there are {allowed}.{nearest(name, PARAMETRISATIONS)}")


def raw_parameters(name: str, weight: np.ndarray, d_state: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Starting values of a parametrisation, from a freshly drawn `x_proj.weight`.

    Args:
        name: one of PARAMETRISATIONS.
        weight: (R + 2 N, D) rows [dt | B | C].
        d_state: N.
        seed: of the signs of "tied" and of the antisymmetric part.

    Returns:
        Raw parameters: "dt" (R, D), "B" and "C" (N, D); of the antisymmetric ones "dt", "R" (N, D), "L", "K" (N, N).
        L starts at the identity; K is Gaussian with standard deviation (2N)^-1/2, so that both parts of M start at a
        comparable size. "tied" starts at the size of "positive", with a fair sign in each row.

    Raises:
        InputError: unknown name, or shapes that do not fit.
    """
    _known(name)
    weight = np.asarray(weight)
    rank = len(weight) - 2 * d_state
    if weight.ndim != 2 or rank < 0 or d_state < 1 or d_state > weight.shape[1]:
        raise InputError(
            f"x_proj.weight must be (R + 2 N, D) with N <= D; {weight.shape} does not fit d_state {d_state}"
        )
    low, b, c = weight[:rank], weight[rank : rank + d_state], weight[rank + d_state :]
    rng = np.random.default_rng([seed, 3])
    if name.endswith("antisymmetric"):
        spread = (2 * d_state) ** -0.5
        made = {
            "dt": low, "R": c, "L": np.eye(d_state), "K": spread * rng.standard_normal((d_state, d_state)),
        }  # fmt: skip
    else:
        made = {"dt": low, "B": b, "C": c.copy()}
    if name == "tied":
        made["C"][:, 0] = (math.log(2) + _OFFSET) * rng.choice([-1.0, 1.0], d_state)
    return {key: np.ascontiguousarray(value, dtype=weight.dtype) for key, value in made.items()}


def input_output(name: str, raw: Mapping[str, Any]) -> tuple[Any, Any]:
    """S_B and S_C, each (N, D), from the raw parameters.

    Args:
        name: one of PARAMETRISATIONS.
        raw: see `raw_parameters`.

    Returns:
        (S_B, S_C), of the arrays' kind and dtype.

    Raises:
        InputError: unknown name; "mixed" with an odd number of states, which has no half.

    >>> P, C = np.array([[0.0, 2.0]]), np.array([[0.0, 5.0]])
    >>> S_B, S_C = input_output("positive", {"B": P, "C": C})
    >>> S_C, S_B.round(4)                                   # g(0) = ln 2 + 0.7
    (array([[1., 2.]]), array([[1.3931, 2.7863]]))
    """
    _known(name)
    if name == "free":
        return raw["B"], raw["C"]
    if name in _TIED:
        xp = array_namespace(raw["B"])
        like = {"dtype": raw["B"].dtype, "device": raw["B"].device}
        s_c = xp.triu(raw["B"], k=1) + xp.eye(*raw["B"].shape, **like)
        return _diagonal(name, raw["C"][:, 0])[:, None] * s_c, s_c
    factor, free = raw["L"], raw["K"]
    symmetric = _SIGNS[name] * (factor @ factor.T)
    return (symmetric + free - free.T) @ raw["R"], raw["R"]


def _diagonal(name: str, delta: Any) -> Any:
    """g(delta), (N,)."""
    if name == "tied":
        return delta
    if name == "mixed":
        xp = array_namespace(delta)
        half, odd = divmod(delta.shape[0], 2)
        if odd:
            raise InputError(f"mixed gives half of the states either sign: d_state must be even, not {delta.shape[0]}")
        return xp.concat([softplus(delta[:half]), -softplus(delta[half:])])
    return _SIGNS[name] * (softplus(delta) + _OFFSET)


def x_proj_weight(name: str, raw: Mapping[str, Any]) -> Any:
    """The weight (R + 2 N, D), rows [dt | B | C], that the forward pass takes."""
    xp = array_namespace(raw["dt"])
    return xp.concat([raw["dt"], *input_output(name, raw)])


def live_parameters(name: str, d_state: int, width: int) -> tuple[int, int]:
    """How many of a layer's raw numbers reach S_B or S_C, and how many reach nothing; without the dt rows.

    >>> live_parameters("positive", 16, 1536)       # of the 2 N D = 49,152 that the layer stores
    (24456, 24696)
    >>> live_parameters("free", 16, 1536)
    (49152, 0)
    """
    _known(name)
    stored = 2 * d_state * width
    if name == "free":
        return stored, 0
    if name in _TIED:
        live = d_state * width - d_state * (d_state + 1) // 2 + d_state
        return live, stored - live
    return d_state * width + 2 * d_state**2 - d_state, d_state  # the diagonal of K cancels in K - K^T
