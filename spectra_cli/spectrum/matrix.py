"""What the factorization asks of a matrix: its shape, and blocks of it on the device where the work is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Matrix(Protocol):
    """A matrix that may be larger than memory.

    Attributes:
        shape: (rows, cols).
        dtype: as stored; blocks come in it.
        device: where blocks arrive and where they are worked on.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Data type as stored."""
        ...

    @property
    def device(self) -> torch.device:
        """Device where the work is done."""
        ...

    def block(self, rows: slice = slice(None), cols: slice = slice(None)) -> Tensor:
        """Return a contiguous range of rows and columns, on `device`, in `dtype`; it is not written to."""
        ...

    def on(self, device: torch.device) -> Matrix:
        """Return the same matrix with its blocks on another device."""
        ...


@dataclass(frozen=True, slots=True)
class TensorMatrix:
    """A :class:`Matrix` that is a tensor in memory.

    Args:
        tensor: (rows, cols), any real floating-point dtype, any device.

    Raises:
        ValueError: if the tensor is not a real floating-point matrix.
    """

    tensor: Tensor

    def __post_init__(self) -> None:
        if self.tensor.ndim != 2 or not self.tensor.dtype.is_floating_point:
            raise ValueError(f"not a real matrix: shape {tuple(self.tensor.shape)}, {self.tensor.dtype}")

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        return (self.tensor.shape[0], self.tensor.shape[1])

    @property
    def dtype(self) -> torch.dtype:
        """Data type as stored."""
        return self.tensor.dtype

    @property
    def device(self) -> torch.device:
        """Device that the tensor is on."""
        return self.tensor.device

    def block(self, rows: slice = slice(None), cols: slice = slice(None)) -> Tensor:
        """Return a view of a part."""
        return part(part(self.tensor, 0, rows), 1, cols)

    def on(self, device: torch.device) -> TensorMatrix:
        """Return the matrix on another device."""
        return TensorMatrix(self.tensor.to(device))


Ranges = tuple[tuple[int, int], ...]
"""Ranges of rows or columns, as (start, stop); none for all of them."""


@dataclass(frozen=True, slots=True)
class SubMatrix:
    """A :class:`Matrix` that is some of the rows and columns of another one, in their order.

    A head is a range of rows; the query of a fused projection whose heads are interleaved is a range per head. What is
    read of the other matrix is what a block needs: one range as it is, several joined to a copy.

    Args:
        matrix: the whole.
        rows: ascending and disjoint ranges, each (start, stop) and not empty; none for all rows.
        cols: likewise.

    Raises:
        ValueError: if ranges are empty, overlap, descend or leave the matrix.
    """

    matrix: Matrix
    rows: Ranges = ()
    cols: Ranges = ()

    def __post_init__(self) -> None:
        for axis, ranges, size in zip(("rows", "cols"), (self.rows, self.cols), self.matrix.shape, strict=True):
            end = 0
            for start, stop in ranges:
                if not end <= start < stop <= size:
                    raise ValueError(f"{axis} {ranges} are not ascending, disjoint ranges within {size}")
                end = stop

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        rows, cols = self.matrix.shape
        return (_count(self.rows, rows), _count(self.cols, cols))

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the whole."""
        return self.matrix.dtype

    @property
    def device(self) -> torch.device:
        """Device of the whole."""
        return self.matrix.device

    def block(self, rows: slice = slice(None), cols: slice = slice(None)) -> Tensor:
        """Read a contiguous range of the rows and columns chosen."""
        row_pieces = _pieces(self.rows, self.matrix.shape[0], rows)
        col_pieces = _pieces(self.cols, self.matrix.shape[1], cols)
        return _joined([_joined([self.matrix.block(r, c) for c in col_pieces], 1) for r in row_pieces], 0)

    def on(self, device: torch.device) -> SubMatrix:
        """Return the same part of the whole on another device."""
        return SubMatrix(self.matrix.on(device), self.rows, self.cols)


def _count(ranges: Ranges, size: int) -> int:
    return sum(stop - start for start, stop in ranges) if ranges else size


def _pieces(ranges: Ranges, size: int, positions: slice) -> list[slice]:
    """Pieces of the whole that hold a contiguous range of the positions chosen; at least one, which may be empty."""
    first, last, _ = positions.indices(_count(ranges, size))
    pieces: list[slice] = []
    before = 0  # positions chosen by earlier ranges
    for start, stop in ranges or ((0, size),):
        low, high = max(start, start + first - before), min(stop, start + last - before)
        if low < high and pieces and pieces[-1].stop == low:
            pieces[-1] = slice(pieces[-1].start, high)
        elif low < high:
            pieces.append(slice(low, high))
        before += stop - start
    return pieces or [slice(0, 0)]


def _joined(blocks: list[Tensor], axis: int) -> Tensor:
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, axis)


def part(tensor: Tensor, axis: int, positions: slice) -> Tensor:
    """A contiguous range along one axis, as a view. Indexing would not do: FakeTensorMode cannot follow it."""
    start, stop, _ = positions.indices(tensor.shape[axis])
    return tensor.narrow(axis, start, max(0, stop - start))


