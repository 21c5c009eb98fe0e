"""Files that appear under their names only when they are complete and on the disk."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

SHOWN_NAME = 40
"""Characters of a file's name that the name of its partial file begins with: a name may be as long as names can be."""


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Have a file written beside its place, and put it there when its bytes are on the disk.

    The partial file is a new one with a name of its own: nothing that stands in the directory, such as a link that
    somebody else has put there, is written through or removed.

    Args:
        path: of the file; an older one, or a link of that name, is replaced.
        write: given the path to write to. What it raises is raised on, and nothing is left behind.

    Raises:
        OSError: if that cannot be done.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:SHOWN_NAME]}.", suffix=".partial", dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        write(partial)
        partial.chmod(mode_of_new_files())  # mkstemp and safetensors make private ones
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def remedy_of(error: OSError, otherwise: str) -> str:
    """What to do about something that cannot be written.

    Args:
        error: what the system says.
        otherwise: the remedy where the disk is not full.
    """
    if error.errno == errno.EFBIG:
        return "Raise the limit on the size of files (ulimit -f), and run the same command again"
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    return "Make room, and run the same command again" if full else otherwise


def sync_directory(directory: Path) -> None:
    """Have the names in a directory put on the disk, so that a file that was renamed is there after a power failure.

    Not every file system can, and not everybody may open every directory; nothing more can be done about it then.
    """
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def mode_of_new_files() -> int:
    """Permissions that a new file gets here."""
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
