"""Identity comes from what decides the result, and from nothing else."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest

from ssmtheory.errors import ConfigError
from ssmtheory.results import DatasetSchema, provenance


def test_canonical_json_is_one_text_for_equal_configurations():
    first = {"b": (1, 2), "a": {"y": np.float64(0.1), "x": None}, "c": range(3), "d": np.int64(4), "e": True}
    second = {"e": True, "d": 4, "c": [0, 1, 2], "a": {"x": None, "y": 0.1}, "b": [1, 2]}
    assert provenance.canonical_json(first) == provenance.canonical_json(second)
    assert json.loads(provenance.canonical_json(first)) == second


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, np.zeros(2), b"x"])
def test_what_has_no_json_form_is_refused_by_name(value):
    with pytest.raises(ConfigError, match=r"config\.a\.b"):
        provenance.canonical_json({"a": {"b": value}})


def test_run_id_depends_on_experiment_configuration_and_model():
    ids = {
        provenance.run_id("one", {"a": 1}, None),
        provenance.run_id("two", {"a": 1}, None),
        provenance.run_id("one", {"a": 1.0}, None),
        provenance.run_id("one", {"a": "1"}, None),
        provenance.run_id("one", {"a": 1}, "ab"),
        provenance.run_id("one", {"a": 1}, "cd"),
    }
    assert len(ids) == 6
    assert provenance.run_id("one", {"a": 1, "b": 2}, "ab") == provenance.run_id("one", {"b": 2, "a": 1}, "ab")


def test_root_attributes_are_texts_without_place_or_time():
    schema = DatasetSchema("demo", 3, {})
    attributes = provenance.root_attributes(
        experiment="demo",
        title="T",
        resolved={"backend": "numpy", "dtype": "float32"},
        model_sha256=None,
        schema=schema,
    )
    assert attributes["Conventions"] == "ssmtheory-1"
    assert attributes["schema"] == "demo-3"
    assert (attributes["backend"], attributes["dtype"], attributes["model_sha256"]) == ("numpy", "float32", "")
    volatile = provenance.volatile(["x"])
    for word in (volatile["host"], volatile["cwd"], volatile["created_utc"][:10]):
        assert all(value != word and volatile["cwd"] not in value for value in attributes.values())


def test_stamps():
    one = provenance.stamp("demo-0123456789", "ab" * 32, "cd" * 32, "f" * 40)
    three = provenance.stamp("third-0123456789", "ab" * 32, "cd" * 32, "e" * 40 + "+dirty")
    two = provenance.stamp("other_thing-0123456789", "12" * 32, "34" * 32, None)
    found = provenance.parse_stamps(f"x{one}; {two}; {one}; {three}")
    assert [s.run_id for s in found] == ["demo-0123456789", "other_thing-0123456789", "third-0123456789"]
    assert [s.commit for s in found] == ["f" * 40, "unknown", "e" * 40 + "+dirty"]
    assert provenance.parse_stamps("ssmtheory content 12 run x") == []


def test_a_foreign_repository_around_the_package_is_not_its_commit(tmp_path, monkeypatch):
    """A wheel in a virtual environment inside somebody's repository: that repository's commit says nothing."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run(
        [
            "git",
            "-C",
            tmp_path,
            "-c",
            "user.name=x",
            "-c",
            "user.email=x@x",
            "commit",
            "-q",
            "--allow-empty",
            "-m",
            "x",
        ],
        check=True,
    )
    package = tmp_path / "venv/ssmtheory/results"
    package.mkdir(parents=True)
    (package / "provenance.py").touch()
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    assert provenance.git_state() == {"git_commit": None, "git_dirty": None, "git_diff_sha256": None}
    subprocess.run(["git", "-C", tmp_path, "add", "."], check=True)
    subprocess.run(
        ["git", "-C", tmp_path, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "-m", "x"], check=True
    )
    clean = provenance.git_state()
    assert len(clean["git_commit"]) == 40
    assert clean["git_dirty"] is False
    (package / "provenance.py").write_text("changed")
    assert provenance.git_state()["git_dirty"] is True


def test_an_installed_copy_answers_with_its_build(monkeypatch):
    monkeypatch.setattr(provenance, "build_commit", lambda: "a" * 40 + "+dirty")
    state = provenance.git_state()
    assert (state["git_commit"], state["git_dirty"]) == ("a" * 40, True)
    assert provenance.commit_of(state) == "a" * 40 + "+dirty"
    assert provenance.commit_of({"git_commit": None, "git_dirty": None}) is None


def test_no_git_at_all(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.git_state()["git_commit"] is None
