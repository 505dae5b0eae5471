"""The depth equation against its definition, quadrature, exact solutions and itself in other coordinates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad

from ssmtheory.dynamics import token_ode
from ssmtheory.dynamics.token_ode import TokenODE, cone_hold, depth_map, integrate, slow_divergence
from ssmtheory.errors import InputError

LN2 = math.log(2.0)
ORACLES = {
    (1.0, 1.0, 1.0): 0.282963287508,
    (0.5, 2.0, 0.3): 8.53822927576,
    (3.0, 0.1, 0.5): 0.898859455898,
    (1.0, 1.0, 0.05): 269.657836769,
}
# notes' numbers have 12 digits: half a unit in the last one is up to 5e-12 relative
ORACLE_RTOL = 1e-11


def softplus(v):
    return np.logaddexp(0.0, v)


def blow_up_quadrature(mu, s, x0, bias=0.0):
    """T* as the integral over v = x0 / u, whose integrand is smooth and bounded."""
    value, _ = quad(lambda v: v / (mu * x0**2 * softplus(s * x0 / v + bias)), 0, 1, epsabs=0, epsrel=1e-13, limit=200)
    return value


def rate_by_pairs(ode, x, *, unit=False, rms=()):
    """dx/dt from the definition of P, by loops."""
    L = len(x)
    n = x / np.linalg.norm(x, axis=1, keepdims=True) if unit else x
    B, C = n @ ode.S_B.T, n @ ode.S_C.T
    if "B" in rms:
        B = B / np.sqrt((B**2).mean(axis=1, keepdims=True))
    if "C" in rms:
        C = C / np.sqrt((C**2).mean(axis=1, keepdims=True))
    S = ode.S_delta[0] @ ode.S_delta[1] if isinstance(ode.S_delta, tuple) else ode.S_delta
    delta = np.broadcast_to(softplus(n @ S.T + ode.bias), n.shape)
    A = np.broadcast_to(ode.A, (x.shape[1], len(ode.S_B)))
    out = np.zeros_like(x)
    for i in range(L):
        for j in range(i + 1):
            decay = np.exp(A * delta[j + 1 : i + 1].sum(axis=0)[:, None])
            out[i] += (decay @ (C[i] * B[j])) * delta[j] * n[j]
    return out


def random_layer(rng, D, N, A, **options):
    return TokenODE(rng.normal(size=(N, D)), rng.normal(size=(N, D)), rng.normal(size=(D, D)), A, **options)


# ---------------------------------------------------------------------- right-hand side
@pytest.mark.parametrize(("D", "N", "L"), [(1, 1, 5), (3, 4, 6), (5, 2, 33)])
@pytest.mark.parametrize("kind", ["scalar", "state", "channel"])
def test_one_scan_is_the_sum_over_pairs(D, N, L, kind):
    rng = np.random.default_rng(D + L)
    A = {"scalar": -0.7, "state": -rng.uniform(0.1, 2, N), "channel": -rng.uniform(0.1, 2, (D, N))}[kind]
    ode = random_layer(rng, D, N, A, bias=rng.normal(size=D))
    x = rng.normal(size=(L, D))
    want = rate_by_pairs(ode, x)
    assert np.abs(ode.rate(x) - want).max() <= 4e-14 * np.abs(want).max()
    P = ode.pair_weights(x)
    assert np.abs(np.einsum("dlj,jd->ld", P, x) - want).max() <= 4e-14 * np.abs(want).max()
    assert not np.triu(P, 1).any()


def test_options_against_the_definition():
    rng = np.random.default_rng(4)
    D, N, L = 4, 3, 7
    x = rng.normal(size=(L, D))
    low = (rng.normal(size=(D, 2)), rng.normal(size=(2, D)))
    base = {"S_B": rng.normal(size=(N, D)), "S_C": rng.normal(size=(N, D)), "A": -rng.uniform(0.2, 2, (D, N))}

    def close(ode, want):
        assert np.abs(ode.rate(x) - want).max() <= 4e-14 * np.abs(want).max()

    ode = TokenODE(**base, S_delta=low, bias=0.3)
    close(ode, rate_by_pairs(ode, x))
    ode = TokenODE(**base, S_delta=rng.normal(size=(1, D)), bias=-1.0)
    close(ode, rate_by_pairs(ode, x))
    ode = TokenODE(**base, S_delta=low, prenorm="unit", norm_B=True, norm_C=True)
    close(ode, rate_by_pairs(ode, x, unit=True, rms=("B", "C")))
    # gate, skip, value path and output matrix around the plain scan of u
    inner, out, gate = rng.normal(size=(D, 2)), rng.normal(size=(2, D)), rng.normal(size=(D, 2))
    skip = rng.normal(size=D)
    full = TokenODE(**base, S_delta=low, inner=inner, activation="silu", out=out, gate=gate, skip=skip, prenorm="rms")
    y = rng.normal(size=(L, 2))
    n = y / np.sqrt((y**2).mean(axis=1, keepdims=True))
    pre, z = n @ inner.T, n @ gate.T
    u = pre / (1 + np.exp(-pre))
    scan = rate_by_pairs(TokenODE(**base, S_delta=low), u)
    want = ((scan + skip * u) * z / (1 + np.exp(-z))) @ out.T
    assert full.width == 2
    assert np.abs(full.rate(y) - want).max() <= 4e-14 * np.abs(want).max()
    # a normalised Delta input forgets the scale of the tokens
    ode = TokenODE(**base, S_delta=low, norm_delta=True)
    assert np.allclose(ode.log_delta(x[None]), ode.log_delta(1e3 * x[None]), rtol=1e-13)


def test_the_rate_keeps_its_digits_where_delta_or_the_tokens_leave_float64():
    # Delta ~ e^-2000 underflows; ratios of rates must not: x_l' = mu x_l (x_1^2 Delta_1 + ...)
    ode = TokenODE.scalar(1.0, -1.0)
    F, log_F = ode.scaled_rate(np.array([[[2000.0], [2100.0], [3000.0]]]), np.zeros(1))
    first = 3 * math.log(2000.0) - 2000.0
    assert math.log(F[0, 0, 0]) + log_F[0] == pytest.approx(first, rel=1e-14)
    assert F[0, :, 0] / F[0, 0, 0] == pytest.approx([1.0, 1.05, 1.5], rel=1e-14)
    # tokens of size e^600: x^4 is far beyond the range
    F, log_F = TokenODE.scalar(1.0, 1.0).scaled_rate(np.ones((1, 1, 1)), np.array([600.0]))
    assert math.log(F[0, 0, 0]) + log_F[0] == pytest.approx(2400.0, rel=1e-14)
    assert token_ode.log_softplus(np.array([-1e5, -30.0, 0.0, 40.0])) == pytest.approx(
        [-1e5, -30.0 - math.exp(-30) / 2, math.log(LN2), math.log(40.0)], rel=1e-15
    )


# ---------------------------------------------------------------------- blow-up
@pytest.mark.parametrize(("mu", "s", "x0"), list(ORACLES))
def test_blow_up_times(mu, s, x0):
    found = integrate(TokenODE.scalar(mu, s), [[x0]], 1e4)
    assert found.status == "blew_up"
    assert found.fate == "blow_up"
    assert found.blow_up_time == pytest.approx(ORACLES[mu, s, x0], rel=ORACLE_RTOL)
    assert found.blow_up_time == pytest.approx(blow_up_quadrature(mu, s, x0), rel=3e-12)
    assert found.residual < 1e-11
    assert found.calls < 1000
    assert "before the end" in found.message


def test_the_end_before_and_beyond_the_blow_up():
    ode = TokenODE.scalar(1.0, 1.0)
    before = integrate(ode, [[1.0]], 0.28)
    assert before.status == "finished"
    assert before.t[-1] == pytest.approx(0.28, rel=1e-14)
    # what is left from there is the blow-up time of the state reached
    assert blow_up_quadrature(1.0, 1.0, before.x[-1, 0, 0]) == pytest.approx(ORACLES[1.0, 1.0, 1.0] - 0.28, rel=1e-8)
    times = np.array([0.0, 0.1, 0.2829, 0.29, 1.0])
    beyond = integrate(ode, [[1.0]], 1.0, times=times)
    assert beyond.status == "blew_up"
    assert np.isfinite(beyond.x[:3]).all()
    assert np.isnan(beyond.x[3:]).all()
    assert beyond.x[0, 0, 0] == 1.0
    for t, x in zip(times[1:3], beyond.x[1:3, 0, 0], strict=True):
        assert blow_up_quadrature(1.0, 1.0, x) == pytest.approx(ORACLES[1.0, 1.0, 1.0] - t, rel=1e-8)


def _many(count=512):
    rng = np.random.default_rng(2)
    return np.exp(rng.uniform(math.log(0.05), math.log(5.0), count))


def test_512_blow_ups_at_once():
    x0 = _many()
    found = integrate(TokenODE.scalar(1.0, 1.0), x0[:, None, None], 1e4)
    want = np.array([blow_up_quadrature(1.0, 1.0, x) for x in x0])
    off = np.abs(found.blow_up_time - want)
    assert set(found.status) == {"blew_up"}
    assert (off / want).max() < 1e-11
    # the error that is claimed covers the error that is made
    assert (off <= found.blow_up_error).all()
    assert found.calls.max() < 1000
    assert len(found[:3]) == 3


def test_diffrax_is_the_same_clock():
    pytest.importorskip("diffrax")
    ode = TokenODE.scalar(1.0, 1.0)
    x0 = _many()[:, None, None]
    want = integrate(ode, x0, 1e4, residual=False)
    found = integrate(ode, x0, 1e4, backend="diffrax")
    assert set(found.status) == {"blew_up"}
    assert np.abs(found.blow_up_time / want.blow_up_time - 1).max() < 1e-10


@pytest.mark.slow  # four compilations
def test_diffrax_at_other_ends():
    pytest.importorskip("diffrax")
    # an end in time, an equilibrium, a budget
    signed = TokenODE.from_matrix(np.diag([1.0, -1.0]), np.diag([-1.0, 1.0]))
    there = integrate(signed, [[[0.5, 1.0]]], 1e8, backend="diffrax")
    assert there[0].status == "converged"
    assert there[0].x[-1] == pytest.approx(integrate(signed, [[0.5, 1.0]], 1e8).x[-1], rel=1e-9)
    shrinking = TokenODE.scalar(-1.0, 1.0)
    rows = np.array([[[0.5], [-1.0]], [[0.3], [0.8]]])
    assert integrate(shrinking, rows, 1e6, backend="diffrax")[1].x[-1] == pytest.approx(
        integrate(shrinking, rows, 1e6)[1].x[-1], rel=1e-9
    )
    assert integrate(shrinking, rows, 1e6, backend="diffrax", budget=60)[0].status == "budget"


def test_followers():
    # x' exponents at the blow-up of token 1: a slow-sign follower goes along, a fast-sign one only as ln ln
    found = integrate(TokenODE.scalar(1.0, 1.0), [[1.0], [-0.5]], 1e4)
    ends = found.log_abs[-3:, :, 0]
    assert (ends[-1, 1] - ends[0, 1]) / (ends[-1, 0] - ends[0, 0]) == pytest.approx(1.0, abs=1e-6)
    found = integrate(TokenODE.scalar(1.0, 1.0), [[1.0], [0.5]], 1e4)
    assert found.log_abs[-1, 0, 0] > 10
    assert found.log_abs[-1, 1, 0] < 3
    # tokens before the one that blows up stay finite
    found = integrate(TokenODE.scalar(1.0, 1.0), [[-1.0], [1.0]], 1e4)
    assert found.status == "blew_up"
    assert abs(found.x[-1, 0, 0]) < 10


def test_kappa_of_a_diagonal_A_splits_the_fates():
    # kappa(0) = 1 > 0 and kappa(ln 2) < 0: token 2 tends to 0 as (T* - t)^{|kappa| / (3 kappa(0))}
    kappa = [-math.exp(-a * LN2) * (1 if a < 1 else -2) for a in (0.1, 3.0)]
    exponent = abs(sum(kappa)) / 3
    assert exponent == pytest.approx(0.2277, abs=5e-5)
    ode = TokenODE(S_B=[[1.0], [1.0]], S_C=[[-1.0], [2.0]], S_delta=[[1.0]], A=[-0.1, -3.0])
    found = integrate(ode, [[1.0], [-1.0]], 1e4)
    assert found.status == "blew_up"
    first, second = (found.log_abs[-4:, k, 0] for k in (0, 1))
    # ln|x_1| = -1/3 ln(T* - t) + const
    assert -(second[-1] - second[0]) / (first[-1] - first[0]) / -3 == pytest.approx(-exponent, rel=5e-3)
    small = TokenODE(S_B=[[1.0], [1.0]], S_C=[[1.0], [-2.0]], S_delta=[[1.0]], A=[-0.1, -3.0])
    slow = integrate(small, [[0.5], [-0.5]], 1e8)
    alpha = slow.x[-1, :, 0] ** 2 * 2 * LN2 * 1e8
    assert alpha[1] == pytest.approx(1.6830, abs=2e-3)


# ---------------------------------------------------------------------- convergence and slow divergence
@pytest.mark.parametrize(("mu", "a", "later"), [(-1.0, 1.0, 0.5), (-2.0, 3.0, 0.875)])
def test_plateaus(mu, a, later):
    found = integrate(TokenODE.scalar(mu, 1.0, a), np.array([0.5, 0.5, 0.6, 0.5, 0.6])[:, None], 1e8)
    alpha = found.x[-1, :, 0] ** 2 * 2 * abs(mu) * LN2 * 1e8
    # the relaxation t^-alpha_l leaves up to 3e-3 at 1e8 for alpha = 1/2, and 1e-4 for 0.875
    assert alpha[0] == pytest.approx(1.0, abs=5e-4)
    assert alpha[1:] == pytest.approx(np.full(4, later), abs=4e-3 if a == 1 else 5e-4)
    assert found.growth == pytest.approx(np.full(5, -0.5), abs=2e-3)
    assert found.fate == "zero"
    assert found.residual < 1e-10
    assert found.calls < 2000


def test_constant_delta_has_a_closed_form():
    # S_Delta = 0: |x|^2 = x0^2 / (1 - 2 q Delta0 t), either sign of q
    times = np.geomspace(1e-3, 1e8, 12)
    found = integrate(TokenODE.scalar(-2.0, 0.0), [[0.7]], 1e8, times=times)
    want = 0.7 / np.sqrt(1 + 2 * 2.0 * 0.49 * LN2 * times)
    assert found.x[:, 0, 0] == pytest.approx(want, rel=1e-10)
    up = integrate(TokenODE.scalar(2.0, 0.0), [[0.7]], 1e8)
    assert up.blow_up_time == pytest.approx(1 / (2 * 2.0 * 0.49 * LN2), rel=1e-11)


def test_slow_divergence_on_its_own_clock():
    found = slow_divergence(TokenODE.scalar(1.0, -1.0), np.array([0.5, 0.6, 1.3, 0.2, 0.6])[:, None], 1e5)
    assert found.status == "finished"
    assert found.w[-1] == pytest.approx(1e5, rel=1e-12)
    far = found.w > 1e3
    for token in range(5):
        x = found.w[far] * found.ratio[far, token]
        assert np.polyfit(np.log(found.log_t[far]), np.log(x), 1)[0] == pytest.approx(0.9965, abs=4e-4)
    # w = ln t + 3 ln w + ln(mu / s^2) - 3 / w + O(1 / w^2)
    assert found.w[-1] - (found.log_t[-1] + 3 * math.log(found.w[-1])) == pytest.approx(-3e-5, rel=2e-2)
    # ratios are frozen from w ~ 100 on, and at least one
    late = found.ratio[found.w > 300]
    assert np.abs(late / late[-1] - 1).max() < 1e-6
    assert (late[-1] >= 1).all()
    equal = slow_divergence(TokenODE.scalar(1.0, -1.0, 0.2), np.ones((5, 1)), 1e5)
    assert equal.ratio[-1] == pytest.approx([1, 2.307, 3.996, 6.020, 8.341], abs=1e-3)


def test_slow_divergence_by_the_general_integrator():
    ode, x0 = TokenODE.scalar(1.0, -1.0), np.array([0.5, 0.6, 1.3])[:, None]
    there = slow_divergence(ode, x0, 110.0, points=400)
    found = integrate(ode, x0, log_t_end=90.0)
    assert found.status == "finished"
    assert found.fate == "slow"
    w = np.interp(90.0, there.log_t, there.w)
    assert abs(found.x[-1, 0, 0]) == pytest.approx(w, rel=1e-4)
    assert found.x[-1, :, 0] / found.x[-1, 0, 0] == pytest.approx(there.ratio[-1], rel=1e-6)
    assert slow_divergence(ode, x0, 1e5, budget=100).status == "budget"


# ---------------------------------------------------------------------- several dimensions
@pytest.mark.parametrize(
    ("M", "S", "x0", "fate", "end"),
    [
        ([[1, 0], [0, -1]], np.zeros((2, 2)), (0.5, 1.0), "zero", None),
        ([[1, 0], [0, -1]], np.diag([-1.0, 1.0]), (0.5, 1.0), "point", (0.2066, 0.2066)),
        ([[-1, 10], [0, -1]], np.zeros((2, 2)), (1.0, 1.0), "blow_up", None),
        ([[1, -10], [0, 1]], np.zeros((2, 2)), (1.0, 1.0), "zero", None),
    ],
)
def test_counterexamples_in_two_dimensions(M, S, x0, fate, end):
    found = integrate(TokenODE.from_matrix(M, S), [x0], 1e8)
    assert found.fate == fate
    if end is not None:
        assert found.x[-1, 0] == pytest.approx(end, abs=5e-5)
        assert found.x[-1, 0, 0] == pytest.approx(found.x[-1, 0, 1], rel=1e-9)
    if fate == "blow_up":
        # q(1, 1) = 8 and Delta = ln 2 is constant
        assert found.blow_up_time == pytest.approx(1 / (2 * 8 * LN2), rel=1e-11)


def test_constant_channel_steps_end_on_the_root_of_Q():
    # x(s) = x0 e^{Delta s} and s' = Q(s): the limit is the first zero of Q
    M, delta, x0 = np.diag([-1.0, 1.0]), np.array([0.4, 1.1]), np.array([0.9, 0.5])
    bias = np.log(np.expm1(delta))
    root = math.log(x0[0] ** 2 / x0[1] ** 2) / (2 * (delta[1] - delta[0]))
    found = integrate(TokenODE.from_matrix(M, np.zeros((2, 2)), bias=bias), [x0], 1e8)
    # q0 < 0: s decreases, where x_1 grows against x_2 and q stays negative; M_11 < 0 for the slower channel: to zero
    assert found.fate == "zero"
    assert root > 0
    found = integrate(TokenODE.from_matrix(-M, np.zeros((2, 2)), bias=bias), [x0], 1e8)
    assert found.fate == "point"
    assert found.x[-1, 0] == pytest.approx(x0 * np.exp(delta * root), rel=1e-9)


def test_signed_coordinates_agree_with_logarithms():
    # the same one-dimensional flow, once alone and once as the first channel of two that do not interact
    one = integrate(TokenODE.scalar(1.0, 1.0), [[1.0], [-0.5]], 1e4)
    assert "ln|x|" in one.coordinates
    M = np.diag([1.0, 0.0])
    two = integrate(TokenODE.from_matrix(M, [[1.0, 0.0], [0.0, 0.0]]), [[1.0, 0.0], [-0.5, 0.0]], 1e4)
    assert "own scale" in two.coordinates
    assert two.blow_up_time == pytest.approx(one.blow_up_time, rel=1e-10)


def test_several_tokens_change_sign_in_two_dimensions():
    rng = np.random.default_rng(1)
    ode = random_layer(rng, 2, 2, -1.0)
    x0 = rng.normal(size=(8, 3, 2))
    found = integrate(ode, x0, 0.2, rtol=1e-11)
    raw = [integrate(ode, x, 0.2, method="raw", solver="DOP853", rtol=1e-11) for x in x0]
    seen = 0
    for a, b in zip(found, raw, strict=True):
        if a.status == "finished" and b.status == "finished":
            assert a.x[-1] == pytest.approx(b.x[-1], rel=1e-7, abs=1e-9)
            seen += 1
    assert seen >= 4


def test_prenorm_linear_growth_and_collapse():
    # D = 1, unit norm: x' = mu softplus(s), so x grows linearly or reaches 0 at a finite depth
    up = integrate(TokenODE(S_B=[[1.0]], S_C=[[1.0]], S_delta=[[0.0]], A=-1.0, prenorm="unit"), [[0.5]], 1e6)
    assert up.status == "finished"
    assert up.x[-1, 0, 0] == pytest.approx(0.5 + 1e6 * LN2, rel=1e-10)
    down = integrate(TokenODE(S_B=[[1.0]], S_C=[[-1.0]], S_delta=[[0.0]], A=-1.0, prenorm="unit"), [[0.5]], 1e6)
    assert down.status == "reached_zero"
    assert down.blow_up_time == pytest.approx(0.5 / LN2, rel=1e-11)


def test_far_field_growth_degrees():
    # d ln G / d ln|x| + 1 gives (T* - t)^{-1/3}, (T* - t)^{-1}, e^t for plain, normalised B and C, and normalised all
    plain = integrate(TokenODE.scalar(1.0, 1.0), [[1.0]], 1e4)
    normed = integrate(TokenODE([[1.0]], [[1.0]], [[1.0]], -1.0, norm_B=True, norm_C=True), [[1.0]], 1e4)
    for found, degree in ((plain, 3), (normed, 1)):
        assert found.status == "blew_up"
        rest = found.blow_up_time - found.t
        use = (rest > 1e-7 * found.blow_up_time) & (rest < 1e-2 * found.blow_up_time)
        slope = np.polyfit(np.log(rest[use]), found.log_abs[use, 0, 0], 1)[0]
        assert slope == pytest.approx(-1 / degree, abs=0.02)
    every = integrate(TokenODE([[1.0]], [[1.0]], [[1.0]], -1.0, norm_B=True, norm_C=True, norm_delta=True), [[1.0]], 50)
    assert every.status == "finished"
    assert every.log_abs[-1, 0, 0] == pytest.approx(50 * softplus(1.0), rel=1e-9)


# ---------------------------------------------------------------------- discrete depth
def test_unit_steps_change_signs_where_the_flow_cannot():
    jump = depth_map(TokenODE.scalar(-1.0, 1.0), [[2.0]], steps=3)
    # |mu| x^2 Delta h = 4 softplus(2) = 8.5 > 2
    assert jump.x[1, 0, 0] == pytest.approx(2 - 8 * softplus(2.0), rel=1e-14)
    assert jump.x[1, 0, 0] == pytest.approx(-15, abs=0.1)
    assert jump.flips.tolist() == [1, 0, 0]
    # and there Delta ~ e^-15: it sticks
    assert jump.log_delta[1, 0, 0] == pytest.approx(-15, abs=0.1)
    assert abs(jump.x[3, 0, 0] / jump.x[1, 0, 0] - 1) < 1e-3
    for h in (0.05, 0.11, 0.115, 0.12, 0.23, 0.24):
        step = depth_map(TokenODE.scalar(-1.0, 1.0), [[2.0]], h=h, steps=1)
        size = 4 * softplus(2.0) * h
        assert (step.flips[0] == 0) == (size < 1)
        assert (abs(step.x[1, 0, 0]) < 2) == (size < 2)


def test_small_steps_converge_to_the_flow_and_real_depth_stays_short():
    ode = TokenODE.scalar(-1.0, 1.0)
    want = integrate(ode, [[1.0], [0.5]], 1.0).x[-1]
    errors = [np.abs(depth_map(ode, [[1.0], [0.5]], h=1 / k, steps=k).x[-1] - want).max() for k in (64, 128, 256)]
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, abs=0.05)
    # a bias of a real layer and 64 layers: tokens move by a few per cent, the asymptotic t^-1/2 is out of reach
    real = depth_map(TokenODE.scalar(-0.05, 1.0, bias=-4.0), np.ones((4, 1)), steps=64)
    change = 1 - np.abs(real.x[-1, :, 0])
    assert (change > 0.03).all()
    assert (change < 0.35).all()


def test_layers_that_differ_and_values_that_overflow():
    rng = np.random.default_rng(3)
    layers = [random_layer(rng, 2, 2, -1.0) for _ in range(3)]
    x = rng.normal(size=(5, 2))
    found = depth_map(layers, x, h=0.1)
    for layer in layers:
        x = x + 0.1 * rate_by_pairs(layer, x)
    assert found.x[-1] == pytest.approx(x, rel=1e-12)
    assert depth_map(TokenODE.scalar(1.0, 1.0), [[3.0]], steps=12).status == "overflow"
    assert depth_map(TokenODE.scalar(-1.0, 1.0), [[2.0]], h=8.5, steps=3).status == "frozen"


# ---------------------------------------------------------------------- guards
@pytest.mark.parametrize("solver", ["LSODA", "Radau", "BDF", "DOP853", "RK45", "RK23"])
def test_no_solver_hangs_beyond_the_blow_up(solver):
    # LSODA in raw x would never return; some others stop by themselves, just before T*
    found = integrate(TokenODE.scalar(1.0, 1.0), [[1.0]], 1.0, method="raw", solver=solver, rtol=1e-8, budget=3000)
    assert found.status in ("budget", "failed")
    assert found.calls <= 3000
    # third order spends its budget before the steps are as short as the others' last ones
    assert found.t[-1] == pytest.approx(ORACLES[1.0, 1.0, 1.0], rel=1e-3 if solver == "RK23" else 1e-4)
    if solver == "LSODA":
        assert found.status == "budget"
        assert "method='auto'" in found.message


@pytest.mark.parametrize("method", ["auto", "clock", "stiff"])
def test_every_method_keeps_its_budget(method):
    found = integrate(TokenODE.scalar(-1.0, 1.0), [[1.0], [2.0]], 1e8, method=method, budget=70)
    assert found.status == "budget"
    assert found.calls <= 71
    assert "larger budget" in found.message
    assert set(token_ode.STATUSES) >= {found.status}


@pytest.mark.parametrize("solver", ["Radau", "BDF", "LSODA"])
def test_stiff_solvers_reach_the_same_ends(solver):
    signed = TokenODE.from_matrix(np.diag([1.0, -1.0]), np.diag([-1.0, 1.0]))
    found = integrate(signed, [[0.5, 1.0]], 1e8, method="stiff", solver=solver)
    assert found.fate == "point"
    assert found.x[-1, 0] == pytest.approx([0.206611, 0.206611], abs=1e-5)
    times = [0.1, 10.0, 1e6]
    slow = integrate(TokenODE.scalar(-1.0, 0.0), [[1.0]], 1e6, method="stiff", solver=solver, times=times)
    assert slow.x[:, 0, 0] == pytest.approx(1 / np.sqrt(1 + 2 * LN2 * np.array(times)), rel=1e-6)
    up = integrate(TokenODE.scalar(1.0, 1.0), [[1.0]], 1e6, method="stiff", solver=solver)
    assert up.status == "blew_up"
    assert up.blow_up_time == pytest.approx(ORACLES[1.0, 1.0, 1.0], rel=1e-6)


def test_equilibria_end_at_once():
    rest = integrate(TokenODE.from_matrix(np.diag([1.0, -1.0]), np.zeros((2, 2))), [[1.0, 1.0]], 1e8, times=[1.0, 1e7])
    assert rest.status == "converged"
    assert rest.x.tolist() == [[[1.0, 1.0]], [[1.0, 1.0]]]
    assert integrate(TokenODE.scalar(1.0, 1.0), [[0.0]], 1.0).status == "converged"


def test_bad_values_are_named():
    one = np.ones((1, 1))
    for build, said in (
        (lambda: TokenODE(one, np.ones((2, 1)), one, -1.0), r"S_C has shape \(2, 1\): must be \(1, 1\)"),
        (lambda: TokenODE(one, one, np.ones((1, 2)), -1.0), r"S_delta has shape"),
        (lambda: TokenODE(one, one, one, 0.5), "A has the entry 0.5: must be negative"),
        (lambda: TokenODE(one, one, one, np.nan), "A has the entry nan"),
        (lambda: TokenODE(one, one, one, [-1.0, -2.0]), "A has shape"),
        (lambda: TokenODE(one, one, one, -1.0, prenorm="layer"), "prenorm='layer'"),
        (lambda: TokenODE(one, one, one, -1.0, inner=np.ones((1, 3))), "give both inner and out"),
        (lambda: TokenODE(one * np.inf, one, one, -1.0), r"S_B\[0, 0\] is inf"),
        (lambda: TokenODE.scalar(1.0, 1.0).rate(np.ones((2, 3))), "x has shape"),
        (lambda: depth_map(TokenODE.scalar(1.0, 1.0), [[1.0]]), "steps=None"),
        (lambda: slow_divergence(TokenODE.scalar(1.0, 1.0), [[1.0]]), "slow divergence needs"),
    ):
        with pytest.raises(InputError, match=said):
            build()
    ode = TokenODE.scalar(1.0, 1.0)
    for x0, options, said in (
        ([[1.0], [np.nan]], {}, r"initial tokens\[0, 1, 0\] is nan|initial tokens\[1, 0\] is nan"),
        ([1.0], {}, "initial tokens have shape"),
        ([[1.0]], {"t_end": -1.0}, "t_end=-1.0"),
        ([[1.0]], {"t_end": math.inf}, "log_t_end"),
        ([[1.0]], {"method": "stif"}, "Did you mean 'stiff'"),
        ([[1.0]], {"budget": 0}, "budget=0"),
        ([[1.0]], {"rtol": 1.0}, "rtol=1.0"),
        ([[1.0]], {"times": [2.0, 1.0]}, "times"),
        ([[1.0]], {"t_end": 1.0, "times": [2.0]}, "must lie between"),
        ([[1.0]], {"backend": "cuda"}, "backend='cuda'"),
    ):
        with pytest.raises(InputError, match=said):
            integrate(ode, x0, **options)


def test_the_pull_of_the_null_cone_is_the_rate_of_q() -> None:
    """Of one token with constant steps: d ln|q|/dt = 2 x^T M_sym dx/dt / q, by the field itself."""
    r = np.random.default_rng(3)
    S_B, S_C, bias, x = r.normal(size=(2, 4)), r.normal(size=(2, 4)), r.normal(size=4), r.normal(size=(1, 4))
    ode = TokenODE(S_B, S_C, np.zeros((4, 4)), -1.0, bias=bias)
    near, pull = cone_hold(ode, x, np.log(np.logaddexp(0.0, bias))[None], math.log(7.0))
    M = S_C.T @ S_B
    q = float(x[0] @ M @ x[0])
    assert near[0] == pytest.approx(abs(q) / float(x[0] @ x[0]))
    assert pull[0] == pytest.approx(7.0 * float(x[0] @ (M + M.T) @ ode.rate(x)[0]) / q)
    assert np.isnan(
        cone_hold(TokenODE(S_B, S_C, np.zeros((4, 4)), -1.0, prenorm="rms"), x, np.zeros((1, 4)), 0.0)[0]
    ).all()


def test_a_budget_spent_on_the_null_cone_says_so() -> None:
    """Three tokens, indefinite M: the first two go to zero, the third is held on the cone and carried along it."""
    r = np.random.default_rng(0)
    S_B, S_C = r.standard_normal((2, 3, 3)) / np.sqrt(3)
    ode = TokenODE(S_B, S_C, 0.5 * r.standard_normal((3, 3)), -1.0)
    found = integrate(ode, r.standard_normal((3, 3)), 1e8, method="stiff", stiff_rtol=1e-6, budget=1500, residual=False)
    assert found.status == "budget"
    assert "token 3 is held on the null cone" in found.message
