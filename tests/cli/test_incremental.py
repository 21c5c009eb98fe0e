"""A command that is run again does only what is new, and writes row for row what it would write from the beginning.

The oracle is the table of an uninterrupted ``--fresh`` run somewhere else; numbers are compared to the bit.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spectra_cli.cli.main import run as run_command
from spectra_cli.tables.schemas import SCHEMA_VERSION
from spectra_cli.tables.writer import TableWriter
from tests.analyses.formulas import chain, save, separated
from tests.cli import trajectories
from tests.cli.trajectories import (
    SIZES,
    assert_same,
    counted,
    kept,
    listed,
    outputs,
    read,
    rewrite,
    rewrite_unnoticed,
    states,
    step,
    trajectory,
)

Fixture = Callable[..., Any]
MATRICES = len(SIZES) - 1
COMMANDS = {
    "rank": ["rank"],
    "align": ["align"],
    "sva": ["sva"],
    "sva previous": ["sva", "--reference", "previous"],
    "sva first": ["sva", "--reference", "first"],
    "analyze": ["analyze"],
    "analyze previous": ["analyze", "--reference", "previous"],
}
SOME = {name: COMMANDS[name] for name in ("rank", "sva", "analyze previous")}
"""One of each kind."""


def problems(done: Any) -> list[str]:
    """Warnings, as ``--json`` says them; no others are printed."""
    said: list[str] = json.loads(done.out)["problems"]
    printed = [line for line in done.err.splitlines() if line.startswith("Warning: ")]
    assert sorted(f"Warning: {message}" for message in said) == sorted(printed)
    return said


def assert_fresh(spectra: Fixture, line: list[str], paths: list[str | Path], out: str) -> Any:
    """The tables are those of a fresh run; gives back what that was told."""
    shutil.rmtree("fresh", ignore_errors=True)
    Path("fresh").mkdir()
    done = spectra(*line, *paths, "--out", "fresh/out", "--fresh", "--json", "--quiet")
    assert_same(line[0], out, "fresh/out")
    return done


# What is unchanged


@pytest.mark.parametrize("line", COMMANDS.values(), ids=COMMANDS)
def test_a_trajectory_that_has_not_changed_is_not_opened_again(spectra: Fixture, line: list[str]) -> None:
    """Not one checkpoint, not one matrix; the files stay as they are, to the time of their last change."""
    run = trajectory()
    assert spectra(*line, run, "--out", "out").status == 0
    before, names = states(line[0], "out"), listed(".")
    with counted() as work:
        again = spectra(*line, run, "--out", "out", "--json")
    assert again.status == 0
    assert (work.opened, work.factorized) == ([], 0)
    assert states(line[0], "out") == before
    assert listed(".") == names
    assert kept(again) == 4
    with_rows = 3 if "previous" in line else 4  # the first has none before it
    assert f"({with_rows} kept)" in again.err


def test_what_is_told_of_kept_rows_is_what_is_told_of_new_ones(spectra: Fixture) -> None:
    """The closing tables and lines, but for the count of those kept and the time."""
    run = trajectory()
    first, again = (spectra("analyze", run, "--out", "out", "--json") for _ in range(2))
    without_count = [json.loads(done.out) | {"kept": None} for done in (first, again)]
    assert without_count[0] == without_count[1]
    shown = [[line for line in done.err.splitlines() if "parquet: " not in line] for done in (first, again)]
    assert shown[0] == shown[1]


# What changes on the disk


def add(run: Path) -> set[str]:
    return {rewrite(run, 400, seed=7).name}


def add_between(run: Path) -> set[str]:
    return {rewrite(run, 150, seed=7).name}


def change(run: Path) -> set[str]:
    return {rewrite(run, 100, seed=9).name}


def touch(run: Path) -> set[str]:
    os.utime(step(run, 100), ns=(1, 10**18))
    return {step(run, 100).name}


def remove(run: Path) -> set[str]:
    step(run, 100).unlink()
    return set()


def remove_last(run: Path) -> set[str]:
    step(run, 300).unlink()
    return set()


def nothing_but_a_stray(run: Path) -> set[str]:
    (run / "notes.txt").write_text("none of ours")
    return set()


EDITS = (add, add_between, change, touch, remove, remove_last, nothing_but_a_stray)


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("line", [["rank"], ["align"]], ids=["rank", "align"])
def test_only_the_checkpoints_that_are_new_are_opened(spectra: Fixture, line: list[str], edit: Fixture) -> None:
    run = trajectory()
    assert spectra(*line, run, "--out", "out").status == 0
    new = edit(run)
    with counted() as work:
        again = spectra(*line, run, "--out", "out", "--json")
    assert again.status == 0
    assert set(work.opened) == new
    assert len(work.opened) == len(new)
    assert kept(again) == len(list(run.glob("*.safetensors"))) - len(new)
    assert_fresh(spectra, line, [run], "out")


@pytest.mark.parametrize("edit", [add_between, change, remove, remove_last])
@pytest.mark.parametrize("line", [COMMANDS["sva"], COMMANDS["analyze previous"]], ids=["sva", "analyze previous"])
def test_agreement_is_made_anew_where_either_checkpoint_has_changed(
    spectra: Fixture, line: list[str], edit: Fixture
) -> None:
    run = trajectory()
    assert spectra(*line, run, "--out", "out").status == 0
    edit(run)
    assert spectra(*line, run, "--out", "out").status == 0
    assert_fresh(spectra, line, [run], "out")
    with counted() as work:
        assert kept(spectra(*line, run, "--out", "out", "--json")) == len(list(run.glob("*.safetensors")))
    assert work.opened == []


def test_a_new_final_checkpoint_costs_the_others_their_agreement_only(spectra: Fixture) -> None:
    """Their rows in the other two tables are kept as they are in the file."""
    run = trajectory()
    assert spectra("analyze", run, "--out", "out").status == 0
    rewrite(run, 400, seed=7)
    assigned: list[tuple[int, tuple[str, ...]]] = []
    from spectra_cli.execution.trajectory import analyst

    attempt = analyst.Analyst._attempt
    with pytest.MonkeyPatch.context() as patch:

        def noted(self: Any, assignment: Any, **named: Any) -> Any:
            assigned.append((assignment.index, assignment.tables))
            return attempt(self, assignment, **named)

        patch.setattr(analyst.Analyst, "_attempt", noted)
        done = spectra("analyze", run, "--out", "out")
    assert done.status == 0
    closing = {line.partition(":")[0]: line for line in done.err.splitlines() if ".parquet: " in line}
    kept = {name: "(4 kept)" in line for name, line in closing.items()}
    assert kept == {"out/rank.parquet": True, "out/align.parquet": True, "out/sva.parquet": False}
    assert sorted(assigned) == [*((place, ("sva",)) for place in range(4)), (4, ("rank", "align", "sva"))]
    assert_fresh(spectra, ["analyze"], [run], "out")


def test_agreement_made_alone_is_that_made_with_the_rest(spectra: Fixture) -> None:
    """To the bit, where there are heads, and where the memory budget has matrices taken in slabs."""
    Path("run").mkdir()
    for number in range(3):
        weights = {
            f"layers.0.self_attn.{name}_proj.weight": separated(64, 64, 50 * number + place)
            for place, name in enumerate("qkvo")
        }
        weights |= {f"layers.0.mlp.{name}_proj.weight": separated(160, 64, 50 * number + 9) for name in ("gate", "up")}
        weights["layers.0.mlp.down_proj.weight"] = separated(64, 160, 50 * number + 10)
        save(Path("run") / f"step_{number}" / "model.safetensors", weights)
        (Path("run") / f"step_{number}" / "config.json").write_text('{"num_attention_heads": 4}')
    line = ["analyze", "--memory-budget", "4MB"]
    last = Path("run/step_2").rename("step_2")
    assert spectra(*line, "run", "--out", "out").status == 0
    last.rename("run/step_2")
    again = spectra(*line, "run", "--out", "out", "--json")
    assert again.status == 0
    assert_fresh(spectra, line, ["run"], "out")


def test_a_run_that_has_moved_is_read_again_and_not_factorized(spectra: Fixture) -> None:
    """`rank` knows its matrices by what they hash to."""
    trajectory("runs/a")
    trajectory("runs/b", steps=(0, 50))
    assert spectra("rank", "runs", "--out", "out").status == 0
    Path("runs/a").rename("runs/renamed")
    with counted() as work:
        assert kept(spectra("rank", "runs", "--out", "out", "--json")) == 2
    assert (len(work.opened), work.factorized) == (4, 0)
    assert_fresh(spectra, ["rank"], ["runs"], "out")
    Path("runs").rename("elsewhere")
    with counted() as work:
        assert kept(spectra("rank", "elsewhere", "--out", "out", "--json")) == 0
    assert (len(work.opened), work.factorized) == (6, 0)
    assert_fresh(spectra, ["rank"], ["elsewhere"], "out")


@pytest.mark.parametrize("line", [["rank"], COMMANDS["analyze previous"]], ids=["rank", "analyze previous"])
def test_a_selection_of_steps_that_changes_keeps_what_it_shares(spectra: Fixture, line: list[str]) -> None:
    """Narrowed, then widened: what was left out is gone, and comes again."""
    run = trajectory(steps=(0, 100, 200, 300, 400))
    for chosen, new in ((["--steps", ":300"], 4), (["--steps", "100:200"], 0), ([], 3), (["--every", "2"], 0)):
        with counted() as work:
            done = spectra(*line, run, *chosen, "--out", "out", "--json")
        assert done.status == 0
        assert_fresh(spectra, line, [run, *chosen], "out")
        if "previous" not in line:
            assert len(work.opened) == new


@pytest.mark.parametrize("line", [["rank"], ["analyze"]], ids=["rank", "analyze"])
def test_the_order_of_paths_is_that_of_the_rows(spectra: Fixture, line: list[str]) -> None:
    """Nothing is opened for it."""
    runs = [trajectory(name, steps=steps) for name, steps in (("one", (0, 7)), ("two", (0, 8)), ("three", (0, 9)))]
    assert spectra(*line, *runs, "--out", "out").status == 0
    for order in (runs[::-1], runs[1:]):
        with counted() as work:
            assert spectra(*line, *order, "--out", "out").status == 0
        assert work.opened == []
        assert_fresh(spectra, line, list(order), "out")


# Matrices that are known


def test_matrices_in_the_table_are_not_factorized_again(spectra: Fixture) -> None:
    """Frozen layers of a new checkpoint, copies of an old one, and a weight under two names."""
    run = trajectory()
    assert spectra("rank", run, "--out", "out").status == 0
    frozen = chain(SIZES, seed=1) | {"layers.1.weight": separated(SIZES[2], SIZES[1], seed=77)}
    save(step(run, 400), frozen)
    shutil.copy(step(run, 100), step(run, 500))
    tied = separated(SIZES[2], SIZES[1], seed=78)
    save(step(run, 600), chain(SIZES, seed=1) | {"layers.1.weight": tied, "layers.9.weight": tied.clone()})
    with counted() as work:
        assert kept(spectra("rank", run, "--out", "out", "--json")) == 4
    assert sorted(work.opened) == [step(run, number).name for number in (400, 500, 600)]
    assert work.factorized == 2
    assert_fresh(spectra, ["rank"], [run], "out")


def test_matrices_of_one_run_are_factorized_once(spectra: Fixture) -> None:
    """Also in the run of a command that meets them first; for every command from one checkpoint to the next."""
    Path("run").mkdir()
    for number in range(4):
        save(
            Path("run") / f"step_{number}.safetensors",
            chain(SIZES, seed=3) | {"layers.1.weight": separated(SIZES[2], SIZES[1], seed=10 + number)},
        )
    for line in (["rank"], ["analyze", "--reference", "previous"]):
        with counted() as work:
            assert spectra(*line, "run", "--out", line[0]).status == 0
        assert work.factorized == MATRICES - 1 + 4
        assert_fresh(spectra, line, ["run"], line[0])


def test_the_same_bytes_read_in_another_way_are_another_matrix(spectra: Fixture) -> None:
    """A kernel with as many inputs as outputs, once as (out, in, k) and once as (in, out, k)."""
    kernel = torch.from_numpy(separated(6, 18, seed=4).numpy().reshape(6, 6, 3).copy())
    save(Path("run/step_0.safetensors"), {"one.weight": kernel})
    save(Path("run/step_1.safetensors"), {"one.weight": kernel, "up.weight": kernel.clone()})
    line = ["rank", "--transposed", "up.*"]
    assert spectra(*line, "run@0", "--out", "out").status == 0
    assert spectra(*line, "run", "--out", "out").status == 0
    assert_fresh(spectra, line, ["run"], "out")


def test_a_step_that_another_run_comes_to_share_is_missed_in_the_rows_kept(spectra: Fixture) -> None:
    """Whether a checkpoint without a partner has a row depends on the checkpoints beside it."""
    run, other = trajectory("a", (0, 100, 200)), trajectory("b", (50, 300))
    line = ["sva", "--against", str(other)]
    assert spectra(*line, run, "--out", "out").status == 0
    shutil.copy(step(run, 100), step(other, 100))
    assert spectra(*line, run, "--out", "out").status == 3
    assert_fresh(spectra, line, [run], "out")
    step(other, 100).unlink()
    assert spectra(*line, run, "--out", "out").status == 0
    assert_fresh(spectra, line, [run], "out")


def test_columns_of_tags_stand_in_the_order_of_the_command(spectra: Fixture) -> None:
    run = trajectory()
    for tags in (["--tag", "x=1", "--tag", "y=2"], ["--tag", "y=2", "--tag", "x=1"]):
        done = spectra("rank", run, *tags, "--out", "out", "--json")
        assert_fresh(spectra, ["rank", *tags], [run], "out")
    assert kept(done) == 4


def test_the_metadata_tell_what_was_chosen_last(spectra: Fixture) -> None:
    """Also where nothing of it changes a row."""
    run = trajectory()
    out = outputs("rank", "out")["rank"]
    for options, budget in ((["--memory-budget", "1GB"], 10**9), ([], None)):
        done = spectra("rank", run, *options, "--out", "out", "--json")
        assert json.loads(pq.read_schema(out).metadata[b"spectra.settings"])["budget_bytes"] == budget
    assert kept(done) == 4


# Settings


CHAIN = """
title = "A chain"