STACKED_WEIGHTS = 1 << 20
"""Limit for the weights of a matrix that is in a batch with others on a CPU."""


class MatrixBatch:
    """Matrices of one shape, dtype and device, seen along their long axis.

    Every product below sums over the long axis, of length L = max(rows, cols), in slabs; what it leaves is R x R with
    R = min(rows, cols). Wide matrices are read as the transposes they are, without a copy.

    Args:
        matrices: at least one; all of one shape, dtype and device.

    Raises:
        ValueError: if they differ.
    """

    def __init__(self, matrices: Sequence[Matrix]) -> None:
        first = matrices[0]
        self.matrices = tuple(matrices)
        self.rows, self.cols = first.shape
        self.dtype = first.dtype
        self.device = first.device
        for matrix in matrices[1:]:
            if (matrix.shape, matrix.dtype, matrix.device) != (first.shape, first.dtype, first.device):
                raise ValueError("a batch holds matrices of one shape, dtype and device")

    def __len__(self) -> int:
        return len(self.matrices)

    @property
    def itemsize(self) -> int:
        """Bytes per weight as stored."""
        return self.dtype.itemsize

    @property
    def tall(self) -> bool:
        """Whether the long axis is the rows."""
        return self.rows >= self.cols

    @property
    def long_side(self) -> int:
        """L = max(rows, cols)."""
        return max(self.rows, self.cols)

    @property
    def short_side(self) -> int:
        """R = min(rows, cols)."""
        return min(self.rows, self.cols)

    def slab(self, start: int, stop: int) -> Tensor:
        """Return positions [start, stop) of the long axis: (batch, length, R) if tall, else (batch, R, length)."""
        positions = slice(start, stop)
        blocks = [
            matrix.block(rows=positions) if self.tall else matrix.block(cols=positions) for matrix in self.matrices
        ]
        if len(blocks) > 1:
            return torch.stack(blocks)
        (block,) = blocks
        if block.device.type == "cpu" and self.rows * self.cols <= STACKED_WEIGHTS:
            block = block.contiguous()  # laid out as in a stack: the last bits of products depend on it
        return block.unsqueeze(0)

    def slabs(self, length: int, *dtypes: torch.dtype) -> SlabIterator:
        """Iterate over the long axis in steps of `length`, each slab in every one of `dtypes`."""
        return SlabIterator(self, length, dtypes)

    def split(self) -> list[MatrixBatch]:
        """Return a batch for each half of the matrices (one or two of them)."""
        half = (len(self) + 1) // 2
        return [MatrixBatch(some) for some in (self.matrices[:half], self.matrices[half:]) if some]

    def select(self, indices: Sequence[int]) -> MatrixBatch:
        """Return the batch of some of the matrices."""
        return MatrixBatch([self.matrices[index] for index in indices])

    def on(self, device: torch.device) -> MatrixBatch:
        """Return the same batch with its blocks on another device."""
        return MatrixBatch([matrix.on(device) for matrix in self.matrices])

    def held(self) -> MatrixBatch:
        """Return the same batch in float64 memory: read and cast once, where a single slab is gone over again."""
        return _HeldBatch(self.slab(0, self.long_side).to(torch.float64))


class _HeldBatch(MatrixBatch):
    """A stack (batch, rows, cols) of matrices, of which slabs are views."""

    def __init__(self, stack: Tensor) -> None:
        super().__init__([TensorMatrix(matrix) for matrix in stack.unbind()])
        self._stack = stack

    def slab(self, start: int, stop: int) -> Tensor:
        return part(self._stack, 1 if self.tall else 2, slice(start, stop))


class SlabIterator:
    """Slabs of a batch as (batch, length, R) views, cast into buffers that are reused from slab to slab."""

    def __init__(self, batch: MatrixBatch, length: int, dtypes: Sequence[torch.dtype]) -> None:
        self._batch = batch
        self._length = length
        self._dtypes = dtypes
        self._buffers: dict[torch.dtype, Tensor] = {}
        self._start = 0

    def __iter__(self) -> SlabIterator:
        return self

    def __next__(self) -> tuple[Tensor, ...]:
        batch = self._batch
        if self._start >= batch.long_side:
            raise StopIteration
        stop = min(self._start + self._length, batch.long_side)
        stored = batch.slab(self._start, stop)
        self._start = stop
        return tuple(cast if batch.tall else cast.mT for cast in (self._cast(stored, dtype) for dtype in self._dtypes))

    def _cast(self, stored: Tensor, dtype: torch.dtype) -> Tensor:
        if stored.dtype == dtype:
            return stored
        if self._length >= self._batch.long_side:  # a single slab: there is nothing to reuse
            return stored.to(dtype)
        if dtype not in self._buffers:  # the first slab is the longest
            self._buffers[dtype] = torch.empty(stored.shape, dtype=dtype, device=stored.device)
        buffer = self._buffers[dtype]
        axis = 1 if self._batch.tall else 2
        if stored.shape[axis] != buffer.shape[axis]:
            buffer = buffer.narrow(axis, 0, stored.shape[axis])
        torch.ops.aten.copy_(buffer, stored)  # what Tensor.copy_ does; FakeTensorMode cannot follow the method
        return buffer
