"""Run claims, hold what is found against what is recorded, and write the report.

A claim *holds* where what is found has the recorded status, and the number is the recorded one within its tolerance.
`check` does that for every claim of a tier; `report` writes the outcome as `paper_repro/REPORT.md`, without times and
with no more digits than were recorded, so that equal findings give equal bytes.
"""

from __future__ import annotations

import functools
import importlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssmtheory import resources
from ssmtheory.certify.balls import CertificationError
from ssmtheory.errors import ConfigError, InputError, MissingDependencyError, SsmTheoryError, nearest
from ssmtheory.repro.claims import EVIDENCE, STATUSES, TIERS, Claim, Paper, Target
from ssmtheory.repro.finding import Finding, finding

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "Outcome",
    "check",
    "describe",
    "judge",
    "number",
    "report",
    "report_path",
    "run",
    "select",
    "statistic",
    "summary",
]

_ORDER = (*STATUSES, "unknown", "unproved", "error")
_STRENGTH = {"proof": "proved", "certificate": "certified", "computation": "confirmed"}


@dataclass(frozen=True)
class Outcome:
    """One claim, run (or not).

    claim: as recorded.
    found: the status found: one of `STATUSES`, "unknown" where an optional package is missing or the claim belongs to
        a dearer tier, "unproved" where a certificate was refused, "error" where the check failed.
    finding: what the check gave; None where it did not run.
    problem: why the record no longer holds; "" where it does.
    note: why the claim was not run here.
    seconds: wall time [s].
    """

    claim: Claim
    found: str
    finding: Finding | None = None
    problem: str = ""
    note: str = ""
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against the record."""
        return not self.problem


# ---------------------------------------------------------------------------------------------------- one claim


def _function(check: str) -> Callable[..., Any]:
    """The function of a check, looked up in `ssmtheory.repro.checks` and nowhere else."""
    module, _, name = check.partition(":")
    try:
        found = importlib.import_module(f"ssmtheory.repro.checks.{module}")
    except ModuleNotFoundError as error:
        if error.name == f"ssmtheory.repro.checks.{module}":
            raise ConfigError(f"no module {module!r} of checks (check = {check!r})") from None
        raise
    public: Sequence[str] = found.__all__
    if name not in public:
        raise ConfigError(f"no check {check!r}; {module} has {', '.join(public)}.{nearest(name, public)}")
    return getattr(found, name)


def statistic(tree: xr.DataTree, selection: Mapping[str, Any]) -> float:
    """One number of a dataset.

    Args:
        tree: the dataset.
        selection: `variable` ("group/name"), `select` (dimension -> label of its coordinate, a list for several, or an
            index where it has no coordinate), `reduce` ("max", "min", "mean", "median" or "sum" over what is left).

    Raises:
        ConfigError: no such variable, dimension or label, or more than one number is left and nothing reduces them.
    """
    path = selection["variable"]
    import xarray as xr

    try:
        array = tree[path]
    except KeyError:
        raise ConfigError(f"the dataset has no variable {path!r}") from None
    if not isinstance(array, xr.DataArray):
        raise ConfigError(f"{path!r} is a group of the dataset, not a variable")
    for dimension, label in selection.get("select", {}).items():
        if dimension not in array.dims:
            raise ConfigError(f"{path} has no dimension {dimension!r}; it has {', '.join(map(str, array.dims))}")
        try:
            array = array.sel({dimension: label}) if dimension in array.coords else array.isel({dimension: label})
        except (KeyError, IndexError):
            raise ConfigError(f"{path} has nothing at {dimension} = {label!r}") from None
    how = selection.get("reduce")
    if how is not None:
        array = getattr(array, how)()
    if array.size != 1:
        raise ConfigError(f"{path} leaves {array.size} numbers, of dimensions {', '.join(map(str, array.dims))}; "
                          "select or reduce them")  # fmt: skip
    return float(array.values.reshape(()))


@functools.cache
def _dataset(preset: str, out: Path, fresh: bool) -> xr.DataTree:
    """The dataset of a preset's run; claims that rest on the same preset share it."""
    from ssmtheory import runner

    experiment, _, name = preset.partition(".")
    module = runner.load(experiment)
    values = runner.read_file(runner.preset_path(experiment, name), module.Config) if name else {}
    return runner.run(module, module.Config(**values), out=out, fresh=fresh, argv=["ssmtheory", "repro"]).data()


