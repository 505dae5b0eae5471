"""Panels and figures of the experiment ``sphere``: clustering, first-token attraction, limit directions.

`draw_x(tree, ax)` puts one quantity into one panel; `figure_x(tree, venue)` arranges panels into a figure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ssmtheory.plotting.panels import band, heading, integer_axis, intervals, legend_above, page, read, read_labels
from ssmtheory.plotting.style import FAINT, INK, LINE_STYLES, OKABE_ITO, plain_log_ticks, series_style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "FIGURES",
    "draw_anchors",
    "draw_common",
    "draw_cosines",
    "draw_exponents",
    "draw_last",
    "draw_residual",
    "draw_tied",
    "draw_tied_cosine",
    "figure_clustering",
    "figure_limits",
]


def _names(tree: xr.DataTree) -> list[str]:
    """Short names of the models: what is left without the part that all share."""
    names = [str(name) for name in read_labels(tree, "models/layers", "model")]
    steps = read(tree, "models/training_step")
    return [f"step {int(s)}" if np.isfinite(s) else name for name, s in zip(names, steps, strict=True)]


def _curve(tree: xr.DataTree, ax: Axes, path: str, x: np.ndarray, model: int, look: int, label: str) -> None:
    """One model's number and interval along its last dimension."""
    y, low, high = (read(tree, f"{path}{end}")[model] for end in ("", "_low", "_high"))
    known = np.isfinite(y)
    band(ax, x[known], low[known], high[known], OKABE_ITO[look])
    ax.plot(x[known], y[known], label=label, **series_style(look, marker=True), markersize=2.5)


def draw_cosines(tree: xr.DataTree, ax: Axes) -> None:
    """Last model: mean cosine of tokens of one text, of different texts, and with the common direction removed."""
    depth, last = read_labels(tree, "depth/cosine", "depth").astype(float), len(_names(tree)) - 1
    ax.axhline(0, color=FAINT, linewidth=0.6)
    for i, (name, label) in enumerate(
        (("cosine", "one text"), ("cosine_other", "two texts"), ("cosine_centred", "centred"))
    ):
        _curve(tree, ax, f"depth/{name}", depth, last, i, label)
    integer_axis(ax, "x", "depth (blocks passed)")
    ax.set_ylabel("mean cosine of tokens")
    heading(ax, f"clustering, {_names(tree)[last]}", "measured", legend_rows=1)
    legend_above(ax, 3)


def draw_exponents(tree: xr.DataTree, ax: Axes) -> None:
    """Exponent x of sine ~ |r|^-x over the second half of the layers, with the bound 1/2 of first-token attraction."""
    quantity = [str(name) for name in read_labels(tree, "rates/exponent", "quantity")]
    chosen = ("pairs", "pairs_other", "pairs_centred", "first", "first_other")
    names = _names(tree)
    for i, name in enumerate(names):
        x = np.arange(len(chosen)) + 0.15 * (i - (len(names) - 1) / 2)
        y, low, high = (
            np.array([read(tree, f"rates/exponent{end}")[i, quantity.index(q), 1] for q in chosen])
            for end in ("", "_low", "_high")
        )
        intervals(ax, x, low, high, OKABE_ITO[i])
        ax.plot(x, y, **{**series_style(i, marker=True), "linestyle": "none"}, markersize=3, label=name)
    ax.axhline(0, color=FAINT, linewidth=0.6, zorder=0)
    ax.axhline(0.5, color=INK, linewidth=0.9, linestyle=LINE_STYLES[1], label="bound 1/2")
    ax.set_xticks(range(len(chosen)), ["pairs", "two\ntexts", "centred", "own\nfirst", "other\nfirst"])
    ax.set_ylim(-0.08, 0.58)
    ax.set_ylabel(r"$x$ in sine $\sim|r|^{-x}$")
    heading(ax, "rate", "95 %", legend_rows=2)
    legend_above(ax, 3)


def draw_anchors(tree: xr.DataTree, ax: Axes) -> None:
    """End of depth: cosine of late tokens to their own anchor token less that to other texts', and permuted texts."""
    anchors, names = read_labels(tree, "anchors/excess", "anchor").astype(int), _names(tree)
    ends = read(tree, "models/layers").astype(int)
    ax.axhline(0, color=FAINT, linewidth=0.6)
    for i, (name, end) in enumerate(zip(names, ends, strict=True)):
        x = np.arange(len(anchors)) + 0.17 * (i - (len(names) - 1) / 2)
        y, low, high, null_low, null_high = (
            read(tree, f"anchors/{n}")[i, end] for n in ("excess", "excess_low", "excess_high", "null_low", "null_high")
        )
        ax.vlines(x, null_low, null_high, color="#BBBBBB", linewidth=4, zorder=0)
        intervals(ax, x, low, high, OKABE_ITO[i])
        ax.plot(x, y, **{**series_style(i, marker=True), "linestyle": "none"}, markersize=3, label=name)
    ax.set_xticks(range(len(anchors)), [str(a) for a in anchors])
    ax.set_xlabel("anchor token")
    ax.set_ylabel("cosine, own less other anchor")
    heading(ax, "pull of the anchor", "95 %", legend_rows=2)
    legend_above(ax, 3, swatch="permuted")


