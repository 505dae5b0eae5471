"""Panels and figures of the experiment ``token_dynamics``.

`draw_x(tree, ax)` puts one quantity into one panel; `figure_x(tree, venue)` arranges panels into a figure. `tree` is
the experiment's DataTree (docs/schema.md). Where a quantity has an interval it is drawn; with a number stands a status
word: *measured* (a number, no claim), *confirmed* (an identity that held to rounding), *evidence* or *no evidence*
(above both the base rate and the permutation interval, or not).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.plotting.panels import (
    arrange,
    band,
    cell_edges,
    heading,
    integer_axis,
    intervals,
    label_size,
    legend_above,
    page,
    read,
    read_labels,
)
from ssmtheory.plotting.style import (
    FAINT,
    INK,
    LINE_STYLES,
    OKABE_ITO,
    SEQUENTIAL,
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

__all__ = [
    "FIGURES",
    "draw_anchor_excess",
    "draw_angular_speed",
    "draw_attention",
    "draw_clustering",
    "draw_concordance",
    "draw_cosine_matrix",
    "draw_decay_histogram",
    "draw_delta_histogram",
    "draw_eigenvalues",
    "draw_growth",
    "draw_horizon",
    "draw_kappa",
    "draw_layer_concordance",
    "draw_loss",
    "draw_norms",
    "draw_q_positive",
    "draw_radial_rate",
    "draw_radial_split",
    "draw_state_rms",
    "draw_symmetric_spectrum",
    "figure_attention",
    "figure_clustering",
    "figure_concordance",
    "figure_norms",
    "figure_overview",
    "figure_spectra",
    "figure_steps",
]

# How a predictor of the sign of g is written in a figure.
_SYMBOLS = {
    "q": r"$q$",
    "kappa": r"$\kappa(1)$",
    "A_Delta": r"$A_\Delta$",
    "g_skip": r"$g_\mathrm{skip}$",
    "g_self": r"$g_\mathrm{self}$",
    "g_hist": r"$g_\mathrm{hist}$",
    "g_self+g_hist": r"$g_\mathrm{self}+g_\mathrm{hist}$",
}


# ---------------------------------------------------------------------------------------------------- helpers


def _layers(tree: xr.DataTree) -> np.ndarray:
    return read_labels(tree, "layers/growth", "layer")


def _tokens_of(array: np.ndarray) -> np.ndarray:
    """(sequence, layer, token) -> (layer, sequence * token)."""
    return np.moveaxis(array, 1, 0).reshape(array.shape[1], -1)


def _symbol(name: str) -> str:
    return _SYMBOLS.get(name, name)


def _evidence(flag: int) -> str:
    return "evidence" if flag else "no evidence"


# ---------------------------------------------------------------------------------------------------- panels


def draw_norms(tree: xr.DataTree, ax: Axes) -> None:
    """Norm of the residual stream through depth: median over tokens, 5-95 % and 25-75 % bands (logarithmic)."""
    norms = _tokens_of(read(tree, "tokens/residual_norm"))
    depth = read_labels(tree, "tokens/residual_norm", "depth")
    q05, q25, q50, q75, q95 = np.nanquantile(norms, (0.05, 0.25, 0.5, 0.75, 0.95), axis=1)
    colour = OKABE_ITO[0]
    band(ax, depth, q05, q95, colour, 0.16)
    band(ax, depth, q25, q75, colour, 0.3)
    ax.plot(depth, q50, color=colour, marker="o")
    ax.set_yscale("log")
    plain_log_ticks(ax.yaxis, float(q05.min()), float(q95.max()))
    integer_axis(ax, "x", "depth (blocks passed)")
    ax.set_ylabel(r"norm $|r|$ of a token")
    heading(ax, "Norms", "measured: median, 50, 90 %")


def draw_radial_rate(tree: xr.DataTree, ax: Axes) -> None:
    """Radial rate g of every layer: median over tokens, 50 % and 90 % bands; above zero tokens move outwards."""
    rate = _tokens_of(read(tree, "tokens/radial_rate"))
    layers = _layers(tree)
    q05, q25, q50, q75, q95 = np.nanquantile(rate, (0.05, 0.25, 0.5, 0.75, 0.95), axis=1)
    colour = OKABE_ITO[1]
    ax.axhline(0, color=FAINT, linewidth=0.6)
    band(ax, layers, q05, q95, colour, 0.16)
    band(ax, layers, q25, q75, colour, 0.3)
    ax.plot(layers, q50, color=colour, marker="s")
    integer_axis(ax, "x", "layer")
    ax.set_ylabel(r"$g=\langle r,\delta r\rangle/|r|^2$")
    heading(ax, "Radial rate", "measured: median, 50, 90 %")


def draw_radial_split(tree: xr.DataTree, ax: Axes) -> None:
    """The exact parts of the radial rate, mean over tokens: the skip D u, the token's own write, the carried state."""
    layers = _layers(tree)
    ax.axhline(0, color=FAINT, linewidth=0.6)
    for i, (name, label) in enumerate((("g_skip", "skip"), ("g_self", "self"), ("g_hist", "history"))):
        mean = np.nanmean(_tokens_of(read(tree, f"tokens/{name}")), axis=1)
        ax.plot(layers, mean, label=label, **series_style(i, marker=True))
    total = np.nanmean(_tokens_of(read(tree, "tokens/radial_rate")), axis=1)
    ax.plot(layers, total, color=INK, linewidth=0.8, label=r"sum $g$")
    residual = float(np.nanmax(read(tree, "layers/split_residual")))
    integer_axis(ax, "x", "layer")
    ax.set_ylabel("mean part of $g$")
    # float32 datasets close the identity to a few units of rounding; a larger gap is a measured defect, not an identity
    word = "confirmed" if residual < 1e-4 else "differs"
    heading(ax, "Parts of $g$", f"{word}: gap {residual:.0e}", legend_rows=1)
    legend_above(ax)


