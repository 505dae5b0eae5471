"""Run an experiment: configuration -> plan -> tasks, resumable -> dataset -> figures -> verdict.

`main("token_dynamics")` is what `python -m ssmtheory.experiments.token_dynamics` and `ssmtheory token-dynamics` call;
`run("token_dynamics", config)` does the same from Python. Progress goes to stderr, results to stdout.

Options are the fields of the experiment's `Config` and the runner's own; a value is taken from the command line, else
from `--config FILE`, else from `--preset NAME`, else from the field's default.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import math
import os
import signal
import sys
import threading
import time
import tomllib
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

from ssmtheory import experiments, resources
from ssmtheory.errors import ConfigError, Interrupted, guarded, nearest
from ssmtheory.experiments import base

__all__ = ["Outcome", "load", "main", "parse", "run"]


# ---------------------------------------------------------------------------------------------------- the experiment


def load(name: str) -> types.ModuleType:
    """The module of an experiment: a name of this package ("token-dynamics" too), or a dotted module path of your own.

    Raises:
        ConfigError: there is no such experiment; the message has the nearest one.
    """
    if "." in name:
        try:
            found = importlib.util.find_spec(name) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            raise ConfigError(f"no module {name!r} to take an experiment from")
        return importlib.import_module(name)
    known = experiments.available()
    plain = name.replace("-", "_")
    if plain == "bench":
        # has the names of an experiment, and a place of its own
        return importlib.import_module("ssmtheory.bench")
    if plain not in known:
        raise ConfigError(f"no experiment {name!r}; there are {', '.join(known)}.{nearest(plain, known)}")
    return importlib.import_module(f"ssmtheory.experiments.{plain}")


# ---------------------------------------------------------------------------------------------------- configuration


def _matches(value: Any, hint: Any) -> tuple[bool, Any]:
    """Whether a value from a TOML file has the type of a field, and the value in that type (an int may be a float)."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True, value
    if origin is Annotated:
        return _matches(value, arguments[0])
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            good, converted = _matches(value, option)
            if good:
                return True, converted
        return False, value
    if origin is Literal:
        return value in arguments, value
    if hint in (None, type(None)):
        return value is None, value
    if origin in (tuple, list, Sequence):
        if not isinstance(value, list):
            return False, value
        if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
            inner = list(arguments)
            if len(inner) != len(value):
                return False, value
        else:
            inner = [arguments[0]] * len(value)
        pairs = [_matches(item, kind) for item, kind in zip(value, inner, strict=True)]
        items = [converted for _, converted in pairs]
        return all(good for good, _ in pairs), items if origin is list else tuple(items)
    if hint is float:
        good = isinstance(value, (int, float)) and not isinstance(value, bool)
        return good, float(value) if good else value
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    if hint is Path:
        return isinstance(value, str), Path(value) if isinstance(value, str) else value
    return isinstance(hint, type) and isinstance(value, hint), value


def _hint_text(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_hint_text(a) for a in arguments if a is not type(None))
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin in (tuple, list, Sequence):
        return f"a list of {_hint_text(arguments[0])}"
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false", Path: "a path"}.get(
        hint, getattr(hint, "__name__", str(hint))
    )


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file.

    Raises:
        ConfigError: no such file, or not TOML.
    """
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise ConfigError(f"no configuration file {path}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None


def read_file(path: Path, config_type: type) -> dict[str, Any]:
    """The fields that a TOML file sets, checked by name and type; dashes and underscores are the same.

    Raises:
        ConfigError: no such file, not TOML, an unknown key (with the nearest one), or a value of the wrong type.
    """
    return read_table(path, read_toml(path), config_type)


def read_table(path: Path, table: Mapping[str, Any], config_type: type) -> dict[str, Any]:
    """The fields that a table sets, as `read_file` has them."""
    hints = typing.get_type_hints(config_type)
    names = [f.name for f in dataclasses.fields(config_type)]
    values = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in names:
            what = f"table [{key}]" if isinstance(value, dict) else f"key {key!r}"
            raise ConfigError(f"{path}: unknown {what}.{nearest(name, names)}")
        good, values[name] = _matches(value, hints[name])
        if not good:
            raise ConfigError(f"{path}: {key} = {value!r} is not {_hint_text(hints[name])}")
    return values


def preset_path(experiment: str, preset: str) -> Path:
    """The shipped TOML file of a preset, `experiments/<experiment>.<preset>.toml`."""
    prefix = f"{experiment}."
    known = [n.removeprefix(prefix).removesuffix(".toml") for n in resources.names("preset") if n.startswith(prefix)]
    if preset not in known:
        listed = f"{experiment} has {', '.join(known)}" if known else f"{experiment} has no presets"
        raise ConfigError(f"no preset {preset!r}; {listed}.{nearest(preset, known)}")
    return resources.resource("preset", f"{prefix}{preset}.toml")


@dataclass(frozen=True)
class Options:
    """The runner's own options."""

    out: Path = Path("runs")
    fresh: bool = False
    dry_run: bool = False
    quiet: bool = False


