"""Directions of tokens on the sphere: measured counterparts of the pre-norm flow (`asymptotics.sphere`).

A layer that normalises its input moves r = rho u by F(u): the direction turns by P_u F/rho and the norm grows by
<u, F>. A direction at rest is a nonlinear eigenvector, P_u F = 0, and those that come to it do so by a power of the
norm, |u - u*| ~ rho^{-x}, with x = 1 - mu/lambda (token 2 to token 1: x <= 1/2 for one decay and an identity value
path). Sines are averaged as squares: equal tokens have a sine of zero, which no mean of logarithms survives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ssmtheory.errors import InputError

__all__ = [
    "LimitFlow",
    "effective_rank",
    "excess",
    "independent_sine",
    "limit_flow",
    "mean_pair_cosine",
    "own_and_other",
    "own_derivative",
    "pair_sine",
    "power_fit",
    "tangential_share",
    "unit",
]


def unit(x: np.ndarray) -> np.ndarray:
    """x over its norm along the last axis, float64; NaN where x = 0."""
    x = np.asarray(x, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))


def tangential_share(residual: np.ndarray, update: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How an update F lies to the direction u it starts from: <u, F>/|F| and |P_u F|/|F|.

    The second is the residual of F(u) = lambda u, zero at a nonlinear eigenvector. A random direction in d dimensions
    has mean square 1/d and 1 - 1/d.

    Args:
        residual, update: (..., channel).

    Returns:
        Each (...,); NaN where one of the vectors is zero.

    >>> [float(x) for x in tangential_share(np.array([2.0, 0.0]), np.array([3.0, 4.0]))]
    [0.6, 0.8]
    """
    u, f = unit(residual), unit(update)
    along = np.einsum("...d,...d->...", u, f)
    # by the vector, not by 1 - along^2: a small residual keeps its digits
    return along, np.linalg.norm(f - along[..., None] * u, axis=-1)


def effective_rank(x: np.ndarray) -> np.ndarray:
    """exp of the entropy of the squared singular values' shares (cf. Roy and Vetterli, EUSIPCO 2007).

    Args:
        x: (..., token, channel).

    Returns:
        (...,): 1 where all rows are parallel, min(token, channel) where they are spread evenly.

    >>> round(float(effective_rank(np.eye(3))), 12), round(float(effective_rank(np.ones((3, 5)))), 12)
    (3.0, 1.0)
    """
    square = np.linalg.svd(np.asarray(x, np.float64), compute_uv=False) ** 2
    share = square / square.sum(axis=-1, keepdims=True)
    entropy = -np.sum(np.where(share > 0, share * np.log(np.where(share > 0, share, 1.0)), 0.0), axis=-1)
    return np.asarray(np.exp(entropy))


def mean_pair_cosine(u: np.ndarray) -> np.ndarray:
    """Mean cosine of two different rows of unit vectors (..., token, channel): (...,)."""
    n = u.shape[-2]
    if n < 2:
        raise InputError("a mean over pairs of tokens needs at least two tokens")
    total = u.sum(axis=-2)
    return np.asarray((np.einsum("...d,...d->...", total, total) - n) / (n * (n - 1)))


def pair_sine(u: np.ndarray, v: np.ndarray | None = None) -> np.ndarray:
    """Mean squared sine of the angle between two different rows of u, or between rows of u and rows of v.

    Args:
        u: (..., token, channel) unit vectors; v: the same of another text.

    Returns:
        (...,)
    """
    cosine = u @ np.swapaxes(u if v is None else v, -1, -2)
    total = np.sum(cosine**2, axis=(-1, -2))
    count = cosine.shape[-1] * cosine.shape[-2]
    if v is None:
        n = u.shape[-2]
        if n < 2:
            raise InputError("a mean over pairs of tokens needs at least two tokens")
        total, count = total - n, n * (n - 1)
    return np.asarray(np.maximum(1.0 - total / count, 0.0))


