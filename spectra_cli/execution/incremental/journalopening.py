"""Opening the journal of a table, which holds the table against others; what is said where that cannot be done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spectra_cli.errors import InputError
from spectra_cli.execution.incremental.settingschanges import changes_told
from spectra_cli.shortening import counted, shortened
from spectra_cli.tables.journal import Journal, OtherWorkError, TableInUseError
from spectra_cli.tables.localtable import LocalTable
from spectra_cli.tables.locations import TableLocation

SHOWN_COMMAND = 200
"""Columns for the command line of another command, which comes from a file."""


def open_journal(
    location: TableLocation, table: str, match: Mapping[str, Any], command: str, *, noun: str, fresh: bool
) -> Journal:
    """The journal of a table.

    Args:
        location: where the table goes.
        table: a key of ``tables.schemas.TABLES``.
        match: what must be the same for finished rows to be of use.
        command: the command line, for others.
        noun: what a unit is called, in the singular.
        fresh: whether to drop what an interrupted run has finished.

    Raises:
        TableInUseError: if another process makes the table.
        InputError: if it cannot be written there, or another work was interrupted there.
    """
    try:
        return Journal.open(location.journal_path, table, {"match": match, "command": command}, fresh=fresh)
    except TableInUseError as error:
        error.where = str(location)
        raise
    except OtherWorkError as error:
        raise _other_work(error, location, match, noun) from error
    except InputError as error:
        if isinstance(error.__cause__, OSError) and isinstance(location, LocalTable):  # people know the table alone
            what = f"the table cannot be written: {error.__cause__.strerror}"
            raise InputError(what, where=str(location), remedy=error.remedy) from error
        raise


def _other_work(error: OtherWorkError, location: TableLocation, match: Mapping[str, Any], noun: str) -> InputError:
    """Message about interrupted work that this work does not go on with."""
    found, command = error.found_header.get("match"), error.found_header.get("command")
    before = found if isinstance(found, dict) else {}
    finished = f"has finished {counted(error.finished, noun)} of this table, which would be lost"
    if before.get("command") != match["command"] and isinstance(command, str):
        what = f"another command that was interrupted {finished}: {shortened(command, SHOWN_COMMAND)}"
        remedy = "Run that again, give --out another name, or --fresh to start over"
    else:
        what = f"an interrupted run with other settings {finished}: {changes_told(before, match)}"
        remedy = "Give the settings that it had to go on, give --out another name, or --fresh to start over"
    return InputError(what, where=str(location), remedy=remedy)
