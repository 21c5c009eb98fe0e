"""The checkpoints of all runs one after the other, in this process; a bad one is a row and not the end."""

from __future__ import annotations

import json
import shlex
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from spectra_cli import __version__
from spectra_cli.analyses.contents import inventory_of
from spectra_cli.analyses.rank import HARMLESS, Row, WorkPlace, rank_rows
from spectra_cli.checkpoints.open import open_checkpoint
from spectra_cli.checkpoints.runs import Checkpoint, Run
from spectra_cli.errors import CheckpointError, InputError, SpectraError
from spectra_cli.execution.device import resolve_device
from spectra_cli.execution.options import Options
from spectra_cli.execution.plan import Plan
from spectra_cli.layers.matricize import MatrixSpec
from spectra_cli.spectrum.memory import DEFAULT_SHARE, default_budget_bytes

NAMED_PARAMETERS = 6
NAMED_STRAYS = 3

NOTHING_SELECTED = "nothing_selected"
"""Status of a checkpoint that lacks the matrices asked for, which others have."""

WHY = {
    "not_finite": "they hold NaN or infinity.",
    "complex_dtype": "complex weights are not analysed.",
    "all_zero": "all weights are 0, so that only norms are defined.",
    "empty": "a side has length 0.",
    "out_of_range": "the singular values are beyond what float32 can hold.",
    "no_convergence": "LAPACK found no singular values.",
}
"""Of rows for which the analysis raises no error."""


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
        """Warn."""
        warnings.warn(message, SkippedWorkWarning, stacklevel=2)


class SkippedWorkWarning(UserWarning):
    """A checkpoint or a matrix could not be used."""


@dataclass(frozen=True, slots=True)
class CheckpointRows:
    """The rows of one checkpoint."""

    run: Run
    checkpoint: Checkpoint
    rows: list[Row]

    @property
    def usable(self) -> bool:
        """Whether all that was asked for could be computed."""
        return all(row["status"] in HARMLESS for row in self.rows)


class RankJob:
    """`spectra rank` on this machine.

    Args:
        plan: the checkpoints to analyse.
        listener: told how the work goes on.

    Raises:
        SpectraError: if the device is not there.
    """

    table = "rank"

    def __init__(self, plan: Plan, listener: Listener) -> None:
        self._plan = plan
        self._options = plan.options
        self._listener = listener
        self.place = place_of(plan.options)
        self._unmatched = list(plan.options.transposed)
        self._told: Counter[tuple[str, str]] = Counter()

    def metadata(self, command: Sequence[str]) -> dict[str, str]:
        """What the file records about its making, besides its schema."""
        return {
            "spectra.version": __version__,
            "spectra.command": shlex.join(command),
            "spectra.settings": json.dumps(self._options.recorded(), sort_keys=True),
            "spectra.device": _device_name(self.place.device),
            "spectra.torch": torch.__version__,
        }

    def results(self) -> Iterator[CheckpointRows]:
        """Analyse checkpoint after checkpoint.

        Raises:
            SpectraError: if not a single checkpoint could be used, or no parameter matches the selection.
        """
        first_error: SpectraError | None = None
        seen: list[str] = []
        lacking: list[str] = []
        done = matched = 0
        if missed := _missed(self._plan.runs):
            self._listener.problem(missed)
        for run in self._plan.runs:
            for checkpoint in run.checkpoints:
                try:
                    result, parameters = self._analyse(run, checkpoint)
                    done += 1
                    if result.rows[0]["status"] == NOTHING_SELECTED:
                        lacking.append(str(checkpoint.path))
                    else:
                        matched += 1
                    seen = seen or parameters
                except CheckpointError as error:
                    error.at(str(checkpoint.path))
                    first_error = first_error or error
                    if self._plan.checkpoint_count == 1:
                        raise
                    self._listener.problem(str(error))
                    result = CheckpointRows(run, checkpoint, [{"status": error.status}])
                self._listener.checkpoint_done()
                yield CheckpointRows(run, checkpoint, [{**_identity(run, checkpoint), **row} for row in result.rows])
            self._tell_repeated(run)
        for glob in self._unmatched:
            self._listener.problem(f"--transposed {glob} matches no parameter.")
        if done == 0 and first_error is not None:
            raise InputError(
                f"none of the {self._plan.checkpoint_count} checkpoints could be used; each is named above"
            ) from first_error
        if matched == 0:
            raise _nothing_selected(self._options, seen)
        if lacking:
            self._listener.problem(f"no matrix is left by --include and --exclude in {_shown(lacking)}.")

    def _analyse(self, run: Run, checkpoint: Checkpoint) -> tuple[CheckpointRows, list[str]]:
        if checkpoint.path in self._plan.incomplete:
            raise self._plan.incomplete[checkpoint.path]
        with open_checkpoint(checkpoint.path) as reader:
            inventory = inventory_of(reader, run, checkpoint, self._options.transposed)
            specs = inventory.selected(self._options.include, self._options.exclude)
            self._unmatched = [glob for glob in self._unmatched if not inventory.selected([glob], ())]
            self._listener.checkpoint_opened(list(specs.values()))

            first_errors: dict[str, SpectraError] = {}

            def on_problem(error: SpectraError, _parameter: str) -> None:
                first_errors.setdefault(error.status, error)

            rows = (
                [{"status": NOTHING_SELECTED}]
                if not specs
                else rank_rows(reader, specs, self.place, on_problem=on_problem, on_matrix=self._listener.matrix_done)
            )
        for message in _problems(rows, first_errors):
            self._once(run, checkpoint, message)
        return CheckpointRows(run, checkpoint, rows), [spec.parameter for spec in inventory.matrices]

    def _once(self, run: Run, checkpoint: Checkpoint, message: str) -> None:
        """Tell of the same matter in many checkpoints of a run once; how many there were comes at the run's end."""
        self._told[run.name, message] += 1
        if self._told[run.name, message] == 1:
            self._listener.problem(f"{checkpoint.path}: {message}")

    def _tell_repeated(self, run: Run) -> None:
        for (name, message), count in self._told.items():
            if name == run.name and count > 1:
                self._listener.problem(f"{run.root}: the same in {count - 1} more of its checkpoints: {message}")


