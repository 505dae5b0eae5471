"""Pseudospectra, numerical range, Kreiss constant and transient growth.

The eps-pseudospectrum of A is where the resolvent norm exceeds 1/eps: sigma_min(z I - A) < eps. Non-normal matrices can
behave for a long time as if their eigenvalues were anywhere in it, and need not: for HiPPO-LegS the Kreiss constant is
exactly 1 although its eigenvectors are as good as dependent.

References:
    L. N. Trefethen, M. Embree, Spectra and Pseudospectra, Princeton (2005): definitions, the Kreiss matrix theorem.
    J. V. Burke, A. S. Lewis, M. L. Overton, Robust stability and a criss-cross algorithm for pseudospectra, IMA Journal
    of Numerical Analysis 23 (2003): the abscissa. E. Mengi, M. L. Overton, IMA Journal of Numerical Analysis 25 (2005):
    the radius. Here crossings are told by singular values, not by a tolerance on eigenvalues.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.lti.base import LTI, as_complex
from ssmtheory.lti.errors import UnstableSystem
from ssmtheory.lti.solve import shifted_solve
from ssmtheory.typing import Array

__all__ = [
    "KreissConstant",
    "Portrait",
    "PseudospectralExtreme",
    "TransientBound",
    "kreiss_constant",
    "numerical_abscissa",
    "numerical_radius",
    "numerical_range",
    "portrait",
    "pseudospectral_abscissa",
    "pseudospectral_radius",
    "smallest_singular_value",
    "stability_radius",
    "transient_bound",
    "transient_growth",
]


@dataclass(frozen=True)
class Portrait:
    """Resolvent norms over a rectangle: what a pseudospectrum plot contours.

    Attributes:
        x: (nx,) real parts.
        y: (ny,) imaginary parts.
        smallest: (ny, nx) sigma_min(z I - A), the eps whose pseudospectrum's boundary passes through z.
        eigenvalues: (N,).
        boundary: (k,) boundary of the numerical range.
    """

    x: Array
    y: Array
    smallest: Array
    eigenvalues: Array
    boundary: Array


@dataclass(frozen=True)
class PseudospectralExtreme:
    """The rightmost, or farthest, point of a pseudospectrum.

    Attributes:
        value: pseudospectral abscissa, or radius.
        point: a point of the pseudospectrum that reaches it.
        epsilon: the eps.
        iterations: pairs of searches.
    """

    value: float
    point: complex
    epsilon: float
    iterations: int

    def __float__(self) -> float:
        return self.value


@dataclass(frozen=True)
class KreissConstant:
    """Kreiss constant with a bracket.

    Attributes:
        value: largest quotient found; equal to `lower`.
        lower: lower end.
        upper: upper end.
        point: where the quotient is reached; inf where the supremum is the limit 1 far out.
    """

    value: float
    lower: float
    upper: float
    point: complex

    def __float__(self) -> float:
        return self.value


@dataclass(frozen=True)
class TransientBound:
    """What the Kreiss matrix theorem and the numerical range say of sup ||exp(tA)|| (or sup ||A^k||).

    Attributes:
        lower: lower bound of the supremum, the Kreiss constant.
        upper: upper bound, e N times the Kreiss constant, or 1 for a contraction.
        initial_growth: numerical abscissa (1/s): the slope of ||exp(tA)|| at 0; numerical radius in discrete time.
        decay: spectral abscissa (1/s), or spectral radius: the rate in the end.
    """

    lower: float
    upper: float
    initial_growth: float
    decay: float


def _matrix(A: Any) -> Array:
    """State matrix of a system, or a square matrix."""
    if isinstance(A, LTI):
        return A.to_dense().A
    A = as_complex("A", A)
    if A.ndim != 2 or A.shape[0] != A.shape[1] or A.shape[0] == 0:
        raise InputError(f"A has shape {A.shape}: must be square, (N, N) with N >= 1")
    return A


def _epsilon(epsilon: Any) -> float:
    if not 0 < float(epsilon) < math.inf:
        raise InputError(f"epsilon={epsilon!r}: must be > 0")
    return float(epsilon)


def _schur(A: Array) -> Array:
    """Triangular factor alone; singular values do not see the unitary one."""
    if not np.tril(A, -1).any():
        return A
    if not np.triu(A, 1).any():
        return A[::-1, ::-1]
    from scipy.linalg import schur

    return schur(A, output="complex")[0]


def smallest_singular_value(A: Any, z: complex | Array) -> Array:
    """sigma_min(z I - A) at points z: one Schur form, then inverse Lanczos at all points together.

    Args:
        A: (N, N), or a system.
        z: (...,) complex points.

    Returns:
        (...,) float64, relative accuracy about 1e-8 or better, absolute about eps ||A||.
    """
    z = np.asarray(z, dtype=np.complex128)
    return _smallest(_schur(_matrix(A)), z.reshape(-1)).reshape(z.shape)


def _smallest(T: Array, z: Array) -> Array:
    n = T.shape[0]
    out = np.empty(z.size)
    block = max(1, 2**21 // (n * max(n, 16) if n <= 24 else n * 64))
    for start in range(0, z.size, block):
        part = z[start : start + block]
        if n <= 24:
            shifted = part[:, None, None] * np.eye(n) - T
            out[start : start + block] = np.linalg.svd(shifted, compute_uv=False)[:, -1]
        else:
            out[start : start + block] = _inverse_lanczos(T, part)
    return out


def _inverse_lanczos(T: Array, z: Array, tol: float = 1e-9, most: int = 100) -> Array:
    """sigma_min(z I - T) for upper triangular T by Lanczos on ((z - T)* (z - T))^{-1}."""
    n, adjoint = T.shape[0], np.ascontiguousarray(T.conj().T)
    result = np.zeros(z.size)
    exact = (z[:, None] == np.diag(T)).any(axis=1)
    active = np.flatnonzero(~exact)
    rng = np.random.default_rng(0)
    start = rng.standard_normal(n) + 1j * rng.standard_normal(n)
    q = np.repeat((start / np.linalg.norm(start))[:, None], active.size, axis=1)
    before, beta = np.zeros_like(q), np.zeros(active.size)
    alphas: list[Array] = []
    betas: list[Array] = []
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for step in range(min(most, 4 * n)):
            w = shifted_solve(adjoint, q[:, :, None], z[active].conj(), lower=True)
            w = shifted_solve(T, w, z[active])[:, :, 0] - beta * before
            alpha = np.einsum("nk,nk->k", q.conj(), w).real
            w -= alpha * q
            alphas.append(alpha)
            following = np.linalg.norm(w, axis=0)
            lost = ~(np.isfinite(alpha) & np.isfinite(following))
            size = len(alphas)
            tri = np.zeros((active.size, size, size))
            for i in range(size):
                tri[:, i, i] = np.where(lost, 1.0, alphas[i])
                if i:
                    tri[:, i, i - 1] = tri[:, i - 1, i] = np.where(lost, 0.0, betas[i - 1])
            values, vectors = np.linalg.eigh(tri)
            top = np.maximum(values[:, -1], 0)
            residual = following * np.abs(vectors[:, -1, -1])
            done = (residual <= tol * top) | (following == 0) | lost
            if step == min(most, 4 * n) - 1:
                done[:] = True
            # beyond the range of doubles the resolvent is infinite
            result[active] = np.where(lost, 0.0, 1 / np.sqrt(np.maximum(top, 1e-300)))
            keep = ~done
            if not keep.any():
                break
            beta = following[keep]
            betas = [b[keep] for b in betas] + [beta]
            alphas = [a[keep] for a in alphas]
            before, q = q[:, keep], w[:, keep] / beta
            active = active[keep]
    return result


def portrait(
    A: Any,
    x: tuple[float, float] | None = None,
    y: tuple[float, float] | None = None,
    points: int = 100,
) -> Portrait:
    """sigma_min(z I - A) over a rectangle of the complex plane.

    Args:
        A: (N, N), or a system.
        x: range of real parts; None for the eigenvalues' with a margin.
        y: range of imaginary parts; None likewise.
        points: points along each axis.

    Returns:
        `Portrait`.

    Raises:
        InputError: ranges that are not increasing, or fewer than 2 points.
    """
    A = _matrix(A)
    if points < 2:
        raise InputError(f"points={points}: must be at least 2")
    eigenvalues = np.linalg.eigvals(A)
    spread = max(np.ptp(eigenvalues.real), np.ptp(eigenvalues.imag), 1e-3 * float(np.abs(eigenvalues).max()) or 1.0)
    axes = []
    for name, given, part in (("x", x, eigenvalues.real), ("y", y, eigenvalues.imag)):
        low, high = (part.min() - spread / 3, part.max() + spread / 3) if given is None else given
        if not low < high:
            raise InputError(f"{name}={given!r}: must be (low, high) with low < high")
        axes.append(np.linspace(low, high, points))
    grid = axes[0][None, :] + 1j * axes[1][:, None]
    return Portrait(axes[0], axes[1], smallest_singular_value(A, grid), eigenvalues, numerical_range(A))


# -- numerical range


def numerical_range(A: Any, points: int = 128) -> Array:
    """Boundary of the numerical range {x* A x: ||x|| = 1}.

    Args:
        A: (N, N), or a system.
        points: directions in which the range is touched.

    Returns:
        (points,) complex128, counter-clockwise; the convex hull is inside the range.
    """
    A = _matrix(A)
    out = np.empty(points, dtype=np.complex128)
    for k, angle in enumerate(2 * np.pi * np.arange(points) / points):
        turned = np.exp(-1j * angle) * A
        vector = np.linalg.eigh(turned + turned.conj().T)[1][:, -1]
        out[k] = np.vdot(vector, A @ vector)
    return out


def numerical_abscissa(A: Any) -> float:
    """Largest eigenvalue of the Hermitian part (A + A*)/2, in 1/s: the slope of ||exp(tA)|| at t = 0.

    Args:
        A: (N, N), or a system.

    >>> numerical_abscissa([[-1, 4], [0, -1]])
    1.0
    """
    A = _matrix(A)
    return float(np.linalg.eigvalsh((A + A.conj().T) / 2)[-1])


def numerical_radius(A: Any) -> float:
    """Largest modulus in the numerical range, by its level sets; between ||A||/2 and ||A||.

    Args:
        A: (N, N), or a system.
    """
    A = _matrix(A)

    def support(angles: Array) -> Array:
        turned = np.exp(-1j * angles)[:, None, None] * A
        return np.linalg.eigvalsh((turned + turned.conj().swapaxes(1, 2)) / 2)[:, -1]

    n = A.shape[0]
    angles = 2 * np.pi * np.arange(8) / 8
    best = float(support(angles).max())
    for _ in range(50):
        # the support takes a value c at angle a where z = exp(i a) makes z^2 A* - 2 c z + A singular
        level = best * (1 + 1e-13)
        from scipy.linalg import eigvals

        left = np.block([[np.zeros((n, n)), np.eye(n)], [-A, 2 * level * np.eye(n)]])
        right = np.block([[np.eye(n), np.zeros((n, n))], [np.zeros((n, n)), A.conj().T]])
        roots = eigvals(left, right)
        roots = roots[np.isfinite(roots) & (np.abs(roots) > 1e-8)]
        cut = np.unique(np.angle(roots))
        if cut.size == 0:
            break
        middle = (cut + np.append(cut[1:], cut[0] + 2 * np.pi)) / 2
        found = float(support(np.concatenate([cut, middle])).max())
        if found <= best * (1 + 1e-12):
            best = max(best, found)
            break
        best = found
    return best


# -- criss-cross


def _farthest_on_line(A: Array, epsilon: float) -> float:
    """Largest real x with sigma_min(x I - A) = epsilon, polished by Newton's method; -inf without one."""
    n = A.shape[0]
    eye = epsilon * np.eye(n)
    candidates = np.linalg.eigvals(np.block([[A.conj().T, -eye], [-eye, A]]))
    scale = float(np.abs(candidates).max())
    near = np.abs(candidates.imag) <= 1e-4 * max(scale, 1e-300)
    for x in np.sort(candidates.real[near])[::-1]:
        found = _newton(A, float(x), epsilon)
        if found is not None:
            return found
    return -math.inf


