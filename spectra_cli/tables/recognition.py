"""What a file is, as its first bytes, its last and its footer tell: a table of spectra, or why it is none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from spectra_cli.errors import InputError
from spectra_cli.tables.footer import MAGIC, TAIL_BYTES

SCHEMA_KEY = "spectra.schema"
"""Key in the metadata of every table, of its name and the version of its columns."""

DAMAGED = (pa.ArrowException, OSError, ValueError, KeyError)
"""What pyarrow raises for damaged files: of names in the footer that are no text, the errors of Python."""

MAKE_ONE = "Give a table that spectra wrote: spectra rank, align, sva, prune-eval, barrier and train make them"

_MAKE_AGAIN = "Make the table again; with --fresh the command replaces what is there"

LONGEST_REASON = 120
"""Characters of what pyarrow says of a damaged file."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """What the footer of a table says, of which nothing else has been read.

    Attributes:
        table: its name; of a table of a newer spectra, or a forged one, any text.
        version: of its columns.
        schema: as in the file.
        rows: how many it claims.
        metadata: of the file and of its schema.
    """

    table: str
    version: str
    schema: pa.Schema
    rows: int
    metadata: Mapping[bytes, bytes]


def recognise(file: BinaryIO) -> Recognised:
    """Recognise the table in a file.

    Args:
        file: that can be sought in.

    Raises:
        InputError: without `where`, if it is no Parquet file, is cut off or otherwise damaged, or is none that
            spectra wrote.
        OSError: if it cannot be read.
    """
    _check_ends(file)
    file.seek(0)
    try:
        with pq.ParquetFile(file) as parquet:
            schema, rows, of_file = parquet.schema_arrow, parquet.metadata.num_rows, parquet.metadata.metadata or {}
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's; those of pyarrow have no number
            raise
        raise InputError(
            f"this Parquet file is damaged, its footer cannot be read: {reason_of(error)}", remedy=_MAKE_AGAIN
        ) from error
    metadata = {**of_file, **(schema.metadata or {})}
    told = (schema.metadata or {}).get(SCHEMA_KEY.encode(), b"")
    table, slash, version = told.decode(errors="replace").rpartition("/")
    if not slash:
        raise InputError(
            "this Parquet file is none that spectra wrote",
            remedy=f"{MAKE_ONE}; what pandas has saved again no longer says what it is",
        )
    return Recognised(table, version, schema, rows, metadata)


def reason_of(error: Exception) -> str:
    """What an exception says, in a line."""
    said = getattr(error, "strerror", None) or str(error)
    return said.splitlines()[0][:LONGEST_REASON] if said else type(error).__name__


def _check_ends(file: BinaryIO) -> None:
    """Check that the file begins and ends as Parquet files do.

    Raises:
        InputError: if it does not.
        OSError: if it cannot be read.
    """
    file.seek(0)
    head = file.read(len(MAGIC))
    if head != MAGIC:
        raise InputError("this file is no Parquet table", remedy=MAKE_ONE)
    size = file.seek(0, os.SEEK_END)
    file.seek(max(len(MAGIC), size - TAIL_BYTES))
    if not file.read(TAIL_BYTES).endswith(MAGIC):
        raise InputError("this Parquet file is cut off: its end is missing", remedy=_MAKE_AGAIN)
