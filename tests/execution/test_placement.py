"""Where work is done, as the command line says: by how many, on what, and with what share of the memory."""

from __future__ import annotations

import pytest
import torch

from spectra_cli.errors import UsageError
from spectra_cli.execution.executors import placement
from spectra_cli.execution.executors.device import work_place_of
from spectra_cli.execution.executors.inprocess import InProcess
from spectra_cli.execution.executors.placement import WORKERS_PER_CORE, CrowdedCoresWarning, placement_of
from spectra_cli.execution.executors.processes import Processes
from spectra_cli.execution.executors.schedulerfile import check_address
from spectra_cli.execution.planning.options import ExecutionOptions, Options
from spectra_cli.execution.trajectory.job import LARGEST_CHUNK, chunked
from spectra_cli.execution.work.units import Assignment


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with several."""
    monkeypatch.setattr(placement, "resolve_device", lambda name: torch.device("cuda:0" if name == "auto" else name))
    monkeypatch.setattr(placement, "described", str)
    monkeypatch.setattr(placement, "usable_cores", lambda: 4)


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
        ("cuda:0,cuda:0,cuda:1", None, (Processes, 3, 2, "cuda:0, cuda:1")),
        ("cuda:0,cuda:0,cuda:0,cuda:1", None, (Processes, 4, 3, "cuda:0, cuda:1")),
        ("cuda:0,cuda:0,cuda:1", 4, (Processes, 4, 3, "cuda:0, cuda:1")),
    ],
)
@pytest.mark.usefixtures("gpus")
def test_every_device_has_a_worker_and_those_of_one_share_its_memory(
    device: str, workers: int | None, expected: tuple[type, int, int, str]
) -> None:
    found = placement_of(device, ExecutionOptions(workers))
    assert (type(found.executor), found.workers, found.sharing, found.device) == expected


@pytest.mark.usefixtures("gpus")
def test_more_workers_than_are_of_use_are_begun_and_told() -> None:
    """On cores; those of a GPU wait for that, and one more may be of use where storage is slow."""
    most = 4 * WORKERS_PER_CORE
    with pytest.warns(CrowdedCoresWarning, match=rf"^--workers {most + 1} on 4 cores: ") as told:
        assert placement_of("cpu", ExecutionOptions(most + 1)).workers == most + 1
    assert len(told) == 1
    assert placement_of("cpu", ExecutionOptions(most)).workers == most
    assert placement_of("cuda:0", ExecutionOptions(most + 1)).workers == most + 1


@pytest.mark.parametrize("address", ["", "foo://x", "http://head:8787", "head", "tcp://head", "127.0.0.1:x", "[::1"])
def test_what_is_no_address_of_a_scheduler_is_a_usage_error_before_it_is_tried(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distributed.Client.__init__", lambda *_, **__: pytest.fail("it is connected"))
    with pytest.raises(UsageError, match="is no address") as raised:
        placement_of("cpu", ExecutionOptions(scheduler=address))
    assert f"--scheduler '{address}'" in str(raised.value)


@pytest.mark.parametrize(
    "address", ["tcp://head:8786", "head:8786", "tls://[::1]:8786", "ucx://10.0.0.1:8786", "a.json"]
)
def test_addresses_as_dask_has_them_are_tried(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize(
    ("device", "execution", "said"),
    [
        ("cpu,cuda:0", ExecutionOptions(), "one kind of device"),
        (
            "cuda:0,cuda:1",
            ExecutionOptions(1),
            r"^--workers 1 is less than the 2 devices\. Give --workers 2 or more\.$",
        ),
        ("cuda:0,cuda:1", ExecutionOptions(scheduler="tcp://127.0.0.1:1"), "has one device"),
    ],
)
@pytest.mark.usefixtures("gpus")
def test_devices_that_do_not_go_together_are_a_usage_error(device: str, execution: ExecutionOptions, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        placement_of(device, execution)


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
        ExecutionOptions(**given)  # type: ignore[arg-type]  # as the test is about


@pytest.mark.parametrize("sharing", [1, 2, 5])
def test_workers_share_the_memory_budget(sharing: int) -> None:
    whole = work_place_of(Options(budget_bytes=10**9), "cpu")
    part = work_place_of(Options(budget_bytes=10**9), "cpu", sharing=sharing)
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
