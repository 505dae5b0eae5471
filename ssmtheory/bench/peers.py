"""Who is measured: ours in every binding, published packages, and two labelled baselines; a few lines each.

An adapter gets a case and its arrays and returns what is timed (a function without arguments) and what turns its
result into arrays in the order of `cases.reference`. Everything else (other layouts, copies, tensors, the graph before
a backward pass) happens before the clock starts, in the peer's favour. Nothing here is imported before it is used.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssmtheory.bench.cases import CHECKED_TOKENS, SCAN_INPUTS, Case
from ssmtheory.errors import InputError

__all__ = ["PEERS", "Peer", "Prepared", "keep_freed_memory", "missing", "model_reference", "version"]

Arrays = dict[str, np.ndarray]


class Prepared(NamedTuple):
    """A peer ready to be timed: `call()` does the work once, `arrays(result)` gives its parts by name."""

    call: Callable[[], Any]
    arrays: Callable[[Any], dict[str, Any]]


@dataclass(frozen=True)
class Peer:
    """An implementation.

    Attributes:
        name: in the dataset.
        package: distribution whose version is recorded.
        does: of the pairs "kind/mode" of a case, those it can; "scan" stands for all of a kind.
        prepare: the adapter.
        ours: whether it is this package.
        sweeps: takes part where an axis is swept.
        reuses: output buffers are given to it, or freed memory stays in the process; False is the plain call.
        order: its cost grows as length to this power in the modes with a backward pass.
        device: "cpu" or "cuda"; the latter is timed by the wall clock.
        needs: modules that must be there besides the package.
        note: what the reader must know.
    """

    name: str
    package: str
    does: tuple[str, ...]
    prepare: Callable[[Case, Arrays], Prepared]
    ours: bool = False
    sweeps: bool = False
    reuses: bool = True
    order: int = 1
    device: str = "cpu"
    needs: tuple[str, ...] = ()
    note: str = ""

    def can(self, case: Case) -> bool:
        """Whether it does what the case asks for."""
        return (case.kind in self.does or f"{case.kind}/{case.mode}" in self.does) and (self.sweeps or not case.sweep)


def version(peer: Peer) -> str:
    """Version of the peer's package; "" where it is not installed."""
    try:
        return metadata.version(peer.package)
    except metadata.PackageNotFoundError:
        if peer.ours:
            import ssmtheory

            return ssmtheory.__version__
        return ""


