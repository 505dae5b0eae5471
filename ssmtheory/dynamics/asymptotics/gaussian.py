"""Random input-output matrices: how often q(u) = u^T S_C^T S_B u is positive, how often the null cone stops a token.

For any fixed u and S_B, S_C of symmetric law P(q(u) > 0) = 1/2 (flip S_C). For one draw of the matrices and isotropic
u it is 1/2 + delta, where delta has mean zero and the standard deviation `input_output.isotropic_spread`, about
1/sqrt(2 pi D) whatever N; delta is carried by the trace of M. For given matrices `positive_fraction` has the exact
value.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ssmtheory.dynamics.asymptotics._common import finite, gauss
from ssmtheory.dynamics.input_output import isotropic_spread, symmetric_eigenvalues
from ssmtheory.errors import InputError

__all__ = [
    "cone_constant",
    "expected_cone_zeros",
    "isotropic_spread",
    "positive_fraction",
    "positive_fraction_of_spectrum",
    "positive_fraction_rank_one",
]


def positive_fraction_rank_one(S_B: Any, S_C: Any) -> float:
    """P(q(u) > 0) over isotropic u for N = 1: 1/2 + arcsin(rho)/pi with rho the cosine between the two rows.

    Args:
        S_B, S_C: (channel,) or (1, channel).

    >>> positive_fraction_rank_one([1.0, 0.0], [1.0, 1.0])
    0.75
    """
    b, c = (v.ravel() for v in finite(S_B=S_B, S_C=S_C))
    if b.shape != c.shape or not (b.any() and c.any()):
        raise InputError(f"S_B and S_C must be non-zero rows of one length, not of shapes {b.shape} and {c.shape}")
    rho = float(b @ c / (np.linalg.norm(b) * np.linalg.norm(c)))
    return 0.5 + math.asin(max(-1.0, min(1.0, rho))) / math.pi


def positive_fraction_of_spectrum(eigenvalues: Any) -> float:
    """P(sum_k lambda_k g_k^2 > 0) for independent standard normal g_k, by Imhof's inversion, to about 1e-10.

    1/2 + (1/pi) int_0^inf sin(theta(u)) / (u rho(u)) du, theta = (1/2) sum atan(lambda u), and
    rho^4 = prod (1 + lambda^2 u^2) (Imhof, Biometrika 48 (1961) 419), in v = ln u, where the integrand falls
    exponentially at both ends.

    Args:
        eigenvalues: (k,); zeros have no part.

    Raises:
        InputError: all eigenvalues are zero, or one is not finite.

    >>> round(positive_fraction_of_spectrum([1.0, -1.0]), 9)
    0.5
    """
    (values,) = finite(eigenvalues=eigenvalues)
    values = values.ravel()
    largest = float(np.abs(values).max()) if values.size else 0.0
    if largest == 0:
        raise InputError("q is zero for every u: no eigenvalue differs from zero")
    values = values[np.abs(values) > 1e-14 * largest] / largest
    if (values > 0).all() or (values < 0).all():
        return 1.0 if values[0] > 0 else 0.0
    size = np.abs(values)
    # right of the last 1/|lambda| the integrand falls as u^{-rank/2}; left of the first it is proportional to u
    low, high = -30.0, float(-np.log(size.min()) + 2.0 * 25.0 / len(size) + 8.0)
    nodes, weights = gauss(16)
    last = math.nan
    for panels in (64, 128, 256, 512, 1024):
        v = low + ((np.arange(panels)[:, None] + nodes) / panels).ravel() * (high - low)
        u = np.exp(v)[:, None] * values
        integrand = np.sin(0.5 * np.arctan(u).sum(axis=1)) * np.exp(-0.25 * np.log1p(u**2).sum(axis=1))
        found = 0.5 + float(integrand @ np.tile(weights, panels)) * (high - low) / panels / math.pi
        if abs(found - last) < 1e-11:
            break
        last = found
    return min(1.0, max(0.0, found))


def positive_fraction(S_B: Any, S_C: Any) -> float:
    """P(u^T S_C^T S_B u > 0) over isotropic u for given matrices, exactly (to about 1e-10), from a 2N x 2N matrix.

    Args:
        S_B, S_C: (state, channel).
    """
    return positive_fraction_of_spectrum(symmetric_eigenvalues(S_B, S_C))


def cone_constant(states: int) -> float:
    """C_N = 4 Gamma(N - 1/2) / (sqrt(pi) 2^N Gamma(N/2)^2): zeros of Q per unit of int sqrt(Var Delta) ds.

    2/pi for N = 1 and sqrt(2)/pi for large N. Kac-Rice for Q = b.c with b, c independent Gaussian in R^N: the density
    is (1/pi) sqrt(v) E sqrt(1 + chi^2_{N-1}/chi^2_N), v = Var_w Delta (for N = 1 twice that: b and c have zeros of
    their own).

    >>> round(cone_constant(1) * math.pi, 12)
    2.0
    """
    if states < 1:
        raise InputError(f"states must be at least 1, not {states}")
    n = float(states)
    log = math.lgamma(n - 0.5) - n * math.log(2.0) - 2.0 * math.lgamma(0.5 * n)
    return 4.0 / math.sqrt(math.pi) * math.exp(log)


def expected_cone_zeros(x0: Any, delta: Any, states: int, interval: tuple[float, float]) -> float:
    """Expected number of zeros of Q on an interval of s, over Gaussian S_B and S_C (N rows), for a fixed first token.

    C_N int sqrt(Var_{w(s)} Delta) ds with the weights w_d proportional to x_d^2 e^{2 Delta_d s}.

    Args:
        x0: (channel,); delta: (channel,) constant steps; states: N; interval: of s.
    """
    x, d = finite(x0=x0, delta=delta)
    if x.shape != d.shape or x.ndim != 1 or not x.any():
        raise InputError(f"x0 and delta must be vectors of one length and x0 not zero, not {x.shape} and {d.shape}")
    nodes, weights = gauss(16)
    panels = 256
    a, b = interval
    s = a + (b - a) * ((np.arange(panels)[:, None] + nodes) / panels).ravel()
    live = x != 0
    logs = 2.0 * np.log(np.abs(x[live])) + 2.0 * s[:, None] * d[live]
    w = np.exp(logs - logs.max(axis=1, keepdims=True))
    w /= w.sum(axis=1, keepdims=True)
    mean = w @ d[live]
    spread = np.sqrt((w * (d[live] - mean[:, None]) ** 2).sum(axis=1))
    return cone_constant(states) * float(spread @ np.tile(weights, panels)) * (b - a) / panels
