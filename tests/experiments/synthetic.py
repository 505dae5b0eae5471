"""A made-up token-dynamics dataset of the right shape, for tests of plots and stores (no model is run)."""

from __future__ import annotations

import numpy as np
import xarray as xr

from ssmtheory.experiments import token_dynamics as td

LAYERS, SEQUENCES, TOKENS, CHANNELS, STATES = 6, 3, 64, 20, 4
LAGS = (1, 2, 4, 8, 16, 32)
ANCHORS = (0, 1, 2, 4, 8)


def sizes() -> dict[str, int]:
    """Size of every dimension of the synthetic dataset."""
    return {
        "sequence": SEQUENCES, "token": TOKENS, "layer": LAYERS, "depth": LAYERS + 1, "channel": CHANNELS,
        "state": STATES, "quantile": len(td.QUANTILES), "lag": len(LAGS), "eig": 2 * STATES, "part": 4,
        "predictor": len(td.PREDICTORS), "anchor_token": len(ANCHORS), "delta_bin": 48, "decay_bin": 32,
        "position_bin": 6, "token_i": 24, "token_j": 24, "row": 1,
    }  # fmt: skip


def coordinates() -> dict[str, np.ndarray]:
    """Index coordinates as the experiment writes them."""
    n = sizes()
    out: dict[str, np.ndarray] = {
        name: np.arange(n[name]) for name in ("sequence", "token", "layer", "depth", "channel", "state", "eig", "row")
    }
    out |= {
        "quantile": np.array(td.QUANTILES),
        "lag": np.array(LAGS),
        "predictor": np.array(td.PREDICTORS, dtype=object),
        "part": np.array(["skip", "self", "hist", "bias"], dtype=object),
        "anchor_token": np.array(ANCHORS),
        "token_i": np.linspace(0, TOKENS - 1, n["token_i"]).astype(int),
        "token_j": np.linspace(0, TOKENS - 1, n["token_j"]).astype(int),
    }
    return out


def synthetic_tree(seed: int = 0) -> xr.DataTree:
    """A labelled, valid dataset: random, with the signs, ranges and trends that real ones have."""
    rng = np.random.default_rng(seed)
    n = sizes()
    coords = coordinates()
    values = _values(rng, n)
    groups: dict[str, xr.Dataset] = {}
    for path, variables in td.SCHEMA.groups.items():
        data = {}
        for name, v in variables.items():
            shape = tuple(n[d] for d in v.dims)
            array = values.get(f"{path}/{name}")
            if array is None:
                array = rng.normal(size=shape)
            data[name] = (v.dims, np.broadcast_to(array, shape).astype(v.dtype))
        used = {d for v in variables.values() for d in v.dims}
        groups[path] = xr.Dataset(data, coords={d: c for d, c in coords.items() if d in used})
    tree = td.SCHEMA.label(xr.DataTree.from_dict(groups))
    tree.attrs = {
        "title": td.TITLE, "experiment": "token_dynamics", "schema": td.SCHEMA.id,
        "config": '{"model":"synthetic"}', "model_sha256": "0" * 64,
    }  # fmt: skip
    td.SCHEMA.validate(tree)
    return tree


