"""Look at runs: list them, show one, show the difference of two, check one, find the run behind a figure.

Every function returns data that prints well (`str(...)`); nothing here prints.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssmtheory.errors import InputError, StoreError, nearest
from ssmtheory.results import provenance, store

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

__all__ = ["Origin", "RunSummary", "Verification", "Whence", "find_run", "list_runs", "show", "verify", "whence"]


def _table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Rows as lines with aligned columns; the columns in `right` are aligned to the right."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _number(value: Any) -> str:
    """Four significant digits; NaN as "-"."""
    number = complex(value) if isinstance(value, complex) else float(value)
    if number != number:
        return "-"
    if isinstance(number, float) and number == int(number if abs(number) < 1e15 else 0) and abs(number) < 1e6:
        return str(int(number))
    return f"{number:.4g}"


# ---------------------------------------------------------------------------------------------------- lists


@dataclass(frozen=True)
class RunSummary:
    """One run of a folder of runs. state: "complete", "running" (begun, not finished) or "damaged"."""

    folder: Path
    state: str
    experiment: str
    done: str
    created_utc: str
    verdict: str


def list_runs(out: str | os.PathLike[str] = "runs") -> list[RunSummary]:
    """All runs below a folder, newest first; a folder that is not there has none."""
    found = []
    for path in sorted(Path(out).glob("*/run.json")):
        folder = path.parent
        try:
            record = store.read_record(folder)
        except StoreError as error:
            found.append(RunSummary(folder, "damaged", "", "", "", str(error).partition(";")[0]))
            continue
        tasks = record.get("tasks")
        done = f"{tasks['done']}/{tasks['total']}" if tasks else ""
        verdict = (record.get("verdict") or [""])[0]
        found.append(
            RunSummary(
                folder,
                record["state"],
                record.get("experiment", ""),
                done,
                record.get("provenance", {}).get("created_utc", ""),
                verdict,
            )
        )
    return sorted(found, key=lambda r: r.created_utc, reverse=True)


def format_runs(runs: Sequence[RunSummary], width: int = 120) -> str:
    """`list_runs` as a table."""
    if not runs:
        return "no runs"
    rows = [("run", "state", "tasks", "started (UTC)", "verdict")]
    rows += [(str(r.folder), r.state, r.done, r.created_utc, r.verdict) for r in runs]
    return "\n".join(line[:width] for line in _table(rows))


def find_run(name: str | os.PathLike[str], out: str | os.PathLike[str] = "runs") -> Path:
    """A run's folder from its path, its id, or the beginning of its id.

    Raises:
        InputError: no run, or more than one, of that name; the message has the nearest.
    """
    path = Path(name)
    if (path / "run.json").is_file():
        return path
    if path.name in ("data.zarr", "run.json", "figures") and (path.parent / "run.json").is_file():
        return path.parent
    known = sorted(p.parent.name for p in Path(out).glob("*/run.json"))
    text = str(name)
    hits = [k for k in known if k == text] or [k for k in known if k.startswith(text)]
    if len(hits) == 1:
        return Path(out) / hits[0]
    if hits:
        raise InputError(f"{text!r} is the beginning of several runs in {out}: {', '.join(hits)}")
    raise InputError(
        f"no run {text!r}: it is neither a run's folder nor the id of a run in {out}.{nearest(text, known)}"
    )


# ---------------------------------------------------------------------------------------------------- variables


def _variables(tree: xr.DataTree) -> Iterator[tuple[str, xr.DataArray]]:
    for node in tree.subtree:
        dataset = node.to_dataset(inherit=False)
        for name in dataset.variables:
            path = "" if node is tree else node.relative_to(tree)
            yield f"{path}/{name}".lstrip("/"), dataset[str(name)]


def _shape(array: xr.DataArray) -> str:
    return ", ".join(f"{d} {n}" for d, n in zip(array.dims, array.shape, strict=True)) or "scalar"


def _real(values: np.ndarray) -> np.ndarray:
    """Values as float64; a complex number by its absolute value."""
    import numpy as np

    return np.abs(values) if values.dtype.kind == "c" else values.astype(np.float64)


def _mean(values: np.ndarray) -> float:
    import numpy as np

    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def _is_index(path: str, array: xr.DataArray) -> bool:
    return array.dims == (path.rpartition("/")[2],)


def _attribute_config(tree: xr.DataTree) -> dict[str, Any]:
    return dict(json.loads(tree.attrs.get("config", "{}")))


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key in value:
            yield from _flat(value[key], f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _short(value: Any, limit: int = 60) -> str:
    text = json.dumps(value) if not isinstance(value, str) else value
    return text if len(text) <= limit else text[: limit - 4] + " ..."


def _select(paths: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The variables named by the user: full paths, group names, or bare names."""
    chosen: list[str] = []
    for name in wanted:
        hits = [p for p in paths if p == name or p.startswith(name.rstrip("/") + "/") or p.rpartition("/")[2] == name]
        if not hits:
            raise InputError(f"no variable {name!r}.{nearest(name, [*paths, *(p.rpartition('/')[2] for p in paths)])}")
        chosen += [h for h in hits if h not in chosen]
    return chosen


