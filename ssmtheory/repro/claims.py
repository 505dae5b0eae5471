"""The claims files, `paper_repro/<paper>/claims.toml`: read, checked key by key, and turned into `Claim`s.

A file has the keys of `Paper` at the top and one `[[claim]]` table per claim, with the keys of `Claim`. Rules that
are enforced on reading:

- a number that is only remembered (`evidence = "remembered"`) may not be given as `published`;
- `status = "not-run"` says why; every other status names what is run (check, or preset and statistic), the number or
  interval it rests on or the condition that decides it, and the mutation of the code that turns it red;
- a mutation changes the library, never the check.
"""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssmtheory import resources
from ssmtheory.errors import ConfigError, nearest

__all__ = ["EVIDENCE", "STATUSES", "TIERS", "Claim", "Mutation", "Paper", "Target", "load", "papers", "read"]

#: Budget of a claim: seconds on one core; minutes on a laptop; a GPU.
TIERS = ("smoke", "laptop", "gpu")

#: What a claim came to. The first three agree with the claim, the next two do not.
STATUSES = ("proved", "certified", "confirmed", "differs", "refuted", "not-run")

#: How surely the paper's wording or number is known.
EVIDENCE: dict[str, str] = {
    "code": "read in the authors' public code",
    "text": "read in the paper's text, or quoted from it by others",
    "remembered": "stated by the paper, wording unconfirmed",
    "derived": "our own statement, derived here",
}

#: What a mutation does to the result of a function, or to a constant.
MUTATIONS = ("scale", "shift", "argument", "set", "replace")

#: Reductions that a statistic may end with.
REDUCTIONS = ("max", "min", "mean", "median", "sum")


@dataclass(frozen=True)
class Target:
    """A number with its tolerance, absolute or relative (the larger where both are given)."""

    value: float
    tolerance: float = 0.0
    relative: float = 0.0

    @property
    def margin(self) -> float:
        """The absolute tolerance."""
        return max(self.tolerance, self.relative * abs(self.value))

    def meets(self, number: float) -> bool:
        """Whether a number lies within the tolerance."""
        return abs(number - self.value) <= self.margin


@dataclass(frozen=True)
class Mutation:
    """A change of the code that a claim must notice.

    target: `module:attribute.path` below `ssmtheory`, outside `ssmtheory.repro`.
    how: "scale" the result by `by`, "shift" it by `by`, scale an "argument" by `by`, "set" the argument to `by`, or
        "replace" the whole attribute or result by `by`.
    part: index into a tuple result, or name of a field of a dataclass result; None for the whole.
    argument: name of the argument that is scaled or set.
    slow: whether the changed claim takes more than a few seconds.
    """

    target: str
    how: str = "scale"
    by: Any = 2
    part: int | str | None = None
    argument: str | None = None
    slow: bool = False


@dataclass(frozen=True)
class Claim:
    """One claim, as recorded.

    paper, id: where it stands in the ledger.
    sentence: the claim in one sentence.
    where: where in the paper it stands.
    evidence: how surely its wording is known (`EVIDENCE`).
    tier: what it costs (`TIERS`).
    status: what it came to (`STATUSES`).
    why: why it is not run.
    note: what a reader should know beside the status.
    check: `module:function` in `ssmtheory.repro.checks`; arguments: its keyword arguments.
    preset: `experiment.preset`; statistic: `variable` ("group/name"), `select` (dimension -> label), `reduce`.
    published: the paper's own number. expected, at_most, at_least: the condition where the claim is not a number
        of the paper.
    otherwise: status where the condition fails: "differs" (default for a published number) or "refuted".
    measured: the number this package found when the status was recorded; interval: its bracket or interval.
    mutation: the change that turns the claim red.
    """

    paper: str
    id: str
    sentence: str
    where: str
    evidence: str
    status: str
    tier: str = "smoke"
    why: str = ""
    note: str = ""
    check: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    preset: str | None = None
    statistic: Mapping[str, Any] = field(default_factory=dict)
    published: Target | None = None
    expected: Target | None = None
    at_most: float | None = None
    at_least: float | None = None
    otherwise: str | None = None
    measured: Target | None = None
    interval: tuple[float, float] | None = None
    mutation: Mutation | None = None

    @property
    def name(self) -> str:
        """`paper/id`."""
        return f"{self.paper}/{self.id}"


@dataclass(frozen=True)
class Paper:
    """One claims file."""

    name: str
    title: str
    reference: str
    claims: tuple[Claim, ...]


def papers() -> list[str]:
    """Names of the papers that have a claims file, sorted.

    >>> "s4d" in papers()
    True
    """
    return [name.partition("/")[0] for name in resources.names("claims")]


def load(names: Iterable[str] = ()) -> list[Paper]:
    """The papers of the ledger that ship with the package.

    Args:
        names: of papers; all where none is named.

    Raises:
        ConfigError: no such paper, or a file breaks a rule of this module.
    """
    known = papers()
    chosen = list(names) or known
    for name in chosen:
        if name not in known:
            raise ConfigError(f"no paper {name!r} in the ledger; there are {', '.join(known)}.{nearest(name, known)}")
    return [read(resources.resource("claims", f"{name}/claims.toml"), name) for name in chosen]


def read(path: Path, name: str) -> Paper:
    """One claims file.

    Args:
        path: of the TOML file.
        name: of the paper.

    Raises:
        ConfigError: not readable, not TOML, or breaks a rule of this module; the message names file, claim and key.
    """
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    rows = table.pop("claim", [])
    _known(table, {"title", "reference"}, f"{path}")
    for key in ("title", "reference"):
        if not isinstance(table.get(key), str):
            raise ConfigError(f"{path}: {key} must be a string, not {table.get(key)!r}")
    if not isinstance(rows, list) or not rows:
        raise ConfigError(f"{path}: no [[claim]] table")
    found: list[Claim] = []
    for row in rows:
        claim = _claim(row, name, path)
        if any(claim.id == other.id for other in found):
            raise ConfigError(f"{path}: two claims are called {claim.id!r}")
        found.append(claim)
    return Paper(name, table["title"], table["reference"], tuple(found))


