"""Train the embedded byte-level Mamba on the embedded public-domain text.

The model is a causal Mamba-1 language model over bytes, trained by next-byte cross-entropy on windows drawn at random
from the training parts of two corpora (`ssmtheory.data.text`). The forward pass, the scan and its backward are the
project's own. The run goes on after a kill; the dataset holds the loss curve, the held-out bits per byte through
training, statistics of the dynamics at each observed step, and the parameters at a few steps.

`checkpoint_weights(tree, step)` turns a stored parameter vector back into a model's weights.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.experiments import base
from ssmtheory.experiments.base import Plan
from ssmtheory.results.schema import DatasetSchema, Dimension, Variable

if TYPE_CHECKING:
    import xarray as xr

    from ssmtheory.mamba.config import MambaConfig

TITLE = "Training of the embedded byte-level Mamba"
WORKDIR = True
CORPORA = ("tinyshakespeare", "kjv")
VOCABULARY = 256
#: tokens of the statistics at an observed step: windows of each corpus's held-out part
_PROBE_WINDOWS = 16

SCHEMA = DatasetSchema(
    "pretrain",
    1,
    groups={
        "training": {"loss_bits": Variable(("step",), "float32", "bit", "training loss per byte")},
        "heldout": {
            "bits_per_byte": Variable(
                ("observed", "corpus"), "float32", "bit", "held-out loss per byte on windows of the training length"
            ),
            "delta_mean": Variable(("observed", "layer"), "float32", "1", "mean step Delta"),
            "q_positive": Variable(("observed", "layer"), "float32", "1", "fraction of tokens with q(u) > 0"),
            "radial_rate": Variable(("observed", "layer"), "float32", "1", "mean radial rate <r, dr>/|r|^2"),
            "outward": Variable(("observed", "layer"), "float32", "1", "fraction of tokens with radial rate > 0"),
            "residual_norm": Variable(("observed", "depth"), "float32", "1", "mean norm of the residual stream"),
        },
        "final": {
            "streamed_bits_per_byte": Variable(
                ("corpus",), "float64", "bit", "held-out loss per byte, whole text, state carried throughout"
            ),
            "window_bits_per_byte": Variable(
                ("corpus",), "float64", "bit", "held-out loss per byte, whole text, windows of the training length"
            ),
        },
        "baseline": {
            "kneser_ney_bits": Variable(
                ("counted", "corpus"), "float64", "bit", "held-out loss per byte of a Kneser-Ney 5-gram model"
            )
        },
        "checkpoints": {
            "parameters": Variable(("kept", "parameter"), "float32", "1", "parameters, flat, in parameter_shapes order")
        },
    },
    dimensions={
        "observed": Dimension("number of finished optimiser steps"),
        "kept": Dimension("number of finished optimiser steps"),
        "corpus": Dimension("text corpus"),
        "counted": Dimension("training text of the baseline: of both corpora, or of the same corpus alone"),
        "parameter": Dimension("index into the flat parameter vector"),
    },
)


@dataclass(frozen=True)
class Config:
    """Sizes, schedule and mixture; the defaults are those of the embedded model."""

    d_model: int = field(default=112, metadata={"help": "width of the residual stream"})
    n_layer: int = field(default=12, metadata={"help": "number of blocks"})
    d_state: int = field(default=16, metadata={"help": "state size per channel"})
    steps: int = field(default=3000, metadata={"help": "optimiser steps"})
    batch: int = field(default=6, metadata={"help": "windows per step"})
    length: int = field(default=512, metadata={"help": "bytes per window"})
    rate: float = field(default=4e-3, metadata={"help": "peak learning rate of AdamW"})
    warmup: int = field(default=200, metadata={"help": "steps of linear warm-up"})
    decay: float = field(default=0.1, metadata={"help": "weight decay of matrices"})
    shakespeare: float = field(
        default=0.45, metadata={"help": "share of windows from tinyshakespeare, the rest from kjv"}
    )
    seed: int = field(default=0, metadata={"help": "of the initial weights and of the windows"})
    backend: str = field(default="c", metadata={"help": "scan backend: c, torch or auto"})
    threads: int = field(default=1, metadata={"help": "torch threads; part of the result's last bits"})


def observed_steps(steps: int) -> list[int]:
    """Return the numbers of finished steps at which the model is measured: powers of two, sixteenths, and the end.

    >>> observed_steps(64)
    [0, 1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60, 64]
    """
    sixteenths = {steps * i // 16 for i in range(17)}
    powers = {2**i for i in range(steps.bit_length()) if 2**i < steps // 16}
    return sorted(sixteenths | powers)


def kept_steps(steps: int) -> list[int]:
    """Return the observed steps whose parameters are kept: initial, early, middle and final.

    >>> kept_steps(8000)
    [0, 256, 4000, 8000]
    """
    early = 2 ** max(0, (steps // 32).bit_length())
    early = min((s for s in observed_steps(steps) if s > 0), key=lambda s: abs(s - early))
    return sorted({0, early, steps // 2, steps})


def model_config(config: Config) -> MambaConfig:
    """Return the sizes of the model that a configuration trains."""
    from ssmtheory.mamba.config import MambaConfig

    return MambaConfig.mamba1(
        d_model=config.d_model, n_layer=config.n_layer, vocab_size=VOCABULARY, d_state=config.d_state
    )


def plan(config: Config) -> Plan:
    """Resolve the configuration; the inputs are the corpora's hashes."""
    from ssmtheory.data import text

    if config.steps < 16 or config.batch < 1 or config.length < 8:
        raise InputError(f"pretrain needs steps >= 16, batch >= 1 and length >= 8, not {asdict(config)}")
    if not 0 <= config.shakespeare <= 1:
        raise InputError(f"shakespeare is the share of one corpus: between 0 and 1, not {config.shakespeare}")
    sizes = model_config(config)
    return Plan(
        resolved={**asdict(config), "corpora": {name: text.sha256(name) for name in CORPORA}},
        tasks=["train", "baseline"],
        describe={
            "model": f"{sizes.parameters:,} parameters, {config.n_layer} layers of width {config.d_model}",
            "data": f"{config.steps * config.batch * config.length:,} bytes in {config.steps:,} steps",
        },
        result_bytes=4 * sizes.parameters * len(kept_steps(config.steps)),
        context=config,
        task_noun="training run",
        # 0.25 ms a byte: measured on one core of 2021 with the compiled scan at a million parameters
        task_seconds=2.5e-4 * config.steps * config.batch * config.length * sizes.parameters / 1.1e6,
    )


