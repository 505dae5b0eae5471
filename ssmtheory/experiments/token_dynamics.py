"""Token dynamics of a pretrained Mamba: what its tokens do through depth, and whether the theory predicted it.

| name in the dataset | meaning |
|---|---|
| delta, decay | the step Delta_d(x_t) after bias and softplus, and exp(Delta A) per token, channel and state |
| q | q(u) = u^T S_C^T S_B u = C_t . B_t (arXiv 2410.03292: mu in one dimension, the input-output matrix in many) |
| radial_rate | g = <r, dr>/|r|^2, r the residual stream before a layer and dr the layer's update |
| g_skip, g_self, g_hist, g_bias | exact split of g: <v, D u>, q A_Delta, <v, C h^->, bias of out_proj |
| kappa | C_t . exp(A_d (Delta_t-m+1 + ... + Delta_t)) B_t-m: mu exp(-a tau) where A is one number per channel |

The split and v are defined in `ssmtheory.dynamics.depth`.

Families: for Mamba-1 q is the quadratic form above. Falcon-Mamba normalises B and C without weights, which rescales q
and keeps its sign; its eigenvalues are those of the unnormalised S_B and S_C. In Mamba-2, B and C come from a
convolution of the residual stream: q = C_t . B_t is then the kernel of a token with itself (the mean over groups), the
eigenvalues belong to W_B W_C^T in the space of the normed residual (before the convolution), and what is per channel
elsewhere (Delta, kappa, horizon) is per head.

Every sequence of the text is a task of its own. A task runs chunk by chunk through all layers and keeps sums,
histograms and per-token scalars only: nothing of size (token, channel, state) exists.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmtheory.dynamics import attention, concordance, depth, input_output, lyapunov, streaming
from ssmtheory.errors import ConfigError, InputError
from ssmtheory.experiments import base
from ssmtheory.results.schema import DatasetSchema, Dimension, Variable

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["PREDICTORS", "QUANTILES", "SCENARIOS", "SCHEMA", "TITLE", "Config", "assemble", "bytes_of", "gate_of",
           "loss_bits", "plan", "plan_model", "run", "run_task", "verdict"]  # fmt: skip

TITLE = "Token dynamics of a pretrained selective state-space model"

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
# sign of each is compared with the sign of the radial rate g
PREDICTORS = ("q", "kappa", "A_Delta", "g_skip", "g_self", "g_hist", "g_self+g_hist")
SCENARIOS = {-1: "convergent", 0: "undecided", 1: "divergent"}

_FLAGS = {"flag_values": [-1, 0, 1], "flag_meanings": "convergent undecided divergent"}
_EVIDENCE = {"flag_values": [0, 1], "flag_meanings": "no_evidence evidence"}

_SLT = ("sequence", "layer", "token")
_LDN = ("layer", "channel", "state")
_LP = ("layer", "predictor")


def _f(dims: tuple[str, ...], units: str, long_name: str, **kw: object) -> Variable:
    return Variable(dims, "float32", units, long_name, **kw)  # type: ignore[arg-type]


SCHEMA = DatasetSchema(
    "token_dynamics",
    1,
    groups={
        "text": {
            "source": Variable(("sequence",), "str", "1", "text that the sequence was taken from"),
            "start": Variable(("sequence",), "int64", "token", "position of the sequence's first token in its text"),
            "n_bytes": Variable(("sequence",), "int64", "byte", "bytes of the predicted tokens (0: unknown)"),
            "bits_per_token": _f(("sequence",), "bit", "mean loss per predicted token"),
            "bits_per_byte": _f(("sequence",), "bit", "mean loss per byte of text (NaN where the bytes are unknown)"),
        },
        "tokens": {
            "token_id": Variable(("sequence", "token"), "int32", "1", "token id"),
            "loss_bits": _f(("sequence", "token"), "bit", "loss of the next token (NaN at the last one)"),
            "residual_norm": _f(("sequence", "depth", "token"), "1", "norm |r| of the residual stream"),
            "radial_rate": _f(_SLT, "1", "radial rate g = <r, dr>/|r|^2 of a layer's update"),
            "step_size": _f(_SLT, "1", "step size |dr|/|r|"),
            "angular_speed": _f(_SLT, "rad", "angle between the residual before and after the layer"),
            "q": _f(_SLT, "1", "q(u) = C_t . B_t (mean over groups)"),
            "kappa": _f(_SLT, "1", "lag-one kernel C_t exp(Delta_t A) B_{t-1}, mean over channels"),
            "delta": _f(_SLT, "1", "step Delta, mean over channels"),
            "A_Delta": _f(_SLT, "1", "A_Delta = <v, Delta u>"),
            "g_skip": _f(_SLT, "1", "part of g from the skip D u"),
            "g_self": _f(_SLT, "1", "part of g from the token's own write, q A_Delta"),
            "g_hist": _f(_SLT, "1", "part of g from the carried state"),
            "g_bias": _f(_SLT, "1", "part of g from the bias of out_proj"),
            "state_rms": _f(_SLT, "1", "root mean square of the state over channels and states"),
        },
        "channels": {
            "delta_quantile": _f(("layer", "quantile", "channel"), "1", "quantiles of the step Delta"),
            "delta_mean": _f(("layer", "channel"), "1", "mean step Delta"),
            "delta_bin_lower": _f(("delta_bin",), "1", "lower edge of the bin of Delta"),
            "delta_bin_upper": _f(("delta_bin",), "1", "upper edge of the bin of Delta"),
            "delta_histogram": Variable(("layer", "delta_bin"), "int64", "1", "tokens and channels by step Delta"),
            "decay_bin_lower": _f(("decay_bin",), "1", "lower edge of the bin of exp(Delta A)"),
            "decay_bin_upper": _f(("decay_bin",), "1", "upper edge of the bin of exp(Delta A)"),
            "decay_histogram": Variable(
                ("layer", "decay_bin"), "int64", "1", "tokens, channels and states by decay exp(Delta A)"
            ),
            "horizon": _f(_LDN, "token", "horizon 1/(-A mean Delta)"),
            "erf": _f(_LDN, "token", "effective receptive field S1/S0 of the sequences' last token"),
            "lyapunov": _f(_LDN, "1/token", "Lyapunov exponent along the sequence, A mean Delta"),
            "kappa": _f(("layer", "lag", "channel"), "1", "mean kernel C_t exp(A sum Delta) B_{t-lag}"),
            "lag_time": _f(("layer", "lag", "channel"), "1", "mean of the sum of Delta over the lag"),
        },
        "layers": {
            "eig_input_output": Variable(
                ("layer", "state"), "complex128", "1", "eigenvalues of S_B S_C^T (the non-zero ones of M = S_C^T S_B)"
            ),
            "eig_symmetric": Variable(("layer", "eig"), "float64", "1", "non-zero eigenvalues of (M + M^T)/2"),
            "trace_input_output": Variable(("layer",), "float64", "1", "trace of M"),
            "q_positive_fraction": _f(("layer",), "1", "fraction of tokens with q > 0"),
            "q_positive_low": _f(("layer",), "1", "lower end of its 95 % bootstrap interval over sequences"),
            "q_positive_high": _f(("layer",), "1", "upper end of its 95 % bootstrap interval over sequences"),
            "growth": _f(("layer",), "1", "mean of ln |r| after minus before the layer"),
            "growth_low": _f(("layer",), "1", "lower end of its 95 % bootstrap interval over sequences"),
            "growth_high": _f(("layer",), "1", "upper end of its 95 % bootstrap interval over sequences"),
            "g_positive_fraction": _f(("layer",), "1", "fraction of tokens with g > 0 (moving outwards)"),
            "predicted_scenario": Variable(
                ("layer",), "int8", "1", "scenario by the sign of q of most tokens", attrs=_FLAGS
            ),
            "eigenvalue_scenario": Variable(
                ("layer",), "int8", "1", "scenario by the signs of M's symmetric part (void: inertia)", attrs=_FLAGS
            ),
            "observed_scenario": Variable(("layer",), "int8", "1", "scenario of the tokens' norms", attrs=_FLAGS),
            "t_c": _f(("layer",), "layer", "median of 1/(2 |q| Delta): depth on which the theory's ODE acts"),
            "chi": _f(("layer",), "1", "fraction of tokens with |g_self + g_hist| > |g_skip + g_bias|"),
            "share": _f(("layer", "part"), "1", "share of the variance of g: cov(part, g)/var(g)"),
            "coherent_share": _f(("layer",), "1", "2 g/(2 g + step^2), of the means over tokens"),
            "kappa_sign_change": _f(("layer",), "1", "fraction of channels whose kappa changes sign over the lags"),
            "split_residual": _f(("layer",), "1", "largest |g - sum of its parts| over the largest |part|"),
            "scan_residual": _f(("layer",), "1", "largest difference of our scan and the model's over the largest |y|"),
            "state_rms_by_position": _f(("layer", "position_bin"), "1", "root mean square of the state by position"),
            "position_lower": Variable(("position_bin",), "int64", "token", "first position of the bin"),
            "position_upper": Variable(("position_bin",), "int64", "token", "first position after the bin"),
        },
        "concordance": {
            "concordance": _f(_LP, "1", "fraction of tokens whose sign of g is the predictor's"),
            "concordance_low": _f(_LP, "1", "lower end of its 95 % bootstrap interval over sequences"),
            "concordance_high": _f(_LP, "1", "upper end of its 95 % bootstrap interval over sequences"),
            "chance": _f(_LP, "1", "concordance of independent signs with the same margins"),
            "null_low": _f(_LP, "1", "2.5 % point of the concordance with sequences permuted"),
            "null_high": _f(_LP, "1", "97.5 % point of the concordance with sequences permuted"),
            "majority_baseline": _f(("layer",), "1", "concordance of always naming the layer's majority sign"),
            "evidence": Variable(_LP, "int8", "1", "above the majority baseline and the null", attrs=_EVIDENCE),
            "spearman": _f(_LP, "1", "Spearman rank correlation of predictor and g"),
            "pooled_concordance": _f(("predictor",), "1", "mean over layers of the concordance"),
            "pooled_baseline": _f((), "1", "mean over layers of the majority baseline"),
            "kappa": _f(("predictor",), "1", "stratified kappa: sum(c - chance)/sum(1 - chance) over layers"),
            "kappa_low": _f(("predictor",), "1", "lower end of its 95 % bootstrap interval over sequences"),
            "kappa_high": _f(("predictor",), "1", "upper end of its 95 % bootstrap interval over sequences"),
            "kappa_null_low": _f(("predictor",), "1", "2.5 % point of kappa with sequences permuted"),
            "kappa_null_high": _f(("predictor",), "1", "97.5 % point of kappa with sequences permuted"),
            "pooled_spearman": _f(("predictor",), "1", "mean over layers of the Spearman correlation"),
            "pooled_evidence": Variable(
                ("predictor",), "int8", "1", "above the majority baseline and the null", attrs=_EVIDENCE
            ),
        },
        "clustering": {
            "cosine": _f(("depth", "token_i", "token_j"), "1", "cosines of the first sequence's tokens"),
            "mean_cosine": _f(("depth",), "1", "mean cosine of two tokens of a sequence"),
            "cosine_to_first": _f(("depth",), "1", "mean cosine of late tokens to their own first token"),
            "cosine_to_other_first": _f(("depth",), "1", "mean cosine of late tokens to other sequences' first token"),
            "anchor_cosine": _f(("depth", "anchor_token"), "1", "mean cosine of late tokens to their anchor"),
            "anchor_excess": _f(
                ("depth", "anchor_token"), "1", "anchor cosine less that to the other sequences' anchor"
            ),
            "anchor_excess_low": _f(("depth", "anchor_token"), "1", "lower end of its 95 % bootstrap interval"),
            "anchor_excess_high": _f(("depth", "anchor_token"), "1", "upper end of its 95 % bootstrap interval"),
        },
        "attention": {
            "map": _f(
                ("layer", "token_i", "token_j"), "1", "hidden attention P_dij of the first tokens, mean over channels"
            ),
            "map_abs": _f(("layer", "token_i", "token_j"), "1", "the same, mean of |P_dij| over channels"),
            "row_token": Variable(("row",), "int64", "token", "query token of the row", optional=True),
            "rows": _f(("layer", "row", "token", "channel"), "1", "rows P_dij of the first sequence", optional=True),
        },
    },
    dimensions={"part": Dimension("part of the radial rate g: skip, self, hist, bias")},
)


# ---------------------------------------------------------------------- configuration
def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass(frozen=True)
class Config:
    """What to measure.

    `layers` and `attention_rows` may also be given as an iterable of integers: `Config(layers=range(4))`.
    """

    model: str = field(
        default="shakespeare-1m", metadata=_help("embedded model, folder with config.json and weights, or hf:ORG/NAME")
    )
    text: str = field(default="", metadata=_help("UTF-8 text file, '-' for stdin; empty: held-out embedded text"))
    token_ids: str = field(default="", metadata=_help("FILE.npy with a vector of token ids, in place of a text"))
    layers: str = field(default="", metadata=_help("layers to analyse, such as 0-5,7; empty: all"))
    tokens: int = field(default=512, metadata=_help("tokens per sequence"))
    sequences: int = field(default=8, metadata=_help("sequences, evenly spaced in the text; five or more for evidence"))
    dtype: str = field(default="float32", metadata=_help("float32 or float64"))
    backend: str = field(default="auto", metadata=_help("of the model's scan: auto, numpy, torch, jax or c"))
    device: str = field(default="cpu", metadata=_help("cpu, or a device of the backend such as cuda"))
    check: bool = field(default=True, metadata=_help("compare the loaded model with transformers, or with itself"))
    seed: int = field(default=0, metadata=_help("of the bootstrap and of the permutations"))
    attention_rows: str = field(
        default="", metadata=_help("query tokens whose hidden-attention rows to store (first sequence), as 63,511")
    )

    def __post_init__(self) -> None:
        for name in ("layers", "attention_rows"):
            value: Any = getattr(self, name)
            if not isinstance(value, str):
                listed = ",".join(str(i) for i in value)
                object.__setattr__(self, name, listed)


def _indices(option: str, text: str, limit: int, what: str) -> tuple[int, ...]:
    """ "0-2,5" -> (0, 1, 2, 5); every index below `limit`, rising and without repeats."""
    chosen: set[int] = set()
    for item in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = item.partition("-")
        try:
            low, high = int(first), int(last if dash else first)
        except ValueError:
            raise ConfigError(f"--{option} {text}: {item!r} is neither a number nor a range such as 0-5") from None
        if not 0 <= low <= high < limit:
            raise InputError(f"--{option} {text}: {what} 0 to {limit - 1}")
        chosen.update(range(low, high + 1))
    return tuple(sorted(chosen))


# ---------------------------------------------------------------------- plan
@dataclass(frozen=True)
class _Source:
    """A text as token ids; `is_text` is False where only the ids are known."""

    name: str
    sha256: str
    tokens: np.ndarray
    is_text: bool = True


@dataclass(frozen=True)
class _Window:
    """One sequence: `count` tokens of a source from `start` on."""

    source: _Source
    start: int


@dataclass
class _Context:
    """What tasks need: the model and where they read."""

    model: Any
    windows: list[_Window]
    layers: tuple[int, ...]
    rows: tuple[int, ...]
    lags: tuple[int, ...]
    tokens: int
    seed: int


_ANCHORS = (0, 1, 2, 4, 8)
_MAP_TOKENS = 64  # side of the attention map and of the cosine matrix
_CHUNK = 512  # tokens that pass all layers together
_LAG_SAMPLES = 64  # tokens per sequence at which kappa is taken for lags beyond 1
_SMALLEST = 16  # tokens: below, late tokens and anchors cannot be told apart


def plan(config: Config) -> base.Plan:
    """Load the model, cut the text into sequences, resolve every option.

    Raises:
        InputError: unknown model, damaged checkpoint, unusable text, layers or rows out of range, too few tokens.
        ConfigError: an option has an impossible value, or two options contradict each other.
    """
    from ssmtheory import mamba

    if config.text and config.token_ids:
        raise ConfigError("--text and --token-ids exclude each other: give one")
    for name, least in (("tokens", _SMALLEST), ("sequences", 1), ("seed", 0)):
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"--{name} {value}: must be an integer >= {least}")
    if config.dtype not in ("float32", "float64"):
        raise ConfigError(f"--dtype {config.dtype}: must be float32 or float64")
    model = mamba.load(
        config.model, dtype=config.dtype, backend=config.backend, device=config.device, check=config.check
    )
    if not isinstance(model, mamba.MambaLM):
        raise InputError(
            f"{model.name} is a hybrid with other layers than Mamba's, through which this experiment cannot follow a "
            "token; its Mamba mixers can be taken one by one: ssmtheory.mamba.load and ssmtheory.dynamics"
        )
    return plan_model(model, config)


def plan_model(model: Any, config: Config) -> base.Plan:
    """Plan for a `MambaLM` that is already loaded: model, dtype, backend and device are then its own."""
    layers = _indices("layers", config.layers, model.config.n_layer, f"{model.name} has layers") or tuple(
        range(model.config.n_layer)
    )
    rows = _indices("attention-rows", config.attention_rows, config.tokens, "a sequence has tokens")
    sources = _sources(model, config)
    windows = _windows(sources, config)
    context = _Context(
        model=model,
        windows=windows,
        layers=layers,
        rows=rows,
        lags=input_output.observed_lags(config.tokens),
        tokens=config.tokens,
        seed=config.seed,
    )
    resolved = {
        "model": model.name,
        "text": [{"name": s.name, "sha256": s.sha256, "tokens": len(s.tokens)} for s in sources],
        "layers": list(layers),
        "tokens": config.tokens,
        "sequences": config.sequences,
        "attention_rows": list(rows),
        "dtype": model.dtype,
        "backend": str(model.backend),
        "arithmetic": model.arithmetic,
        "device": model.device,
        "seed": config.seed,
    }
    sizes = _sizes(context)
    n_bytes = sum(
        int(np.prod([sizes[d] for d in v.dims])) * (8 if v.dtype == "str" else np.dtype(v.dtype).itemsize)
        for group in SCHEMA.groups.values()
        for v in group.values()
        if rows or not v.optional
    )
    return base.Plan(
        resolved=resolved,
        tasks=[f"{i:05d}" for i in range(config.sequences)],
        model_sha256=model.sha256,
        describe={
            "model": f"{model.name}  {model.config.parameters:,} parameters, {model.config.n_layer} layers, "
            f"sha256 {model.sha256[:12]}",
            "check": model.check.summary if getattr(model, "check", None) else "not checked",
            "text": ", ".join(f"{s.name} ({len(s.tokens):,} tokens)" for s in sources),
            "tasks": f"{config.sequences} sequences x {len(layers)} layers x {config.tokens} tokens",
        },
        result_bytes=n_bytes,
        context=context,
        task_noun="sequence",
    )


def _sources(model: Any, config: Config) -> list[_Source]:
    """The texts to read, as token ids."""
    if config.token_ids:
        return [_from_ids(config.token_ids, model.config.vocab_size)]
    if config.text:
        return [_from_text(model, _name(config.text), _read(config.text))]
    from ssmtheory.data import text

    return [_from_text(model, f"{name} (held out)", text.split(name).heldout) for name in text.CORPORA]


def _name(path: str) -> str:
    return "stdin" if path == "-" else Path(path).name


def _read(path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"--text {path}: cannot be read ({error.strerror or error})") from error


def _from_text(model: Any, name: str, data: bytes) -> _Source:
    if not data.strip():
        raise InputError(f"text {name} is empty: give one with at least {_SMALLEST} tokens")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"text {name} is not UTF-8 (byte 0x{data[error.start]:02x} at position {error.start:,}): convert it first, "
            "for example with iconv -t UTF-8"
        ) from error
    return _Source(name, hashlib.sha256(data).hexdigest(), np.asarray(model.tokenizer.encode(text), np.int64))


def _from_ids(path: str, vocab_size: int) -> _Source:
    try:
        ids = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a NumPy .npy array"
        raise InputError(f"--token-ids {path}: {reason}") from error
    if not isinstance(ids, np.ndarray) or ids.ndim != 1 or ids.dtype.kind not in "iu":
        got = f"{ids.dtype} of shape {ids.shape}" if isinstance(ids, np.ndarray) else "an archive"
        raise InputError(f"--token-ids {path}: must hold a vector of integers, not {got}")
    wrong = np.flatnonzero((ids < 0) | (ids >= vocab_size))
    if len(wrong):
        raise InputError(
            f"--token-ids {path}: id {ids[wrong[0]]} at position {wrong[0]} is outside the vocabulary, "
            f"0 to {vocab_size - 1}"
        )
    tokens = ids.astype(np.int64)
    return _Source(Path(path).name, hashlib.sha256(tokens.astype("<i8").tobytes()).hexdigest(), tokens, is_text=False)


def _windows(sources: list[_Source], config: Config) -> list[_Window]:
    """Sequences that do not overlap, dealt to the sources in turn and evenly spaced in each."""
    windows: dict[int, _Window] = {}
    for i, source in enumerate(sources):
        mine = range(i, config.sequences, len(sources))
        n = len(source.tokens)
        if n < _SMALLEST:
            raise InputError(f"text {source.name} has {n} tokens: at least {_SMALLEST} are needed")
        if len(mine) * config.tokens > n:
            fits = n // config.tokens
            advice = f"--sequences {fits * len(sources)} or fewer --tokens" if fits else f"--tokens {n} or fewer"
            raise InputError(
                f"text {source.name} has {n:,} tokens, too short for {len(mine)} x {config.tokens}: use {advice}"
            )
        for j, sequence in enumerate(mine):
            start = j * (n - config.tokens) // (len(mine) - 1) if len(mine) > 1 else 0
            windows[sequence] = _Window(source, start)
    return [windows[i] for i in range(config.sequences)]


def _heads(c: Any) -> int:
    return c.n_heads if c.family == "mamba2" else c.d_inner


def _sizes(context: _Context) -> dict[str, int]:
    """Size of each dimension (the state axis of /layers counts all groups: an upper bound for the others)."""
    c = context.model.config
    side = min(_MAP_TOKENS, context.tokens)
    return {
        "sequence": len(context.windows), "token": context.tokens, "layer": len(context.layers), "depth": c.n_layer + 1,
        "channel": _heads(c), "state": c.d_state * c.n_groups, "quantile": len(QUANTILES), "lag": len(context.lags),
        "eig": 2 * c.d_state * c.n_groups, "part": 4, "predictor": len(PREDICTORS), "anchor_token": len(_ANCHORS),
        "delta_bin": streaming.LogHistogram.BINS, "decay_bin": streaming.DecayHistogram.BINS,
        "position_bin": len(streaming.position_bins(context.tokens)[0]), "token_i": side, "token_j": side,
        "row": len(context.rows),
    }  # fmt: skip


# ---------------------------------------------------------------------- one sequence
def _numpy(x: Any) -> np.ndarray:
    """An array of any library on any device as NumPy."""
    return x.detach().cpu().numpy() if hasattr(x, "detach") else np.asarray(x)


def _silu(x: np.ndarray) -> np.ndarray:
    from ssmtheory.scan import silu

    return silu(x)


def gate_of(c: Any, weight: Callable[[str], np.ndarray], y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """What multiplies y on its way to out_proj, (token, channel): gated = y * gate.

    Mamba-2's norm is not linear; its factor at the measured y is part of the gate, so that the split of g stays exact.
    """
    gate = _silu(z.astype(np.float64))
    if c.family != "mamba2" or not c.mixer_norm:
        return gate
    shape = (len(y), c.n_groups, -1)
    normed = y.astype(np.float64) if c.norm_before_gate else y * gate
    square = np.mean(normed.reshape(shape) ** 2, axis=-1, keepdims=True)
    factor = np.repeat(1.0 / np.sqrt(square[..., 0] + c.norm_eps), y.shape[1] // c.n_groups, axis=1)
    return gate * factor * weight("norm.weight")


class _Layer:
    """Everything accumulated in one analysed layer of one sequence."""

    def __init__(self, context: _Context, layer: int) -> None:
        c = context.model.config
        weights = context.model.weights

        def weight(name: str) -> np.ndarray:
            return _numpy(weights[f"backbone.layers.{layer}.mixer.{name}"])

        self.c, self.weight = c, weight
        self.out_weight = weight("out_proj.weight")
        self.bias = weight("out_proj.bias") if c.proj_bias else None
        stride = max(1, context.tokens // _LAG_SAMPLES)
        A = -np.exp(weight("A_log"))
        self.statistics = streaming.LayerStatistics(A, c.n_groups, c.d_state, context.lags, stride)
        self.skip = np.repeat(weight("D"), c.d_inner // len(weight("D")))
        self.tokens: dict[str, list[np.ndarray]] = {name: [] for name in _TOKEN_NAMES}
        # largest magnitudes met: of g minus its parts, of the parts, of our scan minus the model's, of the model's
        self.largest = dict.fromkeys(("split_residual", "part", "scan_residual", "y"), 0.0)

    def update(self, s: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Take one chunk's signals; returns delta, B and C as (token, head) and (token, group, state)."""
        c = self.c
        residual, update, u, z, y, delta, B, C = (
            _numpy(x)[0] for x in (s.residual, s.update, s.u, s.z, s.y, s.delta, s.B, s.C)
        )
        B, C = (x.reshape(len(u), c.n_groups, c.d_state) for x in (B, C))
        found = self.statistics.update(u, delta, B, C)
        without_skip = y - self.skip * u
        _, g, step, angle = depth.motion(residual, update)
        gate = gate_of(c, self.weight, y, z)
        split = depth.radial_split(
            residual, gate, self.out_weight, u, delta, found.q, without_skip - found.own, self.skip, self.bias
        )
        parts = np.stack([split.skip, split.self_, split.hist, split.bias])
        for name, difference in {
            "split_residual": g - parts.sum(axis=0),
            "part": parts,
            "scan_residual": without_skip - found.y,
            "y": y,
        }.items():
            self.largest[name] = max(self.largest[name], float(np.abs(difference).max()))
        values = {
            "radial_rate": g, "step_size": step, "angular_speed": angle, "q": found.q.mean(axis=1),
            "kappa": found.kappa, "delta": found.delta, "A_Delta": split.A_Delta, "g_skip": split.skip,
            "g_self": split.self_, "g_hist": split.hist, "g_bias": split.bias, "state_rms": found.state_rms,
        }  # fmt: skip
        for name, value in values.items():
            self.tokens[name].append(value)
        return delta, B, C


