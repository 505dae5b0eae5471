"""House style of every figure: venue widths, fonts, colours, and files that are equal byte for byte.

The rules and why they hold:

- A figure has exactly the width its venue prints, so that fonts appear in the size set here (a tight bounding box
  changes the width).
- Text is STIX, which ships with matplotlib: no LaTeX, and the same glyphs on every machine.
- Fonts are embedded as TrueType (type 42): venues reject Type 3.
- Lines differ by colour (Okabe and Ito) *and* by dash and marker, so that a grey print can be read.
- Files carry no date: equal data give equal bytes. They carry a stamp that leads back to the run
  (`ssmtheory whence FILE`).

Figures are plain `matplotlib.figure.Figure` objects, never pyplot ones: no global backend or setting is touched.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssmtheory.errors import InputError, nearest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

__all__ = [
    "FORMATS",
    "LINE_STYLES",
    "MARKERS",
    "OKABE_ITO",
    "VENUES",
    "Venue",
    "freeze",
    "layout_defects",
    "new_figure",
    "panel_letters",
    "plain_log_ticks",
    "render",
    "save",
    "sequential_colours",
    "series_style",
    "small_bar",
    "style",
    "venue",
]


@dataclass(frozen=True)
class Venue:
    """Printed widths [inch] and font sizes [pt] of one venue.

    ``column`` is the width of one text column, ``full`` that of the page's text block (equal in one-column formats).
    ``max_height`` is the height of the text block: no figure can be taller.
    """

    name: str
    column: float
    full: float
    max_height: float
    font_size: float
    small_size: float
    source: str


# Widths from the venues' own style files: \textwidth and \columnwidth.
VENUES: dict[str, Venue] = {
    v.name: v
    for v in (
        Venue("neurips", 5.5, 5.5, 9.0, 8.0, 7.0, "neurips.sty: textwidth 5.5 in, textheight 9 in"),
        Venue("icml", 3.25, 6.75, 9.0, 8.0, 7.0, "icml.sty: columnwidth 3.25 in, textwidth 6.75 in, textheight 9 in"),
        Venue("iclr", 5.5, 5.5, 9.0, 8.0, 7.0, "iclr_conference.sty: textwidth 5.5 in, textheight 9 in"),
        Venue("jmlr", 6.0, 6.0, 8.5, 8.0, 7.0, "jmlr2e.sty: textwidth 6 in, textheight 8.5 in"),
        Venue("screen", 7.0, 7.0, 10.0, 9.0, 8.0, "quick-look figures of a run: no venue"),
    )
}

FORMATS = ("pdf", "png")

# Okabe and Ito (2008), without black first: black is kept for reference lines. Yellow comes last, it is weak on white.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
LINE_STYLES: tuple[Any, ...] = (
    "-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)),
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
SEQUENTIAL = "cividis"
INK, FAINT = "#000000", "#8A8A8A"


def venue(name: str) -> Venue:
    """Look up a venue; an unknown name is an :class:`~ssmtheory.errors.InputError` with the nearest match.

    >>> venue("icml").column, venue("icml").full
    (3.25, 6.75)
    """
    try:
        return VENUES[name]
    except KeyError:
        raise InputError(f"no venue '{name}': known are {', '.join(VENUES)}.{nearest(name, VENUES)}") from None


def _parameters(v: Venue) -> dict[str, Any]:
    return {
        "font.family": "STIXGeneral",
        "mathtext.fontset": "stix",
        "text.usetex": False,
        "font.size": v.font_size,
        "axes.titlesize": v.font_size,
        "axes.labelsize": v.font_size,
        "figure.titlesize": v.font_size + 1,
        "xtick.labelsize": v.small_size,
        "ytick.labelsize": v.small_size,
        "legend.fontsize": v.small_size,
        "legend.frameon": False,
        "legend.handlelength": 2.0,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "axes.titlepad": 4.0,
        "axes.labelpad": 2.5,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "xtick.minor.size": 1.5,
        "ytick.minor.size": 1.5,
        "lines.linewidth": 1.2,
        "lines.markersize": 3.0,
        "patch.linewidth": 0.6,
        "image.cmap": SEQUENTIAL,
        "image.interpolation": "nearest",
        "pdf.fonttype": 42,
        "pdf.compression": 6,
        "svg.fonttype": "none",
        "svg.hashsalt": "ssmtheory",
        "savefig.bbox": None,
        "savefig.dpi": 300,
        "figure.dpi": 100,
        "figure.constrained_layout.w_pad": 0.04,
        "figure.constrained_layout.h_pad": 0.03,
    }


@contextmanager
def style(name: str = "screen") -> Iterator[Venue]:
    """Settings of a venue on top of matplotlib's defaults, so that no user's matplotlibrc can change a figure.

    Args:
        name: a key of :data:`VENUES`.

    Yields:
        the :class:`Venue`.
    """
    import matplotlib as mpl
    from matplotlib.style import context

    v = venue(name)
    with context("default"), mpl.rc_context(_parameters(v)):  # type: ignore[arg-type]
        yield v


def new_figure(name: str = "screen", *, height: float, span: str = "full") -> Figure:
    """An empty figure of exactly the venue's width, with constrained layout.

    Call it, and draw, inside ``with style(name):``.

    Args:
        name: a key of :data:`VENUES`.
        height: [inch]; at most the venue's text height.
        span: ``"full"`` (text width) or ``"column"``.

    Raises:
        InputError: unknown venue or span, or a height that the page cannot hold.
    """
    from matplotlib.figure import Figure

    v = venue(name)
    if span not in ("full", "column"):
        raise InputError(f"span '{span}': use 'full' or 'column'.")
    if not 0 < height <= v.max_height:
        raise InputError(f"height {height:g} in: {v.name} pages hold up to {v.max_height:g} in.")
    figure = Figure(figsize=(v.full if span == "full" else v.column, height), layout="constrained")
    figure.set_gid(f"ssmtheory:{v.name}")
    return figure


def series_style(index: int, *, marker: bool = False) -> dict[str, Any]:
    """Keyword arguments of ``Axes.plot`` for the ``index``-th series: colour, dashes and, if asked for, a marker.

    Colours repeat after eight series, then with other markers: the first 64 pairs differ.

    >>> series_style(0)["color"], series_style(1, marker=True)["marker"]
    ('#0072B2', 's')
    """
    around, place = divmod(index, len(OKABE_ITO))
    result = {"color": OKABE_ITO[place], "linestyle": LINE_STYLES[index % len(LINE_STYLES)]}
    if marker:
        result["marker"] = MARKERS[(place + around) % len(MARKERS)]
    return result


def sequential_colours(values: Sequence[float] | Any) -> tuple[Any, ScalarMappable]:
    """One colour per value along viridis (without its palest end), and the mappable for a colour bar.

    For many curves in an order (layers): a legend of 64 entries says less than a colour bar.

    Args:
        values: (n,) numbers, for example layer labels.

    Returns:
        (n, 4) RGBA colours, and the mappable.
    """
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    array = np.asarray(values, dtype=float)
    shades = ListedColormap(colormaps["viridis"](np.linspace(0.0, 0.88, 256)))
    low, high = float(array.min()), float(array.max())
    norm = Normalize(low, high if high > low else low + 1)
    return shades(norm(array)), ScalarMappable(norm, shades)


def small_bar(
    ax: Axes | Sequence[Axes], mappable: ScalarMappable, label: str, *, integer: bool = True, **kwargs: Any
) -> Any:
    """A thin colour bar at the right of one or more panels.

    Args:
        ax: the panel, or the panels it belongs to.
        mappable: what is coloured.
        label: quantity and unit.
        integer: only whole numbers at the ticks.
        kwargs: passed to ``Figure.colorbar``.
    """
    from matplotlib.ticker import MaxNLocator

    axes = list(ax) if isinstance(ax, Sequence) else [ax]
    bar = axes[0].figure.colorbar(mappable, ax=axes, **{"aspect": 22, "pad": 0.02, **kwargs})
    bar.set_label(label)
    if integer:
        bar.ax.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    bar.outline.set_linewidth(0.4)
    return bar


def plain_log_ticks(axis: Any, low: float, high: float) -> None:
    """Label a logarithmic axis that spans less than two and a half decades with plain numbers: 10^0.3 says nothing.

    Args:
        axis: `ax.xaxis` or `ax.yaxis`, already logarithmic.
        low: smallest value to be labelled.
        high: largest value to be labelled.
    """
    import numpy as np
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

    if not (low > 0 and low < high < 300 * low):
        return
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = [f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d <= high]
        if 3 <= len(ticks) <= 5:
            break
    else:
        # less than an octave or so: round numbers, equally spaced
        ticks = [float(t) for t in MaxNLocator(3).tick_values(low, high) if low <= t <= high]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(NullLocator())


def panel_letters(axes: Sequence[Axes]) -> None:
    """Put (a), (b), ... before the left-hand title of each panel."""
    for letter, ax in zip("abcdefghijklmnopqrstuvwxyz", axes, strict=False):
        title = ax._left_title  # type: ignore[attr-defined]  # set_title would reset the distance to the panel
        title.set_text(f"({letter}) {title.get_text()}".rstrip())


def _venue_of(figure: Figure) -> str:
    gid = figure.get_gid() or ""
    return gid.removeprefix("ssmtheory:") if gid.startswith("ssmtheory:") else "screen"


def freeze(figure: Figure) -> None:
    """Compute the layout once and keep it, so that every format of a figure shows the same one, at any resolution.

    Raises:
        InputError: the panels do not fit into the figure.
    """
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    engine = figure.get_layout_engine()
    if not isinstance(engine, ConstrainedLayoutEngine):
        return
    with style(_venue_of(figure)), warnings.catch_warnings():
        # A layout that collapses would leave the panels at their default places, overlapping.
        warnings.filterwarnings("error", message=".*constrained_layout not applied.*")
        try:
            # Ticks and equal aspects depend on the size that the first pass gives the panels.
            for _ in range(2):
                engine.execute(figure)
        except UserWarning:
            width, height = figure.get_size_inches()
            raise InputError(f"the panels do not fit into {width:g} x {height:g} in: make the figure larger.") from None
    figure.set_layout_engine("none")


def render(figure: Figure, fmt: str, *, stamp: str | None = None, title: str | None = None) -> bytes:
    """One figure as the bytes of a file: no date, no host, no path in it.

    Args:
        figure: made by :func:`new_figure`.
        fmt: ``"pdf"``, ``"png"`` or ``"svg"``.
        stamp: written to the PDF's Keywords, the PNG's Description, the SVG's Keywords.
        title: written to the file's Title.

    Raises:
        InputError: another format (EPS cannot be written without a date).
    """
    metadata: dict[str, Any]
    if fmt == "pdf":
        metadata = {"Creator": "ssmtheory", "CreationDate": None, "Title": title, "Keywords": stamp}
    elif fmt == "png":
        metadata = {"Software": "ssmtheory", "Title": title, "Description": stamp}
    elif fmt == "svg":
        metadata = {"Creator": "ssmtheory", "Date": None, "Title": title, "Keywords": stamp}
    else:
        raise InputError(f"figure format '{fmt}': use pdf, png or svg.{nearest(fmt, ('pdf', 'png', 'svg'))}")
    # A None deletes matplotlib's default entry (dates); for our own keys it means "leave out".
    metadata = {k: v for k, v in metadata.items() if v is not None or k in ("CreationDate", "Date")}
    buffer = io.BytesIO()
    freeze(figure)
    with style(_venue_of(figure)), warnings.catch_warnings():
        # A glyph missing from STIX would print as a box: that is a defect, not a warning.
        warnings.filterwarnings("error", message=".*[Gg]lyph.*missing.*")
        figure.savefig(buffer, format=fmt, metadata=metadata, dpi=300)
    return buffer.getvalue()


def save(
    figure: Figure,
    stem: str | Path,
    *,
    stamp: str | None = None,
    title: str | None = None,
    formats: Sequence[str] = FORMATS,
) -> list[Path]:
    """Write a figure as ``stem.pdf`` and ``stem.png`` (300 dpi), each replaced in one step.

    Args:
        figure: made by :func:`new_figure`.
        stem: path without a suffix; its folder is made where missing.
        stamp: provenance line, see :func:`render`.
        title: title in the file's metadata.
        formats: any of pdf, png, svg.

    Returns:
        the paths written, in the order of ``formats``. All formats are rendered before the first is written.

    Raises:
        StoreError: the folder cannot be written.
    """
    from ssmtheory.results import fs

    stem = Path(stem)
    rendered = [
        (stem.with_name(f"{stem.name}.{fmt}"), render(figure, fmt, stamp=stamp, title=title)) for fmt in formats
    ]
    with fs.store_errors(stem):
        fs.make_folder(stem.parent)
        for path, data in rendered:
            fs.write_file(path, data)
    return [path for path, _ in rendered]


def layout_defects(figure: Figure, *, tolerance: float = 0.75) -> list[str]:
    """What a reader would see as broken: texts that overlap or leave the page, labels over data, empty panels.

    Args:
        figure: any figure; it is drawn once.
        tolerance: overlap that is ignored [pt] (rounded bounding boxes of neighbouring texts touch).

    Returns:
        one sentence per defect; empty when the figure is sound.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    freeze(figure)
    with style(_venue_of(figure)):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()
    slack = tolerance * figure.dpi / 72
    boxes: list[tuple[str, Any]] = []
    defects: list[str] = []
    for number, ax in enumerate(figure.axes):
        if not ax.get_visible():
            continue
        where = ax.get_title(loc="left") or ax.get_ylabel() or f"panel {number}"
        boxes += [(f"{name} in [{where}]", artist.get_window_extent(renderer)) for name, artist in _texts_of(ax)]
        marks = [*ax.lines, *ax.collections, *ax.images, *ax.patches, *ax.tables]
        if not marks and not ax.texts and ax.axison:
            defects.append(f"[{where}] is empty")
        defects += [f"{name} lies over data in [{where}]" for name in _over_data(ax, renderer, slack)]
    for text in [*figure.texts, *([figure._suptitle] if getattr(figure, "_suptitle", None) else [])]:  # type: ignore[attr-defined]
        if text.get_text() and text.get_visible():
            boxes.append((f"text '{text.get_text()}'", text.get_window_extent(renderer)))
    boxes += [(f"figure legend {i}", legend.get_window_extent(renderer)) for i, legend in enumerate(figure.legends)]
    unique = {(name, tuple(box.extents)): (name, box) for name, box in boxes}
    kept = [item for item in unique.values() if item[1].width > 0 and item[1].height > 0]
    page = figure.bbox
    for name, box in kept:
        if box.x0 < page.x0 or box.y0 < page.y0 or box.x1 > page.x1 or box.y1 > page.y1:
            defects.append(f"{name} leaves the page")
    for i, (name, box) in enumerate(kept):
        for other, second in kept[i + 1 :]:
            width = min(box.x1, second.x1) - max(box.x0, second.x0)
            height = min(box.y1, second.y1) - max(box.y0, second.y0)
            if width > slack and height > slack and tuple(box.extents) != tuple(second.extents):
                defects.append(f"{name} overlaps {other}")
    return defects


