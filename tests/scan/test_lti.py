"""Time-invariant systems: kernels, scans and convolutions against exponentials, sequential sums and each other."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import torch

from ssmtheory.errors import BackendError, InputError
from ssmtheory.scan import (
    cauchy_kernel,
    discretize_diagonal,
    fft_convolve,
    lti_convolve,
    lti_scan,
    plan_lti,
    recurrence_backend,
    vandermonde_kernel,
)
from ssmtheory.scan.arrays import LONG_KERNEL
from ssmtheory.scan.lti import _fast_length, power_sums

KINDS = ["numpy", "torch", "jax", "c", "c-torch"]
COMPILED = [i for i in range(3) if i == 0 or recurrence_backend.library().rec_instruction_set(i)]


def native(kind: str, x: Any) -> Any:
    if x is None:
        return None
    if kind.endswith("torch"):
        return torch.tensor(np.array(x))
    return jnp.asarray(x) if kind == "jax" else np.asarray(x)


def backend(kind: str) -> str:
    return "c" if kind.startswith("c") else kind


def system(channels: int, states: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Any:
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    return {
        "A": -rng.uniform(0.1, 2, (channels, states)) + 1j * rng.uniform(-8, 8, (channels, states)),
        "B": normal(channels, states),
        "C": normal(channels, states),
        "D": rng.normal(size=channels),
        "dt": rng.uniform(0.02, 0.3, channels),
    }


def sequential(u: Any, w: Any, B: Any, C: Any, D: Any, h: Any, scale: int, reverse: bool) -> tuple[Any, Any]:
    """The two lines of the definition, step by step in complex128."""
    y = np.zeros(u.shape)
    for t in range(u.shape[1])[:: -1 if reverse else 1]:
        h = w * h + B * u[:, t, :, None].astype(float)
        y[:, t] = scale * (C * h).sum(-1).real + D * u[:, t]
    return y, h


@pytest.mark.parametrize("method", ["zoh", "bilinear"])
@pytest.mark.parametrize("kind", KINDS)
def test_kernel_is_that_of_matrix_exponentials(kind: str, method: str) -> None:
    """Dense matrices, discretised by scipy: A-bar from one exponential, B-bar from the augmented one."""
    s = system(3, 4)
    names = ("A", "C", "dt")
    with jax.enable_x64(True):
        A, c, dt = (native(kind, s[n] if n != "C" else s["B"] * s["C"]) for n in names)
        K = np.asarray(vandermonde_kernel(A, c, 37, dt=dt, discretization=method, backend=backend(kind)))
    for h in range(3):
        dense, eye = np.diag(s["A"][h]), np.eye(4)
        if method == "zoh":
            block = np.block([[dense, s["B"][h][:, None]], [np.zeros((1, 5))]])
            whole = scipy.linalg.expm(s["dt"][h] * block)
            step, B = whole[:4, :4], whole[:4, 4]
        else:
            step = np.linalg.solve(eye - s["dt"][h] / 2 * dense, eye + s["dt"][h] / 2 * dense)
            B = np.linalg.solve(eye - s["dt"][h] / 2 * dense, s["dt"][h] * s["B"][h])
        wanted = [2 * (s["C"][h] @ np.linalg.matrix_power(step, k) @ B).real for k in range(37)]
        np.testing.assert_allclose(K[h], wanted, atol=1e-10 * np.abs(wanted).max())


SIZES = [(2, 1187, 18, 3), (2, 37, 3, 5), (1, 1, 1, 1), (1, 64, 2, 33), (3, 31, 16, 16)]


# each size is another compilation of JAX
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("kind", "sizes"), [(k, s) for k in KINDS for s in (SIZES[:1] if k == "jax" else SIZES)])
def test_scan_is_sequential(kind: str, sizes: tuple[int, ...], reverse: bool) -> None:
    batch, length, channels, states = sizes
    s = system(channels, states, 1)
    rng = np.random.default_rng(2)
    u = rng.normal(size=(batch, length, channels))
    h = rng.normal(size=(batch, channels, states)) + 1j * rng.normal(size=(batch, channels, states))
    w, factor = discretize_diagonal(s["A"], s["dt"])
    wanted, last = sequential(u, w, factor * s["B"], s["C"], s["D"], h, 2, reverse)
    with jax.enable_x64(True):
        found = lti_scan(
            *(native(kind, x) for x in (u, s["A"], s["B"], s["C"], s["D"])), dt=native(kind, s["dt"]), reverse=reverse,
            initial_state=native(kind, h), return_last_state=True, backend=backend(kind),
        )  # fmt: skip
        y, state = (np.asarray(x) for x in found)
    # rounding of a few hundred terms
    np.testing.assert_allclose(y, wanted, atol=1e-12 * np.abs(wanted).max())
    np.testing.assert_allclose(state, last, atol=1e-12 * np.abs(last).max())


@pytest.mark.parametrize("isa", COMPILED)
@pytest.mark.parametrize("layout", ["channels-last", "time-last", "strided"])
def test_compiled_scan_in_float32(isa: int, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrence_backend, "_ISA", isa)
    N = 8
    A = np.broadcast_to(-0.5 + 1j * np.pi * np.arange(N), (17, N))
    dt = np.geomspace(1e-3, 1e-1, 17)
    C = np.random.default_rng(3).normal(size=(17, N)) + 0j
    u = np.random.default_rng(4).normal(size=(2, 1500, 17)).astype("f4")
    if layout == "time-last":
        u = np.ascontiguousarray(u.swapaxes(1, 2)).swapaxes(1, 2)
    elif layout == "strided":
        u = np.repeat(u, 3, axis=2)[:, ::-1, ::3]
    w, factor = discretize_diagonal(A, dt)
    wanted, _ = sequential(u, w, factor, C, np.zeros(17), np.zeros((2, 17, N)), 2, False)
    y = lti_scan(u, A, None, C, dt=dt, backend="c")
    assert y.dtype == np.float32
    assert np.abs(y - wanted).max() < 3e-7 * np.abs(wanted).max()
    K = vandermonde_kernel(A, C, 1500, dt=dt, dtype="float32", backend="c")
    exact = 2 * np.einsum("hn,hnl->hl", factor * C, w[..., None] ** np.arange(1500)).real
    assert np.abs(K - exact).max() < 2e-7 * np.abs(exact).max()


@pytest.mark.parametrize("kind", ["numpy", "c", "c-torch"])
@pytest.mark.parametrize("form", ["near-unitary", "s4d"])
def test_a_million_steps_keep_their_phase(kind: str, form: str) -> None:
    """Every value of the kernel, from phases in extended precision; parameters are exact in float32."""
    length, N = 1_000_000, 8
    real = np.full(N, -2 / length if form == "near-unitary" else -0.5, "f4")
    imag = (np.pi * np.arange(N) / (N if form == "near-unitary" else 1)).astype("f4")
    dt = np.float32(1.0 if form == "near-unitary" else 1e-3)
    A = (real + 1j * imag).astype("c8")[None]
    c = np.random.default_rng(5).normal(size=(1, N)).astype("f4").astype("c8")
    arrays = [torch.tensor(x) if kind == "c-torch" else x for x in (A, c, np.asarray(dt))]
    K = np.asarray(vandermonde_kernel(*arrays[:2], length, dt=arrays[2], discretization="dirac", backend=backend(kind)))
    assert K.dtype == np.float32
    exact = np.zeros(length, np.longdouble)
    t = np.arange(length, dtype=np.longdouble) * np.longdouble(dt)
    for n in range(N):
        exact += (
            2 * np.longdouble(c[0, n].real) * np.exp(np.longdouble(real[n]) * t) * np.cos(np.longdouble(imag[n]) * t)
        )
    # one rounding to float32
    assert np.abs(K[0] - exact).max() < 6.1e-8 * np.abs(exact).max()


@pytest.mark.parametrize("kind", ["numpy", "c-torch"])
def test_long_kernels_in_blocks_and_their_gradient(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The float64 detour of a long float32 kernel changes neither channels nor gradients."""
    length, rng = LONG_KERNEL + 5, np.random.default_rng(6)
    monkeypatch.setattr(recurrence_backend, "_WIDE_VALUES", 4 * length)
    w = np.exp(rng.uniform(-1e-3, 0, (5, 3)) + 1j * rng.uniform(0, 3, (5, 3))).astype("c8")
    c = (rng.normal(size=(2, 5, 3)) + 1j * rng.normal(size=(2, 5, 3))).astype("c8")
    if kind == "numpy":
        K = vandermonde_kernel(w, c, length, backend="numpy")
    else:
        leaves = [torch.tensor(x, requires_grad=True) for x in (w, c)]
        K = vandermonde_kernel(*leaves, length, backend=backend(kind))
        weight = torch.tensor(rng.normal(size=tuple(K.shape)), dtype=torch.float32)
        (K * weight).sum().backward()
        wide = [torch.tensor(x, dtype=torch.complex128, requires_grad=True) for x in (w, c)]
        (vandermonde_kernel(*wide, length, backend="torch") * weight).sum().backward()
        for leaf, other in zip(leaves, wide, strict=True):
            # float32 products of the adjoint
            assert (leaf.grad - other.grad).abs().max() < 2e-6 * other.grad.abs().max()
        K = K.detach().numpy()
    assert K.dtype == np.float32
    exact = vandermonde_kernel(w.astype("c16"), c.astype("c16"), length, backend="numpy")
    assert np.abs(K - exact).max() < 6.1e-8 * np.abs(exact).max()


