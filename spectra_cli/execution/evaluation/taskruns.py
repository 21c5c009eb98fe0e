"""The task of a run: what its run.json says, or what the command line says."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spectra_cli.canonicaljson import canonical_json
from spectra_cli.checkpoints.runs import Checkpoint, Run
from spectra_cli.errors import InputError, UsageError
from spectra_cli.execution.planning.options import TaskOptions
from spectra_cli.storage.copies import local_directory
from spectra_cli.storage.places import Place, location, place_of
from spectra_cli.storage.secrets import recorded
from spectra_cli.tasks.base import MakeTask, Task
from spectra_cli.tasks.names import same_task
from spectra_cli.tasks.registry import checkpoint_option, find_task, make_task, task_names
from spectra_cli.tasks.runfile import DATA, NAME, RunRecord, check_own_storage, read_record

COPIED_SUFFIXES = (".json", ".txt", ".model", ".jinja", ".tiktoken")
"""Ends of the names of configurations and tokenizers beside the weights of a Hugging Face checkpoint."""


@dataclass(frozen=True, slots=True)
class ChosenTask:
    """A task by its name and settings, not made yet.

    Attributes:
        name: of the task.
        settings: its options.
        files_allowed: whether the command line named it.
        source: where the name stands, for errors.
        checkpoint_option: the option that takes the directory of a checkpoint, if there is one and it is not set.
        overruled: what the run.json says and the command line overrules, for errors.
        seed: that the model of the run was made with; 0 where it is not known.
        remark: what the user should know of the choice, or "".
        record: the run.json that has the settings but for those given; None if all are of the command line.
        given: names of the settings that the command line gives.
    """

    name: str
    settings: Mapping[str, Any]
    files_allowed: bool
    source: str
    checkpoint_option: str | None = None
    overruled: Sequence[str] = ()
    seed: int = 0
    remark: str = ""
    record: str | None = None
    given: frozenset[str] = frozenset()

    @property
    def key(self) -> str:
        """A key that is equal for tasks that need not be made twice."""
        return canonical_json([self.name, self.settings])

    @property
    def model_key(self) -> tuple[str, int]:
        """A key that is equal for models that need not be made twice."""
        return self.key, self.seed

    def make(self) -> Task:
        """Make the task.

        Raises:
            InputError: if an option that a run.json has is wrong.
            SpectraError: as :func:`spectra_cli.tasks.registry.make_task`.
        """
        with self._blaming_the_record():
            settings = self._with_files_here()
            return make_task(self.name, settings, files_allowed=self.files_allowed, source=self.source)

    def _with_files_here(self) -> Mapping[str, Any]:
        """The settings, with a copy of a remote directory that the task's library is to read."""
        option = checkpoint_option(self.find())
        given = self.settings.get(option) if option else None
        if option is None or not isinstance(given, str):
            return self.settings
        directory = place_of(given)
        if isinstance(directory, Path):
            return self.settings
        return {**self.settings, option: str(local_directory(directory, COPIED_SUFFIXES))}

    def find(self) -> MakeTask:
        """The callable that makes the task.

        Raises:
            InputError: if a run.json names a task that does not exist.
            SpectraError: as :func:`spectra_cli.tasks.registry.find_task`.
        """
        with self._blaming_the_record():
            return find_task(self.name, files_allowed=self.files_allowed, source=self.source)[0]

    @contextmanager
    def _blaming_the_record(self) -> Iterator[None]:
        """A context in which errors name the run.json, unless they are about what the command line gives."""
        try:
            yield
        except UsageError as error:
            of_the_command = self.source == "--task" and error.where is not None and error.where.startswith("--task")
            if self.record is None or of_the_command or self.given & set(re.findall(r"\w+", error.what)):
                raise
            remedy = "Mend it, or say otherwise with --task and --set"
            nearest = (
                "" if error.remedy is None else f"{error.remedy.rstrip('.?')}{'?' * error.remedy.endswith('?') or '.'} "
            )
            raise InputError(error.what, where=self.record, remedy=nearest + remedy) from error

    def for_checkpoint(self, run: Run, checkpoint: Checkpoint) -> ChosenTask:
        """The task with the directory of a checkpoint, if it wants one, such as hf-causal-lm."""
        if self.checkpoint_option is None:
            return self
        directory = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
        if not (directory / "config.json").is_file():
            directory = run.root
        return replace(self, settings={**self.settings, self.checkpoint_option: location(directory)})


