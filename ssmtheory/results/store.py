"""Run directories: one per resolved configuration and model, resumable at every moment, finished when it says so.

```
runs/<experiment>-<10 hex digits>/
  run.json       state ("running" or "complete"), configuration, provenance, counts, seconds, content_sha256
  data.zarr/     the dataset: xarray DataTree, zarr v3; appears in one step
  figures/       each file appears in one step
  ledger/        one line per finished task, with the sha256 of its part; append-only, one file per writer
  parts/         one file per finished task; removed when the run is complete
  failed/        one file per task that a sweep could not do: traceback, configuration, versions
  work/<task>/   checkpoints of a long task's own; removed when the run is complete
  lock           while a process works here
```
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import secrets
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ssmtheory.errors import StoreError
from ssmtheory.results import fs, provenance

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

__all__ = ["Part", "RunStore", "Session", "array_sha256", "content_sha256", "open_data", "open_run", "read_record"]

FORMAT = "ssmtheory-run-1"


# ---------------------------------------------------------------------------------------------------- datasets


def _canonical(values: np.ndarray) -> bytes:
    """Bytes of an array: C order, little-endian; one NaN for all NaNs, since zarr may drop a chunk that is all NaN."""
    import numpy as np

    if values.dtype.kind in "UTO":
        encoded = [str(text).encode() for text in values.ravel()]
        return b"".join(len(text).to_bytes(8, "little") + text for text in encoded)
    values = np.ascontiguousarray(values)
    if values.dtype.kind in "fc":
        bad = np.isnan(values)
        if bad.any():
            values = values.copy()
            values[bad] = np.nan if values.dtype.kind == "f" else complex(np.nan, np.nan)
    if values.dtype.byteorder == ">" or (values.dtype.byteorder == "=" and sys.byteorder == "big"):
        values = values.astype(values.dtype.newbyteorder("<"))
    return values.tobytes()


def array_sha256(tree: xr.DataTree) -> dict[str, str]:
    """Digest of each array of a dataset: "group/variable" -> 64 hex digits, over dimensions, dtype, shape and values.

    Attributes, chunks, compression and byte order do not matter; all NaNs are one NaN.
    """
    from ssmtheory.results.schema import dtype_name

    digests = {}
    for node in tree.subtree:
        dataset = node.to_dataset(inherit=False)
        for name, variable in dataset.variables.items():
            header = [list(map(str, variable.dims)), dtype_name(variable.dtype), list(variable.shape)]
            digest = hashlib.sha256(json.dumps(header).encode() + b"\n")
            digest.update(_canonical(variable.values))
            path = "" if node is tree else node.relative_to(tree)
            digests[f"{path}/{name}".lstrip("/")] = digest.hexdigest()
    return dict(sorted(digests.items()))


def content_sha256(tree: xr.DataTree) -> str:
    """Digest of a dataset: of its arrays' names and digests (`array_sha256`), sorted by name; 64 hex digits."""
    return combine(array_sha256(tree))


