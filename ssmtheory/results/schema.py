"""Data schema: what a dataset may contain, with units and long names; checked before anything is written.

Dimension names are reserved: `layer` means the same thing in every dataset. A schema may declare further dimensions of
its own, never another meaning for a reserved one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ssmtheory.errors import StoreError, nearest

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

__all__ = ["CONVENTIONS", "RESERVED_DIMENSIONS", "DatasetSchema", "Dimension", "SchemaError", "Variable"]

CONVENTIONS = "ssmtheory-1"


class SchemaError(StoreError):
    """A dataset, or a schema, that breaks the rules; every breach is listed, one a line."""


@dataclass(frozen=True)
class Dimension:
    """A named dimension; a coordinate variable of the same name, where there is one, has these units."""

    long_name: str
    units: str = "1"


RESERVED_DIMENSIONS: Mapping[str, Dimension] = {
    # sequences and models
    "sequence": Dimension("sequence (independent piece of text or signal)"),
    "batch": Dimension("member of a batch"),
    "token": Dimension("position in the sequence", "token"),
    "token_i": Dimension("position of the first token of a pair", "token"),
    "token_j": Dimension("position of the second token of a pair", "token"),
    "anchor_token": Dimension("position of an anchor token", "token"),
    "row": Dimension("row (query token) of a hidden attention matrix"),
    "layer": Dimension("layer (block) of the model, from 0"),
    "depth": Dimension("residual stream before this layer; the last entry is after the last layer"),
    "channel": Dimension("channel of the inner width, or head where that is the natural axis"),
    "head": Dimension("head"),
    "group": Dimension("group of heads or channels that share B and C"),
    "feature": Dimension("feature of the model width"),
    "state": Dimension("state index within a channel (N)"),
    "vocabulary": Dimension("token id"),
    # linear systems
    "omega": Dimension("angular frequency", "rad"),
    "time": Dimension("continuous time", "s"),
    "lag": Dimension("lag between two tokens", "token"),
    "state_dim": Dimension("state dimension N of a system"),
    "init": Dimension("initialisation"),
    "epsilon": Dimension("perturbation size, or level of a pseudospectrum"),
    "mode": Dimension("eigenmode"),
    "eig": Dimension("index of an eigenvalue"),
    "input": Dimension("input of a system"),
    "output": Dimension("output of a system"),
    "real": Dimension("real part of a complex plane's grid"),
    "imag": Dimension("imaginary part of a complex plane's grid"),
    # statistics and sweeps
    "seed": Dimension("random seed"),
    "quantile": Dimension("quantile"),
    "position_bin": Dimension("bin of positions in the sequence"),
    "delta_bin": Dimension("bin of the step Delta"),
    "decay_bin": Dimension("bin of the decay exp(Delta A)"),
    "predictor": Dimension("predictor of a sign"),
    "step": Dimension("optimiser step"),
    "epoch": Dimension("pass over the training data"),
    "alpha": Dimension("noise level"),
    "point": Dimension("point of a sweep"),
}

# complex and int have no NaN of their own in zarr; the store writes complex NaN as their fill value
_DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128", "str"),
)


@dataclass(frozen=True)
class Variable:
    """One array of a dataset.

    dims: dimension names in order; each reserved or declared by the schema.
    dtype: a NumPy name ("float32", "complex128", "int32") or "str".
    units: UDUNITS-like text; "1" for a pure number, "bit", "rad", "token", "1/token".
    long_name: a few words, used by xarray to label plots.
    optional: may be absent (a quantity made on request).
    attrs: further fixed attributes, for example {"flag_meanings": "convergent divergent undecided"}.
    """

    dims: tuple[str, ...]
    dtype: str
    units: str
    long_name: str
    optional: bool = False
    attrs: Mapping[str, Any] = field(default_factory=dict)


def _clean(path: str) -> str:
    return "/" + path.strip("/")


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The schema's name of a NumPy dtype: "float32", ...; every kind of text is "str".

    >>> import numpy as np
    >>> dtype_name(np.dtype("<U7")), dtype_name(np.dtype("complex64"))
    ('str', 'complex64')
    """
    return "str" if dtype.kind in "UTO" else dtype.name