[[connections]]
name = "sequential"
from = "layer"
to = "layer"
next = true

[parameters.layer]
name = "layers.{i}.weight"
kind = "linear"
layout = "out,in"
required = true
"""


SETTINGS: Mapping[str, tuple[str, list[str], list[str], str]] = {
    "include": ("rank", [], ["--include", "layers.[01].*"], "--include was not given and is layers.[01].*"),
    "exclude": ("rank", ["--exclude", "*.0.*"], [], "--exclude was *.0.* and is not given"),
    "transposed": ("rank", [], ["--transposed", "*.1.*"], "--transposed was not given and is *.1.*"),
    "architecture": ("align", [], ["--architecture", "sequential"], "--architecture was not given and is sequential"),
    "heads": ("align", [], ["--heads", "2"], "--heads was not given and is 2"),
    "kv-heads": ("analyze", ["--heads", "2"], ["--heads", "2", "--kv-heads", "1"], "--kv-heads was not given and is 1"),
    "full": ("align", [], ["--full"], "--full"),
    "reference": ("sva", [], ["--reference", "first"], "--reference was final and is first"),
    "against": ("sva", [], ["--against", "other"], "--against was not given and is other"),
}


@pytest.mark.parametrize(("command", "before", "after", "said"), SETTINGS.values(), ids=SETTINGS)
def test_a_setting_that_changes_the_rows_makes_them_anew_and_is_named(
    spectra: Fixture, command: str, before: list[str], after: list[str], said: str
) -> None:
    run, _ = trajectory(), trajectory("other")
    first = spectra(command, run, *before, "--out", "out")
    assert first.status in {0, 3}
    assert "made anew" not in first.err
    done = spectra(command, run, *after, "--out", "out", "--json")
    assert done.status in {0, 3}
    assert kept(done) == 0
    assert said in done.err
    assert "made anew" in done.err
    assert_fresh(spectra, [command, *after], [run], "out")
    assert kept(spectra(command, run, *after, "--out", "out", "--json")) == 4


def test_an_architecture_file_that_is_edited_makes_rows_anew(spectra: Fixture) -> None:
    """Its path is the same; what it says is not."""
    run, described = trajectory(), Path("mine.toml")
    line = ["rank", "--architecture", str(described)]
    described.write_text(CHAIN, encoding="utf-8")
    assert spectra(*line, run, "--out", "out").status == 0
    assert kept(spectra(*line, run, "--out", "out", "--json")) == 4
    described.write_text(CHAIN.replace("out,in", "in,out"), encoding="utf-8")
    done = spectra(*line, run, "--out", "out", "--json")
    assert (done.status, kept(done)) == (0, 0)
    assert "--architecture was " in done.err
    assert_fresh(spectra, line, [run], "out")


def test_settings_that_no_number_depends_on_keep_all_rows(spectra: Fixture) -> None:
    run = trajectory()
    assert spectra("analyze", run, "--out", "out").status == 0
    before = {table: read(path) for table, path in outputs("analyze", "out").items()}
    harmless = ["--memory-budget", "1MB", "--steps", "0:", "--workers", "2", "--device", "cpu", "--quiet"]
    done = spectra("analyze", run, *harmless, "--out", "out", "--json")
    assert (done.status, kept(done)) == (0, 4)
    assert all(read(path).equals(before[table]) for table, path in outputs("analyze", "out").items())


def test_other_tags_keep_the_rows_and_change_the_column(spectra: Fixture) -> None:
    run = trajectory()
    for tags in (["--tag", "seed=1"], ["--tag", "seed=2", "--tag", "lr=3"], []):
        with counted() as work:
            done = spectra("analyze", run, *tags, "--out", "out", "--json")
        assert done.status == 0
        assert (work.opened == []) == (kept(done) == 4) == (tags != ["--tag", "seed=1"])
        assert_fresh(spectra, ["analyze", *tags], [run], "out")


# --verify and --fresh


@pytest.mark.parametrize("line", SOME.values(), ids=SOME)
def test_verify_finds_weights_that_have_changed_behind_size_and_time(spectra: Fixture, line: list[str]) -> None:
    """Without it they are trusted; with it, those that have changed are made anew."""
    run = trajectory()
    assert spectra(*line, run, "--out", "out").status == 0
    rewrite_unnoticed(run, 100, seed=9)
    before = states(line[0], "out")
    assert kept(spectra(*line, run, "--out", "out", "--json")) == 4
    assert states(line[0], "out") == before
    with counted() as work:
        done = spectra(*line, run, "--verify", "--out", "out", "--json")
    assert done.status == 0
    assert_fresh(spectra, line, [run], "out")
    if line == ["rank"]:
        assert (kept(done), work.factorized) == (3, MATRICES)
    with counted() as work:
        done = spectra(*line, run, "--verify", "--out", "out", "--json")
    assert (kept(done), work.factorized) == (4, 0)
    assert set(work.opened) == {path.name for path in run.iterdir()}


@pytest.mark.parametrize("line", [["sva"], ["analyze"]], ids=["sva", "analyze"])
def test_verify_finds_a_reference_that_has_changed(spectra: Fixture, line: list[str]) -> None:
    run = trajectory()
    assert spectra(*line, run, "--out", "out").status == 0
    rewrite_unnoticed(run, 300, seed=9)
    done = spectra(*line, run, "--verify", "--out", "out", "--json")
    assert (done.status, kept(done)) == (0, 0)
    assert_fresh(spectra, line, [run], "out")


def test_verify_trusts_no_table_where_another_is_to_be_made(spectra: Fixture) -> None:
    """With a new final checkpoint, agreement is due; rows of the other tables may be of other weights all the same."""
    run = trajectory()
    assert spectra("analyze", run, "--out", "out").status == 0
    rewrite_unnoticed(run, 100, seed=9)
    rewrite(run, 400, seed=7)
    assert spectra("analyze", run, "--verify", "--out", "out").status == 0
    assert_fresh(spectra, ["analyze"], [run], "out")


def test_verify_looks_at_what_each_table_was_made_of(spectra: Fixture) -> None:
    """Agreement that was made later, of weights changed by then, does not vouch for the rows of other tables."""
    run = trajectory()
    assert spectra("analyze", run, "--out", "out").status == 0
    rewrite_unnoticed(run, 100, seed=9)
    rewrite(run, 400, seed=7)
    assert spectra("analyze", run, "--out", "out").status == 0
    assert spectra("analyze", run, "--verify", "--out", "out").status == 0
    assert_fresh(spectra, ["analyze"], [run], "out")


def test_what_was_said_of_an_earlier_reference_is_not_said_again(spectra: Fixture) -> None:
    run = trajectory()
    step(run, 100).write_bytes(b"no checkpoint")
    said = "nothing is compared with"
    assert said in spectra("analyze", run, "--reference", "100", "--out", "out").err
    for _ in range(2):
        assert said not in spectra("analyze", run, "--reference", "200", "--out", "out").err


def test_a_checkpoint_without_rows_does_not_count_as_kept(spectra: Fixture) -> None:
    """The first has none before it to be compared with."""
    run = trajectory()
    for expected in ("from 3 checkpoints in", "from 3 checkpoints (3 kept) in"):
        assert expected in spectra("sva", run, "--reference", "previous", "--out", "sva.parquet").err


def test_verify_remakes_what_cannot_be_read_any_more(spectra: Fixture) -> None:
    """A checkpoint that is damaged behind its size and time is a row that says so."""
    run = trajectory()
    assert spectra("rank", run, "--out", "out").status == 0
    path = step(run, 100)
    before = path.stat()
    path.write_bytes(b"\xff" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    done = spectra("rank", run, "--verify", "--out", "out", "--json")
    assert (done.status, kept(done)) == (3, 3)
    assert_fresh(spectra, ["rank"], [run], "out")


def test_fresh_starts_over(spectra: Fixture) -> None:
    run = trajectory()
    assert spectra("analyze", run, "--out", "out").status == 0
    with counted() as work:
        done = spectra("analyze", run, "--fresh", "--out", "out", "--json")
    assert (done.status, kept(done), work.factorized) == (0, 0, 4 * MATRICES)
    assert listed("out") == ["align.parquet", "rank.parquet", "sva.parquet"]


def test_fresh_and_verify_exclude_each_other(spectra: Fixture) -> None:
    assert spectra("rank", trajectory(), "--fresh", "--verify").status == 2


# What is not to be replaced


def foreign_text(path: Path) -> None:
    path.write_text("the only copy of my notes")


def foreign_parquet(path: Path) -> None:
    import pandas

    pandas.DataFrame({"loss": [1.0, 2.0]}).to_parquet(path)


def of_another_table(path: Path) -> None:
    assert run_command(["align", "run", "--out", str(path), "--quiet"]) == 0


def of_another_command(path: Path) -> None:
    assert run_command(["analyze", "run", "--out", "tables", "--quiet"]) == 0
    Path("tables/rank.parquet").rename(path)


FOREIGN = (foreign_text, foreign_parquet, of_another_table, of_another_command)


@pytest.mark.parametrize("foreign", FOREIGN)
def test_what_another_has_written_is_replaced_by_fresh_only(spectra: Fixture, foreign: Fixture) -> None:
    run = trajectory()
    foreign(Path("out"))
    before = Path("out").read_bytes()
    refused = spectra("rank", run, "--out", "out")
    assert refused.status == 1
    assert "--fresh" in refused.err
    assert Path("out").read_bytes() == before
    assert not [name for name in listed(".") if name.startswith(".")]
    assert spectra("rank", run, "--out", "out", "--fresh").status == 0
    assert_fresh(spectra, ["rank"], [run], "out")


def test_a_table_of_rank_is_none_of_analyze(spectra: Fixture) -> None:
    """Numbers of the one may differ from the other's in their last digits."""
    run = trajectory()
    Path("out").mkdir()
    assert spectra("rank", run, "--out", "out/rank.parquet").status == 0
    before = Path("out/rank.parquet").read_bytes()
    refused = spectra("analyze", run, "--out", "out")
    assert refused.status == 1
    assert "spectra rank" in refused.err
    assert "--fresh" in refused.err
    assert Path("out/rank.parquet").read_bytes() == before
    assert listed("out") == ["rank.parquet"]