def _newton(A: Array, x: float, epsilon: float) -> float | None:
    start, scale = x, max(abs(x), epsilon)
    for _ in range(20):
        u, s, vh = np.linalg.svd(x * np.eye(A.shape[0]) - A)
        gap = s[-1] - epsilon
        if abs(gap) <= 1e-12 * epsilon + 4 * np.finfo(float).eps * s[0]:
            return x
        slope = np.vdot(u[:, -1], vh[-1].conj()).real
        if abs(slope) < 1e-12:
            return None
        step = gap / slope
        if abs(step) > 0.1 * scale:
            return None
        x -= step
        if abs(x - start) > 0.1 * scale:
            return None
    return x if abs(gap) <= 1e-6 * epsilon else None


def _inside(cut: Array, place: Callable[[Array], Array], T: Array, epsilon: float) -> list[float]:
    """Middles of the stretches between `cut` points of a curve that lie inside the pseudospectrum."""
    if cut.size < 2:
        return []
    middle = (cut[1:] + cut[:-1]) / 2
    inside = _smallest(T, place(middle)) < epsilon * (1 - 1e-9)
    found, k = [], 0
    while k < middle.size:
        if inside[k]:
            first = k
            while k + 1 < middle.size and inside[k + 1]:
                k += 1
            found.append(float((cut[first] + cut[k + 1]) / 2))
        k += 1
    return found


