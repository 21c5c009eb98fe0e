"""The Reader protocol: named tensors of one checkpoint, read when they are needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from spectra_cli.tensors import TensorInfo

if TYPE_CHECKING:
    import torch


class Reader(Protocol):
    """One opened checkpoint. Opening reads headers only and executes nothing that the file says.

    Attributes:
        format: short name of the format, for people (``safetensors``, ``pytorch``, ``pytorch-legacy`` for files from
            before torch 1.6, ``torch.distributed``).
        tensors: every tensor by name.
        ordered: whether the order of `tensors` is the order in which the model registered them.
        metadata: what the file says of itself and spectra uses: ``step`` and ``epoch`` (int) where present.
        notes: what was found and not opened, in sentences for people.
    """

    format: str
    tensors: Mapping[str, TensorInfo]
    ordered: bool
    metadata: Mapping[str, Any]
    notes: Sequence[str]

    def read(self, name: str, rows: slice = slice(None), cols: slice = slice(None)) -> torch.Tensor:
        """Read a block of one tensor seen as a matrix ``(shape[0], prod(shape[1:]))``.

        Returns:
            A fresh CPU tensor in the stored dtype: (rows, *shape[1:]) where all columns are read, else (rows, cols).

        Raises:
            CheckpointError: if the bytes are not there or are not what the header promised.
        """
        ...

    def close(self) -> None:
        """Close the files behind the checkpoint."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
