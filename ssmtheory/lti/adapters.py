"""To and from python-control and pyMOR, which are made for real systems.

Both drop imaginary parts with no more than a warning, and then give norms that are wrong by factors. Here a complex
system is refused unless its real embedding [[Re, -Im], [Im, Re]] is asked for, which acts on (Re, Im) of states, inputs
and outputs. Its H-infinity norm is that of the system, its H2 norm sqrt(2) times as large, and each Hankel singular
value comes twice.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ssmtheory.errors import InputError, require
from ssmtheory.lti.base import LTI
from ssmtheory.lti.norms import real_embedding
from ssmtheory.lti.systems import StateSpace
from ssmtheory.typing import Array

__all__ = ["embed", "from_control", "real_embedding", "to_control", "to_pymor"]


def embed(system: LTI) -> StateSpace:
    """The real embedding of a system: twice the states, inputs and outputs, real matrices.

    Args:
        system: a realisation.

    Returns:
        A `StateSpace` with zero imaginary parts.
    """
    dense = system.to_dense()
    A, B, C, D = (real_embedding(x) for x in (dense.A, dense.B, dense.C, dense.D))
    return StateSpace(A, B, C, D, dense.dt)


def _real(system: LTI, embedding: bool, target: str) -> tuple[list[Array], float | None]:
    dense = embed(system) if embedding else system.to_dense()
    parts = {"A": dense.A, "B": dense.B, "C": dense.C, "D": dense.D}
    for name, matrix in parts.items():
        if matrix.imag.any():
            where = tuple(int(k) for k in np.argwhere(matrix.imag)[0])
            raise InputError(
                f"{name}{list(where)} is {matrix[where]:.6g}: {target} drops imaginary parts; pass embedding=True for "
                "the real embedding [[Re, -Im], [Im, Re]] with twice the states, inputs and outputs"
            )
    # copies: a library may write into what it is given
    return [np.array(matrix.real) for matrix in parts.values()], dense.dt


def to_control(system: LTI, embedding: bool = False) -> Any:
    """The system as a `control.StateSpace`.

    Args:
        system: a realisation.
        embedding: whether to hand over the real embedding; needed for a complex system.

    Returns:
        `control.StateSpace` with dt = 0 for continuous time.

    Raises:
        InputError: a complex system without `embedding`.
        MissingDependencyError: python-control is not installed.
    """
    control = require("control", "control", "to_control")
    matrices, dt = _real(system, embedding, "python-control")
    with warnings.catch_warnings():
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        return control.ss(*matrices, 0 if dt is None else dt)


def to_pymor(system: LTI, embedding: bool = False) -> Any:
    """The system as a `pymor.models.iosys.LTIModel`.

    Args:
        system: a realisation.
        embedding: whether to hand over the real embedding; needed for a complex system.

    Returns:
        `LTIModel` with sampling_time = 0 for continuous time.

    Raises:
        InputError: a complex system without `embedding`.
        MissingDependencyError: pyMOR is not installed.
    """
    iosys = require("pymor.models.iosys", "control", "to_pymor")
    matrices, dt = _real(system, embedding, "pyMOR")
    with warnings.catch_warnings():
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        return iosys.LTIModel.from_matrices(*matrices, sampling_time=0 if dt is None else dt)


def from_control(system: Any, dt: float | None = None) -> StateSpace:
    """A python-control system as a `StateSpace`.

    Args:
        system: a `control.StateSpace`, or what `control.ss` makes one of.
        dt: step in seconds, where the system leaves it open (control's dt is True).

    Returns:
        `StateSpace`.

    Raises:
        InputError: a time base that is left open (dt None or True) where `dt` does not settle it; complex data that
            python-control would have to convert.
        MissingDependencyError: python-control is not installed.
    """
    control = require("control", "control", "from_control")
    if not isinstance(system, control.StateSpace):
        if np.iscomplexobj(getattr(system, "num_array", 0.0)) or hasattr(system, "frdata"):
            raise InputError(f"a {type(system).__name__} is not a state-space system: pass control.ss(A, B, C, D)")
        system = control.ss(system)
    step = system.dt
    if step is None:
        raise InputError(
            "the system's dt is None, an unspecified time base: rebuild it with dt=0 (continuous) or a step"
        )
    if step is True:
        if dt is None:
            raise InputError("the system is discrete with an unspecified step (dt=True): pass dt= in seconds")
        step = dt
    return StateSpace(system.A, system.B, system.C, system.D, None if step == 0 else float(step))
