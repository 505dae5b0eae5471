"""Derivations about LegS and S4D: transfer vector, kernels, phi_N, characteristic polynomials, spectrum, Gramian.

All for general n and N. Papers: HiPPO arXiv 2008.07669, S4 arXiv 2111.00396, HTTYH arXiv 2206.12037,
S4D arXiv 2206.11893, PTD arXiv 2310.01698.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import sympy as sp

from ssmtheory.errors import InputError
from ssmtheory.inits.hippo import legs_integer
from ssmtheory.symbolic.derivation import (
    Cited,
    Derivation,
    FiniteN,
    Identity,
    NonNegative,
    Numeric,
    ProductLaw,
    SumLaw,
    Tends,
    steps,
)
from ssmtheory.symbolic.exact import falling, rising
from ssmtheory.symbolic.ingredients import (
    N,
    Y,
    determinant,
    j,
    k,
    legendre,
    m,
    n,
    normal_integer,
    omega,
    phi,
    quadratic,
    s,
    shifted,
    solve,
    t,
)

__all__ = [
    "derive_characteristic_polynomials",
    "derive_contractivity",
    "derive_gramian",
    "derive_kernel_identity",
    "derive_legs_kernel",
    "derive_legs_transfer",
    "derive_phi_modulus",
    "derive_s4d_quotient",
    "derive_s4d_residues",
    "derive_spectrum_asymptotics",
    "derive_spectrum_law",
]

_SETTING = (
    r"LegS: $A_{nk} = -\sqrt{(2n+1)(2k+1)}$ for $n > k$, $A_{nn} = -(n+1)$, $0$ above the diagonal; $B_n = "
    r"\sqrt{2n+1}$, "
    r"$P = B/\sqrt 2$, normal part $A_N = A + P P^T$. $\varphi_N(s) = \prod_{k<N} (s-k)/(s+k+1)$."
)
_POINT = Fraction(3, 7)  # a rational point that is no pole and no zero of anything below


def _legs_solution(size: int, theta: Fraction | int, weight: Fraction, at: Fraction) -> list[Fraction]:
    """(s - A_N + theta P P^T)^{-1} (weight B), root-free, by exact elimination from the integer matrix."""
    rows, ones = normal_integer(size, theta)
    return solve(shifted(rows, at), [weight * b for b in ones])


def derive_legs_transfer() -> Derivation:
    """The state transfer vector of LegS in closed form, and phi_N = 1 - B^T X.

    Returns:
        Derivation with `result` Y (n, s), phi (N, s); proved for all n < N.

    >>> derive_legs_transfer().status
    'proved'
    """
    root = sp.sqrt(2 * n + 1)
    other = sp.sqrt(2 * k + 1)

    def solved(size: int) -> tuple[Any, Any]:
        found = _legs_solution(size, 1, Fraction(1), _POINT)
        return found, [Y(i, sp.Rational(3, 7)) for i in range(size)]

    def residual(size: int) -> tuple[Any, Any]:
        rows, ones = legs_integer(size)
        lhs = [s * Y(r) - sum(rows[r][c] * Y(c) for c in range(size)) for r in range(size)]
        return lhs, ones

    return Derivation(
        title="Transfer vector of HiPPO-LegS",
        setting=_SETTING,
        statement=r"$X(s) = (s - A)^{-1} B$ has $X_n = \sqrt{2n+1}\, Y_n$ with "
        r"$Y_n(s) = \prod_{k<n}(s-k) / \prod_{k \le n}(s+k+1)$ for every $n < N$, and $1 - B^T X = \varphi_N$.",
        source="arXiv 2206.12037 gives the kernels; the transfer vector and its recurrence are stated here.",
        result={"Y": Y(), "phi": phi()},
        steps=steps(
            (
                r"With $x_n = \sqrt{2n+1}\, y_n$ the entry $-\sqrt{(2n+1)(2k+1)}$ becomes $-(2k+1)$, and $B$ becomes "
                r"a vector "
                r"of ones: no square root is left.",
                (Identity(-root * other * other / root, -(2 * k + 1)), Identity(root / root, sp.Integer(1))),
            ),
            (
                r"The product that defines $Y_n$, as a quotient of Gamma functions (induction on $n$).",
                (
                    ProductLaw(s - k, k, sp.Integer(0), n, falling(s, n)),
                    ProductLaw(s + k + 1, k, sp.Integer(0), n, rising(s + 1, n)),
                ),
            ),
            (
                r"Row $n$ of $(s - A) X = B$ reads $(s+n+1) Y_n + \sum_{k<n} (2k+1) Y_k = 1$; it holds by induction "
                r"on $n$. "
                r"The matrix is triangular with diagonal $s+n+1$, so the solution is unique away from $s = -1, "
                r"\dots, -N$.",
                SumLaw((2 * k + 1) * Y(k), k, sp.Integer(0), n, 1 - (s + n + 1) * Y(n)),
            ),
            (
                r"The same sum over all $N$ rows is $B^T X$, and it telescopes to $1 - \varphi_N$.",
                (
                    SumLaw((2 * k + 1) * Y(k), k, sp.Integer(0), N, 1 - phi(N)),
                    ProductLaw((s - k) / (s + k + 1), k, sp.Integer(0), N, phi(N)),
                ),
            ),
            (
                r"Recurrence $Y_{n+1} = Y_n (s-n)/(s+n+2)$ from $Y_0 = 1/(s+1)$: $N$ multiplications, no matrix.",
                (Identity(Y(n + 1), Y(n) * (s - n) / (s + n + 2)), Identity(Y(0), 1 / (s + 1))),
            ),
        ),
        confirmations=steps(
            (
                "Elimination with the integer matrix of LegS at s = 3/7 gives the same vector.",
                FiniteN("(s - A)^{-1} B by elimination is Y", solved, (1, 2, 5, 8)),
            ),
            (
                "The residual of the integer system vanishes as a rational function of s.",
                FiniteN("(s - A) Y is the vector of ones", residual, (1, 2, 3, 4)),
            ),
        ),
    )


def _legendre_coefficient() -> sp.Expr:
    """Coefficient of x^j in P_n(2x - 1)."""
    return (-1) ** (n - j) * sp.factorial(n + j) / (sp.factorial(j) ** 2 * sp.factorial(n - j))


def derive_legs_kernel(n: int | None = None) -> Derivation:
    """The kernels of LegS: exponentially warped Legendre polynomials.

    Args:
        n: output; None derives the kernel for general n.

    Returns:
        Derivation with `result` kernel (t) for a given n, coefficient (n, j) of e^{-(j+1)t} otherwise; proved.

    Raises:
        InputError: n is not an integer of at least 0.

    >>> derive_legs_kernel(n=0).result["kernel"], derive_legs_kernel().status
    (exp(-t), 'proved')
    """
    return _general_kernel() if n is None else _one_kernel(n)


def _general_kernel() -> Derivation:
    c = _legendre_coefficient()
    step = c.subs(j, j + 1) / c
    i = sp.Symbol("i", integer=True, nonnegative=True)

    def expanded(index: int) -> tuple[Any, Any]:
        x = sp.Symbol("x")
        found = sp.Poly(legendre(index, x), x).all_coeffs()[::-1]
        return found, [c.subs({n: index, j: power}) for power in range(index + 1)]

    def transformed(index: int) -> tuple[Any, Any]:
        kernel = sp.expand(sp.exp(-t) * legendre(index, sp.exp(-t)))
        return sp.laplace_transform(kernel, t, s, noconds=True), Y(index)

    return Derivation(
        title="Kernels of HiPPO-LegS",
        setting=_SETTING,
        statement=r"$e_n^T e^{tA} B = \sqrt{2n+1}\, e^{-t} P_n(2 e^{-t} - 1)$ for every $n$, independent of $N$.",
        source="arXiv 2206.12037 (LegS basis, exponentially warped Legendre polynomials).",
        result={"coefficient": c},
        steps=steps(
            (
                r"$X_n = \sqrt{2n+1}\, Y_n$ (transfer vector). $Y_n$ is strictly proper with simple poles $-(j+1)$, "
                r"$j \le n$; its "
                r"residue there needs $\prod_{k<n} (-(j+1)-k)$, $\prod_{k<j} (k-j)$ (index $j-k$) and "
                r"$\prod_{j<k\le n} (k-j)$ (index $k-j$).",
                (
                    ProductLaw(-(j + 1) - k, k, sp.Integer(0), n, (-1) ** n * sp.factorial(n + j) / sp.factorial(j)),
                    ProductLaw(-(i + 1), i, sp.Integer(0), j, (-1) ** j * sp.factorial(j)),
                    ProductLaw(i + 1, i, sp.Integer(0), m, sp.factorial(m)),
                ),
            ),
            (
                r"Hence the residue is $c_{nj} = (-1)^{n-j} \frac{(n+j)!}{j!^2 (n-j)!}$, and by partial fractions "
                r"the kernel is "
                r"$\sum_j c_{nj} e^{-(j+1)t}$.",
                Identity(
                    (-1) ** n
                    * sp.factorial(n + j)
                    / sp.factorial(j)
                    / ((-1) ** j * sp.factorial(j) * sp.factorial(n - j)),
                    c,
                ),
            ),
            (
                r"$L(x) = \sum_j c_{nj} x^j$ solves Legendre's equation $(x(1-x)L')' + n(n+1)L = 0$: its coefficient "
                r"of $x^j$ "
                r"vanishes.",
                (
                    Identity((j + 1) ** 2 * step - j * (j + 1) + n * (n + 1), sp.Integer(0)),
                    Identity(step, -(n + j + 1) * (n - j) / (j + 1) ** 2),
                ),
            ),
            (
                r"$L(1) = \sum_j c_{nj} = \lim_{s\to\infty} s Y_n(s) = 1$ (each factor $(s-k)/(s+k+1)$ and "
                r"$s/(s+n+1)$ tends to 1), "
                r"which singles out $L(x) = P_n(2x-1)$ among the polynomial solutions.",
                (
                    Tends((s - k) / (s + k + 1), s, sp.oo, sp.Integer(1)),
                    Tends(s / (s + n + 1), s, sp.oo, sp.Integer(1)),
                    Identity(s * Y(n), s / (s + n + 1) * phi(n)),
                ),
            ),
            (
                r"Second proof, in the time domain: the difference of rows $n+1$ and $n$ of $\dot y = A y$ is "
                r"$x(L_{n+1}' - L_n') = (n+1)(L_{n+1} + L_n)$ with $x = e^{-t}$; its coefficients agree.",
                Identity(j * (c.subs(n, n + 1) - c), (n + 1) * (c.subs(n, n + 1) + c)),
            ),
        ),
        confirmations=steps(
            (
                r"SymPy's own Legendre polynomials have these coefficients.",
                FiniteN("coefficients of P_n(2x-1)", expanded, (0, 1, 2, 5, 9)),
            ),
            (
                r"SymPy's own Laplace transform of the kernel is $Y_n$.",
                FiniteN("Laplace transform of e^{-t} P_n(2 e^{-t} - 1)", transformed, (0, 1, 3)),
            ),
        ),
    )


def _one_kernel(index: int) -> Derivation:
    if isinstance(index, bool) or not isinstance(index, int) or index < 0:
        raise InputError(f"n={index!r}: must be an integer of at least 0, or None for the kernel of general n")
    x = sp.Symbol("x")
    polynomial = legendre(index, x)
    coefficients = [polynomial.coeff(x, power) for power in range(index + 1)]
    root = sp.sqrt(2 * index + 1)
    kernel = root * sp.exp(-t) * sp.legendre(index, 2 * sp.exp(-t) - 1)
    residues = [sp.cancel(Y(index) * (s + power + 1)).subs(s, -(power + 1)) for power in range(index + 1)]
    kernels = [sp.expand(sp.exp(-t) * legendre(i, sp.exp(-t))) for i in range(index + 1)]
    flow = -(index + 1) * kernels[index] - sum((2 * i + 1) * kernels[i] for i in range(index))
    return Derivation(
        title=f"Kernel of HiPPO-LegS, output {index}",
        setting=_SETTING,
        statement=rf"$e_{{{index}}}^T e^{{tA}} B = {sp.latex(kernel)}$ for every $N > {index}$.",
        source="arXiv 2206.12037 (LegS basis, exponentially warped Legendre polynomials).",
        result={"kernel": kernel},
        steps=steps(
            (
                rf"The transfer function without $\sqrt{{{2 * index + 1}}}$ solves its row of $(s-A)X = B$.",
                Identity((s + index + 1) * Y(index) + sum((2 * i + 1) * Y(i) for i in range(index)), sp.Integer(1)),
            ),
            (
                r"Partial fractions: the residues at $-1, \dots, -(n+1)$ add up to the transfer function.",
                Identity(Y(index), sum(r / (s + power + 1) for power, r in enumerate(residues))),
            ),
            (
                r"The residues are the coefficients of the shifted Legendre polynomial.",
                tuple(Identity(r, value) for r, value in zip(residues, coefficients, strict=True)),
            ),
            (
                r"Back in time, $1/(s+j+1)$ is $e^{-(j+1)t}$: the kernel solves the differential equation with value "
                r"1 at 0.",
                (
                    Identity(sp.diff(kernels[index], t), sp.expand(flow)),
                    Identity(kernels[index].subs(t, 0), sp.Integer(1)),
                ),
            ),
            (
                r"With the scaling restored.",
                Identity(kernel, root * kernels[index]),
            ),
        ),
    )


def derive_phi_modulus() -> Derivation:
    """Moduli on the imaginary axis: |phi_N|, |X_n| and ||X||, for all n and N.

    Returns:
        Derivation with `result` phi2, x2 (one output), norm2 (all outputs) as functions of omega; proved.
    """
    x2 = omega**2 / ((omega**2 + n**2) * (omega**2 + (n + 1) ** 2))

    def direct(size: int) -> tuple[Any, Any]:
        at = sp.I * sp.Rational(5, 3)
        value = sp.prod([(at - i) / (at + i + 1) for i in range(size)])
        w2 = sp.Rational(25, 9)
        total = sum((2 * i + 1) * sp.expand(Y(i, at) * Y(i, -at)) for i in range(size))
        return [sp.expand(value * sp.conjugate(value)), total], [w2 / (w2 + size**2), size**2 / (w2 + size**2)]

    return Derivation(
        title="Moduli of phi_N and of the LegS transfer vector on the imaginary axis",
        setting=_SETTING,
        statement=r"$|\varphi_N(i\omega)|^2 = \omega^2/(\omega^2+N^2)$, "
        r"$|X_n(i\omega)|^2 = (2n+1)\omega^2/((\omega^2+n^2)(\omega^2+(n+1)^2))$ and "
        r"$\|X(i\omega)\|^2 = N^2/(\omega^2+N^2)$, for all $n < N$; so $\|X\|^2 + |\varphi_N|^2 = 1$.",
        result={
            "phi2": omega**2 / (omega**2 + N**2),
            "x2": (2 * n + 1) * x2,
            "norm2": N**2 / (omega**2 + N**2),
        },
        steps=steps(
            (
                r"On the axis $\overline{\varphi_N(s)} = \varphi_N(-s)$ because the coefficients are real. The product "
                r"$\varphi_N(s)\varphi_N(-s)$ telescopes.",
                (
                    ProductLaw(
                        (s - k) * (-s - k) / ((s + k + 1) * (-s + k + 1)), k, sp.Integer(0), N, s**2 / (s**2 - N**2)
                    ),
                    Identity((s**2 / (s**2 - N**2)).subs(s, sp.I * omega), omega**2 / (omega**2 + N**2)),
                ),
            ),
            (
                r"$Y_n = \varphi_n/(s+n+1)$, so the same product gives $|Y_n|^2$.",
                (
                    Identity(Y(n), phi(n) / (s + n + 1)),
                    Identity(
                        (s**2 / (s**2 - n**2) / ((s + n + 1) * (-s + n + 1))).subs(s, sp.I * omega),
                        x2,
                    ),
                ),
            ),
            (
                r"Summed over the outputs, $(2n+1)|Y_n|^2$ telescopes.",
                (
                    SumLaw(((2 * n + 1) * x2).subs(n, k), k, sp.Integer(0), N, N**2 / (omega**2 + N**2)),
                    Identity(N**2 / (omega**2 + N**2) + omega**2 / (omega**2 + N**2), sp.Integer(1)),
                ),
            ),
        ),
        confirmations=steps(
            (
                r"Direct multiplication of the factors at $\omega = 5/3$, in Gaussian rationals.",
                FiniteN("|phi_N|^2 and ||X||^2", direct, (1, 2, 3, 6, 9)),
            ),
        ),
    )


def derive_kernel_identity() -> Derivation:
    """X(z)^* X(w) = (1 - conj(phi(z)) phi(w)) / (1 + conj(z) + w) in the whole plane (linear.md item 3 generalised).

    Returns:
        Derivation with `result` norm2 (phi modulus squared p2, x = Re z); proved.
    """
    zbar, w, f, g, q = sp.symbols("zbar w f g q")  # f = phi(w), g = conj(phi(z)), q = x^* y
    row, column = sp.sqrt(2 * n + 1), sp.sqrt(2 * k + 1)

    def summed(size: int) -> tuple[Any, Any]:
        z, at = sp.Rational(2, 5), sp.Rational(-7, 3)
        value = sum((2 * i + 1) * Y(i, z) * Y(i, at) for i in range(size))
        return value, (1 - phi(size, z) * phi(size, at)) / (1 + z + at)

    return Derivation(
        title="Reproducing kernel of the LegS transfer vector",
        setting=_SETTING,
        statement=r"$X(z)^* X(w) = \frac{1 - \overline{\varphi_N(z)}\varphi_N(w)}{1 + \bar z + w}$ for all complex "
        r"$z, w$ that are no poles "
        r"and have $\bar z + w \ne -1$; hence $\|X(z)\|^2 = (|\varphi_N(z)|^2 - 1)/(-1 - 2\,\mathrm{Re}\, z)$.",
        result={"norm2": (1 - sp.Symbol("p2")) / (1 + 2 * sp.Symbol("x"))},
        steps=steps(
            (
                r"$A + A^T = -I - B B^T$, entry by entry: off the diagonal $-\sqrt{(2n+1)(2k+1)}$, on it $-2(n+1)$.",
                (Identity(-row * column, -(row * column)), Identity(-2 * (n + 1), -1 - row**2)),
            ),
            (
                r"With $x = X(z)$, $y = X(w)$: $x^*[(\bar z - A^T) + (w - A)]y = B^T y + x^* B$, and the bracket is "
                r"$(\bar z + w + 1) + B B^T$. With $B^T y = 1 - \varphi(w) = 1 - f$ and $x^* B = 1 - g$, solve for "
                r"$q = x^* y$.",
                Identity(
                    (zbar + w + 1) * q + (1 - g) * (1 - f) - (1 - f) - (1 - g),
                    (zbar + w + 1) * (q - (1 - g * f) / (1 + zbar + w)),
                ),
            ),
            (
                r"Independently, by telescoping over the outputs: $\sum_{k<N} (2k+1) Y_k(z) Y_k(w)$ for real "
                r"coefficients.",
                SumLaw(
                    (2 * k + 1) * Y(k, zbar) * Y(k, w),
                    k,
                    sp.Integer(0),
                    N,
                    (1 - phi(N, zbar) * phi(N, w)) / (1 + zbar + w),
                ),
            ),
        ),
        confirmations=steps(
            (r"Summed term by term at $z = 2/5$, $w = -7/3$.", FiniteN("sum of X_k(z) X_k(w)", summed, (1, 2, 5, 8))),
        ),
    )


def derive_s4d_quotient() -> Derivation:
    """S4D is LegS divided by 1 + phi_N (Lemma 1 of PTD in this normalisation).

    Returns:
        Derivation with `result` quotient (phi), gap (phi), H (phi); proved.
    """
    f, p = sp.symbols("phi p")

    def solved(size: int) -> tuple[Any, Any]:
        found = _legs_solution(size, 0, Fraction(1, 2), _POINT)
        point = sp.Rational(3, 7)
        return found, [Y(i, point) / (1 + phi(size, point)) for i in range(size)]

    def positive_real(size: int) -> tuple[Any, Any]:
        found = _legs_solution(size, 0, Fraction(1, 2), _POINT)
        value = phi(size, sp.Rational(3, 7))
        return sum((2 * i + 1) * x for i, x in enumerate(found)), (1 - value) / (1 + value)

    return Derivation(
        title="S4D is DPLR divided by 1 + phi_N",
        setting=_SETTING + r" S4D keeps $A_N$ and halves $B$.",
        statement=r"$(s - A_N)^{-1} B/2 = X(s)/(1 + \varphi_N(s))$. So for every $C$: "
        r"$G_{\mathrm{Diag}} = G/(1+\varphi_N)$, $G - G_{\mathrm{Diag}} = \varphi_N G_{\mathrm{Diag}}$, and "
        r"$H = \tfrac12 B^T (s - A_N)^{-1} B = (1-\varphi_N)/(1+\varphi_N)$.",
        source="arXiv 2310.01698, Lemma 1 (the paper's wording is unconfirmed; the normalisation is this toolkit's).",
        result={"quotient": 1 / (1 + f), "gap": f / (1 + f), "H": (1 - f) / (1 + f)},
        steps=steps(
            (
                r"$(s - A_N) X = (s - A) X - P (P^T X) = B\,(1 - \tfrac12 B^T X)$, and $B^T X = 1 - \varphi_N$ "
                r"(transfer vector): "
                r"the coefficient of $B$ is",
                Identity(1 - (1 - f) / 2, (1 + f) / 2),
            ),
            (
                r"So $X\cdot 2/(1+\varphi_N)$ solves the system with right-hand side $B$; half of it belongs to $B/2$.",
                Identity((1 + f) / 2 * (2 / (1 + f)) * sp.Rational(1, 2), sp.Rational(1, 2)),
            ),
            (
                r"The gap: $G - G/(1+\varphi_N)$.",
                (Identity(p - p / (1 + f), f * p / (1 + f)), Identity(p / (1 + f) - p, -f * p / (1 + f))),
            ),
            (
                r"$H = B^T$ times the S4D vector.",
                Identity((1 - f) / (1 + f), 2 / (1 + f) - 1),
            ),
            (
                r"$B^T X = 1 - \varphi_N$, by telescoping.",
                SumLaw((2 * k + 1) * Y(k), k, sp.Integer(0), N, 1 - phi(N)),
            ),
        ),
        confirmations=steps(
            ("Elimination with the normal part at s = 3/7.", FiniteN("S4D vector", solved, (1, 2, 3, 5, 8, 12))),
            ("The positive-real function at s = 3/7.", FiniteN("H", positive_real, (1, 2, 3, 5, 8))),
        ),
    )


def derive_s4d_residues() -> Derivation:
    """Kernel of S4D mode by mode, without an eigensolver: residues at the roots of 1 + phi_N.

    Returns:
        Derivation with `result` residue (Y, S), weight (S: squared component of B along an eigenvector); proved.
    """
    y, f, slope = sp.symbols("y phi phiprime")
    total, value = sp.symbols("S Y_n")
    at = -sp.Rational(1, 2) + sp.I * y
    half = k + sp.Rational(1, 2)
    small = sp.Symbol("epsilon")

    def partial_fractions(size: int) -> tuple[Any, Any]:
        # the roots of N = 2 and 3 are explicit: y^2 = 3/4 and y^2 = 23/4, zeros of the parts of prod (h_k + i v)
        height = {2: sp.sqrt(3) / 2, 3: sp.sqrt(23) / 2}[size]
        s_value = sum((i + sp.Rational(1, 2)) / (height**2 + (i + sp.Rational(1, 2)) ** 2) for i in range(size))
        point = sp.Rational(3, 7)
        roots = [sp.I * height, -sp.I * height]
        found = sum(Y(0, r - sp.Rational(1, 2)) / (2 * s_value) / (point - r + sp.Rational(1, 2)) for r in roots)
        if size == 3:  # the real root of odd N
            s_real = sum(1 / (i + sp.Rational(1, 2)) for i in range(size))
            found += Y(0, -sp.Rational(1, 2)) / (2 * s_real) / (point + sp.Rational(1, 2))
        return sp.nsimplify(sp.expand(sp.simplify(found))), Y(0, point) / (1 + phi(size, point))

    return Derivation(
        title="Residues of S4D",
        setting=_SETTING + r" Eigenvalues $\lambda_j = -\tfrac12 + iy_j$ of $A_N$, "
        r"$S(y) = \sum_{k<N}\frac{h_k}{y^2+h_k^2}$, $h_k = k+\tfrac12$.",
        statement=r"$K_{\mathrm{Diag},n}(t) = "
        r"\sum_j\frac{\sqrt{2n+1}\,Y_n(\lambda_j)}{2S(y_j)}e^{\lambda_jt}$, and "
        r"$|v_j^*B|^2 = 2/S(y_j)$ for unit eigenvectors.",
        result={"residue": value / (2 * total), "weight": 2 / total},
        steps=steps(
            (
                r"Logarithmic derivative: a factor of $\varphi_N$ contributes $\frac{1}{s-k} - \frac{1}{s+k+1}$, "
                r"which at $s = -\tfrac12+iy$ is "
                r"$-\frac{2h}{y^2+h^2}$. So $\varphi_N'/\varphi_N = -2S(y)$ there.",
                (
                    Identity(sp.diff((s - k) / (s + k + 1), s) * (s + k + 1) / (s - k), 1 / (s - k) - 1 / (s + k + 1)),
                    Identity(1 / (at - k) - 1 / (at + k + 1), -2 * half / (y**2 + half**2)),
                ),
            ),
            (
                r"At a root $\varphi_N = -1$, hence $\varphi_N' = 2S > 0$: the root is simple, and the residue of "
                r"$X_n/(1+\varphi_N)$ is $X_n/\varphi_N'$.",
                (
                    Identity((-2 * total * f).subs(f, -1), 2 * total),
                    Tends(small * value / (1 + (-1 + slope * small)), small, sp.Integer(0), value / slope),
                    Identity((value / slope).subs(slope, 2 * total), value / (2 * total)),
                ),
            ),
            (
                r"$H = (1-\varphi_N)/(1+\varphi_N) = \sum_j\tfrac12|v_j^*B|^2/(s-\lambda_j)$ has the residue "
                r"$2/\varphi_N' = 1/S$.",
                (
                    Identity((1 - f).subs(f, -1) / (2 * total), 1 / total),
                    Identity(2 * (1 / total), 2 / total),
                ),
            ),
        ),
        confirmations=steps(
            (
                r"The sum over the explicit roots of $N = 2$ and $N = 3$ at $s = 3/7$, $n = 0$.",
                FiniteN("partial fractions of X_0/(1 + phi)", partial_fractions, (2, 3)),
            ),
        ),
    )


def derive_characteristic_polynomials() -> Derivation:
    """Characteristic polynomials of LegS, of its normal part, and of every A_N - theta P P^T, with their root loci.

    Returns:
        Derivation with `result` legs, normal (N, s); proved modulo the matrix determinant lemma.
    """
    a, f, u, v = sp.symbols("a phi u v", real=True)
    theta = (1 - a) / (1 + a)
    half = k + sp.Rational(1, 2)

    def normal(size: int) -> tuple[Any, Any]:
        points = [Fraction(p, 3) for p in range(size + 1)]
        rows, _ = normal_integer(size)
        found = [determinant(shifted(rows, p)) for p in points]
        expected = [
            (
                sp.prod([sp.Rational(p.numerator, p.denominator) - i for i in range(size)])
                + sp.prod([sp.Rational(p.numerator, p.denominator) + i + 1 for i in range(size)])
            )
            / 2
            for p in points
        ]
        return found, expected

    return Derivation(
        title="Characteristic polynomials",
        setting=_SETTING + r" $A_a = A_N - \theta P P^T$ with $\theta = (1-a)/(1+a)$; $a=1$ is S4D, $a=0$ is LegS.",
        statement=r"$\det(s-A) = \prod_{k<N}(s+k+1)$, $\det(s-A_N) = \tfrac12[\prod_{k<N}(s-k) + "
        r"\prod_{k<N}(s+k+1)]$ and "
        r"$\det(s - A_a) = [\prod_{k<N}(s+k+1) + a\prod_{k<N}(s-k)]/(1+a)$. The roots for $a = 1$ lie on "
        r"$\mathrm{Re}\, s = -\tfrac12$, "
        r"those for $|a|<1$ strictly left of it.",
        result={
            "legs": rising(s + 1, N),
            "normal": (falling(s, N) + rising(s + 1, N)) / 2,
            "rho": (rising(s + 1, N) + sp.Symbol("a") * falling(s, N)) / (1 + sp.Symbol("a")),
        },
        steps=steps(
            (
                r"$s - A$ is triangular with diagonal $s+k+1$.",
                ProductLaw(s + k + 1, k, sp.Integer(0), N, rising(s + 1, N)),
            ),
            (
                r"$s - A_a = (s - A) - (1-\theta) P P^T$, so $\det(s-A_a) = \det(s-A)\,(1 - (1-\theta) P^T X_P)$ with "
                r"$P^T (s-A)^{-1} P = \tfrac12 B^T X = (1-\varphi)/2$.",
                Cited(
                    "matrix determinant lemma",
                    hypotheses=(
                        Identity(1 - (1 - theta) * (1 - f) / 2, (1 + a * f) / (1 + a)),
                        Identity((1 + a * f).subs(a, 1) / 2, (1 + f) / 2),
                    ),
                ),
            ),
            (
                r"Multiplied out, with $\varphi_N = \prod(s-k)/\prod(s+k+1)$.",
                Identity(
                    rising(s + 1, N) * (1 + a * phi(N)) / (1 + a),
                    (rising(s + 1, N) + a * falling(s, N)) / (1 + a),
                ),
            ),
            (
                r"Root locus: at $s = -\tfrac12 + u + iv$ every factor of $|\varphi_N|^2$ has numerator minus "
                r"denominator $-4u(k+\tfrac12)$. So "
                r"$|\varphi_N| < 1$ right of the line, $= 1$ on it, $> 1$ left of it, and $\varphi_N = -1/a$ with "
                r"$|a| < 1$ needs $u < 0$.",
                Identity((u - half) ** 2 + v**2 - (u + half) ** 2 - v**2, -4 * u * half),
            ),
        ),
        confirmations=steps(
            (
                "The determinant of the exact matrix at N + 1 points, which determine the polynomial.",
                FiniteN("det(s - A_N)", normal, (1, 2, 3, 5, 8)),
            ),
        ),
    )


def derive_spectrum_law() -> Derivation:
    """The exact equation for the spectrum of the normal part: an arctangent law.

    Returns:
        Derivation with `result` law (terms arctan((k+1/2)/y)); proved.
    """
    y = sp.Symbol("y", positive=True)
    half = k + sp.Rational(1, 2)
    positive = sp.Symbol("h", positive=True)  # k + 1/2

    def polynomial(size: int) -> tuple[Any, Any]:
        variable = sp.Symbol("v")
        at = -sp.Rational(1, 2) + sp.I * variable
        value = sp.expand(sp.prod([at - i for i in range(size)]) + sp.prod([at + i + 1 for i in range(size)]))
        product = sp.expand(sp.prod([sp.Rational(2 * i + 1, 2) + sp.I * variable for i in range(size)]))
        part = 2 * (sp.re(product) if size % 2 == 0 else sp.I * sp.im(product))
        real = sp.Symbol("v", real=True)
        return value.subs(variable, real), sp.expand_complex(part.subs(variable, real))

    return Derivation(
        title="Exact spectrum of the normal part of LegS",
        setting=_SETTING,
        statement=r"The eigenvalues of $A_N$ are $-\tfrac12 \pm i y$ with $\sum_{k<N} \arctan\frac{k+1/2}{y} = "
        r"(2m+1)\frac{\pi}{2}$, exactly one "
        r"$y = y_m > 0$ for each $m = 0, \dots, \lfloor N/2\rfloor - 1$, and $-\tfrac12$ itself when $N$ is odd.",
        source="Implies Conjecture 5 of arXiv 2206.11893 as remembered (its wording is unconfirmed); see the "
        "asymptotics.",
        result={"law": sp.Sum(sp.atan((k + sp.Rational(1, 2)) / sp.Symbol("y", positive=True)), (k, 0, N - 1))},
        steps=steps(
            (
                r"The eigenvalues are the roots of $1 + \varphi_N$, all on $s = -\tfrac12 + iv$ (characteristic "
                r"polynomials). There each factor "
                r"is unimodular: $\frac{s-k}{s+k+1} = -\frac{h - iv}{h + iv}$ with $h = k + \tfrac12$.",
                (
                    Identity(
                        (-sp.Rational(1, 2) + sp.I * y - k) / (-sp.Rational(1, 2) + sp.I * y + k + 1),
                        -(half - sp.I * y) / (half + sp.I * y),
                    ),
                    Identity((half - sp.I * y) * (half + sp.I * y), half**2 + y**2),
                ),
            ),
            (
                r"For $v = y > 0$ write $h + iy = r e^{i\beta}$ with $\tan\beta = y/h$; the factor is $-e^{-2i\beta} "
                r"= e^{2i(\pi/2 - \beta)}$ and "
                r"$\pi/2 - \beta = \arctan(h/y) =: \alpha$, because $e^{2i\alpha} = (y + ih)/(y - ih)$.",
                Identity(-(positive - sp.I * y) / (positive + sp.I * y), (y + sp.I * positive) / (y - sp.I * positive)),
            ),
            (
                r"So $\varphi_N = e^{2i\Theta(y)}$ with $\Theta = \sum_k \arctan(h_k/y)$, which decreases strictly "
                r"from $N\pi/2$ at $y \to 0$ to $0$ at "
                r"$y \to \infty$. $\varphi_N = -1$ means $\Theta = (2m+1)\pi/2$: one $y$ for each odd $2m+1 < N$, "
                r"that is "
                r"$\lfloor N/2 \rfloor$ of them.",
                (
                    Identity(sp.diff(sp.atan(positive / y), y), -positive / (y**2 + positive**2)),
                    Tends(sp.atan(positive / y), y, sp.oo, sp.Integer(0)),
                    Tends(
                        sp.atan(positive * sp.Symbol("x", positive=True)),
                        sp.Symbol("x", positive=True),
                        sp.oo,
                        sp.pi / 2,
                    ),
                    NonNegative(positive / (y**2 + positive**2), sp.Integer(0), positive / (y**2 + positive**2)),
                ),
            ),
            (
                r"With the conjugates these are $2\lfloor N/2\rfloor$ roots; for odd $N$ the missing one is $s = "
                r"-\tfrac12$, where "
                r"each factor is $-1$.",
                Identity(
                    (-sp.Rational(1, 2) - k) / (-sp.Rational(1, 2) + k + 1),
                    sp.Integer(-1),
                ),
            ),
        ),
        confirmations=steps(
            (
                r"On the line, $2\det(s - A_N)$ is twice the real (even $N$) or imaginary part of $\prod(h_k + iv)$: "
                r"its zeros are those of "
                r"$\cos$ or $\sin$ of $\sum\arctan(v/h_k)$.",
                FiniteN("characteristic polynomial on the line", polynomial, (1, 2, 3, 4, 5)),
            ),
        ),
    )


def derive_spectrum_asymptotics() -> Derivation:
    """y_m = N^2/c - c/6 + c (2 c^2 + 15)/(180 N^2) - c^3 (11 c^2 + 210)/(7560 N^4) + O(N^{-6}) with c = (2m+1) pi.

    The third and fourth coefficients in closed form; the third is 0.60631... for m = 0, seen numerically before.

    Returns:
        Derivation with `result` expansion (N, m), third and fourth (m: coefficients of N^{-2} and N^{-4}); proved.

    >>> round(derive_spectrum_asymptotics().lower("third", m=0), 6)
    0.606314
    """
    c, x = sp.symbols("c x", positive=True)  # x = 1/N^2
    z = sp.Symbol("z", positive=True)
    half = k + sp.Rational(1, 2)
    sums = {
        1: N**2 / 2,
        3: N**2 * (2 * N**2 - 1) / 8,
        5: N**2 * (16 * N**4 - 20 * N**2 + 7) / 96,
        7: N**2 * (48 * N**6 - 112 * N**4 + 98 * N**2 - 31) / 384,
        9: N**2 * (256 * N**8 - 960 * N**6 + 1568 * N**4 - 1240 * N**2 + 381) / 2560,
    }
    third = c * (2 * c**2 + 15) / 180
    fourth = -(c**3) * (11 * c**2 + 210) / 7560
    scaled = sp.expand(c * x * (1 / (c * x) - c / 6 + third * x + fourth * x**2))  # y = scaled/(c x), scaled = 1 + O(x)
    # sum_k h_k^p / (p y^p) as a rational function of x, each of order x^{(p-1)/2}
    term = {
        p: sp.expand(value.subs(N, 1 / sp.sqrt(x)) * x ** ((p + 1) // 2)) * c**p * x ** (p // 2) / (p * scaled**p)
        for p, value in sums.items()
    }
    part = {p: sp.cancel(value * scaled**p) for p, value in term.items()}  # polynomials in x and c
    signed = part[1] * scaled**6 - part[3] * scaled**4 + part[5] * scaled**2 - part[7]
    residual = sp.expand(signed - c / 2 * scaled**7) / scaled**7
    at = (2 * m + 1) * sp.pi
    return Derivation(
        title="Asymptotic spectrum of the normal part of LegS",
        setting=_SETTING + r" $c = (2m+1)\pi$ with $m$ fixed.",
        statement=r"$y_m = \frac{N^2}{c} - \frac{c}{6} + \frac{c(2c^2+15)}{180 N^2} - \frac{c^3(11c^2+210)}{7560 "
        r"N^4} + O(N^{-6})$.",
        source="Sharpens Conjecture 5 of arXiv 2206.11893 (wording unconfirmed): pi/6 enters with a minus sign.",
        result={
            "expansion": N**2 / at - at / 6 + third.subs(c, at) / N**2 + fourth.subs(c, at) / N**4,
            "third": third.subs(c, at),
            "fourth": fourth.subs(c, at),
        },
        steps=steps(
            (
                r"Power sums of $h_k = k + \tfrac12$ (induction on $N$).",
                tuple(SumLaw(half**p, k, sp.Integer(0), N, value) for p, value in sums.items()),
            ),
            (
                r"For $z \ge 0$, with $T_7 = z - z^3/3 + z^5/5 - z^7/7$: $T_7 \le \arctan z \le T_7 + z^9/9$. The "
                r"differences vanish at 0 and "
                r"have the derivatives $z^8/(1+z^2)$ and $z^{10}/(1+z^2)$.",
                (
                    NonNegative(1 / (1 + z**2), 1 - z**2 + z**4 - z**6, z**8 / (1 + z**2)),
                    NonNegative(1 - z**2 + z**4 - z**6 + z**8, 1 / (1 + z**2), z**10 / (1 + z**2)),
                    Identity(sp.diff(z - z**3 / 3 + z**5 / 5 - z**7 / 7, z), 1 - z**2 + z**4 - z**6),
                    Identity(sp.diff(z**9 / 9, z), z**8),
                ),
            ),
            (
                r"At the trial value $y = \sigma/(cx)$ of the statement, $x = N^{-2}$, the law $\sum_k\arctan(h_k/y) "
                r"= c/2$ is met up to $O(x^4)$: "
                r"the sum of $T_7$ minus $c/2$ vanishes faster than $x^3$, and the sum of $z^9/9$ is of order $x^4$.",
                (
                    Identity(scaled / (c * x), 1 / (c * x) - c / 6 + third * x + fourth * x**2),
                    *(Identity(term[p], (sums[p] / p).subs(N, 1 / sp.sqrt(x)) * (c * x / scaled) ** p) for p in sums),
                    Tends(residual / x**3, x, sp.Integer(0), sp.Integer(0)),
                    Tends(term[9] / x**4, x, sp.Integer(0), c**9 / 90),
                ),
            ),
            (
                r"The slope of the law in $y$ lies between $-N^2/(2y^2)$ and $-N^2/(2(y^2+N^2))$, which both are "
                r"$-\tfrac12 c^2 x\,(1+o(1))$: an "
                r"error of $O(x^4)$ in the law is an error of $O(x^3)$ in $y$.",
                (
                    Tends(c**2 / (2 * scaled**2), x, sp.Integer(0), c**2 / 2),
                    Tends(c**2 / (2 * (scaled**2 + c**2 * x)), x, sp.Integer(0), c**2 / 2),
                    Identity(c**2 / (2 * scaled**2), 1 / (2 * x * (scaled / (c * x)) ** 2) / x),
                ),
            ),
        ),
        confirmations=steps(
            (
                r"The root of the law itself at $N = 64$, $m = 0$ (tolerance: the next term, $O(N^{-6})$ with a "
                r"coefficient below 10).",
                Numeric("y_0(64)", _top_eigenvalue_64, 1.5e-10),
            ),
        ),
    )


def _top_eigenvalue_64() -> tuple[complex, complex]:
    """(error of four terms of the expansion against the root of the arctangent law, 0) at N = 64, m = 0."""
    import mpmath

    with mpmath.workdps(30):
        law = lambda y: sum(mpmath.atan((i + mpmath.mpf(1) / 2) / y) for i in range(64)) - mpmath.pi / 2  # noqa: E731
        root, c = mpmath.findroot(law, 1303), mpmath.pi
        trial = 64**2 / c - c / 6 + c * (2 * c**2 + 15) / (180 * 64**2) - c**3 * (11 * c**2 + 210) / (7560 * 64**4)
        return complex(root - trial), 0.0


def derive_contractivity() -> Derivation:
    """LegS is contractive: numerical abscissa -1/2, no transient growth, Kreiss constant 1.

    Returns:
        Derivation with `result` norm_bound (t); proved modulo named theorems.
    """
    b, g, r, x = sp.symbols("b g r x", positive=True)
    row, column = sp.sqrt(2 * n + 1), sp.sqrt(2 * k + 1)
    return Derivation(
        title="LegS is contractive although its eigenvectors are not",
        setting=_SETTING,
        statement=r"$A + A^T = -I - B B^T$ and $A_N + A_N^T = -I$. For $N \ge 2$ the numerical abscissa of $A$ is "
        r"$-\tfrac12$; "
        r"$\|e^{tA}\| \le e^{-t/2}$, $\|(s-A)^{-1}\| \le 1/(\mathrm{Re}\, s + \tfrac12)$ for $\mathrm{Re}\, s > "
        r"-\tfrac12$, and the Kreiss constant is 1.",
        result={"norm_bound": sp.exp(-t / 2)},
        steps=steps(
            (
                r"Entries of $A + A^T$: $-\sqrt{(2n+1)(2k+1)} = -B_n B_k$ off the diagonal, $-2(n+1) = -1 - B_n^2$ "
                r"on it.",
                (
                    Identity(-row * column, -(sp.sqrt(2 * n + 1) * sp.sqrt(2 * k + 1))),
                    Identity(-2 * (n + 1), -1 - row**2),
                ),
            ),
            (
                r"$A_N = A + \tfrac12 B B^T$: the rank-one part cancels from $A_N + A_N^T$.",
                Identity(-1 - b * g + 2 * b * g / 2, sp.Integer(-1)),
            ),
            (
                r"So $\mathrm{Re}\, x^* A x = -\tfrac12 \|x\|^2 - \tfrac12 |B^T x|^2 \le -\tfrac12\|x\|^2$, with "
                r"equality for $x \perp B$, which exists "
                r"for $N \ge 2$. For a solution, $\frac{d}{dt} \|x\|^2 = 2\,\mathrm{Re}\, x^*Ax \le -\|x\|^2$, and "
                r"$e^{t}\|x\|^2$ does not increase.",
                (
                    NonNegative(-r / 2, -r / 2 - g / 2, g / 2),
                    Identity(sp.diff(sp.exp(t) * sp.exp(-t / 2) ** 2, t), sp.Integer(0)),
                ),
            ),
            (
                r"Resolvent: $\|(s-A)x\|\,\|x\| \ge \mathrm{Re}\, x^*(s-A)x \ge (\mathrm{Re}\, s + \tfrac12)\|x\|^2$.",
                Cited(
                    "Cauchy-Schwarz inequality",
                    hypotheses=(NonNegative((x + sp.Rational(1, 2)) * r + g / 2, (x + sp.Rational(1, 2)) * r, g / 2),),
                ),
            ),
            (
                r"Kreiss constant $\sup_{\mathrm{Re}\, s > 0} \mathrm{Re}\, s\,\|(s-A)^{-1}\|$: at most "
                r"$x/(x+\tfrac12) \le 1$, and it tends to 1 as "
                r"$s \to +\infty$ for every matrix.",
                (
                    NonNegative(sp.Integer(1), x / (x + sp.Rational(1, 2)), 1 / (2 * x + 1)),
                    Tends(x / (x + sp.Rational(1, 2)), x, sp.oo, sp.Integer(1)),
                ),
            ),
        ),
        confirmations=steps(
            (
                "The integer matrix, root-free: D A D^{-1} + its mirror is -I - B B^T in the metric diag(2n+1).",
                FiniteN("A + A^T", _symmetric_part, (1, 2, 5, 9)),
            ),
        ),
    )


def _symmetric_part(size: int) -> tuple[Any, Any]:
    rows, _ = legs_integer(size)
    # M = diag(2n+1) is the metric of the root-free coordinates: M A + A^T M = -M - (M 1)(M 1)^T
    weight = [2 * i + 1 for i in range(size)]
    found = [weight[r] * rows[r][c] + rows[c][r] * weight[c] for r in range(size) for c in range(size)]
    expected = [-(weight[r] if r == c else 0) - weight[r] * weight[c] for r in range(size) for c in range(size)]
    return found, expected


def derive_gramian() -> Derivation:
    """Controllability Gramian of LegS: (I + Jacobi matrix of the Legendre polynomials)/2.

    Returns:
        Derivation with `result` diagonal, off (n); proved for all N.
    """
    p = sp.Symbol("p", integer=True, positive=True)  # a row index of at least 1
    off = lambda i: (i + 1) / (2 * (2 * i + 1) * (2 * i + 3))  # noqa: E731  (root-free W_{i,i+1})
    diag = lambda i: 1 / (2 * (2 * i + 1))  # noqa: E731
    c = _legendre_coefficient()
    lead = sp.binomial(2 * n, n)

    def lyapunov(size: int) -> tuple[Any, Any]:
        rows, _ = legs_integer(size)
        inner = [
            [
                Fraction(1, 2 * (2 * r + 1))
                if r == q
                else Fraction(min(r, q) + 1, 2 * (2 * r + 1) * (2 * q + 1))
                if abs(r - q) == 1
                else Fraction(0)
                for q in range(size)
            ]
            for r in range(size)
        ]
        product = quadratic([[Fraction(value) for value in row] for row in rows], inner)
        return [value for row in product for value in row], [-1] * size**2

    def nodes(size: int) -> tuple[Any, Any]:
        x = sp.Symbol("x")
        before, now = sp.Integer(0), sp.Integer(1)
        for i in range(size):
            square = sp.Rational(i * i, 4 * (2 * i - 1) * (2 * i + 1)) if i else sp.Integer(0)
            before, now = now, sp.expand((x - sp.Rational(1, 2)) * now - square * before)
        return now, legendre(size, x) / sp.binomial(2 * size, size)

    return Derivation(
        title="Gramian of LegS in Jacobi form",
        setting=_SETTING + r" $W = \int_0^\infty e^{tA} B B^T e^{tA^T} dt$.",
        statement=r"$W = (I + J_N)/2$ with the Jacobi matrix of the Legendre polynomials: $W_{nn} = \tfrac12$, "
        r"$W_{n,n+1} = \frac{n+1}{2\sqrt{(2n+1)(2n+3)}}$, all else 0. Its eigenvalues are the Gauss-Legendre nodes "
        r"on $[0,1]$.",
        result={"diagonal": sp.Rational(1, 2), "off": (n + 1) / (2 * sp.sqrt((2 * n + 1) * (2 * n + 3)))},
        steps=steps(
            (
                r"Root-free: $w_{nm} = W_{nm}/\sqrt{(2n+1)(2m+1)}$.",
                (
                    Identity(sp.Rational(1, 2) / (sp.sqrt(2 * n + 1) * sp.sqrt(2 * n + 1)), diag(n)),
                    Identity(
                        (n + 1)
                        / (2 * sp.sqrt(2 * n + 1) * sp.sqrt(2 * n + 3))
                        / (sp.sqrt(2 * n + 1) * sp.sqrt(2 * n + 3)),
                        off(n),
                    ),
                ),
            ),
            (
                r"Lyapunov equation $A w + w A^T = -\mathbf 1 \mathbf 1^T$, entry $(n, m)$ with $m \le n-2$: row $n$ "
                r"meets the whole column $m$ below "
                r"the diagonal (for $m = 0$ the first summand vanishes), row $m$ does not meet column $n$.",
                Identity(-((2 * m - 1) * off(m - 1) + (2 * m + 1) * diag(m) + (2 * m + 3) * off(m)), sp.Integer(-1)),
            ),
            (
                r"Entry $(p, p-1)$: the diagonal of row $p$ meets $w_{p,p-1}$, and row $p-1$ meets $w_{p-1,p}$.",
                Identity(
                    -((2 * p - 3) * off(p - 2) + (2 * p - 1) * diag(p - 1) + (p + 1) * off(p - 1)) - p * off(p - 1),
                    sp.Integer(-1),
                ),
            ),
            (
                r"Entry $(n, n)$, twice the same sum. No entry uses a row beyond $n$, so the last row $N-1$ is no "
                r"exception.",
                Identity(-2 * ((2 * n - 1) * off(n - 1) + (n + 1) * diag(n)), sp.Integer(-1)),
            ),
            (
                r"$A$ is triangular with negative diagonal, so $W$ is the only solution: the map $w \mapsto A w + w "
                r"A^T$ has eigenvalues "
                r"$-(n+1)-(m+1) < 0$.",
                NonNegative(sp.Integer(-1), -(n + 1) - (m + 1), n + m + 1),
            ),
            (
                r"Eigenvalues: the coefficients $c_{nj}$ of $P_n(2x-1)$ obey $(n+1)P_{n+1} = (2n+1)(2x-1)P_n - "
                r"nP_{n-1}$.",
                Identity(
                    (n + 1) * c.subs(n, n + 1),
                    (2 * n + 1) * (2 * c.subs(j, j - 1) - c) - n * c.subs(n, n - 1),
                ),
            ),
            (
                r"Divided by the leading coefficients $\binom{2n}{n}$ this is $p_{n+1} = (x - \tfrac12)p_n - "
                r"W_{n-1,n}^2 p_{n-1}$, the recurrence of the "
                r"characteristic polynomials of the leading minors of $W$ (expansion along the last row).",
                (
                    Identity(2 * (2 * n + 1) / (n + 1) * lead, lead.subs(n, n + 1)),
                    Identity(
                        n / (n + 1) * lead.subs(n, n - 1) / lead.subs(n, n + 1),
                        (n / (2 * sp.sqrt(2 * n - 1) * sp.sqrt(2 * n + 1))) ** 2,
                    ),
                ),
            ),
        ),
        confirmations=steps(
            (
                "The Lyapunov equation with the integer matrix of LegS.",
                FiniteN("A w + w A^T", lyapunov, (1, 2, 3, 8, 13)),
            ),
            (
                "The three-term recurrence ends at SymPy's Legendre polynomial.",
                FiniteN("characteristic polynomial of W", nodes, (1, 2, 5, 8)),
            ),
        ),
    )
