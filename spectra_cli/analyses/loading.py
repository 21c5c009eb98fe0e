"""Matrices of a checkpoint brought into memory in groups of one shape, ahead of the work on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol, TypeVar

import torch

from spectra_cli.checkpoints.reader import Reader
from spectra_cli.errors import CheckpointError
from spectra_cli.layers.matricize import LazyMatrix, MatrixSpec
from spectra_cli.spectrum.memory import resident_bytes

BATCH_BYTES = {"cpu": 8 << 20, "cuda": 256 << 20}
"""Of float64 weights and Gram matrices in a batch: on a CPU batching saves calls, on a GPU it fills the device."""

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


class OneAtATime:
    """A reader that several threads may ask; they wait for one another."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._lock = Lock()

    def read(self, name: str, rows: slice = slice(None), cols: slice = slice(None)) -> torch.Tensor:
        """Read a block; see :meth:`spectra_cli.checkpoints.reader.Reader.read`."""
        with self._lock:
            return self._reader.read(name, rows, cols)


class Reads(Protocol):
    """What reading a matrix takes."""

    def read(self, name: str, rows: slice = slice(None), cols: slice = slice(None)) -> torch.Tensor:
        """Read a block of a tensor."""
        ...


def groups_of_equal_shape(
    specs: Mapping[int, MatrixSpec], alike: Callable[[int], Hashable], device: torch.device, budget_bytes: int
) -> list[list[tuple[int, MatrixSpec]]]:
    """Put matrices of one shape and dtype together, as far as a batch of them is small.

    Args:
        specs: matrices by depth.
        alike: what else must be equal for two depths to come together.
        device: where they will be worked on.
        budget_bytes: of working memory; a batch takes a fraction of it.

    Returns:
        Groups in the order of their first matrix.
    """
    groups: list[list[tuple[int, MatrixSpec]]] = []
    growing: dict[Hashable, list[tuple[int, MatrixSpec]]] = {}
    for depth, spec in specs.items():
        key = (spec.rows, spec.cols, spec.tensor.dtype, alike(depth))
        group = growing.get(key)
        if group is None or len(group) >= batch_size((spec.rows, spec.cols), device, budget_bytes):
            group = growing[key] = []
            groups.append(group)
        group.append((depth, spec))
    return groups


def batches(
    items: Sequence[Item], shape: tuple[int, int], device: torch.device, budget_bytes: int
) -> Iterator[Sequence[Item]]:
    """Cut what stands for matrices of one shape into batches that are small."""
    size = batch_size(shape, device, budget_bytes)
    for start in range(0, len(items), size):
        yield items[start : start + size]


def batch_size(shape: tuple[int, int], device: torch.device, budget_bytes: int) -> int:
    """How many matrices of a shape are worked on together, at least one."""
    limit = min(BATCH_BYTES.get(device.type, BATCH_BYTES["cpu"]), budget_bytes // 8)
    return max(1, limit // (8 * (shape[0] * shape[1] + 3 * min(shape) ** 2)))


def load(
    reader: Reads, group: Sequence[tuple[int, MatrixSpec]], device: torch.device, budget_bytes: int
) -> list[LoadedMatrix]:
    """Read the matrices of a group, or prepare their reading, and hash their bytes."""
    return [_load(reader, depth, spec, device, budget_bytes) for depth, spec in group]


def _load(reader: Reads, depth: int, spec: MatrixSpec, device: torch.device, budget_bytes: int) -> LoadedMatrix:
    name = spec.tensor.name

    def from_checkpoint(rows: slice, cols: slice) -> torch.Tensor:
        return reader.read(name, rows, cols)

    try:
        if spec.nbytes > resident_bytes(budget_bytes):
            return LoadedMatrix(depth, spec, LazyMatrix(spec, from_checkpoint, device), _hash_in_slabs(reader, spec))
        experts = slice(None) if spec.expert is None else slice(spec.expert, spec.expert + 1)
        stored = reader.read(name, experts)
        digest = _hasher(spec)
        digest.update(_bytes_of(stored))
    except CheckpointError as error:
        return LoadedMatrix(depth, spec, None, None, error)
    flat = stored.reshape(stored.shape[0], -1) if stored.ndim else stored.reshape(1, 1)
    first = experts.start or 0

    def from_memory(rows: slice, cols: slice) -> torch.Tensor:
        if spec.expert is not None:
            rows = slice(rows.start - first, rows.stop - first)
        return flat[rows, cols]

    return LoadedMatrix(depth, spec, LazyMatrix(spec, from_memory, device), digest.hexdigest())


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
