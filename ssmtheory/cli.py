"""The `ssmtheory` command: every experiment as a subcommand, and the commands that look after runs, figures and claims.

`ssmtheory token-dynamics ...` and `python -m ssmtheory.experiments.token_dynamics ...` are the same: both hand the
options to `ssmtheory.runner.main`, which reads them from the experiment's `Config`. Commands import late.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import shutil
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
from cyclopts import App, Group, Parameter

from ssmtheory import __version__, experiments, resources
from ssmtheory.errors import ConfigError, InputError, guarded, nearest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["main"]

RUNS = Path("runs")
_Names = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="", show_default=False)]
_Flag = Annotated[bool, Parameter(negative="", show_default=False)]


# ---------------------------------------------------------------------------------------------------- runs


def runs(*, out: Path = RUNS) -> None:
    """List the runs in a folder, newest first.

    Args:
        out: folder that holds the runs.
    """
    from ssmtheory.results import compare

    print(compare.format_runs(compare.list_runs(out), _width()))


def show(run: str, other: str | None = None, /, *, variables: _Names = (), out: Path = RUNS) -> None:
    """Show one run in words and numbers, or the difference of two.

    Args:
        run: folder of a run, its id, or the beginning of its id.
        other: a second run, to compare the first with.
        variables: variables or groups to show value by value along the layers.
        out: folder that holds the runs.
    """
    from ssmtheory.results import compare

    print(compare.show(run, other, variables=variables, out=out, width=_width()))


def whence(figure: Path, /, *, out: Path = RUNS) -> None:
    """Say which run, configuration and commit a figure comes from.

    Args:
        figure: a PDF, PNG or SVG that ssmtheory wrote.
        out: folder that holds the runs.
    """
    from ssmtheory.results import compare

    print(compare.whence(figure, out=out))


def verify(run: str, other: str | None = None, /, *, rtol: float = 1e-5, out: Path = RUNS) -> int:
    """Check a run against its own record, and against a second run of the same configuration.

    Args:
        run: folder of a run, its id, or the beginning of its id.
        other: a second run of the same configuration, from another machine for example.
        rtol: how far the second may differ, relative to a variable's largest value.
        out: folder that holds the runs.
    """
    from ssmtheory import runner

    verification = runner.verify(run, other, rtol=rtol, out=out)
    print(verification)
    return 0 if verification.ok else 1


def export(run: str, target: Path, /, *, anonymous: _Flag = False, out: Path = RUNS) -> None:
    """Copy a complete run to a folder, or into one file if its name ends in .zip.

    Args:
        run: folder of a run, its id, or the beginning of its id.
        target: what to write; must not exist yet.
        anonymous: leave out host, paths, command lines, times and commit (double-blind review).
        out: folder that holds the runs.
    """
    from ssmtheory import results

    print(results.export(run, target, anonymous=anonymous, out=out))


def _width() -> int:
    """Columns of the terminal; 120 where the output goes elsewhere."""
    return shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 120


# ---------------------------------------------------------------------------------------------------- configs, doctor


def configs() -> None:
    """List the presets that ship with the package."""
    found = resources.names("preset")
    rows = []
    for name in found:
        experiment, _, preset = name.removesuffix(".toml").partition(".")
        first = resources.resource("preset", name).read_text(encoding="utf-8").partition("\n")[0]
        rows.append((f"{experiment.replace('_', '-')} --preset {preset}", first.lstrip("# ")))
    if not rows:
        print("no presets ship with this installation")
    _table(rows)


#: part -> (distribution, what it is for, what installs it)
PARTS: dict[str, tuple[str, str]] = {
    "torch": ("torch", "pip install 'ssmtheory[torch]'"),
    "jax": ("jax", "pip install 'ssmtheory[jax]'"),
    "hub download": ("huggingface_hub", "pip install 'ssmtheory[hf]'"),
    "hub tokenizers": ("tokenizers", "pip install 'ssmtheory[hf]'"),
    "peer for self-checks": ("transformers", "pip install transformers"),
    "interval arithmetic": ("python-flint", "pip install 'ssmtheory[rigor]'"),
    "python-control": ("control", "pip install 'ssmtheory[control]'"),
    "pyMOR": ("pymor", "pip install 'ssmtheory[control]'"),
    "SLICOT": ("slycot", "pip install 'ssmtheory[control]'"),
    "netCDF export": ("h5netcdf", "pip install 'ssmtheory[netcdf]'"),
    "cluster": ("distributed", "pip install 'ssmtheory[cluster]'"),
    "seaborn": ("seaborn", "pip install 'ssmtheory[figures]'"),
}
#: module of ssmtheory.scan that loads a C source -> (label, what is lost where it is not compiled)
KERNELS: dict[str, tuple[str, str]] = {
    "c_backend": ("selective scan in C", "NumPy or torch run it, about ten times as long"),
    "conv_backend": ("convolution in C", "NumPy or torch run it, in more passes over memory"),
    "recurrence_backend": ("linear recurrence in C", "NumPy or torch run it, a step of time after another"),
}
CORE = ("array-api-compat", "cyclopts", "matplotlib", "numpy", "safetensors", "scipy", "sympy", "xarray", "zarr")


def doctor() -> None:
    """Say what is installed, and the command that gets what is not."""
    rows = [("part", "state", "command that gets it"), ("ssmtheory", __version__, ""), ("Python", _python(), "")]
    missing_core = "pip install --force-reinstall ssmtheory"
    rows += [(name, *_state(name, missing_core)) for name in CORE]
    rows += [_kernel(module, *words) for module, words in KERNELS.items()]
    rows += [(part, *_state(name, command)) for part, (name, command) in PARTS.items()]
    for kind, label in (("weights", "bundled models"), ("preset", "presets"), ("figure", "figure scripts")):
        # a bundled model is a folder with a config.json
        suffix = "/config.json" if kind == "weights" else ""
        count = sum(name.endswith(suffix) for name in resources.names(kind))
        rows.append((label, f"{count}" if count else "missing", "" if count else missing_core))
    _table(rows)


def _kernel(module: str, label: str, lost: str) -> tuple[str, str, str]:
    """Whether a C source is compiled and for which processor; else what is lost and the command that gets it."""
    usable, words = importlib.import_module(f"ssmtheory.scan.{module}").status()
    command = "install a C compiler, then: pip install --force-reinstall --no-deps ssmtheory"
    return label, words, "" if usable else f"{command} (without: {lost})"


def _python() -> str:
    return ".".join(map(str, sys.version_info[:3]))


def _state(distribution: str, command: str) -> tuple[str, str]:
    """Version of an installed package, without importing it; or "missing" and what installs it."""
    try:
        return metadata.version(distribution), ""
    except metadata.PackageNotFoundError:
        return "missing", command


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


# ---------------------------------------------------------------------------------------------------- figures


def _script(name: str) -> ModuleType:
    """A figure script, loaded from where it ships.

    A script has a docstring (its first line is the figure's title), `NEEDS` (argument of draw -> "experiment" or
    "experiment.preset") and `draw(venue, **trees) -> Figure`.
    """
    path = resources.resource("figure", f"{name.removesuffix('.py')}.py")
    spec = importlib.util.spec_from_file_location(f"ssmtheory_figure_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is not a Python script")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _figure_names(given: Sequence[str]) -> list[str]:
    known = [name.removesuffix(".py") for name in resources.names("figure")]
    for name in given:
        if name not in known:
            raise ConfigError(f"no figure {name!r}; there are {', '.join(known) or 'none'}.{nearest(name, known)}")
    return list(given) or known


def _literal(path: Path, name: str) -> Any:
    """A module's constant, read from its source without running it; None where there is none."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                return ast.literal_eval(node.value)
    return None


