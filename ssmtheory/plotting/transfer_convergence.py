"""Panels and figures of the experiment ``transfer_convergence``: how S4D, PTD and HiPPO-rho differ from LegS.

`draw_x(tree, ax)` puts one quantity into one panel; `figure_x(tree, venue)` arranges panels into a figure. With a
number stands how it is known: *proved*, *certified* (ball arithmetic), *bracketed* (floating point), *measured*.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.plotting import systems
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
    status_of,
)
from ssmtheory.plotting.style import (
    FAINT,
    INK,
    LINE_STYLES,
    MARKERS,
    OKABE_ITO,
    new_figure,
    panel_letters,
    plain_log_ticks,
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
    "GROUPS",
    "draw_abscissa",
    "draw_band_gap",
    "draw_bound_growth",
    "draw_conditioning",
    "draw_deviation_epsilon",
    "draw_discrete_gap",
    "draw_frontier",
    "draw_frontier_epsilon",
    "draw_gain_beyond",
    "draw_gap",
    "draw_kappa",
    "draw_kappa_epsilon",
    "draw_l2_gap",
    "draw_portrait",
    "draw_prediction",
    "draw_product",
    "draw_response",
    "draw_scaled_error",
    "draw_spectrum",
    "draw_spectrum_error",
    "draw_spike_heights",
    "draw_spike_position",
    "draw_spike_residual",
    "draw_tightness",
    "draw_tightness_ratio",
    "draw_topologies",
    "draw_transient",
    "draw_worst_gap",
    "draw_worst_height",
    "draw_zoom",
    "figure_ablation",
    "figure_deviation",
    "figure_discrete",
    "figure_frontier",
    "figure_pseudospectra",
    "figure_response",
    "figure_robustness",
    "figure_spectrum",
    "figure_spikes",
    "figure_tightness",
    "figure_weak_strong",
]

S4D = "s4d-legs"
_DASH = LINE_STYLES[1]

# How the families of the frontier are drawn; what came first in the literature comes first in the legend.
_FAMILIES: dict[str, tuple[str, str, str]] = {
    "s4d": ("S4D-LegS", "*", INK),
    "ginibre": ("PTD, Ginibre", "o", OKABE_ITO[0]),
    "real": ("PTD, real", "s", OKABE_ITO[5]),
    "dissipative": ("PTD, dissipative", "^", OKABE_ITO[2]),
    "optimised": ("PTD, optimised (ours)", "D", OKABE_ITO[3]),
    "published": ("PTD, published objective", "v", OKABE_ITO[4]),
    "hippo-rho": (r"HiPPO-$\rho$ (ours)", "P", OKABE_ITO[1]),
    "hippo-rho-imaginary": (r"HiPPO-$\rho$, imaginary (ours)", "<", "#8C3B00"),
    "normal": ("normal (ours)", "X", "#555555"),
}
_NOT_PTD = ("s4d", "hippo-rho", "hippo-rho-imaginary", "normal")


# ---------------------------------------------------------------------------------------------------- helpers


def _inits(tree: xr.DataTree, path: str) -> list[str]:
    return [str(name) for name in read_labels(tree, path, "init")]


def _look(tree: xr.DataTree, name: str, others: Sequence[str], *, marker: bool = False) -> dict[str, Any]:
    """The look of an initialisation, the same in all figures of a dataset; LegS, the reference, is black."""
    if name == "legs":
        return {"color": INK, "linestyle": "-", "linewidth": 0.9, **({"marker": "."} if marker else {})}
    first = _inits(tree, "gaps/sup") if "gaps" in tree.children else []
    order = [*first, *(other for other in others if other not in first)]
    return series_style([other for other in order if other != "legs"].index(name), marker=marker)


def _place(tree: xr.DataTree, path: str, dim: str, label: Any) -> int:
    """Position of a label along a dimension."""
    labels = [v.item() if isinstance(v, np.generic) else v for v in read_labels(tree, path, dim)]
    if label not in labels:
        raise InputError(f"{path} has no {dim} {label}: it has {', '.join(str(v) for v in labels)}.")
    return labels.index(label)


def _some(count: int, most: int) -> list[int]:
    """At most `most` of 0..count-1, evenly spaced, with both ends."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(most, count))})


def _by_init(
    tree: xr.DataTree, ax: Axes, path: str, values: np.ndarray, *, skip: Sequence[str] = (), logarithmic: bool = True
) -> None:
    """One curve over N per initialisation; every figure gives an initialisation the same look."""
    sizes = state_dims(tree, path)
    names = _inits(tree, path)
    for row, name in zip(values, names, strict=True):
        if name in skip or not np.isfinite(row).any() or (logarithmic and not (row > 0).any()):
            continue
        ax.plot(sizes, row, label=init_name(name), **_look(tree, name, names, marker=True))
    if logarithmic:
        ax.set_yscale("log")
    size_axis(ax, sizes)


def _log_y(ax: Axes) -> None:
    ax.set_yscale("log")
    plain_log_ticks(ax.yaxis, *ax.get_ylim())


def _note(ax: Axes, x: float, y: float, text: str, **options: Any) -> None:
    """A word beside a reference line."""
    ax.annotate(
        text,
        (x, y),
        xytext=options.pop("xytext", (0, 2)),
        textcoords="offset points",
        fontsize=label_size(ax) - 1,
        color="#555555",
        **options,
    )


# ---------------------------------------------------------------------------------------------------- response


def draw_response(tree: xr.DataTree, ax: Axes, *, init: str = S4D) -> None:
    """Gain of one output over frequency, LegS and one other initialisation at several N (arXiv 2310.01698, Fig. 1)."""
    path = "response/magnitude"
    omega = read(tree, "response/omega")
    values, sizes = read(tree, path)[_place(tree, path, "init", init)], state_dims(tree, path)
    # drawn from the largest N: the spikes of the small ones, further left, stay on top
    for number, i in reversed(list(enumerate(_some(len(sizes), 4)))):
        look = {**series_style(number), "linestyle": "-", "linewidth": 0.7}
        ax.plot(omega, values[i], label=f"$N={sizes[i]}$", rasterized=len(omega) > 5000, **look)
    ax.plot(omega, read(tree, "response/legs_magnitude"), color=INK, linewidth=1.4, linestyle=_DASH, label="LegS")
    ax.set_xscale("log")
    ax.set_ylim(bottom=0)
    ax.set_xlabel(r"frequency $\omega$ [rad/s]")
    ax.set_ylabel(r"$|G(\mathrm{i}\omega)|$, output 0")
    heading(ax, init_name(init), "closed form", legend_rows=2)
    legend_above(ax, 3, reverse=True)


