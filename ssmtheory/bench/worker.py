"""The process in which one peer is timed: `python -m ssmtheory.bench.worker` answers each line of JSON with another.

| request | answer |
|---|---|
| `prepare`: peer, case, folder, memory, once | seconds of the first call and of one more, error, peak memory |
| `call` | processor and wall seconds of one call |
| `release` | nothing, after giving back what the case needed |
| `limits` | the machine's rates, see `limits` |

A process serves one peer and one number of threads, which its environment fixes before anything is imported. What
libraries print goes to stderr. The process ends when its stdin does.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

import numpy as np

__all__ = ["Bench", "main"]

#: calls shorter than this are preceded by one that is not timed: other processes have had the caches since
SHORT = 0.5
#: a peer that needs more than this [bytes] gives it back after every call: all processes are there at once
KEPT = 500e6


def _now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def _status(field: str) -> int:
    """A size from /proc/self/status [bytes]; 0 where there is none."""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return 0


def _give_back() -> None:
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class Bench:
    """One peer in this process.

    Args:
        clock: (processor seconds, wall seconds) so far.
    """

    def __init__(self, clock: Any = _now) -> None:
        self.clock = clock
        self.prepared: Any = None
        self.short = False

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what a request asks for."""
        if request["do"] == "limits":
            from ssmtheory.bench import limits

            return limits.work()
        if request["do"] == "call":
            return self.call()
        if request["do"] == "release":
            self.prepared = None
            _give_back()
            return {}
        return self.prepare(request)

    def timed(self) -> tuple[Any, dict[str, float]]:
        """One call: its result, and its processor and wall seconds."""
        began = self.clock()
        result = self.prepared.call()
        cpu, wall = (after - before for before, after in zip(began, self.clock(), strict=True))
        return result, {"cpu": cpu, "wall": wall}

    def call(self) -> dict[str, float]:
        """Seconds of one call, after one that is not timed if calls are short."""
        if self.short:
            self.prepared.call()
        return self.timed()[1]

    def prepare(self, request: dict[str, Any]) -> dict[str, Any]:
        """Import, set up, call for the first time, compare with the reference, and call again for time and memory."""
        from ssmtheory.bench import cases, peers

        self.prepared = None
        peers.keep_freed_memory(False)
        _give_back()
        case = cases.Case(**{**request["case"], "threads": tuple(request["case"]["threads"])})
        peer, folder = peers.PEERS[request["peer"]], Path(request["folder"])
        limit = _status("VmData") + int(request["memory"] * 1e9)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
        began = self.clock()
        with np.load(folder / "inputs.npz") as stored:
            arrays = {name: stored[name] for name in stored.files}
        self.prepared = peer.prepare(case, arrays)
        ready = self.clock()
        result, first = self.timed()
        part = cases.checked(case)
        found = {name: np.array(part(name, value)) for name, value in self.prepared.arrays(result).items()}
        del result
        with np.load(folder / "reference.npz") as stored:
            gap = cases.error(found, {name: stored[name] for name in stored.files})
        del found
        answer = {"setup_wall": ready[1] - began[1], "first": first, "error": gap, "memory": -1}
        if peer.order > 1 and case.mode != "forward" and first["cpu"] > request["once"]:
            # too dear for a second look, and nothing is compiled in the first
            return {**answer, "seconds": first, "once": True}
        _give_back()
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
            file.flush()
            held = _status("VmRSS")
            result, seconds = self.timed()
            answer["memory"] = max(0, _status("VmHWM") - held)
            del result
        if answer["memory"] < 0:
            _, seconds = self.timed()
        peers.keep_freed_memory(peer.reuses and answer["memory"] <= KEPT)
        self.short = seconds["cpu"] < SHORT
        return {**answer, "seconds": seconds, "once": False}


def main(requests: TextIO = sys.stdin) -> None:
    """Answer until there are no more requests."""
    # what libraries print to stdout must not be taken for an answer
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    bench = Bench()
    for line in requests:
        try:
            answer = bench.answer(json.loads(line))
        except (Exception, MemoryError) as error:
            traceback.print_exc()
            bench.prepared = None
            text = " ".join(str(error).split())[:300]
            answer = {"failed": f"{type(error).__name__}: {text}" if text else type(error).__name__}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
