"""Trained robustness: what variants share, what noise does, what is predicted; and a small run of every part."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import expm

from ssmtheory.errors import BackendError, ConfigError
from ssmtheory.experiments.base import Plan
from ssmtheory.inits import hippo

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from ssmtheory.experiments import _robustness_trained as trained
from ssmtheory.experiments import robustness as experiment

N = 8
PRESETS = Path(__file__).resolve().parents[2] / "experiments"


def _kernel(A: np.ndarray, B: np.ndarray, C: np.ndarray, dt: float, length: int, rule: str = "zoh") -> np.ndarray:
    """Re(C A-bar^k B-bar) from dense matrices."""
    eye = np.eye(len(A))
    if rule == "zoh":
        block = np.zeros((len(A) + 1,) * 2, dtype=complex)
        block[:-1, :-1], block[:-1, -1] = A * dt, B * dt
        whole = expm(block)
        bar, into = whole[:-1, :-1], whole[:-1, -1]
    else:
        bar = np.linalg.solve(eye - dt / 2 * A, eye + dt / 2 * A)
        into = np.linalg.solve(eye - dt / 2 * A, dt * B)
    out, x = [], into
    for _ in range(length):
        out.append((C @ x).real)
        x = bar @ x
    return np.array(out)


@pytest.mark.parametrize(
    "variant",
    [
        "s4d",
        "s4",
        "s4-ptd:epsilon=0.4",
        "s4-ptd:epsilon=0.4,kind=real",
        "hippo-rho:rho=3",
        "hippo-rho:rho=3,sign=imaginary",
    ],
)
def test_a_layer_is_the_dense_system_read_by_one_c_in_the_hippo_basis(variant: str) -> None:
    """Every variant of a seed has the same C, steps and D, and the state matrix of its definition."""
    from ssmtheory import inits
    from ssmtheory.inits.base import generators
    from ssmtheory.models.lti_layers import LTILayer

    made = trained.layer_parameters(variant, 3, N, 5, 1, 1e-2, 1e-1)
    A, B = hippo.legs(N)
    P = B[:, None] / np.sqrt(2)
    normal = A + P @ P.T
    if variant == "s4d":
        A, B = normal, B / 2
    elif variant.startswith("s4-ptd"):
        kind = "real" if "real" in variant else "ginibre"
        A = A + inits.get("ptd", perturbation=kind, epsilon=0.4).perturb(N, 0)[0]
    elif variant.startswith("hippo-rho"):
        a = inits.get("hippo-rho", rho=3.0, sign="imaginary" if "imaginary" in variant else "auto").factor(N)
        A, B = normal - (1 - a) / (1 + a) * P @ P.T, B / (1 + a)
    C = generators(5001, "C")[0].standard_normal((3, N))
    rule = "bilinear" if variant == "s4" else "zoh"
    kernel = LTILayer(made, train=("C", "D")).kernel(40).detach().numpy()
    for i, step in enumerate(made.steps):
        expected = _kernel(A, B, C[i], float(step), 40, rule)
        # V of the perturbed matrix has a condition number of about 100
        np.testing.assert_allclose(kernel[i], expected, atol=1e-9 * np.abs(expected).max())
    other = trained.layer_parameters("s4d", 3, N, 5, 1, 1e-2, 1e-1)
    np.testing.assert_array_equal(made.steps, other.steps)
    np.testing.assert_array_equal(made.steps, trained.clock(3, 5, 1, 1e-2, 1e-1))
    np.testing.assert_array_equal(made.D, other.D)


@pytest.mark.parametrize("variant", ["s5:blocks=2", "s5-ptd:epsilon=0.4,blocks=2", "s5-rho:rho=3,blocks=2"])
def test_s5_has_blocks_of_the_size_of_the_others_and_its_own_steps(variant: str) -> None:
    made = trained.layer_parameters(variant, 3, N, 5, 1, 1e-2, 1e-1)
    # one mode of each pair is stored where a block has no real pole
    modes = 2 * N if made.readout == "real" else N
    assert made.scope == "layer"
    assert made.poles.shape == made.steps.shape == (modes,)
    np.testing.assert_array_equal(made.poles[: modes // 2], made.poles[modes // 2 :])
    np.testing.assert_array_equal(made.D, trained.layer_parameters("s4d", 3, N, 5, 1, 1e-2, 1e-1).D)


def test_distances_are_those_of_theory() -> None:
    kappa, deviation = trained.distance_from_legs("s4d", 16)
    assert kappa == pytest.approx(1.0)
    assert deviation == pytest.approx(10.02457, rel=1e-6)  # linear.md, section 3
    kappa, deviation = trained.distance_from_legs("hippo-rho:rho=10", 16)
    assert deviation <= 1 / (2 * 9)  # theorem 5
    assert kappa < 10  # theorem 6
    assert trained.distance_from_legs("s4", 16)[1] == 0.0
    assert trained.distance_from_legs("s5-rho:rho=10,blocks=2", 16) == pytest.approx((kappa, deviation))
    assert np.isnan(trained.distance_from_legs("lru", 16)).all()


def test_the_attack_frequency_is_where_theory_puts_the_spike() -> None:
    """y_0 = N^2/pi - pi/6 + O(1/N^2)."""
    assert trained.attack_of(32) == pytest.approx(32**2 / np.pi - np.pi / 6, abs=1e-2)


@pytest.mark.parametrize("variant", ["s4d", "s4", "s5"])
def test_predicted_gain_is_what_a_long_sequence_measures(variant: str) -> None:
    """From rest the steady state takes over: of 400 s all but a hundredth is steady."""
    from ssmtheory.models.lti_layers import LTILayer

    made = trained.layer_parameters(variant, 4, N, 0, 0, 0.1, 0.1)
    steps = np.full(4, 0.1) * [1.0, 1.1, 1.2, 1.3]
    layer = LTILayer(made, train=("C", "D"))
    if variant != "s5":
        steps = np.asarray(made.steps)
    for omega in (3.0, 19.86):
        predicted = trained.noise_gain(made, steps, omega, 4000)
        measured = trained._measured_gain(layer, steps, omega, 4000, 0, 0)
        if variant == "s5":
            # 16 members draw the amplitudes; their energies are equal only on average
            np.testing.assert_allclose(measured, predicted, rtol=0.35)
        else:
            np.testing.assert_allclose(measured, predicted, rtol=2e-2)


def test_variants_of_a_seed_share_the_network_around_the_layers() -> None:
    settings = _settings(seeds=1)
    states = [
        trained.build(settings, trained.Cell("digits", v), 3, 1, 10).state_dict()
        for v in ("s4d", "hippo-rho:rho=10", "s5")
    ]
    shared = [k for k in states[0] if ".layer." not in k]
    assert shared
    for name in shared:
        for other in states[1:]:
            np.testing.assert_array_equal(states[0][name], other[name])


def test_the_gain_before_training_is_heard_at_the_steps_of_then() -> None:
    """Of a network whose steps were trained, it is the gain of the untrained one."""
    import torch

    settings = _settings(seeds=1, noise_images=4)
    images, labels = np.random.default_rng(0).random((4, 20, 1), np.float32), np.zeros(4, np.int64)
    model = trained.build(settings, trained.Cell("digits", "s4d", "all"), 0, 1, 10)
    start = [layer.snapshot() for layer in model.layers]
    untrained = trained.measure(settings, trained.Cell("digits", "s4d", "all"), 0, model, start, images, labels)
    with torch.no_grad():
        for layer in model.layers:
            layer.log_steps += np.log(2.0)
    later = trained.measure(settings, trained.Cell("digits", "s4d", "all"), 0, model, start, images, labels)
    np.testing.assert_allclose(untrained["gain_start"], untrained["gain"], rtol=1e-6)
    # a step goes through a float32 logarithm
    np.testing.assert_allclose(later["gain_start"], untrained["gain"], rtol=1e-5)
    assert not np.allclose(later["gain"], untrained["gain"], rtol=1e-2)


def test_classifiers_and_regressors_take_the_scaling_of_a_variant(monkeypatch, tmp_path) -> None:
    from ssmtheory.experiments import _robustness_regression as regression

    variant = "hippo-rho:rho=3,scaling=unit_input"
    model = trained.build(_settings(seeds=1), trained.Cell("digits", variant), 0, 1, 10)
    assert all(np.all(layer.snapshot().B == 1) for layer in model.layers)

    seen = []

    def stop(setting, layer, *_: object) -> None:
        seen.append(layer.snapshot().B)
        raise InterruptedError

    monkeypatch.setattr(regression, "_network", stop)
    setting = regression.Setting(8, 10.0, 12.0, 2, 16, 0.05, 4, 2, 2, 1e-3, 3, "torch")
    with pytest.raises(InterruptedError):
        regression.regress(setting, variant, "network", 0, tmp_path, lambda _: None)
    assert np.all(seen[0] == 1)


def test_a_device_that_is_not_here_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match=r"--device cuda.*--device cpu"):
        experiment.plan(dataclasses.replace(_preset("smoke"), device="cuda"))


def test_noise_depends_on_the_seed_and_not_on_the_batches_or_the_variant() -> None:
    import torch

    x = torch.zeros(7, 12, 3)
    steps = [np.array([0.01, 0.02, 0.05])]
    condition = trained.Condition("fourier", "layer", 30.0, 0.5)
    whole = trained.disturbance(condition, steps, [], 0.0, 4)(0, x)
    pieces = trained.disturbance(condition, steps, [], 0.0, 4)
    np.testing.assert_array_equal(whole, torch.cat([pieces(0, x[:3]), pieces(0, x[3:])]))
    assert not np.array_equal(whole, trained.disturbance(condition, steps, [], 0.0, 5)(0, x))
    # the authors' formula: U cos(omega Delta_i k), U between 0 and the amplitude
    k = np.arange(12)[:, None]
    ratio = whole.numpy() / np.cos(30.0 * steps[0] * k)
    assert ratio[:, 0].min() >= 0
    assert ratio[:, 0].max() <= 0.5
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-4)
    assert trained.disturbance(condition, steps, [], 0.0, 4)(-1, x) is x


@pytest.mark.parametrize("kind", trained.CORRUPTIONS)
def test_corruptions_have_the_energy_of_the_cosine(kind: str) -> None:
    import torch

    x = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 50, 3)))
    condition = trained.Condition(kind, "layer", np.nan, 0.6)
    change = trained.disturbance(condition, [np.full(3, 0.01)], [], 0.0, 0)(0, x) - x
    # 0.6 U cos, U uniform on [0, 1]: 0.6 sqrt(1/3 / 2)
    np.testing.assert_allclose(change.square().mean((1, 2)).sqrt(), 0.6 / np.sqrt(6), rtol=1e-6)


def _settings(**changes: object) -> trained.Settings:
    return experiment._settings_of(dataclasses.replace(_preset("smoke"), **changes))


def _preset(name: str) -> experiment.Config:
    values = tomllib.loads((PRESETS / f"robustness.{name}.toml").read_text())
    return experiment.Config(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


# ---------------------------------------------------------------------------------------------------- put together

SEEDS, FACTORS = 4, (0.1, 1.0, 3.0)


def _invented(loss_by_gain: float = 0.1, clean: dict[str, float] | None = None):
    """A plan, and runs whose loss of accuracy is loss_by_gain times the logarithm of the layers' gain."""
    config = dataclasses.replace(
        _preset("smoke"), theory_inits=(), regression_variants=(), all_variants=(), seeds=SEEDS, frequencies=FACTORS,
        variants=("s4d", "s4", "hippo-rho:rho=10"), headline=3, amplitudes=(0.5, 1.0),
    )  # fmt: skip
    cells, settings = experiment.cells_of(config), experiment._settings_of(config)
    parts = {"baseline/digits": {"baseline_accuracy": np.array(0.5)}}
    r = np.random.default_rng(0)
    conditions = trained.conditions(settings)
    for k, cell in enumerate(cells):
        for seed in range(SEEDS):
            accuracy = (clean or {}).get(cell.variant, 0.8) + 0.01 * seed
            gain = np.exp(r.normal(0, 0.3, (3, config.n_layer)))
            gain[1] *= 10 if cell.variant == "s4d" else 1
            mean = np.exp(np.log(gain).mean(axis=1))
            loss = [
                loss_by_gain * c.amplitude * np.log(mean[FACTORS.index(round(c.frequency / trained.attack_of(8), 6))])
                if (c.kind, c.where) == ("fourier", "layer")
                else 0.0
                for c in conditions
            ]
            layers, features = (config.n_layer,), (config.n_layer, config.d_model)
            values: dict[str, object] = {
                "clean_accuracy": accuracy, "clean_accuracy_few": accuracy, "noisy_accuracy": accuracy - np.array(loss),
                "changed": np.zeros(len(conditions)), "training_loss": np.zeros(50), "observed": np.arange(7),
                "curve": np.zeros((7, 3)), "gain": gain, "gain_start": gain, "gain_continuous": gain,
                "gain_measured": gain, "channel_step": np.ones(features), "channel_gain": np.ones(features),
                "channel_gain_measured": np.ones(features), "own_frequency": np.ones(layers),
                "own_gain": np.ones(layers), "input_angle": 0.1, "input_gain": 1.0, "signal": np.ones(layers),
                "kappa": 1.0 + k, "deviation": 0.1 * k,
            }  # fmt: skip
            parts[f"trained/{cell.label}/{seed}"] = {name: np.asarray(v) for name, v in values.items()}
    context = experiment._Context(config, settings, None, cells, {"digits": 64})
    return Plan(resolved={}, tasks=list(parts), context=context), parts


