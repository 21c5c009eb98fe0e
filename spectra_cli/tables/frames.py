"""Frames: the pieces of an append-only file, each of which is known to be whole or to be damaged."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

LABEL_BYTES = 4
LONGEST_HEAD = 1 << 20
LONGEST_BODY = 1 << 34
"""Thousands of times what the rows of a large model take."""

LONGEST_GAP = 1 << 26
"""Limit for a damaged stretch that is looked through for the next frame; nothing behind a longer one is believed."""

PIECE_BYTES = 1 << 20
"""Read at once where only a checksum is wanted."""

MOST_FALSE_STARTS = 1000
"""Offsets in a damaged stretch that look like the beginning of a frame; after so many, nothing more is believed."""

_FIELDS = struct.Struct("<4sIIQI")
_CHECKSUM = struct.Struct("<I")
_OPENING_BYTES = _FIELDS.size + _CHECKSUM.size


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a frame stands in a file, and what its bytes must add up to.

    Attributes:
        label: which kind of frame it is: four bytes.
        offset: of its first byte.
        head_bytes: length of its head, which says what it is about.
        head_crc: CRC-32 of the head.
        body_bytes: length of its body.
        body_crc: CRC-32 of the body.
    """

    label: bytes
    offset: int
    head_bytes: int
    head_crc: int
    body_bytes: int
    body_crc: int

    @classmethod
    def of(cls, label: bytes, offset: int, head: bytes, body: bytes | memoryview) -> Frame:
        """The frame that some content makes.

        Raises:
            ValueError: if it is more than is ever read.
        """
        if len(head) > LONGEST_HEAD or len(body) > LONGEST_BODY:
            raise ValueError(f"{len(head)} and {len(body)} bytes are more than a frame holds")
        return cls(label, offset, len(head), zlib.crc32(head), len(body), zlib.crc32(body))

    def opening(self) -> bytes:
        """Bytes that stand before the head."""
        fields = _FIELDS.pack(self.label, self.head_bytes, self.head_crc, self.body_bytes, self.body_crc)
        return fields + _CHECKSUM.pack(zlib.crc32(fields))

    @property
    def end(self) -> int:
        """Offset of what follows."""
        return self.offset + _OPENING_BYTES + self.head_bytes + self.body_bytes

    def head(self, handle: int) -> bytes | None:
        """The head; None if it is damaged."""
        head = os.pread(handle, self.head_bytes, self.offset + _OPENING_BYTES)
        return head if len(head) == self.head_bytes and zlib.crc32(head) == self.head_crc else None

    def body(self, handle: int) -> bytes | None:
        """The body; None if it is damaged."""
        body = b"".join(self._pieces(handle))
        return body if len(body) == self.body_bytes and zlib.crc32(body) == self.body_crc else None

    def is_whole(self, handle: int) -> bool:
        """Whether neither head nor body are damaged; they are not held in memory.

        What was written has no holes, and one can be claimed to be of any size for nothing.
        """
        if _first_hole(handle, self.offset) < self.end:
            return False
        checksum = 0
        for piece in self._pieces(handle):
            checksum = zlib.crc32(piece, checksum)
        return checksum == self.body_crc and self.head(handle) is not None

    def _pieces(self, handle: int) -> Iterator[bytes]:
        start = self.end - self.body_bytes
        while start < self.end:
            piece = os.pread(handle, min(PIECE_BYTES, self.end - start), start)
            if not piece:
                return
            yield piece
            start += len(piece)


def frames_in(handle: int, start: int, labels: frozenset[bytes]) -> Iterator[Frame]:
    """The whole frames of a file from an offset on.

    A frame whose opening is whole and whose content is not is passed over by itself. Where an opening is damaged, what
    follows is looked through for the next one, as far as :data:`LONGEST_GAP`; everything up to there is lost.

    Args:
        handle: of the open file.
        start: offset of the first frame.
        labels: of the frames that there may be.
    """
    size = os.fstat(handle).st_size
    tries, whole = MOST_FALSE_STARTS, start
    while start + _OPENING_BYTES <= size and tries:
        frame = _frame_at(handle, start, size, labels)
        if frame is None:
            tries -= 1
            found = _next_label(handle, start + 1, min(size, whole + LONGEST_GAP), labels)
            if found is None:
                return
            start = found
            continue
        if frame.is_whole(handle):
            yield frame
            whole = frame.end
        start = frame.end


def first_frame(handle: int, start: int, label: bytes) -> Frame | None:
    """The frame that begins right at an offset; None if none of the label does, or it is damaged."""
    frame = _frame_at(handle, start, os.fstat(handle).st_size, frozenset({label}))
    return frame if frame is not None and frame.is_whole(handle) else None


def _first_hole(handle: int, offset: int) -> int:
    """Offset of the first hole of a sparse file from an offset on; the end of others has one."""
    try:
        return os.lseek(handle, offset, os.SEEK_HOLE)
    except OSError:  # a file system that knows of none, or an offset behind the end
        return os.fstat(handle).st_size


def _frame_at(handle: int, offset: int, size: int, labels: frozenset[bytes]) -> Frame | None:
    """The frame that begins at an offset; None if none does that ends in the file."""
    opening = os.pread(handle, _OPENING_BYTES, offset)
    if len(opening) < _OPENING_BYTES:
        return None
    fields = opening[: _FIELDS.size]
    label, head_bytes, head_crc, body_bytes, body_crc = _FIELDS.unpack(fields)
    if _CHECKSUM.unpack_from(opening, _FIELDS.size)[0] != zlib.crc32(fields):
        return None
    if label not in labels or head_bytes > LONGEST_HEAD or body_bytes > LONGEST_BODY:
        return None
    frame = Frame(label, offset, head_bytes, head_crc, body_bytes, body_crc)
    return frame if frame.end <= size else None


def _next_label(handle: int, start: int, size: int, labels: frozenset[bytes]) -> int | None:
    """Offset of the next bytes that may begin a frame."""
    while start + _OPENING_BYTES <= size:
        piece = os.pread(handle, PIECE_BYTES, start)
        found = [index for index in map(piece.find, labels) if index >= 0]
        if found:
            return start + min(found)
        start += max(1, len(piece) - LABEL_BYTES + 1)
    return None
