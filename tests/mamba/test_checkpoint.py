"""Checkpoints: what is written is read back, layouts agree, and whatever is wrong is a CheckpointError that says so."""

from __future__ import annotations

import json
import math
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ssmtheory.errors import CheckpointError, InputError
from ssmtheory.mamba.checkpoint import read_checkpoint, save_checkpoint
from ssmtheory.mamba.config import MambaConfig, parameter_shapes

CONFIGS = {
    "mamba1": MambaConfig.mamba1(d_model=8, n_layer=2, vocab_size=11, d_state=3, proj_bias=True),
    "mamba1-untied": MambaConfig.mamba1(d_model=8, n_layer=1, vocab_size=11, conv_bias=False, tie_embeddings=False),
    "mamba2": MambaConfig.mamba2(d_model=8, n_layer=2, vocab_size=16, d_state=3, head_dim=4, n_groups=2,
                                 time_step_limit=(0.001, 0.5), tie_embeddings=False),
    "falcon_mamba": MambaConfig.falcon_mamba(d_model=8, n_layer=2, vocab_size=11, d_state=5, dt_rank=3),
}  # fmt: skip


def random_weights(config: MambaConfig, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(s).astype(np.float32) for name, s in parameter_shapes(config).items()}


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str = "mamba1", **options: object) -> Path:
        folder = tmp_path / "model"
        save_checkpoint(folder, CONFIGS[name], random_weights(CONFIGS[name]), **options)
        return folder

    return make


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("shards", [1, 3])
def test_every_layout_reads_back_to_the_same_model(tmp_path: Path, name: str, shards: int) -> None:
    config, weights = CONFIGS[name], random_weights(CONFIGS[name])
    layouts = ["huggingface"] if name == "falcon_mamba" else ["huggingface", "original"]
    hashes = set()
    for layout in layouts:
        recorded = save_checkpoint(tmp_path / layout, config, weights, layout=layout, shards=shards)
        read = read_checkpoint(tmp_path / layout)
        assert read.config == config
        assert read.layout == layout
        assert read.sha256 == recorded
        assert list(read.weights) == list(parameter_shapes(config))
        for tensor, value in weights.items():
            np.testing.assert_array_equal(read.weights[tensor], value)
            assert read.weights[tensor].flags.writeable
        hashes.add(recorded)
    assert len(hashes) == 1


def test_the_hash_depends_on_every_part(tmp_path: Path) -> None:
    config = CONFIGS["mamba1"]
    weights = random_weights(config)
    changed = dict(weights)
    changed["backbone.norm_f.weight"] = np.nextafter(weights["backbone.norm_f.weight"], np.float32(9))
    hashes = [
        save_checkpoint(tmp_path, config, weights),
        save_checkpoint(tmp_path, config, changed),
        save_checkpoint(tmp_path, config.with_(norm_eps=1e-6), weights),
        save_checkpoint(tmp_path, config, weights, dtype="float64"),
    ]
    assert len(set(hashes)) == 4


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_reduced_precision_widens_exactly(saved: Callable[..., Path], dtype: str) -> None:
    torch = pytest.importorskip("torch")
    weights = random_weights(CONFIGS["mamba1"])
    read = read_checkpoint(saved(dtype=dtype), dtype="float64")
    for name, value in weights.items():
        # torch rounds to nearest, ties to even: the peer for our bfloat16
        expected = torch.from_numpy(value).to(getattr(torch, dtype)).double().numpy()
        np.testing.assert_array_equal(read.weights[name], expected)


def test_bfloat16_rounds_ties_to_even(tmp_path: Path) -> None:
    config = MambaConfig.mamba1(d_model=2, n_layer=1, vocab_size=2)
    weights = random_weights(config)
    # 1 + 2^-8 lies midway between 1 and 1 + 2^-7; 1 + 3 2^-8 midway between 1 + 2^-7 and 1 + 2^-6
    weights["backbone.norm_f.weight"] = np.array([1 + 2**-8, 1 + 3 * 2**-8], np.float32)
    save_checkpoint(tmp_path, config, weights, dtype="bfloat16")
    np.testing.assert_array_equal(read_checkpoint(tmp_path).weights["backbone.norm_f.weight"], [1, 1 + 2**-6])
    for dtype, value in (("float16", 7e4), ("bfloat16", 3.4e38)):
        weights["backbone.norm_f.weight"] = np.array([1, value], np.float32)
        with pytest.raises(InputError, match=r"norm_f.weight overflows"):
            save_checkpoint(tmp_path, config, weights, dtype=dtype)


