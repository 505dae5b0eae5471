"""Run many calls of one function: in this process, on a Dask cluster of this machine, on one that runs, or on SLURM.

The engine knows nothing of results: a call makes its own durable and returns a few words about them. So any process may
die at any time. A worker that dies is replaced and its call is made again; with the scheduler or this process, the
calls that had finished are on disk, and the next run makes the others.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssmtheory.errors import BackendError, ConfigError, require

__all__ = ["Died", "Engine", "calls", "telling"]

#: set in every worker before it loads NumPy: sums in one order on every machine, and no spinning threads
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}
#: keys of a `[slurm]` table -> argument of dask_jobqueue.SLURMCluster
SLURM = {
    "partition": "queue",
    "account": "account",
    "walltime": "walltime",
    "memory": "memory",
    "cores": "cores",
    "directives": "job_extra_directives",
    "prologue": "job_script_prologue",
    "interface": "interface",
    "log_directory": "log_directory",
    "local_directory": "local_directory",
}
_TOPIC = "ssmtheory-note"
_TICK = 1.0  # seconds between two looks at whether the scheduler and the workers are there


@dataclass(frozen=True)
class Died:
    """What a call came to that has killed every worker which tried it (a crash below Python, or too little memory)."""

    words: str


@dataclass(frozen=True)
class Engine:
    """Where the work is done.

    workers: processes on this machine; 1 is this process itself, and no cluster.
    scheduler: address of a running Dask scheduler, "tcp://host:8786"; its workers are used.
    slurm: jobs to submit to SLURM, a worker each. slurm_options: a `[slurm]` table.
    """

    workers: int = 1
    scheduler: str | None = None
    slurm: int | None = None
    slurm_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError(f"--workers {self.workers}: at least 1")
        if self.slurm is not None and self.slurm < 1:
            raise ConfigError(f"--slurm {self.slurm}: at least 1 job")
        given = [
            name for name, value in (("--scheduler", self.scheduler), ("--slurm", self.slurm)) if value is not None
        ]
        if len(given) + (self.workers > 1) > 1:
            raise ConfigError("--workers, --scheduler and --slurm: one of them says where the work is done")
        if self.scheduler is not None and "://" not in self.scheduler:
            raise ConfigError(f"--scheduler {self.scheduler!r}: an address as tcp://head:8786")
        unknown = sorted(self.slurm_options.keys() - SLURM.keys())
        if unknown:
            raise ConfigError(f"[slurm]: unknown key {unknown[0]!r}; there are {', '.join(SLURM)}")

    @property
    def serial(self) -> bool:
        """Whether this process does the work."""
        return self.workers == 1 and self.scheduler is None and self.slurm is None

    @property
    def count(self) -> int:
        """Processes that work at the same time; 1 where a running cluster decides."""
        return self.slurm or self.workers

    def describe(self) -> str:
        """Where the work is done, in words."""
        if self.scheduler is not None:
            return f"the workers of {self.scheduler}"
        if self.slurm is not None:
            return f"{self.slurm} SLURM job{'s' * (self.slurm != 1)}"
        return "this process" if self.serial else f"{self.workers} processes"


def calls(
    engine: Engine,
    function: Callable[..., Any],
    jobs: Mapping[str, Sequence[Any]],
    notice: Callable[[str], None] = lambda line: None,
    note: Callable[[str], None] = lambda line: None,
) -> Generator[tuple[str, Any], None, None]:
    """Call `function(*arguments)` for every job, and yield (key, result) in the order in which they finish.

    Args:
        engine: where.
        function: importable by name in the workers. An exception that it lets escape ends everything.
        jobs: key -> arguments, small and picklable.
        notice: called with a line when there is something to wait for.
        note: called with what calls say of themselves (`telling`).

    Yields:
        (key, what the function returned); (key, `Died`) for a call that has killed every worker that tried it.

    Raises:
        BackendError: the scheduler cannot be reached, or is lost; no worker comes up.
        MissingDependencyError: a cluster is asked for and Dask is not installed.
    """
    if engine.serial:
        for key, arguments in jobs.items():
            yield key, function(*arguments)
        return
    if not jobs:
        return
    distributed: Any = require("distributed", "cluster", "work in several processes")
    with _configured(), _cluster(engine, distributed, notice) as where:
        try:
            client = distributed.Client(where, set_as_default=False, timeout=30)
        except (OSError, TimeoutError) as error:
            raise BackendError(f"no Dask scheduler answers at {where}: {error}") from None
        try:
            yield from _gather(client, distributed, function, jobs, notice, note)
        finally:
            with contextlib.suppress(Exception):
                client.close(timeout=5)


@contextlib.contextmanager
def _configured() -> Iterator[None]:
    """Dask's settings for the time of a sweep."""
    import dask

    with dask.config.set(
        {
            # a worker gets its next call when it has finished one: calls are long, and none waits behind a longer one
            "distributed.scheduler.worker-saturation": 1.0,
            "distributed.worker.multiprocessing-method": "spawn",
            "distributed.nanny.pre-spawn-environ": ENVIRONMENT,
            # nobody looks at samples of the workers' stacks, taken each 10 ms
            "distributed.worker.profile.enabled": False,
            "distributed.admin.tick.interval": "200ms",
            "distributed.logging": dict.fromkeys(("distributed", "distributed.client", "bokeh"), "critical"),
        }
    ):
        yield


@contextlib.contextmanager
def _cluster(engine: Engine, distributed: Any, notice: Callable[[str], None]) -> Iterator[Any]:
    """The cluster to work on: started here and stopped afterwards, or one that runs."""
    if engine.scheduler is not None:
        yield engine.scheduler
        return
    if engine.slurm is not None:
        cluster = _slurm(engine, notice)
    else:
        cluster = _local(engine.workers, distributed)
    try:
        yield cluster
    finally:
        with contextlib.suppress(Exception):
            cluster.close(timeout=10)


