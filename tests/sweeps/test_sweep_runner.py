"""Sweeps from file to dataset: points, tasks of one run, failures, and the commands."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ssmtheory import cli, runner, sweep_runner
from ssmtheory.errors import ConfigError, InputError, MissingDependencyError, StoreError, SweepError
from ssmtheory.results import list_runs, provenance, show, store, verify
from ssmtheory.sweeps import Engine, engine
from tests.runner import squares
from tests.sweeps import cheap, long

ROOT = Path(__file__).parents[2]
SWEEP = """
experiment = "tests.sweeps.cheap"
samples = 5
[sweep]
amplitude = [1, 2, 3]
kind = ["sin", "cos"]
frequency = [0.5, 1.5]
zip = [["kind", "frequency"]]
phase = {linear = [0.0, 1.0, 4]}
where = ["amplitude < 3 or phase < 0.5"]
block = 4
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    # asking git takes longer than a sweep of these
    monkeypatch.setattr(provenance, "git_state", dict)


@pytest.fixture
def file(tmp_path):
    def write(text: str, name: str = "sweep.toml") -> Path:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return path

    return write


def digest(outcome) -> str:
    """The recorded digest, once it is seen to be the data's."""
    assert store.content_sha256(outcome.data()) == outcome.content_sha256
    return outcome.content_sha256


# ------------------------------------------------------------------------------------------------ points


def test_every_point_is_the_experiment_s_own_result(file, tmp_path):
    outcome = sweep_runner.run(file(SWEEP), out=tmp_path / "runs")
    tree = outcome.data()
    assert tree["wave/value"].dims == ("amplitude", "kind", "phase", "time")
    assert tree["status"].attrs["flag_meanings"] == "done excluded failed missing"
    assert tree["frequency"].dims == ("kind",)
    assert tree["wave/value"].attrs["long_name"] == "the wave"
    assert tree["amplitude"].attrs["long_name"] == "amplitude"
    for i, j, k in itertools.product(range(3), range(2), range(4)):
        phase = k / 3
        at = {"amplitude": i, "kind": j, "phase": k}
        if i == 2 and phase >= 0.5:
            assert int(tree["status"].isel(at)) == 1
            assert np.isnan(tree["wave/spectrum"].isel(at).values).all()
            continue
        assert int(tree["status"].isel(at)) == 0
        kind, frequency = [("sin", 0.5), ("cos", 1.5)][j]
        config = cheap.Config(samples=5, amplitude=i + 1, kind=kind, frequency=frequency, phase=phase)
        for path, value in cheap.run_point(config).items():
            found = tree[path] if path in ("wave/time", "wave/omega") else tree[path].isel(at)
            assert np.array_equal(found.values, value), path
    assert outcome.record["tasks"] == {"total": 20, "done": 20}
    assert not any((outcome.folder / name).exists() for name in ("blocks.zarr", "failed", "work", "lock"))
    assert verify(outcome.folder).ok
    assert "3 amplitude x 2 kind+frequency x 4 phase = 24 points" in show(outcome.folder)
    assert not sweep_runner.run(file(SWEEP), out=tmp_path / "runs").ran


def test_blocks_and_the_way_to_the_arrays_do_not_matter(file, tmp_path, monkeypatch):
    whole = digest(sweep_runner.run(file(SWEEP), out=tmp_path / "a"))
    assert digest(sweep_runner.run(file(SWEEP.replace("block = 4", "block = 7")), out=tmp_path / "b")) == whole
    # without run_point a point is planned, done and assembled, as `python -m` would do it
    point = cheap.run_point
    monkeypatch.setattr(cheap, "run_task", lambda plan, key: point(plan.context))
    monkeypatch.delattr(cheap, "run_point")
    assert digest(sweep_runner.run(file(SWEEP), out=tmp_path / "c")) == whole


