"""Worker processes: they share the cores and the work, and none outlives what it works for."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from spectra_cli.errors import InputError
from spectra_cli.execution.executors import processes
from spectra_cli.execution.executors.lostworkers import LostWorkerWarning, WorkerDiedError
from spectra_cli.execution.executors.processes import Processes
from tests.execution.cluster import ROOT
from tests.execution.planted_work import Heard, PlantedWork, alive, attempts, chunks_of, let_go, wait_until

pytestmark = pytest.mark.usefixtures("_tests_can_be_imported")

lost = pytest.mark.filterwarnings(f"ignore::{LostWorkerWarning.__module__}.{LostWorkerWarning.__name__}")


def pids(trail: Path) -> set[int]:
    """Of the workers that have begun."""
    return {int(path.name.split("-")[1]) for path in trail.glob("begun-*")}


def test_chunks_go_to_whoever_is_free(tmp_path: Path) -> None:
    """While one worker is held up by a unit, another does all the others, which it is waiting for."""
    others = range(1, 6)
    work = PlantedWork({0: "waits for " + " ".join(map(str, others))}, trail=tmp_path)
    outcomes = list(Processes(2, ["cpu", "cuda:0"]).outcomes(work, chunks_of(6), Heard()))
    found = {outcome.index: (outcome.facts["pid"], outcome.facts["device"]) for outcome in outcomes}
    assert {found[place] for place in others} == {found[1]}
    assert {found[0][1], found[1][1]} == {"cpu", "cuda:0"}


def test_the_cores_are_shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Known to torch and to whatever a worker imports; there are no more workers than chunks."""
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    work = PlantedWork(dict.fromkeys(range(3), "tells threads"), trail=tmp_path)
    for outcome in Processes(2, ["cpu"]).outcomes(work, chunks_of(3, 3), Heard()):
        assert outcome.facts["OMP_NUM_THREADS"] == "2"
        assert outcome.facts["threads"] <= 2  # fewer where there are fewer cores
    assert os.environ["OMP_NUM_THREADS"] == "4"
    assert len(pids(tmp_path)) == 1


def test_every_worker_has_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there are more of them than cores."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    (outcome,) = Processes(5, ["cpu"]).outcomes(PlantedWork(), chunks_of(1), Heard())
    assert outcome.facts["OMP_NUM_THREADS"] == "1"


@lost
def test_a_worker_in_place_of_another_has_its_device(tmp_path: Path) -> None:
    """One that dies of its first unit, while its neighbour is at the second; who comes after it does the others."""
    work = PlantedWork({0: "dies once", 1: "waits for 3"}, trail=tmp_path)
    outcomes = Processes(2, ["cpu", "cuda:0"]).outcomes(work, chunks_of(4), Heard())
    device = {outcome.index: outcome.facts["device"] for outcome in outcomes}
    assert device[2] == device[3]
    assert {device[1], device[2]} == {"cpu", "cuda:0"}


@lost
def test_a_dead_worker_whose_child_holds_the_pipe_open_is_found(tmp_path: Path) -> None:
    """A library may leave such a process behind; nothing more is ever heard through that pipe, nor does it end."""
    work = PlantedWork({0: "dies and leaves a child"}, trail=tmp_path)
    try:
        (outcome,) = Processes(1, ["cpu"]).outcomes(work, chunks_of(1), Heard())
        assert outcome.error is None
        (child,) = (int(path.name.partition("-")[2]) for path in tmp_path.glob("child-*"))
        assert alive(child), "the pipe was not held open: the test says nothing"
    finally:
        for path in tmp_path.glob("child-*"):
            os.kill(int(path.name.partition("-")[2]), signal.SIGKILL)


