"""Part (b) of the experiment `robustness`: classifiers of pixel sequences, trained, then disturbed.

One task is one training run. The network is that of the PTD authors' robustness experiment (no residual path, layer
normalisation after each block, gated mixing, dropout); of its linear layers C and D are trained, A, B and the steps
are as the initialisation gives them, unless the cell says "all".

Within a seed everything but the state matrix is shared: steps, D, encoder, mixing, decoder, batches, dropout masks,
noise; and C too, which is drawn once in the HiPPO basis (real normal) and taken into each variant's own modes. So the
layers of two variants differ at the start by what their transfer vectors differ, no more. S5 draws B and C in the
same way; its steps belong to states.

Everything here is a function of (settings, cell, seed).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmtheory.errors import require
from ssmtheory.typing import Array

if TYPE_CHECKING:
    from ssmtheory.inits import LayerParameters
    from ssmtheory.models.classifier import SequenceModel
    from ssmtheory.robustness.noise import Corruption

__all__ = [
    "AUTHORS", "CORRUPTIONS", "EVERYTHING", "Cell", "Condition", "Settings", "attack_of", "baseline", "build",
    "conditions", "distance_from_legs", "layer_parameters", "load", "measure", "noise_gain", "train_cell",
]  # fmt: skip

#: What is trained of a linear layer: as in the PTD authors' code, or all of it as in S4D's.
AUTHORS, EVERYTHING = ("C", "D"), ("A", "B", "C", "D", "steps")
#: Corruptions compared at equal energy.
CORRUPTIONS = ("white", "coloured", "impulse", "lost", "resampling")
#: Initialisations whose C is drawn in the HiPPO basis and taken into their modes.
_SHARED = ("s4", "s4d", "s4d-inv", "s4d-arctan", "s4-ptd", "hippo-rho")
#: seed of the perturbation of PTD
_PERTURBATION = 0
_ZOH = ("s4d", "s4d-inv", "s4d-lin", "s4d-real", "s4d-arctan")


@dataclass(frozen=True)
class Cell:
    """What one column of the comparison is: data, variant, and whether A, B and the steps are trained too.

    Attributes:
        images: data set, "name" or "name:side".
        variant: see `ssmtheory.models.parse_variant`.
        trained: "C,D" or "all".
        long: whether it has the budget of the long sequences.
    """

    images: str
    variant: str
    trained: str = "C,D"
    long: bool = False

    @property
    def label(self) -> str:
        """`images/variant/trained`, unique."""
        return f"{self.images}/{self.variant}/{self.trained}"


@dataclass(frozen=True)
class Settings:
    """What all cells share."""

    state_dim: int
    d_model: int
    n_layer: int
    dropout: float
    dt_min: float
    dt_max: float
    steps: int
    long_steps: int
    batch: int
    rate: float
    layer_rate: float
    decay: float
    train_images: int
    test_images: int
    noise_images: int
    frequencies: tuple[float, ...]
    amplitudes: tuple[float, ...]
    corruptions: tuple[str, ...]
    backend: str
    device: str


# ---------------------------------------------------------------------------------------------------- layers


@functools.lru_cache(maxsize=64)
def _realization(variant: str, N: int) -> Any:
    """One system, or block of S5, of a variant; PTD's perturbation is one for all layers and runs."""
    from ssmtheory.models.lti_layers import initialization_of

    # the authors' S4-PTD has N modes here, not N/2: what is built is the matrix of N states, not a layer's
    made = initialization_of(variant)[1]
    return (made.with_(blocks=1) if hasattr(made, "blocks") else made).build(N, _PERTURBATION)


