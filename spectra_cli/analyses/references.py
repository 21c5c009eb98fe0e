"""Which checkpoint each checkpoint is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spectra_cli.checkpoints.runs import Checkpoint, Run, clock
from spectra_cli.checkpoints.steps import nearest, parse_count
from spectra_cli.errors import InputError, UsageError
from spectra_cli.storage.places import Place

FINAL, FIRST, PREVIOUS = "final", "first", "previous"


@dataclass(frozen=True, slots=True)
class Reference:
    """A checkpoint to compare others with, and the run it belongs to."""

    run: Run
    checkpoint: Checkpoint

    @property
    def columns(self) -> Mapping[str, object]:
        """The columns that name it."""
        return {
            "reference_run": self.run.name,
            "reference_checkpoint": self.checkpoint.name,
            "reference_step": self.checkpoint.step,
        }


@dataclass(frozen=True, slots=True)
class ReferenceChoice:
    """How references are chosen.

    Attributes:
        which: ``final``, ``first``, ``previous`` or a step (an epoch where the run has no steps).
        against: another run, whose checkpoint of the same step is the reference.

    Raises:
        UsageError: if `which` means nothing.
    """

    which: str = FINAL
    against: Run | None = None

    def __post_init__(self) -> None:
        if self.which not in {FINAL, FIRST, PREVIOUS} and parse_count(self.which) is None:
            raise UsageError(
                f"--reference {self.which} is no checkpoint", remedy="Write final, first, previous or a step"
            )

    def of(self, run: Run) -> dict[Place, Reference]:
        """The references of the selected checkpoints of a run, by path; those without one are absent."""
        if self.against is not None:
            return _paired(run, self.against)
        if self.which == PREVIOUS:
            pairs = zip(run.checkpoints[1:], run.checkpoints, strict=False)
            return {later.path: Reference(run, earlier) for later, earlier in pairs}
        fixed = self._fixed(run)
        return {} if fixed is None else {checkpoint.path: Reference(run, fixed) for checkpoint in run.checkpoints}

    def check(self, runs: tuple[Run, ...]) -> None:
        """See to it that there is something to compare.

        Raises:
            InputError: if no run has the step, or a previous checkpoint.
        """
        if self.which == PREVIOUS and all(len(run.checkpoints) < 2 for run in runs):
            raise InputError(
                "--reference previous: there is only one checkpoint", remedy="Give the PATH of a run with several"
            )
        if self.against is not None or self.which == PREVIOUS or any(self._fixed(run) for run in runs):
            return
        available = {time for run in runs for time in _times(run) if time is not None}
        listed = ", ".join(map(str, nearest(parse_count(self.which) or 0, available)))
        raise InputError(
            f"--reference {self.which}: no run has that step",
            remedy=f"Choose among the nearest: {listed}" if listed else "Choose final, first or previous",
        )

    def _fixed(self, run: Run) -> Checkpoint | None:
        """The one checkpoint that all of a run are compared with; None if it has no such step."""
        if self.which in {FINAL, FIRST}:
            return run.trajectory[0 if self.which == FIRST else -1]
        wanted = parse_count(self.which)
        at_step = [checkpoint for checkpoint, time in zip(run.trajectory, _times(run), strict=True) if time == wanted]
        return at_step[0] if at_step else None


def shares_steps(run: Run, other: Run) -> bool:
    """Whether two runs have checkpoints of one step, or of one epoch where either knows its epochs only."""
    theirs = {time for time, _ in _timed(other, run)}
    return any(time in theirs for time, _ in _timed(run, other))


def _paired(run: Run, other: Run) -> dict[Place, Reference]:
    theirs = dict(_timed(other, run))
    found = {
        checkpoint.path: Reference(other, theirs[time]) for time, checkpoint in _timed(run, other) if time in theirs
    }
    return found or {run.checkpoints[-1].path: Reference(other, other.checkpoints[-1])}


def _timed(run: Run, partner: Run) -> list[tuple[int, Checkpoint]]:
    """The checkpoints of a run with their times, of the kind that it has in common with another: steps or epochs."""
    by_step = clock((*run.checkpoints, *partner.checkpoints)) == "step"
    times = [(checkpoint.step if by_step else checkpoint.epoch, checkpoint) for checkpoint in run.checkpoints]
    return [(time, checkpoint) for time, checkpoint in times if time is not None]


def _times(run: Run) -> tuple[int | None, ...]:
    return Run(run.name, run.root, run.trajectory).times
