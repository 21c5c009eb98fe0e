"""JSON that lies: headers of safetensors files and shard indices."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from tests.checkpoints.malformed_bytes import EXTREMES, Edit, Files, Mutation

Json = dict[str, Any]

NAMES = ("", "\0", "\x1b[2J", "a" * 2000, "\u202ea", "\ud800", "__metadata__", ".", "a\nb", "weight.absmax", "é" * 900)
NO_NUMBERS = (-1, -(2**63), 0.5, 1e300, float("nan"), float("inf"), True, None, "2", [], [2], {}, {"a": 1})
NO_OBJECTS: tuple[object, ...] = (None, [], [1, 2], "x", 7, 1.5, True, {})


def wrong_number(dice: Random) -> object:
    return dice.choice((*NO_NUMBERS, *EXTREMES, 10**400, *(-extreme for extreme in EXTREMES[1:4])))


def with_header(edit: Callable[[Json, Random], object]) -> Edit:
    """An edit of a safetensors file through its parsed header; the stated length fits, unless bytes are returned."""

    def apply(data: bytes, dice: Random) -> bytes:
        (length,) = struct.unpack("<Q", data[:8])
        header = edit(json.loads(data[8 : 8 + length]), dice)
        written = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(written)) + written + data[8 + length :]

    return apply


def some_entry(header: Json, dice: Random) -> Json:
    entry: Json = header[dice.choice(sorted(name for name in header if name != "__metadata__"))]
    return entry


def header_length(data: bytes, dice: Random) -> bytes:
    true = int.from_bytes(data[:8], "little")
    near = (true - 1, true + 1, true + 8, true // 2, len(data) - 8, len(data) - 7, 10**8, 10**8 + 1)
    value = dice.choice([*near, *EXTREMES])
    return min(max(value, 0), 2**64 - 1).to_bytes(8, "little") + data[8:]


def offsets(header: Json, dice: Random) -> Json:
    entry = some_entry(header, dice)
    begin, end = entry["data_offsets"]
    wrong = wrong_number(dice)
    lies: tuple[object, ...] = (
        [end, begin],
        [0, end],
        [begin, end + 4],
        [begin + 4, end + 4],
        [begin],
        [begin, end, end],
    )
    lies += (
        [begin, wrong],
        [wrong, end],
        [wrong, wrong],
        wrong,
        [-4, end - begin - 4],
        some_entry(header, dice)["data_offsets"],
    )
    entry["data_offsets"] = dice.choice(lies)
    return header


def shape(header: Json, dice: Random) -> Json:
    entry = some_entry(header, dice)
    sizes, wrong = entry["shape"], wrong_number(dice)
    empty = [[2**40, 0, 2**40], [0], [0] * 65]
    lies = (
        wrong,
        [wrong],
        [*sizes, wrong],
        [sizes],
        [*sizes, *[1] * 70],
        [*sizes, 2],
        [1] * 100_000,
        [2**32, 2**32],
        *empty,
    )
    entry["shape"] = dice.choice(lies)
    return header


def dtype(header: Json, dice: Random) -> Json:
    names = ("F4", "f32", "F64", "U8", "F8_E8M0", "C64", "", "\x1b[2J", "x" * 100_000, "float32", "I64", "F32 ")
    some_entry(header, dice)["dtype"] = dice.choice((*names, *NO_OBJECTS))
    return header


def tensor_name(header: Json, dice: Random) -> Json:
    for _ in range(dice.choice((1, 2))):
        old = dice.choice(sorted(header))
        header[dice.choice(NAMES)] = header.pop(old)
    return header


def entry_itself(header: Json, dice: Random) -> Json:
    name = dice.choice(sorted(header))
    if isinstance(header[name], dict) and header[name] and dice.random() < 0.5:
        del header[name][dice.choice(sorted(header[name]))]
    else:
        header[name] = dice.choice(NO_OBJECTS)
    return header


def metadata(header: Json, dice: Random) -> Json:
    """What the file says of itself: counters that are none, other types, and 2 MB of text."""
    values: tuple[object, ...] = ({"step": "1e400"}, {"step": "9" * 5000}, {"epoch": "²"}, {"step": None}, {"step": {}})
    header["__metadata__"] = dice.choice((*values, *NO_OBJECTS, {"x": "y" * 2_000_000}, {"step": "-1", "epoch": "٣"}))
    return header


def twice(header: Json, dice: Random) -> bytes:
    written = json.dumps(header).encode()
    name = dice.choice(sorted(header))
    return written[:-1] + b"," + json.dumps({name: header[name]}).encode()[1:]


def more_tensors(header: Json, dice: Random) -> Json:
    return header | {f"x{index}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for index in range(3000)}


def no_header(header: Json, dice: Random) -> object:
    return dice.choice((*NO_OBJECTS, b"", b"{", b"{}" * 3, list(header), {"__metadata__": {}}, b"{} x", b" " * 64))


def no_json(header: Json, dice: Random) -> bytes:
    """Text that parsers disagree on: not UTF-8, keys without quotes, comments, NaN, and depth."""
    written = json.dumps(header).encode()
    depth = dice.choice((500, 100_000))
    ways = (
        written.replace(b'"', b"'"),
        written.replace(b'"dtype"', b"dtype", 1),
        written.replace(b'"dtype"', b"1", 1),
        written.replace(b'"', b'"\xff\xfe', 1),
        written.replace(b'"', b'"\\ud800', 1),
        written.replace(b": ", b": NaN,", 1),
        written.replace(b"[", b"[NaN, ", 1),
        b"\xef\xbb\xbf" + written,
        written.decode().encode("utf-16"),
        written[:-1] + b',"x":' + b"[" * depth + b"]" * depth + b"}",
        b'{"x":' * depth + b"1" + b"}" * depth,
        written[:-1] + b',"x":' + b"9" * 5000 + b"}",
        written[:-1] + b"/* x */}",
        written + b"\0" * 64,
    )
    return dice.choice(ways)


HEADER_EDITS: Mapping[str, Edit] = {
    "header: length": header_length,
    "header: offsets": with_header(offsets),
    "header: shape": with_header(shape),
    "header: dtype": with_header(dtype),
    "header: name": with_header(tensor_name),
    "header: entry": with_header(entry_itself),
    "header: metadata": with_header(metadata),
    "header: a name twice": with_header(twice),
    "header: more tensors": with_header(more_tensors),
    "header: none": with_header(no_header),
    "header: no JSON": with_header(no_json),
}


def with_index(edit: Callable[[Json, Random], object]) -> Mutation:
    """An edit of a shard index, given its parsed content."""

    def mutate(files: Files, dice: Random) -> Files:
        (name,) = (name for name in files if name.endswith(".index.json"))
        content = edit(json.loads(files[name]), dice)
        return {**files, name: content if isinstance(content, bytes) else json.dumps(content).encode()}

    return mutate


def other_file(index: Json, dice: Random) -> Json:
    """Shards that are absent, elsewhere, or no name of a file at all."""
    places = (
        "absent.safetensors",
        "../outside.safetensors",
        "a/../../outside.bin",
        "/etc/hostname",
        "/dev/zero",
        "",
        ".",
    )
    places += (
        "..",
        "\\\\host\\share\\x.bin",
        "C:\\x.bin",
        "model\0.bin",
        "x" * 5000,
        "\x1b[2J",
        "\ud800",
        "./x/y/z",
        "~/x",
    )
    files = index["weight_map"]
    for name in dice.sample(sorted(files), dice.choice((1, len(files)))):
        files[name] = dice.choice((*places, dice.choice(sorted(set(files.values())))))
    return index


def other_listing(index: Json, dice: Random) -> Json:
    files = index["weight_map"]
    old = dice.choice(sorted(files))
    change = dice.randrange(3)
    if change:
        files[dice.choice((*NAMES, "absent.weight"))] = files[old]
    if change < 2:
        del files[old]
    return index


def other_map(index: Json, dice: Random) -> Json:
    files = index["weight_map"]
    maps = (
        *NO_OBJECTS,
        dict.fromkeys(files, 1),
        {name: [1] for name in files},
        {**files, "x": None},
        list(files.items()),
    )
    index["weight_map"] = dice.choice(maps)
    return index


def other_index(index: Json, dice: Random) -> object:
    bare = {"weight_map": {f"x{n}": "model-00001-of-00003.safetensors" for n in range(20_000)}}
    return dice.choice((*NO_OBJECTS, index["weight_map"], bare, b"", b"{", [index], b"\0" * 100, json.dumps(index) * 2))


INDEX_MUTATIONS: Mapping[str, Mutation] = {
    "index: other file": with_index(other_file),
    "index: other names": with_index(other_listing),
    "index: no map": with_index(other_map),
    "index: none": with_index(other_index),
    "index: a name twice": with_index(twice),
    "index: no JSON": with_index(no_json),
    "index: metadata": with_index(metadata),
}
