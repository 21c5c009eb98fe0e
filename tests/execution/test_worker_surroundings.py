"""What worker processes find when they begin, and what they may still do when they end."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from spectra_cli.execution.executors import processes
from spectra_cli.execution.executors.lostworkers import LostWorkerWarning
from spectra_cli.execution.executors.processes import Processes
from spectra_cli.execution.work.events import CheckpointOpened, MatrixDone
from spectra_cli.execution.work.units import Assignment, Chunk, EventSink, Outcome
from tests.execution.planted_work import Heard, PlantedWork, alive, attempts, chunks_of, wait_until
from tests.execution.test_processes import pids, program

pytestmark = pytest.mark.usefixtures("_tests_can_be_imported")

lost = pytest.mark.filterwarnings(f"ignore::{LostWorkerWarning.__module__}.{LostWorkerWarning.__name__}")


@dataclass(frozen=True)
class Telling:
    """A work whose outcomes tell of the process that it is done in."""

    def worker(self, device: str, sink: EventSink) -> Telling:
        del device, sink
        return self

    def outcomes(self, chunk: Chunk) -> Iterator[Outcome]:
        for assignment in chunk:
            facts = {
                "input": os.read(0, 100),
                "threads": [os.environ.get(name) for name in processes.THREAD_SETTINGS],
                "collects": gc.isenabled(),
                "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
            }
            yield Outcome(assignment.index, {"rank": []}, facts=facts)

    def close(self) -> None: ...

    def runs_read(self) -> Sequence[Any]:
        return ()


@dataclass(frozen=True)
class Noisy:
    """A work that tells of some matrices before each outcome and after the last, in quick succession."""

    sink: EventSink | None = None

    def worker(self, device: str, sink: EventSink) -> Noisy:
        del device
        return Noisy(sink)

    def outcomes(self, chunk: Chunk) -> Iterator[Outcome]:
        for assignment in chunk:
            self._tell(3)
            yield Outcome(assignment.index, {"rank": []})
        self._tell(2)

    def _tell(self, matrices: int) -> None:
        assert self.sink is not None
        for _ in range(matrices):
            self.sink.hear(MatrixDone(1.0))

    def close(self) -> None: ...

    def runs_read(self) -> Sequence[Any]:
        return ()


@dataclass(frozen=True)
class TwoThreads:
    """A work with outcomes of a megabyte, that a thread of its own tells of all the while."""

    sink: EventSink | None = None

    def worker(self, device: str, sink: EventSink) -> TwoThreads:
        del device
        return TwoThreads(sink)

    def outcomes(self, chunk: Chunk) -> Iterator[Outcome]:
        ended = threading.Event()
        telling = threading.Thread(target=self._tell, args=(ended,))
        telling.start()
        for assignment in chunk:
            yield Outcome(assignment.index, {"rank": [{"values": bytes([assignment.index]) * 1_000_000}]})
        ended.set()
        telling.join()

    def _tell(self, ended: threading.Event) -> None:
        assert self.sink is not None
        while not ended.is_set():
            self.sink.hear(CheckpointOpened(1, 1.0))

    def close(self) -> None: ...

    def runs_read(self) -> Sequence[Any]:
        return ()


def told(workers: int = 1, threads: int | None = None) -> dict[str, Any]:
    """What a worker tells."""
    (outcome,) = Processes(workers, ["cpu"], threads).outcomes(Telling(), chunks_of(1), Heard())
    return dict(outcome.facts)


def test_a_worker_takes_nothing_of_what_is_typed_into_the_program() -> None:
    """A task that asks for something finds the end of its input at once."""
    read, write = os.pipe()
    before = os.dup(0)
    try:
        os.dup2(read, 0)
        os.write(write, b"for the program")
        os.close(write)
        assert told()["input"] == b""
        assert os.read(0, 100) == b"for the program"
    finally:
        os.dup2(before, 0)
        for descriptor in (before, read):
            os.close(descriptor)


def test_every_library_is_told_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever numpy or torch was built with, and whatever the user has set."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "64")
    assert told(threads=3)["threads"] == ["3", "3", "3"]


def test_garbage_is_collected_in_a_worker() -> None:
    """It is let be only while everything is imported: a work may take days."""
    assert told()["collects"]


def test_a_worker_may_be_interrupted_only_once_it_ignores_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C reaches the whole group. What a worker begins itself is to hear signals again."""
    begun, blocked = subprocess.Popen, list[set[int]]()

    def begin(*arguments: Any, **named: Any) -> Any:
        blocked.append(set(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
        return begun(*arguments, **named)

    monkeypatch.setattr(subprocess, "Popen", begin)
    assert signal.SIGINT not in told()["blocked"]
    assert [signal.SIGINT in each for each in blocked] == [True]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_modules_beside_the_user_are_not_taken_for_those_of_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program itself may have been begun from a directory with a ``socket.py``, which it does not import."""
    for name in ("socket", "struct", "tempfile"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this is none of Python')")
    monkeypatch.chdir(tmp_path)
    (outcome,) = Processes(1, ["cpu"]).outcomes(PlantedWork(), chunks_of(1), Heard())
    assert outcome.error is None


def test_a_worker_whose_work_is_not_wanted_any_more_closes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have temporary files to remove; a machine that is shared may take long to let it."""
    monkeypatch.setattr(processes, "GRACE_S", 60.0)
    work = PlantedWork(trail=tmp_path, pause_s=0.05)
    outcomes = Processes(1, ["cpu"]).outcomes(work, chunks_of(1000, 1000), Heard())
    next(outcomes)
    outcomes.close()
    (begun,) = tmp_path.glob("begun-*")
    assert [path.name.partition("-")[2] for path in tmp_path.glob("closed-*")] == [begun.name.partition("-")[2]]


def test_all_that_was_told_of_a_unit_arrives_before_its_outcome_and_the_rest_at_the_end() -> None:
    """Else the bar would stand where it was while the next unit is worked on, or at the end of the work."""
    heard, seen = Heard(), list[int]()
    for _ in Processes(1, ["cpu"]).outcomes(Noisy(), chunks_of(4, 2), heard):
        seen.append(len(heard.events))
    assert seen == [3, 6, 11, 14]
    assert len(heard.events) == 16


def test_what_threads_of_a_worker_send_at_the_same_time_arrives_whole() -> None:
    """A megabyte is more than the pipe takes at once, and something else may come between its parts."""
    heard = Heard()
    for outcome in Processes(1, ["cpu"]).outcomes(TwoThreads(), chunks_of(8, 8), heard):
        assert outcome.tables == {"rank": [{"values": bytes([outcome.index]) * 1_000_000}]}
    assert set(heard.events) == {CheckpointOpened(1, 1.0)}


@lost
def test_a_unit_that_takes_down_its_workers_has_a_row_in_each_of_its_tables() -> None:
    """That of another table would lack it, and be no table of all checkpoints."""
    work, tables = PlantedWork({0: "dies"}), ("rank", "align", "sva")
    (outcome,) = Processes(1, ["cpu"]).outcomes(work, [(Assignment(0, tables),)], Heard())
    assert outcome.tables == {table: [{"status": "worker_died"}] for table in tables}


@lost
def test_a_worker_that_has_died_is_replaced_while_a_single_chunk_waits(tmp_path: Path) -> None:
    """Though another worker is at work: here it waits for what the new one does."""
    work = PlantedWork({0: "waits for 2", 1: "dies once"}, trail=tmp_path)
    outcomes = Processes(2, ["cpu"]).outcomes(work, chunks_of(3), Heard())
    assert sorted(outcome.index for outcome in outcomes) == [0, 1, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, a worker looks for its parent itself")
def test_not_even_a_worker_that_stands_still_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    """It cannot look for its parent itself, be it stopped or deep in a library that holds Python's lock."""
    try:
        with program(tmp_path) as parent:
            wait_until(lambda: bool(attempts(tmp_path, 0) and attempts(tmp_path, 1)))
            for pid in pids(tmp_path):
                os.kill(pid, signal.SIGSTOP)
            parent.kill()
        wait_until(lambda: not any(alive(pid) for pid in pids(tmp_path)))
    finally:
        for pid in filter(alive, pids(tmp_path)):
            os.kill(pid, signal.SIGKILL)
