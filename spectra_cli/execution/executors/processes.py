"""Several processes of this machine, each with its share of the cores, or with a GPU of its own.

They are started as programs of their own rather than by :mod:`multiprocessing`: a program that calls spectra is not
imported again in every worker, and the number of threads is in a worker's environment before it imports anything.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import wait

from spectra_cli.analyses.lanes import available_cores
from spectra_cli.errors import InputError
from spectra_cli.execution.executors.lostworkers import LOOK_S, LostWorkerWarning, WorkerDiedError, with_retries
from spectra_cli.execution.executors.wire import Message, received
from spectra_cli.execution.executors.workerprocess import FREE, OF_THE_GROUP, Order
from spectra_cli.execution.work.units import Assignment, Chunk, EventSink, Outcome, Work

BEGIN = (
    "import sys; from multiprocessing.connection import Connection; connection = Connection(int(sys.argv[1])); "
    "sys.path[:] = connection.recv(); from spectra_cli.execution.executors.workerprocess import main; "
    "main(connection, int(sys.argv[2]))"
)
"""The program of a worker: finds its modules where this process finds them."""

THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Environment variables from which torch and numpy take their number of threads when they are imported."""

GRACE_S = 2.0
"""Time to clean up for workers whose work is not wanted any more."""

FAILED_STARTS = 3
"""Workers that may die one after the other before they have begun."""

FRUITLESS_DEATHS = 10
"""Workers that may die as long as there is not a single outcome."""

REMEDY = "Give it more memory: fewer --workers, or a smaller --memory-budget"


