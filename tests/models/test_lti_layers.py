"""The trainable layers: each against the parameters that it starts from, mode against mode, step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssmtheory.errors import ConfigError
from ssmtheory.models.lti_layers import TRAINABLE, VARIANTS, make_layer, parse_variant

CASES = [
    *VARIANTS, "s4d:discretization=zoh", "s4-ptd:kind=dissipative,epsilon=0.4", "hippo-rho:rho=3,normal=true",
    "hippo-rho:sign=imaginary", "s5:blocks=2", "s5-ptd:blocks=2", "s5-rho:blocks=2",
]  # fmt: skip
#: its low-rank part alone makes it stable
UNSTABLE_POLES = ("s4-legt",)
FEATURES, N, LENGTH = 5, 16, 130


def layer_of(case: str, train=("C", "D"), **options):
    if "A" in train and case in UNSTABLE_POLES:
        options["real_part"] = "free"
    return make_layer(case, FEATURES, N, 3, 1e-3, 1e-1, train=train, **options)


def signal(dtype=torch.float32):
    return torch.randn(3, LENGTH, FEATURES, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("train", [("C", "D"), TRAINABLE], ids=["frozen", "trained"])
@pytest.mark.parametrize("case", CASES)
def test_modes_agree_and_the_kernel_is_that_of_the_parameters(case: str, train) -> None:
    layer = layer_of(case, train)
    kept = layer.snapshot()
    K = layer.kernel(LENGTH).detach().numpy()
    if layer.scope == "layer":
        K = K[np.arange(FEATURES), np.arange(FEATURES)]
    # a dense reference is slow: two features of it
    K = K[:2]
    expected = np.stack([kept.kernel(LENGTH, h) for h in range(2)])
    np.testing.assert_allclose(K, expected, rtol=0, atol=1e-13 * np.abs(expected).max())
    # float32: a few roundings of the largest output
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-13)):
        u = signal(dtype)
        found = {}
        with torch.no_grad():
            found["convolution"], found["recurrence"] = layer(u, mode="convolution"), layer(u, mode="recurrence")
            state, outputs = None, []
            for x in u.unbind(1):
                y, state = layer.step(x, state, length=LENGTH)
                outputs.append(y)
            found["step"] = torch.stack(outputs, 1)
        size = float(found["convolution"].abs().max())
        for y in found.values():
            assert y.dtype == dtype
            torch.testing.assert_close(y, found["convolution"], rtol=0, atol=tolerance * size)


def test_variants_are_read() -> None:
    assert parse_variant("s4-ptd:epsilon=0.1,kind=dissipative") == ("s4-ptd", {"epsilon": 0.1, "kind": "dissipative"})
    wrong = {
        "s4e": "s4d", "s4d:rho=2": "discretization", "hippo-rho:rho=x": "a number", "s4d:scaling=unit": "unit_input",
        "s4:scaling=unit_input": "option=value",
    }  # fmt: skip
    for text, words in wrong.items():
        with pytest.raises(ConfigError, match=words):
            parse_variant(text)


def test_the_scaling_of_the_modes_is_an_option_and_changes_no_output() -> None:
    given, scaled = (make_layer(f"s4-ptd:epsilon=0.1{option}", 3, 16, 2) for option in ("", ",scaling=unit_input"))
    u = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert np.all(scaled.snapshot().B == 1)
    assert not np.allclose(given.snapshot().B, 1)
    with torch.no_grad():
        y, z = given.double()(u), scaled.double()(u)
    # parameters of modes have float32 once the layer was made; B of a Ginibre PTD is 1e3 and cancels
    torch.testing.assert_close(z, y, rtol=0, atol=1e-4 * float(y.abs().max()))


@pytest.mark.parametrize("case", ["s4", "s4d", "s4-ptd:epsilon=0.1", "hippo-rho:rho=100", "s5", "s5-ptd", "lru"])
def test_modes_agree_on_long_sequences_in_float32(case: str) -> None:
    """1024 steps, 64 states: phases add up, and the modes of a Ginibre PTD (kappa 2e4) cancel."""
    layer = make_layer(case, 2, 64, 7)
    u = torch.randn(2, 1024, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = [layer(u, mode=mode) for mode in ("convolution", "recurrence")]
        exact = layer(u.double(), mode="convolution")
    for y in found:
        torch.testing.assert_close(y.double(), exact, rtol=0, atol=2e-6 * exact.abs().max().item())


def test_auto_is_one_of_the_modes() -> None:
    for case, batch, length, mode in (
        ("s4d", 64, 196, "convolution"), ("s4", 1, 16, "convolution"), ("s5", 64, 1024, "recurrence"),
    ):  # fmt: skip
        layer = make_layer(case, 64, 64)
        assert layer.plan(batch, length) == mode
        u = torch.randn(2, 12, 64, generator=torch.Generator().manual_seed(1))
        assert torch.equal(layer(u), layer(u, mode=layer.plan(2, 12)))


def test_a_large_table_of_responses_is_not_kept(monkeypatch) -> None:
    layer = make_layer("s4", 2, 8)
    kept = layer.kernel(30)
    assert layer._cache
    layer = make_layer("s4", 2, 8)
    monkeypatch.setattr("ssmtheory.models.lti_layers._RESPONSE_BYTES", 16 * 2 * 4 * 30 - 1)
    torch.testing.assert_close(layer.kernel(30), kept, rtol=0, atol=1e-13)
    assert not layer._cache
