"""Where tables live: files of this machine, and objects in remote storage."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from spectra_cli.atomicfile import SHOWN_NAME, mode_of_new_files, remedy_of, sync_directory
from spectra_cli.errors import CheckpointError, InputError, UsageError
from spectra_cli.regularfile import open_regular
from spectra_cli.storage.connection import connect, storage_errors
from spectra_cli.storage.places import place_of as path_or_url
from spectra_cli.storage.secrets import shown_url

FOREIGN_SUFFIXES = frozenset(
    {".csv", ".tsv", ".txt", ".json", ".jsonl", ".xlsx", ".feather", ".arrow", ".npz", ".h5", ".toml", ".md", ".py"}
    | {".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar", ".gguf", ".onnx", ".npy", ".pkl"}
)

_WITH_BUCKETS = frozenset({"s3", "s3a", "gs", "gcs"})
"""Schemes of URLs that begin with the name of a bucket, which has to be there."""

_WRITABLE = "Give --out a file in a directory that exists and may be written to"

_KEPT = ", and run the same command again: what is finished is kept"

Result = TypeVar("Result")


class Place(Protocol):
    """Where one table lives. Its text is the name by which the user knows it.

    Attributes:
        journal_path: of the journal that is kept while the table is made.
    """

    @property
    def journal_path(self) -> Path:  # noqa: D102 - see the attributes
        ...

    def exists(self) -> bool:
        """Whether anything stands there.

        Raises:
            InputError: as :meth:`open`.
        """
        ...

    def open(self) -> BinaryIO | None:
        """Open what stands there for reading; None if nothing does.

        Raises:
            InputError: if it is no file, or cannot be read.
        """
        ...

    def read_local(self) -> Any:
        """A context with a file of this machine that holds the table which stands there; None if none does.

        Raises:
            InputError: as :meth:`open`.
        """
        ...

    def new_partial(self) -> Path:
        """Make an empty file of this machine in which the table is made.

        Raises:
            InputError: if it cannot be made.
        """
        ...

    def publish(self, partial: Path) -> None:
        """Put a finished file into this place, where it appears whole; `partial` is gone then.

        Raises:
            InputError: if that cannot be done; what stood there still does.
        """
        ...

    def remove_leftovers(self) -> None:
        """Remove partial files that processes left which were killed. Only for whoever holds the table's journal."""
        ...


def place_of(out: str | Path) -> Place:
    """The place that is meant: a path, or a URL such as ``s3://bucket/rank.parquet``, given as text.

    Raises:
        UsageError: if its name is that of another kind of file.
    """
    place = path_or_url(out) if isinstance(out, str) else out
    name = place.name
    if os.path.splitext(name)[1].lower() in FOREIGN_SUFFIXES:
        raise UsageError(f"--out {name}: the table is a Parquet file", remedy="Give --out a name in .parquet")
    return LocalPlace(place) if isinstance(place, Path) else RemotePlace(place.url)


class LocalPlace:
    """A file of this machine. A link to a table stays a link: the table is what it leads to.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    @cached_property
    def _target(self) -> Path:
        return self._path.resolve()

    @property
    def journal_path(self) -> Path:
        """Beside the file, hidden."""
        return self._target.parent / f".{_shown(self._target.name)}.journal"

    def exists(self) -> bool:
        """See :class:`Place`."""
        return _is_there(self)

    def open(self) -> BinaryIO | None:
        """See :class:`Place`."""
        try:
            if self._path.exists() and not self._path.is_file():
                raise InputError(
                    "this is a directory, a pipe or a device", where=str(self), remedy="Give --out the name of a file"
                )
            return open_regular(self._path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unwritable(error) from error

    @contextmanager
    def read_local(self) -> Iterator[Path | None]:
        """The file itself."""
        yield self._path if self.exists() else None

    def new_partial(self) -> Path:
        """Beside the file, with the permissions that a new file gets here."""
        try:
            target = self._target
            handle, name = tempfile.mkstemp(prefix=f".{_shown(target.name)}.", suffix=".partial", dir=target.parent)
            os.fchmod(handle, mode_of_new_files())
            os.close(handle)
        except OSError as error:
            raise self._unwritable(error) from error
        return Path(name)

    def publish(self, partial: Path) -> None:
        """Rename it; when this returns, the new name is on the disk."""
        try:
            partial.replace(self._target)
        except OSError as error:
            raise self._unwritable(error) from error
        sync_directory(self._target.parent)

    def remove_leftovers(self) -> None:
        """Those beside the file that are named as its own are, and are files."""
        own = re.compile(rf"\.{re.escape(_shown(self._target.name))}\.[a-z0-9_]{{8}}\.partial")
        try:
            with os.scandir(self._target.parent) as entries:
                found = [entry for entry in entries if own.fullmatch(entry.name)]
            for entry in found:
                if entry.is_file(follow_symlinks=False):
                    os.unlink(entry.path)
        except OSError:
            return  # they are in nobody's way

    def _unwritable(self, error: OSError) -> InputError:
        what = f"the table cannot be written: {error.strerror}"
        return InputError(what, where=str(self), remedy=remedy_of(error, _WRITABLE))


class RemotePlace:
    """An object in a storage that fsspec knows. The journal is on this machine: it resumes here, and locks only here.

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
        """In the user's cache, whose directory is made.

        Raises:
            InputError: if that cannot be done.
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
        return directory / f"{digest}-{_shown(self._name)}.journal"

    def exists(self) -> bool:
        """See :class:`Place`."""
        return _is_there(self)

    def open(self) -> BinaryIO | None:
        """See :class:`Place`."""

        def opened() -> BinaryIO | None:
            self._storage.invalidate_cache()
            try:
                kind = self._storage.info(self._url)["type"]
            except FileNotFoundError:
                self._require_bucket()
                return None
            if kind == "directory":
                raise InputError("this is a directory", where=str(self), remedy="Give --out the name of a file")
            file: BinaryIO = self._storage.open(self._url, "rb")
            return file

        return self._asked("read", opened)

    @contextmanager
    def read_local(self) -> Iterator[Path | None]:
        """A copy in a temporary file, for as long as the context lasts."""
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
        """In the directory for temporary files."""
        try:
            handle, name = tempfile.mkstemp(prefix=f".{_shown(self._name)}.", suffix=".partial")
        except OSError as error:
            raise InputError(
                f"a temporary file cannot be made: {error.strerror}",
                where=tempfile.gettempdir(),
                remedy="Make room there, or set TMPDIR to another directory",
            ) from error
        os.close(handle)
        return Path(name)

    def publish(self, partial: Path) -> None:
        """Upload it: the object changes when all of it has arrived."""
        self._asked("written", lambda: self._storage.put_file(str(partial), self._url))
        partial.unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """None: where temporary files are, those of other tables may have the same name."""

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
        """What the storage answers; what it says instead becomes an InputError."""
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
        except CheckpointError as error:
            reason = error.what.removeprefix("the storage cannot be read: ")
            raise InputError(f"the table cannot be {done}: {reason}", where=str(self), remedy=error.remedy) from error


def _is_there(place: Place) -> bool:
    file = place.open()
    if file is not None:
        file.close()
    return file is not None


def _shown(name: str) -> str:
    """What the names of the files beside a table begin with: its name, or as much of a long one as tells it apart."""
    if len(name) <= SHOWN_NAME:
        return name
    return f"{name[:SHOWN_NAME]}~{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
