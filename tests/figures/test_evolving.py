"""Figures of one matrix show the numbers of its rows: a line for each singular value, a row for each vector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PolyCollection, QuadMesh

from spectra_cli.errors import UsageError
from spectra_cli.figures.choice import Choice, Drawn, NothingToDraw
from spectra_cli.figures.plots.drawing import draw_all
from spectra_cli.figures.plots.evolving import (
    draw_agreement_diagonal,
    draw_alignment_diagonal,
    draw_singular_values,
    select,
)
from spectra_cli.figures.plots.registry import FIGURES
from spectra_cli.figures.rows.gathered import Gathered
from spectra_cli.tables.reader import open_table
from tests.figures.planted import align_row, failed, rank_row, sva_row, write

NAN = float("nan")
HOSTILE = "_$\\frac{1}{%\n\u202e" + "h." * 2500 + "weight"
STEPS = (0, 10, 40)


def gathered(*paths: Path, runs: tuple[str, ...] = ()) -> Gathered:
    return Gathered([open_table(path) for path in paths], runs)


def rank(path: Path, *rows: dict[str, Any]) -> Gathered:
    return gathered(write(path / "rank.parquet", "rank", rows))


def spectra(steps: tuple[int, ...] = STEPS, *names: str, **other: Any) -> list[dict[str, Any]]:
    """Rows whose singular values are 3, 2, 1 times (1 + step), of matrices in this order."""
    return [rank_row(step, name, depth=depth, **other) for depth, name in enumerate(names or ("w",)) for step in steps]


def lines(drawn: Drawn, panel: int = 0) -> np.ndarray[Any, Any]:
    """(lines, points, 2) of a panel."""
    (found,) = [each for each in drawn.figure.axes[panel].collections if isinstance(each, LineCollection)]
    return np.stack([np.asarray(path.vertices) for path in found.get_paths()])


def cells(drawn: Drawn, panel: int = 0) -> np.ndarray[Any, Any]:
    (mesh,) = [each for each in drawn.figure.axes[panel].collections if isinstance(each, QuadMesh)]
    return np.ma.filled(np.ma.asarray(mesh.get_array(), float), NAN)


def heading(drawn: Drawn) -> list[str]:
    return drawn.figure.get_suptitle().split("\n")


def test_there_is_a_line_for_each_singular_value(tmp_path: Path) -> None:
    """Coloured by index, the first on top of the scale; named by run and parameter."""
    (drawn,) = draw_singular_values(rank(tmp_path, *spectra()), Choice())
    expected = [[[step, size * (1 + step)] for step in STEPS] for size in (3.0, 2.0, 1.0)]
    np.testing.assert_allclose(lines(drawn), expected)
    axis, bar = drawn.figure.axes
    (found,) = [each for each in axis.collections if isinstance(each, LineCollection)]
    assert found.get_array().tolist() == [1, 2, 3]
    assert bar.get_ylabel() == "index i"
    assert bar.get_ylim()[0] > bar.get_ylim()[1]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("step (optimizer steps)", "singular value (weight)")
    assert (axis.get_yscale(), axis.get_title(), heading(drawn)) == ("linear", "a", ["singular values", "w"])
    assert drawn.name == "singular_values-w"
    assert drawn.notices == ()


def test_the_middle_matrix_is_taken_and_named_as_such(tmp_path: Path) -> None:
    """In the order of depth, of the matrices that have numbers, and vectors are none."""
    rows = spectra(STEPS, "first", "second", "third", "last")
    vector = [rank_row(step, "vector", depth=-1, rows=4, cols=1, singular_values=[1.0]) for step in STEPS]
    broken = [failed("not_finite", step=step, parameter="broken", depth=-2) for step in STEPS]
    (drawn,) = draw_singular_values(rank(tmp_path, *reversed(rows), *vector, *broken), Choice())
    assert heading(drawn) == ["singular values", "second"]
    assert drawn.about == "singular values: second (the middle one of 4 matrices), a"


def test_globs_choose_matrices_and_make_a_figure_each(tmp_path: Path) -> None:
    """In the order of depth; a single column is drawn if it is asked for by nobody's default."""
    table = rank(tmp_path, *spectra(STEPS, "h.0.w", "h.1.w", "out"))
    drawn = draw_singular_values(table, Choice(parameter=("h.*",)))
    assert [heading(each)[1] for each in drawn] == ["h.0.w", "h.1.w"]
    assert [each.name for each in drawn] == ["singular_values-h.0.w", "singular_values-h.1.w"]
    assert drawn[0].about == "singular values: h.0.w, a"


