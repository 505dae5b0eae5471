"""Ours and its peers, timed in turns: `python -m ssmtheory.bench`.

Every implementation that is installed runs in a process of its own, and all take turns, so that whatever the machine
does meanwhile falls on everybody. One thread is measured in processor time, which preemption does not enter; two
threads by the wall clock. Each result is held against a float64 reference before it is timed. The machine's own limits
(multiply-adds, exponentials, memory) are measured in the same rounds.

The module has the names of an experiment (`ssmtheory.experiments.base`), so that a run is stored like any other. But it
is a measurement: two runs of one configuration differ, and their `content_sha256` with them. A run's identity holds the
versions of all peers, the processor, and the digest of our own sources.

>>> from ssmtheory.bench import peers
>>> [name for name in peers.PEERS if name.startswith("jax")]
['jax lax.scan', 'jax associative_scan']
"""

from __future__ import annotations

import dataclasses
import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmtheory.errors import ConfigError, nearest
from ssmtheory.results.schema import DatasetSchema, Dimension, Variable
from ssmtheory.typing import Array

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["SCHEMA", "TITLE", "Config", "Plan", "assemble", "plan", "run_task", "verdict"]

TITLE = "Scans, kernels and models: ours and its peers in turns, and the limits of the machine"


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass(frozen=True)
class Config:
    """What is measured, with whom, how often."""

    cases: tuple[str, ...] = field(default=(), metadata=_help("groups or names of cases; all of them by default"))
    peers: tuple[str, ...] = field(
        default=(), metadata=_help("whom to run; ours are added unless some of them are named")
    )
    quick: bool = field(default=False, metadata=_help("tiny shapes: a look at whether everything runs"))
    rounds: int = field(default=9, metadata=_help("timed calls of each peer"))
    budget: float = field(
        default=10.0, metadata=_help("processor time a peer gets per case before it is called less [s]")
    )
    limit: float = field(default=120.0, metadata=_help("longest call [s]"))
    memory: float = field(default=4.0, metadata=_help("how much a process may grow by [GB]"))
    threads: tuple[int, ...] = field(default=(1, 2), metadata=_help("numbers of threads, 1 first"))


@dataclass
class Plan:
    """What the runner asks of a plan (`ssmtheory.experiments.base.Plan`, which is of the same layer)."""

    resolved: dict[str, Any]
    tasks: list[str]
    describe: dict[str, str]
    result_bytes: int
    context: Any
    model_sha256: None = None
    task_noun: str = "case"
    task_seconds: float | None = None


_OWN = {
    "case": Dimension("what was measured: group and shape"),
    "peer": Dimension("implementation"),
    "threads": Dimension("threads a process may use"),
    "round": Dimension("round of calls"),
    "target": Dimension("number that is to be reached"),
}
_EACH, _PAIR, _SAMPLES = ("case", "threads", "peer"), ("case", "peer"), ("case", "threads", "peer", "round")


