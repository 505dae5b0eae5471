"""Figures drawn from datasets: ``draw_x(dataset, ax)`` functions, one file per subject, and the house style.

>>> figure_names("token_dynamics")
('overview', 'attention', 'spectra', 'norms', 'steps', 'concordance', 'clustering')
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["SUBJECTS", "draw", "figure_names", "quicklook"]

# experiment -> (module with its FIGURES, names in order); names stand here so that listing them imports no matplotlib
SUBJECTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "token_dynamics": (
        "ssmtheory.plotting.token_dynamics",
        ("overview", "attention", "spectra", "norms", "steps", "concordance", "clustering"),
    ),
    "depth_exponents": ("ssmtheory.plotting.depth_exponents", ("overview",)),
    "bench": ("ssmtheory.plotting.bench", ("overview",)),
    "pretrain": ("ssmtheory.plotting.pretraining", ("loss", "dynamics")),
    "transfer_convergence": (
        "ssmtheory.plotting.transfer_convergence",
        (
            "response", "deviation", "weak_strong", "frontier", "ablation", "tightness", "spikes", "spectrum",
            "pseudospectra", "discrete", "robustness",
        ),
    ),
    "kernel_limit": ("ssmtheory.plotting.kernel_limit", ("convergence", "modes", "bases", "s4d_bases", "sampled")),
    "token_ode": ("ssmtheory.plotting.token_ode", ("regimes", "portraits", "fates", "sphere")),
    "sphere": ("ssmtheory.plotting.sphere", ("clustering", "limits")),
    "refinements": ("ssmtheory.plotting.refinements", ("parametrisation", "reordering")),
    "concordance": ("ssmtheory.plotting.concordance", ("predictors", "training", "depth")),
    "interventions": ("ssmtheory.plotting.interventions", ("overview", "controls")),
    "robustness": (
        "ssmtheory.plotting.robustness",
        ("theory", "discretised", "sweep", "prediction", "comparison", "regression"),
    ),
}  # fmt: skip


def figure_names(experiment: str) -> tuple[str, ...]:
    """Names of an experiment's figures; empty for an experiment without figures."""
    return SUBJECTS[experiment][1] if experiment in SUBJECTS else ()


def draw(experiment: str, name: str, tree: xr.DataTree, venue: str = "screen") -> Figure:
    """One figure of an experiment's dataset.

    Args:
        experiment: name of the experiment, for example ``"token_dynamics"``.
        name: one of :func:`figure_names`.
        tree: the experiment's dataset.
        venue: key of :data:`ssmtheory.plotting.style.VENUES`.

    Raises:
        InputError: no such experiment, figure or venue.
    """
    from ssmtheory.errors import InputError, nearest

    if experiment not in SUBJECTS:
        raise InputError(f"no figures for experiment '{experiment}'.{nearest(experiment, SUBJECTS)}")
    module, names = SUBJECTS[experiment]
    if name not in names:
        raise InputError(f"no figure '{name}' of {experiment}: it has {', '.join(names)}.{nearest(name, names)}")
    figure: Figure = import_module(module).FIGURES[name](tree, venue)
    return figure


def quicklook(experiment: str, tree: xr.DataTree) -> dict[str, Figure]:
    """All figures of an experiment's dataset, at screen width, but those of groups that the run did not measure.

    Args:
        experiment: name of the experiment; one without figures gives an empty dict.
        tree: its dataset.

    Returns:
        figure name -> figure, in the order of :func:`figure_names`.
    """
    from ssmtheory.plotting import panels

    if experiment not in SUBJECTS:
        return {}
    module, names = SUBJECTS[experiment]
    needs = getattr(import_module(module), "GROUPS", {})
    there = panels.groups_of(tree)
    return {name: draw(experiment, name, tree) for name in names if there >= set(needs.get(name, ()))}
