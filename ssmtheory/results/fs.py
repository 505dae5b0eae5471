"""Durable file operations: the only place in the package where results are renamed, fsynced or deleted.

A name appears only when what it names is on disk: write under a temporary name, fsync the file, rename, fsync the
folder. `fsync` and `rename` are the primitives every other function goes through, so that tests can stop the process at
each.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from ssmtheory.errors import StoreError

__all__ = [
    "Lock",
    "append_line",
    "clear_temporaries",
    "discard",
    "file_sha256",
    "fsync",
    "fsync_tree",
    "make_folder",
    "publish",
    "read_lines",
    "rename",
    "store_errors",
    "temporary",
    "write_file",
]

# a dot keeps them out of globs and shells; cleared by whoever holds the run's lock
_TEMPORARY = ".tmp-"
# two machines on one file system may have processes of the same number
_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:6]

_WHY = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file system allows no file this large",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission to write there",
    errno.EPERM: "no permission to write there",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "a file of that name is in the way",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EIO: "the disk reports an input/output error",
    errno.ENOLCK: "the file system has no file locks",
}


@contextlib.contextmanager
def store_errors(where: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an `OSError` of the block into a `StoreError` that says in one line what is wrong and what to do."""
    try:
        yield
    except OSError as error:
        path = error.filename or where
        why = _WHY.get(error.errno or 0, os.strerror(error.errno) if error.errno else str(error))
        advice = "free some space, then run the same command: it goes on from there"
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENOLCK):
            advice = "choose another folder with --out DIR"
        elif error.errno not in (errno.ENOSPC, errno.EDQUOT):
            advice = "what had finished is kept"
        raise StoreError(f"cannot write {os.fspath(path)!s}: {why}; {advice}") from error


def fsync(path: str | os.PathLike[str]) -> None:
    """Force a file or a folder (its list of names) to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Rename; an existing target file is replaced atomically."""
    os.replace(source, target)


def make_folder(path: Path) -> None:
    """Create a folder and its parents durably; nothing happens if it is there."""
    missing = []
    at = path
    while not at.is_dir():
        missing.append(at)
        at = at.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        fsync(folder.parent)


def temporary(target: Path) -> Path:
    """A temporary name beside `target`, for this process only."""
    return target.with_name(f"{_TEMPORARY}{_HOST}-{os.getpid()}-{target.name}")


def fsync_tree(path: Path) -> None:
    """Force every file below a folder, every folder, and the folder itself to disk."""
    for folder, _, files in os.walk(path, topdown=False):
        for name in files:
            fsync(os.path.join(folder, name))
        fsync(folder)


def publish(source: Path, target: Path) -> None:
    """Give finished work its name: fsync `source` (a file or a folder), rename it to `target`, fsync the parent folder.

    A file at `target` is replaced in one step. A folder cannot be: it is moved aside first, so that at every moment
    `target` is the old one, absent, or the new one, never a mixture.
    """
    if source.is_dir():
        fsync_tree(source)
        if target.exists():
            discard(target)
    else:
        fsync(source)
    rename(source, target)
    fsync(target.parent)


def write_file(target: Path, write: Callable[[Path], object] | bytes) -> None:
    """Write a file in one step: bytes, or what `write(path)` puts under a temporary name."""
    scratch = temporary(target)
    try:
        if callable(write):
            write(scratch)
        else:
            scratch.write_bytes(write)
        publish(scratch, target)
    except BaseException:
        # a full disk or Ctrl-C: give the space back at once
        scratch.unlink(missing_ok=True)
        raise


def discard(path: Path) -> None:
    """Remove a file or folder: its name goes in one step, then its contents."""
    if not path.exists() and not path.is_symlink():
        return
    scratch = temporary(path).with_name(f"{temporary(path).name}-discarded")
    if scratch.exists():
        shutil.rmtree(scratch)
    rename(path, scratch)
    fsync(path.parent)
    if scratch.is_dir() and not scratch.is_symlink():
        shutil.rmtree(scratch)
    else:
        scratch.unlink()


def clear_temporaries(folder: Path) -> None:
    """Remove what a killed process left under temporary names in a folder (hold the lock)."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Append one JSON line to a ledger and force it to disk. One writer per file."""
    new = not path.exists()
    with open(path, "ab") as file:
        file.write(json.dumps(record, sort_keys=True).encode() + b"\n")
    fsync(path)
    if new:
        fsync(path.parent)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a ledger; a torn last line (the writer was killed in it) is ignored.

    An unreadable line elsewhere is damage, not a torn tail: it is skipped too, since a missing line only means that its
    task is done again.
    """
    records = []
    for line in path.read_bytes().split(b"\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def heal(path: Path) -> None:
    """Cut a ledger's torn tail off, so that the next line starts on a line of its own."""
    size = path.stat().st_size
    if size == 0:
        return
    data = path.read_bytes()
    good = data.rfind(b"\n") + 1
    if good != size:
        with open(path, "r+b") as file:
            file.truncate(good)
        fsync(path)


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Lock:
    """Only one process works on a run: an advisory POSIX lock on `<run>/lock`, which says who holds it.

    The kernel drops the lock when its process ends, however it ends: a dead process leaves a stale file, never a lock.
    """

    _held: ClassVar[set[str]] = set()  # POSIX locks do not exclude threads of one process

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lock"
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock, or raise `StoreError` naming the process that has it."""
        name = os.path.abspath(self.path)
        if name in Lock._held:
            raise StoreError(f"{self.path.parent} is being written by this process already")
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
                os.close(descriptor)
                raise StoreError(
                    f"{self.path.parent} is being written by {holder}; wait for it, or stop it and run this again"
                ) from None
            except OSError:
                os.close(descriptor)
                raise
            try:
                current = os.stat(self.path).st_ino == os.fstat(descriptor).st_ino
            except FileNotFoundError:
                current = False
            if current:
                break
            os.close(descriptor)  # its last holder removed this file while we opened it
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
        self._descriptor = descriptor
        Lock._held.add(name)

    def release(self) -> None:
        """Remove the file and drop the lock."""
        if self._descriptor is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None
            Lock._held.discard(os.path.abspath(self.path))

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
