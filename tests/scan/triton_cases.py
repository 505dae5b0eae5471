"""Cases of the Triton scan against the reference, and its gradients against PyTorch's in float64.

Run as a script, with TRITON_INTERPRET=1, it prints the errors of those that it is given as JSON: see test_triton.py.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch

from ssmtheory.scan import selective_scan

#: Odd lengths, lengths around a chunk (8 steps in float32), one state, states that are no power of two, channels that
#: fill no warp.
CASES: dict[str, dict[str, Any]] = {
    "plain": {"length": 11},
    "one state, one step": {"length": 1, "states": 1, "channels": 1},
    "a chunk": {"length": 8, "states": 1, "reverse": True},
    "all": {"length": 17, "extras": True, "batch": 2},
    "all, reverse": {"length": 9, "extras": True, "reverse": True},
    "float64": {"length": 7, "extras": True, "dtype": "float64"},
    "float16": {"length": 9, "extras": True, "dtype": "float16", "channels": 3},
    "bfloat16": {"length": 9, "extras": True, "dtype": "bfloat16", "channels": 3},
    "groups": {"length": 9, "groups": 2, "channels": 6, "extras": True},
    "own": {"length": 9, "groups": 5, "channels": 5, "extras": True, "reverse": True, "batch": 2},
    "wide": {"length": 3, "states": 1, "channels": 135},
    "heads": {"length": 9, "heads": 2, "channels": 6, "groups": 2, "extras": True},
    "heads, own": {"length": 9, "heads": 4, "channels": 4, "groups": 4},
    "growing": {"length": 9, "positive": True},
    "slow": {"length": 64, "states": 1, "channels": 2, "slow": 1e-6},
    "stiff": {"length": 9, "slow": 200.0},
    "spans": {"length": 21, "extras": True, "spans": True, "states": 2, "batch": 2},
    "complex": {"length": 7, "complex": True, "extras": True},
    "complex, pairs": {"length": 5, "complex": True, "pairs": True, "reverse": True, "states": 2},
    "complex, float64": {"length": 4, "complex": True, "dtype": "float64", "extras": True, "states": 2},
    "complex, heads": {"length": 4, "complex": True, "heads": 2, "groups": 2, "channels": 4, "extras": True},
    "complex, own": {"length": 4, "complex": True, "groups": 3, "channels": 3, "states": 2},
    "only A complex": {"length": 4, "complex": "A", "states": 2, "extras": True, "spans": True},
    "only B complex": {"length": 4, "complex": "B", "states": 2},
}
CHECKS = ("reduce", "reduce complex", "out", "empty", "nan", "second derivative")
#: A second and more each in the interpreter; what they combine, the others have one by one.
SLOW = frozenset({"all", "heads", "spans", "complex", "complex, heads", "reduce complex"})


def make(case: dict[str, Any], seed: int = 0) -> tuple[dict[str, Any], dict[str, bool]]:
    """Arrays by name, float64 or complex128 with values that the dtype of the case holds exactly, and flags."""
    rng = np.random.default_rng(seed)
    length, channels, states = case["length"], case.get("channels", 4), case.get("states", 3)
    heads, groups, complex_ = case.get("heads"), case.get("groups"), case.get("complex", False)
    batch = case.get("batch", 1)

    def normal(name: str, *shape: int) -> Any:
        x = rng.normal(size=shape)
        return x + 1j * rng.normal(size=shape) if complex_ is True or complex_ == name else x

    per = heads or channels
    A = rng.uniform(0.1, 2, (channels, states) if heads is None else heads) * (1 if case.get("positive") else -1)
    if complex_ is True or complex_ == "A":
        A = A + 3j * rng.normal(size=A.shape)
    shape = (batch, length, states) if groups is None else (batch, length, groups, states)
    u = rng.normal(size=(batch, length, channels))
    arrays = {
        "u": u, "delta": rng.uniform(0.01, 1, (batch, length, per)) * case.get("slow", 1), "A": A,
        "B": normal("B", *shape), "C": normal("C", *shape),
    }  # fmt: skip
    if case.get("extras"):
        arrays |= {
            "delta": rng.normal(size=(batch, length, per)), "D": rng.normal(size=per), "z": rng.normal(size=u.shape),
            "delta_bias": rng.normal(size=per) - 1, "initial_state": normal("h", batch, channels, states),
            "reset": rng.random((batch, length)) < 0.15,
        }  # fmt: skip
    arrays = {name: of(torch.tensor(x), case.get("dtype", "float32")) for name, x in arrays.items()}
    arrays = {name: x if x.dtype == torch.bool else of(x, "float64").numpy() for name, x in arrays.items()}
    arrays = {name: x.numpy() if isinstance(x, torch.Tensor) else x for name, x in arrays.items()}
    return arrays, {
        "delta_softplus": bool(case.get("extras")), "reverse": bool(case.get("reverse")),
        "conjugate_pairs": bool(case.get("pairs")),
    }  # fmt: skip


def of(x: torch.Tensor, dtype: str) -> torch.Tensor:
    """A tensor in a precision; complex ones have no half."""
    if x.dtype == torch.bool:
        return x
    if x.is_complex():
        return x.to(torch.complex128 if dtype == "float64" else torch.complex64)
    return x.to(getattr(torch, dtype))


def host(x: torch.Tensor) -> Any:
    return of(x.detach().cpu(), "float64").numpy()


def run(
    arrays: dict[str, Any], flags: dict[str, bool], dtype: str, device: str, backend: str, weights: Any
) -> tuple[Any, Any, dict[str, Any]]:
    """y, the last state, and the gradients of a weighted sum of both."""
    tensors = {name: of(torch.tensor(x), dtype).to(device) for name, x in arrays.items()}
    for x in tensors.values():
        if x.dtype != torch.bool:
            x.requires_grad_()
    y, last = selective_scan(**tensors, **flags, return_last_state=True, backend=backend)
    assert y.dtype == tensors["u"].dtype
    w, v = (torch.tensor(x).to(device) for x in weights)
    loss = (y * w.to(y.dtype)).double().sum() + (last * v.to(last.dtype)).real.double().sum()
    loss.backward()
    return host(y), host(last), {name: host(x.grad) for name, x in tensors.items() if x.requires_grad}


def error(actual: Any, expected: Any) -> float:
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    return float(np.max(np.abs(actual - expected)) / max(np.max(np.abs(expected)), 1e-300))


def errors(case: dict[str, Any], device: str = "cpu") -> dict[str, Any]:
    """Errors relative to the largest value: forward against the reference, gradients against autograd in float64."""
    arrays, flags = make(case)
    dtype = case.get("dtype", "float32")
    y, last = selective_scan(**arrays, **flags, return_last_state=True, backend="reference")
    rng = np.random.default_rng(1)
    # weights of few digits, which every dtype holds
    weights = [np.round(rng.normal(size=x.shape) * 8) / 8 for x in (y, last)]
    if case.get("spans"):
        from ssmtheory.scan import triton_backend

        whole, triton_backend._SPAN_BYTES = triton_backend._SPAN_BYTES, 1
    try:
        found = run(arrays, flags, dtype, device, "triton", weights)
    finally:
        if case.get("spans"):
            triton_backend._SPAN_BYTES = whole
    expected = run(arrays, flags, "float64", "cpu", "torch", weights)[2]
    gradients = {name: error(found[2][name], expected[name]) for name in expected}
    return {"y": error(found[0], y), "last": error(found[1], last), "gradients": gradients}


def check_reduce(complex_: bool) -> None:
    for reverse in (False, True):
        arrays, flags = make({"length": 7, "extras": True, "complex": complex_, "reverse": reverse, "states": 2})
        seen = np.full((1, 7, 4, 2), np.nan, complex if complex_ else float)

        def watch(states: Any, start: int, seen: Any = seen) -> None:
            assert np.isnan(seen[:, start : start + states.shape[1]]).all()
            seen[:, start : start + states.shape[1]] = states.numpy()

        expected = np.empty_like(seen)

        def record(states: Any, start: int, expected: Any = expected) -> None:
            expected[:, start : start + states.shape[1]] = states

        selective_scan(**arrays, **flags, reduce=record, backend="reference")
        tensors = {name: of(torch.tensor(x), "float32") for name, x in arrays.items()}
        y = selective_scan(**tensors, **flags, reduce=watch, backend="triton")
        for limit, worst in (
            (1e-14, error(seen, expected)),
            (1e-7, error(host(y), selective_scan(**arrays, **flags, backend="reference"))),
        ):
            assert worst < limit, f"{worst:.1e} against {limit:.0e}"


def check_out() -> None:
    arrays, flags = make({"length": 5, "states": 1})
    tensors = {name: of(torch.tensor(x), "float32") for name, x in arrays.items()}
    out = torch.empty_like(tensors["u"])
    assert selective_scan(**tensors, **flags, out=out, backend="triton") is out
    # strides of any kind are read in place
    tensors["u"] = tensors["u"].transpose(1, 2).contiguous().transpose(1, 2)
    tensors["B"] = torch.cat([tensors["B"], tensors["B"]], -1)[..., :1]
    assert torch.equal(selective_scan(**tensors, **flags, backend="triton"), out)


def check_empty() -> None:
    for change in ({"length": 0, "extras": True}, {"length": 2, "channels": 0}, {"length": 2, "states": 0}):
        arrays, flags = make(change)
        tensors = {name: of(torch.tensor(x), "float32") for name, x in arrays.items()}
        tensors["u"].requires_grad_()
        y, last = selective_scan(**tensors, **flags, return_last_state=True, backend="triton")
        expected = selective_scan(**arrays, **flags, return_last_state=True, backend="reference")
        np.testing.assert_allclose(host(y), expected[0])
        np.testing.assert_allclose(host(last), expected[1])
        y.sum().backward()
        assert tensors["u"].grad.shape == tensors["u"].shape


def check_nan() -> None:
    arrays, flags = make({"length": 10, "states": 1, "channels": 2})
    reset = np.zeros((1, 10), bool)
    reset[0, 6] = True
    arrays["reset"] = reset
    tensors = {name: of(torch.tensor(x), "float32") for name, x in arrays.items()}
    clean = selective_scan(**tensors, **flags, backend="triton")
    for bad in (float("nan"), float("inf")):
        tensors["u"][0, 3, 1] = bad
        y = selective_scan(**tensors, **flags, backend="triton")
        hit = torch.zeros_like(y, dtype=torch.bool)
        hit[0, 3:6, 1] = True
        assert not torch.isfinite(y[hit]).any()
        assert torch.equal(y[~hit], clean[~hit])


def check_second_derivative() -> None:
    arrays, flags = make({"length": 2, "states": 1, "channels": 1})
    tensors = {name: of(torch.tensor(x), "float32") for name, x in arrays.items()}
    u = tensors["u"].requires_grad_()
    y = selective_scan(**tensors, **flags, backend="triton")
    (du,) = torch.autograd.grad(y.square().sum(), u, create_graph=True)
    words = "nothing"
    try:
        du.sum().backward()
    except Exception as refusal:
        words = str(refusal)
    assert "cannot be differentiated again" in words


def hasten() -> None:
    """Make Triton's interpreter quick enough for a test: the same operations, fewer times.

    It prepares `triton.language` anew for each call of a function, and applies the function of a scan to one number at
    a time. Here it is prepared once, and a scan doubles the runs that it joins, over whole rows: other than in the
    registers of a GPU's thread, runs of many steps are joined too.
    """
    from triton.runtime import interpreter

    prepare, prepared = interpreter._patch_lang, {}

    class Nothing:
        def restore(self) -> None:
            pass

    def once(function: Any) -> Any:
        if id(function.__globals__) not in prepared:
            prepared[id(function.__globals__)] = prepare(function)
        return Nothing()

    def scan(self: Any, inputs: Any) -> Any:
        assert self.axis == 0
        types = [x.dtype for x in inputs]
        whole = [x.handle.data.copy() for x in inputs]
        step = 1
        while step < len(whole[0]):
            # shapes stay powers of two: the first rows join with what is rolled in from the end, and are put back
            early = (self.to_tensor(np.roll(x, step, 0), t) for x, t in zip(whole, types, strict=True))
            late = (self.to_tensor(x.copy(), t) for x, t in zip(whole, types, strict=True))
            for x, y in zip(whole, self.combine_fn.fn(*early, *late), strict=True):
                x[step:] = y.handle.data[step:]
            step *= 2
        return [self.to_tensor(x, t) for x, t in zip(whole, types, strict=True)]

    interpreter._patch_lang = once
    interpreter.ScanOps.generic_scan = scan


def main() -> None:
    hasten()
    checks = {
        "reduce": lambda: check_reduce(False), "reduce complex": lambda: check_reduce(True), "out": check_out,
        "empty": check_empty, "nan": check_nan, "second derivative": check_second_derivative,
    }  # fmt: skip
    assert set(checks) == set(CHECKS)
    results: dict[str, Any] = {}
    with np.errstate(all="ignore"):
        for name in sys.argv[1:]:
            if name in CASES:
                results[name] = errors(CASES[name])
                continue
            try:
                checks[name]()
                results[name] = ""
            except Exception as problem:
                results[name] = f"{type(problem).__name__}: {problem}"
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
