"""Bode, Nyquist, pole and pseudospectrum plots of linear systems.

`draw_x(data, ax)` takes whatever holds the arrays under their usual names: a dataclass (`ssmtheory.lti.bode(system)`,
`ssmtheory.lti.nyquist(system)`, `ssmtheory.lti.pseudospectra.portrait(A)`), a mapping of arrays, or an xarray dataset.
Nothing is computed here but moduli and phases, and nothing is dropped: the curve of a complex system has no mirror
image, so that negative frequencies are drawn where the data have them.

>>> import numpy as np
>>> from ssmtheory.plotting import style
>>> omega = np.geomspace(0.1, 10, 50)
>>> figure = figure_bode({"omega": omega, "response": 1 / (1j * omega + 1)})
>>> [ax.get_ylabel() for ax in figure.axes]
['gain $|G|$', 'phase [degree]']
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.plotting.panels import heading, legend_above, page
from ssmtheory.plotting.style import FAINT, INK, OKABE_ITO, plain_log_ticks, series_style, small_bar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "draw_gain",
    "draw_nyquist",
    "draw_phase",
    "draw_poles",
    "draw_pseudospectrum",
    "figure_bode",
]

Label = str | Sequence[str] | None


# ---------------------------------------------------------------------------------------------------- the data


def _field(data: Any, *names: str, optional: bool = False) -> np.ndarray | None:
    """The first of these that `data` has, as an array: an entry of a mapping or dataset, or an attribute."""
    for name in names:
        if isinstance(data, Mapping) or hasattr(data, "data_vars"):
            if name in data:  # a dataset's coordinates too
                return np.asarray(data[name])
        elif hasattr(data, name):
            value = getattr(data, name)
            return np.asarray(value() if callable(value) else value)
    if optional:
        return None
    raise InputError(f"{type(data).__name__} has no {' or '.join(names)}: pass an object, mapping or dataset with it.")


def _required(data: Any, *names: str) -> np.ndarray:
    found = _field(data, *names)
    assert found is not None
    return found


def _curves(data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (k,) and the response as (k, entries): each output-input pair is one entry."""
    omega, response = _required(data, "omega"), _required(data, "response")
    if omega.ndim != 1 or response.shape[:1] != omega.shape:
        raise InputError(f"omega {omega.shape} and response {response.shape}: the first axis must be the frequencies.")
    return omega.astype(float), response.reshape(len(omega), -1)


def _names(label: Label, count: int) -> list[str]:
    """One label per entry; None numbers them where there are several, "" leaves them unnamed."""
    if label is None:
        return [""] if count == 1 else [f"entry {i}" for i in range(count)]
    if label == "":
        return [""] * count
    names = [label] if isinstance(label, str) else list(label)
    if len(names) != count:
        raise InputError(f"{len(names)} labels for {count} curves: give one each.")
    return names


