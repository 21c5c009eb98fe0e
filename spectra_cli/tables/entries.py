"""What is on record about units: the checkpoints, or pairs of them, that are done and kept as one."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Key = tuple[str | None, ...]
"""Values of the columns that name a unit in a table: run and checkpoint, or those of two."""

UNITS_KEY = "units"
"""Key of the entries in the metadata of a file, after ``spectra.``."""

VERSION = 1
PACKED = "zlib:"
"""Prefix of what is compressed, in base 64; plain JSON begins otherwise."""

MOST_BYTES = 1 << 25
"""Limit for the entries of one file as JSON, which are those of about 150,000 units."""

ALWAYS_BYTES, BYTES_PER_BYTE = 1 << 20, 40
"""Limit for decompressed JSON: a fixed allowance, or so much per byte of the compressed text if that is more."""

ALWAYS_VALUES, CHARACTERS_PER_VALUE = 1 << 18, 4
"""Limit for values in the JSON: a fixed allowance, or one for so many characters of the stored text if that is more."""

DEEPEST_FACT = 20


@dataclass(frozen=True, slots=True)
class Entry:
    """What is on record about one unit.

    Attributes:
        fingerprint: of all that its rows depend on, as it can be told without reading weights.
        content: hash of the weights that the rows were made of; None where they could not be read.
        facts: about the unit, beside its rows; as JSON may have it.
    """

    fingerprint: str
    content: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def storable(text: str) -> str:
    """Text that a table can hold: bytes of file names that are no text become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def stored_key(key: Iterable[str | None]) -> Key:
    """A key as the columns of a table hold it."""
    return tuple(None if part is None else storable(part) for part in key)


def units_metadata(entries: Mapping[Key, Entry]) -> str:
    """The entries as text for the metadata of a file: some 100 bytes for a unit with two hashes.

    Args:
        entries: by key; `facts` as JSON may have them.
    """
    each = entries.values()
    columns = {  # side by side, as hashes among hashes compress to the half
        "version": VERSION,
        "keys": [stored_key(key) for key in entries],
        "fingerprints": [entry.fingerprint for entry in each],
        "contents": [entry.content for entry in each],
        "facts": {str(index): entry.facts for index, entry in enumerate(each) if entry.facts},
    }
    plain = json.dumps(columns, separators=(",", ":"), sort_keys=True)
    packed = PACKED + base64.b64encode(zlib.compress(plain.encode(), 9)).decode()
    return packed if 4 * len(packed) < 3 * len(plain) else plain


def read_units(text: str | None) -> dict[Key, Entry]:
    """The entries in the metadata of a file; none where it tells of none, or of any that are not as they should be.

    Args:
        text: what :func:`units_metadata` made.
    """
    try:
        columns = json.loads(_in_proportion(text or ""))
        if columns["version"] != VERSION:
            return {}
        facts = columns["facts"]
        each = zip(columns["keys"], columns["fingerprints"], columns["contents"], strict=True)
        return {
            key_of(key): entry_of(fingerprint, content, facts.get(str(index), {}))
            for index, (key, fingerprint, content) in enumerate(each)
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def key_of(value: Any) -> Key:
    """A key as JSON has it.

    Raises:
        ValueError: if it is none.
    """
    if isinstance(value, list) and all(part is None or isinstance(part, str) for part in value):
        return stored_key(value)
    raise ValueError("no key of a unit")


def entry_of(fingerprint: Any, content: Any, facts: Any) -> Entry:
    """An entry of what JSON has of it.

    Raises:
        ValueError: if it is none.
    """
    good = isinstance(fingerprint, str) and (content is None or isinstance(content, str)) and isinstance(facts, dict)
    if not good or _deeper_than(facts, DEEPEST_FACT):
        raise ValueError("no entry of a unit")
    return Entry(fingerprint, content, facts)


def _in_proportion(text: str) -> str:
    """The JSON in the text.

    Raises:
        ValueError: if there is none, or it would take more memory than its bytes justify.
    """
    plain = _unpacked(text)
    values = sum(map(plain.count, "[{,"))
    if values > max(ALWAYS_VALUES, len(text) // CHARACTERS_PER_VALUE):
        raise ValueError("too many values")
    return plain


def _unpacked(text: str) -> str:
    """The JSON in the text.

    Raises:
        ValueError: if there is none, or more than a file of spectra has.
    """
    if not text.startswith(PACKED):
        if len(text) > MOST_BYTES:
            raise ValueError("too long")
        return text
    unpacking = zlib.decompressobj()
    most = min(MOST_BYTES, max(ALWAYS_BYTES, BYTES_PER_BYTE * len(text)))
    try:
        plain = unpacking.decompress(base64.b64decode(text.removeprefix(PACKED), validate=True), most)
    except (zlib.error, binascii.Error) as error:
        raise ValueError("damaged") from error
    if not unpacking.eof:
        raise ValueError("torn, or too long")
    return plain.decode()


def _deeper_than(value: Any, levels: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper_than(each, levels - 1) for each in inside)
