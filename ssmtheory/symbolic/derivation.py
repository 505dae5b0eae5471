"""Derivations: mathematical claims in steps, each of which can be executed and can fail.

A `Step` holds claims. What a claim is checked by decides its kind, and no kind is ever shown as a stronger one:

| kind | what `check()` does | claims |
|---|---|---|
| exact | decides an identity, an induction, a limit or a sign, for all values | `Identity`, `SumLaw`, ... |
| cited | checks the hypotheses; the named theorem itself is taken from the literature | `Cited` |
| finite-N | compares exact numbers at the listed sizes | `FiniteN` |
| numeric | compares floating-point numbers within a tolerance | `Numeric` |

A derivation is "proved" when every step is exact, "proved modulo named theorems: ..." when some are cited, and
otherwise says that it was only checked. Its `confirmations` do not carry the proof: they compare the statement with a
second, independent construction (mostly exact numbers from the integer matrix of LegS), so that a chain of true steps
that misses the statement is seen.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy as sp

from ssmtheory.errors import InputError, SelfCheckError, nearest
from ssmtheory.symbolic.exact import is_zero

__all__ = [
    "KINDS",
    "Cited",
    "Claim",
    "Derivation",
    "FiniteN",
    "Identity",
    "NonNegative",
    "Numeric",
    "Outcome",
    "ProductLaw",
    "Report",
    "Step",
    "SumLaw",
    "Tends",
    "plain",
    "steps",
]

#: From the strongest kind of evidence to the weakest.
KINDS = ("exact", "cited", "finite-N", "numeric")


def _latex(expr: Any) -> str:
    return sp.latex(sp.sympify(expr)) if not isinstance(expr, str) else expr


@dataclass(frozen=True)
class Claim:
    """A statement that can be executed. `kind` is one of `KINDS`; `check` returns "" or what went wrong."""

    kind = "exact"

    def check(self) -> str:
        """Verify the claim.

        Returns:
            The empty string when it holds, otherwise what was found instead.
        """
        raise SelfCheckError(f"{type(self).__name__} has no check of its own")

    def latex(self) -> str:
        """The claim as a LaTeX formula.

        Returns:
            LaTeX without dollar signs.
        """
        return ""

    def __str__(self) -> str:
        return ""


@dataclass(frozen=True)
class Identity(Claim):
    """lhs = rhs for all values of the symbols; `relations` are polynomials known to vanish."""

    lhs: sp.Expr
    rhs: sp.Expr
    relations: tuple[sp.Expr, ...] = ()

    def check(self) -> str:
        """As `Claim.check`."""
        if is_zero(sp.sympify(self.lhs) - sp.sympify(self.rhs), self.relations):
            return ""
        return f"{self.lhs} - ({self.rhs}) is not identically zero"

    def latex(self) -> str:
        """As `Claim.latex`."""
        return f"{_latex(self.lhs)} = {_latex(self.rhs)}"

    def __str__(self) -> str:
        return f"{self.lhs} = {self.rhs}"


@dataclass(frozen=True)
class ProductLaw(Claim):
    """prod_{index=start}^{stop-1} factor = closed for every integer stop >= start, by induction on the symbol `stop`.

    Checked: closed = 1 at stop = start, and closed(stop + 1) / closed(stop) = factor(stop).
    """

    factor: sp.Expr
    index: sp.Symbol
    start: sp.Expr
    stop: sp.Symbol
    closed: sp.Expr

    def check(self) -> str:
        """As `Claim.check`."""
        if not is_zero(sp.sympify(self.closed).subs(self.stop, self.start) - 1):
            return f"the empty product is not 1 for {self.closed} at {self.stop} = {self.start}"
        ratio = self.closed.subs(self.stop, self.stop + 1) / self.closed
        if not is_zero(ratio - self.factor.subs(self.index, self.stop)):
            return f"{self.closed} does not grow by the factor {self.factor} at {self.index} = {self.stop}"
        return ""

    def latex(self) -> str:
        """As `Claim.latex`."""
        i, a, b = _latex(self.index), _latex(self.start), _latex(self.stop - 1)
        return rf"\prod_{{{i}={a}}}^{{{b}}} {_latex(self.factor)} = {_latex(self.closed)}"

    def __str__(self) -> str:
        return f"prod({self.factor}, {self.index}={self.start}..{self.stop - 1}) = {self.closed}"


@dataclass(frozen=True)
class SumLaw(Claim):
    """sum_{index=start}^{stop-1} term = closed for every integer stop >= start, by induction on the symbol `stop`.

    Checked: closed = 0 at stop = start, and closed(stop + 1) - closed(stop) = term(stop).
    """

    term: sp.Expr
    index: sp.Symbol
    start: sp.Expr
    stop: sp.Symbol
    closed: sp.Expr

    def check(self) -> str:
        """As `Claim.check`."""
        closed, term = sp.sympify(self.closed), sp.sympify(self.term)
        if not is_zero(closed.subs(self.stop, self.start)):
            return f"the empty sum is not 0 for {closed} at {self.stop} = {self.start}"
        if not is_zero(closed.subs(self.stop, self.stop + 1) - closed - term.subs(self.index, self.stop)):
            return f"{closed} does not grow by the term {term} at {self.index} = {self.stop}"
        return ""

    def latex(self) -> str:
        """As `Claim.latex`."""
        i, a, b = _latex(self.index), _latex(self.start), _latex(self.stop - 1)
        return rf"\sum_{{{i}={a}}}^{{{b}}} {_latex(self.term)} = {_latex(self.closed)}"

    def __str__(self) -> str:
        return f"sum({self.term}, {self.index}={self.start}..{self.stop - 1}) = {self.closed}"


def _rational_limit(expr: sp.Expr, variable: sp.Symbol, point: sp.Expr) -> sp.Expr | None:
    """Limit at 0 or infinity by leading coefficients; None where the expression is not rational in the variable."""
    if point not in (0, sp.oo) or not expr.is_rational_function(variable):
        return None
    parts = [sp.Poly(part, variable) for part in sp.fraction(sp.together(expr))]
    terms = [sorted(part.terms(), reverse=point == sp.oo) for part in parts]
    (top,), a = terms[0][0]
    (low,), b = terms[1][0]
    order = top - low if point == sp.oo else low - top
    if order > 0:
        return None
    return a / b if order == 0 else sp.Integer(0)


@dataclass(frozen=True)
class Tends(Claim):
    """lim expr = value as variable -> point, for an expression that is algebraic or elementary in the variable."""

    expr: sp.Expr
    variable: sp.Symbol
    point: sp.Expr
    value: sp.Expr

    def check(self) -> str:
        """As `Claim.check`."""
        expr = sp.sympify(self.expr)
        found = _rational_limit(expr, self.variable, self.point)
        if found is None:
            found = sp.limit(expr, self.variable, self.point)
        if is_zero(found - sp.sympify(self.value)):
            return ""
        return f"the limit of {self.expr} is {found}, not {self.value}"

    def latex(self) -> str:
        """As `Claim.latex`."""
        return rf"\lim_{{{_latex(self.variable)} \to {_latex(self.point)}}} {_latex(self.expr)} = {_latex(self.value)}"

    def __str__(self) -> str:
        return f"lim({self.expr}, {self.variable} -> {self.point}) = {self.value}"


@dataclass(frozen=True)
class NonNegative(Claim):
    """larger >= smaller, because the difference equals `certificate`, which is manifestly not negative.

    Manifestly: SymPy's assumptions on the symbols make every summand a product of positive symbols, of squares and of
    positive numbers.
    """

    larger: sp.Expr
    smaller: sp.Expr
    certificate: sp.Expr

    def check(self) -> str:
        """As `Claim.check`."""
        certificate = sp.sympify(self.certificate)
        if not is_zero(sp.sympify(self.larger) - sp.sympify(self.smaller) - certificate):
            return f"{self.larger} - ({self.smaller}) is not {certificate}"
        if certificate.is_nonnegative is not True:
            return f"{certificate} is not manifestly >= 0 under the assumptions on its symbols"
        return ""

    def latex(self) -> str:
        """As `Claim.latex`."""
        return rf"{_latex(self.larger)} - {_latex(self.smaller)} = {_latex(self.certificate)} \ge 0"

    def __str__(self) -> str:
        return f"{self.larger} - ({self.smaller}) = {self.certificate} >= 0"


@dataclass(frozen=True)
class Cited(Claim):
    """A theorem of the literature used without a proof of its own; its `hypotheses` are claims that are checked."""

    theorem: str
    conclusion: str = ""
    hypotheses: tuple[Claim, ...] = ()
    kind = "cited"

    def check(self) -> str:
        """As `Claim.check`."""
        if not self.theorem:
            return "a cited step must name its theorem"
        found = [text for text in (claim.check() for claim in self.hypotheses) if text]
        return "; ".join(found)

    def latex(self) -> str:
        """As `Claim.latex`."""
        return self.conclusion

    def __str__(self) -> str:
        parts = [f"by {self.theorem}"] + ([self.conclusion] if self.conclusion else [])
        return ": ".join(parts) + "".join(f"\n      where {claim}" for claim in self.hypotheses)


@dataclass(frozen=True)
class FiniteN(Claim):
    """Exact equality (integers, rationals, symbols) of two constructions at each of the listed cases, no other."""

    statement: str
    compute: Callable[[Any], tuple[Any, Any]]
    cases: tuple[Any, ...]
    kind = "finite-N"

    def check(self) -> str:
        """As `Claim.check`."""
        if not self.cases:
            return "no case was checked"
        for case in self.cases:
            found, expected = self.compute(case)
            pairs = list(zip(found, expected, strict=True)) if isinstance(found, list | tuple) else [(found, expected)]
            for left, right in pairs:
                if not is_zero(sp.sympify(left) - sp.sympify(right)):
                    return f"at {case}: {left} is not {right}"
        return ""

    def latex(self) -> str:
        """As `Claim.latex`."""
        return rf"\text{{exact at }} {', '.join(str(case) for case in self.cases)}"

    def __str__(self) -> str:
        return f"{self.statement} [exact at {', '.join(map(str, self.cases))}]"


@dataclass(frozen=True)
class Numeric(Claim):
    """Agreement of two floating-point numbers within `tolerance` (absolute), whose reason stands in the step's text."""

    statement: str
    compute: Callable[[], tuple[complex, complex]]
    tolerance: float
    kind = "numeric"

    def check(self) -> str:
        """As `Claim.check`."""
        found, expected = self.compute()
        error = abs(found - expected)
        return "" if error <= self.tolerance else f"{found} differs from {expected} by {error:.3g} > {self.tolerance}"

    def latex(self) -> str:
        """As `Claim.latex`."""
        return rf"\text{{numerically, to }} {sp.latex(sp.Float(self.tolerance, 2))}"

    def __str__(self) -> str:
        return f"{self.statement} [to {self.tolerance:g}]"


