"""Tables read back from Parquet files: told by their metadata, checked before anything is unpacked."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from spectra_cli.errors import InputError
from spectra_cli.regularfile import open_regular
from spectra_cli.tables.footer import claims_of_columns
from spectra_cli.tables.recognition import DAMAGED, MAKE_ONE, Recognised, reason_of, recognise
from spectra_cli.tables.schemas import SCHEMA_VERSION, TABLES, arrow_schema, optional_columns

BATCH_ROWS = 2048
"""Rows that are unpacked at once; a row holds at most some thousand singular values."""

VALUES_PER_BYTE = 64
"""Values that a byte of an honest file may stand for: columns that repeat are stored as runs."""

ALWAYS_VALUES = 1 << 24
"""Values that a file of any size may hold."""

ROWS_PER_BYTE, ALWAYS_ROWS = 2, 1 << 18
"""Rows that a byte of an honest file may stand for, and that a file of any size may hold: their numbers differ."""

DEEPEST_SETTING = 20
"""Levels of settings; spectra itself writes four."""


@dataclass(frozen=True, eq=False)
class TableFile:
    """A table in a file, of which nothing but the footer has been read.

    Attributes:
        path: of the file.
        table: a key of :data:`spectra_cli.tables.schemas.TABLES`.
        rows: how many there are.
        columns: names, in the file's order.
        metadata: what spectra recorded about the making: keys without ``spectra.``.
    """

    path: Path
    table: str
    rows: int
    columns: tuple[str, ...]
    metadata: Mapping[str, str]

    @property
    def tags(self) -> tuple[str, ...]:
        """Columns that the user added with --tag."""
        known = {column.name for column in TABLES[self.table]}
        return tuple(name for name in self.columns if name not in known)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the command that made the table; empty where they are not on record, or no command's."""
        return self.recorded("settings") or {}

    def recorded(self, name: str) -> dict[str, Any] | None:
        """What is on record under a name, which is a JSON object; None if nothing is, or something else.

        Args:
            name: of the metadata, without ``spectra.``.
        """
        try:
            recorded = _settled(json.loads(self.metadata.get(name, "null")), DEEPEST_SETTING)
        except (ValueError, RecursionError):
            return None
        return recorded if isinstance(recorded, dict) else None

    @contextmanager
    def open(self, columns: Collection[str]) -> Iterator[pq.ParquetFile]:
        """A context with the open file, which yields text as dictionaries.

        Args:
            columns: that will be read; those that the file lacks count for nothing.

        Raises:
            InputError: if the file is damaged, or claims more than its bytes justify.
        """
        with damage_told(self.path), ExitStack() as stack:
            handle = stack.enter_context(open_regular(self.path))
            file = stack.enter_context(_parquet(handle, self.columns, self.table))
            _check_size(handle, file.metadata.num_rows, columns, self.path)
            yield file

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows, some thousand at a time, text as dictionaries.

        Args:
            columns: to read; those that the file lacks are left out.

        Raises:
            InputError: if the file is damaged, or claims more than its bytes justify.
        """
        wanted = [name for name in columns if name in self.columns]
        with self.open(wanted) as file:
            for group in range(file.metadata.num_row_groups):  # of all at once, pyarrow keeps the packed bytes
                for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=wanted, row_groups=[group]):
                    batch.validate(full=True)  # a damaged page may hold numbers of texts that there are not
                    yield batch

    def read(self, columns: Sequence[str]) -> pa.Table:
        """The rows of some columns at once, text as dictionaries.

        Args:
            columns: to read; those that the file lacks are left out.

        Raises:
            InputError: as :meth:`batches`.
        """
        batches = list(self.batches(columns))
        return pa.Table.from_batches(batches).unify_dictionaries() if batches else self.empty(columns)

    def empty(self, columns: Sequence[str]) -> pa.Table:
        """A table of some columns without a row; columns that the file lacks are left out."""
        types = arrow_schema(self.table, self.tags)
        return pa.schema([types.field(name) for name in columns if name in self.columns]).empty_table()


def open_table(path: Path) -> TableFile:
    """Recognise the table in a Parquet file by its metadata.

    Args:
        path: of the file.

    Raises:
        InputError: if it is none that spectra wrote, is damaged, or was written by a newer spectra.
    """
    try:
        with open_regular(path) as file:
            found = recognise(file)
    except InputError as error:
        error.at(str(path))
        raise
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=str(path), remedy=MAKE_ONE) from error
    except IsADirectoryError as error:
        raise InputError(
            "this is a directory", where=str(path), remedy="Give the tables in it: DIR/*.parquet"
        ) from error
    except DAMAGED as error:
        raise _damaged(path, error) from error
    _check_known(found, path)
    _check_columns(found.schema, found.table, path)
    metadata = {
        key.decode(errors="replace").removeprefix("spectra."): value.decode(errors="replace")
        for key, value in found.metadata.items()
        if key.startswith(b"spectra.")
    }
    return TableFile(path, found.table, found.rows, tuple(found.schema.names), metadata)


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """A context in which a file is read that may be damaged.

    Raises:
        InputError: in place of what pyarrow says of damage, or of too little memory.
    """
    try:
        yield
    except DAMAGED as error:
        raise _damaged(path, error) from error
    except MemoryError as error:
        raise InputError("does not fit into memory", where=str(path), remedy="Make it of fewer steps") from error


def _check_known(found: Recognised, path: Path) -> None:
    """Check that it is a table of this version of spectra.

    Raises:
        InputError: if it is not.
    """
    if found.table not in TABLES or found.version != SCHEMA_VERSION:
        raise InputError(
            f"this is a table {found.table[:40]!r} of version {found.version[:10]!r}, which this spectra does not know",
            where=str(path),
            remedy=f"Use the spectra that made it, or make it again (known: {', '.join(TABLES)}, all {SCHEMA_VERSION})",
        )


def _check_columns(schema: pa.Schema, table: str, path: Path) -> None:
    """Check that the columns have the names and types that the table promises; tags are text.

    Raises:
        InputError: if one is absent or has another type, or two have one name.
    """
    if len(set(schema.names)) != len(schema.names):
        raise InputError("two of its columns have one name", where=str(path), remedy="Make the table again")
    known = arrow_schema(table)
    absent = [name for name in known.names if name not in optional_columns(table) and name not in schema.names]
    if absent:
        raise InputError(f"its column '{absent[0]}' is missing", where=str(path), remedy="Make the table again")
    for field in schema:
        expected = known.field(field.name).type if field.name in known.names else pa.string()
        found = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        same = found == expected or (pa.types.is_large_string(found) and pa.types.is_string(expected))
        if not same:
            raise InputError(
                f"its column '{field.name[:60]}' is {str(field.type)[:60]}, not {expected}",
                where=str(path),
                remedy="Make the table again",
            )


def _parquet(handle: Any, columns: Sequence[str], table: str) -> pq.ParquetFile:
    known = arrow_schema(table)
    texts = [name for name in columns if name not in known.names or pa.types.is_string(known.field(name).type)]
    return pq.ParquetFile(handle, read_dictionary=texts, page_checksum_verification=True)


def _check_size(handle: BinaryIO, claimed: int, columns: Collection[str], path: Path) -> None:
    """Check that what the file claims to hold is in proportion to its bytes.

    Args:
        handle: of the file.
        claimed: rows.
        columns: that will be read.
        path: of the file.

    Raises:
        InputError: if it is not.
    """
    size_bytes = os.fstat(handle.fileno()).st_size
    allowed = max(ALWAYS_VALUES, VALUES_PER_BYTE * size_bytes)
    if claimed > max(ALWAYS_ROWS, ROWS_PER_BYTE * size_bytes):
        raise _out_of_proportion(f"{claimed} rows", path)
    for name, values, unpacked_bytes in claims_of_columns(handle):
        if name in columns:
            claimed = max(claimed, values, unpacked_bytes // 8)
    if claimed > allowed:
        raise _out_of_proportion(f"{claimed} values in a column", path)


def _out_of_proportion(what: str, path: Path) -> InputError:
    return InputError(
        f"it claims {what}, which is out of all proportion to the file", where=str(path), remedy="Make the table again"
    )


def _settled(value: Any, depth: int) -> Any:
    """A setting as text can hold it.

    Raises:
        ValueError: if it is nested deeper than any that a command writes.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, (dict, list)) and depth == 0:
        raise ValueError("nested too deep")
    if isinstance(value, dict):
        return {_settled(name, depth): _settled(entry, depth - 1) for name, entry in value.items()}
    return [_settled(entry, depth - 1) for entry in value] if isinstance(value, list) else value


def _damaged(path: Path, error: Exception) -> InputError:
    what = f"cannot be read as a table: {reason_of(error)}"
    return InputError(what, where=str(path), remedy="Make the table again")
