"""The bar counts work and not matrices, and takes unopened checkpoints to cost what the opened ones do."""

from __future__ import annotations

import pytest

from spectra_cli.analyses.lanes import work_of
from spectra_cli.cli.progress import ProgressListener
from spectra_cli.execution.work.events import CheckpointDone, MatrixDone, Opened
from spectra_cli.layers.matricize import MatrixSpec
from spectra_cli.tensors import TensorInfo


def spec(name: str, rows: int, cols: int) -> MatrixSpec:
    return MatrixSpec(name, "linear", rows, cols, TensorInfo(name, (rows, cols), "float32"))


def test_the_share_done_is_that_of_the_work_in_all_checkpoints() -> None:
    large, small = spec("large", 4000, 1000), spec("small", 400, 100)
    listener = ProgressListener(2, quiet=True)
    (task,) = listener._bar.tasks
    listener.hear(Opened(2, work_of(large) + work_of(small)))
    listener.hear(MatrixDone(work_of(large)))
    assert task.description == "checkpoint 1/2, matrix 1/2"
    assert task.percentage == pytest.approx(50, abs=0.2)  # of the first of two checkpoints nearly all is done
    listener.hear(MatrixDone(work_of(small)))
    listener.hear(CheckpointDone())
    assert task.percentage == pytest.approx(50)
    listener.hear(Opened(2, work_of(large) + work_of(small)))
    assert task.description == "checkpoint 2/2, matrix 0/2"
    listener.hear(MatrixDone(work_of(small)))
    assert task.percentage == pytest.approx(50, abs=0.2)
    listener.hear(MatrixDone(work_of(large)))
    listener.hear(CheckpointDone())
    assert task.percentage == pytest.approx(100)


def test_a_checkpoint_that_could_not_be_opened_counts_as_done() -> None:
    listener = ProgressListener(2, quiet=True)
    (task,) = listener._bar.tasks
    listener.hear(CheckpointDone())
    listener.hear(Opened(1, work_of(spec("only", 8, 8))))
    listener.hear(MatrixDone(work_of(spec("only", 8, 8))))
    listener.hear(CheckpointDone())
    assert task.percentage == pytest.approx(100)


def test_problems_are_kept_and_shown_even_if_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    listener = ProgressListener(1, quiet=True)
    listener.problem("step 3 is damaged.")
    assert listener.problems == ["step 3 is damaged."]
    assert capsys.readouterr().err == "Warning: step 3 is damaged.\n"
