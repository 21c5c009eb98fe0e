"""Rows of every kind that a table can hold, and what they are to the bit."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from spectra_cli.tables.rows import table_of
from spectra_cli.tables.schemas import TABLES, arrow_schema

TEXT = st.text(max_size=12) | st.sampled_from(["", ".", "größe", "step_1\udcff.pt", "a" * 300])
SINGLE = st.floats(width=32)

CELLS: dict[str, st.SearchStrategy[Any]] = {
    "string": TEXT,
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "double": st.floats(),
    "bool": st.booleans(),
    "list<float>": st.lists(SINGLE, max_size=5),
    "list<list<float>>": st.integers(0, 3).flatmap(
        lambda count: st.lists(st.lists(SINGLE, min_size=count, max_size=count), max_size=3)
    ),
}


def rows_strategy(table: str, tags: tuple[str, ...] = (), most: int = 6) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rows in which any column may be absent or null, and any tag may be said."""
    columns = {column.name: st.none() | CELLS[column.type] for column in TABLES[table]}
    columns |= {tag: st.none() | TEXT for tag in tags}
    return st.lists(st.fixed_dictionaries({}, optional=columns), max_size=most)


def exact(rows: pa.Table) -> dict[str, list[str]]:
    """Every cell of every column as text that differs where a bit does, NaN's payload aside."""
    return {name: list(map(repr, rows.column(name).to_pylist())) for name in rows.column_names}


def digest_of(*what: object) -> str:
    return hashlib.sha256(repr(what).encode()).hexdigest()


def rank_rows(checkpoint: str, count: int = 3, seed: int = 0, **columns: Any) -> list[dict[str, Any]]:
    """Rows of one checkpoint that look as those of `spectra rank` do."""
    rng = np.random.default_rng([seed, *os.fsencode(checkpoint)])
    return [
        {
            "run": ".",
            "checkpoint": checkpoint,
            "depth": depth,
            "parameter": f"layers.{depth}.weight",
            "kind": ("linear", "conv")[depth % 2],
            "rows": 8,
            "cols": 4 + depth,
            "gini": float(rng.random()),
            "singular_values": rng.random(4).astype(np.float32),
            "method": "gram_float64",
            "digest": digest_of(checkpoint, depth, seed),
            "status": "ok",
            **columns,
        }
        for depth in range(count)
    ]


def rank_table(checkpoint: str, count: int = 3, seed: int = 0, **columns: Any) -> pa.Table:
    return table_of(rank_rows(checkpoint, count, seed, **columns), arrow_schema("rank"))
