"""Checksums of the rows of a unit, by which rows that somebody has changed are told from those that were written.

They depend on what the cells hold and on nothing else: neither on chunks, dictionaries or what stands in the slots of
nulls, nor on columns of tags. They are no signatures: anyone who makes a table can make them too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

BULKY = ("singular_values", "alignment")
"""Columns that no summary looks at: nearly all bytes of a table. They have a checksum of their own."""

SUM_BYTES = 12
"""Size of a checksum: chance does not make two alike, and there are two for each of many thousand units."""


def row_sums(rows: pa.Table) -> list[Any]:
    """What is on record about the rows of a unit: how many, and the checksums of light and of bulky columns.

    Args:
        rows: without columns of tags, in the order of the schema.
    """
    return [rows.num_rows, *(sums_of(rows.select(names), [(0, rows.num_rows)])[0] for names in parted(rows))]


def parted(rows: pa.Table | pa.Schema) -> tuple[list[str], list[str]]:
    """The names of the light columns and of the bulky ones."""
    names = rows.column_names if isinstance(rows, pa.Table) else rows.names
    return [name for name in names if name not in BULKY], [name for name in names if name in BULKY]


def sums_of(rows: pa.Table, stretches: Iterable[tuple[int, int]]) -> list[str]:
    """Checksums of stretches of rows, each of its own.

    Args:
        rows: with types as in the schema, but for text, which may be encoded as a dictionary.
        stretches: first row, and that after the last.
    """
    columns = [(field.name.encode(), _cells(rows.column(field.name))) for field in rows.schema]
    sums = []
    for start, stop in stretches:
        told = hashlib.blake2b(digest_size=SUM_BYTES)
        told.update((stop - start).to_bytes(8, "little"))
        for name, cells in columns:
            told.update(name)
            cells.tell(told, start, stop)
        sums.append(told.hexdigest())
    return sums


class _Told(Protocol):
    def update(self, content: Any, /) -> None: ...


class _Numbers:
    """Numbers, in the slots of nulls 0, and which are null."""

    def __init__(self, array: pa.Array) -> None:
        self._valid = None if array.null_count == 0 else np.asarray(array.is_valid()).astype(np.uint8)
        empty = False if pa.types.is_boolean(array.type) else 0
        filled = array if self._valid is None else pc.fill_null(array, pa.scalar(empty, array.type))
        self._values = np.ascontiguousarray(filled.to_numpy(zero_copy_only=False))

    def tell(self, told: _Told, start: int, stop: int) -> None:
        """Add the cells of a stretch to a checksum."""
        if self._valid is not None and not (valid := self._valid[start:stop]).all():
            told.update(b"\1")
            told.update(valid)
        told.update(self._values[start:stop])


class _Pieces:
    """Cells of as many bytes, or cells again, as each has; null is a length of its own."""

    def __init__(self, lengths: npt.NDArray[np.int32], inside: npt.NDArray[np.uint8] | _Cells) -> None:
        self._lengths = np.ascontiguousarray(lengths)
        self._ends = np.concatenate([[0], np.cumsum(np.maximum(lengths, 0), dtype=np.int64)])
        self._inside = inside

    def tell(self, told: _Told, start: int, stop: int) -> None:
        """Add the cells of a stretch to a checksum."""
        told.update(self._lengths[start:stop])
        first, end = int(self._ends[start]), int(self._ends[stop])
        if isinstance(self._inside, np.ndarray):
            told.update(self._inside[first:end])
        else:
            self._inside.tell(told, first, end)


_Cells = _Numbers | _Pieces


def _cells(column: pa.ChunkedArray | pa.Array) -> _Cells:
    kind = column.type
    if pa.types.is_dictionary(kind) or pa.types.is_large_string(kind):
        column, kind = column.cast(pa.string()), pa.string()
    chunks: Sequence[pa.Array] = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    if pa.types.is_string(kind):
        return _texts([chunk for chunk in chunks if len(chunk)])
    array = pa.concat_arrays([*chunks, pa.array([], kind)])
    if not pa.types.is_list(kind):
        return _Numbers(array)
    lengths = np.asarray(pc.list_value_length(array).fill_null(-1)).astype(np.int32)
    return _Pieces(lengths, _cells(array.flatten()))


def _texts(chunks: Sequence[pa.Array]) -> _Pieces:
    lengths, pieces = [np.zeros(0, np.int32)], [np.zeros(0, np.uint8)]
    for chunk in chunks:
        filled = chunk.fill_null("")
        offsets = np.frombuffer(filled.buffers()[1], np.int32, len(filled) + 1, 4 * filled.offset)
        content = filled.buffers()[2]
        if content is not None and offsets[-1] > offsets[0]:
            pieces.append(np.frombuffer(content, np.uint8, int(offsets[-1] - offsets[0]), int(offsets[0])))
        lengths.append(np.where(np.asarray(chunk.is_valid()), np.diff(offsets), -1).astype(np.int32))
    return _Pieces(np.concatenate(lengths), np.concatenate(pieces))
