"""The initialisations: each system against dense matrices, each layer's kernel against its system, the registry."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from ssmtheory import inits
from ssmtheory.errors import InputError
from ssmtheory.inits import hippo, legs

POINTS = 1j * np.array([-30.0, 0.3, 2.0, 7.0, 100.0])


def _dense(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    return np.stack([np.linalg.solve(s * np.eye(B.size) - A, B) for s in POINTS])


@pytest.mark.parametrize("N", [2, 6, 16])
def test_hippo_systems_are_their_matrices(N: int) -> None:
    pairs = {"legs": hippo.legs(N), "legt": hippo.legt(N), "lagt": hippo.lagt(N), "fout": hippo.fout(N)}
    for name, (A, B) in pairs.items():
        built = inits.get(name).build(N)
        assert built.system.shape == (N, 1)
        assert np.allclose(built.system(POINTS)[:, :, 0], _dense(A, B), atol=1e-12)
        assert np.allclose(built.system.with_(closed_form=None)(POINTS)[:, :, 0], _dense(A, B), atol=1e-12)
    for options in ({"window": 2.0}, {"correction": 0.5}):
        A, B = hippo.fout(N, **options)
        assert np.allclose(inits.FouT(**options).build(N).system(POINTS)[:, :, 0], _dense(A, B), atol=1e-12)
    for options in ({"variant": "shipped"}, {"variant": "lmu"}, {"window": 3.0}):
        A, B = hippo.legt(N, **options)
        assert np.allclose(inits.LegT(**options).build(N).system(POINTS)[:, :, 0], _dense(A, B), atol=1e-11)


def test_fout_is_stable_once_the_idle_state_is_gone() -> None:
    """2 q_N - 1 over 2 q_N + 1 approximates exp(-s); at DC the constant state holds the mean of the window."""
    built = inits.FouT().build(32)
    assert built.system.state_dim == 31
    assert built.system.is_stable()
    assert np.allclose(built.system(0.0)[:, 0], np.eye(32)[0], atol=1e-12)
    for s in (0.4j, 0.3 + 1j):
        q = 1 / s + sum(2 * s / (s**2 + (2 * np.pi * j) ** 2) for j in range(1, 16))
        b = hippo.fout(32)[1] / 2
        assert abs(b @ built.system(s)[:, 0] - 2 * q / (1 + 2 * q)) < 1e-12


def test_legt_delay_output() -> None:
    built = inits.LegT(window=0.5).build(8)
    C = built.diagnostics["delay_output"]
    for s in (0.0, 1j, 2j):
        assert abs(C @ built.system(s)[:, 0] - np.exp(-0.5 * s)) < 1e-9
    lmu = inits.LegT(variant="lmu").build(8)
    assert abs(lmu.diagnostics["delay_output"] @ lmu.system(1j)[:, 0] - np.exp(-1j)) < 1e-9


@pytest.mark.parametrize("weight", [1.0, 0.5, 0.3])
def test_lagt_bounds(weight: float) -> None:
    system = inits.LagT(weight).build(6).system
    w = np.linspace(-20, 20, 4001)
    gain = np.linalg.norm(system.frequency_response(w)[:, :, 0], axis=1)
    found = system.hinf_norm()
    assert gain.max() <= found.upper * (1 + 1e-9)
    assert math.isclose(found.value, gain.max(), rel_tol=1e-3)


@pytest.mark.parametrize("N", [1, 2, 3, 8, 33, 128])
def test_modes_of_the_normal_part(N: int) -> None:
    poles, V, b = legs.legs_modes(N)
    normal, _, B = hippo.nplr(N)
    assert np.abs(V.conj().T @ V - np.eye(N)).max() < 1e-13
    assert np.abs((V * poles) @ V.conj().T - normal).max() < 1e-13 * N**2
    assert np.abs(V.conj().T @ B - b).max() < 1e-12 * N


@pytest.mark.parametrize("N", [2, 5, 16, 64])
def test_s4_is_legs_and_s4d_is_its_normal_part(N: int) -> None:
    X = hippo.transfer(N, POINTS)
    s4 = inits.S4().build(N)
    assert np.allclose(s4.system.with_(closed_form=None)(POINTS)[:, :, 0], X, atol=1e-12)
    s4d = inits.S4DLegS().build(N)
    normal, _, B = hippo.nplr(N)
    expected = _dense(normal, B / 2)
    assert np.allclose(s4d.system(POINTS)[:, :, 0], expected, atol=1e-12)
    assert np.allclose(s4d.system.with_(closed_form=None)(POINTS)[:, :, 0], expected, atol=1e-12)
    assert np.allclose(X / (1 + hippo.phi(N, POINTS))[:, None], expected, atol=1e-12)


def test_shipped_clip_is_another_system() -> None:
    """B changes by 85 % in norm at N = 32, by 91 % at N = 64, and the resonances are capped at about 4."""
    for N, change in ((32, 0.85), (64, 0.91)):
        built = inits.S4(variant="shipped").build(N)
        assert abs(built.diagnostics["input_change"] - change) < 0.005
    full = np.abs(inits.S4DLegS().build(64).system.B).max()
    clipped = np.abs(inits.S4DLegS(variant="shipped").build(64).system.B).max()
    assert clipped < 2.3
    assert 40.7 < 2 * full < 40.8
    # unclipped and halved, LAPACK's modes are the published ones
    poles, V, b, _ = legs.shipped_modes(32, None)
    response = (V * (b / 2)) @ (1 / (POINTS - poles[:, None]))
    response = response + ((V * (b / 2)).conj() @ (1 / (POINTS - poles.conj()[:, None])))
    assert np.allclose(response.T, inits.S4DLegS().build(32).system(POINTS)[:, :, 0], atol=1e-11)


def test_laws_of_the_spectrum() -> None:
    """S4D-Inv against the true spectrum at N = 256, as measured in the notes; the arctan law is better everywhere."""
    exact = hippo.spectrum(256)
    error = inits.s4d.inverse_law(256) / exact - 1
    for m, expected in ((0, -0.004), (2, -0.019), (8, -0.06), (32, -0.17), (64, -0.22), (127, 0.50)):
        assert abs(error[m] - expected) < 0.006
    better = inits.S4DArctan().heights(256) / exact - 1
    assert (np.abs(better) < np.abs(error)).mean() > 0.98
    assert np.abs(better).max() < 0.11
    assert (np.abs(exact) < 256).mean() == pytest.approx(0.72, abs=0.01)
    assert inits.S4DLin().build(16).system.diagonal[:8].tolist() == (-0.5 + 1j * np.pi * np.arange(8)).tolist()
    assert inits.S4DReal().build(4).system.diagonal.tolist() == [-1, -2, -3, -4]
    # the law's system is closer to LegS in the band below the spikes than that of S4D-Inv
    w = 1j * np.linspace(-20, 20, 200)
    X = hippo.transfer(256, w)
    gap = {n: np.abs(inits.get(n).build(256).system(w)[:, :4, 0] - X[:, :4]).max() for n in ("s4d-inv", "s4d-arctan")}
    assert gap["s4d-arctan"] < 0.5 * gap["s4d-inv"]


def test_s4d_lin_norm() -> None:
    """8 modes -1/2 + i pi n, unit B and C: 2.33207802."""
    from ssmtheory.lti import DiagonalStateSpace

    poles = -0.5 + 1j * inits.s4d.linear_law(16)
    assert f"{DiagonalStateSpace(poles, np.ones(8), np.ones(8)).hinf_norm(tol=1e-9).value:.8f}" == "2.33207802"


def test_s5_blocks() -> None:
    single, double = inits.S5().build(8), inits.S5(blocks=2).build(16)
    assert np.allclose(double.system(POINTS)[:, :8], single.system(POINTS), atol=1e-12)
    assert np.allclose(double.system(POINTS)[:, 8:], single.system(POINTS), atol=1e-12)
    layer = inits.S5(blocks=2).layer(5, 16, seed=3)
    assert layer.poles.shape == (8,)
    assert (layer.poles.imag < 0).all()
    assert layer.B.shape == (8, 5)
    assert layer.C.shape == (5, 8)
    assert layer.steps is not None
    assert layer.steps.shape == (8,)
    # 2 Re of half the modes is the real layer of all of them: V V* + conj = I
    full = inits.S5(blocks=2, conjugate_pairs=False).layer(5, 16, seed=3)
    s = np.array([0.3, 1.0 + 2j])
    assert np.allclose(layer.system()(s), full.system()(s), atol=1e-12)


def test_lru_modes_fill_the_ring() -> None:
    built = inits.LRU(0.5, 0.9, 1.0).build(4000, seed=1)
    modes = built.system.diagonal
    assert built.system.dt == 1.0
    assert 0.5 <= np.abs(modes).min() <= np.abs(modes).max() <= 0.9
    assert 0 <= np.angle(modes).min() <= np.angle(modes).max() <= 1.0
    # uniform by area: the mean of |z|^2 is that of the end points, within 5 standard errors
    assert abs((np.abs(modes) ** 2).mean() - (0.25 + 0.81) / 2) < 5 * 0.56 / math.sqrt(12 * 4000)
    # white noise gives each mode unit variance
    kernel = built.system.B[:, 0] * modes[:, None].T ** np.arange(400)[:, None]
    assert np.allclose((np.abs(kernel) ** 2).sum(axis=0), 1, atol=1e-8)


LAYERED = [name for name in inits.registry if "ptd" not in name]


@pytest.mark.parametrize("name", LAYERED)
def test_a_layer_s_kernel_is_that_of_its_system(name: str) -> None:
    layer = inits.get(name).layer(3, 8, seed=1, dt_min=0.01, dt_max=0.2)
    again = inits.get(name).layer(3, 8, seed=1, dt_min=0.01, dt_max=0.2)
    assert np.array_equal(layer.C, again.C)
    assert not np.array_equal(layer.C, inits.get(name).layer(3, 8, seed=2).C)
    assert layer.features == 3
    if layer.steps is not None:
        assert ((layer.steps >= 0.01) & (layer.steps <= 0.2)).all()
    kernel = layer.kernel(30, 1)
    assert kernel.dtype == np.float64
    system = layer.system(1)
    if layer.steps is None:
        expected = system.kernel(30)[:, 1, 1]
    elif layer.scope == "layer":
        scale = 2 if layer.readout == "pairs" else 1
        expected = sum(
            scale * np.real(c * b * np.expm1(p * h) / p * np.exp(p * h * np.arange(30)))
            for p, b, c, h in zip(layer.poles, layer.B[:, 1], layer.C[1], layer.steps, strict=True)
        )
    elif layer.discretization == "softmax":
        x = layer.poles[:, None] * layer.steps[1] * np.arange(30)
        expected = 2 * np.real(layer.C[1] @ (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)))
    else:
        expected = system.discretize(float(layer.steps[1]), method=layer.discretization).kernel(30).reshape(30)
    # DSS keeps its quotient finite by a term of 1e-7
    assert np.allclose(kernel, expected, atol=1e-6 if layer.discretization == "softmax" else 1e-12)
    with pytest.raises(ValueError):
        layer.poles[0] = 0


def test_s4_layer_is_dense_legs() -> None:
    """Half the modes and S4's bilinear rule against K_k = C Abar^k Bbar of the dense real matrices."""
    layer = inits.S4().layer(1, 12, seed=0, dt_min=0.05, dt_max=0.05)
    V = legs.legs_modes(12)[1][:, :6]
    C = 2 * np.real(layer.C[0] @ V.conj().T)
    A, B = hippo.legs(12)
    assert layer.steps is not None
    h = layer.steps[0]
    left = np.eye(12) - h / 2 * A
    Abar, state = np.linalg.solve(left, np.eye(12) + h / 2 * A), np.linalg.solve(left, h * B)
    expected = []
    for _ in range(20):
        expected.append(C @ state)
        state = Abar @ state
    assert np.allclose(layer.kernel(20), expected, atol=1e-12)


