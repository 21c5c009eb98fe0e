"""The table that an earlier run has left: what of it is kept, and what is said of what is not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from spectra_cli.errors import InputError
from spectra_cli.execution.incremental.integrity import intact_in_full, intact_units
from spectra_cli.execution.incremental.settingschanges import changes_told
from spectra_cli.shortening import shortened
from spectra_cli.tables.entries import Entry, Key, stored_key
from spectra_cli.tables.kept import KeptTable
from spectra_cli.tables.locations import TableLocation
from spectra_cli.tables.matrices import MatrixIndex

SHOWN_COMMAND = 20
"""Characters of the name of another command, which comes from a file."""


class EarlierTable:
    """Rows by unit of the table that is there. A new one holds none; see :meth:`take_over`.

    Args:
        table: a key of ``tables.schemas.TABLES``.
        schema: of its rows, without tags.
        match: what must be the same for rows to be kept.
        tell_anew: told which units are made anew, as their rows are not as they were written.
        tell: told what people should know.
    """

    def __init__(
        self,
        table: str,
        schema: pa.Schema,
        match: Mapping[str, Any],
        *,
        tell_anew: Callable[[Collection[Key]], None],
        tell: Callable[[str], None],
    ) -> None:
        self._table = table
        self._schema = schema
        self._match = match
        self._tell_anew = tell_anew
        self._tell = tell
        self._kept: KeptTable | None = None
        self._location: TableLocation | None = None
        self._odd: Collection[Key] = ()
        self._intact: set[Key] = set()

    def take_over(self, location: TableLocation, key_columns: Sequence[str]) -> None:
        """Look at the table that is in a location, and keep of it what may be kept.

        Args:
            location: where it is.
            key_columns: that name a unit.

        Raises:
            InputError: if it is that of another command.
        """
        self._location = location
        try:
            kept = KeptTable.open(location, self._table, key_columns)
        except InputError as error:
            self._do_without(error)
            return
        told = kept.match
        command = None if told is None else told.get("command")
        if told is None or not isinstance(command, str):
            self._tell(
                f"{location}: all of it is made anew: it has no record of its settings, as an older spectra wrote it."
            )
        elif command != self._match["command"]:
            kept.close()
            raise InputError(
                f"this table was made by spectra {shortened(command, SHOWN_COMMAND)}; spectra {self._match['command']} "
                "does not replace it",
                where=str(location),
                remedy="Give --out another name, or --fresh to start over",
            )
        elif told == self._match:
            self._kept = kept
            self._check(lambda: intact_units(kept, self._table, self._schema), kept.entries.keys())
            if self._kept is not None:
                self._odd = kept.keys_where_not("status", "ok")
            return
        else:
            why = changes_told(told, self._match)
            self._tell(f"{location}: all of it is made anew, as {why}.")
        kept.close()

    def check_bulky(self) -> None:
        """Look for changes in columns that no summary looks at, before kept rows are copied."""
        if (kept := self._kept) is not None:
            self._check(lambda: intact_in_full(kept, self._intact, self._schema), self._intact)

    @property
    def metadata(self) -> Mapping[str, str]:
        """What is on record of its making, without ``spectra.``; nothing where nothing is kept."""
        return {} if self._kept is None else self._kept.metadata

    @property
    def keys(self) -> list[Key]:
        """Keys of the units that have rows in it, in order."""
        return [] if self._kept is None else list(self._kept.keys_in_order)

    def holds(self, key: Key) -> bool:
        """Whether a unit has an intact entry, even one without rows."""
        return stored_key(key) in self._intact

    def has_rows(self, key: Key) -> bool:
        """Whether a unit has rows in it."""
        return self._kept is not None and stored_key(key) in self._kept.keys

    def is_odd(self, key: Key) -> bool:
        """Whether a row of a unit says that something could not be used."""
        return stored_key(key) in self._odd

    def entry(self, key: Key) -> Entry | None:
        """What is on record about a unit; None if it cannot be kept."""
        return self._kept.entry(key) if self._kept is not None and self.holds(key) else None

    def rows(self, key: Key, names: Sequence[str]) -> pa.Table:
        """Some columns of the rows of a unit that is kept; there may be nothing to compare a checkpoint with.

        Raises:
            InputError: if the file is damaged.
        """
        if self._kept is None or not self.has_rows(key):
            return self._schema.empty_table().select(names)
        with self._damage_told():
            return self._kept.rows(key, names).select(names)

    def known_matrices(self) -> list[MatrixIndex]:
        """The matrices of which rows are kept; of the table ``rank``.

        Raises:
            InputError: if the file is damaged.
        """
        if self._kept is None:
            return []
        with self._damage_told():
            self._kept.only_use(self._intact)
            return [self._kept.known_matrices()]

    def matrix_row(self, digest: str, kind: str, rows: int, cols: int) -> Mapping[str, Any]:
        """The numbers of a matrix that is known.

        Raises:
            KeyError: if it is not.
            InputError: if the file is damaged.
        """
        if self._kept is None:
            raise KeyError((digest, kind, rows, cols))
        with self._damage_told():
            return self._kept.matrix_row(digest, kind, rows, cols)

    def close(self) -> None:
        """Let go of the file."""
        if self._kept is not None:
            self._kept.close()

    def _check(self, look: Callable[[], set[Key]], before: Set[Key]) -> None:
        """Do without rows that turn out not to be those that were written."""
        try:
            self._intact = look()
        except InputError as error:
            self._intact = set()
            self._do_without(error)
        else:
            self._tell_anew(before - self._intact)

    def _do_without(self, error: InputError) -> None:
        self._tell(f"{self._location}: all of it is made anew: what is there cannot be used ({error.what}).")
        if self._kept is not None:
            self._kept.close()
            self._kept = None

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
