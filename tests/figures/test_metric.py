"""Figures of metrics show the numbers of the tables: which curves, on which axes, with which gaps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spectra_cli.errors import UsageError
from spectra_cli.figures.choice import Choice, Drawn, NothingToDraw
from spectra_cli.figures.plots.metrics import MOST_FIGURES, draw_metrics, draw_pruning, file_name
from spectra_cli.figures.rows.gathered import Gathered
from spectra_cli.figures.rows.metriccurves import value_scale
from spectra_cli.tables.reader import open_table
from spectra_cli.tables.writer import TableWriter

NAN = float("nan")
HOSTILE = "$\\frac{\n<script>\u202e" + "x" * 5000


def metrics(path: Path, *rows: tuple[int, str, str, float | None], status: str = "not_finite") -> Path:
    """A table of (step, split, metric, value); rows without a value have the status."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TableWriter(path, "metrics") as table:
        for step, split, metric, value in rows:
            why = "ok" if value is not None else status
            table.write([{"step": step, "split": split, "metric": metric, "value": value, "status": why}])
    return path


def pruned(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    blank = {"run": "r", "variant": "full", "keep": 1.0, "split": "val", "metric": "loss", "value": 1.0, "status": "ok"}
    with TableWriter(path, "prune_eval") as table:
        table.write({**blank, "checkpoint": f"step_{row['step']}", **row} for row in rows)
    return path


def gathered(*paths: Path, runs: tuple[str, ...] = ()) -> Gathered:
    return Gathered([open_table(path) for path in paths], runs)


def lines(drawn: Drawn, panel: int = 0) -> list[tuple[list[float], list[float]]]:
    """(x, y) of each curve of a panel, in order."""
    return [
        (np.asarray(line.get_xdata(), float).tolist(), np.asarray(line.get_ydata(), float).tolist())
        for line in drawn.figure.axes[panel].lines
    ]


def legend(drawn: Drawn) -> list[str]:
    """Entries of the only legend of a figure."""
    (found,) = [axis.get_legend() for axis in drawn.figure.axes if axis.get_legend() is not None]
    return [text.get_text() for text in found.get_texts()]


def band(drawn: Drawn, curve: int, panel: int = 0) -> dict[float, tuple[float, float]]:
    """Lowest and highest point of a band at each place."""
    points = np.concatenate([path.vertices for path in drawn.figure.axes[panel].collections[curve].get_paths()])
    return {
        float(x): (float(points[points[:, 0] == x, 1].min()), float(points[points[:, 0] == x, 1].max()))
        for x in np.unique(points[:, 0])
    }


TRAINING = (
    (0, "train", "loss", 4.0),
    (0, "val", "loss", 5.0),
    (0, "train", "error", 1.0),
    (0, "val", "error", 0.9),
    (10, "train", "loss", 2.0),
    (10, "val", "loss", 3.0),
    (10, "train", "error", 0.5),
    (10, "val", "error", 0.6),
)


def test_there_is_a_figure_for_each_metric_with_a_curve_for_each_split(tmp_path: Path) -> None:
    loss, error = draw_metrics(gathered(metrics(tmp_path / "run_a" / "metrics.parquet", *TRAINING)), Choice())
    assert lines(loss) == [([0.0, 10.0], [4.0, 2.0]), ([0.0, 10.0], [5.0, 3.0])]
    assert lines(error) == [([0.0, 10.0], [1.0, 0.5]), ([0.0, 10.0], [0.9, 0.6])]
    assert legend(loss) == ["train", "val"]
    assert [each.name for each in (loss, error)] == ["metrics-loss", "metrics-error"]
    assert loss.notices == error.notices == ()


def test_axes_and_titles_say_what_is_drawn(tmp_path: Path) -> None:
    """Unit of steps, range of an error, name of the run and the metric."""
    _, error = draw_metrics(gathered(metrics(tmp_path / "run_a" / "metrics.parquet", *TRAINING)), Choice())
    (axis,) = error.figure.axes
    assert axis.get_xlabel() == "step (optimizer steps)"
    assert axis.get_ylabel() == "error (fraction)"
    assert axis.get_title() == "error\nrun_a"
    assert (axis.get_xscale(), axis.get_yscale()) == ("linear", "linear")
    assert error.about == "error against step: run_a"
    low, high = axis.get_xlim()
    assert low <= 0
    assert high >= 10


def test_runs_have_a_panel_each_on_one_vertical_axis(tmp_path: Path) -> None:
    first = metrics(tmp_path / "a" / "metrics.parquet", (0, "val", "loss", 1.0), (5, "val", "loss", 2.0))
    other = metrics(tmp_path / "b" / "metrics.parquet", (0, "val", "loss", 7.0), (9, "val", "loss", 8.0))
    (drawn,) = draw_metrics(gathered(first, other), Choice())
    assert lines(drawn, 0) == [([0.0, 5.0], [1.0, 2.0])]
    assert lines(drawn, 1) == [([0.0, 9.0], [7.0, 8.0])]
    left, right = drawn.figure.axes
    assert left.get_ylim() == right.get_ylim()
    assert (left.get_title(), right.get_title()) == ("loss\na", "loss\nb")
    assert (left.get_ylabel(), right.get_ylabel()) == ("loss", "")


def test_a_split_looks_the_same_in_all_panels(tmp_path: Path) -> None:
    """Also where a run lacks another split."""
    both = metrics(tmp_path / "a" / "metrics.parquet", *TRAINING)
    one = metrics(tmp_path / "b" / "metrics.parquet", (0, "val", "loss", 1.0), (5, "val", "loss", 2.0))
    drawn = draw_metrics(gathered(both, one), Choice())[0]
    colours = [axis.lines[1].get_color() for axis in drawn.figure.axes]
    assert colours[0] == colours[1]
    assert lines(drawn, 1) == [([], []), ([0.0, 5.0], [1.0, 2.0])]


def test_the_mean_over_runs_is_where_all_have_a_number(tmp_path: Path) -> None:
    """Oracle: mean and standard deviation of a sample, by hand; steps of one run only are told."""
    first = metrics(tmp_path / "a" / "metrics.parquet", *((step, "val", "loss", 1.0 + step) for step in (0, 2, 4)))
    other = metrics(tmp_path / "b" / "metrics.parquet", *((step, "val", "loss", 3.0 + step) for step in (0, 4, 8)))
    (drawn,) = draw_metrics(gathered(first, other), Choice(over="run"))
    assert lines(drawn) == [([0.0, 4.0], [2.0, 6.0])]
    expected = {0.0: (2.0 - 2**0.5, 2.0 + 2**0.5), 4.0: (6.0 - 2**0.5, 6.0 + 2**0.5)}
    assert band(drawn, 0) == {x: pytest.approx(ends) for x, ends in expected.items()}
    assert drawn.notices == ("2 of 4 steps are left out, as not all runs have them",)
    assert drawn.figure.axes[0].get_title().startswith("loss\nmean of 2 runs")


def test_a_curve_that_not_all_runs_have_is_left_out_of_the_mean(tmp_path: Path) -> None:
    first = metrics(tmp_path / "a" / "metrics.parquet", *TRAINING)
    other = metrics(tmp_path / "b" / "metrics.parquet", (0, "val", "loss", 1.0), (10, "val", "loss", 2.0))
    drawn = draw_metrics(gathered(first, other), Choice(over="run"))[0]
    assert lines(drawn) == [([], []), ([0.0, 10.0], [3.0, 2.5])]
    assert drawn.notices == ("train is left out, as not all runs have it",)


def test_runs_without_a_common_step_have_no_mean(tmp_path: Path) -> None:
    first = metrics(tmp_path / "a" / "metrics.parquet", (0, "val", "loss", 1.0), (2, "val", "loss", 1.0))
    other = metrics(tmp_path / "b" / "metrics.parquet", (1, "val", "loss", 1.0), (3, "val", "loss", 1.0))
    with pytest.raises(UsageError, match="no step in common"):
        draw_metrics(gathered(first, other), Choice(over="run"))


@pytest.mark.parametrize("bad", [None, NAN, float("inf")])
def test_values_that_are_no_numbers_are_gaps_and_told(tmp_path: Path, bad: float | None) -> None:
    path = metrics(
        tmp_path / "a" / "metrics.parquet", (0, "val", "loss", 1.0), (1, "val", "loss", bad), (2, "val", "loss", 3.0)
    )
    (drawn,) = draw_metrics(gathered(path), Choice())
    ((x, y),) = lines(drawn)
    assert x == [0.0, 1.0, 2.0]
    np.testing.assert_array_equal(y, [1.0, NAN, 3.0])
    assert drawn.notices == ("a: values of loss missing: 1 (not_finite)",)


def test_steps_may_be_logarithmic_and_what_that_leaves_out_is_told(tmp_path: Path) -> None:
    path = metrics(tmp_path / "a" / "metrics.parquet", *((s, "val", "loss", 1.0) for s in (0, 1, 10)))
    (drawn,) = draw_metrics(gathered(path), Choice(x_scale="log"))
    assert drawn.figure.axes[0].get_xscale() == "log"
    assert lines(drawn) == [([1.0, 10.0], [1.0, 1.0])]
    assert drawn.notices == ("1 step of 0 or less is not on the logarithmic axis",)


@pytest.mark.parametrize(
    ("metric", "values", "chosen", "expected"),
    [
        ("loss", [1.0, 100.0], "auto", "log"),
        ("loss", [1.0, 99.0], "auto", "linear"),
        ("loss", [0.0, 99.0, 1e6], "auto", "linear"),
        ("loss", [-1.0, 99.0], "auto", "linear"),
        ("loss", [1.0, NAN, float("inf"), 2.0], "auto", "linear"),
        ("loss", [], "auto", "linear"),
        ("perplexity", [2.0, 300.0], "auto", "log"),
        ("error", [1e-4, 1.0], "auto", "linear"),
        ("error", [1e-4, 1.0], "log", "log"),
        ("error", [0.0, 1.0], "log", "log"),
        ("error", [0.0, NAN], "log", "linear"),
        ("loss", [1.0, 1e9], "linear", "linear"),
    ],
)
def test_auto_is_logarithmic_for_a_positive_loss_that_spans_a_factor_of_100(
    metric: str, values: list[float], chosen: Any, expected: str
) -> None:
    assert value_scale(metric, np.array(values, float), chosen) == expected


def test_the_scale_of_values_is_that_of_the_rule(tmp_path: Path) -> None:
    """Zeros on a logarithmic axis that was asked for are told."""
    wide = metrics(tmp_path / "a" / "metrics.parquet", (0, "val", "loss", 1e-3), (1, "val", "loss", 1.0))
    assert draw_metrics(gathered(wide), Choice())[0].figure.axes[0].get_yscale() == "log"
    zero = metrics(tmp_path / "b" / "metrics.parquet", (0, "val", "error", 0.0), (1, "val", "error", 1.0))
    (drawn,) = draw_metrics(gathered(zero), Choice(y_scale="log"))
    assert drawn.figure.axes[0].get_yscale() == "log"
    assert drawn.notices == ("1 value of 0 or less is not on the logarithmic axis",)


def test_one_step_only_says_what_to_do(tmp_path: Path) -> None:
    path = metrics(tmp_path / "a" / "metrics.parquet", (7, "val", "loss", 1.0), (7, "train", "loss", 1.0))
    with pytest.raises(NothingToDraw, match="only one step, 7") as caught:
        draw_metrics(gathered(path), Choice())
    assert "several checkpoints" in str(caught.value)


def test_a_table_without_values_says_where_to_look(tmp_path: Path) -> None:
    path = metrics(tmp_path / "a" / "metrics.parquet", (0, "val", "loss", None), (1, "val", "loss", None))
    with pytest.raises(NothingToDraw, match="status"):
        draw_metrics(gathered(path), Choice())


def test_a_run_that_has_no_rows_of_a_table_is_not_drawn(tmp_path: Path) -> None:
    """--run may leave none of the rows."""
    path = pruned(tmp_path / "p.parquet", [{"run": run, "step": step} for run in "xz" for step in (0, 1)])
    other = metrics(tmp_path / "other" / "metrics.parquet", *TRAINING)
    (drawn,) = draw_pruning(gathered(path, other, runs=("x",)), Choice())
    assert [axis.get_title() for axis in drawn.figure.axes] == ["val loss\nx"]
    with pytest.raises(NothingToDraw, match="no rows"):
        draw_pruning(gathered(path, other, runs=("other",)), Choice())


def test_hostile_names_are_drawn_as_text_and_bounded(tmp_path: Path) -> None:
    """Neither mathematics, nor a new line, nor a legend of thousands of letters; and a name that is a file's."""
    path = metrics(tmp_path / "a" / "metrics.parquet", (0, HOSTILE, HOSTILE, 1.0), (1, HOSTILE, HOSTILE, 2.0))
    (drawn,) = draw_metrics(gathered(path), Choice())
    drawn.figure.draw_without_rendering()
    texts = [drawn.figure.axes[0].get_title(), drawn.figure.axes[0].get_ylabel(), *legend(drawn)]
    assert all(len(line) < 200 and "\u202e" not in line for text in texts for line in text.split("\n"))
    assert drawn.figure.axes[0].get_title().count("\n") == 1
    assert len(drawn.name) < 100
    assert not set(drawn.name) & set("$\\/<>\n{} ")


def test_names_of_files_differ_where_those_of_metrics_do(tmp_path: Path) -> None:
    rows = [(step, "val", metric, 1.0) for metric in ("a/b", "a b", "A b") for step in (0, 1)]
    drawn = draw_metrics(gathered(metrics(tmp_path / "a" / "metrics.parquet", *rows)), Choice())
    assert len({each.name.lower() for each in drawn}) == 3
    assert file_name("metrics", "a/b") == file_name("metrics", "a b")


def test_there_are_no_more_figures_than_can_be_looked_at(tmp_path: Path) -> None:
    rows = [(step, "val", f"m{number}", 1.0) for number in range(MOST_FIGURES + 2) for step in (0, 1)]
    drawn = draw_metrics(gathered(metrics(tmp_path / "a" / "metrics.parquet", *rows)), Choice())
    assert len(drawn) == MOST_FIGURES
    assert drawn[-1].notices == (f"only the first {MOST_FIGURES} of {MOST_FIGURES + 2} metrics are drawn",)


def test_variants_are_told_by_what_they_keep(tmp_path: Path) -> None:
    """Bottom keeps what top of the same row lacks; the order is that of the variants, then the most kept first."""
    variants = [("random", 0.05), ("bottom", 0.9), ("top", 0.5), ("top", 0.9), ("magnitude", 0.05), ("full", 1.0)]
    rows = [
        {"step": step, "variant": variant, "keep": keep, "value": 10.0 * place + step}
        for step in (0, 1)
        for place, (variant, keep) in enumerate(variants)
    ]
    (drawn,) = draw_pruning(gathered(pruned(tmp_path / "p.parquet", rows)), Choice(y_scale="linear"))
    assert legend(drawn) == ["full", "top 0.9", "top 0.5", "bottom 0.1", "magnitude 0.05", "random 0.05"]
    assert [y[0] for _, y in lines(drawn)] == [50.0, 30.0, 20.0, 10.0, 40.0, 0.0]
    assert drawn.figure.axes[0].get_legend().get_title().get_text() == "fraction kept"


def test_splits_and_runs_have_a_panel_each(tmp_path: Path) -> None:
    places = [(run, split) for run in ("u", "v") for split in ("train", "val")]
    rows = [
        {"run": run, "split": split, "step": step, "value": 1.0 + place + step / 10}
        for place, (run, split) in enumerate(places)
        for step in (0, 1)
    ]
    (drawn,) = draw_pruning(gathered(pruned(tmp_path / "p.parquet", rows)), Choice())
    assert [axis.get_title() for axis in drawn.figure.axes] == [f"{split} loss\n{run}" for run, split in places]
    assert [lines(drawn, panel)[0][1] for panel in range(4)] == [
        pytest.approx([1.0 + place, 1.1 + place]) for place in range(4)
    ]


def test_random_masks_are_averaged_over_their_seeds(tmp_path: Path) -> None:
    """Oracle: mean and sample deviation of 1, 2, 6; a seed without a value leaves a gap."""
    rows = [
        {"step": step, "variant": "random", "keep": 0.1, "seed": seed, "value": None if (step, seed) == (1, 2) else v}
        for step in (0, 1, 2)
        for seed, v in enumerate((1.0, 2.0, 6.0))
    ]
    (drawn,) = draw_pruning(gathered(pruned(tmp_path / "p.parquet", rows)), Choice())
    ((x, y),) = lines(drawn)
    np.testing.assert_array_equal(y, [3.0, NAN, 3.0])
    half = (((1 - 3) ** 2 + (2 - 3) ** 2 + (6 - 3) ** 2) / 2) ** 0.5
    assert band(drawn, 0)[0.0] == pytest.approx((3 - half, 3 + half))
    assert legend(drawn) == ["random 0.1 (mean of 3 seeds)"]
    assert x == [0.0, 1.0, 2.0]


def test_a_checkpoint_that_could_not_be_used_is_a_gap_of_all_curves(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"step": step, "value": 1.0} for step in (0, 2)]
    whole = {"step": 1, "variant": None, "keep": None, "split": None, "metric": None, "value": None}
    (drawn,) = draw_pruning(gathered(pruned(tmp_path / "p.parquet", [*rows, {**whole, "status": "corrupt"}])), Choice())
    ((x, y),) = lines(drawn)
    assert x == [0.0, 1.0, 2.0]
    np.testing.assert_array_equal(y, [1.0, NAN, 1.0])
    assert drawn.notices == ("r: checkpoints missing: 1 (corrupt)",)


