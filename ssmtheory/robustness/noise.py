"""Corruptions of a signal: Fourier modes, white and coloured noise, impulses, lost samples, resampling.

Each is a frozen dataclass whose `apply(u, steps)` takes a NumPy array or a PyTorch tensor (batch, length, features) and
returns the same kind. What is random is drawn in float64 from a generator of its own for each member of the batch,
keyed by (seed, number of the member): the result depends neither on the library nor on how a data set is cut into
batches.

`Matched(corruption, rms)` gives any of them the same energy, so that they can be compared.

>>> import numpy as np
>>> u = np.zeros((2, 4, 1))
>>> FourierNoise(np.pi / 2, 1.0, law="constant", clock="sample").apply(u)[0, :, 0].round(6) + 0.0
array([ 1.,  0., -1.,  0.])
>>> Matched(WhiteNoise(), 0.5).apply(u).std(axis=(1, 2)).round(6)
array([...])
"""

from __future__ import annotations

import abc
import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np
from array_api_compat import array_namespace, device

from ssmtheory.errors import InputError, nearest
from ssmtheory.typing import Array, Namespace

__all__ = [
    "LAWS",
    "Additive",
    "Band",
    "Chain",
    "ColouredNoise",
    "Corruption",
    "FourierNoise",
    "ImpulseNoise",
    "LostSamples",
    "Matched",
    "Resampling",
    "WhiteNoise",
    "change_rms",
    "get",
    "registry",
]

Seed = int | tuple[int, ...]

#: Laws of the amplitude U of a mode, and E U^2.
LAWS = {"constant": 1.0, "uniform": 1 / 3, "normal": 1.0}


def _number(name: str, value: Any, least: float = 0.0, most: float = math.inf) -> float:
    number = math.nan if isinstance(value, bool) or not isinstance(value, numbers.Real) else float(value)
    if not (least <= number <= most and math.isfinite(number)):
        upper = "" if math.isinf(most) else f" and at most {most:g}"
        raise InputError(f"{name}={value!r}: must be a finite number, at least {least:g}{upper}")
    return number