def test_a_glob_that_matches_nothing_is_told_names_like_it(tmp_path: Path) -> None:
    table = rank(tmp_path, *spectra(STEPS, "encoder", *(f"h.{layer}.w" for layer in range(9)), "decoder"))
    with pytest.raises(UsageError, match=r"no matrix matches --parameter decodr\. There are decoder, .* and 5 more"):
        draw_singular_values(table, Choice(parameter=("decodr",)))


CONNECTIONS = [
    ("embedding-input", "wte", "h.0.q"),
    ("query-key", "h.0.q", "h.0.k"),
    ("value-output", "h.0.v", "h.0.o"),
    ("residual", "h.0.o", "h.1.q"),
]


def connections(path: Path, **other: Any) -> Gathered:
    rows = [
        align_row(step, up, down, 0.1 * depth, connection=kind, depth=depth, **other)
        for step in STEPS
        for depth, (kind, up, down) in enumerate(CONNECTIONS)
    ]
    return gathered(write(path / "align.parquet", "align", rows))


@pytest.mark.parametrize(
    ("glob", "chosen"),
    [("query-key", [1]), ("h.0.o", [2, 3]), ("*.q -> *", [1]), ("residual: *", [3]), ("*", [0, 1, 2, 3]), ("", [1])],
)
def test_connections_are_chosen_by_kind_or_end(tmp_path: Path, glob: str, chosen: list[int]) -> None:
    """Without a glob the middle one, the earlier of two."""
    drawn = draw_alignment_diagonal(connections(tmp_path), Choice(connection=(glob,) if glob else ()))
    names = [f"{kind}: {up} -> {down}" for kind, up, down in CONNECTIONS]
    assert [heading(each)[1] for each in drawn] == [names[place] for place in chosen]
    assert [cells(each)[0, 0] for each in drawn] == [pytest.approx(0.1 * place) for place in chosen]
    how = "" if glob else " (the middle one of 4 connections)"
    assert drawn[0].about == f"alignment of singular vectors: {names[chosen[0]]}{how}, a"
    assert drawn[0].name == f"alignment_diagonal-{'-'.join(CONNECTIONS[chosen[0]])}"


@pytest.mark.parametrize(("glob", "first"), [("querykey", "query-key: h.0.q -> h.0.k"), ("h0.v", "value-output: ")])
def test_a_connection_that_matches_nothing_is_told_those_like_it(tmp_path: Path, glob: str, first: str) -> None:
    with pytest.raises(UsageError, match=f"no connection matches --connection {glob}. There are {first}"):
        draw_alignment_diagonal(connections(tmp_path), Choice(connection=(glob,)))


def test_diagonals_have_the_first_vector_on_top_and_colours_from_0_to_1(tmp_path: Path) -> None:
    rows = [sva_row(step, "w", step / 40) for step in STEPS]
    (drawn,) = draw_agreement_diagonal(gathered(write(tmp_path / "s.parquet", "sva", rows)), Choice())
    np.testing.assert_allclose(cells(drawn), [[step / 40 / part for step in STEPS] for part in (1, 2, 4)])
    axis, bar = drawn.figure.axes
    assert axis.get_ylim() == (3.5, 0.5)
    assert axis.collections[0].get_clim() == (0.0, 1.0)
    assert axis.get_ylabel() == "index i"
    assert axis.get_yticks().tolist() == [1, 2, 3]
    assert bar.get_ylabel() == "agreement S_ii"
    assert heading(drawn) == ["agreement of singular vectors", "w"]