def test_a_million_steps_of_the_scan() -> None:
    """A slow oscillator driven by a step: the closed form of its geometric sum."""
    length = 1_000_000
    w = np.exp(np.array([[-2e-6 + 0.7j, -1e-6 + 0j]]))
    u = np.ones((1, length, 1), "f4")
    y = lti_scan(u, w, None, np.ones((1, 2)), backend="c")[0, :, 0]
    k = np.arange(1, length + 1)[:, None]
    exact = 2 * (-np.expm1(k * np.log(w[0])) / (1 - w[0])).sum(1).real
    assert np.abs(y - exact).max() < 3e-7 * np.abs(exact).max()


@pytest.mark.parametrize("kind", ["torch", "c-torch"])
@pytest.mark.parametrize("length", [1, 70])
@pytest.mark.parametrize("reverse", [False, True])
def test_scan_gradients(kind: str, length: int, reverse: bool) -> None:
    s = system(3, 2, 6)
    rng = np.random.default_rng(7)
    inputs = {
        "u": torch.tensor(rng.normal(size=(2, length, 3))), **{k: torch.tensor(v) for k, v in s.items()},
        "h": torch.tensor(rng.normal(size=(2, 3, 2)) + 1j * rng.normal(size=(2, 3, 2))),
    }  # fmt: skip
    for x in inputs.values():
        x.requires_grad_()
    names = list(inputs)

    def call(*values: Any) -> Any:
        x = dict(zip(names, values, strict=True))
        return lti_scan(
            x["u"], x["A"], x["B"], x["C"], x["D"], dt=x["dt"], initial_state=x["h"], return_last_state=True,
            reverse=reverse, backend=backend(kind),
        )  # fmt: skip

    assert torch.autograd.gradcheck(call, tuple(inputs.values()), fast_mode=True)


