"""Where tables go, and what has come of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from spectra_cli.errors import UsageError
from spectra_cli.execution.planning.options import ExecutionOptions
from spectra_cli.storage.places import place_of, real
from spectra_cli.storage.secrets import recorded


@dataclass(frozen=True)
class Writing:
    """Where tables go, and what is done with those that are there.

    Attributes:
        outs: the file or URL of each table; None to keep it in memory only.
        tags: extra columns, with the value of rows that do not say their own.
        leave_out: columns that only come when they are asked for, and were not.
        directory: path or URL of one to make for the files.
        fresh: whether to start over, whatever is there.
        verify: whether to look at the bytes of weights where files seem to be unchanged.
    """

    outs: Mapping[str, str | None]
    tags: Mapping[str, str | None] = field(default_factory=dict)
    leave_out: Sequence[str] = ()
    directory: str | None = None
    fresh: bool = False
    verify: bool = False


@dataclass
class Filled:
    """What has come of the tables.

    Attributes:
        usable: whether all that was asked for could be computed.
        found: what is known beside the rows.
        kept: units of which nothing had to be done.
        kept_of: by table, units whose rows of it stay.
        finished: units whose rows are there, those kept among them; all, unless the work was stopped.
        unusable: those of them that were looked at and could not be used.
        to_repeat: those of them that are done again the next time, as something could not be used or was written to
            meanwhile; their rows are safe only once the tables are published.
        waiting: units that cannot be used yet, and have no rows so far.
        dropped: units whose rows were there and are not asked for any more, so that they go.
        gone: such units whose rows are kept, as the run is watched.
        published: whether the tables are where they are to go.
        tables: the whole tables, if they are asked for.
    """

    usable: bool = True
    found: Mapping[str, Any] = field(default_factory=dict)
    kept: int = 0
    kept_of: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    unusable: int = 0
    to_repeat: int = 0
    waiting: int = 0
    dropped: int = 0
    gone: int = 0
    published: bool = False
    tables: dict[str, pa.Table] = field(default_factory=dict)


def writing_of(
    outs: Mapping[str, str | os.PathLike[str] | None],
    tags: Mapping[str, str | None],
    leave_out: Sequence[str],
    execution: ExecutionOptions,
    directory: str | None = None,
) -> Writing:
    """Where tables go, as the user says: see :class:`Writing`.

    Raises:
        UsageError: if two of them would go to one file, however it is spelled.
    """
    texts = {table: None if out is None else os.fspath(out) for table, out in outs.items()}
    taken: set[str] = set()
    for out in texts.values():
        if out is None:
            continue
        place = real(place_of(out))
        if place in taken:
            raise UsageError(f"two tables would be written to {recorded(out)}", remedy="Give each a file of its own")
        taken.add(place)
    return Writing(texts, tags, leave_out, directory, fresh=execution.fresh, verify=execution.verify)
