"""Rows of units in memory, where no file is asked for: used as a journal is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from spectra_cli.tables.entries import Entry, Key
from spectra_cli.tables.matrices import MatrixIndex, MatrixRows


class MemoryJournal:
    """Keeps the rows of units in memory; see :class:`spectra_cli.tables.journal.Journal`."""

    locked = True

    def __init__(self) -> None:
        self._entries: dict[Key, Entry] = {}
        self._rows: dict[Key, pa.Table] = {}
        self._put: list[pa.Table] = []
        self._matrices = MatrixRows(lambda: enumerate(self._put), self._put.__getitem__)

    def put(
        self, key: Key, table: pa.Table, *, fingerprint: str, content: str | None, facts: Mapping[str, Any]
    ) -> None:
        """Keep the rows of a unit."""
        self._entries[key], self._rows[key] = Entry(fingerprint, content, facts), table
        self._put.append(table)
        self._matrices.add(len(self._put) - 1, table)

    def entry(self, key: Key) -> Entry | None:
        """What is known of a unit beside its rows; None where it has none."""
        return self._entries.get(key)

    def has_rows(self, key: Key) -> bool:
        """Whether there are rows of a unit that is kept: it may have none."""
        return bool(self._rows[key].num_rows)

    def rows(self, key: Key, names: Sequence[str] | None = None) -> pa.Table:
        """The rows of a unit that is kept; some columns, or all."""
        return self._rows[key] if names is None else self._rows[key].select(list(names))

    def known_matrices(self) -> MatrixIndex:
        """The matrices of which rows with numbers are kept."""
        return self._matrices.known

    def matrix_row(self, digest: str, kind: str, rows: int, cols: int) -> dict[str, Any]:
        """The numbers of a matrix that is known.

        Raises:
            KeyError: if it is not.
        """
        return self._matrices.row(digest, kind, rows, cols)

    def close(self) -> None:
        """Forget all."""
        self._entries.clear()
        self._rows.clear()
        self._put.clear()

    remove = close
