"""Which checkpoint each is compared with, told from steps and epochs alone: no file is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from spectra_cli.analyses.references import Reference, ReferenceChoice, shares_steps
from spectra_cli.checkpoints.runs import Checkpoint, Run
from spectra_cli.errors import InputError, UsageError

Times = tuple[int | None, int | None]
"""Step and epoch."""


def run_of(*times: int | Times, name: str = "run") -> Run:
    """A run whose checkpoints are called by their place: c0, c1, ..."""
    pairs = [(time, None) if isinstance(time, int) else time for time in times]
    checkpoints = tuple(
        Checkpoint(Path(name, f"c{place}"), f"c{place}", step, epoch) for place, (step, epoch) in enumerate(pairs)
    )
    return Run(name, Path(name), checkpoints)


def selected(run: Run, *places: int) -> Run:
    return replace(run, checkpoints=tuple(run.checkpoints[place] for place in places))


def named(references: dict[Path, Reference]) -> dict[str, str]:
    return {path.name: str(reference.checkpoint.path) for path, reference in references.items()}


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("final", {"c0": "run/c3", "c1": "run/c3", "c2": "run/c3", "c3": "run/c3"}),
        ("first", {"c0": "run/c0", "c1": "run/c0", "c2": "run/c0", "c3": "run/c0"}),
        ("previous", {"c1": "run/c0", "c2": "run/c1", "c3": "run/c2"}),
        ("20", {"c0": "run/c2", "c1": "run/c2", "c2": "run/c2", "c3": "run/c2"}),
        ("15", {}),
    ],
)
def test_the_reference_of_every_checkpoint(which: str, expected: dict[str, str]) -> None:
    assert named(ReferenceChoice(which).of(run_of(0, 10, 20, 30))) == expected


def test_final_first_and_steps_are_of_the_whole_run_and_previous_of_the_selection() -> None:
    run = selected(run_of(0, 10, 20, 30), 1, 2)
    assert named(ReferenceChoice("final").of(run)) == {"c1": "run/c3", "c2": "run/c3"}
    assert named(ReferenceChoice("first").of(run)) == {"c1": "run/c0", "c2": "run/c0"}
    assert named(ReferenceChoice("30").of(run)) == {"c1": "run/c3", "c2": "run/c3"}
    assert named(ReferenceChoice("previous").of(run)) == {"c2": "run/c1"}


def test_a_number_is_an_epoch_where_no_steps_are_known() -> None:
    run = run_of((None, 1), (None, 2), (None, 3))
    assert set(named(ReferenceChoice("2").of(run)).values()) == {"run/c1"}
    both = run_of((100, 1), (200, 2))
    assert named(ReferenceChoice("2").of(both)) == {}
    assert set(named(ReferenceChoice("200").of(both)).values()) == {"run/c1"}


@pytest.mark.parametrize("which", ["", "last", "-1", "1.5", "final "])
def test_what_is_no_checkpoint_is_refused(which: str) -> None:
    with pytest.raises(UsageError, match="Write final, first, previous or a step"):
        ReferenceChoice(which)


def test_at_least_one_run_must_have_the_step() -> None:
    runs = (run_of(0, 10, name="a"), run_of(0, 20, name="b"))
    ReferenceChoice("20").check(runs)
    with pytest.raises(InputError, match=r"--reference 19: no run has that step. .*nearest: .*20"):
        ReferenceChoice("19").check(runs)
    with pytest.raises(InputError, match="Choose final, first or previous"):
        ReferenceChoice("19").check((run_of((None, None)),))


def test_previous_takes_two_checkpoints_in_one_run_at_least() -> None:
    ReferenceChoice("previous").check((run_of(0, name="a"), run_of(0, 20, name="b")))
    with pytest.raises(InputError, match="only one checkpoint"):
        ReferenceChoice("previous").check((run_of(0, name="a"), run_of(0, name="b")))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((0, 10, 20), (10, 20, 30), {"c1": "other/c0", "c2": "other/c1"}),
        ((0, 10), (5, 15), {"c1": "other/c1"}),  # the last with the last
        ((0,), (0,), {"c0": "other/c0"}),
        (((None, None),), ((None, None),), {"c0": "other/c0"}),
        ((0, 1), ((None, 0), (None, 1)), {"c1": "other/c1"}),  # epochs are no steps
        (((40, 0), (80, 1)), ((None, 0), (None, 2)), {"c0": "other/c0"}),  # what both know are epochs
        (((40, 0), (80, 1)), ((80, 3), (90, 4)), {"c1": "other/c0"}),  # where both have steps these count
        ((0, 10, 10), (10,), {"c1": "other/c0", "c2": "other/c0"}),  # two of one step, such as last.ckpt
    ],
)
def test_checkpoints_of_two_runs_are_paired_by_time(
    one: tuple[int | Times, ...], other: tuple[int | Times, ...], expected: dict[str, str]
) -> None:
    against = run_of(*other, name="other")
    assert named(ReferenceChoice(against=against).of(run_of(*one))) == expected


def test_sharing_steps_is_mutual() -> None:
    runs = [run_of(0, 10), run_of(10, 20), run_of(5), run_of((None, 10), (None, 5)), run_of((0, 10), (5, 20))]
    shared = [[shares_steps(one, other) for other in runs] for one in runs]
    assert shared == [list(column) for column in zip(*shared, strict=True)]
    assert shared[0] == [True, True, False, False, True]
    assert shared[3] == [False, False, False, True, True]


def test_a_reference_is_named_by_run_checkpoint_and_step() -> None:
    (reference,) = ReferenceChoice("final").of(run_of(70)).values()
    assert reference.columns == {"reference_run": "run", "reference_checkpoint": "c0", "reference_step": 70}
