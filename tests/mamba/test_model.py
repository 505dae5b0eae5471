"""What a loaded model can do: state, sampling, streaming, traces, names, tokenizers, the hub."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssmtheory import resources
from ssmtheory.errors import BackendError, CheckpointError, InputError, MissingDependencyError, StoreError
from ssmtheory.mamba import (
    ByteTokenizer,
    MambaConfig,
    MambaLM,
    MixerSignals,
    available,
    block,
    hook,
    load,
    parameter_shapes,
    read_checkpoint,
)
from ssmtheory.mamba.trace import ALIASES, NAMES, split_alias

CONFIGS = {
    "mamba1": MambaConfig.mamba1(d_model=12, n_layer=3, vocab_size=256, d_state=4),
    "mamba2": MambaConfig.mamba2(d_model=12, n_layer=2, vocab_size=31, d_state=4, head_dim=4, n_groups=3),
    "falcon_mamba": MambaConfig.falcon_mamba(d_model=12, n_layer=2, vocab_size=31, d_state=4),
}


def random_model(name: str = "mamba1", dtype: str = "float32", **options: Any) -> MambaLM:
    config = CONFIGS[name]
    rng = np.random.default_rng(0)
    weights = {
        n: (rng.standard_normal(s) / np.sqrt(s[-1] if len(s) > 1 else 1)).astype(dtype)
        for n, s in parameter_shapes(config).items()
    }
    return MambaLM(config, weights, name=name, **options)


def some_ids(model: MambaLM, batch: int = 2, length: int = 21) -> np.ndarray:
    return np.random.default_rng(5).integers(0, model.config.vocab_size, (batch, length))


# ---------------------------------------------------------------------- evaluation
def test_greedy_generation_is_the_argmax_of_one_shot_logits() -> None:
    model = random_model(dtype="float64")
    ids = some_ids(model, 2, 7)
    made = model.generate(ids, 6, temperature=0)
    assert made.shape == (2, 6)
    assert made.dtype == np.int64
    text = ids
    for i in range(6):
        expected = np.argmax(model(text)[:, -1], axis=-1)
        np.testing.assert_array_equal(made[:, i], expected)
        text = np.concatenate([text, expected[:, None]], axis=1)


def test_sampling_is_seeded_and_follows_the_softmax() -> None:
    model = random_model("mamba2", dtype="float64")
    prompt = np.repeat(some_ids(model, 1, 3), 4000, axis=0)
    first = model.generate(prompt, 1, seed=3, temperature=0.7)[:, 0]
    np.testing.assert_array_equal(model.generate(prompt, 1, seed=3, temperature=0.7)[:, 0], first)
    assert not np.array_equal(model.generate(prompt, 1, seed=4, temperature=0.7)[:, 0], first)
    scores = model(prompt[:1])[0, -1] / 0.7
    p = np.exp(scores - scores.max())
    p /= p.sum()
    counts = np.bincount(first, minlength=31)
    # each count is binomial: 5 standard deviations, and 31 of them
    assert np.all(np.abs(counts - 4000 * p) <= 5 * np.sqrt(4000 * p * (1 - p)) + 1)


def test_generation_continues_a_state() -> None:
    model = random_model(dtype="float64")
    ids = some_ids(model)
    _, state = model(ids[:, :10], return_state=True)
    whole = model.generate(ids, 4, seed=1)
    np.testing.assert_array_equal(model.generate(ids[:, 10:], 4, seed=1, state=state), whole)
    assert model.generate(ids, 0).shape == (2, 0)


@pytest.mark.parametrize("name", CONFIGS)
def test_streaming_is_the_one_shot_pass(name: str) -> None:
    model = random_model(name, dtype="float64")
    ids = some_ids(model)
    logits, seen = [], []
    state = model.stream(
        ids, lambda k, s: seen.append((k, s.start)), chunk=8, on_logits=lambda start, x: logits.append((start, x))
    )
    assert state.position == 21
    assert seen == [(k, start) for start in (0, 8, 16) for k in range(model.n_layer)]
    assert [start for start, _ in logits] == [0, 8, 16]
    # float64 rounding of another order of sums
    np.testing.assert_allclose(np.concatenate([x for _, x in logits], axis=1), model(ids), atol=1e-12)


def test_last_and_no_logits() -> None:
    model = random_model()
    ids = some_ids(model)
    # NumPy's matrix product rounds differently for one row
    np.testing.assert_allclose(model(ids, logits="last"), model(ids)[:, -1:], rtol=1e-5, atol=1e-6)
    assert model(ids, logits="none") is None


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m: m(np.zeros(3, int)), r"tokens have shape \(3,\)"),
        (lambda m: m(np.zeros((1, 3))), "must be integers"),
        (lambda m: m(np.full((1, 3), 256)), "token id 256: mamba1 has ids 0 to 255"),
        (lambda m: m(np.full((1, 3), -1)), "token id -1"),
        (lambda m: m(np.zeros((1, 3), int), logits="some"), "logits='some'"),
        (lambda m: m(np.zeros((1, 3), int), m(np.zeros((2, 3), int), return_state=True)[1]), "batch of 2"),
        (lambda m: m.step(np.zeros((1, 3), int)), r"token has shape \(1, 3\)"),
        (lambda m: m.generate(np.zeros((1, 0), int), 1), "at least one token"),
        (lambda m: m.generate(np.zeros((1, 1), int), -1), "n must be an integer"),
        (lambda m: m.generate(np.zeros((1, 1), int), 1, temperature=-1), "temperature must be"),
        (lambda m: m.stream(np.zeros((1, 1), int), chunk=0), "chunk must be a positive integer"),
        (lambda m: m.trace(np.zeros((1, 1), int), chunk=0), "chunk must be a positive integer"),
        (lambda m: m.trace(np.zeros((1, 1), int), ["dleta"]), "unknown trace name 'dleta'.*Did you mean 'delta'"),
        (lambda m: m.trace(np.zeros((1, 1), int), []), "no names to trace"),
        (lambda m: m.trace(np.zeros((1, 1), int), layers=[3]), "layer 3: mamba1 has layers 0 to 2"),
        (lambda m: m.trace(np.zeros((1, 1), int), ["states"], channels=[24]), "channel 24: .* 0 to 23"),
        (
            lambda m: m.trace(np.zeros((1, 1), int), ["blocks.0.hook_resid_prr"]),
            "Did you mean 'blocks.0.hook_resid_pre'",
        ),
        (lambda m: m.to(backend="numpyy"), "Did you mean 'numpy'"),
        (lambda m: m.to(device="cuda"), "needs backend='torch' or 'jax'"),
        (lambda m: MambaLM(m.config, {}), "do not fit the configuration"),
        (
            lambda m: MambaLM(m.config, {n: np.asarray(w, np.float16) for n, w in m.weights.items()}),
            "must all be float32 or all float64, not float16",
        ),
        (lambda m: load("x", dtype="float16"), "no model 'x'"),
        (lambda m: m.save("/tmp", dtype="int8"), "dtype must be one of"),
        (lambda m: m.save("/tmp", layout="orignal"), "Did you mean 'original'"),
    ],
)
def test_bad_arguments_are_named(call: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        call(random_model())


def test_a_device_that_is_not_there() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(BackendError, match="torch has no device 'cuda' here"):
        random_model().to(backend="torch", device="cuda")


# ---------------------------------------------------------------------- traces
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("stored", [False, True])
def test_a_trace_holds_what_a_tap_sees(tmp_path: Path, name: str, stored: bool) -> None:
    model = random_model(name, dtype="float64")
    ids = some_ids(model, 2, 11)
    taken: dict[int, MixerSignals] = {}
    logits = model(ids, tap=lambda k, s: taken.update({k: s}))
    tree = model.trace(ids, NAMES, chunk=4, out=tmp_path / "trace" if stored else None)
    assert tree.attrs["model_sha256"] == model.sha256
    np.testing.assert_array_equal(tree["tokens/token_id"], ids)
    np.testing.assert_allclose(tree["logits/logits"], logits, atol=1e-12)
    c = model.config
    for k, s in taken.items():
        for signal in ("residual", "hidden", "u", "z", "delta", "B", "C", "y", "gated", "update"):
            # chunks of 4 tokens against one pass: float64 rounding
            np.testing.assert_allclose(tree["signals"][signal].sel(layer=k), getattr(s, signal), atol=1e-12)
        np.testing.assert_array_equal(tree["parameters/A"][k], s.A)
        np.testing.assert_array_equal(tree["parameters/D"][k], s.D)
        # the states by their definition, token by token
        per_channel = c.d_inner // s.delta.shape[-1]
        delta = np.repeat(s.delta, per_channel, axis=-1)
        A = np.repeat(s.A[:, None], per_channel, axis=0) if s.A.ndim == 1 else s.A
        spread = (lambda x: np.repeat(x, c.d_inner // c.n_groups, 2)) if s.B.ndim == 4 else (lambda x: x[:, :, None])
        B, C = spread(s.B), spread(s.C)
        h = np.zeros((2, c.d_inner, c.d_state))
        for t in range(11):
            h = np.exp(delta[:, t, :, None] * A) * h + (delta * s.u)[:, t, :, None] * B[:, t]
            np.testing.assert_allclose(tree["states/states"][k, :, t], h, atol=1e-12)
            rms = np.sqrt((h**2).mean(-1))
            np.testing.assert_allclose(tree["signals/state_rms"][k, :, t], rms, atol=1e-12)
        q = np.einsum("...n,...n->...", s.B, s.C)
        np.testing.assert_allclose(tree["signals/q"][k], q, atol=1e-12)
        np.testing.assert_allclose((C * h[:, None])[:, -1].sum(-1) + np.repeat(s.D, c.d_inner // s.D.size) * s.u[:, -1],
                                   s.y[:, -1], atol=1e-12)  # fmt: skip
    units = {str(v): tree["signals"][v].attrs for v in tree["signals"].data_vars}
    assert all(a["long_name"] and a["units"] == "1" for a in units.values())
    if stored:
        with pytest.raises(InputError, match="exists already"):
            model.trace(ids, out=tmp_path / "trace")
        assert [p.name for p in tmp_path.iterdir()] == ["trace"]


def test_chosen_layers_channels_and_hook_names(tmp_path: Path) -> None:
    model = random_model(dtype="float64")
    ids = some_ids(model, 1, 9)
    full = model.trace(ids, ["states", "residual", "z"])
    some = model.trace(ids, ["states"], layers=[2, 0], channels=[5, 1], out=tmp_path / "t")
    assert some["states/states"].dims == ("layer", "sequence", "token", "channel", "state")
    assert some["states"]["layer"].values.tolist() == [0, 2]
    assert some["states"]["channel"].values.tolist() == [5, 1]
    np.testing.assert_array_equal(some["states/states"], full["states/states"].values[[0, 2]][..., [5, 1], :])
    tree = model.trace(ids, ["blocks.1.hook_resid_pre", "blocks.1.hook_skip"])
    assert tree["signals"]["layer"].values.tolist() == [1]
    np.testing.assert_array_equal(hook(tree, "blocks.1.hook_resid_pre"), full["signals/residual"][1])
    np.testing.assert_array_equal(hook(tree, "blocks.1.hook_skip"), full["signals/z"][1])
    np.testing.assert_array_equal(hook(full, "residual"), full["signals/residual"])
    for alias, target in ALIASES.items():
        assert split_alias(f"blocks.7.{alias}") == (target, 7)
        assert target in NAMES
    with pytest.raises(InputError, match="holds layers"):
        hook(tree, "blocks.0.hook_skip")
    with pytest.raises(InputError, match="does not hold 'u'"):
        hook(tree, "blocks.1.hook_ssm_input")


def test_an_interrupted_trace_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model()

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ssmtheory.mamba.trace._Writer.finish", stop)
    with pytest.raises(KeyboardInterrupt):
        model.trace(some_ids(model), out=tmp_path / "t")
    assert not list(tmp_path.iterdir())


def test_folders_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="a file of that name is in the way"):
        model.save(tmp_path / "file" / "model")
    with pytest.raises(StoreError, match="a file of that name is in the way"):
        model.trace(some_ids(model), out=tmp_path / "file" / "trace")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ssmtheory.results.fs.fsync", full)
    with pytest.raises(StoreError, match="no space left"):
        model.save(tmp_path / "model")
    (tmp_path / "model").rmdir()  # empty: no half-written file stays
    with pytest.raises(StoreError, match="no space left"):
        model.trace(some_ids(model), out=tmp_path / "trace")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_models_on_other_libraries_trace_to_the_same_numbers(backend: str) -> None:
    pytest.importorskip(backend)
    model = random_model("mamba2", dtype="float64")
    ids = some_ids(model, 1, 6)
    names = ["u", "q", "state_rms", "logits"]
    ours, theirs = model.trace(ids, names), model.to(backend=backend).trace(ids, names)
    for path in ("signals/u", "signals/q", "signals/state_rms", "logits/logits"):
        assert theirs[path].dtype == np.float64
        np.testing.assert_allclose(theirs[path], ours[path], atol=1e-12)


# ---------------------------------------------------------------------- one mixer from arrays
def test_a_block_from_arrays_is_the_model_s_mixer() -> None:
    for name in CONFIGS:
        model = random_model(name).to(dtype="float64")
        taken: dict[int, MixerSignals] = {}
        model(some_ids(model), tap=lambda k, s, taken=taken: taken.update({k: s}))
        config = None if name == "mamba1" else model.config
        signals = block(model.weights, taken[1].hidden, config=config, prefix="backbone.layers.1.mixer.")
        np.testing.assert_array_equal(signals.update, taken[1].update)
    weights = {n.removeprefix("backbone.layers.1.mixer."): w for n, w in model.weights.items() if ".1.mixer." in n}
    with pytest.raises(InputError, match=r"no array A_log"):
        block({n: w for n, w in weights.items() if n != "A_log"}, taken[1].hidden)
    with pytest.raises(InputError, match=r"D has shape \(3,\): must be \(24,\)"):
        block(weights | {"D": np.zeros(3, np.float32)}, taken[1].hidden)
    with pytest.raises(InputError, match=r"hidden has shape"):
        block(weights, taken[1].hidden[..., :5])


@pytest.mark.shared
def test_a_third_party_trained_block(shared_data: Path) -> None:
    """MambaLite-Micro's keyword spotter: Linear, one mamba_ssm block, mean, Linear; it picks its last class."""
    folder = shared_data / "models" / "mambalite_kws10"
    with np.load(folder / "kws10.npz") as file:
        arrays = dict(file)
    with np.load(folder / "kws_sample.npz") as file:
        sample = file["x"]
    hidden = sample @ arrays["linear_in_weight"].T + arrays["linear_in_bias"]
    signals = block(arrays, hidden[None], prefix="mamba_")
    assert signals.u.shape == (1, 100, 128)
    assert signals.B.shape == (1, 100, 16)
    assert np.all(signals.delta > 0)
    logits = signals.update[0].mean(axis=0) @ arrays["classifier_weight"].T + arrays["classifier_bias"]
    assert logits.shape == (10,)
    assert int(np.argmax(logits)) == 9
    exact = block(
        {n: a.astype(np.float64) for n, a in arrays.items()}, hidden[None].astype(np.float64), prefix="mamba_"
    )
    # float32 against float64 through one block
    assert np.abs(signals.update - exact.update).max() < 1e-5 * np.abs(exact.update).max()
    # the skip and the scan are told apart
    scan = signals.y - signals.D * signals.u
    assert np.abs(scan).max() > 0.01 * np.abs(signals.y).max()


