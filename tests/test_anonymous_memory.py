"""Anonymous memory of `spectra rank`, measured from outside: it is bounded, and flat in checkpoints and layers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spectra_cli.analyses.contents import read_ahead_bytes, working_memory_bytes
from spectra_cli.layers.inventory import take_inventory
from spectra_cli.tensors import TensorInfo
from tests.benchmarks.synthetic import peak_anonymous_mebibytes, save_run

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")

LIMIT_MEBIBYTES = 600

FIRST_ROWS_MEBIBYTES = 32
"""What pyarrow takes for itself when the rows of the first checkpoint are kept, before the second is worked on."""


def peak(run: Path, *options: str, command: str = "rank") -> int:
    out = run.parent / ("tables" if command == "analyze" else "table.parquet")
    return peak_anonymous_mebibytes([command, str(run), "--quiet", "--out", str(out), *options])


def test_the_checkpoint_of_the_figures_stays_under_600_mebibytes(tmp_path: Path) -> None:
    assert peak(save_run(tmp_path / "run", 1)) < LIMIT_MEBIBYTES


def test_a_budget_is_kept_and_lowers_what_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond what a tiny checkpoint takes, which is the libraries."""
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1048576")  # glibc gives back what is freed: the rest is in use
    tiny, run = tmp_path / "tiny" / "run", tmp_path / "large" / "run"
    for directory, rows, cols in ((tiny, 8, 4), (run, 15_000, 1000)):
        directory.mkdir(parents=True)
        save_file({f"layers.{n}.weight": torch.randn(rows, cols) for n in range(3)}, directory / "step_1.safetensors")
    libraries, unlimited = peak(tiny), peak(run)
    assert unlimited - libraries > 100
    inventory = take_inventory({"x.weight": TensorInfo("x.weight", (15_000, 1000), "float32")}, ordered=True)
    assert unlimited - libraries <= working_memory_bytes(inventory.matrices) >> 20, "more than inspect says"
    assert peak(run, "--memory-budget", "96MiB") - libraries <= 96


def test_memory_does_not_grow_with_checkpoints_or_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But that the next of several checkpoints is read ahead, all 39 MiB of it; five more would be 193."""
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1048576")
    small = peak(save_run(tmp_path / "small" / "run", 1, layers=1, vocabulary=2000))
    more_checkpoints = peak(save_run(tmp_path / "long" / "run", 6, layers=1, vocabulary=2000))
    more_layers = peak(save_run(tmp_path / "deep" / "run", 1, layers=6, vocabulary=2000))
    matrix = 4 * 3072 * 768 / 2**20
    inventory = take_inventory({"x.weight": TensorInfo("x.weight", (13_216, 768), "float32")}, ordered=True)  # as large
    ahead = read_ahead_bytes(inventory.matrices) >> 20
    assert more_checkpoints < small + ahead + FIRST_ROWS_MEBIBYTES + matrix, "more than inspect says"
    assert more_layers < small + matrix


@pytest.mark.parametrize("reference", ["final", "previous"])
def test_memory_of_analyze_does_not_grow_with_the_trajectory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    """Vectors of one reference are kept at a time, or of two while they change places, and not of five more.

    When they change places depends on what is read ahead by then.
    """
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1048576")
    options = ("--reference", reference, "--heads", "12")
    short = peak(save_run(tmp_path / "short" / "run", 3, layers=1, vocabulary=2000), *options, command="analyze")
    long = peak(save_run(tmp_path / "long" / "run", 8, layers=1, vocabulary=2000), *options, command="analyze")
    vectors = 4 * 100 * sum((2304 + 768, 768 + 768, 3072 + 768, 768 + 3072, 2000 + 768, 2000 + 768)) / 2**20
    assert long - short < 3 * vectors
