"""The benchmark's plumbing: who is checked and timed, in which order, what becomes of failures. Nothing is timed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from ssmtheory import bench, plotting
from ssmtheory.bench import cases, harness, limits, peers, report, worker
from ssmtheory.bench.cases import Case
from ssmtheory.errors import ConfigError
from ssmtheory.experiments import base
from ssmtheory.scan import selective_scan

TINY = Case("forward", "scan", length=12, channels=5, states=3)


# ---------------------------------------------------------------------- the right answers
def test_reference_of_the_scan_is_the_scan() -> None:
    arrays = cases.inputs(TINY)
    wide: dict[str, Any] = {name: value.astype(np.float64) for name, value in arrays.items()}
    y = selective_scan(**wide, delta_softplus=True, backend="reference")
    assert cases.error({"y": y}, cases.reference(TINY, arrays)) < 1e-13


def test_reference_of_the_gradient_agrees_with_automatic_differentiation() -> None:
    torch = pytest.importorskip("torch")
    case = Case("gradient", "scan", "gradient", batch=2, length=150, channels=4, states=3)  # two segments
    arrays = cases.inputs(case)
    t = {name: torch.tensor(value.astype(np.float64), requires_grad=True) for name, value in arrays.items()}
    step = torch.nn.functional.softplus(t["delta"] + t["delta_bias"])
    h, ys = torch.zeros(2, 4, 3, dtype=torch.float64), []
    for k in range(case.length):
        h = torch.exp(step[:, k, :, None] * t["A"]) * h + (step[:, k] * t["u"][:, k])[..., None] * t["B"][:, k, None]
        ys.append((h * t["C"][:, k, None]).sum(-1))
    y = (torch.stack(ys, 1) + t["D"] * t["u"]) * torch.nn.functional.silu(t["z"])
    names = list(cases.SCAN_INPUTS)
    expected = torch.autograd.grad((y * t["dy"].detach()).sum(), [t[name] for name in names])
    found = cases.reference(case, arrays)
    assert list(found) == names
    for name, value in zip(names, expected, strict=True):
        np.testing.assert_allclose(found[name], value.numpy(), rtol=1e-11, atol=1e-12)


def test_reference_of_a_convolution_is_the_convolution_with_its_kernel() -> None:
    case = Case("convolve", "convolve", length=50, channels=3, states=2)
    arrays = cases.inputs(case)
    kernel = cases.exact_kernel(arrays, case.length)
    full = [np.convolve(arrays["u"][0, :, d].astype(np.float64), kernel[d])[: case.length] for d in range(3)]
    checked = cases.checked(case)("y", np.stack(full, -1)[None])
    assert cases.error({"y": checked}, cases.reference(case, arrays)) < 1e-13


def test_a_result_of_another_shape_or_with_a_nan_is_infinitely_wrong() -> None:
    right = {"y": np.ones(3)}
    assert cases.error({"y": np.ones(2)}, right) == np.inf
    assert cases.error({"y": np.array([1.0, np.nan, 1.0])}, right) == np.inf


def test_cases_are_distinct_and_the_targets_are_among_them() -> None:
    for quick in (False, True):
        names = [case.name for case in cases.suite(quick)]
        assert len(set(names)) == len(names)
    names = [case.name for case in cases.suite()]
    for target in report.TARGETS:
        assert target.case in names
        assert target.other in ["", *names]
        assert target.peer in ["", *peers.PEERS]


# ---------------------------------------------------------------------- taking turns
class Fake:
    """Stands for a process: answers are written down beforehand, and so is who was asked what."""

    def __init__(self, log: list[str], answers: Mapping[str, Any]) -> None:
        self.log, self.answers, self.name = log, answers, ""

    def ask(self, request: Mapping[str, Any], seconds: float) -> Mapping[str, Any]:
        if request["do"] == "limits":
            return dict.fromkeys(limits.RATES, 1.0)
        if request["do"] == "release":
            return {}
        self.name = request.get("peer", self.name)
        self.log.append(f"{self.name}:{request['do']}")
        answer = self.answers[self.name]
        if request["do"] == "prepare":
            prepared = {
                "setup_wall": 0.1, "first": {"cpu": 9.0, "wall": 9.0}, "error": 1e-7, "memory": 100,
                "seconds": {"cpu": 1.0, "wall": 1.0}, "once": False,
            }  # fmt: skip
            return {**prepared, **answer.get("prepare", {})}
        return answer["calls"].pop(0)

    def close(self) -> None:
        self.log.append(f"{self.name}:close")


def _measure(
    answers: Mapping[str, Any], settings: harness.Settings, monkeypatch: pytest.MonkeyPatch, case: Case = TINY
) -> tuple[dict[str, np.ndarray], list[str]]:
    known = {name: peers.Peer(name, name, ("scan",), lambda *_: None) for name in answers}  # type: ignore[arg-type, return-value]
    monkeypatch.setattr(limits, "available", lambda: False)
    log: list[str] = []
    pool = harness.Pool(start=lambda threads: Fake(log, answers))
    found = harness.measure(case, answers, settings, pool, known=known)
    return found, log


def _calls(*seconds: float) -> list[dict[str, float]]:
    return [{"cpu": s, "wall": 2 * s} for s in seconds]


def test_peers_take_turns_after_each_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"A": {"calls": _calls(1, 2, 3)}, "B": {"calls": _calls(4, 5, 6)}}
    found, log = _measure(answers, harness.Settings(rounds=3, threads=(1,)), monkeypatch)
    assert log == ["A:prepare", "B:prepare", "A:call", "B:call", "A:call", "B:call", "A:call", "B:call"]
    np.testing.assert_array_equal(found["cpu"], [[[1, 2, 3], [4, 5, 6]]])
    np.testing.assert_array_equal(found["wall"], [[[2, 4, 6], [8, 10, 12]]])
    np.testing.assert_array_equal(found["first_cpu"], [[9, 9]])
    assert [harness.STATES[i] for i in found["state"]] == ["measured"] * 2


def test_what_goes_wrong_is_reported_and_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "wrong": {"prepare": {"error": 0.5}, "calls": []},
        "nan": {"prepare": {"error": float("inf")}, "calls": []},
        "broken": {"prepare": {"failed": "ValueError: no"}, "calls": []},
        "late": {"prepare": {"failed": "no answer in 9 s", "late": True, "gone": True}, "calls": []},
        "dies": {"calls": [*_calls(1), {"failed": "the process ended", "gone": True}]},
        "good": {"calls": _calls(1, 1, 1)},
    }
    found, log = _measure(answers, harness.Settings(rounds=3, threads=(1,)), monkeypatch)
    states = [harness.STATES[i] for i in found["state"]]
    assert states == ["wrong", "wrong", "failed", "too_long", "failed", "measured"]
    assert all(found["reason"])
    assert "5.0e-01" in found["reason"][0]
    assert np.isnan(found["cpu"][0, :5]).all()
    assert {"late:close", "dies:close"} <= set(log)  # a process that is gone is not asked again


def test_a_slow_peer_is_called_less_often_and_never_twice_if_it_is_dear(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "fast": {"calls": _calls(1, 1, 1, 1)},
        "slow": {"prepare": {"seconds": {"cpu": 5.0, "wall": 5.0}}, "calls": _calls(5, 5)},
        "dear": {"prepare": {"seconds": {"cpu": 40.0, "wall": 40.0}, "once": True}, "calls": []},
    }
    found, _ = _measure(answers, harness.Settings(rounds=4, budget=10, threads=(1,)), monkeypatch)
    assert np.isfinite(found["cpu"][0]).sum(-1).tolist() == [4, 2, 1]
    assert found["cpu"][0, 2, 0] == 40


def test_a_case_that_would_take_too_long_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = peers.Peer("square", "square", ("scan",), lambda *_: None, order=2)  # type: ignore[arg-type, return-value]
    pool = harness.Pool(start=lambda threads: pytest.fail("a process was started"))
    short = Case("gradient", "scan", "gradient", length=10, channels=5, states=3)
    pool.seconds["square", "scan/gradient"] = short, 1.0
    long = Case("gradient", "scan", "gradient", length=200, channels=5, states=3)
    assert harness.predicted(pool, peer, long) == pytest.approx(400)
    found = harness.measure(long, ["square"], harness.Settings(limit=120), pool, known={"square": peer})
    assert harness.STATES[found["state"][0]] == "too_long"
    assert "400 s" in found["reason"][0]


def test_a_peer_that_is_not_installed_says_so() -> None:
    absent = peers.Peer("absent", "absent", ("scan",), lambda *_: None, needs=("no_such_module",))  # type: ignore[arg-type, return-value]
    found = harness.measure(TINY, ["absent"], harness.Settings(), harness.Pool(), known={"absent": absent})
    assert harness.STATES[found["state"][0]] == "not_available"
    assert found["reason"][0] == "not installed: no_such_module"


# ---------------------------------------------------------------------- one process
def test_a_process_warms_checks_and_times_with_the_clock_it_is_given(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = np.arange(12.0).reshape(1, 12, 1)
    np.savez(tmp_path / "inputs.npz", u=right)
    np.savez(tmp_path / "reference.npz", y=right)
    calls: list[int] = []
    done = peers.Prepared(lambda: calls.append(1) or 1.0001 * right, lambda y: {"y": y})  # type: ignore[func-returns-value]
    peer = peers.Peer("fake", "fake", ("scan",), lambda case, arrays: done, reuses=False)
    monkeypatch.setitem(peers.PEERS, "fake", peer)
    monkeypatch.setattr(worker.resource, "setrlimit", lambda *_: None)
    ticks = itertools.count(0.0, 0.25)
    process = worker.Bench(clock=lambda: (next(ticks), 100.0))
    case = {"group": "g", "kind": "scan", "length": 12, "channels": 1, "states": 1, "threads": [1]}
    request = {"do": "prepare", "peer": "fake", "case": case, "folder": str(tmp_path), "memory": 1.0, "once": 9.0}
    answer = process.answer(request)
    assert answer["error"] == pytest.approx(1e-4)
    assert answer["first"] == {"cpu": 0.25, "wall": 0.0}
    assert len(calls) == 2
    assert process.answer({"do": "call"})["cpu"] == 0.25
    assert len(calls) == 4  # a short call is preceded by one that is not timed


def test_a_real_process_answers_and_survives_a_failure(tmp_path: Any) -> None:
    arrays = cases.inputs(TINY)
    np.savez(tmp_path / "inputs.npz", **arrays)
    np.savez(tmp_path / "reference.npz", **cases.reference(TINY, arrays))
    case = {**vars(TINY)}
    process = harness.Worker(1)
    try:
        request = {"do": "prepare", "case": case, "folder": str(tmp_path), "memory": 1.0, "once": 9.0}
        assert "KeyError" in process.ask({**request, "peer": "nobody"}, 60)["failed"]
        answer = process.ask({**request, "peer": "ssmtheory numpy"}, 60)
        assert answer["error"] < 1e-5
        assert set(process.ask({"do": "call"}, 60)) == {"cpu", "wall"}
        process.process.kill()
        assert "ended" in process.ask({"do": "call"}, 60)["failed"]
    finally:
        process.close()


ADAPTERS = (
    "transformers", "mambapy", "assoc-scan", "jax lax.scan", "jax associative_scan", "baseline torch loop",
    "ssmtheory c out", "ssmtheory torch", "ssmtheory jax",
)  # fmt: skip


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("mode", ["forward", "gradient"])
def test_adapters_compute_the_case(name: str, mode: str) -> None:
    peer = peers.PEERS[name]
    if reason := peers.missing(peer):
        pytest.skip(reason)
    case = Case(mode, "scan", mode, batch=2, length=16, channels=8, states=4)
    arrays = cases.inputs(case)
    prepared = peer.prepare(case, arrays)
    found = {key: np.asarray(value) for key, value in prepared.arrays(prepared.call()).items()}
    # float32 arithmetic over sixteen steps
    assert cases.error(found, cases.reference(case, arrays)) < 1e-5


# ---------------------------------------------------------------------- the dataset
def _tree() -> Any:
    """A run of two peers and one target that is met by invented times."""
    config = bench.Config(cases=("forward/L1024-D1536-N16", "length"), peers=("transformers",), rounds=4, threads=(1,))
    plan = bench.plan(config)
    plan.context.peers = ["ssmtheory c out", "ssmtheory c", "transformers"]
    parts = {}
    for number, key in enumerate(plan.tasks):
        shape = (1, 3, 4)
        seconds = np.array([1e-3, 2e-3, 0.2])[:, None] * np.array([1.0, 1.1, 0.9, 1.0]) * (1 + number)
        seconds = np.broadcast_to(seconds, shape).copy()
        seconds[0, 2, 2:] = np.nan
        part = {name: np.full(shape[:2], 0.5) for name in ("first_cpu", "first_wall", "setup_wall")}
        part |= {"cpu": seconds, "wall": seconds, "memory": np.full(3, 1e6), "error": np.full(3, 1e-7)}
        part |= {"state": np.full(3, report.MEASURED, np.int8), "reason": np.full(3, "", "<U400")}
        part |= {f"rate_{rate}": np.full(4, 1e9) for rate in limits.RATES}
        if number:
            part["state"][2], part["reason"][2] = harness.STATES.index("failed"), "ValueError: it broke"
            part["cpu"][0, 2] = part["wall"][0, 2] = np.nan
        parts[key] = {f"times/{name}": value for name, value in part.items()}
    return base.finish(bench, plan, parts), plan  # type: ignore[arg-type]


def test_the_dataset_keeps_its_schema_and_says_what_was_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "vector_width", lambda: 8)
    tree, _ = _tree()
    times, targets = tree["times"], tree["targets"]
    # medians over the rounds in which both took part, the first two
    assert float(times["ratio"].values[0, 0, 2]) == pytest.approx(0.2 * 1.05 / (1e-3 * 1.05))
    assert times["repetitions"].values[0, 0].tolist() == [4, 4, 2]
    assert times["compared_with"].values.tolist() == [0] * 7
    met = dict(zip(targets["target"].values.tolist(), targets["met"].values.tolist(), strict=True))
    assert met["ratio forward/L1024-D1536-N16 against transformers"] == 1
    assert met["ratio forward/L1024-D1536-N16 against mambapy"] == -1
    slots = limits.scan_slots(1, 1024, 1536, 16, 8, "forward")
    assert float(times["fraction"].values[0, 0]) == pytest.approx(slots / 1e9 / 1e-3)
    lines = "\n".join(bench.verdict(tree))
    assert "failed: ValueError: it broke" in lines
    assert "200x" in lines
    assert "not measured" in lines


def test_the_figure_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    from ssmtheory.plotting import style

    monkeypatch.setattr(limits, "vector_width", lambda: 8)
    tree, _ = _tree()
    figures = plotting.quicklook("bench", tree)
    assert list(figures) == ["overview"]
    sweep = figures["overview"].axes[0]
    assert [line.get_label() for line in sweep.lines] == ["ssmtheory c out", "ssmtheory c", "limit"]
    np.testing.assert_allclose(sweep.lines[0].get_ydata(), 1e3 * tree["times/median_cpu"].values[1:, 0, 0])
    assert style.render(figures["overview"], "png")


def test_slots_are_those_that_are_written_down() -> None:
    both = [limits.scan_slots(1, 10, 16, 16, 16, mode) for mode in ("forward", "backward", "gradient")]
    assert both == [10 * (12 * 16 + 80), 10 * (20 * 16 + 150), 10 * (32 * 16 + 230)]


def test_limits_are_rates_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = limits.work(scale=1e-3)
    assert set(found) == set(limits.RATES)
    assert all(value > 0 for value in found.values()) or not limits.available()
    monkeypatch.setattr(limits, "_path", lambda: None)
    assert all(np.isnan(value) for value in limits.work().values())
    assert limits.vector_width() == 0


# ---------------------------------------------------------------------- options
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cases": ("forwrad",)}, "Did you mean 'forward'?"),
        ({"peers": ("transformer",)}, "Did you mean 'transformers'?"),
        ({"rounds": 0}, "must be above 0"),
        ({"threads": (2,)}, "1 comes first"),
    ],
)
def test_impossible_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("?", r"\?")):
        bench.plan(bench.Config(**options))


def test_a_plan_names_what_decides_the_result() -> None:
    plan = bench.plan(bench.Config(quick=True, cases=("recurrence",), peers=("mambapy",)))
    assert set(plan.resolved) >= {"peers", "processor", "sources_sha256", "cases", "rounds"}
    assert set(plan.resolved["peers"]) == {"mambapy", "ssmtheory recurrence out", "ssmtheory recurrence"}
    assert plan.tasks == ["recurrence/L128-D32", "recurrence/L128-D32-complex"]


def test_ours_are_added_unless_some_of_them_are_named() -> None:
    chosen = ("mambapy", "ssmtheory recurrence")
    plan = bench.plan(bench.Config(quick=True, cases=("recurrence",), peers=chosen))
    assert set(plan.resolved["peers"]) == set(chosen)
