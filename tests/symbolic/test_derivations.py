"""Every derivation holds, says honestly what it rests on, and can fail."""

from __future__ import annotations

import dataclasses
import re

import pytest
import sympy as sp

import ssmtheory as st
from ssmtheory.errors import InputError
from ssmtheory.symbolic import catalogue
from ssmtheory.symbolic.derivation import (
    KINDS,
    Cited,
    Claim,
    Derivation,
    FiniteN,
    Identity,
    NonNegative,
    Numeric,
    ProductLaw,
    Step,
    SumLaw,
    Tends,
    steps,
)

NAMES = catalogue.available()
x, k, N = sp.Symbol("x"), sp.Symbol("k"), sp.Symbol("N")
# what each statement is known to rest on; a change here is a change of what is claimed
PROVED = {
    "legs-transfer", "legs-kernel", "legs-gramian", "phi-modulus", "kernel-identity", "s4d-quotient", "s4d-residues",
    "spectrum-law",
    "spectrum-asymptotics", "legt-pade", "zoh", "bilinear", "s4-generating-function", "s4d-gramian", "s4d-moments",
    "s4d-l2-gap", "s4d-uniform-gap", "hippo-rho", "hippo-rho-bound", "hippo-rho-modes", "mamba-gate",
}  # fmt: skip