def test_compiled_gradients_agree_over_segments() -> None:
    """More than one segment of the backward pass, an incomplete chunk at the end; and float32."""
    s = system(17, 3, 8)
    u = np.random.default_rng(9).normal(size=(2, 2333, 17))
    weights = np.random.default_rng(10).normal(size=u.shape)
    found = {}
    for name, dtype in (("torch", "float64"), ("c", "float64"), ("c", "float32")):
        inputs = {"u": torch.tensor(u), **{k: torch.tensor(v) for k, v in s.items()}}
        if dtype == "float32":
            inputs = {k: x.to(torch.complex64 if x.is_complex() else torch.float32) for k, x in inputs.items()}
        for x in inputs.values():
            x.requires_grad_()
        y = lti_scan(*(inputs[k] for k in ("u", "A", "B", "C", "D")), dt=inputs["dt"], backend=name)
        (y * torch.tensor(weights).to(y.dtype)).sum().backward()
        found[name, dtype] = {k: x.grad.numpy() for k, x in inputs.items()}
    wanted = found["torch", "float64"]
    for k, exact in wanted.items():
        scale = np.abs(exact).max()
        assert np.abs(found["c", "float64"][k] - exact).max() < 1e-11 * scale, k
        # inputs are rounded too: 6e-8 of each, over a memory of a few dozen steps
        assert np.abs(found["c", "float32"][k] - exact).max() < 1e-5 * scale, k


