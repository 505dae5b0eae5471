"""Files that ship with the package, found the same way in a checkout and in an installed wheel.

The folders `experiments/`, `figures/` and `paper_repro/` stand at the top of a checkout. The wheel carries them
as `ssmtheory/_shipped/`. Everything else stands inside the package itself.
"""

from __future__ import annotations

import json
from pathlib import Path

from ssmtheory.errors import InputError, nearest

__all__ = ["KINDS", "build_commit", "folder", "names", "resource"]

_PACKAGE = Path(__file__).resolve().parent

#: kind -> (folder below the root, file-name patterns, whether the root is the top of a checkout or the package).
KINDS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "preset": ("experiments", ("*.toml",), "top"),
    "figure": ("figures", ("*.py",), "top"),
    "gallery": ("figures/gallery", ("*.png",), "top"),
    "claims": ("paper_repro", ("*/claims.toml",), "top"),
    "weights": ("mamba/pretrained", ("*", "*/*", "*/*/*"), "package"),
    "corpus": ("data/corpora", ("*.xz",), "package"),
    "kernel": ("scan", ("*.c",), "package"),
    "references": (".", ("references.bib",), "package"),
}


def folder(kind: str) -> Path:
    """The folder that holds the shipped files of one kind (it may be absent: a kind with no files yet).

    Args:
        kind: one of `KINDS`.

    Raises:
        InputError: no such kind.
    """
    if kind not in KINDS:
        raise InputError(f"no resource kind {kind!r}; there are {', '.join(KINDS)}.{nearest(kind, KINDS)}")
    below, _, root = KINDS[kind]
    if root == "package":
        return _PACKAGE / below
    shipped = _PACKAGE / "_shipped"
    return (shipped if shipped.is_dir() else _PACKAGE.parent) / below


def names(kind: str) -> list[str]:
    """Names of the shipped files of one kind, sorted, relative to `folder`.

    >>> "references.bib" in names("references")
    True
    """
    base = folder(kind)
    found = {
        path for pattern in KINDS[kind][1] for path in base.glob(pattern) if path.is_file() and path.name[0] not in "._"
    }
    return sorted(path.relative_to(base).as_posix() for path in found)


def resource(kind: str, name: str) -> Path:
    """Path of one shipped file or folder.

    Args:
        kind: one of `KINDS`.
        name: relative to the folder of that kind, as `names` lists it.

    Raises:
        InputError: no such kind, or nothing of that name; the message names the closest.
    """
    base = folder(kind)
    path = base / name
    if not path.resolve().is_relative_to(base.resolve()) or not path.exists():
        known = names(kind)
        listed = f"there are {', '.join(known)}" if known else "this installation carries none"
        raise InputError(f"no {kind} {name!r}; {listed}.{nearest(name, known)}")
    return path


def build_commit() -> str | None:
    """Commit that this installed copy was built from ("+dirty" where files were changed); None in a checkout.

    An installed wheel has no git to ask, so the build writes its commit into the package.
    """
    path = _PACKAGE / "_build.json"
    return json.loads(path.read_text(encoding="utf-8"))["git_commit"] if path.is_file() else None
