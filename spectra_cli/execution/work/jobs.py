"""What a command that writes tables asks of the work behind it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from spectra_cli.analyses.known import KnownMatrices
from spectra_cli.analyses.visits import Row
from spectra_cli.execution.work.events import Remark
from spectra_cli.execution.work.units import Assignment, Chunk, Outcome, Unit, Work
from spectra_cli.tables.entries import Key


class TableJob(Protocol):
    """Makes the rows of one or more tables, unit by unit.

    Attributes:
        noun: what a unit is called, in the singular.
        command: of the command line, or the function, whose tables these are.
        tables: to make, keys of ``tables.schemas.TABLES``.
        units: in the order of the tables.
        key_columns: that name a unit, by table; the values are the unit's key.
        harmless: by table, statuses of rows that say all there is to say; any other makes the exit status 3.
        reusable: the table whose rows of a matrix serve wherever the same weights are met again; None for none.
    """

    noun: str
    command: str
    tables: tuple[str, ...]
    units: Sequence[Unit]
    key_columns: Mapping[str, Sequence[str]]
    harmless: Mapping[str, Collection[str]]
    reusable: str | None

    def work(self, sharing: int, known: Sequence[KnownMatrices]) -> Work:
        """What is to be done, for workers.

        Args:
            sharing: how many workers share the memory of one machine or device.
            known: matrices whose rows in the reusable table are there.
        """
        ...

    def chunks(self, assignments: Sequence[Assignment], workers: int) -> list[Chunk]:
        """Put assignments together that are better done by one worker.

        Args:
            assignments: in the order of their units.
            workers: how many there are.
        """
        ...

    def passes(self, chunks: Sequence[Chunk], workers: int) -> int:
        """How often units are looked at, including those that others are compared with.

        Args:
            chunks: what is to be done.
            workers: how many there are, each of which looks by itself.
        """
        ...

    def remade(self, missing: Collection[str]) -> tuple[str, ...]:
        """The tables that are made of a unit whose rows are not there in some of them.

        What is made together is made together again where numbers depend on it in their last digits.

        Args:
            missing: those tables, at least one.
        """
        ...

    def label(self, key: Key) -> str:
        """Name, in messages, of a unit that is known by its key alone, as it is none of these units any more.

        Args:
            key: from a file, so that its parts may be any text.
        """
        ...

    def fingerprint(self, unit: Unit, table: str) -> str:
        """What tells whether a unit's rows of a table are still those of its files; "" where that cannot be told."""
        ...

    def identity(self, unit: Unit, table: str) -> Row:
        """The columns that name a unit in a table, for rows of a unit that no worker could make any of."""
        ...

    def budget_bytes(self, sharing: int) -> int | None:
        """The memory budget of each worker, if the user has set one.

        Args:
            sharing: how many workers share the memory of one machine or device.
        """
        ...

    def settings(self, table: str) -> Mapping[str, Any]:
        """Options that the rows of a table depend on, as JSON may have them; names as people know them."""
        ...

    def metadata(self, command: Sequence[str]) -> dict[str, str]:
        """What the files record about their making, besides their schema."""
        ...

    def begin(self) -> None:
        """Tell what is known before the work begins."""
        ...

    def take(self, outcome: Outcome) -> None:
        """Take note of what has been done, and tell what people should know of it.

        Raises:
            SpectraError: if it is the only unit and could not be used.
        """
        ...

    def take_kept(
        self, unit: Unit, tables: Mapping[str, Sequence[Row]], facts: Mapping[str, Any], remarks: Sequence[Remark]
    ) -> None:
        """Take note of a unit whose rows are there already, and tell what people should know of it.

        Args:
            unit: whose.
            tables: its rows, without bulky columns.
            facts: as they were found with the rows.
            remarks: as they were made with the rows, table by table.
        """
        ...

    def end(self) -> None:
        """Tell what is only known at the end.

        Raises:
            SpectraError: if nothing could be done.
        """
        ...

    def found(self) -> Mapping[str, Any]:
        """Facts that are known at the end and stand in no row, as JSON may have them; the files record them as well."""
        ...
