"""All units one after the other, in the process that asks for them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing

from spectra_cli.execution.work.units import Chunk, EventSink, Outcome, Work


class InProcess:
    """Does the chunks in order, with one worker; its warnings are those of this process.

    Args:
        device: name of the device to work on.
    """

    def __init__(self, device: str) -> None:
        self._device = device

    def outcomes(self, work: Work, chunks: Sequence[Chunk], sink: EventSink) -> Generator[Outcome, None, None]:
        """Do the work of all chunks; what a worker raises is raised here.

        Raises:
            SpectraError: if the device is not there, or the work cannot go on.
        """
        if not chunks:
            return
        with closing(work.worker(self._device, sink)) as worker:
            for chunk in chunks:
                yield from worker.outcomes(chunk)
