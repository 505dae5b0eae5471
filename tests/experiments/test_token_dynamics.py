"""The token-dynamics experiment: every variable of its dataset against a slow definition, on small random models."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from ssmtheory.dynamics import depth
from ssmtheory.errors import ConfigError, InputError
from ssmtheory.experiments import base
from ssmtheory.experiments import token_dynamics as td
from ssmtheory.mamba.config import MambaConfig, parameter_shapes
from ssmtheory.mamba.model import MambaLM
from ssmtheory.mamba.tokenizer import ByteTokenizer
from tests.experiments.synthetic import synthetic_tree

FAMILIES = {
    "mamba1": MambaConfig.mamba1(d_model=8, n_layer=3, vocab_size=256, d_state=4, proj_bias=True),
    "mamba2": MambaConfig.mamba2(d_model=8, n_layer=3, vocab_size=256, d_state=4, head_dim=4, n_groups=2),
    "falcon_mamba": MambaConfig.falcon_mamba(d_model=8, n_layer=3, vocab_size=256, d_state=4),
}
TOKENS, SEQUENCES = 40, 5


def _model(config: MambaConfig, dtype: str = "float64", backend: str = "auto") -> MambaLM:
    """A random model whose Delta is of order 0.3 and whose layers move tokens by a good part of their norm."""
    rng = np.random.default_rng(0)
    weights = {}
    for name, shape in parameter_shapes(config).items():
        if name.endswith("A_log"):
            value = np.log(rng.uniform(0.3, 3.0, shape))
        elif name.endswith(("norm.weight", "norm_f.weight", ".D")):
            value = rng.uniform(0.5, 1.5, shape)
        elif name.endswith(("dt_proj.bias", "dt_bias")):
            value = rng.uniform(-2.5, 0.0, shape)
        else:
            value = rng.normal(size=shape) / math.sqrt(shape[-1] if len(shape) > 1 else 4)
        weights[name] = value.astype(dtype)
    return MambaLM(config, weights, name=f"random-{config.family}", backend=backend, tokenizer=ByteTokenizer())


def _text(tmp_path: Path) -> str:
    rng = np.random.default_rng(1)
    path = tmp_path / "text.txt"
    path.write_bytes(bytes(rng.integers(97, 123, 300).tolist()))
    return str(path)


def _run(model: MambaLM, config: td.Config) -> xr.DataTree:
    plan = td.plan_model(model, config)
    return base.finish(td, plan, {key: td.run_task(plan, key) for key in plan.tasks})


def _signals(model: MambaLM, ids: np.ndarray) -> tuple[list[Any], np.ndarray]:
    """All layers' signals and the logits of one pass over the whole sequence."""
    seen: list[Any] = []
    logits = model(ids[None], tap=lambda _, s: seen.append(s))
    return seen, np.asarray(logits)[0]


@pytest.fixture(scope="module", params=list(FAMILIES))
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[MambaLM, xr.DataTree]:
    model = _model(FAMILIES[request.param])
    text = _text(tmp_path_factory.mktemp("text"))
    # a chunk shorter than the sequence, so that everything crosses chunk borders
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(td, "_CHUNK", 17)
        tree = _run(model, td.Config(text=text, tokens=TOKENS, sequences=SEQUENCES, attention_rows="0,25-26"))
    return model, tree


# float64 throughout; the dataset stores float32: 6e-8 relative, and sums of a few hundred terms beside it
CLOSE = {"rtol": 2e-6, "atol": 1e-7}


def _each(measured: tuple[MambaLM, xr.DataTree]) -> Any:
    model, tree = measured
    for sequence, ids in enumerate(tree["tokens/token_id"].values):
        yield sequence, ids, *_signals(model, ids)


def test_windows_are_the_text(measured: tuple[MambaLM, xr.DataTree], tmp_path: Path) -> None:
    _, tree = measured
    text = np.frombuffer(Path(_text(tmp_path)).read_bytes(), np.uint8)
    starts = tree["text/start"].values
    assert starts[0] == 0
    assert starts[-1] == 300 - TOKENS
    assert (np.diff(starts) >= TOKENS).all()
    for start, ids in zip(starts, tree["tokens/token_id"].values, strict=True):
        np.testing.assert_array_equal(ids, text[start : start + TOKENS])


