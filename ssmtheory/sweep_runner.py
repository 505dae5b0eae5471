"""Run a sweep: a TOML file -> points, or the tasks of one run -> an engine -> one dataset, resumable at every moment.

Two kinds of file (`read`):

- with a `[sweep]` table (`ssmtheory.sweeps.grid`): every point is a configuration of the experiment, a point's result
  its dataset; the sweep's dataset has the axes as dimensions;
- without one: an ordinary configuration, whose tasks are spread over the engine's processes. The run is the one of
  `python -m ssmtheory.experiments.<name> --config FILE`: same folder, same content.

An experiment with a function `run_point(config) -> {"group/variable": array}` gives a sweep its arrays directly, for
points so cheap that building a dataset for each would cost more than computing it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import platform
import resource
import sys
import time
import traceback
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssmtheory import resources, runner
from ssmtheory.errors import BackendError, ConfigError, InputError, Interrupted, StoreError, SweepError, nearest
from ssmtheory.experiments import base
from ssmtheory.sweeps import engine as engines
from ssmtheory.sweeps import grid as grids

if TYPE_CHECKING:
    import numpy as np

    from ssmtheory.results.store import Session
    from ssmtheory.sweeps.blocks import BlockStore

__all__ = ["SweepFile", "compact", "dry_run", "read", "run", "status"]

#: points a block where the file has no `block`: an experiment with `run_point` has cheap ones, any other may not
CHEAP_BLOCK, BLOCK = 64, 1

# ---------------------------------------------------------------------------------------------------- the file


@dataclass(frozen=True)
class SweepFile:
    """A sweep file, read and checked.

    module: the experiment. values: the fields of its Config that the file sets. grid: of its `[sweep]` table, or None.
    slurm: of its `[slurm]` table. source: the file's contents.
    """

    path: Path
    module: types.ModuleType
    values: Mapping[str, Any]
    grid: grids.Grid | None
    slurm: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the run's folder, without its digest."""
        return base.name_of(self.module) + ("-sweep" if self.grid is not None else "")


def _locate(name: str | Path) -> Path:
    """A file of that name, or a shipped preset ("robustness.laptop")."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = resources.names("preset")
    for candidate in (str(name), f"{name}.toml"):
        if candidate in shipped:
            return resources.resource("preset", candidate)
    raise ConfigError(f"no sweep file {name}: neither a file nor a shipped preset.{nearest(path.name, shipped)}")


def read(name: str | Path) -> SweepFile:
    """Read a sweep file.

    Args:
        name: path of a TOML file, or name of a shipped preset ("robustness.laptop").

    Raises:
        ConfigError: no such file, an unknown experiment, key or field, a value of the wrong type.
    """
    path = _locate(name)
    return _parse(path, runner.read_toml(path))


def _parse(path: Path, source: Mapping[str, Any]) -> SweepFile:
    table = dict(source)
    experiment = table.pop("experiment", None) or path.name.partition(".")[0]
    if not isinstance(experiment, str):
        raise ConfigError(f"{path}: experiment = {experiment!r} is not a text")
    try:
        module = runner.load(experiment)
    except ConfigError as error:
        raise ConfigError(f'{path}: {error} (say which with  experiment = "NAME")') from None
    sweep, slurm = table.pop("sweep", None), table.pop("slurm", {})
    if not isinstance(slurm, dict) or not isinstance(sweep, dict | None):
        raise ConfigError(f"{path}: [sweep] and [slurm] are tables")
    values = runner.read_table(path, table, module.Config)
    if sweep is None:
        return SweepFile(path, module, values, None, slurm, source)
    hints = typing.get_type_hints(module.Config)
    fields = [f.name for f in dataclasses.fields(module.Config)]
    both = sorted(values.keys() & {key.replace("-", "_") for key in sweep})
    if both:
        raise ConfigError(f"{path}: {both[0]} is set, and an axis of [sweep] too")

    def convert(key: str, item: Any) -> Any:
        for candidate in (item, [item]):  # a field that is a list may be swept over single values
            good, value = runner._matches(candidate, hints[key])
            if good and not (isinstance(value, float) and not math.isfinite(value)):
                return value
        raise ConfigError(f"{path}: [sweep] {key}: {item!r} is not {runner._hint_text(hints[key])}")

    fixed = {f.name: _default(f) for f in dataclasses.fields(module.Config)} | dict(values)
    try:
        grid = grids.read(sweep, fields, convert, fixed)
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    return SweepFile(path, module, values, grid, slurm, source)


def _default(item: Any) -> Any:
    return item.default_factory() if item.default is dataclasses.MISSING else item.default


def _config(file: SweepFile, point: Mapping[str, Any]) -> Any:
    return file.module.Config(**{**file.values, **point})


# ---------------------------------------------------------------------------------------------------- one point


def _plain(value: Any) -> Any:
    """A field's value as JSON has it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _why(error: BaseException, config: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a failure."""
    from ssmtheory.results import provenance

    facts = provenance.volatile()
    return {
        "error": f"{type(error).__name__}: {error}",
        "traceback": "".join(traceback.format_exception(error)),
        "config": {key: _plain(value) for key, value in config.items()},
        "utc": facts["created_utc"],
        "host": facts["host"],
        "python": facts["python"],
        "packages": facts["packages"],
        "ssmtheory_version": provenance.version(),
        "git_commit": provenance.commit_of(facts),
    }


