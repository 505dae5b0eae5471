"""What the dataset of `kernel_limit` holds."""

from __future__ import annotations

from ssmtheory.results.schema import DatasetSchema, Dimension, Variable

__all__ = ["MODES", "SCHEMA"]

#: Modes of convergence, from weak to strong.
MODES = ("weak", "sampled", "compact", "inputwise", "L2", "uniform")

_INT = ("init", "state_dim", "time")
_IC = ("init", "convergence")


def _f(dims: tuple[str, ...], units: str, long_name: str) -> Variable:
    return Variable(dims, "float64", units, long_name)


def _s(dims: tuple[str, ...], long_name: str) -> Variable:
    return Variable(dims, "str", "1", long_name)


#: `limit` is NaN where a family has no limit.
SCHEMA = DatasetSchema(
    "kernel_limit",
    1,
    groups={
        "kernels": {
            "kernel": _f(_INT, "1", "kernel K(t) of one output at state dimension N"),
            "limit": _f(("init", "time"), "1", "the limit in which some of the modes of convergence hold"),
            "difference": _f(_INT, "1", "kernel less limit"),
            "windowed": _f(_INT, "1", "mean of the difference over a window that starts at t"),
            "l2_difference": _f(("init", "state_dim"), "1", "L2 norm of the difference, t >= 0"),
            "l2_exact": _f(("init", "state_dim"), "1", "the same by a closed formula (NaN where there is none)"),
            "uniform_difference": _f(("init", "state_dim"), "1", "largest difference on the stored times"),
            "window": _f((), "s", "length of the window"),
            "output": Variable((), "int64", "1", "which output"),
        },
        "modes": {
            "holds": Variable(
                _IC, "int8", "1", "whether the mode of convergence holds",
                attrs={"flag_values": [-1, 0, 1], "flag_meanings": "not_known fails holds"},
            ),
            "witness": _s(_IC, "what shows it"),
            "status": _s(_IC, "how it is known: proved, exact for the stated sizes, numeric, cited"),
            "expression": _s(("init",), "the limit as a formula"),
            "latex": _s(("init",), "the same in LaTeX"),
        },
        "derivation": {
            "subject": _s(("line",), "initialisation that the step belongs to"),
            "title": _s(("line",), "derivation that the step belongs to"),
            "number": _s(("line",), "number of the step"),
            "text": _s(("line",), "the step in words"),
            "latex": _s(("line",), "the step's formulas in LaTeX"),
            "kind": _s(("line",), "how its formulas are checked: exact, finite-N, numeric, cited"),
            "checked": Variable(
                ("line",), "int8", "1", "result of the check",
                attrs={"flag_values": [-1, 0, 1], "flag_meanings": "nothing_to_check failed passed"},
            ),
            "document": _s(("init",), "the whole derivation as a LaTeX document"),
            "status": _s(("init",), "proved only where every step is exact and general"),
        },
        "bases": {
            "kernel": _f(("measure", "output", "time"), "1", "basis function K_n(t) of a measure or S4D variant"),
            "state_dim": Variable((), "int64", "1", "state dimension N of these"),
        },
        "sampled": {
            "kernel": _f(
                ("state_dim", "method", "output", "time"), "1", "K-bar / dt of S4D-LegS in the HiPPO basis, per step"
            ),
            "limit": _f(("output", "time"), "1", "basis function of LegS"),
            "sup_difference": _f(("state_dim", "method", "output"), "1", "largest |K-bar - K-bar_LegS| / dt"),
            "dt": _f((), "s", "step Delta"),
        },
    },
    dimensions={
        "convergence": Dimension("mode of convergence, from weak to strong; initial_value is a check at t = 0"),
        "line": Dimension("line of the derivation"),
        "measure": Dimension("HiPPO measure or S4D variant"),
        "method": Dimension("discretisation: zoh, bilinear_s4"),
    },
)  # fmt: skip
