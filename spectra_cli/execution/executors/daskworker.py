"""What runs in a worker of Dask: the work is there once, and chunk after chunk is done by one of its threads."""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from distributed import get_worker
from distributed.diagnostics.plugin import WorkerPlugin

from spectra_cli import __version__
from spectra_cli.analyses.lanes import available_cores
from spectra_cli.errors import InputError
from spectra_cli.execution.executors.wire import Message, Raised, Warned
from spectra_cli.execution.work.events import Event
from spectra_cli.execution.work.units import Chunk, Work, Worker

NAME = "spectra/"
"""Prefix of the names of works, which stand among names of other plugins."""

GIVEN_S = 10.0
"""How long a chunk waits for the work that it is of; both are on their way at the same time."""

_withdrawn: set[str] = set()
"""Names of works that this process was given and that are over."""


def name_for(client: str) -> str:
    """A new name for a work of a client of Dask."""
    return f"{NAME}{client}/{uuid.uuid4()}"


def abandoned(dask_scheduler: Any) -> list[str]:
    """Names of works whose client was killed, for which workers may still keep models; run on the scheduler."""
    named = [name for name in dask_scheduler.worker_plugins if name.startswith(NAME)]
    return [name for name in named if name.split("/")[1] not in dask_scheduler.clients]


def version_here() -> str:
    """Version of spectra on this worker."""
    return __version__


def absent_here(paths: Sequence[str]) -> list[str]:
    """The given paths that this machine does not see."""
    return [path for path in paths if not os.path.exists(path)]


def not_seen(worker: str, path: str) -> InputError:
    """What is said of a path that a worker does not see."""
    return InputError(
        f"the Dask worker {worker} does not see it",
        where=path,
        remedy="Put it on storage that all workers see at this path, or leave out --scheduler",
    )


def device_here(name: str) -> str:
    """The device that a name means here, as files record it."""
    from spectra_cli.execution.executors.device import described, resolve_device  # noqa: PLC0415 - imports torch

    return described(resolve_device(name))


def do_chunk(name: str, chunk: Chunk) -> bytes:
    """Do a chunk of the work that is known by a name, as a task of Dask; returns pickled messages.

    Pickled here, as Dask would make arrays read-only on the way, and take the size of the result for that of a list.
    """
    plugins, deadline = get_worker().plugins, time.monotonic() + GIVEN_S
    while name not in plugins and name not in _withdrawn and time.monotonic() < deadline:
        time.sleep(0.05)  # a machine that was stopped for a while may be told in another order
    if name in _withdrawn:
        return pickle.dumps([])
    shared: SharedWork = plugins[name]  # type: ignore[assignment]  # the one of this name
    return pickle.dumps(shared.messages(chunk))


class SharedWork(WorkerPlugin):
    """A work on a worker of Dask, now or later: Dask gives it to all workers, and to those that join.

    Args:
        name: by which it is known.
        work: pickled.
        device: name of the device to work on.
        roots: directories that must be seen here.
    """

    def __init__(self, name: str, work: bytes, device: str, roots: Sequence[str]) -> None:
        self.name = name
        self._pickled = work
        self._device = device
        self._roots = roots
        self._version = __version__

    def setup(self, worker: Any) -> None:
        """Get ready; what takes time is done by the first chunks."""
        self._nthreads = worker.state.nthreads
        self._lock = threading.Lock()
        self._work: Work | None = None
        self._workers: dict[int, tuple[Worker, _EventCollector]] = {}
        self._busy: set[int] = set()
        self._over = False
        _take_warnings()

    def teardown(self, worker: Any) -> None:  # noqa: ARG002 - as Dask calls it
        """Give back what the workers hold; those that work do so when they have finished their assignment."""
        _withdrawn.add(self.name)
        with self._lock:
            self._over = True
            idle = [self._workers.pop(thread)[0] for thread in set(self._workers) - self._busy]
        for own in idle:
            own.close()

    def messages(self, chunk: Chunk) -> list[Message]:
        """Do a chunk in this thread; returns outcomes, events and warnings in the order in which they came."""
        messages: list[Message] = []
        thread = threading.get_ident()
        with self._lock:
            if self._over:
                return messages
            self._busy.add(thread)
        try:
            with _warnings_into(messages):
                self._do(chunk, thread, messages)
        except Exception as error:  # noqa: BLE001 - raised again in the client
            messages.append(Raised.of(error))
        finally:
            self._finished(thread)
        return messages

    def _do(self, chunk: Chunk, thread: int, messages: list[Message]) -> None:
        work = self._loaded()
        if (torch := sys.modules.get("torch")) is not None:  # else the work does without it
            torch.set_num_threads(max(1, available_cores() // self._nthreads))
        if thread not in self._workers:
            collecting = _EventCollector(messages)
            self._workers[thread] = work.worker(self._device, collecting), collecting
        worker, collecting = self._workers[thread]
        collecting.messages = messages
        for outcome in worker.outcomes(chunk):
            messages.append(outcome)
            if self._over:
                return

    def _loaded(self) -> Work:
        if self._version != __version__:  # as with workers that have joined since the others were asked
            raise InputError(
                f"the Dask worker {get_worker().address} has spectra {__version__}, not {self._version}",
                remedy=f"Install spectra-weights[dask]=={self._version} where the workers run",
            )
        with self._lock:
            if self._work is None:
                for absent in absent_here(self._roots):  # to those that have joined since
                    raise not_seen(get_worker().address, absent)
                self._work = pickle.loads(self._pickled)  # noqa: S301 - whoever may submit tasks may run any code here
            return self._work

    def _finished(self, thread: int) -> None:
        with self._lock:
            self._busy.discard(thread)
            own = self._workers.pop(thread, None) if self._over else None
        if own is not None:
            own[0].close()


class _EventCollector:
    """Collects events among the messages of a chunk."""

    def __init__(self, messages: list[Message]) -> None:
        self.messages = messages

    def hear(self, event: Event) -> None:
        """Keep an event."""
        self.messages.append(event)


_collecting: list[list[Message]] = []
"""Messages of the chunks that are being done in this process."""


@contextmanager
def _warnings_into(messages: list[Message]) -> Iterator[None]:
    """Keep the warnings of this process among the messages of a chunk.

    A warning may come from a thread that a worker has begun, so of several chunks any may be told; it is shown once.
    """
    _collecting.append(messages)
    try:
        yield
    finally:
        _collecting[:] = [kept for kept in _collecting if kept is not messages]


def _take_warnings() -> None:
    """Have warnings of this process kept as long as a chunk is being done, those told in earlier works as well."""
    with warnings.catch_warnings():  # entering it makes Python forget what it has shown
        pass
    before = warnings.showwarning
    if getattr(before, "of_spectra", False):
        return

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        for messages in _collecting[-1:]:
            messages.append(Warned.of(message, category))
        before(message, category, *place, **more)

    show.of_spectra = True  # type: ignore[attr-defined]  # a mark, so that it is put in place once
    warnings.showwarning = show
