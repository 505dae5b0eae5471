"""The scan under the transformations of torch and JAX: each gives what the plain call gives.

Two implementations never agree to the bit; one implementation called in two ways does, and most comparisons are exact.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from ssmtheory.errors import BackendError
from ssmtheory.scan import selective_scan, torch_ops

# importing torch_ops registers the operators
COMPILED = ["c"] if torch_ops.KERNEL[0] else []
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")

pytestmark = pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning")


def inputs(
    *, batch: int = 2, length: int = 35, heads: int | None = None, groups: int = 1, complex_: bool = False,
    dtype: str = "float64", seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Every array of a scan of 6 channels and 4 states, as NumPy arrays."""
    rng = np.random.default_rng(seed)
    per = heads or 6

    def normal(*shape: int) -> Any:
        return rng.normal(size=shape) + (1j * rng.normal(size=shape) if complex_ else 0)

    values = {
        "u": rng.normal(size=(batch, length, 6)),
        "delta": rng.normal(size=(batch, length, per)),
        "A": -rng.uniform(0.1, 1, (per,) if heads else (6, 4)) + (1j * rng.normal() if complex_ else 0),
        "B": normal(batch, length, groups, 4),
        "C": normal(batch, length, groups, 4),
        "D": rng.normal(size=per),
        "z": rng.normal(size=(batch, length, 6)),
        "delta_bias": rng.normal(size=per),
        "initial_state": normal(batch, 6, 4),
    }
    narrow = {"float32": ("f4", "c8"), "float64": ("f8", "c16")}[dtype]
    return {k: v.astype(narrow[np.iscomplexobj(v)]) for k, v in values.items()} | {
        "reset": rng.random((batch, length)) < 0.15
    }


def tensors(gradient: bool = True, **options: Any) -> dict[str, Any]:
    found = {k: torch.tensor(v) for k, v in inputs(**options).items()}
    return {k: v.requires_grad_(gradient and k != "reset") for k, v in found.items()}


def scan(arrays: dict[str, Any], backend: str = "c", **options: Any) -> Any:
    return selective_scan(**arrays, **options, delta_softplus=True, return_last_state=True, backend=backend)


def loss_of(result: Any) -> Any:
    """A real number to which every element of y and of the last state contributes differently."""
    y, last = result
    weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape)
    more = torch.linspace(0.5, 1, last.numel(), dtype=last.real.dtype).reshape(last.shape)
    return (y * weights).sum() + ((last.real - 0.3 * last.imag if last.is_complex() else last) * more).sum()


def gradients(result: Any, arrays: dict[str, Any]) -> list[Any]:
    return list(torch.autograd.grad(loss_of(result), [arrays[k] for k in NAMES]))


def assert_same(actual: list[Any], expected: list[Any]) -> None:
    for name, a, b in zip(NAMES, actual, expected, strict=True):
        assert torch.equal(a, b), name


# ---------------------------------------------------------------- torch operators


def operator_arguments(keep: bool, **options: Any) -> tuple[Any, ...]:
    return *tensors(**options).values(), True, False, 1, keep


@pytest.mark.parametrize("options", [{}, {"heads": 3, "groups": 3, "complex_": True, "dtype": "float32"}], ids=str)
@pytest.mark.parametrize("backend", COMPILED)
def test_operators_pass_the_checks_of_torch(backend: str, options: dict[str, Any]) -> None:
    arguments = operator_arguments(True, **options)
    operators = torch.ops.ssmtheory
    torch.library.opcheck(operators.selective_scan.default, arguments)
    detached = [x.detach() if isinstance(x, torch.Tensor) else x for x in arguments]
    y, last, kept = operators.selective_scan(*detached)
    torch.library.opcheck(operators.selective_scan_backward.default, (y, last, kept, *detached[:-1]))
    torch.library.opcheck(operators.selective_scan_into.default, (*detached[:-1], torch.empty_like(y)))
    # what is kept: one state in 16 steps
    assert kept.numel() == 2 * 3 * 4 * 6 * (2 if options else 1)