def _on_line(x: float, y: Array) -> Array:
    return x + 1j * y


def _on_circle(radius: float, angle: Array) -> Array:
    return radius * np.exp(1j * angle)


def pseudospectral_abscissa(A: Any, epsilon: float, tol: float = 1e-10) -> PseudospectralExtreme:
    """Largest real part in the epsilon-pseudospectrum, by the criss-cross algorithm; globally convergent.

    Args:
        A: (N, N), or a system.
        epsilon: > 0.
        tol: relative step at which to stop.

    Returns:
        `PseudospectralExtreme`.

    Raises:
        InputError: an epsilon that is not positive.

    >>> round(pseudospectral_abscissa([[0, 1], [0, 0]], 0.5).value, 10)    # sqrt(eps^2 + eps)
    0.8660254038
    """
    A, epsilon = _matrix(A), _epsilon(epsilon)
    n, T = A.shape[0], _schur(A)
    eye, shift = epsilon * np.eye(n), np.eye(n)

    def across(y: float) -> float:
        return _farthest_on_line(A - 1j * y * shift, epsilon)

    eigenvalues = np.linalg.eigvals(A)
    order = np.argsort(-eigenvalues.real)[:1]
    x, y = max((across(float(e.imag)), float(e.imag)) for e in eigenvalues[order])
    if not math.isfinite(x):
        x = float(eigenvalues.real.max())
    for iteration in range(1, 101):
        crossing = np.linalg.eigvals(np.block([[x * shift - A.conj().T, eye], [-eye, A - x * shift]]))
        middles = _inside(np.unique(crossing.imag), functools.partial(_on_line, x), T, epsilon)
        best = max(((across(h), h) for h in middles), default=(-math.inf, y))
        if best[0] <= x + tol * max(abs(x), epsilon):
            if best[0] > x:
                x, y = best
            return PseudospectralExtreme(x, complex(x, y), epsilon, iteration)
        x, y = best
    raise InputError("the criss-cross search did not settle in 100 steps: try a larger tol")