@pytest.mark.parametrize("fresh", [[], ["--fresh"]], ids=["", "fresh"])
def test_what_is_no_table_file_is_never_replaced(spectra: Fixture, fresh: list[str]) -> None:
    """A directory, a pipe, a checkpoint."""
    run = trajectory()
    Path("directory").mkdir()
    os.mkfifo("pipe")
    weights = step(run, 0)
    before = weights.read_bytes()
    for out in ("directory", "pipe", weights):
        done = spectra("rank", run, "--out", out, *fresh)
        assert done.status in {1, 2}
        assert "Traceback" not in done.err
    assert Path("directory").is_dir()
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)
    assert weights.read_bytes() == before


# Files that do not say what they should


def metadata_of(path: Path) -> dict[bytes, bytes]:
    found = pq.read_metadata(path).metadata
    return {key: value for key, value in found.items() if key != b"ARROW:schema"}


def with_metadata(path: Path, **values: str | bytes | None) -> None:
    """Write a table again with other metadata: ``spectra.`` and these names."""
    table, metadata = pq.read_table(path), metadata_of(path)
    for name, value in values.items():
        metadata.pop(f"spectra.{name}".encode(), None)
        if value is not None:
            metadata[f"spectra.{name}".encode()] = value if isinstance(value, bytes) else value.encode()
    pq.write_table(table.replace_schema_metadata(metadata), path)