def windows(config: Config, step: int, texts: Mapping[str, np.ndarray]) -> np.ndarray:
    """Draw the windows of one step: (batch, length + 1) bytes as int64, a function of (seed, step) alone."""
    rng = np.random.default_rng([config.seed, 1, step])
    rows = []
    for _ in range(config.batch):
        source = texts[CORPORA[0] if rng.random() < config.shakespeare else CORPORA[1]]
        start = rng.integers(len(source) - config.length)
        rows.append(source[start : start + config.length + 1])
    return np.stack(rows).astype(np.int64)


def run_task(plan: Plan, key: str, workdir: Path) -> dict[str, np.ndarray]:
    """Train the model (`workdir` holds the checkpoint that a killed run goes on from), or count the baseline."""
    if key == "baseline":
        return {"baseline/kneser_ney_bits": _kneser_ney()}
    import torch

    from ssmtheory.data import text
    from ssmtheory.mamba.forward import forward
    from ssmtheory.mamba.initialize import initial_weights
    from ssmtheory.training.loop import Schedule, train

    config: Config = plan.context
    torch.set_num_threads(config.threads)
    sizes = model_config(config)
    weights = {k: torch.tensor(v, requires_grad=True) for k, v in initial_weights(sizes, config.seed).items()}
    train_texts = {name: np.frombuffer(text.split(name).train, dtype=np.uint8) for name in CORPORA}
    heldout = {name: np.frombuffer(text.split(name).heldout, dtype=np.uint8) for name in CORPORA}
    keep = set(kept_steps(config.steps))

    def loss(step: int) -> Any:
        batch = torch.from_numpy(windows(config, step, train_texts))
        logits = forward(weights, sizes, batch[:, :-1], backend=config.backend)
        return torch.nn.functional.cross_entropy(logits.reshape(-1, VOCABULARY), batch[:, 1:].reshape(-1))

    def observe(step: int) -> dict[str, np.ndarray]:
        with torch.no_grad():
            found = _measure(weights, sizes, heldout, config)
            if step in keep:
                found["parameters"] = np.concatenate([w.numpy().ravel() for w in weights.values()])
            if step == config.steps:
                for carried, name in ((True, "streamed"), (False, "window")):
                    found[name] = np.array(
                        [heldout_bits(weights, sizes, heldout[c], config, carried=carried) for c in CORPORA]
                    )
        return found

    progress = train(
        weights,
        loss,
        Schedule(config.steps, config.rate, config.warmup, decay=config.decay),
        workdir=workdir,
        decayed=lambda name: weights[name].ndim == 2 and "A_log" not in name and "embedding" not in name,
        observe=observe,
        observe_at=set(observed_steps(config.steps)),
        report=base.report,
    )
    observed = [progress.observations[step] for step in observed_steps(config.steps)]
    measured = ("bits_per_byte", "delta_mean", "q_positive", "radial_rate", "outward", "residual_norm")
    part = {f"heldout/{name}": np.stack([o[name] for o in observed]) for name in measured}
    part["training/loss_bits"] = (np.array(progress.losses) / np.log(2)).astype(np.float32)
    part["final/streamed_bits_per_byte"] = observed[-1]["streamed"]
    part["final/window_bits_per_byte"] = observed[-1]["window"]
    part["checkpoints/parameters"] = np.stack([o["parameters"] for o in observed if "parameters" in o])
    return part


