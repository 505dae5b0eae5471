"""Blow-up of one token in one dimension: x' = mu x^3 softplus(s x + b).

With mu > 0 and s x0 >= 0 the token reaches infinity at

    T* = int_{|x0|}^inf du / (mu u^3 softplus(|s| u + b)) = (1/(mu x0^2)) int_0^inf e^{-2y} / softplus(|s x0| e^y + b)
    dy,

the form with y = ln(u/|x0|) being what is integrated: a positive integrand that falls at least as e^{-2y}, so that the
part beyond y = 20 is below 5e-18 of the whole. With s x0 < 0 the step Delta falls as fast as the token grows, the
growth is logarithmic, and T* is infinite; with mu <= 0 nothing grows. Near T* the token goes as (3 mu |s| (T* -
t))^{-1/3}.

Bounds. softplus(w + b) lies between its tangent at 0, w + b where b >= 0, and softplus(b) + w:

    int_0^1 v^2 dv/(z + c v) < mu x0^2 T* < min{ int_0^1 v^2 dv/(m z + c v), 1/(2c), 1/(3z) where b >= 0 }

with z = |s x0|, c = softplus(b), m = 1/(1 + e^{-b}). At b = 0 the simple bound min{1/(2c), 1/(3z)} is up to 1.662
times T* (worst at z = (2/3) ln 2, where its two halves meet), the sharp pair 1.178 above and 1.282 below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from ssmtheory.dynamics.asymptotics._common import finite, gauss, log_softplus, softplus
from ssmtheory.errors import InputError

__all__ = ["BlowUp", "blow_up", "blow_up_bounds", "blow_up_time"]

_FAR = 20.0  # beyond y = 20 lies less than e^{-40} of the integral
_POINTS = 16
_PANELS = (10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120)


@dataclass(frozen=True)
class BlowUp:
    """Blow-up times with their errors.

    time: T*, infinite where there is no blow-up [depth].
    error: estimate of the absolute error of each finite time, 0 elsewhere [depth]: the change on the last halving of
        the panels, and rounding.
    """

    time: np.ndarray
    error: np.ndarray


def _log_integral(z: np.ndarray, b: np.ndarray, panels: int) -> np.ndarray:
    """ln int_0^20 e^{-2y} / softplus(z e^y + b) dy for 1-D z and b, by Gauss-Legendre on equal panels."""
    nodes, weights = gauss(_POINTS)
    width = _FAR / panels
    y = ((np.arange(panels)[:, None] + nodes) * width).ravel()
    log_weight = np.tile(np.log(weights * width), panels) - 2.0 * y
    growth = np.exp(y)
    found = np.empty(len(z))
    step = max(1, 4_000_000 // len(y))  # problems at once: 32 MB an array
    for i in range(0, len(z), step):
        part = slice(i, i + step)
        terms = log_weight - log_softplus(z[part, None] * growth + b[part, None])
        top = terms.max(axis=1, keepdims=True)
        found[part] = top[:, 0] + np.log(np.exp(terms - top).sum(axis=1))
    return found


def _together(mu: Any, s: Any, x0: Any, bias: Any) -> tuple[np.ndarray, ...]:
    values = finite(mu=mu, s=s, x0=x0, bias=bias)
    try:
        return tuple(np.array(v) for v in np.broadcast_arrays(*values))
    except ValueError:
        shapes = ", ".join(str(v.shape) for v in values)
        raise InputError(f"shapes of mu, s, x0 and bias do not broadcast: {shapes}") from None


def blow_up(mu: Any, s: Any, x0: Any, bias: Any = 0.0, *, tolerance: float = 1e-13) -> BlowUp:
    """Blow-up times of x' = mu x^3 softplus(s x + bias), x(0) = x0, with an error estimate for each.

    Args:
        mu: S_C^T S_B.
        s: S_Delta, of either sign.
        x0: initial token.
        bias: of softplus.
        tolerance: relative, at which the panels are no longer halved.

    Returns:
        Times and errors, in the common shape of the arguments. Infinite: mu <= 0, x0 = 0, or s x0 < 0 (growth as ln t).

    Raises:
        InputError: an argument is not finite, shapes do not broadcast, T* is beyond float64, or the error stays above
            the tolerance times 1000 (a bias below about -1e4).
    """
    m, slope, x, b = _together(mu, s, x0, bias)
    shape = m.shape
    m, slope, x, b = (v.ravel() for v in (m, slope, x, b))
    time, error = np.full(m.shape, np.inf), np.zeros(m.shape)
    open_ = np.flatnonzero((m > 0) & (x != 0) & (slope * x >= 0))
    z = np.abs(slope * x)
    log_scale = np.full(m.shape, np.nan)
    log_scale[open_] = -np.log(m[open_]) - 2.0 * np.log(np.abs(x[open_]))
    last = _log_integral(z[open_], b[open_], _PANELS[0])
    for panels in _PANELS[1:]:
        if not len(open_):
            break
        new = _log_integral(z[open_], b[open_], panels)
        with np.errstate(over="ignore"):
            value = np.exp(log_scale[open_] + new)
        change = np.abs(np.expm1(new - last))
        if not np.isfinite(value).all():
            raise InputError(
                "T* is beyond float64: mu, x0 or softplus(bias) is too small; rescale x by s and t by mu/s^2"
            )
        time[open_], error[open_] = value, value * (change + 1e-15)
        keep = change > tolerance
        open_, last = open_[keep], new[keep]
    if len(open_) and (error[open_] > 1000 * tolerance * time[open_]).any():
        worst = float((error[open_] / time[open_]).max())
        raise InputError(
            f"the quadrature for T* reached a relative error of {worst:.1e} only; bias is {b[open_].min()}"
        )
    return BlowUp(time.reshape(shape), error.reshape(shape))


@overload
def blow_up_time(mu: float, s: float, x0: float, bias: float = 0.0) -> float: ...
@overload
def blow_up_time(mu: Any, s: Any, x0: Any, bias: Any = 0.0) -> Any: ...
def blow_up_time(mu: Any, s: Any, x0: Any, bias: Any = 0.0) -> Any:
    """T*, the depth at which x' = mu x^3 softplus(s x + bias) reaches infinity, to a relative 1e-12.

    Args:
        mu, s, x0, bias: numbers or arrays that broadcast; see `blow_up`, which gives the error estimate too.

    Returns:
        T* [depth], a float for numbers; infinite where there is none.

    Raises:
        InputError: see `blow_up`.

    Vo et al., arXiv 2410.03292: blow-up in finite time for mu > 0; the value is this integral.

    >>> round(blow_up_time(mu=1.0, s=1.0, x0=1.0, bias=0.0), 12)
    0.282963287508
    >>> blow_up_time(mu=1.0, s=1.0, x0=-1.0)
    inf
    """
    found = blow_up(mu, s, x0, bias).time
    return float(found) if found.ndim == 0 else found


def _moment(r: np.ndarray) -> np.ndarray:
    """int_0^1 v^2/(1 + r v) dv for r >= 0."""
    small = r < 0.02
    safe = np.where(small, 1.0, r)
    # below r = 0.02 the closed form loses r^-3 of its digits; eight terms of the series leave 1e-15
    series = sum((-np.where(small, r, 0.0)) ** k / (k + 3) for k in range(9))
    return np.where(small, series, 0.5 / safe - 1.0 / safe**2 + np.log1p(safe) / safe**3)


def blow_up_bounds(mu: Any, s: Any, x0: Any, bias: Any = 0.0, *, sharp: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Closed-form bounds of T* from both sides (the module's formulas).

    Args:
        mu, s, x0, bias: as in `blow_up_time`.
        sharp: False leaves only the simple bound min{1/(2 mu softplus(b) x0^2), 1/(3 mu |s| |x0|^3)} from above, and 0
            from below.

    Returns:
        Lower and upper bound [depth]; both infinite where there is no blow-up.

    Raises:
        InputError: an argument is not finite, or shapes do not broadcast.

    >>> low, high = blow_up_bounds(1.0, 1.0, 1.0)
    >>> bool(low < 0.282963287508 < high)
    True
    """
    m, slope, x, b = _together(mu, s, x0, bias)
    none = ~((m > 0) & (x != 0) & (slope * x >= 0))
    z, c, tangent = np.abs(slope * x), softplus(b), 1.0 / (1.0 + np.exp(-b))
    scale = np.where(none, 1.0, m * x**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        upper = 0.5 / c
        upper = np.where((b >= 0) & (z > 0), np.minimum(upper, 1.0 / (3.0 * z)), upper)
        lower = np.zeros_like(upper)
        if sharp:
            flat = z == 0
            lower = np.where(flat, 0.5 / c, _moment(c / np.where(flat, 1.0, z)) / np.where(flat, 1.0, z))
            slanted = tangent * np.where(flat, 1.0, z)
            upper = np.minimum(upper, np.where(flat, 0.5 / c, _moment(c / slanted) / slanted))
    return np.where(none, math.inf, lower / scale), np.where(none, math.inf, upper / scale)
