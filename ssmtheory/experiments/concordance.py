"""Does any sign of the theory predict whether tokens move outwards: at initialisation, in training, in other models?

Per layer and token the radial rate splits exactly, g = g_skip + g_self + g_hist + g_bias with g_self = q A_Delta
(`ssmtheory.dynamics.depth`). The sign of each predictor below is held against the sign of g
(`ssmtheory.dynamics.concordance`: agreement beyond the margins, with a bootstrap over texts, texts permuted, and for
predictors without W_out a sign test over layers).

| predictor | what it is |
|---|---|
| q | C_t . B_t, the theory's criterion (arXiv 2410.03292) |
| kappa_m | channel mean of C_t exp(A sum Delta) B_{t-m}, the kernel at lag m |
| q R | the depth equation with a linear value path W, r' = q Delta W r: sign g = sign q sign R, R = <r, W r>/|r|^2 |
| A_Delta, g_skip, g_self, g_hist, g_self+g_hist | terms of g itself: what decides, not predictions |

W of "q R" is the layer's own path at lag zero, W_out diag(w_0) W_x diag(norm), w_0 the convolution's tap at the token
itself: what is left of the block without SiLU, gate, skip and the past. The layer has all four; that is the test.

Beside them, by layer: the base rate of the sign of g, chi (tokens whose sign of g another S_B and S_C could change),
shares of the variance of g, and rates at finite depth beside t_c = 1/(2 |q| Delta). Models are measured on the same
text; one with fewer layers has NaN beyond them.

The block kws10 (a trained keyword spotter of one causal Mamba mixer, no residual stream and no norm) is taken as if its
input were the residual: its g is hypothetical. It has one utterance, so its "sequences" are pieces of ten frames.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmtheory.dynamics import concordance, depth, input_output
from ssmtheory.errors import ConfigError, InputError
from ssmtheory.experiments import base, token_dynamics
from ssmtheory.experiments._intervals import measured, said
from ssmtheory.results.schema import DatasetSchema, Dimension, Variable

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["BLOCK", "MODELS", "PARTS", "SCHEMA", "TITLE", "Config", "assemble", "measure", "plan", "predictors", "run",
           "run_task", "verdict"]  # fmt: skip

TITLE = "Signs that should predict what tokens do, tested on several models"

MODELS = ("shakespeare-1m-step-0", "shakespeare-1m-step-128", "shakespeare-1m-step-1500", "shakespeare-1m")
BLOCK = "kws10"
PARTS = ("skip", "self", "hist", "bias")
#: predictors whose sign does not contain W_out: only for them the signs of layers are fair coins at initialisation
_FREE_OF_OUT = ("q", "kappa")
_PIECE = 10  # frames of a "sequence" of the block

_EVIDENCE = {"flag_values": [0, 1], "flag_meanings": "no_evidence evidence"}


def _f(dims: tuple[str, ...], units: str, long_name: str) -> Variable:
    return Variable(dims, "float64", units, long_name)


_M, _ML, _MP, _MLP = ("model",), ("model", "layer"), ("model", "predictor"), ("model", "layer", "predictor")

SCHEMA = DatasetSchema(
    "concordance",
    1,
    groups={
        "models": {
            "sha256": Variable(_M, "str", "1", "sha256 of the model's weights"),
            "kind": Variable(_M, "str", "1", "language model, or block without a residual stream"),
            "layers": Variable(_M, "int32", "1", "layers of the model"),
            "sequences": Variable(_M, "int32", "1", "sequences (of the block: pieces of one utterance)"),
            "training_step": _f(_M, "1", "optimiser steps taken (NaN: unknown)"),
            **measured("bits_per_byte", _M, "bit", "loss on the sequences, per byte"),
            **measured("chi", _M, "1", "mean of chi over layers"),
            **measured("share", ("model", "part"), "1", "mean of the shares over layers"),
        },
        "layers": {
            **measured("q_positive", _ML, "1", "fraction of tokens with q > 0"),
            **measured("g_positive", _ML, "1", "fraction of tokens with g > 0"),
            **measured("majority", _ML, "1", "base rate: fraction of the layer's majority sign of g"),
            **measured("chi", _ML, "1", "fraction of tokens with |g_self + g_hist| > |g_skip + g_bias|"),
            **measured("share", ("model", "layer", "part"), "1", "share of the variance of g: cov(part, g)/var(g)"),
            **measured("growth", _ML, "1/layer", "mean ln |r| after minus before the layer"),
            **measured("predicted_growth", _ML, "1/layer", "mean of q Delta: the rate of dx/dt = q Delta x"),
            **measured("coherent_share", _ML, "1", "2 g/(2 g + step^2), of the means over tokens"),
            **measured("t_c", _ML, "layer", "median of 1/(2 |q| Delta)"),
            "split_residual": _f(_ML, "1", "largest |g - sum of its parts| over the largest |part|"),
        },
        "depth": {
            **measured("log_norm", ("model", "depth"), "1", "mean of ln |r|"),
            **measured("norm_exponent", _M, "1", "slope of the mean ln |r| against ln depth (convergent law: -1/2)"),
            **measured("fit_geometric", _M, "1", "R^2 of ln |r| linear in depth"),
            **measured("fit_square", _M, "1", "R^2 of |r|^2 linear in depth (steps of random direction)"),
        },
        "tests": {
            **measured("kappa", _MP, "1", "stratified kappa: sum(c - chance)/sum(1 - chance) over layers"),
            "kappa_null_low": _f(_MP, "1", "2.5 % point of kappa with sequences permuted"),
            "kappa_null_high": _f(_MP, "1", "97.5 % point of kappa with sequences permuted"),
            **measured("agreement", _MP, "1", "mean over layers of P(sign of the predictor = sign of g)"),
            "chance": _f(_MP, "1", "mean over layers of the agreement of independent signs with these margins"),
            **measured("baseline", _MP, "1", "mean over layers of the base rate, at the predictor's positions"),
            **measured("spearman", _MP, "1", "mean over layers of the rank correlation with g"),
            "evidence": Variable(_MP, "int8", "1", "above the base rate and the permuted sequences", attrs=_EVIDENCE),
            "layers_above_chance": _f(_MP, "1", "layers with agreement above chance (NaN: contains W_out)"),
            "p_count": _f(_MP, "1", "two-sided p of their number, layers as fair coins (NaN: contains W_out)"),
            "p_sum": _f(_MP, "1", "two-sided p of the summed excess among all sign flips (NaN: contains W_out)"),
        },
        "layer_tests": {
            **measured("agreement", _MLP, "1", "P(sign of the predictor = sign of g)"),
            "chance": _f(_MLP, "1", "agreement of independent signs with these margins"),
            "null_low": _f(_MLP, "1", "2.5 % point of the agreement with sequences permuted"),
            "null_high": _f(_MLP, "1", "97.5 % point of the agreement with sequences permuted"),
            **measured("spearman", _MLP, "1", "rank correlation of predictor and g"),
        },
    },
    dimensions={"model": Dimension("model"), "part": Dimension("term of the radial rate")},
)


@dataclass(frozen=True)
class Config:
    """Which models, on which text."""

    models: tuple[str, ...] = field(
        default=MODELS, metadata={"help": "embedded models, folders with config.json and weights, or hf:ORG/NAME"}
    )
    block: str = field(
        default="auto",
        metadata={
            "help": "folder with kws10.npz and kws_sample.npz; auto: models/mambalite_kws10 below $SSMTHEORY_DATA, "
            "where it is; none"
        },
    )
    text: str = field(default="", metadata={"help": "UTF-8 text file, '-' for stdin; empty: held-out embedded text"})
    tokens: int = field(default=128, metadata={"help": "tokens per sequence"})
    sequences: int = field(default=24, metadata={"help": "sequences, evenly spaced in the text; five or more"})
    lags: tuple[int, ...] = field(default=(1, 4, 16), metadata={"help": "lags at which kappa is a predictor"})
    seed: int = field(default=0, metadata={"help": "of the bootstrap and of the permutations"})


def predictors(lags: tuple[int, ...]) -> tuple[str, ...]:
    """Names of the predictors, in the order of the dataset."""
    kernels = tuple(f"kappa_{lag}" for lag in lags)
    return ("q", *kernels, "q R", "A_Delta", "g_skip", "g_self", "g_hist", "g_self+g_hist")


# ---------------------------------------------------------------------- plan
@dataclass
class _Block:
    """The trained block and its one utterance."""

    sha256: str
    arrays: dict[str, np.ndarray]
    hidden: np.ndarray


@dataclass
class _Context:
    models: list[Any]
    steps: list[float]
    windows: list[list[Any]]
    block: _Block | None
    config: Config

    @property
    def names(self) -> list[str]:
        return [m.name for m in self.models] + ([BLOCK] if self.block else [])


def plan(config: Config) -> base.Plan:
    """Load the models and cut the text.

    Raises:
        InputError: unknown or damaged model, hybrids, unusable text, no such block.
        ConfigError: an option has an impossible value.
    """
    from ssmtheory import mamba

    for option, least in (("tokens", 2), ("sequences", 1), ("seed", 0)):
        if getattr(config, option) < least:
            raise ConfigError(f"--{option} {getattr(config, option)}: must be an integer >= {least}")
    lags = config.lags
    if not lags or list(lags) != sorted(set(lags)) or lags[0] < 1 or lags[-1] > config.tokens // 2:
        raise ConfigError(f"--lags {lags}: must rise, from 1 at least to half of --tokens {config.tokens} at most")
    block, about_block = _find_block(config)
    if not config.models and block is None:
        raise ConfigError("--models is empty, and there is no block: name at least one model")
    reading = token_dynamics.Config(text=config.text, tokens=config.tokens, sequences=config.sequences)
    models, windows, steps = [], [], []
    for name in config.models:
        model = mamba.load(name, backend="numpy")
        if not isinstance(model, mamba.MambaLM):
            raise InputError(f"{model.name} is a hybrid with other layers than Mamba's: no token can be followed")
        models.append(model)
        windows.append(token_dynamics.plan_model(model, reading).context.windows)
        steps.append(_training_step(name))
    names = [m.name for m in models]
    if len(set(names)) < len(names):
        raise ConfigError(f"--models {', '.join(config.models)}: each model once")
    context = _Context(models, steps, windows, block, config)
    return base.Plan(
        resolved={
            "models": {m.name: m.sha256 for m in models},
            "block": block.sha256 if block else "none",
            "text": sorted({(w.source.name, w.source.sha256) for each in windows for w in each}),
            "tokens": config.tokens, "sequences": config.sequences, "lags": list(lags), "seed": config.seed,
        },
        tasks=[f"{i}-{j:05d}" for i in range(len(models)) for j in range(config.sequences)]
        + ([f"{len(models)}-00000"] if block else []),
        describe={
            "models": ", ".join(f"{m.name} ({m.config.parameters:,} parameters)" for m in models),
            "block": about_block,
            "tasks": f"{len(models)} models x {config.sequences} sequences of {config.tokens} tokens",
        },
        result_bytes=8 * len(context.names) * max([m.n_layer for m in models], default=1) * 60,
        context=context,
        task_noun="sequence",
    )  # fmt: skip


def _find_block(config: Config) -> tuple[_Block | None, str]:
    if config.block == "none":
        return None, "not asked for"
    if config.block == "auto":
        root = os.environ.get("SSMTHEORY_DATA", "")
        folder = Path(root) / "models" / "mambalite_kws10"
        if not root or not (folder / "kws10.npz").is_file():
            where = f"no {BLOCK}.npz below it" if root else "SSMTHEORY_DATA is not set"
            return None, f"{BLOCK} is NOT measured: {where}"
    else:
        folder = Path(config.block)
    try:
        data = (folder / "kws10.npz").read_bytes()
        with np.load(folder / "kws10.npz", allow_pickle=False) as file:
            arrays = dict(file)
        with np.load(folder / "kws_sample.npz", allow_pickle=False) as file:
            sample = file["x"]
        hidden = sample @ arrays["linear_in_weight"].T + arrays["linear_in_bias"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"--block {config.block}: cannot be read ({error})") from error
    if len(hidden) < config.lags[-1] + 2 * _PIECE:
        raise InputError(f"--block {config.block}: {len(hidden)} frames are too few for the lag {config.lags[-1]}")
    return _Block(hashlib.sha256(data).hexdigest(), arrays, hidden), f"{BLOCK} ({len(hidden)} frames)"


def _training_step(name: str) -> float:
    """Optimiser steps by the card of a model of this package; NaN for others."""
    from ssmtheory.mamba.model import resolve_source

    card = resolve_source(name)[1] / "card.json"
    step = json.loads(card.read_text(encoding="utf-8")).get("step") if card.is_file() else None
    return float(step) if isinstance(step, int) else float("nan")


# ---------------------------------------------------------------------- one sequence
def measure(
    c: Any, weight: Callable[[str], np.ndarray], norm: np.ndarray | None, signals: Any, lags: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """Everything that is tested, of one layer and one sequence.

    Args:
        c: the model's configuration; weight: name below the mixer -> array.
        norm: weight of the norm before the mixer; None where there is none.
        signals: `MixerSignals` with NumPy arrays, batch 1; a residual of None is replaced by the mixer's input.
        lags: of kappa.

    Returns:
        name -> (token,) float64; a lag's first tokens are NaN.
    """
    given = signals.hidden if signals.residual is None else signals.residual
    residual, update, u, z, y, delta, B, C = (
        np.asarray(x, np.float64)[0]
        for x in (given, signals.update, signals.u, signals.z, signals.y, signals.delta, signals.B, signals.C)
    )
    tokens, per_head = len(u), u.shape[1] // delta.shape[1]
    B, C = (x.reshape(tokens, c.n_groups, c.d_state) for x in (B, C))
    A = np.asarray(signals.A, np.float64)
    A = A.reshape(len(A), -1)
    skip = np.repeat(weight("D"), u.shape[1] // len(weight("D")))
    q = input_output.token_q(B, C)
    own = np.repeat(q, u.shape[1] // c.n_groups, axis=1) * np.repeat(delta, per_head, axis=1) * u
    hist = y - skip * u - own
    if signals.initial_state is None:
        hist[0] = 0.0  # nothing is carried to the first token: the sign of a rounding error is none
    out_weight = weight("out_proj.weight")
    split = depth.radial_split(
        residual, token_dynamics.gate_of(c, weight, y, z), out_weight, u, delta, q, hist, skip,
        weight("out_proj.bias") if c.proj_bias else None,
    )  # fmt: skip
    length, g, step, _ = depth.motion(residual, update)
    first = c.d_inner if c.family == "mamba2" else 0
    value = weight("in_proj.weight")[first : first + c.d_inner]
    tap = weight("conv1d.weight").reshape(-1, c.d_conv)[: c.d_inner, -1]
    moved = (residual * (1.0 if norm is None else norm)) @ value.T * tap @ out_weight.T
    R = np.einsum("td,td->t", residual, moved) / length**2
    out = {
        "g": g, "step": step, "norm": length, "after": np.linalg.norm(residual + update, axis=1),
        "q": q.mean(axis=1), "q R": q.mean(axis=1) * R, "A_Delta": split.A_Delta, "delta": delta.mean(axis=1),
        "g_skip": split.skip, "g_self": split.self_, "g_hist": split.hist, "g_bias": split.bias,
        "g_self+g_hist": split.self_ + split.hist,
    }  # fmt: skip
    clock = np.concatenate([np.zeros((1, delta.shape[1])), np.cumsum(delta, axis=0)])
    for lag in lags:
        out[f"kappa_{lag}"] = kernel = np.full(tokens, np.nan)
        if lag < tokens:
            tau = clock[lag + 1 :] - clock[1 : tokens + 1 - lag]
            # of factors that the mean does not need in float64
            factor = np.exp((tau[..., None] * A).astype(np.float32))
            product = (C[lag:] * B[:-lag]).astype(np.float32)
            kernel[lag:] = input_output.contract(factor, product).mean(axis=1, dtype=np.float64)
    return out


def run_task(plan: base.Plan, key: str) -> dict[str, np.ndarray]:
    """Measure one sequence in one model: "name" -> (sequence, layer, token), and its loss."""
    context: _Context = plan.context
    which, sequence = (int(part) for part in key.split("-"))
    lags = context.config.lags
    if which == len(context.models):
        return _run_block(context)
    model, window = context.models[which], context.windows[which][sequence]
    ids = window.source.tokens[window.start : window.start + context.config.tokens]
    found: list[dict[str, np.ndarray]] = []

    def tap(layer: int, signals: Any) -> None:
        prefix = f"backbone.layers.{layer}."
        norm = np.asarray(model.weights[prefix + "norm.weight"])
        found.append(measure(model.config, lambda name: model.weights[f"{prefix}mixer.{name}"], norm, signals, lags))

    logits = model(ids[None], tap=tap)
    bits = float(token_dynamics.loss_bits(logits[0], ids[1:]).sum())
    n_bytes = token_dynamics.bytes_of(model, ids[1:]) if window.source.is_text else 0
    out = {name: np.stack([layer[name] for layer in found])[None] for name in found[0]}
    if not np.isfinite(out["g"]).all():
        raise InputError(f"{model.name}: the residual stream is zero or not finite in sequence {sequence}")
    return out | {"bits_per_byte": np.array([bits / n_bytes if n_bytes else np.nan])}


def _run_block(context: _Context) -> dict[str, np.ndarray]:
    from ssmtheory import mamba

    assert context.block is not None
    arrays, lags = context.block.arrays, context.config.lags
    signals = mamba.block(arrays, context.block.hidden[None], prefix="mamba_")
    config = mamba.MambaConfig.mamba1(
        d_model=context.block.hidden.shape[1], n_layer=1, vocab_size=1, d_inner=signals.u.shape[2],
        d_state=signals.B.shape[2], dt_rank=arrays["mamba_dt_proj_weight"].shape[1],
    )  # fmt: skip
    found = measure(config, lambda name: arrays["mamba_" + name.replace(".", "_")], None, signals, lags)
    # frames before the longest lag have no kernel there; what is left is cut into pieces
    start = lags[-1]
    pieces = (len(context.block.hidden) - start) // _PIECE
    cut = {name: x[start : start + pieces * _PIECE].reshape(pieces, 1, _PIECE) for name, x in found.items()}
    return cut | {"bits_per_byte": np.full(pieces, np.nan)}


# ---------------------------------------------------------------------- all sequences
def _weighted(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Means of (sequence, ...) under the whole sample (first) and each resample: (1 + resample, ...)."""
    n = len(values)
    every = np.concatenate([np.full((1, n), 1.0 / n), counts / n])
    return np.tensordot(every, values, axes=1)


