"""The next checkpoint is opened, and its first bytes are read, while the last matrices of this one are worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Condition, Lock, Thread
from types import TracebackType
from typing import Generic, Self, TypeVar

import torch

from spectra_cli.analyses.demands import WorkPlace
from spectra_cli.analyses.groups import arranged
from spectra_cli.analyses.loading import Reads, experts_of
from spectra_cli.errors import CheckpointError
from spectra_cli.layers.matricize import MatrixSpec
from spectra_cli.spectrum.memory import resident_bytes

Item = TypeVar("Item")
Opened = TypeVar("Opened")


class Room:
    """How many bytes of what comes next may be in memory by now; it grows, until the turn of what comes next."""

    def __init__(self) -> None:
        self._bytes = 0
        self._taken = 0
        self._closed = False
        self._changed = Condition()

    def grow(self, room_bytes: int) -> None:
        """Raise the room to so many bytes; it never shrinks."""
        with self._changed:
            self._bytes = max(self._bytes, room_bytes)
            self._changed.notify_all()

    def close(self) -> None:
        """Let nothing more be read ahead."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self, count: int) -> bool:
        """Wait for room for so many bytes more; False once nothing more is to be read ahead."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._taken + count <= self._bytes)
            self._taken += count
            return not self._closed


class Primed:
    """A reader some of whose tensors are read before they are asked for, and handed out when they are.

    One thread may read ahead while another one asks; the reader behind it is only ever asked by one of them.
    """

    def __init__(self, reader: Reads) -> None:
        self._reader = reader
        self._waiting: dict[tuple[str, int | None, int | None], torch.Tensor] = {}
        self._lock = Lock()

    def prime(self, specs: Mapping[int, MatrixSpec], place: WorkPlace, room: Room) -> None:
        """Read matrices in the order in which a visit will ask for them, as far as there is room.

        What cannot be read is left to the visit, which will meet the same error. Matrices that are too large to be held
        in memory are left to it as well.

        Args:
            specs: matrices by depth.
            place: where the visit will be.
            room: for their bytes.
        """
        usable = {depth: spec for depth, spec in specs.items() if spec.tensor.is_floating and spec.nbytes}
        planned = arranged(usable, lambda _: None, place)
        largest_held = resident_bytes(place.budget_bytes // planned.lanes)
        for spec in (spec for group in planned.groups for _, spec in group):
            if spec.nbytes > largest_held:
                continue
            if not room.take(spec.nbytes):
                return
            name, rows = spec.tensor.name, experts_of(spec)
            with self._lock:
                try:
                    self._waiting[name, rows.start, rows.stop] = self._reader.read(name, rows)
                except (CheckpointError, MemoryError):
                    return

    def read(self, name: str, rows: slice = slice(None), cols: slice = slice(None)) -> torch.Tensor:
        """Read a block; see :meth:`spectra_cli.checkpoints.reader.Reader.read`."""
        with self._lock:
            if cols == slice(None):
                waiting = self._waiting.pop((name, rows.start, rows.stop), None)
                if waiting is not None:
                    return waiting
            return self._reader.read(name, rows, cols)


class OpenedAhead(Generic[Item, Opened]):
    """Opens one item in another thread while its caller is busy with the item before. Used by one thread.

    Args:
        open_item: opens an item; called in another thread, unless an item is asked for that was not expected.
        prime: reads of an opened item what comes first, as the room grows; called in that other thread, which is
            done with the item when its turn comes.
    """

    def __init__(
        self,
        open_item: Callable[[Item], AbstractContextManager[Opened]],
        prime: Callable[[Opened, Room], None] = lambda _opened, _room: None,
    ) -> None:
        self._open = open_item
        self._prime = prime
        self._expected: _Expected[Item, Opened] | None = None
        self._room_bytes = 0

    def expect(self, item: Item) -> None:
        """Say which item comes after the present one. Another one that was expected is closed."""
        if self._expected is not None and self._expected.item == item:
            return
        self.close()
        self._expected = _Expected(item, self._open, self._prime)
        self._expected.room.grow(self._room_bytes)

    def on_room(self, room_bytes: int) -> None:
        """Let so many bytes of the next item be in memory; what a visit is to be given as such. From any thread."""
        self._room_bytes = room_bytes
        expected = self._expected
        if expected is not None:
            expected.room.grow(room_bytes)

    @contextmanager
    def opened(self, item: Item) -> Iterator[Opened]:
        """An item whose turn has come, until its work is done.

        Raises:
            Exception: what opening it raised.
        """
        self._room_bytes = 0
        expected = self._expected
        if expected is None or expected.item != item:
            with self._open(item) as opened:
                yield opened
            return
        self._expected = None
        opened, stack = expected.result()
        with stack:
            yield opened

    def close(self) -> None:
        """Close what is expected and has not been asked for; its thread ends."""
        expected, self._expected = self._expected, None
        if expected is not None:
            expected.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Expected(Generic[Item, Opened]):
    """An item that is being opened."""

    def __init__(
        self,
        item: Item,
        open_item: Callable[[Item], AbstractContextManager[Opened]],
        prime: Callable[[Opened, Room], None],
    ) -> None:
        self.item = item
        self.room = Room()
        self._done: Future[tuple[Opened, ExitStack]] = Future()

        def work() -> None:
            try:
                with ExitStack() as stack:
                    opened = stack.enter_context(open_item(item))
                    prime(opened, self.room)
                    self._done.set_result((opened, stack.pop_all()))
            except BaseException as error:  # noqa: BLE001 - raised again when the turn of the item comes
                self._done.set_exception(error)

        # A thread of a pool would keep an interpreter from ending that nobody told to let go of what is expected.
        self._thread = Thread(target=work, name="spectra-ahead", daemon=True)
        self._thread.start()

    def result(self) -> tuple[Opened, ExitStack]:
        """What was opened, and what closes it."""
        self.room.close()
        self._thread.join()
        return self._done.result()

    def discard(self) -> None:
        """Close it."""
        self.room.close()
        self._thread.join()
        if self._done.exception() is None:
            self._done.result()[1].close()
