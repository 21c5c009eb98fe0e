"""Tables in remote storage."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from spectra_cli.errors import InputError
from spectra_cli.storage.connection import StorageError, connect, storage_errors
from spectra_cli.storage.secrets import shown_url
from spectra_cli.tables.companionfiles import make_partial, shown_name

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_WITH_BUCKETS = frozenset({"s3", "s3a", "gs", "gcs"})
"""Schemes of URLs that begin with the name of a bucket, which has to be there."""

_KEPT = ", and run the same command again: what is finished is kept"

Result = TypeVar("Result")


class RemoteTable:
    """An object in a storage that fsspec knows. The journal is on this machine: it resumes here, and locks only here.

    What is asked of the storage needs the extra ``remote``, and raises `MissingExtraError` without it.

    Args:
        url: of the object; it may hold secrets.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def __str__(self) -> str:
        return shown_url(self._url)

    @cached_property
    def _storage(self) -> Any:
        return connect(self._url)

    @property
    def _name(self) -> str:
        return str(self).rpartition("/")[2]

    @cached_property
    def journal_path(self) -> Path:
        """A file in the user's cache, whose directory is made.

        Raises:
            InputError: if there is no home directory, or it cannot be made.
        """
        configured = os.environ.get("XDG_CACHE_HOME", "")
        try:
            cache = Path(configured) if os.path.isabs(configured) else Path("~/.cache").expanduser()
        except RuntimeError as error:
            raise InputError(
                "no directory can keep what is finished: there is no home directory",
                where=str(self),
                remedy="Set XDG_CACHE_HOME to a directory that may be written to",
            ) from error
        directory = cache / "spectra" / "journals"
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"the directory cannot be made, which keeps what is finished: {error.strerror}",
                where=str(directory),
                remedy="Set XDG_CACHE_HOME to a directory that may be written to",
            ) from error
        digest = hashlib.sha256(self._url.encode("utf-8", "surrogateescape")).hexdigest()
        return directory / f"{digest}-{shown_name(self._name)}.journal"

    def exists(self) -> bool:
        """Whether there is such an object.

        Raises:
            InputError: if it is a directory, its bucket is absent, or the storage does not let it be read.
        """
        file = self.open()
        if file is not None:
            file.close()
        return file is not None

    def open(self) -> BinaryIO | None:
        """Open the object for reading; None if there is none. What fails later on is an OSError, as of any file.

        Raises:
            InputError: if it is a directory, its bucket is absent, or the storage does not let it be read.
        """

        def opened() -> BinaryIO | None:
            self._storage.invalidate_cache()
            try:
                kind = self._storage.info(self._url)["type"]
            except FileNotFoundError:
                self._require_bucket()
                return None
            if kind == "directory":
                raise InputError("this is a directory", where=str(self), remedy="Give --out the name of a file")
            return io.BufferedReader(_ObjectFile(self._url, self._storage.open(self._url, "rb")))

        return self._asked("read", opened)

    @contextmanager
    def read_local(self) -> Iterator[Path | None]:
        """A context with a copy in a temporary file, for as long as it lasts; None if there is no such object.

        Raises:
            InputError: if it cannot be read as of :meth:`open`, or the copy cannot be made.
        """
        if not self.exists():
            yield None
            return
        copy = self.new_partial()
        try:
            self._asked("read", lambda: self._storage.get_file(self._url, str(copy)))
            yield copy
        finally:
            copy.unlink(missing_ok=True)

    def new_partial(self) -> Path:
        """Make an empty file in the directory for temporary files.

        Raises:
            InputError: if that cannot be done.
        """
        try:
            return make_partial(self._name)
        except OSError as error:
            raise InputError(
                f"a temporary file cannot be made: {error.strerror}",
                where=tempfile.gettempdir(),
                remedy="Make room there, or set TMPDIR to another directory",
            ) from error

    def publish(self, partial: Path) -> None:
        """Upload a file, and remove it here: the object changes when all of it has arrived.

        Raises:
            InputError: if the storage does not take it; the object and `partial` are as they were.
        """
        self._asked("written", lambda: self._storage.put_file(str(partial), self._url))
        partial.unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Remove nothing: where temporary files are, those of other tables may have the same name."""

    def _require_bucket(self) -> None:
        """Notice before the work, not at its end, that there is no bucket for the table.

        Raises:
            FileNotFoundError: if there is none, in a storage where directories come with their objects.
        """
        scheme, _, path = self._url.partition("://")
        if scheme in _WITH_BUCKETS:
            with suppress(PermissionError):  # who may write an object may not be allowed to look at the bucket
                self._storage.info(f"{scheme}://{path.partition('/')[0]}")

    def _asked(self, done: str, ask: Callable[[], Result]) -> Result:
        """What the storage answers.

        Raises:
            InputError: in place of what it says against it.
        """
        try:
            with storage_errors(self._url):
                return ask()
        except FileNotFoundError as error:
            raise InputError(
                "there is no such bucket or directory", where=str(self), remedy="Check the URL, or make the bucket"
            ) from error
        except OSError as error:
            raise InputError(
                f"the table cannot be {done}: {error.strerror}",
                where=str(self),
                remedy=f"Check the URL and the permissions{_KEPT * (done == 'written')}",
            ) from error
        except StorageError as error:
            raise InputError(
                f"the table cannot be {done}: {error.reason}", where=str(self), remedy=error.remedy
            ) from error


class _ObjectFile(io.RawIOBase):
    """An open object whose failures are those of a file of this machine: each has a number and says why.

    Args:
        url: of the object; it may hold secrets.
        file: that fsspec has opened.
    """

    def __init__(self, url: str, file: Any) -> None:
        super().__init__()
        self._url, self._file = url, file

    def readable(self) -> bool:
        """True, always."""
        return True

    def seekable(self) -> bool:
        """True, always."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """See :meth:`io.IOBase.seek`."""
        with self._failures():
            position: int = self._file.seek(offset, whence)
            return position

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the beginning of `buffer`; 0 at the end of the object.

        Raises:
            OSError: if the storage cannot be read.
        """
        view = memoryview(buffer).cast("B")
        with self._failures():
            content = self._file.read(len(view))
        view[: len(content)] = content
        return len(content)

    def close(self) -> None:
        """See :meth:`io.IOBase.close`."""
        if not self.closed:
            self._file.close()
        super().close()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            with storage_errors(self._url):
                yield
        except StorageError as error:
            raise OSError(errno.EIO, error.reason, error.where) from error
