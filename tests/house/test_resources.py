"""Shipped files and citations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ssmtheory import cite, resources
from ssmtheory.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def test_a_checkout_serves_its_own_top_folders() -> None:
    assert resources.folder("preset") == ROOT / "experiments"
    assert resources.folder("figure") == ROOT / "figures"


def test_names_are_what_resource_finds() -> None:
    for kind in resources.KINDS:
        for name in resources.names(kind):
            assert resources.resource(kind, name).exists()


def test_unknown_name_and_kind_name_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no references 'referenses.bib'.*Did you mean 'references.bib'\?"):
        resources.resource("references", "referenses.bib")
    with pytest.raises(InputError, match=r"no resource kind 'presett'.*Did you mean 'preset'\?"):
        resources.folder("presett")


@pytest.mark.parametrize("name", ["../pyproject.toml", "/etc/hostname", "../ssmtheory/cli.py"])
def test_a_name_cannot_leave_its_folder(name: str) -> None:
    with pytest.raises(InputError):
        resources.resource("preset", name)


def test_every_entry_of_the_bibliography_is_read() -> None:
    text = resources.resource("references", "references.bib").read_text(encoding="utf-8")
    known = cite.keys()
    assert known == re.findall(r"^@\w+\{([^,]+),", text, flags=re.MULTILINE)
    assert len(set(known)) == len(known)
    for key in known:
        entry = cite.cite(key)
        assert {"author", "title", "year"} <= set(entry.fields)
        assert re.fullmatch(r"\d{4}", entry.fields["year"])
        assert "{" not in entry.short
        if "eprint" in entry.fields:
            assert re.fullmatch(r"\d{4}\.\d{4,5}", entry.fields["eprint"])


def test_citation_in_words() -> None:
    assert cite.cite("mamba").short == "Gu and Dao (2024)"
    assert cite.cite("token_dynamics").short == "Vo et al. (2025)"
    assert cite.cite("mamba2").fields["title"].startswith("Transformers are SSMs")


def test_every_cited_key_exists() -> None:
    """`cite("key")` in the source names an entry."""
    used = {
        key
        for path in (ROOT / "ssmtheory").rglob("*.py")
        for key in re.findall(r"""\bcite\(["'](\w+)["']\)""", path.read_text(encoding="utf-8"))
    }
    assert used <= set(cite.keys())


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no reference 'manba'.*Did you mean 'mamba'\?"):
        cite.cite("manba")


def test_a_checkout_has_no_build_commit() -> None:
    assert resources.build_commit() is None
