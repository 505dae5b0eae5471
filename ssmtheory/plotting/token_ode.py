"""Panels and figures of the experiment ``token_ode``: regimes, phase portraits, fate maps, flows on the sphere.

`draw_x(tree, ax)` puts one quantity into one panel; `figure_x(tree, venue)` arranges panels into a figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ssmtheory.plotting.panels import heading, legend_above, page, read, read_labels
from ssmtheory.plotting.style import FAINT, INK, LINE_STYLES, OKABE_ITO, series_style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "FIGURES",
    "GROUPS",
    "draw_attraction",
    "draw_convergent",
    "draw_directions",
    "draw_fast",
    "draw_line_map",
    "draw_plane_map",
    "draw_plateaus",
    "draw_portrait",
    "draw_slow",
    "figure_fates",
    "figure_portraits",
    "figure_regimes",
    "figure_sphere",
]

#: fate -> colour, and words for the legend
_FATES = {
    "blow_up": (OKABE_ITO[1], "finite-time blow-up"),
    "slow": (OKABE_ITO[4], "slow divergence"),
    "growing": (OKABE_ITO[3], "growth"),
    "zero": (OKABE_ITO[0], "to the origin"),
    "point": (OKABE_ITO[2], "to an equilibrium"),
    "reached_zero": (OKABE_ITO[5], "reaches the origin"),
    "undecided": ("#BBBBBB", "undecided at the end"),
}
_LN10 = math.log(10.0)
_WINDOW = 2.2


def _fates_of(tree: xr.DataTree, path: str) -> list[str]:
    return str(tree[path].attrs["flag_meanings"]).split()


def _law(ax: Axes, x: np.ndarray, y: np.ndarray, label: str) -> None:
    ax.plot(x, y, color=INK, linewidth=0.9, linestyle=LINE_STYLES[1], label=label, zorder=5)


# ---------------------------------------------------------------------------------------------------- regimes


def draw_convergent(tree: xr.DataTree, ax: Axes) -> None:
    """Sizes of the tokens against t, and the power law -1/2 with the first two plateaus' constants."""
    log_t, log_x = read(tree, "convergent/log_t") / _LN10, read(tree, "convergent/log_x") / _LN10
    for k, row in enumerate(log_x):
        ax.plot(log_t, row, label=f"token {k + 1}", **series_style(k))
    alpha, plateau = read(tree, "convergent/alpha"), read(tree, "convergent/plateau")
    late = log_t > 0.4 * log_t[-1]
    for k in (0, 1):
        # alpha / (2 |mu| Delta0 t): the constant from what is stored, plateau = 2 |mu| Delta0 t x^2
        scale = plateau[k] * np.exp(-2 * log_x[k] * _LN10)
        _law(ax, log_t[late], 0.5 * np.log10(alpha[k] / scale[late]), r"law, $t^{-1/2}$" if k == 0 else "_")
    ax.set_xlabel(r"$\log_{10} t$")
    ax.set_ylabel(r"$\log_{10} |x_l|$")
    heading(ax, r"convergent, $\mu<0$", "proved", legend_rows=2)
    legend_above(ax, 3)


def draw_plateaus(tree: xr.DataTree, ax: Axes) -> None:
    """2 |mu| Delta0 t x_l^2 against t: it settles on alpha_l, the same for all but the first token."""
    log_t = read(tree, "convergent/log_t") / _LN10
    for k, row in enumerate(read(tree, "convergent/plateau")):
        ax.plot(log_t, row, **series_style(k))
    for value in np.unique(np.round(read(tree, "convergent/alpha"), 12)):
        ax.axhline(value, color=INK, linewidth=0.9, linestyle=LINE_STYLES[1], zorder=0)
    ax.set_ylim(0, 1.25)
    ax.set_xlabel(r"$\log_{10} t$")
    ax.set_ylabel(r"$2|\mu|\Delta_0\, t\, x_l^2$")
    heading(ax, "plateaus", "proved")


def draw_slow(tree: xr.DataTree, ax: Axes) -> None:
    """Sizes against ln t, to w = |S_Delta x_1| far beyond float64's range of t, and slope one."""
    log_t = read(tree, "slow/log_t")
    known = np.isfinite(log_t) & (log_t > 1)
    for k, row in enumerate(read(tree, "slow/x")):
        ax.loglog(log_t[known], row[known], label=f"token {k + 1}", **series_style(k))
    ax.loglog(log_t[known], read(tree, "slow/law")[known], color=INK, linewidth=0.9, linestyle=LINE_STYLES[1],
              label=r"$\ln t+3\ln w$", zorder=5)  # fmt: skip
    ax.set_xlabel(r"$\ln t$")
    ax.set_ylabel(r"$|x_l|$")
    heading(ax, r"slow, $\mu>0$, all $S_\Delta x_l<0$", "measured", legend_rows=2)
    legend_above(ax, 3)


