"""The points of a sweep: axes, axes that move together, and conditions, from the `[sweep]` table of a TOML file.

```toml
[sweep]
N = [16, 32, 64]                                # an axis: the values of a field
alpha = { log = [1e-4, 1.0, 25] }               # 25 values from 1e-4 to 1, equal ratios
dt = { linear = [0.1, 0.3, 3] }                 # 3 values from 0.1 to 0.3, equal steps
seed = { range = 8 }                            # 0 to 7; [2, 8] is 2 to 7
zip = [["N", "dt"]]                             # the values of N and dt go in pairs: one dimension, named N
where = ["alpha < 0.5 or seed < 3"]             # points for which a condition is false are left out
block = 64                                      # points that one task computes and one Zarr chunk holds
```

Order: the dimensions are those of the table, the last one moving fastest.
"""

from __future__ import annotations

import ast
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

from ssmtheory.errors import ConfigError, nearest

__all__ = ["Axis", "Grid", "read"]

#: keys of a `[sweep]` table that are not axes
WORDS = ("zip", "where", "block")

# ---------------------------------------------------------------------------------------------------- conditions

_FUNCTIONS: dict[str, Callable[..., Any]] = {"abs": abs, "len": len, "max": max, "min": min, "round": round}
_NODES = (
    *(ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.UAdd, ast.BinOp, ast.Add),
    *(ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE),
    *(ast.Gt, ast.GtE, ast.In, ast.NotIn, ast.Is, ast.IsNot, ast.Call, ast.Name, ast.Load, ast.Constant, ast.Tuple),
    ast.List,
)


