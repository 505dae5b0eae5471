"""Theorems about HiPPO-rho: closed form, uniform convergence, L2 gap, Cauchy conditioning.

A_a = A_N - theta P P^T with theta = (1-a)/(1+a) and B_a = B/(1+a), 0 < |a| < 1, rho = 1/|a|; a = 1 is S4D and a = 0
is LegS. Theorems 5 and 6 of the theory notes, extended where the proof gives more: explicit constants for every output,
the L2 gap for complex a and for the last output, and a maximum principle for the condition number.
"""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import sympy as sp

from ssmtheory.symbolic.derivation import Cited, Derivation, FiniteN, Identity, NonNegative, Numeric, Tends, steps
from ssmtheory.symbolic.gap import poisson
from ssmtheory.symbolic.ingredients import N, Y, n, normal_integer, omega, outer, phi, s, shifted, solve, sylvester

__all__ = [
    "derive_conditioning",
    "derive_conditioning_maximum",
    "derive_hippo_rho",
    "derive_hippo_rho_bound",
    "derive_hippo_rho_l2_gap",
    "derive_truncated_modes",
    "scaled_condition",
]

_SETTING = (
    r"HiPPO-$\rho$: $A_a = A_N - \theta PP^T$, $B_a = B/(1+a)$, $\theta = (1-a)/(1+a)$, $0 < |a| < 1$, $\rho = 1/|a|$; "
    r"$a=1$ is S4D, $a=0$ is LegS. $\varphi = \varphi_N$, $X = (s-A)^{-1}B$ that of LegS."
)
_A = Fraction(1, 3)


def _system(size: int, a: Fraction = _A) -> tuple[list[list[Fraction]], list[Fraction]]:
    rows, ones = normal_integer(size, (1 - a) / (1 + a))
    return rows, [value / (1 + a) for value in ones]


def derive_hippo_rho() -> Derivation:
    """X_a = X/(1 + a phi), its poles, and its contraction (Theorem 5 of the notes, first part).

    Returns:
        Derivation with `result` quotient, gap (a, phi), theta (a); proved.
    """
    a, f = sp.symbols("a phi")
    x, y = sp.symbols("x y", real=True)
    u, v = sp.symbols("u v", real=True)
    h = sp.Symbol("h", positive=True)
    theta = (1 - a) / (1 + a)
    b = sp.Symbol("b", nonnegative=True)  # |B^T x|^2
    positive = sp.symbols("theta_r", nonnegative=True)

    def solved(size: int) -> tuple[Any, Any]:
        rows, ones = _system(size)
        point = sp.Rational(3, 7)
        found = solve(shifted(rows, Fraction(3, 7)), ones)
        return found, [Y(i, point) / (1 + phi(size, point) / 3) for i in range(size)]

    return Derivation(
        title="HiPPO-rho in closed form",
        setting=_SETTING,
        statement=r"$(s-A_a)^{-1}B_a = X(s)/(1+a\varphi(s))$ and $X_a - X = -\frac{a\varphi}{1+a\varphi}X$. The "
        r"poles are the roots of "
        r"$\varphi = -1/a$, all in $\mathrm{Re}\,s < -\tfrac12$. The Hermitian part of $A_a$ is $-\tfrac12 - "
        r"\mathrm{Re}\,\theta\,PP^T$ with "
        r"$\mathrm{Re}\,\theta = (1-|a|^2)/|1+a|^2 > 0$, so $\|e^{tA_a}\| \le e^{-t/2}$ for real and complex $a$.",
        result={"quotient": 1 / (1 + a * f), "gap": -a * f / (1 + a * f), "theta": theta},
        steps=steps(
            (
                r"$(s-A_a)X = (s-A)X - (1-\theta)P\,P^TX = B\,[1 - \tfrac{1-\theta}{2}B^TX]$ with $B^TX = 1-\varphi$ "
                r"(transfer vector).",
                Identity(1 - (1 - theta) / 2 * (1 - f), (1 + a * f) / (1 + a)),
            ),
            (
                r"Divided by the bracket, with $B_a = B/(1+a)$; the gap follows.",
                (
                    Identity((1 + a * f) / (1 + a) * (1 / (1 + a * f)), 1 / (1 + a)),
                    Identity(1 / (1 + a * f) - 1, -a * f / (1 + a * f)),
                ),
            ),
            (
                r"A pole has $|\varphi| = \rho > 1$. Each factor of $|\varphi|^2$ at $s = -\tfrac12+u+iv$ has "
                r"numerator minus denominator $-4uh$ with "
                r"$h = k+\tfrac12$, so $|\varphi| > 1$ exactly for $u < 0$.",
                Identity((u - h) ** 2 + v**2 - (u + h) ** 2 - v**2, -4 * u * h),
            ),
            (
                r"$\theta$ for $a = x+iy$: its real part.",
                (
                    Identity(
                        ((1 - x - sp.I * y) / (1 + x + sp.I * y) + (1 - x + sp.I * y) / (1 + x - sp.I * y)) / 2,
                        (1 - x**2 - y**2) / ((1 + x) ** 2 + y**2),
                    ),
                ),
            ),
            (
                r"$\mathrm{Re}\,x^*A_ax = -\tfrac12\|x\|^2 - \tfrac12\mathrm{Re}\,\theta\,|B^Tx|^2 \le "
                r"-\tfrac12\|x\|^2$, so $e^{t/2}\|x(t)\|$ does not increase.",
                NonNegative(sp.Integer(0), -positive * b / 2, positive * b / 2),
            ),
        ),
        confirmations=steps(
            ("Elimination at s = 3/7 with a = 1/3.", FiniteN("(s - A_a)^{-1} B_a", solved, (1, 2, 3, 5, 8))),
        ),
    )


