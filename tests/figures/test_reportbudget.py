"""What a page leaves out: in the order that is promised, no more than it must, and it says so."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra_cli.figures.page.data import embedded
from spectra_cli.figures.page.rendering import render
from spectra_cli.figures.report.budget import (
    BUDGET_BYTES,
    MAPS_BYTES,
    DetailPolicy,
    DetailSize,
    MapPolicy,
    MapSize,
    detail_bytes,
    detail_policy,
    log_spread,
    map_bytes,
    map_policy,
    spread,
)
from spectra_cli.figures.report.composing import make_document
from spectra_cli.figures.report.lists import Wanted, read_lists
from spectra_cli.tables import reader
from tests.figures.planted import gathered, rank_row, transformer, write

COUNTS = st.integers(1, 5000)


@settings(deadline=None)  # machines that run tests are busy
@given(count=COUNTS, most=st.integers(2, 300))
@pytest.mark.parametrize("chosen", [spread, log_spread])
def test_positions_ascend_from_the_first_to_the_last_and_are_no_more_than_allowed(chosen, count, most) -> None:  # type: ignore[no-untyped-def]
    positions = chosen(count, most)
    assert (positions[0], positions[-1]) == (0, count - 1)
    assert np.all(np.diff(positions) > 0)
    assert len(positions) <= most
    if count <= most:
        assert len(positions) == count


@settings(deadline=None)  # machines that run tests are busy
@given(count=st.integers(24, 5000))
def test_log_spaced_positions_are_dense_at_small_indices(count: int) -> None:
    """Gaps never shrink by more than the rounding of one, and most of what is allowed is used."""
    positions = log_spread(count, 24)
    assert list(positions[:4]) == [0, 1, 2, 3]
    assert np.all(np.diff(np.diff(positions)) >= -1)
    assert len(positions) >= 22


def details(count: int, steps: int = 150) -> list[DetailSize]:
    return [DetailSize(place, 30, 768, steps, 100, steps) for place in range(count)]


def test_nothing_is_thinned_where_all_fits() -> None:
    assert detail_policy(details(5), BUDGET_BYTES) == DetailPolicy(24, 24, 150, 5)


def test_what_is_thinned_comes_in_the_promised_order() -> None:
    """As the budget shrinks: singular values, then diagonals, then again both, then steps, then matrices."""
    stages = []
    for budget in np.geomspace(2.4e6, 1e4, 60):
        policy = detail_policy(details(76), budget)
        assert detail_bytes(details(76), policy) <= budget
        stages.append(
            (
                *(policy.per_run < 76, policy.steps < 150, policy.diagonal < 16, policy.singular_values < 16),
                *(policy.diagonal < 24, policy.singular_values < 24),
            )
        )
        if policy.steps < 150:
            assert (policy.singular_values, policy.diagonal) == (8, 8)
        if policy.per_run < 76:
            assert policy.steps == 24
    assert stages == sorted(stages)
    assert stages[0] == (False, False, False, False, False, True)
    assert stages[-1] == (True,) * 6


def test_the_policy_is_the_largest_that_fits() -> None:
    policy = detail_policy(details(76), 1_200_000)
    assert policy == DetailPolicy(8, policy.diagonal, 150, 76)
    more = DetailPolicy(8, policy.diagonal + 1, 150, 76)
    assert detail_bytes(details(76), policy) <= 1_200_000 < detail_bytes(details(76), more)


@pytest.mark.parametrize(
    ("runs", "rows", "steps"), [(1, 76, 150), (10, 500, 1000), (24, 20_000, 10_000), (1, 500, 100_000)]
)
def test_heat_maps_are_bounded_whatever_the_tables(runs: int, rows: int, steps: int) -> None:
    sizes = [MapSize(rows, steps, 100 * rows, 0.1)] * (3 * runs)
    policy = map_policy(sizes)
    assert map_bytes(sizes, policy) <= MAPS_BYTES
    if rows * steps <= 12_000:
        assert policy == MapPolicy(600, steps)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return transformer(tmp_path_factory.mktemp("large"))


def test_the_page_of_a_transformer_is_below_5_mb_and_says_what_it_leaves_out(large: list[Path]) -> None:
    """76 matrices and 62 connections at 150 checkpoints; all of them open, and heat maps keep every step."""
    document = make_document(gathered(*large), title="A transformer of 12 layers")
    (view,) = document.runs
    assert [grid.values.shape for grid in view.grids] == [(76, 150), (62, 150), (76, 150)]
    assert len(view.details) == 138
    assert len(render(document).encode()) < 5e6
    assert len(embedded(document)) < BUDGET_BYTES
    lines, grid = view.details[0].charts
    assert (len(lines.series), len(lines.series[0].x)) == (16, 150)  # type: ignore[union-attr]
    assert document.limits == [
        "16 of 768 singular values are drawn in each detail: the first, the last, and logarithmically spaced ones "
        "between.",
        f"{len(grid.names)} of 100 entries of a diagonal are drawn in each detail: the first, the last, and "  # type: ignore[union-attr]
        "logarithmically spaced ones between.",
    ]


def test_matrices_that_open_nothing_are_those_that_changed_least(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All keep their row; the sentence tells how many open."""
    monkeypatch.setattr("spectra_cli.figures.report.composing.BUDGET_BYTES", 12_000)
    rows = [
        rank_row(step, f"m{number}", 0.9 - 0.02 * number * step, depth=number)
        for step in (0, 1)
        for number in range(20)
    ]
    document = make_document(gathered(write(tmp_path / "rank.parquet", "rank", rows)), title="")
    (view,) = document.runs
    opened = [name for name, index in zip(view.grids[0].names, view.grids[0].details, strict=True) if index is not None]
    assert len(view.grids[0].names) == 20
    assert 1 <= len(opened) < 20
    assert opened == [f"m{number}" for number in range(20 - len(opened), 20)]
    assert document.limits == [
        f"{len(opened)} of up to 20 matrices of a run open their singular values or diagonals: those that changed most."
    ]


def test_lists_are_read_a_batch_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither Arrow nor Python ever holds a third of the singular values, which reading the column at once would."""
    checkpoints, width = 6000, 1000
    values = np.linspace(1, 0, width, dtype=np.float32)
    rows = (rank_row(step, "one", rows=width, cols=width, singular_values=values + step) for step in range(checkpoints))
    tables = gathered(write(tmp_path / "rank.parquet", "rank", rows))
    whole = checkpoints * width * 4
    monkeypatch.setattr(reader, "BATCH_ROWS", 128)
    held = []
    batches = reader.TableFile.batches

    def counted(file, columns):  # type: ignore[no-untyped-def]
        for batch in batches(file, columns):
            held.append(pa.total_allocated_bytes() - before)
            yield batch

    monkeypatch.setattr(reader.TableFile, "batches", counted)
    before = pa.total_allocated_bytes()
    places = np.array([0.0, checkpoints - 1])
    tracemalloc.start()
    try:
        kept = read_lists(tables, "rank", {"a": Wanted(["one"], places, "step", {}, 24)})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert kept["a", "one"].length == width
    of_steps = values[None, kept["a", "one"].indices] + places[:, None].astype(np.float32)
    np.testing.assert_array_equal(kept["a", "one"].values, of_steps)
    assert max(held) < whole / 3
    assert peak < whole / 3
    held.clear()
    everything = tables.files[0].read(["singular_values"])
    assert everything.nbytes >= whole
    assert max(held) > whole / 3, "the bound would notice"
