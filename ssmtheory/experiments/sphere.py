"""Directions of a trained model's tokens through depth, held against the theory of the pre-norm flow on the sphere.

With r = rho u a layer that normalises its input turns the direction by P_u F/rho. The theory
(`ssmtheory.dynamics.asymptotics.sphere`) has weight-tied, continuous depth; here each of its statements is measured on
a model that has neither.

Clustering (`depth`, `rates`). Theory: directions approach a limit as rho^{-x}, a power of the norm, not exponentially
in depth. Here: slope of ln sine against ln rho and against depth, with both fits' R^2, between tokens of one text, of
different texts (control), with the common direction removed, and to a token's own last direction (control: updates
orthogonal to all before, which come to a last direction, too).

First-token attraction (`anchors`, `rates`). Theory: later tokens turn to the first, sin ~ t^{-beta}, beta <= 1/2 for
one decay. Here: cosine to the own anchor token less that to other texts' anchor, for the first token and for later
ones, with an interval of permuted texts; the exponent of the angle to the own and to other texts' first token.

Limit directions (`layers`, `tied`). Theory: nonlinear eigenvectors, P_u F = 0. Here: |P_u F|/|F| of every layer,
turning against growth, what part of F different texts have in common; and the last layer applied again and again,
which is the theory's weight-tied flow (with steps of one) from where the model's tokens end. That flow is then followed
in ln t over many decades (`limits`): where a token comes to a limit u*, the theory's exponent 1 - mu/lambda is computed
from the layer's derivative at u* and held against the exponent of the path.

Everything "of other texts" is taken over texts of the same source: two authors' texts differ without any attraction.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmtheory.dynamics import concordance, depth, sphere
from ssmtheory.errors import ConfigError, InputError
from ssmtheory.experiments import base, token_dynamics
from ssmtheory.experiments._intervals import measured, said
from ssmtheory.results.schema import DatasetSchema, Dimension, Variable

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["ANCHORS", "MODELS", "QUANTITIES", "RANGES", "SCHEMA", "TITLE", "Config", "assemble", "directions",
           "measure", "plan", "run", "run_task", "tied_flow", "verdict"]  # fmt: skip

TITLE = "Directions of tokens through depth: clustering, attraction to the first token, limit directions"

MODELS = ("shakespeare-1m-step-0", "shakespeare-1m-step-128", "shakespeare-1m-step-1500", "shakespeare-1m")
#: positions of the anchor tokens: the first, and controls that stand later in the text
ANCHORS = (0, 1, 4, 8)
#: angles whose decline is fitted
QUANTITIES = (
    "pairs", "pairs_other", "pairs_centred", "first", "first_other", "last", "last_control",
)  # fmt: skip
RANGES = ("all", "second_half")
#: what the theory of limit directions says of a token, and what its path shows
LIMITS = ("growth", "abscissa", "own", "predicted", "measured", "ratio")
_RESAMPLES = 1000
_PERMUTATIONS = 1000
_LATE = 16  # tokens from here on are held against the anchors


def _f(dims: tuple[str, ...], units: str, long_name: str) -> Variable:
    return Variable(dims, "float64", units, long_name)


_M, _MD, _ML, _MI = ("model",), ("model", "depth"), ("model", "layer"), ("model", "iteration")
_MDA, _MQR = ("model", "depth", "anchor"), ("model", "quantity", "range")
_MP = ("model", "position")

SCHEMA = DatasetSchema(
    "sphere",
    2,
    groups={
        "models": {
            "sha256": Variable(_M, "str", "1", "sha256 of the model's weights"),
            "layers": Variable(_M, "int32", "1", "layers of the model"),
            "channels": Variable(_M, "int32", "1", "channels of the residual stream"),
            "training_step": _f(_M, "1", "optimiser steps taken (NaN: unknown)"),
            **measured("beta_median", _M, "1", "mean over texts of the median token's exponent to its first token"),
            **measured("above_half", _M, "1", "fraction of tokens whose exponent to their first token is above 1/2"),
            **measured("norm_linearity", _M, "1", "R^2 of mean ln |r| linear in depth; 1: the two laws look alike"),
            **measured("tied_exponent", _M, "1", "x in |P_u F|/|F| ~ |r|^-x, last layer repeated, second half"),
        },
        "depth": {
            **measured("log_norm", _MD, "1", "mean of ln |r|"),
            **measured("cosine", _MD, "1", "mean cosine of two tokens of one text"),
            **measured("cosine_other", _MD, "1", "mean cosine of tokens of different texts of one source"),
            **measured("cosine_excess", _MD, "1", "mean cosine within a text less that between texts"),
            **measured("cosine_centred", _MD, "1", "mean cosine within a text, the mean direction of others removed"),
            **measured("rank", _MD, "1", "effective rank of a text's directions"),
            **measured("rank_centred", _MD, "1", "effective rank, the mean direction of other texts removed"),
            **measured("sine", _MD, "1", "rms sine between two tokens of one text"),
            **measured("sine_centred", _MD, "1", "rms sine within a text, the mean direction of others removed"),
            **measured("sine_other", _MD, "1", "rms sine between tokens of different texts"),
            **measured("sine_first", _MD, "1", "rms sine of late tokens to their first token"),
            **measured("sine_first_other", _MD, "1", "rms sine of late tokens to the first token of other texts"),
            **measured("sine_last", _MD, "1", "rms sine of a token to its own last direction"),
            **measured("sine_last_control", _MD, "1", "the same if every update were orthogonal to all before"),
        },
        "anchors": {
            **measured("own", _MDA, "1", "mean cosine of late tokens to the own anchor token"),
            **measured("other", _MDA, "1", "mean cosine of late tokens to the anchor token of other texts"),
            **measured("excess", _MDA, "1", "own less other"),
            **measured("first_excess", _M, "1", "at the end: excess of the first token less the mean of the others'"),
            "null_low": _f(_MDA, "1", "2.5 % point of own with texts permuted, less other"),
            "null_high": _f(_MDA, "1", "97.5 % point of own with texts permuted, less other"),
            "p": _f(_MDA, "1", "share of permutations (and the identity) with at least the excess found"),
        },
        "layers": {
            **measured("along", _ML, "1", "mean of <u, F>/|F|"),
            **measured("residual", _ML, "1", "mean of |P_u F|/|F|: zero at a nonlinear eigenvector"),
            **measured("angle", _ML, "rad", "mean angle by which the layer turns a token"),
            **measured("growth", _ML, "1", "mean of ln |r| after less before"),
            **measured("common_share", _ML, "1", "share of mean |F|^2 that different texts have in common"),
            **measured("text_share", _ML, "1", "share of mean |F|^2 that tokens of one text have in common beyond it"),
            **measured("common_along", _ML, "1", "cosine of the common update to the common direction"),
            **measured("g", _ML, "1", "mean radial rate <u, F>/|r|"),
            **measured("g_common", _ML, "1", "mean radial rate of the common update of other texts"),
        },
        "rates": {
            **measured("exponent", _MQR, "1", "x in sine ~ |r|^-x: minus the slope of ln sine against ln |r|"),
            **measured("per_layer", _MQR, "1/layer", "minus the slope of ln sine against depth"),
            **measured("fit_norm", _MQR, "1", "R^2 of ln sine linear in ln |r|"),
            **measured("fit_depth", _MQR, "1", "R^2 of ln sine linear in depth"),
            **measured("fit_gain", _MQR, "1", "R^2 in ln |r| less R^2 in depth: > 0 for the theory's law"),
        },
        "tied": {
            **measured("residual", _MI, "1", "rms of |P_u F|/|F| after so many repetitions of the last layer"),
            **measured("log_norm", _MI, "1", "mean of ln |r|"),
            **measured("turn", _MI, "1", "mean cosine to the model's own last direction"),
            **measured("cosine", _MI, "1", "mean cosine of two tokens of one text"),
            **measured("cosine_other", _MI, "1", "mean cosine of tokens of different texts of one source"),
            **measured("first_excess", _MI, "1", "cosine of late tokens to the own first token less other texts'"),
        },
        "limits": {
            "settled": _f(_MP, "1", "fraction of texts whose token came to a limit direction: |P_u F|/|F| < 1e-7"),
            "directions": _f(_MP, "1", "number of different limit directions, of the texts whose token came to one"),
            **measured("growth", _MP, "1", "mean lambda, F(u*) = lambda u*, over settled tokens"),
            **measured("abscissa", _MP, "1", "mean mu, the spectral abscissa of a token's own derivative at u*"),
            **measured("own", _MP, "1", "mean 1 - mu/lambda of the token itself"),
            **measured("predicted", _MP, "1", "mean of the least 1 - mu/lambda of the token and those before it"),
            **measured("measured", _MP, "1", "mean x in |P_u F|/|F| ~ |r|^-x, last four decades of the path"),
            **measured("ratio", _MP, "1", "mean of measured over predicted"),
        },
    },
    dimensions={
        "model": Dimension("model"),
        "anchor": Dimension("position of the anchor token"),
        "quantity": Dimension("angle whose decline is fitted"),
        "range": Dimension("depths that are fitted"),
        "iteration": Dimension("repetitions of the last layer"),
        "position": Dimension("position of the token in its sequence"),
    },
)


@dataclass(frozen=True)
class Config:
    """Which models, on which text."""

    models: tuple[str, ...] = field(
        default=MODELS, metadata={"help": "embedded models, folders with config.json and weights, or hf:ORG/NAME"}
    )
    text: str = field(default="", metadata={"help": "UTF-8 text file, '-' for stdin; empty: held-out embedded text"})
    tokens: int = field(default=128, metadata={"help": "tokens per sequence"})
    sequences: int = field(default=16, metadata={"help": "sequences, evenly spaced; two per source or more"})
    repetitions: int = field(default=256, metadata={"help": "how often the last layer is applied again"})
    tied_tokens: int = field(default=32, metadata={"help": "tokens per sequence that pass the repeated last layer"})
    limit_tokens: int = field(default=4, metadata={"help": "tokens per sequence followed to their limit directions"})
    limit_span: float = field(default=60.0, metadata={"help": "how far they are followed, in ln of the depth"})
    seed: int = field(default=0, metadata={"help": "of the bootstrap and of the permutations"})


# ---------------------------------------------------------------------- plan
@dataclass
class _Context:
    models: list[Any]
    steps: list[float]
    windows: list[list[Any]]
    config: Config


def plan(config: Config) -> base.Plan:
    """Load the models and cut the text.

    Raises:
        InputError: unknown or damaged model, hybrids, unusable text.
        ConfigError: an option has an impossible value, or a source has one text only.
    """
    from ssmtheory import mamba
    from ssmtheory.experiments.concordance import _training_step

    least = {"tokens": _LATE + 2, "sequences": 2, "repetitions": 8, "tied_tokens": 2, "limit_tokens": 1,
             "limit_span": 1, "seed": 0}  # fmt: skip
    for option, smallest in least.items():
        if getattr(config, option) < smallest:
            raise ConfigError(f"--{option} {getattr(config, option)}: must be at least {smallest}")
    if config.limit_tokens > config.tied_tokens:
        raise ConfigError(f"--limit_tokens {config.limit_tokens}: must not exceed --tied_tokens {config.tied_tokens}")
    if not config.models:
        raise ConfigError("--models is empty: name at least one model")
    reading = token_dynamics.Config(text=config.text, tokens=config.tokens, sequences=config.sequences)
    models, windows, steps = [], [], []
    for name in config.models:
        model = mamba.load(name, backend="numpy")
        if not isinstance(model, mamba.MambaLM):
            raise InputError(f"{model.name} is a hybrid with other layers than Mamba's: no token can be followed")
        models.append(model)
        windows.append(token_dynamics.plan_model(model, reading).context.windows)
        steps.append(_training_step(name))
        names = [w.source.name for w in windows[-1]]
        lonely = [each for each in sorted(set(names)) if names.count(each) < 2]
        if lonely:
            raise ConfigError(
                f"--sequences {config.sequences}: {lonely[0]} gets one text only, which has no other of its source to "
                f"be held against; at least {2 * len(set(names))} are needed"
            )
    names = [m.name for m in models]
    if len(set(names)) < len(names):
        raise ConfigError(f"--models {', '.join(config.models)}: each model once")
    return base.Plan(
        resolved={
            "models": {m.name: m.sha256 for m in models},
            "text": sorted({(w.source.name, w.source.sha256) for each in windows for w in each}),
            "tokens": config.tokens, "sequences": config.sequences, "repetitions": config.repetitions,
            "tied_tokens": config.tied_tokens, "limit_tokens": config.limit_tokens,
            "limit_span": config.limit_span, "seed": config.seed,
        },
        tasks=[f"{i}" for i in range(len(models))],
        describe={
            "models": ", ".join(f"{m.name} ({m.config.parameters:,} parameters)" for m in models),
            "tasks": f"{len(models)} models, {config.sequences} sequences of {config.tokens} tokens each",
        },
        result_bytes=8 * len(models) * max(m.n_layer for m in models) * 200,
        context=_Context(models, steps, windows, config),
        task_noun="model",
    )  # fmt: skip


# ---------------------------------------------------------------------- one model
def directions(model: Any, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Residual stream before every layer and after the last, and the layers' updates.

    Args:
        model: a `MambaLM`; ids: (text, token).

    Returns:
        (depth, text, token, channel) and (layer, text, token, channel), float64.
    """
    found: list[np.ndarray] = []
    updates: list[np.ndarray] = []

    def tap(_: int, signals: Any) -> None:
        found.append(np.asarray(signals.residual, np.float64))
        updates.append(np.asarray(signals.update, np.float64))

    model(ids, tap=tap, logits="none")
    found.append(found[-1] + updates[-1])
    residual = np.stack(found)
    if not np.isfinite(residual).all() or not np.linalg.norm(residual, axis=-1).all():
        raise InputError(f"{model.name}: the residual stream is zero or not finite")
    return residual, np.stack(updates)


