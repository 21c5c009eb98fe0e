"""Rows as dictionaries and as Arrow tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from spectra_cli.tables.entries import storable


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a table as dictionaries.

    Cells of lists of numbers are NumPy arrays, as making millions of Python numbers takes seconds; null is None.
    """
    columns = {name: _cells(table.column(name)) for name in table.column_names}
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)] if columns else []


def table_of(
    rows: Sequence[Mapping[str, Any]], schema: pa.Schema, tags: Mapping[str, str | None] | None = None
) -> pa.Table:
    """An Arrow table of rows.

    Args:
        rows: columns that one does not name are null, or have the value of the tag.
        schema: of the table; what else rows hold is passed over.
        tags: values by the name of a column.

    Raises:
        pa.ArrowException: if a value does not fit its column.
    """
    values = tags or {}
    columns = {name: [_stored(row.get(name, values.get(name))) for row in rows] for name in schema.names}
    return pa.table(columns, schema=schema)


def _stored(value: Any) -> Any:
    """A value as Arrow can hold it."""
    return storable(value) if isinstance(value, str) else value


def _cells(column: pa.ChunkedArray) -> list[Any]:
    cells: list[Any] = []
    for chunk in column.chunks:
        if not pa.types.is_list(chunk.type) or pa.types.is_nested(chunk.type.value_type):
            cells += chunk.to_pylist()
            continue
        numbers = chunk.values.to_numpy(zero_copy_only=False)
        offsets = chunk.offsets.to_pylist()
        valid = chunk.is_valid().to_pylist()
        cells += [
            numbers[start:stop] if known else None
            for start, stop, known in zip(offsets, offsets[1:], valid, strict=False)
        ]
    return cells
