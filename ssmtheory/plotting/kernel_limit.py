"""Panels and figures of the experiment ``kernel_limit``: kernels, the limits they tend to, and in which sense.

`draw_x(tree, ax)` puts one quantity into one panel; `figure_x(tree, venue)` arranges panels into a figure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.plotting.panels import (
    heading,
    init_name,
    label_size,
    legend_above,
    page,
    read,
    read_labels,
    size_axis,
    state_dims,
)
from ssmtheory.plotting.style import (
    FAINT,
    INK,
    LINE_STYLES,
    OKABE_ITO,
    plain_log_ticks,
    series_style,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "FIGURES",
    "GROUPS",
    "draw_basis",
    "draw_kernels",
    "draw_modes",
    "draw_sampled",
    "draw_sizes",
    "draw_windowed",
    "figure_bases",
    "figure_convergence",
    "figure_modes",
    "figure_s4d_bases",
    "figure_sampled",
]


def _first(tree: xr.DataTree) -> str:
    return str(read_labels(tree, "kernels/kernel", "init")[0])


def _row(tree: xr.DataTree, path: str, dim: str, label: str) -> int:
    names = [str(name) for name in read_labels(tree, path, dim)]
    if label not in names:
        raise InputError(f"{path} has no {dim} '{label}': it has {', '.join(names)}.")
    return names.index(label)


def _sizes(tree: xr.DataTree, most: int = 3) -> list[tuple[int, int]]:
    """(row, N) of a few state dimensions, the smallest and the largest among them."""
    sizes = state_dims(tree, "kernels/kernel")
    chosen = sorted({round(i) for i in np.linspace(0, len(sizes) - 1, min(most, len(sizes)))})
    return [(i, int(sizes[i])) for i in chosen]


def _times(tree: xr.DataTree, path: str) -> np.ndarray:
    return read_labels(tree, path, "time").astype(float)


def _curve(ax: Axes, time: np.ndarray, values: np.ndarray, look: dict[str, Any], label: str, note: str = "") -> None:
    """A curve; points (and a note) where it swings faster than it was sampled: a line would invent an oscillation."""
    turns = np.count_nonzero(np.diff(np.sign(np.diff(values)))) / max(len(values) - 2, 1)
    if turns > 0.25:
        ax.plot(time, values, linestyle="none", marker=".", markersize=1.2, color=look["color"], mew=0, rasterized=True)
        ax.plot([], [], linestyle="none", marker=".", color=look["color"], label=f"{label}{note}")
    else:
        ax.plot(time, values, label=label, rasterized=len(time) > 5000, **look)


# ---------------------------------------------------------------------------------------------------- convergence


def draw_kernels(tree: xr.DataTree, ax: Axes, *, init: str | None = None) -> None:
    """Kernel of one output at a few N and the limit: it oscillates ever faster about the limit, no less far."""
    init = init or _first(tree)
    path = "kernels/kernel"
    kernel, time = read(tree, path)[_row(tree, path, "init", init)], _times(tree, path)
    for number, (i, n) in reversed(list(enumerate(_sizes(tree)))):
        look = {**series_style(number), "linestyle": "-", "linewidth": 0.7}
        _curve(ax, time, kernel[i], look, f"$N={n}$", " (sampled)")
    limit = read(tree, "kernels/limit")[_row(tree, "kernels/limit", "init", init)]
    ax.plot(time, limit, color=INK, linewidth=1.3, linestyle=LINE_STYLES[1], label="limit")
    # the first instant (of height N/2) would flatten all that follows
    later = kernel[:, time > 0.05 * time[-1]]
    if later.size:
        span = float(np.nanmax(later) - np.nanmin(later))
        ax.set_ylim(float(np.nanmin(later)) - 0.1 * span, float(np.nanmax(later)) + 0.35 * span)
    ax.set_xlabel("time $t$ [s]")
    ax.set_ylabel(rf"$K(t)$, output {int(read(tree, 'kernels/output'))}")
    heading(ax, init_name(init), "closed form", legend_rows=2)
    legend_above(ax, 2, reverse=True)


def draw_windowed(tree: xr.DataTree, ax: Axes, *, init: str | None = None) -> None:
    """Mean of the difference over a window that starts at t: what a smooth input sees, and it vanishes."""
    init = init or _first(tree)
    path = "kernels/windowed"
    values, time = read(tree, path)[_row(tree, path, "init", init)], _times(tree, path)
    for number, (i, n) in enumerate(_sizes(tree)):
        shown = np.abs(values[i]) > 0
        look = {**series_style(number), "linestyle": "-", "linewidth": 0.7}
        ax.plot(time[shown], np.abs(values[i])[shown], label=f"$N={n}$", rasterized=len(time) > 5000, **look)
    ax.set_yscale("log")
    # where the mean changes sign it passes through zero: four decades say enough
    top = float(np.nanmax(np.abs(values)))
    ax.set_ylim(max(ax.get_ylim()[0], 1e-4 * top), 1.5 * top)
    ax.set_xlabel("time $t$ [s]")
    ax.set_ylabel(r"$|$mean of $K-K_\infty|$")
    heading(ax, f"Window of {float(read(tree, 'kernels/window')):g} s", "measured", legend_rows=2)
    legend_above(ax, 3)


def draw_sizes(tree: xr.DataTree, ax: Axes, *, init: str | None = None) -> None:
    """The difference in three senses against N: in L2 (circles: closed formula), uniformly, and in window means."""
    init = init or _first(tree)
    row = _row(tree, "kernels/kernel", "init", init)
    sizes = state_dims(tree, "kernels/kernel")
    windowed = np.nanmax(np.abs(read(tree, "kernels/windowed")[row]), axis=1)
    curves = (
        ("largest", read(tree, "kernels/uniform_difference")[row]),
        ("$L^2$", read(tree, "kernels/l2_difference")[row]),
        ("window mean", windowed),
    )
    for i, (name, values) in enumerate(curves):
        ax.plot(sizes, values, label=name, **series_style(i, marker=True))
    exact = read(tree, "kernels/l2_exact")[row]
    ax.plot(sizes, exact, linestyle="none", marker="o", markersize=6, markerfacecolor="none", color=INK, mew=0.5)
    ax.set_yscale("log")
    plain_log_ticks(ax.yaxis, *ax.get_ylim())
    size_axis(ax, sizes)
    ax.set_ylabel(r"size of $K-K_\infty$")
    known = np.isfinite(exact)
    heading(ax, "Sizes", r"$\circ$: formula, proved" if known.any() else "measured", legend_rows=1)
    legend_above(ax, 3)


_MODES = {
    "sampled": "after sampling",
    "compact": "on bounded bands",
    "inputwise": "for each input",
    "L2": "in $L^2$",
    "uniform": r"in $H_\infty$",
    "initial_value": "at $t=0$",
}
_WORDS = {1: "holds", 0: "fails", -1: "not known"}


def draw_modes(tree: xr.DataTree, ax: Axes) -> None:
    """Which modes of convergence hold for each initialisation, and how that is known."""
    path = "modes/holds"
    holds = read(tree, path).astype(int).T
    names, modes = read_labels(tree, path, "init"), read_labels(tree, path, "convergence")
    status = read(tree, "modes/status")
    # which theorems these are stands in the dataset
    short = np.array(
        [[str(text).partition(":")[0].replace(" modulo named theorems", "*") for text in r] for r in status]
    )
    per_init = all(len(set(row)) == 1 for row in short)
    fill = {1: OKABE_ITO[2], 0: OKABE_ITO[1], -1: FAINT}
    for i in range(len(modes)):
        for j in range(len(names)):
            code = int(holds[i, j])
            ax.fill_between([j - 0.48, j + 0.48], i - 0.44, i + 0.44, color=fill[code], alpha=0.28, linewidth=0)
            text = _WORDS[code] if per_init else f"{_WORDS[code]} ({short[j, i]})"
            ax.text(j, i, text, ha="center", va="center", fontsize=label_size(ax) - 1)
    ax.set_yticks(range(len(modes)), [_MODES.get(str(mode), str(mode)) for mode in modes])
    below = [f"\n{row[0].replace(' ', chr(10))}" if per_init else "" for row in short]
    ax.set_xticks(range(len(names)), [init_name(str(name)) + text for name, text in zip(names, below, strict=True)])
    ax.set_xlim(-0.5, len(names) - 0.5)
    ax.set_ylim(len(modes) - 0.5, -0.5)
    ax.tick_params(length=0)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    heading(ax, "Modes", "* modulo named theorems" if any("*" in text for text in short.flat) else "")


# ---------------------------------------------------------------------------------------------------- bases


def _measures(tree: xr.DataTree, *, s4d: bool) -> list[str]:
    names = [str(name) for name in read_labels(tree, "bases/kernel", "measure")]
    return [name for name in names if name.startswith(("s4d", "dss")) == s4d]


def draw_basis(tree: xr.DataTree, ax: Axes, measure: str, *, outputs: int = 4) -> None:
    """First basis functions K_n(t) of one measure or S4D variant; those of LegS (black) on those of S4D-LegS."""
    path = "bases/kernel"
    kernel = read(tree, path)[_row(tree, path, "measure", measure)]
    time, labels = _times(tree, path), read_labels(tree, path, "output")
    shown = kernel[:outputs]
    if measure == "s4d-legs" and "legs" in read_labels(tree, path, "measure"):
        for values in read(tree, path)[_row(tree, path, "measure", "legs")][:outputs]:
            ax.plot(time, values, color=INK, linewidth=0.7, zorder=3)
    for i, values in enumerate(shown):
        look = {**series_style(i), "linewidth": 0.9}
        _curve(ax, time, values, look, f"$n={labels[i]}$")
    ax.axhline(0, color=FAINT, linewidth=0.5)
    # near t = 0 the kernels of S4D are as high as N: it is what comes after that can be compared
    low, high = np.nanquantile(shown, (0.01, 0.99))
    ax.set_ylim(low - 0.15 * (high - low), high + 0.15 * (high - low))
    ax.set_xlabel("time $t$ [s]")
    ax.set_ylabel("$K_n(t)$")
    heading(ax, init_name(measure))


def draw_sampled(tree: xr.DataTree, ax: Axes, state_dim: int, method: str, *, outputs: int = 3) -> None:
    """Discrete kernels of S4D-LegS per step in the HiPPO basis (colours) on LegS's basis functions (dashed)."""
    path = "sampled/kernel"
    sizes = list(state_dims(tree, path))
    if state_dim not in sizes:
        raise InputError(f"{path} has no N = {state_dim}: it has {', '.join(str(n) for n in sizes)}.")
    row, column = sizes.index(state_dim), _row(tree, path, "method", method)
    kernel, time = read(tree, path)[row, column], _times(tree, path)
    limit, labels = read(tree, "sampled/limit"), read_labels(tree, path, "output")
    for i in range(min(outputs, len(kernel))):
        look = {**series_style(i), "linestyle": "-", "linewidth": 0.8}
        ax.plot(time, kernel[i], label=f"$n={labels[i]}$", rasterized=len(time) > 5000, **look)
        ax.plot(time, limit[i], color=INK, linewidth=0.7, linestyle=LINE_STYLES[1])
    worst = float(np.nanmax(read(tree, "sampled/sup_difference")[row, column]))
    ax.set_xlabel("time $t$ [s]")
    ax.set_ylabel(r"$\bar{K}_n/\Delta$")
    name = {"zoh": "ZOH", "bilinear_s4": "bilinear"}.get(method, method)
    heading(ax, f"{name}, $N={state_dim}$", f"off {worst:.1g}")


