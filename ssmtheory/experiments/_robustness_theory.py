"""Part (a) of the experiment `robustness`: what noise of one frequency does to untrained layers, from their transfer
functions alone.

Systems are compared in the HiPPO basis with the input vector of LegS: a gain is the largest over unit readouts C, as in
`transfer_convergence`, whose labels name the systems ("legs" is LegS itself, never diagonalised). One task is one
initialisation at one state dimension; the frequency of the attack is computed from S4D's poles, in every task anew.

| name | what |
|---|---|
| `TheoryConfig` | the fields of this part, for the experiment's `Config` to inherit |
| `check(config)` | raises `ConfigError` where a field has an impossible value |
| `tasks(config)` | keys of the tasks; none where `theory_inits` is empty |
| `run(config, key)` | the arrays of one task |
| `assemble(config, parts)` | the dataset of the group "theory" |
| `VARIABLES`, `DIMENSIONS` | its schema |
| `verdict(ds)` | what was found, in sentences |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ssmtheory.errors import ConfigError, nearest
from ssmtheory.experiments._transfer_systems import Member, member, spikes
from ssmtheory.results.schema import Dimension, Variable
from ssmtheory.typing import Array

if TYPE_CHECKING:
    import xarray as xr

    from ssmtheory.lti import LTI

__all__ = [
    "DIMENSIONS",
    "METHODS",
    "VARIABLES",
    "TheoryConfig",
    "assemble",
    "attack",
    "check",
    "run",
    "tasks",
    "verdict",
]

#: discretisations that a layer may have
METHODS = ("zoh", "bilinear", "bilinear_s4")
_LEGS, _S4D = "legs", "s4d-legs"
#: offsets from a resonance of S4D in rad/s, whose half-width is 1/2
_AROUND = np.array([-8, -4, -2, -1, -0.5, -0.25, 0, 0.25, 0.5, 1, 2, 4, 8.0])
#: resonances that the grids resolve, from the largest frequency down
_RESOLVED = 8


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass(frozen=True)
class TheoryConfig:
    """Fields of part (a)."""

    theory_inits: tuple[str, ...] = field(
        default=(_LEGS, _S4D, "ptd-0.1", "ptd-dissipative-0.4", "hippo-rho-10", "hippo-rho-normal-3"),
        metadata=_help("theory: legs, s4d-legs, ptd-[KIND-]EPSILON, hippo-rho-[KIND-]RHO; none leaves the part out"),
    )
    theory_state_dims: tuple[int, ...] = field(default=(16, 32, 64), metadata=_help("theory: state dimensions N, even"))
    theory_steps: tuple[float, ...] = field(default=(0.001, 0.01, 0.1), metadata=_help("theory: steps Delta [s]"))
    theory_methods: tuple[str, ...] = field(
        default=METHODS, metadata=_help("theory: discretisations: " + ", ".join(METHODS))
    )
    theory_points: int = field(default=300, metadata=_help("theory: frequencies of a curve, besides those at spikes"))
    theory_low: float = field(default=10.0, metadata=_help("theory: end of the low frequencies [rad/s]"))
    theory_seed: int = field(default=0, metadata=_help("theory: of the random perturbations"))


_IN = ("init", "state_dim")
_INMD = ("init", "state_dim", "method", "dt")


def _f(dims: tuple[str, ...], units: str, long_name: str) -> Variable:
    return Variable(dims, "float64", units, long_name, optional=True)


#: The variables of the group "theory".
VARIABLES: dict[str, Variable] = {
    "omega": _f(("omega",), "rad/s", "angular frequency"),
    "gain": _f((*_IN, "omega"), "1", "largest |C X(i omega)| over unit C, the larger at omega and -omega"),
    "attack_omega": _f(("state_dim",), "rad/s", "frequency at which S4D-LegS of N states amplifies most"),
    "attack_gain": _f(_IN, "1", "gain at the attack frequency, continuous time"),
    "attack_gain_discrete": _f(_INMD, "1", "gain at the attack frequency after discretisation, aliasing included"),
    "attack_alias": _f(("state_dim", "dt"), "rad/s", "frequency below pi/dt as which the attack is heard"),
    "peak_omega": _f(_IN, "rad/s", "frequency at which this system amplifies most"),
    "peak_gain": _f(_IN, "1", "gain there"),
    "peak_gain_discrete": _f(_INMD, "1", "largest gain on the unit circle"),
    "peak_angle": _f(_INMD, "rad", "angle per sample at which it is reached"),
    "angle": _f(("state_dim", "method", "dt", "node"), "rad", "angle per sample of the discrete gains"),
    "gain_discrete": _f((*_INMD, "node"), "1", "largest gain over unit C at that angle"),
    "low_omega": _f(("low",), "rad/s", "low frequencies"),
    "low_deviation": _f((*_IN, "low"), "1", "|X - X_LegS| / |X_LegS| at low frequency"),
    "low_cost": _f(_IN, "1", "largest relative deviation at the low frequencies"),
    "deviation": _f(_IN, "1", "sup over omega of |X - X_LegS|"),
    "kappa": _f(_IN, "1", "eigenvector condition number, unit columns (NaN for LegS: beyond double precision)"),
    "spectral_abscissa": _f(_IN, "1/s", "largest real part of a pole"),
}

#: Dimensions of the group that are not reserved.
DIMENSIONS: dict[str, Dimension] = {
    "method": Dimension("discretisation: zoh, bilinear, bilinear_s4"),
    "dt": Dimension("step Delta", "s"),
    "node": Dimension("point of a grid of angles per sample"),
    "low": Dimension("point of the grid of low frequencies"),
}


# ---------------------------------------------------------------------- plan
def check(config: TheoryConfig) -> None:
    """Check the fields of this part.

    Raises:
        ConfigError: a field has an impossible value.
    """
    if not config.theory_inits:
        return
    for name in ("state_dims", "steps", "methods"):
        values = getattr(config, f"theory_{name}")
        if not values or len(set(values)) != len(values):
            raise ConfigError(f"--theory-{name.replace('_', '-')} {values}: give at least one, each once")
    if len(set(config.theory_inits)) != len(config.theory_inits):
        raise ConfigError(f"--theory-inits {config.theory_inits}: each once")
    for N in config.theory_state_dims:
        if N < 4 or N % 2:
            raise ConfigError(f"--theory-state-dims {N}: must be even, at least 4")
    for step in config.theory_steps:
        if not 0 < step < math.inf:
            raise ConfigError(f"--theory-steps {step}: must be a step in seconds, above 0")
    for method in config.theory_methods:
        if method not in METHODS:
            raise ConfigError(
                f"--theory-methods {method}: must be one of {', '.join(METHODS)}.{nearest(method, METHODS)}"
            )
    if config.theory_points < 2:
        raise ConfigError(f"--theory-points {config.theory_points}: must be at least 2")
    if not 0 < config.theory_low < math.inf:
        raise ConfigError(f"--theory-low {config.theory_low}: must be a frequency above 0")
    if config.theory_seed < 0:
        raise ConfigError(f"--theory-seed {config.theory_seed}: must be at least 0")
    for label in config.theory_inits:
        if label != _LEGS:
            member(label, 8)


def tasks(config: TheoryConfig) -> list[str]:
    """Keys of the tasks, "theory/INIT/N"."""
    return [f"theory/{label}/{N}" for N in config.theory_state_dims for label in config.theory_inits]


# ---------------------------------------------------------------------- grids
def attack(N: int) -> float:
    """The frequency in rad/s at which S4D-LegS of N states amplifies most, over unit C: from its poles."""
    from ssmtheory import inits
    from ssmtheory.robustness.gain import attack_frequency

    return attack_frequency(inits.get(_S4D).build(N).system).omega


def _omega(config: TheoryConfig) -> Array:
    """Frequencies from 0.1 to beyond the last spike of the largest N, spikes included."""
    near = [(spikes(N, _RESOLVED)[:, None] + _AROUND).reshape(-1) for N in config.theory_state_dims]
    top = 4.0 * max(config.theory_state_dims) ** 2
    grid = np.unique(np.concatenate([np.geomspace(0.1, top, config.theory_points), *near]))
    return grid[grid > 0]


def _low(config: TheoryConfig) -> Array:
    return np.concatenate([[0.0], np.geomspace(1e-3 * config.theory_low, config.theory_low, 60)])


def _angles(config: TheoryConfig, N: int, method: str, dt: float) -> Array:
    """Angles in (0, pi]: half of them even, half geometric, and those near S4D's resonances, aliased."""
    from ssmtheory.robustness.gain import alias

    where = (spikes(N, _RESOLVED)[:, None] + _AROUND).reshape(-1)
    heard = alias(where, dt) * dt if method == "zoh" else 2 * np.arctan(np.abs(where) * dt / 2)
    # N = 4 has fewer spikes than the others: the grid's size is that of the largest
    heard = np.resize(heard, _RESOLVED * _AROUND.size)
    half = config.theory_points // 2
    even = np.linspace(math.pi / half, math.pi, half) if half else np.array([math.pi])
    return np.sort(np.concatenate([even, np.geomspace(1e-3, math.pi, config.theory_points - half), heard]))


