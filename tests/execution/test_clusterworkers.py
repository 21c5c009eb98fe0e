"""Which workers of a cluster are used, and what is told of the others: by a clock and a cluster that a test plants."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from spectra_cli.errors import InputError
from spectra_cli.execution.executors import clusterworkers
from spectra_cli.execution.executors.clusterworkers import (
    FROZEN_S,
    HEARTBEATS_S,
    ClusterWorkers,
    NoWorkerWarning,
    SilentClusterWarning,
)
from spectra_cli.execution.executors.lostworkers import LOOK_S

PATIENCE_S = 600.0


@dataclass
class PlantedCluster:
    """What a client of Dask knows of a cluster, and a clock.

    Attributes:
        threads: of the workers that are there, by address.
        answers: what a worker says, or raises at this end, to whatever it is asked; ``yes`` where it is not among them.
        heartbeats: the time of the last one of each worker; the clock of the scheduler is another one.
        silent: whether the scheduler does not answer.
        now: seconds of the clock here.
    """

    threads: dict[str, int] = field(default_factory=lambda: {"a": 1, "b": 2})
    answers: dict[str, object] = field(default_factory=dict)
    heartbeats: dict[str, float] = field(default_factory=dict)
    silent: bool = False
    now: float = 5000.0

    def sync(self, asked: Callable[[], Any]) -> Any:
        return asyncio.run(asked())

    async def nthreads(self) -> Mapping[str, int]:
        if self.silent:
            raise TimeoutError
        return dict(self.threads)

    async def run(self, _function: object, *_: object, workers: list[str], on_error: str) -> dict[str, object]:
        assert on_error == "return"
        (worker,) = workers
        answer = self.answers.get(worker, "yes")
        if isinstance(answer, type) and issubclass(answer, Exception):
            raise answer
        return {worker: answer}

    @property
    def scheduler(self) -> Any:
        async def identity() -> dict[str, Any]:
            return {"workers": {worker: {"last_seen": self.heartbeats.get(worker, 1.0)} for worker in self.threads}}

        return SimpleNamespace(identity=identity)

    def monotonic(self) -> float:
        return self.now

    def passes(self, seconds: float, *, beats: str = "") -> None:
        """Let time pass, in which some workers send heartbeats."""
        self.now += seconds
        for worker in beats:
            self.heartbeats[worker] = self.heartbeats.get(worker, 1.0) + seconds


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> PlantedCluster:
    planted = PlantedCluster()
    monkeypatch.setattr(clusterworkers, "time", SimpleNamespace(monotonic=planted.monotonic, sleep=planted.passes))
    return planted


def watched(cluster: PlantedCluster, silent: set[str] | None = None) -> ClusterWorkers:
    return ClusterWorkers(cluster, "tcp://head", PATIENCE_S, set() if silent is None else silent)  # type: ignore[arg-type]


@contextmanager
def told() -> Iterator[list[warnings.WarningMessage]]:
    """All that is told, were it told twice."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield found


# Nobody there


def test_workers_are_waited_for_from_when_the_last_one_went(cluster: PlantedCluster) -> None:
    """A work may take days, at whose end a batch system replaces them all; each absence is told once."""
    workers = watched(cluster)
    for _ in range(2):
        for _ in range(3):
            cluster.threads = {"a": 1}
            cluster.passes(PATIENCE_S, beats="ab")
            assert workers.threads() == 1
        cluster.threads = {}
        with told() as found:
            for _ in range(3):
                cluster.passes(PATIENCE_S / 4)
                assert workers.threads() == 0
        assert [each.category for each in found] == [NoWorkerWarning]
    cluster.passes(PATIENCE_S / 4)
    with pytest.raises(InputError, match="there has been no Dask worker for 10 minutes"):
        workers.threads()


def test_a_scheduler_is_waited_for_from_when_it_answered_last(cluster: PlantedCluster) -> None:
    """And the workers that it told of then are thought to be there."""
    workers = watched(cluster)
    for _ in range(2):
        for _ in range(3):
            cluster.silent = False
            cluster.passes(PATIENCE_S, beats="ab")
            assert workers.threads() == 3
        cluster.silent = True
        with told() as found:
            for _ in range(3):
                cluster.passes(PATIENCE_S / 4)
                assert workers.threads() == 3
        assert [each.category for each in found] == [SilentClusterWarning]
    cluster.passes(PATIENCE_S / 4)
    with pytest.raises(InputError, match="the Dask scheduler has not answered for 10 minutes"):
        workers.threads()


