"""Other sequences: spoken digits, and sinusoids whose amplitude is to be regressed.

| data | sequences | source | published checksum (sha256) |
|---|---|---|---|
| spoken digits | 8 kHz, classes 0 to 9 | release 1.0.9 | tensorflow-datasets, `audio/spoken_digit/checksums.tsv` |
| sinusoids | any number | generated | |

A mirror (`ssmtheory.data.download` says where) may hold the release's archive, its folder `recordings`, or a subset
`fsdd_900.npz` (`x` int16 of all recordings one after the other, `offset`, `label`, `index`).

Spoken digits: Jackson et al., github.com/Jakobovski/free-spoken-digit-dataset; its recordings 0 to 4 of each digit and
speaker are the official test part. Sinusoids: section 3.4 of arXiv 2310.01698.
"""

from __future__ import annotations

import hashlib
import io
import math
import tarfile
import wave
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssmtheory.data.download import RemoteFile, fetch, mirrored, unchanged
from ssmtheory.errors import InputError

__all__ = ["FSDD", "SeriesPart", "SeriesSet", "Sinusoids", "sinusoids", "spoken_digits"]

FSDD = RemoteFile(
    "fsdd",
    "v1.0.9.tar.gz",
    "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/v1.0.9.tar.gz",
    "8bc44cde129d505cbbb6b365c09f80c663f2aa77578afc634e6141a2f87100c0",
    11975353,
)
RATE = 8000  # Hz
_TEST = 5  # recordings 0 to 4 are the test part

_Recording = tuple[np.ndarray, int, int]  # int16 samples, label, index


@dataclass(frozen=True)
class SeriesPart:
    """Training or test recordings.

    Attributes:
        values: (n, length, 1) float32 in [-1, 1], zero after the end of a recording.
        lengths: (n,) int64, samples of the recording itself.
        labels: (n,) int64.
    """

    values: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class SeriesSet:
    """A data set of recordings: both parts, and what it is.

    Attributes:
        train, test: the parts, disjoint.
        name: "spoken-digits".
        source: "mirror" or "download".
        sha256: of the samples and labels as published, before any resampling; however they were packed.
        verified: whether the file read has its published checksum (a subset of a mirror has none).
        rate: samples per second.
    """

    train: SeriesPart
    test: SeriesPart
    name: str
    source: str
    sha256: str
    verified: bool
    rate: float

    def describe(self) -> dict[str, str | int | float | bool]:
        """Return what a run records of its data: name, source, digest, rate, numbers of recordings."""
        return {
            "name": self.name, "source": self.source, "sha256": self.sha256, "verified": self.verified,
            "rate": self.rate, "train": len(self.train.labels), "test": len(self.test.labels),
        }  # fmt: skip


def _recording(name: str, content: bytes) -> _Recording:
    """Samples, label and index of `{label}_{speaker}_{index}.wav`."""
    try:
        label, _, index = Path(name).stem.split("_")
        with wave.open(io.BytesIO(content)) as sound:
            kind = (sound.getnchannels(), sound.getsampwidth(), sound.getframerate())
            if kind != (1, 2, RATE):
                found = f"{kind[0]} channels of {8 * kind[1]} bit at {kind[2]} Hz"
                raise InputError(f"{name}: {found}: expected 1 channel of 16 bit at {RATE} Hz")
            return np.frombuffer(sound.readframes(sound.getnframes()), "<i2").astype(np.int16), int(label), int(index)
    except (wave.Error, EOFError) as error:
        raise InputError(f"{name}: no sound can be read ({error}): the file is damaged") from error


def _archive(path: Path) -> list[_Recording]:
    try:
        with tarfile.open(path) as tar:
            return [
                _recording(member.name, tar.extractfile(member).read())  # type: ignore[union-attr]
                for member in tar
                if member.isfile() and member.name.endswith(".wav") and "/recordings/" in member.name
            ]
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: damaged archive ({error}): remove it, it is fetched again") from error


def _subset(path: Path) -> list[_Recording]:
    try:
        with np.load(path) as stored:
            x, offset, label, index = (stored[key] for key in ("x", "offset", "label", "index"))
    except (OSError, EOFError, ValueError, KeyError, zlib.error) as error:
        raise InputError(f"{path}: no arrays x, offset, label and index can be read ({error})") from error
    return [(x[a:b], int(c), int(i)) for a, b, c, i in zip(offset[:-1], offset[1:], label, index, strict=True)]


def _part(recordings: Iterable[_Recording], length: int, every: int) -> SeriesPart:
    from scipy.signal import resample_poly

    chosen = list(recordings)
    values = np.zeros((len(chosen), length, 1), np.float32)
    lengths = np.zeros(len(chosen), np.int64)
    for row, (samples, _, _) in enumerate(chosen):
        sound = samples.astype(np.float64) / 32768
        sound = np.clip(resample_poly(sound, 1, every), -1, 1) if every > 1 else sound
        lengths[row] = min(len(sound), length)
        values[row, : lengths[row], 0] = sound[:length]
    return SeriesPart(values, lengths, np.array([label for _, label, _ in chosen], np.int64))


