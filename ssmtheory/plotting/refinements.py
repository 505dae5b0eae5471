"""Figures of the experiment ``refinements``: what constrained matrices and reordered tokens change, seed by seed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.plotting.panels import heading, page, read, read_labels
from ssmtheory.plotting.style import FAINT, OKABE_ITO, series_style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "FIGURES", "GROUPS", "draw_bar_of_variants", "draw_curves", "draw_differences", "draw_q_positive",
    "figure_parametrisation", "figure_reordering",
]  # fmt: skip

_WRITTEN = {"positive-antisymmetric": "positive, antisym. free", "negative-antisymmetric": "negative, antisym. free"}


def _variants(tree: xr.DataTree, group: str) -> list[str]:
    name = "heldout_bits" if group == "parametrisation" else "test_accuracy"
    return [str(v) for v in read_labels(tree, f"{group}/{name}", group)]


def _names(variants: list[str]) -> list[str]:
    return [_WRITTEN.get(v, v) for v in variants]


def _rows(ax: Axes, variants: list[str]) -> np.ndarray:
    """One row per variant, the baseline on top; returns their heights."""
    rows = np.arange(len(variants), dtype=float)[::-1]
    ax.set_yticks(rows, _names(variants))
    ax.set_ylim(-0.6, len(variants) - 0.4)
    ax.tick_params(axis="y", length=0)
    return rows


def draw_differences(
    tree: xr.DataTree, ax: Axes, group: str, name: str, label: str, title: str, scale: float = 1.0
) -> None:
    """Difference to the baseline: a point per seed, the mean with its bootstrap interval; filled where it is shown.

    Args:
        tree: the dataset.
        ax: the panel.
        group: "parametrisation" or "reordering".
        name: what was tested: "heldout_bits", "norm_rate", "test_accuracy" or "test_bits".
        label: of the horizontal axis.
        title: of the panel.
        scale: of the numbers, 100 for per cent.

    Raises:
        InputError: unknown group.
    """
    if group not in ("parametrisation", "reordering"):
        raise InputError(f"no group {group!r}: there are parametrisation and reordering")
    variants = _variants(tree, group)
    values = read(tree, f"{group}/{name}")
    values = scale * (values[..., -1] if values.ndim == 3 else values)
    mean, low, high, p = (
        read(tree, f"{group}_test/{name}_{k}") * (1.0 if k == "p_holm" else scale)
        for k in ("difference", "low", "high", "p_holm")
    )
    rows, seeds = _rows(ax, variants), values.shape[1]
    ax.axvline(0.0, color=FAINT, linewidth=0.7)
    spread = np.linspace(-0.22, 0.22, seeds) if seeds > 1 else np.zeros(1)
    for i in range(1, len(variants)):
        shown = p[i] <= 0.05
        ax.plot(values[i] - values[0], rows[i] + spread, ".", color=FAINT, markersize=2.5)
        ax.hlines(rows[i], low[i], high[i], color=OKABE_ITO[0], linewidth=1.4)
        ax.plot(
            mean[i], rows[i], "o", markersize=4, color=OKABE_ITO[0], markerfacecolor=OKABE_ITO[0] if shown else "white"
        )
    ax.set_xlabel(label)
    heading(ax, title)


def draw_curves(tree: xr.DataTree, ax: Axes, group: str, label: str, title: str) -> None:
    """Training loss, mean over seeds and over a tenth of the steps, one curve per variant."""
    loss = read(tree, f"{group}/training_bits").mean(axis=1)
    steps = loss.shape[-1]
    window = max(1, steps // 10)
    kernel = np.ones(window) / window
    at = np.arange(steps - window + 1) + (window + 1) / 2
    for i, variant in enumerate(_names(_variants(tree, group))):
        ax.plot(at, np.convolve(loss[i], kernel, mode="valid"), label=variant, **series_style(i))
    ax.set_xlabel("optimiser step")
    ax.set_ylabel(label)
    heading(ax, title)


def draw_q_positive(tree: xr.DataTree, ax: Axes) -> None:
    """Fraction of held-out tokens with q(u) > 0: before training (open) and after (filled), a mark per layer."""
    variants = _variants(tree, "parametrisation")
    values = read(tree, "parametrisation/q_positive").mean(axis=1)  # (variant, layer, observed)
    rows, layers = _rows(ax, variants), values.shape[1]
    for layer in range(layers):
        shift = 0.18 * ((layers - 1) / 2 - layer)
        colour = series_style(layer)["color"]
        ax.hlines(rows + shift, values[:, layer, 0], values[:, layer, -1], color=colour, linewidth=0.7)
        ax.plot(values[:, layer, 0], rows + shift, "o", markersize=3, color=colour, markerfacecolor="white")
        ax.plot(values[:, layer, -1], rows + shift, "o", markersize=3, color=colour)
    ax.set_xlim(-0.04, 1.04)
    ax.set_xlabel("tokens with $q>0$, first layer on top")
    heading(ax, "Before (open) and after training")


def draw_bar_of_variants(tree: xr.DataTree, ax: Axes, group: str, name: str, label: str, title: str) -> None:
    """One statistic of the trained models: mean over seeds (and layers), a point per seed."""
    variants = _variants(tree, group)
    array = tree[f"{group}/{name}"]
    values = read(tree, f"{group}/{name}")
    if "observed" in array.dims:
        values = values[..., -1]
    if "layer" in array.dims:
        values = values.mean(axis=2)
    rows = _rows(ax, variants)
    ax.axvline(0.0, color=FAINT, linewidth=0.7)
    for i in range(len(variants)):
        ax.plot(values[i], np.full(values.shape[1], rows[i]), ".", color=FAINT, markersize=3)
        ax.plot(values[i].mean(), rows[i], "o", markersize=4, color=OKABE_ITO[0])
    ax.set_xlabel(label)
    heading(ax, title)


def figure_parametrisation(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Constrained input-output matrices: held-out loss against the free one, curves, sign of q, growth of the norm."""
    name = "parametrisation"
    baseline = _variants(tree, name)[0]
    return page(
        venue,
        4.6,
        (
            partial(
                draw_differences, group=name, name="heldout_bits", title=f"Held-out loss minus {baseline}",
                label="bit/byte",
            ),
            draw_q_positive,
            partial(
                draw_bar_of_variants, group=name, name="q_kappa", title=r"Sign $q$ against sign $g$",
                label=r"agreement beyond chance, $\kappa$",
            ),
            partial(
                draw_differences, group=name, name="norm_rate", title=f"Growth of the norm minus {baseline}",
                label=r"$\ln(|r_K|/|r_0|)/K$",
            ),
        ),
        tree,
    )  # fmt: skip


def figure_reordering(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Reordered tokens: test accuracy and loss against no reordering, curves, and how much of the future leaks."""
    name = "reordering"
    baseline = _variants(tree, name)[0]
    return page(
        venue,
        4.6,
        (
            partial(
                draw_differences, group=name, name="test_accuracy", title=f"Test accuracy minus {baseline}",
                label="percentage points", scale=100.0,
            ),
            partial(
                draw_differences, group=name, name="test_bits", title=f"Test loss minus {baseline}", label="bit/image"
            ),
            partial(draw_curves, group=name, label="training loss [bit/image]", title="Training"),
            partial(
                draw_bar_of_variants, group=name, name="leak", title=r"Leak of the future into $y_0$",
                label=r"share of $|\partial y_0/\partial x_j|^2$ at $j>0$",
            ),
        ),
        tree,
        legend=6,
    )  # fmt: skip


FIGURES: dict[str, Callable[[xr.DataTree, str], Figure]] = {
    "parametrisation": figure_parametrisation,
    "reordering": figure_reordering,
}
GROUPS = {
    "parametrisation": ("parametrisation", "parametrisation_test"),
    "reordering": ("reordering", "reordering_test"),
}
