"""Heat maps of all matrices show the numbers of the tables: rows in the order of depth, columns at their steps."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import QuadMesh

from spectra_cli.errors import UsageError
from spectra_cli.figures.choice import Choice, Drawn, NothingToDraw
from spectra_cli.figures.plots.overview import draw_agreement_score, draw_alignment_score, draw_effective_rank
from spectra_cli.figures.rows.gathered import Gathered
from spectra_cli.tables.reader import open_table
from tests.figures.planted import align_row, failed, rank_row, sva_row, write

NAN = float("nan")
HOSTILE = "_$\\frac{1}{%\n\u202e" + "h." * 2500 + "weight"


def gathered(*paths: Path, runs: tuple[str, ...] = ()) -> Gathered:
    return Gathered([open_table(path) for path in paths], runs)


def rank(path: Path, *rows: dict[str, Any]) -> Gathered:
    return gathered(write(path / "rank.parquet", "rank", rows))


def cells(drawn: Drawn, panel: int = 0) -> np.ndarray[Any, Any]:
    """Numbers behind the colours of a panel, nan where there is none."""
    (mesh,) = [each for each in drawn.figure.axes[panel].collections if isinstance(each, QuadMesh)]
    return np.ma.filled(np.ma.asarray(mesh.get_array(), float), NAN)


def edges(drawn: Drawn, panel: int = 0) -> list[float]:
    """Where the cells of a panel begin and end."""
    (mesh,) = [each for each in drawn.figure.axes[panel].collections if isinstance(each, QuadMesh)]
    return [float(x) for x in mesh.get_coordinates()[0, :, 0]]


def row_names(drawn: Drawn, panel: int = 0) -> list[str]:
    return [text.get_text() for text in drawn.figure.axes[panel].get_yticklabels()]


def grid(run: str = "a", steps: tuple[int, ...] = (0, 10, 40), add: float = 0.0) -> list[dict[str, Any]]:
    """Rows of three matrices, the deepest first."""
    return [
        rank_row(step, name, 0.1 * depth + step / 100 + add, depth=depth, run=run)
        for depth, name in ((2, "high"), (0, "low"), (1, "mid"))
        for step in steps
    ]


def test_rows_are_matrices_by_depth_and_columns_steps(tmp_path: Path) -> None:
    """The first matrix on top; cells meet halfway between steps."""
    (drawn,) = draw_effective_rank(rank(tmp_path, *grid()), Choice())
    expected = [[0.1 * depth + step / 100 for step in (0, 10, 40)] for depth in range(3)]
    np.testing.assert_allclose(cells(drawn), expected)
    assert edges(drawn) == [-5.0, 5.0, 25.0, 55.0]
    axis = drawn.figure.axes[0]
    assert row_names(drawn) == ["low", "mid", "high"]
    assert axis.get_ylim() == (3.5, 0.5)
    assert axis.get_xlim() == (-5.0, 55.0)
    assert axis.get_xlabel() == "step (optimizer steps)"
    assert axis.get_title() == "effective rank / R\na"
    assert drawn.about == "effective rank / R of 3 matrices, a"
    assert (drawn.name, drawn.notices) == ("effective_rank", ())


def test_colours_go_from_0_to_1_whatever_the_numbers(tmp_path: Path) -> None:
    (drawn,) = draw_effective_rank(rank(tmp_path, *grid()), Choice())
    axis, bar = drawn.figure.axes
    assert axis.collections[0].get_clim() == (0.0, 1.0)
    assert (bar.get_ylim(), bar.get_ylabel()) == ((0.0, 1.0), "effective rank / R")


@pytest.mark.parametrize(
    ("kind", "draw", "colours"),
    [
        ("align", draw_alignment_score, "alignment score"),
        ("sva", draw_agreement_score, "agreement score"),
    ],
)
def test_scores_are_drawn_alike(tmp_path: Path, kind: str, draw: Any, colours: str) -> None:
    rows = [
        align_row(step, "up", "down", step / 10) if kind == "align" else sva_row(step, "low", step / 10)
        for step in (0, 5)
    ]
    (drawn,) = draw(gathered(write(tmp_path / "t.parquet", kind, rows)), Choice())
    np.testing.assert_allclose(cells(drawn), [[0.0, 0.5]])
    assert row_names(drawn) == ["sequential: up → down" if kind == "align" else "low"]
    assert drawn.figure.axes[-1].get_ylabel() == colours
    assert drawn.figure.axes[0].get_title() == f"{colours}\na"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"reference": "final"}, " with the final checkpoint"),
        ({"reference": "400"}, " with step 400"),
        ({"reference": "final", "against": "b"}, " with another run"),
        ({"reference": "$x"}, ""),
        ({}, ""),
    ],
)
def test_titles_say_what_agreement_is_with(tmp_path: Path, settings: dict[str, str], expected: str) -> None:
    import json

    metadata = {"spectra.settings": json.dumps(settings)}
    path = write(tmp_path / "s.parquet", "sva", [sva_row(step, "w", 0.5) for step in (0, 1)], metadata=metadata)
    (drawn,) = draw_agreement_score(gathered(path), Choice())
    assert drawn.figure.axes[0].get_title() == f"agreement score{expected}\na"


def test_heads_are_averaged_and_other_units_left_out(tmp_path: Path) -> None:
    rows = [
        align_row(step, "q", "k", score, unit=unit, unit_index=index, primary=primary, connection="query-key")
        for step in (0, 5)
        for unit, index, primary, score in (
            ("head", 0, True, 0.2),
            ("head", 1, True, 0.6),
            ("head", 2, True, None),
            ("whole", None, False, 0.9),
        )
    ]
    (drawn,) = draw_alignment_score(gathered(write(tmp_path / "a.parquet", "align", rows)), Choice())
    np.testing.assert_allclose(cells(drawn), [[0.4, 0.4]])


def test_runs_are_panels_with_their_own_steps_on_one_colour_scale(tmp_path: Path) -> None:
    """Names stand beside the first panel only, if the rows are the same."""
    (drawn,) = draw_effective_rank(rank(tmp_path, *grid("u"), *grid("v", (0, 20), 0.3)), Choice())
    left, right, _ = drawn.figure.axes
    assert (left.get_title(), right.get_title()) == ("u", "v")
    assert drawn.figure.get_suptitle() == "effective rank / R"
    assert edges(drawn, 1) == [-10.0, 10.0, 30.0]
    assert {axis.collections[0].get_clim() for axis in (left, right)} == {(0.0, 1.0)}
    drawn.figure.draw_without_rendering()
    assert [row_names(drawn, panel) for panel in range(2)] == [["low", "mid", "high"], []]
    assert drawn.about == "effective rank / R of 3 matrices, 2 runs"


def test_runs_of_different_models_have_names_of_their_own(tmp_path: Path) -> None:
    rows = [rank_row(step, "only", 0.5, run="v") for step in (0, 1)]
    (drawn,) = draw_effective_rank(rank(tmp_path, *grid("u"), *rows), Choice())
    assert [row_names(drawn, panel) for panel in range(2)] == [["low", "mid", "high"], ["only"]]
    assert cells(drawn, 1).shape == (1, 2)


def test_the_mean_over_runs_is_of_their_common_steps(tmp_path: Path) -> None:
    """Oracle: NumPy's mean of the planted numbers; what is left out is told."""
    both = rank(tmp_path, *grid("u", (0, 10, 40)), *grid("v", (0, 30, 40), 0.2))
    (drawn,) = draw_effective_rank(both, Choice(over="run"))
    expected = [[np.mean([0.1 * d + s / 100, 0.1 * d + s / 100 + 0.2]) for s in (0, 40)] for d in range(3)]
    np.testing.assert_allclose(cells(drawn), expected)
    assert edges(drawn) == [-20.0, 20.0, 60.0]
    assert drawn.figure.axes[0].get_title() == "effective rank / R\nmean of 2 runs"
    assert drawn.notices == ("2 of 4 steps are left out, as not all runs have them",)


