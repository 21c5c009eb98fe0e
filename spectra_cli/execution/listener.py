"""Whoever is told how the work goes on: a progress bar, or nobody."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Protocol

from spectra_cli.layers.matricize import MatrixSpec

PACKAGE = f"{__name__.partition('.')[0]}."


class Listener(Protocol):
    """Told how the work goes on."""

    def checkpoint_opened(self, specs: Sequence[MatrixSpec]) -> None:
        """The matrices of a checkpoint are known and about to be factorized."""

    def matrix_done(self, spec: MatrixSpec) -> None:
        """One matrix is finished, well or not."""

    def checkpoint_done(self) -> None:
        """One checkpoint is finished, well or not."""

    def problem(self, message: str) -> None:
        """Something could not be used; the rest goes on."""


class Silent:
    """A listener that passes problems on as Python warnings and says nothing else."""

    def checkpoint_opened(self, specs: Sequence[MatrixSpec]) -> None:
        """Say nothing."""

    def matrix_done(self, spec: MatrixSpec) -> None:
        """Say nothing."""

    def checkpoint_done(self) -> None:
        """Say nothing."""

    def problem(self, message: str) -> None:
        """Warn, at the line of the program that called spectra."""
        level, frame = 1, sys._getframe()
        while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(PACKAGE):
            level, frame = level + 1, frame.f_back
        warnings.warn(message, SkippedWorkWarning, stacklevel=level)


class SkippedWorkWarning(UserWarning):
    """A checkpoint or a matrix could not be used."""
