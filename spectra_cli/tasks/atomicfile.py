"""Files that appear under their names only when they are complete and on the disk."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from spectra_cli.errors import InputError


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Have a file written beside its place, and put it there when its bytes are on the disk.

    Raises:
        InputError: if that cannot be done.
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
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        told = _told(error, path)
        if told is error:
            raise
        raise told from error


def _told(error: BaseException, path: Path) -> BaseException:
    """What to raise for a failure to save; torch hides what happened behind an error of its own archive."""
    causes = [error]
    while causes[-1].__context__ is not None:
        causes.append(causes[-1].__context__)
    for cause in causes:
        if not isinstance(cause, Exception):
            return cause  # Ctrl-C
    if not isinstance(error, (OSError, SafetensorError, RuntimeError)):
        return error
    reasons = [cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror]
    return InputError(
        f"the state cannot be saved: {[*reasons, str(error).partition(chr(10))[0]][0]}",
        where=str(path),
        remedy="Make room, and run the same command again: it goes on from the step saved before",
    )
