"""Certificates: each claim against independent numbers, each wrong claim refused."""

from __future__ import annotations

import dataclasses
import json
import math
from fractions import Fraction
from pathlib import Path

import flint
import numpy as np
import pytest

from ssmtheory import certify
from ssmtheory.certify import balls, definition, frontier, supnorm
from ssmtheory.errors import InputError
from ssmtheory.inits.hippo import legs, legs_integer, phi

I11 = ("0", "1/11")  # a = i/11


@pytest.fixture(scope="module")
def golden(shared_oracles: Path) -> dict:
    return json.loads((shared_oracles / "linear_golden.json").read_text(encoding="utf-8"))


def holds(certificate: certify.Certificate, decimal: str) -> bool:
    """Whether a printed reference, known to half a unit of its last digit, meets the bracket."""
    digits = decimal.partition("e")[0].partition(".")[2]
    unit = Fraction(1, 2) * Fraction(10) ** (int(decimal.partition("e")[2] or 0) - len(digits))
    # the references were rounded after computation in about as many digits: two units
    low, high = Fraction(decimal) - 4 * unit, Fraction(decimal) + 4 * unit
    return Fraction(certificate.lower) <= high and Fraction(certificate.upper) >= low


def mutated(certificate: certify.Certificate, **parameters: object) -> certify.Certificate:
    return dataclasses.replace(certificate, parameters={**certificate.parameters, **parameters})


def nudged(certificate: certify.Certificate, which: str, factor: str) -> certify.Certificate:
    moved = balls.below(Fraction(getattr(certificate, which)) * Fraction(factor), 40)
    return dataclasses.replace(certificate, **{which: moved})


def ginibre(N: int, norm: float, seed: int = 0, *, real: bool = True) -> np.ndarray:
    rng = np.random.default_rng(seed)
    E = rng.standard_normal((N, N)).astype(complex)
    if not real:
        E = E + 1j * rng.standard_normal((N, N))
    E = E * (norm / np.linalg.norm(E, 2))
    return E.real if real else E


# ------------------------------------------------------------------------------------ reference numbers


@pytest.mark.parametrize("N", [4, 8, 16, 32, 64])
def test_all_eigenvalues_match_the_reference(golden: dict, N: int) -> None:
    for m, reference in enumerate(golden["y"][str(N)]):
        certificate = certify.top_eigenvalue(N, m)
        assert holds(certificate, reference)
        assert certificate.relative_width < 1e-30


@pytest.mark.parametrize("N", [4, 8, 16, 32, 64, 128])
def test_sup_of_the_gap_matches_the_reference(golden: dict, N: int) -> None:
    for output, key in ((0, "sup_e0"), ("worst", "sup_worst")):
        value, omega = golden[key][str(N)]
        certificate = certify.s4d_gap(N, output, tolerance=1e-13)
        assert holds(certificate, value)
        assert certificate.relative_width < 1.1e-13
        # the top is flat: a frequency is only known to the square root of its value's precision
        assert abs(certificate.witness["omega"] - float(omega)) < 1e-4


@pytest.mark.parametrize("N", [2, 4, 8, 16, 24, 32, 48, 64])
def test_condition_of_legs_matches_the_reference(golden: dict, N: int) -> None:
    certificate = certify.legs_condition(N)
    assert holds(certificate, golden["kappa2"][str(N)])
    assert certificate.relative_width < 1e-15


# ------------------------------------------------------------------------------------------- headline


def test_headline_at_1024() -> None:
    worst = certify.s4d_gap(1024, "worst", tolerance=1e-9)
    assert abs(worst.value - 651.896) < 5e-4
    assert abs(worst.witness["omega"] - 333771.584) < 5e-4
    assert worst.relative_width < 1.1e-9
    first = certify.s4d_gap(1024, 0, tolerance=1e-9)
    assert abs(first.value - 0.63662) < 5e-6
    assert Fraction(first.lower) > Fraction(2 / math.pi)


@pytest.mark.parametrize("N", [8, 32, 128, 1024])
def test_top_eigenvalue_lies_in_the_stated_interval(N: int) -> None:
    certificate = certify.top_eigenvalue(N)
    with balls.working(200) as module:
        start = module.arb(N * N) / module.arb.pi() - module.arb.pi() / 6
        assert start < balls.ball(certificate.lower)
        assert balls.ball(certificate.upper) < start + module.arb("0.62") / N**2


