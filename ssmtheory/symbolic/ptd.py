"""Theorems about perturb-then-diagonalise: a deviation bound without logarithm, a lower bound on every kappa.

PTD is arXiv 2310.01698; item 10 of linear.md and Theorem 7 of beyond_linear.md, re-derived.
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
    Numeric,
    SumLaw,
    Tends,
    steps,
)
from ssmtheory.symbolic.ingredients import N, Y, k, normal_integer, shifted, solve

__all__ = ["derive_ptd_condition_bound", "derive_ptd_deviation"]

_HALF = sp.Rational(1, 2)


def derive_ptd_deviation() -> Derivation:
    """Deviation of a perturbed LegS: eps/(1/2 - lambda) times ||X||, for every frequency and N (item 10 of linear.md).

    Returns:
        Derivation with `result` pointwise (epsilon, lambda, N, omega), worst (epsilon, lambda), small and dissipative
        (epsilon); proved modulo named theorems.

    >>> derive_ptd_deviation().lower("small", epsilon=0.1)
    0.25
    """
    eps, lam, w = sp.symbols("epsilon lambda omega", real=True)
    _r, x, e, lhs = sp.symbols("R X E rhs", commutative=False)
    room, norm2, extra, b2 = sp.symbols("m q d b", nonnegative=True)
    pointwise = eps / (_HALF - lam) * N / sp.sqrt(w**2 + N**2)

    def identity(size: int) -> tuple[Any, Any]:
        rows, ones = normal_integer(size, 1)
        bump = [[Fraction((3 * i + 5 * c) % 7 - 3, 10) for c in range(size)] for i in range(size)]
        moved = [[a + b for a, b in zip(p, q, strict=True)] for p, q in zip(rows, bump, strict=True)]
        point = Fraction(3, 7)
        before = [sp.Rational(3, 7) * 0 + Y(i, sp.Rational(3, 7)) for i in range(size)]
        plain = [Fraction(int(sp.numer(v)), int(sp.denom(v))) for v in before]
        pushed = [sum((bump[i][c] * plain[c] for c in range(size)), Fraction(0)) for i in range(size)]
        change = solve(shifted(moved, point), pushed)
        found = solve(shifted(moved, point), ones)
        return found, [p + q for p, q in zip(plain, change, strict=True)]

    return Derivation(
        title="Deviation of perturb-then-diagonalise",
        setting=r"$X_E = (s-A-E)^{-1}B$ with any real or complex $E$, $\epsilon = \|E\|_2$, $\lambda = "
        r"\lambda_{\max}\left(\frac{E+E^*}{2}\right) "
        r"\le \epsilon$.",
        statement=r"If $\lambda < \tfrac12$, then $A+E$ is stable and $\|X_E - X\| \le "
        r"\frac{\epsilon}{1/2-\lambda}\frac{N}{\sqrt{\omega^2+N^2}}$ for every real "
        r"$\omega$ and every $N$; so $\le \frac{2\epsilon}{1-2\epsilon}$ for $\epsilon < \tfrac12$, and $\le "
        r"2\epsilon$ for a dissipative $E$ of any size.",
        source="arXiv 2310.01698, Theorem 3, has (2 ln n + 4) eps plus higher order; this bound has no logarithm and "
        "no remainder.",
        result={
            "pointwise": pointwise,
            "worst": eps / (_HALF - lam),
            "small": 2 * eps / (1 - 2 * eps),
            "dissipative": 2 * eps,
        },
        steps=steps(
            (
                r"Resolvent identity: $(s-A-E)(X_E-X) = B - (s-A)X + EX = EX$.",
                Identity(lhs - (lhs - e * x), e * x),
            ),
            (
                r"$A+A^T = -I-BB^T$ (contractivity). With $\|x\|^2 = q$, $|B^*x|^2 = b$ and $\mathrm{Re}\,x^*Ex = "
                r"\lambda q - d$, $d \ge 0$: on the axis "
                r"$\mathrm{Re}\,x^*(i\omega-A-E)x = \tfrac12q + \tfrac12b - \lambda q + d \ge (\tfrac12-\lambda)q$.",
                NonNegative(norm2 / 2 + b2 / 2 - lam * norm2 + extra, (_HALF - lam) * norm2, b2 / 2 + extra),
            ),
            (
                r"Hence $\|(i\omega-A-E)^{-1}\| \le 1/(\tfrac12-\lambda)$, and to the right of the axis even more: "
                r"stable.",
                Cited(
                    "Cauchy-Schwarz inequality",
                    hypotheses=(NonNegative(room * norm2 + extra, room * norm2, extra),),
                ),
            ),
            (
                r"$\|X(i\omega)\| = N/\sqrt{\omega^2+N^2} \le 1$ (moduli), and $\lambda \le \epsilon$.",
                (
                    NonNegative(w**2 + N**2, N**2, w**2),
                    Identity((eps / (_HALF - lam)).subs(lam, eps), 2 * eps / (1 - 2 * eps)),
                    Identity((eps / (_HALF - lam)).subs(lam, 0), 2 * eps),
                ),
            ),
        ),
        confirmations=steps(
            (
                "X_E - X = (s - A - E)^{-1} E X with an arbitrary rational E, by elimination.",
                FiniteN("resolvent identity", identity, (1, 2, 4, 6)),
            ),
        ),
    )


def _closed(size: int, eps: float, eta: float) -> float:
    import math

    length = 0.5 * math.log1p(2 * size**4 / eta**2)
    return math.sqrt(max(size**3 / (4 * length**2) - size, 0.0)) / (eta + eps)


def _bound_at_128() -> tuple[complex, complex]:
    """(closed form maximised over a grid of eta, at most 437; 437) at N = 128, eps = 0.1."""
    return min(max(_closed(128, 0.1, 10 ** (-p / 100)) for p in range(300)), 437.0), 437.0


def derive_ptd_condition_bound() -> Derivation:
    """Every PTD with a small perturbation is ill-conditioned: a lower bound on kappa (Theorem 7 of the notes).

    Returns:
        Derivation with `result` bound (N, epsilon, eta), length (N, eta); proved modulo named theorems.

    >>> round(derive_ptd_condition_bound().lower("bound", N=128, epsilon=0.1, eta=0.0075))
    438
    """
    eps, eta = sp.symbols("epsilon eta", positive=True)
    u, v2, big, size, length = sp.symbols("u V M N L", positive=True)  # v2 = v^2, big = N^2 - m^2 > 0
    v = sp.Symbol("v", real=True)
    h = sp.Symbol("h", positive=True)
    x = sp.Symbol("x", positive=True)
    area = size**4 / (4 * length**2) - size**2
    bound = sp.sqrt(size**3 / (4 * length**2) - size) / (eta + eps)
    f2, _spare = sp.symbols("p d", positive=True)
    span = _HALF * sp.log(1 + 2 * N**4 / eta**2)
    half = k + _HALF

    def modulus(case: int) -> tuple[Any, Any]:
        point_u, point_v = sp.Rational(1, 3), sp.Rational(5, 2)
        at = -_HALF - point_u + sp.I * point_v
        value = sp.prod([(at - i) / (at + i + 1) for i in range(case)])
        found = sp.expand_complex(value * sp.conjugate(value))
        expected = sp.prod(
            [((point_u + i + _HALF) ** 2 + point_v**2) / ((point_u - i - _HALF) ** 2 + point_v**2) for i in range(case)]
        )
        return sp.nsimplify(sp.expand(found)), expected

    return Derivation(
        title="Every PTD is ill-conditioned",
        setting=r"$A$ is LegS of size $N$, $A+E = V\Lambda V^{-1}$ with real or complex $E$, $\|E\|_2 \le \epsilon$; "
        r"$0 < \eta \le 1$ is free.",
        statement=r"$\kappa_2(V) \ge \frac{1}{\eta+\epsilon}\sqrt{\frac{N^3}{4L^2}-N}$ with $L = "
        r"\tfrac12\ln(1+2N^4/\eta^2)$, whenever the radicand is positive "
        r"(which needs $N \ge 2$).",
        source="",
        result={
            "bound": (sp.sqrt(N**3 / (4 * span**2) - N) / (eta + eps)),
            "length": span,
        },
        steps=steps(
            (
                r"$\sigma_{\min}(z-A-E) \ge \mathrm{dist}(z,\Lambda)/\kappa$ and $\sigma_{\min}(z-A-E) \le "
                r"\sigma_{\min}(z-A)+\epsilon$: the $N$ discs of radius "
                r"$\kappa(\eta+\epsilon)$ around the eigenvalues cover $\sigma_\eta(A) = \{z: \sigma_{\min}(z-A) \le "
                r"\eta\}$, whose area is therefore at most "
                r"$N\pi\kappa^2(\eta+\epsilon)^2$.",
                (
                    Cited("Bauer-Fike theorem"),
                    Cited("Weyl's inequality for singular values"),
                    Cited("subadditivity of area"),
                ),
            ),
            (
                r"$\sigma_{\min}(z-A) \le \|B\|/\|X(z)\|$ because $(z-A)X = B$; with $\|B\|^2 = N^2$ and the kernel "
                r"identity at "
                r"$z = -\tfrac12-u+iv$, $-1-2\,\mathrm{Re}\,z = 2u$: it is $N\sqrt{2u/(|\varphi|^2-1)}$.",
                (
                    SumLaw(2 * k + 1, k, sp.Integer(0), N, N**2),
                    Identity(-1 - 2 * (-_HALF - u), 2 * u),
                    Identity(size**2 / ((f2 - 1) / (2 * u)), size**2 * 2 * u / (f2 - 1)),
                ),
            ),
            (
                r"$|\varphi|^2 = \prod_{h}\frac{(u+h)^2+v^2}{(u-h)^2+v^2}$ over $h = k+\tfrac12$; with $y = "
                r"\frac{2uh}{u^2+v^2+h^2} < 1$ a factor is "
                r"$\frac{1+y}{1-y}$, so $\log|\varphi| = \sum_h\mathrm{artanh}\,y \ge \sum_hy$.",
                (
                    Identity(
                        (-_HALF - u + sp.I * v - (h - _HALF)) * (-_HALF - u - sp.I * v - (h - _HALF)),
                        (u + h) ** 2 + v**2,
                    ),
                    Identity(
                        (-_HALF - u + sp.I * v + (h + _HALF)) * (-_HALF - u - sp.I * v + (h + _HALF)),
                        (u - h) ** 2 + v**2,
                    ),
                    Identity(
                        (1 + 2 * u * h / (u**2 + v**2 + h**2)) / (1 - 2 * u * h / (u**2 + v**2 + h**2)),
                        ((u + h) ** 2 + v**2) / ((u - h) ** 2 + v**2),
                    ),
                    Identity(sp.diff(sp.log((1 + x) / (1 - x)) / 2 - x, x), x**2 / (1 - x**2)),
                    NonNegative(x**2, sp.Integer(0), x**2),
                ),
            ),
            (
                r"$h < N$ in every denominator and $\sum_hh = N^2/2$: $\log|\varphi| \ge \frac{uN^2}{u^2+v^2+N^2}$.",
                (
                    NonNegative(
                        2 * u * h / (u**2 + v2 + h**2),
                        2 * u * h / (u**2 + v2 + h**2 + big),
                        2 * u * h * big / ((u**2 + v2 + h**2) * (u**2 + v2 + h**2 + big)),
                    ),
                    SumLaw(half, k, sp.Integer(0), N, N**2 / 2),
                ),
            ),
            (
                r"The disc $u^2+v^2+N^2 \le uN^2/L$ has the area $\pi(N^4/(4L^2)-N^2)$. In it $\log|\varphi| \ge L$ "
                r"and $u \le N^2/L$.",
                (
                    Identity(
                        u**2 + v**2 + size**2 - u * size**2 / length,
                        (u - size**2 / (2 * length)) ** 2 + v**2 - area,
                    ),
                    NonNegative(u**2 + v2 + size**2, u**2, v2 + size**2),
                ),
            ),
            (
                r"With $|\varphi|^2 \ge e^{2L} = 1+2N^4/\eta^2$: $\sigma_{\min}^2 \le "
                r"N^2\cdot2u\cdot\frac{\eta^2}{2N^4} = \eta^2u/N^2$, at most $\eta^2$ for $u \le N^2$. "
                r"This needs $L \ge 1$, that is $2N^4/\eta^2 \ge e^2-1$; for $\eta \le 1$, $N \ge 2$ the left side "
                r"is at least 32. For $N=1$ the radicand is "
                r"negative: there $L \ge \tfrac12\ln3 > \tfrac12$.",
                (
                    Identity(size**2 * 2 * u / (2 * size**4 / eta**2), eta**2 * u / size**2),
                    NonNegative(32 - (sp.E**2 - 1), sp.Integer(0), 33 - sp.E**2),
                    NonNegative(sp.log(3) / 2, _HALF, (sp.log(3) - 1) / 2),
                ),
            ),
            (
                r"Disc inside the covered set: $\pi(N^4/(4L^2)-N^2) \le N\pi\kappa^2(\eta+\epsilon)^2$, solved for "
                r"$\kappa$.",
                Identity(area / (size * (eta + eps) ** 2), bound**2),
            ),
            (
                r"Growth: at fixed $\epsilon$, $\eta$ the bound divided by $N^{3/2}/\ln N$ tends to "
                r"$1/(4(\eta+\epsilon))$, because "
                r"$2L = 4\ln N + \ln(2/\eta^2 + N^{-4})$ and so $L/(2\ln N) \to 1$.",
                Tends(
                    sp.sqrt(x**3 / (4 * (2 * sp.log(x)) ** 2) - x) / (x ** sp.Rational(3, 2) / sp.log(x)),
                    x,
                    sp.oo,
                    sp.Rational(1, 4),
                ),
            ),
        ),
        confirmations=steps(
            (
                r"$|\varphi|^2$ multiplied out at $u=1/3$, $v=5/2$.",
                FiniteN("|phi|^2 left of the line", modulus, (1, 2, 3, 5)),
            ),
            (
                r"The closed form maximised over a grid of $\eta$ at $N=128$, $\epsilon=0.1$ is at least 437.",
                Numeric("kappa >= 437", _bound_at_128, 0.0),
            ),
        ),
    )
