"""Checkpoints of the training loop: written whole or not at all, read without running code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssmtheory.errors import CheckpointError


def save_checkpoint(path: Path, parameters: Mapping[str, Any], optimizer: Any, progress: Any) -> None:
    """Write parameters, optimiser state and records to a file, durably.

    Args:
        path: the file, replaced only once the new one is on disk.
        parameters: name to tensor.
        optimizer: a torch optimiser.
        progress: `ssmtheory.training.loop.Progress`.
    """
    import torch

    record = {
        "parameters": {name: tensor.detach() for name, tensor in parameters.items()},
        "optimizer": optimizer.state_dict(),
        "losses": torch.tensor(progress.losses, dtype=torch.float64),
        "observations": {
            step: {name: torch.as_tensor(value) for name, value in arrays.items()}
            for step, arrays in progress.observations.items()
        },
    }
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        torch.save(record, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load_checkpoint(path: Path, parameters: Mapping[str, Any], optimizer: Any, progress: Any) -> None:
    """Read a checkpoint into parameters, optimiser and records, in place.

    Raises:
        CheckpointError: the file cannot be read, or holds other parameters.
    """
    import torch

    try:
        record = torch.load(path, weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(f"{path} cannot be read ({error}): delete it to start again") from error
    saved = {name: tuple(tensor.shape) for name, tensor in record["parameters"].items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
    if saved != wanted:
        differing = sorted(set(saved.items()) ^ set(wanted.items()))
        raise CheckpointError(
            f"{path} is of another model (first difference: {differing[0]}): delete it to start again"
        )
    with torch.no_grad():
        for name, tensor in parameters.items():
            tensor.copy_(record["parameters"][name])
    optimizer.load_state_dict(record["optimizer"])
    progress.losses[:] = record["losses"].tolist()
    progress.observations.clear()
    for step, arrays in record["observations"].items():
        progress.observations[step] = {name: value.numpy() for name, value in arrays.items()}