def place_of(options: Options) -> WorkPlace:
    """Where the options have the work done.

    Raises:
        SpectraError: if the device is not there.
    """
    device = resolve_device(options.device)
    if options.budget_bytes is not None:
        return WorkPlace(device, options.budget_bytes)
    if device.type == "cuda":
        return WorkPlace(device, int(DEFAULT_SHARE * torch.cuda.mem_get_info(device)[0]))
    return WorkPlace(device, default_budget_bytes())


def _missed(runs: Sequence[Run]) -> str | None:
    """One sentence on what looks like a checkpoint and is passed over; None where nothing does."""
    strays = [stray for run in runs for stray in run.passed_over if stray.notable]
    if not strays:
        return None
    named = [f"{stray.path} ({stray.reason})" for stray in strays]
    count = "1 entry that looks" if len(strays) == 1 else f"{len(strays)} entries that look"
    return f"passed over {count} like a checkpoint: {_shown(named, NAMED_STRAYS)}; see `spectra inspect`."


def _identity(run: Run, checkpoint: Checkpoint) -> dict[str, Any]:
    return {"run": run.name, "checkpoint": checkpoint.name, "step": checkpoint.step, "epoch": checkpoint.epoch}


def _problems(rows: Sequence[Row], first_errors: Mapping[str, SpectraError]) -> Iterator[str]:
    """One sentence per status that is not ok: how many matrices, which, and why."""
    parameters: dict[str, list[str]] = {}
    for row in rows:
        if row["status"] != "ok" and "parameter" in row:
            parameters.setdefault(row["status"], []).append(row["parameter"])
    for status, named in parameters.items():
        why = first_errors.get(status) or WHY.get(status, "see the column status.")
        yield f"{len(named)} of {len(rows)} matrices {status} ({_shown(named)}): {why}"


def _shown(names: Sequence[str], most: int = NAMED_PARAMETERS) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _device_name(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def _nothing_selected(options: Options, parameters: Sequence[str]) -> InputError:
    globs = [f"--include {glob}" for glob in options.include] + [f"--exclude {glob}" for glob in options.exclude]
    return InputError(
        f"no matrix is left by {' '.join(globs)}", remedy=f"Choose among {_shown(parameters)}; quote globs in the shell"
    )