def _measure(claim: Claim, out: Path) -> Finding:
    if claim.check is not None:
        return finding(_function(claim.check)(**claim.arguments))
    assert claim.preset is not None
    # a run kept from earlier source would say what that source found; a day on a GPU is not thrown away, though
    return finding(statistic(_dataset(claim.preset, out, claim.tier != "gpu"), claim.statistic))


def _within(result: Finding, target: Target) -> bool:
    """Whether the number is the target's; an enclosure must lie within the tolerance as a whole."""
    ends = [result.lower, result.upper] if result.basis == "certificate" else [result.value]
    return all(end is not None and target.meets(end) for end in ends)


def judge(claim: Claim, result: Finding) -> tuple[str, str]:
    """The status that a finding gives a claim, and why the record no longer holds ("" where it does).

    A condition on an enclosure is decided by its worse end. A published number that is missed gives "differs"; every
    other condition that fails "refuted", unless the claim says `otherwise`.

    Args:
        claim: as recorded.
        result: of its check.
    """
    needs_number = [claim.published, claim.expected, claim.measured, claim.at_most, claim.at_least, claim.interval]
    if result.value is None and any(part is not None for part in needs_number):
        raise InputError(f"{claim.name} records a number, but its check gives only a yes or no")
    top, bottom = result.value, result.value
    if result.basis == "certificate":
        top = math.inf if result.upper is None else result.upper
        bottom = -math.inf if result.lower is None else result.lower
    failed = ""
    if result.holds is False:
        failed = "refuted"
    if claim.expected is not None and not _within(result, claim.expected):
        failed = "refuted"
    if claim.at_most is not None and top is not None and top > claim.at_most:
        failed = "refuted"
    if claim.at_least is not None and bottom is not None and bottom < claim.at_least:
        failed = "refuted"
    if claim.published is not None and not _within(result, claim.published):
        failed = "differs"
    found = (claim.otherwise or failed) if failed else _STRENGTH[result.basis]
    problems = []
    if found != claim.status:
        problems.append(f"recorded {claim.status}, found {found}")
    if claim.measured is not None and result.value is not None and not claim.measured.meets(result.value):
        problems.append(
            f"recorded {claim.measured.value:.10g} +- {claim.measured.margin:.2g}, found {result.value:.10g}"
        )
    if claim.interval is not None and result.value is not None:
        low, high = claim.interval
        least = result.value if result.lower is None else result.lower
        most = result.value if result.upper is None else result.upper
        if most < low or least > high or not low <= result.value <= high:
            problems.append(f"recorded [{low:.10g}, {high:.10g}], found {result.value:.10g}")
    return found, "; ".join(problems)


def run(claim: Claim, *, out: Path = Path("runs")) -> Outcome:
    """Run one claim, whatever its tier.

    Args:
        claim: from `claims.load`.
        out: folder of the runs, for claims that rest on a preset.

    Returns:
        Its outcome. A missing optional package leaves the status unknown; any other error speaks against the record.
    """
    if claim.status == "not-run":
        return Outcome(claim, "not-run", note=claim.why)
    begin = time.perf_counter()
    try:
        result = _measure(claim, out)
        found, problem = judge(claim, result)
    except MissingDependencyError as error:
        return Outcome(claim, "unknown", note=str(error), seconds=time.perf_counter() - begin)
    except ConfigError:
        raise
    except CertificationError as error:
        return Outcome(claim, "unproved", problem=f"no longer certified: {error}", seconds=time.perf_counter() - begin)
    except Exception as error:  # a claim that cannot be computed is an outcome; the others still run
        words = " ".join(str(error).split())
        text = words if isinstance(error, SsmTheoryError) else f"{type(error).__name__}: {words}"
        return Outcome(claim, "error", problem=f"the check failed: {text}", seconds=time.perf_counter() - begin)
    return Outcome(claim, found, result, problem, seconds=time.perf_counter() - begin)