def derive_hippo_rho_bound() -> Derivation:
    """HiPPO-rho converges to LegS uniformly: explicit bounds for all N, all outputs, all a (Theorem 5, second part).

    Returns:
        Derivation with `result` worst (rho), output (n, N, rho), sharp (rho, x); proved.

    >>> derive_hippo_rho_bound().lower("worst", rho=11)
    0.05
    """
    rho = sp.Symbol("rho", positive=True)
    q = sp.Symbol("q", positive=True)  # rho - 1
    x = sp.Symbol("x", nonnegative=True)  # |phi|
    c = sp.Symbol("c", nonnegative=True)  # ||X||
    w2 = sp.Symbol("W", nonnegative=True)  # omega^2
    gap1 = sp.Symbol("r", nonnegative=True)  # 1 - |phi|
    al, be = sp.symbols("alpha beta", positive=True)
    bound = 1 / (2 * (rho - 1))
    output = sp.sqrt(2 * n + 1) / ((rho - 1) * (N + n + 1))

    def sampled(case: tuple[int, int]) -> tuple[Any, Any]:
        # squares of both sides of the per-output bound at rational points, all rational: |a phi/(1 + a phi)|^2 |X_n|^2
        size, index = case
        failures = []
        for value in (sp.Rational(1, 2), sp.Integer(2), sp.Integer(7), sp.Integer(40)):
            f = sp.expand(
                sp.prod([(sp.I * value - i) / (sp.I * value + i + 1) for i in range(size)]).expand(complex=True)
            )
            quotient = f / 3 / (1 + f / 3)
            modulus = sp.expand_complex(quotient * sp.conjugate(quotient))
            square = (
                sp.re(modulus) * (2 * index + 1) * value**2 / ((value**2 + index**2) * (value**2 + (index + 1) ** 2))
            )
            failures.append(
                sp.Integer(0) if square <= (output.subs({rho: 3, N: size, n: index})) ** 2 else sp.Integer(1)
            )
        return failures, [0, 0, 0, 0]

    return Derivation(
        title="HiPPO-rho converges uniformly",
        setting=_SETTING,
        statement=r"For every $N$: $\sup_\omega\|X_a - X\| \le \max_x \frac{x\sqrt{1-x^2}}{\rho-x} \le "
        r"\frac{1}{2(\rho-1)}$, and for output $n < N$: "
        r"$\sup_\omega|X_{a,n} - X_n| \le \frac{\sqrt{2n+1}}{(\rho-1)(N+n+1)}$. For fixed $\rho>1$ and fixed $C$ the "
        r"model converges to LegS in "
        r"$H_\infty$, at rate $1/N$; the $L^2$ distance of the kernels is at most "
        r"$\frac{1}{\rho-1}\sqrt{\frac{2n+1}{2(N+n+1)}}$.",
        result={"worst": bound, "output": output, "sharp": x * sp.sqrt(1 - x**2) / (rho - x)},
        steps=steps(
            (
                r"$\left|\frac{a\varphi}{1+a\varphi}\right| = \left|\frac{\varphi}{1/a+\varphi}\right| \le "
                r"\frac{x}{\rho - x}$ with $x = |\varphi| < 1 < \rho$ "
                r"(triangle inequality), and $\frac{x}{\rho-x} \le \frac{x}{\rho-1}$; written with $\rho = 1+q$, $x "
                r"= 1 - r$.",
                (
                    NonNegative(1 / q, 1 / (q + gap1), gap1 / (q * (q + gap1))),
                    Identity((rho - x).subs({rho: 1 + q, x: 1 - gap1}), q + gap1),
                ),
            ),
            (
                r"All outputs: $\|X\|^2 = 1 - x^2$ (moduli), so with $c = \|X\|$: $xc \le \tfrac12(x^2+c^2) = "
                r"\tfrac12$.",
                NonNegative((x**2 + c**2) / 2, x * c, (x - c) ** 2 / 2),
            ),
            (
                r"The maximum of the middle expression is at the root in $(0,1)$ of $x^3 - 2\rho x^2 + \rho = 0$.",
                Identity(
                    sp.diff(x**2 * (1 - x**2) / (rho - x) ** 2, x),
                    2 * x * (x**3 - 2 * rho * x**2 + rho) / (rho - x) ** 3,
                ),
            ),
            (
                r"One output: $\frac{W}{W+N^2}\cdot\frac{(2n+1)W}{(W+n^2)(W+(n+1)^2)}$ with $W=\omega^2$. First "
                r"$\frac{W}{W+n^2} \le 1$, then "
                r"$(W+\alpha^2)(W+\beta^2) \ge W(\alpha+\beta)^2$ with $\alpha = N$, $\beta = n+1$.",
                (
                    NonNegative(w2 + al**2, w2, al**2),
                    NonNegative((w2 + al**2) * (w2 + be**2), w2 * (al + be) ** 2, (w2 - al * be) ** 2),
                ),
            ),
            (
                r"$L^2$: $\frac{1}{2\pi}\int\frac{\omega^2}{(\omega^2+\alpha^2)(\omega^2+\beta^2)}d\omega = "
                r"\frac{1}{2(\alpha+\beta)}$, by partial fractions and "
                r"$\frac{1}{2\pi}\int\frac{d\omega}{\omega^2+\alpha^2} = \frac{1}{2\alpha}$.",
                (
                    Identity(
                        omega**2 / ((omega**2 + al**2) * (omega**2 + be**2)),
                        (al**2 / (omega**2 + al**2) - be**2 / (omega**2 + be**2)) / (al**2 - be**2),
                    ),
                    Identity((al**2 / (2 * al) - be**2 / (2 * be)) / (al**2 - be**2), 1 / (2 * (al + be))),
                    Identity(sp.diff(sp.atan(omega / al) / al, omega), 1 / (omega**2 + al**2)),
                ),
            ),
            (
                r"Rate.",
                (
                    Tends(output, N, sp.oo, sp.Integer(0)),
                    Tends(N * output, N, sp.oo, sp.sqrt(2 * n + 1) / (rho - 1)),
                ),
            ),
        ),
        confirmations=steps(
            (
                r"The squared deviation at rational points never exceeds the bound ($\rho=3$; (N, n)).",
                FiniteN("bound per output", sampled, ((1, 0), (3, 0), (3, 2), (6, 1))),
            ),
        ),
    )