def pseudospectral_radius(A: Any, epsilon: float, tol: float = 1e-10) -> PseudospectralExtreme:
    """Largest modulus in the epsilon-pseudospectrum, by circular and radial searches; globally convergent.

    Args:
        A: (N, N), or a system.
        epsilon: > 0.
        tol: relative step at which to stop.

    Returns:
        `PseudospectralExtreme`.

    Raises:
        InputError: an epsilon that is not positive.
    """
    from scipy.linalg import eigvals

    A, epsilon = _matrix(A), _epsilon(epsilon)
    n, T = A.shape[0], _schur(A)
    eye, zero, one = epsilon * np.eye(n), np.zeros((n, n)), np.eye(n)

    def outward(angle: float) -> float:
        return _farthest_on_line(np.exp(-1j * angle) * A, epsilon)

    eigenvalues = np.linalg.eigvals(A)
    angle = float(np.angle(eigenvalues[np.argmax(np.abs(eigenvalues))]))
    r = outward(angle)
    if not math.isfinite(r):
        r = float(np.abs(eigenvalues).max())
    for iteration in range(1, 101):
        roots = eigvals(np.block([[-eye, A], [r * one, zero]]), np.block([[zero, r * one], [A.conj().T, -eye]]))
        cut = np.unique(np.angle(roots[np.isfinite(roots) & (roots != 0)]))
        # a full turn, from the first cut round to itself; without cuts the circle is inside or outside as a whole
        cut = np.append(cut, cut[0] + 2 * np.pi) if cut.size else np.array([-np.pi, np.pi])
        middles = _inside(cut, functools.partial(_on_circle, r), T, epsilon)
        best = max(((outward(a), a) for a in middles), default=(-math.inf, angle))
        if best[0] <= r * (1 + tol):
            if best[0] > r:
                r, angle = best
            return PseudospectralExtreme(r, complex(r * np.exp(1j * angle)), epsilon, iteration)
        r, angle = best
    raise InputError("the circular search did not settle in 100 steps: try a larger tol")


