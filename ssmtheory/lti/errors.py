"""What can go wrong with a linear system, each with a name of its own."""

from __future__ import annotations

from ssmtheory.errors import InputError

__all__ = ["IllPosedDiagonalization", "MixedTimeBases", "NoRealization", "UnstableSystem"]


class IllPosedDiagonalization(InputError):
    """The eigenvectors are so nearly dependent that a diagonal form in double precision is another system.

    Attributes:
        kappa: 2-norm condition number of the matrix of unit eigenvectors, as far as double precision can tell (inf
            for a defective matrix).
    """

    def __init__(self, message: str, kappa: float):
        super().__init__(message)
        self.kappa = kappa


class MixedTimeBases(InputError):
    """Two systems are joined whose step sizes differ, or of which only one is discrete."""


class NoRealization(InputError):
    """A state-space matrix is asked of a system that is known by its transfer function alone."""


class UnstableSystem(InputError):
    """A norm that is finite for stable systems only is asked of an unstable one."""
