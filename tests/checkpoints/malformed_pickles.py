"""Pickles that no pickler writes: instructions exchanged, sizes that lie, calls that must not be made."""

from __future__ import annotations

import io
import pickletools
import struct
from collections.abc import Callable, Mapping
from itertools import pairwise
from random import Random

from tests.checkpoints.malformed_bytes import EXTREMES, Edit

Instructions = list[bytes]
"""A pickle stream, one item per instruction with its argument."""

PickleEdit = Callable[[Instructions, Random], Instructions]

CANARY = "executed"
"""The file that every payload makes in the working directory."""

_PYTHON = f"open('{CANARY}', 'w').close()"
PAYLOADS: tuple[tuple[str, str, str], ...] = (
    ("os", "system", f"touch {CANARY}"),
    ("posix", "system", f"touch {CANARY}"),
    ("subprocess", "getoutput", f"touch {CANARY}"),
    ("os", "mkdir", CANARY),
    ("builtins", "exec", _PYTHON),
    ("builtins", "eval", _PYTHON),
    ("__builtin__", "eval", _PYTHON),
)
"""Module, name and argument of calls that leave the canary behind when an unpickler makes them."""

_OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
_INTEGERS = (b"K", b"M", b"J", b"\x8a", b"I", b"L")
_TEXTS = (b"X", b"\x8c", b"U", b"T", b"V", b"S")
_MEMO = (b"g", b"h", b"j", b"p", b"q", b"r")


def instructions(stream: bytes) -> Instructions:
    """Cut one pickle into its instructions."""
    starts = [position or 0 for _, _, position in pickletools.genops(stream)]
    return [stream[start:end] for start, end in zip(starts, [*starts[1:], len(stream)], strict=True)]


def pickles_in(stream: bytes, count: int) -> tuple[list[bytes], bytes]:
    """The first pickles of a stream, and what follows them."""
    file, ends = io.BytesIO(stream), [0]
    for _ in range(count):
        for _instruction in pickletools.genops(file):
            pass
        ends.append(file.tell())
    return [stream[start:end] for start, end in pairwise(ends)], stream[ends[-1] :]


def edited(edit: PickleEdit) -> Edit:
    """An edit of a whole pickle."""
    return lambda stream, dice: b"".join(edit(instructions(stream), dice))


def text(value: str) -> bytes:
    """An instruction that pushes a string."""
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def integer(value: int) -> bytes:
    """An instruction that pushes an integer of any size."""
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def call(payload: tuple[str, str, str]) -> bytes:
    """Instructions that push what the call returns."""
    module, name, argument = payload
    return f"c{module}\n{name}\n".encode() + text(argument) + b"\x85R"


def places(ops: Instructions, codes: tuple[bytes, ...]) -> list[int]:
    """Where instructions of these codes are; anywhere if there are none."""
    return [at for at, op in enumerate(ops) if op[:1] in codes] or list(range(len(ops)))


def replaced(ops: Instructions, at: int, *new: bytes) -> Instructions:
    return [*ops[:at], *new, *ops[at + 1 :]]


def inserted(ops: Instructions, dice: Random, *new: bytes) -> Instructions:
    at = dice.randrange(1, len(ops))
    return [*ops[:at], *new, *ops[at:]]


def replace_opcode(ops: Instructions, dice: Random) -> Instructions:
    for _ in range(dice.choice((1, 1, 3))):
        at = dice.randrange(len(ops))
        ops = replaced(ops, at, dice.choice(_OPCODES) + ops[at][1:])
    return ops


def insert_opcode(ops: Instructions, dice: Random) -> Instructions:
    return inserted(ops, dice, dice.choice(_OPCODES) + dice.randbytes(dice.choice((0, 1, 4, 8))))


def delete_opcodes(ops: Instructions, dice: Random) -> Instructions:
    at = dice.randrange(len(ops))
    return ops[:at] + ops[at + dice.choice((1, 1, 2, 5)) :]


def repeat_opcodes(ops: Instructions, dice: Random) -> Instructions:
    at = dice.randrange(len(ops))
    end = at + dice.choice((1, 2, 5, 20))
    return ops[:end] + ops[at:end] * dice.choice((1, 2, 1000)) + ops[end:]


def exchange_opcodes(ops: Instructions, dice: Random) -> Instructions:
    one, other = dice.randrange(len(ops)), dice.randrange(len(ops))
    return replaced(replaced(ops, one, ops[other]), other, ops[one])


def break_the_memo(ops: Instructions, dice: Random) -> Instructions:
    """An index that was never set, is set twice, or is as large as an index can be."""
    index = dice.choice((0, 1, 3, 200, 1 << 20, (1 << 32) - 1))
    new = dice.choice((b"h" + bytes([index % 256]), b"j" + struct.pack("<I", index), b"r" + struct.pack("<I", index)))
    return replaced(ops, dice.choice(places(ops, _MEMO)), dice.choice((new, b"g%d\n" % index, b"p-1\n")))


