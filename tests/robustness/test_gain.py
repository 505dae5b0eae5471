"""Predicted gains against kernels, simulations, dense exponentials and other routes to the same numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from ssmtheory import inits
from ssmtheory.errors import InputError
from ssmtheory.inits import LayerParameters, hippo
from ssmtheory.robustness import gain
from ssmtheory.robustness.noise import FourierNoise

#: name -> a layer with random C and steps
LAYERS = {
    "s4": inits.S4(),
    "s4-shipped": inits.S4(variant="shipped"),
    "fout": inits.FouT(),
    "s4d": inits.S4DLegS(),
    "s4d-zoh": inits.S4DLegS(discretization="zoh"),
    "s4d-inv": inits.S4DInv(),
    "dss": inits.DSS(),
    "s4-ptd": inits.S4PTD(epsilon=1.0),
    "hippo-rho": inits.HiPPORho(rho=8.0),
    "s5": inits.S5(blocks=2),
    "s5-ptd": inits.S5PTD(epsilon=0.4),
    "lru": inits.LRU(r_min=0.5, r_max=0.9),
}


def layer(name: str, features: int = 3, N: int = 8, **options: Any) -> LayerParameters:
    found = LAYERS[name].layer(features, N, seed=3, dt_min=0.05, dt_max=0.3, **options)
    rng = np.random.default_rng(1)
    fields = {k: getattr(found, k) for k in found.__dataclass_fields__}
    return LayerParameters(**{**fields, "D": rng.standard_normal(features)})


# ---------------------------------------------------------------------- the table


def by_hand(A: np.ndarray, B: np.ndarray, omega: float, dt: float) -> float:
    """Norm over the states at cos(omega dt k), zero-order hold by one exponential of [[A, B], [0, 0]]."""
    n = len(B)
    block = expm(dt * np.block([[A, B[:, None]], [np.zeros((1, n + 1))]]))
    z = np.exp(1j * omega * dt)
    return float(np.linalg.norm(np.linalg.solve(z * np.eye(n) - block[:n, :n], block[:n, n])))


#: step -> S4D, DPLR: gains at the authors' rounded 325.4 rad/s
TABLE = {1e-3: (20.27, 0.097), 1e-2: (12.5, 0.098), 1e-1: (1.35, 0.90)}


@pytest.mark.parametrize("dt", TABLE)
def test_the_gain_table_to_one_percent(dt: float) -> None:
    N, omega = 32, 325.4
    s4d, legs = (inits.get(name).build(N).system for name in ("s4d-legs", "legs"))
    for system, recorded in zip((s4d, legs), TABLE[dt], strict=True):
        assert gain.gain(system, omega, dt)[0] == pytest.approx(recorded, rel=0.01)
    A, _, B = hippo.nplr(N)
    assert gain.gain(s4d, omega, dt)[0] == pytest.approx(by_hand(A, B / 2, omega, dt), rel=1e-9)
    assert gain.gain(legs, omega, dt)[0] == pytest.approx(by_hand(*hippo.legs(N), omega, dt), rel=1e-9)


def test_perturbed_systems_hear_the_noise_as_legs_does() -> None:
    """Below the aliasing limit: the spike is gone whatever the perturbation, at the derived frequency."""
    N = 32
    omega = gain.attack_frequency(inits.S4DLegS().build(N).system).omega
    legs = inits.LegS().build(N).system
    for init in (inits.PTD(epsilon=0.1), inits.PTD(perturbation="real", epsilon=4.0)):
        for dt in (1e-3, 1e-2):
            ratio = gain.gain(init.build(N).system, omega, dt) / gain.gain(legs, omega, dt)
            assert ratio[0] == pytest.approx(1.0, abs=0.01)


# ---------------------------------------------------------------------- layers


@pytest.mark.parametrize("name", LAYERS)
def test_the_response_is_the_transform_of_the_kernel(name: str) -> None:
    parameters = layer(name)
    length = 4096  # the slowest mode decays below rounding
    theta = 2 * np.pi * np.arange(length // 2 + 1) / length
    response = gain.layer_response(parameters, theta, length)
    if parameters.scope == "feature":
        for i in range(parameters.features):
            kernel = parameters.kernel(length, i)
            kernel[0] += parameters.D[i]
            np.testing.assert_allclose(response[i], np.fft.rfft(kernel), atol=1e-9)
            if name == "fout":  # a state that nothing drives, and that does not decay
                continue
            dense = gain.sampled_layer(parameters, i, length)
            dt = float(parameters.steps[i])
            np.testing.assert_allclose(dense.frequency_response(theta / dt)[:, 0, 0], response[i], atol=1e-8)
    else:
        # kernel() gives the diagonal: output i from input i
        for i in range(parameters.features):
            kernel = parameters.kernel(length, i)
            kernel[0] += parameters.D[i]
            np.testing.assert_allclose(response[:, i, i], np.fft.rfft(kernel), atol=1e-9)


def test_angles_of_each_feature() -> None:
    parameters = layer("s4")
    theta = np.random.default_rng(0).uniform(0, 3, (3, 5))
    found = gain.layer_response(parameters, theta)
    for i in range(3):
        np.testing.assert_allclose(found[i], gain.layer_response(parameters, theta[i])[i], rtol=1e-13)
    omega = np.array([1.0, 50.0])
    np.testing.assert_allclose(
        gain.layer_gain(parameters, omega), np.abs(gain.layer_response(parameters, parameters.steps[:, None] * omega))
    )


@pytest.mark.parametrize("name", sorted(set(LAYERS) - {"fout"}))
def test_the_worst_angle_is_the_h_infinity_norm(name: str) -> None:
    """Against the bracketing search of lti.norms, which does not share the nodes."""
    parameters = layer(name)
    length = 512 if name == "dss" else None
    if parameters.scope == "layer":
        found = gain.attack_frequency(parameters)
        norm = gain.sampled_layer(parameters).linf_norm(tol=1e-6)
        assert norm.lower * (1 - 1e-6) <= found.gain <= norm.upper * (1 + 1e-9)
        return
    for i, attack in enumerate(gain.feature_attacks(parameters, length=length)):
        norm = gain.sampled_layer(parameters, i, length).linf_norm(tol=1e-6)
        assert norm.lower * (1 - 1e-6) <= attack.gain <= norm.upper * (1 + 1e-9)
        assert attack.omega * parameters.steps[i] == pytest.approx(attack.angle)


def test_narrow_resonances_are_not_missed() -> None:
    """A pole 1e-6 from the unit circle, between the points of every grid."""
    poles = np.array([-1e-6 + 1.23456789j, -0.5 + 0.1j])
    parameters = LayerParameters(poles, np.ones(2), np.ones((1, 2)), np.array([1.0]))
    (found,) = gain.feature_attacks(parameters, points=20)
    assert found.angle == pytest.approx(1.23456789, abs=1e-6)
    assert found.gain > 1e5


def test_the_common_frequency_of_an_s4d_layer_is_its_last_spike() -> None:
    """With steps below the aliasing limit and zero-order hold; the certified spike of the gap is within 1e-2 of it."""
    from ssmtheory import certify

    N = 32
    parameters = inits.S4DLegS(discretization="zoh").layer(16, N, seed=1, dt_min=1e-4, dt_max=1e-3)
    found = gain.attack_frequency(parameters, band=(150.0, 1000.0))
    assert found.omega == pytest.approx(float(certify.s4d_spike(N).value), abs=0.2)
    everywhere = np.sqrt(np.mean(gain.layer_gain(parameters, np.linspace(150, 1000, 20001)) ** 2, axis=0))
    assert everywhere.max() <= found.gain * (1 + 1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_grid_beats_the_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    poles = -(10 ** rng.uniform(-5, 1, 6)) + 1j * 10 ** rng.uniform(-1, 2, 6)
    C = rng.standard_normal((2, 6)) + 1j * rng.standard_normal((2, 6))
    parameters = LayerParameters(poles, np.ones(6), C, 10 ** rng.uniform(-2, 0, 2))
    theta = np.linspace(0, np.pi, 4001)
    for attack, values in zip(
        gain.feature_attacks(parameters), np.abs(gain.layer_response(parameters, theta)), strict=True
    ):
        assert values.max() <= attack.gain * (1 + 1e-9)
    common = gain.attack_frequency(parameters)
    omega = np.linspace(0, np.pi / parameters.steps.min(), 4001)
    rms = np.sqrt(np.mean(gain.layer_gain(parameters, omega) ** 2, axis=0))
    # beyond the first alias of a coarse feature the search has its grid alone: within 2 percent
    assert rms.max() <= common.gain * 1.02


@pytest.mark.parametrize("method", ["zoh", "bilinear", "bilinear_s4"])
def test_the_attack_on_a_discretised_system(method: str) -> None:
    system = inits.S4DLegS().build(16).system[0]
    dt = 0.02
    found = gain.attack_frequency(system, dt, method)
    theta = np.linspace(0, np.pi, 200001)
    grid = gain.gain(system, theta / dt, dt, method)
    assert grid.max() * (1 - 1e-9) <= found.gain <= found.upper
    assert found.gain == pytest.approx(float(grid.max()), rel=1e-4)
    within = gain.attack_frequency(system, dt, method, band=(5.0, 30.0))
    inside = gain.gain(system, np.linspace(5, 30, 20001), dt, method).max()
    assert inside * (1 - 1e-9) <= within.gain <= found.gain * (1 + 1e-9)
    assert 5 <= within.omega <= 30


def test_aliasing() -> None:
    """A frequency above pi / dt has the gain of its alias."""
    system, dt = inits.LegS().build(8).system, 0.1
    omega = np.array([3.0, 40.0, 325.4, 1e3])
    np.testing.assert_allclose(gain.gain(system, omega, dt), gain.gain(system, gain.alias(omega, dt), dt), rtol=1e-10)


@pytest.mark.parametrize("name", ["s4", "s4d", "s4-ptd", "hippo-rho"])
def test_predicted_change_is_what_a_simulation_shows(name: str) -> None:
    parameters = layer(name)
    noise = FourierNoise(7.3, 0.2, law="constant")
    u = noise.noise((1, 6000, 3), parameters.steps)[0]
    for i, predicted in enumerate(gain.predicted_rms(parameters, noise)):
        kernel = parameters.kernel(6000, i)
        kernel[0] += parameters.D[i]
        y = np.convolve(u[:, i], kernel)[2000:6000]
        # 4000 samples hold a whole number of periods to one part in a hundred
        assert math.sqrt(np.mean(y**2)) == pytest.approx(predicted, rel=0.02)


# ---------------------------------------------------------------------- stacks


@pytest.mark.parametrize("residual", [False, True])
def test_a_stack_in_the_time_domain(residual: bool) -> None:
    rng = np.random.default_rng(2)
    layers = (layer("s4d"), layer("s5"), layer("s4"))
    mixing = (rng.standard_normal((3, 3)), None, rng.standard_normal((3, 3)))
    stack = gain.Stack(layers, mixing, residual)
    length = 4096
    theta = 2 * np.pi * np.arange(0, length // 2 + 1, 64) / length

    def run(x: np.ndarray, source: int | None) -> np.ndarray:
        for index, (one, matrix) in enumerate(zip(layers, mixing, strict=True)):
            if source is not None and index < source:
                continue
            if one.scope == "feature":
                kernels = np.zeros((length, 3, 3))
                for i in range(3):
                    kernels[:, i, i] = one.kernel(length, i)
            else:
                a, C, B = gain._modes(one, 0, None)
                powers = a ** np.arange(length)[:, None]
                kernels = np.einsum("fn,kn,ng->kfg", C, powers, B).real
            kernels[0] += np.diag(one.D)
            spectrum = np.fft.rfft(kernels, 2 * length, axis=0) @ np.fft.rfft(x, 2 * length, axis=0)[:, :, None]
            branch = np.fft.irfft(spectrum[:, :, 0], 2 * length, axis=0)[:length]
            branch = branch if matrix is None else branch @ matrix.T
            x = branch + x if residual and index != source else branch
        return x

    for source in (None, 1):
        response = stack.response(theta, source)
        for column in range(3):
            impulse = np.zeros((length, 3))
            impulse[0, column] = 1
            np.testing.assert_allclose(
                np.fft.rfft(run(impulse, source), axis=0)[::64], response[:, :, column], atol=1e-7
            )
    found = stack.attack()
    assert stack.gain(np.linspace(0, np.pi, 3001)).max() <= found.gain * (1 + 1e-9)
    gains = [max(a.gain for a in gain.feature_attacks(one)) if one.scope == "feature" else (
        gain.attack_frequency(one).gain) for one in layers]  # fmt: skip
    constants = [1.0 if m is None else float(np.linalg.norm(m, 2)) for m in mixing]
    whole, from_each = gain.stack_bound(gains, constants, residual)
    assert found.gain <= whole * (1 + 1e-9)
    for source in range(3):
        assert stack.attack(source).gain <= from_each[source] * (1 + 1e-9)


def test_the_search_through_a_stack_leaves_nothing_out() -> None:
    """Nodes are visited in the order of a ceiling: the answer is that of visiting all of them."""
    rng = np.random.default_rng(7)
    layers = tuple(layer(name, features=4) for name in ("s4d-zoh", "hippo-rho", "s5"))
    stack = gain.Stack(layers, (rng.standard_normal((4, 4)), rng.standard_normal((4, 4)), None))
    theta = np.linspace(0, np.pi, 20001)
    for source in (None, 2):
        found = stack.attack(source)
        brute = stack.gain(theta, source)
        assert brute.max() * (1 - 1e-9) <= found.gain <= brute.max() * 1.001
        assert (stack.gain(theta[::50], source) <= stack._ceiling(theta[::50], source)).all()
    inside = stack.attack(band=(1.0, 2.0))
    assert 1.0 <= inside.angle <= 2.0


def test_what_cannot_be() -> None:
    s4, s5 = layer("s4"), layer("s5")
    with pytest.raises(InputError, match="steps of its own"):
        gain.attack_frequency(s4, 0.1)
    with pytest.raises(InputError, match="clock='sample'"):
        gain.layer_gain(s5, 1.0)
    with pytest.raises(InputError, match="features, k"):
        gain.layer_response(s4, np.zeros((2, 4)))
    with pytest.raises(InputError, match="whole sequence"):
        gain.layer_response(layer("dss"), np.zeros(4))
    with pytest.raises(InputError, match="band"):
        gain.attack_frequency(s4, band=(3.0, 2.0))
    with pytest.raises(InputError, match="one system for all features"):
        gain.feature_attacks(s5)
    with pytest.raises(InputError, match="one number"):
        gain.Stack((s4, layer("s4", features=2)))
    with pytest.raises(InputError, match="numbered 0 to 0"):
        gain.Stack((s4,)).response(0.0, source=1)
    with pytest.raises(InputError, match="one for each layer"):
        gain.stack_bound([1.0, 2.0], [1.0, 2.0, 3.0])
