"""What a user named relative to a working directory, as a process with another one finds it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spectra_cli.analyses.references import Reference
from spectra_cli.checkpoints.runs import Checkpoint, Run
from spectra_cli.execution.evaluation.pairs import BarrierPlan, End
from spectra_cli.execution.planning.options import Options, TaskOptions
from spectra_cli.execution.planning.plan import Plan
from spectra_cli.storage.places import Place, place_of
from spectra_cli.tasks.registry import is_file_task
from spectra_cli.tasks.runfile import DATA


class Elsewhere:
    """Turns relative paths into those that hold in every working directory; URLs and absolute paths stay.

    Args:
        directory: that they are relative to.
    """

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)

    def plan(self, plan: Plan) -> Plan:
        """Checkpoints to analyse."""
        return replace(
            plan,
            runs=tuple(map(self._run, plan.runs)),
            options=self._options(plan.options),
            incomplete={self._place(path): error for path, error in plan.incomplete.items()},
            references=tuple(
                {self._place(path): self._reference(reference) for path, reference in references.items()}
                for references in plan.references
            ),
            against=None if plan.against is None else self._run(plan.against),
        )

    def pairs(self, plan: BarrierPlan) -> BarrierPlan:
        """Pairs to look between."""
        pairs = (replace(pair, ends=(self._end(pair.ends[0]), self._end(pair.ends[1]))) for pair in plan.pairs)
        return replace(plan, pairs=tuple(pairs), options=self._options(plan.options), task=self.task(plan.task))

    def task(self, options: TaskOptions) -> TaskOptions:
        """What the user says of a task: the file of its code, and its data."""
        named = options.task
        if named is not None and is_file_task(named):
            named = os.path.join(self._directory, named)
        return replace(options, task=named, settings=self._settings(options.settings))

    def _settings(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        data = settings.get(DATA)
        given = place_of(os.fspath(data)) if isinstance(data, str | os.PathLike) else None
        if not isinstance(given, Path) or not (self._directory / given).exists():  # such as ~/data, or none
            return settings
        return {**settings, DATA: str(self._directory / given)}

    def _options(self, options: Options) -> Options:
        structure = options.structure
        if structure.architecture is None or not str(structure.architecture).endswith(".toml"):
            return options
        described = os.path.join(self._directory, structure.architecture)
        return replace(options, structure=replace(structure, architecture=described))

    def _place(self, place: Place) -> Place:
        return self._directory / place if isinstance(place, Path) else place

    def _checkpoint(self, checkpoint: Checkpoint) -> Checkpoint:
        return replace(checkpoint, path=self._place(checkpoint.path))

    def _run(self, run: Run) -> Run:
        return replace(
            run,
            root=self._place(run.root),
            checkpoints=tuple(map(self._checkpoint, run.checkpoints)),
            trajectory=tuple(map(self._checkpoint, run.trajectory)),
        )

    def _reference(self, reference: Reference) -> Reference:
        return Reference(self._run(reference.run), self._checkpoint(reference.checkpoint))

    def _end(self, end: End | None) -> End | None:
        return None if end is None else End(self._run(end.run), self._checkpoint(end.checkpoint))