def _whole(_: Any, tokens: Sequence[Any]) -> int:
    text = tokens[0].value
    try:
        return int(text)
    except ValueError:
        # int(round(float)) would be cyclopts' own answer: another configuration than the one asked for
        raise ValueError(f"{text!r} is not a whole number") from None


def _whole_numbers(_: Any, tokens: Sequence[Any]) -> tuple[int, ...]:
    found: list[int] = []
    for text in (piece for token in tokens for piece in token.value.split(",")):
        first, dash, last = text.partition("-")
        if dash and first.isdigit() and last.isdigit():
            found += range(int(first), int(last) + 1)
            continue
        try:
            found.append(int(text))
        except ValueError:
            raise ValueError(f"{text!r} is neither a whole number nor a range like 0-3") from None
    return tuple(found)


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        kept = [a for a in typing.get_args(hint) if a is not type(None)]
        if len(kept) == 1:
            return kept[0]
    return hint


def _application(name: str, module: types.ModuleType, program: str) -> Any:
    """A cyclopts application whose options are the Config's fields and the runner's own; it only parses."""
    import cyclopts
    from cyclopts import App, Group, Parameter

    config_type = module.Config
    hints = typing.get_type_hints(config_type)
    own, ours = Group("Options", sort_key=1), Group("Run", sort_key=2)
    parameters: list[inspect.Parameter] = []

    def add(key: str, hint: Any, default: Any, /, **more: Any) -> None:
        parameters.append(
            inspect.Parameter(
                key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, Parameter(**more)]
            )
        )

    for item in dataclasses.fields(config_type):
        if item.default is not dataclasses.MISSING:
            default = item.default
        elif item.default_factory is not dataclasses.MISSING:
            default = item.default_factory()
        else:
            raise ConfigError(f"{name}: Config.{item.name} has no default")
        hint = hints[item.name]
        more: dict[str, Any] = {"help": item.metadata.get("help", ""), "group": own}
        core = _without_none(hint)
        if core is bool and default is False:
            more["negative"] = ""
        elif core is int:
            more["converter"] = _whole
        elif core == tuple[int, ...]:
            more |= {"converter": _whole_numbers, "consume_multiple": True, "negative": ""}
            hint = tuple[int, ...] if default is not None else hint
        elif typing.get_origin(core) in (tuple, list):
            more |= {"consume_multiple": True, "negative": ""}
        if default is None:
            more["show_default"] = False
        add(item.name, hint, default, **more)
    add("preset", str | None, None, help="shipped settings: " + _presets_text(name), group=ours, show_default=False)
    add("config", Path | None, None, help="settings from a TOML file", group=ours, show_default=False)
    add("out", Path, Options.out, help="folder that holds the runs", group=ours)
    add("fresh", bool, False, help="run again what is there already", group=ours, negative="", show_default=False)
    add("dry_run", bool, False, help="say what would run and how long", group=ours, negative="", show_default=False)
    quiet_help = "print only the run's folder"
    add("quiet", bool, False, help=quiet_help, group=ours, negative="", name=["--quiet", "-q"], show_default=False)

    clash = {f.name for f in dataclasses.fields(config_type)} & {"preset", "config", "out", "fresh", "dry_run", "quiet"}
    if clash:
        raise ConfigError(f"{name}: Config.{', '.join(sorted(clash))}: the runner has an option of that name")

    def command(**values: Any) -> dict[str, Any]:
        return values

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    app = App(name=program, help=module.TITLE, help_format="plaintext", version_flags=[], result_action="return_value")
    app["--help"].group = (ours,)
    app.default(command)
    return cyclopts, app


