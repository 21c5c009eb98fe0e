"""Rows of several files come together; a run has one name in all of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from spectra_cli.errors import UsageError
from spectra_cli.figures.rows.gathered import Gathered
from spectra_cli.figures.rows.kinds import kind_of
from spectra_cli.tables.reader import TableFile, open_table
from spectra_cli.tables.schemas import optional_columns
from spectra_cli.tables.writer import TableWriter

FIXTURES = Path(__file__).parents[2] / "fixtures"


def table(path: Path, name: str, rows: Iterable[Mapping[str, Any]], **options: Any) -> TableFile:
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = options.pop("settings", {})
    options.setdefault("leave_out", optional_columns(name))
    with TableWriter(path, name, metadata={"spectra.settings": json.dumps(settings)}, **options) as writer:
        writer.write(rows)
    return open_table(path)


def row(run: str = ".", step: int | None = 0, **more: Any) -> dict[str, Any]:
    return {"run": run, "checkpoint": f"step_{step}", "step": step, "parameter": "w", "status": "ok", **more}


def test_kinds_of_sva_tables_are_told_by_what_made_them(fixture_tables: Path) -> None:
    found = {path.name: kind_of(open_table(path)) for path in fixture_tables.rglob("*.parquet")}
    assert found == {
        "rank.parquet": "rank",
        "align.parquet": "align",
        "sva.parquet": "sva",
        "prune_eval.parquet": "prune_eval",
        "pruned.parquet": "sva_pruned",
        "early.parquet": "barrier",
        "late.parquet": "barrier",
        "ends_early.parquet": "sva_ends",
        "ends_late.parquet": "sva_ends",
    }


def test_frames_hold_the_rows_of_the_files(fixture_tables: Path) -> None:
    """Against pandas' own reading."""
    path = fixture_tables / "grok" / "rank.parquet"
    gathered = Gathered([open_table(path)])
    expected = pd.read_parquet(path)
    frame = gathered.frame("rank", ["parameter", "effective_rank", "status", "rows"])
    for name in ("run", "parameter", "effective_rank", "status", "rows"):
        assert frame[name].tolist() == expected[name].tolist()
    one = gathered.frame("rank", ["step", "singular_values"], {"parameter": ["decoder.weight"]})
    wanted = expected[expected.parameter == "decoder.weight"]
    assert one.step.tolist() == wanted.step.tolist()
    assert all(map(np.array_equal, one.singular_values, wanted.singular_values))


def test_runs_keep_their_names_where_they_differ(tmp_path: Path) -> None:
    gathered = Gathered(
        [table(tmp_path / "a.parquet", "rank", [row("x"), row("y")]), table(tmp_path / "b.parquet", "rank", [row("z")])]
    )
    assert gathered.runs == ("x", "y", "z")


def test_tables_of_one_run_agree_on_its_name(tmp_path: Path) -> None:
    """Rank and align of the run in one directory; rank of another in another one: directories tell them apart."""
    files = [
        table(tmp_path / run / f"{name}.parquet", name, [row(".")]) for run in ("a", "b") for name in ("rank", "align")
    ]
    gathered = Gathered(files)
    assert gathered.runs == ("a", "b")
    assert gathered.frame("rank", []).run.tolist() == gathered.frame("align", []).run.tolist() == ["a", "b"]


def test_tables_beside_one_another_tell_runs_of_one_name_apart(tmp_path: Path) -> None:
    files = [table(tmp_path / f"{name}.parquet", "rank", [row("."), row("sub")]) for name in ("one", "two")]
    assert Gathered(files).runs == ("one", "one/sub", "two", "two/sub")


def test_directories_of_one_name_are_told_apart_by_those_above(tmp_path: Path) -> None:
    files = [table(tmp_path / seed / "tables" / "rank.parquet", "rank", [row(".")]) for seed in ("s0", "s1")]
    assert Gathered(files).runs == ("s0/tables", "s1/tables")


def test_a_run_analysed_by_itself_is_called_as_its_directory(tmp_path: Path) -> None:
    file = table(tmp_path / "rank.parquet", "rank", [row(".")], settings={"runs": {".": "adamw"}})
    assert Gathered([file]).runs == ("adamw",)
    for damaged in ({"runs": [1]}, {"runs": {".": 3}}, {"runs": {".": ""}}):
        assert Gathered([table(tmp_path / "rank.parquet", "rank", [row(".")], settings=damaged)]).runs == (".",)


