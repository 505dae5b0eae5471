from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssmtheory.data.ngram import KneserNey
from ssmtheory.data.text import split
from ssmtheory.errors import InputError
from ssmtheory.experiments import pretrain
from ssmtheory.experiments.pretrain import Config
from ssmtheory.scan.c_backend import library_path

pytest.importorskip("torch")

TINY = Config(d_model=8, n_layer=2, d_state=4, steps=32, batch=2, length=16, warmup=4, backend="torch")


@pytest.fixture(autouse=True)
def short_heldout(monkeypatch: pytest.MonkeyPatch):
    """A held-out part of a few windows: the whole text is measured in seconds, not minutes."""
    from ssmtheory.data import text

    whole = text.split
    monkeypatch.setattr(
        text, "split", lambda name: text.Split(name, whole(name).train[:20000], whole(name).heldout[:2000])
    )


def test_training_lowers_the_held_out_loss_and_keeps_checkpoints():
    tree = pretrain.run(TINY)
    bits = tree["heldout/bits_per_byte"]
    # an untrained model knows nothing: 8 bits for 256 equally likely bytes
    assert np.allclose(bits.sel(observed=0), 8, atol=0.1)
    assert (bits.sel(observed=32) < bits.sel(observed=0)).all()
    assert tree["training/loss_bits"].shape == (32,)
    sizes = pretrain.model_config(TINY)
    first = pretrain.checkpoint_weights(tree, 0, sizes)
    from ssmtheory.mamba.initialize import initial_weights

    for name, value in initial_weights(sizes, TINY.seed).items():
        np.testing.assert_array_equal(first[name], value)
    with pytest.raises(InputError, match="no parameters were kept at step 5"):
        pretrain.checkpoint_weights(tree, 5, sizes)


def test_the_stored_model_loses_what_the_final_loss_says(tmp_path: Path):
    """The last checkpoint, exported and read back, against the loss from the logits of the float64 NumPy forward."""
    from ssmtheory.mamba import load

    tree = pretrain.run(TINY)
    names = pretrain.export_models(tree, tmp_path, TINY, name="tiny", content_sha256="0" * 64)
    assert names[-1] == "tiny"
    model = load(tmp_path / "tiny", dtype="float64")
    from ssmtheory.data import text

    for corpus in pretrain.CORPORA:
        tokens = np.frombuffer(text.split(corpus).heldout, dtype=np.uint8).astype(np.int64)[None]
        logits = np.asarray(model(tokens[:, :-1]))[0]
        logits -= logits.max(-1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        bits = -log_p[np.arange(len(log_p)), tokens[0, 1:]].mean() / np.log(2)
        # the exported weights are rounded to float16 (11 bits): a relative change of the loss below 1e-3
        assert float(tree["final/streamed_bits_per_byte"].sel(corpus=corpus)) == pytest.approx(bits, rel=1e-3)


@pytest.mark.skipif(library_path() is None, reason="the C kernel was not compiled")
def test_the_compiled_scan_trains_the_same_model():
    kernel, plain = (pretrain.run(Config(**{**TINY.__dict__, "backend": name})) for name in ("c", "torch"))
    # 32 steps amplify a rounding error of 1e-7 by far less than 1e4
    np.testing.assert_allclose(kernel["training/loss_bits"], plain["training/loss_bits"], rtol=1e-3)


def test_windows_are_a_function_of_seed_and_step():
    texts = {name: np.arange(1000, dtype=np.int64) % 251 for name in pretrain.CORPORA}
    same = [pretrain.windows(TINY, 7, texts) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert not np.array_equal(same[0], pretrain.windows(TINY, 8, texts))
    # a window is a stretch of the text
    assert ((same[0][:, 1:] - same[0][:, :-1]) % 251 == 1).all()


def test_observed_and_kept_steps_include_both_ends():
    for steps in (16, 100, 3000):
        observed, kept = pretrain.observed_steps(steps), pretrain.kept_steps(steps)
        assert {0, steps} <= set(observed)
        assert {0, steps} <= set(kept) <= set(observed)


@pytest.mark.parametrize("change", [{"steps": 3}, {"shakespeare": 1.5}, {"length": 2}])
def test_senseless_configurations_are_refused(change: dict):
    with pytest.raises(InputError):
        pretrain.plan(Config(**{**TINY.__dict__, **change}))


def test_the_embedded_model_beats_kneser_ney():
    """On the same held-out bytes, against 5-grams of the same corpus's whole training text."""
    import ssmtheory.data.text as text
    from ssmtheory.mamba import load

    model = load("shakespeare-1m")
    for corpus in text.CORPORA:
        heldout = split(corpus).heldout[:6000]
        baseline = KneserNey.fit([split(corpus).train]).bits_per_byte(heldout)
        tokens = np.frombuffer(heldout, dtype=np.uint8).astype(np.int64)[None]
        logits = np.asarray(model(tokens[:, :-1]))[0].astype(np.float64)
        logits -= logits.max(-1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        bits = -log_p[np.arange(len(log_p)), tokens[0, 1:]].mean() / np.log(2)
        assert bits < baseline
