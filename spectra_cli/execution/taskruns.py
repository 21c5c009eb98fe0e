"""The task of a run: what its run.json says, or what the command line says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spectra_cli.analyses.models import ModelMatrices, matrices_of_model, stored_states
from spectra_cli.checkpoints.config import read_config
from spectra_cli.checkpoints.open import open_checkpoint
from spectra_cli.checkpoints.runs import Checkpoint, Run
from spectra_cli.errors import CheckpointError, InputError, MemoryBudgetError, SpectraError, UsageError
from spectra_cli.execution.options import Options, TaskOptions
from spectra_cli.tasks.base import Task
from spectra_cli.tasks.loading import load_strictly
from spectra_cli.tasks.registry import checkpoint_option, find_task, make_task, task_names
from spectra_cli.tasks.runfile import NAME, RunRecord, read_record


@dataclass(frozen=True, slots=True)
class ChosenTask:
    """A task by its name and settings, not made yet.

    Attributes:
        name: of the task.
        settings: its options.
        files_allowed: whether the command line named it.
        source: where the name stands, for errors.
        checkpoint_option: the option that takes the directory of a checkpoint, if there is one and it is not set.
    """

    name: str
    settings: Mapping[str, Any]
    files_allowed: bool
    source: str
    checkpoint_option: str | None = None

    @property
    def key(self) -> str:
        """Equal for tasks that need not be made twice."""
        return json.dumps([self.name, self.settings], sort_keys=True, default=str)

    def make(self) -> Task:
        """Make the task.

        Raises:
            SpectraError: as :func:`spectra_cli.tasks.registry.make_task`.
        """
        return make_task(self.name, self.settings, files_allowed=self.files_allowed, source=self.source)

    def for_checkpoint(self, run: Run, checkpoint: Checkpoint) -> ChosenTask:
        """The task with the directory of a checkpoint, if it wants one, such as hf-causal-lm."""
        if self.checkpoint_option is None:
            return self
        directory = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
        if not (directory / "config.json").is_file():
            directory = run.root
        return replace(self, settings={**self.settings, self.checkpoint_option: str(directory)})


def task_of_run(run: Run, checkpoint: Checkpoint, options: TaskOptions) -> ChosenTask:
    """The task that a run was trained on, or that the user says, for one of its checkpoints.

    Where the user names the task that run.json names, the options of run.json hold as well.

    Args:
        run: with its directory, where ``run.json`` stands.
        checkpoint: of the run.
        options: of the command line.

    Raises:
        UsageError: if neither says a task.
        InputError: if the run.json is broken.
    """
    record, source = _found_record(run, checkpoint, needed=options.task is None)
    if options.task is not None:
        own = record.options if record is not None and record.task == options.task else {}
        chosen = ChosenTask(options.task, {**own, **options.settings}, True, "--task")
    elif record is None:
        raise UsageError(
            f"there is no {NAME} that says what it was trained on",
            where=str(run.root),
            remedy=f"Pass --task with one of {', '.join(task_names())}, or path/to/file.py:make",
        )
    else:
        chosen = ChosenTask(record.task, {**record.options, **options.settings}, False, str(source))
    make, _ = find_task(chosen.name, files_allowed=chosen.files_allowed, source=chosen.source)
    option = checkpoint_option(make)
    if option is not None and option not in chosen.settings:
        chosen = replace(chosen, checkpoint_option=option)
    return chosen.for_checkpoint(run, checkpoint)


def record_of(run: Run, checkpoint: Checkpoint) -> RunRecord | None:
    """What the run.json of a run says: of one in the checkpoint's directory, beside it, or in the run's directory.

    Raises:
        InputError: if it is broken.
    """
    return _found_record(run, checkpoint, needed=True)[0]


def _found_record(run: Run, checkpoint: Checkpoint, *, needed: bool) -> tuple[RunRecord | None, Path]:
    """What the nearest run.json says, and where it stands; unless it is needed, a broken one is as good as none."""
    own = [checkpoint.path] if checkpoint.path.is_dir() else []
    for place in dict.fromkeys([*own, checkpoint.path.parent, run.root]):
        try:
            record = read_record(place)
        except InputError:
            if needed:
                raise
            continue
        if record is not None:
            return record, place / NAME
    return None, run.root / NAME


def chosen_splits(task: Task, asked: Sequence[str]) -> list[str]:
    """The splits to evaluate, in the task's order.

    Raises:
        UsageError: if the task has none of a name asked for.
    """
    for split in asked:
        if split not in task.splits:
            raise UsageError(f"--split {split}: the task has none", remedy=f"Its splits are {', '.join(task.splits)}")
    return [split for split in task.splits if not asked or split in asked]


class ModelPool:
    """Tasks and their models: each is made once for all its uses, and let go of after the last of them.

    One model at a time is on the device; others that will be needed again wait on the CPU.

    Args:
        uses: the task of every use to come; all are made at once, as an error in the options should come before work.
        device: where models work.

    Raises:
        SpectraError: if not one of the tasks can be made.
    """

    def __init__(self, uses: Iterable[ChosenTask], device: torch.device) -> None:
        uses = list(uses)
        self._device = device
        self._left = Counter(chosen.key for chosen in uses)
        self._tasks: dict[str, Task] = {}
        self._errors: dict[str, SpectraError] = {}
        self._models: dict[str, nn.Module] = {}
        for chosen in uses:
            if chosen.key not in self._tasks and chosen.key not in self._errors:
                try:
                    self._tasks[chosen.key] = chosen.make()
                except SpectraError as error:
                    self._errors[chosen.key] = error
        if self._errors and not self._tasks:
            raise next(iter(self._errors.values()))

    def task(self, chosen: ChosenTask) -> Task:
        """The task itself.

        Raises:
            SpectraError: if it cannot be made.
        """
        if chosen.key in self._errors:
            raise self._errors[chosen.key]
        return self._tasks[chosen.key]

    def model(self, chosen: ChosenTask) -> nn.Module:
        """Its model on the device, in evaluation mode; with the weights that it was left with, random ones at first.

        Raises:
            MemoryBudgetError: if the device has no room for it.
            SpectraError: if the task's code raises.
        """
        for key, other in self._models.items():
            if key != chosen.key:
                other.to("cpu")
        if chosen.key not in self._models:
            self._models[chosen.key] = _new_model(self._tasks[chosen.key])
        try:
            return self._models[chosen.key].to(self._device).eval()
        except torch.OutOfMemoryError as error:
            raise MemoryBudgetError(
                f"the model does not fit on {self._device}", where=f"task {chosen.name}", remedy="Give --device cpu"
            ) from error

    def used(self, chosen: ChosenTask) -> None:
        """Count a use."""
        self._left[chosen.key] -= 1
        if not self._left[chosen.key]:
            self._tasks.pop(chosen.key, None)
            self._models.pop(chosen.key, None)


def _new_model(task: Task) -> nn.Module:
    """A task's model: what is random in it and in no checkpoint (buffers that are not saved) is the same every time."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return task.model()


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A task's model with the weights of a checkpoint.

    Attributes:
        model: where it was, the CPU if it is new.
        matrices: among its weights.
    """

    model: nn.Module
    matrices: ModelMatrices

    @property
    def state(self) -> dict[str, Tensor]:
        """Its weights and buffers, which share the model's memory."""
        return dict(self.model.state_dict())


