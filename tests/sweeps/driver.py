"""Stop a sweep before and after every rename and fsync, go on, and print what was seen as JSON.

    python -m tests.sweeps.driver points|tasks FOLDER [STRIDE]

`points` is a sweep over a grid with a point that fails and is tried again; `tasks` the tasks of one run. Both in one
process, whose writes are those that a worker makes.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sys
from pathlib import Path
from typing import Any

import xarray  # noqa: F401  imported here so that no child has to
import zarr  # noqa: F401

from ssmtheory import runner, sweep_runner
from ssmtheory.errors import SweepError
from ssmtheory.results import store
from tests.runner import driver, squares

SWEEP = """experiment = "tests.sweeps.cheap"
samples = 2
bad = [1]
[sweep]
amplitude = [0, 1, 2]
block = 2
"""


def points(file: Path, out: Path) -> None:
    with contextlib.suppress(SweepError):
        sweep_runner.run(file, out=out)
        return
    sweep_runner.run(file, out=out, retry_failed=True, accept_failed=True)


def tasks(file: Path, out: Path) -> None:
    sweep_runner.run(file, out=out)


def look(out: Path) -> dict[str, Any]:
    """The run on disk: its state; where it says complete, the digest it records and the one its data have."""
    folders = list(out.iterdir()) if out.exists() else []
    if not folders or not (folders[0] / "run.json").exists():
        return {"state": "none"}
    record = store.read_record(folders[0])
    if record["state"] != "complete":
        return {"state": "running"}
    with store.open_data(folders[0] / "data.zarr") as tree:
        digest = store.content_sha256(tree)
    left = sorted(path.name for path in folders[0].iterdir())
    return {"state": "complete", "recorded": record["content_sha256"], "found": digest, "left": left}


def faults(root: Path, job: Any, stride: int) -> dict[str, Any]:
    assert driver._child(root / "undisturbed", count=root / "count", job=job) == 0
    total, whole = int((root / "count").read_text()), look(root / "undisturbed")
    cases = []
    for n in range(1, total + 1, stride):
        for after in (False, True):
            out = root / f"{n}-{after}"
            code = driver._child(out, n, after, job=job)
            between = look(out)
            again = driver._child(out, job=job)
            cases.append({"n": n, "after": after, "code": code, "between": between, "again": again, "end": look(out)})
    return {"calls": total, "whole": whole, "cases": cases}


if __name__ == "__main__":
    driver._quick()
    what, root = sys.argv[1], Path(sys.argv[2])
    if what == "points":
        file = root / "sweep.toml"
        file.write_text(SWEEP)
        chosen = functools.partial(points, file)
    else:
        file = root / "tasks.toml"
        file.write_text('experiment = "tests.runner.squares"\nrows = 2\nlength = 2\n')
        runner.load(squares.__name__)
        chosen = functools.partial(tasks, file)
    print(json.dumps(faults(root, chosen, int(sys.argv[3]) if len(sys.argv) > 3 else 1)))
