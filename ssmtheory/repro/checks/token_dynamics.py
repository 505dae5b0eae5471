"""Checks for the token-dynamics paper: the depth equation integrated by its definition, and the authors' maps."""

from __future__ import annotations

import math

import numpy as np

from ssmtheory.dynamics import attention, input_output
from ssmtheory.dynamics.asymptotics import regimes, statements
from ssmtheory.errors import InputError
from ssmtheory.repro.finding import Finding
from ssmtheory.scan import api

__all__ = [
    "authors_map_rank",
    "blow_up_depth",
    "convergence_exponent",
    "hidden_attention_residual",
    "slow_exponent_over_bound",
    "statement",
]


def statement(key: str, number: str | None = None) -> Finding:
    """Run a statement of `dynamics.asymptotics.statements`; a counterexample that works speaks against the sentence.

    Args:
        key: of the statement.
        number: of the report, to be held against the claim; a yes or no where None.
    """
    found = statements.statement(key)
    report = found.check()
    refuted = found.status == "refuted-by-counterexample"
    if number is not None and number not in report.numbers:
        raise InputError(f"statement {key!r} has no number {number!r}; it has {', '.join(report.numbers)}")
    told = ", ".join(f"{name} {value:.6g}" for name, value in report.numbers.items())
    return Finding(
        value=None if number is None else float(report.numbers[number]),
        holds=bool(report.holds) != refuted,
        detail=f"{report.detail}: {told}",
    )


def convergence_exponent(mu: float, a: float) -> float:
    """Smallest -d ln|x_l|/d ln t over five tokens between t = 1e6 and 1e8."""
    kernel = regimes.Kernel.scalar(mu, a)
    marks = [math.log(1e6), math.log(1e8)]
    path = statements.token_log_flow(
        [0.7, -1.2, 0.5, 0.9, -0.4], kernel, 1.0, clock="log time", end=marks[-1], save=marks
    )
    return float(((path.y[:, 0] - path.y[:, 1]) / math.log(100)).min())


def slow_exponent_over_bound(mu: float, a: float) -> float:
    """Largest (d ln x_l/d ln ln t)/l over three slow tokens, ln t itself integrated up to w = |s x_1| = 300."""
    kernel = regimes.Kernel.scalar(mu, a)
    path = statements.token_log_flow(
        [1.0, 0.6, 1.4], kernel, -1.0, clock="growth", end=math.log(300.0), save=[math.log(30.0), math.log(300.0)],
        method="DOP853",
    )  # fmt: skip
    # a token that blows up stops the time: ln ln t does not move then
    log_log_t = np.log(np.log(np.maximum(path.y[3], 1.001)))
    slope = (path.y[:3, 1] - path.y[:3, 0]) / max(float(log_log_t[1] - log_log_t[0]), 1e-12)
    return float((slope / np.arange(1, 4)).max())


def blow_up_depth(mu: float, s: float, x0: float) -> float:
    """The depth at which one token has grown to e^14 times its size."""
    path = statements.token_log_flow([x0], regimes.Kernel.scalar(mu, 1.0), s, clock="growth", end=14.0, method="DOP853")
    return float(path.y[1, -1])


def hidden_attention_residual(tokens: int, channels: int, states: int) -> float:
    """Largest |scan - sum_j P_dlj x_dj| over the largest |scan|, B and C being S_B x and S_C x."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((tokens, channels))
    S_B, S_C = rng.standard_normal((2, states, channels)) / math.sqrt(channels)
    S_delta = rng.standard_normal((channels, channels)) / math.sqrt(channels)
    A = -rng.uniform(0.2, 3.0, (channels, states))
    delta = np.logaddexp(0.0, x @ S_delta.T)
    B, C = x @ S_B.T, x @ S_C.T
    y = api.selective_scan(x[None], delta[None], A, B[None], C[None], backend="numpy")[0]
    rows = attention.attention_rows(delta, A, B[:, None], C[:, None], range(tokens))
    return float(np.abs(np.einsum("ljd,jd->ld", rows, x) - y).max() / np.abs(y).max())


def authors_map_rank(width: int, states: int, kind: str) -> Finding:
    """Eigenvalues of a sign of M = S_C^T diag(g) S_C in the authors' re-parameterisation, from random weights.

    Positive ones, the negative ones as a negative number, or of "mixed" as many as there are of either sign at least:
    with rank N, N/2 of that leave room for no other split.

    S_C = triu(P, 1) with a unit diagonal, S_B = diag(g) S_C, g = softplus(delta) + 0.7 ("positive"), its negative
    ("negative"), or +-softplus(delta) by halves ("mixed"): repository Fsoft-AIC/Mamba-token-dynamic.
    """
    rng = np.random.default_rng(2)
    S_C = np.triu(rng.standard_normal((states, width)), 1)
    S_C[np.arange(states), np.arange(states)] = 1.0
    g = np.logaddexp(0.0, rng.standard_normal(states))
    if kind == "mixed":
        g = np.where(np.arange(states) < states // 2, g, -g)
    elif kind == "positive":
        g = g + 0.7
    elif kind == "negative":
        g = -(g + 0.7)
    else:
        raise InputError(f"kind {kind!r} is not one of positive, negative, mixed")
    values = input_output.symmetric_eigenvalues(g[:, None] * S_C, S_C)
    scale = float(np.abs(values).max())
    positive = int((values > 1e-9 * scale).sum())
    negative = int((values < -1e-9 * scale).sum())
    told = f"{positive} positive, {negative} negative, {width - positive - negative} zero of {width}"
    return Finding(value=float(min(positive, negative) if kind == "mixed" else positive or -negative), detail=told)
