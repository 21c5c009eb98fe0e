"""What runs in a worker process: it gets a work, then chunk after chunk, and sends all that comes of them."""

from __future__ import annotations

import ctypes
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

from spectra_cli.execution.executors.wire import Message, Raised, Warned
from spectra_cli.execution.work.events import Event
from spectra_cli.execution.work.units import Chunk, Work

FREE = None
"""Sent by a worker that is ready for a chunk; sent to it, there is none left."""

PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>."""


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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent knows what is to be done
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked by the parent until it could be ignored
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that temporary files are removed
    _end_with(parent)
    with suppress(OSError):  # the parent is gone, and nobody to be told
        _serve(connection)


def _serve(connection: Connection) -> None:
    send = _Sender(connection)
    warnings.showwarning = lambda message, category, *_, **__: send(Warned.of(message, category))
    try:
        order: Order = connection.recv()
        with closing(order.work.worker(order.device, _EventSender(send))) as worker:
            send(FREE)
            while (chunk := _next_chunk(connection)) is not FREE:
                for outcome in worker.outcomes(chunk):
                    send(outcome)
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


class _EventSender:
    """Sends events to the parent process."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send

    def hear(self, event: Event) -> None:
        """Send an event at once."""
        self._send(event)


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
