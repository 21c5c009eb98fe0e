"""A tensor stored as blocks in several places; a request reads only the blocks that it touches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spectra_cli.checkpoints.filespan import Span, block_bounds, dtype_named
from spectra_cli.errors import CorruptCheckpointError, HostileCheckpointError, IncompleteCheckpointError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Chunk:
    """A block of a tensor.

    Attributes:
        offsets: index of its first element along each axis.
        sizes: its own shape.
        locate: opens the stored block; called when the block is first needed.
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    locate: Callable[[], Span]

    def range(self, axis: int) -> tuple[int, int]:
        """First index along an axis and the one after the last; an axis that is absent has one."""
        if axis >= len(self.offsets):
            return 0, 1
        return self.offsets[axis], self.offsets[axis] + self.sizes[axis]


@dataclass(frozen=True, slots=True)
class ChunkedSpan:
    """A tensor assembled from chunks that cover it exactly; see :func:`check_cover`."""

    shape: tuple[int, ...]
    dtype: str
    chunks: Sequence[Chunk]

    def read(self, rows: slice = slice(None), cols: slice = slice(None)) -> torch.Tensor:
        """Read a block of the tensor seen as a matrix ``(shape[0], prod(shape[1:]))``.

        See :meth:`spectra_cli.checkpoints.filespan.FileSpan.read`.
        """
        import torch  # noqa: PLC0415 - headers are read without torch

        bounds = block_bounds(self.shape, rows, cols)
        (first_row, last_row), (first_slab, last_slab) = bounds.rows, bounds.slabs
        shape = (last_row - first_row, last_slab - first_slab, *self.shape[2:])
        block = torch.empty(shape, dtype=dtype_named(self.dtype))
        for chunk in self.chunks if block.numel() else ():
            top, bottom = _overlap(chunk.range(0), bounds.rows)
            left, right = _overlap(chunk.range(1), bounds.slabs)
            if top >= bottom or left >= right:
                continue
            inner = math.prod(chunk.sizes[2:])
            origin_row, origin_slab = chunk.range(0)[0], chunk.range(1)[0]
            part = chunk.locate().read(
                slice(top - origin_row, bottom - origin_row),
                slice((left - origin_slab) * inner, (right - origin_slab) * inner),
            )
            place = [slice(top - first_row, bottom - first_row), slice(left - first_slab, right - first_slab)]
            place += [slice(*chunk.range(axis)) for axis in range(2, len(self.shape))]
            block[tuple(place)] = part.reshape(bottom - top, right - left, *chunk.sizes[2:])
        return bounds.trim(block, self.shape)


MOST_IRREGULAR_CHUNKS = 1 << 10
"""Limit for a tensor whose chunks form no grid, as they must be compared with one another."""


def check_cover(shape: tuple[int, ...], chunks: Sequence[Chunk]) -> None:
    """Require that chunks cover a tensor without gap or overlap. Chunks are not empty.

    Raises:
        IncompleteCheckpointError: if elements are in no chunk.
        CorruptCheckpointError: if elements are in two, or a chunk leaves the tensor.
        HostileCheckpointError: if they are many and no grid.
    """
    for chunk in chunks:
        inside = len(chunk.offsets) == len(chunk.sizes) == len(shape) and all(
            offset + size <= whole for offset, size, whole in zip(chunk.offsets, chunk.sizes, shape, strict=True)
        )
        if not inside:
            raise CorruptCheckpointError(
                f"a chunk {list(chunk.sizes)} at {list(chunk.offsets)} leaves its tensor {list(shape)}",
                remedy="Save the checkpoint again",
            )
    if _is_grid(shape, chunks):
        return
    if len(chunks) > MOST_IRREGULAR_CHUNKS:
        raise HostileCheckpointError(
            f"its {len(chunks)} chunks are no grid",
            remedy="Run torch.distributed.checkpoint.format_utils.dcp_to_torch_save",
        )
    axis = max(range(len(shape)), key=lambda a: len({chunk.offsets[a] for chunk in chunks}), default=0)
    active: list[Chunk] = []
    for chunk in sorted(chunks, key=lambda chunk: chunk.range(axis)):
        active = [other for other in active if other.range(axis)[1] > chunk.range(axis)[0]]
        if any(_intersect(chunk, other) for other in active):
            raise CorruptCheckpointError(
                f"two chunks hold the same part of a tensor {list(shape)}", remedy="Save the checkpoint again"
            )
        active.append(chunk)
    covered = sum(math.prod(chunk.sizes) for chunk in chunks)
    if covered != math.prod(shape):
        raise IncompleteCheckpointError(
            f"its chunks hold {covered} of {math.prod(shape)} elements",
            remedy="Restore the metadata of all ranks, or save the checkpoint again",
        )


def _is_grid(shape: tuple[int, ...], chunks: Sequence[Chunk]) -> bool:
    """Whether the chunks are all the cells of a grid: the ranges along every axis follow one another to its end."""
    ranges = [sorted({chunk.range(axis) for chunk in chunks}) for axis in range(len(shape))]
    for whole, along in zip(shape, ranges, strict=True):
        starts, ends = [start for start, _ in along], [end for _, end in along]
        if [*starts, whole] != [0, *ends]:
            return False
    cells = {(chunk.offsets, chunk.sizes) for chunk in chunks}
    return len(cells) == len(chunks) == math.prod(map(len, ranges))


def _intersect(one: Chunk, other: Chunk) -> bool:
    return all(
        max(one.range(axis)[0], other.range(axis)[0]) < min(one.range(axis)[1], other.range(axis)[1])
        for axis in range(max(len(one.offsets), 1))
    )


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return max(one[0], other[0]), min(one[1], other[1])
