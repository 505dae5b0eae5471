"""Interpolated Kneser-Ney n-grams over bytes: the baseline that a trained language model has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssmtheory.errors import InputError


@dataclass(frozen=True)
class _Order:
    """Counts of one order: n-gram codes with counts, context codes with totals and numbers of distinct successors."""

    codes: np.ndarray
    counts: np.ndarray
    contexts: np.ndarray
    totals: np.ndarray
    successors: np.ndarray
    discount: float


@dataclass(frozen=True)
class KneserNey:
    """An interpolated Kneser-Ney model of bytes with one discount per order.

    Kneser and Ney, ICASSP 1995, in the interpolated form of Chen and Goodman, TR-10-98, section 2.8, with
    d = n_1 / (n_1 + 2 n_2) from the numbers of n-grams seen once and twice; the lowest order is interpolated with the
    uniform distribution, so that every byte has a probability.
    """

    orders: tuple[_Order, ...]

    @classmethod
    def fit(cls, texts: Sequence[bytes], order: int = 5) -> KneserNey:
        """Count the n-grams of some texts (none crosses from one text to the next).

        Args:
            texts: training texts.
            order: n of the longest n-gram, 1 to 7 (an n-gram is kept as one 64-bit integer).

        Raises:
            InputError: another order, or no text as long as it.
        """
        if not 1 <= order <= 7:
            raise InputError(f"a byte n-gram has order 1 to 7, not {order}")
        seen = np.concatenate([_codes(text, order) for text in texts])
        if not len(seen):
            raise InputError(f"no text of {order} bytes or more to count {order}-grams in")
        codes, counts = np.unique(seen, return_counts=True)
        orders = [_order(codes, counts)]
        for n in range(order - 1, 0, -1):
            # continuation counts: in how many distinct left contexts an n-gram was seen
            codes, counts = np.unique(codes % 256**n, return_counts=True)
            orders.append(_order(codes, counts))
        return cls(tuple(reversed(orders)))

    def probabilities(self, text: bytes) -> np.ndarray:
        """Return the probability of each byte given the bytes before it, from the first whole n-gram on.

        Args:
            text: any bytes.

        Returns:
            float64 (len(text) - n + 1,), for an n-gram model.
        """
        longest = len(self.orders)
        value = np.full(max(0, len(text) - longest + 1), 1 / 256)
        for n, order in enumerate(self.orders, start=1):
            codes = _codes(text, n)[longest - n :]
            count = _lookup(order.codes, order.counts, codes)
            total = _lookup(order.contexts, order.totals, codes >> 8)
            successors = _lookup(order.contexts, order.successors, codes >> 8)
            known = total > 0
            safe = np.where(known, total, 1)
            mixed = (np.maximum(count - order.discount, 0) + order.discount * successors * value) / safe
            value = np.where(known, mixed, value)
        return value

    def bits_per_byte(self, text: bytes) -> float:
        """Return the mean of -log2 p over the bytes that have a whole context.

        >>> model = KneserNey.fit([b"abracadabra" * 50], order=3)
        >>> round(model.bits_per_byte(b"abracadabra" * 5), 2) < 0.5
        True
        """
        return float(-np.log2(self.probabilities(text)).mean())


def _codes(text: bytes, n: int) -> np.ndarray:
    """n-grams of a text as integers, most significant byte first: int64 (len(text) - n + 1,)."""
    data = np.frombuffer(text, dtype=np.uint8).astype(np.int64)
    length = max(0, len(data) - n + 1)
    codes = np.zeros(length, dtype=np.int64)
    for i in range(n):
        codes = codes * 256 + data[i : i + length]
    return codes


def _order(codes: np.ndarray, counts: np.ndarray) -> _Order:
    contexts, inverse = np.unique(codes >> 8, return_inverse=True)
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    discount = once / (once + 2 * twice) if once else 0.0
    totals, successors = np.bincount(inverse, weights=counts), np.bincount(inverse)
    return _Order(codes, counts, contexts, totals, successors, discount)


def _lookup(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Values of sorted keys, 0 where a key is absent."""
    index = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[index] == wanted, values[index], 0)
