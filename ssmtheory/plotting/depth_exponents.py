"""Figures of the experiment ``depth_exponents``: spectra of the Jacobian through depth, and where volume grows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ssmtheory.plotting.panels import page, read, read_labels
from ssmtheory.plotting.style import FAINT, series_style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "draw_spectrum", "draw_spread", "draw_volume", "figure_overview"]


def _models(tree: xr.DataTree) -> list[str]:
    return [str(name) for name in read_labels(tree, "last/exponent", "model")]


def _band(ax: Axes, x: np.ndarray, values: np.ndarray, i: int, label: str) -> None:
    """Mean over the sequences (first axis) and the range of all of them."""
    look = series_style(i)
    ax.plot(x, values.mean(axis=0), label=label, **look)
    ax.fill_between(x, values.min(axis=0), values.max(axis=0), color=look["color"], alpha=0.2, linewidth=0)


def draw_spectrum(tree: xr.DataTree, ax: Axes) -> None:
    """All exponents of a change at the last token, mean and range over sequences; dotted: growth of the norm itself."""
    exponents, norm = read(tree, "last/exponent"), read(tree, "last/norm_rate")
    share = (np.arange(exponents.shape[2]) + 0.5) / exponents.shape[2]
    for i, name in enumerate(_models(tree)):
        _band(ax, share, exponents[i], i, name)
        ax.axhline(norm[i].mean(), color=series_style(i)["color"], linewidth=0.7, linestyle=":")
    ax.axhline(0.0, color=FAINT, linewidth=0.6)
    ax.set_xlabel("share of directions")
    ax.set_ylabel("exponent [1/layer]")
    ax.set_title("Change, last token", loc="left")


def draw_volume(tree: xr.DataTree, ax: Axes) -> None:
    """Growth of the volume of the last token's frame, layer by layer."""
    values = read(tree, "last/volume_rate")
    layers = read_labels(tree, "last/volume_rate", "layer").astype(float)
    for i, name in enumerate(_models(tree)):
        _band(ax, layers, values[i], i, name)
    ax.axhline(0.0, color=FAINT, linewidth=0.6)
    ax.set_xlabel("layer")
    ax.set_ylabel(r"volume rate [1/layer]")
    ax.set_title("Growth of volume", loc="left")


def draw_spread(tree: xr.DataTree, ax: Axes) -> None:
    """Share of the energy of changes at the first token that has moved to later tokens."""
    values = read(tree, "first/spread")
    depth = read_labels(tree, "first/spread", "depth").astype(float)
    for i, name in enumerate(_models(tree)):
        _band(ax, depth, values[i], i, name)
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlabel("depth")
    ax.set_ylabel("share at later tokens")
    ax.set_title("Change, first token", loc="left")


def figure_overview(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Spectrum of the last token's Jacobian, growth of volume by layer, spread of the first token's changes."""
    return page(venue, 2.2, (draw_spectrum, draw_volume, draw_spread), tree, columns=3, legend=2)


FIGURES: dict[str, Callable[[xr.DataTree, str], Figure]] = {"overview": figure_overview}
