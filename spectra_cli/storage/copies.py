"""Copies of small remote files for libraries that read nothing but files of this machine."""

from __future__ import annotations

import atexit
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
"""Of one file; tokenizers have some 30 MB at most."""


def local_directory(directory: Place, suffixes: Collection[str]) -> Path:
    """A directory of this machine with the same small files, as long as the process lives.

    Args:
        directory: the directory itself if it is one of this machine.
        suffixes: ends of the names of the files to copy.

    Raises:
        CheckpointError: if it cannot be listed or a file cannot be read.
    """
    return _copied(directory, tuple(suffixes)) if isinstance(directory, RemotePath) else directory


@cache
def _copied(directory: RemotePath, suffixes: tuple[str, ...]) -> Path:
    copy = Path(_temporary(), *directory.url.replace("://", "/").split("/"))  # so that messages tell what it is
    try:
        copy.mkdir(parents=True)
        for entry in entries_of(directory):
            if entry.is_file() and entry.name.endswith(suffixes) and entry.stat().st_size <= LARGEST_COPY_BYTES:
                with open_file(directory / entry.name) as file:
                    (copy / entry.name).write_bytes(read_up_to(file, LARGEST_COPY_BYTES))
    except OSError as error:
        raise CheckpointError(
            f"its files cannot be copied here ({error.strerror})",
            where=str(directory),
            remedy="Copy the directory to this machine",
        ) from error
    return copy


@cache
def _temporary() -> str:
    path = tempfile.mkdtemp(prefix="spectra-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path
