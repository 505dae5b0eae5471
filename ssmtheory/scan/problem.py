"""The normal form in which every backend receives a selective scan, and the choice of chunk length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from ssmtheory.typing import Array

__all__ = [
    "ARRAYS", "OPERATOR_BACKWARD", "OPERATOR_FORWARD", "OPERATOR_INPUTS", "Reduce", "ScanProblem", "chunk_length",
]  # fmt: skip

#: ``reduce(states_chunk, start)``: states (batch, chunk, channel, state) of tokens start, start + 1, ...
Reduce: TypeAlias = Callable[[Array, int], None]

#: The arrays of a scan, in the order in which operators of PyTorch take and differentiate them.
ARRAYS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state", "reset")
#: The same as an operator's arguments, and those that are no arrays.
OPERATOR_INPUTS = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
    "Tensor? initial_state, Tensor? reset, bool softplus, bool reverse, int scale"
)
#: y, last state and checkpoints (empty without `keep`).
OPERATOR_FORWARD = f"({OPERATOR_INPUTS}, bool keep) -> (Tensor, Tensor, Tensor)"
#: As many cotangents as there are arrays with a derivative, empty where there is no such array.
OPERATOR_BACKWARD = (
    f"(Tensor? dy, Tensor? dlast, Tensor kept, {OPERATOR_INPUTS}) -> ({', '.join(['Tensor'] * (len(ARRAYS) - 1))})"
)


@dataclass(frozen=True)
class ScanProblem:
    """A validated selective scan whose optional forms have been made one.

    A scalar A per head has become a column per channel that broadcasts over the state, and B and C always carry a
    group axis: group g serves channels g*channel/group ... (g+1)*channel/group - 1. Biases, softplus, skip and gate
    are not here; :mod:`ssmtheory.scan.api` applies them.

    Attributes:
        u, delta: (batch, length, channel), real.
        A: (channel, state), or (channel, 1) where one decay serves all states of a channel.
        B, C: (batch, length, group, state).
        initial_state: (batch, channel, state), or None for zero.
        reset: (batch, length) bool, or None.
        reverse: run from the last token to the first.
        scale: 2 where complex states stand for conjugate pairs, else 1; multiplies y.
        compute_dtype: "float32" or "float64", the precision of the result before it is cast to that of u.
        complex_state: the states are complex.
    """

    u: Array
    delta: Array
    A: Array
    B: Array
    C: Array
    initial_state: Array | None
    reset: Array | None
    reverse: bool
    scale: int
    compute_dtype: str
    complex_state: bool

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """(batch, length, channel, group, state)."""
        batch, length, channels = self.u.shape
        return batch, length, channels, self.B.shape[2], self.B.shape[3]

    @property
    def state_dtype(self) -> str:
        """Name of the dtype of the last state."""
        if self.complex_state:
            return "complex128" if self.compute_dtype == "float64" else "complex64"
        return self.compute_dtype


def chunk_length(length: int, step_bytes: int, target_bytes: int, shortest: int = 1) -> int:
    """How many steps to treat at once so that one temporary stays near ``target_bytes``.

    Args:
        length: number of steps in all.
        step_bytes: size of one step of the temporary.
        target_bytes: wanted size of the temporary.
        shortest: a shorter chunk than this costs more in overhead than it saves.

    Returns:
        A length between 1 and max(1, length).
    """
    return max(1, min(length, max(shortest, target_bytes // max(1, step_bytes))))
