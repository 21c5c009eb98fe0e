"""The bar counts work and not matrices, and takes unopened checkpoints to cost what the opened ones do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from spectra_cli.analyses.lanes import flops_of
from spectra_cli.cli.progress import ProgressListener
from spectra_cli.execution.work.events import CheckpointDone, CheckpointOpened, Event, MatrixDone
from spectra_cli.layers.matricize import MatrixSpec
from spectra_cli.tensors import TensorInfo
from tests.analyses.formulas import chain, save
from tests.cli.trajectories import SIZES, step, trajectory


def spec(name: str, rows: int, cols: int) -> MatrixSpec:
    return MatrixSpec(name, "linear", rows, cols, TensorInfo(name, (rows, cols), "float32"))


def test_the_share_done_is_that_of_the_work_in_all_checkpoints() -> None:
    large, small = spec("large", 4000, 1000), spec("small", 400, 100)
    listener = ProgressListener(2, quiet=True)
    (task,) = listener._bar._bar.tasks
    listener.hear(CheckpointOpened(2, flops_of(large) + flops_of(small)))
    listener.hear(MatrixDone(flops_of(large)))
    assert task.description == "checkpoint 1/2, matrix 1/2"
    assert task.percentage == pytest.approx(50, abs=0.2)  # of the first of two checkpoints nearly all is done
    listener.hear(MatrixDone(flops_of(small)))
    listener.hear(CheckpointDone())
    assert task.percentage == pytest.approx(50)
    listener.hear(CheckpointOpened(2, flops_of(large) + flops_of(small)))
    assert task.description == "checkpoint 2/2, matrix 0/2"
    listener.hear(MatrixDone(flops_of(small)))
    assert task.percentage == pytest.approx(50, abs=0.2)
    listener.hear(MatrixDone(flops_of(large)))
    listener.hear(CheckpointDone())
    assert task.percentage == pytest.approx(100)


def test_a_checkpoint_that_could_not_be_opened_counts_as_done() -> None:
    listener = ProgressListener(2, quiet=True)
    (task,) = listener._bar._bar.tasks
    listener.hear(CheckpointDone())
    listener.hear(CheckpointOpened(1, flops_of(spec("only", 8, 8))))
    listener.hear(MatrixDone(flops_of(spec("only", 8, 8))))
    listener.hear(CheckpointDone())
    assert task.percentage == pytest.approx(100)


def test_problems_are_kept_and_shown_even_if_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    listener = ProgressListener(1, quiet=True)
    listener.problem("step 3 is damaged.")
    assert listener.problems == ["step 3 is damaged."]
    assert capsys.readouterr().err == "Warning: step 3 is damaged.\n"


@pytest.mark.parametrize("quiet", [False, True])
def test_without_a_terminal_a_line_a_minute_says_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, quiet: bool
) -> None:
    """In the log of a batch job; none in that of a short one. What is left follows from what is done and the time."""
    clock = [1000.0]
    monkeypatch.setattr("spectra_cli.cli.progressbar.time.monotonic", lambda: clock[0])
    matrix = spec("one", 100, 100)
    with ProgressListener(4, quiet=quiet) as listener:
        for seconds in (59.0, 1.0, 59.0, 61.0):
            listener.hear(CheckpointOpened(1, flops_of(matrix)))
            listener.hear(MatrixDone(flops_of(matrix)))
            clock[0] += seconds
            listener.hear(CheckpointDone())
    lines = [line.partition(" ")[2] for line in capsys.readouterr().err.splitlines()]
    expected = ["checkpoint 3/4, matrix 1/1; 50% done, about 0:01:00 left", "checkpoint 4/4, matrix 1/1; 100% done"]
    assert [line.removesuffix(", about 0:00:00 left") for line in lines] == ([] if quiet else expected)


def test_references_that_are_opened_again_are_expected(
    spectra: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the bar would be full before the one new checkpoint is looked at."""
    expected, opened = list[int](), 0
    expect, hear = ProgressListener.expect, ProgressListener.hear

    def expecting(self: ProgressListener, passes: int) -> None:
        expected.append(passes)
        expect(self, passes)

    def hearing(self: ProgressListener, event: Event) -> None:
        nonlocal opened
        opened += isinstance(event, CheckpointOpened)
        hear(self, event)

    monkeypatch.setattr(ProgressListener, "expect", expecting)
    monkeypatch.setattr(ProgressListener, "hear", hearing)
    run = trajectory()
    for added, passes in ((None, 4), (None, 0), (150, 2)):
        if added is not None:
            save(step(run, added), chain(SIZES, seed=9))
        expected.clear()
        opened = 0
        assert spectra("sva", run, "--reference", "300", "--out", "out").status == 0
        assert (expected, opened) == ([passes], passes)