@pytest.mark.parametrize("backend", COMPILED)
def test_a_gradient_that_nobody_prepared_for_is_the_same(backend: str) -> None:
    *found, keep = operator_arguments(False)
    y, last, kept = torch.ops.ssmtheory.selective_scan(*found, keep)
    assert not kept.numel()
    arrays = dict(zip((*NAMES, "reset"), found, strict=False))
    expected = scan(arrays)
    assert_same(gradients((y, last), arrays), gradients(expected, arrays))


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("backend", COMPILED)
def test_compile_makes_one_graph(backend: str, dynamic: bool | None) -> None:
    torch._dynamo.reset()
    graphs = []

    def count(graph: Any, example: Any) -> Any:
        graphs.append([str(node.target) for node in graph.graph.nodes if "ssmtheory" in str(node.target)])
        return graph

    for how in (count, "aot_eager"):
        # "auto" is the kernel here, and B and C are spread to one number of groups
        compiled = torch.compile(lambda x: scan(x, "auto"), backend=how, fullgraph=True, dynamic=dynamic)
        for length in (35, 50):
            arrays = tensors(length=length)
            arrays["C"] = arrays["C"].detach().repeat(1, 1, 2, 1).requires_grad_()
            found, expected = compiled(arrays), scan(arrays)
            assert torch.equal(found[0], expected[0])
            assert_same(gradients(found, arrays), gradients(expected, arrays))
    assert len(graphs) <= 2
    assert all(targets == ["ssmtheory.selective_scan"] for targets in graphs)


@pytest.mark.parametrize("backend", COMPILED)
def test_compile_under_no_grad_keeps_nothing_and_writes_to_out(backend: str) -> None:
    torch._dynamo.reset()
    arrays, out = tensors(gradient=False), torch.empty(2, 35, 6, dtype=torch.float64)
    compiled = torch.compile(lambda x, out: scan(x, out=out), backend="aot_eager", fullgraph=True)
    y, last = compiled(arrays, out)
    expected = scan(arrays)
    assert y.data_ptr() == out.data_ptr()
    assert torch.equal(out, expected[0])
    assert torch.equal(last, expected[1])


@pytest.mark.slow
@pytest.mark.parametrize("backend", COMPILED)
def test_inductor(backend: str) -> None:
    # needs a C++ compiler, and half a minute
    torch._dynamo.reset()

    def block(x: dict[str, Any]) -> Any:
        y, last = scan({**x, "u": torch.nn.functional.silu(x["u"])}, backend)
        return torch.tanh(y), last

    arrays = tensors()
    found, expected = torch.compile(block, fullgraph=True)(arrays), block(arrays)
    # inductor's own tanh and silu
    torch.testing.assert_close(found[0], expected[0], rtol=1e-13, atol=1e-13)
    for a, b in zip(gradients(found, arrays), gradients(expected, arrays), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["torch", *COMPILED])
def test_compile_breaks_its_graph_where_it_must(backend: str) -> None:
    # a loop over time in Python, or a callable: right, in more than one graph
    torch._dynamo.reset()
    arrays = tensors(length=20)
    seen: list[Any] = []

    def watch(states: Any, start: int) -> None:
        seen.append(states.clone())

    compiled = torch.compile(lambda x: scan(x, backend, reduce=watch if backend == "c" else None), backend="aot_eager")
    found, expected = compiled(arrays), scan(arrays, backend)
    assert torch.equal(found[0], expected[0])
    assert_same(gradients(found, arrays), gradients(expected, arrays))
    assert bool(seen) == (backend == "c")
    if seen:
        assert torch.equal(seen[-1][:, -1], expected[1])


@pytest.mark.parametrize("backend", ["torch", *COMPILED])
def test_checkpoint(backend: str) -> None:
    arrays = tensors()
    found = checkpoint(scan, arrays, backend, use_reentrant=False)
    assert_same(gradients(found, arrays), gradients(scan(arrays, backend), arrays))


