"""Checks on the directions of a trained model's tokens: what of the theory of the sphere they follow."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmtheory.dynamics import sphere
from ssmtheory.dynamics.asymptotics.sphere import clustering_rates
from ssmtheory.errors import InputError
from ssmtheory.experiments import sphere as experiment
from ssmtheory.repro.finding import Finding

__all__ = ["clustering_excess", "clustering_rate_ratio", "limit_exponent_ratio", "repeated_layer_exponent"]


def _measured(
    model: str, sha256: str, sequences: int, tokens: int, repetitions: int = 8, limit_span: float = 1.0
) -> Any:
    """The experiment's dataset of one embedded model.

    Raises:
        InputError: the weights are not those of the claim.
    """
    config = experiment.Config(
        models=(model,), sequences=sequences, tokens=tokens, repetitions=repetitions, limit_tokens=1,
        limit_span=limit_span,
    )  # fmt: skip
    tree = experiment.run(config)
    found = str(np.asarray(tree["models/sha256"].values)[0])
    if found != sha256:
        raise InputError(f"{model} has sha256 {found}; the claim is about {sha256}")
    return tree


def _finding(tree: Any, group: str, name: str, at: dict[str, int], words: str) -> Finding:
    value, low, high = (float(tree[f"{group}/{name}{end}"].isel(at).values) for end in ("", "_low", "_high"))
    sha256 = str(np.asarray(tree["models/sha256"].values)[0])
    return Finding(value, low, high, detail=f"{words} {value:.4f} [{low:.4f}, {high:.4f}], model {sha256[:12]}")


def clustering_excess(model: str, sha256: str, sequences: int, tokens: int) -> Finding:
    """Mean cosine of tokens of one text less that of different texts, after the last layer."""
    tree = _measured(model, sha256, sequences, tokens)
    depth = int(np.asarray(tree["models/layers"].values)[0])
    return _finding(tree, "depth", "cosine_excess", {"model": 0, "depth": depth}, "cosine within less between texts:")


def repeated_layer_exponent(model: str, sha256: str, sequences: int, tokens: int, repetitions: int) -> Finding:
    """x in |P_u F|/|F| ~ |r|^-x where the last layer is applied again and again."""
    tree = _measured(model, sha256, sequences, tokens, repetitions)
    return _finding(tree, "models", "tied_exponent", {"model": 0}, "exponent of the repeated last layer:")


def limit_exponent_ratio(
    model: str, sha256: str, sequences: int, tokens: int, repetitions: int, limit_span: float
) -> Finding:
    """Measured over predicted exponent of first tokens that come to a limit direction of the repeated last layer."""
    tree = _measured(model, sha256, sequences, tokens, repetitions, limit_span)
    told = {name: float(tree[f"limits/{name}"].values[0, 0]) for name in ("settled", "directions", "predicted")}
    words = (
        f"{told['settled']:.0%} of first tokens come to one of {told['directions']:.0f} limit directions, predicted "
        f"exponent {told['predicted']:.4f}; measured over predicted"
    )
    return _finding(tree, "limits", "ratio", {"model": 0, "position": 0}, words)


def clustering_rate_ratio(decay: float, tokens: int, draws: int) -> Finding:
    """Exponent of the angle to the first token over beta_2 = k/(1 + k), of tokens 3 .. L of random layers, long after.

    Pre-norm, identity value path, one constant step, k = e^{-a Delta}: F(u)_l = sum_j k^{l-j} (S_C u_l, S_B u_j) u_j.

    Args:
        decay: k; tokens: L; draws: of layers (three channels, q(u_1) > 0) and of tokens.

    Returns:
        The median over tokens and layers. A token whose slow mode has a small coefficient shows its own, faster one
        even at the smallest angles that float64 has.
    """
    rng = np.random.default_rng(8)
    kernel = np.tril(decay ** np.abs(np.subtract.outer(np.arange(tokens), np.arange(tokens))))
    found: list[float] = []
    kept = 0
    while kept < draws:
        S_B, S_C = rng.standard_normal((2, 3, 3))
        start = rng.standard_normal((1, tokens, 3))
        if float((S_C @ start[0, 0]) @ (S_B @ start[0, 0])) <= 0:
            continue
        kept += 1

        def update(u: np.ndarray, S_B: np.ndarray = S_B, S_C: np.ndarray = S_C) -> np.ndarray:
            return np.asarray((kernel * np.einsum("tln,tjn->tlj", u @ S_C.T, u @ S_B.T)) @ u)

        # angles fall as t^-beta: four decades below 1e-9 need ln t of 30/beta
        flow = sphere.limit_flow(update, start, depth=1.0, span=30.0 / decay * (1.0 + decay))
        own = np.abs(np.einsum("tld,td->tl", flow.direction, flow.direction[:, 0]))
        if not (own > 1.0 - 1e-12).all():
            raise InputError("a token did not come to the first one")
        found += list(flow.exponent[0, 2:])
    ratio = np.array(found) / clustering_rates(decay, tokens).min()
    told = (
        f"{draws} layers, tokens 3 to {tokens}: beta_2 = {clustering_rates(decay, tokens).min():.4f}, ratios from "
        f"{ratio.min():.4f} to {ratio.max():.4f}"
    )
    return Finding(float(np.median(ratio)), detail=told)
