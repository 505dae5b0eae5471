"""The parametrised input-output matrix by linear algebra: rank, inertia, sign of q, and what a gradient reaches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmtheory.dynamics.input_output import symmetric_eigenvalues
from ssmtheory.errors import InputError
from ssmtheory.mamba import parametrisation as par
from ssmtheory.mamba.config import MambaConfig
from ssmtheory.mamba.forward import forward
from ssmtheory.mamba.initialize import initial_weights

N, D, R = 4, 12, 2


def raw(name: str, seed: int = 0, states: int = N, width: int = D, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Random raw parameters: none of them at its starting value."""
    rng = np.random.default_rng(seed)
    start = par.raw_parameters(name, rng.standard_normal((R + 2 * states, width)), states)
    return {key: scale * rng.standard_normal(value.shape) for key, value in start.items()}


def matrix(name: str, values: dict[str, np.ndarray]) -> np.ndarray:
    s_b, s_c = par.input_output(name, values)
    return s_c.T @ s_b


def inertia(m: np.ndarray) -> tuple[int, int, int]:
    values = np.linalg.eigvalsh((m + m.T) / 2)
    floor = 1e-10 * np.abs(values).max()
    return int((values > floor).sum()), int((values < -floor).sum()), int((np.abs(values) <= floor).sum())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Sylvester: a generic pair of N x D matrices; then S_C^T diag(g) S_C with S_C of full rank
        ("free", (N, N, D - 2 * N)),
        ("positive", (N, 0, D - N)),
        ("negative", (0, N, D - N)),
        ("mixed", (N // 2, N // 2, D - N)),
        ("positive-antisymmetric", (N, 0, D - N)),
        ("negative-antisymmetric", (0, N, D - N)),
    ],
)
def test_rank_and_inertia(name: str, expected: tuple[int, int, int]) -> None:
    m = matrix(name, raw(name))
    assert inertia(m) == expected
    assert np.linalg.matrix_rank(m) == N


def test_the_authors_map_at_full_size_is_semidefinite_of_rank_16() -> None:
    """D = 1536, N = 16 as in mamba-130m: 1,520 zeros, never positive definite."""
    s_b, s_c = par.input_output("positive", raw("positive", states=16, width=1536))
    values = symmetric_eigenvalues(s_b, s_c)
    floor = 1e-10 * values.max()
    assert int((values > floor).sum()) == 16
    assert int((values < -floor).sum()) == 0
    assert np.linalg.matrix_rank(s_c) == 16


def test_the_published_formula_entry_by_entry() -> None:
    """Against loops over indices, written from the authors' definition."""
    values = raw("positive")
    for name, sign in (("positive", [1] * N), ("negative", [-1] * N), ("mixed", [1, 1, -1, -1])):
        s_b, s_c = par.input_output(name, values)
        for n in range(N):
            g = np.log1p(np.exp(values["C"][n, 0])) + (0.0 if name == "mixed" else 0.7)
            for d in range(D):
                c = 1.0 if d == n else values["B"][n, d] if d > n else 0.0
                assert s_c[n, d] == c
                np.testing.assert_allclose(s_b[n, d], sign[n] * g * c, rtol=1e-14)


@pytest.mark.parametrize("name", par.PARAMETRISATIONS)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 100.0))
@settings(max_examples=25, deadline=None)
def test_q_has_the_forced_sign_for_every_token(name: str, seed: int, scale: float) -> None:
    values = raw(name, seed, scale=scale)
    s_b, s_c = par.input_output(name, values)
    u = np.random.default_rng(seed + 1).standard_normal((50, D))
    b, c = u @ s_b.T, u @ s_c.T
    q, size = (b * c).sum(-1), np.abs(b * c).sum(-1)
    sign = par.sign_of_q(name)
    if sign:
        # a sum of N terms that the antisymmetric part cancels within
        assert (sign * q >= -1e-12 * (1 + np.abs(values["K"]).max() if "K" in values else 1) * size).all()


@pytest.mark.parametrize("name", ["free", "mixed", "tied"])
def test_q_takes_both_signs_where_nothing_is_forced(name: str) -> None:
    s_b, s_c = par.input_output(name, raw(name))
    u = np.random.default_rng(1).standard_normal((400, D))
    share = ((u @ s_b.T * (u @ s_c.T)).sum(-1) > 0).mean()
    assert 0.02 < share < 0.98
    assert par.sign_of_q(name) == 0


def test_tied_matrices_are_symmetric_and_ours_is_not_but_q_does_not_see_it() -> None:
    for name in ("positive", "negative", "mixed", "tied"):
        m = matrix(name, raw(name))
        np.testing.assert_allclose(m, m.T, rtol=1e-12, atol=1e-12)
    values = raw("positive-antisymmetric")
    m, flipped = (matrix("positive-antisymmetric", {**values, "K": k}) for k in (values["K"], -values["K"]))
    assert np.linalg.norm(m - m.T) > 0.1 * np.linalg.norm(m)
    np.testing.assert_allclose(flipped, m.T, rtol=1e-10, atol=1e-10)  # the same symmetric part, hence the same q


