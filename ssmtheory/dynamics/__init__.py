"""Dynamics of tokens and states: input-output matrices, memory, exponents, concordance."""
