"""`spectra align`, `sva` and `analyze` as commands: files, exit statuses, and what people and programs are told."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from spectra_cli import __version__
from spectra_cli.tables.schemas import SCHEMA_VERSION, arrow_schema
from tests.analyses.formulas import chain, save, save_run, separated

Fixture = Callable[..., Any]
FIXTURES = Path(__file__).parents[2] / "fixtures"
TABLES = ("rank", "align", "sva")
COMMANDS = ("align", "sva", "analyze")
SIZES = (8, 7, 6, 5)


def trajectory(name: str = "run", steps: tuple[int, ...] = (0, 100, 200)) -> Path:
    return save_run(Path(name), {step: chain(SIZES, seed=step) for step in steps})


def attention(path: Path, config: dict[str, int] | None = None) -> Path:
    """One block of a model with attention."""
    weights: dict[str, Tensor] = {
        f"layers.0.self_attn.{name}_proj.weight": separated(8, 8, seed) for seed, name in enumerate("qkvo")
    }
    weights |= {f"layers.0.mlp.{name}_proj.weight": separated(12, 8, 9) for name in ("gate", "up")}
    weights["layers.0.mlp.down_proj.weight"] = separated(8, 12, 10)
    save(path / "model.safetensors", weights)
    if config is not None:
        (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return path


def with_nan(path: Path) -> None:
    """Spoil the second of three layers."""
    weights = chain(SIZES, seed=1)
    weights["layers.1.weight"][0, 0] = math.nan
    save(path, weights)


def outputs(command: str) -> list[Path]:
    """Where a command writes unless told otherwise."""
    return (
        [Path(f"{command}.parquet")] if command != "analyze" else [Path(f"analyze/{table}.parquet") for table in TABLES]
    )


# What comes out


def test_analyze_writes_what_the_three_commands_write(spectra: Fixture, table: Fixture) -> None:
    """To the same rows in the same order; singular values within the bounds that both state."""
    run = FIXTURES / "cnn"
    assert spectra("analyze", run, "--out", "tables", "--every", "2").status == 0
    assert sorted(path.name for path in Path("tables").iterdir()) == ["align.parquet", "rank.parquet", "sva.parquet"]
    for name in TABLES:
        assert spectra(name, run, "--every", "2").status == 0
        ours, theirs = table(f"tables/{name}.parquet"), table(f"{name}.parquet")
        assert len(ours) == len(theirs) > 0
        for one, other in zip(ours, theirs, strict=True):
            for column in one:
                if column in {"method", "singular_value_error"}:  # the cheapest that also gives vectors is another
                    continue
                allowed = 1e-6 if name != "rank" else 1e-5 * (one["spectral_norm"] + 1)
                if isinstance(one[column], (float, list)):
                    assert one[column] == pytest.approx(other[column], abs=allowed, rel=1e-5, nan_ok=True), column
                else:
                    assert one[column] == other[column], column


@pytest.mark.parametrize("command", COMMANDS)
def test_columns_metadata_and_tags_are_those_of_the_schema(spectra: Fixture, table: Fixture, command: str) -> None:
    arguments = [command, str(trajectory()), "--tag", "seed=1", "--tag", "lr=0.1", "--memory-budget", "1GiB"]
    assert spectra(*arguments).status == 0
    for path in outputs(command):
        schema = pq.read_schema(path)
        name = path.stem
        assert schema.equals(arrow_schema(name, {"seed": "", "lr": ""}, leave_out=("alignment", "variant")))
        assert schema.names[-2:] == ["seed", "lr"]
        assert {(row["seed"], row["lr"]) for row in table(path)} == {("1", "0.1")}
        metadata = {key.decode(): value.decode() for key, value in schema.metadata.items()}
        assert metadata["spectra.schema"] == f"{name}/{SCHEMA_VERSION}"
        assert metadata["spectra.version"] == __version__
        assert metadata["spectra.torch"] == torch.__version__
        assert metadata["spectra.device"].startswith(("cpu", "cuda", "mps"))
        assert shlex.split(metadata["spectra.command"]) == ["spectra", *arguments]
        settings = json.loads(metadata["spectra.settings"])
        assert (settings["budget_bytes"], settings["full"], settings["reference"]) == (1 << 30, False, None)
        assert settings["tags"] == {"seed": "1", "lr": "0.1"}


def test_full_adds_the_block_to_align_and_to_no_other_table(spectra: Fixture, table: Fixture) -> None:
    assert spectra("analyze", trajectory(), "--full").status == 0
    for name in TABLES:
        assert ("alignment" in pq.read_schema(f"analyze/{name}.parquet").names) == (name == "align")
    for row in table("analyze/align.parquet"):
        assert [entries[place] for place, entries in enumerate(row["alignment"][: len(row["diagonal"])])] == row[
            "diagonal"
        ]


def test_rows_are_in_the_order_of_runs_steps_and_the_model(spectra: Fixture, table: Fixture) -> None:
    """Also where the reference, which comes last, is analysed first."""
    for name in ("runs/b", "runs/a"):
        trajectory(name, (200, 0, 1000))
    assert spectra("analyze", "runs").status == 0
    for name, layers in (("rank", 3), ("align", 2), ("sva", 3)):
        found = [(row["run"], row["step"], row["depth"]) for row in table(f"analyze/{name}.parquet")]
        expected = [(run, step, depth) for run in "ab" for step in (0, 200, 1000) for depth in range(layers)]
        assert found == expected


def test_include_restricts_all_three(spectra: Fixture, table: Fixture) -> None:
    arguments = ("--include", "layers.*", "--exclude", "layers.0.*")
    assert spectra("analyze", trajectory(), *arguments).status == 0
    found = {name: table(f"analyze/{name}.parquet") for name in TABLES}
    for name in ("rank", "sva"):
        assert {row["parameter"] for row in found[name]} == {"layers.1.weight", "layers.2.weight"}
    assert {(row["upstream"], row["downstream"]) for row in found["align"]} == {("layers.1.weight", "layers.2.weight")}


# What is told


@pytest.mark.parametrize("command", COMMANDS)
def test_closing_lines_name_files_and_counts_and_stdout_stays_empty(spectra: Fixture, command: str) -> None:
    outcome = spectra(command, trajectory())
    assert (outcome.status, outcome.out) == (0, "")
    assert outcome.widest <= 80
    closing = outcome.err.splitlines()[-len(outputs(command)) :]
    for line, path in zip(closing, outputs(command), strict=True):
        rows = 6 if path.stem == "align" else 9
        assert re.fullmatch(rf"{re.escape(str(path))}: {rows} rows from 3 checkpoints( in \d+\.\d s)?", line)
    assert re.search(r" in \d+\.\d s$", closing[-1])
    titles = {"rank": "Effective rank", "align": "Alignment score", "sva": "Agreement with step_200.safetensors"}
    for path in outputs(command):
        assert titles[path.stem] in outcome.err


@pytest.mark.parametrize("command", COMMANDS)
def test_quiet_prints_nothing(spectra: Fixture, command: str) -> None:
    outcome = spectra(command, trajectory(), "--quiet")
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")
    assert all(path.is_file() for path in outputs(command))


@pytest.mark.parametrize("command", ["align", "sva"])
def test_json_is_one_document_about_the_table(spectra: Fixture, command: str) -> None:
    outcome = spectra(command, trajectory(), "--json", "--quiet")
    said = json.loads(outcome.out)
    assert (outcome.status, outcome.err) == (0, "")
    assert (said["table"], said["out"], said["problems"]) == (command, f"{command}.parquet", [])
    assert said["rows"] == said["statuses"]["ok"] == (6 if command == "align" else 9)
    (run,) = said["runs"]
    assert (run["run"], run["checkpoints"]) == (".", 3)
    if command == "align":
        (connection,) = run["connections"]
        assert (connection["connection"], connection["pairs"]) == ("sequential", 2)
    else:
        assert run["reference_checkpoint"] == "step_200.safetensors"
        assert run["last_checkpoint"] == "step_100.safetensors", "the reference says nothing about itself"
        assert all(0.0 <= matrix["score_last"] < 1.0 for matrix in run["matrices"])


def test_json_of_analyze_lists_its_tables_and_tells_problems_once(spectra: Fixture) -> None:
    run = trajectory()
    with_nan(run / "step_0.safetensors")
    outcome = spectra("analyze", run, "--json")
    assert outcome.status == 3
    said = json.loads(outcome.out)
    assert [each["table"] for each in said["tables"]] == list(TABLES)
    assert [each["out"] for each in said["tables"]] == [f"analyze/{name}.parquet" for name in TABLES]
    assert [each["statuses"] for each in said["tables"]] == [
        {"ok": 8, "not_finite": 1},
        {"ok": 4, "not_finite": 2},
        {"ok": 8, "not_finite": 1},
    ]
    (problem,) = said["problems"]
    assert "1 of 3 matrices not_finite (layers.1.weight)" in problem
    assert problem in outcome.err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_that_runs(spectra: Fixture, command: str) -> None:
    shown = spectra(command, "--help")
    assert shown.status == 0
    (example,) = re.findall(r"Example: spectra (.*?)[│\s]*\n", shown.out)
    trajectory("runs/a")
    outcome = spectra(*shlex.split(example))
    assert (outcome.status, outcome.out) == (0, "")


# Exit statuses


def test_a_model_whose_layers_do_not_meet_is_no_fault(spectra: Fixture, table: Fixture) -> None:
    """Each pair is a row and is told of, and the exit status is 0: it is so in the model."""
    weights = chain(SIZES)
    weights["layers.2.weight"] = separated(5, 9, 3)
    save_run(Path("run"), {0: weights, 1: weights})
    for command in ("align", "analyze"):
        outcome = spectra(command, "run")
        assert outcome.status == 0
        assert "1 of 2 rows shape_mismatch (layers.1.weight -> layers.2.weight)" in outcome.err
        assert "2 of 4 rows not ok: shape_mismatch (2)" in outcome.err
    assert [row["status"] for row in table("align.parquet")] == ["ok", "shape_mismatch"] * 2


def test_a_reference_of_another_shape_is_told_also_beside_layers_that_do_not_meet(spectra: Fixture) -> None:
    """The status is the same, the matter is another."""
    weights = chain(SIZES)
    weights["layers.2.weight"] = separated(5, 9, 3)
    save_run(Path("run"), {0: weights, 1: {**weights, "layers.1.weight": separated(6, 9, 4)}})
    outcome = spectra("analyze", "run")
    assert outcome.status == 3
    assert "1 of 3 matrices shape_mismatch (layers.1.weight): the two checkpoints have them in different" in outcome.err
    assert "1 of 2 rows shape_mismatch (layers.1.weight -> layers.2.weight): their dimensions do not" in outcome.err


def test_unknown_heads_are_3_and_heads_mend_them(spectra: Fixture, table: Fixture) -> None:
    attention(Path("model"))
    for command in ("align", "analyze"):
        outcome = spectra(command, "model")
        assert outcome.status == 3
        assert "no_head_count" in outcome.err
        assert "--heads" in outcome.err
        assert spectra(command, "model", "--heads", "4").status == 0
    assert {row["status"] for row in table("align.parquet")} == {"ok"}
    attention(Path("grouped"), {"num_attention_heads": 4})
    assert spectra("align", "grouped").status == 0
    assert spectra("align", "grouped", "--kv-heads", "3").status == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["align", "run", "--heads", "6", "--kv-heads", "4"], "--heads 6 is no multiple of --kv-heads 4"),
        (["align", "run", "--heads", "0"], "--heads 0 is no number of heads"),
        (["align", "run", "--architecture", "absent"], "absent"),
        (["align", "run", "--tag", "score=1"], "--tag score"),
        (["analyze", "run", "--tag", "connection=1"], "--tag connection"),
        (["sva", "run", "--reference", "last"], "--reference last is no checkpoint"),
        (["sva", "run", "--reference", "first", "--against", "run"], "exclude each other"),
        (["sva", "run", "--against", "runs"], "--against runs holds 2 runs"),
        (["analyze", "run", "--against", "runs"], "--against runs holds 2 runs"),
        (["sva", "run", "--out", "sva.csv"], "Parquet"),
        (["rank", "run", "--heads", "4"], "--heads"),
        (["sva", "run", "--heads", "4"], "--heads"),
        (["align", "run", "--reference", "first"], "--reference"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_contradicts_itself_is_2_and_writes_nothing(spectra: Fixture, arguments: list[str], message: str) -> None:
    trajectory()
    for name in ("runs/a", "runs/b"):
        trajectory(name)
    outcome = spectra(*arguments)
    assert (outcome.status, outcome.out) == (2, "")
    assert message in outcome.err
    assert not list(Path().rglob("*.parquet"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["align", "absent"], "absent"),
        (["analyze", "run", "--include", "absent.*"], "no matrix is left by --include absent.*"),
        (["align", "one"], "no matrix feeds another one"),
        (["align", "run/step_0.safetensors", "--include", "layers.1.*"], "both ends"),
        (["sva", "run", "--reference", "150"], "no run has that step"),
        (["sva", "run@100", "--reference", "previous"], "only one checkpoint"),
        (["sva", "run", "--against", "absent"], "absent"),
        (["sva", "bad"], "nothing to compare with"),
        (["sva", "bad@0"], "nothing to compare with"),
        (["sva", "run", "--against", "bad@200"], "nothing to compare with"),
        (["analyze", "run", "--out", "absent/tables"], "the directory cannot be made"),
        (["analyze", "run", "--out", "run/step_0.safetensors"], "the directory cannot be made"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_where_nothing_can_be_done_it_is_1_and_writes_nothing(
    spectra: Fixture, arguments: list[str], message: str
) -> None:
    trajectory()
    (trajectory("bad") / "step_200.safetensors").write_bytes(b"")
    save_run(Path("one"), {0: chain([8, 7])})
    outcome = spectra(*arguments)
    assert (outcome.status, outcome.out) == (1, "")
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert not list(Path().rglob("*.parquet"))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_matrix_that_is_not_finite_is_3(spectra: Fixture, table: Fixture, command: str) -> None:
    with_nan(trajectory() / "step_100.safetensors")
    outcome = spectra(command, "run")
    assert outcome.status == 3
    spoilt = {"rank": 1, "align": 2, "sva": 1}
    for path in outputs(command):
        statuses = [row["status"] for row in table(path)]
        assert statuses.count("not_finite") == spoilt[path.stem]
        assert statuses.count("ok") == len(statuses) - spoilt[path.stem]


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unreadable_checkpoint_is_a_row_of_every_table(spectra: Fixture, table: Fixture, command: str) -> None:
    (trajectory() / "step_100.safetensors").write_bytes(b"")
    outcome = spectra(command, "run")
    assert outcome.status == 3
    assert outcome.err.count("step_100.safetensors: the file is empty") == 1
    for path in outputs(command):
        bad = [row for row in table(path) if row["step"] == 100]
        assert [row["status"] for row in bad] == ["corrupt"]
        assert {row["status"] for row in table(path) if row["step"] != 100} == {"ok"}


def test_an_unreadable_reference_is_3_where_something_else_was_done(spectra: Fixture, table: Fixture) -> None:
    """Analyze has two more tables; a run beside it is compared; each agreement that is not there is a row."""
    trajectory("runs/good")
    (trajectory("runs/bad") / "step_200.safetensors").write_bytes(b"")
    assert spectra("analyze", "runs/bad", "--steps", ":100").status == 3
    assert {row["status"] for row in table("analyze/rank.parquet")} == {"ok"}
    compared = table("analyze/sva.parquet")
    assert [(row["step"], row["reference_step"], row["status"]) for row in compared] == [
        (0, 200, "reference_corrupt"),
        (100, 200, "reference_corrupt"),
    ]
    outcome = spectra("sva", "runs")
    assert outcome.status == 3
    assert outcome.err.count("the file is empty") == 1
    found = table("sva.parquet")
    assert {(row["run"], row["status"]) for row in found} == {
        ("good", "ok"),
        ("bad", "reference_corrupt"),
        ("bad", "corrupt"),
    }


def test_runs_that_share_little_are_3(spectra: Fixture, table: Fixture) -> None:
    trajectory("one", (0, 100))
    save_run(Path("other"), {100: chain([8, 7]), 300: chain([8, 7])})
    outcome = spectra("sva", "one", "--against", "other")
    assert outcome.status == 3
    assert "there is no checkpoint of the same step to compare with one/step_0.safetensors" in outcome.err
    assert "2 of 3 matrices missing (layers.1.weight, layers.2.weight)" in outcome.err
    statuses = [(row["step"], row["status"]) for row in table("sva.parquet")]
    assert statuses == [(0, "missing"), (100, "ok"), (100, "missing"), (100, "missing")]
    trajectory("late", (500, 600))
    outcome = spectra("sva", "one", "--against", "late")
    assert outcome.status == 0
    assert "the two runs have no step in common; only their last are compared: " in outcome.err
    assert [row["reference_step"] for row in table("sva.parquet")] == [600] * 3


def test_an_incomplete_reference_is_1_unless_it_is_skipped(spectra: Fixture, table: Fixture) -> None:
    trajectory()
    shards = Path("run/checkpoint-300")
    save(shards / "model-00001-of-00002.safetensors", {"layers.0.weight": separated(7, 8, 1)})
    weight_map = {f"layers.{layer}.weight": f"model-0000{1 + (layer > 0)}-of-00002.safetensors" for layer in range(3)}
    (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    for arguments in (["run"], ["run@0"]):
        outcome = spectra("sva", *arguments)
        assert outcome.status == 1
        assert "--skip-incomplete" in outcome.err
    assert spectra("analyze", "run@0", "--skip-incomplete").status == 3
    assert [row["status"] for row in table("analyze/sva.parquet")] == ["reference_incomplete"]
    assert {row["status"] for row in table("analyze/rank.parquet")} == {"ok"}


def test_a_model_without_connections_is_a_row_of_align_beside_other_tables(spectra: Fixture, table: Fixture) -> None:
    """Alone it is an error (see above): there is nothing else to show."""
    save_run(Path("one"), {0: chain([8, 7]), 1: chain([8, 7], seed=1)})
    outcome = spectra("analyze", "one")
    assert outcome.status == 3
    assert outcome.err.count("no matrix feeds another one") == 2  # once, and that it is so in all others
    assert [(row["step"], row["status"]) for row in table("analyze/align.parquet")] == [
        (0, "no_connections"),
        (1, "no_connections"),
    ]
    for name in ("rank", "sva"):
        assert {row["status"] for row in table(f"analyze/{name}.parquet")} == {"ok"}


# Files


@pytest.mark.parametrize("command", COMMANDS)
def test_a_failure_leaves_older_tables_as_they_were(spectra: Fixture, command: str) -> None:
    run = trajectory()
    assert spectra(command, run).status == 0
    before = {path: path.read_bytes() for path in outputs(command)}
    for path in run.iterdir():
        path.write_bytes(b"")
    assert spectra(command, run).status == 1
    assert {path: path.read_bytes() for path in outputs(command)} == before
    assert {path for path in outputs(command)[0].parent.iterdir() if path.is_file()} == set(outputs(command))


def test_a_table_that_cannot_be_written_stops_before_any_work(spectra: Fixture) -> None:
    trajectory()
    Path("analyze/sva.parquet").mkdir(parents=True)
    outcome = spectra("analyze", "run")
    assert outcome.status == 1
    assert "analyze/sva.parquet: this is a directory" in outcome.err
    assert [path.name for path in Path("analyze").iterdir()] == ["sva.parquet"]


def test_no_directory_is_made_where_there_is_nothing_to_do(spectra: Fixture) -> None:
    assert spectra("analyze", "absent", "--out", "tables").status == 1
    assert not Path("tables").exists()
