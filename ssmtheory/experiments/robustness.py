"""Robustness under Fourier-mode noise: from the transfer function to trained models.

Does the spike that the theory predicts for S4D decide a trained model's fate under noise; does perturbing before
diagonalising (PTD) remove it, and at what cost; is HiPPO-rho, which is better on paper, better when trained?

| group | question |
|---|---|
| theory | gain of untrained layers at every frequency: initialisation, N, step, discretisation |
| cells, trained | accuracy of trained classifiers under noise; gain of their layers, predicted and measured |
| correlation | does the predicted gain of the layers predict the loss of accuracy |
| comparison | variants against each other, paired by seed |
| regression | the amplitude of a sinusoid, regressed inside a band and asked beyond it |

Each network is one task and a function of its key. What variants of a seed share, and what one attack is, is said in
`_robustness_trained`; `_robustness_regression` has the regression. Papers: PTD, arXiv 2310.01698, section 3.4, figures
2 and 3; HiPPO-rho is ours.

A cell is evidence where every seed's clean accuracy is above that of logistic regression on the same pixels.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmtheory.errors import BackendError, ConfigError, nearest
from ssmtheory.experiments import _robustness_regression as regression
from ssmtheory.experiments import _robustness_theory as theory
from ssmtheory.experiments import _robustness_trained as trained
from ssmtheory.experiments import base
from ssmtheory.experiments._intervals import holm, paired_test
from ssmtheory.results.schema import DatasetSchema, Dimension, Variable
from ssmtheory.typing import Array

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["SCHEMA", "TITLE", "Config", "assemble", "plan", "run", "run_task", "verdict"]

TITLE = "Robustness of state-space models under Fourier-mode noise"
WORKDIR = True


def _f(dims: tuple[str, ...], units: str, long_name: str, kind: str = "float64") -> Variable:
    # optional: a run may leave out a part
    return Variable(dims, kind, units, long_name, optional=True)


_CELL, _RUN = ("cell",), ("cell", "seed")
_GAIN = ("cell", "seed", "factor", "layer")
_CHANNEL = ("cell", "seed", "layer", "feature")

#: arrays of one training run
_ONE = {
    "clean_accuracy": _f(_RUN, "1", "fraction of test images classified correctly, undisturbed"),
    "clean_accuracy_few": _f(_RUN, "1", "the same on the images that are disturbed"),
    "noisy_accuracy": _f((*_RUN, "disturbance"), "1", "fraction of disturbed test images classified correctly"),
    "changed": _f((*_RUN, "disturbance"), "1", "fraction of test images that are classified otherwise when disturbed"),
    "training_loss": _f((*_RUN, "piece"), "nat", "mean training loss in equal pieces of the training"),
    "observed": _f((*_RUN, "moment"), "1", "optimiser steps at which the network was measured while training"),
    "curve": _f((*_RUN, "moment", "watch"), "1", "accuracy then: undisturbed, and at the attack at each amplitude"),
    "gain": _f(_GAIN, "1", "predicted gain of the trained layer, discretised, rms over features"),
    "gain_start": _f(_GAIN, "1", "predicted gain of the layer before training, discretised, rms over features"),
    "gain_continuous": _f(_GAIN, "1", "predicted gain of the trained layer in continuous time, rms over features"),
    "gain_measured": _f(_GAIN, "1", "measured gain of the trained layer, from rest, over the length of the data"),
    "channel_step": _f(_CHANNEL, "s", "step of a feature"),
    "channel_gain": _f(_CHANNEL, "1", "predicted gain of a feature at the derived attack frequency"),
    "channel_gain_measured": _f(_CHANNEL, "1", "measured gain of a feature there"),
    "own_frequency": _f(
        (*_RUN, "layer"),
        "rad/s",
        "worst frequency of the trained layer itself (rad per sample where steps belong to states)",
    ),
    "own_gain": _f((*_RUN, "layer"), "1", "predicted gain there"),
    "input_angle": _f(_RUN, "rad", "worst angle per sample at the input of the network"),
    "input_gain": _f(_RUN, "1", "predicted gain of the first layer there"),
    "signal": _f((*_RUN, "layer"), "1", "rms of the layer's output, undisturbed"),
    "kappa": _f(_RUN, "1", "condition number of the eigenvectors, unit columns"),
    "deviation": _f(_RUN, "1", "largest distance of the transfer vector from that of LegS, found near the poles"),
}


def _tested(outcome: str, units: str, words: str) -> dict[str, Variable]:
    return {
        outcome: _f(("pair",), units, f"{words}, first minus second variant, mean over seeds"),
        f"{outcome}_low": _f(("pair",), units, "lower end of its 95 % bootstrap interval over seeds"),
        f"{outcome}_high": _f(("pair",), units, "upper end of its 95 % bootstrap interval over seeds"),
        f"{outcome}_p": _f(("pair",), "1", "exact two-sided sign-flip permutation test over seeds"),
        f"{outcome}_p_holm": _f(("pair",), "1", "the same after Holm's correction over the pairs"),
    }


_OUTCOMES = {
    "clean": "clean accuracy",
    "attacked": "accuracy at the derived attack frequency, largest amplitude",
    "own": "accuracy at the model's own worst frequencies, largest amplitude",
}
_CORRELATION = ("data", "alpha", "prediction")

SCHEMA = DatasetSchema(
    "robustness",
    1,
    groups={
        "theory": theory.VARIABLES,
        "cells": {
            "images": _f(_CELL, "1", "data set", "str"),
            "variant": _f(_CELL, "1", "variant of the linear layers", "str"),
            "trained": _f(_CELL, "1", "trained parts of the linear layers", "str"),
            "length": _f(_CELL, "1", "length of a sequence", "int64"),
            "baseline_accuracy": _f(_CELL, "1", "accuracy of logistic regression on the same pixels"),
            "evidence": _f(_CELL, "1", "whether every seed's clean accuracy is above it", "bool"),
        },
        "disturbances": {
            "kind": _f(("disturbance",), "1", "what is added", "str"),
            "where": _f(("disturbance",), "1", "where it is added", "str"),
            "frequency": _f(("disturbance",), "rad/s", "angular frequency of a cosine in the layers"),
            "amplitude": _f(("disturbance",), "1", "amplitude of the cosine of equal energy"),
            "attack_frequency": _f((), "rad/s", "derived attack frequency: where S4D-LegS amplifies most"),
        },
        "trained": _ONE,
        "correlation": {
            "rank": _f(_CORRELATION, "1", "Spearman correlation of predicted size with loss of accuracy"),
            "rank_low": _f(_CORRELATION, "1", "lower end of its 95 % interval, seeds resampled"),
            "rank_high": _f(_CORRELATION, "1", "upper end of its 95 % interval, seeds resampled"),
            "rank_low_cells": _f(_CORRELATION, "1", "lower end of its 95 % interval, cells resampled"),
            "rank_high_cells": _f(_CORRELATION, "1", "upper end of its 95 % interval, cells resampled"),
            "points": _f(("data",), "1", "number of points (cell, seed, frequency)", "int64"),
            "cells": _f(("data",), "1", "number of cells that are evidence", "int64"),
        },
        "comparison": {
            "images": _f(("pair",), "1", "data set", "str"),
            "first": _f(("pair",), "1", "first variant", "str"),
            "second": _f(("pair",), "1", "second variant", "str"),
            **{k: v for name, words in _OUTCOMES.items() for k, v in _tested(name, "1", words).items()},
        },
        "regression": {
            "predicted": _f(("init", "reading", "seed", "omega"), "1", "predicted amplitude, where it is 1"),
            "train_error": _f(("init", "reading", "seed"), "1", "rms error over the training sinusoids"),
            "last_spike": _f((), "rad/s", "last spike of S4D-LegS"),
            "edge": _f((), "rad/s", "end of the trained band"),
        },
    },
    dimensions={
        **theory.DIMENSIONS,
        "cell": Dimension("data set, variant and trained parts"),
        "disturbance": Dimension("disturbance"),
        "factor": Dimension("frequency over the derived attack frequency"),
        "moment": Dimension("moment of the training"),
        "watch": Dimension("undisturbed, then amplitude of the noise at the attack frequency"),
        "piece": Dimension("equal piece of the training"),
        "data": Dimension("data set"),
        "pair": Dimension("pair of variants"),
        "prediction": Dimension("what is predicted: gain, or noise over signal"),
        "reading": Dimension("how the amplitude is read from the layer's output"),
    },
)


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass(frozen=True)
class Config(theory.TheoryConfig):
    """Variants, data, sizes and budgets of all parts."""

    images: str = field(
        default="digits", metadata=_help("short sequences: NAME or NAME:SIDE, as ssmtheory.data.images")
    )
    variants: tuple[str, ...] = field(
        default=("s4d", "s4", "s4-ptd:kind=published,weight=10", "hippo-rho:rho=10"),
        metadata=_help("variants trained on the short sequences; the first `headline` are compared with each other"),
    )
    all_variants: tuple[str, ...] = field(
        default=(), metadata=_help("variants whose A, B and steps are trained too, on the short sequences")
    )
    long_images: str = field(default="cifar10", metadata=_help("long sequences"))
    long_variants: tuple[str, ...] = field(default=(), metadata=_help("variants trained on the long sequences"))
    headline: int = field(default=4, metadata=_help("how many of the first variants are trained first and compared"))
    seeds: int = field(default=3, metadata=_help("training runs of each cell"))
    state_dim: int = field(default=32, metadata=_help("size N of the HiPPO matrix (of each block of S5)"))
    d_model: int = field(default=32, metadata=_help("width of the networks"))
    n_layer: int = field(default=3, metadata=_help("linear layers of a network"))
    dropout: float = field(default=0.1, metadata=_help("dropout"))
    dt_min: float = field(default=1e-3, metadata=_help("smallest step of a feature [s]"))
    dt_max: float = field(default=1e-1, metadata=_help("largest step of a feature [s]"))
    steps: int = field(default=200, metadata=_help("optimiser steps on the short sequences"))
    long_steps: int = field(default=200, metadata=_help("optimiser steps on the long sequences"))
    batch: int = field(default=32, metadata=_help("images per step"))
    rate: float = field(default=1e-2, metadata=_help("peak learning rate of AdamW"))
    layer_rate: float = field(default=4e-3, metadata=_help("the same for C and D; a quarter of it for A, B and steps"))
    decay: float = field(default=0.05, metadata=_help("weight decay of matrices outside the linear layers"))
    train_images: int = field(default=10000, metadata=_help("training images at most, 0 for all"))
    test_images: int = field(default=2000, metadata=_help("test images at most, 0 for all"))
    noise_images: int = field(default=400, metadata=_help("of these, how many are disturbed"))
    frequencies: tuple[float, ...] = field(
        default=(0.003, 0.01, 0.03, 0.1, 0.3, 0.7, 1.0, 1.5, 3.0),
        metadata=_help("frequencies of the noise over the derived attack frequency; 1 is among them"),
    )
    amplitudes: tuple[float, ...] = field(default=(0.1, 0.3, 1.0), metadata=_help("amplitudes of the noise"))
    corruptions: tuple[str, ...] = field(
        default=trained.CORRUPTIONS, metadata=_help("other corruptions, at equal energy")
    )
    regression_variants: tuple[str, ...] = field(default=(), metadata=_help("variants of the regression"))
    readings: tuple[str, ...] = field(default=regression.READINGS, metadata=_help("readings of the regression"))
    regression_dim: int = field(default=16, metadata=_help("N of the regression"))
    regression_edge: float = field(default=80.0, metadata=_help("end of the trained band [rad/s]"))
    regression_top: float = field(default=100.0, metadata=_help("end of the tested band [rad/s]"))
    regression_features: int = field(default=16, metadata=_help("width of the regressors"))
    regression_length: int = field(default=512, metadata=_help("samples of a sinusoid"))
    regression_dt: float = field(default=0.01, metadata=_help("step of all features [s]"))
    regression_count: int = field(default=2000, metadata=_help("training sinusoids"))
    regression_steps: int = field(default=1000, metadata=_help("optimiser steps of a regressor"))
    regression_points: int = field(default=201, metadata=_help("tested frequencies"))
    backend: str = field(default="auto", metadata=_help("scan backend: c, torch or auto"))
    device: str = field(default="cpu", metadata=_help("where classifiers are trained: cpu or cuda"))


# ---------------------------------------------------------------------------------------------------- plan


@dataclass(frozen=True)
class _Context:
    config: Config
    settings: trained.Settings
    setting: regression.Setting
    cells: tuple[trained.Cell, ...]
    lengths: Mapping[str, int]


def cells_of(config: Config) -> tuple[trained.Cell, ...]:
    """Cells in the order they are trained: what decides the question first."""
    short = [trained.Cell(config.images, v) for v in config.variants]
    long = [trained.Cell(config.long_images, v, long=True) for v in config.long_variants]
    everything = [trained.Cell(config.images, v, "all") for v in config.all_variants]
    return (*short[: config.headline], *long, *short[config.headline :], *everything)


def plan(config: Config) -> base.Plan:
    """Check the options and name the tasks: theory, baselines, headline, regressions, the rest.

    Raises:
        ConfigError: an option has an impossible value.
        InputError, MissingDependencyError: from the loading of images.
    """
    theory.check(config)
    _check(config)
    cells = cells_of(config)
    backend = _backend(config.backend, config.device)
    settings = dataclasses.replace(_settings_of(config), backend=backend)
    setting = regression.Setting(
        config.regression_dim, config.regression_edge, config.regression_top, config.regression_features,
        config.regression_length, config.regression_dt, config.regression_count, config.regression_steps,
        config.batch, config.rate, config.regression_points, _backend(config.backend, "cpu"),
    )  # fmt: skip
    used = list(dict.fromkeys(cell.images for cell in cells))
    data = {name: trained.load(name).describe() for name in used}
    lengths = {name: trained.load(name).test.pixels.shape[1] for name in used}
    seeds = range(config.seeds)
    first = [*config.variants[: config.headline]]
    tasks = [*theory.tasks(config), *(f"baseline/{name}" for name in used)]
    runs = [(f"trained/{cell.label}/{s}", cell) for cell in cells for s in seeds]
    tasks += [key for key, cell in runs if cell.variant in first and not cell.long and cell.trained == "C,D"]
    tasks += [f"regression/{v}/{r}/{s}" for v in config.regression_variants for r in config.readings for s in seeds]
    tasks += [key for key, _ in runs if key not in tasks]
    conditions = len(trained.conditions(settings))
    return base.Plan(
        # the device is not named: the backend is another one there
        resolved={
            **{name: value for name, value in asdict(config).items() if name != "device"},
            "backend": backend,
            "images_sha256": {name: str(d["sha256"]) for name, d in data.items()},
        },
        tasks=tasks,
        describe={
            "classifiers": f"{len(cells)} cells x {config.seeds} seeds, {conditions} disturbances each",
            **{f"images {name}": f"{d['train']:,} + {d['test']:,}, {d['source']}" for name, d in data.items()},
            "regressors": f"{len(config.regression_variants) * len(config.readings)} x {config.seeds} seeds",
        },
        result_bytes=8 * config.seeds * len(cells) * (2 * conditions + 4 * config.n_layer * 40),
        context=_Context(config, settings, setting, cells, lengths),
        task_noun="run",
    )


def _backend(name: str, device: str) -> str:
    """The scan backend that is really used; its name is part of the run's identity."""
    import torch

    from ssmtheory.scan import resolve_backend

    if device == "cuda" and not torch.cuda.is_available():
        raise BackendError(f"--device cuda: torch {torch.__version__} finds no CUDA device here; --device cpu works")
    return str(resolve_backend(torch.zeros(1, device=device), backend=name))


