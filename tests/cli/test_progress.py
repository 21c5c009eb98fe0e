"""The bar counts work and not matrices, and takes unopened checkpoints to cost what the opened ones do."""

from __future__ import annotations

import pytest

from spectra_cli.cli.progress import ProgressListener
from spectra_cli.layers.matricize import MatrixSpec
from spectra_cli.tensors import TensorInfo


def spec(name: str, rows: int, cols: int) -> MatrixSpec:
    return MatrixSpec(name, "linear", rows, cols, TensorInfo(name, (rows, cols), "float32"))


def test_the_share_done_is_that_of_the_work_in_all_checkpoints() -> None:
    large, small = spec("large", 4000, 1000), spec("small", 400, 100)
    listener = ProgressListener(2, quiet=True)
    (task,) = listener._bar.tasks
    listener.checkpoint_opened([large, small])
    listener.matrix_done(large)
    assert task.description == "checkpoint 1/2, matrix 1/2"
    assert task.percentage == pytest.approx(50, abs=0.2)  # of the first of two checkpoints nearly all is done
    listener.matrix_done(small)
    listener.checkpoint_done()
    assert task.percentage == pytest.approx(50)
    listener.checkpoint_opened([large, small])
    assert task.description == "checkpoint 2/2, matrix 0/2"
    listener.matrix_done(small)
    assert task.percentage == pytest.approx(50, abs=0.2)
    listener.matrix_done(large)
    listener.checkpoint_done()
    assert task.percentage == pytest.approx(100)


def test_a_checkpoint_that_could_not_be_opened_counts_as_done() -> None:
    listener = ProgressListener(2, quiet=True)
    (task,) = listener._bar.tasks
    listener.checkpoint_done()
    listener.checkpoint_opened([spec("only", 8, 8)])
    listener.matrix_done(spec("only", 8, 8))
    listener.checkpoint_done()
    assert task.percentage == pytest.approx(100)


def test_problems_are_kept_and_shown_even_if_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    listener = ProgressListener(1, quiet=True)
    listener.problem("step 3 is damaged.")
    assert listener.problems == ["step 3 is damaged."]
    assert capsys.readouterr().err == "Warning: step 3 is damaged.\n"
