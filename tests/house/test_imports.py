"""What a bare import and `--help` load: none of the slow libraries, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ssmtheory import experiments

SLOW = ("torch", "jax", "sympy", "matplotlib", "xarray", "zarr", "scipy")
_REPORT = "import sys, json; print(json.dumps([m for m in {slow!r} if m in sys.modules]), file=sys.stderr)"
_MODULE = """
import runpy, sys
sys.argv = [{module!r}, *{argv!r}]
try:
    runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not end.code, end.code
"""


def loaded(code: str) -> tuple[list[str], str]:
    """Slow libraries that a piece of code leaves loaded, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{_REPORT.format(slow=SLOW)}"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stderr.splitlines()[-1]), done.stdout


def test_import_is_lazy() -> None:
    found, _ = loaded("import ssmtheory, ssmtheory.cite, ssmtheory.errors, ssmtheory.resources; dir(ssmtheory)")
    assert found == []


def test_attributes_load_submodules_on_first_use() -> None:
    code = "import ssmtheory, sys; assert 'ssmtheory.errors' not in sys.modules; assert ssmtheory.errors.nearest"
    assert loaded(code)[0] == []


def test_unknown_attribute_is_an_attribute_error() -> None:
    import ssmtheory

    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = ssmtheory.nonsense
    assert not hasattr(ssmtheory, "_shipped_nonsense")


@pytest.mark.parametrize(
    "argv",
    [["--help"], ["--version"], ["show", "--help"], ["figures", "--help"], ["figures", "build", "--help"], ["doctor"]],
    ids=" ".join,
)
def test_command_help_is_lazy(argv: list[str]) -> None:
    found, text = loaded(_MODULE.format(module="ssmtheory.cli", argv=argv))
    assert found == []
    assert text.strip()


@pytest.mark.parametrize("name", experiments.available())
def test_experiment_help_is_lazy(name: str) -> None:
    found, text = loaded(_MODULE.format(module=f"ssmtheory.experiments.{name}", argv=["--help"]))
    assert found == []
    assert "--preset" in text
    assert "--dry-run" in text


@pytest.mark.parametrize("name", experiments.available())
def test_both_ways_in_print_the_same_help(name: str) -> None:
    _, module = loaded(_MODULE.format(module=f"ssmtheory.experiments.{name}", argv=["--help"]))
    _, command = loaded(_MODULE.format(module="ssmtheory.cli", argv=[name.replace("_", "-"), "--help"]))
    # only the name of the program differs, in the first line (which may wrap)
    assert module.partition("\n\n")[2] == command.partition("\n\n")[2]
    assert f"ssmtheory.experiments.{name}" in module.partition("\n\n")[0]
    assert name.replace("_", "-") in command.partition("\n\n")[0]