def independent_sine(norm: np.ndarray) -> np.ndarray:
    """Squared sine to the final direction if every update were orthogonal to all before: 1 - rho_k^2/rho_K^2.

    The control for "directions converge": each token's direction comes to its last one whatever the layers do.

    Args:
        norm: rho, (..., depth).

    Returns:
        (..., depth), zero where the norm exceeds the last one.
    """
    norm = np.asarray(norm, np.float64)
    return np.maximum(1.0 - (norm / norm[..., -1:]) ** 2, 0.0)


def own_and_other(weights: np.ndarray, values: np.ndarray, comparable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over the diagonal and over comparable pairs of different texts, in each bootstrap resample.

    Args:
        weights: (resample, text) how often each text occurs.
        values: (..., text, text): of text i with text j.
        comparable: (text, text) or (..., text, text) bool: which pairs i != j are a control.

    Returns:
        Each (resample, ...). A text drawn twice is never its own control. NaN without comparable pairs.
    """
    n = values.shape[-1]
    diagonal = np.einsum("...ii->...i", values)
    own = np.moveaxis(diagonal @ weights.T, -1, 0) / weights.sum(axis=1).reshape(-1, *[1] * (values.ndim - 2))
    mask = np.broadcast_to(comparable & ~np.eye(n, dtype=bool), values.shape).astype(np.float64)
    total = np.einsum("bi,...ij,bj->b...", weights, mask * values, weights, optimize=True)
    count = np.einsum("bi,...ij,bj->b...", weights, mask, weights, optimize=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        other = np.where(count > 0, total / count, np.nan)
    return own, other


def excess(
    values: np.ndarray, comparable: np.ndarray, group: np.ndarray, permutations: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the diagonal of (..., text, text), and the same with the second text permuted within its group.

    Args:
        values: of text i with text j; comparable: as of `own_and_other`, pairs that are left out where False (i != j).
        group: (text,) number of each text's source.

    Returns:
        (...,) and (permutation, ...).
    """
    rng, n = np.random.default_rng([seed, 3]), values.shape[-1]
    rows, drawn = np.arange(n), []
    mask = np.broadcast_to(comparable | np.eye(n, dtype=bool), values.shape)
    for _ in range(permutations):
        order = np.arange(n)
        for name in np.unique(group):
            members = np.flatnonzero(group == name)
            order[members] = members[rng.permutation(len(members))]
        kept = mask[..., rows, order]
        with np.errstate(invalid="ignore"):
            drawn.append((kept * values[..., rows, order]).sum(axis=-1) / kept.sum(axis=-1))
    return np.einsum("...ii->...", values) / n, np.array(drawn)


def power_fit(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and R^2 of y against x by least squares along the last axis; NaN where x is constant.

    >>> slope, r2 = power_fit(np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 5.0]))
    >>> float(slope), float(r2)
    (2.0, 1.0)
    """
    x = x - x.mean(axis=-1, keepdims=True)
    y = y - y.mean(axis=-1, keepdims=True)
    xx, xy, yy = (np.sum(a * b, axis=-1) for a, b in ((x, x), (x, y), (y, y)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(xy / xx), np.asarray(xy**2 / (xx * yy))


# ------------------------------------------------------------------------------------------------ limit directions


@dataclass(frozen=True)
class LimitFlow:
    """Tokens of a weight-tied flow r' = F(r/|r|), followed over many decades of depth.

    Attributes:
        direction: (text, token, channel) where they came to.
        residual: (text, token) |P_u F|/|F| there: zero at a nonlinear eigenvector.
        growth: (text, token) lambda = <u, F>.
        exponent: (text, token) measured x in |P_u F|/|F| ~ |r|^-x over the last four decades of the residual; NaN for a
            token that has not come to within `settled` of a limit.
    """

    direction: np.ndarray
    residual: np.ndarray
    growth: np.ndarray
    exponent: np.ndarray

    #: residual below which a token counts as come to a limit: four decades of a power law then lie below 1e-3
    settled = 1e-7


def limit_flow(
    F: Callable[[np.ndarray], np.ndarray], start: np.ndarray, *, depth: float, span: float, step: float = 0.1
) -> LimitFlow:
    """Follow r' = F(r/|r|) in ln t, by Runge's and Kutta's method of order 4.

    Args:
        F: (text, token, channel) unit vectors -> updates, causal in the tokens.
        start: (text, token, channel) r at the depth t = `depth` > 0.
        depth: t to begin with; span: how far in ln t.
        step: of ln t. Modes that decay faster than t^(-2.7/step) would be unstable.

    Returns:
        The end, and the measured exponents.

    Raises:
        InputError: a depth, span or step that is not positive, or a flow that is not finite.

    >>> flow = limit_flow(lambda u: u @ np.diag([2.0, 1.0]), np.array([[[1.0, 0.5]]]), depth=1.0, span=60.0)
    >>> flow.growth.round(6).tolist(), flow.exponent.round(3).tolist()         # 1 - mu/lambda = 1 - 1/2
    ([[2.0]], [[0.5]])
    """
    if not (depth > 0 and span > 0 and step > 0):
        raise InputError(f"depth {depth}, span {span} and step {step} must be positive")
    r, t = np.array(start, np.float64), depth
    half = math.exp(step / 2)
    norms, residuals = [], []

    def seen(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        u = unit(x)
        update = np.asarray(F(u), np.float64)
        along, residual = tangential_share(u, update)
        return update, along * np.linalg.norm(update, axis=-1), residual

    for _ in range(math.ceil(span / step)):
        first, _, residual = seen(r)
        norms.append(np.log(np.linalg.norm(r, axis=-1)))
        residuals.append(residual)
        k1 = t * first
        k2 = half * t * np.asarray(F(unit(r + step / 2 * k1)), np.float64)
        k3 = half * t * np.asarray(F(unit(r + step / 2 * k2)), np.float64)
        t *= half**2
        k4 = t * np.asarray(F(unit(r + step * k3)), np.float64)
        r = r + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    if not np.isfinite(r).all():
        raise InputError("the flow to the limit directions is not finite: take a smaller step")
    _, growth, residual = seen(r)
    path, size = np.array(residuals), np.array(norms)
    floor = np.maximum(residual, 1e-13)  # below, rounding bends the line
    exponent = np.full(residual.shape, np.nan)
    for at in np.argwhere(residual < LimitFlow.settled):
        place = tuple(at)
        column, low = path[(slice(None), *place)], floor[place]
        chosen = (column >= low) & (column <= 1e4 * low)
        if chosen.sum() > 2:  # a token that was at its limit from the start has no path to fit
            exponent[place] = -power_fit(size[(chosen, *place)], np.log(column[chosen]))[0]
    return LimitFlow(unit(r), residual, growth, exponent)


def own_derivative(F: Callable[[np.ndarray], np.ndarray], u: np.ndarray, token: int) -> np.ndarray:
    """The derivative of one token's update by its own direction along the sphere, the tokens before it held.

    Args:
        F: as of `limit_flow`; u: (token, channel) unit vectors of one text; token: which.

    Returns:
        (channel - 1, channel - 1), in an orthonormal basis of the tangent space; central differences with step 1e-5.

    >>> np.linalg.eigvals(own_derivative(lambda u: u @ np.diag([2.0, 1.0, -1.0]), np.eye(3)[:1], 0)).round(6).tolist()
    [1.0, -1.0]
    """
    at = u[token]
    basis = np.linalg.svd(at[None, :])[2][1:]
    h = 1e-5
    moved = np.repeat(u[None, : token + 1], 2 * len(basis), axis=0)
    moved[:, token] = np.concatenate([math.cos(h) * at + math.sin(h) * basis, math.cos(h) * at - math.sin(h) * basis])
    after = np.asarray(F(moved), np.float64)[:, token]
    return np.asarray(basis @ ((after[: len(basis)] - after[len(basis) :]) / (2 * math.sin(h))).T)