def test_a_table_of_an_earlier_release_is_made_anew(spectra: Fixture) -> None:
    run = trajectory()
    assert spectra("rank", run, "--out", "now").status == 0
    rows = pq.read_table("now").to_pylist()
    with TableWriter(Path("out"), "rank", metadata={"spectra.version": "0.3.0"}) as writer:
        writer.write(rows[:-1])  # as if it had been made of fewer
    done = spectra("rank", run, "--out", "out", "--json")
    assert (done.status, kept(done)) == (0, 0)
    assert "no record of its settings" in done.err
    assert_fresh(spectra, ["rank"], [run], "out")


GARBAGE: Mapping[str, str | bytes] = {
    "empty": "",
    "no JSON": "{",
    "null": "null",
    "list": "[]",
    "number": "1e999",
    "object": "{}",
    "deep": '{"a": ' * 5000 + "1" + "}" * 5000,
    "huge": '{"command": "' + "x" * 300_000 + '"}',
    "no text": b"\xff\xfe\x00\x01",
    "columns": '{"version": 1, "keys": [["."]], "fingerprints": [5], "contents": [{}], "facts": []}',
    "keys": '{"version": 1, "keys": 7, "fingerprints": "x", "contents": null, "facts": {}}',
    "bomb": "zlib:eNpjYBgFo2AUDHcAAAEAAAE=",
    "schema": '{"command": "rank", "schema": 7, "columns": {"a": []}, "settings": [["--include"]]}',
    "steering": '{"command": "\\u001b[31m\\u0000", "settings": {"\\u001b[2J": "\\u0007"}}',
    "command": '{"command": {"a": ["rank"]}}',
    "many": json.dumps({"command": "rank", "settings": {f"--{'x' * 90}{place}": "y" * 90 for place in range(2000)}}),
}


