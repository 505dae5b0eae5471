"""Figures of the experiment ``interventions``: what every change costs, in all layers, in one, and against noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.plotting.panels import band, heading, integer_axis, label_size, legend_above, page, read, read_labels
from ssmtheory.plotting.style import FAINT, OKABE_ITO, SEQUENTIAL, new_figure, panel_letters, series_style, style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "draw_all", "draw_controls", "draw_layers", "draw_map", "figure_controls", "figure_overview"]


_ENDS = ("low", "high")


def _kinds(tree: xr.DataTree) -> list[str]:
    return [str(name) for name in read_labels(tree, "all/change", "intervention")]


def _order(tree: xr.DataTree) -> np.ndarray:
    """Interventions by falling cost in all layers."""
    return np.argsort(-read(tree, "all/change"), kind="stable")


def _scale(ax: Axes, low: np.ndarray, high: np.ndarray) -> None:
    """Linear to 0.01 bit per byte, logarithmic beyond: noise costs 0.001 and a removed mixer 10."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ax.set_xscale("symlog", linthresh=0.01, linscale=0.5)
    axis = ax.xaxis
    axis.set_major_locator(FixedLocator([0.0, 0.01, 0.1, 1.0, 10.0]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.set_xlim(min(-0.002, 1.3 * float(low.min())), max(0.02, 1.7 * float(high.max())))


def _short(kind: str) -> str:
    short = kind.replace(", antisymmetric kept", " + anti").replace("noise in range", "range noise")
    return short.replace("noise as", "noise:")


def draw_all(tree: xr.DataTree, ax: Axes) -> None:
    """Change of the loss with all layers changed (filled) and mean over layers with one changed (open), 95 %."""
    order = _order(tree)
    y = np.arange(len(order))[::-1].astype(float)
    ax.axvline(0, color=FAINT, linewidth=0.6)
    for group, colour, face, label in (
        ("change", OKABE_ITO[0], OKABE_ITO[0], "all layers"),
        ("mean_change", OKABE_ITO[1], "white", "one layer, mean"),
    ):
        value, low, high = (read(tree, f"all/{group}{end}")[order] for end in ("", "_low", "_high"))
        ax.hlines(y, low, high, color=colour, linewidth=1.1)
        ax.plot(value, y, linestyle="none", marker="o", color=colour, markerfacecolor=face, markersize=3.2, label=label)
    kinds = _kinds(tree)
    ax.set_yticks(y, [_short(kinds[i]) for i in order], fontsize=label_size(ax) - 1)
    ax.set_ylim(-0.6, len(order) - 0.4)
    ax.tick_params(axis="y", length=0)
    _scale(ax, *(np.append(read(tree, f"all/change_{end}"), read(tree, f"all/mean_change_{end}")) for end in _ENDS))
    ax.set_xlabel("change of the loss [bit/byte]")
    heading(ax, "Cost", "measured, 95 %", legend_rows=1)
    legend_above(ax, ncols=2)


def draw_map(tree: xr.DataTree, ax: Axes) -> None:
    """Change of the loss with one layer changed, by intervention (as in `draw_all`) and layer."""
    from matplotlib.colors import SymLogNorm

    order, value = _order(tree), read(tree, "layers/change")
    layers = read_labels(tree, "layers/change", "layer").astype(float)
    edges = np.append(layers - 0.5, layers[-1] + 0.5)
    norm = SymLogNorm(linthresh=0.01, linscale=0.5, vmin=0.0, vmax=max(float(value.max()), 0.02))
    rows = np.arange(len(order) + 1) - 0.5
    mesh = ax.pcolormesh(edges, rows, value[order[::-1]], cmap=SEQUENTIAL, norm=norm, rasterized=True)
    bar = ax.figure.colorbar(mesh, ax=ax, ticks=[0, 0.01, 0.1, 1.0], format="%g")
    bar.set_label("change [bit/byte]")
    bar.outline.set_linewidth(0.4)
    bar.minorticks_off()
    ax.set_yticks([])
    integer_axis(ax, "x", "layer")
    heading(ax, "By layer", "measured", legend_rows=1)


def draw_controls(tree: xr.DataTree, ax: Axes) -> None:
    """Cost of each change of M beyond that of noise that takes M equally far, mean over layers and in all, 95 %."""
    pairs = [str(name) for name in read_labels(tree, "controls/all_difference", "pair")]
    if not pairs:
        raise InputError("the dataset has no intervention together with its noise: nothing to compare.")
    y = np.arange(len(pairs))[::-1].astype(float)
    ax.axvline(0, color=FAINT, linewidth=0.6)
    for name, colour, face, label in (
        ("all_difference", OKABE_ITO[0], OKABE_ITO[0], "all layers"),
        ("mean_difference", OKABE_ITO[1], "white", "one layer, mean"),
    ):
        value, low, high = (read(tree, f"controls/{name}{end}") for end in ("", "_low", "_high"))
        ax.hlines(y, low, high, color=colour, linewidth=1.1)
        ax.plot(value, y, linestyle="none", marker="o", color=colour, markerfacecolor=face, markersize=3.6, label=label)
    labels = []
    for pair in pairs:
        kind, _, noise = pair.partition(" - ")
        labels.append(f"{_short(kind)}\n{'less range noise' if noise.startswith('noise in') else 'less noise'}")
    ax.set_yticks(y, labels, fontsize=label_size(ax) - 1)
    ax.set_ylim(-0.6, len(pairs) - 0.4)
    ax.tick_params(axis="y", length=0)
    names = ("controls/all_difference", "controls/mean_difference")
    _scale(ax, *(np.concatenate([read(tree, f"{name}_{end}") for name in names]) for end in _ENDS))
    ax.set_xlabel("difference of the loss [bit/byte]")
    heading(ax, "Against noise", "measured, 95 %", legend_rows=1)
    legend_above(ax, ncols=2)


def draw_layers(tree: xr.DataTree, ax: Axes, kinds: tuple[str, ...] = ("positive", "symmetric", "skip only")) -> None:
    """Change of the loss by the layer that is changed, for a few interventions, with 95 % bands."""
    known = _kinds(tree)
    chosen = [kind for kind in kinds if kind in known] or known[:3]
    layers = read_labels(tree, "layers/change", "layer").astype(float)
    ax.axhline(0, color=FAINT, linewidth=0.6)
    for j, kind in enumerate(chosen):
        value, low, high = (read(tree, f"layers/change{end}")[known.index(kind)] for end in ("", "_low", "_high"))
        look = series_style(j)
        band(ax, layers, low, high, look["color"])
        ax.plot(layers, value, label=_short(kind), **look)
    integer_axis(ax, "x", "layer")
    ax.set_ylabel("change of the loss [bit/byte]")
    heading(ax, "One layer at a time", "95 %", legend_rows=1)
    legend_above(ax, ncols=3)


def figure_overview(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Every intervention: cost in all layers and on average in one, and the map over layers."""
    with style(venue) as v:
        height = min((0.9 + 0.17 * len(_kinds(tree))) * v.full / 5.5, v.max_height)
        figure = new_figure(venue, height=height)
        axes = figure.subplots(1, 2, width_ratios=[1.25, 1.0])
        draw_all(tree, axes[0])
        draw_map(tree, axes[1])
        panel_letters(axes)
    return figure


def figure_controls(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """The changes of M against noise of equal Frobenius norm, and a few interventions by layer."""
    return page(venue, 2.6, (draw_controls, draw_layers), tree)


FIGURES: dict[str, Callable[[xr.DataTree, str], Figure]] = {"overview": figure_overview, "controls": figure_controls}
