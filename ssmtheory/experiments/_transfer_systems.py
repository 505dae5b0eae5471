"""The systems that `transfer_convergence` compares with HiPPO-LegS, and how their distance is measured.

A label names an initialisation with its parameter:

| label | system |
|---|---|
| s4d-legs | S4D-LegS with the input B/2, X/(1 + phi) (arXiv 2206.11893) |
| hippo-rho-10 | HiPPO-rho with rho = 10; hippo-rho-imaginary-11 and hippo-rho-positive-10 choose a |
| hippo-rho-normal-3 | its replacement by a normal matrix (condition number 1) |
| ptd-0.1 | PTD with a Ginibre perturbation of norm 0.1 (arXiv 2310.01698); ptd-real-0.1, ptd-dissipative-0.1 |
| ptd-published-1e4 | PTD that minimises the authors' objective with this weight |
| ptd-optimised-0.1 | PTD that minimises the condition number at a deviation of at most 0.1 (ours) |
| s4d-inv, s4d-arctan | the eigenvectors and input of S4D-LegS with poles by these laws |
| s4d-legs-shipped | S4D-LegS as the public code has it: B not halved, clipped |

LegS itself is never diagonalised: its transfer vector is a closed form.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from ssmtheory import inits
from ssmtheory.errors import ConfigError
from ssmtheory.inits import hippo
from ssmtheory.lti import LTI, DiagonalStateSpace
from ssmtheory.typing import Array

__all__ = ["Member", "Peak", "axis_nodes", "legs_output", "log_grid", "member", "peak", "spikes"]

_KINDS = ("imaginary", "positive", "negative", "normal")
#: names of the registry that are labels
_PLAIN = ("s4d-legs", "s4d-inv", "s4d-arctan")
#: kinds of perturbation a label may name
PERTURBATIONS = ("ginibre", "real", "dissipative", "optimised", "published")


@dataclass(frozen=True)
class Peak:
    """The largest value of a function of frequency that was found, and where [rad/s]."""

    value: float
    omega: float


def peak(gain: Callable[[Array], Array], grid: Array, values: Array | None = None, keep: int = 6) -> Peak:
    """Largest value on a grid, polished around the highest local maxima by zooming in, never beyond the grid's ends.

    Args:
        gain: (k,) frequencies -> (k,) values.
        grid: rising frequencies in rad/s; it must contain the places where narrow peaks sit.
        values: gain(grid), if it is known already.
        keep: local maxima that are polished.
    """
    if values is None:
        values = gain(grid)
    inner = np.r_[True, values[1:] >= values[:-1]] & np.r_[values[:-1] >= values[1:], True]
    tops = np.flatnonzero(inner)
    tops = tops[np.argsort(values[tops])[::-1][:keep]]
    best = Peak(float(values.max()), float(grid[int(np.argmax(values))]))
    for top in tops:
        left, right = float(grid[max(top - 1, 0)]), float(grid[min(top + 1, grid.size - 1)])
        if values[top] < 0.5 * best.value:
            continue
        for _ in range(12):
            w = np.linspace(left, right, 13)
            found = gain(w)
            k = int(np.argmax(found))
            if found[k] > best.value:
                best = Peak(float(found[k]), float(w[k]))
            left, right = float(w[max(k - 1, 0)]), float(w[min(k + 1, 12)])
            if right - left <= 1e-13 * max(abs(left), abs(right)):
                break
    return best


def log_grid(low: float, high: float, per_decade: int, both: bool = False) -> Array:
    """0 and a geometric grid, mirrored to negative frequencies where `both`."""
    count = max(2, int(per_decade * math.log10(high / low)))
    grid = np.concatenate([[0.0], np.geomspace(low, high, count)])
    return np.unique(np.concatenate([-grid, grid])) if both else grid


def spikes(N: int, count: int | None = None) -> Array:
    """Frequencies where arg phi_N(i omega) = (2m+1) pi, from the largest down: the spikes of S4D.

    Newton's method on the phase 2 sum_{k=1}^{N-1} arctan(k/w) + arctan(N/w), which falls in w.

    Args:
        N: number of states.
        count: how many; all when None.

    Returns:
        (count,) float64 in rad/s.
    """
    # (2m+1) pi stays below (N - 1/2) pi, the phase at zero frequency
    total = max(0, math.ceil((N - 1.5) / 2))
    m = np.arange(total if count is None else min(count, total))
    target = (2 * m + 1) * np.pi
    k = np.arange(1, N + 1, dtype=np.float64)
    weight = np.full(N, 2.0)
    weight[-1] = 1.0
    w = np.maximum(N**2 / target, 1e-2)
    for _ in range(80):
        ratio = k / w[:, None]
        phase = np.arctan(ratio) @ weight
        slope = -(1 / (ratio + 1 / ratio)) @ weight  # d phase / d log w
        change = np.clip((target - phase) / slope, -1, 1)
        w = w * np.exp(change)
        if np.abs(change).max(initial=0) < 4e-16:
            break
    return w


def axis_nodes(centres: Array, widths: Array, top: float, both: bool) -> tuple[Array, Array]:
    """Nodes and weights of a quadrature over the frequency axis that resolves given resonances.

    Eight Gauss-Legendre nodes on each of the panels between geometric breakpoints, graded towards every resonance; the
    tail beyond `top` in the variable top/omega.

    Args:
        centres: (k,) positions of resonances in rad/s.
        widths: (k,) their half-widths.
        top: beyond it the integrand has no structure.
        both: integrate over negative frequencies too; else the integral is that over positive ones, doubled.

    Returns:
        Nodes and weights; sum(weights * f(nodes)) is (1/2 pi) times the integral of f over the axis.
    """
    points = [np.array([0.0, top]), np.geomspace(1e-3, top, int(12 * math.log10(top * 1e3)))]
    heights = np.unique(np.abs(centres))
    if heights.size:
        width = np.interp(heights, *_sorted(np.abs(centres), widths))
        gaps = np.diff(np.concatenate([[0.0], heights, [max(top, 2 * heights[-1])]]))
        for side, reach in ((-1, gaps[:-1]), (1, gaps[1:])):
            offset = 0.5 * width
            while (offset < reach).any():
                points.append((heights + side * offset)[offset < reach])
                offset = offset * 2
        points.append(heights)
    edges = np.unique(np.concatenate(points))
    edges = edges[(edges >= 0) & (edges <= top)]
    x, weight = np.polynomial.legendre.leggauss(8)
    half, middle = np.diff(edges) / 2, (edges[1:] + edges[:-1]) / 2
    nodes = (middle[:, None] + half[:, None] * x).reshape(-1)
    weights = (half[:, None] * weight).reshape(-1)
    x, weight = np.polynomial.legendre.leggauss(24)
    x = (1 + x) / 2
    nodes = np.concatenate([nodes, top / x])
    weights = np.concatenate([weights, weight / 2 * top / x**2])
    if both:
        return np.concatenate([-nodes, nodes]), np.concatenate([weights, weights]) / (2 * np.pi)
    return nodes, weights / np.pi


def legs_output(n: int) -> DiagonalStateSpace:
    """Output n of LegS as n+1 modes: K_n(t) = sqrt(2n+1) exp(-t) P_n(2 exp(-t) - 1) as a sum of exponentials."""
    k = np.arange(n + 1)
    weights = [math.comb(n, j) * math.comb(n + j, j) * (-1) ** (n + j) for j in range(n + 1)]
    return DiagonalStateSpace(-(k + 1.0), math.sqrt(2 * n + 1) * np.array(weights, dtype=np.float64), np.ones(n + 1))


def _sorted(x: Array, y: Array) -> tuple[Array, Array]:
    order = np.argsort(x)
    return x[order], y[order]


@dataclass(frozen=True)
class Member:
    """One system of N states that stands in for LegS.

    Attributes:
        label: as in the module's table.
        N: number of states.
        init: the initialisation.
        seed: of whatever is random.
    """

    label: str
    N: int
    init: Any
    seed: int = 0

    @cached_property
    def built(self) -> Any:
        """The realisation (`inits.Realization`)."""
        if self.perturbation is not None:
            return self.init.realize(self.perturbation)
        return self.init.build(self.N, self.seed)

    @cached_property
    def perturbation(self) -> Array | None:
        """E (N, N) of a PTD, None elsewhere."""
        return self.init.perturb(self.N, self.seed)[0] if self.init.name == "ptd" else None

    @property
    def system(self) -> LTI:
        """The system with N outputs in the HiPPO basis."""
        return self.built.system

    @cached_property
    def factor(self) -> complex | None:
        """a where the system is X/(1 + a phi): 1 for S4D, +-1/rho or i/rho for HiPPO-rho; None elsewhere."""
        if self.label == "s4d-legs":
            return 1.0 + 0j
        if self.init.name == "hippo-rho" and not self.init.normal and self.init.modes == 1:
            return complex(self.init.factor(self.N))
        return None

    @property
    def rho(self) -> float:
        """rho of HiPPO-rho, NaN elsewhere."""
        return float(self.init.rho) if self.init.name == "hippo-rho" else math.nan

    @cached_property
    def exact_factor(self) -> Any:
        """The factor for a certificate: exact text."""
        if self.factor == 1:
            return "1"
        size = str(1 / Fraction(self.init.rho))
        assert self.factor is not None
        if self.factor.imag:
            return ("0", size)
        return size if self.factor.real > 0 else f"-{size}"

    @cached_property
    def poles(self) -> Array:
        """Poles (N,)."""
        return self.system.poles()

    @cached_property
    def is_real(self) -> bool:
        """Whether the impulse response is real, so that negative frequencies add nothing."""
        if self.factor is not None:
            return self.factor.imag == 0
        if self.perturbation is not None:
            return not np.any(np.imag(self.perturbation))
        ordered = np.sort_complex(self.poles.round(6))
        return bool(np.allclose(ordered, np.sort_complex(self.poles.conj().round(6))))

    @property
    def top(self) -> float:
        """A frequency beyond every resonance [rad/s]."""
        return 16.0 * self.N**2 + 16

    # -- the gap X_member - X

    def difference(self, omega: Array, outputs: Array | None = None) -> Array:
        """Rows of X_member(i omega) - X_LegS(i omega): (k, q); all N when `outputs` is None."""
        s = 1j * np.asarray(omega, dtype=np.float64)
        rows = np.arange(self.N) if outputs is None else np.asarray(outputs)
        if self.factor is not None:
            quotient = -self.factor * hippo.phi(self.N, s) / hippo.one_plus_phi(self.N, s, self.factor)
            return quotient[:, None] * hippo.transfer(self.N, s, rows)
        out = np.empty((s.size, rows.size), dtype=np.complex128)
        block = max(1, 2**21 // self.N)
        for start in range(0, s.size, block):
            part = s[start : start + block]
            out[start : start + block] = self._values(part, rows) - hippo.transfer(self.N, part, rows)
        return out

    def _values(self, s: Array, rows: Array) -> Array:
        system = self.system
        if isinstance(system, DiagonalStateSpace):
            full = system.expand()
            return (full.B[:, 0] / (s[:, None] - full.diagonal)) @ full.C[rows].T
        return system._evaluate(s, rows)[:, :, 0]

    def worst(self, omega: Array) -> Array:
        """|X_member - X_LegS| at frequencies: the gap for the worst unit C there."""
        if self.factor is not None:
            w = np.asarray(omega, dtype=np.float64)
            s = 1j * w
            quotient = np.abs(self.factor * hippo.phi(self.N, s)) / np.abs(hippo.one_plus_phi(self.N, s, self.factor))
            return quotient * (self.N / np.hypot(w, self.N))
        return np.linalg.norm(self.difference(omega), axis=1)

    def single(self, output: int) -> Callable[[Array], Array]:
        """The gap of one output as a function of frequency."""
        rows = np.array([output])
        return lambda omega: np.abs(self.difference(omega, rows)[:, 0])

    @cached_property
    def resonances(self) -> Array:
        """Frequencies where the gap may peak: spikes of phi's phase, or pole frequencies."""
        if self.factor is not None:
            return self.poles.imag if self.factor != 1 else spikes(self.N)
        return self.poles.imag

    def grid(self, per_decade: int = 60) -> Array:
        """Frequencies that meet every resonance of the gap, rising."""
        base = log_grid(1e-2, self.top, per_decade, not self.is_real)
        found = self.resonances
        found = found if not self.is_real else found[found > 0]
        near = [found]
        if self.factor is not None:
            near += [found + step for step in (-0.5, 0.5)]
        grid = np.unique(np.concatenate([base, *near]))
        return grid if not self.is_real else grid[grid >= 0]

    @cached_property
    def profile(self) -> tuple[Array, Array]:
        """The grid, continued far beyond the last resonance, and the gap for the worst unit C on it."""
        far = np.geomspace(self.top, 1e4 * self.top, 9)
        grid = np.unique(np.concatenate([self.grid(), far, [] if self.is_real else -far]))
        return grid, self.worst(grid)

    @cached_property
    def worst_peak(self) -> Peak:
        """The largest gap over unit C and the profile's grid, polished."""
        return peak(self.worst, *self.profile)

    def nodes(self) -> tuple[Array, Array]:
        """Quadrature over the frequency axis for squares of the gap."""
        centres = self.resonances
        if self.factor == 1:
            widths = np.full(centres.size, 0.5)
        else:
            centres, widths = self.poles.imag, np.maximum(-self.poles.real, 0.25)
        return axis_nodes(centres, widths, self.top, not self.is_real)


