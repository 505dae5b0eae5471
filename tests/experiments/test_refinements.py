"""The two refinements: equal budgets, the test that decides, and what a small run must show whatever it finds."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssmtheory.data.images import ImagePart, load_images
from ssmtheory.errors import ConfigError, InputError
from ssmtheory.experiments import refinements as experiment
from ssmtheory.experiments.refinements import Config

pytest.importorskip("torch")
pytest.importorskip("sklearn")

TINY = Config(
    seeds=2, d_model=8, n_layer=2, d_state=4, length=16, batch=2, steps=16, heldout=4, image_d_model=8,
    image_layers=1, image_batch=4, image_steps=16, backend="torch",
)  # fmt: skip


@pytest.fixture(scope="module")
def images():
    """The digits, with a test part of 40 images."""
    digits = load_images("digits")
    return replace(digits, test=ImagePart(digits.test.pixels[:40], digits.test.labels[:40]))


@pytest.fixture(scope="module")
def tree(images):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "load_images", lambda name, side: images)
        return experiment.run(TINY)


# ---------------------------------------------------------------------------------------------------- the test


def test_the_sign_flip_test_is_a_count_over_all_flips() -> None:
    values = np.array([0.3, -0.1, 0.25, 0.4, 0.05])
    means = [abs(np.mean(np.array(s) * values)) for s in itertools.product((1, -1), repeat=5)]
    assert experiment.paired_test(values).p == pytest.approx(np.mean([m >= abs(values.mean()) - 1e-15 for m in means]))


def test_it_agrees_with_scipy() -> None:
    from scipy.stats import permutation_test

    values = np.random.default_rng(0).normal(0.4, 1.0, 8)
    peer = permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)
    found = experiment.paired_test(values)
    assert found.p == pytest.approx(peer.pvalue)
    assert found.mean == pytest.approx(values.mean())
    assert found.low < found.mean < found.high


@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_no_p_value_lies_below_two_to_the_one_minus_k(k: int) -> None:
    assert experiment.paired_test(1.0 + np.arange(k)).p == 2.0 ** (1 - k)


def test_no_difference_is_no_evidence() -> None:
    assert experiment.paired_test(np.zeros(6)).p == 1.0
    with pytest.raises(InputError, match="1 to 20 differences"):
        experiment.paired_test(np.zeros(21))


def test_the_level_of_the_test_is_kept() -> None:
    """Under symmetric noise, p <= 1/8 in an eighth of the draws (8 of 64 flips of 6 differences)."""
    draws = np.random.default_rng(1).normal(size=(300, 6))
    rate = np.mean([experiment.paired_test(d).p <= 0.125 for d in draws])
    assert abs(rate - 0.125) < 4 * np.sqrt(0.125 * 0.875 / 300)


def test_holm_is_the_closed_test_of_bonferroni() -> None:
    """p_i corrected = max over subsets that contain i of (size x smallest p in it)."""
    p = np.array([0.03, 0.011, 0.2, 0.004])
    for i, value in enumerate(experiment.holm(p)):
        subsets = [s for r in range(1, 5) for s in itertools.combinations(range(4), r) if i in s]
        assert value == pytest.approx(max(min(1.0, len(s) * min(p[list(s)])) for s in subsets))


# ---------------------------------------------------------------------------------------------------- equal budgets


def test_variants_of_a_seed_share_all_but_the_matrix_and_its_data() -> None:
    from ssmtheory.mamba.parametrisation import PARAMETRISATIONS

    base = experiment.text_parameters(TINY, "free", 3)
    weights = experiment.text_weights("free", base, TINY.n_layer)
    for name in PARAMETRISATIONS:
        other = experiment.text_parameters(TINY, name, 3)
        for key in base:
            if "x_proj" not in key or key.endswith(".dt"):
                np.testing.assert_array_equal(other[key], base[key])
        made = experiment.text_weights(name, other, TINY.n_layer)
        assert {k: v.shape for k, v in made.items() if k in weights} == {
            k: v.shape for k, v in weights.items() if k in made
        }
    source = np.arange(300, dtype=np.uint8) % 251
    one, same = (experiment.text_windows(TINY, 1, 5, source) for _ in range(2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, experiment.text_windows(TINY, 2, 5, source))


def test_a_training_run_is_a_function_of_its_key(tmp_path: Path) -> None:
    plan = experiment.plan(Config(**{**TINY.__dict__, "reorderings": ()}))
    parts = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        parts.append(experiment.run_task(plan, "text-01-mixed", tmp_path / name))
    for key, value in parts[0].items():
        np.testing.assert_array_equal(value, parts[1][key])


# ---------------------------------------------------------------------------------------------------- a small run


def test_training_lowers_the_loss_and_constraints_hold(tree) -> None:
    data = tree["parametrisation"].to_dataset()
    bits = data["heldout_bits"].values
    assert np.allclose(bits[..., 0], 8, atol=0.1)  # untrained: 256 equally likely bytes
    assert (bits[..., -1] < bits[..., 0]).all()
    positive = data["q_positive"]
    for name in ("positive", "positive-antisymmetric"):
        assert (positive.sel(parametrisation=name) == 1).all()
    for name in ("negative", "negative-antisymmetric"):
        assert (positive.sel(parametrisation=name) == 0).all()
    antisymmetric = data["antisymmetric"]
    for name in ("positive", "negative", "mixed", "tied"):
        # float32 weights: |M - M^T| of the order of their rounding
        assert (np.abs(antisymmetric.sel(parametrisation=name)) < 1e-6).all()
    for name in ("free", "positive-antisymmetric"):
        assert (antisymmetric.sel(parametrisation=name) > 0.01).all()
    assert (data["positive_eigenvalues"].sel(parametrisation="free") == 4).all()
    assert (data["negative_eigenvalues"].sel(parametrisation="free") == 4).all()
    assert (data["negative_eigenvalues"].sel(parametrisation="positive") == 0).all()
    assert (data["positive_eigenvalues"].sel(parametrisation="mixed") == 2).all()


def test_only_reordering_leaks(tree) -> None:
    data = tree["reordering"].to_dataset()
    assert (data["leak"].sel(reordering="off") == 0).all()
    assert (data["leak_to_5"].sel(reordering="off") == 0).all()
    for name in ("published", "gate", "restored"):
        assert (data["leak"].sel(reordering=name) > 0).all()
        assert (data["leak_to_5"].sel(reordering=name) > 0).all()
        assert (data["largest_weight"].sel(reordering=name) < 1).all()
    assert (data["largest_weight"].sel(reordering="hard") == 1).all()
    assert (data["column_spread"].sel(reordering="hard") == 0).all()
    assert ((data["test_accuracy"] >= 0) & (data["test_accuracy"] <= 1)).all()


def test_the_tests_are_those_of_the_stored_seeds(tree) -> None:
    values = tree["parametrisation/heldout_bits"].values[..., -1]
    for i in range(1, len(values)):
        found = experiment.paired_test(values[i] - values[0])
        assert float(tree["parametrisation_test/heldout_bits_difference"][i]) == pytest.approx(found.mean)
        assert float(tree["parametrisation_test/heldout_bits_p"][i]) == found.p
        assert float(tree["parametrisation_test/heldout_bits_p_holm"][i]) >= found.p
    said = " ".join(experiment.verdict(tree))
    assert "No p-value of 2 seeds lies below 0.5" in said
    assert ": differs" not in said  # two seeds can show nothing


def test_parts_can_be_left_out(images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "load_images", lambda name, side: images)
    small = {**TINY.__dict__, "seeds": 1, "parametrisations": (), "reorderings": ("off",)}
    tree = experiment.run(Config(**small))
    assert set(tree.children) == {"reordering", "reordering_test"}
    assert experiment.verdict(tree)


def test_the_share_of_the_antisymmetric_part() -> None:
    r = np.random.default_rng(0)
    s_b, s_c = r.standard_normal((2, 3, 9))
    m = s_c.T @ s_b
    half = (m - m.T) / 2
    assert experiment.antisymmetric_share(s_b, s_c) == pytest.approx((half**2).sum() / (m**2).sum())


# ---------------------------------------------------------------------------------------------------- the data


def test_images_become_rows_of_grey_levels() -> None:
    (train, labels), (test, test_labels) = experiment.sequences(load_images("digits", side=8))
    assert train.shape == (1348, 64)
    assert test.shape == (449, 64)
    assert train.dtype == np.int64
    assert (train.min(), train.max()) == (0, 16)
    assert set(labels) == set(test_labels) == set(range(10))


def test_a_run_says_which_images_a_mirror_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cifar10").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    for part in ("train", "test"):
        np.savez(tmp_path / "cifar10" / f"gray_{part}.npz", X=pixels, y=np.array([1, 2, 3], np.uint8))
    monkeypatch.setenv("SSMTHEORY_DATA", str(tmp_path))
    plan = experiment.plan(replace(TINY, images="cifar10"))
    assert plan.resolved["images_sha256"] == load_images("cifar10").sha256
    levels = plan.context.images[0][0]
    assert levels[1, 9] == round(pixels[1, 4:8, 4:8].mean() / 255 * 16)
    assert "images_sha256" not in experiment.plan(TINY).resolved  # the digits are a package's own


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parametrisations": ("free", "free")}, "at most once"),
        ({"reorderings": ("off", "sorted")}, "each of off, published"),
        ({"parametrisations": (), "reorderings": ()}, "nothing to train"),
        ({"seeds": 0}, "between 1 and 20"),
        ({"steps": 2}, "--steps 2"),
        ({"images": "imagenet"}, "must be one of digits, mnist, fashion-mnist, cifar10"),
    ],
)
def test_impossible_configurations_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment.plan(Config(**{**TINY.__dict__, **change}))
