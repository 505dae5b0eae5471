"""Statistics of one layer along one sequence, chunk by chunk: nothing of size (sequence, channel, state) exists.

| class | keeps |
|---|---|
| `LogHistogram` | counts of positive values per channel in log-linear bins, and from them quantiles of known error |
| `DecayHistogram` | counts of exp(Delta A) over tokens, channels and states |
| `LayerStatistics` | all of one layer: histograms, kappa, receptive field, its own scan and the norm of its state |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssmtheory.dynamics.input_output import LagKernel, contract, token_q
from ssmtheory.dynamics.lyapunov import ReceptiveField
from ssmtheory.errors import InputError
from ssmtheory.scan import linear_recurrence

__all__ = ["ChunkResult", "DecayHistogram", "LayerStatistics", "LogHistogram", "position_bins"]

# A float32's bits, read as an integer, rise with its value and split every octave into equal steps: cutting them to
# 4 mantissa bits is a logarithm table with 16 linear bins an octave, and costs a shift.
_MANTISSA_BITS = 4
_SHIFT = 23 - _MANTISSA_BITS
_LOWEST, _OCTAVES = -24, 32  # 2^-24 = 6e-8 to 2^8 = 256
_BINS = _OCTAVES << _MANTISSA_BITS
_OFFSET = (127 + _LOWEST) << _MANTISSA_BITS


class LogHistogram:
    """Histogram of positive numbers for each channel, 16 bins an octave from 2^-24 to 2^8.

    A bin is at most 1/16 of its lower edge wide, so its midpoint is within `RELATIVE_ERROR` = 1/32 of every value in
    it: that is the error of a quantile against the order statistic. Values outside the range are counted in the first
    or last bin, and quantiles are kept within the exact minimum and maximum, which are tracked; only there the bound is
    lost.

    >>> h = LogHistogram(1)
    >>> h.update(np.array([[0.5], [1.0], [2.0]]))
    >>> h.quantile([0.5])[0, 0]
    np.float64(1.03125)
    """

    BINS = _BINS
    RELATIVE_ERROR = 0.5 / (1 << _MANTISSA_BITS)

    def __init__(self, channels: int) -> None:
        self.counts = np.zeros((channels, _BINS), np.int64)
        self.smallest, self.largest = np.full(channels, np.inf), np.full(channels, -np.inf)
        self._base = np.arange(channels) * _BINS

    @staticmethod
    def edges() -> np.ndarray:
        """Bin edges, (BINS + 1,) float64."""
        octave = np.exp2(np.arange(_LOWEST, _LOWEST + _OCTAVES))
        inner = octave[:, None] * (1.0 + np.arange(1 << _MANTISSA_BITS) / (1 << _MANTISSA_BITS))
        return np.append(inner.ravel(), np.exp2(_LOWEST + _OCTAVES))

    def update(self, values: np.ndarray) -> None:
        """Count values (token, channel), none negative."""
        if not len(values):
            return
        bits = np.ascontiguousarray(values, np.float32).view(np.int32) >> _SHIFT
        index = np.clip(bits - _OFFSET, 0, _BINS - 1) + self._base
        self.counts += np.bincount(index.ravel(), minlength=self.counts.size).reshape(self.counts.shape)
        self.smallest = np.minimum(self.smallest, values.min(axis=0))
        self.largest = np.maximum(self.largest, values.max(axis=0))

    def quantile(self, probabilities: Sequence[float]) -> np.ndarray:
        """Quantiles, (probability, channel) float64."""
        return histogram_quantile(self.counts, self.smallest, self.largest, probabilities)


def histogram_quantile(
    counts: np.ndarray, smallest: np.ndarray, largest: np.ndarray, probabilities: Sequence[float]
) -> np.ndarray:
    """Quantiles from `LogHistogram` counts (channel, bin), summed over sequences where there are several.

    The p-quantile is the midpoint of the bin that holds the order statistic of rank ceil(p n) (at least the first).
    """
    edges = LogHistogram.edges()
    middle = 0.5 * (edges[:-1] + edges[1:])
    cumulative = np.cumsum(counts, axis=1)
    total = cumulative[:, -1]
    if (total == 0).any():
        raise InputError("quantiles of an empty histogram")
    out = np.empty((len(probabilities), len(counts)))
    for i, p in enumerate(probabilities):
        rank = np.maximum(np.ceil(p * total - 1e-9), 1)
        out[i] = middle[(cumulative < rank[:, None]).sum(axis=1)]
    return np.clip(out, smallest, largest)


class DecayHistogram:
    """Histogram of decays in [0, 1] in 64 equal bins (1 belongs to the last)."""

    BINS = 64

    def __init__(self) -> None:
        self.counts = np.zeros(self.BINS, np.int64)

    @staticmethod
    def edges() -> np.ndarray:
        """Bin edges, (BINS + 1,) float64."""
        return np.linspace(0.0, 1.0, DecayHistogram.BINS + 1)

    def update(self, decay: np.ndarray, weight: int = 1) -> None:
        """Count an array of decays of any shape, each `weight` times."""
        index = (decay * self.BINS).astype(np.int32).ravel()
        np.minimum(index, self.BINS - 1, out=index)
        self.counts += weight * np.bincount(index, minlength=self.BINS)


def position_bins(tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Bins of positions that double in width: lower (included) and upper (excluded) positions.

    >>> [x.tolist() for x in position_bins(10)]
    [[0, 1, 2, 4, 8], [1, 2, 4, 8, 10]]
    """
    lower = np.array([0, *(2**i for i in range(max(tokens - 1, 0).bit_length()))], np.int64)
    upper = np.append(lower[1:], tokens)
    return lower, upper


