"""Figures of pairs show the numbers of the tables: curves, chords, barriers, and agreement of the ends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spectra_cli.errors import UsageError
from spectra_cli.figures.choice import Choice, Drawn, NothingToDraw
from spectra_cli.figures.plots import barriers
from spectra_cli.figures.plots.barriers import draw_barrier_against, draw_barrier_line
from spectra_cli.figures.plots.ends import draw_ends_agreement
from spectra_cli.figures.rows.gathered import Gathered
from spectra_cli.figures.rows.pairs import paired
from spectra_cli.tables.reader import open_table
from spectra_cli.tables.writer import TableWriter

NAN = float("nan")
HOSTILE = "$\\frac{\n<script>\u202e" + "x" * 5000
PAIR = {
    **{"run_a": "runs/a", "checkpoint_a": "step_9", "step_a": 9},
    **{"run_b": "runs/b", "checkpoint_b": "step_9", "step_b": 9},
}
ALPHAS = (0.0, 0.25, 0.5, 1.0)


def on_line(values: Sequence[float | None], split: str = "train", metric: str = "loss", **other: Any) -> list[Any]:
    """Rows of one curve of a pair: chord and barrier by their formulas; null where they are unknown."""
    known = [NAN if value is None else value for value in values]
    chords = [(1 - alpha) * known[0] + alpha * known[-1] for alpha in ALPHAS]
    excess = [value - chord for value, chord in zip(known, chords, strict=True)]
    barrier = max(excess) if np.isfinite(known).all() else None
    return [
        {
            **PAIR,
            **{"split": split, "metric": metric, "alpha": alpha, "value": value, "barrier": barrier},
            **{"chord": chord if np.isfinite(chord + over) else None, "excess": over if np.isfinite(over) else None},
            **{"status": "ok" if value is not None else "not_finite", **other},
        }
        for alpha, value, chord, over in zip(ALPHAS, values, chords, excess, strict=True)
    ]


def of_barrier(barrier: float | None, **other: Any) -> list[Any]:
    """Rows of a pair whose barrier is given; on a flat chord at 0."""
    if barrier is None:
        return on_line([0.0, None, 0.0, 0.0], **other)
    return on_line([0.0, 0.0, barrier, 0.0], **other)


def table(path: Path, rows: Sequence[Any], **tags: str) -> Path:
    with TableWriter(path, "barrier", tags=tags) as written:
        written.write(rows)
    return path


def ends(path: Path, rows: Sequence[Any], **tags: str) -> Path:
    """A table of `barrier --sva-out`; rows are (B, parameter, depth, diagonal)."""
    settings = {"spectra.settings": json.dumps({"alphas": 3})}
    with TableWriter(path, "sva", tags=tags, metadata=settings, leave_out={"variant"}) as written:
        for run, parameter, depth, diagonal in rows:
            score = None if diagonal is None else float(np.mean(diagonal[:10]))
            written.write(
                [
                    {
                        **{"run": run, "checkpoint": "c", "step": 9, "reference_run": "runs/a"},
                        **{"reference_checkpoint": "c", "reference_step": 9, "parameter": parameter, "depth": depth},
                        **{"score": score, "diagonal": diagonal, "status": "ok" if diagonal else "not_finite"},
                    }
                ]
            )
    return path


def gathered(*paths: Path) -> Gathered:
    return Gathered([open_table(path) for path in paths])


def points(line: Any) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]


def legend(drawn: Drawn, panel: int = 0) -> list[str]:
    return [text.get_text() for text in drawn.figure.axes[panel].get_legend().get_texts()]


def heading(drawn: Drawn) -> str:
    return drawn.figure.get_suptitle()


def cells(axis: Any) -> np.ma.MaskedArray[Any, Any]:
    """The numbers of a heat map, (rows, columns)."""
    return axis.collections[0].get_array()


# the line between two checkpoints


def test_the_line_has_its_values_its_chord_and_its_barrier(tmp_path: Path) -> None:
    """Oracle: values as written; the chord by its formula; the barrier, 4 at alpha 0.25, by hand."""
    (drawn,) = draw_barrier_line(gathered(table(tmp_path / "b.parquet", on_line([1.0, 6.0, 4.0, 5.0]))), Choice())
    curve, chord, mark = drawn.figure.axes[0].lines
    assert points(curve) == list(zip(ALPHAS, (1.0, 6.0, 4.0, 5.0), strict=True))
    assert points(chord) == [(alpha, 1.0 + 4.0 * alpha) for alpha in ALPHAS]
    assert chord.is_dashed()
    assert points(mark) == [(0.25, 2.0), (0.25, 6.0)]
    assert legend(drawn) == ["train: barrier 4"]
    assert chord.get_color() == mark.get_color() == curve.get_color()


def test_metrics_have_a_panel_and_splits_a_curve_each(tmp_path: Path) -> None:
    rows = [
        row
        for place, (metric, split) in enumerate((m, s) for m in ("loss", "error") for s in ("train", "val"))
        for row in on_line([float(place), 9.0, 9.0, float(place)], split, metric)
    ]
    (drawn,) = draw_barrier_line(gathered(table(tmp_path / "b.parquet", rows)), Choice())
    loss, error = drawn.figure.axes
    assert [line.get_ydata()[0] for line in loss.lines[:2]] == [0.0, 1.0]
    assert [line.get_ydata()[0] for line in error.lines[:2]] == [2.0, 3.0]
    assert (loss.get_ylabel(), error.get_ylabel()) == ("loss", "error (fraction)")
    assert {axis.get_xlabel() for axis in (loss, error)} == {"alpha (0: A, 1: B)"}
    assert legend(drawn, 1) == ["train: barrier 7", "val: barrier 6"]


def test_titles_name_the_two_checkpoints_without_their_common_directories(tmp_path: Path) -> None:
    (drawn,) = draw_barrier_line(gathered(table(tmp_path / "b.parquet", of_barrier(1.0))), Choice())
    assert heading(drawn).split("\n")[0] == "A to B: a@9 to b@9"
    assert drawn.name == "barrier_line-a@9_to_b@9"
    assert drawn.about == "metrics on the line from a@9 (A) to b@9 (B)"


def test_there_is_no_mark_where_there_is_no_barrier(tmp_path: Path) -> None:
    """The line stays below its chord: the barrier is 0, at the ends."""
    (drawn,) = draw_barrier_line(gathered(table(tmp_path / "b.parquet", on_line([1.0, 0.5, 0.5, 1.0]))), Choice())
    assert len(drawn.figure.axes[0].lines) == 2
    assert legend(drawn) == ["train: barrier 0"]


def test_a_value_that_is_no_number_is_a_gap_and_the_barrier_unknown(tmp_path: Path) -> None:
    (drawn,) = draw_barrier_line(gathered(table(tmp_path / "b.parquet", on_line([1.0, None, 4.0, 1.0]))), Choice())
    np.testing.assert_array_equal(drawn.figure.axes[0].lines[0].get_ydata(), [1.0, NAN, 4.0, 1.0])
    assert legend(drawn) == ["train: barrier unknown"]
    assert drawn.notices == ("a@9 to b@9: values missing: 1 (not_finite)",)


def test_the_axis_of_values_is_linear_unless_chosen(tmp_path: Path) -> None:
    """A barrier is a difference, whatever the ratio of values; zeros on a logarithmic axis are told."""
    rows = on_line([1e-6, 1.0, 0.0, 1e-6])
    (linear,) = draw_barrier_line(gathered(table(tmp_path / "b.parquet", rows)), Choice())
    (log,) = draw_barrier_line(gathered(table(tmp_path / "b.parquet", rows)), Choice(y_scale="log"))
    assert [drawn.figure.axes[0].get_yscale() for drawn in (linear, log)] == ["linear", "log"]
    assert (linear.notices, log.notices) == ((), ("1 value of 0 or less is not on the logarithmic axis",))


def test_one_pair_in_two_tables_is_two_pairs(tmp_path: Path) -> None:
    """As with other perturbations, which only a tag tells; a tag that all have tells nothing."""
    one = table(tmp_path / "one.parquet", of_barrier(1.0), scale="1", seed="0")
    two = table(tmp_path / "two.parquet", of_barrier(2.0), scale="2", seed="0")
    drawn = draw_barrier_line(gathered(one, two), Choice())
    assert [legend(each) for each in drawn] == [["train: barrier 1"], ["train: barrier 2"]]
    assert [heading(each).split("\n")[0] for each in drawn] == [f"A to B: a@9 to b@9, scale {scale}" for scale in "12"]
    assert len({each.name for each in drawn}) == 2


def test_there_are_no_more_figures_than_can_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(barriers, "MOST_FIGURES", 2)
    rows = [row for number in range(3) for row in of_barrier(1.0, run_b=f"runs/{number}")]
    drawn = draw_barrier_line(gathered(table(tmp_path / "b.parquet", rows)), Choice())
    assert len(drawn) == 2
    assert drawn[-1].notices == ("only the first 2 of 3 pairs are drawn",)


def test_pairs_that_failed_are_told(tmp_path: Path) -> None:
    whole = {**PAIR, "run_b": "runs/c", "status": "shape_mismatch"}
    drawn = draw_barrier_line(gathered(table(tmp_path / "b.parquet", [*of_barrier(1.0), whole])), Choice())
    assert [each.notices for each in drawn] == [("a@9 to c@9: shape_mismatch",)]
    with pytest.raises(NothingToDraw, match="status"):
        draw_barrier_line(gathered(table(tmp_path / "only.parquet", [whole])), Choice())


def test_hostile_names_are_drawn_as_text_and_bounded(tmp_path: Path) -> None:
    rows = on_line([1.0, 2.0, 3.0, 1.0], HOSTILE, HOSTILE, run_a=HOSTILE, run_b=f"{HOSTILE}b")
    path = table(tmp_path / "b.parquet", rows, **{HOSTILE: "1"})
    other = table(tmp_path / "c.parquet", rows, **{HOSTILE: "2"})
    drawn = [
        *draw_barrier_line(gathered(path, other), Choice()),
        *draw_barrier_against(gathered(path, other), Choice(x=HOSTILE)),
    ]
    assert len(drawn) == 3
    for each in drawn:
        each.figure.draw_without_rendering()
        axis = each.figure.axes[0]
        texts = [heading(each), axis.get_title(), axis.get_xlabel(), axis.get_ylabel(), *legend(each)]
        assert all(len(line) < 300 and "\u202e" not in line for text in texts for line in text.split("\n"))
        assert len(each.name) < 200
        assert not set(each.name) & set("$\\/<>\n{} ")


# barriers of many pairs


def test_barriers_stand_at_the_number_of_their_tag(tmp_path: Path) -> None:
    """One curve for each split, in the order of the numbers and not of the files."""
    late = table(tmp_path / "late.parquet", [*of_barrier(0.5), *of_barrier(0.2, split="val")], split_step="1e2")
    early = table(tmp_path / "early.parquet", [*of_barrier(2.0), *of_barrier(3.0, split="val")], split_step="0")
    (drawn,) = draw_barrier_against(gathered(late, early), Choice(x="split_step"))
    (axis,) = drawn.figure.axes
    assert [points(line) for line in axis.lines] == [[(0.0, 2.0), (100.0, 0.5)], [(0.0, 3.0), (100.0, 0.2)]]
    assert legend(drawn) == ["train", "val"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("split_step", "barrier of loss")
    assert heading(drawn) == "barrier against split_step, 2 pairs"
    assert not axis.collections
    assert drawn.notices == ()


def test_pairs_at_one_place_are_averaged_and_shown(tmp_path: Path) -> None:
    """Oracle: mean and sample deviation of 1, 2, 6 by hand; the place with one pair has no bar."""
    three = [row for number, b in enumerate((1.0, 2.0, 6.0)) for row in of_barrier(b, run_b=f"runs/{number}")]
    many = table(tmp_path / "many.parquet", three, scale="0.5")
    one = table(tmp_path / "one.parquet", of_barrier(4.0), scale="2")
    (drawn,) = draw_barrier_against(gathered(many, one), Choice(x="scale"))
    axis = drawn.figure.axes[0]
    assert points(axis.lines[0]) == [(0.5, 3.0), (2.0, 4.0)]
    bars, dots = axis.collections
    (bar,) = bars.get_segments()
    np.testing.assert_allclose(bar, [(0.5, 3 - 7**0.5), (0.5, 3 + 7**0.5)])
    shown = sorted(map(tuple, np.asarray(dots.get_offsets()).tolist()))
    assert shown == [(0.5, 1.0), (0.5, 2.0), (0.5, 6.0), (2.0, 4.0)]
    assert heading(drawn).split("\n")[1] == "mean of pairs at one place; error bars: 1 standard deviation"


def test_a_pair_without_a_barrier_makes_the_mean_unknown(tmp_path: Path) -> None:
    """And is told: leaving out the pairs that diverged would make barriers look lower than they are."""
    first = [*of_barrier(1.0, run_b="runs/x"), *of_barrier(None, run_b="runs/y")]
    files = [table(tmp_path / "1.parquet", first, t="1"), table(tmp_path / "2.parquet", of_barrier(5.0), t="2")]
    (drawn,) = draw_barrier_against(gathered(*files), Choice(x="t"))
    np.testing.assert_array_equal(drawn.figure.axes[0].lines[0].get_ydata(), [NAN, 5.0])
    assert drawn.notices == ("a@9 to y@9: barriers missing: 1 (not_finite)",)


@pytest.mark.parametrize(("scale", "drawn_x", "notices"), [
    ("linear", [0.0, 4.0, 64.0], ()),
    ("symlog", [0.0, 4.0, 64.0], ()),
    ("log", [4.0, 64.0], ("1 place of 0 or less is not on the logarithmic axis",)),
])  # fmt: skip
def test_the_scale_of_places_is_chosen(
    tmp_path: Path, scale: Any, drawn_x: list[float], notices: tuple[str, ...]
) -> None:
    files = [table(tmp_path / f"{t}.parquet", of_barrier(1.0 + t), t=str(t)) for t in (0, 4, 64)]
    (drawn,) = draw_barrier_against(gathered(*files), Choice(x="t", x_scale=scale))
    axis = drawn.figure.axes[0]
    assert axis.get_xscale() == scale
    assert axis.lines[0].get_xdata().tolist() == drawn_x
    assert drawn.notices == notices


def test_barriers_may_stand_at_the_steps_of_their_ends(tmp_path: Path) -> None:
    rows = [row for step in (100, 10) for row in of_barrier(step / 10, step_b=step, checkpoint_b=f"step_{step}")]
    (drawn,) = draw_barrier_against(gathered(table(tmp_path / "b.parquet", rows)), Choice(x="step_b"))
    assert points(drawn.figure.axes[0].lines[0]) == [(10.0, 1.0), (100.0, 10.0)]
    assert drawn.figure.axes[0].get_xlabel() == "step of B (optimizer steps)"


@pytest.mark.parametrize("tag", ["x", "pair", "label", "table", "run", "step", "name"])
def test_a_tag_may_have_any_name(tmp_path: Path, tag: str) -> None:
    """Also those of columns that are made on the way."""
    files = [table(tmp_path / f"{place}.parquet", of_barrier(place), **{tag: f"{place}"}) for place in (1.0, 2.0)]
    (drawn,) = draw_barrier_against(gathered(*files), Choice(x=tag))
    assert points(drawn.figure.axes[0].lines[0]) == [(1.0, 1.0), (2.0, 2.0)]


@pytest.mark.parametrize("value", ["late", "", "nan", "inf"])
def test_a_tag_that_is_no_number_is_named_with_its_table(tmp_path: Path, value: str) -> None:
    good = table(tmp_path / "good.parquet", of_barrier(1.0), when="0")
    bad = table(tmp_path / "bad.parquet", of_barrier(1.0), when=value)
    with pytest.raises(UsageError, match=f"'{value}' is no number") as caught:
        draw_barrier_against(gathered(good, bad), Choice(x="when"))
    assert "bad.parquet" in str(caught.value)
    assert "--tag when=" in str(caught.value)


def test_a_table_without_the_tag_is_named_and_left_out(tmp_path: Path) -> None:
    files = [table(tmp_path / f"{t}.parquet", of_barrier(t), t=str(t)) for t in (1.0, 2.0)]
    (drawn,) = draw_barrier_against(gathered(*files, table(tmp_path / "other.parquet", of_barrier(9.0))), Choice(x="t"))
    assert points(drawn.figure.axes[0].lines[0]) == [(1.0, 1.0), (2.0, 2.0)]
    assert drawn.notices == ("other.parquet has no t, so its pairs (1) are left out",)


def test_without_a_tag_the_tags_that_there_are_are_told(tmp_path: Path) -> None:
    tables = gathered(table(tmp_path / "b.parquet", of_barrier(1.0), split_step="0", seed="1"))
    with pytest.raises(NothingToDraw, match=r"--x .*split_step, seed"):
        draw_barrier_against(tables, Choice())
    with pytest.raises(UsageError, match=r"--x steps: no table has .*split_step, seed"):
        draw_barrier_against(tables, Choice(x="steps"))
    with pytest.raises(NothingToDraw, match="--tag NAME=NUMBER"):
        draw_barrier_against(gathered(table(tmp_path / "c.parquet", of_barrier(1.0))), Choice())


def test_one_place_only_says_what_to_do(tmp_path: Path) -> None:
    tables = gathered(table(tmp_path / "b.parquet", of_barrier(1.0), t="5"))
    with pytest.raises(NothingToDraw, match="all pairs have t 5"):
        draw_barrier_against(tables, Choice(x="t"))


# agreement of the ends


LAYERS = (("low", 0, [0.2, 0.4]), ("mid", 1, [0.6, 1.0]), ("high", 2, [0.1, 0.3]))


def of_pair(run: str, factor: float = 1.0) -> list[Any]:
    return [(run, name, depth, [factor * value for value in diagonal]) for name, depth, diagonal in LAYERS]


def test_pairs_have_a_column_each_unless_a_tag_is_given(tmp_path: Path) -> None:
    """Oracle: mean of the diagonal; S_ii of the middle matrix, in float32 as in the table."""
    path = ends(tmp_path / "e.parquet", [*of_pair("runs/b"), *of_pair("runs/c", 0.5)])
    (drawn,) = draw_ends_agreement(gathered(path), Choice())
    scores, diagonal, _ = drawn.figure.axes
    np.testing.assert_allclose(cells(scores), [[0.3, 0.15], [0.8, 0.4], [0.2, 0.1]], rtol=1e-6)
    np.testing.assert_allclose(cells(diagonal), [[0.6, 0.3], [1.0, 0.5]], rtol=1e-6)
    assert [text.get_text() for text in scores.get_xticklabels()] == ["a@9 to b@9", "a@9 to c@9"]
    assert [text.get_text() for text in scores.get_yticklabels()] == ["low", "mid", "high"]
    assert drawn.about.endswith("S_ii of mid (the middle one of 3 matrices)")
    assert diagonal.get_title() == "S_ii of A and B\nmid"
    assert (scores.get_ylabel(), diagonal.get_ylabel()) == ("matrix (depth downwards)", "index i")
    assert scores.collections[0].get_clim() == diagonal.collections[0].get_clim() == (0.0, 1.0)


def test_against_a_tag_pairs_at_one_place_are_averaged(tmp_path: Path) -> None:
    late = ends(tmp_path / "late.parquet", [*of_pair("runs/b"), *of_pair("runs/c", 0.5)], t="10")
    early = ends(tmp_path / "early.parquet", of_pair("runs/b", 0.1), t="2")
    (drawn,) = draw_ends_agreement(gathered(late, early), Choice(x="t", parameter=("high",)))
    scores, diagonal, _ = drawn.figure.axes
    np.testing.assert_allclose(cells(scores), [[0.03, 0.225], [0.08, 0.6], [0.02, 0.15]], rtol=1e-6)
    np.testing.assert_allclose(cells(diagonal), [[0.01, 0.075], [0.03, 0.225]], rtol=1e-6)
    assert [text.get_text() for text in scores.get_xticklabels()] == ["2", "10"]
    assert scores.get_xlabel() == diagonal.get_xlabel() == "t"
    assert drawn.name == "ends_agreement-high"


def test_a_matrix_without_a_score_is_an_empty_cell_and_told(tmp_path: Path) -> None:
    rows = [("runs/b", "w", 0, [0.5]), ("runs/b", "v", 1, None), ("runs/b", "u", 2, [1.0])]
    path = ends(tmp_path / "e.parquet", rows)
    (drawn,) = draw_ends_agreement(gathered(path), Choice(parameter=("v",)))
    scores = cells(drawn.figure.axes[0])
    assert np.ma.getmaskarray(scores)[:, 0].tolist() == [False, True, False]
    assert drawn.notices == ("a@9 to b@9: scores missing: 1 (not_finite)",)


def test_a_pair_without_a_score_makes_the_mean_of_its_place_unknown(tmp_path: Path) -> None:
    """Of the score and of S_ii, as of barriers."""
    half = [("runs/b", "w", 0, [0.5, 0.1]), ("runs/c", "w", 0, None)]
    files = [ends(tmp_path / "1.parquet", half, t="1"), ends(tmp_path / "2.parquet", half[:1], t="2")]
    (drawn,) = draw_ends_agreement(gathered(*files), Choice(x="t"))
    scores, diagonal, _ = drawn.figure.axes
    assert np.ma.getmaskarray(cells(scores)).tolist() == [[True, False]]
    assert np.ma.getmaskarray(cells(diagonal)).tolist() == [[True, False]] * 2


def test_each_matrix_that_is_chosen_has_a_figure(tmp_path: Path) -> None:
    tables = gathered(ends(tmp_path / "e.parquet", of_pair("runs/b")))
    drawn = draw_ends_agreement(tables, Choice(parameter=("low", "h*")))
    assert [each.name for each in drawn] == ["ends_agreement-low", "ends_agreement-high"]
    with pytest.raises(UsageError, match="no matrix matches --parameter nothing"):
        draw_ends_agreement(tables, Choice(parameter=("nothing*",)))


def test_the_ends_lack_a_tag_that_the_barriers_have(tmp_path: Path) -> None:
    """Nothing to draw, but no error of the command line: the barriers are drawn against it."""
    tables = gathered(
        table(tmp_path / "b.parquet", of_barrier(1.0), t="1"), ends(tmp_path / "e.parquet", of_pair("runs/b"))
    )
    with pytest.raises(NothingToDraw, match="no tag t"):
        draw_ends_agreement(tables, Choice(x="t"))


def test_labels_are_steps_or_else_checkpoints(tmp_path: Path) -> None:
    """And what is unknown does not end the figure."""
    others: list[dict[str, Any]] = [{"run_b": "runs/deep/er", "step_b": None}, {"checkpoint_a": None, "step_a": None}]
    rows = [row for other in ({}, *others) for row in of_barrier(1.0, **other)]
    frame = paired(gathered(table(tmp_path / "b.parquet", rows)), "barrier", ["alpha"])
    assert list(dict.fromkeys(frame.label)) == ["a@9 to b@9", "a@9 to deep/er/step_9", "a to b@9"]


def test_figures_of_the_fixtures_show_the_numbers_of_their_tables(fixture_tables: Path) -> None:
    """Oracle: pandas on the files."""
    pandas = pytest.importorskip("pandas")
    paths = [fixture_tables / f"{name}.parquet" for name in ("early", "late")]
    frames = [pandas.read_parquet(path) for path in paths]
    lines = draw_barrier_line(gathered(*paths), Choice())
    assert [each.name for each in lines] == [f"barrier_line-{when}_1@516_to_{when}_2@516" for when in ("early", "late")]
    rows = frames[0][(frames[0].metric == "loss") & (frames[0].split == "train")]
    assert points(lines[0].figure.axes[0].lines[0]) == list(zip(rows.alpha, rows.value, strict=True))
    (against,) = draw_barrier_against(gathered(*paths), Choice(x="split_step"))
    expected = [frame[(frame.metric == "loss") & (frame.split == "train")].barrier.iloc[0] for frame in frames]
    assert points(against.figure.axes[0].lines[0]) == [(0.0, expected[0]), (129.0, expected[1])]
    (agreement,) = draw_ends_agreement(
        gathered(*(fixture_tables / f"ends_{name}.parquet" for name in ("early", "late"))), Choice(x="split_step")
    )
    scores = [pandas.read_parquet(fixture_tables / f"ends_{name}.parquet").score for name in ("early", "late")]
    np.testing.assert_allclose(cells(agreement.figure.axes[0]), np.column_stack(scores))


def test_tags_of_single_pairs_tell_the_same_checkpoints_apart(tmp_path: Path) -> None:
    """Further columns of a file of pairs, in one table."""
    ends = {f"{name}_{side}": f"{name}{side}" for side in "ab" for name in ("run", "checkpoint")}
    rows = [
        {**ends, "split": "val", "metric": "loss", "alpha": alpha, "barrier": 1.0, "status": "ok", "seed": seed}
        for seed in ("3", "4")
        for alpha in (0.0, 1.0)
    ]
    with TableWriter(tmp_path / "b.parquet", "barrier", tags={"seed": None, "all": "1"}) as writer:
        writer.write(rows)
    found = paired(Gathered([open_table(tmp_path / "b.parquet")]), "barrier", ["alpha"])
    assert found.pair.tolist() == [0, 0, 1, 1]
    assert found.label.drop_duplicates().tolist() == [f"runa/checkpointa to runb/checkpointb, seed {n}" for n in "34"]


def test_numbers_that_no_axis_can_show_are_gaps_with_a_notice(tmp_path: Path) -> None:
    ends = {f"{name}_{side}": f"{name}{side}" for side in "ab" for name in ("run", "checkpoint")}
    values = [1.0, 1.7e308, 2.0]
    rows = [
        {**ends, "split": "val", "metric": "loss", "alpha": alpha, "value": value, "chord": 1.0, "status": "ok"}
        for alpha, value in zip((0.0, 0.5, 1.0), values, strict=True)
    ]
    with TableWriter(tmp_path / "b.parquet", "barrier") as writer:
        writer.write(rows)
    (drawn,) = draw_barrier_line(Gathered([open_table(tmp_path / "b.parquet")]), Choice())
    drawn.figure.draw_without_rendering()
    curve = drawn.figure.axes[0].lines[0]
    np.testing.assert_array_equal(np.asarray(curve.get_ydata(), float), [1.0, np.nan, 2.0])
    assert any("beyond 1e+300" in notice for notice in drawn.notices)


@pytest.mark.parametrize("tags", [{}, {"seed": "1"}])
def test_pairs_named_alike_in_two_tables_are_told_apart_by_their_tables(tmp_path: Path, tags: dict[str, str]) -> None:
    """By directories, or by the tables' own names; also where all tags are equal. Each keeps its own values."""
    rows = [on_line([1.0, 2.0, high, 1.0]) for high in (3.0, 8.0)]
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    for places, expected in ((("x/b", "y/b"), "xy"), (("x/one", "x/two"), ("one", "two"))):
        tables = [table(tmp_path / f"{place}.parquet", own, **tags) for place, own in zip(places, rows, strict=True)]
        drawn = draw_barrier_line(gathered(*tables), Choice())
        told = [heading(each).split("\n")[0] for each in drawn]
        assert told == [f"A to B: a@9 to b@9 ({name})" for name in expected]
        assert [legend(each) for each in drawn] == [["train: barrier 2"], ["train: barrier 7"]]
    other = table(tmp_path / "c.parquet", on_line([1.0] * 4, run_b="runs/c"), **tags)
    labels = paired(gathered(*tables, other), "barrier", ["alpha"]).label.drop_duplicates().tolist()
    assert labels == ["a@9 to b@9 (one)", "a@9 to b@9 (two)", "a@9 to c@9"]


