"""Units of work: what is done at one go, wherever that is, and kept or lost as one."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from spectra_cli.errors import SpectraError
from spectra_cli.execution.work.events import Event, Remark
from spectra_cli.tables.entries import Key

if TYPE_CHECKING:  # a worker is there, and tells its version, before it imports torch
    from spectra_cli.analyses.visits import Row
    from spectra_cli.checkpoints.runs import Run


@dataclass(frozen=True, slots=True)
class Unit:
    """What is done at one go: a checkpoint, or a pair of them.

    Attributes:
        index: among all units of a plan, from 0, in the order of the tables.
        key: what names it.
        run: that it belongs to, for what is told at the end of each; any text.
        label: what it is called in messages.
        tags: further columns of its rows, beside those of all rows.
    """

    index: int
    key: Key
    run: str
    label: str
    tags: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Assignment:
    """One unit of a work that is to be done.

    Attributes:
        index: of the unit among all units of the work, from 0, in the order of the tables.
        tables: to make of it.
        content: what the unit's weights hashed to when its rows were made, where they are to be made again only if that
            has changed; None to make them.
    """

    index: int
    tables: tuple[str, ...]
    content: str | None = None


Chunk = tuple[Assignment, ...]
"""Assignments that one worker does one after the other, as they share what it takes to begin."""


@dataclass(slots=True)
class Outcome:
    """What came of an assignment. It travels between processes, so everything in it can be pickled.

    Attributes:
        index: of the unit.
        tables: the rows of each table, in order, with the columns that name the unit.
        content: hash of the weights that were read; None where they could not be.
        same: whether the content is what the assignment says, and nothing was made.
        error: why the unit could not be used; its rows say so too.
        facts: about the unit, beside its rows; as JSON may have it.
        remarks: what people should know, in the order in which it came up.
        budget_bytes: memory budget of its worker, if the user has set one and it left something out; else None.
        kept_remarks: by table, those of them that its rows do not say: they are told again where the rows are kept.
    """

    index: int
    tables: Mapping[str, list[Row]] = field(default_factory=dict)
    content: str | None = None
    same: bool = False
    error: SpectraError | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    budget_bytes: int | None = None
    remarks: Sequence[Remark] = ()
    kept_remarks: dict[str, list[Remark]] = field(default_factory=dict)


class EventSink(Protocol):
    """Receives the events of a worker's work."""

    def hear(self, event: Event) -> None:
        """Receive an event; remote workers may deliver it late, or only when a unit is finished."""
        ...


class Worker(Protocol):
    """Does assignments; used by one thread."""

    def outcomes(self, chunk: Chunk) -> Iterator[Outcome]:
        """Do the assignments of a chunk, in any order.

        An assignment that fails by what it is given is an outcome. What is raised is the end of the work: the code of a
        task is at fault, or spectra.
        """
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class Work(Protocol):
    """What is to be done, as it is sent to those that do it: can be pickled, and is small."""

    def worker(self, device: str, sink: EventSink) -> Worker:
        """Get ready in this process.

        Args:
            device: name of the device to work on.
            sink: told how the work goes on, live.

        Raises:
            SpectraError: if the device is not there, or the work cannot be begun.
        """
        ...

    def runs_read(self) -> Sequence[Run]:
        """Runs that are read; a machine that does the work has to see them."""
        ...


class Executor(Protocol):
    """Does work somewhere."""

    def outcomes(self, work: Work, chunks: Sequence[Chunk], sink: EventSink) -> Generator[Outcome, None, None]:
        """Do the work of all chunks; outcomes come as they are finished, each unit's once.

        Closing the iterator early stops the work. Work that is lost with a worker is done again by another.

        Raises:
            SpectraError: if it cannot go on.
        """
        ...
