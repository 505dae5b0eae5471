"""Data for Bode and Nyquist plots; nothing here draws.

Frequencies are chosen so that no resonance is missed: a log-spaced grid, joined by points clustered around each
resonance at the scale of its own width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.lti.base import LTI
from ssmtheory.typing import Array

__all__ = ["BodeData", "NyquistData", "bode", "frequency_grid", "nyquist"]


@dataclass(frozen=True)
class BodeData:
    """Gain and phase over frequency.

    Attributes:
        omega: (k,) angular frequencies in rad/s, increasing.
        response: (k, p, m) complex128.
        gain: (k, p, m) modulus.
        phase: (k, p, m) argument in rad, continuous along omega.
        largest: (k,) largest singular value.
    """

    omega: Array
    response: Array
    gain: Array
    phase: Array
    largest: Array


@dataclass(frozen=True)
class NyquistData:
    """The curve G(i omega), or G(exp(i omega dt)), over increasing frequency.

    Attributes:
        omega: (k,) angular frequencies in rad/s, negative ones first.
        response: (k, p, m) complex128.
    """

    omega: Array
    response: Array


def frequency_grid(
    system: LTI, low: float | None = None, high: float | None = None, points: int = 400, symmetric: bool = False
) -> Array:
    """Angular frequencies that show a system, each resonance included.

    Args:
        system: any system.
        low: smallest frequency in rad/s; None for a tenth of the slowest pole.
        high: largest frequency in rad/s; None for ten times the fastest pole, or the Nyquist frequency pi / dt.
        points: number of log-spaced points, to which those around resonances are added.
        symmetric: whether to include negative frequencies and 0.

    Returns:
        (k,) float64, increasing.

    Raises:
        InputError: limits that are not positive and increasing, or fewer than 2 points.
    """
    closed = system.transfer
    centre = closed.resonances
    if closed._poles is not None and closed._poles.size:
        poles = (
            closed._poles
            if system.dt is None
            else np.log(np.where(closed._poles == 0, 1e-300, closed._poles)) / system.dt
        )
        widths, moduli = np.maximum(np.abs(poles.real), 1e-12), np.maximum(np.abs(poles), 1e-12)
    else:
        widths, moduli = (
            np.full(max(centre.size, 1), 0.5),
            np.maximum(np.abs(centre), 1.0) if centre.size else np.ones(1),
        )
    width = float(np.median(widths))
    low = 0.1 * float(moduli.min()) if low is None else float(low)
    if high is None:
        high = 10 * float(moduli.max()) if system.dt is None else math.pi / system.dt
        low = min(low, high / 10)
    if not 0 < low < high < math.inf or points < 2:
        raise InputError(f"low={low!r}, high={high!r}, points={points!r}: must be 0 < low < high, points >= 2")
    around = np.concatenate([[0.0], np.geomspace(1e-2, 1e2, 13)]) * width
    near = (centre[:, None] + np.concatenate([-around[:0:-1], around])).reshape(-1)
    grid = np.concatenate([np.geomspace(low, high, points), np.abs(near) if not symmetric else near])
    if symmetric:
        grid = np.concatenate([grid, -np.geomspace(low, high, points), [0.0]])
        return np.unique(grid[np.abs(grid) <= high])
    return np.unique(grid[(grid >= low) & (grid <= high)])


def bode(system: LTI, omega: Any = None) -> BodeData:
    """Bode data.

    Args:
        system: any system.
        omega: (k,) increasing angular frequencies in rad/s; None for `frequency_grid`.

    Returns:
        `BodeData`.

    Raises:
        InputError: frequencies that are not increasing.
    """
    omega = frequency_grid(system) if omega is None else np.asarray(omega, dtype=np.float64)
    if omega.ndim != 1 or omega.size < 1 or (np.diff(omega) <= 0).any():
        raise InputError(f"omega has shape {omega.shape}: must be (k,), strictly increasing")
    response = system.frequency_response(omega)
    largest = np.linalg.norm(response, 2, axis=(1, 2))
    return BodeData(omega, response, np.abs(response), np.unwrap(np.angle(response), axis=0), largest)


def nyquist(system: LTI, omega: Any = None) -> NyquistData:
    """Nyquist data: the curve over negative and positive frequencies, which are no mirror images for a complex system.

    Args:
        system: any system.
        omega: (k,) increasing angular frequencies in rad/s; None for a symmetric `frequency_grid`.

    Returns:
        `NyquistData`.
    """
    omega = frequency_grid(system, symmetric=True) if omega is None else np.asarray(omega, dtype=np.float64)
    return NyquistData(omega, system.frequency_response(omega))