def spoken_digits(*, length: int = 4096, every: int = 1) -> SeriesSet:
    """Load the free spoken digits, from a mirror or by download.

    Args:
        length: samples per sequence; longer recordings are cut at the end, shorter ones continue with zeros.
        every: keep every such sample, after an anti-aliasing filter (`scipy.signal.resample_poly`).

    Returns:
        Recordings 5 and later for training, 0 to 4 for the test, in the order of label, then number.

    Raises:
        MissingDependencyError: pooch (download) is not installed.
        InputError: a length or step below 1, a damaged file, or no mirror and no network.
    """
    if length < 1 or every < 1:
        raise InputError(f"length {length}, every {every}: both must be integers >= 1")
    source, verified = "mirror", False
    archive, folder = mirrored("fsdd", FSDD.name), mirrored("fsdd", "recordings")
    subset = mirrored("fsdd", "fsdd_900.npz")
    if archive is None and folder is not None:
        recordings = [_recording(file.name, file.read_bytes()) for file in sorted(folder.glob("*.wav"))]
    elif archive is None and subset is not None:
        recordings = _subset(subset)
    else:
        if archive is None:
            archive, source = fetch(FSDD), "download"
        verified = unchanged(archive, FSDD)
        recordings = _archive(archive)
    if not recordings:
        raise InputError(f"spoken digits: no recording in {archive or folder or subset}")
    digest = hashlib.sha256()
    recordings.sort(key=lambda r: (r[1], r[2], hashlib.sha256(r[0].tobytes()).digest()))
    for samples, label, index in recordings:
        digest.update(f"{label} {index} {len(samples)}\n".encode())
        digest.update(samples.astype("<i2").tobytes())
    return SeriesSet(
        _part((r for r in recordings if r[2] >= _TEST), length, every),
        _part((r for r in recordings if r[2] < _TEST), length, every),
        "spoken-digits", source, digest.hexdigest(), verified, RATE / every,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- generated


@dataclass(frozen=True)
class Sinusoids:
    """Sampled sinusoids a cos(s t + phi) and what made them.

    Attributes:
        values: (n, length, 1) float32, at t = 0, step, 2 step, ...
        amplitude: (n,) float32, a, the target of the regression.
        frequency: (n,) float64, s, in radians per unit of time.
        phase: (n,) float64, phi.
        step: unit of time between samples.
    """

    values: np.ndarray
    amplitude: np.ndarray
    frequency: np.ndarray
    phase: np.ndarray
    step: float


def sinusoids(
    count: int,
    *,
    low: float = 0.0,
    high: float = 80.0,
    length: int = 1024,
    step: float = 0.01,
    amplitudes: tuple[float, float] = (0.5, 1.5),
    random_phase: bool = False,
    even: bool = False,
    seed: int = 0,
) -> Sinusoids:
    """Generate sinusoids a cos(s t + phi) whose amplitude a is to be regressed from the samples.

    The frequencies of section 3.4 of arXiv 2310.01698 are [0, 80] for training and [0, 100] for the test. Duration,
    step, phase and the law of the amplitudes are this package's choice: they are arguments.

    Args:
        count: number of sinusoids.
        low, high: range of s, in radians per unit of time; uniform.
        length: samples each.
        step: unit of time between two samples; s step must stay below pi (Nyquist).
        amplitudes: range of a, uniform, positive.
        random_phase: phi uniform in [0, 2 pi); False: 0. With a random phase the amplitude of a sinusoid slower than
            about 1 / (length step) cannot be told from its samples.
        even: evenly spaced frequencies from low to high instead of random ones (a test that draws a curve over s).
        seed: of the generator.

    Returns:
        The sinusoids; the same ones for the same arguments.

    Raises:
        InputError: an empty or negative range, a count below 1, or a frequency that the samples cannot carry.

    >>> data = sinusoids(3, low=0, high=100, even=True, length=8, seed=1)
    >>> data.frequency, data.values.shape
    (array([  0.,  50., 100.]), (3, 8, 1))
    """
    if count < 1 or length < 1 or not step > 0:
        raise InputError(f"count {count}, length {length}, step {step}: all must be positive")
    if not 0 <= low <= high < math.inf:
        raise InputError(f"frequencies from {low} to {high}: 0 <= low <= high is needed")
    if not 0 < amplitudes[0] <= amplitudes[1] < math.inf:
        raise InputError(f"amplitudes from {amplitudes[0]} to {amplitudes[1]}: 0 < first <= second is needed")
    if high * step >= math.pi:
        raise InputError(
            f"frequency {high} with step {step}: {high * step:.3g} radians per sample reach pi, where frequencies fold "
            f"over; take a step below {math.pi / high:.3g}"
        )
    r = np.random.default_rng(seed)
    # one draw each, whatever the options: the same seed has the same amplitudes
    amplitude, uniform, angle = r.uniform(*amplitudes, count), r.uniform(low, high, count), r.uniform(0, 1, count)
    frequency = np.linspace(low, high, count) if even else uniform
    phase = 2 * math.pi * angle if random_phase else np.zeros(count)
    t = step * np.arange(length)
    values = amplitude[:, None] * np.cos(frequency[:, None] * t + phase[:, None])
    return Sinusoids(values.astype(np.float32)[..., None], amplitude.astype(np.float32), frequency, phase, step)
