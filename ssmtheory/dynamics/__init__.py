"""Dynamics of tokens and states: input-output matrices, memory, exponents, concordance.

Pure functions and accumulators on NumPy arrays (u, Delta, A, B, C, residual, ...); nothing here loads a model.

| module | what |
|---|---|
| input_output | q(u), spectra of S_B S_C^T and of the symmetric part of M = S_C^T S_B, kappa at observed lags |
| attention | hidden attention rows and their channel means, in bounded memory |
| lyapunov | exponents along the sequence, horizon, effective receptive field |
| depth | radial rate and its exact split, angles, clustering through depth, scenarios |
| sphere | directions through depth: pairs, anchors, updates against directions, powers of the norm |
| token_ode | the depth equation of tokens: right-hand side, integrators for each regime, discrete depth |
| asymptotics | the depth equation's regimes, sharp constants and fates; the paper's statements, with counterexamples |
| concordance | do two signs agree beyond their margins: stratified kappa, bootstrap, permutation null |
| streaming | histograms and sums that take a sequence chunk by chunk |
"""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = [
    "asymptotics",
    "attention",
    "concordance",
    "depth",
    "input_output",
    "lyapunov",
    "sphere",
    "streaming",
    "token_ode",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
