"""Places of files: a path on this machine or in remote storage, and what pathlib alone cannot ask of both alike."""

from __future__ import annotations

import errno
import glob
import os
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

from spectra_cli.regularfile import NO_FILE
from spectra_cli.storage.remote import RemotePath, remote_path
from spectra_cli.storage.secrets import URL, without_secrets

Place = Path | RemotePath
"""Where a file or a directory is."""


class Entry(Protocol):
    """What lies in a directory: an :class:`os.DirEntry`, or what a remote storage lists."""

    @property
    def name(self) -> str:
        """Name without the directory."""
        ...

    @property
    def path(self) -> str:
        """Path with the directory."""
        ...

    def is_dir(self) -> bool:
        """Whether it is a directory, or a link to one."""
        ...

    def is_file(self) -> bool:
        """Whether it is a file, or a link to one."""
        ...

    def is_symlink(self) -> bool:
        """Whether it is a link."""
        ...

    def inode(self) -> int:
        """Number of the entry on its device."""
        ...

    def stat(self) -> os.stat_result:
        """File status of what is behind every link."""
        ...


def place_of(text: str) -> Place:
    """The place that a user means: a path, or a URL such as ``s3://bucket/runs/a``."""
    match = URL.fullmatch(text)
    if match is None:
        return Path(text)
    if match["scheme"].lower() in {"file", "local"}:
        return Path(url2pathname(urlsplit(text).path))
    return remote_path(text)


def entries_of(directory: Place) -> list[Entry]:
    """What lies directly in a directory, in no order.

    Raises:
        OSError: if it cannot be listed.
        CheckpointError: if a remote storage does not answer.
    """
    if isinstance(directory, RemotePath):
        return list(directory.scan())
    with os.scandir(directory) as entries:
        return list(entries)


def is_directory(place: Place) -> bool:
    """Whether it is a directory; not where the system denies a look, of which :meth:`Path.is_dir` makes an error."""
    return place.is_dir() if isinstance(place, RemotePath) else os.path.isdir(place)


def is_present(place: Place) -> bool:
    """Whether there is something, if only a link to nothing."""
    return place.exists() if isinstance(place, RemotePath) else os.path.lexists(place)


def real(place: Place) -> str:
    """A text that is the same for every spelling of a place and every link to it."""
    return place.url if isinstance(place, RemotePath) else os.path.realpath(place)


def absolute(place: Place) -> str:
    """The place without regard to the working directory; links stay as they are."""
    return place.url if isinstance(place, RemotePath) else os.path.abspath(place)


def location(place: Place) -> str:
    """The text that :func:`place_of` makes the place of; unlike that for people it may hold secrets."""
    return place.url if isinstance(place, RemotePath) else str(place)


def normalized(place: Place) -> Place:
    """The place without ``.`` and ``..``."""
    return place if isinstance(place, RemotePath) else Path(os.path.normpath(place))


def relative_name(place: Place, root: Place) -> str:
    """The path relative to another one, with forward slashes; a URL where there is no such path. It is for people."""
    try:
        name = within(place, root).as_posix()
        return without_secrets(name) if isinstance(place, RemotePath) else name
    except ValueError:
        if isinstance(place, RemotePath) or isinstance(root, RemotePath):
            return place.as_posix()
        return Path(os.path.relpath(place, root)).as_posix()


def within(place: Place, root: Place) -> PurePath:
    """The path relative to a directory around it.

    Raises:
        ValueError: if it is not below the directory.
    """
    if isinstance(place, RemotePath):
        return place.relative_to(root)
    if isinstance(root, RemotePath):
        raise ValueError(f"{place} is not below {root}")  # noqa: TRY004 - as pathlib says of two local paths
    return place.relative_to(root)


def content_tag(place: Place) -> str:
    """A tag that is equal for files of equal content, if their storage tells; "" where only reading them would.

    Raises:
        OSError: if a remote file is absent or may not be looked at.
    """
    return place.tag() if isinstance(place, RemotePath) else ""


def require_file(place: Place) -> os.stat_result:
    """The status of a regular file, or of one behind a link.

    Raises:
        OSError: if there is none, or it is something else; `strerror` says which.
        CheckpointError: if a remote storage does not answer.
    """
    status = place.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, NO_FILE, str(place))
    return status


def matching(pattern: Place) -> list[Place]:
    """The places that match a pattern, as :func:`glob.glob` does, with ``**`` for any number of directories."""
    if isinstance(pattern, RemotePath):
        scheme, *parts = pattern.parts
        plain = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts))
        base = remote_path(scheme + "/".join(parts[:plain]))
        return list(dict.fromkeys(_matching(base, parts[plain:])))
    return [Path(match) for match in glob.glob(str(pattern), recursive=True)]


def _matching(directory: RemotePath, parts: list[str]) -> Iterator[RemotePath]:
    """What lies below a directory and matches part by part; one listing for each directory entered."""
    if not parts:
        yield directory
        return
    part, rest = parts[0], parts[1:]
    if not glob.has_magic(part):
        place = directory / part
        if place.is_dir() or (not rest and place.exists()):
            yield from _matching(place, rest)
        return
    if part == "**":
        yield from _matching(directory, rest)
    try:
        entries = sorted(directory.scan(), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    for entry in entries:
        if not fnmatchcase(entry.name, part) or (entry.name.startswith(".") and not part.startswith(".")):
            continue
        place = directory / entry.name
        if part == "**" and entry.is_dir():
            yield from _matching(place, parts)
        elif not rest or (part != "**" and entry.is_dir()):
            yield from _matching(place, rest)
