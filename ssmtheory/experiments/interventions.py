"""What a pretrained Mamba loses when one of its layers, or all, are changed as the theory would have it.

With S_B, S_C the rows of x_proj that make B and C, M = S_C^T S_B has rank N, M_sym = (M + M^T)/2 = M_+ - M_- with M_+
and M_- positive semidefinite of rank N each (inertia N, N), M_anti = (M - M^T)/2. Each change below is a layer with
weights of its own, exact in what it says, and needs no other code than the model's:

| intervention | M becomes | how the layer has it |
|---|---|---|
| positive | M_+ | N states, S_B' = S_C' = O F_+, F_+^T F_+ = M_+ |
| negative | -M_- | N states, S_B' = -S_C' = O F_-, F_-^T F_- = M_- |
| positive, antisymmetric kept | M_+ + M_anti = M + M_- | 2N states: S_B, S_C as they are, and O F_- twice |
| symmetric | M_sym | 2N states: S_B' = [S_B; S_C]/sqrt 2, S_C' = [S_C; S_B]/sqrt 2; symmetric at every lag |
| antisymmetric | M_anti (q = 0) | 2N states: S_B' = [S_B; -S_C]/sqrt 2, S_C' = [S_C; S_B]/sqrt 2 |
| flipped | -M | S_C' = -S_C |
| noise as X | as far from M as X's (Frobenius norm) | Gaussian noise on S_B and S_C, its size found by bisection |
| noise in range as X | the same, within the range of M_sym | rows of the noise combine those of S_B and S_C |
| Delta x c | M, Delta_t becomes c Delta_t | A' = c A, D' = D/c, W_out' = c W_out |
| decay x 4 | M, A' = 4 A, writes unchanged | A_log' = A_log + ln 4 |
| reset k | M, h = 0 before every k-th token | the scan starts anew; the convolution goes on |
| skip only, no skip, mixer off | | C = 0; D = 0; W_out = 0 |

With diagonal A the states are told apart by their decays, so M alone does not fix the layer: a doubled layer has the
same decays twice, and the rotation O is the one that brings O F_+ nearest to (S_B + S_C)/2, O F_- to (S_B - S_C)/2
(Procrustes), what they would be where S_B = S_C, or S_B = -S_C, already.

The changes of M need B and C linear in u (Mamba-1); the others hold for every family (Delta x c in Mamba-2 up to the
epsilon of its norm). The outcome is the change of the loss on held-out text [bit/byte], one layer at a time and all
together, paired by sequence, with a bootstrap over sequences.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmtheory.dynamics import concordance
from ssmtheory.errors import BackendError, ConfigError, InputError, nearest
from ssmtheory.experiments import base, token_dynamics
from ssmtheory.experiments._intervals import measured, said
from ssmtheory.results.schema import DatasetSchema, Dimension, Variable

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["CONTROLS", "KINDS", "OF_M", "SCHEMA", "TITLE", "Changed", "Config", "assemble", "change", "plan", "run",
           "run_task", "symmetric_factors", "verdict"]  # fmt: skip

TITLE = "Interventions in the layers of a pretrained Mamba, and what they cost"

#: interventions on the input-output matrix M
_CHANGES_OF_M = ("positive", "negative", "positive, antisymmetric kept", "symmetric", "antisymmetric", "flipped")
_CONTROLLED = ("positive", "positive, antisymmetric kept", "symmetric")
#: (intervention, its control of equal distance)
CONTROLS = tuple((kind, f"{noise} as {kind}") for kind in _CONTROLLED for noise in ("noise", "noise in range"))
OF_M = (*_CHANGES_OF_M, *(control for _, control in CONTROLS))
_SCALES = {"Delta x 0.5": 0.5, "Delta x 2": 2.0, "Delta x 4": 4.0}
_RESETS = {"reset 16": 16, "reset 4": 4, "reset 1": 1}
KINDS = (*OF_M, *_SCALES, "decay x 4", *_RESETS, "skip only", "no skip", "mixer off")


_IL, _I, _P = ("intervention", "layer"), ("intervention",), ("pair",)

SCHEMA = DatasetSchema(
    "interventions",
    1,
    groups={
        "text": {
            "source": Variable(("sequence",), "str", "1", "text that the sequence was taken from"),
            "start": Variable(("sequence",), "int64", "token", "position of the sequence's first token in its text"),
            "n_bytes": Variable(("sequence",), "int64", "byte", "bytes of the predicted tokens"),
            "bits_per_byte": Variable(("sequence",), "float64", "bit", "loss of the unchanged model, per byte"),
            **measured("loss", (), "bit", "mean loss of the unchanged model, per byte"),
        },
        "layers": {
            **measured("change", _IL, "bit", "change of the loss per byte, this layer changed"),
            "change_by_sequence": Variable(
                ("intervention", "layer", "sequence"), "float64", "bit", "change of the loss per byte, by sequence"
            ),
            "distance": Variable(_IL, "float64", "1", "|M' - M|/|M| (Frobenius; NaN: M is not what changes)"),
        },
        "all": {
            **measured("change", _I, "bit", "change of the loss per byte, all layers changed"),
            "change_by_sequence": Variable(
                ("intervention", "sequence"), "float64", "bit", "change of the loss per byte, by sequence"
            ),
            **measured("mean_change", _I, "bit", "mean over layers of the change by one layer"),
            "states": Variable(_I, "int32", "1", "states of a channel in the changed layers"),
        },
        "controls": {
            **measured("mean_difference", _P, "bit", "mean over layers of change less that of the random control"),
            **measured("all_difference", _P, "bit", "all layers: change less that of the random control"),
        },
    },
    dimensions={
        "intervention": Dimension("intervention"),
        "pair": Dimension("intervention less noise that takes M equally far (Frobenius norm)"),
    },
)


@dataclass(frozen=True)
class Config:
    """Which model, which interventions, on which text."""

    model: str = field(
        default="shakespeare-1m",
        metadata={"help": "embedded model, folder with config.json and weights, or hf:ORG/NAME"},
    )
    interventions: tuple[str, ...] = field(
        default=(), metadata={"help": "names of the module's table; none: all that the family of the model admits"}
    )
    text: str = field(default="", metadata={"help": "UTF-8 text file, '-' for stdin; empty: held-out embedded text"})
    tokens: int = field(default=256, metadata={"help": "tokens per sequence"})
    sequences: int = field(default=16, metadata={"help": "sequences, evenly spaced in the text; two or more"})
    backend: str = field(default="auto", metadata={"help": "numpy (float64) or c (float32); auto: c where it is built"})
    seed: int = field(default=0, metadata={"help": "of the random controls and of the bootstrap"})


# ---------------------------------------------------------------------- one changed layer
@dataclass(frozen=True)
class Changed:
    """A layer with weights of its own.

    weights: name below the mixer -> array, what is replaced.
    states: of a channel.
    reset: the state is forgotten before every such token; 0: never.
    distance: |M' - M|_F/|M|_F; NaN where M stays, or is not what decides.
    """

    weights: Mapping[str, np.ndarray]
    states: int
    reset: int = 0
    distance: float = math.nan


def _norm_of_product(left: np.ndarray, right: np.ndarray) -> float:
    """|left^T right|_F of two matrices with few rows."""
    return math.sqrt(max(float(np.sum((left @ left.T) * (right @ right.T))), 0.0))


def _distance(old: tuple[np.ndarray, np.ndarray], new: tuple[np.ndarray, np.ndarray]) -> float:
    """|M' - M|/|M| in the Frobenius norm, from (S_B, S_C) of both."""
    difference = _norm_of_product(np.concatenate([new[1], -old[1]]), np.concatenate([new[0], old[0]]))
    return difference / _norm_of_product(old[1], old[0])


