"""The C sources of this folder, each compiled at install into a library of its own that ctypes loads.

An install without a C compiler succeeds without them; :func:`load` then says what to do.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

from ssmtheory.errors import BackendError

__all__ = ["library_path", "load"]


def library_path(name: str) -> Path | None:
    """Return where `name`.c was compiled to, or None where the package was installed without a compiler.

    Args:
        name: stem of a C source of this folder, such as "kernel".
    """
    found = sorted(Path(__file__).parent.glob(f"_{name}*.so"))
    return found[0] if found else None


def load(name: str, path: Path | None) -> ctypes.CDLL:
    """Load a compiled source.

    Args:
        name: stem of the C source.
        path: what :func:`library_path` found.

    Raises:
        BackendError: the package was installed on a machine without a C compiler.
    """
    if path is None:
        raise BackendError(
            f"backend 'c': {name}.c was not compiled when ssmtheory was installed. "
            "Install a C compiler and run: pip install --force-reinstall --no-deps ssmtheory; "
            "or choose backend='numpy', 'torch' or 'jax'"
        )
    return ctypes.CDLL(str(path))


def stale(name: str, path: Path | None) -> BackendError:
    """The error for a library that does not fit this Python code."""
    return BackendError(
        f"backend 'c': {path} was compiled from another version of {name}.c. Reinstall the package to compile it "
        "again, or choose backend='numpy', 'torch' or 'jax'"
    )
