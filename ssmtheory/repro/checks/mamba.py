"""Checks for what Mamba's paper states exactly: the gate, linear time with a constant state, selection."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ssmtheory.lti import discretize
from ssmtheory.scan import api

__all__ = [
    "chunked_residual",
    "cubic_residual",
    "euler_gate_gap",
    "forgotten_past",
    "gate_residual",
    "ignored_input",
]


def _problem(tokens: int, channels: int = 3, states: int = 4, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "u": rng.standard_normal((1, tokens, channels)),
        "delta": rng.uniform(0.05, 1.0, (1, tokens, channels)),
        "A": -rng.uniform(0.2, 3.0, (channels, states)),
        "B": rng.standard_normal((1, tokens, states)),
        "C": rng.standard_normal((1, tokens, states)),
    }


def gate_residual(points: int) -> float:
    """Largest |A_bar - (1 - g)| + |B_bar - g| of one zero-order-hold step with A = -1, B = 1, Delta = softplus(z)."""
    z = np.linspace(-20.0, 20.0, points)
    a, b = discretize.zoh_factors(np.array(-1.0 + 0j), np.logaddexp(0.0, z))
    g = 1.0 / (1.0 + np.exp(-z))
    return float((np.abs(a - (1.0 - g)) + np.abs(b - g)).max())


def euler_gate_gap(z: float) -> float:
    """The weight of the input in one step of the scan at Delta = softplus(z), less sigmoid(z)."""
    one = np.ones((1, 1, 1))
    h = api.selective_scan(one, z * one, -np.ones((1, 1)), one, one, delta_softplus=True, backend="numpy")
    return float(h[0, 0, 0]) - 1.0 / (1.0 + math.exp(-z))


def chunked_residual(tokens: int, chunk: int) -> float:
    """Largest difference of a scan done in chunks with the carried state from the scan in one go.

    In units of 2 L u (1 + L) sum_n |C_n| max_t sum |Delta B u|: what rounding (u = 2^-53) can do to L steps of a
    recurrence whose factors are below one, done twice.
    """
    p = _problem(tokens)
    state: Any = np.zeros((1, *p["A"].shape))
    whole = api.selective_scan(**p, initial_state=state, backend="numpy")
    parts = []
    for start in range(0, tokens, chunk):
        part: dict[str, Any] = {k: v if k == "A" else v[:, start : start + chunk] for k, v in p.items()}
        y, state = api.selective_scan(**part, initial_state=state, return_last_state=True, backend="numpy")
        parts.append(y)
    entered = np.abs(p["delta"] * p["u"]).max() * np.abs(p["B"]).max()
    rounding = 2.0 * (1 + tokens) * 2.0**-53 * np.abs(p["C"]).sum(axis=-1).max() * tokens * entered
    return float(np.abs(np.concatenate(parts, axis=1) - whole).max() / rounding)


def forgotten_past(step: float) -> float:
    """Largest change of the last outputs when everything before a token with Delta = step is replaced."""
    p, q = _problem(20), _problem(20, seed=1)
    for each in (p, q):
        each["delta"][:, 10] = step
    q["A"] = p["A"]
    for name in ("u", "delta", "B", "C"):
        q[name][:, 10:] = p[name][:, 10:]
    one, two = (api.selective_scan(**each, backend="numpy")[:, 10:] for each in (p, q))
    return float(np.abs(one - two).max())


def ignored_input(step: float) -> float:
    """Largest change of the later outputs when the token at Delta = step is replaced."""
    p = _problem(20)
    p["delta"][:, 10] = step
    q = {k: v.copy() for k, v in p.items()}
    q["u"][:, 10] += 1.0
    one, two = (api.selective_scan(**each, backend="numpy")[:, 11:] for each in (p, q))
    return float(np.abs(one - two).max())


def cubic_residual(tokens: int) -> float:
    """Largest |y(2x) - 8 y(x)| over the largest |y(x)|, with B = S_B x, C = S_C x and a constant Delta."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((1, tokens, 2))
    A = -rng.uniform(0.2, 2.0, (2, 3))
    S_B, S_C = rng.standard_normal((2, 3, 2))

    def output(v: np.ndarray) -> np.ndarray:
        return api.selective_scan(v, 0.4 * np.ones_like(v), A, v @ S_B.T, v @ S_C.T, backend="numpy")

    once, twice = output(x), output(2.0 * x)
    return float(np.abs(twice - 8.0 * once).max() / np.abs(once).max())
