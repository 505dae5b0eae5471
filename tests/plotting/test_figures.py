"""Every figure: what it shows is what the dataset holds, it is sound to the eye, and it says how sure a number is."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parent))
import synthetic

from ssmtheory import cli, plotting, resources
from ssmtheory.errors import InputError
from ssmtheory.plotting import pretraining, refinements, style
from ssmtheory.plotting import token_dynamics as td

TREE = synthetic.token_dynamics(layers=6, tokens=64, channels=12, states=4)
TRAINING = synthetic.pretrain(steps=600, layers=6)
TREES = {
    "token_dynamics": TREE,
    "pretrain": TRAINING,
    "transfer_convergence": synthetic.transfer_convergence(),
    "kernel_limit": synthetic.kernel_limit(),
    "token_ode": synthetic.token_ode(),
    "depth_exponents": synthetic.depth_exponents(),
    "sphere": synthetic.sphere(),
    "concordance": synthetic.concordance(),
    "interventions": synthetic.interventions(),
    "refinements": synthetic.refinements(),
    "robustness": synthetic.robustness(),
}
ALL = [(experiment, name) for experiment in plotting.SUBJECTS for name in plotting.figure_names(experiment)]
# drawn as they are by scripts, which are checked at the same width below
BY_SCRIPT = {
    "overview", "attention", "concordance", "clustering",
    *plotting.figure_names("transfer_convergence"), *plotting.figure_names("kernel_limit"),
    *plotting.figure_names("token_ode"), *plotting.figure_names("refinements"), "sweep", "regression",
}  # fmt: skip


def panel(draw, tree: xr.DataTree = TREE, *arguments: object, **options: object):
    """One panel on its own, wide enough for its titles."""
    with style.style("screen"):
        figure = style.new_figure("screen", height=2.5)
        ax = figure.subplots()
        draw(tree, ax, *arguments, **options)
    return ax


def changed(path: str, value: object, tree: xr.DataTree = TREE) -> xr.DataTree:
    """The dataset with one variable overwritten."""
    other = tree.copy(deep=True)
    other[path].values[...] = value
    return other


def line(ax, label: str):
    """The labelled line of a panel."""
    (found,) = [one for one in ax.lines if one.get_label() == label]
    return found


def values(path: str, tree: xr.DataTree = TREE) -> np.ndarray:
    return np.asarray(tree[path].values)


# ---------------------------------------------------------------------------------------------------- all figures


@pytest.mark.parametrize(("experiment", "name"), [pair for pair in ALL if pair[1] not in BY_SCRIPT])
def test_every_figure_is_sound(experiment: str, name: str) -> None:
    figure = plotting.draw(experiment, name, TREES[experiment], "neurips")
    assert figure.get_size_inches()[0] == 5.5
    assert style.layout_defects(figure) == []
    # every panel names what its axes are
    for ax in figure.axes:
        assert ax.get_ylabel() or ax.get_xlabel() or ax.get_title(loc="left"), name


@pytest.mark.parametrize(("name", "venue"), [("overview", "jmlr"), ("concordance", "icml"), ("concordance", "screen")])
def test_the_tightest_figures_are_sound_at_every_width(name: str, venue: str) -> None:
    figure = plotting.draw("token_dynamics", name, TREE, venue)
    assert figure.get_size_inches()[0] == style.VENUES[venue].full
    assert style.layout_defects(figure) == []


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("overview", {"layers": 1, "channels": 2, "states": 1}),
        ("clustering", {"layers": 1, "channels": 2, "states": 1}),
        ("overview", {"layers": 64, "channels": 3, "states": 2}),
        ("spectra", {"layers": 64, "channels": 3, "states": 16}),
        ("norms", {"layers": 3, "channels": 3, "first_layer": 7}),
    ],
)
def test_unusual_sizes_are_sound(name: str, sizes: dict[str, int]) -> None:
    tree = synthetic.token_dynamics(tokens=16, **sizes)
    assert style.layout_defects(plotting.draw("token_dynamics", name, tree)) == []


def test_one_sequence_has_no_intervals_and_says_so() -> None:
    tree = synthetic.token_dynamics(layers=3, tokens=16, channels=3, sequences=1)
    for group in ("layers", "concordance", "clustering"):
        for name in tree[group].data_vars:
            if name.endswith(("_low", "_high")):
                tree = changed(f"{group}/{name}", np.nan, tree)
    assert panel(td.draw_q_positive, tree).get_title(loc="right") == "measured, no interval"
    assert "95 %" not in panel(td.draw_growth, tree).get_title(loc="right")
    for name in ("concordance", "clustering"):
        assert style.layout_defects(plotting.draw("token_dynamics", name, tree)) == []


def test_names_are_known_without_matplotlib_and_match_the_modules() -> None:
    assert tuple(td.FIGURES) == plotting.figure_names("token_dynamics")
    assert tuple(pretraining.FIGURES) == plotting.figure_names("pretrain")


def test_quicklook_draws_all_and_nothing_for_others() -> None:
    figures = plotting.quicklook("pretrain", TRAINING)
    assert list(figures) == ["loss", "dynamics"]
    assert all(isinstance(f, Figure) for f in figures.values())
    assert plotting.quicklook("squares", TRAINING) == {}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plotting.draw("token_dynamic", "norms", TREE), "Did you mean 'token_dynamics'"),
        (lambda: plotting.draw("token_dynamics", "norm", TREE), "Did you mean 'norms'"),
        (lambda: plotting.draw("token_dynamics", "norms", TRAINING), "has no tokens/residual_norm"),
        (lambda: td.figure_attention(TREE, layers=[9]), "has no layer 9: it has 0 to 5"),
        (lambda: panel(td.draw_layer_concordance, TREE, "mu"), "no predictor 'mu'"),
    ],
)
def test_wrong_requests_say_what_is_right(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


# ---------------------------------------------------------------------------------------------------- scripts


@pytest.mark.parametrize("name", resources.names("figure"))
def test_every_script_draws_a_titled_figure_of_the_venue_width(name: str) -> None:
    path = resources.resource("figure", name)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    needs = {argument: need.partition(".") for argument, need in script.NEEDS.items()}
    for experiment, _, preset in needs.values():
        assert not preset or f"{experiment}.{preset}.toml" in resources.names("preset")
    trees = {argument: TREES[experiment] for argument, (experiment, _, _) in needs.items()}
    figure = script.draw("iclr", **trees)
    assert len(script.__doc__.partition("\n")[0]) <= 120
    assert figure.get_size_inches()[0] == 5.5
    assert style.layout_defects(figure) == []


def test_the_four_figures_of_the_notes_have_a_script() -> None:
    titles = [resources.resource("figure", n).read_text(encoding="utf-8")[3:6] for n in resources.names("figure")]
    assert {"F4.", "F5.", "F6.", "F7."} <= set(titles)


# ---------------------------------------------------------------------------------------------------- panels


def test_norms_are_quantiles_over_all_tokens() -> None:
    ax = panel(td.draw_norms)
    by_depth = np.moveaxis(values("tokens/residual_norm"), 1, 0).reshape(7, -1)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), np.median(by_depth, axis=1), rtol=1e-6)
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), np.arange(7))
    assert ax.get_yscale() == "log"


def test_radial_rate_has_the_median_and_the_zero_line() -> None:
    ax = panel(td.draw_radial_rate)
    zero, median = ax.lines
    assert set(zero.get_ydata()) == {0}
    by_layer = np.moveaxis(values("tokens/radial_rate"), 1, 0).reshape(6, -1)
    np.testing.assert_allclose(median.get_ydata(), np.median(by_layer, axis=1), rtol=1e-6)


def test_parts_add_up_and_a_gap_is_not_called_confirmed() -> None:
    ax = panel(td.draw_radial_split)
    parts = sum(line(ax, name).get_ydata() for name in ("skip", "self", "history"))
    # the bias is zero in this dataset; float32 parts
    np.testing.assert_allclose(parts, line(ax, r"sum $g$").get_ydata(), atol=1e-6)
    assert ax.get_title(loc="right").startswith("confirmed")
    assert (
        panel(td.draw_radial_split, changed("layers/split_residual", 0.1)).get_title(loc="right").startswith("differs")
    )


def test_eigenvalues_are_all_there_in_layer_order() -> None:
    ax = panel(td.draw_eigenvalues)
    drawn = np.concatenate([np.asarray(c.get_offsets()) for c in ax.collections])
    expected = values("layers/eig_input_output").ravel()
    np.testing.assert_allclose(drawn[:, 0] + 1j * drawn[:, 1], expected)


def test_inertia_is_confirmed_only_where_it_holds() -> None:
    assert panel(td.draw_symmetric_spectrum).get_title(loc="right") == "confirmed: 4 + and 4 \N{MINUS SIGN}"
    broken = changed("layers/eig_symmetric", np.abs(values("layers/eig_symmetric")))
    assert panel(td.draw_symmetric_spectrum, broken).get_title(loc="right") == "inertia is not (N, N)"


def test_fraction_of_q_and_of_g_come_from_the_dataset() -> None:
    ax = panel(td.draw_q_positive)
    np.testing.assert_allclose(line(ax, "$q>0$ (theory)").get_ydata(), values("layers/q_positive_fraction"))
    np.testing.assert_allclose(line(ax, "$g>0$ (real)").get_ydata(), values("layers/g_positive_fraction"))
    (bars,) = ax.collections
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    np.testing.assert_allclose(ends[:, 0], values("layers/q_positive_low"))
    np.testing.assert_allclose(ends[:, 1], values("layers/q_positive_high"))


@pytest.mark.parametrize(("draw", "octaves"), [(td.draw_delta_histogram, True), (td.draw_decay_histogram, False)])
def test_every_row_of_a_histogram_holds_all_of_it(draw, octaves: bool) -> None:
    ax = panel(draw)
    (mesh,) = ax.collections
    shares = np.ma.filled(mesh.get_array(), 0.0).reshape(6, -1)
    edges = mesh.get_coordinates()[0, :, 0]
    width = np.diff(np.log2(edges)) if octaves else np.ones(shares.shape[1])
    # bins with less than 1e-5 of a layer may be cut off at the ends
    np.testing.assert_allclose(shares @ width, 1, atol=1e-3)
    assert mesh.get_rasterized()


def test_the_kernel_says_how_often_its_sign_changes() -> None:
    ax = panel(td.draw_kappa, changed("layers/kappa_sign_change", 0.25))
    assert ax.get_title(loc="right") == "25 % of channels flip sign"
    drawn = np.array([one.get_ydata() for one in ax.lines[1:]])
    np.testing.assert_allclose(np.abs(drawn).max(axis=1), 1)
    mean = values("channels/kappa").astype(float).mean(axis=2)
    np.testing.assert_array_equal(np.sign(drawn), np.sign(mean))


def test_concordance_says_evidence_or_not_beside_each_predictor() -> None:
    flags = np.array([0, 0, 1, 1, 0, 0, 1])
    ax = panel(td.draw_concordance, changed("concordance/pooled_evidence", flags))
    words = [text.get_text() for text in ax.texts]
    agree = values("concordance/pooled_concordance")
    assert words == [
        f"{100 * a:.0f} % {'evidence' if flag else 'no evidence'}" for a, flag in zip(agree, flags, strict=True)
    ]
    assert ax.get_title(loc="right") == "base rate 80 %"
    points = [one for one in ax.lines if one.get_marker() == "o" and len(one.get_xdata()) == 1]
    np.testing.assert_allclose([one.get_xdata()[0] for one in points], values("concordance/kappa"))
    # filled where there is evidence
    assert [one.get_markerfacecolor() != "white" for one in points] == [bool(flag) for flag in flags]
    permuted, estimate = ax.collections
    np.testing.assert_allclose([s[0, 0] for s in permuted.get_segments()], values("concordance/kappa_null_low"))
    np.testing.assert_allclose([s[1, 0] for s in estimate.get_segments()], values("concordance/kappa_high"))


def test_layer_concordance_stands_beside_its_base_rate() -> None:
    ax = panel(td.draw_layer_concordance)
    np.testing.assert_allclose(line(ax, "base rate").get_ydata(), values("concordance/majority_baseline"))
    np.testing.assert_allclose(line(ax, "agree").get_ydata(), values("concordance/concordance")[:, 0])
    flags = values("concordance/evidence")[:, 0].astype(bool)
    assert ax.get_title(loc="right") == f"evidence in {flags.sum()} of 6"
    assert ax.get_legend().get_texts()[0].get_text() == "permuted, 95 %"


def test_attention_is_causal_and_logarithmic() -> None:
    ax = panel(td.draw_attention, TREE, 2)
    (mesh,) = ax.collections
    shown = mesh.get_array()
    size = values("attention/map_abs")[2].astype(float)
    assert np.ma.getmaskarray(shown)[np.triu_indices(len(size), 1)].all()
    low, high = mesh.norm.vmin, mesh.norm.vmax
    assert high / low == pytest.approx(1e4)
    causal = np.tril_indices(len(size))
    np.testing.assert_allclose(np.asarray(shown)[causal], np.clip(size, low, high)[causal], rtol=1e-6)


def test_signed_attention_is_bounded_and_zero_where_channels_cancel() -> None:
    ax = panel(td.draw_attention, changed("attention/map", 0.0), 1, signed=True)
    (mesh,) = ax.collections
    assert (mesh.norm.vmin, mesh.norm.vmax) == (-1, 1)
    assert not np.ma.compressed(mesh.get_array()).any()


def test_clustering_shows_the_control() -> None:
    ax = panel(td.draw_clustering)
    np.testing.assert_allclose(line(ax, "own first").get_ydata(), values("clustering/cosine_to_first"))
    np.testing.assert_allclose(line(ax, "other first").get_ydata(), values("clustering/cosine_to_other_first"))


def test_training_curve_mean_is_the_mean_of_its_window() -> None:
    ax = panel(pretraining.draw_training_loss, TRAINING)
    loss = values("training/loss_bits", TRAINING).astype(float)
    pale, smooth = ax.lines
    np.testing.assert_array_equal(pale.get_ydata(), loss)
    # 600 steps: windows of 13 centred on the step
    at = 300
    assert smooth.get_ydata()[at] == pytest.approx(loss[at - 6 : at + 7].mean())
    assert smooth.get_xdata()[at] == at + 1


def test_held_out_curves_stand_beside_their_baseline() -> None:
    ax = panel(pretraining.draw_heldout, TRAINING)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["tinyshakespeare: 2.080 (5-gram 2.400)", "kjv: 1.700 (5-gram 1.950)"]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), values("heldout/bits_per_byte", TRAINING)[:, 0])
    # step 0 has a place on the logarithmic axis
    assert ax.lines[0].get_xdata()[0] == 0.5


# ---------------------------------------------------------------------------------------------------- gallery


def test_the_gallery_shows_every_script_and_says_where_each_figure_comes_from() -> None:
    from ssmtheory.results import compare

    gallery = resources.folder("gallery")
    index = (gallery / "README.md").read_text(encoding="utf-8")
    shown = {Path(name).stem for name in resources.names("gallery")}
    assert shown >= {Path(name).stem for name in resources.names("figure")}
    for name in shown:
        assert f"![{name}]({name}.png)" in index
        stamps = compare.read_stamps(gallery / f"{name}.png")
        (stamp,) = stamps
        assert stamp.run_id.partition("-")[0] in plotting.SUBJECTS
        assert stamp.commit != "unknown"
    # one run behind all figures of the embedded model, and one of its training
    runs = {s.run_id for n in shown for s in compare.read_stamps(gallery / f"{n}.png")}
    assert sum(run.startswith(("token_dynamics-", "pretrain-")) for run in runs) == 2
    # figures of one preset come from one run of it; those of training and of the benchmark are quick-look figures
    presets = {_needs(name) for name in resources.names("figure")}
    scripted = {run for run in runs if not run.startswith(("pretrain-", "bench-"))}
    assert len(scripted) == len(presets)


def _needs(name: str) -> str:
    """The run a script is drawn from."""
    (need,) = cli._literal(resources.resource("figure", name), "NEEDS").values()
    return need


def test_every_figure_of_the_linear_theory_states_a_claim_and_its_status() -> None:
    for name in resources.names("figure"):
        if not _needs(name).startswith(("transfer_convergence", "kernel_limit")):
            continue
        text = " ".join(resources.resource("figure", name).read_text(encoding="utf-8").split('"""')[1].split())
        assert "Claim: " in text
        status = text.partition("Status: ")[2]
        # the table of modes says it below each name
        assert any(word in status for word in ("proved", "certified", "measured", "refuted", "the word below")), name


