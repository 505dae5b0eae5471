"""The experiment on transfer functions: its numbers against exact results, dense matrices and the reference numbers."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.linalg

from ssmtheory.errors import ConfigError
from ssmtheory.experiments import _transfer_parts as parts
from ssmtheory.experiments import _transfer_systems as systems
from ssmtheory.experiments import transfer_convergence as experiment
from ssmtheory.experiments._transfer_schema import BRACKET, CERTIFIED, MEASURED
from ssmtheory.inits import hippo, ptd

SMALL = experiment.Config(
    state_dims=(8, 16),
    inits=("s4d-legs", "s4d-inv", "ptd-0.1", "hippo-rho-10"),
    steps=(0.01, 0.1),
    families=("s4d", "hippo-rho", "normal", "ginibre"),
    frontier_dims=(8, 16),
    epsilons=(0.4, 0.1),
    rhos=(2.0, 10.0),
    seeds=1,
    tightness_dims=(4,),
    samples=10,
    spikes=6,
    spectrum_dim=16,
    pseudospectrum_dim=8,
    plane=8,
    matrices=("legs", "s4d-legs", "hippo-rho-10"),
    points=20,
    dense_up_to=16,
)

#: S4D alone is certified
NOTHING = parts.Effort(0, 0, 0)


@pytest.fixture(scope="module")
def tree():
    return experiment.run(SMALL)


def group(tree, name):
    return tree.children[name].to_dataset()


# -- the dataset


def test_every_group_of_the_schema_is_there(tree) -> None:
    assert {f"/{name}" for name in tree.children} == set(experiment.SCHEMA.groups)
    for path, variables in experiment.SCHEMA.groups.items():
        data = tree.children[path.strip("/")].to_dataset()
        assert set(variables) <= set(data.variables), path


def test_a_task_depends_on_its_key_alone() -> None:
    plan = experiment.plan(SMALL)
    for key in ("system/ptd-0.1/8", "frontier/ginibre/8", "tightness/ginibre/4", "regression/ptd-0.1"):
        first, second = experiment.run_task(plan, key), experiment.run_task(experiment.plan(SMALL), key)
        for name, value in first.items():
            np.testing.assert_array_equal(value, second[name])


def test_parts_can_be_asked_for_alone() -> None:
    tree = experiment.run(experiment.Config(parts=("spikes", "spectrum"), state_dims=(8,), spectrum_dim=8))
    assert set(tree.children) == {"spikes", "spectrum"}
    assert experiment.verdict(tree)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inits": ("ptd",)}, "--inits ptd"),
        ({"inits": ("hippo-rho-sideways-10",)}, "hippo-rho-KIND-RHO"),
        ({"parts": ("gap",)}, "Did you mean 'gaps'?"),
        ({"state_dims": (4,)}, "whose last output is special"),
        ({"state_dims": (8, 8)}, "each value once"),
        ({"rhos": (1.0,)}, "must be above 1"),
        ({"steps": (0.0,)}, "must be above 0"),
        ({"spectrum_dim": 7}, "even number"),
        ({"samples": 0}, "at least 1"),
        ({"inits": ()}, "give at least one"),
    ],
)
def test_impossible_options_are_named(change, said) -> None:
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        experiment.plan(experiment.Config(**change))


# -- gaps


def test_certified_gaps_hold_the_reference_numbers(shared_oracles) -> None:
    golden = json.loads((shared_oracles / "linear_golden.json").read_text())
    for N in (8, 16, 32, 64):
        one = systems.member("s4d-legs", N)
        for output, name in ((0, "sup_e0"), (None, "sup_worst")):
            value, lower, upper, omega, evidence = parts._sup(one, output, NOTHING)
            reference = float(golden[name][str(N)][0])
            # the reference has 15 digits, the bracket a relative width of 1e-12
            assert lower * (1 - 1e-13) <= reference <= upper * (1 + 1e-13)
            assert lower <= value <= upper
            assert evidence == CERTIFIED
            assert omega == pytest.approx(float(golden[name][str(N)][1]), rel=1e-6)


def test_the_gap_at_1024_for_the_worst_unit_C() -> None:
    value, lower, upper, omega, evidence = parts._sup(systems.member("s4d-legs", 1024), None, NOTHING)
    assert (round(value, 3), round(omega, 3), evidence) == (651.896, 333771.584, CERTIFIED)
    assert upper - lower < 1e-8


def test_l2_gaps_agree_with_the_exact_formulas(tree) -> None:
    data = group(tree, "gaps")
    for label in ("s4d-legs", "hippo-rho-10"):
        row = data.sel(init=label)
        # quadrature of a rational function with every pole resolved
        np.testing.assert_allclose(row["l2_gap"], row["l2_exact"], rtol=1e-9)


def test_h2_gap_of_a_perturbation_against_lyapunov() -> None:
    N = 16
    one = systems.member("ptd-0.4", N)
    A, B = hippo.legs(N)
    E = one.perturbation
    big = np.block([[A + E, E], [np.zeros((N, N)), A]])  # d' = (A + E) d + E x: the difference of the states
    forced = np.concatenate([np.zeros(N), B])[:, None].astype(complex)
    gram = scipy.linalg.solve_continuous_lyapunov(big, -forced @ forced.conj().T)[:N, :N]
    found = parts.gaps(one, (0, 3), (10.0,), parts.Effort(0, 0, 32))
    np.testing.assert_allclose(found["h2_gap"], math.sqrt(np.trace(gram).real), rtol=1e-8)
    np.testing.assert_allclose(found["l2_gap"], np.sqrt(np.diag(gram).real[[0, 3]]), rtol=1e-8)


def test_a_perturbation_with_certificates(tree) -> None:
    row = group(tree, "gaps").sel(init="ptd-0.1", state_dim=16)
    assert bool(row["worst_rigorous"])
    assert bool(row["rigorous"].all())
    assert int(row["kappa_evidence"]) == CERTIFIED
    one = systems.member("ptd-0.1", 16)
    assert float(row["kappa"]) == pytest.approx(np.linalg.cond(one.system.C), rel=1e-9)
    assert float(row["worst_lower"]) <= ptd.deviation(16, one.perturbation, tol=1e-3).upper
    assert float(row["worst_upper"]) >= ptd.deviation(16, one.perturbation, tol=1e-3).lower


@pytest.mark.parametrize("label", ["ptd-0.4", "ptd-real-0.1", "ptd-dissipative-0.4"])
def test_a_measured_sup_lies_in_the_bracket_from_bounds(label: str) -> None:
    one = systems.member(label, 16)
    for output in (0, None):
        measured, *_, evidence = parts._sup(one, output, NOTHING)
        bracket = ptd.deviation(16, one.perturbation, tol=1e-3, output=output)
        assert evidence == MEASURED
        # the scan is a lower bound; it finds the peak to 1e-4
        assert bracket.lower * (1 - 1e-4) <= measured <= bracket.upper


def test_bounds_are_never_beaten(tree) -> None:
    data = group(tree, "gaps")
    bound = data["deviation_bound"].values
    known = np.isfinite(bound)
    assert known.sum() == 4
    assert (data["worst_sup"].values[known] <= bound[known]).all()


def test_hippo_rho_at_64() -> None:
    found = parts.gaps(systems.member("hippo-rho-imaginary-11", 64), (0,), (10.0,), parts.Effort(64, 0, 0))
    assert round(found["kappa"], 2) == 10.60
    assert found["kappa_evidence"] == CERTIFIED
    assert found["worst_evidence"] == CERTIFIED
    # over both signs of omega: the system is complex, and positive frequencies alone give 0.0485
    assert (round(found["worst_lower"], 4), round(found["worst_upper"], 4)) == (0.0486, 0.0486)
    assert found["worst_upper"] <= found["deviation_bound"] <= 1 / (2 * (11 - 1))
    assert round(found["spectral_abscissa"], 3) == -0.697


def test_brackets_without_certificates() -> None:
    found = parts._sup(systems.member("hippo-rho-10", 64), 0, parts.Effort(32, 0, 0))
    proof = parts._sup(systems.member("hippo-rho-10", 64), 0, parts.Effort(64, 0, 0))
    assert (found[4], proof[4]) == (BRACKET, CERTIFIED)
    assert found[1] <= proof[2]
    assert proof[1] <= found[2]


# -- spikes and quadrature


@pytest.mark.parametrize("N", [2, 3, 8, 33])
def test_spikes_are_where_phi_is_negative(N: int) -> None:
    found = systems.spikes(N)
    value = hippo.phi(N, 1j * found)
    assert found.size == math.ceil((N - 1.5) / 2)
    assert (np.diff(found) < 0).all()
    assert (value.real < 0).all()
    # phase error of 1e-13, relative to one
    assert np.abs(value.imag / value.real).max() < 1e-12


def test_spike_laws(tree) -> None:
    data = group(tree, "spikes").sel(state_dim=16)
    ratio = hippo.phi(16, 1j * data["position"].values[:1])
    alpha = math.atan2(16, float(data["position"][0]))
    # cos(alpha) cot(alpha/2), tan alpha = N/omega; |phi| = cos alpha
    assert abs(ratio[0]) == pytest.approx(math.cos(alpha), rel=1e-12)
    assert float(data["worst_height"][0]) == pytest.approx(math.cos(alpha) / math.tan(alpha / 2), rel=1e-10)
    np.testing.assert_allclose(data["position"][:2], data["law"][:2], rtol=0.06)
    np.testing.assert_allclose(data["height"][:2], data["height_law"][:2], rtol=0.2)


def test_quadrature_of_narrow_lorentzians() -> None:
    centres, widths = np.array([0.3, 50.0, 4e4]), np.array([0.5, 0.5, 2.0])
    nodes, weights = systems.axis_nodes(centres, widths, 1e6, both=True)
    for y, g in zip(centres, widths, strict=True):
        # (1/2 pi) integral of 2 g / (g^2 + (w - y)^2) = 1
        assert weights @ (2 * g / (g**2 + (nodes - y) ** 2)) == pytest.approx(1, rel=1e-9)


# -- weak convergence


@pytest.mark.parametrize("N", [8, 9, 64])
def test_weak_error_of_the_exponential_is_exact(N: int) -> None:
    found = parts.weak(systems.member("s4d-legs", N), (0,), 0)
    error = found["l2_error"][list(parts.SIGNALS).index("exponential"), 0]
    assert (N * error) ** 2 == pytest.approx(1 / 4 - (-1) ** N / (2 * N * (N**2 - 1)), rel=1e-9)


def test_worst_unit_C_of_the_weak_error() -> None:
    known = {8: 1.0202, 16: 1.0422, 32: 1.0501}
    for N, value in known.items():
        found = parts.weak(systems.member("s4d-legs", N), (0,), 64)
        assert round(N * found["worst_error"][list(parts.SIGNALS).index("exponential")], 4) == value


def test_scaled_errors_tend_to_their_limits() -> None:
    limits = parts.weak_limits((0, 1))["limit"]
    found = parts.weak(systems.member("s4d-legs", 1024), (0, 1), 0)["l2_error"] * 1024
    smooth = np.isfinite(limits)
    # the error of the limit is O(1/N) or better, times the bandwidth of the signal (16 pi)
    np.testing.assert_allclose(found[smooth], limits[smooth], rtol=2e-2)
    impulse = found[list(parts.SIGNALS).index("impulse"), 0] / 1024
    assert impulse == pytest.approx(0.5, abs=1e-6)


# -- discrete time


@pytest.mark.parametrize(
    ("N", "dt", "zoh", "bilinear"), [(1024, 0.1, 0.0018, 10624), (1024, 0.001, 0.0067, 106), (64, 0.1, None, 41.4977)]
)
def test_discretised_gaps_of_the_notes(N: int, dt: float, zoh: float | None, bilinear: float) -> None:
    one = systems.member("s4d-legs", N)
    found = parts.discrete(one, (dt,), 0)
    row = {method: i for i, method in enumerate(parts.METHODS)}
    if zoh is not None:
        assert round(found["sup"][row["zoh"], 0], 4) == zoh
    assert found["sup"][row["bilinear_s4"], 0] == pytest.approx(bilinear, rel=5e-3 if N == 1024 else 1e-5)
    assert found["sup"][row["bilinear"], 0] == pytest.approx(0.6366, rel=2e-3)


@pytest.mark.parametrize("label", ["s4d-legs", "ptd-0.4", "hippo-rho-10", "hippo-rho-imaginary-11"])
@pytest.mark.parametrize("method", ["zoh", "bilinear", "bilinear_s4"])
def test_discrete_gaps_against_dense_matrices(label: str, method: str) -> None:
    N, dt = 8, 0.1
    one = systems.member(label, N)
    A, B = hippo.legs(N)
    other = parts.state_matrix(label, N)
    V = one.system.C
    forced = V @ one.system.B[:, 0]
    y = one.poles.imag
    theta = np.unique(np.concatenate([np.linspace(-np.pi, np.pi, 4001), y * dt, 2 * np.arctan(y * dt / 2)]))
    z = np.exp(1j * theta)

    def response(A, B):
        if method == "zoh":
            block = scipy.linalg.expm(dt * np.block([[A, B[:, None]], [np.zeros((1, N + 1))]]))
            bar, b, c = block[:N, :N], block[:N, N], np.eye(N)
        else:
            inverse = np.linalg.inv(np.eye(N) - dt / 2 * A)
            bar, b, c = inverse @ (np.eye(N) + dt / 2 * A), dt * inverse @ B, np.eye(N)
        x = np.array([np.linalg.solve(point * np.eye(N) - bar, b) for point in z])
        if method == "bilinear":  # Tustin: C (I - dt A/2)^{-1} and D = C B-bar / 2
            return x @ inverse.T + b / 2
        return x @ c.T

    gap = response(other, forced) - response(A.astype(complex), B.astype(complex))
    found = parts.discrete(one, (dt,), 16)
    i = parts.METHODS.index(method)
    for name, reference in (("sup", np.abs(gap[:, 0]).max()), ("worst_sup", np.linalg.norm(gap, axis=1).max())):
        # the reference is a grid: it can only be too low, and 4001 points see the peaks to 1e-4
        assert reference * (1 - 1e-9) <= found[name][i, 0] <= reference * (1 + 2e-4), name


@pytest.mark.parametrize("N", [64, 256])
def test_s4_bilinear_of_hippo_rho_at_the_nyquist_frequency(N: int) -> None:
    """|a/(1+a)| dt/2 for output 0 and N times that for the worst C: what the convention leaves at z = -1."""
    dt = 0.1
    one = systems.member("hippo-rho-10", N)
    found = parts.discrete(one, (dt,), 0)
    i = parts.METHODS.index("bilinear_s4")
    limit = abs(one.factor / (1 + one.factor)) * dt / 2
    assert found["worst_sup"][i, 0] == pytest.approx(N * limit, rel=1e-4)
    assert found["sup"][i, 0] >= limit * (1 - 1e-4)
    assert found["worst_bound"][i, 0] == pytest.approx(N * dt / 2 / 9)
    known = np.isfinite(found["worst_bound"])
    assert known.sum() == 2
    assert (found["worst_sup"][known] <= found["worst_bound"][known] * (1 + 1e-9)).all()


def test_outputs_of_legs_as_few_modes() -> None:
    t = np.linspace(0, 3, 7)
    for n in (0, 1, 5):
        kernel = systems.legs_output(n).impulse_response(t)[:, 0, 0].real
        np.testing.assert_allclose(kernel, hippo.legs_kernel(n, t), atol=1e-12)


# -- frontier and bounds


def test_no_perturbation_lies_below_the_bound(tree) -> None:
    data, bound = group(tree, "frontier"), group(tree, "frontier_bound")
    for k, family in enumerate(data["family"].values):
        if family == "ginibre":
            size, epsilon = int(data["state_dim"][k]), float(data["epsilon"][k])
            row = bound.sel(state_dim=size)
            least = row["kappa_lower"].values[np.isclose(bound["epsilon"].values, epsilon)][0]
            assert float(data["kappa"][k]) >= least
    assert (bound["kappa_lower_area"].values >= 0).all()


def test_the_bound_at_128() -> None:
    found = parts.frontier_bound(128, (0.1,))
    assert found["kappa_lower"][0] >= 437


def test_hippo_rho_has_a_product_of_about_one_half(tree) -> None:
    data = group(tree, "frontier")
    mine = (data["family"].values == "hippo-rho") & (data["rho"].values == 10)
    product = (data["kappa"] * data["deviation"]).values[mine]
    assert ((product > 0.38) & (product < 0.60)).all()


@pytest.mark.parametrize("structure", parts.STRUCTURES)
def test_our_bound_holds_for_random_perturbations(structure: str) -> None:
    found = parts.tightness(structure, 8, 60, 1)
    assert (found["ratio"] <= 1 + 1e-9).all()
    assert (found["sup"] <= found["bound_ours"] * (1 + 1e-9)).all()
    assert (found["symmetric"] < 0.5).all()


def test_aligned_perturbations_use_most_of_the_bound() -> None:
    assert parts.tightness("aligned", 8, 60, 1)["ratio"].max() > 0.6


@pytest.mark.slow
def test_our_bound_holds_for_ten_thousand_perturbations() -> None:
    count = 0
    for N in (4, 8, 16):
        for structure in parts.STRUCTURES:
            found = parts.tightness(structure, N, 480, 7)
            count += found["sup"].size
            assert (found["ratio"] <= 1 + 1e-9).all(), (N, structure)
    assert count >= 10_000


# -- pseudospectra, regression, words


def test_transients_of_contractions(tree) -> None:
    data = group(tree, "pseudospectrum")
    np.testing.assert_allclose(data["kreiss_lower"], 1)
    np.testing.assert_allclose(data["numerical_abscissa"], -0.5, atol=1e-9)
    # |exp(tA)| <= exp(-t/2)
    assert (data["transient"].values <= np.exp(-data["time"].values / 2) * (1 + 1e-9)).all()


def test_resolvent_norms_against_svd(tree) -> None:
    data = group(tree, "pseudospectrum")
    A = hippo.legs(8)[0]
    z = data["real"].values[3] + 1j * data["imag"].values[5]
    least = np.linalg.svd(z * np.eye(8) - A, compute_uv=False)[-1]
    assert float(data["resolvent_norm"][0, 5, 3]) == pytest.approx(1 / least, rel=1e-8)


def test_only_s4d_reads_a_negative_amplitude_beyond_the_band(tree) -> None:
    data = group(tree, "regression")
    beyond = ~data["trained"].values
    lowest = dict(zip(data["init"].values, data["predicted"].values[:, beyond].min(axis=1), strict=True))
    assert lowest["s4d-legs"] < 0
    assert all(value > 0.9 for label, value in lowest.items() if label != "s4d-legs")
    assert (data["train_error"].values < 0.05).all()


def test_spectrum_laws(tree) -> None:
    data = group(tree, "spectrum")
    exact = data["exact"].values
    n = np.arange(8)
    np.testing.assert_allclose(np.sort(data["s4d_inv"].values), np.sort(16 / np.pi * (16 / (2 * n + 1) - 1)))
    np.testing.assert_allclose(np.sort(data["s4d_lin"].values), np.pi * n, atol=1e-12)
    # the polynomial of A_N has its roots there, and the bulk law is a few per cent off
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(hippo.normal_part(16)).imag)[8:], exact[::-1], rtol=1e-9)
    assert np.abs(data["bulk"].values / exact - 1).max() < 0.1


def test_the_verdict_leads_with_the_gap_that_stays(tree) -> None:
    lines = experiment.verdict(tree)
    assert lines[0].startswith(
        "sup over all real omega of |G_LegS - G_S4D| for C = e_0 tends to 2/pi = 0.63662, not to 0"
    )
    text = "\n".join(lines)
    for word in ("(certified)", " certified ", "measured", "proved"):
        assert word in text
    assert "BEATEN" not in text
    assert "beaten by 0 of" in text


def test_presets_fit_the_options() -> None:
    from ssmtheory import runner

    for preset in ("default", "smoke", "headline", "large"):
        config, _ = runner.parse("transfer_convergence", experiment, ["--preset", preset])
        plan = experiment.plan(config)
        assert len(set(plan.tasks)) == len(plan.tasks)
    headline, _ = runner.parse("transfer_convergence", experiment, ["--preset", "headline"])
    assert headline.state_dims[-1] == 1024