# ---------------------------------------------------------------------------------------------------- many claims


def select(papers: Iterable[Paper], claim: str | None = None) -> list[Claim]:
    """The claims of some papers, or the one of that id.

    Raises:
        ConfigError: no claim of that id.
    """
    found = [each for paper in papers for each in paper.claims]
    if claim is None:
        return found
    known = [each.id for each in found]
    if claim not in known:
        raise ConfigError(f"no claim {claim!r} here; there are {', '.join(known)}.{nearest(claim, known)}")
    return [each for each in found if each.id == claim]


def check(papers: Iterable[Paper], *, tier: str = "smoke", out: Path = Path("runs")) -> Iterator[Outcome]:
    """Run every claim whose budget is `tier` or less, one after the other.

    Args:
        papers: from `claims.load`.
        tier: one of `TIERS`.
        out: folder of the runs, for claims that rest on a preset.

    Yields:
        One outcome per claim, those of dearer tiers too (unknown, with a note).

    Raises:
        ConfigError: no such tier.
    """
    if tier not in TIERS:
        raise ConfigError(f"no tier {tier!r}; there are {', '.join(TIERS)}.{nearest(tier, TIERS)}")
    for claim in select(papers):
        if claim.status != "not-run" and TIERS.index(claim.tier) > TIERS.index(tier):
            yield Outcome(claim, "unknown", note=f"tier {claim.tier}, not run here")
        else:
            yield run(claim, out=out)


# ---------------------------------------------------------------------------------------------------- the report


def report_path() -> Path | None:
    """`paper_repro/REPORT.md` of this checkout; None in an installed copy, which has no place of its own for it."""
    folder = resources.folder("claims")
    return None if "_shipped" in folder.parts or not folder.is_dir() else folder / "REPORT.md"


def _digits(value: float, target: Target | None) -> str:
    """A number with the digits its recorded tolerance stands for, four where nothing is recorded."""
    if target is None or value == 0 or target.margin <= 0:
        return f"{value:.4g}"
    # the last digit shown is of the size of the tolerance: rounding differs by far less between machines
    digits = math.floor(math.log10(abs(value))) - math.ceil(math.log10(target.margin)) + 1
    return f"{value:.{max(1, min(12, digits))}g}"


def number(outcome: Outcome) -> str:
    """What was found, in a few characters: a number, a bracket, a bound that held, or yes and no."""
    claim, result = outcome.claim, outcome.finding
    if result is None:
        return ""
    if result.value is None:
        return "yes" if result.holds else "no"
    if claim.measured is None and claim.expected is None and claim.published is None and claim.interval is None:
        # a residual's own digits are rounding; only that it stays below its bound is worth keeping
        if claim.at_most is not None and result.value <= claim.at_most:
            return f"<= {claim.at_most:g}"
        if claim.at_least is not None and result.value >= claim.at_least:
            return f">= {claim.at_least:g}"
    text = _digits(result.value, claim.measured or claim.expected)
    if claim.interval is not None and outcome.holds:
        text += f" in [{claim.interval[0]:.12g}, {claim.interval[1]:.12g}]"
    return text


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _counts(values: Sequence[str], order: Sequence[str]) -> str:
    counted = Counter(values)
    return ", ".join(f"{counted[each]} {each}" for each in order if counted[each])


