"""From a name on the command line or in a run.json to a task."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from spectra_cli.errors import InputError, SpectraError, UsageError
from spectra_cli.tasks.base import Batch, MakeTask, Metric, Task
from spectra_cli.tasks.options import bound_options, option_parameters

GROUP = "spectra.tasks"
"""Entry points of this group are tasks; spectra's own are registered in the same way."""

OWN = "spectra-weights"
"""The distribution whose tasks no other one replaces."""

MEMBERS = ("splits", "model", "batches", "metrics")


class TaskError(SpectraError):
    """The code of a task that is not spectra's own raised an exception."""

    status = "task_failed"


def task_names() -> list[str]:
    """Names of all installed tasks."""
    return sorted(_registered())


def is_file_task(name: str) -> bool:
    """Whether a task is named by a file of Python and not by an installed task."""
    path, _, _ = name.rpartition(":")
    return name.endswith(".py") or path.endswith(".py") or os.sep in name


def make_task(name: str, settings: Mapping[str, Any], *, files_allowed: bool, source: str = "--task") -> Task:
    """Make a task.

    Args:
        name: of an installed task; or ``path/to/file.py:callable``, whose code is then run.
        settings: its options, as text or as values from JSON.
        files_allowed: whether the user named the task on the command line; a name from a file may only be that of an
            installed task.
        source: where the name was found, for errors.

    Raises:
        UsageError: if there is no such task, or an option is wrong.
        InputError: if a file is named where that is not allowed, or what is made is no task.
        TaskError: if the task's own code raises.
    """
    make, file = find_task(name, files_allowed=files_allowed, source=source)
    options = bound_options(make, settings, where=f"task {name}")
    if file is None and _is_own(name):
        return make(**options)
    with blamed(name, file):
        return GuardedTask(checked_task(make(**options), name), name, file)


def find_task(name: str, *, files_allowed: bool, source: str = "--task") -> tuple[MakeTask, Path | None]:
    """The callable that makes a task, and the file that it was loaded from.

    Raises:
        UsageError: if there is no such task.
        InputError: if a file is named where that is not allowed.
        TaskError: if the file or the package raises when it is loaded.
    """
    registered = _registered()
    if name in registered:
        with blamed(name, None):
            make = registered[name].load()
        if not callable(make):
            raise InputError(f"its entry point {registered[name].value} is no callable", where=f"task {name}")
        return make, None
    if not is_file_task(name):
        near = difflib.get_close_matches(name, registered, n=3)
        remedy = f"Did you mean {' or '.join(near)}" if near else f"Installed tasks: {', '.join(sorted(registered))}"
        raise UsageError(f"there is no task '{name}'", where=source, remedy=f"{remedy}. A file is path/to/file.py:make")
    if not files_allowed:
        raise InputError(
            f"names the task '{name}', a file: code is loaded from a path only when the command line says so",
            where=source,
            remedy=f"If you trust it, pass --task {name}",
        )
    path, colon, function = name.rpartition(":")
    if not colon or name.endswith(".py"):
        path, function = name, "make"
    return _from_file(Path(path), function), Path(path)


def checkpoint_option(make: MakeTask) -> str | None:
    """The option of a task that names the directory of a checkpoint, to be filled in where the user does not."""
    name = getattr(make, "checkpoint_option", None)
    return name if isinstance(name, str) and name in option_parameters(make) else None


def _registered() -> dict[str, EntryPoint]:
    """Installed tasks by name; spectra's own before those of others."""
    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.dist is not None and entry.dist.name == OWN):
        found[entry.name] = entry
    return found


def _is_own(name: str) -> bool:
    dist = _registered()[name].dist
    return dist is not None and dist.name == OWN


def _from_file(path: Path, function: str) -> MakeTask:
    if not path.is_file():
        raise UsageError("there is no such file", where=f"--task {path}:{function}", remedy="Mend the path")
    module = _loaded(path, f"--task {path}:{function}")
    make = getattr(module, function, None)
    if not callable(make):
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        defined = [name for name in names if getattr(vars(module)[name], "__module__", None) == module.__name__]
        near = difflib.get_close_matches(function, defined, n=1) or defined[:4]
        raise UsageError(
            f"it has no callable '{function}'",
            where=f"--task {path}:{function}",
            remedy=f"Name one of {', '.join(near)}" if near else "Define a function that returns the task",
        )
    return make  # type: ignore[no-any-return]  # what it makes is checked when it has been called


def _loaded(path: Path, where: str) -> ModuleType:
    """The module of a file, whose code is run again only when the file has changed."""
    stat, resolved = path.stat(), str(path.resolve())
    version = (resolved, stat.st_mtime_ns, stat.st_size)
    if version in _MODULES:
        return _MODULES[version]
    name = f"spectra_task_{path.stem}_{hashlib.sha256(resolved.encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError("this is no Python file", where=where, remedy="Name a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    directory = str(Path(resolved).parent)
    if directory not in sys.path:
        sys.path.insert(0, directory)  # so that the file can import its neighbours
    try:
        with blamed(where.removeprefix("--task "), path):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    _MODULES[version] = module
    return module


