"""Training of sequence models, deterministic and resumable, and prediction with a disturbance at any layer.

A batch is a function of (seed, step), and so are the dropout masks: a run that was killed and goes on ends with the
same bits as one that was not (same machine, same number of threads).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ssmtheory.errors import CheckpointError, InputError
from ssmtheory.models.classifier import Disturbance, SequenceModel
from ssmtheory.models.lti_layers import TRAINABLE, LTILayer, _choice
from ssmtheory.training.loop import Schedule, train

__all__ = ["LOSSES", "FitConfig", "FitResult", "fit", "part_of", "predict", "score"]

#: Loss functions; "auto" takes the first for integer labels, the second for real targets.
LOSSES = ("auto", "cross_entropy", "mse")


@dataclass(frozen=True)
class FitConfig:
    """How a model is trained: AdamW, linear warm-up, cosine down to `final` times the peak rate.

    Attributes:
        epochs: passes over the data.
        steps: optimiser steps; None: what `epochs` gives.
        batch: sequences in a batch; an incomplete last one of an epoch is left out.
        rate: peak learning rate of what is no part of a linear layer.
        rates: peak rate by part of the linear layers ("A", "B", "C", "D", "steps"); 0 freezes a part that the layer
            declares trained, a part that is not named has min(rate, `layer_rate`).
        layer_rate: largest rate of parts of the linear layers, as in S4's code.
        decay: weight decay of matrices outside the linear layers.
        warmup: steps of warm-up; None: a twentieth of all.
        final: last rate over peak rate.
        clip: largest norm of the gradient.
        betas: of AdamW.
        loss: "auto", "cross_entropy" or "mse".
        seed: of the order of the data.
        checkpoint_every: steps between checkpoints.
        observe_every: steps between measurements on the validation data; None: at the end only.
    """

    epochs: int = 10
    steps: int | None = None
    batch: int = 64
    rate: float = 1e-2
    rates: Mapping[str, float] = field(default_factory=dict)
    layer_rate: float = 4e-3
    decay: float = 0.05
    warmup: int | None = None
    final: float = 0.02
    clip: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    loss: str = "auto"
    seed: int = 0
    checkpoint_every: int = 200
    observe_every: int | None = None

    def __post_init__(self) -> None:
        for name in self.rates:
            _choice("rates", name, TRAINABLE)
        _choice("loss", self.loss, LOSSES)
        if self.batch < 1 or self.epochs < 1 or (self.steps is not None and self.steps < 1):
            raise InputError(f"batch={self.batch}, epochs={self.epochs}, steps={self.steps}: must be at least 1")
        if any(rate < 0 for rate in self.rates.values()) or self.rate <= 0 or self.layer_rate <= 0:
            raise InputError("rates must be positive; 0 in `rates` freezes a part")

    def rate_of(self, part: str | None) -> float:
        """Peak learning rate.

        Args:
            part: of a linear layer, or None for what is no part of one.

        Returns:
            The rate.
        """
        if part is None:
            return self.rate
        return self.rates.get(part, min(self.rate, self.layer_rate))


@dataclass(frozen=True)
class FitResult:
    """What training recorded.

    Attributes:
        losses: (steps,) float64, of each batch before its step.
        observed: (k,) int, numbers of finished steps at which the validation data were measured.
        scores: (k,) accuracy, or mean squared error for regression; NaN without validation data.
        observations: number of finished steps -> what `observe` returned then.
    """

    losses: np.ndarray
    observed: np.ndarray
    scores: np.ndarray
    observations: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)


_PARTS = {
    "stored_poles": "A", "log_decay": "A", "decay": "A", "frequency": "A", "P": "A", "B": "B", "log_gain": "B",
    "C": "C", "D": "D", "log_steps": "steps",
}  # fmt: skip


def part_of(model: torch.nn.Module, name: str) -> str | None:
    """Which part of a linear layer a parameter is.

    Args:
        model: any module.
        name: of one of its parameters, as in `named_parameters()`.

    Returns:
        "A", "B", "C", "D" or "steps"; None where it is no part of a linear layer.
    """
    owner, _, last = name.rpartition(".")
    return _PARTS[last] if isinstance(model.get_submodule(owner), LTILayer) else None


def fit(
    model: SequenceModel,
    inputs: Any,
    targets: Any,
    config: FitConfig,
    workdir: Path | str,
    *,
    validation: tuple[Any, Any] | None = None,
    observe: Callable[[int], dict[str, np.ndarray]] | None = None,
    report: Callable[[str], None] | None = None,
) -> FitResult:
    """Train a model in place.

    Args:
        model: the model.
        inputs: (n, length, inputs), array or tensor, real.
        targets: (n,) integer labels, or (n,) or (n, outputs) real targets.
        config: how.
        workdir: where the checkpoint lies; training goes on from it when it is there.
        validation: inputs and targets to measure now and then.
        observe: number of finished steps -> what else to record then; kept in the checkpoint.
        report: called with a line of progress now and then.

    Returns:
        Losses and measurements.

    Raises:
        InputError: arrays that do not fit, or a loss that is not finite.
        CheckpointError: a checkpoint of another model, of other data, or of another configuration.
    """
    device, dtype = model.encoder.weight.device, model.encoder.weight.dtype
    data = torch.as_tensor(np.asarray(inputs) if not isinstance(inputs, Tensor) else inputs)
    wanted = torch.as_tensor(np.asarray(targets) if not isinstance(targets, Tensor) else targets)
    if data.ndim != 3 or len(data) != len(wanted) or not len(data):
        raise InputError(
            f"inputs has shape {tuple(data.shape)} and targets {tuple(wanted.shape)}: must be (n, length, inputs) and "
            "(n, ...), n at least 1"
        )
    loss_name = _loss_name(config.loss, wanted)
    batch = min(config.batch, len(data))
    per_epoch = len(data) // batch
    steps = config.epochs * per_epoch if config.steps is None else config.steps
    warmup = min(steps - 1, steps // 20 if config.warmup is None else config.warmup)
    rates = {name: config.rate_of(part_of(model, name)) for name, _ in model.named_parameters()}
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad and rates[name] > 0}
    order: tuple[int, np.ndarray] = (-1, np.empty(0))

    def loss(step: int) -> Tensor:
        nonlocal order
        epoch, place = divmod(step, per_epoch)
        if order[0] != epoch:
            order = epoch, np.random.default_rng([config.seed, epoch]).permutation(len(data))
        rows = torch.from_numpy(order[1][place * batch : (place + 1) * batch])
        model.train()
        model.reseed(step)
        found = model(data[rows].to(device, dtype))
        return _loss(loss_name, found, wanted[rows].to(device))

    def record(step: int) -> dict[str, np.ndarray]:
        found = {} if observe is None else dict(observe(step))
        if validation is not None:
            found["score"] = np.array(score(model, *validation, loss=loss_name))
        return found

    every = config.observe_every
    observed = {steps} if every is None else {*range(0, steps, every), steps}
    Path(workdir).mkdir(parents=True, exist_ok=True)
    _same_work(Path(workdir), _identity(model, data, wanted, config, weights))
    progress = train(
        weights,
        loss,
        Schedule(steps, config.rate, warmup, config.final, config.decay, config.clip, config.betas),
        workdir=Path(workdir),
        decayed=lambda name: weights[name].ndim == 2 and part_of(model, name) is None,
        observe=record,
        observe_at=observed if validation is not None or observe is not None else set(),
        checkpoint_every=config.checkpoint_every,
        report=report,
        rate_of=rates.__getitem__,
    )
    model.eval()
    places = sorted(progress.observations)
    return FitResult(
        np.array(progress.losses),
        np.array(places, dtype=np.int64),
        np.array([float(progress.observations[k].get("score", np.nan)) for k in places]),
        {k: progress.observations[k] for k in places},
    )


def _identity(
    model: SequenceModel, data: Tensor, wanted: Tensor, config: FitConfig, weights: Mapping[str, Tensor]
) -> str:
    """Digest of what decides the result beyond the checkpoint: data, configuration, frozen parts, the architecture."""
    digest = hashlib.sha256(repr((config, repr(model), sorted(weights), model.dropout, model.seed)).encode())
    frozen = {name: x for name, x in model.state_dict().items() if name not in weights}
    for name, x in {"inputs": data, "targets": wanted, **frozen}.items():
        digest.update(f"{name} {tuple(x.shape)} {x.dtype}".encode())
        digest.update(x.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


def _same_work(workdir: Path, identity: str) -> None:
    """Leave the digest beside the checkpoint, or compare with the one there."""
    path = workdir / "identity.txt"
    if path.exists():
        if path.read_text(encoding="ascii").strip() != identity:
            raise CheckpointError(
                f"{workdir} holds the checkpoint of another training (other data, configuration or frozen "
                "parameters): give another folder, or delete it to start again"
            )
        return
    partial = path.with_suffix(".partial")
    partial.write_text(identity + "\n", encoding="ascii")
    os.replace(partial, path)


def _loss_name(name: str, targets: Tensor) -> str:
    if name != "auto":
        return name
    return "mse" if targets.is_floating_point() else "cross_entropy"


def _loss(name: str, found: Tensor, wanted: Tensor) -> Tensor:
    if name == "cross_entropy":
        return functional.cross_entropy(found, wanted)
    return functional.mse_loss(found, wanted.to(found.dtype).reshape(found.shape))


def predict(model: SequenceModel, inputs: Any, disturb: Disturbance | None = None, batch: int = 256) -> np.ndarray:
    """Outputs of a model, without gradients or dropout.

    Args:
        model: the model.
        inputs: (n, length, inputs), array or tensor.
        disturb: see `SequenceModel.forward`; called batch by batch, in the order of the inputs.
        batch: sequences at a time.

    Returns:
        (n, outputs), float32 or float64 as the model.

    Raises:
        InputError: inputs of another shape.
    """
    data = torch.as_tensor(np.asarray(inputs) if not isinstance(inputs, Tensor) else inputs)
    if data.ndim != 3 or batch < 1:
        raise InputError(f"inputs has shape {tuple(data.shape)}, batch={batch}: must be (n, length, inputs), n >= 1")
    weight = model.encoder.weight
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            parts = [
                model(data[i : i + batch].to(weight.device, weight.dtype), disturb).cpu().numpy()
                for i in range(0, len(data), batch)
            ]
    finally:
        model.train(training)
    return np.concatenate(parts) if parts else np.zeros((0, model.decoder.out_features))


def score(
    model: SequenceModel,
    inputs: Any,
    targets: Any,
    disturb: Disturbance | None = None,
    *,
    loss: str = "auto",
    batch: int = 256,
) -> float:
    """Accuracy of a classifier, or mean squared error of a regressor.

    Args:
        model: the model.
        inputs: (n, length, inputs).
        targets: (n,) integer labels, or real targets.
        disturb: see `SequenceModel.forward`.
        loss: "auto", "cross_entropy" (accuracy) or "mse".
        batch: sequences at a time.

    Returns:
        The number.
    """
    wanted = torch.as_tensor(np.asarray(targets) if not isinstance(targets, Tensor) else targets).cpu()
    found = predict(model, inputs, disturb, batch)
    if _loss_name(_choice("loss", loss, LOSSES), wanted) == "cross_entropy":
        return float((found.argmax(axis=1) == wanted.numpy()).mean())
    return float(((found - wanted.numpy().reshape(found.shape)) ** 2).mean())
