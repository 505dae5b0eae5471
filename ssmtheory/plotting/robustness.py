"""Panels and figures of the experiment ``robustness``.

Part (a), from transfer functions alone: `draw_theory_x(tree, ax)` reads the group "theory". A gain is the largest over
unit readouts; the dashed vertical line is the frequency at which S4D amplifies most, which the noise has.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.plotting.panels import heading, init_name, page, read, read_labels, state_dims
from ssmtheory.plotting.style import FAINT, INK, LINE_STYLES, plain_log_ticks, series_style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "FIGURES",
    "GROUPS",
    "draw_theory_attack",
    "draw_theory_discrete",
    "draw_theory_gain",
    "draw_theory_low",
    "draw_theory_steps",
    "draw_theory_trade",
    "figure_discretised",
    "figure_theory",
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


FIGURES: dict[str, Callable[..., Figure]] = {"theory": figure_theory, "discretised": figure_discretised}
GROUPS: dict[str, tuple[str, ...]] = {"theory": ("theory",), "discretised": ("theory",)}
