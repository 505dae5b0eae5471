"""Figures of transfer functions and kernel limits: what they show is what the dataset holds, and how sure it is."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

sys.path.insert(0, str(Path(__file__).parent))
import synthetic

from ssmtheory import plotting
from ssmtheory.errors import InputError
from ssmtheory.plotting import kernel_limit as kl
from ssmtheory.plotting import panels, style, systems
from ssmtheory.plotting import transfer_convergence as tc

TREE = synthetic.transfer_convergence()
LIMITS = synthetic.kernel_limit()


def panel(draw, data, **options):
    """One panel on its own, wide enough for its titles."""
    with style.style("screen"):
        figure = style.new_figure("screen", height=2.5)
        ax = figure.subplots()
        draw(data, ax, **options)
    return ax


def line(ax, label: str):
    """The labelled line of a panel."""
    (found,) = [one for one in ax.lines if one.get_label() == label]
    return found


def values(path: str, tree: xr.DataTree = TREE) -> np.ndarray:
    return np.asarray(tree[path].values)


def changed(path: str, value: object, tree: xr.DataTree = TREE) -> xr.DataTree:
    """The dataset with one variable overwritten."""
    other = tree.copy(deep=True)
    other[path].values[...] = value
    return other


def without(*groups: str) -> xr.DataTree:
    """The dataset of a run that did not measure some groups."""
    kept = {name: node.to_dataset() for name, node in TREE.children.items() if name not in groups}
    tree = xr.DataTree.from_dict(kept)
    tree.attrs = TREE.attrs
    return tree


# ---------------------------------------------------------------------------------------------------- subjects


def test_names_are_known_without_matplotlib_and_match_the_modules() -> None:
    assert tuple(tc.FIGURES) == plotting.figure_names("transfer_convergence")
    assert tuple(kl.FIGURES) == plotting.figure_names("kernel_limit")
    assert set(tc.GROUPS) == set(tc.FIGURES)
    assert set(kl.GROUPS) == set(kl.FIGURES)


def test_quicklook_leaves_out_what_the_run_did_not_measure() -> None:
    kept = [name for name in tc.GROUPS if not {"frontier", "pseudospectrum", "weak"} & set(tc.GROUPS[name])]
    tree = without("frontier", "pseudospectrum", "weak", "response", "discrete", "tightness", "gaps")
    left = [name for name in kept if set(tc.GROUPS[name]) <= set(tree.children)]
    assert left == ["spikes", "spectrum", "robustness"]
    assert list(plotting.quicklook("transfer_convergence", tree)) == left


def test_an_asked_figure_without_its_group_says_what_is_missing() -> None:
    with pytest.raises(InputError, match="has no spikes/position"):
        plotting.draw("transfer_convergence", "spikes", without("spikes"))


def test_one_size_and_one_initialisation_are_sound() -> None:
    tree = synthetic.transfer_convergence(sizes=(16,))
    for name in ("response", "deviation", "spikes"):
        assert style.layout_defects(plotting.draw("transfer_convergence", name, tree, "neurips")) == [], name


@pytest.mark.parametrize("venue", ["icml", "jmlr"])
@pytest.mark.parametrize("name", ["frontier", "weak_strong"])
def test_the_tightest_figures_are_sound_at_other_widths(name: str, venue: str) -> None:
    assert style.layout_defects(plotting.draw("transfer_convergence", name, TREE, venue)) == []


# ---------------------------------------------------------------------------------------------------- response, gaps


def test_response_has_legs_and_each_size() -> None:
    ax = panel(tc.draw_response, TREE)
    np.testing.assert_array_equal(line(ax, "LegS").get_ydata(), values("response/legs_magnitude"))
    np.testing.assert_array_equal(line(ax, "$N=8$").get_ydata(), values("response/magnitude")[0, 0])
    assert ax.get_xscale() == "log"
    with pytest.raises(InputError, match="has no init s4d-lin: it has s4d-legs"):
        panel(tc.draw_response, TREE, init="s4d-lin")


def test_zoom_marks_the_limit_of_the_height() -> None:
    ax = panel(tc.draw_zoom, TREE)
    assert set(ax.lines[0].get_ydata()) == {2 / np.pi}
    np.testing.assert_array_equal(line(ax, "$N=32$").get_ydata(), values("response/zoom_magnitude")[0, 2])


def test_gaps_of_the_asked_output_and_how_many_are_certified() -> None:
    ax = panel(tc.draw_gap, TREE, output=3)
    np.testing.assert_array_equal(line(ax, "S4D-LegS").get_ydata(), values("gaps/sup")[0, :, 2])
    assert ax.get_title(loc="right") == "certified 6 of 15"
    ax = panel(tc.draw_gap, changed("gaps/evidence", 0))
    assert ax.get_title(loc="right") == "certified 0 of 15"
    with pytest.raises(InputError, match="no output 2"):
        panel(tc.draw_gap, TREE, output=2)


def test_worst_gap_has_the_bound_in_the_look_of_its_initialisation() -> None:
    ax = panel(tc.draw_worst_gap, TREE)
    gap = line(ax, "PTD 0.4")
    bound = next(one for one in ax.lines if np.array_equal(one.get_ydata(), values("gaps/deviation_bound")[1]))
    assert bound.get_color() == gap.get_color()
    assert bound.get_linewidth() < gap.get_linewidth()
    np.testing.assert_allclose(ax.lines[-1].get_ydata(), 2 * np.array([8, 16, 32]) / np.pi)


def test_stability_counts_unstable_systems() -> None:
    broken = values("gaps/spectral_abscissa").copy()
    broken[1, 2] = 0.3
    assert panel(tc.draw_abscissa, TREE).get_title(loc="right") == "unstable: 0 of 15"
    assert (
        panel(tc.draw_abscissa, changed("gaps/spectral_abscissa", broken))
        .get_title(loc="right")
        .startswith("unstable: 1")
    )


def test_the_l2_formula_is_compared_not_assumed() -> None:
    assert panel(tc.draw_l2_gap, TREE).get_title(loc="right") == "formula proved: off 0e+00"
    off = panel(tc.draw_l2_gap, changed("gaps/l2_gap", 0.5)).get_title(loc="right")
    assert off.startswith("formula proved: off 5e-01")
    assert panel(tc.draw_l2_gap, changed("gaps/l2_exact", np.nan)).get_title(loc="right") == "measured"


def test_an_initialisation_looks_the_same_in_every_figure() -> None:
    here = line(panel(tc.draw_gap, TREE), "PTD 0.1")
    there = line(panel(tc.draw_prediction, TREE), "PTD 0.1")
    assert here.get_color() == there.get_color()
    assert line(panel(tc.draw_prediction, TREE), "LegS").get_color() == style.INK


# ---------------------------------------------------------------------------------------------------- weak


def test_scaled_errors_stand_beside_their_limits() -> None:
    ax = panel(tc.draw_scaled_error, TREE)
    finite = values("weak/limit")[:, 0][np.isfinite(values("weak/limit")[:, 0])]
    thin = [one.get_ydata()[0] for one in ax.lines if not one.get_label() or one.get_label().startswith("_")]
    np.testing.assert_allclose(thin, finite)
    np.testing.assert_array_equal(line(ax, "impulse").get_ydata(), values("weak/scaled_error")[0, :, 0, 0])


def test_bands_stand_beside_the_whole_axis() -> None:
    ax = panel(tc.draw_band_gap, TREE)
    np.testing.assert_array_equal(line(ax, r"$|\omega|\leq10$").get_ydata(), values("gaps/band_sup")[0, :, 1])
    np.testing.assert_array_equal(line(ax, r"all $\omega$").get_ydata(), values("gaps/worst_sup")[0])


# ---------------------------------------------------------------------------------------------------- frontier


def _family(name: str, n: int) -> np.ndarray:
    return (values("frontier/family") == name) & (values("frontier/state_dim") == n)


def test_the_frontier_shows_every_sample_of_one_size() -> None:
    ax = panel(tc.draw_frontier, TREE, state_dim=16)
    chosen = _family("hippo-rho", 16)
    shown = line(ax, tc._FAMILIES["hippo-rho"][0])
    assert set(shown.get_xdata()) == set(values("frontier/deviation")[chosen])
    assert ax.get_title(loc="left") == "Frontier, $N=16$"
    # the weakest evidence among what is drawn names the panel
    assert ax.get_title(loc="right") == "measured"
    with pytest.raises(InputError, match="no N = 12"):
        panel(tc.draw_frontier, TREE, state_dim=12)


def test_unstable_samples_are_hollow() -> None:
    ax = panel(tc.draw_frontier, TREE, state_dim=32)
    hollow = [one for one in ax.lines if one.get_markerfacecolor() == "white" and len(one.get_xdata())]
    unstable = values("frontier/spectral_abscissa") >= 0
    drawn = sorted(float(x) for one in hollow for x in one.get_xdata())
    expected = sorted(values("frontier/deviation")[unstable & (values("frontier/state_dim") == 32)])
    np.testing.assert_allclose(drawn, expected)


def test_the_lower_bound_is_a_staircase_that_is_certified_between_its_points() -> None:
    ax = panel(tc.draw_frontier_epsilon, TREE, state_dim=32)
    stairs = line(ax, "bound on every PTD")
    assert stairs.get_drawstyle() == "steps-pre"
    np.testing.assert_allclose(stairs.get_xdata(), [0.001, 0.01, 0.1, 0.4])
    bound = values("frontier_bound/kappa_lower")[2, ::-1]
    np.testing.assert_allclose(stairs.get_ydata(), [bound[0], *bound])
    assert ax.get_title(loc="right") == "bound: certified"
    assert panel(
        tc.draw_frontier_epsilon, changed("frontier_bound/evidence", 0), state_dim=32
    ).get_title(loc="right") == "bound: measured"  # fmt: skip


def test_the_bound_stands_below_the_best_of_those_it_speaks_of() -> None:
    ax = panel(tc.draw_bound_growth, TREE)
    crosses = [one for one in ax.lines if one.get_marker() == "x"]
    eps, kappa, of = (values(f"frontier/{name}") for name in ("epsilon", "kappa", "state_dim"))
    best = [kappa[(of == n) & (eps <= 0.4)].min() for n in (8, 16, 32) if ((of == n) & (eps <= 0.4)).any()]
    np.testing.assert_allclose(crosses[0].get_ydata(), best)
    np.testing.assert_allclose(line(ax, r"$\varepsilon=0.01$").get_ydata(), values("frontier_bound/kappa_lower")[:, 2])


def test_the_ablation_shows_perturbations_only() -> None:
    ax = panel(tc.draw_kappa_epsilon, TREE, state_dim=32)
    names = {one.get_label() for one in ax.lines if not one.get_label().startswith("_")}
    assert names == {"PTD, Ginibre", "PTD, real", "PTD, dissipative", "PTD, optimised (ours)"}
    ginibre = _family("ginibre", 32) & (values("frontier/spectral_abscissa") < 0)
    np.testing.assert_allclose(
        line(ax, "PTD, Ginibre").get_xdata(), values("frontier/epsilon")[ginibre] / (2 * 32**2 / np.pi)
    )


# ---------------------------------------------------------------------------------------------------- tightness


def test_a_beaten_bound_is_counted() -> None:
    title = panel(tc.draw_tightness, TREE).get_title(loc="right")
    count = int(np.isfinite(values("tightness/bound_ours")).sum())
    assert title == f"proved; beaten 0 of {count} times"
    beaten = panel(tc.draw_tightness, changed("tightness/sup", 1e9)).get_title(loc="right")
    assert beaten == f"proved; beaten {count} of {count} times"


def test_ratios_are_of_the_dataset() -> None:
    ax = panel(tc.draw_tightness_ratio, TREE)
    sup, bound = values("tightness/sup"), values("tightness/bound_ours")
    known = np.isfinite(bound)
    assert ax.get_title(loc="right") == f"ours at most {np.max(sup[known] / bound[known]):.2f}"


# ---------------------------------------------------------------------------------------------------- spikes, spectrum


def test_spikes_and_their_laws() -> None:
    ax = panel(tc.draw_spike_position, TREE)
    np.testing.assert_array_equal(line(ax, "$N=16$").get_ydata(), values("spikes/position")[1])
    assert any(np.array_equal(one.get_ydata(), values("spikes/law")[1]) for one in ax.lines)
    ax = panel(tc.draw_worst_height, TREE)
    np.testing.assert_allclose(line(ax, "$N=16$").get_ydata(), values("spikes/worst_height")[1] / 16)


def test_spectrum_is_compared_with_each_law() -> None:
    ax = panel(tc.draw_spectrum, TREE)
    np.testing.assert_array_equal(line(ax, "exact").get_ydata(), values("spectrum/exact"))
    ax = panel(tc.draw_spectrum_error, TREE)
    expected = np.abs(values("spectrum/s4d_inv") / values("spectrum/exact") - 1)
    np.testing.assert_allclose(line(ax, "S4D-Inv").get_ydata(), expected)


# ---------------------------------------------------------------------------------------------------- pseudospectra


def test_portraits_share_their_levels() -> None:
    figure = plotting.draw("transfer_convergence", "pseudospectra", TREE, "neurips")
    # the contour sets of the portraits come first in each panel
    levels = [tuple(ax.collections[0].levels) for ax in figure.axes[:3]]
    assert len(set(levels)) == 1


def test_transients_and_constants() -> None:
    ax = panel(tc.draw_transient, TREE)
    np.testing.assert_array_equal(line(ax, "LegS").get_ydata(), values("pseudospectrum/transient")[0])
    ax = panel(tc.draw_conditioning, TREE)
    np.testing.assert_allclose(line(ax, "Kreiss constant").get_xdata(), 1)
    assert ax.get_title(loc="right") == "LegS: 1"
    ax = panel(tc.draw_conditioning, changed("pseudospectrum/kreiss_upper", 1.5))
    assert ax.get_title(loc="right") == "LegS: 1 to 1.5"


# ---------------------------------------------------------------------------------------------------- discrete


def test_discrete_gaps_at_the_largest_size() -> None:
    ax = panel(tc.draw_discrete_gap, TREE, method="bilinear_s4")
    np.testing.assert_array_equal(line(ax, "S4D-LegS").get_ydata(), values("discrete/sup")[0, 2, 2])
    np.testing.assert_array_equal(line(ax, "S4D, isolated spike").get_ydata(), values("discrete/predicted")[2, 2])
    ax = panel(tc.draw_discrete_gap, TREE, method="bilinear_s4", worst=True)
    bound = next(one for one in ax.lines if np.array_equal(one.get_ydata(), values("discrete/worst_bound")[3, 2, 2]))
    assert bound.get_color() == line(ax, "HiPPO-$\\rho$ 10").get_color()
    with pytest.raises(InputError, match="no method euler"):
        panel(tc.draw_discrete_gap, TREE, method="euler")


def test_the_trained_band_is_shaded() -> None:
    ax = panel(tc.draw_prediction, TREE)
    (band,) = ax.patches
    assert band.get_bbox().x0 == 0
    assert band.get_bbox().x1 == 80
    np.testing.assert_array_equal(line(ax, "S4D-LegS").get_ydata(), values("regression/predicted")[1])


# ---------------------------------------------------------------------------------------------------- kernel limits


def test_kernels_stand_beside_their_limit() -> None:
    ax = panel(kl.draw_kernels, LIMITS)
    np.testing.assert_array_equal(line(ax, "limit").get_ydata(), values("kernels/limit", LIMITS)[0])
    np.testing.assert_array_equal(line(ax, "$N=64$").get_ydata(), values("kernels/kernel", LIMITS)[0, 1])
    with pytest.raises(InputError, match="no init 'legs'"):
        panel(kl.draw_kernels, LIMITS, init="legs")


def test_sizes_of_the_difference() -> None:
    ax = panel(kl.draw_sizes, LIMITS)
    expected = np.abs(values("kernels/windowed", LIMITS)[0]).max(axis=1)
    np.testing.assert_array_equal(line(ax, "window mean").get_ydata(), expected)
    unknown = changed("kernels/l2_exact", np.nan, LIMITS)
    assert panel(kl.draw_sizes, unknown).get_title(loc="right") == "measured"


def test_the_table_says_what_holds_and_how_it_is_known() -> None:
    ax = panel(kl.draw_modes, LIMITS)
    # a row per mode, a column per initialisation
    assert [text.get_text() for text in ax.texts[:3]] == ["holds", "holds", "fails"]
    assert ax.texts[-1].get_text() == "not known"
    assert ax.get_title(loc="right") == "* modulo named theorems"
    assert ax.get_xticklabels()[0].get_text() == "S4D-LegS\nproved*"
    mixed = values("modes/status", LIMITS).copy()
    mixed[1, 0] = "numeric"
    words = [text.get_text() for text in panel(kl.draw_modes, changed("modes/status", mixed, LIMITS)).texts]
    assert words[:2] == ["holds (proved*)", "holds (numeric)"]


def test_a_kernel_that_was_undersampled_is_drawn_as_points() -> None:
    time = values("kernels/kernel", LIMITS).shape[-1]
    alternating = changed("kernels/kernel", np.where(np.arange(time) % 2, 1.0, -1.0), LIMITS)
    ax = panel(kl.draw_kernels, alternating)
    assert line(ax, "$N=256$ (sampled)").get_linestyle() == "None"
    assert line(panel(kl.draw_kernels, LIMITS), "$N=16$").get_linestyle() == "-"


def test_bases_and_samples() -> None:
    ax = panel(kl.draw_basis, LIMITS, measure="fout")
    np.testing.assert_array_equal(line(ax, "$n=2$").get_ydata(), values("bases/kernel", LIMITS)[2, 2])
    ax = panel(kl.draw_sampled, LIMITS, state_dim=1024, method="zoh")
    np.testing.assert_array_equal(line(ax, "$n=1$").get_ydata(), values("sampled/kernel", LIMITS)[1, 0, 1])
    for options, words in (({"state_dim": 7, "method": "zoh"}, "no N = 7"), ({"state_dim": 256, "method": "x"}, "'x'")):
        with pytest.raises(InputError, match=words):
            panel(kl.draw_sampled, LIMITS, **options)


# ---------------------------------------------------------------------------------------------------- systems

OMEGA = np.linspace(-5, 5, 101)
RESPONSE = 1 / (1j * (OMEGA - 1) + 0.5)


@dataclass
class Data:
    """What `lti` returns, in small."""

    omega: np.ndarray
    response: np.ndarray


def test_bode_shows_positive_frequencies_of_any_container() -> None:
    expected = np.abs(RESPONSE[OMEGA > 0])
    dataset = xr.Dataset({"response": ("omega", RESPONSE)}, coords={"omega": OMEGA})
    for data in (Data(OMEGA, RESPONSE), {"omega": OMEGA, "response": RESPONSE}, dataset):
        ax = panel(systems.draw_gain, data)
        np.testing.assert_allclose(ax.lines[0].get_ydata(), expected)
    phase = panel(systems.draw_phase, Data(OMEGA, RESPONSE)).lines[0].get_ydata()
    np.testing.assert_allclose(phase, np.degrees(np.angle(RESPONSE[OMEGA > 0])))


def test_the_largest_singular_value_of_several_entries() -> None:
    pair = np.stack([RESPONSE, 2j * RESPONSE], axis=1)[:, :, None]
    ax = panel(systems.draw_gain, Data(OMEGA, pair), largest=True)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), np.sqrt(5) * np.abs(RESPONSE[OMEGA > 0]))
    with pytest.raises(InputError, match="3 labels for 2 curves"):
        panel(systems.draw_gain, Data(OMEGA, pair), label=["a", "b", "c"])


def test_nyquist_keeps_both_halves_of_a_complex_system() -> None:
    ax = panel(systems.draw_nyquist, Data(OMEGA, RESPONSE))
    curves = [one for one in ax.lines if len(one.get_xdata()) > 2]
    points = np.concatenate([one.get_xdata() + 1j * one.get_ydata() for one in curves])
    assert set(points) == set(RESPONSE)
    # no mirror image is drawn in place of the negative frequencies
    assert not np.isclose(np.conj(RESPONSE[10]), points).any()


def test_poles_and_the_boundary_of_stability() -> None:
    poles = np.array([-1, 1 + 1j, 0.5j])
    assert panel(systems.draw_poles, poles).get_title(loc="right") == "1 of 3 stable"
    ax = panel(systems.draw_poles, poles, dt=0.1)
    assert ax.get_title(loc="right") == "1 of 3 stable"
    assert any(
        np.allclose(np.hypot(one.get_xdata(), one.get_ydata()), 1) for one in ax.lines if len(one.get_xdata()) > 9
    )


def test_pseudospectra_from_resolvent_norms_or_singular_values() -> None:
    x, y = np.linspace(-2, 2, 21), np.linspace(-1, 1, 11)
    distance = np.abs(x[None, :] + 1j * y[:, None])
    for data in (
        {"real": x, "imag": y, "resolvent_norm": 1 / np.maximum(distance, 1e-300)},
        {"x": x, "y": y, "smallest": distance, "eigenvalues": np.array([0j])},
    ):
        ax = panel(systems.draw_pseudospectrum, data, levels=[-0.5, 0.0])
        contours = ax.collections[0]
        assert list(contours.levels) == [-0.5, 0.0]
        ends = contours.get_paths()[1].vertices
        # the pseudospectrum of a normal matrix: the disc of radius eps; chords of a coarse grid are inside by 1 %
        np.testing.assert_allclose(np.hypot(ends[:, 0], ends[:, 1]), 1, atol=0.02)
    with pytest.raises(InputError, match=r"resolvent norms \(21, 11\): the grid is \(11, 21\)"):
        panel(systems.draw_pseudospectrum, {"real": x, "imag": y, "resolvent_norm": distance.T})


def test_what_is_missing_is_named() -> None:
    with pytest.raises(InputError, match="dict has no response"):
        panel(systems.draw_gain, {"omega": OMEGA})
    with pytest.raises(InputError, match=r"omega \(101,\) and response \(3,\)"):
        panel(systems.draw_gain, {"omega": OMEGA, "response": np.ones(3)})


def test_the_peers_of_lti_are_drawn() -> None:
    from ssmtheory import lti

    system = lti.DiagonalStateSpace(-0.5 + 1j * np.arange(4), np.ones((4, 1)), np.ones((1, 4)))
    figure = systems.figure_bode(lti.bode(system), "neurips")
    assert style.layout_defects(figure) == []
    ax = panel(systems.draw_nyquist, lti.nyquist(system))
    assert ax.lines
    ax = panel(systems.draw_poles, system)
    np.testing.assert_allclose(np.sort(ax.lines[-1].get_ydata()), np.arange(4))
    portrait = lti.pseudospectra.portrait(np.array([[-1.0, 5.0], [0.0, -2.0]]))
    ax = panel(systems.draw_pseudospectrum, portrait)
    np.testing.assert_array_equal(ax.get_xlim(), portrait.x[[0, -1]])


# ---------------------------------------------------------------------------------------------------- furniture


def test_a_shared_legend_has_every_label_once() -> None:
    figure = plotting.draw("transfer_convergence", "deviation", TREE, "neurips")
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert len(labels) == len(set(labels)) == 5


def test_status_is_that_of_the_weakest_number() -> None:
    assert panels.status_of(TREE, "gaps/evidence") == "measured"
    assert panels.status_of(TREE, "gaps/evidence", 0) == "certified"
    assert panels.status_of(TREE, "gaps/evidence", [3, 4]) == "floating point bracket"
