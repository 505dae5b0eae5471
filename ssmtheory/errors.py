"""Errors a user can meet, each with the exit code the command line returns for it.

Every message says what is wrong, then what to do. `guarded` is the one place that turns an error into a line on stderr
and an exit code; every command goes through it.

| code | meaning |
|---|---|
| 0 | done, or nothing to do |
| 1 | a value, file, checkpoint, optional package, backend or store is at fault |
| 2 | the command line or a configuration file is at fault |
| 3 | some points of a sweep failed; the others are done |
| 70 | a fault in ssmtheory itself; `SSMTHEORY_DEBUG=1` shows where |
| 130 | interrupted (Ctrl-C); finished tasks are kept |
| 141 | whoever read the output stopped reading (a pipe into `head`) |
"""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import sys
from collections.abc import Callable, Iterable
from types import ModuleType

__all__ = [
    "BackendError",
    "CheckpointError",
    "ConfigError",
    "InputError",
    "Interrupted",
    "MissingDependencyError",
    "SelfCheckError",
    "SsmTheoryError",
    "StoreError",
    "SweepError",
    "guarded",
    "nearest",
    "require",
]


class SsmTheoryError(Exception):
    """Base of every error this package raises on purpose; `exit_code` is what the command line returns."""

    exit_code: int = 1


class InputError(SsmTheoryError, ValueError):
    """A value or a file that was given cannot be used."""


class CheckpointError(InputError):
    """A model checkpoint is damaged, incomplete, unsafe or contradicts its own configuration."""


class ConfigError(SsmTheoryError, ValueError):
    """The command line or a configuration file is wrong: an unknown option or key, a missing or ill-typed value."""

    exit_code = 2


class MissingDependencyError(SsmTheoryError, ImportError):
    """An optional package is needed; the message ends with the pip line that installs it."""


class BackendError(SsmTheoryError):
    """A named backend cannot do what was asked of it here."""


class StoreError(SsmTheoryError):
    """A run cannot be read or written: disk full, read-only folder, damaged or unfinished run."""


class SweepError(SsmTheoryError):
    """Some points of a sweep failed; the others are done, and the failures are on record."""

    exit_code = 3


class SelfCheckError(SsmTheoryError):
    """A model adapter disagrees with its peer, or with itself evaluated another way."""


class Interrupted(SsmTheoryError):
    """Stopped by Ctrl-C or SIGTERM; what had finished is on disk."""

    exit_code = 130


def nearest(value: object, allowed: Iterable[object]) -> str:
    """The closest allowed name, as the end of an error message.

    Args:
        value: what was given.
        allowed: the names that would have been accepted.

    Returns:
        `" Did you mean 'x'?"`, or `""` where nothing is close.

    >>> nearest("tiny-mmaba", ["tiny-mamba", "falcon"])
    " Did you mean 'tiny-mamba'?"
    >>> nearest("zzz", ["tiny-mamba"])
    ''
    """
    found = difflib.get_close_matches(str(value), [str(name) for name in allowed], n=1, cutoff=0.6)
    return f" Did you mean {found[0]!r}?" if found else ""


def require(module: str, extra: str, purpose: str = "this") -> ModuleType:
    """Import an optional package.

    Args:
        module: dotted name of the module to import.
        extra: the extra of `ssmtheory` that installs it.
        purpose: what needs it; the subject of the message.

    Returns:
        The imported module.

    Raises:
        MissingDependencyError: the package is not installed. A package that is installed but itself fails on import
            raises its own error: that is a broken installation, not a missing one.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name is not None and error.name.partition(".")[0] != top:
            raise
        raise MissingDependencyError(f"{purpose} needs {top}: pip install 'ssmtheory[{extra}]'") from error


#: What the system says about a place that cannot be written, and what to do about it.
_PLACES = {
    errno.ENOSPC: "no space left on the disk: free some, or choose another folder with --out",
    errno.EDQUOT: "the disk quota is used up: free some, or choose another folder with --out",
    errno.EROFS: "the file system is read-only: choose another folder with --out",
    errno.EACCES: "permission denied: choose a folder you may use (--out for results)",
    errno.EPERM: "not permitted: choose a folder you may use (--out for results)",
}


def _line(error: BaseException) -> tuple[str, int]:
    """The line that a user sees, and the exit code."""
    if isinstance(error, Interrupted):
        return str(error) or "interrupted", error.exit_code
    if isinstance(error, SsmTheoryError):
        return f"error: {error}", error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", Interrupted.exit_code
    if isinstance(error, OSError) and error.errno in _PLACES:
        where = f"{error.filename}: " if error.filename else ""
        return f"error: {where}{_PLACES[error.errno]}", StoreError.exit_code
    if isinstance(error, MemoryError):
        return "error: not enough memory: take fewer --tokens or --sequences", 1
    text = " ".join(str(error).split())
    return f"error: {type(error).__name__}: {text} (a fault in ssmtheory: SSMTHEORY_DEBUG=1 shows where)", 70


def guarded(command: Callable[[], int | None]) -> int:
    """Run a command and return its exit code; an error becomes one line on stderr instead of a traceback.

    Args:
        command: called without arguments; its return value is the exit code, None for 0.

    Returns:
        The exit code of this module's table. With `SSMTHEORY_DEBUG=1` in the environment every error is raised.
    """
    try:
        code = command() or 0
        sys.stdout.flush()
    except BrokenPipeError:
        # the interpreter flushes stdout once more at exit, which would print the error that is kept quiet here
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("SSMTHEORY_DEBUG") == "1":
            raise
        line, code = _line(error)
        print(line, file=sys.stderr)
    return code
