"""What an experiment is: a plan of independent tasks, a function that does one, and one that puts the parts together.

A module `ssmtheory/experiments/<name>.py` provides (see `Experiment`)

| name | what |
|---|---|
| `Config` | frozen dataclass; every field has a default and `metadata={"help": ...}`; the only place for parameters |
| `TITLE` | one line, the dataset's title and the first line of `--help` |
| `SCHEMA` | `ssmtheory.results.DatasetSchema` of what `assemble` returns |
| `plan(config) -> Plan` | resolves every option and names the tasks; cheap, writes nothing |
| `run_task(plan, key) -> dict` | one task's arrays, flat `"group/variable" -> array`; a function of (plan, key) only |
| `assemble(plan, parts) -> DataTree` | the dataset from the parts of all tasks |
| `verdict(tree) -> list[str]` | what was found, in sentences |
| `run(config) -> DataTree` | `base.run(sys.modules[__name__], config)` |

A module whose configurations are cheap may provide `run_point(config) -> dict`: its dataset's arrays, flat, for a sweep
over thousands of configurations to take instead of a dataset for each.

A module may also provide `documents(config, tree) -> {path: text}`: files that options name (a derivation in LaTeX),
taken from the dataset; the runner writes them after the run.

An experiment computes: it neither prints nor plots nor writes. Whoever drives it (`ssmtheory.runner`, a sweep, a
notebook) does.

A module with `WORKDIR = True` has long tasks with checkpoints of their own: `run_task(plan, key, workdir)` gets a
folder that survives a kill and is removed when the run is complete.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

__all__ = ["Experiment", "Plan", "report", "reporting", "run"]

Part = dict[str, "np.ndarray"]


@dataclass
class Plan:
    """A resolved configuration and its tasks.

    resolved: JSON-able and deterministic: every option with the value really used (no "auto"), the sha256 of each
        input, names instead of paths; with `model_sha256` it decides the run's identity. Keys "backend" and "dtype",
        where present, become root attributes of the dataset.
    tasks: keys of the independent tasks, in order; unique.
    model_sha256: of the model's weights, None without a model.
    describe: label -> text, the lines of `--dry-run` (for example "model": "shakespeare-1m  1,234,567 parameters").
    result_bytes: size of the dataset before compression [bytes].
    context: whatever `run_task` and `assemble` need (a loaded model, token arrays); never stored.
    task_noun: what one task is, in the progress and cost lines ("sequence").
    task_seconds: expected duration of one task [s]; None: `--dry-run` measures the first task.
    """

    resolved: dict[str, Any]
    tasks: list[str]
    model_sha256: str | None = None
    describe: dict[str, str] = field(default_factory=dict)
    result_bytes: int = 0
    context: Any = None
    task_noun: str = "task"
    task_seconds: float | None = None


class Experiment(Protocol):
    """The names an experiment module provides (see this module's table)."""

    Config: type
    TITLE: str
    SCHEMA: Any

    def plan(self, config: Any) -> Plan: ...

    def run_task(self, plan: Plan, key: str) -> Mapping[str, Any]: ...

    def assemble(self, plan: Plan, parts: Mapping[str, Part]) -> xr.DataTree: ...

    def verdict(self, tree: xr.DataTree) -> list[str]: ...


_reporter: contextvars.ContextVar[Callable[[str], None] | None] = contextvars.ContextVar("reporter", default=None)


def report(message: str) -> None:
    """Tell whoever runs the experiment how far a long task is ("step 1200 of 8000"); nothing when nobody listens."""
    listener = _reporter.get()
    if listener is not None:
        listener(message)


@contextlib.contextmanager
def reporting(listener: Callable[[str], None]) -> Iterator[None]:
    """Within the block, `report(message)` calls `listener(message)`."""
    token = _reporter.set(listener)
    try:
        yield
    finally:
        _reporter.reset(token)


def path_of(module: ModuleType | Experiment) -> str:
    """The dotted path an experiment is imported by (run with `python -m` it is called `__main__`: its spec knows)."""
    spec = getattr(module, "__spec__", None)
    return str(module.__name__ if spec is None else spec.name)  # type: ignore[union-attr]


def name_of(module: ModuleType | Experiment) -> str:
    """The experiment's name: the last part of its module's path."""
    return path_of(module).rpartition(".")[2]


def finish(module: Any, plan: Plan, parts: Mapping[str, Part]) -> xr.DataTree:
    """Assemble the parts, label the variables by the schema, set the deterministic root attributes, and validate."""
    from ssmtheory.results import provenance

    tree: xr.DataTree = module.assemble(plan, parts)
    tree = module.SCHEMA.label(tree)
    tree.attrs = provenance.root_attributes(
        experiment=name_of(module),
        title=module.TITLE,
        resolved=plan.resolved,
        model_sha256=plan.model_sha256,
        schema=module.SCHEMA,
    )
    module.SCHEMA.validate(tree)
    return tree


def run(module: Any, config: Any) -> xr.DataTree:
    """Run an experiment in memory, all tasks in this process, and return its dataset (nothing is written to disk).

    The dataset equals the one `ssmtheory.runner` stores for the same configuration: same arrays, same root attributes.
    A module with `WORKDIR = True` works in a temporary folder.
    """
    import tempfile
    from pathlib import Path

    plan = module.plan(config)
    if not getattr(module, "WORKDIR", False):
        return finish(module, plan, {key: module.run_task(plan, key) for key in plan.tasks})
    parts = {}
    for key in plan.tasks:
        with tempfile.TemporaryDirectory() as folder:
            parts[key] = module.run_task(plan, key, Path(folder))
    return finish(module, plan, parts)
