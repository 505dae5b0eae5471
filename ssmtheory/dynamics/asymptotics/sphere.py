"""Pre-norm: r' = F(r/|r|), the residual stream of a layer that normalises its input, on the sphere.

r = rho u and ds = dt/rho give u_s = P_u F(u), autonomous on the sphere, and (ln rho)_s = <u, F(u)>: the norm grows at
most linearly, |rho - rho0| <= t max|F|. The fixed directions are nonlinear eigenvectors, F(u*) = lambda u*. With
lambda > 0, rho = rho0 + lambda t on the ray, and with mu the spectral abscissa of the tangential derivative

    |u - u*| ~ rho^{-(1 - mu/lambda)}:

a power of the norm, not an exponential in depth; stable where mu < lambda. With lambda < 0 the ray reaches 0 at depth
rho0/|lambda|.

Of several tokens of a causal layer each has its own lambda_l and mu_l, with the limits of those before it held: near
all limits rho_l ~ lambda_l t, so that the linear flow in ln t is block lower triangular with the diagonal blocks
(D_l - lambda_l)/lambda_l. So token l comes to its limit with the least exponent of the tokens j <= l that it hears.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmtheory.dynamics.asymptotics._common import finite
from ssmtheory.dynamics.asymptotics.exponential_sums import ExponentialSum
from ssmtheory.errors import InputError

__all__ = [
    "Eigenvector",
    "clustering_rates",
    "coherent_share",
    "eigenvectors",
    "first_token_exponent",
    "linear_value_fate",
    "linear_value_sum",
    "tangent_derivative",
]


@dataclass(frozen=True)
class Eigenvector:
    """A fixed direction of r' = F(r/|r|).

    direction: (channel,) u*, |u*| = 1.
    growth: lambda, F(u*) = lambda u*.
    abscissa: mu, the largest real part of the tangential derivative.
    """

    direction: np.ndarray
    growth: float
    abscissa: float

    @property
    def stable(self) -> bool:
        """Whether nearby directions approach it: mu < lambda."""
        return self.abscissa < self.growth

    @property
    def exponent(self) -> float:
        """1 - mu/lambda for lambda > 0: |u - u*| ~ rho^{-exponent}; NaN where the ray does not grow."""
        return 1.0 - self.abscissa / self.growth if self.growth > 0 else math.nan

    def collapse_depth(self, radius: float) -> float:
        """Depth at which the ray reaches 0, from |r| = radius; infinite for lambda >= 0."""
        return radius / -self.growth if self.growth < 0 else math.inf


def tangent_derivative(F: Callable[[np.ndarray], np.ndarray], u: np.ndarray) -> np.ndarray:
    """The derivative of F along the tangent space of the sphere at u, (channel - 1, channel - 1), in an orthonormal
    basis.

    Central differences along great circles with step 1e-5: an error of about 1e-10 for a smooth F of size 1.
    """
    basis = np.linalg.svd(u[None, :])[2][1:]
    h = 1e-5
    columns = [
        (F(math.cos(h) * u + math.sin(h) * e) - F(math.cos(h) * u - math.sin(h) * e)) / (2 * math.sin(h)) for e in basis
    ]
    return basis @ np.array(columns).T


def eigenvectors(
    F: Callable[[np.ndarray], np.ndarray], width: int, *, starts: int = 64, seed: int = 0, steps: int = 100
) -> list[Eigenvector]:
    """Nonlinear eigenvectors F(u) = lambda u found by Newton's method from random directions.

    Not every one need be found; for an odd width at least one exists (the tangent field P_u F(u) has a zero on an
    even-dimensional sphere), for an even width there may be none.

    Args:
        F: a smooth map (channel,) -> (channel,) on the unit sphere.
        width: channels, at least 2.
        starts, seed, steps: of the search.

    Returns:
        Distinct eigenvectors, by falling growth.
    """
    if width < 2:
        raise InputError(f"a sphere of directions needs at least two channels, not {width}")
    rng = np.random.default_rng(seed)
    found: list[Eigenvector] = []
    for _ in range(starts):
        u = rng.standard_normal(width)
        u /= np.linalg.norm(u)
        for _ in range(steps):
            value = np.asarray(F(u), np.float64)
            growth = float(u @ value)
            residual = value - growth * u
            basis = np.linalg.svd(u[None, :])[2][1:]
            # the tangential part of F(u) - <u, F>u along a great circle has the derivative DF - lambda
            jacobian = tangent_derivative(F, u) - growth * np.eye(width - 1)
            move = np.linalg.lstsq(jacobian, -basis @ residual, rcond=None)[0]
            length = float(np.linalg.norm(move))
            u = u + basis.T @ (move * min(1.0, 0.3 / max(length, 1e-300)))
            u /= np.linalg.norm(u)
            if length < 1e-13:
                break
        value = np.asarray(F(u), np.float64)
        growth = float(u @ value)
        if np.linalg.norm(value - growth * u) > 1e-9 * (1 + np.linalg.norm(value)):
            continue
        if all(np.linalg.norm(u - each.direction) > 1e-6 for each in found):
            abscissa = float(np.linalg.eigvals(tangent_derivative(F, u)).real.max())
            found.append(Eigenvector(u, growth, abscissa))
    return sorted(found, key=lambda each: -each.growth)


# ------------------------------------------------------------------------------------------------ linear value path


def linear_value_sum(r0: Any, M: Any, W: Any) -> tuple[ExponentialSum, np.ndarray, np.ndarray]:
    """Q(s) = q(e^{sW} r0) for a symmetric W, as an exponential sum.

    The first token of a layer whose update is q(n) Delta(n) W n (n the token, normalised or not) is r(t) = e^{s(t) W}
    r0: the norm changes the clock s only. So the sign of q is invariant here, too, and the zeros of Q decide the fate.

    Args:
        r0: (channel,); M: (channel, channel); W: (channel, channel) symmetric.

    Returns:
        Q, the eigenvalues of W (rising) and its eigenvectors in columns.

    Raises:
        InputError: W is not symmetric, or shapes differ.
    """
    r, m, w = finite(r0=r0, M=M, W=W)
    if m.shape != (len(r), len(r)) or w.shape != m.shape:
        raise InputError(f"r0, M and W must have one width, not {r.shape}, {m.shape} and {w.shape}")
    if not np.allclose(w, w.T, rtol=1e-12, atol=1e-14 * np.abs(w).max()):
        raise InputError("W must be symmetric for an exponential sum with real exponents")
    values, vectors = np.linalg.eigh(w)
    start = vectors.T @ r
    inner = vectors.T @ (0.5 * (m + m.T)) @ vectors
    upper = np.triu_indices(len(r))
    twice = np.where(upper[0] == upper[1], 1.0, 2.0)
    coefficients = twice * inner[upper] * start[upper[0]] * start[upper[1]]
    return ExponentialSum(coefficients, values[upper[0]] + values[upper[1]]), values, vectors


def linear_value_fate(r0: Any, M: Any, W: Any) -> tuple[str, np.ndarray]:
    """Limit direction of the first token with a linear, symmetric value path (pre-norm, r' = q(n) Delta(n) W n).

    Args:
        r0: (channel,); M, W: (channel, channel), W symmetric with simple extreme eigenvalues.

    Returns:
        "cone" with the direction at which q = 0 stops it, "top" or "bottom" with that eigenvector of W (in the sense in
        which r0 leans), "rest", or "undecided".
    """
    total, values, vectors = linear_value_sum(r0, M, W)
    side = float(total.sign(0.0)[0]) if len(total.coefficients) else 0.0
    r = np.asarray(r0, np.float64)
    if side == 0:
        return "rest", r / np.linalg.norm(r)
    found = total.roots(0.0, np.inf) if side > 0 else total.roots(-np.inf, 0.0)
    if len(found.undecided):
        return "undecided", np.full(len(r), np.nan)
    near = found.roots[found.roots != 0]
    start = vectors.T @ r
    if len(near):
        at = near.min() if side > 0 else near.max()
        grown = start * np.exp(at * (values - values[-1 if at > 0 else 0]))
        end = vectors @ grown
        return "cone", end / np.linalg.norm(end)
    column = -1 if side > 0 else 0
    return ("top" if side > 0 else "bottom"), vectors[:, column] * np.sign(start[column])


# ------------------------------------------------------------------------------------------------ several tokens


def first_token_exponent(at_zero: float, at_lag: float) -> float:
    """beta in sin(angle of token 2 to token 1) ~ t^{-beta}: kappa(Delta)/(kappa(0) + kappa(Delta)).

    Pre-norm, identity value path, one constant step Delta, kappa(tau) = u_1^T S_C^T e^{A tau} S_B u_1. Token 2 turns
    to +-u_1 where kappa(Delta) > 0 and away from it where kappa(Delta) < 0. One decay a for all states: e^{-a
    Delta}/(1 + e^{-a Delta}) < 1/2.

    Args:
        at_zero: kappa(0); at_lag: kappa(Delta).

    Returns:
        beta; NaN where kappa(0) + kappa(Delta) <= 0 (the token does not grow there).

    >>> first_token_exponent(1.0, 1.0)
    0.5
    """
    zero, lag = finite(at_zero=at_zero, at_lag=at_lag)
    total = float(zero + lag)
    return float(lag) / total if total > 0 else math.nan


def clustering_rates(decay: float, tokens: int) -> np.ndarray:
    """beta_l of tokens 2 .. L once those before have clustered, k = e^{-a Delta}: (k - k^l)/(1 - k^l), one decay a.

    Their least is beta_2 = k/(1 + k): the rate at which all of them come to the first token.

    Args:
        decay: k, between 0 and 1; tokens: L, at least 2.

    Returns:
        (L - 1,).
    """
    if not 0 < decay < 1 or tokens < 2:
        raise InputError(f"decay must lie between 0 and 1 and tokens be at least 2, not {decay} and {tokens}")
    powers = decay ** np.arange(2, tokens + 1)
    return (decay - powers) / (1.0 - powers)


def coherent_share(g: Any, e: Any) -> np.ndarray:
    """2g/(2g + e^2): the share of the growth of |r|^2 in one layer that comes from steps along r.

    |r_{k+1}|^2 = |r_k|^2 (1 + 2g + e^2) with g = <r, dr>/|r|^2 and e = |dr|/|r|. Where the output matrix is symmetric
    in law and independent of the rest (any initialisation) E g = 0: the share is 0, |r| ~ sqrt(depth), and sign g is a
    fair coin.

    Args:
        g, e: (...,).
    """
    along, step = finite(g=g, e=e)
    total = 2.0 * along + step**2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total != 0, 2.0 * along / total, np.nan)
