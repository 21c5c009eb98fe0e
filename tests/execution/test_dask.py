"""On a Dask cluster: a scheduler and workers on loopback, some of which are killed."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

from spectra_cli import __version__
from spectra_cli.errors import InputError, MissingExtraError
from spectra_cli.execution import daskclient
from spectra_cli.execution.dask import DaskCluster
from spectra_cli.execution.daskclient import NoWorkerWarning
from spectra_cli.execution.daskworker import NAME
from spectra_cli.execution.lostworkers import LostWorkerWarning, WorkerDiedError
from tests.execution.cluster import ROOT, Cluster
from tests.execution.planted_work import Heard, PlantedWork, attempts, chunks_of, wait_until


@pytest.fixture
def empty_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler without workers."""
    (directory := tmp_path / "cluster").mkdir()
    with Cluster(directory) as cluster:
        yield cluster


def works(client: Client) -> list[str]:
    """Names of works that are known on the cluster."""

    def known(dask_scheduler: object) -> list[str]:
        return [name for name in dask_scheduler.worker_plugins if name.startswith(NAME)]  # type: ignore[attr-defined]

    found: list[str] = client.run_on_scheduler(known)
    return found


def test_the_work_of_a_killed_worker_is_done_again(cluster: Cluster, tmp_path: Path) -> None:
    """By the other one: all outcomes arrive, each once."""
    work = PlantedWork(trail=tmp_path, pause_s=0.05)
    with cluster.replacing():
        outcomes = DaskCluster(cluster.address, "cpu").outcomes(work, chunks_of(24, 3), Heard())
        arrived = [next(outcomes)]
        os.kill(arrived[0].facts["pid"], signal.SIGKILL)
        arrived += outcomes
        cluster.wait_for(2)
    assert Counter(outcome.place for outcome in arrived) == Counter(range(24))
    assert all(outcome.error is None for outcome in arrived)
    assert any(len(attempts(tmp_path, place)) > 1 for place in range(24))


def test_a_unit_that_takes_down_its_workers_is_an_outcome(cluster: Cluster, tmp_path: Path) -> None:
    """After it has been alone; its neighbours are done well."""

    def impatient(dask_scheduler: object) -> int:
        before, dask_scheduler.allowed_failures = dask_scheduler.allowed_failures, 0  # type: ignore[attr-defined]
        return before

    def patient(dask_scheduler: object, failures: int) -> None:
        dask_scheduler.allowed_failures = failures  # type: ignore[attr-defined]

    work = PlantedWork({3: "dies"}, trail=tmp_path)
    with cluster.client() as client, cluster.replacing():
        before = client.run_on_scheduler(impatient)
        with pytest.warns(LostWorkerWarning, match="Dask workers have died"):
            outcomes = list(DaskCluster(cluster.address, "cpu").outcomes(work, chunks_of(8, 4), Heard()))
        client.run_on_scheduler(patient, failures=before)
        cluster.wait_for(2)
    assert sorted(outcome.place for outcome in outcomes) == list(range(8))
    errors = {outcome.place: outcome.error for outcome in outcomes if outcome.error is not None}
    assert list(errors) == [3]
    assert isinstance(errors[3], WorkerDiedError)
    assert len(attempts(tmp_path, 3)) == 3


def test_workers_are_waited_for_and_those_that_come_are_used(empty_cluster: Cluster, tmp_path: Path) -> None:
    """One with two threads, each of which has a worker of its own and its share of the cores."""
    meeting = PlantedWork({0: "waits for 1", 1: "waits for 0"}, trail=tmp_path)
    impatient = DaskCluster(empty_cluster.address, "cpu", patience_s=0.5)
    with pytest.warns(NoWorkerWarning, match="no Dask workers"), pytest.raises(InputError, match="no Dask worker for"):
        next(impatient.outcomes(meeting, chunks_of(2), Heard()))
    empty_cluster.add_worker(threads=2, environment={"OMP_NUM_THREADS": "2"})
    patient = DaskCluster(empty_cluster.address, "cpu")
    threads = {outcome.facts["thread"] for outcome in patient.outcomes(meeting, chunks_of(2), Heard())}
    assert (len(threads), len(list(tmp_path.glob("begun-*")))) == (2, 2)
    telling = PlantedWork({0: "tells threads"})
    list(patient.outcomes(telling, chunks_of(1), Heard()))  # imports torch, as reading a work of spectra does
    (outcome,) = patient.outcomes(telling, chunks_of(1), Heard())
    assert outcome.facts["threads"] == 1


