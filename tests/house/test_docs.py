"""House style, read from the source: docstrings, errors, and what a library module must not do."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from source import ROOT, modules, walk

from ssmtheory import experiments, runner

MODULES = sorted(modules())
# cyclopts shows a command's docstring as its help, and the runner prints; below them nothing prints
MAY_PRINT = {"ssmtheory.cli", "ssmtheory.runner", "ssmtheory.errors"}
# a converter tells cyclopts by a ValueError what is wrong; the runner turns cyclopts' answer into a ConfigError
CONVERTERS = {("ssmtheory.runner", "ValueError")}
# what Python itself expects of a protocol: attribute access, iteration, a broken promise of our own code
PROTOCOL = {"AttributeError", "KeyError", "IndexError", "StopIteration", "KeyboardInterrupt", "AssertionError"}


def _overload(node: ast.FunctionDef | ast.ClassDef) -> bool:
    return any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list)


def _described(member: ast.FunctionDef, owner: ast.ClassDef) -> bool:
    """Whether a member is a property that the class's docstring describes among its fields."""
    is_property = any(ast.unparse(decorator) == "property" for decorator in member.decorator_list)
    return is_property and f"`{member.name}`" in (ast.get_docstring(owner) or "")


def _listed(tree: ast.Module) -> list[str] | None:
    """The module's `__all__`; None without one."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return None


def public(tree: ast.Module) -> list[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """(name, node) of a module's public functions and classes, and of the public methods of public classes.

    Public is what `__all__` lists; without one, what has no leading underscore.
    """
    listed = _listed(tree)
    found: list[tuple[str, ast.FunctionDef | ast.ClassDef]] = []
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_") or _overload(node):
            continue
        if listed is not None and node.name not in listed:
            continue
        found.append((node.name, node))
        if isinstance(node, ast.ClassDef) and "Protocol" not in {ast.unparse(base) for base in node.bases}:
            members = [member for member in node.body if isinstance(member, ast.FunctionDef)]
            members = [
                m for m in members if not m.name.startswith("_") and not _overload(m) and not _described(m, node)
            ]
            found += [(f"{node.name}.{member.name}", member) for member in members]
    return found


@pytest.mark.parametrize("name", MODULES)
def test_public_things_say_what_they_are(name: str) -> None:
    tree = modules()[name]
    missing = [] if ast.get_docstring(tree) else [name]
    missing += [found for found, node in public(tree) if not ast.get_docstring(node)]
    assert not missing, f"{name}: no docstring on {', '.join(missing)}"


@pytest.mark.parametrize("name", MODULES)
def test_all_lists_what_is_there(name: str) -> None:
    tree = modules()[name]
    listed = _listed(tree)
    if listed is None:
        return
    assert len(set(listed)) == len(listed)
    lazy = any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body)
    bound = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            bound |= {part.id for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name)}
        elif isinstance(node, ast.AnnAssign):
            bound.add(ast.unparse(node.target))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {alias.asname or alias.name for alias in node.names}
    assert lazy or set(listed) <= bound, set(listed) - bound


@pytest.mark.parametrize("name", MODULES)
def test_annotations_are_postponed(name: str) -> None:
    first = [ast.unparse(node) for node in modules()[name].body[:2]]
    body = [line for line in first if not line.startswith(('"', "'"))]
    only_docstring = len(modules()[name].body) == 1
    assert only_docstring or "from __future__ import annotations" in body


@pytest.mark.parametrize("name", MODULES)
def test_errors_are_the_house_s_own(name: str) -> None:
    """A user's mistake raises an error of `ssmtheory.errors` (exit code 1 or 2), so that it prints one line."""
    wrong = []
    for node in walk(modules()[name]):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            kind = ast.unparse(node.exc.func).rpartition(".")[2]
            standard = hasattr(builtins, kind)
            if standard and kind not in PROTOCOL | {"MemoryError", "SystemExit"} and (name, kind) not in CONVERTERS:
                wrong.append(f"line {node.lineno}: raises {kind}")
    assert not wrong, f"{name}: {'; '.join(wrong)}"


def _texts(node: ast.expr) -> tuple[str, str]:
    """First and last literal pieces of a message; "" where it begins or ends with a value."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value, node.value
    if isinstance(node, ast.JoinedStr) and node.values:
        first, last = node.values[0], node.values[-1]
        return (
            first.value if isinstance(first, ast.Constant) else "",
            last.value if isinstance(last, ast.Constant) else "",
        )
    return "", ""


@pytest.mark.parametrize("name", MODULES)
def test_messages_are_plain(name: str) -> None:
    """No shouting, no "invalid" (say what is valid), nothing that repeats the "error:" in front of it."""
    wrong = []
    for node in walk(modules()[name]):
        if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args):
            continue
        first, last = _texts(node.exc.args[0])
        whole = ast.unparse(node.exc.args[0])
        if (
            re.match(r"(?i)(error|failed|invalid|please|sorry|oops)\b", first)
            or "!" in last[-1:]
            or last != last.rstrip()
        ):
            wrong.append(f"line {node.lineno}: {whole}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_swallowed_printed_or_left_open(name: str) -> None:
    wrong = []
    for node in walk(modules()[name]):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            if broad and all(isinstance(inner, ast.Pass | ast.Continue) for inner in node.body):
                wrong.append(f"line {node.lineno}: an error disappears")
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "print" and name not in MAY_PRINT:
                wrong.append(f"line {node.lineno}: print")
            if called in ("warnings.warn", "warn"):
                wrong.append(f"line {node.lineno}: a warning; raise, or say it in the result")
            if called in ("jax.config.update", "torch.set_default_dtype", "np.random.seed", "torch.manual_seed"):
                wrong.append(f"line {node.lineno}: {called} changes the whole process")
    assert not wrong, f"{name}: {'; '.join(wrong)}"


def test_nothing_is_unfinished() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|raise NotImplementedError)\b")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for folder in ("ssmtheory", "experiments", "figures", "paper_repro", "docs")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".py", ".c", ".toml", ".md")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if marks.search(line)
    ]
    assert not found


@pytest.mark.parametrize("name", experiments.available())
def test_every_option_has_a_help_text_and_a_default(name: str) -> None:
    config = runner.load(name).Config
    for field in dataclasses.fields(config):
        assert field.metadata.get("help"), f"{name}: --{field.name} has no help text"
    config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config(), dataclasses.fields(config)[0].name, None)


def test_notation_names_exist() -> None:
    """docs/notation.md: every code name of its tables is spelt somewhere in the source."""
    text = (ROOT / "docs" / "notation.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| `([A-Za-z_][\w.]*)`", text, flags=re.MULTILINE)
    assert len(cells) > 20
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "ssmtheory").rglob("*.py"))
    assert not [cell for cell in cells if cell.rpartition(".")[2] not in source]
