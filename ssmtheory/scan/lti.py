"""Diagonal time-invariant systems: discretisation, convolution kernels, convolution by FFT, scan in the time domain.

========= =================================== ==============================
name      paper symbol                        shape
========= =================================== ==============================
poles     Lambda (continuous) or A-bar        (channel, state) complex
dt        Delta, one step to a channel        (channel,) or ()
B, C      B, C (S4D: one input, one output)   (channel, state) complex
D         D, skip                             (channel,) real
u, y      input, output                       (batch, length, channel) real
K         convolution kernel, K_l             (channel, length) real
state h   h_t                                 (batch, channel, state) complex
========= =================================== ==============================

In the convention of S4's code, the state is updated before it is read: h_t = w h_{t-1} + B-bar u_t and
y_t = Re(C . h_t) + D u_t, so that K_l = Re(sum_n C_n B-bar_n w_n^l). The real part is doubled where each complex state
stands for itself and its conjugate (``conjugate_pairs=True``, as S4D, DSS and LRU store them).

Parameters become complex128 and powers of w are exact to its rounding whatever the precision of u: a phase that is
multiplied out in float32 has no digit left after a million steps. What is multiplied with u has the precision of u.
Everything takes NumPy arrays, tensors and JAX arrays, and carries their gradients; on NumPy arrays and tensors in main
memory it runs compiled code where that was installed.

References: Gu et al., "On the Parameterization and Initialization of Diagonal State Space Models", arXiv 2206.11893,
equations 6 and 7 and listing 1; Gu et al., "Efficiently Modeling Long Sequences", arXiv 2111.00396, algorithm 1;
Gupta et al., arXiv 2203.14343 (DSS); Orvieto et al., arXiv 2303.06349 (LRU, poles of discrete time); Smith et
al., arXiv 2208.04933 (S5).
"""

from __future__ import annotations

import contextlib
import functools
import math
import numbers
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace, device

from ssmtheory.errors import InputError, nearest
from ssmtheory.scan.api import _resolve, linear_recurrence
from ssmtheory.scan.arrays import COMPLEX, LONG_KERNEL, REAL, dtype_name, kind_of
from ssmtheory.typing import Array, Namespace

__all__ = [
    "CONVOLUTION_METHODS", "DISCRETIZATIONS", "LTIPlan", "cauchy_kernel", "discretize_diagonal", "fft_convolve",
    "lti_convolve", "lti_scan", "plan_lti", "power_sums", "vandermonde_kernel",
]  # fmt: skip

#: Names of the rules from continuous to discrete time.
DISCRETIZATIONS = ("zoh", "bilinear", "dirac")
#: Names of the ways to apply a diagonal system to a sequence.
CONVOLUTION_METHODS = ("auto", "scan", "kernel+fft")
_WIDE = ("float64", "complex128")
#: Steps of a chunk of the scan that is made of array operations.
_CHUNK = 64
#: Powers this far below the largest of their state are zero: no result resolves them, and denormal numbers cost a
#: hundred times a normal one.
_NEGLIGIBLE = 1e-30
#: Size of one temporary of the Cauchy kernel.
_BLOCK_BYTES = 1 << 25


def _precise(kind: str) -> Any:
    """JAX demotes float64 unless told otherwise; its global flag is never set."""
    if kind != "jax":
        return contextlib.nullcontext()
    import jax

    return jax.enable_x64(True)


def _complex128(xp: Namespace, x: Array) -> Array:
    return xp.astype(x, xp.complex128, copy=False)


