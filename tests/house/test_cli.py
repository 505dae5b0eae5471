"""Wrong input to the command line: one line on stderr, a documented exit code, no traceback."""

from __future__ import annotations

import errno
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssmtheory import __version__, cli, errors, experiments


def run(*argv: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    root = str(Path(cli.__file__).resolve().parents[1])
    return subprocess.run(
        [sys.executable, "-m", "ssmtheory.cli", *argv],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": root, **variables},
    )


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["shwo"], 2, ["shwo", "Did you mean", "show"]),
        (["token-dynamcis"], 2, ["token-dynamcis", "token-dynamics"]),
        (["show"], 2, ["requires an argument"]),
        (["show", "--otu", "x"], 2, ["--otu", "Did you mean --out?"]),
        (["runs", "a", "b"], 2, ["too many arguments: a b"]),
        (["figures", "bild"], 2, ["bild", "Did you mean", "build"]),
        (["figures", "build", "no-such-figure"], 2, ["no figure 'no-such-figure'"]),
        (["show", "no-such-run"], 1, ["no run 'no-such-run'"]),
        (["verify", "no-such-run"], 1, ["no run 'no-such-run'"]),
        (["whence", "no-such-file.pdf"], 1, ["no-such-file.pdf"]),
        (["export", "no-such-run", "x.zip"], 1, ["no run 'no-such-run'"]),
        (["token-dynamics", "--tokns", "3"], 2, ["--tokns", "Did you mean --tokens?"]),
        (["token-dynamics", "--tokens", "three"], 2, ["--tokens", "three"]),
        (["token-dynamics", "--preset", "nope"], 2, ["no preset 'nope'"]),
        (["token-dynamics", "--config", "nope.toml"], 2, ["no configuration file nope.toml"]),
        # rich would take [torch] for markup and swallow it
        (["show", "run[torch]"], 1, ["run[torch]"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value and isinstance(value[0], str) else None,
)
def test_wrong_input_is_one_line(
    argv: list[str], code: int, words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.main(argv) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") <= 3  # a hint may follow on lines of its own
    assert "Traceback" not in captured.err
    for word in words:
        assert word in captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tokns = 3\n", ["unknown key 'tokns'", "Did you mean 'tokens'?"]),
        ("[modle]\nx = 1\n", ["unknown table [modle]"]),
        ('tokens = "many"\n', ["tokens = 'many'", "whole number"]),
        ("tokens = \n", ["is not TOML"]),
    ],
    ids=["unknown key", "unknown table", "wrong type", "not TOML"],
)
def test_wrong_settings_file(
    text: str, words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.toml").write_text(text)
    assert cli.main(["token-dynamics", "--config", "bad.toml"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert "bad.toml" in captured.err
    for word in words:
        assert word in captured.err
    assert captured.out == ""


def test_the_process_returns_the_code_without_traceback(tmp_path: Path) -> None:
    done = run("show", "nope", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1


def test_debug_shows_where(tmp_path: Path) -> None:
    done = run("show", "nope", cwd=tmp_path, SSMTHEORY_DEBUG="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_help_names_every_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in experiments.available():
        assert name.replace("_", "-") in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_doctor_names_what_gets_each_missing_part(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cli.PARTS, "torch", ("no-such-distribution", "pip install 'ssmtheory[torch]'"))
    assert cli.main(["doctor"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("torch"))
    assert line.split(maxsplit=2)[1:] == ["missing", "pip install 'ssmtheory[torch]'"]


@pytest.mark.parametrize("module", cli.KERNELS)
def test_doctor_says_which_kernels_are_compiled(
    module: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    label, lost = cli.KERNELS[module]
    kernel = importlib.import_module(f"ssmtheory.scan.{module}")

    def line() -> str:
        assert cli.main(["doctor"]) == 0
        return next(line for line in capsys.readouterr().out.splitlines() if line.startswith(label))

    for state in ("compiled (avx2)", "compiled (generic)"):
        monkeypatch.setattr(kernel, "status", lambda state=state: (True, state))
        assert line().removeprefix(label).strip() == state
    for state in ("not compiled", "compiled from another version"):
        monkeypatch.setattr(kernel, "status", lambda state=state: (False, state))
        found = line()
        assert state in found
        assert "install a C compiler" in found
        assert lost in found


def test_output_into_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    root = str(Path(cli.__file__).resolve().parents[1])
    command = [sys.executable, "-m", "ssmtheory.cli", "doctor"]
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, cwd=tmp_path, env=environment, timeout=120)
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 141


def _raises(error: BaseException):
    def command() -> int:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (errors.InputError("x is wrong"), 1, "error: x is wrong\n"),
        (errors.ConfigError("y is wrong"), 2, "error: y is wrong\n"),
        (errors.Interrupted("stopped at 1 of 12"), 130, "stopped at 1 of 12\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (OSError(errno.ENOSPC, "No space left", "/data/x"), 1, "error: /data/x: no space left on the disk"),
        (OSError(errno.EROFS, "Read-only", "/data"), 1, "error: /data: the file system is read-only"),
        (PermissionError(errno.EACCES, "Permission denied", "/root"), 1, "error: /root: permission denied"),
        (MemoryError(), 1, "error: not enough memory"),
        (RuntimeError("two\nlines"), 70, "error: RuntimeError: two lines (a fault in ssmtheory"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_guarded(error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert errors.guarded(_raises(error)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(text)
    assert captured.err.count("\n") == 1


def test_guarded_passes_a_code_through() -> None:
    assert errors.guarded(lambda: 3) == 3
    assert errors.guarded(lambda: None) == 0


def test_require_names_the_pip_line() -> None:
    with pytest.raises(errors.MissingDependencyError, match=r"x needs no_such_package: pip install 'ssmtheory\[hf\]'$"):
        errors.require("no_such_package.sub", "hf", "x")


def test_require_lets_a_broken_package_speak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package.py").write_text("import not_installed_by_anyone\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_installed_by_anyone"):
        errors.require("broken_package", "hf")


def test_ctrl_c_in_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ssmtheory.resources.names", lambda kind: interrupted())
    assert cli.main(["configs"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