def test_commands_record_the_directory_of_a_run(tmp_path: Path) -> None:
    import spectra_cli

    spectra_cli.rank(FIXTURES / "grokking" / "seed_0", steps="first", out=tmp_path / "rank.parquet")
    assert Gathered([open_table(tmp_path / "rank.parquet")]).runs == ("seed_0",)


def metrics(path: Path) -> TableFile:
    rows = [{"step": 0, "epoch": 0.0, "split": "train", "metric": "loss", "value": 1.0, "count": 1, "status": "ok"}]
    return table(path / "metrics.parquet", "metrics", rows)


def test_metrics_belong_to_the_run_whose_directory_they_stand_in(tmp_path: Path) -> None:
    rank = table(tmp_path / "rank.parquet", "rank", [row("runs/a"), row("runs/b")])
    gathered = Gathered([metrics(tmp_path / "runs" / "b"), rank, metrics(tmp_path / "runs" / "c")])
    assert gathered.frame("metrics", ["value"]).run.tolist() == ["runs/b", "c"]
    assert gathered.runs == ("runs/a", "runs/b", "c")


def test_metrics_belong_to_the_only_run_there_is(tmp_path: Path) -> None:
    rank = table(tmp_path / "rank.parquet", "rank", [row(".")])
    gathered = Gathered([rank, metrics(tmp_path / "somewhere")])
    assert gathered.frame("metrics", ["value"]).run.tolist() == ["."]


def test_runs_are_chosen_by_globs(tmp_path: Path) -> None:
    file = table(tmp_path / "rank.parquet", "rank", [row("seed_0"), row("seed_1"), row("other")])
    gathered = Gathered([file], ["seed_*"])
    assert gathered.runs == ("seed_0", "seed_1")
    assert gathered.frame("rank", ["step"]).run.tolist() == ["seed_0", "seed_1"]
    with pytest.raises(UsageError, match=r"no run matches --run x\*.*There are seed_0, seed_1, other"):
        Gathered([file], ["x*"])


def test_places_are_steps_else_epochs_else_checkpoints(tmp_path: Path) -> None:
    rows = [row(step=3), row(step=None, epoch=1), row(step=9, epoch=2)]
    frame, clock = Gathered([table(tmp_path / "a.parquet", "rank", rows)]).evolving("rank", ["status"])
    assert (frame.x.tolist(), clock) == ([3.0, 9.0], "step")
    rows = [row(step=None, epoch=1), row(step=None, epoch=4)]
    frame, clock = Gathered([table(tmp_path / "a.parquet", "rank", rows)]).evolving("rank", ["status"])
    assert (frame.x.tolist(), clock) == ([1.0, 4.0], "epoch")
    rows = [row("r", None, checkpoint=name) for name in ("b", "b", "a")] + [row("q", None, checkpoint="c")]
    frame, clock = Gathered([table(tmp_path / "a.parquet", "rank", rows)]).evolving("rank", ["status"])
    assert (frame.x.tolist(), clock) == ([0.0, 0.0, 1.0, 0.0], "checkpoint")


def test_an_empty_table_has_no_run_and_no_row(tmp_path: Path) -> None:
    gathered = Gathered([table(tmp_path / "a.parquet", "rank", [])])
    assert gathered.runs == ()
    assert gathered.evolving("rank", ["parameter"])[0].empty
    assert gathered.frame("align", ["score"]).empty


def test_tags_of_one_table_are_null_in_another(tmp_path: Path) -> None:
    files = [
        table(tmp_path / "a.parquet", "rank", [row("a")], tags={"wd": "1"}),
        table(tmp_path / "b.parquet", "rank", [row("b")]),
    ]
    assert Gathered(files).frame("rank", ["wd"]).wd.isna().tolist() == [False, True]


def test_tables_that_share_directories_and_names_are_told_apart_by_both(tmp_path: Path) -> None:
    files = [
        table(tmp_path / place, "rank", [row("seed_0", effective_rank=float(number))])
        for number, place in enumerate(("a/rank.parquet", "b/rank.parquet", "b/rank2.parquet"))
    ]
    gathered = Gathered(files)
    assert gathered.runs == ("a/rank/seed_0", "b/rank/seed_0", "b/rank2/seed_0")
    assert gathered.frame("rank", ["effective_rank"]).effective_rank.tolist() == [0.0, 1.0, 2.0]


