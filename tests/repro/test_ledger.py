"""Judging a finding, running claims, the report, and the three commands."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from ssmtheory import cli, errors, runner
from ssmtheory.errors import ConfigError, InputError
from ssmtheory.inits import hippo
from ssmtheory.repro import claims, ledger, mutation
from ssmtheory.repro.claims import Claim, Mutation, Paper, Target
from ssmtheory.repro.finding import Finding, finding

MUTATION = Mutation("ssmtheory.inits.hippo:legs", by=1.01)


def claim(**changes: Any) -> Claim:
    values: dict[str, Any] = {
        "paper": "p", "id": "c", "sentence": "A sentence.", "where": "Theorem 1", "evidence": "text",
        "status": "confirmed", "check": "s4:nplr_residual", "mutation": MUTATION,
    }  # fmt: skip
    return Claim(**{**values, **changes})


# ---------------------------------------------------------------------------------------------------- findings


def test_what_a_check_may_give() -> None:
    assert finding(True) == Finding(holds=True)
    assert finding(np.bool_(False)).holds is False
    assert finding(np.float64(2.5)).value == 2.5
    assert finding(np.array(3)).value == 3.0
    assert finding((1.0, 2.0)) == Finding(value=1.5, lower=1.0, upper=2.0)
    assert finding(Finding(value=1.0, detail="x")).detail == "x"


@pytest.mark.parametrize("result", ["0.5", None, np.zeros(2), 1j, [1.0]], ids=repr)
def test_what_a_check_may_not_give(result: object) -> None:
    with pytest.raises(InputError, match="a check gave a"):
        finding(result)


@pytest.mark.parametrize("result", [float("nan"), (0.0, float("inf"))], ids=repr)
def test_a_number_is_finite(result: object) -> None:
    with pytest.raises(InputError, match="not a finite number"):
        finding(result)


def test_a_finding_says_something() -> None:
    with pytest.raises(InputError, match="neither"):
        Finding()


# ---------------------------------------------------------------------------------------------------- judgement


@pytest.mark.parametrize(
    ("changes", "result", "found", "holds"),
    [
        ({}, True, "confirmed", True),
        ({}, False, "refuted", False),
        ({"status": "refuted"}, False, "refuted", True),
        ({"otherwise": "differs", "status": "differs"}, False, "differs", True),
        ({}, Finding(holds=True, basis="proof"), "proved", False),
        ({"status": "proved"}, Finding(holds=True, basis="proof"), "proved", True),
        ({"status": "proved"}, Finding(holds=True), "confirmed", False),
        ({"expected": Target(1.0, 0.1)}, 1.05, "confirmed", True),
        ({"expected": Target(1.0, 0.1)}, 1.2, "refuted", False),
        ({"published": Target(1.0, 0.1)}, 1.2, "differs", False),
        ({"published": Target(1.0, 0.1), "status": "differs"}, 1.2, "differs", True),
        ({"at_most": 1.0}, 1.0, "confirmed", True),
        ({"at_most": 1.0}, 1.1, "refuted", False),
        ({"at_least": 1.0}, 0.9, "refuted", False),
        ({"measured": Target(1.0, 0.1)}, 1.05, "confirmed", True),
        ({"measured": Target(1.0, 0.1)}, 1.2, "confirmed", False),
        ({"interval": (0.0, 1.0)}, 0.5, "confirmed", True),
        ({"interval": (0.0, 1.0)}, 1.5, "confirmed", False),
        ({"interval": (0.0, 1.0)}, (1.1, 1.2), "confirmed", False),
        # an enclosure is judged by its worse end, a floating-point interval by its number
        ({"at_most": 1.0}, Finding(value=0.95, lower=0.8, upper=1.1, basis="certificate"), "refuted", False),
        ({"at_most": 1.0}, Finding(value=0.95, lower=0.8, upper=1.1), "confirmed", True),
        ({"at_most": 1.0}, Finding(value=0.9, lower=0.9, basis="certificate"), "refuted", False),
        (
            {"at_least": 0.9, "status": "certified"},
            Finding(value=0.9, lower=0.9, basis="certificate"),
            "certified",
            True,
        ),
        (
            {"expected": Target(1.0, 0.1), "status": "certified"},
            Finding(value=1.0, lower=0.95, upper=1.05, basis="certificate"),
            "certified",
            True,
        ),
    ],
)
def test_judgement(changes: dict[str, Any], result: Any, found: str, holds: bool) -> None:
    status, problem = ledger.judge(claim(**changes), finding(result))
    assert status == found
    assert (problem == "") is holds


def test_a_number_is_needed_where_one_is_recorded() -> None:
    with pytest.raises(InputError, match="p/c records a number"):
        ledger.judge(claim(at_most=1.0), finding(True))


# ---------------------------------------------------------------------------------------------------- running


def test_checks_come_from_one_namespace() -> None:
    with pytest.raises(ConfigError, match="no module 'os' of checks"):
        ledger._function("os:getcwd")
    with pytest.raises(ConfigError, match=r"no check 's4:nplr_residul'.*Did you mean 'nplr_residual'"):
        ledger._function("s4:nplr_residul")


def test_a_failing_check_is_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(N: int) -> None:
        raise ZeroDivisionError("no luck")

    monkeypatch.setattr(hippo, "legs", broken)
    outcome = ledger.run(claim(arguments={"N": 4}))
    assert outcome.found == "error"
    assert "ZeroDivisionError: no luck" in outcome.problem


def test_a_missing_package_leaves_the_status_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(N: int) -> None:
        errors.require("no_such_package", "rigor", "this claim")

    monkeypatch.setattr(hippo, "legs", missing)
    outcome = ledger.run(claim(arguments={"N": 4}))
    assert (outcome.found, outcome.problem) == ("unknown", "")
    assert "pip install 'ssmtheory[rigor]'" in outcome.note


def test_a_certificate_that_is_refused_is_a_verdict() -> None:
    arguments = {"name": "top_eigenvalue_law", "upper": "0.6"}
    outcome = ledger.run(claim(check="common:certificate", arguments=arguments, status="certified"))
    assert outcome.found == "unproved"
    assert outcome.problem.startswith("no longer certified: not proved")


def test_derivations_and_certificates_give_their_basis() -> None:
    proof = ledger.run(claim(check="common:derivation", arguments={"name": "derive_contractivity"}, status="proved"))
    assert (proof.found, proof.problem) == ("proved", "")
    assert proof.finding is not None
    assert "Cauchy-Schwarz" in proof.finding.detail
    certified = ledger.run(claim(check="common:certificate", arguments={"name": "top_eigenvalue", "N": 8}))
    assert certified.found == "certified"
    assert certified.finding is not None
    assert certified.finding.lower == pytest.approx(19.8574103709705768, rel=1e-14)


@pytest.mark.parametrize(
    ("check", "name"),
    [("common:derivation", "check_all"), ("common:derivation", "derive_nothing"), ("common:certificate", "issue")],
)
def test_only_named_derivations_and_certificates(check: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f"no (derivation|certificate) '{name}'"):
        ledger.run(claim(check=check, arguments={"name": name}))


def test_a_limit_is_held_against_every_mode() -> None:
    arguments = {"init": "s4d-real", "output": 0, "fails": []}
    assert ledger.run(claim(check="common:kernel_limit", arguments=arguments, status="proved")).problem == ""
    arguments["fails"] = ["L2"]
    assert ledger.run(claim(check="common:kernel_limit", arguments=arguments, status="proved")).found == "refuted"


def test_what_is_not_run_says_why() -> None:
    outcome = ledger.run(claim(status="not-run", why="needs a GPU", check=None, mutation=None))
    assert (outcome.found, outcome.note, outcome.holds) == ("not-run", "needs a GPU", True)


def test_dearer_tiers_are_left_out() -> None:
    paper = Paper("p", "A paper", "arXiv", (claim(tier="laptop"), claim(id="d", arguments={"N": 4}, at_most=1e-12)))
    first, second = ledger.check([paper], tier="smoke")
    assert (first.found, first.note) == ("unknown", "tier laptop, not run here")
    assert second.found == "confirmed"
    with pytest.raises(ConfigError, match=r"no tier 'smok'.*Did you mean 'smoke'"):
        list(ledger.check([paper], tier="smok"))


# ---------------------------------------------------------------------------------------------------- statistics


def tree() -> xr.DataTree:
    values = np.arange(6.0).reshape(2, 3)
    data = xr.Dataset({"norm": (("init", "omega"), values)}, coords={"init": ["legs", "s4d"], "omega": [1, 10, 100]})
    return xr.DataTree.from_dict({"/gap": data})


@pytest.mark.parametrize(
    ("selection", "value"),
    [
        ({"variable": "gap/norm", "select": {"init": "s4d", "omega": 10}}, 4.0),
        ({"variable": "gap/norm", "select": {"init": "s4d"}, "reduce": "max"}, 5.0),
        ({"variable": "gap/norm", "select": {"omega": [1, 100]}, "reduce": "sum"}, 10.0),
        ({"variable": "gap/norm", "reduce": "mean"}, 2.5),
    ],
)
def test_statistic(selection: dict[str, Any], value: float) -> None:
    assert ledger.statistic(tree(), selection) == value


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ({"variable": "gap/none"}, "no variable 'gap/none'"),
        ({"variable": "gap"}, "is a group"),
        ({"variable": "gap/norm"}, "leaves 6 numbers"),
        ({"variable": "gap/norm", "select": {"layer": 1}}, "no dimension 'layer'"),
        ({"variable": "gap/norm", "select": {"init": "s5"}}, "nothing at init = 's5'"),
    ],
)
def test_statistic_refuses(selection: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ledger.statistic(tree(), selection)


def test_a_claim_that_rests_on_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Done:
        @staticmethod
        def data() -> xr.DataTree:
            return tree()

    monkeypatch.setattr(runner, "run", lambda module, config, **rest: asked.append((module, config, rest)) or Done())
    selection = {"variable": "gap/norm", "reduce": "max"}
    preset = claim(check=None, preset="token_dynamics.smoke", statistic=selection, expected=Target(5.0, 1e-9))
    outcome = ledger.run(preset, out=tmp_path)
    assert outcome.found == "confirmed"
    second = {"variable": "gap/norm", "reduce": "mean"}
    assert ledger.run(dataclasses.replace(preset, statistic=second), out=tmp_path).finding == Finding(value=2.5)
    ((module, config, rest),) = asked  # one run for both
    assert module.__name__ == "ssmtheory.experiments.token_dynamics"
    assert (config.tokens, rest["out"], rest["fresh"]) == (96, tmp_path, True)


# ---------------------------------------------------------------------------------------------------- mutations


def test_a_mutation_reaches_names_that_were_imported_and_ends() -> None:
    A, B = hippo.legs(3)
    with mutation.applied(Mutation("ssmtheory.inits.hippo:legs", by=2, part=1)):
        assert np.array_equal(hippo.legs(3)[0], A)
        assert np.array_equal(hippo.legs(3)[1], 2 * B)
    assert np.array_equal(hippo.legs(3)[1], B)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Mutation("ssmtheory.inits.hippo:legs_integer", by=2, part=1), [2, 2]),
        (Mutation("ssmtheory.inits.hippo:legs_integer", how="shift", by=3, part=1), [4, 4]),
        (Mutation("ssmtheory.inits.hippo:legs_integer", how="argument", argument="N", by=2), [1, 1, 1, 1]),
        (Mutation("ssmtheory.inits.hippo:legs_integer", how="replace", by=(None, [7])), [7]),
    ],
    ids=["scale", "shift", "argument", "replace"],
)
def test_kinds_of_mutation(change: Mutation, expected: list[int]) -> None:
    with mutation.applied(change):
        assert hippo.legs_integer(2)[1] == expected
    assert hippo.legs_integer(2)[1] == [1, 1]


def test_a_constant_and_a_field_can_be_changed() -> None:
    @dataclasses.dataclass(frozen=True)
    class Pair:
        first: float
        second: float

    assert mutation._result(Pair(1.0, 2.0), Mutation("x", by=3, part="second")) == Pair(1.0, 6.0)
    with mutation.applied(Mutation("ssmtheory.repro.claims:TIERS", how="replace", by=("one",))):
        assert claims.TIERS == ("one",)
    assert claims.TIERS[0] == "smoke"


def test_a_mutation_of_nothing() -> None:
    with (
        pytest.raises(ConfigError, match="which is not there"),
        mutation.applied(Mutation("ssmtheory.inits.hippo:nothing")),
    ):
        pass


# ---------------------------------------------------------------------------------------------------- report, commands


def test_the_report_says_what_changed_and_no_time() -> None:
    good = claim(arguments={"N": 4}, at_most=1e-12)
    bad = claim(id="d", arguments={"N": 4}, at_least=1.0)
    later = claim(id="e", status="not-run", why="needs a GPU | and time", check=None, mutation=None)
    paper = Paper("p", "A paper", "arXiv 1", (good, bad, later))
    first, second = (ledger.report([paper], list(ledger.check([paper])), "smoke") for _ in range(2))
    assert first == second
    assert "**1 records no longer hold.**" in first
    assert "p/d: recorded confirmed, found refuted" in first
    assert "confirmed, now refuted" in first
    assert "<= 1e-12" in first
    assert r"needs a GPU \| and time" in first


def test_digits_shown_are_those_the_tolerance_stands_for() -> None:
    result = Finding(value=0.636620312345)
    assert ledger.number(ledger.Outcome(claim(measured=Target(0.63662, 1e-5)), "confirmed", result)) == "0.63662"
    assert ledger.number(ledger.Outcome(claim(), "confirmed", Finding(holds=True))) == "yes"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[Claim]:
    """A ledger of two claims in place of the shipped one; the second can be made to fail."""
    rows = [claim(arguments={"N": 4}, at_most=1e-12), claim(id="d", arguments={"N": 5}, at_most=1e-12)]
    monkeypatch.setattr(claims, "load", lambda names=(): [Paper("p", "A paper", "arXiv 1", tuple(rows))])
    return rows


def test_commands(small: list[Claim], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["repro", "list"]) == 0
    assert "p/c" in capsys.readouterr().out
    assert cli.main(["repro", "run", "p", "--claim", "d"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("p/d\n")
    assert "p/c" not in text
    target = tmp_path / "R.md"
    assert cli.main(["repro", "check", "--tier", "smoke", "--report", str(target)]) == 0
    assert "2 claims" in capsys.readouterr().out
    assert "Every record that was checked holds." in target.read_text()


def test_a_record_that_no_longer_holds_ends_with_code_1(
    small: list[Claim], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small[1] = dataclasses.replace(small[1], status="refuted")
    assert cli.main(["repro", "check", "--report", str(tmp_path / "R.md")]) == 1
    assert "WRONG: recorded refuted, found confirmed" in capsys.readouterr().out
    assert cli.main(["repro", "run", "p"]) == 1


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["repro", "list", "s4e"], "no paper 's4e'"),
        (["repro", "run", "s4", "--claim", "nonsense"], "no claim 'nonsense'"),
        (["repro", "check", "s4", "--tier", "enormous"], "no tier 'enormous'"),
        (["repro", "chekc"], "Did you mean"),
    ],
    ids=["paper", "claim", "tier", "command"],
)
def test_wrong_commands(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 2
    assert words in capsys.readouterr().err
