"""What the certificates of LegS start from: the integer matrix, and the product phi.

With x_n = sqrt(2n+1) y_n, HiPPO-LegS has integer entries: -(2k+1) below the diagonal, -(n+1) on it, and input column 1.
Let phi_n(s) = prod_{k<n} (s-k)/(s+k+1), phi = phi_N and Y_n = phi_n/(s+n+1). From
phi_{n+1} = phi_n - (2n+1) Y_n follows by telescoping sum_{k<n} (2k+1) Y_k = 1 - phi_n, hence row n of
(sI - A) Y = 1 reads (s+n+1) Y_n + 1 - phi_n = 1, which holds. So the proof of Y, for every N, rests on the entries
alone, and the entries are compared here with the package's one definition. In addition:

* det(sI - A_N) = prod(s+k+1) (1 - (1 - phi)/2), as A_N = A + 1 c^T / 2 with c_k = 2k+1: S4D's poles are the zeros of
  1 + phi, and those of HiPPO-rho the zeros of 1 + a phi.
* S4D's states are Y/(1+phi), those of HiPPO-rho Y/(1 + a phi) (Sherman-Morrison).
* on s = i omega: |phi| = omega/sqrt(omega^2+N^2), ||X||^2 = sum (2n+1)|Y_n|^2 = N^2/(omega^2+N^2) and
  arg phi = 2 sum_{0<k<N} arctan(k/omega) + arctan(N/omega), which falls strictly from (2N-1) pi/2 to 0.
"""

from __future__ import annotations

import functools
from typing import Any

from ssmtheory.certify.balls import CertificationError, flint
from ssmtheory.errors import InputError

__all__ = ["check_definition", "checked_index", "checked_order", "integer_matrix", "legs_matrix"]

#: largest state dimension that the certificates accept; beyond it only time is in the way
MAX_ORDER = 4096


def checked_order(N: Any, least: int = 1) -> int:
    """A state dimension that can be certified.

    Args:
        N: what was given.
        least: smallest one that the claim allows.

    Returns:
        N as an int.

    Raises:
        InputError: not an integer from `least` to 4096.
    """
    if isinstance(N, bool) or not isinstance(N, int) or not least <= N <= MAX_ORDER:
        raise InputError(f"N is {N!r}: give a whole number from {least} to {MAX_ORDER}")
    return N


def checked_index(value: Any, count: int, name: str) -> int:
    """An index of one of `count` things.

    Args:
        value: what was given.
        count: how many there are.
        name: what is indexed, for the message.

    Returns:
        The index as an int.

    Raises:
        InputError: not an integer from 0 to count - 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        raise InputError(f"{name} is {value!r}: give a whole number from 0 to {count - 1}")
    return value


def integer_matrix(N: int) -> tuple[list[list[int]], list[int]]:
    """The integer matrix and input column of LegS in the scaling x_n = sqrt(2n+1) y_n, from `ssmtheory.inits`."""
    from ssmtheory.inits.hippo import legs_integer

    return legs_integer(N)


@functools.lru_cache(maxsize=64)
def check_definition(N: int) -> None:
    """Compare the package's definition of LegS with the entries that the proofs of this module use; exact integers.

    Args:
        N: state dimension.

    Raises:
        CertificationError: an entry differs, so that no certificate of LegS may be issued.
    """
    A, B = integer_matrix(N)
    odd = [-(2 * k + 1) for k in range(N)]
    for n in range(N):
        row = [int(x) for x in A[n]]
        if row != [*odd[:n], -(n + 1), *[0] * (N - n - 1)] or int(B[n]) != 1:
            raise CertificationError(f"row {n} of legs_integer({N}) is not that of HiPPO-LegS in the integer scaling")


def legs_matrix(N: int) -> tuple[Any, Any]:
    """HiPPO-LegS in the orthonormal basis x_n = sqrt(2n+1) y_n, as balls, from the integer definition.

    Args:
        N: state dimension.

    Returns:
        (A, B): acb_mat (N, N) and (N, 1).
    """
    module = flint()
    rows, column = integer_matrix(N)
    root = [module.arb(2 * n + 1).sqrt() for n in range(N)]
    A = module.acb_mat([[rows[n][k] * root[n] / root[k] for k in range(N)] for n in range(N)])
    return A, module.acb_mat([[column[n] * root[n]] for n in range(N)])