def member(label: str, N: int, seed: int = 0) -> Member:
    """The system that a label names.

    Raises:
        ConfigError: a label that names none.
    """
    return Member(label, N, _initialization(label), seed)


def _initialization(label: str) -> Any:
    known = (
        f"{', '.join(_PLAIN)}, s4d-legs-shipped, hippo-rho-RHO, hippo-rho-KIND-RHO ({', '.join(_KINDS)}), ptd-EPSILON, "
        f"ptd-KIND-EPSILON ({', '.join(PERTURBATIONS)})"
    )
    for family, kinds in (("hippo-rho", _KINDS), ("ptd", PERTURBATIONS)):
        if not label.startswith(f"{family}-"):
            continue
        kind, _, number = label.removeprefix(f"{family}-").rpartition("-")
        try:
            value = float(number)
        except ValueError:
            break
        if kind and kind not in kinds:
            break
        if kind == "optimised":
            return inits.get("ptd", perturbation=kind, target=value)
        if kind == "published":
            return inits.get("ptd", perturbation=kind, weight=value, real=True)
        if family == "ptd":
            return inits.get("ptd", perturbation=kind or "ginibre", epsilon=value)
        if kind == "normal":
            return inits.get("hippo-rho", rho=value, normal=True)
        return inits.get("hippo-rho", rho=value, sign=kind or "auto")
    if label in _PLAIN:
        return inits.get(label)
    if label == "s4d-legs-shipped":
        return inits.get("s4d-legs", variant="shipped")
    raise ConfigError(f"--inits {label}: must be one of {known}")