# -- Kreiss constant and transients


def kreiss_constant(A: Any, discrete: bool = False, tol: float = 1e-2, most: int = 80) -> KreissConstant:
    """Kreiss constant sup Re(z) ||(z I - A)^{-1}|| over Re z > 0 (discrete: sup (|z| - 1) ||(z I - A)^{-1}||, |z| > 1).

    It equals sup (abscissa_eps)/eps over eps. As abscissa_eps - eps cannot fall with eps, two values bound the quotient
    between them, and intervals of eps are divided until the bracket is narrow. For a contraction it is 1 exactly.

    Args:
        A: (N, N), or a system (whose dt then says whether it is discrete).
        discrete: whether A is iterated instead of exponentiated.
        tol: relative width of the bracket to reach.
        most: abscissas (radii) to compute at most; the bracket may then be wider than tol.

    Returns:
        `KreissConstant`; infinite for an eigenvalue in the open right half plane (outside the closed disc).
    """
    if isinstance(A, LTI):
        discrete = A.dt is not None
    A = _matrix(A)
    edge = 1.0 if discrete else 0.0
    contraction = np.linalg.norm(A, 2) <= 1 if discrete else numerical_abscissa(A) <= 0
    if contraction:
        return KreissConstant(1.0, 1.0, 1.0, complex(math.inf))
    eigenvalues = np.linalg.eigvals(A)
    worst = float(np.abs(eigenvalues).max() if discrete else eigenvalues.real.max())
    if worst > edge:
        return KreissConstant(math.inf, math.inf, math.inf, complex(edge))
    extreme = pseudospectral_radius if discrete else pseudospectral_abscissa
    found: dict[float, PseudospectralExtreme] = {}

    def excess(epsilon: float) -> float:
        """abscissa - edge - eps: never falls."""
        if epsilon not in found:
            found[epsilon] = extreme(A, epsilon, tol=1e-8)
        return found[epsilon].value - edge - epsilon

    size = float(np.linalg.norm(A, 2))
    # for large eps the quotient is at most 1 + (numerical abscissa, or radius, - edge) / eps
    overshoot = (numerical_radius(A) if discrete else numerical_abscissa(A)) - edge
    grid = [float(e) for e in size * np.geomspace(1e-8, 10, 10)]
    for epsilon in grid:
        excess(epsilon)

    def lower() -> tuple[float, complex]:
        e, best = max(found.items(), key=lambda item: (item[1].value - edge) / item[0])
        value = (best.value - edge) / e
        return (value, best.point) if value > 1 else (1.0, complex(math.inf))

    def bound(left: float, right: float) -> float:
        return max(1 + excess(right) / left, 0.0) if excess(right) > 0 else 1.0

    intervals = [(0.0, grid[0]), *itertools.pairwise(grid)]
    while True:
        value, point = lower()
        last = max(found)
        # left of the distance to instability the quotient is negative
        bounds = [
            bound(a, b) if a > 0 and found[b].value > edge else (math.inf if found[b].value > edge else 0.0)
            for a, b in intervals
        ]
        far = 1 + max(overshoot, 0.0) / last
        upper = max([value, far, *bounds])
        if upper <= value * (1 + tol) or len(found) >= most:
            return KreissConstant(value, value, upper, point)
        if far >= upper:
            excess(last * 10)
            intervals.append((last, last * 10))
            continue
        k = int(np.argmax(bounds))
        a, b = intervals.pop(k)
        middle = math.sqrt(a * b) if a > 0 else b / 1e3
        excess(middle)
        intervals += [(a, middle), (middle, b)]


