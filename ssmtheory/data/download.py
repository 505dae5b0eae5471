"""Files from their original sources: a local mirror first, then a download that resumes and is checked.

| where a file is looked for | |
|---|---|
| `$SSMTHEORY_DATA/<data set>/<file>` | a mirror that the user keeps |
| `/usr/share/datasets/<data set>/<file>` | what Debian's packages install (`dataset-fashion-mnist`) |
| the cache: `$SSMTHEORY_CACHE`, else pooch's folder for this user | what an earlier call downloaded |
| the original source | into the cache, by pooch; never where `SSMTHEORY_OFFLINE` is set |

A download stands beside its place until it is whole, so that a call after an interruption goes on where the last one
stopped; it takes its place in one step, and only with the sha256 that was published for it. Processes that want the
same file wait for each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssmtheory.errors import InputError, require

__all__ = ["SYSTEM_FOLDERS", "RemoteFile", "cache_folder", "fetch", "file_sha256", "mirrored", "unchanged"]

#: Where systems keep data sets that are installed as packages.
SYSTEM_FOLDERS: tuple[Path, ...] = (Path("/usr/share/datasets"),)
ATTEMPTS = 4  # connections per call; each goes on where the one before broke off
TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces


@dataclass(frozen=True)
class RemoteFile:
    """One file of a data set at its original source.

    Attributes:
        dataset: name of the data set, and of its folder in a mirror and in the cache.
        name: file name there.
        url: where it is published.
        sha256: published digest of the file.
        size: published number of bytes.
        gzip_time: for a gzip file, the time in its header (seconds since 1970); 0: not known. Debian's packages
            replace the header and keep the compressed data: with the time, the published digest still tells whether
            those are the same.
    """

    dataset: str
    name: str
    url: str
    sha256: str
    size: int
    gzip_time: int = 0


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cache_folder() -> Path:
    """Return the folder that downloads go to (it may not exist yet).

    Raises:
        MissingDependencyError: pooch is not installed and `SSMTHEORY_CACHE` is not set.
    """
    named = os.environ.get("SSMTHEORY_CACHE", "")
    return Path(named) if named else Path(require("pooch", "data", "the cache of downloads").os_cache("ssmtheory"))


def mirrored(dataset: str, *names: str) -> Path | None:
    """Find a file or a folder of a data set in a mirror.

    Args:
        dataset: name of the data set.
        names: what to look for below its folder; the first that is there, in the first mirror that has one.

    Returns:
        Its path; None where no mirror has it.

    Raises:
        InputError: `SSMTHEORY_DATA` does not name a folder.
    """
    named = os.environ.get("SSMTHEORY_DATA", "")
    if named and not Path(named).is_dir():
        raise InputError(f"SSMTHEORY_DATA {named}: there is no such folder; name one that exists, or unset it")
    for root in (*([Path(named)] if named else []), *SYSTEM_FOLDERS):
        for name in names:
            path = root / dataset / name
            if path.exists():
                return path
    return None


def unchanged(path: Path, remote: RemoteFile) -> bool:
    """Tell whether a file is the published one, or differs from it in the gzip header alone.

    Args:
        path: a file that stands for `remote`.
        remote: what was published.
    """
    if file_sha256(path) == remote.sha256:
        return True
    if not remote.gzip_time:
        return False
    with path.open("rb") as stream:
        header = stream.read(10)
        if header[:4] != b"\x1f\x8b\x08\x00":  # gzip, deflate, no name, no comment, no extra field
            return False
        # what gzip itself writes: the name is in the header, and its flag is set
        written = b"\x1f\x8b\x08\x08" + struct.pack("<I", remote.gzip_time) + header[8:]
        digest = hashlib.sha256(written + remote.name.removesuffix(".gz").encode() + b"\0")
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest() == remote.sha256


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Within the block, no other process holds the same lock file; the kernel frees it when a process ends."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class _BrokenOffError(Exception):
    """A download ended before the file did."""


class _Resuming:
    """A downloader for pooch that keeps what arrived in `part` and asks the server for the rest.

    pooch's own starts again at the first byte. Content is taken as it is sent: some servers label a `.gz` file as an
    encoding of its content, and unpacking it on the way would change its digest.
    """

    def __init__(self, part: Path, size: int) -> None:
        self.part, self.size = part, size
        self.resumed = part.exists()

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        import requests
        import urllib3

        failure: Exception | None = None
        for _ in range(ATTEMPTS):
            have = self.part.stat().st_size if self.part.exists() else 0
            if have > self.size:
                self.part.unlink()
                have = 0
            if have == self.size:
                break
            try:
                self._append(url, have)
            except requests.HTTPError:
                raise
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                failure = error
        if not self.part.exists() or self.part.stat().st_size != self.size:
            have = self.part.stat().st_size if self.part.exists() else 0
            raise _BrokenOffError(f"{have} of {self.size} bytes arrived") from failure
        os.replace(self.part, output_file)

    def _append(self, url: str, have: int) -> None:
        import requests

        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code == 416:  # the server's file ends before ours does: it is another one
                self.part.unlink()
                return
            response.raise_for_status()
            goes_on = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(
                f"bytes {have}-"
            )
            with self.part.open("ab" if goes_on else "wb") as out:
                left = self.size + 1 - (have if goes_on else 0)  # one byte too many is enough to know
                for piece in response.raw.stream(1 << 16, decode_content=False):
                    out.write(piece[:left])
                    left -= len(piece)
                    if left <= 0:
                        break
                out.flush()
                os.fsync(out.fileno())


def fetch(remote: RemoteFile) -> Path:
    """Return a file from the cache, downloading it first where it is not there.

    Args:
        remote: what to fetch.

    Returns:
        The path of the file, which has the published sha256.

    Raises:
        MissingDependencyError: pooch is not installed.
        InputError: the source cannot be reached, answers with an error, or has another file than was published;
            `SSMTHEORY_OFFLINE` is set and the file is not in the cache.
    """
    pooch = require("pooch", "data", f"the download of {remote.dataset}")
    import requests

    folder = cache_folder() / remote.dataset
    place = folder / remote.name
    by_hand = (
        f"put {remote.name} (sha256 {remote.sha256}) into the folder {remote.dataset} of the one that SSMTHEORY_DATA "
        "names"
    )
    if os.environ.get("SSMTHEORY_OFFLINE", ""):
        if place.is_file() and file_sha256(place) == remote.sha256:
            return place
        raise InputError(
            f"{remote.dataset}: {remote.name} is not here and SSMTHEORY_OFFLINE is set: unset it, or {by_hand}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{remote.name}.part"
    with _alone(folder / f"{remote.name}.lock"):
        while True:
            downloader = _Resuming(part, remote.size)
            try:
                found = pooch.retrieve(
                    remote.url, f"sha256:{remote.sha256}", fname=remote.name, path=folder, downloader=downloader
                )
            except requests.HTTPError as error:
                raise InputError(f"{remote.dataset}: the source answers {error}: try later, or {by_hand}") from error
            except (_BrokenOffError, requests.RequestException) as error:
                raise InputError(
                    f"{remote.dataset}: {remote.url} cannot be reached or broke off: call again to go on, or {by_hand}"
                ) from error
            except ValueError as error:
                if downloader.resumed:  # the pieces may be of two different files
                    continue
                raise InputError(
                    f"{remote.dataset}: what {remote.url} sends does not have the published sha256: the file was "
                    f"replaced, or something on the way answered in its place; {by_hand}"
                ) from error
            return Path(found)