def test_diagonals_of_heads_are_averaged(tmp_path: Path) -> None:
    rows = [
        align_row(step, "q", "k", None, unit="head", unit_index=head, diagonal=[value, 0.5], primary=head < 2)
        for step in (0, 1)
        for head, value in enumerate((0.2, 0.6, 0.9))
    ]
    (drawn,) = draw_alignment_diagonal(gathered(write(tmp_path / "a.parquet", "align", rows)), Choice())
    np.testing.assert_allclose(cells(drawn), [[0.4, 0.4], [0.5, 0.5]], rtol=1e-6)
    assert drawn.figure.axes[-1].get_ylabel() == "alignment A_ii"


def test_runs_are_panels_on_one_vertical_axis_and_one_colour_scale(tmp_path: Path) -> None:
    """Of unequal steps, and of matrices of unequal size."""
    small = [rank_row(step, "w", run="v", singular_values=[9.0, 1.0]) for step in (0, 20)]
    (drawn,) = draw_singular_values(rank(tmp_path, *spectra(run="u"), *small), Choice())
    left, right, _ = drawn.figure.axes
    assert (left.get_title(), right.get_title(), heading(drawn)) == ("u", "v", ["singular values", "w"])
    assert lines(drawn, 0).shape == (3, 3, 2)
    np.testing.assert_allclose(lines(drawn, 1), [[[0, 9], [20, 9]], [[0, 1], [20, 1]]])
    assert left.get_ylim() == right.get_ylim()
    assert left.collections[-1].get_clim() == right.collections[-1].get_clim() == (1, 3)
    assert (left.get_ylabel(), right.get_ylabel()) == ("singular value (weight)", "")
    assert "2 runs" in drawn.about


def test_diagonals_of_runs_with_fewer_vectors_leave_empty_rows(tmp_path: Path) -> None:
    rows = [sva_row(step, "w", 0.8, run="u") for step in (0, 1)]
    rows += [sva_row(step, "w", 0.8, run="v", diagonal=[0.8]) for step in (0, 1)]
    (drawn,) = draw_agreement_diagonal(gathered(write(tmp_path / "s.parquet", "sva", rows)), Choice())
    np.testing.assert_allclose(cells(drawn, 1), [[0.8, 0.8], [NAN, NAN], [NAN, NAN]], rtol=1e-6)
    assert drawn.figure.axes[0].get_ylim() == drawn.figure.axes[1].get_ylim() == (3.5, 0.5)


def test_the_mean_over_runs_has_a_band_of_one_standard_deviation(tmp_path: Path) -> None:
    """Oracle: NumPy with n - 1, over the steps that all runs have; what is left out is told."""
    sizes = {"u": [3.0, 2.0], "v": [5.0, 1.0], "x": [10.0, 0.5]}
    rows = [
        rank_row(step, "w", run=run, singular_values=[(step + 1) * value for value in values])
        for run, values in sizes.items()
        for step in ((0, 2, 4) if run == "u" else (0, 3, 4))
    ]
    (drawn,) = draw_singular_values(rank(tmp_path, *rows), Choice(over="run"))
    planted = np.array([[[(step + 1) * value for step in (0, 4)] for value in values] for values in sizes.values()])
    mean, half = planted.mean(axis=0), planted.std(axis=0, ddof=1)
    np.testing.assert_allclose(lines(drawn), [[[0, a], [4, b]] for a, b in mean], rtol=1e-6)
    (bands,) = [each for each in drawn.figure.axes[0].collections if isinstance(each, PolyCollection)]
    for place, path in enumerate(bands.get_paths()):
        for x, column in ((0.0, 0), (4.0, 1)):
            ends = path.vertices[path.vertices[:, 0] == x, 1]
            middle, reach = mean[place, column], half[place, column]
            assert (ends.min(), ends.max()) == pytest.approx((middle - reach, middle + reach), rel=1e-6)
    assert drawn.notices == ("2 of 4 steps are left out, as not all runs have them",)
    assert drawn.figure.axes[0].get_title() == "mean of 3 runs, band: 1 standard deviation"


