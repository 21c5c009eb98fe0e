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
        self._scheduler = self._start("dask_scheduler", "--port", "0")
        self._workers: list[subprocess.Popen[bytes]] = []
        wait_until(lambda: self.file.is_file() and self.file.stat().st_size > 0)
        self.address: str = json.loads(self.file.read_text())["address"]

    @classmethod
    @contextmanager
    def of_two(cls, directory: Path) -> Iterator[Self]:
        """Two workers of one thread each, which are there."""
        with cls(directory) as cluster:
            cluster.add_worker()
            cluster.add_worker()
            cluster.wait_for(2)
            yield cluster

    @property
    def file(self) -> Path:
        """Written by the scheduler."""
        return self._directory / "scheduler.json"

    def add_worker(self, threads: int = 1, environment: dict[str, str] | None = None) -> None:
        """Start a worker; it is there when it is there."""
        options = ["--no-nanny", "--nthreads", str(threads), "--local-directory", str(self._directory)]
        self._workers.append(self._start("dask_worker", *options, environment=environment))

    @property
    def pids(self) -> list[int]:
        """Of the workers."""
        return [process.pid for process in self._workers]

    def client(self) -> Client:
        """To look into the cluster, beside those of spectra."""
        return Client(self.address, set_as_default=False, timeout=30)

    def wait_for(self, workers: int) -> None:
        """Wait until there are so many workers."""
        with self.client() as client:
            wait_until(lambda: len(client.nthreads()) == workers)

    @contextmanager
    def replacing(self) -> Iterator[None]:
        """Start another worker for each that dies."""
        over = threading.Event()

        def replace() -> None:
            while not over.wait(0.1):
                for place, process in enumerate(self._workers):
                    if process.poll() is not None:
                        self._workers.pop(place)
                        self.add_worker()

        thread = threading.Thread(target=replace)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

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
        for process in (*self._workers, self._scheduler):
            process.kill()
            process.wait()
        self._log.close()