def _number(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise InputError(f"{name}={value!r}: must be a whole number, at least {least}")
    return int(value)


def _numeric(**arrays: Array | None) -> str:
    """The library of the arrays; refuses what is no number."""
    kind = kind_of(**arrays)
    for name, x in arrays.items():
        if x is not None and dtype_name(x) not in (*REAL, *COMPLEX):
            raise InputError(f"{name} is {dtype_name(x)}: must be of a real or complex floating-point dtype")
    return kind


def _real_type(dtype: str | None, *arrays: Array | None) -> str:
    """ "float64" where any array is that wide, or what was asked for."""
    if dtype is None:
        wide = any(x is not None and dtype_name(x) in _WIDE for x in arrays)
        return "float64" if wide else "float32"
    if dtype not in ("float32", "float64"):
        raise InputError(f"dtype={dtype!r}: must be 'float32', 'float64', or None for the widest of the inputs")
    return dtype


def discretize_diagonal(A: Array, dt: Array, method: str = "zoh") -> tuple[Array, Array]:
    """Poles in discrete time, and the factor that turns B into B-bar.

    ========= ========================== ========================== ============================
    method    w                          factor                     in
    ========= ========================== ========================== ============================
    zoh       exp(dt A)                  (exp(dt A) - 1) / A        S4D, DSS (exp), S5
    bilinear  (1 + dt A/2)/(1 - dt A/2)  dt / (1 - dt A/2)          S4, S4D, S5
    dirac     exp(dt A)                  1                          impulses held at zero: S4D, S5
    ========= ========================== ========================== ============================

    Args:
        A: (channel, state) poles in 1/s, or (state,).
        dt: (channel,) or a scalar, step in s.
        method: one of the table.

    Returns:
        w and factor, complex128, of the shape of A with dt over its states.

    Raises:
        InputError: an unknown method, or shapes that do not fit.

    References:
        arXiv 2206.11893, eq. 6.

    >>> import numpy as np
    >>> w, factor = discretize_diagonal(np.array([[-1.0, 0.0]]), np.array([0.5]))
    >>> np.round(w.real, 3).tolist(), np.round(factor.real, 3).tolist()
    ([[0.607, 1.0]], [[0.393, 0.5]])
    """
    kind = _numeric(A=A, dt=dt)
    _known(method)
    if A.ndim < 1 or (dt.ndim and (dt.ndim != 1 or (A.ndim > 1 and dt.shape[0] not in (1, A.shape[-2])))):
        raise InputError(
            f"A has shape {tuple(A.shape)} and dt {tuple(dt.shape)}: must be (channel, state) and (channel,)"
        )
    with _precise(kind):
        xp = array_namespace(A, dt)
        A = _complex128(xp, A)
        step = xp.astype(dt, xp.float64, copy=False)
        step = step[:, None] if step.ndim else step
        return _lifted(kind, _discretized, xp, method)(A, step)


def _known(discretization: str) -> None:
    if discretization not in DISCRETIZATIONS:
        allowed = ", ".join(repr(name) for name in DISCRETIZATIONS)
        near = nearest(discretization, DISCRETIZATIONS)
        raise InputError(f"discretization={discretization!r}: must be one of {allowed}.{near}")


def _discretized(xp: Namespace, method: str, A: Array, step: Array) -> tuple[Array, Array]:
    x = A * step
    if method == "bilinear":
        below = 1 / (1 - x / 2)
        return (1 + x / 2) * below, step * below
    w = xp.exp(x)
    return w, xp.ones_like(w) if method == "dirac" else step * exponential_ratio(x)


def exponential_ratio(x: Array) -> Array:
    """(exp(x) - 1) / x for complex128 x, 1 at 0: the hold of a constant input.

    exp(x) - 1 from real functions keeps the digits of small x in every library.

    >>> import numpy as np
    >>> exponential_ratio(np.array([0j, -1e-12 + 0j])).real.tolist()
    [1.0, 0.9999999999995]
    """
    xp = array_namespace(x)
    re, im = xp.real(x), xp.imag(x)
    half = xp.sin(im / 2)
    small = _complex(xp, xp.expm1(re) * xp.cos(im) - 2 * half * half, xp.exp(re) * xp.sin(im))
    zero = x == 0
    # 1 + x/2 rather than 1, for the derivative at 0
    return xp.where(zero, 1 + x / 2, small / xp.where(zero, xp.ones_like(x), x))


def _lifted(kind: str, function: Any, *options: Any) -> Any:
    """The function with its first arguments given; JAX compiles it whole, or it would compile each operation."""
    return _compiled_by_jax(function, *options) if kind == "jax" else functools.partial(function, *options)


@functools.lru_cache(maxsize=256)
def _compiled_by_jax(function: Any, *options: Any) -> Any:
    import jax

    return jax.jit(functools.partial(function, *options))


def _complex(xp: Namespace, re: Array, im: Array) -> Array:
    return _complex128(xp, re) + 1j * _complex128(xp, im)


def _poles(xp: Namespace, poles: Array, dt: Array | None, discretization: str) -> tuple[Array, Array | None]:
    """w, and the factor of B (None for 1)."""
    _known(discretization)
    if dt is None:
        return _complex128(xp, poles), None
    return discretize_diagonal(poles, dt, discretization)


def power_sums(w: Array, c: Array, length: int, *, real: bool = False, precision: str = "float64") -> Array:
    """sum_n c_n w_n^l for l < length, as a matrix product of two short tables of powers.

    l = q S + r with S about sqrt(length): the tables hold w^r and c w^(q S). Powers are taken by repeated squaring in
    complex128, so that rounding grows with log2(length) only; those below 1e-30 of their state's largest are set
    to zero.

    Args:
        w: (..., state) complex.
        c: (..., state) complex, broadcast against w but for its last axis, which is equal.
        length: number of powers.
        real: the real part only, at half the cost.
        precision: of the product and the result, "float32" or "float64".

    Returns:
        (..., length), complex unless `real`.

    >>> import numpy as np
    >>> power_sums(np.array([0.5]), np.array([4.0]), 4, real=True).tolist()
    [4.0, 2.0, 1.0, 0.5]
    """
    kind = _numeric(w=w, c=c)
    length = _number("length", length, 1)
    with _precise(kind):
        xp = array_namespace(w, c)
        return _lifted(kind, _power_sums, xp, length, real, precision)(_complex128(xp, w), _complex128(xp, c))


def _power_sums(xp: Namespace, length: int, real: bool, precision: str, w: Array, c: Array) -> Array:
    side = max(1, math.isqrt(length))
    count = -(-length // side)
    near = _flushed(xp, _powers(xp, w, side))
    far = _flushed(xp, _powers(xp, _power(xp, w, side), count) * c[..., None])
    far = xp.matrix_transpose(far)
    if real:
        dtype = getattr(xp, precision)
        left = xp.concat([xp.astype(xp.real(far), dtype), xp.astype(xp.imag(far), dtype)], axis=-1)
        right = xp.concat([xp.astype(xp.real(near), dtype), xp.astype(-xp.imag(near), dtype)], axis=-2)
    else:
        dtype = xp.complex64 if precision == "float32" else xp.complex128
        left, right = xp.astype(far, dtype, copy=False), xp.astype(near, dtype, copy=False)
    table = xp.matmul(left, right)
    return xp.reshape(table, (*table.shape[:-2], count * side))[..., :length]


def _power(xp: Namespace, x: Array, k: int) -> Array:
    """x^k by squaring."""
    result, base = xp.ones_like(x), x
    while k:
        if k & 1:
            result = result * base
        k >>= 1
        if k:
            base = base * base
    return result


def _powers(xp: Namespace, x: Array, count: int) -> Array:
    """(..., count) table of x^0 ... x^(count - 1), by doubling."""
    table = xp.ones_like(x)[..., None]
    power = x
    while table.shape[-1] < count:
        table = xp.concat([table, table * power[..., None]], axis=-1)
        power = power * power
    return table[..., :count]


def _flushed(xp: Namespace, x: Array) -> Array:
    """Powers (..., state, power) without those that their own state's largest hides."""
    size = xp.abs(x)
    return xp.where(size < _NEGLIGIBLE * xp.max(size, axis=-1, keepdims=True), xp.zeros_like(x), x)


def _backend(kind: str, backend: str, array: Array, what: str) -> str:
    """The backend by name: "c" where the compiled recurrences are to be used, else that of the arrays."""
    from ssmtheory.scan import recurrence_backend

    here = kind == "numpy" or (kind == "torch" and array.device.type == "cpu")
    if backend == "auto":
        return "c" if here and recurrence_backend.status()[0] else kind
    if backend == "c" and here:
        recurrence_backend.library()
        return "c"
    if backend != kind:
        # a name that is unknown, or of another library, is refused in the words of every scan
        _resolve(kind, backend, array, compiled=False)
        raise InputError(f"backend={backend!r}: {what} of {kind} arrays takes 'auto', {kind!r} or 'c'")
    return backend


def vandermonde_kernel(
    poles: Array,
    coefficients: Array,
    length: int,
    *,
    dt: Array | None = None,
    discretization: str = "zoh",
    conjugate_pairs: bool = True,
    dtype: str | None = None,
    backend: str = "auto",
) -> Array:
    """Convolution kernel of a diagonal system: K_l = 2 Re(sum_n c_n w_n^l).

    Neither a (channel, state, length) array nor `length` dependent multiplications: chunks of exact powers, and
    products with short tables.

    Args:
        poles: (channel, state), or (state,) for all channels alike; A in 1/s with `dt`, w without.
        coefficients: (..., channel, state): C_n B_n; with `dt` the factor of B is applied here. Several kernels of the
            same poles (heads, directions) are further axes in front.
        length: number of values L.
        dt: (channel,) or a scalar, step in s; None: the poles are those of discrete time (LRU).
        discretization: "zoh", "bilinear" or "dirac"; see :func:`discretize_diagonal`.
        conjugate_pairs: 2 Re, for states that stand for themselves and their conjugates; False: Re.
        dtype: "float32" or "float64", of the result; None for the widest of the inputs. A float32 kernel of more than
            32,768 values is computed in float64 and rounded once; shorter ones, in half the time, by float32 products
            whose errors reach 3e-7 of the largest value where no state decays.
        backend: "auto", "c" or that of the arrays.

    Returns:
        (..., channel, length), real.

    Raises:
        InputError: shapes, dtypes or names that do not fit.
        BackendError: "c" where nothing was compiled.

    References:
        arXiv 2206.11893, eq. 7 (the Vandermonde product).

    >>> import numpy as np
    >>> vandermonde_kernel(np.array([[0.5j]]), np.array([[1.0]]), 4).tolist()
    [[2.0, 0.0, -0.5, 0.0]]
    """
    kind = _numeric(poles=poles, coefficients=coefficients, dt=dt)
    length = _number("length", length, 1)
    real = _real_type(dtype, poles, coefficients, dt)
    name = _backend(kind, backend, coefficients, "the kernel")
    if poles.ndim not in (1, 2) or coefficients.ndim < poles.ndim:
        raise InputError(
            f"poles has shape {tuple(poles.shape)} and coefficients {tuple(coefficients.shape)}: must be "
            "(channel, state) and (..., channel, state)"
        )
    shape = tuple(coefficients.shape)
    if poles.shape[-1] != shape[-1] or (poles.ndim == 2 and poles.shape[0] != shape[-2]):
        raise InputError(f"coefficients has shape {shape}: must end as poles does, {tuple(poles.shape)}")
    scale = 2 if conjugate_pairs else 1
    with _precise(kind):
        xp = array_namespace(poles, coefficients)
        if dt is not None and dt.ndim and poles.ndim == 1 and len(shape) > 1:
            poles = xp.broadcast_to(poles, (dt.shape[0], shape[-1]))
        w, factor = _poles(xp, poles, dt, discretization)
        c = _complex128(xp, coefficients)
        if factor is not None:
            c = c * factor
        if name != "c":
            precision = "float64" if length > LONG_KERNEL else real
            return xp.astype(
                scale * power_sums(w, c, length, real=True, precision=precision), getattr(xp, real), copy=False
            )
        channels = shape[-2] if len(shape) > 1 else 1
        w = xp.broadcast_to(w, (channels, shape[-1]))
        c = xp.reshape(c, (math.prod(shape[:-2]), channels, shape[-1]))
        if kind == "torch":
            from ssmtheory.scan import recurrence_torch

            K = recurrence_torch.kernel(w, c, length, scale, real)
        else:
            from ssmtheory.scan import recurrence_backend

            K, _ = recurrence_backend.kernel_forward(w, c, length, scale, real)
        return xp.reshape(K, (*shape[:-1], length))


def fft_convolve(u: Array, K: Array, D: Array | None = None, *, reverse: bool = False) -> Array:
    """Causal convolution y_t = sum_{s <= t} K_{t-s} u_s + D u_t by FFT.

    Accurate to rounding times the largest output: a decaying tail of y has no relative accuracy, and one NaN is
    everywhere.

    Args:
        u: (batch, length, channel), real.
        K: (channel, any length) real; what lies beyond the length of u has no effect.
        D: (channel,), or None.
        reverse: from the last step to the first: y_t = sum_{s >= t} K_{s-t} u_s + D u_t.

    Returns:
        (batch, length, channel), of the dtype of u.

    Raises:
        InputError: shapes or dtypes that do not fit.

    >>> import numpy as np
    >>> y = fft_convolve(np.ones((1, 3, 1)), np.array([[1.0, 0.5]]))
    >>> np.round(y[0, :, 0], 12).tolist()
    [1.0, 1.5, 1.5]
    """
    kind = _numeric(u=u, K=K, D=D)
    _real_sequence(u, D)
    if K.ndim != 2 or K.shape[0] != u.shape[2] or dtype_name(K) in COMPLEX:
        raise InputError(
            f"K is {dtype_name(K)} of shape {tuple(K.shape)}: must be real, (channel, length) with channel = "
            f"{u.shape[2]}"
        )
    length = u.shape[1]
    if not math.prod(u.shape):
        return u
    with _precise(kind):
        xp = array_namespace(u, K)
        work = xp.float64 if "float64" in (dtype_name(u), dtype_name(K)) else xp.float32
        K = xp.astype(K[:, :length], work, copy=False)
        size = _fast_length(length + K.shape[1] - 1)
        if kind == "torch":
            from ssmtheory.scan import fft_torch

            y = fft_torch.convolve(u.to(work), K, size, reverse)
            return xp.astype(y if D is None else y + u * D, u.dtype, copy=False)
        x = xp.astype(xp.matrix_transpose(u), work, copy=False)
        transform = xp.fft.rfft(K, n=size)
        if reverse:
            # correlation: the conjugate transform, whose negative lags lie at the end and do not reach the first steps
            transform = xp.conj(transform)
        y = xp.fft.irfft(xp.fft.rfft(x, n=size) * transform, n=size)[..., :length]
        y = xp.matrix_transpose(y)
        if D is not None:
            y = y + u * D
        return xp.astype(y, u.dtype, copy=False)


def _fast_length(n: int) -> int:
    """The least even number from n on with no prime factor above 5."""
    best = 1 << (n - 1).bit_length()
    three = 1
    while three < best:
        five = three
        while five < best:
            rest = -(-n // five)
            best = min(best, five * max(2, 1 << (rest - 1).bit_length()))
            five *= 5
        three *= 3
    return max(2, best)


def _real_sequence(u: Array, D: Array | None) -> None:
    if u.ndim != 3:
        raise InputError(f"u has shape {tuple(u.shape)}: must be (batch, length, channel)")
    for name, x in (("u", u), ("D", D)):
        if x is not None and dtype_name(x) in COMPLEX:
            raise InputError(f"{name} is {dtype_name(x)}: must be real")
    if D is not None and tuple(D.shape) != (u.shape[2],):
        raise InputError(f"D has shape {tuple(D.shape)}: must be (channel,) = {(u.shape[2],)}")


def _fit(u: Array, poles: Array, B: Array | None, C: Array, initial_state: Array | None = None) -> None:
    """The shapes of a system with one input and output a channel, and of what it is applied to."""
    batch, _, channels = u.shape
    if poles.ndim != 2 or poles.shape[0] != channels:
        raise InputError(
            f"poles has shape {tuple(poles.shape)}: must be (channel, state) with channel = {channels}, as u has"
        )
    states = poles.shape[1]
    for key, x, shape in (
        ("B", B, (channels, states)), ("C", C, (channels, states)),
        ("initial_state", initial_state, (batch, channels, states)),
    ):  # fmt: skip
        if x is not None and tuple(x.shape) != shape:
            raise InputError(f"{key} has shape {tuple(x.shape)}: must be {shape}")


def lti_scan(
    u: Array,
    poles: Array,
    B: Array | None,
    C: Array,
    D: Array | None = None,
    *,
    dt: Array | None = None,
    discretization: str = "zoh",
    initial_state: Array | None = None,
    return_last_state: bool = False,
    reverse: bool = False,
    conjugate_pairs: bool = True,
    backend: str = "auto",
) -> Any:
    """Apply a diagonal system to a sequence in the time domain: no kernel, no FFT, any initial state.

    h_t = w h_{t-1} + B-bar u_t and y_t = 2 Re(C . h_t) + D u_t, in chunks of steps: inside a chunk products with tables
    of exact powers in the precision of u, between chunks the state in complex128. A NaN of u reaches no step before it.
    In the backward pass one of the gradient may reach later steps of its chunk, up to 63.

    Args:
        u: (batch, length, channel), real.
        poles: (channel, state); A in 1/s with `dt`, w without.
        B: (channel, state), or None for ones.
        C: (channel, state).
        D: (channel,) real, or None.
        dt: (channel,) or a scalar, step in s; None: poles and B are those of discrete time.
        discretization: "zoh", "bilinear" or "dirac"; see :func:`discretize_diagonal`.
        initial_state: (batch, channel, state), before the first step; zero when None.
        return_last_state: also return the state after the last step.
        reverse: run from the last step to the first; "first" and "last" then swap.
        conjugate_pairs: 2 Re; False: Re.
        backend: "auto", "c" or that of the arrays.

    Returns:
        y (batch, length, channel) of the dtype of u. With ``return_last_state`` a pair, the last state (batch, channel,
        state) in complex64, or complex128 where u is float64.

    Raises:
        InputError: shapes, dtypes or names that do not fit.
        BackendError: "c" where nothing was compiled, or a second derivative of it.

    References:
        arXiv 2206.11893, eq. 6.

    >>> import numpy as np
    >>> one = np.ones((1, 1))
    >>> lti_scan(np.ones((1, 3, 1)), 0.5 * one, None, one, conjugate_pairs=False)[0, :, 0].tolist()
    [1.0, 1.5, 1.75]
    """
    arrays = {"u": u, "poles": poles, "B": B, "C": C, "D": D, "dt": dt, "initial_state": initial_state}
    kind = _numeric(**arrays)
    _real_sequence(u, D)
    name = _backend(kind, backend, u, "lti_scan")
    _fit(u, poles, B, C, initial_state)
    scale = 2 if conjugate_pairs else 1
    with _precise(kind):
        xp = array_namespace(u, poles)
        w, factor = _poles(xp, poles, dt, discretization)
        B = None if B is None else _complex128(xp, B)
        if factor is not None:
            B = factor if B is None else B * factor
        C = _complex128(xp, C)
        wide = dtype_name(u) == "float64"
        work = xp.float64 if wide else xp.float32
        x = xp.astype(u, work, copy=False)
        h0 = None
        if initial_state is not None:
            h0 = xp.astype(initial_state, xp.complex128 if wide else xp.complex64, copy=False)
        if name != "c":
            y, last = _lifted(kind, _chunked_scan, xp, scale, reverse)(x, w, B, C, D, h0)
        elif kind == "torch":
            from ssmtheory.scan import recurrence_torch

            y, last = recurrence_torch.lti_scan(x, w, B, C, D, h0, scale, reverse)
        else:
            from ssmtheory.scan import recurrence_backend

            y, last, _ = recurrence_backend.lti_forward(x, w, B, C, D, h0, scale, reverse)
        y = xp.astype(y, u.dtype, copy=False)
        return (y, last) if return_last_state else y


def _chunked_scan(
    xp: Namespace,
    scale: int,
    reverse: bool,
    u: Array,
    w: Array,
    B: Array | None,
    C: Array,
    D: Array | None,
    h0: Array | None,
) -> tuple[Array, Array]:
    """The scan from array operations: what recurrence.c does, a chunk of time being one axis."""
    batch, length, channels = u.shape
    states = w.shape[1]
    real = u.dtype
    complex_ = xp.complex128 if dtype_name(u) == "float64" else xp.complex64
    if reverse:
        u = xp.flip(u, axis=1)
    T = min(_CHUNK, max(1, length))
    count, rest = -(-length // T), -length % T
    # zeros after the last step would move the last state; before the first one they would move the initial state
    powers = _flushed(xp, _powers(xp, w, T + 1))
    inputs = xp.ones_like(w) if B is None else B
    start = xp.zeros((batch, channels, states), dtype=xp.complex128, device=device(u))
    if h0 is not None:
        start = start + h0
    if not length:
        return u, xp.astype(start, complex_)
    # a product with zero would carry what is not finite back to the steps of its chunk before it
    finite = xp.isfinite(u)
    u = xp.where(finite, u, xp.zeros_like(u))
    spoilt = xp.cumulative_sum(xp.astype(~finite, xp.int32), axis=1) > 0
    padded = xp.concat([u, xp.zeros((batch, rest, channels), dtype=real, device=device(u))], axis=1) if rest else u
    # (channel, batch * chunk, step)
    x = xp.reshape(padded, (batch, count, T, channels))
    x = xp.reshape(xp.permute_dims(x, (3, 0, 1, 2)), (channels, batch * count, T))
    gather = xp.flip(powers[..., :T], axis=-1) * inputs[..., None]
    gather = xp.matrix_transpose(gather)
    U = xp.matmul(x, xp.astype(xp.real(gather), real)), xp.matmul(x, xp.astype(xp.imag(gather), real))
    U = _complex(xp, *U)
    U = xp.permute_dims(xp.reshape(U, (channels, batch, count, states)), (1, 2, 0, 3))
    after = linear_recurrence(powers[..., T], U, axis=1, initial_state=start)
    before = xp.concat([start[:, None], after[:, :-1]], axis=1)
    spread = powers[..., 1:] * C[..., None]
    H = xp.reshape(xp.permute_dims(before, (2, 0, 1, 3)), (channels, batch * count, states))
    left = xp.concat([xp.astype(xp.real(H), real), xp.astype(xp.imag(H), real)], axis=-1)
    right = xp.concat([xp.astype(xp.real(spread), real), xp.astype(-xp.imag(spread), real)], axis=-2)
    lags = xp.sum(xp.real((inputs * C)[..., None] * powers[..., :T]), axis=1)
    steps = xp.arange(T, device=device(u))
    difference = steps[None, :] - steps[:, None]
    toeplitz = xp.take(lags, xp.reshape(xp.where(difference < 0, 0 * difference, difference), (-1,)), axis=1)
    toeplitz = xp.where(difference < 0, xp.zeros_like(lags[:, :1])[..., None], xp.reshape(toeplitz, (channels, T, T)))
    y = scale * (xp.matmul(left, right) + xp.matmul(x, xp.astype(toeplitz, real)))
    y = xp.permute_dims(xp.reshape(y, (channels, batch, count, T)), (1, 2, 3, 0))
    y = xp.reshape(y, (batch, count * T, channels))[:, :length]
    if D is not None:
        y = y + u * xp.astype(D, real)
    if rest:
        # the last chunk once more, from the state before it and of its own length
        m = T - rest
        tail = xp.permute_dims(u[:, length - m :], (2, 0, 1))
        part = gather[:, T - m :]
        U = xp.matmul(tail, xp.astype(xp.real(part), real)), xp.matmul(tail, xp.astype(xp.imag(part), real))
        last = powers[..., m] * before[:, -1] + xp.permute_dims(_complex(xp, *U), (1, 0, 2))
    else:
        last = after[:, -1]
    y = xp.where(spoilt, math.nan + xp.zeros_like(y), y)
    last = xp.where(spoilt[:, -1, :, None], math.nan + xp.zeros_like(last), last)
    return (xp.flip(y, axis=1) if reverse else y), xp.astype(last, complex_)


# ---------------------------------------------------------------------- diagonal plus low rank


def cauchy_kernel(
    poles: Array,
    P: Array,
    Q: Array,
    B: Array,
    C: Array,
    dt: Array,
    length: int,
    *,
    conjugate_pairs: bool = True,
    truncated: bool = False,
    dtype: str | None = None,
) -> Array:
    """Convolution kernel of S4: A = diag(poles) - P Q^*, discretised by the bilinear rule.

    The kernel of length L is the inverse FFT of its generating function at the L-th roots of unity, where it is
    C (I - A-bar^L)(I - A-bar z)^{-1} B-bar; the resolvent comes from Cauchy sums through Woodbury's identity. All
    in complex128, in blocks of frequencies, which are computed again in the backward pass.

    Args:
        poles: (channel, state) complex, in 1/s.
        P, Q: (channel, state), or (channel, state, rank).
        B, C: (channel, state).
        dt: (channel,) or a scalar, step in s.
        length: number of values L.
        conjugate_pairs: each state stands for itself and its conjugate, also in P, Q, B and C.
        truncated: C is already C (I - A-bar^L) for this length, as S4's layers store it.
        dtype: "float32" or "float64", of the result; None for the widest of the inputs.

    Returns:
        (channel, length), real: K_k = Re(C A-bar^k B-bar), over all states.

    Raises:
        InputError: shapes, dtypes or a length that do not fit.

    References:
        arXiv 2111.00396, algorithm 1 and appendix C.3; at z = -1, where its formula divides by zero, both
        sides are multiplied by 1 + z.

    >>> import numpy as np
    >>> one, zero = np.ones((1, 1)), np.zeros((1, 1))
    >>> K = cauchy_kernel(-one, zero, zero, one, one, np.array(2 / 3), 3, conjugate_pairs=False)
    >>> np.round(K, 12).tolist()                   # A-bar = 1/2, B-bar = 1/2
    [[0.5, 0.25, 0.125]]
    """
    kind = _numeric(poles=poles, P=P, Q=Q, B=B, C=C, dt=dt)
    length = _number("length", length, 1)
    real = _real_type(dtype, poles, P, Q, B, C, dt)
    shape = tuple(poles.shape)
    if poles.ndim != 2:
        raise InputError(f"poles has shape {shape}: must be (channel, state)")
    for name, x in (("P", P), ("Q", Q), ("B", B), ("C", C)):
        if tuple(x.shape[:2]) != shape or (x.ndim != 2 and not (x.ndim == 3 and name in "PQ")):
            raise InputError(f"{name} has shape {tuple(x.shape)}: must begin with that of poles, {shape}")
    if tuple(P.shape) != tuple(Q.shape):
        raise InputError(f"P has shape {tuple(P.shape)} and Q {tuple(Q.shape)}: must be equal")
    if dt.ndim and tuple(dt.shape) != shape[:1]:
        raise InputError(f"dt has shape {tuple(dt.shape)}: must be (channel,) = {shape[:1]} or ()")
    with _precise(kind):
        xp = array_namespace(poles, B)
        full = [_complex128(xp, x) for x in (poles, P, Q, B, C)]
        if conjugate_pairs:
            full = [xp.concat([x, xp.conj(x)], axis=1) for x in full]
        K = _lifted(kind, _cauchy, xp, kind, length, conjugate_pairs, truncated)(*full, dt)
        return xp.astype(K, getattr(xp, real), copy=False)


def _cauchy(
    xp: Namespace, kind: str, length: int, conjugate_pairs: bool, truncated: bool, poles: Array, P: Array, Q: Array,
    B: Array, C: Array, dt: Array,
) -> Array:  # fmt: skip
    """:func:`cauchy_kernel` on complex128 arrays, each conjugate with its own state."""
    shape = tuple(poles.shape)
    if P.ndim == 2:
        P, Q = P[..., None], Q[..., None]
    rate = 2 / (xp.astype(dt, xp.float64, copy=False) + xp.zeros(shape[:1], dtype=xp.float64, device=device(poles)))
    rate = _complex128(xp, rate)[:, None]
    if not truncated:
        C = C - _row_times_power(xp, rate, poles, P, Q, C, length)
    left = xp.concat([C[..., None], xp.conj(Q)], axis=2)
    right = xp.concat([B[..., None], P], axis=2)
    # a complex kernel has no symmetry that would spare half of the frequencies
    count = length // 2 + 1 if conjugate_pairs else length
    angle = xp.arange(count, dtype=xp.float64, device=device(poles)) * (-2 * math.pi / length)
    z = _complex(xp, xp.cos(angle), xp.sin(angle))
    states, columns = poles.shape[1], left.shape[2]
    block = max(1, _BLOCK_BYTES // max(1, 16 * shape[0] * states * (1 + columns)))
    pieces = [
        _recomputed(kind, _generating, xp, z[i : i + block], rate, poles, left, right) for i in range(0, count, block)
    ]
    values = xp.concat(pieces, axis=1) if len(pieces) > 1 else pieces[0]
    return xp.fft.irfft(values, n=length) if conjugate_pairs else xp.real(xp.fft.ifft(values))


def _generating(xp: Namespace, z: Array, rate: Array, poles: Array, left: Array, right: Array) -> Array:
    """2 c (rate (1 - z) - (1 + z) A)^{-1} b, (channel, frequency), with A = poles - p q^*, c and q^* in `left`."""
    inverse = 1 / (rate[:, :, None] * (1 - z)[:, None] - poles[:, None, :] * (1 + z)[:, None])
    # (channel, frequency, left, right)
    columns = [xp.matmul(inverse, left * right[:, :, j : j + 1]) for j in range(right.shape[2])]
    sums = xp.stack(columns, axis=-1)
    plus = (1 + z)[:, None]
    if right.shape[2] == 2:
        # rank 1
        correction = plus[:, 0] * sums[..., 0, 1] * sums[..., 1, 0] / (1 + plus[:, 0] * sums[..., 1, 1])
        return 2 * (sums[..., 0, 0] - correction)
    rank = right.shape[2] - 1
    eye = _complex128(xp, xp.eye(rank, device=device(z)))
    middle = eye + plus[..., None] * sums[..., 1:, 1:]
    solved = xp.linalg.solve(middle, sums[..., 1:, 0][..., None])[..., 0]
    return 2 * (sums[..., 0, 0] - plus[:, 0] * xp.sum(sums[..., 0, 1:] * solved, axis=-1))


def _row_times_power(xp: Namespace, rate: Array, poles: Array, P: Array, Q: Array, C: Array, length: int) -> Array:
    """C A-bar^L, with A-bar the bilinear transform of diag(poles) - P Q^*; by squaring of dense matrices."""
    eye = _complex128(xp, xp.eye(poles.shape[1], device=device(poles)))
    A = poles[..., None] * eye - xp.matmul(P, xp.conj(xp.matrix_transpose(Q)))
    A = A / rate[..., None]
    A = xp.linalg.solve(eye - A, eye + A)
    row = C[:, None, :]
    while length:
        if length & 1:
            row = xp.matmul(row, A)
        length >>= 1
        if length:
            A = xp.matmul(A, A)
    return row[:, 0]


def _recomputed(kind: str, function: Any, *arguments: Any) -> Array:
    """Call the function; its intermediates are not kept for a backward pass but computed again."""
    if kind == "torch":
        from torch.utils.checkpoint import checkpoint

        return checkpoint(function, *arguments, use_reentrant=False)
    if kind == "jax":
        import jax

        return jax.checkpoint(function, static_argnums=(0,))(*arguments)
    return function(*arguments)


# ---------------------------------------------------------------------- which way


@dataclass(frozen=True)
class LTIPlan:
    """A way to apply a diagonal system, and why.

    Attributes:
        method: "scan" or "kernel+fft".
        seconds: predicted time of each way, on one core of the machine that the constants come from.
        bytes: predicted memory of each way beyond inputs and outputs.
        reason: the choice in words.
    """

    method: str
    seconds: dict[str, float]
    bytes: dict[str, int]
    reason: str


#: Nanoseconds of one core of an AMD EPYC (Zen 3, AVX2) that others were using, float32. Per output and state: scan,
#: kernel; per output: step, of the scan; per channel and state: tables. Measured, both passes: batch 1, 256 channels,
#: 32 states, 1024, 4096 and 16384 steps. Fitted to that: the scan as a whole, kernel and _BACKWARD. Estimated: how the
#: scan's time divides into states and steps, the tables, and all of _ARRAYS (the same without compiled code).
_COMPILED = {"scan": 0.4, "kernel": 0.12, "step": 2.0, "tables": 70.0}
_ARRAYS = {"scan": 1.1, "kernel": 0.35, "step": 30.0, "tables": 900.0}
#: Nanoseconds of the convolution per output and log2 of the padded length, by library: measured at batch 1 to 64, 64 to
#: 256 channels and 64 to 16384 steps (torch 1.0 to 1.65, at 64 steps 2.1; NumPy 2.1 to 2.9, at 64 steps 3.5).
_FFT = {"torch": 1.2}
_OTHER_FFT = 2.3
#: The backward pass costs so many times the forward one.
_BACKWARD = {"scan": 2.4, "kernel": 3.0, "fft": 1.8}


def plan_lti(
    channels: int,
    states: int,
    length: int,
    batch: int = 1,
    *,
    gradient: bool = False,
    initial_state: bool = False,
    compiled: bool | None = None,
    library: str = "torch",
) -> LTIPlan:
    """Choose how to apply a diagonal system to a sequence: scan in the time domain, or kernel and FFT.

    A model of the cost: the scan is proportional to batch, channels, length and states; the kernel to the same without
    the batch; FFTs to batch, channels, length and the logarithm of the length. So the scan wins unless states or batch
    are many. A state to start from or to end with is the scan's alone.

    Args:
        channels, states, length, batch: sizes of the problem.
        gradient: a backward pass follows.
        initial_state: a first or a last state is needed.
        compiled: whether compiled code will run it; None: whether there is some on this machine.
        library: of the arrays, and so of the FFT: "torch", whose convolution is taken in blocks, or another.

    Returns:
        The plan.

    Raises:
        InputError: sizes below 1.

    >>> plan_lti(256, 32, 16384, compiled=True).method, plan_lti(256, 1024, 16384, 32, compiled=True).method
    ('scan', 'kernel+fft')
    """
    for name, value in (("channels", channels), ("states", states), ("length", length), ("batch", batch)):
        _number(name, value, 1)
    if compiled is None:
        from ssmtheory.scan import recurrence_backend

        compiled = recurrence_backend.status()[0]
    cost = _COMPILED if compiled else _ARRAYS
    ways = {way: 1 + (_BACKWARD[way] if gradient else 0) for way in _BACKWARD}
    size = _fast_length(2 * length - 1)
    outputs = channels * length
    scan = batch * outputs * (states * cost["scan"] + cost["step"]) + channels * states * cost["tables"]
    kernel = outputs * states * cost["kernel"] + channels * states * cost["tables"]
    # transforms there and back of each sequence, and one of the kernel
    fft = (2 * batch + 1) / 2 * channels * size / 2 * math.log2(size) * _FFT.get(library, _OTHER_FFT)
    seconds = {
        "scan": 1e-9 * ways["scan"] * scan,
        "kernel+fft": 1e-9 * (ways["kernel"] * kernel + ways["fft"] * fft),
    }
    memory = {
        "scan": 0 if compiled else 4 * batch * outputs * (3 + 4 * states // _CHUNK),
        "kernel+fft": 4 * (outputs + channels * size * (batch + 1)),
    }
    if initial_state:
        return LTIPlan("scan", seconds, memory, "only the scan takes or returns a state")
    method = min(seconds, key=lambda way: seconds[way])
    other = "scan" if method != "scan" else "kernel+fft"
    words = {"scan": "the scan", "kernel+fft": "kernel and FFT"}
    code = "compiled" if compiled else "not compiled"
    reason = (
        f"{words[method]}: {1e3 * seconds[method]:.3g} ms predicted against {1e3 * seconds[other]:.3g} ms for "
        f"{words[other]}, at {channels} channels, {states} states, {length} steps and batch {batch} ({code}, one core)"
    )
    return LTIPlan(method, seconds, memory, reason)


def lti_convolve(
    u: Array,
    poles: Array,
    B: Array | None,
    C: Array,
    D: Array | None = None,
    *,
    dt: Array | None = None,
    discretization: str = "zoh",
    reverse: bool = False,
    conjugate_pairs: bool = True,
    method: str = "auto",
) -> Array:
    """Apply a diagonal system to a sequence, from rest, the fastest way.

    Args:
        u, poles, B, C, D, dt, discretization, reverse, conjugate_pairs: as of :func:`lti_scan`.
        method: "scan", "kernel+fft", or "auto" for what :func:`plan_lti` chooses.

    Returns:
        y (batch, length, channel), of the dtype of u.

    Raises:
        InputError: as :func:`lti_scan`, or an unknown method.

    >>> import numpy as np
    >>> one = np.ones((1, 1))
    >>> lti_convolve(np.ones((1, 3, 1)), 0.5 * one, None, one, conjugate_pairs=False)[0, :, 0].tolist()
    [1.0, 1.5, 1.75]
    """
    if method not in CONVOLUTION_METHODS:
        allowed = ", ".join(repr(name) for name in CONVOLUTION_METHODS)
        raise InputError(f"method={method!r}: must be one of {allowed}.{nearest(method, CONVOLUTION_METHODS)}")
    kind = _numeric(u=u, poles=poles, B=B, C=C, D=D, dt=dt)
    _real_sequence(u, D)
    _fit(u, poles, B, C)
    if method == "auto":
        batch, length, channels = (max(1, n) for n in u.shape)
        gradient = kind == "torch" and any(x is not None and x.requires_grad for x in (u, poles, B, C, D, dt))
        compiled = None if _backend(kind, "auto", u, "lti_convolve") == "c" else False
        states = max(1, poles.shape[1])
        method = plan_lti(channels, states, length, batch, gradient=gradient, compiled=compiled, library=kind).method
    if method == "scan" or not u.shape[1]:
        return lti_scan(
            u, poles, B, C, D, dt=dt, discretization=discretization, reverse=reverse, conjugate_pairs=conjugate_pairs
        )
    K = vandermonde_kernel(
        poles, C if B is None else C * B, u.shape[1], dt=dt, discretization=discretization,
        conjugate_pairs=conjugate_pairs, dtype="float64" if dtype_name(u) == "float64" else "float32",
    )  # fmt: skip
    return fft_convolve(u, K, D, reverse=reverse)