def test_matrices_that_not_all_runs_have_get_no_mean(tmp_path: Path) -> None:
    both = rank(tmp_path, *grid("u", (0, 1)), *(row for row in grid("v", (0, 1)) if row["parameter"] != "mid"))
    (drawn,) = draw_effective_rank(both, Choice(over="run"))
    assert np.isnan(cells(drawn)).all(axis=1).tolist() == [False, True, False]
    assert drawn.notices == ("1 of 3 matrices have no mean, as not all runs have them",)


def test_runs_without_a_common_step_have_no_mean(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no step in common"):
        draw_effective_rank(rank(tmp_path, *grid("u", (0, 1)), *grid("v", (2, 3))), Choice(over="run"))


def test_cells_without_numbers_are_empty_and_told(tmp_path: Path) -> None:
    """A matrix that is not finite, a checkpoint that is corrupt, and numbers that are nan."""
    rows = [*grid(steps=(0, 10)), failed("corrupt", checkpoint="step_20", step=20)]
    rows += [
        rank_row(30, "low", 0.0, depth=0, status="not_finite", effective_rank_normalized=None),
        rank_row(30, "mid", 0.5, depth=1),
        rank_row(30, "high", NAN, depth=2),
    ]
    (drawn,) = draw_effective_rank(rank(tmp_path, *rows), Choice())
    assert np.isnan(cells(drawn)).tolist() == [
        [False, False, True, True],
        [False, False, True, False],
        [False, False, True, True],
    ]
    assert drawn.notices == ("4 cells of a are empty (3 corrupt, 1 not_finite)",)
    assert drawn.figure.axes[0].patch.get_hatch()


@pytest.mark.parametrize("scale", ["linear", "log", "symlog"])
def test_steps_may_be_on_any_scale(tmp_path: Path, scale: Any) -> None:
    """Edges halfway in the coordinates of the scale; a logarithmic one leaves out step 0, and that is told."""
    (drawn,) = draw_effective_rank(rank(tmp_path, *grid(steps=(0, 1, 10, 100))), Choice(x_scale=scale))
    assert drawn.figure.axes[0].get_xscale() == scale
    half = 10**0.5
    expected = {
        "linear": [-0.5, 0.5, 5.5, 55.0, 145.0],
        "log": [1 / half, half, 10 * half, 100 * half],
        "symlog": [-0.5, 0.5, half, 10 * half, 100 * half],
    }[scale]
    assert edges(drawn) == pytest.approx(expected, rel=0.2 if scale == "symlog" else 1e-9)
    told = ("1 step of 0 or less is not on the logarithmic axis",) if scale == "log" else ()
    assert drawn.notices == told
    assert cells(drawn).shape == (3, 3 if scale == "log" else 4)


def test_checkpoints_without_steps_stand_in_their_order(tmp_path: Path) -> None:
    rows = [rank_row(None, "w", share, checkpoint=name) for name, share in (("b", 0.1), ("a", 0.2))]
    (drawn,) = draw_effective_rank(rank(tmp_path, *rows), Choice())
    np.testing.assert_allclose(cells(drawn), [[0.1, 0.2]])
    assert drawn.figure.axes[0].get_xlabel() == "checkpoint (its place in the run)"


def test_one_checkpoint_of_all_runs_says_which_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NothingToDraw, match=r"a has one checkpoint only \(step 7\).*needs two") as caught:
        draw_effective_rank(rank(tmp_path, rank_row(7, "w")), Choice())
    assert "Analyse more checkpoints" in str(caught.value)


