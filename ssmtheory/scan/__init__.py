"""Selective scan, linear recurrence and causal convolution: one API, one file per backend."""
