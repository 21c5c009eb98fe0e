"""Checksums of rows tell cells apart, and nothing else: not how Arrow happens to hold them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra_cli.tables.rows import table_of
from spectra_cli.tables.rowsums import BULKY, row_sums, sums_of
from spectra_cli.tables.schemas import TABLES, arrow_schema
from tests.tables.anyrows import exact, rank_table, rows_strategy


def one(rows: pa.Table) -> str:
    return sums_of(rows, [(0, rows.num_rows)])[0]


@pytest.mark.parametrize("table", TABLES)
@given(data=st.data())
@settings(max_examples=25)
def test_pieces_and_dictionaries_make_no_difference(table: str, data: st.DataObject) -> None:
    rows = table_of(data.draw(rows_strategy(table)), arrow_schema(table))
    cuts = sorted(data.draw(st.lists(st.integers(0, rows.num_rows), max_size=3)))
    pieces = [rows.slice(a, b - a) for a, b in zip([0, *cuts], [*cuts, rows.num_rows], strict=True)]
    encoded = [
        pa.table([c.dictionary_encode() if pa.types.is_string(c.type) else c for c in piece.columns], rows.column_names)
        for piece in pieces
    ]
    assert one(pa.concat_tables(pieces)) == one(pa.concat_tables(encoded)) == one(rows)
    stretches = list(zip([0, *cuts], [*cuts, rows.num_rows], strict=True))
    assert sums_of(rows, stretches) == [one(piece.combine_chunks()) for piece in pieces]


@given(rows=rows_strategy("align", most=4), others=rows_strategy("align", most=4))
@settings(max_examples=60)
def test_rows_are_the_same_if_their_sums_are(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    """Both ways; NaN's payload aside, which Arrow's text does not show."""
    one_table, other = (table_of(each, arrow_schema("align")) for each in (rows, others))
    assert (exact(one_table) == exact(other)) == (one(one_table) == one(other))


def test_every_column_counts() -> None:
    table = rank_table("a", rows := 3)
    seen = {one(table)}
    for name in table.column_names:
        at = table.column_names.index(name)
        nothing = table.set_column(at, table.schema.field(name), pa.nulls(rows, table.schema.field(name).type))
        if table.column(name).null_count < rows:
            seen.add(one(nothing))
    assert len(seen) == 1 + sum(column.null_count < rows for column in table.columns)


def test_what_stands_in_the_slots_of_nulls_counts_for_nothing() -> None:
    valid = pa.py_buffer(bytes([0b101]))
    for kind, junk in ((pa.float64(), np.array([1.0, 9.0, math.nan])), (pa.int32(), np.array([1, 9, 3], np.int32))):
        dirty = pa.Array.from_buffers(kind, 3, [valid, pa.py_buffer(junk)])
        clean = pa.array(dirty.to_pylist(), kind)
        assert one(pa.table({"a": dirty})) == one(pa.table({"a": clean}))
    offsets = pa.py_buffer(np.array([0, 1, 3, 4], np.int32))
    dirty = pa.Array.from_buffers(pa.string(), 3, [valid, offsets, pa.py_buffer(b"axxb")])
    assert one(pa.table({"a": dirty})) == one(pa.table({"a": pa.array(["a", None, "b"])}))
    lists = pa.Array.from_buffers(
        pa.list_(pa.float32()), 3, [valid, offsets], children=[pa.array([1, 7, 7, 2], pa.float32())]
    )
    assert one(pa.table({"a": lists})) == one(pa.table({"a": pa.array([[1], None, [2]], lists.type)}))


def test_light_and_bulky_columns_have_sums_of_their_own() -> None:
    table = rank_table("a")
    changed = rank_table("a", singular_values=np.zeros(4, np.float32))
    lighter = rank_table("a", gini=0.0)
    count, light, bulky = row_sums(table)
    assert (count, BULKY[0]) == (3, "singular_values")
    assert row_sums(changed)[:2] == [count, light]
    assert row_sums(changed)[2] != bulky
    assert (row_sums(lighter)[1] != light, row_sums(lighter)[2]) == (True, bulky)


INT32 = pa.int32()
RUNNING_TOGETHER = {
    "the name of a column": (pa.table({"a": [1.0]}), pa.table({"b": [1.0]})),
    "how many rows there are": (
        pa.table({"a": ["\1\0\0\0"], "b": ["b" + "\0" * 8]}),
        pa.table({"a": ["b\t\0\0", "\0"], "b": ["", ""]}),
    ),
    "which column has nulls": (
        pa.table({"a": pa.array([None, 1 << 16], INT32), "\1": pa.array([0, 5], INT32)}),
        pa.table({"a": pa.array([1 << 8, 0], INT32), "\1": pa.array([None, 5], INT32)}),
    ),
    "which cell is null": (pa.table({"a": [None, 0.0]}), pa.table({"a": [0.0, None]})),
    "a list that is null": (
        pa.table({"a": pa.array([None], pa.list_(INT32))}),
        pa.table({"a": pa.array([[]], pa.list_(INT32))}),
    ),
}


@pytest.mark.parametrize("what", RUNNING_TOGETHER)
def test_cells_do_not_run_into_one_another(what: str) -> None:
    """Tables whose cells, one after the other, are the same bytes: only what is told beside them differs."""
    one_table, other = RUNNING_TOGETHER[what]
    assert one(one_table) != one(other)
