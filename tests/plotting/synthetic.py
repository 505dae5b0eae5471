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


def transfer_convergence(sizes: tuple[int, ...] = (8, 16, 32), seed: int = 0) -> xr.DataTree:
    """A transfer_convergence dataset: laws where they take a line, random numbers of the right size elsewhere."""
    from ssmtheory.experiments._transfer_schema import SCHEMA

    r = np.random.default_rng(seed)
    inits = ("s4d-legs", "ptd-0.4", "ptd-0.1", "hippo-rho-10", "hippo-rho-imaginary-11")
    outputs, bands, steps = (0, 1, 3), (1.0, 10.0, 100.0), (0.001, 0.01, 0.1)
    signals = ("impulse", "exponential", "smooth-2", "smooth-3", "fourier-1", "fourier-8", "spike")
    methods, matrices = ("zoh", "bilinear", "bilinear_s4"), ("legs", "s4d-legs", "hippo-rho-10")
    n, i = np.array(sizes, dtype=float), len(inits)
    falling = np.array([0.0, 0.3, 0.3, 1.0, 1.0])
    level = np.array([2 / np.pi, 0.3, 0.06, 0.02, 0.02])
    sup = level[:, None, None] * n[None, :, None] ** -falling[:, None, None] * np.sqrt(2 * np.array(outputs) + 1)
    worst = np.stack([2 * n / np.pi, *(np.full(len(n), v) for v in (0.3, 0.02, 0.05, 0.05))])
    evidence = np.broadcast_to(np.array([2, 0, 0, 2, 1], dtype=np.int8)[:, None], (i, len(n)))
    top = n**2 / np.pi - np.pi / 6
    omega = np.unique(np.concatenate([np.geomspace(0.1, 10 * top[-1], 300), *(top[:, None] + np.linspace(-3, 3, 25))]))
    offset = np.linspace(-12, 12, 121)
    spikes = np.arange(3)
    odd = (2 * spikes + 1) * np.pi
    law = n[:, None] ** 2 / odd - odd / 6
    m = np.arange(16)
    exact = 32**2 / ((2 * m + 1) * np.pi) * np.exp(-m / 30)
    inv = 32 / np.pi * (32 / (2 * m + 1) - 1)
    families = ("s4d", "hippo-rho", "hippo-rho-imaginary", "normal", "ginibre", "real", "dissipative", "optimised")
    rows = [(f, int(k), e) for f in families for k in sizes for e in (0.4, 0.1, 0.01, 3.0)]
    family = np.array([f for f, _, _ in rows], dtype=object)
    of, eps = np.array([k for _, k, _ in rows]), np.array([e for _, _, e in rows])
    ours = np.array([f in ("hippo-rho", "hippo-rho-imaginary", "normal", "s4d") for f in family])
    rho = np.where(ours, 3 / eps, np.nan)
    deviation = np.where(ours, 0.5 / (rho - 0.9), eps / 4)
    kappa = np.where(ours, 0.97 * rho, 40 * of / eps * r.lognormal(0, 0.2, len(rows)))
    deviation[family == "s4d"], kappa[family == "s4d"] = 2 * of[family == "s4d"] / np.pi, 1.0
    deviation[family == "normal"], kappa[family == "normal"] = 0.3, 1.0
    tight = 120
    size = np.exp(r.uniform(-6, 3, tight))
    symmetric = size * r.uniform(-1, 1, tight)
    bound = np.where(symmetric < 0.5, size / (0.5 - symmetric), np.nan)
    x, y = np.linspace(-20, 6, 25), np.linspace(-16, 16, 21)
    z = x[None, :] + 1j * y[:, None]
    eigenvalues = np.stack([-np.arange(1.0, 17), -0.5 + 1j * np.arange(-8, 8), -0.7 + 1.2j * np.arange(-8, 8)])
    resolvent = [1 / np.abs(z[..., None] - e).min(axis=-1).clip(1e-3) for e in eigenvalues]
    time = np.linspace(0, 4, 41)
    frequency = np.linspace(0, 100, 201)
    four = ("legs", "s4d-legs", "ptd-0.1", "hippo-rho-10")
    peak = np.exp(-(((frequency - 81) / 2) ** 2))
    predicted = np.stack([1 - 0.001 * frequency, 1 - 3 * peak, 1 + 0.1 * peak, 1 - 0.2 * peak])
    in_, ino, inmd = ("init", "state_dim"), ("init", "state_dim", "output"), ("init", "state_dim", "method", "dt")
    factor = np.array([[0.1, 0.05, 0.01], [1, 1, 1], [1, 5, 40]])
    discrete = sup[:, :, 0, None, None] * factor
    limit = np.array([np.inf, 0.5, 0.3, 0.2, 0.4, 0.5, np.nan])[:, None] * np.sqrt(2 * np.array(outputs) + 1)
    error = np.where(np.isfinite(limit), limit, 0.5)[None] / n[:, None, None]
    error[:, 0], error[:, 6] = error[:, 0] * n[:, None], error[:, 6] * n[:, None]
    l2 = error[None] * np.array([1, 0.3, 0.1, 0.05, 0.05])[:, None, None, None]
    response = 1 / np.sqrt(1 + omega**2)
    spectral = np.where(eps > 1, 0.2, -0.7)
    groups: Groups = {
        "gaps": {
            "sup": (ino, sup), "lower": (ino, sup * 0.999), "upper": (ino, sup * 1.001),
            "omega": (ino, np.broadcast_to(top[None, :, None], sup.shape)),
            "rigorous": (ino, np.broadcast_to(evidence[..., None] == 2, sup.shape)),
            "evidence": (ino, np.broadcast_to(evidence[..., None], sup.shape)),
            "worst_sup": (in_, worst), "worst_lower": (in_, worst), "worst_upper": (in_, worst),
            "worst_omega": (in_, np.broadcast_to(top, worst.shape)),
            "worst_rigorous": (in_, evidence == 2), "worst_evidence": (in_, evidence),
            "l2_gap": (ino, sup * 0.8), "l2_exact": (ino, np.where(evidence[..., None] == 2, sup * 0.8, np.nan)),
            "h2_gap": (in_, worst / 2),
            "band_sup": ((*in_, "band"), worst[..., None] * np.array(bands) / (n[None, :, None] ** 2 + 100)),
            "kappa": (in_, np.stack([np.ones(len(n)), 100 * n, 400 * n, 0 * n + 9.7, 0 * n + 10.6])),
            "kappa_evidence": (in_, np.full((i, len(n)), 0)),
            "spectral_abscissa": (in_, np.broadcast_to([[-0.5], [-0.75], [-0.9], [-0.7], [-0.7]], (i, len(n)))),
            "deviation_bound": (in_, np.broadcast_to([[np.nan], [4.0], [0.25], [0.056], [0.05]], (i, len(n)))),
            "epsilon": (in_, np.ones((i, len(n)))), "rho": (in_, np.full((i, len(n)), np.nan)),
        },
        "response": {
            "magnitude": (("init", "state_dim", "omega"), np.broadcast_to(response, (i, len(n), len(omega)))),
            "legs_magnitude": (("omega",), response),
            "zoom_magnitude": (
                ("init", "state_dim", "offset"),
                np.broadcast_to(2 / np.pi / np.sqrt(1 + 4 * offset**2), (i, len(n), len(offset))),
            ),
            "legs_zoom_magnitude": (("state_dim", "offset"), 1 / np.sqrt(1 + (top[:, None] + offset) ** 2)),
            "zoom_center": (("state_dim",), top),
        },
        "weak": {
            "l2_error": (("init", "state_dim", "signal", "output"), l2),
            "scaled_error": (("init", "state_dim", "signal", "output"), l2 * n[None, :, None, None]),
            "worst_error": (("init", "state_dim", "signal"), l2.max(axis=-1)),
            "limit": (("signal", "output"), limit),
            "decay_order": (("signal",), [0, 1, 2, 3, 2, 2, np.nan]),
        },
        "discrete": {
            "sup": (inmd, discrete), "omega": (inmd, np.ones_like(discrete)), "upper": (inmd, discrete),
            "worst_sup": (inmd, discrete * n[None, :, None, None]), "worst_omega": (inmd, np.ones_like(discrete)),
            "worst_bound": (inmd, np.where(evidence[..., None, None] == 2, 2 * discrete * n[:, None, None], np.nan)),
            "predicted": (inmd[1:], np.broadcast_to(2 / np.pi * factor, (len(n), 3, 3))),
        },
        "frontier": {
            "family": (("sample",), family), "state_dim": (("sample",), of),
            "seed": (("sample",), np.zeros(len(rows))),
            "epsilon": (("sample",), np.where(ours, of**2 / (rho + 1), eps)),
            "rho": (("sample",), rho), "kappa": (("sample",), kappa), "deviation": (("sample",), deviation),
            "spectral_abscissa": (("sample",), np.where(ours, -0.6, spectral)),
            "kappa_evidence": (("sample",), np.zeros(len(rows))),
            "deviation_evidence": (("sample",), np.where(ours, 2, 0)),
        },
        "frontier_bound": {
            "kappa_lower": (("state_dim", "epsilon"), n[:, None] ** 1.5 / (40 * np.array([0.4, 0.1, 0.01]))),
            "kappa_lower_area": (("state_dim", "epsilon"), n[:, None] ** 1.5 / (30 * np.array([0.4, 0.1, 0.01]))),
            "evidence": (("state_dim", "epsilon"), np.full((len(n), 3), 2)),
        },
        "tightness": {
            "structure": (("sample",), np.array(["ginibre", "rank one", "skew", "diagonal"] * 30, dtype=object)),
            "state_dim": (("sample",), np.full(tight, 8)), "seed": (("sample",), np.arange(tight)),
            "epsilon": (("sample",), size), "symmetric": (("sample",), symmetric),
            "sup": (("sample",), np.where(np.isfinite(bound), bound, 3) * r.uniform(0.01, 0.95, tight)),
            "ratio": (("sample",), r.uniform(0, 1, tight)),
            "bound_ours": (("sample",), bound), "bound_sharp": (("sample",), bound),
            "bound_paper": (("sample",), 8 * size),
        },
        "spikes": {
            "position": (("state_dim", "spike"), law + 0.5 / n[:, None] ** 2), "law": (("state_dim", "spike"), law),
            "bulk_law": (("state_dim", "spike"), law * 1.01), "pole": (("state_dim", "spike"), law),
            "height": (("state_dim", "spike"), (2 / odd) * (1 + 1 / n[:, None])),
            "height_law": (("state_dim", "spike"), np.broadcast_to(2 / odd, law.shape)),
            "worst_height": (("state_dim", "spike"), 2 * n[:, None] / odd),
        },
        "spectrum": {
            "state_dim": ((), 32), "exact": (("mode",), exact), "bulk": (("mode",), exact * 1.003),
            "asymptotic": (("mode",), 32**2 / ((2 * m + 1) * np.pi) - (2 * m + 1) * np.pi / 6),
            "s4d_inv": (("mode",), inv), "s4d_lin": (("mode",), np.pi * (15 - m)),
        },
        "pseudospectrum": {
            "state_dim": ((), 16), "resolvent_norm": (("matrix", "imag", "real"), resolvent),
            "eigenvalues": (("matrix", "mode"), eigenvalues),
            "spectral_abscissa": (("matrix",), [-1, -0.5, -0.7]),
            "numerical_abscissa": (("matrix",), [-0.5, -0.5, -0.5]),
            "pseudospectral_abscissa": (("matrix", "epsilon"), np.ones((3, 3))),
            "kreiss_lower": (("matrix",), [1.0, 1.0, 1.0]), "kreiss_upper": (("matrix",), [1.0, 1.0, 1.0]),
            "kappa": (("matrix",), [8e10, 1.0, 9.7]), "kappa_evidence": (("matrix",), [2, 3, 0]),
            "transient": (("matrix", "time"), np.exp(-0.5 * time) * np.array([[1.0], [0.98], [0.9]])),
        },
        "regression": {
            "state_dim": ((), 16), "spike": ((), 80.97), "predicted": (("init", "frequency"), predicted),
            "gain": (("init", "frequency"), 1 / (1 + frequency) + np.array([[0.0], [10.0], [0.1], [0.5]]) * peak),
            "target": (("frequency",), np.ones(len(frequency))), "trained": (("frequency",), frequency <= 80),
            "train_error": (("init",), np.full(4, 0.01)), "test_error": (("init",), [0.1, 2.0, 0.1, 0.1]),
        },
    }  # fmt: skip
    shared = {
        "state_dim": np.array(sizes), "output": np.array(outputs), "band": np.array(bands), "dt": np.array(steps),
        "offset": offset, "signal": np.array(signals), "method": np.array(methods), "matrix": np.array(matrices),
        "real": x, "imag": y, "time": time, "spike": spikes, "frequency": frequency,
    }  # fmt: skip
    own = {
        "regression": {"init": np.array(four)},
        "frontier_bound": {"epsilon": np.array([0.4, 0.1, 0.01])},
        "pseudospectrum": {"epsilon": np.array([0.5, 1.0, 2.0])},
    }
    groups["response"]["omega"] = (("omega",), omega)
    return _grouped(SCHEMA, groups, {"init": np.array(inits), **shared}, own)