@pytest.mark.parametrize("name", ["positive-antisymmetric", "negative-antisymmetric"])
def test_every_matrix_of_that_symmetric_part_is_reached(name: str) -> None:
    """Any N x N matrix with a semidefinite symmetric part is +-L L^T + K - K^T, here by Cholesky."""
    rng = np.random.default_rng(3)
    half = rng.standard_normal((N, N))
    symmetric, antisymmetric = par.sign_of_q(name) * (half @ half.T), rng.standard_normal((N, N))
    antisymmetric = antisymmetric - antisymmetric.T
    values = {
        "dt": np.zeros((R, N)), "R": np.eye(N), "L": np.linalg.cholesky(half @ half.T), "K": antisymmetric / 2,
    }  # fmt: skip
    np.testing.assert_allclose(matrix(name, values), symmetric + antisymmetric, atol=1e-12)


@pytest.mark.parametrize("name", par.PARAMETRISATIONS)
def test_gradients_reach_the_live_parameters_and_no_others(name: str) -> None:
    torch = pytest.importorskip("torch")
    sizes = MambaConfig.mamba1(d_model=6, n_layer=1, vocab_size=7, d_state=N)
    weights = {k: torch.tensor(v, dtype=torch.float64) for k, v in initial_weights(sizes, 0).items()}
    key = "backbone.layers.0.mixer.x_proj.weight"
    start = raw(name, width=sizes.d_inner)
    start["dt"] = 0.1 * np.random.default_rng(5).standard_normal((sizes.dt_rank, sizes.d_inner))
    leaves = {k: torch.tensor(v, requires_grad=True) for k, v in start.items()}
    weights[key] = par.x_proj_weight(name, leaves)
    assert weights[key].shape == (sizes.dt_rank + 2 * N, sizes.d_inner)
    logits = forward(weights, sizes, torch.tensor([[1, 2, 3, 4, 5, 6, 0, 3, 1]]), backend="torch")
    (logits**2).sum().backward()
    reached = sum(int((leaves[k].grad != 0).sum()) for k in leaves if k != "dt")
    stored = sum(leaves[k].numel() for k in leaves if k != "dt")
    live, dead = par.live_parameters(name, N, sizes.d_inner)
    assert stored == live + dead
    assert reached == live
    if "K" in leaves:
        assert (torch.diagonal(leaves["K"].grad) == 0).all()
    assert (leaves["dt"].grad != 0).all()
    if "C" in leaves and name != "free":
        assert (leaves["C"].grad[:, 1:] == 0).all()
        assert (torch.tril(leaves["B"].grad) == 0).all()


def test_gradients_agree_with_central_differences() -> None:
    torch = pytest.importorskip("torch")
    for name in par.PARAMETRISATIONS:
        leaves = {k: torch.tensor(v, requires_grad=True) for k, v in raw(name, 7).items()}
        keys = list(leaves)
        assert torch.autograd.gradcheck(
            lambda *values, name=name, keys=keys: par.input_output(name, dict(zip(keys, values, strict=True))),
            tuple(leaves.values()),
        )


@pytest.mark.parametrize("name", par.PARAMETRISATIONS)
def test_torch_and_numpy_agree_and_keep_the_dtype(name: str) -> None:
    torch = pytest.importorskip("torch")
    for dtype in ("float32", "float64"):
        values = {k: v.astype(dtype) for k, v in raw(name).items()}
        numpy = par.x_proj_weight(name, values)
        other = par.x_proj_weight(name, {k: torch.tensor(v) for k, v in values.items()})
        assert str(numpy.dtype) == dtype
        assert str(other.dtype) == f"torch.{dtype}"
        np.testing.assert_allclose(other.numpy(), numpy, rtol=1e-5 if dtype == "float32" else 1e-12, atol=1e-6)


def test_starting_values_keep_what_variants_share() -> None:
    weight = np.random.default_rng(0).standard_normal((R + 2 * N, D)).astype(np.float32)
    np.testing.assert_array_equal(par.x_proj_weight("free", par.raw_parameters("free", weight, N)), weight)
    for name in par.PARAMETRISATIONS:
        start = par.raw_parameters(name, weight, N, seed=1)
        np.testing.assert_array_equal(start["dt"], weight[:R])
        assert all(v.dtype == np.float32 for v in start.values())
    # a change of the starting values must not reach the caller's array
    par.raw_parameters("tied", weight, N)["C"][:] = 0
    assert (weight[R + N :] != 0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: par.input_output("postive", {}), "Did you mean 'positive'"),
        (lambda: par.live_parameters("both", 4, 8), "no parametrisation 'both'"),
        (lambda: par.raw_parameters("free", np.zeros((3, 8)), 4), "does not fit d_state 4"),
        (lambda: par.raw_parameters("free", np.zeros((12, 3)), 4), "does not fit d_state 4"),
        (lambda: par.input_output("mixed", {"B": np.ones((3, 4)), "C": np.ones((3, 4))}), "must be even, not 3"),
    ],
)
def test_wrong_requests(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
