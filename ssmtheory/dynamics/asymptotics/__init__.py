"""Asymptotics of the depth equation of a selective layer: regimes, sharp constants, fates, and the paper's statements.

The equation (Vo et al., arXiv 2410.03292; D channels, N states, tokens x_1 .. x_L in R^D, depth t):

    dx_dl/dt = sum_{j <= l} x_l^T S_C^T exp(A_d sum_{k=j+1..l} Delta_d(x_k)) S_B x_j  Delta_d(x_j) x_dj

| module | what |
|---|---|
| finite_time | one token in one dimension with mu > 0: its blow-up time T* to 1e-12, with bounds from both sides |
| regimes | several tokens in one dimension: classification, plateaus, slow growth, followers; any kernel kappa |
| exponential_sums | sums of exponentials c_k e^{lambda_k s}: every real root, isolated |
| reduction | the first token in D dimensions: one scalar equation s' = Q(s), fates, rates, the null cone |
| gaussian | random S_B and S_C: how often q is positive, how often the null cone stops a token |
| sphere | pre-norm: eigenvectors of the layer, growth, contraction, attraction to the first token |
| statements | what the paper states, as objects with a status and a counterexample that runs |

The names of `finite_time`, `regimes` and `reduction` are here too: `asymptotics.blow_up_time(mu=1.0, s=1.0, x0=1.0)`.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from ssmtheory.dynamics.asymptotics.finite_time import BlowUp, blow_up, blow_up_bounds, blow_up_time
from ssmtheory.dynamics.asymptotics.reduction import Fates, fates, null_cone_rate
from ssmtheory.dynamics.asymptotics.regimes import Kernel, classify, followers, plateaus, slow_growth, slow_ratios

__all__ = [
    "BlowUp",
    "Fates",
    "Kernel",
    "blow_up",
    "blow_up_bounds",
    "blow_up_time",
    "classify",
    "exponential_sums",
    "fates",
    "followers",
    "gaussian",
    "null_cone_rate",
    "plateaus",
    "reduction",
    "regimes",
    "slow_growth",
    "slow_ratios",
    "sphere",
    "statements",
]

_MODULES = ("exponential_sums", "gaussian", "reduction", "regimes", "sphere", "statements")


def __getattr__(name: str) -> ModuleType:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
