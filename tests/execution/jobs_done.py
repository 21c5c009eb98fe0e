"""Jobs done in this process without a table, and a listener that remembers."""

from __future__ import annotations

from spectra_cli.execution.executors.inprocess import InProcess
from spectra_cli.execution.work.events import Evaluated, Event
from spectra_cli.execution.work.jobs import TableJob
from spectra_cli.execution.work.units import Assignment, Outcome


class Heard:
    """A listener that remembers.

    Attributes:
        progress: what was evaluated, and the share of all units that was done by then.
        notices: told.
        problems: told.
    """

    def __init__(self) -> None:
        self.progress: list[tuple[str, float]] = []
        self.notices: list[str] = []
        self.problems: list[str] = []
        self._done = 0.0

    def expect(self, passes: int) -> None: ...

    def hear(self, event: Event) -> None:
        assert isinstance(event, Evaluated)
        self._done += event.share
        self.progress.append((event.what, self._done))

    def notice(self, message: str) -> None:
        self.notices.append(message)

    def problem(self, message: str) -> None:
        self.problems.append(message)


def all_done(job: TableJob, listener: Heard) -> list[Outcome]:
    """What comes of all units of a job, which takes note of them."""
    assignments = [Assignment(unit.index, job.tables) for unit in job.units]
    outcomes = []
    job.begin()
    for outcome in InProcess("cpu").outcomes(job.work(1, ()), job.chunks(assignments, 1), listener):
        job.take(outcome)
        outcomes.append(outcome)
    job.end()
    return outcomes