@pytest.fixture(scope="module")
def built() -> dict[str, Derivation]:
    return {name: catalogue.derive(name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_it_holds(name: str, built: dict[str, Derivation]) -> None:
    report = built[name].check()
    assert report, str(report)
    assert report.status == built[name].status
    assert len(report.outcomes) == len(built[name].steps) + len(built[name].confirmations)


@pytest.mark.parametrize("name", NAMES)
def test_status_says_what_it_rests_on(name: str, built: dict[str, Derivation]) -> None:
    derivation = built[name]
    kinds = {step.kind for step in derivation.steps}
    assert kinds <= {"exact", "cited"}, "a check at finite N or in floating point belongs into the confirmations"
    if name in PROVED:
        assert derivation.status == "proved"
        assert kinds == {"exact"}
        assert not derivation.theorems()
    else:
        assert derivation.status.startswith("proved modulo named theorems: ")
        assert all(theorem in derivation.status for theorem in derivation.theorems())


def mutants(claim: Claim) -> list[Claim]:
    """The claim with its right-hand side, bound or theorem wrong."""
    swap = dataclasses.replace
    if isinstance(claim, Identity):
        return [swap(claim, rhs=claim.rhs + 1), swap(claim, rhs=claim.rhs * 2 + sp.Rational(1, 7))]
    if isinstance(claim, ProductLaw):
        return [swap(claim, closed=claim.closed * 2), swap(claim, closed=claim.closed * (claim.stop + 3))]
    if isinstance(claim, SumLaw):
        return [swap(claim, closed=claim.closed + 1), swap(claim, closed=claim.closed + claim.stop - claim.start)]
    if isinstance(claim, Tends):
        return [swap(claim, value=claim.value + sp.Rational(1, 1000))]
    if isinstance(claim, NonNegative):
        return [swap(claim, smaller=claim.larger + 1), swap(claim, certificate=claim.certificate + 1)]
    if isinstance(claim, Cited):
        inner = [
            swap(claim, hypotheses=(*claim.hypotheses[:i], wrong, *claim.hypotheses[i + 1 :]))
            for i, hypothesis in enumerate(claim.hypotheses)
            for wrong in mutants(hypothesis)
        ]
        return [swap(claim, theorem=""), *inner]
    if isinstance(claim, FiniteN):

        def off(case: object, compute: object = claim.compute) -> tuple[object, object]:
            found, expected = compute(case)  # type: ignore[operator]
            if isinstance(found, list | tuple):
                return [*found[:-1], sp.sympify(found[-1]) + sp.Rational(1, 10**9)], expected
            return sp.sympify(found) + sp.Rational(1, 10**9), expected

        return [swap(claim, compute=off, cases=claim.cases[:1]), swap(claim, cases=())]
    assert isinstance(claim, Numeric)
    return [swap(claim, compute=lambda: (claim.compute()[0] + 1e-3 + 2 * claim.tolerance, claim.compute()[1]))]


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_step_is_red(name: str, built: dict[str, Derivation]) -> None:
    """Each claim of each step is replaced by a wrong one: every single replacement turns the step red."""
    count = 0
    for _, step in built[name]._numbered():
        for claim in step.claims:
            for wrong in mutants(claim):
                assert wrong.check(), f"{name}: {step.text}\n{wrong} is wrong and was not noticed"
                count += 1
    assert count >= len(built[name].steps)


def test_one_wrong_step_refutes_the_derivation(built: dict[str, Derivation]) -> None:
    derivation = built["s4d-l2-gap"]
    wrong = Step(derivation.steps[1].text, (Identity(x, x + 1),))
    report = derivation.with_(steps=(derivation.steps[0], wrong)).check()
    assert not report
    assert report.status == "refuted"
    assert [outcome.number for outcome in report.failures] == ["2"]
    assert "not identically zero" in report.failures[0].detail
    assert "FAILS" in str(report)


def test_the_weakest_kind_decides() -> None:
    exact = Identity(x, x)
    cited = Cited("a theorem")
    finite = FiniteN("one is one", lambda case: (case, case), (1, 2))
    number = Numeric("one is about one", lambda: (1.0, 1.0), 1e-12)
    expected = {
        "exact": "proved",
        "cited": "proved modulo named theorems: a theorem",
        "finite-N": "checked exactly at finite N only",
        "numeric": "numeric only",
    }
    for i, kind in enumerate(KINDS):
        claims = (exact, cited, finite, number)[: i + 1]
        derivation = Derivation("t", "s", steps(("all", claims)))
        assert derivation.steps[0].kind == kind
        assert derivation.status == expected[kind]
        assert derivation.check()
    proved = Derivation("t", "s", steps(("one", exact)), confirmations=steps(("two", number)))
    assert proved.status == "proved", "confirmations do not carry the proof"


def test_confirmations_can_refute() -> None:
    number = Numeric("two is one", lambda: (2.0, 1.0), 1e-12)
    report = Derivation("t", "s", steps(("one", Identity(x, x))), confirmations=steps(("two", number))).check()
    assert not report
    assert report.failures[0].number == "c1"


def test_an_induction_needs_both_its_parts() -> None:
    good = SumLaw(2 * k + 1, k, sp.Integer(0), N, N**2)
    assert good.check() == ""
    assert "empty sum" in dataclasses.replace(good, closed=N**2 + 1).check()
    assert "does not grow" in dataclasses.replace(good, closed=N**3).check()
    product = ProductLaw(k + 1, k, sp.Integer(0), N, sp.factorial(N))
    assert product.check() == ""
    assert "empty product" in dataclasses.replace(product, closed=3 * sp.factorial(N)).check()
    assert "does not grow" in dataclasses.replace(product, closed=sp.factorial(N) ** 2).check()


def test_a_sign_needs_assumptions() -> None:
    free, positive = sp.Symbol("y"), sp.Symbol("y", positive=True)
    assert NonNegative(positive + 1, sp.Integer(1), positive).check() == ""
    assert "not manifestly" in NonNegative(free + 1, sp.Integer(1), free).check()


def balanced(tex: str) -> bool:
    depth = 0
    for character in re.sub(r"\\[\\{}]", "", tex):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth < 0:
            return False
    return depth == 0


@pytest.mark.parametrize("name", NAMES)
def test_latex_is_well_formed(name: str, built: dict[str, Derivation]) -> None:
    tex = built[name].latex(full_document=True)
    assert tex.startswith("\\documentclass{article}\n\\usepackage{amsmath}\n")
    assert tex.count("\\usepackage") == 1
    assert balanced(tex)
    for environment in ("enumerate", "document"):
        assert tex.count(f"\\begin{{{environment}}}") == tex.count(f"\\end{{{environment}}}")
    assert tex.count(r"\left") - tex.count(r"\leftarrow") == tex.count(r"\right") - tex.count(r"\rightarrow")
    assert tex.count(r"\[") == tex.count(r"\]")
    assert tex.count("$") % 2 == 0
    assert tex.isascii()
    assert "\\begin{document}" not in built[name].latex()
    assert built[name].title in str(built[name])


def test_a_derivation_needs_steps_and_a_step_needs_claims() -> None:
    with pytest.raises(InputError, match="at least one step"):
        Derivation("t", "s", ())
    with pytest.raises(InputError, match="no claim"):
        Step("nothing", ())
    with pytest.raises(InputError, match=r"Did you mean 's4d-l2-gap'"):
        catalogue.derive("s4d-l2gap")


def test_in_use() -> None:
    derivation = st.symbolic.derive_legs_kernel(n=5)
    assert derivation.check()
    assert derivation.status == "proved"
    kernel = derivation.lower("kernel")
    # the kernel at t = ln 2 is sqrt(11)/2 P_5(0) = 0
    assert abs(kernel(float(sp.log(2)))) < 1e-14
    assert derivation.lower(t=0) == pytest.approx(float(sp.sqrt(11)), rel=1e-15)
    with pytest.raises(InputError, match="n=-1"):
        st.symbolic.derive_legs_kernel(n=-1)
    with pytest.raises(InputError, match=r"n=True"):
        st.symbolic.derive_legs_kernel(n=True)
