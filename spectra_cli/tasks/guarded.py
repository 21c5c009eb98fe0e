"""A task of the user's own code: what that code raises is told as its own, with the line that raised it."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from spectra_cli.errors import InputError, SpectraError
from spectra_cli.tasks.base import Batch, Metric, Task
from spectra_cli.tasks.memory import is_out_of_memory

_ABSENT = object()


class TaskError(SpectraError):
    """The code of a task that is not spectra's own raised an exception."""

    status = "task_failed"


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
            raise self._gives("model()", model, "a torch.nn.Module")
        if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
            raise InputError(
                "model() gives tensors on the device meta, which hold no numbers",
                where=f"task {self._name}",
                remedy="Make the model on the CPU",
            )
        return model

    def batches(self, split: str) -> Iterator[Batch]:
        """The task's batches."""
        with blamed(self._name, self._file):
            found: Any = self._task.batches(split)
        if not isinstance(found, Iterable) and not hasattr(found, "__getitem__"):
            raise self._gives("batches()", found, "an iterable of batches, or yield them")
        with blamed(self._name, self._file):
            batches = iter(found)
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

    def __getattr__(self, name: str) -> Any:
        """What only some tasks have: recipe, training_count, notice, and methods such as loss or adapt."""
        if name.startswith("__") or "_task" not in self.__dict__:
            raise AttributeError(name)  # what copying and pickling look for
        with blamed(self._name, self._file):
            value = getattr(self._task, name, _ABSENT)
            if value is _ABSENT and inspect.getattr_static(self._task, name, _ABSENT) is not _ABSENT:
                value = getattr(self._task, name)  # a property whose own code lacks an attribute: told as that
        if value is _ABSENT:
            raise AttributeError(f"the task {self._name} has no {name}")
        if not callable(value):
            self._check_value(name, value)
            return value

        def guarded(*arguments: Any, **options: Any) -> Any:
            with blamed(self._name, self._file):
                result = value(*arguments, **options)
            self._check_result(name, result)
            return result

        return guarded

    def _check_value(self, name: str, value: object) -> None:
        """Check a member of a name that means something to spectra.

        Raises:
            InputError: if it is not what :mod:`spectra_cli.tasks.base` says.
        """
        if name == "notice" and not (value is None or isinstance(value, str)):
            raise self._gives("notice", value, "a text, or None")
        if name == "training_count" and isinstance(value, bool):
            raise self._gives("training_count", value, "a number of examples")
        if name == "config" and value is not None:
            try:
                json.dumps(dict(value), allow_nan=False)  # type: ignore[call-overload]  # that is what is tried
            except (TypeError, ValueError, RecursionError) as error:
                raise InputError(
                    f"its config cannot be written as JSON: {_told(error)}",
                    where=f"task {self._name}",
                    remedy="Make it a dictionary of numbers, texts, lists and dictionaries",
                ) from error

    def _check_result(self, name: str, result: object) -> None:
        """The same of what a method gives."""
        if name == "loss":
            if not isinstance(result, Tensor) or not result.is_floating_point() or result.numel() != 1:
                shape = f" of shape {tuple(result.shape)}" if isinstance(result, Tensor) else ""
                raise self._gives("loss()", result, "the one number to minimize, as a tensor", shape)
            if torch.is_grad_enabled() and not result.requires_grad:
                raise InputError(
                    "loss() gives a tensor without gradient",
                    where=f"task {self._name}",
                    remedy="Compute it from the model's outputs, without detach(), item() or no_grad()",
                )
        if name == "adapt":
            named = isinstance(result, Mapping) and all(isinstance(key, str) for key in result)
            if not named or not all(isinstance(tensor, Tensor) for tensor in result.values()):  # type: ignore[attr-defined]  # a mapping
                raise self._gives("adapt()", result, "a dictionary of names and tensors")

    def _gives(self, member: str, value: object, wanted: str, more: str = "") -> InputError:
        return InputError(
            f"{member} gives a {type(value).__name__}{more}", where=f"task {self._name}", remedy=f"Return {wanted}"
        )


