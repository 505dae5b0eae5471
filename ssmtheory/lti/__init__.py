"""Linear time-invariant systems: transfer functions, norms with brackets, pseudospectra, conditioning.

| module | what |
|---|---|
| systems, transfer | the kinds of system, and closed forms that carry bounds |
| algebra | sums, series, feedback, mixing |
| norms | H-infinity with a bracket, H2, Gramians |
| reduction | Hankel singular values, balanced truncation |
| discretize, kernels | zero-order hold, bilinear, Euler; convolution kernels, impulse and step responses |
| frequency | Bode and Nyquist data |
| pseudospectra | resolvent norms, abscissa, radius, numerical range, Kreiss constant, transient growth |
| conditioning | eigenvector condition numbers, in extended precision where needed |
| adapters | python-control and pyMOR, never dropping an imaginary part |
"""

from __future__ import annotations

from typing import Any

from ssmtheory.lazy import find

#: name -> module that defines it
_FROM = {
    "LTI": "base",
    "StateSpace": "systems",
    "DiagonalStateSpace": "systems",
    "LowRankStateSpace": "systems",
    "TriangularStateSpace": "systems",
    "TransferFunction": "transfer",
    "pole_residue": "transfer",
    "static_gain": "algebra",
    "IllPosedDiagonalization": "errors",
    "MixedTimeBases": "errors",
    "NoRealization": "errors",
    "UnstableSystem": "errors",
    "HinfNorm": "norms",
    "hinf_norm": "norms",
    "linf_norm": "norms",
    "h2_norm": "norms",
    "gramian": "norms",
    "Reduction": "reduction",
    "balanced_truncation": "reduction",
    "hankel_singular_values": "reduction",
    "bode": "frequency",
    "nyquist": "frequency",
    "eigenvector_condition": "conditioning",
    "from_control": "adapters",
    "to_control": "adapters",
    "to_pymor": "adapters",
}

__all__ = [
    "LTI",
    "DiagonalStateSpace",
    "HinfNorm",
    "IllPosedDiagonalization",
    "LowRankStateSpace",
    "MixedTimeBases",
    "NoRealization",
    "Reduction",
    "StateSpace",
    "TransferFunction",
    "TriangularStateSpace",
    "UnstableSystem",
    "adapters",
    "algebra",
    "balanced_truncation",
    "base",
    "bode",
    "conditioning",
    "discretize",
    "eigenvector_condition",
    "errors",
    "frequency",
    "from_control",
    "gramian",
    "h2_norm",
    "hankel_singular_values",
    "hinf_norm",
    "kernels",
    "linf_norm",
    "norms",
    "nyquist",
    "pole_residue",
    "pseudospectra",
    "reduction",
    "solve",
    "static_gain",
    "systems",
    "to_control",
    "to_pymor",
    "transfer",
]


def __getattr__(name: str) -> Any:
    return find(__name__, name, _FROM)


def __dir__() -> list[str]:
    return __all__
