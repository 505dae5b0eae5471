"""Checks for S4 (arXiv 2111.00396): normal plus low rank, the eigenvectors of LegS, DPLR responses."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from ssmtheory.inits import hippo
from ssmtheory.lti import discretize
from ssmtheory.lti.systems import DiagonalStateSpace, LowRankStateSpace, StateSpace

__all__ = [
    "bilinear_kernel_error",
    "dplr_response_error",
    "eigenvector_growth",
    "eigenvectors_are_binomials",
    "float64_eigenvalue_error",
    "nplr_residual",
]


def nplr_residual(N: int) -> float:
    """How far A_H + P P^T + I/2 is from skew, and A_H + A_H^T from -I - B B^T, relative to ||A_H||."""
    A, B = hippo.legs(N)
    P = np.sqrt(np.arange(N) + 0.5)
    skew = A + np.multiply.outer(P, P) + np.eye(N) / 2
    first = np.abs(skew + skew.T).max()
    second = np.abs(A + A.T + np.eye(N) + np.multiply.outer(B, B)).max()
    return max(first, second) / np.linalg.norm(A, 2)


def _eigenvector(rows: list[list[int]], j: int) -> list[Fraction]:
    """The eigenvector of a lower-triangular matrix for its j-th diagonal entry, 1 in place j, by substitution."""
    size = len(rows)
    v = [Fraction(0)] * size
    v[j] = Fraction(1)
    for n in range(j + 1, size):
        v[n] = sum((rows[n][k] * v[k] for k in range(j, n)), Fraction(0)) / (rows[j][j] - rows[n][n])
    return v


def eigenvectors_are_binomials(N: int) -> bool:
    """Whether the eigenvectors of LegS, in the scaling without roots, are (-1)^{i-j} binom(i+j, i-j), exactly.

    The matrix there is similar to A_H by a diagonal matrix with entries up to sqrt(2N - 1).
    """
    rows, _ = hippo.legs_integer(N)
    return all(
        _eigenvector(rows, j)[i] == (-1) ** (i - j) * math.comb(i + j, i - j) for j in range(N) for i in range(j, N)
    )


def eigenvector_growth(N: int) -> float:
    """Bits per state by which the largest entry of the eigenvector matrix grows, between N/2 and N states."""
    largest = []
    for size in (N // 2, N):
        rows, _ = hippo.legs_integer(size)
        largest.append(max(math.log2(abs(x)) for j in range(size) for x in _eigenvector(rows, j) if x))
    return (largest[1] - largest[0]) / (N - N // 2)


def float64_eigenvalue_error(N: int) -> float:
    """Largest error of LAPACK's eigenvalues of Q A_H Q^T, Q random orthogonal: the true ones are -1, ..., -N."""
    A, _ = hippo.legs(N)
    size = A.shape[0]
    Q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((size, size)))
    found = np.linalg.eigvals(Q @ A @ Q.T)
    true = -np.arange(1, size + 1)
    return float(np.abs(found[:, None] - true).min(axis=1).max())


def _dplr(N: int) -> LowRankStateSpace:
    """LegS in the eigenbasis of its normal part: what S4 computes with."""
    normal, P, B = hippo.nplr(N)
    imaginary, V = np.linalg.eigh(-1j * (normal + np.eye(N) / 2))
    left = V.conj().T
    return LowRankStateSpace(-0.5 + 1j * imaginary, left @ P, left @ P, left @ B, V)


def dplr_response_error(N: int) -> float:
    """Relative error of the diagonal-plus-low-rank response (Woodbury) against the closed form, spike included."""
    omega = np.concatenate([np.geomspace(1e-2, 10 * N * N, 60), [N * N / np.pi - np.pi / 6]])
    exact = hippo.transfer(N, 1j * omega)
    found = _dplr(N)(1j * omega)[:, :, 0]
    return float((np.abs(found - exact).max(axis=1) / np.abs(exact).max(axis=1)).max())


def bilinear_kernel_error(N: int, dt: float, length: int) -> float:
    """S4's kernel from its generating function (bilinear, Woodbury at roots of unity) against the powers C Abar^k Bbar.

    The truncated generating function is sampled at the L-th roots of unity and inverted by FFT. The low-rank part is
    added to diagonal responses by hand, as S4 does.
    """
    normal, P, B = hippo.nplr(N)
    rng = np.random.default_rng(1)
    C = rng.standard_normal(N) + 0j
    dense = discretize.discretize(StateSpace(normal - P @ P.T, B, C), dt, "bilinear_s4").to_dense()
    direct = np.empty(length, dtype=np.complex128)
    x = dense.B[:, 0]
    for k in range(length):
        direct[k] = dense.C[0] @ x
        x = dense.A @ x
    # C (I - Abar^L) in place of C makes the generating function a polynomial of degree L - 1
    cut = C @ (np.eye(N) - np.linalg.matrix_power(dense.A, length))
    imaginary, V = np.linalg.eigh(-1j * (normal + np.eye(N) / 2))
    poles, left = -0.5 + 1j * imaginary, V.conj().T
    z = np.exp(-2j * np.pi * np.arange(length) / length)
    with np.errstate(divide="ignore", invalid="ignore"):
        s, weight = 2 / dt * (1 - z) / (1 + z), 2 / (1 + z)
    finite = np.isfinite(s)
    parts = {
        (a, b): DiagonalStateSpace(poles, left @ right, row @ V)(s[finite])[:, 0, 0]
        for a, row in (("C", cut), ("P", P[:, 0]))
        for b, right in (("B", B), ("P", P[:, 0]))
    }
    values = np.empty(length, dtype=np.complex128)
    values[finite] = weight[finite] * (parts["C", "B"] - parts["C", "P"] * parts["P", "B"] / (1 + parts["P", "P"]))
    # at z = -1 the bilinear map is at infinity: the limit of 2/(1+z) C (s - A)^{-1} B is dt C B / 2 . 1
    values[~finite] = dt * (cut @ B) / 2
    kernel = np.fft.ifft(values)
    return float(np.abs(kernel - direct).max() / np.abs(direct).max())
