"""The files of data that an evaluation depends on, told by name, size and time."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from spectra_cli.checkpoints.runs import Run
from spectra_cli.errors import InputError
from spectra_cli.execution.planning.options import PathLike
from spectra_cli.regularfile import open_regular
from spectra_cli.storage.places import place_of, real
from spectra_cli.tables.recognition import recognise

MOST_FILES = 200_000
"""Limit for one directory; of a larger one, those that come first are looked at."""

_CACHES = frozenset({"__pycache__"})
"""Directories that running code makes."""


class DataFiles:
    """Looks at files and directories of data, at each once.

    Of a directory, all files in it and below it are looked at, but for what changes there while the data are the same:
    files and directories whose names begin with a dot, ``__pycache__``, tables of spectra (those that the command
    writes, whatever they are called, and files in ``.parquet`` that spectra wrote), the directories of the runs that
    are evaluated, and their checkpoints where the data lie in such a directory. Links to directories are not followed.

    Args:
        written: files, URLs and directories that the command writes.
        runs: those that are evaluated.
    """

    def __init__(self, written: Iterable[PathLike], runs: Iterable[Run]) -> None:
        self._written = [place_of(os.fspath(out)) for out in written]
        self._runs = list(runs)
        self._listings: dict[str, list[Any]] = {}

    def state(self, path: str) -> list[Any]:
        """Size and time of a file, or names, sizes and times of what is looked at in a directory.

        Args:
            path: of either; nothing need be there.
        """
        if path not in self._listings:
            self._listings[path] = self._state(path)
        return self._listings[path]

    def _state(self, path: str) -> list[Any]:
        if os.path.isdir(path):
            return self._tree(os.path.realpath(path))
        try:
            status = os.stat(path)
        except (OSError, ValueError):  # of a path with a null character
            return [path]
        return [path, status.st_size, status.st_mtime_ns]

    def _tree(self, directory: str) -> list[Any]:
        left_out = self._left_out(directory)

        def counts(parent: str, name: str) -> bool:
            return not name.startswith(".") and os.path.join(parent, name) not in left_out

        found: list[Any] = []
        for parent, directories, names in os.walk(directory):
            directories[:] = sorted(name for name in directories if name not in _CACHES and counts(parent, name))
            for name in sorted(names):
                path = os.path.join(parent, name)
                if not counts(parent, name) or (name.endswith(".parquet") and _is_table(path)):
                    continue
                try:
                    status = os.stat(path)
                except OSError:  # who works will say so
                    continue
                found.append([os.path.relpath(path, directory), status.st_size, status.st_mtime_ns])
            if len(found) >= MOST_FILES:
                break
        return found

    def _left_out(self, directory: str) -> set[str]:
        """What is not looked at in a directory, beside what names and contents tell."""
        roots = {run.root: real(run.root) for run in self._runs}
        around = {root for root, path in roots.items() if _lies_in(directory, path)}
        inner = {checkpoint.path for run in self._runs if run.root in around for checkpoint in run.trajectory}
        places = [place for place in {*self._written, *roots, *inner} if isinstance(place, Path)]
        names = {os.path.join(os.path.realpath(place.parent), place.name) for place in places}  # of links as well
        return names | {real(place) for place in places}


def _lies_in(directory: str, other: str) -> bool:
    """Whether a directory is another one, or lies in it."""
    return Path(directory).is_relative_to(other)


def _is_table(path: str) -> bool:
    """Whether spectra wrote a file."""
    try:
        with open_regular(Path(path)) as file:
            recognise(file)
    except (OSError, InputError):
        return False
    return True
