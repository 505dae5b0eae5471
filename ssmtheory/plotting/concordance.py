"""Figures of the experiment ``concordance``: predictors of sign g in several models, and what moves tokens in each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ssmtheory.plotting.panels import band, heading, integer_axis, legend_above, page, read, read_labels
from ssmtheory.plotting.style import FAINT, INK, plain_log_ticks, series_style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "draw_agreement", "draw_chi", "draw_depth", "draw_growth", "draw_kappa", "draw_shares",
           "draw_t_c", "figure_depth", "figure_predictors", "figure_training", "model_labels"]  # fmt: skip

_SYMBOLS = {
    "q": "$q$",
    "q R": r"$q\,R$",
    "A_Delta": r"$A_\Delta$",
    "g_skip": r"$g_\mathrm{skip}$",
    "g_self": r"$g_\mathrm{self}$",
    "g_hist": r"$g_\mathrm{hist}$",
    "g_self+g_hist": r"$g_\mathrm{self}+g_\mathrm{hist}$",
}


def model_labels(tree: xr.DataTree) -> list[str]:
    """A short name of every model: its optimiser step where all with one have different steps, else its name."""
    names = [str(name) for name in read_labels(tree, "models/layers", "model")]
    steps = read(tree, "models/training_step")
    known = steps[np.isfinite(steps)]
    if len(set(known)) < len(known):
        return names
    return [f"step {step:.0f}" if np.isfinite(step) else name for name, step in zip(names, steps, strict=True)]


def _symbol(name: str) -> str:
    return rf"$\kappa({name.removeprefix('kappa_')})$" if name.startswith("kappa_") else _SYMBOLS.get(name, name)


def _deep(tree: xr.DataTree) -> np.ndarray:
    """Indices of the models that have more than one layer."""
    return np.flatnonzero(read(tree, "models/layers") > 1)


def draw_kappa(tree: xr.DataTree, ax: Axes) -> None:
    """Pooled kappa of every predictor in every model: estimate, 95 % interval, and in grey the permuted sequences."""
    names = [str(name) for name in read_labels(tree, "tests/kappa", "predictor")]
    value, low, high, null_low, null_high, flags = (
        read(tree, f"tests/{name}")
        for name in ("kappa", "kappa_low", "kappa_high", "kappa_null_low", "kappa_null_high", "evidence")
    )
    labels = model_labels(tree)
    rows = np.arange(len(names))[::-1].astype(float)
    offset = np.linspace(0.32, -0.32, len(labels)) if len(labels) > 1 else np.zeros(1)
    ax.axvline(0, color=FAINT, linewidth=0.6)
    for i, label in enumerate(labels):
        look, y = series_style(i, marker=True), rows + offset[i]
        ax.hlines(y, null_low[i], null_high[i], color="#CCCCCC", linewidth=3.5)
        ax.hlines(y, low[i], high[i], color=look["color"], linewidth=1.1)
        ax.plot(value[i], y, linestyle="none", marker=look["marker"], color=look["color"], markersize=3.2,
                markerfacecolor="white", label=label)  # fmt: skip
        sure = flags[i].astype(bool)
        ax.plot(value[i][sure], y[sure], linestyle="none", marker=look["marker"], color=look["color"], markersize=3.2)
    ax.set_yticks(rows, [_symbol(name) for name in names])
    ax.set_ylim(-0.6, len(names) - 0.4)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(r"$\kappa$: agreement with sign $g$ beyond chance")
    heading(ax, "Predictors", "filled: evidence", legend_rows=2)
    legend_above(ax, ncols=3, swatch="permuted, 95 %")


def draw_agreement(tree: xr.DataTree, ax: Axes) -> None:
    """How often sign q is sign g, beside the base rate of the layers' majority signs, both with 95 % intervals."""
    k = [str(name) for name in read_labels(tree, "tests/kappa", "predictor")].index("q")
    labels = model_labels(tree)
    y = np.arange(len(labels))[::-1].astype(float)
    for name, shift, colour, marker, label in (
        ("agreement", 0.12, series_style(0)["color"], "o", "sign $q$"),
        ("baseline", -0.12, INK, "s", "majority sign"),
    ):
        value, low, high = (100 * read(tree, f"tests/{name}{end}")[:, k] for end in ("", "_low", "_high"))
        ax.hlines(y + shift, low, high, color=colour, linewidth=1.1)
        ax.plot(value, y + shift, linestyle="none", marker=marker, color=colour, markersize=3.6, label=label)
    chance = 100 * read(tree, "tests/chance")[:, k]
    ax.plot(chance, y, linestyle="none", marker="|", color="#888888", markersize=11, label="chance")
    ax.set_yticks(y, labels)
    ax.set_ylim(-0.6, len(labels) - 0.4)
    ax.set_xlim(0, 103)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("tokens whose sign of $g$ is named [%]")
    heading(ax, "Sign $q$", "measured, 95 %", legend_rows=1)
    legend_above(ax, ncols=3)


def _by_layer(tree: xr.DataTree, ax: Axes, name: str, scale: float = 1.0) -> None:
    labels = model_labels(tree)
    for i in _deep(tree):
        value, low, high = (scale * read(tree, f"layers/{name}{end}")[i] for end in ("", "_low", "_high"))
        n = int(read(tree, "models/layers")[i])
        look, x = series_style(int(i)), np.arange(n)
        band(ax, x, low[:n], high[:n], look["color"])
        ax.plot(x, value[:n], label=labels[i], **look)
    integer_axis(ax, "x", "layer")


