"""What an initialisation is, what building it gives, and what a layer takes from it."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.inits.hippo import check_choice, check_positive, check_size
from ssmtheory.lti import LTI, DiagonalStateSpace, LowRankStateSpace
from ssmtheory.lti.discretize import zoh_factors
from ssmtheory.typing import Array

__all__ = [
    "Initialization",
    "LayerParameters",
    "Realization",
    "complex_normal",
    "generators",
    "lecun_normal",
    "log_steps",
    "paired_layer",
    "stored_modes",
]


def _read_only(array: Any) -> Any:
    if array is None:
        return None
    copy = np.array(array)
    copy.setflags(write=False)
    return copy


@dataclass(frozen=True, eq=False)
class Realization:
    """One system built from an initialisation.

    Attributes:
        system: the system; one input, and N outputs in the HiPPO basis where the initialisation has one, so that
            `system[0]` is the output C = e_0 and outputs of different initialisations can be compared.
        basis: (N, states) complex128, from the state to the outputs: the C of `system`. Identity where the state is
            already in the HiPPO basis.
        diagnostics: what was measured while building: numbers, and words where a word is the answer.
    """

    system: LTI
    basis: Array
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "basis", _read_only(self.basis))
        object.__setattr__(self, "diagnostics", MappingProxyType(dict(self.diagnostics)))


#: Factor of the real part in each readout.
_READOUT = {"pairs": 2.0, "real": 1.0, "twice_real": 2.0}


@dataclass(frozen=True, eq=False)
class LayerParameters:
    """Initial parameters of a layer, float64 or complex128, read-only.

    A layer with `scope="feature"` is one single-input single-output system per feature (S4, S4D, DSS). With
    `scope="layer"` it is one system with all features in and out (S5, LRU).

    Attributes:
        poles: (N,) or (features, N), diagonal of A, or of its diagonal part where `P` is given; in discrete time for a
            layer without steps (LRU). N counts stored modes.
        B: (N,) or (features, N) with scope "feature", (N, features) with scope "layer".
        C: (features, N).
        steps: (features,) with scope "feature", (N,) with scope "layer", in seconds; None for a discrete layer.
        readout: "pairs": one mode of each conjugate pair is stored, y = 2 Re(C x); "real": all modes, y = Re(C x);
            "twice_real": y = 2 Re(C x) although the modes are not pairs, as S4-PTD ships.
        P: (N, r) or (features, N, r), low-rank part A = diag(poles) - P P*; None without.
        D: (features,), the direct term; None for zero.
        scope: "feature" or "layer".
        discretization: "zoh", "bilinear_s4", "softmax" (DSS) or "none" (LRU).
        gain: (N,) factor of the input of a discrete layer (LRU's normalisation); None for one.
        diagnostics: those of the realisation that the poles come from.
    """

    poles: Array
    B: Array
    C: Array
    steps: Array | None
    readout: Literal["pairs", "real", "twice_real"] = "pairs"
    P: Array | None = None
    D: Array | None = None
    scope: Literal["feature", "layer"] = "feature"
    discretization: str = "zoh"
    gain: Array | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("readout", self.readout, tuple(_READOUT))
        for name in ("poles", "B", "C", "steps", "P", "D", "gain"):
            object.__setattr__(self, name, _read_only(getattr(self, name)))
        object.__setattr__(self, "diagnostics", MappingProxyType(dict(self.diagnostics)))

    @property
    def features(self) -> int:
        """Number of features."""
        return int(self.C.shape[0])

    def _modes(self, feature: int) -> tuple[Array, Array, Array]:
        """Poles (N,), B and C of one feature."""
        if isinstance(feature, bool) or not 0 <= feature < self.features:
            raise InputError(f"feature={feature!r}: the layer has {self.features}, numbered 0 to {self.features - 1}")
        poles = self.poles if self.poles.ndim == 1 else self.poles[feature]
        if self.scope == "layer":
            return poles, self.B if self.gain is None else self.gain[:, None] * self.B, self.C
        return poles, self.B if self.B.ndim == 1 else self.B[feature], self.C[feature]

    def system(self, feature: int = 0) -> LTI:
        """The real system that the layer applies to one feature, or to all of them where the scope is "layer".

        Real parts are written as conjugate pairs of modes, so that norms are those of the real layer.

        Args:
            feature: which feature; ignored for scope "layer".

        Returns:
            A diagonal, or diagonal plus low-rank, system in continuous time; in discrete time with dt = 1 for a layer
            without steps.

        Raises:
            InputError: a feature that does not exist.
        """
        poles, B, C = self._modes(feature)
        C = C * (_READOUT[self.readout] / 2)
        if self.scope == "layer":
            D = None if self.D is None else np.diag(self.D)
            return DiagonalStateSpace(poles, B, C, D, None if self.steps is not None else 1.0, conjugate_pairs=True)
        D = None if self.D is None else self.D[feature]
        if self.P is None:
            return DiagonalStateSpace(poles, B, C, D, conjugate_pairs=True)
        # the low-rank part couples a mode to the conjugate of every other: both members of a pair are states
        lists = (poles, self.P if self.P.ndim == 2 else self.P[feature], B, C)
        full, P, B, C = (np.concatenate([x, np.conj(x)]) for x in lists)
        return LowRankStateSpace(full, P, P, B, C, D)

    def kernel(self, length: int, feature: int = 0) -> Array:
        """Real convolution kernel of one feature at its step, without the direct term.

        Args:
            length: number of samples.
            feature: which feature; with scope "layer", from this input to this output.

        Returns:
            (length,) float64; entry k multiplies the input k samples ago.

        Raises:
            InputError: a feature or length that cannot be.
        """
        count = check_size(length, 1, "length")
        poles, B, C = self._modes(feature)
        if self.scope == "layer":
            B, C = B[:, feature], C[feature]
        if self.steps is None:
            weight, exponent = B * C, np.log(poles)
        else:
            step = self.steps if self.scope == "layer" else float(self.steps[feature])
            if self.P is not None or self.discretization == "bilinear_s4":
                discrete = self.system(feature).discretize(step, method=self.discretization)
                return np.asarray(discrete.kernel(count)).reshape(count).real
            held = zoh_factors(poles, step)[1]
            exponent = np.asarray(poles) * step
            weight = B * C * (_softmax_scale(exponent, count) if self.discretization == "softmax" else held)
            if self.discretization == "softmax":
                # a growing mode is scaled from its last sample, where it is largest
                exponent_start = np.where(exponent.real > 0, -exponent * (count - 1), 0)
                powers = np.exp(exponent[:, None] * np.arange(count) + exponent_start[:, None])
                return _READOUT[self.readout] * (weight @ powers).real
        powers = np.exp(exponent[:, None] * np.arange(count))
        return _READOUT[self.readout] * (weight @ powers).real


def _softmax_scale(exponent: Array, length: int) -> Array:
    """1 / sum_k exp(k x), k < length, in the scaling where the largest term is 1."""
    x = np.where(exponent.real > 0, -exponent, exponent)
    safe = np.where(x == 0, 1, x)
    total = np.where(x == 0, length, np.expm1(length * safe) / np.expm1(safe))
    # DSS (arXiv 2203.14343) keeps the quotient finite where the sum vanishes
    return np.conj(total) / (np.abs(total) ** 2 + 1e-7)


def log_steps(rng: np.random.Generator, count: int, dt_min: float, dt_max: float) -> Array:
    """Step sizes, log-uniform between two ends: the law of S4, S4D and S5.

    Args:
        rng: generator.
        count: how many.
        dt_min: smallest step in seconds.
        dt_max: largest step in seconds.

    Returns:
        (count,) float64, seconds.

    Raises:
        InputError: steps that are not positive, or in the wrong order.
    """
    low, high = check_positive("dt_min", dt_min), check_positive("dt_max", dt_max)
    if low > high:
        raise InputError(f"dt_min={dt_min!r}, dt_max={dt_max!r}: dt_min must not exceed dt_max")
    return np.exp(rng.uniform(math.log(low), math.log(high), count))


def complex_normal(rng: np.random.Generator, shape: tuple[int, ...], variance: float = 1.0) -> Array:
    """Complex normal numbers of a given variance, real and imaginary part each half of it.

    Args:
        rng: generator.
        shape: shape of the array.
        variance: E |z|^2.

    Returns:
        Array of that shape, complex128.
    """
    scale = math.sqrt(variance / 2)
    return scale * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))


def lecun_normal(rng: np.random.Generator, shape: tuple[int, int], fan_in: int | None = None) -> Array:
    """Real normal numbers of variance 1 / fan_in, cut at two standard deviations and rescaled, as JAX draws them.

    Args:
        rng: generator.
        shape: (rows, columns).
        fan_in: number of inputs of one output; columns when None.

    Returns:
        Array of that shape, float64.
    """
    values = rng.standard_normal(shape)
    while (far := np.abs(values) > 2).any():
        values[far] = rng.standard_normal(int(far.sum()))
    # standard deviation of the normal law cut at +-2
    return values / (0.87962566103423978 * math.sqrt(fan_in or shape[1]))


@dataclass(frozen=True)
class Initialization(abc.ABC):
    """Hyper-parameters of an initialisation of a linear state-space layer; holds no arrays.

    Two initialisations with equal hyper-parameters are equal, and build equal systems from equal seeds.

    Attributes:
        name: key in the registry.
    """

    name: ClassVar[str] = ""

    @abc.abstractmethod
    def build(self, N: int, seed: int = 0) -> Realization:
        """Build one system.

        Args:
            N: number of states.
            seed: of whatever is random; not used by deterministic initialisations.

        Returns:
            The realisation: system, basis, diagnostics.

        Raises:
            InputError: an N that this initialisation cannot have.
        """

    @abc.abstractmethod
    def layer(
        self, features: int, N: int, seed: int = 0, dt_min: float = 1e-3, dt_max: float = 1e-1
    ) -> LayerParameters:
        """Draw the parameters of a layer.

        Args:
            features: number of features (channels).
            N: number of states, both members of conjugate pairs counted.
            seed: of C and of the steps.
            dt_min: smallest step in seconds.
            dt_max: largest step in seconds.

        Returns:
            The parameters.

        Raises:
            InputError: sizes or steps that cannot be.
        """

    def with_(self, **changes: Any) -> Initialization:
        """A copy with some hyper-parameters changed.

        Args:
            changes: names and values of fields.

        Returns:
            The changed copy.

        Raises:
            InputError: an unknown field.
        """
        allowed = tuple(f.name for f in dataclasses.fields(self))
        for key in changes:
            check_choice("field", key, allowed)
        return dataclasses.replace(self, **changes)


def generators(seed: int, *names: str) -> list[np.random.Generator]:
    """Independent generators for the parts of a layer, so that a change of one part leaves the others' draws alone.

    Args:
        seed: a non-negative integer.
        names: what each generator is for.

    Returns:
        One generator per name.

    Raises:
        InputError: a seed that is not a non-negative integer.
    """
    root = check_size(seed, 0, "seed")
    return [np.random.default_rng([root, *name.encode()]) for name in names]


def stored_modes(poles: Array, conjugate: bool) -> tuple[Array, Literal["pairs", "real"]]:
    """Which modes of a system a layer stores, and how it then reads them.

    Args:
        poles: (N,) complex, all of them.
        conjugate: whether the system is real, so that its poles may be conjugate pairs.

    Returns:
        (N,) bool and the readout: one mode of each pair, "pairs", where all poles are pairs; else all modes, "real".

    >>> stored_modes(np.array([-1 + 2j, -1 - 2j]), True)
    (array([ True, False]), 'pairs')
    """
    upper = poles.imag > 0
    if conjugate and 2 * int(upper.sum()) == upper.size:
        return upper, "pairs"
    return np.ones(upper.size, dtype=bool), "real"


def paired_layer(
    poles: Array, B: Array, features: int, seed: int, dt_min: float, dt_max: float, **options: Any
) -> LayerParameters:
    """A layer that stores one mode of each conjugate pair: C complex normal, steps log-uniform.

    Args:
        poles: (modes,) stored poles.
        B: (modes,) their input.
        features: number of features.
        seed: of C and of the steps.
        dt_min: smallest step in seconds.
        dt_max: largest step in seconds.
        options: further fields of `LayerParameters`.

    Returns:
        The parameters.

    Raises:
        InputError: a number of features or steps that cannot be.
    """
    count = check_size(features, 1, "features")
    rng_c, rng_dt = generators(seed, "C", "steps")
    C = complex_normal(rng_c, (count, poles.size))
    return LayerParameters(poles, B, C, log_steps(rng_dt, count, dt_min, dt_max), **options)
