from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from ssmtheory.errors import CheckpointError, InputError
from ssmtheory.training.loop import Progress, Schedule, train

torch = pytest.importorskip("torch")


def problem(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    weights = {name: torch.randn(4, 4, generator=generator).requires_grad_() for name in ("W", "b")}

    def loss(step: int):
        x = torch.tensor(np.random.default_rng([7, step]).standard_normal((8, 4)), dtype=torch.float32)
        return ((x @ weights["W"].T + weights["b"].sum(0) - x.flip(-1)) ** 2).mean()

    return weights, loss


def run(workdir: Path, *, stop_at: int | None = None, steps: int = 40) -> tuple[dict, Progress]:
    weights, loss = problem()

    def limited(step: int):
        if step == stop_at:
            raise KeyboardInterrupt
        return loss(step)

    progress = train(
        weights, limited, Schedule(steps, 1e-2, 4), workdir=workdir, decayed=lambda name: name == "W",
        observe=lambda step: {"norm": weights["W"].detach().norm().numpy().copy()}, observe_at={0, 20, steps},
        checkpoint_every=7,
    )  # fmt: skip
    return weights, progress


@pytest.mark.parametrize("stop_at", [3, 7, 8, 20, 21, 39])
def test_interrupted_training_ends_with_the_same_bits(tmp_path: Path, stop_at: int):
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole, record = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stop_at=stop_at)
    cut, again = run(tmp_path / "cut")
    for name in whole:
        assert torch.equal(whole[name], cut[name])
    assert record.losses == again.losses
    assert record.observations.keys() == again.observations.keys() == {0, 20, 40}
    assert all(np.array_equal(record.observations[s]["norm"], again.observations[s]["norm"]) for s in (0, 20, 40))


def test_one_step_is_adamw_with_the_scheduled_rate(tmp_path: Path):
    """The first step of AdamW moves every entry by the rate (its bias-corrected moments cancel), after the decay."""
    weights, loss = problem()
    before = {name: w.detach().clone() for name, w in weights.items()}
    gradients = torch.autograd.grad(loss(0), list(weights.values()))
    schedule = Schedule(steps=2, rate=1e-2, warmup=1, final=0.0, decay=0.3, clip=1e9)
    train(
        weights, loss, Schedule(steps=1, rate=1e-2, warmup=0, decay=0.3, clip=1e9), workdir=tmp_path,
        decayed=lambda name: name == "W", observe=lambda step: {}, observe_at=set(),
    )  # fmt: skip
    assert schedule.learning_rate(0) == schedule.rate
    for (name, w), g in zip(weights.items(), gradients, strict=True):
        expected = before[name] * (1 - 1e-2 * (0.3 if name == "W" else 0)) - 1e-2 * torch.sign(g)
        # eps = 1e-8 against gradients of order 0.1
        assert torch.allclose(w, expected, atol=1e-6)


def test_schedule_warms_up_and_ends_at_the_final_share():
    schedule = Schedule(steps=100, rate=2.0, warmup=10, final=0.1)
    rates = [schedule.learning_rate(step) for step in range(100)]
    assert rates[9] == 2.0
    assert math.isclose(rates[-1], 0.2)
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))
    with pytest.raises(InputError, match="cannot warm up for 100"):
        Schedule(steps=100, rate=1.0, warmup=100)


def test_damaged_or_foreign_checkpoint_is_refused(tmp_path: Path):
    run(tmp_path)
    path = tmp_path / "checkpoint.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        run(tmp_path)
    path.write_bytes(whole)
    weights = {"W": torch.zeros(3, 3, requires_grad=True)}
    with pytest.raises(CheckpointError, match="is of another model"):
        train(
            weights, lambda step: weights["W"].sum(), Schedule(4, 1e-2, 1), workdir=tmp_path, decayed=lambda name: True,
            observe=lambda step: {}, observe_at=set(),
        )  # fmt: skip


def test_a_loss_that_is_not_finite_stops_training(tmp_path: Path):
    weights = {"W": torch.zeros(1, requires_grad=True)}
    with pytest.raises(InputError, match="the loss is nan at step 0"):
        train(
            weights, lambda step: weights["W"].sum() * math.nan, Schedule(4, 1e-2, 1), workdir=tmp_path,
            decayed=lambda name: True, observe=lambda step: {}, observe_at=set(),
        )  # fmt: skip


def test_each_parameter_may_have_its_own_rate(tmp_path: Path):
    """Equal rates are the schedule's bits; unequal ones move each parameter's first step by its own rate."""
    ends = []
    for i, rate_of in enumerate((None, lambda name: 1e-2, {"W": 1e-2, "b": 1e-3}.__getitem__)):
        weights, loss = problem()
        start = {name: w.detach().clone() for name, w in weights.items()}
        (tmp_path / str(i)).mkdir()
        train(
            weights, loss, Schedule(1, 1e-2, 0, decay=0.0), workdir=tmp_path / str(i), decayed=lambda name: name == "W",
            observe=lambda step: {}, observe_at=set(), rate_of=rate_of,
        )  # fmt: skip
        ends.append({name: (w - start[name]).detach() for name, w in weights.items()})
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    for name, rate in (("W", 1e-2), ("b", 1e-3)):
        torch.testing.assert_close(ends[2][name].abs(), torch.full((4, 4), rate), rtol=1e-4, atol=0)
