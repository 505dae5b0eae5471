"""What the asymptotics share: softplus far out, argument checks, and an integration that always ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ssmtheory.errors import InputError

__all__ = ["Path", "finite", "gauss", "integrate", "log_softplus", "softplus"]


def softplus(w: Any) -> np.ndarray:
    """ln(1 + e^w), float64."""
    return np.logaddexp(0.0, w)


def log_softplus(w: Any) -> np.ndarray:
    """ln ln(1 + e^w), also where softplus itself is below the smallest float64."""
    w = np.asarray(w, np.float64)
    low = np.minimum(w, -30.0)
    return np.where(w < -30.0, low - 0.5 * np.exp(low), np.log(np.logaddexp(0.0, np.maximum(w, -30.0))))


def finite(**values: Any) -> tuple[np.ndarray, ...]:
    """The arguments as float64 arrays.

    Raises:
        InputError: one of them has NaN or infinite entries, or is no array of numbers; it is named.
    """
    found = []
    for name, value in values.items():
        try:
            array = np.asarray(value, np.float64)
        except (TypeError, ValueError):
            raise InputError(f"{name} must be a number or an array of numbers, not {value!r}") from None
        if not np.isfinite(array).all():
            bad = array[~np.isfinite(array)].ravel()[0]
            raise InputError(f"{name} has the entry {bad}; every entry must be finite")
        found.append(array)
    return tuple(found)


@cache
def gauss(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    return 0.5 * (nodes + 1.0), 0.5 * weights


@dataclass(frozen=True)
class Path:
    """What an integration came to.

    clock: (step,) the independent variable; y: (variable, step).
    status: "end" (of the interval), "event" (a terminal event), "budget" (as many calls as were allowed) or "stuck"
        (the solver gave up).
    calls: of the right-hand side.
    message: the solver's own words where it gave up.
    """

    clock: np.ndarray
    y: np.ndarray
    status: str
    calls: int
    message: str = ""


class _Spent(Exception):
    pass


def integrate(
    rhs: Callable[[float, np.ndarray], np.ndarray],
    start: Any,
    interval: tuple[float, float],
    *,
    method: str = "DOP853",
    budget: int = 50_000,
    rtol: float = 1e-11,
    atol: float = 1e-12,
    events: Any = None,
    save: Any = None,
    max_step: float = np.inf,
) -> Path:
    """Solve y' = rhs(clock, y) with scipy, with at most `budget` calls of the right-hand side.

    LSODA is not offered: past a blow-up it can call the right-hand side for ever. A budget that is spent is a status,
    never an exception and never a silent stop; what was reached is in the result.

    Args:
        rhs: the right-hand side.
        start: (variable,) initial values.
        interval: of the clock.
        method: "DOP853", "Radau" or "BDF".
        budget: most calls.
        rtol, atol, max_step: of the solver.
        events: as in `scipy.integrate.solve_ivp`.
        save: clock values to return; every step where None.

    Raises:
        InputError: an unknown method.
    """
    from scipy import integrate as scipy_integrate

    methods = ("DOP853", "Radau", "BDF")
    if method not in methods:
        raise InputError(f"method {method!r} is not one of {', '.join(methods)}")
    calls = 0
    seen: list[tuple[float, np.ndarray]] = []

    def counted(clock: float, y: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls > budget:
            seen.append((clock, np.array(y)))
            raise _Spent
        return rhs(clock, y)

    try:
        with np.errstate(over="ignore", invalid="ignore"):
            found = scipy_integrate.solve_ivp(
                counted, interval, np.asarray(start, np.float64), method=method, rtol=rtol, atol=atol, events=events,
                t_eval=save, max_step=max_step,
            )  # fmt: skip
    except _Spent:
        clock, y = seen[-1]
        return Path(np.array([clock]), y[:, None], "budget", budget, f"{budget} calls were not enough")
    status = {0: "end", 1: "event"}.get(found.status, "stuck")
    return Path(found.t, found.y, status, calls, "" if status != "stuck" else str(found.message))
