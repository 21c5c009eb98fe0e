"""Where tables are: the interface of a location, which is a file of this machine or an object in remote storage."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol

from spectra_cli.errors import UsageError
from spectra_cli.storage.places import place_of
from spectra_cli.tables.localtable import LocalTable
from spectra_cli.tables.remotetable import RemoteTable

FOREIGN_SUFFIXES = frozenset(
    {".csv", ".tsv", ".txt", ".json", ".jsonl", ".xlsx", ".feather", ".arrow", ".npz", ".h5", ".toml", ".md", ".py"}
    | {".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar", ".gguf", ".onnx", ".npy", ".pkl"}
)


class TableLocation(Protocol):
    """Where one table is, or is to go. Its text is the name by which the user knows it."""

    @property
    def journal_path(self) -> Path:
        """Path of the journal that is kept while the table is made.

        Raises:
            InputError: if no directory can hold it.
        """
        ...

    def exists(self) -> bool:
        """Whether anything is there.

        Raises:
            InputError: if it is no file, or cannot be read.
        """
        ...

    def open(self) -> BinaryIO | None:
        """Open what is there for reading; None if nothing is.

        Raises:
            InputError: if it is no file, or cannot be read.
        """
        ...

    def read_local(self) -> AbstractContextManager[Path | None]:
        """A context with a file of this machine that holds the table which is there; None if none is.

        Raises:
            InputError: if it is no file, or cannot be read.
        """
        ...

    def new_partial(self) -> Path:
        """Make an empty file of this machine in which the table is made.

        Raises:
            InputError: if it cannot be made.
        """
        ...

    def publish(self, partial: Path) -> None:
        """Put a finished file there, where it appears whole; `partial` is gone then.

        Raises:
            InputError: if that cannot be done; what was there still is.
        """
        ...

    def remove_leftovers(self) -> None:
        """Remove partial files that killed processes left. Only for the holder of the table's journal."""
        ...


def location_of(out: str | Path) -> TableLocation:
    """The location that is meant: a path, or a URL such as ``s3://bucket/rank.parquet``, given as text.

    Raises:
        UsageError: if its name is that of another kind of file.
    """
    place = place_of(out) if isinstance(out, str) else out
    if os.path.splitext(place.name)[1].lower() in FOREIGN_SUFFIXES:
        raise UsageError(f"--out {place.name}: the table is a Parquet file", remedy="Give --out a name in .parquet")
    return LocalTable(place) if isinstance(place, Path) else RemoteTable(place.url)