def test_law_of_the_top_eigenvalue_for_all_n() -> None:
    certificate = certify.top_eigenvalue_law("0.5", "0.6064", 8)
    for N in (8, 13, 100, 1024):
        top = certify.top_eigenvalue(N)
        with balls.working(200) as module:
            scaled = N * N * (top.ball - module.arb(N * N) / module.arb.pi() + module.arb.pi() / 6)
            assert balls.ball(certificate.lower) < scaled < balls.ball(certificate.upper)
    limit = math.pi**3 / 90 + math.pi / 12
    assert certify.top_eigenvalue_law("0.606", "0.6064", 100).verify()
    assert 0.606 < limit < 0.6064
    for low, high in (("0.5", "0.606"), ("0.607", "0.62")):
        with pytest.raises(certify.CertificationError):
            certify.top_eigenvalue_law(low, high, 8)


def test_hippo_rho_at_64() -> None:
    condition = certify.hippo_rho_condition(64, I11)
    assert abs(condition.value - 10.60) < 5e-3
    assert certify.kappa_against_rho(condition) == "proved"
    abscissa = certify.hippo_rho_abscissa(64, I11)
    assert abs(abscissa.value + 0.697) < 5e-4
    assert Fraction(abscissa.upper) < Fraction(-1, 2)
    deviation = certify.hippo_rho_deviation(64, I11)
    # the notes' 0.0485 is a grid value; the supremum is 0.04860
    assert 0.0485 < float(deviation.lower) <= float(deviation.upper) < 1 / (2 * (11 - 1))
    assert deviation.relative_width < 2e-12


@pytest.mark.parametrize("a", ["1/10", "-1/10", ("0", "1/3"), ("-0.3", "0.2"), "0.99"])
def test_hippo_rho_deviation_respects_its_bounds(a: object) -> None:
    rho = 1 / math.hypot(*(float(x) for x in balls.exact_complex(a)))
    for N in (1, 2, 16):
        worst = certify.hippo_rho_deviation(N, a, tolerance=1e-9)
        assert float(worst.upper) <= 1 / (2 * (rho - 1))
        first = certify.hippo_rho_deviation(N, a, 0, tolerance=1e-9)
        assert float(first.upper) <= 1 / ((rho - 1) * (N + 1))


def test_kappa_exceeds_rho_beyond_a_collision_of_poles() -> None:
    # at N = 8 the first two real poles collide at rho = 116 for the positive sign
    certificate = certify.hippo_rho_condition(8, "1/120")
    assert certify.kappa_against_rho(certificate) == "refuted"
    assert certify.kappa_against_rho(certify.hippo_rho_condition(8, "-1/120")) == "proved"
    with pytest.raises(InputError, match="hippo_rho_condition"):
        certify.kappa_against_rho(certify.legs_condition(4))


@pytest.mark.parametrize("N", [8, 16, 32])
@pytest.mark.parametrize("rho", ["1.5", "11", "1000", "1e5"])
def test_kappa_is_at_most_rho_for_an_imaginary_a(N: int, rho: str) -> None:
    certificate = certify.hippo_rho_condition(N, ("0", str(1 / Fraction(rho))))
    assert certify.kappa_against_rho(certificate) == "proved"


def test_lower_bound_on_every_ptd() -> None:
    vector = certify.ptd_condition_lower_bound(128, "0.1", form="vector")
    assert 437 <= float(vector.lower) < 440
    assert 7993 <= float(certify.ptd_condition_lower_bound(1024, "0.1", form="vector").lower) < 7995
    sharper = certify.ptd_condition_lower_bound(128, "0.1")
    area = certify.ptd_condition_lower_bound_area(128, "0.1")
    assert Fraction(vector.lower) < Fraction(sharper.lower) < Fraction(area.lower)
    assert float(area.lower) > 530


# ------------------------------------------------------------------------- against independent computation


def float_gap(N: int, a: complex, omega: np.ndarray) -> np.ndarray:
    """|X_a - X| from the matrices: A_a = A_H + (1 - theta) P P^T, B_a = B (1 + theta)/2, theta = (1-a)/(1+a)."""
    A, B = legs(N)
    theta = (1 - a) / (1 + a)
    changed = A + (1 - theta) * np.outer(B, B) / 2
    eye = np.eye(N)
    return np.array(
        [
            np.linalg.norm(
                np.linalg.solve(1j * w * eye - changed, (1 + theta) / 2 * B) - np.linalg.solve(1j * w * eye - A, B)
            )
            for w in omega
        ]
    )


