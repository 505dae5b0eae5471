from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from ssmtheory.data.ngram import KneserNey
from ssmtheory.errors import InputError


def dictionary_probability(texts: list[bytes], order: int, context: bytes, byte: int) -> float:
    """Interpolated Kneser-Ney by dictionaries and recursion, straight from Chen and Goodman, section 2.8."""
    counts: Counter[bytes] = Counter(t[i : i + order] for t in texts for i in range(len(t) - order + 1))
    tables = {order: counts}
    for n in range(order - 1, 0, -1):
        left = defaultdict(set)
        for gram in tables[n + 1]:
            left[gram[1:]].add(gram[0])
        tables[n] = Counter({gram: len(contexts) for gram, contexts in left.items()})

    def p(n: int, ctx: bytes) -> float:
        if n == 0:
            return 1 / 256
        table = tables[n]
        once = sum(c == 1 for c in table.values())
        twice = sum(c == 2 for c in table.values())
        d = once / (once + 2 * twice) if once else 0.0
        following = {gram: c for gram, c in table.items() if gram[:-1] == ctx}
        total = sum(following.values())
        lower = p(n - 1, ctx[1:])
        if not total:
            return lower
        return (max(following.get(ctx + bytes([byte]), 0) - d, 0) + d * len(following) * lower) / total

    return p(order, context)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_against_dictionaries(order: int):
    rng = np.random.default_rng(order)
    texts = [bytes(rng.integers(97, 101, size=60).astype(np.uint8)) for _ in range(2)]
    model = KneserNey.fit(texts, order)
    held = bytes(rng.integers(97, 103, size=30).astype(np.uint8))  # with two bytes never seen
    expected = [
        dictionary_probability(texts, order, held[i : i + order - 1], held[i + order - 1])
        for i in range(len(held) - order + 1)
    ]
    # the same sums in another order: a few ulp
    np.testing.assert_allclose(model.probabilities(held), expected, rtol=1e-13)


def test_probabilities_sum_to_one():
    model = KneserNey.fit([b"to be or not to be, that is the question" * 3], 4)
    for context in (b"to ", b"zzz", b"t q"):
        total = sum(model.probabilities(context + bytes([byte]))[0] for byte in range(256))
        assert abs(total - 1) < 1e-12  # 256 additions of numbers below 1


def test_order_outside_a_64_bit_code_is_refused():
    with pytest.raises(InputError, match="order 1 to 7, not 9"):
        KneserNey.fit([b"abc"], 9)
    with pytest.raises(InputError, match="no text of 5 bytes"):
        KneserNey.fit([b"abc"], 5)