def _put_together(**options: object):
    plan, parts = _invented(**options)
    tree = experiment.SCHEMA.label(experiment.assemble(plan, parts))
    experiment.SCHEMA.validate(tree)
    return tree


def test_a_loss_that_follows_the_gain_has_rank_correlation_one() -> None:
    found = _put_together()["correlation"].to_dataset()
    assert found.points.item() == 3 * SEEDS * len(FACTORS)
    np.testing.assert_allclose(found["rank"].sel(prediction="gain"), 1.0)
    np.testing.assert_allclose(found["rank_low_cells"].sel(prediction="gain"), 1.0)
    np.testing.assert_allclose(_put_together(loss_by_gain=-0.1)["correlation"]["rank"].sel(prediction="gain"), -1.0)


def test_the_rank_correlation_is_spearmans() -> None:
    from scipy.stats import spearmanr

    r = np.random.default_rng(0)
    x, y = r.integers(0, 8, 40).astype(float), r.integers(0, 8, 40).astype(float)  # with ties
    assert experiment._rank(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert np.isnan(experiment._rank(np.ones(5), np.arange(5.0)))


def test_intervals_take_whole_seeds_or_cells() -> None:
    """Where all seeds of a cell are equal, resampling seeds moves nothing and resampling cells does."""
    r = np.random.default_rng(0)
    x = np.repeat(r.normal(size=(5, 1, 3)), 4, axis=1)
    y = x + np.repeat(r.normal(size=(5, 1, 3)), 4, axis=1)
    whole = float(experiment._rank(x.ravel(), y.ravel()))
    np.testing.assert_allclose(experiment._interval(x, y, 1), whole)
    low, high = experiment._interval(x, y, 0)
    assert low < whole < high
    assert np.isnan(experiment._interval(x[:, :1], y[:, :1], 1)).all()


def test_pairs_are_compared_seed_by_seed() -> None:
    pairs = _put_together(clean={"s4": 0.75})["comparison"].to_dataset()
    assert list(zip(pairs["first"].values, pairs.second.values, strict=True)) == [
        ("s4d", "s4"), ("s4d", "hippo-rho:rho=10"), ("s4", "hippo-rho:rho=10"),
    ]  # fmt: skip
    np.testing.assert_allclose(pairs.clean, [0.05, 0.0, -0.05], atol=1e-12)
    # the seeds' common offset cancels; all four differences are equal: p = 2^(1-4)
    np.testing.assert_allclose(pairs.clean_p[[0, 2]], 2.0**-3)
    assert (pairs.attacked.values[:2] < 0).all()


def test_a_cell_that_one_seed_fails_is_no_evidence() -> None:
    tree = _put_together(clean={"s4": 0.495})  # with 0.01 a seed: one seed below the baseline of 0.5
    assert tree["cells"].evidence.values.tolist() == [True, False, True]
    assert tree["correlation"].cells.item() == 2
    words = experiment.verdict(tree)
    assert "no evidence" in words[1]
    assert "no evidence" not in words[0]


def test_the_headline_comes_first() -> None:
    plan = experiment.plan(_preset("smoke"))
    kinds = list(dict.fromkeys(key.split("/")[0] for key in plan.tasks))
    assert kinds == ["theory", "baseline", "trained", "regression"]
    headline = [key for key in plan.tasks if key.startswith("trained")][:4]
    assert headline == [f"trained/digits/{v}/C,D/{s}" for v in ("s4d", "s4") for s in (0, 1)]
    assert len(set(plan.tasks)) == len(plan.tasks)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": ("s4d", "s4d")}, "each variant once"),
        ({"variants": ("s4e",)}, "Did you mean"),
        ({"seeds": 0}, "between 1 and 20"),
        ({"frequencies": (0.5, 2.0)}, "have 1, the attack frequency"),
        ({"amplitudes": ()}, "must be positive"),
        ({"corruptions": ("pink",)}, "must be among"),
        ({"readings": ("in_phase",)}, "Did you mean 'in-phase'"),
        ({"dt_min": 0.2}, "0 < dt-min <= dt-max"),
        ({"steps": 1}, "must be an integer >= 2"),
        ({"device": "tpu"}, "cpu or cuda"),
        ({"theory_inits": (), "variants": (), "all_variants": (), "regression_variants": ()}, "nothing to do"),
    ],
)
def test_impossible_options_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment.plan(dataclasses.replace(_preset("smoke"), **changes))