def _check(config: Config) -> None:
    from ssmtheory.models.lti_layers import parse_variant

    for option in ("variants", "all_variants", "long_variants", "regression_variants"):
        chosen = getattr(config, option)
        for variant in chosen:
            parse_variant(variant)
        if len(set(chosen)) < len(chosen):
            raise ConfigError(f"--{option.replace('_', '-')} {', '.join(chosen)}: each variant once")
    if not (cells_of(config) or config.regression_variants or config.theory_inits):
        raise ConfigError(
            "--theory-inits, --variants, --long-variants and --regression-variants are all empty: nothing to do"
        )
    if not 1 <= config.seeds <= 20:
        raise ConfigError(f"--seeds {config.seeds}: must lie between 1 and 20, the sign-flip test takes all flips")
    if 1.0 not in config.frequencies or any(not f > 0 for f in config.frequencies):
        raise ConfigError(f"--frequencies {config.frequencies}: must be positive and have 1, the attack frequency")
    if not config.amplitudes or any(not a > 0 for a in config.amplitudes):
        raise ConfigError(f"--amplitudes {config.amplitudes}: must be positive")
    for option, allowed in (("corruptions", trained.CORRUPTIONS), ("readings", regression.READINGS)):
        for value in getattr(config, option):
            if value not in allowed:
                raise ConfigError(f"--{option} {value}: must be among {', '.join(allowed)}.{nearest(value, allowed)}")
    for option, least in (("state_dim", 2), ("d_model", 1), ("n_layer", 1), ("steps", 2), ("long_steps", 2),
                          ("batch", 1),
                          ("noise_images", 1), ("regression_dim", 2), ("regression_steps", 2), ("regression_points", 2),
                          ("headline", 0)):  # fmt: skip
        if getattr(config, option) < least:
            raise ConfigError(f"--{option.replace('_', '-')} {getattr(config, option)}: must be an integer >= {least}")
    if config.device not in ("cpu", "cuda"):
        raise ConfigError(f"--device {config.device}: must be cpu or cuda")
    if not 0 < config.dt_min <= config.dt_max:
        raise ConfigError(f"--dt-min {config.dt_min}, --dt-max {config.dt_max}: must be 0 < dt-min <= dt-max")


