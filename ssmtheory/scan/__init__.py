"""Selective scan, linear recurrence and causal convolution: one API, one file per backend."""

from __future__ import annotations

from ssmtheory.scan.api import BACKENDS, ResolvedBackend, linear_recurrence, resolve_backend, selective_scan
from ssmtheory.scan.conv import causal_conv1d, rms_norm, sigmoid, silu, softplus

__all__ = [
    "BACKENDS",
    "ResolvedBackend",
    "causal_conv1d",
    "linear_recurrence",
    "resolve_backend",
    "rms_norm",
    "selective_scan",
    "sigmoid",
    "silu",
    "softplus",
]
