"""Files of remote storage, read by ranges of bytes."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore, Lock, RLock
from typing import IO, Any

from spectra_cli.errors import CheckpointError
from spectra_cli.storage.connection import storage_errors
from spectra_cli.storage.places import require_file
from spectra_cli.storage.ranges import Ranges
from spectra_cli.storage.remote import RemotePath
from spectra_cli.storage.storedfile import LARGEST_READ_BYTES, StoredFile

HEAD_BYTES = 1 << 12
"""What the first request for the beginning of a remote file brings: mostly the whole header of a small model."""

PART_BYTES = 1 << 23
"""Most that one request brings."""

SMALL_PART_BYTES = 1 << 20
"""Size up to which a read is not worth several requests at a time."""

STREAMS = 4

KEPT_BYTES = 1 << 32
"""Limit for parts of remote files that are kept on disk to be read again; beyond it, the oldest are dropped."""


class RemoteFile(StoredFile):
    """A file of a remote storage; see :class:`StoredFile`.

    Its beginning is kept in memory, as headers are read in small pieces; what is announced to be read again is kept in
    a temporary file without a name, which is gone when this is closed, whatever becomes of the process.

    Raises:
        OSError: if there is none, or it may not be read.
        CheckpointError: if the storage does not answer.
    """

    def __init__(self, path: RemotePath) -> None:
        self.name = str(path)
        self.size_bytes = require_file(path).st_size
        self._pool = _Handles(path)
        self._head = b""
        self._lock = RLock()  # of the following
        self._copy: IO[bytes] | None = None
        self._kept = Ranges()
        self._is_whole = False
        self._no_room = False

    @property
    def dispensable_bytes(self) -> int:
        """Bytes of the temporary file that can be fetched again."""
        return 0 if self._is_whole else self._kept.total

    def read_at(self, offset: int, buffer: memoryview) -> int:
        """See :meth:`StoredFile.read_at`."""
        end = min(offset + len(buffer), self.size_bytes)
        if end <= offset:
            return 0
        with self._lock:
            if self._copy is not None and self._kept.cover(offset, end):
                return os.preadv(self._copy.fileno(), [buffer[: min(end - offset, LARGEST_READ_BYTES)]], offset)
            if offset < HEAD_BYTES and not self._head:
                head = bytearray(min(HEAD_BYTES, self.size_bytes))
                count = self._fetch(0, memoryview(head))
                self._head = bytes(head[:count])
        return self._read(offset, buffer[: end - offset])

    def keep(self, offset: int, size_bytes: int) -> None:
        """See :meth:`StoredFile.keep`."""
        end = min(offset + size_bytes, self.size_bytes)
        with self._lock:
            missing = self._kept.missing(offset, end)
            if not missing or self._no_room or end - offset > KEPT_BYTES:
                return
            _copies.make_room(self, sum(stop - start for start, stop in missing))
            try:
                self._bring(self._kept.missing(offset, end))
            except OSError:  # it is read from the storage whenever it is needed
                self._forget()
                self._no_room = True

    def keep_all(self) -> None:
        """See :meth:`StoredFile.keep_all`.

        Raises:
            CheckpointError: if the storage does not answer, or there is no room for a temporary copy.
        """
        with self._lock:
            try:
                self._bring(self._kept.missing(0, self.size_bytes))
            except OSError as error:
                raise CheckpointError(
                    f"no temporary copy can be written to {tempfile.gettempdir()} ({error.strerror})",
                    where=self.name,
                    remedy=f"Set TMPDIR to a directory with room for {self.size_bytes >> 20} MiB and more",
                ) from error
            self._is_whole = True

    def let_go(self) -> None:
        """Drop what can be fetched again, unless another thread reads it just now."""
        if not self._is_whole and self._lock.acquire(blocking=False):
            try:
                self._forget()
            finally:
                self._lock.release()

    def close(self) -> None:
        """See :meth:`StoredFile.close`."""
        with self._lock:
            self._forget()
            self._pool.close()

    def _bring(self, missing: list[tuple[int, int]]) -> None:
        """Copy ranges into the temporary file."""
        if self._copy is None:
            self._copy = tempfile.TemporaryFile(prefix="spectra-")  # noqa: SIM115 - closed with the remote file
            _copies.add(self)
        most = min(STREAMS * PART_BYTES, max((stop - start for start, stop in missing), default=0))
        buffer = memoryview(bytearray(most))
        for start, stop in missing:
            for offset in range(start, stop, most):
                piece = buffer[: min(most, stop - offset)]
                count = self._read(offset, piece)
                _write(self._copy, offset, piece[:count])
                self._kept.add(offset, offset + count)
                if count < len(piece):
                    return  # the file has become shorter, as will show when it is read

    def _forget(self) -> None:
        _copies.remove(self)
        if self._copy is not None:
            self._copy.close()
        self._copy, self._kept = None, Ranges()

    def _read(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from what is known of the beginning and from the storage."""
        known = self._head[offset : offset + len(buffer)]
        buffer[: len(known)] = known
        return len(known) + self._fetch(offset + len(known), buffer[len(known) :])

    def _fetch(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from the storage, a large one by several requests at a time; less only at the file's end."""
        part_bytes = min(max(-(-len(buffer) // STREAMS), SMALL_PART_BYTES), PART_BYTES)
        if len(buffer) <= part_bytes:
            return self._pool.request(offset, buffer)
        starts = range(0, len(buffer), part_bytes)
        with ThreadPoolExecutor(STREAMS, thread_name_prefix="spectra-fetch") as pool:
            asked = [pool.submit(self._pool.request, offset + at, buffer[at : at + part_bytes]) for at in starts]
            counts = [each.result() for each in asked]
        short = next((index for index, count in enumerate(counts) if count < part_bytes), len(counts) - 1)
        return starts[short] + counts[short]


class _Handles:
    """File objects of fsspec on one file, each used by one thread at a time."""

    def __init__(self, path: RemotePath) -> None:
        from fsspec.spec import AbstractBufferedFile  # noqa: PLC0415 - an extra, and not needed for local files

        self._path = path
        self._idle = [self._open()]
        # Those of other kinds may share their position, as all of one file in memory do.
        self._free = BoundedSemaphore(STREAMS if isinstance(self._idle[0], AbstractBufferedFile) else 1)

    def _open(self) -> Any:
        """An open file that reads exactly what is asked and, if its storage can, fails where it has been replaced."""
        with storage_errors(self._path.url):
            return self._path.listings.filesystem.open(self._path.url, "rb", cache_type="none")

    def request(self, offset: int, buffer: memoryview) -> int:
        """Fill the beginning of `buffer` by one request."""
        if not buffer:
            return 0
        with self._free:
            handle = self._idle.pop() if self._idle else self._open()
            with storage_errors(self._path.url):
                handle.seek(offset)
                content = handle.read(len(buffer))
            self._idle.append(handle)
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        """Close all of them."""
        while self._idle:
            self._idle.pop().close()


class _Copies:
    """The remote files of which there are temporary copies, that used longest ago first."""

    def __init__(self) -> None:
        self._files: dict[RemoteFile, None] = {}
        self._lock = Lock()

    def add(self, file: RemoteFile) -> None:
        with self._lock:
            self._files[file] = None

    def remove(self, file: RemoteFile) -> None:
        with self._lock:
            self._files.pop(file, None)

    def make_room(self, file: RemoteFile, size_bytes: int) -> None:
        """Have copies dropped until all of them and so many bytes more of a file are within the limit."""
        with self._lock:
            others = [other for other in self._files if other is not file]
            if file in self._files:
                self._files[file] = self._files.pop(file)
        for other in [*others, file]:
            kept_bytes = sum(each.dispensable_bytes for each in [*others, file])
            if kept_bytes + size_bytes <= KEPT_BYTES:
                return
            other.let_go()


_copies = _Copies()


def _write(file: IO[bytes], offset: int, piece: memoryview) -> None:
    while piece:
        written = os.pwrite(file.fileno(), piece, offset)
        piece, offset = piece[written:], offset + written