# ---------------------------------------------------------------------------------------------------- figures


def figure_convergence(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Kernel, window means and sizes of the difference of one initialisation, and the modes of convergence of all."""
    draws = (draw_kernels, draw_windowed, draw_sizes, draw_modes)
    return page(venue, 4.6, draws, tree)


def figure_modes(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """The modes of convergence of many initialisations."""
    count = len(read_labels(tree, "modes/holds", "convergence"))
    return page(venue, 0.9 + 0.22 * count, (draw_modes,), tree)


def _row_of_bases(tree: xr.DataTree, venue: str, measures: Sequence[str], height: float) -> Figure:
    if not measures:
        raise InputError("the dataset has no such basis functions.")
    return page(
        venue, height, [partial(draw_basis, measure=m) for m in measures], tree, columns=min(3, len(measures)), legend=4
    )


def figure_bases(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Basis functions of LegS, LegT and FouT (arXiv 2206.12037, Fig. 1)."""
    return _row_of_bases(tree, venue, _measures(tree, s4d=False)[:3], 2.2)


def figure_s4d_bases(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Basis functions of the S4D variants (arXiv 2206.11893, Fig. 2)."""
    return _row_of_bases(tree, venue, _measures(tree, s4d=True)[:3], 2.2)


def figure_sampled(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Discrete kernels of S4D-LegS by method and N, on LegS's basis functions (arXiv 2206.11893, Fig. 2)."""
    sizes = [int(n) for n in state_dims(tree, "sampled/kernel")]
    methods = [str(name) for name in read_labels(tree, "sampled/kernel", "method")]

    shown = sizes if len(sizes) < 3 else [sizes[0], sizes[-1]]
    draws = [partial(draw_sampled, state_dim=n, method=method) for method in methods for n in shown]
    return page(venue, 2.0 * len(methods), draws, tree, columns=len(shown), legend=4)


FIGURES: dict[str, Callable[[xr.DataTree, str], Figure]] = {
    "convergence": figure_convergence,
    "modes": figure_modes,
    "bases": figure_bases,
    "s4d_bases": figure_s4d_bases,
    "sampled": figure_sampled,
}

#: figure -> groups of the dataset that it draws; a run that did not measure one of them has no such figure
GROUPS: dict[str, tuple[str, ...]] = {
    "convergence": ("kernels", "modes"),
    "modes": ("modes",),
    "bases": ("bases",),
    "s4d_bases": ("bases",),
    "sampled": ("sampled",),
}