@contextlib.contextmanager
def _temporary_folder(_: str) -> Iterator[Path]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


Workdir = Callable[[str], contextlib.AbstractContextManager[Path]]


def evaluate(module: Any, config: Any, workdir: Workdir = _temporary_folder) -> dict[str, tuple[Any, Any]]:
    """One point: "group/variable" -> (dimensions, values), index coordinates among them.

    Args:
        module: the experiment. config: of the point. workdir: gives a long task its folder.
    """
    import numpy as np

    if hasattr(module, "run_point"):
        arrays = {path.strip("/"): np.asarray(value) for path, value in module.run_point(config).items()}
        return {path: (_dimensions(module, path), value) for path, value in arrays.items()}
    plan = module.plan(config)
    parts = {}
    for key in plan.tasks:
        if getattr(module, "WORKDIR", False):
            with workdir(key) as folder:
                parts[key] = module.run_task(plan, key, folder)
        else:
            parts[key] = module.run_task(plan, key)
    tree = base.finish(module, plan, parts)
    found = {}
    for node in tree.subtree:
        group = "" if node is tree else f"{node.relative_to(tree)}/"
        for name, variable in node.to_dataset(inherit=False).variables.items():
            found[f"{group}{name}"] = tuple(map(str, variable.dims)), variable.values
    return found


def _dimensions(module: Any, path: str) -> tuple[str, ...]:
    group, _, name = path.rpartition("/")
    declared = module.SCHEMA.groups.get(f"/{group}", {}).get(name)
    return declared.dims if declared is not None else (name,)


@dataclass(frozen=True)
class _Sweep:
    """What a process needs to compute blocks of a sweep; the same for all of them."""

    session: Session
    experiment: str
    values: Mapping[str, Any]
    points: int
    block: int


def _point_name(point: int) -> str:
    return f"point-{point:06d}"


def _do_block(sweep: _Sweep, number: int, todo: Sequence[tuple[int, Mapping[str, Any]]], kept: Sequence[int]) -> Any:
    """Compute a block's points, keep those that were done before, make all durable; returns the ledger's line."""
    from ssmtheory.sweeps import blocks

    module = runner.load(sweep.experiment)
    began = time.monotonic()
    results = dict(blocks.read_rows(sweep.session, kept))
    failed: dict[int, str] = {}
    expected = blocks.structure_of(next(iter(results.values()))) if results else None
    for point, values in todo:
        given = {**sweep.values, **values}
        try:
            with _reporting(_point_name(point)):
                arrays = evaluate(module, module.Config(**given), functools.partial(_folder_of, sweep.session, point))
            # the file is asked for the first point of a block, and for the words where another one differs
            if expected is None or expected.differences(blocks.structure_of(arrays)):
                expected = blocks.matching(sweep.session.folder / "blocks.zarr", arrays, sweep.points, sweep.block)
            results[point] = arrays
        except StoreError:
            raise
        except Exception as error:
            failed[point] = sweep.session.keep_failure(_point_name(point), _why(error, given))
    line = blocks.write_block(
        sweep.session,
        number,
        results,
        failed,
        points=sweep.points,
        block=sweep.block,
        seconds=time.monotonic() - began,
    )
    if getattr(module, "WORKDIR", False):
        for point, _ in todo:
            sweep.session.drop_workdirs(_point_name(point))
    return line


