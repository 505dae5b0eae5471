"""Taking turns: one process per peer, each called once per round, A B C A B C.

So a neighbour's load, a warm processor or a slow minute falls on everybody alike. A peer is checked against the
reference before it is timed; one that is wrong, fails, is not installed or would take too long is reported with the
reason, never left out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import selectors
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ssmtheory.bench import cases, limits, peers
from ssmtheory.bench.cases import Case

__all__ = ["STATES", "Pool", "Settings", "Worker", "interleave", "measure"]

#: what can become of a peer in a case, best last; "measured" alone has times
STATES = ("not_asked", "not_available", "too_long", "failed", "wrong", "measured")
#: largest error of a result, relative to its largest value, with which it is timed
TOLERANCE = 1e-2
Answer = Mapping[str, Any]


@dataclass(frozen=True)
class Settings:
    """How long and how often.

    Attributes:
        rounds: calls of each peer.
        budget: processor seconds a peer gets per case; a slow one is called less often, but once.
        limit: seconds that one call may take.
        memory: GB that a process may grow by.
        threads: numbers of threads, of those that a case names.
    """

    rounds: int = 9
    budget: float = 10.0
    limit: float = 120.0
    memory: float = 4.0
    threads: tuple[int, ...] = (1, 2)


class Asked(Protocol):
    """What measures a peer: a process, or a stand-in for one."""

    def ask(self, request: Mapping[str, Any], seconds: float) -> Answer: ...

    def close(self) -> None: ...


def environment(threads: int) -> dict[str, str]:
    """Variables that hold every library to so many threads."""
    count = str(threads)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "NPROC")
    flags = "" if threads > 1 else " --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    return {
        **os.environ,
        **dict.fromkeys(names, count),
        "OMP_WAIT_POLICY": "PASSIVE",
        "XLA_FLAGS": (os.environ.get("XLA_FLAGS", "") + flags).strip(),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "TOKENIZERS_PARALLELISM": "false",
    }


class Worker:
    """A process that runs `ssmtheory.bench.worker`.

    Args:
        threads: that its libraries may use.
    """

    def __init__(self, threads: int) -> None:
        # a file, not a pipe: nobody reads while the process works
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ssmtheory.bench.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.log, env=environment(threads), bufsize=0,
        )  # fmt: skip
        self._rest = b""
        self._end = weakref.finalize(self, _stop, self.process)

    def ask(self, request: Mapping[str, Any], seconds: float) -> Answer:
        """Send a request and wait; a process that dies or takes longer is an answer too, and the process's end."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
        except OSError:
            return self._dead()
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(seconds):
                    self.close()
                    return {"failed": f"no answer in {seconds:.0f} s", "late": True, "gone": True}
                piece = os.read(self.process.stdout.fileno(), 1 << 16)
                if not piece:
                    return self._dead()
                self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    def _dead(self) -> Answer:
        code = self.process.wait()
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines() or [""]
        self.close()
        return {"failed": f"the process ended with code {code}: {lines[-1][:200]}", "gone": True}

    def close(self) -> None:
        """End the process."""
        self._end()


