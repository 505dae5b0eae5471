"""What `transfer_convergence` measures: one function per group of its dataset, a function of its arguments only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmtheory import inits
from ssmtheory.experiments._transfer_schema import BRACKET, CERTIFIED, MEASURED, PROVED
from ssmtheory.experiments._transfer_systems import (
    Member,
    Peak,
    axis_nodes,
    legs_output,
    log_grid,
    member,
    peak,
    spikes,
)
from ssmtheory.inits import hippo
from ssmtheory.inits.closed_form import gap_norm
from ssmtheory.inits.hippo_rho import l2_gap as rho_l2_gap
from ssmtheory.lti import DiagonalStateSpace
from ssmtheory.typing import Array

__all__ = [
    "METHODS",
    "SIGNALS",
    "STRUCTURES",
    "Effort",
    "discrete",
    "frontier",
    "frontier_bound",
    "gaps",
    "pseudospectrum",
    "regression",
    "response",
    "spectrum",
    "spike_laws",
    "tightness",
    "weak",
    "weak_limits",
]  # fmt: skip

Part = dict[str, Any]

#: Relative width of certified brackets: of the S4D gap, and of other deviations.
_TOLERANCE, _RHO_TOLERANCE = 1e-12, 1e-7
#: Relative width asked of floating-point brackets.
_BRACKET = 1e-5
#: Largest N whose HiPPO-rho under zero-order hold is bracketed: its gap falls as 1/N, the effort grows.
_BRACKETED_UP_TO = 256
#: Largest N whose HiPPO-rho has its condition number certified.
_KAPPA_UP_TO = 64


# ---------------------------------------------------------------------- gaps
@dataclass(frozen=True)
class Effort:
    """How far certificates and dense computations go.

    Attributes:
        certify_up_to: largest N whose HiPPO-rho deviation is certified; S4D's always is.
        certify_ptd_up_to: largest N whose PTD deviation and condition number are certified (seconds each at N = 64).
        dense_up_to: largest N for what evaluates all outputs at many frequencies.
    """

    certify_up_to: int = 256
    certify_ptd_up_to: int = 32
    dense_up_to: int = 32


def _sup(one: Member, output: int | None, effort: Effort) -> tuple[float, float, float, float, int]:
    """(sup, lower, upper, omega, evidence) of the gap of one output, or of the worst unit C."""
    from ssmtheory import certify

    which: int | str = "worst" if output is None else output
    if one.factor == 1:
        return _certified(certify.s4d_gap(one.N, which, tolerance=_TOLERANCE))
    if one.factor is not None and effort.certify_up_to >= one.N:
        return _certified(certify.hippo_rho_deviation(one.N, one.exact_factor, which, tolerance=_RHO_TOLERANCE))
    if one.factor is not None:
        return _bracketed(one, output)
    if one.perturbation is not None and effort.certify_ptd_up_to >= one.N:
        return _certified(certify.ptd_deviation(one.perturbation, which, tolerance=_RHO_TOLERANCE))
    found = one.worst_peak if output is None else peak(one.single(output), one.grid())
    return found.value, found.value, math.nan, found.omega, MEASURED


def _certified(proof: Any) -> tuple[float, float, float, float, int]:
    # the lower bound is a value that is reached; rounded outwards, as its decimals are finer than doubles
    lower = np.nextafter(float(proof.lower), -math.inf)
    upper = np.nextafter(float(proof.upper), math.inf)
    return float(proof.lower), float(lower), float(upper), abs(float(proof.witness["omega"])), CERTIFIED


def _bracketed(one: Member, output: int | None = None) -> tuple[float, float, float, float, int]:
    assert one.factor is not None
    bracket = gap_norm(one.N, one.factor, output, tol=_BRACKET)
    return bracket.value, bracket.lower, bracket.upper, abs(bracket.omega), BRACKET


def _band(one: Member, band: float) -> float:
    """Largest gap for the worst unit C over |omega| <= band."""
    grid, values = one.profile
    edges = np.array([band] if one.is_real else [-band, band])
    inside = np.abs(grid) < band
    grid, values = np.concatenate([grid[inside], edges]), np.concatenate([values[inside], one.worst(edges)])
    order = np.argsort(grid)
    return peak(one.worst, grid[order], values[order], keep=2).value


def gaps(one: Member, outputs: Sequence[int], bands: Sequence[float], effort: Effort) -> Part:
    """Distance of one system from LegS in every norm, its conditioning and its bound."""
    names = ("sup", "lower", "upper", "omega", "evidence")
    part: Part = {name: [] for name in names}
    for output in outputs:
        for name, value in zip(names, _sup(one, output, effort), strict=True):
            part[name].append(value)
    part = {name: np.array(values) for name, values in part.items()}
    part.update({f"worst_{name}": value for name, value in zip(names, _sup(one, None, effort), strict=True)})
    nodes, weights = one.nodes()
    squares = np.abs(one.difference(nodes, np.asarray(outputs))) ** 2
    part["l2_gap"] = np.sqrt(weights @ squares)
    part["l2_exact"] = np.array([_l2_exact(one, output) for output in outputs])
    structured = one.factor is not None or effort.dense_up_to >= one.N
    part["h2_gap"] = math.sqrt(weights @ one.worst(nodes) ** 2) if structured else math.nan
    part["band_sup"] = np.array([_band(one, band) for band in bands])
    part.update(_facts(one))
    part.update(_kappa(one, effort))
    return part


def _l2_exact(one: Member, output: int) -> float:
    if one.factor == 1:
        return math.sqrt(float(hippo.s4d_gap(one.N, output)))
    if one.factor is not None and one.factor.imag == 0 and output <= one.N - 2:
        return math.sqrt(rho_l2_gap(one.N, one.factor.real, output))
    return math.nan


def _kappa(one: Member, effort: Effort) -> Part:
    """The condition number again where it can be certified."""
    from ssmtheory import certify

    if one.perturbation is not None and effort.certify_ptd_up_to >= one.N:
        proof = certify.condition(E=one.perturbation)
    elif one.factor not in (None, 1) and _KAPPA_UP_TO >= one.N:
        proof = certify.hippo_rho_condition(one.N, one.exact_factor)
    else:
        return {}
    return {"kappa": proof.value, "kappa_evidence": CERTIFIED}


def _facts(one: Member) -> Part:
    """Conditioning, stability, size and bound, as the initialisation reports them."""
    told = one.built.diagnostics
    facts: Part = {"rho": one.rho, "spectral_abscissa": float(one.poles.real.max())}
    if one.factor == 1:
        # a normal matrix; A_N - A_H = P P^T
        facts |= {"kappa": 1.0, "kappa_evidence": PROVED, "epsilon": one.N**2 / 2, "deviation_bound": math.nan}
    elif one.init.name == "hippo-rho":
        theta = complex(told["theta"])
        facts |= {
            "kappa": float(told["kappa"]),
            "kappa_evidence": PROVED if one.init.normal else MEASURED,
            # A_a - A_H = (1 - theta) P P^T; the normal replacement has another matrix
            "epsilon": math.nan if one.init.normal else abs(1 - theta) * one.N**2 / 2,
            "deviation_bound": math.nan if one.init.normal else float(told["deviation_bound"]),
        }
    elif one.perturbation is None:
        # the eigenvectors of A_N with other poles: a normal matrix
        facts |= {"kappa": 1.0, "kappa_evidence": PROVED, "epsilon": math.nan, "deviation_bound": math.nan}
    else:
        epsilon, bound = float(told["epsilon"]), float(told["deviation_bound"])
        facts |= {
            "kappa": float(told["kappa"]),
            "kappa_evidence": MEASURED,
            "epsilon": epsilon,
            "deviation_bound": bound if math.isfinite(bound) else math.nan,
        }
    return facts


# ---------------------------------------------------------------------- responses, spikes, spectrum
def response(one: Member, omega: Array, offsets: Array) -> Part:
    """|G(i omega)| of output 0 on a grid and near the last spike of S4D."""
    row = np.array([0])
    centre = float(spikes(one.N, 1)[0])
    legs, near = (hippo.transfer(one.N, 1j * w, row)[:, 0] for w in (omega, centre + offsets))
    return {
        "magnitude": np.abs(legs + one.difference(omega, row)[:, 0]),
        "zoom_magnitude": np.abs(near + one.difference(centre + offsets, row)[:, 0]),
    }


def response_grid(state_dims: Sequence[int], points: int, count: int = 8) -> Array:
    """Frequencies from 1e-1 to beyond the last spike of the largest system, spikes included."""
    top = 4.0 * max(state_dims) ** 2
    around = np.array([-4, -2, -1, -0.5, -0.25, 0, 0.25, 0.5, 1, 2, 4])
    near = [spikes(N, count)[:, None] + around for N in state_dims]
    grid = np.concatenate([np.geomspace(0.1, top, points), *[part.reshape(-1) for part in near]])
    return np.unique(grid[grid > 0])


def spike_laws(N: int, count: int) -> Part:
    """Positions and heights of the spikes of S4D against their laws; NaN beyond the last one there is."""
    one = member("s4d-legs", N)
    found = spikes(N, count)
    m = np.arange(found.size)
    odd = 2 * m + 1
    return {
        key: np.pad(np.asarray(value, dtype=np.float64), (0, count - found.size), constant_values=np.nan)
        for key, value in {
            "position": found,
            "law": hippo.spectrum_asymptotic(N, m),
            "bulk_law": hippo.spectrum_bulk(N)[: found.size],
            "pole": hippo.spectrum(N)[: found.size],
            "height": one.single(0)(found),
            "height_law": 2 / (odd * np.pi),
            "worst_height": one.worst(found),
        }.items()
    }


def spectrum(N: int) -> Part:
    """The spectrum of A_N against its laws and the laws of S4D."""
    m = np.arange(N // 2)
    return {
        "exact": hippo.spectrum(N),
        "bulk": hippo.spectrum_bulk(N),
        "asymptotic": hippo.spectrum_asymptotic(N, m),
        "s4d_inv": _heights("s4d-inv", N),
        "s4d_lin": _heights("s4d-lin", N),
    }


def _heights(name: str, N: int) -> Array:
    """Non-negative imaginary parts of the poles of an initialisation, falling."""
    heights = inits.get(name).build(N).system.poles().imag
    heights = np.sort(np.abs(heights))[::-1]
    # both members of each pair have the same height
    return heights[::2][: N // 2]


# ---------------------------------------------------------------------- weak topology
#: signal -> (transform at i omega with the last spike's frequency, q of |u^(s)| = O(|s|^-q))
SIGNALS: dict[str, tuple[Callable[[Array, float], Array], float]] = {
    "impulse": (lambda s, _: np.ones_like(s), 0),
    "exponential": (lambda s, _: 1 / (s + 1), 1),
    "smooth-2": (lambda s, _: 1 / (s + 1) ** 2, 2),
    "smooth-3": (lambda s, _: 1 / (s + 1) ** 3, 3),
    "fourier-1": (lambda s, _: 2 * np.pi / ((s + 1) ** 2 + (2 * np.pi) ** 2), 2),
    "fourier-8": (lambda s, _: 16 * np.pi / ((s + 1) ** 2 + (16 * np.pi) ** 2), 2),
    # exp(-t) sin(w0 t) at the last spike w0 of this N, of norm 1
    "spike": (lambda s, w0: 2 * math.sqrt(1 + w0**2) / ((s + 1) ** 2 + w0**2), math.nan),
}
_CENTRES = np.array([2 * np.pi, 16 * np.pi])


def weak(one: Member, outputs: Sequence[int], dense_up_to: int) -> Part:
    """L2 norm of the difference of the outputs for given inputs, initial state zero."""
    w0 = float(spikes(one.N, 1)[0])
    extra = np.append(_CENTRES, w0)
    own, widths = one.resonances, None
    if one.factor == 1:
        widths = np.full(own.size, 0.5)
    else:
        own, widths = one.poles.imag, np.maximum(-one.poles.real, 0.25)
    nodes, weights = axis_nodes(
        np.concatenate([own, extra]), np.concatenate([widths, np.ones(3)]), one.top, not one.is_real
    )
    squares = np.abs(one.difference(nodes, np.asarray(outputs))) ** 2
    errors = []
    for transform, _ in SIGNALS.values():
        errors.append(np.sqrt((weights * np.abs(transform(1j * nodes, w0)) ** 2) @ squares))
    return {
        "l2_error": np.array(errors),
        "worst_error": np.array([_worst_output(one, name, nodes, weights, w0, dense_up_to) for name in SIGNALS]),
    }


def _worst_output(one: Member, name: str, nodes: Array, weights: Array, w0: float, dense_up_to: int) -> float:
    """Largest L2 error over unit C: from the Gram matrix of the difference of the states."""
    if name != "exponential" or dense_up_to < one.N:
        return math.nan
    weights = weights * np.abs(SIGNALS[name][0](1j * nodes, w0)) ** 2
    gram = np.zeros((one.N, one.N), dtype=np.complex128)
    for start in range(0, nodes.size, 4096):
        part = slice(start, start + 4096)
        x = one.difference(nodes[part]) * np.sqrt(weights[part])[:, None]
        gram += x.T @ x.conj()
    largest = np.linalg.eigvalsh(gram.real if one.is_real else gram)[-1]
    return math.sqrt(max(float(largest), 0.0))


def weak_limits(outputs: Sequence[int]) -> Part:
    """L2 norm of dy/dt of LegS: the limit of N |y_S4D - y_LegS| (for finitely many rows of C and smooth inputs)."""
    nodes, weights = axis_nodes(_CENTRES, np.ones(2), 1e6, False)
    limits = np.empty((len(SIGNALS), len(outputs)))
    for i, (name, (transform, _)) in enumerate(SIGNALS.items()):
        for j, n in enumerate(outputs):
            if name in ("impulse", "spike"):
                # the derivative of an impulse response is not square integrable; the other input has no limit
                limits[i, j] = math.inf if name == "impulse" else math.nan
                continue
            w = nodes**2
            gain = (2 * n + 1) * w / ((w + n**2) * (w + (n + 1) ** 2))
            limits[i, j] = math.sqrt(weights @ (w * gain * np.abs(transform(1j * nodes, 0.0)) ** 2))
    return {"limit": limits, "decay_order": np.array([float(q) for _, q in SIGNALS.values()])}


# ---------------------------------------------------------------------- discrete time
#: "bilinear" is Tustin's rule, "bilinear_s4" the convention K_k = C A^k B of S4 and S4D
METHODS = ("zoh", "bilinear", "bilinear_s4")


def discrete(one: Member, steps: Sequence[float], dense_up_to: int) -> Part:
    """Gap of the discretised systems on the unit circle: (method, step)."""
    keys = ("sup", "omega", "upper", "worst_sup", "worst_omega", "worst_bound")
    part: Part = {key: np.full((len(METHODS), len(steps)), np.nan) for key in keys}
    # Tustin's rule keeps every value and moves the frequencies: one search serves all steps
    grid, values = one.profile
    kept = peak(one.single(0), grid), one.worst_peak
    for j, dt in enumerate(steps):
        for i, method in enumerate(METHODS):
            upper = math.nan
            if method == "zoh":
                single, upper = _zoh_single(one, dt)
                worst = _zoh_worst(one, dt) if dense_up_to >= one.N else Peak(math.nan, math.nan)
            elif method == "bilinear":
                single, worst = (Peak(found.value, _bent(found.omega, dt)) for found in kept)
            else:
                single = _s4_bilinear(one.single(0), grid, one.single(0)(grid), dt)
                worst = _s4_bilinear(one.worst, grid, values, dt)
            row = (single.value, single.omega, upper, worst.value, worst.omega, _discrete_bound(one, method, dt))
            for key, value in zip(keys, row, strict=True):
                part[key][i, j] = value
    return part


def _discrete_bound(one: Member, method: str, dt: float) -> float:
    """Bound of the worst-C gap of HiPPO-rho: |a phi/(1 + a phi)| <= 1/(rho - 1) times ||X||.

    Tustin's rule keeps the continuous bound. S4's factor |1 - i omega dt/2| leaves ||X|| <= max(1, N dt/2): at N dt > 2
    the convention, not the initialisation, decides. None is known under zero-order hold.
    """
    if not math.isfinite(one.rho) or one.factor is None or method == "zoh":
        return math.nan
    if method == "bilinear":
        return float(one.built.diagnostics["deviation_bound"])
    return max(1.0, one.N * dt / 2) / (one.rho - 1)


def _bent(omega: float, dt: float) -> float:
    """Where a frequency of the continuous axis appears under a bilinear rule: (2/dt) arctan(omega dt/2)."""
    return abs(2 / dt * math.atan(omega * dt / 2))


def _s4_bilinear(gain: Callable[[Array], Array], grid: Array, values: Array, dt: float) -> Peak:
    """S4's convention sees the continuous response at (2/dt) tan(theta/2), multiplied by |1 - i omega dt/2|."""
    found = peak(lambda w: gain(w) * np.hypot(1, w * dt / 2), grid, values * np.hypot(1, grid * dt / 2))
    return Peak(found.value, _bent(found.omega, dt))