def _folder_of(session: Session, point: int, key: str) -> contextlib.AbstractContextManager[Path]:
    return session.workdir(key, _point_name(point))


# ---------------------------------------------------------------------------------------------------- a sweep


def _identity(file: SweepFile) -> tuple[dict[str, Any], str | None]:
    """What decides a sweep's result: the fixed fields, the axes, and how the first point resolves; its model."""
    assert file.grid is not None
    swept = {name for axis in file.grid.axes for name in axis.names}
    fixed = {name: _plain(value) for name, value in file.grid.fixed.items() if name not in swept}
    resolved: dict[str, Any] = {"config": fixed, "sweep": file.grid.facts(), "first_point": None}
    model = None
    # a point that cannot even be planned is a failed point, not the end of the sweep
    with contextlib.suppress(Exception):
        plan = file.module.plan(_config(file, file.grid.values(0)))
        resolved["first_point"], model = plan.resolved, plan.model_sha256
        resolved |= {key: plan.resolved[key] for key in ("backend", "dtype") if key in plan.resolved}
    return resolved, model


def _block_size(file: SweepFile, folder: Path) -> int:
    """Points a block: what a begun sweep has, else what the file says, else by the kind of experiment."""
    from ssmtheory.results import store
    from ssmtheory.sweeps import blocks

    assert file.grid is not None
    with contextlib.suppress(StoreError):
        begun = store.read_record(folder).get("block")
        if begun:
            return int(begun)
    there = blocks.read_structure(folder / "blocks.zarr")
    if there is not None:
        return there[2]
    if file.grid.block is not None:
        return min(file.grid.block, len(file.grid))
    return min(CHEAP_BLOCK if hasattr(file.module, "run_point") else BLOCK, len(file.grid))


def _store(file: SweepFile, out: Path, fresh: bool, notice: Callable[[str], None]) -> tuple[BlockStore, Any]:
    from ssmtheory.results import provenance
    from ssmtheory.sweeps import blocks

    assert file.grid is not None
    resolved, model = _identity(file)
    name = file.name
    identity = provenance.run_id(name, resolved, model)
    folder = Path(out) / identity
    block = min(file.grid.block or 0, len(file.grid)) if fresh else 0
    block = block or _block_size(file, folder)
    store = blocks.BlockStore(
        root=Path(out),
        id=identity,
        experiment=name,
        tasks=[blocks.block_key(n) for n in range(math.ceil(len(file.grid) / block))],
        facts={
            "module": base.path_of(file.module),
            "title": _title(file),
            "schema": f"{file.module.SCHEMA.name}-sweep-{file.module.SCHEMA.version}",
            "config": resolved,
            "config_sha256": provenance.config_sha256(resolved),
            "model_sha256": model,
            "points": len(file.grid),
            "block": block,
            "source": {**file.source, "experiment": base.path_of(file.module)},
        },
        notice=notice,
    )
    return store, (resolved, model)


def _title(file: SweepFile) -> str:
    assert file.grid is not None
    return f"{file.module.TITLE}: over {', '.join(name for axis in file.grid.axes for name in axis.names)}"


