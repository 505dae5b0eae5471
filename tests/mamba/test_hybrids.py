"""Hybrids run in transformers; every Mamba mixer is reproduced from its taps by our scan."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ssmtheory.errors import CheckpointError, InputError, SelfCheckError
from ssmtheory.mamba import HybridLM, hook, load, load_hybrid
from ssmtheory.mamba.adapters import TAP_NOTES, relative_deviation
from tests.mamba.families import HYBRIDS, random_hybrid

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


# the bound: 1e-5 of the largest value in float32
TOLERANCE = 1e-5
MIXERS = {
    "jamba": ["model.layers.0.mamba", "model.layers.2.mamba"],
    "zamba2": ["model.layers.0.mamba", "model.layers.1.mamba_decoder.mamba", "model.layers.2.mamba",
               "model.layers.3.mamba_decoder.mamba"],
    "bamba": ["model.layers.0.mamba", "model.layers.1.mamba", "model.layers.3.mamba"],
}  # fmt: skip


@pytest.mark.parametrize("kind", HYBRIDS)
@pytest.mark.parametrize("length", [1, 29])
def test_each_mixer_output_is_reproduced(kind: str, length: int) -> None:
    host = random_hybrid(kind)
    model = load_hybrid(host)
    assert model.layers == MIXERS[kind]
    ids = np.random.default_rng(0).integers(0, 61, (2, length))
    inputs: dict[str, np.ndarray] = {}
    outputs: dict[str, np.ndarray] = {}
    modules = dict(host.named_modules())
    handles = []
    for path in model.layers:
        # independent of the adapter's own taps: the mixer's output, and what enters its projection back
        handles.append(modules[path].register_forward_hook(lambda _m, _i, o, p=path: outputs.update({p: o.numpy()})))
        projection = modules[path + ".out_proj"]
        handles.append(projection.register_forward_hook(lambda _m, i, _o, p=path: inputs.update({p: i[0].numpy()})))
    with torch.no_grad():
        logits = host(torch.from_numpy(ids), use_cache=False).logits.numpy()
    for handle in handles:
        handle.remove()
    seen: list[int] = []

    def tap(layer: int, s) -> None:
        seen.append(layer)
        path = model.layers[layer]
        assert relative_deviation(s.gated, inputs[path]) <= TOLERANCE
        assert relative_deviation(s.update, outputs[path]) <= TOLERANCE
        assert s.residual.shape == s.hidden.shape == (2, length, 32)
        assert s.u.shape == s.z.shape == s.y.shape == (2, length, 64)

    np.testing.assert_array_equal(model(ids, tap=tap), logits)
    assert seen == list(range(model.n_layer))
    assert model.notes == {p: TAP_NOTES[type(modules[p]).__name__] for p in model.layers}


@pytest.mark.parametrize("kind", HYBRIDS)
def test_loading_from_a_folder_checks_and_records(tmp_path: Path, kind: str) -> None:
    host = random_hybrid(kind)
    host.save_pretrained(tmp_path, max_shard_size="40KB")
    model = load(tmp_path)
    assert isinstance(model, HybridLM)
    assert model.check.peer.startswith("transformers ")
    assert model.check.deviation <= TOLERANCE
    assert "recomputed from their taps" in model.check.summary
    ids = np.random.default_rng(0).integers(0, 61, (1, 9))
    with torch.no_grad():
        np.testing.assert_array_equal(model(ids), host(torch.from_numpy(ids), use_cache=False).logits.numpy())
    assert load(tmp_path).sha256 == model.sha256


@pytest.mark.parametrize("kind", ["jamba", "bamba"])
def test_traces_of_a_hybrid(tmp_path: Path, kind: str) -> None:
    model = load_hybrid(random_hybrid(kind), dtype="float64")
    ids = np.random.default_rng(0).integers(0, 61, (1, 9))
    tree = model.trace(ids, ["u", "delta", "B", "q", "state_rms", "logits", "A"], out=tmp_path / "t")
    taken = {}
    model(ids, tap=lambda layer, s: taken.update({layer: s}))
    assert tree["signals/u"].dims == ("layer", "sequence", "token", "channel")
    np.testing.assert_array_equal(hook(tree, "blocks.1.hook_ssm_input")[0], taken[1].u[0])
    assert tree["signals/delta"].dims[-1] == ("channel" if kind == "jamba" else "head")
    np.testing.assert_array_equal(tree["logits/logits"].values, model(ids))


def test_wrong_taps_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from ssmtheory.mamba import adapters

    host = random_hybrid("zamba2")
    original = adapters._mixer_config
    monkeypatch.setattr(adapters, "_mixer_config", lambda m, w: original(m, w).with_(time_step_limit=(0.7, 0.8)))
    with pytest.raises(SelfCheckError, match=r"model.layers.0.mamba: .* is reproduced to .* only"):
        load_hybrid(host)
    load_hybrid(host, check=False)
    monkeypatch.undo()
    monkeypatch.setattr(adapters, "_TAPPED", ("in_proj",))
    with pytest.raises(SelfCheckError, match=r"the tap out_proj.in did not fire"):
        load_hybrid(host)


def test_hybrid_folders_that_are_refused(tmp_path: Path) -> None:
    random_hybrid("bamba").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    weights = (tmp_path / "model.safetensors").read_bytes()

    def refused(says: str) -> None:
        with pytest.raises(CheckpointError, match=says):
            load(tmp_path)

    (tmp_path / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Model"}}))
    refused("never executed")
    (tmp_path / "config.json").write_text(json.dumps(config | {"mamba_d_state": 7}))
    refused("transformers cannot load|do not fit")
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 5}))
    refused("do not fit config.json: missing")
    (tmp_path / "config.json").write_text(json.dumps(config | {"mamba_n_heads": 7}))
    refused("transformers cannot load")
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(weights[:-3])
    refused("not a valid safetensors file")


def test_tokens_and_models_that_are_refused() -> None:
    model = load_hybrid(random_hybrid("bamba"))
    with pytest.raises(InputError, match="must be integers"):
        model(np.zeros((1, 3)))
    with pytest.raises(InputError, match="has 0 to 60"):
        model(np.full((1, 3), 61))
    with pytest.raises(InputError, match=r"no tokenizer.json"):
        _ = model.tokenizer
    with pytest.raises(InputError, match="has no mixer of"):
        HybridLM(torch.nn.Linear(2, 2))
