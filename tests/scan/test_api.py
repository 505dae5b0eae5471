"""What the scan refuses, in which words, and which backend it picks."""

from __future__ import annotations

import ctypes.util
import importlib.util
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ssmtheory.errors import BackendError, InputError, MissingDependencyError
from ssmtheory.scan import BACKENDS, c_backend, linear_recurrence, resolve_backend, selective_scan, torch_ops


def arguments(**changes: Any) -> dict[str, Any]:
    one = {
        "u": np.ones((2, 5, 6)), "delta": np.ones((2, 5, 6)), "A": -np.ones((6, 3)),
        "B": np.ones((2, 5, 3)), "C": np.ones((2, 5, 3)),
    }  # fmt: skip
    return {**one, **changes}


BAD: list[tuple[dict[str, Any], str]] = [
    ({"u": np.ones((5, 6))}, r"u has shape \(5, 6\): must be \(batch, length, channel\)"),
    ({"u": np.ones((2, 5, 6), int)}, "u is int64: must be float16, bfloat16, float32 or float64"),
    ({"u": np.ones((2, 5, 6), complex)}, "u is complex128: must be float16"),
    ({"u": [[[1.0]]]}, "u is of type list: must be a NumPy array, a PyTorch tensor or a JAX array"),
    ({"delta": np.ones((2, 5, 4))}, r"delta has shape \(2, 5, 4\).*\(2, 5, 6\)"),
    ({"A": np.ones((5, 3))}, r"A has shape \(5, 3\).*channel = 6"),
    ({"A": np.ones(4), "delta": np.ones((2, 5, 4))}, "heads must divide the 6 channels"),
    ({"A": np.ones((1, 6, 3))}, r"A has shape \(1, 6, 3\): must be \(channel, state\) or \(head,\)"),
    ({"A": -np.ones(3)}, r"delta has shape \(2, 5, 6\): must be \(batch, length, head\) = \(2, 5, 3\)"),
    ({"B": np.ones((2, 5, 4))}, "B has shape .* the 3 states"),
    ({"B": np.ones((2, 4, 3))}, "batch, length = 2, 5"),
    ({"C": np.ones((2, 5, 4, 3))}, "4 groups must divide the 6 channels"),
    ({"A": -np.ones(2), "delta": np.ones((2, 5, 2)), "C": np.ones((2, 5, 3, 3))}, "3 groups must divide the 2 heads"),
    ({"D": np.ones(5)}, r"D has shape \(5,\): must be \(channel,\) = \(6,\)"),
    ({"z": np.ones((2, 5, 5))}, "z has shape"),
    ({"delta_bias": np.ones(1)}, "delta_bias has shape"),
    ({"initial_state": np.ones((2, 3, 6))}, r"initial_state has shape \(2, 3, 6\).*\(2, 6, 3\)"),
    ({"reset": np.zeros((2, 5))}, "reset is float64: must be bool"),
    ({"reset": np.zeros((5, 2), bool)}, r"reset has shape \(5, 2\)"),
    ({"out": np.ones((2, 5, 6), "f4")}, "out is float32: must be float64, the dtype of u"),
    ({"out": np.ones((2, 5, 5))}, r"out has shape \(2, 5, 5\)"),
    ({"conjugate_pairs": True}, "conjugate_pairs=True with real A, B and C"),
    ({"reduce": 3}, "reduce is of type int"),
    ({"backend": "nunpy"}, "backend='nunpy': must be one of 'auto', 'numpy'.*Did you mean 'numpy'"),
    ({"A": torch.ones(6, 3)}, "u is a NumPy array but A is a PyTorch tensor"),
    ({"C": jnp.ones((2, 5, 3))}, "u is a NumPy array but C is a JAX array"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[m[:40] for _, m in BAD])
def test_bad_input_is_named_with_what_is_allowed(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        selective_scan(**arguments(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axis": 2}, "axis=2: b has 2 axes, so it must lie between -2 and 1"),
        ({"a": np.ones(3)}, r"a has shape \(3,\): must broadcast to that of b, \(2, 5\)"),
        ({"a": np.ones((1, 2, 5))}, "must broadcast"),
        ({"b": np.asarray(1.0)}, "b is a scalar"),
        ({"b": np.ones((2, 5), int)}, "b is int64"),
        ({"initial_state": np.ones(3)}, r"initial_state has shape \(3,\).*\(2,\)"),
        ({"reset": np.zeros(4, bool)}, r"reset has shape \(4,\): must be \(5,\)"),
        ({"reset": np.zeros(5)}, "reset is float64"),
        ({"out": np.ones((2, 5), "f4")}, "must be float64"),
        ({"a": torch.ones(2, 5)}, "a is a PyTorch tensor but b is a NumPy array"),
    ],
)
def test_bad_recurrence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        linear_recurrence(**{"a": np.ones((2, 5)), "b": np.ones((2, 5)), **changes})


def test_out_is_refused_where_it_cannot_be() -> None:
    tensors = {k: torch.tensor(v) for k, v in arguments().items()}
    tensors["u"].requires_grad_()
    with pytest.raises(InputError, match=r"use torch.no_grad\(\)"):
        selective_scan(**tensors, out=torch.empty(2, 5, 6, dtype=torch.float64))
    with torch.no_grad():
        selective_scan(**tensors, out=torch.empty(2, 5, 6, dtype=torch.float64))
    arrays = {k: jnp.asarray(v) for k, v in arguments().items()}
    with pytest.raises(InputError, match="immutable"):
        selective_scan(**arrays, out=arrays["u"])
    with pytest.raises(InputError, match="immutable"):
        linear_recurrence(arrays["u"], arrays["u"], out=arrays["u"])
    b = torch.ones(1, 3, requires_grad=True)
    with pytest.raises(InputError, match=r"use torch.no_grad\(\)"):
        linear_recurrence(b, b, out=torch.empty(1, 3))


def test_out_that_cannot_be_written_or_was_saved() -> None:
    out = np.zeros((2, 5, 6))
    out.flags.writeable = False
    for run in (lambda: selective_scan(**arguments(), out=out), lambda: linear_recurrence(np.ones(6), out, out=out)):
        with pytest.raises(InputError, match="out is read-only: give an array that can be written to"):
            run()
    # a tensor that autograd has saved must not change unseen
    x, saved = torch.ones(1, 4, requires_grad=True), torch.full((1, 4), 3.0)
    product = (x * saved).sum()
    with torch.no_grad():
        linear_recurrence(torch.tensor(0.5), torch.ones(1, 4), out=saved)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()
    negated = torch.zeros(1, 4, dtype=torch.complex64).conj().imag
    linear_recurrence(torch.tensor(0.5), torch.ones(1, 4), out=negated)
    assert negated.tolist() == [[1.0, 1.5, 1.75, 1.875]]


def test_auto_follows_the_arrays() -> None:
    usable, words = c_backend.status()
    for array, kind in ((np.ones(1), "numpy"), (torch.ones(1), "torch")):
        name = resolve_backend(array)
        assert name == ("c" if usable else kind)
        assert name.reason == f"the arrays are of {kind} and the kernel is {words}"
        assert name.asked == "auto"
    assert resolve_backend() == resolve_backend(np.ones(1))
    name = resolve_backend(torch.ones(1, device="meta"))
    assert (name, name.reason) == ("torch", "the tensors are on meta")
    assert resolve_backend(jnp.ones(1)) == "jax"
    name = resolve_backend(np.ones(1), backend="torch")
    assert (name.reason, name.asked) == ("it was named", "torch")
    copy = pickle.loads(pickle.dumps(name))
    assert (copy, copy.reason, copy.asked) == (name, name.reason, name.asked)
    with pytest.raises(InputError, match="one library"):
        resolve_backend(np.ones(1), torch.ones(1))
    with pytest.raises(BackendError, match="does not take torch arrays: use one of 'auto', 'torch', 'c'"):
        resolve_backend(torch.ones(1), backend="numpy")
    with pytest.raises(BackendError, match="does not take jax arrays"):
        resolve_backend(jnp.ones(1), backend="c")


def test_missing_backend_gives_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in ("torch", "jax") else find(name, *a)
    )
    for name in ("torch", "jax"):
        with pytest.raises(MissingDependencyError, match=rf"pip install 'ssmtheory\[{name}\]'"):
            selective_scan(**arguments(backend=name))


def test_uncompiled_kernel_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    c_backend.library.cache_clear()
    monkeypatch.setattr(c_backend, "library_path", lambda: None)
    try:
        with pytest.raises(BackendError, match="pip install"):
            selective_scan(**arguments(backend="c"))
        with pytest.raises(BackendError, match="C compiler"):
            resolve_backend(backend="c")
    finally:
        c_backend.library.cache_clear()


@pytest.mark.parametrize("words", ["not compiled", "compiled from another version"])
def test_auto_without_a_usable_kernel(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        c_backend, "library_path", lambda: None if words == "not compiled" else ctypes.util.find_library("c")
    )
    monkeypatch.setattr(torch_ops, "KERNEL", (False, words))
    c_backend.library.cache_clear()
    c_backend.status.cache_clear()
    try:
        assert c_backend.status() == (False, words)
        for array, kind in ((np.ones(1), "numpy"), (torch.ones(1), "torch")):
            name = resolve_backend(array)
            assert (name, name.reason) == (kind, f"the arrays are of {kind} and the kernel is {words}")
        with pytest.raises(BackendError, match="compile"):
            resolve_backend(torch.ones(1), backend="c")
        y = selective_scan(**arguments())
        np.testing.assert_array_equal(y, selective_scan(**arguments(backend="numpy")))
    finally:
        c_backend.library.cache_clear()
        c_backend.status.cache_clear()


def test_every_backend_name_resolves() -> None:
    for name in BACKENDS:
        # "triton" takes CUDA tensors only: test_triton.py
        if name != "triton" and (name != "c" or c_backend.library_path() is not None):
            assert resolve_backend(np.ones(1), backend=name) in BACKENDS[1:]


def test_the_numpy_scan_imports_neither_torch_nor_jax() -> None:
    code = (
        "import sys, numpy as np; from ssmtheory.scan import selective_scan as s; "
        "x = np.ones((1, 2, 3)); s(x, x, -np.ones((3, 1)), x[..., :1], x[..., :1]); "
        "print(sorted({'torch', 'jax', 'scipy', 'xarray'} & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert out.stdout.strip() == "[]"