# ---------------------------------------------------------------------- tasks
def run(config: TheoryConfig, key: str) -> dict[str, Array]:
    """The arrays of one task; a function of (config, key) only.

    Args:
        config: the experiment's configuration.
        key: one of `tasks(config)`.

    Returns:
        Variable of the group "theory" -> array without the dimensions init and state_dim.
    """
    from ssmtheory import inits
    from ssmtheory.robustness.gain import attack_frequency, gain

    _, label, size = key.split("/")
    N = int(size)
    one = None if label == _LEGS else member(label, N, config.theory_seed)
    system: LTI = inits.get(_LEGS).build(N).system if one is None else one.system
    omega, low = _omega(config), _low(config)
    deviation = np.zeros(low.size) if one is None else _both(one, low)
    relative = deviation / (N / np.hypot(low, N))
    top = 16.0 * N**2
    own = attack_frequency(system, band=(0.0, top))
    at = attack(N)
    found = {
        "gain": gain(system, omega, two_sided=True),
        "attack_omega": at,
        "attack_gain": gain(system, at, two_sided=True)[0],
        "peak_omega": own.omega,
        "peak_gain": own.gain,
        "low_deviation": relative,
        "low_cost": relative.max(),
        "deviation": 0.0 if one is None else one.worst_peak.value,
        **_told(one),
    }
    shape = len(config.theory_methods), len(config.theory_steps)
    angles = np.stack([[_angles(config, N, m, dt) for dt in config.theory_steps] for m in config.theory_methods])
    found["angle"] = angles
    for name in ("attack_gain_discrete", "peak_gain_discrete", "peak_angle"):
        found[name] = np.empty(shape)
    found["gain_discrete"] = np.empty(angles.shape)
    for i, method in enumerate(config.theory_methods):
        for j, dt in enumerate(config.theory_steps):
            sampled = system.discretize(dt, method)
            found["gain_discrete"][i, j] = gain(sampled, angles[i, j] / dt, two_sided=True)
            found["attack_gain_discrete"][i, j] = gain(sampled, at, two_sided=True)[0]
            worst = attack_frequency(sampled, band=(0.0, math.pi / dt))
            found["peak_gain_discrete"][i, j], found["peak_angle"][i, j] = worst.gain, worst.angle
    return {name: np.asarray(value, dtype=np.float64) for name, value in found.items()}