def run(
    name: str | Path | SweepFile,
    *,
    engine: engines.Engine | None = None,
    out: str | Path = "runs",
    fresh: bool = False,
    retry_failed: bool = False,
    accept_failed: bool = False,
    quiet: bool = True,
    argv: Sequence[str] | None = None,
) -> runner.Outcome:
    """Run a sweep to its end, or go on where an earlier call stopped, and return what it left.

    Args:
        name: of a sweep file, or the file, read.
        engine: where the work is done; this process by default.
        out: folder that holds the runs.
        fresh: run again what is complete, or begun.
        retry_failed: compute again what failed in an earlier call.
        accept_failed: make the dataset although points failed; they are NaN in it, and marked in `status`.
        quiet: no progress on stderr.
        argv: the command line for the record.

    Raises:
        SweepError: points failed; the others are done.
        Interrupted: Ctrl-C or SIGTERM; what had finished is kept.
        StoreError: the run's folder cannot be written, is damaged, or another process works on it.
        BackendError: the scheduler is lost.
    """
    file = name if isinstance(name, SweepFile) else read(name)
    engine = engine or engines.Engine()
    if file.slurm and engine.slurm is not None and not engine.slurm_options:
        engine = dataclasses.replace(engine, slurm_options=file.slurm)
    with runner._terminable():
        try:
            if file.grid is None:
                config = file.module.Config(**file.values)
                plan = file.module.plan(config)
        except KeyboardInterrupt:
            raise Interrupted("stopped before the first task; nothing was written") from None
        if file.grid is None:
            perform = functools.partial(_spread, engine, config, retry_failed)
            return runner._run(file.module, plan, Path(out), fresh, quiet, argv, perform)
        return _run_grid(file, engine, Path(out), fresh, retry_failed, accept_failed, quiet, argv)


def _run_grid(
    file: SweepFile,
    engine: engines.Engine,
    out: Path,
    fresh: bool,
    retry_failed: bool,
    accept_failed: bool,
    quiet: bool,
    argv: Sequence[str] | None,
) -> runner.Outcome:
    assert file.grid is not None
    progress = runner.Progress(file.name.replace("_", " ").replace("-", " "), 0, 0, sys.stderr, quiet)
    start = time.monotonic()
    total = len(file.grid)
    try:
        store, identity = _store(file, out, fresh, progress.say)
        with store.open(fresh=fresh, argv=None if argv is None else list(argv)):
            if store.record["state"] == "complete":
                return runner.Outcome(store.folder, False, store.record)
            work = _pending(file, store, retry_failed)
            progress.total, progress.done = len(store.tasks), len(store.tasks) - len(work)
            progress._shown = progress.done
            if store.done and not quiet:
                progress.say(f"going on with {store.folder}: {_count(store)} of {total} points done")
            progress.begin()
            _compute(file, engine, store, work, progress)
            failures = store.failures()
            progress.clear()
            if failures and not accept_failed:
                raise SweepError(_told(store.folder, len(failures), f"{total} points", "point"))
            return _conclude(file, store, identity, start, progress)
    except KeyboardInterrupt:
        progress.clear()
        raise Interrupted(
            f"stopped at {_count(store)} of {total} points; the same command goes on from there"
        ) from None


def _told(folder: Path, failed: int, total: str, noun: str) -> str:
    return (
        f"{failed} of {total} failed: ssmtheory sweep status {folder} shows why; "
        f"--retry-failed computes {'it' if failed == 1 else 'them'} again"
        + ("; --accept-failed makes the dataset without" if noun == "point" else "")
    )


def _count(store: BlockStore) -> int:
    points, block = store.facts["points"], store.facts["block"]
    done = 0
    for number, key in enumerate(store.tasks):
        if key in store.done:
            done += min(block, points - number * block) - len(store.done[key]["failures"])
    return done


def _pending(file: SweepFile, store: BlockStore, retry_failed: bool) -> dict[str, tuple[int, list[int], list[int]]]:
    """Block -> (its number, points to compute, points to keep)."""
    points, block = store.facts["points"], store.facts["block"]
    work: dict[str, tuple[int, list[int], list[int]]] = {}
    for number, key in enumerate(store.tasks):
        members = list(range(number * block, min((number + 1) * block, points)))
        if key not in store.done:
            work[key] = number, members, []
        elif retry_failed and store.done[key]["failures"]:
            failed = {int(point) for point in store.done[key]["failures"]}
            work[key] = number, sorted(failed), [point for point in members if point not in failed]
    return work


