"""The checkpoints of all runs, each evaluated with all of its weights and with parts of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from spectra_cli.analyses.contents import NoMatricesError, check_inventory
from spectra_cli.analyses.models import ModelMatrices, State, copied
from spectra_cli.analyses.modelstates import StateEvaluator
from spectra_cli.analyses.prune_eval import (
    NOTHING_SELECTED,
    PrunedAgreement,
    PrunedWeights,
    Values,
    pruned_weights,
    value_rows,
)
from spectra_cli.analyses.pruning import FULL, Pruning
from spectra_cli.analyses.references import Reference
from spectra_cli.analyses.vectorstore import VectorStore
from spectra_cli.analyses.visits import OnProblem, Row
from spectra_cli.checkpoints.runs import Checkpoint, Run
from spectra_cli.errors import CheckpointError, SpectraError
from spectra_cli.execution import messages
from spectra_cli.execution.listener import EvaluationListener
from spectra_cli.execution.local import CheckpointRows, identity_of, place_of
from spectra_cli.execution.modelloading import load_model
from spectra_cli.execution.options import TaskOptions
from spectra_cli.execution.plan import Plan
from spectra_cli.execution.provenance import directories_of, provenance
from spectra_cli.execution.taskruns import ChosenTask, ModelPool, Notices, chosen_splits, task_of_run
from spectra_cli.execution.telling import Tally, Telling

CPU = torch.device("cpu")


class PruneEvaluation:
    """Evaluates parts of the weights of every checkpoint.

    The device holds one model. The weights of a checkpoint are on the CPU, where at most two copies of what is pruned
    are beside them, the top and the bottom; each is put into the model when its turn comes.

    Args:
        plan: the checkpoints, and the tables to make: ``prune_eval``, and ``sva`` for agreement with the unpruned.
        task_options: what the user says of the task.
        pruning: the variants.
        listener: told how the work goes on.

    Raises:
        SpectraError: if the device is not there, or the task of a run cannot be made or lacks a split.
    """

    def __init__(self, plan: Plan, task_options: TaskOptions, pruning: Pruning, listener: EvaluationListener) -> None:
        self.place = place_of(plan.options, keeps_vectors="sva" in plan.tables)
        self._plan = plan
        self._task_options = task_options
        self._pruning = pruning
        self._listener = listener
        self._telling = Telling(plan, listener)
        self._tally = Tally(unmatched=list(plan.options.transposed))
        self._notices = Notices(listener.notice)
        self._output_layers: dict[str, list[str]] = {}
        self._tasks = _tasks_of(plan.runs, task_options)
        uses = [self._tasks[checkpoint.path] for run in plan.runs for checkpoint in run.checkpoints]
        self._pool = ModelPool(uses, self.place.device)
        self._splits = {each.key: chosen_splits(self._pool.task(each), task_options.splits) for each in uses}
        self._doing = ""
        self._done = 0.0

    def metadata(self, command: Sequence[str]) -> dict[str, str]:
        """What the files record about their making, besides their schema."""
        tasks = {run.name: self._tasks[run.checkpoints[0].path] for run in self._plan.runs}
        settings = {
            **self._plan.options.recorded(),
            **self._task_options.recorded(),
            "tasks": {name: {"task": each.name, "options": each.settings} for name, each in tasks.items()},
            "runs": directories_of(self._plan.runs),
            "variants": self._pruning.variants,
            "keep": self._pruning.keep,
            "mask_keep": self._pruning.mask_keep,
            "mask_seed": self._pruning.mask_seed,
        }
        return provenance(command, settings, self.place.device)

    def found(self) -> Mapping[str, Any]:
        """``output_layers``: by run, the parameters that no variant has changed, as they give the output."""
        return {"output_layers": self._output_layers}

    def results(self) -> Iterator[CheckpointRows]:
        """Evaluate checkpoint after checkpoint, in the order of the plan.

        Raises:
            SpectraError: if not a single checkpoint could be used, no parameter matches the selection, or the code of a
                task raises.
        """
        self._telling.before()
        for remark in dict.fromkeys(chosen.remark for chosen in self._tasks.values() if chosen.remark):
            self._listener.problem(remark)
        for run in self._plan.runs:
            for checkpoint in run.checkpoints:
                yield self._attempt(run, checkpoint)
            self._telling.after(run)
        self._telling.at_the_end(self._tally)

    def _attempt(self, run: Run, checkpoint: Checkpoint) -> CheckpointRows:
        """Evaluate one checkpoint; one that cannot be used is a row of every table."""
        before = self._done
        try:
            tables = self._evaluate(run, checkpoint, self._tasks[checkpoint.path])
            self._tally.done += 1
        except CheckpointError as error:
            self._tally.first_error = self._tally.first_error or error
            if self._plan.checkpoint_count == 1:
                raise
            self._listener.problem(str(error))
            tables = {table: [{"status": error.status}] for table in self._plan.tables}
        self._pool.used(self._tasks[checkpoint.path])
        self._done = before + len(self._pruning.variants)
        identity = identity_of(run, checkpoint)
        named = {table: [{**identity, **row} for row in rows] for table, rows in tables.items()}
        return CheckpointRows(run, checkpoint, named)

    def _evaluate(self, run: Run, checkpoint: Checkpoint, chosen: ChosenTask) -> dict[str, list[Row]]:
        if checkpoint.path in self._plan.incomplete:
            raise self._plan.incomplete[checkpoint.path]
        task, model, options = self._pool.task(chosen), self._pool.model(chosen), self._plan.options
        self._notices.of(task)
        output_layer, overruled = self._task_options.output_layer, chosen.overruled
        loaded = load_model(task, run, checkpoint, options, output_layer, model=model, overruled=overruled, folds=True)
        matrices = loaded.matrices
        self._look_at(run, matrices)
        if self._pruning.variants != (FULL,):
            check_inventory(matrices.inventory, where=str(checkpoint.path))
            _check_prunable(matrices, where=str(checkpoint.path))
            if not matrices.prunable(options.include, options.exclude):
                self._tally.lacking.append(str(checkpoint.path))
                return {table: [{"status": NOTHING_SELECTED}] for table in self._plan.tables}
        self._tally.matched += 1
        evaluator = StateEvaluator(
            task,
            loaded.model,
            self._splits[chosen.key],
            reestimates=self._task_options.reestimates,
            name=chosen.name,
            on_pass=lambda: self._progress(1.0 / evaluator.passes),
        )
        return self._rows(Reference(run, checkpoint), copied(loaded.state, CPU), matrices, evaluator)

    def _rows(
        self, whole: Reference, state: State, matrices: ModelMatrices, evaluator: StateEvaluator
    ) -> dict[str, list[Row]]:
        """Evaluate every variant of one checkpoint's weights; the one before is let go of first."""
        options, first_errors = self._plan.options, dict[str, SpectraError]()

        def on_problem(error: SpectraError, _parameter: str) -> None:
            first_errors.setdefault(error.status, error)

        include, exclude = options.include, options.exclude
        evaluated: list[tuple[PrunedWeights, Values | None]] = []
        with ExitStack() as stack:
            agreement = self._agreement(whole, stack, on_problem)
            if agreement is not None:
                agreement.keep(state, matrices.prunable(include, exclude))
            for pruned in pruned_weights(
                state, matrices, self._pruning, self.place, include=include, exclude=exclude, on_problem=on_problem
            ):
                self._doing = f"{whole.checkpoint.name}, {pruned.variant}"
                self._progress(0.0)
                values: Values | None = None
                if pruned.status == "ok":
                    values = evaluator.values(chain(state.items(), pruned.changes.items()))
                if agreement is not None and pruned.variant != FULL:
                    agreement.add(pruned)
                evaluated.append((replace(pruned, changes={}), values))
                del pruned
        tables = {"prune_eval": value_rows(evaluated, self._pruning, evaluator.splits)}
        if agreement is not None:
            tables["sva"] = agreement.rows
        self._tell(whole, [pruned for pruned, _ in evaluated], tables, first_errors)
        return tables

    def _agreement(self, whole: Reference, stack: ExitStack, on_problem: OnProblem) -> PrunedAgreement | None:
        if "sva" not in self._plan.tables:
            return None
        store = stack.enter_context(VectorStore(self.place.kept_bytes))
        return PrunedAgreement(store, whole.columns, self.place, on_problem)

    def _look_at(self, run: Run, matrices: ModelMatrices) -> None:
        """Note what is told at the end."""
        inventory = matrices.inventory
        self._output_layers.setdefault(run.name, matrices.output_names)
        self._tally.seen = self._tally.seen or [spec.parameter for spec in matrices.prunable().values()]
        self._tally.unmatched = [glob for glob in self._tally.unmatched if not inventory.selected([glob], ())]

    def _tell(
        self,
        whole: Reference,
        evaluated: Sequence[PrunedWeights],
        tables: Mapping[str, Sequence[Row]],
        first_errors: Mapping[str, SpectraError],
    ) -> None:
        told = {status for pruned in evaluated for status in pruned.faults.values()}
        told.add("all_zero")  # a mask may well leave nothing of a matrix
        compared = [row for row in tables.get("sva", []) if row["status"] not in told]
        for message in (
            *messages.prune_problems(evaluated, tables["prune_eval"], first_errors),
            *messages.problems({"sva": compared}, first_errors),
        ):
            self._telling.of_checkpoint(whole.run, whole.checkpoint, message)

    def _progress(self, share: float) -> None:
        self._done += share
        total = self._plan.checkpoint_count * len(self._pruning.variants)
        self._listener.progressed(self._doing, self._done, total)


def _check_prunable(matrices: ModelMatrices, *, where: str) -> None:
    """Check that there is more than an output layer.

    Raises:
        NoMatricesError: if there is not.
    """
    if not matrices.prunable():
        raise NoMatricesError(
            f"there is no matrix but that of the output layer, {messages.shown(matrices.output_names)}, which is left "
            "as it is",
            where=where,
            remedy="Name another one with --output-layer, or evaluate --variants full",
        )


def _tasks_of(runs: Sequence[Run], options: TaskOptions) -> dict[Path, ChosenTask]:
    """The task of every checkpoint, by its path; what a run.json says is looked up once for each run."""
    tasks = {}
    for run in runs:
        chosen = task_of_run(run, run.checkpoints[0], options)
        for checkpoint in run.checkpoints:
            tasks[checkpoint.path] = chosen.for_checkpoint(run, checkpoint)
    return tasks