def draw_zoom(tree: xr.DataTree, ax: Axes, *, init: str = S4D) -> None:
    """The last spike at several N, against the distance from its place: height 2/pi and half-width 1/2 at every N."""
    path = "response/zoom_magnitude"
    offset, sizes = read_labels(tree, path, "offset").astype(float), state_dims(tree, path)
    values = read(tree, path)[_place(tree, path, "init", init)]
    legs = read(tree, "response/legs_zoom_magnitude")
    ax.axhline(2 / np.pi, color=FAINT, linewidth=0.6)
    _note(ax, offset[0], 2 / np.pi, r"$2/\pi$")
    for number, i in enumerate(_some(len(sizes), 4)):
        ax.plot(offset, values[i], label=f"$N={sizes[i]}$", **series_style(number))
        ax.plot(offset, legs[i], color=INK, linewidth=0.8, linestyle=_DASH)
    ax.set_ylim(0, 1.15 * max(2 / np.pi, float(np.nanmax(values))))
    ax.set_xlabel(r"$\omega$ less the last spike's place [rad/s]")
    ax.set_ylabel(r"$|G(\mathrm{i}\omega)|$, output 0")
    heading(ax, "Last spike", "LegS dashed")


# ---------------------------------------------------------------------------------------------------- deviation


def draw_gap(tree: xr.DataTree, ax: Axes, *, output: int = 0) -> None:
    """sup over frequency of |G - G_LegS| for one output against N: S4D stays at 2/pi (output 0), HiPPO-rho falls."""
    path = "gaps/sup"
    column = _place(tree, path, "output", output)
    _by_init(tree, ax, path, read(tree, path)[:, :, column])
    ax.axhline(2 * np.sqrt(2 * output + 1) / np.pi, color=FAINT, linewidth=0.6)
    ax.set_ylabel(rf"$\sup_\omega|G-G_\mathrm{{LegS}}|$, output {output}")
    known = read(tree, "gaps/evidence")[:, :, column]
    good = known[np.isfinite(read(tree, path)[:, :, column])]
    heading(ax, "One output", f"certified {int((good >= 2).sum())} of {good.size}")


def draw_worst_gap(tree: xr.DataTree, ax: Axes) -> None:
    """sup over frequency and unit C of |C(X - X_LegS)| against N; thin lines: our bound, where there is one."""
    path = "gaps/worst_sup"
    _by_init(tree, ax, path, read(tree, path))
    sizes, bounds = state_dims(tree, path), read(tree, "gaps/deviation_bound")
    names = _inits(tree, path)
    for bound, name in zip(bounds, names, strict=True):
        ax.plot(sizes, bound, **{**_look(tree, name, names), "linewidth": 0.6})
    ax.plot(sizes, 2 * sizes / np.pi, color=FAINT, linewidth=0.6)
    ax.set_ylabel(r"$\sup_\omega\Vert X-X_\mathrm{LegS}\Vert$")
    known = read(tree, "gaps/worst_evidence")[np.isfinite(read(tree, path))]
    heading(ax, "Worst unit $C$", f"certified {int((known >= 2).sum())} of {known.size}")


def draw_kappa(tree: xr.DataTree, ax: Axes) -> None:
    """Eigenvector condition number against N: exponential for LegS itself, 1 for S4D, bounded for HiPPO-rho."""
    path = "gaps/kappa"
    _by_init(tree, ax, path, read(tree, path))
    ax.set_ylabel(r"$\kappa_2(V)$")
    heading(ax, "Conditioning", status_of(tree, "gaps/kappa_evidence", np.isfinite(read(tree, path))))


def draw_abscissa(tree: xr.DataTree, ax: Axes) -> None:
    """Largest real part of a pole against N; above zero a system is unstable."""
    path = "gaps/spectral_abscissa"
    values = read(tree, path)
    ax.axhline(0, color=INK, linewidth=0.8, linestyle=_DASH)
    _by_init(tree, ax, path, values, logarithmic=False)
    ax.set_ylabel(r"$\max\,\mathrm{Re}\,\lambda$ [1/s]")
    unstable = int((values >= 0).sum())
    heading(ax, "Spectral abscissa", f"unstable: {unstable} of {int(np.isfinite(values).sum())}")


def draw_l2_gap(tree: xr.DataTree, ax: Axes, *, output: int = 0, legend: bool = False) -> None:
    """L2 distance of the kernels of one output against N; circles: our closed formula."""
    path = "gaps/l2_gap"
    column = _place(tree, path, "output", output)
    _by_init(tree, ax, path, read(tree, path)[:, :, column])
    exact, sizes = read(tree, "gaps/l2_exact")[:, :, column], state_dims(tree, path)
    shown = np.isfinite(exact)
    for row in exact[shown.any(axis=1)]:
        ax.plot(sizes, row, linestyle="none", marker="o", markersize=6, markerfacecolor="none", color=INK, mew=0.5)
    ax.set_ylabel(rf"$\Vert K-K_\mathrm{{LegS}}\Vert_{{L^2}}$, output {output}")
    status = "measured"
    if shown.any():
        error = np.abs(read(tree, path)[:, :, column] - exact)[shown].max()
        status = f"formula proved: off {error:.0e}"
    heading(ax, "Kernels in $L^2$", status, legend_rows=3 if legend else 0)
    if legend:
        legend_above(ax, 2)


# ---------------------------------------------------------------------------------------------------- weak and strong


_SIGNALS = {
    "exponential": r"$\mathrm{e}^{-t}$",
    "smooth-2": r"$t\,\mathrm{e}^{-t}$",
    "smooth-3": r"$t^2\,\mathrm{e}^{-t}$",
    "fourier-1": r"$\sin 2\pi t$",
    "fourier-8": r"$\sin 16\pi t$",
}


def _signals(tree: xr.DataTree) -> list[str]:
    return [str(name) for name in read_labels(tree, "weak/scaled_error", "signal")]