def test_figures_of_the_fixtures_show_the_numbers_of_their_tables(fixture_tables: Path) -> None:
    """Oracle: pandas on the files."""
    pandas = pytest.importorskip("pandas")
    path = fixture_tables / "metrics" / "seed_0" / "metrics.parquet"
    frame = pandas.read_parquet(path)
    drawn = {each.name: each for each in draw_metrics(gathered(path), Choice())}
    assert set(drawn) == {"metrics-loss", "metrics-error"}
    for place, split in enumerate(("train", "val")):
        rows = frame[(frame.metric == "error") & (frame.split == split)].sort_values("step")
        assert lines(drawn["metrics-error"])[place] == (rows.step.tolist(), rows.value.tolist())
    pruning = draw_pruning(gathered(fixture_tables / "grok" / "prune_eval.parquet"), Choice(over="run"))
    assert [each.name for each in pruning] == ["pruning-loss", "pruning-error"]
    assert [axis.get_title().split("\n")[0] for axis in pruning[1].figure.axes] == ["train error", "val error"]


def test_a_legend_counts_the_seeds_of_each_run(tmp_path: Path) -> None:
    """One seed in each of two runs is no mean over seeds; where runs have one and three there is no one number."""
    masked = [{"step": step, "variant": "random", "keep": 0.05} for step in (0, 10)]
    once = [
        {**row, "run": run, "seed": seed, "value": 1.0 + seed} for row in masked for run, seed in (("a", 0), ("b", 1))
    ]
    (drawn,) = draw_pruning(gathered(pruned(tmp_path / "once.parquet", once)), Choice())
    assert legend(drawn) == ["random 0.05"]
    assert [lines(drawn, panel)[0][1] for panel in (0, 1)] == [[1.0, 1.0], [2.0, 2.0]]
    more = [{**row, "run": "b", "seed": seed, "value": 1.0 + seed} for row in masked for seed in (0, 2)]
    (drawn,) = draw_pruning(gathered(pruned(tmp_path / "more.parquet", once + more)), Choice())
    assert legend(drawn) == ["random 0.05 (mean of seeds)"]
    assert [lines(drawn, panel)[0][1] for panel in (0, 1)] == [[1.0, 1.0], [2.0, 2.0]]
    (drawn,) = draw_pruning(gathered(pruned(tmp_path / "more.parquet", once + more), runs=("b",)), Choice())
    assert legend(drawn) == ["random 0.05 (mean of 3 seeds)"]


