"""Errors a user can meet, each with the exit code the command line returns for it.

Every message is one sentence that says what is wrong, then what to do. Nothing else in the package exits the process;
:func:`ssmtheory.runner.main` and :mod:`ssmtheory.cli` turn these into ``error: ...`` on stderr.

==== =======================================================================
code meaning
==== =======================================================================
0    done, or nothing to do
1    a value, file, checkpoint, optional package, backend or store is at fault
2    the command line or a configuration file is at fault
130  interrupted (Ctrl-C); finished tasks are kept
==== =======================================================================
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
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
    "nearest",
    "require",
]


class SsmTheoryError(Exception):
    """Base of every error this package raises on purpose; ``exit_code`` is what the command line returns."""

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
        ``" Did you mean 'x'?"``, or ``""`` where nothing is close.

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
        extra: the extra of ``ssmtheory`` that installs it.
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
