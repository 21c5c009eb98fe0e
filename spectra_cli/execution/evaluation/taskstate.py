"""What the numbers of a task's evaluation depend on, told without making the task or reading its data."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from spectra_cli.checkpoints.runs import Checkpoint, Run
from spectra_cli.execution.evaluation.taskruns import ChosenTask
from spectra_cli.execution.planning.options import Options, TaskOptions
from spectra_cli.execution.planning.recordedsettings import architecture_setting
from spectra_cli.execution.work.units import Assignment, Chunk
from spectra_cli.storage.places import Place, entries_of, is_directory, location
from spectra_cli.storage.secrets import recorded
from spectra_cli.tasks.registry import is_file_task, settled_name, task_version
from spectra_cli.tasks.runfile import DATA

TOKENIZERS = ("tokenizer", "vocab", "merges", "special_tok", "added_tok", "spiece", "sentencepiece", "spm", "tekken")
"""What the names of the files begin with that a tokenizer is kept in, beside the weights of a checkpoint."""

MOST_MODULES = 200
"""Files of Python beside that of a task which are looked at."""

MOST_FILES = 200_000
"""Of a directory of data; of a larger one, those that come first are looked at."""

State = list[Any]
"""As JSON may have it."""


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
    """What the user says of the task, by the names of the options; of code in a file, its bytes as well.

    Args:
        options: what was chosen.
        evaluates: whether anything is evaluated; if not, only what the model depends on.
    """
    said: dict[str, Any] = {
        "--task": None if options.task is None else settled_name(options.task),
        "the code of --task": _hash_of_code(options.task),
        "--set": [f"{name}={recorded(value)}" for name, value in sorted(options.settings.items()) if name != DATA],
        "--output-layer": options.output_layer,
    }
    if evaluates:
        data = options.settings.get(DATA)
        said["--data"] = None if data is None else recorded(str(data))
        said |= {"--split": sorted(set(options.splits)), "--batch-norm": options.batch_norm}
    return said


def _hash_of_code(name: str | None) -> str | None:
    if name is None or not is_file_task(name):
        return None
    path = Path(settled_name(name).rpartition(":")[0])
    if not path.is_file():
        return None
    code = hashlib.sha256(path.read_bytes())
    for beside in sorted(path.parent.glob("*.py"))[:MOST_MODULES]:  # it may import them
        if beside != path and beside.is_file():
            code.update(b"\0" + os.fsencode(beside.name) + b"\0" + beside.read_bytes())
    return code.hexdigest()[:16]


class TaskStates:
    """Looks at what tasks depend on besides the options of a command line; at every directory once."""

    def __init__(self) -> None:
        self._listings: dict[str, State] = {}
        self._versions: dict[str, str] = {}

    def of(self, chosen: ChosenTask, run: Run, checkpoint: Checkpoint) -> State:
        """What the rows of one checkpoint depend on by the task of its run.

        That is what the run.json says, the version of the package of an installed task, size and time of the files that
        options name (of a directory, of all that is in it), and those of tokenizers beside the checkpoint.
        """
        if chosen.name not in self._versions:
            self._versions[chosen.name] = task_version(chosen.name)
        return [
            [settled_name(chosen.name), self._versions[chosen.name], dict(chosen.settings), chosen.seed],
            [self._file(value) for name, value in sorted(chosen.settings.items()) if _is_path(name, value)],
            self._tokenizers(run, checkpoint),
        ]

    def _file(self, given: Any) -> State:
        path = os.path.expanduser(os.fspath(given))
        try:
            if os.path.isdir(path):
                return self._tree(path)
            status = os.stat(path)
        except OSError:
            return [path]
        return [path, status.st_size, status.st_mtime_ns]

    def _tree(self, directory: str) -> State:
        """Names, sizes and times of all files in a directory and below it; links to directories are not followed."""
        if directory not in self._listings:
            found: State = []
            for parent, directories, names in os.walk(directory):
                directories.sort()
                for name in sorted(names):
                    path = os.path.join(parent, name)
                    with suppress(OSError):  # who works will say so
                        status = os.stat(path)
                        found.append([os.path.relpath(path, directory), status.st_size, status.st_mtime_ns])
                if len(found) >= MOST_FILES:
                    break
            self._listings[directory] = found
        return self._listings[directory]

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


def _is_path(name: str, value: Any) -> bool:
    """Whether an option of a task is one of a file or a directory."""
    if not isinstance(value, str | os.PathLike) or "://" in os.fspath(value):
        return False
    text = os.fspath(value)
    return name == DATA or os.sep in text or os.path.exists(os.path.expanduser(text))


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