@dataclass(frozen=True)
class Step:
    """One step: a sentence (LaTeX in dollar signs) and the claims that make it true.

    `kind` is that of the weakest claim.
    """

    text: str
    claims: tuple[Claim, ...]

    def __post_init__(self) -> None:
        if not self.claims:
            raise InputError(f"the step {self.text!r} has no claim: give at least one, it is what check() executes")

    @property
    def kind(self) -> str:
        return max((claim.kind for claim in self.claims), key=KINDS.index)

    def theorems(self) -> list[str]:
        """Theorems that the step takes from the literature.

        Returns:
            Their names.
        """
        return [claim.theorem for claim in self.claims if isinstance(claim, Cited)]


@dataclass(frozen=True)
class Outcome:
    """What became of one step: its position, text, kind, whether it holds, what went wrong, and the seconds it took."""

    number: str
    text: str
    kind: str
    ok: bool
    detail: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """Result of `Derivation.check()`; true as a condition when every step and every confirmation holds.

    `ok` says the same, `failures` lists the outcomes that do not hold; `status` is "refuted" once there is one.
    """

    title: str
    outcomes: tuple[Outcome, ...]
    status: str

    @property
    def failures(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if not outcome.ok)

    @property
    def ok(self) -> bool:
        return not self.failures

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        lines = [f"{self.title}: {self.status}"]
        for outcome in self.outcomes:
            mark = "holds" if outcome.ok else "FAILS"
            lines.append(f"  {outcome.number:>3} [{outcome.kind}] {mark}: {plain(outcome.text)}")
            if outcome.detail:
                lines.append(f"      {outcome.detail}")
        return "\n".join(lines)


