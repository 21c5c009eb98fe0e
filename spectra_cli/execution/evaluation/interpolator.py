"""Pairs of checkpoints looked at one at a time: a model is evaluated along the line between the two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch
from torch import nn

from spectra_cli.analyses.barrier import MatricesAlong, Point, curve_rows, grid, state_between
from spectra_cli.analyses.contents import check_named_family
from spectra_cli.analyses.hashes import combined
from spectra_cli.analyses.models import State, copied
from spectra_cli.analyses.modelstates import StateEvaluator, place
from spectra_cli.analyses.references import Reference
from spectra_cli.analyses.vectorstore import VectorStore
from spectra_cli.analyses.visits import Row
from spectra_cli.checkpoints.runs import Run
from spectra_cli.errors import CheckpointError, SpectraError
from spectra_cli.execution.evaluation.modelloading import load_model, stored_content
from spectra_cli.execution.evaluation.modelpool import TURN, ModelPool, notices_of
from spectra_cli.execution.evaluation.pairs import BarrierPlan, End, Pair
from spectra_cli.execution.evaluation.pairtasks import task_of_pair
from spectra_cli.execution.evaluation.shares import Shares, passed_over
from spectra_cli.execution.evaluation.taskruns import ChosenTask, chosen_splits
from spectra_cli.execution.executors.device import work_place_of
from spectra_cli.execution.planning import messages
from spectra_cli.execution.planning.checkpointunits import identity_of
from spectra_cli.execution.planning.workingdirectory import WorkingDirectory
from spectra_cli.execution.trajectory.facts import transposed_facts
from spectra_cli.execution.work.events import Remark
from spectra_cli.execution.work.units import Assignment, Chunk, EventSink, Outcome
from spectra_cli.layers.inventory import Inventory
from spectra_cli.layers.matricize import MatrixSpec
from spectra_cli.tables.statuses import NOTHING_SELECTED
from spectra_cli.tasks.base import Task

BARRIER, SPECTRA, AGREEMENT = "barrier", "barrier_spectra", "sva"

OF_MATRIX = {"depth": int, "parameter": str, "rows": int, "cols": int, "score": float, "min_gap": float | None}
"""What is on record of the agreement of the ends, and of which type it is."""

CPU = torch.device("cpu")

SHOWN_VALUES = 3
"""Values that are not known, of those that a warning names."""


class NothingSelectedError(CheckpointError):
    """A model without a matrix of the selection."""

    status = NOTHING_SELECTED


@dataclass(frozen=True)
class BarrierWork:
    """The pairs of a plan, each a unit.

    Attributes:
        plan: the pairs; the code of tasks is loaded where the work is done.
        agreement: whether the singular vectors of the ends are compared where no table is made of it.
        sharing: how many workers share the memory of one machine or device.
        directory: that relative paths are relative to.
    """

    plan: BarrierPlan
    agreement: bool
    sharing: int = 1
    directory: WorkingDirectory = field(default_factory=WorkingDirectory)

    def worker(self, device: str, sink: EventSink) -> Interpolator:
        """Get ready in this process; see :class:`spectra_cli.execution.work.units.Work`."""
        return Interpolator(replace(self, plan=self.plan.found_from(self.directory)), device, sink)

    def runs_read(self) -> Sequence[Run]:
        """Runs of both ends of all pairs."""
        return self.plan.runs_read


class Interpolator:
    """Evaluates a model along the lines between the checkpoints of pairs.

    The device holds one model; both ends are on the CPU, and each tensor of a point between them is made when it is put
    into the model.

    Args:
        work: what there is to do.
        device: to work on.
        sink: told how the work goes on.

    Raises:
        SpectraError: if the device is not there.
    """

    def __init__(self, work: BarrierWork, device: str, sink: EventSink) -> None:
        self._plan, self._sink, self._agreement = work.plan, sink, work.agreement
        # the memory of the work decides its last digits, so it is the same whether or not the ends are compared
        self._place = work_place_of(work.plan.options, device, sharing=work.sharing, keeps_vectors=True)
        self._pool = ModelPool(self._place.device)

    def outcomes(self, chunk: Chunk) -> Iterator[Outcome]:
        """Look between the pairs of a chunk, after those have been passed over whose weights are as they were.

        Raises:
            SpectraError: if no pair of the plan can be used, all for one reason.
        """
        to_do = yield from passed_over(chunk, self._content, self._named, self._sink)
        with TURN:
            chosen = [self._chosen(assignment.index) for assignment in to_do]
            self._pool.expect(each for each in chosen if isinstance(each, ChosenTask))
            usable = [self._with_splits(each) for each in chosen]
        errors = [each for each in usable if isinstance(each, SpectraError)]
        if len(errors) == len(self._plan.pairs) and len(set(map(str, errors))) == 1:
            raise self._plan.pairs[0].placed(errors[0])  # no matter of single pairs, such as --split
        for assignment, task, each in zip(to_do, chosen, usable, strict=True):
            with TURN:
                outcome = self._attempt(assignment, each)
            if isinstance(task, ChosenTask):
                self._pool.used(task)
            yield outcome

    def close(self) -> None:
        """Let go of tasks and models."""
        self._pool.close()

    def _content(self, index: int) -> str:
        """What the weights of both ends of a pair hash to."""
        return combined([stored_content(end.run, end.checkpoint) for end in self._plan.pairs[index].found])

    def _named(self, index: int) -> str:
        """A pair for people who watch, among all."""
        return f"pair {index + 1}/{len(self._plan.pairs)}" if len(self._plan.pairs) > 1 else ""

    def _chosen(self, index: int) -> ChosenTask | SpectraError:
        try:
            return task_of_pair(self._plan.pairs[index], self._plan.task)
        except SpectraError as error:
            return error

    def _with_splits(self, chosen: ChosenTask | SpectraError) -> ChosenTask | SpectraError:
        """A task that can be made and has the splits that are asked for, or why there is none."""
        if isinstance(chosen, SpectraError):
            return chosen
        try:
            chosen_splits(self._pool.task(chosen), self._plan.task.splits)
        except SpectraError as error:
            return error
        return chosen

    def _attempt(self, assignment: Assignment, chosen: ChosenTask | SpectraError) -> Outcome:
        """Look between one pair; one that cannot be used is a row of every table."""
        index, tables = assignment.index, assignment.tables
        pair, outcome = self._plan.pairs[index], Outcome(index)
        shares = Shares(self._named(index), self._sink)
        try:
            if isinstance(chosen, SpectraError):
                raise chosen
            rows = self._evaluated(pair, chosen, tables, outcome, shares)
        except SpectraError as error:
            outcome.error = error
            rows = {table: [{"status": error.status}] for table in tables}
        shares.end()
        outcome.tables = {
            table: [{**identity_in(pair, table), **row} for row in of_table] for table, of_table in rows.items()
        }
        return outcome

    def _evaluated(
        self, pair: Pair, chosen: ChosenTask, tables: Sequence[str], outcome: Outcome, shares: Shares
    ) -> Mapping[str, list[Row]]:
        """The rows of a pair by table.

        Raises:
            SpectraError: if it cannot be used.
        """
        task, model = self._pool.task(chosen), self._pool.model(chosen)
        outcome.remarks = notices_of(task)
        (a, inventory, content_a), (b, _, content_b) = (self._loaded(task, end, model, chosen) for end in pair.found)
        outcome.content = combined([content_a, content_b])
        along = MatricesAlong(self._specs(inventory, tables, outcome), self._place, spectra=SPECTRA in tables)
        with ExitStack() as stack:
            if self._agreement or AGREEMENT in tables:
                along.compare_with(stack.enter_context(VectorStore(self._place.kept_bytes)))
            points = self._points(task, chosen, (a, b), along, shares if BARRIER in tables else None)
        rows = {BARRIER: curve_rows(points)} if BARRIER in tables else {}
        of_matrices = {SPECTRA: along.rows, AGREEMENT: along.agreement}
        asked = {table: found for table, found in of_matrices.items() if table in tables}
        rows |= {table: found or [{"status": "no_matrices"}] for table, found in asked.items()}
        problems = [(BARRIER, problem) for problem in _unknown(rows.get(BARRIER, []))]
        for table, problem in [*problems, *messages.problems(asked, along.first_errors)]:
            outcome.kept_remarks.setdefault(table, []).append(Remark(problem))
        outcome.remarks = [*outcome.remarks, *chain.from_iterable(outcome.kept_remarks.values())]
        outcome.facts = {**outcome.facts, **_facts(along)}
        return rows

    def _points(
        self, task: Task, chosen: ChosenTask, ends: tuple[State, State], along: MatricesAlong, shares: Shares | None
    ) -> list[Point]:
        """The metrics along the line, while the matrices there are looked at.

        Args:
            task: the task.
            chosen: by what name.
            ends: the weights of A and of B.
            along: looks at the matrices.
            shares: told how far the evaluations are; None to look at the ends only and evaluate nothing.
        """
        model = self._pool.model(chosen)
        if shares is None:
            for weights in grid(2):
                place(model, state_between(*ends, weights))
                along.look(model, weights[1])
            return []
        alphas, points = self._plan.alphas, list[Point]()
        evaluator = StateEvaluator(
            task,
            model,
            chosen_splits(task, self._plan.task.splits),
            reestimates=self._plan.task.reestimates,
            name=chosen.name,
            on_pass=lambda: shares.done(1.0 / evaluator.passes / alphas),
        )
        for number, weights in enumerate(grid(alphas), 1):
            shares.begin(f"alpha {number}/{alphas}")
            points.append(evaluator.values(state_between(*ends, weights)))
            along.look(model, weights[1])
        return points

    def _loaded(self, task: Task, end: End, model: nn.Module, chosen: ChosenTask) -> tuple[State, Inventory, str]:
        """The weights of a checkpoint on the CPU, the matrices among them, and what they hash to."""
        options, overruled = self._plan.options, chosen.overruled
        loaded = load_model(
            task, end.run, end.checkpoint, options, model=model, overruled=overruled, finds_output=False, hashes=True
        )
        return copied(loaded.state, CPU), loaded.matrices.inventory, loaded.content

    def _specs(self, inventory: Inventory, tables: Sequence[str], outcome: Outcome) -> dict[int, MatrixSpec]:
        """The matrices selected; none where none are asked for.

        Raises:
            CheckpointError: if none of them is selected, or the family that the user names does not fit.
        """
        if not self._agreement and not {SPECTRA, AGREEMENT} & set(tables):
            return {}
        check_named_family(inventory)
        options = self._plan.options
        outcome.facts = transposed_facts(inventory, options.transposed)
        specs = inventory.selected(options.include, options.exclude)
        if inventory.matrices and not specs:
            error = messages.nothing_selected(options, [spec.parameter for spec in inventory.matrices])
            raise NothingSelectedError(error.what, remedy=error.remedy)
        return specs


def _facts(along: MatricesAlong) -> dict[str, Any]:
    """The scores of the ends, as people are told them whether or not a table of them is made."""
    scored = [row for row in along.agreement if row.get("score") is not None]
    return {"agreement": [[row.get(name) for name in OF_MATRIX] for row in scored]} if scored else {}


def identity_in(pair: Pair, table: str) -> Row:
    """The columns that name a pair in a table."""
    return _compared(pair) if table == AGREEMENT else pair.identity


def _compared(pair: Pair) -> Row:
    """The columns of a table of agreement that name a pair: B is the checkpoint, A its reference."""
    (a, b), (given_a, given_b) = pair.ends, pair.given
    of_b = {"run": given_b} if b is None else identity_of(b.run, b.checkpoint)
    return {**of_b, **({"reference_run": given_a} if a is None else Reference(a.run, a.checkpoint).columns)}


def _unknown(rows: Sequence[Row]) -> Iterator[str]:
    """One sentence for each status of values that are not known."""
    named: dict[str, list[str]] = {}
    for row in rows:
        if row["status"] in {"not_finite", "empty"}:
            named.setdefault(row["status"], []).append(f"{row['split']} {row['metric']} at alpha {row['alpha']:g}")
    for status, names in named.items():
        shown = messages.shown(names, SHOWN_VALUES)
        yield f"{len(names)} of {len(rows)} values {status} ({shown}): the barrier there is not known."
