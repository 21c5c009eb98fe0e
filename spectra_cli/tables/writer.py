"""Rows go to a Parquet file that appears under its final name only when it is complete."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from spectra_cli.atomicfile import remedy_of
from spectra_cli.errors import InputError
from spectra_cli.tables.entries import storable
from spectra_cli.tables.locations import TableLocation, location_of
from spectra_cli.tables.recognition import SCHEMA_KEY
from spectra_cli.tables.replaceable import check_replaceable
from spectra_cli.tables.rows import table_of
from spectra_cli.tables.schemas import SCHEMA_VERSION, arrow_schema

ROW_GROUP_VALUES = 1 << 20
"""Singular values and other numbers gathered before a row group is written: some megabytes."""


class TableWriter:
    """Write one table, row by row or from Arrow tables of rows.

    Rows are gathered into row groups in a partial file, which :meth:`finish` completes and :meth:`publish` gives its
    name; leaving the context by an exception removes it and leaves an older file as it was. Only an older table of the
    same name is replaced, unless `fresh`: a slip in a path must not cost the metrics of a run or somebody's data.

    Where a row group ends depends on the rows alone: equal rows make equal files, however they were given.

    Args:
        out: path of the Parquet file, or its location.
        table: a key of :data:`spectra_cli.tables.schemas.TABLES`.
        tags: extra columns, with the value of rows that do not say their own.
        metadata: strings for the file's metadata, keys with their prefix.
        leave_out: columns that only come when they are asked for, and were not.
        fresh: whether to replace any file whatever.

    Raises:
        InputError: if the file cannot be written there, or another table or anything else stands there.
        UsageError: if a tag has the name of a column.
    """

    def __init__(
        self,
        out: Path | TableLocation,
        table: str,
        *,
        tags: Mapping[str, str | None] | None = None,
        metadata: Mapping[str, str] | None = None,
        leave_out: Collection[str] = (),
        fresh: bool = False,
    ) -> None:
        self._location = location_of(out) if isinstance(out, Path) else out
        self._tags = dict(tags or {})
        known = {SCHEMA_KEY: f"{table}/{SCHEMA_VERSION}"}
        known |= {key: storable(value) for key, value in (metadata or {}).items()}
        self._schema = arrow_schema(table, self._tags, leave_out).with_metadata(known)
        self._gathered: list[pa.Table] = []
        self._gathered_values = 0
        self._finished = False
        check_replaceable(self._location, table, fresh=fresh)
        self._partial: Path | None = self._location.new_partial()
        try:
            with self._disk_errors():
                self._writer = pq.ParquetWriter(
                    self._partial, self._schema, compression="zstd", write_page_checksum=True
                )
        except BaseException:
            self._partial.unlink(missing_ok=True)
            raise

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows; columns that a row does not name are null.

        Raises:
            InputError: if the disk is full, or cannot be written to for another reason.
        """
        self.write_table(table_of(list(rows), self._schema, self._tags))

    def write_table(self, rows: pa.Table) -> None:
        """Add rows.

        Args:
            rows: with some of the columns, in any order, texts as such or as dictionaries. Columns that it lacks are
                null, tags the value for all rows; columns that the table does not have are passed over.

        Raises:
            InputError: as :meth:`write`.
        """
        rows = _conforming(rows, self._schema, self._tags)
        values = np.cumsum(_values_of_rows(rows)) + self._gathered_values
        start, before = 0, 0
        while start < rows.num_rows:
            end = int(np.searchsorted(values, before + ROW_GROUP_VALUES)) + 1
            self._gathered.append(rows.slice(start, end - start))
            if end > rows.num_rows:
                break
            self._flush()
            start, before = end, int(values[end - 1])
        self._gathered_values = int(values[-1]) - before if rows.num_rows else self._gathered_values

    def annotate(self, metadata: Mapping[str, str]) -> None:
        """Add strings to the metadata of the file (not of its schema, which is written first): what is known only now.

        Args:
            metadata: keys with their prefix.
        """
        if metadata:
            self._writer.add_key_value_metadata({key: storable(value) for key, value in metadata.items()})

    def finish(self) -> None:
        """Complete the partial file and have it on the disk: what can fail for lack of room has been done then.

        Raises:
            InputError: as :meth:`write`.
        """
        if self._finished or self._partial is None:
            return
        self._flush()
        with self._disk_errors():
            self._writer.close()
            with self._partial.open("rb") as file:
                os.fsync(file.fileno())
        self._finished = True

    def publish(self) -> None:
        """Put the finished file where the table is to go.

        Raises:
            InputError: if that cannot be done.
        """
        if self._partial is None:
            return
        if not self._finished:
            raise ValueError("a table is finished before it is published")
        self._location.publish(self._partial)
        self._partial = None

    def close(self) -> None:
        """Finish the file and put it where the table is to go, as far as that is not done.

        Raises:
            InputError: if that cannot be done.
        """
        self.finish()
        self.publish()

    def discard(self) -> None:
        """Give up: nothing appears where the table is to go, unless it is there already."""
        with contextlib.suppress(OSError, pa.ArrowException):
            self._writer.close()
        if self._partial is not None:
            self._partial.unlink(missing_ok=True)
            self._partial = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
            return
        try:
            self.close()
        except BaseException:
            self.discard()
            raise

    def _flush(self) -> None:
        if self._gathered:
            rows = pa.concat_tables(self._gathered).combine_chunks()
            with self._disk_errors():
                self._writer.write_table(rows, row_group_size=rows.num_rows)
        self._gathered = []

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:  # Arrow has its own, and a full disk is either
            number = error.errno if isinstance(error, OSError) else None
            again = "Make room, and run the same command again"
            reason = os.strerror(number) if number else str(error).partition("\n")[0]
            raise InputError(
                f"the table cannot be written: {reason}",
                where=str(self._location),
                remedy=remedy_of(error, again) if isinstance(error, OSError) else again,
            ) from error


def _conforming(rows: pa.Table, schema: pa.Schema, tags: Mapping[str, str | None]) -> pa.Table:
    """The rows with the columns of a schema."""
    columns = []
    for field in schema:
        if field.name in rows.column_names:
            columns.append(rows.column(field.name).cast(field.type))
        elif (value := tags.get(field.name)) is not None:
            columns.append(pa.repeat(pa.scalar(storable(value), field.type), rows.num_rows))
        else:
            columns.append(pa.nulls(rows.num_rows, field.type))
    return pa.table(columns, schema=schema)


def _values_of_rows(rows: pa.Table) -> npt.NDArray[np.int64]:
    """How many cells, numbers in lists and characters each row holds."""
    values = np.full(rows.num_rows, rows.num_columns, np.int64)
    for column in rows.columns:
        if pa.types.is_string(column.type):
            values += pc.utf8_length(column).fill_null(0).to_numpy()
        elif pa.types.is_list(column.type):
            values += _numbers_in_lists(column.combine_chunks(), rows.num_rows)
    return values


def _numbers_in_lists(lists: pa.Array, count: int) -> npt.NDArray[np.int64]:
    if not pa.types.is_list(lists.type.value_type):
        return np.asarray(pc.list_value_length(lists).fill_null(0))
    inner = np.asarray(pc.list_value_length(lists.flatten()).fill_null(0))
    return np.bincount(np.asarray(pc.list_parent_indices(lists)), inner, count).astype(np.int64)
