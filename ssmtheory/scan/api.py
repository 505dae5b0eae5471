"""The selective scan and the diagonal linear recurrence: one signature, several backends.

========= =================================== ==========================================
name      paper symbol                        shape
========= =================================== ==========================================
u         x_t, the input of the recurrence    (batch, length, channel)
delta     Delta_t, step size                  (batch, length, channel) or (batch, length, head)
A         A, diagonal                         (channel, state), or (head,): a scalar per head
B, C      B_t, C_t                            (batch, length, [group or channel,] state)
D         D, skip                             (channel,) or (head,)
z         gate                                (batch, length, channel)
state h   h_t                                 (batch, channel, state)
========= =================================== ==========================================

References: Gu and Dao, "Mamba", arXiv 2312.00752, equations 2 and 4 and algorithm 2 (A by zero-order hold, B by the
Euler rule); Dao and Gu, "Transformers are SSMs", arXiv 2405.21060 (a scalar A per head, groups of B and C).
"""

from __future__ import annotations

import importlib.util
import math
from numbers import Integral
from typing import Any

from array_api_compat import array_namespace

from ssmtheory.errors import BackendError, InputError, MissingDependencyError, nearest
from ssmtheory.scan.arrays import COMPLEX, REAL, dtype_name, kind_of
from ssmtheory.scan.conv import silu, softplus
from ssmtheory.scan.problem import Reduce, ScanProblem
from ssmtheory.typing import Array

__all__ = ["BACKENDS", "ResolvedBackend", "linear_recurrence", "resolve_backend", "selective_scan"]

#: Every name that ``backend=`` accepts.
BACKENDS = ("auto", "numpy", "torch", "jax", "c", "triton", "reference")
_OF_KIND = {"numpy": ("numpy", "reference", "torch", "jax", "c"), "torch": ("torch", "c", "triton"), "jax": ("jax",)}
#: Known once and for all: torch.compile cannot look for packages.
_TRITON = importlib.util.find_spec("triton") is not None


class ResolvedBackend(str):
    """The name of a backend, with the reason for the choice.

    A plain string to everything that records it.

    Attributes:
        reason: why this backend, in words.
        asked: what was asked for: "auto" or the name.
    """

    reason: str
    asked: str

    def __new__(cls, name: str, reason: str, asked: str = "auto") -> ResolvedBackend:
        self = super().__new__(cls, name)
        self.reason, self.asked = reason, asked
        return self

    def __getnewargs__(self) -> tuple[str, str, str]:  # type: ignore[override]
        return str(self), self.reason, self.asked


def resolve_backend(*arrays: Array, backend: str = "auto") -> ResolvedBackend:
    """Say which backend a scan of these arrays would use, and why.

    "auto" never converts arrays. NumPy arrays, and PyTorch tensors in main memory, run on the compiled kernel "c" where
    it was compiled at install, and on "numpy" and "torch" where it was not; tensors on a CUDA device run on "triton"
    where it is installed, tensors elsewhere on "torch", JAX arrays on "jax". The sequential "reference" is used only
    when named.

    Args:
        *arrays: arrays that the call would be given; none at all means NumPy arrays.
        backend: "auto" or a name.

    Returns:
        The backend's name, a string with the attributes ``reason`` and ``asked``.

    Raises:
        InputError: unknown name, or arrays of two libraries.
        BackendError: the named backend does not take arrays of this library, or is not compiled.
        MissingDependencyError: the named backend needs a package that is not installed.

    >>> import numpy as np
    >>> name = resolve_backend(np.zeros(3), backend="numpy")
    >>> name, name.reason
    ('numpy', 'it was named')
    """
    kind = kind_of(**{f"array {i}": array for i, array in enumerate(arrays)}) if arrays else "numpy"
    return ResolvedBackend(*_resolve(kind, backend, arrays[0] if arrays else None, compiled=True), backend)


