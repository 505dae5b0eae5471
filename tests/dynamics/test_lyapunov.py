"""Exponents against QR of the explicit recurrent Jacobian; the receptive field against the quadratic sum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ssmtheory.dynamics import lyapunov
from ssmtheory.errors import InputError
from ssmtheory.mamba.config import MambaConfig, parameter_shapes
from ssmtheory.mamba.forward import MambaState, forward, layer_map
from ssmtheory.mamba.initialize import initial_weights
from ssmtheory.mamba.model import MambaLM
from ssmtheory.mamba.tangent import layer_tangents


def _model() -> tuple[MambaConfig, dict[str, Any]]:
    config = MambaConfig.mamba1(d_model=4, n_layer=2, vocab_size=7, d_state=2, d_conv=3, expand=1)
    weights = {k: v.astype(np.float64) for k, v in initial_weights(config, seed=3).items()}
    rng = np.random.default_rng(4)
    for layer in range(config.n_layer):
        mixer = f"backbone.layers.{layer}.mixer."
        weights[mixer + "dt_proj.bias"] = rng.uniform(-2.0, 1.0, config.d_inner)  # Delta of order one: quick mixing
        weights[mixer + "A_log"] = np.log(rng.uniform(0.1, 2.0, (config.d_inner, config.d_state)))
        weights[mixer + "out_proj.weight"] *= 3.0
    weights["backbone.embedding.weight"] *= 30.0
    return config, weights


def _flat(state: MambaState) -> np.ndarray:
    """(batch, entry): per layer first h, then the convolution's register."""
    batch = state.ssm[0].shape[0]
    return np.concatenate(
        [x.reshape(batch, -1) for pair in zip(state.ssm, state.conv, strict=True) for x in pair], axis=1
    )


def _unflat(x: np.ndarray, like: MambaState) -> MambaState:
    conv, ssm, at = [], [], 0
    for h, register in zip(like.ssm, like.conv, strict=True):
        for target, shape in ((ssm, h.shape[1:]), (conv, register.shape[1:])):
            size = int(np.prod(shape))
            target.append(x[:, at : at + size].reshape(-1, *shape))
            at += size
    return MambaState(conv, ssm, like.position)


def _jacobian(config: MambaConfig, weights: dict[str, Any], state: MambaState, token: int) -> np.ndarray:
    """d(state after the token)/d(state before), by central differences in one batch."""
    x = _flat(state)[0]
    step = 1e-6
    moved = np.concatenate([x + step * np.eye(len(x)), x - step * np.eye(len(x))])
    tokens = np.full((len(moved), 1), token)
    _, after = forward(weights, config, tokens, _unflat(moved, state), return_state=True, logits="none")
    out = _flat(after)
    return (out[: len(x)] - out[len(x) :]).T / (2 * step)


def test_spectrum_against_qr_of_the_explicit_jacobian() -> None:
    config, weights = _model()
    tokens = np.random.default_rng(5).integers(0, 7, 320)
    n_h, n_conv = config.d_inner * config.d_state, (config.d_conv - 1) * config.d_inner
    size = n_h + n_conv
    steps: dict[int, list[np.ndarray]] = {0: [], 1: []}
    _, state = forward(weights, config, tokens[None, :20], return_state=True, logits="none")
    q = np.linalg.qr(np.random.default_rng(6).normal(size=(2 * size, 2 * size)))[0]
    growth = np.zeros(2 * size)
    coupled = 0.0
    for position, token in enumerate(tokens[20:]):
        jacobian = _jacobian(config, weights, state, int(token))
        # structure: an earlier layer does not see a later one; states see each other only through themselves
        assert not jacobian[:size, size:].any()
        for layer in range(2):
            block = jacobian[layer * size : layer * size + n_h, layer * size : layer * size + n_h]
            assert not (block - np.diag(np.diag(block))).any()
            register = jacobian[layer * size + n_h : (layer + 1) * size, layer * size + n_h : (layer + 1) * size]
            assert not np.linalg.matrix_power(register, config.d_conv - 1).any()
        coupled = max(coupled, np.abs(jacobian[size:, :size]).max())
        q, r = np.linalg.qr(jacobian @ q)
        # until QR's directions are aligned (about 1/gap tokens) its rates are mixtures: they are not counted
        counted = position >= 140
        growth += counted * np.log(np.maximum(np.abs(np.diag(r)), 1e-300))

        def tap(layer: int, signals: Any, counted: bool = counted) -> None:
            if counted:
                steps[layer].append(signals.delta[0])

        _, state = forward(weights, config, np.array([[token]]), state, return_state=True, logits="none", tap=tap)
    assert coupled > 1e-2  # the layers do act on each other, so that the union is no triviality
    exact = []
    for layer in range(2):
        A = -np.exp(weights[f"backbone.layers.{layer}.mixer.A_log"])
        exact.append(lyapunov.lyapunov_exponents(A, np.concatenate(steps[layer]).mean(axis=0)).ravel())
    union = np.sort(np.concatenate(exact))[::-1]
    measured = np.sort(growth / 160)[::-1]
    # measured 3e-5: what the directions still turn between the first and the last counted token, over 160 tokens
    np.testing.assert_allclose(measured[: 2 * n_h], union, atol=3e-4)
    # the registers are nilpotent, minus infinity; differences of step 1e-6 show that down to rounding, ln 1e-10 = -23
    # every d_conv - 1 tokens
    assert measured[2 * n_h :].max() < -8 < union.min()


