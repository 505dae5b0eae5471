"""Logits and every block's output against transformers, for each family, layout and dtype."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssmtheory.errors import CheckpointError, SelfCheckError
from ssmtheory.mamba import MambaConfig, MambaLM, load, parameter_shapes, save_checkpoint
from ssmtheory.mamba.adapters import relative_deviation, self_check, transformers_model
from ssmtheory.mamba.initialize import initial_weights
from tests.mamba.families import peer_outputs, random_peer

pytest.importorskip("torch")
pytest.importorskip("transformers")


# the bound: 1e-5 of the largest value in float32
TOLERANCE = 1e-5


def our_outputs(model: MambaLM, ids: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    blocks: list[np.ndarray] = []
    logits = model(ids, tap=lambda _layer, s: blocks.append(np.asarray(s.residual + s.update)))
    return np.asarray(logits), blocks


def rounding_ratios(ours: MambaLM, peer: Any, ids: np.ndarray) -> np.ndarray:
    """For each block (and the logits) beyond TOLERANCE: RMS distance from our float64, ours over the peer's."""
    logits, blocks = our_outputs(ours, ids)
    their_logits, their_blocks = peer_outputs(peer, ids)
    assert len(blocks) == len(their_blocks) == ours.n_layer
    pairs = list(zip([*blocks, logits], [*their_blocks, their_logits], strict=True))
    beyond = [k for k, (a, b) in enumerate(pairs) if relative_deviation(a, b) > TOLERANCE]
    if not beyond:
        return np.empty(0)
    e_logits, e_blocks = our_outputs(ours.to(dtype="float64"), ids)
    exact = [*e_blocks, e_logits]
    ratios = []
    for k in beyond:
        a, b = pairs[k]
        # 1e-2: the float64 result still is the peer's function, and not merely far from both. Deep Falcon-Mambas with
        # one state amplify most: the RMS norm of a single number is nearly its sign
        assert relative_deviation(b, exact[k]) < 1e-2, k
        ratios.append(np.sqrt(np.mean((a - exact[k]) ** 2) / np.mean((b - exact[k]) ** 2)))
    return np.array(ratios)


def assert_agrees(ours: MambaLM, peer: Any, ids: np.ndarray) -> None:
    """Within TOLERANCE; where a model amplifies rounding beyond it, no further from float64 than twice the peer."""
    assert ours.dtype == "float32"
    ratios = rounding_ratios(ours, peer, ids)
    assert np.all(ratios <= 2), ratios


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mamba1": ("mamba", {}),
    "mamba1-no-conv-bias": ("mamba", {"use_conv_bias": False, "use_bias": True}),
    "mamba1-untied-odd": ("mamba", {"tie_word_embeddings": False, "hidden_size": 27, "state_size": 5, "conv_kernel": 3,
                                    "time_step_rank": 3, "layer_norm_epsilon": 1e-3, "vocab_size": 7}),
    "mamba1-width1": ("mamba", {"conv_kernel": 1, "expand": 3, "state_size": 1}),
    "mamba2": ("mamba2", {}),
    "mamba2-groups": ("mamba2", {"n_groups": 4, "use_conv_bias": False, "use_bias": True, "state_size": 3}),
    "mamba2-limits": ("mamba2", {"n_groups": 2, "time_step_limit": (0.01, 0.2), "tie_word_embeddings": True}),
    "mamba2-odd": ("mamba2", {"hidden_size": 20, "head_dim": 5, "n_groups": 2, "conv_kernel": 2, "chunk_size": 7}),
    "falcon": ("falcon_mamba", {}),
    "falcon-eps": ("falcon_mamba", {"mixer_rms_eps": 1e-2, "use_bias": True, "use_conv_bias": False, "state_size": 7,
                                    "tie_word_embeddings": False, "intermediate_size": 96}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("length", [1, 37])
def test_logits_and_blocks_agree_with_transformers(tmp_path: Path, case: str, length: int) -> None:
    kind, options = CASES[case]
    peer = random_peer(kind, seed=len(case), **options)
    peer.save_pretrained(tmp_path)
    ours = load(tmp_path, check=False)
    assert isinstance(ours, MambaLM)
    ids = np.random.default_rng(length).integers(0, ours.config.vocab_size, (2, length))
    assert_agrees(ours, peer, ids)


@pytest.mark.parametrize("case", ["mamba1", "mamba2-limits", "falcon"])
def test_every_layout_and_sharding_gives_the_same_logits(tmp_path: Path, case: str) -> None:
    kind, options = CASES[case]
    peer = random_peer(kind, **options)
    peer.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert (tmp_path / "sharded" / "model.safetensors.index.json").exists()
    model = load(tmp_path / "sharded", check=False)
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (1, 19))
    assert_agrees(model, peer, ids)
    expected = model(ids)
    for layout in ("huggingface",) if kind == "falcon_mamba" else ("huggingface", "original"):
        for shards in (1, 4):
            folder = tmp_path / f"{layout}{shards}"
            model.save(folder, layout=layout, shards=shards)
            again = load(folder, check=False)
            assert again.sha256 == model.sha256
            np.testing.assert_array_equal(again(ids), expected)
    # what we wrote in the Hugging Face layout is read by transformers, too
    import torch
    import transformers

    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "huggingface4", dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert_agrees(model, theirs.eval(), ids)


