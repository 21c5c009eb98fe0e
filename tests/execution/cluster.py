"""A Dask cluster on loopback: a scheduler and workers, each a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from distributed import Client

from tests.execution.planted_work import wait_until

ROOT = Path(__file__).parents[2]


class Cluster:
    """A scheduler, and workers that are added to it.

    Args:
        directory: for what it writes.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._log = (directory / "log").open("w")
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        self._begun = 0
        self._scheduler = self._start("dask_scheduler", "--port", "0")
        try:
            wait_until(lambda: self.file.is_file() and self.file.read_text().endswith("\n}"))
        except BaseException:
            self._end()
            raise
        self.address: str = json.loads(self.file.read_text())["address"]

    @classmethod
    @contextmanager
    def of_two(cls, directory: Path) -> Iterator[Self]:
        """Two workers of one thread each, which are there."""
        with cls(directory) as cluster:
            cluster.add_worker()
            cluster.add_worker()
            cluster.wait_for_workers()
            yield cluster

    @property
    def file(self) -> Path:
        """Written by the scheduler."""
        return self._directory / "scheduler.json"

    def add_worker(self, threads: int = 1, environment: dict[str, str] | None = None) -> None:
        """Start a worker; it is there when it is there."""
        self._begun += 1
        name = f"worker {self._begun}"
        options = ["--name", name, "--nthreads", str(threads), "--local-directory", str(self._directory)]
        self._workers[name] = self._start("dask_worker", "--no-nanny", *options, environment=environment)

    @property
    def pids(self) -> list[int]:
        """Of the workers."""
        return [process.pid for process in self._workers.values()]

    def client(self) -> Client:
        """To look into the cluster, beside those of spectra."""
        return Client(self.address, set_as_default=False, timeout=30)

    def wait_for_workers(self) -> None:
        """Wait until the scheduler knows all workers that were added, and none that has died."""

        def known(dask_scheduler: object) -> set[str]:
            return {worker.name for worker in dask_scheduler.workers.values()}  # type: ignore[attr-defined]

        with self.client() as client:
            wait_until(lambda: client.run_on_scheduler(known) == set(self._workers))

    @contextmanager
    def replacing(self) -> Iterator[None]:
        """Start another worker for each that dies; in the end there are as many as before."""
        over = threading.Event()

        def replace() -> None:
            while not over.wait(0.1):
                self._replace_the_dead()

        thread = threading.Thread(target=replace)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._replace_the_dead()  # since the last look
            self.wait_for_workers()

    def _replace_the_dead(self) -> None:
        for name in [name for name, process in self._workers.items() if process.poll() is not None]:
            del self._workers[name]
            self.add_worker()

    def _start(self, program: str, *options: str, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        where = ["--host", "127.0.0.1", "--scheduler-file", str(self.file), "--no-dashboard"]
        return subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{program}", *where, *options],
            cwd=self._directory,  # where no modules are
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(environment or {})},
            stdout=self._log,
            stderr=self._log,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        for process in (*self._workers.values(), self._scheduler):
            process.kill()
            process.wait()
        self._log.close()
