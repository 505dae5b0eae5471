"""Systems that several checks use, built from the closed forms of `ssmtheory.inits.hippo`."""

from __future__ import annotations

import numpy as np

from ssmtheory.inits import hippo
from ssmtheory.lti.systems import DiagonalStateSpace, StateSpace
from ssmtheory.typing import Array

__all__ = ["ginibre", "legs_output", "legs_states", "s4d_output"]


def legs_output(N: int, output: int = 0) -> StateSpace:
    """LegS with C = e_n. State n depends on the states before it only, so n + 1 of them are enough whatever N."""
    A, B = hippo.legs(output + 1)
    return StateSpace(A, B, np.eye(output + 1)[output])


def legs_states(N: int) -> StateSpace:
    """LegS with every state as an output."""
    A, B = hippo.legs(N)
    return StateSpace(A, B, np.eye(N))


def s4d_output(N: int, output: int = 0) -> DiagonalStateSpace:
    """S4D-LegS (B/2) with C = e_n of the HiPPO basis: N even, both members of each pair.

    The residue at -1/2 + iy is X_n(-1/2 + iy) / (2 S(y)).
    """
    y = hippo.spectrum(N)
    poles = -0.5 + 1j * y
    residues = hippo.transfer(N, poles, [output])[:, 0] / (2 * hippo.phase_slope(N, y))
    return DiagonalStateSpace(poles, np.ones(y.size), residues, conjugate_pairs=True)


def ginibre(N: int, epsilon: float, seed: int) -> Array:
    """A complex Gaussian matrix of spectral norm epsilon."""
    rng = np.random.default_rng([N, seed])
    E = rng.standard_normal((N, N)) + 1j * rng.standard_normal((N, N))
    return epsilon * E / np.linalg.norm(E, 2)
