"""What holds wherever work is done: in this process, in several, on a Dask cluster."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from spectra_cli.errors import CheckpointError, UsageError
from spectra_cli.execution.executors.dask import DaskCluster
from spectra_cli.execution.executors.inprocess import InProcess
from spectra_cli.execution.executors.processes import Processes
from spectra_cli.execution.work.events import CheckpointDone, CheckpointOpened, Remark
from spectra_cli.execution.work.units import Executor
from tests.execution.planted_work import (
    Heard,
    PlantedWork,
    UnreadableByPickleError,
    alive,
    chunks_of,
    wait_until,
)

pytestmark = pytest.mark.usefixtures("_tests_can_be_imported")


@pytest.fixture(params=["in process", "processes", "dask"])
def executor(request: pytest.FixtureRequest) -> Executor:
    """Each in turn."""
    if request.param == "dask":
        return DaskCluster(request.getfixturevalue("cluster").address, "cpu")
    return InProcess("cpu") if request.param == "in process" else Processes(2, ["cpu"])


def test_the_outcome_of_each_unit_arrives_once_and_whole(executor: Executor) -> None:
    """Rows with their arrays, content, facts, remarks, the errors of units that failed, and all events; no more."""
    heard, units = Heard(), 11
    work = PlantedWork({4: "fails"}, payload_bytes=1_000_000)
    outcomes = sorted(executor.outcomes(work, chunks_of(units, 3), heard), key=lambda outcome: outcome.index)
    assert [outcome.index for outcome in outcomes] == list(range(units))
    failed = outcomes.pop(4)
    assert type(failed.error) is CheckpointError
    assert (failed.error.what, failed.error.where, failed.error.remedy) == ("it is broken", "unit 4", "Mend it")
    assert failed.tables == {"rank": [{"status": "unreadable"}]}
    for outcome in outcomes:
        (row,) = outcome.tables["rank"]
        assert row["values"].dtype == np.float32
        assert np.array_equal(row["values"], np.full(250_000, outcome.index))
        assert row["values"].flags.writeable
        assert (row["parameter"], row["status"], outcome.error) == ("w", "ok", None)
        assert outcome.content == f"{outcome.index:032x}"
        assert outcome.facts["device"] == "cpu"
        assert list(outcome.remarks) == [Remark("told once", "once", matter="it"), Remark(f"of {outcome.index}")]
    expected = Counter(CheckpointOpened(matrices=1, flops=float(place)) for place in range(units))
    assert Counter(heard.events) == expected + Counter({CheckpointDone(): units - 1})


def test_what_a_worker_raises_is_raised_with_what_it_says(executor: Executor) -> None:
    with pytest.raises(UsageError, match=r"unit 2: nobody can do this\. Ask for less\.$") as raised:
        list(executor.outcomes(PlantedWork({2: "raises"}), chunks_of(3, 3), Heard()))
    assert (raised.value.remedy, raised.value.exit_status) == ("Ask for less", 2)


def test_an_exception_that_cannot_travel_is_told(executor: Executor) -> None:
    """Its class and its words, by an exception that can."""
    with pytest.raises((RuntimeError, UnreadableByPickleError)) as raised:
        list(executor.outcomes(PlantedWork({0: "raises its own"}), chunks_of(1), Heard()))
    assert "this and that" in str(raised.value)
    assert "UnreadableByPickleError" in f"{type(raised.value).__name__} {raised.value}"


def test_a_work_that_cannot_begin_says_why(executor: Executor) -> None:
    with pytest.raises(UsageError, match=r"here: --device cpu is unknown\. Give another\.$"):
        list(executor.outcomes(PlantedWork(begins="no such device"), chunks_of(1), Heard()))


def test_warnings_reach_whoever_asked_for_the_work(executor: Executor) -> None:
    """When a worker gets ready, and in the middle; with their class, so that they can be filtered by it."""
    with pytest.warns(FutureWarning) as told:
        list(executor.outcomes(PlantedWork({1: "warns"}, begins="warns"), chunks_of(3, 3), Heard()))
    assert {str(warning.message) for warning in told} == {"beware of 1", "it runs elsewhere"}


def test_closing_the_iterator_ends_the_work(executor: Executor, tmp_path: Path) -> None:
    """Every worker that has begun is closed, unless its process has ended; and most of the work is left undone."""
    first, *others = (assignment for (assignment,) in chunks_of(4001))
    chunks = [(first,), *(tuple(others[start : start + 1000]) for start in range(0, 4000, 1000))]
    outcomes = executor.outcomes(PlantedWork(trail=tmp_path, pause_s=0.05), chunks, Heard())
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]  # a generator

    def ended() -> bool:
        begun, closed = ({path.name.partition("-")[2] for path in tmp_path.glob(f"{what}-*")} for what in WORKERS)
        return bool(begun) and not any(alive(int(worker.partition("-")[0])) for worker in begun - closed)

    wait_until(ended)
    tried = {int(path.name.partition("-")[0]) for path in tmp_path.glob("[0-9]*-*")}
    assert len(tried) < 1000
    assert tried.isdisjoint({1, 1001, 2001, 3001}), "one came to the end of its chunk"


WORKERS = ("begun", "closed")


def test_no_chunks_are_no_work(executor: Executor) -> None:
    """Nobody gets ready for nothing."""
    assert list(executor.outcomes(PlantedWork(begins="no such device"), [], Heard())) == []