def test_one_checkpoint_of_some_runs_is_told(tmp_path: Path) -> None:
    (drawn,) = draw_effective_rank(rank(tmp_path, *grid("u"), rank_row(7, "w", run="v")), Choice())
    assert drawn.notices == ("v has one checkpoint only (step 7)",)
    assert cells(drawn).shape == (3, 3)


def test_a_table_without_numbers_says_where_to_look(tmp_path: Path) -> None:
    rows = [failed("corrupt", checkpoint=f"s{step}", step=step) for step in (0, 1)]
    with pytest.raises(NothingToDraw, match=r"no row has an effective rank.*status"):
        draw_effective_rank(rank(tmp_path, *rows), Choice())


def test_runs_that_a_table_lacks_leave_nothing_to_draw(tmp_path: Path) -> None:
    ranks = write(tmp_path / "rank.parquet", "rank", grid("u"))
    scores = write(tmp_path / "sva.parquet", "sva", [sva_row(step, "w", 0.5, run="v") for step in (0, 1)])
    with pytest.raises(NothingToDraw, match=r"no rows of the runs.*--run"):
        draw_effective_rank(gathered(ranks, scores, runs=("v",)), Choice())


def no_overlap(drawn: Drawn) -> None:
    """Boxes of the names of rows do not overlap, and lie on the figure."""
    drawn.figure.draw_without_rendering()
    axis = drawn.figure.axes[0]
    boxes = [text.get_window_extent() for text in axis.get_yticklabels() if text.get_text()]
    assert len(boxes) > 1
    whole = drawn.figure.bbox
    assert all(box.x0 >= whole.x0 and box.y0 >= whole.y0 and box.y1 <= whole.y1 for box in boxes)
    assert all(upper.y0 >= lower.y1 - 0.5 for upper, lower in pairwise(boxes))
    assert axis.get_position().width * drawn.figure.get_figwidth() > 1.5
    assert max(axis.get_tightbbox().x1 for axis in drawn.figure.axes) <= whole.x1 + 1


