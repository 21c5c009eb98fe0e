"""What a user names relative to a working directory, as a process with another one finds it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spectra_cli.analyses.references import Reference
from spectra_cli.checkpoints.runs import Checkpoint, Run
from spectra_cli.execution.planning.options import Options, TaskOptions
from spectra_cli.execution.planning.plan import Plan
from spectra_cli.storage.places import Place, place_of
from spectra_cli.tasks.names import is_file_task
from spectra_cli.tasks.runfile import DATA


@dataclass(frozen=True)
class WorkingDirectory:
    """The directory that the relative paths of a work are relative to: that of the process which makes it.

    It travels with the work. Its methods give what a process is to use in place of what it is given: the same where
    that is the working directory, and absolute paths elsewhere. URLs and absolute paths stay as they are.

    Attributes:
        path: absolute.
    """

    path: str = field(default_factory=os.getcwd)

    @property
    def is_current(self) -> bool:
        """Whether it is that of this process, so that relative paths hold."""
        return os.getcwd() == self.path

    def plan(self, plan: Plan) -> Plan:
        """Checkpoints to analyse."""
        if self.is_current:
            return plan
        return replace(
            plan,
            runs=tuple(map(self.run, plan.runs)),
            options=self.options(plan.options),
            incomplete={self._place(path): error for path, error in plan.incomplete.items()},
            references=tuple(
                {self._place(path): self._reference(reference) for path, reference in references.items()}
                for references in plan.references
            ),
            against=None if plan.against is None else self.run(plan.against),
        )

    def task(self, options: TaskOptions) -> TaskOptions:
        """What the user says of a task: the file of its code, and its data."""
        if self.is_current:
            return options
        named = options.task
        if named is not None and is_file_task(named):
            named = os.path.join(self.path, named)
        return replace(options, task=named, settings=self._settings(options.settings))

    def options(self, options: Options) -> Options:
        """What the user says of models: the file that describes an architecture."""
        structure = options.structure
        if self.is_current or structure.architecture is None or not str(structure.architecture).endswith(".toml"):
            return options
        described = os.path.join(self.path, structure.architecture)
        return replace(options, structure=replace(structure, architecture=described))

    def run(self, run: Run) -> Run:
        """A run, with its checkpoints."""
        return replace(
            run,
            root=self._place(run.root),
            checkpoints=tuple(map(self.checkpoint, run.checkpoints)),
            trajectory=tuple(map(self.checkpoint, run.trajectory)),
        )

    def checkpoint(self, checkpoint: Checkpoint) -> Checkpoint:
        """A checkpoint."""
        return replace(checkpoint, path=self._place(checkpoint.path))

    def _settings(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        data = settings.get(DATA)
        given = place_of(os.fspath(data)) if isinstance(data, str | os.PathLike) else None
        if not isinstance(given, Path) or not os.path.exists(os.path.join(self.path, given)):  # such as ~/data, or none
            return settings
        return {**settings, DATA: os.path.join(self.path, given)}

    def _place(self, place: Place) -> Place:
        return Path(self.path, place) if isinstance(place, Path) and not self.is_current else place

    def _reference(self, reference: Reference) -> Reference:
        return Reference(self.run(reference.run), self.checkpoint(reference.checkpoint))