def test_pairs_that_differ_in_a_tag_need_no_name_of_a_table(tmp_path: Path) -> None:
    tables = [table(tmp_path / f"{k}.parquet", on_line([1.0] * 4), k=k) for k in "12"]
    labels = paired(gathered(*tables), "barrier", ["alpha"]).label.drop_duplicates().tolist()
    assert labels == ["a@9 to b@9, k 1", "a@9 to b@9, k 2"]


def test_two_checkpoints_of_one_step_are_told_apart_by_their_names(tmp_path: Path) -> None:
    rows = [*on_line([1.0] * 4), *on_line([2.0] * 4, checkpoint_b="step_9-v1")]
    labels = paired(gathered(table(tmp_path / "b.parquet", rows)), "barrier", ["alpha"]).label.drop_duplicates()
    assert labels.tolist() == ["a@9 to b@9 (step_9 to step_9)", "a@9 to b@9 (step_9 to step_9-v1)"]


def test_one_table_given_twice_has_two_pairs(tmp_path: Path) -> None:
    path = table(tmp_path / "b.parquet", on_line([1.0] * 4))
    frame = paired(gathered(path, path), "barrier", ["alpha"])
    assert frame.pair.nunique() == frame.label.nunique() == 2


def test_columns_of_agreement_of_pairs_named_alike_are_told_apart(tmp_path: Path) -> None:
    for place in "xy":
        (tmp_path / place).mkdir()
    tables = [
        ends(tmp_path / place / "ends.parquet", [("runs/b", "w", 0, [score] * 3)])
        for place, score in (("x", 0.2), ("y", 0.8))
    ]
    (drawn,) = draw_ends_agreement(gathered(*tables), Choice())
    scores = drawn.figure.axes[0]
    assert [text.get_text() for text in scores.get_xticklabels()] == ["a@9 to b@9 (x)", "a@9 to b@9 (y)"]
    np.testing.assert_allclose(cells(scores), [[0.2, 0.8]])
