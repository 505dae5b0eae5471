"""Panels and figures of the experiment ``robustness``.

Part (a), from transfer functions alone: `draw_theory_x(tree, ax)` reads the group "theory". A gain is the largest over
unit readouts; the dashed vertical line is the frequency at which S4D amplifies most, which the noise has.

Parts (b) and (c), trained: the other functions, of the groups "trained" and "regression". Bands are ranges over seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.plotting.panels import band, heading, init_name, page, read, read_labels, state_dims
from ssmtheory.plotting.style import FAINT, INK, LINE_STYLES, plain_log_ticks, series_style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "FIGURES",
    "GROUPS",
    "draw_amplitudes",
    "draw_comparison",
    "draw_conditioning",
    "draw_frequency_sweep",
    "draw_mechanism",
    "draw_predicted_loss",
    "draw_regression",
    "draw_theory_attack",
    "draw_theory_discrete",
    "draw_theory_gain",
    "draw_theory_low",
    "draw_theory_steps",
    "draw_theory_trade",
    "draw_training",
    "figure_comparison",
    "figure_discretised",
    "figure_prediction",
    "figure_regression",
    "figure_sweep",
    "figure_theory",
    "variant_name",
]

_LEGS, _S4D = "legs", "s4d-legs"
_METHODS = {"zoh": "ZOH", "bilinear": "Tustin", "bilinear_s4": "bilinear, S4's convention"}

# ---------------------------------------------------------------------------------------------------- part (a), theory


def _inits(tree: xr.DataTree) -> list[str]:
    return [str(name) for name in read_labels(tree, "theory/gain", "init")]


def _theory_look(tree: xr.DataTree, name: str, *, marker: bool = False) -> dict[str, Any]:
    """The look of an initialisation, the same in all panels; LegS, the reference, is black."""
    if name == _LEGS:
        return {"color": INK, "linestyle": "-", "linewidth": 0.9, **({"marker": "."} if marker else {})}
    return series_style([other for other in _inits(tree) if other != _LEGS].index(name), marker=marker)


def _at(tree: xr.DataTree, dim: str, label: Any) -> int:
    """Position of a label of the group "theory"; of None, the last one."""
    labels = [v.item() if isinstance(v, np.generic) else v for v in read_labels(tree, "theory/gain_discrete", dim)]
    if label is None:
        return len(labels) - 1
    if label not in labels:
        raise InputError(f"theory has no {dim} {label}: it has {', '.join(str(v) for v in labels)}.")
    return labels.index(label)


def _mark(ax: Axes, omega: float) -> None:
    ax.axvline(omega, color=FAINT, linewidth=0.8, linestyle=LINE_STYLES[1], zorder=0)


def draw_theory_gain(tree: xr.DataTree, ax: Axes, N: int | None = None) -> None:
    """Largest gain over unit C against frequency, continuous time, at one N of the dataset (the last)."""
    k = _at(tree, "state_dim", N)
    omega, gain = read(tree, "theory/omega"), read(tree, "theory/gain")[:, k]
    for row, name in zip(gain, _inits(tree), strict=True):
        ax.plot(omega, row, label=init_name(name), **_theory_look(tree, name))
    ax.set_xscale("log")
    ax.set_yscale("log")
    _mark(ax, float(read(tree, "theory/attack_omega")[k]))
    ax.set_xlabel(r"frequency $\omega$ [rad/s]")
    ax.set_ylabel("gain, worst $C$")
    heading(ax, f"Gain, $N={state_dims(tree, 'theory/gain')[k]}$", "measured")


def draw_theory_low(tree: xr.DataTree, ax: Axes, N: int | None = None) -> None:
    """Relative deviation from LegS at low frequency: what a robust initialisation gives up where the signal is."""
    k = _at(tree, "state_dim", N)
    low, value = read(tree, "theory/low_omega"), read(tree, "theory/low_deviation")[:, k]
    shown = low > 0
    for row, name in zip(value, _inits(tree), strict=True):
        if name == _LEGS:
            continue
        look = _theory_look(tree, name)
        ax.plot(low[shown], np.maximum(row[shown], 1e-17), label=init_name(name), **look)
    ax.set_xscale("log")
    ax.set_yscale("log")
    top = float(value.max())
    ax.set_ylim(max(1e-4, 0.5 * float(value[value > 0].min(initial=1e-4))), 2 * max(top, 1e-3))
    ax.set_xlabel(r"frequency $\omega$ [rad/s]")
    ax.set_ylabel(r"$\|X-X_{\rm LegS}\|\,/\,\|X_{\rm LegS}\|$")
    heading(ax, "Cost at low frequency", "measured")


def draw_theory_attack(tree: xr.DataTree, ax: Axes, N: int | None = None, method: str = "zoh") -> None:
    """Gain at the attack frequency against the step, aliasing included."""
    k, m = _at(tree, "state_dim", N), _at(tree, "method", method)
    dt = read_labels(tree, "theory/attack_gain_discrete", "dt").astype(float)
    order = np.argsort(dt)
    gain = read(tree, "theory/attack_gain_discrete")[:, k, m]
    for row, name in zip(gain, _inits(tree), strict=True):
        ax.plot(dt[order], row[order], label=init_name(name), **_theory_look(tree, name, marker=True))
    ax.set_xscale("log")
    ax.set_yscale("log")
    # beyond this step the frequency is above pi / step and is heard as a lower one
    omega = float(read(tree, "theory/attack_omega")[k])
    ax.axvspan(np.pi / omega, 2 * float(dt.max()), color=FAINT, alpha=0.25, linewidth=0, zorder=0)
    ax.set_xlim(0.5 * float(dt.min()), 2 * float(dt.max()))
    ax.set_xlabel(r"step $\Delta$ [s]")
    ax.set_ylabel("gain at the attack, worst $C$")
    heading(ax, f"Heard by a layer, {_METHODS.get(method, method)}", "measured")


def draw_theory_trade(tree: xr.DataTree, ax: Axes, N: int | None = None) -> None:
    """Largest gain against the cost at low frequency: the lower left corner is what one wants."""
    k = _at(tree, "state_dim", N)
    cost, gain = read(tree, "theory/low_cost")[:, k], read(tree, "theory/peak_gain")[:, k]
    for x, y, name in zip(cost, gain, _inits(tree), strict=True):
        if name == _LEGS:
            ax.axhline(y, color=INK, linewidth=0.9, label=init_name(name))
            continue
        look = {**_theory_look(tree, name, marker=True), "linestyle": "none"}
        ax.plot([x], [y], label=init_name(name), **look)
    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        plain_log_ticks(axis, *limits)
    low = float(read(tree, "theory/low_omega")[-1])
    ax.set_xlabel(rf"largest relative deviation, $\omega\leq{low:g}$ rad/s")
    ax.set_ylabel("largest gain, worst $C$")
    heading(ax, "What is gained, what is paid", "measured")


def draw_theory_discrete(
    tree: xr.DataTree, ax: Axes, N: int | None = None, dt: float | None = None, init: str = _S4D
) -> None:
    """Gain of one initialisation against frequency up to pi/dt after each discretisation, beside continuous time."""
    k, j, i = _at(tree, "state_dim", N), _at(tree, "dt", dt), _at(tree, "init", init)
    step = float(read_labels(tree, "theory/gain_discrete", "dt")[j])
    omega, gain = read(tree, "theory/omega"), read(tree, "theory/gain")[i, k]
    ax.plot(omega, gain, color=INK, linewidth=0.8, label="continuous")
    methods = [str(m) for m in read_labels(tree, "theory/gain_discrete", "method")]
    for m, method in enumerate(methods):
        angle, row = read(tree, "theory/angle")[k, m, j], read(tree, "theory/gain_discrete")[i, k, m, j]
        ax.plot(angle / step, row, label=_METHODS.get(method, method), **series_style(m))
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.axvline(np.pi / step, color=INK, linewidth=0.5)
    attack, heard = float(read(tree, "theory/attack_omega")[k]), float(read(tree, "theory/attack_alias")[k, j])
    _mark(ax, heard)
    ax.set_xlim(max(float(omega.min()), 1e-3 * np.pi / step), 1.3 * max(attack, np.pi / step))
    ax.set_xlabel(r"frequency $\omega$ [rad/s]")
    ax.set_ylabel("gain, worst $C$")
    # Tustin's rule sends infinity, where the gain is nothing, to pi / step
    ax.set_ylim(3e-4 * float(gain.max()), None)
    heading(ax, rf"{init_name(init)}, $\Delta={step:g}$ s", "measured")


def draw_theory_steps(tree: xr.DataTree, ax: Axes, N: int | None = None, init: str = _S4D) -> None:
    """Largest gain of one initialisation on the unit circle (filled) and at the attack (open), by step and method."""
    k, i = _at(tree, "state_dim", N), _at(tree, "init", init)
    dt = read_labels(tree, "theory/peak_gain_discrete", "dt").astype(float)
    order = np.argsort(dt)
    for m, method in enumerate(str(v) for v in read_labels(tree, "theory/peak_gain_discrete", "method")):
        look = series_style(m, marker=True)
        peak = read(tree, "theory/peak_gain_discrete")[i, k, m]
        at = read(tree, "theory/attack_gain_discrete")[i, k, m]
        ax.plot(dt[order], peak[order], label=_METHODS.get(method, method), **look)
        ax.plot(dt[order], at[order], **{**look, "linestyle": "none", "markerfacecolor": "white"})
    ax.axhline(float(read(tree, "theory/peak_gain")[i, k]), color=INK, linewidth=0.8, label="continuous")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel(r"step $\Delta$ [s]")
    ax.set_ylabel("gain, worst $C$")
    heading(ax, f"{init_name(init)}, worst and attack", "measured")


def figure_theory(tree: xr.DataTree, venue: str = "screen", N: int | None = None) -> Figure:
    """Gain and its spikes, cost at low frequency, what a layer hears, and the trade between the two."""
    draws = [
        partial(draw_theory_gain, N=N), partial(draw_theory_low, N=N), partial(draw_theory_attack, N=N),
        partial(draw_theory_trade, N=N),
    ]  # fmt: skip
    return page(venue, 4.6, draws, tree, legend=3)


def figure_discretised(tree: xr.DataTree, venue: str = "screen", N: int | None = None) -> Figure:
    """What discretisation makes of S4D's spikes: damped, moved, multiplied, aliased."""
    steps = read_labels(tree, "theory/gain_discrete", "dt").astype(float)
    draws: list[Callable[..., None]] = [partial(draw_theory_discrete, N=N, dt=float(dt)) for dt in np.sort(steps)]
    return page(venue, 2.5 * -(-(len(draws) + 1) // 2), [*draws, partial(draw_theory_steps, N=N)], tree, legend=4)


# ---------------------------------------------------------------------------------------------------- part (b), trained


def variant_name(label: str) -> str:
    """A variant as it is written in a figure.

    >>> variant_name("s4-ptd:kind=published,weight=10,steps=3000"), variant_name("hippo-rho:rho=3,normal=true")
    ('S4-PTD published', 'HiPPO-$\\\\rho$ 3 normal')
    """
    name, _, rest = label.partition(":")
    options = dict(item.split("=") for item in rest.split(",")) if rest else {}
    words = [_VARIANTS.get(name, name)]
    words += [options[key] for key in ("kind", "epsilon", "rho") if key in options]
    words += ["normal"] if options.get("normal") == "true" else []
    words += ["scaled"] if options.get("scaling") == "unit_input" else []
    return " ".join(words)


_VARIANTS = {
    "s4": "S4", "s4d": "S4D", "s4-ptd": "S4-PTD", "hippo-rho": r"HiPPO-$\rho$", "s5": "S5", "s5-ptd": "S5-PTD",
    "s5-rho": r"S5-$\rho$", "dss": "DSS", "lru": "LRU", "s4d-inv": "S4D-Inv", "s4d-lin": "S4D-Lin",
}  # fmt: skip


def _cells(tree: xr.DataTree, images: str | None, chosen: int = 0, trained: str = "C,D") -> list[int]:
    """Positions of the cells of a data set (of the first), the first few of them where `chosen` is given."""
    names = [str(v) for v in read(tree, "cells/images")]
    wanted = names[0] if images is None else images
    if wanted not in names:
        raise InputError(f"no cell has the images {wanted!r}: there are {', '.join(dict.fromkeys(names))}.")
    parts = [str(v) for v in read(tree, "cells/trained")]
    found = [i for i, (n, t) in enumerate(zip(names, parts, strict=True)) if n == wanted and t == trained]
    return found[: chosen or None]


def _cell_name(tree: xr.DataTree, i: int) -> str:
    return variant_name(str(read(tree, "cells/variant")[i]))


def _look(tree: xr.DataTree, i: int, *, marker: bool = False) -> dict[str, Any]:
    """The look of a variant, the same on all data sets; S4, the reference, is black."""
    variants = list(dict.fromkeys(str(v) for v in read(tree, "cells/variant")))
    name = str(read(tree, "cells/variant")[i])
    if name == "s4":
        return {"color": INK, "linestyle": "-", **({"marker": "."} if marker else {})}
    others = [v for v in variants if v != "s4"]
    return series_style(others.index(name), marker=marker)


def _amplitudes(tree: xr.DataTree) -> np.ndarray:
    return np.unique(read(tree, "disturbances/amplitude"))


def _cosines(tree: xr.DataTree, amplitude: float | None) -> tuple[np.ndarray, float]:
    """Positions of the cosines in the layers at one amplitude (the largest), by rising frequency."""
    size = float(_amplitudes(tree)[-1] if amplitude is None else amplitude)
    kind, where = read(tree, "disturbances/kind"), read(tree, "disturbances/where")
    there = (kind == "fourier") & (where == "layer") & np.isclose(read(tree, "disturbances/amplitude"), size)
    found = np.flatnonzero(there)
    if not found.size:
        listed = ", ".join(f"{a:g}" for a in _amplitudes(tree))
        raise InputError(f"no noise of amplitude {size:g}: there are {listed}.")
    return found[np.argsort(read(tree, "disturbances/frequency")[found])], size


def _attack_column(tree: xr.DataTree, amplitude: float | None) -> int:
    found, _ = _cosines(tree, amplitude)
    away = np.abs(read(tree, "disturbances/frequency")[found] - float(read(tree, "disturbances/attack_frequency")))
    return int(found[np.argmin(away)])


def _range(ax: Axes, x: np.ndarray, values: np.ndarray, label: str, look: dict[str, Any]) -> None:
    """Mean over the first axis as a line, smallest and largest as a band."""
    band(ax, x, values.min(axis=0), values.max(axis=0), look["color"], alpha=0.15)
    ax.plot(x, values.mean(axis=0), label=label, **look)


def draw_frequency_sweep(
    tree: xr.DataTree, ax: Axes, images: str | None = None, amplitude: float | None = None, chosen: int = 4
) -> None:
    """Accuracy under a cosine in every layer against its frequency: mean and range over seeds, dotted: undisturbed."""
    columns, size = _cosines(tree, amplitude)
    omega = read(tree, "disturbances/frequency")[columns]
    noisy, clean = read(tree, "trained/noisy_accuracy"), read(tree, "trained/clean_accuracy_few")
    for i in _cells(tree, images, chosen):
        look = _look(tree, i, marker=True)
        _range(ax, omega, noisy[i][:, columns], _cell_name(tree, i), {**look, "markersize": 3})
        ax.axhline(clean[i].mean(), color=look["color"], linewidth=0.6, linestyle=":")
    ax.set_xscale("log")
    _mark(ax, float(read(tree, "disturbances/attack_frequency")))
    ax.set_ylim(0, None)
    ax.set_xlabel(r"frequency of the noise $\omega$ [rad/s]")
    ax.set_ylabel("accuracy")
    heading(ax, f"Noise of amplitude {size:g}", "measured")


def draw_amplitudes(tree: xr.DataTree, ax: Axes, images: str | None = None, chosen: int = 4) -> None:
    """Accuracy at the attack frequency against the amplitude; left end: undisturbed."""
    sizes = _amplitudes(tree)
    columns = [_attack_column(tree, float(a)) for a in sizes]
    x = np.concatenate([[sizes[0] ** 2 / sizes[1] if len(sizes) > 1 else sizes[0] / 3], sizes])
    for i in _cells(tree, images, chosen):
        clean = read(tree, "trained/clean_accuracy_few")[i]
        values = np.concatenate([clean[:, None], read(tree, "trained/noisy_accuracy")[i][:, columns]], axis=1)
        _range(ax, x, values, _cell_name(tree, i), {**_look(tree, i, marker=True), "markersize": 3})
    ax.set_xscale("log")
    ax.set_xticks(x, ["0", *(f"{a:g}" for a in sizes)])
    ax.minorticks_off()
    ax.set_ylim(0, None)
    ax.set_xlabel("amplitude of the noise")
    ax.set_ylabel("accuracy")
    heading(ax, "At the attack frequency", "measured")


def draw_predicted_loss(tree: xr.DataTree, ax: Axes, images: str | None = None, amplitude: float | None = None) -> None:
    """Loss of accuracy against predicted gain (geometric mean over layers): a mark per cell, seed and frequency.

    Only cells that are evidence are filled; a black edge: A, B and the steps were trained too. The rank correlation and
    its interval are those of the dataset.
    """
    columns, size = _cosines(tree, amplitude)
    order = np.argsort(read_labels(tree, "trained/gain", "factor").astype(float))
    gain = np.exp(np.log(read(tree, "trained/gain")).mean(axis=-1))[:, :, order]
    loss = read(tree, "trained/clean_accuracy_few")[:, :, None] - read(tree, "trained/noisy_accuracy")[:, :, columns]
    evidence = read(tree, "cells/evidence").astype(bool)
    frozen = _cells(tree, images)
    for i in [*frozen, *_cells(tree, images, trained="all")]:
        look = _look(tree, i, marker=True)
        ax.plot(
            gain[i].ravel(), loss[i].ravel(), label=_cell_name(tree, i) if i in frozen else "", markersize=3,
            linestyle="none", marker=look["marker"], color=look["color"], markeredgewidth=0.5,
            markeredgecolor=look["color"] if i in frozen else INK,
            markerfacecolor=look["color"] if evidence[i] else "white",
        )  # fmt: skip
    ax.set_xscale("log")
    ax.axhline(0.0, color=FAINT, linewidth=0.7)
    ax.set_xlabel("predicted gain of the layers")
    ax.set_ylabel("loss of accuracy")
    names = [str(v) for v in read_labels(tree, "correlation/rank", "data")]
    i = 0 if images is None else names.index(images)
    j = int(np.argmin(np.abs(read_labels(tree, "correlation/rank", "alpha").astype(float) - size)))
    value, low, high = (
        float(read(tree, f"correlation/{name}")[i, j, 0]) for name in ("rank", "rank_low_cells", "rank_high_cells")
    )
    said = f"rank corr. {value:.2f} [{low:.2f}, {high:.2f}]" if np.isfinite(value) else "no evidence"
    heading(ax, f"Amplitude {size:g}", said)


def draw_mechanism(tree: xr.DataTree, ax: Axes, images: str | None = None, chosen: int = 4) -> None:
    """Gain of every feature at the attack frequency: measured over the length of the data against predicted."""
    for i in _cells(tree, images, chosen):
        look = {**_look(tree, i, marker=True), "linestyle": "none", "markersize": 2}
        x, y = (read(tree, f"trained/channel_gain{end}")[i].ravel() for end in ("", "_measured"))
        ax.plot(x, y, label=_cell_name(tree, i), alpha=0.5, **look)
    low, high = ax.get_xlim()
    ends = np.array([max(low, 1e-2), high])
    ax.plot(ends, ends, color=INK, linewidth=0.7)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("predicted gain of a feature")
    ax.set_ylabel("measured, from rest")
    heading(ax, "At the attack frequency", "measured")


def draw_training(
    tree: xr.DataTree, ax: Axes, images: str | None = None, amplitude: float | None = None, chosen: int = 4
) -> None:
    """Accuracy while training: undisturbed (solid), and under noise at the attack frequency (dashed)."""
    sizes = _amplitudes(tree)
    size = float(sizes[-1] if amplitude is None else amplitude)
    at = 1 + int(np.argmin(np.abs(sizes - size)))
    for i in _cells(tree, images, chosen):
        look = _look(tree, i)
        steps, curve = read(tree, "trained/observed")[i].mean(axis=0), read(tree, "trained/curve")[i]
        _range(ax, steps, curve[:, :, 0], _cell_name(tree, i), {**look, "linestyle": "-"})
        _range(ax, steps, curve[:, :, at], "", {**look, "linestyle": "--"})
    ax.set_ylim(0, None)
    ax.set_xlabel("optimiser step")
    ax.set_ylabel("accuracy")
    heading(ax, f"Clean, and attacked at {size:g} (dashed)", "measured")


def draw_conditioning(
    tree: xr.DataTree, ax: Axes, images: str | None = None, amplitude: float | None = None, name: str = "kappa"
) -> None:
    """Accuracy of every cell, undisturbed (filled) and attacked (open), against kappa or the deviation from LegS.

    Args:
        tree: the dataset.
        ax: the panel.
        images: data set; the first by default.
        amplitude: of the noise at the attack frequency; the largest by default.
        name: "kappa" or "deviation".

    Raises:
        InputError: another name.
    """
    if name not in ("kappa", "deviation"):
        raise InputError(f"no quantity {name!r}: there are kappa and deviation")
    column = _attack_column(tree, amplitude)
    x = read(tree, f"trained/{name}").mean(axis=1)
    clean, noisy = read(tree, "trained/clean_accuracy"), read(tree, "trained/noisy_accuracy")[:, :, column]
    shown = [i for i in _cells(tree, images) if np.isfinite(x[i])]
    floor = 0.5 * min((x[i] for i in shown if x[i] > 0), default=1.0)
    for i in shown:
        look = {**_look(tree, i, marker=True), "linestyle": "none", "markersize": 4}
        at = max(float(x[i]), floor)
        for values, face in ((clean[i], look["color"]), (noisy[i], "white")):
            ax.vlines(at, values.min(), values.max(), color=look["color"], linewidth=0.8)
            label = _cell_name(tree, i) if face != "white" else ""
            ax.plot([at], [values.mean()], label=label, markerfacecolor=face, **look)
    ax.set_xscale("log")
    ax.set_ylim(0, None)
    ax.set_xlabel(
        r"condition number $\kappa(V)$" if name == "kappa" else r"largest deviation from LegS (S4: 0, at the left)"
    )
    ax.set_ylabel("accuracy")
    heading(ax, "Clean and attacked (open)", "measured")


def draw_comparison(tree: xr.DataTree, ax: Axes, outcome: str = "clean", images: str | None = None) -> None:
    """Paired differences between variants in percentage points: mean over seeds and bootstrap interval.

    Args:
        tree: the dataset.
        ax: the panel.
        outcome: "clean", "attacked" or "own".
        images: data set; the first by default.

    Raises:
        InputError: another outcome.
    """
    words = {"clean": "Clean accuracy", "attacked": "Accuracy, attacked", "own": "Accuracy, own worst frequency"}
    if outcome not in words:
        raise InputError(f"no outcome {outcome!r}: there are {', '.join(words)}")
    names = [str(v) for v in read(tree, "comparison/images")]
    wanted = names[0] if images is None else images
    rows = [i for i, n in enumerate(names) if n == wanted]
    first, second = read(tree, "comparison/first"), read(tree, "comparison/second")
    mean, low, high = (100 * read(tree, f"comparison/{outcome}{end}") for end in ("", "_low", "_high"))
    height = np.arange(len(rows), dtype=float)[::-1]
    labels = [f"{variant_name(str(first[i]))} \N{MINUS SIGN} {variant_name(str(second[i]))}" for i in rows]
    ax.axvline(0.0, color=FAINT, linewidth=0.7)
    ax.hlines(height, low[rows], high[rows], color=series_style(0)["color"], linewidth=1.4)
    ax.plot(mean[rows], height, "o", markersize=4, color=series_style(0)["color"])
    ax.set_yticks(height, labels)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.set_xlabel("percentage points")
    heading(ax, words[outcome], "measured")


# ---------------------------------------------------------------------------------------------------- part (c)


def draw_regression(tree: xr.DataTree, ax: Axes, reading: str = "in-phase", seed: int | None = None) -> None:
    """Predicted amplitude of sinusoids of amplitude 1: median over seeds and their range; grey: the trained band.

    Args:
        tree: the dataset.
        ax: the panel.
        reading: "in-phase" or "network".
        seed: of one run; None for the median and range of all.

    Raises:
        InputError: the dataset has no such reading.
    """
    readings = [str(v) for v in read_labels(tree, "regression/predicted", "reading")]
    if reading not in readings:
        raise InputError(f"no reading {reading!r}: there are {', '.join(readings)}")
    omega = read_labels(tree, "regression/predicted", "omega").astype(float)
    values = read(tree, "regression/predicted")[:, readings.index(reading)]
    names = [str(v) for v in read_labels(tree, "regression/predicted", "init")]
    ax.axvspan(0, float(read(tree, "regression/edge")), color=FAINT, alpha=0.18, linewidth=0)
    ax.axvline(float(read(tree, "regression/last_spike")), color=INK, linewidth=0.7, linestyle=":")
    ax.axhline(0.0, color=FAINT, linewidth=0.7)
    others = [name for name in names if name != "s4"]
    for name, runs in zip(names, values, strict=True):
        look = {"color": INK, "linestyle": "-"} if name == "s4" else series_style(others.index(name))
        if seed is None:
            band(ax, omega, runs.min(axis=0), runs.max(axis=0), look["color"], alpha=0.15)
        ax.plot(omega, np.median(runs, axis=0) if seed is None else runs[seed], label=variant_name(name), **look)
    # at a spike a prediction may be twenty times too large: what matters is the sign
    ax.set_ylim(max(float(values.min()) - 0.1, -3.0), min(float(values.max()) + 0.1, 3.0))
    ax.set_xlim(omega[0], omega[-1])
    ax.set_xlabel("frequency $s$ [rad/s]")
    ax.set_ylabel("predicted amplitude (true: 1)")
    heading(ax, {"in-phase": "In-phase reading", "network": "Gated network"}[reading], "measured")


# ---------------------------------------------------------------------------------------------------- figures


def figure_sweep(tree: xr.DataTree, venue: str = "screen", images: str | None = None) -> Figure:
    """Accuracy by frequency and amplitude, and while training."""
    sizes = _amplitudes(tree)
    draws = [
        partial(draw_frequency_sweep, images=images, amplitude=float(sizes[0])),
        partial(draw_frequency_sweep, images=images, amplitude=float(sizes[-1])),
        partial(draw_amplitudes, images=images), partial(draw_training, images=images),
    ]  # fmt: skip
    return page(venue, 4.6, draws, tree, legend=4)


def figure_prediction(tree: xr.DataTree, venue: str = "screen", images: str | None = None) -> Figure:
    """What the transfer functions predict beside what happens: loss of accuracy, gain of features, conditioning."""
    draws = [
        partial(draw_predicted_loss, images=images), partial(draw_mechanism, images=images),
        partial(draw_conditioning, images=images),
        partial(draw_conditioning, images=images, name="deviation"),
    ]  # fmt: skip
    return page(venue, 5.2, draws, tree, legend=4)


def figure_comparison(tree: xr.DataTree, venue: str = "screen", images: str | None = None) -> Figure:
    """Paired differences between the headline variants."""
    draws = [partial(draw_comparison, outcome=name, images=images) for name in ("clean", "attacked", "own")]
    return page(venue, 5.2, draws, tree, columns=1)


def figure_regression(tree: xr.DataTree, venue: str = "screen") -> Figure:
    """The amplitude of a sinusoid beyond the trained band, by both readings."""
    readings = [str(v) for v in read_labels(tree, "regression/predicted", "reading")]
    return page(venue, 2.6, [partial(draw_regression, reading=name) for name in readings], tree, legend=4)


FIGURES: dict[str, Callable[..., Figure]] = {
    "theory": figure_theory,
    "discretised": figure_discretised,
    "sweep": figure_sweep,
    "prediction": figure_prediction,
    "comparison": figure_comparison,
    "regression": figure_regression,
}
GROUPS: dict[str, tuple[str, ...]] = {
    "theory": ("theory",),
    "discretised": ("theory",),
    "sweep": ("trained",),
    "prediction": ("trained", "correlation"),
    "comparison": ("comparison",),
    "regression": ("regression",),
}
