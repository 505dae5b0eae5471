"""Where the kernels of an initialisation tend as N grows, and in which sense: derivation, witnesses, kernels.

`--init s4d-legs` derives the limit step by step, executes every step, and says which modes of convergence hold and
which fail; `--latex FILE` writes the derivation. Beside it stand numbers: kernels at a few N against the limit, their
mean over a short window (which converges where the kernel does not), L2 distances, the basis functions of the HiPPO
measures, and sampled kernels.

The modes are those of `ssmtheory.symbolic.limits`: "uniform" is uniform in frequency (H-infinity), not in time.
Papers: S4D arXiv 2206.11893 (limit of the kernels), HTTYH arXiv 2206.12037 (basis functions).
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmtheory.errors import ConfigError
from ssmtheory.experiments import base
from ssmtheory.experiments._kernel_schema import MODES, SCHEMA
from ssmtheory.typing import Array

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["MEASURES", "SCHEMA", "TITLE", "Config", "assemble", "documents", "plan", "run", "run_task", "verdict"]

TITLE = "Limits of state-space kernels as the state grows, and in which sense they hold"

#: rows of the group `bases`
MEASURES = ("legs", "legt", "fout", "s4d-legs", "s4d-inv", "s4d-lin", "s4d-real")
#: whose dense matrix exponential costs N^3
_DENSE = ("legt", "fout")
_METHODS = ("zoh", "bilinear_s4")
_BASES_TIME = 2.0


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass(frozen=True)
class Config:
    """Which limit, and at which N to look at it."""

    init: tuple[str, ...] = field(default=("s4d-legs",), metadata=_help("initialisations whose kernel limit to derive"))
    output: int = field(default=0, metadata=_help("output n: C = e_n in the HiPPO basis, or the mode"))
    state_dims: tuple[int, ...] = field(default=(16, 64, 256, 1024), metadata=_help("state dimensions N, even"))
    time: float = field(default=3.0, metadata=_help("end of the stored times [s]"))
    points: int = field(default=769, metadata=_help("stored times"))
    window: float = field(default=0.05, metadata=_help("length of the averaging window [s]"))
    bases_dim: int = field(default=64, metadata=_help("state dimension of the basis functions"))
    bases_outputs: int = field(default=5, metadata=_help("basis functions per measure"))
    sampled_dims: tuple[int, ...] = field(
        default=(256, 1024), metadata=_help("state dimensions of the sampled kernels")
    )
    dt: float = field(default=0.01, metadata=_help("step of the sampled kernels [s]"))
    latex: str = field(default="", metadata=_help("write the derivation as a LaTeX document to this file"))


# ---------------------------------------------------------------------- plan
def plan(config: Config) -> base.Plan:
    """Check every option and name the tasks; `latex` is where a copy goes, no part of the run.

    Raises:
        ConfigError: an option has an impossible value.
        InputError: an initialisation whose limit is not derived.
    """
    from ssmtheory.symbolic import kernel_limit

    if not 0 <= config.output <= 10:
        # beyond, sums of exponentials with binomial weights lose their digits
        raise ConfigError(f"--output {config.output}: must be from 0 to 10")
    for name in ("init", "state_dims", "sampled_dims"):
        values = getattr(config, name)
        if not values or len(set(values)) != len(values):
            raise ConfigError(f"--{name.replace('_', '-')} {values}: give at least one, each once")
    for name in ("state_dims", "sampled_dims"):
        for value in getattr(config, name):
            if value < max(2, config.output + 2) or value % 2:
                raise ConfigError(
                    f"--{name.replace('_', '-')} {value}: must be even and at least {max(2, config.output + 2)}"
                )
    for name in ("time", "window", "dt"):
        if not 0 < getattr(config, name) < math.inf:
            raise ConfigError(f"--{name} {getattr(config, name)}: must be above 0")
    if config.points < 2 or not 1 <= config.bases_outputs <= 16 or config.bases_dim < 40 or config.bases_dim % 2:
        raise ConfigError(
            f"--points {config.points} --bases-outputs {config.bases_outputs} --bases-dim {config.bases_dim}: must be "
            "at least 2, from 1 to 16, and even and at least 40"
        )
    for name in config.init:
        kernel_limit(name, config.output)
    resolved = dataclasses.asdict(config)
    del resolved["latex"]
    tasks = [f"derivation/{name}" for name in config.init]
    tasks += [f"kernel/{name}/{N}" for name in config.init for N in config.state_dims]
    tasks += ["bases", *[f"sampled/{N}" for N in config.sampled_dims]]
    return base.Plan(
        resolved=resolved,
        tasks=tasks,
        describe={"limits": f"{', '.join(config.init)}, output {config.output}"},
        result_bytes=24 * config.points * len(config.state_dims) * len(config.init) + 200_000,
        context=config,
        task_noun="part",
        task_seconds=1.0,
    )


# ---------------------------------------------------------------------- tasks
def run_task(plan: base.Plan, key: str) -> dict[str, Array]:
    """The arrays of one task, "group/variable" -> array; a function of (plan, key) only."""
    config: Config = plan.context
    kind, *rest = key.split("/")
    if kind == "derivation":
        return _derivation(rest[0], config.output)
    if kind == "kernel":
        return {f"kernels/{name}": value for name, value in _kernel(config, rest[0], int(rest[1])).items()}
    if kind == "bases":
        return {"bases/kernel": _bases(config)}
    return {f"sampled/{name}": value for name, value in _sampled(config, int(rest[0])).items()}


def _derivation(name: str, output: int) -> dict[str, Array]:
    """The derivation, executed: steps, modes of convergence, LaTeX."""
    from ssmtheory.symbolic import kernel_limit
    from ssmtheory.symbolic.derivation import plain

    limit = kernel_limit(name, output)
    proof = limit.derivation
    report = limit.check()
    steps = [*proof.steps, *proof.confirmations]
    modes = list(limit.holds)
    import sympy

    return {
        "modes/names": np.array(modes),
        "modes/holds": np.array([int(limit.holds[mode]) for mode in modes], dtype=np.int8),
        "modes/witness": np.array([str(limit.witness.get(mode, "")) for mode in modes]),
        "modes/status": np.array([report.status] * len(modes)),
        "modes/expression": np.array(str(limit.expr)),
        "modes/latex": np.array(sympy.latex(limit.expr)),
        "derivation/number": np.array([outcome.number for outcome in report.outcomes]),
        "derivation/text": np.array([plain(outcome.text) for outcome in report.outcomes]),
        "derivation/latex": np.array([r" \\ ".join(claim.latex() for claim in step.claims) for step in steps]),
        "derivation/kind": np.array([outcome.kind for outcome in report.outcomes]),
        "derivation/checked": np.array([int(outcome.ok) for outcome in report.outcomes], dtype=np.int8),
        "derivation/title": np.array([proof.title] * len(steps)),
        "derivation/document": np.array(proof.latex(full_document=True)),
        "derivation/status": np.array(report.status),
    }


def _times(config: Config) -> Array:
    return np.linspace(0, config.time, config.points)


def _built(name: str, N: int) -> Any:
    """The system whose output n is the kernel that `symbolic.kernel_limit` speaks of."""
    from ssmtheory import inits

    return inits.get(name, **({"basis": "modes"} if name in ("s4d-inv", "s4d-lin") else {})).build(N).system


def _response(name: str, N: int, output: int, t: Array, step: bool) -> Array:
    """Kernel, or step response, of one output at rising equidistant or arbitrary times (k,), real part."""
    from ssmtheory.experiments._transfer_systems import legs_output

    # LegS's output does not depend on N: n+1 modes instead of N
    system = legs_output(output) if name in ("legs", "s4") else _built(name, N)[output]
    values = system.step_response(t) if step else system.impulse_response(t)
    return np.asarray(values)[:, 0, 0].real


def _limit_values(name: str, output: int, t: Array) -> Array:
    """The limit kernel at times (k,), real part; at a jump the value before it."""
    from ssmtheory.symbolic import kernel_limit

    found = kernel_limit(name, output).lower()
    values = found(t) if callable(found) else found
    return np.broadcast_to(np.real(values), t.shape).astype(np.float64)


def _limit_mean(name: str, output: int, t: Array, window: float) -> Array:
    """Mean of the limit over [t, t + window], cut where a window of the measure ends."""
    x, weight = np.polynomial.legendre.leggauss(12)
    total = np.zeros(t.size)
    for low, high in ((0.0, 1.0), (1.0, math.inf)):
        a, b = np.clip(t, low, high), np.clip(t + window, low, high)
        nodes = (a + b)[:, None] / 2 + (b - a)[:, None] / 2 * x
        values = _limit_values(name, output, nodes.reshape(-1)).reshape(nodes.shape)
        total += (b - a) / 2 * (values @ weight)
    return total / window


def _kernel(config: Config, name: str, N: int) -> dict[str, Array]:
    t = _times(config)
    kernel = _response(name, N, config.output, t, step=False)
    limit = _limit_values(name, config.output, t)
    before = _response(name, N, config.output, t, step=True)
    # to 1e-12 s: where the times are multiples of a power of two, equal steps stay equal and share their exponential
    window = round(config.window * 2**40) / 2**40
    after = _response(name, N, config.output, t + window, step=True)
    windowed = (after - before) / window - _limit_mean(name, config.output, t, window)
    measured, exact = _distances(name, N, config.output)
    return {
        "kernel": kernel,
        "limit": limit,
        "difference": kernel - limit,
        "windowed": windowed,
        "l2_difference": np.array(measured),
        "l2_exact": np.array(exact),
        "uniform_difference": np.array(np.abs(kernel - limit).max()),
    }


def _distances(name: str, N: int, output: int) -> tuple[float, float]:
    """L2 distance of kernel and limit: from the systems, and by a closed formula (NaN where there is none)."""
    from ssmtheory.experiments._transfer_systems import legs_output
    from ssmtheory.inits import hippo, hippo_rho

    if name in ("legs", "s4", "s4d-lin", "s4d-real"):
        return 0.0, 0.0  # the kernel does not depend on N
    system = _built(name, N)[output]
    if name == "s4d-inv":
        return float(system.h2_norm()), 1.0
    if name in _DENSE:
        # the limit lives on [0, 1]: |K_N|^2 - 2 <K_N, K> + |K|^2, the inner products by Simpson's rule on equal steps,
        # which share one matrix exponential
        t = np.arange(8193) / 8192
        weight = np.ones(t.size)
        weight[1:-1:2], weight[2:-1:2] = 4, 2
        weight /= 3 * (t.size - 1)
        limit = _limit_values(name, output, t)
        inner = float(weight @ (_response(name, N, output, t, step=False) * limit))
        square = system.h2_norm() ** 2 - 2 * inner + float(weight @ limit**2)
        return math.sqrt(max(square, 0.0)), math.nan
    measured = float((system - legs_output(output)).h2_norm())
    if name == "s4d-legs":
        return measured, math.sqrt(float(hippo.s4d_gap(N, output)))
    from ssmtheory import inits

    init: Any = inits.get("hippo-rho")
    a = init.factor(N)
    return measured, math.sqrt(hippo_rho.l2_gap(N, a.real, output))


def _bases(config: Config) -> Array:
    """Basis functions (measure, output, time): of S4D-Inv the slowest; of FouT without the one that is zero."""
    t = np.linspace(0, _BASES_TIME, config.points)
    rows = []
    for name in MEASURES:
        outputs = [k for k in range(config.bases_outputs + 1) if not (name == "fout" and k == 1)]
        outputs = outputs[: config.bases_outputs]
        if name == "s4d-inv":
            # its modes are numbered from the fastest, of frequency N^2/pi
            outputs = [config.bases_dim // 2 - 1 - k for k in outputs]
        if name == "legs":
            rows.append([_limit_values("legs", n, t) for n in outputs])
            continue
        values = np.asarray(_built(name, config.bases_dim)[outputs].impulse_response(t))[:, :, 0].real
        rows.append(list(values.T))
    return np.array(rows)


def _sampled(config: Config, N: int) -> dict[str, Array]:
    """K-bar / dt of S4D-LegS against LegS under the same method: (method, output, time)."""
    from ssmtheory.experiments._transfer_systems import legs_output

    steps = round(config.time / config.dt)
    outputs = list(range(min(4, N - 1)))
    system = _built("s4d-legs", N)[outputs].with_(closed_form=None)
    kernels, worst = [], []
    for method in _METHODS:
        own = np.asarray(system.discretize(config.dt, method).kernel(steps))[:, :, 0].real / config.dt
        legs = [legs_output(n).discretize(config.dt, method).kernel(steps)[:, 0, 0].real / config.dt for n in outputs]
        kernels.append(own.T)
        worst.append([np.abs(own[:, n] - legs[n]).max() for n in outputs])
    return {"kernel": np.array(kernels), "sup_difference": np.array(worst)}


# ---------------------------------------------------------------------- assembly
def assemble(plan: base.Plan, parts: Mapping[str, Mapping[str, Array]]) -> xr.DataTree:
    """The dataset of one or more limits."""
    import xarray as xr

    from ssmtheory.inits import hippo

    config: Config = plan.context
    init, sizes = np.array(config.init), np.array(config.state_dims, dtype=np.int64)

    def stack(group: str, name: str) -> Array:
        rows = [
            [np.asarray(parts[f"kernel/{label}/{N}"][f"{group}/{name}"]) for N in config.state_dims]
            for label in config.init
        ]
        return np.array(rows)

    kernels: dict[str, Any] = {
        name: (SCHEMA.groups["/kernels"][name].dims, stack("kernels", name))
        for name in ("kernel", "difference", "windowed", "l2_difference", "l2_exact", "uniform_difference")
    }
    kernels["limit"] = (("init", "time"), stack("kernels", "limit")[:, 0])
    kernels["window"] = ((), config.window)
    kernels["output"] = ((), np.int64(config.output))
    proofs = [parts[f"derivation/{label}"] for label in config.init]
    names = [str(name) for name in np.asarray(proofs[0]["modes/names"])]
    lines = [np.asarray(proof["derivation/text"]).size for proof in proofs]
    modes: dict[str, Any] = {
        name: (("init", "convergence"), np.stack([np.asarray(proof[f"modes/{name}"]) for proof in proofs]))
        for name in ("holds", "witness", "status")
    }
    modes |= {
        name: (("init",), np.array([str(np.asarray(proof[f"modes/{name}"])) for proof in proofs]))
        for name in ("expression", "latex")
    }
    derivation: dict[str, Any] = {
        name: (("line",), np.concatenate([np.asarray(proof[f"derivation/{name}"]) for proof in proofs]))
        for name in ("title", "number", "text", "latex", "kind", "checked")
    }
    derivation["subject"] = (("line",), np.repeat(init, lines))
    derivation |= {
        name: (("init",), np.array([str(np.asarray(proof[f"derivation/{name}"])) for proof in proofs]))
        for name in ("document", "status")
    }
    steps = np.arange(round(config.time / config.dt)) * config.dt
    sampled = {
        name: np.stack([np.asarray(parts[f"sampled/{N}"][f"sampled/{name}"]) for N in config.sampled_dims])
        for name in ("kernel", "sup_difference")
    }
    outputs = np.arange(sampled["kernel"].shape[2], dtype=np.int64)
    return xr.DataTree.from_dict(
        {
            "kernels": xr.Dataset(kernels, {"init": init, "state_dim": sizes, "time": _times(config)}),
            "modes": xr.Dataset(modes, {"init": init, "convergence": np.array(names)}),
            "derivation": xr.Dataset(derivation, {"init": init}),
            "bases": xr.Dataset(
                {
                    "kernel": (("measure", "output", "time"), np.asarray(parts["bases"]["bases/kernel"])),
                    "state_dim": ((), np.int64(config.bases_dim)),
                },
                {
                    "measure": np.array(MEASURES),
                    "output": np.arange(config.bases_outputs, dtype=np.int64),
                    "time": np.linspace(0, _BASES_TIME, config.points),
                },
            ),
            "sampled": xr.Dataset(
                {
                    "kernel": (("state_dim", "method", "output", "time"), sampled["kernel"]),
                    "sup_difference": (("state_dim", "method", "output"), sampled["sup_difference"]),
                    "limit": (("output", "time"), np.stack([hippo.legs_kernel(int(n), steps) for n in outputs])),
                    "dt": ((), config.dt),
                },
                {
                    "state_dim": np.array(config.sampled_dims, dtype=np.int64),
                    "method": np.array(_METHODS),
                    "output": outputs,
                    "time": steps,
                },
            ),
        }
    )


def documents(config: Config, tree: xr.DataTree) -> dict[str, str]:
    """Files to write after the run: the derivation in LaTeX where `latex` names one; several limits follow each other.

    Returns:
        path -> text.
    """
    if not config.latex:
        return {}
    texts = [str(text) for text in tree.children["derivation"].to_dataset()["document"].values]
    bodies = [text.partition("\\begin{document}\n")[2].partition("\\end{document}")[0] for text in texts]
    head = texts[0].partition("\\begin{document}\n")[0]
    return {config.latex: f"{head}\\begin{{document}}\n{''.join(bodies)}\\end{{document}}\n"}


# ---------------------------------------------------------------------- in words
_NAMES = {
    "weak": "weakly",
    "sampled": "after sampling",
    "compact": "in frequency on bounded bands",
    "inputwise": "in L2 of the output for every fixed input",
    "L2": "in L2",
    "uniform": "uniformly in frequency",
}


def verdict(tree: xr.DataTree) -> list[str]:
    """What the limits are, in which sense they hold, the numbers beside them, and the derivation step by step."""
    kernels, modes, proof = (tree.children[name].to_dataset() for name in ("kernels", "modes", "derivation"))
    output = int(kernels["output"])
    lines: list[str] = []
    for i, label in enumerate(str(name) for name in modes["init"].values):
        row = modes.isel(init=i)
        status = str(proof["status"].values[i])
        holds = {
            str(mode): int(value) for mode, value in zip(row["convergence"].values, row["holds"].values, strict=True)
        }
        good = [_NAMES[mode] for mode in MODES if holds.get(mode) == 1]
        bad = [mode for mode in MODES if holds.get(mode) == 0]
        text = f"{label}, output {output}: K_N(t) -> {row['expression'].values} as N -> infinity. "
        text += f"It holds {', '.join(good)}"
        if bad:
            witness = {str(m): str(w) for m, w in zip(row["convergence"].values, row["witness"].values, strict=True)}
            text += "; it fails " + "; ".join(f"{_NAMES[mode]} ({witness[mode]})" for mode in bad)
        lines.append(f"{text}. Status: {status}.")
        lines.append(_numbers(kernels.isel(init=i), label))
    sampled = tree.children["sampled"].to_dataset()
    last = sampled.isel(state_dim=-1)
    values = ", ".join(
        f"{method} {float(last['sup_difference'].values[j].max()):.2g}"
        for j, method in enumerate(last["method"].values)
    )
    lines.append(
        f"Sampled kernels of S4D-LegS at N = {int(last['state_dim'])}, step {float(sampled['dt']):g} s: largest "
        f"|K-bar - K-bar_LegS|/step {values} (measured)."
    )
    for label in (str(name) for name in modes["init"].values):
        mine = [str(subject) == label for subject in proof["subject"].values]
        part = proof.isel(line=np.flatnonzero(mine))
        passed = int((part["checked"].values == 1).sum())
        lines.append(f"Derivation for {label}: {passed} of {part.sizes['line']} steps hold when executed.")
        for number, kind, checked, text in zip(
            part["number"].values, part["kind"].values, part["checked"].values, part["text"].values, strict=True
        ):
            lines.append(f"  {number!s:>3} [{kind}] {'holds' if checked == 1 else 'FAILS'}: {text}")
    return lines


def _numbers(row: Any, label: str) -> str:
    sizes = [int(N) for N in row["state_dim"].values]
    windowed = np.abs(row["windowed"].values).max(axis=1)
    l2, exact = row["l2_difference"].values, row["l2_exact"].values
    listed = "; ".join(
        f"N = {N}: L2 distance {a:.4g}, largest difference at a stored time {b:.3g}, of its mean over a window of "
        f"{float(row['window']):g} s {c:.2g}"
        for N, a, b, c in zip(sizes, l2, row["uniform_difference"].values, windowed, strict=True)
    )
    text = f"{label}, measured: {listed}"
    if np.isfinite(exact).any() and exact[-1] > 0:
        known = np.isfinite(exact)
        error = np.abs(l2[known] / exact[known] - 1).max()
        text += f"; the exact L2 distance (proved) is {exact[-1]:.6g}, met within {error:.1g}"
    return text + "."


def run(config: Config | None = None) -> xr.DataTree:
    """Derive and measure in memory and return the dataset (nothing is written): `run(Config(init=("s4d-legs",)))`."""
    return base.run(sys.modules[__name__], config or Config())


if __name__ == "__main__":
    from ssmtheory.runner import main

    raise SystemExit(main("kernel_limit"))
