"""Vectors of the checkpoints that others are compared with, kept for as long as they are needed."""

from __future__ import annotations

from spectra_cli.analyses.vectorstore import VectorStore
from spectra_cli.errors import CheckpointError
from spectra_cli.storage.places import Place


class KeptReferences:
    """Vectors by the path of the reference, or why it cannot be used.

    One that is not needed for now stays until another comes, since the next chunk may compare with the same.

    Args:
        memory_bytes: of vectors; what does not fit goes to temporary files.
    """

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._kept: dict[Place, VectorStore | CheckpointError] = {}
        self._idle: Place | None = None

    def __contains__(self, path: object) -> bool:
        return path in self._kept

    def get(self, path: Place) -> VectorStore | CheckpointError | None:
        """The vectors of a reference, or why it cannot be used; None where it has not been looked at."""
        return self._kept.get(path)

    def new(self, path: Place) -> VectorStore:
        """Make room for the vectors of a reference; one that is idle is let go of."""
        if self._idle is not None:
            self.forget(self._idle)
        self.forget(path)
        store = VectorStore(self._memory_bytes // 2)  # the next one is made before this one is let go
        self._kept[path] = store
        return store

    def failed(self, path: Place, error: CheckpointError) -> None:
        """Take note that a reference cannot be used; what was kept of it before it failed is let go of."""
        self.forget(path)
        self._kept[path] = error

    def rest(self, path: Place) -> None:
        """A reference is not needed for now."""
        if self._idle is not None and self._idle != path:
            self.forget(self._idle)
        self._idle = path

    def forget(self, path: Place) -> None:
        """Let go of what is kept of a reference, if anything is."""
        store = self._kept.pop(path, None)
        if isinstance(store, VectorStore):
            store.close()
        if path == self._idle:
            self._idle = None

    def close(self) -> None:
        """Let go of all."""
        for path in list(self._kept):
            self.forget(path)
