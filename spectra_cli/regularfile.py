"""Files that are what they seem: opening never waits for the other end of a pipe, and never reads a device."""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO

NO_FILE = "this is a pipe, a device or a directory, not a file"


def open_regular(path: os.PathLike[str]) -> BinaryIO:
    """Open a regular file, or a link to one, for reading.

    It is opened first and looked at through its handle, so that it cannot be exchanged in between.

    Raises:
        OSError: if it cannot be opened or is a pipe, a device or a directory; `strerror` says which.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0))
    except ValueError as error:  # a null character in the path
        raise OSError(errno.EINVAL, f"no path is like this ({error})", str(path)) from error
    file = os.fdopen(handle, "rb") if stat.S_ISREG(os.fstat(handle).st_mode) else None
    if file is None:
        os.close(handle)
        raise OSError(errno.EINVAL, NO_FILE, str(path))
    return file
