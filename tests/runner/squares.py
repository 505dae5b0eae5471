"""A tiny experiment: squares of drawn numbers, one task per row. It is driven by the tests through its module path."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ssmtheory.errors import ConfigError
from ssmtheory.experiments import base
from ssmtheory.experiments.base import Plan
from ssmtheory.results.schema import DatasetSchema, Dimension, Variable

TITLE = "Squares of drawn numbers"

SCHEMA = DatasetSchema(
    "squares",
    1,
    groups={
        "rows": {
            "drawn": Variable(("sequence", "token"), "float64", "1", "drawn numbers"),
            "square": Variable(("sequence", "token"), "float32", "1", "their squares"),
            "root": Variable(("sequence",), "complex128", "1", "root of minus the sum"),
            "name": Variable(("sequence",), "str", "1", "name of the row"),
        },
        "all": {"total": Variable((), "float64", "1", "sum of all squares")},
    },
    dimensions={"column": Dimension("column")},
)


@dataclass(frozen=True)
class Config:
    rows: int = field(default=3, metadata={"help": "rows, each a task"})
    length: int = field(default=4, metadata={"help": "numbers per row"})
    scale: float = field(default=1.0, metadata={"help": "standard deviation"})
    kind: Literal["normal", "uniform"] = field(default="normal", metadata={"help": "law of the numbers"})
    columns: tuple[int, ...] | None = field(default=None, metadata={"help": "columns to keep, all by default"})
    absolute: bool = field(default=False, metadata={"help": "take absolute values"})
    label: str = field(default="row", metadata={"help": "name of a row"})
    seed: int = field(default=0, metadata={"help": "random seed"})

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ConfigError(f"--rows {self.rows}: at least 1")


def plan(config: Config) -> Plan:
    columns = list(config.columns if config.columns is not None else range(config.length))
    return Plan(
        resolved={
            "rows": config.rows,
            "length": config.length,
            "scale": config.scale,
            "kind": config.kind,
            "columns": columns,
            "absolute": config.absolute,
            "label": config.label,
            "seed": config.seed,
            "dtype": "float64",
        },
        tasks=[f"row {i}" for i in range(config.rows)],
        describe={"numbers": f"{config.length} a row"},
        result_bytes=12 * config.rows * len(columns),
        context=(config, columns),
        task_noun="row",
    )


def run_task(plan: Plan, key: str) -> dict[str, np.ndarray]:
    config, columns = plan.context
    # the tests need a task that lasts, to have something to kill; it does not change the result
    time.sleep(float(os.environ.get("SQUARES_SLEEP", "0")))
    row = int(key.split()[1])
    draw = np.random.default_rng((config.seed, row))
    values = draw.normal(size=config.length) if config.kind == "normal" else draw.uniform(size=config.length)
    values = (np.abs(values) if config.absolute else values)[columns] * config.scale
    return {
        "rows/drawn": values,
        "rows/square": (values**2).astype(np.float32),
        "rows/root": np.sqrt(np.complex128(-np.sum(values**2))),
        "rows/name": np.array(f"{config.label} {row}"),
    }


def assemble(plan: Plan, parts: Mapping[str, Mapping[str, np.ndarray]]):
    import xarray as xr

    dims = {
        "drawn": ("sequence", "token"),
        "square": ("sequence", "token"),
        "root": ("sequence",),
        "name": ("sequence",),
    }
    rows = {name: (d, np.stack([parts[key][f"rows/{name}"] for key in plan.tasks])) for name, d in dims.items()}
    _, columns = plan.context
    total = np.float64(np.sum(rows["square"][1], dtype=np.float64))
    return xr.DataTree.from_dict(
        {
            "rows": xr.Dataset(rows, coords={"token": np.array(columns, dtype=np.int64)}),
            "all": xr.Dataset({"total": ((), total)}),
        }
    )


def verdict(tree) -> list[str]:
    return [f"the squares sum to {float(tree['all/total']):.6g}"]


def run(config: Config):
    return base.run(sys.modules[__name__], config)


if __name__ == "__main__":
    from ssmtheory.runner import main

    sys.path.insert(0, str(Path(__file__).parents[2]))
    raise SystemExit(main("tests.runner.squares"))
