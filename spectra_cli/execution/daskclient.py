"""This end of a Dask cluster: connecting, looking after its workers, sending chunks and taking what comes of them."""

from __future__ import annotations

import json
import logging
import os
import pickle
import time
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue

from distributed import CancelledError, Client, Future, KilledWorker
from distributed.versions import VersionMismatchWarning

from spectra_cli import __version__
from spectra_cli.errors import InputError, SpectraError
from spectra_cli.execution.daskworker import SharedWork, abandoned, do_chunk, name_for, version_here
from spectra_cli.execution.lostworkers import LostWorkerWarning
from spectra_cli.execution.units import Assignment, Chunk, Hears, Outcome, Work
from spectra_cli.execution.wire import Message, received

CONNECT_S = 12.0
"""How long the scheduler may take to answer."""

LOOK_S = 1.0
"""How often is looked for workers that have joined or left."""

TOLD_S = 10.0
"""How long there may be no workers until people are told."""

IN_FLIGHT = 2
"""Chunks per thread of the cluster that are with the scheduler: one being done, one to go on with."""


class NoWorkerWarning(UserWarning):
    """There is nobody to do the work at the moment."""


@contextmanager
def connected(address: str, patience_s: float) -> Iterator[tuple[Client, Presence]]:
    """A connection to a cluster with workers that have this version of spectra, and who looks after them.

    Args:
        address: of the scheduler.
        patience_s: how long to wait where there are no workers.

    Raises:
        InputError: if there is no such cluster.
    """
    with _quiet():
        client = _Connection(address)
        try:
            presence = Presence(client, address, patience_s)
            presence.wait()
            _check_versions(client)
            yield client, presence
        finally:
            with suppress(Exception):  # the scheduler may be gone
                client.close()


class _Connection(Client):
    """A client of Dask that is nobody's default and leaves nothing behind where it cannot be connected."""

    def __init__(self, address: str) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", VersionMismatchWarning)  # of libraries that the work does not use
                super().__init__(_told(address), timeout=CONNECT_S, set_as_default=False, name="spectra")
        except Exception as error:
            with suppress(Exception):  # it is half made
                self.close(timeout=1)
            raise InputError(
                f"no Dask scheduler can be reached there: {error}",
                where=address,
                remedy="Give the address that the scheduler tells when it begins, such as tcp://head:8786",
            ) from error


def _told(address: str) -> str:
    """An address, or the one in the file that a scheduler writes, which may not be there yet.

    Raises:
        OSError: if it does not come.
        ValueError: if something else stands there.
    """
    if not address.endswith(".json"):
        return address
    deadline = time.monotonic() + CONNECT_S
    while True:
        try:
            return str(json.loads(Path(address).read_bytes())["address"])
        except (OSError, ValueError, LookupError, TypeError):
            if time.monotonic() > deadline:
                raise
        time.sleep(LOOK_S / 4)


class Presence:
    """Looks for the workers of a cluster.

    Args:
        client: connected to it.
        address: of its scheduler.
        patience_s: how long to wait where there are none.
    """

    def __init__(self, client: Client, address: str, patience_s: float) -> None:
        self._client, self.address, self._patience_s = client, address, patience_s
        self._threads = 0
        self._looked = -LOOK_S
        self._seen = time.monotonic()
        self._told = False

    def threads(self) -> int:
        """Of all workers, as they were a moment ago.

        Raises:
            InputError: if there have been none for too long.
        """
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return self._threads
        try:
            self._threads = sum(self._client.nthreads().values())
        except (OSError, TimeoutError) as error:
            raise self.gone() from error
        self._looked = now
        if self._threads:
            self._seen, self._told = now, False
            return self._threads
        if not self._told and now - self._seen >= min(TOLD_S, self._patience_s):
            self._told = True
            warnings.warn(
                f"{self.address} has no Dask workers: waiting up to {self._patience_s / 60:.3g} minutes for one",
                NoWorkerWarning,
                stacklevel=2,
            )
        if now - self._seen >= self._patience_s:
            raise InputError(
                f"there has been no Dask worker for {self._patience_s / 60:.3g} minutes",
                where=self.address,
                remedy="Start workers, and run the same command again",
            )
        return 0

    def wait(self) -> None:
        """Wait for a worker.

        Raises:
            InputError: if none comes.
        """
        while not self.threads():
            time.sleep(LOOK_S / 4)

    def gone(self) -> InputError:
        """What is said where the scheduler is not there any more."""
        return InputError(
            "the Dask scheduler is gone, or has dropped the work",
            where=self.address,
            remedy="Run the same command again when it is there",
        )