# ---------------------------------------------------------------------- names
@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with one embedded model."""
    base = tmp_path / "pretrained"
    random_model().save(base / "tiny-mamba", dtype="float16", card={"name": "tiny-mamba"})
    monkeypatch.setattr("ssmtheory.mamba.model.resource_folder", lambda kind: base)
    return base


def test_an_embedded_model(bundled: Path) -> None:
    assert available() == ["tiny-mamba"]
    model = load("tiny-mamba")
    assert isinstance(model, MambaLM)
    assert model.name == "tiny-mamba"
    assert model.sha256 == json.loads((bundled / "tiny-mamba" / "card.json").read_text())["sha256"]
    assert model.check is not None
    assert model.check.peer == "none consulted"
    assert model.tokenizer.name == "bytes"
    assert model.tokenizer.encode("to be").tolist() == [116, 111, 32, 98, 101]
    assert "tiny-mamba" in repr(model)
    file = bundled / "tiny-mamba" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="tiny-mamba is damaged"):
        load("tiny-mamba")


def test_an_unknown_name(bundled: Path) -> None:
    with pytest.raises(InputError) as caught:
        load("tiny-mmaba")
    assert str(caught.value).splitlines() == [
        "no model 'tiny-mmaba': it is neither bundled (tiny-mamba) nor a folder with config.json",
        "       did you mean 'tiny-mamba'?",
        "       from the hub: --model hf:state-spaces/mamba-130m-hf",
    ]
    with pytest.raises(InputError) as caught:
        load("something-else")
    assert "did you mean" not in str(caught.value)


def test_embedded_models_load_without_torch() -> None:
    names = available()
    if not names:
        pytest.skip("this checkout embeds no weights yet")
    heavy = "{'torch', 'jax', 'transformers'}"
    code = f"import sys, ssmtheory.mamba as m; m.load({names[0]!r}); print({heavy} & set(sys.modules))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", available())
def test_embedded_models_agree_with_transformers(name: str) -> None:
    pytest.importorskip("transformers")
    from ssmtheory.mamba.adapters import self_check

    model = load(name)
    assert isinstance(model, MambaLM)
    assert self_check(model, tokens=40).deviation < 1e-4
    folder = resources.folder("weights") / name
    assert (folder / "README.md").exists()
    assert "sha256" in json.loads((folder / "card.json").read_text())


def test_the_package_imports_lazily() -> None:
    code = "import sys, ssmtheory.mamba; print(sorted({'torch', 'jax', 'xarray', 'zarr', 'scipy'} & set(sys.modules)))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------- tokenizers
def word_tokenizer(path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"to": 0, "be": 1, "or": 2, "[UNK]": 3}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(path))


def test_a_tokenizer_file(tmp_path: Path) -> None:
    model = random_model("falcon_mamba")
    model.save(tmp_path)
    plain = load(tmp_path, check=False)
    with pytest.raises(InputError, match=r"no tokenizer.json: give token ids instead"):
        _ = plain.tokenizer
    word_tokenizer(tmp_path / "tokenizer.json")
    tokenizer = load(tmp_path, check=False).tokenizer
    assert tokenizer.encode("to be or not").tolist() == [0, 1, 2, 3]
    assert tokenizer.decode(np.array([0, 1])) == "to be"
    (tmp_path / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(CheckpointError, match="is not a readable tokenizer"):
        load(tmp_path, check=False)


def test_bytes() -> None:
    tokenizer = ByteTokenizer()
    text = "naïve ☃"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode(text)[:-1]).endswith("�")
    with pytest.raises(InputError, match=r"0\.\.255"):
        tokenizer.decode(np.array([256]))


# ---------------------------------------------------------------------- the hub
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Hub(BaseHTTPRequestHandler):
    """The few routes of the Hugging Face hub that a download uses, for one repository in a folder."""

    def __init__(self, folder: Path, log: list[str], *args: Any) -> None:
        self.folder, self.log = folder, log
        super().__init__(*args)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.log.append(path)
        names = sorted(p.name for p in self.folder.iterdir())
        if path.startswith("/api/models/org/tiny/tree/"):
            listed = [
                {"type": "file", "path": n, "size": (self.folder / n).stat().st_size, "oid": "0" * 40} for n in names
            ]
            self._send(json.dumps(listed).encode(), "application/json", body)
        elif path.startswith("/api/models/org/tiny"):
            said = {"id": "org/tiny", "sha": COMMIT, "tags": [], "siblings": [{"rfilename": n} for n in names]}
            self._send(json.dumps(said).encode(), "application/json", body)
        elif path.startswith("/org/tiny/resolve/"):
            file = self.folder / path.rpartition("/")[2]
            if file.exists():
                self._send(file.read_bytes(), "application/octet-stream", body, file.name)
            else:
                self.send_error(404)
        else:
            self.send_error(404)

    def _send(self, data: bytes, kind: str, body: bool, name: str = "") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{len(data):040x}"')
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    folder = tmp_path / "repository"
    random_model("falcon_mamba").save(folder)
    word_tokenizer(folder / "tokenizer.json")
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    log: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Hub, folder, log))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder, log
    server.shutdown()
    server.server_close()


def _load_from_hub(source: str, endpoint: str, cache: Path, **more: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys, ssmtheory.mamba as m\n"
        "from ssmtheory.errors import SsmTheoryError\n"
        "try:\n"
        "    x = m.load(sys.argv[1], check=False)\n"
        "    print(x.name, x.sha256, x.tokenizer.encode('to be').tolist())\n"
        "except SsmTheoryError as e:\n"
        "    print(type(e).__name__, e)\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", **more}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(
        [sys.executable, "-c", code, source], cwd=root, env=environment, capture_output=True, text=True, timeout=120
    )


def test_a_download_from_the_hub(hub: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    endpoint, folder, log = hub
    expected = read_checkpoint(folder).sha256
    done = _load_from_hub("hf:org/tiny@v1", endpoint, tmp_path / "cache")
    assert done.stdout.split(" ", 2) == ["hf:org/tiny@v1", expected, "[0, 1]\n"], done.stderr
    assert any("/revision/v1" in path for path in log)
    assert any(path.endswith("/model.safetensors") for path in log)
    assert not any("evil" in path for path in log)
    # a second run without the hub finds its copy
    again = _load_from_hub("hf:org/tiny@v1", endpoint, tmp_path / "cache", HF_HUB_OFFLINE="1")
    assert expected in again.stdout, again.stderr
    absent = _load_from_hub("hf:org/nothing", endpoint, tmp_path / "cache")
    assert absent.stdout.startswith("CheckpointError hf:org/nothing cannot be had from the Hugging Face hub:")
    assert absent.stdout.count("\n") == 1


def test_hub_names_and_the_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("hf:tiny", "hf:", "hf:a/b/c", "hf:/b"):
        with pytest.raises(InputError, match="is not of the form hf:ORG/NAME"):
            load(name)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError) as caught:
        load("hf:state-spaces/mamba-130m-hf")
    assert str(caught.value) == (
        "state-spaces/mamba-130m-hf is on the Hugging Face hub, which needs: pip install 'ssmtheory[hf]'"
    )


# ---------------------------------------------------------------------- memory
def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    import tracemalloc

    config = MambaConfig.mamba1(d_model=16, n_layer=2, vocab_size=256, d_state=4)
    rng = np.random.default_rng(0)
    weights = {n: 0.1 * rng.standard_normal(s).astype(np.float32) for n, s in parameter_shapes(config).items()}
    model = MambaLM(config, weights)
    names = ["residual", "u", "delta", "B", "C", "y", "q", "state_rms"]
    peaks = []
    for length in (256, 2048, 8192):  # the first warms the libraries up
        ids = rng.integers(0, 256, (1, length))
        tracemalloc.start()
        model.trace(ids, names, out=tmp_path / str(length), chunk=256)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # the token ids themselves grow (64 KiB); one kept signal of 8192 tokens would be 2 * 8192 * 32 * 4 bytes = 2 MiB
    assert peaks[2] - peaks[1] < 500 << 10


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_long_text_through_a_130m_model_in_under_3_gib() -> None:
    script = Path(__file__).with_name("long_text.py")
    done = subprocess.run([sys.executable, script, "65536"], capture_output=True, text=True, check=True)
    record = json.loads(done.stdout.splitlines()[-1])
    assert record["tokens"] == 65536
    assert record["peak_rss_gib"] < 3
