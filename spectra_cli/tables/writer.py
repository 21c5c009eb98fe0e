"""Rows go to a Parquet file that appears under its final name only when it is complete."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from spectra_cli.atomicfile import SHOWN_NAME, mode_of_new_files
from spectra_cli.errors import InputError, UsageError
from spectra_cli.tables.schemas import SCHEMA_VERSION, arrow_schema

FOREIGN_SUFFIXES = frozenset(
    {".csv", ".tsv", ".txt", ".json", ".jsonl", ".xlsx", ".feather", ".arrow", ".npz", ".h5", ".toml", ".md", ".py"}
    | {".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar", ".gguf", ".onnx", ".npy", ".pkl"}
)
PARQUET_MAGIC = b"PAR1"

SCHEMA_KEY = "spectra.schema"
"""Of the metadata of every table: its name and the version of its columns."""

ROW_GROUP_VALUES = 1 << 20
"""Singular values and other numbers gathered before a row group is written: some megabytes."""


class TableWriter:
    """Write one table, row by row.

    Rows are gathered into row groups beside the final file and renamed into its place by :meth:`close`; leaving the
    context by an exception removes them and leaves an older file as it was. Only an older table of the same name is
    replaced: a slip in a path must not cost the metrics of a run or somebody's data.

    Args:
        path: of the Parquet file.
        table: a key of :data:`spectra_cli.tables.schemas.TABLES`.
        tags: extra columns, with the value of rows that do not say their own.
        metadata: strings for the file's metadata, keys with their prefix.
        leave_out: columns that only come when they are asked for, and were not.

    Raises:
        InputError: if the file cannot be written there, or another table or anything else stands there.
        UsageError: if a tag has the name of a column.
    """

    def __init__(
        self,
        path: Path,
        table: str,
        *,
        tags: Mapping[str, str | None] | None = None,
        metadata: Mapping[str, str] | None = None,
        leave_out: Collection[str] = (),
    ) -> None:
        self.path = path.resolve()  # a link to a table stays a link
        self._tags = dict(tags or {})
        known = {SCHEMA_KEY: f"{table}/{SCHEMA_VERSION}"}
        known |= {key: _utf8(value) for key, value in (metadata or {}).items()}
        self._schema = arrow_schema(table, self._tags, leave_out).with_metadata(known)
        self._rows: list[dict[str, Any]] = []
        self._gathered = 0
        self._partial = _partial_file(path, table)
        try:
            self._writer = pq.ParquetWriter(self._partial, self._schema, compression="zstd")
        except BaseException:
            self._partial.unlink(missing_ok=True)
            raise

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows; columns that a row does not name are null."""
        for row in rows:
            self._rows.append({**self._tags, **row})
            self._gathered += len(self._schema) + sum(map(_numbers_in, row.values()))
        if self._gathered >= ROW_GROUP_VALUES:
            self._flush()

    def annotate(self, metadata: Mapping[str, str]) -> None:
        """Add strings to the metadata of the file (not of its schema, which is written first): what is known only now.

        Args:
            metadata: keys with their prefix.
        """
        if metadata:
            self._writer.add_key_value_metadata({key: _utf8(value) for key, value in metadata.items()})

    def close(self) -> None:
        """Finish the file and put it into its place."""
        self._flush()
        self._writer.close()
        with self._partial.open("rb") as file:
            os.fsync(file.fileno())
        self._partial.replace(self.path)

    def discard(self) -> None:
        """Give up: nothing appears under the final name."""
        with contextlib.suppress(OSError, pa.ArrowException):
            self._writer.close()
        self._partial.unlink(missing_ok=True)

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
        if self._rows:
            self._writer.write_table(table_of(self._rows, self._schema))
        self._rows, self._gathered = [], 0


def make_directory(path: Path, *, parents: bool = False) -> None:
    """Make a directory unless it is there.

    Args:
        path: of the directory.
        parents: whether to make those that it is in as well.

    Raises:
        InputError: if it cannot be made.
    """
    try:
        path.mkdir(exist_ok=True, parents=parents)
    except OSError as error:
        raise InputError(
            f"the directory cannot be made: {error.strerror}",
            where=str(path),
            remedy="Give --out a directory, in one that exists and may be written to",
        ) from error


def _numbers_in(value: Any) -> int:
    """How many numbers or characters a cell holds."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        return len(value) * len(value[0])
    return len(value) if hasattr(value, "__len__") else 0


def table_of(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """An Arrow table of rows; columns that a row does not name are null."""
    columns = {name: [_utf8(row.get(name)) for row in rows] for name in schema.names}
    return pa.table(columns, schema=schema)


def _utf8(value: Any) -> Any:
    """A string that Arrow can store: bytes of file names that are no text become escapes."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC


def _table_in(path: Path) -> str | None:
    """Name of the table that a Parquet file holds; None where it is not one that spectra wrote whole."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError):  # of a footer that is damaged pyarrow says the latter
        return None
    name, slash, _ = metadata.get(SCHEMA_KEY.encode(), b"").decode(errors="replace").rpartition("/")
    return name if slash else None


def _check_replaceable(target: Path, path: Path, table: str) -> None:
    """Check that a file which stands where a table is to go is an older one of its kind.

    Raises:
        InputError: if it is not.
        OSError: if it cannot be read.
    """
    if not target.exists() or not target.stat().st_size:
        return
    if not _is_parquet(target):
        what = "this file is no Parquet table"
    else:
        found = _table_in(target)
        if found == table:
            return
        what = "this Parquet file is none that spectra wrote" if found is None else f"this file is a table {found}"
    raise InputError(
        f"{what}; a table {table} does not replace it",
        where=str(path),
        remedy="Give --out another name, or move the file away",
    )


def _partial_file(path: Path, table: str) -> Path:
    """An empty file of its own beside what `path` leads to, with the permissions that a new file gets here."""
    if path.exists() and not path.is_file():
        raise InputError(
            "this is a directory, a pipe or a device", where=str(path), remedy="Give --out the name of a file"
        )
    if path.suffix.lower() in FOREIGN_SUFFIXES:
        raise UsageError(f"--out {path.name}: the table is a Parquet file", remedy="Give --out a name in .parquet")
    try:
        target = path.resolve()
        _check_replaceable(target, path, table)
        handle, name = tempfile.mkstemp(prefix=f".{target.name[:SHOWN_NAME]}.", suffix=".partial", dir=target.parent)
        os.fchmod(handle, mode_of_new_files())
        os.close(handle)
    except OSError as error:
        raise InputError(
            f"the table cannot be written: {error.strerror}",
            where=str(path),
            remedy="Give --out a file in a directory that exists and may be written to",
        ) from error
    return Path(name)
