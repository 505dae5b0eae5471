"""What tokens do through depth: norms, angles, clustering, and which term of a block moves them.

One block is r' = r + dr, dr = W_out (gate * y) + bias with y = C h + D u. With v = gate * (W_out^T r)/|r|^2,

    g = <r, dr>/|r|^2 = g_skip + g_self + g_hist + g_bias          (an identity, exact)
    g_skip = <v, D u>   g_self = q(u) A_Delta, A_Delta = <v, Delta u>   g_hist = <v, C h^->   g_bias = <r, bias>/|r|^2

where h^- is the state carried from the past, already decayed. q(u) enters through g_self alone, times A_Delta, whose
sign depends on token, layer and model: no statement on the sign of q alone can fix the sign of g. The norm follows
|r'|^2 = |r|^2 (1 + 2 g + e^2) with e = |dr|/|r|.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = [
    "Clustering",
    "RadialSplit",
    "cosine_matrix",
    "motion",
    "radial_split",
    "scenario",
    "shares",
]


def motion(residual: np.ndarray, update: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Norm, radial rate, step size and angle of each token in one block.

    Args:
        residual: r, (token, width); update: dr of the same shape.

    Returns:
        |r|; g = <r, dr>/|r|^2; e = |dr|/|r|; angle between r and r + dr [rad]. Each (token,) float64.
        A token with r = 0 has g, e and angle NaN.

    >>> [float(x[0]) for x in motion(np.array([[3.0, 4.0]]), np.array([[-4.0, 3.0]]))]    # a quarter of a half turn
    [5.0, 0.0, 1.0, 0.7853981633974483]
    """
    r, d = np.asarray(residual, np.float64), np.asarray(update, np.float64)
    square = np.einsum("...d,...d->...", r, r)
    with np.errstate(invalid="ignore", divide="ignore"):
        g = np.einsum("...d,...d->...", r, d) / square
        # tangential part by subtracting vectors, not squares: small angles keep their digits
        tangent = d - g[..., None] * r
        sine = np.sqrt(np.einsum("...d,...d->...", tangent, tangent) / square)
        step = np.sqrt(np.einsum("...d,...d->...", d, d) / square)
    return np.sqrt(square), g, step, np.arctan2(sine, 1.0 + g)


@dataclass(frozen=True)
class RadialSplit:
    """The terms of g, each (token,) float64, and A_Delta = <v, Delta u> over all groups (g_self is exact by group)."""

    skip: np.ndarray
    self_: np.ndarray
    hist: np.ndarray
    bias: np.ndarray
    A_Delta: np.ndarray


def radial_split(
    residual: np.ndarray,
    gate: np.ndarray,
    out_weight: np.ndarray,
    u: np.ndarray,
    delta: np.ndarray,
    q: np.ndarray,
    hist: np.ndarray,
    skip: np.ndarray,
    bias: np.ndarray | None = None,
) -> RadialSplit:
    """Split g into skip, own write, history and bias (the identity at the top of the module).

    Args:
        residual: r, (token, width).
        gate: what multiplies y before out_proj, (token, channel): SiLU(z), times the norm's factor in Mamba-2.
        out_weight: W_out, (width, channel); bias: (width,) or None.
        u: (token, channel); delta: (token, head), channel = head * channels per head.
        q: (token, group), C_t . B_t of each group.
        hist: C h^-, (token, channel).
        skip: D per channel, (channel,).

    Returns:
        The split, in float64 where sums over channels are taken.
    """
    r = np.asarray(residual, np.float64)
    square = np.einsum("td,td->t", r, r)
    v = (residual @ out_weight).astype(np.float64) * gate / square[:, None]
    channels = u.shape[1]
    write = np.repeat(delta, channels // delta.shape[1], axis=1) * np.asarray(u, np.float64)
    by_group = (v * write).reshape(len(u), q.shape[1], -1).sum(axis=-1)
    return RadialSplit(
        skip=np.einsum("td,td,d->t", v, u, skip),
        self_=np.einsum("tg,tg->t", by_group, q),
        hist=np.einsum("td,td->t", v, hist),
        bias=np.zeros(len(u)) if bias is None else r @ np.asarray(bias, np.float64) / square,
        A_Delta=by_group.sum(axis=-1),
    )


def shares(parts: np.ndarray) -> np.ndarray:
    """Share of each part in the variance of the sum: cov(part, total)/var(total); the shares add up to one.

    Args:
        parts: (part, ...) values; the total is their sum over the first axis.

    Returns:
        (part,) float64; NaN where the total is constant.
    """
    x = np.asarray(parts, np.float64).reshape(len(parts), -1)
    x = x - x.mean(axis=1, keepdims=True)
    total = x.sum(axis=0)
    variance = float(total @ total)
    return x @ total / variance if variance > 0 else np.full(len(parts), np.nan)


def scenario(low: np.ndarray, high: np.ndarray, middle: float = 0.0) -> np.ndarray:
    """1 (divergent) where an interval lies above `middle`, -1 (convergent) where below, 0 (undecided) otherwise.

    >>> scenario(np.array([0.1, -0.1, -0.3]), np.array([0.2, 0.1, -0.2])).tolist()
    [1, 0, -1]
    """
    return (np.asarray(low) > middle).astype(np.int8) - (np.asarray(high) < middle).astype(np.int8)


def cosine_matrix(x: np.ndarray) -> np.ndarray:
    """Cosines between the rows of x, (token, token) float64."""
    unit = np.asarray(x, np.float64)
    unit = unit / np.linalg.norm(unit, axis=-1, keepdims=True)
    return unit @ unit.T


class Clustering:
    """Streaming directions of one sequence's tokens at one depth.

    Holds the sum of all unit vectors, the sum over late tokens (position >= burn_in), and the unit vectors of the
    anchors; from these follow the mean pairwise cosine, the mean cosine of late tokens to an anchor of their own text,
    and to the anchor of another text: the control without which growing cosines prove nothing (they may all share one
    direction of the whole corpus).
    """

    def __init__(self, width: int, anchors: tuple[int, ...], burn_in: int) -> None:
        self.anchors, self.burn_in, self.count, self.late_count = anchors, burn_in, 0, 0
        self.total, self.late = np.zeros(width), np.zeros(width)
        self.anchor = np.full((len(anchors), width), np.nan)

    def update(self, x: np.ndarray) -> None:
        """Take the next tokens, (token, width)."""
        unit = np.asarray(x, np.float64)
        unit = unit / np.linalg.norm(unit, axis=-1, keepdims=True)
        for i, position in enumerate(self.anchors):
            if self.count <= position < self.count + len(unit):
                self.anchor[i] = unit[position - self.count]
        late = unit[max(0, self.burn_in - self.count) :]
        self.total += unit.sum(axis=0)
        self.late += late.sum(axis=0)
        self.count += len(unit)
        self.late_count += len(late)

    @property
    def mean_cosine(self) -> float:
        """Mean cosine of two different tokens; NaN with fewer than two."""
        n = self.count
        return float((self.total @ self.total - n) / (n * (n - 1))) if n > 1 else float("nan")

    @property
    def late_mean(self) -> np.ndarray:
        """Mean unit vector of the late tokens, (width,)."""
        return self.late / self.late_count if self.late_count else np.full_like(self.late, np.nan)
