"""The functions that claims name: small, and calling the library through its modules, never a copy of it.

A check returns a number, an interval, a yes or no, a `HinfNorm`, a certificate, a derivation, or a `Finding`. Each
module lists in `__all__` what a claim may name. Library functions are called as attributes of their modules, so that a
claim's mutation reaches them.
"""

from __future__ import annotations
