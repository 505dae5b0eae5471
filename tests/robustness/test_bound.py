"""No perturbation exceeds the bounds, and the worst ones come close."""

from __future__ import annotations

import functools
import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmtheory import inits
from ssmtheory.errors import InputError
from ssmtheory.inits import LayerParameters
from ssmtheory.lti import DiagonalStateSpace, StateSpace, UnstableSystem
from ssmtheory.robustness import bound, gain

INITS = {
    "s4": inits.S4(),
    "s4d": inits.S4DLegS(),
    "s4d-zoh": inits.S4DLegS(discretization="zoh"),
    "s4-ptd": inits.S4PTD(epsilon=1.0),
    "hippo-rho": inits.HiPPORho(rho=8.0),
    "s5": inits.S5(),
    "lru": inits.LRU(r_min=0.5, r_max=0.95),
}


@functools.cache
def layer(name: str) -> LayerParameters:
    return INITS[name].layer(2, 16, seed=3, dt_min=0.02, dt_max=0.05)


@functools.cache
def bounds(name: str) -> dict[str, bound.OutputBound]:
    return {norm: bound.output_bound(layer(name), norm) for norm in ("l2", "linf")}  # type: ignore[arg-type]


def respond(name: str, u: np.ndarray) -> np.ndarray:
    """Output of feature 0 alone, or of the whole layer where features are mixed; u (length, inputs)."""
    parameters = layer(name)
    D = np.zeros(2) if parameters.D is None else parameters.D
    if parameters.scope == "feature":
        return np.convolve(u[:, 0], parameters.kernel(len(u)))[: len(u), None] + D[0] * u
    a, C, B = gain._modes(parameters, 0, None)
    x, out = np.zeros(a.size, dtype=complex), np.empty((len(u), C.shape[0]))
    for k, value in enumerate(u):
        x = a * x + B @ value
        out[k] = (C @ x).real + D * value
    return out


def inputs(name: str) -> int:
    return 1 if layer(name).scope == "feature" else 2


@pytest.mark.parametrize("name", INITS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), kind=st.integers(0, 4))
def test_no_perturbation_exceeds_the_bounds(name: str, seed: int, kind: int) -> None:
    rng = np.random.default_rng(seed)
    length, m = int(rng.integers(2, 400)), inputs(name)
    k = np.arange(length)[:, None]
    u = [
        lambda: rng.standard_normal((length, m)),
        lambda: np.sign(rng.standard_normal((length, m))),
        lambda: np.cos(rng.uniform(0, np.pi) * k + rng.uniform(0, 6, m)),
        lambda: np.cumsum(rng.standard_normal((length, m)), axis=0),
        lambda: (rng.uniform(size=(length, m)) < 0.02) * rng.standard_normal((length, m)),
    ][kind]()
    y = respond(name, u)
    found = bounds(name)
    # the simulation's own rounding
    assert np.linalg.norm(y) <= found["l2"].change(float(np.linalg.norm(u))) * (1 + 1e-10) + 1e-12
    assert np.abs(y).max() <= found["linf"].change(float(np.abs(u).max())) * (1 + 1e-10) + 1e-12


@pytest.mark.parametrize("name", INITS)
def test_the_worst_perturbation_reaches_them(name: str) -> None:
    """Against "linf" the reversed signs of the kernel; against "l2" the worst singular vector at the worst angle."""
    parameters, m, length = layer(name), inputs(name), 4000
    found = bounds(name)
    system = gain.sampled_layer(parameters)
    assert system.dt is not None
    impulses = []
    for j in range(m):
        u = np.zeros((length, m))
        u[0, j] = 1
        impulses.append(respond(name, u))
    kernel = np.stack(impulses, axis=2)  # (length, p, m)
    row = int(np.abs(kernel).sum(axis=(0, 2)).argmax())
    y = respond(name, np.sign(kernel[::-1, row]))
    assert np.abs(y).max() == pytest.approx(found["linf"].lower, rel=1e-6)
    assert found["linf"].upper == pytest.approx(found["linf"].lower, rel=1e-6)
    omega = found["l2"].omega
    _, _, vh = np.linalg.svd(system.frequency_response(omega))
    u = (np.exp(1j * omega * system.dt * np.arange(length))[:, None] * vh[0].conj()).real
    share = np.linalg.norm(respond(name, u)) / np.linalg.norm(u)
    # the start of the sequence costs a little of its energy
    assert 0.95 * found["l2"].lower <= share <= found["l2"].upper
    assert found["l2"].upper <= found["linf"].upper * math.sqrt(m) * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_rounding_is_within_its_bound(seed: int) -> None:
    """The sum of |K_k| in 40 digits, poles near the unit circle and phases of thousands of turns."""
    rng = np.random.default_rng(seed)
    radius = 1 - 10 ** rng.uniform(-3, -1, 5)
    a = radius * np.exp(1j * rng.uniform(0, np.pi, 5))
    B, C = (rng.standard_normal(5) + 1j * rng.standard_normal(5) for _ in range(2))
    pairs = bool(seed % 2)
    found = bound.kernel_sum(DiagonalStateSpace(a, B, C, 0.25, dt=1.0, conjugate_pairs=pairs), length=3000)
    with mpmath.workdps(40):
        powers = [mpmath.mpc(b.real, b.imag) * mpmath.mpc(c.real, c.imag) for b, c in zip(B, C, strict=True)]
        poles = [mpmath.mpc(x.real, x.imag) for x in a]
        total = mpmath.mpf("0.25")
        for _ in range(2999):
            value = mpmath.fsum(powers)
            total += abs(2 * value.real) if pairs else abs(value)
            powers = [w * x for w, x in zip(powers, poles, strict=True)]
        assert mpmath.mpf(float(found.lower[0, 0])) <= total <= mpmath.mpf(float(found.upper[0, 0]))
    assert found.upper[0, 0] - found.lower[0, 0] < 1e-7 * float(total)