def _grouped(
    schema: DatasetSchema, groups: Groups, shared: dict[str, Any], own: dict[str, dict[str, Any]]
) -> xr.DataTree:
    """A labelled, valid dataset whose groups may have coordinates of their own; undeclared variables are left out."""
    datasets = {}
    for path, group in groups.items():
        declared = schema.groups[f"/{path}"]
        data = {
            name: (dims, np.asarray(value, dtype=object if declared[name].dtype == "str" else declared[name].dtype))
            for name, (dims, value) in group.items()
            if name in declared
        }
        used = {d for dims, _ in data.values() for d in dims}
        known = {**shared, **own.get(path, {})}
        datasets[path] = xr.Dataset(data, coords={d: known[d] for d in used if d in known and d not in data})
    tree = schema.label(xr.DataTree.from_dict(datasets))
    schema.validate(tree)
    tree.attrs = {"schema": schema.id, "config": "{}", "config_sha256": "cd" * 32}
    return tree


def kernel_limit(sizes: tuple[int, ...] = (16, 64, 256)) -> xr.DataTree:
    """A kernel_limit dataset: an oscillation about exp(-t), ever faster with N."""
    from ssmtheory.experiments._kernel_schema import MODES, SCHEMA

    inits = ("s4d-legs", "hippo-rho-10", "s4d-lin")
    time, n = np.linspace(0, 2, 401), np.array(sizes, dtype=float)
    limit = np.exp(-time)
    swing = np.exp(-time / 2)[None] * np.cos(np.outer(n, time)) * np.array([0.5, 0.05, 0.4])[:, None, None]
    measures = ("legs", "legt", "fout", "s4d-legs", "s4d-inv", "s4d-lin")
    outputs = np.arange(5)
    shape = np.exp(-time)[None] * np.cos(np.outer(outputs, 3 * time))
    bases = np.sqrt(2 * outputs + 1)[None, :, None] * shape[None] * (1 + 0.1 * np.arange(6))[:, None, None]
    methods = ("zoh", "bilinear_s4")
    sampled = np.broadcast_to(bases[0], (2, 2, *bases[0].shape)) + 0.01 * np.cos(300 * time)
    line = np.array(["one", "two"], dtype=object)
    modes = np.array([*MODES, *[name for name in ("compact", "inputwise", "initial_value") if name not in MODES]])
    unknown = np.zeros((3, 7), dtype=int)
    unknown[2, 6] = 1
    groups: Groups = {
        "kernels": {
            "kernel": (("init", "state_dim", "time"), limit + swing),
            "limit": (("init", "time"), np.broadcast_to(limit, (3, len(time)))),
            "difference": (("init", "state_dim", "time"), swing),
            "windowed": (("init", "state_dim", "time"), swing / n[None, :, None]),
            "l2_difference": (("init", "state_dim"), np.broadcast_to([[0.5], [0.05], [0.4]], (3, len(n)))),
            "l2_exact": (("init", "state_dim"), np.broadcast_to([[0.5], [0.05], [np.nan]], (3, len(n)))),
            "uniform_difference": (("init", "state_dim"), np.abs(swing).max(axis=-1)),
            "window": ((), 0.05),
            "output": ((), 0),
        },
        "modes": {
            "holds": (("init", "convergence"), np.array([1, 1, 1, 1, 0, 0, 0]) * [[1], [1], [0]] - unknown),
            "witness": (("init", "convergence"), np.full((3, 7), "made up", dtype=object)),
            "status": (("init", "convergence"), np.full((3, 7), "proved modulo named theorems: one", dtype=object)),
            "expression": (("init",), np.full(3, "exp(-t)", dtype=object)),
            "latex": (("init",), np.full(3, "e^{-t}", dtype=object)),
        },
        "derivation": {
            **dict.fromkeys(("subject", "title", "number", "text", "latex", "kind"), (("line",), line)),
            "checked": (("line",), [1, 1]),
            "document": (("init",), np.full(3, "made up", dtype=object)),
            "status": (("init",), np.full(3, "proved", dtype=object)),
        },
        "bases": {"kernel": (("measure", "output", "time"), bases), "state_dim": ((), 256)},
        "sampled": {
            "kernel": (("state_dim", "method", "output", "time"), sampled),
            "limit": (("output", "time"), bases[0]),
            "sup_difference": (("state_dim", "method", "output"), np.full((2, 2, 5), 0.01)),
            "dt": ((), 0.005),
        },
    }
    shared = {
        "init": np.array(inits), "state_dim": np.array(sizes), "time": time, "convergence": modes,
        "measure": np.array(measures), "output": outputs, "method": np.array(methods),
    }  # fmt: skip
    return _grouped(SCHEMA, groups, shared, {"sampled": {"state_dim": np.array([256, 1024])}})