def draw_fast(tree: xr.DataTree, ax: Axes) -> None:
    """Sizes against -ln(T* - t): straight for the token that blows up and for those that follow it at full speed."""
    rest, first = read(tree, "fast/log_rest"), int(read(tree, "fast/first"))
    for k, row in enumerate(read(tree, "fast/log_x")):
        note = " (first)" if k == first else ""
        ax.plot(rest, row / _LN10, label=f"token {k + 1}{note}", **series_style(k))
    late = rest > rest[0] + 0.15 * (rest[-1] - rest[0])
    _law(ax, rest[late], read(tree, "fast/law")[late] / _LN10, "law, slope 1/3")
    ax.set_xlabel(r"$-\ln(T^*-t)$")
    ax.set_ylabel(r"$\log_{10} |x_l|$")
    heading(ax, r"fast, $\mu>0$, $S_\Delta x_2>0$", "proved", legend_rows=2)
    legend_above(ax, 3)


def figure_regimes(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """The three regimes of the one-dimensional equation, each with its law, and the plateaus."""
    return page(venue, 4.8, (draw_convergent, draw_plateaus, draw_slow, draw_fast), tree)


# ---------------------------------------------------------------------------------------------------- the plane


def draw_portrait(tree: xr.DataTree, ax: Axes, *, inertia: str) -> None:
    """Orbits of a first token in the plane, by fate, and the null cone q = 0: attracting where it is drawn in full."""
    row = [str(name) for name in read_labels(tree, "plane/x", "inertia")].index(inertia)
    x, codes = read(tree, "plane/x")[row], read(tree, "plane/fate")[row].astype(int)
    names = _fates_of(tree, "plane/fate")
    for orbit, code in zip(x, codes, strict=True):
        colour, label = _FATES[names[code]]
        inside = np.abs(orbit).max(axis=1) < 1.6 * _WINDOW
        shown = np.where(inside[:, None], orbit, np.nan)
        ax.plot(shown[:, 0], shown[:, 1], color=colour, linewidth=0.8, label=label)
        ax.plot(*orbit[0], linestyle="none", marker="o", markersize=1.8, color=colour, mew=0)
    radius = read_labels(tree, "plane/attracting", "radius").astype(float)
    attracting = read(tree, "plane/attracting")[row].astype(bool)
    for angle, pulls in zip(read(tree, "plane/cone")[row], attracting, strict=True):
        if not np.isfinite(angle):
            continue
        ray = radius[:, None] * np.array([math.cos(angle), math.sin(angle)])
        for mask, dashes, label in (
            (pulls, "-", r"$q=0$, attracting"),
            (~pulls, LINE_STYLES[2], r"$q=0$, repelling"),
        ):
            shown = np.where(mask[:, None], ray, np.nan)
            if mask.any():
                ax.plot(shown[:, 0], shown[:, 1], color=INK, linewidth=1.3, linestyle=dashes, label=label, zorder=4)
    ax.set_xlim(-_WINDOW, _WINDOW)
    ax.set_ylim(-_WINDOW, _WINDOW)
    ax.set_aspect("equal")
    ax.set_xlabel("$x_1$")
    ax.set_ylabel("$x_2$")
    heading(ax, f"inertia ({inertia.replace('-', ', ')})", "measured")


def figure_portraits(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Phase portraits for two, one and no positive eigenvalue of the symmetric part of M (arXiv 2410.03292, Fig. 6)."""
    names = [str(name) for name in read_labels(tree, "plane/x", "inertia")]
    return page(venue, 2.5, [partial(draw_portrait, inertia=name) for name in names], tree, columns=3, legend=3)


def _map(ax: Axes, names: list[str], x: np.ndarray, y: np.ndarray, codes: np.ndarray) -> None:
    from matplotlib.colors import BoundaryNorm, ListedColormap

    colours = ListedColormap([_FATES[name][0] for name in names])
    norm = BoundaryNorm(np.arange(len(names) + 1) - 0.5, len(names))
    ax.pcolormesh(x, y, codes, cmap=colours, norm=norm, shading="nearest", rasterized=True)
    for code in np.unique(codes.astype(int)):
        colour, label = _FATES[names[code]]
        ax.plot([], [], linestyle="none", marker="s", color=colour, label=label)


def draw_line_map(tree: xr.DataTree, ax: Axes) -> None:
    """Fate of one token in one dimension over mu and the initial token."""
    codes = read(tree, "line_map/fate")
    mu, start = (read_labels(tree, "line_map/fate", d).astype(float) for d in ("mu", "start"))
    _map(ax, _fates_of(tree, "line_map/fate"), mu, start, codes.T)
    ax.set_xlabel(r"$\mu$")
    ax.set_ylabel(r"initial token $x_0$")
    heading(ax, "one dimension", "measured")


def draw_plane_map(tree: xr.DataTree, ax: Axes, *, inertia: str = "1-1") -> None:
    """Fate of a first token in the plane over the angle and size of the initial token; the null cone as lines."""
    from matplotlib.ticker import NullLocator

    row = [str(name) for name in read_labels(tree, "plane_map/fate", "inertia")].index(inertia)
    codes = read(tree, "plane_map/fate")[row]
    radius, angle = (read_labels(tree, "plane_map/fate", d).astype(float) for d in ("radius", "angle"))
    _map(ax, _fates_of(tree, "plane_map/fate"), np.degrees(angle), radius, codes)
    for ray in read(tree, "plane/cone")[row]:
        if np.isfinite(ray):
            ax.axvline(np.degrees(ray), color=INK, linewidth=0.9, linestyle=LINE_STYLES[1])
    ax.set_yscale("log")
    ax.set_xticks([0, 90, 180, 270, 360])
    ax.set_xlim(0, 360)
    ax.set_yticks([0.2, 0.5, 1, 2, 3], ["0.2", "0.5", "1", "2", "3"])
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_ylim(radius[0], radius[-1])
    ax.set_xlabel("angle of $x_0$ [degrees]")
    ax.set_ylabel("size of $x_0$")
    heading(ax, f"plane, inertia ({inertia.replace('-', ', ')})", "measured")


def figure_fates(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Fates over (mu, x0) in one dimension and over (angle, size) in the plane."""
    return page(venue, 2.7, (draw_line_map, draw_plane_map), tree, legend=4)


# ---------------------------------------------------------------------------------------------------- the sphere


def draw_attraction(tree: xr.DataTree, ax: Axes) -> None:
    """Sine of the angle of the second token to the first against t, and the power -beta."""
    log_t, sine = read(tree, "sphere/log_t") / _LN10, read(tree, "sphere/log_sine")[:, 1] / _LN10
    grows = read(tree, "sphere/grows").astype(bool)
    for mask, colour, label in ((grows, OKABE_ITO[0], "first token grows"), (~grows, OKABE_ITO[1], "it shrinks")):
        for k, row in enumerate(sine[mask]):
            ax.plot(log_t, row, color=colour, linewidth=0.6, alpha=0.8, label=label if k == 0 else "_")
    beta = read(tree, "sphere/beta")
    beta = beta[grows & np.isfinite(beta)]
    if beta.size:
        top = float(np.nanmedian(sine[grows][:, -1])) + 0.6
        late = log_t > 0.35 * log_t[-1]
        _law(ax, log_t[late], top - beta[0] * (log_t[late] - log_t[-1]), rf"slope $-\beta=-{beta[0]:.3f}$")
    ax.set_xlabel(r"$\log_{10} t$")
    ax.set_ylabel(r"$\log_{10}\sin\angle(r_2,r_1)$")
    heading(ax, "first-token attraction", "proved", legend_rows=2)
    legend_above(ax, 2)


def draw_directions(tree: xr.DataTree, ax: Axes) -> None:
    """Slopes of tokens 2 to 4 against beta: all tend to the rate of the second, slowly."""
    slope, beta = read(tree, "sphere/slope"), read(tree, "sphere/beta")
    grows = read(tree, "sphere/grows").astype(bool) & np.isfinite(beta)
    for k in range(1, slope.shape[1]):
        value = np.sort(slope[grows, k])
        value = value[np.isfinite(value)]
        if value.size:
            height = (np.arange(value.size) + 0.5) / value.size
            ax.plot(value, height, label=f"token {k + 1}", **series_style(k - 1, marker=True), markersize=2.5)
    if grows.any():
        ax.axvline(beta[grows][0], color=INK, linewidth=0.9, linestyle=LINE_STYLES[1], label=r"$\beta$")
    ax.axhline(0.5, color=FAINT, linewidth=0.4, zorder=0)
    ax.set_xlabel("measured exponent")
    ax.set_ylabel("fraction of systems below")
    heading(ax, "clustering rate", "measured", legend_rows=2)
    legend_above(ax, 2)


def figure_sphere(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Pre-norm flows: how later tokens turn to the first one."""
    return page(venue, 2.7, (draw_attraction, draw_directions), tree)


FIGURES: dict[str, Callable[[xr.DataTree, str], Figure]] = {
    "regimes": figure_regimes,
    "portraits": figure_portraits,
    "fates": figure_fates,
    "sphere": figure_sphere,
}

#: figure -> groups of the dataset that it draws
GROUPS: dict[str, tuple[str, ...]] = {
    "regimes": ("convergent", "slow", "fast"),
    "portraits": ("plane",),
    "fates": ("line_map", "plane_map", "plane"),
    "sphere": ("sphere",),
}
