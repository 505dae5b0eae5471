"""What every test shares: one thread, no display, no network, reference data, and a count of what was skipped."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

# Before NumPy is loaded: one BLAS thread, so that a busy machine changes neither the time nor the order of sums.
assert "numpy" not in sys.modules, "a pytest plugin loaded NumPy before its threads could be limited"
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["MPLBACKEND"] = "Agg"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["SSMTHEORY_OFFLINE"] = "1"
# errors must reach the tests as a user's terminal would show them
os.environ.pop("SSMTHEORY_DEBUG", None)

import pytest  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
NO_DATA = "needs the shared reference data: set SSMTHEORY_DATA, or put it at ../shared/data beside the checkout"
_missing_data: list[str] = []


def _data_folder() -> Path | None:
    """`SSMTHEORY_DATA`, or `../shared/data` beside the checkout; None where neither is a folder."""
    named = os.environ.get("SSMTHEORY_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the shared data sets (text/, models/, ...); the test is skipped, and counted, where it is absent."""
    folder = _data_folder()
    if folder is None:
        pytest.skip(NO_DATA)
    return folder


@pytest.fixture(scope="session")
def shared_oracles(shared_data: Path) -> Path:
    """Folder of the shared reference numbers, beside the data."""
    folder = shared_data.parent / "oracles"
    if not folder.is_dir():
        pytest.skip(NO_DATA)
    return folder


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _has_slurm() -> bool:
    """Whether the tests may start a SLURM of their own on 127.0.0.1 (tests/sweeps/loopback.py)."""
    folders = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    daemons = ("munged", "slurmctld", "slurmd", "sbatch")
    return os.geteuid() == 0 and all(shutil.which(name, path=folders) for name in daemons)


def pytest_configure(config: pytest.Config) -> None:
    # A dropped imaginary part is a wrong answer, never a warning. Said here, as in pyproject it would load NumPy early.
    config.addinivalue_line("filterwarnings", "error::numpy.exceptions.ComplexWarning")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("shared") and _data_folder() is None:
        pytest.skip(NO_DATA)
    if item.get_closest_marker("gpu") and not _has_gpu():
        pytest.skip("needs a CUDA device")
    if item.get_closest_marker("slurm") and not _has_slurm():
        pytest.skip("needs root, and Debian's slurm-wlm and munge, to start a SLURM of its own")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and isinstance(report.longrepr, tuple) and NO_DATA in report.longrepr[2]:
        _missing_data.append(report.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _missing_data:
        terminalreporter.section("skipped for missing data")
        terminalreporter.line(f"{len(_missing_data)} tests did not run: {NO_DATA}")


def pytest_report_header() -> list[str]:
    folder = _data_folder()
    kernel = sorted(path.name for path in (ROOT / "ssmtheory" / "scan").glob("_kernel*.so"))
    return [
        f"shared data: {folder or 'none (tests that need it are skipped)'}",
        f"compiled kernel: {', '.join(kernel) or 'none'}",
    ]