@pytest.mark.parametrize("kind", ["torch", "c-torch"])
@pytest.mark.parametrize("length", [1, 33, 1200])
def test_kernel_gradients(kind: str, length: int) -> None:
    s = system(2, 3, 11)
    A, dt = (torch.tensor(s[k]).requires_grad_() for k in ("A", "dt"))
    c = torch.tensor(np.stack([s["B"], s["C"]])).requires_grad_()

    def call(A: Any, c: Any, dt: Any) -> Any:
        return vandermonde_kernel(A, c, length, dt=dt, backend=backend(kind))

    assert call(A, c, dt).shape == (2, 2, length)
    assert torch.autograd.gradcheck(call, (A, c, dt), fast_mode=True)


def test_gradients_in_jax() -> None:
    s = system(2, 3, 12)
    u = np.random.default_rng(13).normal(size=(1, 70, 2))
    names = ("u", "A", "B", "C", "D", "dt")
    values = [u, *(s[k] for k in names[1:])]
    with jax.enable_x64(True):

        def loss(*x: Any) -> Any:
            *rest, dt = x
            return jnp.sum(lti_scan(*rest, dt=dt) ** 2) + jnp.sum(vandermonde_kernel(rest[1], rest[3], 50, dt=dt) ** 2)

        found = jax.jit(jax.grad(loss, argnums=tuple(range(6))))(*(jnp.asarray(x) for x in values))
    tensors = [torch.tensor(x).requires_grad_() for x in values]
    *rest, dt = tensors
    (lti_scan(*rest, dt=dt).square().sum() + vandermonde_kernel(rest[1], rest[3], 50, dt=dt).square().sum()).backward()
    for name, x, g in zip(names, tensors, found, strict=True):
        # JAX's convention for complex inputs is the conjugate
        np.testing.assert_allclose(
            np.conj(g), x.grad.numpy(), rtol=1e-9, atol=1e-9 * x.grad.abs().max().item(), err_msg=name
        )


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", ["numpy", "torch", "jax"])
def test_convolutions_agree(kind: str, reverse: bool) -> None:
    s = system(3, 4, 14)
    u = np.random.default_rng(15).normal(size=(2, 53, 3))
    with jax.enable_x64(True):
        arrays = [native(kind, x) for x in (u, s["A"], s["B"], s["C"], s["D"])]
        ways = [
            np.asarray(lti_convolve(*arrays, dt=native(kind, s["dt"]), reverse=reverse, method=method))
            for method in ("auto", "scan", "kernel+fft")
        ]
        K = native(kind, np.random.default_rng(16).normal(size=(3, 20)))
        y = np.asarray(fft_convolve(arrays[0], K, reverse=reverse))
    for other in ways[1:]:
        np.testing.assert_allclose(other, ways[0], atol=1e-12 * np.abs(ways[0]).max())
    order = slice(None, None, -1 if reverse else 1)
    for b in range(2):
        for h in range(3):
            wanted = np.convolve(u[b, order, h], np.asarray(K)[h])[:53][order]
            np.testing.assert_allclose(y[b, :, h], wanted, atol=1e-13)


