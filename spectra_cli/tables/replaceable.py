"""Whether a table may be put where something is already: a slip in a path must not cost somebody's data."""

from __future__ import annotations

from typing import BinaryIO

from spectra_cli.errors import InputError
from spectra_cli.tables.locations import TableLocation
from spectra_cli.tables.recognition import reason_of, recognise
from spectra_cli.tables.schemas import TABLES

LONGEST_NAME = 40
"""Limit for the name of an unknown table in messages: it comes from a file."""


def check_replaceable(
    location: TableLocation, table: str, *, fresh: bool = False, remedy: str = "move the file away"
) -> None:
    """Check that what is where a table is to go, if anything is, is an older one of its kind, or an empty file.

    Args:
        location: where it is to go.
        table: a key of :data:`spectra_cli.tables.schemas.TABLES`.
        fresh: whether any file may be replaced.
        remedy: what helps beside another name.

    Raises:
        InputError: if something else is there, be it a table that is cut off or damaged, or it cannot be read.
    """
    file = location.open()
    if file is None:
        return
    with file:
        if fresh:
            return
        try:
            what = _other_than(table, file)
        except OSError as error:
            raise InputError(f"cannot be read: {reason_of(error)}", where=str(location)) from error
    if what is not None:
        raise InputError(
            f"{what}; a table {table} does not replace it",
            where=str(location),
            remedy=f"Give --out another name, or {remedy}",
        )


def _other_than(table: str, file: BinaryIO) -> str | None:
    """Kind of a file in words; None if it is an older table of this name, or empty.

    Raises:
        OSError: if it cannot be read.
    """
    if not file.read(1):
        return None
    try:
        found = recognise(file).table
    except InputError as error:
        return error.what
    if found == table:
        return None
    return f"this file is a table {found if found in TABLES else ascii(found[:LONGEST_NAME])}"
