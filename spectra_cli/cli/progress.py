"""Progress over checkpoints and matrices, or over evaluations of a model, with the time that is left."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from spectra_cli.analyses.lanes import work_of
from spectra_cli.cli import output

if TYPE_CHECKING:
    from spectra_cli.layers.matricize import MatrixSpec


class _Bar:
    """A bar on a terminal, and problems printed above it as they come.

    Args:
        first: what is done first, in a few words.
        quiet: show problems only.

    Attributes:
        problems: what was printed, for the summary.
    """

    def __init__(self, first: str, *, quiet: bool) -> None:
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
        self._task = self._bar.add_task(first, total=None)
        self.problems: list[str] = []

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
        output.warn(message, self._console)


class EvaluationProgress(_Bar):
    """Shows how many of the evaluations of a model are done.

    Args:
        quiet: show problems only.
    """

    def __init__(self, *, quiet: bool) -> None:
        super().__init__("reading", quiet=quiet)
        self._quiet = quiet

    def notice(self, message: str) -> None:
        """Print what the task says of itself."""
        if not self._quiet:
            self._console.print(output.plain(message), soft_wrap=True)

    def progressed(self, what: str, done: float, total: float) -> None:
        """Move the bar."""
        self._bar.update(self._task, description=what, completed=done, total=total)


class ProgressListener(_Bar):
    """Shows how many matrices of how many checkpoints are done.

    The bar counts estimated floating-point operations, so that the time left is right for matrices of unequal size.
    Checkpoints that are still closed are taken to cost what the opened ones did.

    Args:
        checkpoints: how many there are.
        quiet: show problems only.
    """

    def __init__(self, checkpoints: int, *, quiet: bool) -> None:
        super().__init__("opening", quiet=quiet)
        self._checkpoints = checkpoints
        self._finished = 0
        self._opened = 0
        self._known_cost = 0.0
        self._done_cost = 0.0
        self._matrices = 0
        self._matrices_done = 0

    def checkpoint_opened(self, specs: Sequence[MatrixSpec]) -> None:
        """Learn what the checkpoint will cost."""
        self._opened += 1
        self._known_cost += sum(map(work_of, specs))
        self._matrices, self._matrices_done = len(specs), 0
        self._show()

    def matrix_done(self, spec: MatrixSpec) -> None:
        """Move the bar by one matrix."""
        self._matrices_done += 1
        self._done_cost += work_of(spec)
        self._show()

    def checkpoint_done(self) -> None:
        """Count one checkpoint."""
        self._finished += 1
        self._show()

    def _show(self) -> None:
        unopened = self._checkpoints - max(self._opened, self._finished)
        each = self._known_cost / max(self._opened, 1)
        current = min(self._finished + 1, self._checkpoints)
        self._bar.update(
            self._task,
            description=f"checkpoint {current}/{self._checkpoints}, matrix {self._matrices_done}/{self._matrices}",
            completed=self._done_cost,
            total=self._known_cost + unopened * each or None,
        )
