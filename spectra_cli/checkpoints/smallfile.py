"""Small files read whole: never a pipe or a device, never more than was agreed."""

from __future__ import annotations

from pathlib import Path

from spectra_cli.errors import CheckpointError, CorruptCheckpointError
from spectra_cli.regularfile import open_regular


def read_small_file(path: Path, most_bytes: int) -> bytes:
    """Read a regular file of at most `most_bytes`.

    Raises:
        CheckpointError: if it cannot be opened or is no regular file.
        CorruptCheckpointError: if it is larger.
    """
    try:
        file = open_regular(path)
    except OSError as error:
        raise CheckpointError(
            f"it cannot be read: {error.strerror}", where=str(path), remedy="Check the path and its permissions"
        ) from error
    with file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise CorruptCheckpointError(
            f"it is larger than {most_bytes >> 10} KiB, which no file of its kind is",
            where=str(path),
            remedy="Copy or save it again",
        )
    return content