def _both(one: Member, omega: Array) -> Array:
    """|X - X_LegS|, the larger at omega and -omega."""
    return np.maximum(one.worst(omega), one.worst(-omega)) if not one.is_real else one.worst(omega)


def _told(one: Member | None) -> dict[str, float]:
    """Condition number and spectral abscissa."""
    if one is None:
        return {"kappa": math.nan, "spectral_abscissa": -1.0}
    told = one.built.diagnostics
    return {
        "kappa": float(told.get("kappa", math.nan)),
        "spectral_abscissa": float(told.get("spectral_abscissa", one.poles.real.max())),
    }


# ---------------------------------------------------------------------- assembly
def assemble(config: TheoryConfig, parts: Mapping[str, Mapping[str, Array]]) -> xr.Dataset:
    """The dataset of the group "theory".

    Args:
        config: the experiment's configuration.
        parts: key of a task -> its arrays, those of other parts may be among them.

    Returns:
        A Dataset with the variables of `VARIABLES`.
    """
    import xarray as xr

    from ssmtheory.robustness.gain import alias

    labels, sizes = config.theory_inits, config.theory_state_dims
    data: dict[str, Array] = {"omega": _omega(config), "low_omega": _low(config)}
    for name, declared in VARIABLES.items():
        if name in data or name == "attack_alias":
            continue
        if declared.dims[:2] == _IN:
            data[name] = np.stack([[parts[f"theory/{label}/{N}"][name] for N in sizes] for label in labels])
        else:
            data[name] = np.stack([parts[f"theory/{labels[0]}/{N}"][name] for N in sizes])
    steps = np.array(config.theory_steps)
    data["attack_alias"] = np.stack([[alias(at, dt) for dt in steps] for at in data["attack_omega"]])
    coordinates = {
        "init": np.array(labels),
        "state_dim": np.array(sizes, dtype=np.int64),
        "method": np.array(config.theory_methods),
        "dt": steps,
    }
    return xr.Dataset({name: (VARIABLES[name].dims, value) for name, value in data.items()}, coords=coordinates)


# ---------------------------------------------------------------------- in words
def verdict(ds: xr.Dataset) -> list[str]:
    """What was found, in sentences, from the dataset alone; all numbers are measured in floating point."""
    labels = [str(label) for label in ds["init"].values]
    N = int(ds["state_dim"].values[-1])
    at = ds.isel(state_dim=-1)
    omega = float(at["attack_omega"])
    lines = [f"The frequency that hurts S4D-LegS most at N = {N} is {omega:.2f} rad/s, found from its poles."]
    gains = {label: float(at["attack_gain"].sel(init=label)) for label in labels}
    if _S4D in gains and len(gains) > 1:
        others = {label: value for label, value in gains.items() if label != _S4D}
        most = max(others, key=others.__getitem__)
        lines.append(
            f"There it amplifies the worst readout {gains[_S4D]:.3g} times; of the others {most} comes closest with "
            f"{others[most]:.2g}, {gains[_S4D] / others[most]:.0f} times less."
        )
    if _S4D in gains and "zoh" in ds["method"].values:
        found = at["attack_gain_discrete"].sel({"init": _S4D, "method": "zoh"})
        said = ", ".join(f"{float(v):.3g} at step {float(dt):g}" for v, dt in zip(found, ds["dt"], strict=True))
        lines.append(f"Zero-order hold leaves of it {said} (aliased above pi/step).")
    costs = {label: float(at["low_cost"].sel(init=label)) for label in labels if label not in (_LEGS, _S4D)}
    if costs:
        low = float(ds["low_omega"][-1])
        said = ", ".join(f"{label} {value:.2g}" for label, value in costs.items())
        lines.append(f"What it costs up to {low:g} rad/s, as relative deviation from LegS: {said}.")
    return lines
