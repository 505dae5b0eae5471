"""Training: the same bits after a kill, what is frozen stays, stability, and a trained layer as a system again."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from ssmtheory import inits
from ssmtheory.errors import CheckpointError, InputError
from ssmtheory.inits import LayerParameters
from ssmtheory.models.classifier import SequenceModel, make_model
from ssmtheory.models.fit import FitConfig, fit, part_of, predict, score
from ssmtheory.models.lti_layers import TRAINABLE, VARIANTS, LTILayer, make_layer

CASES = ("s4", "s4d", "dss", "s4-ptd", "hippo-rho", "s5", "lru")


def waves(n: int = 96, length: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Slow and fast waves of random phase: two classes that no single sample tells apart."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    phase = rng.uniform(0, 2 * np.pi, n)[:, None]
    return np.cos(np.where(labels, 1.5, 0.4)[:, None] * np.arange(length) + phase)[..., None], labels


def model_of(case: str = "s4d", train=TRAINABLE, **options) -> SequenceModel:
    return make_model(case, 1, 2, d_model=8, depth=2, N=8, seed=1, dt_min=0.02, dt_max=0.5, train=train, **options)


def small(**changes) -> FitConfig:
    return FitConfig(**{"steps": 12, "batch": 16, "checkpoint_every": 5, "observe_every": 6, **changes})


@pytest.mark.parametrize("case", ["s4", "dss", "s5", "lru"])
def test_a_killed_run_ends_with_the_same_bits(case: str, tmp_path) -> None:
    data = waves()
    whole = model_of(case, dropout=0.2)
    first = fit(whole, *data, small(), tmp_path / "whole", validation=data)
    calls = []

    def killed(line: str) -> None:
        raise KeyboardInterrupt

    cut = model_of(case, dropout=0.2)
    hook = cut.encoder.register_forward_hook(lambda *_: calls.append(1) if len(calls) < 10 else killed(""))
    with pytest.raises(KeyboardInterrupt):
        fit(cut, *data, small(), tmp_path / "cut", validation=data)
    hook.remove()
    # a new process begins with a new model
    cut = model_of(case, dropout=0.2)
    second = fit(cut, *data, small(), tmp_path / "cut", validation=data)
    for (name, a), (_, b) in zip(whole.state_dict().items(), cut.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    assert np.array_equal(first.losses, second.losses)
    assert first.losses.shape == (12,)
    assert first.observed.tolist() == [0, 6, 12]
    assert np.array_equal(first.scores, second.scores)
    # a checkpoint is of one training: same shapes, another order of the data, other frozen parts
    for model, config in ((cut, small(seed=1)), (model_of(case, dropout=0.3), small())):
        with pytest.raises(CheckpointError, match="another training"):
            fit(model, *data, config, tmp_path / "cut")


@pytest.mark.parametrize("case", CASES)
def test_what_is_frozen_stays_and_what_is_trained_moves(case: str, tmp_path) -> None:
    data = waves()
    for train, rates in ((("C", "D"), {}), (("A", "B", "steps"), {}), (TRAINABLE, {"A": 0.0, "C": 0.0})):
        model = model_of(case, train)
        before = {name: x.clone() for name, x in model.state_dict().items()}
        fit(model, *data, small(rates=rates), tmp_path / f"{len(train)}{len(rates)}")
        moving = {name for name, x in model.state_dict().items() if not torch.equal(x, before[name])}
        for name in before:
            part = None if ".layer." not in name else part_of(model, name)
            expected = part is None or (part in train and rates.get(part, 1) > 0)
            assert (name in moving) == expected, (train, name)


def test_rates_are_those_of_the_parts(tmp_path) -> None:
    """AdamW's first step moves every entry by the rate, up to its epsilon."""
    model = model_of("s4d")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    rates = {"A": 1e-3, "B": 2e-3, "C": 3e-3, "D": 4e-3}
    config = small(steps=1, warmup=0, rate=1e-2, rates=rates, layer_rate=5e-3, decay=0.0, clip=1e9)
    fit(model, *waves(), config, tmp_path)
    for name, p in model.named_parameters():
        moved = (p.detach() - before[name]).abs().max().item()
        part = part_of(model, name)
        assert moved == pytest.approx(1e-2 if part is None else {**rates, "steps": 5e-3}[part], rel=1e-3), name