def draw_angular_speed(tree: xr.DataTree, ax: Axes) -> None:
    """Angle by which a layer turns a token: median over tokens, 50 % and 90 % bands [degree]."""
    angle = np.degrees(_tokens_of(read(tree, "tokens/angular_speed")))
    layers = _layers(tree)
    q05, q25, q50, q75, q95 = np.nanquantile(angle, (0.05, 0.25, 0.5, 0.75, 0.95), axis=1)
    colour = OKABE_ITO[2]
    band(ax, layers, q05, q95, colour, 0.16)
    band(ax, layers, q25, q75, colour, 0.3)
    ax.plot(layers, q50, color=colour, marker="^")
    ax.set_ylim(bottom=0)
    integer_axis(ax, "x", "layer")
    ax.set_ylabel("angle per layer [degree]")
    heading(ax, "Turning", "measured: median, 50, 90 %")


def draw_eigenvalues(tree: xr.DataTree, ax: Axes, *, bar: bool = True) -> None:
    """Complex eigenvalues of S_B S_C^T: the non-zero spectrum of the input-output matrix, coloured by layer."""
    values = read(tree, "layers/eig_input_output")
    layers = _layers(tree)
    colours, mappable = sequential_colours(layers)
    ax.axhline(0, color=FAINT, linewidth=0.5)
    ax.axvline(0, color=FAINT, linewidth=0.5)
    for row, colour in zip(values, colours, strict=True):
        ax.scatter(row.real, row.imag, s=7, color=colour, linewidths=0, alpha=0.85)
    scale = float(np.nanmax(np.abs(values)))
    # symlog: a trained model's largest eigenvalues are far beyond the rest
    threshold = max(float(np.nanquantile(np.abs(values), 0.25)), scale * 1e-3) if scale > 0 else 1.0
    if scale > 30 * threshold:
        for which in ("x", "y"):
            _symlog(ax, which, threshold, scale)
    ax.margins(0.08)
    ax.set_xlabel("real part")
    ax.set_ylabel("imaginary part")
    heading(ax, r"Eigenvalues of $S_B S_C^T$", "measured")
    if bar:
        small_bar(ax, mappable, "layer")


def _symlog(ax: Axes, which: str, threshold: float, scale: float) -> None:
    """Symmetric logarithmic axis with at most five labelled ticks: -10^b, -10^a, 0, 10^a, 10^b."""
    from matplotlib.ticker import FixedLocator, NullLocator

    low = int(np.ceil(np.log10(threshold)))
    high = max(int(np.floor(np.log10(scale))), low)
    powers = sorted({low, high})
    if which == "x":
        ax.set_xscale("symlog", linthresh=threshold, linscale=0.5)
    else:
        ax.set_yscale("symlog", linthresh=threshold, linscale=0.5)
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_locator(FixedLocator([*(-(10.0**p) for p in reversed(powers)), 0.0, *(10.0**p for p in powers)]))
    axis.set_minor_locator(NullLocator())


