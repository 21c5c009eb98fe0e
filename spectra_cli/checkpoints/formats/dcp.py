"""Checkpoints of torch.distributed (FSDP and others): a directory with ``.metadata`` and ``*.distcp`` files."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from spectra_cli.checkpoints.damage import corrupt
from spectra_cli.checkpoints.filenames import DCP_METADATA
from spectra_cli.checkpoints.filespan import Span
from spectra_cli.checkpoints.formats.archive import Archive, Window
from spectra_cli.checkpoints.formats.chunked import Chunk, ChunkedSpan, check_cover
from spectra_cli.checkpoints.formats.inert import load_inert
from spectra_cli.checkpoints.formats.limits import Notes, printable, quoted
from spectra_cli.checkpoints.formats.pickled import load_archive
from spectra_cli.checkpoints.formats.placeholders import Global, Key, Object
from spectra_cli.checkpoints.formats.rebuild import REBUILDERS, StoredTensor, shape_of, sizes_of
from spectra_cli.checkpoints.formats.sharded import check_inside, check_present
from spectra_cli.checkpoints.formats.stored import COUNTER_NAMES, StoredTensors, integer_metadata, open_binary
from spectra_cli.errors import (
    CheckpointError,
    CorruptCheckpointError,
    IncompleteCheckpointError,
    UnsupportedFormatError,
)
from spectra_cli.storage.files import StoredFile
from spectra_cli.storage.places import Place
from spectra_cli.tensors import ITEMSIZE, TensorInfo

SMALL_METADATA_BYTES = 1 << 20
MOST_METADATA_OPCODES = 1 << 23
"""Limit for a ``.metadata`` file, in which every chunk of every rank takes about fifty."""

LARGEST_COUNTER_BYTES = 1 << 14
"""Size up to which a saved object is looked into for a step or an epoch; an int takes about 1.3 kB."""


@dataclass(frozen=True, slots=True)
class Item:
    """Position of one chunk of a tensor, or of one object, that ``torch.save`` wrote."""

    file: str
    offset: int
    size_bytes: int

    def archive_in(self, file: StoredFile) -> Archive:
        """Open what ``torch.save`` wrote; of a remote file it is brought here, and nothing around it."""
        file.keep(self.offset, self.size_bytes)
        return Archive(file, self.offset, self.size_bytes)


ItemKey = tuple[str, tuple[int, ...] | None]
"""Name of a tensor or object, and the offsets of the chunk."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What ``.metadata`` says.

    Attributes:
        entries: for every name the description of a tensor or of an object, in the order of the state dict.
        items: where each chunk and object is.
        paths: the keys of the nested dictionaries that lead to each name, where the planner noted them.
    """

    entries: dict[str, Object]
    items: dict[ItemKey, Item]
    paths: dict[str, tuple[Any, ...]]

    @property
    def files(self) -> list[str]:
        """Names of the files that hold something, sorted."""
        return sorted({item.file for item in self.items.values()})


def open_distributed(directory: Place) -> StoredTensors:
    """Open a directory that ``torch.distributed.checkpoint.save`` wrote, from any number of ranks.

    Raises:
        IncompleteCheckpointError: if a file or a chunk of a tensor is absent.
        CheckpointError: another of its subclasses, if the metadata contradicts itself or the files.
    """
    metadata = _read_metadata(directory)
    names = metadata.files
    check_present(directory, names, DCP_METADATA)
    files: dict[str, StoredFile] = {}
    try:
        for name in names:
            files[name] = open_binary(directory / name)
        for item in metadata.items.values():
            _check_size(files[item.file], item)
        with _well_formed():
            return _assemble(metadata, files)
    except BaseException:
        for file in files.values():
            file.close()
        raise


def check_distributed(directory: Place) -> None:
    """Check that the files which a small ``.metadata`` names are there; a larger one is only checked when it is opened.

    Raises:
        IncompleteCheckpointError: if a file is absent.
        CheckpointError: another of its subclasses, if the metadata cannot be read.
    """
    if (directory / DCP_METADATA).stat().st_size <= SMALL_METADATA_BYTES:
        check_present(directory, files_of_distributed(directory), DCP_METADATA)


def files_of_distributed(directory: Place) -> list[str]:
    """Names of the files, relative to the directory, in which ``.metadata`` places tensors and objects.

    Raises:
        CheckpointError: one of its subclasses, if the metadata cannot be read.
    """
    return _read_metadata(directory).files


def _read_metadata(directory: Place) -> Metadata:
    with open_binary(directory / DCP_METADATA) as file:
        file.keep_all()
        stream = io.BufferedReader(Window(file, 0, file.size_bytes))
        root = load_inert(stream, REBUILDERS, most_opcodes=MOST_METADATA_OPCODES)
    with _well_formed():
        return _parse(root.state)


@contextmanager
def _well_formed() -> Iterator[None]:
    """Metadata that lacks a field, or has something else in its place, is corrupt."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise corrupt(f"{DCP_METADATA} does not describe a distributed checkpoint") from error