# ---------------------------------------------------------------------------------------------------- tasks


def run_task(plan: base.Plan, key: str, workdir: Path) -> dict[str, Array]:
    """The arrays of one task; a function of (plan, key) only. `workdir` holds its checkpoint."""
    context: _Context = plan.context
    kind, *rest = key.split("/")
    if kind == "theory":
        return theory.run(context.config, key)
    import torch

    threads = torch.get_num_threads()
    # the order of a sum depends on it
    torch.set_num_threads(1)
    try:
        if kind == "baseline":
            return trained.baseline(context.settings, rest[0])
        seed = int(rest[-1])
        if kind == "regression":
            return regression.regress(context.setting, rest[0], rest[1], seed, workdir, base.report)
        label = "/".join(rest[:-1])
        cell = next(cell for cell in context.cells if cell.label == label)
        return trained.train_cell(context.settings, cell, seed, workdir, base.report)
    finally:
        torch.set_num_threads(threads)


# ---------------------------------------------------------------------------------------------------- the dataset


def assemble(plan: base.Plan, parts: Mapping[str, Mapping[str, Array]]) -> xr.DataTree:
    """Put the runs together, then correlate predictions with what happened and compare the variants."""
    import xarray as xr

    context: _Context = plan.context
    config = context.config
    groups: dict[str, xr.Dataset] = {}
    if config.theory_inits:
        groups["theory"] = theory.assemble(config, parts)
    if context.cells:
        groups |= _trained_groups(context, parts)
    if config.regression_variants:
        values = {
            name: np.array([
                [[parts[f"regression/{v}/{r}/{s}"][name] for s in range(config.seeds)] for r in config.readings]
                for v in config.regression_variants
            ])
            for name in ("predicted", "train_error")
        }  # fmt: skip
        first = parts[f"regression/{config.regression_variants[0]}/{config.readings[0]}/0"]
        dims = SCHEMA.groups["/regression"]
        groups["regression"] = xr.Dataset(
            {
                **{name: (dims[name].dims, array) for name, array in values.items()},
                "last_spike": ((), np.float64(first["last_spike"])),
                "edge": ((), np.float64(config.regression_edge)),
            },
            coords={
                "init": np.array(config.regression_variants, dtype=object),
                "reading": np.array(config.readings, dtype=object),
                "seed": np.arange(config.seeds),
                "omega": regression.grid(context.setting),
            },
        )
    return xr.DataTree.from_dict(groups)


