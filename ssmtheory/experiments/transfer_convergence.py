"""How close to HiPPO-LegS, and in what sense: S4D, PTD and HiPPO-rho through their transfer functions.

| group of the dataset | question |
|---|---|
| gaps | sup over all frequencies, L2, H2 and band-limited distance to LegS; conditioning, stability, bounds |
| response, spikes | what |G(i omega)| looks like; where the spikes of S4D sit and how high they are |
| weak | L2 norm of the output's error for given inputs, N times it, and the limit |
| discrete | the gap after zero-order hold and both bilinear conventions |
| frontier, frontier_bound | conditioning against deviation: PTD, HiPPO-rho, and what no PTD can beat |
| tightness | actual deviation of random perturbations against our bound and the paper's |
| spectrum, pseudospectrum | the spectrum's law; resolvent norms, Kreiss constant, transient growth |
| regression | a readout trained on a band of frequencies, beyond that band |

Each number carries how it is known: certified in ball arithmetic, bracketed in floating point, or measured. Papers: S4D
arXiv 2206.11893, PTD arXiv 2310.01698; HiPPO-rho, the exact gaps and the lower bound on conditioning are ours.

The systems are compared in the HiPPO basis, with the input vector of LegS (norm N): C = e_n is output n, "worst C" the
supremum over all unit C.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmtheory.errors import ConfigError, nearest
from ssmtheory.experiments import base
from ssmtheory.experiments._transfer_schema import CERTIFIED, SCHEMA
from ssmtheory.typing import Array

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["PARTS", "SCHEMA", "TITLE", "Config", "assemble", "plan", "run", "run_task", "verdict"]

TITLE = "Transfer functions of S4D, PTD and HiPPO-rho against HiPPO-LegS"

#: groups that can be asked for
PARTS = ("gaps", "response", "weak", "discrete", "spikes", "spectrum", "frontier", "tightness", "pseudospectrum",
         "regression")  # fmt: skip
_PER_SYSTEM = ("gaps", "response", "weak", "discrete")
_FAMILIES = ("s4d", "hippo-rho", "hippo-rho-imaginary", "normal", "ginibre", "real", "dissipative", "optimised",
             "published")  # fmt: skip


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass(frozen=True)
class Config:
    """What to compare, and how far to go."""

    parts: tuple[str, ...] = field(default=PARTS, metadata=_help("groups to compute: " + ", ".join(PARTS)))
    state_dims: tuple[int, ...] = field(default=(8, 16, 32, 64, 128, 256), metadata=_help("state dimensions N"))
    inits: tuple[str, ...] = field(
        default=("s4d-legs", "ptd-0.4", "ptd-0.1", "hippo-rho-10", "hippo-rho-imaginary-11"),
        metadata=_help("systems to compare with LegS: s4d-legs, ptd-[KIND-]EPSILON, hippo-rho-[KIND-]RHO"),
    )
    outputs: tuple[int, ...] = field(default=(0, 1, 3), metadata=_help("outputs n: C = e_n in the HiPPO basis"))
    bands: tuple[float, ...] = field(
        default=(1.0, 10.0, 100.0, 1000.0), metadata=_help("edges of the bands of frequencies [rad/s]")
    )
    steps: tuple[float, ...] = field(default=(0.001, 0.01, 0.1), metadata=_help("steps of the discretisations [s]"))
    families: tuple[str, ...] = field(
        default=_FAMILIES,
        metadata=_help("families on the frontier"),
    )
    frontier_dims: tuple[int, ...] = field(
        default=(16, 32, 64, 128), metadata=_help("state dimensions of the frontier")
    )
    epsilons: tuple[float, ...] = field(
        default=(0.4, 0.1, 0.01), metadata=_help("norms of the perturbations on the frontier")
    )
    rhos: tuple[float, ...] = field(
        default=(1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0, 300.0), metadata=_help("rho of HiPPO-rho on the frontier")
    )
    optimised_up_to: int = field(default=16, metadata=_help("largest N with searched perturbations on the frontier"))
    seeds: int = field(default=3, metadata=_help("random perturbations per point of the frontier"))
    tightness_dims: tuple[int, ...] = field(default=(4, 8, 16), metadata=_help("state dimensions of the bounds' test"))
    samples: int = field(default=60, metadata=_help("random perturbations per structure and N in the bounds' test"))
    spikes: int = field(default=16, metadata=_help("spikes per N"))
    spectrum_dim: int = field(default=256, metadata=_help("state dimension of the spectrum"))
    pseudospectrum_dim: int = field(default=32, metadata=_help("state dimension of the pseudospectra"))
    matrices: tuple[str, ...] = field(
        default=("legs", "s4d-legs", "ptd-0.1", "hippo-rho-10"), metadata=_help("state matrices of the pseudospectra")
    )
    plane: int = field(default=60, metadata=_help("points along each axis of the pseudospectra"))
    regression_dim: int = field(default=16, metadata=_help("state dimension of the regression"))
    regression_inits: tuple[str, ...] = field(
        default=("legs", "s4d-legs", "ptd-0.1", "hippo-rho-10"), metadata=_help("systems of the regression")
    )
    points: int = field(default=400, metadata=_help("frequencies of the responses, besides those at spikes"))
    certify_up_to: int = field(default=256, metadata=_help("largest N whose HiPPO-rho deviation is certified"))
    certify_ptd_up_to: int = field(
        default=32, metadata=_help("largest N whose PTD deviation and condition number are certified")
    )
    dense_up_to: int = field(
        default=32,
        metadata=_help("largest N for what costs N^2 per frequency (worst C under ZOH, H2 of PTD)"),
    )
    seed: int = field(default=0, metadata=_help("of the random perturbations"))


# ---------------------------------------------------------------------- plan
def plan(config: Config) -> base.Plan:
    """Check every option and name the tasks.

    Raises:
        ConfigError: an option has an impossible value.
    """
    _check(config)
    tasks = _tasks(config)
    return base.Plan(
        resolved=dataclasses.asdict(config),
        tasks=tasks,
        describe={
            "systems": f"{', '.join(config.inits)} at N = {', '.join(map(str, config.state_dims))}",
            "parts": ", ".join(config.parts),
        },
        result_bytes=200_000 + 8 * config.plane**2 * len(config.matrices),
        context=config,
        task_noun="part",
        task_seconds=_cost(config) / len(tasks),
    )


def _check(config: Config) -> None:
    for name in ("parts", "state_dims", "inits", "outputs"):
        if not getattr(config, name):
            raise ConfigError(f"--{name.replace('_', '-')}: give at least one")
    for name, allowed in (("parts", PARTS), ("families", _FAMILIES)):
        for value in getattr(config, name):
            if value not in allowed:
                raise ConfigError(f"--{name} {value}: must be among {', '.join(allowed)}.{nearest(value, allowed)}")
    for name, least in (("state_dims", 2), ("frontier_dims", 2), ("tightness_dims", 2), ("outputs", 0)):
        for value in getattr(config, name):
            if value < least:
                raise ConfigError(f"--{name.replace('_', '-')} {value}: must be at least {least}")
        if len(set(getattr(config, name))) != len(getattr(config, name)):
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(config, name)}: each value once")
    if max(config.outputs) > min(config.state_dims) - 2:
        raise ConfigError(
            f"--outputs {max(config.outputs)}: the smallest system has N = {min(config.state_dims)} states, whose last "
            f"output is special: at most {min(config.state_dims) - 2}"
        )
    for name in ("bands", "steps", "epsilons", "rhos"):
        for value in getattr(config, name):
            if not 0 < value < math.inf or (name == "rhos" and value <= 1):
                raise ConfigError(f"--{name} {value}: must be above {1 if name == 'rhos' else 0}")
    for name in ("seeds", "samples", "spikes", "points", "plane"):
        if getattr(config, name) < (2 if name == "plane" else 1):
            raise ConfigError(f"--{name} {getattr(config, name)}: must be at least {2 if name == 'plane' else 1}")
    for name in ("spectrum_dim", "pseudospectrum_dim", "regression_dim"):
        if getattr(config, name) < 2 or (name == "spectrum_dim" and getattr(config, name) % 2):
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(config, name)}: must be an even number, at least 2")
    from ssmtheory.experiments._transfer_systems import member

    for label in (*config.inits, *config.matrices, *config.regression_inits):
        if label != "legs" or label in config.inits:
            member(label, 8)


def _tasks(config: Config) -> list[str]:
    parts = set(config.parts)
    tasks = []
    if parts & set(_PER_SYSTEM):
        tasks += [f"system/{label}/{N}" for N in config.state_dims for label in config.inits]
    if "spikes" in parts:
        tasks += [f"spikes/{N}" for N in config.state_dims]
    if "spectrum" in parts:
        tasks.append("spectrum")
    if "frontier" in parts:
        tasks += [f"frontier/{family}/{N}" for family, N in _frontier(config)]
        tasks += [f"frontier_bound/{N}" for N in config.frontier_dims]
    if "tightness" in parts:
        from ssmtheory.experiments._transfer_parts import STRUCTURES

        tasks += [f"tightness/{structure}/{N}" for structure in STRUCTURES for N in config.tightness_dims]
    if "pseudospectrum" in parts:
        tasks += [f"pseudospectrum/{label}" for label in config.matrices]
    if "regression" in parts:
        tasks += [f"regression/{label}" for label in config.regression_inits]
    return tasks


def _frontier(config: Config) -> list[tuple[str, int]]:
    return [
        (family, N)
        for family in config.families
        for N in config.frontier_dims
        if family not in ("optimised", "published") or config.optimised_up_to >= N
    ]


def _cost(config: Config) -> float:
    """Seconds on one core, roughly: a system of N states costs an eigenproblem."""
    systems = sum(0.3 + 8 * (N / 1024) ** 2.5 for N in config.state_dims) * len(config.inits)
    return systems + len(_tasks(config)) * 0.5


# ---------------------------------------------------------------------- tasks
def run_task(plan: base.Plan, key: str) -> dict[str, Array]:
    """The arrays of one task, "group/variable" -> array; a function of (plan, key) only."""
    from ssmtheory.experiments import _transfer_parts as parts

    config: Config = plan.context
    kind, *rest = key.split("/")
    if kind == "system":
        return _flat(_system(config, rest[0], int(rest[1])))
    if kind == "spikes":
        return _flat({"spikes": parts.spike_laws(int(rest[0]), config.spikes)})
    if kind == "spectrum":
        return _flat({"spectrum": parts.spectrum(config.spectrum_dim)})
    if kind == "frontier":
        return _flat(
            {"frontier": parts.frontier(rest[0], int(rest[1]), config.epsilons, config.rhos, config.seeds, config.seed)}
        )
    if kind == "frontier_bound":
        return _flat({"frontier_bound": parts.frontier_bound(int(rest[0]), config.epsilons)})
    if kind == "tightness":
        return _flat({"tightness": parts.tightness(rest[0], int(rest[1]), config.samples, config.seed)})
    if kind == "pseudospectrum":
        found = parts.pseudospectrum(
            rest[0], config.pseudospectrum_dim, *_plane(config), _LEVELS, _TIMES, seed=config.seed
        )
        return _flat({"pseudospectrum": found})
    frequency, trained = _regression_grid(config)
    return _flat({"regression": parts.regression(rest[0], config.regression_dim, frequency, trained, config.seed)})


_LEVELS = (0.5, 1.0, 2.0)
_TIMES = np.linspace(0, 4, 81)
_OFFSETS = np.unique(np.concatenate([np.linspace(-12, 12, 241), [0.0]]))


def _system(config: Config, label: str, N: int) -> dict[str, Any]:
    from ssmtheory.experiments import _transfer_parts as parts
    from ssmtheory.experiments._transfer_systems import member

    one = member(label, N, config.seed)
    effort = parts.Effort(config.certify_up_to, config.certify_ptd_up_to, config.dense_up_to)
    found: dict[str, Any] = {}
    if "gaps" in config.parts:
        found["gaps"] = parts.gaps(one, config.outputs, config.bands, effort)
    if "response" in config.parts:
        found["response"] = parts.response(one, _omega(config), _OFFSETS)
    if "weak" in config.parts:
        found["weak"] = parts.weak(one, config.outputs, config.dense_up_to)
    if "discrete" in config.parts:
        found["discrete"] = parts.discrete(one, config.steps, config.dense_up_to)
    return found


def _omega(config: Config) -> Array:
    from ssmtheory.experiments._transfer_parts import response_grid

    return response_grid(config.state_dims, config.points)


def _plane(config: Config) -> tuple[Array, Array]:
    N = config.pseudospectrum_dim
    real = np.linspace(-1.2 * N, 0.3 * N, config.plane)
    imag = np.linspace(-0.8 * N, 0.8 * N, config.plane)
    return real, imag


def _regression_grid(config: Config) -> tuple[Array, Array]:
    """Frequencies up to 1.25 times the edge of the trained band, which ends just below the last spike of S4D."""
    from ssmtheory.inits import hippo

    edge = math.floor(float(hippo.spectrum(config.regression_dim)[0]))
    frequency = np.linspace(0, 1.25 * edge, 1001)
    return frequency, frequency <= edge


def _flat(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, Array]:
    return {f"{group}/{name}": np.asarray(value) for group, part in groups.items() for name, value in part.items()}


# ---------------------------------------------------------------------- assembly
class _Parts:
    """Parts by key, stacked by what the keys name."""

    def __init__(self, parts: Mapping[str, Mapping[str, Array]]) -> None:
        self.parts = parts

    def names(self, key: str, group: str) -> list[str]:
        return [name.partition("/")[2] for name in self.parts[key] if name.startswith(f"{group}/")]

    def stack(self, group: str, name: str, keys: list[str]) -> Array:
        return np.stack([np.asarray(self.parts[key][f"{group}/{name}"]) for key in keys])

    def join(self, group: str, name: str, keys: list[str]) -> Array:
        return np.concatenate([np.atleast_1d(np.asarray(self.parts[key][f"{group}/{name}"])) for key in keys])


def assemble(plan: base.Plan, parts: Mapping[str, Mapping[str, Array]]) -> xr.DataTree:
    """The dataset: one group per part that was asked for."""
    import xarray as xr

    config: Config = plan.context
    of = _Parts(parts)
    coordinates: dict[str, Any] = {
        "init": np.array(config.inits),
        "state_dim": np.array(config.state_dims, dtype=np.int64),
        "output": np.array(config.outputs, dtype=np.int64),
        "band": np.array(config.bands),
        "dt": np.array(config.steps),
        "offset": _OFFSETS,
    }
    groups: dict[str, dict[str, Array]] = {}
    if set(config.parts) & set(_PER_SYSTEM):
        groups.update(_per_system(config, of, coordinates))
    if "spikes" in config.parts:
        keys = [f"spikes/{N}" for N in config.state_dims]
        coordinates["spike"] = np.arange(config.spikes, dtype=np.int64)
        groups["spikes"] = {name: of.stack("spikes", name, keys) for name in of.names(keys[0], "spikes")}
    if "spectrum" in config.parts:
        groups["spectrum"] = {
            name: of.parts["spectrum"][f"spectrum/{name}"] for name in of.names("spectrum", "spectrum")
        }
        groups["spectrum"]["state_dim"] = np.int64(config.spectrum_dim)
    if "frontier" in config.parts:
        groups.update(_frontier_groups(config, of))
    if "tightness" in config.parts:
        keys = [key for key in plan.tasks if key.startswith("tightness/")]
        group = {name: of.join("tightness", name, keys) for name in of.names(keys[0], "tightness")}
        kinds = [[key.split("/")[1]] * of.parts[key]["tightness/sup"].size for key in keys]
        groups["tightness"] = group | {"structure": np.concatenate([np.array(kind) for kind in kinds])}
    if "pseudospectrum" in config.parts:
        keys = [f"pseudospectrum/{label}" for label in config.matrices]
        group = {name: of.stack("pseudospectrum", name, keys) for name in of.names(keys[0], "pseudospectrum")}
        groups["pseudospectrum"] = group | {"state_dim": np.int64(config.pseudospectrum_dim)}
        real, imag = _plane(config)
        coordinates |= {"matrix": np.array(config.matrices), "real": real, "imag": imag, "time": _TIMES}
    if "regression" in config.parts:
        groups["regression"] = _regression_group(config, of)
    return _tree(xr, config, groups, coordinates)


def _tree(xr: Any, config: Config, groups: dict[str, dict[str, Array]], coordinates: dict[str, Any]) -> xr.DataTree:
    own = {
        "regression": {"init": np.array(config.regression_inits), "frequency": _regression_grid(config)[0]},
        "frontier_bound": {
            "state_dim": np.array(config.frontier_dims, dtype=np.int64), "epsilon": np.array(config.epsilons),
        },
        "pseudospectrum": {"epsilon": np.array(_LEVELS)},
    }  # fmt: skip
    tree = {}
    for group, variables in groups.items():
        declared = SCHEMA.groups[f"/{group}"]
        data = {
            name: (
                declared[name].dims,
                np.asarray(value, dtype=None if declared[name].dtype == "str" else declared[name].dtype),
            )
            for name, value in variables.items()
        }
        used = {dim for name in variables for dim in declared[name].dims}
        known = {**coordinates, **own.get(group, {})}
        tree[group] = xr.Dataset(data, coords={dim: known[dim] for dim in used if dim in known and dim not in data})
    return xr.DataTree.from_dict(tree)


def _per_system(config: Config, of: _Parts, coordinates: dict[str, Any]) -> dict[str, dict[str, Array]]:
    from ssmtheory.experiments import _transfer_parts as parts
    from ssmtheory.experiments._transfer_systems import spikes
    from ssmtheory.inits import hippo

    shape = len(config.inits), len(config.state_dims)
    keys = [f"system/{label}/{N}" for label in config.inits for N in config.state_dims]

    def stacked(group: str) -> dict[str, Array]:
        found = {}
        for name in of.names(keys[0], group):
            values = of.stack(group, name, keys)
            found[name] = values.reshape(*shape, *values.shape[1:])
        return found

    groups: dict[str, dict[str, Array]] = {}
    if "gaps" in config.parts:
        group = stacked("gaps")
        for prefix in ("", "worst_"):
            group[f"{prefix}rigorous"] = group[f"{prefix}evidence"] == CERTIFIED
        groups["gaps"] = group
    if "response" in config.parts:
        omega, row = _omega(config), np.array([0])
        centre = np.array([float(spikes(N, 1)[0]) for N in config.state_dims])
        groups["response"] = stacked("response") | {
            "omega": omega,
            "legs_magnitude": np.abs(hippo.transfer(2, 1j * omega, row)[:, 0]),
            "legs_zoom_magnitude": np.abs(hippo.transfer(2, 1j * (centre[:, None] + _OFFSETS), row)[..., 0]),
            "zoom_center": centre,
        }
    if "weak" in config.parts:
        group = stacked("weak")
        scale = np.array(config.state_dims)[:, None, None]
        groups["weak"] = group | {"scaled_error": group["l2_error"] * scale} | parts.weak_limits(config.outputs)
        coordinates["signal"] = np.array(list(parts.SIGNALS))
    if "discrete" in config.parts:
        laws = np.stack([parts.discrete_laws(N, config.steps) for N in config.state_dims])
        groups["discrete"] = stacked("discrete") | {"predicted": laws}
        coordinates["method"] = np.array(parts.METHODS)
    return groups


def _frontier_groups(config: Config, of: _Parts) -> dict[str, dict[str, Array]]:
    points = _frontier(config)
    keys = [f"frontier/{family}/{N}" for family, N in points]
    group = {name: of.join("frontier", name, keys) for name in of.names(keys[0], "frontier")}
    counts = [of.parts[key]["frontier/kappa"].size for key in keys]
    group["family"] = np.concatenate([np.array([family] * n) for (family, _), n in zip(points, counts, strict=True)])
    keys = [f"frontier_bound/{N}" for N in config.frontier_dims]
    bound = {name: of.stack("frontier_bound", name, keys) for name in of.names(keys[0], "frontier_bound")}
    bound["evidence"] = np.full((len(config.frontier_dims), len(config.epsilons)), CERTIFIED)
    return {"frontier": group, "frontier_bound": bound}


def _regression_group(config: Config, of: _Parts) -> dict[str, Array]:
    from ssmtheory.experiments._transfer_systems import spikes

    keys = [f"regression/{label}" for label in config.regression_inits]
    frequency, trained = _regression_grid(config)
    return {name: of.stack("regression", name, keys) for name in of.names(keys[0], "regression")} | {
        "target": np.ones(frequency.size),
        "trained": trained,
        "spike": spikes(config.regression_dim, 1)[0],
        "state_dim": np.int64(config.regression_dim),
    }


# ---------------------------------------------------------------------- in words
def verdict(tree: xr.DataTree) -> list[str]:
    """What was found, in sentences that say of each number how it is known; from the dataset alone."""
    from ssmtheory.experiments import _transfer_words as words

    lines = []
    for name in ("gaps", "weak", "discrete", "frontier", "tightness", "spikes", "pseudospectrum", "regression"):
        if name in tree.children:
            lines += getattr(words, name)(tree)
    return lines or ["Responses and spectra were computed; ask for gaps, weak or discrete for a verdict."]


def run(config: Config | None = None) -> xr.DataTree:
    """Measure everything in memory and return the dataset (nothing is written): `run(Config(state_dims=(8, 16)))`."""
    return base.run(sys.modules[__name__], config or Config())


if __name__ == "__main__":
    from ssmtheory.runner import main

    raise SystemExit(main("transfer_convergence"))