def _compute(
    file: SweepFile,
    engine: engines.Engine,
    store: BlockStore,
    work: Mapping[str, tuple[int, list[int], list[int]]],
    progress: runner.Progress,
) -> None:
    """Do what is pending; afterwards `store.done` has every block."""
    assert file.grid is not None
    if not work:
        return
    from ssmtheory.sweeps import blocks

    session = store.session(total=store.facts["points"])
    sweep = _Sweep(session, base.path_of(file.module), file.values, store.facts["points"], store.facts["block"])
    jobs = {
        key: (sweep, number, [(point, file.grid.values(point)) for point in todo], kept)
        for key, (number, todo, kept) in work.items()
    }
    with (
        base.reporting(progress.note),
        contextlib.closing(engines.calls(engine, _do_block, jobs, progress.say, progress.note)) as finished,
    ):
        for key, line in finished:
            if isinstance(line, engines.Died):
                number, todo, kept = work[key]
                failed = {p: _bury(session, _point_name(p), line, {**file.values, **file.grid.values(p)}) for p in todo}
                line = blocks.write_block(
                    session,
                    number,
                    blocks.read_rows(session, kept),
                    failed,
                    points=sweep.points,
                    block=sweep.block,
                    seconds=0.0,
                )
            store.done[key] = line
            progress.advance()


def _bury(session: Session, name: str, died: engines.Died, config: Mapping[str, Any]) -> str:
    """Record a failure that left no exception."""
    return session.keep_failure(name, _why(BackendError(died.words), config))


def _statuses(store: BlockStore, points: int, block: int) -> np.ndarray:
    import numpy as np

    from ssmtheory.sweeps import dataset

    status = np.full(points, dataset.MISSING, dtype=np.int8)
    for number, key in enumerate(store.tasks):
        if key in store.done:
            status[number * block : (number + 1) * block] = dataset.DONE
    for point in store.failures():
        status[point] = dataset.FAILED
    return status


def _tree(file: SweepFile, store: BlockStore, resolved: Mapping[str, Any], model: str | None) -> Any:
    """The dataset of what is done, labelled and checked."""
    from ssmtheory.results import provenance
    from ssmtheory.sweeps import dataset

    assert file.grid is not None
    there = store.layout()
    if there is None:
        raise SweepError(f"{store.folder}: no point is done, so there is no dataset to make")
    helps = {f.name: f.metadata.get("help", "") for f in dataclasses.fields(file.module.Config)}
    status = _statuses(store, there[1], there[2])
    tree, schema = dataset.build(file.grid, there[0], store.array, status, file.module.SCHEMA, helps)
    tree = schema.label(tree)
    tree.attrs = provenance.root_attributes(
        experiment=file.name, title=_title(file), resolved=resolved, model_sha256=model, schema=schema
    )
    schema.validate(tree)
    return tree


def _conclude(
    file: SweepFile, store: BlockStore, identity: Any, start: float, progress: runner.Progress
) -> runner.Outcome:
    from ssmtheory.results import store as stores

    assert file.grid is not None
    assembling = time.monotonic()
    progress.note("putting the blocks together")
    arrays = store.save_data(_tree(file, store, *identity))
    failures = len(store.failures())
    done = time.monotonic()
    progress.clear()
    told = f", {failures} of them failed" if failures else ""
    store.complete(
        content_sha256=stores.combine(arrays),
        arrays=arrays,
        figures=[],
        verdict=[f"{file.grid.describe()}{told}"],
        plan={"sweep": file.grid.describe()},
        tasks={"total": len(file.grid), "done": len(file.grid) - failures},
        seconds={
            "tasks": round(sum(entry["seconds"] for entry in store.done.values()), 3),
            "dataset": round(done - assembling, 3),
            "last_session": round(done - start, 3),
        },
    )
    return runner.Outcome(store.folder, True, store.record)


# ---------------------------------------------------------------------------------------------------- one plan's tasks


@dataclass(frozen=True)
class _Tasks:
    """What a process needs to do tasks of a run; the same for all of them."""

    session: Session
    experiment: str
    config: Mapping[str, Any]
    resolved_sha256: str


