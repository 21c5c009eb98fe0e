"""Tables in files of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from spectra_cli.atomicfile import mode_of_new_files, remedy_of, sync_directory
from spectra_cli.errors import InputError
from spectra_cli.regularfile import open_regular
from spectra_cli.tables.companionfiles import is_partial, make_partial, shown_name

_WRITABLE = "Give --out a file in a directory that exists and may be written to"


class LocalTable:
    """A file of this machine. A link to a table stays a link: the table is what it leads to.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    @cached_property
    def _target(self) -> Path:
        return self._path.resolve()

    @property
    def journal_path(self) -> Path:
        """A hidden file beside the table."""
        return self._target.parent / f".{shown_name(self._target.name)}.journal"

    def exists(self) -> bool:
        """Whether anything is there.

        Raises:
            InputError: if it is a directory, a pipe or a device, or cannot be read.
        """
        file = self.open()
        if file is not None:
            file.close()
        return file is not None

    def open(self) -> BinaryIO | None:
        """Open the file for reading; None if there is none.

        Raises:
            InputError: if it is a directory, a pipe or a device, or cannot be read.
        """
        try:
            if self._path.exists() and not self._path.is_file():
                raise InputError(
                    "this is a directory, a pipe or a device", where=str(self), remedy="Give --out the name of a file"
                )
            return open_regular(self._path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unwritable(error) from error

    @contextmanager
    def read_local(self) -> Iterator[Path | None]:
        """A context with the file itself; None if there is none.

        Raises:
            InputError: if it is a directory, a pipe or a device, or cannot be read.
        """
        yield self._path if self.exists() else None

    def new_partial(self) -> Path:
        """Make an empty file beside it, with the permissions that a new file gets here.

        Raises:
            InputError: if the directory does not exist or may not be written to, or the disk is full.
        """
        try:
            return make_partial(self._target.name, self._target.parent, mode_of_new_files())
        except OSError as error:
            raise self._unwritable(error) from error

    def publish(self, partial: Path) -> None:
        """Rename a file that is beside it; when this returns, the new name is on the disk.

        Raises:
            InputError: if it cannot be renamed; what was there still is.
        """
        try:
            partial.replace(self._target)
        except OSError as error:
            raise self._unwritable(error) from error
        sync_directory(self._target.parent)

    def remove_leftovers(self) -> None:
        """Remove what is beside it, is named as its own partial files are, and is a file."""
        try:
            with os.scandir(self._target.parent) as entries:
                found = [entry for entry in entries if is_partial(entry.name, self._target.name)]
            for entry in found:
                if entry.is_file(follow_symlinks=False):
                    os.unlink(entry.path)
        except OSError:
            return  # they are in nobody's way

    def _unwritable(self, error: OSError) -> InputError:
        what = f"the table cannot be written: {error.strerror}"
        return InputError(what, where=str(self), remedy=remedy_of(error, _WRITABLE))