def layer_parameters(
    variant: str, features: int, N: int, seed: int, layer: int, dt_min: float, dt_max: float
) -> LayerParameters:
    """Initial parameters of one layer of one variant, shared between variants as far as they can be.

    Args:
        variant: see `ssmtheory.models.parse_variant`.
        features: width.
        N: size of the HiPPO matrix, of each block of S5; all its modes are there, one of each conjugate pair stored
            where there are pairs.
        seed: of the run.
        layer: number of the layer, whose C, D and steps are its own.
        dt_min: smallest step in seconds.
        dt_max: largest step in seconds.

    Returns:
        The parameters, with D; zero-order hold, S4's bilinear rule for its own kernel.
    """
    from ssmtheory.inits import HiPPORho, LayerParameters
    from ssmtheory.inits.base import generators, log_steps, stored_modes
    from ssmtheory.inits.s5 import blocks_layer
    from ssmtheory.lti import DiagonalStateSpace, LowRankStateSpace
    from ssmtheory.models.lti_layers import initialization_of, parse_variant

    own = 1000 * seed + layer
    rng_c, rng_dt, rng_d = generators(own, "C", "steps", "D")
    direct = rng_d.standard_normal(features)
    name, _ = parse_variant(variant)
    name, init = initialization_of(variant, **({"discretization": "zoh"} if name in _ZOH else {}))
    if name not in _SHARED:
        blocks = getattr(init, "blocks", 1)
        if name == "s5-ptd":
            built = _realization(variant, N)
            made = blocks_layer(
                (built.system.diagonal, built.basis, np.linalg.inv(built.basis)), blocks, features, blocks * N, own,
                dt_min, dt_max, readout="real", diagnostics=dict(built.diagnostics),
            )  # fmt: skip
        else:
            made = init.layer(features, blocks * N, own, dt_min, dt_max)
        return dataclasses.replace(made, D=direct)
    C = rng_c.standard_normal((features, N))
    steps = log_steps(rng_dt, features, dt_min, dt_max)
    built = _realization(variant, N)
    system = built.system
    if isinstance(system, LowRankStateSpace):
        upper = system.diagonal.imag > 0
        return LayerParameters(
            system.diagonal[upper], system.B[upper, 0], C @ built.basis[:, upper], steps, "pairs",
            P=system.P[upper], D=direct, discretization="bilinear_s4", diagnostics=dict(built.diagnostics),
        )  # fmt: skip
    assert isinstance(system, DiagonalStateSpace)
    poles, B = system.diagonal, system.B[:, 0]
    real = init.factor(N).imag == 0 if isinstance(init, HiPPORho) else name != "s4-ptd"
    keep, readout = stored_modes(poles, real)
    return LayerParameters(
        poles[keep], B[keep], C @ built.basis[:, keep], steps, readout, D=direct, diagnostics=dict(built.diagnostics)
    )


def clock(features: int, seed: int, layer: int, dt_min: float, dt_max: float) -> Array:
    """Steps of a layer's features as every variant of a seed draws them; S5, whose steps belong to states, hears the
    same noise as the others of its seed."""
    from ssmtheory.inits.base import generators, log_steps

    return log_steps(generators(1000 * seed + layer, "steps")[0], features, dt_min, dt_max)


def build(settings: Settings, cell: Cell, seed: int, inputs: int, outputs: int) -> SequenceModel:
    """The untrained network of a cell."""
    from ssmtheory.models.classifier import SequenceModel
    from ssmtheory.models.lti_layers import LTILayer, scaling_of

    scaling = scaling_of(cell.variant)
    layers = []
    for layer in range(settings.n_layer):
        parameters = layer_parameters(
            cell.variant, settings.d_model, settings.state_dim, seed, layer, settings.dt_min, settings.dt_max
        )
        names = [
            n
            for n in (AUTHORS if cell.trained == "C,D" else EVERYTHING)
            if n != "steps" or parameters.steps is not None
        ]
        # a mode for each kind of layer, not "auto", so that another machine's plan changes no digit
        mode = "convolution" if parameters.scope == "feature" else "recurrence"
        layers.append(LTILayer(parameters, train=names, mode=mode, backend=settings.backend, scaling=scaling))
    model = SequenceModel(
        inputs, outputs, layers, settings.d_model, dropout=settings.dropout, residual=False, norm="layer", glu=True,
        pool="mean", seed=seed,
    )  # fmt: skip
    return model.to(settings.device)


# ---------------------------------------------------------------------------------------------------- what is known


@functools.lru_cache(maxsize=64)
def attack_of(N: int) -> float:
    """The derived attack frequency in rad/s: where S4D-LegS of N states amplifies most."""
    from ssmtheory import inits
    from ssmtheory.robustness.gain import attack_frequency

    return attack_frequency(inits.get("s4d-legs").build(N).system).omega


