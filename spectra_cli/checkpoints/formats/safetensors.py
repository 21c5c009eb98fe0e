"""The safetensors format: a JSON header of names, shapes and offsets, then the bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from spectra_cli.checkpoints.damage import corrupt
from spectra_cli.checkpoints.filespan import FileSpan, read_exactly
from spectra_cli.checkpoints.formats.limits import (
    LARGEST_JSON_BYTES,
    Notes,
    check_axes,
    check_count,
    check_name,
    parse_json,
    printable,
    quoted,
)
from spectra_cli.checkpoints.formats.stored import StoredTensors, integer_metadata
from spectra_cli.errors import HostileCheckpointError
from spectra_cli.storage.files import StoredFile
from spectra_cli.tensors import TensorInfo

LARGEST_HEADER_BYTES = 100_000_000  # the format's own limit

DTYPES: Mapping[str, str] = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "C64": "complex64",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
"""torch's name of every element type of the format that spectra knows."""


def looks_like_safetensors(head: bytes) -> bool:
    """Whether a file that starts with these bytes (at least 9) is meant as safetensors."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LARGEST_HEADER_BYTES


def open_safetensors(file: StoredFile) -> StoredTensors:
    """Make a reader of one safetensors file.

    The header is checked as strictly as the reference implementation does: every byte after it belongs to exactly one
    tensor, and every size follows from a shape and a dtype. Of a remote file nothing else is fetched for it, and what
    is read of each tensor later.

    Raises:
        CorruptCheckpointError: if the header contradicts itself or the size of the file.
        HostileCheckpointError: if it is larger than that of any model.
    """
    header, data_start = _read_header(file)
    stated = header.pop("__metadata__", {})
    check_count(len(header))
    tensors: dict[str, TensorInfo] = {}
    spans: dict[str, FileSpan] = {}
    unread: set[str] = set()
    ends = []
    notes = Notes()
    for raw_name, entry in header.items():
        name = printable(raw_name)
        check_name(name)
        dtype, shape, begin, end = _parse_entry(name, entry)
        ends.append((begin, end, name))
        if dtype not in DTYPES:
            unread.add(name)
            notes.add(partial("{} has element type {}, which is not read".format, quoted(name), printable(dtype[:40])))
            continue
        info = TensorInfo(name=name, shape=shape, dtype=DTYPES[dtype])
        if info.nbytes != end - begin:
            raise corrupt(f"{quoted(name)} has {end - begin} bytes, its shape and dtype need {info.nbytes}")
        if name in tensors:
            raise corrupt(f"two tensors are named {quoted(name)} when control characters are escaped")
        tensors[name] = info
        spans[name] = FileSpan(file, data_start + begin, shape, info.dtype)
    _check_partition(ends, file.size_bytes - data_start)
    return StoredTensors(
        format="safetensors",
        tensors=tensors,
        spans=spans,
        ordered=False,  # files are written sorted by alignment and name
        metadata=_stated_counters(stated),
        notes=notes.words(),
        files=[file],
        unread=unread,
    )


def _read_header(file: StoredFile) -> tuple[dict[str, Any], int]:
    """The JSON object that a file begins with, and the byte at which its data start.

    Raises:
        CorruptCheckpointError: if there is none.
        HostileCheckpointError: if it is larger than that of any model.
    """
    length = bytearray(8)
    read_exactly(file, 0, memoryview(length))
    header_bytes = int.from_bytes(length, "little")
    if header_bytes > LARGEST_HEADER_BYTES or 8 + header_bytes > file.size_bytes:
        raise corrupt(f"the header claims {header_bytes} bytes, the file has {file.size_bytes}")
    if header_bytes > LARGEST_JSON_BYTES:
        raise HostileCheckpointError(
            f"the header takes {header_bytes >> 20} MiB, more than the names and shapes of any model",
            remedy="Save the tensors again, without large metadata",
        )
    text = bytearray(header_bytes)
    read_exactly(file, 8, memoryview(text))
    header = parse_json(bytes(text), "the header")
    if not isinstance(header, dict):
        raise corrupt("the header is not a JSON object")
    return header, 8 + header_bytes


def _parse_entry(name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """Take one tensor's header entry apart: dtype, shape, first byte and end."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise corrupt(f"the header entry of {quoted(name)} is incomplete") from error
    if isinstance(shape, list):
        check_axes(name, len(shape))
    sizes = [*shape, begin, end] if isinstance(shape, list) else [None]
    if not isinstance(dtype, str) or not all(type(size) is int and 0 <= size < 1 << 63 for size in sizes):
        raise corrupt(f"the header entry of {quoted(name)} is malformed")
    if end < begin or math.prod(size for size in shape if size) >= 1 << 56:
        raise corrupt(f"the header entry of {quoted(name)} claims an impossible size")
    return dtype, tuple(shape), begin, end


def _check_partition(ends: list[tuple[int, int, str]], data_bytes: int) -> None:
    """Every byte after the header belongs to exactly one tensor."""
    position = 0
    for begin, end, name in sorted(ends):
        if begin != position:
            raise corrupt(f"{quoted(name)} starts at byte {begin} of the data, the tensor before it ends at {position}")
        position = end
    if position != data_bytes:
        raise corrupt(f"the tensors end at byte {position} of the data, which has {data_bytes} bytes")


def _stated_counters(stated: Any) -> dict[str, int]:
    """Step and epoch from ``__metadata__``, whose values are strings."""
    if not isinstance(stated, dict):
        return {}
    return integer_metadata(
        {
            key: int(text)
            for key, text in stated.items()
            if isinstance(text, str) and text.isdecimal() and len(text) < 20
        }
    )
