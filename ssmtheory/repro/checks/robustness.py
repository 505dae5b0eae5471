"""Checks of the robustness experiment of PTD (arXiv 2310.01698): its noise, its frequency, gains, and bounds."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from ssmtheory import certify, inits
from ssmtheory.inits import LayerParameters, hippo
from ssmtheory.lti import StateSpace
from ssmtheory.repro.finding import Finding
from ssmtheory.robustness import bound, gain, noise
from ssmtheory.typing import Array

__all__ = [
    "attack_frequency",
    "attack_gain",
    "bound_ratio",
    "certified_energy_bound",
    "layer_attack",
    "matched_energy",
    "perturbed_gain",
    "published_noise",
]


def published_noise(omega: float = 325.4) -> float:
    """Largest difference between `FourierNoise.published` and u + 0.1 U cos(omega Delta_i k) written out.

    U is read off at k = 0, and must lie in [0, 1] and differ from member to member and from channel to channel.
    """
    rng = np.random.default_rng(0)
    u, steps = rng.standard_normal((40, 200, 16)), np.exp(rng.uniform(math.log(1e-3), math.log(1e-1), 16))
    added = noise.FourierNoise.published(omega).apply(u, steps, seed=1) - u
    U = added[:, 0] / 0.1
    if not (U.min() >= 0 and 0.9 < U.max() <= 1 and np.unique(U.round(9)).size == U.size):
        return math.inf if not np.isfinite(U).all() else 1.0 + float(np.abs(U).max())
    k = np.arange(200)
    return float(np.abs(added - 0.1 * U[:, None] * np.cos(omega * steps * k[:, None])).max())


def attack_frequency(N: int, dt: float | None = None, method: str = "zoh") -> float:
    """The frequency in rad/s at which S4D-LegS amplifies most, found from its poles; after discretisation with dt."""
    return gain.attack_frequency(inits.get("s4d-legs").build(N).system, dt, method).omega


def layer_attack(N: int, features: int, dt_min: float, dt_max: float, low: float) -> float:
    """The common frequency above `low` that hurts a ZOH layer with random C and steps most, from the layer alone."""
    init = inits.get("s4d-legs", discretization="zoh")
    layer = init.layer(features, N, seed=0, dt_min=dt_min, dt_max=dt_max)
    return gain.attack_frequency(layer, band=(low, math.pi / dt_max)).omega


def attack_gain(init: str, N: int, omega: float, dt: float, method: str = "zoh", rho: float | None = None) -> float:
    """Gain over unit C at a frequency after discretisation, aliasing included."""
    options = {} if rho is None else {"rho": rho}
    return float(gain.gain(inits.get(init, **options).build(N).system, omega, dt, method, two_sided=True)[0])


def perturbed_gain(kind: str, epsilon: float, N: int, omega: float, dt: float, draws: int) -> Finding:
    """Median gain over draws of a random perturbation, and the range of the draws."""
    init = inits.get("ptd", perturbation=kind, epsilon=epsilon)
    values = [float(gain.gain(init.build(N, seed).system, omega, dt, two_sided=True)[0]) for seed in range(draws)]
    return Finding(value=float(np.median(values)), lower=min(values), upper=max(values))


def matched_energy() -> float:
    """Largest relative error of the energy among six corruptions that are asked to have one root mean square."""
    u = np.random.default_rng(0).standard_normal((8, 128, 4))
    kinds = [
        noise.FourierNoise(30.0), noise.WhiteNoise(), noise.ColouredNoise(), noise.ImpulseNoise(), noise.LostSamples(),
        noise.Resampling(3),
    ]  # fmt: skip
    steps = np.array([1e-3, 1e-2, 0.05, 0.1])
    sizes = [noise.change_rms(u, noise.Matched(kind, 0.25).apply(u, steps, seed=2)) for kind in kinds]
    return float(np.abs(np.stack(sizes) / 0.25 - 1).max())


# ---------------------------------------------------------------------------------------------------- bounds


def _response(layer: LayerParameters, u: Array) -> Array:
    """Output of feature 0 from rest, by the kernel."""
    from scipy.signal import fftconvolve

    direct = 0.0 if layer.D is None else float(layer.D[0])
    return fftconvolve(u, layer.kernel(u.size))[: u.size] + direct * u


@functools.cache
def _layers() -> tuple[LayerParameters, ...]:
    found: list[Any] = [
        inits.get("s4d-legs"), inits.get("s4d-legs", discretization="zoh"), inits.get("s4"),
        inits.get("s4-ptd", epsilon=1.0), inits.get("hippo-rho", rho=8.0),
    ]  # fmt: skip
    return tuple(init.layer(1, 16, seed=s, dt_min=0.02, dt_max=0.05) for init in found for s in range(2))


def bound_ratio(norm: str, draws: int) -> float:
    """Largest output change over its bound, for random perturbations of four kinds and the worst one there is.

    The worst for "linf" has the reversed signs of the kernel, the worst for "l2" is a cosine at the peak of the gain.
    """
    rng, length, worst = np.random.default_rng(5), 4000, 0.0
    k = np.arange(length)
    for layer in _layers():
        limit = bound.output_bound(layer, norm)  # type: ignore[arg-type]
        kernel = layer.kernel(length)
        (peak,) = gain.feature_attacks(layer)
        inputs = [np.sign(kernel[::-1]), np.cos(peak.angle * k)]
        for draw in range(draws):
            kind = draw % 4
            inputs.append(
                rng.standard_normal(length) if kind == 0 else np.sign(rng.standard_normal(length)) if kind == 1
                else np.cos(rng.uniform(0, math.pi) * k) if kind == 2 else np.cumsum(rng.standard_normal(length))
            )  # fmt: skip
        for u in inputs:
            y = _response(layer, u)
            if norm == "l2":
                ratio = np.linalg.norm(y) / limit.change(float(np.linalg.norm(u)))
            else:
                ratio = np.abs(y).max() / limit.change(float(np.abs(u).max()))
            worst = max(worst, float(ratio))
    return worst


def certified_energy_bound(N: int, dt: float) -> Finding:
    """Bound of the output energy of S4D-LegS under Tustin's rule, worst unit C: certified, and accepted as such.

    Tustin's rule keeps the H-infinity norm, so that the certificate of the continuous matrices holds for every step.
    """
    A, _, B = hippo.nplr(N)
    certificate = certify.sup_norm(A, B / 2, np.eye(N))
    system = StateSpace(A, B / 2, np.eye(N))
    limit = bound.output_bound(system.discretize(dt, "bilinear"), certified=certificate)
    assert certificate.lower is not None
    return Finding(
        value=limit.upper, lower=float(certificate.lower), upper=limit.upper,
        holds=certificate.verify() and limit.evidence == "certified", basis="certificate",
        detail=certificate.statement,
    )  # fmt: skip
