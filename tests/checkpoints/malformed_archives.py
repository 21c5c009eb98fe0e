"""Zip archives whose directory, local headers and members contradict one another."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from random import Random

from tests.checkpoints.malformed_bytes import BYTE_EDITS, EXTREMES, Edit, put

Members = list[tuple[str, bytes]]

LOCAL, ENTRY, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_LOCAL_FIELDS = {
    "version": (4, 2),
    "flags": (6, 2),
    "method": (8, 2),
    "crc": (14, 4),
    "sizes": (18, 8),
    "names": (26, 4),
}
_ENTRY_FIELDS = {
    "flags": (8, 2),
    "method": (10, 2),
    "sizes": (20, 8),
    "names": (28, 6),
    "disk": (34, 2),
    "offset": (42, 4),
}
_END_FIELDS = {"disks": (4, 4), "counts": (8, 4), "size": (12, 4), "offset": (16, 4), "comment": (20, 2)}
BOMB_BYTES = 50_000_000


def members_of(archive: bytes) -> Members:
    """Names and contents."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return [(entry.filename, file.read(entry)) for entry in file.infolist()]


def archive_of(members: Members, method: int = zipfile.ZIP_STORED, methods: Mapping[str, int] | None = None) -> bytes:
    """An archive; `methods` are those of single members."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name that occurs twice is what some callers want
        for name, content in members:
            entry = zipfile.ZipInfo(name)  # of 1980: the time of day is no part of a seed
            file.writestr(entry, content, (methods or {}).get(name, method))
    return stream.getvalue()


def on_members(edit: Callable[[Members, Random], Members]) -> Edit:
    """An edit of an archive through its members; directory and headers fit."""
    return lambda archive, dice: archive_of(edit(members_of(archive), dice))


def on_pickle(edit: Edit) -> Edit:
    """An edit of the pickle in an archive of torch."""

    def change(members: Members, dice: Random) -> Members:
        return [(name, edit(data, dice) if name.endswith("data.pkl") else data) for name, data in members]

    return on_members(change)


def _starts(archive: bytes, signature: bytes) -> list[int]:
    found, at = [], archive.find(signature)
    while at >= 0:
        found.append(at)
        at = archive.find(signature, at + 4)
    return found


def _in_field(signature: bytes, fields: Mapping[str, tuple[int, int]]) -> Edit:
    def apply(archive: bytes, dice: Random) -> bytes:
        for at in dice.sample(starts := _starts(archive, signature), dice.choice((1, len(starts)))):
            offset, width = fields[dice.choice(sorted(fields))]
            value = dice.choice((*EXTREMES, 8, 12, 14, len(archive), dice.randrange(1 << 16))) % (1 << 8 * width)
            archive = put(archive, at + offset, value.to_bytes(width, "little"))
        return archive

    return apply


def shift_offsets(archive: bytes, dice: Random) -> bytes:
    """Members that start a little elsewhere, or all at the same place."""
    by = dice.choice((-64, -1, 1, 4, 64, None))
    for at in _starts(archive, ENTRY):
        (offset,) = struct.unpack_from("<I", archive, at + 42)
        archive = put(archive, at + 42, struct.pack("<I", 0 if by is None else max(0, offset + by)))
    return archive


def zip64(archive: bytes, dice: Random) -> bytes:
    """Fields that point to a zip64 record, which is absent or states something else."""
    value = struct.pack("<Q", dice.choice(EXTREMES) % (1 << 64))
    start = _starts(archive, END)[-1]
    record = b"PK\x06\x06" + struct.pack("<QHHII", 44, 45, 45, 0, 0) + value * 4
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, dice.choice((start, 0, 1 << 62)), 1)
    end = put(archive[start:], 8, b"\xff" * 12) if dice.random() < 0.7 else archive[start:]
    if dice.random() < 0.3:
        return put(archive, dice.choice(_starts(archive, ENTRY)) + 20, b"\xff" * 8)
    return archive[:start] + dice.choice((record + locator, locator, b"")) + end


def edit_directory_bytes(archive: bytes, dice: Random) -> bytes:
    """Anonymous damage to the directory alone, where every byte means something."""
    start = _starts(archive, ENTRY)[0]
    return archive[:start] + dice.choice([*BYTE_EDITS.values()])(archive[start:], dice)


def compress(archive: bytes, dice: Random) -> bytes:
    """Some members, or all, by any method."""
    members = members_of(archive)
    method = dice.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    chosen = dice.choice([name for name, _ in members])
    return archive_of(members, method) if dice.random() < 0.5 else archive_of(members, methods={chosen: method})


def bomb(archive: bytes, dice: Random) -> bytes:
    """A member that unpacks to a thousand times its size; sometimes it claims to be stored, or to be small."""
    members = dict(members_of(archive))
    name = dice.choice(sorted(members))
    members[name] += b"N0" * (BOMB_BYTES // 2)
    packed = archive_of(list(members.items()), methods={name: zipfile.ZIP_DEFLATED})
    for at in _starts(packed, ENTRY) if dice.random() < 0.5 else ():
        packed = put(packed, at + 10, dice.choice((b"\0\0", b"\0\0", b"\x63\0")))
    return packed


def other_members(members: Members, dice: Random) -> Members:
    """Absent, twice, renamed, exchanged, longer, shorter, empty, and a thousand more."""
    at = dice.randrange(len(members))
    name, data = members[at]
    names = ("../x", "/etc/x", "", "data.pkl", "x/data.pkl", "a" * 60_000, "\x1b[2J", "archive/code/x.py", name.upper())
    ways: tuple[Members, ...] = (
        members[:at] + members[at + 1 :],
        [*members, (name, b"N.")],
        [(name, b""), *members],
        [*members[:at], (dice.choice(names), data), *members[at + 1 :]],
        [*members[:at], (name, data + bytes(8)), *members[at + 1 :]],
        [*members[:at], (name, data[: len(data) // 2]), *members[at + 1 :]],
        [*members[:at], (name, b""), *members[at + 1 :]],
        [(name, other) for (name, _), (_, other) in zip(members, members[::-1], strict=True)],
        [*members, *((f"x{index}", b"") for index in range(3000))],
        [(name, content) for name, content in members if not name.endswith("data.pkl")],
        [(f"p{name}" if dice.random() < 0.5 else name, content) for name, content in members],
        [],
    )
    return dice.choice(ways)


def byte_order(members: Members, dice: Random) -> Members:
    """Big-endian, of two minds, or neither."""
    prefix = next(name for name, _ in members if name.endswith("data.pkl")).removesuffix("data.pkl")
    words = dice.choice((b"big", b"", b"littl", b"little\n", b"\xff" * 100_000))
    return [*((name, data) for name, data in members if not name.endswith("byteorder")), (prefix + "byteorder", words)]


def wrap(archive: bytes, dice: Random) -> bytes:
    """In another archive, after something else, before a comment."""
    end = put(archive, len(archive) - 2, b"\x10\0") + b"PK\x05\x06" * 4
    return dice.choice((archive_of([("archive/data.pkl", archive)]), dice.randbytes(100) + archive, archive * 2, end))


ARCHIVE_EDITS: Mapping[str, Edit] = {
    "zip: local header": _in_field(LOCAL, _LOCAL_FIELDS),
    "zip: directory entry": _in_field(ENTRY, _ENTRY_FIELDS),
    "zip: end record": _in_field(END, _END_FIELDS),
    "zip: offsets": shift_offsets,
    "zip: zip64": zip64,
    "zip: directory bytes": edit_directory_bytes,
    "zip: compressed": compress,
    "zip: bomb": bomb,
    "zip: other members": on_members(other_members),
    "zip: byte order": on_members(byte_order),
    "zip: wrapped": wrap,
}
