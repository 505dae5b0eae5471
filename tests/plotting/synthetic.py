"""Datasets with the experiments' schemas and made-up numbers, for drawing without running a model."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr

from ssmtheory.results.schema import DatasetSchema

Groups = dict[str, dict[str, tuple[tuple[str, ...], Any]]]


def _tree(schema: DatasetSchema, groups: Groups, coords: dict[str, Any]) -> xr.DataTree:
    """A labelled, valid dataset. A variable of the schema that no figure draws (not in `groups`) is filled."""
    sizes = {d: n for g in groups.values() for dims, v in g.values() for d, n in zip(dims, np.shape(v), strict=True)}
    datasets = {}
    for path, declared in schema.groups.items():
        data = {}
        for name, v in declared.items():
            if name in groups.get(path.strip("/"), {}):
                dims, value = groups[path.strip("/")][name]
                data[name] = (dims, np.asarray(value).astype(v.dtype))
            elif not v.optional:
                filler = "made up" if v.dtype == "str" else 0
                data[name] = (
                    v.dims,
                    np.full([sizes.get(d, 2) for d in v.dims], filler, object if v.dtype == "str" else v.dtype),
                )
        used = {d for dims, _ in data.values() for d in dims}
        datasets[path] = xr.Dataset(data, coords={k: v for k, v in coords.items() if k in used})
    tree = schema.label(xr.DataTree.from_dict(datasets))
    schema.validate(tree)
    return tree


def token_dynamics(
    layers: int = 12,
    tokens: int = 128,
    sequences: int = 4,
    channels: int = 32,
    states: int = 16,
    seed: int = 0,
    first_layer: int = 0,
) -> xr.DataTree:
    """A token_dynamics dataset of this size: shapes and ranges like a small trained model's, values random."""
    from ssmtheory.experiments.token_dynamics import PREDICTORS, QUANTILES, SCHEMA

    r = np.random.default_rng(seed)
    K, L, S, D, N, P = layers, tokens, sequences, channels, states, len(PREDICTORS)
    slt, ld, lp = ("sequence", "layer", "token"), ("layer",), ("layer", "predictor")
    means = {"g_skip": 0.03, "g_self": 0.004, "g_hist": -0.005}
    parts = {name: r.normal(m, 0.02, (S, K, L)) for name, m in means.items()}
    parts["g_bias"] = np.zeros((S, K, L))
    g = sum(parts.values())
    norm = 5 * np.exp(np.cumsum(np.concatenate([r.normal(0, 0.1, (S, 1, L)), g], axis=1), axis=1))
    q = r.normal(np.linspace(-0.5, 0.5, K)[None, :, None], 0.5, (S, K, L))
    # 16 linear bins an octave, like the experiment's
    delta_edges = np.append(np.outer(2.0 ** np.arange(-20, 6), 1 + np.arange(16) / 16), 64.0)
    delta = np.exp(r.normal(np.linspace(-4, -3, K)[:, None], 1, (K, 4096)))
    decay_edges = np.linspace(0, 1, 65)
    decay = np.exp(-delta * r.integers(1, 17, (K, 4096)))
    lags = np.array([1, 2, 4, 8, 16, 32, 64])
    sb, sc = r.normal(size=(2, K, N, 64)) / 8
    m = sb @ np.swapaxes(sc, 1, 2)
    stacked = np.concatenate([sc, sb], axis=1)
    full = np.linalg.eigvalsh((np.swapaxes(sc, 1, 2) @ sb + np.swapaxes(sb, 1, 2) @ sc) / 2)
    assert stacked.shape[1] == 2 * N
    symmetric = np.concatenate([full[:, :N], full[:, -N:]], axis=1)
    concordance = r.uniform(0.4, 0.98, (K, P))
    growth = g.mean((0, 2))
    kappa = r.uniform(-0.05, 0.6, P)
    T = min(tokens, 32)
    P_map = np.exp(-0.2 * np.abs(np.subtract.outer(np.arange(T), np.arange(T)))) * r.lognormal(-4, 1, (K, T, T))
    P_map = np.tril(P_map)
    cosine = np.clip(r.normal(np.linspace(0.1, 0.5, K + 1)[:, None, None], 0.1, (K + 1, T, T)), -1, 1)
    cosine = (cosine + np.swapaxes(cosine, 1, 2)) / 2
    cosine[:, np.arange(T), np.arange(T)] = 1
    kernel = np.exp(-r.uniform(0.01, 0.3, (K, 1, D)) * lags[None, :, None]) * r.normal(0.1, 0.5, (K, 1, D))
    excess = r.normal(0, 0.01, (K + 1, 5))
    A = -np.arange(1.0, N + 1)
    mean_delta = np.exp(r.normal(-3.5, 0.7, (K, D)))
    bins = np.unique(np.geomspace(1, tokens, 9).astype(int)) - 1
    bins = np.append(bins[:-1], tokens)
    rank = np.arange(1, len(bins))
    groups: Groups = {
        "text": {
            "start": (("sequence",), np.arange(S) * L),
            "n_bytes": (("sequence",), np.full(S, L)),
            "bits_per_token": (("sequence",), r.normal(2.2, 0.1, S)),
            "bits_per_byte": (("sequence",), r.normal(2.2, 0.1, S)),
        },
        "tokens": {
            "token_id": (("sequence", "token"), r.integers(0, 256, (S, L))),
            "loss_bits": (("sequence", "token"), r.gamma(2, 1.1, (S, L))),
            "residual_norm": (("sequence", "depth", "token"), norm),
            "radial_rate": (slt, g),
            "step_size": (slt, np.abs(g) + 0.2),
            "angular_speed": (slt, r.gamma(5, 0.05, (S, K, L))),
            "q": (slt, q),
            "kappa": (slt, 0.5 * q),
            "delta": (slt, np.exp(r.normal(-3.5, 0.4, (S, K, L)))),
            "A_Delta": (slt, r.normal(0, 0.01, (S, K, L))),
            **{k: (slt, v) for k, v in parts.items()},
            "state_rms": (slt, np.abs(r.normal(1, 0.1, (S, K, L)))),
        },
        "channels": {
            "delta_mean": (("layer", "channel"), mean_delta),
            "delta_quantile": (
                ("layer", "quantile", "channel"),
                np.repeat(mean_delta[:, None], len(QUANTILES), axis=1),
            ),
            "delta_bin_lower": (("delta_bin",), delta_edges[:-1]),
            "delta_bin_upper": (("delta_bin",), delta_edges[1:]),
            "delta_histogram": (("layer", "delta_bin"), [np.histogram(d, delta_edges)[0] for d in delta]),
            "decay_bin_lower": (("decay_bin",), decay_edges[:-1]),
            "decay_bin_upper": (("decay_bin",), decay_edges[1:]),
            "decay_histogram": (("layer", "decay_bin"), [np.histogram(d, decay_edges)[0] for d in decay]),
            "horizon": (("layer", "channel", "state"), 1 / (-A * mean_delta[:, :, None])),
            "erf": (("layer", "channel", "state"), 0.7 / (-A * mean_delta[:, :, None])),
            "lyapunov": (("layer", "channel", "state"), A * mean_delta[:, :, None]),
            "kappa": (("layer", "lag", "channel"), kernel),
            "lag_time": (("layer", "lag", "channel"), lags[None, :, None] * mean_delta[:, None, :]),
        },
        "layers": {
            "eig_input_output": (("layer", "state"), np.linalg.eigvals(m)),
            "eig_symmetric": (("layer", "eig"), symmetric),
            "trace_input_output": (ld, np.trace(m, axis1=1, axis2=2)),
            "q_positive_fraction": (ld, (q > 0).mean((0, 2))),
            "q_positive_low": (ld, (q > 0).mean((0, 2)) - 0.04),
            "q_positive_high": (ld, (q > 0).mean((0, 2)) + 0.04),
            "growth": (ld, growth),
            "growth_low": (ld, growth - 0.005),
            "growth_high": (ld, growth + 0.005),
            "g_positive_fraction": (ld, (g > 0).mean((0, 2))),
            "predicted_scenario": (ld, np.sign(np.round(np.median(q, axis=(0, 2)), 1))),
            "eigenvalue_scenario": (ld, np.zeros(K)),
            "observed_scenario": (ld, np.ones(K)),
            "t_c": (ld, r.uniform(10, 100, K)),
            "chi": (ld, r.uniform(0, 0.1, K)),
            "share": (("layer", "part"), r.dirichlet((9, 1, 1, 0.1), K)),
            "coherent_share": (ld, r.uniform(0, 0.6, K)),
            "kappa_sign_change": (ld, r.uniform(0, 0.3, K)),
            "split_residual": (ld, r.uniform(0, 4e-7, K)),
            "state_rms_by_position": (("layer", "position_bin"), 1 - np.exp(-np.outer(r.uniform(0.3, 1, K), rank))),
            "position_lower": (("position_bin",), bins[:-1]),
            "position_upper": (("position_bin",), bins[1:]),
        },
        "concordance": {
            "concordance": (lp, concordance),
            "concordance_low": (lp, concordance - 0.03),
            "concordance_high": (lp, concordance + 0.03),
            "chance": (lp, np.full((K, P), 0.5)),
            "null_low": (lp, np.full((K, P), 0.45)),
            "null_high": (lp, np.full((K, P), 0.55)),
            "majority_baseline": (ld, r.uniform(0.5, 0.95, K)),
            "evidence": (lp, concordance > 0.8),
            "spearman": (lp, r.uniform(-0.2, 0.9, (K, P))),
            "pooled_concordance": (("predictor",), concordance.mean(0)),
            "pooled_baseline": ((), 0.8),
            "kappa": (("predictor",), kappa),
            "kappa_low": (("predictor",), kappa - 0.02),
            "kappa_high": (("predictor",), kappa + 0.02),
            "kappa_null_low": (("predictor",), np.full(P, -0.02)),
            "kappa_null_high": (("predictor",), np.full(P, 0.02)),
            "pooled_spearman": (("predictor",), r.uniform(-0.2, 0.9, P)),
            "pooled_evidence": (("predictor",), kappa > 0.3),
        },
        "clustering": {
            "cosine": (("depth", "token_i", "token_j"), cosine),
            "mean_cosine": (("depth",), np.linspace(0.1, 0.5, K + 1)),
            "cosine_to_first": (("depth",), np.linspace(0.1, 0.3, K + 1)),
            "cosine_to_other_first": (("depth",), np.linspace(0.1, 0.28, K + 1)),
            "anchor_excess": (("depth", "anchor_token"), excess),
            "anchor_excess_low": (("depth", "anchor_token"), excess - 0.03),
            "anchor_excess_high": (("depth", "anchor_token"), excess + 0.03),
        },
        "attention": {
            "map": (("layer", "token_i", "token_j"), P_map * r.uniform(-1, 1, P_map.shape)),
            "map_abs": (("layer", "token_i", "token_j"), P_map),
        },
    }
    coords = {
        "layer": np.arange(first_layer, first_layer + K),
        "depth": np.arange(first_layer, first_layer + K + 1),
        "lag": lags,
        "predictor": np.array(PREDICTORS),
        "quantile": np.array(QUANTILES),
        "state": np.arange(N),
        "anchor_token": np.array([0, 1, 2, 4, 8]),
        "part": np.array(["skip", "self", "hist", "bias"]),
    }
    tree = _tree(SCHEMA, groups, coords)
    tree.attrs = {"schema": SCHEMA.id, "config": json.dumps({"model": "made-up"}), "config_sha256": "cd" * 32}
    return tree