def _trained_groups(context: _Context, parts: Mapping[str, Mapping[str, Array]]) -> dict[str, xr.Dataset]:
    import xarray as xr

    config, cells, seeds = context.config, context.cells, np.arange(context.config.seeds)
    labels = np.array([cell.label for cell in cells], dtype=object)
    data: dict[str, Any] = {}
    for name, variable in _ONE.items():
        values = [[np.asarray(parts[f"trained/{cell.label}/{s}"][name]) for s in seeds] for cell in cells]
        data[name] = (variable.dims, np.array(values, dtype=np.float64))
    trained_set = xr.Dataset(
        data, coords={"cell": labels, "seed": seeds, "factor": np.array(config.frequencies)}
    )  # fmt: skip
    reference = np.array([float(parts[f"baseline/{cell.images}"]["baseline_accuracy"]) for cell in cells])
    evidence = (trained_set.clean_accuracy.values > reference[:, None]).all(axis=1)
    conditions = trained.conditions(context.settings)

    def texts(values: Any) -> Array:
        return np.array(list(values), dtype=object)

    cell_set = xr.Dataset(
        {
            "images": (_CELL, texts(c.images for c in cells)),
            "variant": (_CELL, texts(c.variant for c in cells)),
            "trained": (_CELL, texts(c.trained for c in cells)),
            "length": (_CELL, np.array([context.lengths[cell.images] for cell in cells], np.int64)),
            "baseline_accuracy": (_CELL, reference),
            "evidence": (_CELL, evidence),
        },
        coords={"cell": labels},
    )
    disturbance_set = xr.Dataset(
        {
            "kind": (("disturbance",), texts(c.kind for c in conditions)),
            "where": (("disturbance",), texts(c.where for c in conditions)),
            "frequency": (("disturbance",), np.array([c.frequency for c in conditions])),
            "amplitude": (("disturbance",), np.array([c.amplitude for c in conditions])),
            "attack_frequency": ((), np.float64(trained.attack_of(config.state_dim))),
        }
    )
    groups = {"cells": cell_set, "disturbances": disturbance_set, "trained": trained_set}
    groups["correlation"] = _correlations(config, cell_set, trained_set)
    comparison = _comparisons(config, cell_set, trained_set, conditions)
    if comparison is not None:
        groups["comparison"] = comparison
    return groups