def _resolve(kind: str, backend: str, array: Array | None, *, compiled: bool) -> tuple[str, str]:
    """The backend and the reason; without ``compiled`` there is no kernel that "auto" could choose."""
    if backend not in BACKENDS:
        allowed = ", ".join(repr(name) for name in BACKENDS)
        raise InputError(f"backend={backend!r}: must be one of {allowed}.{nearest(backend, BACKENDS)}")
    if backend == "auto":
        return _choose(kind, array) if compiled else (kind, f"the arrays are of {kind}")
    if backend not in _OF_KIND[kind]:
        allowed = ", ".join(repr(name) for name in ("auto", *_OF_KIND[kind]))
        raise BackendError(f"backend={backend!r} does not take {kind} arrays: use one of {allowed}, or convert them")
    if backend in ("torch", "jax") and kind != backend and importlib.util.find_spec(backend) is None:
        raise MissingDependencyError(f"backend={backend!r} needs {backend}: pip install 'ssmtheory[{backend}]'")
    if backend == "triton" and not _TRITON:
        raise MissingDependencyError("backend='triton' needs triton: pip install 'ssmtheory[triton]'")
    if backend == "c" and not (kind == "torch" and _kernel(kind)[0]):
        from ssmtheory.scan import c_backend

        c_backend.library()
    return backend, "it was named"


def _choose(kind: str, array: Any) -> tuple[str, str]:
    """What "auto" means for a scan, and why."""
    if kind == "jax":
        return kind, "the arrays are of jax"
    if kind == "torch" and array.device.type == "cuda":
        words = "is" if _TRITON else "is not"
        return "triton" if _TRITON else kind, f"the tensors are on cuda and triton {words} installed"
    if kind == "torch" and array.device.type != "cpu":
        return kind, f"the tensors are on {array.device.type}"
    usable, words = _kernel(kind)
    return "c" if usable else kind, f"the arrays are of {kind} and the kernel is {words}"


def _kernel(kind: str) -> tuple[bool, str]:
    """Whether the compiled kernel can be used, and its state in words."""
    if kind == "torch":
        from ssmtheory.scan import torch_ops

        return torch_ops.KERNEL
    from ssmtheory.scan import c_backend

    return c_backend.status()


