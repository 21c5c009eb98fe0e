"""Damage that knows nothing of formats: what a failing disk, a broken copy or a fuzzer leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

Edit = Callable[[bytes, Random], bytes]
"""Changes the bytes of one file."""

Files = Mapping[str, bytes]
"""The files of one checkpoint by their names."""

Mutation = Callable[[Files, Random], Files]
"""Changes a checkpoint; a function of its arguments alone, so that a case can be made again from its seed."""

EXTREMES = (0, 1, 2, 7, 255, 256, *(2**n + d for n in (15, 16, 31, 32, 40, 48, 56, 62, 63, 64) for d in (-1, 0)))
"""Integers at which sizes, signs and counts of bytes change their meaning."""


def place(data: bytes, dice: Random) -> int:
    """An index of a byte, 0 where there is none."""
    return dice.randrange(len(data)) if data else 0


def piece(data: bytes, dice: Random, longest: int = 64) -> slice:
    """A short range of bytes."""
    start = place(data, dice)
    return slice(start, start + dice.randint(1, longest))


def put(data: bytes, at: int, change: bytes) -> bytes:
    """Overwrite bytes."""
    return data[:at] + change + data[at + len(change) :]


def truncate(data: bytes, dice: Random) -> bytes:
    return data[: place(data, dice)]


def lose_the_end(data: bytes, dice: Random) -> bytes:
    return data[: max(0, len(data) - dice.randint(1, 64))]


def lose_the_beginning(data: bytes, dice: Random) -> bytes:
    return data[dice.randint(1, 64) :]


def flip_bits(data: bytes, dice: Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(dice.choice((1, 1, 4, 50))):
        damaged[place(data, dice)] ^= 1 << dice.randrange(8)
    return bytes(damaged)


def flip_bits_at_the_beginning(data: bytes, dice: Random) -> bytes:
    return flip_bits(data[:512], dice) + data[512:]


def insert(data: bytes, dice: Random) -> bytes:
    at = place(data, dice)
    return data[:at] + dice.randbytes(dice.randint(1, 16)) + data[at:]


def delete(data: bytes, dice: Random) -> bytes:
    gone = piece(data, dice)
    return data[: gone.start] + data[gone.stop :]


def repeat(data: bytes, dice: Random) -> bytes:
    again = piece(data, dice, 1024)
    return data[: again.stop] + data[again] + data[again.stop :]


def exchange(data: bytes, dice: Random) -> bytes:
    one, other = data[piece(data, dice)], data[piece(data, dice)]
    return data.replace(one, other, 1)


def blank(data: bytes, dice: Random) -> bytes:
    """A sector that reads as zeros, or as ones."""
    gone = piece(data, dice, 512)
    return data[: gone.start] + dice.choice((b"\0", b"\xff")) * len(data[gone]) + data[gone.stop :]


def append(data: bytes, dice: Random) -> bytes:
    return data + dice.choice((b"\0", b"PK\x05\x06", dice.randbytes(64), data))


def number(data: bytes, dice: Random) -> bytes:
    """An integer of 2, 4 or 8 bytes that changes what a size means."""
    width = dice.choice((2, 4, 8))
    value = dice.choice([value for value in EXTREMES if value < 1 << 8 * width])
    return put(data, place(data, dice), value.to_bytes(width, "little"))


BYTE_EDITS: Mapping[str, Edit] = {
    "truncate": truncate,
    "lose the end": lose_the_end,
    "lose the beginning": lose_the_beginning,
    "flip bits": flip_bits,
    "flip bits at the beginning": flip_bits_at_the_beginning,
    "insert bytes": insert,
    "delete bytes": delete,
    "repeat bytes": repeat,
    "exchange bytes": exchange,
    "blank bytes": blank,
    "append bytes": append,
    "extreme number": number,
}


def on_one_file(edit: Edit, ending: str = "") -> Mutation:
    """Edit one of the files whose names end so."""

    def mutate(files: Files, dice: Random) -> Files:
        name = dice.choice(sorted(name for name in files if name.endswith(ending)))
        return {**files, name: edit(files[name], dice)}

    return mutate
