"""The command line of an experiment: where a value comes from, what is refused, what is printed where."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from ssmtheory import resources, runner
from ssmtheory.errors import ConfigError
from tests.runner import squares

ROOT = Path(__file__).parents[2]
NAME = "tests.runner.squares"


@pytest.fixture
def presets(tmp_path, monkeypatch):
    """A folder of presets in place of the shipped one."""
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / "squares.small.toml").write_text("# small\nrows = 1\nlength = 2\nseed = 7\n")
    (folder / "squares.bad.toml").write_text("rowz = 1\n")
    monkeypatch.setitem(resources.KINDS, "preset", (str(folder), ("*.toml",), "package"))
    monkeypatch.chdir(tmp_path)
    return folder


def parsed(*argv: str):
    result = runner.parse("squares", squares, argv)
    assert result is not None
    return result


def test_precedence(presets, tmp_path):
    (tmp_path / "mine.toml").write_text("length = 3\nseed = 8\ncolumns = [0, 2]\nscale = 2\n")
    config, _ = parsed("--preset", "small", "--config", str(tmp_path / "mine.toml"), "--seed", "9")
    assert config == squares.Config(rows=1, length=3, seed=9, columns=(0, 2), scale=2.0)
    assert isinstance(config.scale, float)
    # an option that names the default still counts as given
    config, _ = parsed("--preset", "small", "--seed", "0")
    assert (config.seed, config.rows) == (0, 1)
    config, options = parsed()
    assert config == squares.Config()
    assert options == runner.Options()


@pytest.mark.parametrize(
    ("argv", "field", "value"),
    [
        (("--columns", "0", "2"), "columns", (0, 2)),
        (("--columns", "0-2,5"), "columns", (0, 1, 2, 5)),
        (("--columns", "3", "--columns", "1"), "columns", (3, 1)),
        (("--absolute",), "absolute", True),
        (("--kind", "uniform"), "kind", "uniform"),
        (("--scale", "1e-3"), "scale", 1e-3),
        (("--label=a b [x]",), "label", "a b [x]"),
    ],
)
def test_values(argv, field, value):
    assert getattr(parsed(*argv)[0], field) == value


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--lenth", "3"), "Unknown option: --lenth. Did you mean --length?"),
        (("--rows", "3.5"), "'3.5' is not a whole number"),
        (("--rows", "x"), "not a whole number"),
        (("--rows",), "requires an argument"),
        (("--kind", "unifrm"), 'Did you mean "uniform"?'),
        (("--scale", "nan"), "--scale: nan is not a finite number"),
        (("--columns", "0-x"), "'0-x' is neither a whole number nor a range"),
        (("--rows", "0"), "--rows 0: at least 1"),
        (("stray",), "stray"),
        (("--preset", "smal"), "no preset 'smal'; squares has bad, small. Did you mean 'small'?"),
        (("--preset", "bad"), "unknown key 'rowz'. Did you mean 'rows'?"),
        (("--config", "nothing.toml"), "no configuration file nothing.toml"),
    ],
)
def test_refused(presets, argv, message, capsys):
    with pytest.raises(ConfigError) as caught:
        parsed(*argv)
    assert message in str(caught.value)
    assert runner.main(NAME, argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows = 3.5", "rows = 3.5 is not a whole number"),
        ("rows = true", "rows = True is not a whole number"),
        ('rows = "3"', "is not a whole number"),
        ("columns = 3", "is not a list of a whole number"),
        ('columns = [1, "a"]', "is not a list of a whole number"),
        ("absolute = 1", "is not true or false"),
        ('kind = "norml"', "is not one of 'normal', 'uniform'"),
        ("label = 3", "is not a text"),
        ("[rows]\nx = 1", "is not a whole number"),
        ("[modle]\nx = 1", "unknown table [modle]"),
        ('preset = "small"', "unknown key 'preset'"),
        ("rows = ", "is not TOML"),
        ("\xff", "is not TOML"),
    ],
)
def test_refused_file(tmp_path, text, message):
    path = tmp_path / "x.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        runner.read_file(path, squares.Config)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_unknown_experiment():
    with pytest.raises(ConfigError, match="Did you mean 'token_dynamics'"):
        runner.load("token-dynamic")
    with pytest.raises(ConfigError, match="no module"):
        runner.load("tests.runner.nothing")


def test_help_is_quick_and_complete():
    code = (
        "import sys; from ssmtheory.runner import main; code = main('tests.runner.squares', ['--help']);"
        "print([m for m in ('xarray', 'zarr', 'scipy', 'matplotlib', 'torch', 'jax', 'sympy') if m in sys.modules]);"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for option in ("--rows", "--columns", "--preset", "--config", "--out", "--fresh", "--dry-run", "--quiet"):
        assert option in done.stdout
    assert "rows, each a task" in done.stdout


def test_transcript(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = f"runs/{runner._store(squares, squares.plan(squares.Config()), Path('runs'), print).id}"

    assert runner.main(NAME, ["--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[0] == f"would write  {folder}"
    assert "one row measured" in out
    assert out.splitlines()[-1] == "nothing was written"
    assert list(tmp_path.iterdir()) == []

    assert runner.main(NAME, []) == 0
    out, err = capsys.readouterr()
    assert err.splitlines() == ["squares 1/3", "squares 2/3", "squares 3/3"]
    lines = out.splitlines()
    assert lines[0].startswith("done in ")
    assert lines[0].endswith("the squares sum to 4.72617")
    assert lines[1].startswith(f"  data     {folder}/data.zarr")
    assert lines[-1].startswith(f"  record   {folder}/run.json   content ")

    assert runner.main(NAME, []) == 0
    out, err = capsys.readouterr()
    assert (out, err) == (f"nothing to do: {folder} is complete (--fresh runs it again)\n", "")
    assert runner.main(NAME, ["--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("nothing to do")

    assert runner.main(NAME, ["-q", "--fresh"]) == 0
    assert capsys.readouterr() == (f"{folder}\n", "")


def test_progress_on_a_terminal(tmp_path):
    """One line, redrawn in place, gone at the end."""
    read, write = pty.openpty()
    code = "import sys; from ssmtheory.runner import main; sys.exit(main('tests.runner.squares'))"
    command = [sys.executable, "-c", code, "--rows", "2", "--out", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=write, stdout=subprocess.PIPE, text=True)
    os.close(write)
    shown = b""
    while True:
        try:
            piece = os.read(read, 4096)
        except OSError:  # Linux: the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(read)
    out, _ = process.communicate()
    frames = shown.decode().split("\r")
    assert "\n" not in shown.decode()
    assert [f.split()[-2:] for f in frames[1:4]] == [["0/2", "0:00:00"], ["1/2", "0:00:00"], ["2/2", "0:00:00"]]
    assert frames[3].count("━") == 24
    assert max(map(len, frames)) < 80
    assert (frames[-2].strip(), frames[-1]) == ("", ""), "the line is wiped"
    assert out.startswith("done in")


def test_progress_is_about_four_lines(tmp_path, capsys):
    runner.run(squares, squares.Config(rows=20), out=tmp_path, quiet=False)
    assert capsys.readouterr().err.splitlines() == [f"squares {n}/20" for n in (5, 10, 15, 20)]