@pytest.mark.parametrize(
    ("keeps", "expected"),
    [
        ((0.5, 0.9), ["top 0.9", "top 0.5", "bottom 0.5", "bottom 0.1"]),
        ((1e-5, 2e-5), ["top 2e-05", "top 1e-05", "bottom 0.99999", "bottom 0.99998"]),
        ((0.123456, 0.123457), ["top 0.123457", "top 0.123456", "bottom 0.876544", "bottom 0.876543"]),
        ((1e-17, 2e-17), ["top 2e-17", "top 1e-17", "bottom 1 - 1e-17", "bottom 1 - 2e-17"]),
    ],
)
def test_different_fractions_have_different_labels_and_curves(
    tmp_path: Path, keeps: tuple[float, float], expected: list[str]
) -> None:
    values = {("top", keeps[1]): 7.0, ("top", keeps[0]): 5.0, ("bottom", keeps[0]): 1.0, ("bottom", keeps[1]): 3.0}
    rows = [
        {"step": step, "variant": variant, "keep": keep, "value": value}
        for step in (0, 10)
        for (variant, keep), value in values.items()
    ]
    (drawn,) = draw_pruning(gathered(pruned(tmp_path / "p.parquet", rows)), Choice())
    assert legend(drawn) == expected
    assert [line[1] for line in lines(drawn)] == [[value] * 2 for value in values.values()]


