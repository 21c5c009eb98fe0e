"""What is saved of a training: weights, metrics over every split, and what the optimizer remembers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn
from torch.optim import Optimizer

from spectra_cli.errors import InputError
from spectra_cli.execution.executors.device import described
from spectra_cli.execution.planning.provenance import provenance
from spectra_cli.execution.training.plan import TrainingPlan
from spectra_cli.tables.reader import TableFile, open_table
from spectra_cli.tables.writer import TableWriter
from spectra_cli.tasks.evaluation import Value, evaluate
from spectra_cli.tasks.states import StateFiles

METRICS = "metrics.parquet"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Beginning:
    """What is known when a training begins, or begins again.

    Attributes:
        start: the step it begins at.
        total_steps: the last step.
        resumed: whether a training that was stopped goes on.
        parameters: numbers to be trained.
        checkpoints: that will be saved from here on.
        checkpoint_bytes: size of the tensors of each.
    """

    start: int
    total_steps: int
    resumed: bool
    parameters: int
    checkpoints: int
    checkpoint_bytes: int


class TrainingListener(Protocol):
    """A listener that is told how a training goes on."""

    def notice(self, message: str) -> None:
        """What the task says of itself."""

    def began(self, beginning: Beginning) -> None:
        """The first step is about to be made."""

    def progress(self, step: int, loss: float) -> None:
        """`step` steps are done."""

    def saved(self, step: int) -> None:
        """The state of a step is saved for good."""

    def problem(self, message: str) -> None:
        """Tell what is not as the user may think; the rest goes on."""


class Saver:
    """Saves weights, metrics and what the optimizer remembers, in this order; the last one makes a step done."""

    def __init__(
        self,
        plan: TrainingPlan,
        listener: TrainingListener,
        files: StateFiles,
        rows: list[Row],
        command: Sequence[str],
    ) -> None:
        self.files = files
        self._plan, self._listener, self._rows = plan, listener, rows
        self._epoch_steps = plan.recipe.steps_per_epoch(plan.task.training_count)
        self._told: set[tuple[str, str]] = set()
        self._metadata = provenance(command, asdict(plan.record), described(plan.device))

    def save(self, step: int, model: nn.Module, optimizer: Optimizer) -> None:
        """Save the state after `step` updates.

        Raises:
            SpectraError: if a file cannot be written, or the task's metrics cannot be taken.
        """
        self.files.save_weights(step, model)
        for split in self._plan.task.splits:
            values = evaluate(self._plan.task, model, split)
            self._rows += [self._row(step, split, metric, value) for metric, value in values.items()]
        self._save_metrics()
        self.files.save_optimizer(step, model, optimizer)
        self._listener.saved(step)

    def _save_metrics(self) -> None:
        path = self.files.run / METRICS
        with TableWriter(path, "metrics", metadata=self._metadata) as writer:
            writer.write(self._rows)

    def progress(self, step: int, loss: float) -> None:
        """Pass on how far the training is."""
        self._listener.progress(step, loss)

    def _row(self, step: int, split: str, metric: str, value: Value) -> Row:
        good = value.status == "ok"
        if not good and (split, metric) not in self._told:
            self._told.add((split, metric))
            self._listener.problem(f"step {step}: {split} {metric} is {value.value} ({value.status}).")
        return {
            "step": step,
            "epoch": step / self._epoch_steps,
            "split": split,
            "metric": metric,
            "value": value.value if good else None,
            "count": value.count,
            "status": value.status,
        }


def read_metrics(path: Path) -> list[Row]:
    """The rows of a metrics.parquet; none where there is no such file.

    Raises:
        InputError: if it cannot be read, or is another table.
    """
    if not path.exists():
        return []
    try:
        return _rows_of(open_table(path))
    except InputError as error:
        error.remedy = "Move the file away; later steps are added"  # no command makes it again
        raise


def _rows_of(file: TableFile) -> list[Row]:
    """The rows of a table of metrics.

    Raises:
        InputError: if it is another one, or its rows cannot be read or used.
    """
    where = str(file.path)
    if file.table != "metrics":
        raise InputError(f"this is a table of {file.table}, not the metrics of this run", where=where)
    if file.tags:  # would be lost
        raise InputError(f"its column '{file.tags[0][:60]}' is none of the metrics of this run", where=where)
    rows: list[Row] = file.read(file.columns).to_pylist()
    if any(row[name] is None for row in rows for name in ("step", "split", "metric")):
        raise InputError("it has rows without a step", where=where)
    return rows
