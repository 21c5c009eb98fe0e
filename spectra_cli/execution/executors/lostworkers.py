"""What becomes of the work of workers that die, wherever they are."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from spectra_cli.errors import CheckpointError
from spectra_cli.execution.work.units import Assignment, Chunk, Outcome

Attempt = Callable[[Sequence[Chunk], bool], Generator[Outcome, None, list[Assignment]]]
"""Does chunks, one at a time if it is told so; returns the assignments that were lost with workers that died."""

ATTEMPTS = 3
"""Attempts per assignment; the last one runs it alone."""

LOOK_S = 1.0
"""Seconds between two checks for workers that joined, left or died, or for a file that is waited for."""


class WorkerDiedError(CheckpointError):
    """An assignment has taken down every worker that tried it."""

    status = "worker_died"


class LostWorkerWarning(UserWarning):
    """A worker has died; what it was doing is done again."""


def with_retries(
    chunks: Sequence[Chunk], attempt: Attempt, death: Callable[[], str], remedy: str
) -> Generator[Outcome, None, None]:
    """Do chunks, and again what is lost with workers that die.

    Nobody knows which assignment a worker died of, nor whether it was one of its own: the kernel kills the process that
    holds most memory, which may be another. So all that were lost are done again once the others are finished, each by
    itself; and those that are lost again, one at a time with nothing beside them. What is lost then is the culprit.

    Args:
        chunks: to do.
        attempt: does them.
        death: how the last worker died, in a few words.
        remedy: what may help.
    """
    lost = yield from attempt(chunks, False)
    for number in range(2, ATTEMPTS + 1):
        lost = yield from attempt([(assignment,) for assignment in lost], number == ATTEMPTS)
    for assignment in lost:
        error = WorkerDiedError(
            f"its worker died, {ATTEMPTS} times, at last with nothing beside it ({death()})", remedy=remedy
        )
        yield Outcome(assignment.index, {table: [{"status": error.status}] for table in assignment.tables}, error=error)