def derive_hippo_rho_l2_gap() -> Derivation:
    """The exact L2 gap of HiPPO-rho, for real and complex a and for every output.

    Extends the formula of the notes (real a, n <= N - 2): |a|^2 for a^2 and real parts of H_a.

    Returns:
        Derivation with `result` gap2 (n, N, a2 = |a|^2, and the real parts of H_a: H_low at n, H_high at n+1, H_r at
        sqrt(r)); proved modulo named theorems.
    """
    f, g = sp.symbols("phi phibar")
    a, ab = sp.symbols("a abar")
    w = sp.Symbol("W")  # omega^2
    p, q, r = sp.symbols("p q r")
    a2 = sp.Symbol("a2")
    hl, hh, hr = sp.symbols("H_low H_high H_r")
    root = sp.Symbol("root", positive=True)  # sqrt(r)
    real_h = ((1 - a * f) / (1 + a * f) + (1 - ab * g) / (1 + ab * g)) / 2
    radius = N**2 / (1 - a2)
    gap = (
        a2
        / (2 * (1 - a2))
        * (
            n**3 * hl / (radius - n**2)
            - (n + 1) ** 3 * hh / (radius - (n + 1) ** 2)
            + (2 * n + 1) * radius ** sp.Rational(3, 2) * hr / ((radius - n**2) * (radius - (n + 1) ** 2))
        )
    )
    low, spare = sp.symbols("h d", positive=True)  # d = c - h
    shift = sp.Symbol("p", integer=True, nonnegative=True)

    def directly(case: tuple[int, int]) -> tuple[Any, Any]:
        size, index = case
        # 1 - a^2 = (12/13)^2 makes sqrt(r) rational: everything is exact
        a_value = Fraction(5, 13)
        rows, b = _system(size, a_value)
        legs, ones = normal_integer(size, 1)
        found = (
            sylvester(rows, rows, outer(b, b))[index][index]
            + sylvester(legs, legs, outer(ones, ones))[index][index]
            - 2 * sylvester(rows, legs, outer(b, ones))[index][index]
        )
        h = lambda at: (1 - sp.Rational(5, 13) * phi(size, at)) / (1 + sp.Rational(5, 13) * phi(size, at))  # noqa: E731
        value = gap.subs(
            {
                n: index,
                N: size,
                a2: sp.Rational(25, 169),
                hl: h(index),
                hh: h(index + 1),
                hr: h(sp.Rational(13 * size, 12)),
            }
        )
        return (2 * index + 1) * found, value

    return Derivation(
        title="Exact L2 gap of HiPPO-rho",
        setting=_SETTING + r" $H_a = (1-a\varphi)/(1+a\varphi)$, $r = N^2/(1-|a|^2)$.",
        statement=r"$\|K_{a,n}-K_n\|^2 = \frac{|a|^2}{2(1-|a|^2)}\left[\frac{n^3H_n}{r-n^2} - "
        r"\frac{(n+1)^3H_{n+1}}{r-(n+1)^2} + "
        r"\frac{(2n+1)r^{3/2}H_{\sqrt r}}{(r-n^2)(r-(n+1)^2)}\right]$ with $H_c = \mathrm{Re}\,H_a(c)$, where $H_n = "
        r"1$ for $n \le N-1$ and "
        r"$H_{n+1} = 1$ for $n \le N-2$. For $e_0$ it is $\frac{|a|^2}{2N\sqrt{1-|a|^2}}(1+o(1))$.",
        result={"gap2": gap},
        steps=steps(
            (
                r"On the axis $\bar\varphi\varphi = W/(W+N^2)$, $W = \omega^2$. So $1-|a|^2|\varphi|^2 = "
                r"(1-|a|^2)\frac{W+r}{W+N^2}$ and "
                r"$\left|\frac{a\varphi}{1+a\varphi}\right|^2 = \frac{|a|^2}{1-|a|^2}\frac{W}{W+r}\mathrm{Re}\,H_a$.",
                (
                    Identity(
                        1 - a2 * w / (w + N**2),
                        (1 - a2) * (w + radius) / (w + N**2),
                    ),
                    Identity(real_h, (1 - a * ab * f * g) / ((1 + a * f) * (1 + ab * g))),
                    Identity(
                        (a * ab * f * g / ((1 + a * f) * (1 + ab * g))).subs(g, w / (f * (w + N**2))),
                        (a * ab / (1 - a * ab) * w / (w + N**2 / (1 - a * ab)) * real_h).subs(g, w / (f * (w + N**2))),
                    ),
                ),
            ),
            (
                r"Times $|X_n|^2 = \frac{(2n+1)W}{(W+p)(W+q)}$, $p=n^2$, $q=(n+1)^2$: partial fractions in $W$.",
                (
                    Identity(
                        w**2 / ((w + p) * (w + q) * (w + r)),
                        p**2 / ((q - p) * (r - p) * (w + p))
                        + q**2 / ((p - q) * (r - q) * (w + q))
                        + r**2 / ((p - r) * (q - r) * (w + r)),
                    ),
                    Identity((n + 1) ** 2 - n**2, 2 * n + 1),
                ),
            ),
            (
                r"Each term by the Poisson formula at $c = n, n+1, \sqrt r$ ($H_a$ is analytic and bounded right of "
                r"$-\tfrac12$). The sum is the statement.",
                (
                    Cited("Plancherel theorem"),
                    poisson(
                        Identity(
                            (a2 / (1 - a2) * (2 * n + 1))
                            * (
                                p**2 / ((q - p) * (r - p)) * hl / (2 * n)
                                + q**2 / ((p - q) * (r - q)) * hh / (2 * (n + 1))
                                + r**2 / ((p - r) * (q - r)) * hr / (2 * root)
                            ).subs({p: n**2, q: (n + 1) ** 2, r: root**2}),
                            a2
                            / (2 * (1 - a2))
                            * (
                                n**3 * hl / (root**2 - n**2)
                                - (n + 1) ** 3 * hh / (root**2 - (n + 1) ** 2)
                                + (2 * n + 1) * root**3 * hr / ((root**2 - n**2) * (root**2 - (n + 1) ** 2))
                            ),
                        )
                    ),
                ),
            ),
            (
                r"$\varphi(k) = 0$ for $k<N$ gives $H_a(k) = 1$.",
                (
                    Identity(((1 - a * f) / (1 + a * f)).subs(f, 0), sp.Integer(1)),
                    Identity(((s - n) / (s + n + 1)).subs(s, n), sp.Integer(0)),
                ),
            ),
            (
                r"$\varphi(c) \to 0$ for $c = \sqrt r \ge N$: its factors lie in $(0,1)$, and those with $k = h + "
                r"p$, $h = N/2$, are at most "
                r"$\frac{c-h}{c+h}$, which is the same number below 1 for every $N$.",
                (
                    NonNegative(
                        (spare / (spare + 2 * low)),
                        (spare - shift) / (spare + 2 * low + shift + 1),
                        (spare * (shift + 1) + (spare + 2 * low) * shift)
                        / ((spare + 2 * low) * (spare + 2 * low + shift + 1)),
                    ),
                    Identity((root * N - N / 2) / (root * N + N / 2), (2 * root - 1) / (2 * root + 1)),
                ),
            ),
            (
                r"So $H_{\sqrt r} \to 1$; with $\sqrt r = \kappa N$, $|a|^2 = 1 - \kappa^{-2}$, the leading term for "
                r"$e_0$ is",
                Tends(
                    N * gap.subs({n: 0, hl: 1, hh: 1, hr: 1}).subs(a2, 1 - root**-2),
                    N,
                    sp.oo,
                    (1 - root**-2) * root / 2,
                ),
            ),
        ),
        confirmations=steps(
            (
                r"Three exact Gramians from the integer matrix at $a = 5/13$, where $\sqrt r = 13N/12$ is rational; "
                r"(N, n), last output included.",
                FiniteN("squared L2 gap", directly, ((1, 0), (2, 0), (2, 1), (3, 1), (4, 0), (4, 3))),
            ),
        ),
    )