def _texts_of(ax: Axes) -> Iterator[tuple[str, Any]]:
    """Visible texts (and the legend) of one panel: titles, axis labels, tick labels within the view, annotations."""
    for loc in ("left", "center", "right"):
        text = {"left": ax._left_title, "center": ax.title, "right": ax._right_title}[loc]  # type: ignore[attr-defined]
        if text.get_text():
            yield f"title '{text.get_text()}'", text
    if ax.axison:
        for axis in (ax.xaxis, ax.yaxis):
            if not axis.get_visible():
                continue
            if axis.label.get_text() and axis.label.get_visible():
                yield f"label '{axis.label.get_text()}'", axis.label
            low, high = sorted(axis.get_view_interval())
            span = 1e-9 * (high - low)
            for minor in (False, True):
                for tick in axis.get_minor_ticks() if minor else axis.get_major_ticks():
                    if low - span <= tick.get_loc() <= high + span:
                        for text in (tick.label1, tick.label2):
                            if text.get_visible() and text.get_text():
                                yield f"tick '{text.get_text()}'", text
            offset = axis.get_offset_text()
            if offset.get_text() and offset.get_visible():
                yield f"offset '{offset.get_text()}'", offset
    for text in ax.texts:
        if text.get_text() and text.get_visible():
            yield f"text '{text.get_text()}'", text
    legend = ax.get_legend()
    if legend is not None:
        yield "legend", legend


