"""What a sweep has computed so far: Zarr arrays in which a block of points is one chunk of each array, and a ledger.

```
runs/<experiment>-sweep-<10 hex digits>/
  blocks.zarr/<group>/<variable>/   zarr v3, dimensions (point, ...), chunk = block; removed when the sweep is complete
    c.17.0.0                        the chunk of block 17: one writer, one rename
  ledger/*.jsonl                    a line for each finished block: sha256 of its chunks, the points that failed
  failed/<point>.json               configuration and traceback of a point that failed
```

Measured, and the reason for the layout: writers that share a chunk lose each other's rows without an error, and so do
writers of one shard. A chunk that is not there reads as its fill value, which for a complex array is 0 unless told
otherwise, and a chunk that equals the fill value is by default not written: so the store never says what is done. The
ledger does, and a line is written when the chunks it speaks of are on disk.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ssmtheory.errors import InputError, StoreError
from ssmtheory.results import fs
from ssmtheory.results.store import RunStore, Session

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "BlockStore",
    "Structure",
    "block_key",
    "fill_value",
    "matching",
    "read_rows",
    "read_structure",
    "structure_of",
    "write_block",
]

#: one point's arrays: "group/variable" -> (names of the dimensions, values)
Arrays = Mapping[str, "tuple[tuple[str, ...], np.ndarray]"]


def fill_value(dtype: np.dtype[Any]) -> Any:
    """What stands where nothing was computed: NaN for real and complex numbers, 0, False or "" for what has no NaN."""
    import numpy as np

    if dtype.kind in "fc":
        return dtype.type(complex(np.nan, np.nan)) if dtype.kind == "c" else dtype.type(np.nan)
    return "" if dtype.kind in "UTO" else dtype.type(0)


@dataclass(frozen=True)
class Structure:
    """The arrays that every point of a sweep has: "group/variable" -> (dimensions, dtype, shape)."""

    arrays: Mapping[str, tuple[tuple[str, ...], str, tuple[int, ...]]]

    def differences(self, other: Structure) -> list[str]:
        """What is not the same in another point's arrays, in words."""
        found = [f"{path} is missing" for path in self.arrays if path not in other.arrays]
        found += [f"{path} is not in the other points" for path in other.arrays if path not in self.arrays]
        for path, (dims, dtype, shape) in self.arrays.items():
            if path in other.arrays and other.arrays[path] != (dims, dtype, shape):
                odims, odtype, oshape = other.arrays[path]
                found.append(
                    f"{path} is {_words(odims, odtype, oshape)}, in the other points {_words(dims, dtype, shape)}"
                )
        return found


def _words(dims: Sequence[str], dtype: str, shape: Sequence[int]) -> str:
    sizes = ", ".join(f"{dim} {size}" for dim, size in zip(dims, shape, strict=True))
    return f"{dtype} ({sizes})"


def structure_of(arrays: Arrays) -> Structure:
    """The structure of one point's arrays.

    >>> import numpy as np
    >>> structure_of({"t/x": (("lag",), np.zeros(3))}).arrays
    {'t/x': (('lag',), 'float64', (3,))}
    """
    from ssmtheory.results.schema import dtype_name

    return Structure(
        {path: (tuple(dims), dtype_name(v.dtype), tuple(v.shape)) for path, (dims, v) in sorted(arrays.items())}
    )


def _numpy_dtype(name: str) -> Any:
    import numpy as np

    return np.dtypes.StringDType() if name == "str" else np.dtype(name)


# ---------------------------------------------------------------------------------------------------- the zarr store


def _create(target: Path, structure: Structure, points: int, block: int) -> None:
    """Make the empty arrays, in one step; where another process was quicker, its arrays stand."""
    import zarr

    if not target.is_dir():
        return  # the run was removed or completed by another: what follows fails with a clear error
    scratch = fs.temporary(target)
    shutil.rmtree(scratch, ignore_errors=True)
    group = zarr.open_group(str(scratch), mode="w", zarr_format=3)
    facts: dict[str, Any] = {
        path: [list(dims), dtype, list(shape)] for path, (dims, dtype, shape) in structure.arrays.items()
    }
    group.attrs.update({"points": points, "block": block, "structure": facts})
    for path, (dims, dtype, shape) in structure.arrays.items():
        kind = _numpy_dtype(dtype)
        group.create_array(
            path,
            shape=(points, *shape),
            chunks=(block, *(max(size, 1) for size in shape)),
            dtype=kind,
            fill_value=fill_value(kind),
            dimension_names=("point", *dims),
            # with dots a chunk needs no folders of its own: nothing is made again in a run that was removed meanwhile
            chunk_key_encoding={"name": "default", "separator": "."},
        )
    fs.fsync_tree(scratch)
    try:
        fs.rename(scratch, target)
    except OSError:
        shutil.rmtree(scratch, ignore_errors=True)
        if not (target / "zarr.json").is_file():
            raise
    fs.fsync(target.parent)


def read_structure(target: Path) -> tuple[Structure, int, int] | None:
    """(structure, points, points a block) of the arrays on disk; None where there are none yet."""
    try:
        facts = json.loads((target / "zarr.json").read_bytes())["attributes"]
    except FileNotFoundError:
        return None
    arrays = {path: (tuple(dims), dtype, tuple(shape)) for path, (dims, dtype, shape) in facts["structure"].items()}
    return Structure(arrays), facts["points"], facts["block"]


