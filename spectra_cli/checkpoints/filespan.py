"""Parts of a tensor read straight from its place in a file, without mapping or loading the file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from spectra_cli.checkpoints.damage import corrupt
from spectra_cli.errors import CheckpointError, UnsupportedFormatError
from spectra_cli.storage.files import StoredFile
from spectra_cli.tensors import ITEMSIZE

if TYPE_CHECKING:
    import torch

ONE_READ_BYTES = 1 << 18  # up to here one read with gaps is cheaper than several without
LARGEST_BUFFER_BYTES = 1 << 25  # a strided block is gathered through buffers of at most this size


class Span(Protocol):
    """Where the bytes of one tensor are and how to read a block of them."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes, outermost first."""
        ...

    @property
    def dtype(self) -> str:
        """A key of :data:`spectra_cli.tensors.ITEMSIZE`."""
        ...

    def read(self, rows: slice = slice(None), cols: slice = slice(None)) -> torch.Tensor:
        """Read a block; see :meth:`FileSpan.read`."""
        ...


@dataclass(frozen=True, slots=True)
class FileSpan:
    """A densely stored, row-major tensor at a byte offset of an open file.

    Reading goes through ``pread`` and not through a memory map: a file cut short while it is read is then an error and
    not a crash of the interpreter, and the memory in use is the buffers that were asked for. Of a remote file a whole
    tensor comes straight from the storage; who reads blocks mostly reads them again, so that they are kept here.

    Attributes:
        file: that holds it.
        offset: first byte of the tensor.
        shape: sizes, outermost first; a scalar is ``()``.
        dtype: a key of :data:`spectra_cli.tensors.ITEMSIZE`.
    """

    file: StoredFile
    offset: int
    shape: tuple[int, ...]
    dtype: str

    def read(self, rows: slice = slice(None), cols: slice = slice(None)) -> torch.Tensor:
        """Read a block of the tensor seen as a matrix ``(shape[0], prod(shape[1:]))``.

        Args:
            rows: contiguous range of the first axis.
            cols: contiguous range of the flattened remaining axes.

        Returns:
            A fresh CPU tensor in the stored dtype: (rows, *shape[1:]) where all columns are read, else (rows, cols).

        Raises:
            CorruptCheckpointError: if the file ends before the block does.
        """
        import torch  # noqa: PLC0415 - headers are read without torch

        bounds = block_bounds(self.shape, rows, cols)
        (first_row, last_row), (first_col, last_col) = bounds.rows, bounds.cols
        width = math.prod(self.shape[1:])
        itemsize = ITEMSIZE[self.dtype]
        torch_dtype = dtype_named(self.dtype)
        if (first_col, last_col) == (0, width):
            block = torch.empty((last_row - first_row, *self.shape[1:]), dtype=torch_dtype)
            if block.numel() < math.prod(self.shape):
                self.file.keep(self.offset + first_row * width * itemsize, block.numel() * itemsize)
            self._fill(block, [self.offset + first_row * width * itemsize])
            return block if self.shape else block.reshape(())
        block = torch.empty((last_row - first_row, last_col - first_col), dtype=torch_dtype)
        if block.numel():  # one piece of the file, and not a request for each row
            reach = (last_row - first_row - 1) * width + last_col - first_col
            self.file.keep(self.offset + (first_row * width + first_col) * itemsize, reach * itemsize)
        self._fill(block, [self.offset + (row * width + first_col) * itemsize for row in range(first_row, last_row)])
        return block

    def _fill(self, block: torch.Tensor, offsets: Sequence[int]) -> None:
        """Read equal parts of `block` from the given offsets."""
        import torch  # noqa: PLC0415 - as above

        if block.numel() == 0:
            return
        buffer = block.reshape(-1).view(torch.uint8).numpy().data
        part_bytes = len(buffer) // len(offsets)
        for index, offset in enumerate(offsets):
            read_exactly(self.file, offset, buffer[index * part_bytes : (index + 1) * part_bytes])


