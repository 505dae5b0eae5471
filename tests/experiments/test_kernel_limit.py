"""The experiment on kernel limits: kernels against dense exponentials, distances, and what the derivation says."""

from __future__ import annotations

import math
import shutil
import subprocess

import numpy as np
import pytest
import scipy.linalg

from ssmtheory import runner, symbolic
from ssmtheory.errors import ConfigError, InputError
from ssmtheory.experiments import kernel_limit as experiment
from ssmtheory.inits import hippo

SMALL = experiment.Config(
    init=("s4d-legs", "hippo-rho", "legt", "s4d-inv"),
    state_dims=(8, 16, 64),
    points=61,
    sampled_dims=(32, 256),
    bases_dim=40,
    bases_outputs=3,
)


@pytest.fixture(scope="module")
def tree():
    return experiment.run(SMALL)


def group(tree, name):
    return tree.children[name].to_dataset()


def test_modes_are_those_of_the_derivation(tree) -> None:
    data = group(tree, "modes")
    for label in SMALL.init:
        limit = symbolic.kernel_limit(label, 0)
        row = data.sel(init=label)
        found = dict(zip(row["convergence"].values, row["holds"].values, strict=True))
        assert {str(mode): bool(value) for mode, value in found.items()} == dict(limit.holds)
    s4d = data.sel(init="s4d-legs")
    held = dict(zip(s4d["convergence"].values, s4d["holds"].values, strict=True))
    assert (held["weak"], held["sampled"], held["L2"], held["uniform"]) == (1, 1, 0, 0)


def test_every_step_holds(tree) -> None:
    data = group(tree, "derivation")
    assert (data["checked"].values == 1).all()
    assert {str(status).split(":")[0] for status in data["status"].values} <= {"proved", "proved modulo named theorems"}
    assert set(data["subject"].values) == set(SMALL.init)


def test_kernels_against_the_matrix_exponential(tree) -> None:
    data = group(tree, "kernels")
    t = data["time"].values
    N = 16
    A, B = hippo.normal_part(N), hippo.legs(N)[1] / 2
    own = [(scipy.linalg.expm(x * A) @ B)[0] for x in t[:8]]
    np.testing.assert_allclose(data["kernel"].sel(init="s4d-legs", state_dim=N)[:8], own, atol=1e-11)
    A, B = hippo.legt(N)
    own = [(scipy.linalg.expm(x * A) @ B)[0] for x in t[:8]]
    np.testing.assert_allclose(data["kernel"].sel(init="legt", state_dim=N)[:8], own, atol=1e-9)
    np.testing.assert_allclose(data["limit"].sel(init="s4d-legs"), np.exp(-t), atol=1e-15)


def test_windowed_means_are_integrals(tree) -> None:
    data = group(tree, "kernels")
    N, w = 16, float(data["window"])
    A, B = hippo.normal_part(N), hippo.legs(N)[1] / 2
    x, weight = np.polynomial.legendre.leggauss(40)
    nodes = w / 2 * (1 + x)
    for k in (0, 5):
        start = float(data["time"][k])
        values = [(scipy.linalg.expm((start + node) * A) @ B)[0] - math.exp(-start - node) for node in nodes]
        mean = float(weight @ np.array(values)) / 2
        assert float(data["windowed"].sel(init="s4d-legs", state_dim=N)[k]) == pytest.approx(mean, abs=1e-10)


def test_averages_converge_where_the_kernel_does_not(tree) -> None:
    row = group(tree, "kernels").sel(init="s4d-legs")
    windowed = np.abs(row["windowed"].values).max(axis=1)
    assert windowed[-1] < windowed[0] / 4
    # the kernel starts at 1/2 instead of 1, whatever N
    np.testing.assert_allclose(row["difference"].values[:, 0], -0.5, atol=1e-9)
    assert (row["uniform_difference"].values >= 0.5 - 1e-9).all()


def test_distances(tree) -> None:
    data = group(tree, "kernels")
    measured, exact = data["l2_difference"], data["l2_exact"]
    for label in ("s4d-legs", "hippo-rho", "s4d-inv"):
        np.testing.assert_allclose(measured.sel(init=label), exact.sel(init=label), rtol=1e-8)
    assert (np.diff(measured.sel(init="hippo-rho")) < 0).all()
    assert (np.diff(measured.sel(init="legt")) < 0).all()
    # |K_N - 1_[0,1]|^2 by brute force
    t = np.linspace(0, 12, 24001)
    A, B = hippo.legt(8)
    step, x, values = scipy.linalg.expm(t[1] * A), B, []
    for _ in t:
        values.append(x[0])
        x = step @ x
    difference = np.array(values) - (t <= 1)
    brute = math.sqrt(np.trapezoid(difference**2, t))
    assert float(measured.sel(init="legt", state_dim=8)) == pytest.approx(brute, rel=1e-3)