def pretrain(steps: int = 4000, layers: int = 12, seed: int = 0) -> xr.DataTree:
    """A pretrain dataset: a curve that falls from 8 to about 2 bit/byte."""
    from ssmtheory.experiments.pretrain import SCHEMA, observed_steps

    r = np.random.default_rng(seed)
    seen = np.array(observed_steps(steps))
    curve = 2 + 6 * np.exp(-np.arange(steps) / 80) + 2 / np.sqrt(1 + np.arange(steps))
    bits = 2.1 + 5.9 * np.exp(-seen / 80)
    rising = np.outer(np.log1p(seen) / 9, np.linspace(0.3, 1, layers))
    groups: Groups = {
        "training": {"loss_bits": (("step",), curve + r.normal(0, 0.1, steps))},
        "heldout": {
            "bits_per_byte": (("observed", "corpus"), np.stack([bits, bits - 0.4], axis=1)),
            "delta_mean": (("observed", "layer"), 0.02 * np.exp(rising)),
            "q_positive": (("observed", "layer"), 0.5 + 0.4 * rising),
            "radial_rate": (("observed", "layer"), 0.1 * rising),
            "outward": (("observed", "layer"), 0.5 + 0.45 * rising),
            "residual_norm": (("observed", "depth"), np.exp(np.concatenate([rising[:, :1], rising + 0.1], axis=1))),
        },
        "final": {
            "streamed_bits_per_byte": (("corpus",), [2.08, 1.7]),
            "window_bits_per_byte": (("corpus",), [2.12, 1.74]),
        },
        "baseline": {"kneser_ney_bits": (("counted", "corpus"), [[2.4, 2.0], [2.5, 1.95]])},
        "checkpoints": {"parameters": (("kept", "parameter"), r.normal(size=(4, 8)))},
    }
    coords = {
        "step": np.arange(1, steps + 1),
        "observed": seen,
        "corpus": np.array(["tinyshakespeare", "kjv"]),
        "layer": np.arange(layers),
        "depth": np.arange(layers + 1),
        "kept": np.array([0, 128, steps // 2, steps]),
    }
    tree = _tree(SCHEMA, groups, coords)
    tree.attrs = {"schema": SCHEMA.id, "config": "{}", "config_sha256": "cd" * 32}
    return tree