def selective_scan(
    u: Array,
    delta: Array,
    A: Array,
    B: Array,
    C: Array,
    *,
    D: Array | None = None,
    z: Array | None = None,
    delta_bias: Array | None = None,
    delta_softplus: bool = False,
    initial_state: Array | None = None,
    reverse: bool = False,
    reset: Array | None = None,
    return_last_state: bool = False,
    reduce: Reduce | None = None,
    out: Array | None = None,
    backend: str = "auto",
    conjugate_pairs: bool = False,
) -> Any:
    """The selective state-space scan of Mamba, Mamba-2 and their relatives.

    With Delta = delta + delta_bias, through softplus if asked::

        h_t = exp(Delta_t A) h_{t-1} + Delta_t u_t B_t
        y_t = Re(C_t . h_t) + D u_t,   times silu(z_t)

    No (batch, length, channel, state) array is ever made, neither here nor in the backward pass: states exist a chunk
    at a time. States and their decays are carried in float64 ("c" carries those of float32 inputs in float32, with
    their rounding errors beside them), so that slow systems (delta A near -1e-6 over a million steps) keep their digits
    in float32; half precisions are computed in float32 or wider and rounded once.

    A batch of sequences of different lengths is packed, with ``reset`` where each begins; or padded, with Delta = 0 at
    the padding: a step that neither forgets nor writes, so that the last state is that after the last token, in either
    direction. delta = 0 does that, and delta = -inf where ``delta_softplus`` is set. y at the padding is then to be
    left out; u and B there must be finite.

    With torch, "c" is one node of a ``torch.compile`` graph and goes through ``torch.utils.checkpoint``, ``torch.func``
    (first derivatives) and autocast; "torch", and ``reduce``, break the graph. With JAX, derivatives of any order.

    Args:
        u: (batch, length, channel), real.
        delta: (batch, length, channel), real; (batch, length, head) where A is (head,).
        A: (channel, state), real or complex; or (head,): one scalar for all states of the channel/head channels of a
            head (Mamba-2).
        B, C: (batch, length, state), or with a group axis (batch, length, group, state), where group g serves the
            g-th of ``group`` equal blocks of channels; group = channel is one pair per channel. Real or complex.
        D: (channel,), or (head,) where A is (head,); the skip term.
        z: (batch, length, channel); y is multiplied by silu(z).
        delta_bias: (channel,) or (head,), as the last axis of delta; added to delta before softplus.
        delta_softplus: pass delta (and its bias) through softplus.
        initial_state: (batch, channel, state), the state before the first step; zero when None.
        reverse: run from the last token to the first; "first" and "last" above then swap.
        reset: (batch, length) bool; where True the state is zeroed before that step, which cuts packed sequences.
            In reverse, "before" is from the right: True at the last token of a prefix keeps out all that follows it.
        return_last_state: also return the state after the last step.
        reduce: called as ``reduce(states, start)`` with the states (batch, chunk, channel, state) of tokens start,
            start + 1, ...: each token once, chunks in the order of the scan, tokens in ascending order in a chunk.
            The array has the precision that the scan carries, float64 or complex128 (with JAX arrays that of the
            last state), carries no gradient, and is valid during the call only.
        out: (batch, length, channel) of the dtype of u; receives y and is returned: a buffer used again costs no page
            faults. Not for JAX, nor for tensors that need a gradient.
        backend: "auto" (the kernel for the device where there is one, else that of the arrays), "numpy", "torch",
            "jax", "c", "triton" or "reference"; see :func:`resolve_backend`. NumPy arrays may name any but "triton" and
            come back as NumPy arrays.
        conjugate_pairs: y_t = 2 Re(C_t . h_t): each complex state stands for itself and its conjugate.

    Returns:
        y (batch, length, channel), of the dtype of u. With ``return_last_state`` a pair (y, last state), the state
        (batch, channel, state) in float32 or float64 (complex64 or complex128), the widest that was given.

    Raises:
        InputError: shapes, dtypes, libraries or devices that do not fit; the message names value and expectation.
        BackendError: the named backend cannot do this.
        MissingDependencyError: the named backend is not installed.

    >>> import numpy as np
    >>> u = np.ones((1, 3, 1)); delta = np.full((1, 3, 1), np.log(2))
    >>> B = C = np.ones((1, 3, 1))
    >>> y = selective_scan(u, delta, -np.ones((1, 1)), B, C)      # h halves, then gains ln 2
    >>> (y[0, :, 0] / np.log(2)).tolist()
    [1.0, 1.5, 1.75]
    """
    arrays = {
        "u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias,
        "initial_state": initial_state, "reset": reset, "out": out,
    }  # fmt: skip
    kind = kind_of(**arrays)
    name, _ = _resolve(kind, backend, u, compiled=True)
    heads = _check(arrays)
    if conjugate_pairs and not any(dtype_name(x) in COMPLEX for x in (A, B, C)):
        raise InputError("conjugate_pairs=True with real A, B and C: a real state has no conjugate; use False")
    if reduce is not None and not callable(reduce):
        raise InputError(f"reduce is of type {type(reduce).__name__}: must be a function of (states, start)")
    _check_device(arrays)

    if name in ("c", "triton"):
        y, last = _fused(name, kind, u).selective_scan(
            arrays, softplus=bool(delta_softplus), reverse=bool(reverse), reduce=reduce,
            scale=2 if conjugate_pairs else 1, out=out,
        )  # fmt: skip
        return (y, last) if return_last_state else y

    run = plain_scan
    if _tracing(kind):
        from ssmtheory.scan.torch_eager import plain_scan as run
    return run(
        name, kind, arrays, heads > 0, bool(delta_softplus), bool(reverse), 2 if conjugate_pairs else 1, reduce,
        return_last_state,
    )  # fmt: skip


