"""D channels: fates by the zeros of Q, the null cone, random matrices, the sphere, and the paper's statements."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate as scipy_integrate
from scipy import linalg

from ssmtheory.dynamics import asymptotics
from ssmtheory.dynamics.asymptotics import _common, gaussian, reduction, sphere, statements
from ssmtheory.errors import InputError


def gaussian_matrix(rng: np.random.Generator, states: int, width: int) -> np.ndarray:
    S_B, S_C = rng.standard_normal((2, states, width)) / math.sqrt(width)
    return S_C.T @ S_B


def by_integration(x0: np.ndarray, M: np.ndarray, delta: np.ndarray) -> tuple[str, np.ndarray]:
    """Fate by the equation itself, in ln|x| and the clock d sigma = (|q| max Delta + 1/(1+t)) dt, up to t = 1e4."""
    sign, m = np.sign(x0), 0.5 * (M + M.T)

    def rhs(clock: float, state: np.ndarray) -> np.ndarray:
        x = sign * np.exp(np.minimum(state[:-1], 280.0))
        q = float(x @ m @ x)
        return np.append(q * delta, 1.0) / (abs(q) * delta.max() + 1.0 / (1.0 + state[-1]))

    def late(clock: float, state: np.ndarray) -> float:
        return 1e4 - state[-1]

    def far(clock: float, state: np.ndarray) -> float:
        return 60.0 - state[:-1].max()

    late.terminal, far.terminal = True, True  # type: ignore[attr-defined]
    start = np.append(np.log(np.abs(x0)), 0.0)
    path = _common.integrate(rhs, start, (0.0, 500.0), method="Radau", rtol=1e-7, atol=1e-8, events=[late, far])
    assert path.status == "event"
    x = sign * np.exp(path.y[:-1, -1])
    if path.y[:-1, -1].max() > 59:
        return "diverges", x
    # 2 |q| Delta t tends to 1 on the way to zero, and is rounding at the null cone
    return ("zero" if abs(float(x @ m @ x)) * delta.min() * 1e4 > 0.01 else "cone"), x


# ------------------------------------------------------------------------------------------------ fates


@pytest.mark.parametrize(("states", "width"), [(2, 2), (3, 3), (4, 8)])
def test_fates_are_those_of_integration(states: int, width: int) -> None:
    rng = np.random.default_rng(width)
    words = []
    for _ in range(8):
        M, delta = gaussian_matrix(rng, states, width), rng.uniform(0.2, 1.0, width)
        x0 = rng.standard_normal(width)
        found = asymptotics.fates(x0, M, delta)
        if np.isfinite(found.s) and (np.abs(found.s) * delta.max() > 8 or found.rate > -1e-2):
            continue  # a point of the cone that is not reached by t = 1e4, or far away
        word, end = by_integration(x0, M, delta)
        assert str(found.names) == word
        words.append(word)
        if word == "cone":
            assert end == pytest.approx(found.limit, rel=1e-4)
            assert found.rate < 0
    assert len(set(words)) > 1


def test_counterexamples_by_their_fates() -> None:
    ln2 = math.log(2)
    assert str(asymptotics.fates([0.5, 1.0], np.diag([1.0, -1.0]), ln2).names) == "zero"
    assert str(asymptotics.fates([1.0, 1.0], [[1.0, -10.0], [0.0, 1.0]], ln2).names) == "zero"
    up = asymptotics.fates([1.0, 1.0], [[-1.0, 10.0], [0.0, -1.0]], ln2)
    assert float(up.time) == pytest.approx(1 / (16 * ln2), rel=1e-10)
    word, _, point, path = reduction.softplus_fate([0.5, 1.0], np.diag([1.0, -1.0]), np.diag([-1.0, 1.0]))
    assert word == "cone"
    assert path.status == "event"
    assert point == pytest.approx([0.2066, 0.2066], abs=5e-5)


def test_fate_map_in_closed_form() -> None:
    rng = np.random.default_rng(4)
    for _ in range(3):
        M, delta = rng.standard_normal((2, 2)), rng.uniform(0.2, 1.0, 2)
        angles, closed = reduction.fate_angles(M, delta, count=61)
        general = asymptotics.fates(np.stack([np.cos(angles), np.sin(angles)], axis=1), M, delta, times=False)
        assert (closed.kind == general.kind).all()
        finite = np.isfinite(closed.s)
        assert closed.s[finite] == pytest.approx(general.s[finite], abs=1e-11)
        assert closed.limit[finite] == pytest.approx(general.limit[finite], rel=1e-9)


def test_blow_up_time_by_the_scalar_equation() -> None:
    rng = np.random.default_rng(8)
    seen = 0
    while seen < 4:
        M, delta, x0 = gaussian_matrix(rng, 3, 3), rng.uniform(0.2, 1.0, 3), rng.standard_normal(3)
        found = asymptotics.fates(x0, M, delta)
        if str(found.names) != "diverges":
            continue
        seen += 1
        m = 0.5 * (M + M.T)

        def rhs(clock: float, state: np.ndarray, m=m, delta=delta, x0=x0) -> np.ndarray:
            x = np.sign(x0) * np.exp(state[:-1])
            q = float(x @ m @ x)
            return np.append(delta / delta.max(), 1.0 / (q * delta.max()))

        path = scipy_integrate.solve_ivp(
            rhs, (0, 60), np.append(np.log(np.abs(x0)), 0.0), method="DOP853", rtol=1e-11, atol=1e-13
        )
        assert float(found.time) == pytest.approx(path.y[-1, -1], rel=1e-8)


def test_one_step_for_all_channels() -> None:
    rng = np.random.default_rng(6)
    M, x0 = gaussian_matrix(rng, 4, 4), rng.standard_normal(4)
    q0 = float(reduction.q_form(x0, M))
    found = asymptotics.fates(x0, M, 0.7)
    assert str(found.names) == ("diverges" if q0 > 0 else "zero")
    if q0 > 0:
        assert float(found.time) == pytest.approx(1 / (2 * q0 * 0.7), rel=1e-10)
    t = 0.3 / (2 * abs(q0) * 0.7)
    path = scipy_integrate.solve_ivp(
        lambda t, x: float(x @ M @ x) * 0.7 * x, (0, t), x0, method="DOP853", rtol=1e-12, atol=1e-14
    )
    assert np.linalg.norm(path.y[:, -1]) == pytest.approx(float(reduction.common_step_norm(x0, M, 0.7, t)), rel=1e-10)
    w = rng.standard_normal(4)
    time = reduction.common_step_blow_up_time(x0, np.eye(4), w * np.sign(w @ x0), 0.2)
    r, slope = np.linalg.norm(x0), abs(w @ x0) / np.linalg.norm(x0)
    assert time == pytest.approx(asymptotics.blow_up_time(1.0, float(slope), float(r), 0.2), rel=1e-13)


def test_null_cone_rate_is_the_jacobian_s_eigenvalue() -> None:
    rng = np.random.default_rng(9)
    M, delta = gaussian_matrix(rng, 3, 3), rng.uniform(0.2, 1, 3)
    for _ in range(50):
        found = asymptotics.fates(rng.standard_normal(3), M, delta, times=False)
        if str(found.names) == "cone":
            break
    x = found.limit
    J = np.outer(delta * x, (M + M.T) @ x)  # q vanishes there
    values = np.linalg.eigvals(J)
    assert float(found.rate) == pytest.approx(values[np.argmax(np.abs(values))].real, rel=1e-9)
    # on the cone, one common step gives rate 0
    assert float(asymptotics.null_cone_rate([1.0, 1.0], np.diag([1.0, -1.0]), 0.5)) == 0.0


def test_rates_are_bracketed_and_first_integrals_constant() -> None:
    rng = np.random.default_rng(10)
    M, delta, x = gaussian_matrix(rng, 3, 4), rng.uniform(0.2, 1, 4), rng.standard_normal(4)
    low, high = reduction.rate_bracket(x, M, delta)
    rate = float(x @ M @ x) * delta
    assert low == pytest.approx(rate.min())
    assert high == pytest.approx(rate.max())
    moved = x * np.exp(delta * 3.7)
    assert reduction.first_integrals(moved, delta) == pytest.approx(reduction.first_integrals(x, delta), abs=1e-13)
    with pytest.raises(InputError, match="logarithms"):
        reduction.first_integrals([0.0, 1.0], 1.0)


def test_one_diagonal_entry_decides_about_zero() -> None:
    rng = np.random.default_rng(12)
    delta = np.array([0.3, 0.8, 0.6])
    for _ in range(30):
        M = gaussian_matrix(rng, 3, 3)
        words = asymptotics.fates(rng.standard_normal((6, 3)), M, delta, times=False).names
        if reduction.zero_decay(M, delta).possible:
            continue
        assert not (words == "zero").any()
    law = reduction.zero_decay(-np.eye(3), delta)
    assert law.exponent == pytest.approx([0.5, 4 / 3, 1.0])
    assert law.amplitude == pytest.approx(1 / 0.6)
    with pytest.raises(InputError, match="several channels"):
        reduction.zero_decay(-np.eye(2), [1.0, 1.0])
    with pytest.raises(InputError, match="zero at"):
        reduction.zero_decay([[0.0, 1.0], [1.0, 1.0]], [0.5, 1.0])


def test_depth_to_and_its_refusals() -> None:
    total = reduction.flow_sum([0.5, 1.0], np.diag([1.0, 1.0]), 0.5)  # Q = 1.25 e^s
    assert reduction.depth_to(total, 2.0) == pytest.approx((1 - math.exp(-2.0)) / 1.25, rel=1e-11)
    assert reduction.depth_to(total, math.inf) == pytest.approx(0.8, rel=1e-11)
    with pytest.raises(InputError, match="cannot come"):
        reduction.depth_to(total, -1.0)


@pytest.mark.parametrize(
    ("x0", "M", "delta", "words"),
    [
        ([1.0, 1.0], np.eye(3), 1.0, "3 channels"),
        ([1.0, 1.0], np.ones((2, 3)), 1.0, "square"),
        ([1.0, 1.0], np.eye(2), [1.0, 0.0], "positive"),
        ([1.0, 1.0], np.eye(2), [1.0, 1.0, 1.0], "2 channels"),
        ([1.0, math.nan], np.eye(2), 1.0, "nan"),
    ],
)
def test_fates_refuse(x0: object, M: object, delta: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        asymptotics.fates(x0, M, delta)


def test_fates_at_rest_and_on_an_axis() -> None:
    found = asymptotics.fates([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]], np.diag([1.0, -1.0]), [0.5, 0.5])
    assert found.names.tolist() == ["rest", "rest", "diverges"]
    assert found.limit[2].tolist() == [math.inf, 0.0]


# ------------------------------------------------------------------------------------------------ random matrices


@pytest.mark.parametrize(("states", "width"), [(1, 6), (2, 9), (5, 40)])
def test_positive_fraction_against_draws(states: int, width: int) -> None:
    rng = np.random.default_rng(states)
    S_B, S_C = rng.standard_normal((2, states, width))
    u = rng.standard_normal((200_000, width))
    seen = float((((u @ S_B.T) * (u @ S_C.T)).sum(axis=1) > 0).mean())
    # 4 standard errors of 200,000 draws
    assert gaussian.positive_fraction(S_B, S_C) == pytest.approx(seen, abs=4 * 0.5 / math.sqrt(200_000))


def test_positive_fraction_of_one_state_is_an_arcsine() -> None:
    rng = np.random.default_rng(2)
    for _ in range(10):
        S_B, S_C = rng.standard_normal((2, 1, 5))
        rho = float(S_B[0] @ S_C[0] / np.linalg.norm(S_B) / np.linalg.norm(S_C))
        exact = 0.5 + math.asin(rho) / math.pi
        assert gaussian.positive_fraction_rank_one(S_B, S_C) == pytest.approx(exact, abs=1e-14)
        assert gaussian.positive_fraction(S_B, S_C) == pytest.approx(exact, abs=1e-9)


def test_definite_and_empty_spectra() -> None:
    assert gaussian.positive_fraction_of_spectrum([1.0, 2.0]) == 1.0
    assert gaussian.positive_fraction_of_spectrum([-1.0, 0.0]) == 0.0
    assert gaussian.positive_fraction_of_spectrum([3.0, -1.0]) == pytest.approx(2 * math.atan(math.sqrt(3)) / math.pi)
    with pytest.raises(InputError, match="zero for every u"):
        gaussian.positive_fraction_of_spectrum([0.0])
    with pytest.raises(InputError, match="one length"):
        gaussian.positive_fraction_rank_one([1.0], [1.0, 2.0])


def test_spread_over_draws_of_the_matrices() -> None:
    rng = np.random.default_rng(5)
    seen = np.std([gaussian.positive_fraction(*rng.standard_normal((2, 8, 64))) for _ in range(300)])
    # first order in 1/D, and 4 percent standard error of 300 draws
    assert seen == pytest.approx(gaussian.isotropic_spread(8, 64), rel=0.14)


def test_cone_zeros_against_draws() -> None:
    rng = np.random.default_rng(7)
    x0, delta, interval = rng.standard_normal(6), rng.uniform(0.2, 1.0, 6), (-3.0, 3.0)
    for states in (1, 4):
        counts = []
        for _ in range(300):
            S_B, S_C = rng.standard_normal((2, states, 6))
            counts.append(len(reduction.flow_sum(x0, S_C.T @ S_B, delta).roots(*interval).roots))
        expected = gaussian.expected_cone_zeros(x0, delta, states, interval)
        assert np.mean(counts) == pytest.approx(expected, abs=4 * np.std(counts) / math.sqrt(300))


def test_cone_constants() -> None:
    assert gaussian.cone_constant(1) == pytest.approx(2 / math.pi)
    assert gaussian.cone_constant(4) == pytest.approx(0.469, abs=5e-4)
    assert gaussian.cone_constant(2000) == pytest.approx(math.sqrt(2) / math.pi, rel=1e-3)
    with pytest.raises(InputError):
        gaussian.cone_constant(0)


# ------------------------------------------------------------------------------------------------ the sphere


def test_linear_maps_have_their_eigenvectors() -> None:
    rng = np.random.default_rng(3)
    S = rng.standard_normal((3, 3))
    S = S + S.T
    found = sphere.eigenvectors(lambda u: S @ u, 3, starts=60)
    values = np.linalg.eigvalsh(S)
    assert {round(each.growth, 8) for each in found} == {round(float(v), 8) for v in values}
    top = found[0]
    assert top.growth == pytest.approx(values[-1])
    assert top.abscissa == pytest.approx(values[-2], abs=1e-7)
    assert top.stable
    assert not found[-1].stable


def test_contraction_is_a_power_of_the_norm() -> None:
    # F(u) = q(u) W u with q > 0: the top eigenvector attracts as rho^{-(1 - mu/lambda)}
    W = np.diag([1.0, 0.6])
    M = np.diag([1.0, 2.0])

    def F(u: np.ndarray) -> np.ndarray:
        return float(u @ M @ u) * (W @ u)

    star = next(each for each in sphere.eigenvectors(F, 2) if abs(each.direction[0]) > 0.99)
    assert star.exponent == pytest.approx(0.4, abs=1e-6)

    def rhs(tau: float, r: np.ndarray) -> np.ndarray:
        return math.exp(tau) * F(r / np.linalg.norm(r))

    path = scipy_integrate.solve_ivp(rhs, (0, 16), [1.0, 0.5], method="Radau", rtol=1e-10, atol=1e-12, t_eval=[12, 16])
    rho = np.linalg.norm(path.y, axis=0)
    angle = path.y[1] / rho
    slope = -np.log(angle[1] / angle[0]) / np.log(rho[1] / rho[0])
    assert slope == pytest.approx(star.exponent, abs=1e-3)
    assert rho[1] - rho[0] == pytest.approx(star.growth * (math.exp(16) - math.exp(12)), rel=1e-2)


def test_collapse() -> None:
    found = sphere.eigenvectors(lambda u: -2.0 * u, 3, starts=1)
    assert found[0].collapse_depth(3.0) == pytest.approx(1.5)
    assert math.isnan(found[0].exponent)
    with pytest.raises(InputError):
        sphere.eigenvectors(lambda u: u, 1)


def test_linear_value_path() -> None:
    rng = np.random.default_rng(21)
    words = set()
    for _ in range(12):
        W = rng.standard_normal((3, 3))
        W = W + W.T
        M, r0 = rng.standard_normal((3, 3)), rng.standard_normal(3)
        word, direction = sphere.linear_value_fate(r0, M, W)
        words.add(word)
        total, _, _ = sphere.linear_value_sum(r0, M, W)
        for s in (-0.4, 0.3):
            r = linalg.expm(s * W) @ r0
            assert float(total(s)) == pytest.approx(float(r @ M @ r), rel=1e-9, abs=1e-9)

        # integrate on the sphere: u_s = q(u) (W u - (u.W u) u)
        def rhs(s: float, u: np.ndarray, M=M, W=W) -> np.ndarray:
            v = float(u @ M @ u) * (W @ u)
            return v - (u @ v) * u

        start = r0 / np.linalg.norm(r0)
        path = _common.integrate(rhs, start, (0.0, 3000.0), method="Radau", rtol=1e-8, atol=1e-10, budget=20_000)
        end = path.y[:, -1] / np.linalg.norm(path.y[:, -1])
        if word != "cone" or abs(float(end @ M @ end)) < 1e-6:
            assert end == pytest.approx(direction, abs=2e-3)
    assert "cone" in words
    with pytest.raises(InputError, match="symmetric"):
        sphere.linear_value_sum([1.0, 0.0], np.eye(2), [[0.0, 1.0], [0.0, 0.0]])


def test_rates_of_clustering() -> None:
    k = 0.4
    rates = sphere.clustering_rates(k, 5)
    assert rates[0] == pytest.approx(k / (1 + k))
    assert rates[0] == pytest.approx(sphere.first_token_exponent(1.0, k))
    assert rates.min() == rates[0]
    assert math.isnan(sphere.first_token_exponent(1.0, -2.0))
    with pytest.raises(InputError):
        sphere.clustering_rates(1.2, 3)


def test_coherent_share_of_one_layer() -> None:
    rng = np.random.default_rng(0)
    r, step = rng.standard_normal(5), rng.standard_normal(5)
    g, e = r @ step / (r @ r), np.linalg.norm(step) / np.linalg.norm(r)
    growth = np.linalg.norm(r + step) ** 2 / (r @ r) - 1
    assert float(sphere.coherent_share(g, e)) == pytest.approx(2 * g / growth, rel=1e-12)


# ------------------------------------------------------------------------------------------------ statements


@pytest.mark.parametrize("key", statements.STATEMENTS)
def test_every_statement_is_as_its_status_says(key: str) -> None:
    report = statements.statement(key).check()
    assert report.holds, (report.detail, dict(report.numbers))
    assert report.calls <= 40_000


def test_statements_are_consistent() -> None:
    with pytest.raises(InputError, match="Did you mean"):
        statements.statement("fig-6-d")
    with pytest.raises(InputError, match="belongs to a refutation"):
        statements.Statement("x", "x", "x", "x", "proved", counterexample=lambda: statements.Report(True, {}, ""))
    with pytest.raises(InputError, match="needs a counterexample"):
        statements.Statement("x", "x", "x", "x", "proved")


def test_depth_flow_refuses() -> None:
    eye = np.eye(2)
    with pytest.raises(InputError, match="negative"):
        statements.depth_flow([[1.0, 1.0]], eye, eye, eye, A=0.0)
    with pytest.raises(InputError, match="token, channel"):
        statements.depth_flow([1.0, 1.0], eye, eye, eye)
    with pytest.raises(InputError, match="S_B and S_C"):
        statements.depth_flow([[1.0, 1.0]], np.ones((2, 3)), eye, eye)
    with pytest.raises(InputError, match="nan"):
        statements.depth_flow([[math.nan, 1.0]], eye, eye, eye)
    assert statements.depth_flow([[1.0, 1.0]], -eye, eye, eye, budget=30).status == "budget"
