"""Derivations about discrete time: ZOH and bilinear kernels, the generating function of S4 from A to K.

Papers: S4 arXiv 2111.00396 (generating function, Woodbury, Cauchy), S4D arXiv 2206.11893 (bilinear, ZOH, Vandermonde).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import sympy as sp

from ssmtheory.symbolic.derivation import Derivation, FiniteN, Identity, SumLaw, Tends, steps
from ssmtheory.symbolic.ingredients import k, normal_integer, shifted, solve

__all__ = ["derive_bilinear_kernel", "derive_s4_generating_function", "derive_zoh_kernel"]

_STEP = sp.Symbol("Delta", positive=True)


def derive_zoh_kernel() -> Derivation:
    """Zero-order hold of one mode: kernel, transfer function, and how it damps a resonance.

    Returns:
        Derivation with `result` a, b (lambda, Delta), kernel (k too), damping (x = omega Delta / 2); proved.
    """
    lam, x0, u, z = sp.symbols("lambda x_0 u z")
    tau, t0, r = sp.symbols("tau t r")
    y = sp.Symbol("y", real=True)
    flow = sp.exp(lam * tau) * x0 + (sp.exp(lam * tau) - 1) / lam * u
    a = sp.exp(lam * _STEP)
    b = (a - 1) / lam
    kernel = a**k * b
    value = sp.symbols("a_bar", nonzero=True)
    size = sp.Symbol("L", integer=True, nonnegative=True)
    # the peak of a lightly damped mode -eps + iy against the continuous one, eps -> 0
    eps = sp.Symbol("epsilon", positive=True)

    def sampled(case: int) -> tuple[Any, Any]:
        # exact for a nilpotent matrix, where the exponential is a polynomial: x'' = u sampled
        rate, steps_ = sp.Rational(1, 3), case
        position, speed = sp.Integer(0), sp.Integer(0)
        found = []
        for i in range(steps_):
            push = sp.Integer(1 if i == 0 else 0)
            position, speed = position + rate * speed + push * rate**2 / 2, speed + rate * push
            found.append(position)
        matrix = sp.Matrix([[0, 1], [0, 0]])
        ad = sp.eye(2) + rate * matrix
        bd = (rate * sp.eye(2) + rate**2 / 2 * matrix) * sp.Matrix([0, 1])
        return found, [(ad**i * bd)[0] for i in range(steps_)]

    return Derivation(
        title="Zero-order hold",
        setting=r"One mode $\dot x = \lambda x + u$ with $u$ constant over each step $\Delta$ (a diagonal system is "
        r"a sum of modes).",
        statement=r"$x_{k+1} = e^{\lambda\Delta} x_k + \frac{e^{\lambda\Delta}-1}{\lambda} u_k$ exactly, so "
        r"$K_k = \frac{e^{\lambda\Delta}-1}{\lambda} e^{\lambda\Delta k}$ with transfer function "
        r"$\frac{e^{\lambda\Delta}-1}{\lambda (z - "
        r"e^{\lambda\Delta})}$. The peak of a lightly damped mode at $y$ is multiplied by "
        r"$|\mathrm{sinc}(y\Delta/2)|$.",
        source="arXiv 2206.11893 (ZOH and the Vandermonde kernel); the damping law is stated here.",
        result={"a": a, "b": b, "kernel": kernel, "damping": sp.sin(y * _STEP / 2) / (y * _STEP / 2)},
        steps=steps(
            (
                r"The flow with constant input solves the equation and starts at $x_0$; its value at $\Delta$ is the "
                r"step.",
                (
                    Identity(sp.diff(flow, tau), lam * flow + u),
                    Identity(flow.subs(tau, 0), x0),
                    Identity(flow.subs(tau, _STEP), a * x0 + b * u),
                ),
            ),
            (
                r"The kernel is that integral over one step, moved on $k$ steps: $K_k = \int_{k\Delta}^{(k+1)\Delta} "
                r"e^{\lambda t} dt$.",
                (
                    Identity(sp.diff(sp.exp(lam * t0) / lam, t0), sp.exp(lam * t0)),
                    Identity((sp.exp(lam * (k + 1) * _STEP) - sp.exp(lam * k * _STEP)) / lam, kernel),
                ),
            ),
            (
                r"Generating function of the first $L$ terms ($|z| > |\bar a|$ makes the remainder vanish as $L \to "
                r"\infty$).",
                SumLaw(
                    value**k * z ** (-k - 1), k, sp.Integer(0), size, (1 - value**size * z ** (-size)) / (z - value)
                ),
            ),
            (
                r"At $\lambda \to 0$ the step is a plain sum; expm1 is the number to use, because "
                r"$(e^{\lambda\Delta}-1)$ cancels.",
                Tends((sp.exp(r) - 1) / r, r, sp.Integer(0), sp.Integer(1)),
            ),
            (
                r"Resonance: for $\lambda = -\epsilon + iy$ the continuous peak is $1/\epsilon$. At $z = "
                r"e^{iy\Delta}$ the denominator is "
                r"$e^{iy\Delta}(1 - e^{-\epsilon\Delta})$ and the numerator tends to $|e^{iy\Delta}-1|/y$, whose "
                r"square is $4\sin^2(y\Delta/2)/y^2$.",
                (
                    Tends(eps / (1 - sp.exp(-eps * _STEP)), eps, sp.Integer(0), 1 / _STEP),
                    Identity(
                        (sp.exp(sp.I * y * _STEP) - 1) * (sp.exp(-sp.I * y * _STEP) - 1) / (y * _STEP) ** 2,
                        ((sp.exp(sp.I * y * _STEP / 2) - sp.exp(-sp.I * y * _STEP / 2)) / (2 * sp.I) / (y * _STEP / 2))
                        ** 2,
                    ),
                ),
            ),
        ),
        confirmations=steps(
            (
                r"A double integrator, where everything is rational: stepping by hand against $\bar A^k \bar B$.",
                FiniteN("ZOH of the double integrator", sampled, (1, 4, 9)),
            ),
        ),
    )


def derive_bilinear_kernel() -> Derivation:
    """Bilinear transform of one mode in both conventions, and what the S4 convention does to a resonance.

    Returns:
        Derivation with `result` a, b (lambda, Delta), kernel (k too), gain (omega: that of the S4 convention); proved.
    """
    lam, z, x0, x1, u = sp.symbols("lambda z x_0 x_1 u")
    half = lam * _STEP / 2
    a = (1 + half) / (1 - half)
    b = _STEP / (1 - half)
    at = 2 / _STEP * (z - 1) / (z + 1)
    tangent = sp.Symbol("tau", real=True)  # tan(theta / 2) with z = e^{i theta}
    circle = (1 + sp.I * tangent) / (1 - sp.I * tangent)
    g = sp.Symbol("G")
    x = sp.Symbol("x")
    w = sp.Symbol("omega", real=True)
    value = sp.Symbol("a_bar", nonzero=True)
    size = sp.Symbol("L", integer=True, nonnegative=True)

    def legs(case: int) -> tuple[Any, Any]:
        # (z - Abar)^{-1} Bbar of LegS against the transfer vector of the continuous system at the warped point
        from ssmtheory.symbolic.ingredients import Y

        rows, ones = normal_integer(case, 1)
        step, point = Fraction(1, 5), Fraction(7, 3)
        size_ = range(case)
        left = [[(1 if r == c else 0) - step / 2 * rows[r][c] for c in size_] for r in size_]
        right = [[(1 if r == c else 0) + step / 2 * rows[r][c] for c in size_] for r in size_]
        # (z (1 - hA) - (1 + hA)) x = Delta B
        system = [[point * left[r][c] - right[r][c] for c in size_] for r in size_]
        found = solve(system, [step * value_ for value_ in ones])
        warped = 2 / step * (point - 1) / (point + 1)
        factor = 2 / (1 + point)
        at_ = sp.Rational(warped.numerator, warped.denominator)
        return found, [sp.Rational(factor.numerator, factor.denominator) * Y(i, at_) for i in size_]

    return Derivation(
        title="Bilinear transform in both conventions",
        setting=r"$\bar A = (1-\tfrac{\Delta}{2}A)^{-1}(1+\tfrac{\Delta}{2}A)$, $\bar B = "
        r"(1-\tfrac{\Delta}{2}A)^{-1}\Delta B$; S4 uses the kernel "
        r"$K_k = C\bar A^k\bar B$.",
        statement=r"With $s = \frac{2}{\Delta}\frac{z-1}{z+1}$: $C(z-\bar A)^{-1}\bar B = \frac{2}{1+z} G(s)$. The "
        r"trapezoidal rule itself gives "
        r"$G(s)$. The S4 kernel has $\sum_k K_k z^{-k} = \frac{2z}{1+z} G(s)$, so a resonance at $\omega$ moves to "
        r"$\theta = 2\arctan(\omega\Delta/2)$ and is multiplied by $\sqrt{1+(\omega\Delta/2)^2}$.",
        source="arXiv 2206.11893 (bilinear discretisation), arXiv 2111.00396 (generating function); the gain is "
        "stated here.",
        result={"a": a, "b": b, "kernel": a**k * b, "gain": sp.sqrt(1 + (w * _STEP / 2) ** 2)},
        steps=steps(
            (
                r"Trapezoidal rule $x_1 - x_0 = \tfrac{\Delta}{2}\lambda(x_1 + x_0) + \Delta u$, solved for $x_1$.",
                Identity((x1 - x0 - half * (x1 + x0) - _STEP * u) / (1 - half), x1 - a * x0 - b * u),
            ),
            (
                r"The discrete mode in the variable $s$.",
                Identity(b / (z - a), 2 / (1 + z) / (at - lam)),
            ),
            (
                r"With the average input $(u_k + u_{k+1})/2$, that is a factor $(1+z)/2$, the factor disappears: the "
                r"trapezoidal rule maps $G(s)$ exactly.",
                Identity((1 + z) / 2 * b / (z - a), 1 / (at - lam)),
            ),
            (
                r"S4's kernel: $\sum_{k} K_k z^{-k} = z\,\bar b/(z - \bar a)$ (geometric sum).",
                (
                    SumLaw(
                        value**k * z ** (-k), k, sp.Integer(0), size, z * (1 - value**size * z ** (-size)) / (z - value)
                    ),
                    Identity(z * b / (z - a), 2 * z / (1 + z) / (at - lam)),
                ),
            ),
            (
                r"On the circle $z = e^{i\theta} = (1+i\tau)/(1-i\tau)$ with $\tau = \tan(\theta/2)$: $s = "
                r"\frac{2}{\Delta} i\tau$, so "
                r"$\omega\Delta/2 = \tau$, and $|2z/(1+z)|^2 = 1+\tau^2$.",
                (
                    Identity(circle * (1 - sp.I * tangent) / (1 + sp.I * tangent), sp.Integer(1)),
                    Identity(at.subs(z, circle), 2 / _STEP * sp.I * tangent),
                    Identity(2 * circle / (1 + circle), 1 + sp.I * tangent),
                    Identity((1 + sp.I * tangent) * (1 - sp.I * tangent), 1 + tangent**2),
                    Identity(g * (2 / (1 + circle)), g * (1 - sp.I * tangent)),
                ),
            ),
            (
                r"Order two: $e^{x} - \frac{1+x/2}{1-x/2} = -x^3/12 + O(x^4)$.",
                Tends((sp.exp(x) - (1 + x / 2) / (1 - x / 2)) / x**3, x, sp.Integer(0), -sp.Rational(1, 12)),
            ),
        ),
        confirmations=steps(
            (
                r"LegS itself: the discrete system of the integer matrix against the transfer vector at the warped "
                r"point.",
                FiniteN("(z - Abar)^{-1} Bbar", legs, (1, 2, 4, 7)),
            ),
        ),
    )


def derive_s4_generating_function() -> Derivation:
    """From A = Lambda - P Q^* to the kernel K: truncated generating function, Woodbury, Cauchy, inverse DFT.

    Returns:
        Derivation with `result` node (z, Delta), prefactor, woodbury (k00, k01, k10, k11); proved.
    """
    z, a, q = sp.symbols("z a q", nonzero=True)
    lam, p, b, c = sp.symbols("lambda p b c")
    size = sp.Symbol("L", integer=True, nonnegative=True)
    k00, k01, k10, k11 = sp.symbols("k_00 k_01 k_10 k_11")
    node = 2 / _STEP * (1 - z) / (1 + z)
    half = _STEP / 2
    woodbury = k00 - k01 * k10 / (1 + k11)

    def whole(case: tuple[int, int]) -> tuple[Any, Any]:
        """Truncated generating function of LegS in NPLR form at a rational z: by powers, and by four Cauchy sums."""
        states, length = case
        step, point = Fraction(1, 4), Fraction(2, 7)
        rows, ones = normal_integer(states, 1)
        read = [Fraction(i + 1, 2) for i in range(states)]
        span = range(states)
        left = [[Fraction(r == i) - step / 2 * rows[r][i] for i in span] for r in span]
        state = solve(left, [step * value for value in ones])
        total, power = Fraction(0), Fraction(1)
        for _ in range(length):
            total += power * sum(x * y for x, y in zip(read, state, strict=True))
            power *= point
            moved = [state[r] + step / 2 * sum(rows[r][i] * state[i] for i in span) for r in span]
            state = solve(left, moved)
        # read the closed form: C (1 - Abar^L z^L) acts on the state side, because powers of Abar commute
        normal, _ = normal_integer(states, 0)
        at = 2 / step * (1 - point) / (1 + point)
        resolvent = shifted(normal, at)  # diagonalised by a unitary matrix; its inverse is the sum of Cauchy terms
        r_b = solve(resolvent, ones)
        weight = [Fraction(2 * i + 1) for i in span]

        def inner(values: list[Fraction]) -> Fraction:
            return sum((x * y for x, y in zip(read, values, strict=True)), Fraction(0))

        # A = A_N - P Q^*, P = B/2 and Q = B in root-free form: k11 = Q^* R P, k01 = C R P, k10 = Q^* R B, k00 = C R B
        b_b = sum((w * x for w, x in zip(weight, r_b, strict=True)), Fraction(0))
        k_11, k_01, k_10, k_00 = b_b / 2, inner(r_b) / 2, b_b, inner(r_b)
        infinite = 2 / (1 + point) * (k_00 - k_01 * k_10 / (1 + k_11))
        # the rest of the series, z^L C Abar^L (1 - Abar z)^{-1} Bbar, from the state after L steps
        tail_system = [[left[r][i] - point * (Fraction(r == i) + step / 2 * rows[r][i]) for i in span] for r in span]
        tail = solve(tail_system, [sum((left[r][i] * state[i] for i in span), Fraction(0)) for r in span])
        return total, infinite - power * inner(tail)

    return Derivation(
        title="S4: from A to K",
        setting=r"$A = \Lambda - PQ^*$, bilinear discretisation with step $\Delta$, $K_k = C\bar A^k\bar B$ for $k < "
        r"L$. All matrices below are "
        r"rational functions of $A$ and commute, so identities for one eigenvalue $\lambda$ (with $\bar a$) hold for "
        r"the matrices.",
        statement=r"With $\tilde C = C(1 - \bar A^L)$, $g = \frac{2}{\Delta}\frac{1-z}{1+z}$ and $k_{xy} = \sum_n "
        r"\frac{x_n y_n}{g - \lambda_n}$: at the "
        r"$L$-th roots of unity $\hat K(z) = \sum_{k<L} K_k z^k = \frac{2}{1+z}\left[k_{CB} - "
        r"\frac{k_{CP}k_{QB}}{1+k_{QP}}\right]$, and "
        r"$K$ is the inverse DFT of these values.",
        source="arXiv 2111.00396, generating function, Woodbury and Cauchy (theorem numbers remembered, not re-read).",
        result={"node": node, "prefactor": 2 / (1 + z), "woodbury": woodbury},
        steps=steps(
            (
                r"Truncated generating function (geometric sum): $\hat K_L(z) = C(1 - \bar A^L z^L)(1 - \bar A "
                r"z)^{-1}\bar B$, "
                r"and $z^L = 1$ turns $C(1-\bar A^L z^L)$ into the constant $\tilde C$.",
                SumLaw(a**k * z**k, k, sp.Integer(0), size, (1 - a**size * z**size) / (1 - a * z)),
            ),
            (
                r"Back to $A$: $(1 - \bar A z)^{-1}\bar B = \frac{2}{1+z}(g - A)^{-1}B$.",
                Identity(
                    (_STEP / (1 - half * lam)) / (1 - z * (1 + half * lam) / (1 - half * lam)),
                    2 / (1 + z) / (node - lam),
                ),
            ),
            (
                r"Woodbury with $R = (g-\Lambda)^{-1}$, $q = Q^*RP$: $(g - \Lambda + PQ^*)(R - RP(1+q)^{-1}Q^*R) = 1 "
                r"+ PQ^*R\,[\,1 - (1+q)^{-1} - "
                r"q(1+q)^{-1}]$, and the bracket vanishes.",
                (
                    Identity(1 - 1 / (1 + q) - q / (1 + q), sp.Integer(0)),
                    Identity(k00 - k01 / (1 + k11) * k10, woodbury),
                ),
            ),
            (
                r"With $R$ diagonal each of the four numbers is a Cauchy sum: one mode contributes $x_n "
                r"y_n/(g-\lambda_n)$. The node $g$ has no pole "
                r"except at $z=-1$, where the product with the prefactor stays finite.",
                (
                    Identity(
                        c * (1 / (node - lam)) * b, c * b * _STEP * (1 + z) / (2 * (1 - z) - lam * _STEP * (1 + z))
                    ),
                    Identity(
                        2 / (1 + z) * (_STEP * (1 + z) / (2 * (1 - z) - lam * _STEP * (1 + z))),
                        2 * _STEP / (2 * (1 - z) - lam * _STEP * (1 + z)),
                    ),
                    Identity(
                        (2 * _STEP / (2 * (1 - z) - lam * _STEP * (1 + z))).subs(z, -1),
                        _STEP / 2,
                    ),
                ),
            ),
            (
                r"Inverse DFT: with $\zeta = e^{2\pi i (k-l)/L} \ne 1$ and $\zeta^L = 1$ the sum over the $L$ nodes "
                r"is 0, and it is $L$ for $k = l$.",
                (
                    SumLaw(p**k, k, sp.Integer(0), size, (p**size - 1) / (p - 1)),
                    SumLaw(sp.Integer(1), k, sp.Integer(0), size, size),
                ),
            ),
        ),
        confirmations=steps(
            (
                r"LegS as normal plus low rank: the sum of $L$ kernel values times $z^k$ at $z=2/7$, against the "
                r"Woodbury form minus the tail.",
                FiniteN("truncated generating function, (N, L)", whole, ((1, 3), (2, 4), (3, 5), (5, 8))),
            ),
        ),
    )