def linear_recurrence(
    a: Array,
    b: Array,
    *,
    axis: int = 1,
    initial_state: Array | None = None,
    reverse: bool = False,
    reset: Array | None = None,
    return_last_state: bool = False,
    out: Array | None = None,
    backend: str = "auto",
) -> Any:
    """h_t = a_t h_{t-1} + b_t along one axis, elementwise: the diagonal recurrence of S5 and of 2-D rows.

    Args:
        a: broadcasts against b by the usual rules; where its size along ``axis`` is 1, or it has no such axis, it is
            time-invariant and is never expanded.
        b: any shape with at least one axis; real or complex.
        axis: axis of b that is time; negative counts from the end.
        initial_state: the shape of b without ``axis`` (or what broadcasts to it): the state before the first step.
        reverse: run from the last index to the first.
        reset: bool, (length,), or (b.shape[0], length) where axis is not 0: the state is zeroed before step t.
        return_last_state: also return the state after the last step.
        out: of the shape and dtype of the result, which it receives. Not for JAX, nor for gradients.
        backend: as in :func:`selective_scan`; "triton" has no linear recurrence.

    Returns:
        All states, of the shape of b and the wider dtype of a and b; with ``return_last_state`` a pair, the last
        state having the shape of b without ``axis``.

    Raises:
        InputError: shapes, dtypes or libraries that do not fit.
        BackendError: the named backend cannot do this.
        MissingDependencyError: the named backend is not installed.

    >>> import numpy as np
    >>> linear_recurrence(np.asarray(0.5), np.ones((1, 4)))
    array([[1.   , 1.5  , 1.75 , 1.875]])
    """
    arrays = {"a": a, "b": b, "initial_state": initial_state, "reset": reset, "out": out}
    kind = kind_of(**arrays)
    name = _recurrence_backend(kind, backend, b)
    _check_device(arrays)
    xp = array_namespace(b)
    if b.ndim < 1:
        raise InputError("b is a scalar: it needs a time axis")
    if isinstance(axis, bool) or not isinstance(axis, Integral):
        raise InputError(f"axis={axis!r}: must be a whole number")
    if not -b.ndim <= axis < b.ndim:
        raise InputError(f"axis={axis}: b has {b.ndim} axes, so it must lie between {-b.ndim} and {b.ndim - 1}")
    axis %= b.ndim
    shape = tuple(b.shape)
    length = shape[axis]
    state_shape = shape[:axis] + shape[axis + 1 :]
    for key in ("a", "b", "initial_state"):
        _check_dtype(key, arrays[key], (*REAL, *COMPLEX))
    if a.ndim > b.ndim or any(m not in (1, n) for m, n in zip(a.shape[::-1], shape[::-1], strict=False)):
        raise InputError(f"a has shape {tuple(a.shape)}: must broadcast to that of b, {shape}")
    numbers = [x for x in (a, b) if x is not None]
    complex_result = any(dtype_name(x) in COMPLEX for x in (a, b, initial_state) if x is not None)
    names = {dtype_name(x) for x in numbers}
    if complex_result:
        result_type = "complex128" if names & {"float64", "complex128"} else "complex64"
    else:
        result_type = names.pop() if len(names) == 1 else ("float64" if "float64" in names else "float32")
    if out is not None:
        if kind == "jax":
            raise InputError("out was given with JAX arrays, which are immutable: leave it out")
        if tuple(out.shape) != shape or dtype_name(out) != result_type:
            raise InputError(f"out is {dtype_name(out)} of shape {tuple(out.shape)}: must be {result_type} of {shape}")
        _refuse_read_only(kind, out)
    a = xp.reshape(a, (1,) * (b.ndim - a.ndim) + tuple(a.shape))
    a, b = xp.moveaxis(a, axis, 0), xp.moveaxis(b, axis, 0)
    if initial_state is not None:
        given = tuple(initial_state.shape)
        try:
            initial_state = xp.broadcast_to(initial_state, state_shape)
        except (ValueError, RuntimeError, TypeError) as error:
            raise InputError(
                f"initial_state has shape {given}: must be that of b without axis {axis}, {state_shape}"
            ) from error
    if reset is not None:
        _check_dtype("reset", reset, ("bool",))
        if tuple(reset.shape) == (length,):
            reset = xp.reshape(reset, (length,) + (1,) * len(state_shape))
        elif axis != 0 and tuple(reset.shape) == (shape[0], length):
            reset = xp.reshape(xp.permute_dims(reset, (1, 0)), (length, shape[0]) + (1,) * (len(state_shape) - 1))
        else:
            raise InputError(f"reset has shape {tuple(reset.shape)}: must be ({length},) or (b.shape[0], {length})")
    if name == "c":
        return _compiled_recurrence(
            kind, arrays, (a, b, initial_state, reset), axis, reverse, result_type, return_last_state
        )
    module = _module(name)
    if _tracing(kind):
        from ssmtheory.scan import torch_eager as module
    options: dict[str, Any] = {
        "initial_state": initial_state,
        "reset": reset,
        "reverse": bool(reverse),
        "dtype": result_type,
    }
    if kind == "numpy" and name in ("torch", "jax"):
        states, last = module.from_numpy_recurrence(a, b, **options)
    elif name == "numpy":
        direct = out is not None and _separate(out, arrays)
        states, last = module.linear_recurrence(a, b, **options, out=xp.moveaxis(out, axis, 0) if direct else None)
        if direct:
            return (out, last) if return_last_state else out
    else:
        states, last = module.linear_recurrence(a, b, **options)
    states = xp.moveaxis(states, 0, axis)
    if out is not None:
        _refuse_gradient(kind, states)
        out[...] = states
        states = out
    return (states, last) if return_last_state else states