def distance_from_legs(variant: str, N: int) -> tuple[float, float]:
    """kappa_2 of the eigenvectors, and sup over omega of the distance of the transfer vector from that of LegS.

    The supremum is the largest value found at the resonances and on a grid: measured, not certified. S5's blocks are
    measured as one block. NaN where the variant has no basis to compare in.

    Args:
        variant: see `ssmtheory.models.parse_variant`.
        N: number of states, of each block of S5.

    Returns:
        (kappa, deviation).
    """
    from ssmtheory.inits import hippo
    from ssmtheory.lti import DiagonalStateSpace, LowRankStateSpace
    from ssmtheory.models.lti_layers import parse_variant
    from ssmtheory.robustness.gain import peak

    name, _ = parse_variant(variant)
    if name in ("lru", "dss", "s4d-lin", "s4d-real"):
        return math.nan, math.nan
    built = _realization(variant, N)
    system = built.system
    if isinstance(system, LowRankStateSpace):
        return math.nan, 0.0
    assert isinstance(system, DiagonalStateSpace)
    poles, B, V = system.diagonal, system.B[:, 0], built.basis

    def gap(w: Array) -> Array:
        return np.linalg.norm((B / (1j * w[:, None] - poles)) @ V.T - hippo.transfer(N, 1j * w), axis=1)

    width = np.maximum(np.abs(poles.real), 1e-3)
    near = (poles.imag[:, None] + width[:, None] * np.linspace(-4, 4, 33)).reshape(-1)
    top = float(np.abs(poles.imag).max())
    grid = np.geomspace(1e-3, 10 * top, 400)
    nodes = np.unique(np.concatenate([near, grid, -grid, [0.0]]))
    values = np.linalg.svd(V, compute_uv=False)
    kappa = float(built.diagnostics.get("kappa", values[0] / values[-1]))
    return kappa, peak(gap, nodes)[1]


def noise_gain(parameters: LayerParameters, steps: Array, omega: float, length: int) -> Array:
    """Predicted gain of each output for a cosine of frequency omega in every feature, at steps `steps`.

    With independent amplitudes of equal energy E in each feature j, output i has the energy sum_j |G_ij|^2 E in the
    steady state: its root over E is the gain. For a layer of scope "feature" that is |G_i|.

    Args:
        parameters: of the layer.
        steps: (features,) at which the features hear omega.
        omega: rad/s.
        length: of the sequences.

    Returns:
        (features,) float64.
    """
    from ssmtheory.robustness.gain import layer_response

    theta = np.asarray(steps) * omega
    if parameters.scope == "feature":
        return np.abs(layer_response(parameters, theta[:, None], length)[:, 0])
    response = layer_response(parameters, theta, length)
    j = np.arange(theta.size)
    return np.sqrt((np.abs(response[j, :, j]) ** 2).sum(axis=0))


def continuous_gain(parameters: LayerParameters, omega: float) -> float:
    """Root mean square over the features of |G_i(i omega)| before discretisation; NaN with scope "layer"."""
    if parameters.scope == "layer" or parameters.steps is None:
        return math.nan
    w = np.array([omega])
    gains = [abs(complex(parameters.system(i).frequency_response(w)[0, 0, 0])) for i in range(parameters.features)]
    return float(np.sqrt(np.mean(np.square(gains))))


# ---------------------------------------------------------------------------------------------------- noise


@dataclass(frozen=True)
class Condition:
    """One way to disturb a network.

    Attributes:
        kind: "fourier", a name of `CORRUPTIONS`; with `where` "own" the layer's own worst frequency.
        where: "layer" (the input of every linear layer), "own", or "input" (that of the network).
        frequency: rad/s for "fourier" in layers; NaN where it is found in the model or there is none.
        amplitude: of the cosine; other corruptions have its energy.
    """

    kind: str
    where: str
    frequency: float
    amplitude: float


def conditions(settings: Settings) -> list[Condition]:
    """What every trained network is put through, in the order of the dataset."""
    attack = attack_of(settings.state_dim)
    found = [
        Condition("fourier", "layer", factor * attack, amplitude)
        for amplitude in settings.amplitudes
        for factor in settings.frequencies
    ]
    for amplitude in settings.amplitudes:
        found.append(Condition("fourier", "own", math.nan, amplitude))
        found += [Condition(kind, "layer", math.nan, amplitude) for kind in settings.corruptions]
        found += [Condition(kind, "input", math.nan, amplitude) for kind in ("fourier", "white")]
    return found