class Processes:
    """Hands chunks to worker processes, one at a time to whoever is free.

    What a worker that dies had not finished is done again, at last with no other worker beside it.

    Args:
        workers: number of processes.
        devices: names of the devices to work on, dealt out in turn.
        threads: of each worker; None for an equal share of the cores.
    """

    def __init__(self, workers: int, devices: Sequence[str], threads: int | None = None) -> None:
        self._workers = workers
        self._devices = tuple(devices)
        self._threads = threads or max(1, available_cores() // workers)

    def outcomes(self, work: Work, chunks: Sequence[Chunk], sink: EventSink) -> Generator[Outcome, None, None]:
        """Do the work of all chunks; closing the iterator ends the processes.

        No more workers are begun than there are chunks. The threads of each are as many as if all were, since the last
        digits of numbers depend on them, and those of a table are not to depend on how much of it is done at a time.

        Raises:
            SpectraError: if no worker can be begun, or what a worker raises.
        """
        pool = _WorkerPool(work, self._workers, self._devices, self._threads, sink)
        yield from with_retries(chunks, pool.outcomes, lambda: pool.last_death, REMEDY)


class _WorkerPool:
    """Worker processes for one work.

    Attributes:
        last_death: how the worker ended that died last.
    """

    def __init__(self, work: Work, workers: int, devices: Sequence[str], threads: int, sink: EventSink) -> None:
        self.last_death = ""
        self._workers = workers
        self._orders = [pickle.dumps(Order(work, device)) for device in devices]
        self._environment = {**os.environ, **dict.fromkeys(THREAD_SETTINGS, str(threads))}
        self._sink = sink
        self._failed_starts = self._deaths = 0
        self._fruitful = False

    def outcomes(self, chunks: Sequence[Chunk], alone: bool) -> Generator[Outcome, None, list[Assignment]]:
        """Do chunks, one at a time if `alone`; returns the assignments that were lost with workers that died."""
        most = 1 if alone else self._workers
        waiting, lost, workers = deque(chunks), list[Assignment](), list[_WorkerHandle]()
        try:
            while True:
                while len(workers) < most and sum(not worker.begun for worker in workers) < len(waiting):
                    workers.append(self._begin_worker(workers))
                if not workers:
                    return lost
                for worker in _with_news(workers):
                    message = worker.next_message()
                    if worker.gone:
                        workers.remove(worker)
                        lost += self._lost_with(worker)
                    elif message is FREE:
                        self._failed_starts = 0
                        worker.give(waiting.popleft() if waiting else FREE)
                    elif (outcome := received(message, self._sink)) is not None:
                        self._fruitful = True
                        worker.left.pop(outcome.index, None)
                        yield outcome
        finally:
            _end(workers)

    def _begin_worker(self, workers: Sequence[_WorkerHandle]) -> _WorkerHandle:
        index = next(index for index in range(len(workers) + 1) if all(worker.index != index for worker in workers))
        return _WorkerHandle(index, self._orders[index % len(self._orders)], self._environment)

    def _lost_with(self, worker: _WorkerHandle) -> list[Assignment]:
        """What a worker that has ended leaves undone."""
        how = worker.end()
        if worker.dismissed:
            return []
        self.last_death = how
        if not worker.begun:
            self._failed_starts += 1
            if self._failed_starts >= FAILED_STARTS:
                raise WorkerDiedError(f"worker processes die before they can begin ({how})", remedy=REMEDY)
            return []
        self._deaths += 1
        if self._deaths >= FRUITLESS_DEATHS and not self._fruitful:
            raise WorkerDiedError(
                f"{FRUITLESS_DEATHS} worker processes have died, and nothing is done ({how})", remedy=REMEDY
            )
        warnings.warn(f"a worker process has died ({how}): its work is done again", LostWorkerWarning, stacklevel=2)
        return list(worker.left.values())


class _WorkerHandle:
    """A worker process, as the parent sees it.

    Attributes:
        index: among those that are there, for its device.
        begun: whether it has ever been ready for a chunk.
        dismissed: whether it has been told that there is nothing left.
        gone: whether it is dead, and all that it could send has been received.
        left: assignments given to it whose outcomes have not arrived, by place.
    """

    def __init__(self, index: int, order: bytes, environment: Mapping[str, str]) -> None:
        self.index = index
        self.begun = self.dismissed = self.gone = False
        self.left: dict[int, Assignment] = {}
        self.connection, theirs = Pipe()
        with theirs:
            self.process = _started(theirs.fileno(), environment)
        with suppress(OSError):  # it is dead already, which is found when it is listened to
            self.connection.send(sys.path)
            self.connection.send_bytes(order)

    def next_message(self) -> Message | None:
        """What it sends next; nothing if it is gone."""
        try:
            if self.connection.poll():  # else it is dead, although processes of its own may hold the pipe open
                message: Message | None = self.connection.recv()
                self.begun |= message is FREE
                return message
        except (EOFError, OSError):
            pass
        self.gone = True
        return None

    def give(self, chunk: Chunk | None) -> None:
        """Answer that it is free."""
        self.dismissed = chunk is FREE
        self.left = {assignment.index: assignment for assignment in chunk or ()}
        with suppress(OSError):  # as above
            self.connection.send(chunk)

    def end(self) -> str:
        """See to it that it is gone; returns how it ended."""
        self.connection.close()
        try:
            status = self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        if status >= 0:
            return f"exit status {status}"
        with suppress(ValueError):
            return signal.Signals(-status).name
        return f"signal {-status}"


def _started(descriptor: int, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A worker process that talks through a descriptor.

    Raises:
        InputError: if the machine allows no more processes.
    """
    program = [sys.executable, "-P", "-c", BEGIN, str(descriptor), str(os.getpid())]
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, OF_THE_GROUP)  # inherited, until it can ignore them
    try:
        return subprocess.Popen(program, stdin=subprocess.DEVNULL, pass_fds=[descriptor], env=dict(environment))  # noqa: S603 - our own program
    except OSError as error:
        raise InputError(
            f"a worker process cannot be started: {error.strerror or error}", remedy="Give fewer --workers"
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)


def _with_news(workers: Sequence[_WorkerHandle]) -> list[_WorkerHandle]:
    """Workers that have sent something, or are dead, as soon as there are any."""
    while True:
        dead = [
            worker for worker in workers if worker.process.poll() is not None
        ]  # before the look at what they have sent
        speaking = wait([worker.connection for worker in workers], 0.0 if dead else LOOK_S)
        if dead or speaking:
            return [worker for worker in workers if worker in dead or worker.connection in speaking]


def _end(workers: Sequence[_WorkerHandle]) -> None:
    """End workers whose work is not wanted any more."""
    for worker in workers:
        worker.process.terminate()
    try:
        deadline = time.monotonic() + GRACE_S
        for worker in workers:
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.0, deadline - time.monotonic()))
    finally:  # after another Ctrl-C as well
        for worker in workers:
            worker.process.kill()
            worker.end()
