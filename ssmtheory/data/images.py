"""Images as sequences of pixels, row by row: the data of sequential image classification.

| name | images | source | published checksums (sha256) |
|---|---|---|---|
| digits | 1,797 of 8 x 8, 17 grey levels | scikit-learn, which ships them | none needed |
| mnist | 60,000 + 10,000 of 28 x 28 | CVDF's copy of LeCun's files | tensorflow-datasets, `url_checksums/mnist.txt` |
| fashion-mnist | 60,000 + 10,000 of 28 x 28 | Zalando's own | tensorflow-datasets, `url_checksums/fashion_mnist.txt` |
| cifar10 | 50,000 + 10,000 of 32 x 32 x 3 | Toronto, as binary | tensorflow-datasets, `url_checksums/cifar10.txt` |

A mirror may hold those files (`ssmtheory.data.download` says where), the unpacked ones, and for grey CIFAR-10 a subset
`cifar10/gray_train.npz`, `gray_test.npz` (`X` uint8 (n, 32, 32), `y`). Which it was, an `ImageSet` says: two sets are
the same data where their sha256 agree, whatever they were packed in.

Fashion-MNIST: Xiao, Rasul and Vollgraf, arXiv 1708.07747. MNIST: LeCun, Cortes and Burges, 1998. CIFAR-10: Krizhevsky,
"Learning multiple layers of features from tiny images", 2009.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssmtheory.data.download import RemoteFile, fetch, mirrored, unchanged
from ssmtheory.errors import InputError, nearest, require

__all__ = [
    "CIFAR10",
    "FASHION_MNIST",
    "MNIST",
    "NAMES",
    "ImagePart",
    "ImageSet",
    "load_images",
    "read_cifar",
    "read_idx",
]

NAMES = ("digits", "mnist", "fashion-mnist", "cifar10")


def _four(dataset: str, base: str, listed: dict[str, tuple[int, str, int]]) -> dict[str, RemoteFile]:
    return {
        key: RemoteFile(dataset, f"{key}-ubyte.gz", f"{base}{key}-ubyte.gz", digest, size, time)
        for key, (size, digest, time) in listed.items()
    }


#: Their gzip headers have no name.
MNIST = _four(
    "mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    {
        "train-images-idx3": (9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 0),
        "train-labels-idx1": (28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 0),
        "t10k-images-idx3": (1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 0),
        "t10k-labels-idx1": (4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 0),
    },
)
#: The times are those with which Debian's files, given the header back, have the published digests.
FASHION_MNIST = _four(
    "fashion-mnist",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    {
        "train-images-idx3": (26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", 1504176606),
        "train-labels-idx1": (29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", 1504176606),
        "t10k-images-idx3": (4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", 1504176627),
        "t10k-labels-idx1": (5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", 1504176627),
    },
)
CIFAR10 = RemoteFile(
    "cifar10",
    "cifar-10-binary.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    170052171,
)
_CIFAR_FOLDER = "cifar-10-batches-bin"
_CIFAR_FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
_CLASSES = 10

_Raw = tuple[np.ndarray, np.ndarray]  # (n, height, width, channels) uint8, (n,) uint8


@dataclass(frozen=True)
class ImagePart:
    """Training or test images.

    Attributes:
        pixels: (n, length, channels) float32 in [0, 1], row by row.
        labels: (n,) int64.
    """

    pixels: np.ndarray
    labels: np.ndarray

    def levels(self, count: int) -> np.ndarray:
        """Return grey images as the nearest of `count` equally spaced levels, (n, length) int64 of 0 to count - 1.

        Raises:
            InputError: the images have colours.

        >>> ImagePart(np.array([[[0.0], [0.49], [1.0]]], np.float32), np.array([0])).levels(17)
        array([[ 0,  8, 16]])
        """
        if self.pixels.shape[2] != 1:
            raise InputError(f"levels are of grey images, not of {self.pixels.shape[2]} channels: load with gray=True")
        return np.rint(self.pixels[:, :, 0] * np.float32(count - 1)).astype(np.int64)


@dataclass(frozen=True)
class ImageSet:
    """A data set: both parts, and what it is.

    Attributes:
        train, test: the parts, disjoint.
        name: as in `NAMES`.
        source: "scikit-learn", "mirror" or "download".
        sha256: of the integer images and labels as published, before any averaging or conversion to grey; it does not
            depend on how they were packed.
        verified: whether every file read has its published checksum (a subset of a mirror has none).
    """

    train: ImagePart
    test: ImagePart
    name: str
    source: str
    sha256: str
    verified: bool

    def describe(self) -> dict[str, str | int | bool]:
        """Return what a run records of its data: name, source, digest, numbers of images."""
        return {
            "name": self.name, "source": self.source, "sha256": self.sha256, "verified": self.verified,
            "train": len(self.train.labels), "test": len(self.test.labels),
        }  # fmt: skip


# ---------------------------------------------------------------------------------------------------- file formats


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes, the format of MNIST.

    Args:
        path: the file; gzip or plain, told by its first bytes.

    Returns:
        uint8 array of the shape that the file states.

    Raises:
        InputError: not IDX, another type than unsigned bytes, damaged, or shorter or longer than its shape.
    """
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: damaged gzip file ({error}): remove it, it is fetched again") from error
    if len(content) < 4 or content[:2] != b"\0\0":
        raise InputError(f"{path}: not an IDX file: it begins with {content[:4].hex() or 'nothing'}, not 0000")
    if content[2] != 8:
        raise InputError(f"{path}: IDX of type 0x{content[2]:02x}: only unsigned bytes (0x08) are read")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise InputError(f"{path}: IDX of {content[3]} dimensions, but it ends within its header: it is damaged")
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist())
    expected = start + math.prod(shape)
    if len(content) != expected:
        raise InputError(f"{path}: IDX of shape {shape} has {expected} bytes, this file {len(content)}: it is damaged")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_cifar(content: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a batch of CIFAR-10's binary version: records of one label and 3 x 32 x 32 bytes, red, green, blue.

    Args:
        content: of the file.
        name: of the file, for messages.

    Returns:
        (n, 32, 32, 3) uint8 images and (n,) uint8 labels.

    Raises:
        InputError: not whole records, or a label above 9.
    """
    if not content or len(content) % 3073:
        raise InputError(f"{name}: {len(content)} bytes are not records of 3073: the file is damaged")
    records = np.frombuffer(content, np.uint8).reshape(-1, 3073)
    return np.ascontiguousarray(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), records[:, 0].copy()


# ---------------------------------------------------------------------------------------------------- the sources


def _mnist(name: str) -> tuple[_Raw, _Raw, str, bool]:
    files = MNIST if name == "mnist" else FASHION_MNIST
    paths = {key: mirrored(name, file.name, file.name.removesuffix(".gz")) for key, file in files.items()}
    there = [path for path in paths.values() if path is not None]
    if there and len(there) < len(paths):
        absent = ", ".join(files[key].name for key, path in paths.items() if path is None)
        raise InputError(f"{name}: the mirror {there[0].parent} lacks {absent}: complete it, or take the folder away")
    source = "mirror" if there else "download"
    found = {key: path or fetch(files[key]) for key, path in paths.items()}
    verified = all(unchanged(found[key], files[key]) for key in files)
    raw = [(read_idx(found[f"{part}-images-idx3"])[..., None], read_idx(found[f"{part}-labels-idx1"]))
           for part in ("train", "t10k")]  # fmt: skip
    return raw[0], raw[1], source, verified


def _cifar(gray: bool) -> tuple[_Raw, _Raw, str, bool]:
    archive = mirrored("cifar10", CIFAR10.name)
    folder = None if archive else mirrored("cifar10", _CIFAR_FOLDER)
    subset = mirrored("cifar10", "gray_train.npz") if gray and not archive and not folder else None
    if subset is not None:
        parts = []
        for part in ("train", "test"):
            path = subset.with_name(f"gray_{part}.npz")
            if not path.is_file():
                raise InputError(f"cifar10: the mirror {path.parent} lacks {path.name}: complete it")
            try:
                with np.load(path) as stored:
                    parts.append((stored["X"][..., None], stored["y"]))
            except (OSError, EOFError, ValueError, KeyError, zlib.error) as error:
                raise InputError(f"{path}: no arrays X and y can be read ({error}): it is damaged") from error
        return parts[0], parts[1], "mirror", False
    if folder is not None:
        return (*_cifar_parts(lambda name: (folder / name).read_bytes(), str(folder)), "mirror", False)
    path = archive or fetch(CIFAR10)
    verified = unchanged(path, CIFAR10)
    try:
        with tarfile.open(path) as tar:
            contents = {
                Path(member.name).name: tar.extractfile(member).read()  # type: ignore[union-attr]
                for member in tar
                if member.isfile() and member.name.endswith(".bin")
            }
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: damaged archive ({error}): remove it, it is fetched again") from error
    return (*_cifar_parts(contents.__getitem__, str(path)), "mirror" if archive else "download", verified)


def _cifar_parts(read: Callable[[str], bytes], where: str) -> tuple[_Raw, _Raw]:
    parts = []
    for names in _CIFAR_FILES.values():
        try:
            batches = [read_cifar(read(name), f"{where}: {name}") for name in names]
        except (KeyError, FileNotFoundError) as error:
            raise InputError(f"{where}: lacks one of {', '.join(names)}") from error
        parts.append((np.concatenate([b[0] for b in batches]), np.concatenate([b[1] for b in batches])))
    return parts[0], parts[1]


def _digits() -> tuple[_Raw, _Raw, str, bool]:
    datasets = require("sklearn.datasets", "data", "the images 'digits'")
    images, labels = datasets.load_digits(return_X_y=True)
    images, labels = images.astype(np.uint8).reshape(-1, 8, 8, 1), labels.astype(np.uint8)
    shuffled = np.random.default_rng(0).permutation(len(images))
    test = np.arange(len(images)) % 4 == 3
    train_at, test_at = shuffled[~test], shuffled[test]
    return (images[train_at], labels[train_at]), (images[test_at], labels[test_at]), "scikit-learn", True


# ---------------------------------------------------------------------------------------------------- pixels


def _gray(images: np.ndarray) -> np.ndarray:
    """Luma of ITU-R 601-2 in 16-bit fixed point, rounded: the integers that Pillow's "L" gives."""
    r, g, b = (images[..., i].astype(np.uint32) for i in range(3))
    return ((19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16).astype(np.uint8)[..., None]


def _box(size: int, side: int) -> np.ndarray:
    """(side, size) weights of the mean over side equal intervals of size cells, those cut by a border in proportion."""
    edges = np.arange(side + 1) * size / side
    cells = np.arange(size)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return np.clip(overlap, 0.0, None) * side / size


def _pixels(images: np.ndarray, white: int, side: int | None) -> np.ndarray:
    n, height, _, channels = images.shape
    box = None if side is None or side == height else _box(height, side)
    out = np.empty((n, (side or height) ** 2, channels), np.float32)
    for start in range(0, n, 1000):  # float64 of 60,000 images at once would be gigabytes
        piece = images[start : start + 1000].astype(np.float64)
        if box is not None:
            piece = np.einsum("ih,nhwc,jw->nijc", box, piece, box, optimize=True)
        out[start : start + 1000] = (piece / white).reshape(len(piece), -1, channels)
    return out


def _digest(parts: tuple[_Raw, _Raw]) -> str:
    digest = hashlib.sha256()
    for images, labels in parts:
        digest.update(repr(images.shape).encode())
        digest.update(np.ascontiguousarray(images).data)
        digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()


def load_images(name: str, *, side: int | None = None, gray: bool = True) -> ImageSet:
    """Load a data set of images as sequences, from a mirror or by download.

    Args:
        name: one of `NAMES`.
        side: average the pixels down to side x side; None: as published.
        gray: CIFAR-10 in grey (luma); False: its three colours. The others are grey.

    Returns:
        Both parts: those of the source; of the digits every fourth of a fixed shuffle is the test part.

    Raises:
        MissingDependencyError: scikit-learn (digits) or pooch (download) is not installed.
        InputError: unknown name, a side that is too large, a damaged file, or no mirror and no network.

    >>> load_images("digits").train.pixels.shape
    (1348, 64, 1)
    """
    if name not in NAMES:
        raise InputError(f"no images {name!r}: there are {', '.join(NAMES)}.{nearest(name, NAMES)}")
    if name == "digits":
        size, (train, test, source, verified) = 8, _digits()
    elif name == "cifar10":
        size, (train, test, source, verified) = 32, _cifar(gray)
    else:
        size, (train, test, source, verified) = 28, _mnist(name)
    for images, labels in (train, test):
        fits = images.ndim == 4 and images.shape[1:3] == (size, size) and images.shape[3] in (1, 3)
        if not fits or labels.shape != images.shape[:1] or images.dtype != np.uint8:
            raise InputError(
                f"{name}: images {images.shape} and labels {labels.shape} are not of {size} x {size}: "
                "the files are damaged or of something else"
            )
        if len(labels) and labels.max() >= _CLASSES:
            raise InputError(f"{name}: label {labels.max()} is above {_CLASSES - 1}: the files are damaged")
    if side is not None and not 1 <= side <= size:
        raise InputError(f"side {side}: must lie between 1 and {size}, the side of {name}")
    digest = _digest((train, test))
    white = 16 if name == "digits" else 255
    parts = [
        ImagePart(_pixels(_gray(i) if gray and i.shape[3] == 3 else i, white, side), labels.astype(np.int64))
        for i, labels in (train, test)
    ]
    return ImageSet(parts[0], parts[1], name, source, digest, verified)
