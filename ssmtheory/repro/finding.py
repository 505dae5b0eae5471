"""What running one claim gives: a number, a bracket, a yes or no, and how firm that is."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, Literal

from ssmtheory.errors import InputError

__all__ = ["Basis", "Finding", "finding"]

#: How firm a finding is: an exact general derivation, an enclosure in ball arithmetic, or floating point.
Basis = Literal["proof", "certificate", "computation"]


@dataclass(frozen=True)
class Finding:
    """The outcome of a check, before it is held against the claim.

    value: the number the claim is about; None for a plain yes or no.
    lower, upper: enclosure or interval of the number, where there is one; one end where only that is known.
    holds: what the check itself decided; None where the claim's own condition on the number decides.
    basis: how firm it is.
    detail: a sentence on what was seen, for `ssmtheory repro run`.
    """

    value: float | None = None
    lower: float | None = None
    upper: float | None = None
    holds: bool | None = None
    basis: Basis = "computation"
    detail: str = ""

    def __post_init__(self) -> None:
        if self.value is None and self.holds is None:
            raise InputError("a check must give a number or a yes or no; this one gave neither")


def _loaded(module: str, name: str) -> Any:
    """A class of this package if its module is loaded already: without it, nothing can be an instance."""
    return getattr(sys.modules.get(f"ssmtheory.{module}"), name, ())


def finding(result: Any) -> Finding:
    """Read what a check returned as a `Finding`.

    Args:
        result: a Finding; bool; real number; (lower, upper) of an interval; `HinfNorm`; `symbolic` Derivation or
            Report; `certify` Certificate. A certificate is verified again from scratch, a derivation checked.

    Raises:
        InputError: none of these, or a number that is not finite.

    >>> finding(0.5).value
    0.5
    >>> finding((1, 3)).value
    2.0
    """
    import numpy as np

    if isinstance(result, Finding):
        found = result
    elif isinstance(result, bool | np.bool_):
        found = Finding(holds=bool(result))
    elif isinstance(result, tuple) and len(result) == 2:
        lower, upper = (float(end) for end in result)
        found = Finding(value=(lower + upper) / 2, lower=lower, upper=upper)
    elif isinstance(result, _loaded("symbolic.derivation", "Derivation")):
        return finding(result.check())
    elif isinstance(result, _loaded("symbolic.derivation", "Report")):
        # "proved modulo named theorems" is a proof too: the detail names them
        proved = result.status.startswith("proved")
        detail = f"{result.title}: {result.status}, {len(result.outcomes)} steps and confirmations"
        found = Finding(holds=bool(result.ok), basis="proof" if proved else "computation", detail=detail)
    elif isinstance(result, _loaded("certify.certificate", "Certificate")):
        found = Finding(
            value=result.value,
            lower=None if result.lower is None else float(result.lower),
            upper=None if result.upper is None else float(result.upper),
            holds=bool(result.verify()),
            basis="certificate",
            detail=result.statement,
        )
    elif isinstance(result, _loaded("lti.norms", "HinfNorm")):
        basis: Basis = "certificate" if result.rigorous else "computation"
        found = Finding(
            value=float(result.value), lower=float(result.lower), upper=float(result.upper), basis=basis,
            detail=f"at omega = {result.omega:.9g}",
        )  # fmt: skip
    elif isinstance(result, int | float | np.integer | np.floating) or (
        isinstance(result, np.ndarray) and result.ndim == 0 and result.dtype.kind in "fiu"
    ):
        found = Finding(value=float(result))
    else:
        raise InputError(f"a check gave a {type(result).__name__}; see ssmtheory.repro.finding for what it may give")
    for number in (found.value, found.lower, found.upper):
        if number is not None and not math.isfinite(number):
            raise InputError(f"a check gave {number}, which is not a finite number")
    return found