def plain_scan(
    name: str,
    kind: str,
    arrays: dict[str, Any],
    heads: bool,
    delta_softplus: bool,
    reverse: bool,
    scale: int,
    reduce: Reduce | None,
    return_last_state: bool,
) -> Any:
    """The scan by a backend that knows the recurrence only: bias, softplus, skip and gate are array operations here."""
    u, delta, A, B, C, D, z, delta_bias, initial_state, reset, out = arrays.values()
    xp = array_namespace(u)
    channels = u.shape[2]
    real_inputs = [x for x in (u, delta, A, B, C, D, z, delta_bias, initial_state) if x is not None]
    complex_state = any(dtype_name(x) in COMPLEX for x in real_inputs)
    wide = any(dtype_name(x) in ("float64", "complex128") for x in real_inputs)
    real = xp.float64 if wide else xp.float32
    step = delta
    if delta_bias is not None or delta_softplus:
        step = xp.astype(delta, real, copy=False)
    if delta_bias is not None:
        step = step + delta_bias
    if delta_softplus:
        step = softplus(step)
    skip = D
    if heads:
        step = _per_channel(xp, step, channels)
        skip = None if D is None else _per_channel(xp, D, channels)
        A = _per_channel(xp, A, channels)[:, None]
    problem = ScanProblem(
        u=u,
        delta=step,
        A=A,
        B=B if B.ndim == 4 else B[:, :, None, :],
        C=C if C.ndim == 4 else C[:, :, None, :],
        initial_state=initial_state,
        reset=reset,
        reverse=reverse,
        scale=scale,
        compute_dtype="float64" if wide else "float32",
        complex_state=complex_state,
    )
    problem = _same_groups(xp, problem)
    # what follows reads u again, so that y may go straight to `out` only if that is not memory of an input
    direct = out is not None and kind == "numpy" and name in ("numpy", "reference") and _separate(out, arrays)
    direct = direct and dtype_name(out) == problem.compute_dtype
    y, last = _run(name, kind, problem, reduce, out if direct else None)
    if skip is not None:
        y = _plus(kind, y, u * skip)
    if z is not None:
        y = _times(kind, y, silu(xp.astype(z, real, copy=False)))
    if out is not None:
        if y is not out:
            out[...] = xp.astype(y, out.dtype, copy=False)
        y = out
    elif dtype_name(y) != dtype_name(u):
        y = xp.astype(y, u.dtype)
    return (y, last) if return_last_state else y


