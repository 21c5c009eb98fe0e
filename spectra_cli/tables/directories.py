"""The directories that tables, figures and reports go into."""

from __future__ import annotations

from pathlib import Path

from spectra_cli.atomicfile import remedy_of
from spectra_cli.errors import InputError


def make_directory(path: Path, *, parents: bool = False) -> None:
    """Make a directory unless it is there.

    Args:
        path: of the directory.
        parents: whether to make those that it is in as well.

    Raises:
        InputError: if it cannot be made.
    """
    try:
        path.mkdir(exist_ok=True, parents=parents)
    except OSError as error:
        raise InputError(
            f"the directory cannot be made: {error.strerror}",
            where=str(path),
            remedy=remedy_of(error, "Give --out a directory, in one that exists and may be written to"),
        ) from error
