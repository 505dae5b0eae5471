"""Downloads against a server on the loopback: whole, broken off, resumed, changed, damaged, concurrent, offline."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import multiprocessing
import struct
import threading
from pathlib import Path

import numpy as np
import pytest

from ssmtheory.data import download
from ssmtheory.data.download import RemoteFile, fetch
from ssmtheory.errors import InputError

pytest.importorskip("pooch")

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`; breaks off after `cut` bytes of a reply for the first `breaks` requests."""

    content, cut, breaks, ranges, status = CONTENT, 0, 0, True, 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    def remote(self, content: bytes = CONTENT, **other) -> RemoteFile:
        url = f"http://127.0.0.1:{self.server_port}/file.bin"
        return RemoteFile("made-up", "file.bin", url, hashlib.sha256(content).hexdigest(), len(content), **other)


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        if start and start >= len(server.content):
            self.send_error(416)
            return
        self.send_response(server.status if server.status != 200 else 206 if start else 200)
        self.send_header("Content-Length", str(len(server.content) - start))
        self.send_header("Content-Encoding", "gzip")  # a lie that some servers tell of .gz files
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.end_headers()
        breaks = server.breaks > 0
        server.breaks -= breaks
        self.wfile.write(server.content[start : start + server.cut if breaks else None])

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSMTHEORY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SSMTHEORY_OFFLINE", raising=False)
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    with Server() as it:
        thread = threading.Thread(target=it.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield it
        it.shutdown()
        thread.join()


def test_a_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    path = fetch(server.remote())
    assert path == tmp_path / "cache" / "made-up" / "file.bin"
    assert path.read_bytes() == CONTENT
    assert fetch(server.remote()) == path
    assert server.asked == [None]


def test_a_reply_that_breaks_off_is_continued(server: Server) -> None:
    server.cut, server.breaks = 100_000, 2
    assert fetch(server.remote()).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=200000-"]


def test_a_later_call_goes_on_where_the_last_one_stopped(server: Server, tmp_path: Path) -> None:
    server.cut, server.breaks = 50_000, download.ATTEMPTS
    with pytest.raises(InputError, match=r"made-up: http.*broke off: call again to go on, or put file\.bin"):
        fetch(server.remote())
    part = tmp_path / "cache" / "made-up" / "file.bin.part"
    assert part.read_bytes() == CONTENT[: 50_000 * download.ATTEMPTS]
    assert not part.with_name("file.bin").exists()
    server.asked.clear()
    assert fetch(server.remote()).read_bytes() == CONTENT
    assert server.asked == ["bytes=200000-"]
    assert not part.exists()


def test_a_server_without_ranges_starts_again(server: Server) -> None:
    server.cut, server.breaks, server.ranges = 100_000, 1, False
    assert fetch(server.remote()).read_bytes() == CONTENT
    assert len(server.asked) == 2


@pytest.mark.parametrize("length", [1000, len(CONTENT), len(CONTENT) + 5])
def test_pieces_of_another_file_are_thrown_away(server: Server, tmp_path: Path, length: int) -> None:
    folder = tmp_path / "cache" / "made-up"
    folder.mkdir(parents=True)
    (folder / "file.bin.part").write_bytes(bytes(length))
    assert fetch(server.remote()).read_bytes() == CONTENT


@pytest.mark.parametrize("sent", [CONTENT[:-1] + b"?", CONTENT + b"more", b"<html>log in</html>"])
def test_another_file_than_the_published_one_is_refused(server: Server, tmp_path: Path, sent: bytes) -> None:
    server.content = sent
    remote = server.remote()
    with pytest.raises(InputError, match=r"made-up: .*(published sha256|broke off)"):
        fetch(remote)
    assert not (tmp_path / "cache" / "made-up" / "file.bin").exists()
    server.content = CONTENT
    assert fetch(remote).read_bytes() == CONTENT  # and what it left does not stand in the way


def test_a_damaged_file_of_the_cache_is_replaced(server: Server) -> None:
    path = fetch(server.remote())
    path.write_bytes(CONTENT[:-1])
    assert fetch(server.remote()).read_bytes() == CONTENT


def test_an_error_of_the_server_is_said(server: Server) -> None:
    server.status = 503
    with pytest.raises(InputError, match=r"made-up: the source answers 503 .*: try later, or put"):
        fetch(server.remote())
    assert len(server.asked) == 1


def test_no_network_is_said(server: Server) -> None:
    remote = server.remote()
    server.server_close()
    with pytest.raises(InputError, match=rf"cannot be reached .* put file\.bin \(sha256 {remote.sha256}\)"):
        fetch(remote)


def test_offline_asks_no_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSMTHEORY_OFFLINE", "1")
    with pytest.raises(InputError, match="SSMTHEORY_OFFLINE is set"):
        fetch(server.remote())
    monkeypatch.delenv("SSMTHEORY_OFFLINE")
    path = fetch(server.remote())
    monkeypatch.setenv("SSMTHEORY_OFFLINE", "1")
    assert fetch(server.remote()) == path
    assert server.asked == [None]


def _fetched(remote: RemoteFile) -> str:
    return hashlib.sha256(fetch(remote).read_bytes()).hexdigest()


@pytest.mark.slow
def test_processes_that_want_the_same_file_wait_for_each_other(server: Server) -> None:
    remote = server.remote()
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert set(pool.map(_fetched, [remote] * 4)) == {remote.sha256}
    assert server.asked == [None]


# ---------------------------------------------------------------------------------------------------- mirrors


def test_mirrors_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user, system = tmp_path / "user", tmp_path / "system"
    for root, names in ((user, ("b",)), (system, ("a", "b"))):
        (root / "set").mkdir(parents=True)
        for name in names:
            (root / "set" / name).touch()
    monkeypatch.setattr(download, "SYSTEM_FOLDERS", (system,))
    monkeypatch.setenv("SSMTHEORY_DATA", str(user))
    assert download.mirrored("set", "a", "b") == user / "set" / "b"
    assert download.mirrored("set", "a") == system / "set" / "a"
    assert download.mirrored("set", "c") is None
    monkeypatch.setenv("SSMTHEORY_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"SSMTHEORY_DATA .*nowhere: there is no such folder"):
        download.mirrored("set", "a")


def test_a_gzip_header_that_was_replaced_does_not_hide_the_published_file(tmp_path: Path) -> None:
    """Debian writes another time and no name; the compressed data are the same, and so is the rebuilt file's digest."""
    content = bytes(1000)
    stream = gzip.compress(content, mtime=7)[10:]
    original = b"\x1f\x8b\x08\x08" + struct.pack("<I", 1504176606) + b"\0\x03" + b"file\0" + stream
    assert gzip.decompress(original) == content
    remote = RemoteFile("set", "file.gz", "", hashlib.sha256(original).hexdigest(), len(original), 1504176606)
    path = tmp_path / "file.gz"
    path.write_bytes(original)
    assert download.unchanged(path, remote)
    replaced = b"\x1f\x8b\x08\0" + struct.pack("<I", 1591348973) + b"\0\x03" + stream
    path.write_bytes(replaced)
    assert download.unchanged(path, remote)
    path.write_bytes(replaced[:-9] + b"x" + replaced[-8:])
    assert not download.unchanged(path, remote)
    path.write_bytes(gzip.compress(content + b"\0", mtime=0))
    assert not download.unchanged(path, remote)
