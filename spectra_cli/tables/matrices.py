"""Matrices whose numbers a table has already: which they are, and where their rows stand."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from spectra_cli.tables.columns import RANK

IDENTITY = ("digest", "kind", "rows", "cols", "status")
"""Columns that tell which matrix a row is about, and whether its numbers can be used."""

DIGEST = re.compile("[0-9a-f]{64}")

USABLE = ("ok",)
"""Statuses of rows with all numbers."""

_NAMES = [column.name for column in RANK]
NUMBERS = (*_NAMES[_NAMES.index("dtype") + 1 : _NAMES.index("digest")], "status")
"""Columns that depend on nothing but the matrix."""

_ENTRY = np.dtype(
    [("first", "u8"), ("second", "u8"), ("kind", "i4"), ("rows", "i8"), ("cols", "i8"), ("part", "i4"), ("row", "i4")]
)
"""What is known of a row: the first 16 bytes of the digest, the rest of its identity, and where it stands."""

_MERGED = 2
"""Blocks are merged when one has less than so many times the entries of the one behind it."""

Made = TypeVar("Made")


class MatrixIndex:
    """Matrices, told by digest, kind, rows and columns, and where a row about each stands.

    They are held in sorted blocks, each much larger than the next, some 44 bytes a matrix.
    """

    def __init__(self) -> None:
        self._kinds: dict[str | None, int] = {}
        self._blocks: list[npt.NDArray[np.void]] = []

    def add(self, part: int, rows: pa.Table) -> None:
        """Take note of the rows of one part of a table.

        Args:
            part: by which the rows are found again.
            rows: with the columns :data:`IDENTITY`, texts as such or as dictionaries; what is no digest is passed over.
        """
        if not set(IDENTITY) <= set(rows.column_names):
            return
        columns = [rows.column(name) for name in IDENTITY]
        digest, kind, status = (column.cast(pa.string()) for column in (columns[0], columns[1], columns[4]))
        good = pc.and_(pc.match_substring_regex(digest, f"^{DIGEST.pattern}$"), pc.is_in(status, pa.array(USABLE)))
        good = pc.and_(good, pc.and_(columns[2].is_valid(), columns[3].is_valid())).fill_null(False)
        usable = np.flatnonzero(np.asarray(good))
        if not len(usable):
            return
        block = np.zeros(len(usable), _ENTRY)
        block["first"], block["second"] = _leading_words(digest.filter(good))
        block["kind"] = self._codes(kind.filter(good))
        block["rows"], block["cols"] = (np.asarray(columns[index].filter(good)) for index in (2, 3))
        block["part"], block["row"] = part, usable
        self._blocks.append(_in_order(block))
        while len(self._blocks) > 1 and len(self._blocks[-2]) < _MERGED * len(self._blocks[-1]):
            later, earlier = self._blocks.pop(), self._blocks.pop()
            self._blocks.append(_in_order(np.concatenate([earlier, later])))

    def where(self, digest: str, kind: str, rows: int, cols: int) -> tuple[int, int] | None:
        """Part and row within it that are about a matrix; None if none is."""
        code = self._kinds.get(kind)
        words = _words(digest)
        if code is None or words is None:
            return None
        for block in self._blocks:
            index = bisect_left(block["first"], words[0])  # np.searchsorted would copy all of the strided column
            while index < len(block) and block["first"][index] == words[0]:
                _, second, *shape, part, row = block[index].item()
                if second == words[1] and shape == [code, rows, cols]:
                    return part, row
                index += 1
        return None

    def __contains__(self, matrix: object) -> bool:
        return isinstance(matrix, tuple) and len(matrix) == 4 and self.where(*matrix) is not None

    def __len__(self) -> int:
        """Rows that are noted, those about the same matrix each."""
        return sum(map(len, self._blocks))

    def _codes(self, kinds: pa.ChunkedArray) -> npt.NDArray[np.int32]:
        encoded = kinds.combine_chunks().dictionary_encode()
        found = [*encoded.dictionary.to_pylist(), None]
        codes = np.array([self._kinds.setdefault(kind, len(self._kinds)) for kind in found], np.int32)
        indices: npt.NDArray[np.int32] = encoded.indices.fill_null(len(found) - 1).to_numpy()
        return codes[indices]


class Recent(Generic[Made]):
    """The last few of what was made, by name.

    Args:
        make: makes one.
        most: how many are kept.
    """

    def __init__(self, make: Callable[..., Made], most: int) -> None:
        self._make = make
        self._most = most
        self._made: OrderedDict[tuple[Any, ...], Made] = OrderedDict()

    def __call__(self, *name: Any) -> Made:
        """Result of `make` for a name, which is its arguments."""
        if name not in self._made:
            while len(self._made) >= self._most:
                self._made.popitem(last=False)
            self._made[name] = self._make(*name)
        self._made.move_to_end(name)
        return self._made[name]


class MatrixRows:
    """Rows about matrices in a table that is read in parts.

    Args:
        parts: identities of the rows of each part, with the number of it; asked for when they are first needed.
        read: the rows of a part, with the columns :data:`NUMBERS` as far as it has them.
    """

    RECENT_PARTS = 4

    def __init__(self, parts: Callable[[], Iterable[tuple[int, pa.Table]]], read: Callable[[int], pa.Table]) -> None:
        self._parts = parts
        self._recent = Recent(read, self.RECENT_PARTS)
        self._known: MatrixIndex | None = None

    @property
    def known(self) -> MatrixIndex:
        """All that there are."""
        if self._known is None:
            self._known = MatrixIndex()
            for part, rows in self._parts():
                self._known.add(part, rows)
        return self._known

    def add(self, part: int, rows: pa.Table) -> None:
        """Take note of a part that has come."""
        if self._known is not None:
            self._known.add(part, rows)

    def row(self, digest: str, kind: str, rows: int, cols: int) -> dict[str, Any]:
        """The columns :data:`NUMBERS` of a row about a matrix, as they were computed; lists are arrays of float32.

        Raises:
            KeyError: if none is known.
        """
        where = self.known.where(digest, kind, rows, cols)
        if where is None:
            raise KeyError((digest, kind, rows, cols))
        part, row = where
        table = self._recent(part)
        return {name: _plain(table.column(name)[row]) for name in NUMBERS if name in table.column_names}


def _plain(scalar: pa.Scalar) -> Any:
    if isinstance(scalar, pa.ListScalar) and scalar.is_valid:
        return np.array(scalar.values.to_numpy(zero_copy_only=False), np.float32)
    return scalar.as_py()


def _in_order(block: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    return block[np.argsort(block["first"], kind="stable")]


def _words(digest: Any) -> tuple[int, int] | None:
    """The first 16 bytes of a digest as two numbers; None of what is no digest."""
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        return None
    return int(digest[:16], 16), int(digest[16:32], 16)


def _leading_words(digests: pa.ChunkedArray) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """The first 16 bytes of digests of 64 digits each, as two numbers."""
    leading = pc.utf8_slice_codeunits(digests, 0, 32).combine_chunks().cast(pa.binary()).cast(pa.binary(32))
    digits = np.frombuffer(leading.buffers()[1], np.uint8, 32 * len(leading), 32 * leading.offset)
    halves = (digits & 15) + 9 * (digits >> 6)  # 0 to 9 are 0x30 to 0x39, a to f are 0x61 to 0x66
    words = (halves[::2] << 4 | halves[1::2]).view(">u8").astype(np.uint64).reshape(-1, 2)
    return words[:, 0], words[:, 1]