def _zoh_single(one: Member, dt: float) -> tuple[Peak, float]:
    """Output 0 under zero-order hold, and the upper end of its bracket where there is one."""
    system, legs = one.system[0], legs_output(0)
    assert isinstance(system, DiagonalStateSpace)
    # the modes themselves are discretised; the closed form stays behind
    held = system.with_(closed_form=None).discretize(dt, "zoh") - legs.discretize(dt, "zoh")
    if one.factor == 1 or (one.factor is not None and one.N <= _BRACKETED_UP_TO):
        bracket = held.hinf_norm(tol=_BRACKET)
        return Peak(bracket.value, abs(bracket.omega)), bracket.upper
    found = peak(lambda w: np.abs(held.frequency_response(w)[:, 0, 0]), _circle(one, dt))
    return Peak(found.value, abs(found.omega)), math.nan


def _circle(one: Member, dt: float) -> Array:
    """Frequencies up to the Nyquist frequency that meet every aliased resonance."""
    limit = math.pi / dt
    folded = np.angle(np.exp(1j * one.poles.imag * dt)) / dt
    grid = np.concatenate([log_grid(1e-3, limit, 120, True), np.linspace(-limit, limit, 1025), folded])
    if one.is_real:
        grid = grid[grid >= 0]
    return np.unique(grid)


