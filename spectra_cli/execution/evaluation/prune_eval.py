"""The checkpoints of all runs, each evaluated with all of its weights and with parts of them, wherever that is done."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from spectra_cli.analyses import prune_eval, sva
from spectra_cli.analyses.known import KnownMatrices
from spectra_cli.analyses.pruning import Pruning
from spectra_cli.analyses.visits import Row
from spectra_cli.checkpoints.fingerprints import fingerprint_files
from spectra_cli.checkpoints.runs import Checkpoint, Run
from spectra_cli.errors import CheckpointError
from spectra_cli.execution.evaluation.pruner import AGREEMENT, VALUES, PruneWork
from spectra_cli.execution.evaluation.taskruns import ChosenTask, named_task
from spectra_cli.execution.evaluation.taskstate import TaskStates, chunks_by_task, model_settings, task_settings
from spectra_cli.execution.planning.checkpointunits import (
    CHECKPOINT_KEY,
    checkpoint_label,
    checkpoint_units,
    identity_of,
)
from spectra_cli.execution.planning.options import PathLike, TaskOptions
from spectra_cli.execution.planning.plan import Plan
from spectra_cli.execution.planning.provenance import directories_of, provenance
from spectra_cli.execution.planning.recordedsettings import hashed
from spectra_cli.execution.trajectory.facts import texts
from spectra_cli.execution.trajectory.job import remade
from spectra_cli.execution.trajectory.reporter import CheckpointReporter
from spectra_cli.execution.work.events import Remark
from spectra_cli.execution.work.listener import Listener
from spectra_cli.execution.work.units import Assignment, Chunk, Outcome, Unit
from spectra_cli.tables.entries import Key


class PruneEvalJob:
    """Makes the table ``prune_eval``, and ``sva`` for agreement with the unpruned, of the checkpoints of a plan.

    Args:
        plan: the checkpoints, and the tables to make.
        task_options: what the user says of the task.
        pruning: the variants.
        listener: told what people should know.
        device: what the work is done on, as the files record it; its class is the part before ``:``.
        written: files, URLs and directories that the command writes, which are no data.

    Raises:
        SpectraError: if nothing says the task of a run, or its run.json is broken.
    """

    def __init__(
        self,
        plan: Plan,
        task_options: TaskOptions,
        pruning: Pruning,
        listener: Listener,
        device: str,
        *,
        written: Sequence[PathLike] = (),
    ) -> None:
        self.noun = "checkpoint"
        self.command = "prune-eval"
        self.tables = plan.tables
        self.units: Sequence[Unit] = checkpoint_units(plan.runs)
        self.key_columns: Mapping[str, Sequence[str]] = dict.fromkeys(plan.tables, CHECKPOINT_KEY)
        self.harmless: Mapping[str, Collection[str]] = {VALUES: prune_eval.HARMLESS, AGREEMENT: sva.HARMLESS}
        self.reusable: str | None = None
        self._plan, self._task_options, self._pruning, self._device = plan, task_options, pruning, device
        self._reporter = CheckpointReporter(plan, listener)
        self._checkpoints = [
            (run_index, checkpoint) for run_index, run in enumerate(plan.runs) for checkpoint in run.checkpoints
        ]
        self._tasks = [named_task(run, run.checkpoints[0], task_options) for run in plan.runs]
        self._states = TaskStates(written, plan.runs)
        self._output_layers: dict[int, list[str]] = {}

    def work(self, sharing: int, known: Sequence[KnownMatrices]) -> PruneWork:  # noqa: ARG002 - no table rank is made
        """The checkpoints of the plan, for workers."""
        return PruneWork(self._plan, self._task_options, self._pruning, sharing)

    def chunks(self, assignments: Sequence[Assignment], workers: int) -> list[Chunk]:
        """One chunk for one worker; of several, each has a checkpoint at a time, those of one task in a row."""
        return chunks_by_task(assignments, workers, self._task)

    def passes(self, chunks: Sequence[Chunk], workers: int) -> int:  # noqa: ARG002 - as a TableJob is asked
        """Number of evaluations: one for each unit."""
        return sum(map(len, chunks))

    def remade(self, missing: Collection[str]) -> tuple[str, ...]:
        """Both tables, unless only the agreement is missing."""
        return remade(self.tables, missing)

    def label(self, key: Key) -> str:
        """Run and checkpoint, as a path."""
        return checkpoint_label(key)

    def fingerprint(self, unit: Unit, table: str) -> str:
        """Fingerprint of the files of the checkpoint, of what its run.json says, and of the data that it names."""
        run_index, checkpoint = self._checkpoints[unit.index]
        run = self._plan.runs[run_index]
        try:
            files = fingerprint_files(checkpoint.path, run.root)
        except CheckpointError:
            return ""
        named = self.identity(unit, table)
        return hashed([named, files, self._states.of(self._task(unit.index), run, checkpoint)])

    def identity(self, unit: Unit, table: str) -> Row:  # noqa: ARG002 - the same in all tables
        """The columns that name a checkpoint."""
        return identity_of(*self._of(unit.index))

    def budget_bytes(self, sharing: int) -> int | None:
        """The memory budget of each worker, if the user has set one."""
        return self._plan.options.worker_budget_bytes(sharing)

    def settings(self, table: str) -> Mapping[str, Any]:
        """The options that the rows of a table depend on."""
        pruning = self._pruning
        return {
            **model_settings(self._plan.options, self._device),
            **task_settings(self._task_options, evaluates=table == VALUES),
            "--variants": list(pruning.variants),
            "--keep": pruning.keep,
            "--mask-keep": pruning.mask_keep,
            "--mask-seed": pruning.mask_seed,
        }

    def metadata(self, command: Sequence[str]) -> dict[str, str]:
        """What the files record about their making, besides their schema."""
        tasks = {run.name: task for run, task in zip(self._plan.runs, self._tasks, strict=True)}
        settings = {
            **self._plan.options.recorded(),
            **self._task_options.recorded(),
            "tasks": {name: {"task": task.name, "options": task.settings} for name, task in tasks.items()},
            "runs": directories_of(self._plan.runs),
            "variants": self._pruning.variants,
            "keep": self._pruning.keep,
            "mask_keep": self._pruning.mask_keep,
            "mask_seed": self._pruning.mask_seed,
        }
        return provenance(command, settings, self._device)

    def begin(self) -> None:
        """Tell what is known before the work begins."""
        self._reporter.before()

    def take(self, outcome: Outcome) -> None:
        """Take note of a checkpoint that has been evaluated.

        Raises:
            CheckpointError: if it is the only one and could not be used.
        """
        run, checkpoint = self._of(outcome.index)
        self._tell_choice(outcome.index)
        self._reporter.outcome(run, checkpoint, outcome)
        if outcome.error is None:
            self._output_layers[outcome.index] = texts(outcome.facts, "output_layer")

    def take_kept(
        self,
        unit: Unit,
        tables: Mapping[str, Sequence[Row]],  # noqa: ARG002 - as a TableJob is asked
        facts: Mapping[str, Any],
        remarks: Sequence[Remark],
    ) -> None:
        """Take note of a checkpoint whose rows are there already."""
        run, checkpoint = self._of(unit.index)
        self._tell_choice(unit.index)
        for remark in remarks:
            self._reporter.remark(run, checkpoint, remark)
        self._output_layers[unit.index] = texts(facts, "output_layer")
        self._reporter.kept(run, facts)

    def end(self) -> None:
        """Tell what is only known at the end.

        Raises:
            SpectraError: if nothing could be done.
        """
        self._reporter.at_the_end()

    def found(self) -> Mapping[str, Any]:
        """``output_layers``: by run, the parameters that no variant has changed, as they give the output."""
        named: dict[str, list[str]] = {}
        for index in sorted(self._output_layers):
            named.setdefault(self.units[index].run, self._output_layers[index])
        return {"output_layers": named}

    def _of(self, index: int) -> tuple[Run, Checkpoint]:
        run_index, checkpoint = self._checkpoints[index]
        return self._plan.runs[run_index], checkpoint

    def _task(self, index: int) -> ChosenTask:
        return self._tasks[self._checkpoints[index][0]]

    def _tell_choice(self, index: int) -> None:
        """Tell what is to be known of the choice of a task, once it is known that there is such a task."""
        if remark := self._task(index).remark:
            self._reporter.once(remark)
