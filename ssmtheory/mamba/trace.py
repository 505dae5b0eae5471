"""Traces: what a model computes at every token, as a labelled dataset, in memory or streamed to a zarr store.

A trace runs chunk-major: each chunk of tokens goes through all layers before the next one, so that memory holds one
chunk's signals, however long the text. With `out` every chunk is written and forgotten.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ssmtheory.errors import InputError, nearest
from ssmtheory.mamba.forward import MixerSignals
from ssmtheory.results import fs
from ssmtheory.scan import selective_scan
from ssmtheory.typing import PathType

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["ALIASES", "NAMES", "collect", "hook", "split_alias"]

# what can be traced
NAMES: dict[str, str] = {
    "residual": "residual stream before the layer",
    "hidden": "normed residual stream, input of the mixer",
    "u": "input of the scan (after convolution and SiLU)",
    "z": "input of the gate",
    "delta": "step Delta, after softplus",
    "B": "input vector B of the scan",
    "C": "output vector C of the scan",
    "y": "output of the scan with skip, before the gate",
    "gated": "input of the output projection",
    "update": "what the layer adds to the residual stream",
    "q": "C . B = u^T S_C^T S_B u, the instantaneous input-output form",
    "state_rms": "root mean square of a channel's state after the token",
    "states": "state h after the token",
    "logits": "logits of the next token",
    "A": "continuous-time decay rate A < 0",
    "D": "skip weight",
}
DEFAULT_NAMES = ("residual", "delta", "B", "C", "q", "state_rms")
_SIGNALS = ("residual", "hidden", "u", "z", "delta", "B", "C", "y", "gated", "update")

# the names that users of TransformerLens 4 (first) and MambaLens (after) know; all are per layer
ALIASES: dict[str, str] = {
    "hook_resid_pre": "residual",
    "hook_in": "residual",
    "mixer.hook_in": "hidden",
    "mixer.hook_out": "update",
    "mixer.hook_ssm_out": "update",
    "mixer.hook_ssm_state": "states",
    "mixer.hook_ssm_B": "B",
    "mixer.hook_ssm_C": "C",
    "hook_layer_input": "residual",
    "hook_normalized_input": "hidden",
    "hook_skip": "z",
    "hook_ssm_input": "u",
    "hook_delta": "delta",
    "hook_B": "B",
    "hook_C": "C",
    "hook_h": "states",
    "hook_ssm_output": "y",
    "hook_after_skip": "gated",
    "hook_out_proj": "update",
}


class Traceable(Protocol):
    """A model whose signals can be streamed: `MambaLM` or `HybridLM`."""

    name: str
    sha256: str

    @property
    def n_layer(self) -> int:
        """Number of layers."""
        ...

    def stream(self, tokens: Any, tap: Any = None, *, chunk: int = 1024, on_logits: Any = None) -> Any:
        """Run the tokens chunk by chunk; tap(layer, signals) and on_logits(start, logits) see each chunk."""
        ...


def split_alias(name: str) -> tuple[str, int | None]:
    """A trace name and its layer: a plain name has none, a hook name such as "blocks.3.hook_resid_pre" has one.

    >>> split_alias("blocks.3.hook_resid_pre"), split_alias("delta")
    (('residual', 3), ('delta', None))

    Raises:
        InputError: neither a name of `NAMES` nor an alias.
    """
    if name in NAMES:
        return name, None
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    if match and match[2] in ALIASES:
        return ALIASES[match[2]], int(match[1])
    known = [*NAMES, *(f"blocks.{match[1] if match else 0}.{alias}" for alias in ALIASES)]
    raise InputError(f"unknown trace name {name!r}: names are {', '.join(NAMES)}.{nearest(name, known)}")


def hook(tree: xr.DataTree, alias: str) -> xr.DataArray:
    """The array of one hook name in a trace, such as `hook(tree, "blocks.3.hook_resid_pre")`.

    Raises:
        InputError: an unknown alias, or one whose signal or layer the trace does not hold.
    """
    name, layer = split_alias(alias)
    group = _group(name)
    if group not in tree.children or name not in tree[group]:
        held = [str(variable) for node in tree.children.values() for variable in node.data_vars]
        raise InputError(f"this trace does not hold {name!r}; it has {', '.join(held)}")
    array: Any = tree[group][name]
    if layer is None:
        return array
    if layer not in array["layer"].values:
        raise InputError(f"this trace holds layers {array['layer'].values.tolist()}, not {layer}")
    return array.sel(layer=layer)


def collect(
    model: Traceable,
    tokens: Any,
    names: Iterable[str] = DEFAULT_NAMES,
    *,
    layers: Sequence[int] | None = None,
    channels: Sequence[int] | None = None,
    chunk: int = 1024,
    out: PathType | None = None,
) -> xr.DataTree:
    """Run a model over tokens and keep the named signals.

    Args:
        model: `MambaLM` or `HybridLM`.
        tokens: (sequence, token) integers.
        names: of `NAMES`, or hook names (`ALIASES`), whose layers are then added to the traced ones.
        layers: which layers; all by default (or those of the hook names where only such are given).
        channels: which channels `states` keeps (it is channel * state numbers per token); all by default.
        chunk: tokens at a time.
        out: a folder that does not exist yet: the trace is written there as zarr, and opened lazily.

    Returns:
        A DataTree: /tokens (token_id), /signals (layer, sequence, token, ...), and /logits and /parameters on request.

    Raises:
        InputError: unknown names, layers or channels; `out` exists already; a chunk below 1.
        StoreError: `out` cannot be written.
    """
    import xarray as xr

    tokens = np.asarray(tokens)
    wanted, chosen = _choose(model, names, layers)
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise InputError(f"chunk must be a positive integer, not {chunk!r}")
    attrs = {
        "Conventions": "ssmtheory-1",
        "title": f"signals of {model.name}",
        "model": model.name,
        "model_sha256": model.sha256,
    }
    if out is None:
        writer = _Writer(tokens, wanted, chosen, channels, chunk, None)
        writer.run(model)
        return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs)} | writer.datasets())
    out = Path(out)
    if out.exists():
        raise InputError(f"{out} exists already: remove it, or trace to another folder")
    scratch = fs.temporary(out)
    try:
        with fs.store_errors(out):
            fs.make_folder(out.parent)
            fs.discard(scratch)
            writer = _Writer(tokens, wanted, chosen, channels, chunk, scratch)
            writer.run(model)
            writer.finish(attrs)
            fs.publish(scratch, out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return xr.open_datatree(str(out), engine="zarr", consolidated=False)


def _choose(
    model: Traceable, names: Iterable[str], layers: Sequence[int] | None
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    if isinstance(names, str):
        names = (names,)
    split = [split_alias(name) for name in names]
    if not split:
        raise InputError(f"no names to trace: they are {', '.join(NAMES)}")
    hooked = {layer for _, layer in split if layer is not None}
    if layers is None:
        only_hooks = all(layer is not None for _, layer in split)
        chosen = sorted(hooked) if only_hooks else range(model.n_layer)
    else:
        chosen = sorted(set(layers) | hooked)
    for layer in chosen:
        if isinstance(layer, bool) or not isinstance(layer, (int, np.integer)) or not 0 <= layer < model.n_layer:
            raise InputError(f"layer {layer!r}: {model.name} has layers 0 to {model.n_layer - 1}")
    return tuple(dict.fromkeys(name for name, _ in split)), tuple(int(layer) for layer in chosen)


class _Writer:
    """Takes each chunk's signals and puts them into arrays in memory or in a zarr store."""

    def __init__(
        self, tokens: np.ndarray, names: tuple[str, ...], layers: tuple[int, ...], channels: Sequence[int] | None,
        chunk: int, folder: Path | None,
    ) -> None:  # fmt: skip
        self.tokens, self.names, self.layers, self.chunk, self.folder = tokens, names, layers, chunk, folder
        self.channels = None if channels is None else np.asarray(channels, dtype=np.int64)
        self.arrays: dict[str, Any] = {}
        self.dims: dict[str, tuple[str, ...]] = {}

    def run(self, model: Traceable) -> None:
        """Stream the tokens through the model into the arrays."""
        on_logits = self.on_logits if "logits" in self.names else None
        model.stream(self.tokens, self.tap, chunk=self.chunk, on_logits=on_logits)

    def tap(self, layer: int, signals: MixerSignals) -> None:
        if layer not in self.layers:
            return
        row = self.layers.index(layer)
        for name in self.names:
            if name in _SIGNALS:
                value = numpy(getattr(signals, name))
                self._put(name, row, signals.start, value, _dims(name, value, signals.u.shape[-1]))
            elif name == "q":
                q = numpy((signals.B * signals.C).sum(-1))
                self._put(name, row, signals.start, q, ("group",) if q.ndim == 3 else ())
            elif name in ("A", "D") and signals.start == 0:
                self._put_parameter(name, row, numpy(getattr(signals, name)), signals.u.shape[-1])
        if "state_rms" in self.names or "states" in self.names:
            self._put_states(row, signals)

    def _put_states(self, row: int, signals: MixerSignals) -> None:
        channels = signals.u.shape[-1]
        if self.channels is not None and self.channels.size:
            low, high = int(self.channels.min()), int(self.channels.max())
            if low < 0 or high >= channels:
                raise InputError(f"channel {low if low < 0 else high}: the layer has channels 0 to {channels - 1}")

        s = signals
        dtype = numpy(s.u[:0]).dtype
        kept = channels if self.channels is None else self.channels.size
        # the scan's own chunks are small: gathered here, so that each zarr chunk is written once
        rms = np.empty(s.u.shape, dtype) if "state_rms" in self.names else None
        all_states = np.empty((*s.u.shape[:2], kept, s.B.shape[-1]), dtype) if "states" in self.names else None

        def reduce(states: Any, start: int) -> None:
            states = numpy(states)
            at = slice(start, start + states.shape[1])
            if rms is not None:
                rms[:, at] = np.sqrt(np.mean(np.square(states), axis=-1))
            if all_states is not None:
                all_states[:, at] = states if self.channels is None else states[:, :, self.channels]

        selective_scan(s.u, s.delta, s.A, s.B, s.C, initial_state=s.initial_state, reduce=reduce)
        if rms is not None:
            self._put("state_rms", row, s.start, rms, ("channel",))
        if all_states is not None:
            self._put("states", row, s.start, all_states, ("channel", "state"))

    def on_logits(self, start: int, logits: Any) -> None:
        value = numpy(logits)
        if "logits" not in self.arrays:
            self._allocate("logits", (*self.tokens.shape, value.shape[-1]), ("sequence", "token", "vocabulary"), value)
        self.arrays["logits"][:, start : start + value.shape[1]] = value

    def _put(self, name: str, row: int, start: int, value: np.ndarray, dims: tuple[str, ...]) -> None:
        if name not in self.arrays:
            shape = (len(self.layers), *self.tokens.shape, *value.shape[2:])
            self._allocate(name, shape, ("layer", "sequence", "token", *dims), value)
        self.arrays[name][row, :, start : start + value.shape[1]] = value

    def _put_parameter(self, name: str, row: int, value: np.ndarray, channels: int) -> None:
        if name not in self.arrays:
            first = "channel" if value.shape[0] == channels else "head"
            dims = ("layer", first, "state")[: 1 + value.ndim]
            self._allocate(name, (len(self.layers), *value.shape), dims, value)
        self.arrays[name][row] = value

    def _allocate(self, name: str, shape: tuple[int, ...], dims: tuple[str, ...], like: np.ndarray) -> None:
        self.dims[name] = dims
        if self.folder is None:
            self.arrays[name] = np.full(shape, np.nan, like.dtype)
            return
        import zarr

        # one layer's chunk of tokens is one zarr chunk, so that no two writes share one
        sizes = {"layer": 1, "token": self.chunk}
        chunks = tuple(max(1, min(sizes.get(dim, size), size)) for dim, size in zip(dims, shape, strict=True))
        self.arrays[name] = zarr.create_array(
            store=str(self.folder / _group(name)),
            name=name,
            shape=shape,
            chunks=chunks,
            dtype=like.dtype,
            fill_value=math.nan,
            dimension_names=dims,
            attributes=_attributes(name),
        )

    def datasets(self) -> dict[str, Any]:
        """The datasets of the tree, by group."""
        import xarray as xr

        grouped: dict[str, Any] = {"tokens": xr.Dataset(self._tokens())}
        for name, array in self.arrays.items():
            variable = (self.dims[name], array, _attributes(name))
            node = grouped.setdefault(_group(name), xr.Dataset())
            grouped[_group(name)] = node.assign({name: variable}).assign_coords(self._coordinates(name))
        return grouped

    def finish(self, attrs: dict[str, str]) -> None:
        """Write what is not yet on disk: token ids, coordinates, attributes."""
        import xarray as xr

        groups = dict.fromkeys(_group(name) for name in self.arrays)
        tree: dict[str, Any] = {"/": xr.Dataset(attrs=attrs), "tokens": xr.Dataset(self._tokens())}
        for group in groups:
            coordinates = {k: v for n in self.arrays if _group(n) == group for k, v in self._coordinates(n).items()}
            tree[group] = xr.Dataset(coords=coordinates)
        xr.DataTree.from_dict(tree).to_zarr(str(self.folder), mode="a", consolidated=False)

    def _tokens(self) -> dict[str, Any]:
        return {"token_id": (("sequence", "token"), self.tokens.astype(np.int32), {"long_name": "token id"})}

    def _coordinates(self, name: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        if "layer" in self.dims[name]:
            made["layer"] = ("layer", np.asarray(self.layers, np.int64), {"long_name": "layer of the model, from 0"})
        if name == "states" and self.channels is not None:
            made["channel"] = ("channel", self.channels, {"long_name": "channel of the inner width"})
        return made


def _group(name: str) -> str:
    if name in ("A", "D"):
        return "parameters"
    # states of some channels only have a channel axis of their own
    return name if name in ("logits", "states") else "signals"


def _dims(name: str, value: np.ndarray, channels: int) -> tuple[str, ...]:
    if name in ("residual", "hidden", "update"):
        return ("feature",)
    if name in ("B", "C"):
        return ("group", "state") if value.ndim == 4 else ("state",)
    return ("channel",) if value.shape[-1] == channels else ("head",)


def _attributes(name: str) -> dict[str, Any]:
    return {"long_name": NAMES[name], "units": "1"}


def numpy(value: Any) -> np.ndarray:
    """A signal of any framework as a NumPy array."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value)
