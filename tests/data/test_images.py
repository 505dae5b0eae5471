"""Images as sequences: formats byte by byte, mirrors in every layout, averages, and what a set says of itself."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from ssmtheory.data import download, images
from ssmtheory.data.images import ImagePart, load_images, read_cifar, read_idx
from ssmtheory.errors import InputError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def idx(array: np.ndarray) -> bytes:
    """The format as LeCun's page states it: two zero bytes, 8 for unsigned bytes, rank, big-endian sizes, data."""
    return bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", n) for n in array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty mirror, no other one, and no network."""
    monkeypatch.setattr(download, "SYSTEM_FOLDERS", ())
    monkeypatch.setenv("SSMTHEORY_DATA", str(tmp_path))
    monkeypatch.setenv("SSMTHEORY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SSMTHEORY_OFFLINE", "1")
    return tmp_path


def write_mnist(folder: Path, name: str, *, packed: bool = True) -> tuple[np.ndarray, np.ndarray]:
    r = np.random.default_rng(0)
    pixels, labels = r.integers(0, 256, (6, 28, 28), dtype=np.uint8), r.integers(0, 10, 6, dtype=np.uint8)
    (folder / name).mkdir(exist_ok=True)
    for part, chosen in (("train", slice(0, 4)), ("t10k", slice(4, 6))):
        for kind, array in (("images-idx3", pixels[chosen]), ("labels-idx1", labels[chosen])):
            path = folder / name / f"{part}-{kind}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    return pixels, labels


def write_cifar(folder: Path, how: str) -> tuple[np.ndarray, np.ndarray]:
    r = np.random.default_rng(1)
    pixels, labels = r.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8), r.integers(0, 10, 6, dtype=np.uint8)
    target = folder / "cifar10"
    target.mkdir(exist_ok=True)
    files = {}
    for i, name in enumerate([*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]):
        # label, then the red, the green and the blue plane, each row by row
        planes = b"".join(pixels[i, :, :, c].tobytes() for c in range(3))
        files[name] = bytes([labels[i]]) + planes
    if how == "folder":
        (target / "cifar-10-batches-bin").mkdir()
        for name, content in files.items():
            (target / "cifar-10-batches-bin" / name).write_bytes(content)
    else:
        with tarfile.open(target / "cifar-10-binary.tar.gz", "w:gz") as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return pixels, labels


# ---------------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0, 3)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_is_read_as_written(tmp_path: Path, shape: tuple[int, ...], pack) -> None:
    array = np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)
    (tmp_path / "x").write_bytes(pack(idx(array)))
    np.testing.assert_array_equal(read_idx(tmp_path / "x"), array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file"),
        (b"PNG!", "not an IDX file"),
        (bytes([0, 0, 13, 1]) + struct.pack(">I", 1) + b"abcd", "type 0x0d"),
        (idx(np.zeros((2, 3), np.uint8))[:-1], r"shape \(2, 3\) has 18 bytes, this file 17"),
        (idx(np.zeros(4, np.uint8)) + b"x", r"shape \(4,\) has 12 bytes, this file 13"),
        (bytes([0, 0, 8, 3, 0, 0]), "ends within its header"),
        (gzip.compress(idx(np.zeros(400, np.uint8)))[:-12], "damaged gzip"),
        (b"\x1f\x8b nothing that can be unpacked", "damaged gzip"),
        # sizes whose product does not fit 64 bits
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "shape"),
    ],
)
def test_what_is_not_idx_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_idx(tmp_path / "x")


def test_cifar_records_are_planes_of_colour() -> None:
    record = bytes([7]) + bytes([1] * 1024) + bytes([2] * 1024) + bytes(range(256)) * 4
    pixels, labels = read_cifar(record * 2, "x")
    assert pixels.shape == (2, 32, 32, 3)
    assert labels.tolist() == [7, 7]
    assert (pixels[..., 0] == 1).all()
    assert pixels[0, 1, 5].tolist() == [1, 2, 37]
    for broken in (b"", record[:-1]):
        with pytest.raises(InputError, match=f"x: {len(broken)} bytes are not records of 3073"):
            read_cifar(broken, "x")