@pytest.mark.parametrize("name", ["units", "match", "tags", "settings", "version", "command"])
def test_garbage_in_the_metadata_costs_work_at_most(spectra: Fixture, name: str) -> None:
    """Never a wrong row, never a traceback; a table that may be another command's is refused."""
    run = trajectory(steps=(0, 100))
    assert spectra("rank", run, "--out", "before").status == 0
    rewrite(run, 100, seed=9)
    assert spectra("rank", run, "--out", "fresh", "--fresh").status == 0
    for kind, garbage in GARBAGE.items() if name in {"units", "match"} else [("deep", GARBAGE["deep"])]:
        shutil.copy("before", "out")
        with_metadata(Path("out"), **{name: garbage})
        done = spectra("rank", run, "--out", "out", "--json")
        assert "fault of spectra" not in done.err
        assert "\x1b" not in done.err
        assert max(map(len, done.err.splitlines())) < 1500
        if done.status != 0:
            assert (name, kind, done.status) in {("match", "huge", 1), ("match", "steering", 1)}
            assert "--fresh" in done.err
            done = spectra("rank", run, "--out", "out", "--fresh", "--json")
        assert done.status == 0
        assert_same("rank", "out", "fresh")


def with_facts(path: Path, facts: Mapping[str, Any]) -> None:
    """Change what is on record about the units of a table, beside the sums of their rows."""
    from spectra_cli.tables.entries import Entry, read_units, units_metadata

    entries = read_units(metadata_of(path)[b"spectra.units"].decode())
    assert entries
    for key, entry in entries.items():
        entries[key] = Entry(entry.fingerprint, entry.content, {**entry.facts, **facts})
    with_metadata(path, units=units_metadata(entries))