def test_a_worker_does_not_run_ahead_of_whoever_takes_the_outcomes(tmp_path: Path) -> None:
    """What is not taken waits in the pipe, which holds less than an outcome of a megabyte."""
    work = PlantedWork(trail=tmp_path, payload_bytes=1_000_000)
    outcomes = Processes(1, ["cpu"]).outcomes(work, chunks_of(40, 40), Heard())
    for taken in range(1, 6):
        next(outcomes)
        wait_until(lambda wanted=taken: len(list(tmp_path.glob("*-1-*"))) > wanted)
        assert len(list(tmp_path.glob("*-1-*"))) <= taken + 2
    outcomes.close()


def test_closing_the_iterator_ends_a_worker_that_clings_to_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By force, and before anything else goes on."""
    monkeypatch.setattr(processes, "GRACE_S", 0.2)
    outcomes = Processes(1, ["cpu"]).outcomes(PlantedWork({0: "clings"}, trail=tmp_path), chunks_of(2, 2), Heard())
    next(outcomes)
    wait_until(lambda: bool(attempts(tmp_path, 0)))
    outcomes.close()
    assert [alive(pid) for pid in pids(tmp_path)] == [False]


@lost
def test_what_a_killed_worker_had_not_finished_is_done_again(tmp_path: Path) -> None:
    """And only that: of 12 units in two chunks, the worker of one is killed when it has sent some and not all."""
    work = PlantedWork(dict.fromkeys((0, 6), "waits to be let go"), trail=tmp_path)  # the last of each chunk
    outcomes = Processes(2, ["cpu"]).outcomes(work, chunks_of(12, 6), Heard())
    arrived = [next(outcomes)]
    killed = arrived[0].facts["pid"]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not alive(killed))
    let_go(tmp_path)
    with pytest.warns(LostWorkerWarning, match="SIGKILL"):
        arrived += outcomes
    assert Counter(outcome.index for outcome in arrived) == Counter(range(12))
    assert all(outcome.error is None for outcome in arrived)
    by_killed = {outcome.index for outcome in arrived if outcome.facts["pid"] == killed}
    assert all(len(attempts(tmp_path, place)) == 1 for place in by_killed)
    assert not any(alive(pid) for pid in pids(tmp_path))


@lost
def test_a_unit_that_takes_down_its_workers_is_an_outcome(tmp_path: Path) -> None:
    """After three deaths, of which the last is while nothing else is done; its neighbours are done well."""
    work = PlantedWork({3: "dies", 5: "dies once", 6: "dies"}, trail=tmp_path, pause_s=0.1)
    outcomes = {o.index: o for o in Processes(2, ["cpu"]).outcomes(work, chunks_of(8, 4), Heard())}
    assert set(outcomes) == set(range(8))
    errors = {place: outcome.error for place, outcome in outcomes.items() if outcome.error is not None}
    assert sorted(errors) == [3, 6]
    for place, error in errors.items():
        assert isinstance(error, WorkerDiedError)
        assert "SIGKILL" in str(error)
        assert "--memory-budget" in error.remedy
        assert outcomes[place].tables == {"rank": [{"status": "worker_died"}]}
    others = [path for place in (0, 1, 2, 4, 7) for path in attempts(tmp_path, place)]
    last = min(attempts(tmp_path, place)[2].stat().st_mtime_ns for place in errors)
    assert all(path.stat().st_mtime_ns <= last for path in others)
    assert not (tmp_path / "company").exists()


@lost
def test_a_worker_that_ends_by_itself_is_told_by_its_status() -> None:
    (outcome,) = Processes(1, ["cpu"]).outcomes(PlantedWork({0: "exits"}), chunks_of(1), Heard())
    assert isinstance(outcome.error, WorkerDiedError)
    assert "exit status 3" in str(outcome.error)


def test_a_machine_that_allows_no_more_processes_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the program can be interrupted as before."""

    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(processes.subprocess, "Popen", refuse)
    with pytest.raises(InputError, match=r"cannot be started: Resource temporarily unavailable\. Give fewer --workers"):
        list(Processes(2, ["cpu"]).outcomes(PlantedWork(), chunks_of(3), Heard()))
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@lost
def test_where_nothing_survives_the_work_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As with a library that is not made for this processor; else thousands of units would be tried in vain."""
    monkeypatch.setattr(processes, "FRUITLESS_DEATHS", 2)
    work = PlantedWork(dict.fromkeys(range(50), "dies"), trail=tmp_path)
    with pytest.raises(WorkerDiedError, match="2 worker processes have died, and nothing is done"):
        list(Processes(1, ["cpu"]).outcomes(work, chunks_of(50), Heard()))
    assert len(pids(tmp_path)) == 2


@lost
def test_where_something_is_done_deaths_do_not_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are: each unit that takes down its workers is an outcome."""
    monkeypatch.setattr(processes, "FRUITLESS_DEATHS", 2)
    work = PlantedWork({1: "dies", 2: "dies"})
    outcomes = {each.index: each for each in Processes(1, ["cpu"]).outcomes(work, chunks_of(3), Heard())}
    assert [isinstance(outcomes[index].error, WorkerDiedError) for index in range(3)] == [False, True, True]