def _tracing(kind: str) -> bool:
    """Whether torch.compile is at work on tensors."""
    if kind != "torch":
        return False
    import torch

    return torch.compiler.is_compiling()


def _recurrence_backend(kind: str, backend: str, b: Array) -> str:
    """The backend of a linear recurrence, whose compiled code is a library of its own."""
    if _tracing(kind) and backend in ("auto", "c"):
        return kind
    from ssmtheory.scan import recurrence_backend

    if backend == "c" and kind != "jax":
        if kind == "torch" and b.device.type != "cpu":
            raise BackendError(f"backend='c' does not do tensors on {b.device} (CPU only). Use backend='auto'")
        recurrence_backend.library()
        return backend
    name, _ = _resolve(kind, backend, b, compiled=False)
    if name == "triton":
        raise BackendError("backend='triton' has no linear_recurrence: use 'auto'")
    here = kind == "numpy" or (kind == "torch" and b.device.type == "cpu")
    usable = here and recurrence_backend.status()[0]
    return "c" if backend == "auto" and usable else name


def _compiled_recurrence(
    kind: str, arrays: dict[str, Any], values: tuple[Any, ...], axis: int, reverse: bool, dtype: str, with_last: bool
) -> Any:
    """The linear recurrence by compiled code; `values`: a, b, initial state and reset with time first."""
    from ssmtheory.scan import recurrence_backend

    a, b, initial_state, reset = values
    out = arrays["out"]
    xp = array_namespace(b)
    # half precisions are computed in float32 and rounded once
    work = dtype if dtype in ("float64", "complex64", "complex128") else "float32"
    options = {"reset": reset, "reverse": bool(reverse), "dtype": work}
    if out is not None:
        for value in arrays.values():
            _refuse_gradient(kind, value)
    if kind == "torch":
        from ssmtheory.scan import recurrence_torch

        plain = out is not None and work == dtype and not (out.is_conj() or out.is_neg())
        if plain and _separate(out, arrays):
            view = xp.moveaxis(out, axis, 0)
            _, last = recurrence_backend.linear_forward(a, b, initial_state, reset, bool(reverse), work, view)
            _written(out)
            return (out, last) if with_last else out
        states, last = recurrence_torch.linear_recurrence(a, b, initial_state=initial_state, **options)
    else:
        direct = out is not None and work == dtype and out.flags.aligned and _separate(out, arrays)
        view = xp.moveaxis(out, axis, 0) if direct else None
        states, last = recurrence_backend.linear_forward(a, b, initial_state, reset, bool(reverse), work, view)
        if direct:
            return (out, last) if with_last else out
    if work != dtype:
        states, last = (xp.astype(x, b.dtype if dtype_name(b) == dtype else a.dtype) for x in (states, last))
    states = xp.moveaxis(states, 0, axis)
    if out is not None:
        out[...] = states
        states = out
    return (states, last) if with_last else states


def _module(name: str) -> Any:
    if name == "numpy":
        from ssmtheory.scan import numpy_backend as module
    elif name == "torch":
        from ssmtheory.scan import torch_backend as module  # type: ignore[no-redef]
    elif name == "jax":
        from ssmtheory.scan import jax_backend as module  # type: ignore[no-redef]
    else:
        from ssmtheory.scan import reference as module  # type: ignore[no-redef]
    return module