def _kneser_ney() -> np.ndarray:
    """Held-out bits per byte (counted, corpus) of 5-grams, of both corpora's training parts and of the corpus alone."""
    from ssmtheory.data import text
    from ssmtheory.data.ngram import KneserNey

    splits = [text.split(name) for name in CORPORA]
    both = KneserNey.fit([s.train for s in splits])
    own = [KneserNey.fit([s.train]) for s in splits]
    return np.array(
        [
            [both.bits_per_byte(s.heldout) for s in splits],
            [m.bits_per_byte(s.heldout) for m, s in zip(own, splits, strict=True)],
        ]
    )


def _measure(weights: Any, sizes: MambaConfig, heldout: Any, config: Config) -> dict[str, np.ndarray]:
    """Measure the model on evenly spaced held-out windows: loss, and the dynamics of its layers."""
    import torch

    from ssmtheory.mamba.forward import MixerSignals, forward

    layers = sizes.n_layer
    sums = {name: np.zeros(layers) for name in ("delta_mean", "q_positive", "radial_rate", "outward")}
    norms = np.zeros(layers + 1)

    def tap(layer: int, s: MixerSignals) -> None:
        r, dr = s.residual, s.update
        g = (r * dr).sum(-1) / (r * r).sum(-1)
        sums["delta_mean"][layer] += s.delta.mean().item()
        sums["q_positive"][layer] += ((s.B * s.C).sum(-1) > 0).float().mean().item()
        sums["radial_rate"][layer] += g.mean().item()
        sums["outward"][layer] += (g > 0).float().mean().item()
        norms[layer] += r.norm(dim=-1).mean().item()
        if layer == layers - 1:
            norms[layers] += (r + dr).norm(dim=-1).mean().item()

    bits = []
    for source in heldout.values():
        starts = np.linspace(0, len(source) - config.length - 1, _PROBE_WINDOWS).astype(int)
        rows = np.stack([source[i : i + config.length + 1] for i in starts]).astype(np.int64)
        batch = torch.from_numpy(rows)
        logits = forward(weights, sizes, batch[:, :-1], backend=config.backend, tap=tap)
        nats = torch.nn.functional.cross_entropy(logits.reshape(-1, VOCABULARY), batch[:, 1:].reshape(-1))
        bits.append(nats.item() / np.log(2))
    found = {name: (value / len(heldout)).astype(np.float32) for name, value in sums.items()}
    found["bits_per_byte"] = np.array(bits, dtype=np.float32)
    found["residual_norm"] = (norms / len(heldout)).astype(np.float32)
    return found


def heldout_bits(weights: Any, sizes: MambaConfig, source: np.ndarray, config: Config, *, carried: bool) -> float:
    """Return the bits per byte of a whole text.

    Args:
        source: bytes, uint8.
        carried: the state runs through the whole text (every byte but the first is predicted); otherwise the text is
            cut into windows of the training length, each from a zero state, and each window's first byte is context.
    """
    import torch

    from ssmtheory.mamba.forward import forward

    nats, count = 0.0, 0
    if carried:
        state = None
        for start in range(0, len(source) - 1, 4096):
            piece = torch.from_numpy(source[start : start + 4097].astype(np.int64))[None]
            logits, state = forward(weights, sizes, piece[:, :-1], state, return_state=True, backend=config.backend)
            nats += torch.nn.functional.cross_entropy(logits[0], piece[0, 1:], reduction="sum").item()
            count += piece.shape[1] - 1
    else:
        whole = len(source) // (config.length + 1)
        rows = source[: whole * (config.length + 1)].reshape(whole, config.length + 1).astype(np.int64)
        for start in range(0, whole, 16):
            piece = torch.from_numpy(rows[start : start + 16])
            logits = forward(weights, sizes, piece[:, :-1], backend=config.backend)
            nats += torch.nn.functional.cross_entropy(
                logits.reshape(-1, VOCABULARY), piece[:, 1:].reshape(-1), reduction="sum"
            ).item()
            count += piece[:, 1:].numel()
    return nats / count / float(np.log(2))


