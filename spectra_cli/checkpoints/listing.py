"""Sorts what lies in one directory by names alone: what may be a checkpoint, what is not and why."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from functools import lru_cache

from spectra_cli.checkpoints.filenames import (
    DCP_METADATA,
    DCP_SUFFIX,
    FOREIGN_SUFFIXES,
    INDEX_SUFFIXES,
    MODEL_SUFFIXES,
    SHARD_NAME,
    Layout,
    directory_layout,
    not_a_model,
)
from spectra_cli.checkpoints.steps import moment_of, natural_key
from spectra_cli.storage.places import Entry, Place, entries_of

HALF_WRITTEN_SUFFIXES = (".tmp", ".temp", ".part", ".partial", ".incomplete", ".crdownload", ".swp", "~")

HIDDEN = "hidden"
FOREIGN = "a format that is not read"

_HALF_WRITTEN_PREFIX = re.compile(r"te?mp[-_]", re.IGNORECASE)  # Hugging Face saves to tmp-checkpoint-500 first
_SKIPPED_DIRECTORIES = frozenset({"__pycache__", "node_modules"})


@dataclass(frozen=True, slots=True)
class Stray:
    """What is passed over, and why.

    Attributes:
        path: where it lies.
        reason: a few words for people.
        notable: whether it looks like a checkpoint, so that its owner may miss it.
    """

    path: Place
    reason: str
    notable: bool = False


@dataclass(slots=True)
class Listing:
    """What lies directly in one directory, in natural order.

    Attributes:
        files: every file that is not hidden, half-written or a dead link; parts of a checkpoint whatever they are, so
            that a pipe in place of a shard is told when the checkpoint is opened.
        models: those of them which may each be a checkpoint.
        directories: what may hold checkpoints.
        passed_over: all others; notable are half-written files, dead links, foreign formats and shards of several
            checkpoints.
    """

    path: Place
    device: int
    inode: int
    files: list[Entry] = field(default_factory=list)
    models: list[Entry] = field(default_factory=list)
    directories: list[Entry] = field(default_factory=list)
    passed_over: list[Stray] = field(default_factory=list)

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode of the directory."""
        return self.device, self.inode

    @property
    def missed(self) -> list[Stray]:
        """What is passed over and notable."""
        return [stray for stray in self.passed_over if stray.notable]

    @property
    def layout(self) -> Layout | None:
        """How the files make up one checkpoint; None where they do not."""
        return _layout(tuple(entry.name for entry in self.files))

    @property
    def is_run(self) -> bool:
        """Whether directories in it are named after steps."""
        return any(moment_of(entry.name).explicit for entry in self.directories)


def list_directory(path: Place) -> Listing:
    """List a directory and sort its entries by their names.

    Raises:
        OSError: if the directory cannot be listed.
        CheckpointError: if a remote storage does not answer.
    """
    status = path.stat()
    listing = Listing(path, status.st_dev, status.st_ino)
    for entry in sorted(entries_of(path), key=lambda entry: natural_key(entry.name)):
        if reason := _unusable(entry):
            listing.passed_over.append(Stray(path / entry.name, reason, notable=reason != HIDDEN))
        elif entry.is_dir():
            if entry.name not in _SKIPPED_DIRECTORIES:
                listing.directories.append(entry)
        else:
            listing.files.append(entry)
            if reason := _no_checkpoint(entry.name):
                listing.passed_over.append(Stray(path / entry.name, reason, notable=reason.startswith(FOREIGN)))
            elif not is_part(entry.name):
                listing.models.append(entry)
    if listing.layout is None:
        shards = [entry.name for entry in listing.files if SHARD_NAME.fullmatch(entry.name)]
        reason = "one of several sets of shards in one directory; give each its own"
        listing.passed_over += [Stray(path / name, reason, notable=True) for name in shards]
    return listing


def may_be_checkpoint(name: str, *, is_directory: bool) -> bool:
    """Whether a file or directory of this name may be a checkpoint, a part of one, or hold some."""
    return _unfinished(name) is None and (is_directory or _no_checkpoint(name) is None)


def _unusable(entry: Entry) -> str | None:
    if reason := _unfinished(entry.name):
        return reason
    try:
        if entry.is_symlink() and not os.path.exists(entry.path):
            return f"a link to {os.readlink(entry.path)}, which does not exist"
        if entry.is_dir() or entry.is_file() or is_part(entry.name):
            return None
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return "neither a file nor a directory"


def _unfinished(name: str) -> str | None:
    if name.startswith(".") and name != DCP_METADATA:
        return HIDDEN
    if name.lower().endswith(HALF_WRITTEN_SUFFIXES) or _HALF_WRITTEN_PREFIX.match(name):
        return "half-written or temporary by its name"
    return None


@lru_cache(maxsize=4096)
def _no_checkpoint(name: str) -> str | None:
    if is_part(name):
        return None
    if reason := never_a_model(name):
        return reason
    lower = name.lower()
    if lower.endswith(FOREIGN_SUFFIXES):
        return f"{FOREIGN} ({lower[lower.rindex('.') :]})"
    # Files saved without any suffix are common, and taken where a word says what their number counts.
    suffixless = "." not in name and moment_of(name).explicit
    return None if lower.endswith(MODEL_SUFFIXES) or suffixless else "not a checkpoint by its name"


never_a_model = lru_cache(maxsize=4096)(not_a_model)


def is_part(name: str) -> bool:
    """Whether the file is part of a checkpoint that several files make up."""
    return name == DCP_METADATA or name.endswith((*INDEX_SUFFIXES, DCP_SUFFIX)) or bool(SHARD_NAME.fullmatch(name))


# Runs of checkpoint directories repeat the same few names thousands of times.
_layout = lru_cache(maxsize=64)(directory_layout)
