"""A sweep on a real SLURM, on 127.0.0.1: jobs that are requeued and cancelled, and what SLURM refuses."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssmtheory import sweep_runner
from ssmtheory.results import store
from tests.sweeps import loopback

ROOT = Path(__file__).parents[2]
SWEEP = """experiment = "tests.sweeps.cheap"
[sweep]
amplitude = {range = 30}
kind = ["sin", "cos"]
block = 2
[slurm]
memory = "300MB"
walltime = "00:10:00"
interface = "lo"
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    with loopback.slurm(tmp_path_factory.mktemp("slurm")) as found:
        yield {**found, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def jobs(environment: dict[str, str]) -> list[str]:
    told = subprocess.run(["squeue", "-h", "-t", "R", "-o", "%i"], env=environment, capture_output=True, text=True)
    return told.stdout.split()


@pytest.mark.slurm
@pytest.mark.timeout(600)
def test_a_sweep_survives_requeue_and_cancellation(environment, tmp_path):
    file = tmp_path / "sweep.toml"
    file.write_text(SWEEP)
    whole = sweep_runner.run(file, out=tmp_path / "one").content_sha256
    command = [sys.executable, "-m", "ssmtheory.cli", "sweep", "run", str(file), "--slurm", "2", "-q"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "runs")],
        env={**environment, "WAVE_SLEEP": "0.8"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen: set[str] = set()
    harmed = []
    while process.poll() is None:
        running = jobs(environment)
        seen |= set(running)
        ledgers = list(tmp_path.glob("runs/*/ledger/0000-*-*.jsonl"))
        if len(running) == 2 and len(ledgers) == 2 and not harmed:
            # one job starts again, the other is gone for good: both while they work
            harmed.append(subprocess.run(["scontrol", "requeue", running[0]], env=environment).returncode)
            harmed.append(subprocess.run(["scancel", running[1]], env=environment).returncode)
        time.sleep(0.3)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert harmed == [0, 0]
    assert len(seen) >= 3, "a cancelled job is replaced"
    assert store.read_record(Path(out.strip()))["content_sha256"] == whole
    deadline = time.monotonic() + 60
    while jobs(environment):
        assert time.monotonic() < deadline, "no job outlives the sweep"
        time.sleep(0.5)


@pytest.mark.slurm
@pytest.mark.timeout(300)
def test_what_slurm_refuses_is_said_at_once(environment, tmp_path):
    file = tmp_path / "sweep.toml"
    file.write_text(SWEEP.replace("300MB", "900GB"))
    command = [sys.executable, "-m", "ssmtheory.cli", "sweep", "run", str(file), "--slurm", "2", "-q"]
    done = subprocess.run([*command, "--out", str(tmp_path / "runs")], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "SLURM refuses the jobs" in done.stderr
    assert "Requested node configuration is not available" in done.stderr
    assert "[slurm] in the sweep's file" in done.stderr


@pytest.mark.slurm
@pytest.mark.timeout(300)
def test_without_sbatch(tmp_path):
    file = tmp_path / "sweep.toml"
    file.write_text(SWEEP)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": "/nonexistent"}
    command = [sys.executable, "-m", "ssmtheory.cli", "sweep", "run", str(file), "--slurm", "2", "-q"]
    done = subprocess.run([*command, "--out", str(tmp_path / "runs")], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "there is no sbatch here" in done.stderr