@functools.lru_cache(maxsize=512)
def _encoder(folder: str, path: str, stamp: int) -> tuple[dict[str, Any], Any]:
    """A copy of an array in memory: what zarr puts there are a chunk's bytes, for `fs` to write durably."""
    import zarr
    from zarr.core.buffer import default_buffer_prototype

    kept: dict[str, Any] = {
        "zarr.json": default_buffer_prototype().buffer.from_bytes((Path(folder) / path / "zarr.json").read_bytes())
    }
    # a chunk that equals the fill value is a result too (open_array would ignore a config argument)
    with zarr.config.set({"array.write_empty_chunks": True}):
        array = zarr.open_array(zarr.storage.MemoryStore(kept), mode="r+")
    return kept, array


def write_block(
    session: Session,
    number: int,
    results: Mapping[int, Arrays],
    failed: Mapping[int, str],
    *,
    points: int,
    block: int,
    seconds: float,
) -> dict[str, Any]:
    """Make a block's results durable, then enter it into the ledger; returns its line.

    Args:
        session: of the run.
        number: of the block: points number * block to (number + 1) * block - 1.
        results: point -> its arrays; all of one structure, that of the arrays on disk.
        failed: point -> name of the file in failed/ that says why.
        points: of the whole sweep. block: points a block. seconds: what the points took.

    Raises:
        InputError: a point's arrays have another structure than those of the points before.
        StoreError: the run cannot be written.
    """
    import numpy as np

    target = session.folder / "blocks.zarr"
    chunks: dict[str, str] = {}
    first, last = number * block, min((number + 1) * block, points)
    with fs.store_errors(target):
        if results:
            found = matching(target, next(iter(results.values())), points, block)
            for path, (_, dtype, shape) in found.arrays.items():
                kind = _numpy_dtype(dtype)
                values = np.full((last - first, *shape), fill_value(kind), dtype=kind)
                for point, arrays in results.items():
                    values[point - first] = arrays[path][1]
                for name, data in _encode(target, path, slice(first, last), values):
                    fs.write_file(target / name, data)
                    chunks[name] = _sha256(data)
    return session.append(
        {"task": block_key(number), "chunks": chunks, "failures": dict(failed), "seconds": round(seconds, 3)}
    )


def read_rows(session: Session, points: Sequence[int]) -> dict[int, Arrays]:
    """The arrays of finished points of one block (which are not checked against the ledger here)."""
    import numpy as np
    import zarr

    target = session.folder / "blocks.zarr"
    there = read_structure(target)
    if there is None or not points:
        return {}
    first, last = min(points), max(points) + 1
    found: dict[str, tuple[tuple[str, ...], Any]] = {}
    for path, (dims, _, _) in there[0].arrays.items():
        found[path] = dims, zarr.open_array(str(target / path), mode="r")[first:last]
    return {p: {path: (dims, np.asarray(v[p - first])) for path, (dims, v) in found.items()} for p in points}


def matching(target: Path, arrays: Arrays, points: int, block: int) -> Structure:
    """The structure on disk, made from these arrays where there is none yet.

    Raises:
        InputError: the arrays have another structure than those on disk.
    """
    mine = structure_of(arrays)
    there = read_structure(target)
    if there is None:
        _create(target, mine, points, block)
        there = read_structure(target)
        if there is None:
            raise StoreError(f"{target} was removed while in use")
    differences = there[0].differences(mine)
    if differences:
        more = f" (and {len(differences) - 2} more)" if len(differences) > 2 else ""
        raise InputError(
            f"{'; '.join(differences[:2])}{more}. The points of one sweep have arrays of equal size: "
            "take the field that changes them out of [sweep], and run a sweep for each of its values"
        )
    return there[0]


def block_key(number: int) -> str:
    """The task that is called so in the ledger."""
    return f"block {number}"


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def _encode(target: Path, path: str, rows: slice, values: np.ndarray) -> list[tuple[str, bytes]]:
    """The files, (name below the store, bytes), that hold a block's rows of one array."""
    if values.size == 0:
        return []
    kept, array = _encoder(str(target), path, (target / path / "zarr.json").stat().st_mtime_ns)
    array[rows] = values
    names = [name for name in kept if name != "zarr.json"]
    assert len(names) == 1, "a block is a chunk"
    return [(f"{path}/{name}", kept.pop(name).to_bytes()) for name in names]


# ---------------------------------------------------------------------------------------------------- the run


@dataclass
class BlockStore(RunStore):
    """The run directory of a sweep: `RunStore` whose tasks are blocks of points.

    `done` has a ledger line for each finished block; the points of it that failed are under "failures".
    """

    WORK: ClassVar[str] = "blocks.zarr"
    FACTS: ClassVar[frozenset[str]] = frozenset({"chunks", "failures", "seconds", "version", "code_sha256"})

    def _defect(self, entry: Mapping[str, Any]) -> str | None:
        for name, digest in entry["chunks"].items():
            path = self.folder / self.WORK / name
            if not path.is_file():
                return f"chunk {name} of {entry['task']} is gone"
            if fs.file_sha256(path) != digest:
                return f"chunk {name} of {entry['task']} is damaged"
        return None

    def _clear_temporaries(self) -> None:
        super()._clear_temporaries()
        for folder, _, _ in os.walk(self.folder / self.WORK):
            fs.clear_temporaries(Path(folder))

    def _tidy(self) -> None:
        super()._tidy()
        fs.discard(self.folder / "partial.zarr")

    def failures(self) -> dict[int, str]:
        """The points that failed: point -> name of the file in failed/."""
        found = {int(p): name for entry in self.done.values() for p, name in entry["failures"].items()}
        return dict(sorted(found.items()))

    def layout(self) -> tuple[Structure, int, int] | None:
        """(structure, points, points a block) of the arrays on disk; None before the first block is done."""
        return read_structure(self.folder / self.WORK)

    def array(self, path: str) -> Any:
        """One variable over all points; rows of points that are not done have no meaning."""
        import zarr

        return zarr.open_array(str(self.folder / self.WORK / path), mode="r")[:]