def test_the_mean_of_diagonals_is_drawn_without_a_band(tmp_path: Path) -> None:
    rows = [sva_row(step, "w", score, run=run) for run, score in (("u", 0.2), ("v", 0.6)) for step in (0, 1)]
    drawn = draw_agreement_diagonal(gathered(write(tmp_path / "s.parquet", "sva", rows)), Choice(over="run"))[0]
    np.testing.assert_allclose(cells(drawn), [[0.4, 0.4], [0.2, 0.2], [0.1, 0.1]], rtol=1e-6)
    assert drawn.figure.axes[0].get_title() == "mean of 2 runs"


def test_runs_without_a_common_step_have_no_mean(tmp_path: Path) -> None:
    table = rank(tmp_path, *spectra((0, 1), run="u"), *spectra((2, 3), run="v"))
    with pytest.raises(UsageError, match="no step in common"):
        draw_singular_values(table, Choice(over="run"))


def test_checkpoints_that_could_not_be_used_are_gaps_and_told(tmp_path: Path) -> None:
    """A checkpoint that is corrupt, a matrix that is not finite there, and another matrix that concerns nobody."""
    rows = [
        *spectra((0, 20, 30), "w"),
        failed("corrupt", step=10, checkpoint="step_10"),
        failed("not_finite", step=40, parameter="w", depth=0),
        failed("not_finite", step=30, parameter="other", depth=1),
    ]
    (drawn,) = draw_singular_values(rank(tmp_path, *rows), Choice(parameter=("w",)))
    found = lines(drawn)
    assert found[0, :, 0].tolist() == [0, 10, 20, 30, 40]
    assert np.isnan(found[:, :, 1]).tolist() == [[False, True, False, False, True]] * 3
    assert drawn.notices == ("checkpoints of a are empty (1 corrupt, 1 not_finite)",)


def test_columns_of_diagonals_that_could_not_be_used_are_empty(tmp_path: Path) -> None:
    rows = [sva_row(0, "w", 0.4), failed("corrupt", step=5, checkpoint="c"), sva_row(10, "w", 0.4)]
    (drawn,) = draw_agreement_diagonal(gathered(write(tmp_path / "s.parquet", "sva", rows)), Choice())
    assert np.isnan(cells(drawn)).tolist() == [[False, True, False]] * 3
    assert drawn.notices == ("checkpoints of a are empty (1 corrupt)",)


def test_zeros_are_gaps_on_a_logarithmic_axis_and_told(tmp_path: Path) -> None:
    rows = [rank_row(step, "w", singular_values=[2.0, 1.0, 0.0 if step else 0.5]) for step in (0, 1, 2)]
    (drawn,) = draw_singular_values(rank(tmp_path, *rows), Choice(y_scale="log"))
    assert drawn.figure.axes[0].get_yscale() == "log"
    np.testing.assert_array_equal(lines(drawn)[2, :, 1], [0.5, NAN, NAN])
    assert drawn.notices == ("2 singular values of 0 or less are not on the logarithmic axis",)
    low, high = drawn.figure.axes[0].get_ylim()
    assert 0 < low <= 0.5
    assert high >= 2.0


def test_logarithmic_steps_leave_out_step_0(tmp_path: Path) -> None:
    (drawn,) = draw_singular_values(rank(tmp_path, *spectra()), Choice(x_scale="log"))
    assert lines(drawn)[0, :, 0].tolist() == [10, 40]
    assert drawn.figure.axes[0].get_xscale() == "log"
    assert drawn.notices == ("1 step of 0 or less is not on the logarithmic axis",)
    (drawn,) = draw_singular_values(rank(tmp_path, *spectra()), Choice(x_scale="symlog"))
    assert lines(drawn)[0, :, 0].tolist() == [0, 10, 40]
    assert drawn.notices == ()


