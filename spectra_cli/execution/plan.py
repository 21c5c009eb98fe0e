"""What is to be done, told before torch is imported: errors in a command line come at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from spectra_cli.checkpoints.discovery import Spec, discover_all
from spectra_cli.checkpoints.open import check_complete
from spectra_cli.checkpoints.runs import Run
from spectra_cli.checkpoints.selection import Selection
from spectra_cli.errors import CheckpointError, IncompleteCheckpointError
from spectra_cli.execution.options import Options


@dataclass(frozen=True, slots=True)
class Plan:
    """The checkpoints to analyse.

    Attributes:
        runs: each with at least one checkpoint.
        options: what the user chose.
        incomplete: checkpoints to go on without, by path.
    """

    runs: tuple[Run, ...]
    options: Options
    incomplete: Mapping[Path, IncompleteCheckpointError]

    @property
    def checkpoint_count(self) -> int:
        """Checkpoints to analyse, in all runs."""
        return sum(len(run.checkpoints) for run in self.runs)


def find_runs(paths: Iterable[Spec], selection: Selection) -> tuple[Run, ...]:
    """The runs behind PATHs, with the checkpoints selected; those without any are left out.

    Raises:
        SpectraError: if a PATH or the selection is wrong.
    """
    return tuple(run for run in selection.apply_all(discover_all(paths)) if run.checkpoints)


def make_plan(paths: Iterable[Spec], options: Options) -> Plan:
    """Find the checkpoints and check all sharded ones: an hour later is too late to learn of an absent file.

    Args:
        paths: PATHs of checkpoints, runs or directories of runs.
        options: what the user chose.

    Raises:
        SpectraError: if there is nothing to analyse, or a checkpoint is incomplete and may not be skipped.
    """
    runs = find_runs(paths, options.selection)
    incomplete: dict[Path, IncompleteCheckpointError] = {}
    checkpoints = [checkpoint for run in runs for checkpoint in run.checkpoints]
    for checkpoint in checkpoints:
        try:
            check_complete(checkpoint.path)
        except IncompleteCheckpointError as error:
            error.at(str(checkpoint.path))
            error.remedy = "Restore the missing files"
            if not options.skip_incomplete:
                if len(checkpoints) > 1:
                    error.remedy += ", or pass --skip-incomplete"
                raise
            incomplete[checkpoint.path] = error
        except CheckpointError:
            continue  # a row of its own when its turn comes
    return Plan(runs, options, incomplete)
