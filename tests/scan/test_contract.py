"""The contract of the scan: every backend passes this one suite.

Oracles are independent of the code under test: the explicit sum over all earlier tokens (hidden attention), exact
rational or 50-digit arithmetic for tiny cases, closed forms for constant inputs, `torch.autograd` through a naive loop
and central differences. A backend that lacks a feature must refuse it by name: nothing is skipped.
"""

from __future__ import annotations

import dataclasses
import functools
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from ssmtheory.errors import BackendError
from ssmtheory.scan import c_backend, linear_recurrence, selective_scan
from ssmtheory.scan.c_backend import library_path

COMPILED = ["c"] if library_path() is not None else []
BACKENDS = ["reference", "numpy", "torch", "jax", *COMPILED]
DIFFERENTIABLE = ["torch", "jax", *COMPILED]
#: Those with a linear recurrence.
RECURRENT = ["reference", "numpy", "torch", "jax", "c"]

#: Largest error relative to the largest value, by dtype of the inputs. The oracle has the same (rounded) inputs.
TOLERANCE = {
    # rounding of the oracle's own sums and exponentials, some tens of units of 1.1e-16
    "float64": 2e-14,
    # y is rounded to float32 once (6e-8); bias, softplus, skip and gate are float32 and add a few roundings more
    "float32": 6e-7,
    # one rounding to 11 bits, 4.9e-4
    "float16": 5e-4,
    # one rounding to 8 bits, 3.9e-3
    "bfloat16": 4e-3,
}
#: The compiled kernel works in float32 but carries the rounding errors of its states: no more than five units of 6e-8.
COMPILED_TOLERANCE = {**TOLERANCE, "float32": 3e-7}
#: Gradients sum over all tokens; those that go through float32 (bias, softplus, gate) round a few times more.
GRADIENT_TOLERANCE = {"float64": 1e-12, "float32": 3e-6}
COMPILED_GRADIENT_TOLERANCE = {**GRADIENT_TOLERANCE, "float32": 1e-6}


def tolerance(backend: str, dtype: str = "float32") -> float:
    return (COMPILED_TOLERANCE if backend == "c" else TOLERANCE)[dtype]


def gradient_tolerance(backend: str, dtype: str) -> float:
    return (COMPILED_GRADIENT_TOLERANCE if backend == "c" else GRADIENT_TOLERANCE)[dtype]


@dataclasses.dataclass
class Case:
    """Arguments of one call, as float64 or complex128 NumPy arrays."""

    u: Any
    delta: Any
    A: Any
    B: Any
    C: Any
    options: dict[str, Any]

    def arrays(self) -> tuple[Any, ...]:
        return self.u, self.delta, self.A, self.B, self.C

    def with_(self, **changes: Any) -> Case:
        """Change arguments or options by name."""
        own = {k: changes.pop(k) for k in list(changes) if k in ("u", "delta", "A", "B", "C")}
        return dataclasses.replace(self, **own, options={**self.options, **changes})