def draw_chi(tree: xr.DataTree, ax: Axes) -> None:
    """Share of tokens whose sign of g another S_B and S_C could change, by layer."""
    _by_layer(tree, ax, "chi", 100.0)
    ax.set_ylim(bottom=0)
    ax.set_ylabel(r"$\chi$ [% of tokens]")
    heading(ax, "What $S_B$, $S_C$ can decide", "95 %")


def draw_shares(tree: xr.DataTree, ax: Axes) -> None:
    """Shares of the variance of g, mean over layers, by model: skip, own write and history, with 95 % intervals."""
    labels = model_labels(tree)
    x = np.arange(len(labels)).astype(float)
    for j, (part, text) in enumerate((("skip", "skip $Du$"), ("self", "own write"), ("hist", "history"))):
        k = [str(p) for p in read_labels(tree, "models/share", "part")].index(part)
        value, low, high = (100 * read(tree, f"models/share{end}")[:, k] for end in ("", "_low", "_high"))
        look, at = series_style(j, marker=True), x + 0.14 * (j - 1)
        ax.vlines(at, low, high, color=look["color"], linewidth=1.1)
        ax.plot(at, value, linestyle="none", marker=look["marker"], color=look["color"], markersize=3.6, label=text)
    ax.axhline(0, color=FAINT, linewidth=0.6)
    ax.set_xticks(x, [label.replace(" ", "\n") for label in labels])
    ax.set_xlim(-0.5, len(labels) - 0.5)
    ax.set_ylabel("share of var $g$ [%]")
    heading(ax, "What moves tokens", "95 %", legend_rows=1)
    legend_above(ax, ncols=3)


def draw_growth(tree: xr.DataTree, ax: Axes) -> None:
    """Growth of ln |r| in every layer (lines), and the rate q Delta of the depth equation (dotted)."""
    _by_layer(tree, ax, "growth")
    for i in _deep(tree):
        n = int(read(tree, "models/layers")[i])
        value = read(tree, "layers/predicted_growth")[i, :n]
        ax.plot(np.arange(n), value, color=series_style(int(i))["color"], linestyle=":", linewidth=1.0)
    ax.axhline(0, color=FAINT, linewidth=0.6)
    ax.set_ylabel(r"$\ln|r_{k+1}|/|r_k|$")
    heading(ax, "Growth", r"dotted: $\overline{q\Delta}$")


def draw_t_c(tree: xr.DataTree, ax: Axes) -> None:
    """Depth t_c = 1/(2 |q| Delta) on which the depth equation acts, against the layers there are (dashed)."""
    _by_layer(tree, ax, "t_c")
    deep = _deep(tree)
    value = read(tree, "layers/t_c")[deep]
    layers = float(read(tree, "models/layers")[deep].max())
    ax.axhline(layers, color=INK, linestyle="--", linewidth=0.7)
    ax.set_yscale("log")
    low, high = float(np.nanmin(value)), float(np.nanmax(value))
    plain_log_ticks(ax.yaxis, min(low, layers), max(high, layers))
    ax.set_ylabel("$t_c$ [layers]")
    heading(ax, "Critical depth", "dashed: model")


def draw_depth(tree: xr.DataTree, ax: Axes) -> None:
    """Norm of tokens through depth, both logarithmic, with the convergent law t^(-1/2) (dotted)."""
    labels, value = model_labels(tree), read(tree, "depth/log_norm")
    for i in _deep(tree):
        n = int(read(tree, "models/layers")[i])
        x, y = np.arange(1, n + 1), np.exp(value[i, 1 : n + 1])
        ax.plot(x, y, label=labels[i], **series_style(int(i)))
        ax.plot(x, y[0] * x**-0.5, color=series_style(int(i))["color"], linestyle=":", linewidth=0.8)
    ax.set_xscale("log")
    ax.set_yscale("log")
    drawn = np.exp(value[_deep(tree), 1:])
    plain_log_ticks(ax.xaxis, 1.0, float(drawn.shape[1]))
    plain_log_ticks(ax.yaxis, float(np.nanmin(drawn)) * drawn.shape[1] ** -0.5, float(np.nanmax(drawn)))
    ax.set_xlabel("depth (blocks passed)")
    ax.set_ylabel(r"$|r|$, geometric mean")
    heading(ax, "Norms", r"dotted: $t^{-1/2}$")


def figure_predictors(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Kappa of every predictor in every model, beside sign q against the base rate."""
    return page(venue, 3.3, (draw_kappa, draw_agreement), tree)


def figure_training(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Through training: what S_B and S_C can decide in every layer, and what moves tokens."""
    return page(venue, 2.3, (draw_chi, draw_shares), tree, legend=4)


def figure_depth(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Rates at finite depth: growth by layer, critical depth, norms against the convergent law."""
    return page(venue, 2.1, (draw_growth, draw_t_c, draw_depth), tree, columns=3, legend=4)


FIGURES: dict[str, Callable[[xr.DataTree, str], Figure]] = {
    "predictors": figure_predictors,
    "training": figure_training,
    "depth": figure_depth,
}