def test_one_checkpoint_only_says_which_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NothingToDraw, match=r"a has one checkpoint only \(step 7\).*Analyse more checkpoints"):
        draw_singular_values(rank(tmp_path, *spectra((7,))), Choice())
    (drawn,) = draw_singular_values(rank(tmp_path, *spectra((7,)), *spectra(run="b")), Choice())
    assert drawn.notices == ("a has one checkpoint only (step 7)",)
    assert [axis.get_title() for axis in drawn.figure.axes[:-1]] == ["b"]


@pytest.mark.parametrize("glob", [(), ("*",)])
def test_a_table_without_numbers_says_where_to_look(tmp_path: Path, glob: tuple[str, ...]) -> None:
    table = rank(tmp_path, *(failed("not_finite", step=step, parameter="w") for step in (0, 1)))
    with pytest.raises(NothingToDraw, match=r"no matrix has a number.*status"):
        draw_singular_values(table, Choice(parameter=glob))


@pytest.mark.parametrize(
    ("kind", "draw", "row"),
    [
        ("rank", draw_singular_values, rank_row(0, "w")),
        ("sva", draw_agreement_diagonal, sva_row(0, "w", 0.5)),
        ("align", draw_alignment_diagonal, align_row(0, "u", "d", 0.5)),
    ],
)
def test_runs_that_a_table_lacks_leave_nothing_to_draw(tmp_path: Path, kind: str, draw: Any, row: Any) -> None:
    other = write(tmp_path / "p.parquet", "prune_eval", [{"run": "other", "step": 0, "status": "ok"}])
    found = gathered(write(tmp_path / "t.parquet", kind, [row]), other, runs=("other",))
    with pytest.raises(NothingToDraw, match=r"no rows of the runs.*--run"):
        draw(found, Choice())


def test_hostile_names_stand_as_bounded_text(tmp_path: Path) -> None:
    rows = [align_row(step, HOSTILE, f"{HOSTILE}2", 0.5, run=HOSTILE) for step in (0, 1)]
    (drawn,) = draw_alignment_diagonal(gathered(write(tmp_path / "a.parquet", "align", rows)), Choice())
    drawn.figure.draw_without_rendering()
    texts = [*heading(drawn), *drawn.figure.axes[0].get_title().split("\n")]
    assert len(texts) == 4
    assert all(len(text) < 100 and "\u202e" not in text and "$" not in text.replace("\\$", "") for text in texts)
    assert len(drawn.about) < 400
    assert len(drawn.name) < 230
    assert not set(drawn.name) & set("$\\/<>\n{} ")
    with pytest.raises(UsageError) as caught:
        draw_alignment_diagonal(gathered(tmp_path / "a.parquet"), Choice(connection=("none",)))
    assert len(str(caught.value)) < 1000


def test_the_title_is_not_wider_than_the_figure(tmp_path: Path) -> None:
    """A connection that is too long for a line gets two."""
    up, down = (f"gpt_neox.layers.{layer}.attention.query_key_value.weight" for layer in (8, 9))
    rows = [align_row(step, up, down, 0.5, connection="residual") for step in (0, 1)]
    (drawn,) = draw_alignment_diagonal(gathered(write(tmp_path / "a.parquet", "align", rows)), Choice())
    assert heading(drawn)[1:] == [f"residual: {up}", f"→ {down}"]
    drawn.figure.draw_without_rendering()
    box = drawn.figure._suptitle.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= drawn.figure.bbox.x1


def test_select_says_how_many_there_are() -> None:
    found = select(["a", "b", "c"], (), "matrix")
    assert (found.names, found.how, found.total) == (["b"], "the middle one of 3 matrices", 1)
    many = select([f"w{number}" for number in range(300)], ("w*",), "matrix")
    assert (len(many.names), many.how, many.total) == (200, "", 300)


