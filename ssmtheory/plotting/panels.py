"""What every subject's panels share: reading a dataset, headings with a status word, legends off the data, pages.

`draw(tree, ax)` puts one quantity into one panel; `arrange` and `page` put panels into a figure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.plotting.style import new_figure, panel_letters, style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Draw = Callable[["xr.DataTree", "Axes"], Any]

__all__ = [
    "Draw",
    "arrange",
    "band",
    "cell_edges",
    "groups_of",
    "heading",
    "init_name",
    "integer_axis",
    "intervals",
    "label_size",
    "legend_above",
    "page",
    "read",
    "read_labels",
    "shared_legend",
    "size_axis",
    "state_dims",
    "status_of",
]


# ---------------------------------------------------------------------------------------------------- the dataset


def read(tree: xr.DataTree, path: str) -> np.ndarray:
    """A variable of a dataset as an array; floats as float64.

    Args:
        tree: the dataset.
        path: group and variable, ``"spikes/height"``.

    Raises:
        InputError: the dataset has no such variable.
    """
    try:
        array = np.asarray(tree[path].values)
    except KeyError:
        raise InputError(f"the dataset ({tree.attrs.get('schema', 'no schema')}) has no {path}.") from None
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def read_labels(tree: xr.DataTree, path: str, dim: str) -> np.ndarray:
    """Labels of a variable's dimension: its coordinate where it has one, else 0, 1, ..."""
    array = tree[path]
    return np.asarray(array[dim].values) if dim in array.coords else np.arange(array.sizes[dim])


def groups_of(tree: xr.DataTree) -> set[str]:
    """Names of the groups that a dataset has; what its run did not measure is not there."""
    return {str(name) for name, node in tree.children.items() if node.data_vars}


def state_dims(tree: xr.DataTree, path: str) -> np.ndarray:
    """State dimensions N of a variable, as integers."""
    return read_labels(tree, path, "state_dim").astype(int)


def status_of(tree: xr.DataTree, path: str, chosen: Any = None) -> str:
    """How the numbers of a figure are known, in the words of the dataset: the weakest of them.

    Args:
        tree: the dataset.
        path: a variable of codes with the attribute `flag_meanings`, weakest first.
        chosen: index or mask of the numbers that are drawn; all by default.
    """
    codes = read(tree, path)
    codes = codes if chosen is None else codes[chosen]
    words = str(tree[path].attrs["flag_meanings"]).split()
    return words[int(np.min(codes))].replace("_", " ") if codes.size else ""


_NAMES = {
    "legs": "LegS",
    "legt": "LegT",
    "fout": "FouT",
    "lagt": "LagT",
    "s4": "S4",
    "s4d": "S4D",
    "s5": "S5",
    "ptd": "PTD",
    "dss": "DSS",
    "lru": "LRU",
    "inv": "Inv",
    "lin": "Lin",
    "arctan": "Arctan",
    "hippo": "HiPPO",
    "rho": r"$\rho$",
    "real": "Real",
}


def init_name(label: str) -> str:
    """An initialisation's label as it is written in a figure.

    >>> init_name("s4d-legs"), init_name("ptd-0.1"), init_name("hippo-rho-10")
    ('S4D-LegS', 'PTD 0.1', 'HiPPO-$\\\\rho$ 10')
    """
    parts = label.split("-")
    text = _NAMES.get(parts[0], parts[0])
    for part in parts[1:]:
        text += f"-{_NAMES[part]}" if part in _NAMES else f" {part}"
    return text


# ---------------------------------------------------------------------------------------------------- one panel


def label_size(ax: Axes) -> float:
    """Size of the axis labels [pt]."""
    return float(ax.xaxis.label.get_fontsize())


def heading(ax: Axes, text: str, status: str = "", legend_rows: int = 0) -> None:
    """Left-hand title, the status word at the right, and room for rows of a legend between title and axes."""
    size = label_size(ax)
    pad = 4.0 + legend_rows * 1.25 * size
    ax.set_title(text, loc="left", pad=pad)
    if status:
        ax.set_title(status, loc="right", pad=pad, style="italic", color="#555555", fontsize=size - 1)


