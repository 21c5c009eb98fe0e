"""Tables made unit by unit: what is there already is kept, what is finished is safe at once, the rest is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from spectra_cli.analyses.visits import Row
from spectra_cli.execution.executors.lostworkers import WorkerDiedError
from spectra_cli.execution.executors.placement import Placement
from spectra_cli.execution.executors.signalsdeferred import signals_deferred
from spectra_cli.execution.incremental.goneunits import GoneUnits
from spectra_cli.execution.incremental.ledger import Ledger
from spectra_cli.execution.incremental.patience import Patience
from spectra_cli.execution.incremental.reuse import settled
from spectra_cli.execution.incremental.tableoutput import TableOutput
from spectra_cli.execution.incremental.writing import Filled, Writing
from spectra_cli.execution.work.events import Remark
from spectra_cli.execution.work.jobs import TableJob
from spectra_cli.execution.work.listener import Listener
from spectra_cli.execution.work.units import Assignment, Outcome, Unit
from spectra_cli.shortening import counted
from spectra_cli.storage.places import place_of
from spectra_cli.tables.directories import make_directory

Told = TypeVar("Told", bound=Listener)

Take = Callable[[Unit, Mapping[str, list[Row]], Mapping[str, Any]], None]
"""Called with every unit in the order of the tables, its rows without bulky columns, and the facts about it."""


@dataclass(frozen=True)
class PreparedWork(Generic[Told]):
    """A work that is planned.

    Attributes:
        job: the work.
        listener: that is told how it goes on.
        placement: where it is done.
        writing: where its tables go.
    """

    job: TableJob
    listener: Told
    placement: Placement
    writing: Writing


class Filling:
    """Fills the tables of a job.

    Args:
        job: the work.
        writing: where the tables go.
        placement: where the work is done.
        listener: told how it goes on.
        command: the command line, or the function called and its arguments, for the metadata of files.
        patience: with checkpoints that a run may be writing; None to take every one as it is.
    """

    def __init__(
        self,
        job: TableJob,
        writing: Writing,
        placement: Placement,
        listener: Listener,
        *,
        command: Sequence[str],
        patience: Patience | None = None,
    ) -> None:
        self._job = job
        self._writing = writing
        self._placement = placement
        self._listener = listener
        self._command = command
        self._patience = patience
        self._held: set[int] = set()
        self._ledgers: dict[str, Ledger] = {}
        self.filled = Filled()

    @property
    def progress(self) -> str:
        """How far the work is, in words, for who stops it."""
        if self.filled.published:
            units = counted(len(self._job.units), self._job.noun)
            return f"the tables are written, with {self.filled.finished} of {units}"
        return f"{self.safe}, the tables are not written yet" if self.safe else "nothing new is finished"

    @property
    def safe(self) -> str:
        """How much the next run need not do again, in words; nothing where there is none, or the tables are written."""
        finished = self.filled.finished - self.filled.to_repeat
        if not finished or self.filled.published or not any(self._writing.outs.values()):
            return ""
        return f"{finished} of {counted(len(self._job.units), self._job.noun)} are finished and kept"

    def fill(self, take: Take, *, whole: bool = False) -> Filled:
        """Do what is to be done, and publish the tables.

        Args:
            take: shown every unit at the end.
            whole: whether the tables are asked for in memory as well.

        Raises:
            SpectraError: if nothing could be done, somebody else is making one of the tables, or what stands where one
                is to go is not to be replaced.
        """
        job, writing = self._job, self._writing
        directory = None if writing.directory is None else place_of(writing.directory)
        if isinstance(directory, Path):  # others have none
            make_directory(directory)
        metadata, budget_bytes = job.metadata(self._command), job.budget_bytes(self._placement.sharing)
        with ExitStack() as stack:
            for table in job.tables:
                ledger = Ledger(table, job, writing, metadata, budget_bytes=budget_bytes)
                self._ledgers[table] = stack.enter_context(ledger)
            self._tell()
            gone = GoneUnits(job, self._ledgers, self._listener, watched=self._patience is not None)
            self._check_bulky(gone.among(job.units), whole=whole)
            self._keep_gone(gone)
            job.begin()
            self._do(self._assignments())
            self.filled.waiting = len(self._held)
            units = [unit for unit in job.units if unit.index not in self._held]
            if units:
                job.end()
                self._join(gone.among(units), take, whole=whole)
        return self.filled

    def _tell(self) -> None:
        """What people should know of the rows that are there."""
        for message in dict.fromkeys(message for ledger in self._ledgers.values() for message in ledger.messages):
            self._listener.notice(message)
        for ledger in self._ledgers.values():
            ledger.messages.clear()

    def _check_bulky(self, units: Sequence[Unit], *, whole: bool) -> None:
        """Have all columns of kept rows looked at if they are going to be read: of large models they are gigabytes."""
        ledgers = list(self._ledgers.values())
        if whole or self._writing.verify or not all(ledger.stays(units) for ledger in ledgers):
            for ledger in ledgers:
                ledger.check_bulky()
            self._tell()

    def _keep_gone(self, gone: GoneUnits) -> None:
        """Take note of units that are gone and whose rows are kept."""
        gone.drop_lost()
        self.filled.dropped, self.filled.gone = gone.dropped, len(gone.kept)
        for unit in gone.kept:
            self._tell_again(unit)
            self._count_kept(unit, self._ledgers)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other commands away from the tables while this one waits for something new."""
        with ExitStack() as stack:
            for ledger in self._ledgers.values():
                stack.enter_context(ledger.held())
            yield

    def _assignments(self) -> list[Assignment]:
        """What is to be done; what is kept is taken note of."""
        tables, assignments = self._job.tables, []
        for unit in self._job.units:
            missing = {table for table in tables if not self._ledgers[table].keeps(unit)}
            if missing and self._is_bad(unit):
                self._keep(unit)
                self._tell_again(unit)
            elif missing:
                # Whoever verifies trusts no rows, those of the other tables neither.
                again = tables if self._writing.verify else self._job.remade(missing)
                assignments.append(Assignment(unit.index, again))
            elif self._writing.verify:
                contents = {ledger.content(unit) for ledger in self._ledgers.values()}  # made at several times, maybe
                content = contents.pop() if len(contents) == 1 else None
                assignments.append(Assignment(unit.index, tables, content or ""))
            else:
                self._keep(unit)
        return assignments

    def _do(self, assignments: Sequence[Assignment]) -> None:
        placement, job = self._placement, self._job
        chunks = job.chunks(assignments, placement.workers)
        self._listener.expect(job.passes(chunks, placement.workers))
        known = self._ledgers[job.reusable].known() if job.reusable is not None and chunks else ()
        with closing(
            placement.executor.outcomes(job.work(placement.sharing, known), chunks, self._listener)
        ) as outcomes:
            for outcome in outcomes:
                unit = job.units[outcome.index]
                if outcome.same:
                    self._keep(unit)
                elif self._waits_for(unit, outcome):
                    self._held.add(unit.index)
                else:
                    self._name_lost(unit, outcome)
                    outcome.remarks = list(dict.fromkeys([*self._kept_remarks(unit, outcome), *outcome.remarks]))
                    job.take(outcome)
                    if self._patience is not None and outcome.error is not None:
                        self._patience.gave_up(unit.key, str(outcome.error))
                    self.filled.to_repeat += not self._put(unit, outcome)
                    self.filled.finished += 1
                    self.filled.unusable += outcome.error is not None
                del outcome

    def _name_lost(self, unit: Unit, outcome: Outcome) -> None:
        """Say of a unit that took all of its workers down which one it is: they could not."""
        if isinstance(outcome.error, WorkerDiedError):
            outcome.error.at(unit.label)
            outcome.tables = {
                table: [{**self._job.identity(unit, table), **row} for row in rows]
                for table, rows in outcome.tables.items()
            }

    def _tell_again(self, unit: Unit) -> None:
        """Say what is wrong with a checkpoint that could not be used at a look before this one, and has its rows."""
        if self._patience is not None and (error := self._patience.error(unit.key)) is not None:
            self._listener.problem(error)

    def _is_bad(self, unit: Unit) -> bool:
        """Whether a look before this one has found that a checkpoint cannot be used, and its rows say so."""
        if self._patience is None or not all(ledger.holds(unit) for ledger in self._ledgers.values()):
            return False
        return self._patience.is_bad(unit.key, self._state(unit))

    def _waits_for(self, unit: Unit, outcome: Outcome) -> bool:
        """Whether a checkpoint that could not be used is left out for now."""
        if self._patience is None:
            return False
        if all(settled(outcome, table) for table in outcome.tables):
            self._patience.done(unit.key)
            return False
        holds = self._patience.holds(unit.key, self._state(unit) or str(outcome.error))
        return holds and outcome.error is not None  # else it is another one that could not be used

    def _state(self, unit: Unit) -> str:
        """State of all files that the rows of a unit depend on; "" where it cannot be told."""
        fingerprints = [self._job.fingerprint(unit, table) for table in self._job.tables]
        return " ".join(fingerprints) if all(fingerprints) else ""

    def _keep(self, unit: Unit) -> None:
        ledgers = self._ledgers
        told = any(ledger.remarkable(unit) for ledger in ledgers.values())
        rows = {table: ledger.light_rows(unit) if told else [] for table, ledger in ledgers.items()}
        self._job.take_kept(unit, rows, self._facts(unit), self._kept_remarks(unit))
        self.filled.kept += 1
        self._count_kept(unit, ledgers)
        self.filled.finished += 1

    def _kept_remarks(self, unit: Unit, outcome: Outcome | None = None) -> list[Remark]:
        """Remarks on the rows of a unit that are kept: of all tables, or of those that are not made anew."""
        made = () if outcome is None else outcome.tables
        kept = [ledger for table, ledger in self._ledgers.items() if table not in made]
        return list(dict.fromkeys(remark for ledger in kept for remark in ledger.remarks(unit)))

    def _put(self, unit: Unit, outcome: Outcome) -> bool:
        """Keep what has come of a unit.

        Returns:
            Whether all of it serves the next time as well.
        """
        serves = True
        for table, ledger in self._ledgers.items():
            if table in outcome.tables and (not ledger.keeps(unit) or self._writing.verify):
                serves = ledger.put(unit, outcome) and serves
            else:
                self._count_kept(unit, [table])
        return serves

    def _count_kept(self, unit: Unit, tables: Iterable[str]) -> None:
        """A unit's rows of some tables stay; it may have none, as there may be nothing to compare it with."""
        self.filled.kept_of.update(table for table in tables if self._ledgers[table].has_rows(unit))

    def _facts(self, unit: Unit) -> Mapping[str, Any]:
        """The facts about a unit, which all of its tables have."""
        return {key: fact for ledger in self._ledgers.values() for key, fact in ledger.facts(unit).items()}

    def _join(self, units: Sequence[Unit], take: Take, *, whole: bool) -> None:
        """Write the tables from what is kept and what is new, and show every unit."""
        found = self.filled.found = self._job.found()
        told = {f"spectra.{key}": json.dumps(value) for key, value in found.items()}
        outputs: dict[str, TableOutput] = {}
        try:
            for table, ledger in self._ledgers.items():
                outputs[table] = ledger.output(units, told, whole=whole)
            for unit in units:
                rows = {table: ledger.join(unit, outputs[table]) for table, ledger in self._ledgers.items()}
                self.filled.usable = self.filled.usable and self._harmless(rows)
                take(unit, rows, self._facts(unit))
            for output in outputs.values():
                output.finish()
            with signals_deferred():  # all of them are whole on the disk by now, and are to be those of one look
                for output in outputs.values():
                    output.publish()
                self.filled.published = True
        except BaseException:
            for output in outputs.values():
                output.discard()
            raise
        if whole:
            self.filled.tables = {table: output.whole() for table, output in outputs.items()}
        for ledger in self._ledgers.values():
            ledger.settle()

    def _harmless(self, rows: Mapping[str, Sequence[Row]]) -> bool:
        return all(row["status"] in self._job.harmless[table] for table, of_table in rows.items() for row in of_table)