@pytest.mark.parametrize("case", ["s4d", "s5"])
def test_it_learns(case: str, tmp_path) -> None:
    inputs, labels = waves()
    # D normal with C and D alone trained, as the authors do: the waves differ by frequency, which needs the kernel
    model = model_of(case, ("C", "D"), residual=False)
    config = small(steps=80, observe_every=None)
    found = fit(model, inputs[:64], labels[:64], config, tmp_path, validation=(inputs[64:], labels[64:]))
    assert found.scores[-1] == 1.0
    assert found.scores[-1] == score(model, inputs[64:], labels[64:])


def test_regression(tmp_path) -> None:
    inputs, labels = waves()
    model = make_model("s4d", 1, 1, d_model=8, depth=1, N=8, dt_min=0.02, dt_max=0.5)
    targets = 0.3 + labels.astype(np.float64)
    found = fit(model, inputs, targets, small(steps=100, rate=2e-2), tmp_path, validation=(inputs, targets))
    # a constant answer has 1/4
    assert found.scores[-1] < 0.05
    assert predict(model, inputs, batch=7).shape == (96, 1)


def test_a_disturbance_meets_the_input_of_every_layer() -> None:
    inputs, _ = waves(6)
    model = model_of("s4d")
    seen = []

    def disturb(index, x):
        seen.append((index, tuple(x.shape)))
        return x

    clean = predict(model, inputs)
    np.testing.assert_array_equal(predict(model, inputs, disturb), clean)
    assert seen == [(-1, (6, 32, 1)), (0, (6, 32, 8)), (1, (6, 32, 8))]
    # what enters layer 1 is what the layer gets: the same noise by hand
    noise = torch.randn(6, 32, 8, generator=torch.Generator().manual_seed(0))
    noisy = predict(model, inputs, lambda index, x: x + noise if index == 1 else x)
    handle = model.layers[1].register_forward_pre_hook(lambda _, arguments: (arguments[0] + noise,))
    np.testing.assert_array_equal(noisy, predict(model, inputs))
    handle.remove()
    assert np.abs(noisy - clean).max() > 1e-3
    for norm in ("layer", "pre", "none"):
        pre = model_of("s4d", norm=norm)
        assert np.isfinite(predict(pre, inputs)).all()


def test_the_model_is_a_function_of_its_seed_and_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    a, b, c = model_of("s4d"), model_of("s4d"), make_model("s4d", 1, 2, d_model=8, depth=2, N=8, seed=2)
    model_of("s4d", dropout=0.5)(torch.ones(2, 9, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.encoder.weight, c.encoder.weight)
    first, second = a.layers
    assert not torch.equal(first.C, second.C)


# ---------------------------------------------------------------------- snapshots and stability


@pytest.mark.parametrize("train", [("C", "D"), TRAINABLE], ids=["frozen", "trained"])
@pytest.mark.parametrize("case", VARIANTS)
def test_a_snapshot_is_what_the_layer_started_from(case: str, train) -> None:
    options = {"real_part": "free"} if case == "s4-legt" else {}
    start = inits.get(VARIANTS[case]).layer(3, 8, 5)
    kept = LTILayer(start, train=[t for t in train if t != "steps" or start.steps is not None], **options).snapshot()
    assert (kept.readout, kept.scope, kept.discretization) == (start.readout, start.scope, start.discretization)
    for name in ("poles", "B", "C", "steps", "P", "D", "gain"):
        wanted, found = getattr(start, name), getattr(kept, name)
        if wanted is None:
            # a trained direct term begins at zero
            assert found is None or (name == "D" and not found.any())
        else:
            # through exp(log(.)), and one copy to a feature
            np.testing.assert_allclose(found, np.broadcast_to(wanted, found.shape), rtol=1e-14)


@pytest.mark.parametrize("case", CASES)
def test_a_trained_layer_is_a_system_with_its_kernel(case: str, tmp_path) -> None:
    model = model_of(case)
    fit(model, *waves(), small(), tmp_path)
    layer = model.layers[1]
    kept = layer.snapshot()
    K = layer.kernel(50).detach().numpy()
    for h in (0, 5):
        own = K[h, h] if layer.scope == "layer" else K[h]
        np.testing.assert_allclose(kept.kernel(50, h), own, rtol=0, atol=1e-12 * np.abs(own).max())
    system = kept.system(5)
    assert system.is_stable()
    if case in ("s4", "s4d"):
        # the system, discretised, gives the kernel
        discrete = system.discretize(layer.steps[5].item(), method=kept.discretization).kernel(50)
        np.testing.assert_allclose(np.ravel(discrete).real, K[5], rtol=0, atol=1e-12 * np.abs(K[5]).max())


@pytest.mark.parametrize("case", ["s4", "s4d", "s5", "lru"])
def test_exp_keeps_any_parameter_stable_and_free_does_not(case: str) -> None:
    layer = make_layer(case, 3, 8, 0, train=("A",))
    with torch.no_grad():
        for p in layer.parameters():
            p += 3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1), dtype=p.dtype)
    poles = layer.poles.detach()
    assert (poles.abs() < 1).all() if case == "lru" else (poles.real < 0).all()
    if case == "s4":
        # A - P P^* has the symmetric part Re(poles) - P P^*
        assert layer.snapshot().system(1).is_stable()
    free = make_layer(case, 3, 8, 0, train=("A",), real_part="free")
    with torch.no_grad():
        free.decay += 2.0
    assert (free.poles.abs() > 1).any() if case == "lru" else (free.poles.real > 0).any()