def _parse(state: Mapping[Any, Any]) -> Metadata:
    entries = {name: entry for name, entry in state["state_dict_metadata"].items() if _is_entry(name, entry)}
    planned = state.get("planner_data")
    paths = {
        name: path
        for name, path in (planned if isinstance(planned, dict) else {}).items()
        if name in entries and isinstance(path, tuple) and all(isinstance(key, str | int) for key in path)
    }
    if len(paths) == len(entries):  # the planner keeps the order of the state dict, the metadata that of the ranks
        entries = {name: entries[name] for name in paths}
    items: dict[ItemKey, Item] = {}
    for key, info in (state.get("storage_data") or {}).items():
        index = key.value.state if isinstance(key, Key) else {}
        offsets = None if index.get("offset") is None else sizes_of(index["offset"])
        where = info.state
        if where.get("transform_descriptors"):
            raise UnsupportedFormatError(
                f"its chunks are transformed ({_words(where['transform_descriptors'])})",
                remedy="Save without compression, or run torch.distributed.checkpoint.format_utils.dcp_to_torch_save",
            )
        check_inside(where["relative_path"], DCP_METADATA)
        offset, size_bytes = sizes_of((where["offset"], where["length"]))
        if not isinstance(index["fqn"], str):
            raise TypeError("a name is text")  # and text alone may be hashed
        items[index["fqn"], offsets] = Item(where["relative_path"], offset, size_bytes)
    return Metadata(entries, items, paths)


def _words(values: Any) -> str:
    return ", ".join(value for value in values if isinstance(value, str))[:80] if isinstance(values, list) else "?"


def _is_entry(name: Any, entry: Any) -> bool:
    if not isinstance(name, str) or not isinstance(entry, Object):
        raise TypeError("an entry of the metadata is a named object")
    return True


def _assemble(metadata: Metadata, files: dict[str, StoredFile]) -> StoredTensors:
    tensors: dict[str, TensorInfo] = {}
    spans: dict[str, Span] = {}
    notes = Notes()
    for raw_name, entry in metadata.entries.items():
        if "chunks" not in entry.state:
            continue
        name = printable(raw_name)
        dtype = _dtype_of(entry.state.get("properties"))
        if dtype not in ITEMSIZE:
            notes.add(partial("{} has element type {}, which is not read".format, quoted(name), printable(dtype[:40])))
            continue
        path = metadata.paths.get(raw_name, ())
        group = list(path[:-1])
        while group and isinstance(path[len(group)], int):  # a list is not a dictionary: go up to the one around it
            group.pop()
        info = TensorInfo(name, shape_of(entry.state["size"]), dtype, printable(".".join(map(str, group))))
        try:
            chunks = list(_chunks(raw_name, info, entry.state["chunks"], metadata.items, files))
            check_cover(info.shape, chunks)
        except CheckpointError as error:
            raise type(error)(f"{quoted(name)}: {error.what}", remedy=error.remedy) from error
        if name in tensors:
            raise corrupt(f"two tensors are named {quoted(name)} when control characters are escaped")
        tensors[name], spans[name] = info, ChunkedSpan(info.shape, dtype, chunks)
    if not tensors:
        raise CheckpointError(f"{DCP_METADATA} names no tensors", remedy="Save the model's state dict")
    counters = integer_metadata(dict(_counters(metadata, files)))
    return StoredTensors("torch.distributed", tensors, spans, True, counters, notes.words(), list(files.values()))


def _dtype_of(properties: Any) -> str:
    """Name of the dtype in pickled ``TensorProperties``: one of its attributes, or the first of a tuple."""
    if not isinstance(properties, Object):
        return "unknown"
    states = [part for part in properties.parts if isinstance(part, tuple) and part]
    found = properties.state.get("dtype", states[-1][0] if states else None)
    return found.name if isinstance(found, Global) and found.module == "torch" else "unknown"


def _chunks(
    name: str, info: TensorInfo, described: Any, items: dict[ItemKey, Item], files: dict[str, StoredFile]
) -> Iterator[Chunk]:
    """The chunks of one tensor; empty ones and replicas are left out."""
    seen: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
    for chunk in described if isinstance(described, list) else ():
        offsets, sizes = sizes_of(chunk.state["offsets"]), shape_of(chunk.state["sizes"])
        if 0 in sizes or (offsets, sizes) in seen:
            continue
        seen.add((offsets, sizes))
        item = items.get((name, offsets))
        if item is None:
            raise IncompleteCheckpointError(
                f"the chunk at {list(offsets)} is in no file", remedy="Save the checkpoint again"
            )
        yield Chunk(offsets, sizes, cache(partial(_locate, files[item.file], item, info.name, sizes, info.dtype)))


def _locate(file: StoredFile, item: Item, name: str, sizes: tuple[int, ...], dtype: str) -> Span:
    """Open the archive that holds one chunk, and check that the chunk is the announced one."""
    try:
        archive = item.archive_in(file)
        root, prefix = load_archive(archive)
        if not isinstance(root, StoredTensor) or root.shape != sizes or root.dtype != dtype:
            raise corrupt(f"it does not hold a {dtype} chunk of shape {list(sizes)}")
        member = archive.member(f"{prefix}data/{root.storage.key}")
        return root.span(file, member.offset, member.size_bytes)
    except CheckpointError as error:
        what = f"the chunk of {quoted(name)} at byte {item.offset}: {error.what}"
        raise type(error)(printable(what), where=item.file, remedy=error.remedy) from error


def _counters(metadata: Metadata, files: dict[str, StoredFile]) -> Iterator[tuple[str, int]]:
    """Small integers among the saved objects that may be counters, by name."""
    for name in sorted(COUNTER_NAMES & metadata.entries.keys()):
        item = metadata.items.get((name, None))
        if "chunks" in metadata.entries[name].state or item is None or item.size_bytes > LARGEST_COUNTER_BYTES:
            continue
        try:
            value, _ = load_archive(item.archive_in(files[item.file]))
        except CheckpointError:
            continue  # an object that is no torch file is no counter
        if isinstance(value, int):
            yield name, value


def _check_size(file: StoredFile, item: Item) -> None:
    size_bytes = file.size_bytes
    if item.offset + item.size_bytes > size_bytes:
        raise CorruptCheckpointError(
            f"{item.file} has {size_bytes} bytes, {DCP_METADATA} names byte {item.offset + item.size_bytes}",
            remedy="Copy the checkpoint again",
        )
