"""From samples to what is read: medians and spreads, ratios to ours, fractions of the limits, targets, a table."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmtheory.bench import limits, peers
from ssmtheory.bench.cases import Case
from ssmtheory.bench.harness import STATES

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["TARGETS", "Target", "compared_with", "judge", "quartiles", "ratio", "table"]

MEASURED = STATES.index("measured")


@dataclass(frozen=True)
class Target:
    """A number that is to be reached.

    Attributes:
        quantity: "ratio" (of the peer's time to ours), "memory ratio", "fraction" (of the machine's limit), "error" (of
            our result), "growth" (of our time from `case` to `other`, relative to the growth in length), "extra" (our
            memory in `other` less that in `case`) or "seconds".
        case: name of the case.
        peer: whom we are compared with, or "" where it is about ours alone.
        goal: to be reached or exceeded; not to be exceeded by "error", "growth", "extra" and "seconds".
        other: the second case.
        ours: which of ours, where it is not the one that a case is compared with.
    """

    quantity: str
    case: str
    peer: str
    goal: float
    other: str = ""
    ours: str = ""

    @property
    def name(self) -> str:
        """One line that says what it is about."""
        against = f" against {self.peer}" if self.peer else ""
        return f"{self.quantity} {self.case}{f' to {self.other}' if self.other else ''}{against}"

    @property
    def at_most(self) -> bool:
        """Whether less is better."""
        return self.quantity in ("error", "growth", "extra", "seconds")


_MAIN = "L1024-D1536-N16"
TARGETS = (
    *(
        Target("ratio", f"forward/{_MAIN}", peer, goal)
        for peer, goal in (
            ("transformers", 100), ("mambapy", 80), ("jax lax.scan", 30), ("torch.compile scan", 6), ("llama.cpp", 20),
        )
    ),
    Target("fraction", f"forward/{_MAIN}", "", 0.8),
    Target("ratio", "gradient/L256-D1536-N16", "transformers", 600),
    *(
        Target("ratio", f"gradient/{_MAIN}", peer, goal)
        for peer, goal in (("transformers", 1500), ("mambapy", 75), ("jax lax.scan", 50), ("torch.compile scan", 8))
    ),
    Target("fraction", f"backward/{_MAIN}", "", 0.65),
    Target("ratio", "kernel/L16384-D256-N32", "baseline naive Vandermonde", 400),
    Target("memory ratio", "kernel/L16384-D256-N32", "baseline naive Vandermonde", 25),
    Target("error", "kernel/L1000000-D1-N32-hard", "", 1e-7),
    Target("ratio", "convolve/L4096-D256-N32", "ssmtheory kernel + FFT", 1),
    Target("ratio", "model/L1024-D1536-N16", "transformers model", 9.2 / 1.4),
    Target("seconds", "model/L1024-D1536-N16", "", 1.4),
    Target("growth", "length/L65536-D16-N16", "", 1.1, "length/L1000000-D16-N16"),
    Target("growth", "channel/L1024-D768-N16", "", 1.1, "channel/L1024-D3072-N16"),
    Target("extra", "length/L65536-D16-N16", "", 1e6, "length/L1000000-D16-N16"),
)  # fmt: skip


def quartiles(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Median and quartiles over the last axis, leaving out NaN; NaN where there is nothing else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        low, middle, high = np.nanquantile(samples, [0.25, 0.5, 0.75], axis=-1)
    return middle, low, high


def ratio(peer: np.ndarray, ours: np.ndarray) -> float:
    """Median of a peer's samples over median of ours, of the rounds in which both took part: equally many.

    >>> ratio(np.array([6.0, np.nan, np.nan]), np.array([2.0, 1.0, 1.0]))
    3.0
    """
    both = np.isfinite(peer) & np.isfinite(ours)
    return float(np.median(peer[both]) / np.median(ours[both])) if both.any() else float("nan")


def compared_with(case: Case, names: Sequence[str], state: np.ndarray, device: str = "cpu") -> int:
    """Index of the one of ours that others are compared with: the first that was measured; -1 where none was."""
    for i, name in enumerate(names):
        peer = peers.PEERS.get(name)
        if peer is not None and peer.ours and peer.device == device and state[i] == MEASURED:
            return i
    return -1


def limit_seconds(case: Case, rates: Mapping[str, float], width: int) -> float:
    """What the machine's rates allow at the best, in seconds; NaN where nothing is counted.

    A scan by its multiply-add slots, a recurrence by reading a and b and writing h.
    """
    if case.kind == "scan" and width:
        slots = limits.scan_slots(case.batch, case.length, case.channels, case.states, width, case.mode)
        return slots / rates["fma"]
    if case.kind == "recurrence":
        return 3 * (8 if case.complex_ else 4) * case.batch * case.length * case.channels / rates["copy"]
    return float("nan")


def judge(target: Target, tree: xr.DataTree) -> float:
    """The number that a target is about; NaN where it was not measured."""
    times = tree.children["times"].to_dataset(inherit=False)
    names, cases = [str(x) for x in times["peer"].values], [str(x) for x in times["case"].values]
    if target.case not in cases or (target.other and target.other not in cases):
        return float("nan")
    c = cases.index(target.case)
    ours = int(times["compared_with"].values[c])
    p = names.index(target.peer) if target.peer in names else -1
    if ours < 0 or (target.peer and p < 0):
        return float("nan")
    memory, median = times["memory"].values, times["median_cpu"].values[:, 0]
    if target.quantity == "ratio":
        return float(times["ratio"].values[c, 0, p])
    if target.quantity == "memory ratio":
        return float(memory[c, p] / memory[c, ours])
    if target.quantity == "fraction":
        return float(times["fraction"].values[c, ours])
    if target.quantity == "error":
        return float(times["error"].values[c, ours])
    if target.quantity == "seconds":
        return float(median[c, ours])
    other = cases.index(target.other)
    if target.quantity == "extra":
        return float(memory[other, ours] - memory[c, ours])
    work = [x["length"] * x["channels"] for x in (_shape(tree, c), _shape(tree, other))]
    return float(median[other, ours] / median[c, ours] * work[0] / work[1])


def _shape(tree: xr.DataTree, c: int) -> dict[str, int]:
    cases = tree.children["cases"].to_dataset(inherit=False)
    return {name: int(cases[name].values[c]) for name in ("batch", "length", "channels", "states")}


def _seconds(value: float) -> str:
    if not np.isfinite(value):
        return ""
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def _bytes(value: float) -> str:
    return f"{value / 1e6:.3g} MB" if np.isfinite(value) else ""


def table(tree: xr.DataTree) -> list[str]:
    """The result in lines: targets, then every case with everyone who was asked.

    A line of a peer: median and quartiles of processor time with one thread, ratio to ours (the line marked *), wall
    time with two threads, memory beyond inputs, error, first call, fraction of the limit.
    """
    times, machine = (
        tree.children["times"].to_dataset(inherit=False),
        tree.children["machine"].to_dataset(inherit=False),
    )
    names, cases = [str(x) for x in times["peer"].values], [str(x) for x in times["case"].values]
    threads = [int(x) for x in times["threads"].values]
    lines = []
    width = int(machine["vector_width"])
    if width and np.isfinite(machine["fma"].values).any():
        rates = {name: quartiles(machine[name].values.ravel())[0] for name in limits.RATES}
        lines.append(
            f"machine, one thread: {rates['fma'] / 1e9:.3g} G FMA/s of {width} lanes, "
            f"{rates['exp'] / 1e9:.3g} G exp/s, "
            f"read {rates['read'] / 1e9:.3g} GB/s, copy {rates['copy'] / 1e9:.3g} GB/s"
        )
    else:
        lines.append("machine's limits: not measured (no C compiler at install)")
    targets = tree.children["targets"].to_dataset(inherit=False)
    for name, goal, value, met in zip(*(targets[k].values for k in ("target", "goal", "value", "met")), strict=True):
        word = {1: "met", 0: "missed", -1: "not measured"}[int(met)]
        number = "" if met < 0 else f" {value:.3g},"
        lines.append(f"  target {name}:{number} goal {goal:.3g}: {word}")
    for c, case in enumerate(cases):
        lines.append(f"{case}")
        for p, name in enumerate(names):
            state = STATES[int(times["state"].values[c, p])]
            if state == "not_asked":
                continue
            if state != "measured":
                lines.append(f"  {name:<30} {state.replace('_', ' ')}: {times['reason'].values[c, p]}")
                continue
            mark = "*" if int(times["compared_with"].values[c]) == p else " "
            spread = [_seconds(float(times[k].values[c, 0, p])) for k in ("low_cpu", "high_cpu")]
            cells = [
                f"{_seconds(float(times['median_cpu'].values[c, 0, p])):>8} [{spread[0]}, {spread[1]}]",
                f"{times['ratio'].values[c, 0, p]:.3g}x",
            ]
            cells += [
                f"{_seconds(float(times['median_wall'].values[c, t, p]))} wall, {n} threads"
                for t, n in enumerate(threads)
                if t and np.isfinite(times["median_wall"].values[c, t, p])
            ]
            cells += [f"{_bytes(float(times['memory'].values[c, p]))}", f"error {times['error'].values[c, p]:.1e}"]
            cells.append(f"first {_seconds(float(times['first_wall'].values[c, 0, p]))}")
            fraction = float(times["fraction"].values[c, p])
            if np.isfinite(fraction):
                cells.append(f"{100 * fraction:.0f} % of the limit")
            cells.append(f"n={int(times['repetitions'].values[c, 0, p])}")
            lines.append(f"{mark} {name:<30} " + "  ".join(cell for cell in cells if cell))
    return lines


def summarise(found: Mapping[str, Any], cases: Sequence[Case], names: Sequence[str], width: int) -> dict[str, Any]:
    """Medians, quartiles, repetitions, ratios and fractions of samples (case, threads, peer, round).

    Returns:
        variable -> array, to be added to the group "times".
    """
    cpu, wall, state = found["cpu"], found["wall"], found["state"]
    made: dict[str, Any] = {"repetitions": np.isfinite(wall).sum(-1).astype(np.int64)}
    for clock, samples in (("cpu", cpu), ("wall", wall)):
        made[f"median_{clock}"], made[f"low_{clock}"], made[f"high_{clock}"] = quartiles(samples)
    chosen = np.array([compared_with(case, names, state[c]) for c, case in enumerate(cases)], dtype=np.int64)
    ratios = np.full(cpu.shape[:3], np.nan)
    fractions = np.full((len(cases), len(names)), np.nan)
    rates = {name: quartiles(found[f"rate_{name}"])[0] for name in limits.RATES}
    for c, case in enumerate(cases):
        best = limit_seconds(case, {name: float(values[c]) for name, values in rates.items()}, width)
        fractions[c] = best / made["median_cpu"][c, 0]
        for p, name in enumerate(names):
            peer = peers.PEERS.get(name)
            device = "cpu" if peer is None else peer.device
            ours = chosen[c] if device == "cpu" else compared_with(case, names, state[c], device)
            if ours < 0:
                continue
            for t in range(cpu.shape[1]):
                # processor time counts all threads, and none of a GPU
                samples = cpu if t == 0 and device == "cpu" else wall
                ratios[c, t, p] = ratio(samples[c, t, p], samples[c, t, ours])
    return {**made, "compared_with": chosen, "ratio": ratios, "fraction": fractions}