def _fourier(config: Config, conditions: list[trained.Condition], amplitude: float) -> Array:
    """Indices of the cosines in the layers at one amplitude, in the order of the frequencies."""
    found = [i for i, c in enumerate(conditions) if (c.kind, c.where, c.amplitude) == ("fourier", "layer", amplitude)]
    return np.array(found[: len(config.frequencies)])


#: predictions that are correlated with the loss of accuracy
PREDICTIONS = ("gain", "noise over signal")
_RESAMPLES = 500


def _rank(x: Array, y: Array) -> Array:
    """Spearman's correlation along the last axis; NaN where one of them is constant."""
    from scipy.stats import rankdata

    a, b = (rankdata(v, axis=-1) for v in (x, y))
    a, b = a - a.mean(axis=-1, keepdims=True), b - b.mean(axis=-1, keepdims=True)
    size = np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))
    return np.where(size > 0, (a * b).sum(axis=-1) / np.where(size > 0, size, 1.0), math.nan)


def _correlations(config: Config, cells: xr.Dataset, runs: xr.Dataset) -> xr.Dataset:
    """Predicted gain (geometric mean over layers) against loss of accuracy, over cells, seeds and frequencies."""
    import xarray as xr

    from ssmtheory.robustness.noise import FourierNoise

    conditions = trained.conditions(_settings_of(config))
    images = list(dict.fromkeys(str(v) for v in cells.images.values))
    shape = (len(images), len(config.amplitudes), len(PREDICTIONS))
    names = ("rank", "rank_low", "rank_high", "rank_low_cells", "rank_high_cells")
    found = {name: np.full(shape, math.nan) for name in names}
    points, counted = np.zeros(len(images), np.int64), np.zeros(len(images), np.int64)
    for i, name in enumerate(images):
        chosen = np.flatnonzero((cells.images.values == name) & cells.evidence.values)
        counted[i], points[i] = len(chosen), len(chosen) * config.seeds * len(config.frequencies)
        if len(chosen) < 2:
            continue
        gain = runs.gain.values[chosen]  # (cell, seed, factor, layer)
        signal = runs.signal.values[chosen][:, :, None, :]
        for j, amplitude in enumerate(config.amplitudes):
            noisy = runs.noisy_accuracy.values[chosen][:, :, _fourier(config, conditions, amplitude)]
            drop = runs.clean_accuracy_few.values[chosen][:, :, None] - noisy
            size = FourierNoise(0.0, amplitude).rms
            for k, x in enumerate((np.log(gain).mean(axis=-1), np.log(gain * size / signal).mean(axis=-1))):
                found["rank"][i, j, k] = _rank(x.ravel(), drop.ravel())
                for end, axis in (("", 1), ("_cells", 0)):
                    low, high = _interval(x, drop, axis)
                    found[f"rank_low{end}"][i, j, k], found[f"rank_high{end}"][i, j, k] = low, high
    return xr.Dataset(
        {
            **{name: (_CORRELATION, array) for name, array in found.items()},
            "points": (("data",), points),
            "cells": (("data",), counted),
        },
        coords={
            "data": np.array(images, dtype=object),
            "alpha": np.array(config.amplitudes),
            "prediction": np.array(PREDICTIONS, dtype=object),
        },
    )


