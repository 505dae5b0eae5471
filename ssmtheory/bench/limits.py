"""What one core of this machine can do, measured: multiply-adds, exponentials, reading and copying memory.

The loops are in `limits.c`, which is compiled at install like the kernels of the scan; where there is no compiler the
limits are not measured, and nothing is said about them.
"""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ssmtheory.scan import compiled

__all__ = ["RATES", "available", "scan_slots", "vector_width", "work"]

#: rate -> unit; the order of the variables of the dataset
RATES = {"fma": "vector FMA / s", "exp": "exp / s", "read": "byte / s", "copy": "byte / s"}
#: larger than the last cache of common machines, so that memory is what is measured
STREAM_BYTES = 1 << 28
_CACHED = 4096


def _path() -> Path | None:
    return compiled.library_path("limits", Path(__file__).parent)


def available() -> bool:
    """Whether the loops were compiled at install."""
    return _path() is not None


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(_path()))
    long, real, pointer = ctypes.c_long, ctypes.c_float, ctypes.c_void_p
    for name, restype, argtypes in (
        ("width", long, []),
        ("chains", long, []),
        ("fma", real, [long, real, real]),
        ("exp", None, [long, pointer, pointer, long]),
        ("read", real, [long, pointer, long]),
        ("copy", None, [long, pointer, pointer, long]),
    ):
        function = getattr(library, f"ssm_limits_{name}")
        function.restype, function.argtypes = restype, argtypes
    return library


def vector_width() -> int:
    """float32 numbers in a vector register: 16, 8 or 4; 0 where nothing was compiled."""
    return int(_library().ssm_limits_width()) if available() else 0


def scan_slots(batch: int, length: int, channels: int, states: int, width: int, mode: str) -> float:
    """Multiply-add slots that a selective scan with bias, softplus, skip and gate needs at the least.

    Counted per vector of `width` channels and one time step. Forward: 12 a state (the exponential 9, one product, two
    multiply-adds) and 80 for softplus, gate and transposes. Backward with recomputation: 20 a state (the exponential 9,
    the state 2, y and dC 2, the adjoints 7) and 150. The counts are those of 16-lane vectors with an exponent
    instruction; narrower machines need more, so that their fraction is a lower one.

    Args:
        batch, length, channels, states: the shape.
        width: float32 numbers in a vector.
        mode: "forward", "backward", or "gradient" for both.

    >>> scan_slots(1, 1024, 1536, 16, 16, "forward") / (1024 * 1536)
    17.0
    """
    forward, backward = 12 * states + 80, 20 * states + 150
    each = {"forward": forward, "backward": backward, "gradient": forward + backward}[mode]
    return batch * length * channels * each / width


def work(clock: Callable[[], float] = time.process_time, scale: float = 1.0) -> dict[str, float]:
    """Measure every rate once, some ten milliseconds each.

    Args:
        clock: seconds; processor time by default, which preemption does not enter.
        scale: of the amount of work.

    Returns:
        rate -> value in the units of `RATES`; NaN where nothing was compiled.
    """
    if not available():
        return dict.fromkeys(RATES, float("nan"))
    library, found = _library(), {}
    source, target = _streams(scale)
    n = source.size
    some = np.linspace(-8, 8, _CACHED, dtype=np.float32)
    into = np.empty_like(some)
    rounds = max(1, int(4_000_000 * scale))
    began = clock()
    library.ssm_limits_fma(rounds, 0.999, 1e-3)
    found["fma"] = rounds * library.ssm_limits_chains() / _positive(clock() - began)
    rounds = max(1, int(5_000 * scale))
    began = clock()
    library.ssm_limits_exp(rounds, some.ctypes.data, into.ctypes.data, _CACHED)
    found["exp"] = rounds * _CACHED / _positive(clock() - began)
    began = clock()
    library.ssm_limits_read(1, source.ctypes.data, n)
    found["read"] = source.nbytes / _positive(clock() - began)
    began = clock()
    library.ssm_limits_copy(1, source.ctypes.data, target.ctypes.data, n)
    found["copy"] = 2 * source.nbytes / _positive(clock() - began)
    return found


def _positive(seconds: float) -> float:
    return max(seconds, 1e-9)


@functools.lru_cache(maxsize=1)
def _streams(scale: float) -> tuple[np.ndarray, np.ndarray]:
    size = max(4096, int(STREAM_BYTES * scale) // 4)
    # ones, not empty: pages that nobody has written would all be the same page of zeros
    return np.ones(size, np.float32), np.ones(size, np.float32)
