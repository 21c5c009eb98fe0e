"""What is said of bytes that contradict their format."""

from __future__ import annotations

from spectra_cli.errors import CorruptCheckpointError


def corrupt(what: str, where: str | None = None) -> CorruptCheckpointError:
    """The error of a file that was cut short or changed on its way here, or was never saved to its end.

    Args:
        what: what contradicts the format.
        where: the file, where the caller does not add it.
    """
    return CorruptCheckpointError(what, where=where, remedy="Copy or save the checkpoint again")
