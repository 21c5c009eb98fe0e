"""What a remote storage tells of its files and directories, each asked for once."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

from spectra_cli.storage.connection import connect, storage_errors
from spectra_cli.storage.secrets import shown_url

DEVICE = -1
"""What `st_dev` says of remote storage: no device of this machine."""

UNKNOWN_VERSION = -1
"""What `st_mtime_ns` says where the storage tells neither a version nor a time."""

REMEMBERED_BYTES = 1 << 25
"""Limit for the contents of small files."""

_TAGS = ("md5Hash", "ETag", "etag", "content_md5", "blob_id", "generation")
"""Keys under which storages tell what changes with the content of a file; most are a hash of it."""

_TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")


@dataclass(frozen=True, slots=True)
class RemoteEntry:
    """What a storage says of a file or a directory; read like an entry of :func:`os.scandir`.

    Attributes:
        path: its URL.
        is_folder: whether it is a directory, or what stands for one: a prefix of keys.
        size: in bytes; None where the storage does not say.
        tag: changes with the content; "" where the storage tells none.
        time: of the last change, as text; "" where the storage tells none.
    """

    path: str
    is_folder: bool
    size: int | None = None
    tag: str = ""
    time: str = ""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return split_url(self.path)[1]

    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return self.is_folder

    def is_file(self) -> bool:
        """Whether it is a file."""
        return not self.is_folder

    def is_symlink(self) -> bool:
        """False, always."""
        return False

    def inode(self) -> int:
        """A number that no other URL has."""
        return _number(self.path)

    def stat(self) -> os.stat_result:
        """Kind, size and identity as the system tells them of local files.

        `st_mtime_ns` is a number that changes with the content: of the tag, else of the time of the last change.
        """
        mode = stat.S_IFDIR if self.is_folder else stat.S_IFREG
        version = _number(self.tag or self.time) if self.tag or self.time else UNKNOWN_VERSION
        return os.stat_result((mode, self.inode(), DEVICE, 1, 0, 0, self.size or 0, 0, 0, 0), {"st_mtime_ns": version})


class Listings:
    """What a storage told of directories below a PATH and of single files beside it, each asked for once.

    Args:
        url: the PATH; directories from here on down are listed, what lies beside is looked up file by file.
        known: what is known of it, from another process.
    """

    def __init__(self, url: str, known: RemoteEntry | None = None) -> None:
        self.url = url
        self._directories: dict[str, dict[str, RemoteEntry]] = {}
        self._looked_up: dict[str, RemoteEntry | None] = {url: known} if known else {}
        self._contents: dict[str, bytes] = {}

    def content(self, url: str, read: Callable[[], bytes]) -> bytes:
        """The content of a small file, such as a config.json that all checkpoints of a run share; it is read once."""
        if url not in self._contents:
            content = read()
            if sum(map(len, self._contents.values())) + len(content) > REMEMBERED_BYTES:
                self._contents.clear()
            if len(content) > REMEMBERED_BYTES:
                return content
            self._contents[url] = content
        return self._contents[url]

    def known(self, url: str) -> RemoteEntry | None:
        """What the storage has said of a file or directory; None if it has not been asked."""
        directory, name = split_url(url)
        return self._directories.get(directory, {}).get(name) or self._looked_up.get(url)

    @cached_property
    def filesystem(self) -> Any:
        """File system of fsspec. What it knows from before is forgotten: a run may have grown.

        Raises:
            SpectraError: if the URL is of no storage that is known, or a package is absent.
        """
        filesystem = connect(self.url)
        filesystem.invalidate_cache()
        return filesystem

    def entries(self, directory: str) -> Mapping[str, RemoteEntry]:
        """What lies directly in a directory, by name.

        Raises:
            OSError: if it is absent, no directory, or may not be listed.
            CheckpointError: if the storage does not answer.
        """
        if directory not in self._directories:
            with storage_errors(directory):
                told = self.filesystem.ls(directory, detail=True)
            self._directories[directory] = self._named(directory, told)
        return self._directories[directory]

    def entry(self, url: str) -> RemoteEntry:
        """What the storage says of one file or directory.

        Raises:
            OSError: if it is absent or may not be looked at.
            CheckpointError: if the storage does not answer.
        """
        directory, name = split_url(url)
        if directory in self._directories or is_below(directory, self.url):
            try:
                found = self.entries(directory).get(name)
            except PermissionError:  # it may be allowed to read what it is not allowed to list
                return self._look_up(url)
            except NotADirectoryError:
                found = None
            if found is None:
                raise _absent(url)
            return found if found.is_folder or found.size is not None else self._look_up(url)
        return self._look_up(url)

    def _look_up(self, url: str) -> RemoteEntry:
        if url not in self._looked_up:
            try:
                with storage_errors(url):
                    self._looked_up[url] = _entry(url, self.filesystem.info(url))
            except FileNotFoundError:
                self._looked_up[url] = None
        found = self._looked_up[url]
        if found is None:
            raise _absent(url)
        return found

    def _named(self, directory: str, told: list[dict[str, Any]]) -> dict[str, RemoteEntry]:
        """Entries by name; what by its name is not directly in the directory is left out, whatever the storage says."""
        inside = self.filesystem._strip_protocol(directory).rstrip("/")
        entries: dict[str, RemoteEntry] = {}
        for each in told:
            path = each["name"].rstrip("/")
            parent, _, name = path.rpartition("/")
            if path == inside and len(told) == 1 and each.get("type") == "file":
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), shown_url(directory))
            if parent != inside or name in {"", ".", ".."}:
                continue
            entry = _entry(join_url(directory, name), each)
            if name not in entries or entry.is_folder:  # a key may be the prefix of others
                entries[name] = entry
        return entries


def split_url(url: str) -> tuple[str, str]:
    """The directory around what a URL means, and its name in it; nothing is around the scheme, ``s3://``."""
    directory, _, name = url.rpartition("/")
    return (f"{directory}/" if directory.endswith(":/") else directory), name


def join_url(directory: str, name: str) -> str:
    """The URL of what has a name in a directory."""
    return f"{directory}{'' if directory.endswith('/') else '/'}{name}"


def is_below(url: str, other: str) -> bool:
    """Whether a URL means the same as another one, or something in it."""
    return url == other or url.startswith(join_url(other, ""))


def _entry(url: str, told: Mapping[str, Any]) -> RemoteEntry:
    size = told.get("size")
    return RemoteEntry(
        url,
        told.get("type") == "directory",
        size if isinstance(size, int) and size >= 0 else None,
        next((str(told[key]).strip('"') for key in _TAGS if told.get(key)), ""),
        next((str(told[key]) for key in _TIMES if told.get(key)), ""),
    )


def _absent(url: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), shown_url(url))


def _number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 1