def test_safetensors_own_reader_agrees(saved: Callable[..., Path]) -> None:
    from safetensors.numpy import load_file

    stored = load_file(saved() / "model.safetensors")
    for name, value in random_weights(CONFIGS["mamba1"]).items():
        np.testing.assert_array_equal(stored[name], value)


# ---------------------------------------------------------------------- what is refused
def _rewrite(folder: Path, change: Callable[[dict], object]) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def _set(name: str, value: np.ndarray) -> Callable[[dict], object]:
    return lambda tensors: tensors.__setitem__(name, value)


A_LOG = "backbone.layers.1.mixer.A_log"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop(A_LOG), rf"missing {A_LOG}"),
        (_set("backbone.layers.0.mixer.extra", np.zeros(1, np.float32)), r"unknown backbone.layers.0.mixer.extra"),
        (lambda t: t.__setitem__("backbone.layers.1.mixer.Alog", t.pop(A_LOG)), rf"Did you mean '{A_LOG}'"),
        (_set(A_LOG, np.zeros((16, 4), np.float32)), rf"{A_LOG} has shape \(16, 4\), but .* \(16, 3\)"),
        (_set(A_LOG, np.zeros((16, 3), np.int32)), rf"{A_LOG} has dtype I32"),
        (_set(A_LOG, np.zeros((16, 3), np.complex64)), rf"{A_LOG} has dtype C64|not a valid safetensors"),
        (_set(A_LOG, np.full((16, 3), np.nan, np.float32)), rf"{A_LOG} holds NaN or infinity"),
        (_set(A_LOG, np.full((16, 3), np.inf, np.float16)), rf"{A_LOG} holds NaN or infinity"),
        (_set("lm_head.weight", np.zeros((11, 8), np.float32)), r"ties the embeddings, but lm_head.weight differs"),
        (_set("backbone.embeddings.weight", np.zeros((11, 8), np.float32)), r"two tensors are called"),
        (lambda t: [t.pop(n) for n in list(t) if ".layers.1." in n], r"says 2 layers, but the weights have 1"),
        (lambda t: t.clear(), r"says 2 layers, but the weights have 0"),
    ],
)
def test_wrong_tensors_are_named(saved: Callable[..., Path], change: Callable[[dict], object], says: str) -> None:
    folder = saved()
    _rewrite(folder, change)
    with pytest.raises(CheckpointError, match=says):
        read_checkpoint(folder)


def test_nan_in_bfloat16(saved: Callable[..., Path]) -> None:
    folder = saved(dtype="bfloat16")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-2] + b"\xc0\x7f")
    with pytest.raises(CheckpointError, match=r"norm_f.weight holds NaN"):
        read_checkpoint(folder)


def test_a_stored_tied_head_is_accepted_when_it_is_the_embedding(saved: Callable[..., Path]) -> None:
    folder = saved()
    before = read_checkpoint(folder)
    _rewrite(folder, lambda t: t.__setitem__("lm_head.weight", t["backbone.embedding.weight"].copy()))
    assert read_checkpoint(folder).sha256 == before.sha256


def test_a_bare_backbone_is_read(saved: Callable[..., Path]) -> None:
    folder = saved(layout="huggingface")
    before = read_checkpoint(folder)
    _rewrite(folder, lambda t: [t.__setitem__(n.removeprefix("backbone."), t.pop(n)) for n in list(t)])
    assert read_checkpoint(folder).sha256 == before.sha256


