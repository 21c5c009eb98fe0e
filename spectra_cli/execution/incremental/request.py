"""The request for a work that makes tables, whatever they hold, and how a work begins once it is planned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from spectra_cli.execution.planning.options import ExecutionOptions, Options, PathLike

if TYPE_CHECKING:
    from spectra_cli.execution.executors.placement import Placement
    from spectra_cli.execution.incremental.filling import PreparedWork, Told
    from spectra_cli.execution.work.jobs import TableJob


@dataclass(frozen=True)
class TableRequest:
    """What is asked of a work that makes tables, beside what it is done on.

    A plan comes first, as PATHs may be wrong, and an error comes at once: importing this module imports no torch.

    Attributes:
        options: what the user chose.
        outs: the file or URL of each table to make; None to keep it in memory only.
        execution: where the work is done, and what becomes of tables that are there.
        directory: path or URL of one to make for the files, once it is known that there is something to do.
    """

    options: Options
    outs: Mapping[str, PathLike | None]
    execution: ExecutionOptions
    directory: str | None = None

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables to make."""
        return tuple(self.outs)

    @property
    def written(self) -> list[PathLike]:
        """The files, URLs and directories that are written."""
        return [out for out in (*self.outs.values(), self.directory) if out is not None]

    @cached_property
    def placement(self) -> Placement:
        """Where the work is done: found once, however often the work is planned anew.

        Raises:
            SpectraError: if it cannot be done there.
        """
        from spectra_cli.execution.executors.placement import placement_of  # noqa: PLC0415 - torch

        return placement_of(self.options.device, self.execution)

    def begun(
        self,
        job_of: Callable[[Told, str], TableJob],
        listener: Told,
        *,
        tags: Mapping[str, str | None],
        leave_out: Sequence[str],
    ) -> PreparedWork[Told]:
        """The work, ready to be done.

        Args:
            job_of: makes it of who is told how it goes on, and the device as files record it.
            listener: who is told.
            tags: extra columns, with the value of rows that do not say their own.
            leave_out: columns that only come when they are asked for, and were not.

        Raises:
            UsageError: if two tables would go to one file.
            SpectraError: if the work cannot be done where it is to be done.
        """
        from spectra_cli.execution.incremental.filling import PreparedWork  # noqa: PLC0415 - torch
        from spectra_cli.execution.incremental.writing import writing_of  # noqa: PLC0415 - pyarrow

        writing = writing_of(self.outs, tags, leave_out, self.execution, self.directory)
        return PreparedWork(job_of(listener, self.placement.device), listener, self.placement, writing)