def token_ode() -> xr.DataTree:
    """A small token_ode dataset: its real numbers, as they cost a few seconds."""
    from ssmtheory.experiments import token_ode as experiment

    return experiment.run(experiment.Config(t_end=1e4, clock_end=100.0, points=40, orbits=8, cells=9, draws=3, dims=3))


def depth_exponents(layers: int = 6, sequences: int = 3, width: int = 12) -> xr.DataTree:
    """A depth_exponents dataset of invented spectra."""
    from ssmtheory.experiments.depth_exponents import SCHEMA

    r = np.random.default_rng(0)
    models = np.array(["shakespeare-1m", "shakespeare-1m-step-0"], dtype=object)
    groups: dict[str, dict[str, Any]] = {"models": {"sha256": np.array(["ab" * 32, "cd" * 32], dtype=object)}}
    for where in ("last", "first", "whole"):
        spectrum = np.linspace(0.25, -0.2, width) + r.normal(0, 0.01, (2, sequences, width))
        groups[where] = {"exponent": spectrum, "volume_rate": r.normal(0, 0.05, (2, sequences, layers))}
    groups["last"]["norm_rate"] = r.uniform(0.2, 0.3, (2, sequences))
    groups["first"]["spread"] = np.sort(r.uniform(0, 0.7, (2, sequences, layers + 1)))
    coords = {
        "model": models, "sequence": np.arange(sequences), "direction": np.arange(width), "layer": np.arange(layers),
        "depth": np.arange(layers + 1),
    }  # fmt: skip
    with_dims: Groups = {
        group: {name: (SCHEMA.groups[f"/{group}"][name].dims, value) for name, value in data.items()}
        for group, data in groups.items()
    }
    return _tree(SCHEMA, with_dims, coords)


