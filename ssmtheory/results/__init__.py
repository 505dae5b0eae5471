"""What an experiment emits: schema, store, provenance, comparison. xarray and zarr load when an array is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ssmtheory.lazy import find

if TYPE_CHECKING:
    from ssmtheory.results.archive import export
    from ssmtheory.results.compare import list_runs, show, verify, whence
    from ssmtheory.results.schema import RESERVED_DIMENSIONS, DatasetSchema, Dimension, SchemaError, Variable
    from ssmtheory.results.store import RunStore, content_sha256, open_run

_HOME = {
    "DatasetSchema": "schema",
    "Dimension": "schema",
    "RESERVED_DIMENSIONS": "schema",
    "SchemaError": "schema",
    "Variable": "schema",
    "RunStore": "store",
    "content_sha256": "store",
    "open_run": "store",
    "list_runs": "compare",
    "show": "compare",
    "verify": "compare",
    "whence": "compare",
    "export": "archive",
}

__all__ = [
    "RESERVED_DIMENSIONS",
    "DatasetSchema",
    "Dimension",
    "RunStore",
    "SchemaError",
    "Variable",
    "content_sha256",
    "export",
    "list_runs",
    "open_run",
    "show",
    "verify",
    "whence",
]


def __getattr__(name: str) -> Any:
    return find(__name__, name, _HOME)
