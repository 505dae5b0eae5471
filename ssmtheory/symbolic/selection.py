"""Derivations about selection: the gate of a gated recurrent network as a one-state selective SSM.

Paper: Mamba, arXiv 2312.00752.
"""

from __future__ import annotations

import sympy as sp

from ssmtheory.symbolic.derivation import Derivation, Identity, Tends, steps

__all__ = ["derive_gate_identity"]


def gate(e: sp.Expr) -> sp.Expr:
    """sigmoid(z) as a function of e = e^z."""
    return e / (1 + e)


def derive_gate_identity() -> Derivation:
    """One state, A = -1, B = 1, Delta = softplus(z): h_t = (1 - g) h_{t-1} + g x_t, g = sigmoid(z), by zero-order hold.

    Returns:
        Derivation with `result` a_bar, b_bar, euler (of e = e^z); proved.
    """
    e = sp.Symbol("e", positive=True)
    h, x = sp.symbols("h x")
    delta = sp.log(1 + e)
    a = sp.exp(-delta)
    b = (a - 1) / -1
    return Derivation(
        title="The gate of a selective SSM",
        setting=r"$N = 1$, $A = -1$, $B = 1$, $\Delta_t = \mathrm{softplus}(z_t) = \ln(1 + e)$ with $e = e^{z_t}$, "
        r"zero-order hold.",
        statement=r"$h_t = (1 - g_t) h_{t-1} + g_t x_t$ with $g_t = \sigma(z_t) = e/(1+e)$.",
        source="arXiv 2312.00752, Theorem 1",
        result={"a_bar": a, "b_bar": b, "euler": delta},
        steps=steps(
            (
                r"$\bar A = e^{-\Delta} = 1/(1+e) = 1 - g$.",
                Identity(a, 1 - gate(e)),
            ),
            (
                r"$\bar B = (e^{\Delta A} - 1)/A \cdot B = 1 - \bar A = g$.",
                Identity(b, gate(e)),
            ),
            (
                r"The step is a convex combination of the old state and the input.",
                (
                    Identity(a * h + b * x, (1 - gate(e)) * h + gate(e) * x),
                    Identity(a + b, sp.Integer(1)),
                ),
            ),
            (
                r"With the step $\bar B = \Delta B$ of Euler instead, the input is weighed by $\ln(1+e)$, which is $g$ "
                r"only in the limit $\Delta \to 0$.",
                Tends(delta / gate(e), e, sp.Integer(0), sp.Integer(1)),
            ),
        ),
    )