def underflow(ops: Instructions, dice: Random) -> Instructions:
    return inserted(
        ops, dice, dice.choice((b"0", b"1", b"t", b"R", b"b", b"s", b"u", b"e", b"\x87")) * dice.randint(1, 9)
    )


def unbalance_marks(ops: Instructions, dice: Random) -> Instructions:
    at = dice.choice(places(ops, (b"(", b"t", b"u", b"e")))
    return dice.choice((replaced(ops, at), replaced(ops, at, ops[at], ops[at]), inserted(ops, dice, b"(" * 1000)))


def insert_a_call(ops: Instructions, dice: Random) -> Instructions:
    """Before a value, so that the rest is what it was; sometimes in its place."""
    return inserted(ops, dice, call(dice.choice(PAYLOADS)), dice.choice((b"0", b"0", b"")))


def replace_all_by_a_call(_ops: Instructions, dice: Random) -> Instructions:
    return [b"\x80\x02", call(dice.choice(PAYLOADS)), dice.choice((b"", b"}q\x00b", b"]q\x00(Nl\x86R")), b"."]


def replace_a_global(ops: Instructions, dice: Random) -> Instructions:
    """The arguments stay those of a tensor or of a dictionary."""
    module, name, argument = dice.choice(PAYLOADS)
    named = f"c{module}\n{name}\n".encode()
    other = (
        b"cbuiltins\ngetattr\n",
        b"ctorch\nload\n",
        b"ccollections\n__class__\n",
        b"c\n\n",
        b"ctorch.__main__\nx\n",
    )
    new = dice.choice((named, named, call((module, name, argument)), *other))
    return replaced(ops, dice.choice(places(ops, (b"c",))), new)


def call_in_another_way(ops: Instructions, dice: Random) -> Instructions:
    """INST, OBJ, NEWOBJ, NEWOBJ_EX, STACK_GLOBAL, EXT1, and BUILD upon a function."""
    module, name, argument = dice.choice(PAYLOADS)
    names, value = f"{module}\n{name}\n".encode(), text(argument)
    ways = (
        b"(" + value + b"i" + names,
        b"(c" + names + value + b"o",
        b"c" + names + value + b"\x85\x81",
        b"c" + names + value + b"\x85}\x92",
        text(module) + text(name) + b"\x93" + value + b"\x85R",
        b"\x82\x01" + value + b"\x85R",
        b"c" + names + b"}" + text("__setstate__") + b"c" + names + b"s" + b"b" + value + b"b",
    )
    return inserted(ops, dice, dice.choice(ways), dice.choice((b"0", b"")))


def huge_length(ops: Instructions, dice: Random) -> Instructions:
    """More bytes than there are, of every instruction that states a length."""
    length = dice.choice(EXTREMES)
    wide = [code + struct.pack("<Q", length % (1 << 64)) for code in (b"\x8d", b"\x8e", b"\x96", b"\x95")]
    narrow = [code + struct.pack("<I", length % (1 << 32)) for code in (b"X", b"B", b"T", b"\x8b")]
    short = [b"\x8a\xff\x01", b"U\xff", b"C\xff", b"\x8c\xff", b"I" + b"9" * 100_000 + b"\n", b"Vx" * 40_000]
    return inserted(ops, dice, dice.choice((*wide, *narrow, *short)), b"abc")


def other_number(ops: Instructions, dice: Random) -> Instructions:
    """Sizes, strides, offsets and counts that lie."""
    for _ in range(dice.choice((1, 1, 2, 6))):
        value = dice.choice((*EXTREMES, *(-extreme for extreme in EXTREMES), dice.randrange(100)))
        ops = replaced(ops, dice.choice(places(ops, _INTEGERS)), integer(value))
    return ops


def other_type(ops: Instructions, dice: Random) -> Instructions:
    values = (b"N", b"\x88", b"G\x7f\xf8" + b"\0" * 6, b"G?\xf0" + b"\0" * 6, b"F1e999\n", b")", b"]", b"}", text("2"))
    values += (b"C\x012", b"cbuiltins\nint\n", b"(K\x01K\x02K\x03t", b"K\x01\x85", integer(1 << 200))
    return replaced(ops, dice.choice(places(ops, (*_INTEGERS, *_TEXTS))), dice.choice(values))


def other_text(ops: Instructions, dice: Random) -> Instructions:
    words = (
        "",
        "\0",
        "\x1b[2J\x1b]0;x\x07",
        "../data.pkl",
        "\ud800",
        "a" * 2000,
        "\u202ea",
        "state_dict",
        "storage",
        "0",
    )
    return replaced(ops, dice.choice(places(ops, _TEXTS)), text(dice.choice(words)))