@dataclass(frozen=True, slots=True)
class StridedSpan:
    """A view into a stored tensor: a transposed or sliced weight, a convolution in channels-last order.

    Nothing outside the reach of the requested block is read, and never more than :data:`LARGEST_BUFFER_BYTES` at once,
    so the memory in use stays at the block itself plus one buffer.

    Attributes:
        file: that holds it.
        offset: byte of the view's first element.
        shape: sizes, outermost first, at least one axis.
        strides: elements from one index to the next along each axis, none negative.
        dtype: a key of :data:`spectra_cli.tensors.ITEMSIZE`.
    """

    file: StoredFile
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str

    def read(self, rows: slice = slice(None), cols: slice = slice(None)) -> torch.Tensor:
        """Read a block of the tensor seen as a matrix ``(shape[0], prod(shape[1:]))``; see :meth:`FileSpan.read`."""
        import torch  # noqa: PLC0415 - headers are read without torch

        bounds = block_bounds(self.shape, rows, cols)
        (first_row, last_row), (first_slab, last_slab) = bounds.rows, bounds.slabs
        shape = (last_row - first_row, last_slab - first_slab, *self.shape[2:])
        outer, inner = self.strides[0], self.strides[1] if len(self.shape) > 1 else 0
        box = torch.empty(shape, dtype=dtype_named(self.dtype))
        self._gather(box, (outer, inner, *self.strides[2:]), first_row * outer + first_slab * inner)
        return bounds.trim(box, self.shape)

    def _gather(self, block: torch.Tensor, strides: Sequence[int], start: int) -> None:
        """Fill `block` from the elements at `start`, `strides` apart, halving it until one read serves each part."""
        import torch  # noqa: PLC0415 - as above

        if block.numel() == 0:
            return
        axes = sorted(range(block.ndim), key=lambda axis: (-strides[axis], axis))
        block, strides = block.permute(axes), [strides[axis] for axis in axes]
        itemsize = ITEMSIZE[self.dtype]
        reach = 1 + sum((size - 1) * stride for size, stride in zip(block.shape, strides, strict=True))
        reach_bytes = reach * itemsize
        if reach_bytes <= ONE_READ_BYTES or (reach <= 2 * block.numel() and reach_bytes <= LARGEST_BUFFER_BYTES):
            buffer = torch.empty(reach, dtype=block.dtype)
            read_exactly(self.file, self.offset + start * itemsize, buffer.view(torch.uint8).numpy().data)
            block.copy_(buffer.as_strided(block.shape, strides))
            return
        outer = next(axis for axis, size in enumerate(block.shape) if size > 1)
        half = block.shape[outer] // 2
        self._gather(block.narrow(outer, 0, half), strides, start)
        self._gather(block.narrow(outer, half, block.shape[outer] - half), strides, start + half * strides[outer])


def dtype_named(name: str) -> torch.dtype:
    """The dtype that torch knows by this name.

    Raises:
        UnsupportedFormatError: if the installed torch is too old to know it.
    """
    import torch  # noqa: PLC0415 - headers are read without torch

    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise UnsupportedFormatError(f"torch {torch.__version__} has no dtype {name!r}", remedy="Install a newer torch")
    return dtype


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides in elements of a dense, row-major tensor."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def read_exactly(file: StoredFile, offset: int, buffer: memoryview) -> None:
    """Fill `buffer` from `offset` of `file`.

    Raises:
        CorruptCheckpointError: if the file ends first.
        CheckpointError: if the system or the storage cannot read the file.
    """
    done = 0
    while done < len(buffer):
        try:
            count = file.read_at(offset + done, buffer[done:])
        except OSError as error:
            raise CheckpointError(
                f"reading failed at byte {offset + done} ({error.strerror})",
                where=file.name,
                remedy="Check the disk or the network file system, then run again",
            ) from error
        if count == 0:
            raise corrupt(f"the file ends at byte {offset + done}, before the tensor does", file.name)
        done += count


@dataclass(frozen=True, slots=True)
class BlockBounds:
    """A block of the matrix ``(shape[0], prod(shape[1:]))`` and the smallest box of the tensor around it.

    Attributes:
        rows: first row and the one after the last.
        cols: the same for columns of the matrix.
        slabs: first index along the tensor's second axis, and the one after the last, that the columns touch.
    """

    rows: tuple[int, int]
    cols: tuple[int, int]
    slabs: tuple[int, int]

    def trim(self, box: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        """The block itself from the box (rows, slabs, *shape[2:]) around it, in the shape that ``read`` promises."""
        if not shape:
            return box.reshape(())
        height, width = self.rows[1] - self.rows[0], math.prod(shape[1:])
        if self.cols == (0, width):
            return box.reshape(height, *shape[1:])
        before = self.slabs[0] * math.prod(shape[2:])
        box = box.reshape(height, math.prod(box.shape[1:]))
        return box[:, self.cols[0] - before : self.cols[1] - before].contiguous()


def block_bounds(shape: tuple[int, ...], rows: slice, cols: slice) -> BlockBounds:
    """Resolve contiguous ranges of rows and columns of a tensor seen as a matrix.

    Raises:
        ValueError: if a range has a step.
    """
    width = math.prod(shape[1:])
    inner = max(math.prod(shape[2:]), 1)
    first, last = _bounds(cols, width)
    slabs = (first // inner, -(-last // inner)) if last > first else (0, 0)
    if (first, last) == (0, width):  # all of them, also where there are none
        slabs = (0, shape[1] if len(shape) > 1 else 1)
    return BlockBounds(_bounds(rows, shape[0] if shape else 1), (first, last), slabs)


def _bounds(part: slice, size: int) -> tuple[int, int]:
    start, stop, step = part.indices(size)
    if step != 1:
        raise ValueError(f"only contiguous ranges can be read, not step {step}")
    return start, max(start, stop)