class Submitted:
    """Chunks that are with the scheduler.

    Args:
        client: connected to it.
        name: by which the workers know the work.
        presence: of workers.
        hears: told of events.
    """

    def __init__(self, client: Client, name: str, presence: Presence, hears: Hears) -> None:
        self._client, self._name, self._presence, self._hears = client, name, presence, hears

    def outcomes(self, chunks: Sequence[Chunk], alone: bool) -> Generator[Outcome, None, list[Assignment]]:
        """Do chunks; returns the assignments that Dask has given up."""
        waiting, lost = deque(chunks), list[Assignment]()
        pending: dict[object, tuple[Future[bytes], Chunk]] = {}
        finished: SimpleQueue[Future[bytes]] = SimpleQueue()
        try:
            while waiting or pending:
                most = IN_FLIGHT * max(1, self._presence.threads())
                while waiting and len(pending) < (1 if alone else most):
                    chunk = waiting.popleft()
                    future = self._submit(chunk)
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
                for message in messages:
                    if (outcome := received(message, self._hears)) is not None:
                        yield outcome
        finally:
            with suppress(Exception):  # the scheduler may be gone
                self._client.cancel([future for future, _ in pending.values()], force=True)
        return lost

    def _submit(self, chunk: Chunk) -> Future[bytes]:
        return self._client.submit(do_chunk, self._name, chunk, pure=False)

    def _messages(self, future: Future[bytes]) -> list[Message] | None:
        """What came of a chunk; None if it went down with several workers.

        Raises:
            SpectraError: if Dask could not do it for another reason.
        """
        try:
            messages: list[Message] = pickle.loads(future.result())  # noqa: S301 - Dask itself is made of pickles
        except KilledWorker:
            return None
        except (CancelledError, TimeoutError) as error:
            raise self._presence.gone() from error
        except Exception as error:
            raise SpectraError(
                f"Dask could not do the work: {type(error).__name__}: {error}",
                where=self._presence.address,
                remedy="See the log of its workers",
            ) from error
        finally:
            future.release()
        return messages


@contextmanager
def shared(client: Client, work: Work, device: str) -> Iterator[str]:
    """The name by which all workers know a work, those that join later as well.

    Raises:
        InputError: if they cannot be given it.
    """
    with suppress(Exception):  # a scheduler without spectra; what others have left behind is in nobody's way
        for name in client.run_on_scheduler(abandoned):
            client.unregister_worker_plugin(name)
    name = name_for(client.id)
    try:
        client.register_plugin(SharedWork(name, pickle.dumps(work), device))
    except Exception as error:
        raise InputError(
            f"the Dask workers cannot be given the work: {error}", remedy="Run the same command again"
        ) from error
    try:
        yield name
    finally:
        with suppress(Exception):  # the scheduler may be gone
            client.unregister_worker_plugin(name)


def _check_versions(client: Client) -> None:
    """Check that the workers have this spectra.

    Raises:
        InputError: naming a worker that has not.
    """
    for worker, found in client.run(version_here, on_error="return").items():
        if found == __version__ or isinstance(found, OSError):  # which is that it is not there any more
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
    names.append("tornado.application")  # what a signal meets in the loop of events
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
