"""Where a result comes from: deterministic facts that go into the dataset, volatile ones that go into run.json only.

Equal runs have equal root attributes and an equal `content_sha256`; time, host, paths and the command line differ, so
they never enter the dataset or a figure.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ssmtheory.errors import ConfigError
from ssmtheory.resources import build_commit

if TYPE_CHECKING:
    from ssmtheory.results.schema import DatasetSchema

__all__ = ["Stamp", "canonical_json", "config_sha256", "parse_stamps", "root_attributes", "run_id", "stamp", "volatile"]

PACKAGES = ("numpy", "scipy", "xarray", "zarr", "numcodecs", "matplotlib", "torch", "jax", "sympy", "safetensors")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY")


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # NumPy scalar
        return _plain(value.item(), where)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(f"{where}: {value} has no JSON form; use None or a string")
        return float(value)
    raise ConfigError(f"{where}: {type(value).__name__} has no JSON form")


def canonical_json(value: Any) -> str:
    """The one JSON text of a resolved configuration: keys sorted, no spaces, ASCII, tuples as lists, shortest floats.

    >>> canonical_json({"b": (1, 2.0), "a": None})
    '{"a":null,"b":[1,2.0]}'
    """
    return json.dumps(
        _plain(value, "config"), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def config_sha256(resolved: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON of a resolved configuration."""
    return hashlib.sha256(canonical_json(resolved).encode()).hexdigest()


def run_id(experiment: str, resolved: Mapping[str, Any], model_sha256: str | None) -> str:
    """ "<experiment>-<10 hex digits>": the identity of a run, from what decides its result and nothing else."""
    text = canonical_json({"experiment": experiment, "config": resolved, "model_sha256": model_sha256})
    return f"{experiment}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def version() -> str:
    """The package's version."""
    import ssmtheory

    return str(ssmtheory.__version__)


def root_attributes(
    *,
    experiment: str,
    title: str,
    resolved: Mapping[str, Any],
    model_sha256: str | None,
    schema: DatasetSchema,
) -> dict[str, str]:
    """The dataset's root attributes: deterministic, no path, host or time; an absent model or backend is ""."""
    from ssmtheory.results.schema import CONVENTIONS

    return {
        "Conventions": CONVENTIONS,
        "title": title,
        "experiment": experiment,
        "schema": schema.id,
        "config": canonical_json(resolved),
        "config_sha256": config_sha256(resolved),
        "model_sha256": model_sha256 or "",
        "ssmtheory_version": version(),
        "backend": str(resolved.get("backend") or ""),
        "dtype": str(resolved.get("dtype") or ""),
    }


class Stamp(NamedTuple):
    """What a figure says about its origin."""

    content_sha256: str
    run_id: str
    config_sha256: str
    commit: str


def stamp(run_id: str, content_sha256: str, config_sha256: str, commit: str | None) -> str:
    """The text a figure carries (PDF Keywords, PNG Description); `parse_stamps` reads it back.

    >>> stamp("demo-0123456789", "ab" * 32, "cd" * 32, None)[:48]
    'ssmtheory content ababababababababababababababab'
    """
    return f"ssmtheory content {content_sha256} run {run_id} config {config_sha256} commit {commit or 'unknown'}"


# what follows in the file (a PNG's checksum) may look like text: every field but the name has a fixed length
_STAMP = re.compile(
    r"ssmtheory content (?P<content>[0-9a-f]{64}) run (?P<run>[A-Za-z0-9_.-]+) config (?P<config>[0-9a-f]{64})"
    r" commit (?P<commit>(?:[0-9a-f]{64}|[0-9a-f]{40})(?:\+dirty)?|unknown)"
)


def parse_stamps(text: str) -> list[Stamp]:
    """The stamps found in a text, in order: a figure drawn from several runs carries one of each.

    >>> [s.run_id for s in parse_stamps(stamp("demo-0123456789", "ab" * 32, "cd" * 32, None))]
    ['demo-0123456789']
    """
    found = [Stamp(m["content"], m["run"], m["config"], m["commit"]) for m in _STAMP.finditer(text)]
    return list(dict.fromkeys(found))


def _git(*arguments: str) -> bytes | None:
    """Output of git in the folder this package's source lies in; None where there is no git or no checkout."""
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parents[1]), *arguments],
            capture_output=True,
            timeout=10,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def git_state() -> dict[str, Any]:
    """Commit of the source, and whether it was changed: git_commit, git_dirty, git_diff_sha256; None where unknown.

    An installed copy answers with the commit it was built from, a checkout with its own.
    """
    built = build_commit()
    if built is not None:
        return {
            "git_commit": built.removesuffix("+dirty"),
            "git_dirty": built.endswith("+dirty"),
            "git_diff_sha256": None,
        }
    nothing = {"git_commit": None, "git_dirty": None, "git_diff_sha256": None}
    # a wheel installed inside someone else's repository must not report that repository's commit
    if _git("ls-files", "--error-unmatch", str(Path(__file__))) is None:
        return nothing
    commit, diff = _git("rev-parse", "HEAD"), _git("diff", "HEAD", "--", ".")
    if commit is None or diff is None:
        return nothing
    return {
        "git_commit": commit.decode().strip(),
        "git_dirty": bool(diff),
        "git_diff_sha256": hashlib.sha256(diff).hexdigest() if diff else None,
    }


def commit_of(facts: Mapping[str, Any]) -> str | None:
    """The commit that the facts of `volatile` name, with "+dirty" where the source was changed; None if unknown."""
    commit = facts.get("git_commit")
    return f"{commit}+dirty" if commit and facts.get("git_dirty") else commit


def utc_now() -> str:
    """The time now, "2026-01-31T12:00:00Z"."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def volatile(argv: list[str] | None = None) -> dict[str, Any]:
    """Facts that do not decide the result: time, host, command line, platform, packages, threads, commit."""
    from importlib import metadata

    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "created_utc": utc_now(),
        "host": platform.node(),
        "argv": list(sys.argv if argv is None else argv),
        "cwd": os.getcwd(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "packages": packages,
        "threads": {"cpu_count": os.cpu_count(), **{v: os.environ[v] for v in THREAD_VARIABLES if v in os.environ}},
        **git_state(),
    }