def _by_axis(array: xr.DataArray, axis: str) -> Iterator[tuple[str, np.ndarray]]:
    """The array along one dimension, the mean over the others, apart for each entry of a dimension of names."""
    import numpy as np

    names = [d for d in array.dims if d != axis and d in array.coords and array.coords[d].dtype.kind in "UTO"]
    if names:
        for i, label in enumerate(array.coords[names[0]].values):
            for rest, values in _by_axis(array.isel({names[0]: i}, drop=True), axis):
                yield f"{label}{' ' + rest if rest else ''}", values
        return
    values = np.moveaxis(_real(array.values), array.dims.index(axis), 0).reshape(array.sizes[axis], -1)
    yield "", np.array([_mean(row) for row in values])


def _labels(array: xr.DataArray, axis: str) -> list[str]:
    """Names of the entries along a dimension: of its coordinate where it has one (layer 7 is 7 in every run)."""
    values = array.coords[axis].values if axis in array.coords else range(array.sizes[axis])
    return [str(value) if isinstance(value, str) else _number(float(value)) for value in values]


# ---------------------------------------------------------------------------------------------------- show


def show(
    run: str | os.PathLike[str],
    other: str | os.PathLike[str] | None = None,
    *,
    variables: Sequence[str] = (),
    out: str | os.PathLike[str] = "runs",
    width: int = 120,
) -> str:
    """A run in words and numbers, or the difference of two.

    Args:
        run, other: folders or ids.
        variables: names of variables or groups to show value by value along the layers (or their first dimension);
            without any, those that have one value a layer.
        out: folder in which ids are looked up.
        width: of the lines, in characters.

    Raises:
        InputError: no such run or variable.
        StoreError: a run that is not complete, or damaged.
    """
    first = find_run(run, out)
    if other is None:
        return "\n".join(_show_one(first, variables, width))
    return "\n".join(_show_two(first, find_run(other, out), variables, width))


