"""A cheap experiment that can be swept: one wave for each configuration, with failures on demand."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ssmtheory.errors import ConfigError, InputError
from ssmtheory.experiments import base
from ssmtheory.experiments.base import Plan
from ssmtheory.results.schema import DatasetSchema, Dimension, Variable

TITLE = "A wave"
SCHEMA = DatasetSchema(
    "wave",
    1,
    groups={
        "wave": {
            "value": Variable(("time",), "float64", "1", "the wave"),
            "spectrum": Variable(("omega",), "complex128", "1", "its transform"),
        },
        "all": {
            "peak": Variable((), "float32", "1", "largest value"),
            "count": Variable((), "int64", "1", "values above zero"),
            "name": Variable((), "str", "1", "name of the wave"),
        },
    },
    dimensions={"sample": Dimension("sample")},
)


@dataclass(frozen=True)
class Config:
    frequency: float = field(default=1.0, metadata={"help": "angular frequency"})
    phase: float = field(default=0.0, metadata={"help": "phase"})
    amplitude: int = field(default=1, metadata={"help": "amplitude"})
    kind: Literal["sin", "cos"] = field(default="sin", metadata={"help": "kind of wave"})
    samples: int = field(default=4, metadata={"help": "samples"})
    picks: tuple[int, ...] = field(default=(0,), metadata={"help": "harmonics"})
    bad: tuple[int, ...] = field(default=(), metadata={"help": "amplitudes that fail"})

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ConfigError(f"--samples {self.samples}: at least 1")


def run_point(config: Config) -> dict[str, Any]:
    if "WAVE_SLEEP" in os.environ:  # the kills need something that lasts
        time.sleep(float(os.environ["WAVE_SLEEP"]))
    if config.amplitude in config.bad:
        if os.environ.get("WAVE_CRASH"):
            os.kill(os.getpid(), signal.SIGKILL)
        if not os.environ.get("WAVE_GOOD"):
            raise InputError(f"amplitude {config.amplitude} cannot be had")
    t = np.arange(config.samples) / 4
    function = np.sin if config.kind == "sin" else np.cos
    value = config.amplitude * sum(function((k + 1) * config.frequency * t + config.phase) for k in config.picks)
    return {
        "wave/value": value,
        "wave/spectrum": np.fft.fft(value),
        "wave/time": t,
        "wave/omega": 2 * np.pi * np.arange(config.samples) / config.samples,
        "all/peak": np.float32(value.max()),
        "all/count": np.int64((value > 0).sum()),
        "all/name": np.array(f"{config.amplitude} {config.kind}"),
    }


def plan(config: Config) -> Plan:
    resolved = {f: getattr(config, f) for f in ("frequency", "phase", "amplitude", "kind", "samples", "picks", "bad")}
    return Plan(resolved={**resolved, "dtype": "float64"}, tasks=["wave"], context=config)


def run_task(plan: Plan, key: str) -> dict[str, Any]:
    return run_point(plan.context)


def assemble(plan: Plan, parts: Mapping[str, Mapping[str, Any]]) -> Any:
    import xarray as xr

    arrays = parts["wave"]
    wave = {"value": ("time", arrays["wave/value"]), "spectrum": ("omega", arrays["wave/spectrum"])}
    coords = {name: arrays[f"wave/{name}"] for name in ("time", "omega")}
    rest = {name: ((), arrays[f"all/{name}"]) for name in ("peak", "count", "name")}
    return xr.DataTree.from_dict({"wave": xr.Dataset(wave, coords=coords), "all": xr.Dataset(rest)})


def verdict(tree: Any) -> list[str]:
    return [f"the peak is {float(tree['all/peak']):.3g}"]


def run(config: Config) -> Any:
    return base.run(sys.modules[__name__], config)


if __name__ == "__main__":
    from ssmtheory.runner import main

    raise SystemExit(main("tests.sweeps.cheap"))
