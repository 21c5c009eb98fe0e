"""--steps, --every and --log-spaced select what they say, and say what cannot be selected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectra_cli.checkpoints.runs import Checkpoint, Run, in_order
from spectra_cli.checkpoints.selection import Selection
from spectra_cli.errors import InputError, UsageError

UNKNOWN = None
increasing_steps = st.lists(st.integers(0, 10**6), min_size=1, max_size=60, unique=True).map(sorted)


def run_of(*steps: int | None, name: str = ".") -> Run:
    names = [f"checkpoint_{index}" for index in range(len(steps))]
    checkpoints = (Checkpoint(Path(each), each, step) for each, step in zip(names, steps, strict=True))
    return Run(name, Path(), in_order(checkpoints))


def epochs_of(*epochs: int) -> Run:
    return Run(".", Path(), tuple(Checkpoint(Path(str(epoch)), str(epoch), None, epoch) for epoch in epochs))


def selected(run: Run, **options: object) -> list[int | None]:
    return [checkpoint.step for checkpoint in Selection(**options).apply(run).checkpoints]  # type: ignore[arg-type]  # options vary


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("300", [300]),
        ("300,100", [100, 300]),
        ("300, 300 ,300", [300]),
        ("first", [0]),
        ("final", [10_000]),
        ("first,final", [0, 10_000]),
        ("100:300", [100, 200, 300]),
        (":100", [0, 100]),
        ("300:", [300, 10_000]),
        ("150:250", [200]),
        ("10k", [10_000]),
        ("final,:100", [0, 100, 10_000]),
    ],
)
def test_steps_select_inclusively_in_run_order(steps: str, expected: list[int]) -> None:
    assert selected(run_of(0, 100, 200, 300, 10_000), steps=steps) == expected


@pytest.mark.parametrize(
    "steps", ["", "abc", "1,,2", "-5", "5:1", ":", "1:2:3", "1.5", "last", "first:5", "9" * 400, "9" * 400 + "k"]
)
def test_steps_which_mean_nothing_are_usage_errors(steps: str) -> None:
    with pytest.raises(UsageError, match="Write steps as"):
        Selection(steps=steps)


@pytest.mark.parametrize("options", [{"every": 0}, {"every": -1}, {"log_spaced": 1}, {"log_spaced": 0}])
def test_counts_which_select_nothing_are_usage_errors(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least"):
        Selection(**options)  # type: ignore[arg-type]  # options vary


def test_a_step_that_is_nowhere_is_an_error_that_lists_the_nearest() -> None:
    run = run_of(*range(0, 10_000, 100))
    with pytest.raises(InputError) as caught:
        Selection(steps="450").apply(run)
    assert "no checkpoint has step 450" in str(caught.value)
    assert "nearest of 100 available: 200, 300, 400, 500, 600" in str(caught.value)


def test_a_step_is_missing_only_where_no_run_has_it() -> None:
    runs = [run_of(0, 100, name="a"), run_of(0, 200, name="b")]
    chosen = Selection(steps="200").apply_all(runs)
    assert [(run.name, [each.step for each in run.checkpoints]) for run in chosen] == [("a", []), ("b", [200])]


def test_final_is_the_last_in_order_also_where_its_step_is_unknown() -> None:
    assert selected(run_of(100, UNKNOWN, 200), steps="final") == [None]


def test_epochs_are_meant_where_only_epochs_are_known() -> None:
    chosen = Selection(steps="2:3").apply(epochs_of(1, 2, 3, 4))
    assert [checkpoint.epoch for checkpoint in chosen.checkpoints] == [2, 3]


@given(steps=increasing_steps, stride=st.integers(1, 70))
def test_every_keeps_the_first_each_nth_and_the_last(steps: list[int], stride: int) -> None:
    expected = sorted({*steps[::stride], steps[-1]})
    assert selected(run_of(*steps), every=stride) == expected


@given(steps=increasing_steps, count=st.integers(2, 70), unknown_last=st.booleans())
def test_log_spaced_keeps_both_ends_and_no_more_than_asked(steps: list[int], count: int, unknown_last: bool) -> None:
    run = run_of(*steps, *([UNKNOWN] if unknown_last else []))
    chosen = Selection(log_spaced=count).apply(run).checkpoints
    assert len(chosen) <= count
    assert (chosen[0], chosen[-1]) == (run.checkpoints[0], run.checkpoints[-1])
    assert list(chosen) == [checkpoint for checkpoint in run.checkpoints if checkpoint in chosen]


@given(last=st.integers(2, 20_000), count=st.integers(2, 30))
def test_log_spaced_is_geometric_where_every_step_was_saved(last: int, count: int) -> None:
    chosen = np.array(selected(run_of(*range(1, min(last, 2000) + 1)), log_spaced=count), dtype=float)
    for target in np.geomspace(1, min(last, 2000), count):
        assert np.abs(chosen - target).min() <= 1


@pytest.mark.parametrize("steps", [(1, 2, UNKNOWN), (1, 5, 5), (1, 1, 5), (0, 0, 5, 5), (1, 1, 1)])
def test_log_spaced_by_two_keeps_the_ends_alone(steps: tuple[int | None, ...]) -> None:
    run = run_of(*steps)
    chosen = Selection(log_spaced=2).apply(run).checkpoints
    assert chosen == (run.checkpoints[0], run.checkpoints[-1])


def test_log_spaced_counts_step_zero_as_one_and_starts_the_geometry_after_it() -> None:
    assert selected(run_of(0, 1, 5, 10, 50, 100, 500, 1000), log_spaced=5) == [0, 1, 10, 100, 1000]


def test_log_spaced_goes_by_order_where_no_step_is_known() -> None:
    run = run_of(*[UNKNOWN] * 100)
    chosen = Selection(log_spaced=3).apply(run).checkpoints
    assert [run.checkpoints.index(checkpoint) for checkpoint in chosen] == [0, 9, 99]


def test_the_parts_compose_in_the_order_steps_every_log_spaced() -> None:
    run = run_of(*range(0, 101))
    # 10:100 -> 10, 11, …, 100; every third -> 10, 13, …, 100; of those three geometrically spaced: 10, ~31.6, 100
    assert selected(run, steps="10:100", every=3, log_spaced=3) == [10, 31, 100]