def _choice(name: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise InputError(f"{name}={value!r}: must be one of {', '.join(allowed)}.{nearest(str(value), allowed)}")


def _parts(seed: Seed) -> list[int]:
    parts = list(seed) if isinstance(seed, tuple) else [seed]
    if any(isinstance(part, bool) or not isinstance(part, numbers.Integral) or part < 0 for part in parts):
        raise InputError(f"seed={seed!r}: must be a non-negative integer, or a tuple of them")
    return [int(part) for part in parts]


def _generators(seed: Seed, first: int, count: int, purpose: str) -> list[np.random.Generator]:
    """One generator per member of the batch; what is drawn for one purpose leaves the others' draws alone."""
    key = [*_parts(seed), *purpose.encode()]
    (start,) = _parts(first)
    return [np.random.default_rng([*key, start + i]) for i in range(count)]


def _host(values: Any) -> Array:
    """float64 NumPy array of an array of any library."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return np.asarray(values, dtype=np.float64)


def _signal(u: Array) -> Namespace:
    try:
        xp = array_namespace(u)
    except TypeError as error:
        raise InputError(f"u is of type {type(u).__name__}: must be a NumPy array or a PyTorch tensor") from error
    if u.ndim != 3:
        raise InputError(f"u has shape {tuple(u.shape)}: must be (batch, length, features)")
    if not xp.isdtype(u.dtype, "real floating"):
        raise InputError(f"u has dtype {u.dtype}: must be real floating point")
    return xp


def change_rms(u: Array, v: Array) -> Array:
    """Root mean square of v - u over length and features, for each member of the batch.

    Args:
        u: (batch, length, features).
        v: the same shape.

    Returns:
        (batch,) of the kind and dtype of u.
    """
    xp = _signal(u)
    return xp.sqrt(xp.mean((v - u) ** 2, axis=(1, 2)))


@dataclass(frozen=True)
class Corruption(abc.ABC):
    """What can happen to a signal; holds no arrays and no state.

    Attributes:
        name: key in the registry.
    """

    name: ClassVar[str] = ""

    @abc.abstractmethod
    def apply(self, u: Array, steps: Array | None = None, *, seed: Seed = 0, first: int = 0) -> Array:
        """The corrupted signal.

        Args:
            u: (batch, length, features), real; not changed.
            steps: (features,) steps of the layer in seconds, for what lives on the layer's own clock.
            seed: a non-negative integer, or several: (seed, layer).
            first: number of the first member of this batch in its data set, so that batches of another size give the
                same result.

        Returns:
            (batch, length, features) of the kind, dtype and device of u.

        Raises:
            InputError: an array of the wrong kind or shape, or steps that are missing.
        """


@dataclass(frozen=True)
class Additive(Corruption):
    """What adds something that does not depend on the signal."""

    @abc.abstractmethod
    def noise(
        self, shape: tuple[int, int, int], steps: Array | None = None, *, seed: Seed = 0, first: int = 0
    ) -> Array:
        """What is added.

        Args:
            shape: (batch, length, features).
            steps: as for `apply`.
            seed: as for `apply`.
            first: as for `apply`.

        Returns:
            Array of that shape, float64, NumPy.

        Raises:
            InputError: steps that are missing.
        """

    @property
    @abc.abstractmethod
    def rms(self) -> float:
        """Root of the expected mean square of what is added, over a long signal."""

    def apply(self, u: Array, steps: Array | None = None, *, seed: Seed = 0, first: int = 0) -> Array:
        """The signal plus the noise; see `Corruption.apply`."""
        xp = _signal(u)
        batch, length, features = (int(size) for size in u.shape)
        added = self.noise((batch, length, features), steps, seed=seed, first=first)
        return u + xp.asarray(added, dtype=u.dtype, device=device(u))


# ---------------------------------------------------------------------------------------------------- Fourier modes


@dataclass(frozen=True)
class Band:
    """A random angular frequency between two ends, drawn for each member of the batch.

    Attributes:
        low: lower end, > 0 for the law "log".
        high: upper end.
        law: "log" or "linear": uniform in the logarithm, or in the frequency itself.
    """

    low: float
    high: float
    law: Literal["log", "linear"] = "log"

    def __post_init__(self) -> None:
        _choice("law", self.law, ("log", "linear"))
        _number("low", self.low)
        _number("high", self.high)
        if self.low > self.high or (self.law == "log" and self.low <= 0):
            raise InputError(f"low={self.low!r}, high={self.high!r}: must be 0 < low <= high")

    def draw(self, rng: np.random.Generator) -> float:
        """One frequency."""
        if self.law == "linear":
            return float(rng.uniform(self.low, self.high))
        return math.exp(rng.uniform(math.log(self.low), math.log(self.high)))


@dataclass(frozen=True)
class FourierNoise(Additive):
    """A cosine in every feature: u_k + amplitude U cos(omega Delta k + phase), U of a law, for each member and feature.

    With `clock="layer"` the frequency is one of continuous time, in rad/s, and each feature hears it at its own step
    Delta; above pi / Delta it is aliased, as every sampled signal is. With `clock="sample"` it is in rad per sample and
    needs no steps: noise at the input of a network, or in a layer whose steps belong to states (S5).

    Attributes:
        frequency: angular frequency; one for all features, a tuple with one for each, or a `Band` to draw it from. The
            worst one for a layer is what `gain.attack_frequency` computes.
        amplitude: factor of the cosine.
        law: of U: "uniform" on [0, 1], "constant" (1) or "normal".
        phase: "zero", or "random" for each member and feature.
        clock: "layer" or "sample".
        name: "fourier".
    """

    name: ClassVar[str] = "fourier"
    frequency: float | tuple[float, ...] | Band
    amplitude: float = 0.1
    law: Literal["uniform", "constant", "normal"] = "uniform"
    phase: Literal["zero", "random"] = "zero"
    clock: Literal["layer", "sample"] = "layer"

    def __post_init__(self) -> None:
        _number("amplitude", self.amplitude)
        _choice("law", self.law, tuple(LAWS))
        _choice("phase", self.phase, ("zero", "random"))
        _choice("clock", self.clock, ("layer", "sample"))
        if not isinstance(self.frequency, Band):
            several = isinstance(self.frequency, Sequence | np.ndarray)
            values = tuple(self.frequency) if several else (self.frequency,)  # type: ignore[arg-type]
            found = tuple(_number("frequency", value) for value in values)
            object.__setattr__(self, "frequency", found if several else found[0])

    @classmethod
    def published(cls, frequency: float) -> FourierNoise:
        """The noise of the PTD authors' robustness test: u += 0.1 U cos(omega Delta_i k), U ~ U[0, 1].

        U is drawn for each member of the batch and each feature i, Delta_i is the step of the feature, k = 0, 1, ...
        The code adds it to the input of every layer, at test time only, with omega = 325.4 typed in; here the frequency
        comes from `gain.attack_frequency`.

        Args:
            frequency: omega in rad/s.

        Returns:
            The noise.

        References:
            arXiv 2310.01698, the released robustness experiment.
        """
        return cls(frequency, 0.1, law="uniform", phase="zero", clock="layer")

    @property
    def rms(self) -> float:
        """amplitude sqrt(E U^2 / 2)."""
        return self.amplitude * math.sqrt(LAWS[self.law] / 2)

    def noise(
        self, shape: tuple[int, int, int], steps: Array | None = None, *, seed: Seed = 0, first: int = 0
    ) -> Array:
        """What is added; see `Additive.noise`."""
        batch, length, features = shape
        scale = self._clock(steps, features)
        rngs = _generators(seed, first, batch, "fourier")
        k = np.arange(length, dtype=np.float64)[:, None]
        common = None
        if self.phase == "zero" and not isinstance(self.frequency, Band):
            common = np.cos(k * (np.asarray(self.frequency) * scale))
        out = np.empty(shape)
        for i, rng in enumerate(rngs):
            if self.law == "constant":
                U = np.ones(features)
            else:
                U = rng.uniform(size=features) if self.law == "uniform" else rng.standard_normal(features)
            phase = rng.uniform(0, 2 * math.pi, features) if self.phase == "random" else 0.0
            if common is None:
                omega = self.frequency.draw(rng) if isinstance(self.frequency, Band) else np.asarray(self.frequency)
                out[i] = self.amplitude * U * np.cos(k * (omega * scale) + phase)
            else:
                out[i] = self.amplitude * U * common
        return out

    def angles(self, steps: Array | None, features: int) -> Array:
        """Angle per sample omega Delta of each feature, not folded.

        Args:
            steps: (features,) in seconds; not used with `clock="sample"`.
            features: number of features.

        Returns:
            (features,) float64, rad per sample.

        Raises:
            InputError: a random frequency, or steps that are missing.
        """
        if isinstance(self.frequency, Band):
            raise InputError("frequency is a Band: a random frequency has no angle before it is drawn")
        return np.asarray(self.frequency) * self._clock(steps, features)

    def _clock(self, steps: Array | None, features: int) -> Array:
        if isinstance(self.frequency, tuple) and len(self.frequency) != features:
            raise InputError(f"frequency has {len(self.frequency)} entries: must be one, or one for each of {features}")
        if self.clock == "sample":
            return np.ones(features)
        if steps is None:
            raise InputError("steps=None with clock='layer': pass the layer's steps, or a frequency per sample")
        values = _host(steps).reshape(-1)
        if values.size == 1:
            values = np.full(features, values[0])
        if values.size != features:
            raise InputError(
                f"steps has {values.size} entries for {features} features: a layer whose steps belong to states has no "
                "clock per feature; use clock='sample'"
            )
        return values


# ---------------------------------------------------------------------------------------------------- other noise


@dataclass(frozen=True)
class WhiteNoise(Additive):
    """Independent normal numbers.

    Attributes:
        amplitude: their standard deviation.
        name: "white".
    """

    name: ClassVar[str] = "white"
    amplitude: float = 0.1

    def __post_init__(self) -> None:
        _number("amplitude", self.amplitude)

    @property
    def rms(self) -> float:
        """The standard deviation."""
        return self.amplitude

    def noise(
        self, shape: tuple[int, int, int], steps: Array | None = None, *, seed: Seed = 0, first: int = 0
    ) -> Array:
        """What is added; see `Additive.noise`."""
        rngs = _generators(seed, first, shape[0], "white")
        return self.amplitude * np.stack([rng.standard_normal(shape[1:]) for rng in rngs]).reshape(shape)


@dataclass(frozen=True)
class ColouredNoise(Additive):
    """Normal noise whose power falls as frequency^-exponent, without a mean.

    Attributes:
        amplitude: its root mean square.
        exponent: 1 is pink, 2 brown, -1 blue.
        name: "coloured".
    """

    name: ClassVar[str] = "coloured"
    amplitude: float = 0.1
    exponent: float = 1.0

    def __post_init__(self) -> None:
        _number("amplitude", self.amplitude)
        _number("exponent", self.exponent, -8, 8)

    @property
    def rms(self) -> float:
        """The amplitude."""
        return self.amplitude

    def noise(
        self, shape: tuple[int, int, int], steps: Array | None = None, *, seed: Seed = 0, first: int = 0
    ) -> Array:
        """What is added; see `Additive.noise`."""
        batch, length, features = shape
        if length < 2:
            raise InputError(f"length {length}: coloured noise needs at least 2 samples")
        rngs = _generators(seed, first, batch, "coloured")
        white = np.stack([rng.standard_normal((length, features)) for rng in rngs])
        weight = np.zeros(length // 2 + 1)
        weight[1:] = np.arange(1, weight.size, dtype=np.float64) ** (-self.exponent / 2)
        # of the two-sided spectrum, each frequency but the last of an even length counts twice
        count = np.full(weight.size, 2.0)
        count[0], count[-1] = 1.0, 1.0 if length % 2 == 0 else 2.0
        weight /= math.sqrt(float(count @ weight**2) / length)
        return self.amplitude * np.fft.irfft(np.fft.rfft(white, axis=1) * weight[:, None], length, axis=1)


@dataclass(frozen=True)
class ImpulseNoise(Additive):
    """Rare jumps of one size and random sign.

    Attributes:
        amplitude: size of a jump.
        probability: of a jump, for each sample and feature.
        name: "impulse".
    """

    name: ClassVar[str] = "impulse"
    amplitude: float = 1.0
    probability: float = 0.01

    def __post_init__(self) -> None:
        _number("amplitude", self.amplitude)
        _number("probability", self.probability, 0, 1)

    @property
    def rms(self) -> float:
        """amplitude sqrt(probability)."""
        return self.amplitude * math.sqrt(self.probability)

    def noise(
        self, shape: tuple[int, int, int], steps: Array | None = None, *, seed: Seed = 0, first: int = 0
    ) -> Array:
        """What is added; see `Additive.noise`."""
        out = np.empty(shape)
        for i, rng in enumerate(_generators(seed, first, shape[0], "impulse")):
            hit = rng.uniform(size=shape[1:]) < self.probability
            out[i] = np.where(hit, np.where(rng.uniform(size=shape[1:]) < 0.5, -1.0, 1.0), 0.0) * self.amplitude
        return out


# ---------------------------------------------------------------------------------------------------- the signal itself


def _take(xp: Namespace, u: Array, index: Array) -> Array:
    """u[b, index[b, k], :]; index (batch, length), NumPy."""
    at = xp.asarray(index, device=device(u))
    rows = xp.asarray(np.arange(index.shape[0])[:, None], device=device(u))
    return u[rows, at]


@dataclass(frozen=True)
class LostSamples(Corruption):
    """Time steps are lost, all features at once.

    Attributes:
        probability: of losing a time step.
        fill: what stands in for it: "zero", or "hold", the last one that arrived (the first that did, at the start).
        name: "lost".
    """

    name: ClassVar[str] = "lost"
    probability: float = 0.1
    fill: Literal["zero", "hold"] = "zero"

    def __post_init__(self) -> None:
        _number("probability", self.probability, 0, 1)
        _choice("fill", self.fill, ("zero", "hold"))

    def apply(self, u: Array, steps: Array | None = None, *, seed: Seed = 0, first: int = 0) -> Array:
        """The signal with gaps; see `Corruption.apply`."""
        xp = _signal(u)
        batch, length = int(u.shape[0]), int(u.shape[1])
        rngs = _generators(seed, first, batch, "lost")
        kept = np.stack([rng.uniform(size=length) >= self.probability for rng in rngs]).reshape(batch, length)
        if self.fill == "zero":
            return u * xp.asarray(kept[:, :, None], dtype=u.dtype, device=device(u))
        index = np.maximum.accumulate(np.where(kept, np.arange(length), -1), axis=1)
        # before the first arrival, that one; a signal lost as a whole stays at its first value
        start = np.where(kept.any(axis=1), kept.argmax(axis=1), 0)
        return _take(xp, u, np.where(index < 0, start[:, None], index))


@dataclass(frozen=True)
class Resampling(Corruption):
    """The signal is read at other times, with straight lines between samples; its length stays.

    Attributes:
        factor: "rate": the clock runs faster by it, the last value is held; "decimate": one in so many samples is kept,
            an integer; "jitter": standard deviation of the reading times, in samples.
        kind: "rate", "decimate" or "jitter".
        name: "resampling".
    """

    name: ClassVar[str] = "resampling"
    factor: float = 2.0
    kind: Literal["rate", "decimate", "jitter"] = "decimate"

    def __post_init__(self) -> None:
        _choice("kind", self.kind, ("rate", "decimate", "jitter"))
        _number("factor", self.factor)
        if self.kind == "decimate" and (self.factor < 1 or self.factor != int(self.factor)):
            raise InputError(f"factor={self.factor!r}: must be an integer, at least 1, for kind='decimate'")

    def apply(self, u: Array, steps: Array | None = None, *, seed: Seed = 0, first: int = 0) -> Array:
        """The signal read at other times; see `Corruption.apply`."""
        xp = _signal(u)
        batch, length = int(u.shape[0]), int(u.shape[1])
        k = np.arange(length, dtype=np.float64)
        if self.kind == "decimate":
            every = int(self.factor)
            low = (np.arange(length) // every) * every
            high, weight = np.minimum(low + every, (length - 1) // every * every), (np.arange(length) - low) / every
            low, high, weight = (np.tile(x, (batch, 1)) for x in (low, high, weight))
        else:
            if self.kind == "rate":
                at = np.tile(self.factor * k, (batch, 1))
            else:
                rngs = _generators(seed, first, batch, "jitter")
                at = k + self.factor * np.stack([rng.standard_normal(length) for rng in rngs]).reshape(batch, length)
            at = np.clip(at, 0, length - 1)
            low = np.floor(at).astype(np.int64)
            high, weight = np.minimum(low + 1, length - 1), at - low
        share = xp.asarray(weight[:, :, None], dtype=u.dtype, device=device(u))
        below = _take(xp, u, low)
        return below + share * (_take(xp, u, high) - below)


# ---------------------------------------------------------------------------------------------------- combinations


@dataclass(frozen=True)
class Matched(Corruption):
    """Another corruption with its change scaled to one root mean square, so that different ones can be compared.

    u + c (corrupted - u), with c for each member of the batch (or each of its features). Where the corruption changes
    nothing there is nothing to scale, and the signal stays.

    Attributes:
        corruption: what is done.
        rms: root mean square of the change.
        per: "member": over length and features; "feature": over length.
        name: "matched".
    """

    name: ClassVar[str] = "matched"
    corruption: Corruption
    rms: float
    per: Literal["member", "feature"] = "member"

    def __post_init__(self) -> None:
        if not isinstance(self.corruption, Corruption):
            raise InputError(f"corruption is of type {type(self.corruption).__name__}: must be a Corruption")
        _number("rms", self.rms)
        _choice("per", self.per, ("member", "feature"))

    def apply(self, u: Array, steps: Array | None = None, *, seed: Seed = 0, first: int = 0) -> Array:
        """The signal with a change of that size; see `Corruption.apply`."""
        xp = _signal(u)
        change = self.corruption.apply(u, steps, seed=seed, first=first) - u
        axes = (1, 2) if self.per == "member" else 1
        size = xp.sqrt(xp.mean(change**2, axis=axes, keepdims=True))
        return u + change * xp.where(size > 0, self.rms / xp.where(size > 0, size, 1.0), 0.0)


@dataclass(frozen=True)
class Chain(Corruption):
    """Several corruptions, one after the other, with draws of their own.

    Attributes:
        corruptions: what is done, in order.
        name: "chain".
    """

    name: ClassVar[str] = "chain"
    corruptions: tuple[Corruption, ...]

    def apply(self, u: Array, steps: Array | None = None, *, seed: Seed = 0, first: int = 0) -> Array:
        """The signal after all of them; see `Corruption.apply`."""
        parts = _parts(seed)
        for i, corruption in enumerate(self.corruptions):
            u = corruption.apply(u, steps, seed=(*parts, i), first=first)
        return u


#: name -> class
registry: dict[str, type[Corruption]] = {
    kind.name: kind for kind in (FourierNoise, WhiteNoise, ColouredNoise, ImpulseNoise, LostSamples, Resampling)
}


def get(name: str, **options: Any) -> Corruption:
    """The corruption of a name.

    Args:
        name: key of `registry`.
        options: its fields.

    Returns:
        The corruption.

    Raises:
        InputError: an unknown name, or an option that it does not have.

    >>> get("white", amplitude=0.2).rms
    0.2
    """
    _choice("corruption", name, tuple(registry))
    kind = registry[name]
    allowed = [field.name for field in fields(kind)]
    for option in options:
        if option not in allowed:
            raise InputError(
                f"{name} has no option {option!r}: must be one of {', '.join(allowed)}.{nearest(option, allowed)}"
            )
    return kind(**options)