def _show_one(folder: Path, wanted: Sequence[str], width: int) -> list[str]:
    import numpy as np

    record = store.read_record(folder)
    if record["state"] != "complete":
        ledger = {e["task"] for p in (folder / "ledger").glob("*.jsonl") for e in store.fs.read_lines(p) if "task" in e}
        return [f"{folder}: not complete, {len(ledger)} tasks done; the command that started it goes on from there"]
    tree = store.open_run(folder)
    where = record["provenance"]
    commit = (where.get("git_commit") or "unknown")[:12] + (" and changes" if where.get("git_dirty") else "")
    lines = [f"{record['title']}", *(f"  {sentence}" for sentence in record.get("verdict", [])), ""]
    lines += _table(
        [
            ("run", str(folder)),
            ("content", record["content_sha256"]),
            ("model", record.get("model_sha256") or "none"),
            ("made", f"{where['created_utc']}, ssmtheory {record['ssmtheory_version']}, commit {commit}"),
            ("tasks", f"{record['tasks']['done']} in {_number(record['seconds']['tasks'])} s"),
        ]
    )
    lines += ["", "configuration"]
    lines += [f"  {line}" for line in _table([(key, _short(value)) for key, value in _flat(record["config"])])]
    arrays = dict(_variables(tree))
    rows = [("variable", "shape", "type", "units", "min", "mean", "max", "nan", "")]
    for path, array in sorted(arrays.items()):
        if _is_index(path, array) and array.dtype.kind not in "UTO":
            continue
        kind, units = str(array.dtype), str(array.attrs.get("units", ""))
        if array.dtype.kind in "UTO":
            rows.append((path, _shape(array), "str", units, "", "", "", "", _short(array.values.ravel().tolist(), 40)))
            continue
        values = _real(array.values)
        finite = values[np.isfinite(values)]
        low, high = (_number(finite.min()), _number(finite.max())) if finite.size else ("-", "-")
        missing = int(np.isnan(values).sum())
        name = "|.|" if array.dtype.kind == "c" else str(array.attrs.get("long_name", ""))
        rows.append((path, _shape(array), kind, units, low, _number(_mean(values)), high, str(missing or ""), name))
    lines += ["", *(line[:width] for line in _table(rows, right=(4, 5, 6, 7)))]
    return lines + _axis_tables([("", arrays)], wanted, width)


