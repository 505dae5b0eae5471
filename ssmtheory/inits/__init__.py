"""Initialisations of linear state-space layers: HiPPO, S4, S4D, S5, LRU, DSS, PTD and HiPPO-rho."""

from __future__ import annotations

from ssmtheory.inits import hippo

__all__ = ["hippo"]