def test_metrics_of_two_runs_of_one_name_stay_two(tmp_path: Path) -> None:
    rank = table(tmp_path / "rank.parquet", "rank", [row("seed_0")])
    gathered = Gathered([rank, metrics(tmp_path / "a" / "seed_0"), metrics(tmp_path / "b" / "seed_0")])
    assert gathered.frame("metrics", ["value"]).run.tolist() == ["a/seed_0", "b/seed_0"]
    assert gathered.runs == ("seed_0", "a/seed_0", "b/seed_0")


def test_what_is_taken_for_granted_is_said(tmp_path: Path) -> None:
    rank = table(tmp_path / "rank.parquet", "rank", [row("seed_0")])
    gathered = Gathered([rank, metrics(tmp_path / "seed_7")])
    assert gathered.remarks == ("the metrics in seed_7 are taken for those of the run seed_0, the only one",)
    assert Gathered([rank, metrics(tmp_path / "seed_0")]).remarks == ()


def test_checkpoints_without_a_place_in_training_are_told(tmp_path: Path) -> None:
    """A final checkpoint without a step beside others that have one, and a run that has epochs only."""
    rows = [row("a", 0), row("a", 10), row("a", None, checkpoint="final.safetensors")]
    rows += [row("b", None, epoch=number, checkpoint=f"epoch_{number}") for number in range(4)]
    gathered = Gathered([table(tmp_path / "rank.parquet", "rank", rows)])
    assert gathered.evolving("rank", [])[0].run.tolist() == ["a", "a"]
    assert gathered.unplaced("rank") == (
        "a: 1 checkpoint has no step, left out (final.safetensors)",
        "b: 4 checkpoints have no step, left out (epoch_0, epoch_1, epoch_2, ...)",
    )
    assert Gathered([table(tmp_path / "c.parquet", "rank", rows[3:])]).unplaced("rank") == ()


def test_of_checkpoints_at_one_place_the_last_is_taken(tmp_path: Path) -> None:
    """A model saved anew at its step; the same in every table of the run. Another run has one checkpoint there."""
    names = {"epoch=1-step=10.ckpt": 0.1, "epoch=1-step=10-v1.ckpt": 0.9}
    rows = [row("a", 0)]
    rows += [row("a", 10, epoch=1, checkpoint=name, effective_rank=value) for name, value in names.items()]
    rows += [row("b", 10, checkpoint="epoch=1-step=10.ckpt", effective_rank=0.5)]
    gathered = Gathered([table(tmp_path / "rank.parquet", "rank", rows)])
    frame, _ = gathered.evolving("rank", ["effective_rank"])
    assert list(zip(frame.run, frame.x, frame.effective_rank.fillna(-1), strict=True)) == [
        ("a", 0.0, -1.0),
        ("a", 10.0, 0.9),
        ("b", 10.0, 0.5),
    ]
    told = "a: 2 checkpoints have step 10; epoch=1-step=10-v1.ckpt is drawn"
    assert gathered.at_one_place("rank") == (told,)
    assert gathered.superseded("rank") == {("a", "epoch=1-step=10.ckpt")}
    one, _ = gathered.evolving("rank", ["effective_rank"], {"parameter": ["w"]})
    assert one.effective_rank.tolist()[1:] == [0.9, 0.5]


def test_a_checkpoint_that_failed_does_not_hide_another_at_its_place(tmp_path: Path) -> None:
    rows = [row("a", 10, effective_rank=0.3), row("a", 10, checkpoint="copy", parameter=None, status="corrupt")]
    gathered = Gathered([table(tmp_path / "rank.parquet", "rank", rows)])
    assert gathered.evolving("rank", ["effective_rank"])[0].effective_rank.tolist() == [0.3]
    assert gathered.at_one_place("rank") == ("a: 2 checkpoints have step 10; step_10 is drawn",)


def test_rows_of_one_checkpoint_do_not_compete_for_its_place(tmp_path: Path) -> None:
    """Heads, matrices, and checkpoints without any step."""
    rows = [row("a", 10), row("a", 10, parameter="v"), row("a", None), row("a", None, checkpoint="last")]
    gathered = Gathered([table(tmp_path / "rank.parquet", "rank", rows)])
    assert gathered.at_one_place("rank") == ()
    assert gathered.superseded("rank") == frozenset()
    assert len(gathered.evolving("rank", [])[0]) == 2