def draw_symmetric_spectrum(tree: xr.DataTree, ax: Axes) -> None:
    """Sizes of the 2N non-zero eigenvalues of (M + M^T)/2 by layer; by inertia N are positive and N negative."""
    values = read(tree, "layers/eig_symmetric")
    layers = _layers(tree)
    positive, negative = (values > 0).sum(axis=1), (values < 0).sum(axis=1)
    gap = 0.18 * (float(np.diff(layers).min()) if len(layers) > 1 else 1.0)
    for sign, label, marker, colour in ((1, "positive", "o", OKABE_ITO[0]), (-1, "negative", "s", OKABE_ITO[1])):
        rows, columns = np.nonzero(sign * values > 0)
        face = colour if sign > 0 else "none"
        ax.scatter(
            layers[rows] + sign * gap,
            np.abs(values[rows, columns]),
            s=6,
            marker=marker,
            facecolors=face,
            edgecolors=colour,
            linewidths=0.5,
            label=label,
        )
    ax.set_yscale("log")
    integer_axis(ax, "x", "layer")
    ax.set_ylabel(r"eigenvalues $|\lambda|$")
    half = values.shape[1] // 2
    held = bool(((positive == half) & (negative == half)).all())
    word = f"confirmed: {half} + and {half} \N{MINUS SIGN}" if held else "inertia is not (N, N)"
    heading(ax, r"$(M+M^T)/2$", word, legend_rows=1)
    legend_above(ax)


def draw_q_positive(tree: xr.DataTree, ax: Axes) -> None:
    """Fraction of tokens with q(u) > 0 by layer, with its 95 % interval, beside the fraction that moves outwards."""
    layers = _layers(tree)
    ax.axhline(0.5, color=FAINT, linewidth=0.6)
    fraction = read(tree, "layers/q_positive_fraction")
    bars = intervals(
        ax, layers, read(tree, "layers/q_positive_low"), read(tree, "layers/q_positive_high"), OKABE_ITO[0]
    )
    ax.plot(layers, fraction, label="$q>0$ (theory)", **series_style(0, marker=True))
    ax.plot(layers, read(tree, "layers/g_positive_fraction"), label="$g>0$ (real)", **series_style(1, marker=True))
    ax.set_ylim(-0.03, 1.03)
    integer_axis(ax, "x", "layer")
    ax.set_ylabel("fraction of tokens")
    heading(ax, "Tokens going outwards", "measured, 95 %" if bars else "measured, no interval", legend_rows=1)
    legend_above(ax, ncols=2)


def draw_growth(tree: xr.DataTree, ax: Axes) -> None:
    """Mean growth of ln |r| in every layer with its 95 % interval; the marker tells the predicted scenario."""
    layers, growth = _layers(tree), read(tree, "layers/growth")
    predicted = read(tree, "layers/predicted_scenario")
    ax.axhline(0, color=FAINT, linewidth=0.6)
    bars = intervals(ax, layers, read(tree, "layers/growth_low"), read(tree, "layers/growth_high"), INK)
    ax.plot(layers, growth, color=FAINT, linewidth=0.6, zorder=1)
    kinds = ((1, "divergent", "^", OKABE_ITO[1]), (0, "undecided", "o", INK), (-1, "convergent", "v", OKABE_ITO[0]))
    for code, label, marker, colour in kinds:
        chosen = predicted == code
        if chosen.any():
            ax.plot(layers[chosen], growth[chosen], marker, color=colour, markersize=4, label=label)
    ax.margins(y=0.12)
    integer_axis(ax, "x", "layer")
    ax.set_ylabel(r"mean $\ln|r'|/|r|$")
    heading(ax, "Growth", "measured, 95 %; marker: predicted" if bars else "measured; marker: predicted", legend_rows=1)
    legend_above(ax, ncols=3)


