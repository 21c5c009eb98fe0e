"""Whoever is told how the work goes on: a progress bar, or nobody."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Protocol

from spectra_cli.layers.matricize import MatrixSpec

PACKAGE = f"{__name__.partition('.')[0]}."


class Problems(Protocol):
    """Told what could not be used."""

    def problem(self, message: str) -> None:
        """Something could not be used; the rest goes on."""


class Listener(Problems, Protocol):
    """Told how the work goes on."""

    def checkpoint_opened(self, specs: Sequence[MatrixSpec]) -> None:
        """The matrices of a checkpoint are known and about to be factorized."""

    def matrix_done(self, spec: MatrixSpec) -> None:
        """One matrix is finished, well or not."""

    def checkpoint_done(self) -> None:
        """One checkpoint is finished, well or not."""


class EvaluationListener(Problems, Protocol):
    """Told how a work goes on that consists in evaluations of a model."""

    def progressed(self, what: str, done: float, total: float) -> None:
        """The work goes on.

        Args:
            what: is evaluated now, in a few words for people.
            done: sets of weights that have been evaluated; of one that is being evaluated, a part.
            total: sets of weights to evaluate.
        """

    def notice(self, message: str) -> None:
        """There is something to know of the task, such as where its data come from."""


class Silent:
    """A listener that passes problems on as Python warnings and says nothing else."""

    def checkpoint_opened(self, specs: Sequence[MatrixSpec]) -> None:
        """Say nothing."""

    def matrix_done(self, spec: MatrixSpec) -> None:
        """Say nothing."""

    def checkpoint_done(self) -> None:
        """Say nothing."""

    def progressed(self, what: str, done: float, total: float) -> None:
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
