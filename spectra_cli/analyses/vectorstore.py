"""Leading singular vectors of one checkpoint, kept to compare others with."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectra_cli.analyses.factors import compact
from spectra_cli.analyses.visits import Visited
from spectra_cli.spectrum.subspaces import SCORED

KEPT_VALUES = SCORED + 1
"""Singular values that the gaps between the scored vectors take."""


@dataclass(frozen=True, slots=True)
class Leading:
    """The leading part of a factorization.

    Attributes:
        status: of the factorization.
        shape: (rows, cols) of the matrix.
        values: the first :data:`KEPT_VALUES` singular values.
        left: (rows, k) float32 on the CPU; None unless `status` is ``ok``.
        right: (cols, k) float32 on the CPU; None unless `status` is ``ok``.
    """

    status: str
    shape: tuple[int, int]
    values: NDArray[np.float64]
    left: Tensor | None = None
    right: Tensor | None = None


def leading_of(visited: Visited) -> Leading:
    """What is kept of a matrix; float32 rounds the entries of an agreement by less than 1e-6."""
    shape, factors = (visited.spec.rows, visited.spec.cols), visited.whole
    if factors is None or factors.spectrum is None or factors.status != "ok":
        return Leading(factors.status if factors else "missing", shape, np.empty(0))
    spectrum = factors.spectrum
    return Leading(
        "ok", shape, spectrum.singular_values[:KEPT_VALUES].copy(), compact(spectrum.left), compact(spectrum.right)
    )


class VectorStore:
    """Leading vectors by parameter: in memory as far as they may, the rest in a temporary file without a name.

    Args:
        memory_bytes: of vectors to keep in memory.
    """

    def __init__(self, memory_bytes: int) -> None:
        self._room = memory_bytes
        self._kept: dict[str, Leading] = {}
        self._offsets: dict[str, tuple[int, int]] = {}
        self._file: IO[bytes] | None = None

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, parameter: str) -> bool:
        return parameter in self._kept

    def parameters(self) -> list[str]:
        """All that are kept, in the order in which they came."""
        return list(self._kept)

    def put(self, parameter: str, leading: Leading) -> None:
        """Keep the vectors of a matrix.

        Raises:
            OSError: if the temporary directory is full.
        """
        left, right = leading.left, leading.right
        if left is None or right is None:
            self._kept[parameter] = leading
            return
        size = left.nbytes + right.nbytes
        if size <= self._room:
            self._room -= size
            self._kept[parameter] = leading
            return
        self._file = self._file or tempfile.TemporaryFile(prefix="spectra-vectors-")  # noqa: SIM115 - closed by close()
        offset = self._file.seek(0, 2)
        for vectors in (left, right):
            self._file.write(vectors.numpy().tobytes())
        self._offsets[parameter] = (offset, left.shape[1])
        self._kept[parameter] = Leading(leading.status, leading.shape, leading.values)

    def get(self, parameter: str) -> Leading | None:
        """The vectors of a matrix, None if it is not kept."""
        leading = self._kept.get(parameter)
        if leading is None or parameter not in self._offsets or self._file is None:
            return leading
        offset, count = self._offsets[parameter]
        self._file.seek(offset)
        left, right = (self._read(side, count) for side in leading.shape)
        return Leading(leading.status, leading.shape, leading.values, left, right)

    def _read(self, length: int, count: int) -> Tensor:
        assert self._file is not None  # noqa: S101 - only called where something was put there
        data = bytearray(self._file.read(4 * length * count))
        return torch.frombuffer(data, dtype=torch.float32).reshape(length, count)

    def close(self) -> None:
        """Give the memory and the file back."""
        self._kept.clear()
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
