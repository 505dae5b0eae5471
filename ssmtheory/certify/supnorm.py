"""Two-sided suprema over all real frequencies: the S4D gap, its spikes, HiPPO-rho's deviation from LegS.

With r = |phi| = omega/sqrt(omega^2+N^2), psi = arg phi (strictly falling), a = |a| e^{i gamma}, and
0 < |a| < 1 or a = 1,

    gap(omega)^2 = T(omega) / D(omega),   D = |1 + a phi|^2 = (1 - |a| r)^2 + 4 |a| r cos^2((psi + gamma)/2),
    T = |a|^2 r^2 w^2,   w^2 = ||X||^2 = N^2/(omega^2+N^2) for the worst unit C, |X_n|^2 for output n;

a = 1 is S4D (X_Diag = X/(1+phi), arXiv 2310.01698, Lemma 1, in this normalisation), a = 1/rho etc. HiPPO-rho.

Lower bound: one evaluation in balls. Upper bound U: three analytic pieces and a search.

* envelope |1 + a phi| >= 1 - |a| r. For a = 1 it gives gap <= h = w omega (omega + sqrt(omega^2+N^2))/N^2, and h
  increases in omega for the worst C (w omega = N omega/sqrt(omega^2+N^2)) and for every output n (w omega =
  sqrt(2n+1) omega^2/((omega^2+n^2)(omega^2+(n+1)^2))^(1/2)). So h(omega_a) <= U settles (0, omega_a] in one step,
  all spikes but the last included. For |a| < 1 a low and a high frequency follow from w r <= omega/N and <= N/omega.
* tail, a = 1: from psi <= pi/2 on, |1 + phi| >= 1.
* between: intervals. psi, psi' and the sums in psi'' are monotone, so their ranges over an interval are exact. F = D/T
  is bounded below by its range or by F(c) + F'(c) t + min F'' t^2/2; where neither proves F >= 1/U^2, the interval is
  halved.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from ssmtheory.certify.balls import (
    above,
    ball,
    below,
    bisect,
    complex_ball,
    exact,
    exact_complex,
    flint,
    working,
)
from ssmtheory.certify.certificate import Certificate, issue
from ssmtheory.certify.definition import check_definition, checked_index, checked_order
from ssmtheory.errors import InputError

__all__ = ["CHECKS", "axis_phase", "checked_a", "hippo_rho_deviation", "maximise", "s4d_gap", "s4d_spike"]

#: intervals that one search may visit before it gives up
MAX_INTERVALS = 200_000
#: extra bits where a phase is evaluated at a decimal
GUARD = 64


def axis_phase(N: int, omega: Any) -> tuple[Any, Any, Any]:
    """psi = arg phi(i omega), its derivative, and the sum in its second derivative.

    Args:
        N: state dimension.
        omega: positive arb [rad/s].

    Returns:
        (psi, psi', S) with psi'' = 2 omega S; psi and S fall in omega, psi' rises.
    """
    module = flint()
    # sum_{0<k<N} arctan(omega/k) = Im log Gamma(N + i omega) - Im log Gamma(1 + i omega): the cost does not depend on N
    top = module.acb_series([module.acb(N, omega), module.acb(0, 1)], 3).lgamma()
    bottom = module.acb_series([module.acb(1, omega), module.acb(0, 1)], 3).lgamma()
    value, slope, half_curve = (top[j].imag - bottom[j].imag for j in range(3))
    part = N / (omega * omega + N * N)
    psi = (N - 1) * module.arb.pi() - 2 * value + (N / omega).atan()
    return psi, -(2 * slope + part), -2 * half_curve / omega + part * part / N


@dataclasses.dataclass
class _Gap:
    """The gap on the imaginary axis, omega > 0, for one sign of gamma."""

    N: int
    output: int | None
    size: Any
    gamma: Any

    def __post_init__(self) -> None:
        self._phases: dict[Fraction, tuple[Any, Any, Any]] = {}

    def phase(self, omega: Fraction) -> tuple[Any, Any, Any]:
        if omega not in self._phases:
            self._phases[omega] = axis_phase(self.N, ball(omega))
        return self._phases[omega]

    def _series(self, omega: Any, phase: tuple[Any, Any, Any]) -> Any:
        """F = 1/gap^2 to second order in t at omega (+) [an interval's] phase data."""
        module = flint()
        N2 = self.N * self.N
        x = module.arb_series([omega, 1], 3)
        s = x * x
        q = s + N2
        # 1 - |a| r as ((1 - |a|) + |a| N^2 / (q + x sqrt q)): no cancellation
        root = _series_sqrt(q)
        r = x / root
        gap_to_one = (1 - self.size) + self.size * N2 / (q + x * root)
        half = module.arb_series([(phase[0] + self.gamma) / 2, phase[1] / 2, omega * phase[2] / 2], 3)
        cosine = half.cos()
        D = gap_to_one * gap_to_one + 4 * self.size * r * cosine * cosine
        v = 1 / x
        v = v * v
        if self.output is None:
            inverse = q * q * v / N2
        elif self.output == 0:
            inverse = q * (1 + v)
        else:
            n = self.output
            inverse = q * (1 + n * n * v) * (1 + (n + 1) ** 2 * v) / (2 * n + 1)
        return D * inverse / (self.size * self.size)

    def squared(self, omega: Fraction) -> Any:
        """gap^2 at a rational frequency, as a ball."""
        return 1 / self._series(ball(omega), self.phase(omega))[0]

    def stays_below(self, low: Fraction, high: Fraction, least: Any) -> bool:
        """Whether F >= least is certain on [low, high]."""
        a, b = self.phase(low), self.phase(high)
        # psi and S fall, psi' rises: the union of the end values is the exact range
        hull = (a[0].union(b[0]), a[1].union(b[1]), a[2].union(b[2]))
        whole = self._series(ball(low).union(ball(high)), hull)
        if whole[0] >= least:
            return True
        middle, t = (low + high) / 2, ball((high - low) / 2)
        at = self._series(ball(middle), self.phase(middle))
        curvature = whole[2].lower()  # F''/2
        if curvature > 0:
            return bool(at[0] - at[1] * at[1] / (4 * curvature) >= least or at[0] - abs(at[1]) * t >= least)
        return bool(at[0] - abs(at[1]) * t + curvature * t * t >= least)

    def envelope_squared(self, omega: Any) -> Any:
        """T/(1-|a| r)^2, an upper bound of gap^2 at a frequency."""
        module = flint()
        N2 = self.N * self.N
        s = omega * omega
        q = s + N2
        gap_to_one = (1 - self.size) + self.size * N2 / (q + omega * q.sqrt())
        if self.output is None:
            T = s * N2 / (q * q)
        elif self.output == 0:
            T = s / (q * (s + 1))
        else:
            n = self.output
            T = s * s * (2 * n + 1) / (q * (s + n * n) * (s + (n + 1) ** 2))
        return module.arb(T) * self.size * self.size / (gap_to_one * gap_to_one)


def _series_sqrt(x: Any) -> Any:
    """Square root of a series of order 3 with a positive constant term."""
    module = flint()
    coefficients = x.coeffs() + [module.arb(0)] * 3
    root = coefficients[0].sqrt()
    first = coefficients[1] / (2 * root)
    return module.arb_series([root, first, (coefficients[2] - first * first) / (2 * root)], 3)


def _search(gap: _Gap, low: Fraction, high: Fraction, least: Any) -> bool:
    """Whether F >= least on [low, high]: intervals graded by octaves, halved where undecided."""
    pending = []
    edge = low
    while edge < high:
        following = min(high, edge * Fraction(3, 2))
        pending.append((edge, following))
        edge = following
    visited = 0
    while pending:
        a, b = pending.pop()
        visited += 1
        if visited > MAX_INTERVALS:
            return False
        if gap.stays_below(a, b, least):
            continue
        middle = _short((a + b) / 2)
        if not a < middle < b or gap._series(ball(middle), gap.phase(middle))[0] < least:
            return False
        pending += [(middle, b), (a, middle)]
    return True


def _short(x: Fraction) -> Fraction:
    """A nearby rational with few bits: end points of intervals may be any numbers, so short ones are taken."""
    scale = max(0, 96 - (x.numerator.bit_length() - x.denominator.bit_length()))
    return Fraction(round(x * 2**scale), 2**scale)


def _s4d_below(N: int, output: int | None, bound: Fraction) -> bool:
    """Whether the S4D gap is at most `bound` at every real frequency."""
    module = flint()
    gap = _Gap(N, output, module.arb(1), module.arb(0))
    upper = ball(bound)
    square = upper * upper
    start = None
    proposal = bisect(lambda w: _float_envelope(N, output, w) < float(bound), 0.0, 4.0 * N * N + 4)
    for power in (50, 44, 36, 28, 20, 10, 4):
        candidate = Fraction(proposal) * (1 - Fraction(1, 2**power))
        if candidate > 0 and gap.envelope_squared(ball(candidate)) <= square:
            start = candidate
            break
    if start is None:
        return False
    # the tail: |1 + phi| >= 1 once psi <= pi/2, and w r <= N/omega (worst), <= sqrt(2n+1)/omega (output n)
    scale = module.arb(N) if output is None else module.arb(2 * output + 1).sqrt()
    end = _short(max(start + 1, Fraction(math.ceil(2 * N * N / math.pi))))
    while not (gap.phase(end)[0] <= module.arb.pi() / 2 and scale <= upper * ball(end)):
        end *= 2
        if end > 2**40 * N * N:
            return False
    return _search(gap, start, end, 1 / square)


def _float_envelope(N: int, output: int | None, w: float) -> float:
    if w <= 0:
        return 0.0
    h = math.hypot(w, N)
    r = w / h
    size = (
        N / h if output is None else math.sqrt(2 * output + 1) * w / (math.hypot(w, output) * math.hypot(w, output + 1))
    )
    return size * r * h * (h + w) / N**2


def _float_phase(N: int, omega: np.ndarray) -> np.ndarray:
    """arg phi at positive frequencies in floats: by log Gamma for many points, by its (sharper) sum for few."""
    if omega.size <= 64:
        return 2 * sum((np.arctan2(k, omega) for k in range(1, N)), np.zeros_like(omega)) + np.arctan2(N, omega)
    from scipy.special import loggamma

    lag = np.imag(loggamma(N + 1j * omega) - loggamma(1 + 1j * omega))
    return (N - 1) * np.pi - 2 * lag + np.arctan2(N, omega)


def _float_gap(N: int, output: int | None, a: complex, omega: np.ndarray) -> np.ndarray:
    """The gap in floats at signed frequencies; a proposal only."""
    w = np.abs(omega)
    h = np.hypot(w, N)
    r = w / h
    psi = np.sign(omega) * _float_phase(N, w)
    size = abs(a)
    if output is None:
        weight = N / h
    else:
        weight = np.sqrt(2 * output + 1) * w / (np.hypot(w, output) * np.hypot(w, output + 1))
    to_one = (1 - size) + size * N**2 / (h * (h + w))
    D = to_one**2 + 4 * size * r * np.cos((psi + np.angle(a)) / 2) ** 2
    return size * r * weight / np.sqrt(D)


def maximise(function: Callable[[np.ndarray], np.ndarray], grid: np.ndarray, candidates: int = 16) -> float:
    """Where a function is largest: the highest local maxima of a grid, each zoomed in; a proposal only.

    Args:
        function: vectorised, real.
        grid: increasing points.
        candidates: how many local maxima are followed, as neighbouring spikes differ by little.

    Returns:
        The best point found.
    """
    # two points that nearly coincide would leave a peak no room on one side
    grid = grid[np.concatenate([[True], np.diff(grid) > 1e-9 * np.abs(grid[1:])])]
    values = function(grid)
    padded = np.concatenate([[-np.inf], values, [-np.inf]])
    peaks = np.flatnonzero((values >= padded[:-2]) & (values >= padded[2:]))
    best, where = -np.inf, float(grid[0])
    for peak in peaks[np.argsort(values[peaks])[::-1][:candidates]]:
        low, high = grid[max(peak - 1, 0)], grid[min(peak + 1, len(grid) - 1)]
        for _ in range(10):
            fine = np.linspace(low, high, 41)
            heights = function(fine)
            at = int(np.argmax(heights))
            low, high = fine[max(at - 1, 0)], fine[min(at + 1, 40)]
        if heights[at] > best:
            best, where = float(heights[at]), float(fine[at])
    return where


def _checked_output(output: Any, N: int) -> int | None:
    if output == "worst":
        return None
    if isinstance(output, str):
        raise InputError(f"output is {output!r}: give 'worst' or a whole number from 0 to {N - 1}")
    return checked_index(output, N, "output")


def _checked_tolerance(tolerance: float) -> Fraction:
    value = exact(tolerance)
    if not 0 < value < 1:
        raise InputError(f"tolerance is {tolerance!r}: give a relative width between 0 and 1, 1e-12 say")
    return value


def _named(output: int | None) -> str:
    return "the worst unit C" if output is None else f"C = e_{output}"


def s4d_gap(N: int, output: int | str = 0, *, tolerance: float = 1e-12, precision: int = 128) -> Certificate:
    """Enclose sup over all real omega of |G_LegS(i omega) - G_S4D(i omega)|, S4D with B/2.

    The limit is 2 sqrt(2n+1)/pi for C = e_n and 2N/pi for the worst unit C: S4D does not converge to LegS uniformly
    (arXiv 2310.01698, Theorem 2; here with the exact constant).

    Args:
        N: state dimension, from 2.
        output: n for C = e_n (LegS's basis), or "worst" for the supremum over all unit C.
        tolerance: relative width of the bracket.
        precision: working precision [bit].

    Returns:
        Two-sided certificate; the frequency of the lower bound is `witness["omega"]` [rad/s].

    Raises:
        InputError: a value out of range.
        CertificationError: not proved with this precision and effort.

    >>> s4d_gap(32).value
    0.63712726...
    """
    N = checked_order(N, 2)
    which = _checked_output(output, N)
    slack = _checked_tolerance(tolerance)
    top = N * N / math.pi - math.pi / 6
    grid = np.concatenate([np.geomspace(1e-2, 4 * N * N, 400), top + np.linspace(-2, 2, 81)])
    omega = maximise(lambda w: _float_gap(N, which, 1.0, w), np.sort(grid[grid > 0]), 2)
    with working(precision) as module:
        value = _Gap(N, which, module.arb(1), module.arb(0)).squared(Fraction(omega)).sqrt()
        lower, upper = below(value), above(value * (1 + ball(slack)))
    return issue(
        Certificate(
            kind="s4d_gap",
            statement=f"sup over real omega of |G_LegS - G_S4D|, N = {N}, {_named(which)}",
            parameters={"N": N, "output": output},
            lower=lower,
            upper=upper,
            precision_bits=precision,
            method="envelope below the last spike, monotone phase and second-order intervals beyond, analytic tail",
            witness={"omega": omega},
        )
    )


def _check_s4d_gap(parameters: dict, witness: dict, low: Fraction | None, high: Fraction | None) -> bool:
    N = checked_order(parameters["N"], 2)
    output = _checked_output(parameters["output"], N)
    check_definition(N)
    module = flint()
    if low is not None:
        value = _Gap(N, output, module.arb(1), module.arb(0)).squared(_positive(witness["omega"]))
        if not (low <= 0 or value.sqrt() >= ball(low)):
            return False
    return high is None or (high > 0 and _s4d_below(N, output, high))


def _positive(omega: Any) -> Fraction:
    value = exact(omega)
    if value <= 0:
        raise InputError(f"omega is {omega!r}: give a positive frequency")
    return value


def s4d_spike(N: int, m: int = 0, *, precision: int = 128) -> Certificate:
    """Enclose the frequency of S4D's m-th spike from the top: arg phi(i omega) = (2m+1) pi.

    Args:
        N: state dimension, from 2.
        m: 0 for the last spike, up to N//2 - 1: psi falls from (2N-1) pi/2.
        precision: working precision [bit].

    Returns:
        Two-sided certificate of the frequency [rad/s]. There the gap for the worst unit C is cos(al) cot(al/2) with
        tan(al) = N/omega.

    Raises:
        InputError: a value out of range.
        CertificationError: not proved at this precision.
    """
    N = checked_order(N, 2)
    m = checked_index(m, N // 2, "m")
    with working(precision + GUARD) as module:
        target = (2 * m + 1) * module.arb.pi()
        start = bisect(lambda w: float(axis_phase(N, module.arb(w))[0]) > float(target), 1e-6, float(N * N), 60)
        omega = module.arb(start)
        for _ in range(2 + precision.bit_length()):
            psi, slope, _ = axis_phase(N, omega)
            omega = (omega - (psi - target) / slope).mid()
        slack = omega * module.arb(2) ** (8 - precision)
        digits = max(6, int(precision * math.log10(2)))
        lower, upper = below(omega - slack, digits), above(omega + slack, digits)
    return issue(
        Certificate(
            kind="s4d_spike",
            statement=f"frequency of spike {m} from the top of S4D-LegS at N = {N} [rad/s]",
            parameters={"N": N, "m": m},
            lower=lower,
            upper=upper,
            precision_bits=precision,
            method="signs of the strictly falling phase arg phi(i omega) - (2m+1) pi at both ends",
        )
    )


def _check_s4d_spike(parameters: dict, witness: dict, low: Fraction | None, high: Fraction | None) -> bool:
    N = checked_order(parameters["N"], 2)
    m = checked_index(parameters["m"], N - 1, "m")
    check_definition(N)
    # the decimals' own radius, times the size of log Gamma, must not blur the phase
    with working(flint().ctx.prec + GUARD) as module:
        target = (2 * m + 1) * module.arb.pi()
        if low is not None and low > 0 and not axis_phase(N, ball(low))[0] >= target:
            return False
        return high is None or (high > 0 and bool(axis_phase(N, ball(high))[0] <= target))


def checked_a(a: Any) -> tuple[Fraction, Fraction]:
    """The parameter a of HiPPO-rho as exact rationals.

    Args:
        a: see `balls.exact_complex`; 0 < |a| < 1.

    Returns:
        (real, imaginary) part.

    Raises:
        InputError: |a| is 0, or not below 1.
    """
    real, imag = exact_complex(a)
    if not 0 < real * real + imag * imag < 1:
        raise InputError(f"a is {a!r}: give 0 < |a| < 1, that is rho = 1/|a| > 1; a = 1 is S4D (s4d_gap), 0 is LegS")
    return real, imag


def stored_a(a: tuple[Fraction, Fraction]) -> list[str]:
    """The parameter a as a certificate stores it."""
    return [str(a[0]), str(a[1])]


def shown_a(a: tuple[Fraction, Fraction]) -> str:
    """The parameter a for reading."""
    real, imag = (str(part) for part in a)
    return real if a[1] == 0 else f"{imag} i" if a[0] == 0 else f"{real} + {imag} i"


def _hippo_rho_gaps(N: int, output: int | None, a: tuple[Fraction, Fraction]) -> list[_Gap]:
    """One gap per sign of omega; for a real a the two are equal."""
    module = flint()
    z = complex_ball(a)
    size = abs(z)
    if a[1] == 0:
        return [_Gap(N, output, size, module.arb(0) if a[0] > 0 else module.arb.pi())]
    gamma = module.arb.atan2(ball(a[1]), ball(a[0]))
    return [_Gap(N, output, size, gamma), _Gap(N, output, size, -gamma)]


def hippo_rho_deviation(
    N: int, a: Any, output: int | str = "worst", *, tolerance: float = 1e-12, precision: int = 128
) -> Certificate:
    """Enclose sup over all real omega of |X_a - X| for HiPPO-rho, whose states are X_a = X/(1 + a phi).

    Compare with the bounds of theory item Thm 5: 1/(2(rho-1)) for the worst unit C at every N, and 1/((rho-1)(N+1))
    for C = e_0.

    Args:
        N: state dimension.
        a: 0 < |a| < 1, rho = 1/|a|: text such as "1/11", a pair ("0", "1/11") for i/11, or a number.
        output: "worst" for the supremum over all unit C, or n for C = e_n.
        tolerance: relative width of the bracket.
        precision: working precision [bit].

    Returns:
        Two-sided certificate; the signed frequency of the lower bound is `witness["omega"]` [rad/s].

    Raises:
        InputError: a value out of range.
        CertificationError: not proved with this precision and effort.

    >>> hippo_rho_deviation(64, ("0", "1/11")).value < 1 / (2 * (11 - 1))
    True
    """
    N = checked_order(N)
    which = _checked_output(output, N)
    pair = checked_a(a)
    slack = _checked_tolerance(tolerance)
    a_float = complex(float(pair[0]), float(pair[1]))
    size = abs(a_float)
    grid = np.geomspace(1e-2, 40 * N / (1 - size) ** 0.5, 24 * N + 800)
    # at |a| near 1 the peaks are narrow and sit at arg(a phi) = odd pi
    if N > 1:
        grid = np.concatenate(
            [grid, _float_spikes(N, np.angle(a_float), grid), _float_spikes(N, -np.angle(a_float), grid)]
        )
    grid = np.sort(grid)
    signed = grid if pair[1] == 0 else np.concatenate([-grid[::-1], grid])
    omega = maximise(lambda w: _float_gap(N, which, a_float, w), signed)
    with working(precision):
        gaps = _hippo_rho_gaps(N, which, pair)
        value = gaps[0 if omega > 0 else -1].squared(Fraction(abs(omega))).sqrt()
        lower, upper = below(value), above(value * (1 + ball(slack)))
    return issue(
        Certificate(
            kind="hippo_rho_deviation",
            statement=f"sup over real omega of |X_a - X|, HiPPO-rho, N = {N}, a = {shown_a(pair)}, {_named(which)}",
            parameters={"N": N, "a": stored_a(pair), "output": output},
            lower=lower,
            upper=upper,
            precision_bits=precision,
            method="monotone phase and second-order intervals on a band, both signs of omega, analytic at both ends",
            witness={"omega": omega},
        )
    )


def _float_spikes(N: int, gamma: float, grid: np.ndarray) -> np.ndarray:
    """Frequencies where arg(a phi) is an odd multiple of pi, by interpolation; a proposal only."""
    psi = _float_phase(N, grid) + gamma
    levels = np.pi * np.arange(-1, 2 * N + 2, 2)
    levels = levels[(levels > psi[-1]) & (levels < psi[0])]
    return np.interp(levels, psi[::-1], grid[::-1])


def _check_hippo_rho_deviation(parameters: dict, witness: dict, low: Fraction | None, high: Fraction | None) -> bool:
    N = checked_order(parameters["N"])
    output = _checked_output(parameters["output"], N)
    pair = checked_a(parameters["a"])
    check_definition(N)
    module = flint()
    gaps = _hippo_rho_gaps(N, output, pair)
    if low is not None:
        omega = exact(witness["omega"])
        value = gaps[0 if omega > 0 else -1].squared(_positive(abs(omega)))
        if not (low <= 0 or value.sqrt() >= ball(low)):
            return False
    if high is None:
        return True
    if high <= 0:
        return False
    # |a|/(1-|a|) w r with w r <= c omega and <= d/omega settles both ends
    size = gaps[0].size
    factor = size / (1 - size)
    if output is None:
        rise, fall = module.arb(1) / N, module.arb(N)
    else:
        fall = module.arb(2 * output + 1).sqrt()
        rise = fall / (N * (output + 1))
    start = _short(_rational((ball(high) / (factor * rise)).lower()) * Fraction(2**20 - 1, 2**20))
    end = _short(_rational((factor * fall / ball(high)).upper()) * Fraction(2**20 + 1, 2**20))
    if not (start > 0 and factor * rise * ball(start) <= ball(high) and factor * fall <= ball(high) * ball(end)):
        return False
    least = 1 / (ball(high) * ball(high))
    return start >= end or all(_search(gap, start, end, least) for gap in gaps)


def _rational(x: Any) -> Fraction:
    man, exp = (int(part) for part in x.man_exp())
    return Fraction(man) * Fraction(2) ** exp


CHECKS = {
    "hippo_rho_deviation": _check_hippo_rho_deviation,
    "s4d_gap": _check_s4d_gap,
    "s4d_spike": _check_s4d_spike,
}