@pytest.mark.parametrize(("N", "a"), [(2, 1.0), (5, 1.0), (12, 1.0), (12, 0.5), (12, -0.5), (9, 0.3 - 0.4j), (1, 0.5j)])
def test_suprema_against_the_matrices(N: int, a: complex) -> None:
    if a == 1.0:
        certificate = certify.s4d_gap(N, "worst", tolerance=1e-9)
    else:
        certificate = certify.hippo_rho_deviation(N, a, tolerance=1e-9)
    omega = np.concatenate(
        [np.linspace(-3 * N, 3 * N, 1500), certificate.witness["omega"] + np.linspace(-0.1, 0.1, 21)]
    )
    values = float_gap(N, a, omega)
    # the matrices are well conditioned here: float errors stay below 1e-11
    assert values.max() <= float(certificate.upper) * (1 + 1e-11)
    assert values.max() >= float(certificate.lower) * (1 - 1e-11)


def test_fixed_outputs_against_the_worst_one() -> None:
    N = 16
    worst = Fraction(certify.s4d_gap(N, "worst").upper)
    heights = [certify.s4d_gap(N, n) for n in range(N)]
    assert all(Fraction(height.lower) <= worst for height in heights)
    # C = e_n tends to 2 sqrt(2n+1)/pi
    assert heights[1].value == pytest.approx(2 * math.sqrt(3) / math.pi, rel=5e-3)


def test_spike_frequency_is_where_phi_is_negative_real() -> None:
    for m in (0, 3, 5):
        certificate = certify.s4d_spike(12, m)
        value = complex(phi(12, np.array([1j * certificate.value]))[0])
        assert abs(value.imag) < 1e-12
        assert value.real < 0
        assert certificate.relative_width < 1e-35


def test_phase_by_log_gamma_is_the_phase_of_the_product() -> None:
    with balls.working(128) as module:
        for N in (1, 2, 7, 40):
            for omega in ("0.01", "1.5", "300"):
                w = module.arb(omega)
                psi, slope, curve = supnorm.axis_phase(N, w)
                assert psi.overlaps(2 * sum(((k / w).atan() for k in range(1, N)), module.arb(0)) + (N / w).atan())
                plain = 2 * sum((k / (w * w + k * k) for k in range(1, N)), module.arb(0)) + N / (w * w + N * N)
                assert slope.overlaps(-plain)
                squares = 2 * sum((k / (w * w + k * k) ** 2 for k in range(1, N)), module.arb(0))
                assert curve.overlaps(squares + N / (w * w + N * N) ** 2)


def test_resolvent_of_legs_lies_between_its_two_bounds() -> None:
    # the theorem behind the sharper lower bound: (|phi| - 1)/(2u) <= ||R|| <= (|phi| + 1)/(2u)
    rng = np.random.default_rng(3)
    for N in (3, 8, 16):
        A, _ = legs(N)
        size_of_a = np.linalg.norm(A, 2)
        for u, v in zip(rng.uniform(0.1, N * N / 4, 40), rng.uniform(0, N * N / 8, 40), strict=True):
            z = complex(-0.5 - u, v)
            norm = 1 / np.linalg.svd(z * np.eye(N) - A, compute_uv=False)[-1]
            size = abs(phi(N, np.array([z]))[0])
            rounding = 1e-14 * norm * (size_of_a + abs(z))  # float singular values are right to eps ||z - A||
            assert (size - 1) / (2 * u) <= norm * (1 + rounding)
            assert norm <= (size + 1) / (2 * u) * (1 + rounding)