def test_bases(tree) -> None:
    data = group(tree, "bases")
    t = data["time"].values
    legs = data["kernel"].sel(measure="legs")
    for n in range(3):
        np.testing.assert_allclose(legs[n], hippo.legs_kernel(n, t), atol=1e-12)
    # orthonormal with respect to exp(t) dt: what the exponentially warped measure means
    x, weight = np.polynomial.legendre.leggauss(60)
    u = (1 + x) / 2  # u = exp(-t)
    gram = np.array([[weight / 2 @ (hippo.legs_kernel(a, -np.log(u)) * hippo.legs_kernel(b, -np.log(u)) / u**2)
                      for a in range(3)] for b in range(3)])  # fmt: skip
    np.testing.assert_allclose(gram, np.eye(3), atol=1e-12)
    # FouT: cosines and sines on the window, 1 the first
    inside = (t > 0.2) & (t < 0.8)
    fout = data["kernel"].sel(measure="fout").values
    assert np.abs(fout[0][inside] - 1).max() < 0.1
    assert np.abs(fout[1][inside] - math.sqrt(2) * np.cos(2 * np.pi * t[inside])).max() < 0.2
    np.testing.assert_allclose(data["kernel"].sel(measure="s4d-real")[2], np.exp(-3 * t), atol=1e-12)


def test_sampled_kernels_converge(tree) -> None:
    data = group(tree, "sampled")
    worst = data["sup_difference"].max("output").values
    assert (worst[1] < worst[0] / 4).all()
    # ZOH samples of LegS are the kernel's mean over a step
    limit = data["limit"].values[0]
    dt = float(data["dt"])
    held = data["kernel"].sel({"method": "zoh", "state_dim": 256}).values[0]
    np.testing.assert_allclose(held, limit * (1 - math.exp(-dt)) / dt, atol=3 * worst[1, 0])


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"init": ("s5",)}, InputError, "no kernel limit is derived"),
        ({"init": ()}, ConfigError, "give at least one"),
        ({"state_dims": (9,)}, ConfigError, "must be even"),
        ({"output": 30}, ConfigError, "from 0 to 10"),
        ({"window": 0.0}, ConfigError, "must be above 0"),
        ({"bases_dim": 10}, ConfigError, "at least 40"),
    ],
)
def test_impossible_options_are_named(change, error, said) -> None:
    with pytest.raises(error, match=said):
        experiment.plan(experiment.Config(**change))


def test_where_the_derivation_is_written_is_no_part_of_the_run() -> None:
    plain, written = experiment.plan(experiment.Config()), experiment.plan(experiment.Config(latex="x.tex"))
    assert plain.resolved == written.resolved


def test_presets_fit_the_options() -> None:
    for preset in ("default", "smoke", "all"):
        config, _ = runner.parse("kernel_limit", experiment, ["--preset", preset])
        assert experiment.plan(config).tasks


def test_the_command_writes_the_derivation(tmp_path, capsys) -> None:
    target = tmp_path / "notes" / "out.tex"
    options = ["--preset", "smoke", "--init", "s4d-legs", "--out", str(tmp_path / "runs")]
    assert runner.main("kernel_limit", [*options, "--latex", str(target)]) == 0
    said = capsys.readouterr().out
    assert f"written  {target}" in said
    assert "It holds weakly, after sampling" in said
    assert "it fails in L2" in said
    assert "steps hold when executed" in said
    text = target.read_text()
    assert text.startswith("\\documentclass")
    assert text.count("\\end{document}") == 1
    # a complete run is not computed again, and the file is written all the same
    target.unlink()
    assert runner.main("kernel_limit", [*options, "--latex", str(target)]) == 0
    assert target.read_text() == text
    if shutil.which("pdflatex"):
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", target.name]
        subprocess.run(command, cwd=target.parent, check=True, capture_output=True, timeout=120)


def test_several_limits_make_one_document(tree) -> None:
    texts = experiment.documents(experiment.Config(init=SMALL.init, latex="all.tex"), tree)
    assert list(texts) == ["all.tex"]
    text = texts["all.tex"]
    assert text.count("\\begin{document}") == text.count("\\end{document}") == 1
    assert text.count("\\section*") == len(SMALL.init)
    assert experiment.documents(experiment.Config(), tree) == {}