def refinements(seeds: int = 8, layers: int = 3, steps: int = 60) -> xr.DataTree:
    """A refinements dataset: invented training runs, put together and tested by the experiment itself."""
    from ssmtheory.experiments import refinements as experiment
    from ssmtheory.experiments.base import Plan

    r = np.random.default_rng(0)
    config = experiment.Config(seeds=seeds, n_layer=layers, steps=steps, image_steps=steps)
    falling = np.exp(-np.arange(steps) / 20)
    parts: dict[str, dict[str, np.ndarray]] = {}
    for i, name in enumerate(config.parametrisations):
        for seed in range(seeds):
            by_layer = (layers, 3)
            parts[f"text-{seed:02d}-{name}"] = {
                "training_bits": 3 + 5 * falling + r.normal(0, 0.1, steps),
                "heldout_bits": np.array([8.0, 4.0, 3.0 + 0.02 * i + r.normal(0, 0.01)]),
                "q_positive": r.uniform(0, 1, by_layer),
                "outward": r.uniform(0, 1, by_layer),
                "q_kappa": r.normal(0, 0.05, 3),
                "norm_rate": r.normal(0.3, 0.02, 3),
                "delta_mean": r.uniform(0.01, 0.1, by_layer),
                "antisymmetric": r.uniform(0, 0.5, by_layer),
                "positive_eigenvalues": np.full(by_layer, 16),
                "negative_eigenvalues": np.full(by_layer, 16),
            }
    for i, name in enumerate(config.reorderings):
        for seed in range(seeds):
            parts[f"image-{seed:02d}-{name}"] = {
                "training_bits": 3.3 * falling + 0.1 * i + r.normal(0, 0.1, steps),
                "test_accuracy": np.array(0.9 - 0.03 * i + r.normal(0, 0.02)),
                "test_bits": np.array(0.5 + 0.2 * i + r.normal(0, 0.05)),
                "leak": np.array(0.0 if i == 0 else r.uniform(0.3, 0.99)),
                "leak_to_5": np.array(0.0 if i == 0 else r.uniform(0.01, 0.3)),
                "largest_weight": np.array(r.uniform(0.1, 1)),
                "column_spread": np.array(r.uniform(0, 0.1)),
            }
    plan = Plan(resolved={}, tasks=list(parts), context=experiment._Context(config, None))
    return experiment.SCHEMA.label(experiment.assemble(plan, parts))


