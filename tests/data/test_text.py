from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ssmtheory.data import text
from ssmtheory.errors import InputError


def test_splits_cover_the_corpus_once():
    shakespeare = text.split("tinyshakespeare")
    assert shakespeare.train + shakespeare.heldout == text.corpus("tinyshakespeare")
    kjv = text.split("kjv")
    chapters = set(text.corpus("kjv").split(b"\n\n"))
    train, heldout = set(kjv.train.split(b"\n\n")), set(kjv.heldout.split(b"\n\n"))
    assert not train & heldout
    assert train | heldout == chapters
    assert len(chapters) == 1189  # the number of chapters of the Protestant canon
    assert len(heldout) == 118


def test_the_king_james_text_has_every_verse():
    lines = [line for line in text.corpus("kjv").splitlines() if line]
    assert len(lines) == 31102 + 1189  # verses of the King James Bible, and one heading per chapter


def test_shakespeare_is_the_public_file(shared_data: Path):
    public = (shared_data / "text" / "tinyshakespeare.txt").read_bytes()
    assert text.corpus("tinyshakespeare") == public


def test_sha256_is_of_the_unpacked_text():
    for name in text.CORPORA:
        assert hashlib.sha256(text.corpus(name)).hexdigest() == text.sha256(name)


def test_unknown_corpus_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"no corpus 'tinyshakespear'.*Did you mean 'tinyshakespeare'"):
        text.corpus("tinyshakespear")


def test_damaged_corpus_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    damaged = tmp_path / "kjv.txt.xz"
    damaged.write_bytes(b"not xz")
    monkeypatch.setattr(text, "resource", lambda kind, name: damaged)
    with pytest.raises(InputError, match="is damaged"):
        text.corpus("kjv")