def _zoh_worst(one: Member, dt: float) -> Peak:
    """Worst unit C under zero-order hold, from the matrices."""
    from ssmtheory.lti import StateSpace

    A, B = hippo.legs(one.N)
    legs = StateSpace(A, B, np.eye(one.N)).discretize(dt, "zoh")
    system = one.system
    assert isinstance(system, DiagonalStateSpace)
    held = system.with_(closed_form=None).discretize(dt, "zoh")

    def gain(w: Array) -> Array:
        return np.linalg.norm((held.frequency_response(w) - legs.frequency_response(w))[:, :, 0], axis=1)

    found = peak(gain, _circle(one, dt))
    return Peak(found.value, abs(found.omega))


def discrete_laws(N: int, steps: Sequence[float]) -> Array:
    """2/pi times the factor by which each method changes an isolated spike of S4D: (method, step)."""
    half = float(hippo.spectrum(N)[0]) / 2 * np.asarray(steps)
    return 2 / np.pi * np.array([np.abs(np.sinc(half / np.pi)), np.ones_like(half), np.hypot(1, half)])


# ---------------------------------------------------------------------- the frontier
#: families that are searched for: target deviations of ours, weights of the authors' objective
_SEARCHES = {"optimised": (0.3, 0.1, 0.03), "published": (1e5, 1e4, 1e3, 1e2)}


