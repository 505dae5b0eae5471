"""Text to token ids and back: bytes, or a checkpoint's tokenizer.json."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from ssmtheory.errors import CheckpointError, InputError, require
from ssmtheory.typing import PathType

__all__ = ["ByteTokenizer", "FileTokenizer", "Tokenizer", "find_tokenizer"]


class Tokenizer(Protocol):
    """What a model's tokenizer can do."""

    name: str

    def encode(self, text: str) -> np.ndarray:
        """Token ids of a text, int64 (length,)."""
        ...

    def decode(self, ids: np.ndarray) -> str:
        """The text of token ids."""
        ...


class ByteTokenizer:
    """One token per byte of UTF-8: 256 ids, nothing learned.

    >>> ids = ByteTokenizer().encode("né")
    >>> ids.tolist(), ByteTokenizer().decode(ids)
    ([110, 195, 169], 'né')
    """

    name = "bytes"

    def encode(self, text: str) -> np.ndarray:
        """Bytes of the text, int64 (length,)."""
        return np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int64)

    def decode(self, ids: np.ndarray) -> str:
        """The text of the bytes; what is not UTF-8 (a cut character) becomes U+FFFD."""
        ids = np.asarray(ids)
        if ids.size and not (ids.min() >= 0 and ids.max() < 256):
            raise InputError(f"byte tokens lie in 0..255, not {ids.min()}..{ids.max()}")
        return ids.astype(np.uint8).tobytes().decode("utf-8", errors="replace")


class FileTokenizer:
    """The tokenizer of a Hugging Face tokenizer.json, through the `tokenizers` package (extra `hf`).

    Args:
        path: the tokenizer.json.

    Raises:
        MissingDependencyError: `tokenizers` is not installed.
        CheckpointError: the file is not a tokenizer.
    """

    def __init__(self, path: PathType) -> None:
        tokenizers = require("tokenizers", "hf", "reading tokenizer.json")
        self.name = Path(path).name
        try:
            text = Path(path).read_text(encoding="utf-8")
            self._tokenizer = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception for every kind of damage
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CheckpointError(f"{path} is not a readable tokenizer: {said}") from error

    def encode(self, text: str) -> np.ndarray:
        """Token ids of the text without special tokens, int64 (length,)."""
        return np.asarray(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int64)

    def decode(self, ids: np.ndarray) -> str:
        """The text of token ids."""
        return str(self._tokenizer.decode([int(i) for i in np.asarray(ids)], skip_special_tokens=False))


def find_tokenizer(folder: PathType, vocab_size: int) -> Tokenizer | None:
    """The tokenizer of a checkpoint folder: its tokenizer.json; else bytes where the vocabulary has 256 ids; else None.

    Raises:
        MissingDependencyError, CheckpointError: as of `FileTokenizer`.
    """
    path = Path(folder) / "tokenizer.json"
    if path.exists():
        return FileTokenizer(path)
    return ByteTokenizer() if vocab_size == 256 else None
