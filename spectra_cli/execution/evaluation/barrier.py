"""Pairs of checkpoints, each evaluated along the line between the two, wherever that is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from spectra_cli.analyses import barrier, rank, sva
from spectra_cli.analyses.known import KnownMatrices
from spectra_cli.analyses.visits import Row
from spectra_cli.checkpoints.fingerprints import fingerprint_files
from spectra_cli.errors import InputError, SpectraError, UsageError
from spectra_cli.execution.evaluation.interpolator import (
    AGREEMENT,
    BARRIER,
    OF_MATRIX,
    SPECTRA,
    BarrierWork,
    identity_in,
)
from spectra_cli.execution.evaluation.pairs import BarrierPlan, End, Pair
from spectra_cli.execution.evaluation.taskruns import ChosenTask, named_task
from spectra_cli.execution.evaluation.taskstate import TaskStates, chunks_by_task, model_settings, task_settings
from spectra_cli.execution.planning.options import PathLike
from spectra_cli.execution.planning.provenance import provenance
from spectra_cli.execution.planning.recordedsettings import hashed
from spectra_cli.execution.trajectory.facts import TRANSPOSED, texts
from spectra_cli.execution.trajectory.job import remade
from spectra_cli.execution.work.events import Remark
from spectra_cli.execution.work.listener import Listener
from spectra_cli.execution.work.units import Assignment, Chunk, Outcome, Unit
from spectra_cli.storage.places import Place
from spectra_cli.tables.entries import Key

PAIR_KEY = ("run_a", "checkpoint_a", "run_b", "checkpoint_b")
KEY_COLUMNS = {
    BARRIER: PAIR_KEY,
    SPECTRA: PAIR_KEY,
    AGREEMENT: ("reference_run", "reference_checkpoint", "run", "checkpoint"),
}
"""Columns that name a pair."""


class BarrierJob:
    """Makes the tables of what lies between the checkpoints of pairs.

    Args:
        plan: the pairs.
        listener: told what people should know.
        device: what the work is done on, as the files record it; its class is the part before ``:``.
        tables: to make: ``barrier``, and ``barrier_spectra`` for the statistics of singular values at every point,
            and ``sva`` for the agreement of the singular vectors of B with those of A.
        agreement: whether the singular vectors of the ends are to be compared where no table is made of it.
        written: files, URLs and directories that the command writes, which are no data.
    """

    def __init__(
        self,
        plan: BarrierPlan,
        listener: Listener,
        device: str,
        *,
        tables: Sequence[str] = (BARRIER,),
        agreement: bool = False,
        written: Sequence[PathLike] = (),
    ) -> None:
        self.noun = "pair"
        self.command = "barrier"
        self.tables = tuple(tables)
        self._listed = Counter(_key(pair) for pair in plan.pairs)
        self.units: Sequence[Unit] = [
            Unit(index, key, "", str(pair), pair.tags)
            for index, (pair, key) in enumerate(zip(plan.pairs, _unique_keys(plan.pairs), strict=True))
        ]
        self.key_columns: Mapping[str, Sequence[str]] = {table: KEY_COLUMNS[table] for table in tables}
        self.harmless: Mapping[str, Collection[str]] = {
            BARRIER: barrier.HARMLESS,
            SPECTRA: rank.HARMLESS,
            AGREEMENT: sva.HARMLESS,
        }
        self.reusable: str | None = None
        self._plan, self._listener, self._device = plan, listener, device
        self._agreement = agreement
        self._looks = agreement or bool({SPECTRA, AGREEMENT} & set(tables))
        self._states = TaskStates(written, plan.runs_read)
        self._tasks = list(map(_NamedTasks(plan).of, plan.pairs))
        self._errors: list[SpectraError] = []
        self._looked_at = 0
        self._held_back: UsageError | None = None
        self._told: Counter[str] = Counter()
        self._noted: set[str] = set()
        self._unmatched = list(plan.options.transposed)

    def work(self, sharing: int, known: Sequence[KnownMatrices]) -> BarrierWork:  # noqa: ARG002 - no table rank is made
        """The pairs of the plan, for workers."""
        return BarrierWork(self._plan, self._agreement, sharing)

    def chunks(self, assignments: Sequence[Assignment], workers: int) -> list[Chunk]:
        """One chunk for one worker; of several, each has a pair at a time, those of one task in a row."""
        return chunks_by_task(assignments, workers, self._task)

    def passes(self, chunks: Sequence[Chunk], workers: int) -> int:  # noqa: ARG002 - as a TableJob is asked
        """Number of evaluations: one for each unit."""
        return sum(map(len, chunks))

    def remade(self, missing: Collection[str]) -> tuple[str, ...]:
        """All tables, unless only the agreement is missing."""
        return remade(self.tables, missing)

    def label(self, key: Key) -> str:
        """``runs/a@step_400.safetensors and runs/b@step_400.safetensors``; of what was not found, the PATH alone."""
        return " and ".join(_end_label(*key[at : at + 2]) for at in (0, 2))

    def fingerprint(self, unit: Unit, table: str) -> str:
        """Fingerprint of the files of both checkpoints, of what their run.json say, and of the data that they name.

        A pair that is listed twice cannot be told from the other in a table, so it is always looked at again.
        """
        pair, tasks = self._plan.pairs[unit.index], self._tasks[unit.index]
        if self._listed[_key(pair)] > 1 or tasks is None:
            return ""
        try:
            states = [
                [fingerprint_files(end.checkpoint.path, end.run.root), self._states.of(task, end.run, end.checkpoint)]
                for end, task in zip(pair.found, tasks, strict=True)
            ]
        except SpectraError:
            return ""
        return hashed([self.identity(unit, table), states])

    def identity(self, unit: Unit, table: str) -> Row:
        """The columns that name a pair."""
        return identity_in(self._plan.pairs[unit.index], table)

    def budget_bytes(self, sharing: int) -> int | None:
        """The memory budget of each worker, if the user has set one."""
        return self._plan.options.worker_budget_bytes(sharing)

    def settings(self, table: str) -> Mapping[str, Any]:
        """The options that the rows of a table depend on."""
        evaluates = table == BARRIER
        chosen = {
            **model_settings(self._plan.options, self._device),
            **task_settings(self._plan.task, evaluates=evaluates),
        }
        return chosen if table == AGREEMENT else {**chosen, "--alphas": self._plan.alphas}

    def metadata(self, command: Sequence[str]) -> dict[str, str]:
        """What the files record about their making, besides their schema."""
        tasks = {tasks[0].key: tasks[0] for tasks in self._tasks if tasks is not None}
        settings = {
            **self._plan.recorded(),
            "tasks": [{"task": task.name, "options": task.settings} for task in tasks.values()],
        }
        return provenance(command, settings, self._device)

    def begin(self) -> None:
        """Do nothing: nothing is known before the work begins."""

    def take(self, outcome: Outcome) -> None:
        """Take note of a pair that has been looked at.

        Raises:
            SpectraError: if it is the only one and could not be used.
        """
        self._tell(self.units[outcome.index], outcome.remarks)
        self._count(outcome.index, outcome.facts)
        self._looked_at += 1
        if outcome.error is None:
            self._tell_held_back()
            return
        pair, error, message = self._plan.pairs[outcome.index], outcome.error, str(outcome.error)
        if len(self._plan.pairs) == 1:
            raise pair.placed(error) from error.__cause__
        self._errors.append(error)
        self._told[message] += 1
        if self._told[message] > 1:
            return
        if self._looked_at == 1 and isinstance(error, UsageError):
            self._held_back = error
        else:
            self._tell_held_back()
            self._listener.problem(str(pair.placed(error)))

    def take_kept(
        self,
        unit: Unit,
        tables: Mapping[str, Sequence[Row]],  # noqa: ARG002 - as a TableJob is asked
        facts: Mapping[str, Any],
        remarks: Sequence[Remark],
    ) -> None:
        """Take note of a pair whose rows are there already."""
        self._tell(unit, remarks)
        self._count(unit.index, facts)
        self._looked_at += 1
        self._tell_held_back()

    def end(self) -> None:
        """Tell what is only known at the end.

        Raises:
            UsageError: if no pair could be used for one reason that is none of its own, such as ``--split``.
            InputError: if no pair could be used.
        """
        if self._held_back is not None:
            raise self._held_back
        if len(self._errors) == len(self._plan.pairs):
            raise InputError(f"none of the {len(self._errors)} pairs could be used; see above") from self._errors[0]
        for message, count in self._told.items():
            if count > 1:
                self._listener.problem(f"the same in {count - 1} more of the pairs: {message}")
        if self._looks:
            for glob in self._unmatched:
                self._listener.problem(f"--transposed {glob} matches no parameter.")

    def _tell_held_back(self) -> None:
        """Tell an error of the command line that turns out not to be about all pairs."""
        if self._held_back is not None:
            self._listener.problem(str(self._held_back))
            self._held_back = None

    def found(self) -> Mapping[str, Any]:
        """No facts beside the rows."""
        return {}

    def _task(self, index: int) -> ChosenTask | None:
        tasks = self._tasks[index]
        return None if tasks is None else tasks[0]

    def _tell(self, unit: Unit, remarks: Sequence[Remark]) -> None:
        for remark in remarks:
            if remark.kind == "notice":
                self._once(remark.message, self._listener.notice)
            else:
                self._listener.problem(f"{unit.label}: {remark.message}")

    def _once(self, message: str, tell: Callable[[str], None]) -> None:
        if message not in self._noted:
            self._noted.add(message)
            tell(message)

    def _count(self, index: int, facts: Mapping[str, Any]) -> None:
        task = self._task(index)
        if task is not None and task.remark:
            self._once(task.remark, self._listener.problem)
        matched = texts(facts, TRANSPOSED)
        self._unmatched = [glob for glob in self._unmatched if glob not in matched]


def agreement_of(facts: Mapping[str, Any]) -> list[Row]:
    """The scores of the ends of a pair among the facts about it, a row per matrix with its ``rows`` and ``cols``.

    Args:
        facts: from a file, so of any form; what is no score is left out.
    """
    found = facts.get("agreement")
    cells = [each for each in found if isinstance(each, list)] if isinstance(found, list) else []
    rows = [dict(zip(OF_MATRIX, each, strict=True)) for each in cells if len(each) == len(OF_MATRIX)]
    return [row for row in rows if all(isinstance(row[name], kind) for name, kind in OF_MATRIX.items())]


def _key(pair: Pair) -> Key:
    identity = pair.identity
    return tuple(identity.get(name) for name in PAIR_KEY)


def _end_label(run: str | None, checkpoint: str | None) -> str:
    return "@".join(part for part in (run, checkpoint) if part not in {None, "", "."})


def _unique_keys(pairs: Sequence[Pair]) -> Iterator[Key]:
    """The keys of pairs, with a number where one has been listed before; no table has such a key."""
    seen = Counter[Key]()
    for pair in pairs:
        key = _key(pair)
        seen[key] += 1
        yield key if seen[key] == 1 else (*key, str(seen[key]))


class _NamedTasks:
    """The tasks of pairs as they are named; what is said of a checkpoint is looked up once.

    Args:
        plan: the pairs, and what the user says of the task.
    """

    def __init__(self, plan: BarrierPlan) -> None:
        self._options = plan.task
        self._known: dict[Place, ChosenTask] = {}

    def of(self, pair: Pair) -> tuple[ChosenTask, ChosenTask] | None:
        """Tasks of A and of B; None where one cannot be told, and the worker will say why."""
        try:
            a, b = pair.found
            return self._of(a), self._of(b)
        except SpectraError:
            return None

    def _of(self, end: End) -> ChosenTask:
        path = end.checkpoint.path
        if path not in self._known:
            self._known[path] = named_task(end.run, end.checkpoint, self._options)
        return self._known[path]