def _corruption(kind: str, rms: float) -> Corruption:
    from ssmtheory.robustness import noise

    made: dict[str, Corruption] = {
        "white": noise.WhiteNoise(1.0),
        "coloured": noise.ColouredNoise(1.0),
        "impulse": noise.ImpulseNoise(1.0, 0.02),
        "lost": noise.LostSamples(0.1),
        "resampling": noise.Resampling(2.0),
    }
    return noise.Matched(made[kind], rms)


def disturbance(
    condition: Condition, steps: Sequence[Array], own: Sequence[tuple[str, float]], at_input: float, seed: int
) -> Callable[[int, Any], Any]:
    """The function (layer, x) -> x of a condition; called batch by batch in the order of the images.

    Args:
        condition: what is done.
        steps: of each layer's features, seconds.
        own: ("layer" or "sample", frequency) of each layer's own worst one.
        at_input: worst angle per sample at the input of the network.
        seed: of the noise, the same for all variants of a run's seed.
    """
    from ssmtheory.robustness import noise

    seen: dict[int, int] = {}

    def disturb(index: int, x: Any) -> Any:
        if (index < 0) != (condition.where == "input"):
            return x
        rms = noise.FourierNoise(0.0, condition.amplitude).rms
        what: Corruption
        if condition.kind != "fourier":
            what = _corruption(condition.kind, rms)
        elif condition.where == "layer":
            what = noise.FourierNoise(condition.frequency, condition.amplitude)
        elif condition.where == "own":
            kind, frequency = own[index]
            what = noise.FourierNoise(frequency, condition.amplitude, clock=kind)  # type: ignore[arg-type]
        else:
            what = noise.FourierNoise(at_input, condition.amplitude, clock="sample")
        first = seen.get(index, 0)
        seen[index] = first + len(x)
        return what.apply(x, steps[index] if index >= 0 else None, seed=(seed, index + 1), first=first)

    return disturb


# ---------------------------------------------------------------------------------------------------- data


@functools.lru_cache(maxsize=4)
def load(images: str) -> Any:
    """A data set by "name" or "name:side"."""
    from ssmtheory.data.images import load_images

    name, _, side = images.partition(":")
    return load_images(name, side=int(side) if side else None)


def split(settings: Settings, images: str) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """(pixels, labels) of training and test, each shuffled once and cut; pixels standardised over the training part.

    One mean and one deviation for all pixels: a sequence has no other.
    """
    data = load(images)
    parts = []
    for i, (part, most) in enumerate(((data.train, settings.train_images), (data.test, settings.test_images))):
        order = np.random.default_rng(i).permutation(len(part.labels))[: most or None]
        parts.append((part.pixels[order], part.labels[order]))
    mean, spread = float(parts[0][0].mean(dtype=np.float64)), float(parts[0][0].std(dtype=np.float64))
    train, test = ((((x - mean) / spread).astype(np.float32), y) for x, y in parts)
    return train, test