def draw_last(tree: xr.DataTree, ax: Axes) -> None:
    """Last model: sine of a token to its own last direction against the norm, and with orthogonal updates."""
    last = len(_names(tree)) - 1
    x = read(tree, "depth/log_norm")[last]
    for i, (name, label) in enumerate((("sine_last", "measured"), ("sine_last_control", "orthogonal updates"))):
        y = read(tree, f"depth/{name}")[last]
        shown = np.isfinite(y) & (y > 1e-6)
        ax.plot(np.exp(x[shown]), y[shown], label=label, **series_style(i, marker=True), markersize=2.5)
    ax.set_xscale("log")
    ax.set_yscale("log")
    plain_log_ticks(ax.xaxis, *ax.get_xlim())
    plain_log_ticks(ax.yaxis, *ax.get_ylim())
    ax.set_xlabel("$|r|$")
    ax.set_ylabel("sine to the last direction")
    heading(ax, f"own last direction, {_names(tree)[last]}", "measured", legend_rows=1)
    legend_above(ax, 2)


def figure_clustering(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Clustering with its controls, its rate against the norm, the pull of the first token, and last directions."""
    return page(venue, 4.8, (draw_cosines, draw_exponents, draw_anchors, draw_last), tree)


def draw_residual(tree: xr.DataTree, ax: Axes) -> None:
    """|P_u F|/|F| of every layer, and a random direction's."""
    layer = read_labels(tree, "layers/residual", "layer").astype(float)
    for i, name in enumerate(_names(tree)):
        _curve(tree, ax, "layers/residual", layer, i, i, name)
    channels = read(tree, "models/channels").astype(float)
    ax.axhline(np.sqrt(1 - 1 / channels[-1]), color=INK, linewidth=0.9, linestyle=LINE_STYLES[1], label="random")
    ax.set_ylim(0, 1.05)
    integer_axis(ax, "x", "layer")
    ax.set_ylabel(r"$|P_uF|/|F|$")
    heading(ax, "how far from an eigenvector", "measured", legend_rows=2)
    legend_above(ax, 3)


def draw_common(tree: xr.DataTree, ax: Axes) -> None:
    """Share of the squared update that all texts have in common."""
    layer = read_labels(tree, "layers/common_share", "layer").astype(float)
    ax.axhline(0, color=FAINT, linewidth=0.6)
    for i, name in enumerate(_names(tree)):
        _curve(tree, ax, "layers/common_share", layer, i, i, name)
    integer_axis(ax, "x", "layer")
    ax.set_ylabel("common share of $|F|^2$")
    heading(ax, "what texts share", "measured", legend_rows=2)
    legend_above(ax, 3)


def draw_tied(tree: xr.DataTree, ax: Axes) -> None:
    """The last layer repeated: |P_u F|/|F| against the norm, which grows linearly in the end."""
    for i, name in enumerate(_names(tree)):
        x, y = np.exp(read(tree, "tied/log_norm")[i]), read(tree, "tied/residual")[i]
        ax.plot(x, y, label=name, **series_style(i, marker=True), markersize=2.5)
    ax.set_xscale("log")
    ax.set_yscale("log")
    plain_log_ticks(ax.yaxis, *ax.get_ylim())
    ax.set_xlabel("$|r|$")
    ax.set_ylabel(r"$|P_uF|/|F|$")
    heading(ax, "last layer repeated", "measured", legend_rows=2)
    legend_above(ax, 3)


def draw_tied_cosine(tree: xr.DataTree, ax: Axes) -> None:
    """Last model, last layer repeated: cosines of tokens, to where the model left them, and to first tokens."""
    step, last = read_labels(tree, "tied/cosine", "iteration").astype(float), len(_names(tree)) - 1
    ax.axhline(0, color=FAINT, linewidth=0.6)
    for i, (name, label) in enumerate(
        (
            ("cosine", "one text"),
            ("cosine_other", "two texts"),
            ("turn", "own start"),
            ("first_excess", "first, own less other"),
        )
    ):
        _curve(tree, ax, f"tied/{name}", step, last, i, label)
    ax.set_xscale("symlog", linthresh=1)
    ax.set_xticks([0, 1, 10, 100], ["0", "1", "10", "100"])
    ax.set_xlim(left=-0.1)
    ax.minorticks_off()
    ax.set_xlabel("repetitions")
    ax.set_ylabel("mean cosine")
    heading(ax, f"last layer repeated, {_names(tree)[last]}", "measured", legend_rows=2)
    legend_above(ax, 2)


def figure_limits(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Are directions nonlinear eigenvectors: of each layer, by what texts share, and with the last layer repeated."""
    return page(venue, 4.8, (draw_residual, draw_common, draw_tied, draw_tied_cosine), tree)


FIGURES: dict[str, Callable[[xr.DataTree, str], Figure]] = {"clustering": figure_clustering, "limits": figure_limits}