def _schema() -> DatasetSchema:
    from ssmtheory.bench import harness, limits

    def real(dims: tuple[str, ...], units: str, words: str) -> Variable:
        return Variable(dims, "float64", units, words)

    times = {
        "cpu": real(_SAMPLES, "s", "processor time of one call, all threads"),
        "wall": real(_SAMPLES, "s", "wall time of one call"),
        "first_cpu": real(_EACH, "s", "processor time of the first call, with what is compiled in it"),
        "first_wall": real(_EACH, "s", "wall time of the first call, with what is compiled in it"),
        "setup_wall": real(_EACH, "s", "wall time of importing and setting up"),
        "memory": real(_PAIR, "byte", "peak of resident memory in a call over what was held before it"),
        "error": real(_PAIR, "1", "largest error against the float64 reference, of the result's largest value"),
        "state": Variable(_PAIR, "int8", "1", "what became of it", attrs={"flag_meanings": " ".join(harness.STATES)}),
        "reason": Variable(_PAIR, "str", "1", "why it was not measured, or its first time"),
        "repetitions": Variable(_EACH, "int64", "1", "timed calls"),
        "compared_with": Variable(
            ("case",), "int64", "1", "index of the peer that the others are compared with, -1: none"
        ),
        "ratio": real(_EACH, "1", "median time over ours, of the rounds in which both took part"),
        "fraction": real(_PAIR, "1", "least time by the machine's limits over the median, one thread"),
    }
    for clock, words in (("cpu", "processor time"), ("wall", "wall time")):
        times[f"median_{clock}"] = real(_EACH, "s", f"median {words} of a call")
        times[f"low_{clock}"] = real(_EACH, "s", f"first quartile of the {words}")
        times[f"high_{clock}"] = real(_EACH, "s", f"third quartile of the {words}")
    cases = {
        name: Variable(("case",), "int64", "1", words)
        for name, words in (("batch", "batch"), ("length", "steps"), ("channels", "channels"), ("states", "states"))
    }
    cases |= {
        name: Variable(("case",), "str", "1", words)
        for name, words in (("group", "group"), ("kind", "computation"), ("mode", "forward, gradient or backward"),
                            ("sweep", "axis that the group varies"))
    }  # fmt: skip
    machine = {
        name: real(("case", "round"), units, f"rate of one thread: {name}") for name, units in limits.RATES.items()
    }
    machine["vector_width"] = Variable((), "int64", "1", "float32 numbers in a vector; 0: limits not measured")
    machine["processor"] = Variable((), "str", "1", "processor")
    who = {
        "version": Variable(("peer",), "str", "1", "version of the package; empty: not installed"),
        "package": Variable(("peer",), "str", "1", "distribution"),
        "ours": Variable(("peer",), "bool", "1", "whether it is this package"),
        "note": Variable(("peer",), "str", "1", "what the reader must know"),
    }
    targets = {
        "goal": real(("target",), "1", "what is to be reached"),
        "value": real(("target",), "1", "what was measured"),
        "met": Variable(("target",), "int8", "1", "1 reached, 0 missed, -1 not measured"),
    }
    groups = {"times": times, "cases": cases, "machine": machine, "peers": who, "targets": targets}
    return DatasetSchema("bench", 1, groups, _OWN)


SCHEMA = _schema()


def processor() -> str:
    """Name of the processor, as the system gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _sources() -> str:
    """Digest of the code that is measured and of the code that measures."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for folder in ("bench", "scan", "mamba"):
        for path in sorted((root / folder).glob("*")):
            if path.suffix in (".py", ".c"):
                digest.update(path.name.encode() + b"\n" + path.read_bytes())
    return digest.hexdigest()


def plan(config: Config) -> Plan:
    """Choose cases and peers.

    Raises:
        ConfigError: an unknown case or peer, or an impossible number.
    """
    from ssmtheory.bench import cases, harness, peers

    for name in ("rounds", "budget", "limit", "memory"):
        if not getattr(config, name) > 0:
            raise ConfigError(f"--{name} {getattr(config, name)}: must be above 0")
    if not config.threads or config.threads[0] != 1 or len(set(config.threads)) != len(config.threads):
        raise ConfigError(f"--threads {config.threads}: 1 comes first, each number once")
    everything = cases.suite(config.quick)
    known = [*dict.fromkeys(case.group for case in everything), *(case.name for case in everything)]
    for name in config.cases:
        if name not in known:
            raise ConfigError(f"--cases {name}: there are {', '.join(known)}.{nearest(name, known)}")
    for name in config.peers:
        if name not in peers.PEERS:
            raise ConfigError(
                f"--peers {name!r}: there are {', '.join(peers.PEERS)}.{nearest(name, list(peers.PEERS))}"
            )
    chosen = [c for c in everything if not config.cases or {c.group, c.name} & set(config.cases)]
    own = not any(peers.PEERS[name].ours for name in config.peers)
    asked = [
        name for name, peer in peers.PEERS.items() if not config.peers or name in config.peers or (own and peer.ours)
    ]
    asked = [name for name in asked if any(peers.PEERS[name].can(case) for case in chosen)]
    rounds = min(config.rounds, 3) if config.quick else config.rounds
    settings = harness.Settings(rounds, config.budget, config.limit, config.memory, config.threads)
    versions = {name: peers.version(peers.PEERS[name]) for name in asked}
    return Plan(
        resolved={
            **dataclasses.asdict(settings),
            "cases": [case.name for case in chosen],
            "quick": config.quick,
            "peers": versions,
            "processor": processor(),
            "sources_sha256": _sources(),
        },
        tasks=[case.name for case in chosen],
        describe={
            "processor": processor(),
            "cases": f"{len(chosen)}, {rounds} rounds each",
            "peers": ", ".join(f"{name} {text}".strip() for name, text in versions.items()),
        },
        result_bytes=len(chosen) * len(asked) * (16 * rounds * len(config.threads) + 400),
        context=_Context({case.name: case for case in chosen}, asked, settings, harness.Pool()),
    )


