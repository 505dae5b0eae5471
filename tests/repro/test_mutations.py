"""Every claim of the ledger holds, and its mutation of the code turns it red."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ssmtheory.repro import claims, ledger, mutation
from ssmtheory.repro.claims import Claim

CLAIMS = [claim for paper in claims.load() for claim in paper.claims if claim.status != "not-run"]
#: Claims of the tier "laptop" train networks, for minutes to an hour each.
LAPTOP = [pytest.mark.laptop, pytest.mark.timeout(4 * 3600)]


def parameters(slow: Callable[[Claim], bool]) -> list[object]:
    return [
        pytest.param(claim, id=claim.name, marks=LAPTOP if claim.tier == "laptop" else [pytest.mark.slow] * slow(claim))
        for claim in CLAIMS
        if claim.mutation is not None
    ]


@pytest.mark.parametrize("claim", parameters(lambda claim: True))
def test_the_record_holds(claim: Claim, tmp_path: Path) -> None:
    outcome = ledger.run(claim, out=tmp_path)
    assert outcome.found != "unknown", outcome.note
    assert outcome.problem == ""


@pytest.mark.parametrize("claim", parameters(lambda claim: claim.tier != "smoke" or claim.mutation.slow))
def test_the_mutation_turns_it_red(claim: Claim, tmp_path: Path) -> None:
    """By a number or a verdict: a check that merely breaks down has noticed nothing."""
    assert claim.mutation is not None
    with mutation.applied(claim.mutation):
        outcome = ledger.run(claim, out=tmp_path)
    assert outcome.found not in ("unknown", "error"), outcome.problem or outcome.note
    assert outcome.problem


@pytest.mark.slow
def test_the_committed_report_is_current(tmp_path: Path) -> None:
    """What `ssmtheory repro check` writes, byte for byte."""
    papers = claims.load()
    text = ledger.report(papers, list(ledger.check(papers, out=tmp_path)), "smoke")
    path = ledger.report_path()
    assert path is not None
    assert path.read_text(encoding="utf-8") == text