def _explicit_field(delta: np.ndarray, A: np.ndarray, B: np.ndarray) -> np.ndarray:
    tokens, channels = delta.shape
    groups, states = B.shape[1:]
    out = np.zeros((channels, states))
    for c in range(channels):
        for n in range(states):
            a = A[c, 0 if A.shape[1] == 1 else n]
            b = B[:, c // (channels // groups), n]
            weight = [np.exp(a * delta[j + 1 :, c].sum()) * delta[j, c] * abs(b[j]) for j in range(tokens)]
            out[c, n] = sum((tokens - 1 - j) * w for j, w in enumerate(weight)) / sum(weight)
    return out


@pytest.mark.parametrize(("groups", "scalar"), [(1, False), (2, False), (2, True)])
@pytest.mark.parametrize("chunks", [(60,), (1, 33, 26)])
def test_receptive_field_against_the_sum(groups: int, scalar: bool, chunks: tuple[int, ...]) -> None:
    rng = np.random.default_rng(8)
    tokens, channels, states = 60, 4, 3
    delta = rng.uniform(0.001, 0.3, (tokens, channels))
    A = -rng.uniform(0.1, 4.0, (channels, 1 if scalar else states))
    B = rng.normal(size=(tokens, groups, states))
    field = lyapunov.ReceptiveField(A, groups, states, block=8)
    start = 0
    for size in chunks:
        field.update(delta[start : start + size], B[start : start + size])
        start += size
    # float64 sums of 60 positive terms
    np.testing.assert_allclose(field.value, _explicit_field(delta, A, B), rtol=1e-12)


def test_receptive_field_of_a_constant_step_is_geometric() -> None:
    # weights r^k with r = exp(A Delta): mean distance r/(1 - r), up to r^tokens = 1e-22
    field = lyapunov.ReceptiveField(np.array([[-1.0]]), 1, 1)
    field.update(np.full((500, 1), 0.1), np.ones((500, 1, 1)))
    r = np.exp(-0.1)
    assert field.value[0, 0] == pytest.approx(r / (1 - r), rel=1e-12)
    assert lyapunov.horizon(np.array([[-1.0]]), np.array([0.1]))[0, 0] == pytest.approx(10.0)


def test_nothing_written_has_no_field() -> None:
    field = lyapunov.ReceptiveField(np.array([[-1.0]]), 1, 1)
    field.update(np.full((5, 1), 0.1), np.zeros((5, 1, 1)))
    assert np.isnan(field.value).all()


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def test_depth_exponents_of_matrices_are_the_singular_values_of_their_product() -> None:
    rng = np.random.default_rng(0)
    matrices = [np.eye(6) + 0.3 * rng.standard_normal((6, 6)) for _ in range(9)]
    layers: list[lyapunov.Tangent] = [lambda x, V, M=M: (M @ x, V @ M.T) for M in matrices]  # type: ignore[misc]
    found = lyapunov.depth_exponents(layers, rng.standard_normal(6), np.eye(6))
    product = np.linalg.multi_dot(matrices[::-1])
    np.testing.assert_allclose(found.exponents, np.log(np.linalg.svd(product)[1]) / 9, rtol=0, atol=1e-12)
    # the running rates give the volume, which is the determinant
    np.testing.assert_allclose(found.local.sum(), np.log(abs(np.linalg.det(product))), atol=1e-12)
    # a frame that spans a plane sees that plane only
    plane = rng.standard_normal((2, 6))
    basis = np.linalg.qr(plane.T)[0]
    part = lyapunov.depth_exponents(layers, np.zeros(6), plane)
    np.testing.assert_allclose(part.exponents, np.log(np.linalg.svd(product @ basis)[1]) / 9, atol=1e-12)


def test_depth_exponents_beyond_the_precision_are_not_invented() -> None:
    layers: list[lyapunov.Tangent] = [lambda x, V: (x, V * np.array([1.0, 1e-5]))] * 6  # type: ignore[list-item]
    found = lyapunov.depth_exponents(layers, np.zeros(2), np.eye(2) @ _rotation(0.3))
    assert found.exponents[0] == pytest.approx(np.log(np.cos(0.0)), abs=1e-12)
    assert np.isnan(found.exponents[1])  # 1e-30 beside 1
    assert found.local.sum() == pytest.approx(6 * np.log(1e-5), rel=1e-6)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (0, "between 1 and 4"),
        (5, "between 1 and 4"),
        (np.ones((2, 3)), "frame has shape"),
        (np.ones((2, 4)), "linearly independent"),
        (np.full((1, 4), np.nan), "not finite"),
    ],
)
def test_depth_exponents_refuse_a_frame_that_does_not_fit(frame: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        lyapunov.depth_exponents([lambda x, V: (x, V)], np.zeros(4), frame)


@pytest.mark.parametrize("family", ["mamba1", "mamba2"])
def test_layer_tangents_against_central_differences(family: str) -> None:
    sizes = {"d_model": 6, "n_layer": 2, "vocab_size": 7, "d_state": 3}
    config = MambaConfig.mamba1(**sizes) if family == "mamba1" else MambaConfig.mamba2(**sizes, head_dim=4)
    rng = np.random.default_rng(1)
    weights = {k: 0.3 * rng.standard_normal(shape) for k, shape in parameter_shapes(config).items()}
    model = MambaLM(config, weights, name="small", sha256="0" * 64)
    x, V = rng.standard_normal((5, 6)), rng.standard_normal((3, 5, 6))
    for layer, tangent in enumerate(layer_tangents(model)):
        y, moved = tangent(x, V)
        step = 1e-6

        def value(r: np.ndarray, layer: int = layer) -> np.ndarray:
            return layer_map(weights, config, layer, r[None])[0]

        np.testing.assert_allclose(y, value(x), rtol=1e-12, atol=1e-12)
        expected = np.stack([(value(x + step * v) - value(x - step * v)) / (2 * step) for v in V])
        np.testing.assert_allclose(moved, expected, rtol=1e-7, atol=1e-8)  # central differences: step^2 and eps/step
        x = y