def test_registry() -> None:
    for name, (_, kind) in inits.registry.items():
        found = inits.get(name)
        assert type(found).__name__ == kind
        assert found.name == name
        assert found == inits.get(name)
        assert hash(found) == hash(inits.get(name))
        for field in dataclasses.fields(found):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(found, field.name, None)
    assert inits.get("hippo-rho", rho=3.0).with_(rho=4.0) == inits.HiPPORho(4.0)
    with pytest.raises(InputError, match="Did you mean 's4d-lin'"):
        inits.get("s4d-line")
    with pytest.raises(InputError, match="Did you mean 'rho'"):
        inits.get("hippo-rho", rh=3.0)
    with pytest.raises(InputError):
        inits.HiPPORho().with_(rh=2)
    assert set(inits.__all__) <= set(dir(inits))
    for name in inits.__all__:
        assert getattr(inits, name) is not None
    with pytest.raises(AttributeError):
        _ = inits.nonsense


@pytest.mark.parametrize("call", [
    lambda: inits.LegS().build(0), lambda: inits.FouT().build(7), lambda: inits.S4(variant="ship"),
    lambda: inits.S4().layer(2, 7), lambda: inits.S4().layer(0, 8), lambda: inits.S4().layer(2, 8, seed=-1),
    lambda: inits.S4().layer(2, 8, dt_min=0.1, dt_max=0.01), lambda: inits.S4DLegS(discretization="foh"),
    lambda: inits.S5(blocks=3).build(8), lambda: inits.S5(blocks=2).layer(2, 6), lambda: inits.LRU(r_max=1.0),
    lambda: inits.LRU(max_phase=7.0), lambda: inits.S4DInv(basis="legs"), lambda: inits.S4().layer(2, 8).kernel(5, 2),
    lambda: inits.S4().layer(2, 8).system(-1), lambda: inits.LegT(window=-1.0), lambda: inits.FouT(correction=0.0),
])  # fmt: skip
def test_bad_input_is_named(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError):
        call()
