"""Two refinements of Mamba, tested: a constrained input-output matrix, and tokens reordered by importance.

Vo et al., arXiv 2410.03292, propose both. Small models are trained on real data with equal budgets: within one seed all
variants share the initial values of everything they have in common, the batches, the steps and the learning rate.

| group | does it help | data | decided on |
|---|---|---|---|
| parametrisation | a language model that M = S_C^T S_B is constrained? | bytes of a corpus | held-out bits per byte |
| reordering | a classifier that its tokens are reordered? | images, read pixel by pixel | test accuracy |

Each is decided against the first variant of its group, "free" and "off".

The variants are those of `ssmtheory.mamba.parametrisation` and `ssmtheory.mamba.reordering`. The authors' code has no
unconstrained baseline; "tied" tells the effect of the tie S_B ~ S_C from that of the sign.

The test is paired over seeds: with k of them, the exact two-sided sign-flip permutation test of the mean difference has
no p-value below 2^(1-k), which the dataset states, and Holm's correction goes over the variants of a group. Bootstrap
intervals over few seeds are too narrow; they show size, the permutation test decides.

Reordering reads the whole sequence before the first output: `reordering/leak` is the share of the gradient of the first
token's update that falls on later tokens. It is 0 in a causal model, so that "reordering" trains classifiers only.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmtheory.data.images import NAMES, ImageSet, load_images
from ssmtheory.errors import ConfigError
from ssmtheory.experiments import base
from ssmtheory.experiments._intervals import PairedTest, holm, paired_test
from ssmtheory.mamba.parametrisation import PARAMETRISATIONS
from ssmtheory.mamba.reordering import METHODS
from ssmtheory.results.schema import DatasetSchema, Dimension, Variable

if TYPE_CHECKING:
    import xarray as xr

    from ssmtheory.mamba.config import MambaConfig

__all__ = [
    "SCHEMA", "TITLE", "Config", "PairedTest", "assemble", "holm", "paired_test", "plan", "run",
    "run_task", "sequences", "verdict",
]  # fmt: skip

TITLE = "Constrained input-output matrices and reordering by importance, trained and tested"
WORKDIR = True
BYTES = 256
LEVELS = 17  # grey levels 0 to 16 of scikit-learn's digits
SIDE = 8
CLASSES = 10


def _f(dims: tuple[str, ...], units: str, long_name: str, kind: str = "float64") -> Variable:
    # optional: a run may leave out one of the two parts
    return Variable(dims, kind, units, long_name, optional=True)


def _tests(of: str, variants: str, units: str) -> dict[str, Variable]:
    return {
        f"{of}_difference": _f((variants,), units, f"mean over seeds of {of} minus the baseline's"),
        f"{of}_low": _f((variants,), units, "lower end of the 95 % bootstrap interval over seeds"),
        f"{of}_high": _f((variants,), units, "upper end of the 95 % bootstrap interval over seeds"),
        f"{of}_p": _f((variants,), "1", "exact two-sided sign-flip permutation test over seeds"),
        f"{of}_p_holm": _f((variants,), "1", "the same after Holm's correction over the variants"),
    }


_ONE, _LAYER = ("parametrisation", "seed"), ("parametrisation", "seed", "layer")
_ORDER = ("reordering", "seed")

SCHEMA = DatasetSchema(
    "refinements",
    1,
    groups={
        "parametrisation": {
            "training_bits": _f((*_ONE, "step"), "bit", "training loss per byte", "float32"),
            "heldout_bits": _f((*_ONE, "observed"), "bit", "held-out loss per byte"),
            "q_positive": _f((*_LAYER, "observed"), "1", "fraction of held-out tokens with q(u) > 0"),
            "outward": _f((*_LAYER, "observed"), "1", "fraction of held-out tokens with radial rate g > 0"),
            "q_kappa": _f((*_ONE, "observed"), "1", "agreement of sign q with sign g beyond chance, layers pooled"),
            "norm_rate": _f((*_ONE, "observed"), "1/layer", "mean over tokens of ln |r_K|/|r_0| per layer"),
            "delta_mean": _f((*_LAYER, "observed"), "1", "mean step Delta"),
            "antisymmetric": _f((*_LAYER, "observed"), "1", "share of |M|_F^2 in the antisymmetric part of M"),
            "positive_eigenvalues": _f((*_LAYER, "observed"), "1", "number of positive eigenvalues of M_sym", "int32"),
            "negative_eigenvalues": _f((*_LAYER, "observed"), "1", "number of negative eigenvalues of M_sym", "int32"),
            "live_parameters": _f(("parametrisation",), "1", "raw numbers of a layer that reach S_B or S_C", "int64"),
            "dead_parameters": _f(("parametrisation",), "1", "raw numbers of a layer that reach nothing", "int64"),
            "model_parameters": _f((), "1", "stored parameters of the model of the variant free", "int64"),
        },
        "reordering": {
            "training_bits": _f((*_ORDER, "step"), "bit", "training loss per image", "float32"),
            "test_accuracy": _f(_ORDER, "1", "fraction of test images classified correctly"),
            "test_bits": _f(_ORDER, "bit", "test loss per image"),
            "leak": _f(_ORDER, "1", "share of |d y_0/d x_j|^2, summed over j, at j > 0; first layer, trained"),
            "leak_to_5": _f(_ORDER, "1", "|d y_0/d x_5| over |d y_0/d x_0|; first layer, trained"),
            "largest_weight": _f(_ORDER, "1", "mean over rows of the largest entry of Pi; 1 for a permutation"),
            "column_spread": _f(_ORDER, "1", "standard deviation of the column sums of Pi; 0 for a permutation"),
        },
        "parametrisation_test": {
            **_tests("heldout_bits", "parametrisation", "bit"),
            **_tests("norm_rate", "parametrisation", "1/layer"),
        },
        "reordering_test": {
            **_tests("test_accuracy", "reordering", "1"),
            **_tests("test_bits", "reordering", "bit"),
        },
    },
    dimensions={
        "parametrisation": Dimension("parametrisation of the input-output matrix"),
        "reordering": Dimension("reordering of tokens"),
        "observed": Dimension("number of finished optimiser steps"),
    },
)


@dataclass(frozen=True)
class Config:
    """Variants, seeds, sizes and budgets of the two parts."""

    parametrisations: tuple[str, ...] = field(
        default=PARAMETRISATIONS, metadata={"help": "of the input-output matrix; the first one is the baseline"}
    )
    reorderings: tuple[str, ...] = field(
        default=METHODS, metadata={"help": "of the tokens; the first one is the baseline"}
    )
    seeds: int = field(default=8, metadata={"help": "training runs of each variant"})
    corpus: str = field(default="tinyshakespeare", metadata={"help": "embedded corpus of the language models"})
    d_model: int = field(default=48, metadata={"help": "width of the language models"})
    n_layer: int = field(default=3, metadata={"help": "blocks of the language models"})
    d_state: int = field(default=16, metadata={"help": "states per channel, in both parts"})
    length: int = field(default=128, metadata={"help": "bytes per window"})
    batch: int = field(default=8, metadata={"help": "windows per step"})
    steps: int = field(default=100, metadata={"help": "optimiser steps of the language models"})
    rate: float = field(default=1e-2, metadata={"help": "peak learning rate of AdamW, in both parts"})
    heldout: int = field(default=64, metadata={"help": "held-out windows"})
    images: str = field(
        default="digits",
        metadata={"help": f"one of {', '.join(NAMES)}: grey, means down to 8 x 8; ssmtheory.data.images says whence"},
    )
    image_d_model: int = field(default=32, metadata={"help": "width of the classifiers"})
    image_layers: int = field(default=2, metadata={"help": "blocks of the classifiers"})
    image_batch: int = field(default=16, metadata={"help": "images per step"})
    image_steps: int = field(default=100, metadata={"help": "optimiser steps of the classifiers"})
    tau: float = field(default=1.0, metadata={"help": "temperature of the relaxed sort"})
    power: float = field(default=1.0, metadata={"help": "exponent p of the relaxed sort"})
    backend: str = field(default="c", metadata={"help": "scan backend: c, torch or auto"})


# ---------------------------------------------------------------------------------------------------- the data


def sequences(images: ImageSet) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Training and test images as sequences of grey levels: each (image, 64) int64 of 0 to 16, and (image,) labels."""
    return (images.train.levels(LEVELS), images.train.labels), (images.test.levels(LEVELS), images.test.labels)


