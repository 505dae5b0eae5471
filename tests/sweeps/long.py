"""An experiment with checkpoints of its own: each task counts to six and remembers in its folder how far it is."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.runner import squares
from tests.runner.squares import SCHEMA, Config, assemble, plan, verdict

__all__ = ["SCHEMA", "TITLE", "WORKDIR", "Config", "assemble", "plan", "run_task", "verdict"]

TITLE = "Squares, slowly"
WORKDIR = True
STEPS = 6


def run_task(plan: Any, key: str, workdir: Path) -> Mapping[str, Any]:
    checkpoint, log = workdir / "step", os.environ.get("LONG_LOG")
    start = int(checkpoint.read_text()) if checkpoint.exists() else 0
    for step in range(start, STEPS):
        time.sleep(float(os.environ.get("LONG_SLEEP", "0")))
        if log:
            with open(log, "a") as file:  # a short line is appended in one piece
                file.write(f"{key}:{step}\n")
        checkpoint.write_text(str(step + 1))
        if os.environ.get("LONG_KILL") == f"{key}:{step}" and not start:
            os.kill(os.getpid(), signal.SIGKILL)
    return squares.run_task(plan, key)