def test_many_places_with_several_checkpoints_are_summed_up(tmp_path: Path) -> None:
    rows = [row("a", step, checkpoint=f"{step}{name}") for step in range(20) for name in "xy"]
    told = Gathered([table(tmp_path / "rank.parquet", "rank", rows)]).at_one_place("rank")
    assert (len(told), told[0]) == (9, "a: 2 checkpoints have step 0; 0y is drawn")
    assert told[-1] == "the same at 12 more places"


def evaluated(path: Path, *variants: tuple[str, float, int | None, float], **other: Any) -> TableFile:
    """A table of prune-eval of a run at two steps: (variant, keep, seed, value)."""
    settings = {"steps": None, "keep": variants[-1][1], "mask_seed": other.pop("mask_seed", 0), **other}
    rows = [
        {"run": "seed_0", "checkpoint": f"step_{step}", "step": step, "variant": variant, "keep": keep, "seed": seed}
        | {"split": "val", "metric": "loss", "value": value + step, "count": 1, "status": "ok"}
        for step in (0, 10)
        for variant, keep, seed, value in variants
    ]
    return table(path, "prune_eval", rows, settings=settings)


FULL = ("full", 1.0, None, 0.25)


def test_tables_of_prune_eval_with_other_variants_of_a_run_are_of_one_run(tmp_path: Path) -> None:
    """Their common rows come once; tables of other kinds keep their names."""
    rank = table(tmp_path / "rank.parquet", "rank", [row("seed_0")])
    files = [
        evaluated(tmp_path / "a.parquet", FULL, ("random", 0.05, 0, 1.0), ("top", 0.5, None, 3.0)),
        evaluated(tmp_path / "b.parquet", FULL, ("random", 0.05, 1, 2.0), ("top", 0.9, None, 4.0), mask_seed=1),
    ]
    gathered = Gathered([rank, *files])
    assert gathered.runs == ("seed_0",)
    frame, _ = gathered.evolving("prune_eval", ["variant", "keep", "seed", "value"])
    assert frame[frame.step == 0].value.tolist() == [0.25, 1.0, 3.0, 2.0, 4.0]
    assert set(frame.run) == {"seed_0"}
    full, _ = gathered.evolving("prune_eval", ["value"], {"variant": ["full"]})
    assert full.value.tolist() == [0.25, 10.25]
    assert list(gathered.frame("prune_eval", ["value"]).columns) == ["value", "run"]


@pytest.mark.parametrize(
    ("variants", "other"),
    [
        ([("full", 1.0, None, 0.26), ("top", 0.9, None, 4.0)], {}),  # another run that has the same name
        ([("top", 0.9, None, 4.0)], {}),  # no value in common
        ([FULL, ("top", 0.9, None, 4.0)], {"steps": "0,10"}),  # other settings
    ],
)
def test_tables_of_prune_eval_that_may_be_of_two_runs_stay_apart(
    tmp_path: Path, variants: list[Any], other: dict[str, Any]
) -> None:
    first = evaluated(tmp_path / "a.parquet", FULL, ("top", 0.5, None, 3.0))
    gathered = Gathered([first, evaluated(tmp_path / "b.parquet", *variants, **other)])
    assert gathered.runs == ("a/seed_0", "b/seed_0")
    assert len(gathered.frame("prune_eval", ["value"])) == 4 + 2 * len(variants)


def test_tables_of_prune_eval_with_other_checkpoints_or_no_settings_stay_apart(tmp_path: Path) -> None:
    first = evaluated(tmp_path / "a.parquet", FULL)
    rows = [
        {"run": "seed_0", "checkpoint": "step_0", "step": 0, "variant": "full", "keep": 1.0, "split": "val"}
        | {"metric": "loss", "value": 0.25, "count": 1, "status": "ok"}
    ]
    for settings in (first.settings, {}):
        other = table(tmp_path / "b.parquet", "prune_eval", rows, settings=settings)
        assert Gathered([first, other]).runs == ("a/seed_0", "b/seed_0")
    assert Gathered([table(tmp_path / "c.parquet", "prune_eval", rows), other]).runs == ("c/seed_0", "b/seed_0")
