"""Small files read whole: never a pipe or a device, never more than was agreed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from spectra_cli.errors import CheckpointError, CorruptCheckpointError


def read_small_file(path: Path, most_bytes: int) -> bytes:
    """Read a regular file of at most `most_bytes`.

    The file is opened first and looked at through its handle, so that it cannot be exchanged in between; opening does
    not wait for the other end of a pipe.

    Raises:
        CheckpointError: if it cannot be opened or is no regular file.
        CorruptCheckpointError: if it is larger.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise CheckpointError(f"it cannot be read: {error.strerror}", where=str(path)) from error
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise CheckpointError("this is a pipe, a device or a directory, not a file", where=str(path))
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise CorruptCheckpointError(
            f"it is larger than {most_bytes >> 10} KiB, which no file of its kind is", where=str(path)
        )
    return content
