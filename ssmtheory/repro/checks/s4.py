"""Checks for S4 (arXiv 2111.00396): normal plus low rank, eigenvector growth, the convolution kernel."""

from __future__ import annotations

import numpy as np

from ssmtheory.inits import hippo

__all__ = ["nplr_residual"]


def nplr_residual(N: int) -> float:
    """How far A_H + P P^T + I/2 is from skew, and A_H + A_H^T from -I - B B^T, relative to ||A_H||."""
    A, B = hippo.legs(N)
    P = np.sqrt(np.arange(N) + 0.5)
    skew = A + np.multiply.outer(P, P) + np.eye(N) / 2
    first = np.abs(skew + skew.T).max()
    second = np.abs(A + A.T + np.eye(N) + np.multiply.outer(B, B)).max()
    return max(first, second) / np.linalg.norm(A, 2)
