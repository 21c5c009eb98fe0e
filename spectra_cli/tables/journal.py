"""The journal of a table that is being made: what is finished is on the disk at once, and found by the next process."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from spectra_cli.atomicfile import sync_directory
from spectra_cli.canonicaljson import canonical_json
from spectra_cli.errors import InputError, SpectraError
from spectra_cli.tables.entries import Entry, Key, entry_of, key_of, stored_key
from spectra_cli.tables.frames import Frame, first_frame, frames_in
from spectra_cli.tables.lockedfile import HOLDER_BYTES, LockedFile, TableInUseError, disk_error, write_at
from spectra_cli.tables.matrices import MatrixIndex, MatrixRows
from spectra_cli.tables.packing import UnusableRowsError, packed, unpacked
from spectra_cli.tables.schemas import SCHEMA_VERSION

__all__ = ["Entry", "Journal", "Key", "OtherWorkError", "TableInUseError"]

HEADER, RECORD = b"spHD", b"spRC"
"""Labels of the frames: what the records are records of, and one unit each."""


class OtherWorkError(SpectraError):
    """The finished part of an interrupted work is of no use for this one, and would be lost.

    Attributes:
        found_header: of that work.
        finished: how many units of it are.
    """

    def __init__(self, found_header: Mapping[str, Any], finished: int) -> None:
        super().__init__("another work was interrupted here, and what it has finished would be lost")
        self.found_header = found_header
        self.finished = finished


class Journal:
    """An append-only file with the rows of finished units, and the lock of the table.

    It begins with the name of the process that holds it, then comes a header, then a record for each unit that was put.
    A record that was not written to its end, as its process was killed or the disk was full, is cut off when the
    journal is opened; one that is damaged is as if it had not been written. Rows are read when they are asked for;
    memory is taken by what tells where they stand.

    Use :meth:`open`.

    Attributes:
        found_header: the header of the journal that was found; None if there was none.
        locked: whether other processes are kept away; some file systems have no locks.
    """

    def __init__(self, file: LockedFile, table: str) -> None:
        self._file = file
        self._table = table
        self._end = HOLDER_BYTES
        self._frames: list[Frame] = []
        self._latest: dict[Key, int] = {}  # indices of frames
        self._matrices = MatrixRows(self._identities, self._rows_of)
        self._closed = False
        self.found_header: Mapping[str, Any] | None = None

    @classmethod
    def open(cls, path: Path, table: str, header: Mapping[str, Any], *, fresh: bool = False) -> Journal:
        """Open the journal of a table, or begin one.

        Args:
            path: of the journal; :attr:`spectra_cli.tables.locations.TableLocation.journal_path` of the table.
            table: a key of :data:`spectra_cli.tables.schemas.TABLES`.
            header: ``match``, which must be the same for what is there to be of use; ``command``, by which another
                process is told who holds it; whatever else is to be found the next time. As JSON may have it.
            fresh: whether to begin empty in any case.

        Raises:
            TableInUseError: if another process is making the table.
            OtherWorkError: if what is there was finished for another ``match``.
            InputError: if the file cannot be opened or written to, or is no journal.
        """
        journal = cls(LockedFile(path, table, str(header.get("command", ""))), table)
        try:
            journal._load({**header, "table": f"{table}/{SCHEMA_VERSION}"}, fresh=fresh)
        except OtherWorkError:
            journal._let_go()
            raise
        except BaseException:
            journal.close()
            raise
        return journal

    @property
    def locked(self) -> bool:
        """See the attributes."""
        return self._file.locked

    def put(
        self,
        key: Iterable[str | None],
        table: pa.Table,
        *,
        fingerprint: str,
        content: str | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep the rows of a unit: when this returns, they are on the disk.

        Args:
            key: of the unit; what was kept under it before is replaced.
            table: its rows, with columns of the journal's table and of tags.
            fingerprint: see :class:`Entry`.
            content: see :class:`Entry`.
            facts: see :class:`Entry`; some kilobytes.

        Raises:
            InputError: if the disk is full or fails. What was kept before still is.
        """
        entry = entry_of(fingerprint, content, dict(facts or {}))
        told = {"key": stored_key(key), "entry": [entry.fingerprint, entry.content, entry.facts]}
        self._note(stored_key(key), self._append(RECORD, told, packed(table, self._table)))
        self._matrices.add(len(self._frames) - 1, table)

    def keys(self) -> list[Key]:
        """Keys of all units that are kept, in the order in which they were first put."""
        return list(self._latest)

    def entry(self, key: Iterable[str | None]) -> Entry | None:
        """What is on record about a unit; None if it is not kept."""
        index = self._latest.get(stored_key(key))
        told = None if index is None else _told(self._frames[index], self._file.handle)
        return None if told is None else told[1]

    def forget(self, key: Iterable[str | None]) -> None:
        """Count what was put of a unit for nothing, if it was; to be done before matrices are asked for."""
        self._latest.pop(stored_key(key), None)

    def has_rows(self, key: Iterable[str | None]) -> bool:
        """Whether there are rows of a unit that is kept: it may have none.

        Raises:
            InputError: if they cannot be read any more.
        """
        return bool(self.rows(key).num_rows)

    def rows(self, key: Iterable[str | None], names: Sequence[str] | None = None) -> pa.Table:
        """The rows of a unit, as they were put.

        Args:
            key: of the unit.
            names: of columns; None for all.

        Raises:
            KeyError: if it is not kept.
            InputError: if they cannot be read any more.
        """
        rows = self._rows_of(self._latest[stored_key(key)])
        return rows if names is None else rows.select(list(names))

    def known_matrices(self) -> MatrixIndex:
        """The matrices of which rows with numbers are kept; those of units put later come to it."""
        return self._matrices.known

    def matrix_row(self, digest: str, kind: str, rows: int, cols: int) -> dict[str, Any]:
        """The numbers of a matrix that is known; see :meth:`spectra_cli.tables.matrices.MatrixRows.row`.

        Raises:
            KeyError: if it is not.
            InputError: if its row cannot be read any more.
        """
        return self._matrices.row(digest, kind, rows, cols)

    def remove(self) -> None:
        """Remove the file, as its rows stand elsewhere, and let others make the table."""
        if not self._closed and self._file.is_in_place():
            self._file.path.unlink(missing_ok=True)
        self._let_go()

    def close(self) -> None:
        """Let others make the table. The file stays if it holds anything."""
        if self._latest:
            self._let_go()
        else:
            self.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _let_go(self) -> None:
        if not self._closed:
            self._file.close()
        self._closed = True

    def _load(self, header: Mapping[str, Any], *, fresh: bool) -> None:
        """Take over the records that are there.

        Raises:
            OtherWorkError: if they are those of another work.
        """
        handle = self._file.handle
        first = first_frame(handle, HOLDER_BYTES, HEADER)  # without it, nobody knows what the records are of
        if first is not None:
            self.found_header = _header(first, handle)
        frames = frames_in(handle, first.end, frozenset({HEADER, RECORD})) if first is not None else iter(())
        other = self.found_header is None or _matter(self.found_header) != _matter(header)
        if other and not fresh and self.found_header is not None:
            finished = sum(_told(frame, handle) is not None for frame in frames if frame.label == RECORD)
            if finished:
                raise OtherWorkError(self.found_header, finished)
        if fresh or first is None or other:
            os.ftruncate(handle, HOLDER_BYTES)
            self._append(HEADER, header, memoryview(b""))
            sync_directory(self._file.path.parent)
            return
        self._end = first.end
        for frame in frames:
            told = _told(frame, handle) if frame.label == RECORD else None
            if told is not None:
                self._note(told[0], frame)
            self._end = frame.end
        os.ftruncate(handle, self._end)

    def _note(self, key: Key, frame: Frame) -> None:
        self._frames.append(frame)
        self._latest[key] = len(self._frames) - 1

    def _append(self, label: bytes, told: Mapping[str, Any], body: memoryview) -> Frame:
        """Write a frame at the end, and have it on the disk; or leave the file as it was."""
        file, head = self._file, json.dumps(told).encode()
        frame = Frame.of(label, self._end, head, body)
        try:
            write_at(file.handle, frame.opening() + head, frame.offset, file.path)
            write_at(file.handle, body, frame.end - len(body), file.path)
            try:
                os.fsync(file.handle)
            except OSError as error:
                raise disk_error(file.path, error) from error
        except BaseException:
            with contextlib.suppress(OSError):  # what is left is cut off the next time
                os.ftruncate(file.handle, frame.offset)
            raise
        self._end = frame.end
        return frame

    def _identities(self) -> Iterable[tuple[int, pa.Table]]:
        return ((index, self._rows_of(index)) for index in self._latest.values())

    def _rows_of(self, index: int) -> pa.Table:
        body = self._frames[index].body(self._file.handle)
        try:
            return unpacked(body or b"", self._table)
        except UnusableRowsError as error:
            raise InputError(
                f"what was kept is damaged: {error}",
                where=str(self._file.path),
                remedy="Remove this file, and run the same command again",
            ) from error


def _header(frame: Frame, handle: int) -> Mapping[str, Any] | None:
    try:
        header = json.loads(frame.head(handle) or b"")
    except (ValueError, RecursionError):
        return None
    return header if isinstance(header, dict) else None


def _matter(header: Mapping[str, Any]) -> str:
    """The part of a header that must be the same, as text that is the same for the same JSON."""
    return canonical_json([header.get("table"), header.get("match")])


def _told(frame: Frame, handle: int) -> tuple[Key, Entry] | None:
    """Which unit a record is about, and what it says of it; None if it says nothing that can be understood."""
    try:
        told = json.loads(frame.head(handle) or b"")
        fingerprint, content, facts = told["entry"]
        return key_of(told["key"]), entry_of(fingerprint, content, facts)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
