"""What is known of one table: the rows of earlier runs of a command and of this one, unit by unit."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, Self

import pyarrow as pa

from spectra_cli.analyses.visits import Row
from spectra_cli.canonicaljson import canonical_json
from spectra_cli.errors import SpectraError
from spectra_cli.execution.incremental.earliertable import EarlierTable
from spectra_cli.execution.incremental.integrity import ROWS, altered_units
from spectra_cli.execution.incremental.journalopening import open_journal
from spectra_cli.execution.incremental.keptremarks import REMARKS, recorded_remarks, remarks_in
from spectra_cli.execution.incremental.reuse import BUDGET, recorded_budget, settled, under_budget
from spectra_cli.execution.incremental.tableoutput import TableOutput
from spectra_cli.execution.incremental.writing import Writing
from spectra_cli.execution.work.events import Remark
from spectra_cli.execution.work.jobs import TableJob
from spectra_cli.execution.work.units import Outcome, Unit
from spectra_cli.shortening import counted
from spectra_cli.tables.entries import Entry, Key, stored_key, units_metadata
from spectra_cli.tables.journal import Journal
from spectra_cli.tables.locations import TableLocation, location_of
from spectra_cli.tables.matrices import MatrixIndex
from spectra_cli.tables.memoryjournal import MemoryJournal
from spectra_cli.tables.replaceable import check_replaceable
from spectra_cli.tables.rows import rows_of, table_of
from spectra_cli.tables.rowsums import parted, row_sums
from spectra_cli.tables.schemas import SCHEMA_VERSION, arrow_schema

OF_LEDGERS = {ROWS, REMARKS, BUDGET}
"""Facts that no job has found."""


class RowSource(Protocol):
    """Holds rows of units: an earlier table, a journal, or memory."""

    def entry(self, key: Key) -> Entry | None:
        """What is on record about a unit; None if its rows are not held."""
        ...

    def has_rows(self, key: Key) -> bool:
        """Whether there are rows of a unit."""
        ...

    def rows(self, key: Key, names: Sequence[str]) -> pa.Table:
        """Some columns of the rows of a unit."""
        ...


class Ledger:
    """The rows of one table, from the file of an earlier run, from what an interrupted one left, and new.

    As a context, it holds the table against other processes; what is finished is kept when the context is left early.

    Args:
        table: a key of ``tables.schemas.TABLES``.
        job: the work.
        writing: where the table goes, and what is done with one that is there.
        metadata: for the file.
        budget_bytes: memory budget of each worker; None if the user has not set one.

    Attributes:
        messages: what people should know of the rows that were there.
    """

    def __init__(
        self,
        table: str,
        job: TableJob,
        writing: Writing,
        metadata: Mapping[str, str],
        *,
        budget_bytes: int | None = None,
    ) -> None:
        self.messages: list[str] = []
        self._table = table
        self._job = job
        self._budget_bytes = budget_bytes
        self._writing = writing
        arrow_schema(table, writing.tags, writing.leave_out)  # a tag that cannot be is told before any work
        self._schema = arrow_schema(table, (), writing.leave_out)
        self._light, _ = parted(self._schema)
        self._match: dict[str, Any] = {
            "schema": f"{table}/{SCHEMA_VERSION}",
            "columns": self._schema.names,
            "command": job.command,
            "settings": json.loads(canonical_json(dict(job.settings(table)))),  # as it will be read again
        }
        of_units = [[unit.index, list(unit.tags.items())] for unit in job.units if unit.tags]
        self._tags = canonical_json([list(writing.tags.items()), of_units])  # in the order of the columns
        self._metadata = {**metadata, "spectra.match": canonical_json(self._match), "spectra.tags": self._tags}
        out = writing.outs[table]
        self._location: TableLocation | None = None if out is None else location_of(out)
        self._journal: Journal | MemoryJournal = MemoryJournal()
        self._passing = MemoryJournal()  # rows that are to be made again the next time, so that no file need keep them
        self._earlier = EarlierTable(
            table, self._schema, self._match, tell_anew=self._tell_altered, tell=self.messages.append
        )
        self._fingerprints: dict[Key, str] = {}

    def __enter__(self) -> Self:
        if self._location is None:
            return self
        fresh = self._writing.fresh
        check_replaceable(self._location, self._table, fresh=fresh, remedy="--fresh to start over")
        self._journal = self._opened(self._location)
        try:
            self._location.remove_leftovers()
            if not fresh:
                self._tell_altered(forgotten := altered_units(self._journal, self._table, self._schema))
                for key in forgotten:
                    self._journal.forget(key)
                self._take_over(self._location)
        except BaseException:
            self._journal.close()
            raise
        return self

    def _opened(self, location: TableLocation) -> Journal:
        """The journal of the table; see :func:`open_journal`."""
        command, fresh = self._metadata["spectra.command"], self._writing.fresh
        return open_journal(location, self._table, self._match, command, noun=self._job.noun, fresh=fresh)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other commands away from the table while this one waits; not if another was faster."""
        if self._location is None:
            yield
            return
        try:
            journal = self._opened(self._location)
        except SpectraError:
            yield  # the next look will say so
            return
        with journal:
            yield

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._earlier.close()
        self._journal.close()

    def _take_over(self, location: TableLocation) -> None:
        """Look at the table that is there, if there is one.

        Raises:
            InputError: if it is that of another command.
        """
        if not self._journal.locked:
            self.messages.append(
                f"{location}: the file system has no locks; let no other command write this table now."
            )
        if location.exists():
            self._earlier.take_over(location, self._job.key_columns[self._table])

    def check_bulky(self) -> None:
        """Look for changes in columns that no summary looks at, before kept rows are copied."""
        self._earlier.check_bulky()

    def _tell_altered(self, keys: Collection[Key]) -> None:
        if count := sum(stored_key(unit.key) in keys for unit in self._job.units):
            units = f"{counted(count, self._job.noun)} {'is' if count == 1 else 'are'}"
            self.messages.append(
                f"{self._location}: {units} made anew, as the rows there are not as spectra wrote them."
            )

    def stays(self, units: Sequence[Unit]) -> bool:
        """Whether the table that is there is what would be written of some units, so that nothing of it is copied."""
        return self._unchanged(units) and all(map(self.keeps, self._job.units))

    def keeps(self, unit: Unit) -> bool:
        """Whether the rows of a unit are there, made of the files as they are now."""
        if unit.key not in self._fingerprints:
            self._fingerprints[unit.key] = self._job.fingerprint(unit, self._table)
        entry = self._entry(unit)
        return (
            entry is not None
            and entry.fingerprint not in {"", None}
            and entry.fingerprint == self._fingerprints[unit.key]
            and under_budget(self._budget_bytes, entry.facts)
        )

    def holds(self, unit: Unit) -> bool:
        """Whether there are rows of a unit, whatever they are made of."""
        return self._entry(unit) is not None

    def gone(self) -> list[Key]:
        """Keys of the units whose rows are there, in order, and that are none of this work's."""
        own = {stored_key(unit.key) for unit in self._job.units}
        return [key for key in self._earlier.keys if key not in own]

    @property
    def keys_there(self) -> list[Key]:
        """Keys of the units whose rows are in the table that is there, in order."""
        return self._earlier.keys

    def content(self, unit: Unit) -> str | None:
        """What the weights of a unit hashed to when its rows were made."""
        entry = self._entry(unit)
        return None if entry is None else entry.content

    def facts(self, unit: Unit) -> Mapping[str, Any]:
        """Facts about a unit, beside its rows."""
        entry = self._entry(unit)
        return {} if entry is None else {key: fact for key, fact in entry.facts.items() if key not in OF_LEDGERS}

    def remarks(self, unit: Unit) -> list[Remark]:
        """What people should know of a unit that its rows do not say."""
        entry = self._entry(unit)
        return [] if entry is None else remarks_in(entry.facts)

    def remarkable(self, unit: Unit) -> bool:
        """Whether the rows that are there of a unit say that something could not be used."""
        return self._earlier.is_odd(unit.key) or self._source(unit) is not self._earlier

    def light_rows(self, unit: Unit) -> list[Row]:
        """The rows of a unit without bulky columns."""
        return rows_of(self._rows(unit, self._light))

    def has_rows(self, unit: Unit) -> bool:
        """Whether there are rows of a unit, and not only the knowledge that it has none."""
        source = self._source(unit)
        return source is not None and source.has_rows(unit.key)

    def put(self, unit: Unit, outcome: Outcome) -> bool:
        """Keep new rows of a unit.

        Returns:
            Whether they serve the next time as well; they are on the disk by now, where the table has a file.

        Raises:
            InputError: if they cannot be written.
        """
        rows = [self._completed(row) for row in outcome.tables[self._table]]
        fingerprint = self._fingerprints[unit.key]
        if (
            not settled(outcome, self._table) or self._job.fingerprint(unit, self._table) != fingerprint
        ):  # it was written to meanwhile
            fingerprint = ""
        table = table_of(rows, self._schema)
        remarks = recorded_remarks(outcome.kept_remarks.get(self._table, ()))
        facts = {**outcome.facts, **remarks, **recorded_budget(outcome), ROWS: row_sums(table)}
        keeping = self._journal if fingerprint else self._passing
        keeping.put(unit.key, table, fingerprint=fingerprint, content=outcome.content, facts=facts)
        return bool(fingerprint)

    def known(self) -> Sequence[MatrixIndex]:
        """The matrices of which rows are there, of a table whose rows of a matrix can be used again."""
        return [self._journal.known_matrices(), *self._earlier.known_matrices()]

    def _completed(self, row: Row) -> Row:
        """A row with the numbers of a known matrix, where it stands for one."""
        if not row.get("known"):
            return row
        key = (row["digest"], row["kind"], row["rows"], row["cols"])
        if key in self._journal.known_matrices():
            return {**row, **self._journal.matrix_row(*key)}
        return {**row, **self._earlier.matrix_row(*key)}

    def _entry(self, unit: Unit) -> Entry | None:
        source = self._source(unit)
        return None if source is None else source.entry(unit.key)

    def _source(self, unit: Unit) -> RowSource | None:
        """What holds the present rows of a unit."""
        for source in (self._passing, self._journal):
            if source.entry(unit.key) is not None:
                return source
        return self._earlier if self._earlier.holds(unit.key) else None

    def _rows(self, unit: Unit, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a unit, without those of tags."""
        names = self._schema.names if columns is None else list(columns)
        source = self._source(unit)
        assert source is not None  # noqa: S101 - it is only asked for units that are there
        return source.rows(unit.key, names)

    def _unchanged(self, units: Sequence[Unit]) -> bool:
        """Whether the table that is there is what would be written."""
        told = ("tags", "settings")  # what was chosen is on record even where no row depends on it
        if any(self._earlier.metadata.get(name) != self._metadata[f"spectra.{name}"] for name in told):
            return False
        if not all(self._source(unit) is self._earlier for unit in units):
            return False
        with_rows = [stored_key(unit.key) for unit in units if self._earlier.has_rows(unit.key)]
        return self._earlier.keys == with_rows

    def output(self, units: Sequence[Unit], told: Mapping[str, str], *, whole: bool) -> TableOutput:
        """What the rows of all units are to be put into: a file, unless the one that is there is complete.

        Args:
            units: all of them, in order.
            told: more for the metadata of the file.
            whole: whether the table is asked for in memory as well.

        Raises:
            InputError: if the file cannot be written.
        """
        location = None if self._unchanged(units) else self._location
        entries = {unit.key: entry for unit in units if (entry := self._entry(unit)) is not None}
        more = {} if location is None else {**told, "spectra.units": units_metadata(entries)}
        output = TableOutput(self._table, units, self._writing, location=location, metadata=self._metadata, whole=whole)
        output.annotate(more)
        return output

    def join(self, unit: Unit, output: TableOutput) -> list[Row]:
        """Put the rows of the next unit into the table.

        Returns:
            The rows without bulky columns.
        """
        if not output.takes_rows:
            return self.light_rows(unit)
        rows = self._rows(unit)
        output.add(unit, rows)
        return rows_of(rows.select(self._light))

    def settle(self) -> None:
        """Let go of what the table has by now."""
        self._journal.remove()
