"""The schema refuses what it does not declare, and says which variable it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ssmtheory.results import RESERVED_DIMENSIONS, DatasetSchema, Dimension, SchemaError, Variable

SCHEMA = DatasetSchema(
    "demo",
    2,
    groups={
        "/": {"scale": Variable((), "float64", "1", "overall scale")},
        "tokens": {
            "loss": Variable(("sequence", "token"), "float32", "bit", "loss"),
            "flag": Variable(("token",), "int8", "1", "flag", attrs={"flag_meanings": "no yes"}),
            "extra": Variable(("wing",), "complex64", "1", "on request", optional=True),
        },
    },
    dimensions={"wing": Dimension("wing", "m")},
)


def test_every_reserved_dimension_is_documented():
    text = (Path(__file__).parents[2] / "docs/schema.md").read_text()
    rows = text[text.index("## Reserved dimensions") :].splitlines()[4:]
    assert rows == [f"| `{name}` | {d.units} | {d.long_name} |" for name, d in RESERVED_DIMENSIONS.items()]


def good() -> xr.DataTree:
    tokens = xr.Dataset(
        {
            "loss": (("sequence", "token"), np.zeros((2, 3), np.float32)),
            "flag": (("token",), np.zeros(3, np.int8)),
        },
        coords={"token": np.arange(3)},
    )
    return xr.DataTree.from_dict({"/": xr.Dataset({"scale": ((), 1.0)}), "tokens": tokens})


def test_reserved_names():
    wanted = {"layer", "token", "channel", "state", "omega", "state_dim", "init", "epsilon", "seed", "sequence"}
    wanted |= {"depth", "lag", "quantile", "head"}
    assert wanted <= RESERVED_DIMENSIONS.keys()
    assert all(d.long_name and d.units for d in RESERVED_DIMENSIONS.values())


def test_label_then_valid():
    tree = good()
    labelled = SCHEMA.label(tree)
    SCHEMA.validate(labelled)
    assert labelled["tokens/loss"].attrs == {"units": "bit", "long_name": "loss"}
    assert labelled["tokens/flag"].attrs["flag_meanings"] == "no yes"
    # an index coordinate takes its dimension's label without being declared
    assert labelled["tokens/token"].attrs["long_name"] == RESERVED_DIMENSIONS["token"].long_name
    assert tree["tokens/loss"].attrs == {}, "label works on a copy"


def test_units_are_required_before_writing():
    assert any("units" in line and "/tokens/loss" in line for line in SCHEMA.breaches(good()))


def replaced(name: str, array: tuple) -> xr.DataTree:
    tree = good()
    tree["tokens"].dataset = tree["tokens"].to_dataset().drop_vars(name, errors="ignore").assign({name: array})
    return SCHEMA.label(tree)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("loss", (("sequence", "token"), np.zeros((2, 3))), "/tokens/loss: dtype float64, the schema has float32"),
        ("loss", (("token", "sequence"), np.zeros((3, 2), np.float32)), "/tokens/loss: dimensions"),
        ("los", (("token",), np.zeros(3)), "/tokens/los is not in the schema. Did you mean 'loss'?"),
        ("extra", (("wing",), np.zeros(2)), "/tokens/extra: dtype float64, the schema has complex64"),
        ("wong", (("wong",), np.zeros(2)), "/tokens/wong: the dimension is not declared"),
    ],
)
def test_breaches_name_the_variable(name, array, message):
    with pytest.raises(SchemaError) as caught:
        SCHEMA.validate(replaced(name, array))
    assert message in str(caught.value)


def test_missing_variable_and_unknown_group():
    tree = good()
    tree["tokens"].dataset = tree["tokens"].to_dataset().drop_vars("flag")
    tree["token"] = xr.DataTree(xr.Dataset({"x": ((), 1.0)}))
    lines = "\n".join(SCHEMA.breaches(SCHEMA.label(tree)))
    assert "/tokens/flag is missing" in lines
    assert "group /token is not in the schema. Did you mean '/tokens'?" in lines
    assert "extra" not in lines, "an optional variable may be absent"


def test_every_breach_is_listed():
    tree = good()
    tree["tokens"].dataset = xr.Dataset({"flag": (("layer",), np.zeros(3))})
    text = "\n".join(SCHEMA.breaches(SCHEMA.label(tree)))
    assert all(piece in text for piece in ("dimensions", "dtype float64", "/tokens/loss is missing"))


@pytest.mark.parametrize(
    ("variable", "dimensions", "message"),
    [
        (Variable(("layr",), "float32", "1", "x"), {}, "dimension 'layr' is not declared. Did you mean 'layer'?"),
        (Variable((), "float", "1", "x"), {}, "dtype 'float' is not one of"),
        (Variable((), "float32", "", "x"), {}, "units and long_name are required"),
        (Variable((), "float32", "1", ""), {}, "units and long_name are required"),
        (Variable(("layer", "layer"), "float32", "1", "x"), {}, "repeated dimension"),
        (Variable((), "float32", "1", "x"), {"layer": Dimension("mine")}, "'layer' is reserved"),
    ],
)
def test_a_schema_checks_itself(variable, dimensions, message):
    with pytest.raises(SchemaError) as caught:
        DatasetSchema("bad", 1, {"g": {"v": variable}}, dimensions)
    assert message in str(caught.value)
