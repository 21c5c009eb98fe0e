"""Paths in remote storage: a URL that fsspec knows, with as much of pathlib's interface as spectra takes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePath, PurePosixPath

from spectra_cli.storage.listings import Listings, RemoteEntry, is_below, join_url, split_url
from spectra_cli.storage.secrets import URL, shown_url


@dataclass(frozen=True, order=True, slots=True, repr=False)
class RemotePath:
    """A path in remote storage. Methods named as those of :class:`pathlib.Path` do the same.

    Its text is for people and for tables: secrets in the URL are left out of it.

    Attributes:
        url: as given, without a slash at the end; it may hold secrets.
        listings: what is known already of the files around it.
    """

    url: str
    listings: Listings = field(compare=False, repr=False)

    def __str__(self) -> str:
        return shown_url(self.url)

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __reduce__(self) -> tuple[Callable[..., RemotePath], tuple[object, ...]]:
        """Pickle what is known of it, and nothing of what lies around it, which may be thousands of files."""
        return remote_path, (self.url, self.listings.known(self.url))

    def as_posix(self) -> str:
        """The URL, without secrets."""
        return str(self)

    @property
    def parts(self) -> tuple[str, ...]:
        """The scheme with its slashes, the bucket, and each part of the key."""
        match = URL.fullmatch(self.url)
        return (f"{match['scheme']}://", *filter(None, match["rest"].split("/"))) if match else ()

    @property
    def name(self) -> str:
        """The last part."""
        return split_url(self.url)[1]

    @property
    def suffix(self) -> str:
        """End of the name, from its last dot on."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> RemotePath:
        """The directory around it; that of a bucket is its scheme, ``s3://``, and nothing is around that."""
        return RemotePath(split_url(self.url)[0], self.listings)

    @property
    def is_bucket(self) -> bool:
        """Whether it is what a storage is divided into, or the whole of it."""
        return len(self.parts) <= 2

    def __truediv__(self, other: str | PurePath) -> RemotePath:
        """The path within this one; ``..`` leads up, though not out of the bucket."""
        place = self
        for part in str(other).split("/"):
            if part == "..":
                place = place if place.is_bucket else place.parent
            elif part not in {"", "."}:
                place = RemotePath(join_url(place.url, part), self.listings)
        return place

    def is_relative_to(self, other: object) -> bool:
        """Whether it is the other path or lies below it."""
        return isinstance(other, RemotePath) and is_below(self.url, other.url)

    def relative_to(self, other: object) -> PurePosixPath:
        """The path within the other one.

        Raises:
            ValueError: if it is not below it.
        """
        if not isinstance(other, RemotePath) or not self.is_relative_to(other):
            raise ValueError(f"{self} is not below {other}")
        return PurePosixPath(self.url[len(other.url) :].strip("/"))

    def absolute(self) -> RemotePath:
        """The path itself."""
        return self

    def resolve(self) -> RemotePath:
        """The path itself."""
        return self

    def stat(self) -> os.stat_result:
        """See :meth:`RemoteEntry.stat`.

        Raises:
            OSError: if it is absent or may not be looked at.
            CheckpointError: if the storage does not answer.
        """
        return self.listings.entry(self.url).stat()

    def tag(self) -> str:
        """What changes with the content of the file; "" where the storage tells nothing like it."""
        return self.listings.entry(self.url).tag

    def scan(self) -> Iterator[RemoteEntry]:
        """What lies directly in the directory.

        Raises:
            OSError: if it is absent, no directory, or may not be listed.
            CheckpointError: if the storage does not answer.
        """
        yield from self.listings.entries(self.url).values()

    def exists(self) -> bool:
        """Whether there is something that may be looked at."""
        return self._mode() != 0

    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self._mode())

    def is_file(self) -> bool:
        """Whether it is a file."""
        return stat.S_ISREG(self._mode())

    def is_symlink(self) -> bool:
        """False, always."""
        return False

    def _mode(self) -> int:
        try:
            return self.stat().st_mode
        except OSError:
            return 0


def remote_path(url: str, known: RemoteEntry | None = None) -> RemotePath:
    """The path that a URL means; the storage is not asked before it is needed.

    Args:
        url: slashes at its end do not count; ``.`` and ``..`` in it lead where they lead in paths, though not out of
            the bucket.
        known: what is known of it already.
    """
    url = _folded(url)
    stripped = url.rstrip("/")
    url = url if stripped.endswith(":") else stripped
    return RemotePath(url, Listings(url, known))


def _folded(url: str) -> str:
    """A URL without ``.`` and ``..``; where there are none of them, as it is."""
    match = URL.fullmatch(url)
    if match is None:
        return url
    place, query = match["rest"], ""
    if match["scheme"].lower() in {"http", "https"}:  # elsewhere a question mark is a letter of the path
        place, mark, query = place.partition("?")
        query = mark + query
    parts = place.split("/")
    if not {".", ".."} & set(parts):
        return url
    kept: list[str] = []
    for part in parts:
        if part == "..":
            while kept and not kept[-1]:
                kept.pop()
            if len(list(filter(None, kept))) > 1:
                kept.pop()
        elif part != ".":
            kept.append(part)
    return f"{match['scheme']}://{'/'.join(kept)}{query}"