@pytest.mark.parametrize("name", ["laptop", "headline", "long", "trainable", "modes", "decision", "paper"])
def test_presets_are_configurations(name: str) -> None:
    config = _preset(name)
    experiment._check(config)
    assert config.seeds >= 3


# ---------------------------------------------------------------------------------------------------- a small run


@pytest.fixture(scope="module")
def tree():
    return experiment.run(_preset("smoke"))


def test_one_frequency_alone_is_compared_with_no_other(tree) -> None:
    alone = tree.copy()
    noise = tree["disturbances"].to_dataset()
    attack = np.isclose(noise.frequency, noise.attack_frequency)
    keep = np.flatnonzero((noise["where"] != "layer") | attack)
    for group in ("disturbances", "trained"):
        alone[group] = tree[group].to_dataset().isel(disturbance=keep)
    text = " ".join(experiment.verdict(alone))
    assert "other frequencies" not in text
    assert "nan" not in text
    assert "other frequencies" in " ".join(experiment.verdict(tree))


def test_the_smoke_preset_fills_every_group(tree) -> None:
    assert set(tree.children) == {path.strip("/") for path in experiment.SCHEMA.groups}
    runs = tree["trained"].to_dataset()
    assert ((runs.noisy_accuracy >= 0) & (runs.noisy_accuracy <= 1)).all()
    np.testing.assert_array_equal(runs.observed.values[0, 0], [0, 2, 4, 6, 8, 10, 12])
    spike = tree["regression"].last_spike.item()
    assert spike == pytest.approx(16**2 / np.pi - np.pi / 6, abs=1e-2)
    text = " ".join(experiment.verdict(tree))
    assert "no evidence" in text  # twelve steps do not beat logistic regression
    assert "fewer than two cells are evidence" in text
