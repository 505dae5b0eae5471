"""A certificate: a claim lower <= value <= upper, with all that is needed to prove it again.

The claim is stored as decimals rounded outwards, the statement in words, the parameters exactly. `verify` proves the
claim anew in ball arithmetic, from the integer definition of LegS or the given matrix on: it reads no float result.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ssmtheory.certify.balls import CertificationError, ball, exact, flint, working
from ssmtheory.errors import InputError, nearest

if TYPE_CHECKING:
    from ssmtheory.lti.norms import HinfNorm

__all__ = ["KINDS", "Certificate", "as_hinf_norm", "issue"]

#: kind of claim -> module of this package whose `CHECKS` proves it
KINDS = {
    "condition": "conditioning",
    "hippo_rho_abscissa": "conditioning",
    "hippo_rho_condition": "conditioning",
    "hippo_rho_deviation": "supnorm",
    "legs_condition": "conditioning",
    "ptd_condition_lower_bound": "frontier",
    "ptd_condition_lower_bound_area": "frontier",
    "ptd_deviation": "response",
    "ptd_guarantee": "abscissa",
    "s4d_gap": "supnorm",
    "s4d_spike": "supnorm",
    "stability": "abscissa",
    "sup_norm": "response",
    "top_eigenvalue": "spectrum",
    "top_eigenvalue_law": "spectrum",
}


def _frozen(value: Any) -> Any:
    """JSON types only, lists as tuples."""
    if isinstance(value, list | tuple):
        return tuple(_frozen(part) for part in value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise InputError(f"a certificate stores numbers, text and lists of them, not {type(value).__name__}")


def _listed(value: Any) -> Any:
    return [_listed(part) for part in value] if isinstance(value, tuple) else value


@dataclasses.dataclass(frozen=True)
class Certificate:
    """A proved claim: lower <= value <= upper.

    Attributes:
        kind: which claim; a key of `KINDS`.
        statement: the claim in words.
        parameters: what the claim is about, exactly: ints, text such as "1/11", floats as the dyadic numbers they are.
        lower: decimal lower bound, rounded down; None where the claim is one-sided.
        upper: decimal upper bound, rounded up; None where the claim is one-sided.
        precision_bits: working precision at which the claim was proved.
        method: how, in a sentence.
        witness: proposals that shorten the proof (a frequency, say). They are never trusted.
    """

    kind: str
    statement: str
    parameters: Mapping[str, Any]
    lower: str | None
    upper: str | None
    precision_bits: int
    method: str
    witness: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"kind is {self.kind!r}: one of {', '.join(KINDS)}.{nearest(self.kind, KINDS)}")
        if self.lower is None and self.upper is None:
            raise InputError("a certificate needs a lower or an upper bound")
        for bound in (self.lower, self.upper):
            if bound is not None:
                exact(bound)
        for name in ("parameters", "witness"):
            object.__setattr__(self, name, {key: _frozen(value) for key, value in getattr(self, name).items()})

    @property
    def value(self) -> float:
        """The middle of the claim as a float; the bound itself where the claim is one-sided."""
        bounds = [exact(bound) for bound in (self.lower, self.upper) if bound is not None]
        return float(sum(bounds, Fraction(0)) / len(bounds))

    @property
    def width(self) -> float:
        """upper - lower, rounded up; infinity where the claim is one-sided."""
        if self.lower is None or self.upper is None:
            return math.inf
        return math.nextafter(float(exact(self.upper) - exact(self.lower)), math.inf)

    @property
    def relative_width(self) -> float:
        """Width divided by the size of the value; infinity where the claim is one-sided."""
        return self.width / abs(self.value) if self.value else math.inf

    @property
    def ball(self) -> Any:
        """The claim as a `flint.arb` that contains [lower, upper], at the certificate's precision.

        Raises:
            InputError: the claim is one-sided.
        """
        if self.lower is None or self.upper is None:
            raise InputError("a one-sided claim has no ball: read lower or upper")
        with working(self.precision_bits):
            return ball(self.lower).union(ball(self.upper))

    def verify(self, precision: int | None = None) -> bool:
        """Prove the claim again from scratch.

        Args:
            precision: working precision [bit]; the certificate's own by default.

        Returns:
            True if lower <= value <= upper was proved. False if not: the claim or a parameter is wrong, or the
            precision too small.

        Raises:
            InputError: the precision is no whole number of at least 32 bits.
            MissingDependencyError: python-flint is not installed.
        """
        flint()
        with working(self.precision_bits if precision is None else precision):
            return _proved(self)

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON types; `from_dict` is the inverse, through `json.dumps` too."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("parameters", "witness"):
            fields[name] = {key: _listed(value) for key, value in fields[name].items()}
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Certificate:
        """The certificate that `as_dict` wrote; nothing is proved by loading, call `verify`.

        Args:
            fields: what `as_dict` returned.

        Returns:
            The certificate.

        Raises:
            InputError: a field is missing, unknown or malformed.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        unknown, missing = set(fields) - set(names), set(names) - {"witness"} - set(fields)
        if unknown or missing:
            raise InputError(
                f"the fields of a certificate are {', '.join(names)}; "
                f"unknown here: {', '.join(sorted(unknown)) or 'none'}, missing: {', '.join(sorted(missing)) or 'none'}"
            )
        return cls(**fields)

    def __str__(self) -> str:
        """The statement with its bounds, one line."""
        low = "" if self.lower is None else f"{_shown(self.lower)} <= "
        high = "" if self.upper is None else f" <= {_shown(self.upper)}"
        return f"{low}{self.statement}{high}  [{self.precision_bits} bits; {self.method}]"