def test_loss(measured: tuple[MambaLM, xr.DataTree]) -> None:
    _, tree = measured
    for sequence, ids, _, logits in _each(measured):
        probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        bits = -np.log2(probability[np.arange(TOKENS - 1), ids[1:]])
        np.testing.assert_allclose(tree["tokens/loss_bits"].values[sequence, :-1], bits, **CLOSE)
        assert np.isnan(tree["tokens/loss_bits"].values[sequence, -1])
        assert tree["text/bits_per_byte"].values[sequence] == pytest.approx(bits.mean(), rel=1e-5)
        assert tree["text/n_bytes"].values[sequence] == TOKENS - 1


def test_motion_through_depth(measured: tuple[MambaLM, xr.DataTree]) -> None:
    _, tree = measured
    t = tree["tokens"]
    for sequence, _, signals, _ in _each(measured):
        for layer, s in enumerate(signals):
            before, after = s.residual[0], s.residual[0] + s.update[0]
            length = np.linalg.norm(before, axis=1), np.linalg.norm(after, axis=1)
            cosine = (before * after).sum(axis=1) / length[0] / length[1]
            at = (sequence, layer)
            np.testing.assert_allclose(t["residual_norm"].values[at], length[0], **CLOSE)
            np.testing.assert_allclose(t["residual_norm"].values[sequence, layer + 1], length[1], **CLOSE)
            g = (before * s.update[0]).sum(axis=1) / length[0] ** 2
            np.testing.assert_allclose(t["radial_rate"].values[at], g, **CLOSE)
            np.testing.assert_allclose(
                t["step_size"].values[at], np.linalg.norm(s.update[0], axis=1) / length[0], **CLOSE
            )
            np.testing.assert_allclose(t["angular_speed"].values[at], np.arccos(cosine), **CLOSE)


def test_split_of_the_radial_rate(measured: tuple[MambaLM, xr.DataTree]) -> None:
    _, tree = measured
    t, layers = tree["tokens"], tree["layers"]
    total = sum(t[f"g_{name}"].values.astype(float) for name in ("skip", "self", "hist", "bias"))
    np.testing.assert_allclose(total, t["radial_rate"].values, rtol=1e-5, atol=1e-6)
    assert layers["split_residual"].values.max() < 1e-13  # of float64 parts, before they are stored
    assert layers["scan_residual"].values.max() < 1e-13
    parts = [t[f"g_{name}"].values for name in ("skip", "self", "hist", "bias")]
    decidable = np.abs(parts[1] + parts[2]) > np.abs(parts[0] + parts[3])
    np.testing.assert_allclose(layers["chi"].values, decidable.mean(axis=(0, 2)), rtol=1e-6)
    np.testing.assert_allclose(layers["share"].values.sum(axis=1), 1.0, rtol=1e-5)


def test_q(measured: tuple[MambaLM, xr.DataTree]) -> None:
    model, tree = measured
    c = model.config
    for sequence, _, signals, _ in _each(measured):
        for layer, s in enumerate(signals):
            q = tree["tokens/q"].values[sequence, layer]
            B, C = (np.reshape(x[0], (TOKENS, c.n_groups, c.d_state)) for x in (s.B, s.C))
            np.testing.assert_allclose(q, (B * C).sum(axis=-1).mean(axis=1), **CLOSE)
            if c.family == "mamba2":
                continue
            rows = model.weights[f"backbone.layers.{layer}.mixer.x_proj.weight"][c.dt_rank :]
            quadratic = np.array([u @ rows[c.d_state :].T @ rows[: c.d_state] @ u for u in s.u[0]])
            if c.family == "mamba1":
                np.testing.assert_allclose(q, quadratic, **CLOSE)
            # Falcon-Mamba: the norms of B and C rescale the form and keep its sign
            np.testing.assert_array_equal(np.sign(q), np.sign(quadratic))
    fraction = (tree["tokens/q"].values > 0).mean(axis=(0, 2))
    np.testing.assert_allclose(tree["layers/q_positive_fraction"].values, fraction, rtol=1e-6)


