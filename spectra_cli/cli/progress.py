"""Progress over checkpoints and matrices, or over evaluations of a model, with the time that is left."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from spectra_cli.cli import output
from spectra_cli.execution.work.events import CheckpointDone, Evaluated, Event, MatrixDone, Opened


class Shown(ABC):
    """A bar on a terminal, and problems printed above it as they come.

    Args:
        first: what is done first, in a few words.
        quiet: show problems only.
        told: what has been told before, and is not printed again.

    Attributes:
        problems: all that there are, for the summary.
    """

    def __init__(self, first: str, *, quiet: bool, told: set[str] | None = None) -> None:
        self._console = output.stderr_console()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )
        self._quiet = quiet
        self._told = set() if told is None else told
        self._task = self._bar.add_task(first, total=None)
        self.problems: list[str] = []

    @abstractmethod
    def kept(self, units: int) -> None:
        """Learn that some of what there is need not be done."""

    @abstractmethod
    def hear(self, event: Event) -> None:
        """Move the bar."""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def problem(self, message: str) -> None:
        """Print the problem above the bar and keep it for the summary."""
        self.problems.append(message)
        if message not in self._told:
            self._told.add(message)
            output.warn(message, self._console)

    def notice(self, message: str) -> None:
        """Print what people may like to know."""
        if not self._quiet:
            self._console.print(output.plain(message), soft_wrap=True)


class EvaluationProgress(Shown):
    """Shows how many of the evaluations of a model are done.

    Args:
        units: checkpoints or pairs to evaluate, of equal cost.
        quiet: show problems only.
        told: as for :class:`Shown`.
    """

    def __init__(self, units: int, *, quiet: bool, told: set[str] | None = None) -> None:
        super().__init__("reading", quiet=quiet, told=told)
        self._units = units
        self._done = 0.0

    def hear(self, event: Event) -> None:
        """Move the bar."""
        if isinstance(event, Evaluated):
            self._done += event.share
            self._bar.update(self._task, description=event.what, completed=self._done, total=self._units)

    def kept(self, units: int) -> None:
        """Learn that some need not be evaluated."""
        self._units -= units


class ProgressListener(Shown):
    """Shows how many matrices of how many checkpoints are done.

    The bar counts estimated floating-point operations, so that the time left is right for matrices of unequal size.
    Checkpoints that are still closed are taken to cost what the opened ones did.

    Args:
        checkpoints: how many there are.
        quiet: show problems only.
        told: as for :class:`Shown`.
    """

    def __init__(self, checkpoints: int, *, quiet: bool, told: set[str] | None = None) -> None:
        super().__init__("opening", quiet=quiet, told=told)
        self._checkpoints = checkpoints
        self._finished = 0
        self._opened = 0
        self._known_cost = 0.0
        self._done_cost = 0.0
        self._matrices = 0
        self._matrices_done = 0

    def hear(self, event: Event) -> None:
        """Move the bar; several checkpoints may be open at a time, in as many workers."""
        match event:
            case Opened(matrices, work):
                self._opened += 1
                self._known_cost += work
                if self._opened - self._finished == 1:
                    self._matrices, self._matrices_done = 0, 0
                self._matrices += matrices
            case MatrixDone(work):
                self._matrices_done += 1
                self._done_cost += work
            case CheckpointDone():
                self._finished += 1
        self._show()

    def kept(self, units: int) -> None:
        """Learn that some need not be read."""
        self._checkpoints -= units

    def _show(self) -> None:
        unopened = self._checkpoints - max(self._opened, self._finished)
        each = self._known_cost / max(self._opened, 1)
        current = min(self._finished + 1, self._checkpoints)
        self._bar.update(
            self._task,
            description=f"checkpoint {current}/{self._checkpoints}, matrix {self._matrices_done}/{self._matrices}",
            completed=self._done_cost,
            total=self._known_cost + max(unopened, 0) * each or None,
        )
