"""What a command that writes tables asks of the work behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from spectra_cli.analyses.visits import Row


class Results(Protocol):
    """The rows of one checkpoint."""

    @property
    def tables(self) -> Mapping[str, list[Row]]:
        """By table."""
        ...

    @property
    def usable(self) -> bool:
        """Whether all that was asked for could be computed."""
        ...


class TableJob(Protocol):
    """Makes the rows of one or more tables."""

    def metadata(self, command: Sequence[str]) -> dict[str, str]:
        """What the files record about their making, besides their schema."""
        ...

    def results(self) -> Iterator[Results]:
        """Do the work, checkpoint after checkpoint.

        Raises:
            SpectraError: if nothing could be done.
        """
        ...

    def found(self) -> Mapping[str, Any]:
        """What is known at the end and stands in no row, as JSON may have it; the files record it as well."""
        ...
