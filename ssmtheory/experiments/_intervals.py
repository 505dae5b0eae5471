"""Numbers with an interval: how a schema declares them and a verdict says them; and the paired test over seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.results.schema import Variable

__all__ = ["PairedTest", "holm", "measured", "paired_test", "said"]

_ENDS = {"low": "lower end of its 95 % bootstrap interval", "high": "upper end of its 95 % bootstrap interval"}


def measured(name: str, dims: tuple[str, ...], units: str, long_name: str) -> dict[str, Variable]:
    """Declare a float64 number `name`, and its interval's ends `name`_low and `name`_high."""
    ends = {f"{name}_{end}": Variable(dims, "float64", units, f"{words}: {long_name}") for end, words in _ENDS.items()}
    return {name: Variable(dims, "float64", units, long_name), **ends}


def said(data: Any, name: str, form: str = ".3f", **at: Any) -> str:
    """Say one number of a dataset with its interval, "0.123 [0.100, 0.150]"; without one where that is NaN.

    Args:
        data: an xarray Dataset with `name`, `name`_low and `name`_high.
        form: format of each number.
        at: dimension to index.
    """
    value, low, high = (float(data[n].isel(at)) for n in (name, f"{name}_low", f"{name}_high"))
    return f"{value:{form}} [{low:{form}}, {high:{form}}]" if math.isfinite(low) else f"{value:{form}}"


@dataclass(frozen=True)
class PairedTest:
    """Mean difference, its 95 % bootstrap interval over seeds, and the two-sided p-value of the sign-flip test."""

    mean: float
    low: float
    high: float
    p: float


def paired_test(differences: np.ndarray) -> PairedTest:
    """Test whether paired differences are centred at 0: all 2^k flips of their signs, two-sided, of the mean.

    Args:
        differences: (k,) one per seed, k at most 20.

    Raises:
        InputError: no differences, or too many to enumerate.

    >>> paired_test(np.array([1.0, 2.0, 1.5, 1.0])).p         # the smallest possible: 2^(1-4)
    0.125
    """
    from ssmtheory.dynamics.concordance import bootstrap_counts, mean_interval

    values = np.asarray(differences, np.float64)
    k = len(values)
    if values.ndim != 1 or not 1 <= k <= 20:
        raise InputError(f"a sign-flip test takes 1 to 20 differences, not an array of shape {values.shape}")
    signs = 1.0 - 2.0 * ((np.arange(2**k)[:, None] >> np.arange(k)) & 1)
    means = np.abs(signs @ values) / k
    # a flip that restores the mean itself may come out a rounding below it
    p = float(np.mean(means >= abs(values.mean()) - 1e-12 * np.abs(values).max()))
    low, high = mean_interval(values[:, None], bootstrap_counts(k, 2000, 0))
    return PairedTest(float(values.mean()), float(low[0]), float(high[0]), p)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction of p-values.

    >>> holm(np.array([0.01, 0.04, 0.02]))
    array([0.03, 0.04, 0.04])
    """
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    out = np.empty(len(p))
    out[order] = np.minimum(stepped, 1.0)
    return out
