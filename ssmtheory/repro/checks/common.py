"""Checks that hand over to one function of the library: a derivation, a certificate."""

from __future__ import annotations

from typing import Any

from ssmtheory import certify, symbolic
from ssmtheory.errors import ConfigError

__all__ = ["certificate", "derivation"]


def derivation(name: str) -> Any:
    """Derive a statement of `ssmtheory.symbolic`; its steps are checked when the finding is read.

    Args:
        name: of a function `derive_...` without arguments.
    """
    if not name.startswith("derive_") or name not in symbolic.__all__:
        raise ConfigError(f"no derivation {name!r} in ssmtheory.symbolic")
    return getattr(symbolic, name)()


def certificate(name: str, **parameters: Any) -> Any:
    """Issue a certificate of `ssmtheory.certify`; it is proved again when the finding is read.

    Args:
        name: of the function that issues it.
        parameters: its arguments; lists become tuples.
    """
    if name not in certify.certificate.KINDS:
        raise ConfigError(f"no certificate {name!r} in ssmtheory.certify")
    return getattr(certify, name)(**{k: tuple(v) if isinstance(v, list) else v for k, v in parameters.items()})
