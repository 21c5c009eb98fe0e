"""Members of a zip archive by their place in the file, which may be a part of a larger file."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from spectra_cli.checkpoints.damage import corrupt
from spectra_cli.checkpoints.filespan import read_exactly
from spectra_cli.errors import HostileCheckpointError
from spectra_cli.storage.files import StoredFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

ZIP_MAGIC = b"PK\x03\x04"
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature … length of the name, length of the extra field
_DIRECTORY_ENTRY = b"PK\x01\x02"
_ENCRYPTED = 0x1
LARGEST_DIRECTORY_BYTES = 1 << 25
MOST_MEMBERS = 1 << 18


class Window(io.RawIOBase):
    """A part of an open file as a file of its own, read by offset."""

    def __init__(self, file: StoredFile, start: int, size_bytes: int) -> None:
        super().__init__()
        self._file, self._start, self._size, self._position = file, start, size_bytes, 0

    def readable(self) -> bool:
        """True, always."""
        return True

    def seekable(self) -> bool:
        """True, always."""
        return True

    def tell(self) -> int:
        """Position within the window."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move within the window; see :meth:`io.IOBase.seek`."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("negative position")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill as much of the buffer as the window has left."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._position))
        read_exactly(self._file, self._start + self._position, view[:count])
        self._position += count
        return count


class _BoundedDirectory(io.BufferedReader):
    """What :class:`zipfile.ZipFile` reads from: its directory, which it asks for at once, must be small.

    Entries are counted by their signature, since the number that the archive states may be a lie.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > LARGEST_DIRECTORY_BYTES:
            raise _too_many()
        data = super().read(size)
        if data.count(_DIRECTORY_ENTRY) > MOST_MEMBERS:
            raise _too_many()
        return data


@dataclass(frozen=True, slots=True)
class Member:
    """Position of a stored member's bytes in the file."""

    offset: int
    size_bytes: int


class Archive:
    """A zip archive whose members are not copied.

    Args:
        file: open for reading.
        start: first byte of the archive.
        size_bytes: its size; to the end of the file by default.

    Raises:
        CorruptCheckpointError: if the central directory is absent or contradicts itself.
        HostileCheckpointError: if two members have the same name, or there are more than any model has storages.
    """

    def __init__(self, file: StoredFile, start: int = 0, size_bytes: int | None = None) -> None:
        self._file, self._start = file, start
        self._size = file.size_bytes - start if size_bytes is None else size_bytes
        try:
            with zipfile.ZipFile(_BoundedDirectory(Window(file, start, self._size))) as archive:
                self._entries = {entry.filename: entry for entry in archive.infolist()}
                self._end = archive.start_dir
                count = len(archive.infolist())
        except (
            zipfile.BadZipFile,
            NotImplementedError,
            struct.error,
            ValueError,
            LookupError,
            OSError,
            OverflowError,
        ) as error:
            raise corrupt("the zip archive has no readable directory, as if it were cut short") from error
        if count != len(self._entries):
            raise HostileCheckpointError(
                "two members of the zip archive have the same name", remedy="Save the checkpoint again with torch.save"
            )
        self._check_overlaps()

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def member(self, name: str) -> Member:
        """Locate a member.

        Raises:
            CorruptCheckpointError: if it is absent or not where the directory says.
            HostileCheckpointError: if it is compressed or encrypted.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise corrupt(f"the member '{name}' is absent from the zip archive")
        if entry.flag_bits & _ENCRYPTED:
            raise HostileCheckpointError(f"the member '{name}' is encrypted", remedy="Save with torch.save")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise HostileCheckpointError(
                f"the member '{name}' is compressed ({entry.compress_size} bytes for {entry.file_size}), which "
                "torch.save never does",
                remedy="Unpack it and zip it again with 'zip -0', if you trust its origin",
            )
        header = bytearray(_LOCAL_HEADER.size)
        if entry.header_offset < 0 or entry.header_offset + len(header) > self._end:
            raise corrupt(f"the member '{name}' is not where the zip directory says")
        read_exactly(self._file, self._start + entry.header_offset, memoryview(header))
        signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        offset = entry.header_offset + len(header) + name_bytes + extra_bytes
        if signature != ZIP_MAGIC or offset + entry.file_size > self._end:
            raise corrupt(f"the member '{name}' is not where the zip directory says")
        return Member(self._start + offset, entry.file_size)

    def open(self, name: str) -> BinaryIO:
        """A buffered file of one member's bytes."""
        member = self.member(name)
        return io.BufferedReader(Window(self._file, member.offset, member.size_bytes))

    def read(self, name: str, most_bytes: int) -> bytes:
        """The first bytes of a small member."""
        return self.open(name).read(most_bytes)

    def _check_overlaps(self) -> None:
        """No two members share bytes: sharing is how a small archive pretends to be a large one."""
        end = 0
        for entry in sorted(self._entries.values(), key=lambda entry: entry.header_offset):
            if entry.header_offset < end:
                raise HostileCheckpointError("members of the zip archive overlap", remedy="Do not use this file")
            end = entry.header_offset + _LOCAL_HEADER.size + entry.compress_size


def _too_many() -> HostileCheckpointError:
    return HostileCheckpointError(
        f"the zip archive has more than {MOST_MEMBERS} members", remedy="Save only the state dict of a model"
    )
