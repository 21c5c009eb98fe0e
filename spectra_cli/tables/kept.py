"""A table that is there already, as a source of rows for the one that replaces it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, KeysView, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from spectra_cli.errors import InputError
from spectra_cli.tables.entries import UNITS_KEY, Entry, Key, read_units, stored_key
from spectra_cli.tables.localtable import LocalTable
from spectra_cli.tables.locations import TableLocation
from spectra_cli.tables.matrices import IDENTITY, NUMBERS, MatrixIndex, MatrixRows, Recent
from spectra_cli.tables.reader import TableFile, damage_told, open_table
from spectra_cli.tables.rowsums import sums_of
from spectra_cli.tables.schemas import arrow_schema

RECENT_GROUPS = 2
"""Row groups that are held unpacked: a unit may begin in one and end in the next."""

MATCH_KEY = "match"
"""Key in the metadata, after ``spectra.``, of what must be the same for rows to be kept."""


class KeptTable:
    """A table whose rows are found by unit.

    It stays what it was when it was opened, also when another file replaces it. Only the columns that name units
    are read then. Use :meth:`open`.

    Attributes:
        metadata: what spectra recorded about the making: keys without ``spectra.``.
        settings: of the command that made the table.
        match: what must be the same for rows to be kept; None where it is not on record.
    """

    def __init__(self, table: TableFile, file: pq.ParquetFile, key_columns: Sequence[str]) -> None:
        self._table = table
        self._file = file
        self._stack = ExitStack()
        self.metadata = table.metadata
        self.settings = table.settings
        self.match = table.recorded(MATCH_KEY)
        self._schema = arrow_schema(table.table, table.tags)
        groups = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
        self._starts = np.cumsum([0, *groups])
        self._recent = Recent(self._group, RECENT_GROUPS)
        self._matrices = MatrixRows(self._identities, lambda group: self._group(group, NUMBERS))
        self._usable: Collection[Key] | None = None
        self._slices: dict[Key, tuple[int, int]] = {}
        self._scattered: set[Key] = set()
        for key, start, end in self._stretches(key_columns):
            if key in self._slices or key in self._scattered:
                self._slices.pop(key, None)
                self._scattered.add(key)
            else:
                self._slices[key] = (start, end)

    @classmethod
    def open(cls, location: TableLocation | Path, table: str, key_columns: Sequence[str]) -> KeptTable:
        """Open the table that is in a location.

        Args:
            location: where it is.
            table: a key of :data:`spectra_cli.tables.schemas.TABLES`.
            key_columns: that name a unit.

        Raises:
            InputError: if there is no such table, it is damaged, or claims more than its bytes justify.
        """
        location = LocalTable(location) if isinstance(location, Path) else location
        with ExitStack() as stack:
            path = stack.enter_context(location.read_local())
            if path is None:
                raise InputError("there is no such file", where=str(location))
            found = open_table(path)
            if found.table != table:
                raise InputError(f"is a table {found.table}, not {table}", where=str(location))
            file = stack.enter_context(found.open(found.columns))
            with damage_told(path):
                kept = cls(found, file, key_columns)
            kept._stack = stack.pop_all()
            return kept

    @property
    def keys(self) -> KeysView[Key]:
        """Keys of the units whose rows stand in one piece."""
        return self._slices.keys()

    @property
    def keys_in_order(self) -> list[Key]:
        """The same, in the order of their rows."""
        return list(self._slices)

    @cached_property
    def entries(self) -> Mapping[Key, Entry]:
        """What is on record about units, but for those whose rows do not stand in one piece; some may have no rows."""
        recorded = read_units(self.metadata.get(UNITS_KEY))
        return {key: entry for key, entry in recorded.items() if key not in self._scattered}

    def entry(self, key: Iterable[str | None]) -> Entry | None:
        """What is on record about a unit; None if it cannot be kept."""
        return self.entries.get(stored_key(key))

    def count(self, key: Iterable[str | None]) -> int:
        """How many rows of a unit there are, if they stand in one piece; else 0."""
        start, end = self._slices.get(stored_key(key), (0, 0))
        return end - start

    def rows(self, key: Iterable[str | None], columns: Collection[str] | None = None) -> pa.Table:
        """The rows of a unit, with the types of the schema. Going through the units in order reads everything once.

        Args:
            key: of the unit.
            columns: to read; all if None.

        Raises:
            KeyError: if the table has no rows of it, or not in one piece.
            InputError: if the file is damaged.
        """
        start, end = self._slices[stored_key(key)]
        names = tuple(name for name in self._table.columns if columns is None or name in columns)
        first, last = (int(group) for group in np.searchsorted(self._starts, [start, end - 1], "right") - 1)
        pieces = []
        for group in range(first, last + 1):
            before = int(self._starts[group])
            rows = self._recent(group, names)
            pieces.append(rows.slice(max(start - before, 0), end - max(start, before)))
        with damage_told(self._table.path):
            return pa.concat_tables(pieces).cast(pa.schema([self._schema.field(name) for name in names]))

    def keys_where_not(self, column: str, *values: str) -> set[Key]:
        """The units with a row of which a column of text is none of some values, or null.

        Raises:
            InputError: if the file is damaged.
        """
        indices = [
            np.flatnonzero(~np.asarray(pc.is_in(rows.column(column).cast(pa.string()), pa.array(values))))
            + self._starts[group]
            for group, rows in self._groups((column,))
        ]
        found = np.concatenate(indices) if indices else np.zeros(0, np.int64)
        ends = np.array([end for _, end in self._slices.values()], np.int64)
        starts = np.array([start for start, _ in self._slices.values()], np.int64)
        counts = np.searchsorted(found, ends) - np.searchsorted(found, starts)
        return {key for key, count in zip(self._slices, counts, strict=True) if count}

    def altered(self, columns: Sequence[str], sums: Mapping[Key, str]) -> set[Key]:
        """The units whose rows are not those of which a checksum was made. Everything is read once.

        Args:
            columns: of which the checksums were made, in their order.
            sums: :func:`spectra_cli.tables.rowsums.sums_of` the rows of each unit.

        Raises:
            InputError: if the file is damaged.
        """
        names = [name for name in columns if name in self._table.columns]
        units = [(key, *stretch) for key, stretch in self._slices.items() if key in sums]
        found: dict[Key, str] = {}
        begun: list[pa.Table] = []  # pieces of a unit that goes on in the next row group
        following = 0
        for group, rows in self._groups(names) if names else ():
            before, behind = int(self._starts[group]), int(self._starts[group + 1])
            whole: list[tuple[Key, int, int]] = []
            while following < len(units) and units[following][1] < behind:
                key, start, end = units[following]
                if start >= before and end <= behind:
                    whole.append((key, start - before, end - before))
                else:
                    begun.append(rows.slice(max(start - before, 0), min(end, behind) - max(start, before)))
                    if end > behind:
                        break
                    unit, begun = pa.concat_tables(begun), []
                    found[key] = sums_of(unit, [(0, unit.num_rows)])[0]
                following += 1
            found.update(zip((key for key, *_ in whole), sums_of(rows, (each[1:] for each in whole)), strict=True))
        return {key for key, told in found.items() if told != sums[key]}

    def only_use(self, keys: Collection[Key]) -> None:
        """Know the matrices of these units alone; to be done before they are asked for."""
        self._usable = keys

    def known_matrices(self) -> MatrixIndex:
        """The matrices of which there are rows with numbers.

        Raises:
            InputError: if the file is damaged.
        """
        return self._matrices.known

    def matrix_row(self, digest: str, kind: str, rows: int, cols: int) -> dict[str, Any]:
        """The numbers of a matrix that is known; see :meth:`spectra_cli.tables.matrices.MatrixRows.row`.

        Raises:
            KeyError: if it is not.
            InputError: if the file is damaged.
        """
        return self._matrices.row(digest, kind, rows, cols)

    def close(self) -> None:
        """Let go of the file."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _group(self, group: int, columns: Collection[str]) -> pa.Table:
        with damage_told(self._table.path):
            rows = self._file.read_row_group(group, [name for name in columns if name in self._table.columns])
            rows.validate(full=True)  # a damaged page may hold numbers of texts that there are not
        return rows

    def _groups(self, columns: Collection[str]) -> Iterator[tuple[int, pa.Table]]:
        return ((group, self._group(group, columns)) for group in range(len(self._starts) - 1))

    def _identities(self) -> Iterable[tuple[int, pa.Table]]:
        if not set(IDENTITY) <= set(self._table.columns):
            return
        good = np.ones(int(self._starts[-1]), bool)
        if self._usable is not None:
            good[:] = False
            for start, end in (self._slices[key] for key in self._usable if key in self._slices):
                good[start:end] = True
        for group, rows in self._groups(IDENTITY):
            status = rows.column("status").cast(pa.string())
            known = pa.array(good[self._starts[group] : self._starts[group + 1]])
            blank = pc.if_else(known, status, pa.scalar(None, pa.string()))
            yield group, rows.set_column(rows.column_names.index("status"), "status", blank)

    def _stretches(self, key_columns: Sequence[str]) -> Iterator[tuple[Key, int, int]]:
        """The keys of rows that stand together and have the same, with the first row and that after the last."""
        groups = [rows for _, rows in self._groups(key_columns) if rows.num_rows]
        if not groups:
            return
        rows = pa.concat_tables(groups)
        columns = [_encoded(rows.column(name)) for name in key_columns]
        changes = [np.flatnonzero(np.diff(codes)) + 1 for codes, _ in columns]
        starts = np.unique(np.concatenate([[0], *changes]))
        parts = [[texts[code] for code in codes[starts]] for codes, texts in columns]
        yield from zip(zip(*parts, strict=True), starts.tolist(), [*starts[1:].tolist(), rows.num_rows], strict=True)


def _encoded(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], list[str | None]]:
    """A column of text as numbers, and the texts that they stand for."""
    column = column.cast(pa.string()).dictionary_encode() if not pa.types.is_dictionary(column.type) else column
    chunks = column.unify_dictionaries().chunks
    texts: list[str | None] = [*chunks[0].dictionary.to_pylist(), None]
    codes = [np.asarray(chunk.indices.fill_null(len(texts) - 1)).astype(np.int64) for chunk in chunks]
    return np.concatenate(codes), texts
