"""The claims files: what is read, and what each rule refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ssmtheory.errors import ConfigError
from ssmtheory.repro import claims, mutation
from ssmtheory.repro.claims import Target
from ssmtheory.repro.ledger import _function

HEAD = 'title = "A paper"\nreference = "arXiv 0000.00000"\n'
CLAIM = {
    "id": '"a-claim"',
    "sentence": '"Two and two are four."',
    "where": '"Theorem 1"',
    "evidence": '"text"',
    "status": '"confirmed"',
    "check": '"s4:nplr_residual"',
    "at_most": "1e-12",
    "mutation": '{ target = "ssmtheory.inits.hippo:legs", by = 1.01 }',
}


def written(folder: Path, *rows: dict[str, str], head: str = HEAD) -> Path:
    path = folder / "claims.toml"
    tables = ["\n[[claim]]\n" + "".join(f"{key} = {value}\n" for key, value in row.items()) for row in rows]
    path.write_text(head + "".join(tables), encoding="utf-8")
    return path


def test_a_claim_is_read(tmp_path: Path) -> None:
    paper = claims.read(written(tmp_path, CLAIM), "p")
    (claim,) = paper.claims
    assert (paper.title, claim.name, claim.tier, claim.at_most) == ("A paper", "p/a-claim", "smoke", 1e-12)
    assert claim.mutation is not None
    assert (claim.mutation.how, claim.mutation.by) == ("scale", 1.01)


def without(*keys: str, **changes: str) -> dict[str, str]:
    return {key: value for key, value in {**CLAIM, **changes}.items() if key not in keys}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (without(sentense='"x"'), "unknown key 'sentense'.*Did you mean 'sentence'"),
        (without("sentence"), "sentence is missing"),
        (without(id='"A claim"'), "lower-case"),
        (without(status='"true"'), "status 'true' is not one of proved"),
        (without(tier='"huge"'), "tier 'huge' is not one of smoke"),
        (without(evidence='"hearsay"'), "evidence 'hearsay' is not one of code"),
        (without(evidence='"remembered"', published="{ value = 1.0, tolerance = 0.1 }"), "only where it was read"),
        (without(evidence='"derived"', published="{ value = 1.0, tolerance = 0.1 }"), "only where it was read"),
        (without(published="3.0"), "published must be a table"),
        (without(published="{ value = 3.0 }"), "tolerance or relative"),
        (without(published="{ value = nan, tolerance = 1 }"), "finite number"),
        (without(interval="[2.0, 1.0]"), "is empty"),
        (without(interval="[2.0]"), r"\[lower, upper\]"),
        (without(at_most='"small"'), "finite number, not 'small'"),
        (without("mutation"), "needs the mutation"),
        (without("check"), "needs a check, or a preset"),
        (without(check='"os.system:rm"'), "module:function"),
        (without(check='"s4:_hidden"'), "module:function"),
        (without(preset='"token_dynamics.smoke"', statistic='{ variable = "x" }'), "not both"),
        (without("check", preset='"token_dynamics.smoke"'), "statistic needs variable"),
        (without("check", preset='"a.b"', statistic='{ variable = "x", reduce = "eval" }'), "reduce 'eval'"),
        (without(statistic='{ variable = "x" }'), "preset is missing"),
        (without(why='"too long"'), "why belongs to a claim that is not run"),
        (without("check", status='"not-run"'), "says why"),
        (without(status='"not-run"', why='"x"'), "record what it came to"),
        (without(mutation='{ target = "os:system" }'), "not of the form ssmtheory"),
        (without(mutation='{ target = "ssmtheory.repro.checks.s4:nplr_residual" }'), "changes the check"),
        (without(mutation='{ target = "ssmtheory.inits.hippo:phi", how = "delete" }'), "how 'delete'"),
        (without(mutation='{ target = "ssmtheory.inits.hippo:phi", how = "argument" }'), "argument = \"name\""),
        (without(mutation='{ target = "ssmtheory.inits.hippo:phi", factor = 2 }'), "unknown key 'factor'"),
    ],
    ids=lambda value: None if isinstance(value, dict) else re.sub(r"\W+", "-", str(value))[:40],
)  # fmt: skip
def test_a_rule_refuses(row: dict[str, str], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        claims.read(written(tmp_path, row), "p")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("title = ", "is not TOML"),
        (HEAD, r"no \[\[claim\]\]"),
        ('title = "x"\n[[claim]]\nid = "a"\n', "reference must be a string"),
        (HEAD + 'titel = "x"\n[[claim]]\nid = "a"\n', "Did you mean 'title'"),
    ],
    ids=["not TOML", "no claim", "no reference", "unknown key"],
)
def test_a_file_refuses(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "claims.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        claims.read(path, "p")


def test_two_claims_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two claims are called 'a-claim'"):
        claims.read(written(tmp_path, CLAIM, CLAIM), "p")


def test_unknown_paper() -> None:
    with pytest.raises(ConfigError, match=r"no paper 's4e'.*Did you mean 's4"):
        claims.load(["s4e"])


def test_a_tolerance_is_absolute_or_relative() -> None:
    assert Target(2.0, tolerance=0.125).meets(2.125)
    assert not Target(2.0, tolerance=0.125).meets(2.126)
    assert Target(-200.0, relative=0.01).margin == 2.0


# ---------------------------------------------------------------------------------------------------- what ships


SHIPPED = [claim for paper in claims.load() for claim in paper.claims]


def test_the_ledger_has_its_papers_and_size() -> None:
    assert {"beyond", "httyh", "ptd", "s4", "s4d"} <= set(claims.papers())
    assert len(SHIPPED) >= 40
    sentences = [claim.sentence for claim in SHIPPED]
    assert len(set(sentences)) == len(sentences)


@pytest.mark.parametrize("claim", [c for c in SHIPPED if c.check], ids=lambda claim: claim.name)
def test_a_shipped_claim_names_things_that_exist(claim: claims.Claim) -> None:
    assert claim.check is not None
    assert callable(_function(claim.check))
    assert claim.mutation is not None
    mutation._owner(claim.mutation.target)


def test_every_check_belongs_to_a_claim() -> None:
    used = {claim.check for claim in SHIPPED}
    for paper in ("common", *claims.papers()):
        module = __import__(f"ssmtheory.repro.checks.{paper}", fromlist=["__all__"])
        assert {f"{paper}:{name}" for name in module.__all__} <= used


def test_every_paper_has_a_readme() -> None:
    root = Path(__file__).resolve().parents[2] / "paper_repro"
    for paper in claims.papers():
        assert (root / paper / "README.md").read_text(encoding="utf-8").startswith("# ")