def other_identity(ops: Instructions, dice: Random) -> Instructions:
    """Persistent ids that are no storage, or none that is there."""
    at = dice.choice(places(ops, (b"Q",)))
    values = (b"N", b")", text("storage"), b"(" + text("storage") + b"N" * 4 + b"t", b"]\x94(h\x00e", b"}")
    instead = dice.choice((ops[at][:0], b"Pstorage\n", b"P\n", b"0" + dice.choice(values) + b"Q", b"QQ", b"\x85Q"))
    return replaced(ops, at, instead)


def recursion(ops: Instructions, dice: Random) -> Instructions:
    """Containers in themselves, as a value and as a key."""
    put, get = b"r\xff\xff\0\0", b"j\xff\xff\0\0"
    ways = (b"]" + put + get + b"a", b"}" + put + text("x") + get + b"s", b"}" + put + get + b"Ns")
    ways += (b"]" + put + get + b"\x85a", b"}]" + put + get + b"a\x85Ns", b"cx\ny\n)R" + put + get + b"b")
    value = dice.choice(ways)
    return replaced(ops, dice.choice(places(ops, (*_INTEGERS, *_TEXTS))), value)


def nesting(ops: Instructions, dice: Random) -> Instructions:
    deep = dice.choice((b")" + b"\x85" * 30_000, b"]" * 30_000 + b"a" * 29_999, b"}" + b"K\0}" * 9_000 + b"s" * 9_000))
    return replaced(ops, dice.choice(places(ops, (*_INTEGERS, *_TEXTS))), deep)


def nested_tensors(ops: Instructions, dice: Random) -> Instructions:
    """A tensor, or what else was built, deep in tuples, in containers of containers, or under long names."""
    put, get = b"r\xff\xff\0\0", b"j\xff\xff\0\0"
    at = dice.choice(places(ops, (b"R",)))
    deep = ops[at] + b"\x85" * dice.choice((3, 60, 100, 5000))
    many = b"(" + ops[at] + put + get * 5000 + b"l"
    wide = b"((" + b"N" * 2000 + ops[at] + b"l" + put + get * 2000 + b"l"
    named = b"}" + text("n" * dice.choice((900, 1100))) + dice.choice((many, wide)) + b"s"
    doubled = ops[at] + b"".join(_twice(level) for level in range(200))
    return replaced(ops, at, dice.choice((deep, many, wide, named, doubled)))


def _twice(level: int) -> bytes:
    """Instructions that replace what is on the stack by a pair of it."""
    index = b"\xff" + bytes([level, 1, 0])
    return b"r" + index + b"0" + (b"j" + index) * 2 + b"\x86"


def sharing(ops: Instructions, dice: Random) -> Instructions:
    """2^200 values in 200 pairs, as a value, as a key, or around what was there."""
    doubling = b"".join(_twice(level) for level in range(200))
    at = dice.randrange(1, len(ops))
    instead = (ops[at] + doubling, b")" + doubling, b"}" + ops[at] + doubling + b"K\0s")
    return replaced(ops, at, dice.choice(instead))


def multiply(ops: Instructions, dice: Random) -> Instructions:
    """What is on the stack, under many more names than it has."""
    return inserted(ops, dice, b"r\xff\xff\0\0" + b"(" + b"j\xff\xff\0\0" * dice.choice((100, 10_000)) + b"l")


def stop(ops: Instructions, dice: Random) -> Instructions:
    """Early, twice, or never."""
    return dice.choice((inserted(ops, dice, b"."), ops[:-1], [*ops, b"."], [b".", *ops]))


def protocol(ops: Instructions, dice: Random) -> Instructions:
    return inserted(ops, dice, dice.choice((b"\x80\xc8", b"\x80\x05", b"\x95" + b"\xff" * 8, b"\x97", b"\x98")))


PICKLE_EDITS: Mapping[str, PickleEdit] = {
    "pickle: replace opcodes": replace_opcode,
    "pickle: insert an opcode": insert_opcode,
    "pickle: delete opcodes": delete_opcodes,
    "pickle: repeat opcodes": repeat_opcodes,
    "pickle: exchange opcodes": exchange_opcodes,
    "pickle: broken memo": break_the_memo,
    "pickle: stack underflow": underflow,
    "pickle: marks": unbalance_marks,
    "pickle: a call inserted": insert_a_call,
    "pickle: nothing but a call": replace_all_by_a_call,
    "pickle: other global": replace_a_global,
    "pickle: call in another way": call_in_another_way,
    "pickle: huge length": huge_length,
    "pickle: other number": other_number,
    "pickle: other type": other_type,
    "pickle: other text": other_text,
    "pickle: persistent id": other_identity,
    "pickle: recursion": recursion,
    "pickle: nesting": nesting,
    "pickle: nested tensors": nested_tensors,
    "pickle: sharing": sharing,
    "pickle: multiplied": multiply,
    "pickle: stop": stop,
    "pickle: protocol": protocol,
}