def test_unstable_poles_are_refused_by_exp_and_kept_when_frozen() -> None:
    start = LayerParameters(np.array([-1.0, 0.5j]), np.ones(2), np.ones((1, 2)), np.array([0.1]))
    with pytest.raises(InputError, match="real_part='free'"):
        LTILayer(start, train=("A",))
    for options in ({"train": ("C",)}, {"train": ("A",), "real_part": "free"}):
        layer = LTILayer(start, **options)
        np.testing.assert_array_equal(layer.snapshot().poles.reshape(-1), [-1.0, 0.5j])


def test_unit_input_is_the_same_system() -> None:
    for case in ("s4d", "s4-ptd", "hippo-rho"):
        given, scaled = (make_layer(case, 3, 16, 2, scaling=name) for name in ("given", "unit_input"))
        assert (torch.view_as_complex(scaled.B) == 1).all()
        K = given.kernel(40)
        # up to the cancellation between the modes
        torch.testing.assert_close(scaled.kernel(40), K, rtol=0, atol=1e-12 * K.abs().max().item())
    with pytest.raises(InputError, match="without low-rank part"):
        make_layer("s4", 3, 16, scaling="unit_input")


def test_the_cached_response_follows_what_it_came_from() -> None:
    layer = make_layer("s4", 2, 8, 0)
    other = make_layer("s4", 2, 8, 1)
    u = torch.randn(1, 20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = layer(u)
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer(u), other(u))
    assert not torch.equal(layer(u), before)
    torch.testing.assert_close(layer(u)[:, :9], layer(u[:, :9]), rtol=0, atol=1e-12)
    torch.testing.assert_close(layer.float()(u.float()), other(u).float(), rtol=1e-5, atol=1e-5)


def test_refusals() -> None:
    layer = make_layer("s4d", 2, 8)
    for call, words in (
        (lambda: layer(torch.ones(3, 4)), "batch, length, 2"),
        (lambda: layer(torch.ones(1, 3, 2), mode="fft"), "convolution"),
        (lambda: layer.step(torch.ones(2, 3)), "batch, 2"),
        (lambda: make_layer("dss", 2, 8).step(torch.ones(1, 2)), "length"),
        (lambda: make_layer("s4d", 2, 8, train=("E",)), "'steps'"),
        (lambda: make_layer("s4d", 2, 8, mode="x"), "recurrence"),
        (lambda: make_layer("s4", 2, 8).discrete(), "snapshot"),
        (lambda: LTILayer(inits.get("lru").layer(2, 4), train=("steps",)), "discrete time"),
        (lambda: SequenceModel(1, 1, [layer], 3), "d_model=3"),
        (lambda: SequenceModel(1, 1, [], 3), "at least one"),
        (lambda: SequenceModel(1, 1, [layer], 2, dropout=1.0), "dropout"),
        (lambda: SequenceModel(1, 1, [layer], 2, pool="max"), "'mean'"),
        (lambda: FitConfig(rates={"E": 1.0}), "'steps'"),
        (lambda: FitConfig(steps=0), "at least 1"),
        (lambda: predict(SequenceModel(1, 1, [layer], 2), np.ones((3, 4))), "n, length, inputs"),
    ):
        with pytest.raises(InputError, match=words):
            call()


def test_without_torch_the_package_says_how_to_get_it() -> None:
    code = "import sys; sys.modules['torch'] = None; import ssmtheory.models"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ssmtheory.models needs torch: pip install 'ssmtheory[torch]'" in done.stderr
