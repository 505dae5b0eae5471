"""The Triton kernels: read by Triton's interpreter at small sizes, compiled for three GPUs, and run on one if there is.

The interpreter is switched on when Triton is imported, so that its cases run in one process of their own
(``triton_cases.py``), which hands its errors back. Compilation needs no GPU.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssmtheory.errors import BackendError
from ssmtheory.scan import resolve_backend, selective_scan

sys.path.insert(0, str(Path(__file__).parent))
import triton_cases
from triton_cases import CASES, CHECKS, SLOW

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs triton: pip install 'ssmtheory[triton]' (Linux only)"
)

#: Largest error relative to the largest value: a few roundings of the arithmetic, or one to the dtype of the result.
TOLERANCE = {"float64": 2e-14, "float32": 3e-7, "float16": 5e-4, "bfloat16": 4e-3}
#: The interpreter cuts a number off to bfloat16 where a GPU rounds it.
INTERPRETED = {"bfloat16": 8e-3}
#: Gradients sum over all tokens; those in half precision come from cotangents that are exact.
GRADIENT_TOLERANCE = {"float64": 1e-12, "float32": 1e-6, "float16": 5e-4, "bfloat16": 4e-3}


# ---------------------------------------------------------------- in the interpreter


def marked(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in names]


@functools.cache
def interpreted(slow: bool) -> dict[str, Any]:
    """Errors of every case, slow or not, from a process in which Triton interprets."""
    names = [name for name in (*CASES, *CHECKS) if (name in SLOW) == slow]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", triton_cases.__file__, *names], capture_output=True, text=True,
        env=environment, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@needs_triton
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("name", marked(CASES))
def test_interpreted(name: str) -> None:
    found, dtype = interpreted(name in SLOW)[name], CASES[name].get("dtype", "float32")
    assert found["y"] <= INTERPRETED.get(dtype, TOLERANCE[dtype])
    # the state is never narrower than float32
    assert found["last"] <= min(TOLERANCE["float32"], TOLERANCE[dtype])
    assert set(found["gradients"]) >= {"u", "delta", "A", "B", "C"}
    for array, error in found["gradients"].items():
        assert error <= INTERPRETED.get(dtype, GRADIENT_TOLERANCE[dtype]), array


@needs_triton
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("check", marked(CHECKS))
def test_interpreted_check(check: str) -> None:
    assert interpreted(check in SLOW)[check] == "", check


# ---------------------------------------------------------------- compiled


#: Kernel, arithmetic and form of every kernel that a call can reach. What changes no more than a sign or one load
#: (reverse, half precisions, which optional inputs) is covered by the two extremes: none of them, and all.
FORMS: dict[str, dict[str, Any]] = {
    "plain": {"extras": False},
    "all": {},
    "own": {"varying": True},
    "heads": {"heads": True},
}
KERNELS = ("local_states", "adjoint_states", "carry_states", "carry_adjoints", "outputs", "every_state", "gradients")
VARIANTS = [(kernel, kind, form) for kernel in KERNELS for kind in ("float", "double", "complex") for form in FORMS]
#: Registers of a thread, and bytes of shared memory of a program, that every one of the targets has.
REGISTERS, SHARED = 255, 99 * 1024
TARGETS = (80, 90, 100)
#: Half a second to two seconds each: every kernel, kind and form once here, all of them for `-m slow`.
QUICK = [("local_states", "float", "plain"), ("carry_states", "complex", "all"), ("outputs", "double", "own")]
QUICK += [("gradients", "float", "heads")]


def arguments_of(kernel: str, kind: str, form: str) -> tuple[Any, dict[str, Any]]:
    """A kernel and the arguments that the host would launch it with, on tensors without memory."""
    from ssmtheory.scan import triton_backend as host
    from ssmtheory.scan import triton_kernels as kernels

    wanted = {"varying": False, "heads": False, "extras": True, **FORMS[form]}
    batch, length, channels, states, heads = 2, 64, 256, 16, 8
    real = torch.float64 if kind == "double" else torch.float32
    number = torch.complex64 if kind == "complex" else real

    def empty(*shape: int, dtype: torch.dtype = real) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    per, groups = heads if wanted["heads"] else channels, channels if wanted["varying"] else 2
    tensors = [
        empty(batch, length, channels), empty(batch, length, per),
        empty(per, dtype=number) if wanted["heads"] else empty(channels, states, dtype=number),
        *(empty(batch, length, groups, states, dtype=number) for _ in range(2)),
        *(
            (empty(per), empty(batch, length, channels), empty(per), empty(batch, channels, states, dtype=number),
             empty(batch, length, dtype=torch.bool))
            if wanted["extras"]
            else [None] * 5
        ),
    ]  # fmt: skip
    call = host._Call.of(tensors, wanted["extras"], wanted["extras"], 1, exact=kernel == "every_state")
    kept = empty(*call.kept_shape, dtype=call.kept_dtype)
    sums = empty(batch, call.chunks, channels, dtype=torch.float64)
    dy = empty(batch, length, channels)
    if kernel == "local_states":
        return kernels.local_states, host.local_arguments(call, kept, sums, None)
    if kernel == "adjoint_states":
        return kernels.local_states, host.local_arguments(call, kept, sums, dy)
    if kernel in ("carry_states", "carry_adjoints"):
        start = call.initial_state
        return kernels.carry_states, host.carry_arguments(call, kept, sums, start, sums, kernel == "carry_adjoints")
    if kernel == "outputs":
        return kernels.outputs, host.output_arguments(call, kept, dy, None)
    if kernel == "every_state":
        every = empty(call.planes, batch, length, states, channels, dtype=torch.float64)
        return kernels.outputs, host.output_arguments(call, kept, dy, every)
    results = {"du": dy, "ddelta": dy, "dz": dy, **host.span_results(call)}
    return kernels.gradients, host.gradient_arguments(call, dy, kept, kept, results)


def compiled(kernel: str, kind: str, form: str, target: int) -> Any:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function, arguments = arguments_of(kernel, kind, form)
    options = {name: arguments.pop(name) for name in ("num_warps", "enable_fp_fusion")}
    types = {torch.float32: "*fp32", torch.float64: "*fp64", torch.uint8: "*u8"}
    signature, constants = {}, {}
    for parameter in function.params:
        value = arguments.pop(parameter.name)
        if parameter.is_constexpr:
            signature[parameter.name], constants[(parameter.num,)] = "constexpr", value
        else:
            signature[parameter.name] = types[value.dtype] if isinstance(value, torch.Tensor) else "i64"
    assert not arguments
    source = ASTSource(fn=function, signature=signature, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)


def resources(cubin: bytes, folder: Path) -> dict[str, int]:
    """Registers, stack (where a thread keeps what does not fit in them) and shared memory, by the code itself."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    path = folder / "kernel.cubin"
    path.write_bytes(cubin)
    done = subprocess.run([tool, "--dump-resource-usage", path], capture_output=True, text=True, check=True)
    return {name: int(number) for name, number in re.findall(r"\b(REG|STACK|SHARED|LOCAL):(\d+)", done.stdout)}