@functools.cache
def _compiled(text: str) -> CodeType:
    """A condition as code, once it is known to hold only comparisons, arithmetic, names and a few functions."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"[sweep] where: {text!r} is no expression: {error}") from None
    for node in ast.walk(tree):
        called = isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS)
        if not isinstance(node, _NODES) or called or (isinstance(node, ast.Call) and node.keywords):
            allowed = "comparisons, and, or, not, in, arithmetic, names of fields and " + ", ".join(_FUNCTIONS)
            raise ConfigError(f"[sweep] where: {text!r}: {ast.unparse(node)!r} cannot stand there; there are {allowed}")
    return compile(tree, "where", "eval")


def _names(text: str) -> set[str]:
    """The fields that a condition speaks of."""
    nodes = ast.walk(ast.parse(text.strip(), mode="eval"))
    return {node.id for node in nodes if isinstance(node, ast.Name)} - set(_FUNCTIONS)


def _holds(text: str, values: Mapping[str, Any]) -> bool:
    try:
        return bool(eval(_compiled(text), {"__builtins__": {}, **_FUNCTIONS}, dict(values)))
    except Exception as error:
        known = {name: values[name] for name in sorted(_names(text)) if name in values}
        raise ConfigError(f"[sweep] where: {text!r} with {known}: {type(error).__name__}: {error}") from None


# ---------------------------------------------------------------------------------------------------- axes


@dataclass(frozen=True)
class Axis:
    """One dimension of a grid: a field and its values, or several fields that move together.

    names: of the fields; the first names the dimension. values: one tuple for each position, a value for each field.
    given: the same as the file has them, which is what conditions and labels are about (16 for a list field's [16]).
    """

    names: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]
    given: tuple[tuple[Any, ...], ...]

    @property
    def dimension(self) -> str:
        """Name of the dimension."""
        return self.names[0]

    def labels(self, name: str) -> list[Any]:
        """A field's values along the axis as they stand in a dataset: numbers, or texts."""
        column = [_label(row[self.names.index(name)]) for row in self.given]
        kinds = {type(label) for label in column}
        return column if len(kinds) == 1 or kinds <= {int, float} else [str(label) for label in column]


@dataclass(frozen=True)
class Grid:
    """The points of a sweep: every combination of the axes' values for which all conditions hold.

    axes: in the order of the dimensions. where: conditions, over the axes' fields and those in `fixed`.
    fixed: values of the fields that do not move. block: points that one chunk holds; None leaves it to the caller.

    >>> def axis(name, *values):
    ...     return Axis((name,), tuple((v,) for v in values), tuple((v,) for v in values))
    >>> grid = Grid((axis("N", 1, 2, 3), axis("seed", 0, 1)), where=("N > 1 or seed == 0",))
    >>> grid.shape, len(grid), grid.values(0), grid.index(1)
    ((3, 2), 5, {'N': 1, 'seed': 0}, (1, 0))
    """

    axes: tuple[Axis, ...]
    where: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    block: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis; points that no condition leaves out may be fewer than their product."""
        return tuple(len(axis.values) for axis in self.axes)

    @functools.cached_property
    def kept(self) -> tuple[int, ...]:
        """Positions, in the full grid, of the points for which every condition holds."""
        count = math.prod(self.shape)
        if not self.where:
            return tuple(range(count))
        return tuple(
            flat
            for flat in range(count)
            if all(_holds(text, {**self.fixed, **self._at(flat, given=True)}) for text in self.where)
        )

    def __len__(self) -> int:
        return len(self.kept)

    def _position(self, flat: int) -> tuple[int, ...]:
        position = []
        for length in reversed(self.shape):
            flat, at = divmod(flat, length)
            position.append(at)
        return tuple(reversed(position))

    def _at(self, flat: int, *, given: bool = False) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for axis, at in zip(self.axes, self._position(flat), strict=True):
            found |= zip(axis.names, (axis.given if given else axis.values)[at], strict=True)
        return found

    def index(self, point: int) -> tuple[int, ...]:
        """Where a point stands: its index along each axis."""
        return self._position(self.kept[point])

    def values(self, point: int) -> dict[str, Any]:
        """The fields that the axes set at a point."""
        return self._at(self.kept[point])

    def describe(self) -> str:
        """ "4 init x 6 N x 8 seed = 192 points", and how many of them the conditions leave."""
        count = math.prod(self.shape)
        sizes = " x ".join(f"{len(axis.values)} {'+'.join(axis.names)}" for axis in self.axes)
        text = f"{sizes} = {count:,} point{'s' * (count != 1)}"
        return text if len(self) == count else f"{text}, of which the conditions leave {len(self):,}"

    def facts(self) -> dict[str, Any]:
        """What decides the result, for the run's identity: axes and conditions, not the size of the blocks."""
        axes = [{"names": list(axis.names), "values": [list(row) for row in axis.given]} for axis in self.axes]
        return {"axes": axes, "where": list(self.where)}


# ---------------------------------------------------------------------------------------------------- the table


def _spaced(name: str, table: Mapping[str, Any]) -> list[Any]:
    """The values that `{log = [first, last, count]}`, `{linear = ...}` or `{range = ...}` stands for."""
    kinds = {"log", "linear", "range"}
    if len(table) != 1 or not table.keys() <= kinds:
        raise ConfigError(
            f"[sweep] {name}: {dict(table)} has to be a list of values, or one of "
            "{ log = [first, last, count] }, { linear = [first, last, count] }, { range = [first, end] }"
        )
    ((kind, given),) = table.items()
    if kind == "range":
        bounds = given if isinstance(given, list) else [given]
        if not 1 <= len(bounds) <= 3 or not all(type(bound) is int for bound in bounds) or bounds[2:] == [0]:
            raise ConfigError(f"[sweep] {name}: range = {given!r}: one to three whole numbers, as for Python's range")
        return list(range(*bounds))
    good = isinstance(given, list) and len(given) == 3 and all(type(item) in (int, float) for item in given)
    if not good or type(given[2]) is not int or given[2] < 1:
        raise ConfigError(f"[sweep] {name}: {kind} = {given!r}: [first, last, count] with a count of at least 1")
    first, last, count = float(given[0]), float(given[1]), given[2]
    if kind == "log" and not (first > 0 and last > 0):
        raise ConfigError(f"[sweep] {name}: log = {given!r}: both ends above 0")
    if not (math.isfinite(first) and math.isfinite(last)):
        raise ConfigError(f"[sweep] {name}: {kind} = {given!r}: finite ends")
    if count == 1:
        return [first]
    # the ends are exact, and a number in between is the same on every machine: no exp and log of the C library
    if kind == "linear":
        inner = [first + (last - first) * i / (count - 1) for i in range(1, count - 1)]
    else:
        inner = [_between(first, last, i, count - 1) for i in range(1, count - 1)]
    return [first, *inner, last]


def _between(first: float, last: float, i: int, n: int) -> float:
    """first^(1 - i/n) last^(i/n) to 15 digits, so that a point of a logarithmic axis is 0.001, not 0.00099999..98.

    >>> [_between(1e-4, 1.0, i, 4) for i in (1, 2, 3)]
    [0.001, 0.01, 0.1]
    """
    import decimal

    with decimal.localcontext(prec=40):
        low, high = decimal.Decimal(repr(first)), decimal.Decimal(repr(last))
        value = (low.ln() + (high.ln() - low.ln()) * i / n).exp()
        return float(f"{value:.15g}")


def _label(value: Any) -> Any:
    """A value as it stands in the dataset: itself where it is a number or a text, else a text.

    >>> _label((1, 2)), _label(None), _label(("dplr",)), _label(True)
    ('1, 2', 'none', 'dplr', True)
    """
    if isinstance(value, bool | int | float | str):
        return value
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(str(_label(item)) for item in value)
    return str(value)


def read(
    table: Mapping[str, Any],
    fields: Sequence[str],
    convert: Callable[[str, Any], Any],
    fixed: Mapping[str, Any],
) -> Grid:
    """A `[sweep]` table as a grid.

    Args:
        table: as `tomllib` returns it.
        fields: names of the fields that may be swept.
        convert: (field, value of the file) -> value of the field; raises `ConfigError`.
        fixed: values of all other fields, for the conditions.

    Raises:
        ConfigError: an unknown field, a value of the wrong type, axes of unequal length in a zip, an empty sweep.
    """
    columns: dict[str, tuple[list[Any], list[Any]]] = {}
    for key, given in table.items():
        name = key.replace("-", "_")
        if name in WORDS:
            continue
        if name not in fields:
            raise ConfigError(
                f"[sweep]: unknown key {key!r}: an option of the experiment ({', '.join(fields)}), or "
                f"{', '.join(WORDS)}.{nearest(name, [*fields, *WORDS])}"
            )
        items = _spaced(key, given) if isinstance(given, Mapping) else given
        if not isinstance(items, list) or not items:
            raise ConfigError(f"[sweep] {key} = {given!r}: a list of at least one value")
        values = [convert(name, item) for item in items]
        twice = [item for i, item in enumerate(items) if values[i] in values[:i]]
        zipped = any(name in group for group in _groups(table))
        if twice and not zipped:
            raise ConfigError(f"[sweep] {key}: the value {twice[0]!r} is there twice")
        columns[name] = values, items
    if not columns:
        raise ConfigError("[sweep] names no axis: for example  N = [16, 32, 64]")

    owner: dict[str, tuple[str, ...]] = {}
    for group in _groups(table):
        for name in group:
            if name not in columns:
                raise ConfigError(f"[sweep] zip: {name!r} is no axis of this table.{nearest(name, columns)}")
            if name in owner:
                raise ConfigError(f"[sweep] zip: {name!r} is there twice")
            owner[name] = group
        lengths = {name: len(columns[name][0]) for name in group}
        if len(set(lengths.values())) != 1:
            told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            raise ConfigError(f"[sweep] zip: fields that move together need as many values: {told}")
    axes, seen = [], set()
    for name in columns:
        group = owner.get(name, (name,))
        if group[0] in seen:
            continue
        seen.add(group[0])
        rows = [tuple(zip(*(columns[member][part] for member in group), strict=True)) for part in (0, 1)]
        axes.append(Axis(group, rows[0], rows[1]))

    where = table.get("where", [])
    where = [where] if isinstance(where, str) else where
    if not isinstance(where, list) or not all(isinstance(text, str) for text in where):
        raise ConfigError(f"[sweep] where = {where!r}: a condition, or a list of conditions")
    for text in where:
        _compiled(text)
        unknown = sorted(_names(text) - set(fields))
        if unknown:
            raise ConfigError(f"[sweep] where: {text!r}: no field {unknown[0]!r}.{nearest(unknown[0], fields)}")
    block = table.get("block")
    if block is not None and (type(block) is not int or block < 1):
        raise ConfigError(f"[sweep] block = {block!r}: a whole number, at least 1")
    grid = Grid(tuple(axes), tuple(where), dict(fixed), block)
    if not len(grid):
        raise ConfigError(f"[sweep] where: the conditions leave none of the {math.prod(grid.shape)} points")
    return grid


def _groups(table: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The `zip` key, checked: lists of names."""
    given = table.get("zip", [])
    # one group needs no second pair of brackets
    groups = [given] if isinstance(given, list) and given and all(isinstance(item, str) for item in given) else given
    if not isinstance(groups, list) or not all(
        isinstance(group, list) and len(group) > 1 and all(isinstance(name, str) for name in group) for group in groups
    ):
        raise ConfigError(f'[sweep] zip = {given!r}: lists of fields that move together, as [["N", "dt"]]')
    return [tuple(name.replace("-", "_") for name in group) for group in groups]
