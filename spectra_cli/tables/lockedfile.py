"""A file that one process at a time has open, and that says which."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import struct
import zlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from spectra_cli.atomicfile import remedy_of
from spectra_cli.errors import InputError, SpectraError

SIGNATURE = b"spectraj"
"""The first bytes of the file: it is known by them, and never rewritten."""

HOLDER_BYTES = 4096
"""Size of the beginning of the file, signature included, where its holder says who it is."""

LONGEST_COMMAND = 300
MOST_TRIES = 100

_LENGTH_AND_CRC = struct.Struct("<II")
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}
"""What file systems without locks say, such as Lustre mounted without them."""


class TableInUseError(SpectraError):
    """Another process is making the table."""

    status = "in_use"


class LockedFile:
    """A file that is open for reading and writing, and locked until it is closed or its process ends.

    The lock is of the open file: a process that is forked, and not started anew, has it too for as long as it lives.

    Args:
        path: of the file, which is made unless it is there. Neither a link nor anything else but a file is opened.
        table: that it belongs to, for messages.
        command: of the holder, for others.

    Attributes:
        path: as given.
        handle: of the open file.
        locked: whether there is a lock; some file systems have none.

    Raises:
        TableInUseError: if another process holds it.
        InputError: if it cannot be opened, or is not such a file.
    """

    def __init__(self, path: Path, table: str, command: str) -> None:
        self.path = path
        self.locked = True
        for _ in range(MOST_TRIES):
            self.handle = _opened(path)
            try:
                self._lock(table)
                if self.is_in_place():
                    self._announce(command)
                    return
            except BaseException:
                self.close()
                raise
            self.close()  # whoever held it has just removed it
        raise InputError(
            "this file is removed as often as it is made", where=str(path), remedy="Run the same command again"
        )

    def is_in_place(self) -> bool:
        """Whether the path still leads to this file."""
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self.handle))

    def close(self) -> None:
        """Let others have it."""
        os.close(self.handle)

    def _lock(self, table: str) -> None:
        try:
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TableInUseError(
                f"the table {table} is being made by {_described(_holder(self.handle))}",
                where=str(self.path),
                remedy="Wait until it is done, end it, or give --out another name",
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise _unusable(self.path, error) from error
            self.locked = False

    def _announce(self, command: str) -> None:
        """Write who holds the file into it.

        Raises:
            InputError: if it is not of this kind, or the disk is full.
        """
        head = os.pread(self.handle, len(SIGNATURE), 0)
        if not SIGNATURE.startswith(head):
            raise InputError(
                "this file is none that spectra wrote, and stands where what is finished is kept",
                where=str(self.path),
                remedy="Move it away, or give --out another name",
            )
        holder = {
            "pid": os.getpid(),
            "host": os.uname().nodename,
            "since": datetime.now().astimezone().isoformat(timespec="seconds"),
            "command": command[:LONGEST_COMMAND],
        }
        told = json.dumps(holder).encode()
        content = SIGNATURE + _LENGTH_AND_CRC.pack(len(told), zlib.crc32(told)) + told
        try:
            write_at(self.handle, content.ljust(HOLDER_BYTES, b"\0"), 0, self.path)
        except InputError:
            if len(head) < len(SIGNATURE):
                self.path.unlink(missing_ok=True)  # nothing was in it
            raise


def write_at(handle: int, content: bytes | memoryview, offset: int, path: Path) -> None:
    """Write all of it.

    Raises:
        InputError: if that cannot be done.
    """
    rest = memoryview(content)
    try:
        while rest:
            count = os.pwrite(handle, rest, offset)
            rest, offset = rest[count:], offset + count
    except OSError as error:
        raise disk_error(path, error) from error


def disk_error(path: Path, error: OSError) -> InputError:
    """What to say where a disk is full, or fails."""
    return InputError(
        f"what is finished cannot be kept: {error.strerror}",
        where=str(path),
        remedy=f"{remedy_of(error, 'Make room, and run the same command again')}: it goes on from what was kept before",
    )


def _opened(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        raise _unusable(path, error) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _in_the_way("a pipe or a device", path)
    return handle


def _unusable(path: Path, error: OSError) -> InputError:
    if error.errno == errno.ELOOP:
        return _in_the_way("a link", path)
    if error.errno == errno.EISDIR:
        return _in_the_way("a directory", path)
    return InputError(
        f"the file that keeps what is finished cannot be opened: {error.strerror}",
        where=str(path),
        remedy=remedy_of(error, "Give --out a file in a directory that exists and may be written to"),
    )


def _in_the_way(what: str, path: Path) -> InputError:
    return InputError(
        f"{what} stands where what is finished is kept",
        where=str(path),
        remedy="Move it away, or give --out another name",
    )


def _holder(handle: int) -> Mapping[str, Any]:
    """What the holder says of itself; nothing where it has not written it yet, or is not to be believed."""
    head = os.pread(handle, HOLDER_BYTES, 0)
    start = len(SIGNATURE) + _LENGTH_AND_CRC.size
    if len(head) < start or not head.startswith(SIGNATURE):
        return {}
    length, checksum = _LENGTH_AND_CRC.unpack_from(head, len(SIGNATURE))
    told = head[start : start + length]
    try:
        holder = json.loads(told) if zlib.crc32(told) == checksum else {}
    except (ValueError, RecursionError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _described(holder: Mapping[str, Any]) -> str:
    if not {"pid", "host", "since", "command"} <= holder.keys():
        return "another process"
    pid, host, since, command = (_shown(holder[name]) for name in ("pid", "host", "since", "command"))
    return f"process {pid} on {host} since {since} ({command})"


def _shown(value: Any) -> str:
    """Untrusted text, made to fit a line."""
    return "".join(each if each.isprintable() else "?" for each in str(value)[:LONGEST_COMMAND])