def _other_mean(x: np.ndarray, comparable: np.ndarray) -> np.ndarray:
    """Mean of (..., text, channel) over the other comparable texts, for each text."""
    mask = comparable & ~np.eye(len(comparable), dtype=bool)
    return np.asarray((mask / mask.sum(axis=1, keepdims=True)) @ x)


def measure(residual: np.ndarray, update: np.ndarray, comparable: np.ndarray) -> dict[str, np.ndarray]:
    """What is averaged over texts: per text, or of text i with text j.

    Args:
        residual: (depth, text, token, channel); update: (layer, text, token, channel).
        comparable: (text, text) bool, texts of one source.

    Returns:
        name -> (text, depth or layer), (text,), or for names "x_..." (depth or layer, text, text).
    """
    norm, u = np.linalg.norm(residual, axis=-1), sphere.unit(residual)
    mean = u.mean(axis=2)
    tokens = u.shape[2]
    centred = sphere.unit(u - _other_mean(mean, comparable)[:, :, None, :])
    late = np.arange(tokens) >= _LATE
    late_mean = u[:, :, late].mean(axis=2)
    out: dict[str, np.ndarray] = {
        "log_norm": np.log(norm).mean(axis=2).T,
        "late_log_norm": np.log(norm[:, :, late]).mean(axis=2).T,
        "cosine_centred": sphere.mean_pair_cosine(centred).T,
        "rank": sphere.effective_rank(u).T,
        "rank_centred": sphere.effective_rank(centred).T,
        "sine_centred": sphere.pair_sine(centred).T,
        "sine_last": _square_sine(u, u[-1:]).mean(axis=2).T,
        "sine_last_control": np.moveaxis(sphere.independent_sine(np.moveaxis(norm, 0, -1)), -1, 0).mean(axis=2).T,
    }
    out["x_cosine"] = _with_diagonal(mean @ np.swapaxes(mean, -1, -2), sphere.mean_pair_cosine(u))
    # the mean squared cosine between two texts is the product of their second moments: no (token, token) matrix
    sines = []
    for at in u:
        moment = (np.swapaxes(at, -1, -2) @ at / tokens).reshape(len(at), -1)
        sines.append(_with_diagonal(1.0 - moment @ moment.T, sphere.pair_sine(at)))
    out["x_sine"] = np.stack(sines)
    first = u[:, :, 0]
    onto = np.einsum("ktld,kjd->ktjl", u[:, :, late], first)
    out["x_sine_first"] = (1.0 - onto**2).mean(axis=3)
    anchors = [late_mean @ np.swapaxes(u[:, :, a], -1, -2) for a in ANCHORS]
    out["x_anchor"] = np.stack(anchors, axis=1)
    # each late token's own exponent to its first token
    own = _square_sine(u[:, :, late], first[:, :, None])
    with np.errstate(divide="ignore"):
        beta = -sphere.power_fit(
            np.log(norm[1:, :, late]).transpose(1, 2, 0), 0.5 * np.log(own[1:]).transpose(1, 2, 0)
        )[0]
    out["beta_median"], out["above_half"] = np.median(beta, axis=1), (beta > 0.5).mean(axis=1)

    along, across = sphere.tangential_share(residual[:-1], update)
    out["along"], out["residual"] = along.mean(axis=2).T, across.mean(axis=2).T
    g, angle = depth.motion(residual[:-1], update)[1::2]
    out["g"], out["angle"] = g.mean(axis=2).T, angle.mean(axis=2).T
    moved = update.mean(axis=2)
    square = np.einsum("ktld,ktld->kt", update, update)
    total = np.einsum("ktd,ktd->kt", moved, moved) * tokens**2
    out["square"] = (square / tokens).T
    out["x_update"] = _with_diagonal(moved @ np.swapaxes(moved, -1, -2), (total - square) / (tokens * (tokens - 1)))
    out["x_update_direction"] = moved @ np.swapaxes(mean[:-1], -1, -2)
    out["x_radial"] = (u[:-1] / norm[:-1, ..., None]).mean(axis=2) @ np.swapaxes(moved, -1, -2)
    return out