def _with_interval(name: str, resampled: np.ndarray) -> dict[str, np.ndarray]:
    """Point value (first row) and percentile interval (the others); NaN without resamples."""
    low = high = np.full(resampled.shape[1:], np.nan)
    if len(resampled) > 1:
        low, high = np.quantile(resampled[1:], [0.025, 0.975], axis=0)
    return {name: resampled[0], f"{name}_low": low, f"{name}_high": high}


def _medians(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Median over sequences and tokens of (sequence, layer, token), as `_weighted`: (1 + resample, layer).

    The lower median where two values are in the middle.
    """
    n, layers, tokens = values.shape
    every = np.concatenate([np.ones((1, n)), counts])
    out = np.empty((len(every), layers))
    for k in range(layers):
        flat = values[:, k].ravel()
        order = np.argsort(flat, kind="stable")
        total = np.cumsum(every[:, order // tokens], axis=1)
        at = (total < 0.5 * n * tokens).sum(axis=1)
        out[:, k] = flat[order[at]]
    return out


def _shares(counts: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """cov(part, total)/var(total) of (part, sequence, layer, token), as `_weighted`: (1 + resample, layer, part)."""
    total = parts.sum(axis=0)
    mean = _weighted(counts, np.moveaxis(parts.mean(axis=3), 0, -1))
    product = _weighted(counts, np.moveaxis((parts * total).mean(axis=3), 0, -1))
    whole, square = _weighted(counts, total.mean(axis=2)), _weighted(counts, (total**2).mean(axis=2))
    return np.asarray((product - mean * whole[..., None]) / (square - whole**2)[..., None])


def _fit(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and R^2 of y (..., n) against x (n,)."""
    x = x - x.mean()
    y = y - y.mean(axis=-1, keepdims=True)
    slope = y @ x / (x @ x)
    return slope, slope**2 * (x @ x) / (y**2).sum(axis=-1)


def _one_model(values: Mapping[str, np.ndarray], names: tuple[str, ...], hypothetical: bool, seed: int) -> Any:
    """The dataset's numbers of one model from (sequence, layer, token) arrays: group -> variable -> array."""
    g, q = values["g"], values["q"]
    n = len(g)
    counts = concordance.bootstrap_counts(n, 1000, seed) if n > 1 else np.zeros((0, n))

    def mean(x: np.ndarray) -> np.ndarray:
        return _weighted(counts, x.mean(axis=2))

    parts = np.stack([values[f"g_{name}"] for name in PARTS])
    positive = mean(g > 0)
    residual = np.abs(g - parts.sum(axis=0)).max(axis=(0, 2)) / np.abs(parts).max(axis=(0, 1, 3))
    square = mean(values["step"] ** 2)
    chi = mean(np.abs(parts[1] + parts[2]) > np.abs(parts[0] + parts[3]))
    share = _shares(counts, parts)
    layers = {
        **_with_interval("q_positive", mean(q > 0)),
        **_with_interval("g_positive", positive),
        **_with_interval("majority", np.maximum(positive, 1 - positive)),
        **_with_interval("chi", chi),
        **_with_interval("share", share),
        **_with_interval("growth", mean(np.log(values["after"] / values["norm"]))),
        **_with_interval("predicted_growth", mean(q * values["delta"])),
        **_with_interval("coherent_share", 2 * mean(g) / (2 * mean(g) + square)),
        **_with_interval("t_c", _medians(counts, input_output.critical_depth(q, values["delta"]))),
        "split_residual": residual,
    }
    norm = np.concatenate([values["norm"], values["after"][:, -1:]], axis=1)  # (sequence, depth, token)
    log_norm, mean_square = mean(np.log(norm)), mean(norm**2)
    k = np.arange(norm.shape[1], dtype=np.float64)
    at_depth = {**_with_interval("log_norm", log_norm)}
    if len(k) > 2:
        at_depth |= _with_interval("norm_exponent", _fit(np.log(k[1:]), log_norm[:, 1:])[0])
        at_depth |= _with_interval("fit_geometric", _fit(k, log_norm)[1])
        at_depth |= _with_interval("fit_square", _fit(k, mean_square)[1])
    if hypothetical:  # there is no residual stream that could grow
        for group, stems in ((layers, ("growth", "coherent_share")), (at_depth, tuple(at_depth))):
            for name in [key for key in group if key.startswith(stems)]:
                group[name] = np.full_like(group[name], np.nan)
    found = {name: concordance.concordance(values[name], g, seed=seed) for name in names}
    flips = {name: concordance.flip_test(x.concordance - x.chance) for name, x in found.items()}
    nan = float("nan")
    free = [name.startswith(_FREE_OF_OUT) and name != "q R" for name in names]
    pooled = {
        "kappa": "kappa", "kappa_low": "kappa_low", "kappa_high": "kappa_high", "kappa_null_low": "kappa_null_low",
        "kappa_null_high": "kappa_null_high", "agreement": "pooled_concordance", "agreement_low": "pooled_low",
        "agreement_high": "pooled_high", "baseline": "pooled_baseline", "baseline_low": "pooled_baseline_low",
        "baseline_high": "pooled_baseline_high", "spearman": "pooled_spearman", "evidence": "pooled_evidence",
        "spearman_low": "pooled_spearman_low", "spearman_high": "pooled_spearman_high",
    }  # fmt: skip
    tests = {name: np.array([getattr(x, source) for x in found.values()]) for name, source in pooled.items()}
    tests["chance"] = np.array([x.chance.mean() for x in found.values()])
    for name, source in (("layers_above_chance", "positive"), ("p_count", "p_count"), ("p_sum", "p_sum")):
        tests[name] = np.array(
            [float(getattr(f, source)) if ok else nan for f, ok in zip(flips.values(), free, strict=True)]
        )
    by_layer = {
        "agreement": "concordance", "agreement_low": "low", "agreement_high": "high", "chance": "chance",
        "null_low": "null_low", "null_high": "null_high", "spearman": "spearman", "spearman_low": "spearman_low",
        "spearman_high": "spearman_high",
    }  # fmt: skip
    layer_tests = {
        name: np.stack([getattr(x, source) for x in found.values()], axis=1) for name, source in by_layer.items()
    }
    overall = {
        **_with_interval("bits_per_byte", _weighted(counts, values["bits_per_byte"])),
        **_with_interval("chi", chi.mean(axis=1)),
        **_with_interval("share", share.mean(axis=1)),
    }
    return {"models": overall, "layers": layers, "depth": at_depth, "tests": tests, "layer_tests": layer_tests}


def assemble(plan: base.Plan, parts: Mapping[str, Mapping[str, np.ndarray]]) -> xr.DataTree:
    """Test every predictor in every model; put the models side by side."""
    import xarray as xr

    context: _Context = plan.context
    config, names = context.config, predictors(context.config.lags)
    results = []
    for i in range(len(context.names)):
        mine = [parts[key] for key in plan.tasks if key.startswith(f"{i}-")]
        values = {name: np.concatenate([part[name] for part in mine]) for name in mine[0]}
        results.append((_one_model(values, names, i == len(context.models), config.seed), len(values["g"])))
    block = [context.block] if context.block else []
    about = {
        "sha256": np.array([m.sha256 for m in (*context.models, *block)], dtype=object),
        "kind": np.array(
            ["language model"] * len(context.models) + ["block without a residual stream"] * len(block), dtype=object
        ),
        "layers": np.array([m.n_layer for m in context.models] + [1] * len(block)),
        "sequences": np.array([n for _, n in results]),
        "training_step": np.array(context.steps + [np.nan] * len(block)),
    }
    depths = int(about["layers"].max())
    sizes = {"layer": depths, "depth": depths + 1, "predictor": len(names), "part": len(PARTS)}
    known = {
        "model": np.array(context.names, dtype=object), "layer": np.arange(depths), "depth": np.arange(depths + 1),
        "predictor": np.array(names, dtype=object), "part": np.array(PARTS, dtype=object),
    }  # fmt: skip
    groups = {}
    for path, declared in SCHEMA.groups.items():
        data = {}
        for name, v in declared.items():
            if path == "/models" and name in about:
                data[name] = (v.dims, about[name].astype(object if v.dtype == "str" else v.dtype))
                continue
            array: Any = np.full((len(results), *(sizes[d] for d in v.dims[1:])), np.nan)
            for i, (groups_of_model, _) in enumerate(results):
                value = groups_of_model[path.strip("/")].get(name)
                if value is not None:
                    inner = tuple(slice(0, n) for n in np.shape(value))
                    array[(i, *inner)] = value
            data[name] = (v.dims, array.astype(v.dtype))
        used = {d for dims, _ in data.values() for d in dims}
        groups[path] = xr.Dataset(data, coords={d: known[d] for d in sorted(used)})
    return xr.DataTree.from_dict(groups)


# ---------------------------------------------------------------------- in words
def verdict(tree: xr.DataTree) -> list[str]:
    """Say for each model whether the theory's signs predict, what decides instead, and how far depth reaches."""
    models, layers, tests, deep = (tree[name].to_dataset() for name in ("models", "layers", "tests", "depth"))
    names = [str(name) for name in tests["predictor"].values]
    out = []
    for i, model in enumerate(str(m) for m in models["model"].values):
        K, hypothetical = int(models["layers"].values[i]), not str(models["kind"].values[i]).startswith("language")
        head = f"{model} (sha256 {models['sha256'].values[i][:12]}"
        head += ", one block without a residual stream: g is hypothetical)" if hypothetical else ")"
        at = {"model": i, "predictor": names.index("q")}
        known = bool(tests["evidence"].isel(at))
        sentence = (
            f"{head}: the sign of q and that of g agree in {said(tests, 'agreement', '.1%', **at)}, the base rate is "
            f"{said(tests, 'baseline', '.1%', **at)}; kappa {said(tests, 'kappa', '+.3f', **at)}, permuted "
            f"[{float(tests['kappa_null_low'].isel(at)):+.3f}, {float(tests['kappa_null_high'].isel(at)):+.3f}]"
        )
        if K > 1:
            sentence += (
                f", above chance in {float(tests['layers_above_chance'].isel(at)):.0f} of {K} layers "
                f"(p = {float(tests['p_count'].isel(at)):.2g}, sum of flips p = {float(tests['p_sum'].isel(at)):.2g})"
            )
        out.append(f"{sentence}: {'evidence' if known else 'no evidence'}.")
        flags = {name: bool(f) for name, f in zip(names, tests["evidence"].values[i], strict=True)}
        theory = [name for name in names if name.startswith(("kappa", "q R"))]
        out.append(
            "  Kernel and linear value path: "
            + "; ".join(
                f"{name} {said(tests, 'kappa', '+.3f', model=i, predictor=names.index(name))} "
                f"({'evidence' if flags[name] else 'no evidence'})"
                for name in theory
            )
            + "."
        )
        part_of_g = [name for name in names if name.startswith(("A_", "g_"))]
        out.append(
            "  Terms of g: "
            + ", ".join(
                f"{name} {said(tests, 'kappa', '+.3f', model=i, predictor=names.index(name))}" for name in part_of_g
            )
            + "."
        )
        most = int(np.argmax(layers["chi"].values[i, :K]))
        shares = ", ".join(f"{part} {said(models, 'share', '.0%', model=i, part=j)}" for j, part in enumerate(PARTS))
        out.append(
            f"  Another S_B and S_C could change the sign of g in {said(models, 'chi', '.1%', model=i)} of tokens, "
            f"at most in layer {most}: {said(layers, 'chi', '.1%', model=i, layer=most)}; shares of the variance of g "
            f"(mean over layers): {shares}."
        )
        if not hypothetical and K > 1:
            least = int(np.argmin(layers["t_c"].values[i, :K]))
            geometric = bool(deep["fit_geometric"].values[i] > deep["fit_square"].values[i])
            out.append(
                f"  Depth: ln |r| grows with ln depth by {said(deep, 'norm_exponent', '+.3f', model=i)} (the "
                f"convergent law would be -1/2); R^2 of ln |r| in depth {said(deep, 'fit_geometric', model=i)}, of "
                f"|r|^2 {said(deep, 'fit_square', model=i)}: more like "
                f"{'geometric growth' if geometric else 'steps of random direction'}; the shortest t_c is "
                f"{said(layers, 't_c', '.3g', model=i, layer=least)} layers (layer {least}), of {K} there are."
            )
    if BLOCK not in [str(m) for m in models["model"].values]:
        out.append(f"The trained block {BLOCK} was not measured: it needs the folder that --block names.")
    out.append(
        "Intervals: 95 % bootstrap over sequences of a fixed model; one model of a kind says nothing about others. "
        "Signs of layers are fair coins at initialisation only for predictors without W_out."
    )
    return out


def run(config: Config | None = None) -> xr.DataTree:
    """Measure everything in memory and return the dataset (nothing is written)."""
    return base.run(sys.modules[__name__], config or Config())


if __name__ == "__main__":
    from ssmtheory.runner import main

    raise SystemExit(main("concordance"))
