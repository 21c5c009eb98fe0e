"""This end of a Dask cluster: connecting, sending chunks and taking what comes of them."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any

from distributed import CancelledError, Client, Future, KilledWorker
from distributed.versions import VersionMismatchWarning

from spectra_cli import __version__
from spectra_cli.errors import InputError, SpectraError
from spectra_cli.execution.executors.clusterworkers import ANSWER_S, ClusterWorkers, within
from spectra_cli.execution.executors.daskworker import SharedWork, abandoned, do_chunk, name_for, version_here
from spectra_cli.execution.executors.lostworkers import LOOK_S, LostWorkerWarning
from spectra_cli.execution.executors.schedulerfile import address_in, is_scheduler_file
from spectra_cli.execution.executors.signalsdeferred import signals_deferred
from spectra_cli.execution.executors.wire import Message, received
from spectra_cli.execution.work.units import Assignment, Chunk, EventSink, Outcome, Work

CONNECT_S = 12.0
"""How long the scheduler may take to answer."""

CLOSE_S = 3.0
"""How long a scheduler may take to be told that the work is over."""

IN_FLIGHT = 2
"""Chunks per thread of the cluster that are with the scheduler: one being done, one to go on with."""


@contextmanager
def connected(address: str, patience_s: float, silent: set[str]) -> Iterator[tuple[Client, ClusterWorkers]]:
    """A connection to a cluster with workers that have this version of spectra, and who looks after them.

    Args:
        address: of the scheduler, or path of the file that it writes it to.
        patience_s: how long to wait for the file, where there are no workers, or the scheduler does not answer.
        silent: workers that have not answered; kept up to date.

    Raises:
        InputError: if there is no such cluster.
    """
    with _quiet():
        client = _connection(address, patience_s)
        try:
            workers = ClusterWorkers(client, address, patience_s, silent)
            workers.wait()
            _check_versions(workers)
            yield client, workers
        finally:
            client.close()


def _connection(address: str, patience_s: float) -> _Connection:
    """A connection to the scheduler of an address, or of a file with one.

    Raises:
        InputError: if it cannot be reached.
    """
    if not is_scheduler_file(address):
        return _Connection(address, address, "Give the address that the scheduler tells when it begins")
    remedy = "Begin the scheduler again, or remove this file, which an earlier one has left"
    found = address_in(address, patience_s)
    while True:
        try:
            return _Connection(found, f"{address} ({found})", remedy)
        except InputError:  # a scheduler that has ended may have left its file to the next one
            before, found = found, address_in(address, patience_s)
            if found == before:
                raise


class _Connection(Client):
    """A client of Dask that is never the default one and leaves nothing behind where it cannot be connected.

    Args:
        address: of the scheduler.
        named: what it is called in errors.
        remedy: where it cannot be reached.

    Raises:
        InputError: if it cannot be reached.
    """

    def __init__(self, address: str, named: str, remedy: str) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", VersionMismatchWarning)  # of libraries that the work does not use
                super().__init__(address, timeout=CONNECT_S, set_as_default=False, name="spectra")
        except Exception as error:
            self.close()  # it is half made
            raise InputError(
                f"no Dask scheduler can be reached there: {error}",
                where=named,
                remedy=remedy,
            ) from error

    def close(self, timeout: float = CLOSE_S) -> None:
        """Close it once, whatever the scheduler says; else Dask waits for it, and again when the program ends."""
        try:
            super().close(timeout=min(timeout, CLOSE_S))
        except Exception:  # noqa: BLE001 - the scheduler may be gone, and the work is over
            self.status = "closed"
            with suppress(AttributeError):  # it is less than half made
                self._loop_runner.stop(timeout=CLOSE_S)


class Submitted:
    """Chunks that are with the scheduler.

    Args:
        client: connected to it.
        name: by which the workers know the work.
        workers: of the cluster.
        sink: told of events.
    """

    def __init__(self, client: Client, name: str, workers: ClusterWorkers, sink: EventSink) -> None:
        self._client, self._name, self._workers, self._sink = client, name, workers, sink

    def outcomes(self, chunks: Sequence[Chunk], alone: bool) -> Generator[Outcome, None, list[Assignment]]:
        """Do chunks; returns the assignments that Dask has given up."""
        waiting, lost = deque(chunks), list[Assignment]()
        pending: dict[object, tuple[Future[bytes], Chunk]] = {}
        finished: SimpleQueue[Future[bytes]] = SimpleQueue()
        try:
            while waiting or pending:
                # With workers that do not answer, none waits beside the one being done: they would take those.
                preferred = self._workers.preferred()
                most = (IN_FLIGHT if preferred is None else 1) * max(1, self._workers.threads())
                while waiting and len(pending) < (1 if alone else most):
                    chunk = waiting.popleft()
                    future = self._submit(chunk, preferred)
                    pending[future.key] = future, chunk
                    future.add_done_callback(finished.put)
                try:
                    future = finished.get(timeout=LOOK_S)
                except Empty:
                    continue
                _, chunk = pending.pop(future.key)
                messages = self._messages(future)
                if messages is None:
                    warnings.warn("Dask workers have died: their work is done again", LostWorkerWarning, stacklevel=2)
                    lost += chunk
                    continue
                missing = {assignment.index for assignment in chunk}
                for message in messages:
                    if (outcome := received(message, self._sink)) is not None:
                        missing.discard(outcome.index)
                        yield outcome
                if missing:  # the workers were told, not by this client, that the work is over
                    raise self._workers.gone()
        finally:
            futures = [future for future, _ in pending.values()]
            with suppress(Exception):  # the scheduler may be gone
                within(self._client, CLOSE_S, lambda: self._client.cancel(futures, force=True))
        return lost

    def _submit(self, chunk: Chunk, preferred: list[str] | None) -> Future[bytes]:
        with signals_deferred():  # a future that is half made complains when it is let go of
            return self._client.submit(
                do_chunk, self._name, chunk, pure=False, workers=preferred, allow_other_workers=preferred is not None
            )

    def _result(self, future: Future[bytes]) -> bytes:
        """What comes of a chunk, once the scheduler has fetched it; whether that is still there is looked at."""

        async def fetched() -> bytes:
            result: bytes = await future._result()
            return result

        loop: Any = self._client.loop  # Dask says that there may be none, which is before it is connected
        fetching = asyncio.run_coroutine_threadsafe(fetched(), loop.asyncio_loop)
        try:
            while not wait([fetching], timeout=LOOK_S).done:
                self._workers.threads()
            return fetching.result()
        finally:
            fetching.cancel()

    def _messages(self, future: Future[bytes]) -> list[Message] | None:
        """What came of a chunk; None if it went down with several workers.

        Raises:
            SpectraError: if Dask could not do it for another reason.
        """
        try:
            messages: list[Message] = pickle.loads(self._result(future))  # noqa: S301 - Dask itself is made of pickles
        except KilledWorker:
            return None
        except (CancelledError, TimeoutError) as error:
            raise self._workers.gone() from error
        except InputError:
            raise
        except Exception as error:
            raise SpectraError(
                f"Dask could not do the work: {type(error).__name__}: {error}",
                where=self._workers.address,
                remedy="See the log of its workers",
            ) from error
        finally:
            future.release()
        return messages


@contextmanager
def shared(client: Client, work: Work, device: str, roots: Sequence[str], workers: ClusterWorkers) -> Iterator[str]:
    """The name by which all workers know a work, those that join later as well.

    Args:
        client: connected.
        work: to do.
        device: name of the device to work on.
        roots: directories that a worker must see.
        workers: of the cluster.

    Raises:
        InputError: if they cannot be given it.
    """
    with suppress(Exception):  # a scheduler without spectra; what others have left behind is in nobody's way
        for name in within(client, CLOSE_S, lambda: client.run_on_scheduler(abandoned)):
            _withdraw(client, name)
    name = name_for(client.id)
    plugin = SharedWork(name, pickle.dumps(work), device, roots)
    try:
        # The scheduler waits for all workers; those that are slow still get it, and chunks wait for it there.
        limit = ANSWER_S if workers.preferred() is None else min(CLOSE_S, ANSWER_S)
        within(client, limit, lambda: client.register_plugin(plugin))
    except TimeoutError:
        pass
    except Exception as error:
        raise InputError(
            f"the Dask workers cannot be given the work: {error}", remedy="Run the same command again"
        ) from error
    try:
        yield name
    finally:
        _withdraw(client, name)


def _withdraw(client: Client, name: str) -> None:
    """Have workers forget a work; the scheduler goes on with it where one of them does not answer."""
    with suppress(Exception):  # the scheduler may be gone
        within(client, CLOSE_S, lambda: client.unregister_worker_plugin(name))


def _check_versions(workers: ClusterWorkers) -> None:
    """Check that the workers have this spectra.

    Raises:
        InputError: naming a worker that has not.
    """
    for worker, found in workers.ask(version_here).items():
        if found == __version__:
            continue
        if isinstance(found, str):
            what = f"the Dask worker {worker} has spectra {found}, and here is {__version__}"
        else:
            what = f"the Dask worker {worker} has no spectra {__version__}: {found}"
        raise InputError(what, remedy=f"Install spectra-weights[dask]=={__version__} where the workers run")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what distributed logs off the terminal; what matters of it is raised. With SPECTRA_DEBUG=1 it stays."""
    if os.environ.get("SPECTRA_DEBUG", "") not in {"", "0"}:
        yield
        return
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]
    names += ["tornado.application", "asyncio"]  # what a signal meets in the loop of events
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
