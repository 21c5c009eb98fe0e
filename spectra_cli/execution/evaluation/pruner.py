"""Checkpoints evaluated one at a time, each with all of its weights and with parts of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch

from spectra_cli.analyses.contents import NoMatricesError, check_inventory
from spectra_cli.analyses.models import ModelMatrices, State, copied
from spectra_cli.analyses.modelstates import StateEvaluator
from spectra_cli.analyses.prune_eval import PrunedAgreement, PrunedWeights, Values, pruned_weights, value_rows
from spectra_cli.analyses.pruning import FULL, Pruning
from spectra_cli.analyses.references import Reference
from spectra_cli.analyses.vectorstore import VectorStore
from spectra_cli.analyses.visits import OnProblem, Row
from spectra_cli.checkpoints.runs import Checkpoint, Run
from spectra_cli.errors import CheckpointError
from spectra_cli.execution.evaluation.modelloading import load_model, stored_content
from spectra_cli.execution.evaluation.modelpool import TURN, ModelPool, notices_of
from spectra_cli.execution.evaluation.shares import Shares, passed_over
from spectra_cli.execution.evaluation.taskruns import ChosenTask, chosen_splits, task_of_run
from spectra_cli.execution.executors.device import work_place_of
from spectra_cli.execution.planning import messages
from spectra_cli.execution.planning.checkpointunits import identity_of
from spectra_cli.execution.planning.options import TaskOptions
from spectra_cli.execution.planning.plan import Plan
from spectra_cli.execution.planning.workingdirectory import WorkingDirectory
from spectra_cli.execution.trajectory.facts import lacking_facts, transposed_facts
from spectra_cli.execution.trajectory.faults import Faults
from spectra_cli.execution.work.events import Remark
from spectra_cli.execution.work.units import Assignment, Chunk, EventSink, Outcome
from spectra_cli.tables.statuses import NOTHING_SELECTED

VALUES, AGREEMENT = "prune_eval", "sva"

CPU = torch.device("cpu")


@dataclass(frozen=True)
class PruneWork:
    """The checkpoints of a plan, each a unit.

    Attributes:
        plan: the checkpoints, and the tables to make.
        task: what the user says of the task; its code is loaded where the work is done.
        pruning: the variants.
        sharing: how many workers share the memory of one machine or device.
        directory: that relative paths are relative to.
    """

    plan: Plan
    task: TaskOptions
    pruning: Pruning
    sharing: int = 1
    directory: WorkingDirectory = field(default_factory=WorkingDirectory)

    def worker(self, device: str, sink: EventSink) -> Pruner:
        """Get ready in this process; see :class:`spectra_cli.execution.work.units.Work`."""
        found = replace(self, plan=self.directory.plan(self.plan), task=self.directory.task(self.task))
        return Pruner(found, device, sink)

    def runs_read(self) -> Sequence[Run]:
        """Runs of the plan."""
        return self.plan.runs_read


class Pruner:
    """Evaluates parts of the weights of checkpoints.

    The device holds one model. The weights of a checkpoint are on the CPU, where at most two copies of what is pruned
    are beside them, the top and the bottom; each is put into the model when its turn comes.

    Args:
        work: what there is to do.
        device: to work on.
        sink: told how the work goes on.

    Raises:
        SpectraError: if the device is not there.
    """

    def __init__(self, work: PruneWork, device: str, sink: EventSink) -> None:
        self._plan, self._task_options, self._pruning = work.plan, work.task, work.pruning
        self._sink = sink
        # the memory of the work decides its last digits, so it is the same whether or not there is a table of agreement
        self._place = work_place_of(work.plan.options, device, sharing=work.sharing, keeps_vectors=True)
        self._units = [
            (run_index, checkpoint) for run_index, run in enumerate(self._plan.runs) for checkpoint in run.checkpoints
        ]
        self._of_runs: dict[int, ChosenTask] = {}
        self._pool = ModelPool(self._place.device)

    def outcomes(self, chunk: Chunk) -> Iterator[Outcome]:
        """Evaluate the checkpoints of a chunk, after those have been passed over whose weights are as they were.

        Raises:
            SpectraError: if the task of a run cannot be made or lacks a split, or its code raises.
        """
        to_do = yield from passed_over(chunk, self._content, lambda index: self._units[index][1].name, self._sink)
        with TURN:
            tasks = [self._task_of(assignment.index) for assignment in to_do]
            self._pool.expect(tasks)
            asked = self._task_options.splits
            splits = {chosen.key: chosen_splits(self._pool.task(chosen), asked) for chosen in tasks}
        for assignment, chosen in zip(to_do, tasks, strict=True):
            with TURN:
                outcome = self._attempt(assignment, chosen, splits[chosen.key])
            self._pool.used(chosen)
            yield outcome

    def close(self) -> None:
        """Let go of tasks and models."""
        self._pool.close()

    def _content(self, index: int) -> str | None:
        """What the weights of a checkpoint hash to."""
        run_index, checkpoint = self._units[index]
        if checkpoint.path in self._plan.incomplete:
            return None
        return stored_content(self._plan.runs[run_index], checkpoint)

    def _task_of(self, index: int) -> ChosenTask:
        """The task of a checkpoint; what a run.json says is looked up once for each run."""
        run_index, checkpoint = self._units[index]
        run = self._plan.runs[run_index]
        if run_index not in self._of_runs:
            self._of_runs[run_index] = task_of_run(run, run.checkpoints[0], self._task_options)
        return self._of_runs[run_index].for_checkpoint(run, checkpoint)

    def _attempt(self, assignment: Assignment, chosen: ChosenTask, splits: Sequence[str]) -> Outcome:
        """Evaluate one checkpoint; one that cannot be used is a row of every table."""
        run_index, checkpoint = self._units[assignment.index]
        run, shares = self._plan.runs[run_index], Shares(checkpoint.name, self._sink)
        one = _CheckpointTurn(run, checkpoint, chosen, splits, assignment.tables, shares, Outcome(assignment.index))
        try:
            rows = self._evaluate(one)
        except CheckpointError as error:
            one.outcome.error = error
            rows = {table: [{"status": error.status}] for table in one.tables}
        shares.end()
        identity = identity_of(run, checkpoint)
        one.outcome.tables = {table: [{**identity, **row} for row in of_table] for table, of_table in rows.items()}
        return one.outcome

    def _evaluate(self, one: _CheckpointTurn) -> Mapping[str, list[Row]]:
        """The rows of a checkpoint by table.

        Raises:
            CheckpointError: if it cannot be used.
            SpectraError: if the code of the task raises.
        """
        where, options = str(one.checkpoint.path), self._plan.options
        if one.checkpoint.path in self._plan.incomplete:
            raise self._plan.incomplete[one.checkpoint.path]
        task, model = self._pool.task(one.chosen), self._pool.model(one.chosen)
        one.outcome.remarks = notices_of(task)
        layer, overruled = self._task_options.output_layer, one.chosen.overruled
        loaded = load_model(
            task, one.run, one.checkpoint, options, layer, model=model, overruled=overruled, folds=True, hashes=True
        )
        one.outcome.content, matrices = loaded.content, loaded.matrices
        one.outcome.facts = facts = self._facts(matrices)
        if self._pruning.variants != (FULL,):
            check_inventory(matrices.inventory, where=where)
            _check_prunable(matrices, where=where)
            if not matrices.prunable(options.include, options.exclude):
                facts |= lacking_facts(matrices.prunable().values())
                return {table: [{"status": NOTHING_SELECTED}] for table in one.tables}
        evaluator = StateEvaluator(
            task,
            loaded.model,
            one.splits,
            reestimates=self._task_options.reestimates,
            name=one.chosen.name,
            on_pass=lambda: one.shares.done(1.0 / evaluator.passes / len(self._pruning.variants)),
        )
        rows, problems = self._rows(
            one, copied(loaded.state, CPU), matrices, evaluator if VALUES in one.tables else None
        )
        one.outcome.kept_remarks = {
            table: [Remark(problem, "checkpoint") for problem in of_table] for table, of_table in problems.items()
        }
        one.outcome.remarks = [*one.outcome.remarks, *chain.from_iterable(one.outcome.kept_remarks.values())]
        return rows

    def _facts(self, matrices: ModelMatrices) -> dict[str, Any]:
        """What the end of the work needs to know of a checkpoint and no row says."""
        transposed = transposed_facts(matrices.inventory, self._plan.options.transposed)
        return {"output_layer": matrices.output_names, **transposed}

    def _rows(
        self, one: _CheckpointTurn, state: State, matrices: ModelMatrices, evaluator: StateEvaluator | None
    ) -> tuple[dict[str, list[Row]], dict[str, list[str]]]:
        """Look at every variant of one checkpoint's weights; the one before is let go of first.

        Args:
            one: checkpoint.
            state: its weights.
            matrices: among them.
            evaluator: of the variants; None where nothing is to be evaluated.

        Returns:
            Rows by table, and problems of each table, a sentence each.
        """
        options, faults = self._plan.options, Faults()
        include, exclude = options.include, options.exclude
        looked_at: list[tuple[PrunedWeights, Values | None]] = []
        with ExitStack() as stack:
            agreement = self._agreement(one, stack, faults.note)
            if agreement is not None:
                agreement.keep(state, matrices.prunable(include, exclude))
            for pruned in pruned_weights(
                state, matrices, self._pruning, self._place, include=include, exclude=exclude, on_problem=faults.note
            ):
                one.shares.begin(pruned.variant)
                values: Values | None = None
                if evaluator is not None and pruned.status == "ok":
                    values = evaluator.values(chain(state.items(), pruned.changes.items()))
                if agreement is not None and pruned.variant != FULL:
                    agreement.add(pruned)
                looked_at.append((replace(pruned, changes={}), values))
                del pruned
        rows: dict[str, list[Row]] = {}
        problems: dict[str, list[str]] = {}
        if evaluator is not None:
            rows[VALUES] = value_rows(looked_at, self._pruning, evaluator.splits)
            variants = [each for each, _ in looked_at]
            problems[VALUES] = list(messages.prune_problems(variants, rows[VALUES], faults.first))
        if agreement is not None:
            rows[AGREEMENT] = agreement.rows
            known = {status for each, _ in looked_at for status in each.faults.values()} if VALUES in rows else set()
            known.add("all_zero")  # a mask may well leave nothing of a matrix
            compared = [row for row in agreement.rows if row["status"] not in known]
            problems[AGREEMENT] = [sentence for _, sentence in messages.problems({AGREEMENT: compared}, faults.first)]
        if faults.of_budget and options.budget_bytes is not None:
            one.outcome.budget_bytes = self._place.budget_bytes
        return rows, problems

    def _agreement(self, one: _CheckpointTurn, stack: ExitStack, on_problem: OnProblem) -> PrunedAgreement | None:
        if AGREEMENT not in one.tables:
            return None
        store = stack.enter_context(VectorStore(self._place.kept_bytes))
        return PrunedAgreement(store, Reference(one.run, one.checkpoint).columns, self._place, on_problem)


@dataclass(frozen=True)
class _CheckpointTurn:
    """A checkpoint whose turn it is.

    Attributes:
        run: that it belongs to.
        checkpoint: to evaluate.
        chosen: its task.
        splits: to evaluate it on.
        tables: to make of it.
        shares: tells how far its evaluation is.
        outcome: what comes of it.
    """

    run: Run
    checkpoint: Checkpoint
    chosen: ChosenTask
    splits: Sequence[str]
    tables: Sequence[str]
    shares: Shares
    outcome: Outcome


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
