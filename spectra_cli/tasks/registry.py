"""Makes tasks from their names on the command line or in a run.json."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from spectra_cli.errors import InputError, UsageError
from spectra_cli.tasks.base import MakeTask, Task
from spectra_cli.tasks.guarded import GuardedTask, blamed, forget_neighbours
from spectra_cli.tasks.localmodules import hashes_of_code
from spectra_cli.tasks.names import is_file_task, path_and_function
from spectra_cli.tasks.options import bound_options, option_parameters

GROUP = "spectra.tasks"
"""Entry points of this group are tasks; spectra's own are registered in the same way."""

OWN = "spectra-weights"
"""The distribution whose tasks no other one replaces."""

MEMBERS = ("splits", "model", "batches", "metrics")

SHOWN = 8
"""Names of a file's callables that an error lists."""


def task_names() -> list[str]:
    """Names of all installed tasks."""
    return sorted(_registered())


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
        remedy = f"Did you mean {' or '.join(near)}?" if near else f"Installed tasks: {', '.join(sorted(registered))}."
        raise UsageError(f"there is no task '{name}'", where=source, remedy=f"{remedy} A file is path/to/file.py:make")
    if not files_allowed:
        raise InputError(
            f"names the task '{name}', a file: code is loaded from a path only when the command line says so",
            where=source,
            remedy=f"If you trust it, pass --task {shlex.quote(name)}",
        )
    path, function = path_and_function(name)
    return _from_file(path, function, source), path


def task_version(name: str) -> str:
    """Version of the package that brings an installed task; "" for one of spectra's own, and where none is known."""
    entry = _registered().get(name)
    return "" if entry is None or entry.dist is None or entry.dist.name == OWN else entry.dist.version


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


def _from_file(path: Path, function: str, source: str) -> MakeTask:
    where = f"{source} {path}:{function}"
    if not path.is_file():
        raise UsageError("there is no such file", where=where, remedy="Mend the path")
    module = _loaded(path, function, where)
    make = getattr(module, function, None)
    if not callable(make):
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        defined = [name for name in names if getattr(vars(module)[name], "__module__", None) == module.__name__]
        raise UsageError(
            f"it has no callable '{function}'", where=where, remedy=_callables_to_name(path, function, defined)
        )
    return make  # type: ignore[no-any-return]  # what it makes is checked when it has been called


def _callables_to_name(path: Path, function: str, defined: Sequence[str]) -> str:
    """What to do where a file has no callable of a name: those that it has, the nearest first."""
    if not defined:
        return "Define a function that returns the task"
    near = difflib.get_close_matches(function, defined, n=1)
    ordered = [*near, *(name for name in defined if name not in near)]
    more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return f"Give {path}:NAME, where NAME is one of {', '.join(ordered[:SHOWN])}{more}"


def _loaded(path: Path, function: str, where: str) -> ModuleType:
    """The module of a file, whose code is run again only when it has changed, or that of a module which it imports."""
    resolved = str(path.resolve())
    version = (resolved, tuple(hashes_of_code(path).items()))
    if version in _MODULES:
        return _MODULES[version]
    forget_neighbours(path)
    name = f"spectra_task_{path.stem}_{hashlib.sha256(resolved.encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError("this is no Python file", where=where, remedy="Name a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    try:
        with blamed(f"{path}:{function}", path):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    _MODULES[version] = module
    return module


_MODULES: dict[tuple[str, tuple[tuple[str, str], ...]], ModuleType] = {}
"""Modules that have been loaded, by path and by the hashes of all code that belongs to it."""


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