# Workers that are asked


def test_a_worker_that_does_not_answer_is_told_once_and_used_when_it_does(cluster: PlantedCluster) -> None:
    """Whether it takes too long, cannot be reached by the scheduler, or is gone when it is asked."""
    for answer in (TimeoutError, OSError("cannot be reached"), KeyError):
        silent = set[str]()
        workers, cluster.answers = watched(cluster, silent), {"a": answer}
        with told() as found:
            for _ in range(2):
                assert workers.ask(str) == {"b": "yes"}
        assert [str(each.message) for each in found] == ["the Dask worker a does not answer: the others do the work"]
        assert (silent, workers.preferred(), workers.threads()) == ({"a"}, ["b"], 2)
        cluster.answers = {}
        assert workers.ask(str) == {"a": "yes", "b": "yes"}
        assert (silent, workers.preferred(), workers.threads()) == (set(), None, 3)


def test_an_error_of_a_worker_is_an_answer(cluster: PlantedCluster) -> None:
    workers, error = watched(cluster), ValueError("it has no such device")
    cluster.answers = {"a": error}
    assert workers.ask(str) == {"a": error, "b": "yes"}
    assert workers.preferred() is None


def test_workers_are_not_blamed_for_a_scheduler_that_does_not_answer(cluster: PlantedCluster) -> None:
    """They are asked again when it does."""
    workers, look = watched(cluster), ClusterWorkers._look
    assert workers.threads() == 3
    cluster.answers, cluster.silent = dict.fromkeys("ab", TimeoutError), True

    def looking(self: ClusterWorkers) -> bool:
        answered = look(self)
        if not answered:
            cluster.answers, cluster.silent = {}, False
        return answered

    with pytest.MonkeyPatch.context() as patch, told() as found:
        patch.setattr(ClusterWorkers, "_look", looking)
        assert workers.ask(str) == {"a": "yes", "b": "yes"}
    assert ["scheduler" in str(each.message) for each in found] == [True]
    assert workers.preferred() is None


# Workers that stand still


def looked(cluster: PlantedCluster, workers: ClusterWorkers, seconds: float, beats: str) -> list[str]:
    """Let time pass with heartbeats of some workers; what was told meanwhile."""
    with told() as found:
        for _ in range(int(seconds / HEARTBEATS_S)):
            cluster.passes(HEARTBEATS_S, beats=beats)
            workers.threads()
    return [str(each.message) for each in found]


def test_a_worker_without_heartbeats_is_told_once_and_used_when_it_goes_on(cluster: PlantedCluster) -> None:
    workers = watched(cluster)
    for _ in range(2):
        assert looked(cluster, workers, 2 * FROZEN_S, beats="ab") == []
        assert workers.preferred() is None
        (said,) = looked(cluster, workers, 3 * FROZEN_S, beats="b")
        assert said.startswith("nothing has been heard of the Dask worker a for 30 s: ")
        assert workers.preferred() == ["b"]


def test_a_worker_that_has_not_answered_is_used_again_only_with_a_new_heartbeat(cluster: PlantedCluster) -> None:
    """One that came before it was asked says nothing."""
    workers = watched(cluster, {"a"})
    assert looked(cluster, workers, FROZEN_S / 2, beats="b") == []
    assert workers.preferred() == ["b"]
    assert looked(cluster, workers, FROZEN_S / 2, beats="ab") == []
    assert workers.preferred() is None


def test_of_thousands_of_workers_each_may_be_silent_for_longer(cluster: PlantedCluster) -> None:
    """Dask has them send fewer heartbeats, lest they keep the scheduler from its work."""
    cluster.threads = {f"worker {number}": 1 for number in range(4000)}
    workers = watched(cluster)
    assert looked(cluster, workers, 190, beats="") == []
    assert sum("nothing has been heard" in each for each in looked(cluster, workers, 60, beats="")) == 4000


def test_the_cluster_is_not_asked_at_every_turn(cluster: PlantedCluster) -> None:
    workers = watched(cluster)
    assert workers.threads() == 3
    cluster.threads = {"a": 1}
    cluster.passes(LOOK_S / 2)
    assert workers.threads() == 3
    cluster.passes(LOOK_S / 2)
    assert workers.threads() == 1