def check_compiled(kernel: str, kind: str, form: str, target: int, folder: Path) -> None:
    result = compiled(kernel, kind, form, target)
    assert result.asm["cubin"][:4] == b"\x7fELF"
    assert f"sm_{target}" in result.asm["ptx"]
    assert result.metadata.shared <= SHARED
    used = resources(result.asm["cubin"], folder)
    assert used["REG"] <= REGISTERS
    # sixteen bytes are four registers out of 255; hundreds would be states that live in memory
    assert used["STACK"] <= 16
    assert used["LOCAL"] == 0
    if kind != "float":
        from ssmtheory.scan import triton_kernels

        names = ("_LN2_HIGH_64", "_LN2_LOW_64") + (("_HALF_PI_1", "_HALF_PI_2") if kind == "complex" else ())
        for constant in (getattr(triton_kernels, name).value for name in names):
            # rounded to float32, as `tl.fma` of Triton 3.7 does to a bare number, a decay has nine digits
            signs = (struct.pack(">d", sign * constant).hex() for sign in (1, -1))
            assert any(f"0d{digits}" in result.asm["ptx"].lower() for digits in signs), constant
    # a thread has all steps of one channel: the layout of the scans, which the compiler has chosen
    layouts = dict(re.findall(r"(#\w+) = (#ttg.blocked<\{[^}]*\}>)", result.asm["ttgir"]))
    scans = re.findall(r'"tt.scan".*?\}\) : \(tensor<\w+x\w+x\w+, (#\w+)>', result.asm["ttgir"], re.DOTALL)
    assert scans
    for name in scans:
        warps = result.metadata.num_warps
        assert f"sizePerThread = [1, 1], threadsPerWarp = [1, 32], warpsPerCTA = [1, {warps}]" in layouts[name]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Compile afresh, and leave nothing behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield


@needs_triton
@pytest.mark.parametrize(("kernel", "kind", "form"), QUICK)
@pytest.mark.parametrize("target", TARGETS)
def test_compiles(kernel: str, kind: str, form: str, target: int, cache: None, tmp_path: Path) -> None:
    check_compiled(kernel, kind, form, target, tmp_path)


@needs_triton
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("kernel", "kind", "form"), VARIANTS)
def test_every_variant_compiles(kernel: str, kind: str, form: str, cache: None, tmp_path: Path) -> None:
    for target in TARGETS:
        check_compiled(kernel, kind, form, target, tmp_path)


# ---------------------------------------------------------------- the choice of the backend


@needs_triton
def test_tensors_in_main_memory_are_refused() -> None:
    x = torch.ones(1, 3, 2)
    with pytest.raises(BackendError, match=r"does not do tensors on cpu \(CUDA only\)"):
        selective_scan(x, x, x[0, :2], x[..., :2], x[..., :2], backend="triton")


@needs_triton
def test_numpy_arrays_are_refused() -> None:
    with pytest.raises(BackendError, match="does not take numpy arrays"):
        resolve_backend(np.ones(3), backend="triton")


def test_triton_is_loaded_only_when_used() -> None:
    code = "import ssmtheory.scan, sys; ssmtheory.scan.resolve_backend(); assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------- on a GPU


@needs_triton
@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu(name: str) -> None:
    found, dtype = triton_cases.errors(CASES[name], "cuda"), CASES[name].get("dtype", "float32")
    assert found["y"] <= TOLERANCE[dtype]
    assert found["last"] <= min(TOLERANCE["float32"], TOLERANCE[dtype])
    for array, error in found["gradients"].items():
        assert error <= GRADIENT_TOLERANCE[dtype], array


@needs_triton
@pytest.mark.gpu
def test_a_million_slow_steps_on_a_gpu() -> None:
    length, rate = 1_000_000, float(np.float32(1e-6))
    one = torch.ones(1, length, 1, device="cuda")
    assert resolve_backend(one) == "triton"
    y = selective_scan(one, rate * one, -one[0, :1], one, one)
    # sum of a geometric series; expm1 because 1 - exp(-delta) would lose six digits
    expected = rate * np.expm1(-rate * np.arange(1, length + 1)) / np.expm1(-rate)
    np.testing.assert_allclose(y[0, :, 0].cpu().numpy(), expected, rtol=3e-7)
