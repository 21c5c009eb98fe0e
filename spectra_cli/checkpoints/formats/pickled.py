"""What ``torch.save`` writes: a zip archive of one pickle and its storages, or the stream of torch before 1.6."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

from spectra_cli.checkpoints.damage import corrupt
from spectra_cli.checkpoints.filespan import Span, read_exactly
from spectra_cli.checkpoints.formats.archive import Archive, Member, Window
from spectra_cli.checkpoints.formats.inert import load_inert
from spectra_cli.checkpoints.formats.limits import quoted
from spectra_cli.checkpoints.formats.rebuild import REBUILDERS, Storage, StoredTensor, storage_from_id
from spectra_cli.checkpoints.formats.refused import refuse_archive
from spectra_cli.checkpoints.formats.statedict import contents_of
from spectra_cli.checkpoints.formats.stored import StoredTensors
from spectra_cli.errors import CorruptCheckpointError, HostileCheckpointError, UnsupportedFormatError
from spectra_cli.storage.files import StoredFile
from spectra_cli.tensors import ITEMSIZE, TensorInfo

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The pickled number with which legacy files start."""

LEGACY_PROTOCOL = 1001
DATA = "data.pkl"
MOST_REPETITION = 8
"""Limit for the size of all tensors that differ, in multiples of the file's size: they may share storages."""

SMALL_BYTES = 1 << 26
"""Size that tensors together may have in any case."""


def looks_like_legacy(head: bytes) -> bool:
    """Whether a file that starts with these bytes (at least 24) is a legacy torch file."""
    return head[:1] == b"\x80" and b"\x8a\x0a" + LEGACY_MAGIC.to_bytes(10, "little") + b"." in head[2:24]


def archive_prefix(archive: Archive) -> str | None:
    """The directory inside the archive in which torch keeps everything, or None where this is no torch archive."""
    prefixes = [name.removesuffix(DATA) for name in archive if name == DATA or name.endswith("/" + DATA)]
    return min(prefixes, key=len) if prefixes else None


def open_archive(file: StoredFile) -> StoredTensors:
    """Make a reader of a zip archive written by ``torch.save``. A remote one is brought here whole.

    Raises:
        CheckpointError: one of its subclasses, if the archive or a tensor in it is not what it claims to be.
    """
    file.keep_all()
    return _read_archive(file)


def open_legacy(file: StoredFile) -> StoredTensors:
    """Make a reader of a file written by ``torch.save`` before torch 1.6, or with the new format switched off.

    A remote one is brought here whole.

    Raises:
        CheckpointError: one of its subclasses, if the file or a tensor in it is not what it claims to be.
    """
    file.keep_all()
    return _read_legacy(file)


def load_archive(archive: Archive) -> tuple[Any, str]:
    """The object in a torch archive, with descriptions for tensors, and the prefix of its members.

    Raises:
        CorruptCheckpointError: if it is no torch archive or its pickle is damaged.
        UnsupportedFormatError: if its numbers are big-endian.
    """
    prefix = archive_prefix(archive)
    if prefix is None:
        raise CorruptCheckpointError(f"the zip archive holds no {DATA}", remedy="Save the checkpoint again")
    if prefix + "byteorder" in archive:
        _check_byte_order(archive.read(prefix + "byteorder", 16) == b"little")
    return load_inert(archive.open(prefix + DATA), REBUILDERS, storage_from_id), prefix


def _read_archive(file: StoredFile) -> StoredTensors:
    archive = Archive(file)
    if refusal := refuse_archive(list(archive), archive_prefix(archive)):
        raise refusal
    root, prefix = load_archive(archive)
    places: dict[str, Member] = {}

    def place(storage: Storage) -> Member:
        if storage.key not in places:
            places[storage.key] = archive.member(f"{prefix}data/{storage.key}")
        return places[storage.key]

    return _named(root, file, place, "pytorch")