def draw_kappa(tree: xr.DataTree, ax: Axes, *, bar: bool = True) -> None:
    """Kernel kappa(lag), mean over channels, over the layer's largest value; a change of sign breaks the dichotomy."""
    kappa = np.nanmean(read(tree, "channels/kappa"), axis=2)
    lags = read_labels(tree, "channels/kappa", "lag")
    layers = _layers(tree)
    colours, mappable = sequential_colours(layers)
    ax.axhline(0, color=FAINT, linewidth=0.6)
    scale = np.nanmax(np.abs(kappa), axis=1, keepdims=True)
    for row, colour in zip(kappa / np.where(scale > 0, scale, 1.0), colours, strict=True):
        ax.plot(lags, row, color=colour, linewidth=0.9, marker="o", markersize=1.8)
    if lags.min() > 0:
        ax.set_xscale("log", base=2)
        _lag_ticks(ax, lags)
    else:
        ax.set_xscale("symlog", base=2, linthresh=1, linscale=0.5)
        _lag_ticks(ax, lags)
    ax.set_xlabel("lag [token]")
    ax.set_ylabel(r"$\bar\kappa$ / largest $|\bar\kappa|$")
    changed = float(np.nanmean(read(tree, "layers/kappa_sign_change")))
    heading(ax, "Kernel", f"{100 * changed:.0f} % of channels flip sign")
    if bar:
        small_bar(ax, mappable, "layer")


