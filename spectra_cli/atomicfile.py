"""Files that appear under their names only when they are complete and on the disk."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Have a file written beside its place, and put it there when its bytes are on the disk.

    Args:
        path: of the file; an older one is replaced.
        write: given the path to write to. What it raises is raised on, and nothing is left behind.

    Raises:
        OSError: if that cannot be done.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(b"")
        mode = stat.S_IMODE(partial.stat().st_mode)
        partial.unlink()
        write(partial)
        partial.chmod(mode)  # that of any new file; safetensors makes private ones
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
