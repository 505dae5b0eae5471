"""Figures of the experiment ``pretrain``: the loss curve, and the dynamics while the model learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ssmtheory.plotting.panels import page, read, read_labels
from ssmtheory.plotting.style import (
    FAINT,
    new_figure,
    panel_letters,
    plain_log_ticks,
    sequential_colours,
    series_style,
    small_bar,
    style,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "draw_heldout", "draw_observable", "draw_training_loss", "figure_dynamics", "figure_loss"]


def draw_training_loss(tree: xr.DataTree, ax: Axes) -> None:
    """Training loss [bit/byte] of every step (pale) and its running mean over 2 % of the steps."""
    loss = read(tree, "training/loss_bits").astype(float)
    steps = read_labels(tree, "training/loss_bits", "step").astype(float)
    window = max(1, len(loss) // 50)
    ax.plot(steps, loss, color=FAINT, linewidth=0.3, alpha=0.6, rasterized=len(loss) > 2000)
    # centred: a trailing mean would lag behind the first, steep part
    total = np.concatenate([[0.0], np.cumsum(loss)])
    at = np.arange(max(1, len(loss) - window // 2))
    half = np.minimum(window // 2, at)
    ax.plot(steps[at], (total[at + half + 1] - total[at - half]) / (2 * half + 1), **series_style(0))
    # the first steps start at 8 bit/byte (uniform) and would flatten the rest
    low, high = float(np.nanmin(loss)), float(np.nanquantile(loss[len(loss) // 50 :], 0.995))
    ax.set_ylim(max(0.0, low - 0.1 * (high - low)), high + 0.25 * (high - low))
    ax.set_xlabel("optimiser step")
    ax.set_ylabel("training loss [bit/byte]")
    ax.set_title(f"Training loss (mean of {2 * (window // 2) + 1} steps)", loc="left")


def draw_heldout(tree: xr.DataTree, ax: Axes) -> None:
    """Held-out bits per byte of every corpus through training, and the better Kneser-Ney 5-gram as a thin line.

    The legend has the final values: the model's over the whole held-out text with its state carried; the baseline's.
    """
    bits = read(tree, "heldout/bits_per_byte").astype(float)
    steps = read_labels(tree, "heldout/bits_per_byte", "observed").astype(float)
    corpora = [str(c) for c in read_labels(tree, "heldout/bits_per_byte", "corpus")]
    final = read(tree, "final/streamed_bits_per_byte").astype(float)
    baseline = read(tree, "baseline/kneser_ney_bits").astype(float).min(axis=0)
    for i, corpus in enumerate(corpora):
        look = series_style(i, marker=True)
        label = f"{corpus}: {final[i]:.3f} (5-gram {baseline[i]:.3f})"
        ax.plot(np.maximum(steps, 0.5), bits[:, i], label=label, **look)
        ax.axhline(baseline[i], color=look["color"], linewidth=0.6, linestyle=look["linestyle"])
    _step_axis(ax, steps)
    ax.set_ylabel("held-out loss [bit/byte]")
    ax.set_title("Held-out text", loc="left", pad=4 + 2.5 * float(ax.xaxis.label.get_fontsize()))
    legend = ax.legend(
        loc="lower left", bbox_to_anchor=(-0.03, 1.0), borderaxespad=0.0, borderpad=0.1, ncols=1, labelspacing=0.2
    )
    legend.set_in_layout(False)  # the title's distance makes the room


def _step_axis(ax: Axes, steps: np.ndarray) -> None:
    """Logarithmic steps, with step 0 in a place of its own left of step 1."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ax.set_xscale("log")
    powers = [10.0**p for p in range(int(np.log10(max(float(steps.max()), 1.0))) + 1)]
    ax.xaxis.set_major_locator(FixedLocator(([0.5] if steps.min() <= 0 else []) + powers))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: "0" if v < 1 else f"{v:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlim(0.4 if steps.min() <= 0 else 0.9, float(steps.max()) * 1.3)
    ax.set_xlabel("optimiser step")


def draw_observable(tree: xr.DataTree, ax: Axes, name: str, label: str, *, bar: bool = False) -> None:
    """One held-out statistic of the dynamics through training, a curve per layer (or depth), coloured by layer."""
    values = read(tree, f"heldout/{name}").astype(float)
    steps = read_labels(tree, f"heldout/{name}", "observed").astype(float)
    dim = tree[f"heldout/{name}"].dims[1]
    layers = read_labels(tree, f"heldout/{name}", str(dim)).astype(float)
    colours, mappable = sequential_colours(layers)
    if name in ("q_positive", "outward"):
        ax.axhline(0.5, color=FAINT, linewidth=0.6)
    for column, colour in zip(values.T, colours, strict=True):
        ax.plot(np.maximum(steps, 0.5), column, color=colour, linewidth=0.9)
    _step_axis(ax, steps)
    ax.set_ylabel(label)
    if bar:
        small_bar(ax, mappable, str(dim))


def figure_loss(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Loss curve: training loss step by step, and held-out bits per byte of every corpus."""
    return page(venue, 2.2, (draw_training_loss, draw_heldout), tree)


def figure_dynamics(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """What training does to the dynamics: step Delta, sign of q, radial rate, norms; one curve per layer."""
    panels = (
        ("delta_mean", r"mean step $\Delta$", "Step"),
        ("q_positive", "fraction of tokens", "$q>0$ (theory: outwards)"),
        ("outward", "fraction of tokens", "$g>0$ (moved outwards)"),
        ("residual_norm", r"mean norm $|r|$", "Norms"),
    )
    with style(venue) as v:
        figure = new_figure(venue, height=3.6 * v.full / 5.5)
        axes = figure.subplots(2, 2).ravel()
        for ax, (name, label, title) in zip(axes, panels, strict=True):
            draw_observable(tree, ax, name, label, bar=True)
            ax.set_title(title, loc="left")
            if name in ("delta_mean", "residual_norm"):
                ax.set_yscale("log")
                plain_log_ticks(ax.yaxis, *ax.get_ylim())
            else:
                ax.set_ylim(-0.03, 1.03)
        panel_letters(list(axes))
    return figure


FIGURES: dict[str, Callable[[xr.DataTree, str], Figure]] = {"loss": figure_loss, "dynamics": figure_dynamics}