def _values(rng: np.random.Generator, n: dict[str, int]) -> dict[str, np.ndarray]:
    """The variables that are not plain standard normals."""
    depth = np.arange(n["depth"])
    slt = (n["sequence"], n["layer"], n["token"])
    norm = np.exp(0.25 * depth[None, :, None] + 0.1 * rng.normal(size=(n["sequence"], n["depth"], n["token"])))
    step = np.abs(rng.normal(0.5, 0.1, slt))
    g = rng.normal(0.2, 0.15, slt)
    delta_edges = np.geomspace(1e-4, 10.0, n["delta_bin"] + 1)
    decay_edges = np.linspace(0.0, 1.0, n["decay_bin"] + 1)
    quantile = np.exp(-4.0 + np.sort(rng.normal(size=(n["layer"], n["quantile"], n["channel"])), axis=1))
    a = -(1.0 + np.arange(n["state"]))
    mean = np.exp(rng.normal(-4.0, 0.7, (n["layer"], n["channel"])))
    lyapunov = a * mean[..., None]
    half = np.abs(rng.normal(size=(n["layer"], n["eig"] // 2)))
    eig = rng.normal(size=(n["layer"], n["state"])) + 1j * rng.normal(size=(n["layer"], n["state"]))
    edges = 2 ** np.arange(n["position_bin"] + 1)
    edges[0] = 0
    points = rng.normal(size=(n["depth"], n["token_i"], 8)) + 0.2 * depth[:, None, None]
    points /= np.linalg.norm(points, axis=-1, keepdims=True)
    causal = np.tril(np.ones((n["token_i"], n["token_j"])))
    decayed = causal * np.exp(-0.2 * np.abs(np.subtract.outer(np.arange(n["token_i"]), np.arange(n["token_j"]))))
    conc = rng.uniform(0.4, 0.95, (n["layer"], n["predictor"]))
    kappa = np.linspace(-0.05, 0.9, n["predictor"])
    code = np.where(rng.uniform(size=n["layer"]) < 0.5, -1, 1)
    q_fraction = np.clip(np.linspace(0.2, 0.8, n["layer"]), 0, 1)
    parts = rng.dirichlet(np.ones(n["part"]), n["layer"])
    loss = np.abs(rng.normal(2.2, 0.8, (n["sequence"], n["token"])))
    loss[:, -1] = np.nan
    return {
        "/text/source": np.array(["tinyshakespeare", "kjv", "tinyshakespeare"], dtype=object),
        "/text/start": np.arange(n["sequence"]) * 1000,
        "/text/n_bytes": np.full(n["sequence"], n["token"] - 1),
        "/text/bits_per_token": np.nanmean(loss, axis=1),
        "/text/bits_per_byte": np.nanmean(loss, axis=1),
        "/tokens/token_id": rng.integers(32, 122, (n["sequence"], n["token"])),
        "/tokens/loss_bits": loss,
        "/tokens/residual_norm": norm,
        "/tokens/radial_rate": g,
        "/tokens/step_size": step,
        "/tokens/angular_speed": np.abs(rng.normal(0.4, 0.1, slt)),
        "/tokens/q": rng.normal(0.1, 0.5, slt),
        "/tokens/kappa": rng.normal(0.1, 0.4, slt),
        "/tokens/delta": np.exp(rng.normal(-4, 0.3, slt)),
        "/tokens/A_Delta": rng.normal(0, 0.05, slt),
        "/tokens/g_skip": 0.9 * g,
        "/tokens/g_self": 0.04 * g,
        "/tokens/g_hist": 0.06 * g,
        "/tokens/g_bias": np.zeros(slt),
        "/tokens/state_rms": np.abs(rng.normal(0.3, 0.05, slt)) * np.sqrt(1 - np.exp(-np.arange(n["token"]) / 10.0)),
        "/channels/delta_quantile": quantile,
        "/channels/delta_mean": mean,
        "/channels/delta_bin_lower": delta_edges[:-1],
        "/channels/delta_bin_upper": delta_edges[1:],
        "/channels/delta_histogram": rng.poisson(
            200 * np.exp(-((np.log(delta_edges[1:]) + 4) ** 2)), (n["layer"], n["delta_bin"])
        ),
        "/channels/decay_bin_lower": decay_edges[:-1],
        "/channels/decay_bin_upper": decay_edges[1:],
        "/channels/decay_histogram": rng.poisson(
            100 * np.exp(4 * (decay_edges[1:] - 1)), (n["layer"], n["decay_bin"])
        ),
        "/channels/horizon": -1.0 / lyapunov,
        "/channels/erf": -0.8 / lyapunov,
        "/channels/lyapunov": lyapunov,
        "/channels/lag_time": mean[:, None, :] * np.array(LAGS)[None, :, None],
        "/layers/eig_input_output": eig,
        "/layers/eig_symmetric": np.sort(np.concatenate([-half, half[:, ::-1]], axis=1), axis=1),
        "/layers/q_positive_fraction": q_fraction,
        "/layers/q_positive_low": q_fraction - 0.05,
        "/layers/q_positive_high": q_fraction + 0.05,
        "/layers/growth": np.full(n["layer"], 0.25),
        "/layers/growth_low": np.full(n["layer"], 0.2),
        "/layers/growth_high": np.full(n["layer"], 0.3),
        "/layers/g_positive_fraction": rng.uniform(0.5, 1.0, n["layer"]),
        "/layers/predicted_scenario": code,
        "/layers/eigenvalue_scenario": np.ones(n["layer"]),
        "/layers/observed_scenario": np.ones(n["layer"]),
        "/layers/t_c": np.exp(rng.normal(4, 0.5, n["layer"])),
        "/layers/chi": rng.uniform(0, 0.1, n["layer"]),
        "/layers/share": parts,
        "/layers/coherent_share": rng.uniform(0, 0.6, n["layer"]),
        "/layers/kappa_sign_change": rng.uniform(0, 1, n["layer"]),
        "/layers/split_residual": np.full(n["layer"], 1e-7),
        "/layers/scan_residual": np.full(n["layer"], 1e-7),
        "/layers/state_rms_by_position": 0.3 * np.sqrt(1 - np.exp(-edges[1:] / 10.0))[None, :],
        "/layers/position_lower": edges[:-1],
        "/layers/position_upper": edges[1:],
        "/concordance/concordance": conc,
        "/concordance/concordance_low": conc - 0.03,
        "/concordance/concordance_high": conc + 0.03,
        "/concordance/chance": np.full((n["layer"], n["predictor"]), 0.52),
        "/concordance/null_low": np.full((n["layer"], n["predictor"]), 0.48),
        "/concordance/null_high": np.full((n["layer"], n["predictor"]), 0.56),
        "/concordance/majority_baseline": rng.uniform(0.5, 0.95, n["layer"]),
        "/concordance/evidence": conc > 0.9,
        "/concordance/spearman": rng.uniform(-0.1, 0.9, (n["layer"], n["predictor"])),
        "/concordance/pooled_concordance": conc.mean(axis=0),
        "/concordance/pooled_baseline": np.array(0.8),
        "/concordance/kappa": kappa,
        "/concordance/kappa_low": kappa - 0.02,
        "/concordance/kappa_high": kappa + 0.02,
        "/concordance/kappa_null_low": np.full(n["predictor"], -0.02),
        "/concordance/kappa_null_high": np.full(n["predictor"], 0.02),
        "/concordance/pooled_spearman": kappa,
        "/concordance/pooled_evidence": kappa > 0.5,
        "/clustering/cosine": np.einsum("kid,kjd->kij", points, points),
        "/clustering/mean_cosine": 0.05 + 0.05 * depth,
        "/clustering/cosine_to_first": 0.1 + 0.05 * depth,
        "/clustering/cosine_to_other_first": 0.1 + 0.045 * depth,
        "/clustering/anchor_cosine": (0.1 + 0.05 * depth)[:, None],
        "/clustering/anchor_excess": np.full((n["depth"], n["anchor_token"]), 0.01),
        "/clustering/anchor_excess_low": np.full((n["depth"], n["anchor_token"]), -0.01),
        "/clustering/anchor_excess_high": np.full((n["depth"], n["anchor_token"]), 0.03),
        "/attention/map": 0.01 * decayed * rng.normal(size=(n["layer"], n["token_i"], n["token_j"])),
        "/attention/map_abs": 0.01 * decayed * np.ones((n["layer"], 1, 1)),
        "/attention/row_token": np.array([TOKENS - 1]),
    }  # fmt: skip
