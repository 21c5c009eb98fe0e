"""The document of a report says what the tables say, as pandas reads them by itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from spectra_cli.errors import InputError
from spectra_cli.figures.page.document import Detail, Document, Grid, Lines, RunView, TextTable
from spectra_cli.figures.page.rendering import render
from spectra_cli.figures.report.composing import make_document
from spectra_cli.figures.report.sources import without_directories
from spectra_cli.figures.rows.gathered import Gathered
from tests.figures.planted import align_row, failed, gathered, rank_row, sva_row, write

SINGULAR, RUNS = 24, ("seed_0", "seed_5")


@pytest.fixture(scope="module")
def tables(fixture_tables: Path) -> list[Path]:
    return [*sorted(fixture_tables.glob("grok/*")), *sorted(fixture_tables.glob("metrics/*/metrics.parquet"))]


@pytest.fixture(scope="module")
def document(tables: list[Path]) -> Document:
    return make_document(gathered(*tables), title="Grokking")


def of_run(document: Document, run: str) -> RunView:
    (view,) = [view for view in document.runs if view.name == run]
    return view


def chart(charts: object, key: str) -> Grid | Lines:
    (found,) = [each for each in charts if each.key == key]  # type: ignore[attr-defined]
    return found


def table_of(document: Document, heading: str) -> TextTable:
    (found,) = [table for table in document.tables if table.heading == heading]
    return found


def read(fixture_tables: Path, table: str, run: str) -> pd.DataFrame:
    frame = pd.read_parquet(fixture_tables / "grok" / f"{table}.parquet")
    return frame[frame.run == run]


def pivot(frame: pd.DataFrame, names: pd.Series, value: str) -> tuple[np.ndarray, list[str], list[int]]:
    """Means by name and step, in the order of depth."""
    order = frame.assign(n=names).sort_values("depth", kind="stable").n.drop_duplicates()
    table = frame.assign(n=names).pivot_table(index="n", columns="step", values=value, aggfunc="mean").loc[order]
    return table.to_numpy(), list(order), list(table.columns)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("key", ["effective_rank", "agreement", "alignment"])
def test_heat_maps_hold_the_numbers_of_the_tables(document: Document, fixture_tables: Path, run: str, key: str) -> None:
    """Of alignment the mean over heads of primary rows."""
    table, value = {"effective_rank": ("rank", "effective_rank_normalized")}.get(key, (None, "score"))
    frame = read(fixture_tables, table or {"agreement": "sva", "alignment": "align"}[key], run)
    if key == "alignment":
        frame = frame[frame.primary]
        names = frame.connection + ": " + frame.upstream + " -> " + frame.downstream
    else:
        names = frame.parameter
    values, order, steps = pivot(frame, names, value)
    grid = chart(of_run(document, run).grids, key)
    assert isinstance(grid, Grid)
    assert (list(grid.names), list(grid.x.values), grid.x.label) == (order, steps, "step")
    np.testing.assert_allclose(grid.values, values, rtol=1e-12)


@pytest.mark.parametrize("run", RUNS)
def test_rows_open_the_detail_of_their_name(document: Document, run: str) -> None:
    view = of_run(document, run)
    assert len(view.details) == 12  # 6 matrices and 6 connections
    for grid in view.grids:
        opened = [view.details[index].name for index in grid.details if index is not None]
        assert opened == list(grid.names)


@pytest.mark.parametrize("run", RUNS)
def test_singular_values_and_diagonals_of_a_matrix_are_those_of_the_tables(
    document: Document, fixture_tables: Path, run: str
) -> None:
    rank, sva = (read(fixture_tables, table, run).set_index(["parameter", "step"]) for table in ("rank", "sva"))
    for detail in of_run(document, run).details[:6]:
        lines, grid = chart(detail.charts, "singular_values"), chart(detail.charts, "agreement")
        assert isinstance(lines, Lines)
        assert isinstance(grid, Grid)
        assert (len(lines.series), lines.ordered, lines.y_scale) == (SINGULAR, True, "log")
        for series in lines.series:
            index = int(series.name.removeprefix("i = ")) - 1
            table = [rank.singular_values[detail.name, step][index] for step in series.x]
            np.testing.assert_allclose(series.y, table, rtol=1e-6)
        for name, row in zip(grid.names, grid.values, strict=True):
            table = [sva.diagonal[detail.name, step][int(name) - 1] for step in grid.x.values]
            np.testing.assert_allclose(row, table, rtol=1e-6)


def test_the_diagonal_of_a_connection_is_the_mean_over_its_primary_rows(
    document: Document, fixture_tables: Path
) -> None:
    """Of heads, while the row of the whole matrix stands beside them."""
    align = read(fixture_tables, "align", "seed_0")
    assert not align.primary.all()
    details = of_run(document, "seed_0").details[6:]
    captions = [detail.caption for detail in details]
    assert captions[1:3] == ["query-key, mean of 4 heads", "value-output, mean of 4 heads"]
    for detail in details:
        kind = detail.name.partition(": ")[0]
        rows = align[(align.connection == kind) & align.primary]
        grid = chart(detail.charts, "alignment")
        assert isinstance(grid, Grid)
        for column, step in enumerate(grid.x.values):
            mean = np.mean(np.stack(rows[rows.step == step].diagonal.to_list()), axis=0)
            np.testing.assert_allclose(grid.values[:, column], mean[[int(name) - 1 for name in grid.names]], rtol=1e-6)


def test_the_most_changed_matrices_come_first_and_open_their_details(document: Document, fixture_tables: Path) -> None:
    table = table_of(document, "Most changed matrices")
    expected = []
    for run in RUNS:
        rank, sva = (read(fixture_tables, name, run) for name in ("rank", "sva"))
        shares = rank.pivot_table(index="parameter", columns="step", values="effective_rank_normalized")
        norms = rank.pivot_table(index="parameter", columns="step", values="spectral_norm")
        agreement = sva[sva.step == 0].set_index("parameter").score
        changes = shares.iloc[:, -1] - shares.iloc[:, 0]
        for name in changes.abs().sort_values(ascending=False).index:
            numbers = [shares.loc[name].iloc[0], shares.loc[name].iloc[-1], changes[name]]
            sizes = [norms.loc[name].iloc[0], norms.loc[name].iloc[-1], agreement[name]]
            expected.append([run, name, 48.0, *numbers, *sizes])
    assert [row[:2] for row in table.rows] == [row[:2] for row in expected]
    np.testing.assert_allclose(np.array([row[2:] for row in table.rows], float), [row[2:] for row in expected])
    assert table.targets is not None
    for row, target in zip(table.rows, table.targets, strict=True):
        assert target is not None
        view = document.runs[target[0]]
        assert (view.name, view.details[target[1]].name) == (row[0], row[1])
    view = document.runs[0]
    assert view.opened is not None
    assert view.details[view.opened].name == table.rows[0][1]


def test_digests_can_be_recomputed_from_the_table_alone(document: Document, fixture_tables: Path) -> None:
    table = table_of(document, "Digests")
    expected = []
    for run in RUNS:
        for step, rows in read(fixture_tables, "rank", run).groupby("step"):
            ordered = rows.sort_values("depth")
            lines = "".join(f"{row.parameter} {row.digest}\n" for row in ordered.itertuples())
            expected.append([run, step, len(rows), hashlib.sha256(lines.encode()).hexdigest()])
    assert [list(row) for row in table.rows] == expected


def test_a_digest_does_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    rows = [rank_row(0, "one", depth=0), rank_row(0, "two", depth=1)]
    paths = [write(tmp_path / f"{name}.parquet", "rank", rows[::way]) for name, way in (("there", 1), ("back", -1))]
    there, back = (table_of(make_document(gathered(path), title=""), "Digests").rows for path in paths)
    assert there == back


def test_files_are_told_with_their_hash_and_what_made_them(
    document: Document, tables: list[Path], fixture_tables: Path
) -> None:
    rows = {row[0]: row for row in table_of(document, "What was analysed").rows}
    assert len(rows) == len(tables) == 7
    for path in tables[:5]:
        (row,) = [row for name, row in rows.items() if str(name).endswith(f"grok/{path.name}")]
        assert row[2] == len(pd.read_parquet(path))
        assert row[-1] == hashlib.sha256(path.read_bytes()).hexdigest()
    (rank,) = [row for name, row in rows.items() if str(name).endswith("rank.parquet")]
    assert rank[1:6] == ["spectra rank", 132.0, "seed_0, seed_5", 22.0, "0 to 8000"]
    made = table_of(document, "How it was made").rows
    (pruned,) = [row for row in made if "prune_eval.parquet" in str(row[0])]
    assert "pruned.parquet" in str(pruned[0])
    settings = str(pruned[-1])
    assert "mask_seed = 0" in settings, "a zero is a setting"
    assert "null" not in settings
    assert "false" not in settings
    assert "exclude" not in settings


def test_metrics_are_drawn_per_run_and_metric(document: Document, fixture_tables: Path) -> None:
    for run in RUNS:
        frame = pd.read_parquet(fixture_tables / "metrics" / run / "metrics.parquet")
        charts = [each for each in of_run(document, run).lines if each.key.startswith("metric_")]
        assert [each.title for each in charts] == ["Training: loss", "Training: error"]
        assert [each.y_scale for each in charts] == ["log", "linear"]
        for each, metric in zip(charts, ("loss", "error"), strict=True):
            assert [series.name for series in each.series] == ["train", "val"]
            for series in each.series:
                rows = frame[(frame.metric == metric) & (frame.split == series.name)].sort_values("step")
                np.testing.assert_array_equal(series.x, rows.step)
                np.testing.assert_array_equal(series.y, rows.value)


def test_pruned_models_stand_beside_the_full_one(document: Document, fixture_tables: Path) -> None:
    frame = read(fixture_tables, "prune_eval", "seed_0")
    charts = [each for each in of_run(document, "seed_0").lines if each.key.startswith("pruning_")]
    assert len(charts) == 4  # two metrics, two splits
    each = charts[0]
    assert each.title == "Pruned models: loss, train"
    names = ["full", "top 0.5", "bottom 0.5", "magnitude 0.05", "random 0.05"]
    assert [series.name for series in each.series] == names
    rows = frame[(frame.metric == "loss") & (frame.split == "train") & (frame.variant == "bottom")]
    np.testing.assert_array_equal(each.series[2].y, rows.sort_values("step").value)


def test_barriers_are_drawn_for_each_pair(fixture_tables: Path) -> None:
    paths = [fixture_tables / f"{name}.parquet" for name in ("early", "late", "ends_early", "ends_late")]
    document = make_document(gathered(*paths), title="")
    assert document.runs == []
    charts = {each.key: each for each in document.across}
    assert len(charts) == 9  # two metrics, two splits, excess and value; and the agreement of the ends
    pairs = [f"{name}_1@516 to {name}_2@516" for name in ("early", "late")]
    for key, column, place in (("excess_0", "excess", 0), ("value_0", "value", 1)):
        lines = charts[key]
        assert isinstance(lines, Lines)
        assert [series.name for series in lines.series] == pairs
        frame = pd.read_parquet(paths[place])
        rows = frame[(frame.metric == "loss") & (frame.split == "train")]
        np.testing.assert_array_equal(lines.series[place].x, rows.alpha)
        np.testing.assert_array_equal(lines.series[place].y, rows[column])
    ends = charts["ends"]
    assert isinstance(ends, Grid)
    assert list(ends.x.values) == pairs
    np.testing.assert_array_equal(ends.values[:, 1], pd.read_parquet(paths[3]).score)
    rows = table_of(document, "Barriers").rows
    expected = pd.concat([pd.read_parquet(path).drop_duplicates(["metric", "split"]) for path in paths[:2]])
    np.testing.assert_array_equal([row[3] for row in rows], expected.barrier)


def test_the_same_tables_give_the_same_page(tables: list[Path], document: Document) -> None:
    assert render(make_document(gathered(*tables), title="Grokking")) == render(document)


def test_the_summary_of_a_heat_map_is_true(tmp_path: Path) -> None:
    rows = [
        rank_row(step, name, share)
        for step, name, share in [(0, "low", 0.8), (0, "high", 0.6), (9, "low", 0.1), (9, "high", 0.3)]
    ]
    (view,) = make_document(gathered(write(tmp_path / "rank.parquet", "rank", rows)), title="").runs
    assert view.grids[0].summary == (
        "Effective rank / R of 2 matrices at 2 checkpoints: mean 0.70 at step 0, 0.20 at step 9. "
        "Lowest there: low, 0.10; highest: high, 0.30."
    )


def test_everything_skipped_is_counted_and_explained(tmp_path: Path) -> None:
    """A row of a whole checkpoint says why all of its cells are empty."""
    rank = [
        rank_row(0, "one"),
        rank_row(0, "two", depth=1),
        failed("not_finite", checkpoint="step_5", step=5, parameter="one", depth=0),
        rank_row(5, "two", depth=1),
        failed("corrupt", checkpoint="step_9", step=9),
        rank_row(None, "one", checkpoint="last"),
    ]
    align = [
        align_row(0, "one", "two", 0.5),
        *(align_row(step, "a", "b", None, status="shape_mismatch") for step in range(5)),
    ]
    paths = [write(tmp_path / "rank.parquet", "rank", rank), write(tmp_path / "align.parquet", "align", align)]
    paths.append(write(tmp_path / "sva.parquet", "sva", []))
    document = make_document(gathered(*paths), title="", passed_over=[("notes.txt", "no Parquet table")])
    rows = [list(row) for row in table_of(document, "Skipped").rows]
    no_step = "no step or epoch is known of these rows, while there is one of others: they are in no figure"
    assert rows == [
        ["not_finite", None, "rank.parquet", "a", 1.0, "one", "step_5"],
        ["corrupt", None, "rank.parquet", "a", 1.0, None, "step_9"],
        ["no step", no_step, "rank.parquet", "a", 1.0, "one", "last"],
        [
            "shape_mismatch",
            "the dimensions do not meet",
            "align.parquet",
            "a",
            5.0,
            "a b",
            "step_0, step_1, step_2, ... (5)",
        ],
        ["no rows", "the table is empty", "sva.parquet", "", 0.0, None, None],
    ]
    grid = document.runs[0].grids[0]
    assert grid.notes == {(0, 1): "not_finite", (0, 2): "corrupt", (1, 2): "corrupt"}
    assert np.isnan(grid.values).tolist() == [[False, True, True], [False, False, True]]
    facts = dict(document.runs[0].details[0].facts)
    assert facts["no value"] == "1 of 2 rows: not_finite"
    assert list(table_of(document, "Files passed over").rows) == [["notes.txt", "no Parquet table"]]


def test_runs_that_were_not_asked_for_are_not_told(tmp_path: Path) -> None:
    rows = [rank_row(0, "one"), rank_row(1, "one")]
    rows += [rank_row(0, "one", run="other"), failed("corrupt", run="other", checkpoint="step_1", step=1)]
    files = gathered(write(tmp_path / "rank.parquet", "rank", rows)).files
    document = make_document(Gathered(files, ["a"]), title="")
    assert [view.name for view in document.runs] == ["a"]
    assert table_of(document, "Skipped").rows == []
    assert len(table_of(document, "Digests").rows) == 2


def test_a_status_of_the_reference_is_explained(tmp_path: Path) -> None:
    rows = [sva_row(0, "one", 0.5), sva_row(5, "one", None, status="reference_shape_mismatch")]
    document = make_document(gathered(write(tmp_path / "sva.parquet", "sva", rows)), title="")
    ((_, meaning, *_),) = table_of(document, "Skipped").rows
    assert meaning == "shape_mismatch of the checkpoint that this one is compared with"


def test_the_first_and_last_number_of_a_matrix_are_its_own(tmp_path: Path) -> None:
    """Where its first checkpoint failed, the next one counts; a number in a row that is not ok does not."""
    rows = [
        failed("not_finite", checkpoint="step_0", step=0, parameter="one", depth=0),
        rank_row(1, "one", 0.9),
        rank_row(2, "one", 0.3),
        failed("not_finite", checkpoint="step_3", step=3, parameter="one", depth=0),
        rank_row(4, "one", 0.99, status="all_zero"),
        *(rank_row(step, "two", 0.5 - step / 10, depth=1) for step in range(4)),
    ]
    document = make_document(gathered(write(tmp_path / "rank.parquet", "rank", rows)), title="")
    table = table_of(document, "Most changed matrices")
    assert [row[0] for row in table.rows] == ["one", "two"]
    np.testing.assert_allclose([row[4] for row in table.rows], [-0.6, -0.3])
    one, two = document.runs[0].details
    assert dict(one.facts)["effective rank"] == "2.7 at step 1, 0.9 at step 2"
    assert dict(one.facts)["digest at step 2"] == "digest of one at 2"
    assert two.caption == "linear, 4 x 3, depth 1"


def test_one_checkpoint_shows_its_values_against_their_index(tmp_path: Path) -> None:
    values = np.linspace(9, 1, 50, dtype=np.float32)
    paths = [
        write(tmp_path / "rank.parquet", "rank", [rank_row(3, "one", rows=60, cols=50, singular_values=values)]),
        write(tmp_path / "sva.parquet", "sva", [sva_row(3, "one", 0.5)]),
    ]
    (view,) = make_document(gathered(*paths), title="").runs
    assert [grid.values.shape for grid in view.grids] == [(1, 1), (1, 1)]
    spectrum, diagonal = view.details[0].charts
    for lines, expected in ((spectrum, values), (diagonal, [0.5, 0.25, 0.125])):
        assert isinstance(lines, Lines)
        assert (lines.x_label, lines.x_scale) == ("index i", "linear")
        (series,) = lines.series
        np.testing.assert_array_equal(series.x, np.arange(1, len(expected) + 1))
        np.testing.assert_allclose(series.y, expected)


def test_checkpoints_without_steps_stand_in_their_order(tmp_path: Path) -> None:
    """Columns bear their names, and lines know them by their places."""
    rows = [rank_row(None, "one", share, checkpoint=name) for name, share in (("b", 0.5), ("a", 0.25))]
    rows[1]["singular_values"] = [7, 7, 7]
    (view,) = make_document(gathered(write(tmp_path / "rank.parquet", "rank", rows)), title="").runs
    assert (view.grids[0].x.label, list(view.grids[0].x.values)) == ("checkpoint", ["b", "a"])
    assert view.grids[0].values.tolist() == [[0.5, 0.25]]
    lines = view.details[0].charts[0]
    assert isinstance(lines, Lines)
    assert [series.y.tolist() for series in lines.series] == [[3, 7], [2, 7], [1, 7]]
    assert dict(view.details[0].facts)["digest at checkpoint b"] == "digest of one at None"


def test_random_masks_are_averaged_over_their_seeds(tmp_path: Path) -> None:
    rows = [
        {"run": "a", "checkpoint": f"step_{step}", "step": step, "variant": "random", "keep": 0.1, "seed": seed}
        | {"split": "val", "metric": "loss", "value": value, "count": 1, "status": "ok"}
        for step, seed, value in ((0, 0, 1.0), (0, 1, 3.0), (5, 0, 2.0), (5, 1, None))
    ]
    (view,) = make_document(gathered(write(tmp_path / "p.parquet", "prune_eval", rows)), title="").runs
    (series,) = view.lines[0].series
    np.testing.assert_array_equal(series.y, [2.0, np.nan])
    assert series.band is not None
    np.testing.assert_allclose(series.band, [np.sqrt(2), np.nan])


def test_nothing_to_show_says_what_to_do(tmp_path: Path) -> None:
    empty = write(tmp_path / "rank.parquet", "rank", [])
    with pytest.raises(InputError, match=r"no table has a row.* spectra analyze"):
        make_document(gathered(empty), title="")
    with pytest.raises(InputError, match="there is no table"):
        make_document(gathered(), title="")


def test_checkpoints_that_all_failed_are_a_page_of_reasons(tmp_path: Path) -> None:
    rows = [failed("corrupt", checkpoint=f"step_{step}", step=step) for step in range(3)]
    document = make_document(gathered(write(tmp_path / "rank.parquet", "rank", rows)), title="")
    assert document.runs == []
    assert [row[:5] for row in table_of(document, "Skipped").rows] == [["corrupt", None, "rank.parquet", "a", 3.0]]
    assert "corrupt" in render(document)


HOSTILE = ("</script><script>alert(1)</script>", "$\\frac{1}{2}$", "a\nb\u202ec\x00", "", "nan", "x" * 100_000)


def test_hostile_names_reach_the_page_as_names(tmp_path: Path) -> None:
    rank = [
        rank_row(step, name, 0.5, run=f"run{name}", depth=depth, method=name, digest=name, kind=name, checkpoint=name)
        for step in (0, 1)
        for depth, name in enumerate(HOSTILE)
    ]
    align = [align_row(0, name, name, 0.5, run=f"run{name}", connection=name) for name in HOSTILE]
    status = [failed(name, checkpoint=name, step=0, parameter=name) for name in HOSTILE]
    paths = [
        write(tmp_path / "rank.parquet", "rank", [*rank, *status], metadata={"spectra.command": HOSTILE[0]}),
        write(tmp_path / "align.parquet", "align", align),
    ]
    document = make_document(gathered(*paths), title=HOSTILE[0], passed_over=[(HOSTILE[0], HOSTILE[2])])
    assert [view.name for view in document.runs] == [*(f"run{name}" for name in HOSTILE), "a"]
    assert HOSTILE[0] not in render(document)


def test_cells_may_be_null_anywhere(tmp_path: Path) -> None:
    """Every column but run, checkpoint, step and parameter is null in some row, status among them."""
    complete = rank_row(0, "one")
    rows = [complete] + [
        {**rank_row(index, "one"), column: None}
        for index, column in enumerate(set(complete) - {"run", "checkpoint", "step"}, start=1)
    ]
    bare = [{"run": "a", "checkpoint": "c", "step": 99, "parameter": "bare"}, {"run": None, "step": 3}, {}]
    complete = align_row(0, "one", "two", 0.5)
    connections = [complete] + [
        {**align_row(index, "one", "two", 0.5), column: None}
        for index, column in enumerate(set(complete) - {"run"}, start=1)
    ]
    paths = [
        write(tmp_path / "rank.parquet", "rank", [*rows, *bare]),
        write(tmp_path / "align.parquet", "align", connections),
        write(tmp_path / "metrics.parquet", "metrics", [{}, {"step": 1}, {"step": 2, "metric": "loss"}]),
        write(tmp_path / "barrier.parquet", "barrier", [{}, {"metric": "loss", "alpha": 0.5}]),
        write(tmp_path / "pairs.parquet", "barrier_spectra", [{}, {"parameter": "one", "alpha": 0.5}]),
    ]
    document = make_document(gathered(*paths), title="")
    assert "one" in document.runs[0].grids[0].names
    reasons = {row[:1] + row[2:4]: row[4] for row in map(tuple, table_of(document, "Skipped").rows)}
    assert reasons["no status", "rank.parquet", "a"] == 2
    assert render(document)


def test_a_page_of_hostile_numbers_is_valid_json(tmp_path: Path) -> None:
    """Infinite norms, epochs and values, and lists of other lengths than the shape says, have their place."""
    rows = [
        rank_row(0, "one", condition_number=np.inf, spectral_norm=np.inf, effective_rank=np.nan),
        rank_row(1, "one", singular_values=[np.inf, 1]),
        rank_row(2, "one", singular_values=[1.0] * 300, rows=-1, cols=10**15),
        rank_row(3, "one", singular_values=[]),
    ]
    metrics = [{"epoch": np.inf, "split": "val", "metric": "loss", "value": np.inf, "status": "ok"}] * 2
    paths = [write(tmp_path / "rank.parquet", "rank", rows), write(tmp_path / "m.parquet", "metrics", metrics)]
    page = render(make_document(gathered(*paths), title=""))
    data = page.split('type="application/json"', 1)[1].split(">", 1)[1].split("</script", 1)[0]
    detail = json.loads(data)["runs"][0]["details"][0]
    assert len(detail["charts"][0]["series"]) == 3


def test_details_of_sva_alone_have_its_diagonals(tmp_path: Path) -> None:
    rows = [sva_row(step, "one", score) for step, score in ((0, 0.1), (9, 1.0))]
    (view,) = make_document(gathered(write(tmp_path / "sva.parquet", "sva", rows)), title="").runs
    (detail,) = view.details
    assert isinstance(detail, Detail)
    grid = chart(detail.charts, "agreement")
    assert isinstance(grid, Grid)
    np.testing.assert_allclose(grid.values, [[0.1, 1], [0.05, 0.5], [0.025, 0.25]], rtol=1e-6)
    assert "The reference is step 9." in grid.summary


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("spectra rank /srv/alice/runs/a --out /tmp/x.parquet", "spectra rank …/a --out …/x.parquet"),
        ("/srv/alice/secret/project/runs/a@400", "…/runs/a@400"),
        ("spectra rank runs/a/b/c ./d/e/f ../g/h/i", "spectra rank runs/a/b/c ./d/e/f ../g/h/i"),
        ("s3://bucket/a/b/c/d", "s3://bucket/a/b/c/d"),
        ('{"data": "/srv/u/x", "b": "/"}', '{"data": "…/x", "b": "/"}'),
    ],
)
def test_a_page_that_is_sent_around_names_no_directories_above(text: str, shown: str) -> None:
    assert without_directories(text) == shown


def on_line(values: list[float | None], run: str = "runs/b") -> list[dict[str, object]]:
    """Rows of barrier of a pair whose ends have the same value, and the excess over it, known or not."""
    known = [value for value in values if value is not None]
    barrier = max(known) - known[0] if len(known) == len(values) else None
    return [
        {
            **{"run_a": "runs/a", "checkpoint_a": "s5", "step_a": 5, "run_b": run, "checkpoint_b": "s5", "step_b": 5},
            **{"split": "val", "metric": "loss", "alpha": place / (len(values) - 1), "value": value},
            **{"chord": known[0], "excess": None if value is None else value - known[0], "count": 1},
            **dict.fromkeys(("barrier", "barrier_interior", "barrier_midpoint"), barrier),
            "status": "ok" if value is not None else "not_finite",
        }
        for place, value in enumerate(values)
    ]


def test_pairs_named_alike_in_two_tables_stay_two(tmp_path: Path) -> None:
    """Charts, the table of barriers, the grid of agreement and the spectra between; oracle: the planted values."""
    values = {"x": ([1.0, 2.0, 1.0], 0.2), "y": ([1.0, 5.0, 1.0], 0.8)}
    paths = []
    for place, (line, score) in values.items():
        agreement = {"run": "runs/b", "reference_run": "runs/a", "checkpoint": "s5", "reference_checkpoint": "s5"}
        steps = {"reference_step": 5}
        shared = {"run_a": "runs/a", "checkpoint_a": "s5", "step_a": 5, "run_b": "runs/b", "checkpoint_b": "s5"}
        between = [
            {**shared, "step_b": 5, "parameter": "w", "depth": 0, "alpha": alpha, "status": "ok"}
            | {"effective_rank_normalized": score}
            for alpha in (0.0, 1.0)
        ]
        ends = {"spectra.settings": '{"alphas": 3}'}
        paths += [
            write(tmp_path / place / "barrier.parquet", "barrier", on_line(line)),
            write(
                tmp_path / place / "ends.parquet", "sva", [sva_row(5, "w", score, **agreement, **steps)], metadata=ends
            ),
            write(tmp_path / place / "spectra.parquet", "barrier_spectra", between),
        ]
    document = make_document(gathered(*paths), title="")
    pairs = ["a@5 to b@5 (x)", "a@5 to b@5 (y)"]
    charts = {each.key: each for each in document.across}
    for key, base in (("excess_0", 1.0), ("value_0", 0.0)):
        lines = charts[key]
        assert isinstance(lines, Lines)
        assert {each.name: list(each.y + base) for each in lines.series} == {
            pair: line for pair, (line, _) in zip(pairs, values.values(), strict=True)
        }
    rows = table_of(document, "Barriers").rows
    assert [(row[0], row[3]) for row in rows] == [(pairs[0], 1.0), (pairs[1], 4.0)]
    grid = charts["ends"]
    assert isinstance(grid, Grid)
    assert list(grid.x.values) == pairs
    np.testing.assert_allclose(grid.values, [[0.2, 0.8]])
    between_ends = [charts[f"spectra_{number}"] for number in (0, 1)]
    assert [each.title for each in between_ends] == [f"Effective rank between {pair}" for pair in pairs]
    assert [each.values.tolist() for each in between_ends if isinstance(each, Grid)] == [[[0.2, 0.2]], [[0.8, 0.8]]]


def test_a_barrier_is_unknown_where_a_value_is(tmp_path: Path) -> None:
    """What is known of the line is no bound."""
    rows = [*on_line([1.0, None, 1.0]), *on_line([1.0, 4.0, 1.0], "runs/c")]
    document = make_document(gathered(write(tmp_path / "b.parquet", "barrier", rows)), title="")
    excess = next(each for each in document.across if each.key == "excess_0")
    assert excess.summary == "a@5 to b@5: unknown (1 of 3 values missing); a@5 to c@5: at most 3 at alpha 0.5."
    assert [row[3] for row in table_of(document, "Barriers").rows] == [None, 3.0]


def test_of_two_checkpoints_of_a_step_the_last_is_shown_everywhere(tmp_path: Path) -> None:
    """Maps, singular values, facts and the table of changes, none a mean of the two; and it is said."""
    rows = [
        rank_row(step, "w", share, checkpoint=name, singular_values=[share, share / 2], effective_rank=3 * share)
        for step, name, share in ((0, "s0", 0.25), (10, "s10", 0.5), (10, "s10-v1", 1.0))
    ]
    agreement = [
        sva_row(row["step"], "w", row["effective_rank_normalized"], checkpoint=row["checkpoint"]) for row in rows
    ]
    paths = [write(tmp_path / "rank.parquet", "rank", rows), write(tmp_path / "sva.parquet", "sva", agreement)]
    document = make_document(gathered(*paths), title="")
    (view,) = document.runs
    for key in ("effective_rank", "agreement"):
        grid = chart(view.grids, key)
        assert isinstance(grid, Grid)
        assert grid.values.tolist() == [[0.25, 1.0]]
    lines, diagonal = chart(view.details[0].charts, "singular_values"), chart(view.details[0].charts, "agreement")
    assert isinstance(lines, Lines)
    assert isinstance(diagonal, Grid)
    assert [list(each.y) for each in lines.series] == [[0.25, 1.0], [0.125, 0.5]]
    assert diagonal.values.tolist() == [[0.25, 1.0], [0.125, 0.5], [0.0625, 0.25]]
    assert dict(view.details[0].facts)["effective rank"] == "0.75 at step 0, 3 at step 10"
    assert table_of(document, "Most changed matrices").rows[0][2:5] == [0.25, 1.0, 0.75]
    assert document.limits[0] == "a: 2 checkpoints have step 10; s10-v1 is drawn."