def _measured(schema: DatasetSchema, sizes: dict[str, int], low: float, high: float, seed: int) -> Groups:
    """Random numbers between two ends for every float of a schema, each within its own interval."""
    rng = np.random.default_rng(seed)
    out: Groups = {}
    for path, declared in schema.groups.items():
        group = out.setdefault(path.strip("/"), {})
        for name, v in declared.items():
            if v.dtype != "float64" or name.endswith(("_low", "_high")):
                continue
            value = rng.uniform(low, high, [sizes[d] for d in v.dims])
            group[name] = (v.dims, value)
            for end, shift in (("_low", -0.02), ("_high", 0.02)):
                if name + end in declared:
                    group[name + end] = (v.dims, value + shift * (high - low))
    return out


def concordance(models: int = 5, layers: int = 6, seed: int = 0) -> xr.DataTree:
    """A concordance dataset: the last model is a block of one layer."""
    from ssmtheory.experiments import concordance as experiment

    names = experiment.predictors((1, 4, 16))
    sizes = {
        "model": models, "layer": layers, "depth": layers + 1, "predictor": len(names), "part": len(experiment.PARTS)
    }  # fmt: skip
    groups = _measured(experiment.SCHEMA, sizes, 0.05, 0.95, seed)
    steps = np.append(np.geomspace(1, 3000, models - 1).round(), np.nan)
    labels = [f"model-{i}" for i in range(models - 1)] + [experiment.BLOCK]
    kinds = ["language model"] * (models - 1) + ["block without a residual stream"]
    groups["models"] |= {
        "sha256": (("model",), np.array(["0" * 64] * models, dtype=object)),
        "kind": (("model",), np.array(kinds, dtype=object)),
        "layers": (("model",), np.array([layers] * (models - 1) + [1])),
        "training_step": (("model",), steps),
    }
    value = groups["tests"]["kappa"][1]
    groups["tests"] |= {
        "kappa_null_low": (("model", "predictor"), 0 * value - 0.03),
        "kappa_null_high": (("model", "predictor"), 0 * value + 0.03),
        "evidence": (("model", "predictor"), (value > 0.5).astype(np.int8)),
    }
    shape = groups["layers"]["t_c"][1].shape
    for end, factor in (("", 1.0), ("_low", 0.9), ("_high", 1.1)):
        groups["layers"]["t_c" + end] = (("model", "layer"), factor * np.full(shape, 40.0))
    coords = {
        "model": np.array(labels, dtype=object), "layer": np.arange(layers), "depth": np.arange(layers + 1),
        "predictor": np.array(names, dtype=object), "part": np.array(experiment.PARTS, dtype=object),
    }  # fmt: skip
    return _tree(experiment.SCHEMA, groups, coords)


