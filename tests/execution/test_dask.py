"""On a Dask cluster: a scheduler and workers on loopback, some of which are killed."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from distributed import Client

from spectra_cli import __version__
from spectra_cli.analyses.pruning import Pruning
from spectra_cli.errors import InputError, MissingExtraError
from spectra_cli.execution.evaluation.interpolator import AGREEMENT, BARRIER, BarrierWork
from spectra_cli.execution.evaluation.pairs import make_barrier_plan
from spectra_cli.execution.evaluation.pruner import VALUES, PruneWork
from spectra_cli.execution.executors import clusterworkers, dask, daskclient, schedulerfile
from spectra_cli.execution.executors.clusterworkers import NoWorkerWarning, SilentClusterWarning
from spectra_cli.execution.executors.dask import DaskCluster
from spectra_cli.execution.executors.daskworker import NAME
from spectra_cli.execution.executors.inprocess import InProcess
from spectra_cli.execution.executors.lostworkers import LostWorkerWarning, WorkerDiedError
from spectra_cli.execution.executors.schedulerfile import NoSchedulerFileWarning
from spectra_cli.execution.planning.options import Options, TaskOptions
from spectra_cli.execution.planning.plan import make_plan
from spectra_cli.execution.trajectory.analyst import CheckpointWork
from spectra_cli.execution.work.units import Assignment, Chunk
from tests.analyses import tiny_tasks
from tests.execution.cluster import ROOT, Cluster
from tests.execution.planted_work import Heard, PlantedWork, alive, attempts, chunks_of, let_go, wait_until


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


def at_work(trail: Path, place: int) -> int | None:
    """The process that has begun a unit last; None if none has."""
    return next((int(path.name.rpartition("-")[2]) for path in reversed(attempts(trail, place))), None)


def test_the_work_of_a_killed_worker_is_done_again(cluster: Cluster, tmp_path: Path) -> None:
    """By the other one: all outcomes arrive, each once. It is killed in the midst of a unit of its second chunk."""
    work = PlantedWork(dict.fromkeys(range(3, 24), "waits to be let go"), trail=tmp_path)
    with cluster.replacing():
        outcomes = DaskCluster(cluster.address, "cpu").outcomes(work, chunks_of(24, 3), Heard())
        arrived = [next(outcomes)]
        killed = arrived[0].facts["pid"]
        wait_until(lambda: killed in {at_work(tmp_path, place) for place in range(3, 24)})
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: not alive(killed))
        let_go(tmp_path)
        arrived += outcomes
    assert Counter(outcome.index for outcome in arrived) == Counter(range(24))
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
        try:
            with pytest.warns(LostWorkerWarning, match="Dask workers have died"):
                outcomes = list(DaskCluster(cluster.address, "cpu").outcomes(work, chunks_of(8, 4), Heard()))
        finally:
            client.run_on_scheduler(patient, failures=before)
    assert sorted(outcome.index for outcome in outcomes) == list(range(8))
    errors = {outcome.index: outcome.error for outcome in outcomes if outcome.error is not None}
    assert list(errors) == [3]
    assert isinstance(errors[3], WorkerDiedError)
    assert len(attempts(tmp_path, 3)) == 3


def test_workers_are_waited_for_and_those_that_come_are_used(empty_cluster: Cluster, tmp_path: Path) -> None:
    """One with two threads, each of which has a worker of its own and its share of the cores."""
    meeting = PlantedWork({0: "waits for 1", 1: "waits for 0"}, trail=tmp_path)
    impatient = DaskCluster(empty_cluster.address, "cpu", patience_s=5.0)  # for the answers of the scheduler as well
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


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "127.0.0.1:1", "tls://127.0.0.1:1", "ws://127.0.0.1:1"])
def test_where_nothing_answers_the_address_is_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daskclient, "CONNECT_S", 0.5)
    with pytest.raises(InputError, match="no Dask scheduler can be reached") as raised:
        list(DaskCluster(address).outcomes(PlantedWork(), chunks_of(1), Heard()))
    assert raised.value.where == address


def test_an_address_that_is_none_does_not_hold_up_the_program() -> None:
    """What has been made of a connection is gone when the error is told, and does not wait for an answer later."""
    code = "from spectra_cli.execution.executors.dask import DaskCluster; DaskCluster('tls://127.0.0.1:1').survey()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].startswith(
        "spectra_cli.errors.InputError: tls://127.0.0.1:1: no Dask scheduler"
    )


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


def test_the_file_that_a_scheduler_writes_stands_for_its_address(cluster: Cluster) -> None:
    (outcome,) = DaskCluster(str(cluster.file)).outcomes(PlantedWork(), chunks_of(1), Heard())
    assert outcome.error is None


def test_a_file_that_a_scheduler_is_about_to_write_is_waited_for(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The jobs of a batch system begin at the same time; a file may be there and not be whole yet."""
    path, whole, now_s = tmp_path / "scheduler.json", cluster.file.read_text(), 0.0

    def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds
        if now_s >= schedulerfile.TOLD_S + 5:
            path.write_text(whole)
        elif now_s > schedulerfile.TOLD_S:
            path.write_text(whole[: len(whole) // 2])

    monkeypatch.setattr(schedulerfile, "time", SimpleNamespace(monotonic=lambda: now_s, sleep=sleep))
    with pytest.warns(NoSchedulerFileWarning, match=r"scheduler\.json: .* waiting up to 10 minutes") as told:
        (outcome,) = DaskCluster(str(path)).outcomes(PlantedWork(), chunks_of(1), Heard())
    assert now_s == schedulerfile.TOLD_S + 5
    assert outcome.error is None
    assert len(told) == 1


def test_a_file_that_does_not_come_is_told_with_the_time_that_it_was_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "scheduler.json")
    with pytest.raises(InputError, match=r"no Dask scheduler has written its address .* for 0\.005 minutes") as raised:
        DaskCluster(path, patience_s=0.3).survey()
    assert raised.value.where == path


def test_the_file_of_a_scheduler_that_has_ended_is_left_to_the_next_one(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address_in, connect_s, found = daskclient.address_in, daskclient.CONNECT_S, list[str]()
    (path := tmp_path / "scheduler.json").write_text('{"address": "tcp://127.0.0.1:1"}')
    monkeypatch.setattr(daskclient, "CONNECT_S", 0.5)
    with pytest.raises(InputError, match="no Dask scheduler can be reached") as raised:
        DaskCluster(str(path)).survey()
    assert raised.value.where == f"{path} (tcp://127.0.0.1:1)"

    def finding(file: str, limit_s: float) -> str:
        if found:  # the next one has begun while the first was looked for
            path.write_text(cluster.file.read_text())
            monkeypatch.setattr(daskclient, "CONNECT_S", connect_s)
        found.append(address_in(file, limit_s))
        return found[-1]

    monkeypatch.setattr(daskclient, "address_in", finding)
    assert DaskCluster(str(path)).survey().threads == 2
    assert found == ["tcp://127.0.0.1:1", cluster.address]


def test_a_file_that_no_scheduler_writes_is_told_at_once(tmp_path: Path) -> None:
    """Neither is the other end of a pipe waited for, nor a huge file read, though it holds an address."""
    os.mkfifo(pipe := tmp_path / "pipe.json")
    with pytest.raises(InputError, match="this is a pipe"):
        DaskCluster(str(pipe)).survey()
    (huge := tmp_path / "huge.json").write_text('{"address": "tcp://127.0.0.1:1"}' + " " * (1 << 20))
    with pytest.raises(InputError, match="larger than 1 MiB"):
        DaskCluster(str(huge)).survey()
    for content in ('{"hidden_size": 64}', "[1, 2]", '{"address": 8786}'):
        (other := tmp_path / "config.json").write_text(content)
        with pytest.raises(InputError, match="it holds no address"):
            DaskCluster(str(other)).survey()


@pytest.mark.parametrize("content", ["hi", '{"address": "tcp'])
def test_a_file_that_stays_no_json_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr(schedulerfile, "WRITING_S", 0.3)
    (path := tmp_path / "scheduler.json").write_text(content)
    with pytest.raises(InputError, match="it is no JSON, and does not change"):
        DaskCluster(str(path)).survey()


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of time that no test waits long for."""
    monkeypatch.setattr(clusterworkers, "ANSWER_S", 1.0)
    monkeypatch.setattr(clusterworkers, "TOLD_S", 0.5)
    monkeypatch.setattr(daskclient, "ANSWER_S", 1.0)
    monkeypatch.setattr(daskclient, "CLOSE_S", 0.5)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that is there and does nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_worker_that_does_not_answer_is_told_once_and_the_other_does_the_work(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusterworkers, "ANSWER_S", 5.0)  # in which the other one answers, however slow it is
    with cluster.client() as looking:
        frozen, pid = next(iter(looking.run(os.getpid).items()))
    sending = DaskCluster(cluster.address, "cpu")
    with stopped(pid), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        survey = sending.survey()
        outcomes = list(sending.outcomes(PlantedWork(trail=tmp_path), chunks_of(12), Heard()))
    assert [str(each.message) for each in told if frozen in str(each.message)] == [
        f"the Dask worker {frozen} does not answer: the others do the work"
    ]
    assert survey.threads == 1
    assert sorted(outcome.index for outcome in outcomes) == list(range(12))
    assert {outcome.facts["pid"] for outcome in outcomes}.isdisjoint({pid})
    wait_until(lambda: sending.survey().threads == 2)  # it is used again after it has answered


def test_a_worker_that_stands_still_in_the_midst_of_its_work_is_told(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before the scheduler gives it up; when it goes on, it finishes what it was doing.

    Of the other one the same may be told, where the machine does not let it do anything for so long.
    """
    monkeypatch.setattr(clusterworkers, "HEARTBEATS_S", 0.2)
    monkeypatch.setattr(clusterworkers, "FROZEN_S", 3.0)
    with cluster.client() as looking:
        frozen, pid = next(iter(looking.run(os.getpid).items()))
    told = list[str]()

    def tell(message: Warning | str, *_: object, **__: object) -> None:
        if frozen in str(message):
            told.append(str(message))
            os.kill(pid, signal.SIGCONT)

    sending = DaskCluster(cluster.address, "cpu")
    work = PlantedWork(dict.fromkeys(range(12), "waits to be let go"), trail=tmp_path)
    outcomes, arrived = sending.outcomes(work, chunks_of(12), Heard()), []
    late = threading.Timer(120, os.kill, [pid, signal.SIGCONT])  # else a failure would take minutes

    def stop() -> None:
        wait_until(lambda: pid in {at_work(tmp_path, place) for place in range(12)})
        os.kill(pid, signal.SIGSTOP)
        let_go(tmp_path)

    stopping = threading.Thread(target=stop)
    late.start()
    stopping.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            monkeypatch.setattr(warnings, "showwarning", tell)
            arrived += outcomes
    finally:
        late.cancel()
        stopping.join()
        os.kill(pid, signal.SIGCONT)
    (message,) = told
    assert message.startswith(f"nothing has been heard of the Dask worker {frozen} for 3 s: ")
    assert sorted(outcome.index for outcome in arrived) == list(range(12))
    assert pid in {outcome.facts["pid"] for outcome in arrived}
    wait_until(lambda: sending.survey().threads == 2)


def test_a_work_that_is_taken_from_the_workers_is_an_error_and_loses_no_unit(cluster: Cluster, tmp_path: Path) -> None:
    """Another client does so where it finds that this one is gone; the units that are not done are not passed over."""
    outcomes = DaskCluster(cluster.address, "cpu").outcomes(
        PlantedWork(trail=tmp_path, pause_s=0.05), chunks_of(100), Heard()
    )
    next(outcomes)
    with cluster.client() as looking:
        for name in works(looking):
            looking.unregister_worker_plugin(name)
    with pytest.raises(InputError, match="has dropped the work"):
        list(outcomes)


@pytest.mark.usefixtures("_impatient")
def test_where_no_worker_answers_it_is_an_error(cluster: Cluster) -> None:
    with ExitStack() as stack, cluster.client() as looking:
        for pid in looking.run(os.getpid).values():
            stack.enter_context(stopped(pid))
        with pytest.warns(SilentClusterWarning), pytest.raises(InputError, match="none of the Dask workers answers"):
            DaskCluster(cluster.address, "cpu").survey()


def test_a_scheduler_that_does_not_answer_is_told_and_waited_for(
    cluster: Cluster, request: pytest.FixtureRequest
) -> None:
    """As long as the patience lasts; closing does not wait for it."""
    with cluster.client() as looking:
        pid = looking.run_on_scheduler(os.getpid)
    outcomes = DaskCluster(cluster.address, "cpu", patience_s=6.0).outcomes(PlantedWork(), chunks_of(500), Heard())
    next(outcomes)
    request.getfixturevalue("_impatient")  # from here on: before, whoever is slow is given time
    told = r"scheduler tcp://\S+ does not answer: waiting up to 0\.1 min"
    with (
        stopped(pid),
        pytest.warns(SilentClusterWarning, match=told),
        pytest.raises(InputError, match="scheduler has not answered for"),
    ):
        list(outcomes)


def test_an_interrupt_ends_a_client_whose_scheduler_does_not_answer(cluster: Cluster, tmp_path: Path) -> None:
    """Without another word: nothing waits for the scheduler again when the program ends."""
    with cluster.client() as looking:
        pid = looking.run_on_scheduler(os.getpid)
    hasty = "from spectra_cli.execution.executors import daskclient\ndaskclient.CLOSE_S = 0.3\n"
    with started(hasty + PROGRAM, cluster, tmp_path, 20_000) as client:
        assert client.stdout is not None
        assert client.stderr is not None
        client.stdout.readline()
        with stopped(pid):
            client.send_signal(signal.SIGINT)
            told = client.stdout.read()
            assert client.wait(60) == 0
        assert told.split()[-1] == "interrupted"
        assert client.stderr.read() == ""
    list(DaskCluster(cluster.address).outcomes(PlantedWork(), chunks_of(1), Heard()))
    with cluster.client() as looking:
        assert works(looking) == []


PROGRAM = """
import pathlib, sys
from spectra_cli.execution.executors.dask import DaskCluster
from tests.execution.planted_work import Heard, PlantedWork, chunks_of

work = PlantedWork(trail=pathlib.Path(sys.argv[2]), pause_s=0.02)
try:
    for outcome in DaskCluster(sys.argv[1], "cpu").outcomes(work, chunks_of(int(sys.argv[3]), 2), Heard()):
        print(outcome.index, flush=True)
except KeyboardInterrupt:
    print("interrupted")
"""


def started(program: str, cluster: Cluster, trail: Path, units: int) -> subprocess.Popen[str]:
    """A process that sends so many units to a cluster."""
    return subprocess.Popen(
        [sys.executable, "-c", program, cluster.address, str(trail), str(units)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("sent", [None, signal.SIGINT, signal.SIGKILL])
def test_a_client_leaves_nothing_behind(sent: signal.Signals | None, cluster: Cluster, tmp_path: Path) -> None:
    """Neither when it is done nor when it is interrupted, and says nothing; after one is killed, the next cleans up."""
    units = 6 if sent is None else 20_000
    client = started(PROGRAM, cluster, tmp_path, units)
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


BLIND = """
import os

exists = os.path.exists
os.path.exists = lambda path: os.environ["BLIND_TO"] not in os.fspath(path) and exists(path)
"""


def test_a_worker_that_does_not_see_the_checkpoints_is_an_error_before_any_work(
    empty_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the command that sends the work; and of one that joins afterwards, no row says so instead.

    The path is relative to the working directory here, which is not that of the worker.
    """
    (tmp_path / "blind").mkdir()
    (tmp_path / "blind" / "sitecustomize.py").write_text(BLIND)
    environment = {"PYTHONPATH": f"{tmp_path / 'blind'}{os.pathsep}{ROOT}", "BLIND_TO": str(tmp_path / "run")}
    empty_cluster.add_worker(environment=environment)
    monkeypatch.chdir(tmp_path)
    (work, chunks), heard = checkpoints(Path("run"), 1), Heard()
    where = str(tmp_path / "run")
    with pytest.raises(InputError, match=r"worker tcp://\S+ does not see it") as raised:
        list(DaskCluster(empty_cluster.address, "cpu").outcomes(work, chunks, heard))
    assert (raised.value.where, heard.events) == (where, [])
    monkeypatch.setattr(dask, "_check_seen", lambda *_: None)  # when it was not there
    with pytest.raises(InputError, match=r"worker tcp://\S+ does not see it") as raised:
        list(DaskCluster(empty_cluster.address, "cpu").outcomes(work, chunks, heard))
    assert (raised.value.where, heard.events) == (where, [])


def checkpoints(root: Path, number: int) -> tuple[CheckpointWork, list[Chunk]]:
    """The work of a run of checkpoints, and a chunk for each."""
    root.mkdir()
    for step in range(number):
        torch.save({"w": torch.eye(4) * (step + 1)}, root / f"step_{step}.pt")
    return CheckpointWork(make_plan([str(root)], Options(), ("rank",))), chunks_of(number)


DRAWS = """
import time
import torch
from tests.analyses.tiny_tasks import cnn

def make():
    task, metrics = cnn(), cnn().metrics

    def noisy(model, batch):
        inputs, labels = batch
        torch.manual_seed(0)
        time.sleep(0.002)
        return metrics(model, (inputs + torch.rand_like(inputs), labels))

    task.metrics = noisy
    return task
"""
"""A task that draws random numbers, which all threads of a process draw from one source."""


def test_threads_of_one_worker_make_what_one_process_makes(
    empty_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with what it knows of matrices, and one model after the other, pruned or between two others."""
    empty_cluster.add_worker(threads=3)
    analysed, chunks = checkpoints(tmp_path / "run", 9)
    (tmp_path / "models").mkdir()
    for step in range(4):
        torch.manual_seed(step)
        torch.save(tiny_tasks.cnn().model().state_dict(), tmp_path / "models" / f"step_{step}.pt")
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(DRAWS)
    task = TaskOptions(task="own.py:make")
    pruned = PruneWork(make_plan(["models"], Options(), (VALUES,)), task, Pruning(("full", "top", "random")))
    pairs = [(f"models@{a}", f"models@{b}") for a in range(4) for b in range(a)]
    between = BarrierWork(make_barrier_plan(pairs, Options(), task, 3), agreement=True)
    for work, each in (
        (analysed, chunks),
        (pruned, [(Assignment(index, (VALUES,)),) for index in range(4)]),
        (between, [(Assignment(index, (BARRIER, AGREEMENT)),) for index in range(len(pairs))]),
    ):
        alone = {outcome.index: outcome for outcome in InProcess("cpu").outcomes(work, each, Heard())}
        cluster = DaskCluster(empty_cluster.address, "cpu")
        together = {outcome.index: outcome for outcome in cluster.outcomes(work, each, Heard())}
        assert sorted(together) == sorted(alone) == list(range(len(each)))
        for index, outcome in together.items():
            assert outcome.error is None
            assert repr(outcome.tables) == repr(alone[index].tables)
            assert (outcome.facts, outcome.content) == (alone[index].facts, alone[index].content)
