"""X(s) / (1 + a phi_N(s)) as a transfer function with bounds: LegS (a = 0), S4D (a = 1), HiPPO-rho (|a| < 1).

On the imaginary axis |phi| = w / hypot(w, N) grows and the phase of phi falls, both monotonically, so that the least
|1 + a phi| over an interval is known from its ends, spikes included. That gives bounds of the first two derivatives of
G(i w) over intervals, and with them norms as two-sided brackets at any N.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.inits import hippo
from ssmtheory.lti import HinfNorm, TransferFunction
from ssmtheory.typing import Array

__all__ = ["LegsFamily", "gap_norm", "hippo_bound", "legs_family"]

#: Rows beyond this number are bounded by the norm of the whole vector.
_FEW = 16


class LegsFamily:
    """X(s) / (1 + a phi_N(s)), or some of its rows, with everything that is known of it.

    Args:
        N: number of states.
        a: 0 for LegS, 1 for S4D, inside the unit disc for HiPPO-rho.
        rows: components kept (q,); all of them when None.

    Raises:
        InputError: |a| > 1 (poles in the right half plane), or another size that cannot be.
    """

    def __init__(self, N: int, a: complex = 0.0, rows: Array | None = None):
        self.N = hippo.check_size(N)
        if not abs(a) <= 1:
            raise InputError(f"a={a!r}: must lie in the closed unit disc; beyond it the poles lie right of -1/2")
        self.a = complex(a)
        self.rows = np.arange(self.N) if rows is None else rows

    def evaluate(self, s: Array, outputs: Array) -> Array:
        """Values (k, q, 1) at s (k,)."""
        values = hippo.transfer(self.N, s, self.rows[outputs])
        if self.a:
            values = values / hippo.one_plus_phi(self.N, s, self.a)[:, None]
        return values[:, :, None]

    @cached_property
    def _whole(self) -> bool:
        return self.rows.size > _FEW

    @cached_property
    def _repeats(self) -> float:
        """Factor of the norm of the whole vector where rows are asked for more than once."""
        return math.sqrt(float(np.bincount(self.rows).max()))

    # -- bounds, all for |w| in [lo, hi]

    def _log_slope(self, n: Array | int, w: Array) -> Array:
        """Bound of sum_{k=1}^{n-1} 2k/(w^2 + k^2): an integral, plus the largest term where the sum is not monotone."""
        largest = np.where(w < 1, 2 / (1 + w**2), 1 / np.maximum(w, 1))
        with np.errstate(invalid="ignore"):
            integral = np.log1p((np.square(n, dtype=np.float64) - 1) / (w**2 + 1))
        return np.where(np.asarray(n) > 1, integral + np.where(w < n, largest, 0.0), 0.0)

    def _vector(self, lo: Array, hi: Array) -> tuple[Array, Array, Array]:
        """Bounds of the kept rows of X and of its first two derivatives."""
        whole = self._repeats * self.N / np.hypot(lo, self.N)
        # X' = -R X and X'' = 2 R^2 X with ||R(i w)|| <= 2, as the symmetric part of A_H is at most -1/2
        bounds = whole, 2 * whole, 8 * whole
        if self._whole:
            return bounds
        total = np.zeros((3, lo.size))
        for n in self.rows.astype(np.float64):
            if n == 0:
                value = 1 / np.hypot(lo, 1)
                total += np.square([value, value**2, 2 * value**3])
                continue
            peak = np.clip(math.sqrt(n * (n + 1)), lo, hi)
            root = math.sqrt(2 * n + 1)
            value = root * (peak / np.hypot(peak, n)) / np.hypot(peak, n + 1)
            quotient = root / (np.hypot(lo, n) * np.hypot(lo, n + 1))  # |X_n / w|
            q = self._log_slope(n, lo) + 1 / np.hypot(lo, n) + 1 / np.hypot(lo, n + 1)
            dq = q / np.maximum(1, lo / 2)
            total += np.square([value, quotient * (1 + hi * q), quotient * (2 * q + hi * (q**2 + dq))])
        return tuple(np.minimum(x, y) for x, y in zip(bounds, np.sqrt(total), strict=True))

    def _phase_factor(self, lo: Array, hi: Array) -> tuple[Array, Array]:
        """Bounds of the first two derivatives of phi."""
        h = np.hypot(lo, self.N)
        slope = self._log_slope(self.N, lo)
        # phi = i w W
        p = slope + 1 / h
        dp = p / np.maximum(1, lo / 2)
        first, second = (1 + hi * p) / h, (2 * p + hi * (p**2 + dp)) / h
        # phi' = phi l, which sees that 1/s and 1/(s+N) cancel for large w
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            ratio = hi / np.hypot(hi, self.N)
            l1 = self.N / (lo * h) + slope
            l2 = 2 * self.N / (lo**2 * h) + slope / np.maximum(1, lo / 2)
            return np.fmin(first, ratio * l1), np.fmin(second, ratio * (l1**2 + l2))

    def _least_denominator(self, lo: Array, hi: Array, angle: Array) -> Array:
        """Lower bound of |1 + a phi|; `angle` is arg a where w > 0, -arg a where w < 0, NaN on both sides of 0."""
        modulus = abs(self.a)
        far = np.isinf(hi)
        end = np.where(far, 1.0, hi)
        h = np.hypot(end, self.N)
        lost = np.where(far, 0.0, self.N / h * (self.N / (h + end)))
        least_gap = (1 - modulus) + modulus * lost
        r = modulus * lo / np.hypot(lo, self.N)
        top = (hippo._half_phase(self.N, lo) + angle / 2) / np.pi - 0.5
        bottom = (np.where(far, 0.0, hippo._half_phase(self.N, end)) + angle / 2) / np.pi - 0.5
        crosses = ~(np.floor(top) == np.floor(bottom))  # also where the angle is not known
        cosine = np.where(crosses, 0.0, np.minimum(np.abs(np.sin(np.pi * top)), np.abs(np.sin(np.pi * bottom))))
        cosine = np.nan_to_num(cosine)
        return np.hypot(least_gap, 2 * np.sqrt(r) * cosine)

    def _fold(self, a: Array, b: Array) -> tuple[Array, Array, Array]:
        """Intervals of w as intervals of |w|, with the phase of a that belongs to their sign."""
        a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
        lo, hi = np.abs(np.maximum(0, np.maximum(a, -b))), np.maximum(np.abs(a), np.abs(b))  # abs: no -0.0
        phase = float(np.angle(self.a)) if self.a else 0.0
        both = np.nan if phase else 0.0
        return lo, hi, np.where(a >= 0, phase, np.where(b <= 0, -phase, both))

    def slope(self, a: Array, b: Array) -> Array:
        """Bound of ||dG/dw|| over [a, b]; arrays (k,)."""
        return self._derivatives(a, b)[0]

    def curvature(self, a: Array, b: Array) -> Array:
        """Bound of ||d2G/dw2|| over [a, b]; arrays (k,)."""
        return self._derivatives(a, b)[1]

    def _derivatives(self, a: Array, b: Array) -> tuple[Array, Array]:
        lo, hi, angle = self._fold(a, b)
        x0, x1, x2 = self._vector(lo, hi)
        if not self.a:
            return x1, x2
        m = self._least_denominator(lo, hi, angle)
        size = abs(self.a)
        p1, p2 = (size * p for p in self._phase_factor(lo, hi))
        with np.errstate(divide="ignore", over="ignore"):
            first = x1 / m + x0 * p1 / m**2
            second = x2 / m + 2 * x1 * p1 / m**2 + x0 * (p2 / m**2 + 2 * p1**2 / m**3)
        return first, second

    def tail(self, omega: float) -> float:
        """Bound of ||G|| for all |w| >= omega."""
        lo = np.array([max(float(omega), 0.0)])
        hi = np.array([np.inf])
        if self._whole:
            value = self._repeats * self.N / np.hypot(lo, self.N)
        else:
            n = self.rows.astype(np.float64)
            w = np.maximum(lo, np.sqrt(n * (n + 1)))
            with np.errstate(invalid="ignore"):
                parts = np.sqrt(2 * n + 1) * np.where(n == 0, 1.0, w / np.hypot(w, n)) / np.hypot(w, n + 1)
            value = np.minimum(np.linalg.norm(parts), self._repeats * self.N / np.hypot(lo, self.N))
        if not self.a:
            return float(value[0])
        phase = float(np.angle(self.a))
        m = min(float(self._least_denominator(lo, hi, np.array([sign * phase]))[0]) for sign in (1, -1))
        return float(value[0]) / m if m > 0 else math.inf

    def transfer_function(self, poles: Array) -> TransferFunction:
        """As a `TransferFunction`, carrying bounds and, for a selection of outputs, tighter ones.

        Args:
            poles: (N,) poles of the family's member.
        """
        if self.a:
            resonances = poles.imag
        else:
            resonances = np.array([]) if self._whole else np.sqrt(self.rows * (self.rows + 1.0))
            resonances = np.concatenate([resonances, -resonances])

        def select(outputs: Array, inputs: Array) -> TransferFunction:
            if inputs.size != 1:
                raise InputError(f"inputs {inputs.tolist()}: the system has one, numbered 0")
            return LegsFamily(self.N, self.a, self.rows[outputs]).transfer_function(poles)

        return TransferFunction(
            self.evaluate,
            (self.rows.size, 1),
            poles=poles,
            resonances=resonances,
            slope=self.slope,
            curvature=self.curvature,
            tail=self.tail,
            select=select,
            stable=True,
        )


def legs_family(N: int, a: complex = 0.0, poles: Array | None = None, rows: int | None = None) -> TransferFunction:
    """Closed form of X(s) / (1 + a phi_N(s)), with slope, curvature and tail bounds.

    For a = 0 the transfer vector of HiPPO-LegS, for a = 1 that of S4D-LegS with the input B/2 (PTD, arXiv 2310.01698,
    Lemma 1, in this normalisation), for 0 < |a| < 1 that of HiPPO-rho.

    Args:
        N: number of states.
        a: complex number in the closed unit disc.
        poles: (N,); known for a = 0 and 1, else needed.
        rows: keep the first so many components; all N when None.

    Returns:
        A `TransferFunction` of shape (rows or N, 1).

    Raises:
        InputError: a outside the unit disc, missing poles, or sizes that cannot be.

    >>> legs_family(1024, 0)(0.0)[:2, 0].real.tolist()
    [1.0, 0.0]
    """
    size = hippo.check_size(N)
    if poles is None:
        if a == 0:
            poles = -np.arange(1.0, size + 1)
        elif a == 1:
            poles = -0.5 + 1j * hippo.phase_heights(size)
        else:
            raise InputError(f"a={a!r}: the poles must be given, unless a is 0 or 1")
    kept = None if rows is None else np.arange(hippo.check_size(rows, 1, "rows"))
    if kept is not None and kept.size > size:
        raise InputError(f"rows={rows}: must be at most N={size}")
    return LegsFamily(size, a, kept).transfer_function(np.asarray(poles, dtype=np.complex128))


class _Gap(LegsFamily):
    """The scalar a phi/(1 + a phi) x on the imaginary axis, x = X_n or the norm of the whole vector X."""

    def evaluate(self, s: Array, outputs: Array) -> Array:
        if self._one:
            x = hippo.transfer(self.N, s, self.rows)[:, 0]
        else:
            x = self.N / np.hypot(s.imag, self.N)
        value = self.a * hippo.phi(self.N, s) / hippo.one_plus_phi(self.N, s, self.a) * x
        return value[:, None, None]

    @property
    def _one(self) -> bool:
        return self.rows.size == 1 and self.N > 1

    def _vector(self, lo: Array, hi: Array) -> tuple[Array, Array, Array]:
        if self._one:
            return super()._vector(lo, hi)
        h = np.hypot(lo, self.N)
        return self.N / h, self.N * np.minimum(hi / h, 1) / h**2, 2 * self.N / h**3

    def _derivatives(self, a: Array, b: Array) -> tuple[Array, Array]:
        lo, hi, angle = self._fold(a, b)
        x0, x1, x2 = self._vector(lo, hi)
        m = self._least_denominator(lo, hi, angle)
        size = abs(self.a)
        p1, p2 = (size * p for p in self._phase_factor(lo, hi))
        f0 = size * hi / np.hypot(hi, self.N) / m
        f1 = p1 / m**2
        f2 = p2 / m**2 + 2 * p1**2 / m**3
        return f1 * x0 + f0 * x1, f2 * x0 + 2 * f1 * x1 + f0 * x2


def gap_norm(N: int, a: complex = 1.0, output: int | None = None, tol: float = 1e-6) -> HinfNorm:
    """sup over all real w of ||X(i w)/(1 + a phi) - X(i w)||, S4D (a = 1) or HiPPO-rho against LegS.

    The gap is a phi X/(1 + a phi), whose norm over all outputs is |a phi|/|1 + a phi| N/hypot(w, N): a number that
    costs O(1) in N, so that a two-sided bracket at N = 1024 takes a second where the difference of the two systems
    would evaluate vectors. For complex a both signs of w count: the system is not real.

    Args:
        N: number of states.
        a: complex number with 0 < |a| <= 1, not -1.
        output: one state n (C = e_n), or None for the worst unit C.
        tol: relative width of the bracket.

    Returns:
        The norm, its bracket and frequency; for |a| < 1 the upper end is at most 1/(2 (rho - 1)).

    Raises:
        InputError: a or an output that cannot be.

    >>> found = gap_norm(1024)
    >>> round(found.value, 3), round(found.omega, 3)
    (651.896, 333771.584)
    """
    size = hippo.check_size(N)
    if not 0 < abs(a) <= 1 or a == -1:
        raise InputError(f"a={a!r}: must satisfy 0 < |a| <= 1, and not be -1")
    if output is not None and not 0 <= output < size:
        raise InputError(f"output={output!r}: must be from 0 to {size - 1}, or None for the worst unit C")
    family = _Gap(size, a, np.arange(size) if output is None else np.array([output]))
    angle = float(np.angle(a))
    # the poles of |a| = 1 stand where the phase of a phi is an odd multiple of pi, near the peaks
    heights = math.copysign(1, angle) * hippo.phase_heights(size, min(abs(angle), 3.0), exact=False)
    scalar = TransferFunction(
        family.evaluate, (1, 1), resonances=heights, slope=family.slope, curvature=family.curvature, tail=family.tail,
        stable=True,
    )  # fmt: skip
    found = scalar.hinf_norm(tol=tol, max_points=5_000_000)
    if abs(a) == 1:
        return found
    ceiling = hippo_bound(1 / abs(a))
    return HinfNorm(
        found.value, found.lower, max(min(found.upper, ceiling), found.value), found.omega, method=found.method,
        points=found.points,
    )  # fmt: skip


def hippo_bound(rho: float, modes: float = 1.0) -> float:
    """max over w of |phi_M| ||X|| / (rho - |phi_M|), M = modes N: the deviation bound of HiPPO-rho, for every N.

    Args:
        rho: 1/|a|, above 1.
        modes: M/N, at least 1.

    Returns:
        The bound; at most 1/((1 + modes)(rho - 1)).

    Raises:
        InputError: rho not above 1, or modes below 1.
    """
    if not hippo.check_positive("rho", rho) > 1:
        raise InputError(f"rho={rho!r}: must be above 1; rho = 1 is S4D")
    if not 1 <= modes < math.inf:
        raise InputError(f"modes={modes!r}: must be a finite number of at least 1")

    # s = |phi_M| = w/hypot(w, M) and ||X|| = N/hypot(w, N); unimodal in s
    def value(s: float) -> float:
        return s * math.sqrt((1 - s * s) / (1 + (modes * modes - 1) * s * s)) / (rho - s)

    low, high, ratio = 0.0, 1.0, (math.sqrt(5) - 1) / 2
    for _ in range(120):
        x, y = high - ratio * (high - low), low + ratio * (high - low)
        if value(x) < value(y):
            low = x
        else:
            high = y
    return value((low + high) / 2)
