"""The dataset of a sweep: the experiment's variables with the sweep's axes in front, and what became of each point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ssmtheory.results.schema import RESERVED_DIMENSIONS, DatasetSchema, Dimension, Variable
from ssmtheory.sweeps.blocks import Structure, fill_value
from ssmtheory.sweeps.grid import Axis, Grid

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

__all__ = ["DONE", "EXCLUDED", "FAILED", "MISSING", "build"]

#: values of the dataset's `status`
DONE, EXCLUDED, FAILED, MISSING = 0, 1, 2, 3
_MEANINGS = "done excluded failed missing"


def _basename(path: str) -> str:
    return path.rpartition("/")[2]


def _axis_names(grid: Grid, structure: Structure) -> dict[str, str]:
    """Field -> its name in the dataset: the same, unless the experiment's own dataset has that name already."""
    taken = {_basename(path) for path in structure.arrays}
    taken |= {dim for dims, _, _ in structure.arrays.values() for dim in dims}
    taken |= {folder for path in structure.arrays for folder in path.split("/")[:-1]}
    return {name: f"sweep_{name}" if name in taken else name for axis in grid.axes for name in axis.names}


def _coordinate(axis: Axis, name: str) -> np.ndarray:
    import numpy as np

    labels = axis.labels(name)
    kinds = {type(label) for label in labels}
    if kinds == {str}:
        return np.array(labels, dtype=np.dtypes.StringDType())
    if kinds == {bool}:
        return np.array(labels, dtype=bool)
    return np.array(labels, dtype=np.int64 if kinds == {int} else np.float64)


def _is_index(path: str, dims: tuple[str, ...]) -> bool:
    return dims == (_basename(path),)


def _common(values: np.ndarray) -> np.ndarray | None:
    """The row that all rows are equal to (NaN equals NaN); None where they differ."""
    import numpy as np

    same = np.array_equal(values, np.broadcast_to(values[:1], values.shape), equal_nan=values.dtype.kind in "fc")
    return values[0] if same else None


def build(
    grid: Grid,
    structure: Structure,
    array: Callable[[str], Any],
    status: np.ndarray,
    schema: DatasetSchema,
    helps: Mapping[str, str],
) -> tuple[xr.DataTree, DatasetSchema]:
    """A sweep's dataset and its schema.

    An index coordinate of the experiment (frequencies, say) stays one where it is the same at all points; where it
    moves with them it becomes a variable `<name>_values` over the axes.

    Args:
        grid: the points.
        structure: of one point's arrays.
        array: "group/variable" -> its values, (points, ...).
        status: (points,) int8: DONE, FAILED or MISSING.
        schema: of the experiment's own dataset.
        helps: field -> what it is, in words.
    """
    import numpy as np
    import xarray as xr

    names = _axis_names(grid, structure)
    dims = tuple(names[axis.dimension] for axis in grid.axes)
    shape = grid.shape
    good = np.flatnonzero(status == DONE)
    flat = np.asarray(grid.kept, dtype=np.int64)
    groups: dict[str, dict[str, Variable]] = {"/": {}}
    found: dict[str, dict[str, tuple[tuple[str, ...], Any]]] = {"/": {}}
    indices: dict[str, dict[str, Any]] = {}
    own = dict(schema.dimensions)

    for path, (inner, dtype, inner_shape) in structure.arrays.items():
        folder, _, name = path.rpartition("/")
        group = f"/{folder}"
        rows = array(path)[good]
        declared = schema.groups.get(group, {}).get(name)
        if _is_index(path, inner):
            common = _common(rows) if len(rows) else None
            if common is not None:
                indices.setdefault(group, {})[name] = common
                if declared is not None:
                    groups.setdefault(group, {})[name] = declared
                continue
            own_dimension = schema.dimension(name)
            declared = Variable(inner, dtype, own_dimension.units, own_dimension.long_name)
            name = f"{name}_values"
        assert declared is not None, f"{path} is in no schema"
        whole = np.full((int(np.prod(shape)), *inner_shape), fill_value(rows.dtype), dtype=rows.dtype)
        whole[flat[good]] = rows
        found.setdefault(group, {})[name] = ((*dims, *inner), whole.reshape(*shape, *inner_shape))
        groups.setdefault(group, {})[name] = Variable(
            (*dims, *declared.dims), dtype, declared.units, declared.long_name, attrs=declared.attrs
        )

    told = np.full(int(np.prod(shape)), EXCLUDED, dtype=np.int8)
    told[flat] = status
    taken = {_basename(path) for path in structure.arrays}
    state = "sweep_status" if "status" in taken else "status"
    found["/"][state] = dims, told.reshape(shape)
    flags = {"flag_values": [DONE, EXCLUDED, FAILED, MISSING], "flag_meanings": _MEANINGS}
    groups["/"][state] = Variable(dims, "int8", "1", "what became of the point", attrs=flags)
    for axis in grid.axes:
        for field in axis.names:
            name = names[field]
            values = _coordinate(axis, field)
            if field == axis.dimension:
                indices.setdefault("/", {})[name] = values
                if name not in RESERVED_DIMENSIONS:
                    own[name] = Dimension(helps.get(field) or field)
            else:
                found["/"][name] = (names[axis.dimension],), values
                kind = "str" if values.dtype.kind == "T" else values.dtype.name
                groups["/"][name] = Variable((names[axis.dimension],), kind, "1", helps.get(field) or field)

    tree = xr.DataTree.from_dict(
        {group: xr.Dataset(found.get(group, {}), coords=indices.get(group, {})) for group in {**found, **indices}}
    )
    beside = [names[f] for axis in grid.axes for f in axis.names[1:]]
    tree.dataset = tree.to_dataset(inherit=False).set_coords(beside)
    derived = DatasetSchema(f"{schema.name}-sweep", schema.version, groups, own)
    return tree, derived