def test_sup_norm_against_a_closed_form() -> None:
    # 1/(s^2 + 2 zeta s + 1): the peak is 1/(2 zeta sqrt(1 - zeta^2))
    zeta = 0.125
    A, B, C = [[0.0, 1.0], [-1.0, -2 * zeta]], [0.0, 1.0], [1.0, 0.0]
    certificate = certify.sup_norm(A, B, C)
    assert holds_float(certificate, 1 / (2 * zeta * math.sqrt(1 - zeta**2)))
    assert certificate.verify(300)
    # eight S4D-Lin modes
    lin = certify.sup_norm(np.diag(-0.5 + 1j * np.pi * np.arange(8)), np.ones(8), np.ones(8))
    assert abs(lin.value - 2.33207802) < 1e-8  # the reference is cut after its last digit
    # two inputs, one output; and a direct term that the response only approaches at infinity
    two = certify.sup_norm(np.diag([-1.0, -2.0]), np.diag([1.0, 4.0]), [[1.0, 1.0]])
    assert holds_float(two, math.sqrt(5))
    direct = certify.sup_norm([[-1.0]], [1.0], [-1.0], 1.0, tolerance=1e-6)
    assert Fraction(direct.lower) <= 1 <= Fraction(direct.upper)
    assert math.isinf(certify.as_hinf_norm(direct).omega)


def holds_float(certificate: certify.Certificate, value: float) -> bool:
    return Fraction(certificate.lower) <= Fraction(value * (1 + 1e-14)) and Fraction(certificate.upper) >= Fraction(
        value * (1 - 1e-14)
    )


@pytest.mark.parametrize(("N", "real"), [(1, True), (6, True), (6, False), (16, True)])
def test_ptd_deviation_against_a_grid_and_its_guarantee(N: int, real: bool) -> None:
    E = ginibre(N, 0.3, N, real=real)
    certificate = certify.ptd_deviation(E)
    A, B = legs(N)
    eye = np.eye(N)
    grid = certificate.witness["omega"] + np.linspace(-40, 40, 801)
    heights = [
        np.linalg.norm(np.linalg.solve(1j * w * eye - A - E, B) - np.linalg.solve(1j * w * eye - A, B)) for w in grid
    ]
    assert max(heights) == pytest.approx(certificate.value, rel=2e-9)
    bound = certify.ptd_guarantee(E)
    mu = np.linalg.eigvalsh((E + E.conj().T) / 2)[-1]
    assert float(bound.upper) == pytest.approx(np.linalg.norm(E, 2) / (0.5 - mu), rel=1e-12)
    assert Fraction(certificate.upper) < Fraction(bound.upper)
    one = certify.ptd_deviation(E, 0)
    assert Fraction(one.lower) <= Fraction(certificate.upper)


def test_large_perturbations_are_outside_the_theorem() -> None:
    E = ginibre(12, 8.0)
    with pytest.raises(certify.CertificationError, match="no theorem"):
        certify.ptd_guarantee(E)
    assert certify.ptd_deviation(np.zeros((3, 3))).upper == certify.ptd_guarantee(np.zeros((3, 3))).upper == "0"
    # a dissipative E of any norm is inside
    assert float(certify.ptd_guarantee(-100.0 * np.eye(3)).upper) < 1


def test_stability_three_ways() -> None:
    E = ginibre(20, 0.2, 5)
    A = legs(20)[0] + E
    exact = certify.stability(E=E)
    assert exact.value == pytest.approx(np.linalg.eigvals(A).real.max(), abs=1e-6)
    assert exact.width < 1e-18
    for method in ("lyapunov", "numerical-range"):
        bound = certify.stability(E=E, method=method)
        assert bound.lower is None
        assert Fraction(exact.upper) <= Fraction(bound.upper) < 0
    unstable = certify.stability([[0.0, 1.0], [1.0, 0.0]])
    assert Fraction(unstable.lower) > Fraction(99, 100)
    # a multiple eigenvalue is no obstacle to stability, only to eigenvectors
    jordan = [[-1.0, 1.0], [0.0, -1.0]]
    assert Fraction(certify.stability(jordan).upper) < 0
    with pytest.raises(certify.CertificationError, match="not isolated"):
        certify.condition(jordan)


def test_condition_of_a_matrix_against_floats_and_the_closed_form() -> None:
    rng = np.random.default_rng(7)
    A = rng.standard_normal((9, 9)) + 1j * rng.standard_normal((9, 9))
    V = np.linalg.eig(A)[1]
    V /= np.linalg.norm(V, axis=0)
    assert certify.condition(A).value == pytest.approx(np.linalg.cond(V), rel=1e-11)
    E = ginibre(10, 0.4, 2)
    assert certify.condition(E=E).value == pytest.approx(certify.condition(legs(10)[0] + E).value, rel=1e-9)
    # LegS in floats is another matrix than LegS: its kappa agrees to what rounding leaves
    assert certify.condition(legs(8)[0]).value == pytest.approx(certify.legs_condition(8).value, rel=1e-6)


