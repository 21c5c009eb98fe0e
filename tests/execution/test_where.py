"""Where work is done, as the command line says: by how many, on what, and with what share of the memory."""

from __future__ import annotations

import pytest
import torch

from spectra_cli.errors import UsageError
from spectra_cli.execution.executors import placement as where
from spectra_cli.execution.executors.device import place_of
from spectra_cli.execution.executors.inprocess import InProcess
from spectra_cli.execution.executors.placement import Doing, where_of
from spectra_cli.execution.executors.processes import Processes
from spectra_cli.execution.planning.options import Options
from spectra_cli.execution.trajectory.job import LARGEST_CHUNK, chunked
from spectra_cli.execution.work.units import Assignment


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with several."""
    monkeypatch.setattr(where, "resolve_device", lambda name: torch.device("cuda:0" if name == "auto" else name))
    monkeypatch.setattr(where, "described", str)


@pytest.mark.parametrize(
    ("device", "workers", "expected"),
    [
        ("cpu", None, (InProcess, 1, 1, "cpu")),
        ("cpu", 1, (InProcess, 1, 1, "cpu")),
        ("cpu", 3, (Processes, 3, 3, "cpu")),
        ("auto", None, (InProcess, 1, 1, "cuda:0")),
        ("cuda:0,cuda:1", None, (Processes, 2, 1, "cuda:0, cuda:1")),
        ("cuda:0, cuda:1", 4, (Processes, 4, 2, "cuda:0, cuda:1")),
        ("cuda:0,cuda:1", 3, (Processes, 3, 2, "cuda:0, cuda:1")),
        ("cuda:1", 2, (Processes, 2, 2, "cuda:1")),
    ],
)
@pytest.mark.usefixtures("gpus")
def test_every_device_has_a_worker_and_those_of_one_share_its_memory(
    device: str, workers: int | None, expected: tuple[type, int, int, str]
) -> None:
    found = where_of(device, Doing(workers))
    assert (type(found.executor), found.workers, found.sharing, found.device) == expected


@pytest.mark.parametrize(
    ("device", "doing", "said"),
    [
        ("cpu,cuda:0", Doing(), "one kind of device"),
        ("cuda:0,cuda:1", Doing(1), "--workers 1"),
        ("cuda:0,cuda:1", Doing(scheduler="tcp://127.0.0.1:1"), "has one device"),
    ],
)
@pytest.mark.usefixtures("gpus")
def test_devices_that_do_not_go_together_are_a_usage_error(device: str, doing: Doing, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        where_of(device, doing)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"workers": 0}, "--workers 0"),
        ({"workers": 2, "scheduler": "tcp://a:1"}, "exclude each other"),
        ({"fresh": True, "verify": True}, "exclude each other"),
    ],
)
def test_options_that_contradict_each_other_are_a_usage_error(given: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Doing(**given)  # type: ignore[arg-type]  # as the test is about


@pytest.mark.parametrize("sharing", [1, 2, 5])
def test_workers_share_the_memory_budget(sharing: int) -> None:
    whole = place_of(Options(budget_bytes=10**9), "cpu")
    part = place_of(Options(budget_bytes=10**9), "cpu", sharing=sharing)
    assert part.budget_bytes == whole.budget_bytes // sharing


@pytest.mark.parametrize("count", [0, 1, 7, 100, 10_000])
@pytest.mark.parametrize("workers", [1, 2, 16])
def test_chunks_are_all_assignments_in_order_and_leave_no_worker_without(count: int, workers: int) -> None:
    assignments = [Assignment(place, ("rank",)) for place in range(count)]
    chunks = chunked(assignments, workers)
    assert [assignment for chunk in chunks for assignment in chunk] == assignments
    if workers == 1:
        assert len(chunks) == min(count, 1)
    else:
        assert all(len(chunk) <= LARGEST_CHUNK for chunk in chunks)
        assert len(chunks) >= min(count, workers)