def _lag_ticks(ax: Axes, lags: np.ndarray) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    step = max(1, -(-len(lags) // 6))
    ax.xaxis.set_major_locator(FixedLocator([float(v) for v in lags[::step]]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.xaxis.set_minor_locator(NullLocator())


def _histogram(tree: xr.DataTree, ax: Axes, name: str, *, octaves: bool) -> Any:
    """Layer by bin heat map of a density: the share per octave (``octaves``) or per bin. Empty cells stay white.

    Shares per bin get logarithmic colours: of a trained model's decays, most lie in the last bin.

    Bins at both ends that hold less than 1e-5 of every layer are cut off; more than 120 bins are drawn in groups.
    """
    from matplotlib.colors import LogNorm, Normalize

    count = read(tree, f"channels/{name}_histogram").astype(float)
    low, high = read(tree, f"channels/{name}_bin_lower"), read(tree, f"channels/{name}_bin_upper")
    share = count / np.maximum(count.sum(axis=1, keepdims=True), 1)
    used = np.nonzero((share > 1e-5).any(axis=0))[0]
    first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, count.shape[1])
    group = -(-(last - first) // 120)
    starts = np.arange(first, last, group)
    share = np.add.reduceat(share[:, :last], starts, axis=1)
    edges = np.append(low[starts], high[last - 1])
    if octaves:
        # bins of a logarithmic histogram need not be equally wide on that scale
        share = share / np.diff(np.log2(edges))
    top = float(share.max()) or 1.0
    norm = Normalize(0, top) if octaves else LogNorm(min(1e-4, top / 10), top)
    cells = np.ma.masked_equal(share, 0)
    mesh = ax.pcolormesh(edges, cell_edges(_layers(tree)), cells, cmap=SEQUENTIAL, norm=norm, rasterized=True)
    integer_axis(ax, "y", "layer")
    return mesh


def _share_bar(ax: Axes, mesh: Any, label: str) -> None:
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

    bar = small_bar(ax, mesh, label, integer=False)
    if isinstance(mesh.norm, LogNorm):
        bar.ax.yaxis.set_minor_locator(NullLocator())
    else:
        bar.ax.yaxis.set_major_locator(MaxNLocator(nbins=4))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g} %"))


def draw_delta_histogram(tree: xr.DataTree, ax: Axes) -> None:
    """Distribution of the step Delta over tokens and channels, one row per layer."""
    mesh = _histogram(tree, ax, "delta", octaves=True)
    ax.set_xscale("log")
    ax.set_xlabel(r"step $\Delta$")
    heading(ax, r"Step $\Delta$ by layer", "measured")
    _share_bar(ax, mesh, "share per octave")


def draw_decay_histogram(tree: xr.DataTree, ax: Axes) -> None:
    """Distribution of the decay exp(Delta A) over tokens, channels and states, one row per layer."""
    mesh = _histogram(tree, ax, "decay", octaves=False)
    ax.set_xlabel(r"decay $\exp(\Delta A)$ per token")
    heading(ax, "Decay by layer", "measured")
    _share_bar(ax, mesh, "share per bin")


def draw_horizon(tree: xr.DataTree, ax: Axes) -> None:
    """Memory of channels and states by layer: horizon 1/(-A mean Delta), effective receptive field; 90 % bands."""
    layers = _layers(tree)
    for i, (name, label) in enumerate((("horizon", "horizon"), ("erf", "receptive field"))):
        values = read(tree, f"channels/{name}").reshape(len(layers), -1)
        values = np.where(values > 0, values, np.nan)
        q05, q50, q95 = np.nanquantile(values, (0.05, 0.5, 0.95), axis=1)
        if i == 0:
            band(ax, layers, q05, q95, OKABE_ITO[i], 0.18)
        else:  # a second filled band would hide the first
            for edge in (q05, q95):
                ax.plot(layers, edge, color=OKABE_ITO[i], linewidth=0.5, linestyle=LINE_STYLES[2])
        ax.plot(layers, q50, label=label, **series_style(i, marker=True))
    ax.set_yscale("log")
    integer_axis(ax, "x", "layer")
    ax.set_ylabel("memory [token]")
    heading(ax, "Memory", "measured: median, 90 %", legend_rows=1)
    legend_above(ax)


def draw_state_rms(tree: xr.DataTree, ax: Axes, *, bar: bool = True) -> None:
    """Root mean square of the state against position, in units of its last bin: saturated where the curve is flat."""
    rms = read(tree, "layers/state_rms_by_position")
    middle = (read(tree, "layers/position_lower") + read(tree, "layers/position_upper") - 1) / 2
    layers = _layers(tree)
    colours, mappable = sequential_colours(layers)
    ax.axhline(1, color=FAINT, linewidth=0.6)
    for row, colour in zip(rms, colours, strict=True):
        relative = row / row[-1] if row[-1] > 0 else row
        ax.plot(middle + 1, relative, color=colour, linewidth=0.9, marker="o", markersize=1.8)
    ax.set_xscale("log")
    ax.set_ylim(bottom=0)
    ax.set_xlabel("position [token]")
    ax.set_ylabel("state RMS / last bin")
    heading(ax, "State size by position", "measured")
    if bar:
        small_bar(ax, mappable, "layer")


def draw_concordance(tree: xr.DataTree, ax: Axes) -> None:
    """Pooled kappa of every predictor of sign g: estimate, bootstrap interval, permutation interval.

    At the right: how often the signs agree, to be compared with the base rate in the title, and the status word.
    Evidence asks for both: above the permutation interval, and more often right than always naming a layer's majority.
    """
    names = [str(name) for name in read_labels(tree, "concordance/kappa", "predictor")]
    kappa, flags = read(tree, "concordance/kappa"), read(tree, "concordance/pooled_evidence")
    low, high = read(tree, "concordance/kappa_low"), read(tree, "concordance/kappa_high")
    null_low, null_high = read(tree, "concordance/kappa_null_low"), read(tree, "concordance/kappa_null_high")
    y = np.arange(len(names))[::-1]
    ax.axvline(0, color=FAINT, linewidth=0.6)
    ax.hlines(y, null_low, null_high, color="#BBBBBB", linewidth=5)
    bars = np.isfinite(low).any()
    ax.hlines(y, low, high, color=OKABE_ITO[0], linewidth=1.2, label="estimate, 95 %" if bars else "estimate")
    agree = read(tree, "concordance/pooled_concordance")
    base = float(read(tree, "concordance/pooled_baseline"))
    for yi, value, share, flag in zip(y, kappa, agree, flags, strict=True):
        face = OKABE_ITO[0] if flag else "white"
        ax.plot([value], [yi], marker="o", color=OKABE_ITO[0], markerfacecolor=face, markersize=4)
        ax.text(
            1.02,
            yi,
            f"{100 * share:.0f} % {_evidence(int(flag))}",
            transform=ax.get_yaxis_transform(),
            va="center",
            ha="left",
            fontsize=label_size(ax) - 1,
            style="italic",
            color="#555555",
        )
    ax.set_yticks(y, [_symbol(name) for name in names])
    ax.set_ylim(-0.6, len(names) - 0.4)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(r"$\kappa$: agreement beyond chance")
    heading(ax, "Predicting sign $g$", f"base rate {100 * base:.0f} %", legend_rows=1)
    legend_above(ax, ncols=2, swatch="permuted, 95 %")


def draw_layer_concordance(tree: xr.DataTree, ax: Axes, predictor: str = "q") -> None:
    """Concordance of one predictor by layer with its interval, beside the base rate and the permutation interval."""
    names = [str(name) for name in read_labels(tree, "concordance/kappa", "predictor")]
    if predictor not in names:
        raise InputError(f"no predictor '{predictor}' in the dataset: it has {', '.join(names)}.")
    k = names.index(predictor)
    layers = _layers(tree)
    c, low, high, null_low, null_high, flags = (
        read(tree, f"concordance/{name}")[:, k]
        for name in ("concordance", "concordance_low", "concordance_high", "null_low", "null_high", "evidence")
    )
    flags = flags.astype(bool)
    baseline, colour = read(tree, "concordance/majority_baseline"), OKABE_ITO[0]
    ax.vlines(layers, null_low, null_high, color="#BBBBBB", linewidth=5)
    for ends in (null_low, null_high):  # an interval too short to see is seen by its ends
        ax.plot(layers, ends, linestyle="none", marker="_", color="#999999", markersize=7)
    ax.plot(layers, baseline, color=INK, linestyle=LINE_STYLES[1], linewidth=0.9, label="base rate")
    intervals(ax, layers, low, high, colour)
    ax.plot(layers, c, "o", color=colour, markerfacecolor="white", label="agree")
    ax.plot(layers[flags], c[flags], "o", color=colour)
    ax.set_ylim(-0.03, 1.03)
    integer_axis(ax, "x", "layer")
    ax.set_ylabel("fraction of tokens")
    status = f"evidence in {int(flags.sum())} of {len(layers)}"
    heading(ax, f"Sign {_symbol(predictor)} and sign $g$", status, legend_rows=1)
    legend_above(ax, ncols=3, swatch="permuted, 95 %")


def draw_clustering(tree: xr.DataTree, ax: Axes) -> None:
    """Mean cosine of a sequence's tokens through depth; to their own first token, and to other sequences' (control)."""
    depth = read_labels(tree, "clustering/mean_cosine", "depth")
    ax.axhline(0, color=FAINT, linewidth=0.6)
    for i, (name, label) in enumerate(
        (("mean_cosine", "each other"), ("cosine_to_first", "own first"), ("cosine_to_other_first", "other first"))
    ):
        ax.plot(depth, read(tree, f"clustering/{name}"), label=label, **series_style(i, marker=True))
    integer_axis(ax, "x", "depth (blocks passed)")
    ax.set_ylabel("mean cosine to")
    heading(ax, "Clustering", "measured", legend_rows=1)
    legend_above(ax, ncols=3)


def draw_anchor_excess(tree: xr.DataTree, ax: Axes) -> None:
    """Cosine of late tokens to their own anchor token less that to other sequences' anchor, at the end of depth."""
    excess = read(tree, "clustering/anchor_excess")
    low, high = read(tree, "clustering/anchor_excess_low"), read(tree, "clustering/anchor_excess_high")
    depth = read_labels(tree, "clustering/anchor_excess", "depth")
    anchors = read_labels(tree, "clustering/anchor_excess", "anchor_token")
    ax.axhline(0, color=FAINT, linewidth=0.6)
    # the last is the control furthest from the first token; more than four curves would hide each other
    chosen = sorted({round(i) for i in np.linspace(0, len(anchors) - 1, min(4, len(anchors)))})
    for number, i in enumerate(chosen):
        at = depth + 0.16 * (number - (len(chosen) - 1) / 2)
        intervals(ax, at, low[:, i], high[:, i], OKABE_ITO[number])
        look = {**series_style(number, marker=True), "linewidth": 0.7}
        ax.plot(at, excess[:, i], label=f"token {anchors[i]}", **look)
    integer_axis(ax, "x", "depth (blocks passed)")
    ax.set_ylabel("own less other anchor")
    heading(ax, "Pull of the anchor token", "95 %" if np.isfinite(low).any() else "no interval", legend_rows=1)
    legend_above(ax, ncols=4)


def draw_cosine_matrix(tree: xr.DataTree, ax: Axes, depth_index: int) -> Any:
    """Cosine matrix of one sequence's tokens at one depth; returns the image for a colour bar."""
    matrix = read(tree, "clustering/cosine")[depth_index]
    labels = read_labels(tree, "clustering/cosine", "token_i")
    depth = read_labels(tree, "clustering/cosine", "depth")[depth_index]
    edges = _token_edges(labels)
    mesh = ax.pcolormesh(edges, edges, matrix, cmap="viridis", vmin=-1, vmax=1, rasterized=True)
    _square(ax)
    ax.set_title(f"depth {depth}", loc="left")
    return mesh


def _token_edges(labels: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels, dtype=float)
    gap = float(np.diff(labels).mean()) if len(labels) > 1 else 1.0
    return np.concatenate([labels - gap / 2, [labels[-1] + gap / 2]])


def _square(ax: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_aspect("equal")
    ax.invert_yaxis()
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=3, integer=True))


def draw_attention(
    tree: xr.DataTree, ax: Axes, layer_index: int, *, signed: bool = False, limits: tuple[float, float] | None = None
) -> Any:
    """Hidden attention P_ij of one layer: the mean of |P| over channels (logarithmic), or how far its signs agree.

    Args:
        tree: the dataset.
        ax: the panel.
        layer_index: position along the dataset's layers.
        signed: draw mean(P)/mean(|P|) in [-1, 1] instead: 1 where all channels agree on plus, 0 where they cancel.
        limits: range of the logarithmic colours; by default the largest value and four decades below it.

    Returns:
        the mesh, for a colour bar.
    """
    from matplotlib.colors import LogNorm

    size = read(tree, "attention/map_abs")[layer_index]
    labels = read_labels(tree, "attention/map_abs", "token_i")
    edges = _token_edges(labels)
    causal = np.tril(np.ones_like(size, dtype=bool))
    ax.set_facecolor("#EEEEEE")
    if signed:
        mean = read(tree, "attention/map")[layer_index]
        value = np.divide(mean, size, out=np.zeros_like(mean), where=size > 0)
        value = np.ma.masked_where(~causal, value)
        mesh = ax.pcolormesh(edges, edges, value, cmap="PuOr_r", vmin=-1, vmax=1, rasterized=True)
    else:
        low, high = limits or attention_limits(size)
        value = np.ma.masked_where(~causal, np.clip(size, low, high))
        mesh = ax.pcolormesh(edges, edges, value, cmap=SEQUENTIAL, norm=LogNorm(low, high), rasterized=True)
    _square(ax)
    return mesh


def attention_limits(size: np.ndarray) -> tuple[float, float]:
    """Colour range for |P|: from the 99.9 % point of the positive entries down four decades."""
    positive = size[size > 0]
    high = float(np.quantile(positive, 0.999)) if len(positive) else 1.0
    return high * 1e-4, high


def draw_loss(tree: xr.DataTree, ax: Axes) -> None:
    """Loss of the next token by position: mean over sequences and ranges of positions, 1.96 standard errors."""
    loss = read(tree, "tokens/loss_bits")
    n = loss.shape[1]
    edges = np.unique(np.round(np.geomspace(1, n, 13)).astype(int) - 1)
    mean, low, high, at = [], [], [], []
    for a, b in itertools.pairwise(edges):
        part = loss[:, a:b]
        if not np.isfinite(part).any():
            continue
        each = np.nanmean(part, axis=1)
        error = 1.96 * np.nanstd(each, ddof=1) / np.sqrt(len(each)) if len(each) > 1 else np.nan
        at.append((a + b - 1) / 2 + 1)
        mean.append(np.nanmean(each))
        low.append(mean[-1] - error)
        high.append(mean[-1] + error)
    colour = OKABE_ITO[3]
    bars = intervals(ax, np.array(at), np.array(low), np.array(high), colour)
    ax.plot(at, mean, color=colour, marker="D")
    ax.set_xscale("log")
    ax.set_ylim(bottom=0)
    ax.set_xlabel("position [token]")
    ax.set_ylabel("loss [bit/token]")
    heading(ax, "Loss by position", "mean, 95 %" if bars else "one sequence")


# ---------------------------------------------------------------------------------------------------- figures


def figure_attention(tree: xr.DataTree, venue: str = "screen", *, layers: Sequence[int] | None = None) -> Figure:
    """F4: hidden-attention heat maps of up to four layers: size (top) and agreement of signs over channels (bottom).

    Args:
        tree: dataset of token_dynamics.
        venue: key of :data:`ssmtheory.plotting.style.VENUES`.
        layers: layer labels to show; by default four, evenly spaced from first to last.
    """
    labels = [int(v) for v in _layers(tree)]
    if layers is None:
        chosen = sorted({round(i) for i in np.linspace(0, len(labels) - 1, min(4, len(labels)))})
    else:
        missing = [v for v in layers if v not in labels]
        if missing:
            raise InputError(f"the dataset has no layer {missing[0]}: it has {labels[0]} to {labels[-1]}.")
        chosen = [labels.index(v) for v in layers]
    limits = attention_limits(read(tree, "attention/map_abs")[chosen])
    with style(venue) as v:
        figure = new_figure(venue, height=2.9 * v.full / 5.5)
        axes = figure.subplots(2, len(chosen), sharex=True, sharey=True, squeeze=False)
        for column, index in enumerate(chosen):
            size = draw_attention(tree, axes[0, column], index, limits=limits)
            sign = draw_attention(tree, axes[1, column], index, signed=True)
            axes[0, column].set_title(f"layer {labels[index]}", loc="left")
        # shared axes were inverted once per panel: fix the direction once for all
        edges = _token_edges(read_labels(tree, "attention/map_abs", "token_i"))
        axes[0, 0].set_ylim(edges[-1], edges[0])
        for row in axes[:, 0]:
            row.set_ylabel("to token $i$")
        for ax in axes[-1]:
            ax.set_xlabel("from token $j$")
        small_bar(list(axes[0]), size, r"mean $|P_{ij}|$ (measured)", integer=False, aspect=14, extend="both")
        small_bar(list(axes[1]), sign, r"mean $P_{ij}$ / mean $|P_{ij}|$", integer=False, aspect=14)
    return figure


def figure_spectra(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """F5: what the weights say (two spectra), what the data say (sign of q), and the kernel that replaces mu."""
    return page(venue, 4.1, (draw_eigenvalues, draw_symmetric_spectrum, draw_q_positive, draw_kappa), tree)


def figure_norms(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """F6: norms through depth, radial rate, its exact parts, and the angle a layer turns a token by."""
    return page(venue, 3.9, (draw_norms, draw_radial_rate, draw_radial_split, draw_angular_speed), tree)


def figure_steps(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """F7: distributions of Delta and of the decay by layer, memory, and state size against position."""
    return page(venue, 3.9, (draw_delta_histogram, draw_decay_histogram, draw_horizon, draw_state_rms), tree)


def figure_concordance(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """The test of the theory: does the sign of q, or of any part, predict whether a token moves outwards?"""
    return page(venue, 2.2, (draw_concordance, draw_layer_concordance), tree)


def figure_clustering(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Do tokens cluster through depth: mean cosines with their control, the anchor's pull, three cosine matrices."""
    depth = len(read_labels(tree, "clustering/mean_cosine", "depth"))
    with style(venue) as v:
        figure = new_figure(venue, height=3.9 * v.full / 5.5)
        top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1)).ravel()
        left, right = top.subplots(1, 2)
        draw_clustering(tree, left)
        draw_anchor_excess(tree, right)
        axes = bottom.subplots(1, 3, sharey=True)
        for ax, index in zip(axes, (0, depth // 2, depth - 1), strict=True):
            mesh = draw_cosine_matrix(tree, ax, index)
            ax.set_xlabel("token $j$")
        edges = _token_edges(read_labels(tree, "clustering/cosine", "token_i"))
        axes[0].set_ylim(edges[-1], edges[0])
        axes[0].set_ylabel("token $i$")
        small_bar(list(axes), mesh, "cosine (measured)", integer=False, aspect=14)
        panel_letters([left, right, *axes])
    return figure


def _subject(tree: xr.DataTree) -> str:
    """One line: model, layers, text, loss; taken from the dataset, so that a figure without a caption can be read."""
    try:
        config = json.loads(tree.attrs.get("config", "{}"))
    except ValueError:
        config = {}
    model = config.get("model")
    name = model.get("name") if isinstance(model, dict) else model
    sequences, layers, tokens = tree["tokens/radial_rate"].shape
    bits = read(tree, "text/bits_per_byte")
    unit = "byte"
    if not np.isfinite(bits).any():
        bits, unit = read(tree, "text/bits_per_token"), "token"
    loss = f", {np.nanmean(bits):.2f} bit/{unit}" if np.isfinite(bits).any() else ""
    return f"{name or 'model'}: {layers} layers, {sequences} x {tokens} tokens{loss}"


def figure_overview(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """One page: loss, norms, rates, the theory's prediction against what happened, steps, memory, clustering."""
    draws = (
        draw_loss,
        draw_norms,
        draw_radial_split,
        draw_growth,
        draw_q_positive,
        draw_layer_concordance,
        draw_concordance,
        draw_kappa,
        draw_delta_histogram,
        draw_decay_histogram,
        draw_horizon,
        draw_clustering,
    )
    with style(venue) as v:
        figure = new_figure(venue, height=min(8.6 * v.full / 5.5, v.max_height))
        arrange(figure, tree, draws)
        figure.suptitle(_subject(tree), x=0.01, ha="left")
    return figure


FIGURES: dict[str, Callable[[xr.DataTree, str], Figure]] = {
    "overview": figure_overview,
    "attention": figure_attention,
    "spectra": figure_spectra,
    "norms": figure_norms,
    "steps": figure_steps,
    "concordance": figure_concordance,
    "clustering": figure_clustering,
}