def _square_sine(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Squared sine between unit vectors, by the vector: small angles keep their digits."""
    cosine = np.einsum("...d,...d->...", u, v)
    return np.asarray(np.sum((u - cosine[..., None] * v) ** 2, axis=-1))


def _with_diagonal(matrix: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
    out = matrix.copy()
    rows = np.arange(matrix.shape[-1])
    out[..., rows, rows] = diagonal
    return out


def iterations(repetitions: int) -> np.ndarray:
    """0, 1, 2, 3, 4, 6, 8, ... up to the number of repetitions: where the repeated layer is looked at."""
    return np.unique(np.round(np.concatenate([[0.0], np.geomspace(1, repetitions, 17)])).astype(int))


def tied_flow(model: Any, residual: np.ndarray, repetitions: int) -> dict[str, np.ndarray]:
    """Apply the last layer again and again, to all tokens of a text together: weight-tied depth from where they ended.

    Args:
        model: a `MambaLM`; residual: (text, token, channel) after the last layer; repetitions: how often.

    Returns:
        name -> (text, iteration): squared residual |P_u F|^2/|F|^2, mean ln |r|, cosine to the start; and
        (iteration, text, text): cosine of tokens, and of the second half's tokens to the first token;
        "tied_end": (text, token, channel) after the last repetition.
    """
    from ssmtheory.mamba.forward import layer_map

    wanted = set(iterations(repetitions).tolist())
    names = ("tied_residual", "tied_log_norm", "tied_turn")
    rows: dict[str, list[np.ndarray]] = {name: [] for name in (*names, "x_tied_cosine", "x_tied_first")}
    r, start = residual, sphere.unit(residual)
    for step in range(repetitions + 1):
        after = layer_map(model.weights, model.config, model.n_layer - 1, r, backend=model.backend.asked)
        if step in wanted:
            u = sphere.unit(r)
            rows["tied_residual"].append((sphere.tangential_share(r, after - r)[1] ** 2).mean(axis=1))
            rows["tied_log_norm"].append(np.log(np.linalg.norm(r, axis=-1)).mean(axis=1))
            rows["tied_turn"].append(np.einsum("tld,tld->t", u, start) / u.shape[1])
            mean, late = u.mean(axis=1), u[:, u.shape[1] // 2 :].mean(axis=1)
            rows["x_tied_cosine"].append(_with_diagonal(mean @ mean.T, sphere.mean_pair_cosine(u)))
            rows["x_tied_first"].append(late @ u[:, 0].T)
        end, r = r, after
    out = {name: np.stack(values, axis=1 if name in names else 0) for name, values in rows.items()}
    if not np.isfinite(out["tied_log_norm"]).all():
        raise InputError(f"{model.name}: the repeated last layer overflows; use fewer --repetitions")
    return out | {"tied_end": end}


def limits(model: Any, residual: np.ndarray, depth: float, span: float) -> dict[str, np.ndarray]:
    """Follow tokens of the repeated last layer to their limit directions: the theory's exponents and the path's.

    Args:
        model: a `MambaLM`; residual: (text, token, channel) after `depth` repetitions; span: how far, in ln t.

    Returns:
        "limit_" + name of `LIMITS` -> (text, token), NaN where a token, or one before it, did not settle;
        "limit_settled": (text, token); "limit_direction": (text, token, channel).
    """
    from ssmtheory.mamba.forward import layer_map

    def update(u: np.ndarray) -> np.ndarray:
        # far out on the ray the norm's epsilon is below rounding
        far = 1e3 * u
        return np.asarray(
            layer_map(model.weights, model.config, model.n_layer - 1, far, backend=model.backend.asked) - far
        )

    flow = sphere.limit_flow(update, residual, depth=depth, span=span)
    settled = np.logical_and.accumulate(np.isfinite(flow.exponent), axis=1)
    abscissa = np.full(settled.shape, np.nan)
    for text, token in np.argwhere(settled):
        derivative = sphere.own_derivative(update, flow.direction[text], int(token))
        abscissa[text, token] = np.linalg.eigvals(derivative).real.max()
    growth = np.where(settled, flow.growth, np.nan)
    own = np.where(growth > 0, 1.0 - abscissa / growth, np.nan)
    predicted = np.minimum.accumulate(own, axis=1)
    exponent = np.where(settled, flow.exponent, np.nan)
    values = (growth, abscissa, own, predicted, exponent, exponent / predicted)
    return {f"limit_{name}": value for name, value in zip(LIMITS, values, strict=True)} | {
        "limit_settled": settled, "limit_direction": flow.direction,
    }  # fmt: skip


def _different(directions: np.ndarray) -> int:
    """How many of (text, channel) unit vectors differ by more than 1e-4."""
    kept: list[np.ndarray] = []
    for each in directions:
        if all(np.linalg.norm(each - other) > 1e-4 for other in kept):
            kept.append(each)
    return len(kept)


def _groups(windows: list[Any]) -> np.ndarray:
    """Number of each text's source."""
    names = [w.source.name for w in windows]
    return np.array([sorted(set(names)).index(name) for name in names])


def run_task(plan: base.Plan, key: str) -> dict[str, np.ndarray]:
    """Measure one model on all texts."""
    context: _Context = plan.context
    model, windows, config = context.models[int(key)], context.windows[int(key)], context.config
    ids = np.stack([w.source.tokens[w.start : w.start + config.tokens] for w in windows])
    residual, update = directions(model, ids)
    group = _groups(windows)
    out = measure(residual, update, group[:, None] == group)
    out |= tied_flow(model, residual[-1][:, : config.tied_tokens], config.repetitions)
    end = out.pop("tied_end")[:, : config.limit_tokens]
    out |= limits(model, end, float(config.repetitions), config.limit_span)
    # texts that begin alike have the very same anchor, which is no control
    same = np.stack([(ids[:, None, : a + 1] == ids[None, :, : a + 1]).all(axis=2) for a in ANCHORS])
    return out | {"group": group, "same_anchor": same}


# ---------------------------------------------------------------------- all texts of one model
def _with_interval(name: str, resampled: np.ndarray) -> dict[str, np.ndarray]:
    """Point value (first row) and percentile interval (the others).

    A resample may lack a number (of two texts it draws one twice; a logarithm of zero): the interval leaves it out, and
    there is none where this is so in more than one of twenty.
    """
    rows = np.where(np.isfinite(resampled), resampled, np.nan)
    known = np.isfinite(rows[1:]).mean(axis=0) > 0.95
    low, high = np.full(known.shape, np.nan), np.full(known.shape, np.nan)
    if known.any():
        chosen = rows[1:][:, known]
        # nanquantile goes column by column, many times slower
        quantile = np.quantile if np.isfinite(chosen).all() else np.nanquantile
        low[known], high[known] = quantile(chosen, [0.025, 0.975], axis=0)
    return {name: rows[0], f"{name}_low": low, f"{name}_high": high}


def _one_model(values: Mapping[str, np.ndarray], seed: int) -> dict[str, dict[str, np.ndarray]]:
    """The dataset's numbers of one model: group -> variable -> array."""
    group = values["group"]
    n = len(group)
    weights = np.concatenate([np.ones((1, n)), concordance.bootstrap_counts(n, _RESAMPLES, seed)])
    # a resample that leaves a source with one text has no control there, the other sources remain
    comparable = group[:, None] == group

    def mean(name: str) -> np.ndarray:
        return np.asarray(weights @ values[name] / n)

    def pair(name: str, mask: np.ndarray = comparable) -> tuple[np.ndarray, np.ndarray]:
        return sphere.own_and_other(weights, values[name], mask)

    same = values["same_anchor"].astype(bool)
    cosine, cosine_other = pair("x_cosine")
    sine, sine_other = pair("x_sine")
    first, first_other = pair("x_sine_first", comparable & ~same[0])
    own, other = pair("x_anchor", comparable & ~same)
    squares = {
        "pairs": sine, "pairs_other": sine_other, "pairs_centred": mean("sine_centred"), "first": first,
        "first_other": first_other, "last": mean("sine_last"), "last_control": mean("sine_last_control"),
    }  # fmt: skip
    log_norm, late_log_norm = mean("log_norm"), mean("late_log_norm")
    at_depth = {
        **_with_interval("log_norm", log_norm),
        **_with_interval("cosine", cosine),
        **_with_interval("cosine_other", cosine_other),
        **_with_interval("cosine_excess", cosine - cosine_other),
        **_with_interval("cosine_centred", mean("cosine_centred")),
        **_with_interval("rank", mean("rank")),
        **_with_interval("rank_centred", mean("rank_centred")),
        **{
            k: v
            for name, source in (
                ("sine", "pairs"), ("sine_other", "pairs_other"), ("sine_centred", "pairs_centred"),
                ("sine_first", "first"), ("sine_first_other", "first_other"), ("sine_last", "last"),
                ("sine_last_control", "last_control"),
            )
            for k, v in _with_interval(name, np.sqrt(squares[source])).items()
        },
    }  # fmt: skip

    excess = own - other  # (resample, depth, anchor)
    # the permuted own cosine against the same control as the measured one
    found, null = sphere.excess(values["x_anchor"], comparable & ~same, group, _PERMUTATIONS, seed)
    ends = np.quantile(null, [0.025, 0.975], axis=0) - other[0]
    anchors = {
        **_with_interval("own", own),
        **_with_interval("other", other),
        **_with_interval("excess", excess),
        **_with_interval("first_excess", excess[:, -1, 0] - excess[:, -1, 1:].mean(axis=1)),
        "null_low": ends[0],
        "null_high": ends[1],
        "p": (1 + (null >= found - 1e-12).sum(axis=0)) / (1 + len(null)),
    }

    share_text, share_common = pair("x_update")
    square = mean("square")
    update_direction = pair("x_update_direction")[1]
    with np.errstate(invalid="ignore"):
        common_along = update_direction / np.sqrt(share_common * cosine_other[:, :-1])
    layers = {
        **{k: v for name in ("along", "residual", "angle", "g") for k, v in _with_interval(name, mean(name)).items()},
        **_with_interval("growth", np.diff(log_norm, axis=1)),
        **_with_interval("common_share", share_common / square),
        **_with_interval("text_share", (share_text - share_common) / square),
        **_with_interval("common_along", common_along),
        **_with_interval("g_common", pair("x_radial")[1]),
    }

    depths = log_norm.shape[1]
    k = np.arange(depths, dtype=np.float64)
    rates: dict[str, list[list[np.ndarray]]] = {}
    for name in QUANTITIES:
        x = late_log_norm if name.startswith("first") else log_norm
        by_range = []
        for start in (0, depths // 2):
            # at the last depth the angle to the last direction is zero
            stop = depths - 1 if name.startswith("last") else depths
            with np.errstate(divide="ignore", invalid="ignore"):
                y = 0.5 * np.log(squares[name][:, start:stop])
                slope, fit = sphere.power_fit(x[:, start:stop], y)
                layer, fit_layer = sphere.power_fit(np.broadcast_to(k[start:stop], y.shape), y)
            by_range.append([-slope, -layer, fit, fit_layer, fit - fit_layer])
        rates[name] = by_range
    stacked = np.array([rates[name] for name in QUANTITIES])  # (quantity, range, number, resample)
    numbers = ("exponent", "per_layer", "fit_norm", "fit_depth", "fit_gain")
    fitted = {
        k: v
        for i, name in enumerate(numbers)
        for k, v in _with_interval(name, np.moveaxis(stacked[:, :, i], -1, 0)).items()
    }

    tied_square, tied_norm = mean("tied_residual"), mean("tied_log_norm")
    half = tied_square.shape[1] // 2
    with np.errstate(divide="ignore", invalid="ignore"):
        tied_exponent = -sphere.power_fit(tied_norm[:, half:], 0.5 * np.log(tied_square[:, half:]))[0]
    tied_cosine, tied_other = pair("x_tied_cosine")
    tied_first, tied_first_other = pair("x_tied_first", comparable & ~same[0])
    tied = {
        **_with_interval("residual", np.sqrt(tied_square)),
        **_with_interval("log_norm", tied_norm),
        **_with_interval("turn", mean("tied_turn")),
        **_with_interval("cosine", tied_cosine),
        **_with_interval("cosine_other", tied_other),
        **_with_interval("first_excess", tied_first - tied_first_other),
    }
    overall = {
        **_with_interval("beta_median", mean("beta_median")),
        **_with_interval("above_half", mean("above_half")),
        **_with_interval("norm_linearity", sphere.power_fit(np.broadcast_to(k, log_norm.shape), log_norm)[1]),
        **_with_interval("tied_exponent", tied_exponent),
    }
    settled = values["limit_settled"].astype(bool)
    reached: dict[str, np.ndarray] = {
        "settled": settled.mean(axis=0),
        "directions": np.array(
            [_different(values["limit_direction"][settled[:, p], p]) for p in range(settled.shape[1])], np.float64
        ),
    }
    for name in LIMITS:
        with np.errstate(invalid="ignore"):
            over_settled = weights @ np.where(settled, values[f"limit_{name}"], 0.0) / (weights @ settled)
        reached |= _with_interval(name, over_settled)
    return {
        "models": overall, "depth": at_depth, "anchors": anchors, "layers": layers, "rates": fitted, "tied": tied,
        "limits": reached,
    }  # fmt: skip


def assemble(plan: base.Plan, parts: Mapping[str, Mapping[str, np.ndarray]]) -> xr.DataTree:
    """Resample the texts of every model; put the models side by side."""
    import xarray as xr

    context: _Context = plan.context
    config, models = context.config, context.models
    results = [_one_model(parts[key], config.seed) for key in plan.tasks]
    about = {
        "sha256": np.array([m.sha256 for m in models], dtype=object),
        "layers": np.array([m.n_layer for m in models]),
        "channels": np.array([m.config.d_model for m in models]),
        "training_step": np.array(context.steps),
    }
    layers = int(about["layers"].max())
    known = {
        "model": np.array([m.name for m in models], dtype=object), "depth": np.arange(layers + 1),
        "layer": np.arange(layers), "anchor": np.array(ANCHORS), "quantity": np.array(QUANTITIES, dtype=object),
        "range": np.array(RANGES, dtype=object), "iteration": iterations(config.repetitions),
        "position": np.arange(config.limit_tokens),
    }  # fmt: skip
    groups = {}
    for path, declared in SCHEMA.groups.items():
        data = {}
        for name, v in declared.items():
            if path == "/models" and name in about:
                data[name] = (v.dims, about[name].astype(object if v.dtype == "str" else v.dtype))
                continue
            array: Any = np.full((len(results), *(len(known[d]) for d in v.dims[1:])), np.nan)
            for i, groups_of_model in enumerate(results):
                value = groups_of_model[path.strip("/")][name]
                array[(i, *(slice(0, n) for n in np.shape(value)))] = value
            data[name] = (v.dims, array)
        used = {d for dims, _ in data.values() for d in dims}
        groups[path] = xr.Dataset(data, coords={d: known[d] for d in sorted(used)})
    return xr.DataTree.from_dict(groups)


# ---------------------------------------------------------------------- in words
def verdict(tree: xr.DataTree) -> list[str]:
    """Say for each model which statements of the theory its directions follow, with intervals."""
    models, deep, anchors, layers, rates, tied, reached = (
        tree[name].to_dataset() for name in ("models", "depth", "anchors", "layers", "rates", "tied", "limits")
    )
    last_step = int(tied["iteration"].values[-1])
    out = []
    for i, model in enumerate(str(m) for m in models["model"].values):
        K = int(models["layers"].values[i])
        end: Any = {"model": i, "depth": K}

        def rate(name: str, quantity: str, i: int = i) -> str:
            return said(rates, name, model=i, range=1, quantity=QUANTITIES.index(quantity))

        beyond = float(deep["cosine_excess_low"].isel(end)) > 0
        least = int(np.argmin(deep["cosine"].values[i, : K + 1]))
        out.append(
            f"{model} (sha256 {models['sha256'].values[i][:12]}): clustering "
            f"{'beyond' if beyond else 'no more than'} what all texts share: the mean cosine of a text's "
            f"tokens goes from {said(deep, 'cosine', model=i, depth=least)} at depth {least} to "
            f"{said(deep, 'cosine', **end)} at the end, between texts it ends at {said(deep, 'cosine_other', **end)} "
            f"(difference {said(deep, 'cosine_excess', '+.3f', **end)}); with the common direction removed "
            f"{said(deep, 'cosine_centred', **end)}. Effective rank of the directions "
            f"{said(deep, 'rank', '.1f', **end)}, at most {float(np.nanmax(deep['rank'].values[i])):.1f} on the way."
        )
        out.append(
            f"  Rate, second half of the layers: sine ~ |r|^-x with x = {rate('exponent', 'pairs')} "
            f"({rate('per_layer', 'pairs')} per layer), between texts {rate('exponent', 'pairs_other')}, common "
            f"direction removed {rate('exponent', 'pairs_centred')}; R^2 against ln |r| less R^2 against depth "
            f"{rate('fit_gain', 'pairs')}; over all layers x = "
            f"{said(rates, 'exponent', model=i, range=0, quantity=0)}. ln |r| itself is linear in depth with R^2 = "
            f"{said(models, 'norm_linearity', model=i)}."
        )
        first: Any = {"model": i, "depth": K, "anchor": 0}
        pulled = float(anchors["excess_low"].isel(first)) > 0 and float(anchors["p"].isel(first)) < 0.05
        special = pulled and float(anchors["first_excess_low"].values[i]) > 0
        found = "attraction to the first token" if special else "a pull of the text" if pulled else "none"
        out.append(
            f"  First-token attraction: {found}. Cosine to the own first token less other texts' "
            f"{said(anchors, 'excess', '+.3f', **first)} (permuted [{float(anchors['null_low'].isel(first)):+.3f}, "
            f"{float(anchors['null_high'].isel(first)):+.3f}], p = {float(anchors['p'].isel(first)):.2g}), less the "
            f"same for tokens {', '.join(str(a) for a in ANCHORS[1:])}: "
            f"{said(anchors, 'first_excess', '+.3f', model=i)}; exponent {rate('exponent', 'first')} to the own, "
            f"{rate('exponent', 'first_other')} to another first token (bound 1/2), above 1/2 at "
            f"{said(models, 'above_half', '.1%', model=i)} of tokens."
        )
        d = int(models["channels"].values[i])
        final: Any = {"model": i, "layer": K - 1}
        nearest = int(np.argmin(layers["residual"].values[i, :K]))
        out.append(
            f"  Limit directions: |P_u F|/|F| = {said(layers, 'residual', **final)} in the last layer, least "
            f"{said(layers, 'residual', model=i, layer=nearest)} in layer {nearest} (random "
            f"{np.sqrt(1 - 1 / d):.3f}, nonlinear eigenvector 0); the last layer turns a token by "
            f"{said(layers, 'angle', **final)} rad while ln |r| grows by {said(layers, 'growth', **final)}. Sine to "
            f"the own last direction falls with x = {rate('exponent', 'last')}, with orthogonal updates it would be "
            f"{rate('exponent', 'last_control')}."
        )
        at: Any = {"model": i, "iteration": -1}
        out.append(
            f"  The last layer repeated {last_step} times: |P_u F|/|F| falls from "
            f"{said(tied, 'residual', model=i, iteration=0)} to {said(tied, 'residual', **at)}, as |r|^-x with x = "
            f"{said(models, 'tied_exponent', model=i)}; cosine to the model's own last direction "
            f"{said(tied, 'turn', **at)}; cosine of tokens {said(tied, 'cosine', **at)}, between texts "
            f"{said(tied, 'cosine_other', **at)}; to the own first token less others' "
            f"{said(tied, 'first_excess', '+.3f', **at)}."
        )
        share = reached["settled"].values[i]
        told = f"  Followed on in ln t, {share[0]:.0%} of first tokens come to a limit direction"
        if share[0] > 0:
            told += f" ({int(reached['directions'].values[i, 0])} different ones)"
        for p in range(len(share)):
            if share[p] > 0:
                told += (
                    f"; token {p} ({share[p]:.0%}): 1 - mu/lambda = {said(reached, 'predicted', model=i, position=p)}, "
                    f"measured over predicted {said(reached, 'ratio', '.4f', model=i, position=p)}"
                )
        out.append(told + ".")
        out.append(
            f"  Update of the last layer: {said(layers, 'common_share', '.1%', **final)} of |F|^2 is common to texts "
            f"(cosine to the common direction {said(layers, 'common_along', '+.2f', **final)}), "
            f"{said(layers, 'text_share', '.1%', **final)} more to the tokens of one text; it gives "
            f"{said(layers, 'g_common', '+.3f', **final)} of the radial rate {said(layers, 'g', '+.3f', **final)}."
        )
    out.append(
        "Intervals: 95 % bootstrap over texts of a fixed model; other texts are of the same source. The theory is of "
        "continuous, weight-tied depth: only the repeated layer is such a flow."
    )
    return out


def run(config: Config | None = None) -> xr.DataTree:
    """Measure everything in memory and return the dataset (nothing is written)."""
    return base.run(sys.modules[__name__], config or Config())


if __name__ == "__main__":
    from ssmtheory.runner import main

    raise SystemExit(main("sphere"))