def test_sizes_of_transforms() -> None:
    for n in range(1, 3000):
        size = _fast_length(n)
        rest = size
        for p in (2, 3, 5):
            while rest % p == 0:
                rest //= p
        assert rest == 1
        assert size % 2 == 0
        assert n <= size <= 1.3 * n + 2


def test_complex_power_sums() -> None:
    s = system(2, 3, 17)
    w = np.exp(0.1 * s["A"])
    wanted = np.einsum("hn,hnl->hl", s["C"], w[..., None] ** np.arange(45))
    np.testing.assert_allclose(power_sums(w, s["C"], 45), wanted, atol=1e-13 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("kind", "length"), [(k, n) for k in ("numpy", "torch", "jax") for n in (1, 2, 15, 16) if k != "jax" or n == 15]
)
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("rank", [1, 2])
def test_cauchy_kernel_is_that_of_dense_matrices(kind: str, length: int, pairs: bool, rank: int) -> None:
    s = system(2, 3, 18)
    rng = np.random.default_rng(19)
    P, Q = (rng.normal(size=(2, 3, rank)) + 1j * rng.normal(size=(2, 3, rank)) for _ in range(2))
    with jax.enable_x64(True):
        given = [x[..., 0] if rank == 1 and x.ndim == 3 else x for x in (s["A"], P, Q, s["B"], s["C"])]
        K = np.asarray(
            cauchy_kernel(*(native(kind, x) for x in given), native(kind, s["dt"]), length, conjugate_pairs=pairs)
        )
    for h in range(2):
        parts = [x[h] for x in (s["A"], P, Q, s["B"], s["C"])]
        if pairs:
            parts = [np.concatenate([x, x.conj()]) for x in parts]
        poles, p, q, B, C = parts
        A = np.diag(poles) - p @ q.conj().T
        eye, dt = np.eye(len(poles)), s["dt"][h]
        step, bar = (np.linalg.solve(eye - dt / 2 * A, x) for x in (eye + dt / 2 * A, dt * B))
        wanted = [(C @ np.linalg.matrix_power(step, k) @ bar).real for k in range(length)]
        np.testing.assert_allclose(K[h], wanted, atol=1e-10 * np.abs(wanted).max())


def test_cauchy_gradients() -> None:
    s = system(2, 2, 20)
    rng = np.random.default_rng(21)
    P, Q = (rng.normal(size=(2, 2)) + 1j * rng.normal(size=(2, 2)) for _ in range(2))
    values = tuple(torch.tensor(x).requires_grad_() for x in (s["A"], P, Q, s["B"], s["C"], s["dt"]))
    assert torch.autograd.gradcheck(lambda *x: cauchy_kernel(*x, 9), values, fast_mode=True)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("kind", ["numpy", "c", "torch", "c-torch"])
def test_what_is_not_finite_stays_in_the_future(kind: str, dtype: str, reverse: bool, bad: float) -> None:
    s = system(3, 4, 23)
    u = np.random.default_rng(24).normal(size=(2, 1300, 3)).astype(dtype)
    arrays = {k: native(kind, s[k]) for k in ("A", "B", "C", "D", "dt")}

    def call(u: Any) -> tuple[Any, Any]:
        return lti_scan(
            native(kind, u), *(arrays[k] for k in ("A", "B", "C", "D")), dt=arrays["dt"], reverse=reverse,
            return_last_state=True, backend=backend(kind),
        )  # fmt: skip

    clean, last = (np.asarray(x) for x in call(u))
    step = 1201 if not reverse else 98
    u[1, step, 2] = bad
    y, state = (np.asarray(x) for x in call(u))
    spoilt = np.zeros(u.shape, bool)
    spoilt[1, slice(step, None) if not reverse else slice(None, step + 1), 2] = True
    assert not np.isfinite(y[spoilt]).any()
    np.testing.assert_allclose(
        y[~spoilt], clean[~spoilt], rtol=0, atol=(1e-6 if dtype == "f4" else 1e-13) * np.abs(clean).max()
    )
    assert not np.isfinite(state[1, 2]).any()
    np.testing.assert_array_equal(np.delete(state.reshape(6, 4), 5, 0), np.delete(last.reshape(6, 4), 5, 0))


