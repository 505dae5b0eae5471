"""Derivations about sliding windows: LegT as a Pade approximant of the delay, FouT as an all-pass delay.

Papers: LMU (Voelker, Kajic, Eliasmith 2019) for the Pade property of the delay network, HTTYH arXiv 2206.12037 for
FouT.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import sympy as sp

from ssmtheory.symbolic.derivation import Cited, Derivation, FiniteN, Identity, NonNegative, ProductLaw, Tends, steps
from ssmtheory.symbolic.ingredients import N, k, m, n, s, shifted, solve

__all__ = ["derive_fout_delay", "derive_legt_pade"]


def _window_coefficient() -> sp.Expr:
    """Coefficient of s^m in int_0^1 e^{-sx} P_n(1-2x) dx."""
    return (-1) ** (m + n) * sp.factorial(m) / (sp.factorial(m - n) * sp.factorial(m + n + 1))


def _legt_matrix(size: int) -> list[list[int]]:
    """Root-free LegT on the window [0, 1]: -(2k+1) (n >= k), -(-1)^{n-k} (2k+1) (n < k)."""
    return [[-(2 * c + 1) * (1 if r >= c else (-1) ** (c - r)) for c in range(size)] for r in range(size)]


def _legt_values(size: int, points: Sequence[Fraction]) -> list[Fraction]:
    """sum (-1)^n (2n+1) y_n at rational points s, by elimination with the matrix."""
    rows = [[Fraction(value) for value in row] for row in _legt_matrix(size)]
    states = [solve(shifted(rows, point), [Fraction(1)] * size) for point in points]
    return [sum(((-1) ** i * (2 * i + 1) * y for i, y in enumerate(state)), Fraction(0)) for state in states]


def _legt_moments(size: int, count: int) -> list[Fraction]:
    """Taylor coefficients -C A^{-(j+1)} B of the transfer function at s = 0."""
    rows = [[Fraction(value) for value in row] for row in _legt_matrix(size)]
    state, found = [Fraction(1)] * size, []
    for _ in range(count):
        state = solve(rows, state)
        found.append(-sum(((-1) ** i * (2 * i + 1) * y for i, y in enumerate(state)), Fraction(0)))
    return found


def derive_legt_pade() -> Derivation:
    """LegT read at the far end of its window is the [N-1/N] Pade approximant of e^{-s}, for every N.

    Returns:
        Derivation with `result` numerator, denominator (N, s), error (N: leading coefficient of the mismatch); proved.

    >>> derive_legt_pade().status
    'proved'
    """
    c = _window_coefficient()
    i = sp.Symbol("i", integer=True, nonnegative=True)
    lead = (-1) ** n * sp.factorial(2 * n) / sp.factorial(n)  # of s^{-n} in p_n: (-2)^n (2n-1)!!
    numerator_term = (
        sp.factorial(2 * N - 1 - i)
        * sp.factorial(N - 1)
        * (-s) ** i
        / (sp.factorial(2 * N - 1) * sp.factorial(i) * sp.factorial(N - 1 - i))
    )
    denominator_term = (
        sp.factorial(2 * N - 1 - i)
        * sp.factorial(N)
        * s**i
        / (sp.factorial(2 * N - 1) * sp.factorial(i) * sp.factorial(N - i))
    )
    window = c.subs({n: N - 1, m: N - 1}) / lead.subs(n, N)
    error = -window
    z = sp.Symbol("z")
    y0, y1, before, total = sp.symbols("y_0 y_1 y_before S")

    def closed(size: int) -> tuple[Any, Any]:
        points = [Fraction(p, 3) for p in range(1, 2 * size + 2)]
        top = sum(numerator_term.subs({N: size, i: power}) for power in range(size))
        low = sum(denominator_term.subs({N: size, i: power}) for power in range(size + 1))
        ratio = top / low
        return _legt_values(size, points), [ratio.subs(s, sp.Rational(p.numerator, p.denominator)) for p in points]

    def mismatch(size: int) -> tuple[Any, Any]:
        delay = [sp.Integer(-1) ** power / sp.factorial(power) for power in range(2 * size + 1)]
        found = [value - target for value, target in zip(_legt_moments(size, 2 * size + 1), delay, strict=True)]
        return found, [0] * (2 * size) + [error.subs(N, size)]

    return Derivation(
        title="LegT is a Pade approximant of the delay",
        setting=r"LegT on the window $[0,1]$: $A_{nk} = -\sqrt{(2n+1)(2k+1)}\,(1 \text{ for } n \ge k,\ (-1)^{n-k} "
        r"\text{ for } n<k)$, "
        r"$B_n = \sqrt{2n+1}$, read at the end of the window with $C_n = (-1)^n \sqrt{2n+1}$.",
        statement=r"$G_N(s) = C(s-A)^{-1}B$ is the $[N-1/N]$ Pad\'e approximant of $e^{-s}$ for every $N$: "
        r"$G_N(s) - e^{-s} = " + sp.latex(error) + r" s^{2N} + O(s^{2N+1})$.",
        source="Voelker, Kajic, Eliasmith 2019 state the Pade property; the proof for all N is this toolkit's.",
        result={
            "numerator": sp.Sum(numerator_term, (i, 0, N - 1)),
            "denominator": sp.Sum(denominator_term, (i, 0, N)),
            "error": error,
        },
        steps=steps(
            (
                r"With $x_n = \sqrt{2n+1}\,y_n$, $a_k = (2k+1) y_k$, row $n$ is $s y_n + \sum_{k\le n} a_k + "
                r"\sum_{k>n} (-1)^{n-k} a_k = 1$. "
                r"Rows $n$ and $n+1$ added: the terms beyond $n$ cancel, $s(y_n + y_{n+1}) + 2\sum_{k \le n} a_k = 2$. "
                r"That sum at $n$ minus the one at $n-1$ is the three-term recurrence $s(y_{n+1} - y_{n-1}) + "
                r"2(2n+1) y_n = 0$.",
                (
                    Identity((-1) ** (n - k) + (-1) ** (n + 1 - k), sp.Integer(0)),
                    Identity(
                        (s * (y0 + y1) + 2 * (total + (2 * n + 1) * y0)) - (s * (before + y0) + 2 * total),
                        s * (y1 - before) + 2 * (2 * n + 1) * y0,
                    ),
                ),
            ),
            (
                r"Ends. The alternating row 0 is $s y_0 + G = 1$, so $G = 1 - s y_0$. The sum of rows 0 and 1 is the "
                r"recurrence at $n=0$ with "
                r"$y_{-1} := 2/s - y_0$. Twice row $N-1$ is $2 s y_{N-1} + 2\sum_{k<N} a_k = 2$: the recurrence "
                r"continues to a $y_N$ with "
                r"$y_N = y_{N-1}$.",
                (
                    Identity(s * (y1 - (2 / s - y0)) + 2 * y0, s * (y0 + y1) + 2 * y0 - 2),
                    Identity(
                        (2 * s * y0 + 2 * total) - (s * (y0 + y1) + 2 * total),
                        s * (y0 - y1),
                    ),
                ),
            ),
            (
                r"The exact window $\hat y_n = \int_0^1 e^{-sx} P_n(1-2x)\,dx$ has the Taylor coefficients "
                r"$\hat c_{nm} = (-1)^{m+n} \frac{m!}{(m-n)!\,(m+n+1)!}$: $\int_0^1 x^m P_n(2x-1) dx = Y_n(m)$ (LegS "
                r"transfer vector at $s = m$), "
                r"and $P_n(1-2x) = (-1)^n P_n(2x-1)$.",
                (
                    ProductLaw(m - k, k, sp.Integer(0), n, sp.factorial(m) / sp.factorial(m - n)),
                    ProductLaw(m + k + 1, k, sp.Integer(0), n, sp.factorial(m + n) / sp.factorial(m)),
                    Identity(
                        (-1) ** m
                        / sp.factorial(m)
                        * (-1) ** n
                        * (sp.factorial(m) / sp.factorial(m - n))
                        / (sp.factorial(m + n + 1) / sp.factorial(m)),
                        c,
                    ),
                ),
            ),
            (
                r"It obeys the same recurrence, coefficient by coefficient, and starts with $\hat y_0 = (1 - "
                r"e^{-s})/s$: $e^{-s} = 1 - s\hat y_0$. "
                r"The continuation $\hat y_{-1}$ is $(1+e^{-s})/s = 2/s - \hat y_0$. Because of $1/(m-n)!$, $\hat "
                r"y_n = O(s^n)$.",
                (
                    Identity(
                        c.subs(n, n + 1) - c.subs(n, n - 1) + 2 * (2 * n + 1) * c.subs(m, m + 1),
                        sp.Integer(0),
                    ),
                    Identity(c.subs(n, 0), -((-1) ** (m + 1)) / sp.factorial(m + 1)),
                    Identity(c.subs(m, n), sp.factorial(n) / sp.factorial(2 * n + 1)),
                    Identity(c.subs(n, -1), (-1) ** (m + 1) / sp.factorial(m + 1)),
                    Identity((1 + sp.exp(-s)) / s, 2 / s - (1 - sp.exp(-s)) / s),
                ),
            ),
            (
                r"The error $e_n = \hat y_n - y_n$ obeys the homogeneous problem, so $e_n = e_0\, p_n(1/s)$ with "
                r"$p_{-1} = -1$, $p_0 = 1$, "
                r"$p_{n+1} = p_{n-1} - \frac{2(2n+1)}{s} p_n$: a polynomial of exact degree $n$ in $1/s$ with "
                r"leading coefficient "
                r"$\ell_n = (-1)^n (2n)!/n!$.",
                (
                    Identity(lead.subs(n, n + 1), -2 * (2 * n + 1) * lead),
                    Identity(lead.subs(n, 0), sp.Integer(1)),
                    Identity(sp.Integer(-1) - 2 * z, -1 + lead.subs(n, 1) * z),
                ),
            ),
            (
                r"At the end $e_N - e_{N-1} = \hat y_N - \hat y_{N-1}$, that is $e_0 (p_N - p_{N-1}) = -\hat "
                r"c_{N-1,N-1} s^{N-1} + O(s^N)$, and "
                r"$p_N - p_{N-1} = \ell_N s^{-N} (1 + O(s))$. Hence $e_0 = -(\hat c_{N-1,N-1}/\ell_N) s^{2N-1} + "
                r"O(s^{2N})$ and "
                r"$G - e^{-s} = s(\hat y_0 - y_0) = s e_0$.",
                (
                    Identity(c.subs({n: N - 1, m: N - 1}), sp.factorial(N - 1) / sp.factorial(2 * N - 1)),
                    Identity(
                        error,
                        (-1) ** (N + 1)
                        * sp.factorial(N)
                        * sp.factorial(N - 1)
                        / (sp.factorial(2 * N) * sp.factorial(2 * N - 1)),
                    ),
                    NonNegative(sp.factorial(N), sp.Integer(0), sp.factorial(N)),
                ),
            ),
            (
                r"$G_N$ is a ratio of polynomials of degrees at most $N-1$ and $N$, with $G_N(0) = 1$, and agrees "
                r"with $e^{-s}$ up to "
                r"$s^{2N-1}$: $2N$ conditions. Two such ratios $P/Q$, $\tilde P/\tilde Q$ would give $P\tilde Q - "
                r"\tilde P Q = O(s^{2N})$ of degree "
                r"at most $2N-1$, hence 0: it is the Pad\'e approximant.",
                (Identity((N - 1) + N, 2 * N - 1), Tends(1 - s * sp.Symbol("y"), s, sp.Integer(0), sp.Integer(1))),
            ),
        ),
        confirmations=steps(
            (
                r"The classical closed form of the $[N-1/N]$ approximant, from the matrix.",
                FiniteN("C (s - A)^{-1} B at 2N + 1 points, which determine it", closed, (1, 2, 3, 5)),
            ),
            (
                r"Taylor series of the mismatch, from the matrix: $2N$ zeros, then the coefficient of the statement.",
                FiniteN("G_N - e^{-s}", mismatch, (1, 2, 3, 5, 8)),
            ),
        ),
    )


def derive_fout_delay() -> Derivation:
    """FouT is an all-pass delay, and why dropping its low-rank term loses the window.

    Returns:
        Derivation with `result` delay (q), limit (s), window (s); proved modulo the partial fractions of coth.
    """
    q, w, r = sp.symbols("q w r")
    coth = (1 + sp.exp(-s)) / (1 - sp.exp(-s))
    exact = sp.symbols("omega_r", real=True)

    def solved(pairs: int) -> tuple[Any, Any]:
        # frequencies 2 pi j are replaced by j: the algebra does not depend on their values; x_cos = sqrt(2) y_cos
        point = Fraction(3, 7)
        size = 1 + 2 * pairs
        rotation = [[Fraction(0)] * size for _ in range(size)]
        for p in range(pairs):
            rotation[1 + 2 * p][2 + 2 * p] = Fraction(-(p + 1))
            rotation[2 + 2 * p][1 + 2 * p] = Fraction(p + 1)
        b = [Fraction(1)] + [Fraction(1), Fraction(0)] * pairs
        metric = [Fraction(1)] + [Fraction(2), Fraction(2)] * pairs
        rows = [
            [(point if i == c else 0) - rotation[i][c] + 2 * b[i] * metric[c] * b[c] for c in range(size)]
            for i in range(size)
        ]
        state = solve(rows, [2 * value for value in b])
        value = sp.Rational(7, 3) + sum(
            2 * sp.Rational(3, 7) / (sp.Rational(9, 49) + (p + 1) ** 2) for p in range(pairs)
        )
        found = 2 * sum(metric[i] * b[i] * state[i] for i in range(size)) - 1
        return sp.Rational(found.numerator, found.denominator), (2 * value - 1) / (2 * value + 1)

    return Derivation(
        title="FouT is an all-pass delay",
        setting=r"FouT on the window $[0,1]$: $A = S - 2bb^T$, $B = 2b$, $S$ skew with blocks of frequency $2\pi j$ "
        r"and one zero, "
        r"$b = (1, \sqrt2, 0, \sqrt2, 0, \dots)$, $q(s) = b^T (s-S)^{-1} b$.",
        statement=r"$(s-A)^{-1}B = 2(s-S)^{-1}b/(1+2q)$; the delayed input is read by $y = 2b^Tx - u$ with transfer "
        r"function "
        r"$(2q-1)/(2q+1)$, all-pass for every $N$, which tends to $e^{-s}$. Without $2bb^T$ the factor $(1-e^{-s})$, "
        r"the window, is lost.",
        source="arXiv 2206.12037 (FouT); the all-pass form is stated here.",
        result={"delay": (2 * q - 1) / (2 * q + 1), "limit": sp.exp(-s), "window": 1 - sp.exp(-s)},
        steps=steps(
            (
                r"$(s-A) x$ with $x = 2(s-S)^{-1}b/(1+2q)$: the coefficient of $b$ in $(s-S)x + 2b\,b^Tx$.",
                Identity(2 / (1 + 2 * q) + 2 * 2 * q / (1 + 2 * q), sp.Integer(2)),
            ),
            (
                r"A block of frequency $w$ contributes $2\,[(s-S_w)^{-1}]_{11} = 2s/(s^2+w^2)$ to $q$, the zero "
                r"frequency $1/s$.",
                (
                    Identity(2 * sp.Matrix([[s, w], [-w, s]]).inv()[0, 0], 2 * s / (s**2 + w**2)),
                    Identity(1 / (s - 0), 1 / s),
                ),
            ),
            (
                r"Reading $2b^Tx - u$.",
                Identity(2 * (2 * q / (1 + 2 * q)) - 1, (2 * q - 1) / (2 * q + 1)),
            ),
            (
                r"All-pass: $q$ is odd, so $\overline{q(i\omega)} = -q(i\omega)$ and $F(q)F(-q) = 1$ for $F = "
                r"(2q-1)/(2q+1)$.",
                (
                    Identity(2 * (-s) / ((-s) ** 2 + w**2), -2 * s / (s**2 + w**2)),
                    Identity((2 * q - 1) / (2 * q + 1) * (-2 * q - 1) / (-2 * q + 1), sp.Integer(1)),
                    Identity((2 * sp.I * exact / ((sp.I * exact) ** 2 + w**2)), sp.I * 2 * exact / (w**2 - exact**2)),
                ),
            ),
            (
                r"As $N \to \infty$, $q \to \tfrac12\coth(s/2)$, uniformly on compact sets without poles; then the "
                r"delay is exact and the state is "
                r"the windowed basis.",
                Cited(
                    "Mittag-Leffler expansion of coth",
                    r"\frac1s + \sum_{j\ge1} \frac{2s}{s^2 + 4\pi^2 j^2} = \tfrac12 \coth\tfrac s2",
                    hypotheses=(
                        Identity((coth - 1) / (coth + 1), sp.exp(-s)),
                        Identity(2 / (1 + coth), 1 - sp.exp(-s)),
                    ),
                ),
            ),
            (
                r"Without the low-rank term the state is $2(s-S)^{-1}b$, poles on the axis, no factor $2/(1+2q)$ up "
                r"to the constant: the ratio of "
                r"the two tends to $(1-e^{-s})/2$. A shift to $\mathrm{Re}\,s=-\tfrac12$ (S4D-Lin) damps the poles "
                r"and does not restore the window.",
                (
                    Identity(r * 2 / (1 + 2 * q) / (2 * r), 1 / (1 + 2 * q)),
                    Identity(1 / (1 + coth), (1 - sp.exp(-s)) / 2),
                ),
            ),
        ),
        confirmations=steps(
            (
                r"Elimination at $s = 3/7$ with frequencies $j$ in place of $2\pi j$ (the algebra is the same).",
                FiniteN("2 b^T x - 1", solved, (1, 2, 4)),
            ),
        ),
    )
