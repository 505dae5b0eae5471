"""Checks for PTD (arXiv 2310.01698): convergence for given inputs, spikes, bounds on the perturbed system."""

from __future__ import annotations

import math

import numpy as np

from ssmtheory import certify
from ssmtheory.inits import hippo
from ssmtheory.lti import discretize, norms
from ssmtheory.lti.systems import DiagonalStateSpace, StateSpace
from ssmtheory.repro.checks import _systems
from ssmtheory.repro.finding import Finding
from ssmtheory.typing import Array

__all__ = [
    "bound_ratio",
    "condition_slope",
    "deviation",
    "deviation_trend",
    "dissipative_ratio",
    "hinf_discrete",
    "hinf_formula",
    "log_grid_shortfall",
    "noise_gain",
    "output_error",
    "paper_bound_ratio",
    "spike_ratio",
    "unstable_share",
]


def output_error(N: int) -> float:
    """N ||y_Diag - y|| in L2 for the input e^{-t} and C = e_0: the cascade with 1/(s+1), through inner products.

    y = G/(s+1): the modes keep their residues divided by (pole + 1), and the pole -1 takes the remainder; LegS itself
    has the double pole 1/(s+1)^2.
    """
    diagonal = _systems.s4d_output(N).expand()
    poles, residues = diagonal.diagonal, diagonal.C[0] * diagonal.B[:, 0]
    shifted = residues / (poles + 1)
    cascade = DiagonalStateSpace(np.append(poles, -1), np.ones(poles.size + 1), np.append(shifted, -shifted.sum()))
    legs = StateSpace([[-1, 0], [1, -1]], [1, 0], [0, 1])
    return N * norms.h2_norm(cascade - legs)


def spike_ratio(N: int) -> Finding:
    """The largest gap over all frequencies and unit C, divided by 2N/pi; certified."""
    found = certify.s4d_gap(N, "worst")
    assert found.lower is not None
    assert found.upper is not None
    scale = math.pi / (2 * N)
    low, high = float(found.lower) * scale * (1 - 1e-15), float(found.upper) * scale * (1 + 1e-15)
    return Finding(value=(low + high) / 2, lower=low, upper=high, holds=found.verify(), basis="certificate")


def log_grid_shortfall(N: int, points: int = 1000) -> float:
    """What a logarithmic grid from 0.01 to 4N^2 makes of the sup of the e_0 gap, over its certified value."""
    omega = np.geomspace(1e-2, 4 * N * N, points)
    below = np.abs(hippo.transfer(N, 1j * omega, [0])[:, 0] * (1 - 1 / hippo.one_plus_phi(N, 1j * omega)))
    return float(below.max() / certify.s4d_gap(N, 0).value)


# ---------------------------------------------------------------------------------------------------- perturbed systems


def _deviation(N: int, E: Array) -> float:
    """sup over omega of ||X_E - X||, the largest over all unit C.

    Pole-aware: a grid, refined around the imaginary part of every perturbed eigenvalue, then polished by golden
    section. X - X_E = -R_E E X is small where E is: both are formed from one factorisation per frequency.
    """
    A, _ = hippo.legs(N)
    poles = np.linalg.eigvals(A + E)
    spread = np.linspace(-2, 2, 9)
    near = (poles.imag[:, None] + np.abs(poles.real)[:, None] * spread).reshape(-1)
    grid = np.unique(np.concatenate([np.linspace(-3, 3, 61), near]))
    eye = np.eye(N)

    def gain(w: float) -> float:
        X = hippo.transfer(N, 1j * w)
        return float(np.linalg.norm(np.linalg.solve(1j * w * eye - A - E, E @ X)))

    values = np.array([gain(w) for w in grid])
    best = int(values.argmax())
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, grid.size - 1)]
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(40):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if gain(a) > gain(b) else (a, high)
    return max(float(values.max()), gain((low + high) / 2))


def deviation(N: int, epsilon: float, draws: int) -> Finding:
    """Median deviation of a Ginibre PTD over independent draws, and the range of the draws."""
    values = np.array([_deviation(N, _systems.ginibre(N, epsilon, seed)) for seed in range(draws)])
    return Finding(value=float(np.median(values)), lower=float(values.min()), upper=float(values.max()))


def deviation_trend(small: int, large: int, epsilon: float, draws: int) -> float:
    """Median deviation at the larger size over that at the smaller."""
    high, low = (deviation(N, epsilon, draws).value for N in (large, small))
    assert high is not None
    assert low is not None
    return high / low


def paper_bound_ratio(N: int, epsilon: float) -> float:
    """Deviation over (2 ln n + 4) epsilon, with inputs scaled to norm 1 as the theorem asks; one Ginibre draw."""
    value = _deviation(N, _systems.ginibre(N, epsilon, 0))
    return value / ((2 * math.log(N) + 4) * epsilon)


def _structured(N: int, rng: np.random.Generator, kind: int) -> Array:
    """A perturbation of one of several shapes, of norm 1."""
    E = rng.standard_normal((N, N)).astype(np.complex128)
    if kind == 1:
        E = E + 1j * rng.standard_normal((N, N))
    elif kind == 2:  # rank one
        E = np.multiply.outer(E[0], E[1])
    elif kind == 3:  # skew
        E = E - E.T
    elif kind == 4:  # along the resolvent's largest direction at 0
        A, _ = hippo.legs(N)
        u, _, vh = np.linalg.svd(np.linalg.inv(-A))
        E = np.multiply.outer(vh[0].conj(), u[:, 0].conj())
    elif kind == 5:
        E = np.tril(E, -1)
    return E / np.linalg.norm(E, 2)


