"""The pairs one after the other, each evaluated along the line between its two checkpoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from spectra_cli.analyses import rank, sva
from spectra_cli.analyses.barrier import HARMLESS, MatricesAlong, curve_rows, grid, state_between
from spectra_cli.analyses.contents import check_named_family
from spectra_cli.analyses.models import State, copied
from spectra_cli.analyses.modelstates import StateEvaluator
from spectra_cli.analyses.references import Reference
from spectra_cli.analyses.vectorstore import VectorStore
from spectra_cli.analyses.visits import Row
from spectra_cli.errors import CheckpointError, InputError, SpectraError
from spectra_cli.execution import messages
from spectra_cli.execution.listener import EvaluationListener
from spectra_cli.execution.local import NOTHING_SELECTED, identity_of, place_of
from spectra_cli.execution.modelloading import load_model
from spectra_cli.execution.pairs import BarrierPlan, End, Pair
from spectra_cli.execution.pairtasks import task_of_pair
from spectra_cli.execution.provenance import provenance
from spectra_cli.execution.taskruns import ChosenTask, ModelPool, Notices, chosen_splits
from spectra_cli.layers.inventory import Inventory
from spectra_cli.layers.matricize import MatrixSpec
from spectra_cli.tasks.base import Task

BARRIER, SPECTRA, AGREEMENT = "barrier", "barrier_spectra", "sva"

CPU = torch.device("cpu")

SHOWN_VALUES = 3
"""Values that are not known, of those that a warning names."""


class NothingSelectedError(CheckpointError):
    """A model without a matrix of the selection."""

    status = NOTHING_SELECTED


@dataclass(frozen=True, slots=True)
class PairRows:
    """What was found between the checkpoints of one pair.

    Attributes:
        pair: which.
        tables: the rows of each table.
        agreement: of the singular vectors of the ends, a row per matrix with its ``rows`` and ``cols``; empty unless it
            was asked for.
    """

    pair: Pair
    tables: Mapping[str, list[Row]]
    agreement: Sequence[Row] = ()

    @property
    def usable(self) -> bool:
        """Whether all that was asked for could be computed."""
        harmless = {BARRIER: HARMLESS, SPECTRA: rank.HARMLESS, AGREEMENT: sva.HARMLESS}
        return all(row["status"] in harmless[table] for table, rows in self.tables.items() for row in rows)


class BarrierJob:
    """Evaluates a model along the lines between the checkpoints of all pairs.

    The device holds one model; both ends are on the CPU, and each tensor of a point between them is made when it is put
    into the model.

    Args:
        plan: the pairs.
        listener: told how the work goes on.
        tables: to make: ``barrier``, and ``barrier_spectra`` for the statistics of singular values at every point,
            and ``sva`` for the agreement of the singular vectors of B with those of A.
        agreement: whether the singular vectors of the ends are to be compared where no table is made of it.

    Raises:
        SpectraError: if the device is not there.
    """

    def __init__(
        self,
        plan: BarrierPlan,
        listener: EvaluationListener,
        *,
        tables: Sequence[str] = (BARRIER,),
        agreement: bool = False,
    ) -> None:
        self._tables = tuple(tables)
        self._spectra = SPECTRA in tables
        self._agreement = agreement or AGREEMENT in tables
        self.place = place_of(plan.options, keeps_vectors=self._agreement)
        self._plan = plan
        self._listener = listener
        self._notices = Notices(listener.notice)
        self._errors: list[SpectraError] = []
        self._told: Counter[str] = Counter()
        self._unmatched = list(plan.options.transposed)
        self._chosen = [_chosen(pair, plan) for pair in plan.pairs]

    def metadata(self, command: Sequence[str]) -> dict[str, str]:
        """What the files record about their making, besides their schema."""
        tasks = {chosen.key: chosen for chosen in self._chosen if isinstance(chosen, ChosenTask)}
        settings = {
            **self._plan.recorded(),
            "tasks": [{"task": chosen.name, "options": chosen.settings} for chosen in tasks.values()],
        }
        return provenance(command, settings, self.place.device)

    def found(self) -> dict[str, Any]:
        """Nothing beside the rows."""
        return {}

    def results(self) -> Iterator[PairRows]:
        """Evaluate pair after pair, in the order of the plan.

        Raises:
            SpectraError: if not a single pair could be used.
        """
        chosen_tasks = [chosen for chosen in self._chosen if isinstance(chosen, ChosenTask)]
        pool = ModelPool(chosen_tasks, self.place.device)
        usable = [self._with_splits(chosen, pool) for chosen in self._chosen]
        errors = [error for error in usable if isinstance(error, SpectraError)]
        if len(errors) == len(usable) and len(set(map(str, errors))) == 1:
            raise self._plan.pairs[0].placed(errors[0])  # no matter of single pairs, such as --split
        for remark in dict.fromkeys(chosen.remark for chosen in chosen_tasks if chosen.remark):
            self._listener.problem(remark)
        for index, chosen in enumerate(self._chosen):
            yield self._attempt(index, usable[index], pool)
            if isinstance(chosen, ChosenTask):
                pool.used(chosen)
        self._tell_the_end()

    def _with_splits(self, chosen: ChosenTask | SpectraError, pool: ModelPool) -> ChosenTask | SpectraError:
        """A task that can be made and has the splits that are asked for, or why there is none."""
        if isinstance(chosen, SpectraError):
            return chosen
        try:
            chosen_splits(pool.task(chosen), self._plan.task.splits)
        except SpectraError as error:
            return error
        return chosen

    def _attempt(self, index: int, chosen: ChosenTask | SpectraError, pool: ModelPool) -> PairRows:
        """Evaluate one pair; one that cannot be used is a row of every table."""
        pair = self._plan.pairs[index]
        try:
            if isinstance(chosen, SpectraError):
                raise chosen
            tables, agreement = self._evaluated(index, pair, chosen, pool)
        except SpectraError as error:
            message = str(error)
            if len(self._plan.pairs) == 1:
                raise pair.placed(error) from error.__cause__
            self._errors.append(error)
            self._told[message] += 1
            if self._told[message] == 1:
                self._listener.problem(str(pair.placed(error)))
            tables, agreement = {table: [{"status": error.status}] for table in self._tables}, []
        named = {
            table: [{**(_compared(pair) if table == AGREEMENT else pair.identity), **row, **pair.tags} for row in rows]
            for table, rows in tables.items()
        }
        return PairRows(pair, named, agreement)

    def _evaluated(
        self, index: int, pair: Pair, chosen: ChosenTask, pool: ModelPool
    ) -> tuple[dict[str, list[Row]], list[Row]]:
        """The rows of a pair by table, and the agreement of its ends."""
        task, model = pool.task(chosen), pool.model(chosen)
        splits = chosen_splits(task, self._plan.task.splits)
        self._notices.of(task)
        (a, inventory), (b, _) = (self._loaded(task, end, model, chosen.overruled) for end in pair.found)
        specs = self._specs(inventory)
        progress = _Progress(self._listener, index, len(self._plan.pairs), self._plan.alphas)
        evaluator = StateEvaluator(
            task, model, splits, reestimates=self._plan.task.reestimates, name=chosen.name, on_pass=progress.passed
        )
        points = []
        with ExitStack() as stack:
            along = MatricesAlong(specs, self.place, spectra=self._spectra)
            if self._agreement:
                along.compare_with(stack.enter_context(VectorStore(self.place.kept_bytes)))
            for place, weights in enumerate(grid(self._plan.alphas)):
                progress.began(place, evaluator.passes)
                points.append(evaluator.values(state_between(a, b, weights)))
                along.look(model, weights[1])
        tables = {BARRIER: curve_rows(points)}
        of_matrices = {SPECTRA: along.rows, AGREEMENT: along.agreement}
        asked = {table: rows for table, rows in of_matrices.items() if table in self._tables}
        tables |= {table: rows or [{"status": "no_matrices"}] for table, rows in asked.items()}
        for message in [*_unknown(tables[BARRIER]), *messages.problems(asked, along.first_errors)]:
            self._listener.problem(f"{pair}: {message}")
        return tables, along.agreement

    def _loaded(self, task: Task, end: End, model: nn.Module, overruled: Sequence[str]) -> tuple[State, Inventory]:
        """The weights of a checkpoint on the CPU, and the matrices among them."""
        loaded = load_model(
            task, end.run, end.checkpoint, self._plan.options, model=model, overruled=overruled, finds_output=False
        )
        return copied(loaded.state, CPU), loaded.matrices.inventory

    def _specs(self, inventory: Inventory) -> dict[int, MatrixSpec]:
        """The matrices selected; none where nobody asks for any.

        Raises:
            CheckpointError: if none of them is selected, or the family that the user names does not fit.
        """
        if not self._spectra and not self._agreement:
            return {}
        check_named_family(inventory)
        options = self._plan.options
        self._unmatched = [glob for glob in self._unmatched if not inventory.selected([glob], ())]
        specs = inventory.selected(options.include, options.exclude)
        if inventory.matrices and not specs:
            error = messages.nothing_selected(options, [spec.parameter for spec in inventory.matrices])
            raise NothingSelectedError(error.what, remedy=error.remedy)
        return specs

    def _tell_the_end(self) -> None:
        """Tell what is only known at the end.

        Raises:
            SpectraError: if no pair could be used.
        """
        if len(self._errors) == len(self._plan.pairs):
            raise InputError(f"none of the {len(self._errors)} pairs could be used; see above") from self._errors[0]
        for message, count in self._told.items():
            if count > 1:
                self._listener.problem(f"the same in {count - 1} more of the pairs: {message}")
        if self._spectra or self._agreement:
            for glob in self._unmatched:
                self._listener.problem(f"--transposed {glob} matches no parameter.")


class _Progress:
    """How far the evaluations of one pair have come, among those of all."""

    def __init__(self, listener: EvaluationListener, pair: int, pairs: int, alphas: int) -> None:
        self._listener, self._pair, self._pairs, self._alphas = listener, pair, pairs, alphas
        self._point = 0
        self._passes = 1
        self._passed = 0

    def began(self, point: int, passes: int) -> None:
        """The weights of a point, which take so many passes over data, are being evaluated."""
        self._point, self._passes, self._passed = point, passes, 0
        self._tell()

    def passed(self) -> None:
        """One of the passes is done."""
        self._passed += 1
        self._tell()

    def _tell(self) -> None:
        pair = f"pair {self._pair + 1}/{self._pairs}, " if self._pairs > 1 else ""
        done = self._pair * self._alphas + self._point + self._passed / self._passes
        what = f"{pair}alpha {self._point + 1}/{self._alphas}"
        self._listener.progressed(what, done, self._pairs * self._alphas)


def _chosen(pair: Pair, plan: BarrierPlan) -> ChosenTask | SpectraError:
    try:
        return task_of_pair(pair, plan.task)
    except SpectraError as error:
        return error


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