def interventions(layers: int = 6, seed: int = 0) -> xr.DataTree:
    """An interventions dataset with all of them: costs from noise to the loss of the mixer."""
    from ssmtheory.experiments import interventions as experiment

    kinds, pairs = experiment.KINDS, [f"{a} - {b}" for a, b in experiment.CONTROLS]
    sizes = {"intervention": len(kinds), "layer": layers, "sequence": 3, "pair": len(pairs)}
    groups = _measured(experiment.SCHEMA, sizes, 0.0, 0.3, seed)
    cost = np.geomspace(0.001, 20, len(kinds))
    for end, factor in (("", 1.0), ("_low", 0.8), ("_high", 1.2)):
        groups["all"]["change" + end] = (("intervention",), factor * cost)
    coords = {
        "intervention": np.array(kinds, dtype=object), "layer": np.arange(layers), "sequence": np.arange(3),
        "pair": np.array(pairs, dtype=object),
    }  # fmt: skip
    return _tree(experiment.SCHEMA, groups, coords)


def sphere(layers: int = 6, texts: int = 8, tokens: int = 24, width: int = 12) -> xr.DataTree:
    """A sphere dataset of four invented residual streams, measured by the experiment itself."""
    from types import SimpleNamespace

    from ssmtheory.experiments import sphere as experiment
    from ssmtheory.experiments.base import Plan

    r = np.random.default_rng(0)
    group = np.arange(texts) % 2
    config = experiment.Config(repetitions=64)
    models, parts = [], {}
    steps = experiment.iterations(config.repetitions)
    for i, name in enumerate(experiment.MODELS):
        drift = 0.2 * i * r.normal(size=width)
        update = r.normal(size=(layers, texts, tokens, width)) + drift
        start = r.normal(size=(1, texts, tokens, width))
        residual = np.concatenate([start, start + np.cumsum(update, axis=0)])
        falling = (1.0 + steps) ** -0.3 * r.uniform(0.9, 1.0, (texts, len(steps)))
        cosines = np.swapaxes(0.5 * (1 - falling[:, :, None]) + r.normal(0, 0.01, (texts, len(steps), texts)), 0, 1)
        parts[str(i)] = experiment.measure(residual, update, group[:, None] == group) | {
            "tied_residual": falling**2, "tied_turn": falling, "x_tied_cosine": cosines, "x_tied_first": cosines,
            "tied_log_norm": np.log(1.0 + steps) + r.normal(0, 0.01, (texts, len(steps))), "group": group,
            "same_anchor": np.zeros((len(experiment.ANCHORS), texts, texts), bool),
            "limit_settled": np.ones((texts, 2), bool), "limit_direction": r.normal(size=(texts, 2, width)),
            **{f"limit_{name}": r.uniform(0.2, 1.0, (texts, 2)) for name in experiment.LIMITS},
        }  # fmt: skip
        models.append(
            SimpleNamespace(name=name, sha256="ab" * 32, n_layer=layers, config=SimpleNamespace(d_model=width))
        )
    training = [0.0, 128.0, 1500.0, 4000.0]
    context = experiment._Context(models, training, [], config)
    tree = experiment.SCHEMA.label(experiment.assemble(Plan(resolved={}, tasks=list(parts), context=context), parts))
    tree.attrs = {"schema": experiment.SCHEMA.id, "config": "{}", "config_sha256": "cd" * 32}
    return tree


