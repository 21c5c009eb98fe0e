"""What the footer of a Parquet file claims of its columns, read without pyarrow.

pyarrow ends the process when it is asked for the metadata of a column and they contradict themselves. The footer is a
structure of Thrift in its compact protocol (https://github.com/apache/thrift, doc/specs/thrift-compact-protocol.md; the
fields are those of parquet.thrift in https://github.com/apache/parquet-format).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

MAGIC = b"PAR1"
"""The first and the last bytes of a Parquet file."""

_TAIL = struct.Struct("<I4s")
TAIL_BYTES = _TAIL.size
"""Size of the end of the file: the length of the footer, and the magic."""

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)

Wanted = dict[int, Any]
"""Fields of a structure that are read, by number; of a structure or a list of them which fields again, else None."""

_COLUMN: Wanted = {3: None, 5: None, 6: None}  # ColumnMetaData: path_in_schema, num_values, total_uncompressed_size
_FILE: Wanted = {4: {1: {3: _COLUMN}}}  # FileMetaData: row_groups; RowGroup: columns; ColumnChunk: meta_data


def claims_of_columns(file: BinaryIO) -> Iterator[tuple[str, int, int]]:
    """Name of the outermost field, number of values and unpacked bytes of every column of every row group.

    Args:
        file: a Parquet file that can be sought in.

    Raises:
        ValueError: if the footer is damaged.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL.size))
    tail = file.read(_TAIL.size)
    length, magic = _TAIL.unpack(tail) if len(tail) == _TAIL.size else (0, b"")
    if magic != MAGIC or not 0 < length <= size - _TAIL.size:
        raise ValueError("the file has no footer")
    file.seek(size - _TAIL.size - length)
    try:
        for group in _Thrift(file.read(length)).structure(_FILE)[4]:
            for chunk in group[1]:
                path, values, unpacked = (chunk[3][field] for field in (3, 5, 6))
                yield path[0].decode(errors="replace"), values, unpacked
    except (IndexError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("the footer is damaged") from error


class _Thrift:
    """Goes through bytes in Thrift's compact protocol."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._offset = 0

    def structure(self, wanted: Wanted) -> dict[int, Any]:
        """The wanted fields of the structure that begins here."""
        found: dict[int, Any] = {}
        field = 0
        while (head := self._byte()) != 0:
            kind, step = head & 15, head >> 4
            field = field + step if step else self._signed()
            if kind in {_TRUE, _FALSE}:  # the value is the kind
                continue
            value = self._value(kind, wanted.get(field, {}))
            if field in wanted:
                found[field] = value
        return found

    def _value(self, kind: int, wanted: Wanted | None) -> Any:
        if kind in _INTEGERS:
            return self._signed()
        if kind == _BINARY:
            return self._bytes(self._unsigned())
        if kind in {_LIST, _SET}:
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._unsigned()
            return [self._value(head & 15, wanted) for _ in range(count)]
        if kind == _STRUCT:
            return self.structure(wanted or {})
        if kind in {_TRUE, _FALSE, _BYTE}:  # of a list: a byte each
            return self._byte()
        if kind == _DOUBLE:
            return self._bytes(8)
        raise ValueError("the footer is damaged")  # a map, of which Parquet has none, or nothing that there is

    def _byte(self) -> int:
        byte = self._content[self._offset]
        self._offset += 1
        return byte

    def _bytes(self, count: int) -> bytes:
        start, self._offset = self._offset, self._offset + count
        if self._offset > len(self._content):
            raise ValueError("the footer is damaged")
        return self._content[start : self._offset]

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("the footer is damaged")

    def _signed(self) -> int:
        value = self._unsigned()
        return value >> 1 ^ -(value & 1)
