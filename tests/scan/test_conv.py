"""Causal convolution, RMS norm and activations, on every array library."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.signal
import torch

from ssmtheory.errors import InputError
from ssmtheory.scan import causal_conv1d, rms_norm, sigmoid, silu, softplus

KINDS = ["numpy", "torch", "jax"]
#: one or two roundings of the result; float32 accumulates a handful of products
TOLERANCE = {"float64": 5e-16, "float32": 3e-7, "float16": 5e-4, "bfloat16": 4e-3}


def native(kind: str, x: Any, dtype: str = "float64") -> Any:
    if kind == "torch":
        return torch.tensor(np.array(x)).to(getattr(torch, dtype))
    if kind == "jax":
        return jnp.asarray(x).astype(dtype)
    if dtype == "bfloat16":
        import ml_dtypes

        return np.asarray(x).astype(ml_dtypes.bfloat16)
    return np.asarray(x).astype(dtype)


def values(x: Any) -> Any:
    return x.detach().to(torch.float64).numpy() if isinstance(x, torch.Tensor) else np.asarray(x).astype(np.float64)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", KINDS)
def test_conv_is_scipys_correlation(kind: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    with jax.enable_x64(dtype == "float64"):
        x, weight, bias, state = (
            native(kind, rng.normal(size=shape), dtype) for shape in ((2, 9, 3), (3, 4), (3,), (2, 3, 3))
        )
        y, last = causal_conv1d(x, weight, bias, initial_state=state, return_last_state=True)
        assert type(y) is type(x)
        assert y.dtype == x.dtype
        x, weight, bias, state = (values(v) for v in (x, weight, bias, state))
        padded = np.concatenate([state, x], 1)
        for b in range(2):
            for c in range(3):
                expected = scipy.signal.correlate(padded[b, :, c], weight[c], "valid") + bias[c]
                np.testing.assert_allclose(values(y)[b, :, c], expected, rtol=0, atol=TOLERANCE[dtype] * 10)
        np.testing.assert_array_equal(values(last), padded[:, -3:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut", [0, 1, 2, 5, 9])
def test_conv_continues_from_its_state(kind: str, cut: int) -> None:
    rng = np.random.default_rng(1)
    x, weight = native(kind, rng.normal(size=(2, 9, 3)), "float32"), native(kind, rng.normal(size=(3, 4)), "float32")
    whole, last = causal_conv1d(x, weight, activation="silu", return_last_state=True)
    first, state = causal_conv1d(x[:, :cut], weight, activation="silu", return_last_state=True)
    second, state = causal_conv1d(x[:, cut:], weight, activation="silu", initial_state=state, return_last_state=True)
    np.testing.assert_array_equal(np.concatenate([values(first), values(second)], 1), values(whole))
    np.testing.assert_array_equal(values(state), values(last))


def test_conv_of_width_one_and_no_tokens() -> None:
    x = np.ones((2, 0, 3))
    y, state = causal_conv1d(x, np.ones((3, 1)), return_last_state=True)
    assert y.shape == (2, 0, 3)
    assert state.shape == (2, 0, 3)
    np.testing.assert_array_equal(causal_conv1d(np.ones((1, 2, 3)), np.full((3, 1), 2.0)), np.full((1, 2, 3), 2.0))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", KINDS)
def test_rms_norm(kind: str, dtype: str) -> None:
    rng = np.random.default_rng(2)
    with jax.enable_x64(dtype == "float64"):
        x, weight, gate = (native(kind, rng.normal(size=shape), dtype) for shape in ((2, 5, 6), (6,), (2, 5, 6)))
        plain = rms_norm(x, weight, eps=1e-3)
        gated = rms_norm(x, weight, eps=1e-3, gate=gate, groups=2)
        assert plain.dtype == x.dtype
        x, weight, gate = (values(v) for v in (x, weight, gate))
        expected = weight * x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-3)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(values(plain), expected, rtol=0, atol=4 * TOLERANCE[dtype] * scale)
        v = x * gate / (1 + np.exp(-gate))
        halves = [h / np.sqrt((h**2).mean(-1, keepdims=True) + 1e-3) for h in (v[..., :3], v[..., 3:])]
        expected = weight * np.concatenate(halves, -1)
        np.testing.assert_allclose(values(gated), expected, rtol=0, atol=4 * TOLERANCE[dtype] * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
def test_activations_to_full_relative_precision(kind: str) -> None:
    points = [-740.0, -100.0, -37.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 30.0, 700.0, 1e5]
    with jax.enable_x64(True), mpmath.workdps(400):
        x = native(kind, points)
        for name, function, exact in (
            ("softplus", softplus, lambda v: mpmath.log1p(mpmath.exp(v))),
            ("sigmoid", sigmoid, lambda v: 1 / (1 + mpmath.exp(-v))),
            ("silu", silu, lambda v: v / (1 + mpmath.exp(-v))),
        ):
            expected = [float(exact(mpmath.mpf(v))) for v in points]
            # exp(-740) = 4e-322 is denormal, which torch and JAX flush to zero
            np.testing.assert_allclose(values(function(x)), expected, rtol=1e-15, atol=1e-307, err_msg=name)


@pytest.mark.parametrize("kind", ["torch", "jax"])
def test_derivatives_are_finite_and_right(kind: str) -> None:
    points = np.array([-1e4, -50.0, -1.0, 0.0, 1.0, 50.0, 1e4])
    with np.errstate(over="ignore"):
        s = 1 / (1 + np.exp(-points))
    for function, expected in ((softplus, s), (silu, s + points * s * (1 - s))):
        if kind == "torch":
            x = torch.tensor(points, requires_grad=True)
            function(x).sum().backward()
            assert x.grad is not None
            slope = x.grad.numpy()
        else:
            with jax.enable_x64(True):
                slope = np.asarray(jax.grad(lambda x, f=function: jnp.sum(f(x)))(jnp.asarray(points)))
        np.testing.assert_allclose(slope, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: causal_conv1d(x[0], np.ones((3, 4))), "must be .batch, length, channel."),
        (lambda x: causal_conv1d(x, np.ones((2, 4))), r"weight has shape \(2, 4\).*channel = 3"),
        (lambda x: causal_conv1d(x, np.ones((3, 4)), np.ones(4)), r"bias has shape \(4,\)"),
        (lambda x: causal_conv1d(x, np.ones((3, 4)), initial_state=np.ones((2, 4, 3))), r"\(2, 3, 3\)"),
        (lambda x: causal_conv1d(x, np.ones((3, 4)), activation="silo"), "Did you mean 'silu'"),
        (lambda x: causal_conv1d(x.astype(int), np.ones((3, 4))), "x is int64: must be float16"),
        (lambda x: causal_conv1d(x > 0, np.ones((3, 4)), backend="numpy"), "x is bool: must be float16"),
        (lambda x: causal_conv1d(x, 1j * np.ones((3, 4))), "weight is complex128: must be float16"),
        (lambda x: causal_conv1d(x, torch.ones(3, 4)), "x is a NumPy array but weight is a PyTorch tensor"),
        (lambda x: rms_norm(x, np.ones(4)), r"weight has shape \(4,\): must be \(3,\)"),
        (lambda x: rms_norm(x, gate=x[0]), "gate has shape"),
        (lambda x: rms_norm(x, groups=2), "groups=2: must be a positive divisor of the 3 channels"),
    ],
)
def test_bad_input(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(np.ones((2, 5, 3)))
