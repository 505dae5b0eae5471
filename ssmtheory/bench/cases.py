"""What is measured: shapes, their inputs, and what the right answer is, in float64 and by the definition.

========== ================================================================= ==========================================
kind       what is computed                                                  shape
========== ================================================================= ==========================================
scan       selective scan with bias, softplus, skip and gate                 (batch, length, channel, state)
recurrence h_t = a_t h_{t-1} + b_t, a and b given                            (batch, length, channel)
kernel     K_l = 2 Re sum_n c_n exp(x_n l)                                   channel x state exponents, length
convolve   the causal convolution of u with that kernel, from x and c        (batch, length, channel), state
model      logits of a 130m-shaped Mamba language model                      (batch, length)
========== ================================================================= ==========================================

Modes: "forward"; "gradient", which is forward and backward to every input; "backward", the second part of it alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.typing import Array

__all__ = ["Case", "checked", "error", "exact_kernel", "inputs", "reference", "suite"]

Arrays = dict[str, Array]
#: as many steps of a long forward case are checked: the maps are causal
CHECKED_STEPS = 4096
#: as many channels of the long convolution kernels are checked
CHECKED_CHANNELS = 8
#: as many tokens of a language model's logits are checked
CHECKED_TOKENS = 48
#: inputs of a scan that it is differentiated by, in the order of the gradients
SCAN_INPUTS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes:
        group: of cases that are shown together: "forward", "length", "kernel", ...
        kind, mode: see the module.
        batch, length, channels, states: the shape; states is 0 where there is none.
        complex_: of the recurrence: complex a and b.
        sweep: the axis that the group varies, "" where it is no sweep.
        hard: near-unitary poles, whose phases need more digits than float32 has.
        threads: that it is measured with.
    """

    group: str
    kind: str
    mode: str = "forward"
    batch: int = 1
    length: int = 1024
    channels: int = 1536
    states: int = 16
    complex_: bool = False
    sweep: str = ""
    hard: bool = False
    threads: tuple[int, ...] = (1,)

    @property
    def name(self) -> str:
        """Group and shape."""
        shape = f"L{self.length}-D{self.channels}" + (f"-N{self.states}" if self.states else "")
        shape = (f"B{self.batch}-" if self.batch > 1 else "") + shape
        return f"{self.group}/{shape}{'-complex' if self.complex_ else ''}{'-hard' if self.hard else ''}"


def suite(quick: bool = False) -> tuple[Case, ...]:
    """Every case, the ones that the targets are about first.

    Args:
        quick: the same kinds at shapes that take milliseconds.
    """
    both = (1, 2)
    if quick:
        small: dict[str, Any] = {"channels": 64, "states": 4}
        return (
            Case("forward", "scan", length=128, **small, threads=both),
            Case("gradient", "scan", "gradient", length=64, **small),
            Case("backward", "scan", "backward", length=64, **small),
            *(Case("length", "scan", length=n, channels=16, states=4, sweep="length") for n in (64, 256)),
            *(Case("channel", "scan", length=64, channels=d, states=4, sweep="channel") for d in (16, 64)),
            *(Case("state", "scan", length=64, channels=16, states=n, sweep="state") for n in (2, 8)),
            Case("recurrence", "recurrence", length=128, channels=32, states=0),
            Case("recurrence", "recurrence", length=128, channels=32, states=0, complex_=True),
            *(Case("kernel", "kernel", length=n, channels=8, states=4) for n in (64, 256)),
            Case("convolve", "convolve", length=128, channels=8, states=4),
            Case("model", "model", length=32, channels=128, states=16),
        )
    lengths = (1024, 256, 2048, 8192)
    return (
        *(Case("forward", "scan", length=n, threads=both if n == 1024 else (1,)) for n in lengths),
        Case("forward", "scan", batch=4, channels=64, threads=both),
        *(Case("gradient", "scan", "gradient", length=n, threads=both if n == 1024 else (1,)) for n in lengths),
        Case("gradient", "scan", "gradient", batch=4, channels=64),
        *(Case("backward", "scan", "backward", length=n) for n in lengths),
        *(Case("kernel", "kernel", length=n << 10, channels=256, states=32) for n in (16, 1, 4, 64)),
        Case("kernel", "kernel", length=1_000_000, channels=1, states=32, hard=True),
        *(Case("convolve", "convolve", length=n << 10, channels=256, states=32) for n in (4, 1, 16, 64)),
        Case("model", "model", length=1024, channels=1536, threads=both),
        *(
            Case("length", "scan", length=n, channels=16, sweep="length")
            for n in (1024, 4096, 16384, 65536, 262144, 1_000_000)
        ),
        *(Case("channel", "scan", channels=d, sweep="channel") for d in (64, 192, 768, 1536, 3072)),
        *(Case("state", "scan", channels=768, states=n, sweep="state") for n in (1, 4, 16, 64, 128)),
        *(
            Case("recurrence", "recurrence", length=n, channels=d, states=0, complex_=c)
            for n, d, c in ((4096, 1024, False), (4096, 1024, True), (1_000_000, 4, False), (1024, 24576, False))
        ),
    )


