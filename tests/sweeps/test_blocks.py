"""Blocks of points on disk: what a chunk is, that the ledger alone says what is done, and who may write."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

from ssmtheory.errors import InputError, StoreError
from ssmtheory.results import fs, provenance
from ssmtheory.sweeps import blocks

POINTS, BLOCK = 7, 3


def arrays(point: int) -> dict:
    rng = np.random.default_rng(point)
    return {
        "t/x": (("time",), rng.normal(size=4)),
        "t/z": (("time",), rng.normal(size=4) + 1j * rng.normal(size=4)),
        "n": ((), np.int64(point)),
        "zero": ((), np.int32(0)),
        "empty": (("token",), np.zeros(0, dtype=np.float32)),
        "name": ((), np.array(f"point {point}")),
    }


@pytest.fixture
def store(tmp_path, monkeypatch):
    # asking git takes longer than all the rest
    monkeypatch.setattr(provenance, "git_state", dict)
    tasks = [blocks.block_key(n) for n in range(3)]
    return blocks.BlockStore(tmp_path, "demo-sweep-0", "demo-sweep", tasks, {"points": POINTS, "block": BLOCK})


def write(session, number: int, failed=(), **changes) -> dict:
    members = [p for p in range(number * BLOCK, min((number + 1) * BLOCK, POINTS)) if p not in failed]
    results = {point: {**arrays(point), **changes} for point in members}
    told = {point: f"point-{point}.json" for point in failed}
    return blocks.write_block(session, number, results, told, points=POINTS, block=BLOCK, seconds=0.0)


def same(a, b) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")


def test_every_block_is_one_chunk_of_each_array_and_reads_back(store):
    with store.open():
        session = store.session(POINTS)
        for number in (2, 0, 1):  # in any order
            line = write(session, number)
            assert set(line["chunks"]) == {
                f"{p}/c.{number}" + ".0" * p.count("t/") for p in ("t/x", "t/z", "n", "zero", "name")
            }
            for name, digest in line["chunks"].items():
                assert fs.file_sha256(store.folder / "blocks.zarr" / name) == digest
        for path in ("t/x", "t/z", "n", "zero"):
            expected = np.stack([arrays(point)[path][1] for point in range(POINTS)])
            assert same(store.array(path), expected), path
        assert store.array("name").tolist() == [f"point {p}" for p in range(POINTS)]
        assert store.array("empty").shape == (POINTS, 0)
        metadata = json.loads((store.folder / "blocks.zarr/t/z/zarr.json").read_bytes())
        assert metadata["chunk_grid"]["configuration"]["chunk_shape"] == [BLOCK, 4]
        assert not any("shard" in codec["name"] for codec in metadata["codecs"])
        assert metadata["dimension_names"] == ["point", "time"]


def test_what_was_not_written_is_nan_not_zero(store):
    with store.open():
        write(store.session(POINTS), 1, failed=(4,))
        for path in ("t/x", "t/z"):
            values = store.array(path)
            assert np.isnan(values[[0, 1, 2, 4, 6]]).all()
            assert np.isnan(values[[0, 4]].imag).all() or path == "t/x"
            assert same(values[3], arrays(3)[path][1])


def test_the_ledger_alone_says_what_is_done(store):
    with store.open():
        session = store.session(POINTS)
        write(session, 0)
        write(session, 1, failed=(4,))
        assert store.done == {}
    with store.open():
        assert set(store.done) == {"block 0", "block 1"}
        assert store.failures() == {4: "point-4.json"}
        # a whole chunk without a line is not done: the writer was killed between the two
        for ledger in (store.folder / "ledger").glob("*.jsonl"):
            lines = ledger.read_bytes().splitlines(keepends=True)
            ledger.write_bytes(b"".join(line for line in lines if b'"block 1"' not in line))
    with store.open():
        assert set(store.done) == {"block 0"}


@pytest.mark.parametrize("harm", ["cut", "gone", "torn line"])
def test_damage_is_found_and_only_that_block_is_done_again(store, harm):
    notices: list[str] = []
    store.notice = notices.append
    with store.open():
        session = store.session(POINTS)
        for number in range(3):
            write(session, number)
    chunk = store.folder / "blocks.zarr/t/x/c.1.0"
    ledger = max((store.folder / "ledger").glob("*.jsonl"), key=lambda path: path.stat().st_size)
    if harm == "cut":
        chunk.write_bytes(chunk.read_bytes()[:-3])
    elif harm == "gone":
        chunk.unlink()
    else:
        ledger.write_bytes(ledger.read_bytes()[:-20])
    with store.open():
        assert set(store.done) == {"block 0", "block 1", "block 2"} - {"block 2" if harm == "torn line" else "block 1"}
        assert ledger.read_bytes().endswith(b"\n"), "a torn tail is cut off"
    assert any("chunk t/x/c.1.0 of block 1" in line for line in notices) == (harm != "torn line")


def test_two_processes_that_begin_at_once_share_the_first_one_s_arrays(store, monkeypatch):
    """The slower finds the arrays there when it renames its own: they stay, its own go."""
    with store.open():
        session = store.session(POINTS)
        real, raced = fs.rename, []

        def rename(source, target):
            if target.name == "blocks.zarr" and not raced:
                raced.append(True)
                write(session, 0)
            real(source, target)

        monkeypatch.setattr(fs, "rename", rename)
        write(session, 1)
        assert raced
        assert same(store.array("t/x")[:6], np.stack([arrays(p)["t/x"][1] for p in range(6)]))
        assert [path.name for path in store.folder.glob(".tmp*")] == []


def test_points_of_another_structure_are_refused_in_words(store):
    with store.open():
        session = store.session(POINTS)
        write(session, 0)
        with pytest.raises(InputError) as caught:
            write(session, 1, **{"t/x": (("time",), np.zeros(5))})
        assert "t/x is float64 (time 5), in the other points float64 (time 4)" in str(caught.value)
        for changes, words in [
            ({"new": ((), np.float64(0))}, "new is not in the other points"),
            ({"n": ((), np.float32(0))}, "n is float32 (), in the other points int64 ()"),
        ]:
            with pytest.raises(InputError) as caught:
                write(session, 1, **changes)
            assert words in str(caught.value)


def test_a_session_that_is_over_writes_nothing_more(store):
    with store.open():
        old = store.session(POINTS)
        write(old, 0)
    with store.open(fresh=True):
        with pytest.raises(StoreError, match="no longer wanted"):
            write(old, 1)
        new = store.session(POINTS)
        write(new, 0)
        assert new.name != old.name
    with store.open():
        assert set(store.done) == {"block 0"}


def test_a_session_that_outlives_its_driver_still_counts(store):
    with store.open():
        old = store.session(POINTS)
    with store.open():
        new = store.session(POINTS)
        write(new, 0)
        write(old, 0)  # the same block once more: the same bytes
        write(old, 1)
    with store.open():
        assert set(store.done) == {"block 0", "block 1"}
        writers = [path.name for path in (store.folder / "ledger").glob("*.jsonl")]
        assert len(writers) == len(set(writers)) == 4  # two sessions' first files, and one of each writer


def test_rows_that_are_there_are_kept_for_a_retry(store):
    with store.open():
        session = store.session(POINTS)
        write(session, 1, failed=(4,))
        rows = blocks.read_rows(session, [3, 5])
        assert set(rows) == {3, 5}
        for point, found in rows.items():
            for path, (dims, values) in arrays(point).items():
                assert found[path][0] == dims
                assert same(found[path][1], np.asarray(values)) or found[path][1] == values
        results = {**rows, 4: arrays(4)}
        blocks.write_block(session, 1, results, {}, points=POINTS, block=BLOCK, seconds=0.0)
    with store.open():
        assert store.failures() == {}
        assert store.array("n")[3:6].tolist() == [3, 4, 5]


def test_zarr_reads_what_it_did_not_write(store):
    """The chunks are bytes that `fs` wrote; to zarr they are its own."""
    with store.open():
        write(store.session(POINTS), 0)
        group = zarr.open_group(str(store.folder / "blocks.zarr"), mode="r")
        assert same(group["t/x"][:3], np.stack([arrays(p)["t/x"][1] for p in range(3)]))
