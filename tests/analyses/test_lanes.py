"""Several lanes do what one does: the same rows, in the same order, told in the same order."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import spectra_cli
from spectra_cli.analyses import lanes, visits
from spectra_cli.analyses.demands import WorkPlace
from spectra_cli.analyses.groups import arranged
from spectra_cli.analyses.lanes import as_completed, available_cores, blas_threads, heaviest_first, lane_count
from spectra_cli.execution.work.listener import SkippedWorkWarning
from spectra_cli.layers.matricize import MatrixSpec
from spectra_cli.spectrum.memory import SQUARES, SQUARES_FOR_VECTORS
from spectra_cli.tensors import TensorInfo

WORK = st.lists(st.floats(1e3, 1e12), min_size=1, max_size=40)


@given(WORK, st.integers(1, 64), st.integers(0, 64))
def test_no_lane_is_left_without_its_share_of_work_cores_or_memory(
    work: list[float], cores: int, affordable: int
) -> None:
    count = lane_count(work, cores, affordable)
    assert 1 <= count <= lanes.MOST_LANES
    if count > 1:
        assert max(work) * count <= sum(work) * (1 + 1e-9)
        assert count <= min(cores, affordable, len(work))


@given(WORK, st.integers(1, 4))
def test_large_groups_come_first_and_the_others_in_their_order(work: list[float], count: int) -> None:
    order = heaviest_first(list(range(len(work))), work, count)
    assert sorted(order) == list(range(len(work)))
    heavy = sum(work) / (4 * count)
    light = [place for place in order if work[place] < heavy]
    assert light == sorted(light)
    first = [work[place] for place in order if work[place] >= heavy]
    assert first == sorted(first, reverse=True)
    assert all(work[place] >= heavy for place in order[: len(first)])


def test_lanes_work_at_the_same_time_and_few_results_wait() -> None:
    """Two items that wait for each other finish in two lanes; and nobody works ahead of a slow reader without end."""
    meeting = threading.Barrier(2, timeout=120)
    assert sorted(as_completed(range(2), lambda item: meeting.wait() * 0 + item, 2)) == [0, 1]
    begun: list[int] = []
    results = as_completed(range(50), lambda item: begun.append(item) or item, 2)
    next(results)
    time.sleep(0.05)
    assert len(begun) <= 4
    results.close()
    assert len(begun) <= 6


def test_a_lane_works_on_while_a_result_is_looked_at_and_no_further_once_they_are_let_go_of() -> None:
    begun: list[int] = []
    held, over = threading.Event(), threading.Event()

    def work(item: int) -> int:
        begun.append(item)
        if item:
            held.set()
            over.wait(120)
        return item

    results = as_completed(range(50), work, 1)
    assert next(results) == 0
    assert held.wait(120)
    threading.Timer(0.2, over.set).start()
    results.close()
    assert begun == [0, 1]


@pytest.mark.parametrize(("asked", "cores"), [("3", 3), ("3,2", 3), ("0", 2), ("many", 2), ("", 2), (None, 2)])
def test_cores_are_those_that_the_process_may_use_unless_it_is_told(
    asked: str | None, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 5}, raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    if asked is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert available_cores() == cores


def test_an_error_in_a_lane_reaches_the_caller() -> None:
    def fail(item: int) -> int:
        if item == 3:
            raise KeyError(item)
        return item

    with pytest.raises(KeyError):
        list(as_completed(range(10), fail, 2))


def test_the_number_of_threads_is_given_back() -> None:
    def stop() -> None:
        with blas_threads(1):
            assert torch.get_num_threads() == 1
            raise RuntimeError("stop")

    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="stop"):
        stop()
    assert torch.get_num_threads() == before


def save_run(directory: Path) -> Path:
    """Matrices of many shapes; in the second checkpoint two of them are not finite."""
    directory.mkdir()
    generator = torch.Generator().manual_seed(3)
    weights = {
        f"layers.{layer}.weight": torch.randn(rows, cols, generator=generator)
        for layer, (rows, cols) in enumerate([(300, 80), (80, 300), (60, 80), (200, 60), (33, 200), (500, 33)] * 2)
    }
    save_file(weights, directory / "step_0.safetensors")
    for layer in (4, 9):
        weights[f"layers.{layer}.weight"][0, 0] = torch.nan
    save_file(weights, directory / "step_1.safetensors")
    return directory


def test_rows_and_messages_do_not_depend_on_the_number_of_lanes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = save_run(tmp_path / "run")
    counted: list[int] = []

    def analyzed(cores: int) -> tuple[spectra_cli.execution.notebook.functions.Analysis, list[str]]:
        monkeypatch.setattr(visits, "blas_threads", lambda count: counted.append(count) or blas_threads(1))
        with blas_threads(cores), pytest.warns(SkippedWorkWarning) as warned:
            tables = spectra_cli.analyze(run)
        return tables, [str(warning.message) for warning in warned]

    (one, told_one), (several, told_several) = analyzed(1), analyzed(3)
    assert counted, "the lanes were not taken"
    assert told_one == told_several
    for expected, found in zip(one, several, strict=True):
        exact = [column for column in expected if expected[column].dtype != "float64"]
        exact = [column for column in exact if column not in {"singular_values", "diagonal"}]
        pd.testing.assert_frame_equal(found[exact], expected[exact])
    pd.testing.assert_series_equal(one.rank.effective_rank, several.rank.effective_rank, rtol=1e-9)
    pd.testing.assert_series_equal(one.align.score, several.align.score, atol=1e-6)


@pytest.mark.parametrize("cores", [2, 4])
def test_a_lane_holds_what_the_whole_budget_holds(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """More lanes never leave a matrix without room that one lane has room for."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    side = 1500
    specs = {
        depth: MatrixSpec(str(depth), "linear", side, side, TensorInfo(str(depth), (side, side), "bfloat16"))
        for depth in range(4)
    }
    squares = 8 * (SQUARES["qr_float64"] + SQUARES_FOR_VECTORS) * side**2
    taken = set()
    for budget_bytes in range(200 << 20, 6000 << 20, 4 << 20):
        place = WorkPlace(torch.device("cpu"), budget_bytes, budget_bytes // 4, budget_bytes // 8)
        lanes = arranged(specs, lambda _: None, place).lanes
        assert lanes == 1 or place.share(lanes).working_bytes > squares
        taken.add(lanes)
    assert taken == set(range(1, cores + 1)), "all numbers of lanes were taken, so that the test says something"