def bound_ratio(N: int, draws: int) -> float:
    """Largest deviation over its bound with denominator 1/2 - lambda_max(sym E), pointwise in omega, many shapes of E.

    The bound is ||E|| / (1/2 - lambda_max(sym E)) * N / sqrt(omega^2 + N^2) wherever lambda_max(sym E) < 1/2.
    """
    rng = np.random.default_rng(7)
    A, _ = hippo.legs(N)
    worst = 0.0
    for draw in range(draws):
        E = _structured(N, rng, draw % 6) * 10 ** rng.uniform(-3, 2)
        top = float(np.linalg.eigvalsh((E + E.conj().T) / 2)[-1])
        if top >= 0.499:  # outside: pull the symmetric part inside, which keeps the skew part's scale
            E = E - (top - 0.499 * rng.uniform()) * np.eye(N)
            top = float(np.linalg.eigvalsh((E + E.conj().T) / 2)[-1])
        omega = np.concatenate([[0.0], 10 ** rng.uniform(-2, 3, 3), np.linalg.eigvals(A + E).imag[:2]])
        X = hippo.transfer(N, 1j * omega)
        solved = np.linalg.solve(1j * omega[:, None, None] * np.eye(N) - A - E, (X @ E.T)[:, :, None])[:, :, 0]
        bound = np.linalg.norm(E, 2) / (0.5 - top) * N / np.hypot(omega, N)
        worst = max(worst, float((np.linalg.norm(solved, axis=1) / bound).max()))
    return worst


def dissipative_ratio(N: int, draws: int) -> float:
    """Largest deviation over 2 ||E|| for dissipative E (sym E <= 0) of norms from 0.01 to 100."""
    rng = np.random.default_rng(3)
    worst = 0.0
    for _ in range(draws):
        Q = rng.standard_normal((N, N))
        E = (Q - Q.T) * rng.uniform() - Q @ Q.T / N * rng.uniform()
        E *= 10 ** rng.uniform(-2, 2) / np.linalg.norm(E, 2)
        worst = max(worst, _deviation(N, E) / (2 * float(np.linalg.norm(E, 2))))
    return worst


def unstable_share(N: int, epsilon: float, draws: int) -> float:
    """Share of Ginibre perturbations of norm epsilon that make LegS unstable."""
    A, _ = hippo.legs(N)
    return float(np.mean([np.linalg.eigvals(A + _systems.ginibre(N, epsilon, k)).real.max() > 0 for k in range(draws)]))


def condition_slope(N: int, draws: int) -> Finding:
    """Slope of ln kappa(V) against ln epsilon for Ginibre perturbations, 0.01 to 1: mean over draws +- 2 errors.

    One slope per draw, the same matrix at every epsilon: the values along one line are not independent, the draws are.
    """
    A, _ = hippo.legs(N)
    epsilons = np.geomspace(1e-2, 1, 7)
    slopes = []
    for seed in range(draws):
        logs = []
        for epsilon in epsilons:
            _, V = np.linalg.eig(A + _systems.ginibre(N, float(epsilon), seed))
            logs.append(math.log(np.linalg.cond(V / np.linalg.norm(V, axis=0))))
        slopes.append(np.polyfit(np.log(epsilons), logs, 1)[0])
    mean, error = float(np.mean(slopes)), 2 * float(np.std(slopes, ddof=1)) / math.sqrt(draws)
    return Finding(value=mean, lower=mean - error, upper=mean + error)


# ---------------------------------------------------------------------------------------------------- discretised


def hinf_discrete(N: int, dt: float, method: str) -> float:
    """H-infinity norm of the discretised e_0 gap: pole-aware maximum on the unit circle.

    LegS's e_0 has one state, so both parts are diagonal and the discretisation is exact.
    """
    modes = discretize.discretize(_systems.s4d_output(N).expand(), dt, method)
    single = discretize.discretize(DiagonalStateSpace([-1], [1], [1]), dt, method)
    assert isinstance(modes, DiagonalStateSpace)
    angle = np.angle(modes.diagonal)
    width = np.maximum(1 - np.abs(modes.diagonal), 1e-14)
    near = (angle[:, None] + width[:, None] * np.array([-1, -0.25, 0, 0.25, 1])).ravel()
    theta = np.concatenate([np.linspace(0, np.pi, 501), near])
    z = np.exp(1j * theta)
    return float(np.abs((modes - single)(z)[:, 0, 0]).max())


def hinf_formula(N: int, dt: float) -> float:
    """The measured discrete norm in S4's bilinear convention over (2/pi) sqrt(1 + (omega_0 dt / 2)^2)."""
    omega = certify.s4d_spike(N).value
    return hinf_discrete(N, dt, "bilinear_s4") / (2 / math.pi * math.hypot(1, omega * dt / 2))


def noise_gain(dt: float, system: str, frequency: float = 325.4) -> float:
    """Gain of a ZOH layer of 32 states at cos(frequency dt k), worst unit C: the mechanism of the robustness test."""
    N = 32
    if system == "dplr":
        A, B = hippo.legs(N)
    else:
        A, _, B = hippo.nplr(N)
        B = B / 2
    step = discretize.discretize(StateSpace(A, B, np.eye(N)), dt, "zoh")
    return float(np.linalg.norm(step(np.exp(1j * frequency * dt))[:, 0]))