# ---------------------------------------------------------------------------------------------------- refinements


@pytest.mark.parametrize(
    ("group", "name", "scale"),
    [
        ("parametrisation", "heldout_bits", 1.0),
        ("parametrisation", "norm_rate", 1.0),
        ("reordering", "test_accuracy", 100.0),
    ],
)
def test_refinements_are_drawn_as_differences_and_filled_where_holm_holds(group: str, name: str, scale: float) -> None:
    tree = TREES["refinements"]
    ax = panel(refinements.draw_differences, tree, group, name, "unit", "title", scale)
    means = [one for one in ax.lines if one.get_marker() == "o"]
    expected = values(f"{group}_test/{name}_difference", tree)[1:]
    np.testing.assert_allclose([m.get_xdata()[0] for m in means], scale * expected)
    shown = values(f"{group}_test/{name}_p_holm", tree)[1:] <= 0.05
    assert [m.get_markerfacecolor() != "white" for m in means] == shown.tolist()


def test_one_seed_has_no_interval_and_is_drawn() -> None:
    tree = synthetic.refinements(seeds=1)
    for name in plotting.figure_names("refinements"):
        assert style.layout_defects(plotting.draw("refinements", name, tree)) == []
    with pytest.raises(InputError, match="no group 'matrices'"):
        panel(refinements.draw_differences, tree, "matrices", "heldout_bits", "unit", "title")