def derive_truncated_modes() -> Derivation:
    """More modes than outputs: HiPPO-rho of size M, first N outputs.

    Returns:
        Derivation with `result` bound (N, M, rho); proved.
    """
    w2 = sp.Symbol("W", nonnegative=True)
    a, b, c, rho = sp.symbols("M N c rho", positive=True)
    bound = b / ((a + b) * (rho - 1))
    return Derivation(
        title="HiPPO-rho with more modes than outputs",
        setting=_SETTING + r" Size $M \ge N$, only the first $N$ outputs are read.",
        statement=r"$\sup_\omega |\varphi_M|\,\|X_{0..N-1}\| = \frac{N}{N+M}$, attained at $\omega = \sqrt{MN}$; so "
        r"the deviation is at most "
        r"$\frac{N}{(N+M)(\rho-1)}$, that is $\frac{1}{(1+c)(\rho-1)}$ for $M = cN$.",
        result={"bound": bound},
        steps=steps(
            (
                r"$X_0,\dots,X_{N-1}$ do not depend on $M$, so $\|X_{0..N-1}\|^2 = N^2/(W+N^2)$ and $|\varphi_M|^2 = "
                r"W/(W+M^2)$ with "
                r"$W = \omega^2$ (moduli); their product is at most $(N/(N+M))^2$.",
                NonNegative((w2 + a**2) * (w2 + b**2), w2 * (a + b) ** 2, (w2 - a * b) ** 2),
            ),
            (
                r"Equality at $W = MN$.",
                Identity((w2 / (w2 + a**2) * b**2 / (w2 + b**2)).subs(w2, a * b), (b / (a + b)) ** 2),
            ),
            (
                r"The factor $|a/(1+a\varphi)| \le 1/(\rho-1)$, and $M = cN$.",
                Identity(bound.subs(a, c * b), 1 / ((1 + c) * (rho - 1))),
            ),
        ),
    )