@pytest.mark.parametrize("case", ["mamba1", "mamba2-groups", "falcon-eps"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_chunked_and_stepwise_equal_one_shot(case: str, dtype: str) -> None:
    kind, options = CASES[case]
    model = from_peer(random_peer(kind, **options), dtype)
    ids = np.random.default_rng(1).integers(0, model.config.vocab_size, (2, 23))
    whole, state = model(ids, return_state=True)
    # two orders of the same sums: a few roundings of the dtype, through three layers
    tolerance = TOLERANCE if dtype == "float32" else 1e-13
    for sizes in ([1] * 23, [5, 0, 7, 11], [2, 21], [22, 1]):
        carried, parts, start = None, [], 0
        for size in sizes:
            out, carried = model(ids[:, start : start + size], carried, return_state=True)
            parts.append(out)
            start += size
        assert relative_deviation(np.concatenate(parts, axis=1), whole) < tolerance
        assert carried.position == 23
        for ours, reference in zip([*carried.conv, *carried.ssm], [*state.conv, *state.ssm], strict=True):
            assert relative_deviation(ours, reference) < tolerance


def from_peer(peer: Any, dtype: str = "float32", **options: Any) -> MambaLM:
    config = MambaConfig.from_dict(peer.config.to_dict())
    state = {
        n.replace("embeddings", "embedding"): v.detach().numpy().astype(dtype) for n, v in peer.state_dict().items()
    }
    if config.tie_embeddings:
        state.pop("lm_head.weight", None)
    return MambaLM(config, state, **options)


@pytest.mark.parametrize(
    ("backend", "case", "dtype"),
    [("torch", "mamba1", "float32"), ("torch", "mamba1", "float64"), ("torch", "mamba2-groups", "float64"),
     ("torch", "falcon", "float32"), ("jax", "mamba1", "float64"), ("jax", "mamba2-groups", "float32"),
     ("c", "mamba1", "float32"), ("c", "falcon", "float32"),
     ("reference", "mamba1", "float64"), ("reference", "mamba2-groups", "float32")],
)  # fmt: skip
def test_backends_agree(case: str, backend: str, dtype: str) -> None:
    if backend == "jax":
        pytest.importorskip("jax")
    kind, options = CASES[case]
    model = from_peer(random_peer(kind, **options), dtype)
    other = model.to(backend=backend)
    ids = np.random.default_rng(1).integers(0, model.config.vocab_size, (2, 13))
    out = other(ids)
    library = {"torch": ("torch",), "jax": ("jaxlib", "jax")}.get(backend, ("numpy",))
    assert type(out).__module__.split(".")[0] in library
    assert str(out.dtype).endswith(dtype)
    assert relative_deviation(np.asarray(out), model(ids)) < (TOLERANCE if dtype == "float32" else 1e-12)
    if backend != "jax" or case == "mamba1":  # JAX compiles for every shape
        np.testing.assert_array_equal(other.generate(ids, 5, temperature=0), model.generate(ids, 5, temperature=0))


# ---------------------------------------------------------------------- variants that transformers does not have
def _reference_variant(config: MambaConfig, weights: dict[str, np.ndarray], ids: np.ndarray) -> np.ndarray:
    """A Mamba-2 block model by its definition, token by token and head by head, in float64."""
    c = config
    softplus, silu = (lambda x: np.logaddexp(0, x)), (lambda x: x / (1 + np.exp(-x)))

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        w = weights[name + ".weight"]
        if c.norm == "layer":
            return (x - x.mean()) / np.sqrt(x.var() + c.norm_eps) * w + weights[name + ".bias"]
        return x / np.sqrt((x**2).mean() + c.norm_eps) * w

    def grouped(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        x = x.reshape(c.n_groups, -1)
        return (x / np.sqrt((x**2).mean(1, keepdims=True) + c.norm_eps)).ravel() * w

    past = [np.zeros((c.d_conv, c.conv_channels)) for _ in range(c.n_layer)]
    h = [np.zeros((c.n_heads, c.head_dim, c.d_state)) for _ in range(c.n_layer)]
    logits = []
    for token in ids:
        r = weights["backbone.embedding.weight"][token]
        for k in range(c.n_layer):
            layer = f"backbone.layers.{k}."
            m = {n.removeprefix(layer + "mixer."): w for n, w in weights.items() if n.startswith(layer + "mixer.")}
            z, xbc, dt = np.split(
                m["in_proj.weight"] @ norm(r, layer + "norm"), [c.d_inner, c.d_inner + c.conv_channels]
            )
            past[k] = np.vstack([past[k][1:], xbc])
            xbc = silu((m["conv1d.weight"][:, 0].T * past[k]).sum(0) + m["conv1d.bias"])
            x, b, cc = np.split(xbc, [c.d_inner, c.d_inner + c.n_groups * c.d_state])
            b, cc = b.reshape(c.n_groups, -1), cc.reshape(c.n_groups, -1)
            y = np.empty((c.n_heads, c.head_dim))
            for i in range(c.n_heads):
                g = i // (c.n_heads // c.n_groups)
                step = np.clip(softplus(dt[i] + m["dt_bias"][i]), *c.time_step_limit)
                xi = x.reshape(c.n_heads, -1)[i]
                h[k][i] = np.exp(-np.exp(m["A_log"][i]) * step) * h[k][i] + step * np.outer(xi, b[g])
                skip = m["D"].reshape(c.n_heads, -1)[i]
                y[i] = h[k][i] @ cc[g] + skip * xi
            y = y.ravel()
            if not c.mixer_norm:
                y = y * silu(z)
            elif c.norm_before_gate:
                y = grouped(y, m["norm.weight"]) * silu(z)
            else:
                y = grouped(y * silu(z), m["norm.weight"])
            r = r + m["out_proj.weight"] @ y
        head = weights.get("lm_head.weight", weights["backbone.embedding.weight"])
        logits.append(head @ norm(r, "backbone.norm_f"))
    return np.array(logits)


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"norm": "layer"},
        {"norm_before_gate": True},
        {"mixer_norm": False},
        {"skip_per_channel": True, "tie_embeddings": False},
        {"time_step_limit": (0.1, 1.0), "n_groups": 1},
    ],
)
def test_variants_of_the_original_code_by_their_definition(tmp_path: Path, variant: dict[str, Any]) -> None:
    options: dict[str, Any] = {"n_groups": 2} | variant
    config = MambaConfig.mamba2(d_model=8, n_layer=2, vocab_size=9, d_state=3, head_dim=4, d_conv=3, **options)
    rng = np.random.default_rng(3)
    weights = {n: 0.5 * rng.standard_normal(s) for n, s in parameter_shapes(config).items()}
    ids = rng.integers(0, 9, 11)
    expected = _reference_variant(config, weights, ids)
    save_checkpoint(tmp_path, config, weights, layout="original", dtype="float64")
    model = load(tmp_path, dtype="float64")
    assert relative_deviation(model(ids[None])[0], expected) < 1e-13
    if variant and "time_step_limit" not in variant:
        assert model.check.peer == "none consulted"  # transformers has no such model


