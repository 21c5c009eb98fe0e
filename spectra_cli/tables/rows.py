"""Arrow rows as dictionaries, lists of numbers as arrays: making millions of Python numbers takes seconds."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a table; cells of lists of numbers are NumPy arrays, null is None."""
    columns = {name: _cells(table.column(name)) for name in table.column_names}
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)] if columns else []


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