@dataclass(frozen=True)
class DatasetSchema:
    """The variables a dataset of one kind has, by group.

    name, version: identify the kind; both are root attributes ("schema": "token_dynamics-1").
    groups: path -> variable name -> `Variable`; "tokens" and "/tokens" are the same group.
    dimensions: the schema's own dimensions, besides the reserved ones.

    Coordinates: an index coordinate (named like its dimension) need not be declared; any other coordinate is declared
    like a data variable.

    >>> DatasetSchema("demo", 1, {"t": {"loss": Variable(("tokn",), "float32", "bit", "loss")}})
    Traceback (most recent call last):
        ...
    ssmtheory.results.schema.SchemaError: schema demo: /t/loss: dimension 'tokn' is not declared. Did you mean 'token'?
    """

    name: str
    version: int
    groups: Mapping[str, Mapping[str, Variable]]
    dimensions: Mapping[str, Dimension] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", {_clean(path): dict(g) for path, g in self.groups.items()})
        wrong = [
            f"dimension {d!r} is reserved and cannot be redefined" for d in self.dimensions if d in RESERVED_DIMENSIONS
        ]
        known = [*RESERVED_DIMENSIONS, *self.dimensions]
        for path, group in self.groups.items():
            for name, v in group.items():
                where = f"{path.rstrip('/')}/{name}"
                wrong += [
                    f"{where}: dimension {d!r} is not declared.{nearest(d, known)}" for d in v.dims if d not in known
                ]
                if len(set(v.dims)) != len(v.dims):
                    wrong.append(f"{where}: repeated dimension in {v.dims}")
                if v.dtype not in _DTYPES:
                    wrong.append(f"{where}: dtype {v.dtype!r} is not one of {', '.join(_DTYPES)}")
                if not v.units or not v.long_name:
                    wrong.append(f"{where}: units and long_name are required (units '1' for a pure number)")
        if wrong:
            raise SchemaError("\n".join(f"schema {self.name}: {line}" for line in wrong))

    @property
    def id(self) -> str:
        """ "name-version", the root attribute `schema`."""
        return f"{self.name}-{self.version}"

    def dimension(self, name: str) -> Dimension:
        """The reserved or own dimension of this name."""
        return RESERVED_DIMENSIONS.get(name) or self.dimensions[name]

    def label(self, tree: xr.DataTree) -> xr.DataTree:
        """A copy whose variables carry the schema's units, long_name and fixed attributes (data not copied)."""
        tree = tree.copy()
        for node in tree.subtree:
            declared = self.groups.get(_clean(node.relative_to(tree) if node is not tree else ""), {})
            dataset = node.to_dataset(inherit=False)
            for name, array in dataset.variables.items():
                if name in declared:
                    v = declared[str(name)]
                    array.attrs.update({"units": v.units, "long_name": v.long_name, **v.attrs})
                elif array.dims == (name,) and (name in RESERVED_DIMENSIONS or name in self.dimensions):
                    d = self.dimension(str(name))
                    array.attrs.update({"units": d.units, "long_name": d.long_name})
            node.dataset = dataset
        return tree

    def breaches(self, tree: xr.DataTree) -> list[str]:
        """Every way in which `tree` breaks the schema, one line each, naming the variable; empty when it keeps it."""
        wrong: list[str] = []
        seen: dict[str, set[str]] = {}
        for node in tree.subtree:
            path = _clean(node.relative_to(tree) if node is not tree else "")
            dataset = node.to_dataset(inherit=False)
            declared = self.groups.get(path)
            if declared is None and dataset.variables:
                wrong.append(f"group {path} is not in the schema.{nearest(path, list(self.groups))}")
                continue
            declared = declared or {}
            seen[path] = {str(name) for name in dataset.variables}
            for key, array in dataset.variables.items():
                name, where = str(key), f"{path.rstrip('/')}/{key}"
                v = declared.get(name)
                if v is None:
                    if array.dims != (name,):
                        wrong.append(f"{where} is not in the schema.{nearest(name, list(declared))}")
                    elif name not in RESERVED_DIMENSIONS and name not in self.dimensions:
                        wrong.append(f"{where}: the dimension is not declared")
                    continue
                if tuple(array.dims) != tuple(v.dims):
                    wrong.append(f"{where}: dimensions {tuple(array.dims)}, the schema has {tuple(v.dims)}")
                if dtype_name(array.dtype) != v.dtype:
                    wrong.append(f"{where}: dtype {dtype_name(array.dtype)}, the schema has {v.dtype}")
                for attribute, value in (("units", v.units), ("long_name", v.long_name)):
                    if array.attrs.get(attribute) != value:
                        wrong.append(f"{where}: {attribute} {array.attrs.get(attribute)!r}, the schema has {value!r}")
        for path, group in self.groups.items():
            for name, v in group.items():
                if not v.optional and name not in seen.get(path, set()):
                    wrong.append(f"{path.rstrip('/')}/{name} is missing")
        return wrong

    def validate(self, tree: xr.DataTree) -> None:
        """Raise `SchemaError` listing every breach of the schema; `label` the tree first."""
        wrong = self.breaches(tree)
        if wrong:
            raise SchemaError("\n".join(f"dataset breaks schema {self.id}: {line}" for line in wrong))
