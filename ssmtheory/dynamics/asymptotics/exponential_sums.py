"""Sums of exponentials Q(s) = sum_k c_k e^{lambda_k s} with real c_k and lambda_k, and all their real zeros.

Descartes' rule holds for them: with the exponents in order, Q has at most as many real zeros as the coefficients have
changes of sign, and the difference is even, counted with multiplicity (Polya and Szego, part V). The zeros are isolated
by subdivision: after a factor e^{-m s}, which moves no zero, the second-order Taylor bound on an interval shows that Q
has no zero there, or is monotone there and so has one or none. Both bounds carry the rounding error of the sum, so an
interval is decided only where float64 decides it; what cannot be decided (a double zero, or two zeros closer than
rounding) is reported and never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmtheory.dynamics.asymptotics._common import finite
from ssmtheory.errors import InputError

__all__ = ["ExponentialSum", "Roots"]

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Roots:
    """The real zeros of one sum.

    roots: rising.
    undecided: (interval, 2) ends of the intervals in which float64 cannot tell whether there is a zero.
    bound: Descartes' bound of their number.
    """

    roots: np.ndarray
    undecided: np.ndarray
    bound: int


def _log_bound(log_others: np.ndarray, gaps: np.ndarray, log_lead: float) -> float:
    """The s >= 0, or 0, beyond which e^{log_lead} > sum_k e^{log_others_k - gaps_k s}."""

    def excess(s: float) -> float:
        terms = log_others - gaps * s
        top = terms.max()
        return float(top + np.log(np.exp(terms - top).sum()) - log_lead)

    if excess(0.0) <= 0:
        return 0.0
    high = 1.0
    while excess(high) > 0:
        high *= 2.0
    low = 0.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return high * (1 + 1e-9) + 1e-9


class ExponentialSum:
    """Q(s) = sum_k c_k e^{lambda_k s}; equal exponents are merged and zero coefficients dropped.

    Attributes:
        coefficients, exponents: (term,) float64, exponents rising.

    Args:
        coefficients, exponents: (term,).

    Raises:
        InputError: not two vectors of one length, or an entry is not finite.

    >>> ExponentialSum([2.0, -3.0, 1.0], [0.0, 1.0, 2.0]).roots().roots.round(6) + 0.0     # (1 - e^s)(2 - e^s)
    array([0.      , 0.693147])
    """

    def __init__(self, coefficients: Any, exponents: Any) -> None:
        c, e = finite(coefficients=coefficients, exponents=exponents)
        if c.ndim != 1 or c.shape != e.shape:
            raise InputError(f"coefficients and exponents must be vectors of one length, not {c.shape} and {e.shape}")
        values, place = np.unique(e, return_inverse=True)
        merged = np.zeros(len(values))
        np.add.at(merged, place, c)
        keep = merged != 0
        self.coefficients, self.exponents = merged[keep], values[keep]

    def __call__(self, s: Any) -> np.ndarray:
        """Q at s, in the shape of s."""
        s = np.asarray(s, np.float64)
        return np.exp(s[..., None] * self.exponents) @ self.coefficients

    def sign(self, s: Any) -> np.ndarray:
        """Sign of Q at s as -1, 0 or 1, without overflow; 0 also where rounding decides it."""
        s = np.atleast_1d(np.asarray(s, np.float64))
        terms = self._scaled(s)
        value, size = terms.sum(axis=-1), np.abs(terms).sum(axis=-1)
        guard = self._guard(np.abs(s)) * size
        return np.where(np.abs(value) > guard, np.sign(value), 0.0)

    @property
    def sign_changes(self) -> int:
        """Descartes' bound: changes of sign of the coefficients in the order of the exponents."""
        return int(np.count_nonzero(np.diff(np.sign(self.coefficients))))

    def _scaled(self, s: np.ndarray) -> np.ndarray:
        """The terms at each s over the largest of them, (point, term)."""
        logs = np.log(np.abs(self.coefficients)) + s[:, None] * self.exponents
        return np.sign(self.coefficients) * np.exp(logs - logs.max(axis=1, keepdims=True))

    def _guard(self, largest: np.ndarray) -> np.ndarray:
        """Relative rounding error of a sum of the terms at |s| <= largest: exponents, exponentials, the sum itself."""
        reach = np.abs(self.exponents).max() * largest + np.abs(np.log(np.abs(self.coefficients))).max()
        return _EPS * (len(self.coefficients) + 4.0 + 4.0 * reach)

    def reach(self) -> tuple[float, float]:
        """An interval outside of which the first or the last term is larger than all the others together."""
        logs = np.log(np.abs(self.coefficients))
        e = self.exponents
        if len(e) < 2:
            return 0.0, 0.0
        right = _log_bound(logs[:-1], e[-1] - e[:-1], float(logs[-1]))
        left = _log_bound(logs[1:], e[1:] - e[0], float(logs[0]))
        return -left, right

    def roots(self, lower: float = -np.inf, upper: float = np.inf, *, most: int = 200_000) -> Roots:
        """Every real zero between `lower` and `upper`, to rounding.

        Args:
            lower, upper: ends; zeros at an end belong to it. Without ends the zeros lie in `reach()`.
            most: intervals looked at before the rest is given up as undecided.

        Raises:
            InputError: an end is NaN.
        """
        if np.isnan(lower) or np.isnan(upper):
            raise InputError(f"the ends of an interval must be numbers, not {lower} and {upper}")
        none = np.zeros((0, 2))
        bound = self.sign_changes
        if bound == 0:
            return Roots(np.zeros(0), none, 0)
        left, right = self.reach()
        low, high = max(lower, left - 1e-6), min(upper, right + 1e-6)
        if low > high:
            return Roots(np.zeros(0), none, bound)
        found, at_end, undecided = self._isolate(low, high, most)
        roots = np.sort(np.concatenate([self._refine(found), at_end]))
        return Roots(roots, self._joined(undecided), bound)

    def _isolate(self, low: float, high: float, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Intervals with exactly one zero, zeros at ends of intervals, and intervals that float64 does not decide."""
        edges = np.linspace(low, high, 17)
        work = np.stack([edges[:-1], edges[1:]], axis=1)
        single: list[np.ndarray] = []
        at_end: list[np.ndarray] = []
        open_: list[np.ndarray] = []
        seen = 0
        while len(work):
            seen += len(work)
            middle, half = work.mean(axis=1), 0.5 * (work[:, 1] - work[:, 0])
            terms = self._scaled(middle)
            size = np.abs(terms)
            centre = (size @ self.exponents) / size.sum(axis=1)
            shift = self.exponents - centre[:, None]
            with np.errstate(over="ignore"):
                second = (size * shift**2 * np.exp(np.abs(shift) * half[:, None])).sum(axis=1)
            guard = self._guard(np.abs(work).max(axis=1))
            value, slope = terms.sum(axis=1), (terms * shift).sum(axis=1)
            noise, slope_noise = guard * size.sum(axis=1), guard * (size * np.abs(shift)).sum(axis=1)
            empty = np.abs(value) - noise > (np.abs(slope) + slope_noise) * half + 0.5 * second * half**2
            monotone = ~empty & (np.abs(slope) - slope_noise > second * half)
            # one zero where a monotone Q changes sign
            ends = np.stack([self.sign(work[:, 0]), self.sign(work[:, 1])], axis=1)
            single.append(work[monotone & (ends.prod(axis=1) < 0)])
            # an end that rounding cannot sign: a simple zero there if the slope places it well inside the interval's
            # width, the flank of a double zero otherwise
            unsigned = monotone & (ends == 0).any(axis=1)
            spread = noise / np.where(monotone, np.abs(slope) - slope_noise - second * half, 1.0)
            placed = unsigned & (spread < 1e-3 * half) & ~(ends == 0).all(axis=1)
            at_end.append(np.where(ends[placed, 0] == 0, work[placed, 0], work[placed, 1]))
            open_.append(work[unsigned & ~placed])
            rest = ~empty & ~monotone
            narrow = rest & (half <= 64 * _EPS * (1 + np.abs(middle)))
            open_.append(work[narrow])
            split = rest & ~narrow
            if seen > most:
                open_.append(work[split])
                break
            a, m, b = work[split, 0], middle[split], work[split, 1]
            work = np.concatenate([np.stack([a, m], axis=1), np.stack([m, b], axis=1)])
        return np.concatenate(single), np.unique(np.concatenate(at_end)), np.concatenate(open_)

    def _refine(self, intervals: np.ndarray) -> np.ndarray:
        """The zero of each interval on which Q is monotone, by bisection."""
        if not len(intervals):
            return np.zeros(0)
        a, b = intervals[:, 0].copy(), intervals[:, 1].copy()
        up = self._scaled(b).sum(axis=1) >= self._scaled(a).sum(axis=1)
        left = np.sign(self._scaled(a).sum(axis=1))
        left = np.where(left == 0, np.where(up, -1.0, 1.0), left)
        for _ in range(70):
            middle = 0.5 * (a + b)
            same = np.sign(self._scaled(middle).sum(axis=1)) == left
            a, b = np.where(same, middle, a), np.where(same, b, middle)
        return 0.5 * (a + b)

    @staticmethod
    def _joined(intervals: np.ndarray) -> np.ndarray:
        """Intervals that touch, as one."""
        if not len(intervals):
            return np.zeros((0, 2))
        rows = intervals[np.argsort(intervals[:, 0])]
        joined = [list(rows[0])]
        for a, b in rows[1:]:
            if a <= joined[-1][1] + 1e-12 * (1 + abs(a)):
                joined[-1][1] = max(joined[-1][1], b)
            else:
                joined.append([a, b])
        return np.array(joined)
