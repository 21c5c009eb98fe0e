"""Rows as bytes, and back: what comes back is checked before it costs memory, and before it is believed.

Arrow's own format of streams is not used, as reading it ends the process where the bytes were made to.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import pyarrow as pa

from spectra_cli.tables.schemas import TABLES, arrow_schema

ALWAYS_BYTES = 1 << 26
"""Unpacked size that any packed rows may have."""

BYTES_PER_BYTE = 64
"""Unpacked bytes that a packed one may stand for beyond that: rows without numbers are mostly zeros."""

LONGEST_LAYOUT = 1 << 20
MOST_ROWS = 1 << 31

ALIGNMENT = 64
"""Alignment of the beginning of each buffer, in bytes."""

_CODEC = "zstd"
_SIZES = struct.Struct("<QI")


class UnusableRowsError(Exception):
    """Bytes that are not those of rows of the table."""


def packed(rows: pa.Table, table: str) -> memoryview:
    """The buffers of the rows, compressed as a whole, behind a layout that says which they are.

    Args:
        rows: with columns of the table and of tags.
        table: a key of :data:`spectra_cli.tables.schemas.TABLES`.

    Raises:
        ValueError: if a column has another type than in the table.
    """
    types = _types(table, rows.column_names)
    buffers: list[pa.Buffer | None] = []
    columns = {}
    for name, kind in types.items():
        column = rows.column(name)
        if column.type != kind:
            raise ValueError(f"the column {name} is {column.type}, not {kind}")
        # Of several pieces Arrow makes one that begins where its buffers do; of a single one it might make nothing new.
        columns[name] = _taken_apart(pa.concat_arrays([*column.chunks, pa.array([], kind)]), buffers)
    layout = json.dumps({"rows": rows.num_rows, "columns": columns}).encode()
    plain = b"".join(_padded(piece) for piece in (layout, *buffers) if piece is not None)
    return memoryview(_SIZES.pack(len(plain), len(layout)) + pa.compress(plain, _CODEC, asbytes=True))


def unpacked(content: bytes, table: str) -> pa.Table:
    """The rows.

    Args:
        content: what :func:`packed` made.
        table: a key of :data:`spectra_cli.tables.schemas.TABLES`.

    Raises:
        UnusableRowsError: if they are damaged, claim more than their bytes justify, or are of another table.
    """
    try:
        size, layout_size = _SIZES.unpack_from(content)
        if size > max(ALWAYS_BYTES, BYTES_PER_BYTE * len(content)) or layout_size > LONGEST_LAYOUT:
            raise UnusableRowsError("they claim more than their bytes justify")
        with pa.CompressedInputStream(pa.BufferReader(memoryview(content)[_SIZES.size :]), _CODEC) as stream:
            plain = stream.read_buffer(size)  # what is left over counts for nothing
        return _put_together(plain, layout_size, table)
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, struct.error, RecursionError) as error:
        raise UnusableRowsError(str(error) or type(error).__name__) from error


def _put_together(plain: pa.Buffer, layout_size: int, table: str) -> pa.Table:
    layout = json.loads(plain.slice(0, layout_size).to_pybytes())
    count, columns = layout["rows"], layout["columns"]
    types = _types(table, columns)
    buffers = _Buffers(plain, layout_size)
    arrays = [buffers.array(kind, columns[name]) for name, kind in types.items()]
    if any(len(array) != count for array in arrays):
        raise UnusableRowsError("columns differ in length")
    return pa.table(arrays, schema=pa.schema(list(types.items())))


class _Buffers:
    """Gives the buffers that are side by side in one, in their order."""

    def __init__(self, plain: pa.Buffer, start: int) -> None:
        self._plain = plain
        self._start = start + -start % ALIGNMENT

    def array(self, kind: pa.DataType, node: Any) -> pa.Array:
        """The array that a part of the layout describes, of a type that is known.

        Raises:
            UnusableRowsError: if its buffers are not in the file.
            pa.ArrowInvalid: if they do not make such an array.
        """
        length, sizes, *inner = node
        if not isinstance(length, int) or not 0 <= length < MOST_ROWS or len(sizes) != _buffer_count(kind):
            raise UnusableRowsError("no layout of such a column")
        own = [self._next(size) for size in sizes]
        if not pa.types.is_list(kind):
            array = pa.Array.from_buffers(kind, length, own)
        else:
            (values,) = inner
            array = pa.Array.from_buffers(kind, length, own, children=[self.array(kind.value_type, values)])
        array.validate(full=True)
        return array

    def _next(self, size: Any) -> pa.Buffer | None:
        if size is None:
            return None
        if not isinstance(size, int) or not 0 <= size <= self._plain.size - self._start:
            raise UnusableRowsError("a buffer ends behind the end")
        buffer = self._plain.slice(self._start, size)
        self._start += size + -size % ALIGNMENT
        return buffer


def _types(table: str, names: Any) -> dict[str, pa.DataType]:
    """The types of columns by name; what is no column of the table is a tag."""
    known = arrow_schema(table)
    own = {column.name for column in TABLES[table]}
    return {str(name): known.field(name).type if name in own else pa.string() for name in names}


def _buffer_count(kind: pa.DataType) -> int:
    return 3 if pa.types.is_string(kind) else 2


def _taken_apart(array: pa.Array, buffers: list[pa.Buffer | None]) -> list[Any]:
    """Append the buffers of an array; returns its part of the layout: length, sizes of buffers, and what is inside."""
    own = array.buffers()[: _buffer_count(array.type)]
    buffers += own
    node = [len(array), [None if each is None else each.size for each in own]]
    return [*node, _taken_apart(array.values, buffers)] if pa.types.is_list(array.type) else node


def _padded(piece: bytes | pa.Buffer) -> bytes:
    content = bytes(piece)
    return content + bytes(-len(content) % ALIGNMENT)
