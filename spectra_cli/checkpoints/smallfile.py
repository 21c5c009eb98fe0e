"""Small files read whole: never a pipe or a device, never more than was agreed."""

from __future__ import annotations

from spectra_cli.errors import CheckpointError, CorruptCheckpointError
from spectra_cli.storage.files import read_small
from spectra_cli.storage.places import Place


def read_small_file(path: Place, most_bytes: int) -> bytes:
    """Read a regular file of at most `most_bytes`.

    Raises:
        CheckpointError: if it cannot be read or is no regular file.
        CorruptCheckpointError: if it is larger.
    """
    try:
        content = read_small(path, most_bytes + 1)
    except OSError as error:
        raise CheckpointError(
            f"it cannot be read: {error.strerror}", where=str(path), remedy="Check the path and its permissions"
        ) from error
    if len(content) > most_bytes:
        raise CorruptCheckpointError(
            f"it is larger than {most_bytes >> 10} KiB, which no file of its kind is",
            where=str(path),
            remedy="Copy or save it again",
        )
    return content
