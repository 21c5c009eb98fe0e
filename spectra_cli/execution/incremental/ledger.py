"""What is known of one table: the rows of earlier runs of a command and of this one, unit by unit."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from spectra_cli.analyses.visits import Row
from spectra_cli.errors import InputError, SpectraError
from spectra_cli.execution.incremental.doubts import ROWS, believed_of, doubtful_in, still_believed
from spectra_cli.execution.incremental.settingschanges import changes_told
from spectra_cli.execution.incremental.tableoutput import TableOutput
from spectra_cli.execution.incremental.writing import Writing
from spectra_cli.execution.work.jobs import TableJob
from spectra_cli.execution.work.units import Key, Outcome, Unit
from spectra_cli.shortening import counted, shortened
from spectra_cli.tables.entries import Entry, stored_key, units_metadata
from spectra_cli.tables.journal import Journal, OtherWorkError, TableInUseError
from spectra_cli.tables.kept import KeptTable
from spectra_cli.tables.matrices import KnownMatrices
from spectra_cli.tables.places import LocalPlace, Place, place_of
from spectra_cli.tables.rows import rows_of
from spectra_cli.tables.rowsums import parted, row_sums
from spectra_cli.tables.schemas import SCHEMA_VERSION, arrow_schema
from spectra_cli.tables.statuses import OF_REFERENCE
from spectra_cli.tables.unwritten import Unwritten
from spectra_cli.tables.writer import check_replaceable, table_of

TRANSIENT = frozenset(
    {"unreadable", "corrupt", "incomplete", "over_memory_budget", "no_convergence", "nothing_selected"}
)
"""Statuses of rows that may come out better the next time, though no file has changed."""

SHOWN_COMMAND = 20
"""Characters of the name of another command, which comes from a file."""


class Ledger:
    """The rows of one table, from the file of an earlier run, from what an interrupted one left, and new.

    As a context, it holds the table against other processes; what is finished is kept when the context is left early.

    Args:
        table: a key of ``tables.schemas.TABLES``.
        job: the work.
        writing: where the table goes, and what is done with one that is there.
        metadata: for the file.

    Attributes:
        messages: what people should know of the rows that were there.
    """

    def __init__(self, table: str, job: TableJob, writing: Writing, metadata: Mapping[str, str]) -> None:
        self.messages: list[str] = []
        self._table = table
        self._job = job
        self._writing = writing
        arrow_schema(table, writing.tags, writing.leave_out)  # a tag that cannot be is told before any work
        self._schema = arrow_schema(table, (), writing.leave_out)
        self._light, _ = parted(self._schema)
        self._match: dict[str, Any] = {
            "schema": f"{table}/{SCHEMA_VERSION}",
            "columns": self._schema.names,
            "command": job.command,
            "settings": json.loads(_json(dict(job.settings(table)))),  # as it will be read again
        }
        of_units = [[unit.place, list(unit.tags.items())] for unit in job.units if unit.tags]
        self._tags = _json([list(writing.tags.items()), of_units])  # in the order of the columns
        self._metadata = {**metadata, "spectra.match": _json(self._match), "spectra.tags": self._tags}
        out = writing.outs[table]
        self._place: Place | None = None if out is None else place_of(out)
        self._journal: Journal | Unwritten = Unwritten()
        self._passing = Unwritten()  # rows that are to be made again the next time, so that no file need keep them
        self._kept: KeptTable | None = None
        self._odd: Collection[Key] = ()
        self._believed: set[Key] = set()
        self._fingerprints: dict[Key, str] = {}

    def __enter__(self) -> Self:
        if self._place is None:
            return self
        fresh = self._writing.fresh
        check_replaceable(self._place, self._table, fresh=fresh, remedy="--fresh to start over")
        header = {"match": self._match, "command": self._metadata["spectra.command"]}
        self._journal = self._opened(self._place, header)
        try:
            self._place.remove_leftovers()
            if not fresh:
                self._tell_altered(forgotten := doubtful_in(self._journal, self._table, self._schema))
                for key in forgotten:
                    self._journal.forget(key)
                self._take_over(self._place)
        except BaseException:
            self._journal.close()
            raise
        return self

    def _opened(self, place: Place, header: Mapping[str, Any]) -> Journal:
        """The journal of the table.

        Raises:
            TableInUseError: if another process makes the table.
            InputError: if it cannot be written there, or another work was interrupted there.
        """
        try:
            return Journal.open(place.journal_path, self._table, header, fresh=self._writing.fresh)
        except TableInUseError as error:
            error.where = str(place)
            raise
        except OtherWorkError as error:
            before = error.found_header.get("match")
            why = changes_told(before if isinstance(before, dict) else {}, self._match)
            noun = counted(error.finished, self._job.noun)
            raise InputError(
                f"an interrupted run with other settings has finished {noun} of this table, which would be lost: {why}",
                where=str(place),
                remedy="Give the settings that it had to go on, or --fresh to start over",
            ) from error
        except InputError as error:
            if isinstance(error.__cause__, OSError) and isinstance(place, LocalPlace):  # people know the table alone
                what = f"the table cannot be written: {error.__cause__.strerror}"
                raise InputError(what, where=str(place), remedy=error.remedy) from error
            raise

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other commands away from the table while this one waits; not if another was faster."""
        if self._place is None:
            yield
            return
        header = {"match": self._match, "command": self._metadata["spectra.command"]}
        try:
            journal = self._opened(self._place, header)
        except SpectraError:
            yield  # the next look will say so
            return
        with journal:
            yield

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._kept is not None:
            self._kept.close()
        self._journal.close()

    def _take_over(self, place: Place) -> None:
        """Look at the table that is there, if there is one.

        Raises:
            InputError: if it is that of another command.
        """
        if not self._journal.locked:
            self.messages.append(f"{place}: the file system has no locks; let no other command write this table now.")
        if not place.exists():
            return
        try:
            kept = KeptTable.open(place, self._table, self._job.key_columns[self._table])
        except InputError as error:
            self._do_without(error)
            return
        told = kept.match
        command = None if told is None else told.get("command")
        if told is None or not isinstance(command, str):
            self.messages.append(f"{place}: all of it is made anew, as an earlier spectra made what is there.")
        elif command != self._match["command"]:
            kept.close()
            raise InputError(
                f"this table was made by spectra {shortened(command, SHOWN_COMMAND)}; spectra {self._match['command']} "
                "does not replace it",
                where=str(place),
                remedy="Give --out another name, or --fresh to start over",
            )
        elif told == self._match:
            self._kept = kept
            self._doubt(lambda: believed_of(kept, self._table, self._schema), kept.entries.keys())
            if self._kept is not None:
                self._odd = kept.keys_where_not("status", "ok")
            return
        else:
            why = changes_told(told, self._match)
            self.messages.append(f"{place}: all of it is made anew, as {why}.")
        kept.close()

    def doubt_bulky(self) -> None:
        """Look for changes in columns that no summary looks at, before kept rows are copied."""
        if (kept := self._kept) is not None:
            self._doubt(lambda: still_believed(kept, self._believed, self._schema), self._believed)

    def _doubt(self, look: Callable[[], set[Key]], before: Set[Key]) -> None:
        """Do without rows of the table that turn out not to be those that were written."""
        try:
            self._believed = look()
        except InputError as error:
            self._believed = set()
            self._do_without(error)
        else:
            self._tell_altered(before - self._believed)

    def _do_without(self, error: InputError) -> None:
        self.messages.append(f"{self._place}: all of it is made anew: what is there cannot be used ({error.what}).")
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _tell_altered(self, keys: Collection[Key]) -> None:
        if count := sum(stored_key(unit.key) in keys for unit in self._job.units):
            units = f"{counted(count, self._job.noun)} {'is' if count == 1 else 'are'}"
            self.messages.append(f"{self._place}: {units} made anew, as the rows there are not as spectra wrote them.")

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
        )

    def holds(self, unit: Unit) -> bool:
        """Whether there are rows of a unit, whatever they are made of."""
        return self._entry(unit) is not None

    def gone(self) -> list[Key]:
        """Keys of the units whose rows are there, in order, and that are none of this work's."""
        if self._kept is None:
            return []
        own = {stored_key(unit.key) for unit in self._job.units}
        return [key for key in self._kept.keys_in_order if key not in own]

    @property
    def keys_there(self) -> list[Key]:
        """Keys of the units whose rows are in the table that is there, in order."""
        return [] if self._kept is None else list(self._kept.keys_in_order)

    def content(self, unit: Unit) -> str | None:
        """What the weights of a unit hashed to when its rows were made."""
        entry = self._entry(unit)
        return None if entry is None else entry.content

    def facts(self, unit: Unit) -> Mapping[str, Any]:
        """About a unit, beside its rows."""
        entry = self._entry(unit)
        return {} if entry is None else entry.facts

    def remarkable(self, unit: Unit) -> bool:
        """Whether the rows that are there of a unit say that something could not be used."""
        return stored_key(unit.key) in self._odd or not isinstance(self._source(unit), KeptTable)

    def light_rows(self, unit: Unit) -> list[Row]:
        """The rows of a unit without bulky columns."""
        return rows_of(self._rows(unit, self._light))

    def put(self, unit: Unit, outcome: Outcome) -> None:
        """Keep new rows of a unit; they are on the disk when this returns.

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
        facts = {**outcome.facts, ROWS: row_sums(table)}
        keeping = self._journal if fingerprint else self._passing
        keeping.put(unit.key, table, fingerprint=fingerprint, content=outcome.content, facts=facts)

    def known(self) -> Sequence[KnownMatrices]:
        """The matrices of which rows are there, for the table ``rank``."""
        with self._damage_told():
            if self._kept is not None:
                self._kept.believe(self._believed)
            return [source.known_matrices() for source in (self._journal, self._kept) if source is not None]

    def _completed(self, row: Row) -> Row:
        """A row with the numbers of a known matrix, where it stands for one."""
        if not row.get("known"):
            return row
        key = (row["digest"], row["kind"], row["rows"], row["cols"])
        for source in (self._journal, self._kept):
            if source is not None and key in source.known_matrices():
                with self._damage_told():
                    return {**row, **source.matrix_row(*key)}
        raise KeyError(key)

    def _entry(self, unit: Unit) -> Entry | None:
        source = self._source(unit)
        return None if source is None else source.entry(unit.key)

    def _source(self, unit: Unit) -> Unwritten | Journal | KeptTable | None:
        """What holds the present rows of a unit."""
        for source in (self._passing, self._journal):
            if source.entry(unit.key) is not None:
                return source
        return self._kept if stored_key(unit.key) in self._believed else None

    def _rows(self, unit: Unit, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a unit, without those of tags."""
        names = self._schema.names if columns is None else list(columns)
        source = self._source(unit)
        if not isinstance(source, KeptTable):
            assert source is not None  # noqa: S101 - it is only asked for units that are there
            return source.rows(unit.key).select(names)
        if stored_key(unit.key) not in source.keys:
            return self._schema.empty_table().select(names)  # there may be nothing to compare a checkpoint with
        with self._damage_told():
            return source.rows(unit.key, names).select(names)

    @contextmanager
    def _damage_told(self) -> Iterator[None]:
        """A context in which kept rows are read, which may turn out to be damaged when it is too late to do without.

        Raises:
            InputError: which says what to do about it.
        """
        try:
            yield
        except InputError as error:
            error.remedy = "Move this file away, and run the same command again; what has been finished is kept"
            raise

    def _unchanged(self, units: Sequence[Unit]) -> bool:
        """Whether the table that is there is what would be written."""
        kept = self._kept
        told = ("tags", "settings")  # what was chosen is on record even where no row depends on it
        if kept is None or any(kept.metadata.get(name) != self._metadata[f"spectra.{name}"] for name in told):
            return False
        if not all(isinstance(self._source(unit), KeptTable) for unit in units):
            return False
        with_rows = [key for unit in units if (key := stored_key(unit.key)) in kept.keys]
        return list(kept.keys_in_order) == with_rows

    def output(self, units: Sequence[Unit], told: Mapping[str, str], *, whole: bool) -> TableOutput:
        """What the rows of all units are to be put into: a file, unless the one that is there is complete.

        Args:
            units: all of them, in order.
            told: more for the metadata of the file.
            whole: whether the table is asked for in memory as well.

        Raises:
            InputError: if the file cannot be written.
        """
        place = None if self._unchanged(units) else self._place
        entries = {unit.key: entry for unit in units if (entry := self._entry(unit)) is not None}
        more = {} if place is None else {**told, "spectra.units": units_metadata(entries)}
        output = TableOutput(self._table, units, self._writing, place=place, metadata=self._metadata, whole=whole)
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


def settled(outcome: Outcome, table: str) -> bool:
    """Whether the rows of a table that came of a unit would be the same another time, as long as its files are."""
    statuses = {str(row["status"]).removeprefix(OF_REFERENCE) for row in outcome.tables[table]}
    return outcome.error is None and not statuses & TRANSIENT


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