NEOX = [
    "gpt_neox.embed_in.weight",
    *(
        f"gpt_neox.layers.{layer}.{part}.weight"
        for layer in range(18)
        for part in ("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
    ),
    "embed_out.weight",
]


def test_names_of_many_matrices_are_legible(tmp_path: Path) -> None:
    """All 74 of a GPT-NeoX, whole components last, numbers of layers kept."""
    rows = [rank_row(step, name, 0.5, depth=depth) for step in (0, 1) for depth, name in enumerate(NEOX)]
    (drawn,) = draw_effective_rank(rank(tmp_path, *rows), Choice())
    names = row_names(drawn)
    assert len(set(names)) == len(NEOX)
    assert names[1:3] == ["g.layers.0.attention.query_key_value", "g.layers.0.attention.dense"]
    no_overlap(drawn)


def test_names_of_many_connections_are_legible(tmp_path: Path) -> None:
    rows = [
        align_row(step, up, down, 0.5, depth=depth, connection="embedding-input" if depth == 0 else "residual")
        for step in (0, 1)
        for depth, (up, down) in enumerate(pairwise(NEOX))
    ]
    (drawn,) = draw_alignment_score(gathered(write(tmp_path / "a.parquet", "align", rows)), Choice())
    names = row_names(drawn)
    assert len(set(names)) == len(NEOX) - 1
    assert names[5] == "residual: g.l.1.a.query_key_value → g.l.1.a.dense"
    no_overlap(drawn)


@pytest.mark.parametrize("rows", [2, 40])
def test_hostile_names_stand_as_text_beside_rows_that_are_high_enough(tmp_path: Path, rows: int) -> None:
    """5000 letters with mathematics, a new line and a change of direction; a run of such a name; too many rows."""
    table = [
        rank_row(step, f"{HOSTILE}{number}", 0.5, depth=number, run=HOSTILE)
        for step in (0, 1)
        for number in range(rows)
    ]
    (drawn,) = draw_effective_rank(rank(tmp_path, *table), Choice())
    no_overlap(drawn)
    texts = [*row_names(drawn), *drawn.figure.axes[0].get_title().split("\n"), drawn.about]
    assert all(len(text) < 130 and "\n" not in text and "\u202e" not in text for text in texts[:-1])
    assert drawn.figure.axes[0].get_title().count("\n") == 1
    assert len(drawn.about) < 200
    assert "$" not in row_names(drawn)[0].replace("\\$", "")


def test_there_are_no_more_panels_than_can_be_told_apart(tmp_path: Path) -> None:
    rows = [rank_row(step, "w", run=f"r{number}") for number in range(151) for step in (0, 1)]
    path = write(tmp_path / "rank.parquet", "rank", rows)
    with pytest.raises(UsageError, match=r"151 panels.*--run"):
        draw_effective_rank(gathered(path), Choice())


def test_figures_of_the_fixtures_show_the_numbers_of_their_tables(fixture_tables: Path) -> None:
    """Oracle: pandas on the files."""
    frame = pd.read_parquet(fixture_tables / "grok" / "rank.parquet")
    (drawn,) = draw_effective_rank(gathered(fixture_tables / "grok" / "rank.parquet"), Choice())
    for panel, run in enumerate(("seed_0", "seed_5")):
        table = frame[frame.run == run].pivot(index="depth", columns="step", values="effective_rank_normalized")
        np.testing.assert_array_equal(cells(drawn, panel), table.sort_index().to_numpy())
    frame = pd.read_parquet(fixture_tables / "grok" / "align.parquet")
    (drawn,) = draw_alignment_score(gathered(fixture_tables / "grok" / "align.parquet"), Choice())
    own = frame[(frame.run == "seed_5") & frame.primary]
    table = own.groupby(["depth", "connection", "upstream", "downstream", "step"], sort=False).score.mean().unstack()
    assert sorted(map(tuple, cells(drawn, 1))) == [pytest.approx(row) for row in sorted(map(tuple, table.to_numpy()))]
