"""What an open file can do, wherever its bytes are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

LARGEST_READ_BYTES = 1 << 30
"""Limit for one call of the system, which transfers at most about 2 GiB on Linux."""


class StoredFile(ABC):
    """An open file. Several threads may read it.

    Attributes:
        name: for messages.
        size_bytes: when it was opened.
    """

    name: str
    size_bytes: int

    @abstractmethod
    def read_at(self, offset: int, buffer: memoryview) -> int:
        """Fill the beginning of `buffer` with bytes from `offset` on.

        Returns:
            How many; 0 only at the end of the file.

        Raises:
            OSError: if the system cannot read it.
            CheckpointError: if a remote storage cannot.
        """

    @abstractmethod
    def keep(self, offset: int, size_bytes: int) -> None:
        """Announce that bytes will be read piecewise or several times: they are better brought here once.

        Raises:
            CheckpointError: as :meth:`read_at`.
        """

    @abstractmethod
    def keep_all(self) -> None:
        """Bring the whole file here, for as long as it is open.

        Raises:
            CheckpointError: as :meth:`read_at`, or if there is no room for it.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of it and of what was kept."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
