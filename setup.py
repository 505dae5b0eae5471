"""What pyproject.toml cannot say: the folders at the top that the wheel carries, the optional kernel, the commit."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
# folder at the top of a checkout -> what of it the wheel carries; ssmtheory.resources finds both
SHIPPED = {
    "experiments": ["*.toml"],
    "figures": ["*.py", "gallery/*.png"],
    "paper_repro": ["*.md", "*/*.md", "*/claims.toml"],
}
SHIPPED = {f"ssmtheory._shipped.{name}": files for name, files in SHIPPED.items() if (HERE / name).is_dir()}
PACKAGE_DATA = {
    "ssmtheory": ["references.bib"],
    "ssmtheory.scan": ["*.c", "*.h"],
    "ssmtheory.bench": ["*.c"],
    "ssmtheory.data": ["corpora/*.xz", "corpora/*.md", "corpora/*.json"],
    "ssmtheory.mamba": ["pretrained/*", "pretrained/*/*", "pretrained/*/*/*"],
}


def commit() -> str | None:
    """The commit this tree was built from, "+dirty" where tracked files were changed; None without git."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=HERE, capture_output=True, text=True, timeout=30, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    top = git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != HERE:
        return None
    changed = git("status", "--porcelain", "--untracked-files=no")
    head = git("rev-parse", "HEAD")
    return f"{head}+dirty" if head and changed else head


class BuildPy(build_py):
    """Write the commit into the build, so that an installed copy still knows where its code came from."""

    def run(self) -> None:
        super().run()
        known = commit()
        if known is not None and not self.editable_mode:
            target = Path(self.build_lib) / "ssmtheory" / "_build.json"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps({"git_commit": known}) + "\n", encoding="utf-8")


class BuildExt(build_ext):
    """Compile each C source with OpenMP, without it where the compiler has none, not at all where there is none."""

    def build_extension(self, ext: Extension) -> None:
        plain = list(ext.extra_compile_args)
        if self.compiler.compiler_type == "unix":
            # never -ffast-math: linked into a library, it changes floating point for the whole process
            ext.extra_compile_args = [*plain, "-O3", "-std=gnu11", "-fopenmp"]
            ext.extra_link_args = ["-fopenmp", "-lm"]
            try:
                super().build_extension(ext)
                return
            except Exception as error:  # whatever this compiler raises: the second try shows the reason, if it stays
                self.announce(f"{ext.name}: no OpenMP ({error}); compiling for one thread", level=3)
            ext.extra_compile_args = [*plain, "-O3", "-std=gnu11"]
            ext.extra_link_args = ["-lm"]
        super().build_extension(ext)


setup(
    packages=[*find_packages(include=["ssmtheory", "ssmtheory.*"]), *SHIPPED],
    package_dir={name: name.rpartition(".")[2] for name in SHIPPED},
    package_data={**PACKAGE_DATA, **SHIPPED},
    ext_modules=[
        Extension(
            f"ssmtheory.{source.parent.name}._{source.stem}",
            [source.relative_to(HERE).as_posix()],
            optional=True,
            depends=[header.relative_to(HERE).as_posix() for header in sorted(source.parent.glob("*.h"))],
        )
        for source in sorted([*HERE.glob("ssmtheory/scan/*.c"), *HERE.glob("ssmtheory/bench/*.c")])
    ],
    cmdclass={"build_py": BuildPy, "build_ext": BuildExt},
)
