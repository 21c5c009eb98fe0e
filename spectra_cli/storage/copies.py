"""Copies of small remote files for libraries that read nothing but files of this machine."""

from __future__ import annotations

import atexit
import errno
import os
import shutil
import tempfile
from collections.abc import Collection
from functools import cache
from pathlib import Path

from spectra_cli.errors import CheckpointError
from spectra_cli.storage.files import open_file, read_up_to
from spectra_cli.storage.places import Place, entries_of
from spectra_cli.storage.remote import RemotePath

LARGEST_COPY_BYTES = 1 << 26
"""Limit for one file; tokenizers have some 30 MB at most."""

LONGEST_NAME_BYTES = 255
"""Limit for the name of a file, as most systems have it."""


def local_directory(directory: Place, suffixes: Collection[str]) -> Path:
    """A directory of this machine with the same small files, as long as the process lives.

    Nothing of a URL stands in its path. Files whose names are no plain names are passed over.

    Args:
        directory: the directory itself if it is one of this machine.
        suffixes: ends of the names of the files to copy.

    Raises:
        CheckpointError: if it cannot be listed or a file cannot be read.
    """
    return _copied(directory, tuple(suffixes)) if isinstance(directory, RemotePath) else directory


@cache
def _copied(directory: RemotePath, suffixes: tuple[str, ...]) -> Path:
    try:
        copy = Path(tempfile.mkdtemp(dir=_temporary()))
        for entry in entries_of(directory):
            wanted = entry.is_file() and entry.name.endswith(suffixes) and entry.stat().st_size <= LARGEST_COPY_BYTES
            if wanted and is_plain_name(entry.name):
                with open_file(directory / entry.name) as file:
                    _write_new(copy, entry.name, read_up_to(file, LARGEST_COPY_BYTES))
    except OSError as error:
        raise CheckpointError(
            f"its files cannot be copied here ({error.strerror})",
            where=str(directory),
            remedy="Copy the directory to this machine",
        ) from error
    return copy


def is_plain_name(name: str) -> bool:
    """Whether a name is that of a file directly in a directory, on any system."""
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return name not in {"", ".", ".."} and not set(name) & set("/\\\0") and len(encoded) <= LONGEST_NAME_BYTES


def _write_new(directory: Path, name: str, content: bytes) -> None:
    """Write a file that is not there yet.

    Raises:
        OSError: if it is, if only as a link, or does not lie in the directory.
    """
    path = directory / name
    if path.resolve().parent != directory.resolve():
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(content)


@cache
def _temporary() -> str:
    path = tempfile.mkdtemp(prefix="spectra-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path