@functools.lru_cache(maxsize=1)
def _planned(experiment: str, config: str, resolved_sha256: str, values: Any) -> tuple[Any, base.Plan]:
    """The experiment and its plan, once a process."""
    from ssmtheory.results import provenance

    module = runner.load(experiment)
    plan = module.plan(module.Config(**values.values))
    if provenance.config_sha256(plan.resolved) != resolved_sha256:
        raise InputError(
            f"on {platform.node()} the configuration resolves to another one than where the sweep was started: "
            "other files, packages or processors; use the same installation everywhere, and name the backend"
        )
    return module, plan


class _Values:
    """A configuration's fields, for a cache to hold: all are equal, as the other arguments tell them apart."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Values)

    def __hash__(self) -> int:
        return 0


@contextlib.contextmanager
def _reporting(name: str) -> Iterator[None]:
    """Within the block what a task reports of itself reaches the driver; in its own process it does so anyway."""
    tell = engines.telling()
    if tell is None:
        yield
        return
    with base.reporting(lambda message: tell(f"{name}: {message}")):
        yield


def _do_task(tasks: _Tasks, key: str) -> Any:
    """Do one task of a run and make its part durable; returns the ledger's line, of a failure too."""
    text = json.dumps({name: _plain(value) for name, value in tasks.config.items()}, sort_keys=True, default=str)
    module, plan = _planned(tasks.experiment, text, tasks.resolved_sha256, _Values(tasks.config))
    began = time.monotonic()
    try:
        with _reporting(key):
            if getattr(module, "WORKDIR", False):
                with tasks.session.workdir(key) as folder:
                    arrays = module.run_task(plan, key, folder)
            else:
                arrays = module.run_task(plan, key)
    except StoreError:
        raise
    except Exception as error:
        return tasks.session.save_failure(key, _why(error, {**tasks.config, "task": key}))
    return tasks.session.save_part(key, arrays, time.monotonic() - began)


def _spread(
    engine: engines.Engine,
    config: Any,
    retry_failed: bool,
    module: Any,
    plan: base.Plan,
    runs: Any,
    progress: runner.Progress,
) -> None:
    """Do the tasks that are not done yet with an engine."""
    from ssmtheory.results import provenance

    if retry_failed:
        runs.failed = {}
    pending = [key for key in plan.tasks if key not in runs.done and key not in runs.failed]
    if pending:
        session = runs.session(total=len(plan.tasks))
        values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
        tasks = _Tasks(session, base.path_of(module), values, provenance.config_sha256(plan.resolved))
        jobs = {key: (tasks, key) for key in pending}
        with (
            base.reporting(progress.note),
            contextlib.closing(engines.calls(engine, _do_task, jobs, progress.say, progress.note)) as finished,
        ):
            for key, line in finished:
                if isinstance(line, engines.Died):
                    line = session.save_failure(key, _why(BackendError(line.words), {**values, "task": key}))
                (runs.failed if "failed" in line else runs.done)[key] = line
                progress.advance()
    progress.clear()
    if runs.failed:
        raise SweepError(_told(runs.folder, len(runs.failed), f"{len(plan.tasks)} tasks", "task"))


# ---------------------------------------------------------------------------------------------------- words