_MODULES: dict[tuple[str, int, int], ModuleType] = {}
"""Of files that have been loaded, by path, time and size."""


def checked_task(task: object, name: str) -> Task:
    """What a callable made, if it is a task.

    Raises:
        InputError: if it lacks a member, or its splits are no names.
    """
    lacking = [member for member in MEMBERS if not hasattr(task, member)]
    if lacking:
        raise InputError(
            f"makes a {type(task).__name__} without {', '.join(lacking)}",
            where=f"task {name}",
            remedy="Return an object with splits, model(), batches(split) and metrics(model, batch)",
        )
    splits = task.splits  # type: ignore[attr-defined]  # it has been looked for
    named = isinstance(splits, Sequence) and not isinstance(splits, str) and len(splits) > 0
    if not named or not all(isinstance(split, str) for split in splits) or len(set(splits)) < len(splits):
        raise InputError(
            f"its splits are {splits!r}",
            where=f"task {name}",
            remedy="Give a tuple of names, the training split first: ('train', 'val')",
        )
    return task  # type: ignore[return-value]  # its members have been checked


class GuardedTask:
    """A task of the user's: what its own code raises is told with the line of that code, not with ours.

    Args:
        task: the task.
        name: as the user gave it.
        file: that it was loaded from, if it was.
    """

    def __init__(self, task: Task, name: str, file: Path | None) -> None:
        self._task, self._name, self._file = task, name, file
        self.splits: Sequence[str] = tuple(task.splits)

    def model(self) -> nn.Module:
        """The task's model."""
        with blamed(self._name, self._file):
            model = self._task.model()
        if not isinstance(model, nn.Module):
            raise InputError(
                f"model() gives a {type(model).__name__}", where=f"task {self._name}", remedy="Return a torch.nn.Module"
            )
        return model

    def batches(self, split: str) -> Iterator[Batch]:
        """The task's batches."""
        with blamed(self._name, self._file):
            batches = iter(self._task.batches(split))
        while True:
            with blamed(self._name, self._file):
                try:
                    batch = next(batches)
                except StopIteration:
                    return
            yield batch

    def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, Metric]:
        """The task's metrics."""
        with blamed(self._name, self._file):
            return self._task.metrics(model, batch)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The task's loss."""
        with blamed(self._name, self._file):
            return self._task.loss(model, batch)  # type: ignore[attr-defined,no-any-return]  # only of a trainable task

    def training_batch(self, *arguments: Any) -> Batch:
        """The task's training batch."""
        with blamed(self._name, self._file):
            return self._task.training_batch(*arguments)  # type: ignore[attr-defined]  # as above

    def __getattr__(self, name: str) -> Any:
        """What only some tasks have: recipe, training_count, notice, and methods such as adapt."""
        if name.startswith("__") or "_task" not in self.__dict__:
            raise AttributeError(name)  # what copying and pickling look for
        value = getattr(self._task, name)
        if not callable(value):
            return value

        def guarded(*arguments: Any, **options: Any) -> Any:
            with blamed(self._name, self._file):
                return value(*arguments, **options)

        return guarded


@contextmanager
def blamed(name: str, file: Path | None) -> Iterator[None]:
    """Turn an exception in a task's code into one that shows the line of the task's file.

    Raises:
        TaskError: in place of any exception that is none of spectra's.
    """
    try:
        yield
    except SpectraError:
        raise
    except (Exception, SystemExit) as error:  # a script that ends in sys.exit() would end spectra
        raise TaskError(
            shortened_traceback(error, file), where=f"task {name}", remedy="SPECTRA_DEBUG=1 shows the whole traceback"
        ) from error


def shortened_traceback(error: BaseException, file: Path | None) -> str:
    """The exception and the innermost line of a file that led to it; without a file, of all that is not ours."""
    last = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return (
            f"{error.filename}, line {error.lineno}: {(error.text or '').strip()}: {type(error).__name__}: {error.msg}"
        )
    frames = traceback.extract_tb(error.__traceback__)
    own = list(_frames_of(frames, file)) if file is not None else []
    if not own:
        own = [frame for frame in frames if not any(part in frame.filename for part in _NOT_THE_USERS)]
    if not own:
        return last
    frame = own[-1]
    return f"{frame.filename}, line {frame.lineno}, in {frame.name}: {frame.line}: {last}"


_NOT_THE_USERS = (f"{os.sep}spectra_cli{os.sep}", f"{os.sep}importlib{os.sep}", "<frozen importlib")
"""Parts of the names of files in which no user looks for a fault of a task."""


def _frames_of(frames: Iterable[traceback.FrameSummary], file: Path) -> Iterator[traceback.FrameSummary]:
    for frame in frames:
        if os.path.realpath(frame.filename) == os.path.realpath(file):
            yield frame