def _named(root: Any, file: StoredFile, place: Callable[[Storage], Member], form: str) -> StoredTensors:
    """Name the tensors of an unpickled object and find the bytes of each."""
    contents = contents_of(root)
    tensors: dict[str, TensorInfo] = {}
    spans: dict[str, Span] = {}
    identities = {tensor: tensor.identity for tensor in {named.tensor for named in contents.tensors}}
    _check_total(identities, file.size_bytes)
    located: dict[StoredTensor, Span] = {}  # under a thousand names it is looked for once
    for named in contents.tensors:
        tensor = named.tensor
        try:
            if tensor not in located:
                member = place(tensor.storage)
                located[tensor] = tensor.span(file, member.offset, member.size_bytes)
        except CorruptCheckpointError as error:
            raise CorruptCheckpointError(f"{quoted(named.name)}: {error.what}", remedy=error.remedy) from error
        spans[named.name] = located[tensor]
        tensors[named.name] = TensorInfo(named.name, tensor.shape, tensor.dtype, named.group, identities[tensor])
    return StoredTensors(form, tensors, spans, True, contents.metadata, contents.notes, [file], contents.unread)


def _check_total(identities: Mapping[StoredTensor, str], file_bytes: int) -> None:
    """Views of one storage may be many, but not so many that reading each of them never ends."""
    total_bytes = sum({identity: tensor.nbytes for tensor, identity in identities.items()}.values())
    if total_bytes > max(MOST_REPETITION * file_bytes, SMALL_BYTES):
        raise HostileCheckpointError(
            f"its tensors repeat the {file_bytes} bytes of the file until they have {total_bytes}",
            remedy="Save them with .contiguous() if they are meant to be that large",
        )


def _read_legacy(file: StoredFile) -> StoredTensors:
    file_bytes = file.size_bytes
    stream = io.BufferedReader(Window(file, 0, file_bytes))
    storages: dict[str, Storage] = {}

    def remember(identity: Any) -> Any:
        storage = storage_from_id(identity)
        if isinstance(storage, Storage):
            storages.setdefault(storage.key, storage)
        return storage

    if [load_inert(stream, {}), load_inert(stream, {})] != [LEGACY_MAGIC, LEGACY_PROTOCOL]:
        raise CorruptCheckpointError("the legacy torch file has an unknown protocol", remedy="Save it again")
    system = load_inert(stream, {})
    _check_byte_order(isinstance(system, dict) and system.get("little_endian") is True)
    root = load_inert(stream, REBUILDERS, remember)
    keys = load_inert(stream, {})
    places = _legacy_places(file, keys, storages, stream.tell(), file_bytes)

    def place(storage: Storage) -> Member:
        """Place of a storage in the file.

        Raises:
            CorruptCheckpointError: if it is not listed.
        """
        if storage.key not in places:
            raise CorruptCheckpointError(f"the storage {storage.key} is absent", remedy="Save the checkpoint again")
        return places[storage.key]

    return _named(root, file, place, "pytorch-legacy")


def _legacy_places(
    file: StoredFile, keys: Any, storages: Mapping[str, Storage], position: int, file_bytes: int
) -> dict[str, Member]:
    """Places of the storages, which follow the pickles in the order of `keys`, each after its number of elements."""
    if not isinstance(keys, list):
        raise corrupt("the list of storages is damaged")
    places: dict[str, Member] = {}
    count = bytearray(8)
    for key in keys:
        storage = storages.get(str(key)) if isinstance(key, str | int) else None
        if storage is None:
            raise CorruptCheckpointError("a storage is listed that no tensor names", remedy="Save the checkpoint again")
        read_exactly(file, position, memoryview(count))
        size_bytes = int.from_bytes(count, "little", signed=True) * ITEMSIZE[storage.dtype]
        position += len(count)
        if size_bytes < 0 or position + size_bytes > file_bytes:
            there = max(file_bytes - position, 0)
            raise corrupt(f"the storage {storage.key} claims {size_bytes} bytes, of which the file has {there}")
        places[storage.key] = Member(position, size_bytes)
        position += size_bytes
    return places


def _check_byte_order(is_little: bool) -> None:
    if not is_little:
        raise UnsupportedFormatError(
            "its numbers are stored big-endian", remedy="Load it with torch.load and save it on a little-endian machine"
        )
