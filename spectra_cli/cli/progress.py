"""Progress over checkpoints and matrices, or over evaluations of a model, with the time that is left."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from spectra_cli.cli import output
from spectra_cli.cli.progressbar import ProgressBar
from spectra_cli.execution.work.events import CheckpointDone, CheckpointOpened, Evaluated, Event, MatrixDone


class Shown(ABC):
    """A bar on a terminal, else a line a minute, and problems printed as they come.

    Args:
        first: what is done first, in a few words.
        quiet: show problems only.
        told: what has been told before, and is not printed again.

    Attributes:
        problems: all that there are, for the summary.
    """

    def __init__(self, first: str, *, quiet: bool, told: set[str] | None = None) -> None:
        self._console = output.stderr_console()
        self._bar = ProgressBar(first, quiet=quiet)
        self._quiet = quiet
        self._told = set() if told is None else told
        self.problems: list[str] = []

    @abstractmethod
    def expect(self, passes: int) -> None:
        """Learn how much there is to do."""

    @abstractmethod
    def hear(self, event: Event) -> None:
        """Move the bar."""

    def __enter__(self) -> Self:
        self._bar.start()
        self._bar.begin()
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
            self._bar.show(event.what, self._done, self._units)

    def expect(self, passes: int) -> None:
        """Learn how many are to be evaluated."""
        self._units = passes


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
            case CheckpointOpened(matrices, flops):
                self._opened += 1
                self._known_cost += flops
                if self._opened - self._finished == 1:
                    self._matrices, self._matrices_done = 0, 0
                self._matrices += matrices
            case MatrixDone(flops):
                self._matrices_done += 1
                self._done_cost += flops
            case CheckpointDone():
                self._finished += 1
        self._show()

    def expect(self, passes: int) -> None:
        """Learn how many are to be opened, those that are opened twice counted twice."""
        self._checkpoints = passes

    def _show(self) -> None:
        unopened = self._checkpoints - max(self._opened, self._finished)
        each = self._known_cost / max(self._opened, 1)
        current = min(self._finished + 1, self._checkpoints)
        self._bar.show(
            f"checkpoint {current}/{self._checkpoints}, matrix {self._matrices_done}/{self._matrices}",
            self._done_cost,
            self._known_cost + max(unopened, 0) * each or None,
        )
