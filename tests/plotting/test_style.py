"""House style: exact widths, embedded fonts, equal bytes, readable stamps, colours that can be told apart."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from ssmtheory.errors import InputError, StoreError
from ssmtheory.plotting import style
from ssmtheory.results import compare, provenance

ROOT = Path(__file__).resolve().parents[2]
STAMP = provenance.stamp("demo-0123456789", "ab" * 32, "cd" * 32, "f0" * 20)


def sample(venue: str = "neurips", *, span: str = "full"):
    """A figure with a line, a formula in its label and a heat map."""
    with style.style(venue):
        figure = style.new_figure(venue, height=1.6, span=span)
        left, right = figure.subplots(1, 2)
        left.plot([0, 1, 2], [1, 3, 2], **style.series_style(0, marker=True))
        left.set_xlabel(r"depth $k$")
        left.set_ylabel(r"$g=\langle r,\delta r\rangle/|r|^2$")
        mesh = right.pcolormesh(np.arange(12).reshape(3, 4), rasterized=True)
        style.small_bar(right, mesh, r"step $\Delta$")
        style.panel_letters([left, right])
    return figure


def page_width(pdf: bytes) -> float:
    """Width of the page in points, from the PDF's MediaBox."""
    found = re.search(rb"/MediaBox \[\s*0 0 ([0-9.]+) ([0-9.]+)\s*\]", pdf)
    assert found
    return float(found[1])


# ---------------------------------------------------------------------------------------------------- pages


@pytest.mark.parametrize(
    ("venue", "span", "points"),
    [
        # in points of 1/72 in, from the style files' \textwidth and \columnwidth
        ("neurips", "full", 396.0),
        ("iclr", "full", 396.0),
        ("icml", "full", 486.0),
        ("icml", "column", 234.0),
        ("jmlr", "full", 432.0),
    ],
)
def test_the_page_has_exactly_the_venue_width(venue: str, span: str, points: float) -> None:
    assert page_width(style.render(sample(venue, span=span), "pdf")) == points


def test_fonts_are_embedded_stix_truetype() -> None:
    pdf = style.render(sample(), "pdf")
    text = pdf + b"".join(_streams(pdf))
    assert b"/Type3" not in text
    assert b"/FontFile2" in text
    names = set(re.findall(rb"/BaseFont /(?:[A-Z]{6}\+)?([A-Za-z-]+)", text))
    assert names
    assert all(name.startswith(b"STIX") for name in names), names


def _streams(pdf: bytes) -> list[bytes]:
    found = []
    for raw in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.S):
        try:
            found.append(zlib.decompress(raw))
        except zlib.error:
            continue
    return found


def test_settings_of_the_reader_change_nothing() -> None:
    import matplotlib as mpl

    plain = style.render(sample(), "pdf")
    with mpl.rc_context(
        {"font.family": "DejaVu Sans", "lines.linewidth": 9, "pdf.fonttype": 3, "savefig.bbox": "tight"}
    ):
        before = dict(mpl.rcParams)
        other = style.render(sample(), "pdf")
        assert dict(mpl.rcParams) == before
    assert plain == other


def test_formats_show_one_layout_whatever_their_order() -> None:
    first, second = sample(), sample()
    assert style.render(first, "pdf") == (style.render(second, "png"), style.render(second, "pdf"))[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: style.venue("nuerips"), "Did you mean 'neurips'"),
        (lambda: style.new_figure("icml", height=1, span="half"), "'full' or 'column'"),
        (lambda: style.new_figure("icml", height=11), "hold up to 9"),
        (lambda: style.render(sample(), "eps"), "pdf, png or svg"),
    ],
)
def test_wrong_requests_say_what_is_right(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_panels_that_do_not_fit_are_an_error() -> None:
    with style.style("icml"):
        figure = style.new_figure("icml", height=0.3)
        for ax in figure.subplots(3, 1):
            ax.set_xlabel("depth")
    with pytest.raises(InputError, match="make the figure larger"):
        style.render(figure, "png")


# ---------------------------------------------------------------------------------------------------- files


def test_stamps_are_read_back_from_every_format(tmp_path: Path) -> None:
    paths = style.save(sample(), tmp_path / "new" / "fig", stamp=STAMP, title="a title", formats=("pdf", "png", "svg"))
    assert [p.name for p in paths] == ["fig.pdf", "fig.png", "fig.svg"]
    for path in paths:
        (found,) = compare.read_stamps(path)
        assert found.run_id == "demo-0123456789"
        assert found.content_sha256 == "ab" * 32
        data = path.read_bytes()
        assert b"a title" in data
        assert b"CreationDate" not in data
        assert b"<dc:date>" not in data
    # nothing but the figures is left in the folder
    assert sorted(p.name for p in paths[0].parent.iterdir()) == ["fig.pdf", "fig.png", "fig.svg"]


def test_a_figure_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot write"):
        style.save(sample(), tmp_path / "file" / "fig")
    assert (tmp_path / "file").read_text() == "in the way"


def test_equal_bytes_in_processes_with_different_hash_seeds() -> None:
    code = (
        "import sys, hashlib; sys.path[:0] = [sys.argv[1], sys.argv[1] + '/tests/plotting']\n"
        "import synthetic; from ssmtheory import plotting; from ssmtheory.plotting import style\n"
        "tree = synthetic.token_dynamics(layers=5, tokens=48, channels=8, states=4)\n"
        "for name, formats in (('attention', ('pdf', 'png')), ('concordance', ('pdf', 'svg'))):\n"
        "    figure = plotting.draw('token_dynamics', name, tree, 'neurips')\n"
        "    for fmt in formats:\n"
        "        print(name, fmt, hashlib.sha256(style.render(figure, fmt, stamp='s')).hexdigest())\n"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(ROOT)],
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    ]
    first, second = (process.communicate()[0] for process in runs)
    assert [process.returncode for process in runs] == [0, 0]
    assert first.count("\n") == 4
    assert first == second