# ---------------------------------------------------------------------- self-checks
def test_the_self_check_consults_transformers(tmp_path: Path) -> None:
    import transformers

    random_peer("mamba2", n_groups=2).save_pretrained(tmp_path)
    check = load(tmp_path).check
    assert check.peer == f"transformers {transformers.__version__}"
    assert 0 <= check.deviation <= check.tolerance == TOLERANCE
    assert check.summary.startswith(
        f"peer: transformers {transformers.__version__}; logits and mixer outputs of 12 tokens agree to"
    )
    assert load(tmp_path, check=False).check.summary == "self-check skipped on request"
    in_float64 = load(tmp_path, dtype="float64").check
    assert in_float64.deviation <= TOLERANCE


def test_the_self_check_without_a_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "transformers" else find_spec(name, *rest)
    )
    config = MambaConfig.mamba1(d_model=16, n_layer=2, vocab_size=256)
    save_checkpoint(tmp_path, config, initial_weights(config))
    check = load(tmp_path).check
    assert check.peer == "none consulted"
    assert check.summary.startswith("peer: none consulted; one-shot, chunked and stepwise logits agree to")


def test_a_wrong_adapter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import ssmtheory.mamba.forward as forward

    model = from_peer(random_peer("mamba"))
    self_check(model)
    original = forward.softplus
    monkeypatch.setattr(forward, "softplus", lambda x: original(x) * np.float32(1.001))
    with pytest.raises(SelfCheckError, match=r"differ from the peer by .* of the largest value"):
        self_check(model)
    monkeypatch.undo()
    # a carried state that is lost between chunks, as in transformers' own chunked prefill
    mixer = forward._MIXERS["mamba1"]
    monkeypatch.setitem(
        forward._MIXERS, "mamba1", lambda h, w, c, conv, state, b, watched: mixer(h, w, c, conv, None, b, watched)
    )
    with pytest.raises(SelfCheckError, match="one-shot, chunked and stepwise logits differ"):
        self_check(model, consult_peer=False)