def _first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def figures_list() -> None:
    """List the figures, and the runs each is drawn from."""
    rows = []
    for name in _figure_names([]):
        path = resources.resource("figure", f"{name}.py")
        needs = _literal(path, "NEEDS") or {}
        rows.append((name, ", ".join(needs.values()), _first_line(path)))
    _table(rows)


def _drawn(name: str, venue: str, out: Path) -> tuple[Figure, str, str]:
    """One figure, the stamp that says where it comes from, and its title; runs that are not there yet are made."""
    from ssmtheory import runner
    from ssmtheory.results import provenance

    script = _script(name)
    trees, stamps = {}, []
    for argument, need in script.NEEDS.items():
        experiment, _, preset = need.partition(".")
        module = runner.load(experiment)
        values = runner.read_file(runner.preset_path(experiment, preset), module.Config) if preset else {}
        outcome = runner.run(module, module.Config(**values), out=out, quiet=False)
        trees[argument] = outcome.data()
        record = outcome.record
        commit = record["provenance"]["git_commit"]
        stamps.append(provenance.stamp(outcome.folder.name, record["content_sha256"], record["config_sha256"], commit))
    title = (script.__doc__ or name).partition("\n")[0]
    return script.draw(venue, **trees), "; ".join(stamps), title


def figures_build(
    *names: str, venue: str = "screen", to: Path = Path("figures_built"), out: Path = RUNS, formats: str = "pdf,png"
) -> None:
    """Draw figures, all of them or those named, each as PDF and PNG that say which run they come from.

    Args:
        names: figures to draw; all when none is named.
        venue: page width and type size: neurips, icml, iclr, jmlr or screen.
        to: folder for the figures; one folder per venue is made in it.
        out: folder that holds the runs; a run that is not there is made first.
        formats: any of pdf, png, svg, with commas between.
    """
    from ssmtheory.plotting import style

    style.venue(venue)
    for name in _figure_names(names):
        figure, stamp, title = _drawn(name, venue, out)
        for path in style.save(figure, to / venue / name, stamp=stamp, title=title, formats=formats.split(",")):
            print(path)