def test_any_experiment_can_be_swept(file, tmp_path):
    text = 'experiment = "tests.runner.squares"\nlength = 2\n[sweep]\nrows = [2]\nscale = [1.0, 2.0]\nseed = [0, 1]'
    tree = sweep_runner.run(file(text), out=tmp_path / "runs").data()
    alone = squares.run(squares.Config(length=2, rows=2, scale=2.0, seed=1))
    for path in ("rows/drawn", "rows/square", "rows/root", "rows/name", "all/total"):
        assert np.array_equal(tree[path].isel(sweep_rows=0, scale=1, seed=1).values, alone[path].values), path


def test_a_coordinate_that_moves_with_the_points_becomes_a_variable(file, tmp_path):
    text = 'experiment = "tests.runner.squares"\nlength = 4\n[sweep]\ncolumns = [[0, 1], [2, 3]]'
    tree = sweep_runner.run(file(text), out=tmp_path / "runs").data()
    assert tree["columns"].values.tolist() == ["0, 1", "2, 3"]
    assert tree["rows/token_values"].values.tolist() == [[0, 1], [2, 3]]
    assert "token" not in tree["rows"].coords


def test_single_values_for_a_list_field(file, tmp_path):
    text = 'experiment = "tests.sweeps.cheap"\n[sweep]\npicks = [0, 1, [0, 1]]\nwhere = ["picks != 1"]'
    tree = sweep_runner.run(file(text), out=tmp_path / "runs").data()
    assert tree["picks"].values.tolist() == ["0", "1", "0, 1"]
    assert tree["status"].values.tolist() == [0, 1, 0]
    expected = cheap.run_point(cheap.Config(picks=(0, 1)))["wave/value"]
    assert np.array_equal(tree["wave/value"].isel(picks=2).values, expected)


# ------------------------------------------------------------------------------------------------ failures

FAILING = SWEEP.replace("samples = 5", "bad = [2]\nsamples = 5")


def test_a_failing_point_does_not_stop_the_others(file, tmp_path, monkeypatch, capsys):
    path, out = file(FAILING), tmp_path / "runs"
    with pytest.raises(SweepError, match="8 of 20 points failed: ssmtheory sweep status"):
        sweep_runner.run(path, out=out)
    (folder,) = out.iterdir()
    records = [json.loads(p.read_bytes()) for p in sorted((folder / "failed").iterdir())]
    assert len(records) == 8
    assert records[0]["error"] == "InputError: amplitude 2 cannot be had"
    assert 'raise InputError(f"amplitude' in records[0]["traceback"]
    assert records[0]["config"]["amplitude"] == 2
    assert records[0]["config"]["frequency"] == 0.5
    assert records[0]["packages"]["numpy"] == np.__version__
    told = "\n".join(sweep_runner.status(folder))
    assert "12 of 20 done, 8 failed" in told
    assert "amplitude 2 cannot be had" in told
    assert "amplitude = 2" in told

    # nothing is computed again unless asked for
    calls = []
    point = cheap.run_point
    monkeypatch.setattr(cheap, "run_point", lambda config: calls.append(config.amplitude) or point(config))
    assert cli.main(["sweep", "run", str(path), "--out", str(out)]) == 3
    assert "8 of 20 points failed" in capsys.readouterr().err
    assert calls == []
    assert [run.state for run in list_runs(out)] == ["running"]

    # the partial dataset: what is done, and marks
    target, words = sweep_runner.compact(folder)
    assert words == ["12 of 20 points done, 8 failed"]
    with store.open_data(target) as tree:
        assert (tree["status"].values[1] == 2).all()
        assert np.isnan(tree["wave/value"].values[1]).all()

    # tried again, it fails again; then the cause is gone, and only what failed is computed
    with pytest.raises(SweepError):
        sweep_runner.run(path, out=out, retry_failed=True)
    assert calls == [2] * 8
    calls.clear()
    monkeypatch.setenv("WAVE_GOOD", "1")
    outcome = sweep_runner.run(path, out=out, retry_failed=True)
    assert calls == [2] * 8
    monkeypatch.undo()
    monkeypatch.setenv("WAVE_GOOD", "1")
    assert digest(outcome) == digest(sweep_runner.run(path, out=tmp_path / "other"))
    assert not (folder / "failed").exists()
    assert not (folder / "partial.zarr").exists()


