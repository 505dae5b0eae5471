"""The selective scan on a CUDA device, by the Triton kernels of :mod:`ssmtheory.scan.triton_kernels`.

Every form of the scan in one interface with the compiled one: bias, softplus, skip and gate happen inside, forward and
backward, tensors of any strides are read in place, and half precisions are widened as they are loaded. Long sequences
are cut into spans: the state before each span is all that is kept for the backward pass, and what is needed inside of a
span has a bounded size.

``ssmtheory::triton_scan`` and its adjoint are operators of PyTorch, so that ``torch.compile`` and
``torch.utils.checkpoint`` go through them.

With ``TRITON_INTERPRET=1`` in the environment before this module is imported, the same kernels run on tensors in main
memory, slowly: that is how they are tested where there is no GPU.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Any

import torch
import triton
from torch import Tensor

from ssmtheory.errors import BackendError
from ssmtheory.scan import triton_kernels as kernels
from ssmtheory.scan.c_backend import same_groups
from ssmtheory.scan.problem import ARRAYS, OPERATOR_BACKWARD, OPERATOR_FORWARD, Reduce, chunk_length

__all__ = ["CHUNK", "interpreted", "selective_scan"]

#: Steps between two kept states, by arithmetic: as many as a thread can hold in its registers.
CHUNK = {"float": 8, "double": 4, "complex": 2}
#: Channels of a program, a warp for each 32; states and channels of one when states are carried from chunk to chunk.
_WIDEST, _CARRY_BLOCK, _CARRY_CHUNK = 128, 128, 4
#: Sizes of the boundary states of a span, and of the states that `reduce` sees at once.
_SPAN_BYTES, _REDUCE_BYTES = 1 << 28, 1 << 26
_FORWARD, _BACKWARD = "ssmtheory::triton_scan", "ssmtheory::triton_scan_backward"
torch.library.define(_FORWARD, OPERATOR_FORWARD)
torch.library.define(_BACKWARD, OPERATOR_BACKWARD)


def interpreted() -> bool:
    """Whether the kernels run in Triton's interpreter, on tensors in main memory."""
    return not isinstance(kernels.outputs, triton.runtime.JITFunction)