@pytest.mark.parametrize("command", ["align", "analyze"])
def test_verify_trusts_no_time_of_a_configuration_either(spectra: Fixture, command: str) -> None:
    """The numbers of heads are in it. What was verified is kept with the configuration as it is."""
    width, run = 8, Path("run")
    names = {"q": (1, 1), "k": (1, 1), "v": (1, 1), "o": (1, 1)}
    weights = {
        f"model.layers.0.self_attn.{name}_proj.weight": torch.randn(rows * width, cols * width)
        for name, (rows, cols) in names.items()
    }
    save(run / "step_1.safetensors", weights)
    config = run / "config.json"
    config.write_text('{"model_type": "llama", "num_attention_heads": 2}')
    before = config.stat()
    line = [command, run, "--reference", "first"] if command == "analyze" else [command, run]
    assert spectra(*line, "--out", "out").status == 0
    config.write_text('{"model_type": "llama", "num_attention_heads": 4}')
    os.utime(config, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert kept(spectra(*line, "--out", "out", "--json")) == 1, "nothing seems to have changed"
    verified = spectra(*line, "--out", "out", "--verify", "--json")
    assert (verified.status, kept(verified)) == (0, 0)
    assert_fresh(spectra, line[:1] + line[2:], [run], "out")
    assert kept(spectra(*line, "--out", "out", "--verify", "--json")) == 1


@pytest.mark.parametrize(
    "facts",
    [
        {"transposed": 5},
        {"transposed": {"a": [1]}, "parameters": "x"},
        {"parameters": [1, None]},
        {"parameters": None, "remarks": "abc"},
        {"remarks": {"once": "a"}},
        {"remarks": [1, [], ["once"], ["once", 5], [["once"], "a"], ["none", "a"], ["once", "a", "b"]]},
    ],
)
def test_garbage_in_the_facts_is_no_fault(spectra: Fixture, facts: dict[str, Any]) -> None:
    """The rows are those that were written, so they are kept."""
    run = trajectory(steps=(0, 100))
    line = ["align", "--transposed", "*.1.*"]
    spectra(*line, run, "--out", "out")
    with_facts(Path("out"), facts)
    done = spectra(*line, run, "--out", "out", "--json")
    assert "fault of spectra" not in done.err
    assert (done.status, kept(done)) == (0, 2)
    assert_fresh(spectra, line, [run], "out")


def test_remarks_on_record_are_told_again(spectra: Fixture) -> None:
    """One that many checkpoints have is told of the first, and counted."""
    run = trajectory(steps=(0, 100))
    spectra("align", run, "--out", "out")
    with_facts(Path("out"), {"remarks": [["once", "planted for all"], ["checkpoint", "planted for each"]]})
    done = spectra("align", run, "--out", "out", "--json")
    assert kept(done) == 2
    assert [done.err.count(f"planted for {whom}") for whom in ("all", "each")] == [1, 2]


def test_rows_that_somebody_has_taken_out_come_again(spectra: Fixture) -> None:
    """`pyarrow` keeps the metadata of a table that is filtered and saved again: it still tells of all units."""
    run = trajectory()
    assert spectra("analyze", run, "--out", "out").status == 0
    for name in trajectories.TABLES:
        path = outputs("analyze", "out")[name]
        metadata, table = metadata_of(path), pq.read_table(path)
        steps, parameter = table["step"].to_numpy(), table["downstream" if name == "align" else "parameter"].to_pylist()
        good = [
            place
            for place in range(len(table))
            if steps[place] != 100 and (steps[place], parameter[place]) != (200, "layers.2.weight")
        ]
        pq.write_table(table.take(good).replace_schema_metadata(metadata), path)
    assert spectra("analyze", run, "--out", "out").status == 0
    assert_fresh(spectra, ["analyze"], [run], "out")


def test_rows_in_another_order_come_as_they_should(spectra: Fixture) -> None:
    run = trajectory()
    assert spectra("rank", run, "--out", "out").status == 0
    table = pq.read_table("out")
    pq.write_table(table.sort_by("parameter").replace_schema_metadata(metadata_of(Path("out"))), "out")
    step(run, 100).unlink()
    assert spectra("rank", run, "--out", "out").status == 0
    assert_fresh(spectra, ["rank"], [run], "out")


def test_a_damaged_table_costs_its_rows_at_most(spectra: Fixture) -> None:
    """Wherever bytes of it are changed or missing: either it is made anew, or it is said what to do."""
    run = trajectory(steps=(0, 100))
    assert spectra("rank", run, "--out", "before").status == 0
    rewrite(run, 100, seed=9)
    assert spectra("rank", run, "--out", "fresh", "--fresh").status == 0
    content = Path("before").read_bytes()
    lengths = [0, 4, len(content) // 2, len(content) - 1]
    damaged = [content[:length] for length in lengths]
    for start in range(4, len(content) - 4, len(content) // 12):
        changed = bytes(byte ^ 0x10 for byte in content[start : start + 3])
        damaged.append(content[:start] + changed + content[start + 3 :])
    for each in damaged:
        Path("out").write_bytes(each)
        done = spectra("rank", run, "--out", "out", "--json")
        assert "fault of spectra" not in done.err
        if done.status == 1:
            assert "--fresh" in done.err or "Move this file away" in done.err
            Path("out").unlink()
            done = spectra("rank", run, "--out", "out")
        assert done.status == 0
        assert_same("rank", "out", "fresh")


@pytest.mark.parametrize("table", trajectories.TABLES)
def test_a_table_of_three_that_is_gone_comes_again(spectra: Fixture, table: str) -> None:
    run = trajectory(steps=(0, 100))
    assert spectra("analyze", run, "--out", "out").status == 0
    outputs("analyze", "out")[table].unlink()
    assert spectra("analyze", run, "--out", "out").status == 0
    assert_fresh(spectra, ["analyze"], [run], "out")


# What could not be used


@pytest.mark.parametrize("line", SOME.values(), ids=SOME)
def test_a_checkpoint_that_is_mended_gets_its_rows(spectra: Fixture, line: list[str]) -> None:
    """What failed is tried again every time; a directory whose shard is back too."""
    run = trajectory()
    good = step(run, 100).read_bytes()
    step(run, 100).write_bytes(good[:-9])
    for count in range(2):
        done = spectra(*line, run, "--out", "out", "--json")
        assert done.status == 3
        assert (kept(done) > 0) == (count > 0)
        fresh = assert_fresh(spectra, line, [run], "out")
        assert sorted(problems(done)) == sorted(problems(fresh))
    step(run, 100).write_bytes(good)
    assert spectra(*line, run, "--out", "out").status == 0
    assert_fresh(spectra, line, [run], "out")


def test_a_shard_that_is_restored_is_found(spectra: Fixture) -> None:
    run = trajectory(steps=(0, 100))
    sharded, weights = run / "step_200", chain(SIZES, seed=5)
    for shard, names in (
        ("a.safetensors", ("layers.0.weight",)),
        ("b.safetensors", ("layers.1.weight", "layers.2.weight")),
    ):
        save(sharded / shard, {name: weights[name] for name in names})
    index = {"layers.0.weight": "a.safetensors", "layers.1.weight": "b.safetensors", "layers.2.weight": "b.safetensors"}
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    away = (sharded / "b.safetensors").rename("b.safetensors")
    done = spectra("analyze", run, "--skip-incomplete", "--out", "out", "--json")
    assert done.status == 3
    away.rename(sharded / "b.safetensors")
    assert spectra("analyze", run, "--skip-incomplete", "--out", "out").status == 0
    assert_fresh(spectra, ["analyze"], [run], "out")


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_permission_that_is_given_is_found(spectra: Fixture) -> None:
    run = trajectory()
    step(run, 100).chmod(0)
    assert spectra("rank", run, "--out", "out").status == 3
    step(run, 100).chmod(0o644)
    assert spectra("rank", run, "--out", "out").status == 0
    assert_fresh(spectra, ["rank"], [run], "out")


def troubled(run: Path) -> Path:
    """A run with a bit of everything that is told of, and can be kept."""
    spoilt = chain(SIZES, seed=2)
    spoilt["layers.1.weight"][0, 0] = torch.nan
    save(step(run, 100), spoilt)
    zero = chain(SIZES, seed=3)
    zero["layers.0.weight"].zero_()
    save(step(run, 150), zero)
    save(step(run, 200), chain((10, 9, 11, 7), seed=4))
    save(step(run, 250), {"a.weight": separated(5, 4, 1), "b.weight": separated(9, 8, 2)})
    save(step(run, 300), {"a.weight": separated(5, 4, 1), "bias": torch.ones(3)})
    return run


@pytest.mark.parametrize("line", COMMANDS.values(), ids=COMMANDS)
def test_warnings_and_status_of_kept_rows_are_those_of_a_fresh_run(spectra: Fixture, line: list[str]) -> None:
    """Which checkpoint is named for all that have the same may depend on the order of the work."""
    run = troubled(trajectory())
    first = spectra(*line, run, "--out", "out", "--json")
    before = states(line[0], "out")
    with counted() as work:
        again = spectra(*line, run, "--out", "out", "--json")
    unusable = [step(run, 300).name] if line == ["align"] else []  # no matrix of it feeds another
    assert work.opened == unusable
    assert kept(again) == 6 - len(unusable)
    assert (first.status, again.status) == (3, 3)
    assert (states(line[0], "out") == before) == (not unusable)
    assert {_nameless(message) for message in problems(first)} == {_nameless(message) for message in problems(again)}


def _nameless(message: str) -> str:
    """A warning without the checkpoint and the matrices that stand for others."""
    import re

    return re.sub(r" \([^)]*\): ", ": ", re.sub(r"^\S*?step_\d+\.safetensors: ", "", message))


def test_checkpoints_that_a_table_cannot_tell_apart_are_refused(spectra: Fixture) -> None:
    """A name that is no text is written with escapes, as another name may be: rows of the one would be the other's."""
    run = trajectory(steps=(0,))
    try:
        shutil.copy(step(run, 0), run / os.fsdecode(b"step_1_\xff.safetensors"))
    except OSError:
        pytest.skip("the file system takes only text")
    assert spectra("rank", run, "--out", "out").status == 0
    rewrite(run, 1, seed=2).rename(run / r"step_1_\udcff.safetensors")
    done = spectra("rank", run, "--out", "out")
    assert done.status == 1
    assert "Rename one of the two." in done.err


# Any sequence of edits

ACTION = st.tuples(
    st.sampled_from(["add", "remove", "rewrite", "copy", "touch", "break"]),
    st.integers(0, 5),
    st.integers(0, 5),
)


def edited(run: Path, action: tuple[str, int, int]) -> None:
    """Do something to a run: to a step, with another one or a seed."""
    what, number, other = action
    path = step(run, number)
    match what:
        case "remove":
            if len(list(run.iterdir())) > 1:
                path.unlink(missing_ok=True)
        case "touch" if path.exists():
            os.utime(path, ns=(1, path.stat().st_mtime_ns + 10**9))
        case "copy" if path.exists() and number != other:
            shutil.copy(path, step(run, other))
        case "break" if path.exists() and len(list(run.iterdir())) > 1:
            path.write_bytes(path.read_bytes()[:-other] if other else path.read_bytes())
        case _:
            rewrite(run, number, seed=other)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    line=st.sampled_from([COMMANDS[name] for name in ("rank", "analyze", "analyze previous")]),
    bursts=st.lists(st.lists(ACTION, min_size=1, max_size=3), min_size=1, max_size=3),
)
def test_after_any_edits_the_table_is_that_of_a_fresh_run(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    line: list[str],
    bursts: list[list[tuple[str, int, int]]],
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("edits"))
    run = trajectory(steps=(0, 1, 2))
    for burst in bursts:
        for action in burst:
            edited(run, action)
        statuses = {run_command([*line, str(run), "--out", "out", "-q"])}
        shutil.rmtree("fresh", ignore_errors=True)
        Path("fresh").mkdir()
        statuses.add(run_command([*line, str(run), "--out", "fresh/out", "--fresh", "-q"]))
        assert len(statuses) == 1
        if statuses == {1}:  # not one checkpoint could be used, or none has another to compare with
            return
        assert_same(line[0], "out", "fresh/out")


def test_the_columns_are_those_of_this_release(spectra: Fixture) -> None:
    """Rows of another version of the columns are none of this one: their file says which it is."""
    run = trajectory(steps=(0, 100))
    assert spectra("rank", run, "--out", "out").status == 0
    match = json.loads(metadata_of(Path("out"))[b"spectra.match"])
    assert match["schema"] == f"rank/{SCHEMA_VERSION}"
    with_metadata(Path("out"), match=json.dumps({**match, "schema": "rank/0"}))
    done = spectra("rank", run, "--out", "out", "--json")
    assert (done.status, kept(done)) == (0, 0)
    assert "meaning" in done.err
    assert read(Path("out")).num_rows == 2 * MATRICES
