"""The wheel: built from a copy of the tree, unpacked outside the checkout, run from another folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ssmtheory import resources

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
TREE = ("ssmtheory", "experiments", "figures", "paper_repro")
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")


def build(folder: Path, **variables: str) -> Path:
    """A wheel of the tree, built in a copy: building leaves files behind."""
    copy = folder / "tree"
    copy.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info", "_build.json")
    for name in TREE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, copy / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", str(folder)]
    done = subprocess.run(
        [*command, "."], cwd=copy, capture_output=True, text=True, timeout=280, env={**os.environ, **variables}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the unpacked wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(build(folder)) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def python(site: Path, cwd: Path, *arguments: str) -> str:
    """Output of Python with the unpacked wheel in front of everything else; never the checkout."""
    done = subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(site)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_runs_from_another_folder(installed: Path, tmp_path: Path) -> None:
    where = python(installed, tmp_path, "-c", "import ssmtheory; print(ssmtheory.__file__)").strip()
    assert Path(where).is_relative_to(installed)
    assert "token-dynamics" in python(installed, tmp_path, "-m", "ssmtheory.cli", "--help")
    assert "ssmtheory" in python(installed, tmp_path, "-m", "ssmtheory.cli", "doctor")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", resources.KINDS)
def test_it_carries_every_shipped_file(kind: str, installed: Path, tmp_path: Path) -> None:
    code = f"from ssmtheory import resources as r; [print(r.resource({kind!r}, n)) for n in r.names({kind!r})]"
    found = [Path(line) for line in python(installed, tmp_path, "-c", code).splitlines()]
    assert all(path.is_relative_to(installed) for path in found)
    expected = [resources.resource(kind, name) for name in resources.names(kind)]
    assert [path.name for path in found] == [path.name for path in expected]
    assert [path.stat().st_size for path in found] == [path.stat().st_size for path in expected]


def test_it_carries_nothing_else(installed: Path) -> None:
    top = {path.name for path in installed.iterdir()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"ssmtheory"}


@pytest.mark.skipif(shutil.which("cc") is None and shutil.which("gcc") is None, reason="needs a C compiler")
def test_the_kernel_is_compiled(installed: Path, tmp_path: Path) -> None:
    code = "from ssmtheory.scan import c_backend; print(c_backend.library_path(), c_backend.instruction_set())"
    assert str(installed) in python(installed, tmp_path, "-c", code)


def test_it_installs_without_a_compiler(tmp_path: Path) -> None:
    with zipfile.ZipFile(build(tmp_path, CC="no-such-compiler", CXX="no-such-compiler")) as wheel:
        names = wheel.namelist()
    assert {"ssmtheory/scan/kernel.c", "ssmtheory/scan/common.h", "ssmtheory/scan/targets.h"} <= set(names)
    assert not [name for name in names if name.endswith((".so", ".pyd", ".dylib"))]
