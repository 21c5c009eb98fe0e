"""What is said of bytes that contradict their format."""

from __future__ import annotations

from spectra_cli.errors import CorruptCheckpointError


def corrupt(what: str) -> CorruptCheckpointError:
    """The error of a file that was cut short or changed on its way here, or was never saved to its end."""
    return CorruptCheckpointError(what, remedy="Copy or save the checkpoint again")
