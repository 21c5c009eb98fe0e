"""Arrays to draw hold the numbers of the rows; means are over runs, where all of them have one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from spectra_cli.errors import UsageError
from spectra_cli.figures.rows import series

NAN = np.nan


def rows(*items: dict[str, Any]) -> pd.DataFrame:
    blank = {"run": "r", "x": 0.0, "name": "w", "depth": 0, "status": "ok", "value": 1.0}
    return pd.DataFrame([{**blank, **item} for item in items])


def test_an_overview_has_matrices_in_order_of_depth_and_steps_ascending() -> None:
    frame = rows(
        {"x": 5.0, "name": "deep", "depth": 1, "value": 4.0},
        {"x": 5.0, "name": "first", "depth": 0, "value": 3.0},
        {"x": 1.0, "name": "first", "depth": 0, "value": 1.0},
        {"x": 1.0, "name": "deep", "depth": 1, "value": 2.0},
    )
    (found,) = series.overviews(frame, "value")
    assert found.names == ("first", "deep")
    assert found.x.tolist() == [1.0, 5.0]
    np.testing.assert_array_equal(found.values, [[1.0, 3.0], [2.0, 4.0]])


def test_cells_without_a_number_say_why() -> None:
    """Of one matrix, and of a whole checkpoint that could not be read."""
    frame = rows(
        {"x": 0.0, "name": "a"},
        {"x": 0.0, "name": "b", "depth": 1, "status": "not_finite", "value": None},
        {"x": 1.0, "name": None, "depth": None, "status": "corrupt", "value": None},
    )
    (found,) = series.overviews(frame, "value")
    np.testing.assert_array_equal(found.values, [[1.0, NAN], [NAN, NAN]])
    assert found.statuses == {(1, 0): "not_finite", (0, 1): "corrupt", (1, 1): "corrupt"}


def test_heads_are_averaged_over_those_that_are_ok() -> None:
    frame = rows({"value": 0.2}, {"value": 0.6}, {"value": None, "status": "all_zero"})
    (found,) = series.overviews(frame, "value")
    assert found.values[0, 0] == pytest.approx(0.4)
    assert found.statuses == {}


def test_runs_are_kept_apart_in_their_order() -> None:
    frame = rows({"run": "z", "value": 1.0}, {"run": "a", "value": 2.0})
    assert [(each.run, each.values[0, 0]) for each in series.overviews(frame, "value")] == [("z", 1.0), ("a", 2.0)]


def test_an_evolution_has_a_column_for_each_singular_value() -> None:
    """Lists of several lengths, and none at all, are gaps."""
    frame = rows({"x": 2.0, "value": [3.0, 1.0]}, {"x": 1.0, "value": [5.0, 4.0, 2.0]}, {"x": 3.0, "value": None})
    (found,) = series.evolutions(frame, "value")
    assert found.x.tolist() == [1.0, 2.0, 3.0]
    np.testing.assert_array_equal(found.values, [[5, 4, 2], [3, 1, NAN], [NAN, NAN, NAN]])


def test_diagonals_of_heads_are_averaged_entry_by_entry() -> None:
    (found,) = series.evolutions(rows({"value": [0.2, 0.4]}, {"value": [0.6]}), "value")
    np.testing.assert_allclose(found.values, [[0.4, 0.4]])


def test_means_are_taken_where_all_runs_have_a_number() -> None:
    """Steps of one run only are left out; a gap in one run is a gap in the mean. Oracle: the numbers by hand."""
    first = series.Evolution("a", "w", np.array([0.0, 1.0, 5.0]), np.array([[1.0, 2.0], [3.0, NAN], [5.0, 6.0]]))
    other = series.Evolution("b", "w", np.array([0.0, 5.0, 7.0]), np.array([[3.0, 2.0], [9.0, NAN], [0.0, 0.0]]))
    mean = series.mean_evolution([first, other])
    assert mean.x.tolist() == [0.0, 5.0]
    np.testing.assert_array_equal(mean.values, [[2.0, 2.0], [7.0, NAN]])
    assert mean.deviation is not None
    np.testing.assert_allclose(mean.deviation, [[2**0.5, 0.0], [8**0.5, NAN]])
    assert mean.run == "mean of 2 runs"


def test_the_mean_overview_matches_matrices_by_name() -> None:
    """Runs may list them in another order, or lack one: then there is no mean of it."""
    first = series.Overview(
        "a", ("u", "v"), np.array([0.0, 2.0]), np.array([[1.0, 2.0], [3.0, NAN]]), {(1, 1): "empty"}
    )
    other = series.Overview(
        "b", ("v", "u", "t"), np.array([0.0, 1.0, 2.0]), np.array([[5.0, 9, 9], [3, 9, 4], [0, 0, 0]])
    )
    mean = series.mean_overview([first, other])
    assert mean.names == ("u", "v", "t")
    assert mean.x.tolist() == [0.0, 2.0]
    np.testing.assert_array_equal(mean.values, [[2.0, 3.0], [4.0, NAN], [NAN, NAN]])
    assert mean.statuses == {(1, 1): "empty"}


def test_the_deviation_is_that_of_a_sample() -> None:
    curves = [series.curve("c", [0.0], [value]) for value in (1.0, 2.0, 6.0)]
    mean = series.mean_curve(curves)
    assert mean.deviation is not None
    assert mean.y.tolist() == [3.0]
    assert mean.deviation[0] == pytest.approx((((1 - 3) ** 2 + (2 - 3) ** 2 + (6 - 3) ** 2) / 2) ** 0.5)
    assert series.mean_curve(curves[:1]).deviation is None


def test_runs_without_a_step_in_common_have_no_mean() -> None:
    with pytest.raises(UsageError, match="no step in common"):
        series.mean_curve([series.curve("a", [0.0], [1.0]), series.curve("b", [1.0], [1.0])])


def test_curves_are_in_order_of_steps() -> None:
    found = series.curve("c", [3.0, 1.0], [0.3, None])
    assert found.x.tolist() == [1.0, 3.0]
    np.testing.assert_array_equal(found.y, [NAN, 0.3])


NAMES = ["residual: a.0.weight -> b.0.weight", "query-key: q -> k"]


@pytest.mark.parametrize(
    "glob", ["residual", "res*", "a.0.weight", "b.*", "* -> b.0.weight", NAMES[0], "a.0.weight -> *"]
)
def test_connections_match_by_kind_end_or_both(glob: str) -> None:
    assert series.matching(NAMES, [glob]) == NAMES[:1]


def test_matrices_match_as_include_does() -> None:
    names = ["h.0.w", "h.1.w", "x[0]"]
    assert series.matching(names, ["h.*"]) == names[:2]
    assert series.matching(names, ["x[0]"]) == ["x[0]"]
    assert series.matching(names, ["H.*"]) == []


def test_the_middle_is_the_earlier_of_two() -> None:
    assert [series.middle(list("abcde"[:count])) for count in range(1, 6)] == ["a", "a", "b", "b", "c"]
