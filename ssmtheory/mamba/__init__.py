"""Pretrained Mamba language models: checkpoints, one forward pass for every array library, and streamed traces.

>>> import ssmtheory.mamba
>>> ssmtheory.mamba.MambaConfig.mamba1(d_model=64, n_layer=2, vocab_size=256).parameters
81856
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssmtheory.mamba.config import MambaConfig, parameter_shapes

_LAZY = {
    "MambaConfig": "config",
    "parameter_shapes": "config",
}

__all__ = ["MambaConfig", "parameter_shapes"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        value = getattr(import_module(f"ssmtheory.mamba.{_LAZY[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'ssmtheory.mamba' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_LAZY))