def inputs(case: Case, seed: int = 0) -> Arrays:
    """The arrays of a case, float32 or complex64; (batch, length, channel) and (channel, state) throughout.

    Steps are those of a Mamba at its start: softplus of the bias is log-uniform in [1e-3, 1e-1], A is -1, ..., -N.
    """
    rng = np.random.default_rng(seed)
    batch, length, channels, states = case.batch, case.length, case.channels, case.states

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape, dtype=np.float32)

    if case.kind == "scan":
        step = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), channels))
        arrays = {
            "u": normal(batch, length, channels),
            "delta": 0.3 * normal(batch, length, channels),
            "A": -np.tile(np.arange(1, states + 1, dtype=np.float32), (channels, 1)),
            "B": normal(batch, length, states),
            "C": normal(batch, length, states),
            "D": np.ones(channels, np.float32),
            "z": normal(batch, length, channels),
            "delta_bias": np.log(np.expm1(step)).astype(np.float32),
        }
        return arrays if case.mode == "forward" else {**arrays, "dy": normal(batch, length, channels)}
    if case.kind == "recurrence":
        a = rng.uniform(0.5, 1, (batch, length, channels)).astype(np.float32)
        b = normal(batch, length, channels)
        if not case.complex_:
            return {"a": a, "b": b}
        turn = np.exp(1j * rng.uniform(-np.pi, np.pi, a.shape).astype(np.float32))
        return {"a": (a * turn).astype(np.complex64), "b": b + 1j * normal(batch, length, channels)}
    if case.kind in ("kernel", "convolve"):
        n = np.arange(states)
        if case.hard:
            x = -2 / length + 1j * rng.uniform(0, np.pi, (channels, states))
        else:
            # S4D-Lin
            dt = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), (channels, 1)))
            x = dt * (-0.5 + 1j * np.pi * n)
        c = normal(channels, states) + 1j * normal(channels, states)
        arrays = {"x": x.astype(np.complex64), "c": c.astype(np.complex64)}
        return arrays if case.kind == "kernel" else {**arrays, "u": normal(batch, length, channels)}
    return {"tokens": rng.integers(0, 256, (batch, length)).astype(np.int32)}


# ---------------------------------------------------------------------- the right answer
def reference(case: Case, arrays: Arrays) -> Arrays:
    """The right answer in float64, of the part that is checked.

    A forward scan or recurrence: its first steps; a gradient: all of it, under the names of the inputs; a convolution
    kernel: its first channels. The model has no entry here: `peers` computes its first tokens in float64.
    """
    if case.kind == "scan":
        return _scan(case, arrays) if case.mode == "forward" else _scan_gradient(arrays)
    if case.kind == "recurrence":
        a, b = (arrays[name][:, :CHECKED_STEPS].astype(np.result_type(arrays[name], np.float64)) for name in "ab")
        h, found = np.zeros_like(b[:, 0]), np.empty_like(b)
        for t in range(b.shape[1]):
            h = a[:, t] * h + b[:, t]
            found[:, t] = h
        return {"h": found}
    if case.kind == "kernel":
        return {"K": exact_kernel(arrays, case.length, CHECKED_CHANNELS)}
    if case.kind == "convolve":
        # the definition: a sum over lags, for some steps to the very last
        kernel = exact_kernel(arrays, case.length, CHECKED_CHANNELS)
        u = arrays["u"][:, :, : kernel.shape[0]].astype(np.float64)
        steps = convolution_steps(case.length)
        found = [np.einsum("blh,hl->bh", u[:, t::-1], kernel[:, : t + 1]) for t in steps]
        return {"y": np.stack(found, axis=1)}
    raise InputError(f"no reference for a case of kind {case.kind!r}: peers.model_reference has that of a model")


def convolution_steps(length: int) -> Array:
    """Steps of a convolution that are checked, the first and the last among them."""
    return np.unique(np.linspace(0, length - 1, 33).astype(int))


def exact_kernel(arrays: Arrays, length: int, channels: int | None = None) -> Array:
    """K (channel, length) in float64 by its definition, of the first channels."""
    x, c = (arrays[name][:channels].astype(np.complex128) for name in "xc")
    steps, found = np.arange(length, dtype=np.float64), np.zeros((x.shape[0], length))
    for n in range(x.shape[1]):
        found += 2 * (c[:, n, None] * np.exp(x[:, n, None] * steps)).real
    return found


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(x / 2))