def _configure(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        if value is ...:
            config.pop(key)
        else:
            config[key] = value
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"d_model": 16}, r"backbone.embedding.weight has shape \(11, 8\), but config.json asks for \(11, 16\)"),
        ({"n_layer": 3}, r"config.json says 3 layers, but the weights have 2"),
        ({"n_layer": 60_000_000}, r"says 60000000 layers"),
        ({"vocab_size": 12}, r"embedding.weight has shape"),
        ({"d_model": ...}, r"neither model_type .* nor d_model"),
        ({"n_layer": ...}, r"config.json lacks n_layer"),
        ({"n_layer": "2"}, r"n_layer must be an integer"),
        ({"n_layer": True}, r"n_layer must be an integer"),
        ({"d_model": 10**30}, r"d_model must be an integer"),
        ({"d_model": -8}, r"d_model must be an integer"),
        ({"norm_epsilon": -1}, r"norm_eps must be"),
        ({"norm_epsilon": math.nan}, r"norm_eps must be"),
        ({"norm_epsilon": "small"}, r"norm_epsilon must be a number"),
        ({"rms_norm": 1}, r"rms_norm must be true or false"),
        ({"rms_norm": False}, r"missing backbone.layers.0.norm.bias"),
        ({"tie_embeddings": False}, r"missing lm_head.weight"),
        ({"ssm_cfg": []}, r"ssm_cfg must be an object"),
        ({"ssm_cfg": {"d_stat": 3}}, r"unknown key ssm_cfg.d_stat. Did you mean 'd_state'"),
        ({"ssm_cfg": {"layer": "Mamba3"}}, r"ssm_cfg.layer is 'Mamba3'"),
        ({"ssm_cfg": {"layer": "Mamba2", "headdim": 3}}, r"not a multiple of head_dim"),
        ({"ssm_cfg": {"layer": "Mamba2", "headdim": 4, "d_ssm": 8}}, r"d_ssm"),
        ({"ssm_cfg": {"dt_rank": "big"}}, r"dt_rank must be an integer or 'auto'"),
        ({"ssm_cfg": {"expand": 0}}, r"expand must be"),
        ({"attn_layer_idx": [1]}, r"attn_layer_idx"),
        ({"d_intermediate": 32}, r"d_intermediate"),
        ({"model_type": "llama"}, r"model_type is 'llama'"),
        ({"model_type": ["mamba"]}, r"model_type is"),
        ({"model_type": "mamba"}, r"config.json lacks hidden_size"),
    ],
)
def test_a_config_that_contradicts_the_weights(saved: Callable[..., Path], changes: dict, says: str) -> None:
    folder = saved()
    _configure(folder, **changes)
    with pytest.raises(CheckpointError, match=says):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hidden_act": "gelu"}, r"hidden_act is 'gelu'"),
        ({"num_heads": 5}, r"num_heads is 5, but .* is 4"),
        ({"n_groups": 3}, r"n_heads=4 is not a multiple of n_groups=3"),
        ({"time_step_limit": [0.5]}, r"time_step_limit must be two numbers"),
        ({"time_step_limit": [0.5, 0.1]}, r"time_step_limit must be an interval"),
        ({"time_step_limit": [0.0, {"__float__": "Infinity"}]}, None),
    ],
)
def test_huggingface_mamba2_configs(saved: Callable[..., Path], changes: dict, says: str | None) -> None:
    folder = saved("mamba2", layout="huggingface")
    _configure(folder, **changes)
    if says is None:
        assert read_checkpoint(folder).config.time_step_limit == (0.0, math.inf)
    else:
        with pytest.raises(CheckpointError, match=says):
            read_checkpoint(folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", r"not valid JSON"),
        (b"\xff\xfe{}", r"not UTF-8"),
        (b"[" * 200_000, r"nested too deeply"),
        (b'{"d_model": 8, "d_model": 9}', r"'d_model' appears twice"),
        (b"[]", r"must hold an object"),
        (b'{"d_model": 1' + b"0" * 10_000 + b"}", r"not valid JSON"),
    ],
)
def test_broken_json(saved: Callable[..., Path], text: bytes, says: str) -> None:
    folder = saved()
    (folder / "config.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=says):
        read_checkpoint(folder)


def test_absent_files(tmp_path: Path, saved: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match="is not a folder"):
        read_checkpoint(tmp_path / "nothing")
    folder = saved()
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"weights.safetensors is not a name that is read"):
        read_checkpoint(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config.json: no such file"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f, i: (f / i["weight_map"][A_LOG]).unlink(), r"the shard model-0000\d-of-00003.safetensors .* missing"),
        (lambda f, i: i["weight_map"].pop(A_LOG), rf"has {A_LOG}, which .* does not list"),
        (lambda f, i: i["weight_map"].update({"x": i["weight_map"][A_LOG]}), r"lacks x, which .* says it has"),
        (
            lambda f, i: i["weight_map"].update({A_LOG: "../evil.safetensors"}),
            r"not a .safetensors file of this folder",
        ),
        (lambda f, i: i["weight_map"].update({A_LOG: 3}), r"not a .safetensors file of this folder"),
        (lambda f, i: i.pop("weight_map"), r"has no weight_map"),
    ],
)
def test_shards_that_contradict_their_index(
    saved: Callable[..., Path], change: Callable[[Path, dict], object], says: str
) -> None:
    folder = saved(shards=3)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    change(folder, index)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=says):
        read_checkpoint(folder)


