"""Anonymous memory of `spectra rank`, measured from outside: it is bounded, and flat in checkpoints and layers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.benchmarks.synthetic import peak_anonymous_mebibytes, save_run

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")

LIMIT_MEBIBYTES = 600


def peak(run: Path, *options: str) -> int:
    return peak_anonymous_mebibytes(["rank", str(run), "--quiet", "--out", str(run.parent / "rank.parquet"), *options])


def test_the_checkpoint_of_the_figures_stays_under_600_mebibytes_and_a_budget_lowers_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = save_run(tmp_path / "run", 1)
    assert peak(run) < LIMIT_MEBIBYTES
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1048576")  # glibc gives back what is freed: the rest is in use
    assert peak(run, "--memory-budget", "24MiB") < peak(run) - 20


def test_memory_does_not_grow_with_checkpoints_or_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1048576")
    small = peak(save_run(tmp_path / "small", 1, layers=1, vocabulary=2000))
    more_checkpoints = peak(save_run(tmp_path / "long", 6, layers=1, vocabulary=2000))
    more_layers = peak(save_run(tmp_path / "deep", 1, layers=6, vocabulary=2000))
    matrix = 4 * 3072 * 768 / 2**20
    assert more_checkpoints < small + matrix
    assert more_layers < small + matrix
