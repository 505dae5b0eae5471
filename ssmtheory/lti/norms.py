"""System norms: H-infinity with a bracket, H2, Gramians.

A gain over all frequencies is never read off a grid: the spike of S4D has an absolute half-width of 1/2 at every N and
sits at N^2/pi, between the points of any log-spaced grid. Two methods are used instead.

- "branch": from a closed form with bounds (any diagonal system has one). Intervals between resonances are divided until
  values at their ends and a bound on the deviation from the chord leave no room above the best value found.
- "levelset": dense matrices. A gain g is exceeded between those frequencies i w that are eigenvalues of a Hamiltonian
  matrix. All eigenvalues, not just those within some tolerance of the axis, are tried as such frequencies, so that the
  answer does not hang on a tolerance.
- "slicot": SLICOT's AB13DD through the real embedding [[Re, -Im], [Im, Re]], which leaves the norm unchanged. With
  D != 0 it falls short of the norm now and then (3 of 600 small random systems, by up to 10 %); the other two do not.

References:
    N. A. Bruinsma, M. Steinbuch, A fast algorithm to compute the H-infinity norm of a transfer function matrix,
    Systems & Control Letters 14 (1990): the level set method.
    Complex matrices and the test of all eigenvalues are ours.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ssmtheory.errors import InputError, nearest, require
from ssmtheory.lti.algebra import SumSystem, _direct, _gains
from ssmtheory.lti.base import LTI
from ssmtheory.lti.errors import NoRealization, UnstableSystem
from ssmtheory.lti.systems import DiagonalStateSpace, StateSpace, _Realised
from ssmtheory.lti.transfer import TransferFunction
from ssmtheory.typing import Array

__all__ = ["HinfNorm", "gramian", "h2_inner_product", "h2_norm", "h2_quadrature", "hinf_norm", "linf_norm"]

_METHODS = ("auto", "branch", "levelset", "slicot")
#: Largest order for which "auto" falls back on dense eigenproblems of twice the size.
_DENSE_ORDER = 600


@dataclass(frozen=True)
class HinfNorm:
    """A gain over all frequencies, and how well it is known.

    Attributes:
        value: best value found, a gain the system reaches at `omega`; equal to `lower`.
        lower: lower end of the bracket.
        upper: upper end of the bracket.
        omega: angular frequency of the peak in rad/s; inf where the gain of D is not exceeded.
        rigorous: whether the bracket is certified by interval arithmetic. The methods here work in floating point and
            say False; `ssmtheory.certify` gives certified brackets.
        method: "branch", "levelset" or "slicot".
        points: frequencies at which the system was evaluated.
    """

    value: float
    lower: float
    upper: float
    omega: float
    rigorous: bool = False
    method: str = ""
    points: int = 0

    def __float__(self) -> float:
        return self.value


def hinf_norm(system: LTI, tol: float = 1e-6, method: str = "auto", *, max_points: int = 2_000_000) -> HinfNorm:
    """H-infinity norm: the largest gain of a stable system over all frequencies.

    Args:
        system: a stable system.
        tol: relative width of the bracket to reach; the value itself is polished to near double precision.
        method: "auto", "branch" (needs a closed form with bounds), "levelset" (needs a realisation) or "slicot" (needs
            a realisation and slycot).
        max_points: evaluations after which "branch" stops; the bracket then is wider than tol.

    Returns:
        `HinfNorm`.

    Raises:
        UnstableSystem: a pole in the closed right half plane (outside the open unit disc).
        InputError: an unknown method, a tolerance out of (0, 1), or nothing known to work with.
    """
    if not system.is_stable():
        worst = system.spectral_abscissa() if system.dt is None else system.spectral_radius()
        what = "spectral abscissa" if system.dt is None else "spectral radius"
        raise UnstableSystem(
            f"the H-infinity norm is asked of an unstable system ({what} {worst:.6g}): "
            "linf_norm() gives the largest gain on the frequency axis"
        )
    return linf_norm(system, tol, method, max_points=max_points)


def linf_norm(system: LTI, tol: float = 1e-6, method: str = "auto", *, max_points: int = 2_000_000) -> HinfNorm:
    """L-infinity norm: the largest gain on the frequency axis, of stable and unstable systems alike.

    Args:
        system: any system; infinite where a pole lies on the axis.
        tol: as for `hinf_norm`.
        method: as for `hinf_norm`.
        max_points: as for `hinf_norm`.

    Returns:
        `HinfNorm`.

    Raises:
        InputError: an unknown method, a tolerance out of (0, 1), or nothing known to work with.
    """
    if method not in _METHODS:
        raise InputError(f"method={method!r}: must be one of {', '.join(_METHODS)}.{nearest(method, _METHODS)}")
    if not 0 < tol < 1:
        raise InputError(f"tol={tol!r}: must be a relative width between 0 and 1")
    closed = system.transfer
    if closed._poles is not None and closed._poles.size:
        on_axis = closed._poles.real == 0 if system.dt is None else np.abs(closed._poles) == 1
        if on_axis.any():
            pole = closed._poles[np.argmax(on_axis)]
            omega = float(pole.imag if system.dt is None else np.angle(pole) / system.dt)
            return HinfNorm(math.inf, math.inf, math.inf, omega, method="pole")
    order = system.state_dim
    inner = closed._unwarped
    if inner is not None and inner.has_bounds and inner.tail is not None and method in ("auto", "branch"):
        # Tustin's rule only renames frequencies; on the continuous axis resonances keep their width
        assert system.dt is not None
        found = linf_norm(inner, tol, method, max_points=max_points)
        omega = 2 / system.dt * math.atan(found.omega * system.dt / 2)
        return dataclasses.replace(found, omega=omega)
    if method == "auto":
        bounded = closed.has_bounds and (closed.tail is not None or system.dt is not None)
        if not bounded and order is None:
            raise InputError(
                "the closed form has no slope or no tail bound, and there are no matrices: pass slope= and tail= "
                "when the TransferFunction is built"
            )
        # bounds from the numerical range alone are wide: matrices of moderate order have a better method
        coarse = isinstance(system, _Realised) and not isinstance(system, DiagonalStateSpace)
        coarse = coarse and getattr(system, "closed_form", None) is None and order is not None and order <= _DENSE_ORDER
        if bounded and not coarse:
            found = _branch(closed, tol, max_points if order is None or order > _DENSE_ORDER else 50_000)
            if found.upper <= found.lower * (1 + 2 * tol) or order is None or order > _DENSE_ORDER:
                return found
        return _level_set(system.to_dense(), tol)
    if method == "branch":
        return _branch(closed, tol, max_points)
    dense = system.to_dense()
    return _level_set(dense, tol) if method == "levelset" else _slicot(dense, tol)


# -- branch and bound


def _polish(gain: Any, left: float, right: float, best: tuple[float, float]) -> tuple[float, float]:
    """The largest value found by zooming into [left, right], with its place; at least `best` (value, place)."""
    for _ in range(14):
        w = np.linspace(left, right, 17)
        values = gain(w)
        k = int(np.argmax(values))
        if values[k] > best[0]:
            best = float(values[k]), float(w[k])
        left, right = float(w[max(k - 1, 0)]), float(w[min(k + 1, 16)])
        if right - left <= 1e-15 * max(abs(left), abs(right)):
            break
    return best


def _branch(system: TransferFunction, tol: float, max_points: int) -> HinfNorm:
    points = 0

    def gain(w: Array) -> Array:
        nonlocal points
        points += w.size
        return _gains(system.frequency_response(w))

    resonances = system.resonances
    if system.dt is None:
        if system.tail is None:
            raise InputError("no bound on the far gain of this closed form is known: pass tail= when it is built")
        start = np.unique(np.concatenate([resonances, [0.0]]))
    else:
        limit = math.pi / system.dt
        inside = resonances[np.abs(resonances) < limit]
        start = np.unique(np.concatenate([inside, [-limit, 0.0, limit]]))
    values = gain(start)
    k = int(np.argmax(values))
    best = float(values[k]), float(start[k])
    if system.dt is None:
        direct = float(np.linalg.norm(system.direct, 2))
        if direct > best[0]:
            best = direct, math.inf
        limit, beyond = max(1.0, 2 * float(np.abs(start).max())), math.inf
        for _ in range(100):
            beyond = system.tail(limit)  # type: ignore[misc]
            # a gain that dies out to nothing has nothing to exclude
            if beyond <= max(best[0] * (1 + tol), 1e-300):
                break
            # a gain that does not die out, a delay's, may have its peaks anywhere: climb where this octave is highest
            w = np.linspace(limit, 2 * limit, 9)
            values = gain(np.concatenate([-w, w]))
            k = int(np.argmax(values))
            if values[k] > best[0]:
                place = float(w[k % 9]) * (1 if k >= 9 else -1)
                best = _polish(gain, place - limit / 8, place + limit / 8, (float(values[k]), place))
            limit *= 2
        else:
            raise InputError(
                f"tail({limit:g}) is {beyond:g}: the bound does not fall below the gains found ({best[0]:g})"
            )
        edges = np.unique(np.concatenate([start, [-limit, limit]]))
    else:
        beyond, edges = 0.0, start
    f = gain(edges)
    a, b, fa, fb = edges[:-1], edges[1:], f[:-1], f[1:]
    if math.isfinite(best[1]):
        step = max(float(np.min(np.diff(edges), initial=1.0)), 1e-6 * max(1.0, abs(best[1])))
        best = _polish(gain, best[1] - step, best[1] + step, best)
    upper = beyond
    while a.size:
        bound = np.maximum(fa, fb) + system.remainder(a, b)
        middle = (a + b) / 2
        # as far as double precision divides
        open_ = (bound > best[0] * (1 + tol)) & (middle > a) & (middle < b) & (
            b - a > 8 * np.finfo(float).eps * np.maximum(np.abs(a), np.abs(b))
        )  # fmt: skip
        done = bound[~open_]
        upper = max(upper, float(done.max(initial=0.0)))
        a, b, fa, fb, middle, bound = (x[open_] for x in (a, b, fa, fb, middle, bound))
        if not a.size:
            break
        if points + a.size > max_points:
            upper = max(upper, float(bound.max()))
            break
        fm = gain(middle)
        k = int(np.argmax(fm))
        if fm[k] > best[0]:
            best = _polish(gain, float(a[k]), float(b[k]), (float(fm[k]), float(middle[k])))
        a, b = np.concatenate([a, middle]), np.concatenate([middle, b])
        fa, fb = np.concatenate([fa, fm]), np.concatenate([fm, fb])
    if math.isfinite(best[1]):
        span = 1e-6 * max(abs(best[1]), 1e-6)
        best = _polish(gain, best[1] - span, best[1] + span, best)
    value, omega = _positive(gain, best)
    return HinfNorm(value, value, max(upper, value), omega, method="branch", points=points)


def _positive(gain: Any, best: tuple[float, float]) -> tuple[float, float]:
    """Of two equal peaks at +-omega the positive one; 0 where it is as good."""
    value, omega = best
    if omega != 0 and float(gain(np.zeros(1))[0]) >= value * (1 - 1e-13):
        return value, 0.0
    if math.isfinite(omega) and omega < 0:
        other = float(gain(np.array([-omega]))[0])
        if other >= value * (1 - 1e-12):
            return max(value, other), -omega
    return value, omega


# -- dense


def _cayley(system: StateSpace) -> StateSpace:
    """The continuous system G(z = (1 + s) / (1 - s)): same norm, frequencies w = tan(omega dt / 2)."""
    n = system.state_dim
    inverse = np.linalg.inv(system.A + np.eye(n))
    root = math.sqrt(2)
    return StateSpace(
        (system.A - np.eye(n)) @ inverse,
        root * inverse @ system.B,
        root * system.C @ inverse,
        system.D - system.C @ inverse @ system.B,
    )


def _level_set(system: StateSpace, tol: float) -> HinfNorm:
    if system.dt is not None:
        found = _level_set(_cayley(system), tol)
        angle = math.pi if math.isinf(found.omega) else 2 * math.atan(found.omega)
        omega = angle / system.dt
        return HinfNorm(found.value, found.lower, found.upper, omega, method="levelset", points=found.points)
    balance = math.sqrt((np.linalg.norm(system.C) or 1.0) / (np.linalg.norm(system.B) or 1.0))
    plain = StateSpace(system.A, balance * system.B, system.C / balance, system.D)
    A, B, C, D = plain.A, plain.B, plain.C, plain.D
    points = 0

    def gain(w: Array) -> Array:
        nonlocal points
        points += w.size
        return _gains(plain.frequency_response(w))

    poles = plain.poles()
    modulus = np.abs(poles)
    damped = modulus * np.sqrt(np.maximum(0.25, 1 - 2 * (poles.real / np.maximum(modulus, 1e-300)) ** 2))
    start = np.unique(np.concatenate([poles.imag, damped, -damped, [0.0]]))
    values = gain(start)
    k = int(np.argmax(values))
    best = float(values[k]), float(start[k])
    direct = float(np.linalg.norm(D, 2))
    if direct > best[0]:
        best = direct, math.inf
    if best[0] == 0 and not (np.any(B) and np.any(C)):
        return HinfNorm(0.0, 0.0, 0.0, 0.0, method="levelset", points=points)
    for _ in range(60):
        if math.isfinite(best[1]):
            span = 1e-3 * max(abs(best[1]), float(np.abs(poles.real).min()))
            best = _polish(gain, best[1] - span, best[1] + span, best)
        level = best[0] * (1 + tol)
        crossing = np.unique(np.linalg.eigvals(_hamiltonian(A, B, C, D, level)).imag)
        trial = np.concatenate([crossing, (crossing[1:] + crossing[:-1]) / 2])
        values = gain(trial)
        k = int(np.argmax(values))
        if values[k] <= level:
            break
        best = float(values[k]), float(trial[k])
    else:
        raise InputError("the level set method did not settle in 60 steps: try method='slicot', or a larger tol")
    if values[k] > best[0]:
        best = float(values[k]), float(trial[k])
    value, omega = _positive(gain, best)
    return HinfNorm(value, value, max(value, level), omega, method="levelset", points=points)


def _hamiltonian(A: Array, B: Array, C: Array, D: Array, level: float) -> Array:
    """Matrix whose imaginary eigenvalues i w are the frequencies where `level` is a singular value of G(i w)."""
    r = level**2 * np.eye(B.shape[1]) - D.conj().T @ D
    inner = np.linalg.solve(r, np.concatenate([D.conj().T @ C, B.conj().T], axis=1))
    a = A + B @ inner[:, : A.shape[0]]
    return np.block(
        [
            [a, level * B @ inner[:, A.shape[0] :]],
            [-(C.conj().T @ C + C.conj().T @ D @ inner[:, : A.shape[0]]) / level, -a.conj().T],
        ]
    )


def real_embedding(matrix: Array) -> Array:
    """[[Re, -Im], [Im, Re]]: acts on (Re x, Im x) as the matrix acts on x."""
    return np.block([[matrix.real, -matrix.imag], [matrix.imag, matrix.real]])


def _slicot(system: StateSpace, tol: float) -> HinfNorm:
    slycot = require("slycot", "control", "method='slicot'")
    real = not any(x.imag.any() for x in (system.A, system.B, system.C, system.D))
    # SLICOT may write into its arguments
    A, B, C, D = (
        np.asfortranarray(x.real if real else real_embedding(x)) for x in (system.A, system.B, system.C, system.D)
    )
    value, omega = slycot.ab13dd(
        "C" if system.dt is None else "D", "I", "S", "D", A.shape[0], B.shape[1], C.shape[0],
        A, np.eye(A.shape[0]), B, C, D, tol=min(tol, 1e-9),
    )  # fmt: skip
    scale = 1.0 if system.dt is None else 1 / system.dt
    peak = float(omega) * scale
    # the embedding has the peaks of G(i w) and of G(-i w) alike
    if math.isfinite(peak) and peak:
        gains = _gains(system.frequency_response(np.array([peak, -peak])))
        peak = -peak if gains[1] > gains[0] * (1 + 1e-12) else peak
    return HinfNorm(float(value), float(value) * (1 - tol), float(value) * (1 + tol), peak, method="slicot")


# -- Gramians and H2


def _need_stable(system: LTI, what: str) -> None:
    if not system.is_stable():
        worst = system.spectral_abscissa() if system.dt is None else system.spectral_radius()
        name = "spectral abscissa" if system.dt is None else "spectral radius"
        raise UnstableSystem(f"{what} is asked of an unstable system ({name} {worst:.6g}), where it is infinite")


def gramian(system: LTI, kind: Literal["controllability", "observability"] = "controllability") -> Array:
    """Gramian: the solution of A W + W A* + B B* = 0 (controllability), or of its dual.

    For a diagonal state matrix in closed form, W_jk = -b_j b_k* / (p_j + conj(p_k)); else by a Lyapunov solver.

    Args:
        system: a stable realisation.
        kind: "controllability" or "observability".

    Returns:
        (N, N) complex128, Hermitian.

    Raises:
        UnstableSystem: an unstable system.
        NoRealization: only the transfer function is known.
        InputError: another kind.
    """
    if kind not in ("controllability", "observability"):
        raise InputError(f"kind={kind!r}: must be 'controllability' or 'observability'")
    _need_stable(system, f"the {kind} Gramian")
    if isinstance(system, DiagonalStateSpace):
        full = system.expand()
        p = full.diagonal
        if kind == "controllability":
            x, y = full.B @ full.B.conj().T, p[:, None] + p.conj()
            z = p[:, None] * p.conj()
        else:
            x, y = full.C.conj().T @ full.C, p.conj()[:, None] + p
            z = p.conj()[:, None] * p
        return -x / y if system.dt is None else x / (1 - z)
    from scipy.linalg import solve_continuous_lyapunov, solve_discrete_lyapunov

    dense = system.to_dense()
    A, X = (dense.A, dense.B) if kind == "controllability" else (dense.A.conj().T, dense.C.conj().T)
    if dense.dt is None:
        W = solve_continuous_lyapunov(A, -X @ X.conj().T)
    else:
        W = solve_discrete_lyapunov(A, X @ X.conj().T)
    return (W + W.conj().T) / 2


def h2_norm(system: LTI) -> float:
    """H2 norm: the L2 (l2) norm of the impulse response, in the Frobenius norm over outputs and inputs.

    A sum is expanded into inner products of its terms. Where one of two terms is diagonal, their inner product is a sum
    of values of the other's transfer function at the mirrored poles, so that a closed form is used to the full. Closed
    forms without matrices, or with matrices of more than 300 states that are not diagonal, go by `h2_quadrature`.

    Args:
        system: a stable system.

    Returns:
        The norm; inf for a continuous system with D != 0.

    Raises:
        UnstableSystem: an unstable system.
    """
    _need_stable(system, "the H2 norm")
    if system.dt is None and _direct(system).any():
        return math.inf
    if _too_large(system):
        return h2_quadrature(system)
    return math.sqrt(max(h2_inner_product(system, system).real, 0.0))


def _too_large(system: LTI) -> bool:
    if isinstance(system, SumSystem):
        return any(_too_large(term) for _, term in system.terms)
    if system.state_dim is None:
        return True
    if isinstance(system, DiagonalStateSpace):
        return False
    return system.state_dim > 300 and isinstance(system, _Realised) and system.closed_form is not None


# 7 points of Gauss inside 15 of Kronrod, on [-1, 1]
_NODES = np.array(
    [0.991455371120812639206854697526329, 0.949107912342758524526189684047851, 0.864864423359769072789712788640926,
     0.741531185599394439863864773280788, 0.586087235467691130294144691693013, 0.405845151377397166906606412076961,
     0.207784955007898467600689403773245, 0.0]
)  # fmt: skip
_KRONROD = np.array(
    [0.022935322010529224963732008058970, 0.063092092629978553290700663189204, 0.104790010322250183839876322541518,
     0.140653259715525918745189590510238, 0.169004726639267902826583426598550, 0.190350578064785409913256402421014,
     0.204432940075298892414161999234649, 0.209482141084727828012999174891714]
)  # fmt: skip
_GAUSS = np.array(
    [0.0, 0.129484966168869693270611432679082, 0.0, 0.279705391489276667901467771423780, 0.0,
     0.381830050505118944950369775488975, 0.0, 0.417959183673469387755102040816327]
)  # fmt: skip


def h2_quadrature(system: LTI, tol: float = 1e-10, most: int = 4_000_000) -> float:
    """H2 norm as an integral over the frequency axis, (1/2pi) int ||G||_F^2 dw (Parseval), resonances included.

    Args:
        system: a stable system.
        tol: relative error of the norm to reach, as adaptive Gauss-Kronrod quadrature estimates it.
        most: evaluations to spend.

    Returns:
        The norm.

    Raises:
        InputError: `most` evaluations do not reach the tolerance.
    """
    closed = system.transfer
    direct = _direct(system)
    if system.dt is None and direct.any():
        return math.inf

    def density(w: Array) -> Array:
        values = closed.frequency_response(w.reshape(-1))
        return (np.abs(values) ** 2).sum(axis=(1, 2)).reshape(w.shape)

    places = closed.resonances
    if system.dt is None:
        limit = 4 * max(1.0, float(np.abs(places).max(initial=0.0)))
        edges = np.unique(np.concatenate([places, [-limit, 0.0, limit]]))
        # beyond, w = limit / t with t in (0, 1]
        tails: tuple[tuple[float, float], ...] = ((-1.0, 0.0), (0.0, 1.0))
    else:
        limit = math.pi / system.dt
        edges = np.unique(np.concatenate([places[np.abs(places) < limit], [-limit, 0.0, limit]]))
        tails = ()
    left = np.concatenate([edges[:-1], [t[0] for t in tails]])
    right = np.concatenate([edges[1:], [t[1] for t in tails]])
    outer = np.concatenate([np.zeros(edges.size - 1, bool), np.ones(len(tails), bool)])
    nodes = np.concatenate([-_NODES, _NODES[-2::-1]])
    kronrod, gauss = (np.concatenate([x, x[-2::-1]]) for x in (_KRONROD, _GAUSS))
    total, error, points = 0.0, 0.0, 0
    while left.size:
        middle, half = (left + right) / 2, (right - left) / 2
        place = middle[:, None] + half[:, None] * nodes
        with np.errstate(divide="ignore"):
            w = np.where(outer[:, None], limit / np.where(outer[:, None], place, 1.0), place)
        values = density(w) * np.where(outer[:, None], limit / place**2, 1.0)
        points += place.size
        fine, coarse = half * (values @ kronrod), half * (values @ gauss)
        gap = np.abs(fine - coarse)
        whole = total + fine.sum()
        # each interval may err by its share of the length of the list, which bounds the sum of errors
        good = (gap <= 2 * tol * whole / max(2 * left.size, 64)) | (half <= 4e-16 * np.abs(middle))
        total += float(fine[good].sum())
        error += float(gap[good].sum())
        bad = ~good
        if points > most:
            raise InputError(
                f"{most} evaluations leave a relative error of {(error + gap[bad].sum()) / whole:.2g}: raise most"
            )
        left, middle, right, outer = left[bad], middle[bad], right[bad], outer[bad]
        left, right, outer = np.concatenate([left, middle]), np.concatenate([middle, right]), np.tile(outer, 2)
    if system.dt is not None:
        total *= system.dt
    return math.sqrt(total / (2 * math.pi))


def h2_inner_product(a: LTI, b: LTI) -> complex:
    """Inner product of impulse responses: the integral (sum) of tr(K_a(t) K_b(t)*) over t >= 0.

    Args:
        a: a stable system.
        b: a stable system of the same shape and time base; both without D in continuous time.

    Returns:
        The inner product, linear in a and conjugate-linear in b.

    Raises:
        NoRealization: neither is diagonal and one is known by its transfer function alone.
    """
    if isinstance(a, SumSystem):
        return sum((complex(c) * h2_inner_product(t, b) for c, t in a.terms), 0j)
    if isinstance(b, SumSystem):
        return sum((complex(np.conj(c)) * h2_inner_product(a, t) for c, t in b.terms), 0j)
    if a is b and isinstance(a, _Realised) and not isinstance(a, DiagonalStateSpace):
        W = gramian(a)
        found = complex(np.einsum("pi,ij,pj->", a.C, W, a.C.conj(), optimize=True))
        return found + (complex((np.abs(a.D) ** 2).sum()) if a.dt is not None else 0)
    if isinstance(b, DiagonalStateSpace):
        found_ = _with_diagonal(a, b)
        if found_ is not None:
            return found_
    if isinstance(a, DiagonalStateSpace) and not isinstance(b, DiagonalStateSpace):
        return complex(np.conj(h2_inner_product(b, a)))
    if a.state_dim is None or b.state_dim is None:
        raise NoRealization("the H2 norm of a closed form without a realisation: use lti.norms.h2_quadrature(system)")
    from scipy.linalg import solve_sylvester

    x, y = a.to_dense(), b.to_dense()
    if x.dt is None:
        X = solve_sylvester(x.A, y.A.conj().T, -x.B @ y.B.conj().T)
        return complex(np.einsum("pi,ij,pj->", x.C, X, y.C.conj(), optimize=True))
    # X = A X B* + F is a Sylvester equation after a Cayley transform; the norm is unchanged by it
    p, q = _cayley(x), _cayley(y)
    X = solve_sylvester(p.A, q.A.conj().T, -p.B @ q.B.conj().T)
    # C here are the discrete ones: the Gramians of both systems agree
    return complex(np.einsum("pi,ij,pj->", x.C, X, y.C.conj(), optimize=True) + (x.D * y.D.conj()).sum())


def _with_diagonal(a: LTI, b: DiagonalStateSpace) -> complex | None:
    """sum over poles of b of tr(G_a(-conj(pole)) r*), r the residue; None where a discrete pole is at 0."""
    full = b.expand()
    residues = full.C.T[:, :, None] * full.B[:, None, :]
    if b.dt is None:
        return complex(np.einsum("kpm,kpm->", a(-full.diagonal.conj()), residues.conj(), optimize=True))
    if np.abs(full.diagonal).min() < 1e-3:
        return None
    mirrored = 1 / full.diagonal.conj()
    direct = a.transfer.direct
    values = (a(mirrored) - direct) * mirrored[:, None, None]
    return complex(np.einsum("kpm,kpm->", values, residues.conj(), optimize=True) + (direct * full.D.conj()).sum())