def _interval(x: Array, y: Array, axis: int) -> tuple[float, float]:
    """95 % percentile interval of the rank correlation, whole seeds (axis 1) or cells (axis 0) resampled."""
    count = x.shape[axis]
    if count < 2:
        return math.nan, math.nan
    rows = np.random.default_rng(0).integers(count, size=(_RESAMPLES, count))
    found = _rank(*(np.moveaxis(v, axis, 0)[rows].reshape(_RESAMPLES, -1) for v in (x, y)))
    found = found[np.isfinite(found)]
    if not found.size:
        return math.nan, math.nan
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def _comparisons(
    config: Config, cells: xr.Dataset, runs: xr.Dataset, conditions: list[trained.Condition]
) -> xr.Dataset | None:
    """Every two of the headline variants on the same data, paired by seed."""
    import xarray as xr

    most = max(config.amplitudes)
    at = _fourier(config, conditions, most)[config.frequencies.index(1.0)]
    own = next(i for i, c in enumerate(conditions) if c.where == "own" and c.amplitude == most)
    noisy = runs.noisy_accuracy.values
    outcomes = {"clean": runs.clean_accuracy.values, "attacked": noisy[..., at], "own": noisy[..., own]}
    headline = config.variants[: config.headline]
    pairs: list[tuple[str, str, str, int, int]] = []
    for images in dict.fromkeys(str(v) for v in cells.images.values):
        there = {
            str(v): i
            for i, (v, d, t) in enumerate(
                zip(cells.variant.values, cells.images.values, cells.trained.values, strict=True)
            )
            if d == images and t == "C,D" and (v in headline or images == config.long_images)
        }
        pairs += [(images, a, b, there[a], there[b]) for a, b in itertools.combinations(there, 2)]
    if not pairs:
        return None
    columns: dict[str, Any] = {}
    for name, values in outcomes.items():
        tests = [paired_test(values[i] - values[j]) for *_, i, j in pairs]
        p = np.array([t.p for t in tests])
        for end, column in (
            ("", [t.mean for t in tests]), ("_low", [t.low for t in tests]), ("_high", [t.high for t in tests]),
            ("_p", p), ("_p_holm", holm(p)),
        ):  # fmt: skip
            columns[name + end] = (("pair",), np.array(column, np.float64))
    for k, name in enumerate(("images", "first", "second")):
        columns[name] = (("pair",), np.array([pair[k] for pair in pairs], dtype=object))
    return xr.Dataset(columns)


