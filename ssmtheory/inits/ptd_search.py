"""Search for perturbations of LegS: exact gradients of the eigenvectors' condition number, in NumPy.

`minimise_published` runs the authors' Adam on their objective. `minimise_under_deviation` is ours: the least condition
number under a given deviation from LegS, by an augmented Lagrangian with L-BFGS. The first trades two quantities that
the user does not want (kappa^2 and a matrix norm); the second bounds the one that matters, the distance of transfer
vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.inits import hippo
from ssmtheory.typing import Array

__all__ = ["Found", "condition_gradient", "minimise_published", "minimise_under_deviation"]


@dataclass(frozen=True)
class Found:
    """Where a search ended.

    Attributes:
        E: (N, N) perturbation.
        value: the objective: what the method minimises.
        kappa: condition number of the unit eigenvectors of A_H + E.
        iterations: iterations, or steps of Adam.
        history: objective along the way.
    """

    E: Array
    value: float
    kappa: float
    iterations: int
    history: tuple[float, ...] = field(repr=False, default=())


def condition_gradient(A: Array) -> tuple[float, Array, Array, Array]:
    """ln kappa of the unit eigenvectors of a matrix, and its gradient.

    kappa = s_1/s_N of V. A change dA moves the eigenvectors by V (K o F) with K = V^{-1} dA V and
    F_ij = 1/(lambda_j - lambda_i), and normalisation takes back Re(v_j* dv_j) v_j.

    Args:
        A: (N, N) with distinct eigenvalues.

    Returns:
        ln kappa, the gradient G (N, N) complex128 with d ln kappa = Re tr(G* dA), eigenvalues (N,), V (N, N).
    """
    w, V = np.linalg.eig(A)
    V = V / np.linalg.norm(V, axis=0)
    left, s, right = np.linalg.svd(V)
    g = np.outer(left[:, 0], right[0]) / s[0] - np.outer(left[:, -1], right[-1]) / s[-1]
    adjoint = V.conj().T
    middle = adjoint @ g - (adjoint @ V) * np.einsum("ij,ij->j", V.conj(), g).real
    gap = w[None, :] - w[:, None]
    np.fill_diagonal(gap, 1)
    inner = middle / gap.conj()
    np.fill_diagonal(inner, 0)
    return math.log(s[0] / s[-1]), np.linalg.solve(adjoint, inner @ adjoint), w, V


def minimise_published(start: Array, objective: str, weight: float, learning_rate: float, steps: int) -> Found:
    """Adam on the published objective.

    Args:
        start: (N, N) first perturbation; a real one stays real.
        objective: "code": kappa^2 + weight ||E||_F; "paper": kappa + weight ||E||_2.
        weight: weight of the norm.
        learning_rate: of Adam.
        steps: number of steps.

    Returns:
        The best perturbation met.

    References:
        arXiv 2310.01698 (PTD) for the objectives: the paper states the second, its code minimises the first.
    """
    hippo.check_choice("objective", objective, ("code", "paper"))
    N = start.shape[0]
    A = hippo.legs(N)[0]
    real = not np.iscomplexobj(start)
    E = start.astype(np.complex128)
    first = np.zeros((N, N), dtype=np.complex128)
    second = np.zeros((2, N, N))
    best, history = (math.inf, E, math.inf), []
    for step in range(1, steps + 1):
        log_kappa, G, _, _ = condition_gradient(A + E)
        kappa = math.exp(log_kappa)
        if objective == "code":
            norm = float(np.linalg.norm(E))
            value, gradient = kappa**2 + weight * norm, 2 * kappa**2 * G + weight * E / (norm or 1.0)
        else:
            left, s, right = np.linalg.svd(E)
            value, gradient = kappa + weight * s[0], kappa * G + weight * np.outer(left[:, 0], right[0])
        if real:
            gradient = gradient.real + 0j
        history.append(float(value))
        if value < best[0]:
            best = float(value), E.copy(), kappa
        # Adam treats real and imaginary parts as numbers of their own
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * np.square([gradient.real, gradient.imag])
        scale = np.sqrt(second / (1 - 0.999**step)) + 1e-8
        mean = first / (1 - 0.9**step)
        E = E - learning_rate * (mean.real / scale[0] + 1j * mean.imag / scale[1])
    E = best[1].real if real else best[1]
    return Found(E, best[0], best[2], steps, tuple(history))


def _gains(E: Array, w: Array, V: Array, omega: Array, X: Array) -> tuple[Array, Array, Array]:
    """||R_E E X|| (k,) at i omega, its unit vectors (k, N) and X_E (k, N), from the eigendecomposition of A_H + E."""
    resolvent = 1 / (1j * omega[:, None] - w)
    F = (resolvent * np.linalg.solve(V, E @ X.T).T) @ V.T
    gain = np.linalg.norm(F, axis=1)
    return gain, F / np.maximum(gain, 1e-300)[:, None], F + X


def minimise_under_deviation(
    start: Array, target: float, constraint: str = "deviation", iterations: int = 400
) -> Found:
    """Least kappa(V) of A_H + E such that the deviation from LegS is at most `target`.

    Minimises ln kappa + an augmented Lagrangian of the constraint ln(deviation/target) <= 0 by L-BFGS. The measured
    deviation enters as a smooth maximum over frequencies: a fixed grid, and the resonances of the current matrix,
    renewed at each outer step. The last step pulls E back along the segment from LegS until the measured supremum, as
    `ptd.deviation` brackets it, keeps the target.

    Args:
        start: (N, N) warm start, not zero; a real one stays real.
        target: largest deviation.
        constraint: "deviation": sup_w ||X_E - X||, measured; "bound": ||E||_2/(1/2 - lambda_max(sym E)), certified.
        iterations: in total, over all outer steps.

    Returns:
        The perturbation; `value` is its deviation or bound.

    Raises:
        InputError: a zero start, or a start under "bound" whose symmetric part reaches 1/2.
    """
    from scipy.optimize import minimize

    hippo.check_choice("constraint", constraint, ("deviation", "bound"))
    N = start.shape[0]
    A = hippo.legs(N)[0]
    real = not np.iscomplexobj(start)
    if not np.any(start):
        raise InputError("start is zero: LegS itself has no usable eigenvectors to begin from")
    if constraint == "bound":
        norm = float(np.linalg.norm(start, 2))
        start = start * min(1.0, target / (2 + 2 * target) / norm)

    def unpack(x: Array) -> Array:
        return x.reshape(N, N) if real else x[: N * N].reshape(N, N) + 1j * x[N * N :].reshape(N, N)

    def pack(G: Array) -> Array:
        return G.real.ravel() if real else np.concatenate([G.real.ravel(), G.imag.ravel()])

    state: dict[str, Any] = {"multiplier": 0.0, "penalty": 10.0, "excess": 0.0}

    def measure(E: Array, w: Array, V: Array) -> tuple[float, Array]:
        """ln of the constrained quantity, and its gradient."""
        if constraint == "bound":
            left, s, right = np.linalg.svd(E)
            values, vectors = np.linalg.eigh((E + E.conj().T) / 2)
            room = 0.5 - values[-1]
            if room <= 0:
                return math.inf, np.zeros_like(E)
            v = vectors[:, -1]
            return math.log(s[0] / room), np.outer(left[:, 0], right[0]) / s[0] + np.outer(v, v.conj()) / room
        gain, f, XE = _gains(E, w, V, state["omega"], state["X"])
        sharp = 24.0
        top = gain.max()
        powers = (gain / top) ** sharp
        total = powers.sum()
        smooth = math.log(top) + math.log(total) / sharp
        # d ||F|| = Re(f* R_E dE X_E)
        weight = powers / total / np.maximum(gain, 1e-300)
        left = np.linalg.solve(V.conj().T, (1 / (1j * state["omega"][:, None] - w)).conj().T * (V.conj().T @ f.T))
        return smooth, (left * weight) @ XE.conj()

    def lagrangian(x: Array) -> tuple[float, Array]:
        E = unpack(x)
        log_kappa, G, w, V = condition_gradient(A + E)
        level, slope = measure(E, w, V)
        if not math.isfinite(level) or not np.isfinite(G).all():
            return 1e10, np.zeros_like(x)
        over = level - state["excess"] - math.log(target)
        push = max(0.0, state["multiplier"] + state["penalty"] * over)
        return log_kappa + (push**2 - state["multiplier"] ** 2) / (2 * state["penalty"]), pack(G + push * slope)

    grid = np.concatenate([[0.0], np.geomspace(0.05, 4.0 * N * N, 40 + 2 * N)])
    if not real:
        grid = np.unique(np.concatenate([-grid, grid]))
    x = pack(start.astype(np.complex128))
    outer = 6
    done, history = 0, []
    for _ in range(outer):
        w = np.linalg.eigvals(A + unpack(x))
        heights = np.abs(w.imag) if real else w.imag
        state["omega"] = np.unique(np.concatenate([grid, heights]))
        state["X"] = hippo.transfer(N, 1j * state["omega"])
        found = minimize(
            lagrangian, x, jac=True, method="L-BFGS-B", options={"maxiter": max(1, iterations // outer), "maxcor": 20}
        )
        x, done = found.x, done + int(found.nit)
        history.append(float(found.fun))
        E = unpack(x)
        _, _, w, V = condition_gradient(A + E)
        smooth = measure(E, w, V)[0]
        if constraint == "deviation":
            # what the smooth maximum lies above the true one
            state["excess"] = smooth - math.log(float(_gains(E, w, V, state["omega"], state["X"])[0].max()))
        over = smooth - state["excess"] - math.log(target)
        state["multiplier"] = max(0.0, state["multiplier"] + state["penalty"] * over)
        state["penalty"] *= 3
    return _pull_back(unpack(x), target, constraint, done, tuple(history))


def _pull_back(E: Array, target: float, constraint: str, iterations: int, history: tuple[float, ...]) -> Found:
    from ssmtheory.inits.ptd import deviation, deviation_bound

    A = hippo.legs(E.shape[0])[0]

    def level(scale: float) -> float:
        if constraint == "bound":
            return float(deviation_bound(scale * E))
        return deviation(E.shape[0], scale * E, tol=1e-4).upper

    scale, value = 1.0, level(1.0)
    for _ in range(60):
        if value <= target:
            break
        scale *= max(0.5, min(0.999, (target / value) ** 0.5))
        value = level(scale)
    return Found(scale * E, value, math.exp(condition_gradient(A + scale * E)[0]), iterations, history)