#: LaTeX commands that have a character of their own in a terminal.
_CHARACTERS = {
    "varphi": "φ", "phi": "φ", "psi": "ψ", "omega": "ω", "Omega": "Ω", "theta": "θ", "rho": "ρ", "lambda": "λ",
    "Lambda": "Λ", "kappa": "κ", "mu": "μ", "delta": "δ", "Delta": "Δ", "eta": "η", "epsilon": "ε", "varepsilon": "ε",
    "sigma": "σ", "alpha": "α", "beta": "β", "gamma": "γ", "tau": "τ", "pi": "π", "sum": "Σ", "prod": "Π", "int": "∫",
    "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "neq": "≠", "to": "→", "mapsto": "↦", "infty": "∞", "in": "∈",
    "cdot": "·", "times": "×", "pm": "±", "mp": "∓", "dots": "...", "ldots": "...", "langle": "⟨", "rangle": "⟩",
    "partial": "∂", "approx": "≈", "sim": "~", "ll": "≪", "gg": "≫", "left": "", "right": "", "quad": " ",
    "lfloor": "⌊", "rfloor": "⌋", "big": "", "Big": "", "bigl": "", "bigr": "", "ell": "l", "mid": "|",
}  # fmt: skip
_ARGUMENT = r"\s*(?:\{([^{}]*)\}|(\w|\\[A-Za-z]+))"
_FRACTION = re.compile(r"\\[td]?frac" + _ARGUMENT + _ARGUMENT)
_BINOMIAL = re.compile(r"\\binom" + _ARGUMENT + _ARGUMENT)
_ONE_ARGUMENT = re.compile(
    r"\\(mathrm|text|operatorname|mathbf|mathbb|widetilde|tilde|hat|bar|overline|sqrt)(?![A-Za-z])" + _ARGUMENT
)