# ---------------------------------------------------------------------------------------------------- mirrors


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_a_mirror_packed_or_not_is_the_same_data(folder: Path, name: str) -> None:
    pixels, labels = write_mnist(folder, name)
    packed = load_images(name)
    assert packed.train.pixels.shape == (4, 784, 1)
    assert packed.train.pixels.dtype == np.float32
    assert packed.train.labels.dtype == np.int64
    np.testing.assert_array_equal(packed.train.pixels[2, :, 0], (pixels[2].ravel() / 255).astype(np.float32))
    np.testing.assert_array_equal(packed.test.labels, labels[4:])
    assert packed.describe() | {"sha256": ""} == {
        "name": name, "source": "mirror", "sha256": "", "verified": False, "train": 4, "test": 2
    }  # fmt: skip
    for path in (folder / name).iterdir():
        path.unlink()
    write_mnist(folder, name, packed=False)
    assert load_images(name).sha256 == packed.sha256


def test_part_of_a_mirror_is_not_completed_in_silence(folder: Path) -> None:
    write_mnist(folder, "mnist")
    (folder / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match="lacks t10k-labels-idx1-ubyte"):
        load_images("mnist")


@pytest.mark.parametrize("how", ["folder", "archive"])
def test_cifar_in_colour_and_grey(folder: Path, how: str) -> None:
    pixels, labels = write_cifar(folder, how)
    colour = load_images("cifar10", gray=False)
    assert colour.train.pixels.shape == (5, 1024, 3)
    np.testing.assert_array_equal(colour.train.labels, labels[:5])
    np.testing.assert_allclose(colour.test.pixels[0], pixels[5].reshape(1024, 3) / 255, rtol=1e-7)
    gray = load_images("cifar10")
    assert gray.sha256 == colour.sha256
    assert gray.test.pixels.shape == (1, 1024, 1)
    # ITU-R 601 luma, rounded to an integer: half a step of 1/255, and the weights' fixed point below that
    luma = pixels[5].reshape(1024, 3) @ [0.299, 0.587, 0.114]
    assert np.abs(gray.test.pixels[0, :, 0] * 255 - luma).max() < 0.502


def test_grey_is_what_pillow_makes(folder: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels, _ = write_cifar(folder, "folder")
    gray = load_images("cifar10").test.pixels[0, :, 0] * 255
    np.testing.assert_array_equal(np.rint(gray).reshape(32, 32), np.asarray(image.fromarray(pixels[5]).convert("L")))


def test_a_grey_subset_of_cifar(folder: Path) -> None:
    (folder / "cifar10").mkdir()
    pixels = np.random.default_rng(3).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    np.savez(folder / "cifar10" / "gray_train.npz", X=pixels, y=np.array([1, 2, 3], np.uint8))
    with pytest.raises(InputError, match=r"lacks gray_test\.npz"):
        load_images("cifar10")
    np.savez(folder / "cifar10" / "gray_test.npz", X=pixels[:1], y=np.array([1], np.uint8))
    found = load_images("cifar10", side=8)
    assert found.train.pixels[1, 9, 0] == pytest.approx(pixels[1, 4:8, 4:8].mean() / 255, rel=1e-6)
    assert found.train.levels(17)[1, 9] == round(pixels[1, 4:8, 4:8].mean() / 255 * 16)
    assert (found.source, found.verified) == ("mirror", False)
    with pytest.raises(InputError, match=r"cifar-10-binary\.tar\.gz is not here"):  # no colours in it
        load_images("cifar10", gray=False)
    write_cifar(folder, "folder")  # the whole set goes before the subset
    assert len(load_images("cifar10").train.labels) == 5


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("mnist/train-images-idx3-ubyte.gz", gzip.compress(idx(np.zeros((4, 8, 8), np.uint8))), "28 x 28"),
        ("mnist/train-labels-idx1-ubyte.gz", gzip.compress(idx(np.zeros(3, np.uint8))), r"labels \(3,\)"),
        ("mnist/train-labels-idx1-ubyte.gz", gzip.compress(idx(np.full(4, 10, np.uint8))), "label 10 is above 9"),
        ("cifar10/cifar-10-binary.tar.gz", b"no archive", "damaged archive"),
        ("cifar10/gray_train.npz", b"no zip", "no arrays X and y"),
    ],
)
def test_damaged_mirrors_are_refused(folder: Path, file: str, content: bytes, message: str) -> None:
    write_mnist(folder, "mnist")
    (folder / "cifar10").mkdir()
    (folder / "cifar10" / "gray_test.npz").touch()
    (folder / file).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_images(file.split("/", maxsplit=1)[0])


def test_an_archive_without_its_files_is_refused(folder: Path) -> None:
    (folder / "cifar10").mkdir()
    with tarfile.open(folder / "cifar10" / "cifar-10-binary.tar.gz", "w:gz"):
        pass
    with pytest.raises(InputError, match=r"lacks one of data_batch_1\.bin"):
        load_images("cifar10")


