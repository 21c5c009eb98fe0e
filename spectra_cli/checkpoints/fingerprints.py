"""Tells without reading tensors whether the files of a checkpoint are those that were analysed before."""

from __future__ import annotations

import warnings
from functools import cache

from spectra_cli.checkpoints.config import files_considered
from spectra_cli.checkpoints.open import files_of
from spectra_cli.errors import CheckpointError
from spectra_cli.storage.listings import UNKNOWN_VERSION
from spectra_cli.storage.places import Place, absolute, is_present
from spectra_cli.storage.remote import RemotePath

FileState = tuple[str, int, int]
"""Absolute path or URL of a file, its size in bytes, and its modification time in nanoseconds.

Of a remote file a number takes the place of the time that follows from what its storage says of the content (the entity
tag, a hash), or else from the time of the last change. Where it says neither, the number is
:data:`spectra_cli.storage.listings.UNKNOWN_VERSION`: only another size tells that the file has changed.
"""


def fingerprint_files(path: Place, run_root: Place) -> tuple[FileState, ...]:
    """The state of every file that reading a checkpoint depends on, in the order of their paths.

    These are the files that :func:`spectra_cli.checkpoints.open.open_checkpoint` reads, and every ``config.json`` that
    :func:`spectra_cli.checkpoints.config.read_config` takes or passes over. A file behind a link counts under the name
    of the link, with the state of what it leads to.

    Args:
        path: file or directory of the checkpoint.
        run_root: directory of its run.

    Raises:
        CheckpointError: if the files cannot be told or looked at: one is absent, an index is damaged.
    """
    states = [_state(file) for file in files_of(path)]
    states += [_state(file) for file in files_considered(path, run_root) if is_present(file)]
    return tuple(sorted(states))


def _state(file: Place) -> FileState:
    try:
        status = file.stat()
    except OSError as error:
        raise CheckpointError(
            f"the system cannot look at it ({error.strerror})",
            where=str(file),
            remedy="Check the path and its permissions",
        ) from error
    if isinstance(file, RemotePath) and status.st_mtime_ns == UNKNOWN_VERSION:
        _tell_unversioned("/".join(str(file).split("/")[:3]))
    return absolute(file), status.st_size, status.st_mtime_ns


@cache
def _tell_unversioned(storage: str) -> None:
    """Warn once of a storage, as every file in it is alike."""
    warnings.warn(
        f"{storage} tells neither versions nor times of its files: that a file has changed shows there only if its "
        "size has. --verify reads them again.",
        stacklevel=3,
    )
