"""What "auto" and a named backend mean for a model: which code runs the scan, and in which arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssmtheory.mamba import MambaConfig, MambaLM
from ssmtheory.mamba.forward import forward
from ssmtheory.mamba.initialize import initial_weights
from ssmtheory.scan import c_backend

CONFIG = MambaConfig.mamba1(d_model=16, n_layer=2, vocab_size=256)
COMPILED = ["c"] if c_backend.status()[0] else []


def test_auto_on_numpy_is_float64_whichever_code_runs_it() -> None:
    model = MambaLM(CONFIG, initial_weights(CONFIG))
    assert model.dtype == "float32"
    assert (model.backend.asked, model.arithmetic) == ("auto", "float64")
    assert model.backend == ("c" if COMPILED else "numpy")
    ids = np.arange(50)[None]
    plain = model.to(backend="numpy")
    assert (plain.backend, plain.arithmetic) == ("numpy", "float64")
    # both float64 inside, rounded once: at most the last bit of float32
    np.testing.assert_allclose(model(ids), plain(ids), rtol=2e-7, atol=1e-7)
    wide = model.to(dtype="float64")
    assert wide.backend.asked == "auto"
    np.testing.assert_allclose(model(ids), wide(ids), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", COMPILED)
def test_a_named_kernel_computes_in_the_dtype_of_the_weights(backend: str) -> None:
    model = MambaLM(CONFIG, initial_weights(CONFIG), backend=backend)
    assert (model.backend, model.backend.asked, model.arithmetic) == ("c", "c", "float32")
    assert model.to(dtype="float64").arithmetic == "float64"
    assert model.to(dtype="float64").backend.asked == "c"


def test_autocast() -> None:
    weights = {name: torch.tensor(x).requires_grad_() for name, x in initial_weights(CONFIG).items()}
    ids = torch.arange(24)[None]
    exact = forward(weights, CONFIG, ids)
    with torch.autocast("cpu", torch.bfloat16):
        rough = forward(weights, CONFIG, ids)
    rough.float().sum().backward()
    assert rough.dtype == torch.bfloat16
    assert all(x.grad is not None and torch.isfinite(x.grad).all() for x in weights.values())
    # bfloat16 has 8 bits; two layers and the head are a few dozen roundings that average out
    assert float((rough - exact).norm() / exact.norm()) < 0.05
