"""Spoken digits in every packing, and generated sinusoids."""

from __future__ import annotations

import io
import math
import tarfile
import wave
from pathlib import Path

import numpy as np
import pytest

from ssmtheory.data import download
from ssmtheory.data.series import sinusoids, spoken_digits
from ssmtheory.errors import InputError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(download, "SYSTEM_FOLDERS", ())
    monkeypatch.setenv("SSMTHEORY_DATA", str(tmp_path))
    monkeypatch.setenv("SSMTHEORY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SSMTHEORY_OFFLINE", "1")
    (tmp_path / "fsdd").mkdir()
    return tmp_path / "fsdd"


def sound(samples: np.ndarray, rate: int = 8000) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(samples.astype("<i2").tobytes())
    return stream.getvalue()


def recordings() -> dict[tuple[int, str, int], np.ndarray]:
    r = np.random.default_rng(0)
    keys = [(label, speaker, index) for label in (0, 3) for speaker in ("ann", "bob") for index in (0, 4, 5, 11)]
    return {key: r.integers(-32768, 32768, int(r.integers(20, 60))).astype(np.int16) for key in keys}


def write(folder: Path, how: str) -> dict[tuple[int, str, int], np.ndarray]:
    made = recordings()
    if how == "npz":
        order = list(made)
        np.savez(
            folder / "fsdd_900.npz", x=np.concatenate(list(made.values())),
            offset=np.cumsum([0, *(len(v) for v in made.values())]), label=np.array([k[0] for k in order]),
            speaker=np.array([k[1] for k in order]), index=np.array([k[2] for k in order]),
        )  # fmt: skip
    elif how == "folder":
        (folder / "recordings").mkdir()
        for (label, speaker, index), samples in made.items():
            (folder / "recordings" / f"{label}_{speaker}_{index}.wav").write_bytes(sound(samples))
    else:
        with tarfile.open(folder / "v1.0.9.tar.gz", "w:gz") as tar:
            for (label, speaker, index), samples in reversed(made.items()):
                info = tarfile.TarInfo(f"free-spoken-digit-dataset-1.0.9/recordings/{label}_{speaker}_{index}.wav")
                content = sound(samples)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return made


@pytest.mark.parametrize("how", ["npz", "folder", "archive"])
def test_recordings_are_the_same_however_packed(folder: Path, how: str) -> None:
    made = write(folder, how)
    found = spoken_digits(length=40)
    assert (found.source, found.verified) == ("mirror", False)
    assert (len(found.train.labels), len(found.test.labels)) == (8, 8)
    assert found.train.labels.tolist() == [0] * 4 + [3] * 4
    rows = {tuple(row) for row in found.test.values[..., 0].tolist()}
    for (_, _, index), samples in made.items():
        padded = np.zeros(40, np.float32)
        padded[: min(len(samples), 40)] = samples[:40] / 32768
        assert (tuple(padded.tolist()) in rows) == (index < 5)
    assert found.train.lengths.max() <= 40
    npz = folder.parent / "other"
    npz.mkdir()
    write(npz, "npz")
    digest = found.sha256
    for path in folder.glob("*"):
        path.rename(folder.parent / path.name)
    (npz / "fsdd_900.npz").rename(folder / "fsdd_900.npz")
    assert spoken_digits(length=40).sha256 == digest


