"""How a model's depth stretches small changes of its residual stream: finite-depth Lyapunov exponents.

The exponents of a Mamba along its sequence are known in closed form and all negative (`ssmtheory.dynamics.lyapunov`):
they measure memory. Stability through depth is another matter, and needs Jacobians. A small change dr of the residual
stream before layer 0 becomes J dr after the last layer; the exponents are ln(sigma_i(J))/K, K the number of layers.

| where | frame of changes |
|---|---|
| last | all of them at the last token: exact and complete, since nothing later can be touched |
| first | all of them at the first token: its own stretch and what it does to every later token |
| whole | a random frame over the whole sequence |

Everything is float64 on JAX, whatever the model's dtype.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmtheory.dynamics import concordance, lyapunov
from ssmtheory.errors import ConfigError, InputError
from ssmtheory.experiments import base, token_dynamics
from ssmtheory.results.schema import DatasetSchema, Dimension, Variable

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["FRAMES", "SCHEMA", "TITLE", "Config", "assemble", "plan", "run", "run_task", "verdict"]

TITLE = "Stretching of small changes through the depth of a Mamba"

FRAMES = ("last", "first", "whole")


def _f(dims: tuple[str, ...], units: str, long_name: str) -> Variable:
    return Variable(dims, "float64", units, long_name)


def _frame(where: str) -> dict[str, Variable]:
    return {
        "exponent": _f(("model", "sequence", "direction"), "1/layer", f"ln sigma_i(J) per layer, changes at: {where}"),
        "volume_rate": _f(
            ("model", "sequence", "layer"), "1/layer", "mean over the frame of ln |R_ii|: growth of its volume"
        ),
    }


SCHEMA = DatasetSchema(
    "depth_exponents",
    1,
    groups={
        "last": {
            **_frame("the last token"),
            "norm_rate": _f(("model", "sequence"), "1/layer", "ln |r_K|/|r_0| per layer of the last token"),
        },
        "first": {
            **_frame("the first token"),
            "spread": _f(
                ("model", "sequence", "depth"), "1", "share of a change's energy that sits at later tokens, by depth"
            ),
        },
        "whole": _frame("a random frame over all tokens"),
        "models": {"sha256": Variable(("model",), "str", "1", "sha256 of the model's weights")},
    },
    dimensions={
        "model": Dimension("model"),
        "direction": Dimension("singular direction, by falling singular value"),
    },
)


@dataclass(frozen=True)
class Config:
    """Which models, on which text. All models must have the same number of layers and the same width."""

    models: tuple[str, ...] = field(
        default=("shakespeare-1m", "shakespeare-1m-step-0"),
        metadata={"help": "embedded models, folders with config.json and weights, or hf:ORG/NAME"},
    )
    text: str = field(default="", metadata={"help": "UTF-8 text file, '-' for stdin; empty: held-out embedded text"})
    tokens: int = field(default=64, metadata={"help": "tokens per sequence"})
    sequences: int = field(default=6, metadata={"help": "sequences, evenly spaced in the text"})
    frame: int = field(default=32, metadata={"help": "random changes of the whole sequence"})
    seed: int = field(default=0, metadata={"help": "of the random frame and of the bootstrap"})


@dataclass
class _Context:
    names: list[str]
    models: list[Any]
    windows: list[list[Any]]
    config: Config
    tangents: dict[int, Any] = field(default_factory=dict)


def plan(config: Config) -> base.Plan:
    """Load the models and cut the text.

    Raises:
        InputError: unknown or damaged model, hybrids, models of different sizes, unusable text.
        ConfigError: an option has an impossible value.
    """
    from ssmtheory import mamba

    if not config.models:
        raise ConfigError("--models is empty: name at least one")
    for option, least in (("tokens", 2), ("sequences", 1), ("seed", 0)):
        if getattr(config, option) < least:
            raise ConfigError(f"--{option} {getattr(config, option)}: must be an integer >= {least}")
    reading = token_dynamics.Config(text=config.text, tokens=config.tokens, sequences=config.sequences)
    models, windows = [], []
    for name in config.models:
        model = mamba.load(name, dtype="float64", backend="numpy")
        if not isinstance(model, mamba.MambaLM):
            raise InputError(f"{model.name} is a hybrid with other layers than Mamba's: their tangents are not known")
        models.append(model)
        windows.append(token_dynamics.plan_model(model, reading).context.windows)
    sizes = {(m.config.n_layer, m.config.d_model) for m in models}
    if len(sizes) > 1:
        raise InputError(f"--models have different (layers, width): {sorted(sizes)}; compare models of one size")
    layers, width = sizes.pop()
    size = config.tokens * width
    if not 1 <= config.frame <= size:
        raise ConfigError(f"--frame {config.frame}: must lie between 1 and {size:,}, tokens times width")
    names = [m.name for m in models]
    if len(set(names)) < len(names):
        raise ConfigError(f"--models {', '.join(config.models)}: each model once")
    count = len(models) * config.sequences
    return base.Plan(
        resolved={
            "models": {m.name: m.sha256 for m in models},
            "text": sorted({(w.source.name, w.source.sha256) for w in windows[0]}),
            "tokens": config.tokens, "sequences": config.sequences, "frame": config.frame, "seed": config.seed,
        },
        tasks=[f"{i}-{j:05d}" for i in range(len(models)) for j in range(config.sequences)],
        describe={
            "models": ", ".join(f"{m.name} ({m.config.parameters:,} parameters)" for m in models),
            "tasks": f"{len(models)} models x {config.sequences} sequences of {config.tokens} tokens",
        },
        result_bytes=8 * count * (2 * width + config.frame + 4 * layers),
        context=_Context(names, models, windows, config),
        task_noun="sequence",
    )  # fmt: skip


def run_task(plan: base.Plan, key: str) -> dict[str, np.ndarray]:
    """Follow the three frames of one sequence through one model."""
    from ssmtheory.mamba.tangent import layer_tangents

    context: _Context = plan.context
    which, sequence = (int(part) for part in key.split("-"))
    model, window, config = context.models[which], context.windows[which][sequence], context.config
    layers = context.tangents.setdefault(which, layer_tangents(model))
    ids = window.source.tokens[window.start : window.start + config.tokens]
    x = np.asarray(model.weights["backbone.embedding.weight"], np.float64)[ids]
    width = x.shape[1]
    out = {}
    for where in FRAMES:
        frame: Any = config.frame
        if where != "whole":
            frame = np.zeros((width, *x.shape))
            frame[:, -1 if where == "last" else 0] = np.eye(width)
        found = lyapunov.depth_exponents(layers, x, frame, seed=config.seed + sequence)
        out[f"{where}/exponent"] = found.exponents
        out[f"{where}/volume_rate"] = found.local.mean(axis=1)
        if where == "last":
            norms = [float(np.linalg.norm(r[-1])) for r in (x, found.output)]
            out["last/norm_rate"] = np.array(np.log(norms[1] / norms[0]) / len(layers))
        if where == "first":
            out["first/spread"] = _spread(layers, x, frame)
    return out


def _spread(layers: list[lyapunov.Tangent], x: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Share of the frame's energy at tokens after the first, before each layer and after the last.

    The changes themselves, not an orthonormal frame of where they went, which would weigh all directions alike.
    """
    share = [0.0]
    for layer in layers:
        x, frame = layer(x, frame)
        frame = frame / np.abs(frame).max()
        share.append(float((frame[:, 1:] ** 2).sum() / (frame**2).sum()))
    return np.array(share)