def test_failures_can_be_accepted(file, tmp_path):
    outcome = sweep_runner.run(file(FAILING), out=tmp_path / "runs", accept_failed=True)
    tree = outcome.data()
    assert (tree["status"].values[1] == 2).all()
    assert np.isnan(tree["wave/spectrum"].values[1]).all()
    assert np.isfinite(tree["wave/value"].values[0]).all()
    assert outcome.record["tasks"] == {"total": 20, "done": 12}
    assert len(list((outcome.folder / "failed").iterdir())) == 8, "the record of what failed stays"
    again = sweep_runner.run(file(FAILING), out=tmp_path / "runs")
    assert not again.ran
    assert verify(outcome.folder).ok


def test_a_point_of_another_size_fails_in_words(file, tmp_path):
    text = 'experiment = "tests.sweeps.cheap"\n[sweep]\nsamples = [3, 4, 0]\nblock = 2'
    with pytest.raises(SweepError, match="2 of 3"):
        sweep_runner.run(file(text), out=tmp_path / "runs")
    records = [json.loads(p.read_bytes())["error"] for p in sorted(tmp_path.glob("runs/*/failed/*"))]
    assert "take the field that changes them out of [sweep]" in records[0]
    assert records[1] == "ConfigError: --samples 0: at least 1"


def test_a_full_disk_is_no_failed_point(file, tmp_path, monkeypatch):
    from ssmtheory.results import fs

    def full(path, write):
        if "blocks.zarr" in str(path):
            raise OSError(28, "No space left on device", str(path))
        return real(path, write)

    real = fs.write_file
    monkeypatch.setattr(fs, "write_file", full)
    with pytest.raises(StoreError, match="no space left on the disk"):
        sweep_runner.run(file(SWEEP), out=tmp_path / "runs")
    monkeypatch.undo()
    assert sweep_runner.run(file(SWEEP), out=tmp_path / "runs").ran


# ------------------------------------------------------------------------------------------------ tasks of one run

TASKS = 'experiment = "tests.runner.squares"\nrows = 4\nlength = 3\n'


def test_the_tasks_of_one_run_give_the_run_of_the_experiment(file, tmp_path):
    alone = runner.run(squares, squares.Config(rows=4, length=3), out=tmp_path / "alone")
    spread = sweep_runner.run(file(TASKS), out=tmp_path / "spread")
    assert spread.folder.name == alone.folder.name
    assert digest(spread) == digest(alone)
    assert sorted(p.name for p in spread.folder.iterdir()) == sorted(p.name for p in alone.folder.iterdir())
    # and either goes on with what the other has begun
    assert not sweep_runner.run(file(TASKS), out=tmp_path / "alone").ran


def test_a_failing_task_does_not_stop_the_others(file, tmp_path, monkeypatch):
    real = squares.run_task

    def run_task(plan, key):
        if key == "row 1":
            raise InputError("no such row")
        return real(plan, key)

    monkeypatch.setattr(squares, "run_task", run_task)
    path, out = file(TASKS), tmp_path / "runs"
    for _ in range(2):
        with pytest.raises(SweepError, match="1 of 4 tasks failed"):
            sweep_runner.run(path, out=out)
    (folder,) = out.iterdir()
    told = "\n".join(sweep_runner.status(folder))
    assert "3 of 4 done, 1 failed" in told
    assert "no such row" in told
    monkeypatch.setattr(squares, "run_task", real)
    outcome = sweep_runner.run(path, out=out, retry_failed=True)
    assert digest(outcome) == digest(runner.run(squares, squares.Config(rows=4, length=3), out=tmp_path / "alone"))
    assert not (folder / "failed").exists()