def _presets_text(experiment: str) -> str:
    prefix = f"{experiment}."
    known = [n.removeprefix(prefix).removesuffix(".toml") for n in resources.names("preset") if n.startswith(prefix)]
    return ", ".join(known) if known else "none"


def parse(
    name: str, module: types.ModuleType, argv: Sequence[str], program: str | None = None
) -> tuple[Any, Options] | None:
    """Configuration and options from a command line; None where it asked for help, which is then printed.

    Args:
        name: of the experiment, to find its presets.
        module: the experiment.
        argv: the options.
        program: how the help text calls the command.

    Raises:
        ConfigError: an unknown option or key, a missing or ill-typed value.
    """
    cyclopts, app = _application(name, module, program or name)
    if any(token in ("-h", "--help") for token in argv):
        app.help_print([])
        return None
    try:
        _, bound, _ = app.parse_args(list(argv), exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        raise ConfigError(str(error).rstrip()) from None
    given = dict(bound.arguments)  # only what the command line has: defaults are not in it
    preset, file = given.pop("preset", None), given.pop("config", None)
    options = Options(**{f.name: given.pop(f.name) for f in dataclasses.fields(Options) if f.name in given})
    layers = [read_file(preset_path(name, preset), module.Config) if preset else {}]
    layers.append(read_file(file, module.Config) if file else {})
    return _config(module, {**layers[0], **layers[1], **given}), options


def _config(module: types.ModuleType, values: Mapping[str, Any]) -> Any:
    """Build the Config; a value its `__post_init__` refuses is an error of usage unless it says otherwise."""
    for key, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"--{key.replace('_', '-')}: {value} is not a finite number")
    return module.Config(**values)


# ---------------------------------------------------------------------------------------------------- progress


class Progress:
    """How far a run is, on a stream: one line redrawn in place on a terminal, else about four plain lines.

    A long task reports itself: `base.report` lines are shown in place, or, on a plain stream, once a minute.
    """

    def __init__(self, label: str, total: int, done: int, stream: TextIO, quiet: bool) -> None:
        self.label, self.total, self.done, self.stream, self.quiet = label, total, done, stream, quiet
        self.terminal = stream.isatty()
        self.start = time.monotonic()
        self._shown = done
        self._said = self.start
        self._note = ""
        self._width = 0

    def _bar(self) -> str:
        width = 24
        full = width * self.done // self.total if self.total else width
        seconds = int(time.monotonic() - self.start)
        clock = f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        note = f"  {self._note}" if self._note else ""
        bar = f"{'━' * full}{'╺' * (full < width)}".ljust(width)
        return f"{self.label} {bar} {self.done}/{self.total} {clock}{note}"

    def _draw(self, text: str) -> None:
        columns = (os.get_terminal_size(self.stream.fileno()).columns or 80) - 1  # a bare pty says 0
        text = text[:columns]
        self.stream.write("\r" + text.ljust(min(self._width, columns)))
        self.stream.flush()
        self._width = len(text)

    def begin(self) -> None:
        """Show that work has begun."""
        if not self.quiet and self.terminal:
            self._draw(self._bar())

    def advance(self) -> None:
        """One more task is done."""
        self.done += 1
        self._note = ""
        if self.quiet:
            return
        if self.terminal:
            self._draw(self._bar())
        elif self.done == self.total or (self.done - self._shown) * 4 >= self.total:
            print(f"{self.label} {self.done}/{self.total}", file=self.stream, flush=True)
            self._shown = self.done

    def note(self, message: str) -> None:
        """A line from inside a long task."""
        self._note = message
        if self.quiet:
            return
        now = time.monotonic()
        if self.terminal:
            self._draw(self._bar())
        elif now - self._said >= 60:
            print(f"{self.label} {self.done}/{self.total}: {message}", file=self.stream, flush=True)
            self._said = now

    def say(self, line: str) -> None:
        """A line of its own, above the bar."""
        self.clear()
        print(line, file=self.stream, flush=True)

    def clear(self) -> None:
        """Take the bar away."""
        if self._width:
            self.stream.write("\r" + " " * self._width + "\r")
            self.stream.flush()
            self._width = 0


