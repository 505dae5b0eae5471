"""The points of a sweep, from TOML text: axes, axes that move together, conditions, and what is refused."""

from __future__ import annotations

import itertools
import math
import tomllib

import pytest

from ssmtheory.errors import ConfigError
from ssmtheory.sweeps import grid as grids

FIELDS = ("N", "alpha", "dt", "seed", "kind", "lengths")


def read(text: str, **fixed):
    def convert(name, item):
        return (item,) if name == "lengths" and not isinstance(item, list) else item

    return grids.read(tomllib.loads(text), FIELDS, convert, {"N": 0, "alpha": 0.5, "dt": 0.1, "seed": 0, **fixed})


def test_a_grid_is_the_product_in_the_order_of_the_table():
    grid = read('N = [16, 32]\nkind = ["a", "b", "c"]\nseed = {range = [3, 5]}')
    expected = [{"N": n, "kind": k, "seed": s} for n, k, s in itertools.product((16, 32), ("a", "b", "c"), (3, 4))]
    assert [grid.values(point) for point in range(len(grid))] == expected
    assert [grid.index(point) for point in range(len(grid))] == list(itertools.product(range(2), range(3), range(2)))
    assert grid.describe() == "2 N x 3 kind x 2 seed = 12 points"


def test_spaced_values():
    grid = read("alpha = {log = [1e-4, 1.0, 5]}\ndt = {linear = [0.0, 1.0, 5]}\nseed = {range = 3}")
    columns = [[row[0] for row in axis.values] for axis in grid.axes]
    # exact: ends as given, what lies between is the nearest double to 15 digits
    assert columns == [[1e-4, 1e-3, 1e-2, 1e-1, 1.0], [0.0, 0.25, 0.5, 0.75, 1.0], [0, 1, 2]]
    assert read("alpha = {log = [2.0, 2.0, 1]}").values(0) == {"alpha": 2.0}
    steps = [row[0] for row in read("alpha = {log = [3e-3, 7.0, 9]}").axes[0].values]
    ratios = [b / a for a, b in itertools.pairwise(steps)]
    # 15 digits in each value: a relative error of 1e-15 in each end of a ratio
    assert all(math.isclose(ratio, (7.0 / 3e-3) ** (1 / 8), rel_tol=4e-15) for ratio in ratios)


def test_fields_that_move_together_share_a_dimension():
    grid = read('seed = [1, 2]\nN = [16, 32]\ndt = [0.1, 0.2]\nzip = [["N", "dt"]]')
    assert grid.shape == (2, 2)
    assert [axis.dimension for axis in grid.axes] == ["seed", "N"]
    assert {(v["N"], v["dt"]) for v in map(grid.values, range(4))} == {(16, 0.1), (32, 0.2)}
    # one group needs no second pair of brackets, and a value may come twice in it
    again = read('N = [16, 16]\ndt = [0.1, 0.2]\nzip = ["N", "dt"]')
    assert [again.values(i) for i in range(2)] == [{"N": 16, "dt": 0.1}, {"N": 16, "dt": 0.2}]


def test_conditions_leave_points_out():
    text = (
        'N = [16, 32, 64]\nalpha = [0.1, 1.0]\nwhere = ["alpha < 1 or N == 16", "N <= 2 * top and not (N in (5, 6))"]'
    )
    grid = grids.read(tomllib.loads(text.replace("top", "seed")), FIELDS, lambda _, v: v, {"seed": 16})
    kept = [(v["N"], v["alpha"]) for v in map(grid.values, range(len(grid)))]
    assert kept == [(16, 0.1), (16, 1.0), (32, 0.1)]
    assert grid.kept == (0, 1, 2)
    assert grid.describe().endswith("= 6 points, of which the conditions leave 3")
    # a condition sees what the file has, not the list that the field wants
    assert len(read("lengths = [8, 16]\nwhere = 'lengths > 8'")) == 1
    assert len(read("lengths = [[8], [8, 16]]\nwhere = 'len(lengths) == 2'")) == 1


def test_labels():
    grid = read('lengths = [[8], [8, 16]]\nN = [1, 2]\nalpha = [1, 2.5]\nkind = ["a"]')
    assert [axis.labels(axis.dimension) for axis in grid.axes] == [["8", "8, 16"], [1, 2], [1, 2.5], ["a"]]


def test_facts_name_the_points_not_the_blocks():
    assert read("N = [1]\nblock = 4").facts() == read("N = [1]\nblock = 8").facts()
    assert read("N = [1]").facts() != read("N = [2]").facts()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no axis"),
        ("M = [1]", "unknown key 'M'"),
        ("sead = [1]", "Did you mean 'seed'?"),
        ("N = 3", "a list of at least one value"),
        ("N = []", "a list of at least one value"),
        ("N = [1, 1]", "the value 1 is there twice"),
        ("alpha = {logg = [1, 2, 3]}", "{ log = [first, last, count] }"),
        ("alpha = {log = [0.0, 1.0, 3]}", "both ends above 0"),
        ("alpha = {log = [1.0, 2.0, 0]}", "a count of at least 1"),
        ("alpha = {linear = [1.0, inf, 3]}", "finite ends"),
        ("seed = {range = 1.5}", "whole numbers"),
        ("seed = {range = [0, 4, 0]}", "whole numbers"),
        ('N = [1, 2]\ndt = [0.1]\nzip = [["N", "dt"]]', "as many values: N has 2, dt has 1"),
        ('N = [1]\nzip = [["N", "dt"]]', "'dt' is no axis"),
        ('N = [1]\ndt = [0.1]\nzip = [["N", "dt"], ["dt", "N"]]', "is there twice"),
        ('N = [1]\nzip = "N"', "lists of fields"),
        ("N = [1]\nblock = 0", "at least 1"),
        ("N = [1]\nwhere = 3", "a condition, or a list of conditions"),
        ('N = [1]\nwhere = "N >"', "no expression"),
        ('N = [1]\nwhere = "sead > 1"', "no field 'sead'"),
        ('N = [1]\nwhere = "N.__class__"', "'N.__class__' cannot stand there"),
        ("N = [1]\nwhere = \"__import__('os')\"", "cannot stand there"),
        ('N = [1]\nwhere = "[x for x in (1,)]"', "cannot stand there"),
        ('N = [1]\nwhere = "N > 5"', "leave none of the 1 points"),
    ],
)
def test_what_is_refused(text, words):
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert words in str(caught.value)


def test_a_condition_that_fails_says_where():
    with pytest.raises(ConfigError, match=r"'N / seed > 1' with \{'N': 1, 'seed': 0\}: ZeroDivisionError"):
        read("N = [1]\nwhere = 'N / seed > 1'")
