"""Reading and writing Mamba checkpoints: strict, bounded in memory, and never executing what a file says.

Layouts: the original state-spaces one (config.json with `d_model` and `ssm_cfg`) and that of Hugging Face transformers
(`model_type` mamba, mamba2, falcon_mamba), each as safetensors or `pytorch_model.bin`, in one file or in shards with an
index. Tensors come out in the original naming. Whatever is wrong with a file is a CheckpointError that names it.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import pickletools
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssmtheory.errors import CheckpointError, InputError, nearest, require
from ssmtheory.mamba.config import MambaConfig, parameter_shapes
from ssmtheory.results import fs
from ssmtheory.typing import PathType

__all__ = ["Checkpoint", "Tensor", "model_sha256", "read_checkpoint", "read_json", "read_tensors", "save_checkpoint"]

# safetensors' names of the dtypes that weights come in; BF16 has no NumPy dtype and is kept as its 16 bits
_STORAGE = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}
_NAMES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}
_MAX_JSON = 64 << 20


@dataclass(frozen=True)
class Tensor:
    """A tensor as it is stored: `dtype` is F16, BF16, F32 or F64, `data` its little-endian elements, `shape` its shape.

    BF16 is held as uint16; `array` gives numbers.
    """

    dtype: str
    data: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    def array(self, dtype: str = "float32") -> np.ndarray:
        """The numbers as a fresh, writable NumPy array of the dtype."""
        if self.dtype == "BF16":
            return (self.data.astype(np.uint32) << 16).view(np.float32).astype(dtype)
        return self.data.astype(dtype)


@dataclass(frozen=True)
class Checkpoint:
    """A model read from a folder.

    `weights` maps original state-spaces names to NumPy arrays of one dtype; `sha256` identifies configuration and
    stored tensors whatever the layout, sharding or file format; `layout` is "original" or "huggingface".
    """

    config: MambaConfig
    weights: dict[str, np.ndarray]
    sha256: str
    layout: str
    folder: Path
    files: tuple[str, ...]
    stored_dtypes: tuple[str, ...]


# ---------------------------------------------------------------------- reading
def read_json(path: PathType) -> Any:
    """A JSON file's value; CheckpointError for anything unreadable, oversized, nested beyond reason or ambiguous."""
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_JSON:
            raise CheckpointError(f"{path.name} is larger than {_MAX_JSON >> 20} MiB: not a configuration")
        return json.loads(path.read_bytes().decode("utf-8"), object_pairs_hook=_unique)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not UTF-8 text (byte {error.start})") from error
    except RecursionError as error:
        raise CheckpointError(f"{path} is nested too deeply") from error
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        raise CheckpointError(f"the JSON key {next(n for n in names if names.count(n) > 1)!r} appears twice")
    return made


def read_checkpoint(folder: PathType, *, dtype: str = "float32") -> Checkpoint:
    """Read a checkpoint folder, check everything about it, and return its tensors in the original naming.

    Args:
        folder: holds config.json and model.safetensors or pytorch_model.bin (or the index of their shards). Where it
            also has a card.json, the SHA-256 values in it must match.
        dtype: "float32" or "float64", of the returned arrays; reduced-precision tensors are widened exactly.

    Raises:
        CheckpointError: a file is absent, truncated, damaged or unsafe; tensors are missing, unknown, of the wrong
            shape or dtype, or hold NaN or infinity; the configuration contradicts them.
        MissingDependencyError: the weights are a .bin file and torch is not installed.
    """
    if dtype not in ("float32", "float64"):
        raise InputError(f"dtype must be 'float32' or 'float64', not {dtype!r}")
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder")
    raw_config = read_json(folder / "config.json")
    config = MambaConfig.from_dict(raw_config)
    layout = "huggingface" if "model_type" in raw_config else "original"
    tensors, files = read_tensors(folder)
    tensors = _original_names(tensors)
    _check(config, tensors)
    sha256 = model_sha256(config, tensors)
    _check_card(folder, sha256)
    weights: dict[str, np.ndarray] = {}
    for name in parameter_shapes(config):
        weights[name] = tensors[name].array(dtype)
    return Checkpoint(
        config=config,
        weights=weights,
        sha256=sha256,
        layout=layout,
        folder=folder,
        files=files,
        stored_dtypes=tuple(sorted({t.dtype for t in tensors.values()})),
    )


