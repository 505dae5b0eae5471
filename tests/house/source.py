"""The package's source as syntax trees, and where each module stands in the house."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "ssmtheory"


@cache
def modules() -> dict[str, ast.Module]:
    """Dotted name -> syntax tree, of every module of the package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if "_shipped" in parts:
            continue
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return found


def is_package(name: str) -> bool:
    return (ROOT / Path(*name.split(".")) / "__init__.py").exists()


def is_main_guard(node: ast.AST) -> bool:
    """Whether a node is `if __name__ == "__main__":`."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def walk(node: ast.AST, *, into_guard: bool = False) -> Iterator[ast.AST]:
    """Every node below, functions included; the main guard is left out unless asked for."""
    for child in ast.iter_child_nodes(node):
        if is_main_guard(child) and not into_guard:
            continue
        yield child
        yield from walk(child, into_guard=into_guard)


def imports(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import of this package in a module, `from x import y` read as `x.y`."""
    base = name.split(".") if is_package(name) else name.split(".")[:-1]
    for node in walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "ssmtheory":
                    yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            up = base[: len(base) - node.level + 1] if node.level else []
            module = ".".join([*up, *(node.module.split(".") if node.module else [])])
            if module.split(".")[0] == "ssmtheory":
                for alias in node.names:
                    yield node.lineno, f"{module}.{alias.name}"
