"""The workers of a Dask cluster, and whether they answer; every request has a time limit."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from distributed import Client

from spectra_cli.errors import InputError
from spectra_cli.execution.executors.lostworkers import LOOK_S
from spectra_cli.execution.executors.schedulerfile import TOLD_S, in_minutes

ANSWER_S = 12.0
"""How long a worker may take to answer."""

IMPORT_S = 120.0
"""How long it may take where it imports torch first: shared file systems are slow."""

AGAIN_S = 1.0
"""Time limit for a worker that did not answer before."""

HEARTBEATS_S = 5.0
"""Seconds between two checks of the workers' heartbeats."""

FROZEN_S = 30.0
"""Seconds without a heartbeat after which a worker counts as frozen; each sends two a second, and fewer where there are
many workers."""

T = TypeVar("T")


class NoWorkerWarning(UserWarning):
    """No worker is there to do the work at the moment."""


class SilentClusterWarning(UserWarning):
    """A part of a cluster is there and does not answer: it is stopped, or cannot be reached any more."""


def within(client: Client, seconds: float, ask: Callable[[], Any]) -> Any:
    """Result of a call of a client that by itself would wait for an answer as long as it takes.

    Args:
        client: connected.
        seconds: how long the answer may take.
        ask: makes the call; run in the client's loop of events, where calls are awaited.

    Raises:
        TimeoutError: if there is no answer.
    """

    async def asked() -> Any:
        return await asyncio.wait_for(ask(), seconds)

    return client.sync(asked)  # type: ignore[no-untyped-call]


