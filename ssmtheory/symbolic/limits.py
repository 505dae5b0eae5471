"""Kernel limits as N grows: what the limit is, in which sense it holds, in which it fails, and the witnesses.

"The kernels converge" means different things, and for S4D they come apart. The modes:

| mode | what converges |
|---|---|
| weak | <K_N - K, f> -> 0 for every f in L2(0, inf); outputs y_N(t) at every time, for every input in L2 |
| sampled | every entry of the discrete kernel, ZOH or bilinear, at a fixed step |
| compact | the transfer function, uniformly on every bounded band of frequencies |
| inputwise | the output in L2, for every fixed input in L2 (strong convergence of the input-output operators) |
| L2 | the kernel in L2(0, inf), that is the transfer function in H2 |
| uniform | the transfer function in H-infinity, that is the output in L2 uniformly over inputs of norm 1 |

`initial_value` is not a mode of convergence but a check that anyone can make at t = 0: whether K_N(0) -> K(0).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sympy as sp

from ssmtheory.errors import InputError, nearest
from ssmtheory.symbolic import gap, hippo, rho, windows
from ssmtheory.symbolic.derivation import Cited, Derivation, Identity, NonNegative, Report, Step, Tends, steps
from ssmtheory.symbolic.ingredients import N, Y, legendre, s, t

__all__ = ["MODES", "Limit", "available", "kernel_limit"]

#: Modes of convergence; "uniform" implies "inputwise" and "compact", and "L2" implies "weak", which implies "sampled".
MODES = ("weak", "sampled", "compact", "inputwise", "L2", "uniform")

_HALF = sp.Rational(1, 2)


@dataclass(frozen=True)
class Limit:
    """Limit of the kernels of an initialisation as N grows.

    Attributes:
        init: registry name of the initialisation.
        output: which output.
        expr: the limit kernel as a function of t.
        transfer: its Laplace transform as a function of s.
        holds: mode (see `MODES`, and "initial_value") -> whether the convergence holds in it.
        witness: mode -> the formula or number that shows it; for a mode that fails, what stays away from zero.
        derivation: the proof.
    """

    init: str
    output: int
    expr: sp.Expr
    transfer: sp.Expr
    holds: Mapping[str, bool]
    witness: Mapping[str, str]
    derivation: Derivation = field(repr=False)

    def check(self) -> Report:
        """Execute the derivation.

        Returns:
            Its report.
        """
        return self.derivation.check()

    def latex(self, full_document: bool = False) -> str:
        """The derivation as LaTeX.

        Args:
            full_document: wrap it into a document that compiles by itself.

        Returns:
            LaTeX source.
        """
        return self.derivation.latex(full_document)

    def lower(self, *, digits: int | None = None, **values: Any) -> Any:
        """The limit kernel as a number or a function of t (see `ssmtheory.symbolic.lower`).

        Args:
            digits: decimal digits; None for double precision.
            values: value of t.

        Returns:
            A number with t given, otherwise a function of t.
        """
        from ssmtheory.symbolic.lower import lower

        return lower(self.expr, digits=digits, **values)

    def __str__(self) -> str:
        lines = [f"kernel limit of {self.init}, output {self.output}: {self.expr}", f"status: {self.derivation.status}"]
        for mode, holds in self.holds.items():
            lines.append(f"  {mode:13} {'holds' if holds else 'FAILS'}  {self.witness.get(mode, '')}")
        return "\n".join(lines)


def _of(derivation: Derivation, label: str) -> tuple[Step, ...]:
    """The steps of a derivation, marked with what they are used for."""
    return tuple(Step(f"({label}) {step.text}", step.claims) for step in derivation.steps)


def _warped(output: int) -> tuple[sp.Expr, sp.Expr]:
    root = sp.sqrt(2 * output + 1)
    polynomial = sp.factor_terms(legendre(output, sp.exp(-t)))
    return root * sp.exp(-t) * polynomial, root * Y(output)


def _table(**found: tuple[bool, str]) -> tuple[dict[str, bool], dict[str, str]]:
    """(holds, witness) from mode=(holds, witness); modes in the order of `MODES`."""
    order = (*MODES, "initial_value")
    return {m: found[m][0] for m in order}, {m: found[m][1] for m in order}


def _legs(output: int, init: Any) -> Limit:
    if getattr(init, "variant", "published") != "published":
        raise InputError(f"variant={init.variant!r}: the limit is derived for variant='published'")
    expr, transfer = _warped(output)
    holds, witness = _table(**dict.fromkeys((*MODES, "initial_value"), (True, "the kernel does not depend on N > n")))
    derivation = hippo.derive_legs_kernel(output)
    return Limit("legs", output, expr, transfer, holds, witness, derivation)


def _s4d_legs(output: int, init: Any) -> Limit:
    if getattr(init, "variant", "published") != "published":
        raise InputError(
            f"variant={init.variant!r}: the shipped B (not halved, clipped) has another limit, which is not derived; "
            "use variant='published'"
        )
    expr, transfer = _warped(output)
    root = sp.sqrt(2 * output + 1)
    w, cut = sp.symbols("omega Omega", positive=True)
    extra, spare = sp.symbols("d e", nonnegative=True)
    h = sp.Symbol("h", positive=True)
    x = sp.Symbol("x", positive=True)
    k0 = sp.Symbol("k", integer=True, positive=True)
    l2 = gap.derive_l2_gap()
    limit2 = sp.Rational(2 * output + 1, 4)
    own = steps(
        (
            r"(weak) The norms $\|K_{\mathrm{Diag},n}\|$ are bounded in $N$ (their squares tend to the $L^2$ gap "
            r"plus $\tfrac12$), and "
            r"$\langle K_{\mathrm{Diag},n} - K_n, e^{-kt}\rangle = 0$ for $1 \le k < N$. With $x = e^{-t}$, $dt = "
            r"dx/x$ these exponentials are the monomials "
            r"$x^{k-1}$ in $L^2(0,1)$ after the factor $x$, and polynomials are dense: weak convergence.",
            (
                Cited(
                    "Weierstrass approximation theorem",
                    hypotheses=(Identity(sp.exp(-k0 * t), sp.exp(-t) * sp.exp(-(k0 - 1) * t)),),
                ),
                Tends(
                    (2 * output + 1) / sp.Integer(4) - (3 * output**2 + 3 * output + 1) / (2 * N**2) + _HALF,
                    N,
                    sp.oo,
                    limit2 + _HALF,
                ),
            ),
        ),
        (
            r"(sampled) A ZOH sample is $\int_{k\Delta}^{(k+1)\Delta}K\,dt$, the inner product with an indicator; a "
            r"bilinear sample is a Taylor "
            r"coefficient in $\zeta$ of $\frac{2}{1+\zeta}G(\frac2\Delta\frac{1-\zeta}{1+\zeta})$, the inner product "
            r"with a function in $L^2$, because "
            r"$\frac{2}{1+\zeta}e^{-st}$ is analytic in $|\zeta|<1$ with coefficients $e^{-2t/\Delta}$ times "
            r"polynomials. Weak convergence suffices.",
            (
                Identity(2 / (1 + x) * sp.exp(0), 2 / (1 + x)),
                Identity((2 * (1 - x) / (1 + x)).subs(x, 0), sp.Integer(2)),
            ),
        ),
        (
            r"(compact) For $|\omega| \le \Omega$: $|\varphi_N| \le \frac{\Omega}{N}$, so the gap is at most "
            r"$\frac{|\varphi_N|}{1-|\varphi_N|}|X_n| \to 0$.",
            (
                NonNegative(
                    (w + extra) ** 2 / N**2,
                    w**2 / (w**2 + N**2),
                    ((w + extra) ** 2 * w**2 + (2 * w * extra + extra**2) * N**2) / (N**2 * (w**2 + N**2)),
                ),
                Tends((cut / N) / (1 - cut / N), N, sp.oo, sp.Integer(0)),
            ),
        ),
        (
            r"(inputwise) The gap $g_N$ of the transfer functions is bounded by one constant for all $\omega$ and "
            r"$N$: for $\omega \le N^2$ it is at most "
            r"$\frac{|\varphi|}{1-|\varphi|}|X_n| = \frac{\omega(\omega+h)}{N^2}|X_n| \le "
            r"\sqrt{2n+1}\,\frac{\omega+h}{N^2} \le (1+\sqrt2)\sqrt{2n+1}$, $h^2 = \omega^2+N^2$; "
            r"beyond, the phase of $\varphi$ is at most $N^2/\omega \le 1$, so $|1+\varphi| \ge 1$. With convergence "
            r"on bounded bands $\int|g_N\hat u|^2 \to 0$ for "
            r"every $\hat u \in L^2$.",
            (
                Identity((w / h) / (1 - w / h), w * (w + h) / N**2, relations=(h**2 - w**2 - N**2,)),
                NonNegative(
                    1 / w**2,
                    w**2 / ((w**2 + output**2) * (w**2 + (output + 1) ** 2)),
                    (w**2 * (output**2 + (output + 1) ** 2) + output**2 * (output + 1) ** 2)
                    / (w**2 * (w**2 + output**2) * (w**2 + (output + 1) ** 2)),
                ),
                NonNegative(
                    2 * (1 + spare) ** 4, (1 + spare) ** 4 + (1 + spare) ** 2, (1 + spare) ** 2 * (spare**2 + 2 * spare)
                ),
                Cited("dominated convergence theorem"),
                Cited("Plancherel theorem"),
            ),
        ),
        (
            r"(initial value) $K_{\mathrm{Diag},n}(0) = B_n/2$ for every $N$, and $K_n(0) = B_n$.",
            (
                Identity(root / 2, root * _HALF),
                Identity(expr.subs(t, 0), root),
            ),
        ),
    )
    holds, witness = _table(
        weak=(True, "moments at s = 1, ..., N-1 agree exactly, norms are bounded"),
        sampled=(True, "each sample is an inner product with a fixed L2 function"),
        compact=(True, "|gap| <= W/(N - W) |X_n| for |omega| <= W"),
        inputwise=(True, "gap bounded by (1 + sqrt(2)) sqrt(2n+1) for all omega and N, and -> 0 on bounded bands"),
        L2=(False, f"squared gap {limit2} - {3 * output**2 + 3 * output + 1}/(2 N^2) for N >= {output + 2}"),
        uniform=(
            False,
            f"spike of height -> {2 * root}/pi at omega = N^2/pi - pi/6 + O(1/N^2)",
        ),
        initial_value=(False, f"K_Diag(0) = {root / 2} for every N, K(0) = {root}"),
    )
    derivation = Derivation(
        title=f"Kernel limit of S4D-LegS, output {output}",
        setting=l2.setting,
        statement=rf"As $N \to \infty$ the kernel of output {output} of S4D-LegS tends to ${sp.latex(expr)}$ weakly, "
        rf"after sampling, and in "
        r"frequency on every bounded band; it does not tend to it in $L^2$ (the squared distance tends to "
        rf"${sp.latex(limit2)}$), nor uniformly in frequency (the distance stays at ${sp.latex(2 * root / sp.pi)}$ "
        rf"or more).",
        source="arXiv 2206.11893, Theorem 3 as remembered (convergence of the kernels, mode not named).",
        result={"kernel": expr, "transfer": transfer, "gap2": l2.result["gap2"].subs(gap.n, output)},
        steps=_of(hippo.derive_legs_kernel(output), "limit")
        + _of(hippo.derive_s4d_quotient(), "quotient")
        + _of(gap.derive_moments(), "weak")
        + own
        + _of(gap.derive_s4d_gramian(), "L2")
        + _of(l2, "L2")
        + _of(gap.derive_uniform_gap(), "uniform"),
        confirmations=l2.confirmations,
    )
    return Limit("s4d-legs", output, expr, transfer, holds, witness, derivation)


def _hippo_rho(output: int, init: Any) -> Limit:
    if getattr(init, "normal", False):
        raise InputError("normal=True: the exactly normal replacement is fitted numerically, no limit of it is derived")
    expr, transfer = _warped(output)
    value = getattr(init, "rho", None)
    size = sp.Symbol("rho", positive=True) if value is None else sp.nsimplify(value, rational=True)
    a = sp.Symbol("a")
    bound = rho.derive_hippo_rho_bound()
    root = sp.sqrt(2 * output + 1)
    rate = f"{root}/(({size} - 1)(N + {output + 1}))"
    weaker = "follows from L2"
    holds, witness = _table(
        weak=(True, weaker),
        sampled=(True, weaker),
        compact=(True, "follows from uniform"),
        inputwise=(True, "follows from uniform"),
        L2=(True, f"distance <= sqrt({2 * output + 1}/(2 (N + {output + 1})))/({size} - 1)"),
        uniform=(True, f"distance <= {rate}"),
        initial_value=(False, f"K_a(0) = {root}/(1 + a) for every N, K(0) = {root}"),
    )
    own = steps(
        (
            r"(weaker modes) $L^2$ convergence implies weak convergence, and each sample is an inner product with a "
            r"fixed $L^2$ function; "
            r"uniform convergence implies it on bounded bands and for every input.",
            (Cited("Cauchy-Schwarz inequality"), Cited("Plancherel theorem")),
        ),
        (
            r"(initial value) $K_{a,n}(0) = B_n/(1+a)$ for every $N$.",
            Identity(root / (1 + a) - root, -a * root / (1 + a)),
        ),
    )
    derivation = Derivation(
        title=f"Kernel limit of HiPPO-rho, output {output}",
        setting=bound.setting,
        statement=rf"For fixed $\rho > 1$ and every phase of $a$ the kernel of output {output} tends to "
        rf"${sp.latex(expr)}$ in $L^2$, and its transfer "
        rf"function uniformly, with distance at most $\frac{{{sp.latex(root)}}}{{(\rho-1)(N+{output + 1})}}$.",
        result={
            "kernel": expr,
            "transfer": transfer,
            "distance": bound.result["output"].subs(gap.n, output),
        },
        steps=_of(hippo.derive_legs_kernel(output), "limit")
        + _of(rho.derive_hippo_rho(), "closed form")
        + _of(bound, "uniform and L2")
        + own,
        confirmations=bound.confirmations,
    )
    return Limit("hippo-rho", output, expr, transfer, holds, witness, derivation)


def _legt(output: int, init: Any) -> Limit:
    _plain_window(init)
    root = sp.sqrt(2 * output + 1)
    expr = root * sp.expand(sp.legendre(output, 1 - 2 * t)) * sp.Heaviside(1 - t, 1)
    x = sp.Symbol("x", nonnegative=True)
    polynomial = sp.legendre(output, 1 - 2 * x)
    transfer = root * sp.integrate(sp.expand(sp.exp(-s * x) * polynomial), (x, 0, 1), conds="none")
    u, y, b = sp.symbols("u y b", real=True)
    w = sp.Symbol("omega", positive=True)
    odd, even = sp.symbols("e_n e_k", real=True)
    own = steps(
        (
            r"(compact) $e^{-s} - G_N$ tends to 0 uniformly on bounded sets, so the state error $e_0 = (G_N - "
            r"e^{-s})/s$ does, and "
            r"$e_n = e_0\,p_n(1/s)$ with a polynomial $p_n$ that does not depend on $N$; near $s=0$ by the maximum "
            r"principle.",
            (Cited("Pade convergence for the exponential"), Cited("maximum principle")),
        ),
        (
            r"(norm) $A + A^T = -BB^T - CC^T$: the entries $1$ ($n \ge k$) and $(-1)^{n-k}$ ($n<k$) of $A$ add up to "
            r"$1 + (-1)^n(-1)^k$. So "
            r"$AI + IA^T + BB^T \preceq 0$, the Gramian is at most $I$ and $\|K_n\|^2 \le 1$ for every $N$, the norm "
            r"of the limit.",
            (
                Identity(1 + odd * even, 1 + even * odd),
                Identity(
                    sp.integrate(sp.expand((root * polynomial) ** 2), (x, 0, 1)),
                    sp.Integer(1),
                ),
            ),
        ),
        (
            r"(weak, $L^2$) Bounded norms and convergence of the transforms on an interval give weak convergence. Then "
            r"$\limsup\|K_{N,n}\| \le \|K_n\|$ makes it strong: $\|K_N-K\|^2 = \|K_N\|^2 - 2\langle K_N,K\rangle + "
            r"\|K\|^2$.",
            (
                Cited("Weierstrass approximation theorem"),
                Identity(1 - 2 * 1 + 1, sp.Integer(0)),
            ),
        ),
        (
            r"(uniform) $|G_N(i\omega)| \le 1$: $\frac{d}{dt}\|x\|^2 = -|B^Tx|^2-|C^Tx|^2+2uB^Tx \le u^2 - y^2$. So "
            r"$|e_0| \le 2/|\omega|$ and $|e_n| \le c_n/|\omega|$ with "
            r"$c_n$ free of $N$ for $|\omega| \ge 1$: together with bounded bands, uniform on the whole axis.",
            (
                NonNegative(u**2 - y**2, -(b**2) - y**2 + 2 * u * b, (u - b) ** 2),
                Tends(2 / w, w, sp.oo, sp.Integer(0)),
            ),
        ),
        (
            r"(initial value) $K_n(0) = B_n$, and $P_n(1) = 1$.",
            Identity((root * polynomial).subs(x, 0), root),
        ),
    )
    pade = windows.derive_legt_pade()
    holds, witness = _table(
        weak=(True, "follows from L2"),
        sampled=(True, "follows from L2"),
        compact=(True, "Pade approximants of the exponential converge on bounded sets"),
        inputwise=(True, "follows from uniform"),
        L2=(True, "weak convergence and norms of at most 1, the norm of the limit"),
        uniform=(True, "bounded bands, and c_n/|omega| beyond"),
        initial_value=(True, f"both are {root}"),
    )
    derivation = Derivation(
        title=f"Kernel limit of LegT, output {output}",
        setting=pade.setting,
        statement=rf"As $N\to\infty$ the kernel of output {output} tends to "
        rf"$\sqrt{{{2 * output + 1}}}\,P_{{{output}}}(1-2t)$ on $[0,1]$ and $0$ beyond, in $L^2$, "
        r"and its transfer function uniformly.",
        result={"kernel": expr, "transfer": transfer},
        steps=_of(pade, "delay") + own,
    )
    return Limit("legt", output, expr, transfer, holds, witness, derivation)


def _plain_window(init: Any) -> None:
    window, variant = getattr(init, "window", 1.0), getattr(init, "variant", "published")
    correction = getattr(init, "correction", 1.0)
    if window != 1 or variant != "published" or correction != 1:
        raise InputError(
            f"window={window!r}, variant={variant!r}, correction={correction!r}: the limit is derived for window=1, "
            "variant='published', correction=1"
        )


def _fout(output: int, init: Any) -> Limit:
    _plain_window(init)
    half, odd = divmod(output, 2)
    angle = 2 * sp.pi * half * t
    basis = sp.Integer(1) if output == 0 else sp.sqrt(2) * (sp.sin(angle) if odd else sp.cos(angle))
    free = 1 / s if output == 0 else sp.sqrt(2) * (2 * sp.pi * half if odd else s) / (s**2 + (2 * sp.pi * half) ** 2)
    expr = basis * sp.Heaviside(1 - t, 1)
    transfer = free * (1 - sp.exp(-s))
    if output == 1:
        raise InputError("output=1: the sine of frequency 0 is identically zero; choose 0 or an output from 2 on")
    delay = windows.derive_fout_delay()
    q = sp.Symbol("q", real=True)
    w = sp.Symbol("omega", positive=True)
    c, d = sp.symbols("c d", real=True)
    own = steps(
        (
            r"(compact) $2/(1+2q_N) \to 1-e^{-s}$ uniformly on bounded sets: away from the poles of $\coth$ "
            r"directly, near a pole $p$ after "
            r"multiplying numerator and denominator by $s-p$, which leaves an analytic function without zero.",
            Cited("Mittag-Leffler expansion of coth"),
        ),
        (
            r"(norm) $A+A^T = -4bb^T = -BB^T$, so the Gramian is exactly $I$ for every $N$: $\|K_n\| = 1$, which is "
            r"the norm of the limit.",
            (
                Identity(-2 * c * d - 2 * d * c, -(2 * c) * (2 * d)),
                Identity(sp.integrate(sp.expand(basis**2), (t, 0, 1)), sp.Integer(1)),
            ),
        ),
        (
            r"(weak, $L^2$) Bounded norms and convergence of the transforms give weak convergence; equal norms make "
            r"it strong.",
            (Cited("Weierstrass approximation theorem"), Identity(1 - 2 * 1 + 1, sp.Integer(0))),
        ),
        (
            r"(uniform) On the axis $q$ is imaginary, so $|1+2q| \ge 1$ and $|X_n| \le 2|[(i\omega-S)^{-1}b]_n|$, "
            r"which is $O(1/\omega)$ with a constant free of $N$.",
            (
                NonNegative(1 + 4 * q**2, sp.Integer(1), 4 * q**2),
                Tends(1 / w, w, sp.oo, sp.Integer(0)),
            ),
        ),
        (
            r"(initial value) $K_n(0) = B_n = 2b_n$ for every $N$, and the limit starts at $b_n$.",
            Identity(2 * basis.subs(t, 0) - basis.subs(t, 0), basis.subs(t, 0)),
        ),
    )
    start = basis.subs(t, 0)
    holds, witness = _table(
        weak=(True, "follows from L2"),
        sampled=(True, "follows from L2"),
        compact=(True, "partial fractions of coth"),
        inputwise=(True, "follows from uniform"),
        L2=(True, "weak convergence and norm 1 for every N, the norm of the limit"),
        uniform=(True, "bounded bands, and O(1/omega) beyond, free of N"),
        initial_value=(start == 0, f"K_N(0) = {2 * start} for every N, the limit starts at {start}"),
    )
    derivation = Derivation(
        title=f"Kernel limit of FouT, output {output}",
        setting=delay.setting,
        statement=rf"As $N\to\infty$ the kernel of output {output} tends to ${sp.latex(basis)}$ on $[0,1]$ and $0$ "
        rf"beyond, in $L^2$, and its transfer function "
        r"uniformly.",
        result={"kernel": expr, "transfer": transfer},
        steps=_of(delay, "delay") + own,
    )
    return Limit("fout", output, expr, transfer, holds, witness, derivation)


def _modes_only(init: Any) -> None:
    if getattr(init, "basis", "modes") != "modes":
        raise InputError(
            f"basis={init.basis!r}: with the eigenvectors of LegS and other poles no limit is derived; "
            "use basis='modes'"
        )


def _mode(pole: sp.Expr, name: str, output: int, title: str, remark: str, extra: tuple[Step, ...]) -> Limit:
    """A diagonal law whose pole number n does not depend on N: the kernel of mode n is its own limit."""
    expr, transfer = sp.exp(sp.expand(pole) * t), 1 / (s - pole)
    holds, witness = _table(**dict.fromkeys((*MODES, "initial_value"), (True, "the mode does not depend on N > n")))
    lam = sp.Symbol("lambda")
    derivation = Derivation(
        title=title,
        setting=r"Outputs are modes: output $n$ reads the mode with pole $\lambda_n$ and input 1.",
        statement=rf"Mode {output} has the kernel ${sp.latex(expr)}$ for every $N$. {remark}",
        source="arXiv 2206.11893 (S4D).",
        result={"kernel": expr, "transfer": transfer},
        steps=steps(
            (
                r"A diagonal system does not couple its modes: $\dot x = \lambda x + u$ has the kernel $e^{\lambda "
                r"t}$.",
                (
                    Identity(sp.diff(sp.exp(lam * t), t), lam * sp.exp(lam * t)),
                    Identity(expr.subs(t, 0), sp.Integer(1)),
                    Identity(sp.diff(expr, t), pole * expr),
                ),
            ),
        )
        + extra,
    )
    return Limit(name, output, expr, transfer, holds, witness, derivation)


def _s4d_lin(output: int, init: Any) -> Limit:
    _modes_only(init)
    delay = windows.derive_fout_delay()
    return _mode(
        -_HALF + sp.I * sp.pi * output,
        "s4d-lin",
        output,
        f"Kernel of S4D-Lin, mode {output}",
        r"This is not the limit of FouT: its modes lack the factor $1-e^{-s}$, the window, and their memory never "
        r"ends.",
        _of(delay, "not FouT"),
    )


def _s4d_real(output: int, init: Any) -> Limit:
    return _mode(
        sp.Integer(-(output + 1)), "s4d-real", output, f"Kernel of S4D-Real, mode {output}",
        r"The exponents are those of the LegS kernels, which are fixed combinations of these modes.",
        _of(hippo.derive_legs_kernel(output), "LegS"),
    )  # fmt: skip


def _s4d_inv(output: int, init: Any) -> Limit:
    _modes_only(init)
    index = sp.Integer(output)
    size = sp.Symbol("N", positive=True)
    height = size / sp.pi * (size / (2 * index + 1) - 1)
    lam = -_HALF + sp.I * height
    c = sp.Symbol("c", positive=True)
    y = sp.Symbol("y", positive=True)
    at = (2 * index + 1) * sp.pi
    law = size**2 / at - at / 6 + at * (2 * at**2 + 15) / (180 * size**2)
    holds, witness = _table(
        weak=(True, "the frequency grows like N^2: averages vanish"),
        sampled=(True, "each sample is at most 2/|lambda_n|"),
        compact=(True, "1/|i omega - lambda_n| -> 0 on bounded bands"),
        inputwise=(True, "peak 2 for every N, and -> 0 on bounded bands"),
        L2=(False, "norm 1 for every N"),
        uniform=(False, "peak 2 for every N, at omega = N^2/((2n+1) pi) - N/pi"),
        initial_value=(False, "K_N(0) = 1 for every N, the limit is 0"),
    )
    derivation = Derivation(
        title=f"Kernel limit of S4D-Inv, mode {output}",
        setting=r"Outputs are modes: output $n$ reads the mode with pole $\lambda_n = -\tfrac12 + "
        r"\frac{iN}{\pi}\left(\frac{N}{2n+1}-1\right)$ and input 1.",
        statement=r"For fixed $n$ the kernel $e^{\lambda_nt}$ tends to 0 weakly, after sampling and on bounded "
        r"bands, but keeps norm 1 and peak 2. Its pole "
        r"lies $\frac N\pi$ below that of S4D-LegS to leading order: a relative error of $(2n+1)/N$, but $N/\pi$ "
        r"half-widths of "
        r"$\tfrac12$ doubled.",
        source="arXiv 2206.11893, eq. (8) (S4D-Inv).",
        result={"kernel": sp.Integer(0), "pole": lam.subs(size, N)},
        steps=steps(
            (
                r"Transforms at $c>0$: $|1/(c-\lambda_n)|^2 = 1/((c+\tfrac12)^2+y^2) \to 0$, $y = "
                r"\mathrm{Im}\,\lambda_n$, and the norms are 1. The same limit on bounded bands, with "
                r"the peak 2 for every $N$, gives convergence for every fixed input.",
                (
                    Identity(1 / ((c + _HALF - sp.I * y) * (c + _HALF + sp.I * y)), 1 / ((c + _HALF) ** 2 + y**2)),
                    Tends(1 / ((c + _HALF) ** 2 + height**2), size, sp.oo, sp.Integer(0)),
                    Cited("Weierstrass approximation theorem"),
                    Cited("dominated convergence theorem"),
                ),
            ),
            (
                r"Norm: $\int_0^\infty e^{-t}dt = 1$; peak: $1/|\mathrm{Re}\,\lambda_n| = 2$.",
                (
                    Identity(sp.integrate(sp.exp(-t), (t, 0, sp.oo)), sp.Integer(1)),
                    Identity(1 / _HALF, sp.Integer(2)),
                ),
            ),
            (
                r"Samples: $\left|\frac{e^{\lambda\Delta}-1}{\lambda}e^{\lambda\Delta k}\right| \le "
                r"\frac{2}{|\lambda|} \to 0$.",
                Tends(4 / (sp.Rational(1, 4) + height**2), size, sp.oo, sp.Integer(0)),
            ),
            (
                r"Distance from the exact spectrum (asymptotic spectrum of the normal part).",
                Tends((height - law) / size, size, sp.oo, -1 / sp.pi),
            ),
        ),
    )
    return Limit("s4d-inv", output, sp.Integer(0), sp.Integer(0), holds, witness, derivation)


_DERIVED: dict[str, Callable[[int, Any], Limit]] = {
    "fout": _fout,
    "hippo-rho": _hippo_rho,
    "legs": _legs,
    "legt": _legt,
    "s4": _legs,
    "s4d-inv": _s4d_inv,
    "s4d-legs": _s4d_legs,
    "s4d-lin": _s4d_lin,
    "s4d-real": _s4d_real,
}


def available() -> list[str]:
    """Names of the initialisations whose kernel limit is derived.

    Returns:
        Registry names, sorted.
    """
    return sorted(_DERIVED)


def kernel_limit(init: Any, output: int = 0) -> Limit:
    """Limit of the kernel of one output as N grows, with its modes of convergence.

    Args:
        init: an `Initialization`, or its registry name.
        output: which output: that of the HiPPO basis (C = e_n); for the names s4d-lin, s4d-inv and s4d-real the mode
            (B = 1, basis="modes").

    Returns:
        The limit, with what holds, what fails and its witness, and the derivation.

    Raises:
        InputError: an initialisation, a variant of it or an output for which no limit is derived.

    >>> limit = kernel_limit("s4d-legs", output=0)
    >>> limit.expr, limit.holds["weak"], limit.holds["L2"]
    (exp(-t), True, False)
    """
    name = init if isinstance(init, str) else getattr(init, "name", type(init).__name__)
    if name not in _DERIVED:
        raise InputError(
            f"init={name!r}: no kernel limit is derived; choose one of "
            f"{', '.join(available())}.{nearest(name, _DERIVED)}"
        )
    if isinstance(output, bool) or not isinstance(output, int) or output < 0:
        raise InputError(f"output={output!r}: must be an integer of at least 0")
    found = _DERIVED[name](output, init)
    return found if found.init == name else _renamed(found, name)


def _renamed(limit: Limit, name: str) -> Limit:
    return Limit(name, limit.output, limit.expr, limit.transfer, limit.holds, limit.witness, limit.derivation)
