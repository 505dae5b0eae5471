"""`ssmtheory figures`: scripts found, runs made, figures stamped, defects reported."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from ssmtheory import cli, resources, runner
from ssmtheory.results import compare

SCRIPT = '''"""A line through a run's numbers."""

NEEDS = {"numbers": "token_dynamics"}


def draw(venue, numbers):
    from ssmtheory.plotting import style

    with style.style(venue):
        figure = style.new_figure(venue, height=2.0)
        axes = figure.subplots()
        axes.plot(numbers)
        axes.set_xlabel("position")
        axes.set_ylabel("number")
        if numbers[0] < 0:
            axes.text(0.5, 0.5, "one text", transform=axes.transAxes)
            axes.text(0.5, 0.5, "another text", transform=axes.transAxes)
    return figure
'''


@pytest.fixture
def gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """One shipped figure script, and a run that holds the returned list."""
    scripts = tmp_path / "figures"
    scripts.mkdir()
    (scripts / "line.py").write_text(SCRIPT)
    real = resources.folder
    monkeypatch.setattr(resources, "folder", lambda kind: scripts if kind == "figure" else real(kind))
    monkeypatch.chdir(tmp_path)
    numbers = [1.0, 3.0, 2.0]
    record = {"content_sha256": "ab" * 32, "config_sha256": "cd" * 32, "provenance": {"git_commit": None}}
    outcome = SimpleNamespace(folder=Path("runs/token_dynamics-0123456789"), record=record, data=lambda: numbers)
    monkeypatch.setattr(runner, "run", lambda module, config, **options: outcome)
    return numbers


def test_list_reads_scripts_without_running_them(
    gallery: list[float], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "figures" / "line.py").write_text(SCRIPT + "\nraise SystemExit('was run')\n")
    assert cli.main(["figures", "list"]) == 0
    assert capsys.readouterr().out.split(maxsplit=2) == ["line", "token_dynamics", "A line through a run's numbers.\n"]


def test_build_writes_stamped_files(gallery: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["figures", "build", "--venue", "iclr"]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert paths == [Path("figures_built/iclr/line.pdf"), Path("figures_built/iclr/line.png")]
    for path in paths:
        (stamp,) = compare.read_stamps(path)
        assert stamp.content_sha256 == "ab" * 32
        assert stamp.run_id == "token_dynamics-0123456789"
    first = [path.read_bytes() for path in paths]
    assert cli.main(["figures", "build", "line", "--venue", "iclr"]) == 0
    assert [path.read_bytes() for path in paths] == first


def test_check_reports_defects(gallery: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["figures", "check"]) == 0
    assert capsys.readouterr().out == "line: good\n"
    gallery[0] = -1.0
    assert cli.main(["figures", "check"]) == 1
    captured = capsys.readouterr()
    assert "line: " in captured.out
    assert "one text" in captured.out
    assert captured.err == "error: 1 of 1 figures have defects\n"


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["lien"], 2, "Did you mean 'line'?"),
        (["line", "--venue", "neurpis"], 1, "Did you mean 'neurips'?"),
        (["line", "--formats", "eps"], 1, "eps"),
    ],
    ids=["figure", "venue", "format"],
)
def test_wrong_input(
    gallery: list[float], argv: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["figures", "build", *argv]) == code
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert words in captured.err
    assert not Path("figures_built").exists()