def stability_radius(A: Any, discrete: bool = False) -> float:
    """Distance to instability: the smallest ||E|| for which A + E has a pole on the axis (circle).

    Args:
        A: (N, N), or a system (whose dt then says whether it is discrete).
        discrete: whether A is iterated.

    Raises:
        UnstableSystem: A is unstable already.
    """
    from ssmtheory.lti.norms import hinf_norm
    from ssmtheory.lti.systems import StateSpace

    if isinstance(A, LTI):
        discrete = A.dt is not None
    A = _matrix(A)
    eye = np.eye(A.shape[0])
    return 1 / hinf_norm(StateSpace(A, eye, eye, dt=1.0 if discrete else None), tol=1e-9, method="levelset").value


def transient_growth(A: Any, t: Array, discrete: bool = False) -> Array:
    """||exp(tA)||_2 over times, or ||A^k||_2 over steps.

    Args:
        A: (N, N), or a system.
        t: (k,) times in s, not negative; whole numbers of steps where `discrete`.
        discrete: whether A is iterated; a system says so itself, and t then counts steps.

    Returns:
        (k,) float64.

    Raises:
        InputError: times that are negative, or not whole.
    """
    from scipy.linalg import expm

    if isinstance(A, LTI):
        discrete = A.dt is not None
    A, t = _matrix(A), np.asarray(t, dtype=np.float64)
    if t.ndim != 1 or (t < 0).any() or not np.isfinite(t).all() or (discrete and (t != np.rint(t)).any()):
        raise InputError("t must be (k,), finite and not negative; whole numbers of steps for a discrete system")
    out, state, now, gap_before = np.empty(t.size), np.eye(A.shape[0], dtype=np.complex128), 0.0, -1.0
    power: Array = state
    for k in np.argsort(t, kind="stable"):
        gap = float(t[k]) - now
        if gap > 0:
            if abs(gap - gap_before) > 1e-13 * gap:
                power = np.linalg.matrix_power(A, round(gap)) if discrete else expm(gap * A)
                gap_before = gap
            state, now = power @ state, float(t[k])
        out[k] = np.linalg.norm(state, 2)
    return out


def transient_bound(A: Any, discrete: bool = False, tol: float = 1e-2) -> TransientBound:
    """Bounds of sup ||exp(tA)|| over t >= 0 (sup ||A^k||): K <= sup <= e N K with the Kreiss constant K.

    Args:
        A: (N, N), or a system.
        discrete: whether A is iterated; a system says so itself.
        tol: width of the bracket of K.

    Returns:
        `TransientBound`.

    Raises:
        UnstableSystem: the supremum is infinite.

    References:
        Trefethen and Embree, chapter on the Kreiss matrix theorem and its continuous counterpart.
    """
    if isinstance(A, LTI):
        discrete = A.dt is not None
    A = _matrix(A)
    kreiss = kreiss_constant(A, discrete, tol)
    if math.isinf(kreiss.value):
        raise UnstableSystem("sup ||exp(tA)|| (or ||A^k||) is asked of an unstable matrix, where it is infinite")
    eigenvalues = np.linalg.eigvals(A)
    decay = float(np.abs(eigenvalues).max() if discrete else eigenvalues.real.max())
    first = numerical_radius(A) if discrete else numerical_abscissa(A)
    upper = 1.0 if kreiss.upper == 1 else math.e * A.shape[0] * kreiss.upper
    return TransientBound(kreiss.lower, upper, first, decay)