def selective_scan(
    arrays: dict[str, Any], *, softplus: bool, reverse: bool, reduce: Reduce | None, scale: int, out: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Run the scan on CUDA tensors, differentiably.

    Args:
        arrays: the validated tensors of :func:`ssmtheory.scan.selective_scan`, by name.
        softplus, reverse, reduce, out: as there. With `reduce` where a gradient is needed, the scan runs twice: once
            in double precision for `reduce`, once for y and its gradient.
        scale: multiplies Re(C h): 2 for conjugate pairs.

    Returns:
        y (batch, length, channel) of the dtype of u, and the last state (batch, channel, state).

    Raises:
        BackendError: the tensors are not on a CUDA device.
    """
    u = arrays["u"]
    if u.device.type != "cuda" and not interpreted():
        raise BackendError(f"backend='triton' does not do tensors on {u.device} (CUDA only). Use backend='auto'")
    B, C = same_groups(arrays["B"], arrays["C"])
    tensors = [B if name == "B" else C if name == "C" else arrays[name] for name in ARRAYS]
    wants = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
    if reduce is not None:
        call = _Call.of([None if x is None else x.detach() for x in tensors], softplus, reverse, scale, exact=True)
        y, last, _ = _run_forward(call, False, reduce)
        if out is not None:
            return out.copy_(y), last
        if not wants:
            return y, last
    y, last, _ = torch.ops.ssmtheory.triton_scan(*tensors, softplus, reverse, scale, wants)
    return (y if out is None else out.copy_(y)), last


@dataclass(frozen=True)
class _Call:
    """Arguments of one scan: tensors of one device, B and C with a group axis of one size."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    initial_state: Tensor | None
    reset: Tensor | None
    softplus: bool
    reverse: bool
    scale: int
    wide: bool
    complex_state: bool
    exact: bool

    @classmethod
    def of(cls, tensors: list[Any], softplus: bool, reverse: bool, scale: int, exact: bool = False) -> _Call:
        given = [x for x in tensors if x is not None]
        ready: dict[str, Any] = {
            name: None if x is None else x.resolve_conj().resolve_neg() for name, x in zip(ARRAYS, tensors, strict=True)
        }
        return cls(
            **ready, softplus=softplus, reverse=reverse, scale=scale,
            wide=any(x.dtype in (torch.float64, torch.complex128) for x in given),
            complex_state=any(x.is_complex() for x in given), exact=exact,
        )  # fmt: skip

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """(batch, length, channel, group, state)."""
        batch, length, channels = self.u.shape
        return batch, length, channels, self.B.shape[2], self.B.shape[3]

    @property
    def double(self) -> bool:
        """Whether the arithmetic is float64."""
        return self.wide or self.exact or self.complex_state

    @property
    def chunk(self) -> int:
        return CHUNK["complex" if self.complex_state else "double" if self.double else "float"]

    @property
    def chunks(self) -> int:
        return -(-self.u.shape[1] // self.chunk)

    @property
    def span(self) -> int:
        """Steps whose chunks are worked on at once, so that what is kept for them stays near _SPAN_BYTES."""
        batch, length, channels, _, states = self.sizes
        step = batch * channels * states * self.planes * (8 if self.kept_dtype == torch.float64 else 4)
        if self.exact:
            # all its states will be shown
            return chunk_length(length, step, _REDUCE_BYTES, self.chunk) // self.chunk * self.chunk or self.chunk
        return max(1, _SPAN_BYTES // max(1, step)) * self.chunk

    def spans(self) -> list[slice]:
        """The tokens of each span, in the order of the scan; none where there is nothing to compute."""
        length = self.u.shape[1]
        if not self.u.numel():
            return []
        cuts = [(i, min(length, i + self.span)) for i in range(0, length, self.span)]
        return [slice(length - j, length - i) if self.reverse else slice(i, j) for i, j in cuts]

    def cut(self, span: slice) -> _Call:
        """The same scan of some tokens."""

        def part(x: Tensor | None) -> Any:
            return None if x is None else x[:, span]

        return replace(
            self, u=part(self.u), delta=part(self.delta), B=part(self.B), C=part(self.C), z=part(self.z),
            reset=part(self.reset), initial_state=None,
        )  # fmt: skip

    @property
    def before_shape(self) -> tuple[int, ...]:
        """The state before each span."""
        batch, _, channels, _, states = self.sizes
        return len(self.spans()), batch, channels, states

    @property
    def before_dtype(self) -> torch.dtype:
        return torch.complex128 if self.complex_state else torch.float64

    @property
    def planes(self) -> int:
        return 2 if self.complex_state else 1

    @property
    def state_dtype(self) -> torch.dtype:
        """Dtype of the last state."""
        if self.complex_state:
            return torch.complex128 if self.wide else torch.complex64
        return torch.float64 if self.wide else torch.float32

    @property
    def kept_shape(self) -> tuple[int, ...]:
        batch, _, channels, _, states = self.sizes
        return self.planes, batch, self.chunks, states, channels

    @property
    def kept_dtype(self) -> torch.dtype:
        return torch.float64 if self.wide or self.exact else torch.float32

    @property
    def varying(self) -> bool:
        """Whether each channel has its own B and C."""
        return self.B.shape[2] == self.u.shape[2]

    @property
    def block(self) -> int:
        """Channels of one program: no thread has two, so that a thread has all steps of its channel."""
        width = self.u.shape[2] // (1 if self.varying else self.B.shape[2])
        return min(_WIDEST, max(32, triton.next_power_of_2(width)))

    @property
    def blocks(self) -> int:
        """Blocks of a group."""
        return -(-self.u.shape[2] // (1 if self.varying else self.B.shape[2]) // self.block)

    @property
    def programs(self) -> int:
        return self.u.shape[0] * (1 if self.varying else self.B.shape[2]) * self.blocks * self.chunks

    def rates(self, dtype: torch.dtype) -> Tensor:
        """A by state and channel, ([re, im,] state or 1, channel)."""
        A = self.A.detach()
        channels = self.u.shape[2]
        if A.ndim == 1:
            A = A.repeat_interleave(channels // max(1, A.shape[0]))[:, None]
        A = A.T
        parts = [A.real, A.imag if A.is_complex() else torch.zeros_like(A)] if self.complex_state else [A]
        return torch.stack([x.to(dtype) for x in parts]).contiguous()

    def cuts(self) -> Tensor | None:
        """Which chunks are cut by a reset, (batch, chunk) uint8."""
        if self.reset is None:
            return None
        reset = self.reset.flip(1) if self.reverse else self.reset
        reset = torch.nn.functional.pad(reset, (0, self.chunks * self.chunk - reset.shape[1]))
        return reset.reshape(reset.shape[0], self.chunks, self.chunk).any(2).to(torch.uint8)

    def numbers(self) -> dict[str, Any]:
        """The sizes that all kernels of steps take."""
        batch, length, channels, groups, states = self.sizes
        return {
            "batches": batch, "length": length, "channels": channels, "groups": groups, "states": states,
            "chunks": self.chunks, "repeat": channels // max(1, self.delta.shape[2]),
        }  # fmt: skip

    def flags(self) -> dict[str, Any]:
        """The compile-time choices that all kernels of steps take."""
        return {
            "CHUNK": self.chunk, "BLOCK": self.block, "WIDE": self.double, "COMPLEX": self.complex_state,
            "VARYING": self.varying, "ONE_RATE": self.A.ndim == 1, "REVERSE": self.reverse, "SOFTPLUS": self.softplus,
            "HAS_BIAS": self.delta_bias is not None, "HAS_Z": self.z is not None,
            "HAS_RESET": self.reset is not None, "SCALE": self.scale, **_options(self.block),
        }  # fmt: skip


def _options(block: int) -> dict[str, Any]:
    """What the compiler is told: a thread per channel, and that a product and a sum may round once."""
    return {"num_warps": block // 32, "enable_fp_fusion": True}


def _parts(x: Tensor) -> Tensor:
    """A complex tensor as a real one with its two parts last; a real one as it is."""
    return torch.view_as_real(x) if x.is_complex() else x


def _pointer(x: Tensor | None, like: Tensor) -> Tensor:
    """What a kernel receives for a tensor: its numbers, or any pointer where there is none."""
    if x is None:
        return like
    return x.view(torch.uint8) if x.dtype == torch.bool else _parts(x)


def _strides(name: str, x: Tensor | None, axes: str) -> dict[str, int]:
    """Strides by the names of the axes, in real numbers; 0 where there is no tensor."""
    numbers = [0] * len(axes) if x is None else _parts(x).stride()[: len(axes)]
    return {f"{name}_{axis}": number for axis, number in zip(axes, numbers, strict=True)}


def _launch(kernel: Any, programs: int, device: torch.device, arguments: dict[str, Any]) -> None:
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        if programs:
            kernel[(programs,)](**arguments)


def local_arguments(call: _Call, kept: Tensor, sums: Tensor, dy: Tensor | None) -> dict[str, Any]:
    """Arguments of the kernel `local_states`; its adjoint where there is a dy."""
    S = call.B if dy is None else call.C
    dtype = torch.float64 if call.double else torch.float32
    u = call.u
    return {
        "u": u, "delta": call.delta, "bias": _pointer(call.delta_bias, u), "A": call.rates(dtype), "S": _parts(S),
        "z": _pointer(call.z, u), "reset": _pointer(call.reset, u), "dy": _pointer(dy, u), "kept": kept, "sums": sums,
        **call.numbers(), **_strides("u", u, "btc"), **_strides("delta", call.delta, "btc"), **_strides("s", S, "btgn"),
        **_strides("z", call.z, "btc"), **_strides("reset", call.reset, "bt"), **_strides("dy", dy, "btc"),
        **call.flags(), "S_COMPLEX": S.is_complex(), "ADJOINT": dy is not None,
    }  # fmt: skip


def carry_arguments(call: _Call, kept: Tensor, sums: Tensor, start: Tensor | None, end: Tensor, adjoint: bool) -> Any:
    """Arguments of the kernel `carry_states`."""
    batch, _, channels, _, states = call.sizes
    cuts = call.cuts()
    return {
        "kept": kept, "sums": sums, "cuts": sums if cuts is None else cuts, "A": call.rates(torch.float64),
        "start": _pointer(start, sums), "end": end, "batches": batch, "channels": channels, "states": states,
        "chunks": call.chunks, **_strides("start", start, "bcn"), "CHUNK": _CARRY_CHUNK, "BLOCK": _CARRY_BLOCK,
        "COMPLEX": call.complex_state, "START_COMPLEX": start is not None and start.is_complex(),
        "ONE_RATE": call.A.ndim == 1, "HAS_START": start is not None, "HAS_RESET": cuts is not None,
        "ADJOINT": adjoint, **_options(_CARRY_BLOCK),
    }  # fmt: skip


def output_arguments(call: _Call, kept: Tensor, y: Tensor, every: Tensor | None) -> Any:
    """Arguments of the kernel `outputs`."""
    u, number = call.u, torch.float64 if call.double else torch.float32
    return {
        "u": u, "delta": call.delta, "bias": _pointer(call.delta_bias, u), "A": call.rates(number),
        "B": _parts(call.B), "C": _parts(call.C), "D": _pointer(call.D, u), "z": _pointer(call.z, u),
        "reset": _pointer(call.reset, u), "kept": kept, "y": y, "every": _pointer(every, y), **call.numbers(),
        "skips": 1 if call.D is None else call.D.shape[0],
        **_strides("u", u, "btc"), **_strides("delta", call.delta, "btc"), **_strides("B", call.B, "btgn"),
        **_strides("C", call.C, "btgn"), **_strides("z", call.z, "btc"), **_strides("reset", call.reset, "bt"),
        **_strides("y", y, "btc"), **call.flags(), "B_COMPLEX": call.B.is_complex(), "C_COMPLEX": call.C.is_complex(),
        "HAS_D": call.D is not None, "EVERY": every is not None,
    }  # fmt: skip


def _carry(call: _Call, kept: Tensor, sums: Tensor, start: Tensor | None, adjoint: bool) -> Tensor:
    """Carry states from chunk to chunk in place; the last of all, (batch, channel, state) in double precision."""
    batch, _, channels, _, states = call.sizes
    shape = (batch, 2, states, channels) if call.complex_state else (batch, states, channels)
    end = torch.empty(shape, dtype=torch.float64, device=call.u.device)
    arguments = carry_arguments(call, kept, sums, start, end, adjoint)
    _launch(kernels.carry_states, batch * -(-states * channels // _CARRY_BLOCK), call.u.device, arguments)
    if call.complex_state:
        end = torch.complex(end[:, 0], end[:, 1])
    return end.transpose(1, 2)


def _boundary_states(call: _Call, start: Tensor | None, dy: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The state before each chunk, and that after the last; with dy the adjoints, backwards."""
    batch, _, channels, _, _ = call.sizes
    kept = torch.empty(call.kept_shape, dtype=call.kept_dtype, device=call.u.device)
    sums = torch.empty((batch, call.chunks, channels), dtype=torch.float64, device=call.u.device)
    _launch(kernels.local_states, call.programs, call.u.device, local_arguments(call, kept, sums, dy))
    return kept, _carry(call, kept, sums, start, dy is not None)


def _run_forward(call: _Call, keep: bool, reduce: Reduce | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state, and the state before each span (span, batch, channel, state) if wanted."""
    u, state = call.u, call.initial_state
    y = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    before = torch.empty(call.before_shape if keep else (0,), dtype=call.before_dtype, device=u.device)
    for i, span in enumerate(call.spans()):
        if keep:
            before[i] = 0 if state is None else state
        part = call.cut(span)
        kept, state = _boundary_states(part, state)
        _launch(kernels.outputs, part.programs, u.device, output_arguments(part, kept, y[:, span], None))
        if reduce is not None:
            _show(part, kept, reduce, span.start)
    if state is None:
        batch, _, channels, _, states = call.sizes
        state = torch.zeros((batch, channels, states), device=u.device)
    return y, state.to(call.state_dtype, copy=True).contiguous(), before


def _show(call: _Call, kept: Tensor, reduce: Reduce, start: int) -> None:
    """Show all states of a span to `reduce`."""
    batch, length, channels, _, states = call.sizes
    every = torch.empty((call.planes, batch, length, states, channels), dtype=torch.float64, device=call.u.device)
    _launch(kernels.outputs, call.programs, call.u.device, output_arguments(call, kept, call.u, every))
    seen = torch.complex(every[0], every[1]) if call.complex_state else every[0]
    reduce(seen.transpose(2, 3), start)


@torch.library.impl(_FORWARD, "default")
def _forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *tensors, softplus, reverse, scale, keep = arguments
    return _run_forward(_Call.of(tensors, softplus, reverse, scale), keep)


@torch.library.register_fake(_FORWARD)
def _forward_fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *tensors, softplus, reverse, scale, keep = arguments
    call = _Call.of(tensors, softplus, reverse, scale)
    batch, _, channels, _, states = call.sizes
    u = tensors[0]
    last = u.new_empty((batch, channels, states), dtype=call.state_dtype)
    return u.new_empty(u.shape), last, u.new_empty(call.before_shape if keep else (0,), dtype=call.before_dtype)


# ---------------------------------------------------------------------- backward


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, softplus, reverse, scale, _ = inputs
    ctx.options = softplus, reverse, scale
    ctx.mark_non_differentiable(output[2])
    # a cotangent that is not there costs no tensor of zeros
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[2], *tensors)


def _gradient(ctx: Any, dy: Any, dlast: Any, _: Any) -> tuple[Any, ...]:
    kept, *tensors = ctx.saved_tensors
    found = torch.ops.ssmtheory.triton_scan_backward(dy, dlast, kept, *tensors, *ctx.options)
    return *(None if x is None else g for x, g in zip(tensors, found, strict=False)), None, None, None, None, None


torch.library.register_autograd(_FORWARD, _gradient, setup_context=_setup)


def gradient_arguments(call: _Call, dy: Tensor, kept: Tensor, adjoint: Tensor, results: dict[str, Tensor]) -> Any:
    """Arguments of the kernel `gradients`; `results` are the tensors it writes, by name."""
    u, number = call.u, torch.float64 if call.double else torch.float32
    return {
        "u": u, "delta": call.delta, "bias": _pointer(call.delta_bias, u), "A": call.rates(number),
        "B": _parts(call.B), "C": _parts(call.C), "D": _pointer(call.D, u), "z": _pointer(call.z, u),
        "reset": _pointer(call.reset, u), "dy": dy, "kept": kept, "adjoint": adjoint, **results, **call.numbers(),
        "result_b": results["du"].stride(0), "skips": 1 if call.D is None else call.D.shape[0],
        **_strides("u", u, "btc"), **_strides("delta", call.delta, "btc"), **_strides("B", call.B, "btgn"),
        **_strides("C", call.C, "btgn"), **_strides("z", call.z, "btc"), **_strides("reset", call.reset, "bt"),
        **_strides("dy", dy, "btc"), **call.flags(), "B_COMPLEX": call.B.is_complex(),
        "C_COMPLEX": call.C.is_complex(), "HAS_D": call.D is not None,
    }  # fmt: skip


def span_results(call: _Call) -> dict[str, Tensor]:
    """Memory for what the kernel `gradients` leaves to be summed."""
    batch, length, channels, groups, states = call.sizes
    u, number = call.u, torch.float64 if call.double else torch.float32

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=number, device=u.device)

    def rows(x: Tensor) -> Tensor:
        planes = 2 if x.is_complex() else 1
        if call.varying:
            return empty(planes, batch, states, length, channels)
        return empty(planes, call.blocks, batch, groups, states, length)

    sums = (batch, call.chunks, channels)
    return {
        "dB": rows(call.B),
        "dC": rows(call.C),
        "dD": empty(0) if call.D is None else empty(*sums),
        "dbias": empty(0) if call.delta_bias is None else empty(*sums),
    }


@torch.library.impl(_BACKWARD, "default")
def _backward(*arguments: Any) -> tuple[Tensor, ...]:
    dy, dlast, before, *tensors, softplus, reverse, scale = arguments
    call = _Call.of(tensors, softplus, reverse, scale)
    channels = call.u.shape[2]
    u, A, B, C, D, z, bias = call.u, call.A, call.B, call.C, call.D, call.z, call.delta_bias
    if before.shape != torch.Size(call.before_shape):
        # the forward pass did not know that a gradient would be asked for
        *_, before = _run_forward(call, True)

    def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=u.device)

    dy = zeros(1, dtype=u.dtype).expand(u.shape) if dy is None else dy.resolve_neg()
    adjoint = None if dlast is None else dlast.resolve_conj().resolve_neg()
    # where a head has one step for several channels, their cotangents are summed afterwards
    number = torch.float64 if call.double else torch.float32
    step_dtype = call.delta.dtype if call.delta.shape[2] == channels else number
    du, ddelta = torch.empty_like(u, memory_format=torch.contiguous_format), zeros(*u.shape, dtype=step_dtype)
    dz = zeros(0) if z is None else torch.empty_like(z, memory_format=torch.contiguous_format)
    dB, dC = (torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (B, C))
    rates, skips, shifts = zeros(call.planes, B.shape[3], channels), zeros(channels), zeros(channels)
    for i, span in reversed(list(enumerate(call.spans()))):
        part = call.cut(span)
        kept, _ = _boundary_states(part, before[i])
        adjoints, adjoint = _boundary_states(part, adjoint, dy[:, span])
        results = {
            "du": du[:, span], "ddelta": ddelta[:, span], "dz": dz if z is None else dz[:, span], **span_results(part)
        }  # fmt: skip
        given = gradient_arguments(part, dy[:, span], kept, adjoints, results)
        _launch(kernels.gradients, part.programs, u.device, given)
        for whole, sums in ((dB, results["dB"]), (dC, results["dC"])):
            sums = sums.permute(0, 1, 3, 4, 2) if call.varying else sums.sum(1).permute(0, 1, 4, 2, 3)
            whole[:, span] = torch.complex(sums[0], sums[1]) if whole.is_complex() else sums[0]
        rates += adjoints.sum((1, 2), dtype=torch.float64)
        if D is not None:
            skips += results["dD"].sum((0, 1), dtype=torch.float64)
        if bias is not None:
            shifts += results["dbias"].sum((0, 1), dtype=torch.float64)
    if adjoint is None:
        adjoint = zeros(u.shape[0], channels, B.shape[3])
    dA = torch.complex(rates[0], rates[1]) if call.complex_state else rates[0]
    dA = dA.T if A.ndim == 2 else _by_row(dA.sum(0), A.shape[0])
    found = (
        du, _by_row(ddelta, call.delta.shape[2]), dA, dB, dC, skips if D is None else _by_row(skips, D.shape[0]), dz,
        shifts if bias is None else _by_row(shifts, bias.shape[0]), adjoint,
    )  # fmt: skip
    return tuple(
        u.new_empty(0) if x is None else _like(g, x).contiguous() for x, g in zip(tensors[:-1], found, strict=True)
    )


def _by_row(x: Tensor, rows: int) -> Tensor:
    """Sum the channels of a head; the last axis becomes `rows`."""
    if x.shape[-1] == rows:
        return x
    return x.reshape(*x.shape[:-1], rows, -1 if rows else 0).sum(-1)


def _like(gradient: Tensor, x: Tensor) -> Tensor:
    """A gradient in the dtype of its input: the real part where the input is real."""
    if gradient.is_complex() and not x.is_complex():
        gradient = gradient.real
    return gradient.to(x.dtype)


@torch.library.register_fake(_BACKWARD)
def _backward_fake(*arguments: Any) -> tuple[Tensor, ...]:
    tensors = arguments[3:12]
    return tuple(tensors[0].new_empty(0) if x is None else x.new_empty(x.shape) for x in tensors)


def _nothing(ctx: Any, inputs: Any, output: Any) -> None:
    pass


def _refuse(*_: Any) -> Any:
    raise BackendError(
        "backend='triton': the gradient of the scan cannot be differentiated again (create_graph=True). "
        "Use JAX arrays (backend='jax') for second derivatives"
    )


torch.library.register_autograd(_BACKWARD, _refuse, setup_context=_nothing)