def read_tensors(folder: PathType) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """All tensors of a folder by their stored names, and the files they came from (safetensors before .bin).

    Raises:
        CheckpointError: no weights, a damaged file, or an index that contradicts its shards.
    """
    folder = Path(folder)
    for index_name, single_name in (
        ("model.safetensors.index.json", "model.safetensors"),
        ("pytorch_model.bin.index.json", "pytorch_model.bin"),
    ):
        if (folder / index_name).exists():
            return _read_shards(folder, index_name)
        if (folder / single_name).exists():
            return _read_file(folder / single_name), (single_name,)
    stray = sorted(p.name for pattern in ("*.safetensors", "*.bin", "*.pt", "*.pth") for p in folder.glob(pattern))
    found = f"; {_listed(stray)} is not a name that is read" if stray else ""
    raise CheckpointError(
        f"{folder} has neither model.safetensors nor pytorch_model.bin, nor an index of shards{found}"
    )


def _read_file(path: Path) -> dict[str, Tensor]:
    return _read_bin(path) if path.suffix == ".bin" else _read_safetensors(path)


def _read_shards(folder: Path, index_name: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    index = read_json(folder / index_name)
    mapping = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(mapping, dict) or not mapping:
        raise CheckpointError(f"{index_name} has no weight_map")
    suffix = ".bin" if index_name.startswith("pytorch") else ".safetensors"
    for name, file in mapping.items():
        if not isinstance(file, str) or "\0" in file or Path(file).name != file or not file.endswith(suffix):
            raise CheckpointError(
                f"{index_name} maps {name!r} to {file!r}, which is not a {suffix} file of this folder"
            )
    files = tuple(sorted(set(mapping.values())))
    tensors: dict[str, Tensor] = {}
    for file in files:
        if not (folder / file).is_file():
            raise CheckpointError(f"the shard {file} that {index_name} lists is missing")
        shard = _read_file(folder / file)
        listed = {name for name, where in mapping.items() if where == file}
        if absent := sorted(listed - set(shard)):
            raise CheckpointError(f"{file} lacks {_listed(absent)}, which {index_name} says it has")
        if extra := sorted(set(shard) - listed):
            raise CheckpointError(f"{file} has {_listed(extra)}, which {index_name} does not list for it")
        tensors |= shard
    return tensors, files


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file as views of a read-only memory map.

    The format's own library checks the file first (header length, offsets that tile the data, sizes that match dtypes
    and shapes); the bytes are then taken from a map, because its NumPy reader has no bfloat16 and copies everything.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
        with open(path, "rb") as handle:
            mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    except SafetensorError as error:
        raise CheckpointError(f"{path.name} is not a valid safetensors file: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror or error}") from error
    except (ValueError, OverflowError) as error:  # an empty file cannot be mapped
        raise CheckpointError(f"{path.name} is not a valid safetensors file: {error}") from error
    length = int.from_bytes(mapped[:8], "little")
    try:
        header = json.loads(mapped[8 : 8 + length].decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name} is not a valid safetensors file: {error}") from error
    header.pop("__metadata__", None)
    if set(header) != names:
        raise CheckpointError(f"{path.name} is not a valid safetensors file: its header is ambiguous")
    tensors: dict[str, Tensor] = {}
    for name, entry in header.items():
        dtype, shape, (start, _) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        if dtype not in _STORAGE:
            raise CheckpointError(f"{path.name}: {name} has dtype {dtype}; weights are {', '.join(_STORAGE)}")
        try:
            data = np.frombuffer(mapped, _STORAGE[dtype], math.prod(shape), 8 + length + start).reshape(shape)
        except (ValueError, OverflowError) as error:
            raise CheckpointError(f"{path.name}: {name} does not fit its shape {shape}: {error}") from error
        tensors[name] = Tensor(dtype, data)
    return tensors