def _cauchy_inverse(size: int) -> tuple[Any, Any]:
    """C Gamma conj(C) Gamma^* = 1 for the Cauchy matrix of `size` Gaussian integers."""
    field = sp.QQ_I
    mu = [field(*pair) for pair in ((1, 2), (2, -1), (3, 0), (1, -3))[:size]]

    def bar(value: Any) -> Any:
        return field(value.x, -value.y)

    gamma = []
    for i, z in enumerate(mu):
        value = field.one
        for q, other in enumerate(mu):
            value = value * (z + bar(other)) / (z - other if q != i else field.one)
        gamma.append(value)
    product = []
    for i in range(size):
        for q in range(size):
            entry = field.zero
            for x in range(size):
                entry += gamma[x] * bar(gamma[q]) / ((bar(mu[i]) + mu[x]) * (mu[x] + bar(mu[q])))
            product.append(field.to_sympy(entry))
    return product, list(sp.eye(size))


def _dense(size: int, a: complex) -> tuple[Any, Any]:
    """(eigenvalues, unit eigenvectors) of A_a in double precision."""
    import numpy as np

    index = np.arange(size)
    root = np.sqrt(2 * index + 1.0)
    legs = -np.tril(np.outer(root, root), -1) - np.diag(index + 1.0)
    theta = (1 - a) / (1 + a)
    return np.linalg.eig(legs + (1 - theta) / 2 * np.outer(root, root))


def _gram_error() -> tuple[complex, complex]:
    """Largest difference between |V^* V| and the Cauchy form at N = 8, a = i/11."""
    import numpy as np

    values, vectors = _dense(8, 1j / 11)
    mu = -0.5 - values
    cauchy = 2 * np.sqrt(mu.real[:, None] * mu.real[None]) / (mu.conj()[:, None] + mu[None])
    return float(np.abs(np.abs(vectors.conj().T @ vectors) - np.abs(cauchy)).max()), 0.0


def scaled_condition(size: int, a: complex) -> float:
    """Condition number of the eigenvectors of A_a under the scaling that makes it lambda_max(K).

    Args:
        size: N; double precision serves to about 128.
        a: 0 < |a| < 1.

    Returns:
        lambda_max(K), where K_jk = D_j D_k / (conj(mu_j) + mu_k) and D_j^2 = 1/|beta'(mu_j)|.
    """
    import numpy as np

    values, _ = _dense(size, a)
    index = np.arange(size)
    for _ in range(3):  # Newton on phi = -1/a
        shift = values[:, None]
        product = np.prod((shift - index) / (shift + index + 1), axis=1)
        slope = np.sum(1 / (shift - index) - 1 / (shift + index + 1), axis=1)
        values = values - (product + 1 / a) / (product * slope)
    slope = np.sum(1 / (values[:, None] - index) - 1 / (values[:, None] + index + 1), axis=1)
    mu, rho = -0.5 - values, 1 / abs(a)
    d = 1 / np.sqrt(np.abs(slope) * rho / (rho**2 - 1))
    return float(np.linalg.eigvalsh(d[:, None] * d[None] / (mu.conj()[:, None] + mu[None]))[-1])


