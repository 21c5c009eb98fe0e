"""Listeners, which are told how the work goes on: a progress bar, or nobody."""

from __future__ import annotations

import sys
import warnings
from typing import Protocol

from spectra_cli.execution.work.events import Event

PACKAGE = f"{__name__.partition('.')[0]}."


class Problems(Protocol):
    """A listener that is told what could not be used."""

    def problem(self, message: str) -> None:
        """Tell what could not be used; the rest goes on."""


class Listener(Problems, Protocol):
    """A listener that is told how the work goes on."""

    def expect(self, passes: int) -> None:
        """Announce how often a checkpoint, or a pair, is going to be looked at; those that are kept do not count."""

    def hear(self, event: Event) -> None:
        """Receive an event: the work goes on."""

    def notice(self, message: str) -> None:
        """Tell something worth knowing where nothing is wrong, such as where a task's data come from."""


class Silent:
    """A listener that passes problems on as Python warnings and says nothing else."""

    def expect(self, passes: int) -> None:
        """Say nothing."""

    def hear(self, event: Event) -> None:
        """Say nothing."""

    def notice(self, message: str) -> None:
        """Say nothing."""

    def problem(self, message: str) -> None:
        """Warn, at the line of the program that called spectra."""
        level, frame = 1, sys._getframe()
        while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(PACKAGE):
            level, frame = level + 1, frame.f_back
        warnings.warn(message, SkippedWorkWarning, stacklevel=level)


class SkippedWorkWarning(UserWarning):
    """A checkpoint or a matrix could not be used."""
