"""One deterministic training loop that survives a kill.

A batch is a function of the step, so the parameters, the optimiser's moments and the step are the whole state: a run
that was killed and goes on ends with the same bits as one that was not (same machine, same number of threads).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.training.checkpoint import load_checkpoint, save_checkpoint


@dataclass(frozen=True)
class Schedule:
    """AdamW with a linear warm-up and a cosine down to `final` times the peak rate.

    steps: optimiser steps. rate: peak learning rate. warmup: steps. final: last rate over peak rate.
    decay: weight decay, applied to matrices that `decayed` names. clip: largest gradient norm.
    """

    steps: int
    rate: float
    warmup: int
    final: float = 0.02
    decay: float = 0.1
    clip: float = 1.0
    betas: tuple[float, float] = (0.9, 0.95)

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < self.steps:
            raise InputError(f"a schedule of {self.steps} steps cannot warm up for {self.warmup}")

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step (counted from 0).

        >>> Schedule(steps=100, rate=1.0, warmup=10).learning_rate(4)
        0.5
        """
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - 1 - self.warmup)
        return self.rate * (self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress)))


@dataclass
class Progress:
    """What training has recorded so far.

    losses: one float per step. observations: step to the arrays that `observe` returned there.
    """

    losses: list[float] = field(default_factory=list)
    observations: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)


def train(
    parameters: Mapping[str, Any],
    loss: Callable[[int], Any],
    schedule: Schedule,
    *,
    workdir: Path,
    decayed: Callable[[str], bool],
    observe: Callable[[int], dict[str, np.ndarray]],
    observe_at: set[int],
    checkpoint_every: int = 200,
    report: Callable[[str], None] | None = None,
    rate_of: Callable[[str], float] | None = None,
) -> Progress:
    """Train parameters in place.

    Args:
        parameters: name to torch leaf tensor that requires a gradient.
        loss: step to scalar tensor; it must draw its batch from the step alone.
        schedule: rates and length.
        workdir: where the checkpoint lies; training goes on from it when it is there.
        decayed: whether a parameter of this name gets weight decay.
        observe: called with the number of finished steps, at those in `observe_at` (0 and `schedule.steps` included).
        observe_at: numbers of finished steps.
        checkpoint_every: steps.
        report: called with a line of progress now and then.
        rate_of: name to the peak learning rate of that parameter, which the schedule's shape multiplies; None: the
            schedule's rate for all.

    Returns:
        The losses and the observations.

    Raises:
        InputError: the loss is not finite (the step is named), or the checkpoint is of other parameters.
    """
    import torch

    groups: list[dict[str, Any]] = []
    if rate_of is None:
        groups = [
            {"params": [p for n, p in parameters.items() if decayed(n)], "weight_decay": schedule.decay},
            {"params": [p for n, p in parameters.items() if not decayed(n)], "weight_decay": 0.0},
        ]
    else:
        kinds: dict[tuple[bool, float], list[Any]] = {}
        for name, parameter in parameters.items():
            kinds.setdefault((decayed(name), rate_of(name)), []).append(parameter)
        for (with_decay, rate), members in kinds.items():
            decay = schedule.decay if with_decay else 0.0
            groups.append({"params": members, "weight_decay": decay, "relative_rate": rate / schedule.rate})
    optimizer = torch.optim.AdamW(groups, lr=schedule.rate, betas=schedule.betas)
    progress = Progress()
    path = workdir / "checkpoint.pt"
    if path.exists():
        load_checkpoint(path, parameters, optimizer, progress)
        if report:
            report(f"going on from step {len(progress.losses)} of {schedule.steps}")
    every = [p for group in groups for p in group["params"]]
    for step in range(len(progress.losses), schedule.steps + 1):
        if step in observe_at and step not in progress.observations:
            progress.observations[step] = observe(step)
        if step == schedule.steps:
            break
        if step % checkpoint_every == 0 and step:
            save_checkpoint(path, parameters, optimizer, progress)
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate(step) * group.get("relative_rate", 1.0)
        optimizer.zero_grad(set_to_none=True)
        value = loss(step)
        value.backward()
        if not math.isfinite(value.item()):
            raise InputError(f"the loss is {value.item()} at step {step}: lower the learning rate")
        torch.nn.utils.clip_grad_norm_(every, schedule.clip)
        optimizer.step()
        progress.losses.append(value.item())
        if report and (step + 1) % 50 == 0:
            report(f"step {step + 1} of {schedule.steps}, loss {np.mean(progress.losses[-50:]):.4f}")
    save_checkpoint(path, parameters, optimizer, progress)
    return progress
