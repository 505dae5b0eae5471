"""Perturb, then diagonalise: LegS plus a small matrix E, in its eigenvectors (PTD, arXiv 2310.01698).

With epsilon = ||E||_2 and lambda = the largest eigenvalue of the symmetric part of E, below 1/2: A_H + E is stable and

    ||X_E(i w) - X(i w)|| <= epsilon / (1/2 - lambda) N / hypot(w, N)        for every real w and every N,

because X_E - X = R_E E X and ||R_E|| <= 1/(1/2 - lambda). With lambda <= epsilon this is 2 epsilon / (1 - 2 epsilon);
a dissipative E (lambda <= 0) is stable whatever its size. This bound is this package's own; the paper's grows with
ln N. Beyond lambda = 1/2 nothing is guaranteed.

Perturbations that minimise an objective are found by `minimise`, with exact gradients in NumPy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.inits import hippo
from ssmtheory.inits.base import Initialization, LayerParameters, Realization, generators, log_steps
from ssmtheory.inits.legs import _even
from ssmtheory.inits.ptd_search import Found, minimise_published, minimise_under_deviation
from ssmtheory.inits.s5 import block_size, blocks_layer
from ssmtheory.lti import DiagonalStateSpace, HinfNorm, IllPosedDiagonalization, StateSpace, TransferFunction
from ssmtheory.lti.solve import shifted_solve
from ssmtheory.typing import Array

__all__ = [
    "PTD",
    "S4PTD",
    "S5PTD",
    "deviation",
    "deviation_bound",
    "deviation_system",
    "paper_bound",
    "perturbation",
    "symmetric_abscissa",
]

#: Eigenvectors worse than this are not used: the diagonal system would be another one in double precision.
_WORST_CONDITION = 1e12


def _check_perturbation(N: int, E: Any) -> Array:
    size = hippo.check_size(N)
    matrix = np.asarray(E)
    if matrix.shape != (size, size):
        raise InputError(f"E has shape {matrix.shape}: must be ({size}, {size})")
    if matrix.dtype.kind not in "biufc" or not np.isfinite(matrix).all():
        raise InputError("E holds entries that are not finite numbers")
    return matrix


def _norm(matrix: Array) -> float:
    """2-norm from the Gram matrix: as exact as from the SVD for the largest singular value, at a fraction of its cost.

    The scale is taken out first, so that tiny and huge matrices neither underflow nor overflow.
    """
    scale = float(np.abs(matrix).max(initial=0.0))
    if scale == 0:
        return 0.0
    small = matrix / scale
    return scale * math.sqrt(np.linalg.eigvalsh(small.conj().T @ small)[-1])


def symmetric_abscissa(E: Array) -> float:
    """Largest eigenvalue of the symmetric part (E + E*)/2.

    Args:
        E: (N, N).

    Returns:
        The eigenvalue; at most 0 for a dissipative E.
    """
    return float(np.linalg.eigvalsh((E + E.conj().T) / 2)[-1])


def deviation_bound(E: Array, omega: float | Array = 0.0) -> Any:
    """Bound epsilon/(1/2 - lambda) N/hypot(w, N) of ||X_E(i w) - X(i w)||, from epsilon and lambda of this E.

    Args:
        E: (N, N) perturbation.
        omega: frequency or frequencies in rad/s; at 0 the bound is largest, and bounds the supremum.

    Returns:
        float, or an array of the shape of omega; inf where lambda >= 1/2, outside every theorem.

    Raises:
        InputError: a perturbation that is not a finite square matrix.

    >>> round(deviation_bound(-0.1 * np.eye(4)), 12)       # dissipative: epsilon / (1/2 + 0.1)
    0.166666666667
    """
    matrix = _check_perturbation(np.shape(E)[0] if np.ndim(E) else 0, E)
    epsilon, top = _norm(matrix), symmetric_abscissa(matrix)
    size = matrix.shape[0]
    envelope = size / np.hypot(np.asarray(omega, dtype=np.float64), size)
    value = (epsilon / (0.5 - top) if top < 0.5 else math.inf) * envelope
    return float(value) if np.ndim(omega) == 0 else value


def paper_bound(N: int, epsilon: float) -> float:
    """First-order part (2 ln N + 4) epsilon of the paper's bound, for unit B and C (PTD, arXiv 2310.01698, Theorem 3).

    Args:
        N: number of states.
        epsilon: ||E||_2.

    Returns:
        The value; the paper adds a term of order sqrt(log N) epsilon^2.
    """
    return (2 * math.log(hippo.check_size(N)) + 4) * epsilon


def deviation_system(N: int, E: Array) -> TransferFunction:
    """X_E - X = R_E E X as one system, by one Schur decomposition of A_H + E and triangular solves.

    No difference of nearly equal vectors is formed. Where lambda_max(sym E) < 1/2 it carries bounds on slope,
    curvature and tail, from ||R_E|| <= beta = 1/(1/2 - lambda).

    Args:
        N: number of states.
        E: (N, N) perturbation.

    Returns:
        A `TransferFunction` of shape (N, 1).

    Raises:
        InputError: a perturbation that is not a finite N by N matrix.
    """
    from scipy.linalg import schur

    matrix = _check_perturbation(N, E)
    size = matrix.shape[0]
    T, Q = schur(hippo.legs(size)[0] + matrix, output="complex")
    inner = Q.conj().T @ matrix
    epsilon, top = _norm(matrix), symmetric_abscissa(matrix)

    def evaluate(s: Array, outputs: Array) -> Array:
        forced = inner @ hippo.transfer(size, s).T
        return (Q[outputs] @ shifted_solve(T, forced[:, :, None], s)[:, :, 0]).T[:, :, None]

    poles = np.diag(T)
    known: dict[str, Any] = {"poles": poles, "resonances": poles.imag}
    if top < 0.5:
        beta = 1 / (0.5 - top)

        def bound(factor: float) -> Any:
            def over(a: Array, b: Array) -> Array:
                lo = np.maximum(0, np.maximum(a, -b))
                return factor * epsilon * beta * size / np.hypot(lo, size)

            return over

        # F = R_E E X: F' = -R_E F - R_E E R X and so on, with ||R|| <= 2
        known["slope"] = bound(beta + 2)
        known["curvature"] = bound(2 * (beta**2 + 2 * beta + 4))
        known["tail"] = lambda omega: epsilon * beta * size / math.hypot(omega, size)
        known["stable"] = True
    return TransferFunction(evaluate, (size, 1), **known)


def deviation(N: int, E: Array, tol: float = 1e-6, output: int | None = None) -> HinfNorm:
    """sup over all real w of ||X_E(i w) - X(i w)||: how far a perturbation moves LegS, worst unit C or one output.

    Args:
        N: number of states.
        E: (N, N) perturbation, real or complex.
        tol: relative width of the bracket.
        output: one state n (C = e_n), or None for the worst unit C.

    Returns:
        The supremum, its bracket and frequency. Where lambda_max(sym E) < 1/2 the bracket comes from bounds; beyond,
        from the level sets of dense matrices up to N = 160, and above that `upper` is infinite: the value is then the
        largest found near resonances and on a grid. For an unstable A_H + E it is a supremum over the axis, not an
        H-infinity norm.

    Raises:
        InputError: a perturbation that is not a finite N by N matrix, or an output that does not exist.

    >>> found = deviation(8, -0.05 * np.eye(8))
    >>> found.upper <= deviation_bound(-0.05 * np.eye(8)) and round(found.value, 6)
    0.065636
    """
    matrix = _check_perturbation(N, E)
    if not matrix.any():
        return HinfNorm(0.0, 0.0, 0.0, 0.0, method="exact")
    system = deviation_system(N, matrix)
    chosen = system if output is None else system[output]
    ceiling = deviation_bound(matrix)
    if math.isfinite(ceiling):
        found = chosen.linf_norm(tol=tol, max_points=max(4000, 10**9 // (N * N)))
        return HinfNorm(
            found.value, found.lower, max(found.value, min(found.upper, ceiling)), found.omega, method=found.method,
            points=found.points,
        )  # fmt: skip
    if N <= 160:
        return _dense_difference(N, matrix, output).linf_norm(tol=tol, method="levelset")
    return _sampled(chosen)


def _dense_difference(N: int, E: Array, output: int | None) -> StateSpace:
    """The realisation of R_E E X with 2N states."""
    A, B = hippo.legs(N)
    zero = np.zeros((N, N))
    C = np.eye(N) if output is None else np.eye(N)[[output]]
    return StateSpace(
        np.block([[A + E, E], [zero, A]]), np.concatenate([np.zeros(N), B]), np.concatenate([C, 0 * C], axis=1)
    )


def _sampled(system: TransferFunction) -> HinfNorm:
    poles = system.poles()
    top = float(np.abs(poles).max())
    grid = np.geomspace(1e-2, 4 * top, 600)
    omega = np.unique(np.concatenate([poles.imag, grid, -grid, [0.0]]))
    points = 0

    def gain(w: Array) -> Array:
        nonlocal points
        points += w.size
        return np.linalg.norm(system.frequency_response(w)[:, :, 0], axis=1)

    values = gain(omega)
    k = int(values.argmax())
    left, right = omega[max(k - 1, 0)], omega[min(k + 1, omega.size - 1)]
    best, where = float(values[k]), float(omega[k])
    for _ in range(12):
        w = np.linspace(left, right, 17)
        values = gain(w)
        k = int(values.argmax())
        if values[k] > best:
            best, where = float(values[k]), float(w[k])
        left, right = w[max(k - 1, 0)], w[min(k + 1, 16)]
    return HinfNorm(best, best, math.inf, where, method="sampled", points=points)


def perturbation(kind: str, N: int, epsilon: float, seed: int = 0) -> Array:
    """A random perturbation with ||E||_2 = epsilon exactly.

    Args:
        kind: "ginibre" (complex normal entries), "real" (real normal entries) or "dissipative" (negative semidefinite
            symmetric part: minus a Wishart matrix plus a random skew-Hermitian one of equal norm).
        N: number of states.
        epsilon: 2-norm.
        seed: of the entries.

    Returns:
        (N, N), float64 for "real", complex128 else.

    Raises:
        InputError: another kind, or numbers that cannot be.
    """
    hippo.check_choice("kind", kind, ("ginibre", "real", "dissipative"))
    size, norm = hippo.check_size(N), hippo.check_positive("epsilon", epsilon)
    (rng,) = generators(seed, kind)
    E = rng.standard_normal((size, size))
    if kind != "real":
        E = E + 1j * rng.standard_normal((size, size))
    if kind == "dissipative":
        wishart, skew = E @ E.conj().T, (E - E.conj().T) / 2
        # N = 1 leaves a skew part that is a number; it may vanish
        size_of_skew = np.linalg.norm(skew, 2) or 1.0
        E = skew / size_of_skew - wishart / np.linalg.norm(wishart, 2)
    return E * (norm / np.linalg.norm(E, 2))


@dataclass(frozen=True)
class PTD(Initialization):
    """Perturb-then-diagonalise (PTD, arXiv 2310.01698).

    Attributes:
        perturbation: "ginibre", "real" or "dissipative": random, of 2-norm `epsilon`. "published": minimises the
            authors' objective. "optimised": ours, minimises kappa(V) subject to a deviation of at most `target`.
        epsilon: ||E||_2 of random perturbations; of the start of an optimisation it is the scale.
        relative: epsilon is in units of ||A_H||_2.
        objective: of "published": "code" minimises kappa^2 + weight ||E||_F, as the shipped code does; "paper"
            minimises kappa + weight ||E||_2, as the paper states.
        weight: weight of the norm in the published objectives.
        learning_rate: of Adam in "published".
        steps: steps of Adam, or iterations of "optimised".
        real: whether the optimised perturbation is real.
        target: largest deviation of "optimised".
        constraint: what `target` bounds: "deviation", the measured supremum, or "bound", the certified
            epsilon/(1/2 - lambda_max(sym E)).
        start: of "optimised": "hippo-rho" (the E that makes A_H + E the HiPPO-rho matrix with rho = 1 + 1/target) or
            "ginibre"; `perturb(start=...)` takes any matrix.
        variant: "published": the eigenvalues as they are. "shipped": real parts are replaced by -|Re|, as the authors'
            code does after optimising; a changed system where A_H + E was unstable, and `reflected` says so.
        name: "ptd".

    >>> told = PTD(epsilon=0.1).build(8, seed=1).diagnostics
    >>> round(told["epsilon"], 12), told["deviation_bound"] <= 2 * 0.1 / (1 - 2 * 0.1)
    (0.1, True)
    """

    name: ClassVar[str] = "ptd"
    perturbation: Literal["ginibre", "real", "dissipative", "published", "optimised"] = "ginibre"
    epsilon: float = 0.1
    relative: bool = False
    objective: Literal["code", "paper"] = "code"
    weight: float = 1e4
    learning_rate: float = 0.1
    steps: int = 1000
    real: bool = False
    target: float = 0.1
    constraint: Literal["deviation", "bound"] = "deviation"
    start: Literal["hippo-rho", "ginibre"] = "hippo-rho"
    variant: Literal["published", "shipped"] = "published"

    def __post_init__(self) -> None:
        kinds = ("ginibre", "real", "dissipative", "published", "optimised")
        hippo.check_choice("perturbation", self.perturbation, kinds)
        hippo.check_choice("objective", self.objective, ("code", "paper"))
        hippo.check_choice("constraint", self.constraint, ("deviation", "bound"))
        hippo.check_choice("start", self.start, ("hippo-rho", "ginibre"))
        hippo.check_choice("variant", self.variant, ("published", "shipped"))
        for key in ("epsilon", "weight", "learning_rate", "target"):
            hippo.check_positive(key, getattr(self, key))
        hippo.check_size(self.steps, 1, "steps")

    def perturb(self, N: int, seed: int = 0, start: Array | None = None) -> tuple[Array, Found | None]:
        """The perturbation E, and for an optimised one the record of the search.

        Args:
            N: number of states.
            seed: of random entries.
            start: (N, N) warm start of an optimisation; None for the one that the fields name.

        Returns:
            (E, record): E (N, N); record None for a random perturbation.

        Raises:
            InputError: a warm start of a random perturbation, or sizes that cannot be.
        """
        size = hippo.check_size(N)
        scale = self.epsilon * (_norm(hippo.legs(size)[0]) if self.relative else 1.0)
        if self.perturbation in ("ginibre", "real", "dissipative"):
            if start is not None:
                raise InputError(f"start with perturbation={self.perturbation!r}: only an optimisation has a start")
            return perturbation(self.perturbation, size, scale, seed), None
        if start is not None:
            first = _check_perturbation(size, start)
        elif self.perturbation == "published":
            # the code starts from uniform entries between 0 and 0.1
            (rng,) = generators(seed, "start")
            first = self.epsilon * rng.uniform(size=(size, size))
            if not self.real:
                first = first + 1j * self.epsilon * rng.uniform(size=(size, size))
        elif self.start == "ginibre" or self.constraint == "bound":
            first = perturbation("real" if self.real else "ginibre", size, scale, seed)
        else:
            from ssmtheory.inits.hippo_rho import HiPPORho, matrices

            factor = HiPPORho(1 + 1 / self.target, "auto" if self.real else "imaginary").factor(size)
            first = matrices(size, factor)[0] - hippo.legs(size)[0]
        if self.real:
            first = np.real(first).astype(np.float64)
        if self.perturbation == "published":
            found = minimise_published(first, self.objective, self.weight, self.learning_rate, self.steps)
        else:
            found = minimise_under_deviation(first, self.target, self.constraint, self.steps)
        return found.E, found

    def build(self, N: int, seed: int = 0) -> Realization:
        """Perturb and diagonalise; C = V leads back to the HiPPO basis.

        Args:
            N: number of states.
            seed: of the perturbation.

        Returns:
            The realisation; diagnostics as in `realize`, and for an optimised perturbation objective and iterations.

        Raises:
            InputError: sizes that cannot be.
            IllPosedDiagonalization: eigenvectors too ill-conditioned for double precision.
        """
        E, record = self.perturb(N, seed)
        built = self.realize(E)
        if record is None:
            return built
        told = {**built.diagnostics, "objective": record.value, "iterations": record.iterations}
        return Realization(built.system, built.basis, told)

    def realize(self, E: Array) -> Realization:
        """Diagonalise LegS plus a given perturbation.

        Args:
            E: (N, N) perturbation.

        Returns:
            The realisation: diagonal, B = V^{-1} B_H, C = V with unit columns. Diagnostics: epsilon, relative_epsilon
            (in units of ||A_H||_2), kappa, spectral_abscissa, numerical_abscissa (of A_H + E), symmetric_abscissa
            (lambda_max of sym E), backward_error (of the eigendecomposition, relative, in the Frobenius norm),
            deviation_bound (inf outside every theorem), paper_bound, stable, reflected (how many real parts "shipped"
            turned round).

        Raises:
            InputError: a perturbation that is not a finite square matrix.
            IllPosedDiagonalization: eigenvectors too ill-conditioned for double precision.
        """
        size = np.shape(E)[0] if np.ndim(E) else 0
        matrix = _check_perturbation(size, E)
        A, B = hippo.legs(size)
        whole = A + matrix
        poles, V = np.linalg.eig(whole)
        poles, V = poles.astype(np.complex128), V.astype(np.complex128)
        order = np.argsort(-poles.imag, kind="stable")
        poles, V = poles[order], V[:, order] / np.linalg.norm(V[:, order], axis=0)
        values = np.linalg.svd(V, compute_uv=False)
        kappa = float(values[0] / values[-1]) if values[-1] > 0 else math.inf
        epsilon, top = _norm(matrix), symmetric_abscissa(matrix)
        if kappa > _WORST_CONDITION:
            raise IllPosedDiagonalization(
                f"A_H + E has eigenvectors of condition number {kappa:.2g} at N={size}, ||E||={epsilon:.2g}: "
                "take a larger perturbation, or HiPPORho, which is closer to LegS at a condition number of about rho",
                kappa,
            )
        whole_norm = float(np.linalg.norm(whole))
        residual = float(np.linalg.norm(whole - np.linalg.solve(V.T, (V * poles).T).T))
        told: dict[str, Any] = {
            "epsilon": epsilon,
            "relative_epsilon": epsilon / _norm(A),
            "kappa": kappa,
            "spectral_abscissa": float(poles.real.max()),
            "numerical_abscissa": symmetric_abscissa(whole),
            "symmetric_abscissa": top,
            "backward_error": residual / whole_norm,
            "deviation_bound": epsilon / (0.5 - top) if top < 0.5 else math.inf,
            "paper_bound": paper_bound(size, epsilon),
            "stable": bool(poles.real.max() < 0),
            "reflected": 0,
        }
        if self.variant == "shipped":
            told["reflected"] = int((poles.real > 0).sum())
            poles = -np.abs(poles.real) + 1j * poles.imag
        return Realization(DiagonalStateSpace(poles, np.linalg.solve(V, B), V), V, told)

    def layer(
        self, features: int, N: int, seed: int = 0, dt_min: float = 1e-3, dt_max: float = 1e-1
    ) -> LayerParameters:
        """Draw a layer with all modes, real readout: B = V^{-1} B_H, C = (real normal) V, ZOH.

        Args:
            features: number of features.
            N: number of states.
            seed: of the perturbation, of C and of the steps.
            dt_min: smallest step in seconds.
            dt_max: largest step in seconds.

        Returns:
            The parameters, readout "real"; `S4PTD` has the layer that the authors ship.

        Raises:
            InputError: sizes or steps that cannot be.
        """
        return _layer(self, features, N, seed, dt_min, dt_max, "real")


def _layer(
    init: PTD,
    features: int,
    modes: int,
    seed: int,
    dt_min: float,
    dt_max: float,
    readout: Literal["real", "twice_real"],
) -> LayerParameters:
    count = hippo.check_size(features, 1, "features")
    built = init.build(modes, seed)
    system = built.system
    assert isinstance(system, DiagonalStateSpace)
    rng_c, rng_dt = generators(seed, "C", "steps")
    return LayerParameters(
        system.diagonal,
        system.B[:, 0],
        rng_c.standard_normal((count, modes)) @ built.basis,
        log_steps(rng_dt, count, dt_min, dt_max),
        readout=readout,
        diagnostics=built.diagnostics,
    )


@dataclass(frozen=True)
class S4PTD(PTD):
    """S4-PTD as the authors' code has it: N/2 full complex modes of a perturbed LegS of N/2 states, y = 2 Re(C x).

    The modes are not conjugate pairs, yet the code takes twice the real part; `layer(...).system()` is the real system
    that results.

    Attributes:
        name: "s4-ptd".
    """

    name: ClassVar[str] = "s4-ptd"

    def layer(
        self, features: int, N: int, seed: int = 0, dt_min: float = 1e-3, dt_max: float = 1e-1
    ) -> LayerParameters:
        """Draw a layer: `PTD` of N/2 states, all its modes, C = (real normal) V, ZOH.

        Args:
            features: number of features.
            N: the layer's d_state, even; N/2 modes.
            seed: of the perturbation, of C and of the steps.
            dt_min: smallest step in seconds.
            dt_max: largest step in seconds.

        Returns:
            The parameters, readout "twice_real".

        Raises:
            InputError: sizes or steps that cannot be.
        """
        return _layer(self, features, _even(N) // 2, seed, dt_min, dt_max, "twice_real")


@dataclass(frozen=True)
class S5PTD(PTD):
    """S5-PTD: a perturbed LegS in each block, B = V^{-1} times a LeCun-normal matrix, C times V.

    Attributes:
        blocks: number of equal blocks; all hold the same perturbed matrix.
        name: "s5-ptd".
    """

    name: ClassVar[str] = "s5-ptd"
    blocks: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        hippo.check_size(self.blocks, 1, "blocks")

    def layer(
        self, features: int, N: int, seed: int = 0, dt_min: float = 1e-3, dt_max: float = 1e-1
    ) -> LayerParameters:
        """Draw a layer: as S5's, with the perturbed block in place of the normal part, all modes, y = Re(C x).

        Args:
            features: number of features.
            N: number of states.
            seed: of everything random.
            dt_min: smallest step in seconds.
            dt_max: largest step in seconds.

        Returns:
            The parameters, scope "layer", readout "real".

        Raises:
            InputError: sizes or steps that cannot be.
        """
        built = self.build(block_size(N, self.blocks), seed)
        system = built.system
        assert isinstance(system, DiagonalStateSpace)
        return blocks_layer(
            (system.diagonal, built.basis, np.linalg.inv(built.basis)), self.blocks, features, N, seed, dt_min, dt_max,
            readout="real", diagnostics=dict(built.diagnostics),
        )  # fmt: skip