def derive_conditioning() -> Derivation:
    """The eigenvectors of HiPPO-rho have a Cauchy Gram matrix (Theorem 6 of the notes).

    Returns:
        Derivation with `result` gram (r_j, r_k, mubar_j, mu_k), delta (mu_real, slope, rho); proved modulo named
        theorems.
    """
    a, f, rho = sp.symbols("a phi rho")
    lj, lk, mj, mk = sp.symbols("lambdabar_j lambda_k mubar_j mu_k")
    rj, rk = sp.symbols("r_j r_k", positive=True)
    ab, big, slope, g1, g2 = sp.symbols("abar Phi Phiprime g_j gbar_k")
    z, h = sp.symbols("mu h")
    beta = (big + a) / (1 + ab * big)
    c = sp.Symbol("c")
    d = sp.Symbol("d", positive=True)
    phase = sp.Symbol("u_j")
    modulus = sp.Symbol("m_j", positive=True)
    return Derivation(
        title="Conditioning of HiPPO-rho is a Cauchy matrix",
        setting=_SETTING
        + r" Eigenvalues $\lambda_j$ (distinct), $\mu_j = -\tfrac12-\lambda_j$ with $\mathrm{Re}\,\mu_j>0$; "
        r"$\Phi(\mu) = "
        r"\prod_{k<N}\frac{\mu-h_k}{\mu+h_k}$ with $h_k = k+\tfrac12$, so that $\varphi(-\tfrac12-\mu) = "
        r"1/\Phi(\mu)$; $\beta = "
        r"(\Phi+a)/(1+\bar a\Phi)$.",
        statement=r"The unit eigenvectors have $(V^*V)_{jk} = "
        r"\frac{2\sqrt{\mathrm{Re}\,\mu_j\,\mathrm{Re}\,\mu_k}}{\bar\mu_j+\mu_k}$ up to phases. "
        r"With $\delta_j = 2\,\mathrm{Re}\,\mu_j\,|\varphi'/\varphi|(\lambda_j)\,\frac{\rho}{\rho^2-1}$: $\kappa(V) "
        r"\ge \max_j 1/\delta_j$, and the "
        r"columns scaled to $\|v_j\|^2 = 1/\delta_j$ have a Gram matrix $K$ whose spectrum is closed under $x "
        r"\mapsto 1/x$, so their condition number is "
        r"$\lambda_{\max}(K) \le \sum_j 1/\delta_j$.",
        result={
            "gram": 2 * sp.sqrt(rj * rk) / (mj + mk),
            "delta": 2 * sp.Symbol("mu_real") * sp.Symbol("slope") * rho / (rho**2 - 1),
        },
        steps=steps(
            (
                r"$(s-A_a)X(s) = B\,\frac{1+a\varphi(s)}{1+a}$ (HiPPO-rho), so $X(\lambda)$ is an eigenvector where "
                r"$\varphi(\lambda) = -1/a$.",
                Identity(((1 + a * f) / (1 + a)).subs(f, -1 / a), sp.Integer(0)),
            ),
            (
                r"Gram matrix by the kernel identity $X(z)^*X(w) = (1-\overline{\varphi(z)}\varphi(w))/(1+\bar "
                r"z+w)$, then normalised columns.",
                (
                    Identity(
                        ((1 - rho**2) / (1 + lj + lk)).subs({lj: -sp.Rational(1, 2) - mj, lk: -sp.Rational(1, 2) - mk}),
                        (rho**2 - 1) / (mj + mk),
                    ),
                    Identity(
                        (rho**2 - 1) / (mj + mk) / sp.sqrt(1 / (2 * rj)) / sp.sqrt(1 / (2 * rk)) / (rho**2 - 1),
                        2 * sp.sqrt(rj) * sp.sqrt(rk) / (mj + mk),
                    ),
                ),
            ),
            (
                r"$\Phi(\mu) = 1/\varphi(-\tfrac12-\mu)$ factor by factor, so the $\mu_j$ are the zeros of $\beta$, "
                r"a Blaschke product of degree $N$ "
                r"(Frostman shift). At a zero $\beta' = \Phi'/(1-|a|^2)$ and $|\Phi'| = |\varphi'/\varphi|/\rho$.",
                (
                    Identity(
                        (-sp.Rational(1, 2) - z - (h - sp.Rational(1, 2)))
                        / (-sp.Rational(1, 2) - z + h + sp.Rational(1, 2)),
                        (z + h) / (z - h),
                    ),
                    Identity((sp.diff(beta, big) * slope).subs(big, -a), slope / (1 - a * ab)),
                    Identity((slope / rho) / (1 - 1 / rho**2), slope * rho / (rho**2 - 1)),
                    Identity(sp.diff(1 / f, f) * f, -1 / f),
                ),
            ),
            (
                r"The distance of the unit vector $v_j$ from the span of the others is $\delta_j = \prod_{k\ne "
                r"j}\left|\frac{\mu_j-\mu_k}{\mu_j+\bar\mu_k}\right| = "
                r"2\,\mathrm{Re}\,\mu_j|\beta'(\mu_j)|$. The smallest singular value of $V$ is at most $\delta_j$, "
                r"the largest at least 1.",
                Cited(
                    "Cauchy determinant",
                    r"\delta_j^2 = \frac{\det G}{\det G_{\hat\jmath}}",
                    hypotheses=(
                        Identity(
                            1 - 4 * rj * rk / ((rj + rk) ** 2 + c**2), ((rj - rk) ** 2 + c**2) / ((rj + rk) ** 2 + c**2)
                        ),
                        Identity(sp.diff((z - mk) / (z + mj), z).subs(z, mk), 1 / (mk + mj)),
                    ),
                ),
            ),
            (
                r"Inverse of $C_{jk} = 1/(\bar\mu_j+\mu_k)$: $C^{-1} = \Gamma\bar C\Gamma^*$ with $\Gamma_j = "
                r"\prod_i(\mu_j+\bar\mu_i)/\prod_{i\ne j}(\mu_j-\mu_i) = "
                r"1/\beta'(\mu_j)$ up to a common phase. With $D_j^2 = |\Gamma_j|$ and $K = DCD$: $K^{-1} = U\bar "
                r"KU^*$, $U_j = \Gamma_j/|\Gamma_j|$. "
                r"$\bar K$ has the spectrum of $K$.",
                Cited(
                    "inverse of a Cauchy matrix (Schechter 1959)",
                    hypotheses=(
                        Identity((phase * modulus**2) / modulus, phase * modulus),
                        Identity(g1 * (1 / (mj + mk)) * g2, g1 * g2 / (mj + mk)),
                    ),
                ),
            ),
            (
                r"Trace: $K_{jj} = D_j^2/(2\,\mathrm{Re}\,\mu_j) = 1/\delta_j$; the largest eigenvalue of a positive "
                r"matrix is at most its trace.",
                Identity(1 / d / (2 * rj), 1 / (2 * rj * d)),
            ),
        ),
        confirmations=steps(
            (
                "The inverse with Gaussian integers.",
                FiniteN("C Gamma conj(C) Gamma^* = 1", _cauchy_inverse, (1, 2, 3, 4)),
            ),
            (
                r"Eigenvectors of the dense matrix at $N = 8$, $a = i/11$ (eigenvalues of this matrix are well "
                r"conditioned, "
                r"$\kappa \approx 9$).",
                Numeric("|V^* V| against the Cauchy form", _gram_error, 1e-9),
            ),
        ),
    )


