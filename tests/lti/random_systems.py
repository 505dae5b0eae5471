"""Random systems of every kind, from a seed, and the dense definition they are checked against."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from ssmtheory.lti.base import LTI
from ssmtheory.lti.systems import DiagonalStateSpace, LowRankStateSpace, StateSpace, TriangularStateSpace

KINDS = ("dense", "diagonal", "pairs", "low rank", "triangular", "triangular low rank")

seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from(KINDS)
steps = st.sampled_from([None, 0.1])


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def system(
    kind: str, seed: int, n: int = 6, p: int = 2, m: int = 3, dt: float | None = None, proper: bool = False
) -> LTI:
    """A stable complex system; `proper` adds a direct term."""
    rng = np.random.default_rng(seed)
    B, C = normal(rng, n, m), normal(rng, p, n)
    D = normal(rng, p, m) if proper else None
    poles = -0.2 - rng.random(n) + 3j * rng.standard_normal(n)
    if dt is not None:
        poles = 0.95 * rng.random(n) * np.exp(2j * np.pi * rng.random(n))
    low = 0.05 * normal(rng, n, 1)
    if kind == "dense":
        mixing = np.linalg.qr(normal(rng, n, n))[0] + 0.1 * normal(rng, n, n)
        return StateSpace(mixing @ np.diag(poles) @ np.linalg.inv(mixing), B, C, D, dt)
    if kind == "diagonal":
        return DiagonalStateSpace(poles, B, C, D, dt)
    if kind == "pairs":
        return DiagonalStateSpace(poles, B, C, None if D is None else D.real, dt, conjugate_pairs=True)
    if kind == "low rank":
        return LowRankStateSpace(poles, low, low, B, C, D, dt)
    triangle = np.diag(poles) + 0.3 * np.tril(normal(rng, n, n), -1)
    if kind == "triangular":
        return TriangularStateSpace(triangle, B, C, D, dt)
    return TriangularStateSpace(triangle, B, C, D, dt, P=low, Q=low)


def matrices(system: LTI) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(A, B, C, D) written out from the fields, not through `to_dense`."""
    if isinstance(system, StateSpace):
        A = system.A
    elif isinstance(system, DiagonalStateSpace):
        A = np.diag(system.diagonal)
        if system.conjugate_pairs:
            zero = np.zeros_like(A)
            A = np.block([[A, zero], [zero, A.conj()]])
            return A, np.vstack([system.B, system.B.conj()]), np.hstack([system.C, system.C.conj()]), system.D
    elif isinstance(system, LowRankStateSpace):
        A = np.diag(system.diagonal) - system.P @ system.Q.conj().T
    else:
        assert isinstance(system, TriangularStateSpace)
        A = system.triangle if system.P is None else system.triangle - system.P @ system.Q.conj().T
    return A, system.B, system.C, system.D


def value(system: LTI, s: complex) -> np.ndarray:
    """G(s) by its definition."""
    A, B, C, D = matrices(system)
    return C @ np.linalg.solve(s * np.eye(A.shape[0]) - A, B) + D


def legs(N: int) -> tuple[np.ndarray, np.ndarray]:
    """HiPPO-LegS, from its definition."""
    n = np.arange(N)
    root = np.sqrt(2.0 * n + 1)
    return -np.tril(np.outer(root, root), -1) - np.diag(n + 1.0), root