def _scan(case: Case, arrays: Arrays) -> Arrays:
    u, delta, z, B, C = (arrays[k][:, :CHECKED_STEPS].astype(np.float64) for k in ("u", "delta", "z", "B", "C"))
    A = arrays["A"].astype(np.float64)
    step = np.logaddexp(0, delta + arrays["delta_bias"])
    h, y = np.zeros((u.shape[0], *A.shape)), np.empty_like(u)
    for t in range(u.shape[1]):
        h = np.exp(step[:, t, :, None] * A) * h + (step[:, t] * u[:, t])[..., None] * B[:, t, None]
        y[:, t] = (h @ C[:, t, :, None])[..., 0]
    return {"y": (y + arrays["D"] * u) * z * _sigmoid(z)}


def _scan_gradient(arrays: Arrays, segment: int = 128) -> Arrays:
    """Gradients of sum(y dy), by the chain rule step by step; states are kept a segment at a time."""
    u, delta, A, B, C, D, z, bias, dy = (arrays[k].astype(np.float64) for k in (*SCAN_INPUTS, "dy"))
    batch, length, channels = u.shape
    raw = delta + bias
    step = np.logaddexp(0, raw)
    gate = _sigmoid(z)
    dq = dy * z * gate
    found = {k: np.zeros(v.shape) for k, v in zip(SCAN_INPUTS, (u, delta, A, B, C, D, z, bias), strict=True)}
    skipless = np.empty_like(u)

    def forward(h: Array, t: int) -> tuple[Array, Array]:
        decay = np.exp(step[:, t, :, None] * A)
        return decay, decay * h + (step[:, t] * u[:, t])[..., None] * B[:, t, None]

    starts, h = [], np.zeros((batch, channels, A.shape[1]))
    for t in range(length):
        if t % segment == 0:
            starts.append(h)
        h = forward(h, t)[1]
        skipless[:, t] = (h @ C[:, t, :, None])[..., 0]
    adjoint = np.zeros_like(h)
    dstep = np.empty_like(u)
    for number in reversed(range(len(starts))):
        states, decays = [starts[number]], []
        steps = range(number * segment, min((number + 1) * segment, length))
        for t in steps:
            decay, h = forward(states[-1], t)
            states.append(h)
            decays.append(decay)
        for t in reversed(steps):
            i = t - number * segment
            adjoint = adjoint + dq[:, t, :, None] * C[:, t, None]
            found["C"][:, t] = np.einsum("bd,bdn->bn", dq[:, t], states[i + 1])
            found["B"][:, t] = np.einsum("bdn,bd->bn", adjoint, step[:, t] * u[:, t])
            write = (adjoint @ B[:, t, :, None])[..., 0]
            found["u"][:, t] = write * step[:, t]
            inner = adjoint * states[i] * decays[i]
            found["A"] += np.einsum("bdn,bd->dn", inner, step[:, t])
            dstep[:, t] = write * u[:, t] + np.einsum("bdn,dn->bd", inner, A)
            adjoint = adjoint * decays[i]
    found["u"] += dq * D
    found["D"] = (dq * u).sum((0, 1))
    found["z"] = dy * (skipless + D * u) * gate * (1 + z * (1 - gate))
    found["delta"] = dstep * _sigmoid(raw)
    found["delta_bias"] = found["delta"].sum((0, 1))
    return found


def error(found: Arrays, right: Arrays) -> float:
    """Largest deviation of any result from the right one, relative to that result's largest value; NaN is infinite.

    >>> error({"y": np.array([1.0, 2.5])}, {"y": np.array([1.0, 2.0])})
    0.25
    """
    worst = 0.0
    for name, truth in right.items():
        value = np.asarray(found[name])
        if value.shape != truth.shape:
            return float("inf")
        gap = float(np.abs(value - truth).max()) / max(float(np.abs(truth).max()), 1e-300)
        worst = max(worst, gap) if np.isfinite(gap) else float("inf")
    return worst


def checked(case: Case) -> Callable[[str, Any], Any]:
    """The part of a peer's result that `reference` has, as a function of (name, result)."""

    def part(name: str, value: Any) -> Any:
        if case.kind in ("scan", "recurrence") and case.mode == "forward":
            return value[:, :CHECKED_STEPS]
        if case.kind == "kernel":
            return value[:CHECKED_CHANNELS]
        if case.kind == "convolve":
            return value[:, convolution_steps(case.length)][:, :, :CHECKED_CHANNELS]
        return value[:, :CHECKED_TOKENS] if case.kind == "model" else value

    return part