def legend_above(ax: Axes, ncols: int = 4, *, swatch: str = "", reverse: bool = False) -> None:
    """Legend between title and axes, never over data.

    Args:
        ax: the panel; `heading` makes the room.
        ncols: entries in a row.
        swatch: entry of the grey permutation interval, put first.
        reverse: the last plotted comes first.
    """
    from matplotlib.patches import Patch

    handles, labels = ax.get_legend_handles_labels()
    if reverse:
        handles, labels = handles[::-1], labels[::-1]
    if swatch:
        handles, labels = [Patch(color="#BBBBBB"), *handles], [swatch, *labels]
    legend = ax.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(-0.03, 1.0),
        borderaxespad=0.0,
        borderpad=0.1,
        ncols=ncols,
        columnspacing=0.7,
        handletextpad=0.4,
        labelspacing=0.2,
        handlelength=1.5,
    )
    # the title's distance makes the room; a wide legend must not shrink the panel
    legend.set_in_layout(False)


def integer_axis(ax: Axes, which: str, label: str) -> None:
    """Whole numbers only at the ticks of the "x" or "y" axis."""
    from matplotlib.ticker import MaxNLocator

    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.set_label_text(label)


def size_axis(ax: Axes, sizes: Sequence[int] | np.ndarray, which: str = "x") -> None:
    """Logarithmic axis of state dimensions, labelled with (at most seven of) the sizes themselves."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    chosen = sorted({int(n) for n in sizes})
    step = -(-len(chosen) // 7)
    if which == "x":
        ax.set_xscale("log", base=2)
    else:
        ax.set_yscale("log", base=2)
    axis = ax.xaxis if which == "x" else ax.yaxis
    # counted from the largest: the largest is what most is said about
    axis.set_major_locator(FixedLocator([float(n) for n in chosen[::-1][::step]]))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_label_text("state dimension $N$")


def band(ax: Axes, x: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str, alpha: float = 0.22) -> None:
    """A band between two curves; of a single point, a bar."""
    if len(x) == 1:
        ax.vlines(x, low, high, color=colour, alpha=max(alpha, 0.5), linewidth=3)
    else:
        ax.fill_between(x, low, high, color=colour, alpha=alpha, linewidth=0)


def intervals(ax: Axes, x: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str) -> bool:
    """Interval bars; False where the dataset has none (a single sequence cannot be resampled)."""
    if not (np.isfinite(low) & np.isfinite(high)).any():
        return False
    ax.vlines(x, low, high, color=colour, linewidth=0.9)
    return True


def cell_edges(centres: np.ndarray) -> np.ndarray:
    """Cell edges halfway between neighbouring labels; half a unit beyond the ends."""
    centres = np.asarray(centres, dtype=float)
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[centres[0] - 0.5], middle, [centres[-1] + 0.5]])


# ---------------------------------------------------------------------------------------------------- many panels


def arrange(figure: Figure, tree: xr.DataTree, draws: Sequence[Draw], *, columns: int = 2) -> None:
    """Put lettered panels into a figure, row by row; a colour bar in one row does not narrow the panels of the others.

    Args:
        figure: an empty figure of `ssmtheory.plotting.style.new_figure`.
        tree: the dataset.
        draws: functions `draw(tree, ax)`, one per panel.
        columns: panels in a row; the last row may have fewer, and then wider ones.
    """
    rows = -(-len(draws) // columns)
    axes = []
    for i, row in enumerate(figure.subfigures(rows, 1, squeeze=False).ravel()):
        chosen = draws[i * columns : (i + 1) * columns]
        for ax, draw in zip(row.subplots(1, len(chosen), squeeze=False).ravel(), chosen, strict=True):
            draw(tree, ax)
            axes.append(ax)
    if len(axes) > 1:
        panel_letters(axes)


def page(
    venue: str,
    height: float,
    draws: Sequence[Draw],
    tree: xr.DataTree,
    *,
    columns: int = 2,
    legend: int = 0,
) -> Figure:
    """A figure of lettered panels, by default in two columns.

    Args:
        venue: key of :data:`ssmtheory.plotting.style.VENUES`.
        height: [inch] at a width of 5.5 in; it scales with the venue's width, up to its text height.
        draws: functions `draw(tree, ax)`, one per panel.
        tree: the dataset.
        columns: panels in a row.
        legend: columns of one legend for all panels, below them; 0 for none.
    """
    with style(venue) as v:
        figure = new_figure(venue, height=min(height * v.full / 5.5, v.max_height))
        arrange(figure, tree, draws, columns=columns)
        if legend:
            shared_legend(figure, columns=legend)
    return figure


def shared_legend(figure: Figure, *, columns: int = 4) -> None:
    """One legend below all panels that have none of their own: every label once, as a line where it is one anywhere."""
    found: dict[str, Any] = {}
    for ax in (ax for ax in figure.axes if ax.get_legend() is None):
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            points = getattr(found.get(label), "get_linestyle", lambda: "-")() == "None"
            if label not in found or points:
                found[label] = handle
    if found:
        figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=columns, columnspacing=1.2)