def test_poles_of_hippo_rho_against_eigenvalues() -> None:
    a = 0.3 - 0.2j
    poles = certify.hippo_rho_poles(10, a)
    A, B = legs(10)
    theta = (1 - a) / (1 + a)
    eigenvalues = np.linalg.eigvals(A + (1 - theta) * np.outer(B, B) / 2)
    for pole in poles:
        assert np.abs(eigenvalues - complex(pole)).min() < 1e-9
        assert float(pole.real) < -0.5


# ------------------------------------------------------------------------------------ wrong claims fail


def certificates() -> list[certify.Certificate]:
    E = ginibre(5, 0.2, 1)
    return [
        certify.top_eigenvalue(16),
        certify.s4d_gap(16, 0),
        certify.s4d_gap(16, "worst"),
        certify.s4d_spike(16, 2),
        certify.hippo_rho_deviation(16, I11),
        certify.hippo_rho_deviation(16, I11, 2),
        certify.hippo_rho_condition(16, I11),
        certify.hippo_rho_abscissa(16, I11),
        certify.legs_condition(8),
        certify.condition([[-1.0, 2.0], [0.5, -3.0]]),
        certify.condition(E=E),
        certify.ptd_deviation(E),
        certify.sup_norm([[-1.0, 3.0], [-3.0, -1.0]], [1.0, 0.0], [1.0, 0.0]),
        certify.stability([[-1.0, 4.0], [0.0, -3.0]]),
        certify.stability([[-1.0, 4.0], [0.0, -3.0]], method="lyapunov"),
        certify.stability([[-1.0, 4.0], [0.0, -3.0]], method="numerical-range"),
        certify.ptd_guarantee(E),
        certify.ptd_condition_lower_bound(32, "0.1"),
        certify.ptd_condition_lower_bound_area(16, "0.1", strips=40),
        certify.top_eigenvalue_law(),
    ]


CERTIFICATES = certificates()
IDS = [f"{i}-{certificate.kind}" for i, certificate in enumerate(CERTIFICATES)]


@pytest.mark.parametrize("certificate", CERTIFICATES, ids=IDS)
def test_round_trip_and_verification(certificate: certify.Certificate) -> None:
    text = json.dumps(certificate.as_dict())
    again = certify.Certificate.from_dict(json.loads(text))
    assert again == certificate
    assert again.verify()
    assert again.verify(2 * certificate.precision_bits)
    assert not again.verify(32) or certificate.precision_bits < 200
    assert certificate.statement in str(certificate)


@pytest.mark.parametrize("certificate", CERTIFICATES, ids=IDS)
def test_bounds_moved_past_the_value_fail(certificate: certify.Certificate) -> None:
    loose = certificate.kind == "top_eigenvalue_law" or certificate.parameters.get("method") == "lyapunov"
    sign = -1 if certificate.value < 0 else 1
    if certificate.upper is not None:
        factor = "0.5" if loose and sign > 0 else "2" if loose else "0.99999" if sign > 0 else "1.00001"
        assert not nudged(certificate, "upper", factor).verify()
    if certificate.lower not in (None, "0"):
        assert not nudged(certificate, "lower", "1.00001" if sign > 0 else "0.99999").verify()


@pytest.mark.parametrize("certificate", CERTIFICATES, ids=IDS)
def test_another_parameter_fails(certificate: certify.Certificate) -> None:
    given = certificate.parameters
    if certificate.kind == "top_eigenvalue_law":
        wrong = [{"N_from": 2}]
    elif "N" in given:
        wrong = [{"N": given["N"] - 1}, {"N": -3}, {"N": "16"}]
        wrong += [{"N": given["N"] + 1}] if certificate.lower is not None and certificate.upper is not None else []
        wrong += [{"m": given["m"] + 1}] if "m" in given else []
        wrong += [{"output": 1}, {"output": 99}] if "output" in given else []
        wrong += [{"a": ["0", "1/12"]}, {"a": ["1/11", "0"]}, {"a": ["2", "0"]}] if "a" in given else []
        wrong += [{"epsilon": "1/5"}, {"epsilon": "-1"}] if "epsilon" in given else []
    else:
        key = "E" if "E" in given else "A"
        matrix = np.array(given[key])
        changed = matrix.copy()
        changed[0, 0, 0] += 1.0
        wrong = [{key: changed.tolist()}, {key: matrix[:, :-1].tolist()}]
    for change in wrong:
        assert not mutated(certificate, **change).verify(), change


