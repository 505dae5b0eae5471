"""Random initial weights of a Mamba-1 language model, as its authors' code draws them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.mamba.config import MambaConfig, parameter_shapes


def initial_weights(config: MambaConfig, seed: int = 0) -> dict[str, Any]:
    """Draw the weights of an untrained Mamba-1 model.

    A_n = -n for every channel (S4D-Real), D = 1, softplus(dt bias) log-uniform in [0.001, 0.1], output projections
    scaled down by sqrt(n_layer): Gu and Dao, arXiv 2312.00752, section 3.6 and appendix E; laws as in mamba_ssm.

    Args:
        config: of family "mamba1".
        seed: of NumPy's generator; the draw does not depend on torch.

    Returns:
        Parameter name to float32 array.

    Raises:
        InputError: another family.

    >>> config = MambaConfig.mamba1(d_model=8, n_layer=1, vocab_size=5)
    >>> weights = initial_weights(config)
    >>> np.exp(weights["backbone.layers.0.mixer.A_log"][0, :3])
    array([1., 2., 3.], dtype=float32)
    """
    if config.family != "mamba1":
        raise InputError(f"initial_weights draws Mamba-1 models only, not family {config.family!r}")
    rng = np.random.default_rng(seed)

    def uniform(shape: tuple[int, ...], bound: float) -> Any:
        return rng.uniform(-bound, bound, shape)

    weights = {}
    for name, shape in parameter_shapes(config).items():
        kind = name.split(".")[-2] + "." + name.split(".")[-1]
        if kind.endswith(".A_log"):
            value = np.broadcast_to(np.log(np.arange(1, config.d_state + 1)), shape)
        elif kind.endswith(".D") or ("norm" in kind and kind.endswith(".weight")):
            value = np.ones(shape)
        elif kind == "dt_proj.bias":
            step = np.exp(rng.uniform(math.log(1e-3), math.log(1e-1), shape)).clip(1e-4)
            value = step + np.log(-np.expm1(-step))  # the inverse of softplus
        elif kind == "dt_proj.weight":
            value = uniform(shape, config.dt_rank**-0.5)
        elif kind in ("embedding.weight", "lm_head.weight"):
            value = 0.02 * rng.standard_normal(shape)
        elif kind in ("in_proj.bias", "out_proj.bias") or "norm" in kind:
            value = np.zeros(shape)
        elif kind == "out_proj.weight":
            value = uniform(shape, shape[1] ** -0.5) / math.sqrt(config.n_layer)
        elif kind in ("in_proj.weight", "x_proj.weight"):
            value = uniform(shape, shape[1] ** -0.5)
        elif kind in ("conv1d.weight", "conv1d.bias"):
            value = uniform(shape, config.d_conv**-0.5)
        else:
            raise InputError(f"no law for the initial value of parameter {name}")
        weights[name] = np.ascontiguousarray(value, dtype=np.float32)
    return weights
