"""An interpreter for pickle streams that imports nothing, calls nothing and believes no size.

Python's own unpickler cannot be made safe by overriding ``find_class``: it sizes its memo by an index the stream
chooses, and allocates for a length before looking whether the bytes are there. Here every opcode of protocols 0 to 5 is
carried out on plain containers; whatever would import, call or instantiate becomes an :class:`Object` that only
remembers what went into it. What it takes is a constant times the bytes that are really in the stream.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from spectra_cli.checkpoints.damage import corrupt
from spectra_cli.checkpoints.formats.picklestream import PickleStream
from spectra_cli.checkpoints.formats.placeholders import Global, Object, as_key
from spectra_cli.errors import HostileCheckpointError, SpectraError

MOST_OPCODES = 1 << 21
"""Limit for a pickle; one of 2000 tensors has about 100 thousand. Each may cost some hundred bytes of memory."""

Rebuild = Callable[[tuple[Any, ...]], Any]
"""Makes a value from the arguments of a global on the allow-list; must call nothing the stream supplies."""


def load_inert(
    file: BinaryIO,
    rebuilders: Mapping[str, Rebuild],
    resolve_id: Callable[[Any], Any] = lambda identity: identity,
    most_opcodes: int = MOST_OPCODES,
) -> Any:
    """Carry out one pickle stream from the position of `file`, which is left behind the stream.

    Args:
        file: seekable, buffered.
        rebuilders: what to do for the globals on the allow-list, by dotted name.
        resolve_id: makes a value from a persistent id, which is data chosen by the stream.
        most_opcodes: that are carried out.

    Returns:
        Plain Python containers and scalars, what the rebuilders made, :class:`Global` and :class:`Object`. Sets are
        lists. Containers may be shared and may contain themselves.

    Raises:
        CorruptCheckpointError: if the stream is cut short or is not a pickle.
        HostileCheckpointError: if it is longer than any checkpoint's.
    """
    interpreter = _Interpreter(file, rebuilders, resolve_id)
    try:
        return interpreter.run(most_opcodes)
    except SpectraError:
        raise
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, struct.error, RecursionError) as error:
        raise corrupt(f"the pickle in it is damaged ({type(error).__name__})") from error


class _Interpreter:
    """State of the pickle machine: a stream, a stack with marks, and a memo."""

    def __init__(self, file: BinaryIO, rebuilders: Mapping[str, Rebuild], resolve_id: Callable[[Any], Any]) -> None:
        self.stream = PickleStream(file)
        self.rebuilders = rebuilders
        self.resolve_id = resolve_id
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, most_opcodes: int) -> Any:
        """Carry out the stream up to its STOP instruction; returns what is on top of the stack.

        Raises:
            EndedEarlyError: if there is none.
            HostileCheckpointError: if there are too many instructions before it.
        """
        opcode, carry_out = self.stream.opcode, _OPCODES
        for _ in range(most_opcodes):
            code = opcode()
            if code == b".":
                return self.stack.pop()
            carry_out[code](self)
        raise HostileCheckpointError(
            f"its pickle has more than {most_opcodes} instructions", remedy="Save only the state dict of the model"
        )

    # stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def pop(self) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    # building

    def construct(self, kind: Any, arguments: Any) -> Any:
        if isinstance(kind, Global) and isinstance(arguments, tuple) and kind.path in self.rebuilders:
            return self.rebuilders[kind.path](arguments)
        return Object(kind, arguments)

    def reduce(self) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        self.push(self.construct(kind, arguments))

    def new_with_keywords(self) -> None:
        keywords, arguments, kind = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.push(Object(kind, arguments, keywords))

    def instance(self) -> None:
        kind = Global(self.stream.line(), self.stream.line())
        self.push(self.construct(kind, tuple(self.pop_mark())))

    def object(self) -> None:
        kind, *arguments = self.pop_mark()
        self.push(self.construct(kind, tuple(arguments)))

    def stack_global(self) -> None:
        """Name a global by two strings of the stack.

        Raises:
            TypeError: if they are no strings.
        """
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise TypeError("a global's name is a string")
        self.push(Global(module, name))

    def extension(self, form: str) -> None:
        self.stream.number(form)
        self.push(_EXTENSION)

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Object):
            return  # attributes of a rebuilt container, such as the version numbers in `_metadata`
        target.add((state,))
        for part in state if isinstance(state, tuple) else (state,):  # (attributes, slots) or attributes
            if isinstance(part, dict):
                target.state = part

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Object):
            target.add(values)
        else:
            target.extend(values)

    def set_items(self, flat: list[Any]) -> None:
        """Put keys and values, in turn, into the dictionary on top of the stack.

        Raises:
            TypeError: if there is no dictionary.
        """
        target = self.stack[-1]
        if isinstance(target, Object):
            target.add(flat)
        elif isinstance(target, dict):
            target.update(_pairs(flat))
        else:
            raise TypeError("items belong to a dictionary")


def _pairs(flat: list[Any]) -> Iterator[tuple[Any, Any]]:
    for key, value in zip(flat[::2], flat[1::2], strict=True):
        yield as_key(key), value


Opcode = Callable[[_Interpreter], object]

_BUFFER, _EXTENSION = Global("pickle", "PickleBuffer"), Global("copyreg", "extension")  # torch writes neither
_OPCODES: dict[bytes, Opcode] = {
    # frame of the stream
    b"\x80": lambda m: m.stream.take(1),
    b"\x95": lambda m: m.stream.take(8),
    # scalars
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"I": lambda m: m.push(m.stream.integer_literal()),
    b"L": lambda m: m.push(m.stream.integer_literal()),
    b"J": lambda m: m.push(m.stream.number("<i")),
    b"K": lambda m: m.push(m.stream.number("<B")),
    b"M": lambda m: m.push(m.stream.number("<H")),
    b"\x8a": lambda m: m.push(m.stream.integer(m.stream.number("<B"))),
    b"\x8b": lambda m: m.push(m.stream.integer(m.stream.number("<i"))),
    b"F": lambda m: m.push(float(m.stream.line())),
    b"G": lambda m: m.push(m.stream.number(">d")),
    # text and bytes
    b"S": lambda m: m.push(m.stream.string_literal()),
    b"T": lambda m: m.push(m.stream.text("<i", "latin-1")),
    b"U": lambda m: m.push(m.stream.text("<B", "latin-1")),
    b"V": lambda m: m.push(m.stream.unicode_literal()),
    b"X": lambda m: m.push(m.stream.text("<I")),
    b"\x8c": lambda m: m.push(m.stream.text("<B")),
    b"\x8d": lambda m: m.push(m.stream.text("<Q")),
    b"B": lambda m: m.push(m.stream.sized("<I")),
    b"C": lambda m: m.push(m.stream.sized("<B")),
    b"\x8e": lambda m: m.push(m.stream.sized("<Q")),
    b"\x96": lambda m: m.push(m.stream.sized("<Q")),
    b"\x97": lambda m: m.push(_BUFFER),
    b"\x98": lambda _: None,
    # containers
    b"]": lambda m: m.push([]),
    b"}": lambda m: m.push({}),
    b")": lambda m: m.push(()),
    b"\x8f": lambda m: m.push([]),
    b"l": lambda m: m.push(m.pop_mark()),
    b"d": lambda m: m.push(dict(_pairs(m.pop_mark()))),
    b"t": lambda m: m.push(tuple(m.pop_mark())),
    b"\x91": lambda m: m.push(m.pop_mark()),
    b"\x85": lambda m: m.push((m.stack.pop(),)),
    b"\x86": lambda m: m.push((m.stack.pop(), m.stack.pop())[::-1]),
    b"\x87": lambda m: m.push((m.stack.pop(), m.stack.pop(), m.stack.pop())[::-1]),
    b"a": lambda m: m.extend([m.stack.pop()]),
    b"e": lambda m: m.extend(m.pop_mark()),
    b"\x90": lambda m: m.extend(m.pop_mark()),
    b"s": lambda m: m.set_items([m.stack.pop(), m.stack.pop()][::-1]),
    b"u": lambda m: m.set_items(m.pop_mark()),
    # stack and memo
    b"(": lambda m: m.marks.append(len(m.stack)),
    b"0": _Interpreter.pop,
    b"1": _Interpreter.pop_mark,
    b"2": lambda m: m.push(m.stack[-1]),
    b"g": lambda m: m.push(m.memo[int(m.stream.line())]),
    b"h": lambda m: m.push(m.memo[m.stream.number("<B")]),
    b"j": lambda m: m.push(m.memo[m.stream.number("<I")]),
    b"p": lambda m: m.remember(int(m.stream.line())),
    b"q": lambda m: m.remember(m.stream.number("<B")),
    b"r": lambda m: m.remember(m.stream.number("<I")),
    b"\x94": lambda m: m.remember(len(m.memo)),
    # what an unpickler would import, call or instantiate
    b"c": lambda m: m.push(Global(m.stream.line(), m.stream.line())),
    b"\x93": _Interpreter.stack_global,
    b"\x82": lambda m: m.extension("<B"),
    b"\x83": lambda m: m.extension("<H"),
    b"\x84": lambda m: m.extension("<i"),
    b"R": _Interpreter.reduce,
    b"\x81": _Interpreter.reduce,
    b"\x92": _Interpreter.new_with_keywords,
    b"i": _Interpreter.instance,
    b"o": _Interpreter.object,
    b"b": _Interpreter.build,
    b"P": lambda m: m.push(m.resolve_id(m.stream.line())),
    b"Q": lambda m: m.push(m.resolve_id(m.stack.pop())),
}
