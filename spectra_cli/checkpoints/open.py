"""From a path to a Reader: what a checkpoint is follows from its content, never from a suffix."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from spectra_cli.checkpoints.filenames import (
    DCP_METADATA,
    FOREIGN_SUFFIXES,
    INDEX_SUFFIXES,
    SHARD_NAME,
    Layout,
    directory_layout,
    may_be_model,
)
from spectra_cli.checkpoints.formats.archive import ZIP_MAGIC
from spectra_cli.checkpoints.formats.dcp import check_distributed, open_distributed
from spectra_cli.checkpoints.formats.limits import printable
from spectra_cli.checkpoints.formats.pickled import looks_like_legacy, open_archive, open_legacy
from spectra_cli.checkpoints.formats.refused import refuse_content, refuse_deepspeed, refuse_megatron, refuse_packed
from spectra_cli.checkpoints.formats.safetensors import looks_like_safetensors, open_safetensors
from spectra_cli.checkpoints.formats.sharded import check_numbering, check_present, open_index, open_shards, read_index
from spectra_cli.checkpoints.formats.stored import StoredTensors, open_binary
from spectra_cli.checkpoints.listing import list_directory
from spectra_cli.checkpoints.reader import Reader
from spectra_cli.errors import CheckpointError, CorruptCheckpointError, IncompleteCheckpointError, SpectraError

HEAD_BYTES = 512
TAIL_BYTES = 8


def open_checkpoint(path: Path) -> Reader:
    """Open one checkpoint: a file, a shard index, or a directory that is one checkpoint.

    Only headers are read, and nothing that the files say is executed or imported. The reader holds files open until it
    is closed.

    Raises:
        CheckpointError: whatever is wrong with it and what to do: there is nothing at the path any more, the system
            cannot read it, or one of the subclasses.
    """
    with _told_as_checkpoint_errors(path):
        reader = _open(path)
        error = refuse_packed(reader.tensors)
        if error is not None:
            reader.close()
            raise error
    return reader


def check_complete(path: Path) -> None:
    """Check, without opening a tensor file, that every file that a checkpoint names is there.

    Listings, shard indices and small ``.metadata`` files are read: cheap enough for thousands of checkpoints before any
    work begins.

    Raises:
        IncompleteCheckpointError: if a shard is absent.
        HostileCheckpointError: if an index names a file outside its directory.
        CorruptCheckpointError: if an index cannot be read, or a file is empty.
        CheckpointError: if there is nothing at the path, or the system cannot read it. A directory without a model is
            told when it is opened.
    """
    with _told_as_checkpoint_errors(path):
        if not path.is_dir():
            _check_file(path)
            return
        layout = _directory_layout(path)
        if layout is None:
            return
        if layout.kind == "index":
            index = path / layout.files[0]
            files = set(read_index(index).values())
            for file in files:
                _check_kind(path / file)
            check_present(path, files, index.name)
        elif layout.kind == "shards":
            check_numbering(layout.files)
        elif layout.kind == "distributed":
            check_distributed(path)
        elif layout.kind == "file":
            _check_file(path / layout.files[0])


@contextmanager
def _told_as_checkpoint_errors(path: Path) -> Iterator[None]:
    """Name the path in every error, and make one of what the system says."""
    try:
        yield
    except SpectraError as error:
        error.what = printable(error.what)  # it may quote names from the file
        error.at(str(path))
        raise
    except OSError as error:
        raise CheckpointError(
            f"the system cannot read it ({error.strerror})",
            where=str(error.filename or path),
            remedy="Check the permissions, the disk or the network file system",
        ) from error


def _open(path: Path) -> StoredTensors:
    if not path.is_dir():
        return _open_named_file(path)
    layout = _layout(path)
    match layout.kind:
        case "distributed":
            return open_distributed(path)
        case "deepspeed" if len(layout.files) > 1 or "zero_pp_rank" in layout.files[0]:
            raise refuse_deepspeed(layout.files)
        case "megatron" if len(layout.files) > 1:
            raise refuse_megatron(layout.files)
        case "megatron":
            return _open(path / layout.files[0])
        case "index":
            reader = open_index(path / layout.files[0], _open_file)
        case "shards":
            reader = open_shards([path / name for name in layout.files], _open_file)
        case _:
            reader = _open_file(path / layout.files[0])
    others = [name for name in layout.passed_over if not SHARD_NAME.fullmatch(name)]
    notes = [f"{name} may hold a model too and is not part of this checkpoint" for name in others]
    return replace(reader, notes=[*reader.notes, *notes])


def _open_named_file(path: Path) -> StoredTensors:
    """Open what the user pointed at: a model file, an index, a shard, or the ``.metadata`` of a directory."""
    if path.name == DCP_METADATA:
        return open_distributed(path.parent)
    if path.name.endswith(INDEX_SUFFIXES):
        _check_file(path)
        return open_index(path, _open_file)
    reader = _open_file(path)
    if SHARD_NAME.fullmatch(path.name):
        return replace(reader, notes=[*reader.notes, "this is one shard; pass its directory for the whole checkpoint"])
    return reader


def _open_file(path: Path) -> StoredTensors:
    """Open a file by its first bytes."""
    _check_file(path)
    with open_binary(path) as file:
        head = file.read(HEAD_BYTES)
        file.seek(-min(TAIL_BYTES, len(head)), os.SEEK_END)
        tail = file.read(TAIL_BYTES)
    if head.startswith(ZIP_MAGIC):
        return open_archive(path)
    if looks_like_legacy(head):
        return open_legacy(path)
    if looks_like_safetensors(head):
        return open_safetensors(path)
    raise refuse_content(head, tail)


def _check_file(path: Path) -> None:
    """Require a regular file with bytes in it; opening a pipe would wait forever."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError("there is no such file or directory", where=str(path), remedy="Check the path") from error
    _check_regular(path, status.st_mode)
    if status.st_size == 0:
        raise CorruptCheckpointError("the file is empty", where=str(path), remedy="Copy or save the checkpoint again")


def _check_kind(path: Path) -> None:
    """Require that what is there is a file; whether anything is there is asked elsewhere."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    _check_regular(path, mode)


def _check_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise CheckpointError(
            "this is a pipe, a device or a directory, not a file", where=str(path), remedy="Check the path"
        )


def _layout(path: Path) -> Layout:
    """How the entries of a directory make up one checkpoint; foreign formats count here, to be refused in words."""
    layout = _directory_layout(path)
    if layout is not None:
        return layout
    files = [entry.name for entry in list_directory(path).files]
    models = [name for name in files if may_be_model(name)]
    if len(models) > 1:
        raise CheckpointError(
            f"the directory holds several model files ({', '.join(models[:3])}{', …' if len(models) > 3 else ''})",
            remedy="Pass one of them, or the directory as a run",
        )
    foreign = [name for name in files if name.lower().endswith(FOREIGN_SUFFIXES)]
    if not foreign:
        raise IncompleteCheckpointError(
            "the directory holds no checkpoint", remedy="Save or copy the model into it again, or remove the directory"
        )
    return Layout("file", (foreign[0],))


def _directory_layout(path: Path) -> Layout | None:
    """As discovery tells it from the same entries, and what only opening can tell."""
    listing = list_directory(path)
    layout = listing.layout or directory_layout((), [entry.name for entry in listing.directories])
    if layout is None and not listing.models and any(entry.name == DCP_METADATA for entry in listing.files):
        return Layout("distributed", (DCP_METADATA,))  # names the files that are absent, if it is what it seems
    return layout