# ---------------------------------------------------------------------------------------------------- the plan


def observed_steps(steps: int) -> list[int]:
    """Numbers of finished steps at which a language model is measured: the start, the middle and the end."""
    return sorted({0, steps // 2, steps})


def text_sizes(config: Config) -> MambaConfig:
    """Sizes of the language models."""
    from ssmtheory.mamba.config import MambaConfig

    return MambaConfig.mamba1(d_model=config.d_model, n_layer=config.n_layer, vocab_size=BYTES, d_state=config.d_state)


def image_sizes(config: Config) -> MambaConfig:
    """Sizes of the classifiers; their vocabulary is the grey levels."""
    from ssmtheory.mamba.config import MambaConfig

    return MambaConfig.mamba1(
        d_model=config.image_d_model, n_layer=config.image_layers, vocab_size=LEVELS, d_state=config.d_state
    )


@dataclass
class _Context:
    config: Config
    images: Any


def plan(config: Config) -> base.Plan:
    """Check the options and name the training runs, seed by seed.

    Raises:
        ConfigError: an option has an impossible value.
        InputError, MissingDependencyError: from `load_images`.
    """
    from ssmtheory.data import text

    for option, allowed in (("parametrisations", PARAMETRISATIONS), ("reorderings", METHODS)):
        chosen = getattr(config, option)
        wrong = [name for name in chosen if name not in allowed]
        if wrong or len(set(chosen)) < len(chosen):
            raise ConfigError(f"--{option} {', '.join(chosen)}: each of {', '.join(allowed)} at most once")
    if not config.parametrisations and not config.reorderings:
        raise ConfigError("--parametrisations and --reorderings are both empty: nothing to train")
    if not 1 <= config.seeds <= 20:
        raise ConfigError(
            f"--seeds {config.seeds}: must lie between 1 and 20, the sign-flip test takes all 2^seeds flips"
        )
    for option, least in (("steps", 16), ("image_steps", 16), ("length", 8), ("batch", 1), ("image_batch", 1),
                          ("heldout", 2)):  # fmt: skip
        if getattr(config, option) < least:
            raise ConfigError(f"--{option} {getattr(config, option)}: must be an integer >= {least}")
    if config.images not in NAMES:
        raise ConfigError(f"--images {config.images}: must be one of {', '.join(NAMES)}")
    images = load_images(config.images, side=SIDE) if config.reorderings else None
    # the digits come with scikit-learn; what a mirror holds under a name may be a part of the published set
    which = {} if images is None or config.images == "digits" else {"images_sha256": images.sha256}
    tasks = []
    for seed in range(config.seeds):
        tasks += [f"text-{seed:02d}-{name}" for name in config.parametrisations]
        tasks += [f"image-{seed:02d}-{name}" for name in config.reorderings]
    numbers = config.steps * (len(config.parametrisations) + 1) + config.image_steps * (len(config.reorderings) + 1)
    return base.Plan(
        resolved={**asdict(config), "corpus_sha256": text.sha256(config.corpus), **which},
        tasks=tasks,
        describe={
            "language models": f"{len(config.parametrisations)} parametrisations x {config.seeds} seeds, "
            f"{text_sizes(config).parameters:,} parameters, {config.steps * config.batch * config.length:,} bytes each",
            "classifiers": f"{len(config.reorderings)} reorderings x {config.seeds} seeds, "
            f"{image_sizes(config).parameters:,} parameters, {config.image_steps * config.image_batch:,} images each",
        },
        result_bytes=4 * config.seeds * numbers,
        context=_Context(config, None if images is None else sequences(images)),
        task_noun="training run",
    )


def run_task(plan: base.Plan, key: str, workdir: Path) -> dict[str, np.ndarray]:
    """Train and measure one model (`workdir` holds the checkpoint that a killed run goes on from)."""
    import torch

    torch.set_num_threads(1)
    part, seed, variant = key.split("-", 2)
    if part == "text":
        return _train_text(plan.context.config, variant, int(seed), workdir)
    return _train_images(plan.context, variant, int(seed), workdir)


# ---------------------------------------------------------------------------------------------------- language models


def text_windows(config: Config, seed: int, step: int, source: np.ndarray) -> np.ndarray:
    """Windows of one step, (batch, length + 1) int64: a function of (seed, step) alone, the same for all variants."""
    starts = np.random.default_rng([seed, 1, step]).integers(len(source) - config.length, size=config.batch)
    return np.stack([source[i : i + config.length + 1] for i in starts]).astype(np.int64)


_X_PROJ = "mixer.x_proj.weight"


def text_parameters(config: Config, variant: str, seed: int) -> dict[str, np.ndarray]:
    """Initial values of what is trained: a model's weights with the raw parameters in place of each x_proj.weight.

    Everything but S_B and S_C has the same values in all variants of a seed.
    """
    from ssmtheory.mamba.initialize import initial_weights
    from ssmtheory.mamba.parametrisation import raw_parameters

    made: dict[str, np.ndarray] = {}
    for layer, (name, value) in enumerate(initial_weights(text_sizes(config), seed).items()):
        if name.endswith(_X_PROJ):
            raw = raw_parameters(variant, value, config.d_state, seed=1000 * seed + layer)
            made |= {name.removesuffix("weight") + key: array for key, array in raw.items()}
        else:
            made[name] = value
    return made


def text_weights(variant: str, parameters: Mapping[str, Any], n_layer: int) -> dict[str, Any]:
    """The weights that the forward pass takes, from the trained parameters."""
    from ssmtheory.mamba.parametrisation import x_proj_weight

    weights = dict(parameters)
    for layer in range(n_layer):
        prefix = f"backbone.layers.{layer}.{_X_PROJ}".removesuffix("weight")
        raw = {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)}
        weights[prefix + "weight"] = x_proj_weight(variant, raw)
    return weights


def _train_text(config: Config, variant: str, seed: int, workdir: Path) -> dict[str, np.ndarray]:
    import torch

    from ssmtheory.data import text
    from ssmtheory.mamba.forward import forward
    from ssmtheory.training.loop import Schedule, train

    sizes = text_sizes(config)
    split = text.split(config.corpus)
    train_text, heldout = (np.frombuffer(part, dtype=np.uint8) for part in (split.train, split.heldout))
    parameters = {k: torch.tensor(v, requires_grad=True) for k, v in text_parameters(config, variant, seed).items()}

    def loss(step: int) -> Any:
        batch = torch.from_numpy(text_windows(config, seed, step, train_text))
        weights = text_weights(variant, parameters, sizes.n_layer)
        logits = forward(weights, sizes, batch[:, :-1], backend=config.backend)
        return torch.nn.functional.cross_entropy(logits.reshape(-1, BYTES), batch[:, 1:].reshape(-1))

    def observe(step: int) -> dict[str, np.ndarray]:
        with torch.no_grad():
            return measure_text(text_weights(variant, parameters, sizes.n_layer), sizes, heldout, config)

    observed = observed_steps(config.steps)
    progress = train(
        parameters, loss, Schedule(config.steps, config.rate, config.steps // 10),
        workdir=workdir, decayed=_decayed(parameters), observe=observe, observe_at=set(observed), report=base.report,
    )  # fmt: skip
    found = [progress.observations[step] for step in observed]
    part = {name: np.stack([f[name] for f in found], axis=-1) for name in found[0]}
    part["training_bits"] = (np.array(progress.losses) / math.log(2)).astype(np.float32)
    return part


def _decayed(parameters: Mapping[str, Any]) -> Any:
    return lambda name: parameters[name].ndim == 2 and "A_log" not in name and "embedding" not in name


def measure_text(weights: Any, sizes: MambaConfig, heldout: np.ndarray, config: Config) -> dict[str, np.ndarray]:
    """Held-out bits per byte and the dynamics of all layers, on evenly spaced windows."""
    import torch

    from ssmtheory.dynamics.concordance import concordance
    from ssmtheory.dynamics.input_output import symmetric_eigenvalues, token_q
    from ssmtheory.mamba.forward import MixerSignals, forward

    starts = np.linspace(0, len(heldout) - config.length - 1, config.heldout).astype(int)
    rows = np.stack([heldout[i : i + config.length + 1] for i in starts]).astype(np.int64)
    signs: dict[str, list[np.ndarray]] = {"q": [], "g": []}
    delta, ends = [], []

    def tap(layer: int, s: MixerSignals) -> None:
        r, dr = s.residual, s.update
        signs["q"].append(token_q(s.B.numpy(), s.C.numpy()))
        signs["g"].append(((r * dr).sum(-1) / (r * r).sum(-1)).numpy())
        delta.append(s.delta.mean().item())
        if layer == 0:
            ends.append(r.norm(dim=-1))
        if layer == sizes.n_layer - 1:
            ends.append((r + dr).norm(dim=-1))

    batch = torch.from_numpy(rows)
    logits = forward(weights, sizes, batch[:, :-1], backend=config.backend, tap=tap)
    nats = torch.nn.functional.cross_entropy(logits.reshape(-1, BYTES), batch[:, 1:].reshape(-1)).item()
    q, g = (np.stack(signs[name], axis=1) for name in ("q", "g"))  # (sequence, layer, token)
    found: dict[str, Any] = {
        "heldout_bits": nats / math.log(2),
        "q_positive": (q > 0).mean(axis=(0, 2)),
        "outward": (g > 0).mean(axis=(0, 2)),
        "q_kappa": concordance(q, g, resamples=1, most_permutations=1).kappa,
        "norm_rate": (ends[1] / ends[0]).log().mean().item() / sizes.n_layer,
        "delta_mean": delta,
    }
    matrices = []
    for layer in range(sizes.n_layer):
        rows_of = weights[f"backbone.layers.{layer}.{_X_PROJ}"].double().numpy()[sizes.dt_rank :]
        s_b, s_c = rows_of[: sizes.d_state], rows_of[sizes.d_state :]
        values = symmetric_eigenvalues(s_b, s_c)
        # beyond the rounding of float32 weights in a 2N x 2N eigenproblem
        floor = 1e-5 * np.abs(values).max()
        matrices.append((antisymmetric_share(s_b, s_c), int((values > floor).sum()), int((values < -floor).sum())))
    found["antisymmetric"], found["positive_eigenvalues"], found["negative_eigenvalues"] = zip(*matrices, strict=True)
    return {name: np.asarray(value) for name, value in found.items()}


def antisymmetric_share(s_b: np.ndarray, s_c: np.ndarray) -> float:
    """Share of |M|_F^2, M = S_C^T S_B, in its antisymmetric part, from N x N matrices.

    >>> antisymmetric_share(np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]]))         # M = e_1 e_2^T
    0.5
    """
    total = float(np.sum((s_b @ s_b.T) * (s_c @ s_c.T)))
    small = s_b @ s_c.T
    return float((total - np.sum(small * small.T)) / (2 * total))


# ---------------------------------------------------------------------------------------------------- classifiers


def image_parameters(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Initial values of a classifier: the same in all reorderings of a seed."""
    from ssmtheory.mamba.initialize import initial_weights

    sizes = image_sizes(config)
    made = dict(initial_weights(sizes, seed))
    rng = np.random.default_rng([seed, 4])
    # grey levels start in their order, along one direction; a sorted token keeps its place in the image
    grey = np.linspace(-1.0, 1.0, LEVELS)[:, None] * rng.standard_normal(sizes.d_model)
    made["backbone.embedding.weight"] = grey.astype(np.float32)
    made["position.embedding.weight"] = rng.standard_normal((SIDE**2, sizes.d_model)).astype(np.float32)
    bound = sizes.d_inner**-0.5
    for layer in range(sizes.n_layer):
        made[f"backbone.layers.{layer}.mixer.order.weight"] = rng.uniform(-bound, bound, sizes.d_inner).astype(
            np.float32
        )
    bound = sizes.d_model**-0.5
    made["head.weight"] = rng.uniform(-bound, bound, (CLASSES, sizes.d_model)).astype(np.float32)
    made["head.bias"] = np.zeros(CLASSES, np.float32)
    return made


def classify(
    weights: Mapping[str, Any], sizes: MambaConfig, levels: Any, config: Config, method: str, permutation: Any,
    watch: Any = None,
) -> Any:  # fmt: skip
    """Logits (image, class) of images (image, 64): blocks, a norm, the mean over positions, a linear head."""
    from ssmtheory.mamba.forward import linear
    from ssmtheory.mamba.reordering import reordered_mixer
    from ssmtheory.scan import rms_norm

    residual = weights["backbone.embedding.weight"][levels] + weights["position.embedding.weight"]
    for layer in range(sizes.n_layer):
        prefix = f"backbone.layers.{layer}."
        hidden = rms_norm(residual, weights[prefix + "norm.weight"], eps=sizes.norm_eps)
        residual = residual + reordered_mixer(
            hidden, _below(weights, prefix + "mixer."), sizes, method, tau=config.tau, power=config.power,
            permutation=permutation, backend=config.backend, watch=watch,
        )  # fmt: skip
    pooled = rms_norm(residual, weights["backbone.norm_f.weight"], eps=sizes.norm_eps).mean(axis=1)
    return linear(pooled, weights["head.weight"], weights["head.bias"])


def _below(weights: Mapping[str, Any], prefix: str) -> Any:
    return lambda name: weights.get(prefix + name)


def _train_images(context: _Context, method: str, seed: int, workdir: Path) -> dict[str, np.ndarray]:
    import torch

    from ssmtheory.training.loop import Schedule, train

    config, sizes = context.config, image_sizes(context.config)
    (images, labels), (test_images, test_labels) = context.images
    images, labels, test_images, test_labels = (
        torch.from_numpy(np.ascontiguousarray(a)) for a in (images, labels, test_images, test_labels)
    )
    parameters = {k: torch.tensor(v, requires_grad=True) for k, v in image_parameters(config, seed).items()}
    shuffled = np.random.default_rng([seed, 5]).permutation(SIDE**2)
    permutation = torch.eye(SIDE**2)[torch.from_numpy(shuffled)]

    def loss(step: int) -> Any:
        chosen = torch.from_numpy(np.random.default_rng([seed, 6, step]).integers(len(images), size=config.image_batch))
        logits = classify(parameters, sizes, images[chosen], config, method, permutation)
        # a parameter that a method does not read has no gradient, not one that is missing
        unread = sum((p.sum() for name, p in parameters.items() if "order" in name), torch.zeros(()))
        return torch.nn.functional.cross_entropy(logits, labels[chosen]) + 0 * unread

    def observe(step: int) -> dict[str, np.ndarray]:
        if step == 0:
            return {}
        pieces: list[Any] = []
        sorts: list[Any] = []
        with torch.no_grad():
            for start in range(0, len(test_images), 128):
                piece = test_images[start : start + 128]
                pieces.append(classify(parameters, sizes, piece, config, method, permutation, sorts.append))
        logits = torch.cat(pieces)
        found = {
            "test_accuracy": (logits.argmax(-1) == test_labels).double().mean().item(),
            "test_bits": torch.nn.functional.cross_entropy(logits, test_labels).item() / math.log(2),
            "largest_weight": float(np.mean([s.amax(-1).mean().item() for s in sorts])) if sorts else 1.0,
            "column_spread": float(np.mean([s.sum(1).std(correction=0).item() for s in sorts])) if sorts else 0.0,
        }
        energy = first_update_gradients(parameters, sizes, test_images[:16], config, method, permutation)
        found["leak"] = float(energy[1:].sum() / energy.sum())
        found["leak_to_5"] = float(np.sqrt(energy[5] / energy[0])) if energy[0] > 0 else math.nan
        return {name: np.asarray(value) for name, value in found.items()}

    progress = train(
        parameters, loss, Schedule(config.image_steps, config.rate, config.image_steps // 10),
        workdir=workdir, decayed=_decayed(parameters), observe=observe, observe_at={0, config.image_steps},
        report=base.report,
    )  # fmt: skip
    part = dict(progress.observations[config.image_steps])
    part["training_bits"] = (np.array(progress.losses) / math.log(2)).astype(np.float32)
    return part


def first_update_gradients(
    weights: Mapping[str, Any], sizes: MambaConfig, levels: Any, config: Config, method: str, permutation: Any
) -> np.ndarray:
    """|d y_0/d x_j|_F^2 for every position j: the first layer's update at position 0 by its input, mean over images."""
    import torch

    from ssmtheory.mamba.reordering import reordered_mixer
    from ssmtheory.scan import rms_norm

    fixed = {name: value.detach() for name, value in weights.items()}
    x = fixed["backbone.embedding.weight"][levels] + fixed["position.embedding.weight"]
    x.requires_grad_(True)
    hidden = rms_norm(x, fixed["backbone.layers.0.norm.weight"], eps=sizes.norm_eps)
    update = reordered_mixer(
        hidden, _below(fixed, "backbone.layers.0.mixer."), sizes, method, tau=config.tau, power=config.power,
        permutation=permutation, backend=config.backend,
    )  # fmt: skip
    energy = np.zeros(levels.shape[1])
    for feature in range(sizes.d_model):
        (gradient,) = torch.autograd.grad(update[:, 0, feature].sum(), x, retain_graph=True)
        energy += (gradient.double() ** 2).sum(-1).mean(0).numpy()
    return energy


# ---------------------------------------------------------------------------------------------------- the dataset


def assemble(plan: base.Plan, parts: Mapping[str, Mapping[str, np.ndarray]]) -> xr.DataTree:
    """Put the training runs together and test every variant against the first."""
    import xarray as xr

    from ssmtheory.mamba.parametrisation import live_parameters

    config: Config = plan.context.config
    seeds = np.arange(config.seeds)
    groups: dict[str, xr.Dataset] = {}
    for part, group, variants in (
        ("text", "parametrisation", config.parametrisations), ("image", "reordering", config.reorderings),
    ):  # fmt: skip
        if not variants:
            continue
        labels = np.array(variants, dtype=object)
        coords: dict[str, Any] = {group: labels, "seed": seeds}
        data: dict[str, Any] = {}
        first = parts[f"{part}-00-{variants[0]}"]
        for name in first:
            values = [[parts[f"{part}-{s:02d}-{v}"][name] for s in seeds] for v in variants]
            dims = SCHEMA.groups[f"/{group}"][name].dims
            data[name] = (dims, np.array(values).astype(SCHEMA.groups[f"/{group}"][name].dtype))
        if part == "text":
            sizes = text_sizes(config)
            counts = np.array([live_parameters(v, config.d_state, sizes.d_inner) for v in variants], np.int64)
            data |= {
                "live_parameters": ((group,), counts[:, 0]),
                "dead_parameters": ((group,), counts[:, 1]),
                "model_parameters": ((), np.int64(sizes.parameters)),
            }
            coords |= {"observed": observed_steps(config.steps), "layer": np.arange(sizes.n_layer)}
        groups[group] = xr.Dataset(data, coords=coords)
        tested: dict[str, Any] = {}
        for name in ("heldout_bits", "norm_rate") if part == "text" else ("test_accuracy", "test_bits"):
            decided = np.asarray(data[name][1], np.float64)
            decided = decided[..., -1] if part == "text" else decided
            results = [paired_test(row - decided[0]) for row in decided]
            p = np.array([r.p for r in results])
            corrected = np.ones(len(p))
            corrected[1:] = holm(p[1:])
            for key, column in (
                ("difference", [r.mean for r in results]), ("low", [r.low for r in results]),
                ("high", [r.high for r in results]), ("p", p), ("p_holm", corrected),
            ):  # fmt: skip
                tested[f"{name}_{key}"] = ((group,), np.array(column, np.float64))
        groups[f"{group}_test"] = xr.Dataset(tested, coords={group: labels})
    return xr.DataTree.from_dict(groups)


def verdict(tree: xr.DataTree) -> list[str]:
    """Say what every variant changed, how surely, and what a test with so few seeds can say at all."""
    sentences = []
    for group, name, unit, scale in (
        ("parametrisation", "heldout_bits", "bit/byte", 1.0), ("reordering", "test_accuracy", "points", 100.0),
    ):  # fmt: skip
        if group not in tree.children:
            continue
        data, test = tree[group].to_dataset(), tree[f"{group}_test"].to_dataset()
        values = data[name].values[..., -1] if "observed" in data[name].dims else data[name].values
        variants, seeds = [str(v) for v in data[group].values], values.shape[1]
        spread = values.std(axis=1, ddof=1) if seeds > 1 else np.full(len(values), math.nan)
        sentences.append(
            f"{group}: baseline {variants[0]} has {name} {scale * values[0].mean():.4g} "
            f"(sd {scale * spread[0]:.2g} over {seeds} seeds). "
            f"No p-value of {seeds} seeds lies below {2.0 ** (1 - seeds):.2g}."
        )
        for i, variant in enumerate(variants[1:], start=1):
            found = {k: float(test[f"{name}_{k}"].values[i]) for k in ("difference", "low", "high", "p", "p_holm")}
            said = "differs" if found["p_holm"] <= 0.05 else "no difference shown"
            sentences.append(
                f"{variant}: {said}: {scale * found['difference']:+.3g} {unit} [{scale * found['low']:+.3g}, "
                f"{scale * found['high']:+.3g}], p {found['p']:.2g}, Holm {found['p_holm']:.2g}."
            )
    if "parametrisation" in tree.children:
        data = tree["parametrisation"].to_dataset()
        at = data["q_positive"].values[..., -1].mean(axis=(1, 2))
        kappa = data["q_kappa"].values[..., -1].mean(axis=1)
        listed = ", ".join(
            f"{v} {p:.2f} ({k:+.3f})" for v, p, k in zip(data["parametrisation"].values, at, kappa, strict=True)
        )
        test = tree["parametrisation_test"].to_dataset()
        listed_norms = ", ".join(
            f"{v} {float(test.norm_rate_difference[i]):+.3f} (Holm {float(test.norm_rate_p_holm[i]):.2g})"
            for i, v in enumerate(data["parametrisation"].values)
            if i
        )
        norm = data["norm_rate"].values[0, :, -1].mean()
        sentences.append(
            f"Growth of the residual's norm, ln |r_K|/|r_0| per layer, {norm:.3f} in the baseline; difference to it: "
            f"{listed_norms}. Exploratory: not what the runs were made to decide."
        )
        sentences.append(f"Fraction of tokens with q > 0 after training (kappa of sign q and sign g): {listed}.")
    if "reordering" in tree.children:
        data = tree["reordering"].to_dataset()
        leak = data["leak"].values.mean(axis=1)
        listed = ", ".join(f"{v} {x:.2f}" for v, x in zip(data["reordering"].values, leak, strict=True))
        sentences.append(f"Share of the gradient of the first token's update that falls on later tokens: {listed}.")
    return sentences


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

    raise SystemExit(main("refinements"))