def test_memory_of_each_channel(measured: tuple[MambaLM, xr.DataTree]) -> None:
    model, tree = measured
    c, channels = model.config, tree["channels"]
    every = list(_each(measured))
    for layer in range(c.n_layer):
        delta = np.stack([signals[layer].delta[0] for _, _, signals, _ in every])  # (sequence, token, head)
        flat = delta.reshape(-1, delta.shape[-1])
        exact = np.quantile(flat, td.QUANTILES, axis=0, method="inverted_cdf")
        assert np.abs(channels["delta_quantile"].values[layer] / exact - 1).max() < 1 / 32 + 1e-6  # documented error
        np.testing.assert_allclose(channels["delta_mean"].values[layer], flat.mean(axis=0), **CLOSE)
        A = np.broadcast_to(np.asarray(every[0][2][layer].A).reshape(delta.shape[-1], -1), (delta.shape[-1], c.d_state))
        exponent = A * flat.mean(axis=0)[:, None]
        np.testing.assert_allclose(channels["lyapunov"].values[layer], exponent, **CLOSE)
        np.testing.assert_allclose(channels["horizon"].values[layer], -1 / exponent, **CLOSE)
        edges = np.append(channels["delta_bin_lower"].values, channels["delta_bin_upper"].values[-1])
        count = np.histogram(flat.astype(np.float32), edges)[0]
        np.testing.assert_array_equal(channels["delta_histogram"].values[layer], count)
        wide = np.repeat(flat, c.d_inner // flat.shape[1], axis=1)
        a = np.repeat(A, c.d_inner // len(A), axis=0)
        decay_edges = np.append(channels["decay_bin_lower"].values, 1.0)
        counted = np.histogram(np.exp(wide[..., None] * a), decay_edges)[0]
        np.testing.assert_array_equal(channels["decay_histogram"].values[layer], counted)
        # effective receptive field of the last tokens, by the sum over all tokens
        S0, S1 = np.zeros((2, *A.shape))
        for _, _, signals, _ in every:
            d = signals[layer].delta[0]
            B = np.abs(np.reshape(signals[layer].B[0], (TOKENS, c.n_groups, c.d_state)))
            B = np.repeat(B, len(A) // c.n_groups, axis=1)
            for j in range(TOKENS):
                weight = np.exp(A * d[j + 1 :].sum(axis=0)[:, None]) * d[j][:, None] * B[j]
                S0, S1 = S0 + weight, S1 + (TOKENS - 1 - j) * weight
        np.testing.assert_allclose(channels["erf"].values[layer], S1 / S0, **CLOSE)


def test_kappa(measured: tuple[MambaLM, xr.DataTree]) -> None:
    model, tree = measured
    c = model.config
    lags = tree["channels/lag"].values
    assert lags.tolist() == [1, 2, 4, 8, 16]
    every = list(_each(measured))
    for layer in range(c.n_layer):
        A = np.asarray(every[0][2][layer].A)
        heads = len(A)
        a = A.reshape(heads, -1)
        for i, lag in enumerate(lags):
            kernels = np.zeros((SEQUENCES, TOKENS - lag, heads))
            for sequence, _, signals, _ in every:
                s = signals[layer]
                B, C = (np.reshape(x[0], (TOKENS, c.n_groups, c.d_state)) for x in (s.B, s.C))
                B, C = (np.repeat(x, heads // c.n_groups, axis=1) for x in (B, C))
                for t in range(lag, TOKENS):
                    tau = s.delta[0][t - lag + 1 : t + 1].sum(axis=0)
                    kernels[sequence, t - lag] = (C[t] * np.exp(a * tau[:, None]) * B[t - lag]).sum(axis=1)
            np.testing.assert_allclose(
                tree["channels/kappa"].values[layer, i], kernels.mean(axis=(0, 1)), rtol=1e-5, atol=1e-7
            )
            if lag == 1:
                per_token = tree["tokens/kappa"].values[:, layer]
                np.testing.assert_allclose(per_token[:, 1:], kernels.mean(axis=2), **CLOSE)
                assert np.isnan(per_token[:, 0]).all()


def test_state_rms(measured: tuple[MambaLM, xr.DataTree]) -> None:
    model, tree = measured
    c = model.config
    for sequence, _, signals, _ in list(_each(measured))[:2]:
        for layer, s in enumerate(signals):
            delta = np.repeat(s.delta[0], c.d_inner // s.delta.shape[-1], axis=1)
            A = np.asarray(s.A)
            a = np.repeat(A[:, None], c.head_dim, axis=0) if A.ndim == 1 else A
            B = np.repeat(np.reshape(s.B[0], (TOKENS, c.n_groups, c.d_state)), c.d_inner // c.n_groups, axis=1)
            h, rms = np.zeros((c.d_inner, c.d_state)), []
            for t in range(TOKENS):
                h = np.exp(delta[t][:, None] * a) * h + (delta[t] * s.u[0][t])[:, None] * B[t]
                rms.append(math.sqrt((h**2).mean()))
            np.testing.assert_allclose(tree["tokens/state_rms"].values[sequence, layer], rms, **CLOSE)
    lower, upper = (tree[f"layers/position_{end}"].values for end in ("lower", "upper"))
    square = tree["tokens/state_rms"].values.astype(float) ** 2
    for i, (a_, b_) in enumerate(zip(lower, upper, strict=True)):
        expected = np.sqrt(square[:, :, a_:b_].mean(axis=(0, 2)))
        np.testing.assert_allclose(tree["layers/state_rms_by_position"].values[:, i], expected, rtol=1e-5)


def test_hidden_attention(measured: tuple[MambaLM, xr.DataTree]) -> None:
    model, tree = measured
    c = model.config
    assert tree["attention/row_token"].values.tolist() == [0, 25, 26]
    _, _, signals, _ = next(_each(measured))
    for layer, s in enumerate(signals):
        skip = np.repeat(np.asarray(s.D), c.d_inner // len(s.D)) * s.u[0]
        rows = np.repeat(tree["attention/rows"].values[layer].astype(float), c.d_inner // s.delta.shape[-1], axis=2)
        # rows times inputs are the outputs; float32 rows, sums of 40 terms
        output = np.einsum("rjd,jd->rd", rows, s.u[0])
        np.testing.assert_allclose(output, (s.y[0] - skip)[[0, 25, 26]], rtol=1e-5, atol=1e-6)
        mean = tree["attention/rows"].values[layer].mean(axis=2)
        np.testing.assert_allclose(tree["attention/map"].values[layer, [0, 25, 26]], mean, rtol=1e-4, atol=1e-7)
        assert (np.abs(tree["attention/map"].values) <= tree["attention/map_abs"].values + 1e-7).all()


def test_eigenvalues(measured: tuple[MambaLM, xr.DataTree]) -> None:
    model, tree = measured
    c = model.config
    for layer in range(c.n_layer):
        prefix = f"backbone.layers.{layer}.mixer."
        if c.family == "mamba2":
            rows = model.weights[prefix + "in_proj.weight"][2 * c.d_inner :]
        else:
            rows = model.weights[prefix + "x_proj.weight"][c.dt_rank :]
        n, size = c.d_state, c.n_groups * c.d_state
        eig = tree["layers/eig_input_output"].values[layer]
        symmetric = []
        for g in range(c.n_groups):
            S_B, S_C = rows[g * n : (g + 1) * n], rows[size + g * n : size + (g + 1) * n]
            m = S_C.T @ S_B
            dense = np.linalg.eigvals(m)
            for value in dense[np.argsort(-np.abs(dense))[:n]]:
                assert np.abs(eig - value).min() < 1e-8
            both = np.linalg.eigvalsh(0.5 * (m + m.T))
            symmetric.append(both[np.argsort(-np.abs(both))[: 2 * n]])
        ours = tree["layers/eig_symmetric"].values[layer]
        np.testing.assert_allclose(ours, np.sort(np.concatenate(symmetric)), atol=1e-8)
        assert tree["layers/trace_input_output"].values[layer] == pytest.approx(eig.sum().real)
    assert (tree["layers/eigenvalue_scenario"].values == 1).all()


def test_growth_scenarios_and_depth(measured: tuple[MambaLM, xr.DataTree]) -> None:
    _, tree = measured
    layers, t = tree["layers"], tree["tokens"]
    norm = t["residual_norm"].values.astype(float)
    growth = np.log(norm[:, 1:] / norm[:, :-1]).mean(axis=(0, 2))
    np.testing.assert_allclose(layers["growth"].values, growth, rtol=1e-4, atol=1e-7)
    for name, low, high, middle in (
        ("observed", layers["growth_low"].values, layers["growth_high"].values, 0.0),
        ("predicted", layers["q_positive_low"].values, layers["q_positive_high"].values, 0.5),
    ):
        codes = [1 if a > middle else -1 if b < middle else 0 for a, b in zip(low, high, strict=True)]
        assert layers[f"{name}_scenario"].values.tolist() == codes
    q, delta = t["q"].values.astype(float), t["delta"].values.astype(float)
    np.testing.assert_allclose(layers["t_c"].values, np.median(1 / (2 * np.abs(q) * delta), axis=(0, 2)), rtol=1e-5)
    g, step = t["radial_rate"].values.astype(float), t["step_size"].values.astype(float)
    mean, square = g.mean(axis=(0, 2)), (step**2).mean(axis=(0, 2))
    np.testing.assert_allclose(layers["coherent_share"].values, 2 * mean / (2 * mean + square), rtol=1e-4)


def test_clustering_and_its_control(measured: tuple[MambaLM, xr.DataTree]) -> None:
    _, tree = measured
    c = tree["clustering"]
    shown, late = c["token_i"].values, slice(16, None)
    unit = []
    for _, _, signals, _ in _each(measured):
        x = np.stack([s.residual[0] for s in signals] + [signals[-1].residual[0] + signals[-1].update[0]])
        unit.append(x / np.linalg.norm(x, axis=-1, keepdims=True))
    u = np.stack(unit)  # (sequence, depth, token, width)
    first = np.einsum("kid,kjd->kij", u[0], u[0])
    np.testing.assert_allclose(c["cosine"].values, first[:, shown][:, :, shown], atol=1e-6)
    pairs = ~np.eye(TOKENS, dtype=bool)
    mean = np.einsum("skid,skjd->skij", u, u)[:, :, pairs].mean(axis=(0, 2))
    np.testing.assert_allclose(c["mean_cosine"].values, mean, atol=1e-6)
    assert c["anchor_token"].values.tolist() == [0, 1, 2, 4, 8]
    for i, anchor in enumerate(c["anchor_token"].values):
        cosine = np.einsum("skid,rkd->srki", u[:, :, late], u[:, :, anchor]).mean(axis=3)
        own = np.array([cosine[s, s] for s in range(SEQUENCES)]).mean(axis=0)
        other = np.array([cosine[s, r] for s in range(SEQUENCES) for r in range(SEQUENCES) if r != s]).mean(axis=0)
        np.testing.assert_allclose(c["anchor_cosine"].values[:, i], own, atol=1e-6)
        np.testing.assert_allclose(c["anchor_excess"].values[:, i], own - other, atol=1e-6)
        if anchor == 0:
            np.testing.assert_allclose(c["cosine_to_first"].values, own, atol=1e-6)
            np.testing.assert_allclose(c["cosine_to_other_first"].values, other, atol=1e-6)
        assert (c["anchor_excess_low"].values[:, i] <= c["anchor_excess_high"].values[:, i]).all()


def test_concordance_by_counting(measured: tuple[MambaLM, xr.DataTree]) -> None:
    _, tree = measured
    t, found = tree["tokens"], tree["concordance"]
    g = t["radial_rate"].values
    for i, name in enumerate(td.PREDICTORS):
        p = t["g_self"].values + t["g_hist"].values if name == "g_self+g_hist" else t[name].values
        first = 1 if name == "kappa" else 0
        p, outcome = p[..., first:] > 0, g[..., first:] > 0
        agree = (p == outcome).mean(axis=(0, 2))
        a, b = p.mean(axis=(0, 2)), outcome.mean(axis=(0, 2))
        chance = a * b + (1 - a) * (1 - b)
        np.testing.assert_allclose(found["concordance"].values[:, i], agree, atol=1e-6)
        np.testing.assert_allclose(found["chance"].values[:, i], chance, atol=1e-6)
        assert found["kappa"].values[i] == pytest.approx((agree - chance).sum() / (1 - chance).sum(), abs=1e-5)
    b = (g > 0).mean(axis=(0, 2))
    np.testing.assert_allclose(found["majority_baseline"].values, np.maximum(b, 1 - b), atol=1e-6)


def test_verdict_says_what_fails(measured: tuple[MambaLM, xr.DataTree]) -> None:
    model, tree = measured
    lines = td.verdict(tree)
    text = "\n".join(lines)
    assert f"{SEQUENCES} sequences of {TOKENS} tokens" in text
    assert "bits per byte" in text
    scalar = "A is one number per head" if model.config.family == "mamba2" else "A is not scalar"
    for said in (scalar, "Delta has a bias", "void", "gate", "t_c", "kappa"):
        assert said in text
    assert all("nan" not in line for line in lines)
    assert json.loads(tree.attrs["config"])["text"][0]["name"] == "text.txt"  # no path in the record
    assert "/" not in json.loads(tree.attrs["config"])["text"][0]["name"]


# ---------------------------------------------------------------------- the experiment as a whole
def test_no_evidence_on_a_random_model(tmp_path: Path) -> None:
    tree = _run(_model(FAMILIES["mamba1"]), td.Config(text=_text(tmp_path), tokens=50, sequences=6))
    q = tree["concordance"].to_dataset().sel(predictor="q")
    assert not q["pooled_evidence"]
    assert "no evidence that the criterion predicts" in "\n".join(td.verdict(tree))


def test_one_sequence_is_measured_without_intervals(tmp_path: Path) -> None:
    tree = _run(_model(FAMILIES["mamba1"]), td.Config(text=_text(tmp_path), tokens=20, sequences=1))
    assert np.isnan(tree["layers/growth_low"].values).all()
    assert (tree["layers/observed_scenario"].values == 0).all()
    assert "none is possible; five are needed" in "\n".join(td.verdict(tree))


def test_a_subset_of_layers_is_the_same_measurement(tmp_path: Path) -> None:
    model, text = _model(FAMILIES["mamba1"]), _text(tmp_path)
    whole = _run(model, td.Config(text=text, tokens=30, sequences=2))
    part = _run(model, td.Config(text=text, tokens=30, sequences=2, layers=[0, 2]))
    assert part["layers/layer"].values.tolist() == [0, 2]
    for path in ("tokens/q", "tokens/g_hist"):
        np.testing.assert_array_equal(part[path].values, whole[path].values[:, [0, 2]])
    for path in ("channels/erf", "layers/growth", "concordance/concordance"):
        np.testing.assert_array_equal(part[path].values, whole[path].values[[0, 2]])
    np.testing.assert_array_equal(part["tokens/residual_norm"].values, whole["tokens/residual_norm"].values)


def test_twice_the_same_bits(tmp_path: Path) -> None:
    from ssmtheory.results.store import content_sha256

    config = td.Config(text=_text(tmp_path), tokens=30, sequences=3)
    digests = {content_sha256(_run(_model(FAMILIES["mamba1"], "float32"), config)) for _ in range(2)}
    assert len(digests) == 1


def test_tasks_do_not_depend_on_each_other(tmp_path: Path) -> None:
    plan = td.plan_model(_model(FAMILIES["mamba1"]), td.Config(text=_text(tmp_path), tokens=30, sequences=3))
    backwards = {key: td.run_task(plan, key) for key in reversed(plan.tasks)}
    again = td.run_task(plan, plan.tasks[1])
    for name, array in again.items():
        np.testing.assert_array_equal(array, backwards[plan.tasks[1]][name])


def test_float32_stays_close_to_float64(tmp_path: Path) -> None:
    config = td.Config(text=_text(tmp_path), tokens=40, sequences=2)
    single, double = (_run(_model(FAMILIES["mamba1"], dtype), config) for dtype in ("float32", "float64"))
    # rounding of the model itself: 1e-5 of each variable's size
    for path in ("tokens/radial_rate", "tokens/q", "tokens/g_hist", "tokens/state_rms", "channels/erf"):
        scale = np.nanmax(np.abs(double[path].values))
        np.testing.assert_allclose(single[path].values, double[path].values, rtol=0, atol=1e-5 * scale)
    assert single["layers/split_residual"].values.max() < 2e-6
    assert single["layers/scan_residual"].values.max() < 2e-6


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_other_backends_measure_the_same(tmp_path: Path, backend: str) -> None:
    # one layer and one short sequence: JAX compiles every operation of every shape
    config = td.Config(text=_text(tmp_path), tokens=16, sequences=1)
    one = FAMILIES["mamba1"].with_(n_layer=1)
    other = _run(_model(one, backend=backend), config)
    ours = _run(_model(one), config)
    # float64 in every library: rounding only
    for path in ("tokens/radial_rate", "tokens/g_self", "channels/kappa", "tokens/loss_bits"):
        np.testing.assert_allclose(other[path].values, ours[path].values, rtol=1e-5, atol=1e-6)
    assert json.loads(other.attrs["config"])["backend"] == backend


def test_token_ids_in_place_of_text(tmp_path: Path) -> None:
    model, text = _model(FAMILIES["mamba1"]), _text(tmp_path)
    path = tmp_path / "ids.npy"
    np.save(path, np.frombuffer(Path(text).read_bytes(), np.uint8).astype(np.int32))
    by_ids = _run(model, td.Config(token_ids=str(path), tokens=30, sequences=2))
    by_text = _run(model, td.Config(text=text, tokens=30, sequences=2))
    np.testing.assert_array_equal(by_ids["tokens/q"].values, by_text["tokens/q"].values)
    assert np.isnan(by_ids["text/bits_per_byte"].values).all()
    assert "bits per token" in "\n".join(td.verdict(by_ids))


def test_text_from_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(b"to be or not to be, that is the question " * 3)

    monkeypatch.setattr("sys.stdin", Stdin)
    plan = td.plan_model(_model(FAMILIES["mamba1"]), td.Config(text="-", tokens=20, sequences=2))
    assert plan.resolved["text"][0]["name"] == "stdin"
    assert plan.resolved["text"][0]["tokens"] == 123


def test_default_text_is_the_held_out_part(monkeypatch: pytest.MonkeyPatch) -> None:
    from ssmtheory.data import text

    plan = td.plan_model(_model(FAMILIES["mamba1"]), td.Config(tokens=32, sequences=3))
    windows = plan.context.windows
    assert [w.source.name.split()[0] for w in windows] == ["tinyshakespeare", "kjv", "tinyshakespeare"]
    for w in windows:
        heldout = text.split(w.source.name.split()[0]).heldout
        assert bytes(w.source.tokens[w.start : w.start + 32].tolist()) in heldout


def test_plan_estimates_the_size(tmp_path: Path) -> None:
    plan = td.plan_model(_model(FAMILIES["mamba1"]), td.Config(text=_text(tmp_path), tokens=40, sequences=3))
    tree = base.finish(td, plan, {key: td.run_task(plan, key) for key in plan.tasks})
    size = sum(v.nbytes for node in tree.subtree for v in node.to_dataset(inherit=False).data_vars.values())
    assert plan.result_bytes == pytest.approx(size, rel=0.02)  # texts are counted as pointers


# ---------------------------------------------------------------------- bad input
def _refused(config: td.Config, match: str, error: type[Exception] = InputError) -> None:
    with pytest.raises(error, match=match):
        td.plan_model(_model(FAMILIES["mamba1"]), config)


@pytest.mark.parametrize("layers", ["3", "0-3", "1,7", "2-1", "-1"])
def test_layers_out_of_range(tmp_path: Path, layers: str) -> None:
    error = ConfigError if layers == "-1" else InputError
    match = "neither a number nor a range" if layers == "-1" else f"--layers {layers}: random-mamba1 has layers 0 to 2"
    _refused(td.Config(text=_text(tmp_path), tokens=20, sequences=1, layers=layers), match, error)


def test_layers_not_numbers(tmp_path: Path) -> None:
    _refused(td.Config(text=_text(tmp_path), tokens=20, sequences=1, layers="all"), "'all' is neither", ConfigError)
    _refused(td.Config(text=_text(tmp_path), tokens=20, sequences=1, attention_rows="20"), "has tokens 0 to 19")


def test_unusable_texts(tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(b" \n")
    _refused(td.Config(text=str(path), tokens=20), "bad.txt is empty")
    path.write_bytes(b"caf\xe9 au lait")
    _refused(td.Config(text=str(path), tokens=20), r"not UTF-8 \(byte 0xe9 at position 3\): convert it")
    path.write_bytes(b"x" * 100)
    _refused(td.Config(text=str(path), tokens=20, sequences=6), "100 tokens, too short for 6 x 20: use --sequences 5")
    _refused(td.Config(text=str(path), tokens=200, sequences=1), "use --tokens 100 or fewer")
    path.write_bytes(b"x" * 9)
    _refused(td.Config(text=str(path), tokens=20, sequences=1), "9 tokens: at least 16 are needed")
    _refused(td.Config(text=str(tmp_path / "absent.txt"), tokens=20), "absent.txt: cannot be read")
    _refused(td.Config(text=str(tmp_path), tokens=20), "cannot be read")


def test_unusable_token_ids(tmp_path: Path) -> None:
    path = tmp_path / "ids.npy"
    for array, match in (
        (np.array([0, 1, 256]), "id 256 at position 2 is outside the vocabulary, 0 to 255"),
        (np.array([-1, 1]), "id -1 at position 0"),
        (np.zeros((3, 3), int), "vector of integers, not int64 of shape"),
        (np.zeros(9), "vector of integers, not float64"),
    ):
        np.save(path, array)
        _refused(td.Config(token_ids=str(path), tokens=20), match)
    path.write_bytes(b"not an array")
    _refused(td.Config(token_ids=str(path), tokens=20), "not a NumPy .npy array")
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    _refused(td.Config(token_ids=str(path), tokens=20), "not a NumPy .npy array")
    _refused(td.Config(token_ids=str(tmp_path / "absent.npy"), tokens=20), "No such file")


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (td.Config(text="a", token_ids="b"), "exclude each other"),
        (td.Config(tokens=15), "--tokens 15: must be an integer >= 16"),
        (td.Config(sequences=0), "--sequences 0"),
        (td.Config(dtype="float16"), "must be float32 or float64"),
    ],
)
def test_impossible_options(config: td.Config, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        td.plan(config)


def test_a_stream_that_overflows_is_named(tmp_path: Path) -> None:
    model = _model(FAMILIES["mamba1"], "float32")
    model.weights["backbone.layers.1.mixer.out_proj.weight"][:] = np.float32(3e38)
    plan = td.plan_model(model, td.Config(text=_text(tmp_path), tokens=20, sequences=1))
    with np.errstate(all="ignore"), pytest.raises(InputError, match=r"before layer 2 is not finite at token \d+ of"):
        td.run_task(plan, plan.tasks[0])


def test_a_token_without_direction_is_named(tmp_path: Path) -> None:
    model = _model(FAMILIES["mamba1"])
    ids = np.arange(40) % 7
    np.save(tmp_path / "ids.npy", ids)
    model.weights["backbone.embedding.weight"][5] = 0.0
    plan = td.plan_model(model, td.Config(token_ids=str(tmp_path / "ids.npy"), tokens=20, sequences=1))
    with pytest.raises(InputError, match=r"before layer 0 is zero at token 5 of sequence 0 \(id 5\): it has no"):
        td.run_task(plan, plan.tasks[0])


def test_the_embedded_model_on_its_held_out_text() -> None:
    tree = td.run(td.Config(tokens=128, sequences=6))
    layers, text = tree["layers"], tree["text"]
    # the model card's 2.05 (Shakespeare) and 1.36 (King James) come from long contexts; 128 bytes are a colder start
    assert text["bits_per_byte"].values[::2].mean() < 2.6
    assert text["bits_per_byte"].values[1::2].mean() < 2.3
    assert (layers["observed_scenario"].values == 1).all()  # norms grow in every layer
    # float32: rounding of sums over 224 channels, relative to the largest part
    assert layers["split_residual"].values.max() < 1e-5
    assert layers["scan_residual"].values.max() < 1e-5
    assert tree["channels/lyapunov"].values.max() < 0


def test_unknown_model() -> None:
    with pytest.raises(InputError, match="no model 'shakespear-1m'"):
        td.plan(td.Config(model="shakespear-1m"))


def test_presets_are_valid() -> None:
    from ssmtheory import resources
    from ssmtheory.runner import preset_path, read_file

    names = [n for n in resources.names("preset") if n.startswith("token_dynamics.")]
    assert {n.split(".")[1] for n in names} >= {"smoke", "default", "long"}
    for name in names:
        values = read_file(preset_path("token_dynamics", name.split(".")[1]), td.Config)
        td.Config(**values)
    default = td.Config(**read_file(preset_path("token_dynamics", "default"), td.Config))
    assert default == td.Config()


def test_the_synthetic_dataset_keeps_the_schema() -> None:
    assert td.SCHEMA.breaches(synthetic_tree()) == []
    assert depth.scenario(np.array([1.0]), np.array([2.0])) == 1
