"""Random small models of each family, built by transformers: what the tests compare with."""

from __future__ import annotations

from typing import Any

import numpy as np


def random_peer(kind: str, seed: int = 0, **options: Any) -> Any:
    """A transformers language model with every parameter drawn at random, so that none is trivially one or zero."""
    import torch
    import transformers

    torch.manual_seed(seed)
    defaults: dict[str, Any] = {"vocab_size": 61, "num_hidden_layers": 3, "hidden_size": 32}
    if kind == "mamba2":
        defaults |= {"state_size": 16, "head_dim": 8, "n_groups": 1, "chunk_size": 16}
        merged = defaults | options
        merged["num_heads"] = int(merged.get("expand", 2) * merged["hidden_size"]) // merged["head_dim"]
    else:
        merged = defaults | options
    config = transformers.AutoConfig.for_model(kind, **merged)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    randomise(model, seed)
    return model


def randomise(model: Any, seed: int) -> None:
    """Give every parameter a size at which it matters.

    At the usual initialisation Delta is about 0.01 and the projections are small, so that the scan hardly shows in the
    logits: a wrong one would pass.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith(("norm.weight", "norm_f.weight", "layernorm.weight", ".D", "A_log")):
                parameter.mul_(1 + 0.2 * noise)
            elif name.endswith(("dt_bias", "dt_proj.bias")):
                parameter.copy_(noise - 1)
            elif name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            elif name.endswith(
                ("conv1d.weight", "in_proj.weight", "x_proj.weight", "dt_proj.weight", "out_proj.weight")
            ):
                parameter.copy_(noise / parameter.shape[-1] ** 0.5)


def peer_outputs(model: Any, ids: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Logits, and each block's output. Taken by hooks: `output_hidden_states` has no embedding and is off by one."""
    import torch

    blocks: list[np.ndarray] = []
    handles = [
        layer.register_forward_hook(lambda _m, _i, out: blocks.append(out.numpy().copy()))
        for layer in model.backbone.layers
    ]
    try:
        with torch.no_grad():
            logits = model(torch.from_numpy(ids), use_cache=False).logits.numpy()
    finally:
        for handle in handles:
            handle.remove()
    return logits, blocks


HYBRIDS: dict[str, dict[str, Any]] = {
    "jamba": {
        "num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2,
        "intermediate_size": 48, "num_experts_per_tok": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
        "mamba_d_state": 5, "mamba_dt_rank": 3,
    },
    "zamba2": {
        "num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
        "mamba_d_state": 8, "mamba_ngroups": 2, "n_mamba_heads": 8, "num_attention_heads": 4, "chunk_size": 8,
        "adapter_rank": 4,
    },
    "bamba": {
        "num_hidden_layers": 4, "attn_layer_indices": [2], "mamba_n_heads": 8, "mamba_n_groups": 2, "mamba_d_state": 6,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48, "mamba_chunk_size": 8,
        "time_step_limit": (0.01, 0.5),
    },
}  # fmt: skip


def random_hybrid(kind: str, seed: int = 0, **options: Any) -> Any:
    """A transformers hybrid with random parameters."""
    import torch
    import transformers

    torch.manual_seed(seed)
    merged = {"vocab_size": 61, "hidden_size": 32} | HYBRIDS[kind] | options
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(kind, **merged))
    model = model.float().eval()
    randomise(model, seed)
    return model
