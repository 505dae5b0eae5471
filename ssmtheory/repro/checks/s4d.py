"""Checks for S4D (arXiv 2206.11893): the spectrum, in which sense the kernels converge, S4D-Inv, the shipped code."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ssmtheory import certify
from ssmtheory.inits import hippo, legs
from ssmtheory.inits import s4d as laws
from ssmtheory.lti import discretize, kernels, norms
from ssmtheory.lti.systems import StateSpace
from ssmtheory.repro.checks import _systems
from ssmtheory.repro.finding import Finding

__all__ = [
    "bulk_law_error",
    "bulk_share",
    "inv_error",
    "kernel_difference_at",
    "kernel_error",
    "l2_gap",
    "offset_from_leading_term",
    "shipped_clip",
    "shipped_resonance",
    "window_average",
]


def offset_from_leading_term(N: int) -> Finding:
    """y_0 - N^2/pi for the top eigenvalue -1/2 + i y_0 of S4D-LegS, from a certified enclosure of y_0."""
    found = certify.top_eigenvalue(N)
    middle = found.value - N * N / np.pi
    # pi and the subtraction are rounded; 1e-6 covers both for N up to 10^4
    return Finding(value=middle, lower=middle - 1e-6, upper=middle + 1e-6, holds=found.verify(), basis="certificate")


def l2_gap(N: int, output: int = 0) -> float:
    """L2 distance of the S4D and LegS kernels, through Lyapunov-type inner products of the two systems."""
    return norms.h2_norm(_systems.s4d_output(N, output) - _systems.legs_output(N, output))


def kernel_difference_at(N: int, t: float) -> float:
    """S4D kernel minus LegS kernel at one time, output 0."""
    found = kernels.impulse_response(_systems.s4d_output(N), np.array([t]))
    return float(found.real.reshape(-1)[0] - hippo.legs_kernel(0, np.array([t]))[0])


def window_average(N: int, width: float) -> float:
    """Largest average of the kernel difference over a window of this width, in modulus, for times up to 2; output 0.

    The average of each exponential is exact: differences of step responses. Windows start every width/50.
    """
    times = np.arange(int(2 / width * 50) + 51) * width / 50
    step = kernels.step_response(_systems.s4d_output(N), times).real.reshape(-1) - (1 - np.exp(-times))
    return float(np.abs(step[50:] - step[:-50]).max() / width)


def _relative_error(law: np.ndarray, N: int) -> np.ndarray:
    return law / hippo.spectrum(N) - 1


def inv_error(N: int, m: int) -> float:
    """Relative error of eq. 8, (N/pi)(N/(2m+1) - 1), against the m-th imaginary part of the S4D-LegS spectrum."""
    return float(_relative_error(laws.inverse_law(N), N)[m])


def bulk_law_error(N: int) -> float:
    """Largest relative error of N arctan(N/y) - (y/2) ln(1 + N^2/y^2) = (2m+1) pi/2 over the whole spectrum."""
    return float(np.abs(_relative_error(hippo.spectrum_bulk(N), N)).max())


def bulk_share(N: int) -> float:
    """Share of the eigenvalues of S4D-LegS whose imaginary part lies below N."""
    return float((hippo.spectrum(N) < N).mean())


def kernel_error(N: int, dt: float, length: int) -> float:
    """Vandermonde kernel (eq. 7) of the ZOH system against the state recursion of a dense ZOH system, relative."""
    diagonal = _systems.s4d_output(N)
    fast = kernels.kernel(discretize.discretize(diagonal, dt, "zoh"), length).reshape(-1)
    dense = diagonal.to_dense()
    step = discretize.discretize(StateSpace(dense.A, dense.B, dense.C), dt, "zoh").to_dense()
    x, slow = step.B[:, 0], np.empty(length, dtype=np.complex128)
    for k in range(length):
        slow[k] = step.C[0] @ x
        x = step.A @ x
    return float(np.abs(fast - slow).max() / np.abs(slow).max())


def shipped_clip(N: int) -> float:
    """Relative change of the eigenbasis input vector V* B (in norm) by the clamp of its imaginary part to +-2."""
    clipped, full = legs.shipped_modes(N)[2], legs.shipped_modes(N, None)[2]
    return float(np.linalg.norm(clipped - full) / np.linalg.norm(full))


def shipped_resonance(N: int) -> float:
    """Gain of the states of S4D-LegS at its top eigenvalue, as shipped over as published."""
    y = hippo.spectrum(N)[0]
    gains = []
    variants: tuple[Literal["shipped", "published"], ...] = ("shipped", "published")
    for variant in variants:
        system = laws.S4DLegS(variant=variant).build(N).system
        gains.append(np.linalg.norm(system(1j * y)[:, 0]))
    return float(gains[0] / gains[1])
