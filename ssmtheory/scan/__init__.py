"""Selective scan, linear recurrence and causal convolution: one API, one file per backend."""

from __future__ import annotations

from ssmtheory.scan.api import BACKENDS, ResolvedBackend, linear_recurrence, resolve_backend, selective_scan
from ssmtheory.scan.conv import causal_conv1d, rms_norm, sigmoid, silu, softplus
from ssmtheory.scan.lti import (
    CONVOLUTION_METHODS,
    DISCRETIZATIONS,
    LTIPlan,
    cauchy_kernel,
    discretize_diagonal,
    fft_convolve,
    lti_convolve,
    lti_scan,
    plan_lti,
    vandermonde_kernel,
)

__all__ = [
    "BACKENDS",
    "CONVOLUTION_METHODS",
    "DISCRETIZATIONS",
    "LTIPlan",
    "ResolvedBackend",
    "cauchy_kernel",
    "causal_conv1d",
    "discretize_diagonal",
    "fft_convolve",
    "linear_recurrence",
    "lti_convolve",
    "lti_scan",
    "plan_lti",
    "resolve_backend",
    "rms_norm",
    "selective_scan",
    "sigmoid",
    "silu",
    "softplus",
    "vandermonde_kernel",
]