@dataclass(frozen=True)
class ChunkResult:
    """Per-token results of one chunk of one layer.

    q: (token, group) float64. kappa: lag-one kernel, mean over channels; NaN at the first token.
    delta: mean step. state_rms: over channels and states.
    own: the token's own write, Delta u (C . B), (token, channel). y: C h of our own scan, (token, channel).
    """

    q: np.ndarray
    kappa: np.ndarray
    delta: np.ndarray
    state_rms: np.ndarray
    own: np.ndarray
    y: np.ndarray


class LayerStatistics:
    """Everything that is summed over the tokens of one sequence in one layer, with the state carried along.

    The state is recomputed here, block by block from the decays that the histogram and kappa need anyway (in the dtype
    of the inputs, with the recurrence in float64), so that y can be compared with what the model computed.

    Args:
        A: (channel, state), or (head,) for Mamba-2. Where it is per head, so are delta, kappa, horizon and the field.
        groups, states: of B and C, (token, group, state).
        lags, stride: see `input_output.LagKernel`.
        block: tokens expanded over channels and states at once: (block, channel, state) numbers is the largest array.
    """

    def __init__(
        self, A: np.ndarray, groups: int, states: int, lags: Sequence[int], stride: int = 1, block: int = 32
    ) -> None:
        A = np.asarray(A)
        self.A = A[:, None] if A.ndim == 1 else A
        heads = self.A.shape[0]
        self.groups, self.states, self.block = groups, states, block
        self.delta_histogram = LogHistogram(heads)
        self.decay_histogram = DecayHistogram()
        self.kernel = LagKernel(self.A, lags, stride)
        self.field = ReceptiveField(self.A, groups, states, block)
        self.delta_sum = np.zeros(heads)
        self.tokens = 0
        self.state: np.ndarray | None = None

    def update(self, u: np.ndarray, delta: np.ndarray, B: np.ndarray, C: np.ndarray) -> ChunkResult:
        """Take the next tokens: u (token, channel), delta (token, channel or head), B and C (token, group, state)."""
        tokens, channels = u.shape
        heads = self.A.shape[0]
        repeat = channels // heads
        multiplicity = repeat * (self.states // self.A.shape[1])
        write = np.repeat(delta, repeat, axis=1) * u
        lag_one, y = np.empty_like(delta), np.empty_like(u)
        mean_square = np.empty(tokens)
        product = C * self.kernel.previous(B)
        for start in range(0, tokens, self.block):
            part = slice(start, start + self.block)
            decay = np.exp(delta[part][..., None] * self.A)
            self.decay_histogram.update(decay, multiplicity)
            lag_one[part] = contract(decay, product[part])
            states = self._states(decay, write[part], B[part])
            y[part] = contract(states, C[part])
            flat = states.reshape(len(states), -1)
            mean_square[part] = np.einsum("ti,ti->t", flat, flat) / flat.shape[1]
        kappa = self.kernel.update(delta, B, C, lag_one)
        self.delta_histogram.update(delta)
        self.delta_sum += delta.sum(axis=0, dtype=np.float64)
        self.field.update(delta, B)
        self.tokens += tokens
        q = token_q(B, C)
        own = write.reshape(tokens, self.groups, -1) * q[..., None]
        return ChunkResult(
            q=q,
            kappa=kappa,
            delta=delta.mean(axis=1, dtype=np.float64),
            state_rms=np.sqrt(mean_square),
            own=own.reshape(tokens, channels),
            y=y,
        )

    def _states(self, decay: np.ndarray, write: np.ndarray, B: np.ndarray) -> np.ndarray:
        """States after each token of a block, (token, channel, state); carries the last one."""
        tokens, channels = write.shape
        heads = self.A.shape[0]
        grouped = write.reshape(tokens, self.groups, -1)[..., None] * B[:, :, None, :]
        inputs = grouped.reshape(tokens, heads, channels // heads, self.states)
        states, self.state = linear_recurrence(
            decay[:, :, None, :], inputs, axis=0, initial_state=self.state, return_last_state=True
        )
        return states.reshape(tokens, channels, self.states)