def test_a_wrong_witness_fails_and_is_never_trusted() -> None:
    gap = certify.s4d_gap(16, "worst")
    assert not dataclasses.replace(gap, witness={"omega": 80.0}).verify()
    assert not dataclasses.replace(gap, witness={}).verify()
    area = certify.ptd_condition_lower_bound_area(16, "0.1", strips=20)
    first, *rest = area.witness["rectangles"]
    taller = (first[0], first[1], first[2] * 1.5)
    assert not dataclasses.replace(area, witness={**area.witness, "rectangles": (taller, *rest)}).verify()
    doubled = dataclasses.replace(area, witness={**area.witness, "rectangles": (first, first, *rest)})
    assert not doubled.verify(), "overlapping rectangles count an area twice"
    lyapunov = certify.stability([[-1.0, 4.0], [0.0, -3.0]], method="lyapunov")
    negative = [[[-x for x in entry] for entry in row] for row in lyapunov.witness["P"]]
    assert not dataclasses.replace(lyapunov, witness={"P": negative}).verify()


def test_a_changed_definition_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = certify.s4d_gap(6, 0)

    def other(N: int) -> tuple[list[list[int]], list[int]]:
        A, B = legs_integer(N)
        A[-1][0] += 1
        return A, B

    monkeypatch.setattr(definition, "integer_matrix", other)
    definition.check_definition.cache_clear()
    assert not certificate.verify()
    with pytest.raises(certify.CertificationError):
        certify.s4d_gap(6, 0)
    definition.check_definition.cache_clear()


# --------------------------------------------------------------------------------------- use and misuse


def test_as_hinf_norm() -> None:
    certificate = certify.s4d_gap(64, 0)
    norm = certify.as_hinf_norm(certificate)
    assert norm.rigorous
    assert Fraction(norm.lower) <= Fraction(certificate.lower)
    assert Fraction(norm.upper) >= Fraction(certificate.upper)
    assert norm.omega == certificate.witness["omega"]
    with pytest.raises(InputError, match="no supremum"):
        certify.as_hinf_norm(certify.legs_condition(4))


def test_few_bits_give_fewer_digits_not_a_failure() -> None:
    for certificate in (
        certify.s4d_gap(8, 0, tolerance=1e-3, precision=48),
        certify.hippo_rho_deviation(8, I11, tolerance=1e-3, precision=64),
        certify.top_eigenvalue(8, precision=40),
        certify.sup_norm([[-1.0]], [1.0], [1.0], tolerance=1e-3, precision=53),
    ):
        assert certificate.verify(192)


