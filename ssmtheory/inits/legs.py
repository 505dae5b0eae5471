"""HiPPO systems as they stand (LegS, LegT, LagT, FouT), and S4's diagonal plus low-rank form of LegS."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.inits import hippo
from ssmtheory.inits.base import Initialization, LayerParameters, Realization, paired_layer
from ssmtheory.inits.closed_form import legs_family
from ssmtheory.lti import LowRankStateSpace, StateSpace, TransferFunction, TriangularStateSpace
from ssmtheory.typing import Array

__all__ = ["S4", "FouT", "LagT", "LegS", "LegT", "legs_modes", "shipped_modes"]


def legs_modes(N: int) -> tuple[Array, Array, Array]:
    """Eigenvalues, unitary eigenvectors and V* B of the normal part A_N of LegS, in closed form.

    lambda = -1/2 + i y by the arctan law, v = X(lambda)/sqrt(2 S(y)), and v* B = sqrt(2/S(y)), real and positive in
    this choice of phases: no eigensolver.

    Args:
        N: number of states.

    Returns:
        lambda (N,) complex128 by falling imaginary part, V (N, N) complex128 unitary to rounding, V* B (N,) float64.

    Raises:
        InputError: a size that cannot be.
    """
    heights = hippo.phase_heights(N)
    poles = -0.5 + 1j * heights
    slope = hippo.phase_slope(N, heights)
    return poles, hippo.transfer(N, poles).T / np.sqrt(2 * slope), np.sqrt(2 / slope)


def shipped_modes(N: int, clip: float | None = 2.0) -> tuple[Array, Array, Array, Array]:
    """The modes of LegS as the public S4 code prepares them: LAPACK's phases, half the modes, Im(V* B) clipped.

    The code takes `eigh` of -i times the normal part, keeps the eigenvalues of negative imaginary part, and clamps the
    imaginary part of V* B to +-2. LAPACK puts V* B almost wholly on the imaginary axis, so that this changes B by most
    of its norm, and by an amount that depends on LAPACK's choice of phases: another system than the published one.

    Args:
        N: number of states, even.
        clip: bound of |Im(V* B)|, or None for none.

    Returns:
        lambda (N/2,), V (N, N/2), V* B (N/2,), V* P (N/2,): complex128.

    Raises:
        InputError: an odd size.
    """
    A, P, B = hippo.nplr(_even(N))
    heights, V = np.linalg.eigh((A + 0.5 * np.eye(N)) * -1j)
    heights, V = heights[: N // 2], V[:, : N // 2]
    b, p = V.conj().T @ B, V.conj().T @ P[:, 0]
    if clip is not None:
        b = b.real + 1j * np.clip(b.imag, -clip, clip)
    return -0.5 + 1j * heights, V, b, p


def _even(N: int) -> int:
    size = hippo.check_size(N, 2)
    if size % 2:
        raise InputError(f"N={N}: half of the modes are stored, one of each conjugate pair: N must be even")
    return size


class _Triangular(Initialization):
    """Layers of a real dense HiPPO matrix go through its normal plus low-rank form."""

    measure: ClassVar[str] = ""

    def _options(self) -> dict[str, Any]:
        return {}

    def layer(
        self, features: int, N: int, seed: int = 0, dt_min: float = 1e-3, dt_max: float = 1e-1
    ) -> LayerParameters:
        """Draw an S4 layer of this measure: diagonal plus low rank, half the modes, C complex normal, bilinear.

        Args:
            features: number of features.
            N: number of states, even.
            seed: of C and of the steps.
            dt_min: smallest step in seconds.
            dt_max: largest step in seconds.

        Returns:
            The parameters; `P` has one column per rank.

        Raises:
            InputError: sizes or steps that cannot be.
        """
        size = _even(N)
        A, P, B = hippo.nplr(size, self.measure, **self._options())
        shift = float(A[0, 0])
        heights, V = np.linalg.eigh((A - shift * np.eye(size)) * -1j)
        keep = np.argsort(-heights)[: size // 2]
        heights, V = heights[keep], V[:, keep]
        return paired_layer(
            shift + 1j * heights,
            V.conj().T @ B,
            features,
            seed,
            dt_min,
            dt_max,
            P=V.conj().T @ P,
            discretization="bilinear_s4",
        )


@dataclass(frozen=True)
class LegS(_Triangular):
    """HiPPO-LegS: triangular, with the closed form X(s); kernels sqrt(2n+1) e^{-t} P_n(2 e^{-t} - 1).

    Attributes:
        name: "legs".
        measure: "legs".

    >>> LegS().build(8).system[0](0.0).real.round(12).tolist()
    [[1.0]]
    """

    name: ClassVar[str] = "legs"
    measure: ClassVar[str] = "legs"

    def build(self, N: int, seed: int = 0) -> Realization:
        """Build the system; C is the identity.

        Args:
            N: number of states.
            seed: not used.

        Returns:
            The realisation. Diagnostics: spectral_abscissa (-1), numerical_abscissa (-1/2 for N > 1).

        Raises:
            InputError: an N that cannot be.
        """
        A, B = hippo.legs(N)
        eye = np.eye(N)
        told = {"spectral_abscissa": -1.0, "numerical_abscissa": -0.5 if N > 1 else -1.0}
        return Realization(TriangularStateSpace(A, B, eye, closed_form=legs_family(N)), eye, told)


@dataclass(frozen=True)
class LegT(_Triangular):
    """HiPPO-LegT, a sliding window in the Legendre basis.

    Attributes:
        window: length of the window in seconds.
        variant: "published", "shipped" (double window) or "lmu"; see `hippo.legt`.
        name: "legt".
        measure: "legt".
    """

    name: ClassVar[str] = "legt"
    measure: ClassVar[str] = "legt"
    window: float = 1.0
    variant: Literal["published", "shipped", "lmu"] = "published"

    def __post_init__(self) -> None:
        hippo.check_positive("window", self.window)
        hippo.check_choice("variant", self.variant, ("published", "shipped", "lmu"))

    def _options(self) -> dict[str, Any]:
        return {"window": self.window, "variant": self.variant}

    def build(self, N: int, seed: int = 0) -> Realization:
        """Build the system; C is the identity.

        Args:
            N: number of states.
            seed: not used.

        Returns:
            The realisation. Diagnostics: delay_output, the C whose output approximates the input one window ago.

        Raises:
            InputError: an N that cannot be.
        """
        A, B = hippo.legt(N, self.window, self.variant)
        n = np.arange(N)
        delay = np.ones(N) if self.variant == "lmu" else np.where(n % 2 == 0, 1.0, -1.0) * np.sqrt(2.0 * n + 1)
        return Realization(StateSpace(A, B, np.eye(N)), np.eye(N), {"delay_output": delay})


@dataclass(frozen=True)
class LagT(_Triangular):
    """HiPPO-LagT: state n has the kernel exp(-weight t) L_n(t).

    Attributes:
        weight: decay in 1/s; 1 projects onto the measure exp(-t), 1/2 has orthonormal kernels.
        name: "lagt".
        measure: "lagt".
    """

    name: ClassVar[str] = "lagt"
    measure: ClassVar[str] = "lagt"
    weight: float = 1.0

    def __post_init__(self) -> None:
        hippo.check_positive("weight", self.weight)

    def _options(self) -> dict[str, Any]:
        return {"weight": self.weight}

    def build(self, N: int, seed: int = 0) -> Realization:
        """Build the system; C is the identity.

        Args:
            N: number of states.
            seed: not used.

        Returns:
            The realisation. Diagnostics: spectral_abscissa.

        Raises:
            InputError: an N that cannot be.
        """
        A, B = hippo.lagt(N, self.weight)
        closed = self._closed_form(hippo.check_size(N))
        return Realization(
            TriangularStateSpace(A, B, np.eye(N), closed_form=closed), np.eye(N), {"spectral_abscissa": -self.weight}
        )

    def _closed_form(self, N: int) -> TransferFunction:
        weight = self.weight

        def evaluate(s: Array, outputs: Array) -> Array:
            first = 1 / (s + weight)
            return (first[:, None] * ((s - (1 - weight)) * first)[:, None] ** outputs)[:, :, None]

        # |s + w - 1| <= growth |s + w| on the axis
        growth = max(1.0, abs(weight - 1) / weight)
        n = np.arange(N)
        with np.errstate(over="ignore"):
            powers = growth**n
        most, steepest = float(np.linalg.norm(powers)), float(np.linalg.norm(powers * (2 * n + 1)))

        def slope(a: Array, b: Array) -> Array:
            lo = np.maximum(0, np.maximum(a, -b))
            return steepest / (lo**2 + weight**2)

        return TransferFunction(
            evaluate,
            (N, 1),
            poles=np.full(N, -weight),
            resonances=[0.0],
            slope=slope,
            tail=lambda omega: most / math.hypot(omega, weight),
            stable=True,
        )


@dataclass(frozen=True)
class FouT(_Triangular):
    """HiPPO-FouT, a sliding window in the Fourier basis.

    Attributes:
        window: length of the window in seconds; 1 is the authors' "fourier2", 2 their "fourier".
        correction: 1, or 1/2 for the authors' "fourier_decay".
        name: "fout".
        measure: "fout".
    """

    name: ClassVar[str] = "fout"
    measure: ClassVar[str] = "fout"
    window: float = 1.0
    correction: float = 1.0

    def __post_init__(self) -> None:
        hippo.check_positive("window", self.window)
        hippo.check_positive("correction", self.correction)

    def _options(self) -> dict[str, Any]:
        return {"window": self.window, "correction": self.correction}

    def build(self, N: int, seed: int = 0) -> Realization:
        """Build the system without the state that nothing drives: N outputs, N - 1 states.

        Output 1, the sine of frequency 0, is zero. With that state kept the system would have a pole at 0 and no
        H-infinity norm.

        Args:
            N: number of states of the published layer, even.
            seed: not used.

        Returns:
            The realisation: diagonal plus low rank in the complex exponentials. Diagnostics: uncontrollable, the number
            of states left out.

        Raises:
            InputError: an odd N.
        """
        A, B = hippo.fout(N, self.window, self.correction)
        size, length = A.shape[0], self.window
        j = np.arange(1, size // 2)
        # cosine and sine pair (c, s)' = omega (-s, c): modes (c -+ i s)/sqrt 2 at +-i omega
        omega = 2 * np.pi * j / length
        poles = np.concatenate([[0.0], 1j * omega, -1j * omega])
        V = np.zeros((size, size - 1), dtype=complex)
        V[0, 0] = 1
        root = math.sqrt(0.5)
        V[2 * j, j] = V[2 * j, j + size // 2 - 1] = root
        V[2 * j + 1, j], V[2 * j + 1, j + size // 2 - 1] = -1j * root, 1j * root
        b = V.conj().T @ B  # c B_paper: the rank-one part is - B B^T length / (2 correction)
        P = b * math.sqrt(length / (2 * self.correction))

        def evaluate(s: Array, outputs: Array) -> Array:
            # Sherman-Morrison, multiplied through by the distance to the nearest frequency: finite on every one of them
            gap = s[:, None] - poles
            row = np.arange(s.size)
            nearest = np.abs(gap).argmin(axis=1)
            scale = gap[row, nearest].copy()
            gap[row, nearest] = 1
            ratio = scale[:, None] / gap
            ratio[row, nearest] = 1
            x = ratio * b / (scale + ratio @ np.abs(P) ** 2)[:, None]
            return (x @ V[outputs].T)[:, :, None]

        closed = TransferFunction(evaluate, (size, 1))
        return Realization(LowRankStateSpace(poles, P, P, b, V, closed_form=closed), V, {"uncontrollable": 1})


@dataclass(frozen=True)
class S4(Initialization):
    """S4: LegS as diagonal plus low rank, A = diag(lambda) - P P*, in the eigenvectors of the normal part.

    Attributes:
        variant: "published", or "shipped": V* B clipped to |Im| <= 2 in LAPACK's phases (see `shipped_modes`).
        name: "s4".
    """

    name: ClassVar[str] = "s4"
    variant: Literal["published", "shipped"] = "published"

    def __post_init__(self) -> None:
        hippo.check_choice("variant", self.variant, ("published", "shipped"))

    def build(self, N: int, seed: int = 0) -> Realization:
        """Build the system; C = V leads back to the HiPPO basis.

        Args:
            N: number of states; even for "shipped".
            seed: not used.

        Returns:
            The realisation; "published" is LegS to rounding and carries its closed form. Diagnostics: for "shipped"
            input_change, the relative change of B in norm.

        Raises:
            InputError: an N that cannot be.
        """
        if self.variant == "shipped":
            poles, V, b, p = shipped_modes(N)
            exact = shipped_modes(N, None)[2]
            full, V, b, p = (np.concatenate([x, x.conj()], axis=-1) for x in (poles, V, b, p))
            change = float(np.linalg.norm(b[: N // 2] - exact) / np.linalg.norm(exact))
            return Realization(LowRankStateSpace(full, p, p, b, V), V, {"input_change": change})
        poles, V, b = legs_modes(N)
        P = b / math.sqrt(2)
        return Realization(LowRankStateSpace(poles, P, P, b, V, closed_form=legs_family(N)), V)

    def layer(
        self, features: int, N: int, seed: int = 0, dt_min: float = 1e-3, dt_max: float = 1e-1
    ) -> LayerParameters:
        """Draw an S4 layer: half the modes, C complex normal, steps log-uniform, bilinear in S4's convention.

        Args:
            features: number of features.
            N: number of states, even.
            seed: of C and of the steps.
            dt_min: smallest step in seconds.
            dt_max: largest step in seconds.

        Returns:
            The parameters, with `P`.

        Raises:
            InputError: sizes or steps that cannot be.
        """
        size = _even(N)
        if self.variant == "shipped":
            poles, _, b, p = shipped_modes(size)
        else:
            poles, _, b = (x[..., : size // 2] for x in legs_modes(size))
            p = b / math.sqrt(2)
        return paired_layer(poles, b, features, seed, dt_min, dt_max, P=p[:, None], discretization="bilinear_s4")
