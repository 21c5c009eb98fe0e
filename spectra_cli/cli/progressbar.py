"""How far a command is: a bar on a terminal, a line a minute elsewhere, as in the log of a batch job."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import timedelta

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from spectra_cli.cli import output

LINE_S = 60.0
"""Seconds between two lines."""


class ProgressBar:
    """Shows what is being done, the share that is done, and the time that is left.

    Args:
        first: what is done first, in a few words.
        quiet: show nothing.
        total: of all that is to be done, in any unit; None while it is not known.
    """

    def __init__(self, first: str, *, quiet: bool, total: float | None = None) -> None:
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
        self._task = self._bar.add_task(first, total=total)
        self._prints_lines = not quiet and not self._console.is_terminal
        self.begin()

    def start(self) -> None:
        """Show it from now on."""
        self._bar.start()

    def stop(self) -> None:
        """Do not show it any more; a terminal that is gone shows nothing."""
        with suppress(OSError):
            self._bar.stop()

    def begin(self, completed: float = 0.0) -> None:
        """Reckon the time that is left from now on.

        Args:
            completed: what was done before.
        """
        self._begun = self._printed = time.monotonic()
        self._completed_before = completed

    def show(self, description: str, completed: float, total: float | None) -> None:
        """Move the bar, or print a line where it is time for one.

        Args:
            description: what is being done, in a few words.
            completed: what is done.
            total: of all that is to be done, in the same unit; None while it is not known.
        """
        self._bar.update(self._task, description=description, completed=completed, total=total)
        now = time.monotonic()
        if not self._prints_lines or now - self._printed < LINE_S:
            return
        self._printed = now
        line = f"{time.strftime('%H:%M:%S')} {description}"
        done = completed - self._completed_before
        if total and done > 0 and completed <= total:
            left_s = (now - self._begun) * (total - completed) / done
            line += f"; {completed / total:.0%} done, about {timedelta(seconds=round(left_s))} left"
        self._console.print(output.plain(line), soft_wrap=True)