def _bracketed(text: str) -> str:
    return text if re.fullmatch(r"\w+|\\\w+", text.strip()) else f"({text})"


def plain(text: str) -> str:
    r"""LaTeX as a line for a terminal: Greek letters and signs as characters, fractions with a slash.

    Args:
        text: words with LaTeX in them.

    Returns:
        The same without commands, as far as they are known.

    >>> plain(r"$\omega \le \frac{N^2}{2}$")
    'ω ≤ (N^2)/2'
    """

    def fraction(found: re.Match[str]) -> str:
        top, bottom = found[1] or found[2] or "", found[3] or found[4] or ""
        space = " " if found.start() and found.string[found.start() - 1].isalpha() else ""
        return f"{space}{_bracketed(top)}/{_bracketed(bottom)}"

    def argument(found: re.Match[str]) -> str:
        marks = {"sqrt": "√", "widetilde": "~", "tilde": "~", "hat": "^", "bar": "conj ", "overline": "conj "}
        body = found[2] if found[2] is not None else found[3]
        return f"{marks[found[1]]}{_bracketed(body)}" if found[1] in marks else body

    text = text.replace("$", "").replace(r"\,", " ").replace(r"\|", "‖").replace(r"\{", "{").replace(r"\}", "}")
    before = None
    while before != text:  # innermost braces first
        before = text
        text = _ONE_ARGUMENT.sub(argument, _FRACTION.sub(fraction, text))
        text = _BINOMIAL.sub(lambda m: f"binom({m[1] or m[2]}, {m[3] or m[4]})", text)
        text = re.sub(r"([\^_])\{(\w+|-\w+)\}", r"\1\2", text)
        text = re.sub(r"([\^_])\{([^{}]*)\}", r"\1(\2)", text)
    text = re.sub(r"\\([A-Za-z]+)", lambda m: _CHARACTERS.get(m[1], m[1]), text)
    return re.sub(r" {2,}", " ", re.sub(r" +([\^_])", r"\1", text)).strip()


