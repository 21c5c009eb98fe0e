"""Names of the files that come with a table while it is made: they begin with its own, and no two tables share any."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path

from spectra_cli.atomicfile import SHOWN_NAME


def shown_name(table_name: str) -> str:
    """Beginning of their names: the table's, or as much of a long one as tells it apart, with a hash of all of it.

    Args:
        table_name: last part of the path or URL of the table.
    """
    if len(table_name) <= SHOWN_NAME:
        return table_name
    return f"{table_name[:SHOWN_NAME]}~{hashlib.sha256(os.fsencode(table_name)).hexdigest()[:8]}"


def make_partial(table_name: str, directory: Path | None = None, mode: int = 0o600) -> Path:
    """Make an empty file in which the table is made.

    Args:
        table_name: as of :func:`shown_name`.
        directory: to make it in; that for temporary files if None.
        mode: its permissions; only this user may read it unless they say otherwise.

    Raises:
        OSError: if it cannot be made.
    """
    handle, name = tempfile.mkstemp(prefix=f".{shown_name(table_name)}.", suffix=".partial", dir=directory)
    try:
        os.fchmod(handle, mode)
    finally:
        os.close(handle)
    return Path(name)


def is_partial(name: str, table_name: str) -> bool:
    """Whether a file is named as those are that :func:`make_partial` makes for a table."""
    return re.fullmatch(rf"\.{re.escape(shown_name(table_name))}\.[a-z0-9_]{{8}}\.partial", name) is not None
