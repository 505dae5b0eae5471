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
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from ssmtheory.mamba.config import MambaConfig
from ssmtheory.scan import causal_conv1d, rms_norm, selective_scan, silu, softplus


@dataclass
class MambaState:
    """What a model carries from one chunk of tokens to the next.

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

    `initial_state` and `last_state` are the state h before and after the chunk, (batch, channel, state).
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


Tap = Callable[[int, MixerSignals], None]


def mamba1_mixer(
    hidden: Any, weight: Callable[[str], Any], config: MambaConfig, conv_state: Any, state: Any, backend: str
) -> tuple[MixerSignals, Any]:
    """Apply one Mamba-1 mixer to normed tokens.

    Args:
        hidden: (batch, length, d_model).
        weight: name below the mixer, such as "in_proj.weight", to array; None for a bias that the model lacks.
        conv_state, state: what `MambaState` holds for this layer, or None at the start.
        backend: of the scan.

    Returns:
        The signals (without the residual), and the next conv_state.
    """
    xp = array_namespace(hidden)
    projected = _linear(hidden, weight("in_proj.weight"), weight("in_proj.bias"))
    x, z = projected[..., : config.d_inner], projected[..., config.d_inner :]
    u, conv_state = causal_conv1d(
        x, weight("conv1d.weight")[:, 0, :], weight("conv1d.bias"), initial_state=conv_state, activation="silu",
        return_last_state=True,
    )  # fmt: skip
    selected = _linear(u, weight("x_proj.weight"))
    rank, n = config.dt_rank, config.d_state
    low_rank, B, C = selected[..., :rank], selected[..., rank : rank + n], selected[..., rank + n :]
    delta = softplus(_linear(low_rank, weight("dt_proj.weight"), weight("dt_proj.bias")))
    A, D = -xp.exp(weight("A_log")), weight("D")
    y, last = selective_scan(u, delta, A, B, C, D=D, initial_state=state, return_last_state=True, backend=backend)
    gated = y * silu(z)
    update = _linear(gated, weight("out_proj.weight"), weight("out_proj.bias"))
    return MixerSignals(None, hidden, u, z, delta, A, B, C, D, y, gated, update, state, last), conv_state


_MIXERS = {"mamba1": mamba1_mixer}


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
        weights: parameter name (original state-spaces naming) to array; decides framework, dtype and device.
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
    residual = weights["backbone.embedding.weight"][tokens]
    state = state or MambaState([None] * config.n_layer, [None] * config.n_layer)
    conv, ssm = list(state.conv), list(state.ssm)
    for layer in range(config.n_layer):
        prefix = f"backbone.layers.{layer}."

        def weight(name: str, prefix: str = prefix + "mixer.") -> Any:
            return weights.get(prefix + name)

        hidden = rms_norm(residual, weights[prefix + "norm.weight"], eps=config.norm_eps)
        signals, conv[layer] = mixer(hidden, weight, config, conv[layer], ssm[layer], backend)
        ssm[layer] = signals.last_state
        signals.residual = residual
        if tap is not None:
            tap(layer, signals)
        residual = residual + signals.update
    out = None
    if logits != "none":
        final = residual if logits == "all" else residual[:, -1:]
        final = rms_norm(final, weights["backbone.norm_f.weight"], eps=config.norm_eps)
        head = weights.get("lm_head.weight")
        out = _linear(final, weights["backbone.embedding.weight"] if head is None else head)
    if not return_state:
        return out
    return out, MambaState(conv, ssm, state.position + int(tokens.shape[1]))


def _linear(x: Any, weight: Any, bias: Any = None) -> Any:
    y = x @ weight.T
    return y if bias is None else y + bias
