"""Parts of a tensor read straight from its place in a file, without mapping or loading the file."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from spectra_cli.errors import CorruptCheckpointError
from spectra_cli.tensors import ITEMSIZE

if TYPE_CHECKING:
    import torch

LARGEST_READ_BYTES = 1 << 30  # one pread transfers at most about 2 GiB on Linux


@dataclass(frozen=True, slots=True)
class FileSpan:
    """A densely stored, row-major tensor at a byte offset of an open file.

    Reading goes through ``pread`` and not through a memory map: a file cut short while it is read is then an error and
    not a crash of the interpreter, and the memory in use is the buffers that were asked for.

    Attributes:
        file: open for reading in binary mode; its position is not used.
        offset: first byte of the tensor.
        shape: sizes, outermost first; a scalar is ``()``.
        dtype: a key of :data:`spectra_cli.tensors.ITEMSIZE`.
    """

    file: BinaryIO
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

        height = self.shape[0] if self.shape else 1
        width = math.prod(self.shape[1:])
        first_row, last_row = _bounds(rows, height)
        first_col, last_col = _bounds(cols, width)
        itemsize = ITEMSIZE[self.dtype]
        torch_dtype: torch.dtype = getattr(torch, self.dtype)
        if (first_col, last_col) == (0, width):
            block = torch.empty((last_row - first_row, *self.shape[1:]), dtype=torch_dtype)
            self._fill(block, [self.offset + first_row * width * itemsize])
            return block if self.shape else block.reshape(())
        block = torch.empty((last_row - first_row, last_col - first_col), dtype=torch_dtype)
        self._fill(block, [self.offset + (row * width + first_col) * itemsize for row in range(first_row, last_row)])
        return block

    def _fill(self, block: torch.Tensor, offsets: Sequence[int]) -> None:
        """Read equal parts of `block` from the given offsets."""
        import torch  # noqa: PLC0415 - as above

        if block.numel() == 0:
            return
        buffer = memoryview(block.reshape(-1).view(torch.uint8).numpy())
        part_bytes = len(buffer) // len(offsets)
        for index, offset in enumerate(offsets):
            read_exactly(self.file, offset, buffer[index * part_bytes : (index + 1) * part_bytes])


def read_exactly(file: BinaryIO, offset: int, buffer: memoryview) -> None:
    """Fill `buffer` from `offset` of `file`.

    Raises:
        CorruptCheckpointError: if the file ends first.
    """
    done = 0
    while done < len(buffer):
        count = os.preadv(file.fileno(), [buffer[done : done + LARGEST_READ_BYTES]], offset + done)
        if count == 0:
            raise CorruptCheckpointError(
                f"the file ends at byte {offset + done}, before the tensor does",
                where=Path(file.name).name,
                remedy="Copy or save the checkpoint again",
            )
        done += count


def _bounds(part: slice, size: int) -> tuple[int, int]:
    start, stop, step = part.indices(size)
    if step != 1:
        raise ValueError(f"only contiguous ranges can be read, not step {step}")
    return start, max(start, stop)