def _local(workers: int, distributed: Any) -> Any:
    """Start workers on this machine; a worker that dies while it starts takes the others with it, so once more."""
    import logging

    for attempt in range(3):
        try:
            return distributed.LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                # the scheduler's own pages: a free port, or a second sweep on the machine would warn about the first
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                memory_limit=None,
                silence_logs=logging.CRITICAL,
                host="127.0.0.1",
            )
        except Exception as error:
            if attempt == 2:
                raise BackendError(
                    f"no {workers} worker processes come up on this machine ({type(error).__name__}: {error}); "
                    "what had finished is kept: --workers 1 needs none"
                ) from error
    return None


def _slurm(engine: Engine, notice: Callable[[str], None]) -> Any:
    jobqueue: Any = require("dask_jobqueue", "cluster", "--slurm")
    given = dict(engine.slurm_options)
    prologue = [f"export {name}={value}" for name, value in ENVIRONMENT.items()]
    path = os.pathsep.join(entry for entry in (os.environ.get("PYTHONPATH", ""), *_source_folder()) if entry)
    prologue.append(f"export PYTHONPATH={path}")
    options: dict[str, Any] = {
        "cores": 1,
        "processes": 1,
        "job_name": "ssmtheory",
        "memory": "4GB",
        "walltime": "01:00:00",
        "python": sys.executable,
        "scheduler_options": {"dashboard": False, "dashboard_address": ":0"},
    }
    options |= {SLURM[key]: value for key, value in given.items()}
    options["job_script_prologue"] = [*prologue, *given.get("prologue", [])]
    cluster = jobqueue.SLURMCluster(**options)
    try:
        _accepted(cluster.job_script())
    except BackendError:
        with contextlib.suppress(Exception):
            cluster.close(timeout=10)
        raise
    # not scale: a job that ends (its walltime, a node that fails) is to be replaced
    cluster.adapt(minimum_jobs=engine.slurm, maximum_jobs=engine.slurm, interval="2s")
    notice(f"{engine.slurm} SLURM jobs submitted")
    return cluster


def _accepted(script: str) -> None:
    """Ask SLURM whether it would take the job: what it refuses, dask-jobqueue waits for without a word.

    Raises:
        BackendError: there is no sbatch, or it refuses, with its own words.
    """
    import subprocess
    import tempfile

    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(script)
        file.flush()
        try:
            told = subprocess.run(
                ["sbatch", "--test-only", file.name], capture_output=True, text=True, timeout=60, check=False
            )
        except FileNotFoundError:
            raise BackendError("--slurm: there is no sbatch here: start the sweep on a login node") from None
        except subprocess.TimeoutExpired:
            raise BackendError("--slurm: sbatch does not answer within a minute") from None
    if told.returncode:
        words = " ".join(told.stderr.split())
        raise BackendError(
            f"--slurm: SLURM refuses the jobs ({words}); [slurm] in the sweep's file sets what they ask for"
        )


def _source_folder() -> list[str]:
    """The folder this package is imported from, where Python would not find it by itself (a checkout)."""
    folder = str(Path(__file__).resolve().parents[2])
    return [] if folder.endswith("site-packages") else [folder]


def _gather(
    client: Any,
    distributed: Any,
    function: Callable[..., Any],
    jobs: Mapping[str, Sequence[Any]],
    notice: Callable[[str], None],
    note: Callable[[str], None],
) -> Iterator[tuple[str, Any]]:
    # keys of its own for every session: an old client's results on a running scheduler are not taken for ours
    tag = os.urandom(4).hex()
    names = {f"ssmtheory-{tag}-{i}": key for i, key in enumerate(jobs)}
    columns = list(zip(*jobs.values(), strict=True))
    futures = {f.key: f for f in client.map(function, *columns, key=list(names), pure=False, batch_size=1000)}
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for future in futures.values():
        future.add_done_callback(inbox.put)
    client.subscribe_topic(_TOPIC, lambda event: inbox.put(str(event[1])))
    idle = 0.0
    try:
        while futures:
            try:
                future = inbox.get(timeout=_TICK)
            except queue.Empty:
                _look(client)
                # workers that take long to come are worth a line, one that works long is not
                idle = 0.0 if client.scheduler_info(n_workers=0).get("n_workers", 0) else idle + _TICK
                if idle == 10 * _TICK:
                    notice("waiting for workers")
                continue
            if isinstance(future, str):
                note(future)
                continue
            future = futures.pop(future.key)
            if future.status == "finished":
                yield names[future.key], future.result(timeout=60)
            elif future.status == "error":
                error = future.exception(timeout=60)
                if not isinstance(error, distributed.scheduler.KilledWorker):
                    raise error
                yield names[future.key], Died(f"{error.allowed_failures + 1} workers died while computing it")
            else:
                # cancelled: it is the scheduler that is lost, whatever the client says about this one call
                raise BackendError("the Dask scheduler is lost; what had finished is kept: the same command goes on")
            future.release()
    finally:
        client.cancel(list(futures.values()), force=True)


def telling() -> Callable[[str], None] | None:
    """Within a call on a worker: a function that shows a line to whoever watches, every few seconds at most.

    None where the call is not on a worker.
    """
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        worker = distributed.get_worker()
    except ValueError:
        return None
    last = 0.0

    def tell(message: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 5.0:
            last = now
            worker.log_event(_TOPIC, message)

    return tell


def _look(client: Any) -> None:
    if client.status not in ("running", "newly-created"):
        raise BackendError("the Dask scheduler is lost; what had finished is kept: the same command goes on")
