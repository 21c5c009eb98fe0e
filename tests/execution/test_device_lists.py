"""Several devices between commas, from the command line and from a notebook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

import spectra_cli
from spectra_cli.cli.main import run
from spectra_cli.errors import SpectraError, UsageError
from spectra_cli.execution.executors.processes import Processes
from tests.analyses.formulas import chain, save_run


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run in the working directory."""
    monkeypatch.chdir(tmp_path)
    save_run(Path("run"), {step: chain((10, 9, 8, 7), seed=step) for step in range(5)})
    return "run"


@pytest.fixture
def worked_on(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, tuple[str, ...]]]:
    """Numbers of worker processes that were begun, and their devices."""
    begun: list[tuple[int, tuple[str, ...]]] = []
    original = Processes.__init__

    def noted(self: Processes, workers: int, devices: Any, *rest: Any) -> None:
        begun.append((workers, tuple(devices)))
        original(self, workers, devices, *rest)

    monkeypatch.setattr(Processes, "__init__", noted)
    return begun


@pytest.mark.parametrize(
    ("devices", "workers"), [("cpu,cpu", ["--workers", "2"]), (" cpu , cpu", [])], ids=["2", "all"]
)
def test_a_list_of_devices_makes_the_table_of_one(
    trained: str, devices: str, workers: list[str], worked_on: list[Any]
) -> None:
    """Row for row, to the bit; what is recorded of the device is the same."""
    assert run(["rank", trained, "--out", "one.parquet", "--quiet"]) == 0
    assert worked_on == []
    assert run(["rank", trained, "--device", devices, *workers, "--out", "two.parquet", "--quiet"]) == 0
    assert worked_on == [(2, ("cpu", "cpu"))]
    one, two = pq.read_table("one.parquet"), pq.read_table("two.parquet")
    assert two.replace_schema_metadata().equals(one.replace_schema_metadata())
    assert two.schema.metadata[b"spectra.device"] == one.schema.metadata[b"spectra.device"] == b"cpu"


def test_a_notebook_takes_a_list_too(trained: str, worked_on: list[Any]) -> None:
    expected = spectra_cli.rank(trained)
    pd.testing.assert_frame_equal(spectra_cli.rank(trained, device="cpu,cpu", workers=2), expected, check_exact=True)
    assert worked_on == [(2, ("cpu", "cpu"))]


@pytest.mark.parametrize("devices", [",", "cpu,", ",cpu", "cpu,,cpu", " ", "cpu;cpu", "cpu cpu", "cpu,gpu"])
def test_a_list_with_what_is_no_device_is_a_usage_error(
    trained: str, devices: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the option and what may be given; nothing is written."""
    assert run(["rank", trained, "--device", devices, "--out", "table.parquet"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "--device" in said
    assert "cuda:N" in said
    assert not Path("table.parquet").exists()
    with pytest.raises(UsageError, match="--device"):
        spectra_cli.rank(trained, device=devices)


@pytest.mark.parametrize("there", [0, 1])
def test_devices_of_two_kinds_are_refused(
    trained: str, there: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where there is no such GPU that is what is said; where there is one, why not both."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    assert run(["rank", trained, "--device", "cpu,cuda:0", "--out", "table.parquet"]) == (2 if there else 1)
    said = " ".join(capsys.readouterr().err.split())
    assert ("one kind of device" if there else "finds no CUDA device") in said
    with pytest.raises(SpectraError, match="cuda:0"):
        spectra_cli.rank(trained, device="cpu,cuda:0")


def test_fewer_workers_than_devices_are_refused(trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rank", trained, "--device", "cpu,cpu,cpu", "--workers", "2", "--out", "table.parquet"]) == 2
    assert "is less than the 3 devices. Give --workers 3 or more." in " ".join(capsys.readouterr().err.split())