@contextlib.contextmanager
def blamed(name: str, file: Path | None) -> Iterator[None]:
    """A context for a task's code: an exception becomes one that shows the line of the task's file.

    What the code prints goes to stderr: stdout is for tables and JSON. Modules beside the file can be imported within,
    and are those of this file even where another task has neighbours of the same names.

    Raises:
        TaskError: in place of any exception that is none of spectra's.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr), _neighbours_of(file):
            yield
    except (SpectraError, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit of a script would end spectra; GeneratorExit, a loop; Rust panics, both
        if is_out_of_memory(error):
            raise  # what to do about it is known where it is caught
        raise TaskError(
            shortened_traceback(error, file), where=f"task {name}", remedy="SPECTRA_DEBUG=1 shows the whole traceback"
        ) from error


def shortened_traceback(error: BaseException, file: Path | None) -> str:
    """The exception and the innermost line of a file that led to it; without a file, of all that is not ours."""
    last = _told(error)
    if isinstance(error, SyntaxError) and error.filename:
        return (
            f"{error.filename}, line {error.lineno}: {(error.text or '').strip()}: {type(error).__name__}: {error.msg}"
        )
    tracebacks = [traceback.extract_tb(one.__traceback__) for one in _with_causes(error)]
    own = [list(_frames_of(frames, file)) if file is not None else [] for frames in tracebacks]
    own += [
        [frame for frame in frames if not any(part in frame.filename for part in _NOT_THE_USERS)]
        for frames in tracebacks
    ]
    frame = next((frames[-1] for frames in own if frames), None)
    if frame is None:
        return last
    return f"{frame.filename}, line {frame.lineno}, in {frame.name}: {frame.line}: {last}"


def _told(error: BaseException) -> str:
    """Type and words of an exception; its words may be code of the user's that raises as well."""
    try:
        words = str(error)
    except Exception as inner:  # noqa: BLE001 - of the user's code
        words = f"(its __str__ raises {type(inner).__name__})"
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """An exception, and those that led to it: of a generator that lets StopIteration out, only they know the line."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


_NEIGHBOURS: dict[str, dict[str, ModuleType]] = {}
"""Modules that the files of a directory have imported from beside them, by name."""


def forget_neighbours(file: Path) -> None:
    """Have what stands beside a file imported anew: it may have changed."""
    _NEIGHBOURS.pop(os.path.dirname(os.path.realpath(file)), None)
    importlib.invalidate_caches()


@contextlib.contextmanager
def _neighbours_of(file: Path | None) -> Iterator[None]:
    """Let a file's code import what stands beside it, and leave neither the path nor the modules to any other code."""
    directory = None if file is None else os.path.dirname(os.path.realpath(file))
    if directory is None or directory in sys.path:
        yield
        return
    own = _NEIGHBOURS.setdefault(directory, {})
    hidden = {name: sys.modules.get(name) for name in own}
    sys.modules.update(own)
    before = set(sys.modules)
    sys.path.insert(0, directory)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(directory)
        new = set(sys.modules) - before
        roots = {name for name in new if "." not in name and _stands_in(directory, sys.modules[name])} | own.keys()
        own |= {name: sys.modules[name] for name in new if name.partition(".")[0] in roots}
        for name in own:
            other = hidden.get(name)
            sys.modules.pop(name, None)
            if other is not None:
                sys.modules[name] = other


def _stands_in(directory: str, module: ModuleType) -> bool:
    """Whether a module is a file or a package in a directory, and not in one below it, such as an environment."""
    places = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", ())]
    return any(os.path.dirname(os.path.realpath(place)) == directory for place in places if place)


_NOT_THE_USERS = (
    *(f"{os.sep}{package}{os.sep}" for package in ("spectra_cli", "importlib", "importlib_metadata")),
    "<frozen importlib",
)
"""Parts of the names of files in which no user looks for a fault of a task."""


def _frames_of(frames: Iterable[traceback.FrameSummary], file: Path) -> Iterator[traceback.FrameSummary]:
    for frame in frames:
        if os.path.realpath(frame.filename) == os.path.realpath(file):
            yield frame
