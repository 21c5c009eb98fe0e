"""Opens files to be read by offset: those of this machine, and those of a remote storage by ranges of bytes."""

from __future__ import annotations

import os

from spectra_cli.regularfile import open_regular
from spectra_cli.storage.places import Place
from spectra_cli.storage.remote import RemotePath
from spectra_cli.storage.remotefile import RemoteFile
from spectra_cli.storage.storedfile import LARGEST_READ_BYTES, StoredFile

__all__ = ["LocalFile", "RemoteFile", "StoredFile", "open_file", "read_small", "read_up_to"]


def open_file(place: Place) -> StoredFile:
    """Open a regular file.

    Raises:
        OSError: if there is none, or it may not be read; `strerror` says which.
        CheckpointError: if a remote storage does not answer.
    """
    return RemoteFile(place) if isinstance(place, RemotePath) else LocalFile(place)


def read_small(place: Place, most_bytes: int) -> bytes:
    """The beginning of a small file, at most so many bytes. A remote one is fetched once, however often it is read.

    Raises:
        OSError: as :func:`open_file`.
        CheckpointError: as :func:`open_file`.
    """

    def read() -> bytes:
        with open_file(place) as file:
            return read_up_to(file, most_bytes)

    return place.listings.content(place.url, read) if isinstance(place, RemotePath) else read()


def read_up_to(file: StoredFile, most_bytes: int) -> bytes:
    """The beginning of a file, at most so many bytes.

    Raises:
        OSError: as :meth:`StoredFile.read_at`.
        CheckpointError: as :meth:`StoredFile.read_at`.
    """
    content = bytearray()
    while len(content) < most_bytes:
        piece = bytearray(min(most_bytes - len(content), max(file.size_bytes - len(content), 1)))
        count = file.read_at(len(content), memoryview(piece))
        if not count:
            break
        content += piece[:count]
    return bytes(content)


class LocalFile(StoredFile):
    """A regular file of this machine, or a link to one; see :class:`StoredFile`.

    Raises:
        OSError: as :func:`spectra_cli.regularfile.open_regular`.
    """

    def __init__(self, path: os.PathLike[str]) -> None:
        self.name = os.path.basename(path)
        self._file = open_regular(path)
        self.size_bytes = os.fstat(self._file.fileno()).st_size

    def read_at(self, offset: int, buffer: memoryview) -> int:
        """See :meth:`StoredFile.read_at`."""
        return os.preadv(self._file.fileno(), [buffer[:LARGEST_READ_BYTES]], offset)

    def keep(self, offset: int, size_bytes: int) -> None:
        """Do nothing: the file is here."""

    def keep_all(self) -> None:
        """Do nothing: the file is here."""

    def close(self) -> None:
        """See :meth:`StoredFile.close`."""
        self._file.close()
