"""What discovery finds: runs, and the checkpoints of each in the order of training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Literal

from spectra_cli.checkpoints.steps import NaturalKey, natural_key
from spectra_cli.errors import InputError
from spectra_cli.storage.places import Place


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The weights of one moment of a run.

    Attributes:
        path: the file or directory to open.
        name: the path relative to the run's root, with forward slashes.
        step: None if neither the name nor the file says it.
        epoch: None if neither the name nor the file says it.
    """

    path: Place
    name: str
    step: int | None = None
    epoch: int | None = None


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A file or directory that lies in a run and is not one of its checkpoints.

    Attributes:
        path: where it lies.
        name: the path relative to the run's root, with forward slashes.
        reason: a few words for people.
        notable: whether it looks like a checkpoint, so that its owner may miss it.
    """

    path: Place
    name: str
    reason: str
    notable: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """The checkpoints of one training.

    Attributes:
        name: path of the run relative to the PATH given, ``.`` for PATH itself.
        root: the directory that the names of checkpoints are relative to.
        checkpoints: in the order of training; never empty as discovery returns it, unless a step was asked for that
            this run has not.
        passed_over: what else was found, in the order of names.
        trajectory: every checkpoint found, also where only some are selected, in the order of training.
    """

    name: str
    root: Place
    checkpoints: tuple[Checkpoint, ...]
    passed_over: tuple[PassedOver, ...] = ()
    trajectory: tuple[Checkpoint, ...] = ()

    def __post_init__(self) -> None:
        if not self.trajectory:
            object.__setattr__(self, "trajectory", self.checkpoints)

    @property
    def clock(self) -> Literal["step", "epoch"]:
        """What orders the checkpoints: ``epoch`` where one of them knows its epoch only, else ``step``."""
        return clock(self.checkpoints)

    @property
    def times(self) -> tuple[int | None, ...]:
        """Step of every checkpoint, or its epoch where the run is ordered by epochs; None if unknown."""
        by_step = self.clock == "step"
        return tuple(checkpoint.step if by_step else checkpoint.epoch for checkpoint in self.checkpoints)


def distinct(runs: list[Run]) -> list[Run]:
    """Check that names tell runs and checkpoints apart: those of remote storage leave out what may be a secret.

    Raises:
        InputError: if two have one name.
    """
    names = [(run.name, checkpoint.name) for run in runs for checkpoint in run.checkpoints]
    if len(set(names)) < len(names):
        run, checkpoint = next(name for name in names if names.count(name) > 1)
        raise InputError(
            "several checkpoints have this name, as user names and query parameters of URLs are not written down",
            where=checkpoint if run == "." else f"{run}/{checkpoint}",
            remedy="Analyse them one by one",
        )
    return runs


def clock(checkpoints: Iterable[Checkpoint]) -> Literal["step", "epoch"]:
    """What can order these checkpoints; see :attr:`Run.clock`."""
    epochs_only = any(checkpoint.step is None and checkpoint.epoch is not None for checkpoint in checkpoints)
    return "epoch" if epochs_only else "step"


def in_order(checkpoints: Iterable[Checkpoint]) -> tuple[Checkpoint, ...]:
    """Sort checkpoints by step, then epoch, then name with its numbers as numbers; what is unknown comes last.

    Where a checkpoint knows its epoch only, the epoch comes before the step.
    """
    checkpoints = tuple(checkpoints)
    by_epoch = clock(checkpoints) == "epoch"

    def key(checkpoint: Checkpoint) -> tuple[float, float, NaturalKey]:
        step = inf if checkpoint.step is None else checkpoint.step
        epoch = inf if checkpoint.epoch is None else checkpoint.epoch
        first, second = (epoch, step) if by_epoch else (step, epoch)
        return first, second, natural_key(checkpoint.name)

    return tuple(sorted(checkpoints, key=key))