def draw_scaled_error(tree: xr.DataTree, ax: Axes, *, init: str = S4D, output: int = 0) -> None:
    """N times the L2 error of one output, an input per curve; thin lines: the proved limit, the norm of dy/dt.

    Inputs without a finite limit (an impulse) rise: convergence is weak, not uniform (arXiv 2310.01698, Thm 1 and 2).
    """
    path = "weak/scaled_error"
    column = _place(tree, path, "output", output)
    values = read(tree, path)[_place(tree, path, "init", init), :, :, column]
    limits, sizes = read(tree, "weak/limit")[:, column], state_dims(tree, path)
    for i, name in enumerate(_signals(tree)):
        look = series_style(i, marker=True)
        ax.plot(sizes, values[:, i], label=_SIGNALS.get(name, name), **look)
        if np.isfinite(limits[i]):
            ax.axhline(limits[i], color=look["color"], linewidth=0.6)
    size_axis(ax, sizes)
    _log_y(ax)
    ax.set_ylabel(r"$N\,\Vert y-y_\mathrm{LegS}\Vert_{L^2}$")
    heading(ax, f"{init_name(init)}, inputs", "thin: limits, proved", legend_rows=-(-len(limits) // 4))
    legend_above(ax, 4)


def draw_topologies(tree: xr.DataTree, ax: Axes, *, init: str = S4D, output: int = 0) -> None:
    """One gap in several norms against N: H-infinity and L2 of the kernels stay, the error of an output vanishes."""
    path = "gaps/sup"
    row, column = _place(tree, path, "init", init), _place(tree, path, "output", output)
    sizes = state_dims(tree, path)
    curves = [
        (r"$H_\infty$", sizes, read(tree, path)[row, :, column]),
        ("kernel, $L^2$", sizes, read(tree, "gaps/l2_gap")[row, :, column]),
    ]
    errors = read(tree, "weak/l2_error")
    who, what = (
        _place(tree, "weak/l2_error", "init", init),
        _place(tree, "weak/l2_error", "output", output),
    )
    limits = read(tree, "weak/limit")[:, what]
    smooth = [i for i in range(len(limits)) if np.isfinite(limits[i])]
    at = state_dims(tree, "weak/l2_error")
    curves += [(f"output, {_SIGNALS.get(_signals(tree)[i], '')}", at, errors[who, :, i, what]) for i in smooth[:2]]
    for i, (name, at, values) in enumerate(curves):
        ax.plot(at, values, label=name, **series_style(i, marker=True))
    ax.plot(sizes, curves[-1][2][0] * sizes[0] / sizes, color=FAINT, linewidth=0.6)
    size_axis(ax, sizes)
    _log_y(ax)
    ax.set_ylabel("size of the gap")
    heading(ax, f"{init_name(init)}, norms", "thin: slope $-1$", legend_rows=2)
    legend_above(ax, 2)


def draw_band_gap(tree: xr.DataTree, ax: Axes, *, init: str = S4D) -> None:
    """Worst-C gap over |omega| up to a band's edge, against N: it vanishes on every bounded band, and not beyond."""
    path = "gaps/band_sup"
    bands, sizes = read_labels(tree, path, "band").astype(float), state_dims(tree, path)
    values = read(tree, path)[_place(tree, path, "init", init)]
    chosen = _some(len(bands), 5)
    for number, i in enumerate(chosen):
        ax.plot(sizes, values[:, i], label=rf"$|\omega|\leq{bands[i]:g}$", **series_style(number, marker=True))
    whole = read(tree, "gaps/worst_sup")[_place(tree, "gaps/worst_sup", "init", init)]
    ax.plot(sizes, whole, color=INK, linewidth=0.9, marker=".", label=r"all $\omega$")
    size_axis(ax, sizes)
    _log_y(ax)
    ax.set_ylabel(r"$\sup\Vert X-X_\mathrm{LegS}\Vert$ on a band")
    heading(ax, f"{init_name(init)}, bands", "measured", legend_rows=2)
    legend_above(ax, 3)


# ---------------------------------------------------------------------------------------------------- frontier


def _most_sampled(tree: xr.DataTree, state_dim: int | None) -> int:
    """The asked N, or the largest N among those with the most families."""
    sizes, families = read(tree, "frontier/state_dim"), read(tree, "frontier/family")
    counts = {int(n): len(set(families[sizes == n])) for n in np.unique(sizes)}
    if state_dim is None:
        return max(counts, key=lambda n: (counts[n], n))
    if state_dim not in counts:
        raise InputError(f"the frontier has no N = {state_dim}: it has {', '.join(str(n) for n in counts)}.")
    return state_dim


def _families(tree: xr.DataTree) -> list[tuple[str, np.ndarray]]:
    """(family, mask of its samples), in the order of the legend."""
    families = np.array([str(name) for name in read(tree, "frontier/family")])
    known = [name for name in _FAMILIES if name in families]
    return [(name, families == name) for name in [*known, *sorted(set(families) - set(known))]]


def _scatter(tree: xr.DataTree, ax: Axes, x: np.ndarray, y: np.ndarray, chosen: np.ndarray) -> None:
    """Samples by family: unstable ones hollow, HiPPO-rho joined along its parameter."""
    stable = read(tree, "frontier/spectral_abscissa") < 0
    for number, (family, mask) in enumerate(_families(tree)):
        mask = mask & chosen & np.isfinite(x) & np.isfinite(y) & (x > 0)
        if not mask.any():
            continue
        name, marker, colour = _FAMILIES.get(family, (family, MARKERS[number % len(MARKERS)], FAINT))
        look: dict[str, Any] = {
            "linestyle": "none",
            "marker": marker,
            "color": colour,
            "markersize": 4,
            "markeredgewidth": 0.6,
        }
        if family.startswith("hippo-rho"):
            order = np.argsort(x[mask])
            ax.plot(x[mask][order], y[mask][order], color=colour, linewidth=0.9, zorder=1.9)
        # an empty first plot names the family even where all of its samples are unstable
        ax.plot(x[mask & stable], y[mask & stable], label=name, **look)
        ax.plot(x[mask & ~stable], y[mask & ~stable], **{**look, "markerfacecolor": "white"})


def draw_frontier(tree: xr.DataTree, ax: Axes, *, state_dim: int | None = None) -> None:
    """Conditioning against measured deviation at one N: how much of LegS a well-conditioned diagonal system keeps.

    Left and below is better. The thin line is kappa times deviation = 1/2, which HiPPO-rho follows.
    """
    n = _most_sampled(tree, state_dim)
    x, y = read(tree, "frontier/deviation"), read(tree, "frontier/kappa")
    chosen = read(tree, "frontier/state_dim") == n
    _scatter(tree, ax, x, y, chosen)
    ax.set_xscale("log")
    _log_y(ax)
    low, high = ax.get_xlim()
    at = np.geomspace(low, min(high, 0.5), 50)
    ax.plot(at, 0.5 / at, color=FAINT, linewidth=0.6, zorder=1)
    ax.set_xlim(low, high)
    ax.set_xlabel(r"deviation $\sup_\omega\Vert X-X_\mathrm{LegS}\Vert$")
    ax.set_ylabel(r"$\kappa_2(V)$")
    heading(ax, f"Frontier, $N={n}$", status_of(tree, "frontier/deviation_evidence", chosen))


def draw_frontier_epsilon(tree: xr.DataTree, ax: Axes, *, state_dim: int | None = None) -> None:
    """Conditioning against the size of the perturbation at one N, above the certified bound that no PTD can beat.

    HiPPO-rho is a perturbation too, of norm N^2/(rho + 1): a small norm is the wrong constraint.
    """
    n = _most_sampled(tree, state_dim)
    x, y = read(tree, "frontier/epsilon"), read(tree, "frontier/kappa")
    path = "frontier_bound/kappa_lower"
    sizes = state_dims(tree, path)
    if n in sizes:
        epsilon, bound = _sorted_bound(tree, list(sizes).index(n))
        # what bounds every |E| <= eps bounds every smaller one too: a staircase is certified, a slope would not be
        floor = np.maximum(bound, 1)
        ax.fill_between(epsilon, 1, floor, step="pre", color="#DDDDDD", linewidth=0, zorder=0, label="impossible")
        ax.plot(epsilon, floor, color=INK, linewidth=1.0, drawstyle="steps-pre", label="bound on every PTD")
    chosen = read(tree, "frontier/state_dim") == n
    _scatter(tree, ax, x, y, chosen)
    ax.axvline(0.5, color=FAINT, linewidth=0.6)
    ax.set_xscale("log")
    _log_y(ax)
    ax.set_xlabel(r"perturbation $\varepsilon=\Vert A-A_\mathrm{LegS}\Vert_2$")
    ax.set_ylabel(r"$\kappa_2(V)$")
    heading(ax, f"Perturbation size, $N={n}$", "bound: " + status_of(tree, "frontier_bound/evidence"))


def _sorted_bound(tree: xr.DataTree, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Perturbation sizes, increasing from far below the smallest, and the bound on kappa at each."""
    path = "frontier_bound/kappa_lower"
    epsilon, bound = read_labels(tree, path, "epsilon").astype(float), read(tree, path)[row]
    order = np.argsort(epsilon)
    epsilon, bound = epsilon[order], bound[order]
    return np.append(epsilon[0] / 10, epsilon), np.append(bound[0], bound)


def draw_product(tree: xr.DataTree, ax: Axes) -> None:
    """kappa times deviation against N: each sample, and the median of a family; about 1/2 at every N for HiPPO-rho."""
    sizes = read(tree, "frontier/state_dim")
    product = read(tree, "frontier/kappa") * read(tree, "frontier/deviation")
    stable = read(tree, "frontier/spectral_abscissa") < 0
    ax.axhline(0.5, color=FAINT, linewidth=0.6)
    for number, (family, mask) in enumerate(_families(tree)):
        mask = mask & stable & np.isfinite(product)
        if family == "s4d" or not mask.any():
            continue
        name, marker, colour = _FAMILIES.get(family, (family, MARKERS[number % len(MARKERS)], FAINT))
        ax.plot(sizes[mask], product[mask], linestyle="none", marker=marker, color=colour, markersize=2, alpha=0.5)
        at = np.unique(sizes[mask])
        median = [float(np.median(product[mask & (sizes == n)])) for n in at]
        ax.plot(at, median, color=colour, marker=marker, linewidth=0.9, label=name)
    size_axis(ax, sizes)
    _log_y(ax)
    ax.set_ylabel(r"$\kappa_2(V)\times$ deviation")
    heading(ax, r"Cost of closeness", "measured, median")


def draw_bound_growth(tree: xr.DataTree, ax: Axes) -> None:
    """The certified lower bound on kappa against N at several perturbation sizes, below the best kappa that was found.

    Crosses: the smallest kappa of any sample with a perturbation of at most that size.
    """
    path = "frontier_bound/kappa_lower"
    epsilon, sizes = read_labels(tree, path, "epsilon").astype(float), state_dims(tree, path)
    bounds = read(tree, path)
    below = np.flatnonzero(epsilon < 0.5)
    candidates = below if below.size else np.arange(len(epsilon))
    chosen = [int(candidates[i]) for i in _some(len(candidates), 3)]
    of, eps, kappa = (read(tree, f"frontier/{name}") for name in ("state_dim", "epsilon", "kappa"))
    for number, i in enumerate(chosen):
        look = series_style(number)
        values = np.where(bounds[:, i] >= 1, bounds[:, i], np.nan)
        ax.plot(sizes, values, label=rf"$\varepsilon={epsilon[i]:.2g}$", **look)
        at = [n for n in np.unique(of) if ((of == n) & (eps <= epsilon[i] * (1 + 1e-9))).any()]
        best = [kappa[(of == n) & (eps <= epsilon[i] * (1 + 1e-9))].min() for n in at]
        ax.plot(at, best, linestyle="none", marker="x", color=look["color"], markersize=4)
    size_axis(ax, np.concatenate([sizes, of]))
    _log_y(ax)
    ax.set_ylabel(r"$\kappa_2(V)$")
    heading(ax, "Lower bound, every PTD", status_of(tree, "frontier_bound/evidence") + r"; $\times$ best found", 1)
    legend_above(ax, 3)


def draw_kappa_epsilon(tree: xr.DataTree, ax: Axes, *, state_dim: int | None = None) -> None:
    """kappa(V) of every PTD against the relative size of E at one N; thin: slope -1 (arXiv 2310.01698, Fig. 3c)."""
    n = _most_sampled(tree, state_dim)
    size, kappa = _relative_size(tree), read(tree, "frontier/kappa")
    chosen = _ptd(tree) & (read(tree, "frontier/state_dim") == n)
    _scatter(tree, ax, size, kappa, chosen)
    ax.set_xscale("log")
    _log_y(ax)
    ginibre = chosen & (np.array([str(f) for f in read(tree, "frontier/family")]) == "ginibre")
    if ginibre.any():
        at = np.array([size[ginibre].min(), size[ginibre].max()])
        ax.plot(at, np.exp(np.median(np.log(kappa * size)[ginibre])) / at, color=FAINT, linewidth=0.6, zorder=1)
    ax.set_xlabel(r"$\Vert E\Vert_2/\Vert A_\mathrm{LegS}\Vert_2$")
    ax.set_ylabel(r"$\kappa_2(V)$")
    heading(ax, f"Conditioning, $N={n}$", "measured; hollow: unstable")


def draw_deviation_epsilon(tree: xr.DataTree, ax: Axes, *, state_dim: int | None = None) -> None:
    """Deviation of every PTD against the relative size of E at one N; grey: where no theorem speaks (eps over 1/2)."""
    n = _most_sampled(tree, state_dim)
    chosen = _ptd(tree) & (read(tree, "frontier/state_dim") == n)
    _scatter(tree, ax, _relative_size(tree), read(tree, "frontier/deviation"), chosen)
    ax.set_xscale("log")
    _log_y(ax)
    low, high = ax.get_xlim()
    edge = 0.5 / (2 * n**2 / np.pi)
    ax.axvspan(max(edge, low), max(high, edge), color="#EEEEEE", linewidth=0, zorder=0)
    at = np.geomspace(low, edge, 200)[:-1] if low < edge else np.array([])
    eps = at * 2 * n**2 / np.pi
    ax.plot(at, 2 * eps / (1 - 2 * eps), color=INK, linewidth=0.8, linestyle=_DASH, label="our bound")
    ax.set_xlim(low, high)
    ax.set_xlabel(r"$\Vert E\Vert_2/\Vert A_\mathrm{LegS}\Vert_2$")
    ax.set_ylabel(r"deviation $\sup_\omega\Vert X-X_\mathrm{LegS}\Vert$")
    heading(ax, f"Deviation, $N={n}$", r"grey: $\varepsilon>1/2$")


def _ptd(tree: xr.DataTree) -> np.ndarray:
    return np.array([str(name) not in _NOT_PTD for name in read(tree, "frontier/family")])


def _relative_size(tree: xr.DataTree) -> np.ndarray:
    """eps over the norm of A_LegS, which is 2 N^2 / pi up to O(1)."""
    return read(tree, "frontier/epsilon") / (2 * read(tree, "frontier/state_dim") ** 2 / np.pi)


# ---------------------------------------------------------------------------------------------------- tightness


def _structures(tree: xr.DataTree) -> list[tuple[str, np.ndarray]]:
    names = np.array([str(name) for name in read(tree, "tightness/structure")])
    return [(name, names == name) for name in dict.fromkeys(names)]


def draw_tightness(tree: xr.DataTree, ax: Axes) -> None:
    """Actual deviation of random perturbations against our bound: no point lies above the diagonal."""
    sup, bound = read(tree, "tightness/sup"), read(tree, "tightness/bound_ours")
    known = np.isfinite(bound) & np.isfinite(sup) & (bound > 0)
    for i, (name, mask) in enumerate(_structures(tree)):
        mask = mask & known
        look: dict[str, Any] = {
            "linestyle": "none",
            "marker": MARKERS[i % len(MARKERS)],
            "color": OKABE_ITO[i % len(OKABE_ITO)],
        }
        ax.plot(bound[mask], sup[mask], markersize=2, markeredgewidth=0, rasterized=True, **look)
        ax.plot([], [], markersize=4, label=name, **look)
    ax.set_xscale("log")
    _log_y(ax)
    ends = np.array([bound[known].min(), bound[known].max()]) if known.any() else np.array([1.0, 1.0])
    ax.plot(ends, ends, color=INK, linewidth=0.8, linestyle=_DASH)
    ax.set_xlabel(r"bound $\varepsilon/(\frac{1}{2}-\lambda_{\max}(\mathrm{sym}\,E))$")
    ax.set_ylabel(r"actual $\sup_\omega\Vert X-X_\mathrm{LegS}\Vert$")
    beaten = int((sup[known] > bound[known] * (1 + 1e-9)).sum())
    heading(ax, "Our bound", f"proved; beaten {beaten} of {int(known.sum())} times")


def draw_tightness_ratio(tree: xr.DataTree, ax: Axes) -> None:
    """Actual deviation over our bound and over the leading term of the paper's (arXiv 2310.01698, Thm 3)."""
    sup, eps = read(tree, "tightness/sup"), read(tree, "tightness/epsilon")
    ax.axhline(1, color=INK, linewidth=0.8, linestyle=_DASH)
    kinds = (("bound_ours", "ours, proved", OKABE_ITO[1]), ("bound_paper", "paper, leading term", OKABE_ITO[0]))
    best = []
    for name, label, colour in kinds:
        bound = read(tree, f"tightness/{name}")
        known = np.isfinite(bound) & np.isfinite(sup) & (bound > 0) & (sup > 0)
        look: dict[str, Any] = {"linestyle": "none", "color": colour, "marker": "o"}
        ax.plot(eps[known], sup[known] / bound[known], markersize=1.6, mew=0, alpha=0.6, rasterized=True, **look)
        ax.plot([], [], label=label, **look)
        best.append(f"{np.max(sup[known] / bound[known]):.2f}" if known.any() else "none")
    ax.axvline(0.5, color=FAINT, linewidth=0.6)
    ax.set_xscale("log")
    _log_y(ax)
    ax.set_xlabel(r"$\varepsilon=\Vert E\Vert_2$")
    ax.set_ylabel("actual / bound")
    heading(ax, "Tightness", f"ours at most {best[0]}", legend_rows=1)
    legend_above(ax, 2)


# ---------------------------------------------------------------------------------------------------- spikes


def _each_size(tree: xr.DataTree, path: str, most: int = 4) -> list[tuple[int, int, dict[str, Any]]]:
    """(row, N, look) of a few state dimensions."""
    sizes = state_dims(tree, path)
    chosen = _some(len(sizes), most)
    return [(i, int(sizes[i]), series_style(number, marker=True)) for number, i in enumerate(chosen)]


def _spike_axes(ax: Axes, m: np.ndarray, label: str = "spike $m+1$, from the highest frequency") -> None:
    """Both axes logarithmic, whole numbers below."""
    ax.set_xscale("log")
    plain_log_ticks(ax.xaxis, 1.0, float(max(m.max() + 1, 2)))
    _log_y(ax)
    ax.set_xlabel(label)


def draw_spike_position(tree: xr.DataTree, ax: Axes) -> None:
    """Places of S4D's spikes, the m-th from above, and the law N^2/((2m+1) pi) - (2m+1) pi/6 (lines)."""
    path = "spikes/position"
    position, law = read(tree, path), read(tree, "spikes/law")
    m = read_labels(tree, path, "spike").astype(float)
    for i, n, look in _each_size(tree, path):
        ax.plot(m + 1, position[i], **{**look, "linestyle": "none"}, label=f"$N={n}$")
        ax.plot(m + 1, np.where(law[i] > 0, law[i], np.nan), color=look["color"], linewidth=0.8)
    _spike_axes(ax, m)
    ax.set_ylabel(r"place $\omega_m$ [rad/s]")
    heading(ax, "Place", "lines: the law, proved")


def draw_spike_residual(tree: xr.DataTree, ax: Axes) -> None:
    """Relative distance of the spikes from the law for the top of the spectrum, and from the bulk law."""
    path = "spikes/position"
    position, m = read(tree, path), read_labels(tree, path, "spike").astype(float)
    for name, dashes in (("law", "-"), ("bulk_law", _DASH)):
        other = read(tree, f"spikes/{name}")
        for i, _, look in _each_size(tree, path):
            away = np.abs(other[i] / position[i] - 1)
            ax.plot(m + 1, np.where(away > 0, away, np.nan), **{**look, "linestyle": dashes, "markersize": 2})
    _spike_axes(ax, m)
    ax.set_ylabel("relative distance")
    heading(ax, "Distance from the laws", "top full, bulk dashed")


def draw_spike_heights(tree: xr.DataTree, ax: Axes) -> None:
    """Height of the gap at each spike, output 0, and the law 2/((2m+1) pi), the limit at every fixed m."""
    path = "spikes/height"
    height, m = read(tree, path), read_labels(tree, path, "spike").astype(float)
    for i, n, look in _each_size(tree, path):
        ax.plot(m + 1, height[i], **{**look, "linestyle": "none"}, label=f"$N={n}$")
    law = read(tree, "spikes/height_law")
    ax.plot(m + 1, np.nanmax(law, axis=0) if law.ndim > 1 else law, color=INK, linewidth=0.8)
    _spike_axes(ax, m)
    ax.set_ylabel("height, output 0")
    heading(ax, "Height", r"line: $2/((2m+1)\pi)$")


def draw_worst_height(tree: xr.DataTree, ax: Axes) -> None:
    """Height for the worst unit C over N: it tends to 2/((2m+1) pi), so that the gap itself grows like N."""
    path = "spikes/worst_height"
    height, m = read(tree, path), read_labels(tree, path, "spike").astype(float)
    for i, n, look in _each_size(tree, path):
        ax.plot(m + 1, height[i] / n, **{**look, "linestyle": "none"}, label=f"$N={n}$")
    law = read(tree, "spikes/height_law")
    ax.plot(m + 1, np.nanmax(law, axis=0) if law.ndim > 1 else law, color=INK, linewidth=0.8)
    _spike_axes(ax, m)
    ax.set_ylabel("height / $N$, worst unit $C$")
    heading(ax, "Worst unit $C$", r"grows like $2N/\pi$")


_LAWS = (("s4d_inv", "S4D-Inv"), ("s4d_lin", "S4D-Lin"), ("asymptotic", "top law"), ("bulk", "bulk law (ours)"))


def draw_spectrum(tree: xr.DataTree, ax: Axes) -> None:
    """Imaginary parts of the spectrum of S4D-LegS (dots) and the laws that were proposed for it."""
    path = "spectrum/exact"
    exact = read(tree, path)
    m = np.arange(1, len(exact) + 1)
    ax.plot(m, exact, linestyle="none", marker="o", color=INK, markersize=2.5, label="exact")
    for i, (name, label) in enumerate(_LAWS):
        values = read(tree, f"spectrum/{name}")
        ax.plot(m, np.where(values > 0, values, np.nan), label=label, **series_style(i))
    _spike_axes(ax, m - 1, "mode $m+1$, from the largest")
    ax.set_ylabel(r"imaginary part $y_m$ [rad/s]")
    heading(ax, rf"Spectrum, $N={int(read(tree, 'spectrum/state_dim'))}$", "arctangent law: proved")


def draw_spectrum_error(tree: xr.DataTree, ax: Axes) -> None:
    """Relative distance of each law from the exact spectrum."""
    exact = read(tree, "spectrum/exact")
    m = np.arange(1, len(exact) + 1)
    for i, (name, label) in enumerate(_LAWS):
        away = np.abs(read(tree, f"spectrum/{name}") / exact - 1)
        ax.plot(m, np.where(away > 0, away, np.nan), label=label, **series_style(i))
    _spike_axes(ax, m - 1, "mode $m+1$, from the largest")
    ax.set_ylabel("relative distance from $y_m$")
    inv = np.abs(read(tree, "spectrum/s4d_inv") / exact - 1)
    heading(ax, "Distance", f"S4D-Inv: up to {100 * np.nanmax(inv):.0f} %")


# ---------------------------------------------------------------------------------------------------- pseudospectra


def _matrices(tree: xr.DataTree) -> list[str]:
    return [str(name) for name in read_labels(tree, "pseudospectrum/resolvent_norm", "matrix")]


def draw_portrait(
    tree: xr.DataTree, ax: Axes, index: int = 0, *, levels: Sequence[float] | None = None, bar: bool = False
) -> Any:
    """Pseudospectra of one matrix, its eigenvalues (dots); dotted: Re z = numerical abscissa.

    Returns:
        the contours, for a colour bar shared by several panels.
    """
    path = "pseudospectrum/resolvent_norm"
    data = {
        "real": read_labels(tree, path, "real"),
        "imag": read_labels(tree, path, "imag"),
        "resolvent_norm": read(tree, path)[index],
        "eigenvalues": read(tree, "pseudospectrum/eigenvalues")[index],
    }
    contours = systems.draw_pseudospectrum(data, ax, levels=levels, bar=bar)
    ax.axvline(read(tree, "pseudospectrum/numerical_abscissa")[index], color=FAINT, linewidth=0.8, linestyle=":")
    heading(ax, init_name(_matrices(tree)[index]))
    return contours


def draw_transient(tree: xr.DataTree, ax: Axes) -> None:
    """Norm of exp(tA): LegS decays at once, whatever its eigenvectors; above 1 is transient growth."""
    path = "pseudospectrum/transient"
    time, values = read_labels(tree, path, "time").astype(float), read(tree, path)
    ax.axhline(1, color=FAINT, linewidth=0.6)
    names = _matrices(tree)
    for curve, name in zip(values, names, strict=True):
        ax.plot(time, curve, label=init_name(name), **_look(tree, name, names))
    ax.plot(time, np.exp(-time / 2), color=INK, linewidth=2.4, alpha=0.25, label=r"$\mathrm{e}^{-t/2}$")
    _log_y(ax)
    ax.set_xlabel("time $t$ [s]")
    ax.set_ylabel(r"$\Vert\exp(tA)\Vert_2$")
    heading(ax, "Transient", f"largest {np.nanmax(values):.3g}", legend_rows=2)
    legend_above(ax, 3)


def _between(low: float, high: float) -> str:
    """A bracket in words, as one number where three digits cannot tell its ends apart."""
    ends = [f"{low:.3g}", f"{high:.3g}"]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def draw_conditioning(tree: xr.DataTree, ax: Axes) -> None:
    """Kreiss constant (bracket) and eigenvector condition number of each matrix: the two are decoupled."""
    names, y = _matrices(tree), np.arange(len(_matrices(tree)))[::-1]
    low, high = read(tree, "pseudospectrum/kreiss_lower"), read(tree, "pseudospectrum/kreiss_upper")
    ax.hlines(y, np.maximum(low, 1e-3), high, color=OKABE_ITO[1], linewidth=2)
    ax.plot(np.sqrt(low * high), y, linestyle="none", marker="o", color=OKABE_ITO[1], label="Kreiss constant")
    if "kappa" in tree["pseudospectrum"]:
        kappa = read(tree, "pseudospectrum/kappa")
        ax.plot(kappa, y, linestyle="none", marker="X", color=OKABE_ITO[0], markersize=4, label=r"$\kappa_2(V)$")
    ax.axvline(1, color=FAINT, linewidth=0.6)
    ax.set_xscale("log")
    ax.set_yticks(y, [init_name(name) for name in names])
    ax.set_ylim(-0.6, len(names) - 0.4)
    ax.set_xlabel("constant")
    heading(ax, "Kreiss and conditioning", f"{init_name(names[0])}: {_between(low[0], high[0])}", legend_rows=1)
    legend_above(ax, 2)


# ---------------------------------------------------------------------------------------------------- discrete


_METHODS = {"zoh": "ZOH", "bilinear": "bilinear", "bilinear_s4": "bilinear, S4's"}


def draw_discrete_gap(
    tree: xr.DataTree, ax: Axes, *, method: str = "zoh", worst: bool = False, state_dim: int | None = None
) -> None:
    """sup over the unit circle of |G - G_LegS| after discretisation, against the step, at one N; thin: our bounds.

    Args:
        tree: the dataset.
        ax: the panel.
        method: "zoh", "bilinear" or "bilinear_s4".
        worst: for the worst unit C in place of output 0.
        state_dim: N; by default the largest that was measured.
    """
    path = "discrete/worst_sup" if worst else "discrete/sup"
    values, column = read(tree, path), _place(tree, path, "method", method)
    measured = state_dims(tree, path)[np.isfinite(values[:, :, column]).any(axis=(0, 2))]
    n = state_dim if state_dim is not None else int(max(measured, default=state_dims(tree, path).max()))
    row, dt = _place(tree, path, "state_dim", n), read_labels(tree, path, "dt").astype(float)
    names = _inits(tree, path)
    for curve, name in zip(values[:, row, column], names, strict=True):
        if (curve > 0).any():
            ax.plot(dt, curve, label=init_name(name), **_look(tree, name, names, marker=True))
    if worst:
        for bound, name in zip(read(tree, "discrete/worst_bound")[:, row, column], names, strict=True):
            ax.plot(dt, bound, **{**_look(tree, name, names), "linewidth": 0.6})
    else:
        predicted = read(tree, "discrete/predicted")[row, column]
        ax.plot(dt, predicted, color=INK, linewidth=0.8, linestyle=_DASH, label="S4D, isolated spike")
    ax.set_xscale("log")
    _log_y(ax)
    ax.set_xlabel(r"step $\Delta$ [s]")
    ax.set_ylabel(r"$\sup\Vert X-X_\mathrm{LegS}\Vert$" if worst else r"$\sup|G-G_\mathrm{LegS}|$, output 0")
    heading(ax, f"{_METHODS.get(method, method)}, $N={n}$", "measured, worst $C$" if worst else "measured")


# ---------------------------------------------------------------------------------------------------- regression


def _trained_band(tree: xr.DataTree, ax: Axes) -> np.ndarray:
    """Shade the trained frequencies; returns all of them."""
    frequency = read_labels(tree, "regression/predicted", "frequency").astype(float)
    trained = frequency[read(tree, "regression/trained").astype(bool)]
    if trained.size:
        ax.axvspan(trained.min(), trained.max(), color="#EEEEEE", linewidth=0, zorder=0)
    ax.axvline(float(read(tree, "regression/spike")), color=FAINT, linewidth=0.8, linestyle=":")
    return frequency


def draw_prediction(tree: xr.DataTree, ax: Axes) -> None:
    """Amplitude of a sinusoid predicted from its features, trained on a band (grey), beyond it (dotted: S4D's spike).

    Our deterministic least-squares version of the experiment of arXiv 2310.01698, section 3.4.
    """
    frequency, predicted = _trained_band(tree, ax), read(tree, "regression/predicted")
    target = read(tree, "regression/target")
    ax.plot(frequency, target, color=FAINT, linewidth=2.5, alpha=0.6, label="true")
    names = _inits(tree, "regression/predicted")
    for values, name in zip(predicted, names, strict=True):
        ax.plot(frequency, values, label=init_name(name), **_look(tree, name, names))
    ax.set_xlabel("frequency of the sinusoid [rad/s]")
    ax.set_ylabel("predicted amplitude")
    heading(ax, rf"Extrapolation, $N={int(read(tree, 'regression/state_dim'))}$", "measured (ours)")


def draw_gain_beyond(tree: xr.DataTree, ax: Axes) -> None:
    """Largest gain of a feature at each frequency: S4D amplifies at its spike what training never showed it."""
    frequency, gain = _trained_band(tree, ax), read(tree, "regression/gain")
    names = _inits(tree, "regression/gain")
    for values, name in zip(gain, names, strict=True):
        ax.plot(frequency, values, label=init_name(name), **_look(tree, name, names))
    _log_y(ax)
    ax.set_xlabel("frequency of the sinusoid [rad/s]")
    ax.set_ylabel("largest gain of a feature")
    heading(ax, "Gain", "closed form")


# ---------------------------------------------------------------------------------------------------- figures


def figure_response(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Transfer functions of S4D and LegS with the last spike magnified (arXiv 2310.01698, Fig. 1)."""
    return page(venue, 2.4, (draw_response, draw_zoom), tree)


def figure_deviation(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Distance from LegS, conditioning and stability of every initialisation against N."""
    return page(venue, 4.4, (draw_gap, draw_worst_gap, draw_kappa, draw_abscissa), tree, legend=5)


def figure_weak_strong(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """S4D tends to LegS weakly and on bounded bands, not in H-infinity nor in L2; HiPPO-rho does in all of them."""
    draws = (draw_scaled_error, draw_topologies, draw_band_gap, partial(draw_l2_gap, legend=True))
    return page(venue, 4.9, draws, tree)


def figure_frontier(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """HiPPO-rho, PTD and the lower bound on PTD in one picture; the cost of closeness; how the bound grows."""
    return page(venue, 4.8, (draw_frontier, draw_frontier_epsilon, draw_product, draw_bound_growth), tree, legend=4)


def figure_ablation(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Conditioning and deviation of PTD against the size of E (arXiv 2310.01698, Fig. 3c without the accuracy)."""
    return page(venue, 2.5, (draw_kappa_epsilon, draw_deviation_epsilon), tree, legend=4)


def figure_tightness(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Actual deviation of random perturbations against our bound and the paper's."""
    return page(venue, 2.6, (draw_tightness, draw_tightness_ratio), tree, legend=4)


def figure_spikes(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Place and height of S4D's spikes and their laws."""
    draws = (draw_spike_position, draw_spike_residual, draw_spike_heights, draw_worst_height)
    return page(venue, 4.4, draws, tree, legend=4)


def figure_spectrum(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """The spectrum of S4D-LegS and the laws proposed for it (arXiv 2206.11893, the conjecture on the spectrum)."""
    return page(venue, 2.5, (draw_spectrum, draw_spectrum_error), tree, legend=5)


def figure_pseudospectra(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Pseudospectra of up to three matrices, ||exp(tA)||, and Kreiss constants beside condition numbers."""
    count = min(3, len(_matrices(tree)))
    with style(venue) as v:
        figure = new_figure(venue, height=min(4.3 * v.full / 5.5, v.max_height))
        top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.15, 1)).ravel()
        axes = list(top.subplots(1, count, sharey=True, squeeze=False)[0])
        # one set of levels for all panels, or their colours could not be compared
        levels = _levels(1 / read(tree, "pseudospectrum/resolvent_norm")[:count])
        contours = [draw_portrait(tree, ax, i, levels=levels) for i, ax in enumerate(axes)]
        for ax in axes[1:]:
            ax.set_ylabel("")
        small_bar(axes, contours[0], r"$\log_{10}\varepsilon$", integer=False)
        left, right = bottom.subplots(1, 2).ravel()
        draw_transient(tree, left)
        draw_conditioning(tree, right)
        panel_letters([*axes, left, right])
    return figure


def _levels(epsilon: np.ndarray) -> list[float]:
    """Exponents of contours: a few over the range of each panel, so that a mild matrix has some of its own."""
    from matplotlib.ticker import MaxNLocator

    levels: set[float] = set()
    for each in epsilon:
        exponents = np.log10(each[np.isfinite(each) & (each > 0)])
        low, high = float(np.quantile(exponents, 0.02)), float(exponents.max())
        levels |= {round(float(v), 6) for v in MaxNLocator(5).tick_values(low, high)}
    return sorted(levels)


def figure_discrete(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Gaps after discretisation: zero-order hold damps S4D's spikes, S4's bilinear rule multiplies them."""

    methods = [str(name) for name in read_labels(tree, "discrete/sup", "method")]
    chosen = [m for m in ("zoh", "bilinear_s4") if m in methods] or methods[:2]
    draws = [partial(draw_discrete_gap, method=method, worst=worst) for worst in (False, True) for method in chosen]
    return page(venue, 4.4, draws, tree, columns=len(chosen), legend=4)


def figure_robustness(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """Non-robustness of S4D beyond the trained band (arXiv 2310.01698, section 3.4, in our least-squares version)."""
    return page(venue, 2.5, (draw_prediction, draw_gain_beyond), tree, legend=5)


FIGURES: dict[str, Callable[[xr.DataTree, str], Figure]] = {
    "response": figure_response,
    "deviation": figure_deviation,
    "weak_strong": figure_weak_strong,
    "frontier": figure_frontier,
    "ablation": figure_ablation,
    "tightness": figure_tightness,
    "spikes": figure_spikes,
    "spectrum": figure_spectrum,
    "pseudospectra": figure_pseudospectra,
    "discrete": figure_discrete,
    "robustness": figure_robustness,
}

#: figure -> groups of the dataset that it draws; a run that did not measure one of them has no such figure
GROUPS: dict[str, tuple[str, ...]] = {
    "response": ("response",),
    "deviation": ("gaps",),
    "weak_strong": ("gaps", "weak"),
    "frontier": ("frontier", "frontier_bound"),
    "ablation": ("frontier",),
    "tightness": ("tightness",),
    "spikes": ("spikes",),
    "spectrum": ("spectrum",),
    "pseudospectra": ("pseudospectrum",),
    "discrete": ("discrete",),
    "robustness": ("regression",),
}
