"""What runs in a worker process: it gets a work, then chunk after chunk, and sends all that comes of them."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

from spectra_cli.execution.executors.allocation import keep_freed_memory
from spectra_cli.execution.executors.wire import Events, Message, Raised, Warned
from spectra_cli.execution.work.events import Event, MatrixDone
from spectra_cli.execution.work.units import Chunk, Work

FREE = None
"""Message of a worker that is ready for a chunk; sent to a worker, it says that there is none left."""

TELL_S = 0.1
"""Seconds between two messages about progress: for small matrices they would take longer than the work itself."""

OF_THE_GROUP = (signal.SIGINT, signal.SIGHUP)
"""Signals that a terminal sends to the parent as well, which knows what is to be done."""

PR_SET_PDEATHSIG = 1
"""Number of this option in <linux/prctl.h>."""


@dataclass(frozen=True, slots=True)
class Order:
    """The first that a worker process is sent.

    Attributes:
        work: to do.
        device: to work on.
    """

    work: Work
    device: str


def main(connection: Connection, parent: int) -> None:
    """Serve until there are no more chunks.

    Args:
        connection: to the process that hands out the chunks.
        parent: id of that process, without which this one ends.
    """
    for number in OF_THE_GROUP:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OF_THE_GROUP)  # blocked by the parent until they could be ignored
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that temporary files are removed
    _end_with(parent)
    keep_freed_memory()
    gc.disable()  # while everything is imported, when there is nothing to collect
    with suppress(OSError):  # the parent is gone, and nobody to be told
        _serve(connection)


def _serve(connection: Connection) -> None:
    send = _Sender(connection)
    warnings.showwarning = lambda message, category, *_, **__: send(Warned.of(message, category))
    try:
        order: Order = connection.recv()
        events = EventSender(send)
        with closing(order.work.worker(order.device, events)) as worker:
            gc.freeze()  # what is there by now stays, and need not be looked through again
            gc.enable()
            send(FREE)
            while (chunk := _next_chunk(connection)) is not FREE:
                for outcome in worker.outcomes(chunk):
                    events.flush()
                    send(outcome)
                events.flush()
                send(FREE)
    except Exception as error:  # noqa: BLE001 - raised again in the parent
        send(Raised.of(error))


def _next_chunk(connection: Connection) -> Chunk | None:
    chunk: Chunk | None = connection.recv()
    return chunk


class _Sender:
    """Sends messages one at a time, whichever thread they come from."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def __call__(self, message: Message | None) -> None:
        content = pickle.dumps(message)  # not as Connection.send() does: torch has it put tensors into shared memory
        with self._lock:
            self._connection.send_bytes(content)


class EventSender:
    """Sends events to the parent process, those of matrices that are done in quick succession together.

    A matrix that is done right after something was sent waits for the next event, or for :meth:`flush`.

    Args:
        send: sends a message.
    """

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._sent = -math.inf
        self._waiting: list[Event] = []
        self._lock = threading.Lock()

    def hear(self, event: Event) -> None:
        """Send an event at once, unless it says no more than that a matrix is done; from any thread."""
        with self._lock:
            self._waiting.append(event)
            if not isinstance(event, MatrixDone) or time.monotonic() - self._sent >= TELL_S:
                self._flush()

    def flush(self) -> None:
        """Send what has not been sent."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._send(Events(tuple(self._waiting)))
            self._waiting.clear()
            self._sent = time.monotonic()


def _end_with(parent: int) -> None:
    """See to it that this process does not outlive its parent, however that ends and whatever is being done here."""
    if sys.platform == "linux":  # at once, even with Python's lock held; when the parent's thread ends, too, as if lost
        with suppress(OSError, AttributeError):  # a C library without it: the watch below is left
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    threading.Thread(target=_watch, args=(parent,), name="spectra-watch", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