def _settings_of(config: Config) -> trained.Settings:
    return trained.Settings(
        config.state_dim, config.d_model, config.n_layer, config.dropout, config.dt_min, config.dt_max, config.steps,
        config.long_steps, config.batch, config.rate, config.layer_rate, config.decay, config.train_images,
        config.test_images, config.noise_images, config.frequencies, config.amplitudes, config.corruptions,
        config.backend,
        config.device,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- in words


def verdict(tree: xr.DataTree) -> list[str]:
    """Say whether the attack finds its victim, what predicts the loss, and who is better than whom, how surely."""
    sentences: list[str] = []
    if "theory" in tree.children:
        sentences += theory.verdict(tree["theory"].to_dataset())
    if "trained" in tree.children:
        sentences += _trained_words(tree)
    if "regression" in tree.children:
        sentences += _regression_words(tree["regression"].to_dataset())
    return sentences


def _trained_words(tree: xr.DataTree) -> list[str]:
    cells, runs = tree["cells"].to_dataset(), tree["trained"].to_dataset()
    noise = tree["disturbances"].to_dataset()
    attack = float(noise.attack_frequency)
    kind, where = noise.kind.values, noise["where"].values
    most = float(noise.amplitude.max())
    at = (kind == "fourier") & (where == "layer") & (noise.amplitude.values == most)
    near = np.flatnonzero(at)[np.argmin(np.abs(noise.frequency.values[at] - attack))]
    others = [i for i in np.flatnonzero(at) if i != near]
    words = []
    for i, label in enumerate(cells.cell.values):
        clean, hit = runs.clean_accuracy_few.values[i], runs.noisy_accuracy.values[i]
        elsewhere = (
            f", at the other frequencies {_spread((clean[:, None] - hit[:, others]).mean(axis=1))} on average"
            if others
            else ""
        )
        words.append(
            f"{label}: clean {_spread(runs.clean_accuracy.values[i])} (logistic regression "
            f"{float(cells.baseline_accuracy[i]):.3f}{'' if bool(cells.evidence[i]) else ': no evidence'}); noise of "
            f"amplitude {most:g} at {attack:.1f} rad/s costs {_spread(clean - hit[:, near])}{elsewhere}."
        )
    found = tree["correlation"].to_dataset()
    for i, name in enumerate(found.data.values):
        if int(found.cells[i]) < 2:
            words.append(f"{name}: fewer than two cells are evidence; no correlation is given.")
            continue
        listed = "; ".join(
            f"amplitude {float(a):g}: {float(found['rank'][i, j, k]):+.2f} "
            f"[{float(found.rank_low_cells[i, j, k]):+.2f}, {float(found.rank_high_cells[i, j, k]):+.2f}]"
            for j, a in enumerate(found.alpha.values)
            for k in (0,)
        )
        words.append(
            f"{name}: rank correlation of the layers' predicted gain with the loss of accuracy over "
            f"{int(found.points[i])} points, cells resampled: {listed}."
        )
    if "comparison" in tree.children:
        pairs = tree["comparison"].to_dataset()
        seeds = runs.sizes["seed"]
        words.append(f"Paired over {seeds} seeds, no p-value can lie below {2.0 ** (1 - seeds):.2g}.")
        for i in range(pairs.sizes["pair"]):
            one = pairs.isel(pair=i)
            listed = ", ".join(
                f"{name} {100 * float(one[name]):+.1f} [{100 * float(one[name + '_low']):+.1f}, "
                f"{100 * float(one[name + '_high']):+.1f}] points"
                for name in _OUTCOMES
            )
            words.append(f"{one.images.item()}: {one['first'].item()} minus {one.second.item()}: {listed}.")
    return words


def _spread(values: Array) -> str:
    """Mean and range over seeds."""
    return f"{values.mean():.3f} [{values.min():.3f}, {values.max():.3f}]"


def _regression_words(data: xr.Dataset) -> list[str]:
    beyond = data.omega.values > float(data.last_spike) + 1.0
    words = []
    for reading in data.reading.values:
        one = data.sel(reading=reading)
        listed = ", ".join(
            f"{init} {_spread(one.predicted.sel(init=init).values[:, beyond].mean(axis=1))} "
            f"(below 0 at {100 * (one.predicted.sel(init=init).values[:, beyond] < 0).mean():.0f} %)"
            for init in one.init.values
        )
        words.append(f"Amplitude 1 beyond the last spike at {float(data.last_spike):.1f} rad/s, {reading}: {listed}.")
    return words


def run(config: Config) -> xr.DataTree:
    """Run the experiment in this process.

    Args:
        config: what to train.

    Returns:
        The dataset; its groups are described by SCHEMA.
    """
    return base.run(sys.modules[__name__], config)


if __name__ == "__main__":
    from ssmtheory.runner import main

    raise SystemExit(main("robustness"))