def robustness(seeds: int = 3) -> xr.DataTree:
    """A robustness dataset: invented runs and regressions, real small theory, put together by the experiment."""
    from ssmtheory.experiments import _robustness_regression as regression
    from ssmtheory.experiments import _robustness_theory as theory
    from ssmtheory.experiments import _robustness_trained as trained
    from ssmtheory.experiments import robustness as experiment
    from ssmtheory.experiments.base import Plan

    r = np.random.default_rng(0)
    variants = ("s4d", "s4", "s4-ptd:kind=published,weight=10", "hippo-rho:rho=10", "s5:blocks=2")
    config = experiment.Config(
        theory_inits=("legs", "s4d-legs", "hippo-rho-10"), theory_state_dims=(8,), theory_points=40,
        images="digits", variants=variants, all_variants=("s4d",), long_images="cifar10", long_variants=variants[:3],
        seeds=seeds, regression_variants=variants[:4], n_layer=2, d_model=6, frequencies=(0.01, 0.1, 1.0, 3.0),
    )  # fmt: skip
    cells, settings = experiment.cells_of(config), experiment._settings_of(config)
    setting = regression.Setting(16, 80.0, 100.0, 16, 64, 0.01, 10, 10, 4, 1e-2, config.regression_points, "auto")
    parts: dict[str, dict[str, np.ndarray]] = {key: theory.run(config, key) for key in theory.tasks(config)}
    conditions, attack = trained.conditions(settings), trained.attack_of(config.state_dim)
    for cell in cells:
        parts[f"baseline/{cell.images}"] = {"baseline_accuracy": np.array(0.3)}
        spiky = cell.variant == "s4d"
        for seed in range(seeds):
            clean = 0.28 if cell.variant.startswith("s5") else r.uniform(0.38, 0.45)
            hit = [c.amplitude * (0.35 if spiky and c.frequency == attack else 0.05) for c in conditions]
            gain = r.uniform(0.9, 1.6, (4, 2))
            gain[2] *= 14 if spiky else 1
            channel = np.exp(r.normal(0, 1, (2, 6))) * (10 if spiky else 1)
            curve = clean * (1 - np.exp(-np.arange(1, 8) / 2))
            parts[f"trained/{cell.label}/{seed}"] = {
                "clean_accuracy": np.array(clean),
                "clean_accuracy_few": np.array(clean + r.normal(0, 0.01)),
                "noisy_accuracy": clean - np.array(hit) + r.normal(0, 0.01, len(conditions)),
                "changed": np.clip(np.array(hit) * 2, 0, 1),
                "training_loss": 2.3 - 0.5 * np.linspace(0, 1, 50),
                "observed": np.arange(1, 8) * 100.0,
                "curve": np.stack([curve, curve, 0.8 * curve, (0.3 if spiky else 0.7) * curve], axis=1),
                "gain": gain,
                "gain_start": gain * 1.1,
                "gain_continuous": gain * 1.2,
                "gain_measured": gain * 0.8,
                "channel_step": np.geomspace(1e-3, 0.1, 12).reshape(2, 6),
                "channel_gain": channel,
                "channel_gain_measured": channel * 0.6,
                "own_frequency": np.array([attack, attack]),
                "own_gain": gain[2],
                "input_angle": np.array(0.3),
                "input_gain": np.array(5.0),
                "signal": np.array([1.0, 1.2]),
                "kappa": np.array(np.nan if cell.variant == "s4" else 1.0 + 9 * (not spiky)),
                "deviation": np.array(0.0 if cell.variant == "s4" else 20.3 if spiky else 0.1),
            }
    s = regression.grid(setting)
    for variant in config.regression_variants:
        for reading in config.readings:
            for seed in range(seeds):
                flips = np.where(s > 81, -1.5, 1.0) if variant == "s4d" and reading == "in-phase" else np.ones(s.size)
                parts[f"regression/{variant}/{reading}/{seed}"] = {
                    "predicted": flips + r.normal(0, 0.02, s.size),
                    "train_error": np.array(0.05),
                    "last_spike": np.array(80.966),
                }
    context = experiment._Context(config, settings, setting, cells, {"digits": 64, "cifar10": 1024})
    plan = Plan(resolved={}, tasks=list(parts), context=context)
    tree = experiment.SCHEMA.label(experiment.assemble(plan, parts))
    experiment.SCHEMA.validate(tree)
    return tree
