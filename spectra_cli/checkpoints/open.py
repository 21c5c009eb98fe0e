"""Opens a path as a Reader: what a checkpoint is follows from its content, never from a suffix."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from spectra_cli.checkpoints.damage import corrupt
from spectra_cli.checkpoints.filenames import (
    DCP_METADATA,
    FOREIGN_SUFFIXES,
    INDEX_SUFFIXES,
    SHARD_NAME,
    Layout,
    directory_layout,
    may_be_model,
)
from spectra_cli.checkpoints.filespan import read_exactly
from spectra_cli.checkpoints.formats.archive import ZIP_MAGIC
from spectra_cli.checkpoints.formats.dcp import check_distributed, files_of_distributed, open_distributed
from spectra_cli.checkpoints.formats.limits import printable
from spectra_cli.checkpoints.formats.pickled import looks_like_legacy, open_archive, open_legacy
from spectra_cli.checkpoints.formats.refused import refuse_content, refuse_deepspeed, refuse_megatron, refuse_packed
from spectra_cli.checkpoints.formats.safetensors import looks_like_safetensors, open_safetensors
from spectra_cli.checkpoints.formats.sharded import check_numbering, check_present, open_index, open_shards, read_index
from spectra_cli.checkpoints.formats.stored import StoredTensors, open_binary
from spectra_cli.checkpoints.listing import list_directory
from spectra_cli.checkpoints.reader import Reader
from spectra_cli.errors import CheckpointError, IncompleteCheckpointError, SpectraError
from spectra_cli.regularfile import NO_FILE
from spectra_cli.storage.files import StoredFile, read_up_to
from spectra_cli.storage.places import Place

HEAD_BYTES = 512
TAIL_BYTES = 8


def open_checkpoint(path: Place) -> Reader:
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


def check_complete(path: Place) -> None:
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


def files_of(path: Place) -> list[Place]:
    """The files that opening a checkpoint reads: one alone, an index and its shards, ``.metadata`` and those it names.

    Indices and ``.metadata`` are read, tensor files are not.

    Raises:
        CheckpointError: as :func:`check_complete`; and if the path is a directory that holds no checkpoint, or one of a
            kind that is refused.
    """
    with _told_as_checkpoint_errors(path):
        directory, layout = _parts(path)
        if layout.kind == "index":
            names = sorted(set(read_index(directory / layout.files[0]).values()))
        elif layout.kind == "distributed":
            names = files_of_distributed(directory)
        else:
            return [directory / name for name in layout.files]
        check_present(directory, names, layout.files[0])
        return [directory / name for name in (*layout.files, *names)]


@contextmanager
def _told_as_checkpoint_errors(path: Place) -> Iterator[None]:
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


def _open(path: Place) -> StoredTensors:
    directory, layout = _parts(path)
    match layout.kind:
        case "distributed":
            return open_distributed(directory)
        case "index":
            reader = open_index(directory / layout.files[0], _open_file)
        case "shards":
            reader = open_shards([directory / name for name in layout.files], _open_file)
        case _:
            reader = _open_file(directory / layout.files[0])
    others = [name for name in layout.passed_over if not SHARD_NAME.fullmatch(name)]
    notes = [f"{name} may hold a model too and is not part of this checkpoint" for name in others]
    if layout.kind == "file" and SHARD_NAME.fullmatch(layout.files[0]):
        notes.append("this is one shard; pass its directory for the whole checkpoint")
    return replace(reader, notes=[*reader.notes, *notes]) if notes else reader


def _parts(path: Place) -> tuple[Place, Layout]:
    """The directory in which the files of a checkpoint are, and how they make it up.

    Raises:
        UnsupportedFormatError: if they are one model split over several ranks.
        CheckpointError: if there is none, or more than one.
    """
    if not path.is_dir():
        return path.parent, _named_layout(path)
    layout = _layout(path)
    match layout.kind:
        case "deepspeed" if len(layout.files) > 1 or "zero_pp_rank" in layout.files[0]:
            raise refuse_deepspeed(layout.files)
        case "megatron" if len(layout.files) > 1:
            raise refuse_megatron(layout.files)
        case "megatron":
            return _parts(path / layout.files[0])
    return path, layout


def _named_layout(path: Place) -> Layout:
    """What the user pointed at: a model file, an index, a shard, or the ``.metadata`` of a directory."""
    _check_file(path)
    if path.name == DCP_METADATA:
        return Layout("distributed", (path.name,))
    return Layout("index" if path.name.endswith(INDEX_SUFFIXES) else "file", (path.name,))


def _open_file(path: Place) -> StoredTensors:
    """Open a file by its first bytes."""
    _check_file(path)
    file = open_binary(path)
    try:
        return _reader_of(file)
    except BaseException:
        file.close()
        raise


def _reader_of(file: StoredFile) -> StoredTensors:
    head = read_up_to(file, HEAD_BYTES)
    if head.startswith(ZIP_MAGIC):
        return open_archive(file)
    if looks_like_legacy(head):
        return open_legacy(file)
    if looks_like_safetensors(head):
        return open_safetensors(file)
    tail = bytearray(min(TAIL_BYTES, len(head)))
    read_exactly(file, file.size_bytes - len(tail), memoryview(tail))
    raise refuse_content(head, bytes(tail))


def _check_file(path: Place) -> None:
    """Require a regular file with bytes in it; opening a pipe would wait forever."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError("there is no such file or directory", where=str(path), remedy="Check the path") from error
    _check_regular(path, status.st_mode)
    if status.st_size == 0:
        raise corrupt("the file is empty", str(path))


def _check_kind(path: Place) -> None:
    """Require that what is there is a file; whether anything is there is asked elsewhere."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    _check_regular(path, mode)


def _check_regular(path: Place, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise CheckpointError(NO_FILE, where=str(path), remedy="Check the path")


def _layout(path: Place) -> Layout:
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


def _directory_layout(path: Place) -> Layout | None:
    """Layout of a directory, as discovery finds it in the same entries or as only opening can tell it."""
    listing = list_directory(path)
    layout = listing.layout or directory_layout((), [entry.name for entry in listing.directories])
    if layout is None and not listing.models and any(entry.name == DCP_METADATA for entry in listing.files):
        return Layout("distributed", (DCP_METADATA,))  # names the files that are absent, if it is what it seems
    return layout
