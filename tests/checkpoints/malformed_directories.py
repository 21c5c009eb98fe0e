"""Checkpoints of several files that do not fit together: shards, and what torch.distributed writes."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from typing import Any

from tests.checkpoints.malformed_archives import archive_of, members_of, on_pickle
from tests.checkpoints.malformed_bytes import EXTREMES, Edit, Files, Mutation

PLACES = (
    "absent.distcp",
    "../outside.distcp",
    "/etc/hostname",
    "/dev/zero",
    "",
    ".",
    "..",
    "\0",
    "x" * 5000,
    "\x1b[2J",
)


def lose_a_file(files: Files, dice: Random) -> Files:
    gone = dice.choice(sorted(files))
    return {name: data for name, data in files.items() if name != gone}


def empty_a_file(files: Files, dice: Random) -> Files:
    return {**files, dice.choice(sorted(files)): b""}


def exchange_files(files: Files, dice: Random) -> Files:
    names = sorted(files)
    return {**files, **dict(zip(names, [files[name] for name in dice.sample(names, len(names))], strict=True))}


def rename_a_file(files: Files, dice: Random) -> Files:
    """Other numbers, another count, and numbers that no computer counts to."""
    name = dice.choice(sorted(files))
    changes = (
        ("-00001", "-00007"),
        ("0000", "0001"),
        ("-of-0000", "-of-9999"),
        ("00001", "00000"),
        ("-of-", "-OF-"),
        ("__0", "__7"),
    )
    new = name.replace(*dice.choice([change for change in changes if change[0] in name] or [(name, f"{name}.part")]))
    return {new if other == name else other: data for other, data in files.items()}


def repeat_a_file(files: Files, dice: Random) -> Files:
    one, other = dice.choice(sorted(files)), dice.choice(sorted(files))
    return {**files, dice.choice((other, "model-00004-of-00004.safetensors", "model.pt", ".metadata")): files[one]}


def other_content(files: Files, dice: Random) -> Files:
    """A shard that is something else."""
    words = (
        b"<!doctype html>",
        b"version https://git-lfs",
        b"GGUF",
        b"{}",
        b"\x80\x02}.",
        b"PK\x05\x06" + bytes(18),
        b"\0" * 512,
    )
    return {**files, dice.choice(sorted(files)): dice.choice(words)}


DIRECTORY_MUTATIONS: Mapping[str, Mutation] = {
    "files: one absent": lose_a_file,
    "files: one empty": empty_a_file,
    "files: exchanged": exchange_files,
    "files: renamed": rename_a_file,
    "files: repeated": repeat_a_file,
    "files: other content": other_content,
}


def on_metadata(edit: Edit) -> Mutation:
    """An edit of the bytes of ``.metadata``."""
    return lambda files, dice: {**files, ".metadata": edit(files[".metadata"], dice)}


def described(edit: Callable[[Any, Random], object]) -> Mutation:
    """An edit of what ``.metadata`` says; it is pickled again as torch pickles it."""

    def apply(data: bytes, dice: Random) -> bytes:
        metadata = pickle.loads(data)
        edit(metadata, dice)
        return pickle.dumps(metadata, 2)

    return on_metadata(apply)


def _tensor(metadata: Any, dice: Random) -> Any:
    return dice.choice([entry for entry in metadata.state_dict_metadata.values() if hasattr(entry, "chunks")])


def _lie(dice: Random) -> object:
    return dice.choice((*EXTREMES, -1, 0.5, None, True, "1", (1,), [1], 10**400))


def other_chunks(metadata: Any, dice: Random) -> None:
    """Too many, too few, none, twice, elsewhere, of other sizes."""
    chunks = _tensor(metadata, dice).chunks
    chunk = dice.choice(chunks)
    ways: tuple[Callable[[], object], ...] = (
        chunks.clear,
        lambda: chunks.extend(chunks * 3),
        lambda: chunks.extend([chunk] * 20_000),
        lambda: chunks.append(None),
        lambda: object.__setattr__(chunk, "sizes", (*chunk.sizes, 1)),
        lambda: object.__setattr__(chunk, "sizes", tuple(size + 1 for size in chunk.sizes)),
        lambda: object.__setattr__(chunk, "sizes", tuple(_lie(dice) for _ in chunk.sizes)),
        lambda: object.__setattr__(chunk, "offsets", tuple(_lie(dice) for _ in chunk.offsets)),
        lambda: object.__setattr__(chunk, "offsets", _lie(dice)),
    )
    dice.choice(ways)()


def other_tensor(metadata: Any, dice: Random) -> None:
    tensor, entries = _tensor(metadata, dice), metadata.state_dict_metadata
    ways: tuple[Callable[[], object], ...] = (
        lambda: setattr(tensor, "size", tuple(_lie(dice) for _ in tensor.size)),
        lambda: setattr(tensor, "size", (*tensor.size, *[1] * 70)),
        lambda: setattr(tensor, "size", _lie(dice)),
        lambda: setattr(tensor, "properties", dice.choice((None, 1, "float32", (), metadata))),
        lambda: setattr(tensor, "chunks", dice.choice((None, 1, {}, "x"))),
        lambda: entries.update({dice.choice((1, None, (1,), "a\x1b", "", "x" * 2000)): tensor}),
        lambda: entries.update({dice.choice(sorted(entries)): dice.choice((None, 1, [], {}))}),
        entries.clear,
    )
    dice.choice(ways)()


def other_places(metadata: Any, dice: Random) -> None:
    """Files that are elsewhere, and parts of files that are not there or overlap."""
    places = metadata.storage_data
    lies = (*PLACES, *sorted({place.relative_path for place in places.values()}), None, 5, ("x",))
    for index in dice.sample(list(places), dice.choice((1, len(places)))):
        field = dice.choice(("relative_path", "offset", "length"))
        lie = dice.choice(lies)
        places[index] = replace(places[index], **{field: lie if field == "relative_path" else _lie(dice)})


def other_fields(metadata: Any, dice: Random) -> None:
    name = dice.choice(("state_dict_metadata", "storage_data", "planner_data"))
    setattr(metadata, name, dice.choice((None, 1, [], [1], {}, {1: 2}, {"a": metadata}, {(): ()}, "x")))


def exchange_places(metadata: Any, dice: Random) -> None:
    """Chunks that are other chunks than the metadata says."""
    places = metadata.storage_data
    shuffled = dice.sample(list(places.values()), len(places))
    for index, place in zip(list(places), shuffled, strict=True):
        places[index] = place


def in_one_item(edit: Edit) -> Mutation:
    """An edit of the pickle of a stored chunk or object, which is put behind the others and found there."""

    def mutate(files: Files, dice: Random) -> Files:
        metadata = pickle.loads(files[".metadata"])
        changed = dict(files)
        for index in dice.sample(list(metadata.storage_data), min(3, len(metadata.storage_data))):
            place = metadata.storage_data[index]
            data = changed[place.relative_path]
            item = on_pickle(edit)(archive_of(members_of(data[place.offset : place.offset + place.length])), dice)
            metadata.storage_data[index] = replace(place, offset=len(data), length=len(item))
            changed[place.relative_path] = data + item
        return {**changed, ".metadata": pickle.dumps(metadata, 2)}

    return mutate


DISTRIBUTED_MUTATIONS: Mapping[str, Mutation] = {
    "metadata: chunks": described(other_chunks),
    "metadata: tensor": described(other_tensor),
    "metadata: places": described(other_places),
    "metadata: places exchanged": described(exchange_places),
    "metadata: fields": described(other_fields),
}