@dataclass
class _Context:
    cases: dict[str, Any]
    peers: list[str]
    settings: Any
    pool: Any


def run_task(plan: Plan, key: str) -> dict[str, Array]:
    """Measure one case, "group/variable" -> array; processes are kept for the next one."""
    from ssmtheory.bench import harness

    context: _Context = plan.context
    found = harness.measure(context.cases[key], context.peers, context.settings, context.pool)
    if key == plan.tasks[-1]:
        context.pool.close()
    return {f"times/{name}": value for name, value in found.items()}


def assemble(plan: Plan, parts: Mapping[str, Mapping[str, Array]]) -> xr.DataTree:
    """The dataset of all cases."""
    import xarray as xr

    from ssmtheory.bench import limits, peers, report

    context: _Context = plan.context
    chosen, names = list(context.cases.values()), context.peers
    stacked = {
        name.removeprefix("times/"): np.stack([np.asarray(parts[case.name][name]) for case in chosen])
        for name in parts[chosen[0].name]
    }
    width = limits.vector_width()
    stacked |= report.summarise(stacked, chosen, names, width)
    rates = {name: stacked.pop(f"rate_{name}") for name in limits.RATES}
    coords: dict[str, Any] = {
        "case": np.array([case.name for case in chosen]),
        "peer": np.array(names),
        "threads": np.array(context.settings.threads, dtype=np.int64),
    }

    def group(name: str, variables: Mapping[str, Any], *labels: str) -> xr.Dataset:
        declared = SCHEMA.groups[f"/{name}"]
        return xr.Dataset(
            {key: (declared[key].dims, np.asarray(value)) for key, value in variables.items()},
            {label: coords[label] for label in labels},
        )

    tree = xr.DataTree.from_dict(
        {
            "/times": group("times", stacked, "case", "peer", "threads"),
            "/cases": group(
                "cases",
                {name: [getattr(c, name) for c in chosen] for name in SCHEMA.groups["/cases"]},
                "case",
            ),
            "/machine": group(
                "machine", {**rates, "vector_width": np.int64(width), "processor": np.array(processor())}, "case"
            ),
            "/peers": group(
                "peers",
                {
                    "version": [peers.version(peers.PEERS[name]) for name in names],
                    "package": [peers.PEERS[name].package for name in names],
                    "ours": [peers.PEERS[name].ours for name in names],
                    "note": [peers.PEERS[name].note for name in names],
                },
                "peer",
            ),
        }
    )
    told = [target for target in report.TARGETS if target.case in context.cases]
    values = np.array([report.judge(target, tree) for target in told], dtype=np.float64)
    goals = np.array([target.goal for target in told], dtype=np.float64)
    below = np.array([target.at_most for target in told], dtype=bool)
    met = np.where(np.isnan(values), -1, np.where(below, values <= goals, values >= goals))
    coords["target"] = np.array([target.name for target in told], dtype=str)
    tree["targets"] = xr.DataTree(
        group("targets", {"goal": goals, "value": values, "met": met.astype(np.int8)}, "target")
    )
    return tree


def verdict(tree: xr.DataTree) -> list[str]:
    """Targets and the table."""
    from ssmtheory.bench import report

    return report.table(tree)
