"""Corruptions: the published formula, equal energies, one result for every library and every way of cutting batches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmtheory.errors import InputError
from ssmtheory.robustness import gain
from ssmtheory.robustness.noise import (
    Band,
    Chain,
    ColouredNoise,
    Corruption,
    FourierNoise,
    ImpulseNoise,
    LostSamples,
    Matched,
    Resampling,
    WhiteNoise,
    change_rms,
    get,
    registry,
)

torch = pytest.importorskip("torch")

STEPS = np.array([1e-3, 1e-2, 0.1])
EVERY: list[Corruption] = [
    FourierNoise(40.0),
    FourierNoise((40.0, 3.0, 1.0), 0.3, law="normal", phase="random"),
    FourierNoise(Band(1.0, 100.0), clock="layer"),
    FourierNoise(Band(0.0, 3.0, law="linear"), law="constant", clock="sample"),
    WhiteNoise(0.2),
    ColouredNoise(0.2, 2.0),
    ImpulseNoise(2.0, 0.05),
    LostSamples(0.3),
    LostSamples(0.3, "hold"),
    Resampling(3),
    Resampling(0.7, "rate"),
    Resampling(0.5, "jitter"),
    Chain((WhiteNoise(0.1), LostSamples(0.2), WhiteNoise(0.1))),
]


def signal(batch: int = 5, length: int = 96, features: int = 3) -> np.ndarray:
    return np.random.default_rng(8).standard_normal((batch, length, features))


def test_the_published_formula() -> None:
    """u += 0.1 U cos(omega Delta_i k) with U in [0, 1], one for each sample and channel; U is read off at k = 0."""
    u, omega = signal(400, 50), 325.0
    added = FourierNoise.published(omega).apply(u, STEPS, seed=3) - u
    U = added[:, 0] / 0.1
    k = np.arange(50)
    by_hand = 0.1 * U[:, None, :] * np.cos(omega * STEPS * k[:, None])
    np.testing.assert_allclose(added, by_hand, atol=1e-13)  # u and the noise are of order 1: a few roundings
    # Kolmogorov-Smirnov distance from the uniform law: 1.95 / sqrt(n) is its quantile at 1e-3
    ranks = (np.arange(U.size) + 0.5) / U.size
    assert abs(np.sort(U.reshape(-1)) - ranks).max() * math.sqrt(U.size) < 1.95
    # independent over members and channels: correlations of 400 pairs stay below 5 / sqrt(400)
    assert abs(np.corrcoef(U.T)[np.triu_indices(3, 1)]).max() < 0.25


@pytest.mark.parametrize("corruption", EVERY, ids=repr)
def test_numpy_and_torch_agree(corruption: Corruption) -> None:
    u = signal()
    ours = corruption.apply(u, STEPS, seed=4)
    theirs = corruption.apply(torch.tensor(u), torch.tensor(STEPS, requires_grad=True), seed=4)
    assert isinstance(ours, np.ndarray)
    assert theirs.dtype == torch.float64
    np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=1e-12)
    single = corruption.apply(torch.tensor(u, dtype=torch.float32), STEPS, seed=4)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(ours, single.numpy(), atol=1e-5)


@pytest.mark.parametrize("corruption", EVERY, ids=repr)
def test_the_result_does_not_depend_on_how_the_data_are_cut(corruption: Corruption) -> None:
    u = signal()
    before = u.copy()
    whole = corruption.apply(u, STEPS, seed=(1, 2))
    parts = [corruption.apply(u[i : i + 2], STEPS, seed=(1, 2), first=i) for i in range(0, 5, 2)]
    assert np.array_equal(whole, np.concatenate(parts))
    assert np.array_equal(u, before)
    assert not np.array_equal(whole, u)


@pytest.mark.parametrize("corruption", [c for c in EVERY if not isinstance(c, Resampling)], ids=repr)
def test_another_seed_is_another_draw(corruption: Corruption) -> None:
    u = signal()
    first, again, other = (corruption.apply(u, STEPS, seed=s) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    constant = isinstance(corruption, FourierNoise) and corruption.law == "constant" and corruption.phase == "zero"
    assert constant is (isinstance(corruption, FourierNoise) and not isinstance(corruption.frequency, Band)) or (
        not np.array_equal(first, other)
    )


@pytest.mark.parametrize("corruption", EVERY, ids=repr)
@pytest.mark.parametrize("per", ["member", "feature"])
def test_matched_energy(corruption: Corruption, per: Any) -> None:
    u = signal()
    v = Matched(corruption, 0.37, per).apply(u, STEPS, seed=4)
    np.testing.assert_allclose(change_rms(u, v), 0.37, rtol=1e-12)
    if per == "feature":
        np.testing.assert_allclose(np.sqrt(np.mean((v - u) ** 2, axis=1)), 0.37, rtol=1e-12)


def test_nothing_to_match_is_left_alone() -> None:
    u = signal()
    assert np.array_equal(Matched(LostSamples(0.0), 1.0).apply(u), u)


@pytest.mark.parametrize(
    "noise",
    [
        FourierNoise(40.0, 0.3, law="uniform", phase="random"),
        FourierNoise(40.0, 0.3, law="normal"),
        FourierNoise(40.0, 0.3, law="constant"),
        WhiteNoise(0.2),
        ColouredNoise(0.2, 1.0),
        ColouredNoise(0.2, -1.0),
        ImpulseNoise(2.0, 0.05),
    ],
    ids=repr,
)
def test_the_stated_rms(noise: Any) -> None:
    added = noise.noise((60, 1000, 3), STEPS, seed=1)
    # 180 amplitudes of relative spread below 1.5 for their squares: 3 standard errors of the root mean square
    assert math.sqrt(np.mean(added**2)) == pytest.approx(noise.rms, rel=0.17)


@pytest.mark.parametrize("exponent", [2.0, 1.0, -1.0])
@pytest.mark.parametrize("length", [1023, 1024])
def test_the_spectrum_of_coloured_noise(exponent: float, length: int) -> None:
    added = ColouredNoise(1.0, exponent).noise((60, length, 4))
    assert abs(added.mean(axis=1)).max() < 1e-12
    power = np.mean(np.abs(np.fft.rfft(added, axis=1)) ** 2, axis=(0, 2))[1:-1]
    slope = np.polyfit(np.log(np.arange(1, power.size + 1)), np.log(power), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.05)
    assert np.mean(added**2) == pytest.approx(1.0, rel=0.1)


def test_lost_samples_hold_the_last_one_that_came() -> None:
    u = signal(6, 40, 2)
    zero, held = (LostSamples(0.6, fill).apply(u, seed=5) for fill in ("zero", "hold"))
    kept = (zero != 0).all(axis=2)
    assert kept.any(axis=1).all()
    for b in range(6):
        last = u[b, int(np.flatnonzero(kept[b])[0])]
        for k in range(40):
            if kept[b, k]:
                last = u[b, k]
            assert np.array_equal(held[b, k], last)


def test_resampling() -> None:
    u = signal(1, 13, 1)
    line = np.arange(13.0)[None, :, None]
    every = Resampling(3).apply(u)[0, :, 0]
    assert np.array_equal(every[::3], u[0, ::3, 0])
    np.testing.assert_allclose(Resampling(3).apply(line), line, atol=1e-12)
    np.testing.assert_allclose(Resampling(2, "rate").apply(line)[0, :, 0], np.minimum(2 * np.arange(13), 12))
    assert np.array_equal(Resampling(1).apply(u), u)
    np.testing.assert_allclose(Resampling(0.5, "rate").apply(line)[0, :, 0], np.arange(13) / 2)


@settings(max_examples=50, deadline=None)
@given(omega=st.floats(0, 1e5), dt=st.floats(1e-4, 1.0))
def test_an_aliased_cosine_is_the_same_samples(omega: float, dt: float) -> None:
    folded = float(gain.alias(omega, dt))
    assert 0 <= folded <= math.pi / dt * (1 + 1e-12)
    shape, steps = (1, 30, 1), np.array([dt])
    a, b = (FourierNoise(w, 1.0, law="constant").noise(shape, steps) for w in (omega, folded))
    # the argument of the cosine is at most 30 * 1e5, known to half an ulp of it
    np.testing.assert_allclose(a, b, atol=1e-8)


def test_gradients_pass() -> None:
    u = torch.zeros(2, 8, 3, dtype=torch.float64, requires_grad=True)
    FourierNoise(3.0).apply(u, STEPS).sum().backward()
    assert torch.equal(u.grad, torch.ones_like(u))
    u.grad = None
    LostSamples(0.5).apply(u, seed=1).sum().backward()
    assert set(u.grad.unique().tolist()) == {0.0, 1.0}


def test_what_cannot_be() -> None:
    u = signal()
    with pytest.raises(InputError, match="frequency per sample"):
        FourierNoise(1.0).apply(u)
    with pytest.raises(InputError, match="belong to states"):
        FourierNoise(1.0).apply(u, np.ones(64))
    with pytest.raises(InputError, match="one for each of 3"):
        FourierNoise((1.0, 2.0)).apply(u, STEPS)
    with pytest.raises(InputError, match="batch, length, features"):
        WhiteNoise().apply(u[0])
    with pytest.raises(InputError, match="NumPy array or a PyTorch tensor"):
        WhiteNoise().apply([[1.0]])
    with pytest.raises(InputError, match="real floating"):
        WhiteNoise().apply(u.astype(int))
    with pytest.raises(InputError, match="random frequency"):
        FourierNoise(Band(1, 2)).angles(STEPS, 3)
    with pytest.raises(InputError, match="non-negative integer"):
        WhiteNoise().apply(u, seed=-1)
    for make in (
        lambda: FourierNoise(-1.0),
        lambda: FourierNoise(math.nan),
        lambda: FourierNoise(1.0, law="unifrom"),  # type: ignore[arg-type]
        lambda: Band(0, 1),
        lambda: Band(2, 1),
        lambda: ImpulseNoise(1.0, 2.0),
        lambda: Resampling(1.5),
        lambda: ColouredNoise(1.0, 20),
        lambda: Matched(3, 1.0),  # type: ignore[arg-type]
        lambda: get("whit"),
        lambda: get("white", sigma=1.0),
    ):
        with pytest.raises(InputError):
            make()
    assert set(registry) == {"fourier", "white", "coloured", "impulse", "lost", "resampling"}