def figures_check(*names: str, venue: str = "screen", out: Path = RUNS) -> int:
    """Draw figures without writing them, and report overlapping texts, covered data and empty panels.

    Args:
        names: figures to check; all when none is named.
        venue: page width and type size: neurips, icml, iclr, jmlr or screen.
        out: folder that holds the runs; a run that is not there is made first.
    """
    from ssmtheory.plotting import style

    style.venue(venue)
    bad, chosen = 0, _figure_names(names)
    for name in chosen:
        figure, _, _ = _drawn(name, venue, out)
        defects = style.layout_defects(figure)
        bad += bool(defects)
        print("\n".join(f"{name}: {defect}" for defect in defects) or f"{name}: good")
    if bad:
        raise InputError(f"{bad} of {len(chosen)} figures have defects")
    return 0


# ---------------------------------------------------------------------------------------------------- the ledger


def repro_list(*papers: str) -> None:
    """List the claims of the ledger: budget, recorded status, and the claim in one sentence.

    Args:
        papers: whose claims; all when none is named.
    """
    from ssmtheory.repro import claims, ledger

    rows = [("claim", "tier", "status", "sentence")]
    rows += [(c.name, c.tier, c.status, c.sentence) for c in ledger.select(claims.load(papers))]
    _table(rows)


def repro_run(paper: str, /, *, claim: str | None = None, out: Path = RUNS) -> int:
    """Run the claims of one paper, whatever they cost, and say what each came to.

    Args:
        paper: one of those that `ssmtheory repro list` shows before the slash.
        claim: only this one.
        out: folder that holds the runs; a run that a claim rests on is made first.
    """
    from ssmtheory.repro import claims, ledger

    good = True
    for each in ledger.select(claims.load([paper]), claim):
        outcome = ledger.run(each, out=out)
        good &= outcome.holds
        print(ledger.describe(outcome), end="\n\n", flush=True)
    return 0 if good else 1


def repro_check(*papers: str, tier: str = "smoke", report: Path | None = None, out: Path = RUNS) -> int:
    """Run every claim up to a budget, write the report, and fail where a recorded status no longer holds.

    Args:
        papers: whose claims; all when none is named.
        tier: the dearest budget to run: smoke, laptop or gpu.
        report: where to write it; paper_repro/REPORT.md in a checkout when all papers are checked.
        out: folder that holds the runs; a run that a claim rests on is made first.
    """
    from ssmtheory.repro import claims, ledger
    from ssmtheory.results import fs

    chosen = claims.load(papers)
    width = max(len(each.name) for each in ledger.select(chosen))
    row = f"{{:<{width}}}  {{:<9}}  {{:<9}}  {{:>7}}  {{}}"
    outcomes: list[ledger.Outcome] = []
    for outcome in ledger.check(chosen, tier=tier, out=out):
        if not outcomes:
            print(row.format("claim", "recorded", "found", "seconds", "number"))
        outcomes.append(outcome)
        said = f"WRONG: {outcome.problem}" if outcome.problem else outcome.note or ledger.number(outcome)
        cells = (outcome.claim.name, outcome.claim.status, outcome.found, f"{outcome.seconds:.2f}", said)
        print(row.format(*cells), flush=True)
    target = ledger.report_path() if report is None and not papers else report
    print(ledger.summary(outcomes))
    if target is not None:
        fs.write_file(target, ledger.report(chosen, outcomes, tier).encode())
        print(f"report: {target}")
    return 0 if all(outcome.holds for outcome in outcomes) else 1


# ---------------------------------------------------------------------------------------------------- sweeps


