"""Theorems about the distance between S4D and LegS: Gramian, L2 gap, weak constant, failure of uniform convergence.

All for general n and N. The Gramian and the L2 gap are proved by algebra alone (a Lyapunov equation summed in closed
form, and moments that agree exactly); the weak constant needs the Poisson formula. Theorems 1 to 3 of the theory notes;
they sharpen arXiv 2206.11893 (S4D, Theorem 3 as remembered: kernels "converge") and arXiv 2310.01698 (PTD, weak
convergence at rate 1/n).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import sympy as sp

from ssmtheory.symbolic.derivation import (
    Cited,
    Derivation,
    FiniteN,
    Identity,
    NonNegative,
    ProductLaw,
    SumLaw,
    Tends,
    steps,
)
from ssmtheory.symbolic.ingredients import (
    N,
    Y,
    j,
    k,
    m,
    n,
    normal_integer,
    omega,
    outer,
    phi,
    s,
    sylvester,
    t,
)

__all__ = [
    "derive_l2_gap",
    "derive_moments",
    "derive_s4d_gramian",
    "derive_uniform_gap",
    "derive_weak_constant",
    "poisson",
]

_SETTING = (
    r"S4D keeps the normal part $A_N = A + \tfrac12 BB^T$ of LegS and halves $B$; $K$ and $K_{\mathrm{Diag}}$ are "
    r"the kernels, one "
    r"per output $n$, $\varphi_N(s) = \prod_{k<N}(s-k)/(s+k+1)$, $H = (1-\varphi_N)/(1+\varphi_N)$."
)
_HALF = sp.Rational(1, 2)


def poisson(*hypotheses: Any) -> Cited:
    """The Poisson formula for a function that is analytic and bounded right of the imaginary axis.

    Args:
        hypotheses: claims to be checked with it.

    Returns:
        The cited claim.
    """
    return Cited(
        "Poisson formula of the half-plane",
        r"\frac{1}{2\pi}\int \frac{\mathrm{Re}\, H(i\omega)}{\omega^2+c^2}\,d\omega = \frac{\mathrm{Re}\,H(c)}{2c}, "
        r"\quad c > 0",
        hypotheses=tuple(hypotheses),
    )


def _diagonal(index: sp.Expr) -> sp.Expr:
    return (_HALF - (3 * index**2 + 3 * index + 1) / (2 * N**2)) / (2 * index + 1)


def _off(index: sp.Expr) -> sp.Expr:
    return (1 - (index + 1) ** 2 / N**2) * (index + 1) / (2 * (2 * index + 1) * (2 * index + 3))


def _bulk(low: sp.Expr, high: sp.Expr) -> sp.Expr:
    return sp.Rational(1, 4) - (high * (high + 1) - low * (low + 1)) / (2 * N**2)


def _exact_gramian(size: int) -> list[list[Fraction]]:
    """Root-free Gramian of S4D from the Lyapunov equation of the integer matrix."""
    rows, ones = normal_integer(size)
    half = [value / 2 for value in ones]
    return sylvester(rows, rows, outer(half, half))


def derive_s4d_gramian() -> Derivation:
    """The whole controllability Gramian of S4D-LegS in closed form, for all n, m, N (Theorem 2 of the notes).

    Returns:
        Derivation with `result` diagonal (n), next (n: entry n, n+1), bulk (n, m: entries with m >= n + 2); proved.

    >>> derive_s4d_gramian().status
    'proved'
    """
    x = sp.Symbol("x", integer=True, nonnegative=True)
    p = sp.Symbol("p", integer=True, nonnegative=True)  # p = m - n - 2 in the generic case
    low = x**2 / 4 - (m * (m + 1) * x**2 - x**2 * (x**2 - 1) / 2) / (2 * N**2)  # sum_{k<x} (2k+1) bulk(k, m), x <= m+1
    top = m + 1
    high = (x**2 - top**2) / 4 - ((x**2 * (x**2 - 1) - top**2 * (top**2 - 1)) / 2 - m * (m + 1) * (x**2 - top**2)) / (
        2 * N**2
    )  # sum_{m<k<x} (2k+1) bulk(m, k)

    def entry(row: sp.Expr, column: sp.Expr, above: bool) -> sp.Expr:
        """Sum over k of a(row, k) bulk(k, column); `above`: row <= column."""
        lower, upper = low.subs(m, column), high.subs(m, column)
        if above:
            before = lower.subs(x, row)
            after = lower.subs(x, column + 1) - lower.subs(x, row + 1) + upper.subs(x, N)
            here = _bulk(row, column)
        else:
            before = lower.subs(x, column + 1) + upper.subs(x, row)
            after = upper.subs(x, N) - upper.subs(x, row + 1)
            here = _bulk(column, row)
        return -before / 2 + after / 2 - here / 2

    def weight(index: sp.Expr, side: int) -> sp.Expr:
        """a(row, index) with index left of (-1), on (0) or right of (1) the diagonal."""
        return -_HALF if side == 0 else side * (2 * index + 1) / 2

    def extra(column: sp.Expr, sides: tuple[int, int, int]) -> sp.Expr:
        """Sum over k = column-1, column, column+1 of a(row, k) times the tridiagonal part."""
        return (
            weight(column - 1, sides[0]) * _off(column - 1)
            + weight(column, sides[1]) * _diagonal(column)
            + weight(column + 1, sides[2]) * _off(column)
        )

    far = n + 2 + p
    generic = entry(n, far, True) + extra(far, (1, 1, 1)) + entry(far, n, False) + extra(n, (-1, -1, -1))
    beside = entry(n, n + 1, True) + extra(n + 1, (0, 1, 1)) + entry(n + 1, n, False) + extra(n, (-1, -1, 0))
    on = 2 * (entry(n, n, True) + extra(n, (-1, 0, 1)))

    def lyapunov(size: int) -> tuple[Any, Any]:
        inner = _exact_gramian(size)
        expected = []
        for r in range(size):
            for c in range(size):
                a, b = sp.Integer(min(r, c)), sp.Integer(max(r, c))
                value = _bulk(a, b)
                if r == c:
                    value += _diagonal(a)
                elif b == a + 1:
                    value += _off(a)
                expected.append(value.subs(N, size))
        return [value for row in inner for value in row], expected

    return Derivation(
        title="Gramian of S4D-LegS",
        setting=_SETTING + r" $W = \int_0^\infty e^{tA_N}\tfrac14 BB^T e^{tA_N^T}dt$.",
        statement=r"For $n \le m \le N-1$: $W_{nm} = B_nB_m\left[\tfrac14 - \frac{m(m+1)-n(n+1)}{2N^2}\right] + "
        r"\delta_{mn}\left[\tfrac12 - \frac{3n^2+3n+1}{2N^2}\right] + "
        r"\delta_{m,n+1}\left(1-\frac{(n+1)^2}{N^2}\right)\frac{n+1}{2\sqrt{(2n+1)(2n+3)}}$.",
        result={
            "diagonal": (2 * n + 1) * (_bulk(n, n) + _diagonal(n)),
            "next": sp.sqrt((2 * n + 1) * (2 * n + 3)) * (_bulk(n, n + 1) + _off(n)),
            "bulk": sp.sqrt((2 * n + 1) * (2 * m + 1)) * _bulk(n, m),
        },
        steps=steps(
            (
                r"Root-free, $w_{nm} = W_{nm}/\sqrt{(2n+1)(2m+1)}$ and row $n$ of $A_N$ has $-\tfrac{2k+1}{2}$ left "
                r"of the diagonal, "
                r"$-\tfrac12$ on it, $+\tfrac{2k+1}{2}$ right of it.",
                (
                    Identity(-(2 * k + 1) + (2 * k + 1) * _HALF, -(2 * k + 1) * _HALF),
                    Identity(-(n + 1) + (2 * n + 1) * _HALF, -_HALF),
                ),
            ),
            (
                r"Sums of $(2k+1) w_{km}$ over the smooth part, below and above $m$ (induction on the upper end).",
                (
                    SumLaw((2 * k + 1) * _bulk(k, m), k, sp.Integer(0), x, low),
                    SumLaw((2 * k + 1) * _bulk(m, k), k, m + 1, x, high),
                ),
            ),
            (
                r"Lyapunov equation $A_N w + w A_N^T = -\tfrac14 \mathbf 1\mathbf 1^T$, entry $(n, n+2+p)$ with $p "
                r"\ge 0$.",
                Identity(generic, -sp.Rational(1, 4)),
            ),
            (r"Entry $(n, n+1)$.", Identity(beside, -sp.Rational(1, 4))),
            (r"Entry $(n, n)$.", Identity(on, -sp.Rational(1, 4))),
            (
                r"Ends: the correction $w_{n,n+1}$ vanishes for $n = -1$ and for $n = N-1$, so the first and the "
                r"last row are no "
                r"exceptions.",
                (Identity(_off(sp.Integer(-1)), sp.Integer(0)), Identity(_off(N - 1), sp.Integer(0))),
            ),
            (
                r"The solution is unique: all eigenvalues of $A_N$ have real part $-\tfrac12$ because $A_N + A_N^T = "
                r"-I$, so those of "
                r"$w \mapsto A_N w + w A_N^T$ have real part $-1$.",
                (
                    Identity(-_HALF - _HALF, sp.Integer(-1)),
                    Identity(-(2 * k + 1) * _HALF * (2 * n + 1) + (2 * n + 1) * _HALF * (2 * k + 1), sp.Integer(0)),
                ),
            ),
        ),
        confirmations=steps(
            (
                "The Lyapunov equation of the integer matrix solved by elimination, all entries.",
                FiniteN("Gramian of S4D", lyapunov, (1, 2, 3, 4, 6)),
            ),
        ),
    )


def derive_moments() -> Derivation:
    """S4D and LegS have the same exponential moments: the transforms agree exactly at s = 0, 1, ..., N - 1.

    Returns:
        Derivation with `result` gap_factor (phi); proved.
    """
    f = sp.Symbol("phi")

    def moments(size: int) -> tuple[Any, Any]:
        from ssmtheory.symbolic.ingredients import shifted, solve

        found, expected = [], []
        for at in range(size):
            rows, ones = normal_integer(size)
            found += solve(shifted(rows, Fraction(at)), [value / 2 for value in ones])
            expected += [Y(i, at) for i in range(size)]
        return found, expected

    return Derivation(
        title="S4D and LegS agree at the integers",
        setting=_SETTING,
        statement=r"$\int_0^\infty e^{-kt}(K_{\mathrm{Diag},n} - K_n)\,dt = 0$ for $k = 0, \dots, N-1$ and every "
        r"output $n$.",
        result={"gap_factor": -f / (1 + f)},
        steps=steps(
            (
                r"$X_{\mathrm{Diag}} - X = -\varphi_N X/(1+\varphi_N)$ (S4D quotient).",
                Identity(1 / (1 + f) - 1, -f / (1 + f)),
            ),
            (
                r"$\varphi_N(k) = 0$ for $0 \le k < N$: its factor with index $k$ vanishes there, and no denominator "
                r"$k+j+1$ does.",
                (
                    Identity(((s - k) / (s + k + 1)).subs(s, k), sp.Integer(0)),
                    NonNegative(k + j + 1, sp.Integer(1), k + j),
                ),
            ),
            (
                r"So the factor $-\varphi/(1+\varphi)$ is 0 at $s = k$, where $X$ is finite, and both systems are "
                r"stable there.",
                Identity((-f / (1 + f)).subs(f, 0), sp.Integer(0)),
            ),
        ),
        confirmations=steps(
            (
                "Elimination with the exact normal part at s = 0, ..., N - 1 gives the LegS transfer vector.",
                FiniteN("moments of S4D", moments, (1, 2, 4, 6)),
            ),
        ),
    )


def derive_l2_gap() -> Derivation:
    """The exact L2 (H2) distance between the kernels of S4D and LegS, for all n and N (Theorem 1 of the notes).

    Returns:
        Derivation with `result` gap2 (n, N; n <= N - 2), last2 (N; n = N - 1), limit2 (n); proved.

    >>> derive_l2_gap().lower("gap2", n=0, N=4)
    0.21875
    """
    gap = (2 * n + 1) / sp.Integer(4) - (3 * n**2 + 3 * n + 1) / (2 * N**2)
    b = sp.binomial(2 * N, N)
    w = (2 * n + 1) * (_bulk(n, n) + _diagonal(n))
    norm, inner, total = sp.symbols("K2 d_K K_Diag2")
    last = gap.subs(n, N - 1) + N / (1 + b)
    product = -(2 * N - 1) * sp.binomial(2 * N - 2, N - 1) / b * (1 / b) / (1 + 1 / b)

    def directly(size: int) -> tuple[Any, Any]:
        normal, ones = normal_integer(size)
        legs, _ = normal_integer(size, 1)
        half = [value / 2 for value in ones]
        a = sylvester(normal, normal, outer(half, half))
        c = sylvester(legs, legs, outer(ones, ones))
        z = sylvester(normal, legs, outer(half, ones))
        found = [(2 * i + 1) * (a[i][i] + c[i][i] - 2 * z[i][i]) for i in range(size)]
        expected = [gap.subs({n: i, N: size}) for i in range(size - 1)] + [last.subs(N, size).doit()]
        return found, expected

    return Derivation(
        title="Exact L2 gap between S4D and LegS",
        setting=_SETTING,
        statement=r"$\|K_{\mathrm{Diag},n} - K_n\|^2_{L^2(0,\infty)} = \frac{2n+1}{4} - \frac{3n^2+3n+1}{2N^2}$ for "
        r"$n \le N-2$, and the "
        r"difference is orthogonal to $K_n$. For $n = N-1$ add $N/(1+\binom{2N}{N})$; the inner product is then "
        r"$-N/(2(1+\binom{2N}{N}))$. The gap does not vanish as $N \to \infty$: it tends to $(2n+1)/4$.",
        result={"gap2": gap, "last2": last, "limit2": (2 * n + 1) / sp.Integer(4), "last_inner": -N / (2 * (1 + b))},
        steps=steps(
            (
                r"With $d = K_{\mathrm{Diag},n} - K_n$: $\|d\|^2 = \|K_{\mathrm{Diag},n}\|^2 - \|K_n\|^2 - 2\langle "
                r"d, K_n\rangle$, where "
                r"$\|K_{\mathrm{Diag},n}\|^2 = \|K_n\|^2 + 2\langle d, K_n\rangle + \|d\|^2$.",
                Identity(total - norm - 2 * inner, (total - inner - norm) - inner),
            ),
            (
                r"$\|K_{\mathrm{Diag},n}\|^2$ is the diagonal of the Gramian of S4D (proved there), $\|K_n\|^2 = "
                r"\tfrac12$ that of LegS.",
                Identity(w - _HALF, gap),
            ),
            (
                r"$K_n$ is a combination of $e^{-(j+1)t}$ with $j \le n$ (kernels of LegS), and $\int e^{-kt} d\,dt "
                r"= 0$ for $k \le N-1$ (moments): "
                r"for $n \le N-2$ all exponents $j + 1 \le n+1 \le N-1$ are covered, so $\langle d, K_n\rangle = 0$.",
                NonNegative((n + 2 + m) - 1, n + 1, m),
            ),
            (
                r"For $n = N-1$ only $e^{-Nt}$ is not covered; its coefficient in $P_{N-1}$ is $\binom{2N-2}{N-1}$, "
                r"and with "
                r"$\varphi_N(N) = 1/b$, $b = \binom{2N}{N}$, $Y_{N-1}(N) = \varphi_N(N)/(s-N+1)|_{s=N}$.",
                (
                    Identity(
                        ((-1) ** (n - j) * sp.factorial(n + j) / (sp.factorial(j) ** 2 * sp.factorial(n - j))).subs(
                            j, n
                        ),
                        sp.binomial(2 * n, n),
                    ),
                    ProductLaw(k + 1, k, sp.Integer(0), N, sp.factorial(N)),
                    ProductLaw(m + k + 1, k, sp.Integer(0), N, sp.factorial(m + N) / sp.factorial(m)),
                    Identity(sp.factorial(N) / (sp.factorial(2 * N) / sp.factorial(N)), 1 / b),
                    Identity(Y(N - 1) * (s - N + 1), phi(N)),
                ),
            ),
            (
                r"So $\langle d, K_{N-1}\rangle = "
                r"(2N-1)\binom{2N-2}{N-1}\cdot\left(-\frac{1/b}{1+1/b}\right)\cdot\frac1b$, and the last row follows.",
                (
                    Identity(product, -N / (2 * (1 + b))),
                    Identity(w.subs(n, N - 1) - _HALF - 2 * product, last),
                ),
            ),
            (
                r"As $N \to \infty$ at fixed $n$.",
                Tends(gap, N, sp.oo, (2 * n + 1) / sp.Integer(4)),
            ),
        ),
        confirmations=steps(
            (
                "Three exact Gramians (S4D, LegS, cross) from the integer matrices, every row, the last one included.",
                FiniteN("squared L2 gap", directly, (1, 2, 3, 4, 6)),
            ),
        ),
    )


def derive_weak_constant() -> Derivation:
    """Weak convergence of S4D at the exact rate: N ||y_Diag - y|| tends to ||dy/dt|| (Theorem 3 of the notes).

    Returns:
        Derivation with `result` exponential2 (N: N^2 err^2 for u = e^{-t}, C = e_0), limit2; proved modulo named
        theorems.
    """
    f, c = sp.symbols("phi c", positive=True)
    g = omega**2 / (f * (omega**2 + N**2))  # conjugate of phi on the axis
    real_h = (1 - f * g) / ((1 + f) * (1 + g))
    h0, h1 = sp.symbols("H_1 H_1prime")
    slope = (-1) ** N * sp.factorial(N - 2) / sp.factorial(N + 1)
    value = sp.Rational(1, 4) - (-1) ** N / (2 * N * (N**2 - 1))
    function = sp.Function("H")

    def directly(size: int) -> tuple[Any, Any]:
        def driven(rows: list[list[Fraction]], b: list[Fraction]) -> list[list[Fraction]]:
            return [[*row, b[i]] for i, row in enumerate(rows)] + [[Fraction(0)] * size + [Fraction(-1)]]

        normal, ones = normal_integer(size)
        legs, _ = normal_integer(size, 1)
        start = [Fraction(0)] * size + [Fraction(1)]
        a, b = driven(normal, [v / 2 for v in ones]), driven(legs, ones)
        load = outer(start, start)
        found = sylvester(a, a, load)[0][0] + sylvester(b, b, load)[0][0] - 2 * sylvester(a, b, load)[0][0]
        return size**2 * found, value.subs(N, size)

    return Derivation(
        title="The weak constant of S4D",
        setting=_SETTING
        + r" $G = CX$ with fixed $C$, input $u$, outputs $y$ and $y_{\mathrm{Diag}}$ from zero initial state.",
        statement=r"$N^2\|y_{\mathrm{Diag}} - y\|^2 = \frac{1}{2\pi}\int |\omega G(i\omega)\hat "
        r"u(i\omega)|^2\,\mathrm{Re}\,H(i\omega)\,d\omega$ for every $N$, "
        r"and $N\|y_{\mathrm{Diag}}-y\| \to \|\dot y\|_{L^2}$ when $(1+\omega^2)|\omega G\hat u|^2$ is bounded and "
        r"continuous with a limit at infinity. For "
        r"$u = e^{-t}$ and $C = e_0$: $N^2 \|y_{\mathrm{Diag}} - y\|^2 = \frac14 - \frac{(-1)^N}{2N(N^2-1)}$, $N \ge "
        r"2$.",
        source="arXiv 2310.01698, Theorem 1 (rate 1/n; wording unconfirmed) is sharpened to an identity and a limit.",
        result={"exponential2": value, "limit2": sp.Rational(1, 4)},
        steps=steps(
            (
                r"On the axis $|\varphi_N|^2 = \omega^2/(\omega^2+N^2)$, so $|\varphi_N|^2/|1+\varphi_N|^2 = "
                r"(\omega^2/N^2)\,\mathrm{Re}\,H$ with "
                r"$\mathrm{Re}\,H = (1-|\varphi_N|^2)/|1+\varphi_N|^2$.",
                (
                    Identity(f * g / ((1 + f) * (1 + g)), omega**2 / N**2 * real_h),
                    Identity(real_h, ((1 - f) / (1 + f) + (1 - g) / (1 + g)) / 2),
                ),
            ),
            (
                r"$y_{\mathrm{Diag}} - y$ has the transform $-\frac{\varphi_N}{1+\varphi_N}G\hat u$ (S4D quotient).",
                Cited("Plancherel theorem", hypotheses=(Identity(1 / (1 + f) - 1, -f / (1 + f)),)),
            ),
            (
                r"$H$ is rational with all poles on $\mathrm{Re}\,s=-\tfrac12$, real on the real axis, and "
                r"$\mathrm{Re}\,H \ge 0$ on the axis. "
                r"For $c>0$: $\varphi_N(c) \to 0$, because its factors beyond $k = c$ are $1 - \frac{2c+1}{k+c+1}$, "
                r"so $H(c) \to 1$; at "
                r"$c = 1, 2, \dots$ even $H(c) = 1$ once $N > c$.",
                (
                    poisson(
                        Identity((k - c) / (k + c + 1), 1 - (2 * c + 1) / (k + c + 1)),
                        Identity(((1 - f) / (1 + f)).subs(f, 0), sp.Integer(1)),
                    ),
                    Cited("divergence of the harmonic series"),
                ),
            ),
            (
                r"The measures $\mathrm{Re}\,H\,\frac{d\omega}{1+\omega^2}$ converge in mass (the formula at $c=1$) "
                r"and against every "
                r"$\frac{1}{\omega^2+c^2}$ to $\frac{d\omega}{1+\omega^2}$. The functions "
                r"$\frac{1+\omega^2}{\omega^2+c^2}$ span a dense set of the even continuous functions "
                r"on the extended line, so the limit holds for the integrands of the statement.",
                Cited("Stone-Weierstrass theorem"),
            ),
            (
                r"$u = e^{-t}$, $C = e_0$: the integrand is $\frac{\omega^2}{(1+\omega^2)^2}\mathrm{Re}\,H$. The "
                r"derivative of the Poisson formula in $c$ "
                r"gives $\frac{1}{2\pi}\int\frac{\mathrm{Re}\,H}{(\omega^2+c^2)^2} = "
                r"-\frac{1}{2c}\frac{d}{dc}\frac{H(c)}{2c}$.",
                (
                    Identity(omega**2 / (1 + omega**2) ** 2, 1 / (1 + omega**2) - 1 / (1 + omega**2) ** 2),
                    Identity(sp.diff(1 / (omega**2 + c**2), c), -2 * c / (omega**2 + c**2) ** 2),
                    Identity(
                        (-1 / (2 * c) * sp.diff(function(c) / (2 * c), c))
                        .subs({function(c): h0, sp.Derivative(function(c), c): h1})
                        .subs(c, 1),
                        (h0 - h1) / 4,
                    ),
                ),
            ),
            (
                r"$H(1) = 1$ and $H'(1) = -2\varphi_N'(1)$ since $\varphi_N(1) = 0$. Only the factor $s - 1$ is "
                r"differentiated: "
                r"$\varphi_N'(1) = \frac{1\cdot\prod_{2\le k<N}(1-k)}{\prod_{k<N}(k+2)}$.",
                (
                    Identity(sp.diff((1 - f) / (1 + f), f).subs(f, 0), sp.Integer(-2)),
                    ProductLaw(1 - k, k, sp.Integer(2), N, (-1) ** N * sp.factorial(N - 2)),
                    ProductLaw(k + 2, k, sp.Integer(0), N, sp.factorial(N + 1)),
                    Identity(slope, (-1) ** N / (N * (N**2 - 1))),
                ),
            ),
            (
                r"Hence $N^2\mathrm{err}^2 = \tfrac12 H(1) - \tfrac14(H(1) - H'(1))$, and the limit is $\|\dot "
                r"y\|^2$ for $y = te^{-t}$.",
                (
                    Identity(_HALF - (1 + 2 * slope) / 4, value),
                    Tends(sp.Rational(1, 4) - sp.Symbol("e") / (2 * N * (N**2 - 1)), N, sp.oo, sp.Rational(1, 4)),
                    Identity(
                        sp.integrate(sp.expand(sp.diff(t * sp.exp(-t), t) ** 2), (t, 0, sp.oo)), sp.Rational(1, 4)
                    ),
                ),
            ),
        ),
        confirmations=steps(
            (
                "Exact Gramians of the two systems driven by e^{-t}, from the integer matrices.",
                FiniteN("N^2 err^2 for u = e^{-t}, C = e_0", directly, (2, 3, 4, 5)),
            ),
        ),
    )


def derive_uniform_gap() -> Derivation:
    """S4D does not converge to LegS uniformly in frequency: the spike and a lower bound of its height, for all N.

    Returns:
        Derivation with `result` height (omega, N: one output), worst (omega, N), limit (n); proved.
    """
    z, w = sp.symbols("z omega", positive=True)
    h = sp.Symbol("h", positive=True)  # sqrt(omega^2 + N^2)
    size = sp.Symbol("N", positive=True)
    ratio = sp.Symbol("theta", positive=True)  # omega N^{-2}

    def crossing(case: int) -> tuple[Any, Any]:
        # phase law, squared modulus free: arg phi(i w) from the factors equals 2 sum arctan(k/w) + arctan(N/w)
        value = sp.Rational(7, 2)
        left = sp.prod([(sp.I * value - i) / (sp.I * value + i + 1) for i in range(case)])
        right = sp.prod([(value + sp.I * i) ** 2 for i in range(1, case)]) * (value + sp.I * case)
        turned = sp.expand_complex(sp.nsimplify(sp.expand(left) * sp.conjugate(sp.expand(right))))
        return [sp.im(turned), sp.sign(sp.re(turned))], [0, 1]

    return Derivation(
        title="S4D does not converge uniformly",
        setting=_SETTING,
        statement=r"$\arg\varphi_N(i\omega) = \psi(\omega) = 2\sum_{k=1}^{N-1}\arctan\frac k\omega + \arctan\frac "
        r"N\omega$ decreases from $(2N-1)\frac\pi2$ to 0. "
        r"At $\psi = (2m+1)\pi$ the gap of output $n$ is $\frac{\omega(\omega+h)}{N^2}|X_n(i\omega)|$ with $h = "
        r"\sqrt{\omega^2+N^2}$. The last such $\omega$ is "
        r"$\frac{N^2}{\pi}(1+O(N^{-2}))$, so $\liminf_N \|G_{\mathrm{Diag},n} - G_n\|_\infty \ge "
        r"\frac{2\sqrt{2n+1}}{\pi}$, and for the worst unit $C$ it is at "
        r"least $\frac{2N}{\pi}(1+O(N^{-2}))$.",
        source="arXiv 2310.01698, Theorem 2 (no uniform convergence); the position and the heights are stated here.",
        result={
            "height": w * (w + sp.sqrt(w**2 + N**2)) / N**2 / sp.sqrt(1 + w**2),
            "worst": w * (w + sp.sqrt(w**2 + N**2)) / (N * sp.sqrt(w**2 + N**2)),
            "limit": 2 * sp.sqrt(2 * n + 1) / sp.pi,
        },
        steps=steps(
            (
                r"Phase: for $\omega > 0$ the factor $\frac{i\omega-k}{i\omega+k+1} = "
                r"\frac{\omega+ik}{\omega-i(k+1)}$ has the argument "
                r"$\arctan\frac k\omega + \arctan\frac{k+1}\omega$; summed over $k<N$ this is $\psi$, strictly "
                r"decreasing and continuous. For $N \ge 2$ it passes "
                r"through $\pi$.",
                (
                    Identity((sp.I * w - k) / (sp.I * w + k + 1), (w + sp.I * k) / (w - sp.I * (k + 1))),
                    Identity(sp.diff(sp.atan(z / w), w), -z / (w**2 + z**2)),
                    Tends(sp.atan(z / w), w, sp.oo, sp.Integer(0)),
                ),
            ),
            (
                r"At $\varphi_N = -|\varphi_N|$ the factor $|\varphi_N|/|1+\varphi_N|$ is "
                r"$|\varphi_N|/(1-|\varphi_N|)$ with $|\varphi_N| = \omega/h$, $h^2 = \omega^2+N^2$.",
                Identity((w / h) / (1 - w / h), w * (w + h) / size**2, relations=(h**2 - w**2 - size**2,)),
            ),
            (
                r"Position: $z - z^3/3 \le \arctan z \le z$, so $\frac{N^2}{\omega} - \frac{N^2(N^2+1)}{6\omega^3} "
                r"\le \psi \le \frac{N^2}{\omega}$.",
                (
                    NonNegative(1 / (1 + z**2), 1 - z**2, z**4 / (1 + z**2)),
                    NonNegative(sp.Integer(1), 1 / (1 + z**2), z**2 / (1 + z**2)),
                    SumLaw(2 * k, k, sp.Integer(1), N, N * (N - 1)),
                    Identity(N * (N - 1) + N, N**2),
                    SumLaw(2 * k**3, k, sp.Integer(1), N, N**2 * (N - 1) ** 2 / 2),
                    Identity((N**2 * (N - 1) ** 2 / 2 + N**3) / 3, N**2 * (N**2 + 1) / 6),
                ),
            ),
            (
                r"With $\omega = \theta N^2$ at $\psi = \pi$: $\theta \le 1/\pi$ and $\pi \ge \frac1\theta - \frac{1 "
                r"+ N^{-2}}{6\theta^3 N^2}$, so $\theta \to 1/\pi$ with an error of "
                r"$O(N^{-2})$.",
                (
                    Identity(
                        (size**2 / w - size**2 * (size**2 + 1) / (6 * w**3)).subs(w, ratio * size**2),
                        1 / ratio - (1 + size**-2) / (6 * ratio**3 * size**2),
                    ),
                    Tends((1 + size**-2) / (6 * ratio**3 * size**2), size, sp.oo, sp.Integer(0)),
                ),
            ),
            (
                r"Heights there: with $|X_n|^2 = (2n+1)\omega^2/((\omega^2+n^2)(\omega^2+(n+1)^2))$ the gap tends to "
                r"$2\theta\sqrt{2n+1}$, and with "
                r"$\|X\| = N/h$ the worst one divided by $N$ tends to $2\theta$, at $\theta = 1/\pi$.",
                (
                    Tends(
                        (ratio * (ratio * size**2 + sp.sqrt(ratio**2 * size**4 + size**2))) ** 2
                        * (ratio**2 * size**4)
                        / ((ratio**2 * size**4 + n**2) * (ratio**2 * size**4 + (n + 1) ** 2)),
                        size,
                        sp.oo,
                        4 * ratio**2,
                    ),
                    Tends(
                        ratio * (1 + ratio * size / sp.sqrt(ratio**2 * size**2 + 1)),
                        size,
                        sp.oo,
                        2 * ratio,
                    ),
                    Identity(w * (w + h) / (size**2 * h), w / size**2 * (1 + w / h)),
                    Identity((ratio * size**2) ** 2 + size**2, (size * sp.sqrt(ratio**2 * size**2 + 1)) ** 2),
                ),
            ),
        ),
        confirmations=steps(
            (
                r"The phase law with the factors multiplied out at $\omega = 7/2$: a positive ratio.",
                FiniteN("arg phi", crossing, (1, 2, 3, 5)),
            ),
        ),
    )