def _run(name: str, kind: str, problem: ScanProblem, reduce: Reduce | None, out: Array | None) -> tuple[Array, Array]:
    """Dispatch; NumPy arrays that name another library's backend are converted on the way in and out."""
    module = _module(name)
    if kind == "numpy" and name in ("torch", "jax"):
        return module.from_numpy(problem, reduce)
    if out is not None:
        return module.selective_scan(problem, reduce=reduce, out=out)
    return module.selective_scan(problem, reduce=reduce)


def _fused(name: str, kind: str, u: Array) -> Any:
    """The module of the backend "c" or "triton", which take bias, softplus, skip and gate themselves."""
    if name == "triton":
        from ssmtheory.scan import triton_backend as module
    elif kind == "torch":
        if u.device.type != "cpu":
            raise BackendError(f"backend='c' does not do tensors on {u.device} (CPU only). Use backend='auto'")
        from ssmtheory.scan import torch_ops as module  # type: ignore[no-redef]
    else:
        from ssmtheory.scan import c_backend as module  # type: ignore[no-redef]
    return module


def _check(arrays: dict[str, Any]) -> int:
    """Check shapes and dtypes; return the number of heads, or 0 where A is per channel."""
    u, delta, A, B, C = (arrays[name] for name in ("u", "delta", "A", "B", "C"))
    for name in ("u", "delta", "D", "z", "delta_bias", "out"):
        _check_dtype(name, arrays[name], REAL)
    for name in ("A", "B", "C", "initial_state"):
        _check_dtype(name, arrays[name], (*REAL, *COMPLEX))
    _check_dtype("reset", arrays["reset"], ("bool",))
    if u.ndim != 3:
        raise InputError(f"u has shape {tuple(u.shape)}: must be (batch, length, channel)")
    batch, length, channels = u.shape
    if A.ndim == 2:
        heads, per_step = 0, channels
        if A.shape[0] != channels:
            raise InputError(f"A has shape {tuple(A.shape)}: must be (channel, state) with channel = {channels}")
    elif A.ndim == 1:
        heads = per_step = A.shape[0]
        if heads < 1 or channels % heads:
            raise InputError(
                f"A has shape {tuple(A.shape)}, a scalar per head: the number of heads must divide the {channels} "
                "channels of u"
            )
    else:
        raise InputError(f"A has shape {tuple(A.shape)}: must be (channel, state) or (head,)")
    axis = "head" if heads else "channel"
    if tuple(delta.shape) != (batch, length, per_step):
        raise InputError(
            f"delta has shape {tuple(delta.shape)}: must be (batch, length, {axis}) = {(batch, length, per_step)}"
        )
    states = None if heads else A.shape[1]
    for name, value in (("B", B), ("C", C)):
        if value.ndim not in (3, 4) or tuple(value.shape[:2]) != (batch, length):
            raise InputError(
                f"{name} has shape {tuple(value.shape)}: must be (batch, length, state) or "
                f"(batch, length, group, state) with batch, length = {batch}, {length}"
            )
        if states is None:
            states = value.shape[-1]
        if value.shape[-1] != states:
            raise InputError(f"{name} has shape {tuple(value.shape)}: its last axis must be the {states} states")
        if value.ndim == 4:
            divisor, what = (heads, "heads") if heads else (channels, "channels")
            if value.shape[2] < 1 or divisor % value.shape[2]:
                raise InputError(
                    f"{name} has shape {tuple(value.shape)}: its {value.shape[2]} groups must divide the "
                    f"{divisor} {what}"
                )
    expected: dict[str, tuple[tuple[Any, ...], str]] = {
        "D": ((per_step,), f"({axis},)"),
        "z": ((batch, length, channels), "(batch, length, channel)"),
        "delta_bias": ((per_step,), f"({axis},)"),
        "initial_state": ((batch, channels, states), "(batch, channel, state)"),
        "reset": ((batch, length), "(batch, length)"),
        "out": ((batch, length, channels), "(batch, length, channel)"),
    }
    for name, (shape, words) in expected.items():
        value = arrays[name]
        if value is None or tuple(value.shape) == shape:
            continue
        if name == "D" and tuple(value.shape) == (channels,):
            continue
        raise InputError(f"{name} has shape {tuple(value.shape)}: must be {words} = {shape}")
    out = arrays["out"]
    if out is not None:
        if kind_of(u=u) == "jax":
            raise InputError("out was given with JAX arrays, which are immutable: leave it out")
        if dtype_name(out) != dtype_name(u):
            raise InputError(f"out is {dtype_name(out)}: must be {dtype_name(u)}, the dtype of u")
        _refuse_read_only(kind_of(u=u), out)
        for value in arrays.values():
            _refuse_gradient(kind_of(u=u), value)
    return heads