def _stop(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    process.kill()
    process.wait()


@dataclass
class Pool:
    """The processes, each started when it is first needed and kept for the next case.

    Attributes:
        start: makes a worker for a number of threads.
        seconds: (peer, mode) -> (length, seconds) of the last case, for what a longer one would take.
    """

    start: Callable[[int], Asked] = Worker
    seconds: dict[tuple[str, str], tuple[Case, float]] = field(default_factory=dict)
    _workers: dict[tuple[str, int], Asked] = field(default_factory=dict)

    def get(self, peer: str, threads: int) -> Asked:
        """The process of a peer."""
        key = peer, threads
        if key not in self._workers:
            self._workers[key] = self.start(threads)
        return self._workers[key]

    def drop(self, peer: str, threads: int) -> None:
        """End the process of a peer, if it has one."""
        worker = self._workers.pop((peer, threads), None)
        if worker is not None:
            worker.close()

    def release(self) -> None:
        """Let every process give back what its last case needed."""
        for (peer, threads), worker in list(self._workers.items()):
            if worker.ask({"do": "release"}, 60).get("gone"):
                self.drop(peer, threads)

    def close(self) -> None:
        """End all processes."""
        for peer, threads in list(self._workers):
            self.drop(peer, threads)


def interleave(
    turns: Mapping[str, Callable[[], Answer]], repetitions: Mapping[str, int], rounds: int
) -> dict[str, list[Answer]]:
    """Give each its turn in every round, in one order, for as many rounds as it has repetitions.

    Args:
        turns: name -> one timed call.
        repetitions: name -> in how many of the first rounds it takes part.
        rounds: how many there are.

    Returns:
        name -> its answers, one per round; a failure ends its turns.

    >>> order = []
    >>> found = interleave({n: lambda n=n: order.append(n) or {} for n in "AB"}, {"A": 2, "B": 1}, 3)
    >>> "".join(order), len(found["A"])
    ('ABA', 2)
    """
    found: dict[str, list[Answer]] = {name: [] for name in turns}
    ended: set[str] = set()
    for number in range(rounds):
        for name, turn in turns.items():
            if number < repetitions[name] and name not in ended:
                answer = turn()
                found[name].append(answer)
                if "failed" in answer:
                    ended.add(name)
    return found


def _times_of(answers: Sequence[Answer], clock: str, rounds: int) -> list[float]:
    values = [float(answer[clock]) for answer in answers if "failed" not in answer]
    return values + [float("nan")] * (rounds - len(values))


def predicted(pool: Pool, peer: peers.Peer, case: Case) -> float:
    """Seconds that a call would take by the last case of the same kind; 0 without one."""
    before = pool.seconds.get((peer.name, f"{case.kind}/{case.mode}"))
    if before is None:
        return 0.0
    shape, seconds = before

    def size(c: Case) -> float:
        return c.batch * c.channels * max(c.states, 1)

    power = peer.order if case.mode != "forward" else 1
    return seconds * size(case) / size(shape) * (case.length / shape.length) ** power


def measure(
    case: Case,
    names: Iterable[str],
    settings: Settings,
    pool: Pool,
    *,
    known: Mapping[str, peers.Peer] | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, np.ndarray]:
    """Measure one case with every peer that can do it.

    Args:
        case: what to measure.
        names: of the peers, in the order of the result.
        settings: how long and how often.
        pool: of processes.
        known: peers by name, `peers.PEERS` by default.
        note: is told what happens.

    Returns:
        variable -> array over (threads, peer, round), (threads, peer) or (peer,), and the machine's rates (round,).
    """
    known = peers.PEERS if known is None else known
    names = list(names)
    rounds, threads = settings.rounds, settings.threads
    shape = len(threads), len(names)
    nan = float("nan")
    found: dict[str, np.ndarray] = {
        "cpu": np.full((*shape, rounds), nan), "wall": np.full((*shape, rounds), nan),
        "first_cpu": np.full(shape, nan), "first_wall": np.full(shape, nan), "setup_wall": np.full(shape, nan),
        "memory": np.full(len(names), nan), "error": np.full(len(names), nan),
        "state": np.zeros(len(names), np.int8), "reason": np.full(len(names), "", "<U400"),
        **{f"rate_{name}": np.full(rounds, nan) for name in limits.RATES},
    }  # fmt: skip

    def settle(i: int, state: str, reason: str) -> None:
        found["state"][i], found["reason"][i] = STATES.index(state), reason
        note(f"{case.name} {names[i]}: {state.replace('_', ' ')} {reason}".rstrip())

    with tempfile.TemporaryDirectory(prefix="ssmtheory-bench-") as folder:
        able = []
        for i, name in enumerate(names):
            if not known[name].can(case):
                continue
            reason, seconds = peers.missing(known[name]), predicted(pool, known[name], case)
            if reason:
                settle(i, "not_available", reason)
            elif seconds > settings.limit:
                settle(
                    i, "too_long", f"about {seconds:.0f} s a call by a shorter case; the limit is {settings.limit:g} s"
                )
            else:
                able.append(i)
        if able:
            arrays = cases.inputs(case)
            np.savez(Path(folder) / "inputs.npz", **arrays)
            right = peers.model_reference(case, arrays) if case.kind == "model" else cases.reference(case, arrays)
            np.savez(Path(folder) / "reference.npz", **right)
            del arrays, right
        for t, count in enumerate(threads):
            if count not in case.threads:
                continue
            turns: dict[str, Callable[[], Answer]] = {}
            repetitions: dict[str, int] = {}
            for i in able:
                name = names[i]
                if t and found["state"][i] != STATES.index("measured"):
                    continue
                worker = pool.get(name, count)
                answer = worker.ask(
                    {"do": "prepare", "peer": name, "case": dataclasses.asdict(case), "folder": folder,
                     "memory": settings.memory, "once": settings.budget},
                    4 * settings.limit,
                )  # fmt: skip
                if "failed" in answer:
                    if answer.get("gone"):
                        pool.drop(name, count)
                    if not t:
                        settle(i, "too_long" if answer.get("late") else "failed", str(answer["failed"]))
                    continue
                for clock in ("cpu", "wall"):
                    found[f"first_{clock}"][t, i] = answer["first"][clock]
                found["setup_wall"][t, i] = answer["setup_wall"]
                if not t:
                    found["error"][i] = answer["error"]
                    found["memory"][i] = answer["memory"] if answer["memory"] >= 0 else nan
                    if not answer["error"] <= TOLERANCE:
                        settle(i, "wrong", f"error {answer['error']:.1e} of the largest value; allowed {TOLERANCE:g}")
                        continue
                    settle(i, "measured", f"{answer['seconds']['cpu']:.3g} s")
                seconds = max(answer["seconds"]["cpu"], 1e-9)
                if not t:
                    pool.seconds[name, f"{case.kind}/{case.mode}"] = case, seconds
                if answer["once"]:
                    found["cpu"][t, i, 0], found["wall"][t, i, 0] = (answer["seconds"][c] for c in ("cpu", "wall"))
                    continue
                calls = 2 if seconds < 0.5 else 1
                repetitions[name] = int(np.clip(settings.budget / (calls * seconds), 1, rounds))
                turns[name] = lambda worker=worker: worker.ask({"do": "call"}, 4 * settings.limit)  # type: ignore[misc]
            if not t and limits.available() and turns:
                worker = pool.get("limits", 1)
                turns["limits"] = lambda worker=worker: worker.ask({"do": "limits"}, settings.limit)  # type: ignore[misc]
                repetitions["limits"] = rounds
            answers = interleave(turns, repetitions, rounds)
            for name, given in answers.items():
                if name == "limits":
                    for rate in limits.RATES:
                        found[f"rate_{rate}"][:] = _times_of(given, rate, rounds)
                    continue
                i = names.index(name)
                for clock in ("cpu", "wall"):
                    found[clock][t, i] = _times_of(given, clock, rounds)
                if given and "failed" in given[-1]:
                    if given[-1].get("gone"):
                        pool.drop(name, count)
                    if not t:
                        settle(i, "failed", str(given[-1]["failed"]))
                        found["cpu"][t, i] = found["wall"][t, i] = nan
            if t:
                for name in turns:
                    pool.drop(name, count)
            else:
                pool.release()
    return found
