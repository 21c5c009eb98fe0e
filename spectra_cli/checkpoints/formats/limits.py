"""Limits that no checkpoint of a model exceeds, in any format: checked before a file's claims cause work."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from spectra_cli.checkpoints.damage import corrupt
from spectra_cli.errors import CorruptCheckpointError, HostileCheckpointError
from spectra_cli.tensors import TensorInfo

MOST_TENSORS = 1 << 18
MOST_AXES = 64  # torch's own limit
LONGEST_NAME = 1 << 10
LONGEST_QUOTE = 120
MOST_NOTES = 20
LARGEST_JSON_BYTES = 1 << 25
"""Limit for a safetensors header or a shard index; the largest known, of 92 thousand tensors, has 9 MB."""

MOST_JSON_VALUES = 1 << 22
"""Lists, objects and what they hold, which take far more memory than the one or two bytes that each has in a file."""

MOST_JSON_NAMES = 5 * MOST_TENSORS
"""Limit for all objects together; a safetensors header has four per tensor. Each takes some 300 bytes to decode."""


def printable(text: str) -> str:
    """Text from a file, with escapes for what would upset a terminal or cannot be encoded."""
    return text if text.isprintable() else text.encode("unicode-escape", "backslashreplace").decode("ascii")


def quoted(name: str) -> str:
    """A name from a file in quotes, for people: printable, and cut where it is longer than anyone would read."""
    return f"'{printable(name if len(name) <= LONGEST_QUOTE else name[:LONGEST_QUOTE] + '…')}'"


def check_name(name: str) -> None:
    """Refuse a name longer than any model has.

    Raises:
        HostileCheckpointError: if it is.
    """
    if len(name) > LONGEST_NAME:
        raise HostileCheckpointError(
            f"a tensor's name has {len(name)} characters: {quoted(name)}", remedy="Save only the state dict of a model"
        )


def check_axes(name: str, count: int) -> None:
    """Refuse a tensor of more axes than torch knows, before its sizes are multiplied.

    Raises:
        CorruptCheckpointError: if it has.
    """
    if count > MOST_AXES:
        raise CorruptCheckpointError(f"{quoted(name)} claims {count} axes", remedy="Save the checkpoint again")


def check_count(count: int) -> None:
    """Refuse more tensors than any model has.

    Raises:
        HostileCheckpointError: if there are.
    """
    if count > MOST_TENSORS:
        raise HostileCheckpointError(
            f"it names more than {MOST_TENSORS} tensors", remedy="Save only the state dict of a model"
        )


def check_tensors(tensors: Mapping[str, TensorInfo]) -> None:
    """Hold what a reader found against the limits.

    Raises:
        CheckpointError: one of its subclasses, if there are more tensors, longer names or more axes than in any model.
    """
    check_count(len(tensors))
    for name, info in tensors.items():
        check_name(name)
        check_axes(name, len(info.shape))


def parse_json(text: bytes, what: str) -> Any:
    """Decode JSON from a file, without more memory than its content justifies.

    Args:
        text: at most :data:`LARGEST_JSON_BYTES`, as the caller has checked.
        what: it is, for the error.

    Raises:
        CorruptCheckpointError: if it is no JSON, or an object has a name twice.
        HostileCheckpointError: if it has more values or names than the description of any model.
    """
    if sum(map(text.count, (b",", b"[", b"{"))) > MOST_JSON_VALUES:
        raise HostileCheckpointError(f"{what} has more than {MOST_JSON_VALUES} values", remedy="Do not use this file")
    if text.count(b":") > MOST_JSON_NAMES:  # those inside names count as well, of which no name has many
        raise HostileCheckpointError(f"{what} has more than {MOST_JSON_NAMES} names", remedy="Do not use this file")
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise corrupt(f"{what} is not valid JSON") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(entries := dict(pairs)) != len(pairs):
        raise ValueError("a name occurs twice")
    return entries


class Notes:
    """The first remarks in words, the others as a number: words for millions of objects would fill the memory."""

    def __init__(self) -> None:
        self._notes: list[str] = []
        self._more = 0

    def add(self, word: Callable[[], str]) -> None:
        """Remark upon something; `word` is called only where there is room."""
        if len(self._notes) < MOST_NOTES:
            self._notes.append(word())
        else:
            self._more += 1

    def words(self) -> list[str]:
        """All remarks, and how many more there were."""
        return [*self._notes, f"{self._more} more remarks of this kind"] if self._more else list(self._notes)