def test_the_tail() -> None:
    system = DiagonalStateSpace([0.999], [1.0], [1.0], dt=1.0)
    dense = StateSpace([[0.999]], [1.0], [1.0], dt=1.0)
    for one in (system, dense):
        for tol in (1e-2, 1e-9):
            found = bound.kernel_sum(one, tol=tol)
            assert found.lower[0, 0] <= 1000 * (1 + 1e-12)
            assert 1000 * (1 - 1e-12) <= found.upper[0, 0] <= 1000 * (1 + 3 * tol)
            assert found.tail[0, 0] <= tol * 1000


def test_dense_and_diagonal_sums_agree() -> None:
    parameters = layer("s4d")
    system = gain.sampled_layer(parameters, 1)
    dense = system.to_dense()
    for length in (None, 1, 2, 65, 300):
        a, b = bound.kernel_sum(system, length), bound.kernel_sum(dense, length)
        assert a.upper[0, 0] == pytest.approx(b.upper[0, 0], rel=1e-8)
        assert a.rounding
        assert not b.rounding
    kernel = parameters.kernel(300, 1)
    assert bound.kernel_sum(system, 300).upper[0, 0] == pytest.approx(np.abs(kernel).sum(), rel=1e-9)


def test_a_certified_number_is_taken_and_a_wrong_one_refused() -> None:
    """Tustin's rule keeps the H-infinity norm: the certificate is that of the continuous system."""
    from ssmtheory import certify

    A, B, C = np.array([[-1.0, 4.0], [-4.0, -1.0]]), np.array([1.0, 0.0]), np.array([1.0, 0.0])
    system = StateSpace(A, B, C)
    certificate = certify.sup_norm(A, B, C)
    found = bound.output_bound(system, certified=certificate)
    assert found.evidence == "certified"
    assert found.lower <= found.upper
    assert found.upper >= float(certificate.upper)
    assert bound.output_bound(system.discretize(0.1, "bilinear"), certified=certificate).evidence == "certified"
    assert bound.output_bound(system, certified=certify.as_hinf_norm(certificate)).upper == found.upper
    plain = bound.output_bound(system)
    assert plain.evidence == "bracket"
    assert plain.upper == pytest.approx(found.upper, rel=1e-6)
    with pytest.raises(InputError, match="another system"):
        bound.output_bound(system, certified=0.5)


def test_a_bound_with_its_rounding_followed() -> None:
    """The l1 norm of the kernel, never below the H-infinity norm; what is not diagonal needs a certificate."""
    for name in ("s4d", "s5"):
        found = bound.output_bound(layer(name), rounding=True)
        assert found.evidence == "rounding"
        assert found.upper >= bounds(name)["l2"].lower
    with pytest.raises(InputError, match="not followed"):
        bound.output_bound(layer("s4"), "linf", rounding=True)
    with pytest.raises(InputError, match="not followed"):
        bound.output_bound(StateSpace([[-1.0]], [1.0], [1.0]), rounding=True)


def test_unstable_layers_have_a_bound_for_a_length_alone() -> None:
    system = DiagonalStateSpace([1.01], [1.0], [1.0], dt=1.0)
    for norm in ("l2", "linf"):
        with pytest.raises(UnstableSystem):
            bound.output_bound(system, norm)  # type: ignore[arg-type]
        found = bound.output_bound(system, norm, length=100)  # type: ignore[arg-type]
        # the direct term is 0: K_k = 1.01^k one sample late
        assert found.upper == pytest.approx((1.01**99 - 1) / 0.01, rel=1e-9)
    toeplitz = np.tril(1.01 ** np.clip(np.subtract.outer(np.arange(100), np.arange(100)) - 1, 0, None), -1)
    assert np.linalg.norm(toeplitz, 2) <= bound.output_bound(system, length=100).upper


def test_short_sequences_have_smaller_bounds() -> None:
    parameters = layer("s4d")
    whole = bound.output_bound(parameters)
    values = [bound.output_bound(parameters, length=length).upper for length in (1, 2, 4, 10_000)]
    assert values == sorted(values)
    assert values[-1] == whole.upper
    kernel = parameters.kernel(4)
    matrix = sum(np.diag(np.full(4 - k, kernel[k]), -k) for k in range(4))
    assert np.linalg.norm(matrix, 2) <= values[2]


def test_what_cannot_be() -> None:
    continuous = StateSpace([[-1.0]], [1.0], [1.0])
    with pytest.raises(InputError, match="discretize"):
        bound.output_bound(continuous, "linf")
    with pytest.raises(InputError, match="'l2' or 'linf'"):
        bound.output_bound(continuous, "l1")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least 1"):
        bound.kernel_sum(layer_system(), 0)
    with pytest.raises(InputError, match="says nothing"):
        bound.output_bound(layer_system(), "linf", certified=1.0)


def layer_system() -> DiagonalStateSpace:
    return DiagonalStateSpace([0.5], [1.0], [1.0], dt=1.0)
