"""One channel: blow-up times, plateaus, slow growth, followers, against mpmath and independent integration."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from scipy import integrate as scipy_integrate

from ssmtheory.dynamics import asymptotics
from ssmtheory.dynamics.asymptotics import _common, finite_time, regimes, statements
from ssmtheory.dynamics.asymptotics.exponential_sums import ExponentialSum
from ssmtheory.errors import InputError

# ------------------------------------------------------------------------------------------------ blow-up times

ORACLE = {(1.0, 1.0, 1.0): 0.282963287508, (0.5, 2.0, 0.3): 8.53822927576, (3.0, 0.1, 0.5): 0.898859455898,
          (1.0, 1.0, 0.05): 269.657836769}  # fmt: skip


@pytest.mark.parametrize("case", ORACLE, ids=str)
def test_recorded_blow_up_times(case: tuple[float, float, float]) -> None:
    # recorded to 12 digits, so half a unit of the twelfth
    assert asymptotics.blow_up_time(*case) == pytest.approx(ORACLE[case], rel=4e-12)


def by_mpmath(mu: float, s: float, x0: float, bias: float) -> float:
    with mpmath.workdps(30):
        z, b = mpmath.mpf(s * x0), mpmath.mpf(bias)
        points = [mpmath.mpf(k) / 20 for k in range(21)]
        found = mpmath.quad(lambda v: v / mpmath.log1p(mpmath.exp(z / v + b)) if v else mpmath.mpf(0), points)
        return float(found / (mpmath.mpf(mu) * mpmath.mpf(x0) ** 2))


@pytest.mark.parametrize(
    ("mu", "s", "x0", "bias"),
    [(1, 1, 1, 0), (2, -1.5, -0.2, 1.0), (0.01, 3, 0.05, -4.0), (1, 0.0, 2.0, 0.3), (5, 20, 3, 0), (1, 1, 0.4, -12.0)],
)
def test_against_mpmath(mu: float, s: float, x0: float, bias: float) -> None:
    found = finite_time.blow_up(mu, s, x0, bias)
    assert float(found.time) == pytest.approx(by_mpmath(mu, s, x0, bias), rel=1e-12)
    assert 0 < float(found.error) < 1e-11 * float(found.time)


def test_many_at_once_and_the_error_estimate() -> None:
    rng = np.random.default_rng(0)
    mu, s, x0 = 10.0 ** rng.uniform(-2, 1, (3, 512))
    found = finite_time.blow_up(mu, s, x0, rng.uniform(-6, 2, 512))
    assert found.time.shape == (512,)
    assert (found.error <= 2e-13 * found.time).all()
    alone = asymptotics.blow_up_time(float(mu[7]), float(s[7]), float(x0[7]))
    together = asymptotics.blow_up_time(mu, s, x0)
    assert together[7] == pytest.approx(alone, rel=1e-14)


def test_where_nothing_blows_up() -> None:
    time = asymptotics.blow_up_time([1.0, -1.0, 0.0, 1.0, 1.0], 1.0, [-1.0, 1.0, 1.0, 0.0, 1.0])
    assert np.isinf(time).tolist() == [True, True, True, True, False]


def test_scaling() -> None:
    # x = X/s, t = T s^2/mu leaves the equation with mu = s = 1
    assert asymptotics.blow_up_time(0.3, 7.0, 0.2, -1.0) == pytest.approx(
        asymptotics.blow_up_time(1.0, 1.0, 1.4, -1.0) * 49 / 0.3, rel=1e-13
    )


def test_bounds_hold_and_how_sharp_they_are() -> None:
    z = np.logspace(-4, 4, 400)
    for bias in (0.0, 1.5, -3.0):
        time = asymptotics.blow_up_time(1.0, z, 1.0, bias)
        low, high = asymptotics.blow_up_bounds(1.0, z, 1.0, bias)
        simple = asymptotics.blow_up_bounds(1.0, z, 1.0, bias, sharp=False)[1]
        assert (low <= time * (1 + 1e-12)).all()
        assert (time <= high * (1 + 1e-12)).all()
        assert (high <= simple * (1 + 1e-12)).all()
        if bias == 0.0:
            assert (high / time).max() < 1.179
            assert (time / low).max() < 1.282
            # the two simple bounds cross at z = (2/3) ln 2, where they are worst
            assert simple[np.argmax(simple / time)] / time[np.argmax(simple / time)] < 1.6613
            assert z[np.argmax(simple / time)] == pytest.approx(2 * math.log(2) / 3, rel=0.03)


@pytest.mark.parametrize("bad", [{"mu": float("nan")}, {"x0": float("inf")}, {"x0": [1.0, float("nan")]}, {"s": "a"}])
def test_bad_values_are_named(bad: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        asymptotics.blow_up_time(**{"mu": 1.0, "s": 1.0, "x0": 1.0, **bad})  # type: ignore[arg-type]


def test_shapes_that_do_not_broadcast() -> None:
    with pytest.raises(InputError, match="do not broadcast"):
        asymptotics.blow_up_time(np.ones(3), np.ones(2), 1.0)


def test_a_time_beyond_float64_is_refused() -> None:
    with pytest.raises(InputError, match="beyond float64"):
        asymptotics.blow_up_time(1.0, 1.0, 1e-200)


# ------------------------------------------------------------------------------------------------ kernels, classes


def test_kernel_and_its_zeros() -> None:
    kernel = regimes.Kernel((-1.0, 2.0), (0.1, 3.0))
    assert kernel.at_zero == 1.0
    assert float(kernel(math.log(2))) == pytest.approx(-(2**-0.1) + 2 * 2**-3.0, rel=1e-14)
    assert kernel.zeros() == pytest.approx([math.log(2) / 2.9], rel=1e-13)
    assert not kernel.definite
    assert regimes.Kernel.scalar(-2.0, 3.0).definite


@pytest.mark.parametrize(("weights", "rates"), [((1.0,), (0.0,)), ((1.0,), (-1.0,)), ((1.0, 2.0), (1.0,)), ((), ())])
def test_kernels_that_are_refused(weights: tuple[float, ...], rates: tuple[float, ...]) -> None:
    with pytest.raises(InputError):
        regimes.Kernel(weights, rates)


def test_classes() -> None:
    one = regimes.Kernel.scalar(1.0, 1.0)
    assert asymptotics.classify(regimes.Kernel.scalar(-1.0, 1.0), 1.0, [1.0, -1.0]).name == "convergent"
    assert asymptotics.classify(one, 1.0, [-1.0, -2.0]).name == "slow"
    assert asymptotics.classify(one, 1.0, [0.0, 0.0]).name == "rest"
    fast = asymptotics.classify(one, 1.0, [-1.0, 0.5, 2.0])
    assert (fast.name, fast.fast.tolist()) == ("fast", [False, True, True])
    assert fast.bound == asymptotics.blow_up_time(1.0, 1.0, 2.0)
    assert asymptotics.classify(regimes.Kernel((-1.0, 2.0), (0.1, 3.0)), 1.0, [1.0]).bound is None
    with pytest.raises(InputError, match="nan"):
        asymptotics.classify(one, 1.0, [float("nan")])
    with pytest.raises(InputError, match="vector of tokens"):
        asymptotics.classify(one, 1.0, [[1.0]])


# ------------------------------------------------------------------------------------------------ plateaus


def lsoda_tokens(kernel: regimes.Kernel, s: float, x0: np.ndarray, end: float) -> np.ndarray:
    """ln|x| at ln(1 + t) = end, with LSODA and the double sum written out."""
    sign = np.sign(x0)

    def rhs(tau: float, log_x: np.ndarray) -> np.ndarray:
        x = sign * np.exp(log_x)
        delta = np.log1p(np.exp(s * x))
        rate = np.zeros(len(x))
        for i in range(len(x)):
            for j in range(i + 1):
                lag = sum(delta[j + 1 : i + 1])
                rate[i] += float(kernel(lag)) * delta[j] * x[j] ** 2
        return math.exp(tau) * rate

    with np.errstate(over="ignore"):
        found = scipy_integrate.solve_ivp(rhs, (0, end), np.log(np.abs(x0)), method="LSODA", rtol=1e-10, atol=1e-12)
    assert found.status == 0
    return found.y[:, -1]


@pytest.mark.parametrize(
    ("kernel", "tolerance"),
    [
        (regimes.Kernel.scalar(-1.0, 1.0), 6e-3),  # relaxes as t^{-1/2} (ln t)^3
        (regimes.Kernel.scalar(-2.0, 3.0), 1e-3),
        (regimes.Kernel((1.0, -2.0), (0.5, 2.0)), 1e-3),
        (regimes.Kernel((-0.5, -0.5), (4.0, 1.0)), 1e-2),
    ],
)
def test_plateaus_at_t_1e8(kernel: regimes.Kernel, tolerance: float) -> None:
    log_x = lsoda_tokens(kernel, 1.0, np.array([0.7, -1.2, 0.5]), math.log(1e8))
    alpha = np.exp(2 * log_x) * 2 * abs(kernel.at_zero) * math.log(2) * 1e8
    assert alpha == pytest.approx(asymptotics.plateaus(kernel, 3).alpha, abs=tolerance)


def test_one_decay_has_one_plateau_behind_the_first_token() -> None:
    for a, bias in ((1.0, 0.0), (3.0, -4.0), (0.2, 2.0)):
        q = math.exp(-a * math.log1p(math.exp(bias)))
        alpha = asymptotics.plateaus(regimes.Kernel.scalar(-0.7, a), 6, bias=bias).alpha
        assert alpha == pytest.approx([1.0] + [1 - q] * 5, rel=1e-12)


def test_a_token_without_a_plateau_falls_faster() -> None:
    kernel = regimes.Kernel((1.0, -2.0), (3.0, 0.1))
    law = asymptotics.plateaus(kernel, 2)
    assert law.alpha[1] == 0.0
    ends = [lsoda_tokens(kernel, 1.0, np.array([0.7, -1.2]), math.log(t))[1] for t in (1e7, 1e8)]
    assert -(ends[1] - ends[0]) / math.log(10) == pytest.approx(law.exponent[1], abs=1e-3)


@pytest.mark.parametrize(("a", "s"), [(0.5, 1.0), (0.5, 0.0), (3.0, 1.0), (3.0, 0.0)])
def test_relaxation_exponent_of_the_second_token(a: float, s: float) -> None:
    kernel = regimes.Kernel.scalar(-1.0, a)
    law = asymptotics.plateaus(kernel, 2, s=s)
    gap = []
    for t in (1e5, 1e7):
        log_x = lsoda_tokens(kernel, s, np.array([0.7, 1.2]), math.log1p(t))
        gap.append(abs(math.exp(2 * log_x[1]) * 2 * math.log(2) * t - law.alpha[1]))
    # 1 - 2^{-a} where that is below 1/2, else 1/2 from Delta(x) - Delta_0, unless s = 0
    assert -math.log(gap[1] / gap[0]) / math.log(100) == pytest.approx(law.relaxation[1], abs=0.05)
    assert law.logs[1] == 0


def test_relaxation_of_many_equal_rates() -> None:
    law = asymptotics.plateaus(regimes.Kernel.scalar(-1.0, 0.5), 4)
    assert law.logs.tolist() == [0, 0, 1, 2]
    assert asymptotics.plateaus(regimes.Kernel.scalar(-1.0, 1.0), 3).logs.tolist() == [0, 1, 2]


def test_plateaus_refuse() -> None:
    with pytest.raises(InputError, match="kappa"):
        asymptotics.plateaus(regimes.Kernel.scalar(1.0, 1.0), 2)
    with pytest.raises(InputError, match="tokens"):
        asymptotics.plateaus(regimes.Kernel.scalar(-1.0, 1.0), 0)


# ------------------------------------------------------------------------------------------------ slow growth


@pytest.mark.parametrize(("mu", "s", "bias"), [(1.0, 1.0, 0.0), (2.0, 0.5, -3.0), (0.3, -2.0, 1.0)])
def test_slow_growth_against_the_exact_integral(mu: float, s: float, bias: float) -> None:
    w = 120.0

    def scaled(u: float) -> float:
        """e^{-w} times the integrand of t(w) at v = w - u."""
        v = w - u
        small = math.exp(bias - v)
        return math.exp(-u - bias) * small / math.log1p(small) / v**3

    value = scipy_integrate.quad(scaled, 0.0, w - 2.0, epsabs=0, epsrel=1e-13, limit=400)[0]
    log_t = math.log(s**2 / mu * value) + w
    assert float(regimes.slow_log_time(w, mu, s, bias)) == pytest.approx(log_t, abs=1e-12)
    assert float(asymptotics.slow_growth(log_t, mu, s, bias)) == pytest.approx(w, abs=1e-10)
    L = log_t + math.log(mu / s**2) + bias
    corrected = float(asymptotics.slow_growth(log_t, mu, s, bias, form="corrected"))
    leading = float(asymptotics.slow_growth(log_t, mu, s, bias, form="leading"))
    # the next term is of order (ln L/L)^2; the three-term law lacks (9 ln L - 3)/L
    assert abs(corrected - w) < 20 * (math.log(L) / L) ** 2
    assert w - leading == pytest.approx((9 * math.log(L) - 3) / L, rel=0.1)


def test_the_three_term_law_and_its_error() -> None:
    log_t = float(regimes.slow_log_time(1e5, 1.0, 1.0))
    implicit = log_t + 3 * math.log(1e5)
    assert implicit - 1e5 == pytest.approx(3e-5, rel=1e-3)
    explicit = float(asymptotics.slow_growth(log_t, 1.0, 1.0, form="three-term"))
    assert explicit - 1e5 == pytest.approx(-(9 * math.log(log_t) - 3) / log_t, rel=1e-3)


def test_ratios_of_equal_starts() -> None:
    # recorded in an integration with another clock and solver, four digits
    found = asymptotics.slow_ratios(1.0, 0.2, -1.0, [1.0] * 5)
    assert found == pytest.approx([1.0, 2.307, 3.996, 6.020, 8.341], abs=6e-4)


def test_ratios_are_above_one_and_need_the_slow_regime() -> None:
    found = asymptotics.slow_ratios(1.0, 1.0, 1.0, [-2.0, -0.5], rtol=1e-8)
    assert found[1] > 1.0
    with pytest.raises(InputError, match="slow regime"):
        asymptotics.slow_ratios(1.0, 1.0, 1.0, [2.0, -0.1])
    with pytest.raises(InputError, match="did not freeze"):
        asymptotics.slow_ratios(1.0, 1.0, 1.0, [-2.0, -0.1], budget=20)
    with pytest.raises(InputError, match="form"):
        asymptotics.slow_growth(100.0, 1.0, 1.0, form="exact")


# ------------------------------------------------------------------------------------------------ followers


def test_followers_by_integration() -> None:
    s, x0, kernel = 1.0, np.array([-1.0, 1.0, -0.5, 0.5, -0.3]), regimes.Kernel.scalar(1.0, 1.0)
    laws = asymptotics.followers(s, x0, 1, 1.0)
    assert [law.kind for law in laws] == ["finite", "power", "power", "log", "log"]
    marks = [20.0, 50.0, 100.0]
    path = statements.token_log_flow(x0, kernel, s, clock="growth", end=100.0, save=marks)
    assert path.status == "end"
    y = path.y
    assert abs(y[0, 2] - y[0, 0]) < 1e-6
    assert (y[2, 2] - y[2, 0]) / (y[1, 2] - y[1, 0]) == pytest.approx(1.0, abs=1e-3)
    follower = regimes.follower_growth(y[1] - y[1, 0], math.exp(y[3, 0]), 1.0, s)
    assert np.exp(y[3]) == pytest.approx(follower, rel=1e-8)
    # a slow-sign token behind it hears the same: its logarithm moves with that of the shield, ever more closely
    assert abs((y[4, 2] - y[4, 1]) / (y[3, 2] - y[3, 1]) - 1) < 0.2


def test_followers_with_a_constant_step() -> None:
    x0, kernel = np.array([1.0, 0.5, -0.3]), regimes.Kernel.scalar(1.0, 1.0)
    path = statements.token_log_flow(x0, kernel, 0.0, clock="growth", end=60.0, save=[30.0, 60.0])
    slope = (path.y[:3, 1] - path.y[:3, 0]) / 30.0
    exponents = [law.exponent for law in asymptotics.followers(0.0, x0, 0, 1.0)]
    assert slope / 2 == pytest.approx(exponents, abs=1e-6)


def test_the_blowing_token_and_a_zero_token() -> None:
    laws = asymptotics.followers(1.0, [1.0, 0.0, -0.5], 0, 1.0)
    assert [law.kind for law in laws] == ["power", "zero", "power"]
    assert laws[2].exponent == pytest.approx(0.5 / 3)  # e^{-ln 2}/3
    path = statements.token_log_flow([1.0], regimes.Kernel.scalar(2.0, 1.0), 0.5, clock="growth", end=12.0)
    x, t = np.exp(path.y[0]), path.y[1]
    remaining = asymptotics.blow_up_time(2.0, 0.5, 1.0) - t[-8]
    assert x[-8] == pytest.approx((3 * 2.0 * 0.5 * remaining) ** (-1 / 3), rel=0.05)
    with pytest.raises(InputError, match="cannot be the first"):
        asymptotics.followers(1.0, [-1.0, 1.0], 0, 1.0)
    with pytest.raises(InputError, match="index"):
        asymptotics.followers(1.0, [-1.0, 1.0], 5, 1.0)


def test_rest_points_of_a_follower() -> None:
    kernel = regimes.Kernel((2.0, -1.0), (1.0, 0.1))
    zero, point = regimes.follower_rest_points(kernel, 1.0, 1.0, -2.0)
    assert zero.rate > 0 > point.rate
    assert float(kernel(math.log1p(math.exp(point.x - 2.0)))) == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(InputError):
        regimes.follower_rest_points(regimes.Kernel.scalar(-1.0, 1.0), 1.0, 1.0)


def test_lags_are_summed_not_subtracted() -> None:
    x = np.array([1e13, 1e-3, 2e-3])
    kernel = regimes.Kernel.scalar(1.0, 1.0)
    rate = regimes.token_rates(x, kernel, 1.0, -1.0)
    delta = np.logaddexp(0.0, x - 1.0)
    exact = math.exp(-delta[1] - delta[2]) * delta[0] * x[0] ** 2
    assert rate[2] == pytest.approx(exact, rel=1e-13)


# ------------------------------------------------------------------------------------------------ exponential sums


def test_roots_of_products_of_factors() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        roots = np.sort(rng.uniform(-6, 6, 5))
        coefficients = np.poly(np.exp(0.3 * roots))[::-1]  # a polynomial in e^{0.3 s}
        found = ExponentialSum(coefficients, 0.3 * np.arange(6)).roots()
        assert found.roots == pytest.approx(roots, abs=1e-6)
        assert len(found.undecided) == 0
        assert found.bound == 5


def test_roots_against_a_dense_scan() -> None:
    rng = np.random.default_rng(2)
    for _ in range(30):
        total = ExponentialSum(rng.standard_normal(7), rng.uniform(-2, 2, 7))
        found = total.roots(-20.0, 20.0)
        grid = np.linspace(-20, 20, 40001)
        changes = grid[:-1][np.diff(np.sign(total(grid))) != 0]
        assert len(found.roots) == len(changes)
        assert found.roots == pytest.approx(changes, abs=1.1e-3)
        assert len(found.roots) <= found.bound
        assert (found.bound - len(total.roots().roots)) % 2 == 0


def test_a_double_root_is_undecided_not_guessed() -> None:
    found = ExponentialSum([1.0, -2.0, 1.0], [0.0, 1.0, 2.0]).roots()
    assert len(found.roots) == 0
    assert found.undecided.shape == (1, 2)
    assert abs(found.undecided.mean()) < 1e-6


def test_sums_without_roots_and_bad_sums() -> None:
    assert len(ExponentialSum([1.0, 2.0], [0.0, 1.0]).roots().roots) == 0
    assert len(ExponentialSum([1.0, -3.0, 3.0], [0.0, 1.0, 2.0]).roots().roots) == 0
    assert len(ExponentialSum([1.0, -1.0], [1.0, 1.0]).coefficients) == 0
    with pytest.raises(InputError, match="one length"):
        ExponentialSum([1.0], [1.0, 2.0])
    with pytest.raises(InputError, match="nan"):
        ExponentialSum([float("nan")], [1.0])


# ------------------------------------------------------------------------------------------------ integration guard


def test_an_integration_ends_at_its_budget() -> None:
    path = _common.integrate(lambda t, y: y**2, [1.0], (0.0, 2.0), budget=500)
    assert path.status in ("budget", "stuck")
    assert path.calls <= 501
    with pytest.raises(InputError, match="LSODA"):
        _common.integrate(lambda t, y: y, [1.0], (0.0, 1.0), method="LSODA")
    assert _common.integrate(lambda t, y: -y, [1.0], (0.0, 1.0)).status == "end"


def test_edges() -> None:
    # e^-tau (1 - 2 e^-tau)^2 touches zero: no sign change, and not positive throughout
    touching = regimes.Kernel((1.0, -4.0, 4.0), (1.0, 2.0, 3.0))
    assert not len(touching.zeros())
    assert not touching.definite
    assert regimes.classify(touching, 1.0, [1.0]).bound is None
    # far beyond the root the integrand overflows, which is no failure: int_{x0}^x (1 + e^u) du/u by itself
    x = float(regimes.follower_growth(1e6, 1e-8, 1.0, 1.0))
    u = np.geomspace(1e-8, x, 200_001)
    assert np.trapezoid(1.0 + np.exp(u), np.log(u)) == pytest.approx(1e6, rel=1e-6)
    with pytest.raises(InputError, match=r"positive, not -1"):
        regimes.slow_log_time(-1.0, 1.0, 1.0)
    with pytest.raises(InputError, match=r"do not broadcast: \(2,\), \(3,\)"):
        finite_time.blow_up_bounds(np.ones(2), np.ones(3), 1.0)
