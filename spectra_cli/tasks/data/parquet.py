"""Columns of untrusted Parquet files: what repeats is not unpacked, and what is claimed is checked first.

A column may say once what stands in all of its rows: 2 kB of Parquet can hold 256 times the same 60 MB. Such a column
is read as what it is, a dictionary and places in it, and its values are made one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from spectra_cli.errors import InputError

ROWS = 4096
"""Rows that are read at once."""


def column_batches(path: Path, column: str, leaf: str, others: Sequence[str], limit_bytes: int) -> Iterator[Any]:
    """The rows of some columns, in batches.

    Args:
        path: of the file.
        column: of strings or bytes, or of structs that hold them; the first of a batch.
        leaf: path of the strings or bytes, such as ``image.bytes``; read as a dictionary.
        others: columns after it.
        limit_bytes: what the distinct values may take, as the file tells of itself.

    Yields:
        ``pyarrow.RecordBatch`` of at most :data:`ROWS` rows.

    Raises:
        InputError: if the file claims more than `limit_bytes`.
        pyarrow.ArrowException: if it is damaged.
        OSError: likewise, or if it cannot be read.
        MemoryError: if what it holds does not fit into memory.
    """
    with pq.ParquetFile(path, read_dictionary=[leaf]) as file:
        claimed_bytes = sum(
            chunk.total_uncompressed_size
            for group in map(file.metadata.row_group, range(file.metadata.num_row_groups))
            for chunk in map(group.column, range(group.num_columns))
            if chunk.path_in_schema == leaf
        )
        if claimed_bytes > limit_bytes:
            raise InputError(
                f"its column '{column}' would take {claimed_bytes / 2**20:.0f} MiB, which is out of all proportion to "
                "the file",
                remedy="Give a part of it, or restore the file",
            )
        yield from file.iter_batches(batch_size=ROWS, columns=[column, *others])


def values(column: Any) -> Iterator[Any]:
    """The values of a column that is read as a dictionary, one at a time; None for null."""
    return (value.as_py() for value in column)


def value_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values of a column, be it stored as a dictionary or not."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def out_of_memory(path: Path) -> InputError:
    """What to raise for a MemoryError, which is not the file's fault as far as one can tell."""
    return InputError(
        "does not fit into memory", where=str(path), remedy="Give a part of it, or use a machine with more memory"
    )
