"""Diagonal initialisations: S4D-LegS, -Inv, -Lin, -Real, the arctan law, and DSS."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ssmtheory.inits import hippo
from ssmtheory.inits.base import Initialization, LayerParameters, Realization, generators, log_steps, paired_layer
from ssmtheory.inits.closed_form import legs_family
from ssmtheory.inits.legs import _even, legs_modes, shipped_modes
from ssmtheory.lti import DiagonalStateSpace
from ssmtheory.typing import Array

__all__ = ["DSS", "S4DArctan", "S4DInv", "S4DLegS", "S4DLin", "S4DReal", "inverse_law", "linear_law"]


def inverse_law(N: int) -> Array:
    """Imaginary parts of S4D-Inv: (N/pi)(N/(2n+1) - 1), n = 0 .. floor(N/2) - 1 (S4D, arXiv 2206.11893, eq. 8).

    Args:
        N: number of states.

    Returns:
        (floor(N/2),) float64, decreasing, rad/s.

    Raises:
        InputError: a size that cannot be.

    >>> inverse_law(4).round(6).tolist()
    [3.819719, 0.424413]
    """
    n = np.arange(hippo.check_size(N) // 2)
    return N / np.pi * (N / (2 * n + 1) - 1)


def linear_law(N: int) -> Array:
    """Imaginary parts of S4D-Lin: pi n, n = 0 .. floor(N/2) - 1 (S4D, arXiv 2206.11893, eq. 9).

    Args:
        N: number of states.

    Returns:
        (floor(N/2),) float64, rising, rad/s.

    Raises:
        InputError: a size that cannot be.
    """
    return np.pi * np.arange(hippo.check_size(N) // 2)


@dataclass(frozen=True)
class _Diagonal(Initialization):
    """What the diagonal initialisations share.

    Attributes:
        discretization: of layers, "bilinear_s4" as in the paper's listing, or "zoh".
    """

    discretization: Literal["bilinear_s4", "zoh"] = "bilinear_s4"

    def __post_init__(self) -> None:
        hippo.check_choice("discretization", self.discretization, ("bilinear_s4", "zoh"))

    @abc.abstractmethod
    def _half(self, N: int) -> tuple[Array, Array]:
        """The stored poles of a layer and their input."""

    def layer(
        self, features: int, N: int, seed: int = 0, dt_min: float = 1e-3, dt_max: float = 1e-1
    ) -> LayerParameters:
        """Draw a layer: one mode of each pair, C complex normal, steps log-uniform (S4D, arXiv 2206.11893).

        Args:
            features: number of features.
            N: number of states, even.
            seed: of C and of the steps.
            dt_min: smallest step in seconds.
            dt_max: largest step in seconds.

        Returns:
            The parameters, readout "pairs".

        Raises:
            InputError: sizes or steps that cannot be.
        """
        size = _even(N)
        poles, B = self._half(size)
        return paired_layer(poles, B, features, seed, dt_min, dt_max, discretization=self.discretization)


@dataclass(frozen=True)
class S4DLegS(_Diagonal):
    """S4D-LegS: the normal part of LegS alone. Its transfer vector is X(s) / (1 + phi(s)), with the input B/2.

    Attributes:
        variant: "published": B/2, as the theorem of S4D has it. "shipped": B without the half, and Im(V* B) clipped to
            +-2 in LAPACK's phases, as the public code does; another system (see `legs.shipped_modes`).
        discretization: of layers, "bilinear_s4" or "zoh".
        name: "s4d-legs".

    >>> gap = S4DLegS().build(8).system[0] - legs_family(8)[0]
    >>> round(gap.hinf_norm().value, 7)
    0.6437852
    """

    name: ClassVar[str] = "s4d-legs"
    variant: Literal["published", "shipped"] = "published"

    def __post_init__(self) -> None:
        super().__post_init__()
        hippo.check_choice("variant", self.variant, ("published", "shipped"))

    def build(self, N: int, seed: int = 0) -> Realization:
        """Build the system; C = V leads back to the HiPPO basis.

        Args:
            N: number of states; even for "shipped".
            seed: not used.

        Returns:
            The realisation; "published" carries the closed form. Diagnostics: kappa (1), spectral_abscissa (-1/2); for
            "shipped" input_change, the change of B relative to B/2 in norm.

        Raises:
            InputError: an N that cannot be.
        """
        told: dict[str, Any] = {"kappa": 1.0, "spectral_abscissa": -0.5}
        if self.variant == "shipped":
            poles, V, b, _ = shipped_modes(N)
            exact = shipped_modes(N, None)[2] / 2
            told["input_change"] = float(np.linalg.norm(b - exact) / np.linalg.norm(exact))
            poles, V, b = (np.concatenate([x, x.conj()], axis=-1) for x in (poles, V, b))
            return Realization(DiagonalStateSpace(poles, b, V), V, told)
        poles, V, b = legs_modes(N)
        return Realization(DiagonalStateSpace(poles, b / 2, V, closed_form=legs_family(N, 1.0, poles)), V, told)

    def _half(self, N: int) -> tuple[Array, Array]:
        if self.variant == "shipped":
            poles, _, b, _ = shipped_modes(N)
            return poles, b
        heights = hippo.spectrum(N)
        return -0.5 + 1j * heights, np.sqrt(0.5 / hippo.phase_slope(N, heights))


@dataclass(frozen=True)
class _Law(_Diagonal):
    """Poles -1/2 +- i y_n by an explicit law.

    Attributes:
        basis: "hippo": the poles of S4D-LegS are replaced in order of size, its eigenvectors and input kept, so that
            outputs compare with LegS. "modes": B = 1 and C = identity, as the paper's listing has it.
    """

    basis: Literal["hippo", "modes"] = "hippo"

    def __post_init__(self) -> None:
        super().__post_init__()
        hippo.check_choice("basis", self.basis, ("hippo", "modes"))

    @abc.abstractmethod
    def heights(self, N: int) -> Array:
        """Imaginary parts of the upper poles.

        Args:
            N: number of states.

        Returns:
            (N/2,) float64, rad/s.
        """

    def _half(self, N: int) -> tuple[Array, Array]:
        heights = self.heights(N)
        if self.basis == "hippo":
            return -0.5 + 1j * heights, np.sqrt(0.5 / hippo.phase_slope(N, hippo.spectrum(N)))
        return -0.5 + 1j * heights, np.ones(heights.size)

    def build(self, N: int, seed: int = 0) -> Realization:
        """Build the system.

        Args:
            N: number of states, even.
            seed: not used.

        Returns:
            The realisation. Diagnostics: spectral_abscissa, largest_relative_error of the law against the spectrum of
            the normal part of LegS.

        Raises:
            InputError: an odd N.
        """
        size = _even(N)
        heights = self.heights(size)
        exact = hippo.spectrum(size)
        told = {
            "spectral_abscissa": -0.5,
            "largest_relative_error": float(np.abs(np.sort(heights)[::-1] / exact - 1).max()),
        }
        if self.basis == "hippo":
            _, V, b = legs_modes(size)
            order = np.sort(heights)[::-1]
            poles = -0.5 + 1j * np.concatenate([order, -order[::-1]])
            return Realization(DiagonalStateSpace(poles, b / 2, V), V, told)
        poles = -0.5 + 1j * np.concatenate([heights, -heights])
        eye = np.eye(size)
        return Realization(DiagonalStateSpace(poles, np.ones(size), eye), eye, told)


@dataclass(frozen=True)
class S4DInv(_Law):
    """S4D-Inv: imaginary parts (N/pi)(N/(2n+1) - 1) (S4D, arXiv 2206.11893, eq. 8).

    Attributes:
        basis: "hippo" or "modes".
        discretization: of layers, "bilinear_s4" or "zoh".
        name: "s4d-inv".
    """

    name: ClassVar[str] = "s4d-inv"

    def heights(self, N: int) -> Array:
        """Imaginary parts of the upper poles (N/2,), rad/s; see `inverse_law`."""
        return inverse_law(N)


@dataclass(frozen=True)
class S4DArctan(_Law):
    """The bulk law of the true spectrum: N arctan(N/y) - (y/2) ln(1 + N^2/y^2) = (2m+1) pi/2.

    A better S4D-Inv: the same large-N top of the spectrum with its correction, and the right lower half. This package's
    own.

    Attributes:
        basis: "hippo" or "modes".
        discretization: of layers, "bilinear_s4" or "zoh".
        name: "s4d-arctan".
    """

    name: ClassVar[str] = "s4d-arctan"

    def heights(self, N: int) -> Array:
        """Imaginary parts of the upper poles (N/2,), rad/s; see `hippo.spectrum_bulk`."""
        return hippo.spectrum_bulk(N)


@dataclass(frozen=True)
class S4DLin(_Law):
    """S4D-Lin: imaginary parts pi n (S4D, arXiv 2206.11893, eq. 9); B = 1, each mode an output.

    Attributes:
        basis: "modes"; "hippo" would compare it with LegS, whose spectrum it does not follow.
        discretization: of layers, "bilinear_s4" or "zoh".
        name: "s4d-lin".
    """

    name: ClassVar[str] = "s4d-lin"
    basis: Literal["hippo", "modes"] = "modes"

    def heights(self, N: int) -> Array:
        """Imaginary parts of the upper poles (N/2,), rad/s; see `linear_law`."""
        return linear_law(N)


@dataclass(frozen=True)
class S4DReal(_Diagonal):
    """S4D-Real: poles -(n+1), those of LegS itself; B = 1, each mode an output.

    Attributes:
        discretization: of layers, "bilinear_s4" or "zoh".
        name: "s4d-real".
    """

    name: ClassVar[str] = "s4d-real"

    def build(self, N: int, seed: int = 0) -> Realization:
        """Build the system.

        Args:
            N: number of states.
            seed: not used.

        Returns:
            The realisation; C is the identity. Diagnostics: spectral_abscissa (-1).

        Raises:
            InputError: an N that cannot be.
        """
        size = hippo.check_size(N)
        eye = np.eye(size)
        system = DiagonalStateSpace(-np.arange(1.0, size + 1), np.ones(size), eye)
        return Realization(system, eye, {"spectral_abscissa": -1.0})

    def _half(self, N: int) -> tuple[Array, Array]:
        return -np.arange(1.0, N + 1), np.ones(N)

    def layer(
        self, features: int, N: int, seed: int = 0, dt_min: float = 1e-3, dt_max: float = 1e-1
    ) -> LayerParameters:
        """Draw a layer: N real modes, C real normal, steps log-uniform.

        Args:
            features: number of features.
            N: number of states.
            seed: of C and of the steps.
            dt_min: smallest step in seconds.
            dt_max: largest step in seconds.

        Returns:
            The parameters, readout "real".

        Raises:
            InputError: sizes or steps that cannot be.
        """
        size, count = hippo.check_size(N), hippo.check_size(features, 1, "features")
        poles, B = self._half(size)
        rng_c, rng_dt = generators(seed, "C", "steps")
        return LayerParameters(
            poles,
            B,
            rng_c.standard_normal((count, size)),
            log_steps(rng_dt, count, dt_min, dt_max),
            readout="real",
            discretization=self.discretization,
        )


@dataclass(frozen=True)
class DSS(Initialization):
    """DSS with the softmax parametrisation (arXiv 2203.14343): poles of the normal part of LegS, B absorbed in C.

    A layer's kernel divides each mode by the sum of its own samples over the whole length, a zero-order hold with a
    normalisation that depends on the length.

    Attributes:
        name: "dss".
    """

    name: ClassVar[str] = "dss"

    def build(self, N: int, seed: int = 0) -> Realization:
        """Build the system before normalisation: poles of A_N, B = 1, each mode an output.

        Args:
            N: number of states.
            seed: not used.

        Returns:
            The realisation; C is the identity.

        Raises:
            InputError: an N that cannot be.
        """
        poles = -0.5 + 1j * hippo.phase_heights(N)
        eye = np.eye(poles.size)
        return Realization(DiagonalStateSpace(poles, np.ones(poles.size), eye), eye, {"spectral_abscissa": -0.5})

    def layer(
        self, features: int, N: int, seed: int = 0, dt_min: float = 1e-3, dt_max: float = 1e-1
    ) -> LayerParameters:
        """Draw a layer: one mode of each pair, C complex normal, kernel rows scaled to sum one.

        Args:
            features: number of features.
            N: number of states, even.
            seed: of C and of the steps.
            dt_min: smallest step in seconds.
            dt_max: largest step in seconds.

        Returns:
            The parameters, discretization "softmax".

        Raises:
            InputError: sizes or steps that cannot be.
        """
        size = _even(N)
        return paired_layer(
            -0.5 + 1j * hippo.spectrum(size),
            np.ones(size // 2),
            features,
            seed,
            dt_min,
            dt_max,
            discretization="softmax",
        )