# what a state dict of plain tensors needs from a pickle; everything else is refused before torch sees the file
_PICKLE_GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch FloatStorage",
    "torch HalfStorage",
    "torch BFloat16Storage",
    "torch DoubleStorage",
}


def _read_bin(path: Path) -> dict[str, Tensor]:
    """Tensors of a torch zip file, whose pickle may name nothing but tensors (and is loaded with weights_only)."""
    _inspect_zip(path)
    torch = require("torch", "torch", f"reading {path.name}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # an untrusted pickle can raise anything, which is always the file's fault
        raise CheckpointError(f"{path.name} is not a readable torch file: {_first_line(error)}") from error
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise CheckpointError(f"{path.name} does not hold a state dict (tensor names mapped to tensors)")
    kinds = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64"}
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_quantized:
            raise CheckpointError(f"{path.name}: {name} is not a dense tensor")
        if value.dtype not in kinds:
            kind = str(value.dtype).removeprefix("torch.")
            raise CheckpointError(f"{path.name}: {name} has dtype {kind}; weights are {', '.join(_STORAGE)}")
        # expanded (stride 0) tensors could claim terabytes from a few stored bytes
        if value.numel() * value.element_size() > path.stat().st_size:
            raise CheckpointError(f"{path.name}: {name} of shape {tuple(value.shape)} is larger than the file")
        value = value.detach().contiguous()
        if value.dtype == torch.bfloat16:
            value = value.view(torch.uint16)
        tensors[name] = Tensor(kinds[state[name].dtype], value.numpy())
    return tensors


def _inspect_zip(path: Path) -> None:
    """Refuse a torch file that is not a plain zip of stored records, or whose pickle names anything but tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            for entry in entries:
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise CheckpointError(
                        f"{path.name}: the record {entry.filename!r} is compressed, which torch never does"
                    )
            pickles = [entry for entry in entries if entry.filename.endswith(".pkl")]
            if len(pickles) != 1:
                raise CheckpointError(f"{path.name} has {len(pickles)} pickles where a torch file has one")
            if pickles[0].file_size > _MAX_JSON:
                raise CheckpointError(f"{path.name}: its pickle is larger than {_MAX_JSON >> 20} MiB")
            program = archive.read(pickles[0])
    except zipfile.BadZipFile as error:
        raise CheckpointError(
            f"{path.name} is not a torch zip file ({error}): truncated, damaged, or written before torch 1.6"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror or error}") from error
    except CheckpointError:
        raise
    except Exception as error:  # zipfile raises many kinds on damaged directories
        raise CheckpointError(f"{path.name} is not a readable zip file: {_first_line(error)}") from error
    for name in _pickle_globals(path.name, program):
        if name not in _PICKLE_GLOBALS:
            raise CheckpointError(
                f"{path.name} is refused: its pickle names {name.replace(' ', '.')!r}, and a checkpoint must hold "
                "tensors only. Nothing in it was executed; convert it to safetensors where you trust it"
            )


def _pickle_globals(file: str, program: bytes) -> Iterator[str]:
    """The "module name" of each global that a pickle would import, without running it."""
    strings: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(program):
            if opcode.name in ("GLOBAL", "INST"):
                yield str(argument)
            elif opcode.name == "STACK_GLOBAL":
                yield " ".join(strings[-2:])
            elif opcode.name in ("EXT1", "EXT2", "EXT4"):
                yield "copyreg extension"
            elif isinstance(argument, str):
                strings.append(argument)
    except Exception as error:  # genops raises whatever the damaged opcode's reader raises
        raise CheckpointError(f"{file}: its pickle is damaged: {_first_line(error)}") from error


# ---------------------------------------------------------------------- checking
def _original_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Hugging Face names (and those of a bare backbone) in the original state-spaces naming."""
    bare = bool(tensors) and not any(name.startswith("backbone.") for name in tensors)
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        new = name if not bare or name.startswith("lm_head.") else "backbone." + name
        new = re.sub(r"^backbone\.embeddings\.", "backbone.embedding.", new)
        if new in renamed:
            raise CheckpointError(f"two tensors are called {new} (one of them as {name})")
        renamed[new] = tensor
    return renamed


def _check(config: MambaConfig, tensors: dict[str, Tensor]) -> None:
    """Names, shapes and values of the tensors against the configuration; drops a tied head."""
    layers = [int(m[1]) for name in tensors if (m := re.match(r"backbone\.layers\.(\d{1,9})\.", name))]
    stored = max(layers, default=-1) + 1
    if stored != config.n_layer:  # first, so that a lying n_layer cannot make a long list of expected names
        raise CheckpointError(f"config.json says {config.n_layer} layers, but the weights have {stored}")
    shapes = parameter_shapes(config)
    head, embedding = tensors.get("lm_head.weight"), tensors.get("backbone.embedding.weight")
    if config.tie_embeddings and head is not None and embedding is not None:
        same = head.dtype == embedding.dtype and np.array_equal(head.data, embedding.data)
        if not same:
            raise CheckpointError("config.json ties the embeddings, but lm_head.weight differs from the embedding")
        del tensors["lm_head.weight"]
    missing = [name for name in shapes if name not in tensors]
    unknown = [name for name in tensors if name not in shapes]
    if missing or unknown:
        said = []
        if missing:
            said.append(f"missing {_listed(missing)}")
        if unknown:
            said.append(f"unknown {_listed(unknown)}{nearest(unknown[0], missing)}")
        raise CheckpointError(f"the weights do not fit config.json ({config.family}): {'; '.join(said)}")
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise CheckpointError(f"{name} has shape {tensors[name].shape}, but config.json asks for {shape}")
    for name, tensor in tensors.items():
        if not _finite(tensor):
            raise CheckpointError(f"{name} holds NaN or infinity")


def _finite(tensor: Tensor) -> bool:
    flat = tensor.data.reshape(-1)
    for start in range(0, flat.size, 1 << 20):  # in pieces: the test must not double a large model's memory
        piece = flat[start : start + (1 << 20)]
        if tensor.dtype == "BF16":
            if bool(np.any((piece & 0x7F80) == 0x7F80)):
                return False
        elif not bool(np.isfinite(piece).all()):
            return False
    return True


def _check_card(folder: Path, sha256: str) -> None:
    """Hold the model against the SHA-256 that its card.json records, if it has one."""
    if not (folder / "card.json").exists():
        return
    card = read_json(folder / "card.json")
    recorded = card.get("sha256") if isinstance(card, dict) else None
    if not isinstance(recorded, str):
        raise CheckpointError(f"{folder.name}/card.json records no sha256")
    if recorded != sha256:
        raise CheckpointError(
            f"{folder.name} is damaged: its sha256 is {sha256[:12]}..., but card.json records {recorded[:12]}..."
        )


def model_sha256(config: MambaConfig, tensors: Mapping[str, Any]) -> str:
    """SHA-256 of a model: its configuration and each tensor's (name, dtype, shape, bytes), sorted by name.

    Args:
        config: the configuration.
        tensors: original names mapped to `Tensor`s or NumPy arrays.

    The same model has the same value in every layout, file format and sharding, in the dtype that is stored.
    """
    fields = asdict(config) | {"time_step_limit": [repr(x) for x in config.time_step_limit]}
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        if not isinstance(tensor, Tensor):
            tensor = Tensor(_NAMES[str(tensor.dtype)], np.asarray(tensor))
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(np.ascontiguousarray(tensor.data, _STORAGE[tensor.dtype]).data)
    return digest.hexdigest()


# ---------------------------------------------------------------------- writing
def save_checkpoint(
    folder: PathType,
    config: MambaConfig,
    weights: Mapping[str, np.ndarray],
    *,
    layout: str | None = None,
    dtype: str = "float32",
    shards: int = 1,
    card: Mapping[str, Any] | None = None,
) -> str:
    """Write config.json and safetensors that `read_checkpoint` and other libraries read back.

    Args:
        folder: created if absent; files of the same names are replaced, each at once.
        config, weights: the model, in the original naming.
        layout: "original" or "huggingface"; by default the original one where the family has it.
        dtype: "float16", "bfloat16" (rounded to nearest, ties to even), "float32" or "float64".
        shards: number of files; more than one also writes an index.
        card: what to write into card.json, which then also gets the model's `sha256` (checked at every load).

    Returns:
        The model's sha256.

    Raises:
        InputError: weights that do not fit the configuration, are not finite, or overflow the dtype.
        StoreError: the folder cannot be written.
    """
    if dtype not in _NAMES:
        raise InputError(f"dtype must be one of {', '.join(_NAMES)}, not {dtype!r}.{nearest(dtype, _NAMES)}")
    if layout is None:
        layout = "huggingface" if config.family == "falcon_mamba" else "original"
    shapes = parameter_shapes(config)
    if set(weights) != set(shapes):
        odd = sorted(set(weights) ^ set(shapes))
        raise InputError(f"the weights do not fit the configuration: {_listed(odd)}")
    tensors: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        tensors[name] = _stored(name, np.asarray(weights[name]), dtype)
        if tensors[name].shape != shape:
            raise InputError(f"{name} has shape {tensors[name].shape}, but the configuration asks for {shape}")
    written = config.to_dict(layout)
    sha256 = model_sha256(config, tensors)
    if layout == "huggingface":
        tensors = {name.replace("backbone.embedding.", "backbone.embeddings."): t for name, t in tensors.items()}
    folder = Path(folder)
    names = list(tensors)
    if not 1 <= shards <= len(names):
        raise InputError(f"shards must be from 1 to {len(names)} (the number of tensors), not {shards}")
    with fs.store_errors(folder):
        fs.make_folder(folder)
        if shards == 1:
            _write_safetensors(folder / "model.safetensors", tensors)
        else:
            mapping: dict[str, str] = {}
            for k in range(shards):
                file = f"model-{k + 1:05d}-of-{shards:05d}.safetensors"
                part = names[k * len(names) // shards : (k + 1) * len(names) // shards]
                mapping |= dict.fromkeys(part, file)
                _write_safetensors(folder / file, {name: tensors[name] for name in part})
            total = sum(t.data.nbytes for t in tensors.values())
            index = {"metadata": {"total_size": total}, "weight_map": mapping}
            _write(folder / "model.safetensors.index.json", [_json(index)])
        if card is not None:
            _write(folder / "card.json", [_json({**card, "sha256": sha256})])
        _write(folder / "config.json", [_json(written)])
    return sha256


def _stored(name: str, array: np.ndarray, dtype: str) -> Tensor:
    if not np.isfinite(array).all():
        raise InputError(f"{name} holds NaN or infinity")
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
        # round to nearest, ties to even: add half an ulp, and one more bit where the kept part is odd
        rounded = ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
        tensor = Tensor("BF16", rounded)
    else:
        with np.errstate(over="ignore"):
            tensor = Tensor(_NAMES[dtype], np.ascontiguousarray(array, _STORAGE[_NAMES[dtype]]))
    if not _finite(tensor):
        raise InputError(f"{name} overflows {dtype}: its largest magnitude is {np.abs(array).max():g}")
    return tensor


def _write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, tensor in tensors.items():
        end = start + tensor.data.nbytes
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the data to 8 bytes
    _write(
        path, [len(text).to_bytes(8, "little"), text, *(np.ascontiguousarray(t.data).data for t in tensors.values())]
    )


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def _write(path: Path, pieces: Iterable[Any]) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part."""

    def write(scratch: Path) -> None:
        with open(scratch, "wb") as file:
            for piece in pieces:
                file.write(piece)

    fs.write_file(path, write)


def _listed(names: Iterable[str], limit: int = 4) -> str:
    listed = [str(name) for name in names]
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
