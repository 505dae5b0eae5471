"""From a configuration to a stored run, and back to it after every kind of interruption."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ssmtheory import runner
from ssmtheory.errors import InputError, Interrupted, StoreError
from ssmtheory.results import compare, export, fs, list_runs, show, store, verify, whence
from tests.runner import squares

ROOT = Path(__file__).parents[2]
Config = squares.Config


def stop_in(monkeypatch, row: int) -> None:
    """Ctrl-C in the task of a row."""
    real = squares.run_task

    def run_task(plan, key):
        if key == f"row {row}":
            raise KeyboardInterrupt
        return real(plan, key)

    monkeypatch.setattr(squares, "run_task", run_task)


def interrupted(out: Path, row: int = 2, rows: int = 3) -> Path:
    """The folder of a run that was stopped in the task of a row."""
    with pytest.MonkeyPatch.context() as patch:
        stop_in(patch, row)
        with pytest.raises(Interrupted, match=f"stopped at {row} of {rows}; the same command goes on from there"):
            runner.run(squares, Config(rows=rows), out=out)
    (folder,) = (path for path in out.iterdir() if path.name.startswith("squares"))
    return folder


# ------------------------------------------------------------------------------------------------ a run


def test_a_run_equals_the_experiment_in_memory(tmp_path):
    outcome = runner.run(squares, Config(rows=2), out=tmp_path)
    assert outcome.ran
    memory = squares.run(Config(rows=2))
    assert store.content_sha256(memory) == outcome.content_sha256
    assert memory.attrs == outcome.data().attrs
    drawn = np.stack([np.random.default_rng((0, row)).normal(size=4) for row in range(2)])
    np.testing.assert_array_equal(outcome.data()["rows/drawn"].values, drawn)
    assert outcome.verdict == [f"the squares sum to {np.sum((drawn**2).astype(np.float32), dtype=float):.6g}"]


def test_what_lies_in_the_folder(tmp_path):
    outcome = runner.run(squares, Config(rows=2), out=tmp_path, argv=["here", "--rows", "2"])
    assert sorted(p.name for p in outcome.folder.iterdir()) == ["data.zarr", "figures", "ledger", "run.json"]
    record = json.loads((outcome.folder / "run.json").read_text())
    assert record["state"] == "complete"
    assert record["tasks"] == {"total": 2, "done": 2}
    assert record["provenance"]["argv"] == ["here", "--rows", "2"]
    assert record["provenance"]["packages"]["numpy"] == np.__version__
    (ledger,) = (outcome.folder / "ledger").iterdir()
    assert [entry["task"] for entry in fs.read_lines(ledger)] == ["row 0", "row 1"]
    # no path, host or time in what is shared
    text = (outcome.folder / "data.zarr/zarr.json").read_text()
    assert str(tmp_path) not in text
    assert record["provenance"]["created_utc"][:10] not in text


def test_twice_the_same_and_elsewhere(tmp_path):
    first = runner.run(squares, Config(), out=tmp_path / "a")
    again = runner.run(squares, Config(), out=tmp_path / "a")
    assert (again.ran, again.folder, again.content_sha256) == (False, first.folder, first.content_sha256)
    fresh = runner.run(squares, Config(), out=tmp_path / "a", fresh=True)
    assert (fresh.ran, fresh.folder, fresh.content_sha256) == (True, first.folder, first.content_sha256)
    other = runner.run(squares, Config(), out=tmp_path / "deeper/b")
    assert other.folder.name == first.folder.name
    assert other.content_sha256 == first.content_sha256
    changed = runner.run(squares, Config(seed=1), out=tmp_path / "a")
    assert changed.folder != first.folder
    assert changed.content_sha256 != first.content_sha256


def test_interrupted_then_gone_on(tmp_path, monkeypatch, capsys):
    whole = runner.run(squares, Config(rows=5), out=tmp_path / "whole")
    folder = interrupted(tmp_path, 3, 5)
    assert folder.name == whole.folder.name
    assert store.read_record(folder)["state"] == "running"
    assert not (folder / "data.zarr").exists()
    with pytest.raises(StoreError, match="not complete"):
        store.open_run(folder)
    done = []
    real = squares.run_task
    monkeypatch.setattr(squares, "run_task", lambda plan, key: (done.append(key), real(plan, key))[1])
    outcome = runner.run(squares, Config(rows=5), out=tmp_path, quiet=False)
    assert done == ["row 3", "row 4"]
    assert f"going on with {folder}: 3 of 5 done" in capsys.readouterr().err
    assert outcome.content_sha256 == whole.content_sha256
    assert len(outcome.record["earlier_sessions"]) == 1
    assert len(list((folder / "ledger").iterdir())) == 2, "one writer per ledger file"


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_part_is_computed_again_and_said(tmp_path, capsys, damage):
    whole = runner.run(squares, Config(), out=tmp_path / "whole")
    part = next((interrupted(tmp_path) / "parts").glob("row_1*"))
    data = bytearray(part.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        part.write_bytes(data)
    elif damage == "truncate":
        part.write_bytes(data[:-1])
    else:
        part.unlink()
    outcome = runner.run(squares, Config(), out=tmp_path)
    said = capsys.readouterr().err
    assert "the part of 'row 1' is " + ("gone" if damage == "remove" else "damaged") in said
    assert "computed again" in said
    assert outcome.content_sha256 == whole.content_sha256


def test_parts_of_another_version_are_computed_again(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr("ssmtheory.__version__", "0.0.1")
        interrupted(tmp_path)
    runner.run(squares, Config(), out=tmp_path)
    assert "parts made by version 0.0.1 are computed again" in capsys.readouterr().err


def test_parts_of_changed_code_are_kept_and_said(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(store, "code_sha256", lambda: "0" * 64)
        interrupted(tmp_path)
    outcome = runner.run(squares, Config(), out=tmp_path)
    assert "2 of the finished parts were made before the source code changed" in capsys.readouterr().err
    assert len(outcome.record["task_code_sha256"]) == 2


def test_damaged_record(tmp_path, capsys):
    folder = interrupted(tmp_path)
    for text in (b"", b"{", b"[]", b"\xff", b'{"format": "ssmtheory-run-9", "state": "complete"}'):
        (folder / "run.json").write_bytes(text)
        with pytest.raises(StoreError, match=r"run\.json .*delete it to go on from the finished parts"):
            runner.run(squares, Config(), out=tmp_path)
    (folder / "run.json").unlink()
    runner.run(squares, Config(), out=tmp_path, quiet=False)
    assert "2 of 3 done" in capsys.readouterr().err
    (folder / "run.json").write_bytes(b"{")
    assert runner.run(squares, Config(), out=tmp_path, fresh=True).ran


def test_a_complete_run_needs_no_writable_folder(tmp_path, monkeypatch):
    runner.run(squares, Config(), out=tmp_path)

    def refuse(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ("fsync", "rename", "Lock"):
        monkeypatch.setattr(fs, name, refuse)
    assert not runner.run(squares, Config(), out=tmp_path).ran


@pytest.mark.parametrize(
    ("code", "message"),
    [(errno.ENOSPC, "no space left on the disk"), (errno.EDQUOT, "quota"), (errno.EIO, "input/output error")],
)
def test_a_failing_disk_at_every_fsync(tmp_path, monkeypatch, code, message):
    """The n-th fsync fails, for a third of all n: one clear error, nothing looks finished, the rerun is right."""
    real, calls = fs.fsync, 0

    def count(path):
        nonlocal calls
        calls += 1

    with monkeypatch.context() as patch:
        patch.setattr(fs, "fsync", count)
        whole = runner.run(squares, Config(rows=1), out=tmp_path / "whole")
    # the other codes differ in their words only
    for n in range(1, calls + 1, 3) if code == errno.ENOSPC else (1, calls // 2, calls):
        left = n

        def fail(path):
            nonlocal left
            left -= 1
            if left == 0:
                raise OSError(code, os.strerror(code), str(path))

        out = tmp_path / str(n)
        with monkeypatch.context() as patch:
            patch.setattr(fs, "fsync", fail)
            with pytest.raises(StoreError, match=message):
                runner.run(squares, Config(rows=1), out=out)
        folder = out / whole.folder.name
        if (folder / "run.json").exists() and store.read_record(folder)["state"] == "complete":
            assert store.content_sha256(store.open_run(folder)) == whole.content_sha256
        if n % 9 == 1:  # a rerun costs more than a failure
            monkeypatch.setattr(fs, "fsync", lambda path: None)
            assert runner.run(squares, Config(rows=1), out=out).content_sha256 == whole.content_sha256
            monkeypatch.setattr(fs, "fsync", real)


def test_out_is_a_file(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(StoreError, match="choose another folder with --out"):
        runner.run(squares, Config(), out=tmp_path / "runs")


def test_out_is_read_only(tmp_path, monkeypatch):
    def refuse(self, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    # root may write where permissions say no, so the refusal is injected
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError, match="the file system is read-only; choose another folder with --out DIR"):
        runner.run(squares, Config(), out=tmp_path / "runs")


def test_only_one_process(tmp_path):
    out = tmp_path / "runs"
    environment = {**os.environ, "SQUARES_SLEEP": "60"}
    first = subprocess.Popen([*COMMAND, "--out", str(out)], cwd=ROOT, env=environment, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not list(out.glob("*/ledger")):
            assert time.monotonic() < deadline
            assert first.poll() is None, first.stderr.read()
            time.sleep(0.05)
        with pytest.raises(StoreError, match=f"being written by process {first.pid}"):
            runner.run(squares, Config(), out=out)
    finally:
        first.kill()
        first.wait()
        first.stderr.close()
    assert runner.run(squares, Config(), out=out).ran, "a dead process holds nothing"


COMMAND = [
    sys.executable,
    "-c",
    "import sys; from ssmtheory.runner import main; sys.exit(main('tests.runner.squares'))",
]


@pytest.fixture
def interruptible():
    """Children can be interrupted: a shell starts background jobs with SIGINT ignored, and that would be inherited."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal(tmp_path, sent):
    process = subprocess.Popen(
        [*COMMAND, "--rows", "4", "--out", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "SQUARES_SLEEP": "0.5"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    first = process.stderr.readline()
    assert first == "squares 1/4\n"
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "stopped at 1 of 4; the same command goes on from there"
    assert "Traceback" not in err
    assert out == ""


# ------------------------------------------------------------------------------------------------ long tasks


class Long:
    """An experiment whose only task keeps checkpoints of its own and is stopped at step 3 the first time."""

    __name__, __spec__ = "tests.runner.long", None
    TITLE, SCHEMA, Config, verdict = squares.TITLE, squares.SCHEMA, squares.Config, staticmethod(squares.verdict)
    WORKDIR = True

    def __init__(self) -> None:
        self.steps: list[int] = []

    plan = staticmethod(lambda config: squares.plan(squares.Config(rows=1)))
    assemble = staticmethod(squares.assemble)

    def run_task(self, plan, key, workdir):
        checkpoint = workdir / "step"
        start = int(checkpoint.read_text()) if checkpoint.exists() else 0
        for step in range(start, 6):
            if step == 3 and not start:
                raise KeyboardInterrupt
            self.steps.append(step)
            runner.base.report(f"step {step}")
            checkpoint.write_text(str(step + 1))
        return squares.run_task(plan, key)


def test_a_long_task_goes_on_from_its_own_checkpoint(tmp_path):
    long = Long()
    with pytest.raises(Interrupted):
        runner.run(long, out=tmp_path)
    (folder,) = tmp_path.iterdir()
    assert [p.read_text() for p in (folder / "work").glob("*/step")] == ["3"]
    outcome = runner.run(long, out=tmp_path)
    assert long.steps == [0, 1, 2, 3, 4, 5]
    assert not (folder / "work").exists()
    assert outcome.data()["rows/drawn"].shape == (1, 4)


# ------------------------------------------------------------------------------------------------ looking at runs


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two runs of different seed, with figures."""
    out = tmp_path_factory.mktemp("two")
    from matplotlib.figure import Figure

    import ssmtheory.plotting

    def quicklook(experiment, tree):
        figure = Figure()
        figure.subplots().plot(tree["rows/drawn"].values[0])
        return {"drawn": figure}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssmtheory.plotting, "quicklook", quicklook)
        return [runner.run(squares, Config(seed=seed), out=out) for seed in (0, 1)]


def test_list_and_find(two, tmp_path):
    out = two[0].folder.parent
    found = list_runs(out)
    assert {r.folder for r in found} == {o.folder for o in two}
    assert {r.state for r in found} == {"complete"}
    assert list_runs(tmp_path / "nothing") == []
    # wide enough for the path of any temporary folder
    assert two[0].verdict[0] in compare.format_runs(found, width=400)
    assert compare.find_run(two[0].folder.name[:-4], out) == two[0].folder
    with pytest.raises(InputError, match="several runs"):
        compare.find_run("squares", out)
    with pytest.raises(InputError, match=f"Did you mean '{two[0].folder.name}'"):
        compare.find_run(two[0].folder.name[:-1] + "xyz", out)


def test_show(two):
    one = show(two[0].folder)
    assert two[0].verdict[0] in one
    assert two[0].content_sha256 in one
    drawn = two[0].data()["rows/drawn"].values
    assert "rows/token" not in one, "an index coordinate is no result"
    line = next(line for line in one.splitlines() if line.startswith("rows/drawn"))
    assert [f"{v:.4g}" for v in (drawn.min(), drawn.mean(), drawn.max())] == line.split()[7:10]
    both = show(two[0].folder, two[1].folder)
    assert ["seed", "0", "1"] in [line.split() for line in both.splitlines()]
    other = two[1].data()["rows/drawn"].values
    line = next(line for line in both.splitlines() if line.startswith("rows/drawn"))
    numbers = (drawn.mean(), other.mean(), other.mean() - drawn.mean(), np.abs(other - drawn).max())
    assert line.split()[1:5] == [f"{v:.4g}" for v in numbers]
    assert "equal: both have content" in show(two[0].folder, two[0].folder)
    chosen = show(two[0].folder, two[1].folder, variables=["square"])
    assert "rows/square" in chosen.splitlines()[-2]
    with pytest.raises(InputError, match="Did you mean 'square'"):
        show(two[0].folder, variables=["squre"])


def layered(layers: list[int], scale: float) -> xr.DataTree:
    layer = np.array(layers)
    group = xr.Dataset(
        {"growth": (("layer",), scale * layer), "score": (("layer", "predictor"), np.outer(layer, [1.0, -1.0]))},
        coords={"layer": layer, "predictor": np.array(["q", "g"])},
    )
    return xr.DataTree.from_dict({"layers": group})


def test_layers_are_compared_by_number_not_by_place():
    runs = [
        (name, dict(compare._variables(tree)))
        for name, tree in (("A", layered([0, 2, 4], 1.0)), ("B", layered([2, 3], 10.0)))
    ]
    rows = [line.split() for line in compare._axis_tables(runs, [], 100)]
    assert rows[1:] == [["layer", "0", "2", "4", "3"], ["layers/growth", "A", "0", "2", "4"], ["B", "20", "30"]]
    narrow = compare._axis_tables(runs, ["score"], 44)
    cells = [line.split() for line in narrow if line]
    assert cells[:3] == [["layer", "0", "2"], ["layers/score", "q", "A", "0", "2"], ["B", "2"]]
    assert ["layers/score", "g", "A", "0", "-2"] in cells
    assert cells[5] == ["layer", "4", "3"]


def test_verify_and_whence(two, tmp_path):
    result = runner.verify(two[0].folder)
    assert result.ok, str(result)
    checked = [what for what, _ in result.checks]
    assert any("schema" in w for w in checked)
    assert "figures/drawn.pdf: stamp" in checked
    assert "figures/drawn.png: stamp" in checked
    for name in ("drawn.pdf", "drawn.png"):
        origin = whence(two[0].folder / "figures" / name).origins[0]
        assert origin.folder is not None
        assert origin.folder.name == two[0].folder.name
        assert origin.current
        moved = tmp_path / name
        moved.write_bytes((two[0].folder / "figures" / name).read_bytes())
        assert "seed      0" in str(whence(moved, out=two[0].folder.parent))
        assert whence(moved, out=tmp_path).origins[0].folder is None
    (tmp_path / "other.pdf").write_bytes(b"%PDF-1.4")
    with pytest.raises(InputError, match="carries no stamp"):
        whence(tmp_path / "other.pdf")


def copied(outcome, target: Path) -> Path:
    shutil.copytree(outcome.folder, target / outcome.folder.name)
    return target / outcome.folder.name


def test_verify_finds_damage(two, tmp_path):
    folder = copied(two[0], tmp_path)
    chunk = folder / "data.zarr/rows/drawn/c/0/0"
    data = bytearray(chunk.read_bytes())
    data[-3] ^= 4
    chunk.write_bytes(data)
    (folder / "figures/drawn.png").write_bytes((two[1].folder / "figures/drawn.png").read_bytes())
    (folder / "figures/drawn.pdf").unlink()
    record = json.loads((folder / "run.json").read_text())
    record["config"]["seed"] = 5
    (folder / "run.json").write_text(json.dumps(record))
    result = runner.verify(folder)
    wrong = {what: text for what, text in result.checks if text}
    assert not result.ok
    assert "config_sha256" in wrong["name: follows from configuration and model"]
    content = wrong[f"data.zarr: content {two[0].content_sha256[:12]}"]
    assert "rows/drawn" in content or "cannot be read" in content
    assert two[1].content_sha256[:12] in wrong["figures/drawn.png: stamp"]
    assert wrong["figures/drawn.pdf: stamp"] == "missing"
    assert "NOT as recorded" in str(result)


def test_verify_against_another_machine(two, tmp_path, monkeypatch):
    real = squares.run_task

    def rounded(plan, key):
        part = real(plan, key)
        part["rows/square"] = np.nextafter(part["rows/square"], np.float32(9))
        return part

    monkeypatch.setattr(squares, "run_task", rounded)
    other = runner.run(squares, Config(), out=tmp_path)
    assert other.content_sha256 != two[0].content_sha256
    assert verify(two[0].folder, other.folder).ok
    strict = verify(two[0].folder, other.folder, rtol=1e-9)
    assert "rows/square" in next(text for _, text in strict.checks if text)
    assert "another configuration" in str(verify(two[0].folder, two[1].folder))


def test_export(two, tmp_path):
    record = store.read_record(two[0].folder)
    plain = export(two[0].folder, tmp_path / "plain")
    assert json.loads((plain / "run.json").read_text()) == record
    hidden = export(two[0].folder, tmp_path / "hidden", anonymous=True)
    assert runner.verify(hidden).ok
    text = b"".join(p.read_bytes() for p in hidden.rglob("*") if p.is_file())
    provenance = record["provenance"]
    for key in ("cwd", "created_utc", "git_commit"):
        if provenance[key]:
            assert provenance[key].encode() not in text, key
    assert "host" not in json.loads((hidden / "run.json").read_text())["provenance"]
    for name in ("drawn.png", "drawn.pdf"):
        assert set(whence(hidden / "figures" / name).origins[0].stamp.commit) in (
            set("0"),
            set("0+dirty"),
            set("unknown"),
        )
    first = export(two[0].folder, tmp_path / "1.zip", anonymous=True)
    second = export(two[0].folder, tmp_path / "2.zip", anonymous=True)
    assert first.read_bytes() == second.read_bytes()
    with pytest.raises(InputError, match="exists already"):
        export(two[0].folder, first)


def test_an_exported_png_is_still_a_png(two, tmp_path):
    import matplotlib.image

    hidden = export(two[0].folder, tmp_path / "x", anonymous=True)
    before = matplotlib.image.imread(two[0].folder / "figures/drawn.png")
    np.testing.assert_array_equal(matplotlib.image.imread(hidden / "figures/drawn.png"), before)