def missing(peer: Peer) -> str:
    """Why a peer cannot run here; "" where it can, as far as can be known without importing it."""
    if peer.name == "llama.cpp":
        return "" if _ggml_folder() else "no libggml: pip install llama-cpp-python, or set SSMTHEORY_GGML to its folder"
    absent = [name for name in peer.needs if importlib.util.find_spec(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    if peer.device == "cuda":
        # importing torch to ask would cost seconds: the driver's device is enough to say no
        return "" if Path("/dev/nvidia0").exists() else "no CUDA device"
    if peer.name.startswith("ssmtheory c"):
        from ssmtheory.scan import c_backend

        return "" if c_backend.library_path() else "the kernel was not compiled at install"
    return ""


# ---------------------------------------------------------------------- torch
def _tensors(arrays: Arrays, device: str = "cpu") -> dict[str, Any]:
    import torch

    return {name: torch.from_numpy(np.ascontiguousarray(value)).to(device) for name, value in arrays.items()}


def _channels_first(t: dict[str, Any]) -> dict[str, Any]:
    """(batch, channel, length) and (batch, state, length), contiguous."""
    moved = ("u", "delta", "z", "B", "C", "dy")
    return {name: x.transpose(1, 2).contiguous() if name in moved else x for name, x in t.items()}


def _host(value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    return value.detach().cpu().resolve_conj().numpy() if hasattr(value, "detach") else np.asarray(value)


def _torch_scan(
    function: Callable[..., Any], case: Case, arrays: Arrays, *, channels_first: bool = False, device: str = "cpu"
) -> Prepared:
    """Time `function(u, delta, A, B, C, D, z, delta_bias)`, with its gradient where the case asks for it."""
    import torch

    t = _tensors(arrays, device)
    if channels_first:
        t = _channels_first(t)
    order = [t[name] for name in SCAN_INPUTS]
    finish = torch.cuda.synchronize if device == "cuda" else lambda: None

    def plain(name: str, value: Any) -> Any:
        moved = channels_first and name in ("u", "delta", "z", "B", "C", "y")
        return _host(value.transpose(1, 2) if moved else value)

    if case.mode == "forward":

        def call() -> Any:
            with torch.no_grad():
                y = function(*order)
            finish()
            return y

        return Prepared(call, lambda y: {"y": plain("y", y)})
    for x in order:
        x.requires_grad_()

    def both() -> Any:
        found = torch.autograd.grad(function(*order), order, t["dy"])
        finish()
        return found

    call = both
    if case.mode == "backward":
        y = function(*order)

        def call() -> Any:
            found = torch.autograd.grad(y, order, t["dy"], retain_graph=True)
            finish()
            return found

    return Prepared(call, lambda g: {k: plain(k, v) for k, v in zip(SCAN_INPUTS, g, strict=True)})


def _discretised(recurrence: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """The whole scan around h = recurrence(decay, write), both (batch, length, channel, state)."""
    import torch
    from torch.nn.functional import silu, softplus

    def scan(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any, z: Any, bias: Any) -> Any:
        step = softplus(delta + bias)
        decay = torch.exp(step[..., None] * A)
        write = (step * u)[..., None] * B[:, :, None]
        h = recurrence(decay, write)
        return ((h @ C[..., None])[..., 0] + D * u) * silu(z)

    return scan


# ---------------------------------------------------------------------- ours
def _ours_torch(backend: str, out: bool, case: Case, arrays: Arrays) -> Prepared:
    import torch

    from ssmtheory import scan

    device = "cuda" if backend == "triton" else "cpu"
    target = torch.empty(arrays["u"].shape, device=device) if out and case.mode == "forward" else None

    def function(*values: Any) -> Any:
        given = dict(zip(SCAN_INPUTS, values, strict=True))
        return scan.selective_scan(**given, delta_softplus=True, out=target, backend=backend)

    return _torch_scan(function, case, arrays, device=device)


def _ours_numpy(backend: str, out: bool, case: Case, arrays: Arrays) -> Prepared:
    from ssmtheory import scan

    target = np.empty_like(arrays["u"]) if out else None

    given: dict[str, Any] = dict(arrays)

    def call() -> Any:
        return scan.selective_scan(**given, delta_softplus=True, out=target, backend=backend)

    return Prepared(call, lambda y: {"y": y})


def _jax_scan(function: Callable[..., Any], case: Case, arrays: Arrays) -> Prepared:
    import jax

    values = [jax.numpy.asarray(arrays[name]) for name in SCAN_INPUTS]
    if case.mode == "forward":
        compiled = jax.jit(function)
        return Prepared(lambda: compiled(*values).block_until_ready(), lambda y: {"y": y})
    dy = jax.numpy.asarray(arrays["dy"])
    both = jax.jit(lambda dy, *x: jax.vjp(function, *x)[1](dy))
    return Prepared(lambda: jax.block_until_ready(both(dy, *values)), lambda g: dict(zip(SCAN_INPUTS, g, strict=True)))


def _ours_jax(case: Case, arrays: Arrays) -> Prepared:
    from ssmtheory import scan

    def function(*values: Any) -> Any:
        return scan.selective_scan(**dict(zip(SCAN_INPUTS, values, strict=True)), delta_softplus=True)

    return _jax_scan(function, case, arrays)


def _ours_recurrence(backend: str, out: bool, case: Case, arrays: Arrays) -> Prepared:
    from ssmtheory import scan

    target = np.empty_like(arrays["b"]) if out else None
    return Prepared(
        lambda: scan.linear_recurrence(arrays["a"], arrays["b"], out=target, backend=backend), lambda h: {"h": h}
    )


# ---------------------------------------------------------------------- peers of the selective scan
def _transformers(option: str, case: Case, arrays: Arrays) -> Prepared:
    from transformers.models.mamba import modeling_mamba

    options = {option: True} if option else {}

    def function(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any, z: Any, bias: Any) -> Any:
        return modeling_mamba.mamba_selective_scan(
            u, delta, A, B, C, D=D, z=z, delta_bias=bias, delta_softplus=True, **options
        )

    return _torch_scan(function, case, arrays, channels_first=True)


def _mambapy(case: Case, arrays: Arrays) -> Prepared:
    from mambapy.pscan import pscan

    if case.kind == "recurrence":
        t = _tensors({name: value[..., None] for name, value in arrays.items()})
        return Prepared(lambda: pscan(t["a"], t["b"]), lambda h: {"h": _host(h[..., 0])})
    return _torch_scan(_discretised(pscan), case, arrays)


def _assoc_scan(case: Case, arrays: Arrays) -> Prepared:
    from assoc_scan import AssocScan

    scan = AssocScan()
    if case.kind == "recurrence":
        t = _tensors(arrays)
        return Prepared(lambda: scan(t["a"], t["b"]), lambda h: {"h": _host(h)})
    return _torch_scan(_discretised(scan), case, arrays)


def _compiled_scan(case: Case, arrays: Arrays) -> Prepared:
    import torch
    from torch._higher_order_ops.scan import scan
    from torch.nn.functional import silu, softplus

    # without it PyTorch 2.13 cannot lower a scan: its loop reads the step's number from a tensor
    torch._dynamo.config.capture_scalar_outputs = True
    if case.kind == "recurrence":

        def recurrence(a: Any, b: Any) -> Any:
            def step(h: Any, x: Any) -> Any:
                h = x[0] * h + x[1]
                return h, h.clone()

            return scan(step, torch.zeros_like(b[:, 0]), (a, b), dim=1)[1]

        t = _tensors(arrays)
        program = torch.compile(recurrence)
        return Prepared(lambda: program(t["a"], t["b"]), lambda h: {"h": _host(h.movedim(0, 1))})

    def function(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any, z: Any, bias: Any) -> Any:
        def step(h: Any, x: Any) -> Any:
            u, delta, B, C = x
            h = torch.exp(delta[..., None] * A) * h + (delta * u)[..., None] * B[:, None]
            # the backward pass allows no result to share memory with another
            return h.clone(), (h * C[:, None]).sum(-1)

        start = torch.zeros(u.shape[1], u.shape[2], A.shape[1])
        _, y = scan(step, start, (u, softplus(delta + bias), B, C), dim=0)
        return ((y + D * u) * silu(z)).transpose(0, 1)

    compiled: Callable[..., Any] = torch.compile(function)

    def outer(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any, z: Any, bias: Any) -> Any:
        return compiled(*(x.transpose(0, 1) for x in (u, delta)), A, B.transpose(0, 1), C.transpose(0, 1), D,
                        z.transpose(0, 1), bias)  # fmt: skip

    return _torch_scan(outer, case, arrays)


def _compiled_associative(case: Case, arrays: Arrays) -> Prepared:
    import torch
    from torch._higher_order_ops.associative_scan import associative_scan

    def combine(left: Any, right: Any) -> Any:
        return left[0] * right[0], right[0] * left[1] + right[1]

    def recurrence(a: Any, b: Any) -> Any:
        return associative_scan(combine, (a, b), dim=1, combine_mode="generic")[1]

    if case.kind == "recurrence":
        t = _tensors(arrays)
        compiled = torch.compile(recurrence)
        return Prepared(lambda: compiled(t["a"], t["b"]), lambda h: {"h": _host(h)})
    return _torch_scan(torch.compile(_discretised(recurrence)), case, arrays)


def _jax(associative: bool, case: Case, arrays: Arrays) -> Prepared:
    import jax
    import jax.numpy as jnp

    def combine(left: Any, right: Any) -> Any:
        return left[0] * right[0], right[0] * left[1] + right[1]

    if case.kind == "recurrence":

        def recurrence(a: Any, b: Any) -> Any:
            if associative:
                return jax.lax.associative_scan(combine, (a, b), axis=1)[1]

            def step(h: Any, x: Any) -> Any:
                h = x[0] * h + x[1]
                return h, h

            return jax.lax.scan(step, jnp.zeros_like(b[:, 0]), (a.swapaxes(0, 1), b.swapaxes(0, 1)))[1].swapaxes(0, 1)

        a, b = (jnp.asarray(arrays[name]) for name in "ab")
        compiled = jax.jit(recurrence)
        return Prepared(lambda: compiled(a, b).block_until_ready(), lambda h: {"h": h})

    def function(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any, z: Any, bias: Any) -> Any:
        delta = jax.nn.softplus(delta + bias)
        if associative:
            decay = jnp.exp(delta[..., None] * A)
            h = jax.lax.associative_scan(combine, (decay, (delta * u)[..., None] * B[:, :, None]), axis=1)[1]
            y = jnp.einsum("bldn,bln->bld", h, C)
        else:
            rates = A.T

            def step(h: Any, x: Any) -> Any:
                u, delta, B, C = x
                h = jnp.exp(delta[:, None] * rates) * h + B[..., None] * (delta * u)[:, None]
                return h, (h * C[..., None]).sum(1)

            start = jnp.zeros((u.shape[0], A.shape[1], A.shape[0]), u.dtype)
            y = jax.lax.scan(step, start, tuple(x.swapaxes(0, 1) for x in (u, delta, B, C)))[1].swapaxes(0, 1)
        return (y + D * u) * jax.nn.silu(z)

    return _jax_scan(function, case, arrays)


def _loop(case: Case, arrays: Arrays) -> Prepared:
    """The recurrence as it is written down, a step at a time, on tensors that hold every decay."""
    import torch

    def recurrence(decay: Any, write: Any) -> Any:
        h, found = torch.zeros_like(write[:, 0]), []
        for t in range(write.shape[1]):
            h = decay[:, t] * h + write[:, t]
            found.append(h)
        return torch.stack(found, 1)

    if case.kind == "recurrence":
        t = _tensors(arrays)
        return Prepared(lambda: recurrence(t["a"], t["b"]), lambda h: {"h": _host(h)})
    return _torch_scan(_discretised(recurrence), case, arrays)


def _mamba_ssm(case: Case, arrays: Arrays) -> Prepared:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    def function(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any, z: Any, bias: Any) -> Any:
        return selective_scan_fn(u, delta, A, B, C, D=D, z=z, delta_bias=bias, delta_softplus=True)

    return _torch_scan(function, case, arrays, channels_first=True, device="cuda")


def _fla(case: Case, arrays: Arrays) -> Prepared:
    import torch
    from fla.ops.hgru import fused_recurrent_hgru

    t = _tensors(arrays, "cuda")
    gate = t["a"].log()

    def call() -> Any:
        h = fused_recurrent_hgru(t["b"], gate)[0]
        torch.cuda.synchronize()
        return h

    return Prepared(call, lambda h: {"h": _host(h)})


# ---------------------------------------------------------------------- llama.cpp
def _ggml_folder() -> Path | None:
    """Where libggml lies: the folder of SSMTHEORY_GGML, or that of the package llama-cpp-python."""
    named = os.environ.get("SSMTHEORY_GGML")
    if named:
        return Path(named)
    found = importlib.util.find_spec("llama_cpp")
    if found is None or not found.origin:
        return None
    folder = Path(found.origin).parent / "lib"
    return folder if sorted(folder.glob("libggml-base*")) else None


@functools.cache
def _ggml() -> Callable[[str], Any]:
    folder = _ggml_folder()
    if folder is None:
        raise InputError("no libggml: pip install llama-cpp-python, or set SSMTHEORY_GGML to its folder")
    libraries = []
    for stem in ("base", "cpu"):
        found = sorted(folder.rglob(f"libggml-{stem}*.so*"))
        if not found:
            raise InputError(f"no libggml-{stem} in {folder}")
        libraries.append(ctypes.CDLL(str(found[0]), mode=ctypes.RTLD_GLOBAL))

    def function(name: str) -> Any:
        return getattr(next(each for each in libraries if hasattr(each, name)), name)

    return function


class _GgmlOptions(ctypes.Structure):
    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


def _llama(case: Case, arrays: Arrays) -> Prepared:
    """`ggml_ssm_scan`: softplus inside; bias before, skip and gate after it are not timed."""
    get = _ggml()
    pointer, whole, integer = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    batch, length, channels, states = case.batch, case.length, case.channels, case.states

    def declared(name: str, *arguments: Any, returns: Any = pointer) -> Any:
        function = get(name)
        function.argtypes, function.restype = list(arguments), returns
        return function

    size = 8 * (batch * length * (4 * channels + 2 * states) + 3 * batch * channels * states) + (1 << 24)
    context = declared("ggml_init", _GgmlOptions)(_GgmlOptions(size, None, False))
    data = declared("ggml_get_data", pointer)
    new = declared("ggml_new_tensor_4d", pointer, integer, *[whole] * 4)
    float32, int32 = 0, 26

    def tensor(value: np.ndarray, *shape: int) -> Any:
        value = np.ascontiguousarray(value)
        made = new(context, int32 if value.dtype == np.int32 else float32, *shape, *[1] * (4 - len(shape)))
        ctypes.memmove(data(made), value.ctypes.data, value.nbytes)
        return made

    operands = [
        tensor(np.zeros((batch, channels, states), np.float32), states, 1, channels, batch),
        tensor(arrays["u"], 1, channels, length, batch),
        tensor(arrays["delta"] + arrays["delta_bias"], channels, length, batch),
        tensor(arrays["A"], states, channels),
        tensor(arrays["B"], states, 1, length, batch),
        tensor(arrays["C"], states, 1, length, batch),
        tensor(np.arange(batch, dtype=np.int32), batch),
    ]
    # the last argument came later: the ones before it do not read it
    result = declared("ggml_ssm_scan", pointer, *[pointer] * 7, whole)(context, *operands, 1)
    graph = declared("ggml_new_graph", pointer)(context)
    declared("ggml_build_forward_expand", pointer, pointer, returns=None)(graph, result)
    run = declared("ggml_graph_compute_with_ctx", pointer, pointer, integer, returns=integer)
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))

    def call() -> Any:
        if run(context, graph, threads):
            raise InputError("ggml_graph_compute_with_ctx failed")
        return data(result)

    def finished(address: int) -> dict[str, Any]:
        count = batch * length * channels
        y = np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_float)), (count,))
        y = y.reshape(batch, length, channels) + arrays["D"] * arrays["u"]
        return {"y": y * arrays["z"] / (1 + np.exp(-arrays["z"]))}

    return Prepared(call, finished)


