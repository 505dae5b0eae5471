"""The layer table: a module imports only from strictly lower layers, and siblings never import each other.

Imports are read from the source, those inside functions and under TYPE_CHECKING too. One upward import is allowed: the
`if __name__ == "__main__"` guard of an experiment, which hands over to the runner.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from source import imports, is_main_guard, modules, walk

from ssmtheory import experiments

# part -> (layer, parts it may import). Parts of layer 0 are open to all; "*": everything strictly below.
BASE = {"errors": set(), "typing": set(), "lazy": set(), "resources": {"errors"}, "cite": {"errors", "resources"}}
HOUSE: dict[str, tuple[int, set[str] | str]] = {
    "scan": (1, set()),
    "results": (1, set()),
    "data": (1, set()),
    "training": (1, set()),
    "lti": (2, {"scan"}),
    "inits": (3, {"lti"}),
    "symbolic": (4, {"inits"}),
    "certify": (4, {"inits", "lti"}),
    "robustness": (4, {"inits", "lti"}),
    "plotting": (4, {"results"}),
    "sweeps": (4, {"results"}),
    "mamba": (4, {"scan", "training", "data", "results"}),
    "models": (4, {"scan", "inits", "training"}),
    "dynamics": (4, {"scan", "results"}),
    "experiments": (5, "*"),
    "bench": (5, "*"),
    "runner": (6, "*"),
    "repro": (7, "*"),
    "sweep_runner": (7, "*"),  # joins sweeps, which know no experiment, with experiments and their runner
    "cli": (8, "*"),
}


def part_of(name: str) -> str:
    """`ssmtheory.scan.api` -> `scan`; the package itself -> ``."""
    return name.split(".")[1] if "." in name else ""


def allowed(part: str) -> set[str]:
    if part in BASE:
        return BASE[part]
    layer, below = HOUSE[part]
    if below == "*":
        below = {other for other, (level, _) in HOUSE.items() if level < layer}
    return set(below) | set(BASE)


def test_every_module_has_a_place() -> None:
    parts = {part_of(name) for name in modules()} - {""}
    assert parts <= set(HOUSE) | set(BASE), "a new part of the package needs a row in HOUSE, and a reason"


def test_the_table_only_points_down() -> None:
    for part, (layer, below) in HOUSE.items():
        if below != "*":
            assert all(HOUSE[other][0] < layer for other in below), part


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_point_down(name: str) -> None:
    part = part_of(name)
    wrong = []
    for line, target in imports(name, modules()[name]):
        other = part_of(target)
        if other == part or target == "ssmtheory.__version__":
            continue
        if target == "ssmtheory":
            continue  # read below: only the version may be taken from it
        if part == "" or other not in allowed(part):
            wrong.append(f"line {line}: {name} imports {target}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", sorted(modules()))
def test_the_package_itself_gives_only_its_version(name: str) -> None:
    """`import ssmtheory` inside the package would reach any layer through its lazy attributes."""
    tree = modules()[name]
    bound = {
        alias.asname or "ssmtheory"
        for node in walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "ssmtheory"
    }
    used = {
        node.attr
        for node in walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in bound
    }
    assert used <= {"__version__", "__file__"}


@pytest.mark.parametrize("short", experiments.available())
def test_an_experiment_hands_over_to_the_runner(short: str) -> None:
    guards = [node for node in modules()[f"ssmtheory.experiments.{short}"].body if is_main_guard(node)]
    assert [ast.unparse(node) for guard in guards for node in guard.body] == [
        "from ssmtheory.runner import main",
        f"raise SystemExit(main({short!r}))",
    ]
