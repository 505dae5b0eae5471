"""Pretrained Mamba language models: checkpoints, one forward pass for every array library, and streamed traces.

>>> import ssmtheory.mamba
>>> ssmtheory.mamba.MambaConfig.mamba1(d_model=64, n_layer=2, vocab_size=256).parameters
81856
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ssmtheory.lazy import find

if TYPE_CHECKING:
    from ssmtheory.mamba.adapters import HybridLM, SelfCheck, load_hybrid
    from ssmtheory.mamba.checkpoint import read_checkpoint, save_checkpoint
    from ssmtheory.mamba.config import MambaConfig, parameter_shapes
    from ssmtheory.mamba.forward import MambaState, MixerSignals
    from ssmtheory.mamba.model import MambaLM, available, block, load
    from ssmtheory.mamba.tokenizer import ByteTokenizer
    from ssmtheory.mamba.trace import hook

_LAZY = {
    "ByteTokenizer": "tokenizer",
    "HybridLM": "adapters",
    "MambaConfig": "config",
    "MambaLM": "model",
    "MambaState": "forward",
    "MixerSignals": "forward",
    "SelfCheck": "adapters",
    "available": "model",
    "block": "model",
    "hook": "trace",
    "load": "model",
    "load_hybrid": "adapters",
    "parameter_shapes": "config",
    "read_checkpoint": "checkpoint",
    "save_checkpoint": "checkpoint",
}

__all__ = [
    "ByteTokenizer",
    "HybridLM",
    "MambaConfig",
    "MambaLM",
    "MambaState",
    "MixerSignals",
    "SelfCheck",
    "available",
    "block",
    "hook",
    "load",
    "load_hybrid",
    "parameter_shapes",
    "read_checkpoint",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    return find(__name__, name, _LAZY)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_LAZY))