def frontier(family: str, N: int, epsilons: Sequence[float], rhos: Sequence[float], seeds: int, seed: int = 0) -> Part:
    """(kappa, deviation) of one family at one size; random ones for `seeds` seeds from `seed` on."""
    if family == "s4d":
        labels = [("s4d-legs", 0)]
    elif family == "hippo-rho":
        labels = [(f"hippo-rho-{rho:g}", 0) for rho in rhos]
    elif family == "hippo-rho-imaginary":
        labels = [(f"hippo-rho-imaginary-{rho:g}", 0) for rho in rhos]
    elif family == "normal":
        labels = [("hippo-rho-normal-3", 0)]
    elif family in _SEARCHES:
        labels = [(f"ptd-{family}-{value:g}", seed) for value in _SEARCHES[family]]
    else:
        labels = [(f"ptd-{family}-{epsilon:g}", seed + k) for epsilon in epsilons for k in range(seeds)]
    rows = []
    for label, drawn in labels:
        one = member(label, N, drawn)
        facts = _facts(one)
        # certificates are in gaps; a bracket costs milliseconds here
        value, *_, evidence = _sup(one, None, Effort(0, 0, 0)) if one.factor is None else _bracketed(one)
        rows.append(
            (N, drawn, facts["epsilon"], facts["rho"], facts["kappa"], value, facts["spectral_abscissa"],
             facts["kappa_evidence"], evidence)
        )  # fmt: skip
    names = ("state_dim", "seed", "epsilon", "rho", "kappa", "deviation", "spectral_abscissa", "kappa_evidence",
             "deviation_evidence")  # fmt: skip
    return {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def frontier_bound(N: int, epsilons: Sequence[float]) -> Part:
    """Certified lower bounds on the condition number of every PTD of N states with |E| <= epsilon."""
    from ssmtheory import certify

    closed, area = [], []
    for epsilon in epsilons:
        closed.append(_lower(certify.ptd_condition_lower_bound(N, epsilon)))
        area.append(_lower(certify.ptd_condition_lower_bound_area(N, epsilon)))
    return {"kappa_lower": np.array(closed), "kappa_lower_area": np.array(area)}


def _lower(proof: Any) -> float:
    return float(np.nextafter(float(proof.lower), -math.inf))


# ---------------------------------------------------------------------- tightness of the bounds
#: kinds of random perturbation
STRUCTURES = ("ginibre", "real", "skew", "dissipative", "rank-one", "aligned", "diagonal")


def _draw(rng: np.random.Generator, structure: str, N: int, count: int) -> Array:
    """Perturbations (count, N, N) of norm 1."""
    shape = (count, N, N)
    real, imag = rng.standard_normal(shape), rng.standard_normal(shape)
    A = hippo.legs(N)[0]
    if structure == "ginibre":
        E = real + 1j * imag
    elif structure == "skew":
        E = (real - np.swapaxes(real, 1, 2)) + 0j
    elif structure == "dissipative":
        E = real - np.swapaxes(real, 1, 2) - 0.3 * real @ np.swapaxes(real, 1, 2) / math.sqrt(N) + 0j
    elif structure == "rank-one":
        E = real[:, :, :1] * imag[:, :1, :] + 0j
    elif structure == "aligned":
        # feeds the state X(i w) back into the direction that the resolvent amplifies most, near w = 0
        w = np.abs(real[:, 0, 0]) * 0.3
        X = hippo.transfer(N, 1j * w)
        resolvent = np.linalg.inv(1j * w[:, None, None] * np.eye(N) - A)
        right = np.linalg.svd(resolvent)[2]
        E = right[:, 0, :, None].conj() * X[:, None, :].conj()
    elif structure == "diagonal":
        E = real * np.eye(N) + 0j
    else:
        E = real + 0j
    return E / np.linalg.norm(E, 2, axis=(1, 2))[:, None, None]


def tightness(structure: str, N: int, count: int, seed: int) -> Part:
    """Actual sup of the PTD deviation against bounds, for random E over all scales with lambda_max(sym E) < 1/2."""
    rng = np.random.default_rng([seed, N, STRUCTURES.index(structure)])
    unit = _draw(rng, structure, N, count)
    top = np.linalg.eigvalsh((unit + np.conj(np.swapaxes(unit, 1, 2))) / 2)[:, -1]
    # log-uniform scales; where the symmetric part grows they end at lambda_max = 0.49
    largest = np.where(top > 1e-12, np.minimum(0.49 / np.maximum(top, 1e-12), 1e3), 1e3)
    epsilon = np.exp(rng.uniform(math.log(1e-4), np.log(largest)))
    A = hippo.legs(N)[0]
    system = A + epsilon[:, None, None] * unit
    base = np.concatenate([[0.0], np.geomspace(1e-2, 8 * N**2, 48)])
    base = np.concatenate([-base[1:], base])
    omega = np.concatenate([np.broadcast_to(base, (count, base.size)), np.linalg.eigvals(system).imag], axis=1)
    gain, ratio = np.empty(omega.shape), np.empty(omega.shape)
    limit = epsilon / (0.5 - epsilon * top)
    for k in range(omega.shape[1]):
        s = 1j * omega[:, k]
        X = hippo.transfer(N, s)
        # X_E - X = (s - A - E)^{-1} E X: no difference of close numbers
        right = np.einsum("kij,kj->ki", epsilon[:, None, None] * unit, X)
        found = np.linalg.solve(s[:, None, None] * np.eye(N) - system, right[:, :, None])[:, :, 0]
        gain[:, k] = np.linalg.norm(found, axis=1)
        ratio[:, k] = gain[:, k] / (limit * N / np.hypot(omega[:, k], N))
    best = gain.argmax(axis=1)
    where = omega[np.arange(count), best]
    return {
        "state_dim": np.full(count, N),
        "seed": np.arange(count),
        "epsilon": epsilon,
        "symmetric": epsilon * top,
        "sup": gain.max(axis=1),
        "ratio": ratio.max(axis=1),
        "bound_ours": limit,
        "bound_sharp": limit * N / np.hypot(where, N),
        # the theorem is a first-order statement: where eps >= 1/2 it says nothing
        "bound_paper": np.where(epsilon < 0.5, (2 * math.log(N) + 4) * epsilon, np.nan),
    }


# ---------------------------------------------------------------------- pseudospectra
def state_matrix(label: str, N: int, seed: int = 0) -> Array:
    """The state matrix in the HiPPO basis that a label names; "legs" is LegS."""
    if label == "legs":
        return hippo.legs(N)[0].astype(np.complex128)
    if label == "s4d-legs":
        return hippo.normal_part(N).astype(np.complex128)
    one = member(label, N, seed)
    if one.factor is not None:
        from ssmtheory.inits import hippo_rho

        return np.asarray(hippo_rho.matrices(N, one.factor)[0], dtype=np.complex128)
    system = one.system
    assert isinstance(system, DiagonalStateSpace)
    full = system.expand()
    return np.linalg.solve(full.C.T, (full.C * full.diagonal).T).T


def pseudospectrum(
    label: str, N: int, real: Array, imag: Array, levels: Sequence[float], times: Array, seed: int = 0
) -> Part:
    """Resolvent norms, abscissae, Kreiss constant and transient growth of one state matrix."""
    from ssmtheory.lti import pseudospectra

    A = state_matrix(label, N, seed)
    eigenvalues = -np.arange(1.0, N + 1) + 0j if label == "legs" else np.linalg.eigvals(A)
    kreiss = pseudospectra.kreiss_constant(A)
    plane = real[None, :] + 1j * imag[:, None]
    with np.errstate(divide="ignore"):
        resolvent = 1 / pseudospectra.smallest_singular_value(A, plane)
    return {
        "resolvent_norm": resolvent,
        "eigenvalues": eigenvalues,
        "spectral_abscissa": float(eigenvalues.real.max()),
        "numerical_abscissa": pseudospectra.numerical_abscissa(A),
        "pseudospectral_abscissa": np.array([_abscissa(A, eigenvalues, level) for level in levels]),
        "kreiss_lower": kreiss.lower,
        "kreiss_upper": kreiss.upper,
        **_condition(label, N, seed),
        "transient": pseudospectra.transient_growth(A, times),
    }


def _condition(label: str, N: int, seed: int) -> Part:
    """Eigenvector condition number of a state matrix; that of LegS is beyond double precision from N = 20 on."""
    if label == "legs":
        from ssmtheory import certify

        return {"kappa": certify.legs_condition(N).value, "kappa_evidence": CERTIFIED}
    facts = _facts(member(label, N, seed))
    return {name: facts[name] for name in ("kappa", "kappa_evidence")}


def _abscissa(A: Array, eigenvalues: Array, level: float) -> float:
    """Pseudospectral abscissa; that of a normal matrix is known."""
    from ssmtheory.lti import pseudospectra

    if np.linalg.norm(A @ A.conj().T - A.conj().T @ A) <= 1e-12 * np.linalg.norm(A) ** 2:
        return float(eigenvalues.real.max()) + level
    return pseudospectra.pseudospectral_abscissa(A, level).value


# ---------------------------------------------------------------------- regression of amplitudes
#: relative to the largest singular value of the features, squared
_RIDGE = 1e-6


def regression(label: str, N: int, frequency: Array, trained: Array, seed: int = 0) -> Part:
    """Amplitude of a sinusoid read from the steady state by least squares, trained on a band of frequencies.

    Our deterministic version of arXiv 2310.01698, section 3.4. The features of sin(omega t) are what the N outputs do
    in the steady state, their in-phase and quadrature amplitudes Re G_n(i omega) and Im G_n(i omega). The target is 1
    at every frequency, and a linear readout is fitted on the trained band with a small ridge. S4D's features change
    sign together across a spike, where the phase of 1/(1 + phi) jumps by pi: beyond the last spike the readout fails.
    """
    vector = hippo.transfer(N, 1j * frequency)
    if label != "legs":
        vector = vector + member(label, N, seed).difference(frequency)
    features = np.concatenate([vector.real, vector.imag], axis=1)
    inside = features[trained]
    ridge = _RIDGE * np.linalg.norm(inside, 2) ** 2
    weights = np.linalg.solve(inside.T @ inside + ridge * np.eye(2 * N), inside.T @ np.ones(inside.shape[0]))
    predicted = features @ weights
    return {
        "predicted": predicted,
        "gain": np.abs(vector).max(axis=1),
        "train_error": float(np.sqrt(np.mean((predicted[trained] - 1) ** 2))),
        "test_error": float(np.sqrt(np.mean((predicted[~trained] - 1) ** 2))),
    }
