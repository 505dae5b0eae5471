"""Reordering by importance: the relaxed sort, its limits, and the future that it leaks."""

from __future__ import annotations

import numpy as np
import pytest

from ssmtheory.errors import InputError
from ssmtheory.mamba import reordering
from ssmtheory.mamba.config import MambaConfig
from ssmtheory.mamba.forward import mamba1_mixer
from ssmtheory.mamba.initialize import initial_weights

SIZES = MambaConfig.mamba1(d_model=6, n_layer=1, vocab_size=7, d_state=4)
LENGTH = 9


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    prefix = "backbone.layers.0.mixer."
    made = {
        name.removeprefix(prefix): 2 * value.astype(np.float64)
        for name, value in initial_weights(SIZES, seed).items()
        if name.startswith(prefix)
    }
    made["order.weight"] = np.random.default_rng(seed).standard_normal(SIZES.d_inner)
    return made


def mix(hidden, method: str, values=None, **options):
    values = weights() if values is None else values
    return reordering.reordered_mixer(hidden, values.get, SIZES, method, backend="auto", **options)


def tokens(seed: int = 1, batch: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, LENGTH, SIZES.d_model))


def test_the_relaxed_sort_is_its_definition() -> None:
    """Entry by entry, in the words of the paper's code: |(-s)_j - sort_desc(-s)_i|^p / tau."""
    s = np.random.default_rng(0).standard_normal((2, 5))
    for tau, power in ((1.0, 1.0), (0.3, 2.0)):
        matrix = reordering.soft_sort(s, tau, power)
        for b in range(2):
            ordered = sorted(-s[b], reverse=True)
            for i in range(5):
                row = np.array([np.exp(-(abs(-s[b, j] - ordered[i]) ** power) / tau) for j in range(5)])
                np.testing.assert_allclose(matrix[b, i], row / row.sum(), rtol=1e-12)


def test_it_is_row_but_not_doubly_stochastic_and_tends_to_the_exact_sort() -> None:
    s = np.random.default_rng(0).standard_normal((3, 8))
    soft = reordering.soft_sort(s)
    np.testing.assert_allclose(soft.sum(-1), 1, rtol=1e-12)
    assert np.abs(soft.sum(1) - 1).max() > 0.02
    # neighbouring scores differ by more than 1e-3 here
    np.testing.assert_allclose(reordering.soft_sort(s, tau=1e-5), reordering.hard_sort(s), atol=1e-12)


def test_the_exact_sort_puts_the_least_important_first_and_keeps_ties() -> None:
    s = np.array([[2.0, -1.0, 2.0, 0.5]])
    matrix = reordering.hard_sort(s)
    np.testing.assert_array_equal(matrix[0] @ np.arange(4), [1, 3, 0, 2])
    np.testing.assert_array_equal(matrix.sum(1), np.ones((1, 4)))


def test_off_is_the_models_own_mixer() -> None:
    hidden = tokens()
    signals, _ = mamba1_mixer(hidden, weights().get, SIZES, None, None, "auto")
    np.testing.assert_allclose(mix(hidden, "off"), signals.update, rtol=1e-12, atol=1e-14)


def test_identity_permutations_change_nothing() -> None:
    hidden = tokens()
    plain = mix(hidden, "off")
    np.testing.assert_allclose(mix(hidden, "random", permutation=np.eye(LENGTH)), plain, rtol=1e-12, atol=1e-14)


def test_restored_with_an_exact_sort_only_changes_the_order_in_which_the_state_is_filled() -> None:
    """Without memory (A very negative) no order matters: what was sorted and brought back is what was."""
    values = weights()
    values["A_log"] = np.full_like(values["A_log"], 20.0)
    hidden = tokens()
    plain = mix(hidden, "off", values)
    restored = mix(hidden, "restored", values, tau=1e-6)
    np.testing.assert_allclose(restored, plain, rtol=1e-6, atol=1e-9)
    assert np.abs(mix(hidden, "published", values, tau=1e-6) - plain).max() > 1e-3


@pytest.mark.parametrize("method", reordering.METHODS)
def test_it_leaks_the_future(method: str) -> None:
    """d y_0/d x_5: exactly 0 in a causal mixer, not 0 with any sort by a score of all tokens."""
    torch = pytest.importorskip("torch")
    values = {k: torch.tensor(v) for k, v in weights().items()}
    order = torch.eye(LENGTH, dtype=torch.float64).flip(0)
    hidden = torch.tensor(tokens(batch=1), requires_grad=True)
    update = mix(hidden, method, values, permutation=order)
    update[0, 0].sum().backward()
    future = hidden.grad[0, 1:].abs().max().item()
    if method == "off":
        assert future == 0.0
    else:
        assert future > 1e-8
    if method in ("published", "gate", "restored"):
        assert hidden.grad[0, 5].abs().max().item() > 1e-8


def test_the_gradient_reaches_k_through_the_relaxed_sort_only() -> None:
    torch = pytest.importorskip("torch")
    for method, reached in (("published", True), ("gate", True), ("restored", True), ("hard", False)):
        values = {k: torch.tensor(v, requires_grad=True) for k, v in weights().items()}
        (mix(torch.tensor(tokens()), method, values) ** 2).sum().backward()
        gradient = values["order.weight"].grad
        assert (gradient is not None and bool((gradient != 0).any())) == reached


def test_torch_and_numpy_agree() -> None:
    torch = pytest.importorskip("torch")
    values = {k: torch.tensor(v) for k, v in weights().items()}
    for method in ("published", "gate", "restored", "hard"):
        ours = mix(tokens(), method)
        np.testing.assert_allclose(mix(torch.tensor(tokens()), method, values).numpy(), ours, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mix(tokens(), "publshed"), "Did you mean 'published'"),
        (lambda: mix(tokens(), "random"), "needs its permutation"),
        (lambda: reordering.soft_sort(np.ones((1, 3)), tau=0.0), "must be positive, not 0.0"),
    ],
)
def test_wrong_requests(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