def make(
    seed: int = 0,
    *,
    batch: int = 2,
    length: int = 19,
    channels: int = 12,
    states: int = 3,
    heads: int | None = None,
    groups: int | None = None,
    complex_: bool = False,
    extras: bool = False,
    positive: bool = False,
) -> Case:
    """A random problem; ``extras`` adds every optional input, ``positive`` makes every mode grow."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Any:
        x = rng.normal(size=shape)
        return x + 1j * rng.normal(size=shape) if complex_ else x

    per = channels if heads is None else heads
    A = -rng.uniform(0.1, 2, (channels, states) if heads is None else heads)
    if positive:
        A = -A
    if complex_:
        A = A + 1j * rng.normal(size=A.shape) * 3
    shape = (batch, length, states) if groups is None else (batch, length, groups, states)
    options: dict[str, Any] = {}
    if extras:
        options = {
            "D": rng.normal(size=per),
            "z": rng.normal(size=(batch, length, channels)),
            "delta_bias": rng.normal(size=per) - 1,
            "delta_softplus": True,
            "initial_state": normal(batch, channels, states),
            "reset": rng.random((batch, length)) < 0.15,
        }
    u = rng.normal(size=(batch, length, channels))
    delta = rng.normal(size=(batch, length, per)) if extras else rng.uniform(0.01, 1, (batch, length, per))
    return Case(u, delta, A, normal(*shape), normal(*shape), options)


def round_to(case: Case, dtype: str) -> Case:
    """The same problem with values that the dtype holds exactly, still in float64."""

    def rounded(x: Any) -> Any:
        if not isinstance(x, np.ndarray) or x.dtype == bool:
            return x
        if np.iscomplexobj(x):
            return x.astype("complex64").astype("complex128") if dtype != "float64" else x
        return x.astype(np_dtype(dtype)).astype("float64")

    return Case(*map(rounded, case.arrays()), {k: rounded(v) for k, v in case.options.items()})


def np_dtype(dtype: str) -> Any:
    if dtype == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(dtype)


def native(backend: str, x: Any, dtype: str) -> Any:
    """x as an array of the library in which the backend is at home."""
    if not isinstance(x, np.ndarray):
        return x
    if np.iscomplexobj(x):
        dtype = "complex128" if dtype == "float64" else "complex64"
    elif x.dtype == bool:
        dtype = "bool"
    if backend == "torch":
        return torch.tensor(np.array(x, order="C")).to(getattr(torch, dtype))
    if backend == "jax":
        return jnp.asarray(x).astype(dtype)
    return x.astype(np_dtype(dtype))


def to_numpy(x: Any) -> Any:
    """As float64 or complex128."""
    if isinstance(x, torch.Tensor):
        x = x.detach()
        x = (x.to(torch.complex128) if x.is_complex() else x.to(torch.float64)).numpy()
    x = np.asarray(x)
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)


@functools.partial(jax.jit, static_argnames="flags")
def compiled_once(arrays: Any, keywords: Any, flags: tuple[tuple[str, bool], ...]) -> Any:
    return selective_scan(*arrays, **keywords, **dict(flags), return_last_state=True, backend="jax")


def run(backend: str, case: Case, dtype: str = "float64", **options: Any) -> tuple[Any, Any]:
    """y and last state, by the backend on its own kind of arrays."""
    with jax.enable_x64(dtype == "float64"):
        arrays = [native(backend, x, dtype) for x in case.arrays()]
        keywords = {k: native(backend, v, dtype) for k, v in {**case.options, **options}.items()}
        if backend == "jax" and "reduce" not in options:
            # one compilation instead of one per operation
            flags = {k: keywords.pop(k) for k in list(keywords) if not isinstance(keywords[k], jax.Array)}
            y, last = compiled_once(arrays, keywords, tuple(sorted(flags.items())))
        else:
            y, last = selective_scan(*arrays, **keywords, return_last_state=True, backend=backend)
        assert type(y) is type(arrays[0])
        assert y.dtype == arrays[0].dtype
        return to_numpy(y), to_numpy(last)


def closed_form(case: Case, *, reverse: bool = False, conjugate_pairs: bool = False) -> tuple[Any, Any]:
    """Every y_t and the last state as explicit sums over all earlier tokens; no recurrence anywhere."""
    u, delta, A, B, C = case.arrays()
    o = case.options
    batch, length, channels = u.shape
    delta = delta + o.get("delta_bias", 0.0)
    if o.get("delta_softplus"):
        delta = np.logaddexp(0, delta)
    D = o.get("D", np.zeros(1))
    if A.ndim == 1:
        repeat = channels // A.shape[0]
        delta, A = np.repeat(delta, repeat, -1), np.repeat(A, repeat)[:, None]
        D = np.repeat(D, repeat) if D.size > 1 else D
    B, C = (
        np.repeat(x[:, :, None] if x.ndim == 3 else x, channels // (1 if x.ndim == 3 else x.shape[2]), 2)
        for x in (B, C)
    )
    reset = o.get("reset", np.zeros((batch, length), bool))
    z = o.get("z")
    skip = D * u
    h0 = o.get("initial_state")
    if reverse:
        u, delta, B, C, reset = (x[:, ::-1] for x in (u, delta, B, C, reset))
    # elapsed[t] - elapsed[j] is the sum of delta over j+1..t
    elapsed = np.cumsum(delta, 1)
    segment = np.cumsum(reset, 1)
    wide = np.result_type(A, B, C, *([] if h0 is None else [h0]))
    y = np.zeros((batch, length, channels))
    h = np.zeros((batch, channels, B.shape[-1]), wide)
    for t in range(length):
        h = np.zeros_like(h)
        for j in range(t + 1):
            alive = (segment[:, j] == segment[:, t])[:, None, None]
            decay = np.exp((elapsed[:, t] - elapsed[:, j])[..., None] * A)
            h += alive * decay * (delta[:, j] * u[:, j])[..., None] * B[:, j]
        if h0 is not None:
            h += (segment[:, t] == 0)[:, None, None] * np.exp(elapsed[:, t][..., None] * A) * h0
        y[:, t] = (2 if conjugate_pairs else 1) * (C[:, t] * h).sum(-1).real
    if not length and h0 is not None:
        h = h0
    if reverse:
        y = y[:, ::-1]
    y = y + skip
    if z is not None:
        y = y * z / (1 + np.exp(-z))
    return y, h


def assert_close(actual: Any, expected: Any, tol: float, what: str = "") -> None:
    assert actual.shape == expected.shape, what
    scale = np.max(np.abs(expected), initial=0)
    error = np.max(np.abs(actual - expected), initial=0)
    assert error <= tol * max(scale, 1e-300), f"{what}: error {error:.2e} of {scale:.2e}"


FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "extras": {"extras": True},
    "groups": {"groups": 3, "extras": True},
    "per-channel": {"groups": 12},
    "heads": {"heads": 4, "groups": 2, "extras": True},
    "one-head": {"heads": 1},
    "complex": {"complex_": True, "extras": True},
    "complex-heads": {"complex_": True, "heads": 6, "groups": 3},
    "growing": {"positive": True},
}
#: A compilation each: the forms that JAX runs in reverse, too.
JAX_REVERSED = ("extras", "complex")
#: JAX differentiates by its own rules: that the forms compile and carry gradients is enough.
JAX_GRADIENTS = ("extras", "heads", "complex", "growing")


# ---------------------------------------------------------------- forward


@pytest.mark.parametrize(
    ("backend", "form", "reverse"),
    [
        (backend, form, reverse)
        for backend in BACKENDS
        for form in FORMS
        for reverse in (False, True)
        if not (backend == "jax" and reverse) or form in JAX_REVERSED
    ],
)
def test_forward_is_the_explicit_sum(backend: str, form: str, reverse: bool) -> None:
    case = make(1, **FORMS[form])
    pairs = bool(FORMS[form].get("complex_")) and not reverse
    y, last = run(backend, case, reverse=reverse, conjugate_pairs=pairs)
    expected_y, expected_last = closed_form(case, reverse=reverse, conjugate_pairs=pairs)
    # softplus of the oracle is NumPy's logaddexp: a few roundings, amplified by growth over 19 steps
    assert_close(y, expected_y, 10 * tolerance(backend, "float64"))
    assert_close(last, expected_last, 10 * tolerance(backend, "float64"))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("backend", BACKENDS)
def test_dtypes(backend: str, dtype: str) -> None:
    case = round_to(make(2, extras=True), dtype)
    y, last = run(backend, case, dtype)
    expected_y, expected_last = closed_form(case)
    tol = tolerance(backend, dtype) * (10 if dtype == "float64" else 1)
    assert_close(y, expected_y, tol)
    # the state is never narrower than float32
    assert_close(last, expected_last, min(tol, tolerance(backend, "float32")))


@pytest.mark.parametrize("backend", BACKENDS)
def test_mixed_dtypes_compute_in_the_widest_and_return_that_of_u(backend: str) -> None:
    case = round_to(make(3), "float16")
    with jax.enable_x64(True):
        u, delta, A, B, C = (native(backend, x, "float64") for x in case.arrays())
        u = native(backend, case.u, "float16")
        y, last = selective_scan(u, delta, A, B, C, return_last_state=True, backend=backend)
        assert str(y.dtype).endswith("float16")
        assert str(last.dtype).endswith("float64")
        expected_y, expected_last = closed_form(case)
        assert_close(to_numpy(y), expected_y, TOLERANCE["float16"])
        assert_close(to_numpy(last), expected_last, TOLERANCE["float64"])


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("channels", [1, 12, 67])
@pytest.mark.parametrize("length", [1, 16, 19, 33])
def test_compiled_forward(backend: str, kind: str, channels: int, length: int) -> None:
    case = round_to(make(4, channels=channels, length=length, states=16, extras=True), "float32")
    arrays = [native(kind, x, "float32") for x in case.arrays()]
    options = {k: native(kind, v, "float32") for k, v in case.options.items()}
    y, last = selective_scan(*arrays, **options, return_last_state=True, backend=backend)
    assert type(y) is type(arrays[0])
    expected_y, expected_last = closed_form(case)
    assert_close(to_numpy(y), expected_y, tolerance(backend))
    assert_close(to_numpy(last), expected_last, tolerance(backend))


@pytest.mark.parametrize("backend", COMPILED)
def test_compiled_names_what_it_lacks(backend: str) -> None:
    x = torch.ones(1, 3, 2, device="meta")
    with pytest.raises(BackendError, match="tensors on meta"):
        selective_scan(x, x, x[0, :2], x[..., :2], x[..., :2], backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_numpy_arrays_run_on_any_backend_and_come_back(backend: str) -> None:
    case = make(6, extras=True)
    y, last = selective_scan(*case.arrays(), **case.options, return_last_state=True, backend=backend)
    assert type(y) is np.ndarray
    assert type(last) is np.ndarray
    expected_y, expected_last = closed_form(case)
    assert_close(y, expected_y, 10 * TOLERANCE["float64"])
    assert_close(last, expected_last, 10 * TOLERANCE["float64"])
    assert not jax.config.jax_enable_x64


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize("length", [0, 1, 2])
def test_small_and_empty(backend: str, length: int, batch: int) -> None:
    case = make(7, batch=batch, length=length, extras=True)
    y, last = run(backend, case)
    expected_y, expected_last = closed_form(case)
    assert y.shape == (batch, length, 12)
    assert_close(y, expected_y, 10 * TOLERANCE["float64"])
    assert_close(last, expected_last, 10 * TOLERANCE["float64"])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [{"states": 0}, {"channels": 0}])
def test_no_states_or_channels(backend: str, shape: dict[str, int]) -> None:
    case = make(8, **shape)
    y, last = run(backend, case)
    assert y.shape == case.u.shape
    assert last.shape == (2, case.u.shape[2], case.A.shape[1])
    assert not y.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_against_exact_arithmetic(backend: str) -> None:
    # powers of two: exp(delta A) = 2^-k with delta = k ln 2 is exact to one rounding, all else is rational
    halvings = [1, 3, 2, 1, 4]
    u, B, C = [Fraction(3, 4), Fraction(-5, 8), 2, 1, Fraction(7, 16)], [1, 2, Fraction(1, 2), -1, 3], [2, 1, -3, 1, 1]
    h, expected = Fraction(1), []
    for k, x, b, c in zip(halvings, u, B, C, strict=True):
        # delta*u*B has the factor k ln 2: choose u / (k ln 2) below, so that it is x*b
        h = h / 2**k + x * b
        expected.append(float(c * h))
    delta = np.log(2) * np.array(halvings, float)
    case = Case(
        (np.array(u, float) / delta).reshape(1, 5, 1),
        delta.reshape(1, 5, 1),
        -np.ones((1, 1)),
        np.array(B, float).reshape(1, 5, 1),
        np.array(C, float).reshape(1, 5, 1),
        {"initial_state": np.ones((1, 1, 1))},
    )
    y, _ = run(backend, case)
    np.testing.assert_allclose(y[0, :, 0], expected, rtol=4e-16 * 5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_against_fifty_digits_with_oscillation(backend: str) -> None:
    # one nearly undamped complex mode: y_t = Re sum_j exp(lambda delta (t-j)) delta
    lam, delta, length = complex(-0.0009765625, 2.5), 0.125, 400
    case = Case(
        np.ones((1, length, 1)), np.full((1, length, 1), delta), np.array([[lam]]),
        np.ones((1, length, 1)), np.ones((1, length, 1)), {},
    )  # fmt: skip
    y, _ = run(backend, case)
    with mpmath.workdps(50):
        w = mpmath.exp(mpmath.mpc(lam) * delta)
        expected = [float(mpmath.re(delta * (1 - w ** (t + 1)) / (1 - w))) for t in range(length)]
    # the phase 2.5*0.125*400 = 125 rad carries 125*1.1e-16 of rounding
    assert_close(y[0, :, 0], np.array(expected), 1e-13)


# ---------------------------------------------------------------- hard numbers


@pytest.mark.parametrize("backend", BACKENDS)
def test_stiff(backend: str) -> None:
    # exp(-200) = 1e-87: each state is its own input to the last digit
    case = round_to(make(9, length=200), "float32")
    case = case.with_(A=np.full_like(case.A, -200.0), delta=np.ones_like(case.delta))
    y, _ = run(backend, case, "float32")
    assert_close(y, np.einsum("bln,bln->bl", case.B, case.C)[..., None] * case.u, tolerance(backend))


@pytest.mark.parametrize(
    ("backend", "length"),
    [*((name, 200_000) for name in ("numpy", "torch", "jax", *COMPILED)), *((name, 1_000_000) for name in COMPILED)],
)
@pytest.mark.parametrize("rate", [1e-5, 1e-6])
def test_very_slow_system_keeps_its_digits_in_float32(backend: str, rate: float, length: int) -> None:
    delta = float(np.float32(rate))
    one = np.ones((1, length, 1))
    case = Case(one, delta * one, -np.ones((1, 1)), one, one, {})
    y, last = run(backend, case, "float32")
    # sum of a geometric series; expm1 because 1 - exp(-delta) would lose five digits
    expected = delta * np.expm1(-delta * np.arange(1, length + 1)) / np.expm1(-delta)
    # one rounding to float32, twice over; the compiled kernel also rounds delta A and delta u B
    tol = COMPILED_TOLERANCE["float32"] if backend == "c" else 1.2e-7
    np.testing.assert_allclose(y[0, :, 0], expected, rtol=tol)
    np.testing.assert_allclose(last[0, 0, 0], expected[-1], rtol=tol)


#: delta, A: the time scales at which a float32 state would lose digits, and the stiff ones where it forgets all.
SCALES = {"typical": 0.05, "stiff": 5.0, "very stiff": 200.0, "slow": 1e-3, "slower": 1e-5, "slowest": 1e-6}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("backend", COMPILED)
def test_compiled_float32_against_float64(backend: str, scale: str) -> None:
    length, channels, states = 16_000, 3, 5
    rng = np.random.default_rng(34)
    one = np.ones((1, length, channels))
    for random in (True, False):
        case = Case(
            rng.normal(size=one.shape) if random else one,
            SCALES[scale] * (rng.uniform(0.5, 1.5, one.shape) if random else one),
            -rng.uniform(0.5, 1.5, (channels, states)),
            rng.normal(size=(1, length, states)) if random else np.ones((1, length, states)),
            rng.normal(size=(1, length, states)),
            {},
        )
        case = round_to(case, "float32")
        for y, expected in zip(run(backend, case, "float32"), run("numpy", case, "float64"), strict=True):
            assert_close(y, expected, 3e-7, f"random={random}")


@pytest.mark.parametrize("rate", [1e-2, 1e-5])
@pytest.mark.parametrize("backend", COMPILED)
def test_compiled_gradients_of_a_slow_system(backend: str, rate: float) -> None:
    # sums over 20,000 tokens, a state that forgets nothing, and its adjoint
    case = make(35, batch=1, length=20_000, channels=2, states=5)
    case = round_to(case.with_(delta=case.delta * rate, u=np.abs(case.u), C=np.abs(case.C)), "float32")
    weights = tuple(np.abs(w).astype("f4").astype("f8") for w in weights_for(case))
    expected = gradients("torch", case, weights, "float64")
    actual = gradients(backend, case, weights, "float32")
    for k in expected:
        assert_close(actual[k], expected[k], COMPILED_GRADIENT_TOLERANCE["float32"], k)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("backend", COMPILED)
def test_instruction_sets_agree(backend: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    name = c_backend.instruction_set(number)
    if name is None:
        assert number > 1
        return
    assert name == ("generic", "avx2", "avx512")[number - 1]
    monkeypatch.setattr(c_backend, "_ISA", number)
    for form in ("extras", "groups", "per-channel", "heads", "complex"):
        case = round_to(
            make(36, length=37, channels=24 if form != "per-channel" else 12, states=5, **FORMS[form]), "float32"
        )
        weights = weights_for(case)
        expected = gradients_by_autograd(case, weights)
        for dtype in ("float32", "float64"):
            y, last = run(backend, case, dtype)
            expected_y, expected_last = closed_form(case)
            assert_close(y, expected_y, 10 * TOLERANCE["float64"] if dtype == "float64" else TOLERANCE["float32"])
            assert_close(last, expected_last, 10 * TOLERANCE["float64"] if dtype == "float64" else 3e-7)
            for k, v in gradients(backend, case, weights, dtype).items():
                assert_close(v, expected[k], gradient_tolerance("c", dtype), f"{form} {k}")


def test_a_kernel_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        def __init__(self, path: str) -> None:
            pass

    monkeypatch.setattr(c_backend, "library_path", lambda: "old.so")
    monkeypatch.setattr(c_backend.ctypes, "CDLL", Old)
    c_backend.library.cache_clear()
    try:
        with pytest.raises(BackendError, match=r"old.so was compiled from another version of kernel.c"):
            c_backend.library()
    finally:
        c_backend.library.cache_clear()


@pytest.mark.parametrize("backend", COMPILED)
def test_compiled_float32_is_not_slow_on_denormals(backend: str) -> None:
    import time

    length = 4000
    noise, impulse, tiny = np.ones((1, length, 64)), np.zeros((1, length, 64)), np.full((1, length, 64), 1e-40)
    impulse[:, 0] = 1
    ones = np.ones((1, length, 16))
    base = Case(noise, np.full((1, length, 64), 0.05), -np.ones((64, 16)), ones, ones, {})
    seconds = []
    for u in (noise, impulse, tiny):
        case = base.with_(u=u)
        best = np.inf
        for _ in range(5):
            begin = time.process_time()
            run(backend, case, "float32")
            best = min(best, time.process_time() - begin)
        seconds.append(best)
    assert max(seconds) < 2 * seconds[0] + 0.02


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax", *COMPILED])
def test_decay_to_denormals_is_right_and_not_slow(backend: str) -> None:
    import time

    # an impulse that decays through the smallest float64 (5e-324) half-way; denormals would cost 10-100 times as much
    length = 2000
    impulse, noise = (np.zeros((1, length, 64)) for _ in range(2))
    impulse[:, 0] = 1
    noise[:] = 1
    base = Case(
        impulse,
        np.full((1, length, 64), 0.75),
        -np.ones((64, 16)),
        np.ones((1, length, 16)),
        np.ones((1, length, 16)),
        {},
    )
    y, _ = run(backend, base, "float64")
    t = np.arange(length)
    expected = 16 * 0.75 * np.exp(-0.75 * t)
    keep = expected > 1e-280
    np.testing.assert_allclose(y[0, keep, 5], expected[keep], rtol=1e-12)
    assert (np.abs(y[0, ~keep, 5]) <= 1e-279).all()
    seconds = []
    for u in (noise, impulse):
        best = np.inf
        for _ in range(3):
            begin = time.process_time()
            run(backend, base.with_(u=u), "float64")
            best = min(best, time.process_time() - begin)
        seconds.append(best)
    assert seconds[1] < 3 * seconds[0] + 0.02


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_spurious_nan_where_the_exponential_overflows(backend: str) -> None:
    # exp(800) and exp(2000) are infinite in float64, yet exp(800)*0 = 0 and exp(720)*1e-10 = 4.8e302
    u = np.array([0.0, 1, 0, 0, 0]).reshape(1, 5, 1)
    delta = np.array([800.0, 2000, 1e-10, 1, 1]).reshape(1, 5, 1)
    one = np.ones((1, 5, 1))
    y, _ = run(backend, Case(u, delta, np.ones((1, 1)), one, one, {}))
    if backend == "reference":
        # the specification as written: inf * 0 at once
        assert np.isnan(y[0, 0, 0])
        return
    assert y[0, 0, 0] == 0
    assert y[0, 1, 0] == 2000
    np.testing.assert_allclose(y[0, 2:, 0], 2000 * np.exp([1e-10, 1 + 1e-10, 2 + 1e-10]), rtol=1e-14)
    tiny = Case(
        np.zeros((1, 1, 1)),
        np.full((1, 1, 1), 720.0),
        np.ones((1, 1)),
        one[:, :1],
        one[:, :1],
        {"initial_state": np.full((1, 1, 1), 1e-10)},
    )
    y, _ = run(backend, tiny)
    with mpmath.workdps(40):
        np.testing.assert_allclose(y[0, 0, 0], float(mpmath.exp(720) * mpmath.mpf(1e-10)), rtol=1e-12)
    real_overflow = tiny.with_(initial_state=np.full((1, 1, 1), -1.0))
    assert run(backend, real_overflow)[0][0, 0, 0] == -np.inf


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_inf_propagate_forward_only_and_reset_stops_them(backend: str, bad: float) -> None:
    case = round_to(make(10, length=40, states=2), "float32")
    u = case.u.copy()
    u[1, 11, 3] = bad
    reset = np.zeros((2, 40), bool)
    reset[1, 25] = True
    clean, _ = run(backend, case.with_(reset=reset), "float32")
    y, _ = run(backend, case.with_(u=u, reset=reset), "float32")
    hit = np.zeros(y.shape, bool)
    hit[1, 11:25, 3] = True
    assert not np.isfinite(y[hit]).any()
    np.testing.assert_array_equal(y[~hit], clean[~hit])


@pytest.mark.parametrize("groups", [None, 3])
@pytest.mark.parametrize("states", [1, 3, 6])
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_infinite_input_gives_what_the_definition_gives(backend: str, states: int, groups: int | None) -> None:
    # a kernel that pads its states must not meet inf * 0 in them
    case = round_to(make(11, length=20, states=states, groups=groups), "float32")
    u, B, C = case.u.copy(), np.abs(case.B), np.abs(case.C)
    u[0, 7, 2], u[1, 9, 5] = np.inf, -np.inf
    case = case.with_(u=u, B=B, C=C)
    expected = np.where(np.isinf(u), u, 0)
    for dtype in ("float32", "float64"):
        y, _ = run(backend, case, dtype)
        np.testing.assert_array_equal(y[np.isinf(u)], expected[np.isinf(u)])


@pytest.mark.parametrize("backend", BACKENDS)
def test_extreme_softplus_and_gate(backend: str) -> None:
    case = make(11, length=4, channels=2, states=1)
    delta = np.array([-700.0, -40.0, 40.0, 3e4]).reshape(1, 4, 1).repeat(2, 0).repeat(2, 2)
    z = np.array([-1e4, -30.0, 30.0, 1e4]).reshape(1, 4, 1).repeat(2, 0).repeat(2, 2)
    case = case.with_(delta=delta, A=np.full((2, 1), -1e-3), z=z, delta_softplus=True)
    y, _ = run(backend, case)
    with mpmath.workdps(60):
        for i in range(2):
            h = mpmath.mpf(0)
            for t in range(4):
                step = mpmath.log1p(mpmath.exp(delta[i, t, 0]))
                h = mpmath.exp(-mpmath.mpf(1e-3) * step) * h + step * case.u[i, t, 0] * case.B[i, t, 0]
                gate = z[i, t, 0] / (1 + mpmath.exp(-mpmath.mpf(z[i, t, 0])))
                # each value to full relative precision, however small: the smallest here is 1e-320
                np.testing.assert_allclose(y[i, t, 0], float(case.C[i, t, 0] * h * gate), rtol=1e-13, atol=1e-300)


# ---------------------------------------------------------------- identities


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "backend", ["reference", "numpy", "torch", *COMPILED]
)  # JAX: see the chunks of the reduce test
def test_two_halves_with_carried_state_are_the_whole(backend: str, reverse: bool) -> None:
    case = make(12, length=31, extras=True, complex_=True)
    whole, last = run(backend, case, reverse=reverse)
    cut = 13

    def part(s: slice, state: Any) -> tuple[Any, Any]:
        o = case.options
        piece = case.with_(
            u=case.u[:, s], delta=case.delta[:, s], B=case.B[:, s], C=case.C[:, s],
            z=o["z"][:, s], reset=o["reset"][:, s], initial_state=state,
        )  # fmt: skip
        return run(backend, piece, reverse=reverse)

    order = [slice(cut, None), slice(0, cut)] if reverse else [slice(0, cut), slice(cut, None)]
    first, state = part(order[0], case.options["initial_state"])
    second, state = part(order[1], state)
    joined = np.concatenate([second, first] if reverse else [first, second], 1)
    # carried in double precision, so that only the order of chunks differs
    assert_close(joined, whole, 1e-15)
    assert_close(state, last, 1e-15)


@pytest.mark.parametrize("backend", BACKENDS)
def test_reverse_is_a_flip(backend: str) -> None:
    case = make(13, extras=True)
    y, last = run(backend, case, reverse=True)
    o = case.options
    flipped = case.with_(
        u=case.u[:, ::-1], delta=case.delta[:, ::-1], B=case.B[:, ::-1], C=case.C[:, ::-1],
        z=o["z"][:, ::-1], reset=o["reset"][:, ::-1],
    )  # fmt: skip
    expected, expected_last = run(backend, flipped)
    np.testing.assert_array_equal(y, expected[:, ::-1])
    np.testing.assert_array_equal(last, expected_last)


@pytest.mark.parametrize("backend", BACKENDS)
def test_reset_is_separate_scans(backend: str) -> None:
    case = round_to(make(14, length=45, batch=1), "float32")
    reset = np.zeros((1, 45), bool)
    cuts = [0, 15, 16, 30]
    reset[0, cuts] = True
    y, last = run(backend, case, "float32", reset=reset)
    pieces = []
    for a, b in zip(cuts, [*cuts[1:], 45], strict=True):
        piece, state = run(
            backend, case.with_(**{k: getattr(case, k)[:, a:b] for k in ("u", "delta", "B", "C")}), "float32"
        )
        pieces.append(piece)
    # equal up to the order in which a backend sums
    assert_close(y, np.concatenate(pieces, 1), 2e-7)
    assert_close(last, state, 2e-7)


@pytest.mark.parametrize(
    ("backend", "groups", "reverse"),
    [
        (backend, groups, reverse)
        for backend in ("reference", "numpy", "torch", *COMPILED)
        for groups in (None, 3, 12)
        for reverse in (False, True)
    ]
    + [("jax", None, False), ("jax", 3, True)],
)
def test_reduce_sees_each_state_once_in_order(backend: str, groups: int | None, reverse: bool) -> None:
    # long enough for several chunks: 12*40*8 bytes a step against 1 MiB
    case = make(15, length=700, states=40, groups=groups, complex_=groups == 3)
    seen: list[tuple[int, Any]] = []
    y, last = run(backend, case, reverse=reverse, reduce=lambda h, start: seen.append((start, np.array(to_numpy(h)))))
    assert len(seen) > 1
    starts = [start for start, _ in seen]
    assert starts == sorted(starts, reverse=reverse)
    states = np.concatenate([h for _, h in sorted(seen, key=lambda x: x[0])], axis=1)
    assert states.shape == (2, 700, 12, 40)
    assert [s for s, _ in sorted(seen, key=lambda x: x[0])] == np.cumsum(
        [0, *[h.shape[1] for _, h in sorted(seen, key=lambda x: x[0])][:-1]]
    ).tolist()
    # the states are those that y contracts, and the last of them is the last state
    per = 12 // (groups or 1)
    C = np.repeat(case.C if groups else case.C[:, :, None], per, 2)
    assert_close((C * states).sum(-1).real, y, TOLERANCE["float64"])
    assert_close(states[:, 0 if reverse else -1], last, 1e-15)
    without, _ = run(backend, case, reverse=reverse)
    assert_close(without, y, 1e-15)


@pytest.mark.parametrize("backend", ["reference", "numpy", "torch", *COMPILED])  # JAX arrays have no strides
def test_strides_do_not_matter(backend: str) -> None:
    case = make(16, extras=True)

    def strided(x: Any) -> Any:
        if not isinstance(x, np.ndarray) or x.dtype == bool:
            return x
        wide = np.full(tuple(2 * n for n in x.shape), np.nan, x.dtype)
        view = wide[tuple(slice(None, None, 2) for _ in x.shape)]
        view[...] = x
        # and the axes stored in the opposite order
        return np.asfortranarray(x) if x.ndim == 3 and x.shape[-1] == 3 else view

    y, last = run(backend, case)
    arrays = [strided(x) for x in case.arrays()]
    options = {k: strided(v) for k, v in case.options.items()}
    if backend == "torch":
        arrays = [torch.from_numpy(x) for x in arrays]
        options = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    other, other_last = selective_scan(*arrays, **options, return_last_state=True, backend=backend)
    # a matrix product may sum in another order for another layout
    assert_close(to_numpy(other), y, 1e-15)
    assert_close(to_numpy(other_last), last, 1e-15)
    before = [np.array(x) for x in case.arrays()]
    run(backend, case)
    for x, kept in zip(case.arrays(), before, strict=True):
        np.testing.assert_array_equal(x, kept, err_msg="an input was written to")


@pytest.mark.parametrize("backend", ["reference", "numpy", "torch", *COMPILED])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_out(backend: str, dtype: str) -> None:
    case = make(17, extras=True)
    arrays = [native(backend, x, dtype) for x in case.arrays()]
    options = {k: native(backend, v, dtype) for k, v in case.options.items()}
    expected = selective_scan(*arrays, **options, backend=backend)
    out = native(backend, np.full(case.u.shape, np.nan), dtype)
    y = selective_scan(*arrays, **options, backend=backend, out=out)
    assert y is out
    np.testing.assert_array_equal(to_numpy(out), to_numpy(expected))
    # over the input itself
    y = selective_scan(*arrays, **options, backend=backend, out=arrays[0])
    assert y is arrays[0]
    np.testing.assert_array_equal(to_numpy(y), to_numpy(expected))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
@pytest.mark.parametrize("backend", ["numpy", "torch", *COMPILED])
def test_any_shape(backend: str, data: st.DataObject) -> None:
    batch, length = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 24))
    states = data.draw(st.integers(1, 5))
    heads = data.draw(st.sampled_from([None, 1, 2, 4]))
    per_head = data.draw(st.integers(1, 9))
    channels = per_head * (heads or 4)
    groups = data.draw(st.sampled_from([None, 1, *([2] if (heads or 4) % 2 == 0 else []), heads or 4]))
    case = make(
        data.draw(st.integers(0, 99)), batch=batch, length=length, channels=channels, states=states, heads=heads,
        groups=groups, complex_=data.draw(st.booleans()), extras=data.draw(st.booleans()),
    )  # fmt: skip
    reverse = data.draw(st.booleans())
    y, last = run(backend, case, reverse=reverse)
    expected_y, expected_last = closed_form(case, reverse=reverse)
    assert_close(y, expected_y, 1e-12)
    assert_close(last, expected_last, 1e-12)


# ---------------------------------------------------------------- backward


def naive(arrays: dict[str, torch.Tensor], options: dict[str, Any], scale: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A loop that autograd can differentiate; per-channel inputs throughout."""
    u, delta, A, B, C = (arrays[k] for k in ("u", "delta", "A", "B", "C"))
    channels = u.shape[2]
    if "delta_bias" in arrays:
        delta = torch.log1p(torch.exp(delta + arrays["delta_bias"]))
    D = arrays.get("D")
    if A.ndim == 1:
        repeat = channels // A.shape[0]
        delta, A = delta.repeat_interleave(repeat, -1), A.repeat_interleave(repeat)[:, None]
        D = None if D is None else D.repeat_interleave(repeat)
    B, C = ((x[:, :, None] if x.ndim == 3 else x) for x in (B, C))
    B, C = (x.repeat_interleave(channels // x.shape[2], 2) for x in (B, C))
    h = arrays.get("initial_state", torch.zeros(u.shape[0], channels, B.shape[-1], dtype=torch.float64))
    steps = []
    order = range(u.shape[1])
    for t in reversed(order) if options.get("reverse") else order:
        if options.get("reset") is not None:
            h = torch.where(options["reset"][:, t, None, None], torch.zeros((), dtype=h.dtype), h)
        h = torch.exp(delta[:, t, :, None] * A) * h + (delta[:, t] * u[:, t])[..., None] * B[:, t]
        value = (C[:, t] * h).sum(-1)
        steps.append(scale * (value.real if value.is_complex() else value))
    y = torch.stack(steps[::-1] if options.get("reverse") else steps, 1)
    if D is not None:
        y = y + D * u
    if "z" in arrays:
        y = y * arrays["z"] * torch.sigmoid(arrays["z"])
    return y, h


def gradients_by_autograd(case: Case, weights: tuple[Any, Any], **options: Any) -> dict[str, Any]:
    tensors = {k: torch.tensor(getattr(case, k), requires_grad=True) for k in ("u", "delta", "A", "B", "C")}
    for k, v in case.options.items():
        if isinstance(v, np.ndarray) and v.dtype != bool:
            tensors[k] = torch.tensor(v, requires_grad=True)
    flags = {"reset": None if "reset" not in case.options else torch.tensor(case.options["reset"]), **options}
    y, last = naive(tensors, flags, 2 if options.get("conjugate_pairs") else 1)
    torch.autograd.backward((y, last), (torch.tensor(weights[0]), torch.tensor(weights[1])))
    return {k: v.grad.numpy() for k, v in tensors.items()}


def gradients(backend: str, case: Case, weights: tuple[Any, Any], dtype: str, **options: Any) -> dict[str, Any]:
    """Gradients of sum(y * weight) + Re(sum(last * conj(weight))), in torch's convention for complex inputs."""
    names = ["u", "delta", "A", "B", "C"]
    values = dict(zip(names, case.arrays(), strict=True))
    rest = dict(options)
    for k, v in case.options.items():
        if isinstance(v, np.ndarray) and v.dtype != bool:
            values[k] = v
        else:
            rest[k] = v
    kind = "jax" if backend == "jax" else "torch"
    with jax.enable_x64(dtype == "float64"):
        rest = {k: native(kind, v, dtype) for k, v in rest.items()}
        inputs = {k: native(kind, v, dtype) for k, v in values.items()}
        wy, wl = (native(kind, w, dtype) for w in weights)

        def call(inputs: dict[str, Any]) -> Any:
            five = [inputs[k] for k in names]
            more = {k: v for k, v in inputs.items() if k not in names}
            return selective_scan(*five, **more, **rest, return_last_state=True, backend=backend)

        if kind == "jax":

            def loss(inputs: dict[str, Any]) -> Any:
                y, last = call(inputs)
                return jnp.sum(y * wy) + jnp.sum((last * wl.conj()).real)

            # JAX's gradient of a real function is the conjugate of torch's
            return {k: to_numpy(v).conj() for k, v in jax.jit(jax.grad(loss))(inputs).items()}
        for tensor in inputs.values():
            tensor.requires_grad_()
        y, last = call(inputs)
        torch.autograd.backward((y, last), (wy, wl.to(last.dtype)))
        for k, tensor in inputs.items():
            assert tensor.grad is not None, k
            assert tensor.grad.dtype == tensor.dtype
        return {k: to_numpy(tensor.grad) for k, tensor in inputs.items()}


def weights_for(case: Case, seed: int = 3) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    states = case.B.shape[-1]
    last = rng.normal(size=(case.u.shape[0], case.u.shape[2], states))
    if any(np.iscomplexobj(x) for x in case.arrays()):
        last = last + 1j * rng.normal(size=last.shape)
    return rng.normal(size=case.u.shape), last


@pytest.mark.parametrize(
    ("backend", "form", "reverse"),
    [(backend, form, reverse) for backend in ("torch", *COMPILED) for form in FORMS for reverse in (False, True)]
    + [("jax", form, form == "extras") for form in JAX_GRADIENTS],
)
def test_gradients_are_those_of_a_naive_loop(backend: str, form: str, reverse: bool) -> None:
    case = make(21, length=23, **FORMS[form])
    weights = weights_for(case)
    options = {"reverse": reverse, "conjugate_pairs": bool(FORMS[form].get("complex_"))}
    expected = gradients_by_autograd(case, weights, **options)
    actual = gradients(backend, case, weights, "float64", **options)
    assert actual.keys() == expected.keys()
    for k in expected:
        assert_close(actual[k], expected[k], GRADIENT_TOLERANCE["float64"], k)


@pytest.mark.parametrize(
    ("backend", "mixed"),
    [*((backend, x) for backend in ("torch", *COMPILED) for x in ("A", "B", "C", "initial_state")), ("jax", "A")],
)
def test_gradients_where_only_one_input_is_complex(backend: str, mixed: str) -> None:
    case = make(22, length=9, extras=True)
    value = getattr(case, mixed) if mixed in ("A", "B", "C") else case.options[mixed]
    case = case.with_(**{mixed: value + 0.5j * np.random.default_rng(1).normal(size=value.shape)})
    rng = np.random.default_rng(5)
    complex_last = mixed != "C"
    last = rng.normal(size=(2, 12, 3)) + (1j * rng.normal(size=(2, 12, 3)) if complex_last else 0)
    weights = rng.normal(size=case.u.shape), last
    expected = gradients_by_autograd(case, weights)
    actual = gradients(backend, case, weights, "float64")
    for k in expected:
        assert_close(actual[k], expected[k], GRADIENT_TOLERANCE["float64"], k)


@pytest.mark.parametrize("backend", ["torch", "jax", *COMPILED])
def test_gradients_in_float32(backend: str) -> None:
    case = round_to(make(23, length=67, states=16, channels=24, extras=True), "float32")
    weights = tuple(w.astype("f4").astype("f8") for w in weights_for(case))
    expected = gradients_by_autograd(case, weights)
    actual = gradients(backend, case, weights, "float32")
    for k in expected:
        assert_close(actual[k], expected[k], gradient_tolerance(backend, "float32"), k)


@pytest.mark.parametrize("backend", ["torch", *COMPILED])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_gradients_in_half_precision_round_once(backend: str, dtype: str) -> None:
    case = round_to(make(24), dtype)
    weights = tuple(w.astype(np_dtype(dtype)).astype("f8") for w in weights_for(case))
    expected = gradients_by_autograd(case, weights)
    actual = gradients(backend, case, weights, dtype)
    for k in expected:
        assert_close(actual[k], expected[k], TOLERANCE[dtype], k)


@pytest.mark.parametrize("backend", DIFFERENTIABLE)
def test_gradients_over_many_chunks_by_central_differences(backend: str) -> None:
    # 2500 steps of 2 MB each chunk boundary; a random direction in all inputs at once, in float64
    case = make(25, batch=1, length=2500, channels=16, states=8, extras=True)
    weights = weights_for(case)
    actual = gradients(backend, case, weights, "float64")
    rng = np.random.default_rng(8)
    direction = {k: rng.normal(size=v.shape) for k, v in actual.items()}

    def loss(step: float) -> float:
        changes = {
            k: (getattr(case, k) if k in ("u", "delta", "A", "B", "C") else case.options[k]) + step * d
            for k, d in direction.items()
        }
        y, last = run("reference", case.with_(**changes))
        return float((y * weights[0]).sum() + (last * weights[1]).sum())

    h = 1e-5
    # fourth order: error h^4 times a fifth derivative, and 1e-16/h of rounding
    expected = (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h)
    got = sum(float((actual[k] * d).sum()) for k, d in direction.items())
    np.testing.assert_allclose(got, expected, rtol=1e-7)


@pytest.mark.parametrize("backend", DIFFERENTIABLE)
def test_gradient_is_finite_where_the_exponential_overflows(backend: str) -> None:
    u = np.array([0.0, 1.0]).reshape(1, 2, 1)
    case = Case(u, np.array([800.0, 0.5]).reshape(1, 2, 1), np.ones((1, 1)), np.ones((1, 2, 1)), np.ones((1, 2, 1)), {})
    weights = np.ones((1, 2, 1)), np.zeros((1, 1, 1))
    actual = gradients(backend, case, weights, "float64")
    # y_0 = 800 u_0, y_1 = exp(.5) 800 u_0 + .5 u_1 with u_0 = 0
    np.testing.assert_allclose(actual["u"].ravel(), [800 + 800 * np.exp(0.5), 0.5], rtol=1e-14)
    np.testing.assert_allclose(actual["delta"].ravel(), [0, 1], rtol=1e-14)
    np.testing.assert_allclose(actual["A"].ravel(), [0], atol=1e-14)


@pytest.mark.parametrize("backend", COMPILED)
def test_infinite_cotangent_stays_in_its_channel_and_is_no_nan(backend: str) -> None:
    case = round_to(make(12, length=20, states=3), "float32")
    case = case.with_(B=np.abs(case.B), C=np.abs(case.C), delta=np.abs(case.delta))
    weights = weights_for(case)
    clean = gradients(backend, case, weights, "float32")["u"]
    weights[0][1, 11, 4] = np.inf
    actual = gradients(backend, case, weights, "float32")["u"]
    assert actual[1, 11, 4] == np.inf
    hit = np.zeros(actual.shape, bool)
    hit[1, :12, 4] = True
    np.testing.assert_array_equal(actual[~hit], clean[~hit])


@pytest.mark.parametrize("backend", DIFFERENTIABLE)
@pytest.mark.parametrize("length", [0, 1])
def test_gradients_of_short_sequences(backend: str, length: int) -> None:
    case = make(26, length=length).with_(initial_state=np.random.default_rng(0).normal(size=(2, 12, 3)))
    weights = weights_for(case)
    actual = gradients(backend, case, weights, "float64")
    if length:
        expected = gradients_by_autograd(case, weights)
        for k in expected:
            assert_close(actual[k], expected[k], GRADIENT_TOLERANCE["float64"], k)
    else:
        np.testing.assert_array_equal(actual["initial_state"], weights[1])


def test_torch_refuses_a_second_derivative_in_words() -> None:
    case = make(27)
    u, *rest = (torch.tensor(x) for x in case.arrays())
    u.requires_grad_()
    (g,) = torch.autograd.grad(selective_scan(u, *rest).square().sum(), u, create_graph=True)
    with pytest.raises(BackendError, match="cannot be differentiated again"):
        g.sum().backward()
    b = torch.ones(1, 4, requires_grad=True)
    (g,) = torch.autograd.grad(linear_recurrence(b, b).square().sum(), b, create_graph=True)
    with pytest.raises(BackendError, match="backend='jax'"):
        g.sum().backward()


def test_torch_func_grad() -> None:
    case = make(28)
    arrays = [torch.tensor(x) for x in case.arrays()]
    actual = torch.func.grad(lambda u: selective_scan(u, *arrays[1:]).sum())(arrays[0])
    expected = gradients_by_autograd(case, (np.ones(case.u.shape), np.zeros((2, 12, 3))))["u"]
    assert_close(actual.numpy(), expected, GRADIENT_TOLERANCE["float64"])


def test_jax_transformations_compose() -> None:
    case = round_to(make(29, length=7), "float32")
    u, *rest = (jnp.asarray(x, jnp.float32) for x in case.arrays())
    plain = selective_scan(u, *rest)
    np.testing.assert_allclose(jax.jit(selective_scan)(u, *rest), plain, rtol=1e-6)
    mapped = jax.vmap(lambda x: selective_scan(x, *rest))(jnp.stack([u, 2 * u]))
    # linear in u
    np.testing.assert_allclose(mapped[1], 2 * mapped[0], rtol=1e-6)
    np.testing.assert_allclose(mapped[0], plain, rtol=1e-6)
    value, tangent = jax.jvp(lambda x: selective_scan(x, *rest), (u,), (u,))
    np.testing.assert_allclose(tangent, value, rtol=1e-6)
    # quadratic in a common factor s of u: the second derivative is 2 sum(y^2)
    second = jax.grad(jax.grad(lambda s: jnp.sum(selective_scan(s * u, *rest) ** 2)))(jnp.float32(0.7))
    np.testing.assert_allclose(second, 2 * jnp.sum(plain**2), rtol=1e-5)
    assert second.dtype == jnp.float32
    assert not jax.config.jax_enable_x64
    with pytest.raises(BackendError, match="inside jit, grad or vmap"):
        jax.jit(lambda x: selective_scan(x, *rest, reduce=lambda h, t: None))(u)


# ---------------------------------------------------------------- memory

BIG = {"batch": 2, "length": 2048, "channels": 64, "states": 32}
ELEMENTS = 2 * 2048 * 64 * 32


def test_numpy_peak_memory() -> None:
    import tracemalloc

    case = make(31, **BIG)
    arrays = [x.astype("f4") for x in case.arrays()]
    selective_scan(*arrays)
    tracemalloc.start()
    selective_scan(*arrays)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # the states are 64 MB in float64; y and a few megabytes of chunk are allowed
    assert peak < 6 * 2**20 + case.u.size * 4


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, tuple | list) else [result]:
            if isinstance(x, torch.Tensor):
                self.elements = max(self.elements, x.numel())
        return result


@pytest.mark.parametrize("backend", ["torch", *COMPILED])
def test_torch_never_makes_the_full_array_of_states(backend: str) -> None:
    case = make(32, **BIG)
    inputs = [torch.tensor(x, dtype=torch.float32, requires_grad=True) for x in case.arrays()]
    with LargestTensor() as seen:
        selective_scan(*inputs, backend=backend).sum().backward()
    # kept states: one step in 16; inputs are batch*length*channel
    assert seen.elements <= max(case.u.size, ELEMENTS // 16)


def test_jax_never_makes_the_full_array_of_states() -> None:
    case = make(33, **BIG)
    inputs = [jnp.asarray(x, jnp.float32) for x in case.arrays()]
    f = jax.jit(jax.grad(lambda *a: jnp.sum(selective_scan(*a)), argnums=(0, 1, 2, 3, 4)))
    used = f.lower(*inputs).compile().memory_analysis().temp_size_in_bytes
    # inputs and their gradients in float64 are 2 MB each; the states would be 64 MB
    assert used < ELEMENTS * 8 / 3


# ---------------------------------------------------------------- linear recurrence


def recurrence_oracle(a: Any, b: Any, h0: Any, reset: Any) -> Any:
    """h_t as a sum over j of products, time on axis 0; no recurrence."""
    a = np.broadcast_to(a, b.shape)
    out = np.zeros(b.shape, np.result_type(a, b, 0.0 if h0 is None else h0))
    for t in range(len(b)):
        for j in range(t + 1):
            alive = ~np.any(reset[j + 1 : t + 1], axis=0)
            out[t] += alive * np.prod(a[j + 1 : t + 1], axis=0) * b[j]
        if h0 is not None:
            out[t] += ~np.any(reset[: t + 1], axis=0) * np.prod(a[: t + 1], axis=0) * h0
    return out


RECURRENCES: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {
    "varying": ((2, 13, 5), (2, 13, 5), 1),
    "invariant": ((5,), (2, 13, 5), 1),
    "invariant-scalar": ((), (2, 13, 5), 1),
    "varying-shared": ((13, 1), (2, 13, 5), 1),
    "first-axis": ((13, 4), (13, 4), 0),
    "last-axis": ((3, 1, 1), (2, 3, 4, 13), -1),
    "rows": ((2, 1, 1, 5), (2, 6, 13, 5), 2),
    "line": ((), (13,), 0),
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("form", RECURRENCES)
@pytest.mark.parametrize("backend", RECURRENT)
def test_recurrence_forward(backend: str, form: str, complex_: bool, reverse: bool) -> None:
    a_shape, b_shape, axis = RECURRENCES[form]
    rng = np.random.default_rng(41)

    def normal(*shape: int) -> Any:
        x = rng.normal(size=shape)
        return np.asarray(x + 1j * rng.normal(size=shape) if complex_ else x)

    a, b = normal(*a_shape), normal(*b_shape)
    positive = axis % b.ndim
    h0 = normal(*b_shape[:positive], *b_shape[positive + 1 :])
    batched = positive != 0 and not reverse
    reset = rng.random((b_shape[0], 13) if batched else 13) < 0.2
    with jax.enable_x64(True):
        states, last = linear_recurrence(
            native(backend, a, "float64"), native(backend, b, "float64"), axis=axis, reverse=reverse,
            initial_state=native(backend, h0, "float64"), reset=native(backend, reset, "float64"),
            return_last_state=True, backend=backend,
        )  # fmt: skip
        states, last = to_numpy(states), to_numpy(last)
    spread = np.moveaxis(a.reshape((1,) * (b.ndim - a.ndim) + a.shape), positive, 0)
    flags = (
        np.moveaxis(reset, -1, 0).reshape((13, b_shape[0] if batched else 1) + (1,) * (b.ndim - 2))
        if b.ndim > 1
        else reset
    )
    order = slice(None, None, -1 if reverse else 1)
    expected = recurrence_oracle(
        spread[order] if spread.shape[0] > 1 else spread, np.moveaxis(b, positive, 0)[order], h0, flags[order]
    )
    assert_close(last, expected[-1], TOLERANCE["float64"])
    assert_close(states, np.moveaxis(expected[order], 0, positive), TOLERANCE["float64"])


@pytest.mark.parametrize("backend", RECURRENT)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_recurrence_dtypes(backend: str, dtype: str) -> None:
    rng = np.random.default_rng(42)
    a, b = (
        x.astype(np_dtype(dtype)).astype("f8") for x in (rng.uniform(0.5, 1, (2, 50, 3)), rng.normal(size=(2, 50, 3)))
    )
    with jax.enable_x64(dtype == "float64"):
        y = linear_recurrence(native(backend, a, dtype), native(backend, b, dtype), backend=backend)
        assert str(y.dtype).endswith(dtype)
    expected = recurrence_oracle(a.swapaxes(0, 1), b.swapaxes(0, 1), None, np.zeros((50, 1, 1), bool)).swapaxes(0, 1)
    assert_close(to_numpy(y), expected, TOLERANCE[dtype])


@pytest.mark.parametrize("backend", RECURRENT)
@pytest.mark.parametrize("length", [0, 1])
def test_recurrence_short(backend: str, length: int) -> None:
    b = native(backend, np.full((2, length, 3), 2.0), "float32")
    h0 = native(backend, np.ones((2, 3)), "float32")
    states, last = linear_recurrence(
        native(backend, np.float32([3.0]), "float32"), b, initial_state=h0, return_last_state=True, backend=backend
    )
    assert states.shape == (2, length, 3)
    np.testing.assert_array_equal(to_numpy(last), np.full((2, 3), 5.0 if length else 1.0))


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax", "c"])
def test_recurrence_slow_keeps_its_digits_in_float32(backend: str) -> None:
    length = 200_000
    a = 1 - 2.0**-17
    b = native(backend, np.ones((1, length, 2)), "float32")
    y = to_numpy(linear_recurrence(native(backend, np.full(2, a), "float32"), b, backend=backend))
    expected = -np.expm1(np.arange(1, length + 1) * np.log1p(-(2.0**-17))) * 2.0**17
    np.testing.assert_allclose(y[0, :, 1], expected, rtol=1.2e-7)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("form", ["varying", "invariant", "varying-shared", "last-axis"])
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_recurrence_gradients(backend: str, form: str, reverse: bool) -> None:
    a_shape, b_shape, axis = RECURRENCES[form]
    rng = np.random.default_rng(43)

    def normal(*shape: int) -> Any:
        return np.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape))

    positive = axis % len(b_shape)
    values = {"a": normal(*a_shape), "b": normal(*b_shape), "h": normal(*b_shape[:positive], *b_shape[positive + 1 :])}
    weights = normal(*b_shape), normal(*values["h"].shape)
    reset = rng.random((b_shape[0], 13)) < 0.2

    tensors = {k: torch.tensor(v, requires_grad=True) for k, v in values.items()}
    a = tensors["a"].broadcast_to(b_shape).movedim(positive, 0)
    b = tensors["b"].movedim(positive, 0)
    flags = torch.tensor(reset).T.reshape(13, b_shape[0], *[1] * (len(b_shape) - 2))
    h, steps = tensors["h"], []
    for t in reversed(range(13)) if reverse else range(13):
        h = a[t] * torch.where(flags[t], torch.zeros((), dtype=h.dtype), h) + b[t]
        steps.append(h)
    y = torch.stack(steps[::-1] if reverse else steps).movedim(0, positive)
    torch.autograd.backward((y, h), tuple(torch.tensor(w) for w in weights))
    expected = {k: v.grad.numpy() for k, v in tensors.items()}

    with jax.enable_x64(True):
        inputs = {k: native(backend, v, "float64") for k, v in values.items()}
        wy, wl = (native(backend, w, "float64") for w in weights)
        mask = native(backend, reset, "float64")

        def call(x: dict[str, Any]) -> Any:
            return linear_recurrence(
                x["a"],
                x["b"],
                axis=axis,
                initial_state=x["h"],
                reset=mask,
                reverse=reverse,
                return_last_state=True,
                backend=backend,
            )

        if backend == "jax":

            def loss(x: dict[str, Any]) -> Any:
                y, last = call(x)
                return jnp.sum((y * wy.conj()).real) + jnp.sum((last * wl.conj()).real)

            actual = {k: to_numpy(v).conj() for k, v in jax.jit(jax.grad(loss))(inputs).items()}
        else:
            for x in inputs.values():
                x.requires_grad_()
            torch.autograd.backward(call(inputs), (wy, wl))
            actual = {k: to_numpy(v.grad) for k, v in inputs.items()}
    for k in expected:
        assert_close(actual[k], expected[k], GRADIENT_TOLERANCE["float64"], k)


def test_recurrence_never_expands_an_invariant_factor() -> None:
    import tracemalloc

    b = np.ones((1, 4096, 512), np.float32)
    out = np.empty_like(b)
    tracemalloc.start()
    linear_recurrence(np.full(512, 0.5, np.float32), b, out=out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # b is 8 MB
    assert peak < 3 * 2**20