def _peak() -> int:
    """Most memory that this process has used so far [bytes]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _measure(file: SweepFile, budget: float = 10.0) -> tuple[list[float], int]:
    """(seconds of up to three points, bytes of a point's arrays); points that fail are passed over."""
    assert file.grid is not None
    count = len(file.grid)
    seconds: list[float] = []
    size = 0
    for point in dict.fromkeys((0, count // 2, count - 1)):
        with contextlib.suppress(Exception):
            config = _config(file, file.grid.values(point))
            if not seconds and hasattr(file.module, "run_point"):
                evaluate(file.module, config)  # what is imported at the first call is no cost of a point
            began = time.monotonic()
            arrays = evaluate(file.module, config)
            seconds.append(time.monotonic() - began)
            size = sum(values.nbytes for _, values in arrays.values())
        if sum(seconds) > budget:
            break
    return seconds, size


def dry_run(
    name: str | Path | SweepFile,
    *,
    engine: engines.Engine | None = None,
    out: str | Path = "runs",
    fresh: bool = False,
    retry_failed: bool = False,
) -> list[str]:
    """The lines of `--dry-run`: what would run, how large the result is, how long it takes; writes nothing.

    The time of a point is measured here, on up to three of them; a task with checkpoints of its own is not run.
    """
    file = name if isinstance(name, SweepFile) else read(name)
    engine = engine or engines.Engine()
    if file.grid is None:
        plan = file.module.plan(file.module.Config(**file.values))
        told = runner.dry_run(file.module, plan, Path(out), fresh)
        return [*told[:-1], f"{'engine':<12} {engine.describe()}", told[-1]]
    store, _ = _store(file, Path(out), fresh, lambda line: None)
    state, _ = ("none", 0) if fresh else store.state()
    if state != "none" and state != "complete":
        store.done = store.entries()
    work = {} if state == "complete" else _pending(file, store, retry_failed)
    todo = sum(len(points) for _, points, _ in work.values())
    lines = [("would write", str(store.folder))]
    if state == "complete":
        lines = [("nothing to do", f"{store.folder} is complete (--fresh runs it again)")]
    elif store.done:
        failed = len(store.failures())
        words = f", {failed} failed" if failed else ""
        lines = [("would go on with", f"{store.folder}: {_count(store)} of {len(file.grid)} points done{words}")]
    blocks, block = len(store.tasks), store.facts["block"]
    lines.append(("points", f"{file.grid.describe()}, in {blocks} block{'s' * (blocks != 1)} of {block}"))
    if todo:
        each, result = _estimate(file)
        how = "the plan's own estimate"
        if each is None:
            seconds, result = _measure(file)
            each = sum(seconds) / len(seconds) if seconds else None
            how = f"{len(seconds)} point{'s' * (len(seconds) != 1)} measured: {_range(seconds)}"
        lines.append(("result", f"{runner._size(result * len(file.grid))} before compression"))
        lines.append(("time", _time(each, how, todo, engine)))
        lines.append(("memory", f"{runner._size(_peak())} a worker at most, so far"))
    lines.append(("engine", engine.describe()))
    width = max(12, *(len(label) for label, _ in lines))
    return [f"{label:<{width}} {text}" for label, text in lines] + ["nothing was written"]


def _estimate(file: SweepFile) -> tuple[float | None, int]:
    """Seconds of a point by its plan's own estimate, where it has one or must not be run here; bytes of its result."""
    assert file.grid is not None
    if hasattr(file.module, "run_point"):
        return None, 0
    with contextlib.suppress(Exception):
        plan = file.module.plan(_config(file, file.grid.values(0)))
        if getattr(file.module, "WORKDIR", False):
            return (plan.task_seconds or math.nan) * len(plan.tasks), plan.result_bytes
    return None, 0


def _range(seconds: Sequence[float]) -> str:
    low, high = (runner._duration(f(seconds)) if seconds else "" for f in (min, max))
    return low if low == high else f"{low} to {high}"


def _time(each: float | None, how: str, todo: int, engine: engines.Engine) -> str:
    if each is None:
        return "unknown: the points that were tried fail"
    if math.isnan(each):
        return "unknown: a point is too long to be measured"
    alone = f"about {runner._duration(each * todo)} on 1 core ({how})"
    if engine.serial or engine.scheduler is not None:
        return alone
    return f"{alone}, {runner._duration(each * todo / engine.count)} on {engine.count} workers"


def status(name: str | Path, out: str | Path = "runs") -> list[str]:
    """How far a sweep is, and the first failure with the configuration it happened at.

    Args:
        name: folder of the run, its id, or the beginning of its id.
        out: folder in which ids are looked up.

    Raises:
        InputError: no such run. StoreError: it is damaged.
    """
    from ssmtheory.results import compare, fs, store

    folder = compare.find_run(name, out)
    record = store.read_record(folder)
    done: dict[str, Mapping[str, Any]] = {}
    failed: dict[str, str] = {}
    writers: set[str] = set()
    total, latest = 0, ""
    for path in sorted((folder / "ledger").glob("*.jsonl")):
        for line in fs.read_lines(path):
            total = max(total, line.get("total", 0))
            latest = max(latest, line.get("utc", ""))
            key = line.get("task")
            if key is None:
                continue
            writers.add(path.name)
            if "failed" in line:
                failed[key] = line["failed"]
            else:
                done[key] = line
    unit = "points" if "block" in record else "tasks"
    if unit == "points":
        total, block = record["points"], record["block"]
        failed = {p: n for line in done.values() for p, n in line["failures"].items()}
        sizes = (min(block, total - int(key.rpartition(" ")[2]) * block) for key in done)
        finished = sum(sizes) - len(failed)
    else:
        failed = {key: n for key, n in failed.items() if key not in done}
        finished = len(done)
    if record["state"] == "complete":
        counts = record.get("tasks", {})
        total, finished = counts.get("total", total), counts.get("done", finished)
    seconds = sum(line["seconds"] for line in done.values())
    lines = [
        f"{folder}: {record['state']}",
        f"{unit:<8} {finished} of {total or '?'} done, {len(failed)} failed",
        f"computed {runner._duration(seconds)} in {len(writers)} processes, last at {latest or '-'}",
    ]
    for name_ in sorted(failed.values())[:1]:
        lines += _first_failure(folder / "failed" / name_)
    return lines


def _first_failure(path: Path) -> list[str]:
    try:
        facts = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return [f"first failure: {path} cannot be read"]
    config = ", ".join(f"{key} = {value!r}" for key, value in facts["config"].items())
    return ["", f"first failure ({path}):", f"  {config}", *(f"  {line}" for line in facts["traceback"].splitlines())]


def _file_of(name: str | Path, out: str | Path) -> tuple[SweepFile, Path]:
    """The sweep file behind a run, and the folder that holds the run."""
    from ssmtheory import experiments
    from ssmtheory.results import compare, store

    folder = compare.find_run(name, out)
    record = store.read_record(folder)
    if "source" not in record:
        raise InputError(f"{folder} is no sweep over a grid: it has a dataset when it is complete")
    path = str(record.get("module"))
    # a record is data: it must not decide what is imported
    if path not in sys.modules and path.rpartition(".")[2] not in experiments.available():
        raise InputError(f"{folder}: {path} is no experiment of this package: give the sweep's TOML file instead")
    return _parse(folder / "run.json", record["source"]), folder.parent


def compact(
    name: str | Path | SweepFile, to: str | Path | None = None, *, out: str | Path = "runs"
) -> tuple[Path, list[str]]:
    """Make one dataset of what a sweep has done so far, failed and missing points marked in `status`.

    Args:
        name: of the run (folder, id, or the beginning of its id), or of the sweep file; or the file, read.
        to: folder for the dataset, replaced where it exists; `partial.zarr` in the run's folder by default.
        out: folder that holds the runs.

    Returns:
        The dataset's path, and a line on what is in it. A complete sweep's is the `data.zarr` it has.

    Raises:
        SweepError: no point is done. StoreError: another process works on the sweep, or it cannot be written.
    """
    import shutil

    from ssmtheory.results import fs
    from ssmtheory.results import store as stores

    if isinstance(name, SweepFile):
        file = name
    elif str(name).endswith(".toml"):
        file = read(name)
    else:
        file, out = _file_of(name, out)
    if file.grid is None:
        raise ConfigError(f"{file.path} has no [sweep] table: its run has a dataset when it is complete")
    store, identity = _store(file, Path(out), False, lambda line: None)
    state, _ = store.state()
    if state == "none":
        raise InputError(f"no sweep {store.folder}: ssmtheory sweep run {file.path} begins it")
    if state == "complete":
        return store.folder / "data.zarr", ["the sweep is complete"]
    target = Path(to) if to is not None else store.folder / "partial.zarr"
    store.done = {key: line for key, line in store.entries().items() if store._defect(line) is None}
    tree = _tree(file, store, *identity)
    with fs.store_errors(target):
        fs.make_folder(target.absolute().parent)
        scratch = fs.temporary(target.absolute())
        shutil.rmtree(scratch, ignore_errors=True)
        stores.write_data(tree, scratch)
        fs.publish(scratch, target.absolute())
    return target, [f"{_count(store)} of {len(file.grid)} points done, {len(store.failures())} failed"]