# ---------------------------------------------------------------------- kernels of time-invariant systems
def _naive_kernel(case: Case, arrays: Arrays) -> Prepared:
    """The Vandermonde product in complex64, as it is written down: (channel, state, length) at once."""
    import torch

    t = _tensors(arrays)

    def kernel() -> Any:
        steps = torch.arange(case.length)
        table = torch.exp(t["x"][..., None] * steps)
        return 2 * torch.einsum("hn,hnl->hl", t["c"], table).real

    if case.kind == "kernel":
        return Prepared(kernel, lambda K: {"K": _host(K)})
    return Prepared(lambda: _fft_convolution(t["u"], kernel()), lambda y: {"y": _host(y)})


def _fft_convolution(u: Any, kernel: Any) -> Any:
    """(batch, length, channel) by (channel, length), through torch.fft at twice the length."""
    import torch

    size = 2 * u.shape[1]
    spectrum = torch.fft.rfft(u.transpose(1, 2), n=size) * torch.fft.rfft(kernel, n=size)
    return torch.fft.irfft(spectrum, n=size)[..., : u.shape[1]].transpose(1, 2)


def _ours_kernel(framework: str, case: Case, arrays: Arrays) -> Prepared:
    from ssmtheory.scan import lti

    one = {"one": np.ones(case.channels)}
    given: dict[str, Any] = _tensors({**arrays, **one}) if framework == "torch" else {**arrays, **one}

    def call() -> Any:
        return lti.vandermonde_kernel(
            given["x"], given["c"], case.length, dt=given["one"], discretization="dirac", dtype="float32"
        )

    return Prepared(call, lambda K: {"K": _host(K)})


