"""Hand a run on: a copy of what is finished, if wanted without a trace of who made it and where."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from ssmtheory.errors import InputError, StoreError
from ssmtheory.results import compare, fs, store

__all__ = ["anonymous_record", "export"]

# what a reader of the results needs; all else (host, paths, command lines, times, commit) could name the authors
_KEPT = (
    *("format", "state", "run", "experiment", "title", "schema", "config", "config_sha256", "model_sha256"),
    *("ssmtheory_version", "tasks", "content_sha256", "arrays", "figures", "verdict"),
)
_KEPT_PROVENANCE = ("machine", "python", "packages", "threads")


def anonymous_record(record: dict[str, Any]) -> dict[str, Any]:
    """A run's record without host, paths, command lines, times and commit."""
    kept = {key: record[key] for key in _KEPT if key in record}
    if str(record.get("module", "")).startswith("ssmtheory."):
        kept["module"] = record["module"]
    kept["provenance"] = {k: record["provenance"][k] for k in _KEPT_PROVENANCE if k in record["provenance"]}
    return kept


def _without_commit(data: bytes) -> bytes:
    """A figure file whose stamp has zeros for the commit: the same length, so that a PDF's offsets still hold."""

    def zeros(found: re.Match[bytes]) -> bytes:
        return found[1] + b"0" * len(found[2])

    pattern = rb"(ssmtheory content [0-9a-f]{64} run [\w.-]+ config [0-9a-f]{64} commit )([0-9a-f]{64}|[0-9a-f]{40})"
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return re.sub(pattern, zeros, data)
    pieces, at = [data[:8]], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if kind in (b"tEXt", b"iTXt"):
            body = re.sub(pattern, zeros, body)
        pieces += [struct.pack(">I", len(body)), kind, body, struct.pack(">I", zlib.crc32(kind + body))]
        at += 12 + length
    return b"".join(pieces)


def export(
    run: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    anonymous: bool = False,
    out: str | os.PathLike[str] = "runs",
) -> Path:
    """Copy a complete run's record, dataset and figures to a folder, or into one file if `target` ends in .zip.

    Args:
        run: folder or id.
        target: must not exist yet.
        anonymous: leave out host, paths, command lines, times and commit, in the record and in the figures' stamps.
        out: folder in which ids are looked up.

    Returns:
        The target's path.

    Raises:
        StoreError: the run is not complete, its data are not the recorded ones, or the target cannot be written.
        InputError: there is no such run, or the target exists.
    """
    folder, target = compare.find_run(run, out), Path(target)
    if target.exists():
        raise InputError(f"{target} exists already: choose another name")
    record = store.read_record(folder)
    if record["state"] != "complete":
        raise StoreError(f"{folder} is not complete; the command that started it goes on from there")
    if store.content_sha256(store.open_run(folder)) != record["content_sha256"]:
        raise StoreError(f"{folder}: the data are not the recorded ones (ssmtheory verify {folder} says where)")
    with fs.store_errors(target):
        fs.make_folder(target.absolute().parent)
        copy = fs.temporary(target.absolute().with_name(record["run"]))
        try:
            copy.mkdir()
            text = json.dumps(anonymous_record(record) if anonymous else record, indent=1) + "\n"
            (copy / "run.json").write_text(text)
            shutil.copytree(folder / "data.zarr", copy / "data.zarr")
            (copy / "figures").mkdir()
            for name in record["figures"]:
                data = (folder / "figures" / name).read_bytes()
                (copy / "figures" / name).write_bytes(_without_commit(data) if anonymous else data)
            if target.suffix == ".zip":
                fs.write_file(target, lambda scratch: _zip(copy, scratch, record["run"]))
                shutil.rmtree(copy)
            else:
                fs.publish(copy, target)
        except BaseException:
            shutil.rmtree(copy, ignore_errors=True)
            raise
    return target


def _zip(folder: Path, target: Path, name: str) -> None:
    """Zip a folder: sorted names and no times, so that equal runs give equal files."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            entry = zipfile.ZipInfo(f"{name}/{path.relative_to(folder).as_posix()}")
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes())
