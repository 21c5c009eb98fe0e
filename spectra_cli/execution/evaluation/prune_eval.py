"""The checkpoints of all runs, each evaluated with all of its weights and with parts of them, wherever that is done."""

from __future__ import annotations

from collections import Counter
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
from spectra_cli.execution.evaluation.taskstate import TaskStates, by_task, model_settings, task_settings
from spectra_cli.execution.incremental.provenance import directories_of, provenance
from spectra_cli.execution.planning.options import TaskOptions
from spectra_cli.execution.planning.plan import Plan
from spectra_cli.execution.trajectory.analyst import identity_of
from spectra_cli.execution.trajectory.job import CHECKPOINT_KEY, checkpoint_units, hashed
from spectra_cli.execution.trajectory.telling import Tally, Telling, texts
from spectra_cli.execution.work.events import Remark
from spectra_cli.execution.work.listener import Listener
from spectra_cli.execution.work.units import Assignment, Chunk, Outcome, Unit


class PruneEvalJob:
    """Makes the table ``prune_eval``, and ``sva`` for agreement with the unpruned, of the checkpoints of a plan.

    Args:
        plan: the checkpoints, and the tables to make.
        task_options: what the user says of the task.
        pruning: the variants.
        listener: told what people should know.
        device: what the work is done on, as the files record it; its class is the part before ``:``.

    Raises:
        SpectraError: if nothing says the task of a run, or its run.json is broken.
    """

    def __init__(
        self, plan: Plan, task_options: TaskOptions, pruning: Pruning, listener: Listener, device: str
    ) -> None:
        self.noun = "checkpoint"
        self.command = "prune-eval"
        self.tables = plan.tables
        self.units: Sequence[Unit] = checkpoint_units(plan.runs)
        self.key_columns: Mapping[str, Sequence[str]] = dict.fromkeys(plan.tables, CHECKPOINT_KEY)
        self.harmless: Mapping[str, Collection[str]] = {VALUES: prune_eval.HARMLESS, AGREEMENT: sva.HARMLESS}
        self._plan, self._task_options, self._pruning, self._device = plan, task_options, pruning, device
        self._listener = listener
        self._telling = Telling(plan, listener)
        self._tally = Tally(unmatched=list(plan.options.transposed))
        self._where = [(index, checkpoint) for index, run in enumerate(plan.runs) for checkpoint in run.checkpoints]
        self._left = Counter(index for index, _ in self._where)
        self._tasks = [named_task(run, run.checkpoints[0], task_options) for run in plan.runs]
        self._states = TaskStates()
        self._output_layers: dict[int, list[str]] = {}

    def work(self, sharing: int, known: Sequence[KnownMatrices]) -> PruneWork:  # noqa: ARG002 - no table rank is made
        """The checkpoints of the plan, for workers."""
        return PruneWork(self._plan, self._task_options, self._pruning, sharing)

    def chunks(self, assignments: Sequence[Assignment], workers: int) -> list[Chunk]:
        """One chunk for one worker; of several, each has a checkpoint at a time, those of one task in a row."""
        if workers == 1:
            return [tuple(assignments)] if assignments else []
        return [(assignment,) for assignment in by_task(assignments, self._task)]

    def fingerprint(self, unit: Unit, table: str) -> str:
        """Of the files of the checkpoint, of what its run.json says, and of the data that it names."""
        index, checkpoint = self._where[unit.place]
        run = self._plan.runs[index]
        try:
            files = fingerprint_files(checkpoint.path, run.root)
        except CheckpointError:
            return ""
        named = self.identity(unit, table)
        return hashed([named, files, self._states.of(self._task(unit.place), run, checkpoint)])

    def identity(self, unit: Unit, table: str) -> Row:  # noqa: ARG002 - the same in all tables
        """The columns that name a checkpoint."""
        return identity_of(*self._of(unit.place))

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
        self._telling.before()

    def take(self, outcome: Outcome) -> None:
        """Take note of a checkpoint that has been evaluated.

        Raises:
            CheckpointError: if it is the only one and could not be used.
        """
        run, checkpoint = self._of(outcome.place)
        self._tell_choice(outcome.place)
        for remark in outcome.remarks:
            self._telling.remark(run, checkpoint, remark)
        if outcome.error is not None:
            self._tally.first_error = self._tally.first_error or outcome.error
            if self._plan.checkpoint_count == 1:
                raise outcome.error
            self._listener.problem(str(outcome.error))
        else:
            self._count(outcome.place, outcome.facts)
        self._one_less(outcome.place)

    def take_kept(self, unit: Unit, tables: Mapping[str, Sequence[Row]], facts: Mapping[str, Any]) -> None:  # noqa: ARG002 - as a TableJob is asked
        """Take note of a checkpoint whose rows are there already."""
        run, checkpoint = self._of(unit.place)
        self._tell_choice(unit.place)
        for table in self.tables:
            for sentence in texts(facts, f"problems of {table}"):
                self._telling.remark(run, checkpoint, Remark(sentence, "checkpoint"))
        self._count(unit.place, facts)
        self._one_less(unit.place)

    def end(self) -> None:
        """Tell what is only known at the end.

        Raises:
            SpectraError: if nothing could be done.
        """
        self._telling.at_the_end(self._tally)

    def found(self) -> Mapping[str, Any]:
        """``output_layers``: by run, the parameters that no variant has changed, as they give the output."""
        named: dict[str, list[str]] = {}
        for place in sorted(self._output_layers):
            named.setdefault(self.units[place].run, self._output_layers[place])
        return {"output_layers": named}

    def _of(self, place: int) -> tuple[Run, Checkpoint]:
        index, checkpoint = self._where[place]
        return self._plan.runs[index], checkpoint

    def _task(self, place: int) -> ChosenTask:
        return self._tasks[self._where[place][0]]

    def _tell_choice(self, place: int) -> None:
        """Tell what is to be known of the choice of a task, once it is known that there is such a task."""
        if remark := self._task(place).remark:
            self._telling.once(remark)

    def _count(self, place: int, facts: Mapping[str, Any]) -> None:
        tally = self._tally
        tally.done += 1
        self._output_layers[place] = texts(facts, "output_layer")
        matched = texts(facts, "transposed")
        tally.unmatched = [glob for glob in tally.unmatched if glob not in matched]
        if "parameters" in facts:  # none of them is selected
            tally.seen = tally.seen or texts(facts, "parameters")
            tally.lacking.append(self.units[place].label)
        else:
            tally.matched += 1

    def _one_less(self, place: int) -> None:
        """Tell at the end of a run what was met again in it."""
        index, _ = self._where[place]
        self._left[index] -= 1
        if not self._left[index]:
            self._telling.after(self._plan.runs[index])