def _check_dtype(name: str, array: Any, allowed: tuple[str, ...]) -> None:
    if array is not None and dtype_name(array) not in allowed:
        words = " or ".join(filter(None, (", ".join(allowed[:-1]), allowed[-1])))
        raise InputError(f"{name} is {dtype_name(array)}: must be {words}")


def _check_device(arrays: dict[str, Any]) -> None:
    """Tensors of one call live on one device."""
    first: tuple[str, Any] | None = None
    for name, value in arrays.items():
        if value is None or not hasattr(value, "device"):
            continue
        if kind_of(x=value) != "torch":
            return
        if first is None:
            first = name, value.device
        elif value.device != first[1]:
            raise InputError(f"{first[0]} is on {first[1]} but {name} is on {value.device}: move them to one device")


def _refuse_read_only(kind: str, out: Any) -> None:
    if kind == "numpy" and not out.flags.writeable:
        raise InputError("out is read-only: give an array that can be written to, such as a copy, or leave it out")


def _written(out: Any) -> None:
    """Tell autograd, which may have saved it, that a tensor has been written to behind its back."""
    import torch

    if not out.is_inference():
        torch.autograd.graph.increment_version(out)


def _refuse_gradient(kind: str, value: Any) -> None:
    if kind == "torch" and value is not None and value.requires_grad:
        import torch

        if torch.is_grad_enabled():
            raise InputError("out was given where a gradient is needed: leave it out, or use torch.no_grad()")


def _per_channel(xp: Any, x: Array, channels: int) -> Array:
    """Repeat the last axis, heads, so that it becomes channels; a (channel,) array is left as it is."""
    heads = x.shape[-1]
    if heads == channels:
        return x
    wide = xp.broadcast_to(x[..., None], (*tuple(x.shape), channels // heads))
    return xp.reshape(wide, (*tuple(x.shape)[:-1], channels))


def _same_groups(xp: Any, problem: ScanProblem) -> ScanProblem:
    """Bring B and C to one number of groups where they differ."""
    import dataclasses

    first, second = problem.B.shape[2], problem.C.shape[2]
    if first == second:
        return problem
    groups = math.lcm(first, second)

    def spread(x: Array) -> Array:
        batch, length, count, states = x.shape
        wide = xp.broadcast_to(x[:, :, :, None, :], (batch, length, count, groups // count, states))
        return xp.reshape(wide, (batch, length, groups, states))

    return dataclasses.replace(problem, B=spread(problem.B), C=spread(problem.C))


def _separate(out: Any, arrays: dict[str, Any]) -> bool:
    """Whether out is memory of no input."""
    others = [x for name, x in arrays.items() if x is not None and name != "out"]
    if kind_of(out=out) == "torch":
        return all(out.untyped_storage().data_ptr() != x.untyped_storage().data_ptr() for x in others)
    import numpy as np

    return not any(np.may_share_memory(out, x) for x in others)


def _plus(kind: str, y: Array, term: Array) -> Array:
    if kind == "numpy":
        y += term
        return y
    return y + term


def _times(kind: str, y: Array, factor: Array) -> Array:
    if kind == "numpy":
        y *= factor
        return y
    return y * factor