def assemble(plan: Plan, parts: Mapping[str, Mapping[str, np.ndarray]]) -> xr.DataTree:
    """Put the arrays of the two tasks into a dataset."""
    import xarray as xr

    part = {**parts["train"], **parts["baseline"]}
    steps = plan.context.steps
    coordinates: dict[str, dict[str, Any]] = {
        "heldout": {"observed": observed_steps(steps), "corpus": list(CORPORA)},
        "final": {"corpus": list(CORPORA)},
        "baseline": {"counted": ["both", "own"], "corpus": list(CORPORA)},
        "checkpoints": {"kept": kept_steps(steps)},
    }
    groups = {}
    for group, variables in SCHEMA.groups.items():
        name = group.strip("/")
        data = {v: (spec.dims, part[f"{name}/{v}"]) for v, spec in variables.items()}
        groups[group] = xr.Dataset(data, coords=coordinates.get(name, {}))
    return xr.DataTree.from_dict(groups)


def checkpoint_weights(tree: xr.DataTree, step: int, config: MambaConfig) -> dict[str, np.ndarray]:
    """Return the weights that a run had after `step` steps.

    Args:
        tree: a dataset of this experiment.
        step: one of its `kept` steps.
        config: the sizes, `model_config(Config(...))`.

    Returns:
        Parameter name to float32 array.

    Raises:
        InputError: the run kept no parameters at that step.
    """
    from ssmtheory.mamba.config import parameter_shapes

    checkpoints = tree["checkpoints"].to_dataset()
    kept = checkpoints["kept"].values.tolist()
    if step not in kept:
        raise InputError(f"no parameters were kept at step {step}: kept steps are {', '.join(map(str, kept))}")
    flat = checkpoints["parameters"].sel(kept=step).values
    weights, start = {}, 0
    for name, shape in parameter_shapes(config).items():
        size = int(np.prod(shape))
        weights[name] = flat[start : start + size].reshape(shape)
        start += size
    return weights


_CARD = """# {name}

A byte-level causal Mamba-1 language model: {parameters:,} parameters, {n_layer} layers of width {d_model}
(d_inner {d_inner}, d_state {d_state}), vocabulary 256. It exists to be taken apart: small enough to analyse in seconds,
deep enough for dynamics through depth to mean something. {which}

| held-out text | windows of {length} bytes | state carried | 5-gram, same text | 5-gram, this corpus |
|---|---|---|---|---|
{rows}

Loss in bits per byte over every byte of the held-out text, of the weights as stored here (float16). "5-gram" is an
interpolated Kneser-Ney model of the same training text, and of this corpus's alone.

- Data: public-domain English, shipped with the package: the plays in tinyshakespeare (last tenth held out) and
  the King James Bible (every tenth chapter held out); {shakespeare:.0%} of the training windows from the first.
- Training: `python -m ssmtheory.experiments.pretrain`, seed {seed}, {steps:,} steps of {batch} windows of {length}
  bytes, of which this model has seen {seen:,} bytes; AdamW at a peak rate of {rate}, float32, scan backend "{backend}",
  {threads} thread. The run's dataset has content sha256 {content}.
{curves}- Weights: float16, original state-spaces layout; sha256 over configuration and tensors
  {sha256}.
- Licence: Apache-2.0 for the weights; the texts are in the public domain.
- Limits: 17th-century English in ASCII only; it knows words, not facts. One seed. Windows of {length} bytes in
  training: what it does over longer distances was not trained. Nothing about it stands for models of another size or
  tokenisation.
"""


_CURVES = """\
- Through training: training.npz holds the loss of every step, and at 25 steps the held-out loss and, by layer,
  the mean step Delta, the fraction of tokens with q > 0, the radial rate and its sign, and the norm of the residual
  stream.
"""


