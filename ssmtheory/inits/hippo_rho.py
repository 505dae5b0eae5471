"""HiPPO-rho: a diagonal initialisation that converges to LegS uniformly, in closed form and without optimisation.

With 0 < |a| < 1, rho = 1/|a| and theta = (1 - a)/(1 + a): A_a = A_N - theta P P^T, B_a = B / (1 + a). Then
X_a = X / (1 + a phi): a = 1 is S4D, a = 0 is LegS. The eigenvalues solve phi(lambda) = -1/a, the eigenvectors are
X(lambda), and their Gram matrix is a Cauchy matrix, so that poles, vectors, residues and conditioning need no
eigensolver:

* sup_w ||X_a - X|| <= max_s s sqrt(1 - s^2)/(rho - s) <= 1/(2 (rho - 1)) for every N, and O(1/N) for each fixed output;
* the symmetric part of A_a is at most -1/2: a contraction;
* kappa of the eigenvectors is found to be at most rho (measured; false for real a near `collisions` of poles).

These results are this package's own. S4D: arXiv 2206.11893; PTD, the method that this replaces: arXiv 2310.01698.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.inits import hippo
from ssmtheory.inits.base import (
    Initialization,
    LayerParameters,
    Realization,
    generators,
    log_steps,
    stored_modes,
)
from ssmtheory.inits.closed_form import gap_norm, hippo_bound, legs_family
from ssmtheory.inits.s5 import block_size, blocks_layer
from ssmtheory.lti import DiagonalStateSpace, HinfNorm
from ssmtheory.typing import Array

__all__ = [
    "HiPPORho",
    "S5Rho",
    "collisions",
    "condition",
    "deviation_bound",
    "eigenvectors",
    "gram",
    "l2_gap",
    "matrices",
    "poles",
]


def _check_factor(a: complex) -> complex:
    value = complex(a)
    if not 0 < abs(value) < 1:
        raise InputError(f"a={a!r}: must satisfy 0 < |a| < 1; a = 0 is LegS, |a| = 1 is S4D")
    return value


def _values(N: int, s: Array) -> tuple[Array, Array]:
    """phi and phi'/phi at s (k,), left of -1/2, where no partial product exceeds the whole."""
    half = np.arange(N) + 0.5
    value, slope = np.empty(s.shape, dtype=complex), np.empty(s.shape, dtype=complex)
    block = max(1, 2**16 // N)
    for start in range(0, s.size, block):
        part = slice(start, start + block)
        z = s[part, None] + 0.5
        minus = z - half
        inverse = 1 / (minus * (z + half))
        slope[part] = inverse @ (2 * half)
        value[part] = (minus * minus * inverse).prod(axis=1)
    return value, slope


def _residual(N: int, s: Array, log_a: complex) -> Array:
    """log(-a phi(s)), small at a pole, with every digit."""
    real, phase = hippo._log_phi(N, s)
    angle = np.remainder(phase + log_a.imag, 2 * np.pi) - np.pi
    return (real + log_a.real) + 1j * angle


def poles(N: int, a: complex) -> Array:
    """All solutions of phi_N(lambda) = -1/a: the eigenvalues of A_N - theta P P^T.

    Followed from |a| = 1, where the arctan law gives them, along a path of a in the upper (lower) half plane: every
    critical value of phi is real, so that no two poles meet on the way. Newton's method on log phi ends it.

    Args:
        N: number of states.
        a: complex number with 0 < |a| < 1.

    Returns:
        (N,) complex128, all left of -1/2, by falling imaginary part; exactly conjugate in pairs for real a.

    Raises:
        InputError: a outside the punctured unit disc, or so close to a collision of two poles that double precision
            does not separate them.

    >>> found = poles(16, 0.1)
    >>> bool(abs(hippo.phi(16, found) + 10).max() < 1e-11)
    True
    """
    size, factor = hippo.check_size(N), _check_factor(a)
    angle = float(np.angle(factor))
    if angle < 0:  # the mirror image
        return np.conj(poles(size, factor.conjugate()))[::-1]
    target = complex(math.log(abs(factor)), angle)
    start = complex(0, min(max(angle, 0.4), math.pi / 2 + 0.6))
    found = -0.5 + 1j * hippo.phase_heights(size, start.imag, exact=False)
    done, step = 0.0, 1.0
    length = abs(target - start)
    step = min(1.0, 0.4 / length) if length else 1.0
    slope = hippo.log_derivative(size, found)
    while done < 1 and length:
        end = min(1.0, done + step)
        change = (target - start) * (end - done)
        halfway = found - 0.5 * change / slope
        trial = found - change / _values(size, halfway)[1]
        log_a = start + (target - start) * end
        good = bool((trial.real < -0.5).all())
        new_slope = slope
        for attempt in range(4):
            if not good:
                break
            value, new_slope = _values(size, trial)
            miss = np.log(-value * np.exp(log_a))
            good = float(np.abs(miss).max()) < (0.2, 0.02, 1e-3, 1e-5)[attempt]
            trial = trial - miss / new_slope
            if good and float(np.abs(miss).max()) < 1e-5:
                break
        if good:
            found, slope, done = trial, new_slope, end
            step = min(step * 1.3, 0.6 / length)
        else:
            step /= 2
            if step < 1e-7:
                raise InputError(f"a={a!r}: within rounding of a collision of two poles; see hippo_rho.collisions({N})")
    for _ in range(40):  # two steps, unless two poles are close and convergence is slow
        miss = _residual(size, found, target)
        found = found - miss / hippo.log_derivative(size, found)
        if np.abs(miss).max() < 1e-9:
            break
    if factor.imag == 0:
        found = _paired(found)
    separate = found[np.argsort(-found.imag, kind="stable")]
    _check_complete(size, separate, factor, a)
    return separate


def _paired(found: Array) -> Array:
    """Poles of a real system, made exactly conjugate in pairs; real ones made real."""
    scale = np.maximum(np.abs(found), 1)
    upper = found[found.imag > 1e-9 * scale]
    real = found[np.abs(found.imag) <= 1e-9 * scale].real
    return np.concatenate([upper, real + 0j, upper.conj()])


def _check_complete(size: int, found: Array, factor: complex, a: complex) -> None:
    """The trace is known: a pole found twice or lost would show."""
    theta = (1 - factor) / (1 + factor)
    trace = -(size + theta * size**2) / 2
    if found.size != size or abs(found.sum() - trace) > 1e-9 * np.abs(found).sum():
        raise InputError(f"a={a!r}: the poles for N={size} do not separate; see hippo_rho.collisions({size})")


def collisions(N: int) -> Array:
    """All rho at which two poles meet for a = 1/rho or a = -1/rho, and kappa is infinite.

    They are the reciprocals of the critical values of phi between its zeros 0, 1, ..., N-1; the sign of the entry is
    the sign of a for which the poles meet there.

    Args:
        N: number of states.

    Returns:
        (N-1,) float64, by rising modulus; empty for N = 1. Entries beyond the largest double are infinite.

    Raises:
        InputError: a size that cannot be.

    >>> collisions(8)[:2].round(1).tolist()
    [116.1, -4879.6]
    """
    size = hippo.check_size(N)
    left = np.arange(size - 1, dtype=np.float64)
    low, high = left + 1e-9, left + 1 - 1e-9
    half = np.arange(size) + 0.5
    for _ in range(60):  # phi'/phi falls from +inf to -inf between neighbouring zeros
        middle = (low + high) / 2
        z = middle[:, None] + 0.5
        rising = (2 * half / ((z - half) * (z + half))).sum(axis=1) > 0
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    where = (low + high) / 2
    z = where[:, None]
    k = np.arange(size)
    log_value = (np.log(np.abs(z - k)) - np.log(z + k + 1)).sum(axis=1)
    # between zeros j and j+1 the factors k > j are negative; phi(lambda) = -1/a at the mirror image 1/phi
    sign = -np.where((size - 1 - left) % 2 == 0, 1.0, -1.0)
    with np.errstate(over="ignore"):
        found = sign * np.exp(-log_value)
    return found[np.argsort(np.abs(found), kind="stable")]


def eigenvectors(N: int, found: Array, rows: int | None = None) -> Array:
    """Eigenvectors X(lambda_j) of A_a, scaled to unit 2-norm over the rows kept.

    Args:
        N: number of states.
        found: (k,) eigenvalues.
        rows: keep the first so many components; all N when None.

    Returns:
        (rows or N, k) complex128.
    """
    vectors = hippo.transfer(N, found, None if rows is None else np.arange(rows)).T
    return vectors / np.linalg.norm(vectors, axis=0)


def gram(found: Array) -> Array:
    """Gram matrix V* V of the unit eigenvectors, a Cauchy matrix: 2 sqrt(Re mu_j Re mu_k) / (conj(mu_j) + mu_k).

    mu = -1/2 - lambda. Exact in the sense that no eigenvector is formed; phases of columns are those of `eigenvectors`
    up to a unitary diagonal.

    Args:
        found: (N,) poles, left of -1/2.

    Returns:
        (N, N) complex128, Hermitian, ones on the diagonal.
    """
    mu = -0.5 - np.asarray(found)
    root = np.sqrt(2 * mu.real)
    return np.multiply.outer(root, root) / (mu.conj()[:, None] + mu)


def condition(N: int, a: complex, found: Array | None = None) -> tuple[float, float]:
    """2-norm condition number of the unit eigenvectors, from the Cauchy Gram matrix, and a lower bound of it.

    Args:
        N: number of states.
        a: the factor, 0 < |a| < 1.
        found: (N,) poles, if they are known already.

    Returns:
        (kappa, max_j 1/delta_j), delta_j = 2 Re mu_j |phi'/phi(lambda_j)| rho/(rho^2 - 1) the cosine between the j-th
        left and right eigenvectors. kappa is right to about 1e-16 kappa^2 relative.

    Raises:
        InputError: a outside the punctured unit disc.

    >>> round(condition(64, 1j / 11)[0], 2)
    10.6
    """
    factor = _check_factor(a)
    where = poles(N, factor) if found is None else found
    eigenvalues = np.linalg.eigvalsh(gram(where))
    rho = 1 / abs(factor)
    delta = 2 * (-0.5 - where.real) * np.abs(hippo.log_derivative(N, where)) * rho / (rho**2 - 1)
    kappa = math.sqrt(eigenvalues[-1] / eigenvalues[0]) if eigenvalues[0] > 0 else math.inf
    return kappa, float(1 / delta.min())


def deviation_bound(rho: float, modes: float = 1.0) -> float:
    """Bound of sup_w ||X_a(i w) - X(i w)|| that holds for every N: max_w |phi_M| ||X|| / (rho - |phi_M|), M = modes N.

    Args:
        rho: 1/|a|, above 1.
        modes: M/N, at least 1; the first N rows of the system with M modes are compared with LegS of N states.

    Returns:
        The bound; at most 1/((1 + modes)(rho - 1)), for modes = 1 the 1/(2 (rho - 1)) of the closed formula.

    Raises:
        InputError: rho not above 1, or modes below 1.

    >>> round(deviation_bound(11.0), 4)
    0.0486
    """
    return hippo_bound(rho, modes)


def _check_rho(rho: float) -> float:
    if not hippo.check_positive("rho", rho) > 1:
        raise InputError(f"rho={rho!r}: must be above 1; rho = 1 is S4D")
    return float(rho)


def l2_gap(N: int, a: float, output: int = 0) -> float:
    """Squared L2 distance of the kernels of HiPPO-rho and LegS for real a, exact.

    a^2/(2(1-a^2)) [n^3/(r-n^2) - (n+1)^3/(r-(n+1)^2) + (2n+1) r^{3/2} H/((r-n^2)(r-(n+1)^2))] with r = N^2/(1-a^2) and
    H = (1 - a phi)/(1 + a phi) at sqrt(r). It vanishes as N grows, where that of S4D does not.

    Args:
        N: number of states.
        a: real factor, 0 < |a| < 1.
        output: which state n, at most N - 2.

    Returns:
        The squared distance.

    Raises:
        InputError: complex a, or an output that cannot be.
    """
    factor = _check_factor(a)
    size, n = hippo.check_size(N), hippo.check_size(output, 0, "output")
    if factor.imag:
        raise InputError(f"a={a!r}: the formula is for real a")
    if n > size - 2:
        raise InputError(f"output={output}: must be at most N - 2 = {size - 2}")
    square = factor.real**2
    r = size**2 / (1 - square)
    root = math.sqrt(r)
    value = factor.real * float(hippo.phi(size, root).real)
    H = (1 - value) / (1 + value)
    before, after = r - n**2, r - (n + 1) ** 2
    return (
        square / (2 * (1 - square)) * (n**3 / before - (n + 1) ** 3 / after + (2 * n + 1) * r**1.5 * H / before / after)
    )


def matrices(N: int, a: complex) -> tuple[Array, Array]:
    """A_a = A_N - theta P P^T and B_a = B/(1 + a), theta = (1 - a)/(1 + a).

    Args:
        N: number of states.
        a: any complex number but -1.

    Returns:
        A (N, N) and B (N,); float64 for real a, complex128 else.

    Raises:
        InputError: a = -1.
    """
    if a == -1:
        raise InputError("a=-1: theta = (1 - a)/(1 + a) is infinite")
    A, P, B = hippo.nplr(N)
    factor = complex(a)
    theta, gain = (1 - factor) / (1 + factor), 1 / (1 + factor)
    if factor.imag == 0:
        theta, gain = theta.real, gain.real
    return A - theta * (P @ P.T), gain * B


@dataclass(frozen=True)
class HiPPORho(Initialization):
    """HiPPO-rho: LegS with its output fed back through a; diagonal, well conditioned and uniformly close to LegS.

    Attributes:
        rho: 1/|a|, above 1. The deviation is at most 1/(2 (rho - 1)), the condition number about rho.
        sign: of a: "positive", "negative", "imaginary" (a = i/rho: kappa < rho for every N and rho measured, but a
            complex system), or "auto": (-1)^{N+1}/rho, the real choice whose first collision of poles comes last.
        modes: M/N; with more modes than states the first N rows of the system with M modes are kept.
        normal: replace the eigenvectors by the nearest unitary matrix (kappa = 1 exactly) and refit the input to the
            smallest deviation; best with rho of about 3.
        name: "hippo-rho".

    >>> built = HiPPORho(rho=11.0, sign="imaginary").build(64)
    >>> round(built.diagnostics["kappa"], 2)
    10.6
    """

    name: ClassVar[str] = "hippo-rho"
    rho: float = 10.0
    sign: Literal["auto", "positive", "negative", "imaginary"] = "auto"
    modes: float = 1.0
    normal: bool = False

    def __post_init__(self) -> None:
        _check_rho(self.rho)
        hippo.check_choice("sign", self.sign, ("auto", "positive", "negative", "imaginary"))
        if not 1 <= self.modes < math.inf:
            raise InputError(f"modes={self.modes!r}: must be a finite number of at least 1")
        if self.normal and self.modes != 1:
            raise InputError(f"modes={self.modes!r} with normal=True: the unitary factor needs as many modes as states")

    def size(self, N: int) -> int:
        """Number of modes M for N states.

        Args:
            N: number of states.

        Returns:
            ceil(modes N).
        """
        return math.ceil(self.modes * hippo.check_size(N) - 1e-9)

    def factor(self, N: int) -> complex:
        """The number a for N states.

        Args:
            N: number of states.

        Returns:
            a, |a| = 1/rho.
        """
        sign = self.sign
        if sign == "auto":
            sign = "positive" if self.size(N) % 2 else "negative"
        return {"positive": 1 + 0j, "negative": -1 + 0j, "imaginary": 1j}[sign] / self.rho

    def deviation_bound(self, N: int) -> float:
        """Bound of sup_w ||X_a - X|| from theory; not for the normal replacement, which has none.

        Args:
            N: number of states.

        Returns:
            The bound, at most 1/((1 + M/N)(rho - 1)).

        Raises:
            InputError: for `normal=True`.
        """
        if self.normal:
            raise InputError("normal=True has no closed-form bound: take hinf_norm() of the difference of the systems")
        return deviation_bound(self.rho, self.size(N) / N)

    def deviation(self, N: int, output: int | None = None, tol: float = 1e-6) -> HinfNorm:
        """sup over all real w of ||X_a(i w) - X(i w)||, or of one output, as a two-sided bracket.

        Args:
            N: number of states.
            output: one state n (C = e_n), or None for the worst unit C.
            tol: relative width of the bracket.

        Returns:
            The norm, its bracket and frequency.

        Raises:
            InputError: for `normal=True` or more modes than states, which have no scalar form: take hinf_norm() of the
                difference of the systems.
        """
        if self.normal or self.size(N) != N:
            raise InputError("normal=True and modes > 1 have no scalar form: take hinf_norm() of the difference")
        return gap_norm(N, self.factor(N), output, tol)

    def build(self, N: int, seed: int = 0) -> Realization:
        """Build the system: poles, unit eigenvectors as C, residues as B, and the closed form.

        Args:
            N: number of states that are compared with LegS.
            seed: not used.

        Returns:
            The realisation. Diagnostics: a, theta, rho, modes, kappa (of the rows kept, unit columns), kappa_lower,
            spectral_abscissa, numerical_abscissa, deviation_bound; with `normal` also fit_deviation.

        Raises:
            InputError: an N that cannot be, or a collision of poles.
        """
        size, modes, a = hippo.check_size(N), self.size(N), self.factor(N)
        found = poles(modes, a)
        theta = (1 - a) / (1 + a)
        told: dict[str, Any] = {
            "a": a if a.imag else a.real,
            "theta": theta if a.imag else theta.real,
            "rho": self.rho,
            "modes": modes,
            "spectral_abscissa": float(found.real.max()),
            # the symmetric part is -1/2 - Re(theta) P P^T
            "numerical_abscissa": -0.5 if modes > 1 else -0.5 - 0.5 * theta.real,
        }
        vectors = hippo.transfer(modes, found, np.arange(size)).T
        scale = np.linalg.norm(vectors, axis=0)
        V = vectors / scale
        if self.normal:
            return self._normal(size, found, V, told)
        # residue of X/(1 + a phi) at a pole: X / (a phi') = -X / (phi'/phi)
        B = -scale / hippo.log_derivative(modes, found)
        if modes == size:
            told["kappa"], told["kappa_lower"] = condition(size, a, found)
        else:
            values = np.linalg.svd(V, compute_uv=False)
            told["kappa"], told["kappa_lower"] = float(values[0] / values[-1]), 1.0
        told["deviation_bound"] = self.deviation_bound(size)
        closed = legs_family(modes, a, found, rows=size)
        return Realization(DiagonalStateSpace(found, B, V, closed_form=closed), V, told)

    def _normal(self, size: int, found: Array, V: Array, told: dict[str, Any]) -> Realization:
        left, _, right = np.linalg.svd(V)
        U = left @ right
        B, told["fit_deviation"] = _lawson(size, found, U)
        told["kappa"] = told["kappa_lower"] = 1.0
        return Realization(DiagonalStateSpace(found, B, U), U, told)

    def layer(
        self, features: int, N: int, seed: int = 0, dt_min: float = 1e-3, dt_max: float = 1e-1
    ) -> LayerParameters:
        """Draw a layer: poles and B of the realisation, C = (real normal) V as S4-PTD draws it, ZOH.

        Args:
            features: number of features.
            N: number of states.
            seed: of C and of the steps.
            dt_min: smallest step in seconds.
            dt_max: largest step in seconds.

        Returns:
            The parameters. Where the poles are conjugate pairs one of each is stored (readout "pairs"), else all
            (readout "real").

        Raises:
            InputError: sizes or steps that cannot be.
        """
        count = hippo.check_size(features, 1, "features")
        built = self.build(N, seed)
        system = built.system
        assert isinstance(system, DiagonalStateSpace)
        rng_c, rng_dt = generators(seed, "C", "steps")
        C = rng_c.standard_normal((count, hippo.check_size(N))) @ built.basis
        keep, readout = stored_modes(system.diagonal, self.factor(N).imag == 0)
        return LayerParameters(
            system.diagonal[keep],
            system.B[keep, 0],
            C[:, keep],
            log_steps(rng_dt, count, dt_min, dt_max),
            readout=readout,
            diagnostics=built.diagnostics,
        )


@dataclass(frozen=True)
class S5Rho(HiPPORho):
    """S5 with a HiPPO-rho system in each block: B = V^{-1} times a LeCun-normal matrix, C times V.

    Attributes:
        blocks: number of equal blocks.
        name: "s5-rho".
    """

    name: ClassVar[str] = "s5-rho"
    blocks: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        hippo.check_size(self.blocks, 1, "blocks")
        if self.modes != 1:
            raise InputError(f"modes={self.modes!r}: a block has as many modes as states, so it must be 1")

    def layer(
        self, features: int, N: int, seed: int = 0, dt_min: float = 1e-3, dt_max: float = 1e-1
    ) -> LayerParameters:
        """Draw a layer: as S5's, with HiPPO-rho in place of the normal part of LegS in each block.

        Args:
            features: number of features.
            N: number of states.
            seed: of B, C, D and the steps.
            dt_min: smallest step in seconds.
            dt_max: largest step in seconds.

        Returns:
            The parameters, scope "layer"; readout "pairs" where the poles of a block are conjugate pairs, else "real".

        Raises:
            InputError: sizes or steps that cannot be.
        """
        size = block_size(N, self.blocks)
        built = self.build(size, seed)
        system = built.system
        assert isinstance(system, DiagonalStateSpace)
        keep, readout = stored_modes(system.diagonal, self.factor(size).imag == 0)
        V = np.asarray(built.basis)
        return blocks_layer(
            (system.diagonal[keep], V[:, keep], np.linalg.inv(V)[keep]), self.blocks, features, N, seed, dt_min,
            dt_max, readout=readout, diagnostics=dict(built.diagnostics),
        )  # fmt: skip


def _lawson(size: int, found: Array, U: Array, iterations: int = 400) -> tuple[Array, float]:
    """Input b that (nearly) minimises sup_w ||U diag(1/(i w - poles)) b - X(i w)||, and the value on the grid.

    Lawson's reweighted least squares. As U is unitary each mode is fitted on its own, so that a step costs one pass
    over the grid.
    """
    heights = np.sort(found.imag)
    top = float(np.abs(heights).max())
    parts = [heights, (heights[1:] + heights[:-1]) / 2, np.geomspace(0.05, 4 * top, 6 * size + 200), [0.0]]
    parts += [heights + found.real, heights - found.real]
    omega = np.unique(np.concatenate(parts))
    omega = np.unique(np.concatenate([omega, -omega]))
    target = hippo.transfer(size, 1j * omega) @ U.conj()
    modes = 1 / (1j * omega[:, None] - found)
    weight = np.full(omega.size, 1 / omega.size)
    power = np.abs(modes) ** 2
    inner = modes.conj() * target
    best, value = np.zeros(found.size, dtype=complex), math.inf
    for _ in range(iterations):
        b = (weight @ inner) / (weight @ power)
        error = np.linalg.norm(modes * b - target, axis=1)
        if error.max() < value:
            best, value = b, float(error.max())
        weight = weight * error
        weight /= weight.sum()
    return best, value