def _known(table: Mapping[str, Any], allowed: set[str], where: str) -> None:
    for key in table:
        if key not in allowed:
            raise ConfigError(f"{where}: unknown key {key!r}; there are {', '.join(sorted(allowed))}."
                              f"{nearest(key, allowed)}")  # fmt: skip


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{where} must be a finite number, not {value!r}")
    return float(value)


def _target(value: Any, where: str) -> Target:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be a table with value and tolerance (or relative), not {value!r}")
    _known(value, {"value", "tolerance", "relative"}, where)
    if "value" not in value or len(value) == 1:
        raise ConfigError(f"{where} needs value, and tolerance or relative")
    return Target(**{key: _number(number, f"{where}.{key}") for key, number in value.items()})


def _mutation(value: Any, where: str) -> Mutation:
    if not isinstance(value, dict) or "target" not in value:
        raise ConfigError(f"{where} must be a table with a target, not {value!r}")
    _known(value, {f.name for f in dataclasses.fields(Mutation)}, where)
    found = Mutation(**value)
    if not re.fullmatch(r"ssmtheory(\.\w+)*:\w+(\.\w+)*", found.target):
        raise ConfigError(f"{where}.target {found.target!r} is not of the form ssmtheory.module:name")
    if re.match(r"ssmtheory\.repro\b", found.target):
        raise ConfigError(f"{where}.target {found.target!r} changes the check; change the library that it calls")
    if found.how not in MUTATIONS:
        raise ConfigError(
            f"{where}.how {found.how!r} is not one of {', '.join(MUTATIONS)}.{nearest(found.how, MUTATIONS)}"
        )
    if (found.how in ("argument", "set")) != (found.argument is not None):
        raise ConfigError(f'{where}: argument = "name" goes with how = "argument" or "set", and with no other')
    return found


def _claim(row: Mapping[str, Any], paper: str, path: Path) -> Claim:
    where = f"{path}: claim {row.get('id', '(no id)')!r}"
    allowed = {f.name for f in dataclasses.fields(Claim)} - {"paper"}
    _known(row, allowed, where)
    values: dict[str, Any] = dict(row)
    for key in ("id", "sentence", "where", "evidence", "status"):
        if not isinstance(values.get(key), str) or not values[key].strip():
            raise ConfigError(f"{where}: {key} is missing or not a string")
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", values["id"]):
        raise ConfigError(f"{where}: an id is lower-case words with dashes between")
    choices: list[tuple[str, Iterable[str]]] = [("evidence", EVIDENCE), ("status", STATUSES), ("tier", TIERS)]
    choices.append(("otherwise", ("differs", "refuted")))
    for key, options in choices:
        if key in values and values[key] not in options:
            raise ConfigError(f"{where}: {key} {values[key]!r} is not one of {', '.join(options)}")
    for key in ("published", "expected", "measured"):
        if key in values:
            values[key] = _target(values[key], f"{where}: {key}")
    for key in ("at_most", "at_least"):
        if key in values:
            values[key] = _number(values[key], f"{where}: {key}")
    if "interval" in values:
        ends = values["interval"]
        if not isinstance(ends, list) or len(ends) != 2:
            raise ConfigError(f"{where}: interval must be [lower, upper], not {ends!r}")
        lower, upper = (_number(end, f"{where}: interval") for end in ends)
        if lower > upper:
            raise ConfigError(f"{where}: interval [{lower}, {upper}] is empty")
        values["interval"] = (lower, upper)
    if "mutation" in values:
        values["mutation"] = _mutation(values["mutation"], f"{where}: mutation")
    claim = Claim(paper=paper, **values)
    _rules(claim, where)
    return claim


def _rules(claim: Claim, where: str) -> None:
    if claim.published is not None and claim.evidence in ("remembered", "derived"):
        raise ConfigError(f"{where}: a number is published only where it was read (evidence code or text)")
    if claim.preset is not None:
        _known(claim.statistic, {"variable", "select", "reduce"}, f"{where}: statistic")
        if not isinstance(claim.statistic.get("variable"), str):
            raise ConfigError(f'{where}: statistic needs variable = "group/name"')
        reduction = claim.statistic.get("reduce")
        if reduction is not None and reduction not in REDUCTIONS:
            raise ConfigError(f"{where}: reduce {reduction!r} is not one of {', '.join(REDUCTIONS)}")
    elif claim.statistic:
        raise ConfigError(f"{where}: a statistic is taken of a preset's dataset; preset is missing")
    if claim.check is not None and not re.fullmatch(r"\w+:[a-z]\w*", claim.check):
        raise ConfigError(f"{where}: check {claim.check!r} is not of the form module:function")
    if claim.check is not None and claim.preset is not None:
        raise ConfigError(f"{where}: a check or a preset, not both")
    if claim.status == "not-run":
        if not claim.why.strip():
            raise ConfigError(f"{where}: a claim that is not run says why")
        if claim.check or claim.preset:
            raise ConfigError(f"{where}: a claim with a check or a preset is run; record what it came to")
        return
    if claim.why:
        raise ConfigError(f"{where}: why belongs to a claim that is not run; use note")
    if claim.check is None and claim.preset is None:
        raise ConfigError(f"{where}: needs a check, or a preset and a statistic")
    if claim.mutation is None:
        raise ConfigError(f"{where}: needs the mutation that turns it red")