def _finish(ax: Axes, names: Sequence[str], text: str) -> None:
    shown = [name for name in names if name]
    heading(ax, text, legend_rows=-(-len(shown) // 4))
    if shown:
        legend_above(ax)


# ---------------------------------------------------------------------------------------------------- frequency


def draw_gain(data: Any, ax: Axes, *, label: Label = None, largest: bool = False) -> None:
    """Bode plot, upper half: modulus of the transfer function over positive frequencies, both axes logarithmic.

    Args:
        data: `omega` (k,) [rad/s] and `response` (k,) or (k, p, m), complex.
        ax: the panel.
        label: one name per output-input pair.
        largest: draw the largest singular value alone, in place of each pair's modulus.
    """
    omega, values = _curves(data)
    gain = np.abs(values)
    if largest:
        response = _required(data, "response")
        gain = np.linalg.norm(response.reshape(len(omega), *(response.shape[1:] or (1, 1))), 2, axis=(1, 2))[:, None]
    names, positive = _names(label, gain.shape[1]), omega > 0
    for i, name in enumerate(names):
        ax.plot(omega[positive], gain[positive, i], label=name or None, **series_style(i))
    ax.set_xscale("log")
    ax.set_yscale("log")
    plain_log_ticks(ax.yaxis, *ax.get_ylim())
    ax.set_xlabel(r"frequency $\omega$ [rad/s]")
    ax.set_ylabel(r"gain $\sigma_1(G)$" if largest else "gain $|G|$")
    _finish(ax, names, "Gain")


def draw_phase(data: Any, ax: Axes, *, label: Label = None) -> None:
    """Bode plot, lower half: phase [degree] over positive frequencies, without jumps of a full turn.

    Args:
        data: as for :func:`draw_gain`; a `phase` [rad] in it is used as it is.
        ax: the panel.
        label: one name per output-input pair.
    """
    omega, values = _curves(data)
    phase = _field(data, "phase", optional=True)
    phase = np.unwrap(np.angle(values), axis=0) if phase is None else phase.reshape(values.shape)
    names, positive = _names(label, values.shape[1]), omega > 0
    for i, name in enumerate(names):
        ax.plot(omega[positive], np.degrees(phase[positive, i]), label=name or None, **series_style(i))
    ax.set_xscale("log")
    ax.set_xlabel(r"frequency $\omega$ [rad/s]")
    ax.set_ylabel("phase [degree]")
    _finish(ax, names, "Phase")


def figure_bode(data: Any, venue: str = "screen", *, label: Label = None) -> Figure:
    """Gain above phase.

    Args:
        data: as for :func:`draw_gain`.
        venue: key of :data:`ssmtheory.plotting.style.VENUES`.
        label: one name per output-input pair.
    """

    def gain(given: Any, ax: Axes) -> None:
        draw_gain(given, ax, label=label)
        ax.set_xlabel("")

    def phase(given: Any, ax: Axes) -> None:
        draw_phase(given, ax, label="")

    return page(venue, 3.6, (gain, phase), data, columns=1)


def draw_nyquist(data: Any, ax: Axes, *, label: Label = None, critical: bool = True) -> None:
    """The curve of the transfer function in the complex plane; an arrow shows the direction of rising frequency.

    Negative frequencies, where the data have them, are drawn thin: for a complex system they are no mirror image.

    Args:
        data: `omega` (k,) increasing and `response` (k,) or (k, p, m).
        ax: the panel.
        label: one name per output-input pair.
        critical: mark -1, the point that decides about negative unit feedback.
    """
    omega, values = _curves(data)
    names = _names(label, values.shape[1])
    ax.axhline(0, color=FAINT, linewidth=0.5)
    ax.axvline(0, color=FAINT, linewidth=0.5)
    for i, name in enumerate(names):
        look, curve = series_style(i), values[:, i]
        upper, lower = curve[omega >= 0], curve[omega <= 0]
        ax.plot(upper.real, upper.imag, label=name or None, **look)
        if len(lower) > 1:
            ax.plot(lower.real, lower.imag, **{**look, "linewidth": 0.6})
        _arrow(ax, upper if len(upper) > 2 else curve, look["color"])
    if critical:
        ax.plot([-1], [0], linestyle="none", marker="+", color=INK, markersize=6)
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.08)
    ax.set_xlabel("real part")
    ax.set_ylabel("imaginary part")
    _finish(ax, names, r"$G(\mathrm{i}\omega)$")


def _arrow(ax: Axes, curve: np.ndarray, colour: str) -> None:
    """An arrow head halfway along a curve's length."""
    length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(curve)))])
    if not length[-1] > 0:
        return
    at = int(np.clip(np.searchsorted(length, length[-1] / 2), 1, len(curve) - 1))
    start, end = curve[at - 1], curve[at]
    ax.annotate(
        "",
        (end.real, end.imag),
        (start.real, start.imag),
        arrowprops={"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8},
    )


# ---------------------------------------------------------------------------------------------------- complex plane


def draw_poles(data: Any, ax: Axes, *, label: str = "poles", zeros: Any = None, dt: float | None = None) -> None:
    """Poles (crosses) and zeros (circles) in the complex plane, with the boundary of stability.

    Args:
        data: (n,) complex poles, or an object with `poles` (an attribute or a method) and perhaps `zeros`.
        ax: the panel.
        label: name of the poles.
        zeros: (k,) complex zeros.
        dt: step [s] of a discrete system, whose boundary is the unit circle; None reads it from `data`.
    """
    plain = isinstance(data, np.ndarray | list | tuple)
    poles = np.asarray(data) if plain else _required(data, "poles")
    poles = np.asarray(poles, dtype=complex).ravel()
    if zeros is None and not plain:
        zeros = _field(data, "zeros", optional=True)
    if dt is None and not plain:
        dt = data.get("dt") if isinstance(data, Mapping) else getattr(data, "dt", None)
    ax.axhline(0, color=FAINT, linewidth=0.5)
    if dt is None:
        ax.axvline(0, color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
    else:
        turn = np.linspace(0, 2 * np.pi, 361)
        ax.plot(np.cos(turn), np.sin(turn), color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
        ax.set_aspect("equal", adjustable="datalim")
    ax.plot(poles.real, poles.imag, linestyle="none", marker="x", color=OKABE_ITO[0], markersize=4, label=label)
    if zeros is not None and np.size(zeros):
        zeros = np.asarray(zeros, dtype=complex).ravel()
        look: dict[str, Any] = {
            "linestyle": "none",
            "marker": "o",
            "markerfacecolor": "none",
            "color": OKABE_ITO[1],
            "markersize": 4,
        }
        ax.plot(zeros.real, zeros.imag, label="zeros", **look)
    ax.margins(0.08)
    ax.set_xlabel("real part")
    ax.set_ylabel("imaginary part")
    inside = np.abs(poles) < 1 if dt is not None else poles.real < 0
    heading(ax, "Poles", f"{int(inside.sum())} of {len(poles)} stable", legend_rows=1)
    legend_above(ax)


def draw_pseudospectrum(
    data: Any, ax: Axes, *, levels: Sequence[float] | None = None, axis: bool = True, bar: bool = True
) -> Any:
    """Pseudospectra: contours of eps = 1/|(z - A)^-1| in the complex plane, over the eigenvalues.

    Args:
        data: `real` or `x` (k,), `imag` or `y` (l,), and `resolvent_norm` (l, k) or its inverse, `smallest` (the
            smallest singular value of z - A); perhaps `eigenvalues` (n,) and `boundary` (r,) of the numerical range.
        ax: the panel.
        levels: values of log10(eps); by default about eight over the grid's range.
        axis: draw the imaginary axis, the boundary of stability.
        bar: put a colour bar beside the panel.

    Returns:
        the contours, for a colour bar elsewhere.
    """
    from matplotlib.ticker import MaxNLocator

    real, imag = _required(data, "real", "x").astype(float), _required(data, "imag", "y").astype(float)
    sigma = _field(data, "smallest", optional=True)
    # at an eigenvalue the resolvent is infinite, or its norm overflows: eps = 0 there, below every level
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma = 1 / _required(data, "resolvent_norm") if sigma is None else sigma
        exponent = np.log10(np.nan_to_num(sigma, nan=0.0))
    if exponent.shape != (len(imag), len(real)):
        raise InputError(f"resolvent norms {exponent.shape}: the grid is {(len(imag), len(real))} (imag, real).")
    finite = exponent[np.isfinite(exponent)]
    if not finite.size:
        raise InputError("the resolvent norm is infinite or NaN on the whole grid.")
    if levels is None:
        # a resolution-limited peak must not use up the levels: cut its deepest 2 %
        levels = MaxNLocator(8).tick_values(float(np.quantile(finite, 0.02)), float(finite.max()))
        levels = [level for level in levels if finite.min() <= level <= finite.max()]
    exponent = np.where(np.isfinite(exponent), exponent, finite.min() - 1)
    shown = np.asarray(levels, dtype=float)
    contours = ax.contour(real, imag, exponent, levels=shown, cmap="viridis", linewidths=0.8)
    contours.set_rasterized(False)
    if axis:
        ax.axvline(0, color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
    field = _field(data, "boundary", optional=True)
    if field is not None and field.size:
        field = np.append(field, field[0])
        ax.plot(field.real, field.imag, color=FAINT, linewidth=0.8, linestyle=(0, (1, 1.2)))
    eigenvalues = _field(data, "eigenvalues", optional=True)
    if eigenvalues is not None:
        ax.plot(eigenvalues.real, eigenvalues.imag, linestyle="none", marker=".", color=OKABE_ITO[1], markersize=3)
    ax.set_xlim(real.min(), real.max())
    ax.set_ylim(imag.min(), imag.max())
    ax.set_xlabel("real part")
    ax.set_ylabel("imaginary part")
    if bar:
        small_bar(ax, contours, r"$\log_{10}\varepsilon$", integer=False)
    return contours
