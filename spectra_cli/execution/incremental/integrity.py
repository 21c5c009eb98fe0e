"""Whether rows that are there already are those that were written; others are made anew."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from spectra_cli.errors import InputError
from spectra_cli.tables.entries import Entry, Key
from spectra_cli.tables.journal import Journal
from spectra_cli.tables.kept import KeptTable
from spectra_cli.tables.rowsums import parted, row_sums
from spectra_cli.tables.statuses import STATUSES

ROWS = "rows"
"""Fact about a unit: what :func:`spectra_cli.tables.rowsums.row_sums` tells of its rows."""

_COUNT, _LIGHT, _BULKY = range(3)


def intact_units(kept: KeptTable, table: str, schema: pa.Schema) -> set[Key]:
    """The units whose rows are all there, and are those that were written as far as light columns tell.

    Args:
        kept: the table that is there.
        table: a key of ``tables.schemas.TABLES``.
        schema: of its rows, without tags.

    Raises:
        InputError: if the file is damaged.
    """
    intact = {key for key, entry in kept.entries.items() if _sums(entry)[_COUNT] == kept.count(key)}
    intact -= kept.keys_where_not("status", *STATUSES[table])
    return intact - _altered(kept, intact, parted(schema)[0], _LIGHT)


def intact_in_full(kept: KeptTable, intact: Collection[Key], schema: pa.Schema) -> set[Key]:
    """The units, of those given, whose bulky columns are as they were written, too.

    Raises:
        InputError: if the file is damaged.
    """
    return set(intact) - _altered(kept, intact, parted(schema)[1], _BULKY)


def altered_units(journal: Journal, table: str, schema: pa.Schema) -> list[Key]:
    """The units whose rows cannot be used as they stand in a journal, or are none that such a work has written.

    Args:
        journal: of an interrupted work.
        table: a key of ``tables.schemas.TABLES``.
        schema: of its rows, without tags.
    """
    return [key for key in list(journal.keys()) if not _is_good(journal, key, table, schema)]


def _is_good(journal: Journal, key: Key, table: str, schema: pa.Schema) -> bool:
    entry = journal.entry(key)
    try:
        rows = journal.rows(key).select(schema.names)
    except (InputError, KeyError):
        return False
    statuses = pc.unique(rows.column("status")).to_pylist()
    return entry is not None and _sums(entry) == row_sums(rows) and STATUSES[table].issuperset(statuses)


def _altered(kept: KeptTable, keys: Collection[Key], columns: Sequence[str], which: int) -> set[Key]:
    return kept.altered(columns, {key: _sums(kept.entries[key])[which] for key in keys})


def _sums(entry: Entry) -> list[Any]:
    """Count and checksums on record about rows; values that match no rows where the record is something else."""
    told = entry.facts.get(ROWS)
    return told if isinstance(told, list) and len(told) == 3 else [None, None, None]