def export_models(tree: xr.DataTree, folder: Path, config: Config, *, name: str, content_sha256: str) -> list[str]:
    """Write the kept checkpoints of a run as model folders in float16, each with a card that states what it reaches.

    Args:
        tree: the run's dataset.
        folder: the models become sub-folders of it: `name` for the final one, `name`-step-K for the others.
        config: of the run.
        name: of the final model.
        content_sha256: of the run's dataset, recorded in the cards.

    Returns:
        The models' names.
    """
    import torch

    from ssmtheory.data import text
    from ssmtheory.mamba.checkpoint import save_checkpoint

    sizes = model_config(config)
    heldout = {c: np.frombuffer(text.split(c).heldout, dtype=np.uint8) for c in CORPORA}
    names = []
    for step in kept_steps(config.steps):
        final = step == config.steps
        names.append(name if final else f"{name}-step-{step}")
        weights = checkpoint_weights(tree, step, sizes)
        stored = {k: torch.from_numpy(v.astype(np.float16).astype(np.float32)) for k, v in weights.items()}
        reached: dict[str, dict[str, float]] = {}
        with torch.no_grad():
            for corpus in CORPORA:
                reached[corpus] = {
                    "window": heldout_bits(stored, sizes, heldout[corpus], config, carried=False),
                    "streamed": heldout_bits(stored, sizes, heldout[corpus], config, carried=True),
                    "kneser_ney_both": float(tree["baseline/kneser_ney_bits"].sel(corpus=corpus, counted="both")),
                    "kneser_ney_own": float(tree["baseline/kneser_ney_bits"].sel(corpus=corpus, counted="own")),
                }
        card = {
            "name": names[-1], "step": step, "training": asdict(config), "run_content_sha256": content_sha256,
            "heldout_bits_per_byte": reached, "data": {c: text.sha256(c) for c in CORPORA}, "licence": "Apache-2.0",
        }  # fmt: skip
        save_checkpoint(folder / names[-1], sizes, weights, dtype="float16", card=card)
        write_card(folder / names[-1])
    curves: dict[str, Any] = {"heldout/observed": np.array(observed_steps(config.steps))}
    for group in ("training", "heldout"):
        curves |= {f"{group}/{v}": tree[f"{group}/{v}"].to_numpy() for v in SCHEMA.groups[f"/{group}"]}
    np.savez_compressed(folder / name / "training.npz", **curves)
    return names


def write_card(folder: Path) -> None:
    """Write a model's README.md from its card.json: what it is, what it reaches, and how it came about."""
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    config, step = Config(**card["training"]), card["step"]
    sizes = model_config(config)
    final = step == config.steps
    rows = [
        f"| {c} | " + " | ".join(f"{v:.4f}" for v in r.values()) + " |"
        for c, r in card["heldout_bits_per_byte"].items()
    ]
    readme = _CARD.format(
        **asdict(config), name=card["name"], parameters=sizes.parameters, d_inner=sizes.d_inner, rows="\n".join(rows),
        which="The trained model." if final else f"A checkpoint of its training, after {step} of {config.steps} steps.",
        seen=step * config.batch * config.length, content=card["run_content_sha256"], sha256=card["sha256"],
        curves=_CURVES if final else "",
    )  # fmt: skip
    (folder / "README.md").write_text(readme, encoding="utf-8")


def verdict(tree: xr.DataTree) -> list[str]:
    """Say what the trained model reaches."""
    lines = []
    for corpus in CORPORA:
        streamed = float(tree["final/streamed_bits_per_byte"].sel(corpus=corpus))
        both, own = (float(tree["baseline/kneser_ney_bits"].sel(corpus=corpus, counted=c)) for c in ("both", "own"))
        window = float(tree["final/window_bits_per_byte"].sel(corpus=corpus))
        lines.append(
            f"held-out {corpus}: {window:.4f} bits per byte on windows of the training length, "
            f"{streamed:.4f} with the state carried through the whole text (measured, every byte); "
            f"Kneser-Ney 5-grams of the same training text reach {both:.4f}, of this corpus alone {own:.4f}"
        )
    return lines


def run(config: Config) -> xr.DataTree:
    """Train and return the dataset; `python -m ssmtheory.experiments.pretrain` does the same, resumably."""
    return base.run(sys.modules[__name__], config)


if __name__ == "__main__":
    from ssmtheory.runner import main

    raise SystemExit(main("pretrain"))