def assemble(plan: base.Plan, parts: Mapping[str, Mapping[str, np.ndarray]]) -> xr.DataTree:
    """Put the sequences of all models together."""
    import xarray as xr

    context: _Context = plan.context
    count = context.config.sequences
    groups = {}
    for where in FRAMES:
        data, coords = {}, {"model": np.array(context.names, dtype=object), "sequence": np.arange(count)}
        for name, declared in SCHEMA.groups[f"/{where}"].items():
            stacked = np.stack(
                [[parts[f"{i}-{j:05d}"][f"{where}/{name}"] for j in range(count)] for i in range(len(context.names))]
            )
            data[name] = (declared.dims, stacked)
            coords |= {dim: np.arange(n) for dim, n in zip(declared.dims[2:], stacked.shape[2:], strict=True)}
        groups[where] = xr.Dataset(data, coords=coords)
    shas = np.array([m.sha256 for m in context.models], dtype=object)
    groups["models"] = xr.Dataset(
        {"sha256": (("model",), shas)}, coords={"model": np.array(context.names, dtype=object)}
    )
    return xr.DataTree.from_dict(groups)


def verdict(tree: xr.DataTree) -> list[str]:
    """Say how far a change is stretched, in how many directions, and what it does to later tokens."""
    last, first = tree["last"].to_dataset(), tree["first"].to_dataset()
    layers, shas = last.sizes["layer"], tree["models"].to_dataset()["sha256"].values.tolist()
    sentences = []
    for i, name in enumerate(last["model"].values.tolist()):
        sha = shas[i][:12]
        top = last["exponent"].values[i, :, 0]
        growing = (last["exponent"].values[i] > 0).mean(axis=1)
        mean = np.nanmean(last["exponent"].values[i], axis=1)
        spread = first["spread"].values[i, :, -1]
        norm = last["norm_rate"].values[i]
        faster = (last["exponent"].values[i] > norm[:, None]).mean(axis=1)
        sentences.append(
            f"{name} (sha256 {sha}): a change at the last token grows {np.exp(layers * top.mean()):.3g}-fold at most "
            f"over {layers} layers, {_interval(top)} per layer; {_interval(growing)} of the directions grow; mean "
            f"exponent {_interval(mean)}. The token's norm grows by {_interval(norm)} per layer, faster than a change "
            f"in all but {_interval(faster)} of the directions. Of a change at the first token, {_interval(spread)} of "
            "the energy ends up at later tokens."
        )
    if last.sizes["sequence"] > 1:
        sentences.append(
            f"Intervals: 95 % bootstrap over {last.sizes['sequence']} sequences. Depth is finite: these are singular "
            "values of a product of Jacobians, not limits."
        )
    return sentences


def _interval(values: np.ndarray) -> str:
    """Mean and bootstrap interval over the sequences."""
    counts = concordance.bootstrap_counts(len(values), 1000, 0)
    low, high = concordance.mean_interval(values[:, None], counts)
    if len(values) < 2:
        return f"{values.mean():.3f}"
    return f"{values.mean():.3f} [{low[0]:.3f}, {high[0]:.3f}]"


def run(config: Config) -> xr.DataTree:
    """Run the experiment in this process.

    Args:
        config: what to measure.

    Returns:
        The dataset; its groups are described by SCHEMA.
    """
    return base.run(sys.modules[__name__], config)


if __name__ == "__main__":
    from ssmtheory.runner import main

    raise SystemExit(main("depth_exponents"))