def _axis_tables(
    runs: Sequence[tuple[str, Mapping[str, xr.DataArray]]], wanted: Sequence[str], width: int
) -> list[str]:
    """Values along the layers, one line per variable and run, in blocks of as many columns as fit."""
    first = runs[0][1]
    common = [path for path in sorted(first) if all(path in arrays for _, arrays in runs)]
    common = [p for p in common if first[p].dtype.kind not in "UTO" and first[p].ndim and not _is_index(p, first[p])]
    if wanted:
        paths = _select(common, wanted)
    else:
        paths = [p for p in common if first[p].dims == ("layer",)]
    lines: list[str] = []
    groups: dict[str, list[str]] = {}
    for path in paths:
        axis = next((a for a in ("layer", "depth") if a in first[path].dims), str(first[path].dims[0]))
        if all(axis in arrays[path].dims for _, arrays in runs):
            groups.setdefault(axis, []).append(path)
    for axis, members in groups.items():
        entries: list[tuple[str, str, dict[str, float]]] = []
        for path in members:
            series = [(run, arrays[path], dict(_by_axis(arrays[path], axis))) for run, arrays in runs]
            for label in dict.fromkeys(name for *_, found in series for name in found):
                for run, array, found in series:
                    if label in found:
                        values = dict(zip(_labels(array, axis), found[label].tolist(), strict=True))
                        entries.append((f"{path} {label}".rstrip(), run, values))
        labels = list(dict.fromkeys(label for *_, values in entries for label in values))
        titles = max(len(title) for title, *_ in entries) + 4
        per_block = max(1, (width - titles) // (max(9, *map(len, labels)) + 2))
        for start in range(0, len(labels), per_block):
            columns = labels[start : start + per_block]
            rows = [(axis, "", *columns)]
            before = ""
            for title, run, values in entries:
                cells = [_number(values[name]) if name in values else "" for name in columns]
                rows.append(("" if title == before else title, run, *cells))
                before = title
            lines += ["", *_table(rows, right=range(2, 2 + len(columns)))]
    return lines


@dataclass(frozen=True)
class VariableDifference:
    """Two versions of a variable. max_abs and rms are None where shapes differ; means ignore what is not finite."""

    path: str
    shape: tuple[int, ...] | None
    other_shape: tuple[int, ...] | None
    mean: float = float("nan")
    other_mean: float = float("nan")
    max_abs: float | None = None
    rms: float | None = None
    scale: float = 0.0
    equal: bool = False


def differences(tree: xr.DataTree, other: xr.DataTree) -> list[VariableDifference]:
    """Every variable of either dataset, compared; sorted by path.

    NaN against NaN is equal; NaN against a number is an infinite difference. Text differs by 1 where it differs.
    """
    import numpy as np

    a, b = dict(_variables(tree)), dict(_variables(other))
    found = []
    for path in sorted(a.keys() | b.keys()):
        if path not in a or path not in b:
            one = a.get(path, b.get(path))
            assert one is not None
            shape = one.shape
            found.append(VariableDifference(path, shape if path in a else None, shape if path in b else None))
            continue
        x, y = a[path].values, b[path].values
        text = x.dtype.kind in "UTO" or y.dtype.kind in "UTO"
        means = (float("nan"), float("nan")) if text else (_mean(_real(x)), _mean(_real(y)))
        if x.shape != y.shape:
            found.append(VariableDifference(path, x.shape, y.shape, *means))
            continue
        if text:
            gap = (x.astype(object) != y.astype(object)).astype(float)
            scale = 1.0
        else:
            kind = np.complex128 if "c" in (x.dtype.kind, y.dtype.kind) else np.float64
            same = (x == y) | (np.isnan(x.astype(kind)) & np.isnan(y.astype(kind)))
            with np.errstate(invalid="ignore"):
                gap = np.where(same, 0.0, np.abs(x.astype(kind) - y.astype(kind)))
            gap[np.isnan(gap)] = np.inf
            size = np.abs(x.astype(kind))
            scale = float(size[np.isfinite(size)].max(initial=0.0))
        largest = float(gap.max(initial=0.0))
        found.append(
            VariableDifference(
                path,
                x.shape,
                y.shape,
                *means,
                max_abs=largest,
                rms=float(np.sqrt(np.mean(gap**2))) if gap.size else 0.0,
                scale=scale,
                equal=largest == 0.0 and x.dtype == y.dtype,
            )
        )
    return found


def _show_two(first: Path, second: Path, wanted: Sequence[str], width: int) -> list[str]:
    tree, other = store.open_run(first), store.open_run(second)
    one, two = store.read_record(first), store.read_record(second)
    lines = [f"A  {first}   {one['title']}", f"B  {second}   {two['title']}", ""]
    for key, record in (("A", one), ("B", two)):
        lines += [f"{key}: {sentence}" for sentence in record.get("verdict", [])]
    if one["content_sha256"] == two["content_sha256"]:
        return [*lines, "", f"equal: both have content {one['content_sha256']}"]
    a, b = dict(_flat(one["config"])), dict(_flat(two["config"]))
    facts = [("model_sha256", "model_sha256"), ("ssmtheory_version", "ssmtheory_version"), ("schema", "schema")]
    rows = [
        (key, _short(a.get(key, "(absent)"), 45), _short(b.get(key, "(absent)"), 45))
        for key in dict.fromkeys([*a, *b])
        if a.get(key) != b.get(key)
    ]
    rows += [(name, str(one.get(k))[:45], str(two.get(k))[:45]) for name, k in facts if one.get(k) != two.get(k)]
    lines += ["", *(_table([("configuration", "A", "B"), *rows]) if rows else ["equal configurations"])]
    compared = differences(tree, other)
    table = [("variable", "mean A", "mean B", "B - A", "max |B - A|", "of max |A|", "")]
    same = 0
    for d in compared:
        if d.equal:
            same += 1
            continue
        if d.shape is None or d.other_shape is None:
            table.append((d.path, "", "", "", "", "", f"only in {'B' if d.shape is None else 'A'}"))
            continue
        change = _number(d.other_mean - d.mean)
        if d.max_abs is None:
            note = f"shape {'x'.join(map(str, d.shape))} in A, {'x'.join(map(str, d.other_shape))} in B"
            table.append((d.path, _number(d.mean), _number(d.other_mean), change, "", "", note))
            continue
        relative = f"{d.max_abs / d.scale:.2g}" if d.scale > 0 else ""
        table.append((d.path, _number(d.mean), _number(d.other_mean), change, _number(d.max_abs), relative, ""))
    lines += ["", *(line[:width] for line in _table(table, right=(1, 2, 3, 4, 5)))]
    if same:
        lines.append(f"{same} of {len(compared)} variables are equal")
    return lines + _axis_tables([("A", dict(_variables(tree))), ("B", dict(_variables(other)))], wanted, width)


# ---------------------------------------------------------------------------------------------------- verify


@dataclass(frozen=True)
class Verification:
    """What was checked of a run: (what, None or what is wrong) each."""

    folder: Path
    checks: list[tuple[str, str | None]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(wrong is None for _, wrong in self.checks)

    def __str__(self) -> str:
        lines = [
            f"{'ok   ' if wrong is None else 'WRONG'}  {what}{'' if wrong is None else ': ' + wrong}"
            for what, wrong in self.checks
        ]
        return "\n".join([*lines, f"{self.folder}: {'verified' if self.ok else 'NOT as recorded'}"])


def verify(
    run: str | os.PathLike[str],
    other: str | os.PathLike[str] | None = None,
    *,
    schema: Any = None,
    out: str | os.PathLike[str] = "runs",
    rtol: float = 1e-5,
) -> Verification:
    """Check a run against its own record, and, given a second run of the same configuration, against that one.

    The record: the run's name follows from its configuration, the dataset has the recorded digest, attributes and
    schema, and every figure carries the dataset's stamp. The second run: digest first; where it differs (another
    processor may round differently), every variable within `rtol` of its largest value.

    Args:
        run, other: folders or ids.
        schema: a `DatasetSchema`; None: not checked (`ssmtheory.runner.verify` looks it up by the run's experiment).
        out: folder in which ids are looked up.
        rtol: tolerance of the comparison with `other`; float32 results differ by a few ulp after a long scan.
    """
    folder = find_run(run, out)
    result = Verification(folder)

    def check(what: str, test: Callable[[], str | None]) -> bool:
        try:
            wrong = test()
        except StoreError as error:
            wrong = str(error)
        result.checks.append((what, wrong))
        return wrong is None

    record: dict[str, Any] = {}

    def complete() -> str | None:
        record.update(store.read_record(folder))
        return None if record["state"] == "complete" else "the run is not complete"

    if not check("run.json: complete", complete):
        return result
    config, model = record["config"], record["model_sha256"]

    def identity() -> str | None:
        if provenance.config_sha256(config) != record["config_sha256"]:
            return "config_sha256 does not follow from config"
        expected = provenance.run_id(record["experiment"], config, model)
        return None if expected == record["run"] else f"the configuration's run is {expected}"

    check("name: follows from configuration and model", identity)
    tree: xr.DataTree | None = None

    def content() -> str | None:
        nonlocal tree
        tree = store.open_data(folder / "data.zarr")
        try:
            found = store.array_sha256(tree)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            tree = None
            return f"an array cannot be read: {error}"
        if store.combine(found) == record["content_sha256"]:
            return None
        recorded = record.get("arrays", {})
        changed = sorted(k for k in found.keys() | recorded.keys() if found.get(k) != recorded.get(k))
        return f"differs in {', '.join(changed)}"

    check(f"data.zarr: content {record['content_sha256'][:12]}", content)
    if tree is not None:
        attributes = tree.attrs

        def root() -> str | None:
            expected = {
                "config": provenance.canonical_json(config),
                "config_sha256": record["config_sha256"],
                "model_sha256": model or "",
                "schema": record["schema"],
            }
            wrong = [key for key, value in expected.items() if attributes.get(key) != value]
            return f"{', '.join(wrong)} differ from run.json" if wrong else None

        check("data.zarr: root attributes", root)
        if schema is not None:
            dataset = tree
            check(f"data.zarr: schema {schema.id}", lambda: "; ".join(schema.breaches(dataset)) or None)
    for name in record["figures"]:

        def stamped(name: str = name) -> str | None:
            path = folder / "figures" / name
            if not path.is_file():
                return "missing"
            stamps = read_stamps(path)
            if not stamps:
                return "carries no stamp"
            found = stamps[0]
            if (found.content_sha256, found.run_id) != (record["content_sha256"], record["run"]):
                return f"drawn from content {found.content_sha256[:12]} of run {found.run_id}"
            return None

        check(f"figures/{name}: stamp", stamped)
    if other is not None and tree is not None:
        mine, second = tree, find_run(other, out)

        def agreement() -> str | None:
            theirs = store.read_record(second)
            if theirs.get("content_sha256") == record["content_sha256"]:
                return None
            if theirs["config_sha256"] != record["config_sha256"] or theirs["model_sha256"] != model:
                return "another configuration or model (ssmtheory show A B has the difference)"
            wrong = []
            for d in differences(mine, store.open_run(second)):
                if d.max_abs is None:
                    wrong.append(f"{d.path} is absent or of another shape")
                elif d.max_abs > rtol * d.scale:
                    wrong.append(f"{d.path} by {d.max_abs:.3g}, {rtol:g} of its largest value is {rtol * d.scale:.3g}")
            return "; ".join(wrong) or None

        check(f"equal to {second}, by digest or within {rtol:g}", agreement)
    return result


# ---------------------------------------------------------------------------------------------------- whence


def read_stamps(path: str | os.PathLike[str]) -> list[provenance.Stamp]:
    """The stamps of a figure, one per run it was drawn from: PDF Keywords, PNG Description or SVG metadata.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    # all three formats keep it as plain ASCII text
    return provenance.parse_stamps(data.decode("latin-1"))


@dataclass(frozen=True)
class Origin:
    """One run behind a figure. folder, record: None where it is not there; current: its data are still those drawn."""

    stamp: provenance.Stamp
    folder: Path | None = None
    record: dict[str, Any] | None = None
    current: bool = False

    def __str__(self) -> str:
        place = f"{self.stamp.run_id} (not found here: --out DIR)" if self.folder is None else str(self.folder)
        rows = [("run", place), ("content", self.stamp.content_sha256), ("commit", self.stamp.commit)]
        if self.record is None:
            return "\n".join(_table([*rows, ("config", f"sha256 {self.stamp.config_sha256}")]))
        config = [(key, _short(value)) for key, value in _flat(self.record["config"])]
        lines = [*_table([*rows, ("config", "")]), *(f"  {line}" for line in _table(config))]
        if not self.current:
            lines.append(f"note     {self.folder} now has other data: content {self.record.get('content_sha256')}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Whence:
    """Where a figure comes from: one origin per run."""

    figure: Path
    origins: list[Origin]

    def __str__(self) -> str:
        return "\n\n".join([f"figure   {self.figure}\n{self.origins[0]}", *map(str, self.origins[1:])])


def whence(figure: str | os.PathLike[str], *, out: str | os.PathLike[str] = "runs") -> Whence:
    """The runs, configurations and commits behind a figure.

    Args:
        figure: a PDF, PNG or SVG file that this package wrote, wherever it lies now.
        out: folder in which the runs are looked for, after the folder the figure lies in.

    Raises:
        InputError: no such file, or it carries no stamp.
    """
    path = Path(figure)
    stamps = read_stamps(path)
    if not stamps:
        raise InputError(f"{path} carries no stamp of a run: it was not written by this package, or was changed since")
    origins = []
    for found in stamps:
        places = (path.resolve().parent.parent, Path(out) / found.run_id)
        folder = next((p for p in places if p.name == found.run_id and (p / "run.json").is_file()), None)
        if folder is None:
            origins.append(Origin(found))
            continue
        record = store.read_record(folder)
        origins.append(Origin(found, folder, record, record.get("content_sha256") == found.content_sha256))
    return Whence(path, origins)