def _ours_convolution(method: str, case: Case, arrays: Arrays) -> Prepared:
    from ssmtheory.scan import lti

    t: dict[str, Any] = _tensors({**arrays, "one": np.ones(case.channels)})

    def call() -> Any:
        return lti.lti_convolve(t["u"], t["x"], None, t["c"], dt=t["one"], discretization="dirac", method=method)

    return Prepared(call, lambda y: {"y": _host(y)})


def _torch_fft(case: Case, arrays: Arrays) -> Prepared:
    from ssmtheory.bench.cases import exact_kernel

    t = _tensors({"u": arrays["u"], "K": exact_kernel(arrays, case.length).astype(np.float32)})
    return Prepared(lambda: _fft_convolution(t["u"], t["K"]), lambda y: {"y": _host(y)})


# ---------------------------------------------------------------------- the whole model
def model_config(case: Case) -> Any:
    """The configuration of a whole model: the 130m shape, but for width and depth of the quick case."""
    from ssmtheory.mamba import MambaConfig

    large = case.channels == 1536
    return MambaConfig.mamba1(
        d_model=case.channels // 2, n_layer=24 if large else 2, vocab_size=50280 if large else 256
    )


def _weights(case: Case) -> dict[str, Any]:
    from ssmtheory.mamba.initialize import initial_weights

    return initial_weights(model_config(case))