def test_768_singular_values_are_drawn_at_once(tmp_path: Path) -> None:
    """As one collection, thin, with a scale that says where index 1 and 768 are."""
    values = np.linspace(5.0, 0.1, 768)
    rows = [rank_row(step, "w", rows=768, cols=768, singular_values=values * (1 + step)) for step in (0, 1, 2)]
    (drawn,) = draw_singular_values(rank(tmp_path, *rows), Choice())
    np.testing.assert_allclose(lines(drawn)[:, 2, 1], values * 3, rtol=1e-6)
    axis, bar = drawn.figure.axes
    assert axis.collections[-1].get_clim() == (1, 768)
    assert bar.get_yticks()[0] == 1
    assert len(axis.collections) == 1


def test_figures_of_the_fixtures_show_the_numbers_of_their_tables(fixture_tables: Path) -> None:
    """Oracle: pandas on the files."""
    home, name = fixture_tables / "grok", "decoder.weight"
    frame = pd.read_parquet(home / "rank.parquet").sort_values("step")
    (drawn,) = draw_singular_values(gathered(home / "rank.parquet"), Choice(parameter=(name,)))
    for panel, run in enumerate(("seed_0", "seed_5")):
        rows = frame[(frame.run == run) & (frame.parameter == name)]
        found = lines(drawn, panel)
        np.testing.assert_array_equal(found[0, :, 0], rows.step)
        np.testing.assert_array_equal(found[:, :, 1].T, np.stack(list(rows.singular_values)))
    frame = pd.read_parquet(home / "sva.parquet").sort_values("step")
    (drawn,) = draw_agreement_diagonal(gathered(home / "sva.parquet"), Choice(parameter=(name,)))
    rows = frame[(frame.run == "seed_5") & (frame.parameter == name)]
    np.testing.assert_array_equal(cells(drawn, 1).T, np.stack(list(rows.diagonal)))
    assert heading(drawn) == ["agreement of singular vectors with the final checkpoint", name]


def three_runs(path: Path, **of_c: Any) -> Gathered:
    """Matrices w1 to w3 of runs a, b and c; of c the middle one has no numbers."""
    rows = [
        {**rank_row(step, name, run=run, depth=depth), **(of_c if (run, name) == ("c", "w2") else {})}
        for run in "abc"
        for step in STEPS
        for depth, name in enumerate(("w1", "w2", "w3"))
    ]
    return rank(path, *rows)


NOTHING = {"status": "not_finite", "singular_values": None, "effective_rank_normalized": None}


@pytest.mark.parametrize("choice", [Choice(), Choice(over="run")])
def test_the_middle_matrix_is_one_that_all_runs_have(tmp_path: Path, choice: Choice) -> None:
    (drawn,) = draw_singular_values(three_runs(tmp_path, **NOTHING), choice)
    assert heading(drawn)[1] == "w1"
    assert "(the middle one of 2 matrices that all runs have)" in drawn.about
    titles = [axis.get_title() for axis in drawn.figure.axes if axis.get_title()]
    assert titles == (["mean of 3 runs, band: 1 standard deviation"] if choice.over else ["a", "b", "c"])
    assert drawn.notices == ()
    (usual,) = draw_singular_values(three_runs(tmp_path), choice)
    assert heading(usual)[1] == "w2"
    assert "(the middle one of 3 matrices)" in usual.about


@pytest.mark.parametrize("over", [None, "run"])
def test_a_run_without_the_matrix_is_not_left_out_in_silence(tmp_path: Path, over: Any) -> None:
    choice = Choice(parameter=("w2",), over=over)
    (drawn,) = draw_singular_values(three_runs(tmp_path, **NOTHING), choice)
    assert "c is left out: it has no numbers of w2 (3 not_finite)" in drawn.notices
    (other,) = draw_singular_values(three_runs(tmp_path, parameter="other"), choice)
    assert "c is left out: it has no w2" in other.notices
    titles = [axis.get_title() for axis in other.figure.axes if axis.get_title()]
    assert titles == (["mean of 2 runs, band: 1 standard deviation"] if over else ["a", "b"])


