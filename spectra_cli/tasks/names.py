"""What tasks are called, and whether two names mean one; no task is made, and torch is not imported."""

from __future__ import annotations

import os
from pathlib import Path


def is_file_task(name: str) -> bool:
    """Whether a task is named by a file of Python and not by an installed task."""
    path, _, _ = name.rpartition(":")
    return name.endswith(".py") or path.endswith(".py") or os.sep in name


def settled_name(name: str) -> str:
    """The name of a task that holds in every directory: a file's path absolute, and its callable said."""
    if not is_file_task(name):
        return name
    path, function = path_and_function(name)
    return f"{os.path.realpath(path)}:{function}"


def same_task(name: str, recorded: str) -> bool:
    """Whether two names mean one task.

    Args:
        name: as the user gives it.
        recorded: as a run.json has it. A file that is no longer there has moved: one with its name is taken for it.
    """
    one, other = settled_name(name), settled_name(recorded)
    if one == other or not (is_file_task(name) and is_file_task(recorded)):
        return one == other
    moved = not path_and_function(other)[0].exists()
    return moved and os.path.basename(one) == os.path.basename(other)


def path_and_function(name: str) -> tuple[Path, str]:
    """The file that a name means, and the callable in it."""
    path, colon, function = name.rpartition(":")
    if not colon or name.endswith(".py"):
        return Path(name), "make"
    return Path(path), function