@dataclass(frozen=True)
class Derivation:
    """A statement, and the steps that lead to it.

    Args:
        title: what is derived, plain text.
        statement: the result, with LaTeX in dollar signs.
        steps: the proof; each is executed by `check`.
        confirmations: comparisons with independent constructions; they do not carry the proof.
        result: the formulas of the statement by name, in symbols, for use and for `lower`.
        setting: notation and hypotheses, with LaTeX in dollar signs.
        source: where the statement was published, "" for results of this toolkit; deviations are named.
    """

    title: str
    statement: str
    steps: tuple[Step, ...]
    confirmations: tuple[Step, ...] = ()
    result: Mapping[str, sp.Expr] = dataclasses.field(default_factory=dict)
    setting: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if not self.steps:
            raise InputError(f"{self.title}: a derivation needs at least one step")

    @property
    def status(self) -> str:
        """What the statement rests on, given that every step holds (`check` decides that).

        Returns:
            "proved", "proved modulo named theorems: ...", "checked exactly at finite N only" or "numeric only".
        """
        worst = max((step.kind for step in self.steps), key=KINDS.index)
        if worst == "exact":
            return "proved"
        if worst == "cited":
            return "proved modulo named theorems: " + ", ".join(self.theorems())
        return {"finite-N": "checked exactly at finite N only", "numeric": "numeric only"}[worst]

    def theorems(self) -> list[str]:
        """Named theorems that the steps rest on.

        Returns:
            Their names, in order of first use.
        """
        return list(dict.fromkeys(name for step in self.steps for name in step.theorems()))

    def _numbered(self) -> Iterator[tuple[str, Step]]:
        for number, step in enumerate(self.steps, 1):
            yield str(number), step
        for number, step in enumerate(self.confirmations, 1):
            yield f"c{number}", step

    def check(self) -> Report:
        """Execute every claim of every step and confirmation.

        Returns:
            The report; a step that does not hold makes it false and its status "refuted".
        """
        outcomes = []
        for number, step in self._numbered():
            begin = time.perf_counter()
            found = [text for text in (claim.check() for claim in step.claims) if text]
            seconds = time.perf_counter() - begin
            outcomes.append(Outcome(number, step.text, step.kind, not found, "; ".join(found), seconds))
        ok = all(outcome.ok for outcome in outcomes)
        return Report(self.title, tuple(outcomes), self.status if ok else "refuted")

    def with_(self, **changes: Any) -> Derivation:
        """A copy with some fields replaced.

        Args:
            changes: new values by field name.

        Returns:
            The changed derivation.
        """
        return dataclasses.replace(self, **changes)

    def lower(self, name: str | None = None, *, digits: int | None = None, **values: Any) -> Any:
        """A formula of `result` as a number or a function of its remaining symbols (see `ssmtheory.symbolic.lower`).

        Args:
            name: which formula; may be left out when there is only one.
            digits: decimal digits (mpmath); None for NumPy double precision.
            values: values for symbols, by name.

        Returns:
            A number when no symbol is left, otherwise a function of the remaining symbols in alphabetical order.

        Raises:
            InputError: no such formula or symbol.
        """
        from ssmtheory.symbolic.lower import lower

        if name is None and len(self.result) == 1:
            name = next(iter(self.result))
        if name is None or name not in self.result:
            raise InputError(
                f"no formula {name!r}: choose one of {', '.join(self.result)}.{nearest(name, self.result)}"
            )
        return lower(self.result[name], digits=digits, **values)

    def latex(self, full_document: bool = False) -> str:
        """The derivation as LaTeX, with amsmath as the only package.

        Args:
            full_document: wrap it into a document that compiles by itself.

        Returns:
            LaTeX source.
        """
        lines = [rf"\section*{{{_escape(self.title)}}}"]
        if self.setting:
            lines += [_escape_text(self.setting), ""]
        lines += [rf"\textbf{{Statement.}} {_escape_text(self.statement)}", ""]
        lines += [rf"\textbf{{Status.}} {_escape(self.status)}.", ""]
        if self.source:
            lines += [rf"\textbf{{Source.}} {_escape_text(self.source)}", ""]
        for heading, steps in (("Proof.", self.steps), ("Confirmations.", self.confirmations)):
            if not steps:
                continue
            lines += [rf"\textbf{{{heading}}}", r"\begin{enumerate}"]
            for step in steps:
                lines.append(rf"\item[] \textit{{[{step.kind}]}} {_escape_text(step.text)}")
                for claim in step.claims:
                    lines += _display(claim)
            lines.append(r"\end{enumerate}")
        body = "\n".join(lines) + "\n"
        if not full_document:
            return body
        head = "\\documentclass{article}\n\\usepackage{amsmath}\n\\allowdisplaybreaks\n\\begin{document}\n\\sloppy\n"
        return head + body + "\\end{document}\n"

    def __str__(self) -> str:
        lines = [self.title, "=" * len(self.title), plain(self.setting)] if self.setting else [self.title]
        lines += [plain(self.statement), f"Status: {self.status}"]
        for number, step in self._numbered():
            lines.append(f"  {number:>3} [{step.kind}] {plain(step.text)}")
            lines += [f"      {claim}" for claim in step.claims if str(claim)]
        return "\n".join(lines)