def test_a_task_s_own_checkpoint_survives_a_kill(file, tmp_path):
    text = 'experiment = "tests.sweeps.long"\nrows = 2\n'
    path, out, log = file(text), tmp_path / "runs", tmp_path / "log"
    command = [sys.executable, "-m", "ssmtheory.cli", "sweep", "run", str(path), "--out", str(out), "-q"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LONG_LOG": str(log), "LONG_KILL": "row 1:3"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = log.read_text().splitlines()
    assert lines == [f"row {row}:{step}" for row in range(2) for step in range(6)], "no step was done twice"
    folder = Path(done.stdout.strip())
    assert not (folder / "work").exists()
    alone = runner.run(long, long.Config(rows=2), out=tmp_path / "alone")
    assert store.read_record(folder)["content_sha256"] == alone.content_sha256


# ------------------------------------------------------------------------------------------------ engines


@pytest.mark.timeout(280)
def test_two_processes_give_the_result_of_one(file, tmp_path, monkeypatch):
    """Also what a worker is: spawned, one BLAS thread; and a call that kills every worker is a failed point."""
    pytest.importorskip("distributed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    whole = digest(sweep_runner.run(file(SWEEP), out=tmp_path / "one"))
    outcome = sweep_runner.run(file(SWEEP), out=tmp_path / "two", engine=Engine(workers=2))
    assert digest(outcome) == whole
    # besides the driver's own, a ledger for each process that wrote
    lines = [json.loads(line) for p in (outcome.folder / "ledger").glob("*.jsonl") for line in p.open()]
    assert sum("chunks" in line for line in lines) == 5


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_point_that_kills_its_process_is_a_failed_point(file, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("WAVE_CRASH", "1")
    text = 'experiment = "tests.sweeps.cheap"\nbad = [2]\n[sweep]\namplitude = [1, 2, 3]\nblock = 1'
    with pytest.raises(SweepError, match="1 of 3 points failed"):
        sweep_runner.run(file(text), out=tmp_path / "runs", engine=Engine(workers=2))
    (record,) = (json.loads(p.read_bytes()) for p in tmp_path.glob("runs/*/failed/*"))
    assert "workers died while computing it" in record["error"]
    assert record["config"]["amplitude"] == 2


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_workers_are_spawned_with_one_thread(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(sys, "ssmtheory_driver", True, raising=False)
    found = dict(engine.calls(Engine(workers=2), look, {str(n): (n,) for n in range(4)}))
    assert {tuple(sorted(f["environment"].items())) for f in found.values()} == {
        tuple(sorted(engine.ENVIRONMENT.items()))
    }
    assert os.getpid() not in {f["pid"] for f in found.values()}
    assert not any(f["forked"] for f in found.values())


def look(_: int) -> dict:
    """A fork would have this process's memory, and with it the mark that the test left there."""
    environment = {name: os.environ.get(name) for name in engine.ENVIRONMENT}
    return {"pid": os.getpid(), "environment": environment, "forked": hasattr(sys, "ssmtheory_driver")}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"workers": 0}, "at least 1"),
        ({"slurm": 0}, "at least 1 job"),
        ({"workers": 2, "slurm": 2}, "one of them"),
        ({"scheduler": "tcp://a:1", "slurm": 2}, "one of them"),
        ({"scheduler": "head"}, "tcp://head:8786"),
        ({"slurm": 2, "slurm_options": {"queue": "x"}}, "unknown key 'queue'; there are partition"),
    ],
)
def test_engines_that_cannot_be(given, words):
    with pytest.raises(ConfigError, match=words):
        Engine(**given)