def sweep_run(
    file: str,
    /,
    *,
    workers: int = 1,
    scheduler: Annotated[str | None, Parameter(show_default=False)] = None,
    slurm: Annotated[int | None, Parameter(show_default=False)] = None,
    dry_run: _Flag = False,
    retry_failed: _Flag = False,
    accept_failed: _Flag = False,
    fresh: _Flag = False,
    out: Path = RUNS,
    quiet: Annotated[bool, Parameter(negative="", show_default=False, name=["--quiet", "-q"])] = False,
) -> int:
    """Run a sweep, or go on with it: the points of a [sweep] table, or the tasks of one configuration.

    Args:
        file: a TOML file, or a shipped preset such as robustness.laptop (docs/sweeps.md has the format).
        workers: processes on this machine; 1 is this process.
        scheduler: address of a running Dask scheduler, tcp://host:8786, whose workers do the work.
        slurm: SLURM jobs to submit, a worker each; a [slurm] table of the file has their partition, memory and time.
        dry_run: say what would run and how long.
        retry_failed: compute again what failed before.
        accept_failed: make the dataset although points failed; they are marked in it.
        fresh: run again what is there already.
        out: folder that holds the runs.
        quiet: print only the run's folder.
    """
    from ssmtheory import runner, sweep_runner
    from ssmtheory.sweeps.engine import Engine

    read = sweep_runner.read(file)
    engine = Engine(workers=workers, scheduler=scheduler, slurm=slurm, slurm_options=read.slurm if slurm else {})
    if dry_run:
        lines = sweep_runner.dry_run(read, engine=engine, out=out, fresh=fresh, retry_failed=retry_failed)
        print("\n".join(lines))
        return 0
    outcome = sweep_runner.run(
        read, engine=engine, out=out, fresh=fresh, retry_failed=retry_failed, accept_failed=accept_failed, quiet=quiet
    )
    written = [] if read.grid else runner.write_documents(read.module, read.module.Config(**read.values), outcome)
    runner.tell(outcome, written, quiet)
    return 0


def sweep_status(run: str, /, *, out: Path = RUNS) -> None:
    """Say how far a sweep is, and show its first failure with the configuration it happened at.

    Args:
        run: folder of a run, its id, or the beginning of its id.
        out: folder that holds the runs.
    """
    from ssmtheory import sweep_runner

    print("\n".join(sweep_runner.status(run, out)))


def sweep_compact(
    run: str, /, *, to: Annotated[Path | None, Parameter(show_default=False)] = None, out: Path = RUNS
) -> None:
    """Make one dataset of what a sweep has done so far; failed and missing points are marked in it.

    Args:
        run: folder of a run, its id, the beginning of its id, or the sweep's TOML file.
        to: folder for the dataset; partial.zarr in the run's folder by default.
        out: folder that holds the runs.
    """
    from ssmtheory import sweep_runner

    path, words = sweep_runner.compact(run, to, out=out)
    print("\n".join([*words, str(path)]))


# ---------------------------------------------------------------------------------------------------- the command line


def _application() -> App:
    app = App(
        name="ssmtheory",
        help="The theory of state-space models, made to run.",
        help_format="plaintext",
        version=__version__,
        suppress_keyboard_interrupt=False,  # `guarded` answers Ctrl-C, the same for every command
        result_action="return_value",
    )
    measured, kept = Group("Experiments", sort_key=1), Group("Runs and figures", sort_key=2)

    def listed() -> None:
        """Stand for an experiment in the list of commands; `_dispatch` hands it over before cyclopts reads anything."""

    folder = Path(experiments.__file__).parent
    for name in experiments.available():
        title = _literal(folder / f"{name}.py", "TITLE") or ""
        app.command(listed, name=name.replace("_", "-"), help=title, group=measured)
    for command in (runs, show, whence, verify, export, configs, doctor):
        app.command(command, group=kept)
    figures = App(name="figures", help="List, draw and check the papers' figures.", group=kept)
    figures.command(figures_list, name="list")
    figures.command(figures_build, name="build")
    figures.command(figures_check, name="check")
    app.command(figures)
    repro = App(name="repro", help="List, run and check the papers' claims.", group=kept)
    repro.command(repro_list, name="list")
    repro.command(repro_run, name="run")
    repro.command(repro_check, name="check")
    app.command(repro)
    sweep = App(name="sweep", help="Run configurations by the thousand, on this machine or a cluster.", group=kept)
    sweep.command(sweep_run, name="run")
    sweep.command(sweep_status, name="status")
    sweep.command(sweep_compact, name="compact")
    app.command(sweep)
    return app


def _dispatch(argv: Sequence[str]) -> int:
    name = argv[0].replace("-", "_") if argv else ""
    if name in experiments.available():
        from ssmtheory import runner

        return runner.main(name, argv[1:])
    app = _application()
    try:
        return app(list(argv), exit_on_error=False, print_error=False) or 0
    except cyclopts.UnusedCliTokensError as error:
        raise ConfigError(f"too many arguments: {' '.join(error.unused_tokens or ())} (see ssmtheory --help)") from None
    except cyclopts.CycloptsError as error:
        raise ConfigError(str(error).rstrip()) from None


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (`ssmtheory.errors` has the table).

    Args:
        argv: the command and its options; `sys.argv[1:]` by default.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _dispatch(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