def test_workers_that_cannot_begin_end_the_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processes, "FAILED_STARTS", 2)
    work = PlantedWork(begins="dies", trail=tmp_path)
    with pytest.raises(WorkerDiedError, match=r"die before they can begin \(SIGKILL\)"):
        list(Processes(1, ["cpu"]).outcomes(work, chunks_of(3), Heard()))
    assert len(work.starts()) == 2


@lost
def test_workers_that_begin_in_the_end_do_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only those count that fail one after the other: here a worker begins after each."""
    monkeypatch.setattr(processes, "FAILED_STARTS", 2)
    work = PlantedWork({0: "dies once", 2: "dies once"}, begins="dies every other time", trail=tmp_path)
    outcomes = list(Processes(1, ["cpu"]).outcomes(work, chunks_of(4), Heard()))
    assert sorted(outcome.index for outcome in outcomes) == [0, 1, 2, 3]
    assert all(outcome.error is None for outcome in outcomes)
    assert len(work.starts()) > 4


PROGRAM = """
import pathlib, sys
from spectra_cli.execution.executors.processes import Processes
from tests.execution.planted_work import Heard, PlantedWork, chunks_of

work = PlantedWork({0: "clings", 1: "spins"}, trail=pathlib.Path(sys.argv[1]))
chunks = chunks_of(2)
try:
    for outcome in Processes(2, ["cpu"]).outcomes(work, chunks, Heard()):
        print(outcome.index)
except KeyboardInterrupt:
    print("interrupted")
"""
"""As a user may write it: without a guard against being imported again."""


@contextmanager
def program(trail: Path) -> Iterator[subprocess.Popen[str]]:
    """Begin work that does not end, in a program of its own, which is gone when the context is left."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(trail)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # or leaving it would wait for its end


def test_no_worker_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    """Neither one that ignores signals nor one that holds Python's lock."""
    with program(tmp_path) as parent:
        wait_until(lambda: bool(attempts(tmp_path, 0) and attempts(tmp_path, 1)))
        parent.kill()
    assert len(pids(tmp_path)) == 2
    wait_until(lambda: not any(alive(pid) for pid in pids(tmp_path)))


def test_an_interruption_of_the_whole_group_ends_all_in_silence(tmp_path: Path) -> None:
    """As a terminal sends it; it is for the parent to end the others, those that cling to life by force."""
    with program(tmp_path) as parent:
        wait_until(lambda: bool(attempts(tmp_path, 0) and attempts(tmp_path, 1)))
        for pid in pids(tmp_path):
            os.kill(pid, signal.SIGINT)
        time.sleep(0.3)  # in which they would complain
        os.killpg(parent.pid, signal.SIGINT)
        told, complaints = parent.communicate()
    assert (told, complaints) == ("interrupted\n", "")
    assert not any(alive(pid) for pid in pids(tmp_path))