# ---------------------------------------------------------------------------------------------------- the run


@dataclass(frozen=True)
class Outcome:
    """What a run left behind.

    folder: the run's folder; ran: False where the run was complete already; record: its run.json.
    """

    folder: Path
    ran: bool
    record: dict[str, Any] = field(repr=False)

    @property
    def content_sha256(self) -> str:
        """Digest of the dataset's arrays."""
        return str(self.record["content_sha256"])

    @property
    def verdict(self) -> list[str]:
        """What was found, in sentences."""
        return list(self.record["verdict"])

    def data(self) -> Any:
        """The dataset, an `xarray.DataTree`; arrays are read when touched."""
        from ssmtheory.results import store

        return store.open_run(self.folder)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Within the block SIGTERM (a scheduler's preemption, `kill`) stops the run as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _call(module: Any, plan: base.Plan, key: str, workdir: Callable[[str], Path] | None) -> Mapping[str, Any]:
    if workdir is not None and getattr(module, "WORKDIR", False):
        return module.run_task(plan, key, workdir(key))
    return module.run_task(plan, key)


def _store(module: Any, plan: base.Plan, out: Path, notice: Callable[[str], None]) -> Any:
    from ssmtheory.results import provenance, store

    experiment = base.name_of(module)
    return store.RunStore(
        root=Path(out),
        id=provenance.run_id(experiment, plan.resolved, plan.model_sha256),
        experiment=experiment,
        tasks=list(plan.tasks),
        facts={
            "module": base.path_of(module),
            "title": module.TITLE,
            "schema": module.SCHEMA.id,
            "config": plan.resolved,
            "config_sha256": provenance.config_sha256(plan.resolved),
            "model_sha256": plan.model_sha256,
        },
        notice=notice,
    )


def _draw_figures(module: Any, tree: Any, stamp: str, folder: Path) -> list[str]:
    """Write the experiment's quick-look figures into a folder; the files' names, in the order they are to be read."""
    from ssmtheory import plotting

    names: list[str] = []
    for name, figure in plotting.quicklook(base.name_of(module), tree).items():
        from ssmtheory.plotting import style

        files = style.save(figure, folder / name, stamp=stamp, title=f"{module.TITLE}: {name}")
        names += [path.name for path in files]
    return names


def run(
    name: str | types.ModuleType,
    config: Any = None,
    *,
    out: str | os.PathLike[str] = "runs",
    fresh: bool = False,
    quiet: bool = True,
    argv: Sequence[str] | None = None,
) -> Outcome:
    """Run an experiment to its end, or go on where an earlier call stopped, and return what it left.

    Args:
        name: of the experiment, or its module.
        config: an instance of its Config; None for the defaults.
        out: folder that holds the runs.
        fresh: run again what is complete, or begun.
        quiet: no progress on stderr (notices are shown all the same).
        argv: the command line for the record; `sys.argv` by default.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the finished tasks are kept.
        StoreError: the run's folder cannot be written, is damaged, or another process works on it.
    """
    module = load(name) if isinstance(name, str) else name
    with _terminable():
        try:
            plan = module.plan(module.Config() if config is None else config)
        except KeyboardInterrupt:
            raise Interrupted("stopped before the first task; nothing was written") from None
        return _run(module, plan, Path(out), fresh, quiet, argv)


def _one_by_one(module: Any, plan: base.Plan, runs: Any, progress: Progress) -> None:
    """Do the tasks that are not done yet, in this process, one after another."""
    for key in plan.tasks:
        if key in runs.done:
            continue
        began = time.monotonic()
        with base.reporting(progress.note):
            part = _call(module, plan, key, runs.workdir)
        runs.save_part(key, part, time.monotonic() - began)
        progress.advance()


def _run(
    module: Any,
    plan: base.Plan,
    out: Path,
    fresh: bool,
    quiet: bool,
    argv: Sequence[str] | None,
    perform: Callable[[Any, base.Plan, Any, Progress], None] = _one_by_one,
) -> Outcome:
    """A planned run, to its end; `perform` brings `runs.done` to all tasks, or raises."""
    from ssmtheory.results import provenance, store

    total = len(plan.tasks)
    label = base.name_of(module).replace("_", " ")
    progress = Progress(label, total, 0, sys.stderr, quiet)
    runs = _store(module, plan, out, progress.say)
    start = time.monotonic()
    try:
        with runs.open(fresh=fresh, argv=None if argv is None else list(argv)):
            if runs.record["state"] == "complete":
                return Outcome(runs.folder, False, runs.record)
            progress.done = progress._shown = len(runs.done)
            if runs.done and not quiet:
                progress.say(f"going on with {runs.folder}: {len(runs.done)} of {total} done")
            progress.begin()
            perform(module, plan, runs, progress)
            assembling = time.monotonic()
            progress.note("putting the parts together")
            tree = base.finish(module, plan, runs.parts())
            arrays = runs.save_data(tree)
            digest = store.combine(arrays)
            del tree
            tree = store.open_data(runs.folder / "data.zarr")  # what is drawn is what is stored
            stamp = provenance.stamp(
                runs.id, digest, runs.record["config_sha256"], provenance.commit_of(runs.record["provenance"])
            )
            drawing = time.monotonic()
            progress.note("drawing figures")
            figures = runs.save_figures(lambda folder: _draw_figures(module, tree, stamp, folder))
            done = time.monotonic()
            progress.clear()
            runs.complete(
                content_sha256=digest,
                arrays=arrays,
                figures=figures,
                verdict=list(module.verdict(tree)),
                plan=dict(plan.describe),  # what was really used: the model and the peer it was checked against
                seconds={
                    "tasks": round(sum(entry["seconds"] for entry in runs.done.values()), 3),
                    "dataset": round(drawing - assembling, 3),
                    "figures": round(done - drawing, 3),
                    "last_session": round(done - start, 3),
                },
            )
            return Outcome(runs.folder, True, runs.record)
    except KeyboardInterrupt:
        progress.clear()
        raise Interrupted(f"stopped at {len(runs.done)} of {total}; the same command goes on from there") from None


def _duration(seconds: float) -> str:
    """A duration in words.

    >>> _duration(0.31), _duration(95), _duration(5400)
    ('0.31 s', '1.6 min', '1.5 h')
    """
    if seconds < 90:
        return f"{seconds:.2g} s"
    if seconds < 5400:
        return f"{seconds / 60:.2g} min"
    return f"{seconds / 3600:.2g} h"


def _size(count: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count} B"


def dry_run(module: Any, plan: base.Plan, out: Path, fresh: bool) -> list[str]:
    """The lines of `--dry-run`: what would run, how large the result is and how long it takes; writes nothing.

    The time comes from the plan's own estimate; without one, the first task is run here and measured.
    """
    runs = _store(module, plan, out, lambda line: None)
    state, done = ("none", 0) if fresh else runs.state()
    total = len(plan.tasks)
    noun = plan.task_noun
    lines = [("would write", str(runs.folder))]
    if state == "complete":
        lines = [("nothing to do", f"{runs.folder} is complete (--fresh runs it again)")]
    elif done:
        lines = [("would go on with", f"{runs.folder}: {done} of {total} done")]
    lines += list(plan.describe.items())
    if "tasks" not in plan.describe:
        lines.append(("tasks", f"{total} {noun}{'s' * (total != 1)}"))
    lines.append(("result", f"{_size(plan.result_bytes)} before compression"))
    if state != "complete" and total > done:
        each = plan.task_seconds
        if each is not None:
            how = "the plan's own estimate"
        elif getattr(module, "WORKDIR", False):
            how = ""
        else:
            began = time.monotonic()
            module.run_task(plan, plan.tasks[done])
            each = time.monotonic() - began
            how = f"one {noun} measured: {_duration(each)}"
        text = (
            "unknown: a task is too long to be measured"
            if each is None
            else f"about {_duration(each * (total - done))} here ({how})"
        )
        lines.append(("time", text))
    width = max(12, *(len(label) for label, _ in lines))
    return [f"{label:<{width}} {text}" for label, text in lines] + ["nothing was written"]


def summary(outcome: Outcome) -> list[str]:
    """What a run prints on stdout at its end: the verdict, then where the data, figures and record lie."""
    record, folder = outcome.record, outcome.folder
    verdict = outcome.verdict or [f"{record['tasks']['done']} tasks"]
    lines = [f"done in {_duration(record['seconds']['last_session'])}: {verdict[0]}", *verdict[1:]]
    lines.append(f"  data     {folder / 'data.zarr'}   (ssmtheory show {folder}, or xr.open_datatree)")
    pdfs = [name for name in record["figures"] if name.endswith(".pdf")]
    lines += [f"  figure   {folder / 'figures' / name}" for name in pdfs or record["figures"]]
    lines.append(f"  record   {folder / 'run.json'}   content {record['content_sha256'][:12]}")
    return lines


def tell(outcome: Outcome, written: Sequence[Path], quiet: bool) -> None:
    """Print what a finished run left, on stdout; only its folder where that is all that is wanted."""
    if quiet:
        print(outcome.folder)
        return
    if outcome.ran:
        print("\n".join(summary(outcome)))
    else:
        print(f"nothing to do: {outcome.folder} is complete (--fresh runs it again)")
    for path in written:
        print(f"  written  {path}")


def write_documents(module: types.ModuleType, config: Any, outcome: Outcome) -> list[Path]:
    """Write the files that the configuration asks for by name, from the stored dataset; an existing one is replaced."""
    from ssmtheory.results import fs

    if not hasattr(module, "documents"):
        return []
    paths = []
    for name, text in module.documents(config, outcome.data()).items():
        path = Path(name)
        with fs.store_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            fs.write_file(path, text.encode("utf-8"))
        paths.append(path)
    return paths


def verify(
    run_folder: str | os.PathLike[str],
    other: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] = "runs",
    rtol: float = 1e-5,
) -> Any:
    """Check a run: `results.compare.verify` with the schema of the run's experiment."""
    from ssmtheory.errors import StoreError
    from ssmtheory.results import compare, store

    folder = compare.find_run(run_folder, out)
    schema = None
    try:
        record = store.read_record(folder)
    except StoreError:
        return compare.verify(folder, other, out=out, rtol=rtol)  # which reports the damaged record
    name, path = str(record.get("experiment")), str(record.get("module"))
    # a record is data: it must not decide what is imported
    if path in sys.modules:
        schema = sys.modules[path].SCHEMA
    elif name in experiments.available():
        schema = load(name).SCHEMA
    result = compare.verify(folder, other, schema=schema, out=out, rtol=rtol)
    if schema is None:
        result.checks.append((f"schema not checked: {name!r} is no experiment of this package", None))
    return result


def _main(name: str, argv: Sequence[str], program: str | None) -> int:
    module = load(name)
    parsed = parse(base.name_of(module), module, argv, program or f"python -m {base.path_of(module)}")
    if parsed is None:
        return 0
    config, options = parsed
    if options.dry_run:
        with _terminable():
            try:
                lines = dry_run(module, module.plan(config), options.out, options.fresh)
            except KeyboardInterrupt:
                raise Interrupted("stopped; nothing was written") from None
        print("\n".join(lines))
        return 0
    outcome = run(module, config, out=options.out, fresh=options.fresh, quiet=options.quiet, argv=[name, *argv])
    tell(outcome, write_documents(module, config, outcome), options.quiet)
    return 0


def main(name: str, argv: Sequence[str] | None = None) -> int:
    """Run an experiment from the command line; returns the exit code (`ssmtheory.errors` has the table).

    Args:
        name: of the experiment, or the dotted path of a module that is one.
        argv: the options, where the `ssmtheory` command has taken the experiment's name off; `sys.argv[1:]` by default.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    program = None if argv is None else f"ssmtheory {name.replace('_', '-')}"
    return guarded(lambda: _main(name, arguments, program))