_TOKEN_NAMES = (
    "radial_rate", "step_size", "angular_speed", "q", "kappa", "delta", "A_Delta", "g_skip", "g_self", "g_hist",
    "g_bias", "state_rms",
)  # fmt: skip


def run_task(plan: base.Plan, key: str) -> dict[str, np.ndarray]:
    """Measure one sequence: sums, histograms and per-token scalars, flat "group/name" -> array.

    Raises:
        InputError: the residual stream is not finite; the message names layer and token.
    """
    context: _Context = plan.context
    sequence = int(key)
    model, c = context.model, context.model.config
    window = context.windows[sequence]
    ids = window.source.tokens[window.start : window.start + context.tokens]
    first = sequence == 0
    layers = {layer: _Layer(context, layer) for layer in context.layers}
    burn_in = min(16, context.tokens // 2)
    anchors = tuple(a for a in _ANCHORS if a < burn_in)
    clustering = [depth.Clustering(c.d_model, anchors, burn_in) for _ in range(c.n_layer + 1)]
    norms: list[list[np.ndarray]] = [[] for _ in range(c.n_layer + 1)]
    shown = _shown(context.tokens)
    directions = np.zeros((c.n_layer + 1, len(shown), c.d_model)) if first else None
    kept: dict[int, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {layer: [] for layer in context.layers}
    loss: list[np.ndarray] = []
    position = 0

    def at_depth(k: int, x: np.ndarray) -> None:
        length = np.linalg.norm(x.astype(np.float64), axis=1)
        unusable = ~np.isfinite(length) | (length == 0)
        if unusable.any():
            at = int(np.flatnonzero(unusable)[0])
            where = f"before layer {k}" if k < c.n_layer else f"after layer {k - 1}"
            what, why = (
                ("zero", "it has no direction")
                if length[at] == 0
                else ("not finite", "the weights are damaged, or float64 is needed (--dtype float64)")
            )
            raise InputError(
                f"{model.name}: the residual stream {where} is {what} at token {position + at} of sequence {sequence} "
                f"(id {ids[position + at]}): {why}"
            )
        norms[k].append(length)
        clustering[k].update(x)
        if directions is not None:
            here = np.flatnonzero((shown >= position) & (shown < position + len(x)))
            directions[k, here] = x[shown[here] - position]

    def tap(layer: int, signals: Any) -> None:
        residual = _numpy(signals.residual)[0]
        at_depth(layer, residual)
        if layer == c.n_layer - 1:
            at_depth(c.n_layer, residual + _numpy(signals.update)[0])
        if layer in layers:
            delta, B, C = layers[layer].update(signals)
            if first:
                # the map needs the first tokens, rows need all: (token, channel) numbers, never times state
                n = len(delta) if context.rows else max(0, _MAP_TOKENS - position)
                kept[layer].append((delta[:n].copy(), B[:n].copy(), C[:n].copy()))

    state = None
    for start in range(0, context.tokens, _CHUNK):
        position = start
        stop = min(start + _CHUNK, context.tokens)
        logits, state = model(ids[None, start:stop], state, return_state=True, tap=tap)
        loss.append(loss_bits(_numpy(logits)[0], ids[start + 1 : stop + 1]))

    parts: dict[str, np.ndarray] = {}
    bits = np.concatenate([*loss, [np.nan]])[: context.tokens]
    parts["tokens/token_id"] = ids.astype(np.int32)
    parts["tokens/loss_bits"] = bits.astype(np.float32)
    parts["tokens/residual_norm"] = np.stack([np.concatenate(n) for n in norms]).astype(np.float32)
    for name in _TOKEN_NAMES:
        stacked = np.stack([np.concatenate(layer.tokens[name]) for layer in layers.values()])
        parts[f"tokens/{name}"] = stacked.astype(np.float32)
    parts["text/n_bytes"] = np.array(bytes_of(model, ids[1:]) if window.source.is_text else 0)
    parts["text/bits"] = np.array(np.nansum(bits))
    parts |= _sums([layer.statistics for layer in layers.values()], context.tokens)
    for name in ("split_residual", "part", "scan_residual", "y"):
        parts[f"largest/{name}"] = np.array([layer.largest[name] for layer in layers.values()])
    parts["clustering/mean_cosine"] = np.array([one.mean_cosine for one in clustering])
    parts["clustering/late_mean"] = np.stack([one.late_mean for one in clustering])
    parts["clustering/anchor"] = np.stack([one.anchor for one in clustering])
    if directions is not None:
        parts["clustering/cosine"] = np.stack([depth.cosine_matrix(x) for x in directions]).astype(np.float32)
        parts |= _attention(context, layers, kept)
    return parts


def bytes_of(model: Any, ids: np.ndarray) -> int:
    """Bytes of the text that the ids decode to."""
    return len(ids) if model.tokenizer.name == "bytes" else len(model.tokenizer.decode(ids).encode("utf-8"))


def _shown(tokens: int) -> np.ndarray:
    """Positions of the cosine matrix: at most 64, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, tokens - 1, min(tokens, _MAP_TOKENS)).round().astype(np.int64))


def loss_bits(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Cross-entropy of each target under its row of logits [bit]; a row without a target is left out."""
    out = np.empty(len(targets))
    for start in range(0, len(targets), 64):  # float64 logits of 64 tokens at a time
        x = logits[start : start + 64][: len(targets) - start].astype(np.float64)
        x -= x.max(axis=1, keepdims=True)
        chosen = x[np.arange(len(x)), targets[start : start + 64]]
        out[start : start + 64] = np.log(np.exp(x).sum(axis=1)) - chosen
    return out / np.log(2.0)


def _sums(statistics: list[streaming.LayerStatistics], tokens: int) -> dict[str, np.ndarray]:
    narrow = np.uint16 if tokens < 1 << 16 else np.uint32
    stack: dict[str, list[np.ndarray]] = {
        "delta_counts": [s.delta_histogram.counts.astype(narrow) for s in statistics],
        "delta_smallest": [s.delta_histogram.smallest for s in statistics],
        "delta_largest": [s.delta_histogram.largest for s in statistics],
        "delta_sum": [s.delta_sum for s in statistics],
        "decay_counts": [s.decay_histogram.counts for s in statistics],
        "kappa_sum": [s.kernel.kappa_sum for s in statistics],
        "time_sum": [s.kernel.time_sum for s in statistics],
        "lag_count": [s.kernel.count for s in statistics],
        "S0": [s.field.S0 for s in statistics],
        "S1": [s.field.S1 for s in statistics],
    }
    return {f"sums/{name}": np.stack(arrays) for name, arrays in stack.items()}


def _attention(context: _Context, layers: Mapping[int, _Layer], kept: Mapping[int, Any]) -> dict[str, np.ndarray]:
    maps, maps_abs, rows = [], [], []
    side = min(_MAP_TOKENS, context.tokens)
    for layer, measured in layers.items():
        delta, B, C = (np.concatenate(pieces) for pieces in zip(*kept[layer], strict=True))
        A = measured.statistics.A
        mean, mean_abs = attention.attention_mean(delta[:side], A, B[:side], C[:side])
        maps.append(mean.astype(np.float32))
        maps_abs.append(mean_abs.astype(np.float32))
        if context.rows:
            rows.append(attention.attention_rows(delta, A, B, C, context.rows).astype(np.float32))
    out = {"attention/map": np.stack(maps), "attention/map_abs": np.stack(maps_abs)}
    if rows:
        out["attention/rows"] = np.stack(rows)
    return out


# ---------------------------------------------------------------------- all sequences
def assemble(plan: base.Plan, parts: Mapping[str, Mapping[str, np.ndarray]]) -> xr.DataTree:
    """Put the sequences together: statistics over all tokens, concordance, clustering with its control."""
    import xarray as xr

    context: _Context = plan.context
    ordered = [parts[key] for key in plan.tasks]
    tokens = {
        name: np.stack([part[f"tokens/{name}"] for part in ordered])
        for name in ("token_id", "loss_bits", "residual_norm", *_TOKEN_NAMES)
    }
    counts = concordance.bootstrap_counts(len(ordered), 1000, context.seed)
    values: dict[str, dict[str, Any]] = {
        "text": _text_group(context, ordered),
        "tokens": tokens,
        "channels": _channel_group(context, ordered),
        "layers": _layer_group(context, ordered, tokens, counts),
        "concordance": _concordance_group(context, tokens),
        "clustering": _clustering_group(ordered, counts),
        "attention": {
            "map": ordered[0]["attention/map"],
            "map_abs": ordered[0]["attention/map_abs"],
        },
    }
    kappa = values["channels"]["kappa"]
    values["layers"]["kappa_sign_change"] = ((kappa > 0).any(axis=1) & (kappa <= 0).any(axis=1)).mean(axis=1)
    if context.rows:
        values["attention"]["row_token"] = np.array(context.rows)
        values["attention"]["rows"] = ordered[0]["attention/rows"]
    groups = {}
    for path, declared in SCHEMA.groups.items():
        data = {}
        for name, array in values[path.strip("/")].items():
            v = declared[name]
            kind = object if v.dtype == "str" else v.dtype
            data[name] = (v.dims, np.asarray(array).astype(kind))
        used = {d for dims, _ in data.values() for d in dims}
        groups[path] = xr.Dataset(data, coords=_coordinates(context, path, used))
    return xr.DataTree.from_dict(groups)


def _coordinates(context: _Context, path: str, used: Iterable[str]) -> dict[str, np.ndarray]:
    shown, burn_in = _shown(context.tokens), min(16, context.tokens // 2)
    pair = shown if path == "/clustering" else np.arange(min(_MAP_TOKENS, context.tokens))
    known: dict[str, np.ndarray] = {
        "layer": np.array(context.layers),
        "depth": np.arange(context.model.config.n_layer + 1),
        "sequence": np.arange(len(context.windows)),
        "token": np.arange(context.tokens),
        "quantile": np.array(QUANTILES),
        "lag": np.array(context.lags),
        "predictor": np.array(PREDICTORS, dtype=object),
        "part": np.array(["skip", "self", "hist", "bias"], dtype=object),
        "anchor_token": np.array([a for a in _ANCHORS if a < burn_in]),
        "token_i": pair,
        "token_j": pair,
    }
    return {d: known[d] for d in sorted(used) if d in known}


def _text_group(context: _Context, ordered: list[Any]) -> dict[str, Any]:
    n_bytes = np.array([int(part["text/n_bytes"]) for part in ordered])
    bits = np.array([float(part["text/bits"]) for part in ordered])
    return {
        "source": np.array([w.source.name for w in context.windows], dtype=object),
        "start": np.array([w.start for w in context.windows]),
        "n_bytes": n_bytes,
        "bits_per_token": bits / (context.tokens - 1),
        "bits_per_byte": np.where(n_bytes > 0, bits / np.maximum(n_bytes, 1), np.nan),
    }


def _total(ordered: list[Any], name: str) -> np.ndarray:
    total = ordered[0][f"sums/{name}"].astype(np.float64)  # counts stay exact up to 2^53
    for part in ordered[1:]:
        total += part[f"sums/{name}"]
    return total


def _decay_rates(context: _Context) -> np.ndarray:
    """A of the analysed layers, (layer, channel or head, state), float64."""
    c = context.model.config
    out = []
    for layer in context.layers:
        a = -np.exp(_numpy(context.model.weights[f"backbone.layers.{layer}.mixer.A_log"]).astype(np.float64))
        out.append(np.broadcast_to(a[:, None] if a.ndim == 1 else a, (_heads(c), c.d_state)))
    return np.stack(out)


def _channel_group(context: _Context, ordered: list[Any]) -> dict[str, Any]:
    counts = _total(ordered, "delta_counts").astype(np.int64)
    smallest = np.min([part["sums/delta_smallest"] for part in ordered], axis=0)
    largest = np.max([part["sums/delta_largest"] for part in ordered], axis=0)
    delta_edges, decay_edges = streaming.LogHistogram.edges(), streaming.DecayHistogram.edges()
    mean = _total(ordered, "delta_sum") / (len(ordered) * context.tokens)
    A = _decay_rates(context)
    lag_count = _total(ordered, "lag_count")[..., None]
    with np.errstate(invalid="ignore", divide="ignore"):
        field_of = _total(ordered, "S1") / _total(ordered, "S0")
    return {
        "delta_quantile": np.stack(
            [streaming.histogram_quantile(*three, QUANTILES) for three in zip(counts, smallest, largest, strict=True)]
        ),
        "delta_mean": mean,
        "delta_bin_lower": delta_edges[:-1],
        "delta_bin_upper": delta_edges[1:],
        "delta_histogram": counts.sum(axis=1),
        "decay_bin_lower": decay_edges[:-1],
        "decay_bin_upper": decay_edges[1:],
        "decay_histogram": _total(ordered, "decay_counts"),
        "horizon": lyapunov.horizon(A, mean),
        "erf": field_of,
        "lyapunov": lyapunov.lyapunov_exponents(A, mean),
        "kappa": _total(ordered, "kappa_sum") / lag_count,
        "lag_time": _total(ordered, "time_sum") / lag_count,
    }


def _projections(context: _Context, layer: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(S_B, S_C) of each group of a layer: rows of x_proj, or of Mamba-2's in_proj [z | x | B | C | dt]."""
    c, weights = context.model.config, context.model.weights
    prefix = f"backbone.layers.{layer}.mixer."
    size = c.n_groups * c.d_state
    if c.family == "mamba2":
        rows, start = _numpy(weights[prefix + "in_proj.weight"]), 2 * c.d_inner
    else:
        rows, start = _numpy(weights[prefix + "x_proj.weight"]), c.dt_rank
    both = (rows[start : start + size], rows[start + size : start + 2 * size])
    b, c_ = (x.reshape(c.n_groups, c.d_state, -1) for x in both)
    return list(zip(b, c_, strict=True))


def _layer_group(
    context: _Context, ordered: list[Any], tokens: Mapping[str, np.ndarray], counts: np.ndarray
) -> dict[str, Any]:
    pairs = [_projections(context, layer) for layer in context.layers]
    eig = np.stack([np.concatenate([input_output.input_output_eigenvalues(*p) for p in groups]) for groups in pairs])
    symmetric = np.stack(
        [np.sort(np.concatenate([input_output.symmetric_eigenvalues(*p) for p in groups])) for groups in pairs]
    )
    positive = (tokens["q"] > 0).mean(axis=2)
    q_low, q_high = concordance.mean_interval(positive, counts)
    norm = tokens["residual_norm"].astype(np.float64)
    here = list(context.layers)
    log_ratio = np.log(norm[:, [k + 1 for k in here]] / norm[:, here]).mean(axis=2)
    low, high = concordance.mean_interval(log_ratio, counts)
    g, step = tokens["radial_rate"].astype(np.float64), tokens["step_size"].astype(np.float64)
    parts = np.stack([tokens[f"g_{name}"] for name in ("skip", "self", "hist", "bias")]).astype(np.float64)
    decidable = np.abs(parts[1] + parts[2]) > np.abs(parts[0] + parts[3])
    mean_g, mean_square = g.mean(axis=(0, 2)), (step**2).mean(axis=(0, 2))
    lower, upper = streaming.position_bins(context.tokens)
    square = (tokens["state_rms"].astype(np.float64) ** 2).mean(axis=0)
    largest = {
        name: np.max([part[f"largest/{name}"] for part in ordered], axis=0)
        for name in ("split_residual", "part", "scan_residual", "y")
    }
    tiny = 1e-12 * np.abs(symmetric).max(axis=1)
    return {
        "eig_input_output": eig,
        "eig_symmetric": symmetric,
        "trace_input_output": eig.real.sum(axis=1),
        "q_positive_fraction": positive.mean(axis=0),
        "q_positive_low": q_low,
        "q_positive_high": q_high,
        "growth": log_ratio.mean(axis=0),
        "growth_low": low,
        "growth_high": high,
        "g_positive_fraction": (g > 0).mean(axis=(0, 2)),
        "predicted_scenario": depth.scenario(q_low, q_high, 0.5),
        "eigenvalue_scenario": np.where(symmetric[:, -1] > tiny, 1, -1),
        "observed_scenario": depth.scenario(low, high),
        "t_c": np.median(input_output.critical_depth(tokens["q"], tokens["delta"]), axis=(0, 2)),
        "chi": decidable.mean(axis=(0, 2)),
        "share": np.stack([depth.shares(parts[:, :, k]) for k in range(len(here))]),
        "coherent_share": 2 * mean_g / (2 * mean_g + mean_square),
        "split_residual": largest["split_residual"] / np.maximum(largest["part"], 1e-300),
        "scan_residual": largest["scan_residual"] / np.maximum(largest["y"], 1e-300),
        "state_rms_by_position": np.stack(
            [np.sqrt(square[:, a:b].mean(axis=1)) for a, b in zip(lower, upper, strict=True)], axis=1
        ),
        "position_lower": lower,
        "position_upper": upper,
    }


def _concordance_group(context: _Context, tokens: Mapping[str, np.ndarray]) -> dict[str, Any]:
    predictors = {
        name: tokens[name] if name != "g_self+g_hist" else tokens["g_self"] + tokens["g_hist"] for name in PREDICTORS
    }
    found = [concordance.concordance(x, tokens["radial_rate"], seed=context.seed) for x in predictors.values()]
    per_layer = {
        "concordance": "concordance", "concordance_low": "low", "concordance_high": "high", "chance": "chance",
        "null_low": "null_low", "null_high": "null_high", "evidence": "evidence", "spearman": "spearman",
    }  # fmt: skip
    pooled = (
        "pooled_concordance", "kappa", "kappa_low", "kappa_high", "kappa_null_low", "kappa_null_high",
        "pooled_spearman", "pooled_evidence",
    )  # fmt: skip
    out: dict[str, Any] = {name: np.stack([getattr(x, f) for x in found], axis=1) for name, f in per_layer.items()}
    out |= {name: np.array([getattr(x, name) for x in found]) for name in pooled}
    # g_skip and the like are finite at every position, so theirs is the baseline of all tokens
    whole = found[PREDICTORS.index("g_skip")]
    return out | {"majority_baseline": whole.baseline, "pooled_baseline": np.array(whole.pooled_baseline)}


def _clustering_group(ordered: list[Any], counts: np.ndarray) -> dict[str, Any]:
    late = np.stack([part["clustering/late_mean"] for part in ordered])  # (sequence, depth, width)
    anchor = np.stack([part["clustering/anchor"] for part in ordered])  # (sequence, depth, anchor, width)
    cosine = np.einsum("skd,rkad->srka", late, anchor)
    n = len(ordered)
    own = np.einsum("sska->ska", cosine)
    if n > 1:
        other = (cosine.sum(axis=1) - own) / (n - 1)
    else:
        other = np.full_like(own, np.nan)
    low, high = concordance.mean_interval(own - other, counts)
    return {
        "cosine": ordered[0]["clustering/cosine"],
        "mean_cosine": np.mean([part["clustering/mean_cosine"] for part in ordered], axis=0),
        "cosine_to_first": own[..., 0].mean(axis=0),
        "cosine_to_other_first": other[..., 0].mean(axis=0),
        "anchor_cosine": own.mean(axis=0),
        "anchor_excess": (own - other).mean(axis=0),
        "anchor_excess_low": low,
        "anchor_excess_high": high,
    }


# ---------------------------------------------------------------------- in words
def verdict(tree: xr.DataTree) -> list[str]:
    """What was measured, with intervals, and where the theory's assumptions do not hold; from the dataset alone."""
    layers, tests, tokens = (_group(tree, name) for name in ("layers", "concordance", "tokens"))
    n_layer = layers.sizes["layer"]
    n_model = tokens.sizes["depth"] - 1
    sequences, length = tokens.sizes["sequence"], tokens.sizes["token"]
    out = [*_loss_sentences(tree)]

    norm = tokens["residual_norm"].values.astype(np.float64)
    ratio = np.exp(np.log(norm[:, -1] / norm[:, 0]).mean())
    observed, predicted = layers["observed_scenario"].values, layers["predicted_scenario"].values
    out.append(
        f"Token norms change by a factor {ratio:.3g} (geometric mean) over the {n_model} layers; layer by layer: "
        f"{_count(observed)} (95 % bootstrap over {sequences} sequences of {length} tokens)."
    )
    q = layers["q_positive_fraction"].values
    out.append(
        "The theory's criterion, applied to tokens, is the sign of q(u) = u^T S_C^T S_B u: positive diverges, negative "
        f"converges. q > 0 for {q.min():.0%} to {q.max():.0%} of a layer's tokens, so it predicts: {_count(predicted)}."
    )
    decided = (observed != 0) & (predicted != 0)
    if decided.any():
        agree = int(((observed == predicted) & decided).sum())
        n_decided = int(decided.sum())
        out.append(f"Layers where both are decided and the tokens do what the criterion says: {agree} of {n_decided}.")
    out.append(_sign_sentence(tests, sequences))
    flags = {str(n): bool(f) for n, f in zip(tests["predictor"].values, tests["pooled_evidence"].values, strict=True)}
    lag_one = tests.sel(predictor="kappa")
    out.append(
        "Likewise the kernel to the token before (channel mean of kappa at lag 1): kappa statistic "
        f"{float(lag_one['kappa']):+.3f}, {'evidence' if flags['kappa'] else 'no evidence'}."
    )
    strong = [name for name, flag in flags.items() if flag and name.startswith("g_")]
    share = np.nanmean(layers["share"].values, axis=0)
    out.append(
        "What does decide g: of its variance the skip D u carries {:.0%}, the token's own write {:.0%}, history {:.0%} "
        "(mean over layers); ".format(*share[:3])
        + (f"terms of g with evidence: {', '.join(strong)} (parts of g itself, not predictions)." if strong
           else "no single term has evidence.")
        + (" A_Delta has evidence, too: it shares v and u with the skip." if flags["A_Delta"] else "")
    )  # fmt: skip
    chi = layers["chi"].values
    out.append(
        f"Only {chi.mean():.1%} of tokens (by layer {chi.min():.1%} to {chi.max():.1%}) have |g_self + g_hist| > "
        "|g_skip + g_bias|: in the others no choice of S_B and S_C can change the direction."
    )
    out.append(_clustering_sentence(tree))
    out += _assumption_sentences(tree, n_layer, n_model)
    return out


def _group(tree: xr.DataTree, name: str) -> xr.Dataset:
    return tree.children[name].to_dataset()


def _count(codes: np.ndarray) -> str:
    shown = [f"{int((codes == code).sum())} {SCENARIOS[code]}" for code in (1, -1, 0) if (codes == code).any()]
    return ", ".join(shown)


def _loss_sentences(tree: xr.DataTree) -> list[str]:
    text = _group(tree, "text")
    sources, per_byte, per_token = (text[n].values for n in ("source", "bits_per_byte", "bits_per_token"))
    lines = []
    for source in dict.fromkeys(str(s) for s in sources):
        mine = np.array([str(s) == source for s in sources])
        values, unit = (per_byte, "byte") if np.isfinite(per_byte[mine]).all() else (per_token, "token")
        x = values[mine].astype(np.float64)
        error = f" ± {x.std(ddof=1) / np.sqrt(len(x)):.3f} (standard error, {len(x)} sequences)" if len(x) > 1 else ""
        lines.append(f"Loss on {source}: {x.mean():.3f}{error} bits per {unit}.")
    return lines


def _sign_sentence(tests: Any, sequences: int) -> str:
    at = tests.sel(predictor="q")
    kappa, low, high, null_low, null_high = (
        float(at[name]) for name in ("kappa", "kappa_low", "kappa_high", "kappa_null_low", "kappa_null_high")
    )
    raw, baseline = float(at["pooled_concordance"]), float(tests["pooled_baseline"])
    layers = int(at["evidence"].sum())
    text = (
        f"Sign of q against sign of g, token by token: they agree in {raw:.1%}, always naming a layer's majority sign "
        f"is right in {baseline:.1%}; kappa {kappa:+.3f}"
    )
    if sequences > 1:
        text += f" [{low:+.3f}, {high:+.3f}], permuted sequences [{null_low:+.3f}, {null_high:+.3f}]"
    if bool(at["pooled_evidence"]):
        return f"{text}: evidence, in {layers} of {at.sizes['layer']} layers on their own."
    why = "" if sequences >= 5 else f" (with {sequences} sequences none is possible; five are needed)"
    return f"{text}: no evidence that the criterion predicts what tokens do{why}."


def _clustering_sentence(tree: xr.DataTree) -> str:
    c = _group(tree, "clustering")
    mean = c["mean_cosine"].values
    names = ("anchor_excess", "anchor_excess_low", "anchor_excess_high")
    excess, low, high = (float(c[name].values[-1, 0]) for name in names)
    text = f"Mean cosine of two tokens goes from {mean[0]:.2f} to {mean[-1]:.2f} through depth; "
    if not np.isfinite(low):
        return text + "one sequence alone has no control for attraction to the first token."
    found = "attracted to it" if low > 0 else "repelled by it" if high < 0 else "no attraction"
    return (
        f"{text}beyond what late tokens share with other texts' first token, their cosine to their own is "
        f"{excess:+.3f} [{low:+.3f}, {high:+.3f}]: {found}."
    )


def _assumption_sentences(tree: xr.DataTree, n_layer: int, n_model: int) -> list[str]:
    layers, channels, tokens = (_group(tree, name) for name in ("layers", "channels", "tokens"))
    rates = -channels["lyapunov"].values.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.nanmedian(rates.max(axis=-1) / rates.min(axis=-1))
    change = float(layers["kappa_sign_change"].mean())
    at = int(np.argmin(np.abs(channels["quantile"].values - 0.5)))
    delta = float(np.median(channels["delta_quantile"].values[:, at]))
    symmetric = layers["eig_symmetric"].values
    positive = sorted({int(n) for n in (symmetric > 0).sum(axis=1)})
    negative = sorted({int(n) for n in (symmetric < 0).sum(axis=1)})
    t_c = layers["t_c"].values
    q = layers["q_positive_fraction"].values
    step = float(np.median(tokens["step_size"].values))
    scalar = (
        "A is one number per head, as the theory assumes"
        if spread < 1 + 1e-6
        else f"A is not scalar: within a channel the fastest state decays {spread:.3g} times as fast as the slowest"
    )
    return [
        "Where the theory's assumptions do not hold:",
        f"- {scalar}; the mean kernel kappa changes sign over the observed lags in {change:.0%} of channels.",
        f"- Delta has a bias: its median is {delta:.3g}, where the theory without bias has ln 2 = 0.69 at the origin.",
        f"- The paper's count of eigenvalue signs is void: M_sym has {_span(positive)} positive and {_span(negative)} "
        "negative eigenvalues in every layer, whatever was learned (inertia).",
        "- A gate, the skip D u, out_proj and a norm before the layer stand between q and the residual stream.",
        f"- Layers differ: the fraction of q > 0 spans {q.min():.2f} to {q.max():.2f}; the median step |dr|/|r| is "
        f"{step:.2g}, so depth is no continuous time.",
        f"- Depth is finite: t_c = 1/(2 |q| Delta) has median {np.median(t_c):.3g} (by layer {t_c.min():.3g} to "
        f"{t_c.max():.3g}) against {n_model} layers"
        + (f" ({n_layer} of them analysed)" if n_layer != n_model else "")
        + (": asymptotic regimes are out of reach." if np.median(t_c) > n_model else "."),
        "- Exponents along the sequence are A mean Delta, all negative by construction: they measure memory, not "
        "stability through depth.",
    ]


def _span(values: list[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"


def run(config: Config | None = None) -> xr.DataTree:
    """Measure everything in memory and return the dataset (nothing is written): `run(Config(layers=range(4)))`."""
    return base.run(sys.modules[__name__], config or Config())


if __name__ == "__main__":
    from ssmtheory.runner import main

    raise SystemExit(main("token_dynamics"))