def _ours_model(backend: str, case: Case, arrays: Arrays) -> Prepared:
    from ssmtheory.mamba import MambaLM

    model = MambaLM(model_config(case), _weights(case), backend=backend)

    def call() -> Any:
        if backend != "torch":
            return model(arrays["tokens"])
        import torch

        with torch.no_grad():
            return model(arrays["tokens"])

    return Prepared(call, lambda y: {"logits": _host(y)})


def _transformers_model(option: str, case: Case, arrays: Arrays) -> Prepared:
    import torch

    from ssmtheory.mamba.adapters import transformers_model

    model = transformers_model(model_config(case), _weights(case))
    if option:
        for layer in model.backbone.layers:
            setattr(layer.mixer, option, True)
    ids = torch.from_numpy(arrays["tokens"].astype(np.int64))

    def call() -> Any:
        with torch.no_grad():
            return model(ids, use_cache=False).logits

    return Prepared(call, lambda y: {"logits": _host(y)})


def model_reference(case: Case, arrays: Arrays) -> Arrays:
    """Logits of the first tokens in float64, by the readable forward pass on NumPy and the sequential scan."""
    from ssmtheory.mamba import MambaLM

    weights = {name: np.asarray(value, np.float64) for name, value in _weights(case).items()}
    model = MambaLM(model_config(case), weights, backend="reference")
    return {"logits": np.asarray(model(arrays["tokens"][:, :CHECKED_TOKENS]))}


