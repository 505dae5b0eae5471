"""Part (a) of `robustness`: its dataset against the exact height and place of spikes, and exact low-frequency laws."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import xarray as xr

from ssmtheory.errors import ConfigError
from ssmtheory.experiments import _robustness_theory as theory
from ssmtheory.inits import hippo
from ssmtheory.plotting import robustness as plots
from ssmtheory.plotting import style

CONFIG = theory.TheoryConfig(
    theory_inits=("s4d-legs", "legs", "ptd-0.1", "hippo-rho-10"),
    theory_state_dims=(8, 16),
    theory_steps=(0.1, 0.005),
    theory_points=60,
)


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    theory.check(CONFIG)
    parts = {key: theory.run(CONFIG, key) for key in theory.tasks(CONFIG)}
    return theory.assemble(CONFIG, parts)


def test_everything_declared_is_there(ds: xr.Dataset) -> None:
    assert set(ds.data_vars) | {"omega"} == set(theory.VARIABLES)  # omega is a coordinate
    for name, variable in theory.VARIABLES.items():
        assert ds[name].dims == variable.dims
        assert ds[name].dtype == variable.dtype
        assert name == "kappa" or np.isfinite(ds[name]).all()
    assert len(theory.tasks(CONFIG)) == 8


def test_the_spike_of_s4d(ds: xr.Dataset) -> None:
    """|X / (1 + phi)| with arg phi = pi: N/sqrt(w^2 + N^2) / (1 - w/sqrt(w^2 + N^2)) at the height of the last pole."""
    for N in (8, 16):
        at = ds.sel(state_dim=N, init="s4d-legs")
        omega = float(at["attack_omega"])
        assert omega == pytest.approx(hippo.spectrum(N)[0], abs=0.02)
        root = math.hypot(omega, N)
        height = N / root / (1 - omega / root)
        # at the spike the phase is pi to 1e-2 (N = 8); the maximum is within the square of that
        assert float(at["attack_gain"]) == pytest.approx(height, rel=2e-3)
        assert float(at["peak_gain"]) == pytest.approx(float(at["attack_gain"]), rel=1e-9)
        assert float(ds["gain"].sel(state_dim=N, init="s4d-legs").max()) > 0.9 * height


def test_legs_is_exact(ds: xr.Dataset) -> None:
    for N in (8, 16):
        at = ds.sel(state_dim=N, init="legs")
        np.testing.assert_allclose(at["gain"], N / np.hypot(ds["omega"], N), rtol=1e-10)
        assert float(at["low_cost"]) == 0
        assert float(at["peak_gain"]) == pytest.approx(1.0, abs=1e-12)


def test_the_cost_of_hippo_rho_vanishes_at_rest(ds: xr.Dataset) -> None:
    """|a phi / (1 + a phi)| with |phi| = w / sqrt(w^2 + N^2): at most that over (rho - |phi|)."""
    low = ds["low_omega"].values
    for N in (8, 16):
        value = ds["low_deviation"].sel(state_dim=N, init="hippo-rho-10").values
        assert value[0] == 0
        phi = low / np.hypot(low, N)
        assert (value <= phi / (10 - phi) * (1 + 1e-9)).all()
        assert (value >= phi / (10 + phi) * (1 - 1e-9)).all()


def test_discretisations(ds: xr.Dataset) -> None:
    """Tustin's rule keeps the largest gain; S4's convention multiplies the spike; ZOH damps it."""
    for N in (8, 16):
        at = ds.sel(state_dim=N, init="s4d-legs")
        height, omega = float(at["peak_gain"]), float(at["attack_omega"])
        for dt in (0.1, 0.005):
            peak = {m: float(at["peak_gain_discrete"].sel({"method": m, "dt": dt})) for m in theory.METHODS}
            assert peak["bilinear"] == pytest.approx(height, rel=1e-6)
            assert peak["bilinear_s4"] == pytest.approx(height * math.hypot(1, omega * dt / 2), rel=0.01)
            assert peak["zoh"] <= height * 1.01
    fine = ds.sel({"state_dim": 16, "init": "s4d-legs", "method": "zoh", "dt": 0.005})
    assert float(fine["peak_angle"]) == pytest.approx(80.966 * 0.005, abs=1e-3)
    assert (ds["gain_discrete"].max("node") <= ds["peak_gain_discrete"] * (1 + 1e-9)).all()
    assert (ds["attack_gain_discrete"] <= ds["peak_gain_discrete"] * (1 + 1e-9)).all()


def test_the_alias_of_the_attack(ds: xr.Dataset) -> None:
    heard = float(ds["attack_alias"].sel(state_dim=16, dt=0.1))
    assert heard <= math.pi / 0.1
    assert math.cos(heard * 0.1) == pytest.approx(math.cos(float(ds["attack_omega"].sel(state_dim=16)) * 0.1))


def test_in_words(ds: xr.Dataset) -> None:
    lines = " ".join(theory.verdict(ds))
    assert "80.97 rad/s" in lines
    assert "hippo-rho-10" in lines
    assert theory.verdict(ds.isel(init=[1]))  # LegS alone


@pytest.mark.parametrize("name", ["theory", "discretised"])
def test_figures(ds: xr.Dataset, name: str) -> None:
    tree = xr.DataTree.from_dict({"theory": ds})
    figure = plots.FIGURES[name](tree, "iclr")
    assert style.layout_defects(figure) == []
    curves = [line for ax in figure.axes for line in ax.get_lines()]
    gain = ds["gain"].sel(state_dim=16, init="s4d-legs").values
    assert any(np.array_equal(np.asarray(line.get_ydata()), gain) for line in curves)


@pytest.mark.parametrize(
    "changes",
    [
        {"theory_inits": ("s4d",)},
        {"theory_inits": ("legs", "legs")},
        {"theory_state_dims": ()},
        {"theory_state_dims": (7,)},
        {"theory_steps": (0.0,)},
        {"theory_methods": ("zohh",)},
        {"theory_points": 1},
        {"theory_low": 0.0},
        {"theory_seed": -1},
    ],
)
def test_what_cannot_be(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        theory.check(dataclasses.replace(CONFIG, **changes))  # type: ignore[arg-type]


def test_the_part_can_be_left_out() -> None:
    none = dataclasses.replace(CONFIG, theory_inits=(), theory_steps=())
    theory.check(none)
    assert theory.tasks(none) == []
