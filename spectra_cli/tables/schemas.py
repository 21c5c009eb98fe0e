"""One schema per table, made of its columns.

`spectra columns`, the column reference in the README and the Arrow schema of the files all come from here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from spectra_cli.errors import UsageError
from spectra_cli.tables.columns import ALIGN, BARRIER, BARRIER_SPECTRA, METRICS, PRUNE_EVAL, RANK, SVA, Column

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = "1"
"""Version that is written into every file; raised when a column changes its meaning or type."""

TABLES: Mapping[str, tuple[Column, ...]] = MappingProxyType(
    {
        "rank": RANK,
        "align": ALIGN,
        "sva": SVA,
        "prune_eval": PRUNE_EVAL,
        "barrier": BARRIER,
        "barrier_spectra": BARRIER_SPECTRA,
        "metrics": METRICS,
    }
)
"""Every table that spectra writes, by name."""


def optional_columns(table: str) -> frozenset[str]:
    """Columns of a table that only come when they are asked for.

    Args:
        table: a key of :data:`TABLES`.
    """
    return frozenset(column.name for column in TABLES[table] if column.optional)


def arrow_schema(table: str, tags: Collection[str] = (), leave_out: Collection[str] = ()) -> pa.Schema:
    """Arrow schema of a table, with string columns for tags at its end.

    Args:
        table: a key of :data:`TABLES`.
        tags: names of extra columns.
        leave_out: columns that only come when they are asked for, and were not; a name counts where the column of the
            table is such a one.

    Raises:
        UsageError: if a tag has the name of a column.
    """
    clash = sorted(set(tags) & {column.name for column in TABLES[table]})
    if clash:
        raise UsageError(
            f"--tag {clash[0]}: the table has a column of that name",
            remedy="Choose another name; a column that the first line of --pairs names is such a tag",
        )
    import pyarrow as pa  # noqa: PLC0415 - `spectra columns` needs no Arrow

    types = {
        "string": pa.string(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "double": pa.float64(),
        "bool": pa.bool_(),
        "list<float>": pa.list_(pa.float32()),
        "list<list<float>>": pa.list_(pa.list_(pa.float32())),
    }
    absent = optional_columns(table) & set(leave_out)
    wanted = [column for column in TABLES[table] if column.name not in absent]
    fields = [pa.field(column.name, types[column.type]) for column in wanted]
    return pa.schema(fields + [pa.field(name, pa.string()) for name in tags])


def markdown_reference(table: str) -> str:
    """The columns of a table as a Markdown table, for the README.

    Args:
        table: a key of :data:`TABLES`.
    """
    lines = ["| column | type | unit | meaning |", "|---|---|---|---|"]
    for column in TABLES[table]:
        cells = (f"`{column.name}`", f"`{column.type}`", column.unit, column.meaning.replace("|", "\\|"))
        lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return "\n".join(lines) + "\n"
