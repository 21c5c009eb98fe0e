"""The panel of four shows the numbers of the tables, all against the same steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spectra_cli.errors import UsageError
from spectra_cli.figures.choice import Choice, Drawn, NothingToDraw
from spectra_cli.figures.plots.grokking import draw_grokking
from spectra_cli.figures.rows.gathered import Gathered
from spectra_cli.tables.reader import open_table
from spectra_cli.tables.writer import TableWriter

ERROR, RANKS, SPECTRUM, ALIGNMENTS = range(4)
"""Panels, row by row."""

MATRICES = ("low", "mid", "high")
STEPS = (0, 10, 40)
SIZES = {"rows": 2, "cols": 3}


def written(path: Path, table: str, rows: Sequence[Mapping[str, Any]], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with TableWriter(path, table, **options) as writer:
        writer.write(rows)
    return path


def rank(path: Path, runs: Mapping[str, float], steps: Sequence[int] = STEPS, **other: Any) -> Path:
    """Runs are given with a number that is added to their singular values and effective ranks."""
    rows = [
        {
            **{"run": run, "checkpoint": f"step_{step}", "step": step, "parameter": name, "depth": depth, **SIZES},
            **{"effective_rank_normalized": 0.1 * depth + step / 100 + more, "status": "ok"},
            **{"singular_values": [10.0 + depth + more, 1.0 + step / 10 + more], **other},
        }
        for run, more in runs.items()
        for step in steps
        for depth, name in enumerate(MATRICES)
    ]
    return written(path, "rank", rows)


def align(path: Path, runs: Mapping[str, float], steps: Sequence[int] = STEPS) -> Path:
    """Two connections; of the first one the heads, of which the mean is drawn, and rows that are not drawn."""
    rows = [
        {
            **{"run": run, "checkpoint": f"step_{step}", "step": step, "status": "ok", "depth": depth},
            **{"connection": connection, "upstream": up, "downstream": down, "primary": primary},
            "score": score + more,
        }
        for run, more in runs.items()
        for step in steps
        for depth, connection, up, down, primary, score in (
            (0, "query-key", "low", "mid", True, 0.2),
            (0, "query-key", "low", "mid", True, 0.4),
            (0, "query-key", "low", "mid", False, 0.9),
            (1, "sequential", "mid", "high", True, 0.7),
        )
    ]
    return written(path, "align", rows, leave_out={"alignment"})


def metrics(path: Path, *names: str, steps: Sequence[int] = STEPS, more: float = 0.0) -> Path:
    rows = [
        {"step": step, "epoch": step / 10, "split": split, "metric": name, "value": value + more, "status": "ok"}
        for name in names
        for step in steps
        for split, value in (("train", 0.5 - step / 100), ("val", 0.9 - step / 100))
    ]
    return written(path, "metrics", rows)


def pruned(path: Path, run: str) -> Path:
    rows = [
        {
            **{"run": run, "checkpoint": f"step_{step}", "step": step, "split": "val", "metric": "error"},
            **{"variant": variant, "keep": keep, "value": value, "status": "ok"},
        }
        for step in STEPS
        for variant, keep, value in (("full", 1.0, 0.3), ("top", 0.5, 0.8))
    ]
    return written(path, "prune_eval", rows)


def gathered(*paths: Path, runs: Sequence[str] = ()) -> Gathered:
    return Gathered([open_table(path) for path in paths], runs)


def one_run(home: Path, *names: str) -> list[Path]:
    """Tables of one run r with metrics of these names."""
    return [
        rank(home / "rank.parquet", {"r": 0.0}),
        align(home / "align.parquet", {"r": 0.0}),
        metrics(home / "r" / "metrics.parquet", *names),
    ]


def curve(drawn: Drawn, place: int = 0) -> tuple[list[float], list[float]]:
    line = drawn.figure.axes[ERROR].lines[place]
    return np.asarray(line.get_xdata(), float).tolist(), np.asarray(line.get_ydata(), float).tolist()


def cells(drawn: Drawn, panel: int) -> Any:
    return drawn.figure.axes[panel].collections[0].get_array()


def spectrum(drawn: Drawn) -> list[Any]:
    """(points, 2) for each singular value."""
    return [np.asarray(segment) for segment in drawn.figure.axes[SPECTRUM].collections[-1].get_segments()]


def test_the_four_panels_hold_the_numbers_of_the_tables(tmp_path: Path) -> None:
    """Oracle: the numbers as they were written; scores of heads are averaged, rows that are not primary left out."""
    (drawn,) = draw_grokking(gathered(*one_run(tmp_path, "error")), Choice())
    assert curve(drawn, 0) == ([0.0, 10.0, 40.0], pytest.approx([0.5, 0.4, 0.1]))
    assert curve(drawn, 1) == ([0.0, 10.0, 40.0], pytest.approx([0.9, 0.8, 0.5]))
    np.testing.assert_allclose(cells(drawn, RANKS), [[d / 10 + s / 100 for s in STEPS] for d in range(3)])
    np.testing.assert_allclose(cells(drawn, ALIGNMENTS), [[0.3] * 3, [0.7] * 3])
    first, second = spectrum(drawn)
    np.testing.assert_allclose(first, [(step, 11.0) for step in STEPS])
    np.testing.assert_allclose(second, [(step, 1.0 + step / 10) for step in STEPS])
    assert drawn.notices == ()


def test_labels_titles_and_the_name_of_the_file_say_what_it_is(tmp_path: Path) -> None:
    """The matrix of the singular values is the middle one, and is named."""
    (drawn,) = draw_grokking(gathered(*one_run(tmp_path, "error")), Choice())
    axes = drawn.figure.axes
    assert {axes[panel].get_xlabel() for panel in range(4)} == {"step (optimizer steps)"}
    assert axes[ERROR].get_ylabel() == "error (fraction)"
    assert axes[SPECTRUM].get_title() == "singular values\nmid"
    assert axes[SPECTRUM].get_ylabel() == "singular value (weight)"
    assert [text.get_text() for text in axes[RANKS].get_yticklabels()] == list(MATRICES)
    connections = [text.get_text() for text in axes[ALIGNMENTS].get_yticklabels()]
    assert connections == ["query-key: low → mid", "sequential: mid → high"]
    bars = {axis.get_ylabel() for axis in axes[4:]}
    assert bars == {"index i", "effective rank / R", "alignment score"}
    assert drawn.figure.get_suptitle() == "r"
    assert drawn.name == "grokking-r-mid"
    assert (
        drawn.about
        == "error, singular values of mid, effective rank, alignment; r (the matrix is the middle one of 3 matrices)"
    )


@pytest.mark.parametrize("scale", ["linear", "log", "symlog"])
def test_steps_are_the_same_in_all_panels(tmp_path: Path, scale: Any) -> None:
    """Also where metrics were taken after the last checkpoint; the two heat maps have the same limits exactly."""
    paths = one_run(tmp_path, "error")[:2]
    paths.append(metrics(tmp_path / "r" / "metrics.parquet", "error", steps=(0, 20, 100)))
    (drawn,) = draw_grokking(gathered(*paths), Choice(x_scale=scale))
    limits = [axis.get_xlim() for axis in drawn.figure.axes[:4]]
    assert limits[RANKS] == limits[ALIGNMENTS]
    assert max(low for low, _ in limits) <= (10 if scale == "log" else 0)
    assert min(high for _, high in limits) >= 100
    assert {axis.get_xscale() for axis in drawn.figure.axes[:4]} == {scale}
    assert drawn.notices == (("1 step of 0 or less is not on the logarithmic axis",) if scale == "log" else ())


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("loss", "wer", "cer", "error"), "error (fraction)"),
        (("loss", "wer", "cer"), "character error rate"),
        (("loss", "wer"), "word error rate"),
        (("perplexity", "loss"), "loss"),
        (("accuracy", "bleu"), "accuracy"),
    ],
)
def test_the_metric_is_an_error_if_there_is_one(tmp_path: Path, names: tuple[str, ...], expected: str) -> None:
    (drawn,) = draw_grokking(gathered(*one_run(tmp_path, *names)), Choice())
    assert drawn.figure.axes[ERROR].get_ylabel() == expected


def test_whole_models_stand_in_for_metrics(tmp_path: Path) -> None:
    """Rows of prune-eval of the variant full, of a run that has no metrics."""
    paths = [*one_run(tmp_path, "error")[:2], pruned(tmp_path / "p.parquet", "r")]
    (drawn,) = draw_grokking(gathered(*paths), Choice())
    assert curve(drawn) == ([0.0, 10.0, 40.0], [0.3, 0.3, 0.3])
    (drawn,) = draw_grokking(gathered(*paths, metrics(tmp_path / "r" / "metrics.parquet", "error")), Choice())
    assert curve(drawn) == ([0.0, 10.0, 40.0], pytest.approx([0.5, 0.4, 0.1]))


def test_without_metrics_it_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(NothingToDraw, match=r"metrics\.parquet"):
        draw_grokking(gathered(*one_run(tmp_path, "error")[:2]), Choice())


def test_runs_have_a_figure_each_and_those_that_lack_something_are_told(tmp_path: Path) -> None:
    runs = {"a": 0.0, "b": 0.1, "c": 0.2}
    paths = [
        rank(tmp_path / "rank.parquet", runs),
        align(tmp_path / "align.parquet", runs),
        metrics(tmp_path / "a" / "metrics.parquet", "error"),
        metrics(tmp_path / "b" / "metrics.parquet", "error"),
    ]
    drawn = draw_grokking(gathered(*paths), Choice())
    assert [each.name for each in drawn] == ["grokking-a-mid", "grokking-b-mid"]
    assert drawn[0].notices == ("c has not all that is drawn, and is left out",)
    with pytest.raises(NothingToDraw, match=r"metrics\.parquet"):
        draw_grokking(gathered(*paths, runs=("c",)), Choice())


def test_the_mean_over_runs_is_over_the_steps_they_share(tmp_path: Path) -> None:
    """Oracle: plain numbers; run b has more of everything, and another set of steps."""
    paths = [
        *(rank(tmp_path / run / "rank.parquet", {run: more}, steps) for run, more, steps in RUNS),
        *(align(tmp_path / run / "align.parquet", {run: more}, steps) for run, more, steps in RUNS),
        *(
            metrics(tmp_path / run / "metrics.parquet", "error", steps=steps, more=more)
            for run, more, steps in RUNS
        ),
    ]  # fmt: skip
    (drawn,) = draw_grokking(gathered(*paths), Choice(over="run", parameter=("high",)))
    assert drawn.figure.get_suptitle() == "mean of 2 runs, bands: 1 standard deviation"
    assert drawn.notices == ("2 of 4 steps are left out, as not all runs have them",)
    assert curve(drawn) == ([0.0, 40.0], pytest.approx([0.55, 0.15]))
    np.testing.assert_allclose(cells(drawn, RANKS), [[d / 10 + s / 100 + 0.05 for s in (0, 40)] for d in range(3)])
    np.testing.assert_allclose(cells(drawn, ALIGNMENTS), [[0.35] * 2, [0.75] * 2])
    np.testing.assert_allclose(spectrum(drawn)[0], [(0.0, 12.05), (40.0, 12.05)], rtol=1e-6)
    half = (((0.0 - 0.05) ** 2 + (0.1 - 0.05) ** 2) / 1) ** 0.5
    band = drawn.figure.axes[SPECTRUM].collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(12.05 + half, rel=1e-6)


RUNS = (("a", 0.0, (0, 10, 40)), ("b", 0.1, (0, 20, 40)))


def test_each_matrix_that_is_chosen_has_a_figure(tmp_path: Path) -> None:
    tables = gathered(*one_run(tmp_path, "error"))
    drawn = draw_grokking(tables, Choice(parameter=("low", "h*")))
    assert [each.name for each in drawn] == ["grokking-r-low", "grokking-r-high"]
    assert [spectrum(each)[0][0, 1] for each in drawn] == [10.0, 12.0]
    with pytest.raises(UsageError, match="no matrix matches --parameter nothing"):
        draw_grokking(tables, Choice(parameter=("nothing*",)))


def test_one_checkpoint_only_says_what_to_do(tmp_path: Path) -> None:
    paths = [
        rank(tmp_path / "rank.parquet", {"r": 0.0}, (5,)),
        align(tmp_path / "align.parquet", {"r": 0.0}, (5,)),
        metrics(tmp_path / "r" / "metrics.parquet", "error"),
    ]
    with pytest.raises(NothingToDraw, match="only one step, 5"):
        draw_grokking(gathered(*paths), Choice())


def test_matrices_without_numbers_are_told(tmp_path: Path) -> None:
    """A checkpoint that is corrupt is a column without numbers of all matrices."""
    whole = {"run": "r", "checkpoint": "step_20", "step": 20, "status": "corrupt"}
    good = [
        {
            **{"run": "r", "checkpoint": f"step_{step}", "step": step, "parameter": name, "depth": depth, **SIZES},
            **{"effective_rank_normalized": 0.5, "singular_values": [2.0, 1.0], "status": "ok"},
        }
        for step in STEPS
        for depth, name in enumerate(MATRICES)
    ]
    paths = [written(tmp_path / "rank.parquet", "rank", [*good, whole]), *one_run(tmp_path / "of", "error")[1:]]
    (drawn,) = draw_grokking(gathered(*paths), Choice())
    assert np.ma.getmaskarray(cells(drawn, RANKS)).tolist() == [[False, False, True, False]] * 3
    assert drawn.notices == ("effective rank / R: 3 cells of r are empty (3 corrupt)",)


def test_a_model_without_singular_values_says_where_to_look(tmp_path: Path) -> None:
    paths = one_run(tmp_path, "error")
    paths[0] = rank(
        tmp_path / "none.parquet", {"r": 0.0}, singular_values=None, effective_rank_normalized=None, status="empty"
    )
    with pytest.raises(NothingToDraw, match="status"):
        draw_grokking(gathered(*paths), Choice())


def test_epochs_serve_where_no_step_is_known(tmp_path: Path) -> None:
    """The checkpoints have epochs only, the metrics have both."""
    ranks = [
        {
            **{"run": "r", "checkpoint": f"epoch_{epoch}", "epoch": epoch, "parameter": "w", "depth": 0, **SIZES},
            **{"effective_rank_normalized": 0.5, "singular_values": [1.0], "status": "ok"},
        }
        for epoch in (0, 1, 4)
    ]
    alignments = [
        {
            **{"run": "r", "checkpoint": f"epoch_{epoch}", "epoch": epoch, "connection": "sequential", "depth": 0},
            **{"upstream": "w", "downstream": "v", "primary": True, "score": 0.5, "status": "ok"},
        }
        for epoch in (0, 1, 4)
    ]
    (drawn,) = draw_grokking(
        gathered(
            written(tmp_path / "rank.parquet", "rank", ranks),
            written(tmp_path / "align.parquet", "align", alignments, leave_out={"alignment"}),
            metrics(tmp_path / "r" / "metrics.parquet", "error"),
        ),
        Choice(),
    )
    assert curve(drawn)[0] == [0.0, 1.0, 4.0]
    assert drawn.figure.axes[ERROR].get_xlabel().startswith("epoch")


def test_figures_of_the_fixtures_show_the_numbers_of_their_tables(fixture_tables: Path) -> None:
    """Oracle: pandas on the files; two runs with steps of their own."""
    pandas = pytest.importorskip("pandas")
    tables = [fixture_tables / "grok" / f"{name}.parquet" for name in ("rank", "align")]
    runs = [fixture_tables / "metrics" / run / "metrics.parquet" for run in ("seed_0", "seed_5")]
    drawn = draw_grokking(gathered(*tables, *runs), Choice())
    assert [each.figure.get_suptitle() for each in drawn] == ["seed_0", "seed_5"]
    frame = pandas.read_parquet(tables[0])
    for run, each in zip(("seed_0", "seed_5"), drawn, strict=True):
        rows = frame[frame.run == run].sort_values(["depth", "step"])
        expected = rows.effective_rank_normalized.to_numpy().reshape(rows.depth.nunique(), -1)
        np.testing.assert_allclose(cells(each, RANKS), expected)
        middle = rows[rows.parameter == "transformer_encoder.layers.0.self_attn.out_proj.weight"]
        values = np.stack(list(middle.singular_values))
        np.testing.assert_allclose(np.stack(spectrum(each))[:, :, 1], values.T, rtol=1e-6)


def partly_broken(path: Path, lost: str, *, wide: str = "") -> Path:
    """Runs a, b and c; of c a matrix has no numbers, and one run has a third singular value."""
    rows = [
        {
            **{"run": run, "checkpoint": f"step_{step}", "step": step, "parameter": name, "depth": depth, **SIZES},
            **{"effective_rank_normalized": 0.5, "singular_values": [3.0, 2.0, 1.0][: 2 + (run == wide)]},
            **{"status": "ok"},
            **({"status": "not_finite", "singular_values": None} if (run, name) == ("c", lost) else {}),
        }
        for run in "abc"
        for step in STEPS
        for depth, name in enumerate(MATRICES)
    ]
    return written(path, "rank", rows)


def three_runs(home: Path, lost: str, *, wide: str = "") -> Gathered:
    runs = dict.fromkeys("abc", 0.0)
    found = [metrics(home / run / "metrics.parquet", "error") for run in runs]
    return gathered(partly_broken(home / "rank.parquet", lost, wide=wide), align(home / "align.parquet", runs), *found)


def test_the_middle_matrix_is_one_that_all_runs_have(tmp_path: Path) -> None:
    drawn = draw_grokking(three_runs(tmp_path, "mid"), Choice())
    assert [each.figure.axes[SPECTRUM].get_title() for each in drawn] == ["singular values\nlow"] * 3
    assert "the middle one of 2 matrices that all runs have" in drawn[0].about


@pytest.mark.parametrize("over", [None, "run"])
def test_a_run_without_the_matrix_is_not_left_out_in_silence(tmp_path: Path, over: Any) -> None:
    drawn = draw_grokking(three_runs(tmp_path, "mid"), Choice(parameter=("mid",), over=over))
    assert len(drawn) == (1 if over else 2)
    assert "c is left out: it has no numbers of mid (3 not_finite)" in drawn[0].notices


def test_spectra_that_a_mean_cuts_short_are_told_of(tmp_path: Path) -> None:
    (drawn,) = draw_grokking(three_runs(tmp_path, "", wide="b"), Choice(over="run"))
    assert len(spectrum(drawn)) == 2
    assert "the mean is of the first 2 of up to 3 singular values, as not all runs have more" in drawn.notices
