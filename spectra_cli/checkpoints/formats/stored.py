"""A Reader over tensors whose places in open files are known."""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from spectra_cli.checkpoints.filespan import Span
from spectra_cli.checkpoints.formats.limits import check_tensors, quoted
from spectra_cli.errors import CheckpointError
from spectra_cli.regularfile import NO_FILE
from spectra_cli.storage.files import StoredFile, open_file
from spectra_cli.storage.places import Place
from spectra_cli.tensors import TensorInfo

if TYPE_CHECKING:
    import torch


class Closeable(Protocol):
    """Anything that holds a file open."""

    def close(self) -> None:
        """Let go of it."""
        ...


@dataclass
class StoredTensors:
    """A :class:`~spectra_cli.checkpoints.reader.Reader` made of one span per tensor.

    Attributes:
        format, tensors, ordered, metadata, notes: see :class:`~spectra_cli.checkpoints.reader.Reader`.
        spans: where each tensor's bytes are, by name.
        files: what to close with the reader.
        unread: names of tensors that the checkpoint holds in a form that is not read.

    Raises:
        CheckpointError: one of its subclasses, if the tensors exceed what any model has.
    """

    format: str
    tensors: Mapping[str, TensorInfo]
    spans: Mapping[str, Span]
    ordered: bool
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    files: Sequence[Closeable] = ()
    unread: Collection[str] = frozenset()

    def __post_init__(self) -> None:
        check_tensors(self.tensors)

    def read(self, name: str, rows: slice = slice(None), cols: slice = slice(None)) -> torch.Tensor:
        """Read a block of one tensor; see :meth:`spectra_cli.checkpoints.reader.Reader.read`.

        Raises:
            CheckpointError: if there is no tensor of that name, or the file does not hold its bytes.
        """
        span = self.spans.get(name)
        if span is None:
            raise CheckpointError(
                f"the checkpoint holds no tensor named {quoted(name)}", remedy="Look up its names with spectra inspect"
            )
        return span.read(rows, cols)

    def close(self) -> None:
        """Close the files behind the checkpoint."""
        for file in self.files:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_binary(path: Place) -> StoredFile:
    """Open a regular file for reading.

    It is looked at through its handle, so that it cannot be exchanged in between; opening does not wait for the other
    end of a pipe.

    Raises:
        CheckpointError: if the system or the storage refuses, or it is a pipe, a device or a directory.
    """
    try:
        return open_file(path)
    except OSError as error:
        remedy = "Check the path and its permissions"
        if error.errno == errno.EMFILE:  # more shards than the process may hold open
            remedy = "Raise the limit of open files with 'ulimit -n 4096'"
        what = NO_FILE if error.strerror == NO_FILE else f"the file cannot be opened ({error.strerror})"
        raise CheckpointError(what, where=str(path), remedy=remedy) from error


def integer_metadata(values: Mapping[Any, Any]) -> dict[str, int]:
    """The step and the epoch that a checkpoint states, each under the first of its customary names."""
    found = {}
    for key, names in _COUNTERS.items():
        numbers = (values.get(name) for name in names)
        number = next((n for n in numbers if isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 63), None)
        if number is not None:
            found[key] = number
    return found


_COUNTERS = {
    "step": ("global_step", "step", "iteration", "iter", "iter_num", "num_steps", "total_steps", "num_updates"),
    "epoch": ("epoch",),
}
COUNTER_NAMES = frozenset(name for names in _COUNTERS.values() for name in names)