def _shown(decimal: str) -> str:
    """A decimal for reading: 12 digits are shown, all are stored."""
    head, _, power = decimal.partition("e")
    if len(head) > 14:
        head = head[:14] + "..."
    return f"{head}e{power}" if power else head


def _proved(certificate: Certificate) -> bool:
    module = importlib.import_module(f"ssmtheory.certify.{KINDS[certificate.kind]}")
    low, high = (None if bound is None else exact(bound) for bound in (certificate.lower, certificate.upper))
    if low is not None and high is not None and low > high:
        return False
    try:
        return bool(module.CHECKS[certificate.kind](dict(certificate.parameters), dict(certificate.witness), low, high))
    except (CertificationError, InputError, KeyError):
        # a parameter outside the claim's domain, or balls too wide: not proved, which is what False says
        return False


def issue(certificate: Certificate) -> Certificate:
    """Prove a certificate's claim and hand it back; nothing leaves this package unproved.

    Args:
        certificate: the claim.

    Returns:
        The same certificate.

    Raises:
        CertificationError: the claim was not proved.
    """
    if not certificate.verify():
        raise CertificationError(
            f"not proved at {certificate.precision_bits} bits: {certificate}; give more precision or a wider tolerance"
        )
    return certificate


def as_hinf_norm(certificate: Certificate) -> HinfNorm:
    """A certified sup over all real frequencies as the bracket that `ssmtheory.lti` uses.

    Args:
        certificate: two-sided, with the frequency of the lower bound as its witness: `s4d_gap`,
            `hippo_rho_deviation`, `ptd_deviation` or `sup_norm`.

    Returns:
        HinfNorm with float bounds rounded outwards and `rigorous=True`.

    Raises:
        InputError: the certificate is no two-sided supremum.
    """
    if certificate.lower is None or certificate.upper is None or "omega" not in certificate.witness:
        raise InputError(f"{certificate.kind} bounds no supremum over frequencies from both sides")
    from ssmtheory.lti.norms import HinfNorm

    low, high = exact(certificate.lower), exact(certificate.upper)
    lower, upper = float(low), float(high)
    lower = lower if Fraction(lower) <= low else math.nextafter(lower, -math.inf)
    upper = upper if Fraction(upper) >= high else math.nextafter(upper, math.inf)
    omega = float(certificate.witness["omega"])
    return HinfNorm(value=certificate.value, lower=lower, upper=upper, omega=omega, rigorous=True)