def describe(outcome: Outcome) -> str:
    """One claim in full: the sentence, where it stands, what was found, and what would turn it red."""
    claim, result = outcome.claim, outcome.finding
    rows = [
        ("claim", claim.sentence),
        ("where", f"{claim.where} ({EVIDENCE[claim.evidence]})"),
        ("recorded", claim.status),
        ("found", outcome.found),
        ("number", number(outcome)),
        ("bracket", "" if result is None or result.lower is None or result.upper is None
         else f"[{result.lower:.12g}, {result.upper:.12g}]"),
        ("published", "" if claim.published is None else f"{claim.published.value:g} +- {claim.published.margin:g}"),
        ("seen", "" if result is None else result.detail),
        ("note", claim.note),
        ("why not", outcome.note),
        ("WRONG", outcome.problem),
        ("runs", claim.check or (f"preset {claim.preset}" if claim.preset else "")),
        ("turned red by", "" if claim.mutation is None else f"{claim.mutation.how} {claim.mutation.target}"),
        ("seconds", f"{outcome.seconds:.2f}" if result is not None else ""),
    ]  # fmt: skip
    return "\n".join([claim.name, *(f"  {key:<14}{text}" for key, text in rows if text)])


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many claims came to what, and how many records no longer hold, in one line."""
    wrong = sum(not outcome.holds for outcome in outcomes)
    seconds = sum(outcome.seconds for outcome in outcomes)
    found = _counts([outcome.found for outcome in outcomes], _ORDER)
    end = f"{wrong} records no longer hold" if wrong else "every record that was checked holds"
    return f"{len(outcomes)} claims in {seconds:.0f} s: {found}; {end}"


def report(papers: Sequence[Paper], outcomes: Sequence[Outcome], tier: str) -> str:
    """REPORT.md: every claim with its evidence, status and number; equal findings give equal text.

    Args:
        papers: in the order of the report.
        outcomes: of `check`.
        tier: that was run.
    """
    found = {outcome.claim.name: outcome for outcome in outcomes}
    wrong = [outcome for outcome in outcomes if not outcome.holds]
    unknown = [outcome for outcome in outcomes if outcome.found == "unknown"]
    lines = [
        "# What the papers state, and what is found",
        "",
        f"Written by `ssmtheory repro check --tier {tier}`; do not edit. {len(outcomes)} claims. Recorded: "
        f"{_counts([o.claim.status for o in outcomes], _ORDER)}.",
        f"Found: {_counts([o.found for o in outcomes], _ORDER)}.",
        "",
        f"**{len(wrong)} records no longer hold.**" if wrong else "Every record that was checked holds.",
    ]
    lines += [f"- {outcome.claim.name}: {outcome.problem}" for outcome in wrong]
    if unknown:
        lines += ["", f"{len(unknown)} were not checked here:"]
        lines += [f"- {outcome.claim.name}: {outcome.note}" for outcome in unknown]
    lines += [
        "",
        "Proved: exact derivation, each step checked. Certified: enclosed in ball arithmetic. Confirmed: computed in "
        "floating point. Differs: the paper's number or wording is not met. Refuted: there is a counterexample.",
    ]
    for paper in papers:
        lines += ["", f"## {paper.title}", "", f"{paper.reference} (`paper_repro/{paper.name}/`)", ""]
        lines += ["| claim | where | wording | status | found | |", "|---|---|---|---|---|---|"]
        for claim in paper.claims:
            outcome = found[claim.name]
            state = (
                claim.status if outcome.found in (claim.status, "unknown") else f"{claim.status}, now {outcome.found}"
            )
            remarks = " ".join(text for text in (claim.note, outcome.note, outcome.problem) if text)
            cells = (f"**{claim.id}**: {claim.sentence}", claim.where, EVIDENCE[claim.evidence], state)
            lines.append(f"| {' | '.join(_cell(each) for each in (*cells, number(outcome), remarks))} |")
    return "\n".join(lines) + "\n"