def symmetric_factors(S_B: np.ndarray, S_C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """F_+ and F_- (state, width) with F_+^T F_+ - F_-^T F_- = (M + M^T)/2, M = S_C^T S_B, turned by Procrustes.

    F_+ is the factor of the positive part nearest to (S_B + S_C)/2, F_- that of the negative nearest to
    (S_B - S_C)/2.

    >>> plus, minus = symmetric_factors(np.array([[1.0, 2.0]]), np.array([[1.0, 2.0]]))     # tied: M is positive
    >>> bool(np.allclose(plus, [[1.0, 2.0]])), bool(np.allclose(minus, 0.0))
    (True, True)
    """
    n = len(S_B)
    basis, triangle = np.linalg.qr(np.concatenate([S_C, S_B]).T)  # (width, 2N), (2N, 2N)
    half = triangle[:, :n] @ triangle[:, n:].T
    values, vectors = np.linalg.eigh(0.5 * (half + half.T))
    directions = basis @ vectors
    out = []
    # inertia: at most N of either sign, so the N largest of each side are all there is
    for sign, chosen, target in ((1.0, slice(-n, None), S_B + S_C), (-1.0, slice(0, n), S_B - S_C)):
        size = np.sqrt(np.maximum(sign * values[chosen], 0.0))
        factor = (directions[:, chosen] * size).T
        left, _, right = np.linalg.svd(0.5 * target @ factor.T)
        out.append(left @ right @ factor)
    return out[0], out[1]


def _of_M(kind: str, S_B: np.ndarray, S_C: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(S_B', S_C') of N or 2N rows."""
    if kind == "flipped":
        return S_B, -S_C
    half = math.sqrt(0.5)
    if kind == "symmetric":
        return half * np.concatenate([S_B, S_C]), half * np.concatenate([S_C, S_B])
    if kind == "antisymmetric":
        return half * np.concatenate([S_B, -S_C]), half * np.concatenate([S_C, S_B])
    for of, control in CONTROLS:
        if kind != control:
            continue
        distance = _distance((S_B, S_C), _of_M(of, S_B, S_C, rng))
        noise = rng.standard_normal((2, *S_B.shape))
        if kind.startswith("noise in range"):
            basis = np.linalg.qr(np.concatenate([S_B, S_C]).T)[0]
            noise = noise @ basis @ basis.T
        return _moved(distance, S_B, S_C, noise)
    plus, minus = symmetric_factors(S_B, S_C)
    if kind == "positive":
        return plus, plus
    if kind == "negative":
        return minus, -minus
    return np.concatenate([S_B, minus]), np.concatenate([S_C, minus])


def _moved(distance: float, S_B: np.ndarray, S_C: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """S_B and S_C with a multiple of the noise (2, state, width) that takes M this far from where it was."""
    noise = noise * (math.sqrt(float(np.mean(S_B**2 + S_C**2))) / math.sqrt(float(np.mean(noise**2))))

    def at(size: float) -> tuple[np.ndarray, np.ndarray]:
        return S_B + size * noise[0], S_C + size * noise[1]

    low, high = 0.0, 1.0
    while _distance((S_B, S_C), at(high)) < distance:
        high *= 2.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _distance((S_B, S_C), at(middle)) < distance else (low, middle)
    return at(high)


def change(kind: str, config: Any, weight: Callable[[str], Any], rng: np.random.Generator) -> Changed:
    """A layer's new weights under one intervention.

    Args:
        kind: one of `KINDS`; those of `OF_M` for Mamba-1 only.
        config: the model's; weight: name below the mixer -> array.
        rng: of the random controls.

    Raises:
        InputError: no such intervention, or not for this family.
    """
    if kind not in KINDS:
        raise InputError(f"no intervention {kind!r}; there are {'; '.join(KINDS)}.{nearest(kind, KINDS)}")
    n = config.d_state
    if kind in OF_M:
        if config.family != "mamba1":
            raise InputError(f"{kind!r} needs B and C linear in u, as in Mamba-1; this is {config.family}")
        x_proj = np.asarray(weight("x_proj.weight"), np.float64)
        rank = config.dt_rank
        old = (x_proj[rank : rank + n], x_proj[rank + n :])
        new = _of_M(kind, *old, rng)
        A_log, states = np.asarray(weight("A_log")), len(new[0])
        weights = {
            "x_proj.weight": np.concatenate([x_proj[:rank], *new]),
            "A_log": np.tile(A_log, (1, states // n)),
        }
        return Changed(weights, states, distance=_distance(old, new))
    if kind in _RESETS:
        return Changed({}, n, reset=_RESETS[kind])
    if kind in _SCALES:
        c = _SCALES[kind]
        weights = {"A_log": weight("A_log") + math.log(c), "D": weight("D") / c}
        if config.family != "mamba2" or not config.mixer_norm:  # Mamba-2's norm forgets the size of y
            weights["out_proj.weight"] = c * weight("out_proj.weight")
        return Changed(weights, n)
    if kind == "decay x 4":
        return Changed({"A_log": weight("A_log") + math.log(4.0)}, n)
    if kind == "no skip":
        return Changed({"D": 0.0 * weight("D")}, n)
    if kind == "mixer off":
        return Changed({name: 0.0 * weight(name) for name in _out_names(config)}, n)
    # skip only: no C
    if config.family == "mamba2":
        rows = config.n_groups * n
        weights = {
            name: np.array(weight(name)) for name in ("conv1d.weight", "conv1d.bias") if weight(name) is not None
        }
        for array in weights.values():
            array[-rows:] = 0.0  # SiLU(0) = 0
        return Changed(weights, n)
    x_proj = np.array(weight("x_proj.weight"))
    x_proj[config.dt_rank + n :] = 0.0
    return Changed({"x_proj.weight": x_proj}, n)


def _out_names(config: Any) -> tuple[str, ...]:
    return ("out_proj.weight", "out_proj.bias") if config.proj_bias else ("out_proj.weight",)


# ---------------------------------------------------------------------- plan
@dataclass
class _Context:
    model: Any
    backend: str
    kinds: tuple[str, ...]
    windows: list[Any]
    ids: np.ndarray
    n_bytes: np.ndarray
    config: Config
    #: of the unchanged model: the residual stream before every layer and after the last
    residuals: list[np.ndarray] = field(default_factory=list)


def plan(config: Config) -> base.Plan:
    """Load the model, cut the text, choose the interventions.

    Raises:
        InputError: unknown or damaged model, a hybrid, unusable text, an intervention that the family does not admit.
        ConfigError: an option has an impossible value.
    """
    from ssmtheory import mamba

    for option, least in (("tokens", 2), ("sequences", 2), ("seed", 0)):
        if getattr(config, option) < least:
            raise ConfigError(f"--{option} {getattr(config, option)}: must be an integer >= {least}")
    if config.backend not in ("auto", "numpy", "c"):
        raise ConfigError(f"--backend {config.backend}: must be auto, numpy or c")
    model = None
    if config.backend in ("auto", "c"):
        try:
            model = mamba.load(config.model, backend="c")
        except BackendError:
            if config.backend == "c":
                raise
    if model is None:
        model = mamba.load(config.model, dtype="float64", backend="numpy")
    if not isinstance(model, mamba.MambaLM):
        raise InputError(f"{model.name} is a hybrid with other layers than Mamba's, through which nothing can be sent")
    allowed = tuple(kind for kind in KINDS if kind not in OF_M or model.config.family == "mamba1")
    kinds = tuple(dict.fromkeys(config.interventions)) or allowed
    for kind in kinds:
        if kind not in allowed:
            change(kind, model.config, lambda _: None, np.random.default_rng(0))  # says why
    reading = token_dynamics.Config(text=config.text, tokens=config.tokens, sequences=config.sequences)
    windows = token_dynamics.plan_model(model, reading).context.windows
    ids = np.stack([w.source.tokens[w.start : w.start + config.tokens] for w in windows])
    n_bytes = np.array([token_dynamics.bytes_of(model, row[1:]) for row in ids])
    backend = str(model.backend)
    left_out = [kind for kind in KINDS if kind not in allowed]
    return base.Plan(
        resolved={
            "model": model.name, "interventions": list(kinds), "tokens": config.tokens, "sequences": config.sequences,
            "text": sorted({(w.source.name, w.source.sha256) for w in windows}),
            "backend": backend, "dtype": model.dtype, "seed": config.seed,
        },
        tasks=[f"{i:03d}" for i in range(len(kinds))],
        model_sha256=model.sha256,
        describe={
            "model": f"{model.name}  {model.config.parameters:,} parameters, {model.n_layer} layers, "
            f"sha256 {model.sha256[:12]}",
            "tasks": f"{len(kinds)} interventions in each of {model.n_layer} layers, and in all",
            **({"left out": f"{', '.join(left_out)}: not for {model.config.family}"} if left_out else {}),
        },
        result_bytes=8 * len(kinds) * (model.n_layer + 1) * (config.sequences + 4),
        context=_Context(model, backend, kinds, windows, ids, n_bytes, config),
        task_noun="intervention",
    )  # fmt: skip


# ---------------------------------------------------------------------- one intervention
def _through(context: _Context, layer: int, residual: np.ndarray, changed: Changed | None) -> np.ndarray:
    """One layer, as it is or changed."""
    from ssmtheory.mamba.forward import layer_map

    model = context.model
    if changed is None:
        return np.asarray(layer_map(model.weights, model.config, layer, residual, backend=context.backend))
    prefix = f"backbone.layers.{layer}.mixer."
    new = {prefix + name: np.ascontiguousarray(x, model.dtype) for name, x in changed.weights.items()}
    config = model.config.with_(d_state=changed.states)
    return np.asarray(
        layer_map({**model.weights, **new}, config, layer, residual, backend=context.backend, reset=changed.reset)
    )


def _bits(context: _Context, residual: np.ndarray) -> np.ndarray:
    """Loss of each sequence per byte [bit], of the residual stream after the last layer."""
    from ssmtheory.mamba.forward import head

    logits = head(context.model.weights, context.model.config, residual)
    bits = [token_dynamics.loss_bits(x, row[1:]).sum() for x, row in zip(logits, context.ids, strict=True)]
    return np.array(bits) / context.n_bytes


def _unchanged(context: _Context) -> list[np.ndarray]:
    if not context.residuals:
        residuals = [np.asarray(context.model.weights["backbone.embedding.weight"])[context.ids]]
        for layer in range(context.model.n_layer):
            residuals.append(_through(context, layer, residuals[-1], None))
        context.residuals = residuals
    return context.residuals


def run_task(plan: base.Plan, key: str) -> dict[str, np.ndarray]:
    """Change one layer after another, then all: losses of each sequence."""
    context: _Context = plan.context
    kind, model = context.kinds[int(key)], context.model
    residuals = _unchanged(context)
    layers = range(model.n_layer)
    changes = []
    for layer in layers:
        prefix = f"backbone.layers.{layer}.mixer."
        rng = np.random.default_rng([context.config.seed, layer])
        changes.append(change(kind, model.config, lambda name, prefix=prefix: model.weights.get(prefix + name), rng))  # type: ignore[misc]
    bits = []
    for at in layers:
        x = _through(context, at, residuals[at], changes[at])
        for layer in range(at + 1, model.n_layer):
            x = _through(context, layer, x, None)
        bits.append(_bits(context, x))
    x = residuals[0]
    for layer in layers:
        x = _through(context, layer, x, changes[layer])
    everything = _bits(context, x)
    if not (np.isfinite(bits).all() and np.isfinite(everything).all()):
        raise InputError(f"{model.name}: the loss under {kind!r} is not finite; float64 may help (--backend numpy)")
    return {
        "unchanged": _bits(context, residuals[-1]),
        "bits": np.stack(bits),
        "all": everything,
        "distance": np.array([c.distance for c in changes]),
        "states": np.array(changes[0].states),
    }


def assemble(plan: base.Plan, parts: Mapping[str, Mapping[str, np.ndarray]]) -> xr.DataTree:
    """Paired differences, their intervals, and each change of M against its control."""
    import xarray as xr

    context: _Context = plan.context
    ordered = [parts[key] for key in plan.tasks]
    unchanged = ordered[0]["unchanged"]
    counts = concordance.bootstrap_counts(len(unchanged), 1000, context.config.seed)

    def interval(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
        """Mean over the last axis, the sequences."""
        low, high = concordance.mean_interval(np.moveaxis(values, -1, 0), counts)
        return {name: values.mean(axis=-1), f"{name}_low": low, f"{name}_high": high}

    one = np.stack([part["bits"] for part in ordered]) - unchanged  # (intervention, layer, sequence)
    every = np.stack([part["all"] for part in ordered]) - unchanged
    pairs = [(a, b) for a, b in CONTROLS if a in context.kinds and b in context.kinds]
    index = [[context.kinds.index(kind) for kind in pair] for pair in pairs]
    left, right = np.array(index, int).reshape(-1, 2).T
    values: dict[str, dict[str, Any]] = {
        "text": {
            "source": np.array([w.source.name for w in context.windows], dtype=object),
            "start": np.array([w.start for w in context.windows]),
            "n_bytes": context.n_bytes,
            "bits_per_byte": unchanged,
            **interval("loss", unchanged),
        },
        "layers": {
            **interval("change", one),
            "change_by_sequence": one,
            "distance": np.stack([part["distance"] for part in ordered]),
        },
        "all": {
            **interval("change", every),
            "change_by_sequence": every,
            **interval("mean_change", one.mean(axis=1)),
            "states": np.array([int(part["states"]) for part in ordered]),
        },
        "controls": {
            **interval("mean_difference", (one[left] - one[right]).mean(axis=1)),
            **interval("all_difference", every[left] - every[right]),
        },
    }
    known = {
        "intervention": np.array(context.kinds, dtype=object), "layer": np.arange(context.model.n_layer),
        "sequence": np.arange(len(unchanged)), "pair": np.array([f"{a} - {b}" for a, b in pairs], dtype=object),
    }  # fmt: skip
    groups = {}
    for path, declared in SCHEMA.groups.items():
        data = {}
        for name, v in declared.items():
            kind = object if v.dtype == "str" else v.dtype
            data[name] = (v.dims, np.asarray(values[path.strip("/")][name]).astype(kind))
        used = {d for dims, _ in data.values() for d in dims}
        groups[path] = xr.Dataset(data, coords={d: known[d] for d in sorted(used)})
    return xr.DataTree.from_dict(groups)


# ---------------------------------------------------------------------- in words
def verdict(tree: xr.DataTree) -> list[str]:
    """Say what each change costs in one layer and in all, and whether it costs more than noise of the same size."""
    import json

    text, layers, everything, controls = (tree[n].to_dataset() for n in ("text", "layers", "all", "controls"))
    name = json.loads(str(tree.attrs["config"]))["model"] if "config" in tree.attrs else "the model"
    sha, n = str(tree.attrs.get("model_sha256", ""))[:12], text.sizes["sequence"]
    loss, low, high = (float(text[f"loss{end}"]) for end in ("", "_low", "_high"))
    out = [
        f"{name} (sha256 {sha}): {loss:.4f} [{low:.4f}, {high:.4f}] bits per byte unchanged. Changes of the loss "
        f"[bit/byte] with 95 % bootstrap intervals over {n} sequences, paired:"
    ]
    order = np.argsort(-everything["change"].values)
    for i in order:
        most = int(np.argmax(layers["change"].values[i]))
        distance = (
            float(np.nanmean(layers["distance"].values[i])) if np.isfinite(layers["distance"].values[i, 0]) else 0
        )
        out.append(
            f"- {everything['intervention'].values[i]}: "
            f"all layers {said(everything, 'change', '+.4f', intervention=i)}; "
            f"one layer {said(everything, 'mean_change', '+.4f', intervention=i)} on average, most in layer {most}: "
            f"{said(layers, 'change', '+.4f', intervention=i, layer=most)}"
            + (f"; |M' - M|/|M| = {distance:.2f}." if np.isfinite(distance) else ".")
        )
    for i, kind in enumerate(str(k) for k in controls["pair"].values):
        low, high = (float(controls[f"mean_difference_{end}"].values[i]) for end in ("low", "high"))
        found = "more than" if low > 0 else "less than" if high < 0 else "not distinguishable from"
        out.append(
            f"{kind}: {said(controls, 'mean_difference', '+.4f', pair=i)} per layer ({found} noise of this size), "
            f"{said(controls, 'all_difference', '+.4f', pair=i)} in all layers."
        )
    return out


def run(config: Config | None = None) -> xr.DataTree:
    """Measure everything in memory and return the dataset (nothing is written)."""
    return base.run(sys.modules[__name__], config or Config())


if __name__ == "__main__":
    from ssmtheory.runner import main

    raise SystemExit(main("interventions"))
