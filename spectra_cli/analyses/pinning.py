"""Page-locked memory, out of which a CUDA device fetches weights by itself while the host goes on."""

from __future__ import annotations

from collections.abc import Iterable

import torch

ALIGNMENT = 256
"""Bytes; more than any dtype or copy engine asks for."""


class PinnedSlots:
    """Two buffers of page-locked memory, which groups of matrices use in turn.

    One thread reads a group into the next buffer while another works on what is in the other one. Copies to the device
    are only queued: a buffer is not written to again before those out of it are done. Where the device is no CUDA
    device, or no memory can be locked, there are no buffers, and matrices stay where they are.

    Args:
        device: where the matrices are worked on.
        slot_bytes: of each buffer; what is more than that of a group stays where it is.
    """

    def __init__(self, device: torch.device, slot_bytes: int) -> None:
        self._device = device
        self._slots = _page_locked(slot_bytes) if device.type == "cuda" and slot_bytes else []
        self._copied: list[torch.cuda.Event | None] = [None, None]
        self._used = 0
        self._reading = self._working = 1

    def next_group(self) -> None:
        """A group is about to be read; waits until the device has all of the one before the last."""
        self._reading = 1 - self._reading
        self._used = 0
        copied = self._copied[self._reading]
        if copied is not None:
            copied.synchronize()

    def pinned(self, stored: torch.Tensor) -> torch.Tensor | None:
        """A copy of a tensor of the group that is being read, None where there is no room for it."""
        if not self._slots or self._used + stored.nbytes > len(self._slots[self._reading]):
            return None
        place = self._slots[self._reading].narrow(0, self._used, stored.nbytes).view(stored.dtype).view(stored.shape)
        place.copy_(stored)
        self._used += _aligned(stored.nbytes)
        return place

    def group_done(self) -> None:
        """The work on a group is done, as far as the host is concerned."""
        self._working = 1 - self._working
        if self._slots:
            self._copied[self._working] = event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self._device))


def slot_bytes_for(groups: Iterable[Iterable[int]], most_bytes: int) -> int:
    """Size of a buffer that holds any of some groups.

    Args:
        groups: sizes of the matrices of each that are held in memory.
        most_bytes: no more than that.
    """
    return min(most_bytes, max((sum(map(_aligned, sizes)) for sizes in groups), default=0))


def _aligned(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT


def _page_locked(count: int) -> list[torch.Tensor]:
    try:
        return [torch.empty(count, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
    except RuntimeError:  # the system locks no more, or there is no driver: copies are slower then
        return []
