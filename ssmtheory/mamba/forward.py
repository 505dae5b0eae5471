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

A float32 model on NumPy is computed in float64, block by block, and what leaves it (signals, logits) is rounded once.
Deep models amplify the rounding of any float32 step without bound; nothing less keeps every block as near to the exact
result as another library happens to come. `backend="c"`, torch and JAX compute in the weights' dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from array_api_compat import array_namespace, is_numpy_array

from ssmtheory.mamba.config import MambaConfig
from ssmtheory.scan import causal_conv1d, rms_norm, selective_scan, silu, softplus

__all__ = [
    "MambaState", "MixerSignals", "Tap", "arithmetic_dtype", "forward", "gate_and_project", "layer_map", "mamba1_mixer",
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


def scan_mamba1(u: Any, low_rank: Any, B: Any, C: Any, weight: Weight, state: Any, backend: str) -> tuple[Any, ...]:
    """From u, the low-rank input of Delta, B and C of a Mamba-1 mixer: (delta, A, D, y, last state)."""
    xp = array_namespace(u)
    delta = softplus(_linear(low_rank, weight("dt_proj.weight"), weight("dt_proj.bias")))
    A, D = -xp.exp(weight("A_log")), weight("D")
    y, last = selective_scan(u, delta, A, B, C, D=D, initial_state=state, return_last_state=True, backend=backend)
    return delta, A, D, y, last


def scan_mamba2(
    x_B_C: Any, raw_delta: Any, weight: Weight, config: MambaConfig, state: Any, backend: str
) -> tuple[Any, ...]:
    """From the convolved [u | B | C] and the raw Delta of a Mamba-2 mixer: (u, delta, A, B, C, D, y, last state)."""
    xp = array_namespace(x_B_C)
    c, size = config, config.n_groups * config.d_state
    grouped = (*x_B_C.shape[:2], c.n_groups, c.d_state)
    u = x_B_C[..., : c.d_inner]
    B = xp.reshape(x_B_C[..., c.d_inner : c.d_inner + size], grouped)
    C = xp.reshape(x_B_C[..., c.d_inner + size :], grouped)
    delta = softplus(raw_delta + weight("dt_bias"))
    if c.time_step_limit != (0.0, math.inf):
        delta = xp.clip(delta, *c.time_step_limit)
    A, D = -xp.exp(weight("A_log")), weight("D")
    y, last = selective_scan(u, delta, A, B, C, D=D, initial_state=state, return_last_state=True, backend=backend)
    return u, delta, A, B, C, D, y, last


def gate_and_project(y: Any, z: Any, weight: Weight, config: MambaConfig) -> tuple[Any, Any]:
    """The gated scan output (normed in Mamba-2), and its projection to the residual stream."""
    if config.family == "mamba2" and config.mixer_norm:
        options: dict[str, Any] = {"eps": config.norm_eps, "groups": config.n_groups}
        scale = weight("norm.weight")
        if config.norm_before_gate:
            gated = rms_norm(y, scale, **options) * silu(z)
        else:
            gated = rms_norm(y, scale, gate=z, **options)
    else:
        gated = y * silu(z)
    return gated, _linear(gated, weight("out_proj.weight"), weight("out_proj.bias"))


def mamba1_mixer(
    hidden: Any, weight: Weight, config: MambaConfig, conv_state: Any, state: Any, backend: str
) -> tuple[MixerSignals, Any]:
    """Apply one Mamba-1 or Falcon-Mamba mixer to normed tokens.

    Args:
        hidden: (batch, length, d_model).
        weight: name below the mixer, such as "in_proj.weight", to array; None for a bias that the model lacks.
        conv_state, state: what `MambaState` holds for this layer, or None at the start.
        backend: of the scan.

    Returns:
        The signals (without the residual), and the next conv_state.
    """
    projected = _linear(hidden, weight("in_proj.weight"), weight("in_proj.bias"))
    x, z = projected[..., : config.d_inner], projected[..., config.d_inner :]
    u, conv_state = causal_conv1d(
        x, weight("conv1d.weight")[:, 0, :], weight("conv1d.bias"), initial_state=conv_state, activation="silu",
        return_last_state=True,
    )  # fmt: skip
    selected = _linear(u, weight("x_proj.weight"))
    rank, n = config.dt_rank, config.d_state
    low_rank, B, C = selected[..., :rank], selected[..., rank : rank + n], selected[..., rank + n :]
    if config.family == "falcon_mamba":
        low_rank, B, C = (rms_norm(signal, eps=config.mixer_rms_eps) for signal in (low_rank, B, C))
    delta, A, D, y, last = scan_mamba1(u, low_rank, B, C, weight, state, backend)
    gated, update = gate_and_project(y, z, weight, config)
    return MixerSignals(None, hidden, u, z, delta, A, B, C, D, y, gated, update, state, last), conv_state


def mamba2_mixer(
    hidden: Any, weight: Weight, config: MambaConfig, conv_state: Any, state: Any, backend: str
) -> tuple[MixerSignals, Any]:
    """Apply one Mamba-2 mixer to normed tokens; arguments and results as of `mamba1_mixer`."""
    projected = _linear(hidden, weight("in_proj.weight"), weight("in_proj.bias"))
    end = config.d_inner + config.conv_channels
    z, raw_delta = projected[..., : config.d_inner], projected[..., end:]
    x_B_C, conv_state = causal_conv1d(
        projected[..., config.d_inner : end], weight("conv1d.weight")[:, 0, :], weight("conv1d.bias"),
        initial_state=conv_state, activation="silu", return_last_state=True,
    )  # fmt: skip
    u, delta, A, B, C, D, y, last = scan_mamba2(x_B_C, raw_delta, weight, config, state, backend)
    gated, update = gate_and_project(y, z, weight, config)
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
        backend: of the scan.
        logits: "all" positions, the "last" only, or "none" (None is returned in their place).

    Returns:
        logits (batch, length or 1, vocab), and with `return_state` a `MambaState`.
    """
    mixer = _MIXERS[config.family]
    embedding = weights["backbone.embedding.weight"]
    xp, stored = array_namespace(embedding), embedding.dtype
    wide = arithmetic_dtype(embedding, backend)

    def weight(name: str) -> Any:
        value = weights.get(name)
        return None if value is None else xp.astype(value, wide, copy=False)

    residual = xp.astype(embedding[tokens], wide, copy=False)
    state = state or MambaState([None] * config.n_layer, [None] * config.n_layer)
    conv, ssm = list(state.conv), list(state.ssm)
    for layer in range(config.n_layer):
        prefix = f"backbone.layers.{layer}."

        def mixer_weight(name: str, prefix: str = prefix + "mixer.") -> Any:
            return weight(prefix + name)

        hidden = _norm(residual, weight, prefix + "norm", config)
        signals, conv[layer] = mixer(hidden, mixer_weight, config, conv[layer], ssm[layer], backend)
        ssm[layer] = signals.last_state
        signals.residual, signals.start = residual, state.position
        if tap is not None:
            tap(layer, signals if wide == stored else rounded(signals, stored))
        residual = residual + signals.update
    out = None
    if logits != "none":
        final = residual if logits == "all" else residual[:, -1:]
        final = xp.astype(_norm(final, weight, "backbone.norm_f", config), stored, copy=False)
        # the last product is not amplified by anything: no float64 copy of the vocabulary
        out = _linear(final, weights.get("lm_head.weight", embedding))
    if not return_state:
        return out
    return out, MambaState(conv, ssm, state.position + int(tokens.shape[1]))


def layer_map(
    weights: Mapping[str, Any], config: MambaConfig, layer: int, residual: Any, *, backend: str = "auto"
) -> Any:
    """r^{k+1} from r^k (batch, length, d_model) of a whole text, in the dtype of both: one layer as a map."""
    prefix = f"backbone.layers.{layer}."
    hidden = _norm(residual, weights.get, prefix + "norm", config)
    mixer = _MIXERS[config.family]
    signals, _ = mixer(hidden, lambda name: weights.get(prefix + "mixer." + name), config, None, None, backend)
    return residual + signals.update


def _norm(x: Any, weight: Weight, name: str, config: MambaConfig) -> Any:
    if config.norm == "layer":
        xp = array_namespace(x)
        centred = x - xp.mean(x, axis=-1, keepdims=True)
        variance = xp.mean(centred * centred, axis=-1, keepdims=True)
        return centred / xp.sqrt(variance + config.norm_eps) * weight(name + ".weight") + weight(name + ".bias")
    return rms_norm(x, weight(name + ".weight"), eps=config.norm_eps)


def _linear(x: Any, weight: Any, bias: Any = None) -> Any:
    y = x @ weight.T
    return y if bias is None else y + bias
