"""Killed anywhere, at any time, whoever it is: nothing is lost, and the end is bit for bit the undisturbed one."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssmtheory import runner, sweep_runner
from ssmtheory.results import store
from tests.sweeps import long

ROOT = Path(__file__).parents[2]
psutil = pytest.importorskip("psutil", reason="comes with distributed")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("job", ["points", "tasks"])
def test_stopped_before_and_after_every_rename_and_fsync(tmp_path, job):
    command = [sys.executable, "-m", "tests.sweeps.driver", job, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    whole = result["whole"]
    assert whole["recorded"] == whole["found"]
    assert result["calls"] > 60
    assert len(result["cases"]) == 2 * result["calls"]
    for case in result["cases"]:
        assert case["code"] == 9, case
        assert case["again"] == 0, case
        assert case["end"] == whole, case
        if case["between"]["state"] == "complete":
            assert case["between"]["found"] == case["between"]["recorded"] == whole["found"], case
    assert {case["between"]["state"] for case in result["cases"]} == {"none", "running", "complete"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_worker_killed_in_a_long_task_goes_on_from_its_checkpoint(tmp_path):
    """The tasks of one run over two workers, of which one is killed in its fourth step: no step is done twice."""
    file, log = tmp_path / "long.toml", tmp_path / "log"
    file.write_text('experiment = "tests.sweeps.long"\nrows = 4\n')
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "LONG_LOG": str(log), "LONG_KILL": "row 1:3",
        "LONG_SLEEP": "0.2",
    }  # fmt: skip
    command = [sys.executable, "-m", "ssmtheory.cli", "sweep", "run", str(file), "--out", str(tmp_path / "runs")]
    done = subprocess.run(
        [*command, "--workers", "2", "-q"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sorted(log.read_text().splitlines()) == [f"row {row}:{step}" for row in range(4) for step in range(6)]
    folder = Path(done.stdout.strip())
    assert not (folder / "work").exists()
    alone = runner.run(long, long.Config(rows=4), out=tmp_path / "alone")
    with store.open_run(folder) as tree:
        assert store.content_sha256(tree) == store.read_record(folder)["content_sha256"] == alone.content_sha256


SWEEP = """experiment = "tests.sweeps.cheap"
[sweep]
amplitude = {range = 25}
kind = ["sin", "cos"]
phase = [0.0, 0.5]
block = 2
"""
VICTIMS = ("worker", "driver", "everything", "scheduler")


class Sweep:
    """The command in a process group of its own, on two workers: its own, or those of a scheduler beside it."""

    def __init__(self, file: Path, out: Path, external: bool) -> None:
        self.out, self.beside = out, []
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WAVE_SLEEP": "0.05"}
        if external:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
            port = address.rpartition(":")[2]
            self._start(
                "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port, "--dashboard-address", ":0"
            )
            for _ in range(2):
                self._start("distributed.cli.dask_worker", address, "--nthreads", "1", "--death-timeout", "120")
            engine = ["--scheduler", address]
        else:
            engine = ["--workers", "2"]
        command = [sys.executable, "-m", "ssmtheory.cli", "sweep", "run", str(file), "--out", str(out), "-q", *engine]
        self.process = subprocess.Popen(
            command,
            env=self.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def _start(self, module: str, *options: str) -> None:
        self.beside.append(
            subprocess.Popen(
                [sys.executable, "-m", module, *options],
                env=self.environment,
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    def kill(self, victim: str, rng: random.Random) -> bool:
        """SIGKILL; False where the sweep was over, or there was nobody yet to be killed."""
        if self.process.poll() is not None:
            return False
        if victim == "everything":
            os.killpg(self.process.pid, signal.SIGKILL)
        elif victim == "driver":
            self.process.kill()
        elif victim == "scheduler":
            self.beside[0].kill()
        else:
            children = psutil.Process(self.process.pid).children(recursive=True)
            workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
            if not workers:
                return False
            rng.choice(workers).kill()
        return True

    def end(self) -> int:
        try:
            code = self.process.wait(300)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            code = -1
        for process in self.beside:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return code

    def state(self) -> str:
        folders = list(self.out.iterdir()) if self.out.exists() else []
        if not folders or not (folders[0] / "run.json").exists():
            return "none"
        return store.read_record(folders[0])["state"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_20_uniform_times(tmp_path):
    """Five times each: a worker, the driver with the scheduler in it, the whole process group, an outside scheduler."""
    file = tmp_path / "sweep.toml"
    file.write_text(SWEEP)
    whole = sweep_runner.run(file, out=tmp_path / "undisturbed").content_sha256
    length = {}
    for external in (False, True):
        begun = time.monotonic()
        sweep = Sweep(file, tmp_path / f"first-{external}", external)
        assert sweep.end() == 0, sweep.process.stderr.read()
        length[external] = time.monotonic() - begun
    rng = random.Random(0)
    cases = []
    for n in range(20):
        victim = VICTIMS[n % 4]
        external = victim == "scheduler"
        out = tmp_path / f"{n}-{victim}"
        sweep = Sweep(file, out, external)
        time.sleep(length[external] * (n + 0.5) / 20)
        hit = sweep.kill(victim, rng)
        code = sweep.end()
        between = sweep.state()
        kept = sum(len(p.read_bytes().splitlines()) for p in out.glob("*/ledger/*-*-*.jsonl")) if out.exists() else 0
        cases.append({"n": n, "victim": victim, "hit": hit, "code": code, "between": between, "kept": kept})
        if hit and victim in ("driver", "everything"):
            assert code == -signal.SIGKILL
        elif hit and victim == "worker":
            assert code == 0, sweep.process.stderr.read()  # a worker is replaced, even while it starts
        elif hit and victim == "scheduler" and between != "complete":
            assert code == 1, "the driver says that the scheduler is lost"
            assert "scheduler" in sweep.process.stderr.read()
        sweep_runner.run(file, out=out)  # goes on in one process with what two have begun
        (folder,) = out.iterdir()
        with store.open_run(folder) as tree:
            assert store.content_sha256(tree) == store.read_record(folder)["content_sha256"] == whole, cases[-1]
        assert sorted(path.name for path in folder.iterdir()) == ["data.zarr", "ledger", "run.json"]
    print("\n".join(json.dumps(case) for case in cases))
    assert sum(case["hit"] for case in cases) >= 12
    assert sum(case["between"] == "running" for case in cases) >= 5