def test_a_cluster_without_dask_says_how_to_get_it(file, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'ssmtheory\[cluster\]'"):
        sweep_runner.run(file(SWEEP), out=tmp_path / "runs", engine=Engine(workers=2))


# ------------------------------------------------------------------------------------------------ the command


def test_a_dry_run_measures_and_writes_nothing(file, tmp_path, capsys):
    path, out = file(SWEEP), tmp_path / "runs"
    assert cli.main(["sweep", "run", str(path), "--out", str(out), "--dry-run", "--workers", "2"]) == 0
    told = capsys.readouterr().out
    assert "24 points, of which the conditions leave 20, in 5 blocks of 4" in told
    assert "3 points measured" in told
    assert "on 2 workers" in told
    assert told.endswith("nothing was written\n")
    assert not out.exists()
    # begun: only what is left
    with pytest.raises(SweepError):
        sweep_runner.run(file(FAILING), out=out)
    told = "\n".join(sweep_runner.dry_run(file(FAILING), out=out, retry_failed=True))
    assert "12 of 20 points done, 8 failed" in told
    assert "would go on with" in told


def test_a_dry_run_of_tasks(file, tmp_path, capsys):
    assert cli.main(["sweep", "run", str(file(TASKS)), "--out", str(tmp_path / "runs"), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "4 rows" in told
    assert "this process" in told
    assert not (tmp_path / "runs").exists()


CHEAP = 'experiment = "tests.sweeps.cheap"\n'


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (None, 2, "no sweep file"),
        ("experiment = 3\n", 2, "is not a text"),
        ('experiment = "robustnes"\n', 2, 'say which with  experiment = "NAME"'),
        (CHEAP + "sample = 3\n[sweep]\namplitude = [1]\n", 2, "Did you mean 'samples'?"),
        (CHEAP + "samples = 3\n[sweep]\nsamples = [1]\n", 2, "an axis of [sweep] too"),
        (CHEAP + "[sweep]\namplitude = [1.5]\n", 2, "1.5 is not a whole number"),
        (CHEAP + '[sweep]\nkind = ["tan"]\n', 2, "'tan' is not one of 'sin', 'cos'"),
        (
            CHEAP + '[slurm]\nqueue = "x"\n[sweep]\namplitude = [1]\n',
            2,
            "unknown key 'queue'",
        ),
    ],
)
def test_wrong_files_are_one_line(file, tmp_path, capsys, text, code, words):
    path = file(text) if text is not None else tmp_path / "absent.toml"
    assert (
        cli.main(
            [
                "sweep",
                "run",
                str(path),
                "--out",
                str(tmp_path / "runs"),
                *(["--slurm", "1"] if text and "slurm" in text else []),
            ]
        )
        == code
    )
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_status_and_compact_of_what_is_no_sweep(file, tmp_path):
    outcome = sweep_runner.run(file(TASKS), out=tmp_path / "runs")
    assert "4 of 4 done, 0 failed" in "\n".join(sweep_runner.status(outcome.folder))
    with pytest.raises(InputError, match="no sweep over a grid"):
        sweep_runner.compact(outcome.folder)
    with pytest.raises(InputError, match=r"no sweep .* begins it"):
        sweep_runner.compact(file(SWEEP), out=tmp_path / "nowhere")


def test_a_shipped_preset_is_found_by_name():
    assert sweep_runner.read("token_ode.smoke").module.__name__ == "ssmtheory.experiments.token_ode"
    with pytest.raises(ConfigError, match=r"Did you mean 'token_ode.smoke.toml'"):
        sweep_runner.read("token_ode.smok")


def test_the_record_is_data(file, tmp_path):
    """`compact RUN` imports an experiment by the record's word only where it is one of the package."""
    path, out = file(FAILING), tmp_path / "runs"
    with pytest.raises(SweepError):
        sweep_runner.run(path, out=out)
    (folder,) = out.iterdir()
    record = json.loads((folder / "run.json").read_bytes())
    record["module"] = record["source"]["experiment"] = "antigravity"
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="antigravity is no experiment of this package"):
        sweep_runner.compact(folder)
    assert "antigravity" not in sys.modules
    target, _ = sweep_runner.compact(path, out=out)
    with xr.open_datatree(target, engine="zarr", consolidated=False) as tree:
        assert (tree["status"] == 0).sum() == 12
