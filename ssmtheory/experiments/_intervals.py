"""Numbers with an interval: how a schema declares them, and how a verdict says them."""

from __future__ import annotations

import math
from typing import Any

from ssmtheory.results.schema import Variable

__all__ = ["measured", "said"]

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
