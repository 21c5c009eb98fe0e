"""Figures of what pruning leaves show the numbers of the rows, variant by variant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection, QuadMesh

from spectra_cli.errors import UsageError
from spectra_cli.figures.choice import Choice, Drawn, NothingToDraw
from spectra_cli.figures.plots.pruned import draw_pruned_agreement, draw_pruned_diagonal
from spectra_cli.figures.rows.gathered import Gathered
from spectra_cli.tables.reader import open_table
from tests.figures.planted import failed, sva_row, write

NAN = float("nan")
SCORES = {"random": 0.1, "top": 0.9, "bottom": 0.2}


def pruned(path: Path, *rows: dict[str, Any], runs: tuple[str, ...] = ()) -> Gathered:
    return Gathered([open_table(write(path / "pruned.parquet", "sva", rows, leave_out=()))], runs)


def rows_of(run: str = "a", steps: tuple[int, ...] = (0, 4), **scores: float) -> list[dict[str, Any]]:
    """Scores of two matrices: of the second half as large."""
    return [
        sva_row(step, name, score / (1 + depth) + step / 100, depth=depth, run=run, variant=variant)
        for variant, score in (scores or SCORES).items()
        for depth, name in ((1, "high"), (0, "low"))
        for step in steps
    ]


def cells(drawn: Drawn, panel: int) -> np.ndarray[Any, Any]:
    (mesh,) = [each for each in drawn.figure.axes[panel].collections if isinstance(each, QuadMesh)]
    return np.ma.filled(np.ma.asarray(mesh.get_array(), float), NAN)


def curves(drawn: Drawn, panel: int = 0) -> dict[str, list[float]]:
    """Values of each curve of a panel, by the legend of the first."""
    names = [text.get_text() for text in drawn.figure.axes[0].get_legend().get_texts()]
    return dict(
        zip(
            names,
            [np.asarray(line.get_ydata(), float).tolist() for line in drawn.figure.axes[panel].lines],
            strict=True,
        )
    )


def test_variants_are_panels_in_the_order_of_a_legend(tmp_path: Path) -> None:
    (drawn,) = draw_pruned_agreement(pruned(tmp_path, *rows_of()), Choice())
    *grid, bar = drawn.figure.axes
    assert [axis.get_title() for axis in grid] == ["top\na", "bottom\na", "random\na"]
    for panel, variant in enumerate(("top", "bottom", "random")):
        score = SCORES[variant]
        np.testing.assert_allclose(cells(drawn, panel), [[score, score + 0.04], [score / 2, score / 2 + 0.04]])
    assert [text.get_text() for text in grid[0].get_yticklabels()] == ["low", "high"]
    assert {axis.collections[0].get_clim() for axis in grid} == {(0.0, 1.0)}
    assert bar.get_ylabel() == "agreement score"
    assert drawn.figure.get_suptitle() == "agreement of pruned with whole matrices"
    assert drawn.about == "agreement of pruned with whole matrices: top, bottom, random"
    assert drawn.notices == ()


def test_runs_are_rows_of_panels_whose_columns_stay_in_line(tmp_path: Path) -> None:
    """Though one run lacks a variant, and a variant a matrix: these stay empty, and that is told."""
    rows = [*rows_of("u", top=0.8, random=0.2), *rows_of("v", (0, 6), random=0.4)]
    rows = [row for row in rows if not (row["variant"] == "random" and row["parameter"] == "low")]
    (drawn,) = draw_pruned_agreement(pruned(tmp_path, *rows), Choice())
    grid = drawn.figure.axes[:-1]
    assert [axis.get_title() for axis in grid] == ["top\nu", "random\nu", "top\nv", "random\nv"]
    np.testing.assert_allclose(cells(drawn, 1), [[NAN, NAN], [0.1, 0.14]])
    assert np.isnan(cells(drawn, 2)).all()
    np.testing.assert_allclose(cells(drawn, 3), [[NAN, NAN], [0.2, 0.26]])
    assert drawn.notices == ("random: there are no rows of 1 of 2 matrices",)
    assert len({axis.get_ylim() for axis in grid}) == 1


def test_the_mean_over_runs_is_of_common_steps(tmp_path: Path) -> None:
    """Oracle: the mean of the planted scores."""
    rows = [*rows_of("u", (0, 4, 5), top=0.8, random=0.2), *rows_of("v", (0, 4, 6), top=0.4)]
    (drawn,) = draw_pruned_agreement(pruned(tmp_path, *rows), Choice(over="run"))
    assert [axis.get_title() for axis in drawn.figure.axes[:-1]] == ["top\nmean of 2 runs", "random\nmean of 2 runs"]
    np.testing.assert_allclose(cells(drawn, 0), [[0.6, 0.64], [0.3, 0.34]])
    assert np.isnan(cells(drawn, 1)).all()
    assert "2 of 4 steps are left out, as not all runs have them" in drawn.notices


def test_empty_cells_are_told_by_variant(tmp_path: Path) -> None:
    rows = [*rows_of(top=0.8, random=0.2), failed("corrupt", step=9, checkpoint="step_9")]
    rows += [sva_row(6, "low", None, depth=0, variant="random", status="all_zero")]
    (drawn,) = draw_pruned_agreement(pruned(tmp_path, *rows), Choice())
    assert drawn.notices == (
        "top: 2 cells of a are empty (2 corrupt)",
        "random: 3 cells of a are empty (2 corrupt, 1 all_zero)",
    )
    assert np.isnan(cells(drawn, 1)).tolist() == [[False, False, True, True], [False, False, True, True]]


def test_nothing_to_draw_says_why(tmp_path: Path) -> None:
    with pytest.raises(NothingToDraw, match=r"a has one checkpoint only \(step 3\)"):
        draw_pruned_agreement(pruned(tmp_path, *rows_of(steps=(3,))), Choice())
    nothing = [failed("corrupt", step=step, checkpoint=f"s{step}") for step in (0, 1)]
    for draw in (draw_pruned_agreement, draw_pruned_diagonal):
        with pytest.raises(NothingToDraw, match="status"):
            draw(pruned(tmp_path, *nothing), Choice())
        with pytest.raises(NothingToDraw, match="no row"):
            draw(pruned(tmp_path), Choice())


def test_diagonals_are_those_of_the_last_checkpoint_of_each_run(tmp_path: Path) -> None:
    """Curves from index 1 on, told apart alike in all panels; the middle matrix by default, and said."""
    rows = [*rows_of("u", (0, 4), top=0.8, random=0.2), *rows_of("v", (0, 6), random=0.4)]
    (drawn,) = draw_pruned_diagonal(pruned(tmp_path, *rows), Choice())
    left, right = drawn.figure.axes
    assert curves(drawn, 0) == {
        "top": pytest.approx([0.84, 0.42, 0.21]),
        "random": pytest.approx([0.24, 0.12, 0.06]),
    }
    assert curves(drawn, 1) == {"top": [], "random": pytest.approx([0.46, 0.23, 0.115])}
    assert left.lines[1].get_xdata().tolist() == [1, 2, 3]
    assert left.lines[1].get_color() == right.lines[1].get_color()
    assert (left.get_title(), right.get_title()) == ("step 4\nu", "step 6\nv")
    assert (left.get_xlabel(), left.get_ylabel()) == ("index i", "agreement S_ii")
    assert right.get_ylabel() == ""
    low, high = left.get_ylim()
    assert low <= 0
    assert high >= 1
    assert drawn.figure.get_suptitle() == "pruned against whole\nlow"
    assert drawn.about.endswith("at the end: low (the middle one of 2 matrices)")
    assert drawn.name == "pruned_diagonal-low"


def test_the_mean_of_diagonals_has_a_band(tmp_path: Path) -> None:
    """Oracle: NumPy with n - 1, of the last checkpoints, which may differ in step."""
    rows = [*rows_of("u", (0, 4), top=0.76, random=0.2), *rows_of("v", (0, 6), top=0.34)]
    (drawn,) = draw_pruned_diagonal(pruned(tmp_path, *rows), Choice(over="run"))
    (axis,) = drawn.figure.axes
    ends = np.array([[0.8, 0.4, 0.2], [0.4, 0.2, 0.1]])
    assert curves(drawn) == {"top": pytest.approx(ends.mean(axis=0)), "random": []}
    (band, *_) = [each for each in axis.collections if isinstance(each, PolyCollection)]
    points = np.concatenate([path.vertices for path in band.get_paths()])
    half = ends.std(axis=0, ddof=1)
    assert points[points[:, 0] == 1, 1].max() == pytest.approx(0.6 + half[0])
    assert axis.get_title() == "last step of each\nmean of 2 runs, band: 1 standard deviation"
    assert drawn.notices == ("random is left out, as not all runs have it",)


def test_globs_choose_matrices(tmp_path: Path) -> None:
    table = pruned(tmp_path, *rows_of())
    drawn = draw_pruned_diagonal(table, Choice(parameter=("*",)))
    assert [each.name for each in drawn] == ["pruned_diagonal-low", "pruned_diagonal-high"]
    with pytest.raises(UsageError, match=r"no matrix matches --parameter lov\. There are low, high"):
        draw_pruned_diagonal(table, Choice(parameter=("lov",)))


def test_hostile_variants_and_names_are_text(tmp_path: Path) -> None:
    hostile = "_$\\frac{\n\u202e" + "x" * 5000
    rows = [sva_row(step, hostile, 0.5, run=hostile, variant=hostile) for step in (0, 1)]
    for draw in (draw_pruned_agreement, draw_pruned_diagonal):
        (drawn,) = draw(pruned(tmp_path, *rows), Choice())
        drawn.figure.draw_without_rendering()
        texts = [drawn.figure.get_suptitle(), *(axis.get_title() for axis in drawn.figure.axes)]
        assert all(len(line) < 150 and "\u202e" not in line for text in texts for line in text.split("\n"))


def test_figures_of_the_fixtures_show_the_numbers_of_their_tables(fixture_tables: Path) -> None:
    """Oracle: pandas on the file."""
    path = fixture_tables / "grok" / "pruned.parquet"
    frame = pd.read_parquet(path)
    own = frame[(frame.run == "seed_0") & (frame.variant == "magnitude")]
    (drawn,) = draw_pruned_agreement(Gathered([open_table(path)]), Choice())
    place = [axis.get_title() for axis in drawn.figure.axes].index("magnitude\nseed_0")
    expected = own.pivot(index="depth", columns="step", values="score").sort_index().to_numpy()
    found = cells(drawn, place)
    np.testing.assert_array_equal(found[~np.isnan(found).all(axis=1)], expected[~np.isnan(expected).all(axis=1)])


def test_a_diagonal_is_of_a_matrix_that_all_runs_have_and_tells_of_those_without(tmp_path: Path) -> None:
    lost = [{**row, "status": "not_finite", "diagonal": None} for row in rows_of("b") if row["parameter"] == "low"]
    kept = [row for row in rows_of("b") if row["parameter"] == "high"]
    table = pruned(tmp_path, *rows_of("a"), *kept, *lost)
    (drawn,) = draw_pruned_diagonal(table, Choice())
    assert drawn.name == "pruned_diagonal-high"
    assert "(the only matrix that all runs have)" in drawn.about
    assert drawn.notices == ()
    (asked,) = draw_pruned_diagonal(table, Choice(parameter=("low",)))
    assert asked.notices == ("b is left out: it has no numbers of low (2 not_finite)",)


def test_diagonals_that_a_mean_cuts_short_are_told_of(tmp_path: Path) -> None:
    shorter = [{**row, "diagonal": row["diagonal"][:2]} for row in rows_of("b", top=0.5)]
    table = pruned(tmp_path, *rows_of("a", top=0.5), *shorter)
    (drawn,) = draw_pruned_diagonal(table, Choice(parameter=("low",), over="run"))
    assert len(curves(drawn)["top"]) == 2
    told = "top: the mean is of the first 2 of up to 3 entries of a diagonal, as not all runs have more"
    assert drawn.notices == (told,)