def _over_data(ax: Axes, renderer: Any, slack: float) -> Iterator[str]:
    """Names of the legend or free texts (those without a background of their own) that cover a line or a point."""
    import numpy as np

    items: list[tuple[str, Any]] = []
    legend = ax.get_legend()
    if legend is not None:
        items.append(("legend", legend.get_window_extent(renderer)))
    items += [
        (f"text '{text.get_text()}'", text.get_window_extent(renderer))
        for text in ax.texts
        if text.get_text() and text.get_visible() and text.get_bbox_patch() is None
    ]
    if not items:
        return
    clouds = []
    for line in ax.lines:
        points = line.get_transform().transform(np.column_stack(line.get_data()).astype(float))
        if len(points) > 1 and line.get_linestyle() not in ("None", "", " "):
            # 32 points per segment, so that a long segment cannot pass under a text unnoticed
            t = np.linspace(0, 1, 32)[:, None, None]
            points = (points[:-1] * (1 - t) + points[1:] * t).reshape(-1, 2)
        clouds.append(points)
    for collection in ax.collections:
        offsets = np.asarray(collection.get_offsets(), dtype=float)
        if len(offsets) > 1:
            clouds.append(collection.get_offset_transform().transform(offsets))
    if not clouds:
        return
    cloud = np.concatenate(clouds)
    cloud = cloud[np.isfinite(cloud).all(axis=1)]
    for name, box in items:
        inside = (cloud > [box.x0 + slack, box.y0 + slack]) & (cloud < [box.x1 - slack, box.y1 - slack])
        if inside.all(axis=1).any():
            yield name
