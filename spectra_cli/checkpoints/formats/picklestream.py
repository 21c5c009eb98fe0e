"""Reads what follows the instructions of a pickle stream: numbers, lines and counted bytes.

No length that a stream states is believed: memory is taken for bytes that are there.
"""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

from spectra_cli.checkpoints.formats.placeholders import Global, Object
from spectra_cli.errors import HostileCheckpointError

MOST_VALUES = 1 << 20
"""Limit for values that state their length and for lines: text, bytes, large integers and names of globals. They take
more memory and time than other instructions. A tensor has two or three, and so has a chunk in a ``.metadata``."""

LONGEST_VALUE_BYTES = 1 << 16
"""Limit for a string; longer ones are passed over, as no name of a tensor is that long."""

LONGEST_INT_BYTES = 1 << 10
"""Limit for an integer."""


class PickleStream:
    """A pickle stream, from the position of a file on.

    Args:
        file: seekable, buffered.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._values = 0

    def opcode(self) -> bytes:
        """The next instruction.

        Raises:
            EndedEarlyError: if there is none.
        """
        code = self._file.read(1)
        if not code:
            raise EndedEarlyError
        return code

    def take(self, size: int) -> bytes:
        """Read so many bytes.

        Raises:
            EndedEarlyError: if the stream has fewer.
        """
        data = self._file.read(size)
        if len(data) != size:
            raise EndedEarlyError
        return data

    def number(self, form: str) -> Any:
        """A number of a fixed width.

        Args:
            form: for :mod:`struct`.

        Raises:
            EndedEarlyError: if the stream ends before it.
        """
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        """Text up to the end of its line.

        Raises:
            EndedEarlyError: if it does not end, or not soon enough.
        """
        self._count_value()
        data = self._file.readline(LONGEST_VALUE_BYTES)
        if not data.endswith(b"\n"):
            raise EndedEarlyError
        return data[:-1].decode("utf-8", "surrogateescape")

    def sized(self, form: str) -> bytes | Object:
        """Bytes after their own length; too long for anything that matters here, they are passed over.

        Args:
            form: of the length, for :mod:`struct`.

        Raises:
            ValueError: if the length is negative.
            EndedEarlyError: if the stream ends before them.
        """
        self._count_value()
        size = self.number(form)
        if size < 0:
            raise ValueError("negative length")
        if size <= LONGEST_VALUE_BYTES:
            return self.take(size)
        start = self._file.tell()
        if self._file.seek(0, 2) < start + size:
            raise EndedEarlyError
        self._file.seek(start + size)
        return Object(Global("builtins", "bytes"))

    def text(self, form: str, encoding: str = "utf-8") -> str | Object:
        """Text after its own length in bytes; as :meth:`sized`."""
        data = self.sized(form)
        return data if isinstance(data, Object) else data.decode(encoding, "surrogatepass")

    def integer(self, size: int) -> int:
        """A signed integer of so many bytes, little-endian.

        Raises:
            ValueError: if they are too many, or a negative number.
        """
        self._count_value()
        if not 0 <= size <= LONGEST_INT_BYTES:
            raise ValueError("integer out of bounds")
        return int.from_bytes(self.take(size), "little", signed=True)

    def integer_literal(self) -> int:
        """An integer of protocol 0, or a truth value as that has it.

        Raises:
            ValueError: if it is none, or too long.
        """
        line = self.line()
        if len(line) > LONGEST_INT_BYTES:
            raise ValueError("integer out of bounds")
        if line in {"00", "01"}:
            return line == "01"
        return int(line.rstrip("L"))

    def string_literal(self) -> str:
        """A string of protocol 0; escapes stay as they are written: no name or storage key of torch has any.

        Raises:
            ValueError: if it has no quotes.
        """
        line = self.line()
        if len(line) < 2 or line[0] != line[-1] or line[0] not in "'\"":
            raise ValueError("a string without quotes")
        return line[1:-1]

    def unicode_literal(self) -> str:
        """A text of protocol 0."""
        return self.line().encode("utf-8", "surrogateescape").decode("raw-unicode-escape")

    def _count_value(self) -> None:
        """Count one of those values of which there may be :data:`MOST_VALUES`.

        Raises:
            HostileCheckpointError: if there are more.
        """
        self._values += 1
        if self._values > MOST_VALUES:
            raise HostileCheckpointError(
                f"its pickle has more than {MOST_VALUES} texts", remedy="Save only the state dict of the model"
            )


class EndedEarlyError(LookupError):
    """The stream stops before its STOP instruction."""