def test_precision_is_restored_and_used() -> None:
    before = flint.ctx.prec
    sharp = certify.top_eigenvalue(8, precision=400)
    assert sharp.relative_width < 1e-110
    assert flint.ctx.prec == before
    with pytest.raises(InputError, match="at least 32"):
        certify.top_eigenvalue(8, precision=3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: certify.s4d_gap(1), "from 2 to"),
        (lambda: certify.s4d_gap(0), "from 2 to"),
        (lambda: certify.s4d_gap(8.0), "whole number"),
        (lambda: certify.s4d_gap(8, 8), "from 0 to 7"),
        (lambda: certify.s4d_gap(8, "best"), "'worst'"),
        (lambda: certify.s4d_gap(8, tolerance=2.0), "between 0 and 1"),
        (lambda: certify.hippo_rho_deviation(8, 1.0), "rho = 1/"),
        (lambda: certify.hippo_rho_deviation(8, "x"), "no finite real number"),
        (lambda: certify.hippo_rho_deviation(8, math.nan), "no finite real number"),
        (lambda: certify.top_eigenvalue(8, 4), "from 0 to 3"),
        (lambda: certify.condition([[1.0, 2.0]]), "square"),
        (lambda: certify.condition([[math.inf]]), "not finite"),
        (lambda: certify.condition([["a"]]), "real or complex"),
        (lambda: certify.sup_norm(np.eye(2), np.eye(2), np.eye(2)), "one input or one output"),
        (lambda: certify.sup_norm(np.eye(2), [1.0], [1.0, 0.0]), "shapes"),
        (lambda: certify.stability(), "not both"),
        (lambda: certify.stability(np.eye(2), method="lyapunow"), "Did you mean 'lyapunov'"),
        (lambda: certify.ptd_condition_lower_bound(8, -1), "at least 0"),
        (lambda: certify.ptd_condition_lower_bound(8, 1, form="vektor"), "Did you mean 'vector'"),
        (lambda: certify.ptd_condition_lower_bound_area(8, 1, strips=1), "at least 4"),
        (lambda: certify.Certificate("s4d", "", {}, "0", "1", 64, ""), "one of"),
        (lambda: certify.Certificate("s4d_gap", "", {}, None, None, 64, ""), "needs a lower or an upper"),
        (lambda: certify.Certificate("s4d_gap", "", {"N": object()}, "0", "1", 64, ""), "numbers, text and lists"),
        (lambda: certify.Certificate.from_dict({"kind": "s4d_gap"}), "missing"),
        (lambda: certify.ptd_guarantee([[0.1]]).ball, "one-sided"),
    ],
)
def test_bad_input_is_named(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_a_pole_on_the_axis_has_no_supremum() -> None:
    with pytest.raises(certify.CertificationError):
        certify.sup_norm([[0.0, 1.0], [-1.0, 0.0]], [0.0, 1.0], [1.0, 0.0])


def test_decimals_are_rounded_outwards() -> None:
    rng = np.random.default_rng(11)
    for x in [*rng.standard_normal(200) * 10.0 ** rng.integers(-30, 30, 200), 1.0, -1.0, 10.0, 0.0999999, 1e-300]:
        value = Fraction(float(x))
        low, high = balls.below(value, 7), balls.above(value, 7)
        assert Fraction(low) <= value <= Fraction(high)
        assert Fraction(high) - Fraction(low) <= abs(value) * Fraction(1, 10**5)
        assert low == balls.below(Fraction(low), 7)


def test_definiteness_and_extreme_eigenvalues() -> None:
    with balls.working(128) as module:
        rng = np.random.default_rng(2)
        V = rng.standard_normal((6, 6)) + 1j * rng.standard_normal((6, 6))
        G = module.acb_mat([[module.acb(complex(x)) for x in row] for row in V])
        G = G.conjugate().transpose() * G
        assert balls.is_definite(G)
        assert not balls.is_definite(G * -1)
        largest, smallest = balls.gram_extremes(G)
        singular = np.linalg.svd(V, compute_uv=False) ** 2
        assert float(largest) == pytest.approx(singular[0], rel=1e-12)
        assert float(smallest) == pytest.approx(singular[-1], rel=1e-10)
        shifted = G - module.acb_mat([[smallest * 1.001 if i == j else 0 for j in range(6)] for i in range(6)])
        assert not balls.is_definite(shifted)


def test_polynomial_bounds() -> None:
    with balls.working(64) as module:
        bump = [module.arb(1), module.arb(0), module.arb(-1)]  # 1 - t^2
        assert balls.poly_at_most(bump, module.arb(1), module.arb(1) + module.arb("1e-12"))
        assert not balls.poly_at_most(bump, module.arb(1), module.arb("0.9999"))
        cubic = [module.arb(0), module.arb(-3), module.arb(0), module.arb(4)]  # Chebyshev: within [-1, 1]
        assert balls.poly_at_most(cubic, module.arb(1), module.arb("1.000001"))
        assert not balls.poly_at_most(cubic, module.arb(1), module.arb("0.999"))


def test_frontier_strip_is_checked_against_the_product() -> None:
    with balls.working(96):
        u, v, eta = Fraction(3), Fraction(2), Fraction(1, 10)
        z = complex(-0.5 - 3.0, 2.0)
        size = abs(phi(12, np.array([z]))[0])
        assert frontier._strip_holds(12, eta, u, u + Fraction(1, 10**6), v) == bool(6 / (size - 1) <= 0.1)
        assert not frontier._strip_holds(12, Fraction(1, 10**9), u, u + 1, v)


@pytest.mark.parametrize("output", [0, 1, 2, "worst"])
@pytest.mark.parametrize("a", ["-1/10", "1/10"])
def test_a_proposal_that_lies_on_a_grid_point_is_followed_to_its_peak(a: str, output: int | str) -> None:
    certificate = certify.hippo_rho_deviation(64, a, output)
    assert certificate.relative_width < 1.1e-12  # the default tolerance
