"""What a table says in a few lines, run by run, gathered while it is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar

from spectra_cli.analyses.visits import Row


class RunSummary(Protocol):
    """What the rows of one run say; memory does not grow with the number of its checkpoints."""

    checkpoints: int

    def add(self, rows: Iterable[Row]) -> None:
        """Take in the rows of the next checkpoint in order."""
        ...

    def as_json(self) -> dict[str, Any]:
        """JSON form, for programs."""
        ...


OfRun = TypeVar("OfRun", bound=RunSummary)


class Summary(Generic[OfRun]):
    """What was done, in all runs.

    Args:
        of_run: makes the summary of a run.

    Attributes:
        rows: how many there are.
        statuses: how many rows have each.
        runs: by name.
    """

    def __init__(self, of_run: Callable[[], OfRun]) -> None:
        self.rows = 0
        self.statuses: Counter[str] = Counter()
        self.runs: dict[str, OfRun] = {}
        self._of_run = of_run

    def add(self, rows: Iterable[Row]) -> None:
        """Take in the rows of one checkpoint."""
        rows = list(rows)
        self.rows += len(rows)
        self.statuses.update(row["status"] for row in rows)
        for row in rows[:1]:
            if row["run"] not in self.runs:
                self.runs[row["run"]] = self._of_run()
            self.runs[row["run"]].add(rows)

    def as_json(self) -> dict[str, Any]:
        """JSON form, for programs."""
        return {
            "rows": self.rows,
            "statuses": dict(self.statuses),
            "runs": [{"run": name, **run.as_json()} for name, run in self.runs.items()],
        }
