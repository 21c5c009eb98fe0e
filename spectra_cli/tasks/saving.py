"""Saving the state of a training, and what to tell where that fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from spectra_cli.atomicfile import replace_file
from spectra_cli.errors import InputError


def save_state(path: Path, write: Callable[[Path], None]) -> None:
    """Have a file of the state of a training written; it appears under its name when its bytes are on the disk.

    Args:
        path: of the file; an older one is replaced.
        write: given the path to write to.

    Raises:
        InputError: if that cannot be done.
    """
    try:
        replace_file(path, write)
    except BaseException as error:
        told = _told(error, path)
        if told is error:
            raise
        raise told from error


def _told(error: BaseException, path: Path) -> BaseException:
    """The error to raise for a failure to save; torch hides what happened behind an error of its own archive."""
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