def baseline(settings: Settings, images: str) -> dict[str, Array]:
    """Logistic regression on the same pixels and images: test accuracy, with the penalty chosen on held-out images."""
    linear = require("sklearn.linear_model", "data", "the baseline of the trained networks")
    exceptions = require("sklearn.exceptions", "data", "the baseline of the trained networks")
    (x, y), (test, labels) = split(settings, images)
    x, test = x.reshape(len(x), -1).astype(np.float64), test.reshape(len(test), -1).astype(np.float64)
    mean, spread = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
    x, test = (x - mean) / spread, (test - mean) / spread
    held = len(x) // 5

    def fitted(C: float, iterations: int, part: slice) -> Any:
        with warnings.catch_warnings():
            # a fit that is stopped early is judged on held-out images like any other
            warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
            return linear.LogisticRegression(C=C, max_iter=iterations).fit(x[part], y[part])

    best = max(
        (float(fitted(C, 200, slice(held, None)).score(x[:held], y[:held])), C) for C in (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    )
    final = fitted(best[1], 400, slice(None))
    return {"baseline_accuracy": np.array(final.score(test, labels)), "baseline_penalty": np.array(best[1])}


# ---------------------------------------------------------------------------------------------------- one run


def train_cell(settings: Settings, cell: Cell, seed: int, workdir: Path, report: Any) -> dict[str, Array]:
    """Train a network and measure it; the arrays of one task."""
    from ssmtheory.models.fit import FitConfig, fit

    (x, y), (test, labels) = split(settings, cell.images)
    model = build(settings, cell, seed, x.shape[2], int(y.max()) + 1)
    start = [layer.snapshot() for layer in model.layers]
    steps = settings.long_steps if cell.long else settings.steps
    config = FitConfig(
        steps=steps, batch=settings.batch, rate=settings.rate, layer_rate=settings.layer_rate, decay=settings.decay,
        rates={"A": settings.layer_rate / 4, "B": settings.layer_rate / 4, "steps": settings.layer_rate / 4},
        loss="cross_entropy", seed=seed, checkpoint_every=100, observe_every=max(1, steps // _POINTS),
    )  # fmt: skip
    few = settings.noise_images // 2 or 1
    watched = _watched(settings, cell, seed, model, test[:few], labels[:few])
    done = fit(model, x, y, config, workdir, observe=watched, report=report)
    found = measure(settings, cell, seed, model, start, test, labels)
    found["training_loss"] = _thinned(done.losses)
    # an uneven number of steps ends with a measurement of its own, close to the one before
    places = [*sorted(done.observations)[:_POINTS], steps]
    found["observed"] = np.array(places)
    found["curve"] = np.array([done.observations[k]["accuracy"] for k in places])
    return found


_POINTS = 6


def _watched(
    settings: Settings, cell: Cell, seed: int, model: SequenceModel, test: Array, labels: Array
) -> Callable[[int], dict[str, Array]]:
    """Accuracy while training: undisturbed, then at the attack frequency at each amplitude."""
    from ssmtheory.models.fit import predict

    attack = attack_of(settings.state_dim)
    steps = layer_steps(settings, model, seed)

    def watch(step: int) -> dict[str, Array]:
        found = [predict(model, test, batch=_BATCH)]
        for amplitude in settings.amplitudes:
            noise = disturbance(Condition("fourier", "layer", attack, amplitude), steps, (), 0.0, seed)
            found.append(predict(model, test, noise, batch=_BATCH))
        return {"accuracy": np.array([(f.argmax(1) == labels).mean() for f in found])}

    return watch


def layer_steps(settings: Settings, model: SequenceModel, seed: int) -> list[Array]:
    """Steps at which the features of each layer hear a frequency: their own, or those of `clock`."""
    return [
        np.asarray(layer.steps.detach().cpu().numpy(), np.float64)
        if layer.scope == "feature" and layer.steps is not None
        else clock(settings.d_model, seed, i, settings.dt_min, settings.dt_max)
        for i, layer in enumerate(model.layers)
    ]


_CURVE = 50


def _thinned(losses: Array) -> Array:
    """Means over equal pieces of the steps, (50,) float64; a piece has one step at least."""
    edges = np.linspace(0, len(losses), _CURVE + 1).astype(int)
    return np.array([losses[a : max(b, a + 1)].mean() for a, b in itertools.pairwise(edges)])


def measure(
    settings: Settings, cell: Cell, seed: int, model: SequenceModel, start: Sequence[LayerParameters], test: Array,
    labels: Array,
) -> dict[str, Array]:  # fmt: skip
    """What a trained network does under every condition, and what its transfer functions predict."""
    from ssmtheory.models.fit import predict

    length = test.shape[1]
    own_steps = layer_steps(settings, model, seed)
    now = [layer.snapshot() for layer in model.layers]
    attack = attack_of(settings.state_dim)
    omegas = np.array([factor * attack for factor in settings.frequencies])

    energy: list[list[float]] = [[] for _ in model.layers]
    hooks = [
        layer.register_forward_hook(lambda _m, _i, out, where=where: where.append(float(out.double().square().mean())))
        for layer, where in zip(model.layers, energy, strict=True)
    ]
    clean_all = predict(model, test, batch=_BATCH)
    for hook in hooks:
        hook.remove()
    few, few_labels = test[: settings.noise_images], labels[: settings.noise_images]
    clean = clean_all[: len(few)]

    own, own_gain = zip(*(_own_attack(p, s, length) for p, s in zip(now, own_steps, strict=True)), strict=True)
    at_input, at_input_gain = _input_attack(now[0], own_steps[0], attack, length)
    accuracy, changed = [], []
    for condition in conditions(settings):
        noisy = predict(
            model, few, disturbance(condition, own_steps, own, at_input, seed), batch=_BATCH
        )  # fmt: skip
        accuracy.append((noisy.argmax(1) == few_labels).mean())
        changed.append((noisy.argmax(1) != clean.argmax(1)).mean())

    kappa, deviation = distance_from_legs(cell.variant, settings.state_dim)
    predicted = np.array([[noise_gain(p, s, w, length) for p, s in zip(now, own_steps, strict=True)] for w in omegas])
    # trained steps would have a layer at its start hear another frequency
    first = [s if p.scope == "layer" or p.steps is None else p.steps for p, s in zip(start, own_steps, strict=True)]
    before = np.array([[noise_gain(p, s, w, length) for p, s in zip(start, first, strict=True)] for w in omegas])
    pairs = list(enumerate(zip(model.layers, own_steps, strict=True)))
    measured = np.array([[_measured_gain(layer, s, w, length, seed, i) for i, (layer, s) in pairs] for w in omegas])
    at = int(np.argmin(np.abs(np.array(settings.frequencies) - 1.0)))

    def rms(values: Array) -> Array:
        return np.sqrt(np.mean(values**2, axis=-1))

    return {
        "clean_accuracy": np.array((clean_all.argmax(1) == labels).mean()),
        "clean_accuracy_few": np.array((clean.argmax(1) == few_labels).mean()),
        "noisy_accuracy": np.array(accuracy),
        "changed": np.array(changed),
        "gain": rms(predicted),
        "gain_start": rms(before),
        "gain_continuous": np.array([[continuous_gain(p, w) for p in now] for w in omegas]),
        "gain_measured": rms(measured),
        "channel_step": np.array(own_steps),
        "channel_gain": predicted[at],
        "channel_gain_measured": measured[at],
        "own_frequency": np.array([value for _, value in own]),
        "own_gain": np.array(own_gain),
        "input_angle": np.array(at_input),
        "input_gain": np.array(at_input_gain),
        "signal": np.sqrt(np.array([np.mean(values) for values in energy])),
        "kappa": np.array(kappa),
        "deviation": np.array(deviation),
    }


_BATCH = 100


def _own_attack(parameters: LayerParameters, steps: Array, length: int) -> tuple[tuple[str, float], float]:
    """A layer's own worst frequency, from its own poles and steps: in rad/s, or rad per sample with scope "layer"."""
    from ssmtheory.robustness.gain import attack_frequency

    found = attack_frequency(parameters, length=length)
    if parameters.scope == "layer":
        return ("sample", found.angle), found.gain
    return ("layer", found.omega), found.gain


def _input_attack(parameters: LayerParameters, steps: Array, attack: float, length: int) -> tuple[float, float]:
    """The angle per sample at which the first layer amplifies a common cosine most, and the gain there."""
    from ssmtheory.robustness.gain import alias, layer_gain

    angles = np.unique(np.concatenate([np.linspace(0.0, math.pi, 300), alias(attack * steps, 1.0)]))
    gains = np.sqrt(np.mean(layer_gain(parameters, angles, clock="sample", length=length) ** 2, axis=0))
    k = int(np.argmax(gains))
    return float(angles[k]), float(gains[k])


def _measured_gain(layer: Any, steps: Array, omega: float, length: int, seed: int, index: int) -> Array:
    """rms of what the layer makes of the noise over rms of the noise in one feature, from rest: (features,)."""
    import torch

    from ssmtheory.robustness.noise import FourierNoise

    noise = FourierNoise(omega, 1.0).noise((_MEMBERS, length, len(steps)), steps, seed=(seed, index + 1))
    with torch.no_grad():
        out = layer(torch.from_numpy(noise).to(layer.C.device)).cpu().numpy()
    size = np.sqrt(np.mean(noise**2, axis=(0, 1)))
    if layer.scope == "layer":
        # amplitudes of all features reach an output: one size for all
        size = np.sqrt(np.mean(size**2))
    return np.sqrt(np.mean(out**2, axis=(0, 1))) / size


_MEMBERS = 16