def task_of_run(run: Run, checkpoint: Checkpoint, options: TaskOptions) -> ChosenTask:
    """The task of :func:`named_task`, with the directory of the checkpoint if it wants one.

    Raises:
        UsageError: if nothing says a task, or there is none of that name.
        InputError: if the run.json is broken, or names a file.
        TaskError: if the file of the task raises when it is loaded.
    """
    chosen = named_task(run, checkpoint, options)
    option = checkpoint_option(chosen.find())
    if option is None or option in chosen.settings:
        return chosen
    return replace(chosen, checkpoint_option=option).for_checkpoint(run, checkpoint)


def named_task(run: Run, checkpoint: Checkpoint, options: TaskOptions) -> ChosenTask:
    """The task that a run was trained on, or that the user says, as it is named: no code of it is loaded.

    Where the user names the task that run.json names, the options of run.json hold as well; where another one, a remark
    says that they do not.

    Args:
        run: with its directory, where ``run.json`` stands.
        checkpoint: of the run.
        options: of the command line.

    Raises:
        UsageError: if neither says a task.
        InputError: if the run.json is broken, or names remote storage elsewhere.
    """
    record, source = _found_record(run, checkpoint, needed=options.task is None)
    overruled = _overruled(record, options)
    if options.task is not None:
        same = record is not None and same_task(options.task, record.task)
        own = record.options if record is not None and same else {}
        remark = "" if record is None or same else _told_unused(options.task, record, source)
        settings = {**own, **options.settings}
        chosen = ChosenTask(options.task, settings, True, "--task", overruled=overruled, remark=remark)
        chosen = replace(chosen, record=str(source) if own else None, given=frozenset(options.settings))
    elif record is None:
        raise UsageError(
            f"there is no {NAME} that says what it was trained on",
            where=str(run.root),
            remedy=f"Pass --task with one of {', '.join(task_names())}, or path/to/file.py:make",
        )
    else:
        settings = {**record.options, **options.settings}
        chosen = ChosenTask(record.task, settings, False, str(source), overruled=overruled)
        chosen = replace(chosen, record=str(source), given=frozenset(options.settings))
    if record is not None and chosen.record is not None:
        check_own_storage(record.options, options.settings, run.root, str(source))
    _check_data(chosen, options, source)
    return chosen if record is None else replace(chosen, seed=model_seed(record, source.parent))


def _told_unused(task: str, record: RunRecord, source: Place) -> str:
    """A note that the options of a run.json are not used; "" if it has none."""
    if not record.options:
        return ""
    options = ", ".join(f"{name}={recorded(value)}" for name, value in record.options.items())
    return f"{source} says that the run was trained on {record.task}: its options ({options}) are not used for {task}."


def model_seed(record: RunRecord, directory: Place) -> int:
    """The seed that the model of a run was made with, which decides what is random in it and in no checkpoint.

    A branch has the model of its trunk: the trunk's seed, if its run.json is still there.

    Args:
        record: of the run.
        directory: where its run.json stands.

    Returns:
        0 where no seed is known.
    """
    seen: set[Place] = set()
    while record.trunk is not None:
        directory = (directory / record.trunk).resolve()
        if directory in seen:
            break
        seen.add(directory)
        try:
            trunk = read_record(directory)
        except InputError:
            break
        if trunk is None:
            break
        record = trunk
    seed = record.seed or 0
    return seed if 0 <= seed < 1 << 63 else 0


def _overruled(record: RunRecord | None, options: TaskOptions) -> list[str]:
    """Statements of a run.json about the task that the command line overrules."""
    if record is None:
        return []
    if options.task is not None and not same_task(options.task, record.task):
        return [f"the task {record.task}, not {options.task}"]
    return [
        f"{name}={recorded(record.options[name])}, not {recorded(value)}"
        for name, value in options.settings.items()
        if name in record.options and str(record.options[name]).lower() != str(value).lower()
    ]


def _check_data(chosen: ChosenTask, options: TaskOptions, source: Place) -> None:
    """Check that the data of a run.json, whose path was made absolute where the run was trained, are there.

    Raises:
        InputError: if they are not, and the user does not say where they are.
    """
    data = chosen.settings.get(DATA)
    if DATA in options.settings or not isinstance(data, str) or not os.path.isabs(data) or os.path.exists(data):
        return
    raise InputError(f"says data={data}, which does not exist", where=str(source), remedy="Pass --data with their path")


def record_of(run: Run, checkpoint: Checkpoint) -> RunRecord | None:
    """What the run.json of a run says: of one in the checkpoint's directory, beside it, or in the run's directory.

    Raises:
        InputError: if it is broken.
    """
    return _found_record(run, checkpoint, needed=True)[0]


def _found_record(run: Run, checkpoint: Checkpoint, *, needed: bool) -> tuple[RunRecord | None, Place]:
    """What the nearest run.json says, and where it stands; unless it is needed, a broken one is as good as none."""
    own: list[Place] = [checkpoint.path] if checkpoint.path.is_dir() else []
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
