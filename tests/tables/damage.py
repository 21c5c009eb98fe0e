"""Damage of a table that pyarrow does not notice by itself."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def number_a_text_that_there_is_not(path: Path, column: str) -> None:
    """Change a byte of a page so that pyarrow reads a column of text, and yet it holds what Arrow finds invalid.

    The pages of the file have no checksums afterwards, as those of most writers have none.

    Args:
        path: of a table.
        column: of text, with few different ones.
    """
    pq.write_table(pq.read_table(path), path, compression="none", write_page_checksum=False)
    group = pq.ParquetFile(path).metadata.row_group(0)
    (chunk,) = [each for each in map(group.column, range(group.num_columns)) if each.path_in_schema == column]
    content = path.read_bytes()
    for offset in range(chunk.data_page_offset, chunk.dictionary_page_offset + chunk.total_compressed_size):
        damaged = bytearray(content)
        damaged[offset] ^= 0xFF
        try:
            read = pq.ParquetFile(io.BytesIO(damaged), read_dictionary=[column]).read([column])
        except (pa.ArrowException, OSError):
            continue
        try:
            read.validate(full=True)
        except pa.ArrowInvalid:
            path.write_bytes(damaged)
            return
    raise AssertionError("no byte does that")
