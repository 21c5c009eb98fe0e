"""`spectra barrier` on a command line: what it writes, prints, refuses, and with which exit status it ends."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from spectra_cli.tables.schemas import arrow_schema
from spectra_cli.tasks.modular_addition import ModularAddition
from tests.analyses import tiny_tasks

Fixture = Callable[..., Any]
SIZES = {"prime": 5, "d_model": 4, "num_heads": 2, "mlp": 6}
MLP = f"{tiny_tasks.__file__}:mlp"


def make_addition(name: str, seed: int, options: Mapping[str, Any] = SIZES, **changes: Any) -> str:
    """A run as `spectra train` leaves it, with random weights."""
    torch.manual_seed(seed)
    state = ModularAddition(**{**options, **changes}).model().state_dict()
    Path(name).mkdir(parents=True)
    for step in (0, 400):
        save_file({key: tensor * (1 + step) for key, tensor in state.items()}, f"{name}/step_{step}.safetensors")
    record = {"task": "modular-addition", "options": {**options, **changes}, "seed": seed}
    Path(name, "run.json").write_text(json.dumps(record))
    return name


@pytest.fixture
def runs() -> None:
    for seed, name in enumerate("abc"):
        make_addition(f"runs/{name}", seed)


def lines_of(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.strip()]


@pytest.mark.usefixtures("runs")
def test_two_runs_need_nothing_more(spectra: Fixture, table: Fixture) -> None:
    outcome = spectra("barrier", "runs/a", "runs/b")
    assert (outcome.status, outcome.out) == (0, "")
    rows = table("barrier.parquet")
    assert list(rows[0]) == arrow_schema("barrier").names
    assert len(rows) == 2 * 2 * 11
    assert {(row["run_a"], row["step_a"], row["run_b"], row["step_b"]) for row in rows} == {
        ("runs/a", 400, "runs/b", 400)
    }
    settings = json.loads(pq.read_schema("barrier.parquet").metadata[b"spectra.settings"])
    assert settings["tasks"] == [{"task": "modular-addition", "options": SIZES}]
    assert settings["batch_norm"] == "reestimate"


@pytest.mark.usefixtures("runs")
def test_the_summary_shows_the_numbers_of_the_table(spectra: Fixture, table: Fixture) -> None:
    outcome = spectra("barrier", "runs/a", "runs/b@0", "--alphas", "4")
    rows = table("barrier.parquet")
    said = lines_of(outcome.err)
    assert said[0] == ["Barrier", "between", "runs/a@400", "and", "runs/b@0"]
    assert said[1] == ["metric", "at", "A", "at", "0.33", "at", "B", "barrier", "over", "midpoint"]
    for index, (split, metric) in enumerate([("train", "loss"), ("train", "error"), ("val", "loss"), ("val", "error")]):
        at_a, third, _, at_b = [row for row in rows if (row["split"], row["metric"]) == (split, metric)]
        numbers = (at_a["value"], third["value"], at_b["value"], at_a["barrier"], at_a["barrier_midpoint"])
        assert said[2 + index] == [split, metric, *(f"{number:.4g}" for number in numbers)]
    (title,) = [line for line in outcome.err.splitlines() if line.startswith("Agreement of A and B")]
    assert title.endswith("over 6 matrices")
    assert "... and 1 smaller one" in outcome.err
    assert outcome.err.splitlines()[-1].startswith("barrier.parquet: 16 rows from 1 pair in ")
    assert outcome.widest <= 80


@pytest.mark.usefixtures("runs")
def test_the_agreement_of_the_ends_is_that_of_sva(spectra: Fixture, table: Fixture) -> None:
    spectra("sva", "runs/a@400", "--against", "runs/b")
    scores = {row["parameter"]: row["score"] for row in table("sva.parquet")}
    outcome = spectra("barrier", "runs/b", "runs/a", "--alphas", "2", "--json", "--quiet")
    (pair,) = json.loads(outcome.out)["pairs"]
    assert outcome.err == ""
    found = {matrix["parameter"]: matrix["score"] for matrix in pair["matrices"]}
    assert found == pytest.approx(scores, abs=1e-6)
    assert pair["agreement"] == pytest.approx(sum(scores.values()) / len(scores), abs=1e-6)
    sizes = [matrix["rows"] * matrix["cols"] for matrix in pair["matrices"]]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.usefixtures("runs")
def test_a_run_has_no_barrier_with_itself(spectra: Fixture, table: Fixture) -> None:
    assert spectra("barrier", "runs/a", "runs/a", "--alphas", "3").status == 0
    for row in table("barrier.parquet"):
        assert row["barrier"] == row["barrier_interior"] == row["barrier_midpoint"] == row["excess"] == 0.0


@pytest.mark.usefixtures("runs")
def test_a_file_of_pairs_is_a_table_and_a_line_for_each(spectra: Fixture, table: Fixture) -> None:
    Path("pairs.csv").write_text("a,b\nruns/a,runs/b\n# seeds\nruns/a@0,runs/c\nruns/b,runs/b\n")
    outcome = spectra("barrier", "--pairs", "pairs.csv", "--alphas", "3", "--split", "val", "--tag", "group=seeds")
    assert outcome.status == 0
    rows = table("barrier.parquet")
    assert len(rows) == 3 * 2 * 3
    assert {row["group"] for row in rows} == {"seeds"}
    said = lines_of(outcome.err)
    assert said[1] == ["A", "B", "val", "loss", "agreement"]
    loss = {(row["run_a"], row["run_b"]): row["barrier"] for row in rows if row["metric"] == "loss"}
    shown = [("runs/a@400", "runs/b@400"), ("runs/a@0", "runs/c@400"), ("runs/b@400", "runs/b@400")]
    for (a, b), words in zip(shown, said[2:5], strict=True):
        assert words[:3] == [a, b, f"{loss[a.split('@')[0], b.split('@')[0]]:.4g}"]
        assert 0.0 <= float(words[3]) <= 1.0
    assert "from 3 pairs" in outcome.err
    assert outcome.widest <= 80


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_slip_that_concerns_all_pairs_is_a_usage_error_however_many_work(spectra: Fixture, workers: str) -> None:
    Path("pairs.csv").write_text("runs/a,runs/b\nruns/a@0,runs/b\n")
    outcome = spectra("barrier", "--pairs", "pairs.csv", "--alphas", "2", "--split", "wrong", "--workers", workers)
    assert outcome.status == 2
    assert outcome.err.count("--split wrong: the task has none") == 1
    assert not Path("barrier.parquet").exists()


@pytest.mark.usefixtures("runs")
def test_a_pair_that_cannot_be_used_is_3_and_names_itself(spectra: Fixture, table: Fixture) -> None:
    make_addition("runs/wide", 1, d_model=8)
    Path("pairs.csv").write_text("runs/a,runs/wide\nruns/a,runs/absent\nruns/a,runs/b\n")
    outcome = spectra("barrier", "--pairs", "pairs.csv", "--alphas", "2", "--split", "val", "--json")
    assert outcome.status == 3
    problems = [line for line in outcome.err.splitlines() if line.startswith("Warning: ")]
    assert len(problems) == 2
    assert problems[0].startswith(
        "Warning: runs/a and runs/wide: the option d_model of modular-addition is 4 for A and 8 for B; "
        "so 'decoder.weight' is 6 x 4 in A and 6 x 8 in B."
    )
    assert problems[1].startswith("Warning: runs/absent: does not exist")
    assert [row["status"] for row in table("barrier.parquet")] == ["task_mismatch", "no_input", *["ok"] * 4]
    assert "2 of 6 rows not ok: task_mismatch (1), no_input (1); see the column status" in outcome.err
    told = json.loads(outcome.out)
    assert [pair["status"] for pair in told["pairs"]] == ["task_mismatch", "no_input", "ok"]
    assert len(told["problems"]) == 2
    assert outcome.widest <= 80


@pytest.mark.usefixtures("runs")
def test_nothing_usable_is_1_and_writes_nothing(spectra: Fixture) -> None:
    Path("pairs.csv").write_text("runs/a,absent\nruns/a,missing\n")
    outcome = spectra("barrier", "--pairs", "pairs.csv")
    assert outcome.status == 1
    assert "none of the 2 pairs could be used; see above" in outcome.err
    assert not Path("barrier.parquet").exists()


@pytest.mark.usefixtures("runs")
def test_different_shapes_are_1_before_torch_is_asked_for_anything(spectra: Fixture) -> None:
    make_addition("runs/wide", 1, mlp=8)
    said = "'transformer_encoder.layers.0.linear1.bias' is 6 in A and 8 in B."
    for arguments in ((), ("--set", "mlp=6"), ("--task", "absent.py:make")):
        outcome = spectra("barrier", "runs/a", "runs/wide", "--device", "cuda:99", *arguments)
        assert outcome.status == 1
        (line,) = outcome.err.splitlines()
        why = "" if arguments else "the option mlp of modular-addition is 6 for A and 8 for B; so "
        assert line.startswith(f"Error: runs/a and runs/wide: {why}{said}")
    Path("runs/wide/run.json").write_text(json.dumps({"task": "speech"}))
    outcome = spectra("barrier", "runs/a", "runs/wide", "--device", "cuda:99")
    assert f"runs/wide: A was trained on modular-addition, B on speech; so {said}" in outcome.err
    for content in ("broken", json.dumps({"task": "modular-addition"})):
        Path("runs/wide/run.json").write_text(content)
        outcome = spectra("barrier", "runs/a", "runs/wide", "--device", "cuda:99")
        assert f"runs/wide: {said}" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["runs/a"], 2, "two PATHs are needed, A and B, or else --pairs FILE"),
        ([], 2, "two PATHs are needed"),
        (["runs/a", "runs/b", "--pairs", "pairs.csv"], 2, "--pairs and the PATH runs/a exclude each other"),
        (["runs/a", "runs/b", "--alphas", "1"], 2, "--alphas 1 leaves no room for both ends"),
        (["runs/a", "runs/b", "--batch-norm", "other"], 2, "--batch-norm other is no policy"),
        (["runs/a", "runs/b", "--split", "test"], 2, "--split test: the task has none. Its splits are train, val"),
        (["runs/a", "runs/b", "--set", "prime"], 2, "--set prime is not KEY=VALUE"),
        (["runs/a", "runs/b", "--set", "prme=7"], 2, "no option 'prme'. Did you mean prime"),
        (["runs/a", "runs/b", "--task", "modular-adition"], 2, "Did you mean modular-addition"),
        (["runs/a", "runs/b", "--task", "absent.py:make"], 2, "there is no such file"),
        (["runs/a", "runs/b", "--set", "prime=7"], 1, "'decoder.bias' is 6 in the checkpoint and 8 in the task's"),
        (["runs/a", "runs/b", "--set", "prime=7"], 1, "Leave it to the run.json, which says prime=5, not 7."),
        (["runs/a", "runs/b@7"], 1, "runs/b@7: no checkpoint has step 7"),
        (["runs", "runs/b"], 1, "runs: this holds 3 runs. Name one of them: runs/a, runs/b, runs/c"),
        (["runs/a", "absent"], 1, "absent: does not exist"),
        (["runs/a", "runs/b", "--pairs", "absent.csv"], 2, "exclude each other"),
        (["--pairs", "absent.csv"], 1, "absent.csv: cannot be read"),
        (["--pairs", "pairs.csv"], 2, "pairs.csv, line 2: 3 columns, not 2"),
        (["runs/a", "runs/b", "--out", "x.parquet", "--spectra-out", "x.parquet"], 2, "x.parquet"),
        (["runs/a", "runs/b", "--out", "x.csv"], 2, "x.csv"),
        (["runs/a", "runs/b", "--tag", "alpha=1"], 2, "--tag alpha: the table has a column of that name"),
        (["runs/a", "runs/b", "--include", "nothing.*"], 1, "no matrix is left by --include nothing.*"),
        (["runs/a", "runs/b", "--architecture", "absent"], 2, "absent"),
        (["runs/a", "runs/b", "--memory-budget", "lots"], 2, "lots"),
    ],
)
@pytest.mark.usefixtures("runs")
def test_what_cannot_be_is_told_in_one_paragraph(
    spectra: Fixture, arguments: list[str], status: int, said: str
) -> None:
    Path("pairs.csv").write_text("runs/a,runs/b\nruns/a,runs/b,runs/c\n")
    outcome = spectra("barrier", *arguments)
    assert (outcome.status, outcome.out) == (status, "")
    (line,) = outcome.err.splitlines()
    assert line.startswith("Error: ")
    assert said in line
    assert "Traceback" not in line
    assert not Path("barrier.parquet").exists()


@pytest.mark.usefixtures("runs")
def test_a_run_json_that_names_a_file_is_refused_and_its_code_not_run(spectra: Fixture) -> None:
    Path("evil.py").write_text("open('ran', 'w').close()\n")
    Path("runs/a/run.json").write_text(json.dumps({"task": "evil.py:make"}))
    outcome = spectra("barrier", "runs/a", "runs/b")
    assert outcome.status == 1
    assert "runs/a/run.json: names the task 'evil.py:make', a file" in outcome.err
    assert not Path("ran").exists()


def tiny_ends() -> None:
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        torch.save(tiny_tasks.mlp().model().state_dict(), f"{name}.pt")


def test_a_task_in_a_file_takes_its_options_from_the_command_line(spectra: Fixture, table: Fixture) -> None:
    tiny_ends()
    outcome = spectra("barrier", "a.pt", "b.pt", "--task", MLP, "--set", "width=7", "--alphas", "2")
    assert outcome.status == 0
    assert {row["checkpoint_b"] for row in table("barrier.parquet")} == {"b.pt"}
    assert "Barrier between a.pt and b.pt" in outcome.err
    outcome = spectra("barrier", "a.pt", "b.pt", "--task", MLP, "--data", "x")
    assert outcome.status == 2
    assert "no option 'data'" in outcome.err


def test_a_task_that_raises_is_told_by_its_own_line(spectra: Fixture) -> None:
    tiny_ends()
    Path("bad.py").write_text("def make():\n    return undefined\n")
    outcome = spectra("barrier", "a.pt", "b.pt", "--task", "bad.py:make")
    assert outcome.status == 1
    (line,) = outcome.err.splitlines()
    assert "bad.py, line 2, in make: return undefined: NameError: name 'undefined' is not defined" in line


@pytest.mark.usefixtures("runs")
def test_spectra_along_the_line_are_a_table_of_their_own(spectra: Fixture, table: Fixture) -> None:
    arguments = ["--alphas", "3", "--split", "val", "--spectra-out", "spectra.parquet", "--include", "*linear*"]
    outcome = spectra("barrier", "runs/a", "runs/b", *arguments, "--json")
    assert outcome.status == 0
    rows = table("spectra.parquet")
    assert list(rows[0]) == arrow_schema("barrier_spectra").names
    assert len(rows) == 3 * 2
    assert "spectra.parquet: 6 rows from 1 pair" in outcome.err
    told = json.loads(outcome.out)
    assert [(one["table"], one["out"], one["rows"]) for one in told["tables"]] == [
        ("barrier", "barrier.parquet", 6),
        ("barrier_spectra", "spectra.parquet", 6),
    ]
    assert len(told["tables"][0]["pairs"]) == 1
    spectra("rank", "runs/a@400", "runs/b@400", "--include", "*linear*")
    ranks = {(row["run"], row["parameter"]): row for row in table("rank.parquet")}
    for row in rows:
        if row["alpha"] != 0.5:
            rank = ranks["runs/a" if row["alpha"] == 0.0 else "runs/b", row["parameter"]]
            assert row["digest"] == rank["digest"]
            assert row["effective_rank"] == pytest.approx(rank["effective_rank"], rel=1e-9)
            assert row["singular_values"] == pytest.approx(rank["singular_values"], rel=1e-6)


@pytest.mark.usefixtures("runs")
def test_the_agreement_of_b_with_a_is_a_table_of_its_own(spectra: Fixture, table: Fixture) -> None:
    """For one pair the table that sva makes of B with --against A, also where nobody reads a summary."""
    arguments = ["--alphas", "2", "--split", "val", "--sva-out", "agreement.parquet", "--quiet"]
    assert spectra("barrier", "runs/a", "runs/b@400", *arguments).status == 0
    rows = table("agreement.parquet")
    assert pq.read_schema("agreement.parquet").equals(arrow_schema("sva", leave_out=("variant",)))
    spectra("sva", "runs/b@400", "--against", "runs/a")
    expected = table("sva.parquet")
    assert len(rows) == len(expected) == 6
    for row, other in zip(rows, expected, strict=True):
        assert (row["run"], row["checkpoint"], row["step"]) == ("runs/b", "step_400.safetensors", 400)
        assert (row["reference_run"], row["reference_step"]) == ("runs/a", 400)
        for name in ("depth", "parameter", "reference_checkpoint", "status"):
            assert row[name] == other[name], name
        assert row["score"] == pytest.approx(other["score"], abs=1e-6)
        assert row["diagonal"] == pytest.approx(other["diagonal"], abs=1e-5)


@pytest.mark.usefixtures("runs")
def test_agreement_of_many_pairs_has_rows_for_each_and_one_for_a_pair_that_cannot_be_used(
    spectra: Fixture, table: Fixture
) -> None:
    Path("pairs.csv").write_text("runs/a,runs/b\nruns/a,absent\nruns/c,runs/b@0\n")
    arguments = ["--alphas", "2", "--split", "val", "--sva-out", "agreement.parquet", "--include", "*linear*"]
    outcome = spectra("barrier", "--pairs", "pairs.csv", *arguments, "--json")
    assert outcome.status == 3
    named = [(row["reference_run"], row["run"], row["step"], row["status"]) for row in table("agreement.parquet")]
    assert named == [
        *[("runs/a", "runs/b", 400, "ok")] * 2,
        ("runs/a", "absent", None, "no_input"),
        *[("runs/c", "runs/b", 0, "ok")] * 2,
    ]
    told = json.loads(outcome.out)["tables"]
    assert (told[1]["table"], told[1]["statuses"]) == ("sva", {"ok": 4, "no_input": 1})
    assert "agreement.parquet: 5 rows from 3 pairs" in outcome.err


@pytest.mark.usefixtures("runs")
def test_two_points_have_none_between(spectra: Fixture) -> None:
    outcome = spectra("barrier", "runs/a", "runs/b", "--alphas", "2", "--json")
    heading, first = lines_of(outcome.err)[1:3]
    assert heading == ["metric", "at", "A", "at", "B", "barrier", "over", "midpoint"]
    (curve, *_) = json.loads(outcome.out)["pairs"][0]["curves"]
    numbers = (curve["value_a"], curve["value_b"], curve["barrier"])
    assert first[2:5] == [f"{number:.4g}" for number in numbers]
    assert (curve["value_middle"], curve["alpha_middle"]) == (None, None)


@pytest.mark.usefixtures("runs")
def test_values_that_are_not_finite_are_3_and_null(spectra: Fixture, table: Fixture) -> None:
    state = {key: tensor * torch.inf for key, tensor in ModularAddition(**SIZES).model().state_dict().items()}
    save_file(state, "runs/b/step_400.safetensors")
    outcome = spectra("barrier", "runs/a", "runs/b", "--alphas", "3", "--json")
    assert outcome.status == 3
    rows = [row for row in table("barrier.parquet") if row["metric"] == "loss"]
    assert [row["status"] for row in rows] == ["end_not_ok", "not_finite", "not_finite"] * 2
    assert {row["barrier"] for row in rows} == {None}
    (warning,) = [line for line in outcome.err.splitlines() if line.startswith("Warning: ")]
    assert warning.startswith("Warning: runs/a and runs/b: 4 of 12 values not_finite (train loss at alpha 0.5, ")
    (curve, *_) = json.loads(outcome.out)["pairs"][0]["curves"]
    assert (curve["value_b"], curve["barrier"]) == (None, None)


@pytest.mark.usefixtures("runs")
def test_quiet_prints_nothing(spectra: Fixture) -> None:
    outcome = spectra("barrier", "runs/a", "runs/b", "--quiet", "--alphas", "2")
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")
    assert Path("barrier.parquet").exists()


@pytest.mark.usefixtures("runs")
def test_a_glob_of_transposed_that_matches_nothing_is_told(spectra: Fixture) -> None:
    outcome = spectra("barrier", "runs/a", "runs/b", "--alphas", "2", "--transposed", "nothing", "--split", "val")
    assert outcome.status == 0
    assert "Warning: --transposed nothing matches no parameter." in outcome.err


def test_long_names_and_many_metrics_fit_a_narrow_terminal(spectra: Fixture) -> None:
    Path("wide.py").write_text(
        "from spectra_cli.tasks.base import Metric\n"
        "from tests.analyses import tiny_tasks\n"
        "class Wide(tiny_tasks.Classification):\n"
        "    splits = ('training', 'validation', 'test')\n"
        "    def batches(self, split):\n"
        "        return super().batches('val')\n"
        "    def metrics(self, model, batch):\n"
        "        loss = super().metrics(model, batch)['loss']\n"
        "        return {f'loss_of_the_part_numbered_{i}': loss for i in range(9)}\n"
        "def make():\n"
        "    return Wide(lambda: tiny_tasks.Network(7), tiny_tasks._vectors)\n"
    )
    names = [f"runs/{'a very long name ' * 4}{seed}" for seed in range(25)]
    for seed, name in enumerate(names):
        Path(name).mkdir(parents=True)
        torch.manual_seed(seed)
        torch.save(tiny_tasks.mlp().model().state_dict(), f"{name}/step_1000000.pt")
    alone = spectra("barrier", names[0], names[1], "--task", "wide.py", "--alphas", "2")
    Path("pairs.csv").write_text("".join(f'"{names[0]}","{name}"\n' for name in names))
    many = spectra("barrier", "--pairs", "pairs.csv", "--task", "wide.py:make", "--alphas", "2")
    for outcome in (alone, many):
        assert outcome.status == 0
        assert outcome.widest <= 80
    assert "... and 15 more" in alone.err
    assert "... and 5 more" in many.err


def test_names_are_no_markup(spectra: Fixture) -> None:
    tiny_ends()
    Path("[bold]").mkdir()
    Path("a.pt").rename("[bold]/a.pt")
    outcome = spectra("barrier", "[bold]/a.pt", "b.pt", "--task", MLP, "--alphas", "2")
    assert "Barrier between [bold]/a.pt and b.pt" in outcome.err