# ---------------------------------------------------------------------------------------------------- colours


def _linear(colour: str) -> np.ndarray:
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _lab(linear: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of linear sRGB."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    t = to_xyz @ np.clip(linear, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# Machado, Oliveira and Fernandes (2009), severity 1: what a dichromat sees, in linear sRGB
DICHROMATS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("kind", DICHROMATS)
def test_the_first_four_colours_differ_for_dichromats(kind: str) -> None:
    seen = [_lab(np.array(DICHROMATS[kind]) @ _linear(colour)) for colour in style.OKABE_ITO[:4]]
    distances = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[i + 1 :]]
    # 10 is about four times the just noticeable difference (2.3) of CIE 1976
    assert min(distances) > 10


def test_series_differ_without_colour() -> None:
    looks = [style.series_style(i, marker=True) for i in range(6)]
    assert len({str(look["linestyle"]) for look in looks}) == 6
    assert len({look["marker"] for look in looks}) == 6


def test_layer_colours_darken_in_order_and_stay_visible() -> None:
    colours, _ = style.sequential_colours(np.arange(64))
    lightness = [_lab(_linear("#" + "".join(f"{round(255 * c):02x}" for c in rgba[:3])))[0] for rgba in colours]
    # order can be read in grey; on white (L* = 100) the palest is still dark enough
    assert (np.diff(lightness) > 0).all()
    assert max(lightness) < 85


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.9, 250.0, [1, 10, 100]),
        (0.9, 9.0, [1, 2, 5]),
        (4.2, 6.9, [5, 6]),
        (1.3, 11.0, [2, 5, 10]),
    ],
)
def test_short_logarithmic_axes_have_few_plain_labels(low: float, high: float, ticks: list[float]) -> None:
    with style.style("screen"):
        ax = style.new_figure("screen", height=2).subplots()
        ax.set_ylim(low, high)
        ax.set_yscale("log")
        style.plain_log_ticks(ax.yaxis, low, high)
    inside = ax.get_yticks()
    assert 2 <= len(inside) <= 5
    assert [float(v) for v in inside] == pytest.approx(ticks)


# ---------------------------------------------------------------------------------------------------- defects


def _figure(rows: int = 1):
    with style.style("neurips"):
        figure = style.new_figure("neurips", height=2)
        axes = figure.subplots(rows, 1, squeeze=False).ravel()
        axes[0].plot([0, 1], [0, 1], label="a line")
    return figure, axes


def test_a_sound_figure_has_no_defects() -> None:
    assert style.layout_defects(sample()) == []


def test_defects_are_found() -> None:
    figure, (ax,) = _figure()
    ax.set_title("left and long " * 5, loc="left")
    ax.set_title("right and long " * 4, loc="right")
    assert any("overlaps" in d for d in style.layout_defects(figure))

    figure, (ax,) = _figure()
    ax.text(0.5, 0.5, "on the line", transform=ax.transAxes)
    assert style.layout_defects(figure) == ["text 'on the line' lies over data in [panel 0]"]

    figure, (ax,) = _figure()
    ax.legend(loc="center")
    assert style.layout_defects(figure) == ["legend lies over data in [panel 0]"]

    figure, (ax,) = _figure()
    outside = ax.text(1.2, 0.1, "off the page", transform=ax.transAxes)
    outside.set_in_layout(False)
    assert style.layout_defects(figure) == ["text 'off the page' in [panel 0] leaves the page"]

    figure, (_, second) = _figure(2)
    second.set_ylabel("nothing")
    assert style.layout_defects(figure) == ["[nothing] is empty"]


def test_the_test_of_bytes_can_fail() -> None:
    figure = sample()
    digest = hashlib.sha256(style.render(figure, "pdf", stamp="one")).hexdigest()
    assert hashlib.sha256(style.render(figure, "pdf", stamp="two")).hexdigest() != digest
