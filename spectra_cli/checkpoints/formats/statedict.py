"""Turns the nested containers of a pickle into named tensors, and into words about what could not be named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from spectra_cli.checkpoints.formats.limits import (
    LONGEST_QUOTE,
    MOST_TENSORS,
    Notes,
    check_count,
    check_name,
    printable,
    quoted,
)
from spectra_cli.checkpoints.formats.placeholders import Global, Key, Object
from spectra_cli.checkpoints.formats.rebuild import StoredTensor
from spectra_cli.checkpoints.formats.stored import integer_metadata
from spectra_cli.errors import CheckpointError, HostileCheckpointError, UnsupportedFormatError

MOST_NAME_CHARACTERS = 1 << 25  # of all names together
MOST_LOOKS = 1 << 22  # at items of containers, once for every name of the container
DEEPEST_TENSOR = 64
_STATE_DICT = "Save only the state dict of the model"


@dataclass(frozen=True, slots=True)
class NamedTensor:
    """A tensor and the way to it: dotted name, and dotted path of the dictionary around it."""

    name: str
    group: str
    tensor: StoredTensor


@dataclass(slots=True)
class Contents:
    """What a pickle holds: named tensors in order, counters it states, and sentences about the rest.

    `unread` are names of tensors in forms that are not read.
    """

    tensors: list[NamedTensor] = field(default_factory=list)
    metadata: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)


def contents_of(root: Any) -> Contents:
    """Name every tensor that is reached through dictionaries, lists and tuples.

    Containers are told apart by identity, so that sharing and cycles cost nothing; a container that is shared counts
    under each of its names.

    Args:
        root: what :func:`~spectra_cli.checkpoints.formats.inert.load_inert` returned.

    Raises:
        CheckpointError: if the only tensors are inside pickled objects, or there are none.
        UnsupportedFormatError: if there are quantized tensors.
        HostileCheckpointError: if sharing multiplies the tensors beyond what any model has.
    """
    counts = _Counts(root)
    check_count(counts.visible(root))
    contents = Contents()
    notes = Notes()
    taken: dict[str, int] = {}  # how often each name was given; a number tells later ones apart
    for name, group, tensor in _walk(root, counts, notes, contents.unread):
        unique = name
        while unique in taken:
            taken[name] += 1
            unique = f"{name}~{taken[name]}"
        taken[unique] = 1
        if unique != name:
            notes.add(partial("two tensors are named {}; one is listed as {}".format, quoted(name), quoted(unique)))
        if tensor.subclass:
            words = "{} was saved from a {}, a class of tensors of its own; its stored numbers are read as they are"
            notes.add(partial(words.format, quoted(name), printable(tensor.subclass[:LONGEST_QUOTE])))
        contents.tensors.append(NamedTensor(unique, group, tensor))
    contents.notes = notes.words()
    if not contents.tensors:
        raise _without_tensors(root, contents.notes)
    if isinstance(root, dict):
        contents.metadata = integer_metadata(root)
    return contents


_CONTAINERS = (dict, list, tuple, Object)


class _Counts:
    """How many tensors are reached from each container: nameable ones, and ones inside pickled objects."""

    def __init__(self, root: Any) -> None:
        self._counts: dict[int, tuple[int, int]] = {}
        references = 0
        stack: list[tuple[Any, bool]] = [(root, False)]
        while stack:
            node, done = stack.pop()
            if done:
                self._counts[id(node)] = self._total(node)
            elif isinstance(node, _CONTAINERS) and id(node) not in self._counts:
                inner = [(child, False) for child in _children(node) if isinstance(child, _CONTAINERS)]
                references += sum(isinstance(child, StoredTensor) for child in _children(node))
                check_count(references)  # before all else is counted, in time
                self._counts[id(node)] = (0, 0) if inner else self._total(node)  # zero is what a cycle finds
                if inner:
                    stack.append((node, True))
                    stack.extend(inner)

    def visible(self, node: Any) -> int:
        """Tensors that get a name, at most one more than the limit."""
        return 1 if isinstance(node, StoredTensor) else self._counts.get(id(node), (0, 0))[0]

    def hidden(self, node: Any) -> int:
        """Tensors that do not."""
        return self._counts.get(id(node), (0, 0))[1]

    def _total(self, node: Any) -> tuple[int, int]:
        visible = hidden = 0
        for child in _children(node):
            if isinstance(child, StoredTensor):
                visible += 1
            elif counts := self._counts.get(id(child)):
                visible += counts[0]
                hidden += counts[1]
        if isinstance(node, Object):
            visible, hidden = 0, visible + hidden + bool(_special(node))
        return min(visible, MOST_TENSORS + 1), min(hidden, MOST_TENSORS + 1)


def _children(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        yield from node.values()
    elif isinstance(node, Object):
        yield from node.parts
    elif isinstance(node, list | tuple):
        yield from node


@dataclass(slots=True)
class _Frame:
    """A container on the way: what is left of it, its name, and the name of the dictionary that it is or is in."""

    container: Any
    items: Iterator[tuple[Any, Any]]
    name: str
    group: str


def _walk(root: Any, counts: _Counts, notes: Notes, unread: set[str]) -> Iterator[tuple[str, str, StoredTensor]]:
    """Yield (name, group, tensor) in order; containers without tensors are not entered, and cycles are cut."""
    looks = characters = 0
    described: set[int] = set()  # objects, and containers of nothing else, that need no second remark
    frames = [_Frame(None, iter([("", root)]), "", "")]
    while frames:
        frame = frames[-1]
        item = next(frame.items, None)
        if item is None:
            frames.pop()
            continue
        key, node = item
        looks += 1
        if looks > MOST_LOOKS:
            raise HostileCheckpointError("its containers are shared until no model is that large", remedy=_STATE_DICT)
        visible, hidden = counts.visible(node), counts.hidden(node)
        if not (visible or hidden) or id(node) in described:
            continue
        name = _join(frame.name, key)
        characters += len(name)
        check_name(name)
        if characters > MOST_NAME_CHARACTERS:
            raise HostileCheckpointError(
                "the names of its tensors take more space than any model's", remedy=_STATE_DICT
            )
        if isinstance(node, StoredTensor):
            yield name or "tensor", frame.group, node
            continue
        if not visible:
            described.add(id(node))
        if isinstance(node, Object):
            _check_numbers(node, name)
            if _special(node) and len(unread) < MOST_TENSORS:
                unread.add(name)
            notes.add(partial(_describe, node, name, hidden))
        elif not any(node is outer.container for outer in frames):
            if len(frames) > DEEPEST_TENSOR:
                raise HostileCheckpointError(
                    f"its tensors are nested more than {DEEPEST_TENSOR} levels deep", remedy=_STATE_DICT
                )
            is_dict = isinstance(node, dict)
            items = node.items() if is_dict else enumerate(node)
            frames.append(_Frame(node, iter(items), name, name if is_dict else frame.group))


def _join(path: str, key: Any) -> str:
    return f"{path}.{_label(key)}" if path else _label(key)


def _label(key: Any) -> str:
    """A key as a part of a name."""
    if isinstance(key, Key):
        value = key.value
        text = value.path if isinstance(value, Global) else "?"
        if isinstance(value, tuple) and len(value) < 8 and _flat(value):
            text = ",".join(map(_label, value))
    else:
        text = key.decode("latin-1") if isinstance(key, bytes) else str(key)
    return printable(text)


def _flat(values: tuple[Any, ...]) -> bool:
    return all(isinstance(value, str | int | float | None) for value in values)


_QUANTIZED = frozenset({"torch._utils._rebuild_qtensor"})
_SPECIAL = {
    "torch._utils._rebuild_qtensor": "a quantized tensor",
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_sparse_csr_tensor": "a sparse tensor",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a meta tensor, which has no numbers",
    "torch._utils._rebuild_device_tensor_from_numpy": "a tensor of an accelerator, saved through NumPy",
    "torch._utils._rebuild_tensor_v2": "a tensor whose bytes are outside the file or stored negated or conjugated",
    "torch._utils._rebuild_tensor_v3": "a tensor of a type without plain numbers",
    "torch._utils._rebuild_wrapper_subclass": "a tensor subclass",
    "torch._tensor._rebuild_from_type_v2": "a tensor subclass",
}
_NUMPY = re.compile(r"numpy\._?core\.(multiarray\._reconstruct|numeric\._frombuffer)")


def _special(node: Object) -> str:
    """What an object is that holds numbers and is not read, "" for other objects.

    Arrays of one axis are none: random generators and metrics keep them.
    """
    if node.path in _SPECIAL:
        return _SPECIAL[node.path]
    if not _NUMPY.fullmatch(node.path):
        return ""
    axes = max((_axes(part) for part in node.parts if isinstance(part, tuple)), default=0)
    return "a NumPy array" if axes > 1 else ""


def _axes(state: tuple[Any, ...]) -> int:
    """Number of axes of a NumPy array, from its state (1, shape, ...) or arguments (buffer, dtype, shape, ...)."""
    shapes = [part for part in state[1:3] if isinstance(part, tuple) and all(type(size) is int for size in part)]
    return max(map(len, shapes), default=0)


def _check_numbers(node: Object, name: str) -> None:
    if node.path in _QUANTIZED:
        raise UnsupportedFormatError(
            f"{quoted(name)} is a quantized tensor",
            remedy="Save the model before quantization, or its tensors after .dequantize()",
        )


def _describe(node: Object, name: str, hidden: int) -> str:
    place = quoted(name) if name else "the top level"
    path = node.path[:LONGEST_QUOTE]
    if special := _special(node):
        return f"{place} is {special}; it is not read"
    tensors = "a tensor" if hidden == 1 else f"{hidden} tensors"
    return f"{place} is a pickled {printable(path)} that holds {tensors}; they are not read"


def _without_tensors(root: Any, notes: list[str]) -> CheckpointError:
    if isinstance(root, Object):
        what = f"it holds a pickled {printable(root.path[:LONGEST_QUOTE])}, not a state dict"
        remedy = "Load it where its class is defined and save model.state_dict() instead"
    elif notes:
        what = f"it holds no tensors outside pickled objects: {notes[0]}"
        remedy = "Save model.state_dict() instead"
    else:
        what = "it holds no tensors"
        remedy = "Save model.state_dict()"
    return CheckpointError(what, remedy=remedy)