@pytest.mark.parametrize("backend", ["torch", *COMPILED])
def test_autocast_leaves_the_scan_alone(backend: str) -> None:
    arrays = tensors(dtype="float32")
    weight = torch.eye(6, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        u = torch.nn.functional.linear(arrays["u"], weight)
        assert u.dtype == torch.bfloat16
        y, last = scan({**arrays, "u": u}, backend)
    # the dtype of u, the state in that of the widest input; one rounding
    assert (y.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    with torch.no_grad():
        expected, _ = scan({**arrays, "u": arrays["u"].bfloat16().float()}, backend)
    torch.testing.assert_close(y.float(), expected, rtol=2**-8, atol=1e-6)
    y.float().square().sum().backward()
    assert weight.grad.dtype == torch.float32
    assert arrays["A"].grad.dtype == torch.float32


@pytest.mark.parametrize("backend", COMPILED)
def test_writing_to_out_is_noticed_by_autograd(backend: str) -> None:
    arrays = tensors(gradient=False)
    out = torch.ones(2, 35, 6, dtype=torch.float64)
    x = torch.ones_like(out, requires_grad=True)
    product = x * out
    scan(arrays, out=out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()


# ---------------------------------------------------------------- torch.func


def of(arrays: dict[str, Any]) -> Any:
    def value(*values: Any) -> Any:
        return loss_of(scan(dict(zip(arrays, values, strict=True))))

    return value


#: Which inputs are mapped: all; those of each sequence; a parameter alone; the input alone.
MAPPED = [("all", NAMES), ("sequences", ("u", "delta", "B", "z")), ("A", ("A",)), ("u", ("u",))]


@pytest.mark.parametrize(("name", "mapped"), MAPPED, ids=[name for name, _ in MAPPED])
@pytest.mark.parametrize("backend", COMPILED)
def test_vmap_and_grad_compose(backend: str, name: str, mapped: tuple[str, ...]) -> None:
    plain = tensors(gradient=False)
    axes = [-1 if key in mapped else None for key in plain]
    scales = torch.tensor([1.0, 0.5, -0.25], dtype=torch.float64)
    stacked = {k: v if a is None else v[..., None] * scales for (k, v), a in zip(plain.items(), axes, strict=True)}

    def slices(i: int) -> list[Any]:
        return [v if a is None else v[..., i] for v, a in zip(stacked.values(), axes, strict=True)]

    y = torch.func.vmap(lambda *v: scan(dict(zip(plain, v, strict=True)))[0], in_dims=tuple(axes), out_dims=1)
    expected = [scan(dict(zip(plain, slices(i), strict=True)))[0] for i in range(3)]
    assert torch.equal(y(*stacked.values()), torch.stack(expected, 1))

    numbers = tuple(range(9))
    each = torch.func.grad(of(plain), argnums=numbers)
    single = [each(*slices(i)) for i in range(3)]
    for found, parts in zip(
        torch.func.vmap(each, in_dims=tuple(axes))(*stacked.values()), zip(*single, strict=True), strict=True
    ):
        assert torch.equal(found, torch.stack(parts))
    total = torch.func.grad(lambda *v: torch.func.vmap(of(plain), in_dims=tuple(axes))(*v).sum(), argnums=numbers)
    for found, parts, axis in zip(total(*stacked.values()), zip(*single, strict=True), axes[:9], strict=True):
        wanted = torch.stack(parts).sum(0) if axis is None else torch.stack(parts, -1)
        # sums over the mapped axis in another order
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", COMPILED)
def test_what_torch_func_cannot_do_is_refused(backend: str) -> None:
    arrays = tensors(gradient=False)
    rest = tuple(arrays.values())[1:]
    gradient = torch.func.grad(of(arrays))
    with pytest.raises(BackendError, match="cannot be differentiated again"):
        torch.func.grad(lambda u: gradient(u, *rest).sum())(arrays["u"])
    with pytest.raises(NotImplementedError, match="forward mode AD"):
        torch.func.jvp(lambda u: of(arrays)(u, *rest), (arrays["u"],), (arrays["u"],))
    with torch.autograd.forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward mode AD"):
        of(arrays)(torch.autograd.forward_ad.make_dual(arrays["u"], arrays["u"]), *rest)
    with pytest.raises(BackendError, match=r"inside torch.func transformations"):
        torch.func.grad(lambda u: scan({**arrays, "u": u}, reduce=lambda states, start: None)[0].sum())(arrays["u"])


@pytest.mark.parametrize("backend", COMPILED)
def test_reduce_beside_a_gradient(backend: str) -> None:
    arrays, seen = tensors(dtype="float32"), []
    found = scan(arrays, reduce=lambda states, start: seen.append(states))
    assert seen[0].dtype == torch.float64
    assert not seen[0].requires_grad
    assert_same(gradients(found, arrays), gradients(scan(arrays), arrays))


# ---------------------------------------------------------------- JAX


def test_jax_vmap_in_and_out_axes_and_gradients() -> None:
    plain = {k: jnp.asarray(v) for k, v in inputs(length=7, dtype="float32").items()}
    scales = jnp.asarray([1.0, 0.5, -0.25])
    # every second input is mapped, along its last axis
    axes = {k: -1 if i % 2 == 0 else None for i, k in enumerate(NAMES)} | {"reset": None}
    stacked = {k: v if axes[k] is None else v[..., None] * scales for k, v in plain.items()}
    assert axes["A"] == axes["u"] == axes["initial_state"] == -1

    def run(x: dict[str, Any]) -> Any:
        return scan(x, "jax")

    def loss(x: dict[str, Any], flags: Any) -> Any:
        y, last = run({**x, "reset": flags})
        return jnp.sum(y**2) + jnp.sum(jnp.sin(last))

    singles = [{k: v if axes[k] is None else v[..., i] for k, v in stacked.items()} for i in range(3)]
    y, last = jax.jit(jax.vmap(run, in_axes=(axes,), out_axes=(1, -1)))(stacked)
    # one program in float64 inside: equal up to one rounding of the float32 results, and of bias, softplus and gate
    for i, single in enumerate(singles):
        expected_y, expected_last = run(single)
        np.testing.assert_allclose(y[:, i], expected_y, rtol=2e-6, atol=1e-6)
        np.testing.assert_allclose(last[..., i], expected_last, rtol=2e-6, atol=1e-6)

    reset = plain.pop("reset")
    del stacked["reset"], axes["reset"]
    one = jax.jit(jax.grad(loss))
    expected = [one({k: v for k, v in single.items() if k != "reset"}, reset) for single in singles]
    each = jax.jit(jax.vmap(jax.grad(loss), in_axes=(axes, None)))(stacked, reset)
    total = jax.jit(jax.grad(lambda x: jnp.sum(jax.vmap(loss, in_axes=(axes, None))(x, reset))))(stacked)
    for k in NAMES:
        parts = jnp.stack([g[k] for g in expected])
        size = float(jnp.max(jnp.abs(parts)))
        np.testing.assert_allclose(each[k], parts, atol=3e-6 * size, err_msg=k)
        whole = jnp.sum(parts, 0) if axes[k] is None else jnp.moveaxis(parts, 0, -1)
        np.testing.assert_allclose(total[k], whole, atol=3e-6 * size, err_msg=k)


def test_jax_options_are_static_under_jit() -> None:
    arrays = {k: jnp.asarray(v) for k, v in inputs(length=9, complex_=True, dtype="float32").items()}
    jitted = jax.jit(
        selective_scan,
        static_argnames=("delta_softplus", "reverse", "return_last_state", "backend", "conjugate_pairs"),
    )
    for options in ({"reverse": True}, {"conjugate_pairs": True, "delta_softplus": True}):
        found = jitted(**arrays, **options, return_last_state=True, backend="jax")
        expected = selective_scan(**arrays, **options, return_last_state=True, backend="jax")
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert jitted._cache_size() == 2


# ---------------------------------------------------------------- sequences of different lengths, and both directions


@pytest.mark.parametrize("softplus", [False, True])
@pytest.mark.parametrize("backend", ["reference", "numpy", "torch", *COMPILED])
def test_a_padded_batch_is_each_sequence_alone(backend: str, softplus: bool) -> None:
    """Delta = 0 at the padding: exp(0) = 1 and nothing is written, so the last state is that after the last token."""
    lengths = (20, 13, 7)
    arrays = inputs(batch=3, length=20)
    del arrays["reset"]
    if not softplus:
        arrays["delta"] = np.abs(arrays["delta"])
        del arrays["delta_bias"]
    real = np.arange(20) < np.array(lengths)[:, None]
    arrays["u"] = np.where(real[..., None], arrays["u"], 1e3)
    arrays["delta"] = np.where(real[..., None], arrays["delta"], -np.inf if softplus else 0)
    wrap: Any = torch.tensor if backend == "torch" else np.asarray
    for reverse in (False, True):
        options = {"reverse": reverse, "delta_softplus": softplus, "return_last_state": True, "backend": backend}
        y, last = selective_scan(**{k: wrap(v) for k, v in arrays.items()}, **options)
        for i, length in enumerate(lengths):
            alone = {k: v if k in ("A", "D", "delta_bias") else v[i : i + 1] for k, v in arrays.items()}
            alone |= {k: alone[k][:, :length] for k in ("u", "delta", "B", "C", "z")}
            expected, state = selective_scan(**{k: wrap(v) for k, v in alone.items()}, **options)
            # matrix products of other shapes may sum in another order
            np.testing.assert_allclose(y[i, :length], expected[0], rtol=1e-13, atol=1e-13)
            np.testing.assert_allclose(last[i], state[0], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("backend", ["reference", "numpy", "torch", *COMPILED])
def test_a_prefix_read_both_ways_does_not_leak(backend: str) -> None:
    """A prefix seen from both sides, and a causal rest: the backward scan is cut where the prefix ends.

    `reset` zeroes the state before a step in the order of the scan; in reverse the last token of the prefix is such a
    step.
    """
    length, prefix = 18, 11
    arrays = inputs(length=length)
    arrays["delta"] = np.abs(arrays["delta"])
    for k in ("delta_bias", "initial_state", "reset", "D", "z"):
        del arrays[k]
    edge = np.zeros((2, length), bool)
    edge[:, prefix - 1] = True
    wrap: Any = torch.tensor if backend == "torch" else np.asarray

    def both(x: dict[str, Any]) -> Any:
        x = {k: wrap(v) for k, v in x.items()}
        forward = selective_scan(**x, backend=backend)
        backward = selective_scan(**x, reverse=True, reset=wrap(edge), backend=backend)
        return np.concatenate([np.asarray(forward + backward)[:, :prefix], np.asarray(forward)[:, prefix:]], 1)

    y = both(arrays)
    # the backward half by the forward scan of the flipped prefix
    head = {k: v if k == "A" else v[:, :prefix] for k, v in arrays.items()}
    flipped = {k: v if k == "A" else v[:, ::-1].copy() for k, v in head.items()}
    ahead, back = (selective_scan(**{k: wrap(v) for k, v in x.items()}, backend=backend) for x in (head, flipped))
    np.testing.assert_allclose(y[:, :prefix], np.asarray(ahead) + np.asarray(back)[:, ::-1], rtol=1e-13, atol=1e-13)
    # what comes after the prefix does not reach into it
    changed = {k: v.copy() for k, v in arrays.items()}
    for k in ("u", "B", "delta"):
        changed[k][:, prefix:] += 1
    np.testing.assert_array_equal(both(changed)[:, :prefix], y[:, :prefix])


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("backend", ["auto", *COMPILED])
def test_out_is_written_in_place_and_may_be_an_input(backend: str, dtype: str, kind: str) -> None:
    arrays = {k: v.astype(dtype) if v.dtype != bool else v for k, v in inputs().items()}
    wrap: Any = torch.tensor if kind == "torch" else np.array
    given = {k: wrap(v) for k, v in arrays.items()}
    expected, last = scan(given, backend)
    out = wrap(np.full((2, 35, 6), np.nan, dtype))
    strided = wrap(np.full((2, 6, 70), np.nan, dtype))
    for target in (out, strided[:, :, ::2].swapaxes(1, 2), given["u"]):
        y, again = scan(given, backend, out=target)
        assert y is target
        np.testing.assert_array_equal(np.asarray(y), np.asarray(expected))
        np.testing.assert_array_equal(np.asarray(again), np.asarray(last))
    assert np.isnan(np.asarray(strided)[:, :, 1::2]).all()
