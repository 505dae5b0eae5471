"""Public-domain English that ships with the package, and its fixed training and held-out parts.

| corpus | text | held-out part |
|---|---|---|
| tinyshakespeare | 40,000 lines of Shakespeare's plays (A. Karpathy's selection) | the last tenth of the bytes |
| kjv | the King James Bible: per chapter a heading line, then one verse a line | every tenth chapter |

The first split is the customary one for that text, so that losses compare with published ones. In the second, books
that retell each other (Kings and Chronicles, the synoptic gospels) stand on both sides.
"""

from __future__ import annotations

import functools
import hashlib
import lzma
from dataclasses import dataclass

from ssmtheory.errors import InputError, nearest
from ssmtheory.resources import resource

_SHA256 = {
    "tinyshakespeare": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    "kjv": "07c470deb9cc4b58701c05d9981d4803228519f2635cee3740cf0c076a8d9b05",
}
CORPORA = tuple(_SHA256)


@dataclass(frozen=True)
class Split:
    """The two disjoint parts of a corpus, as bytes."""

    name: str
    train: bytes
    heldout: bytes


def corpus(name: str) -> bytes:
    """Return a whole corpus.

    Args:
        name: "tinyshakespeare" or "kjv".

    Returns:
        The text, ASCII bytes.

    Raises:
        InputError: unknown name, or the shipped file is damaged.

    >>> corpus("kjv")[10:66]
    b'\\nIn the beginning God created the heaven and the earth.\\n'
    """
    if name not in _SHA256:
        raise InputError(f"no corpus {name!r}: there are {', '.join(CORPORA)}.{nearest(name, CORPORA)}")
    path = resource("corpus", f"{name}.txt.xz")
    try:
        text = lzma.decompress(path.read_bytes())
    except (lzma.LZMAError, EOFError) as error:
        raise InputError(f"corpus {name!r}: {path.name} is damaged ({error}): reinstall ssmtheory") from error
    if hashlib.sha256(text).hexdigest() != _SHA256[name]:
        raise InputError(f"corpus {name!r}: {path.name} does not have its recorded sha256: reinstall ssmtheory")
    return text


def sha256(name: str) -> str:
    """Return the sha256 of a corpus as unpacked."""
    corpus(name)
    return _SHA256[name]


@functools.cache
def split(name: str) -> Split:
    """Return the training and held-out parts of a corpus.

    >>> parts = split("tinyshakespeare")
    >>> len(parts.train), len(parts.heldout)
    (1003854, 111540)
    """
    text = corpus(name)
    if name == "tinyshakespeare":
        cut = int(0.9 * len(text))
        return Split(name, text[:cut], text[cut:])
    chapters = text.split(b"\n\n")
    train = [chapter for i, chapter in enumerate(chapters) if i % 10 != 9]
    return Split(name, b"\n\n".join(train), b"\n\n".join(chapters[9::10]))
