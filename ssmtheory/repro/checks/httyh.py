"""Checks for "How to Train Your HiPPO" (arXiv 2206.12037): bases, windows, time scales."""

from __future__ import annotations

import numpy as np

from ssmtheory.inits import hippo
from ssmtheory.lti import kernels
from ssmtheory.lti.systems import StateSpace
from ssmtheory.typing import Array

__all__ = [
    "fout_energy_outside",
    "fout_window",
    "lagt_kernel_error",
    "legs_orthonormality",
    "legt_normal_residual",
    "legt_window",
    "lmu_difference",
    "time_scale_error",
]


def legs_orthonormality(N: int) -> float:
    """Largest entry of <K_n, K_m> - delta_nm in the weight e^t on (0, inf); with x = e^{-t} a polynomial integral."""
    nodes, weights = np.polynomial.legendre.leggauss(N)
    x, w = (nodes + 1) / 2, weights / 2
    # K_n K_m e^t dt = p_n(x) p_m(x) dx with K_n = x p_n(x): of degree 2N - 2, exact at N Gauss nodes
    p = np.stack([hippo.legs_kernel(n, -np.log(x)) for n in range(N)]) / x
    return float(np.abs((p * w) @ p.T - np.eye(N)).max())


def _delay(A: Array, B: Array, C: Array) -> float:
    """Group delay at frequency 0, -G'(0)/G(0) = (C A^{-2} B) / (C A^{-1} B) up to sign."""
    first = np.linalg.solve(A, B)
    return float(-(C @ np.linalg.solve(A, first)) / (C @ first))


def legt_window(N: int, variant: str) -> float:
    """Length of LegT's window: the delay of the output at its far end, C_n = (-1)^n sqrt(2n+1)."""
    A, B = hippo.legt(N, variant=variant)  # type: ignore[arg-type]
    n = np.arange(N)
    return _delay(A, B, np.where(n % 2 == 0, 1.0, -1.0) * np.sqrt(2 * n + 1))


def legt_normal_residual(N: int) -> float:
    """How far LegT plus its rank-2 correction (even and odd entries of sqrt(2n+1)) is from skew, relative."""
    A, _ = hippo.legt(N)
    root = np.sqrt(2.0 * np.arange(N) + 1)
    P = np.stack([np.where(np.arange(N) % 2 == parity, root, 0) for parity in (0, 1)], axis=1)
    total = A + P @ P.T
    return float(np.abs(total + total.T).max() / np.linalg.norm(A, 2))


def lmu_difference(N: int) -> float:
    """Largest relative difference of the responses of LegT and the LMU's matrices, at the LMU's own scaling."""
    A, B = hippo.legt(N)
    n = np.arange(N)
    # the LMU as printed: A = (2i+1)(-1 for i < j, (-1)^{i-j+1} else), B = (-1)^i (2i+1)
    sign = np.where((n[:, None] - n) % 2 == 0, -1.0, 1.0)
    lmu = np.where(n[:, None] < n, -1.0, sign) * (2 * n + 1)[:, None]
    weight = np.where(n % 2 == 0, 1.0, -1.0) * (2 * n + 1)
    scale = np.where(n % 2 == 0, 1.0, -1.0) * np.sqrt(2 * n + 1)
    s = 1j * np.array([0.3, 3.0, 30.0])
    one = np.linalg.solve(s[:, None, None] * np.eye(N) - A, B[:, None])[:, :, 0] * scale
    two = np.linalg.solve(s[:, None, None] * np.eye(N) - lmu, weight[:, None])[:, :, 0]
    return float(np.abs(one - two).max() / np.abs(two).max())


def fout_window(N: int, window: float) -> float:
    """Length of FouT's window: the delay of the all-pass output 2 b^T x - u at frequency 0."""
    A, B = hippo.fout(N, window)
    b = np.where(np.arange(N) % 2 == 0, np.sqrt(2), 0.0)
    b[0] = 1
    keep = np.flatnonzero(np.arange(N) != 1)  # the sine of frequency 0 is never driven, and would make A singular
    A, B, b = A[np.ix_(keep, keep)], B[keep], b[keep]
    first = np.linalg.solve(A, B)
    value, slope = -2 * b @ first - 1, -2 * b @ np.linalg.solve(A, first)
    return float(-slope / value)


def fout_energy_outside(N: int) -> float:
    """Share of the energy of FouT's kernel 0 beyond its window [0, 1], from times up to 3."""
    A, B = hippo.fout(N)
    C = np.zeros(N)
    C[0] = 1
    t = (np.arange(1200) + 0.5) / 400
    k = kernels.impulse_response(StateSpace(A, B, C), t).real.reshape(-1)
    return float((k[t > 1] ** 2).sum() / (k**2).sum())


def time_scale_error(factor: float) -> float:
    """(cA, cB) has the kernel c K(ct): largest relative difference for LegS, 8 states."""
    A, B = hippo.legs(8)
    t = np.linspace(0.05, 3, 20)
    fast = kernels.impulse_response(StateSpace(factor * A, factor * B, np.eye(8)), t)
    exact = np.stack([factor * hippo.legs_kernel(n, factor * t) for n in range(8)], axis=-1)
    return float(np.abs(fast.real.reshape(20, 8) - exact).max() / np.abs(exact).max())


def lagt_kernel_error(N: int) -> float:
    """LagT's kernels are e^{-t} L_n(t): largest difference, Laguerre polynomials by NumPy."""
    A, B = hippo.lagt(N)
    t = np.linspace(0.05, 6, 30)
    found = kernels.impulse_response(StateSpace(A, B, np.eye(N)), t).real.reshape(30, N)
    exact = np.stack([np.polynomial.laguerre.lagval(t, np.eye(N)[n]) for n in range(N)], axis=-1)
    return float(np.abs(found - np.exp(-t)[:, None] * exact).max())