def test_two_tables_of_prune_eval_of_a_run_are_one_panel_with_a_mean_over_seeds(tmp_path: Path) -> None:
    """`--keep 0.5 --mask-seed 0` and `--keep 0.9 --mask-seed 1`, as the papers' figure needs."""
    paths = []
    for seed, keep in ((0, 0.5), (1, 0.9)):
        settings = {"spectra.settings": json.dumps({"keep": keep, "mask_seed": seed, "steps": None})}
        found = [("full", 1.0, None, 0.5), ("top", keep, None, keep), ("random", 0.05, seed, 2.0 + 2 * seed)]
        paths.append(tmp_path / f"pe{seed}.parquet")
        with TableWriter(paths[-1], "prune_eval", metadata=settings) as table:
            table.write(
                {"run": "r", "checkpoint": f"s{step}", "step": step, "variant": variant, "keep": share, "seed": own}
                | {"split": "val", "metric": "loss", "value": value, "status": "ok"}
                for step in (0, 10)
                for variant, share, own, value in found
            )
    (drawn,) = draw_pruning(gathered(*paths), Choice())
    assert [axis.get_title() for axis in drawn.figure.axes] == ["val loss\nr"]
    assert legend(drawn) == ["full", "top 0.9", "top 0.5", "random 0.05 (mean of 2 seeds)"]
    assert [line[1] for line in lines(drawn)] == [[0.5] * 2, [0.9] * 2, [0.5] * 2, [3.0] * 2]
    assert band(drawn, 0) == {x: pytest.approx((3 - 2**0.5, 3 + 2**0.5)) for x in (0.0, 10.0)}
