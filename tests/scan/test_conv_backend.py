"""The compiled causal convolution: forward, gradients and states against their definition, in every layout and type."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ssmtheory.errors import BackendError, InputError
from ssmtheory.scan import causal_conv1d, conv_backend

pytestmark = pytest.mark.skipif(not conv_backend.status()[0], reason="the convolution was not compiled")

#: a handful of roundings of the largest value
TOLERANCE = {"float64": 2e-15, "float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}


SETS = [n for n in (1, 2, 3) if conv_backend.status()[0] and conv_backend.instruction_set(n)] or [0]


@pytest.fixture(params=SETS, ids=lambda n: ("best", "generic", "avx2", "avx512")[n], autouse=True)
def instruction_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test on every instruction set that this machine has."""
    monkeypatch.setattr(conv_backend, "_ISA", request.param)


def definition(x: Any, weight: Any, bias: Any, state: Any, silu: bool) -> tuple[np.ndarray, np.ndarray]:
    """Token by token in float64."""
    x, weight, bias, state = (None if v is None else np.asarray(v, np.float64) for v in (x, weight, bias, state))
    (batch, length, channels), width = x.shape, weight.shape[1]
    past = np.zeros((batch, width - 1, channels)) if state is None else state
    y = np.empty_like(x)
    for t in range(length):
        window = np.concatenate([past, x[:, t : t + 1]], axis=1)
        p = np.einsum("bkc,ck->bc", window, weight) + (0 if bias is None else bias)
        y[:, t] = p / (1 + np.exp(-p)) if silu else p
        past = window[:, 1:]
    return y, past


def inputs(
    batch: int, length: int, channels: int, width: int, dtype: str = "float64", seed: int = 0
) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng([seed, batch, length, channels, width])
    shapes = ((batch, length, channels), (channels, width), (channels,), (batch, width - 1, channels))
    if dtype == "bfloat16":
        import ml_dtypes

        return tuple(rng.normal(size=shape).astype(ml_dtypes.bfloat16) for shape in shapes)
    return tuple(rng.normal(size=shape).astype(dtype) for shape in shapes)


def close(found: Any, expected: Any, dtype: str, factor: float = 1.0) -> None:
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(np.asarray(found, np.float64), expected, rtol=0, atol=factor * TOLERANCE[dtype] * scale)


@pytest.mark.parametrize("width", range(1, 9))
@pytest.mark.parametrize("length", [0, 1, 2, 31, 33, 70])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_forward_is_the_definition(width: int, length: int, dtype: str) -> None:
    x, weight, bias, state = inputs(2, length, 19, width, dtype)
    for given_bias, given_state, activation in ((bias, state, "silu"), (None, None, "silu"), (bias, None, None)):
        y, last = causal_conv1d(
            x, weight, given_bias, initial_state=given_state, activation=activation, return_last_state=True,
            backend="c",
        )  # fmt: skip
        assert y.dtype == last.dtype == dtype
        expected, past = definition(x, weight, given_bias, given_state, activation == "silu")
        close(y, expected, dtype)
        np.testing.assert_array_equal(last, past)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_half_precisions_are_widened_and_rounded_once(kind: str, dtype: str) -> None:
    arrays = inputs(2, 40, 70, 4, dtype)
    expected, past = definition(*(a.astype(np.float64) for a in arrays), True)
    given: Any = arrays
    if kind == "torch":
        given = tuple(torch.tensor(a.astype(np.float32)).to(getattr(torch, dtype)) for a in arrays)
    x, weight, bias, state = given
    y, last = causal_conv1d(
        x, weight, bias, initial_state=state, activation="silu", return_last_state=True, backend="c"
    )
    assert y.dtype == last.dtype == x.dtype
    wide = (y.float().numpy(), last.float().numpy()) if kind == "torch" else (y, last)
    close(wide[0], expected, dtype)
    np.testing.assert_array_equal(np.asarray(wide[1], np.float64), past)


def test_types_mix_and_the_result_has_that_of_x() -> None:
    x, weight, bias, state = inputs(1, 50, 20, 4)
    narrow = x.astype(np.float32)
    y = causal_conv1d(narrow, weight, bias, initial_state=state, activation="silu", backend="c")
    assert y.dtype == np.float32
    close(y, definition(narrow, weight, bias, state, True)[0], "float32", 0.2)  # one rounding, of the float64 result
    y = causal_conv1d(x, weight.astype(np.float32), None, backend="c")
    close(y, definition(x, weight.astype(np.float32), None, None, False)[0], "float64")


