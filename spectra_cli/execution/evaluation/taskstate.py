"""What the numbers of a task's evaluation depend on, told without making the task or reading its data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from spectra_cli.checkpoints.runs import Checkpoint, Run
from spectra_cli.errors import SpectraError
from spectra_cli.execution.evaluation.datafiles import DataFiles
from spectra_cli.execution.evaluation.taskruns import ChosenTask
from spectra_cli.execution.planning.options import Options, PathLike, TaskOptions
from spectra_cli.execution.planning.recordedsettings import architecture_setting
from spectra_cli.execution.work.units import Assignment, Chunk
from spectra_cli.storage.places import Place, entries_of, is_directory, location
from spectra_cli.storage.secrets import recorded
from spectra_cli.tasks.base import MakeTask
from spectra_cli.tasks.localmodules import hashes_of_code
from spectra_cli.tasks.names import is_file_task, path_and_function, settled_name
from spectra_cli.tasks.options import is_declared_path
from spectra_cli.tasks.registry import checkpoint_option, task_version
from spectra_cli.tasks.runfile import DATA

TOKENIZERS = ("tokenizer", "vocab", "merges", "special_tok", "added_tok", "spiece", "sentencepiece", "spm", "tekken")
"""Beginnings of the names of files that hold a tokenizer, beside the weights of a checkpoint."""

State = list[Any]
"""A state as a list that JSON can hold."""


def model_settings(options: Options, device: str) -> dict[str, Any]:
    """What the user says of the model and its matrices, by the names of the options.

    Args:
        options: what was chosen.
        device: where the work is done, as files record it.
    """
    return {
        "--include": list(options.include),
        "--exclude": list(options.exclude),
        "--transposed": list(options.transposed),
        "--architecture": architecture_setting(options.structure.architecture),
        "the class of the device": device.partition(":")[0],
    }


def task_settings(options: TaskOptions, *, evaluates: bool) -> dict[str, Any]:
    """What the user says of the task, by the names of the options; of code in a file, the hashes of its files as well.

    Args:
        options: what was chosen.
        evaluates: whether anything is evaluated; if not, only what the model depends on.
    """
    said: dict[str, Any] = {
        "--task": None if options.task is None else settled_name(options.task),
        "the code of --task": _hashes_of_code(options.task),
        "--set": [f"{name}={recorded(value)}" for name, value in sorted(options.settings.items()) if name != DATA],
        "--output-layer": options.output_layer,
    }
    if evaluates:
        data = options.settings.get(DATA)
        said["--data"] = None if data is None else recorded(str(data))
        said |= {"--split": sorted(set(options.splits)), "--batch-norm": options.batch_norm}
    return said


def _hashes_of_code(name: str | None) -> dict[str, str] | None:
    """Hashes of a task's file and of the local modules that it imports, by name; None for an installed task."""
    if name is None or not is_file_task(name):
        return None
    return hashes_of_code(path_and_function(name)[0])


class TaskStates:
    """Looks at what tasks depend on besides the options of a command line; at every directory once.

    Args:
        written: files, URLs and directories that the command writes.
        runs: those that are evaluated.
    """

    def __init__(self, written: Iterable[PathLike] = (), runs: Iterable[Run] = ()) -> None:
        self._data = DataFiles(written, runs)
        self._listings: dict[str, State] = {}
        self._versions: dict[str, str] = {}
        self._makes: dict[str, MakeTask | None] = {}

    def of(self, chosen: ChosenTask, run: Run, checkpoint: Checkpoint) -> State:
        """What the rows of one checkpoint depend on by the task of its run.

        That is what the run.json says, the version of the package of an installed task, size and time of the files of
        data (of a directory, of those that :class:`DataFiles` looks at), and of tokenizers beside the checkpoint. Data
        are what the option ``data`` names, and what other options name that is there; the declared choices of an option
        name nothing. Of a list, as of text with commas, each item may name one.
        """
        if chosen.name not in self._versions:
            self._versions[chosen.name] = task_version(chosen.name)
        items = [(name, item) for name, value in sorted(chosen.settings.items()) for item in _items(value)]
        paths = [self._path(chosen, name, item) for name, item in items]
        return [
            [settled_name(chosen.name), self._versions[chosen.name], dict(chosen.settings), chosen.seed],
            [self._data.state(path) for path in paths if path is not None],
            self._tokenizers(run, checkpoint),
        ]

    def _path(self, chosen: ChosenTask, name: str, value: Any) -> str | None:
        """The file or directory that an option of a task names; None if it names none."""
        if not isinstance(value, str | os.PathLike) or "://" in os.fspath(value):
            return None
        text = os.fspath(value)
        path = os.path.expanduser(text)
        if name == DATA:
            return path
        if not text or not os.path.exists(path):  # the task is not even looked up for most options
            return None
        declared = True if isinstance(value, os.PathLike) else self._declared(chosen, name, text)
        return None if declared is False else path  # where a task does not say: needless work rather than old numbers

    def _declared(self, chosen: ChosenTask, name: str, value: str) -> bool | None:
        """Whether a value is a path by what a task says of its options; None where it does not say."""
        if chosen.name not in self._makes:
            try:
                self._makes[chosen.name] = chosen.find()
            except SpectraError:  # who works will say so
                self._makes[chosen.name] = None
        make = self._makes[chosen.name]
        if make is None:
            return None
        return name == checkpoint_option(make) or is_declared_path(make, name, value)

    def _tokenizers(self, run: Run, checkpoint: Checkpoint) -> State:
        own = checkpoint.path if is_directory(checkpoint.path) else checkpoint.path.parent
        return [self._listing(place, TOKENIZERS) for place in dict.fromkeys([own, run.root])]

    def _listing(self, directory: Place, beginnings: tuple[str, ...] = ("",)) -> State:
        """Names, sizes and times of what lies directly in a directory, with names that begin so."""
        key = str([location(directory), beginnings])
        if key not in self._listings:
            try:
                found = [entry for entry in entries_of(directory) if entry.name.startswith(beginnings)]
                states = [[entry.name, (status := entry.stat()).st_size, status.st_mtime_ns] for entry in found]
            except OSError:  # who works will say so
                states = []
            self._listings[key] = sorted(states)
        return self._listings[key]


def chunks_by_task(
    assignments: Sequence[Assignment], workers: int, task: Callable[[int], ChosenTask | None]
) -> list[Chunk]:
    """One chunk for one worker; for several, an assignment each, with those of one task in a row.

    A worker keeps the task that it had last.

    Args:
        assignments: in any order, which is kept within a task.
        workers: how many there are.
        task: of the unit with an index, if it has one.
    """
    if workers == 1:
        return [tuple(assignments)] if assignments else []
    together: dict[str, list[Assignment]] = {}
    for assignment in assignments:
        chosen = task(assignment.index)
        together.setdefault("" if chosen is None else chosen.key, []).append(assignment)
    return [(assignment,) for row in together.values() for assignment in row]


def _items(value: Any) -> list[Any]:
    """A value of an option, and its items where it is a list, or text that may be one."""
    if isinstance(value, list | tuple):
        return list(value)
    parts = value.split(",") if isinstance(value, str) and "," in value else []
    return [value, *filter(None, map(str.strip, parts))]