@pytest.mark.parametrize("length", [45, 1200])
def test_only_what_is_asked_for_has_a_gradient(length: int) -> None:
    """The derivatives do not depend on which others are asked for."""
    s = system(3, 4, 25)
    rng = np.random.default_rng(26)
    values = {
        "u": torch.tensor(rng.normal(size=(2, length, 3))), **{k: torch.tensor(v) for k, v in s.items()},
        "h": torch.tensor(rng.normal(size=(2, 3, 4)) + 0j),
    }  # fmt: skip
    weights = torch.tensor(rng.normal(size=(2, length, 3)))

    def gradients(wanted: set[str]) -> dict[str, Any]:
        x = {k: v.clone().requires_grad_(k in wanted) for k, v in values.items()}
        y, last = lti_scan(
            *(x[k] for k in ("u", "A", "B", "C", "D")), dt=x["dt"], initial_state=x["h"], return_last_state=True,
            backend="c",
        )  # fmt: skip
        ((y * weights).sum() + last.abs().square().sum()).backward()
        assert {k for k, v in x.items() if v.grad is not None} == wanted
        return {k: x[k].grad for k in wanted}

    everything = gradients(set(values))
    for wanted in ({"u"}, {"h"}, {"u", "h"}, {"A", "B"}, {"D"}, {"C", "h"}):
        for k, found in gradients(wanted).items():
            assert (found - everything[k]).abs().max() <= 1e-13 * everything[k].abs().max(), (k, wanted)
    w, c = torch.exp(0.1 * values["A"]), values["C"][None]
    found = []
    for of_poles in (True, False):
        x, z = w.clone().requires_grad_(of_poles), c.clone().requires_grad_()
        (vandermonde_kernel(x, z, length, backend="c") * weights[:1].mT).sum().backward()
        found.append(z.grad)
    assert (found[0] - found[1]).abs().max() <= 1e-13 * found[0].abs().max()


def test_float32_of_modes_that_cancel() -> None:
    """Random coefficients and phases, damping from none to heavy; parameters in double precision."""
    for seed, N in enumerate((1, 8, 32, 64)):
        rng = np.random.default_rng(seed)
        w = np.exp(-(10 ** rng.uniform(-6, -1, (24, N))) + 1j * rng.uniform(0, np.pi, (24, N)))
        C = rng.normal(size=(24, N)) + 1j * rng.normal(size=(24, N))
        u = rng.normal(size=(1, 3000, 24)).astype("f4")
        y, wanted = (lti_scan(x, w, None, C, backend="c") for x in (u, u.astype("f8")))
        K, exact = (vandermonde_kernel(w, C, 3000, dtype=d, backend="c") for d in ("float32", "float64"))
        # of each channel by itself: about five roundings
        assert (np.abs(y - wanted).max((0, 1)) < 3e-7 * np.abs(wanted).max((0, 1))).all()
        assert (np.abs(K - exact).max(1) < 3e-7 * np.abs(exact).max(1)).all()


def test_denormal_and_overflowing_powers_stay_numbers() -> None:
    w = np.array([[1e-30, 0.5, 0.0]])
    K = vandermonde_kernel(w, np.ones((1, 3)), 5000, dtype="float32", conjugate_pairs=False)
    assert np.isfinite(K).all()
    np.testing.assert_allclose(K[0, :3], [3, 0.5, 0.25], rtol=1e-7)
    assert K[0, 4000] == 0


