"""Checks that hand over to one function of the library: a derivation, a certificate."""

from __future__ import annotations

import dataclasses
from typing import Any

from ssmtheory import certify, symbolic
from ssmtheory.errors import ConfigError
from ssmtheory.repro.finding import Finding, finding

__all__ = ["certificate", "derivation", "kernel_limit"]


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


def kernel_limit(init: str, output: int, fails: list[str]) -> Finding:
    """Whether the kernel of an initialisation converges in every mode of `ssmtheory.symbolic.limits` but those named.

    Args:
        init: registry name of the initialisation.
        output: which output.
        fails: the modes in which it must not converge.
    """
    limit = symbolic.kernel_limit(init, output)
    found = finding(limit.check())
    modes = symbolic.limits.MODES
    right = sorted(mode for mode in modes if not limit.holds[mode]) == sorted(fails)
    told = ", ".join(f"{mode} {'holds' if limit.holds[mode] else 'fails'}" for mode in modes)
    return dataclasses.replace(found, holds=bool(found.holds) and right, detail=f"{limit.expr}: {told}")