def load_model(
    task: Task,
    run: Run,
    checkpoint: Checkpoint,
    options: Options,
    output_layer: str | None = None,
    *,
    model: nn.Module | None = None,
) -> LoadedModel:
    """Load a checkpoint into a task's model, strictly.

    Args:
        task: whose model.
        run: of the checkpoint.
        checkpoint: to load.
        options: what the user says of the model.
        output_layer: glob of the output layer's parameters; None to tell it from the model.
        model: of the task, whose weights are replaced; None for a new one.

    Raises:
        CheckpointError: if the checkpoint cannot be read, or does not fit the model (``state_mismatch``).
        SpectraError: if the task's code raises.
    """
    config = read_config(checkpoint.path, run.root)
    with open_checkpoint(checkpoint.path) as reader:
        states = stored_states(reader, config)
    model = _new_model(task) if model is None else model
    try:
        load_strictly(task, model, states)
    except CheckpointError as error:
        raise error.at(str(checkpoint.path)) from None
    matrices = matrices_of_model(
        model,
        config=config,
        transposed=options.transposed,
        structure=options.structure,
        output_layer=output_layer,
    )
    return LoadedModel(model, matrices)


def only_run(runs: Sequence[Run], given: str) -> Run:
    """The run behind a PATH that must hold one.

    Raises:
        InputError: if it holds several.
    """
    if len(runs) != 1:
        names = ", ".join(run.name for run in runs[:6])
        raise InputError(f"this holds {len(runs)} runs", where=given, remedy=f"Name one of them: {names}")
    return runs[0]
