"""What is stored reads back equal; the digest sees values and nothing else; ledgers and locks survive their writers."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ssmtheory.errors import StoreError
from ssmtheory.results import fs, store


def tree(**changes) -> xr.DataTree:
    generator = np.random.default_rng(0)
    arrays = {
        "f4": (("layer", "token"), generator.normal(size=(3, 5)).astype(np.float32)),
        "c16": (("layer", "eig"), generator.normal(size=(3, 2)) + 1j * generator.normal(size=(3, 2))),
        "i1": (("layer",), np.array([-1, 0, 1], np.int8)),
        "flag": (("layer",), np.array([True, False, True])),
        "hole": (("layer",), np.array([np.nan, -0.0, np.inf])),
        "zero": (("layer",), np.zeros(3, np.complex128)),
        "none": (("epsilon",), np.zeros(0, np.float32)),
        "scalar": ((), np.float16(0.5)),
    } | changes
    return xr.DataTree.from_dict(
        {
            "/": xr.Dataset({"top": ((), 3)}),
            "a": xr.Dataset(arrays, coords={"predictor": np.array(["q", "g_self"]), "layer": np.arange(3)}),
            "a/deep": xr.Dataset({"x": (("predictor",), [1.0, 2.0])}),
        }
    )


def test_round_trip(tmp_path):
    first = tree()
    first.attrs = {"config": "{}"}
    store.write_data(first, tmp_path / "data.zarr")
    second = store.open_data(tmp_path / "data.zarr")
    assert store.array_sha256(second) == store.array_sha256(first)
    assert second.attrs == {"config": "{}"}
    for path in ("a/f4", "a/c16", "a/i1", "a/flag", "a/hole", "a/zero", "a/none", "a/scalar", "a/deep/x", "top"):
        assert second[path].dtype == first[path].dtype, path
        np.testing.assert_array_equal(second[path].values, first[path].values)
    assert np.signbit(second["a/hole"].values[1])
    assert second["a/deep/x"].sel(predictor="g_self") == 2.0
    assert list(second["a/predictor"].values) == ["q", "g_self"]


def test_format_on_disk(tmp_path):
    store.write_data(tree(), tmp_path / "data.zarr")
    root = json.loads((tmp_path / "data.zarr/zarr.json").read_text())
    assert root["zarr_format"] == 3
    assert "consolidated_metadata" not in root or root["consolidated_metadata"] is None
    complex_array = json.loads((tmp_path / "data.zarr/a/c16/zarr.json").read_text())
    assert complex_array["fill_value"] == ["NaN", "NaN"], "an unwritten complex chunk must not read as 0"


def test_digest_is_independent_of_storage(tmp_path):
    first = tree()
    digest = store.content_sha256(first)
    node = first["a"].to_dataset(inherit=False)
    other = first.copy()
    swapped = node.assign(f4=(node["f4"].dims, np.asfortranarray(node["f4"].values).astype(">f4")))
    backwards = {name: swapped[name] for name in sorted(swapped.data_vars, reverse=True)}
    other["a"].dataset = xr.Dataset(backwards, coords=swapped.coords)
    other["a/f4"].attrs["units"] = "m"
    assert store.content_sha256(other) == digest
    # fixed-width text has no specification in zarr v3, and says so
    other["a"].dataset = (
        other["a"]
        .to_dataset(inherit=False)
        .assign_coords(predictor=np.array(["q", "g_self"], dtype=np.dtypes.StringDType()))
    )
    other.to_zarr(
        tmp_path / "x.zarr",
        zarr_format=3,
        consolidated=False,
        encoding={"/a": {"c16": {"chunks": (1, 1), "compressors": None}}},
    )
    assert store.content_sha256(store.open_data(tmp_path / "x.zarr")) == digest


@pytest.mark.parametrize(
    "change",
    [
        {"i1": (("layer",), np.array([-1, 0, 2], np.int8))},
        {"i1": (("layer",), np.array([-1, 0, 1], np.int16))},
        {"i1": (("token",), np.array([-1, 0, 1, 0, 0], np.int8))},
        {"hole": (("layer",), np.array([np.nan, 0.0, np.inf]))},
        {"more": (("layer",), np.zeros(3))},
        {"flag": (("state",), np.array([True, False, True]))},
        {"zero": (("layer",), np.array([0, 0, 1e-300j]))},
    ],
)
def test_digest_sees_every_change(change):
    assert store.content_sha256(tree(**change)) != store.content_sha256(tree())


def test_digest_takes_all_nans_for_one():
    other = np.array([np.nan, -0.0, np.inf])
    other.view(np.uint64)[0] |= 1 << 63 | 5  # another sign and payload
    assert store.content_sha256(tree(hole=(("layer",), other))) == store.content_sha256(tree())


def test_digest_definition():
    """The digest, from its description alone."""
    values = np.array([1.0, 2.0])
    digest = hashlib.sha256(b'[["token"], "float64", [2]]\n' + values.astype("<f8").tobytes()).hexdigest()
    whole = hashlib.sha256(b"ssmtheory-content-1\n" + json.dumps({"g/v": digest}, separators=(",", ":")).encode())
    one = xr.DataTree.from_dict({"g": xr.Dataset({"v": (("token",), values)})})
    assert store.content_sha256(one) == whole.hexdigest()


def test_part_round_trip(tmp_path):
    arrays = {"file": np.arange(3), "a/b": np.array(["x", "yz"]), "s": np.complex64(1j), "e": np.zeros((0, 2), np.int8)}
    store._write_part(tmp_path / "p.npz", arrays)
    part = store.Part(tmp_path / "p.npz")
    assert list(part) == list(arrays)
    for name, value in arrays.items():
        assert part[name].dtype == np.asarray(value).dtype
        np.testing.assert_array_equal(part[name], value)
    with pytest.raises(KeyError):
        part["nothing"]
    # np.load reads it too
    np.testing.assert_array_equal(np.load(tmp_path / "p.npz")["a/b"], arrays["a/b"])


@pytest.mark.parametrize("value", [np.array([object()]), np.array([("x", 1)], dtype=object)])
def test_parts_hold_no_objects(tmp_path, value):
    runs = store.RunStore(tmp_path, "demo-0", "demo", ["t"], {})
    with runs.open(), pytest.raises(StoreError, match="array of objects"):
        runs.save_part("t", {"x": value}, 0.0)


def test_file_names_of_tasks_do_not_meet():
    keys = ["a b", "a_b", "a/b", "../x", ".hidden", "ä", "a" * 300, "a" * 301, "a b "]
    names = [store._file_name(key) for key in keys]
    assert len(set(names)) == len(keys)
    assert all("/" not in name and not name.startswith(".") and len(name) < 120 for name in names)


# ------------------------------------------------------------------------------------------------ ledger


def test_a_ledger_cut_anywhere_keeps_its_whole_lines(tmp_path):
    path = tmp_path / "0.jsonl"
    for n in range(3):
        fs.append_line(path, {"task": n})
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        fs.heal(path)
        kept = sum(end <= cut for end in ends)
        assert [r["task"] for r in fs.read_lines(path)] == list(range(kept))
        fs.append_line(path, {"task": "next"})
        assert fs.read_lines(path)[-1] == {"task": "next"}, "the next line starts on a line of its own"
        assert len(fs.read_lines(path)) == kept + 1


def test_a_damaged_line_costs_only_itself(tmp_path):
    path = tmp_path / "0.jsonl"
    path.write_bytes(b'{"task": 1}\n\xff\x00garbage\n[1]\n{"task": 2}\n')
    assert [r["task"] for r in fs.read_lines(path)] == [1, 2]


# ------------------------------------------------------------------------------------------------ files


def test_publish_replaces_a_file_and_a_folder(tmp_path):
    target = tmp_path / "x"
    fs.write_file(target, b"1")
    fs.write_file(target, lambda scratch: scratch.write_bytes(b"2"))
    assert target.read_bytes() == b"2"
    folder = tmp_path / "f"
    for text in ("1", "2"):
        scratch = fs.temporary(folder)
        scratch.mkdir()
        (scratch / text).write_text(text)
        fs.publish(scratch, folder)
        assert [p.name for p in folder.iterdir()] == [text]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f", "x"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "x"
    fs.write_file(target, b"old")

    def fail(scratch: Path) -> None:
        scratch.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "full", str(scratch))

    with pytest.raises(StoreError, match="no space left on the disk"), fs.store_errors(target):
        fs.write_file(target, fail)
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_every_rename_and_fsync_of_the_package_is_in_fs():
    """The fault tests stop at fs.rename and fs.fsync: no other durable operation may exist beside them."""
    folder = Path(store.__file__).parent
    for path in (*folder.glob("*.py"), folder.parent / "runner.py"):
        text = path.read_text()
        if path.name != "fs.py":
            for word in ("os.replace", "os.rename", ".rename(", "os.fsync", "shutil.move"):
                if word == ".rename(":
                    text = text.replace("fs.rename(", "")
                assert word not in text, f"{path.name}: {word}"
    text = (folder / "fs.py").read_text()
    assert text.count("os.replace(") == 1
    assert text.count("os.fsync(") == 1


# ------------------------------------------------------------------------------------------------ lock


def _hold(folder: str, ready, leave) -> None:
    fs.Lock(Path(folder)).acquire()
    ready.set()
    leave.wait(60)


def test_lock_names_its_holder_and_dies_with_it(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(str(tmp_path), ready, leave))
    process.start()
    assert ready.wait(60)
    with pytest.raises(StoreError, match=f"being written by process {process.pid} on "):
        fs.Lock(tmp_path).acquire()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert (tmp_path / "lock").exists(), "a killed process leaves its file"
    with fs.Lock(tmp_path), pytest.raises(StoreError, match="by this process already"):
        fs.Lock(tmp_path).acquire()
    assert not (tmp_path / "lock").exists()
    fs.Lock(tmp_path).acquire()


def test_import_is_light():
    """The schema is imported by every experiment's `--help`: it may load nothing heavy."""
    code = (
        "import sys, ssmtheory.results.schema, ssmtheory.results, ssmtheory.experiments.base, ssmtheory.runner;"
        "heavy = {'numpy', 'xarray', 'zarr', 'scipy', 'matplotlib', 'torch', 'jax', 'sympy'};"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