def layouts(x: np.ndarray) -> dict[str, np.ndarray]:
    """The same numbers as a slice of wider rows, transposed, backwards, unaligned and with gaps."""
    batch, length, channels = x.shape
    wider = np.zeros((batch, length, 2 * channels + 3), x.dtype)
    wider[..., 3 : 3 + channels] = x
    gaps = np.zeros((batch, 2 * length, 3 * channels), x.dtype)
    gaps[:, ::2, ::3] = x
    shifted = np.frombuffer(bytearray(x.nbytes + 1), np.uint8)[1:].view(x.dtype).reshape(x.shape)
    shifted[...] = x
    return {
        "slice": wider[..., 3 : 3 + channels],
        "channels first": np.ascontiguousarray(x.transpose(0, 2, 1)).transpose(0, 2, 1),
        "length first": np.ascontiguousarray(x.transpose(1, 0, 2)).transpose(1, 0, 2),
        "backwards": np.ascontiguousarray(x[:, ::-1, ::-1])[:, ::-1, ::-1],
        "gaps": gaps[:, ::2, ::3],
        "unaligned": shifted,
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_strides_change_no_bit(dtype: str) -> None:
    x, weight, bias, state = inputs(2, 45, 150, 4, dtype)
    expected = causal_conv1d(x, weight, bias, initial_state=state, activation="silu", backend="c")
    taps = np.ascontiguousarray(weight.T).T
    for name, same in layouts(x).items():
        past = np.ascontiguousarray(state.transpose(2, 0, 1)).transpose(1, 2, 0)
        y = causal_conv1d(same, taps, bias, initial_state=past, activation="silu", backend="c")
        np.testing.assert_array_equal(y, expected, err_msg=name)


def test_channels_do_not_feel_how_they_are_shared_out() -> None:
    x, weight, bias, _ = inputs(1, 20, 1300, 4, "float32")
    whole = causal_conv1d(x, weight, bias, activation="silu", backend="c")
    for c in (0, 511, 512, 700, 1299):
        part = slice(c, c + 1)
        alone = causal_conv1d(x[..., part], weight[part], bias[part], activation="silu", backend="c")
        np.testing.assert_array_equal(alone, whole[..., part])


@pytest.mark.parametrize("width", [1, 2, 4, 7])
def test_pieces_of_a_text_are_the_whole(width: int) -> None:
    x, weight, bias, state = inputs(2, 40, 9, width, "float32")
    whole, end = causal_conv1d(
        x, weight, bias, initial_state=state, activation="silu", return_last_state=True, backend="c"
    )
    for cuts in ([1] * 40, [0, 3, 37], [39, 1], [2, 2, 36]):
        parts, past, start = [], state, 0
        for cut in cuts:
            y, past = causal_conv1d(
                x[:, start : start + cut], weight, bias, initial_state=past, activation="silu",
                return_last_state=True, backend="c",
            )  # fmt: skip
            parts.append(y)
            start += cut
        np.testing.assert_array_equal(np.concatenate(parts, 1), whole)
        np.testing.assert_array_equal(past, end)


def test_extreme_inputs() -> None:
    # x is the pre-activation itself: SiLU vanishes at the left end, is the identity at the right one, and keeps NaN
    points = np.array([-np.inf, -1e30, -800, -100, -80, -1e-30, 0, 1e-30, 80, 1e30, np.inf, np.nan])
    for dtype in ("float32", "float64"):
        x = points.astype(dtype).reshape(1, -1, 1).repeat(17, 2)
        y = causal_conv1d(x, np.ones((17, 1), dtype), activation="silu", backend="c")[0]
        with np.errstate(over="ignore", invalid="ignore"):
            expected = points / (1 + np.exp(-points))
        # below the normal numbers the result is zero
        np.testing.assert_allclose(y[1:], expected[1:, None].repeat(17, 1), rtol=3e-7, atol=1e-33)
        assert np.isnan(y[0]).all() or (y[0] == 0).all()


@pytest.mark.parametrize("width", range(1, 9))
@pytest.mark.parametrize("length", [1, 2, 31, 33, 70])
def test_gradients_are_those_of_the_definition(width: int, length: int) -> None:
    arrays = [torch.tensor(a, requires_grad=True) for a in inputs(2, length, 11, width)]
    rng = np.random.default_rng(width)
    dy, dlast = (torch.tensor(rng.normal(size=shape)) for shape in ((2, length, 11), (2, width - 1, 11)))

    def gradients(backend: str, activation: Any, dtype: torch.dtype) -> list[Any]:
        x, weight, bias, state = (a.detach().to(dtype).requires_grad_() for a in arrays)
        outputs = causal_conv1d(
            x, weight, bias, initial_state=state, activation=activation, return_last_state=True, backend=backend
        )
        torch.autograd.backward(outputs, [dy.to(dtype), dlast.to(dtype)])
        return [v.grad for v in (x, weight, bias, state)]

    for activation in ("silu", None):
        exact = gradients("torch", activation, torch.float64)  # torch's own derivative of the array-API lines
        for dtype in ("float64", "float32"):
            for found, expected in zip(gradients("c", activation, getattr(torch, dtype)), exact, strict=True):
                assert found.dtype == getattr(torch, dtype)
                close(found, expected.numpy(), dtype, 3)


def test_long_sums_keep_their_digits() -> None:
    # equal cotangents: the gradient of a tap is a sum of 100,000 numbers of one sign
    length = 100_000
    x = torch.full((1, length, 3), 0.1, requires_grad=True)
    weight = torch.ones(3, 2, requires_grad=True)
    bias = torch.zeros(3, requires_grad=True)
    causal_conv1d(x, weight, bias, backend="c").sum().backward()
    assert weight.grad is not None
    assert bias.grad is not None
    tenth = float(np.float32(0.1))
    # 32 float32 additions of equal numbers all round to the same side; what follows is float64
    np.testing.assert_allclose(weight.grad.numpy(), [[tenth * (length - 1), tenth * length]] * 3, rtol=1e-6)
    np.testing.assert_array_equal(bias.grad.numpy(), [length] * 3)


def test_gradients_through_views_and_partial_needs() -> None:
    x, weight, bias, state = (torch.tensor(a) for a in inputs(2, 37, 140, 4, "float32"))
    exact = x.double().requires_grad_()
    causal_conv1d(exact, weight.double(), bias.double(), activation="silu", backend="torch").sum().backward()
    for name, same in layouts(x.numpy()).items():
        if name in ("backwards", "unaligned"):  # torch has no such tensors
            continue
        leaf = torch.as_strided(
            torch.from_numpy(same), same.shape, tuple(s // 4 for s in same.strides)
        ).requires_grad_()
        # a cotangent of stride zero
        causal_conv1d(leaf, weight, bias, activation="silu", backend="c").sum().backward()
        close(leaf.grad, exact.grad.numpy(), "float32", 3)
    weight.requires_grad_()
    _, last = causal_conv1d(x, weight, initial_state=state, return_last_state=True, backend="c")
    assert not torch.autograd.grad(last.sum(), weight, allow_unused=True)[0].any()


def test_second_derivatives_and_transformations() -> None:
    arrays = tuple(torch.tensor(a, requires_grad=True) for a in inputs(1, 5, 2, 3))

    def run(x: Any, weight: Any, bias: Any, state: Any) -> Any:
        return causal_conv1d(x, weight, bias, initial_state=state, activation="silu", return_last_state=True)

    assert torch.autograd.gradcheck(run, arrays)
    assert torch.autograd.gradgradcheck(run, arrays)
    x, weight, bias, state = (a.detach() for a in arrays)
    rows = torch.func.vmap(lambda row: run(row[None], weight, bias, state)[0][0])(torch.stack([x[0], 2 * x[0]]))
    torch.testing.assert_close(rows[1], run(2 * x, weight, bias, state)[0][0])
    _, moved = torch.func.jvp(lambda v: run(v, weight, bias, state)[0], (x,), (torch.ones_like(x),))
    step = 1e-6
    difference = (run(x + step, weight, bias, state)[0] - run(x - step, weight, bias, state)[0]) / (2 * step)
    torch.testing.assert_close(moved, difference, atol=1e-8, rtol=0)
    with pytest.raises(BackendError, match=r"inside a transformation of torch\.func"):
        torch.func.jvp(lambda v: causal_conv1d(v, weight, backend="c"), (x,), (x,))
    torch.library.opcheck(torch.ops.ssmtheory.causal_conv1d.default, (*arrays, True))


def test_flush_to_zero_ends_with_the_call() -> None:
    causal_conv1d(np.ones((1, 40, 20)), np.ones((20, 4)), activation="silu", backend="c")
    assert np.float64(1e-310) * np.float64(0.5) > 0
    assert torch.tensor(1e-310, dtype=torch.float64).mul(0.5).item() > 0


def test_names() -> None:
    import jax.numpy as jnp

    x, weight = np.ones((1, 3, 2)), np.ones((2, 2))
    for name in ("auto", "c", "numpy", "reference", "jax"):
        np.testing.assert_array_equal(causal_conv1d(x, weight, backend=name)[0, :, 0], [1, 2, 2])
    with pytest.raises(InputError, match=r"Did you mean 'torch'"):
        causal_conv1d(x, weight, backend="torhc")
    with pytest.raises(BackendError, match="does not take JAX arrays"):
        causal_conv1d(jnp.asarray(x), jnp.asarray(weight), backend="c")
    with pytest.raises(InputError, match="x is int64: must be float16, bfloat16, float32 or float64"):
        causal_conv1d(x.astype(np.int64), weight, backend="c")


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv_backend, "library_path", lambda: None)
    x, weight = np.ones((1, 3, 2)), np.ones((2, 2))
    for cached in (conv_backend.library, conv_backend.status):
        cached.cache_clear()
    try:
        assert conv_backend.status() == (False, "not compiled")
        np.testing.assert_array_equal(causal_conv1d(x, weight)[0, :, 0], [1, 2, 2])
        with pytest.raises(BackendError, match=r"conv\.c was not compiled"):
            causal_conv1d(x, weight, backend="c")
    finally:
        for cached in (conv_backend.library, conv_backend.status):
            cached.cache_clear()
