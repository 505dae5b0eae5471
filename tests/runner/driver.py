"""Kill a run at every place and time, go on, and print what was seen as JSON.

    python -m tests.runner.driver faults|kills|main_kills FOLDER
    python -m tests.runner.driver main_faults FOLDER STRIDE

Children are forked after the imports and before any thread starts, so that each costs a fraction of a second.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray
import zarr  # noqa: F401  imported here so that no child has to

from ssmtheory import runner
from ssmtheory.experiments.base import Plan
from ssmtheory.results import DatasetSchema, Variable, fs, provenance, store
from tests.runner import squares

KILL = squares.Config(rows=3)


class Tiny:
    """The smallest experiment that makes every kind of file: one array, two parts, one figure."""

    __name__, __spec__ = "tests.runner.tiny", None
    TITLE = "One array"
    Config = squares.Config
    SCHEMA = DatasetSchema("tiny", 1, {"/": {"x": Variable(("sequence",), "float64", "1", "numbers")}})

    def plan(self, config: Any) -> Plan:
        return Plan(resolved={}, tasks=["0", "1"])

    def run_task(self, plan: Plan, key: str) -> dict[str, Any]:
        return {"x": np.random.default_rng(int(key)).normal()}

    def assemble(self, plan: Plan, parts: Any) -> xarray.DataTree:
        values = np.array([parts[key]["x"][()] for key in plan.tasks])
        return xarray.DataTree(xarray.Dataset({"x": (("sequence",), values)}))

    def verdict(self, tree: xarray.DataTree) -> list[str]:
        return [f"the sum is {float(tree['x'].sum())}"]


def _child(
    out: Path,
    stop_at: int | None = None,
    after: bool = False,
    count: Path | None = None,
    module: Any = None,
    config: Any = KILL,
    job: Callable[[Path], object] | None = None,
) -> int:
    """Run the experiment in a forked child; stop before or after the stop_at-th rename or fsync. Returns the exit code.

    Args that a sweep gives: job(out) is done instead of the experiment.
    The stop is that of a machine, not only of a process: what was not fsynced by then is cut in half.
    """
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    calls = 0
    durable: dict[int, int] = {}  # inode -> size when it was last fsynced

    def stop() -> None:
        for path in out.rglob("*"):
            facts = path.stat()
            good = durable.get(facts.st_ino, 0)
            if path.is_file() and facts.st_size > good:
                os.truncate(path, good + (facts.st_size - good) // 2)
        os._exit(9)

    def counted(primitive: Any) -> Any:
        def call(*arguments: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == stop_at and not after:
                stop()
            primitive(*arguments)
            if calls == stop_at:
                stop()

        return call

    def fsync(path: Any) -> None:
        facts = os.stat(path)  # the disk itself is not what is tested: noting what would be safe is enough, and fast
        durable[facts.st_ino] = facts.st_size

    fs.fsync, fs.rename = counted(fsync), counted(fs.rename)
    code = 1
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            if job is None:
                runner.run(module or Tiny(), config, out=out)
            else:
                job(out)
        if count is not None:
            count.write_text(str(calls))
        code = 0
    finally:
        os._exit(code)


def _look(out: Path) -> dict[str, Any]:
    """The run on disk: its state; if it says complete, whether the dataset really is; what is left lying about."""
    (folder,) = out.iterdir()
    if not (folder / "run.json").exists():
        return {"state": "none"}
    record = store.read_record(folder)
    if record["state"] != "complete":
        return {"state": "running"}
    with store.open_data(folder / "data.zarr") as tree:
        digest = store.content_sha256(tree)
    left = sorted(p.name for p in folder.iterdir())
    figure = (folder / "figures/figure.pdf").read_text()
    assert digest in figure, "a complete run has whole figures"
    return {"state": "complete", "recorded": record["content_sha256"], "found": digest, "left": left}


def _draw(module: Any, tree: Any, stamp: str, folder: Path) -> list[str]:
    (folder / "figure.pdf").write_text(stamp)
    return ["figure.pdf"]


def _quick() -> None:
    # asking git costs more than the whole run; it is no part of what is tested here
    provenance.git_state = lambda: {"git_commit": None, "git_dirty": None, "git_diff_sha256": None}
    store.code_sha256 = lambda: "0" * 64
    provenance.PACKAGES = ()
    runner._draw_figures = _draw


def faults(root: Path, stride: int = 1, module: Any = None, config: Any = KILL) -> dict[str, Any]:
    """Stop before and after every rename and fsync of a run (or each stride-th), look, go on, look again."""
    count = root / "count"
    assert _child(root / "undisturbed", count=count, module=module, config=config) == 0
    total = int(count.read_text())
    whole = _look(root / "undisturbed")
    cases = []
    for n in range(1, total + 1, stride):
        for after in (False, True):
            out = root / f"{n}-{after}"
            code = _child(out, n, after, module=module, config=config)
            between = _look(out) if out.exists() and any(out.iterdir()) else {"state": "none"}
            again = _child(out, module=module, config=config)
            cases.append({"n": n, "after": after, "code": code, "between": between, "again": again, "end": _look(out)})
    return {"calls": total, "whole": whole, "cases": cases}


def _main_job(root: Path) -> tuple[Any, Any]:
    """token_dynamics of a small random model: every array it stores, none of the training."""
    from ssmtheory.experiments import token_dynamics
    from ssmtheory.mamba.checkpoint import save_checkpoint
    from ssmtheory.mamba.config import MambaConfig
    from ssmtheory.mamba.initialize import initial_weights

    config = MambaConfig.mamba1(d_model=16, n_layer=3, vocab_size=256, d_state=4)
    save_checkpoint(root / "model", config, initial_weights(config, 0))
    chosen = token_dynamics.Config(model=str(root / "model"), tokens=48, sequences=6, check=False, backend="numpy")
    return token_dynamics, chosen


def kills(root: Path, module: Any = squares, config: Any = KILL) -> dict[str, Any]:
    """SIGKILL at 20 uniform times of a run, go on, look."""
    os.environ["SQUARES_SLEEP"] = "0.05"
    _child(root / "first", module=module, config=config)  # what the first run alone has to load
    start = time.monotonic()
    assert _child(root / "undisturbed", module=module, config=config) == 0
    length = time.monotonic() - start
    whole = _look(root / "undisturbed")
    cases = []
    for n in range(20):
        out = root / str(n)
        process = os.fork()
        if not process:
            with contextlib.suppress(BaseException):
                runner.run(module, config, out=out)
            os._exit(0)
        time.sleep(length * (n + 0.5) / 20)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        between = _look(out) if out.exists() and any(out.iterdir()) else {"state": "none"}
        again = _child(out, module=module, config=config)
        cases.append({"n": n, "between": between, "again": again, "end": _look(out)})
    return {"whole": whole, "cases": cases}


if __name__ == "__main__":
    _quick()
    what, root = sys.argv[1], Path(sys.argv[2])
    if what == "faults":
        result = faults(root)
    elif what == "kills":
        result = kills(root)
    elif what == "main_kills":
        result = kills(root, *_main_job(root))
    else:
        result = faults(root, int(sys.argv[3]), *_main_job(root))
    print(json.dumps(result))