def test_results_do_not_depend_on_layout_or_repetition() -> None:
    s = system(40, 6, 22)
    u = torch.randn(2, 300, 40, generator=torch.Generator().manual_seed(0))
    arguments = [torch.tensor(s[k]) for k in ("A", "B", "C", "D")]
    first = lti_scan(u, *arguments, dt=torch.tensor(s["dt"]))
    again = lti_scan(u.mT.contiguous().mT, *arguments, dt=torch.tensor(s["dt"]))
    assert torch.equal(first, again)


def test_plan_says_why() -> None:
    plan = plan_lti(256, 32, 4096, compiled=True)
    assert plan.method == "scan"
    assert "4096 steps" in plan.reason
    assert set(plan.seconds) == {"scan", "kernel+fft"}
    assert plan_lti(8, 1024, 4096, 64, compiled=True).method == "kernel+fft"
    assert plan_lti(8, 1024, 4096, 64, compiled=True, initial_state=True).method == "scan"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"u": np.ones((3, 2))}, r"u has shape \(3, 2\): must be \(batch, length, channel\)"),
        ({"u": np.ones((1, 3, 2)) + 0j}, "u is complex128: must be real"),
        ({"poles": np.ones((3, 4))}, r"poles has shape \(3, 4\).*channel = 2"),
        ({"B": np.ones((2, 3))}, r"B has shape \(2, 3\): must be \(2, 4\)"),
        ({"C": np.ones(4)}, r"C has shape \(4,\)"),
        ({"D": np.ones(3)}, r"D has shape \(3,\): must be \(channel,\)"),
        ({"dt": np.ones(3)}, r"dt \(3,\)"),
        ({"dt": np.ones(2), "discretization": "zho"}, "must be one of 'zoh'"),
        ({"initial_state": np.ones((2, 4))}, r"initial_state has shape \(2, 4\)"),
        ({"backend": "fft"}, "backend='fft'"),
        ({"C": torch.ones(2, 4)}, "one library"),
    ],
)
def test_bad_scans(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        lti_scan(**{"u": np.ones((1, 3, 2)), "poles": np.ones((2, 4)), "B": None, "C": np.ones((2, 4)), **changes})


def test_other_refusals() -> None:
    one = np.ones((1, 1))
    for make, words in (
        (lambda: vandermonde_kernel(one, one, 0), "length=0"),
        (lambda: vandermonde_kernel(one, np.ones((1, 2)), 3), "must end as poles does"),
        (lambda: vandermonde_kernel(one, one, 3, dtype="float16"), "dtype='float16'"),
        (lambda: fft_convolve(np.ones((1, 3, 2)), one), "channel, length"),
        (lambda: lti_convolve(np.ones((1, 3, 1)), one, None, one, method="fft"), "method='fft'"),
        (lambda: plan_lti(0, 1, 1), "channels=0"),
        (lambda: cauchy_kernel(one, one, np.ones((1, 1, 2)), one, one, np.array(1.0), 4), "must be equal"),
    ):
        with pytest.raises(InputError) as caught:
            make()
        assert words in str(caught.value)
    x = torch.ones(1, 3, 1, requires_grad=True)
    (g,) = torch.autograd.grad(
        lti_scan(x, torch.ones(1, 1), None, torch.ones(1, 1)).square().sum(), x, create_graph=True
    )
    with pytest.raises(BackendError, match="backend='jax'"):
        g.sum().backward()


def test_one_channel_does_not_hide_another() -> None:
    """Powers are dropped beside their own state's largest, not beside another's."""
    one = np.ones((2, 1))
    poles = np.array([[1.05], [0.5]])
    for backend in ("numpy", "c"):
        K = vandermonde_kernel(poles, one, 4096, conjugate_pairs=False, backend=backend)
        np.testing.assert_allclose(K[1, :30], 0.5 ** np.arange(30), rtol=1e-12)
        y = lti_scan(np.ones((1, 300, 2)), np.array([[3.0], [0.5]]), None, one, conjugate_pairs=False,
                          backend=backend)  # fmt: skip
        np.testing.assert_allclose(y[0, -1, 1], 2.0, rtol=1e-12)
    small = vandermonde_kernel(poles - 0.1, np.array([[1e31], [1.0]]), 8, conjugate_pairs=False, backend="numpy")
    np.testing.assert_allclose(small[1], 0.4 ** np.arange(8), rtol=1e-12)


def test_the_hold_has_its_derivative_at_a_pole_of_zero() -> None:
    poles = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    K = vandermonde_kernel(poles, torch.ones(1, 1, dtype=torch.float64), 2, dt=torch.tensor(0.5).double(),
                                conjugate_pairs=False)  # fmt: skip
    K.sum().backward()
    # K_0 = dt (1 + x/2), K_1 = dt (1 + 3x/2) + O(x^2), x = dt pole
    assert poles.grad is not None
    assert poles.grad.item() == pytest.approx(0.5 * 2 * 0.5)


def test_systems_without_states_or_channels() -> None:
    for states, channels in ((0, 3), (2, 0)):
        poles, C = np.full((channels, states), 0.5), np.ones((channels, states))
        assert not vandermonde_kernel(poles, C, 5, backend="numpy").any()
        assert not lti_scan(np.ones((2, 6, channels)), poles, None, C, backend="numpy").any()


@pytest.mark.parametrize("method", ["scan", "kernel+fft"])
def test_both_ways_refuse_the_same(method: str) -> None:
    u, one = np.ones((1, 4, 3)), np.ones((3, 2))
    for options, words in (
        ({"poles": 0.5 * np.ones(2)}, "poles has shape"),
        ({"B": np.ones((2, 2))}, "B has shape"),
        ({"C": np.ones((3, 5))}, "C has shape"),
        ({"discretization": "zho"}, "Did you mean 'zoh'"),
    ):
        arguments: dict[str, Any] = {"poles": 0.5 * one, "B": one, "C": one, **options}
        with pytest.raises(InputError, match=words):
            lti_convolve(u, method=method, **arguments)


@pytest.mark.parametrize("reverse", [False, True])
def test_convolution_of_tensors_differentiates(reverse: bool) -> None:
    """First and second derivatives, in one block and in several of batch and of channels."""
    generator = torch.Generator().manual_seed(0)
    u, K = (torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in ((2, 6, 3), (3, 4)))
    assert torch.autograd.gradcheck(lambda *x: fft_convolve(*x, reverse=reverse), (u, K))
    assert torch.autograd.gradgradcheck(lambda *x: fft_convolve(*x, reverse=reverse), (u, K))
    # more than a block of channels, and of sequences
    for shape in ((3, 2100, 40), (40, 30, 20)):
        v, H = (torch.randn(s, generator=generator, requires_grad=True) for s in (shape, (shape[2], shape[1])))
        y = fft_convolve(v, H, reverse=reverse)
        dy = torch.randn(shape, generator=generator)
        found = (y, *torch.autograd.grad(y, (v, H), dy, create_graph=True))
        plain = torch.autograd.grad(y, (v, H), dy, retain_graph=True)
        size = 2 * shape[1]
        x, r = (torch.fft.rfft(z.double(), n=size, dim=1) for z in (v, H))
        r = r.T.conj() if reverse else r.T
        exact = torch.fft.irfft(x * r, n=size, dim=1)[:, : shape[1]]
        exact = (exact, *torch.autograd.grad(exact, (v, H), dy.double()))
        for got, wanted in zip((*found, *plain), (*exact, *exact[1:]), strict=True):
            torch.testing.assert_close(got.double(), wanted.double(), rtol=0, atol=1e-5 * wanted.abs().max().item())
