"""Sweeps: a grid of configurations, its results in blocks of Zarr chunks, and the processes that compute them.

`grid` reads a `[sweep]` table, `blocks` keeps what is computed, `engine` runs the work in this process or on Dask.
None of them knows what an experiment is: `ssmtheory.sweep_runner` brings the two together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ssmtheory.lazy import find

if TYPE_CHECKING:
    from ssmtheory.sweeps.blocks import BlockStore
    from ssmtheory.sweeps.engine import Died, Engine
    from ssmtheory.sweeps.grid import Axis, Grid

_HOME = {"Axis": "grid", "Grid": "grid", "BlockStore": "blocks", "Died": "engine", "Engine": "engine"}

__all__ = ["Axis", "BlockStore", "Died", "Engine", "Grid"]


def __getattr__(name: str) -> Any:
    return find(__name__, name, _HOME)