def test_the_card_guards_every_bit(saved: Callable[..., Path]) -> None:
    folder = saved(card={"name": "tiny"})
    assert read_checkpoint(folder).sha256 == json.loads((folder / "card.json").read_text())["sha256"]
    file = folder / "model.safetensors"
    good = file.read_bytes()
    start = 8 + struct.unpack("<Q", good[:8])[0]
    rng = np.random.default_rng(0)
    for _ in range(50):
        bad = bytearray(good)
        bad[rng.integers(start, len(bad))] ^= 1 << rng.integers(8)
        file.write_bytes(bad)
        with pytest.raises(CheckpointError, match=r"is damaged|NaN or infinity"):
            read_checkpoint(folder)
    file.write_bytes(good)
    _configure(folder, norm_epsilon=1e-4)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_checkpoint(folder)


# ---------------------------------------------------------------------- torch files
def _save_bin(folder: Path, state: object) -> Path:
    torch = pytest.importorskip("torch")
    (folder / "model.safetensors").unlink(missing_ok=True)
    torch.save(state, folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_bin_files(saved: Callable[..., Path], dtype: str) -> None:
    torch = pytest.importorskip("torch")
    folder = saved(dtype=dtype)
    expected = read_checkpoint(folder)
    state = {n: torch.from_numpy(v).to(getattr(torch, dtype)) for n, v in expected.weights.items()}
    state["lm_head.weight"] = state["backbone.embedding.weight"]  # as mamba_ssm's save_pretrained writes a tied head
    _save_bin(folder, state)
    read = read_checkpoint(folder)
    assert read.files == ("pytorch_model.bin",)
    assert read.sha256 == expected.sha256


class _Bomb:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_pickled_code_is_refused_and_never_runs(saved: Callable[..., Path], tmp_path: Path) -> None:
    folder = saved()
    target = tmp_path / "executed"
    _save_bin(folder, {"backbone.embedding.weight": _Bomb(target)})
    with pytest.raises(CheckpointError, match=r"refused: its pickle names .*Nothing in it was executed"):
        read_checkpoint(folder)
    # a bare pickle is not even opened as one
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Bomb(target)))
    with pytest.raises(CheckpointError, match="not a torch zip file"):
        read_checkpoint(folder)
    # names assembled on the pickle's stack (protocol 4) are seen, too
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        archive.writestr("m/data.pkl", pickle.dumps({"x": _Bomb(target)}, protocol=4))
        archive.writestr("m/version", "3\n")
    with pytest.raises(CheckpointError, match="refused: its pickle names"):
        read_checkpoint(folder)
    assert not target.exists()


