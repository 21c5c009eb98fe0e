"""One checkpoint in several files, with an index that says where each tensor is or by the names of the files alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import PurePosixPath, PureWindowsPath

from spectra_cli.checkpoints.filenames import SHARD_NAME
from spectra_cli.checkpoints.filespan import Span
from spectra_cli.checkpoints.formats.limits import (
    LARGEST_JSON_BYTES,
    check_count,
    check_name,
    parse_json,
    printable,
    quoted,
)
from spectra_cli.checkpoints.formats.stored import StoredTensors
from spectra_cli.checkpoints.smallfile import read_small_file
from spectra_cli.errors import CorruptCheckpointError, HostileCheckpointError, IncompleteCheckpointError
from spectra_cli.storage.places import Place
from spectra_cli.tensors import TensorInfo

OpenFile = Callable[[Place], StoredTensors]


def open_index(index: Place, open_file: OpenFile) -> StoredTensors:
    """Open the shards that an index lists.

    Args:
        index: such as ``model.safetensors.index.json``.
        open_file: opens one shard.

    Raises:
        IncompleteCheckpointError: if a shard is absent, or does not hold a tensor that the index looks for in it.
        HostileCheckpointError: if the index names a file outside its own directory.
        CorruptCheckpointError: if the index is no index.
    """
    weight_map = read_index(index)
    check_present(index.parent, weight_map.values(), index.name)
    files = sorted(set(weight_map.values()))
    with ExitStack() as opened:
        shards = {file: opened.enter_context(_open_shard(index.parent / file, open_file)) for file in files}
        for name, file in weight_map.items():
            if name not in shards[file].tensors and name not in shards[file].unread:
                raise IncompleteCheckpointError(
                    f"{quoted(name)} is listed in {index.name} for {file}, which does not hold it",
                    remedy="Restore the shard, or write the index again",
                )
        combined = _combined(shards, lambda file, name: weight_map.get(name) == file)
        opened.pop_all()
    unlisted = sum(len(shard.tensors) for shard in shards.values()) - len(combined.tensors)
    if unlisted:
        combined.notes = [*combined.notes, f"{unlisted} tensors of its shards are not listed in {index.name}: left out"]
    return combined


def open_shards(paths: Sequence[Place], open_file: OpenFile) -> StoredTensors:
    """Open shards that are known by their names only.

    Raises:
        IncompleteCheckpointError: if the numbers in the names do not make a complete set.
        CorruptCheckpointError: if two shards hold a tensor of the same name.
    """
    check_numbering([path.name for path in paths])
    with ExitStack() as opened:
        shards = {path.name: opened.enter_context(_open_shard(path, open_file)) for path in paths}
        combined = _combined(shards, lambda _file, _name: True)
        if len(combined.tensors) != sum(len(shard.tensors) for shard in shards.values()):
            raise CorruptCheckpointError(
                "two of its shards hold a tensor of the same name", remedy="Keep the shards of one checkpoint only"
            )
        opened.pop_all()
    return combined


def read_index(index: Place) -> dict[str, str]:
    """File of every tensor, by name.

    Raises:
        CorruptCheckpointError: if the file is no index, or names a tensor twice.
        HostileCheckpointError: if it names a file outside its own directory, or more than any model has.
        CheckpointError: if it cannot be read, or is a pipe or a device.
    """
    text = read_small_file(index, LARGEST_JSON_BYTES)
    try:
        content = parse_json(text, "the shard index")
    except (CorruptCheckpointError, HostileCheckpointError) as error:
        error.at(str(index))
        raise
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(f, str) for f in weight_map.values()):
        raise CorruptCheckpointError(
            "the shard index has no 'weight_map' from tensors to files", where=str(index), remedy="Save it again"
        )
    for file in set(weight_map.values()):
        check_inside(file, index.name)
    files = {printable(name): file for name, file in weight_map.items()}
    if len(files) != len(weight_map):
        raise CorruptCheckpointError(
            "the shard index names a tensor twice when control characters are escaped",
            where=str(index),
            remedy="Save it again, under names that can be printed",
        )
    check_count(len(files))
    for name in files:
        check_name(name)
    return files


def check_inside(file: str, source: str) -> None:
    """Refuse a path that leaves the directory of the checkpoint. Links inside it are the user's own and are followed.

    Raises:
        HostileCheckpointError: if the path is absolute or climbs.
    """
    absolute = PurePosixPath(file).is_absolute() or PureWindowsPath(file).drive or file.startswith("\\")
    climbs = ".." in PurePosixPath(file).parts or ".." in PureWindowsPath(file).parts
    if not file or not file.isprintable() or absolute or climbs:
        raise HostileCheckpointError(
            f"{source} names {file[:200]!r}, which is no file of the checkpoint's directory",
            remedy="Use checkpoints of known origin, with all files in one directory",
        )


def check_present(directory: Place, files: Iterable[str], source: str) -> None:
    """Require that files named by a checkpoint are there.

    Raises:
        IncompleteCheckpointError: naming the first that is absent.
    """
    absent = [file for file in sorted(set(files)) if not (directory / file).is_file()]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        verb = "are" if more else "is"
        raise IncompleteCheckpointError(
            f"{absent[0]}{more}, named in {source}, {verb} absent",
            remedy="Restore the missing files",
        )


def check_numbering(names: Sequence[str]) -> None:
    """Require every number from 1 to n of ``x-00001-of-n``.

    Raises:
        IncompleteCheckpointError: naming the first number that is absent.
    """
    matches = [match for match in map(SHARD_NAME.fullmatch, names) if match]
    count = max((int(match["count"]) for match in matches), default=0)
    present = {int(match["index"]) for match in matches}
    first = 0 if 0 in present else 1
    absent = sorted(set(range(first, first + min(count, 1_000_000))) - present)
    if absent:
        raise IncompleteCheckpointError(
            f"shard {absent[0]} of {count} is absent ({len(present)} present)",
            remedy="Restore the missing shards",
        )


def _open_shard(path: Place, open_file: OpenFile) -> StoredTensors:
    try:
        return open_file(path)
    except (CorruptCheckpointError, HostileCheckpointError) as error:
        error.at(str(path))
        raise


def _combined(shards: Mapping[str, StoredTensors], wanted: Callable[[str, str], bool]) -> StoredTensors:
    """One reader over the wanted tensors of all shards; storages of different files are never the same."""
    tensors: dict[str, TensorInfo] = {}
    spans: dict[str, Span] = {}
    notes: list[str] = []
    for file, shard in shards.items():
        for name, info in shard.tensors.items():
            if wanted(file, name):
                storage = None if info.storage is None else f"{file}:{info.storage}"
                tensors[name] = replace(info, storage=storage)
                spans[name] = shard.spans[name]
        notes += [f"{file}: {note}" for note in shard.notes]
    first = next(iter(shards.values()))
    ordered = all(shard.ordered for shard in shards.values())
    metadata = {key: value for shard in shards.values() for key, value in shard.metadata.items()}
    unread = frozenset(name for shard in shards.values() for name in shard.unread)
    return StoredTensors(first.format, tensors, spans, ordered, metadata, notes, list(shards.values()), unread)