def test_a_worker_without_spectra_is_named(empty_cluster: Cluster, tmp_path: Path) -> None:
    (package := tmp_path / "without" / "spectra_cli").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'spectra_cli'\")")
    empty_cluster.add_worker(environment={"PYTHONPATH": str(package.parent)})
    with pytest.raises(InputError, match=rf"worker tcp://\S+ has no spectra {__version__}") as raised:
        list(DaskCluster(empty_cluster.address).outcomes(PlantedWork(), chunks_of(1), Heard()))
    assert f"spectra-weights[dask]=={__version__}" in raised.value.remedy


def test_a_worker_with_another_spectra_is_named(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daskclient, "__version__", "99.9")
    with pytest.raises(InputError, match=rf"worker tcp://\S+ has spectra {__version__}, and here is 99\.9"):
        list(DaskCluster(cluster.address).outcomes(PlantedWork(), chunks_of(1), Heard()))


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:1", "nowhere://x", "127.0.0.1:x", "", "tls://127.0.0.1:1", "no/file.json"]
)
def test_where_nothing_answers_the_address_is_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daskclient, "CONNECT_S", 0.5)
    with pytest.raises(InputError, match="no Dask scheduler can be reached") as raised:
        list(DaskCluster(address).outcomes(PlantedWork(), chunks_of(1), Heard()))
    assert raised.value.where == address


def test_an_address_that_is_none_does_not_hold_up_the_program() -> None:
    """What has been made of a connection is gone when the error is told, and does not wait for an answer later."""
    code = "from spectra_cli.execution.dask import DaskCluster; DaskCluster('127.0.0.1:x').check_visible([])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].startswith("spectra_cli.errors.InputError: 127.0.0.1:x: no Dask scheduler")


def test_distributed_logs_nothing_while_it_works_for_spectra(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """And what it is told to log at other times stays as it was."""
    logger = logging.getLogger("distributed.client")
    before = logger.level
    for _ in DaskCluster(cluster.address).outcomes(PlantedWork(), chunks_of(1), Heard()):
        logger.critical("a comm is closed")
    assert caplog.records == []
    assert logger.level == before


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtraError, match=r"spectra-weights\[dask\]"):
        DaskCluster("tcp://127.0.0.1:1")


def test_a_path_that_workers_do_not_see_is_named(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path relative to the working directory here, which may not be that of the workers."""
    (tmp_path / "seen").touch()
    monkeypatch.chdir(tmp_path)
    DaskCluster(cluster.address).check_visible(["seen", tmp_path])
    with pytest.raises(InputError, match="does not see it") as raised:
        DaskCluster(cluster.address).check_visible(["seen", "unseen"])
    assert raised.value.where == str(tmp_path / "unseen")


def test_the_file_that_a_scheduler_writes_stands_for_its_address(cluster: Cluster) -> None:
    (outcome,) = DaskCluster(str(cluster.file)).outcomes(PlantedWork(), chunks_of(1), Heard())
    assert outcome.error is None


PROGRAM = """
import pathlib, sys
from spectra_cli.execution.dask import DaskCluster
from tests.execution.planted_work import Heard, PlantedWork, chunks_of

work = PlantedWork(trail=pathlib.Path(sys.argv[2]), pause_s=0.02)
try:
    for outcome in DaskCluster(sys.argv[1], "cpu").outcomes(work, chunks_of(int(sys.argv[3]), 2), Heard()):
        print(outcome.place, flush=True)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("sent", [None, signal.SIGINT, signal.SIGKILL])
def test_a_client_leaves_nothing_behind(sent: signal.Signals | None, cluster: Cluster, tmp_path: Path) -> None:
    """Neither when it is done nor when it is interrupted, and says nothing; after one is killed, the next cleans up."""
    units = 6 if sent is None else 2000
    client = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, cluster.address, str(tmp_path), str(units)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with client, cluster.client() as looking:
        assert client.stdout is not None
        assert client.stderr is not None
        first = client.stdout.readline()
        if sent is not None:
            client.send_signal(sent)
        told = client.stdout.read()
        if sent is None:
            assert sorted(map(int, [first, *told.split()])) == list(range(6))
        assert client.stderr.read() == ""
        assert ("interrupted" in told) == (sent == signal.SIGINT)
        if sent == signal.SIGKILL:
            assert len(works(looking)) == 1
            list(DaskCluster(cluster.address).outcomes(PlantedWork(), chunks_of(1), Heard()))
        assert works(looking) == []
    wait_until(lambda: len(list(tmp_path.glob("closed-*"))) == len(list(tmp_path.glob("begun-*"))) > 0)
