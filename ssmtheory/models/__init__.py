"""Trainable models (torch) on the shared kernels and scan: linear layers of every initialisation, a classifier.

| name | what |
|---|---|
| `LTILayer`, `make_layer` | S4, S4D, DSS, S4-PTD, HiPPO-rho, S5, S5-PTD, LRU; trained or frozen part by part |
| `SequenceModel`, `make_model` | sequences to classes or values |
| `FitConfig`, `fit`, `predict`, `score` | training that is deterministic and resumes; prediction under a disturbance |
"""

from __future__ import annotations

from typing import Any

from ssmtheory.errors import require
from ssmtheory.lazy import find

# every module here is torch's: said once, with the way to get it
require("torch", "torch", "ssmtheory.models")

_FROM = {
    "FitConfig": "fit",
    "FitResult": "fit",
    "LTILayer": "lti_layers",
    "SequenceModel": "classifier",
    "make_layer": "lti_layers",
    "make_model": "classifier",
    "parse_variant": "lti_layers",
    "predict": "fit",
    "score": "fit",
}

__all__ = [
    "FitConfig", "FitResult", "LTILayer", "SequenceModel", "classifier", "fit", "lti_layers", "make_layer",
    "make_model", "parse_variant", "predict", "score",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    return find(__name__, name, _FROM)


def __dir__() -> list[str]:
    return __all__