def _display(claim: Claim) -> list[str]:
    formula = claim.latex()
    lines = []
    if isinstance(claim, Cited):
        lines.append(f"(By {_escape_text(claim.theorem)}.)")
    if formula and not isinstance(claim, FiniteN | Numeric):
        lines += [r"\[", formula, r"\]"]
    elif formula:
        lines.append(f"({_escape_text(claim.statement)}; ${formula}$.)" if isinstance(claim, FiniteN | Numeric) else "")
    for hypothesis in claim.hypotheses if isinstance(claim, Cited) else ():
        lines += _display(hypothesis)
    return lines


def _escape(text: str) -> str:
    """Plain text made safe for LaTeX."""
    for character in "&%#_":
        text = text.replace(character, "\\" + character)
    return text.replace("^", r"\^{}").replace("<", r"$<$").replace(">", r"$>$")


def _escape_text(text: str) -> str:
    """Text with formulas in dollar signs: only what lies outside the formulas is escaped."""
    pieces = text.split("$")
    return "$".join(piece if i % 2 else _escape(piece) for i, piece in enumerate(pieces))


def steps(*items: tuple[str, Sequence[Claim] | Claim]) -> tuple[Step, ...]:
    """Steps from (text, claim or claims) pairs.

    Args:
        items: the pairs.

    Returns:
        The steps.
    """
    return tuple(Step(text, (claim,) if isinstance(claim, Claim) else tuple(claim)) for text, claim in items)
