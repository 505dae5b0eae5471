"""Killed anywhere, at any time: nothing partial looks finished, and the rerun's dataset is the undisturbed one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def drive(what: str, folder: Path, *more: str) -> dict:
    """In a process of its own: it forks, which must not happen after threads have started."""
    command = [sys.executable, "-m", "tests.runner.driver", what, str(folder), *more]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check(case: dict, whole: dict) -> None:
    between = case["between"]
    if between["state"] == "complete":
        assert between["found"] == between["recorded"] == whole["found"], case
    assert case["again"] == 0, case
    assert case["end"] == whole, case


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_stopped_before_and_after_every_rename_and_fsync(tmp_path):
    result = drive("faults", tmp_path)
    assert result["whole"]["recorded"] == result["whole"]["found"]
    assert result["whole"]["left"] == ["data.zarr", "figures", "ledger", "run.json"]
    # 2 parts and their ledger lines, the zarr files and folders, a figure, run.json twice, removals
    assert result["calls"] > 25
    assert len(result["cases"]) == 2 * result["calls"]
    for case in result["cases"]:
        assert case["code"] == 9, case
        check(case, result["whole"])
    states = {case["between"]["state"] for case in result["cases"]}
    assert states == {"none", "running", "complete"}, "the stops must reach from the first call to the last"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("job", ["kills", "main_kills"])
def test_killed_at_20_uniform_times(tmp_path, job):
    result = drive(job, tmp_path)
    assert len(result["cases"]) == 20
    for case in result["cases"]:
        check(case, result["whole"])
    assert sum(case["between"]["state"] == "running" for case in result["cases"]) >= 5


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_main_job_stopped_at_renames_and_fsyncs(tmp_path):
    """The main job writes some hundred arrays: every 97th call here (a prime, so that all kinds of call are met)."""
    result = drive("main_faults", tmp_path, "97")
    assert len(result["cases"]) >= 4
    for case in result["cases"]:
        assert case["code"] == 9, case
        check(case, result["whole"])
