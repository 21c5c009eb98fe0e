"""One table on its way to its file, and to memory where it is asked for there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from spectra_cli.execution.incremental.writing import Writing
from spectra_cli.execution.work.units import Unit
from spectra_cli.tables.locations import TableLocation
from spectra_cli.tables.schemas import arrow_schema
from spectra_cli.tables.writer import TableWriter


class TableOutput:
    """Takes the rows of all units in their order, without those of tags, which it adds.

    Args:
        table: a key of ``tables.schemas.TABLES``.
        units: all of them, in order.
        writing: what becomes of the table.
        location: of the file to write; None for none.
        metadata: of the file.
        whole: whether the table is asked for in memory as well.

    Raises:
        InputError: if the file cannot be written.
    """

    def __init__(
        self,
        table: str,
        units: Sequence[Unit],
        writing: Writing,
        *,
        location: TableLocation | None,
        metadata: Mapping[str, str],
        whole: bool,
    ) -> None:
        self._tags = {**dict.fromkeys(tag for unit in units for tag in unit.tags), **writing.tags}
        self._of_all = writing.tags
        self._schema = arrow_schema(table, self._tags, writing.leave_out)
        self._whole: list[pa.Table] | None = [] if whole else None
        self._writer: TableWriter | None = None
        if location is not None:
            fresh, left_out = writing.fresh, writing.leave_out
            self._writer = TableWriter(
                location, table, tags=self._tags, metadata=metadata, leave_out=left_out, fresh=fresh
            )

    @property
    def takes_rows(self) -> bool:
        """Whether rows are of any use to it."""
        return self._writer is not None or self._whole is not None

    def annotate(self, metadata: Mapping[str, str]) -> None:
        """Add to the metadata of the file what is known only now."""
        if self._writer is not None:
            self._writer.annotate(metadata)

    def add(self, unit: Unit, rows: pa.Table) -> None:
        """Take the rows of the next unit.

        Raises:
            InputError: if they cannot be written.
        """
        for name, value in {**self._of_all, **unit.tags}.items():
            rows = rows.append_column(name, pa.array([value] * len(rows), pa.string()))
        if self._writer is not None:
            self._writer.write_table(rows)
        if self._whole is not None:
            self._whole.append(rows)

    def finish(self) -> None:
        """Have the whole table on the disk, under another name.

        Raises:
            InputError: if it cannot be written.
        """
        if self._writer is not None:
            self._writer.finish()

    def publish(self) -> None:
        """Put the table where it is to go.

        Raises:
            InputError: if that cannot be done.
        """
        if self._writer is not None:
            self._writer.publish()

    def discard(self) -> None:
        """Give up writing the table."""
        if self._writer is not None:
            self._writer.discard()

    def whole(self) -> pa.Table:
        """All rows, if they were asked for."""
        names = self._schema.names
        return pa.concat_tables([rows.select(names) for rows in self._whole or []] or [self._schema.empty_table()])