def combine(digests: Mapping[str, str]) -> str:
    """The content_sha256 that follows from the arrays' digests."""
    text = json.dumps(digests, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(b"ssmtheory-content-1\n" + text.encode()).hexdigest()


def write_data(tree: xr.DataTree, target: Path) -> None:
    """Write a DataTree as zarr v3 without consolidated metadata; unwritten complex values read as NaN, not 0."""
    import numpy as np

    nan = complex(np.nan, np.nan)
    encoding: dict[str, dict[str, Any]] = {}
    tree = tree.copy()
    for node in tree.subtree:
        dataset = node.to_dataset(inherit=False)
        texts = {}
        for name, variable in dataset.variables.items():
            variable.encoding = {}
            if variable.dtype.kind == "c":
                encoding.setdefault(node.path, {})[str(name)] = {"fill_value": nan}
            elif variable.dtype.kind in "UO":  # fixed-width text has no zarr v3 specification
                # dimension, values, attributes: also right for an index coordinate
                texts[name] = (variable.dims, variable.values.astype(np.dtypes.StringDType()), variable.attrs)
        if texts:
            node.dataset = dataset.assign({k: v for k, v in texts.items() if k not in dataset.coords}).assign_coords(
                {k: v for k, v in texts.items() if k in dataset.coords}
            )
    tree.to_zarr(target, mode="w", zarr_format=3, consolidated=False, encoding=encoding)


def open_data(path: str | os.PathLike[str]) -> xr.DataTree:
    """Open a `data.zarr`; arrays are read when touched.

    Raises:
        StoreError: there is no readable dataset at `path`.
    """
    import xarray as xr

    try:
        return xr.open_datatree(path, engine="zarr", consolidated=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is no readable zarr dataset: {error}") from error


def read_record(folder: Path) -> dict[str, Any]:
    """The `run.json` of a run.

    Raises:
        StoreError: it is missing, damaged, or of a newer format.
    """
    path = folder / "run.json"
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise StoreError(f"{folder} is not a run: it has no run.json") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise StoreError(
            f"{path} is damaged ({error}); delete it to go on from the finished parts, "
            "or use --fresh to run it all again"
        ) from None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from None
    if (
        not isinstance(record, dict)
        or record.get("format") != FORMAT
        or record.get("state") not in ("running", "complete")
    ):
        raise StoreError(
            f"{path} is not the record of a run (format {FORMAT}); delete it to go on from the finished parts, "
            "or use --fresh to run it all again"
        )
    return record


def open_run(folder: str | os.PathLike[str]) -> xr.DataTree:
    """The dataset of a complete run, by its folder.

    Raises:
        StoreError: the folder is not a run, or the run is not complete.
    """
    folder = Path(folder)
    if read_record(folder)["state"] != "complete":
        raise StoreError(f"{folder} is not complete; the command that started it goes on from there")
    return open_data(folder / "data.zarr")


# ---------------------------------------------------------------------------------------------------- parts


class Part(Mapping[str, "np.ndarray"]):
    """The arrays of one finished task; each is read from its file when asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with zipfile.ZipFile(path) as archive:
            self._names = [name.removesuffix(".npy") for name in archive.namelist()]

    def __getitem__(self, name: str) -> np.ndarray:
        import numpy as np

        if name not in self._names:
            raise KeyError(name)
        with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as file:
            return np.lib.format.read_array(file, allow_pickle=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _write_part(path: Path, arrays: Mapping[str, Any]) -> None:
    import numpy as np

    # not np.savez: an array may be called "file", and objects must be an error
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, value in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(value), allow_pickle=False)


def _file_name(key: str) -> str:
    """A file name for a task: the key where it is one already, else made safe and told apart by a digest.

    >>> _file_name("seq-3")
    'seq-3'
    """
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", key)[:80]
    plain = safe == key and not key.startswith(".")
    return key if plain else f"{safe.lstrip('.')}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


# ---------------------------------------------------------------------------------------------------- sessions

_own: dict[tuple[str, int], str] = {}  # (session, process) -> name of the ledger file that this process alone writes


@dataclass(frozen=True)
class Session:
    """What a process needs to write into a run that another process, the driver, holds open; small, can be sent.

    Every process appends to a ledger file of its own, and every session gives its parts names of its own. A process
    that outlives its driver therefore disturbs nobody: what it still finishes counts, unless the run was begun afresh,
    which removes the session's first file; without that file nothing is written.

    folder: the run's; name: of the session; code_sha256: of the sources that the driver runs.
    """

    folder: Path
    name: str
    code_sha256: str

    def path(self, key: str) -> Path:
        """The file for a task's part."""
        return self.folder / "parts" / f"{_file_name(key)}.{self.name}.npz"

    def append(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Enter a fact about a task, durable already, into this process's ledger; returns the whole line.

        Raises:
            StoreError: the run was begun afresh or removed since the session began.
        """
        ledger = self.folder / "ledger"
        if not (ledger / f"{self.name}.jsonl").is_file():
            raise StoreError(f"{self.folder} was begun afresh or removed: this session's results are no longer wanted")
        mine = (str(ledger / self.name), os.getpid())
        if mine not in _own:
            host = re.sub(r"[^A-Za-z0-9]", "_", platform.node())[:40]
            _own[mine] = f"{self.name}-{host}-{os.getpid()}-{secrets.token_hex(3)}.jsonl"
        line = {**entry, "utc": provenance.utc_now(), "version": provenance.version(), "code_sha256": self.code_sha256}
        with fs.store_errors(ledger):
            fs.append_line(ledger / _own[mine], line)
        return line

    def save_part(self, key: str, arrays: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Make a task's result durable, then enter it into the ledger; returns its line."""
        return self.append(_save_part(key, self.path(key), arrays, seconds))

    def keep_failure(self, key: str, facts: Mapping[str, Any]) -> str:
        """Keep why something failed, as failed/<key>.json; returns the file's name, for the ledger."""
        path = self.folder / "failed" / f"{_file_name(key)}.json"
        with fs.store_errors(path):
            fs.write_file(path, json.dumps({"task": key, **facts}, indent=1, default=str).encode() + b"\n")
        return path.name

    def save_failure(self, key: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Keep why a task failed, and enter it into the ledger; returns its line."""
        return self.append({"task": key, "failed": self.keep_failure(key, facts)})

    @contextlib.contextmanager
    def workdir(self, key: str, group: str = "") -> Iterator[Path]:
        """The durable folder of a long task, for this process alone: one that is left from a dead driver is waited for.

        Args:
            key: of the task.
            group: of tasks whose folders are dropped together (a point of a sweep).

        Raises:
            StoreError: the folder cannot be made.
        """
        inner = f"{_file_name(group)}/{_file_name(key)}" if group else _file_name(key)
        path, guard = self.folder / "work" / inner, self.folder / "work" / ".locks" / inner
        with fs.store_errors(path):
            fs.make_folder(path)
            fs.make_folder(guard)
            lock = fs.Lock(guard)
            while True:
                try:
                    lock.acquire()
                    break
                except StoreError:
                    time.sleep(1.0)
        try:
            yield path
        finally:
            lock.release()

    def drop_workdirs(self, group: str) -> None:
        """Remove the folders of a group whose results are durable."""
        for folder in (self.folder / "work", self.folder / "work" / ".locks"):
            with fs.store_errors(folder):
                fs.discard(folder / _file_name(group))


def _save_part(key: str, path: Path, arrays: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Make a task's result durable; returns what the ledger is to say about it."""
    for name, value in arrays.items():
        if getattr(getattr(value, "dtype", None), "hasobject", False):
            raise StoreError(f"task {key!r}: {name} is an array of objects, which no part can hold")
    with fs.store_errors(path):
        fs.write_file(path, lambda scratch: _write_part(scratch, arrays))
        return {
            "task": key,
            "file": path.name,
            "sha256": fs.file_sha256(path),
            "bytes": path.stat().st_size,
            "seconds": round(seconds, 3),
        }


# ---------------------------------------------------------------------------------------------------- runs


def code_sha256() -> str:
    """Digest of the package's Python and C sources: tells whether two parts were made by the same code."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted([*root.rglob("*.py"), *root.rglob("*.c")]):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@dataclass
class RunStore:
    """One run directory. `with store.open(...)` takes the lock; only then may anything be written.

    root: the folder that holds the runs; id: from `provenance.run_id`; tasks: keys of all tasks.
    notices: called with one line for each thing the user should know (a damaged part, parts of an older version).
    """

    root: Path
    id: str
    experiment: str
    tasks: list[str]
    facts: Mapping[str, Any]
    notice: Callable[[str], None] = lambda line: None
    keep_work: bool = False
    done: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)
    failed: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)
    record: dict[str, Any] = field(default_factory=dict, init=False)

    #: folder of the finished work, and what a ledger line must say for the work to count
    WORK: ClassVar[str] = "parts"
    FACTS: ClassVar[frozenset[str]] = frozenset({"file", "sha256", "version", "code_sha256"})

    def __post_init__(self) -> None:
        if len(set(self.tasks)) != len(self.tasks):
            raise StoreError(f"{self.id}: task keys are not unique")
        self._ledger: Path | None = None
        self._code = ""

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.root / self.id

    def state(self) -> tuple[str, int]:
        """What is on disk, read-only: ("none" | "running" | "complete", number of tasks done by the ledger's word)."""
        if not (self.folder / "run.json").exists():
            return ("running", len(self._ledger_entries())) if self.folder.exists() else ("none", 0)
        record = read_record(self.folder)
        if record["state"] == "complete":
            return "complete", len(self.tasks)
        return "running", len(self._ledger_entries())

    @contextlib.contextmanager
    def open(self, *, fresh: bool = False, argv: list[str] | None = None) -> Iterator[RunStore]:
        """Lock the run, clear what a killed process left half-written, and read which tasks are done.

        A run that is complete is left as it is (`record["state"] == "complete"`) unless `fresh`.

        Raises:
            StoreError: another process has the lock, the folder cannot be written, or run.json is damaged.
        """
        if not fresh and self._finished():
            yield self  # nothing will be written: neither a lock nor a writable folder is needed
            return
        with fs.store_errors(self.folder):
            fs.make_folder(self.folder)
            lock = fs.Lock(self.folder)
            lock.acquire()
        try:
            with fs.store_errors(self.folder):
                self._start(fresh, argv)
            yield self
        finally:
            lock.release()

    def _finished(self) -> bool:
        """Whether the run is complete and tidy; its record is read if so."""
        if not (self.folder / "run.json").is_file():
            return False
        self.record = read_record(self.folder)
        left = any((self.folder / name).exists() for name in (self.WORK, "work", "lock"))
        return self.record["state"] == "complete" and not left

    def _start(self, fresh: bool, argv: list[str] | None) -> None:
        fs.clear_temporaries(self.folder)
        exists = (self.folder / "run.json").exists()
        if exists and not fresh:
            self.record = read_record(self.folder)
            if self.record["state"] == "complete":
                self._tidy()
                return
        session = provenance.volatile(argv)
        self._code = code_sha256()
        old = self.record
        self.record = {
            "format": FORMAT,
            "state": "running",
            "run": self.id,
            "experiment": self.experiment,
            **self.facts,
            "ssmtheory_version": provenance.version(),
            "provenance": {**session, "code_sha256": self._code},
            "earlier_sessions": [*old.get("earlier_sessions", []), old["provenance"]] if old else [],
        }
        self._write_record()
        if fresh:
            for name in ("ledger", self.WORK, "work", "failed", "figures"):
                fs.discard(self.folder / name)
        # left from --fresh, or from a kill between the dataset and the record that would have called it complete
        fs.discard(self.folder / "data.zarr")
        for name in ("ledger", self.WORK):
            fs.make_folder(self.folder / name)
        self._clear_temporaries()
        self._read_ledger()
        taken = {path.name[:4] for path in (self.folder / "ledger").glob("*.jsonl")}
        number = next(n for n in range(len(taken) + 1) if f"{n:04d}" not in taken)
        self._ledger = self.folder / "ledger" / f"{number:04d}.jsonl"

    def _clear_temporaries(self) -> None:
        for name in ("ledger", self.WORK, "failed"):
            fs.clear_temporaries(self.folder / name)

    def session(self, total: int) -> Session:
        """Let other processes write: begin a session of theirs, durably, and return what they need to know.

        Args:
            total: points or tasks of the whole run, for whoever looks at how far it is.
        """
        assert self._ledger is not None
        name = f"{self._ledger.stem}-{secrets.token_hex(4)}"
        with fs.store_errors(self.folder):
            fs.make_folder(self.folder / "failed")
            fs.append_line(
                self.folder / "ledger" / f"{name}.jsonl", {"session": name, "total": total, "utc": provenance.utc_now()}
            )
        return Session(self.folder.absolute(), name, self._code)

    def _write_record(self) -> None:
        text = json.dumps(self.record, indent=1, sort_keys=False, default=str) + "\n"
        fs.write_file(self.folder / "run.json", text.encode())

    def entries(self) -> dict[str, dict[str, Any]]:
        """What the ledger says is done, read without a lock and not checked against the work itself."""
        return self._ledger_entries()

    def _ledger_entries(self) -> dict[str, dict[str, Any]]:
        wanted, entries = set(self.tasks), {}
        self.failed = {}
        for path in sorted((self.folder / "ledger").glob("*.jsonl")):
            for entry in fs.read_lines(path):
                if entry.get("task") not in wanted:
                    continue
                if entry.keys() >= self.FACTS:
                    entries[entry["task"]] = entry
                elif "failed" in entry:
                    self.failed[entry["task"]] = entry
        self.failed = {key: entry for key, entry in self.failed.items() if key not in entries}
        return entries

    def _defect(self, entry: Mapping[str, Any]) -> str | None:
        """What is wrong with the work that a ledger line speaks of; None where it is whole."""
        path = self.folder / self.WORK / entry["file"]
        if not path.is_file():
            return f"the part of {entry['task']!r} is gone"
        if fs.file_sha256(path) != entry["sha256"]:
            return f"the part of {entry['task']!r} is damaged ({path.name} does not match its sha256)"
        return None

    def _read_ledger(self) -> None:
        """Fill `done` with the tasks whose part is there, whole, and of this version."""
        for path in (self.folder / "ledger").glob("*.jsonl"):
            fs.heal(path)
        self.done = {}
        entries = self._ledger_entries()
        stale = sorted({e["version"] for e in entries.values()} - {provenance.version()})
        if stale:
            self.notice(f"parts made by version {', '.join(stale)} are computed again by {provenance.version()}")
        for key, entry in entries.items():
            if entry["version"] in stale:
                continue
            defect = self._defect(entry)
            if defect is None:
                self.done[key] = entry
            else:
                self.notice(f"{defect}: computed again")
        other = sum(entry["code_sha256"] != self._code for entry in self.done.values())
        if other:
            self.notice(
                f"{other} of the finished parts were made before the source code changed (--fresh runs all again)"
            )

    def workdir(self, key: str) -> Path:
        """The durable folder of a long task; there until the run is complete."""
        path = self.folder / "work" / _file_name(key)
        with fs.store_errors(path):
            fs.make_folder(path)
        return path

    def save_part(self, key: str, arrays: Mapping[str, Any], seconds: float) -> None:
        """Make a task's result durable, then enter it into the ledger: in that order, so that an entry means a part."""
        assert self._ledger is not None
        path = self.folder / self.WORK / f"{_file_name(key)}.npz"
        entry = _save_part(key, path, arrays, seconds)
        entry |= {"utc": provenance.utc_now(), "version": provenance.version(), "code_sha256": self._code}
        with fs.store_errors(path):
            fs.append_line(self._ledger, entry)
        self.done[key] = entry
        self.failed.pop(key, None)

    def parts(self) -> dict[str, Part]:
        """The finished parts, in the order of the tasks; arrays are read when touched."""
        return {key: Part(self.folder / self.WORK / self.done[key]["file"]) for key in self.tasks}

    def save_data(self, tree: xr.DataTree) -> dict[str, str]:
        """Write the dataset under a temporary name, read it back, and give it its name; returns `array_sha256`."""
        digests = array_sha256(tree)
        target = self.folder / "data.zarr"
        with fs.store_errors(target):
            scratch = fs.temporary(target)
            try:
                write_data(tree, scratch)
                written = open_data(scratch)
                # an encoding that loses a bit must not pass for the result
                if array_sha256(written) != digests:
                    raise StoreError(f"{target}: what was written does not read back equal; nothing was kept")
                written.close()
                fs.publish(scratch, target)
            except BaseException:
                if scratch.exists():
                    fs.discard(scratch)
                raise
        return digests

    def save_figures(self, write: Callable[[Path], list[str]]) -> list[str]:
        """Let `write(folder)` put files into a scratch folder, then replace each in figures/; returns their names."""
        target = self.folder / "figures"
        with fs.store_errors(target):
            scratch = fs.temporary(target)
            scratch.mkdir()
            try:
                names = write(scratch)
                fs.make_folder(target)
                for name in names:
                    fs.publish(scratch / name, target / name)
                for path in target.iterdir():
                    if path.name not in names:
                        path.unlink()
            finally:
                for path in scratch.iterdir():
                    path.unlink()
                scratch.rmdir()
        return names

    def complete(self, **facts: Any) -> None:
        """Say that the run is complete: all else is durable by now. Then remove what only an unfinished run needs."""
        seconds = sum(entry["seconds"] for entry in self.done.values())
        codes = sorted({entry["code_sha256"] for entry in self.done.values()})
        self.record = {
            **self.record,
            "state": "complete",
            "tasks": {"total": len(self.tasks), "done": len(self.done)},
            "seconds": {"tasks": round(seconds, 3)},
            "task_code_sha256": codes,
            "completed_utc": provenance.utc_now(),
            **facts,
        }
        with fs.store_errors(self.folder):
            self._write_record()
            self._tidy()

    def _tidy(self) -> None:
        fs.discard(self.folder / self.WORK)
        if self.record["tasks"]["done"] == self.record["tasks"]["total"]:  # else failures were accepted: they are kept
            fs.discard(self.folder / "failed")
        if not self.keep_work:
            fs.discard(self.folder / "work")