def _circle_exponents() -> tuple[complex, complex]:
    """1 when max over |a| = 1/rho of log(kappa)/log(rho) grows with rho at N = 16, as convexity demands."""
    import cmath
    import math

    exponents = []
    for rho in (1.5, 4.0, 16.0, 64.0, 200.0):
        worst = max(
            scaled_condition(16, cmath.exp(1j * angle) / rho) for angle in (1e-3, 0.3, 0.9, 1.57, 2.2, 2.8, 3.1405)
        )
        exponents.append(math.log(worst) / math.log(rho))
    grows = all(low < high for low, high in itertools.pairwise(exponents))
    return float(grows and exponents[-1] < 1), 1.0


def derive_conditioning_maximum() -> Derivation:
    """A maximum principle for the condition number of HiPPO-rho: what kappa <= rho comes down to.

    kappa is that of `derive_conditioning` (columns scaled, lambda_max(K)). Not proved here: the bound on one circle,
    which holds numerically at N = 4 to 64 (see `scaled_condition`).

    Returns:
        Derivation with `result` bound (rho, gamma); proved modulo named theorems.
    """
    a, ab, f, g, z, zb, w, wb = sp.symbols("a abar Phi Phibar z zbar w wbar")
    rj, rk = sp.symbols("r_j r_k", positive=True)
    c = sp.Symbol("c", real=True)  # difference of two imaginary parts
    log, root = sp.symbols("l r_q", positive=True)  # log(rho), sqrt(q)
    beta, betab = (f + a) / (1 + ab * f), (g + ab) / (1 + a * g)
    slope = sp.Symbol("Phiprime")
    value = sp.Symbol("F")
    x, y, big = sp.symbols("x x_0 M_0", positive=True)
    zh = sp.symbols("mu h")
    return Derivation(
        title="Maximum principle for the conditioning of HiPPO-rho",
        setting=_SETTING + r" $\Phi$, $\beta$, $K$, $\mu_j$ as in the Cauchy form; $\kappa(a) = \lambda_{\max}(K)$.",
        statement=r"$\log\kappa$ is subharmonic on $|a|<1$ without the $N-1$ critical values of $\Phi$, which are "
        r"real, one from each gap "
        r"$(k+\tfrac12, k+\tfrac32)$; it tends to 0 at $|a| = 1$. On an annulus $1/\rho_0 \le |a| < 1$ without "
        r"critical values "
        r"$\max_{|a|=1/\rho}\log\kappa$ is a convex function of $\log\rho$, so $\kappa(a) \le \rho^\gamma$ with "
        r"$\gamma = "
        r"\max_{|a|=1/\rho_0}\log\kappa/\log\rho_0$: if $\kappa \le \rho_0$ holds on one circle, then $\kappa \le "
        r"\rho$ holds for all "
        r"$1 < \rho \le \rho_0$ and every phase of $a$.",
        result={"bound": sp.Symbol("rho", positive=True) ** sp.Symbol("gamma", positive=True)},
        steps=steps(
            (
                r"Kernels of the model spaces: $\frac{1-\beta(z)\overline{\beta(w)}}{z+\bar w} = "
                r"m(z)\overline{m(w)}\frac{1-\Phi(z)\overline{\Phi(w)}}{z+\bar w}$ with "
                r"$m = \sqrt{1-|a|^2}/(1+\bar a\Phi)$. So $F = mf$ maps the fixed space of $f$, spanned by "
                r"$1/(\mu+h_k)$, unitarily onto that of "
                r"$\beta$, spanned by $1/(z+\bar\mu_j)$.",
                Cited(
                    "uniqueness of reproducing kernel spaces (Aronszajn)",
                    hypotheses=(
                        Identity(
                            (1 - beta * betab) / (z + wb),
                            (1 - a * ab) / ((1 + ab * f) * (1 + a * g)) * (1 - f * g) / (z + wb),
                        ),
                    ),
                ),
            ),
            (
                r"$K$ is the Gram matrix of $D_j/(z+\bar\mu_j)$, so $\lambda_{\max}(K)$ is the maximum over unit $f$ "
                r"of $\sum_jD_j^2|F(\mu_j)|^2 = "
                r"\sum_{\Phi(\mu)=-a}|f(\mu)|^2/|\Phi'(\mu)|$, with $D_j^2 = (1-|a|^2)/|\Phi'(\mu_j)|$ and $m(\mu_j) "
                r"= 1/\sqrt{1-|a|^2}$.",
                (
                    Identity((1 - a * ab) / slope * (value / (1 - a * ab)), value / slope),
                    Identity((1 + ab * f).subs(f, -a), 1 - a * ab),
                ),
            ),
            (
                r"Away from critical values each $\mu_j(a)$, hence $f(\mu_j)^2/\Phi'(\mu_j)$, is locally analytic in "
                r"$a$. The logarithm of a sum of "
                r"moduli of analytic functions is subharmonic; the sum runs over all branches, so it is one-valued; "
                r"a continuous maximum over $f$ of "
                r"subharmonic functions is subharmonic.",
                Cited("subharmonicity of log(|f_1| + ... + |f_N|)"),
            ),
            (
                r"For $|a| \to 1$ the $\mu_j$ tend to the $N$ points of the imaginary axis with $\Phi = -a$, which "
                r"are distinct because $|\Phi| = 1$ there "
                r"implies $\Phi' \ne 0$ (the phase is strictly monotone). So "
                r"$\frac{4\,\mathrm{Re}\,\mu_j\mathrm{Re}\,\mu_k}{|\mu_j+\bar\mu_k|^2} = "
                r"1 - \left|\frac{\mu_j-\mu_k}{\mu_j+\bar\mu_k}\right|^2 \to 0$, $\delta_j \to 1$, and $K \to I$ up "
                r"to phases: $\kappa \to 1$. The point $a = -1$, where one "
                r"$\mu_j$ goes to infinity, is no exception: the quotient is invariant under $\mu \mapsto 1/\mu$.",
                (
                    Identity(
                        4 * rj * rk / ((rj + rk) ** 2 + c**2),
                        1 - ((rj - rk) ** 2 + c**2) / ((rj + rk) ** 2 + c**2),
                    ),
                    Identity(
                        (1 / z + 1 / zb) * (1 / w + 1 / wb) / ((1 / z + 1 / wb) * (1 / zb + 1 / w)),
                        (z + zb) * (w + wb) / ((z + wb) * (zb + w)),
                    ),
                    Identity(
                        sp.diff(sp.atan(c / zh[1]), c),
                        zh[1] / (zh[1] ** 2 + c**2),
                    ),
                ),
            ),
            (
                r"Critical points: $\Phi' = 0$ has $2N-2$ roots counted on the sphere, symmetric under $\mu \to "
                r"-\mu$ because $\Phi(-\mu) = 1/\Phi(\mu)$. $\Phi$ is "
                r"real with neighbouring zeros $k+\tfrac12$, $k+\tfrac32$, so each of the $N-1$ gaps holds one: "
                r"these are all on the right.",
                (
                    Cited("Rolle's theorem"),
                    Cited("Riemann-Hurwitz formula"),
                    Identity((-zh[0] - zh[1]) / (-zh[0] + zh[1]), (zh[0] + zh[1]) / (zh[0] - zh[1])),
                ),
            ),
            (
                r"Three circles with value 0 on the outer one: $M(x) \le \frac{x}{x_0}M(x_0)$ for $M = "
                r"\max\log\kappa$ at $x = \log\rho \le x_0$.",
                Cited(
                    "Hadamard three-circle theorem",
                    r"M(x) \le \left(1-\tfrac{x}{x_0}\right)M(0) + \tfrac{x}{x_0}M(x_0)",
                    hypotheses=(Identity((1 - x / y) * 0 + x / y * big, x * (big / y)),),
                ),
            ),
            (
                r"Near $|a|=1$: $\mathrm{Re}\,\mu_j = \sigma_j\log\rho + \dots$ with $\sigma_j = 1/|\Phi'|$, so for "
                r"$N = 2$ the off-diagonal of $K$ is "
                r"$\tau\log\rho$ with $\tau = 2\sqrt{\sigma_1\sigma_2}/|y_1-y_2|$, and $\kappa = 1 + \tau\log\rho + "
                r"\dots$. That $\kappa\le\rho$ is no property of "
                r"every Blaschke product: for the zeros $1$ and $q$ in place of $\tfrac12,\tfrac32$ and $a$ near 1, "
                r"$y = \pm\sqrt q$, $\sigma = \frac{1+q}{4}$ "
                r"and $\tau = \frac{1+q}{4\sqrt q}$, above 1 for $q < 7-4\sqrt3$.",
                (
                    Tends(
                        2 * sp.sqrt(rj * log) * sp.sqrt(rk * log) / sp.sqrt((rj + rk) ** 2 * log**2 + big**2) / log,
                        log,
                        sp.Integer(0),
                        2 * sp.sqrt(rj) * sp.sqrt(rk) / big,
                    ),
                    Identity(
                        (sp.I * root - 1) * (sp.I * root - root**2),
                        -(sp.I * root + 1) * (sp.I * root + root**2),
                    ),
                    Identity(2 / (1 + root**2) + 2 * root**2 / (root**4 + root**2), 4 / (1 + root**2)),
                    Identity(2 * ((1 + root**2) / 4) / (2 * root), (1 + root**2) / (4 * root)),
                    Identity(((1 + root**2) / (4 * root)).subs(root, 2 - sp.sqrt(3)), sp.Integer(1)),
                    Identity((2 - sp.sqrt(3)) ** 2, 7 - 4 * sp.sqrt(3)),
                ),
            ),
        ),
        confirmations=steps(
            (
                r"$N = 16$: the exponent $\max_{|a|=1/\rho}\log\kappa/\log\rho$ grows with $\rho$ and stays below 1 "
                r"up to $\rho=200$ "
                r"(the first critical value is at $\rho = 292$).",
                Numeric("convexity on five circles", _circle_exponents, 0.0),
            ),
        ),
    )