class ClusterWorkers:
    """Monitors the workers of a cluster.

    Args:
        client: connected to it.
        address: of its scheduler.
        patience_s: how long to wait where there are none, or the scheduler does not answer.
        silent: workers that have not answered, of which people have been told; kept up to date.
    """

    def __init__(self, client: Client, address: str, patience_s: float, silent: set[str]) -> None:
        self._client, self.address, self._patience_s = client, address, patience_s
        self._patience = in_minutes(patience_s)
        self._silent = silent
        self._threads: Mapping[str, int] = {}
        self._heartbeats: dict[str, tuple[float, float]] = {}  # the scheduler's time of the last, and ours when it came
        self._looked, self._listened = -LOOK_S, time.monotonic()
        self._seen = self._answered = time.monotonic()
        self._told = self._told_of_silence = False

    def threads(self) -> int:
        """Threads of all workers that answer, as of a moment ago.

        Raises:
            InputError: if there have been none for too long, or the scheduler has not answered for too long.
        """
        return sum(self.threads_each().values())

    def threads_each(self) -> Mapping[str, int]:
        """Threads of each worker that answers, by its address; as :meth:`threads`."""
        if time.monotonic() - self._looked >= LOOK_S:
            self._look()
        return {worker: count for worker, count in self._threads.items() if worker not in self._silent}

    def preferred(self) -> list[str] | None:
        """Workers to send work to; None where it can be sent to all of them."""
        workers = list(self.threads_each())
        return workers if len(workers) < len(self._threads) else None

    def wait(self) -> None:
        """Wait for a worker.

        Raises:
            InputError: if none comes.
        """
        while not self.threads():
            time.sleep(LOOK_S / 4)

    def _wait_for_any(self) -> None:
        """Wait for a worker to ask, even one that has not answered before."""
        while not self._threads:
            time.sleep(LOOK_S / 4)
            self.threads_each()

    def ask(self, function: Callable[..., T], *args: object, limit_s: float | None = None) -> dict[str, T | Exception]:
        """What a function returns, or raises, on each worker; people are told of those that do not answer.

        Args:
            function: to call.
            args: of it.
            limit_s: how long it may take; None for one that is quick.

        Raises:
            InputError: if none answers.
        """
        limit_s = ANSWER_S if limit_s is None else limit_s
        found: dict[str, T | Exception] = {}
        while not found:
            self._wait_for_any()
            asked = list(self._threads)
            found = within(self._client, 2 * limit_s, partial(self._answers, asked, function, args, limit_s))
            self._silent -= set(found)
            if not self._look():
                continue  # it was the scheduler that did not answer
            for worker in set(self._threads).intersection(asked) - set(found) - self._silent:
                self._silent.add(worker)
                warnings.warn(
                    f"the Dask worker {worker} does not answer: the others do the work",
                    SilentClusterWarning,
                    stacklevel=2,
                )
            if not found:
                raise InputError(
                    "none of the Dask workers answers",
                    where=self.address,
                    remedy="Look at their logs, start others, and run the same command again",
                )
        return found

    async def _answers(
        self, workers: Sequence[str], function: Callable[..., T], args: Sequence[object], limit_s: float
    ) -> dict[str, T | Exception]:
        """Answers of the workers that give one."""

        async def one(worker: str) -> T | Exception | None:
            limit = min(AGAIN_S, limit_s) if worker in self._silent else limit_s
            try:
                asked: Awaitable[Any] = self._client.run(function, *args, workers=[worker], on_error="return")
                found: T | Exception = (await asyncio.wait_for(asked, limit))[worker]
            except (OSError, LookupError):  # a TimeoutError is an OSError
                return None
            return None if isinstance(found, OSError) else found  # which the scheduler has met on the way to it

        answers = zip(workers, await asyncio.gather(*map(one, workers)), strict=True)
        return {worker: answer for worker, answer in answers if answer is not None}

    def gone(self) -> InputError:
        """What is said where the scheduler is not there any more."""
        return InputError(
            "the Dask scheduler is gone, or has dropped the work",
            where=self.address,
            remedy="Run the same command again when it is there",
        )

    def _look(self) -> bool:
        """Look who is there; returns whether the scheduler answers."""
        try:
            self._threads = within(self._client, min(TOLD_S, self._patience_s), self._client.nthreads)
        except TimeoutError:
            self._note_silence()
            return False
        except OSError as error:
            raise self.gone() from error
        finally:
            self._looked = time.monotonic()
        self._answered, self._told_of_silence = self._looked, False
        if self._looked - self._listened >= HEARTBEATS_S:
            self._listen()
        if any(worker not in self._silent for worker in self._threads):
            self._seen, self._told = self._looked, False
        else:
            self._note_absence()
        return True

    def _listen(self) -> None:
        """Find workers that stand still in the midst of their work, and those that go on.

        By clocks of one machine each: that of the scheduler tells whether a heartbeat is a new one, and that of this
        machine how long ago it came.
        """
        self._listened = time.monotonic()
        scheduler: Any = self._client.scheduler  # Dask says that there may be none, which is before it is connected
        try:
            known = within(self._client, min(TOLD_S, self._patience_s), scheduler.identity)
        except OSError:  # a TimeoutError is one; what is amiss with the scheduler, the next look says
            return
        now = time.monotonic()
        limit = max(FROZEN_S, len(known["workers"]) / 20)  # of thousands, Dask has each tell every n / 200 s
        for worker, state in known["workers"].items():
            heartbeat, came = self._heartbeats.get(worker, (None, now))
            if heartbeat != state["last_seen"]:
                self._heartbeats[worker] = state["last_seen"], now
                if heartbeat is not None:
                    self._silent.discard(worker)
            elif now - came >= limit and worker not in self._silent:
                self._silent.add(worker)
                warnings.warn(
                    f"nothing has been heard of the Dask worker {worker} for {limit:.3g} s: its work is done "
                    "again when the scheduler gives it up (distributed.scheduler.worker-ttl, 5 minutes by default)",
                    SilentClusterWarning,
                    stacklevel=2,
                )

    def _note_silence(self) -> None:
        """Say that the scheduler does not answer, or give up."""
        if not self._told_of_silence:
            self._told_of_silence = True
            warnings.warn(
                f"the Dask scheduler {self.address} does not answer: waiting up to {self._patience} for it",
                SilentClusterWarning,
                stacklevel=2,
            )
        if time.monotonic() - self._answered >= self._patience_s:
            raise InputError(
                f"the Dask scheduler has not answered for {self._patience}",
                where=self.address,
                remedy="Look at its log, and run the same command again when it answers",
            )

    def _note_absence(self) -> None:
        """Say that there are no workers, or give up."""
        away = time.monotonic() - self._seen
        if not self._told and away >= min(TOLD_S, self._patience_s):
            self._told = True
            what = "no Dask workers that answer" if self._threads else "no Dask workers"
            warnings.warn(
                f"{self.address} has {what}: waiting up to {self._patience} for one",
                NoWorkerWarning,
                stacklevel=2,
            )
        if away >= self._patience_s:
            raise InputError(
                f"there has been no Dask worker for {self._patience}",
                where=self.address,
                remedy="Start workers, and run the same command again",
            )
