"""Matrices of a checkpoint brought into memory in groups of one shape, ahead of the work on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol, TypeVar

import torch

from spectra_cli.analyses.pinning import PinnedSlots
from spectra_cli.errors import CheckpointError
from spectra_cli.layers.matricize import LazyMatrix, MatrixSpec
from spectra_cli.spectrum.memory import resident_bytes

HASH_BYTES = 4 << 20

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


@dataclass(frozen=True, slots=True)
class LoadedMatrix:
    """A matrix ready for work, or the reason why it is not.

    Attributes:
        depth: place in the model.
        spec: which matrix.
        matrix: reads from memory if small, else from the checkpoint; None where `error` is set.
        digest: SHA-256 of dtype, shape and bytes as stored.
        error: what was wrong with the bytes.
    """

    depth: int
    spec: MatrixSpec
    matrix: LazyMatrix | None
    digest: str | None
    error: CheckpointError | None = None


class Reads(Protocol):
    """What reading a matrix takes."""

    def read(self, name: str, rows: slice = slice(None), cols: slice = slice(None)) -> torch.Tensor:
        """Read a block of a tensor."""
        ...


class OneAtATime:
    """A reader that several threads may ask; they wait for one another."""

    def __init__(self, reader: Reads) -> None:
        self._reader = reader
        self._lock = Lock()

    def read(self, name: str, rows: slice = slice(None), cols: slice = slice(None)) -> torch.Tensor:
        """Read a block; see :meth:`spectra_cli.checkpoints.reader.Reader.read`."""
        with self._lock:
            return self._reader.read(name, rows, cols)


OnRoom = Callable[[int], None]
"""Called with a number of bytes."""


class InMemory:
    """What of a checkpoint is in memory; once all of it has been read, there is room for another one.

    Args:
        groups: how many will be read.
        most_bytes: of a group; two of them may be in memory.
        held_bytes: largest size of a matrix that is held; others are read slab by slab.
        on_room: told the size of the room as it grows, which is that of a group at most; from any thread.
    """

    def __init__(self, groups: int, most_bytes: int, held_bytes: int, on_room: OnRoom) -> None:
        self._unread = groups
        self._most_bytes = most_bytes
        self._largest_held = held_bytes
        self._held_bytes = 0
        self._on_room = on_room
        self._lock = Lock()
        if not groups:
            on_room(self._most_bytes)

    def now_holding(self, group: Sequence[LoadedMatrix]) -> None:
        """A group has been read."""
        self._changed(self.size_of(group), 1)

    def lets_go_of(self, count: int) -> None:
        """Note that `count` bytes are free again."""
        self._changed(-count, 0)

    def size_of(self, group: Sequence[LoadedMatrix]) -> int:
        """Bytes of a group that are in memory."""
        return sum(one.spec.nbytes for one in group if self.holds(one.spec))

    def holds(self, spec: MatrixSpec) -> bool:
        """Whether a matrix is held in memory."""
        return spec.nbytes <= self._largest_held

    def _changed(self, more_bytes: int, read: int) -> None:
        with self._lock:
            self._held_bytes += more_bytes
            self._unread -= read
            room = min(self._most_bytes, 2 * self._most_bytes - self._held_bytes)
            if self._unread == 0 and room > 0:
                self._on_room(room)


def load(
    reader: Reads,
    group: Sequence[tuple[int, MatrixSpec]],
    device: torch.device,
    budget_bytes: int,
    slots: PinnedSlots | None = None,
) -> list[LoadedMatrix]:
    """Read the matrices of a group, or prepare their reading, and hash their bytes.

    Args:
        reader: of the checkpoint.
        group: matrices by depth.
        device: where their blocks will be.
        budget_bytes: for everything, which decides what is held in memory.
        slots: page-locked memory for what is held; None for none.
    """
    if slots is not None:
        slots.next_group()
    return [_load(reader, depth, spec, device, resident_bytes(budget_bytes), slots) for depth, spec in group]


def _load(  # noqa: PLR0917 - what load() has, for one matrix
    reader: Reads, depth: int, spec: MatrixSpec, device: torch.device, largest_held: int, slots: PinnedSlots | None
) -> LoadedMatrix:
    name = spec.tensor.name

    def from_checkpoint(rows: slice, cols: slice) -> torch.Tensor:
        return reader.read(name, rows, cols)

    try:
        if spec.nbytes > largest_held:
            return LoadedMatrix(depth, spec, LazyMatrix(spec, from_checkpoint, device), _hash_in_slabs(reader, spec))
        experts = experts_of(spec)
        stored = reader.read(name, experts)
        digest = _hasher(spec)
        digest.update(_bytes_of(stored))
    except CheckpointError as error:
        return LoadedMatrix(depth, spec, None, None, error)
    pinned = None if slots is None else slots.pinned(stored)
    if pinned is not None:
        stored = pinned
    flat = stored.reshape(stored.shape[0], -1) if stored.ndim else stored.reshape(1, 1)
    first = experts.start or 0

    def from_memory(rows: slice, cols: slice) -> torch.Tensor:
        if spec.expert is not None:
            rows = slice(rows.start - first, rows.stop - first)
        return flat[rows, cols]

    return LoadedMatrix(depth, spec, LazyMatrix(spec, from_memory, device, pinned is not None), digest.hexdigest())


def experts_of(spec: MatrixSpec) -> slice:
    """What is read along the first axis of its tensor to have a matrix in memory."""
    return slice(None) if spec.expert is None else slice(spec.expert, spec.expert + 1)


def _hasher(spec: MatrixSpec) -> hashlib._Hash:
    shape = spec.tensor.shape if spec.expert is None else spec.tensor.shape[1:]
    return hashlib.sha256(f"{spec.tensor.dtype}{list(shape)}".encode())


def _bytes_of(stored: torch.Tensor) -> memoryview:
    flat: Any = stored.contiguous().reshape(-1).view(torch.uint8).numpy()  # numpy types buffers from 3.12 on only
    return memoryview(flat)


def _hash_in_slabs(reader: Reads, spec: MatrixSpec) -> str:
    digest = _hasher(spec)
    shape = spec.tensor.shape
    if spec.expert is None:
        rows = max(1, HASH_BYTES * shape[0] // spec.nbytes)
        for start in range(0, shape[0], rows):
            digest.update(_bytes_of(reader.read(spec.tensor.name, slice(start, min(start + rows, shape[0])))))
        return digest.hexdigest()
    one = slice(spec.expert, spec.expert + 1)
    numbers = spec.rows * spec.cols
    step = max(1, HASH_BYTES * numbers // spec.nbytes)
    for start in range(0, numbers, step):
        digest.update(_bytes_of(reader.read(spec.tensor.name, one, slice(start, min(start + step, numbers)))))
    return digest.hexdigest()


def ahead(items: Iterable[Item], work: Callable[[Item], Loaded]) -> Iterator[Loaded]:
    """Do `work` on each item, one item ahead of who asks for the results, in another thread.

    Two results are alive at a time, as long as who asks lets go of one before asking for the next.
    """
    remaining = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="spectra-read") as pool:
        try:
            for item in remaining:
                pending = pool.submit(work, item)
                break
            else:
                return
            for item in remaining:
                done, pending = pending.result(), pool.submit(work, item)
                yield done
                del done
            yield pending.result()
        finally:
            pool.shutdown(cancel_futures=True)