def test_a_run_whose_checkpoints_all_failed_is_told_of(tmp_path: Path) -> None:
    """It does not keep the others from having a matrix in common."""
    lost = [failed("corrupt", run="z", checkpoint=f"s{step}", step=step) for step in STEPS]
    (drawn,) = draw_singular_values(rank(tmp_path, *spectra(STEPS, "w1", "w2", "w3"), *lost), Choice())
    assert heading(drawn)[1] == "w2"
    assert drawn.notices == ("z is left out: it has no numbers of w2 (3 corrupt)",)


def test_of_many_runs_without_the_matrix_some_are_named(tmp_path: Path) -> None:
    others = [row for number in range(12) for row in spectra(STEPS, "other", run=f"r{number:02}")]
    (drawn,) = draw_singular_values(rank(tmp_path, *spectra(), *others), Choice(parameter=("w",)))
    assert len(drawn.notices) == 9
    assert drawn.notices[-1] == "the same of 4 more runs"


def test_spectra_that_a_mean_cuts_short_are_told_of(tmp_path: Path) -> None:
    """A run whose matrix is smaller; oracle: the mean of the first two by hand."""
    rows = [
        rank_row(step, "w", run=run, singular_values=sizes, rows=4, cols=len(sizes))
        for run, sizes in (("a", [4.0, 3.0, 2.0, 1.0]), ("b", [8.0, 6.0]))
        for step in STEPS
    ]
    (mean,) = draw_singular_values(rank(tmp_path, *rows), Choice(over="run"))
    assert lines(mean)[:, :, 1].tolist() == [[6.0] * 3, [4.5] * 3]
    told = "the mean is of the first 2 of up to 4 singular values, as not all runs have more"
    assert mean.notices == (told,)
    (apart,) = draw_singular_values(rank(tmp_path, *rows), Choice())
    assert apart.notices == ()


def test_diagonals_that_a_mean_cuts_short_are_told_of(tmp_path: Path) -> None:
    rows = [
        sva_row(step, "w", 0.5, run=run, diagonal=entries)
        for run, entries in (("a", [0.8, 0.4, 0.2]), ("b", [0.6]))
        for step in STEPS
    ]
    table = gathered(write(tmp_path / "sva.parquet", "sva", rows))
    (mean,) = draw_agreement_diagonal(table, Choice(over="run"))
    np.testing.assert_allclose(cells(mean), [[0.7] * 3])
    told = "the mean is of the first 1 of up to 3 entries of a diagonal, as not all runs have more"
    assert mean.notices == (told,)


def test_the_middle_connection_is_one_that_all_runs_have(tmp_path: Path) -> None:
    rows = [
        align_row(step, up, "end", None if lost else 0.5, run=run, depth=depth, status="not_finite" if lost else "ok")
        for run in "ab"
        for step in STEPS
        for depth, up in enumerate("uvw")
        for lost in [(run, up) == ("b", "v")]
    ]
    table = gathered(write(tmp_path / "align.parquet", "align", rows))
    (drawn,) = draw_alignment_diagonal(table, Choice())
    assert drawn.name == "alignment_diagonal-sequential-u-end"
    (asked,) = draw_alignment_diagonal(table, Choice(connection=("v",)))
    assert asked.notices == ("b is left out: it has no numbers of sequential: v -> end (3 not_finite)",)


def test_of_two_checkpoints_of_a_step_the_last_is_drawn(tmp_path: Path) -> None:
    """No line goes through a mean of two models."""
    rows = [*spectra((0, 10)), rank_row(10, "w", checkpoint="again", singular_values=[9.0, 8.0, 7.0])]
    ((_, figures),) = draw_all(rank(tmp_path, *rows), Choice(), [FIGURES["singular_values"]])
    assert not isinstance(figures, NothingToDraw)
    assert lines(figures[0])[:, :, 1].tolist() == [[3.0, 9.0], [2.0, 8.0], [1.0, 7.0]]
    assert figures[0].notices == ("a: 2 checkpoints have step 10; again is drawn",)