def test_resampling_keeps_slow_sounds_and_drops_fast_ones(folder: Path) -> None:
    t = np.arange(4000)
    (folder / "recordings").mkdir()
    for index, frequency in ((0, 200.0), (5, 3900.0)):  # Hz; after every fourth sample Nyquist is 1000
        wave_form = 20000 * np.sin(2 * np.pi * frequency * t / 8000)
        (folder / "recordings" / f"0_ann_{index}.wav").write_bytes(sound(wave_form))
    found = spoken_digits(length=1000, every=4)
    assert found.rate == 2000
    middle = slice(100, 900)
    slow = 20000 / 32768 * np.sin(2 * np.pi * 200 * t[::4] / 8000)
    assert np.abs(found.test.values[0, middle, 0] - slow[middle]).max() < 0.01  # ripple of the filter
    assert np.abs(found.train.values[0, middle, 0]).max() < 0.01


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("recordings/0_ann_0.wav", b"RIFF", "no sound can be read"),
        ("recordings/0_ann_0.wav", sound(np.zeros(9), 44100), "at 44100 Hz: expected 1 channel of 16 bit at 8000 Hz"),
        ("recordings/readme.txt", b"", "no recording in"),
        ("fsdd_900.npz", b"PK", "no arrays x, offset"),
        ("v1.0.9.tar.gz", b"\x1f\x8b", "damaged archive"),
        ("nothing", b"", "v1.0.9.tar.gz is not here"),
    ],
)
def test_damaged_recordings_are_refused(folder: Path, name: str, content: bytes, message: str) -> None:
    pytest.importorskip("pooch")
    (folder / "recordings").mkdir()
    (folder / name).write_bytes(content)
    if not name.startswith("recordings"):
        (folder / "recordings").rmdir()
    with pytest.raises(InputError, match=message):
        spoken_digits()


def test_lengths_below_one_are_refused() -> None:
    with pytest.raises(InputError, match="length 0, every 1: both must be integers >= 1"):
        spoken_digits(length=0)


def test_shared_spoken_digits(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSMTHEORY_DATA", str(shared_data))
    found = spoken_digits(length=100)
    assert (len(found.train.labels), len(found.test.labels)) == (600, 300)  # 6 speakers, recordings 0 to 14
    assert np.bincount(found.test.labels).tolist() == [30] * 10


# ---------------------------------------------------------------------------------------------------- sinusoids


@pytest.mark.parametrize("random_phase", [False, True])
def test_sinusoids_are_what_they_say(random_phase: bool) -> None:
    data = sinusoids(20, length=300, step=0.02, random_phase=random_phase, seed=3)
    t = 0.02 * np.arange(300)
    for i in range(20):
        expected = data.amplitude[i] * np.cos(data.frequency[i] * t + data.phase[i])
        np.testing.assert_allclose(data.values[i, :, 0], expected, atol=1e-6)  # float32
    assert (data.phase.max() > 0) == random_phase
    assert 0 <= data.frequency.min() < data.frequency.max() <= 80
    assert 0.5 <= data.amplitude.min() < data.amplitude.max() <= 1.5


def test_sinusoids_follow_the_seed() -> None:
    first, again, other = (sinusoids(5, length=10, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.values, again.values)
    assert not np.array_equal(first.amplitude, other.amplitude)
    # the same amplitudes at even frequencies: a test differs from training in the frequencies alone
    np.testing.assert_array_equal(first.amplitude, sinusoids(5, length=10, seed=1, even=True).amplitude)


def test_the_amplitude_can_be_recovered_from_the_samples() -> None:
    """Least squares on cos and sin of the known frequency: the regression has an answer."""
    data = sinusoids(10, low=1.0, high=100.0, random_phase=True, seed=4)
    t = data.step * np.arange(data.values.shape[1])
    for i in range(10):
        basis = np.stack([np.cos(data.frequency[i] * t), np.sin(data.frequency[i] * t)], 1)
        fitted, *_ = np.linalg.lstsq(basis, data.values[i, :, 0].astype(float), rcond=None)
        assert np.hypot(*fitted) == pytest.approx(data.amplitude[i], rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count 0"), ({"step": 0.0}, "step 0.0"), ({"low": 9.0, "high": 8.0}, "0 <= low <= high"),
        ({"high": math.inf}, "0 <= low <= high"), ({"amplitudes": (0.0, 1.0)}, "0 < first <= second"),
        ({"high": 100.0, "step": 0.04}, "4 radians per sample reach pi"), ({"low": math.nan}, "0 <= low <= high"),
    ],
)  # fmt: skip
def test_impossible_sinusoids_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sinusoids(**({"count": 3} | options))