def _peers() -> tuple[Peer, ...]:
    part, torch, jax = functools.partial, ("torch",), ("jax",)
    own: dict[str, Any] = {"package": "ssmtheory", "ours": True}
    scans = ("scan/forward", "scan/gradient")
    return (
        Peer("ssmtheory c out", does=("scan",), prepare=part(_ours_torch, "c", True), sweeps=True, needs=torch,
             note="reused output; with a gradient, freed memory stays in the process", **own),
        Peer("ssmtheory c", does=("scan",), prepare=part(_ours_torch, "c", False), sweeps=True, reuses=False,
             needs=torch, note="the plain call, which allocates", **own),
        Peer("ssmtheory c numpy out", does=("scan/forward",), prepare=part(_ours_numpy, "c", True), **own),
        Peer("ssmtheory c numpy", does=("scan/forward",), prepare=part(_ours_numpy, "c", False), reuses=False, **own),
        Peer("ssmtheory torch", does=scans, prepare=part(_ours_torch, "torch", False), needs=torch, **own),
        Peer("ssmtheory numpy", does=("scan/forward",), prepare=part(_ours_numpy, "numpy", False), **own),
        Peer("ssmtheory jax", does=scans, prepare=_ours_jax, needs=jax, **own),
        Peer("ssmtheory triton", does=scans, prepare=part(_ours_torch, "triton", False), device="cuda",
             needs=("torch", "triton"), **own),
        Peer("transformers", "transformers", scans, part(_transformers, ""), order=2, needs=("torch", "transformers"),
             note="MambaMixer's slow path"),
        Peer("transformers mambapy", "transformers", scans, part(_transformers, "use_mambapy"),
             needs=("torch", "transformers", "mambapy"), note="use_mambapy=True"),
        Peer("mambapy", "mambapy", (*scans, "recurrence"), _mambapy, needs=("torch", "mambapy")),
        Peer("assoc-scan", "assoc-scan", (*scans, "recurrence"), _assoc_scan, needs=("torch", "assoc_scan")),
        Peer("jax lax.scan", "jax", (*scans, "recurrence"), part(_jax, False), sweeps=True, needs=jax),
        Peer("jax associative_scan", "jax", (*scans, "recurrence"), part(_jax, True), needs=jax),
        Peer("torch.compile scan", "torch", (*scans, "recurrence"), _compiled_scan, needs=torch),
        Peer("torch.compile associative_scan", "torch", (*scans, "recurrence"), _compiled_associative, needs=torch),
        Peer("llama.cpp", "llama-cpp-python", ("scan/forward",), _llama,
             note="ggml_ssm_scan; bias, skip and gate not timed"),
        Peer("baseline torch loop", "torch", (*scans, "recurrence"), _loop, order=2, needs=torch,
             note="our spelling of the definition, no package"),
        Peer("mamba_ssm", "mamba-ssm", scans, _mamba_ssm, device="cuda", needs=("torch", "mamba_ssm")),
        Peer("fla", "flash-linear-attention", ("recurrence",), _fla, device="cuda", needs=("torch", "fla")),
        Peer("baseline naive Vandermonde", "torch", ("kernel",), _naive_kernel, needs=torch,
             note="our spelling of the definition, complex64, no package"),
        Peer("baseline naive Vandermonde + torch.fft", "torch", ("convolve",), _naive_kernel, needs=torch),
        Peer("torch.fft", "torch", ("convolve",), _torch_fft, needs=torch, note="the kernel is given, not timed"),
        Peer("ssmtheory recurrence out", does=("recurrence",), prepare=part(_ours_recurrence, "auto", True), **own),
        Peer("ssmtheory recurrence", does=("recurrence",), prepare=part(_ours_recurrence, "auto", False),
             reuses=False, **own),
        Peer("ssmtheory kernel", does=("kernel",), prepare=part(_ours_kernel, "torch"), needs=torch, **own),
        Peer("ssmtheory kernel numpy", does=("kernel",), prepare=part(_ours_kernel, "numpy"), **own),
        Peer("ssmtheory direct scan", does=("convolve",), prepare=part(_ours_convolution, "scan"), needs=torch, **own),
        Peer("ssmtheory kernel + FFT", does=("convolve",), prepare=part(_ours_convolution, "kernel+fft"), needs=torch,
             **own),
        # the compiled scan in the weights' dtype, as every peer; "torch" names the scan without compiled code, and
        # NumPy's auto computes in float64
        Peer("ssmtheory model c", does=("model",), prepare=part(_ours_model, "c"), **own),
        Peer("ssmtheory model torch", does=("model",), prepare=part(_ours_model, "torch"), needs=torch, **own),
        Peer("ssmtheory model numpy", does=("model",), prepare=part(_ours_model, "auto"), **own),
        Peer("transformers model", "transformers", ("model",), part(_transformers_model, ""),
             needs=("torch", "transformers")),
    )  # fmt: skip


#: Every implementation by name, ours first.
PEERS: dict[str, Peer] = {peer.name: peer for peer in sorted(_peers(), key=lambda p: not p.ours)}


def keep_freed_memory(wanted: bool) -> None:
    """Whether memory that is freed stays in this process, so that no call pays for new pages (glibc; else nothing)."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        trim_threshold, mapped_blocks = -1, -4
        libc.mallopt(trim_threshold, 2**31 - 1 if wanted else 1 << 17)
        libc.mallopt(mapped_blocks, 0 if wanted else 1 << 16)