def test_a_download_is_recorded_as_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published digest decides: here of a made-up file in the cache."""
    write_mnist(folder, "mnist")
    (folder / "mnist").rename(folder / "elsewhere")
    files = {}
    for key, file in images.MNIST.items():
        content = (folder / "elsewhere" / file.name).read_bytes()
        files[key] = download.RemoteFile(
            "mnist", file.name, file.url, hashlib.sha256(content).hexdigest(), len(content)
        )
    (folder / "cache").mkdir()
    (folder / "elsewhere").rename(folder / "cache" / "mnist")
    pytest.importorskip("pooch")
    monkeypatch.setattr(images, "MNIST", files)
    found = load_images("mnist")
    assert (found.source, found.verified) == ("download", True)


# ---------------------------------------------------------------------------------------------------- pixels


def test_averages_keep_the_mean_and_are_plain_means_where_sides_divide(folder: Path) -> None:
    pixels, _ = write_mnist(folder, "mnist")
    halves = load_images("mnist", side=14).train.pixels[:, :, 0].reshape(4, 14, 14)
    plain = pixels[:4].reshape(4, 14, 2, 14, 2).mean(axis=(2, 4)) / 255
    np.testing.assert_allclose(halves, plain, atol=1e-7)  # float32
    for side in (1, 3, 8, 27, 28):
        part = load_images("mnist", side=side).train
        assert part.pixels.shape == (4, side**2, 1)
        np.testing.assert_allclose(part.pixels.mean((1, 2)), pixels[:4].mean((1, 2)) / 255, rtol=1e-5)


def test_an_average_over_cut_cells_is_the_integral(folder: Path) -> None:
    """28 -> 8: the mean over 3.5 x 3.5 pixels, by counting on a grid that both sides divide."""
    pixels, _ = write_mnist(folder, "mnist")
    fine = pixels[0].repeat(2, 0).repeat(2, 1).astype(float)
    expected = fine.reshape(8, 7, 8, 7).mean(axis=(1, 3)).ravel() / 255
    np.testing.assert_allclose(load_images("mnist", side=8).train.pixels[0, :, 0], expected, rtol=1e-6)


def test_levels_need_grey() -> None:
    with pytest.raises(InputError, match="levels are of grey images"):
        ImagePart(np.zeros((1, 4, 3), np.float32), np.zeros(1, np.int64)).levels(17)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [("mnits", {}, "no images 'mnits'.*Did you mean 'mnist'"), ("digits", {"side": 9}, "between 1 and 8"),
     ("digits", {"side": 0}, "between 1 and 8")],
)  # fmt: skip
def test_what_cannot_be_loaded_is_said(name: str, options: dict, message: str) -> None:
    pytest.importorskip("sklearn")
    with pytest.raises(InputError, match=message):
        load_images(name, **options)


# ---------------------------------------------------------------------------------------------------- the real sets


def test_digits_are_split_without_overlap_and_read_row_by_row() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    found = load_images("digits")
    assert (len(found.train.labels), len(found.test.labels)) == (1348, 449)
    both = np.concatenate([found.train.levels(17), found.test.levels(17)])
    everything = datasets.load_digits()
    assert sorted(map(tuple, both)) == sorted(map(tuple, everything.data.astype(int)))
    assert set(found.train.labels) == set(found.test.labels) == set(range(10))
    assert any((everything.images[0].astype(int).ravel() == row).all() for row in both)
    assert found.source == "scikit-learn"
    assert load_images("digits").sha256 == found.sha256


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_debian_s_fashion_mnist_is_the_published_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSMTHEORY_DATA", raising=False)
    monkeypatch.setenv("SSMTHEORY_OFFLINE", "1")
    found = load_images("fashion-mnist", side=4)
    assert (found.source, found.verified) == ("mirror", True)
    assert np.bincount(found.train.labels).tolist() == [6000] * 10
    assert np.bincount(found.test.labels).tolist() == [1000] * 10


def test_shared_grey_cifar(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "SYSTEM_FOLDERS", ())
    monkeypatch.setenv("SSMTHEORY_DATA", str(shared_data))
    found = load_images("cifar10", side=8)
    with np.load(shared_data / "cifar10" / "gray_train.npz") as stored:
        pixels = stored["X"]
    means = pixels.reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4))
    np.testing.assert_array_equal(found.train.levels(17), np.rint(means / 255 * 16).reshape(-1, 64))
