"""The forward pass of a Mamba language model, written once over the array API.

The same lines run on NumPy (the float64 oracle), torch (differentiable; the training path) and JAX. They read beside
Gu and Dao, arXiv 2312.00752, algorithm 2 and section 3:

| here | paper | shape |
|---|---|---|
| residual | r^k, the residual stream before block k | (batch, length, d_model) |
| hidden | RMSNorm(r^k) | (batch, length, d_model) |
| u | x after the causal convolution and SiLU | (batch, length, d_inner) |
| z | the gate's input | (batch, length, d_inner) |
| delta | Delta = softplus(S_Delta u + bias) | (batch, length, d_inner) |
| A | -exp(A_log) | (d_inner, d_state) |
| B, C | S_B u, S_C u | (batch, length, d_state) |
| y | C h + D u | (batch, length, d_inner) |
| gated | y SiLU(z) | (batch, length, d_inner) |
| update | W_out gated: r^{k+1} = r^k + update | (batch, length, d_model) |

Mamba-2 (Dao and Gu, arXiv 2405.21060, section 7) differs in these: delta is (batch, length, head), A and D are (head,),
B and C are (batch, length, group, state) and come from the residual stream beside u, not from u; gated is normed.
Falcon-Mamba is Mamba-1 with RMS norms of Delta's low-rank input, B and C; the B and C below are what enters the scan.

Where nobody watches the signals, Delta's softplus and the gate happen inside the scan: `watched` says which it is, in
the two scan_ functions below and nowhere else.

A float32 model on NumPy is computed in float64, block by block, and what leaves it (signals, logits) is rounded once.
Deep models amplify the rounding of any float32 step without bound; nothing less keeps every block as near to the exact
result as another library happens to come. `backend="c"`, torch and JAX compute in the weights' dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from array_api_compat import array_namespace, is_numpy_array, is_torch_array

from ssmtheory.mamba.config import MambaConfig
from ssmtheory.scan import causal_conv1d, rms_norm, selective_scan, silu, softplus

__all__ = [
    "MambaState", "MixerSignals", "Tap", "arithmetic_dtype", "forward", "head", "layer_map", "linear", "mamba1_mixer",
    "mamba2_mixer", "rounded", "scan_mamba1", "scan_mamba2",
]  # fmt: skip


@dataclass
class MambaState:
    """What a model carries from one chunk of tokens to the next, in the dtype of the arithmetic.

    conv: per layer, the last d_conv - 1 inputs of the convolution, (batch, d_conv - 1, channel).
    ssm: per layer, the state h, (batch, channel, state).
    position: tokens seen so far.
    """

    conv: list[Any]
    ssm: list[Any]
    position: int = 0


@dataclass
class MixerSignals:
    """Everything one block computed on one chunk; the module's table gives the shapes.

    `initial_state` and `last_state` are the state h before and after the chunk, (batch, channel, state); the initial
    one is None at the start of a text, where it is zero. `start` is the position of the chunk's first token.
    """

    residual: Any
    hidden: Any
    u: Any
    z: Any
    delta: Any
    A: Any
    B: Any
    C: Any
    D: Any
    y: Any
    gated: Any
    update: Any
    initial_state: Any
    last_state: Any
    start: int = 0


Tap = Callable[[int, MixerSignals], None]


Weight = Callable[[str], Any]


def scan_mamba1(
    u: Any, low_rank: Any, B: Any, C: Any, z: Any, weight: Weight, state: Any, backend: str, watched: bool = True
) -> tuple[Any, ...]:
    """From u, the low-rank input of Delta, B, C and z of a Mamba-1 mixer: (delta, A, D, y, gated, last state).

    Unwatched, delta and y stay inside the scan and are None here.
    """
    raw_delta, bias = linear(low_rank, weight("dt_proj.weight")), weight("dt_proj.bias")
    A, D = _decay(weight("A_log"), u), weight("D")
    options: dict[str, Any] = {"D": D, "initial_state": state, "return_last_state": True, "backend": backend}
    if not watched:
        gated, last = selective_scan(u, raw_delta, A, B, C, z=z, delta_bias=bias, delta_softplus=True, **options)
        return None, A, D, None, gated, last
    delta = softplus(raw_delta + bias)
    y, last = selective_scan(u, delta, A, B, C, **options)
    return delta, A, D, y, y * silu(z), last


def scan_mamba2(
    x_B_C: Any, raw_delta: Any, z: Any, weight: Weight, config: MambaConfig, state: Any, backend: str,
    watched: bool = True,
) -> tuple[Any, ...]:  # fmt: skip
    """From the convolved [u | B | C], the raw Delta and z of a Mamba-2 mixer: (u, delta, A, B, C, D, y, gated, last).

    Unwatched, delta is None where it stays inside the scan, and y where no norm stands between it and the gate.
    """
    xp = array_namespace(x_B_C)
    c, size = config, config.n_groups * config.d_state
    grouped = (*x_B_C.shape[:2], c.n_groups, c.d_state)
    u, B, C = _split(x_B_C, c.d_inner, size, size)
    B, C = xp.reshape(B, grouped), xp.reshape(C, grouped)
    A, D, bias = _decay(weight("A_log"), u), weight("D"), weight("dt_bias")
    options: dict[str, Any] = {"D": D, "initial_state": state, "return_last_state": True, "backend": backend}
    if watched or c.time_step_limit != (0.0, math.inf):
        delta = softplus(raw_delta + bias)
        if c.time_step_limit != (0.0, math.inf):
            delta = xp.clip(delta, *c.time_step_limit)
        y, last = selective_scan(u, delta, A, B, C, **options)
    else:
        delta, options["z"] = None, None if c.mixer_norm else z
        y, last = selective_scan(u, raw_delta, A, B, C, delta_bias=bias, delta_softplus=True, **options)
        if not c.mixer_norm:
            return u, delta, A, B, C, D, None, y, last
    if not c.mixer_norm:
        gated = y * silu(z)
    elif c.norm_before_gate:
        gated = rms_norm(y, weight("norm.weight"), eps=c.norm_eps, groups=c.n_groups) * silu(z)
    else:
        gated = rms_norm(y, weight("norm.weight"), eps=c.norm_eps, groups=c.n_groups, gate=z)
    return u, delta, A, B, C, D, y, gated, last


def _decay(A_log: Any, like: Any) -> Any:
    xp = array_namespace(A_log)
    # torch computes in the dtype of its weights; under autocast u is narrower, and decays must not follow it
    return -xp.exp(A_log if is_torch_array(A_log) else xp.astype(A_log, like.dtype, copy=False))


def mamba1_mixer(
    hidden: Any, weight: Weight, config: MambaConfig, conv_state: Any, state: Any, backend: str, watched: bool = True
) -> tuple[MixerSignals, Any]:
    """Apply one Mamba-1 or Falcon-Mamba mixer to normed tokens.

    Args:
        hidden: (batch, length, d_model).
        weight: name below the mixer, such as "in_proj.weight", to array; None for a bias that the model lacks.
        conv_state, state: what `MambaState` holds for this layer, or None at the start.
        backend: of the convolution and the scan.
        watched: False where no signal inside the scan is wanted: then delta and y are None.

    Returns:
        The signals (without the residual), and the next conv_state.
    """
    x, z = _split(linear(hidden, weight("in_proj.weight"), weight("in_proj.bias")), config.d_inner, config.d_inner)
    u, conv_state = causal_conv1d(
        x, weight("conv1d.weight")[:, 0, :], weight("conv1d.bias"), initial_state=conv_state, activation="silu",
        return_last_state=True, backend=backend,
    )  # fmt: skip
    low_rank, B, C = _split(linear(u, weight("x_proj.weight")), config.dt_rank, config.d_state, config.d_state)
    if config.family == "falcon_mamba":
        low_rank, B, C = (rms_norm(signal, eps=config.mixer_rms_eps) for signal in (low_rank, B, C))
    delta, A, D, y, gated, last = scan_mamba1(u, low_rank, B, C, z, weight, state, backend, watched)
    update = linear(gated, weight("out_proj.weight"), weight("out_proj.bias"))
    return MixerSignals(None, hidden, u, z, delta, A, B, C, D, y, gated, update, state, last), conv_state


def mamba2_mixer(
    hidden: Any, weight: Weight, config: MambaConfig, conv_state: Any, state: Any, backend: str, watched: bool = True
) -> tuple[MixerSignals, Any]:
    """Apply one Mamba-2 mixer to normed tokens; arguments and results as of `mamba1_mixer`."""
    projected = linear(hidden, weight("in_proj.weight"), weight("in_proj.bias"))
    z, x_B_C, raw_delta = _split(projected, config.d_inner, config.conv_channels, config.n_heads)
    x_B_C, conv_state = causal_conv1d(
        x_B_C, weight("conv1d.weight")[:, 0, :], weight("conv1d.bias"), initial_state=conv_state, activation="silu",
        return_last_state=True, backend=backend,
    )  # fmt: skip
    u, delta, A, B, C, D, y, gated, last = scan_mamba2(x_B_C, raw_delta, z, weight, config, state, backend, watched)
    update = linear(gated, weight("out_proj.weight"), weight("out_proj.bias"))
    return MixerSignals(None, hidden, u, z, delta, A, B, C, D, y, gated, update, state, last), conv_state


def arithmetic_dtype(like: Any, backend: str) -> Any:
    """The dtype that weights like this one are computed in (see the module's text)."""
    return array_namespace(like).float64 if is_numpy_array(like) and backend != "c" else like.dtype


def rounded(signals: MixerSignals, dtype: Any) -> MixerSignals:
    """The same signals with every array in dtype."""
    values = {field.name: getattr(signals, field.name) for field in fields(signals)}
    arrays: dict[str, Any] = {name: v.astype(dtype) for name, v in values.items() if is_numpy_array(v)}
    return replace(signals, **arrays)


_MIXERS = {"mamba1": mamba1_mixer, "mamba2": mamba2_mixer, "falcon_mamba": mamba1_mixer}


def forward(
    weights: Mapping[str, Any],
    config: MambaConfig,
    tokens: Any,
    state: MambaState | None = None,
    *,
    return_state: bool = False,
    tap: Tap | None = None,
    backend: str = "auto",
    logits: str = "all",
) -> Any:
    """Run a Mamba language model on a chunk of tokens.

    Args:
        weights: parameter name (original state-spaces naming) to array; decides framework, device, and the dtype of
            logits and signals (see the module's text for the arithmetic).
        config: sizes.
        tokens: (batch, length) integers, of the same framework as the weights.
        state: carried from the chunk before; None at the start of a text.
        return_state: also return the state after the chunk.
        tap: called with (layer, MixerSignals) after each block.
        backend: of the convolution and the scan.
        logits: "all" positions, the "last" only, or "none" (None is returned in their place).

    Returns:
        logits (batch, length or 1, vocab), and with `return_state` a `MambaState`.
    """
    mixer = _MIXERS[config.family]
    embedding = weights["backbone.embedding.weight"]
    xp, stored = array_namespace(embedding), embedding.dtype
    wide = arithmetic_dtype(embedding, backend)

    residual = xp.astype(embedding[tokens], wide, copy=False)
    state = state or MambaState([None] * config.n_layer, [None] * config.n_layer)
    conv, ssm = list(state.conv), list(state.ssm)
    for layer in range(config.n_layer):
        prefix = f"backbone.layers.{layer}."

        def mixer_weight(name: str, prefix: str = prefix + "mixer.") -> Any:
            return weights.get(prefix + name)

        hidden = _norm(residual, weights.get, prefix + "norm", config)
        signals, conv[layer] = mixer(
            hidden, mixer_weight, config, conv[layer], ssm[layer], backend, watched=tap is not None
        )
        ssm[layer] = signals.last_state
        signals.residual, signals.start = residual, state.position
        if tap is not None:
            tap(layer, signals if wide == stored else rounded(signals, stored))
        residual = residual + signals.update
    out = None
    if logits != "none":
        out = head(weights, config, residual if logits == "all" else residual[:, -1:])
    if not return_state:
        return out
    return out, MambaState(conv, ssm, state.position + int(tokens.shape[1]))


def layer_map(
    weights: Mapping[str, Any], config: MambaConfig, layer: int, residual: Any, *, backend: str = "auto", reset: int = 0
) -> Any:
    """r^{k+1} from r^k (batch, length, d_model) of a whole text, in the dtype of both: one layer as a map.

    `config` is read for this layer alone: a layer with another number of states than its model's is run by a config
    that says so. `reset`: the state h is set to zero before every `reset`-th token (0: never); the convolution goes on.
    """
    prefix = f"backbone.layers.{layer}."
    hidden = _norm(residual, weights.get, prefix + "norm", config)
    mixer = _MIXERS[config.family]

    def mixer_weight(name: str) -> Any:
        return weights.get(prefix + "mixer." + name)

    length, conv, updates = hidden.shape[1], None, []
    step = reset or max(length, 1)
    for start in range(0, max(length, 1), step):
        signals, conv = mixer(hidden[:, start : start + step], mixer_weight, config, conv, None, backend, watched=False)
        updates.append(signals.update)
    xp = array_namespace(residual)
    return residual + (updates[0] if len(updates) == 1 else xp.concat(updates, axis=1))


def head(weights: Mapping[str, Any], config: MambaConfig, residual: Any) -> Any:
    """Logits (..., vocab), in the weights' dtype, of the residual stream (..., d_model) after the last layer."""
    embedding = weights["backbone.embedding.weight"]
    xp = array_namespace(embedding)
    final = xp.astype(_norm(residual, weights.get, "backbone.norm_f", config), embedding.dtype, copy=False)
    # the last product is not amplified by anything: no float64 copy of the vocabulary
    return linear(final, weights.get("lm_head.weight", embedding))


def _norm(x: Any, weight: Weight, name: str, config: MambaConfig) -> Any:
    if config.norm == "layer":
        xp = array_namespace(x)
        centred = x - xp.mean(x, axis=-1, keepdims=True)
        variance = xp.mean(centred * centred, axis=-1, keepdims=True)
        return centred / xp.sqrt(variance + config.norm_eps) * weight(name + ".weight") + weight(name + ".bias")
    return rms_norm(x, weight(name + ".weight"), eps=config.norm_eps)


def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """x weight^T + bias: x (..., in), weight (out, in)."""
    # torch widens nothing: autocast narrows both sides itself
    y = x @ weight.T if x.dtype == weight.dtype or is_torch_array(x) else _widened_product(x, weight)
    return y if bias is None else y + bias


#: Numbers of a weight matrix that are widened at once where the tokens are few: they stay in the second-level cache.
_PIECE, _FEW = 1 << 18, 32


def _widened_product(x: Any, weight: Any) -> Any:
    """x @ weight.T in the dtype of x, the wider one; for a step of few tokens without a wide copy of the weights."""
    rows, inner = weight.shape
    if math.prod(x.shape[:-1]) >= _FEW:
        return x @ weight.astype(x.dtype).T
    xp, piece = array_namespace(x), max(1, _PIECE // inner)
    flat = xp.reshape(x, (-1, inner))
    pieces = [flat @ weight[i : i + piece].astype(x.dtype).T for i in range(0, rows, piece)]
    return xp.reshape(xp.concat(pieces, axis=-1), (*x.shape[:-1], rows))


def _split(x: Any, *sizes: int) -> Any:
    """Cut the last axis into views of these sizes."""
    if is_torch_array(x):
        return x.split(sizes, -1)  # its adjoint writes one array, that of slices one for each
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return tuple(x[..., end - size : end] for end, size in zip(ends, sizes, strict=True))