def test_a_big_model_is_compared_on_its_first_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    from ssmtheory.mamba import adapters

    monkeypatch.setattr(adapters, "_WHOLE_PEER", 1000)
    check = self_check(from_peer(random_peer("falcon_mamba", num_hidden_layers=4)))
    assert "through the first 2 of 4 layers" in check.summary


def test_the_peer_is_built_without_touching_the_generator() -> None:
    import torch

    config = MambaConfig.mamba1(d_model=16, n_layer=1, vocab_size=9)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    transformers_model(config, initial_weights(config))
    assert torch.equal(before, torch.get_rng_state())


def test_config_and_weights_that_disagree_in_the_hugging_face_layout(tmp_path: Path) -> None:
    random_peer("falcon_mamba").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["model_type"] = "mamba"  # the same parameters, another function: nothing in the tensors can tell
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load(tmp_path).config.family == "mamba1"
    config["model_type"] = "mamba2"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError):
        load(tmp_path)


# ---------------------------------------------------------------------- any valid configuration
@st.composite
def configurations(draw: st.DrawFn, layers: int, width: int) -> tuple[str, dict[str, Any]]:
    kind = draw(st.sampled_from(["mamba", "mamba2", "falcon_mamba"]))
    options: dict[str, Any] = {
        "num_hidden_layers": draw(st.integers(1, layers)),
        "vocab_size": draw(st.integers(2, 300)),
        "state_size": draw(st.integers(1, 32)),
        "conv_kernel": draw(st.integers(1, 5)),
        "use_bias": draw(st.booleans()),
        "use_conv_bias": draw(st.booleans()),
        "tie_word_embeddings": draw(st.booleans()),
        "layer_norm_epsilon": draw(st.sampled_from([1e-6, 1e-5, 1e-3])),
        "expand": draw(st.integers(1, 3)),
    }
    if kind == "mamba2":
        head_dim, groups = draw(st.integers(1, 16)), draw(st.integers(1, 3))
        # expand * hidden_size = heads * head_dim with heads a multiple of groups
        unit = head_dim * groups
        options |= {"head_dim": head_dim, "n_groups": groups, "chunk_size": draw(st.integers(1, 40)),
                    "hidden_size": unit * draw(st.integers(1, max(1, width // unit)))}  # fmt: skip
        if draw(st.booleans()):
            options["time_step_limit"] = (draw(st.sampled_from([0.0, 0.01])), draw(st.sampled_from([0.1, 0.5])))
    else:
        options["hidden_size"] = draw(st.integers(1, width))
        if draw(st.booleans()):
            options["time_step_rank"] = draw(st.integers(1, 20))
    return kind, options


def _check_configuration(drawn: tuple[str, dict[str, Any]], length: int, seed: int) -> None:
    kind, options = drawn
    peer = random_peer(kind, seed=seed, **options)
    model = from_peer(peer)
    assert_agrees(model, peer, np.random.default_rng(seed).integers(0, model.config.vocab_size, (3, length)))


@pytest.mark.slow
def test_rounding_is_no_larger_than_the_peer_s_over_many_models() -> None:
    ratios = []
    for seed in range(12):
        # the family and size that amplify rounding most
        peer = random_peer("falcon_mamba", seed=seed, num_hidden_layers=12, hidden_size=60, state_size=2, expand=1)
        model = from_peer(peer)
        ratios.append(rounding_ratios(model, peer, np.random.default_rng(seed).integers(0, 61, (2, 30))))
    joined = np.concatenate(ratios)
    assert joined.size >= 12
    # measured 0.9 to 1.0
    assert np.exp(np.log(joined).mean()) < 1.3


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=configurations(layers=4, width=48), length=st.integers(1, 50), seed=st.integers(0, 10**6))
def test_any_small_configuration(drawn: tuple[str, dict[str, Any]], length: int, seed: int) -> None:
    _check_configuration(drawn, length, seed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=configurations(layers=12, width=256), length=st.integers(1, 200), seed=st.integers(0, 10**6))
def test_any_configuration(drawn: tuple[str, dict[str, Any]], length: int, seed: int) -> None:
    _check_configuration(drawn, length, seed)
