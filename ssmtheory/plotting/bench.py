"""Figures of the benchmark: time against length, channels, states; everyone's time; fractions of the limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ssmtheory.plotting.panels import heading, label_size, read, read_labels
from ssmtheory.plotting.style import FAINT, INK, OKABE_ITO, new_figure, panel_letters, series_style, style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "draw_fractions", "draw_peers", "draw_sweep", "figure_overview"]

#: sweep -> (variable of the shape, label)
SWEEPS = {
    "length": ("length", "length $L$"),
    "channel": ("channels", "channels $D$"),
    "state": ("states", "states $N$"),
}


def _names(tree: xr.DataTree) -> list[str]:
    return [str(name) for name in read_labels(tree, "times/cpu", "peer")]


def _short(name: str) -> str:
    return name.replace("associative_scan", "assoc.").replace("transformers mambapy", "transf. mambapy")


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}x" if ratio >= 100 else f"{ratio:.3g}x"


def draw_sweep(tree: xr.DataTree, ax: Axes, sweep: str) -> None:
    """Median time of a forward scan against one axis of its shape, a line per implementation; its limit in black.

    Args:
        tree: the dataset.
        ax: the panel.
        sweep: "length", "channel" or "state".
    """
    variable, label = SWEEPS[sweep]
    rows = np.flatnonzero(read(tree, "cases/sweep") == sweep)
    x = read(tree, f"cases/{variable}")[rows].astype(float)
    rows, x = rows[np.argsort(x)], np.sort(x)
    median = read(tree, "times/median_cpu")[rows, 0]
    low, high = read(tree, "times/low_cpu")[rows, 0], read(tree, "times/high_cpu")[rows, 0]
    seen = 0
    for p, name in enumerate(_names(tree)):
        if np.isfinite(median[:, p]).any():
            look = series_style(seen, marker=True)
            ax.plot(x, 1e3 * median[:, p], label=_short(name), **look)
            ax.fill_between(x, 1e3 * low[:, p], 1e3 * high[:, p], color=look["color"], alpha=0.2, linewidth=0)
            seen += 1
    best = (read(tree, "times/fraction")[rows] * median)[:, :]
    if np.isfinite(best).any():
        ax.plot(x, 1e3 * np.nanmax(best, axis=1), color=INK, linewidth=0.7, linestyle=":", label="limit")
    if seen:
        ax.set_xscale("log")
        ax.set_yscale("log")
    else:
        ax.text(0.5, 0.5, "not measured", transform=ax.transAxes, ha="center", color=FAINT)
    ax.set_xlabel(label)
    ax.set_ylabel("time [ms]")


def _first(tree: xr.DataTree, group: str) -> int:
    """The case of a group that most implementations were measured in; -1 without one."""
    there = read(tree, "cases/group") == group
    count = np.isfinite(read(tree, "times/median_cpu")[:, 0]).sum(-1) * there
    return int(np.argmax(count)) if count.any() else -1


def draw_peers(tree: xr.DataTree, ax: Axes, group: str) -> None:
    """Everyone's median time in the main case of a group, a dot with its quartiles; ratios to ours at the right."""
    c = _first(tree, group)
    if c < 0:
        ax.text(0.5, 0.5, "not measured", transform=ax.transAxes, ha="center", color=FAINT)
        return
    median = 1e3 * read(tree, "times/median_cpu")[c, 0]
    low, high = (1e3 * read(tree, f"times/{name}_cpu")[c, 0] for name in ("low", "high"))
    ratios, ours, names = read(tree, "times/ratio")[c, 0], read(tree, "peers/ours"), _names(tree)
    shown = [p for p in np.argsort(median)[::-1] if np.isfinite(median[p])]
    for y, p in enumerate(shown):
        colour = OKABE_ITO[0] if ours[p] else OKABE_ITO[1]
        ax.plot([low[p], high[p]], [y, y], color=colour, linewidth=1.0)
        ax.plot([median[p]], [y], color=colour, marker="o" if ours[p] else "s", linestyle="none")
        ax.annotate(
            _times(ratios[p]), (1.01, y), xycoords=("axes fraction", "data"), va="center", annotation_clip=False,
            fontsize=label_size(ax) - 1,
        )  # fmt: skip
    ax.set_yticks(range(len(shown)), [_short(names[p]) for p in shown])
    ax.set_ylim(-0.6, len(shown) - 0.4)
    ax.set_xscale("log")
    ax.set_xlabel("processor time [ms]")


def draw_fractions(tree: xr.DataTree, ax: Axes) -> None:
    """Fraction of the machine's limit that the best of ours reaches in forward and backward scans, against length."""
    mode, kind, sweep = (read(tree, f"cases/{name}") for name in ("mode", "kind", "sweep"))
    channels, length, batch = (read(tree, f"cases/{name}") for name in ("channels", "length", "batch"))
    fraction = read(tree, "times/fraction")[:, read(tree, "peers/ours")]
    for i, name in enumerate(("forward", "backward", "gradient")):
        rows = np.flatnonzero((mode == name) & (kind == "scan") & (sweep == "") & (batch == 1))
        rows = rows[channels[rows] == channels[rows].max()] if rows.size else rows
        rows = rows[np.argsort(length[rows])]
        rows = np.array([r for r in rows if np.isfinite(fraction[r]).any()], dtype=int)
        if rows.size:
            ax.plot(length[rows], np.nanmax(fraction[rows], axis=1), label=name, **series_style(i, marker=True))
    ax.set_xscale("log", base=2)
    ax.set_ylim(0, 1)
    ax.set_xlabel("length $L$")
    ax.set_ylabel("fraction of the limit")


def figure_overview(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Time against length, channels and states; fractions of the limit; everyone, forward and with the gradient."""
    with style(venue) as v:
        figure = new_figure(venue, height=min(7.6 * v.full / 5.5, v.max_height))
        grid = figure.add_gridspec(4, 1, height_ratios=(1.0, 1.3, 1.2, 0.9))
        row = grid[0].subgridspec(1, 3)
        sweeps = [figure.add_subplot(row[i]) for i in range(3)]
        everyone = [figure.add_subplot(grid[1 + i]) for i in range(2)]
        fractions = figure.add_subplot(grid[3].subgridspec(1, 3)[:2])
        for ax, sweep in zip(sweeps, SWEEPS, strict=True):
            draw_sweep(tree, ax, sweep)
            heading(ax, f"Against {SWEEPS[sweep][1].split()[0]}")
        handles, labels = sweeps[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside upper center", ncols=5)
        for ax, (group, title) in zip(
            everyone, (("forward", "Forward"), ("gradient", "Forward and backward")), strict=True
        ):
            draw_peers(tree, ax, group)
            heading(ax, title)
        draw_fractions(tree, fractions)
        heading(fractions, "Fraction of the machine's limit", "measured")
        if fractions.lines:
            fractions.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0)
        panel_letters([*sweeps, *everyone, fractions])
    return figure


FIGURES: dict[str, Callable[[xr.DataTree, str], Figure]] = {"overview": figure_overview}