def test_odd_torch_files(saved: Callable[..., Path]) -> None:
    torch = pytest.importorskip("torch")
    folder = saved()
    for state, says in (
        ([torch.zeros(2)], "does not hold a state dict"),
        ({"a": 3}, "a is not a dense tensor"),
        ({1: torch.zeros(2)}, "does not hold a state dict"),
        ({"a": torch.zeros(1).expand(10**12)}, "larger than the file"),
        ({"a": torch.zeros(2, dtype=torch.float64)}, "says 2 layers, but the weights have 0"),
        ({"a": torch.zeros(2, dtype=torch.int64)}, r"names 'torch.LongStorage'"),
    ):
        _save_bin(folder, state)
        with pytest.raises(CheckpointError, match=says):
            read_checkpoint(folder)
    file = folder / "pytorch_model.bin"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", b"\0" * 10**7)
    with pytest.raises(CheckpointError, match="is compressed"):
        read_checkpoint(folder)


# ---------------------------------------------------------------------- fuzzing
@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch = pytest.importorskip("torch")
    base = tmp_path_factory.mktemp("good")
    config = MambaConfig.mamba1(d_model=4, n_layer=1, vocab_size=3, d_state=2)
    weights = random_weights(config)
    save_checkpoint(base / "safetensors", config, weights)
    save_checkpoint(base / "sharded", config, weights, layout="huggingface", shards=2)
    shutil.copytree(base / "safetensors", base / "bin")
    (base / "bin" / "model.safetensors").unlink()
    torch.save({n: torch.from_numpy(v) for n, v in weights.items()}, base / "bin" / "pytorch_model.bin")
    return {kind: base / kind for kind in ("safetensors", "sharded", "bin")}


def _damage(data: bytes, kind: str, position: float, noise: bytes) -> bytes:
    at = min(int(position * len(data)), len(data) - 1)
    if kind == "flip":
        return data[:at] + bytes([data[at] ^ (1 << noise[0] % 8)]) + data[at + 1 :]
    if kind == "truncate":
        return data[:at]
    if kind == "overwrite":
        return (data[:at] + noise + data[at + len(noise) :])[: len(data)]
    if kind == "insert":
        return data[:at] + noise + data[at:]
    if kind == "header":
        return noise[:8].ljust(8, b"\0") + data[8:]
    return noise


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    which=st.sampled_from(["safetensors", "sharded", "bin"]),
    pick=st.floats(0, 1, exclude_max=True),
    kind=st.sampled_from(["flip", "flip", "truncate", "overwrite", "insert", "header", "replace"]),
    position=st.one_of(st.floats(0, 1), st.floats(0, 0.1)),
    noise=st.binary(min_size=1, max_size=64),
)
@example(which="safetensors", pick=0.9, kind="header", position=0.0, noise=b"\xff" * 8)
@example(which="safetensors", pick=0.9, kind="header", position=0.0, noise=(99 << 20).to_bytes(8, "little"))
@example(which="safetensors", pick=0.9, kind="replace", position=0.0, noise=b"\0" * 8)
@example(which="safetensors", pick=0.9, kind="truncate", position=0.0, noise=b"\0")
def test_a_damaged_checkpoint_never_raises_anything_else(
    good: dict[str, Path],
    tmp_path: Path,
    which: str,
    pick: float,
    kind: str,
    position: float,
    noise: bytes,
) -> None:
    folder = tmp_path / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(good[which], folder)
    files = sorted(folder.iterdir())
    file = files[int(pick * len(files))]
    file.write_bytes(_damage(file.read_bytes(), kind, position, noise))
    try:
        read = read_checkpoint(folder)
    except CheckpointError as error:
        said = str(error)
    else:  # damage that still is a valid model: a value of a weight or of the configuration
        assert all(np.isfinite(value).all() for value in read.weights.values())
        return
    assert said
    assert "\n" not in said


def test_a_lying_header_costs_no_memory(good: dict[str, Path], tmp_path: Path) -> None:
    import tracemalloc

    shutil.copytree(good["safetensors"], tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    huge = {"backbone.embedding.weight": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
    many = {f"backbone.layers.0.{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(1000)}
    tracemalloc.start()
    for header in (huge, many, {"a": {"dtype": "F32", "shape": [1 << 33, 1 << 33], "data_offsets": [0, 0]}}):
        text = json.dumps(header).encode()
        file.write_bytes(struct.pack("<Q", len(text)) + text)
        with pytest.raises(CheckpointError):
            read_checkpoint(tmp_path / "m")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 << 20
